"""Properties of parameters by name: whether they are kernels, their depth, and which of them a pattern matches.

A parameter's name is its path in the tree, such as `encoder/blocks/3/conv1/kernel`. Layers whose parameters are stacked
along the first axis, as a scan over them needs, carry no number there: `encoder/blocks/attention/kernel`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ecgjax.errors import ConfigError

#: Names of an encoder's lists of blocks; the number that follows such a name tells how deep the block lies.
BLOCKS = ("blocks", "layers", "units", "convs", "norms", "branches")

# Beginnings of the names of an encoder's parts that lie before the first block or after the last one, whatever they
# contain.
_STEM = ("stem", "patch", "position", "token")
_LAST = ("head", "decoder")

# Names of parameters that are no kernels, a normalisation's scale and any bias: decaying them would only change the
# learning rate of the layers that they belong to.
_NO_KERNELS = ("bias", "scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """Properties of a parameter that an optimiser must know.

    Attributes:
        shape: Shape of the array.
        depth: Depth of the parameter in the encoder: 0 in the stem, and in a block its number from 1 on; None after the
            last block and outside encoders.
        stacked: Number of layers along the array's first axis, the first of which has depth 1; 0 for a single layer.
        kernel: Whether it is a kernel, and no bias, scale or scalar: weight decay and trust ratios concern kernels.
    """

    shape: tuple[int, ...]
    depth: int | None
    stacked: int
    kernel: bool

    def spread(self, by_layer: Sequence[float]) -> np.ndarray:
        """Returns one number for each stacked layer, to be multiplied with the parameter: `f32[layers, 1, …]`."""
        return np.asarray(by_layer, np.float32).reshape(-1, *(1,) * (len(self.shape) - 1))


def name_of(path: Any) -> str:
    """Returns the name of a leaf from its path in the tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def parameters(params: Any) -> dict[str, Parameter]:
    """Returns the properties of every parameter of a tree by name.

    Args:
        params: Parameters, arrays or their shapes, with the encoder's under `encoder`.
    """
    return {name_of(path): _parameter(name_of(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(params)}


def _parameter(name: str, shape: tuple[int, ...]) -> Parameter:
    owner, *parts = name.split("/")
    depth, stacked = _place(parts, shape) if owner == "encoder" else (None, 0)
    dimensions = len(shape) - (stacked > 0)
    kernel = dimensions > 1 and [owner, *parts][-1] not in _NO_KERNELS
    return Parameter(shape=tuple(shape), depth=depth, stacked=stacked, kernel=kernel)


def _place(parts: Sequence[str], shape: tuple[int, ...]) -> tuple[int | None, int]:
    """Returns depth and number of stacked layers of a parameter, as `Parameter` defines them.

    Args:
        parts: Parts of the parameter's name after `encoder`; the first that names a stem, a list of blocks, or a head
            decides.
        shape: Shape of the parameter.
    """
    for i, part in enumerate(parts):
        if part.startswith(_LAST):
            return None, 0
        if part.startswith(_STEM):
            return 0, 0
        if part in BLOCKS:
            # The last number counts, because in branches/1/3 it is the number of the block in its branch.
            numbers = list(itertools.takewhile(str.isdecimal, parts[i + 1 :]))
            return (int(numbers[-1]) + 1, 0) if numbers else (1, shape[0])
    return None, 0


def hold(params: Any, names: Collection[str]) -> Any:
    """Returns a tree of parameters, in which no gradient flows into those of the given names."""
    if not names:
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if name_of(path) in names else leaf, params
    )


def matching(patterns: Sequence[str], known: Mapping[str, Any], *, setting: str) -> dict[str, str]:
    """Finds the parameters whose names match patterns.

    Args:
        patterns: Regular expressions, which are found anywhere in a name; `^` and `$` tie them to its ends.
        known: Parameters by name.
        setting: Leaf of the config that the patterns come from, for messages.

    Returns:
        The first pattern that is found in a parameter's name, by that name; other parameters are left out.

    Raises:
        ConfigError: A pattern is no regular expression, or is found in no name.
    """
    for pattern in patterns:
        try:
            found = any(re.search(pattern, name) for name in known)
        except re.error as error:
            raise ConfigError(f"{setting}: {pattern!r} is no regular expression ({error})") from error
        if not found:
            raise ConfigError(f"{setting}: {pattern!r} is found in no parameter; there are: {', '.join(sorted(known))}")
    hits = {name: next((p for p in patterns if re.search(p, name)), None) for name in known}
    return {name: pattern for name, pattern in hits.items() if pattern is not None}


def layer_factors(known: Mapping[str, Parameter], decay: float) -> dict[str, float | np.ndarray]:
    """Returns factors of the learning rate that fall from the last layer to the first.

    A factor is `decay ** (blocks + 1 − depth)`, with depth 0 for the stem and blocks + 1 for what follows the last
    block (Bao et al., BEiT, ICLR 2022).

    Args:
        known: Properties of the parameters by name.
        decay: Factor of the learning rate from one layer to the one below.

    Returns:
        Factors by name of the parameter; where layers are stacked, one factor for each layer, `f32[layers, 1, …]`.

    Raises:
        ConfigError: There are no blocks.
    """
    depths = [p.depth + max(p.stacked, 1) - 1 for p in known.values() if p.depth is not None]
    blocks = max(depths, default=0)
    if blocks == 0:
        raise ConfigError(
            f"config.optimizer.layer_decay={decay} needs an encoder that names its blocks: none of "
            f"{', '.join(sorted(known))} is in a list called {' or '.join(BLOCKS)}"
        )

    def factor(parameter: Parameter) -> float | np.ndarray:
        if parameter.depth is None:
            return 1.0
        if parameter.stacked:
            return parameter.spread([decay ** (blocks - layer) for layer in range(parameter.stacked)])
        return decay ** (blocks + 1 - parameter.depth)

    return {name: factor(parameter) for name, parameter in known.items()}
