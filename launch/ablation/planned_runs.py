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
from ecgjax.studies.model_names import BASELINES, PLAIN, ModelName, labels_only_titles, short_title, told_apart
from ecgjax.studies.readouts import TITLES, changed_choices, models_of

from .arms import Arm

#: Leaves in which all arms must agree, so that their results are on the same records.
_SHARED = (
    "data.dir", "data.links", "data.val_folds", "data.test_folds", "probe.overlaps", "probe.readouts", "probe.grid",
    "probe.strength", "probe.select",
)  # fmt: skip


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
        readouts: Keys of further readouts of the run's encoder.
    """

    model: ModelName
    arm: str
    folder: str
    seed: int
    twin: str
    labels_only: str
    settings: RunSettings
    flags: Sequence[str]
    readouts: Sequence[ModelName] = ()

    @property
    def name(self) -> str:
        """Name of the run in the form that `--only` takes."""
        return f"{self.folder}/seed{self.seed}"

    @property
    def titles(self) -> dict[ModelName, str]:
        """Titles of the run's model and of its further readouts, by key."""
        return {self.model: self.arm} | {model: told_apart(self.arm, model) for model in self.readouts}

    def twin_of(self, model: ModelName) -> str:
        """Returns the title of the same readout of the random encoder; empty for a model beside the arms.

        Args:
            model: Key of the run's model, or of a further readout.
        """
        alike = model != self.model and model != "finetuned" and self.twin
        return told_apart(self.twin, model) if alike else self.twin

    @property
    def digest(self) -> str:
        """Digest of everything that decides the run's result."""
        return self.digest_of(self.model)

    def digest_of(self, model: ModelName) -> str:
        """Returns a digest of everything that decides the result of one of the run's models.

        Args:
            model: Key of the run's model, or of a further readout.
        """
        # Studies that were begun before there was this section go on.
        unset = {(f"init.{name}", value) for name, value in flat(tree_of(InitSettings())).items()}
        leaves = flat(tree_of(self.settings)).items() - unset
        deciding = {name: repr(value) for name, value in leaves if _decides(model, name)}
        deciding |= {name: repr(value) for name, value in changed_choices(self.settings, model).items()}
        told = repr(sorted(deciding.items()))
        return hashlib.blake2b(f"{self.titles[model]} {told}".encode(), digest_size=16).hexdigest()


def _decides(model: ModelName, leaf: str) -> bool:
    """Returns whether the result of a model depends on a leaf."""
    if leaf == "data.dir":  # The place of the data does not change a result.
        return False
    of_training = ("probe.supervised.", *(f"optimizer.{name}" for name in trainer.SHARED))
    if model == "supervised" and leaf.startswith(of_training):
        return True
    if model == "finetuned" and leaf.startswith("probe.finetune."):
        return True
    if leaf.startswith("probe.") and leaf not in ("probe.layer", "probe.seed"):
        return False
    if model in (*PLAIN, "measured") and leaf.startswith("encoder."):
        return False
    return (
        model == "finetuned"
        or model.startswith("pretrained")
        or leaf == "seed"
        or leaf.startswith(("encoder.", "data.", "probe."))
    )


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
        # A twin is read at the layer of its arm.
        layer = of_arm.probe.layer
        settings = f"{tree_of(of_arm.encoder)!r} {layer}"
        name = str(of_arm.encoder.name) + ("" if layer == "features" else f" ({layer})")
        if settings not in titles:
            same = sum(title.split(" #")[0] == name for title in titles.values())
            titles[settings] = name + (f" #{same + 1}" if same else "")
        encoders.append(titles[settings])
    labels_only = labels_only_titles(first, encoders)
    for seed in range(seeds):
        made: set[str] = set()
        for arm, at_first, encoder, trained in zip(arms, first, encoders, labels_only, strict=True):
            of_arm = arm.resolve(seed=seed) if seed else at_first
            further = models_of(of_arm.probe)
            of_random = [model for model in further if model.startswith("random") and model != "random_grid"]
            of_arms = [model for model in further if model.startswith("pretrained") or model == "finetuned"]
            twin = short_title("random", encoder)
            # Arms of one encoder share what stands beside it, and all arms share what has no encoder.
            beside: dict[str, ModelName] = {twin: "random", trained: "supervised"}
            beside |= {short_title(name, ""): name for name in PLAIN}
            beside |= {short_title(name, encoder): name for name in further if name in TITLES}
            for title, model in beside.items():
                if title not in made and (model in ("random", *further) or model in baselines):
                    made.add(title)
                    readouts = of_random if model == "random" else ()
                    runs.append(Planned(model, title, _folder(title), seed, "", "", of_arm, (), readouts))
            flags_of_arm = arm.flags(seed=seed)
            runs.append(
                Planned("pretrained", arm.title, arm.folder, seed, twin, trained, of_arm, flags_of_arm, of_arms)
            )
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


def result_path(out: Path, run: Planned, model: ModelName | None = None) -> Path:
    """Returns the file of a run's result.

    Args:
        out: Folder of the ablation.
        run: Run.
        model: Key of a further readout of the run; None for the run's model.
    """
    folder = run.folder if model in (None, run.model) else f"{run.folder}-{model}"
    return out / "results" / folder / f"seed{run.seed}.npz"


def result_paths(out: Path, run: Planned) -> list[Path]:
    """Returns the files of a run's results: of its model, and of its further readouts.

    Args:
        out: Folder of the ablation.
        run: Run.
    """
    return [result_path(out, run, model) for model in run.titles]


def is_done(out: Path, run: Planned) -> bool:
    """Returns whether a run has all its results.

    Args:
        out: Folder of the ablation.
        run: Run.
    """
    return all(path.is_file() for path in result_paths(out, run))


def status_path(out: Path, run: Planned) -> Path:
    """Returns the file that tells how far a run is.

    Args:
        out: Folder of the ablation.
        run: Run.
    """
    return out / "status" / run.folder / f"seed{run.seed}.json"
