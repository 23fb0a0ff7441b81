"""Manifests as YAML: what Kubernetes reads, with every text that could be something else in quotes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

#: What a manifest is made of.
Node = Mapping[str, "Node"] | Sequence["Node"] | str | int | bool

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
#: Words that are no texts in some version of YAML.
_NO_TEXTS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")


def yaml_text(node: Node) -> str:
    """Returns a manifest as YAML in block style, with a line end.

    Args:
        node: Mappings, lists, texts, whole numbers and truth values, in any depth.
    """
    return "".join(f"{line}\n" for line in _lines(node))


def _lines(node: Node) -> list[str]:
    found: list[str] = []
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            lines = _lines(value)
            nested = not isinstance(value, str) and isinstance(value, Mapping | Sequence) and bool(value)
            found += [f"{_scalar(name)}:", *(f"  {line}" for line in lines)] if nested else [
                f"{_scalar(name)}: {lines[0]}", *lines[1:]
            ]  # fmt: skip
        return found
    if isinstance(node, Sequence) and not isinstance(node, str) and node:
        for value in node:
            first, *rest = _lines(value)
            found += [f"- {first}", *(f"  {line}" for line in rest)]
        return found
    if isinstance(node, str) and _is_block(node):
        return ["|", *(f"  {line}" for line in node[:-1].split("\n"))]
    return [_scalar(node)]


def _is_block(text: str) -> bool:
    """Returns whether a text of several lines can be shown as it is."""
    lines = text.split("\n")
    whole = len(lines) > 2 and not lines[-1] and all(line and not line.startswith(" ") for line in lines[:-1])
    return whole and all(line.isprintable() for line in lines)


def _scalar(node: Node) -> str:
    if isinstance(node, str):
        if _PLAIN.fullmatch(node) and node.lower() not in _NO_TEXTS:
            return node
        # A text in JSON is one in YAML too, but for characters that cannot be printed.
        return "".join(
            each if each.isprintable() else f"\\U{ord(each):08x}" for each in json.dumps(node, ensure_ascii=False)
        )
    if isinstance(node, bool):
        return "true" if node else "false"
    return str(node) if isinstance(node, int) else json.dumps(node)
