r"""Cross-validates frozen encoders on a small data set that none of them was pretrained on.

  python -m ecgjax.cross_validate --workdir=runs/simclr --workdir=runs/physioclr --dataset=data/ptbxl \
      --task=NORM --task=female --task=superdiagnostic --fractions=.1,.5,1 --seeds=3 --out=runs/cv

Every record is tested once a seed, by a linear probe that its patient had no part in: patients are divided into outer
folds, and in each the probe's strength is chosen by inner folds of the others. Beside every encoder stand the same
encoder at random initialisation and, without a network, the median beat; differences are paired. How it is done is said
by --config (configs/cross_validation.py). The command can be interrupted, and given again with more runs, tasks,
fractions or seeds: what is there stays. report.html, report.md and results.json in --out show what was asked for.
"""

from __future__ import annotations

from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.system.visible_text import visible
from ecgjax.config import run_config
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.data.settings import DataSettings
from ecgjax.data.tasks import file_name
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import digests
from ecgjax.evaluation.models.nested_cross_validation import cross_validate, patient_folds
from ecgjax.evaluation.models.out_of_fold import OutOfFold
from ecgjax.leakage import guard
from ecgjax.leakage.overlaps import describe, find_overlaps
from ecgjax.pages.page import SIMULATED
from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, between
from ecgjax.settings.leaf import leaf
from ecgjax.settings.sections import leaves_of, read, tree_of
from ecgjax.studies.cross_validation import FrozenModel, PretrainedRun, frozen_models, open_runs
from ecgjax.studies.cross_validation_statistics import Fitted
from ecgjax.studies.questions import Problem, ask
from ecgjax.studies.report.cross_validation_page import write_report
from ecgjax.studies.store import begin_study
from ecgjax.system.files import replacing

_NOT_LISTED = (
    "Which records {run} was pretrained on is not listed beside its checkpoints, which are older than such lists: "
    "copies and patients of theirs may be among the records here. The command that pretrained it, given once more, "
    "adds the list."
)
_NOT_LINKED = (
    "Only equal recordings were kept in one fold; python -m data_pipelines.link finds copies at another rate, gain or "
    "cut too (--links)."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Settings of the cross-validation, with the defaults of `configs/cross_validation.py`."""

    outer_folds: int = leaf(5, "Folds of the patients; a seed is another division.", bound=between(2, 100))
    inner_folds: int = leaf(5, "Folds of the patients that are left, to choose a strength by.", bound=between(2, 100))
    strengths: tuple[float, ...] = leaf(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        "Inverse L2 strengths C of a logistic regression.",
        bound=POSITIVE._replace(fewest=1),
    )
    min_positives: int = leaf(10, "Positive, and negative, records that a yes or no needs.", bound=ONE_OR_MORE)
    layer: str = leaf(
        "features",
        'Layer; "features" are pooled activations.',
        choices=("features", "embedding"),
    )
    resamples: int = leaf(2000, "Resamples of the patients for intervals.", bound=ONE_OR_MORE)


class Study:
    """A data set, the tasks on it, and the models that are compared.

    Args:
        runs: Pretrained runs.
        recordings: Recordings of the data set, of which `split.train` holds all except copies.
        tasks: Tasks as lines that `tasks.parse_task` reads.
        method: Settings of the cross-validation.
        folder: Folder of the study.
        progress: Whether progress bars are drawn.

    Raises:
        DataError: A task cannot be asked.
        ConfigError: The folder holds another study.
    """

    def __init__(
        self,
        runs: Sequence[PretrainedRun],
        recordings: Recordings,
        *,
        tasks: Sequence[str],
        method: Method,
        folder: Path,
        progress: bool = True,
    ):
        self.runs, self.recordings, self.method, self.folder = runs, recordings, method, folder
        self._progress = progress
        self.records = recordings.split.train
        self.patients = np.asarray(recordings.index.group[self.records])
        self._patient_ids = recordings.index.patient_id[self.records]
        self.problems, self.questions = ask(
            recordings.index,
            self.records,
            tasks,
            min_positives=method.min_positives,
            folds=method.outer_folds,
        )
        self.models = frozen_models(runs, recordings, self.records, layer=method.layer, progress=progress)
        begin_study(
            folder,
            {
                "data": list(recordings.fingerprints),
                "records": digests.of_arrays(self.records, self.patients),
                "method": {**dataclasses.asdict(method), "resamples": None},
            },
        )
        for model in self.models:
            begin_study(self._of(model), {"title": model.title, **model.identity}, upgrade=_upgraded)

    def run(self, *, fractions: Sequence[float], seeds: int) -> dict[Fitted, OutOfFold]:
        """Computes what is missing and returns the scores of every model, problem, fraction and seed."""
        wanted = {
            Fitted(model.title, problem.name, fraction, seed): (model, problem)
            for seed in range(seeds)
            for model in self.models
            for problem in self.problems.values()
            for fraction in fractions
        }
        found = {}
        with tqdm(wanted.items(), desc="probes", unit="probe", disable=None if self._progress else True) as bar:
            for fitted, (model, problem) in bar:
                bar.set_postfix_str(f"{fitted.model}, seed {fitted.seed}")
                found[fitted] = self._scores(fitted, model, problem)
        return found

    def _scores(self, fitted: Fitted, model: FrozenModel, problem: Problem) -> OutOfFold:
        name = f"{file_name(problem.name)}-{fitted.fraction:g}-seed{fitted.seed}"
        path = self._of(model) / "scores" / f"{name}-{digests.of_arrays(problem.rows, problem.labels)[:8]}.npz"
        if path.is_file():
            return OutOfFold.load(path)
        rows = problem.rows
        method = self.method
        result = cross_validate(
            self._features(model, fitted.seed)[rows],
            problem.labels,
            patients=self.patients[rows],
            patient_ids=self._patient_ids[rows],
            folds=patient_folds(problem.labels, self.patients[rows], folds=method.outer_folds, seed=fitted.seed),
            strengths=method.strengths,
            inner_folds=method.inner_folds,
            make_preprocessor=model.make_preprocessor,
            fraction=fitted.fraction,
            seed=fitted.seed,
        )
        result.save(path)
        return result

    def _features(self, model: FrozenModel, seed: int) -> np.ndarray:
        """Returns the features of all records, `f32[n, dim]`, which are kept in a file."""
        path = self._of(model) / (f"features-seed{seed}.npy" if model.by_seed else "features.npy")
        if not path.is_file():
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, model.features(seed))
        return np.load(path, mmap_mode="r")

    def _of(self, model: FrozenModel) -> Path:
        return self.folder / "models" / model.folder


def _upgraded(identity: dict[str, Any]) -> dict[str, Any]:
    """Writes an older model's identity with today's leaves of its encoder."""
    if "encoder" not in identity:
        return identity
    return {**identity, "encoder": json.loads(json.dumps(tree_of(read(EncoderSettings, identity["encoder"]))))}


def open_whole(directory: str, *, links: str) -> Recordings:
    """Opens a data set with all its records on one side; of several copies one is kept.

    Args:
        directory: Folder of the data set.
        links: Path of the file that `data_pipelines.link` wrote; empty for none.
    """
    folds = tuple(np.unique(open_dataset(directory).index.fold).tolist())
    return open_recordings(DataSettings(dir=directory, links=links, train_folds=folds, val_folds=(), test_folds=()))


def keep_apart(
    runs: Sequence[PretrainedRun], recordings: Recordings, *, overlaps: str
) -> tuple[Recordings, tuple[str, ...]]:
    """Compares all records with what the encoders were pretrained on, and refuses, drops or marks overlaps.

    Args:
        runs: Pretrained runs.
        recordings: Recordings of the data set.
        overlaps: Value of `config.probe.overlaps`, `"refuse"`, `"drop"` or `"mark"` (`guard.py`).

    Returns:
        The recordings, without those that any run has seen if these are to be dropped, so that all models are evaluated
        on the same records; and what a reader must know, one sentence each.

    Raises:
        ConfigError: There are overlaps, and they are to be refused.
        CheckpointError: The list of what a run was pretrained on is missing or damaged.
    """
    found, seen, compared = [], [np.zeros(0, np.int64)], {}
    for run in runs:
        if run.encoder.trained_on is None:
            found.append(_NOT_LISTED.format(run=run.title))
            continue
        trained_on = run.encoder.trained_on()
        if trained_on.digest not in compared:
            compared[trained_on.digest] = find_overlaps(
                recordings, trained_on, recordings.split.train, directories=run.directories
            )
        result = compared[trained_on.digest]
        found += result.cautions
        if not result.found:
            continue
        described = f"{run.title}: {describe(result, recordings, trained_on)}"
        if overlaps == "refuse":
            raise ConfigError(
                f"{described}. Pretrain without these records; or leave them out of the test of all models with "
                "--overlaps=drop, or keep them and say so in the report with --overlaps=mark"
            )
        seen.append(result.records)
        found.append(f"{described}{': they are left out for all models' if overlaps == 'drop' else ''}.")
    found += [
        caution for run in runs for caution in guard.labelled(labels_looked_at(run.settings.column_use), name=run.title)
    ]
    if not recordings.linked and not recordings.simulated:
        found.append(_NOT_LINKED)
    if overlaps == "drop":
        kept = np.setdiff1d(recordings.split.train, np.concatenate(seen))
        recordings = dataclasses.replace(recordings, split=dataclasses.replace(recordings.split, train=kept))
    return recordings, tuple(dict.fromkeys(found))


def main(argv: list[str]) -> None:
    """Runs the study that the flags ask for and prints its tables."""
    del argv  # It was checked by `run_config.run`.
    chosen = flags.FLAGS
    for name in ("workdir", "dataset", "task", "out"):
        if not chosen[name].value:
            raise ConfigError(f"--{name}=… is needed (--help tells more)")
    fractions = run_config.parse_fractions(chosen.fractions)
    method, folder = read(Method, chosen.config), Path(chosen.out)
    with run_config.exclusive(folder, flag="--out"):
        recordings = open_whole(chosen.dataset, links=chosen.links)
        runs = open_runs(chosen.workdir, layer=method.layer, format=recordings.format)
        recordings, cautions = keep_apart(runs, recordings, overlaps=chosen.overlaps)
        cautions = (*([SIMULATED] if recordings.simulated else []), *cautions)
        print(*map(visible, cautions), sep="\n")
        study = Study(runs, recordings, tasks=chosen.task, method=method, folder=folder)
        results = study.run(fractions=fractions, seeds=chosen.seeds)
        tables, page = write_report(
            results,
            runs=runs,
            models=study.models,
            recordings=recordings,
            questions=study.questions,
            problems=study.problems,
            method=dataclasses.asdict(method),
            cautions=cautions,
            folder=folder,
            command=shlex.join(["python", "-m", "ecgjax.cross_validate", *sys.argv[1:]]),
        )
    print(f"\n{tables}\n\nreport: {page}")


def define_flags() -> None:
    """Defines the command's flags in a function, because other commands have flags of the same names."""
    flags.DEFINE_multi_string("workdir", [], "Folder of a pretraining run. Repeat for several.")
    flags.DEFINE_string("dataset", None, "The data set to test on, made by python -m data_pipelines.build.")
    flags.DEFINE_string("links", "", "What python -m data_pipelines.link wrote about the data set.")
    flags.DEFINE_multi_string("task", [], "Question, as 'lvef<40' or superdiagnostic:NORM. Repeat for several.")
    flags.DEFINE_list("fractions", [".1", ".5", "1"], "Shares of the labelled training patients.")
    flags.DEFINE_integer("seeds", 3, "Divisions into folds, draws of labels, random initialisations.", lower_bound=1)
    flags.DEFINE_string("out", None, "Folder of the study.")
    flags.DEFINE_enum("overlaps", "refuse", guard.OVERLAPS, "What to do about records that a run has seen.")
    run_config.define_config("cross_validation", "How it is done.")


if __name__ == "__main__":
    define_flags()
    run_config.run(main, leaves=lambda: leaves_of(Method))
