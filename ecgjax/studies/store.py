"""Cells of a study: models that are scored once on the test records, each in a file of its own.

An interrupted study continues with the missing cells. It is refused if anything else that its cells depend on changed.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from data_pipelines.errors import DataError
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.plain_models import Plain
from ecgjax.system.files import write_atomically

Initialisation = Literal["random", "pretrained"]
Mode = Literal["frozen", "finetuned", "plain"]

INITIALISATIONS: tuple[Initialisation, ...] = ("random", "pretrained")
MODES: tuple[Mode, ...] = ("frozen", "finetuned", "plain")

#: Names of the file with what a study's cells depend on, and of the folder of its cells.
STUDY_FILE, CELLS_DIR = "study.json", "cells"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """Specification of one model to train.

    Attributes:
        fraction: Fraction of the labelled training patients that is used.
        seed: Seed of the draw of labels, of the random initialisation, and of training.
        model: Initialisation of the encoder, `"pretrained"` or `"random"`, or plain model, such as `"age_sex"`.
        mode: `"frozen"` for a linear probe on the encoder's embeddings, `"finetuned"` for training all of it, or
            `"plain"` for a model without an encoder.
    """

    fraction: float
    seed: int
    model: Initialisation | Plain
    mode: Mode

    @property
    def name(self) -> str:
        """Name of the cell, from which its file is named."""
        return f"{self.mode}-{self.model}-{self.fraction:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """Result of training and scoring a cell.

    Attributes:
        cell: Cell that was trained.
        records, patients: Numbers of training records and of training patients.
        positives: Number of positive training records: for a multi-label task, of the class that has most; None for a
            quantity.
        val_metric: Primary metric of the selected model on validation; NaN if nothing was trained.
        selected: Description of what was selected on validation.
        scores: Scores of the test records, `f32[test records]` or `f32[test records, classes]`; None if nothing was
            trained.
        seconds: Duration of training and scoring, s.
        reason: Reason why nothing was trained; empty if something was.
        unlearnt: Number of classes of a multi-label task for which the training records lack one of the two labels.
    """

    cell: Cell
    records: int
    patients: int
    positives: int | None
    val_metric: float
    selected: str
    scores: np.ndarray | None
    seconds: float
    reason: str = ""
    unlearnt: int = 0

    def to_json(self) -> str:
        """Returns the text of the cell's file."""
        values = dataclasses.asdict(self)
        if self.scores is not None:
            scores = np.ascontiguousarray(self.scores, "<f4")
            packed = base64.b64encode(scores.tobytes()).decode()
            values["scores"] = {"shape": scores.shape, "float32_little_endian_base64": packed}
        else:
            values["val_metric"] = None
        return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CellResult:
        """Reads the text that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: The text is not of that form.
        """
        values: dict[str, Any] = json.loads(text)
        values["cell"] = Cell(**values["cell"])
        if values["scores"] is None:
            values["val_metric"] = float("nan")
        else:
            packed = base64.b64decode(values["scores"]["float32_little_endian_base64"], validate=True)
            values["scores"] = np.frombuffer(packed, "<f4").reshape(values["scores"]["shape"]).astype(np.float32)
        return cls(**values)


def begin_study(
    folder: Path, identity: Mapping[str, Any], *, upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> None:
    """Records what a new study's cells depend on, or checks that a study that is continued depends on the same.

    Args:
        folder: Folder of the study, made if it is missing.
        identity: Everything that the cells depend on, as plain values.
        upgrade: Function that writes the identity of an older study as it would be written today.

    Raises:
        ConfigError: The folder holds another study; the message names what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / STUDY_FILE
    now = json.loads(json.dumps(identity))
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is damaged ({error}); give another --out") from error
        if upgrade is not None:
            before = upgrade(before)
        differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if differing:
            raise ConfigError(
                f"--out={folder} holds another study: {', '.join(differing)} differ; give the same to go on, or "
                "another --out"
            )
        return
    write_atomically(path, json.dumps(now, indent=1, ensure_ascii=False) + "\n")


def run_cells(
    cells: Iterable[Cell], folder: Path, train: Callable[[Cell], CellResult], *, progress: bool = True
) -> list[CellResult]:
    """Trains the cells that have no file yet, and returns the results of all of them in order.

    Args:
        cells: Cells of the study.
        folder: Folder of the study.
        train: Function that trains a cell; labels that allow no model are told in `CellResult.reason`.
        progress: Whether a progress bar is drawn.

    Raises:
        DataError: The file of a cell is damaged.
    """
    cells = list(cells)
    (folder / CELLS_DIR).mkdir(exist_ok=True)
    found = {cell: result for cell in cells if (result := _read(folder, cell)) is not None}
    missing = [cell for cell in cells if cell not in found]
    done = len(cells) - len(missing)
    with tqdm(total=len(cells), initial=done, desc="cells", unit="cell", disable=None if progress else True) as bar:
        for cell in missing:
            bar.set_postfix_str(cell.name)
            result = found[cell] = train(cell)
            write_atomically(_path(folder, cell), result.to_json())
            bar.update()
    return [found[cell] for cell in cells]


def read_cells(folder: Path) -> list[CellResult]:
    """Returns the results of every finished cell of a study.

    Raises:
        DataError: The file of a cell is damaged.
    """
    return [_load(path) for path in sorted((folder / CELLS_DIR).glob("*.json"))]


def _path(folder: Path, cell: Cell) -> Path:
    return folder / CELLS_DIR / f"{cell.name}.json"


def _read(folder: Path, cell: Cell) -> CellResult | None:
    path = _path(folder, cell)
    if not path.is_file():
        return None
    result = _load(path)
    if result.cell != cell:
        raise DataError(f"{path}: holds the cell {result.cell.name}; remove it to train it again")
    return result


def _load(path: Path) -> CellResult:
    try:
        return CellResult.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: this cell is damaged ({error}); remove it to train it again") from error
