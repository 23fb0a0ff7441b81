"""The file `model.stablehlo`: an encoder's function as `jax.export` keeps it, a convenience that expires.

JAX promises to read such a file for six months after the release that wrote it, and from 0.11.1 on refuses older ones
(https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees). What must last is `model.safetensors` with
this library, or `model.onnx`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array, export

from ecgjax.encoders.operations.portability import portable
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.export.inference import Inference
from ecgjax.system.files import replacing

#: Devices that a file is written for.
PLATFORMS = ("cpu", "cuda", "tpu")

# Setting of JAX: how many places of the source a line of a program tells.
_LOCATIONS = "jax_traceback_in_locations_limit"

#: Number of months for which JAX promises to read what a release wrote.
SHELF_LIFE_MONTHS = 6

#: Sentence for whoever gets a file.
SHELF_LIFE = (
    f"model.stablehlo is read by JAX releases of up to {SHELF_LIFE_MONTHS} months after the one that wrote it, and "
    "expires then; export it anew from model.safetensors, or use model.onnx"
)


@dataclasses.dataclass(frozen=True)
class StableHLO:
    """What a reader of a file must know of it.

    Attributes:
        jax_version: Version of JAX that wrote the file.
        calling_convention: Version of the calling convention of the program in it.
        platforms: Names of the devices that the program runs on.
        shelf_life: Sentence that says when the file expires.
    """

    jax_version: str
    calling_convention: int
    platforms: tuple[str, ...]
    shelf_life: str = SHELF_LIFE


def write_stablehlo(path: str | Path, inference: Inference, *, platforms: Sequence[str] = PLATFORMS) -> StableHLO:
    """Writes an encoder's function, with its weights, as a program of JAX that takes any batch.

    The program computes in the encoder's own type. It needs nothing but JAX and flatbuffers:
    `jax.export.deserialize(bytearray(content)).call(signals)`. It returns embeddings, or where there is a head a pair
    of embeddings and answers (probabilities or values, `f32[batch, outputs]`).

    Args:
        path: File to write; an interruption leaves an existing one as it was.
        inference: Function to write, as `inference_of` returns it.
        platforms: Names of the devices that the program is for.

    Returns:
        What a reader of the file must know.

    Raises:
        ConfigError: The package `flatbuffers` is missing, or there are no such devices.
    """
    weights = inference.weights

    def embed(signals: Array) -> Array | tuple[Array, ...]:
        # The barrier keeps the compiler from computing ahead with the weights, so that the program rounds like the one
        # to which weights are arguments.
        outputs = inference.outputs(jax.lax.optimization_barrier(weights), signals)
        return outputs if len(outputs) > 1 else outputs[0]

    if unknown := sorted({*platforms} - {*PLATFORMS, "rocm"}):
        raise ConfigError(f"platforms={tuple(platforms)}: {unknown} are unknown; there are: {', '.join(PLATFORMS)}")
    with portable(), _no_locations():
        exported = export.export(jax.jit(embed), platforms=tuple(platforms))(inference.input_spec())
    try:
        content = exported.serialize()
    except ImportError as error:
        raise ConfigError(
            "model.stablehlo is written with the package flatbuffers, which is not installed; run: "
            "pip install 'ecgjax[export]'"
        ) from error
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
    return StableHLO(jax.__version__, exported.calling_convention_version, tuple(exported.platforms))


@contextlib.contextmanager
def _no_locations() -> Iterator[None]:
    """Keeps the paths of source files, which can name a user, out of what JAX writes."""
    before = getattr(jax.config, _LOCATIONS)
    jax.config.update(_LOCATIONS, 0)
    try:
        yield
    finally:
        jax.config.update(_LOCATIONS, before)


def read_stablehlo(path: str | Path) -> Callable[[np.ndarray | Array], Any]:
    """Returns the function in a file that `write_stablehlo` wrote, from recordings of any batch to what it writes.

    Args:
        path: File to read.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it has expired.
        ConfigError: The package `flatbuffers` is missing.
    """
    try:
        exported = export.deserialize(bytearray(Path(path).read_bytes()))
    except ImportError as error:
        raise ConfigError(
            "model.stablehlo is read with the package flatbuffers, which is not installed; run: "
            "pip install 'ecgjax[export]'"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    # Neither JAX nor flatbuffers says what a damaged file raises.
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged, or JAX {jax.__version__} does not read it any more ({_first_line(error)}); "
            f"{SHELF_LIFE}"
        ) from error
    call: Any = jax.jit(exported.call)
    return call


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
