"""Settings of an encoder: its name, the settings of all encoders, and the arguments of the chosen encoder."""

from __future__ import annotations

import dataclasses

from ecgjax.encoders.registry import ENCODERS, NOT_LEAVES
from ecgjax.settings.bounds import ONE_OR_MORE, between
from ecgjax.settings.leaf import Arguments, Leaf, arguments_of, leaf
from ecgjax.settings.sections import arguments

# Leaves of every encoder, which are fields of their own.
_OF_ALL = ("name", "precision", "num_leads", "embedding_dim", "lead_wise")


def argument_leaves() -> dict[str, Leaf]:
    """Returns the leaves of all encoders' arguments by name; None, their default, means the encoder's own default."""
    found: dict[str, Leaf] = {}
    for cls, _ in ENCODERS.values():
        for name, own in arguments_of(cls, without=(*NOT_LEAVES, *_OF_ALL)).items():
            if name not in found or not found[name].meaning:
                found[name] = dataclasses.replace(own, default=None, optional=True)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """`config.encoder`: the network.

    Attributes:
        arguments: Arguments of the encoder's class that differ from its defaults.
    """

    name: str | None = leaf(None, "Name of the encoder; docs/encoders.md lists them.")
    precision: str = leaf("float32", "Type that is computed in.", choices=("float32", "bfloat16"))
    num_leads: int = leaf(12, "Leads that the encoder sees: 12, or the 8 that are stored.", bound=ONE_OR_MORE)
    embedding_dim: int | None = leaf(128, "Dimension of an embedding; None for its own.", bound=between(1, 2**16))
    lead_wise: bool | None = leaf(None, "Whether one network of one lead sees every lead by itself.")
    arguments: Arguments = arguments(argument_leaves)
