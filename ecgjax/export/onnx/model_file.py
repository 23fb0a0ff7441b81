"""The file `model.onnx` of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecgjax.errors import ConfigError
from ecgjax.export.inference import Inference
from ecgjax.system.files import replacing


def write_onnx(path: str | Path, inference: Inference, *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes an encoder's function as a model of ONNX, which holds its weights.

    The model takes any batch and computes in float32, also where the encoder computes in bfloat16
    (constants that such an encoder rounds, like the scale of attention, stay rounded). Its input is
    `signals`, and its output has the name of the layer; where there is a head, a second one, `answers`, has
    probabilities or values, `float32[batch, outputs]`. A constant that holds numbers of a weight has the weight's flat
    name (`params/blocks/0/conv1/kernel`) whatever the order of its axes, with `[2]` after it for the third layer of a
    stacked one; one that is computed from weights has the first one's name, a colon and the computation. Where a
    recording holds NaN, the output is undefined: operators of ONNX that compare numbers may pass over it.

    Args:
        path: File to write; an interruption leaves an existing one as it was.
        inference: Function to write, as `inference_of` returns it.
        metadata: Texts to add to those that the file holds: `signals` for its input, and `weights` for the digest of
            the weights.

    Raises:
        ConfigError: The package `onnx` is missing, the encoder computes something that has no form in ONNX here, or its
            weights are too large for one file.
    """
    try:
        from ecgjax.export.onnx import checked_model
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "onnx":
            raise
        raise ConfigError(
            "model.onnx is written with the package onnx, which is not installed; run: pip install 'ecgjax[export]'"
        ) from error
    content = checked_model.bytes_of(checked_model.model_of(inference, metadata=metadata))
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
