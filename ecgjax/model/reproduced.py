"""Whether a model reproduces the sample of its folder, embeddings and answers: tried once for a folder and machine.

A wrong package, device or weight shows here and not in somebody's results. That a folder was tried is kept as an empty
file in the user's cache; where that cannot be written, it is tried every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import zipfile
from pathlib import Path

import jax
import numpy as np

from data_pipelines.version import __version__
from ecgjax.errors import ConfigError
from ecgjax.export.file_names import CONFIG_FILE, SAMPLE_FILE
from ecgjax.model.applied import Model
from ecgjax.model.exported_folder import ExportedFolder

#: Greatest difference, in parts of the largest number of the sample's embeddings, that roundings explain: of float32
#: on a processor, and of bfloat16 or a device that multiplies in less than float32.
FLOAT32_ERROR, OTHER_ERROR = 1e-4, 3e-2

#: Folder of the cache below that of the user, and the variable that names another.
_CACHE, CACHE_VARIABLE = "ecgjax", "ECGJAX_CACHE"

#: Arrays of the sample of an encoder, and those that a head adds.
_NAMES, _OF_HEAD = ("signals", "embeddings"), ("outputs", "answers")

#: Greatest difference of answers, in parts of the largest, that a function of float64 has from one machine to another.
_ANSWERS_ERROR = 1e-9

#: Most embeddings of a recording: one of every lead.
_MOST_GROUPS = 12

#: Bytes of a file of NumPy beside its numbers.
_HEADER_BYTES = 4096


def check_sample(folder: ExportedFolder, model: Model) -> None:
    """Checks that the model embeds and answers the sample as its folder says, unless that was checked before.

    Raises:
        ConfigError: The sample is damaged, or the embeddings or answers differ.
    """
    mark = _mark(folder)
    if mark is not None and _is_there(mark):
        return
    path = folder.path / SAMPLE_FILE
    sample = _read_sample(path, model)
    exact = model.description.settings.precision == "float32" and jax.default_backend() == "cpu"
    allowed = FLOAT32_ERROR if exact else OTHER_ERROR
    if model.head is None:
        found = {"embeddings": model.embed_prepared(sample["signals"])}
    else:
        found = dict(zip(("embeddings", "outputs"), model.embed_with_outputs(sample["signals"]), strict=True))
    for name, values in found.items():
        # Log odds, or values in parts of their spread, whose differences are far below this size mean nothing.
        least = abs(float(model.trained_head.split.stats["scale"])) if model.trained_head and name == "outputs" else 0.0
        _check_alike(path, name, values, sample[name], allowed=allowed, least=least)
    if model.head is not None:
        answers = model.head.answers(sample["outputs"])
        _check_alike(path, "answers", answers, sample["answers"], allowed=_ANSWERS_ERROR)
    if mark is not None:
        # The check holds whether or not it can be remembered.
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def _check_alike(
    path: Path, name: str, found: np.ndarray, expected: np.ndarray, *, allowed: float, least: float = 0.0
) -> None:
    """Checks that numbers are those of the sample but for roundings.

    Args:
        path: File of the sample, for messages.
        name: Name of the numbers.
        found: Numbers that the model gives.
        expected: Numbers of the sample.
        allowed: Greatest difference in parts of the largest number.
        least: Size below which no number counts as the largest.
    """
    if found.shape != expected.shape:
        raise ConfigError(
            f"{path}: has {name} of shape {expected.shape}, and the model gives {found.shape}; export the folder again"
        )
    scale = max(float(np.abs(expected).max()), least)
    difference = float(np.abs(found - expected).max())
    # NaN fails this comparison as well.
    if not difference <= allowed * scale:
        share = difference / scale if scale else math.inf
        raise ConfigError(
            f"{path}: its {name} are not reproduced: the largest difference is {share:.2g} of the largest "
            f"number, and {allowed:g} is allowed; install the versions in {path.with_name(CONFIG_FILE)}, or export the "
            "model again"
        )


def _is_there(mark: Path) -> bool:
    """Returns whether a mark was left; a cache that may not be read is none."""
    with contextlib.suppress(OSError):
        return mark.is_file()
    return False


def cache_folder() -> Path | None:
    """Returns the folder of the user's cache, or None where there is none."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / _CACHE
    try:
        return Path.home() / ".cache" / _CACHE
    except RuntimeError:
        return None


def _mark(folder: ExportedFolder) -> Path | None:
    """Returns the file that says that a folder of these contents was tried with this software and device."""
    cache = cache_folder()
    if cache is None:
        return None
    depends_on = (sorted(folder.digests.items()), folder.config, __version__, jax.__version__, jax.default_backend())
    return cache / "reproduced" / hashlib.sha256(repr(depends_on).encode()).hexdigest()


def _read_sample(path: Path, model: Model) -> dict[str, np.ndarray]:
    """Returns recordings and their embeddings, `int16[n, time, 8]` and `f32[n, dimension]`, by name.

    Those of a model with a head also have outputs, `f32[n, outputs]`, and answers, `f64[n]` or `f64[n, classes]`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
        # A small archive can unpack to more than the memory: its sizes are looked at first.
        rows, samples = 64, model.num_samples
        most = {"signals.npy": rows * samples * 8 * 2, "embeddings.npy": rows * _MOST_GROUPS * model.dimension * 8}
        if model.head is not None:
            most |= {f"{name}.npy": rows * len(model.head.outputs) * 8 for name in _OF_HEAD}
        if sizes.keys() != most.keys() or any(sizes[name] > most[name] + _HEADER_BYTES for name in most):
            raise ValueError(f"it holds {', '.join(f'{name!a} of {size} bytes' for name, size in sizes.items())}")
        with np.load(path, allow_pickle=False) as arrays:
            sample = {name: arrays[name] for name in (*_NAMES, *(() if model.head is None else _OF_HEAD))}
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{path}: is no sample that can be read ({str(error)[:160]}); export the folder again"
        ) from error
    signals = sample["signals"]
    for name in sample.keys() - {"signals"}:
        values, dtype = sample[name], np.float64 if name == "answers" else np.float32
        if not (signals.ndim and signals.size) or values.dtype != dtype or not values.size:
            raise ConfigError(
                f"{path}: has {name} {values.dtype}{list(values.shape)} for signals {list(signals.shape)}; export the "
                "folder again"
            )
        if not np.isfinite(values).all():
            raise ConfigError(f"{path}: holds {name} that are not finite; export the folder again")
    return sample
