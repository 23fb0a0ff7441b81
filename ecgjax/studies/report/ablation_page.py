"""Report of an ablation: a page of tables and a figure, and `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Key, Results, Rows
from ecgjax.pages.page import Page, Paragraph, Section, Table
from ecgjax.studies.ablation import ArmRun, described, first_arm, grids_of, measure_arms
from ecgjax.studies.model_names import PLAIN, short_title
from ecgjax.studies.readouts import TITLES
from ecgjax.studies.report.seed_tables import seeds_table
from ecgjax.studies.report.study_page import gains_section, not_pretrained, write_study


def training_facts(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Returns numbers that describe a training, by name: loss at beginning and end, pairs per batch, speed and steps.

    Args:
        metrics: Lines of the run's `metrics.jsonl`, each with values by name.
    """
    facts: dict[str, float] = {}
    for name, title in (("eval/loss", "validation loss"), ("train/loss", "training loss")):
        if values := _values(metrics, name):
            facts[f"{title}, first"], facts[f"{title}, last"] = values[0], values[-1]
    for name, title in (
        ("train/positives_per_row", "positives a row"),
        ("train/patient_pairs", "same-patient pairs a batch"),
    ):
        if values := _values(metrics, name):
            facts[title] = float(np.mean(values))
    if speed := _values(metrics, "perf/ecgs_per_sec"):
        facts["ECGs/s"] = float(np.median(speed))
    facts["steps"] = float(max(_values(metrics, "step"), default=0))
    return facts


def _values(metrics: Sequence[Mapping[str, float | None]], name: str) -> list[float]:
    """Returns the values of a metric, from the lines that have one."""
    return [value for line in metrics if (value := line.get(name)) is not None]


def write_report(
    runs: Sequence[ArmRun],
    recordings: Recordings,
    tasks: Mapping[str, ProbeData],
    *,
    out: Path,
    failed: Mapping[str, str],
    missing: Sequence[str],
    labels_only: Mapping[str, str],
    resamples: int,
    cautions: Sequence[str],
    command: str,
    choices: Sequence[str] = (),
) -> tuple[str, Path]:
    """Writes the page and `results.json` into `out`.

    Args:
        runs: Finished runs.
        recordings: Recordings that the encoders were probed on.
        tasks: Labelled records by the task's name; the test records are the same for all seeds.
        out: Folder that the report is written to.
        failed: Reason of each failure, by the run's name.
        missing: Names of runs that have not been started yet.
        labels_only: Title of the same encoder trained with labels alone, by the title of each arm.
        resamples: Number of bootstrap resamples of the test patients.
        cautions: Sentences that a reader must know first.
        command: Command line that repeats the ablation.
        choices: Sentences on what chose the hyperparameters.

    Returns:
        The tables as text for the terminal, and the path of the page.
    """
    results = Rows(measure_arms(runs, tasks, labels_only=labels_only, resamples=resamples))
    means = [key for key in results if key.seed is None]
    arms = list(dict.fromkeys(run.arm for run in runs))
    trained = {run.arm: run.twin for run in runs if run.twin}
    others = not_pretrained(trained, labels_only) | {"the first arm": dict.fromkeys(trained, first_arm(runs))}
    for title in (*(short_title(name, "") for name in PLAIN), TITLES["measured"], *grids_of(runs)):
        others[f"the model of {title}"] = dict.fromkeys(trained, title)
    tables = {
        "Linear probes on the frozen encoders, and other models": _table(results, means, dict.fromkeys(arms, "")),
        **{f"Difference from {title}": _table(results, means, minus) for title, minus in others.items()},
        "Training (means over seeds)": facts_table(runs),
    }
    tables = {title: table for title, table in tables.items() if table.rows}
    gains = gains_section(
        results,
        trained,
        labels={name: f"{kind_of(data.task).primary}: arm minus random" for name, data in tasks.items()},
        alt="Difference of every arm from the random encoder with its interval, for every task, as in the table.",
    )
    lacking = {"Failed": [f"{name} ({reason})" for name, reason in failed.items()], "Not made yet": missing}
    unfinished = [Paragraph(f"{what}: {', '.join(names)}.") for what, names in lacking.items() if names]
    page = Page(
        title="Ablation: comparison of arms" + (" (SIMULATED DATA)" if recordings.simulated else ""),
        cautions=cautions,
        summary=[
            Paragraph(_words(recordings, tasks, resamples=resamples)),
            *([Paragraph(" ".join(choices))] if choices else []),
            *unfinished,
        ],
        sections=[*gains, *(Section(title, [table]) for title, table in tables.items())],
    )
    told = []
    for run in runs:
        answered = {name: described(answers) for name, answers in run.tasks.items()}
        told.append({"arm": run.arm, "seed": run.seed, "facts": run.facts, "tasks": answered})
    written = list(tables.items())
    return write_study(
        page, out, results, recordings, command=command, tables=written, runs=told, choices=list(choices)
    )


def _table(results: Results, means: Sequence[Key], minus: Mapping[str, str]) -> Table:
    """Returns a table of arms by tasks.

    Args:
        results: Results of the ablation.
        means: Keys of the means over seeds.
        minus: Title of the arm that is subtracted, by the title of the arm; empty for none.
    """
    cells = {
        arm: {f"{key.task} ({key.metric})": key for key in means if (key.model, key.minus) == (arm, other)}
        for arm, other in minus.items()
    }
    return seeds_table(results, cells, first="arm")


def facts_table(runs: Sequence[ArmRun]) -> Table:
    """Returns the table of numbers that describe the trainings, averaged over seeds."""
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    rows = []
    # Further readouts share the training of their encoder.
    for arm in dict.fromkeys(run.arm for run in runs if run.twin and run.facts):
        own = [run for run in runs if run.arm == arm]
        values = [[run.facts[name] for run in own if name in run.facts] for name in names]
        rows.append((arm, str(len(own)), *(f"{np.mean(v):.4g}" if v else "" for v in values)))
    return Table(header=("arm", "seeds", *names), rows=rows)


def _words(recordings: Recordings, tasks: Mapping[str, ProbeData], *, resamples: int) -> str:
    counts = "; ".join(f"{name} is tested on {kind_of(data.task).counts(data.test)}" for name, data in tasks.items())
    (fraction,) = {data.label_fraction for data in tasks.values()}
    return (
        f"Data set {recordings.name}. Linear probes on frozen encoders, and the models beside them, are trained on "
        f"{fraction:.3g} of the labelled training patients. {counts}. "
        f"Values are the mean over seeds, [95 % interval over {resamples:,} "
        "resamples of the test patients], and ± standard deviation over seeds, which change labels, initialisation and "
        "training. "
        "Differences are paired: both sides have the same labels, test records and resamples."
    )
