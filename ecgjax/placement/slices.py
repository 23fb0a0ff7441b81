"""Slices of a pod: groups of devices with fast links between them, which slow links join.

On TPUs a slice is what JAX calls one, on GPUs what NVLink joins. Devices along the `data` axis lie slice by slice, and
those along the `model` axis, which talk in every layer, in one slice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from ecgjax.errors import ConfigError


def slice_of(device: jax.Device) -> int:
    """Returns the number of the slice that a device lies in; 0 where the platform knows none."""
    return getattr(device, "slice_index", 0) or 0


def by_slices(devices: Sequence[jax.Device], *, model: int) -> np.ndarray:
    """Arranges devices for a mesh, `[data, model]`: slices one after the other, each as suits its own links.

    Args:
        devices: Devices of all slices.
        model: Number of devices that share one replica of the parameters.

    Raises:
        ConfigError: `model` does not divide the devices of a slice.
    """
    slices = [list(group) for _, group in itertools.groupby(sorted(devices, key=slice_of), key=slice_of)]
    for group in slices:
        if len(group) % model:
            raise ConfigError(
                f"config.mesh.model={model} does not divide the {len(group)} devices of slice {slice_of(group[0])} of "
                f"{len(slices)}: devices that share the parameters' products must not be joined by slow links"
            )
    types, axes = (AxisType.Auto, AxisType.Auto), ("data", "model")
    meshes = [jax.make_mesh((len(each) // model, model), axes, axis_types=types, devices=each) for each in slices]
    return np.concatenate([mesh.devices for mesh in meshes])


def num_slices(mesh: Mesh | None) -> int:
    """Returns the number of slices that a mesh runs through, one after the other and of one size; 1 for any other."""
    if mesh is None:
        return 1
    lines = [{slice_of(device) for device in line.flat} for line in mesh.devices]
    if any(len(line) > 1 for line in lines):
        return 1
    lengths = [len(list(group)) for _, group in itertools.groupby(lines)]
    own_each = len(set(map(frozenset, lines))) == len(lengths)
    return len(lengths) if own_each and len(set(lengths)) == 1 else 1
