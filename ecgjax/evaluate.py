r"""Probes a pretrained encoder beside its baselines, and writes the report.

  python -m ecgjax.evaluate --workdir=DIR
  python -m ecgjax.evaluate --workdir=DIR --config.probe.label=potassium --config.probe.rule=above \
      --config.probe.threshold=5
  python -m ecgjax.evaluate --workdir=DIR --config.probe.label=wedge_pressure --config.probe.rule=values  (a quantity)
  python -m ecgjax.evaluate --workdir=DIR --config.probe.label='superdiagnostic:*'                     (all classes)

The configuration is the one the run in DIR was trained with; every leaf can be overridden, `config.probe` holds what
concerns the probe, `config.probe.supervised` the network trained with labels alone (its `metric.weight` adds metric
learning). The table is printed. DIR/evaluation has the report as one self-contained page, report.html, and as report.md
with figures; results.json and the scores of every test record. No choice is made on test records.
"""

from __future__ import annotations

from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # before the imports below, which start threads

import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from data_pipelines.system.visible_text import visible
from ecgjax import defaults
from ecgjax.augmentations.geodesic import towards_others
from ecgjax.augmentations.partners import preview_partners
from ecgjax.augmentations.views import Recorded, Views
from ecgjax.config import run_config
from ecgjax.data.groups import check_groups, group_columns
from ecgjax.data.labels import LabelledRecords, probe_data
from ecgjax.data.recordings import Recordings, open_recordings, unit_of
from ecgjax.data.row_metadata import label_column
from ecgjax.data.tasks import Kind, configured_task, takes_no_threshold
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.finetuning.trainer import check_settings, train_supervised
from ecgjax.keys import row_keys
from ecgjax.leads import prepare
from ecgjax.pages.data_card import data_section
from ecgjax.pages.markdown import format_table
from ecgjax.pages.page import SIMULATED, Picture, Section
from ecgjax.pages.write import Written
from ecgjax.studies import finished_run
from ecgjax.studies.finished_run import STEP, WORKDIR, check_encoder, guarded, load_config, parse_flags
from ecgjax.studies.one_task_binary import run_experiment
from ecgjax.studies.one_task_other import answer
from ecgjax.studies.report.answers_page import AnswersEvaluation, answers_table, write_answers_report
from ecgjax.studies.report.figures import augmented_views, metric_series, training_curve
from ecgjax.studies.report.neighbour_section import neighbour_section
from ecgjax.studies.report.report import Evaluation, Provenance
from ecgjax.studies.report.report_files import write_report
from ecgjax.studies.report.report_tables import question, results_table
from ecgjax.training.telemetry import read_metrics

#: Records whose augmented views are drawn.
_PREVIEWED = 2


def evaluate(
    config: ml_collections.ConfigDict, workdir: Path | str, *, step: int | None = None, progress: bool = True
) -> tuple[Evaluation | AnswersEvaluation, Written]:
    """Evaluates a checkpoint and writes its report.

    Args:
        config: Config of the run, as `finished_run.load_config` reads it, `config.probe` perhaps changed.
        workdir: of the pretraining run.
        step: of the checkpoint; the latest by default.
        progress: whether to say what is going on.

    Returns:
        The evaluation, and where its report is.

    Raises:
        DataError: data set, folds, label, groups or labels do not allow it.
        ConfigError: the workdir holds no run, or one of another encoder; or a prevalence is given to a task that has
            none.
        CheckpointError: it holds no finished checkpoint, or a damaged one.
    """
    workdir, probe = Path(workdir), config.probe
    own = load_config(workdir)
    check_encoder(own, config, workdir=str(workdir))
    run_config.check_ranges(config)
    # The threshold of the run's own question is no part of another that has none.
    threshold = (
        None
        if takes_no_threshold(probe.label, probe.rule) and probe.threshold == own.probe.threshold
        else probe.threshold
    )
    task = configured_task(label=probe.label, rule=probe.rule, threshold=threshold)
    if task.kind != "binary" and probe.prevalence not in (None, own.probe.prevalence):
        raise ConfigError(
            f"config.probe.prevalence={probe.prevalence} is of a yes or no, which {task.title!r} is not: leave it out"
        )
    check_settings(probe.supervised, task.kind, section="config.probe.supervised")
    recordings = open_recordings(config.data)
    check_groups(probe.groups, recordings)
    drawn = {"task": task, "label_fraction": probe.label_fraction, "seed": probe.seed}
    data = probe_data(recordings.index, recordings.split, **drawn)
    say = print if progress else _silent
    pretrained = frozen_encoder.load_encoder(workdir, step=step, layer=probe.layer)
    step = pretrained.step
    judged = np.concatenate([data.val.records, data.test.records])
    recordings, found = guarded(own, config, recordings, encoder=pretrained, records=judged)
    store, split = recordings.store, recordings.split
    data = probe_data(recordings.index, split, **drawn)  # Without what was dropped.
    for caution in (*([SIMULATED] if recordings.simulated else []), *found):
        say(caution)
    train, val, test = (_counts(part, task.kind) for part in (data.train, data.val, data.test))
    say(f"{task.title}: {train} train, {val} validation, {test} test")
    random = frozen_encoder.random_encoder(config, seed=config.seed)
    # Batch norm of both on the same unaugmented training records: otherwise the table would compare statistics.
    pretrained, random = (
        frozen_encoder.recalibrate_batch_norm(encoder, store.read, records=split.train, seed=probe.seed)
        for encoder in (pretrained, random)
    )

    def supervised(**arguments):
        say("training the same encoder with the labels alone …")
        return train_supervised(config, **arguments, progress=progress)

    asked = {
        "read": store.read,
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
        encoder=config.encoder.name,
        checkpoint_step=step,
        config=config.to_dict(),
        command=_command(own, config, workdir, step=step),
        cautions=found,
    )
    if task.kind == "binary":
        outcome = run_experiment(
            data, shuffles=probe.shuffles, treat_at=probe.treat_at, prevalence=probe.prevalence, **asked
        )
        write = write_report
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
        write = write_answers_report
        unit = unit_of(task.title, recordings) if task.kind == "quantity" else ""
        evaluation = AnswersEvaluation(answers=answer(data, **asked), data=data, unit=unit, provenance=provenance)
    sections = [
        neighbour_section(recordings, data, evaluation.embeddings["pretrained"], seed=probe.seed),
        *_training(workdir),
        _augmentations(config, recordings),
        data_section(recordings.datasets),
    ]
    return evaluation, write(evaluation, workdir, default_config=defaults.get_config().to_dict(), sections=sections)


def _silent(message: str) -> None:
    del message


def _counts(part: LabelledRecords, kind: Kind) -> str:
    positive = f" ({part.positives:,} positive)" if kind == "binary" else ""
    return f"{len(part.records):,} records{positive} of {part.num_patients:,} patients"


def _command(own: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: Path, *, step: int) -> str:
    """Returns the command that repeats this evaluation, with what differs from the run's own configuration."""
    before = run_config.leaves(own.to_dict())
    changed = {name: value for name, value in run_config.leaves(config.to_dict()).items() if value != before.get(name)}
    overrides = [f"--config.{name}={value}" for name, value in changed.items()]
    return shlex.join(["python", "-m", "ecgjax.evaluate", f"--workdir={workdir}", f"--step={step}", *overrides])


def _training(workdir: Path) -> list[Section]:
    metrics = metric_series(read_metrics(workdir))
    if not metrics:
        return []
    alt = "Loss of training and validation, and similarities of the pairs of a batch, over the steps of the training."
    return [Section("Training curve", [Picture(figure=training_curve(metrics), alt=alt)])]


def _augmentations(config: ml_collections.ConfigDict, recordings: Recordings) -> Section:
    train = recordings.split.train
    records = train[:: max(1, len(train) // _PREVIEWED)][:_PREVIEWED]
    signals, recorded = _stored(recordings, records)
    keys = row_keys(config.seed, 0, jnp.arange(len(records), dtype=jnp.int32), stream="views")
    rate_hz = recordings.format.sampling_rate_hz
    views = Views(config.augment, num_views=config.views.num, rate_hz=rate_hz)
    towards = _towards(config, recordings, records) if views.moves_between_recordings else None
    views = np.asarray(views(keys, signals, recorded=recorded, towards=towards))
    drawn = [(f"view {number + 1}", views[:, number]) for number in range(views.shape[1])]
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


def _towards(config: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray) -> jax.Array:
    """What some recordings are moved towards in a figure: a training recording of the other label, for each."""
    others = preview_partners(label_column(config.columns, recordings), records, among=recordings.split.train)
    (signal, recorded), (signals, others_recorded) = (_stored(recordings, numbers) for numbers in (records, others))
    rate_hz = recordings.format.sampling_rate_hz
    return towards_others(signal, signals, recorded=recorded, others_recorded=others_recorded, rate_hz=rate_hz)


def _stored(recordings: Recordings, records: np.ndarray) -> tuple[jax.Array, Recorded]:
    columns = (recordings.index.valid_start, recordings.index.valid_samples)
    recorded = Recorded(*(jnp.asarray(column[records]) for column in columns))
    return jnp.asarray(recordings.store.read(records)), recorded


def main(argv: list[str]) -> None:
    """Runs the evaluation the flags ask for and prints its table."""
    del argv  # checked by `run_config.run`
    evaluation, report = evaluate(flags.FLAGS.config, WORKDIR.value, step=STEP.value)
    print(f"\n{visible(question(evaluation.data))}")
    binary = isinstance(evaluation, Evaluation)
    table = results_table(evaluation.comparison) if binary else answers_table(evaluation)
    print(format_table(table.header, table.rows))
    print(f"\nreport: {report.html}")


flags.adopt_module_key_flags(finished_run)

if __name__ == "__main__":
    run_config.run(main, flags_parser=parse_flags)
