"""How PyTorch lays out each weight: a table that a reader of `model.safetensors` needs no JAX for.

An array of the file becomes a tensor of PyTorch by `array.transpose(axes)`, a reversal of the axes in `reversed_axes`,
and `reshape(shape)`. Where `layers` is not None the first axis stays first and counts the layers of a stack, each of
which is a module of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from flax import nnx

from ecgjax import encoders
from ecgjax.encoders.operations.convolutions import DoublingConv
from ecgjax.encoders.operations.gradient_sums import Conv, Linear
from ecgjax.encoders.operations.layers import BatchNorm
from ecgjax.encoders.physio_transformer import ChannelNorm, ConvPositions
from ecgjax.encoders.transformer import LayerNorm
from ecgjax.export.tensors import PREFIXES, M, flat_leaves
from ecgjax.training.tasks.heads import LinearHead


@dataclasses.dataclass(frozen=True)
class TorchLayout:
    """The place of a weight in PyTorch.

    Attributes:
        module: Class of `torch.nn` that computes the same, or `"Parameter"` for a weight of no such class.
        parameter: Name of the parameter or buffer of the class.
        axes: Axes of the weight in PyTorch's order.
        shape: Shape of PyTorch's tensor.
        reversed_axes: Axes of PyTorch's order along which the numbers are reversed.
        layers: Number of layers that are stacked along the first axis; None for a weight of one layer.
    """

    module: str
    parameter: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    reversed_axes: tuple[int, ...] = ()
    layers: int | None = None


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Layout of the weights of one kind: `TorchLayout`, with the shape as a function of the permuted one."""

    module: str
    parameter: str
    axes: tuple[int, ...]
    reversed_axes: tuple[int, ...] = ()
    shape: Callable[[tuple[int, ...]], tuple[int, ...]] = lambda shape: shape


_LINEAR = {"kernel": _Kind("Linear", "weight", (1, 0)), "bias": _Kind("Linear", "bias", (0,))}


def _norm(module: str) -> dict[str, _Kind]:
    return {"scale": _Kind(module, "weight", (0,)), "bias": _Kind(module, "bias", (0,))}


#: Class of a module → its weights' names → their kinds. Kernels are `[time, in, out]` here and `[out, in, time]` there.
_KINDS: dict[type[nnx.Module], dict[str, _Kind]] = {
    Conv: {"kernel": _Kind("Conv1d", "weight", (2, 1, 0)), "bias": _Kind("Conv1d", "bias", (0,))},
    **dict.fromkeys((nnx.Linear, Linear), _LINEAR),
    BatchNorm: {
        **_norm("BatchNorm1d"),
        "mean": _Kind("BatchNorm1d", "running_mean", (0,)),
        "var": _Kind("BatchNorm1d", "running_var", (0,)),
    },
    LayerNorm: _norm("LayerNorm"),
    # Its statistics `location` and `scale` stand beside it: `Linear(features) * scale + location`.
    LinearHead: _LINEAR,
    # One channel a group.
    ChannelNorm: _norm("GroupNorm"),
    # `ConvTranspose1d(in, out, kernel_size=4, stride=2, padding=1)`, which reads its kernel backwards in time.
    DoublingConv: {"kernel": _Kind("ConvTranspose1d", "weight", (1, 2, 0), reversed_axes=(2,))},
    # `torch.nn.utils.weight_norm(Conv1d(…), dim=2)`.
    ConvPositions: {
        "direction": _Kind("Conv1d", "weight_v", (2, 1, 0)),
        "length": _Kind("Conv1d", "weight_g", (0,), shape=lambda shape: (1, 1, *shape)),
        "bias": _Kind("Conv1d", "bias", (0,)),
    },
}


def torch_layouts(module: encoders.Split[M], *, of: str = "encoder") -> dict[str, TorchLayout]:
    """Returns the layout of every parameter and running statistic by its flat name.

    Args:
        module: Encoder or head, of which shapes are enough, as `encoders.abstract` returns it.
        of: Kind of the module, `"encoder"` or `"head"`.
    """
    modules = nnx.iter_modules(encoders.merge(module))
    kinds = {"/".join(map(str, path)): _KINDS.get(type(each), {}) for path, each in modules}
    return {PREFIXES[of] + name: _layout(kinds, name, leaf.shape) for name, leaf in flat_leaves(module).items()}


def _layout(kinds: dict[str, dict[str, _Kind]], name: str, shape: tuple[int, ...]) -> TorchLayout:
    path, _, last = name.partition("/")[2].rpartition("/")
    kind = kinds.get(path, {}).get(last)
    if kind is None:
        return TorchLayout("Parameter", last, tuple(range(len(shape))), shape)
    stacked = len(shape) - len(kind.axes)
    axes = (*range(stacked), *(axis + stacked for axis in kind.axes))
    of_layer = kind.shape(tuple(shape[axis] for axis in axes[stacked:]))
    return TorchLayout(
        module=kind.module,
        parameter=kind.parameter,
        axes=axes,
        shape=(*shape[:stacked], *of_layer),
        reversed_axes=tuple(axis + stacked for axis in kind.reversed_axes),
        layers=shape[0] if stacked else None,
    )


def to_torch(array: np.ndarray, layout: TorchLayout) -> np.ndarray:
    """Returns a weight as PyTorch lays it out."""
    return np.ascontiguousarray(np.flip(array.transpose(layout.axes), layout.reversed_axes)).reshape(layout.shape)


def from_torch(array: np.ndarray, layout: TorchLayout) -> np.ndarray:
    """Returns a weight of PyTorch as this library lays it out; `to_torch` backwards."""
    permuted = array.reshape(_permuted(array.shape, layout))
    return np.ascontiguousarray(np.flip(permuted, layout.reversed_axes).transpose(np.argsort(layout.axes)))


def _permuted(shape: tuple[int, ...], layout: TorchLayout) -> tuple[int, ...]:
    # Only axes of length 1 were added, in front.
    return shape[len(shape) - len(layout.axes) :]
