"""Report of a cross-validation: a page of tables and figures, and `results.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgjax.data.recordings import Recordings
from ecgjax.evaluation.metrics.few_patients import too_few_to_rank
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import Key, Results, Rows
from ecgjax.export.trained_for import trained_for
from ecgjax.pages.digits import percent
from ecgjax.pages.page import Folded, Page, Paragraph, Section, Table
from ecgjax.pages.record_flow import flow_section
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.cross_validation import Fitted, Study
from ecgjax.studies.model_names import INSTEAD, PLAIN, short_title, told_apart
from ecgjax.studies.pretrained_runs import PretrainedRun, step_of, told_of_batch_norm
from ecgjax.studies.questions import Problem, Question
from ecgjax.studies.readouts import TITLES, words_of
from ecgjax.studies.report.conclusions import BY_INNER_FOLDS, conclusions, several_seeds
from ecgjax.studies.report.seed_tables import seeds_table
from ecgjax.studies.report.study_page import gains_section, not_pretrained, study_verdicts, write_study
from ecgjax.studies.report.verdict import Rivals

_Means = Mapping[tuple[str, str, str], Sequence[Key]]


def write_report(
    study: Study,
    answers: Mapping[Fitted, Answers],
    *,
    runs: Sequence[PretrainedRun],
    cautions: Sequence[str],
    command: str,
    anonymous: bool = False,
) -> tuple[str, Path]:
    """Writes the page and `results.json` into the study's folder.

    Args:
        study: Cross-validation.
        answers: Predictions of every model, problem, fraction and seed.
        runs: Pretraining runs.
        cautions: Sentences that a reader must know first.
        command: Command line that repeats the study.
        anonymous: Whether the files are written without traces of machine, user and time.

    Returns:
        The tables as text for the terminal, and the path of the page.
    """
    recordings, questions = study.recordings, study.questions
    method, results = dataclasses.asdict(study.method), Rows(study.measure(answers))
    means: dict[tuple[str, str, str], list[Key]] = {}
    for key in sorted(results, key=lambda key: key.fraction):
        if key.seed is None:
            means.setdefault((key.model, key.task, key.minus), []).append(key)
    random = any(model.name == "random" for model in study.models)
    twins = {each.title: short_title("random", each.encoder) for each in study.models if each.name == "pretrained"}
    pretrained = [each for each in study.models if each.encoder and not each.name.startswith(("random", "supervised"))]
    others = not_pretrained(twins, {each.title: each.labels_only for each in pretrained})
    for title in (*(short_title(name, "") for name in PLAIN), TITLES["measured"]):
        others[f"the model of {title}"] = {each.title: title for each in study.models if title in each.against}
    others |= _of_readouts(study)
    alone = {model.title: "" for model in study.models}
    own = {question.title: _table(results, means, question, alone) for question in questions}
    differences = {
        f"Difference from {title}": {each.title: _table(results, means, each, minus) for each in questions}
        for title, minus in others.items()
    }
    differences = {title: found for title, found in differences.items() if any(each.rows for each in found.values())}
    sections = [
        *gains_section(
            results,
            twins,
            labels=dict.fromkeys(own, "difference in AUROC"),
            alt="Paired difference with its interval, for every model, task and fraction, as in the tables.",
        ),
        *(Section(title, list(found.values())) for title, found in differences.items()),
        Section("Models", list(own.values())),
    ]
    if classes := study.by_class:
        by_class = [_table(results, means, each, minus) for each in classes for minus in (alone, *others.values())]
        folded = Folded("AUROC and its differences by class", [table for table in by_class if table.rows])
        sections.append(Section("Results by class", [folded]))
    described = ("chosen", "unchosen", "records", "positives", "reason")
    page = Page(
        title=f"Models on {recordings.name}, cross-validated" + (" (SIMULATED DATA)" if recordings.simulated else ""),
        cautions=cautions,
        summary=[Paragraph(_words(recordings, study.patients, study.labelled, answers, method))],
        sections=[
            *sections,
            Section("Tasks", [_problems_table(questions, study.problems, study.patients), *_left_out(questions)]),
            *([Section("Pretraining runs", [_runs_table(runs), Paragraph(_norm(runs))])] if runs else []),
            *([Section("Encoder", [Paragraph(_NORM_ALONE)])] if not runs and random else []),
            Section("Selection of the models", [_selection_table(answers), *_untrained(answers)]),
        ],
    )
    tables = []
    for title, found in {"": own, **differences}.items():
        named = {", ".join(filter(None, (question, title))): table for question, table in found.items()}
        tables += [(name, table) for name, table in named.items() if table.rows]
    settings = Table(header=("setting", "value"), rows=[(name, repr(value)) for name, value in method.items()])
    return write_study(
        page,
        study.folder,
        results,
        recordings,
        command=command,
        settings=[Section("Method", [settings])],
        tables=tables,
        verdicts=study_verdicts(
            results,
            _rivals(study),
            questions={question.title: question.title for question in questions},
            few=_few(study, questions),
        ),
        flow=flow_section(recordings, {}, folds=False),
        pretrainings=[step_of(run.source, title=run.title) for run in runs if run.source is not None],
        concluded=_conclusions(study, answers),
        anonymous=anonymous,
        method=method,
        models={model.title: model.name for model in study.models},
        batch_norm=told_of_batch_norm(runs),
        probes=[
            {**fitted._asdict(), **{name: getattr(each, name) for name in described}}
            for fitted, each in answers.items()
        ],
    )


def _rivals(study: Study) -> Rivals:
    """Returns the models that the verdict is about: the linear probes of the pretrained encoders, and their rivals."""
    probes = [each for each in study.models if each.name == "pretrained"]
    plain = [short_title(name, "") for name in INSTEAD if name in PLAIN]
    instead: dict[str, Mapping[str, str]] = {"labels only": {each.title: each.labels_only for each in probes}}
    instead |= {title: {each.title: title for each in probes} for title in plain}
    return Rivals(
        pretrained=[each.title for each in probes],
        instead=instead,
        random={each.title: short_title("random", each.encoder) for each in probes},
    )


def _few(study: Study, questions: Sequence[Question]) -> dict[str, str]:
    """Returns words for the patients of a question of one yes or no, where they are too few to rank models by."""
    asked = {each.title: study.problems[each.problems[0]] for each in questions if len(each.problems) == 1}
    return {name: too_few_to_rank(each.labels, patients=study.patients[each.rows]) for name, each in asked.items()}


def _conclusions(study: Study, answers: Mapping[Fitted, Answers]) -> Paragraph:
    number, recordings = len({fitted.seed for fitted in answers}), study.recordings
    tested = study.patients[study.labelled]
    return conclusions(
        cohort=recordings.name,
        simulated=recordings.simulated,
        tested=f"{len(np.unique(tested)):,} patients ({len(tested):,} records with a label), all in turn,",
        seeds=f"{several_seeds(number, 'folds, labels and initialisation')}; every pretrained encoder is one run",
        chosen=BY_INNER_FOLDS,
    )


def _of_readouts(study: Study) -> dict[str, Mapping[str, str]]:
    """Returns what readouts are compared with beside what linear probes are, as `not_pretrained` does."""
    found: dict[str, Mapping[str, str]] = {}
    of_pretrained = [each for each in study.models if each.encoder and not each.name.startswith("random")]
    grids = {each.title: short_title("random_grid", each.encoder) for each in of_pretrained}
    found["the best of a grid of random encoders"] = {title: grid for title, grid in grids.items() if study.method.grid}
    readouts = [each for each in of_pretrained if words_of(each.name)]
    twins = {each.title: told_apart(short_title("random", each.encoder), each.name) for each in readouts}
    found["the same readout of the random encoder"] = twins
    found["the linear probe of the same encoder"] = {
        each.title: each.title.removesuffix(told_apart("", each.name)) for each in readouts
    }
    return found


def _table(results: Results, means: _Means, question: Question, minus: Mapping[str, str]) -> Table:
    """Returns a table of models by fractions of the labels.

    Args:
        results: Results of the cross-validation.
        means: Keys of the means over seeds by model, question and what is subtracted, in the order of the fractions.
        question: Task of the table.
        minus: Title of the model that is subtracted, by the title of the model; empty for none.
    """
    cells = {
        f"{model} minus {other}" if other else model: {
            f"{percent(key.fraction)} of labels": key for key in means.get((model, question.title, other), ())
        }
        for model, other in minus.items()
    }
    return seeds_table(results, cells, caption=f"{question.title}: {question.metric}")


_NORM = (
    "Batch norm of an encoder and of its random twin is set by the same unaugmented recordings of the pretraining, of "
    "its real data sets alone where it had any: no recording of the tested data set influences these two."
)
_ONE = "A run is one pretraining: no interval here includes the variation between pretraining runs."


def _norm(runs: Sequence[PretrainedRun]) -> str:
    """Returns what sets batch norm, in one sentence where the pretraining does everywhere, and else by encoder."""
    if all(run.recordings is not None or not run.batch_norm for run in runs):
        return f"{_NORM} {_ONE}"
    return " ".join([*told_of_batch_norm(runs), _ONE])


_NORM_ALONE = (
    "Batch norm of the encoder at random initialisation is set by the recordings of this data set, those of the tested "
    "fold among them, without their labels: there is no other data set to set it by."
)


def _words(
    recordings: Recordings,
    patients: np.ndarray,
    labelled: np.ndarray,
    results: Mapping[Fitted, Answers],
    method: Mapping[str, Any],
) -> str:
    seeds = len({fitted.seed for fitted in results})
    return (
        f"{len(patients):,} records of {len(np.unique(patients)):,} patients of {recordings.name}, none of which is a "
        f"copy of another. Each of the {len(labelled):,} that have a label (of "
        f"{len(np.unique(patients[labelled])):,} patients) is tested in one of {method['outer_folds']} folds of "
        "patients, by a logistic "
        f"regression on frozen features whose strength is chosen by {method['inner_folds']} inner folds of the other "
        "patients; boosted trees, and networks trained with labels alone, are chosen on one of these inner folds and "
        "trained on the others. Labels are drawn among these patients, smaller fractions being parts of larger. Values "
        f"are the AUROC within each fold, averaged over folds, classes and {seeds} seeds, which change folds, labels "
        f"and random initialisation, [95 % interval over {method['resamples']:,} resamples of the patients], ± "
        "standard deviation over seeds. "
        "Differences are paired: both sides have the same folds, labels and resamples."
    )


def _problems_table(questions: Sequence[Question], problems: Mapping[str, Problem], patients: np.ndarray) -> Table:
    def positive(problem: Problem) -> np.ndarray:
        return problem.rows[problem.labels == 1]

    columns: dict[str, Callable[[tuple[Problem, Question]], str]] = {
        "problem": lambda row: row[0].name,
        "task": lambda row: row[1].title,
        "records": lambda row: f"{len(row[0].rows):,}",
        "positive": lambda row: f"{len(positive(row[0])):,}",
        "patients with a positive record": lambda row: f"{len(np.unique(patients[positive(row[0])])):,}",
    }
    return Table.of(columns, [(problems[name], question) for question in questions for name in question.problems])


def _left_out(questions: Sequence[Question]) -> list[Paragraph]:
    return [
        Paragraph(f"{question.title}, left out: {'; '.join(f'{n} ({why})' for n, why in question.left_out.items())}.")
        for question in questions
        if question.left_out
    ]


def _runs_table(runs: Sequence[PretrainedRun]) -> Table:
    columns: dict[str, Callable[[PretrainedRun], str]] = {
        "run": lambda run: run.title,
        "encoder": lambda run: str(run.settings.encoder.name),
        "trained for": lambda run: "unknown" if run.recorded is None else trained_for(flat(tree_of(run.recorded))),
        "steps": lambda run: f"{run.encoder.step:,}",
        "batch": lambda run: "unknown" if run.recorded is None else f"{run.recorded.batch_size:,}",
        "training records": lambda run: (
            "; ".join(
                f"{number:,} of {name}{' (SIMULATED)' if made else ''}" for name, number, made in run.pretrained_on
            )
            or "unknown"
        ),
    }
    return Table.of(columns, runs)


def _selection_table(answers: Mapping[Fitted, Answers]) -> Table:
    rows: dict[tuple[str, float], list[Answers]] = {}
    for fitted, result in answers.items():
        rows.setdefault((fitted.model, fitted.fraction), []).append(result)
    told = []
    for (model, fraction), found in rows.items():
        chosen = [c for result in found for c in result.chosen]
        records, positives = np.mean([each.records for each in found]), min(each.positives or 0 for each in found)
        strength = f"{np.median(chosen):.2g} [{min(chosen):.2g}, {max(chosen):.2g}]" if chosen else ""
        unchosen = f"{sum(each.unchosen for each in found):,} of {len(chosen):,}" if chosen else ""
        told.append((model, percent(fraction), f"{records:,.0f}", f"{positives:,}", strength, unchosen))
    header = (
        "model", "share of labels", "mean training records", "fewest positives", "median C [range]",
        "folds with too few labels to choose C",
    )  # fmt: skip
    return Table(header=header, rows=told)


def _untrained(results: Mapping[Fitted, Answers]) -> list[Paragraph]:
    models: dict[str, list[str]] = {}
    for fitted, result in results.items():
        if result.reason:
            words = f"{fitted.problem} at {percent(fitted.fraction)}, seed {fitted.seed}: {result.reason}"
            models.setdefault(words, []).append(fitted.model)
    # What holds for several models is said once.
    every = {fitted.model for fitted in results}
    of_models: dict[str, list[str]] = {}
    for words, names in models.items():
        of_models.setdefault("any model" if {*names} == every else " and ".join(names), []).append(words)
    return [Paragraph(f"Not trained for {names}: {'; '.join(words)}.") for names, words in of_models.items()]
