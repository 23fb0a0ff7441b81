"""The commands before a study's own: those that built its data sets from raw files, and those that pretrained."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from data_pipelines.card.build_command import build_command
from data_pipelines.prepared.dataset import Dataset
from ecgjax.pages.provenance import Step
from ecgjax.settings.sections import Tree, flat


def build_steps(datasets: Sequence[Dataset]) -> list[Step]:
    """Returns the step of each data set's build from its raw files, as its card has it.

    Args:
        datasets: Data sets of the study.
    """
    return [
        _build_step(str(dataset.card["name"]), build_command(dataset.card, dataset.directory)) for dataset in datasets
    ]


def _build_step(name: str, command: str) -> Step:
    if not command:
        return Step(f"The data set {name}: its card does not say how it was built.")
    source = " (SOURCE is the folder of the raw files)" if "SOURCE" in command else ""
    return Step(f"The data set {name}, from its raw files{source}:", command)


def pretraining_step(
    config: Tree | None, *, recipe: str, default: Tree, title: str, workdir: str, exported: bool = False
) -> Step:
    """Returns the step of a pretraining, as its settings differ from those of a recipe.

    Args:
        config: Nested config of the pretraining; None where it is not known.
        recipe: Name of the recipe that the command begins with.
        default: Nested config of the recipe.
        title: Title of the encoder in words.
        workdir: Folder of the run.
        exported: Whether the encoder is an exported model, whose settings have no paths.
    """
    if config is None:
        return Step(f"The pretraining of {title}: the model does not say its settings.")
    before = flat(default)
    changed = {name: value for name, value in flat(config).items() if value != before.get(name)}
    if exported:
        changed["data.dir"] = "DATA"
    leaves = [f"--config.{name}={value}" for name, value in changed.items() if not name.startswith("probe.")]
    workdir = "WORKDIR" if exported else workdir
    command = ["python", "-m", "ecgjax.pretrain", f"--config={recipe}", f"--workdir={workdir}", *leaves]
    then = ", which python -m ecgjax.export wrote as a model afterwards" if exported else ""
    return Step(
        f"The pretraining of {title}, as leaves that differ from the recipe {recipe}{then}:", shlex.join(command)
    )
