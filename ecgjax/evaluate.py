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

import shlex
from pathlib import Path
from typing import Any

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
from ecgjax.data.labels import LabelledRecords, ProbeData, probe_data
from ecgjax.data.recordings import Recordings, open_recordings, unit_of
from ecgjax.data.row_metadata import label_column
from ecgjax.data.tasks import Kind, Task
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.finetuning.network import Network
from ecgjax.finetuning.trainer import check_settings, train_supervised
from ecgjax.keys import row_keys
from ecgjax.leads import prepare
from ecgjax.pages.data_card import data_section
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import SIMULATED, Picture, Section
from ecgjax.pages.write import Written
from ecgjax.settings.probe import ProbeSettings
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies import finished_run
from ecgjax.studies.compared import Compared
from ecgjax.studies.finished_run import STEP, check_encoder, guarded, parse_flags, with_question
from ecgjax.studies.one_task_binary import run_experiment
from ecgjax.studies.one_task_other import answer
from ecgjax.studies.questions import asked, check_answerable
from ecgjax.studies.report.answers_page import AnswersEvaluation, answers_table, write_answers_report
from ecgjax.studies.report.figures import augmented_views, metric_series, training_curve
from ecgjax.studies.report.neighbour_section import neighbour_section
from ecgjax.studies.report.report import Evaluation, Provenance
from ecgjax.studies.report.report_files import write_report
from ecgjax.studies.report.report_tables import question, results_table
from ecgjax.training.telemetry import read_metrics

#: Number of records whose augmented views are drawn.
_PREVIEWED = 2


def evaluate(
    settings: RunSettings, workdir: Path | str, *, step: int | None = None, progress: bool = True
) -> tuple[Evaluation | AnswersEvaluation, Written]:
    """Evaluates a checkpoint and writes its report.

    Args:
        settings: Settings of the run from `defaults.settings_of_run`, in which `probe` may be changed.
        workdir: Folder of the pretraining run.
        step: Step of the checkpoint; the latest by default.
        progress: Whether progress is printed and drawn.

    Returns:
        The evaluation, and the paths of its report.

    Raises:
        DataError: Data set, folds, question, groups or labels do not allow the evaluation.
        ConfigError: The workdir holds no run, or one of another encoder; no question is asked; or a prevalence is given
            for a question that has none.
        CheckpointError: The workdir holds no finished checkpoint, or a damaged one.
    """
    workdir, probe = Path(workdir), settings.probe
    own = defaults.settings_of_run(workdir)
    check_encoder(own.encoder, settings.encoder, workdir=str(workdir))
    recordings = open_recordings(settings.data)
    task = asked(probe.task, recordings.index)
    if task.kind != "binary" and probe.prevalence not in (None, own.probe.prevalence):
        raise ConfigError(
            f"config.probe.prevalence={probe.prevalence} is of a yes or no, which {task.title!r} is not: leave it out"
        )
    check_settings(probe.supervised, task.kind, section="config.probe.supervised")
    check_groups(probe.groups, recordings)
    data = _labelled(task, recordings, probe)
    say = print if progress else _silent
    few = check_answerable(data, recordings.index)
    pretrained = frozen_encoder.load_encoder(workdir, step=step, layer=probe.layer)
    step = pretrained.step
    judged = np.concatenate([data.val.records, data.test.records])
    recordings, found = guarded(
        own, settings.data, recordings, overlaps=probe.overlaps, encoder=pretrained, records=judged
    )
    data = _labelled(task, recordings, probe)  # The guard may have dropped records.
    few = check_answerable(data, recordings.index)
    for caution in (*([SIMULATED] if recordings.simulated else []), *found, *few):
        say(caution)
    train, val, test = (_counts(part, task.kind) for part in (data.train, data.val, data.test))
    say(f"{task.title}: {train} train, {val} validation, {test} test")
    random = frozen_encoder.random_encoder(settings.encoder, layer=probe.layer, seed=settings.seed)
    # Batch norm of both encoders is recalibrated on the same unaugmented training records: otherwise the table would
    # compare statistics.
    pretrained, random = (
        frozen_encoder.recalibrate_batch_norm(
            encoder, recordings.store.read, records=recordings.split.train, seed=probe.seed
        )
        for encoder in (pretrained, random)
    )

    def supervised(**arguments: Any) -> Network:
        say("training the same encoder with the labels alone …")
        return train_supervised(
            probe.supervised, encoder=settings.encoder, optimizer=settings.optimizer, **arguments, progress=progress
        )

    compared: Compared = {
        "read": recordings.store.read,
        "sampling_rate_hz": recordings.format.sampling_rate_hz,
        "demographics": np.stack([recordings.index.label(name) for name in ("age_years", "sex")], axis=1),
        "pretrained": pretrained,
        "random": random,
        "train_supervised": supervised,
        "groups": group_columns(probe.groups, recordings, data.test.records),
        "bootstrap": probe.bootstrap,
        "seed": probe.seed,
        "progress": progress,
    }
    provenance = Provenance(
        data=recordings.name,
        fingerprint=", ".join(recordings.fingerprints),
        simulated=recordings.simulated,
        encoder=str(settings.encoder.name),
        checkpoint_step=step,
        config=tree_of(settings),
        command=_command(own, settings, workdir, step=step),
        cautions=(*found, *few),
    )
    evaluation: Evaluation | AnswersEvaluation
    if task.kind == "binary":
        outcome = run_experiment(
            data, shuffles=probe.shuffles, treat_at=probe.treat_at, prevalence=probe.prevalence, **compared
        )
        evaluation = Evaluation(
            comparison=outcome.comparison,
            data=data,
            scores=outcome.scores,
            embeddings=outcome.embeddings,
            measurement_failures=outcome.measurement_failures,
            operating=outcome.operating,
            net_benefits=outcome.net_benefits,
            groups=outcome.groups,
            near=outcome.near,
            provenance=provenance,
        )
    else:
        unit = unit_of(task.title, recordings) if task.kind == "quantity" else ""
        evaluation = AnswersEvaluation(answers=answer(data, **compared), data=data, unit=unit, provenance=provenance)
    sections = [
        neighbour_section(recordings, data, evaluation.embeddings["pretrained"], seed=probe.seed),
        *_training(workdir),
        _augmentations(settings, recordings),
        data_section(recordings.datasets),
    ]
    default = tree_of(RunSettings())
    if isinstance(evaluation, Evaluation):
        return evaluation, write_report(evaluation, workdir, default_config=default, sections=sections)
    return evaluation, write_answers_report(evaluation, workdir, default_config=default, sections=sections)


def _labelled(task: Task, recordings: Recordings, probe: ProbeSettings) -> ProbeData:
    return probe_data(
        recordings.index, recordings.split, task=task, label_fraction=probe.label_fraction, seed=probe.seed
    )


def _silent(message: str) -> None:
    del message


def _counts(part: LabelledRecords, kind: Kind) -> str:
    positive = f" ({part.positives:,} positive)" if kind == "binary" else ""
    return f"{len(part.records):,} records{positive} of {part.num_patients:,} patients"


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
        figure = augmented_views(
            original[row : row + 1],
            [(name, each[row : row + 1]) for name, each in drawn],
            sampling_rate_hz=recordings.format.sampling_rate_hz,
            titles=[title],
        )
        alt = f"Twelve leads of training record {title} as recorded, and of each of its augmented views beside it."
        caption = f"Training record {title} and its augmented views."
        pictures.append(Picture(figure=figure, alt=alt, caption=caption, vector=False, dpi=96))
    return Section("Augmented views", pictures)


def _towards(question: str, recordings: Recordings, records: np.ndarray) -> jax.Array:
    """Returns for each of some recordings what it is moved towards in a figure: a training recording of the other
    label.
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
    evaluation, report = evaluate(settings, flags.FLAGS.workdir, step=STEP.value)
    print(f"\n{visible(question(evaluation.data))}")
    table = results_table(evaluation.comparison) if isinstance(evaluation, Evaluation) else answers_table(evaluation)
    print(format_table(table.header, table.rows))
    print(f"\nreport: {report.html}")


def define_flags() -> None:
    """Defines the flag that other commands have too, and adopts those of finished runs."""
    flags.DEFINE_string(
        "task",
        None,
        "Question: 'lvef<40', superdiagnostic:NORM, 'superdiagnostic:*' or age_years.",
    )
    flags.adopt_module_key_flags(finished_run)


if __name__ == "__main__":
    define_flags()
    run_config.run(main, flags_parser=parse_flags)
