"""The beginning of a training that goes on from a pretrained encoder: weights, records seen, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.config import run_config
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.export.file_names import CONFIG_FILE
from ecgjax.export.tensors import flat_tensors
from ecgjax.leakage.trained_on import RECORDS_FILE, PretrainingRecords, read_pretraining_records, seen_by
from ecgjax.model.json_file import read_json
from ecgjax.pretrained.source import EncoderSource, open_source, settings_recorded
from ecgjax.settings.initialisation import InitSettings
from ecgjax.system.files import write_atomically
from ecgjax.training.about import NOT_RECORDED
from ecgjax.training.checkpoints.checkpoint import Checkpoints, Saved
from ecgjax.training.steps import EMA
from ecgjax.training.warm_start import KINDS, SourceWeights, WarmStart, named_parts

#: Name of the file in the folder of a run that says what it began with.
INIT_FILE = "init.json"

# What is said of a data set, with what stands for a statement that is missing.
_TEXTS = ("name", "fingerprint", "licence", "citation", "build_command", "terms")
_COUNTS = ("records", "patients")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """All that a training takes over from a pretrained encoder.

    Attributes:
        weights: Weights of the parts that the config names.
        seen: Records that the encoder has seen, in its own training and in those before it.
        said: Statements about the encoder as values of JSON, which a run keeps with what it says of itself. They name
            no path, and hold the same of the encoder before it under `begun_from`.
    """

    weights: SourceWeights
    seen: PretrainingRecords
    said: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """The beginning of a run, which may lie behind it.

    Attributes:
        weights: Weights that the run begins with; None where it begins at random, or goes on from a checkpoint.
        seen: Records that were seen before the run; None where it began at random.
        said: Statements about the encoder that the run began with, see `Beginning`; None where it began at random.
    """

    weights: SourceWeights | None = None
    seen: PretrainingRecords | None = None
    said: Mapping[str, Any] | None = None

    def write(self, match: WarmStart | None, workdir: str | Path, *, frozen: Collection[str]) -> None:
        """Writes what the run began with into its folder, where it begins now; a run that resumes keeps its file.

        Args:
            match: Match of the weights.
            workdir: Folder of the run.
            frozen: Names of the parameters that stay as they are.
        """
        if match is not None and self.weights is not None:
            content = {"source": self.weights.place, **(self.said or {}), **match.to_json(frozen=frozen)}
            text = json.dumps(content, indent=2, ensure_ascii=False)
            write_atomically(Path(workdir) / INIT_FILE, text + "\n")

    def describe(self, match: WarmStart | None, *, frozen: Collection[str]) -> list[str]:
        """Returns printable lines on what the run begins with, or began with; arguments are those of `write`."""
        if self.said is None or self.seen is None:
            return []
        name, step, digest = (self.said[key] for key in ("name", "step", "weights_digest"))
        begins = "began" if match is None else "begins"
        lines = [f"{begins} with the weights of {name}, step {step:,}, digest {digest}"]
        lines += [] if match is None else match.describe(frozen=frozen)
        counts = [f"{each.num_records:,} of {each.name}" for each in self.seen.sources]
        lines.append(f"records seen before: {', '.join(counts) or 'none that are listed'}")
        lines += [f"NOT LISTED is what {name} was pretrained on: no evaluation can tell" for name in self.seen.unlisted]
        return lines


def origin_of(workdir: str | Path, settings: InitSettings, *, saved: Saved | None) -> Origin:
    """Returns the origin of a run: its source, or, once there is a checkpoint, what the workdir keeps of it.

    The source may be gone by then.

    Args:
        workdir: Folder of the run.
        settings: Settings of the first weights.
        saved: Latest checkpoint of the run; None where there is none.

    Raises:
        ConfigError: `open_beginning` refuses the source; or settings of one are set and there is none.
        CheckpointError: The source is damaged, or the list of the records that were seen before is gone.
    """
    if settings.source is None:
        _check_without_source(settings)
        return Origin()
    if saved is None:
        begun = open_beginning(settings)
        return Origin(weights=begun.weights, seen=begun.seen, said=begun.said)
    path = Path(workdir) / RECORDS_FILE
    remedy = (
        "it also lists what the encoder had seen before this run, which nothing else does: restore it from a copy, or "
        "begin anew in another --workdir"
    )
    listed = read_pretraining_records(path, remedy=remedy)
    if listed.digest != saved.metadata["records"]:
        raise CheckpointError(f"{path} lists the records of another run than the checkpoints beside it; {remedy}")
    return Origin(seen=listed.earlier, said=saved.metadata["about"].get("begun_from"))


def _check_without_source(settings: InitSettings) -> None:
    """Refuses settings that only concern a source where there is none."""
    unset = InitSettings()
    for name in ("step", "remap", "fresh", "parts"):
        if getattr(settings, name) != getattr(unset, name):
            raise ConfigError(
                f"config.init.{name}={getattr(settings, name)!r} is about config.init.source, which is None; name a "
                "source, or leave the setting out"
            )


def open_beginning(settings: InitSettings) -> Beginning:
    """Opens the source that settings name.

    Args:
        settings: Settings of the first weights, with a source.

    Raises:
        ConfigError: The source is neither a run nor an exported model, or has no such part.
        CheckpointError: Its checkpoint, or the list of its records, is missing or damaged.
    """
    place = settings.source
    if not place:
        raise ConfigError("config.init.source='' names no folder; name a run's workdir or an exported model, or None")
    parts = named_parts(settings)
    try:
        source = open_source(place, step=settings.step)
    except ConfigError as error:
        raise ConfigError(f"config.init.source: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"config.init.source={place}: {error}") from error
    arrays = {
        (kind, f"encoder/{name}"): array
        for kind, _, name, array in _apart(flat_tensors(source.encoder.split))
        if "encoder" in parts
    }
    listed = None if source.encoder.trained_on is None else source.encoder.trained_on()
    labels, begun_from = _labels_of(source), _normal(source.begun_from)
    return Beginning(
        weights=SourceWeights(
            place=place,
            encoder=source.settings,
            signal_format=source.format,
            arrays=arrays | _heads(source, [part for part in parts if part != "encoder"]),
        ),
        seen=seen_by(listed, name=source.title, labels=(*labels, *_labels_before(begun_from))),
        said={
            "name": source.title,
            "step": source.encoder.step,
            "weights_digest": source.weights_digest,
            "statistics": source.statistics,
            "parts": list(parts),
            "labels": list(labels),
            "listed": listed is not None and not listed.unlisted,
            "data": [_dataset(each) for each in source.data],
            "begun_from": begun_from,
        },
    )


def _normal(said: object) -> dict[str, Any] | None:
    """Returns the statements about an encoder in the form of `Beginning.said`, whoever wrote them."""
    if not isinstance(said, Mapping):
        return None
    step, data = said.get("step"), said.get("data")
    return {
        **{name: str(said.get(name, NOT_RECORDED)) for name in ("name", "weights_digest", "statistics")},
        "step": step if isinstance(step, int) else 0,
        "parts": _texts_of(said.get("parts")),
        "labels": _texts_of(said.get("labels")),
        "listed": said.get("listed") is True,
        "data": [_dataset(each) for each in data if isinstance(each, Mapping)] if isinstance(data, list) else [],
        "begun_from": _normal(said.get("begun_from")),
    }


def _texts_of(values: object) -> list[str]:
    return [str(each) for each in values] if isinstance(values, list) else []


def _labels_before(said: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Returns the questions whose answers the trainings before the source's own used."""
    return () if said is None else (*said["labels"], *_labels_before(said["begun_from"]))


def _apart(tensors: Mapping[str, np.ndarray]) -> list[tuple[str, str, str, np.ndarray]]:
    """Returns kind, slash, name and array of tensors by their flat names."""
    return [(*name.partition("/"), array) for name, array in tensors.items()]


def _heads(source: EncoderSource, parts: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """Returns the arrays of the parts of a run that are not its encoder, by kind and name."""
    if not parts:
        return {}
    if source.run is None:
        raise ConfigError(
            f"config.init.parts names {parts[0]!r}, and config.init.source={source.place} is an exported model, which "
            "holds an encoder alone; leave the part out, or name the workdir of the run"
        )
    prefix = "" if source.run.optimizer.ema_decay is None else EMA
    with Checkpoints(run_config.checkpoint_dir(source.place), read_only=True) as checkpoints:
        return {
            (kind, f"{part}/{name}"): array
            for part in parts
            for kind in KINDS
            for name, array in checkpoints.arrays(f"{prefix}{kind}_{part}", step=source.encoder.step).items()
        }


def _labels_of(source: EncoderSource) -> tuple[str, ...]:
    """Returns the questions whose answers the source's own training used, or chose its best checkpoint by."""
    run = source.run
    answered: tuple[str, ...] = ()
    if run is None:
        path = Path(source.place) / CONFIG_FILE
        content = read_json(path)
        training, head = content.get("training"), content.get("head")
        answered = (str(head.get("question")),) if isinstance(head, Mapping) else ()
        said = training.get("settings") if isinstance(training, Mapping) else None
        if not isinstance(said, Mapping):
            raise ConfigError(
                f"config.init.source={source.place}: {path} does not say with which settings the encoder was trained, "
                "and so not whether it has seen labels; export it again"
            )
        try:
            run = settings_recorded(said)
        except ConfigError as error:
            raise ConfigError(f"config.init.source={source.place}: {path}: {error}; export it again") from error
    chose = (f"{run.health.task} (for the choice of a checkpoint)",) if run.chosen_by_health else ()
    return (*labels_looked_at(run.column_use), *chose, *answered)


def _dataset(said: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the statements about a data set that cards show, whoever wrote them."""
    counts = {name: value if isinstance(value := said.get(name), int) else 0 for name in _COUNTS}
    texts = {name: str(said.get(name, NOT_RECORDED)) for name in _TEXTS}
    earlier_one = {"begun_from": str(said["begun_from"])} if "begun_from" in said else {}
    return {**texts, **counts, "simulated": bool(said.get("simulated")), **earlier_one}
