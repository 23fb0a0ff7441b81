"""Draws the figures of docs/tutorial.md from the numbers in tutorial.json, which lie beside it.

    python docs/pictures/tutorial.py                     # tutorial.json → tutorial_*.svg
    python docs/pictures/tutorial.py --collect=FOLDER    # the runs of the tutorial's commands in FOLDER → tutorial.json

The numbers are losses and metrics of whole data sets. Nothing of a recording or a patient is collected.
"""

from __future__ import annotations

import argparse
import html
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NUMBERS = FOLDER / "tutorial.json"

_FONT = "font-family='Helvetica, Arial, sans-serif'"
_INK, _GREY, _LINE = "#22262b", "#5d6670", "#d4d8dd"
_COLOURS = ("#345d9d", "#a04545", "#2f7d63", "#a8741a", "#6b4b9a", "#22262b")

#: Width of a figure, and the place of its axes in it, in pixels.
_WIDTH, _LEFT, _RIGHT, _TOP = 720, 64, 24, 56

#: Metric that is drawn.
METRIC = "AUROC"


def collect(folder: Path) -> dict[str, Any]:
    """Returns the numbers of the runs that the tutorial's commands left in a folder."""
    run = folder / "runs" / "simclr"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    loss = {name: [[each["step"], round(each[name], 4)] for each in lines if name in each] for name in _LOSSES}
    return {
        "commands": _COMMANDS,
        "loss": loss,
        "few_labels": _rows(run / "norm" / "results.json"),
    }


_COMMANDS = "docs/tutorial.md, steps 2, 4 and 6, on 500 recordings"
_LOSSES = {"train/loss": "training", "eval/loss": "validation"}


def _rows(path: Path) -> list[dict[str, Any]]:
    """Returns the metric of every model, over all test records and all seeds, without differences."""
    rows = json.loads(path.read_text(encoding="utf-8"))["results"]
    return [
        {key: round(row[key], 6) if isinstance(row[key], float) else row[key] for key in _KEPT}
        for row in rows
        if (row["metric"], row["seed"], row["minus"], row["part"]) == (METRIC, None, "", "")
    ]


#: Name of a model in `results.json` → its title on the page.
TITLES = {
    "pretrained": "pretrained, linear probe",
    "random": "random initialisation, linear probe",
    "demographics": "age and sex, logistic",
    "intervals": "intervals and amplitudes, logistic",
    "boosted": "intervals and amplitudes, boosted trees",
    "median_beat": "median beat and heart rate, logistic",
}

_KEPT = ("model", "fraction", "estimate", "low", "high")


def loss(numbers: dict[str, Any]) -> str:
    """Returns the figure of the training's and the validation's loss."""
    series = {title: numbers["loss"][name] for name, title in _LOSSES.items()}
    steps = [step for line in series.values() for step, _ in line]
    values = [value for line in series.values() for _, value in line]
    low, high = math.floor(2 * min(values)) / 2, math.ceil(2 * max(values)) / 2
    x, y = _scale(0, max(steps), _LEFT, _WIDTH - _RIGHT), _scale(low, high, 260, _TOP)
    parts = [_text(_LEFT, 26, "NT-Xent loss over the steps of the pretraining", size=15, weight="bold")]
    parts += _grid(y, _ticks(low, high, 0.5), ".1f")
    parts += [_text(x(step), 282, f"{step:g}", anchor="middle", colour=_GREY) for step in _ticks(0, max(steps), 10)]
    for colour, (title, line) in zip(_COLOURS, series.items(), strict=False):
        parts += _curve([(x(step), y(value)) for step, value in line], colour)
        parts.append(_text(x(line[-1][0]) - 6, y(line[-1][1]) - 8, title, colour=colour, anchor="end"))
    return _svg(300, [*parts, _text((_LEFT + _WIDTH) // 2, 298, "step", anchor="middle", colour=_GREY)])


def few_labels(numbers: dict[str, Any]) -> str:
    """Returns the figure of every model over the share of the labelled training patients."""
    rows = numbers["few_labels"]
    fractions = sorted({row["fraction"] for row in rows})
    models = list(dict.fromkeys(row["model"] for row in rows))
    x = _scale(math.log(fractions[0]), math.log(fractions[-1]), _LEFT + 20, 400)
    y = _scale(0.4, 1.0, 300, _TOP)
    parts = [_text(_LEFT, 26, f"{METRIC} over the share of the labelled patients", size=15, weight="bold")]
    parts += _grid(y, _ticks(0.4, 1.0, 0.1), ".1f", right=420)
    parts += [_text(x(math.log(each)), 322, f"{each:.0%}", anchor="middle", colour=_GREY) for each in fractions]
    ends = []
    for colour, model in zip(_COLOURS * 2, models, strict=False):
        line = [(x(math.log(row["fraction"])), y(row["estimate"])) for row in rows if row["model"] == model]
        parts += _curve(line, colour)
        ends.append((line[-1][1], model, colour))
    place = 0.0
    for height, model, colour in sorted(ends):  # Titles stand at the curves' ends, no two on one another.
        place = max(height, place + 17)
        parts.append(_text(428, round(place) + 4, TITLES.get(model, model), colour=colour))
    return _svg(336, parts)


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    return lambda value: first + (value - low) / (high - low) * (last - first)


def _ticks(low: float, high: float, step: float) -> list[float]:
    return [round(low + step * number, 6) for number in range(round((high - low) / step) + 1)]


def _grid(
    y: Callable[[float], float], ticks: Iterable[float], form: str, *, right: float = _WIDTH - _RIGHT
) -> list[str]:
    found = []
    for tick in ticks:
        found.append(_rule(_LEFT, y(tick), right, y(tick), _LINE))
        found.append(_text(_LEFT - 8, y(tick) + 4, format(tick, form), anchor="end", colour=_GREY))
    return found


def _curve(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in points]
    return [f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'/>", *dots]


def _rule(x: float, y: float, to_x: float, to_y: float, colour: str, *, width: float = 1) -> str:
    return (
        f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{to_x:.1f}' y2='{to_y:.1f}' stroke='{colour}' stroke-width='{width:g}'/>"
    )


def _text(
    x: float, y: float, words: str, *, size: int = 12, weight: str = "normal", colour: str = _INK, anchor: str = "start"
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} font-size='{size}' font-weight='{weight}' text-anchor='{anchor}' "
        f"fill='{colour}'>{html.escape(words)}</text>"
    )


def _svg(height: int, parts: Iterable[str]) -> str:
    inside = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{height}' "
        f"viewBox='0 0 {_WIDTH} {height}'>\n<rect width='{_WIDTH}' height='{height}' fill='white'/>\n{inside}\n</svg>\n"
    )


PICTURES = {"tutorial_loss.svg": loss, "tutorial_few_labels.svg": few_labels}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="collect the numbers of the runs in this folder")
    if runs := parser.parse_args().collect:
        NUMBERS.write_text(json.dumps(collect(runs), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(NUMBERS)
    else:
        for name, draw in PICTURES.items():
            (FOLDER / name).write_text(draw(json.loads(NUMBERS.read_text(encoding="utf-8"))), encoding="utf-8")
            print(FOLDER / name)
