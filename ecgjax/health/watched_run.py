"""The health metric of a pretraining: what its settings ask, and its place among the metrics of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ecgjax.data.recordings import Recordings
from ecgjax.errors import ConfigError
from ecgjax.health.asked_records import METRICS, AskedRecords, asked_records
from ecgjax.health.neighbour_probe import NeighbourProbe
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.checkpoint_settings import CheckpointSettings
from ecgjax.training.debugging.debug_batches import store_of
from ecgjax.training.run import Run
from ecgjax.training.settings import PretrainingSettings
from ecgjax.training.steps import TrainState

#: Function from a state to metrics under their full names.
Evaluate = Callable[[TrainState], Mapping[str, float]]


def asked_of_run(settings: PretrainingSettings, recordings: Recordings) -> AskedRecords | None:
    """Returns the labelled records that a run's evaluations ask, or None where its settings ask nothing.

    Args:
        settings: Settings of the run.
        recordings: Recordings of the run.

    Raises:
        ConfigError: The run has no evaluations, its best checkpoint cannot be chosen as the settings say, or
            `asked_records` refuses them.
        DataError: The recordings cannot answer the question.
    """
    if settings.health.task and not settings.eval_every:
        raise ConfigError(
            f"config.health.task={settings.health.task!r} is asked in evaluations, and config.eval_every=0 has none: "
            "give the number of steps between them"
        )
    asked = asked_records(settings.health, recordings)
    _check_best(settings.checkpoint, "" if asked is None else asked.metric)
    return asked


def _check_best(settings: CheckpointSettings, metric: str) -> None:
    """Checks a best checkpoint that is chosen by a health metric.

    Args:
        settings: Settings of the checkpoints.
        metric: Full name of the run's health metric; empty where there is none.
    """
    if settings.best not in METRICS:
        return
    if settings.best != metric:
        remedy = f"name {metric}, which config.health.task gives" if metric else "ask a question in config.health.task"
        raise ConfigError(f"config.checkpoint.best={settings.best!r} is no metric of this run's evaluations: {remedy}")
    if settings.best_mode != "max":
        raise ConfigError(
            f"config.checkpoint.best_mode={settings.best_mode!r} keeps the worst checkpoint, because more of {metric} "
            "is better: give max"
        )


def watched_evaluation(run: Run, evaluate: Evaluate | None, asked: AskedRecords | None) -> Evaluate | None:
    """Returns an evaluation that also has the health metric, where records are asked.

    Args:
        run: Run that is evaluated.
        evaluate: Evaluation of its loss; None where it has none.
        asked: Labelled records that are asked; None for none.

    Raises:
        ConfigError: Processes differ in the records or in their labels.
    """
    if evaluate is None or asked is None:
        return evaluate
    device_mesh.check_alike(asked.digest, what="records or labels of config.health")
    settings, of_loss = run.settings, evaluate
    probe = NeighbourProbe(
        asked,
        store=store_of(run.recordings.store, settings.debug),
        graph=run.split.graph,
        num_leads=settings.encoder.num_leads,
        layer=settings.health.layer,
        mesh=run.mesh,
        allow_bad_shards=settings.data.allow_bad_shards,
    )
    return lambda state: {**of_loss(state), **probe(state.evaluated)}
