"""Every leaf of a pretraining config, with default values that suit all methods.

The config of a method starts from these defaults and sets its own values. They are no complete config themselves,
because they name no objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ecgjax.config import earlier, run_config
from ecgjax.errors import ConfigError
from ecgjax.settings import sections
from ecgjax.settings.leaf import Leaf, section
from ecgjax.settings.probe import ProbeSettings
from ecgjax.settings.sections import Tree
from ecgjax.training.settings import PretrainingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(PretrainingSettings):
    """All settings of a run: those of its pretraining and of its evaluation."""

    probe: ProbeSettings = section(ProbeSettings)


def get_config() -> ConfigDict:
    """Returns the leaves as a config, in which the file of a method sets its own values."""
    return sections.config_of(RunSettings)


def leaves() -> Mapping[str, Leaf]:
    """Returns every leaf of a run's config by its path, such as `probe.task`."""
    return sections.leaves_of(RunSettings)


def settings_of(config: ConfigDict | Tree) -> RunSettings:
    """Returns the settings of a config.

    Args:
        config: Config of a run, or its values as nested mappings.

    Raises:
        ConfigError: A value has another type or is out of its bound, or a setting is unknown or no longer exists.
    """
    tree = config.to_dict() if isinstance(config, ConfigDict) else config
    earlier.check_retired(sections.flat(tree))
    return sections.read(RunSettings, tree)


def settings_of_run(workdir: str | Path) -> RunSettings:
    """Returns the settings that a run was trained with; leaves that are newer than the run are at their defaults.

    Args:
        workdir: Folder of the run.

    Raises:
        ConfigError: The folder holds no run, or one that was trained for debugging alone, or its config is damaged.
    """
    config = run_config.load_resolved(workdir)
    if run_config.kind_of_run(sections.flat(config.to_dict())) == "fine-tuning":
        raise ConfigError(
            f"{workdir} is the folder of a fine-tuning run, and one of a pretraining run is needed here. Its model is "
            f"exported already, in {Path(workdir) / 'model'}, which ecgjax.load opens; what it is worth stands in "
            f"{Path(workdir) / 'results.json'}"
        )
    try:
        if lacking := {"data", "encoder", "objective"} - set(config):
            raise ConfigError(f"the config is damaged, it lacks {', '.join(sorted(lacking))}; restore it from a copy")
        settings = settings_of(config)
    except ConfigError as error:
        raise ConfigError(f"{Path(workdir) / run_config.CONFIG_FILE}: {error}") from error
    if settings.debug.untrained:
        raise ConfigError(
            f"{workdir} was trained {settings.debug.words} ({settings.debug.untrained}): it is no model, and is not "
            "evaluated, exported or trained on. Train one without that setting, in another --workdir"
        )
    return settings
