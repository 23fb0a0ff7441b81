"""The file `model.safetensors`: a model's weights under their flat names, in their own layout, with a digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from ecgjax import encoders
from ecgjax.errors import CheckpointError
from ecgjax.export.tensors import digest_of, model_tensors, with_tensors
from ecgjax.finetuning.answering_head import Head
from ecgjax.system.files import replacing

#: Key of the header's one entry. With several entries the format would shuffle them, and no two files be alike.
_ENTRY = "ecgjax"


class WeightsFile(NamedTuple):
    """Content of a file of weights.

    Attributes:
        tensors: Weights by their flat names.
        digest: Hex digest of names, types, shapes and numbers.
        metadata: Texts that were written beside them.
    """

    tensors: dict[str, np.ndarray]
    digest: str
    metadata: dict[str, str]


def write_safetensors(
    path: str | Path,
    encoder: encoders.Split[encoders.Encoder],
    *,
    head: Head | None = None,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Writes the parameters and running statistics of an encoder, and of its head where it has one.

    Args:
        path: File to write; an interruption leaves an existing one as it was.
        encoder: Encoder whose weights are written.
        head: Head that answers a question.
        metadata: Texts to write beside them.

    Returns:
        Hex digest of the weights, which the file holds too.

    Raises:
        CheckpointError: A weight is not finite.
    """
    # Of an array whose rows do not lie one after the other the format would write the wrong numbers; NumPy would make a
    # list of a single number.
    of_model = model_tensors(encoder, head)
    tensors = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in of_model.items()}
    _check_finite(tensors, "the encoder" if head is None else "the model")
    of_weights = digest_of(tensors)
    entry = json.dumps({"digest": of_weights, "metadata": dict(metadata or {})}, sort_keys=True)
    content = safetensors.numpy.save(tensors, metadata={_ENTRY: entry})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
    return of_weights


def read_safetensors(
    path: str | Path, encoder: encoders.Split[encoders.Encoder], *, digest: str | None = None
) -> encoders.Split[encoders.Encoder]:
    """Returns an encoder with the weights of a file without a head, equal to the last bit to those that were written.

    Args:
        path: File to read.
        encoder: Encoder of the same architecture, as `encoders.create` or `encoders.abstract` returns it.
        digest: Hex digest that the weights must have, where it is known from elsewhere; that of the file by default.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or holds other weights.
    """
    return with_tensors(encoder, read_weights(path, digest=digest).tensors, source=str(path))


def read_weights(path: str | Path, *, digest: str | None = None) -> WeightsFile:
    """Returns the weights of a file; arguments and errors are those of `read_safetensors`."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    # A TypeError answers a type that NumPy has not.
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy or export it again") from error
    return _checked(path, tensors, header.get(_ENTRY), digest)


def _checked(path: str | Path, tensors: dict[str, np.ndarray], entry: str | None, wanted: str | None) -> WeightsFile:
    try:
        known = json.loads(entry or "")
        of_file, metadata = str(known["digest"]), {str(name): str(text) for name, text in known["metadata"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has no digest of its weights: it was not written by ecgjax") from error
    of_weights = digest_of(tensors)
    for place, expected in (("its header", of_file), ("what was asked for", wanted)):
        if expected not in (None, of_weights):
            raise CheckpointError(
                f"{path} has weights of the digest {of_weights}, and not {expected} as in {place}; "
                "copy or export it again"
            )
    _check_finite(tensors, str(path))
    return WeightsFile(tensors, of_weights, metadata)


def _check_finite(tensors: Mapping[str, np.ndarray], source: str) -> None:
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{source}: {name!r} holds numbers that are not finite; export an earlier checkpoint")
