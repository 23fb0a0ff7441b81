"""The arms of an ablation: config files, each with every combination of the sweeps' alternatives."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Sequence

from ecgjax import defaults
from ecgjax.config import command_line
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError

#: Leaves that every run of an arm has a value of its own for.
_SEEDS = ("seed", "probe.seed")

#: Alternative of a sweep that changes nothing.
AS_IT_IS = "base"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One config of an ablation.

    Attributes:
        config: Config file, with the variant after its colon.
        changes: Leaves that the sweeps change, such as `"augment.vcg.enabled"`, each with the text of its value.
        common: Leaves that are changed in all arms, each with the text of its value.
    """

    config: str
    changes: tuple[tuple[str, str], ...] = ()
    common: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """Title of the arm in tables: the config's name and the changes."""
        name = self.config.rpartition("/")[2].replace(".py", "")
        return " ".join((name, *(f"{leaf}={value}" for leaf, value in self.changes)))

    @property
    def folder(self) -> str:
        """Name of the arm's folder: the title in safe characters, made unique by a digest."""
        safe = re.sub(r"[^A-Za-z0-9.=]+", "_", self.title)[:80].strip("_.")
        told = repr((self.config, self.changes)).encode()
        return f"{safe}-{hashlib.blake2b(told, digest_size=4).hexdigest()}"

    def flags(self, *, seed: int) -> list[str]:
        """Returns the arguments of `ecgjax.pretrain`, with `seed` for the run and for the draw of labels."""
        # Each leaf is given once, because a tuple that is given twice would become both, one after the other.
        leaves = dict((*self.common, *self.changes, ("seed", str(seed)), ("probe.seed", str(seed))))
        return [f"--config={self.config}", *(f"--config.{leaf}={value}" for leaf, value in leaves.items())]

    def resolve(self, *, seed: int) -> RunSettings:
        """Returns the settings of the config with all its changes.

        Raises:
            ConfigError: There is no such file or leaf, or a value is not possible.
        """
        try:
            return defaults.settings_of(command_line.config_of(self.config, self.flags(seed=seed)[1:]))
        except ConfigError as error:
            raise ConfigError(f"{self.title}: {error}") from error


def shared_changes(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Returns the changes that every one of several arms brings, in the order of the first; none for a single arm."""
    if len(arms) < 2:
        return []
    # Of a leaf that an arm changes twice the later value counts.
    first, *others = (dict(arm.changes) for arm in arms)
    return [change for change in first.items() if all(change in other.items() for other in others)]


def short_titles(arms: Sequence[Arm]) -> dict[str, str]:
    """Returns the arms' titles without what all of them share, by their whole titles.

    Args:
        arms: Arms of an ablation, no two of one title.
    """
    shared = shared_changes(arms)
    kept = [tuple(change for change in arm.changes if change not in shared) for arm in arms]
    return {arm.title: Arm(arm.config, own).title for arm, own in zip(arms, kept, strict=True)}


def parse_sweep(text: str) -> list[tuple[tuple[str, str], ...]]:
    """Returns the alternatives of one sweep, each as the leaves that it changes with their values.

    Args:
        text: Alternatives with `|` between, each `LEAF=VALUE`, several of these with blanks between, or `base`, which
            changes nothing. A value alone belongs to the leaf that the first alternative changes:
            `augment.vcg.enabled=True|False`.

    Raises:
        ConfigError: An alternative is neither `base` nor made of `LEAF=VALUE`.
    """
    alternatives = [part.split() for part in text.split("|")]
    leaf, equals, _ = alternatives[0][0].partition("=") if alternatives[0] else ("", "", "")
    found: list[tuple[tuple[str, str], ...]] = []
    for words in alternatives:
        if words == [AS_IT_IS]:
            found.append(())
            continue
        if equals and len(words) == 1 and "=" not in words[0]:
            words = [f"{leaf}={words[0]}"]
        pairs = [word.removeprefix("config.").partition("=") for word in words]
        if not pairs or not all(name and equals for name, equals, _ in pairs):
            raise ConfigError(
                f"--sweep={text!r}: {' '.join(words)!r} is no alternative; write LEAF=VALUE|VALUE, "
                "LEAF=VALUE LEAF=VALUE|…, or base for the config as it is"
            )
        found.append(tuple((name, value) for name, _, value in pairs))
    return found


def arms_of(configs: Sequence[str], sweeps: Sequence[str], *, common: Sequence[tuple[str, str]] = ()) -> list[Arm]:
    """Returns an arm for every config and every combination of one alternative of each sweep; configs vary slowest.

    Args:
        configs: Config files, each followed, with blanks between, by the changes of its own arms: `configs/clocs.py
            batch_size=64`.
        sweeps: Sweeps in the form that `parse_sweep` reads.
        common: Leaves and values that are changed in all arms, unless an arm changes them otherwise.

    Raises:
        ConfigError: A sweep or config cannot be read, or two arms are the same.
    """
    grid = list(itertools.product(*(parse_sweep(text) for text in sweeps)))
    arms = []
    for text in configs:
        config, _, changed = text.strip().partition(" ")
        (own,) = parse_sweep(changed) if changed.strip() else [()]
        arms += [Arm(config, (*own, *itertools.chain(*chosen)), tuple(common)) for chosen in grid]
    for arm in arms:
        if given := [leaf for leaf, _ in (*arm.common, *arm.changes) if leaf in _SEEDS]:
            raise ConfigError(
                f"{arm.title}: {given[0]} is counted by --seeds; say there how many, and leave it out here"
            )
    folders = [arm.folder for arm in arms]
    for arm in arms:
        if folders.count(arm.folder) > 1:
            raise ConfigError(f"two arms are the same: {arm.title}")
        if [each.title for each in arms].count(arm.title) > 1:
            raise ConfigError(
                f"two arms of different files are both called {arm.title}, and tables could not tell them apart: give "
                "one of the config files another name"
            )
    return arms
