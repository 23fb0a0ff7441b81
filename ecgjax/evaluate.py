r"""Probes a pretrained encoder beside its baselines, and writes the report.

  python -m ecgjax.evaluate --workdir=DIR --task='potassium>5'                        (below or above a value)
  python -m ecgjax.evaluate --workdir=DIR --task=superdiagnostic:NORM                 (one class)
  python -m ecgjax.evaluate --workdir=DIR --task='superdiagnostic:*'                  (all classes)
  python -m ecgjax.evaluate --workdir=DIR --task=wedge_pressure                       (a quantity)
  python -m ecgjax.evaluate --model=models/simclr --dataset=data/ptbxl --task=AF --out=DIR   (anywhere)

The configuration is the one the run in DIR was trained with; every leaf can be overridden, `config.probe` holds what
concerns the probe (`--task` is short for `--config.probe.task`), `config.probe.supervised` the network trained with
labels alone (its `metric.weight` adds metric learning). The table is printed. DIR/evaluation has a folder for each
question, with the report as one self-contained page, report.html, and as report.md
with figures; results.json and the scores of every test record. No choice is made on test records.

An exported model (--model) is evaluated on any data set, where neither its run nor its pretraining recordings are; its
settings are the defaults.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from data_pipelines.system.counted import counted
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import functools
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from data_pipelines.buckets.addresses import is_remote
from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.command import output_folder, print_report
from data_pipelines.system.visible_text import visible
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.data.groups import check_groups, group_columns
from ecgjax.data.labels import probe_data
from ecgjax.data.recordings import unit_asked, unit_of
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import REPORT_DIR
from ecgjax.export.trained_for import trained_for
from ecgjax.leakage import guard
from ecgjax.pages.data_card import data_section
from ecgjax.pages.page import SIMULATED, Table
from ecgjax.pages.record_flow import flow_section
from ecgjax.pages.steps_before import build_steps
from ecgjax.pages.terminal import terminal_table, wrapped
from ecgjax.pages.write import Written
from ecgjax.pretrained.fit import check_fits, other_data
from ecgjax.pretrained.source import EncoderSource, chosen_place, is_export, open_source, settings_of_source
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies import finished_run
from ecgjax.studies.batch_norm import batch_norm
from ecgjax.studies.exported_head import check_unit, head_answers, head_of, seen_by_head
from ecgjax.studies.finished_run import (
    check_encoder,
    check_model_settings,
    guarded,
    open_judged,
    parse_flags,
    with_flags,
)
from ecgjax.studies.model_names import BESIDE, answerable
from ecgjax.studies.models import StudyModels, check_trainings
from ecgjax.studies.one_task.pipeline import OneTask, measure_task
from ecgjax.studies.one_task.supplement import Report
from ecgjax.studies.pretrained_runs import step_of
from ecgjax.studies.questions import asked, check_answerable
from ecgjax.studies.readouts import check_readouts, models_of, told_of_choices
from ecgjax.studies.report.neighbour_section import neighbour_section
from ecgjax.studies.report.report import Provenance
from ecgjax.studies.report.report_files import write_report
from ecgjax.studies.report.report_page import verdicts
from ecgjax.studies.report.report_tables import question, results_table
from ecgjax.studies.report.training_sections import curve_sections, views_section
from ecgjax.studies.report.verdict import verdict_text


class Evaluation(NamedTuple):
    """A finished evaluation.

    Attributes:
        task: Results for the task.
        table: Table of the models.
        verdict: First line of the report.
        report: Paths of the report.
    """

    task: OneTask
    table: Table
    verdict: str
    report: Written


def evaluate(
    settings: RunSettings,
    place: Path | str,
    *,
    step: int | None = None,
    out: Path | str | None = None,
    statistics: str | None = None,
    pretraining_data: Sequence[str] = (),
    anonymous: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Evaluates a checkpoint or an exported model and writes its report.

    Args:
        settings: Settings from `pretrained.source.settings_of_source`, in which `data` and `probe` may be changed.
        place: Folder of the pretraining run, or of the exported model.
        step: Step of the run's checkpoint; the latest by default.
        out: Folder of the reports, with one inside for each question; `evaluation` in the run's folder by default. For
            an exported model it must be given.
        statistics: What sets batch norm, of `batch_norm.STATISTICS`; by default the training records of the evaluation,
            and for an exported model what it has stored.
        pretraining_data: Folders in which data sets of the pretraining may lie, beside those of the run.
        anonymous: Whether the report is written without traces of machine, user and time and without ids of records.
        progress: Whether progress is printed and drawn.

    Returns:
        The results, the table of models, and the paths of the report.

    Raises:
        DataError: Data set, folds, task, groups or labels do not allow the evaluation.
        ConfigError: The place holds no run or model, or one of another encoder; no task is given; or a prevalence is
            given for a task that is not a yes or no.
        CheckpointError: The run holds no finished checkpoint, or a damaged one.
    """
    place, probe = Path(place), settings.probe
    own, target = settings_of_source(place), _target(place, out)
    check_encoder(own.encoder, settings.encoder, workdir=str(place))
    recordings = open_judged(settings.data, own.data, place)
    task = asked(probe.task, recordings.index)
    kind = kind_of(task)
    if not kind.yes_or_no and probe.prevalence not in (None, own.probe.prevalence):
        raise ConfigError(
            f"config.probe.prevalence={probe.prevalence} is of a yes or no, which {task.title!r} is not: leave it out"
        )
    check_trainings(settings, [kind], names=["supervised", *(["finetune"] if "finetuned" in probe.readouts else [])])
    check_readouts(probe, settings.encoder, num_samples=recordings.format.num_samples)
    check_groups(probe.groups, recordings)
    # The data are made again below because the guard may drop records.
    labelled = functools.partial(probe_data, task=task, label_fraction=probe.label_fraction, seed=probe.seed)
    data = labelled(recordings.index, recordings.split)
    say = print_report if progress else lambda message: None
    # A question that cannot be answered is refused before anything is loaded.
    check_answerable(data, recordings.index)
    source = open_source(place, step=step, layer=probe.layer)
    check_fits(source, recordings)
    judged = np.concatenate([data.val.records, data.test.records])
    recordings, found = guarded(
        source.recorded,
        recordings,
        overlaps=probe.overlaps,
        encoder=source.encoder,
        records=judged,
        trained_folds=source.trained_folds,
        not_listed=source.not_listed("the encoder", among="the validation and test records"),
        pretraining_data=pretraining_data,
    )
    if source.run is not None and settings.data.dir == own.data.dir:
        found = (*found, *other_data(source, recordings))
    found = (*guard.simulated_before(source.simulated, recordings), *found)
    data = labelled(recordings.index, recordings.split)
    if (head := head_of(source, data)) is not None:
        check_unit(head, data, recordings)
        found = (*found, *seen_by_head(head, recordings))
    few = check_answerable(data, recordings.index)
    of_batch_norm = batch_norm(
        source,
        statistics,
        default="evaluation",
        judged=f"{len(recordings.split.train):,} training records of {recordings.name}, without their labels",
        pretraining_data=pretraining_data,
    )
    for caution in guard.by_weight((*([SIMULATED] if recordings.simulated else []), *found, *few)):
        say(caution)
    train, val, test = map(kind.counts, (data.train, data.val, data.test))
    say(f"{task.title}: {train} train, {val} validation, {test} test")
    for words in (of_batch_norm.words, _of_defaults(source, settings)):
        if words:
            say(words)
    records = np.concatenate([part.records for part in (data.train, data.val, data.test)])
    features = LabelledFeatures(recordings, records, norm=of_batch_norm.norm, seed=probe.seed, progress=progress)
    models = StudyModels(features, settings=settings, pretrained=of_batch_norm.encoder, progress=progress)
    answers: dict[str, Answers] = {}
    for name in answerable(("pretrained", "nearest", *models_of(probe), *BESIDE), task):
        start = time.monotonic()
        if name == "supervised":
            number, steps = len(data.train.records), probe.supervised.steps
            length = f"{counted(steps, 'step')} at most, {counted(number, 'record')}"
            say(f"training the same encoder with the labels alone: {length} …")
        # The random encoder of a run is the one that its pretraining began with.
        answers[name] = models.answers(name, data, seed=settings.seed if name.startswith("random") else probe.seed)
        if name == "supervised":
            say(f"labels alone: {answers[name].selected}; {time.monotonic() - start:.0f} s")
    if head is not None and source.model is not None:
        answers["exported_head"] = head_answers(source.model, data, read=recordings.store.read, progress=progress)
    embeddings = {
        "pretrained": features.of(models.embeddings("pretrained", settings.seed), data),
        "random": features.of(models.embeddings("random", settings.seed), data),
    }
    report = Report(
        resamples=probe.bootstrap,
        seed=probe.seed,
        groups=group_columns(probe.groups, recordings, data.test.records),
        treat_at=probe.treat_at,
        prevalence=probe.prevalence,
        shuffles=probe.shuffles,
        unit="" if kind.log_odds else unit_of(task.title, recordings),
        progress=progress,
    )
    one = measure_task(answers, data, report, embeddings=embeddings, measurement_failures=features.failures)
    given = ["" if out is None else f"--out={out}", "" if statistics is None else f"--statistics={statistics}"]
    given += ["--anonymous"] if anonymous else []
    provenance = Provenance(
        data=recordings.name,
        fingerprint=", ".join(recordings.fingerprints),
        simulated=recordings.simulated,
        encoder=str(settings.encoder.name) + ("" if source.run is not None else f" of the exported model {place.name}"),
        checkpoint_step=source.encoder.step,
        config=tree_of(settings),
        command=_command(own, settings, source, [*given, *(f"--pretraining_data={each}" for each in pretraining_data)]),
        cautions=(*found, *few),
        statistics=of_batch_norm.statistics,
        remarks=tuple(filter(None, (_pretrained_on(source), of_batch_norm.words, _of_defaults(source, settings)))),
        choices=tuple(
            told_of_choices(probe, train=len(data.train.records), val=len(data.val.records), models=tuple(answers))
        ),
        unit=unit_asked(task, recordings),
        steps=(*build_steps(recordings.datasets), step_of(source)),
    )
    sections = [
        flow_section(recordings, {task.title: data}),
        neighbour_section(recordings, data, one.embeddings["pretrained"], seed=probe.seed, anonymous=anonymous),
        *(
            []
            if source.run is None
            else [*curve_sections(place), views_section(settings, recordings, anonymous=anonymous)]
        ),
        data_section(recordings.datasets),
    ]
    written = write_report(
        one,
        target,
        provenance=provenance,
        default_config=tree_of(RunSettings()),
        sections=sections,
        anonymous=anonymous,
    )
    verdict = verdict_text(verdicts(one, unit=provenance.unit), simulated=recordings.simulated)
    return Evaluation(one, results_table(one), verdict, written)


def _target(place: Path, out: Path | str | None) -> Path:
    """Returns the folder of the reports.

    Raises:
        ConfigError: None is given for an exported model, or one inside of it.
        DataError: It cannot be written.
    """
    exported = is_export(place)
    if out is None:
        if exported:
            raise ConfigError(f"--out=DIR is needed, the folder of the reports on {place}: a model's stays as it is")
        return place / REPORT_DIR
    if exported and Path(out).resolve().is_relative_to(place.resolve()):
        raise ConfigError(f"--out={out} is inside of the exported model {place}, which stays as it is: name another")
    return output_folder("out", str(out))


def _pretrained_on(source: EncoderSource) -> str:
    """Returns what the encoder was pretrained on and for, in sentences; empty where neither was recorded."""
    told = [
        f"{each.get('records', 'unknown numbers of')} records of {each.get('name')}"
        f"{' (SIMULATED)' if each.get('simulated') else ''}, fingerprint {each.get('fingerprint')}"
        for each in source.data
    ]
    words = [f"The encoder was pretrained on {' and '.join(told)}."] if told else []
    if source.recorded is not None:
        words.append(f"It was trained for: {trained_for(flat(tree_of(source.recorded)))}.")
    return " ".join(words)


def _of_defaults(source: EncoderSource, settings: RunSettings) -> str:
    if source.run is not None:
        return ""
    return (
        "An exported model brings no settings of an evaluation: these are the defaults but where the command says "
        f"otherwise. The encoder at random initialisation has seed {settings.seed}, labels, trainings and resamples "
        f"have seed {settings.probe.seed}."
    )


def _command(own: RunSettings, settings: RunSettings, source: EncoderSource, given: Sequence[str]) -> str:
    """Returns the command that repeats this evaluation, with the leaves that differ from those that it began with."""
    before = flat(tree_of(own))
    changed = {name: value for name, value in flat(tree_of(settings)).items() if value != before.get(name)}
    question = changed.pop("probe.task", None)
    asked_for = [] if question is None else [f"--task={question}"]
    overrides = [f"--config.{name}={value}" for name, value in changed.items()]
    of = [f"--model={source.place}"]
    if source.run is not None:
        of = [f"--workdir={source.place}", f"--step={source.encoder.step}"]
    return shlex.join(["python", "-m", "ecgjax.evaluate", *of, *asked_for, *filter(None, given), *overrides])


def main(argv: list[str]) -> None:
    """Runs the evaluation that the flags ask for and prints its table."""
    del argv  # It was checked by `run_config.run`.
    chosen = flags.FLAGS
    place = chosen_place(chosen.workdir, chosen.model)
    own = settings_of_source(place)
    settings = with_flags(defaults.settings_of(chosen.config), own, task=chosen.task, dataset=chosen.dataset)
    if chosen.model:
        check_model_settings(settings, own)
    if chosen.workdir and is_remote(chosen.workdir) and not chosen.out:
        raise ConfigError(f"--out=… is needed, the folder of the reports: nothing is added to {chosen.workdir}")
    with finished_folder(chosen.out or "") as out:
        found = evaluate(
            settings,
            place,
            step=chosen.step,
            out=out or None,
            statistics=chosen.statistics,
            pretraining_data=chosen.pretraining_data,
            anonymous=chosen.anonymous,
        )
    print(f"\n{visible(question(found.task.data))}")
    print(terminal_table(found.table.header, found.table.rows))
    print(f"\n{wrapped(found.verdict)}")
    print(f"\nreport: {found.report.html}")


def define_flags() -> None:
    """Defines the flags that other commands define too, and adopts those of `finished_run`."""
    words = "Question: 'lvef<40', superdiagnostic:NORM, 'superdiagnostic:*' or age_years."
    flags.DEFINE_string("task", None, words)
    words = "Folder of the reports; needed with --model, and WORKDIR/evaluation by default."
    flags.DEFINE_string("out", None, words)
    flags.adopt_module_key_flags(finished_run)


if __name__ == "__main__":
    define_flags()
    run_config.run(main, flags_parser=parse_flags)
