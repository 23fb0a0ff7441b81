"""The folder of an exported model: written beside its place and put there when it is whole, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.system.atomic_directory import replaced_whole
from ecgjax.errors import CheckpointError, ConfigError, chosen
from ecgjax.export import inference_of, write_onnx, write_safetensors, write_stablehlo
from ecgjax.export.config_file import config_of, described
from ecgjax.export.evaluations import Evaluation, Evaluations, evaluations_of
from ecgjax.export.file_names import (
    CARD_FILE,
    CONFIG_FILE,
    FORMAT,
    FUNCTION_FORMATS,
    ONNX_FILE,
    PREPROCESSOR_FILE,
    SAMPLE_FILE,
    STABLEHLO_FILE,
    WEIGHTS_FILE,
)
from ecgjax.export.model_card import model_card
from ecgjax.export.preprocessor_file import preprocessor
from ecgjax.export.sample_file import write_sample
from ecgjax.export.trained_run import TrainedRun, open_trained_run
from ecgjax.finetuning.answering_head import AnsweringHead, Head, TrainedHead
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.pages.json_values import plain

#: Form of the encoder's function → package that it is written with, which is installed by an extra.
_WRITTEN_WITH = {"onnx": "onnx", "stablehlo": "flatbuffers"}


def export_run(
    workdir: str | Path,
    out: str | Path,
    *,
    step: int | None = None,
    statistics: str = "recalibrated",
    layer: str | None = None,
    with_signatures: bool = False,
    formats: Collection[str] = FUNCTION_FORMATS,
    pretraining_data: Sequence[str] = (),
) -> Path:
    """Writes the encoder of a run as a folder that stands for itself.

    Args:
        workdir: Folder of the run.
        out: Folder to write; one that an earlier export wrote is replaced when the new one is whole.
        step: Step of the checkpoint; the latest by default.
        statistics: Batch-norm statistics, of `trained_run.STATISTICS`.
        layer: Layer whose activations are the output; that of the run's config by default.
        with_signatures: Whether the signatures of the records that were trained on leave with the model.
        formats: Forms of the encoder's function to write, of `FUNCTION_FORMATS`.
        pretraining_data: Folders in which the data sets of the pretraining may lie, beside those of its config.

    Returns:
        Path of the folder.

    Raises:
        ConfigError: The folder holds no run, `out` is something else than an export, or a package is missing.
        CheckpointError: The folder holds no such checkpoint, a damaged one, or the export cannot be written.
        DataError: The recordings are needed and are not where they were.
    """
    out = _checked_place(out, formats)
    if with_signatures and not (Path(workdir) / RECORDS_FILE).is_file():
        raise ConfigError(
            f"--with_signatures: {Path(workdir) / RECORDS_FILE} does not exist; leave the flag out, or give the "
            "command that pretrained the run once more, which makes it"
        )
    run = open_trained_run(workdir, step=step, statistics=statistics, layer=layer, pretraining_data=pretraining_data)
    with _replacing(out) as folder:
        if with_signatures:
            shutil.copyfile(Path(workdir) / RECORDS_FILE, folder / RECORDS_FILE)
        write_model(folder, run, evaluations=evaluations_of(workdir, run), formats=formats)
    return out


def write_answering_model(
    out: str | Path,
    *,
    run: TrainedRun,
    head: Head,
    about: AnsweringHead,
    evaluations: Sequence[Evaluation] = (),
    signatures: Path | None = None,
    formats: Collection[str] = FUNCTION_FORMATS,
) -> Path:
    """Writes an encoder with a head that answers a question as a folder that stands for itself.

    `ecgjax.load` gives a model of it whose `predict` computes what `about.answers` gives for the head's outputs on the
    encoder's features.

    Args:
        out: Folder to write; one that an earlier export wrote is replaced when the new one is whole.
        run: Encoder as the training with labels left it, and what its pretraining says of itself (of an encoder that
            was not pretrained, what the training with labels says). `encoder.step` is that of the pretraining, and
            `statistics` is `"running"`, or `"none"` without batch norm.
        head: Head with its weights and statistics: `encoders.Split(graph, state.params["head"], state.stats["head"])`
            of a `Network`. It is applied to the encoder's features, whatever the layer of the embedding.
        about: Question of the head, and how its outputs become answers: `Network.offset` goes to `HeadOutput.offset`.
        evaluations: What was found on test records, for the card.
        signatures: File of the signatures of the records that were trained on, which leaves with the model; None for
            none.
        formats: Forms of the model's function to write, of `FUNCTION_FORMATS`.

    Returns:
        Path of the folder.

    Raises:
        ConfigError: `out` is something else than an export, a package is missing, or head, encoder and `about` do not
            fit each other.
        CheckpointError: A weight is not finite, or the folder cannot be written.
    """
    out = _checked_place(out, formats)
    if signatures is not None and not signatures.is_file():
        raise ConfigError(f"signatures={signatures} does not exist; leave it out, or train once more, which makes it")
    with _replacing(out) as folder:
        if signatures is not None:
            shutil.copyfile(signatures, folder / RECORDS_FILE)
        found = Evaluations(evaluations, of_others=0, unreadable=0)
        write_model(folder, run, head=TrainedHead(head, about), evaluations=found, formats=formats)
    return out


def _checked_place(out: str | Path, formats: Collection[str]) -> Path:
    """Returns the absolute path of a folder that may be written, after what is asked for was checked."""
    out = Path(out).absolute()
    _check_formats(formats)
    _check_replaceable(out)
    return out


def write_model(
    folder: Path,
    run: TrainedRun,
    *,
    evaluations: Evaluations,
    formats: Collection[str],
    head: TrainedHead | None = None,
) -> None:
    """Writes every file of an exported model but the signatures.

    Args:
        folder: Folder to write to, in which signatures may lie already.
        run: Run whose encoder is exported.
        evaluations: Evaluations of the model, for its card.
        formats: Forms of the encoder's function to write.
        head: Head that answers a question; None for none.
    """
    inference = inference_of(run.encoder, num_samples=run.num_samples, head=head)
    prepared = preprocessor(run.about)
    head_split = None if head is None else head.split
    digest = write_safetensors(folder / WEIGHTS_FILE, inference.split, head=head_split, metadata={"format": FORMAT})
    if "onnx" in formats:
        write_onnx(folder / ONNX_FILE, inference)
    stablehlo = write_stablehlo(folder / STABLEHLO_FILE, inference) if "stablehlo" in formats else None
    write_sample(folder / SAMPLE_FILE, inference, sampling_rate_hz=prepared["sampling_rate_hz"])
    _write_json(folder / PREPROCESSOR_FILE, prepared)
    config = config_of(run, inference, digest=digest, stablehlo=stablehlo)
    names = [CONFIG_FILE, *(path.name for path in folder.iterdir())]
    card = model_card(config, prepared, evaluations, files=names)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    _write_json(folder / CONFIG_FILE, {**config, "files": described(folder)})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _check_formats(formats: Collection[str]) -> None:
    """Refuses forms that cannot be written, before batch norm is recalibrated, which can take minutes."""
    for each in formats:
        package = chosen(_WRITTEN_WITH, each, setting="--formats")
        if find_spec(package) is None:
            raise ConfigError(
                f"--formats={','.join(formats)}: {each} is written with the package {package}, which is not installed; "
                "run: pip install 'ecgjax[export]', or give --formats without it (none for the weights alone)"
            )


def _check_replaceable(out: Path) -> None:
    """Refuses a place that holds anything but an earlier export as it was written."""
    if not out.exists() and not out.is_symlink():
        return
    remedy = "name a new folder, or an earlier export"
    if not out.is_dir() or out.is_symlink():
        raise ConfigError(f"--out={out} is no folder; {remedy}")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    try:
        config = json.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))
        known = {CONFIG_FILE, *config["files"]} if config["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is None:
        raise ConfigError(f"--out={out} holds something else than an export of ecgjax; {remedy}")
    if beside := sorted(names - known):
        raise ConfigError(f"--out={out} holds {beside[0]}, which no export wrote and which would be lost; {remedy}")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Yields an empty folder, which takes the place of `out` when the block ends without an error."""
    try:
        with replaced_whole(out, making="exporting") as folder:
            yield folder
    except OSError as error:
        raise CheckpointError(
            f"--out={out} cannot be written ({error.strerror or error}): free space there or name another folder; what "
            "was there is as it was"
        ) from error
    except DataError as error:
        raise CheckpointError(f"--out={out}: another export is writing there; wait for it, or name another") from error
