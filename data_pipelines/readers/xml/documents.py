"""Reads XML defensively: no entity is expanded, nothing is fetched, and errors name what is missing.

Elements are found by their local name, because vendors agree less on namespaces than on names.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from data_pipelines.errors import RecordError
from data_pipelines.files.contents import read_contents
from data_pipelines.files.refusals import header_disagrees, missing_metadata, truncated_file, unreadable_header

#: Largest size of a document in bytes: ten seconds of twelve leads take less than one megabyte in any of the formats.
MAX_BYTES = 2**27

#: Largest number of elements and attributes in a document: hours of recordings have a few thousand.
MOST_NODES = 500_000
_MOST_NESTED = 100

#: Largest number in any unit; none of the values that these formats state is larger.
LARGEST_NUMBER = 1e12

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", flags=re.ASCII)


def read_document(path: Path | str | Node) -> Node:
    """Reads an XML document.

    Args:
        path: Path of the file, or the document's root, which is then returned unchanged.

    Returns:
        The root element.

    Raises:
        RecordError: The file does not exist (`missing_file`) or is not safe, well-formed XML (`unreadable_header`).
    """
    if isinstance(path, Node):
        return path
    content = read_contents(Path(path), max_bytes=MAX_BYTES, form="XML")
    parser = DefusedXMLParser(target=_BoundedBuilder())
    try:
        parser.feed(content)
        return Node(parser.close(), str(path))
    except DefusedXmlException as error:
        raise unreadable_header(
            f"{path}: defines an entity or refers to another document ({error}), which no recorder does; "
            "find out where it comes from"
        ) from error
    except (ParseError, ValueError, LookupError) as error:  # The latter two concern encodings.
        message = f"{path}: not well-formed XML ({error}); it is damaged or truncated: export it again"
        raise unreadable_header(message) from error


class _BoundedBuilder(TreeBuilder):
    """Builds a document's tree; raises `ValueError` if it has more nodes or is deeper than that of any recording.

    Four bytes of text can make an element of a hundred bytes, so a small file could fill the memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._nodes = self._depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        """Adds the start of an element; raises `ValueError` if elements are too many or nested too deep."""
        self._nodes += 1 + len(attrs)
        self._depth += 1
        if self._nodes > MOST_NODES or self._depth > _MOST_NESTED:
            raise ValueError(f"more than {MOST_NODES} elements and attributes, or nested more than {_MOST_NESTED} deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        """Adds the end of an element."""
        self._depth -= 1
        return super().end(tag)


@dataclasses.dataclass(frozen=True)
class Node:
    """An element of a document, with the document's name for messages.

    Attributes:
        element: The element.
        source: Name of the file.
    """

    element: Element
    source: str

    @property
    def name(self) -> str:
        """The element's name without its namespace."""
        return self.element.tag.rpartition("}")[2]

    def refused(self, what: str, refusal: Callable[[str], RecordError] = unreadable_header) -> RecordError:
        """Returns the error for a document that has the fault `what`; the message asks to export the file again."""
        return refusal(f"{self.source}: {what}; export the file again")

    def all(self, path: str) -> list[Node]:
        """Returns every element at a path of local names, such as `component/series`, in any namespace."""
        found = self.element.findall("/".join(f"{{*}}{name}" for name in path.split("/")))
        return [Node(element, self.source) for element in found]

    def only(self, path: str) -> Node:
        """Returns the only element at a path.

        Raises:
            RecordError: There is no such element, or there are several (`unreadable_header`).
        """
        if len(found := self.all(path)) != 1:
            raise self.refused(f"{self.name} has {len(found)} elements {path}, one is needed")
        return found[0]

    def text(self, path: str) -> str:
        """Returns the text of the first element at a path, empty where there is none."""
        found = self.all(path)
        return (found[0].element.text or "").strip() if found else ""

    def attribute(self, path: str, name: str) -> str:
        """Returns an attribute of the first element at a path, empty where either is missing."""
        found = self.all(path)
        return found[0].element.get(name, "").strip() if found else ""

    def number(self, text: str, what: str) -> float:
        """Returns a number of the document whose absolute value is at most `LARGEST_NUMBER`.

        Args:
            text: Text of the document, empty where it has none.
            what: Name of the value, for messages.

        Raises:
            RecordError: There is no text (`missing_metadata`), or it is not such a number (`unreadable_header`).
        """
        if not text:
            raise self.refused(f"does not state its {what}, without which it means nothing", missing_metadata)
        # float() would also take '5_0', digits of other scripts, 'nan' and 'inf'.
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not abs(value) <= LARGEST_NUMBER:
            raise self.refused(f"{what} is '{text[:40]}', a number is needed")
        return value

    def rate(self, text: str, what: str) -> float:
        """Returns a number such as a sampling rate; raises `RecordError` as `number` does, or if it is not positive."""
        if (value := self.number(text, what)) <= 0:
            raise self.refused(f"{what} is '{text}', it must be above zero")
        return value

    def check_count(self, text: str, what: str, *, found: int) -> None:
        """Compares a count that a file may state with the actual one.

        Args:
            text: Count that the file states, empty where it states none.
            what: Name of the count, for messages.
            found: Actual count.

        Raises:
            RecordError: The counts differ (`header_disagrees`), or the text is not a number (`unreadable_header`).
        """
        if text and self.number(text, what) != found:
            raise self.refused(f"{what} is {text}, but it holds {found}", header_disagrees)

    def check_number(self, text: str, what: str, *, needed: int) -> None:
        """Refuses a file that states another number than the only supported one.

        Args:
            text: Number that the file states, empty where it does not.
            what: Name of the number.
            needed: Supported number.

        Raises:
            RecordError: The number is another one, or is not a number (`unreadable_header`).
        """
        if text and self.number(text, what) != needed:
            raise unreadable_header(f"{self.source}: {what} is {text}; only files where it is {needed} are read")

    def base64(self, text: str, what: str) -> bytes:
        """Decodes base64, ignoring white space.

        Args:
            text: Text to decode.
            what: Name of the value, for messages.

        Raises:
            RecordError: The text is not base64, or is empty (`truncated_file`).
        """
        try:
            content = base64.b64decode("".join(text.split()), validate=True)
        except ValueError as error:
            message = f"{self.source}: {what} is not base64 ({error}); it is damaged or cut: export the file again"
            raise truncated_file(message) from error
        if not content:
            raise self.refused(f"{what} is empty", truncated_file)
        return content


def stacked(leads: Sequence[np.ndarray], names: Sequence[str], *, source: str) -> np.ndarray:
    """Combines leads into one array.

    Args:
        leads: Samples of each lead, `[time]`.
        names: Names of the leads, for messages.
        source: Name of the file, for messages.

    Returns:
        The samples, `f64[time, lead]`.

    Raises:
        RecordError: There is no lead (`missing_lead`), or leads have unequal lengths (`header_disagrees`).
    """
    if not leads:
        raise RecordError(f"{source}: holds no lead; export the file again", reason="missing_lead")
    if len({len(lead) for lead in leads}) > 1:
        each = ", ".join(f"{name} {len(lead)}" for name, lead in zip(names, leads, strict=True))
        raise header_disagrees(f"{source}: leads of unequal length ({each} samples); export the file again")
    return np.stack(leads, axis=1).astype(np.float64)
