"""Settings of how batch and parameters lie on the devices."""

from __future__ import annotations

import dataclasses

from ecgjax.placement.presets import PRESETS
from ecgjax.settings.bounds import ONE_OR_MORE, ZERO_OR_MORE
from ecgjax.settings.leaf import leaf

#: Types in which gradients can be summed; bfloat16 takes the type that is computed in.
SUMMED_IN = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """`config.mesh`: layout of batch and parameters on the devices."""

    model: int = leaf(1, "Devices that share every row of the batch; the others divide its rows.", bound=ONE_OR_MORE)
    sharding: str = leaf(
        "replicated",
        'Layout of parameters; "replicated": all on every device; "fsdp": divided over the devices that divide the '
        'rows; "tensor": kernels divided over those that share a row.',
        choices=tuple(PRESETS),
    )
    fsdp_min_mb: float = leaf(
        1.0, 'Megabytes (10^6 bytes) from which on "fsdp" divides a parameter.', bound=ZERO_OR_MORE
    )
    rules: tuple[str, ...] = leaf(
        (),
        'Exceptions, each "REGEX=AXIS,AXIS": the first that is found in a parameter\'s path lays out its dimensions; '
        "an empty axis leaves a dimension whole.",
    )
    reduce: str = leaf(
        "float32",
        "Type in which gradients are summed over rows and devices; bfloat16 takes half the traffic, where "
        "config.encoder.precision is bfloat16.",
        choices=SUMMED_IN,
    )
