"""Encoders at initialisation, as a config names them."""

from __future__ import annotations

import ml_collections

from ecgjax.encoders.registry import Split, create


def create_split(config: ml_collections.ConfigDict, *, seed: int) -> Split:
    """Initialises the encoder of a config.

    Args:
        config: Config of a run; `config.encoder` is read, and its leaves that are None are left to the encoder.
        seed: Seed of the initialisation.

    Returns:
        The encoder's graph definition, parameters and running statistics.

    Raises:
        ConfigError: The encoder's name, precision or a setting is unknown.
    """
    settings = {key: value for key, value in config.encoder.to_dict().items() if value is not None}
    return create(settings.pop("name"), seed=seed, precision=settings.pop("precision"), **settings)
