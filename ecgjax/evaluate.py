r"""Probes a pretrained encoder beside its baselines, and writes the report.

  python -m ecgjax.evaluate --workdir=DIR --task='potassium>5'                        (below or above a value)
  python -m ecgjax.evaluate --workdir=DIR --task=superdiagnostic:NORM                 (one class)
  python -m ecgjax.evaluate --workdir=DIR --task='superdiagnostic:*'                  (all classes)
  python -m ecgjax.evaluate --workdir=DIR --task=wedge_pressure                       (a quantity)

The configuration is the one the run in DIR was trained with; every leaf can be overridden, `config.probe` holds what
concerns the probe (`--task` is short for `--config.probe.task`), `config.probe.supervised` the network trained with
labels alone (its `metric.weight` adds metric learning). The table is printed. DIR/evaluation has a folder for each
question, with the report as one self-contained page, report.html, and as report.md
with figures; results.json and the scores of every test record. No choice is made on test records.
"""

from __future__ import annotations

from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.

import functools
import shlex
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from data_pipelines.system.visible_text import visible
from ecgjax import defaults
from ecgjax.augmentations.geodesic import towards_others
from ecgjax.augmentations.partners import preview_partners
from ecgjax.augmentations.views import Recorded, Views
from ecgjax.config import run_config
from ecgjax.data.groups import check_groups, group_columns
from ecgjax.data.labels import probe_data
from ecgjax.data.recordings import Recordings, open_recordings, unit_of
from ecgjax.data.row_metadata import label_column
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.keys import row_keys
from ecgjax.leads import prepare
from ecgjax.pages.data_card import data_section
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import SIMULATED, Picture, Section, Table
from ecgjax.pages.write import Written
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies import finished_run
from ecgjax.studies.finished_run import STEP, check_encoder, guarded, parse_flags, with_question
from ecgjax.studies.models import BESIDE, StudyModels, answerable, check_trainings
from ecgjax.studies.one_task.pipeline import OneTask, measure_task
from ecgjax.studies.one_task.supplement import Report
from ecgjax.studies.questions import asked, check_answerable
from ecgjax.studies.report.figures import augmented_views, metric_series, training_curve
from ecgjax.studies.report.neighbour_section import neighbour_section
from ecgjax.studies.report.report import Provenance
from ecgjax.studies.report.report_files import write_report
from ecgjax.studies.report.report_tables import question, results_table
from ecgjax.training.run_log.metrics_file import read_metrics

#: Number of records whose augmented views are drawn.
_PREVIEWED = 2


class Evaluation(NamedTuple):
    """A finished evaluation.

    Attributes:
        task: Results for the task.
        table: Table of the models.
        report: Paths of the report.
    """

    task: OneTask
    table: Table
    report: Written


def evaluate(
    settings: RunSettings, workdir: Path | str, *, step: int | None = None, progress: bool = True
) -> Evaluation:
    """Evaluates a checkpoint and writes its report.

    Args:
        settings: Settings of the run from `defaults.settings_of_run`, in which `probe` may be changed.
        workdir: Folder of the pretraining run.
        step: Step of the checkpoint; the latest by default.
        progress: Whether progress is printed and drawn.

    Returns:
        The results, the table of models, and the paths of the report.

    Raises:
        DataError: Data set, folds, task, groups or labels do not allow the evaluation.
        ConfigError: The workdir holds no run, or one of another encoder; no task is given; or a prevalence is given for
            a task that is not a yes or no.
        CheckpointError: The workdir holds no finished checkpoint, or a damaged one.
    """
    workdir, probe = Path(workdir), settings.probe
    own = defaults.settings_of_run(workdir)
    check_encoder(own.encoder, settings.encoder, workdir=str(workdir))
    recordings = open_recordings(settings.data)
    task = asked(probe.task, recordings.index)
    kind = kind_of(task)
    if not kind.yes_or_no and probe.prevalence not in (None, own.probe.prevalence):
        raise ConfigError(
            f"config.probe.prevalence={probe.prevalence} is of a yes or no, which {task.title!r} is not: leave it out"
        )
    check_trainings(settings, [kind], names=["supervised"])
    check_groups(probe.groups, recordings)
    # The data are made again below because the guard may drop records.
    labelled = functools.partial(probe_data, task=task, label_fraction=probe.label_fraction, seed=probe.seed)
    data = labelled(recordings.index, recordings.split)
    say = print if progress else lambda message: None
    # A question that cannot be answered is refused before anything is loaded.
    check_answerable(data, recordings.index)
    pretrained = frozen_encoder.load_encoder(workdir, step=step, layer=probe.layer)
    judged = np.concatenate([data.val.records, data.test.records])
    recordings, found = guarded(
        own, settings.data, recordings, overlaps=probe.overlaps, encoder=pretrained, records=judged
    )
    data = labelled(recordings.index, recordings.split)
    few = check_answerable(data, recordings.index)
    for caution in (*([SIMULATED] if recordings.simulated else []), *found, *few):
        say(caution)
    train, val, test = map(kind.counts, (data.train, data.val, data.test))
    say(f"{task.title}: {train} train, {val} validation, {test} test")
    records = np.concatenate([part.records for part in (data.train, data.val, data.test)])
    features = LabelledFeatures(recordings, records, seed=probe.seed, progress=progress)
    models = StudyModels(features, settings=settings, pretrained=pretrained, progress=progress)
    answers: dict[str, Answers] = {}
    for name in answerable(("pretrained", "nearest", *BESIDE), task):
        if name == "supervised":
            say("training the same encoder with the labels alone …")
        # The random encoder is the one that pretraining began with.
        answers[name] = models.answers(name, data, seed=settings.seed if name == "random" else probe.seed)
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
    provenance = Provenance(
        data=recordings.name,
        fingerprint=", ".join(recordings.fingerprints),
        simulated=recordings.simulated,
        encoder=str(settings.encoder.name),
        checkpoint_step=pretrained.step,
        config=tree_of(settings),
        command=_command(own, settings, workdir, step=pretrained.step),
        cautions=(*found, *few),
    )
    sections = [
        neighbour_section(recordings, data, one.embeddings["pretrained"], seed=probe.seed),
        *_training(workdir),
        _augmentations(settings, recordings),
        data_section(recordings.datasets),
    ]
    default = tree_of(RunSettings())
    written = write_report(one, workdir, provenance=provenance, default_config=default, sections=sections)
    return Evaluation(one, results_table(one), written)


def _command(own: RunSettings, settings: RunSettings, workdir: Path, *, step: int) -> str:
    """Returns the command that repeats this evaluation, with the leaves that differ from the run's own settings."""
    before = flat(tree_of(own))
    changed = {name: value for name, value in flat(tree_of(settings)).items() if value != before.get(name)}
    question = changed.pop("probe.task", None)
    asked_for = [] if question is None else [f"--task={question}"]
    overrides = [f"--config.{name}={value}" for name, value in changed.items()]
    return shlex.join(
        ["python", "-m", "ecgjax.evaluate", f"--workdir={workdir}", f"--step={step}", *asked_for, *overrides]
    )


def _training(workdir: Path) -> list[Section]:
    metrics = metric_series(read_metrics(workdir))
    if not metrics:
        return []
    alt = "Loss of training and validation, and similarities of the pairs of a batch, over the steps of the training."
    return [Section("Training curve", [Picture(figure=training_curve(metrics), alt=alt)])]


def _augmentations(settings: RunSettings, recordings: Recordings) -> Section:
    train = recordings.split.train
    records = train[:: max(1, len(train) // _PREVIEWED)][:_PREVIEWED]
    signals, recorded = _stored(recordings, records)
    keys = row_keys(settings.seed, 0, jnp.arange(len(records), dtype=jnp.int32), stream="views")
    rate_hz = recordings.format.sampling_rate_hz
    views = Views(settings.augment, num_views=settings.views.num, rate_hz=rate_hz)
    moved = views.moves_between_recordings
    towards = _towards(settings.columns.task, recordings, records) if moved else None
    augmented = np.asarray(views(keys, signals, recorded=recorded, towards=towards))
    drawn = [(f"view {number + 1}", augmented[:, number]) for number in range(augmented.shape[1])]
    original, pictures = np.asarray(prepare(signals, num_leads=12)), []
    for row, record in enumerate(records):
        title = str(recordings.index.record_id[record])
        here = [(name, each[row : row + 1]) for name, each in drawn]
        figure = augmented_views(original[row : row + 1], here, sampling_rate_hz=rate_hz, titles=[title])
        alt = f"Twelve leads of training record {title} as recorded, and of each of its augmented views beside it."
        caption = f"Training record {title} and its augmented views."
        pictures.append(Picture(figure=figure, alt=alt, caption=caption, vector=False, dpi=96))
    return Section("Augmented views", pictures)


def _towards(question: str, recordings: Recordings, records: np.ndarray) -> jax.Array:
    """Returns, for each recording, a training recording of the other label, of which augmentation mixes in a part.

    Args:
        question: Task whose label is meant.
        recordings: Recordings of the evaluation.
        records: Record numbers, `int64[n]`.
    """
    others = preview_partners(label_column(question, recordings), records, among=recordings.split.train)
    (signal, recorded), (signals, others_recorded) = (_stored(recordings, numbers) for numbers in (records, others))
    rate_hz = recordings.format.sampling_rate_hz
    return towards_others(signal, signals, recorded=recorded, others_recorded=others_recorded, rate_hz=rate_hz)


def _stored(recordings: Recordings, records: np.ndarray) -> tuple[jax.Array, Recorded]:
    columns = (recordings.index.valid_start, recordings.index.valid_samples)
    recorded = Recorded(*(jnp.asarray(column[records]) for column in columns))
    return jnp.asarray(recordings.store.read(records)), recorded


def main(argv: list[str]) -> None:
    """Runs the evaluation that the flags ask for and prints its table."""
    del argv  # It was checked by `run_config.run`.
    chosen = flags.FLAGS
    settings = with_question(defaults.settings_of(chosen.config), chosen.task, workdir=chosen.workdir)
    found = evaluate(settings, chosen.workdir, step=STEP.value)
    print(f"\n{visible(question(found.task.data))}")
    print(format_table(found.table.header, found.table.rows))
    print(f"\nreport: {found.report.html}")


def define_flags() -> None:
    """Defines the flag `--task`, which other commands define too, and adopts the flags of `finished_run`."""
    words = "Question: 'lvef<40', superdiagnostic:NORM, 'superdiagnostic:*' or age_years."
    flags.DEFINE_string("task", None, words)
    flags.adopt_module_key_flags(finished_run)


if __name__ == "__main__":
    define_flags()
    run_config.run(main, flags_parser=parse_flags)
