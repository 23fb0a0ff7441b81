"""Initialisation of the encoder that settings name."""

from __future__ import annotations

from typing import Any

from ecgjax.encoders.encoder import Encoder
from ecgjax.encoders.registry import Split, abstract, create
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError


def create_split(settings: EncoderSettings, *, seed: int) -> Split[Encoder]:
    """Initialises the encoder that settings name.

    Args:
        settings: Settings of the encoder.
        seed: Seed of the initialisation.

    Returns:
        The encoder's graph definition, parameters and running statistics.

    Raises:
        ConfigError: The encoder has no name, or its name, its precision or a setting is unknown.
    """
    name, chosen = _name_and_arguments(settings)
    return create(name, seed=seed, **chosen)


def abstract_split(settings: EncoderSettings) -> Split[Encoder]:
    """Returns what `create_split` returns with `jax.ShapeDtypeStruct` in place of arrays; nothing is computed.

    Args:
        settings: Settings of the encoder.

    Raises:
        ConfigError: As of `create_split`.
    """
    name, chosen = _name_and_arguments(settings)
    return abstract(name, **chosen)


def _name_and_arguments(settings: EncoderSettings) -> tuple[str, dict[str, Any]]:
    if settings.name is None:
        raise ConfigError("config.encoder.name is needed: the name of an encoder, as docs/encoders.md lists them")
    of_all = {
        "num_leads": settings.num_leads,
        "embedding_dim": settings.embedding_dim,
        "lead_wise": settings.lead_wise,
    }
    chosen = {name: value for name, value in of_all.items() if value is not None}
    return settings.name, {"precision": settings.precision, **chosen, **settings.arguments}
