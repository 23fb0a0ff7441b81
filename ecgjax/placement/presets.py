"""Layouts of parameters that a config calls by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from jax.sharding import Mesh, PartitionSpec

from ecgjax.optim.parameters import Parameter

# Matrix products of a transformer's layer. Each pair needs one sum over the devices: the first product is divided by
# its output and the second by its input, so that what lies between them stays where it is.
_BY_OUTPUT = re.compile(r"^encoder/.*(/qkv/kernel|/mlp_in/(kernel|bias)|/attention/(query|value)_bias)$")
_BY_INPUT = re.compile(r"^encoder/.*(/attention/out|/mlp_out)/kernel$")
_CONVOLUTION = re.compile(r"^encoder/.*(kernel|direction)$")
_DIMENSIONS_OF_CONVOLUTION = 3

#: Bytes of a float32.
_BYTES = 4


def _replicated(name: str, parameter: Parameter, mesh: Mesh, least_bytes: float) -> PartitionSpec:
    """Leaves every parameter whole on every device."""
    del name, parameter, mesh, least_bytes
    return PartitionSpec()


def _fsdp(name: str, parameter: Parameter, mesh: Mesh, least_bytes: float) -> PartitionSpec:
    """Divides large parameters over the data axis, along the largest dimension that it divides.

    The axis of stacked layers stays whole: a scan takes one layer after the other from it.
    """
    del name
    shape, devices = parameter.shape, mesh.shape["data"]
    size = _BYTES
    for length in shape:
        size *= length
    possible = [i for i, length in enumerate(shape) if length % devices == 0 and not (i == 0 and parameter.stacked)]
    if devices == 1 or size < least_bytes or not possible:
        return PartitionSpec()
    return _divided(shape, max(possible, key=lambda i: (shape[i], i)), "data")


def _tensor(name: str, parameter: Parameter, mesh: Mesh, least_bytes: float) -> PartitionSpec:
    """Divides the products of transformer layers, and convolutions by their output, over the model axis."""
    del least_bytes
    shape, devices = parameter.shape, mesh.shape["model"]
    own = len(shape) - (parameter.stacked > 0)
    if _BY_INPUT.search(name):
        dimension = len(shape) - 2
    elif _BY_OUTPUT.search(name) or (_CONVOLUTION.search(name) and own == _DIMENSIONS_OF_CONVOLUTION):
        dimension = len(shape) - 1
    else:
        return PartitionSpec()
    return _divided(shape, dimension, "model") if devices > 1 and shape[dimension] % devices == 0 else PartitionSpec()


def _divided(shape: tuple[int, ...], dimension: int, axis: str) -> PartitionSpec:
    return PartitionSpec(*(axis if i == dimension else None for i in range(len(shape))))


#: Name of a layout → function from a parameter's name, its properties, the mesh and the least number of bytes of a
#: parameter that is divided, to its layout.
PRESETS: Mapping[str, Callable[[str, Parameter, Mesh, float], PartitionSpec]] = {
    "replicated": _replicated,
    "fsdp": _fsdp,
    "tensor": _tensor,
}
