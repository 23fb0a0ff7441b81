"""Cells of a study: models that are each trained and scored once, with a file for each.

An interrupted study continues with the missing cells. An error is raised if anything that its cells depend on has
changed.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from data_pipelines.errors import DataError
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.answers import Answers
from ecgjax.studies.model_names import ModelName
from ecgjax.studies.readouts import MODELS_OF_READOUT
from ecgjax.system.files import write_atomically

Mode = Literal["frozen", "finetuned", "plain"]

#: Readouts of encoders that are not trained on.
FROZEN = tuple(readout for readout in MODELS_OF_READOUT if readout != "finetuned")

MODES: tuple[Mode, ...] = ("frozen", "finetuned", "plain")

#: Models of the cells of each mode, as the names of their files have them, and their keys in `models`.
CELL_MODELS: Mapping[Mode, Mapping[str, ModelName]] = {
    "frozen": {
        "random": "random",
        "pretrained": "pretrained",
        **{model: model for readout in FROZEN for model in MODELS_OF_READOUT[readout] if model != "measured"},
        "random_grid": "random_grid",
    },
    "finetuned": {"random": "supervised", "pretrained": "finetuned"},
    # Files of studies from before there was a linear model have the name `intervals` for the trees.
    "plain": {
        "age_sex": "demographics",
        "intervals_linear": "intervals",
        "intervals": "boosted",
        "median_beat": "median_beat",
        "measured": "measured",
    },
}

#: Names of the file with what a study's cells depend on, and of the folder of its cells.
STUDY_FILE, CELLS_DIR = "study.json", "cells"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """Specification of one model to train.

    Attributes:
        fraction: Fraction of the labelled training patients that is used.
        seed: Seed of the draw of labels, of the random initialisation, and of training.
        model: Initialisation of the encoder, `"pretrained"` or `"random"`, or plain model, such as `"age_sex"`.
        mode: `"frozen"` for a readout of the encoder as it is, by default a linear probe on its embeddings;
            `"finetuned"` for training all of it; or `"plain"` for a model without an encoder.
    """

    fraction: float
    seed: int
    model: str
    mode: Mode

    @property
    def name(self) -> str:
        """Name of the cell, and of its file without the suffix."""
        return f"{self.mode}-{self.model}-{self.fraction:g}-seed{self.seed}"

    @property
    def trained(self) -> ModelName:
        """Key of the model that is trained, one of those of `models.py`."""
        return CELL_MODELS[self.mode][self.model]


class TrainedCell(NamedTuple):
    """A cell that was trained.

    Attributes:
        cell: Cell that was trained.
        answers: Predictions of the cell's model for the test records, in float32.
        patients: Number of training patients.
        seconds: Duration of training and scoring, s.
        unlearnt: Number of classes of a multi-label task for which the training records lack one of the two labels.
    """

    cell: Cell
    answers: Answers
    patients: int
    seconds: float
    unlearnt: int = 0

    def to_json(self) -> str:
        """Returns the content of the cell's file, JSON."""
        answers, scores = self.answers, None
        if answers.outputs is not None:
            # The order of the bytes is fixed, so that a study can go on on another machine.
            outputs = np.ascontiguousarray(answers.outputs, "<f4")
            packed = base64.b64encode(outputs.tobytes()).decode()
            scores = {"shape": outputs.shape, "float32_little_endian_base64": packed}
        values = {
            "cell": dataclasses.asdict(self.cell),
            "records": answers.records,
            "patients": self.patients,
            "positives": answers.positives,
            # Without a model it is NaN, which JSON does not have.
            "val_metric": None if scores is None else answers.val_metric,
            "selected": answers.selected,
            "scores": scores,
            "seconds": self.seconds,
            "reason": answers.reason,
            "unlearnt": self.unlearnt,
        }
        return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TrainedCell:
        """Reads the text that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: The text is not of that form.
        """
        values: dict[str, Any] = json.loads(text)
        of_cell = {name: values.pop(name) for name in ("patients", "seconds")}
        # Older cells do not say how many classes were not learnt.
        cell, unlearnt, scores = Cell(**values.pop("cell")), values.pop("unlearnt", 0), values.pop("scores")
        if scores is None:
            values["val_metric"] = math.nan
        else:
            packed = base64.b64decode(scores["float32_little_endian_base64"], validate=True)
            scores = np.frombuffer(packed, "<f4").reshape(scores["shape"]).astype(np.float32)
        return cls(cell=cell, answers=Answers(outputs=scores, **values), unlearnt=unlearnt, **of_cell)


def begin_study(
    folder: Path, identity: Mapping[str, Any], *, upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> None:
    """Writes what a new study's cells depend on, or checks that a study that is continued depends on the same.

    Args:
        folder: Folder of the study, made if it is missing.
        identity: Everything that the cells depend on, as values that JSON can hold.
        upgrade: Function from the identity that an older version wrote to the one that this version would write.

    Raises:
        ConfigError: The folder holds another study; the message names what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / STUDY_FILE
    # What JSON makes of it is compared, since a file gives lists for tuples.
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
    cells: Iterable[Cell], folder: Path, train: Callable[[Cell], TrainedCell], *, progress: bool = True
) -> list[TrainedCell]:
    """Trains the cells that have no file yet, and returns the results of all cells in order.

    Args:
        cells: Cells of the study.
        folder: Folder of the study.
        train: Function that trains a cell; where the labels allow no model, it sets `Answers.reason`.
        progress: Whether a progress bar is drawn.

    Raises:
        DataError: The file of a cell is damaged.
    """
    cells = list(cells)
    (folder / CELLS_DIR).mkdir(exist_ok=True)
    found = {cell: result for cell in cells if (result := _read(folder, cell)) is not None}
    missing = [cell for cell in cells if cell not in found]
    done = len(cells) - len(missing)
    with tqdm(
        total=len(cells),
        initial=done,
        desc="cells",
        unit="cell",
        dynamic_ncols=True,
        disable=None if progress else True,
    ) as bar:
        for cell in missing:
            bar.set_postfix_str(cell.name)
            # Each cell is written as soon as it is trained, so that an interruption loses one at most.
            result = found[cell] = train(cell)
            write_atomically(_path(folder, cell), result.to_json())
            bar.update()
    return [found[cell] for cell in cells]


def read_cells(folder: Path) -> list[TrainedCell]:
    """Returns the results of every finished cell of a study, in the order of the files' names.

    Raises:
        DataError: The file of a cell is damaged.
    """
    return [_load(path) for path in sorted((folder / CELLS_DIR).glob("*.json"))]


def _path(folder: Path, cell: Cell) -> Path:
    return folder / CELLS_DIR / f"{cell.name}.json"


def _read(folder: Path, cell: Cell) -> TrainedCell | None:
    path = _path(folder, cell)
    if not path.is_file():
        return None
    result = _load(path)
    if result.cell != cell:
        raise DataError(f"{path}: holds the cell {result.cell.name}; remove it to train it again")
    return result


def _load(path: Path) -> TrainedCell:
    try:
        return TrainedCell.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: this cell is damaged ({error}); remove it to train it again") from error
