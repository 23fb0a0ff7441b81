"""The recordings that all arms of an ablation are judged on, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.data.labels import ProbeData, of_common_classes, probe_data
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.data.tasks import parse_task
from ecgjax.evaluation.features import digests
from ecgjax.leakage import guard
from ecgjax.leakage.trained_on import pretraining_records
from ecgjax.pretrained.beginning import open_beginning
from ecgjax.studies.store import begin_study

from .planned_runs import Planned

#: Difference between the seeds of two draws of labels of one run; there are at most as many runs of an arm.
_BETWEEN_DRAWS = 1000


def names_of(text: str, *, fractions: Sequence[float], draws: int) -> dict[str, tuple[float, int]]:
    """Returns the fraction and the number of every draw of labels of a task, by the name that its answers are kept by.

    A single draw has the name of the task.

    Args:
        text: Task as `parse_task` reads it.
        fractions: Fractions of the labelled training patients, each once.
        draws: Number of draws for every fraction.
    """
    named = {}
    for fraction in fractions:
        for draw in range(draws):
            of_fraction = f" at {100 * fraction:g} %" if len(fractions) > 1 else ""
            named[f"{text}{of_fraction}" + (f", draw {draw + 1}" if draws > 1 else "")] = (fraction, draw)
    return named


def tasks_of(
    recordings: Recordings, texts: Sequence[str], *, fractions: Sequence[float], draws: int = 1, seed: int
) -> tuple[dict[str, ProbeData], tuple[str, ...]]:
    """Returns the labelled records of every task and draw, with the training patients that a seed draws.

    Args:
        recordings: Recordings that all arms are evaluated on.
        texts: Tasks as `parse_task` reads them.
        fractions: Fractions of the labelled training patients, each once.
        draws: Number of draws of patients for every task and fraction.
        seed: Seed of the first draw.

    Returns:
        The records by the names of `names_of`, with the classes of multi-label tasks that have enough test records of
        both labels; and cautions on the other classes for the report, one sentence each.

    Raises:
        DataError: A task cannot be read, or these records do not have its label.
    """
    tasks: dict[str, ProbeData] = {}
    rare: dict[str, None] = {}
    for text in texts:
        for name, (fraction, draw) in names_of(text, fractions=fractions, draws=draws).items():
            data = probe_data(
                recordings.index, recordings.split,
                task=parse_task(text), label_fraction=fraction, seed=seed + _BETWEEN_DRAWS * draw,
            )  # fmt: skip
            tasks[name], more = of_common_classes(data)
            rare |= dict.fromkeys(more)
    return tasks, tuple(rare)


def judged_on(runs: Sequence[Planned]) -> tuple[Recordings, tuple[str, ...]]:
    """Opens the recordings that all arms are evaluated on, and handles overlaps with what any of them is pretrained on.

    Returns:
        The recordings, without overlapping records where `config.probe.overlaps` drops them; and cautions for the
        report, one sentence each.

    Raises:
        ConfigError: There are overlaps, and `config.probe.overlaps` refuses them; or an arm's `config.init.source` is
            no encoder.
        CheckpointError: Such a source is damaged.
        DataError: The data set cannot be opened or does not fit the settings.
    """
    first = runs[0].settings
    recordings = open_recordings(first.data)
    others = {run.settings.data.train_folds: run.settings.data for run in runs}
    # The recordings of the first are open already.
    del others[first.data.train_folds]
    trained = [recordings.split.train, *(open_recordings(data).split.train for data in others.values())]
    # What any arm is trained on counts for all of them, since all are judged on the same records.
    trained_on = pretraining_records(recordings, np.unique(np.concatenate(trained)), run="")
    begun = dict.fromkeys(run.settings.init for run in runs if run.settings.init.source is not None)
    for init in begun:
        trained_on = trained_on.after(open_beginning(init).seen)
    guard.check_overlaps(first.probe.overlaps)
    judged = np.concatenate([recordings.split.val, recordings.split.test])
    recordings, found = guard.guard(
        recordings, trained_on, judged, overlaps=first.probe.overlaps, directories=first.data.directories
    )
    of_labels: list[str] = []
    for run in runs:
        of_labels += guard.labelled(labels_looked_at(run.settings.column_use), name=run.arm) if run.twin else ()
    return recordings, (*found, *guard.unlinked(recordings), *dict.fromkeys(of_labels))


def begin(
    out: Path, recordings: Recordings, tasks: Mapping[str, ProbeData], *, fractions: Sequence[float], draws: int = 1
) -> None:
    """Begins or resumes a study.

    Args:
        out: Folder of the study.
        recordings: Recordings that all arms are evaluated on.
        tasks: Labelled records of every task and draw.
        fractions: Fractions of the labelled training patients.
        draws: Number of draws of patients for every task and fraction.

    Raises:
        ConfigError: The folder is of other tasks or records.
    """
    tested = digests.of_arrays(*(array for data in tasks.values() for array in data.test.arrays))
    about: dict[str, Any] = {"tasks": list(tasks), "data": list(recordings.fingerprints)}
    # A study that was begun when there was one fraction and one draw goes on.
    about["label_fraction"] = fractions[0] if len(fractions) == 1 else list(fractions)
    if draws > 1:
        about["draws"] = draws
    begin_study(out, {**about, "test_records": tested})
