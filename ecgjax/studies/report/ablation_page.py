"""Report of an ablation: a page of tables and a figure, and `results.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings, unit_asked
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import Key, Results, Rows
from ecgjax.pages.digits import asked_in_words, percent
from ecgjax.pages.page import Page, Paragraph, Section, Table
from ecgjax.pages.record_flow import flow_section
from ecgjax.studies.ablation import ArmRun, described, first_arm, grids_of, measure_arms
from ecgjax.studies.model_names import INSTEAD, PLAIN, short_title
from ecgjax.studies.readouts import TITLES
from ecgjax.studies.report.conclusions import ON_VALIDATION, conclusions, several_seeds, tested_words
from ecgjax.studies.report.seed_tables import seeds_table
from ecgjax.studies.report.study_page import few_of, gains_section, not_pretrained, study_verdicts, write_study
from ecgjax.studies.report.verdict import Rivals

#: Models without an encoder that one would use in place of pretraining.
_PLAIN_INSTEAD = [name for name in INSTEAD if name in PLAIN]


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
    shared: Sequence[str] = (),
    questions: Mapping[str, Collection[str]] | None = None,
    anonymous: bool = False,
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
        shared: Settings that all arms have and their titles leave out, each as `LEAF=VALUE`.
        questions: Names of the tasks that ask one question, by the question, as `measure_arms` takes them.
        anonymous: Whether the files are written without traces of machine, user and time.

    Returns:
        The tables as text for the terminal, and the path of the page.
    """
    questions = questions or {name: [name] for name in tasks}
    results = Rows(measure_arms(runs, tasks, labels_only=labels_only, resamples=resamples, questions=questions))
    asked = {question: [tasks[name] for name in names] for question, names in questions.items()}
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
        labels={name: f"{kind_of(data.task).primary}: arm minus random" for name, (data, *_) in asked.items()},
        alt="Difference of every arm from the random encoder with its interval, for every task, as in the table.",
    )
    lacking = {"Failed": [f"{name} ({reason})" for name, reason in failed.items()], "Not made yet": missing}
    unfinished = [Paragraph(f"{what}: {', '.join(names)}.") for what, names in lacking.items() if names]
    page = Page(
        title="Ablation: comparison of arms" + (" (SIMULATED DATA)" if recordings.simulated else ""),
        cautions=cautions,
        summary=[
            Paragraph(_words(recordings, asked, resamples=resamples)),
            *([Paragraph(f"All arms have {', '.join(shared)}.")] if shared else []),
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
    instead = {short_title(name, ""): dict.fromkeys(trained, short_title(name, "")) for name in _PLAIN_INSTEAD}
    rivals = Rivals(pretrained=list(trained), instead={"labels only": labels_only, **instead}, random=trained)
    words = {
        question: asked_in_words(data.task, unit_asked(data.task, recordings)) for question, (data, *_) in asked.items()
    }
    return write_study(
        page,
        out,
        results,
        recordings,
        command=command,
        tables=written,
        verdicts=study_verdicts(
            results, rivals, questions=words, few=few_of({name: data for name, (data, *_) in asked.items()})
        ),
        # Draws of labels share their folds: one question is told once.
        flow=flow_section(recordings, {question: data for question, (data, *_) in asked.items()}),
        concluded=_conclusions(runs, recordings, asked),
        anonymous=anonymous,
        runs=told,
        choices=list(choices),
    )


def _conclusions(runs: Sequence[ArmRun], recordings: Recordings, asked: Mapping[str, Sequence[ProbeData]]) -> Paragraph:
    return conclusions(
        cohort=recordings.name,
        simulated=recordings.simulated,
        tested=tested_words([data.test for data, *_ in asked.values()]),
        seeds=several_seeds(len({run.seed for run in runs}), "pretraining, labels, initialisation and training"),
        chosen=ON_VALIDATION,
    )


def _table(results: Results, means: Sequence[Key], minus: Mapping[str, str]) -> Table:
    """Returns a table of arms by tasks.

    Args:
        results: Results of the ablation.
        means: Keys of the means over seeds.
        minus: Title of the arm that is subtracted, by the title of the arm; empty for none.
    """
    fractions = {key.fraction for key in means}
    cells = {
        arm: {_column(key, fractions): key for key in means if (key.model, key.minus) == (arm, other)}
        for arm, other in minus.items()
    }
    return seeds_table(results, cells, first="arm")


def _column(key: Key, fractions: Collection[float]) -> str:
    """Returns the title of a column, with the fraction of the labels where there are several."""
    return f"{key.task}{f' at {percent(key.fraction)}' if len(fractions) > 1 else ''} ({key.metric})"


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


def _words(recordings: Recordings, asked: Mapping[str, Sequence[ProbeData]], *, resamples: int) -> str:
    counts = "; ".join(
        f"{question} is tested on {kind_of(data.task).counts(data.test)}" for question, (data, *_) in asked.items()
    )
    fractions = Counter(data.label_fraction for data in next(iter(asked.values())))
    draws = max(fractions.values())
    over = "seeds" if draws == 1 else f"seeds and {draws} draws of labels for each"
    return (
        f"Data set {recordings.name}. Linear probes on frozen encoders, and the models beside them, are trained on "
        f"{' or '.join(map(percent, fractions))} of the labelled training patients. {counts}. "
        f"Values are the mean over {over}, [95 % interval over {resamples:,} "
        "resamples of the test patients], and ± standard deviation over seeds, which change labels, initialisation and "
        "training. "
        "Differences are paired: both sides have the same labels, test records and resamples."
    )
