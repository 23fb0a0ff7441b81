"""The hooks of pre-commit run what `make lint` runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_hooks_are_the_linters_of_make_lint():
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    tools = set(re.findall(r"-m (ruff check|ruff format|mypy)", lint))
    hooks = re.findall(
        r"entry: \.venv/bin/python -m (.+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    )
    assert len(tools) == 3
    assert {tool for tool in tools for hook in hooks if hook.startswith(tool)} == tools
    (types,) = (hook for hook in hooks if hook.startswith("mypy"))
    assert f"-m {types}\n" in lint + "\n"
