"""Arguments and attributes are described by phrases that stand alone."""

import ast
import re

from tests.project.test_house import modules

_SECTION = re.compile(r"\n(?:Args|Attributes):\n((?: {4}.*\n?|\n)+)")
_ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)", re.MULTILINE)
#: A description that begins so goes on from the argument's name, and says nothing without it.
_HANGING = re.compile(
    r"(of|for|as|likewise|see|with|that|in|to|whose|which|where|by|at|on|from|than|under|between|beside|about|after|before|"
    r"per|and|or|if|when|must|may|is|are|has|have|it|they)\b",
    re.IGNORECASE,
)


def hanging(docstring):
    """Returns the entries of a docstring's arguments and attributes that do not stand alone."""
    entries = [entry for section in _SECTION.findall(f"{docstring}\n") for entry in _ENTRY.findall(section)]
    return [
        f"{name}: {words}" for name, words in entries if words[:1].islower() or _HANGING.match(words.lstrip("`*\"'"))
    ]


def test_hanging_phrases_are_found():
    docstring = (
        "Adds.\n\nArgs:\n    seed: of the run.\n    count: Number of rows.\n    other: As `seed`.\n\nReturns:\n    x.\n"
    )
    assert hanging(docstring) == ["seed: of the run.", "other: As `seed`."]


def test_arguments_and_attributes_are_described_by_phrases_that_stand_alone():
    found = [
        f"{module}.{node.name}: {entry}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (docstring := ast.get_docstring(node))
        for entry in hanging(docstring)
    ]
    assert not found
