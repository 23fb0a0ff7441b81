"""Blocks of code and commands in README.md and docs/*.md, with the marks that say how each is tested.

A fenced block of bash or Python has a mark on the line before it, an HTML comment that no reader of the page sees:

    <!-- run -->                                  a test runs it as it stands
    <!-- run: tests/project/test_using_a_model.py -->    that test runs it, in a folder that it prepares
    <!-- needs: a cluster -->                     it cannot be run here; its commands are parsed
    <!-- parsed -->                               it is not run; its commands are parsed, its Python resolved

Commands that stand in indented blocks and in code within a sentence have no mark, and are parsed.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: What a block may need that a test does not have.
NEEDS = ("a cluster", "an accelerator", "an archive", "a bucket", "the network", "another machine")

#: Languages whose blocks must have a mark.
LANGUAGES = ("bash", "python")

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (run|parsed|needs)(?:: ([^\n]+?))? -->\n\s*\Z")
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}[^\n]*\n)+")
_IN_SENTENCE = re.compile(r"`((?:python -m|ecgjax|make) [^`]+)`")
_VARIABLE = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Mark:
    """What a page says of how a block is tested.

    Attributes:
        kind: Kind of the mark: `run`, `parsed` or `needs`.
        detail: Text after the colon: the path of a test, or what is needed; empty where there is none.
    """

    kind: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: Path of the page below the root.
        line: Number of the block's first line in the page, from 1.
        language: Language that the fence names; empty for an indented block, and for code within a sentence.
        code: Text of the block, without the indentation of the fence.
        mark: Mark before the block; None where there is none.
        fenced: Whether it stands between fences.
    """

    page: str
    line: int
    language: str
    code: str
    mark: Mark | None = None
    fenced: bool = True

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of the project that a page shows.

    Attributes:
        place: Page and line of the block.
        module: Name that `python -m` takes.
        arguments: Words after it.
        whole: Whether the page shows all of it: a line with `…`, and one within a sentence, leave things out.
    """

    place: str
    module: str
    arguments: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.place}: python -m {self.module} {shlex.join(self.arguments)}"


def pages() -> list[Path]:
    """Returns the pages that are read by users."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fenced_blocks(page: Path) -> list[Block]:
    """Returns the blocks between fences, in the order of the page."""
    text, found = page.read_text(encoding="utf-8"), []
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text[: fence.start()])
        found.append(
            Block(
                page=_name(page),
                line=text.count("\n", 0, fence.start(3)) + 1,
                language=fence[2],
                code=re.sub(rf"^{fence[1]}", "", fence[3], flags=re.MULTILINE),
                mark=Mark(mark[1], mark[2] or "") if mark else None,
            )
        )
    return found


def unmarked_commands(page: Path) -> list[Block]:
    """Returns what else shows commands: indented blocks, and code within sentences."""
    # Fences become empty lines, so that places stay as they are.
    text = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), page.read_text(encoding="utf-8"))
    shown = [(each.start(), re.sub(r"^ {4}", "", each[0], flags=re.MULTILINE)) for each in _INDENTED.finditer(text)]
    shown += [(each.start(), each[1].replace("\n", " ")) for each in _IN_SENTENCE.finditer(_INDENTED.sub(_blank, text))]
    return [
        Block(page=_name(page), line=text.count("\n", 0, at) + 1, language="", code=code, fenced=False)
        for at, code in shown
    ]


def commands_of(block: Block) -> list[Command]:
    """Returns the project's commands of a block of shell, those after `--` of a launcher included."""
    found, variables = [], {}
    for words in _simple_commands(block.code):
        given = list(words)
        while given and _VARIABLE.fullmatch(given[0]):
            name, _, value = given.pop(0).partition("=")
            variables[name] = value
        for program in _programs(given):
            arguments = tuple(each for word in program[1:] if (each := _filled(word, variables)) is not None)
            whole = block.fenced and not any("…" in word for word in program)
            found.append(Command(place=str(block), module=program[0], arguments=arguments, whole=whole))
    return found


def _programs(words: Sequence[str]) -> Iterator[list[str]]:
    """Yields module and arguments of a line, and of the command that a launcher is given after `--`."""
    words = [word for word in words if word not in ("[", "]")]
    for place in range(len(words)):
        if words[place : place + 1] == ["ecgjax"] and place == 0 and len(words) > 1:
            yield [words[1] if words[1] == "help" else f"ecgjax.{words[1]}", *words[2:]]
        elif words[place : place + 2] in (["python", "-m"], ["python3", "-m"]) and len(words) > place + 2:
            yield words[place + 2 :]


def _filled(word: str, variables: Mapping[str, str]) -> str | None:
    """Returns a word as it is parsed: with the values of variables, and something in the place of what is left out."""
    if word.startswith("[") or (word.endswith("]") and "[" not in word):
        word = word.strip("[]")  # What may be left out stands in brackets.
    if word in ("…", "$@", ""):
        return None
    if word.endswith("=…"):
        return f"{word[:-1]}{_LEFT_OUT.get(word[:-2], 'X')}"
    return re.sub(r"\$\{?(\w+)\}?", lambda name: variables.get(name[1], name[0]), re.sub(r",?…", "", word))


#: Value of a flag whose value a page leaves out.
_LEFT_OUT = {"--config": "simclr:small"}


def _simple_commands(code: str) -> Iterator[list[str]]:
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|(){}")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        try:
            split = list(lexer)
        except ValueError:  # A sentence with an apostrophe is no command.
            continue
        for word in split:
            if word and set(word) <= set(";&|(){}"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
