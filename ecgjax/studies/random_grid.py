"""A grid of random encoders, of which the best on the records to choose by is reported."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import NamedTuple

from ecgjax.encoders.from_config import abstract_split
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.settings.sections import read


class RandomEncoder(NamedTuple):
    """An encoder of the grid.

    Attributes:
        title: Entry of `config.probe.grid`.
        settings: Settings of the encoder.
        seed: Seed of its initialisation.
    """

    title: str
    settings: EncoderSettings
    seed: int


def grid_of(entries: Sequence[str], encoder: EncoderSettings) -> list[RandomEncoder]:
    """Returns the encoders of a grid.

    Args:
        entries: Entries such as `"vit_s:small depth=2 seed=1"`: name of an encoder, then settings of `config.encoder`
            that differ from the encoder's own, and `seed`, 0 by default.
        encoder: Encoder of the study, from which leads, precision and embedding dimension are taken over.

    Raises:
        ConfigError: An entry cannot be read, is given twice, or names an encoder or a setting that does not exist.
    """
    found: list[RandomEncoder] = []
    for entry in entries:
        one = _parsed(entry, encoder)
        if any((one.settings, one.seed) == (other.settings, other.seed) for other in found):
            raise ConfigError(f"config.probe.grid: {entry!r} is given twice")
        found.append(one)
    return found


def _parsed(entry: str, encoder: EncoderSettings) -> RandomEncoder:
    name, *words = entry.split() or [""]
    of_study = ("num_leads", "precision", "embedding_dim")
    tree = {"name": name, **{leaf: getattr(encoder, leaf) for leaf in of_study}}
    seed = 0
    try:
        for word in words:
            leaf, equals, text = word.partition("=")
            value = ast.literal_eval(text) if equals else None
            if leaf == "seed":
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
                    raise ConfigError(f"seed={text} is not possible; it must be a whole number of 32 bits")
                seed = value
            elif value is None:
                raise ConfigError(f"{word!r} is no setting; write NAME LEAF=VALUE LEAF=VALUE")
            else:
                tree[leaf] = value
        settings = read(EncoderSettings, tree, path="config.encoder")
        abstract_split(settings)
    except (ConfigError, SyntaxError, ValueError) as error:
        raise ConfigError(f"config.probe.grid: {entry!r} is no encoder: {error}") from error
    return RandomEncoder(entry, settings, seed)
