"""The runs of an ablation: every arm and seed, and the models beside the arms."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.finetuning import trainer
from ecgjax.settings.initialisation import InitSettings
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.model_names import BASELINES, PLAIN, ModelName, labels_only_titles, short_title

from .arms import Arm

#: Leaves in which all arms must agree, so that their results are on the same records.
_SHARED = ("data.dir", "data.links", "data.val_folds", "data.test_folds", "probe.layer", "probe.overlaps")


class Planned(NamedTuple):
    """A run of the ablation.

    Attributes:
        model: Key of the model that is evaluated: `"pretrained"` for an arm, `"random"` or a baseline beside the arms.
        arm: Title of the arm, or of the model.
        folder: Name of the folder of the run's files.
        seed: Seed of the run and of the draw of labels.
        twin: Title of the random encoder that the arm is compared with; empty for a model beside the arms.
        labels_only: Title of the same encoder trained with labels alone; empty for a model beside the arms.
        settings: Settings of the run.
        flags: Arguments of `ecgjax.pretrain`; none for a model beside the arms.
    """

    model: ModelName
    arm: str
    folder: str
    seed: int
    twin: str
    labels_only: str
    settings: RunSettings
    flags: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the run in the form that `--only` takes."""
        return f"{self.folder}/seed{self.seed}"

    @property
    def digest(self) -> str:
        """Digest of everything that decides the run's result."""
        # Studies that were begun before there was this section go on.
        unset = {(f"init.{name}", value) for name, value in flat(tree_of(InitSettings())).items()}
        leaves = flat(tree_of(self.settings)).items() - unset
        told = repr(sorted((name, repr(value)) for name, value in leaves if _decides(self.model, name)))
        return hashlib.blake2b(f"{self.arm} {told}".encode(), digest_size=16).hexdigest()


def _decides(model: ModelName, leaf: str) -> bool:
    """Returns whether the result of a model depends on a leaf."""
    if leaf == "data.dir":  # The place of the data does not change a result.
        return False
    of_training = ("probe.supervised.", *(f"optimizer.{name}" for name in trainer.SHARED))
    if model == "supervised" and leaf.startswith(of_training):
        return True
    if leaf.startswith("probe.") and leaf not in ("probe.layer", "probe.seed"):
        return False
    if model in PLAIN and leaf.startswith("encoder."):
        return False
    return model == "pretrained" or leaf == "seed" or leaf.startswith(("encoder.", "data.", "probe."))


def plan(arms: Sequence[Arm], *, seeds: int, baselines: Sequence[ModelName] = BASELINES) -> list[Planned]:
    """Returns all runs, seed by seed, each arm after the models of its encoder that it is compared with.

    Args:
        arms: Arms of the ablation.
        seeds: Number of runs of every arm.
        baselines: Models beside the random encoders.

    Raises:
        ConfigError: An arm's config is not possible, or arms would be evaluated on different records.
    """
    titles: dict[str, str] = {}
    encoders, runs = [], []
    first = [arm.resolve(seed=0) for arm in arms]
    for of_arm in first:
        settings, name = repr(tree_of(of_arm.encoder)), str(of_arm.encoder.name)
        if settings not in titles:
            same = sum(title.split(" #")[0] == name for title in titles.values())
            titles[settings] = name + (f" #{same + 1}" if same else "")
        encoders.append(titles[settings])
    labels_only = labels_only_titles(first, encoders)
    for seed in range(seeds):
        made: set[str] = set()
        for arm, at_first, encoder, trained in zip(arms, first, encoders, labels_only, strict=True):
            of_arm = arm.resolve(seed=seed) if seed else at_first
            twin = short_title("random", encoder)
            # Arms of one encoder share what stands beside it, and all arms share what has no encoder.
            beside: dict[str, ModelName] = {twin: "random", trained: "supervised"}
            beside |= {short_title(name, ""): name for name in PLAIN}
            for title, model in beside.items():
                if title not in made and (model == "random" or model in baselines):
                    made.add(title)
                    runs.append(Planned(model, title, _folder(title), seed, "", "", of_arm, ()))
            flags_of_arm = arm.flags(seed=seed)
            runs.append(Planned("pretrained", arm.title, arm.folder, seed, twin, trained, of_arm, flags_of_arm))
    leaves = [flat(tree_of(run.settings)) for run in runs]
    shared = [{name: own[name] for name in _SHARED} for own in leaves]
    for run, values in zip(runs, shared, strict=True):
        for name, value in values.items():
            if value != shared[0][name]:
                raise ConfigError(
                    f"config.{name} is {value!r} in {run.arm} and {shared[0][name]!r} in {runs[0].arm}: all arms are "
                    "judged on the same records; give it once for all"
                )
    return runs


def _folder(title: str) -> str:
    return re.sub("[#()]", "", title.replace(" ", "-").replace(":", "_"))


def result_path(out: Path, run: Planned) -> Path:
    """Returns the file of a run's result.

    Args:
        out: Folder of the ablation.
        run: Run.
    """
    return out / "results" / run.folder / f"seed{run.seed}.npz"


def status_path(out: Path, run: Planned) -> Path:
    """Returns the file that tells how far a run is.

    Args:
        out: Folder of the ablation.
        run: Run.
    """
    return out / "status" / run.folder / f"seed{run.seed}.json"
