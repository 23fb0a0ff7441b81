"""Weights of another training that a run begins with, matched to its own by name.

A name is the path of a parameter or running statistic below its part, as `config.optimizer.frozen` has it:
`encoder/blocks/0/conv1/kernel`. Every weight of the run must be found in the source with its shape, and every weight of
the source must be taken, unless the config says otherwise: a layer that silently stays at random would look like a poor
source.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.records import SignalFormat
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.optim.parameters import matching, name_of
from ecgjax.settings.initialisation import InitSettings
from ecgjax.settings.sections import flat, tree_of

#: Parts that can begin with a source's weights, values of `config.init.parts`.
PARTS = ("encoder", "objective", "task", "second")

# Setting of a run without one of the parts that not every run has.
_WITHOUT = {"task": "config.task.name is empty", "second": "config.second.objective.name is None"}

#: Parameters and running statistics, which are matched alike.
KINDS = ("params", "stats")

#: Arrays by kind and name.
Weights = Mapping[tuple[str, str], Any]

# Number of names that a message lists.
_SHOWN = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceWeights:
    """Weights that a run begins with, and what is known of the encoder that they come from.

    Attributes:
        place: Folder that they come from, for messages.
        encoder: Settings of the encoder.
        signal_format: Rate and length of the recordings that it was trained on; None where they are not known.
        arrays: Arrays by kind, of `KINDS`, and name.
    """

    place: str
    encoder: EncoderSettings
    signal_format: SignalFormat | None
    arrays: Mapping[tuple[str, str], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Outcome of a match.

    Attributes:
        taken: Name in the source by name of every weight that is taken from it.
        fresh: Names of the weights that stay at their initialisation.
        unused: Names of weights of the source that are not taken.
        differing: Settings of the encoder that differ from the source's, one text each.
        digest: Hex digest of all weights that the run begins with.
    """

    taken: Mapping[str, str]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    differing: tuple[str, ...]
    digest: str

    def describe(self, *, frozen: Collection[str]) -> list[str]:
        """Returns printable lines.

        Args:
            frozen: Names of the parameters that stay as they are.
        """
        renamed = sum(name != source for name, source in self.taken.items())
        held = len(self.taken.keys() & set(frozen))
        lines = [
            f"{len(self.taken):,} weights begin as there"
            + (f", {renamed:,} of them under other names" if renamed else "")
            + (f", {held:,} of them frozen" if held else "")
        ]
        if self.fresh:
            lines.append(f"{len(self.fresh):,} begin at random: {_listed(self.fresh)}")
        if self.unused:
            lines.append(f"{len(self.unused):,} of there are not taken: {_listed(self.unused)}")
        if self.differing:
            lines.append(f"settings of the encoder that differ: {'; '.join(self.differing)}")
        return lines

    def to_json(self, *, frozen: Collection[str]) -> dict[str, Any]:
        """Returns all of it as values of JSON; the argument is that of `describe`."""
        return {
            "taken": dict(self.taken),
            "fresh": list(self.fresh),
            "unused": list(self.unused),
            "frozen": sorted(frozen),
            "differing_settings": list(self.differing),
            "digest_of_the_first_weights": self.digest,
        }


def check_source(source: SourceWeights, encoder: EncoderSettings, signal_format: SignalFormat) -> None:
    """Refuses a source whose encoder is another one, or saw recordings of another rate.

    The length of a recording is no part of any weight, and may differ.

    Args:
        source: Weights to begin with.
        encoder: Settings of the run's encoder.
        signal_format: Rate and length of the run's recordings.

    Raises:
        ConfigError: Name, leads or rate differ.
    """
    place = f"config.init.source={source.place}"
    if _architecture(source.encoder.name) != _architecture(encoder.name):
        raise ConfigError(
            f"{place} is a {source.encoder.name}, and config.encoder.name={encoder.name!r}: its weights fit no other "
            f"encoder; give --config.encoder.name={source.encoder.name} with the source's settings, or another source"
        )
    if source.encoder.num_leads != encoder.num_leads:
        raise ConfigError(
            f"{place} sees {source.encoder.num_leads} leads, and config.encoder.num_leads={encoder.num_leads}; give "
            f"--config.encoder.num_leads={source.encoder.num_leads}, or another source"
        )
    known = source.signal_format
    if known is not None and known.sampling_rate_hz != signal_format.sampling_rate_hz:
        raise ConfigError(
            f"{place} was trained at {known.sampling_rate_hz} Hz, and config.data.dir has recordings of "
            f"{signal_format.sampling_rate_hz} Hz, at which every filter would span another time; convert them with "
            f"python -m data_pipelines.build --builder=prepared --target_rate_hz={known.sampling_rate_hz}"
        )


def _architecture(name: str | None) -> str:
    """Returns the name of an encoder without its size: whether sizes fit is seen in the weights."""
    return str(name).partition(":")[0]


def begin_with(
    source: SourceWeights,
    settings: InitSettings,
    encoder: EncoderSettings,
    *,
    params: Mapping[str, Any],
    stats: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], WarmStart]:
    """Puts the weights of a source in the place of a run's first ones.

    Args:
        source: Weights to begin with.
        settings: Settings of the match.
        encoder: Settings of the run's encoder.
        params: Parameters of the run at initialisation, by part.
        stats: Running statistics of the run, by part.

    Returns:
        Parameters and statistics that the run begins with, and the outcome of the match.

    Raises:
        ConfigError: A part or pattern is not possible, or weights are missing, not used or of another shape and no
            setting says what becomes of them.
    """
    trees = {"params": dict(params), "stats": dict(stats)}
    own = {key: leaf for key, leaf in weights_of(trees).items() if key[1].partition("/")[0] in _parts(settings, params)}
    sources, dropped = _renamed(source, settings.remap)
    # The pattern is a regular expression as those of config.optimizer.frozen are, and so are its errors.
    fresh = matching(settings.fresh, {name: None for _, name in own}, setting="config.init.fresh")
    wanted = {key: leaf for key, leaf in own.items() if key[1] not in fresh}
    _check_fit(source, encoder, wanted=wanted, sources=sources, fresh=fresh)
    begun = {
        kind: jax.tree_util.tree_map_with_path(
            lambda path, leaf, kind=kind: _first(
                leaf, sources.get((kind, name_of(path))), (kind, name_of(path)), wanted
            ),
            tree,
        )
        for kind, tree in trees.items()
    }
    return (
        begun["params"],
        begun["stats"],
        WarmStart(
            taken={name: sources[kind, name][0] for kind, name in wanted},
            fresh=tuple(sorted(name for _, name in own.keys() - wanted.keys())),
            unused=tuple(sorted({*dropped, *(there for key, (there, _) in sources.items() if key not in wanted)})),
            differing=_differing(source.encoder, encoder),
            digest=_digest(weights_of(begun)),
        ),
    )


def weights_of(trees: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Returns the arrays of trees, which are given by kind, by kind and name."""
    return {
        (kind, name_of(path)): leaf for kind, tree in trees.items() for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _first(
    leaf: Any, found: tuple[str, np.ndarray] | None, key: tuple[str, str], wanted: Collection[tuple[str, str]]
) -> Any:
    return leaf if found is None or key not in wanted else jnp.asarray(found[1])


def named_parts(settings: InitSettings) -> tuple[str, ...]:
    """Returns the parts that begin with the source's weights.

    Raises:
        ConfigError: There is no such part, or none is named.
    """
    if not settings.parts:
        raise ConfigError("config.init.parts=() takes nothing from config.init.source; name a part, such as 'encoder'")
    for part in settings.parts:
        if part not in PARTS:
            raise ConfigError(
                f"config.init.parts={settings.parts!r}: {part!r} is unknown; there are: {', '.join(PARTS)}"
            )
    return settings.parts


def _parts(settings: InitSettings, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the parts that begin with the source's weights, all of which the run must have."""
    for part in named_parts(settings):
        if part not in params:
            raise ConfigError(
                f"config.init.parts={settings.parts!r}: this run has no part {part!r} ({_WITHOUT[part]}); leave it out"
            )
    return settings.parts


def _renamed(
    source: SourceWeights, remap: Sequence[str]
) -> tuple[dict[tuple[str, str], tuple[str, np.ndarray]], list[str]]:
    """Returns the source's name and array by kind and new name, and the names that nothing was left of."""
    found: dict[tuple[str, str], tuple[str, np.ndarray]] = {}
    dropped = []
    changes = [_change(each) for each in remap]
    used = [False] * len(changes)
    for (kind, there), array in source.arrays.items():
        name = there
        for i, (text, pattern, replacement) in enumerate(changes):
            try:
                name, count = pattern.subn(replacement, name)
            except (re.error, IndexError) as error:
                raise ConfigError(f"config.init.remap: {text!r} cannot replace anything ({error})") from error
            used[i] |= count > 0
        if not name:
            dropped.append(there)
            continue
        if (kind, name) in found:
            raise ConfigError(
                f"config.init.remap gives two weights of {source.place} the name {name!r}: {found[kind, name][0]} and "
                f"{there}"
            )
        found[kind, name] = there, array
    for (text, *_), was_used in zip(changes, used, strict=True):
        if not was_used:
            names = sorted({name for _, name in source.arrays})
            raise ConfigError(
                f"config.init.remap: {text!r} is found in no name of {source.place}; there are: {', '.join(names)}"
            )
    return found, dropped


def _change(text: str) -> tuple[str, re.Pattern[str], str]:
    pattern, arrow, replacement = text.partition("=>")
    if not arrow or not pattern:
        raise ConfigError(
            f"config.init.remap: {text!r} must be a regular expression, => and what takes the place of what it finds, "
            "such as ('^encoder/layers/=>encoder/blocks/',)"
        )
    try:
        return text, re.compile(pattern), replacement
    except re.error as error:
        raise ConfigError(f"config.init.remap: {pattern!r} is no regular expression ({error})") from error


def _check_fit(
    source: SourceWeights,
    encoder: EncoderSettings,
    *,
    wanted: Weights,
    sources: Mapping[tuple[str, str], tuple[str, np.ndarray]],
    fresh: Collection[str],
) -> None:
    missing = [name for kind, name in wanted if (kind, name) not in sources]
    reshaped = {
        name: f"{name} is {_form(sources[kind, name][1])} there and {_form(leaf)} here"
        for (kind, name), leaf in wanted.items()
        if (kind, name) in sources and _form(sources[kind, name][1]) != _form(leaf)
    }
    unused = [there for (kind, name), (there, _) in sources.items() if (kind, name) not in wanted and name not in fresh]
    if not (missing or reshaped or unused):
        return
    told, remedies = [], []
    if reshaped:
        told.append(f"{len(reshaped)} of its weights have another shape ({_listed(list(reshaped.values()), '; ')})")
    if missing:
        told.append(f"{len(missing)} of this run's are missing there ({_listed(missing)})")
    if unused:
        told.append(f"{len(unused)} of its have no place here ({_listed(unused)})")
    if reshaped or missing:
        some = sorted({*reshaped, *missing})
        remedies.append(f"name those that are to begin at random, --config.init.fresh=\"('{_beginning(some)}',)\"")
    if unused:
        remedies.append(
            f"leave out or rename weights of the source, --config.init.remap=\"('{_beginning(unused)}.*=>',)\""
        )
    if differing := _differing(source.encoder, encoder):
        remedies.insert(0, f"set config.encoder as there ({'; '.join(differing)})")
    raise ConfigError(
        f"config.init.source={source.place} does not fit: {'; '.join(told)}. What can be done: {'; or '.join(remedies)}"
    )


def _beginning(names: Sequence[str]) -> str:
    """Returns a pattern of the folder of the first name, such as `^encoder/head/`."""
    return f"^{re.escape(names[0].rpartition('/')[0])}/"


def _form(array: Any) -> str:
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _listed(texts: Sequence[str], between: str = ", ") -> str:
    return between.join(texts[:_SHOWN]) + (f"{between}…" if len(texts) > _SHOWN else "")


def _differing(there: EncoderSettings, here: EncoderSettings) -> tuple[str, ...]:
    before, now = flat(tree_of(there)), flat(tree_of(here))
    return tuple(
        f"{name} {before.get(name)!r} there, {now.get(name)!r} here"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    )


def _digest(weights: Weights) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for (kind, name), leaf in sorted(weights.items()):
        array = np.ascontiguousarray(leaf)
        digest.update(repr((kind, name, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
