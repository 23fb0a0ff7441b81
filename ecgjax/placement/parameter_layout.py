"""Layout of parameters, and of what an optimiser and an average keep of each, on the devices of a mesh."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ecgjax.errors import chosen
from ecgjax.optim.parameters import name_of, parameters
from ecgjax.placement.presets import PRESETS
from ecgjax.placement.rules import read_rules, specs_by_rules
from ecgjax.placement.settings import MeshSettings

_MB = 1e6


@dataclasses.dataclass(frozen=True)
class ParameterLayout:
    """Layout of parameters on a mesh.

    Attributes:
        settings: Settings that it follows.
        mesh: Mesh of the run.
        specs: Layout of every parameter by name.
        shapes: Shape and type of every parameter by name.
    """

    settings: MeshSettings
    mesh: Mesh
    specs: Mapping[str, PartitionSpec]
    shapes: Mapping[str, jax.ShapeDtypeStruct]

    @property
    def divided(self) -> dict[str, PartitionSpec]:
        """Layouts of the parameters that are not whole on every device, by name."""
        return {name: spec for name, spec in self.specs.items() if self.parts(name) > 1}

    def parts(self, name: str) -> int:
        """Returns the number of parts that a parameter is divided into."""
        return math.prod(self.mesh.shape[axis] for axis in self.specs[name] if axis is not None)

    def shardings(self, state: Any) -> Any:
        """Returns the shardings of a state: a leaf is laid out as the parameter that it belongs to, or replicated.

        A leaf belongs to a parameter whose name its path ends with, and whose shape it has: the parameter itself, its
        moving average, and moments of an optimiser.

        Args:
            state: State, or parameters alone, as arrays or shapes.
        """

        def sharding(path: Any, leaf: Any) -> NamedSharding:
            return NamedSharding(self.mesh, self._spec(name_of(path), np.shape(leaf)))

        return jax.tree_util.tree_map_with_path(sharding, state)

    def gathered(self, params: Any) -> Any:
        """Returns parameters of which a device has what it computes with: all of those that the data axis divides.

        It is called in a traced step, on parameters as they are kept. Gradients go the other way: summed, and divided
        as the parameters are. Otherwise XLA might leave the parameters where they are and gather the rows' activations,
        which are larger.

        Args:
            params: Parameters, laid out as `shardings` says.
        """

        def gather(path: Any, leaf: Any) -> Any:
            kept = self.specs[name_of(path)]
            if "data" not in kept or self.mesh.shape["data"] == 1:
                return leaf
            used = PartitionSpec(*(None if axis == "data" else axis for axis in kept))
            return _moved(NamedSharding(self.mesh, kept), NamedSharding(self.mesh, used), leaf)

        return jax.tree_util.tree_map_with_path(gather, params)

    def gathering(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function whose first argument, parameters, it gets as `gathered` returns them."""
        if not self.divided:
            return function
        return lambda params, *args, **kwargs: function(self.gathered(params), *args, **kwargs)

    def _spec(self, path: str, shape: tuple[int, ...]) -> PartitionSpec:
        name = path
        while name not in self.specs and "/" in name:
            name = name.partition("/")[2]
        own = name in self.specs and self.shapes[name].shape == shape
        return self.specs[name] if own else PartitionSpec()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _moved(kept: NamedSharding, used: NamedSharding, leaf: Any) -> Any:
    """Moves a parameter from the sharding that it is kept in to another one, and its gradient back."""
    return jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(leaf, kept), used)


def _moved_forward(kept: NamedSharding, used: NamedSharding, leaf: Any) -> tuple[Any, None]:
    return _moved(kept, used, leaf), None


def _moved_backward(kept: NamedSharding, used: NamedSharding, _: None, gradient: Any) -> tuple[Any]:
    return (jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(gradient, used), kept),)


_moved.defvjp(_moved_forward, _moved_backward)


def lay_out(params: Any, mesh: Mesh, settings: MeshSettings) -> ParameterLayout:
    """Lays parameters out as a config names it.

    Args:
        params: Parameters, arrays or their shapes.
        mesh: Mesh of the run.
        settings: Layout by name, and the exceptions from it.

    Raises:
        ConfigError: The layout does not exist, or a rule cannot be read or does not fit the parameters.
    """
    preset = chosen(PRESETS, settings.sharding, setting="config.mesh.sharding")
    shapes = {
        name_of(path): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in jax.tree.leaves_with_path(params)
    }
    specs = {
        name: preset(name, parameter, mesh, settings.fsdp_min_mb * _MB)
        for name, parameter in parameters(params).items()
    }
    return ParameterLayout(settings, mesh, specs | specs_by_rules(read_rules(settings.rules), shapes, mesh), shapes)
