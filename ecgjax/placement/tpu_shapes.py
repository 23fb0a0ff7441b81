"""Generations of TPUs, and the shapes of the slices that each has."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from ecgjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes of the slices of a generation.

    Attributes:
        dimensions: Number of dimensions of a slice.
        most_chips: Number of chips of the largest slice.
    """

    dimensions: int
    most_chips: int

    @property
    def words(self) -> str:
        """Shapes in words, such as `2x2x1, 2x2x2, …`."""
        if self.dimensions == 2:
            return ", ".join(_FLAT)
        return f"{', '.join(_SMALL)}, and 4x4x4, 4x4x8, … (multiples of 4, the longest last)"


#: Shapes by the common name of the generation; docs.cloud.google.com/tpu/docs tells of each.
SHAPES: Mapping[str, Shapes] = {
    "v4": Shapes(3, 4096),
    "v5e": Shapes(2, 256),
    "v5p": Shapes(3, 6144),
    "v6e": Shapes(2, 256),
}

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")


def num_chips(text: str, *, flag: str) -> int:
    """Returns the number of chips of a slice.

    Args:
        text: Generation and shape, such as `v5e:16x16`.
        flag: Flag that names the slice, for messages.

    Raises:
        ConfigError: There is no such generation or shape.
    """
    name, colon, shape = text.partition(":")
    if name not in SHAPES or not colon:
        raise ConfigError(
            f"{flag}={text!r} is no slice; write GENERATION:TOPOLOGY such as v5e:16x16, of {', '.join(SHAPES)}"
        )
    shapes = SHAPES[name]
    if re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})+", shape) is None:
        raise ConfigError(f"{flag}={text!r}: {shape!r} is no topology; write it as {shapes.words}")
    sides = [int(side) for side in shape.split("x")]
    if not (shape in _FLAT if shapes.dimensions == 2 else shape in _SMALL or _is_cube(sides)):
        raise ConfigError(f"{flag}={text}: {name} has no slice {shape}; there are {shapes.words}")
    chips = math.prod(sides)
    if chips > shapes.most_chips:
        raise ConfigError(f"{flag}={text} has {chips} chips; the largest slice of {name} has {shapes.most_chips}")
    return chips


def _is_cube(sides: list[int]) -> bool:
    """Returns whether a shape is made of cubes of 4 × 4 × 4 chips, with the longest side last."""
    return len(sides) == 3 and all(side % 4 == 0 for side in sides) and sides == sorted(sides)
