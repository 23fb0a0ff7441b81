r"""Probes a pretrained encoder beside its baselines, and writes the report.

  python -m ecgjax.evaluate --workdir=DIR
  python -m ecgjax.evaluate --workdir=DIR --config.probe.label=potassium --config.probe.rule=above \
      --config.probe.threshold=5

The configuration is the one the run in DIR was trained with; every leaf can be overridden, `config.probe` holds what
concerns the probe. The table is printed and written to DIR/evaluation/report.md with figures, results.json and the
scores of every test record. No choice is made on test records.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from ecgjax import configuration, inference
from ecgjax.augmentations.views import Recorded, Views
from ecgjax.evaluation.experiment import run_experiment
from ecgjax.evaluation.figures import augmented_views, metric_series, training_curve
from ecgjax.evaluation.labels import LabelledRecords, probe_data
from ecgjax.evaluation.report import SIMULATED, Evaluation, Provenance, results_table, write_report
from ecgjax.evaluation.tasks import BinaryTask
from ecgjax.finetune import train_supervised
from ecgjax.keys import row_keys
from ecgjax.leads import prepare
from ecgjax.recordings import Recordings, open_recordings
from ecgjax.telemetry import read_metrics

#: Records whose augmented views are drawn.
_PREVIEWED = 2

_PACKAGES = ("jax", "flax", "numpy", "scikit-learn", "neurokit2")


def evaluate(
    config: ml_collections.ConfigDict, workdir: Path | str, *, step: int | None = None, progress: bool = True
) -> tuple[Evaluation, Path]:
    """Evaluates a checkpoint and writes its report.

    Args:
        config: resolved configuration of the run, `config.probe` perhaps changed.
        workdir: of the pretraining run.
        step: of the checkpoint; the latest by default.
        progress: whether to say what is going on.

    Returns:
        The evaluation and the path of `report.md`.

    Raises:
        DataError: data set, folds, label or labels do not allow it.
        ConfigError: the workdir holds no run, or one of another encoder.
        CheckpointError: it holds no finished checkpoint, or a damaged one.
    """
    workdir, probe = Path(workdir), config.probe
    own = configuration.load_resolved(workdir)
    if own.encoder.to_dict() != config.encoder.to_dict():
        raise configuration.ConfigError(
            f"config.encoder is not that of the run in {workdir}: the baselines would be other networks than the "
            "pretrained one; leave config.encoder as it is, or pretrain with it in another --workdir"
        )
    configuration.check_ranges(config)
    task = BinaryTask(label=probe.label, rule=probe.rule, threshold=probe.threshold)
    recordings = open_recordings(config.data)
    store, split = recordings.store, recordings.split
    data = probe_data(recordings.index, split, task=task, label_fraction=probe.label_fraction, seed=probe.seed)
    say = print if progress else _silent
    pretrained = inference.load_encoder(workdir, step=step, layer=probe.layer)
    step = pretrained.step
    cautions = _cautions(own, config, recordings, pretrained_on=pretrained.pretrained_on)
    if not recordings.linked and not recordings.simulated:
        cautions += (
            "Only equal recordings were kept apart between the splits; python -m data_pipelines.link finds copies at "
            "another rate, gain or cut too (config.data.links).",
        )
    for caution in (*([SIMULATED] if recordings.simulated else []), *cautions):
        say(caution)
    say(f"{task.title}: {_counts(data.train)} train, {_counts(data.val)} validation, {_counts(data.test)} test")
    random = inference.random_encoder(config, seed=config.seed)
    # Batch norm of both on the same unaugmented training records: otherwise the table would compare statistics.
    pretrained, random = (
        inference.recalibrate_batch_norm(encoder, store.read, records=split.train, seed=probe.seed)
        for encoder in (pretrained, random)
    )

    def supervised(**arguments):
        say("training the same encoder with the labels alone …")
        return train_supervised(config, **arguments, progress=progress)

    outcome = run_experiment(
        data,
        read=store.read,
        sampling_rate_hz=recordings.format.sampling_rate_hz,
        pretrained=pretrained,
        random=random,
        train_supervised=supervised,
        bootstrap=probe.bootstrap,
        shuffles=probe.shuffles,
        seed=probe.seed,
        progress=progress,
    )
    evaluation = Evaluation(
        comparison=outcome.comparison,
        data=data,
        scores=outcome.scores,
        measurement_failures=outcome.measurement_failures,
        provenance=Provenance(
            data=recordings.name,
            fingerprint=", ".join(recordings.fingerprints),
            simulated=recordings.simulated,
            encoder=config.encoder.name,
            checkpoint_step=step,
            config=config.to_dict(),
            versions={name: importlib.metadata.version(name) for name in _PACKAGES},
            command=_command(own, config, workdir, step=step),
            cautions=cautions,
        ),
    )
    figures = _figures(config, recordings, workdir)
    return evaluation, write_report(evaluation, workdir, figures=figures)


def _silent(message: str) -> None:
    del message


def _counts(part: LabelledRecords) -> str:
    return f"{len(part.records):,} records ({part.positives:,} positive) of {part.num_patients:,} patients"


def _cautions(
    own: ml_collections.ConfigDict,
    config: ml_collections.ConfigDict,
    recordings: Recordings,
    *,
    pretrained_on: Sequence[str],
) -> tuple[str, ...]:
    """Says whether the evaluation's records were seen in pretraining.

    Args:
        own: the pretraining's configuration.
        config: the evaluation's.
        recordings: of the evaluation.
        pretrained_on: fingerprints of the pretraining's data sets: they are known by their contents, wherever they lie.
    """
    names = {
        known: [each.card["name"] for each in recordings.datasets if (each.fingerprint in pretrained_on) == known]
        for known in (True, False)
    }
    cautions = []
    if names[False]:
        which = f"other data than {' and '.join(names[False])}" if names[True] else "other data"
        cautions.append(
            f"The encoder was pretrained on {which}: whether it has seen patients or signals of these is not known."
        )
    judged = {*config.data.val_folds, *config.data.test_folds}
    seen = sorted(judged & set(own.data.train_folds))
    if names[True] and seen:
        folds = ", ".join(map(str, seen))
        cautions.append(f"The encoder was pretrained on the signals of fold {folds}, which is validation or test here.")
    return tuple(cautions)


def _command(own: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: Path, *, step: int) -> str:
    """Returns the command that repeats this evaluation, with what differs from the run's own configuration."""
    before = _leaves(own.to_dict())
    changed = {name: value for name, value in _leaves(config.to_dict()).items() if value != before.get(name)}
    overrides = [f"--config.{name}={value}" for name, value in changed.items()]
    return shlex.join(["python", "-m", "ecgjax.evaluate", f"--workdir={workdir}", f"--step={step}", *overrides])


def _leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    leaves = {}
    for name, value in tree.items():
        leaves.update(_leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return leaves


def _figures(config: ml_collections.ConfigDict, recordings: Recordings, workdir: Path) -> dict[str, Figure]:
    figures, index, train = {}, recordings.index, recordings.split.train
    metrics = metric_series(read_metrics(workdir))
    if metrics:
        figures["Training curve"] = training_curve(metrics)
    records = train[:: max(1, len(train) // _PREVIEWED)][:_PREVIEWED]
    signals = jnp.asarray(recordings.store.read(records))
    keys = row_keys(config.seed, 0, jnp.arange(len(records), dtype=jnp.int32), stream="views")
    recorded = Recorded(*(jnp.asarray(column[records]) for column in (index.valid_start, index.valid_samples)))
    rate_hz = recordings.format.sampling_rate_hz
    views = Views(config.augment, num_views=config.views.num, rate_hz=rate_hz)
    views = np.asarray(views(keys, signals, recorded=recorded))
    drawn = [(f"view {number + 1}", views[:, number]) for number in range(views.shape[1])]
    figures["Two training records and the pair of augmented views of each"] = augmented_views(
        np.asarray(prepare(signals, num_leads=12)),
        drawn,
        sampling_rate_hz=recordings.format.sampling_rate_hz,
        titles=[str(index.record_id[record]) for record in records],
    )
    return figures


_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the pretraining run.")
# Sections of which an evaluation may set what the run left empty; the others decided the pretraining.
_SETTABLE = ("encoder.", "optimizer.", "probe.")

_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest by default.")


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; those of the configuration are known once the workdir is."""
    flags.FLAGS(argv, known_only=True)
    if _WORKDIR.value is None:
        _leave("--workdir=DIR, the folder of a pretraining run, is needed (--help tells more)")
    try:
        config = configuration.load_resolved(_WORKDIR.value)
    except configuration.ConfigError as error:
        _leave(str(error))
    flags.FLAGS.unparse_flags()
    for name, value in _leaves(config.to_dict()).items():
        if value is None and name.startswith(_SETTABLE):
            # The stored configuration does not know the type of what was left empty; here all are numbers.
            config.update_from_flattened_dict({name: config_dict.placeholder(float)})
    try:
        config_flags.DEFINE_config_dict("config", config, sys_argv=argv)
    except AttributeError as error:
        _leave(f"no setting {error} in this run's configuration, which has {', '.join(_leaves(config.to_dict()))}")
    return app.parse_flags_with_usage(argv)


def _leave(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(configuration.EXIT_USER_ERROR)


def main(argv: list[str]) -> None:
    """Runs the evaluation the flags ask for and prints its table."""
    del argv  # checked by `configuration.run`
    evaluation, report = evaluate(flags.FLAGS.config, _WORKDIR.value, step=_STEP.value)
    print(f"\n{evaluation.data.task.title}, {evaluation.data.label_fraction:.3g} of the training labels")
    print(results_table(evaluation.comparison))
    print(f"\nreport: {report}")


if __name__ == "__main__":
    configuration.run(main, flags_parser=_parse)
