"""Draws the pictures of docs/how_it_works.md from the code as it is: the house, and a batch's way through it.

    python docs/pictures/draw.py

It writes house.svg and batch.svg beside itself. The house is read from the imports of every module, so that a folder or
an arrow that is new is in the picture; a test compares the files with what would be drawn.
"""

from __future__ import annotations

import ast
import collections
import html
from collections.abc import Iterable, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

#: Package → colour of its rooms, and of their outlines.
_COLOURS = {
    "data_pipelines": ("#e3f1ec", "#2f7d63"),
    "ecgjax": ("#e6edf8", "#345d9d"),
    "configs": ("#fbf0dc", "#a8741a"),
    "launch": ("#f6e4e4", "#a04545"),
}
_FONT = "font-family='Helvetica, Arial, sans-serif'"
_INK, _GREY = "#22262b", "#5d6670"

#: Of the house: width of the picture and of a package's half, height of a row, and of a box in it, in pixels.
_WIDTH, _HALF, _ROW, _BOX, _GAP, _TOP = 1240, 600, 46, 30, 10, 96

#: Of a batch's way: place in words, what is there, and the module that makes it.
_STATIONS = (
    ("A", "A file", "WFDB, DICOM, XML, HDF5, NumPy, MATLAB, CSV", "data_pipelines/readers/formats.py"),
    ("B", "A recording", "samples in mV, rate, leads: as the file states them", "data_pipelines/recording.py"),
    ("C", "A record", "checked, filtered, cut: int16[time, 8], 1 µV a step", "data_pipelines/signals/conversion.py"),
    (
        "D",
        "A shard and its index",
        "ArrayRecord, a column an attribute, quarantine with reasons",
        "data_pipelines/shards/",
    ),
    ("E", "Record numbers of a step", "a pure function of (seed, step)", "data_pipelines/streaming/sampler.py"),
    ("F", "Rows of this process", "int16[rows, time, 8], read ahead by Grain", "data_pipelines/streaming/batches.py"),
    ("G", "The batch on the mesh", "rows divided over the mesh axis `data`", "ecgjax/training/device_mesh.py"),
    ("H", "Views", "f32[rows · views, time, leads] in mV, keyed by row", "ecgjax/augmentations/views.py"),
    ("I", "Embeddings", "f32[rows · views, dim], one encoder call", "ecgjax/encoders/registry.py"),
    ("J", "Embedding rows", "who, when, which lead: what relations look at", "ecgjax/training/embedding_rows.py"),
    ("K", "The objective", "relation → fold over tiles of pairs → miner, loss", "ecgjax/objectives/objective.py"),
    ("L", "The update", "gradient over all devices, Optax", "ecgjax/training/steps.py"),
    ("M", "A checkpoint", "parameters, statistics, and the records trained on", "ecgjax/training/checkpoints/"),
    ("N", "Features of records", "f32[records, dim], firewall passed", "ecgjax/evaluation/features/"),
    ("O", "A study and its report", "beside random, labels only, plain measurements", "ecgjax/studies/"),
)
#: First station of each part of the way, and what to call the part.
_PARTS = {"A": "once, without an accelerator", "E": "every step, on the host", "H": "every step, one compiled program",
          "M": "afterwards"}  # fmt: skip


def modules() -> dict[str, ast.Module]:
    """Returns the syntax tree of every module of the code, by its dotted name."""
    files = [path for package in _COLOURS for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, files, strict=True)}


def room_of(module: str) -> str:
    """Returns the room of a module: its folder of the first level, or what stands at the package's top."""
    package, *inside = module.split(".")
    if package in ("configs", "launch"):
        return package
    if len(inside) > 1 and inside[0] == "evaluation":
        return f"{package}.{inside[0]}"
    return f"{package}.{inside[0]}" if inside else package


def arrows_between_rooms(known: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Returns room → rooms that its modules import from; faces of packages are left out."""
    arrows: dict[str, set[str]] = collections.defaultdict(set)
    for name, tree in known.items():
        if (ROOT / name.replace(".", "/")).is_dir():
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    target = full if full in known else node.module
                    if target in known and room_of(target) != room_of(name):
                        arrows[room_of(name)].add(room_of(target))
    return arrows


def levels(arrows: Mapping[str, set[str]], rooms: Iterable[str]) -> dict[str, int]:
    """Returns the level of every room: one above the highest room that it uses."""
    found: dict[str, int] = {}

    def level(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((level(each) for each in arrows.get(room, ())), default=-1)
        return found[room]

    for room in sorted(rooms):
        level(room)
    return found


def house() -> str:
    """Returns the picture of the house as SVG: the two packages side by side, what is used below what uses it."""
    known = modules()
    rooms = {room_of(name) for name in known if name.count(".") or name in ("configs", "launch")}
    commands = {room_of(name) for name, tree in known.items() if any(map(_runs, tree.body)) and name.count(".") == 1}
    arrows = arrows_between_rooms(known)
    placed = levels(arrows, rooms)
    parts = [_text(24, 36, "The house", size=22, weight="bold"), _text(24, 60, _CAPTION, colour=_GREY)]
    lowest = 0
    for package, left in (("data_pipelines", 20), ("ecgjax", 20 + _HALF + 20)):
        own = sorted(room for room in rooms if room.split(".")[0] == package or _beside(room) == package)
        rows: dict[int, list[str]] = collections.defaultdict(list)
        for room in own:
            rows[placed[room]].append(room)
        y = _TOP + 12
        for level in sorted(rows, reverse=True):
            for line in _lines(rows[level]):
                x = left
                for room in line:
                    parts.append(_box(x, y, room, command=room in commands and room not in ("configs", "launch")))
                    x += _box_width(room) + _GAP
                y += _ROW - 8
            y += 6
        lowest = max(lowest, y)
        parts.append(_text(left, _TOP, package, size=15, weight="bold", colour=_COLOURS[package][1]))
    return _svg(_WIDTH, lowest + 16, parts)


_CAPTION = (
    "A room uses rooms below it, never above: every line of boxes may use all lines under it. "
    "Boxes with a bold edge are commands."
)


def _beside(room: str) -> str:
    return {"configs": "ecgjax", "launch": "ecgjax"}.get(room, "")


def _runs(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def _lines(rooms: list[str]) -> list[list[str]]:
    """Breaks a level's boxes into lines that fit the half of a package."""
    lines: list[list[str]] = [[]]
    for room in rooms:
        if lines[-1] and sum(_box_width(each) + _GAP for each in (*lines[-1], room)) > _HALF:
            lines.append([])
        lines[-1].append(room)
    return lines


def _label(room: str) -> str:
    name = room.rpartition(".")[2]
    return f"{name}/" if (ROOT / room.replace(".", "/")).is_dir() else name


def _box_width(room: str) -> int:
    return 26 + round(8.2 * len(_label(room)))


def _box(x: int, y: int, room: str, *, command: bool) -> str:
    fill, edge = _COLOURS[room.split(".")[0]]
    return (
        f"<rect x='{x}' y='{y}' width='{_box_width(room)}' height='{_BOX}' rx='5' fill='{fill}' stroke='{edge}' "
        f"stroke-width='{2.4 if command else 1}'/>" + _text(x + 12, y + 20, _label(room), size=13)
    )


def batch() -> str:
    """Returns the picture of a batch's way as SVG: lettered stations, what is there, and which module makes it."""
    parts = [_text(24, 36, "A batch's way", size=22, weight="bold")]
    y = 64
    for letter, title, what, module in _STATIONS:
        if letter in _PARTS:
            y += 14
            parts.append(_text(24, y + 12, _PARTS[letter], size=13, colour=_GREY, weight="bold"))
            y += 24
        elif letter != "A":
            parts.append(f"<path d='M 41 {y - 12} L 41 {y}' stroke='{_GREY}' stroke-width='1.6'/>")
        fill, edge = _COLOURS[module.split("/")[0]]
        parts += [
            f"<rect x='24' y='{y}' width='1000' height='34' rx='5' fill='{fill}' stroke='{edge}'/>",
            _text(36, y + 22, letter, size=14, weight="bold", colour=edge),
            _text(62, y + 22, title, size=14, weight="bold"),
            _text(310, y + 22, what, size=13),
            _text(730, y + 22, module, size=12, colour=_GREY),
        ]
        y += 46
    return _svg(1048, y, parts)


def _text(x: int, y: int, words: str, *, size: int = 13, weight: str = "normal", colour: str = _INK) -> str:
    return (
        f"<text x='{x}' y='{y}' {_FONT} font-size='{size}' font-weight='{weight}' fill='{colour}'>"
        f"{html.escape(words)}</text>"
    )


def _svg(width: int, height: int, parts: Iterable[str]) -> str:
    inside = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>\n"
        f"<rect width='{width}' height='{height}' fill='white'/>\n{inside}\n</svg>\n"
    )


PICTURES = {"house.svg": house, "batch.svg": batch}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
        print(FOLDER / name)
