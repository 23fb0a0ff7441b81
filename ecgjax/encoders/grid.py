"""Positions of feature maps: the time and the leads that each activation stands for, from an encoder's layers alone."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions (places) of a feature map along time, and along leads where these are embedded one by one.

    A place sees samples directly before and after its centre, through convolutions, poolings and patches. What it sees
    beyond these through attention, or a normalisation by the whole recording, does not move its centre.

    Attributes:
        number: Number of places, on each of `leads` where there are any.
        first: Sample of the input at the centre of what the first place sees; it may lie between two samples.
        stride: Number of the input's samples from a place to the next.
        leads: Leads that places see one by one: all places of the first, then those of the second. Empty where each
            place sees all leads.
    """

    number: int
    first: float = 0.0
    stride: float = 1.0
    leads: tuple[int, ...] = ()

    def windows(self, length: int, *, stride: int = 1, padding: str | None = None) -> Grid:
        """Returns the grid of a convolution or pooling of the map that lies on this grid.

        Args:
            length: Length of a window, in places of this grid.
            stride: Number of places from one window to the next.
            padding: Padding, `"VALID"` or `"SAME"`; None for (length − 1) / 2 on both sides.
        """
        before = after = length // 2
        if padding is not None:
            ((before, after),) = jax.lax.padtype_to_pads((self.number,), (length,), (stride,), padding)
        return dataclasses.replace(
            self,
            number=(before + self.number + after - length) // stride + 1,
            first=self.first + self.stride * ((length - 1) / 2 - before),
            stride=self.stride * stride,
        )

    @property
    def time_index(self) -> np.ndarray:
        """Number of each place along time, `i64[places]`; it starts at 0 for every lead."""
        return np.tile(np.arange(self.number), max(len(self.leads), 1))

    def times(self, *, rate_hz: float) -> np.ndarray:
        """Returns the time at the centre of what each place sees, `f32[places]`, in seconds.

        The recording begins at 0, and its sample `k` lasts from `k` to `k + 1` sampling intervals.
        """
        return ((self.first + 0.5 + self.stride * self.time_index) / rate_hz).astype(np.float32)

    def lead_of_places(self) -> np.ndarray | None:
        """Returns the lead that each place sees, `i32[places]`; None where each sees all leads."""
        return np.repeat(np.array(self.leads, np.int32), self.number) if self.leads else None

    def mask(self, recorded: Array) -> Array:
        """Returns which places stand for a part of the recording, and not for padding alone, `bool[batch, places]`.

        A place stands for a stride of samples about its centre.

        Args:
            recorded: Number of samples before the padding at the end, `i32[batch]`.
        """
        begins = np.asarray(self.first + self.stride * (self.time_index - 0.5), np.float32)
        return jnp.asarray(begins)[None] < recorded.astype(jnp.float32)[:, None]

    def recorded(self, start: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Returns which places stand for a part of what was recorded, with padding on both sides, `bool[n, places]`.

        Args:
            start: First recorded sample of each recording, `int[n]`.
            samples: Number of recorded samples of each, `int[n]`.
        """
        before_the_end = np.asarray(self.mask(jnp.asarray(start + samples)))
        ends = np.asarray(self.first + self.stride * (self.time_index + 0.5), np.float32)
        return before_the_end & (ends[None] > start[:, None])


class FeatureMap(NamedTuple):
    """Activations of an encoder at one stride.

    Attributes:
        values: Activations, `[batch, places, width]`, in the type that is computed in.
        grid: Positions of the values in time and on leads.
    """

    values: Array
    grid: Grid


def resampled(num_samples: int, number: int) -> Grid:
    """Returns the grid of `number` samples spread evenly over `num_samples`, from the first to the last."""
    return Grid(number, stride=(num_samples - 1) / max(number - 1, 1))


def patches(num_samples: int, length: int) -> Grid:
    """Returns the grid of patches that cover the recording; the last may reach beyond its end."""
    return Grid(-(-num_samples // length) * length).windows(length, stride=length, padding="VALID")


def halvings(num_samples: int, number: int) -> list[Grid]:
    """Returns the grids of `number` convolutions or poolings one after the other, each centred and of stride 2."""
    grids = [Grid(num_samples)]
    for _ in range(number):
        grids.append(grids[-1].windows(3, stride=2))  # Any odd length has the same grid.
    return grids[1:]
