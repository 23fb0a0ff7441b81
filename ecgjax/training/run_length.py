"""The file of a workdir that keeps by how much a run was extended beyond the length in its config.

An extension is told as the number of steps beyond that length, and not beyond where the run stands: the same command
given again, after an interruption or by a scheduler, asks for what is there already.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.system.counted import counted
from ecgjax.config.run_config import CONFIG_FILE
from ecgjax.errors import ConfigError
from ecgjax.optim.extension import Extension, check_rates
from ecgjax.settings.initialisation import InitSettings
from ecgjax.settings.sections import read
from ecgjax.system.files import write_atomically
from ecgjax.training.checkpoints.checkpoint import Saved

#: Name of the file in the folder of a run.
EXTENSIONS_FILE = "extensions.json"


def read_extensions(workdir: str | Path) -> tuple[Extension, ...]:
    """Returns the extensions of a run in their order, none where it was never extended.

    Raises:
        ConfigError: The file is damaged.
    """
    path = Path(workdir) / EXTENSIONS_FILE
    if not path.exists():
        return ()
    try:
        return extensions_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise ConfigError(
            f"{path}, which tells how long the run is, is damaged ({error}); restore it from a copy, or remove it and "
            "give --extend again"
        ) from error


def extensions_of(values: Any) -> tuple[Extension, ...]:
    """Returns extensions from the values of JSON that `write_extensions` wrote.

    Raises:
        TypeError: The values have other fields.
        ValueError: The extensions do not follow one another.
        ConfigError: The rates of one are not possible.
    """
    found = tuple(Extension(**each) for each in values)
    before = 0
    for each in found:
        if not (_whole(each.begin) and _whole(each.end) and each.begin == before < each.end):
            raise ValueError(f"an extension goes from {each.begin} to {each.end} after one that ends at {before}")
        # The settings that these came from have choices and bounds.
        rates = {"schedule": each.schedule, "share": each.share}
        read(InitSettings, rates, path="config.init")
        check_rates(each.schedule, each.share)
        before = each.end
    return found


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def write_extensions(workdir: str | Path, extensions: Sequence[Extension]) -> None:
    """Writes the extensions of a run into its folder, where there are any."""
    if extensions:
        content = [dataclasses.asdict(each) for each in extensions]
        write_atomically(Path(workdir) / EXTENSIONS_FILE, json.dumps(content, indent=2) + "\n")


def extensions_after(
    workdir: str | Path, steps: int | None, settings: InitSettings, *, saved: Saved | None
) -> tuple[Extension, ...]:
    """Returns the extensions that a run has with a command that asks for a number of steps.

    Args:
        workdir: Folder of the run.
        steps: Number of steps beyond the length in the config that is asked for; None where nothing is.
        settings: Settings that say at which rates the steps go on.
        saved: Latest checkpoint of the run; None where there is none.

    Raises:
        ConfigError: There is no run to extend, or `with_extension` or `check_kept` refuses.
    """
    if steps is not None and not (Path(workdir) / CONFIG_FILE).is_file():
        raise ConfigError(
            f"--extend={steps}: --workdir={workdir} has no run that could take more steps; name the folder of one, or "
            "leave the flag out and set config.duration"
        )
    known = with_extension(read_extensions(workdir), steps, settings, at_step=0 if saved is None else saved.step)
    if saved is not None:
        check_kept(known, saved.metadata.get("about") or {})
    return known


def describe_extensions(extensions: Sequence[Extension], num_steps: int) -> str:
    """Returns how a run's number of steps is made up, in brackets after a space; empty where it was not extended.

    Args:
        extensions: Extensions of the run.
        num_steps: Number of steps of the whole run.
    """
    if not extensions:
        return ""
    parts = [f"{each.end - each.begin:,} more{_at_rates(each)}" for each in extensions]
    return f" ({', '.join([f'{num_steps - extensions[-1].end:,} of the config', *parts])})"


def _at_rates(extension: Extension) -> str:
    share = "" if extension.share is None else f" at {extension.share:g} of the peak rate"
    return "" if extension.schedule is None else f" by {extension.schedule}{share}"


def with_extension(
    known: Sequence[Extension], steps: int | None, settings: InitSettings, *, at_step: int
) -> tuple[Extension, ...]:
    """Returns the extensions of a run after a command that asks for a number of steps.

    Args:
        known: Extensions of the run so far.
        steps: Number of steps beyond the length in the config that is asked for; None where nothing is.
        settings: Settings that say at which rates the steps go on.
        at_step: Number of finished updates.

    Raises:
        ConfigError: It was extended by more, or by as much at other rates; or the rates of an extension are set and
            there is none.
    """
    check_rates(settings.schedule, settings.share)
    wanted = (settings.schedule, settings.share)
    before = known[-1].end if known else 0
    if steps is None and not known:
        if settings.schedule is not None:
            raise ConfigError(
                f"config.init.schedule={settings.schedule!r} says how a run goes on beyond its length, and this one "
                "was not extended: give --extend=STEPS, or leave the setting out"
            )
        return ()
    if steps is not None and steps < before:
        raise ConfigError(
            f"--extend={steps}: the run was extended by {counted(before, 'step')} already, counted from the length in "
            f"its config; for {steps:,} more give --extend={before + steps}"
        )
    if steps is not None and steps > before:
        new = Extension(
            begin=before, end=steps, schedule=settings.schedule, share=settings.share, given_at_step=at_step
        )
        return (*known, new)
    last = known[-1]
    if wanted not in ((None, None), (last.schedule, last.share)):
        raise ConfigError(
            f"the last {last.end - last.begin:,} steps were added with config.init.schedule={last.schedule!r} and "
            f"config.init.share={last.share}, and not {settings.schedule!r} and {settings.share}: leave these settings "
            "out to go on, or add further steps with a greater --extend"
        )
    return tuple(known)


def check_kept(known: Sequence[Extension], about: Mapping[str, Any]) -> None:
    """Refuses extensions other than those that a checkpoint was trained with.

    Args:
        known: Extensions of the run.
        about: Statements that the checkpoint holds.

    Raises:
        ConfigError: The record in the workdir was changed or removed.
    """
    trained = [_rates(each) for each in extensions_of(about.get("extensions", ()))]
    if [_rates(each) for each in known][: len(trained)] != trained:
        told = "; ".join(
            f"{counted(each.end, 'step')}, schedule {each.schedule!r}, share {each.share}" for each in known
        )
        raise ConfigError(
            f"the last checkpoint was trained with other extensions than {EXTENSIONS_FILE} and --extend tell "
            f"({told or 'none'}): restore that file from a copy, or use another --workdir"
        )


def _rates(extension: Extension) -> tuple[int, int, str | None, float | None]:
    return extension.begin, extension.end, extension.schedule, extension.share
