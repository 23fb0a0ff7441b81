"""The roofline as text: for a terminal of 80 columns, and as the tables of docs/scaling.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDTH = 80

_Figures = Mapping[str, Any]


def terminal(figures: _Figures) -> str:
    """Returns the tables for a terminal.

    Args:
        figures: Figures as `roofline.compute` returns them.
    """
    priced = any(size["cost"] for _, _, size in _sizes(figures))
    return "\n".join(
        [
            *_wrapped(figures["note"]),
            "",
            "One chip. GB: memory of a step; !: more than three quarters of the chip's.",
            _ALONE.format("encoder", "chip", "batch", "GFLOP/ECG", "FLOP/B", "MFU≤", "ECG/s≤", "GB"),
            *(_alone(encoder, chip) for encoder, chip in _chips(figures)),
            "",
            f"Chips together, {figures['epochs']} epoch(s). GB/s: int16 signals that each host must deliver.",
            *_wrapped(figures["host"]["note"]),
            _TOGETHER.format("encoder", "chip", "chips", "ECG/s≤", "limit", "GB/s", "h/1M", "h/100M")
            + ("  cost/1M" if priced else ""),
            *(_together(encoder, chip, size, priced=priced) for encoder, chip, size in _sizes(figures)),
            "",
            f"Stored int16 signals: {_of_datasets(figures)}.",
        ]
    )


def markdown(figures: _Figures) -> str:
    """Returns the tables of docs/scaling.md: ceilings of a chip, chips together, and what a host must deliver.

    Args:
        figures: Figures as `roofline.compute` returns them.
    """
    chips = [chip["chip"] for chip in figures["encoders"][0]["chips"]]
    encoders: Sequence[_Figures] = figures["encoders"]
    alone = [[each["encoder"], *_of_trace(each), *map(_ceiling, each["chips"])] for each in encoders]
    together = [
        [each["encoder"], str(size["chips"]), *(_limit(chip["sizes"][place]) for chip in each["chips"])]
        for each in encoders
        for place, size in enumerate(each["chips"][0]["sizes"])
    ]
    needs = [[each["encoder"], *map(_need, each["chips"])] for each in encoders]
    return "\n".join(
        [
            *_table(["encoder", "GFLOP an ECG", "FLOP a byte", *chips], alone),
            "",
            *_table(["encoder", "chips", *chips], together),
            "",
            *_table(["encoder", *chips], needs),
        ]
    )


_ALONE = "{:<18} {:<5}{:>6}{:>10}{:>8}{:>7}{:>9}{:>9}"
_TOGETHER = "{:<18} {:<5}{:>6}{:>7} {:<11}{:>7}{:>7}{:>8}"


def _alone(encoder: _Figures, chip: _Figures) -> str:
    return _ALONE.format(
        encoder["encoder"],
        chip["chip"],
        chip["batch"],
        _short(chip["gflop_per_ecg"]),
        _short(chip["flop_per_byte"]),
        f"{chip['mfu_ceiling']:.2f}",
        _short(chip["ecgs_per_sec"]),
        _short(chip["memory_bytes"] / 1e9) + ("" if chip["fits"] else "!"),
    )


def _together(encoder: _Figures, chip: _Figures, size: _Figures, *, priced: bool) -> str:
    line = _TOGETHER.format(
        encoder["encoder"],
        chip["chip"],
        size["chips"],
        _short(size["ecgs_per_sec"]),
        size["limit"],
        _short(size["host_needed_bytes_per_sec"] / 1e9),
        _short(size["hours"]["1m"]),
        _short(size["hours"]["100m"]),
    )
    return line + (f"{_short(size['cost']['1m']) if size['cost'] else '-':>9}" if priced else "")


def _of_trace(encoder: _Figures) -> list[str]:
    """Returns FLOP and FLOP a byte of the first chip's batch; those of other batches differ little."""
    chip = encoder["chips"][0]
    return [_short(chip["gflop_per_ecg"]), _short(chip["flop_per_byte"])]


def _ceiling(chip: _Figures) -> str:
    return f"{chip['mfu_ceiling']:.2f}, {_short(chip['ecgs_per_sec'])}, batch {chip['batch']}"


def _limit(size: _Figures) -> str:
    return f"{_short(size['ecgs_per_sec'])}, {size['limit']}, {_short(size['hours']['100m'])} h"


def _need(chip: _Figures) -> str:
    """Returns what is asked of each host by the number of chips that asks most."""
    size = max(chip["sizes"], key=lambda each: each["host_needed_cores"])
    return f"{_short(size['host_needed_bytes_per_sec'] / 1e9)} GB/s, {_short(size['host_needed_cores'])} cores"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(each)} |" for each in (head, ["---"] * len(head), *rows)]


def _chips(figures: _Figures) -> Iterator[tuple[_Figures, _Figures]]:
    for encoder in figures["encoders"]:
        for chip in encoder["chips"]:
            yield encoder, chip


def _sizes(figures: _Figures) -> Iterator[tuple[_Figures, _Figures, _Figures]]:
    for encoder, chip in _chips(figures):
        for size in chip["sizes"]:
            yield encoder, chip, size


def _of_datasets(figures: _Figures) -> str:
    sizes: Mapping[str, float] = figures["dataset_bytes"]
    return ", ".join(f"{_short(size / 1e12)} TB for {name.upper()}" for name, size in sizes.items())


def _short(value: float) -> str:
    """Returns a number in at most three digits, with k or M for thousands or millions."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{_digits(value / size)}{letter}"
    return _digits(value)


def _digits(value: float) -> str:
    if value < 0.0995:
        return f"{value:.2g}" if value > 0.00095 else f"{value:.1g}"
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
