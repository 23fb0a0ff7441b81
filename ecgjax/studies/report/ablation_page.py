"""Report of an ablation: a page of tables and a figure, and `results.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.pages.data_card import data_section
from ecgjax.pages.json_values import plain
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import Page, Paragraph, Picture, Section
from ecgjax.pages.provenance import command_section, environment_section
from ecgjax.pages.write import write_page
from ecgjax.studies import ablation_statistics
from ecgjax.studies.ablation_statistics import ArmRun
from ecgjax.system.files import write_atomically


def training_facts(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Returns numbers that describe a training: loss at its beginning and end, pairs per batch, speed and steps."""
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
    """Returns a metric's values from the lines that have it."""
    return [value for line in metrics if (value := line.get(name)) is not None]


def write_report(
    runs: Sequence[ArmRun],
    recordings: Recordings,
    tasks: Mapping[str, ProbeData],
    *,
    out: Path,
    failed: Mapping[str, str],
    missing: Sequence[str],
    resamples: int,
    fraction: float,
    cautions: Sequence[str],
    command: str,
) -> tuple[str, Path]:
    """Writes the page and `results.json`; returns the tables for the terminal and the page's path.

    Args:
        runs: Finished runs.
        recordings: Recordings that the encoders were probed on.
        tasks: Labelled records by the task's name; the test records are the same for all seeds.
        out: Folder that the report is written to.
        failed: Reason of each failure, by the run's name.
        missing: Names of runs that have not been made yet.
        resamples: Number of bootstrap resamples of the test patients.
        fraction: Fraction of the labelled training patients that the probes are trained on.
        cautions: Sentences that a reader must know first.
        command: Command that repeats all of it.
    """
    answers = [
        ablation_statistics.sum_up(
            runs,
            name,
            kind=data.task.kind,
            targets=data.test.labels,
            patients=data.test.patients,
            classes=data.classes,
            resamples=resamples,
        )
        for name, data in tasks.items()
    ]
    tables = {
        "Linear probes on the frozen encoders": ablation_statistics.arms_table(answers),
        "Difference from the same encoder at random initialisation": ablation_statistics.differences_table(
            answers, "above_random"
        ),
        "Difference from the first arm": ablation_statistics.differences_table(answers, "above_first"),
        "Training (means over seeds)": ablation_statistics.facts_table(runs),
    }
    tables = {title: table for title, table in tables.items() if table.rows}
    sections = [Section(title, [table]) for title, table in tables.items()]
    if any(answer.above_random for answer in answers):
        alt = "Difference of every arm from the random encoder with its interval, for every task, as in the table."
        picture = Picture(
            figure=ablation_statistics.figure(answers),
            alt=alt,
            caption="Bars are intervals over patients; small grey dots are single seeds.",
        )
        sections.insert(0, Section("What pretraining adds to random initialisation", [picture]))
    reasons = [f"{name} ({reason})" for name, reason in failed.items()]
    unfinished = [
        Paragraph(f"{what}: {', '.join(names)}.")
        for what, names in (("Failed", reasons), ("Not made yet", missing))
        if names
    ]
    sections += [data_section(recordings.datasets), command_section(command), environment_section()]
    page = Page(
        title="Ablation: comparison of arms" + (" (SIMULATED DATA)" if recordings.simulated else ""),
        cautions=cautions,
        summary=[Paragraph(_words(recordings, tasks, resamples=resamples, fraction=fraction)), *unfinished],
        sections=sections,
    )
    written = write_page(page, out)
    _write_results(answers, runs, recordings, cautions=cautions, out=out)
    text = "\n\n".join(f"{title}\n{format_table(table.header, table.rows)}" for title, table in tables.items())
    return text, written.html


def _words(recordings: Recordings, tasks: Mapping[str, ProbeData], *, resamples: int, fraction: float) -> str:
    counts = "; ".join(
        f"{name}: {len(data.test.records):,} test records of {data.test.num_patients:,} patients"
        + (f", {data.test.positives:,} positive" if data.task.kind == "binary" else "")
        for name, data in tasks.items()
    )
    return (
        f"Data set {recordings.name}. Linear probes are trained on {fraction:.3g} of the labelled training patients "
        f"and selected on validation. {counts}. Values are the mean over seeds, [95 % interval over {resamples:,} "
        "resamples of the test patients], and ± standard deviation over seeds, which change labels, initialisation and "
        "training. "
        "Differences are paired: both sides have the same labels, test records and resamples."
    )


def _write_results(
    answers: Sequence[ablation_statistics.ArmAnswers],
    runs: Sequence[ArmRun],
    recordings: Recordings,
    *,
    cautions: Sequence[str],
    out: Path,
) -> None:
    kinds = ("of_arm", "above_random", "above_first")
    values = {
        "simulated": recordings.simulated,
        "answers": [
            {
                "task": each.task,
                "metric": each.metric,
                **{
                    which: {
                        arm: {"mean": vars(answer.mean), "by_seed": answer.by_seed, "seed_sd": answer.seed_sd}
                        for arm, answer in getattr(each, which).items()
                    }
                    for which in kinds
                },
            }
            for each in answers
        ],
        "cautions": list(cautions),
        "runs": [
            {
                "arm": run.arm,
                "seed": run.seed,
                "facts": run.facts,
                "tasks": {name: {**vars(task), "scores": None} for name, task in run.tasks.items()},
            }
            for run in runs
        ],
    }
    text = json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "results.json", text + "\n")
