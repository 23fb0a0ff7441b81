"""Supervised metric learning: a triplet loss, added to a task's loss, that shapes the encoder's features by the labels.

The loss is task + weight · triplet, over the rows of a batch of labelled training records (Jeong, Stultz and Ghassemi
2023, arXiv 2308.04650). Relations, miners and the loss are those of pretraining (`ecgjax/objectives`); this module
chooses among them by the kind of task. The published weight is 1 for a yes or no and 3 for a quantity.

This implementation deviates in three points. The published loss is computed on an embedding of 128 numbers between
features and head; here it is computed on the features themselves, which are also the input of the head. The published
weight of 3 was chosen for a root mean square error in mmHg; where the task's loss is in another unit, choose the weight
anew. Two rows of one patient are no negative pair, and two rows of one record are no positive pair.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.kinds import QuestionKind
from ecgjax.keys import step_key
from ecgjax.objectives.losses.triplet import triplet
from ecgjax.objectives.miners import miners as mining
from ecgjax.objectives.miners.search import Miner
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.outputs import LossOutput
from ecgjax.objectives.pairs.relations import Relation, Rows, same_label, same_record
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.settings.probe import AUTO, MetricSettings

#: Relation → the miners that go with it, the published default first. Published miners use distances
#: that are not squared, and take a random negative where there is no semi-hard one. Of several semi-hard negatives the
#: published code takes a random one (`semi_hard_random`), and FaceNet's rule takes the nearest (`semi_hard`).
_EUCLIDEAN = DISTANCES["euclidean"]
_SEMI_HARD = functools.partial(mining.semi_hard, distance=_EUCLIDEAN, fallback="random")
CHOICES: Mapping[str, tuple[Relation, Mapping[str, Miner]]] = {
    "same_label": (
        same_label,
        {
            "npair": mining.MINERS["npair"],
            "semi_hard": _SEMI_HARD,
            "semi_hard_random": functools.partial(_SEMI_HARD, choice="random"),
            "soft_hard": functools.partial(mining.soft_hard, distance=_EUCLIDEAN),
        },
    ),
    "same_record": (same_record, {"label_distance": mining.MINERS["label_distance"]}),
}

_SECTION = "training with labels"


class MetricTerm:
    """The triplet loss on the features of a batch of labelled rows.

    Args:
        settings: Settings of the term, the weight above 0.
        kind: Kind of the task.
        section: Section of the config that holds the settings, for messages.

    Attributes:
        weight: Weight of this loss in the sum with the task's loss.

    Raises:
        ConfigError: A setting is unknown to the kind of task, or the task is multi-label.
    """

    def __init__(self, settings: MetricSettings, *, kind: QuestionKind, section: str = _SECTION):
        if kind.alike not in CHOICES:
            raise ConfigError(
                f"{section}: metric.weight={settings.weight} is for a yes or no and for a quantity: no relation says "
                "which records of this question are alike; set it to 0"
            )
        relation, miners = CHOICES[kind.alike]
        name = next(iter(miners)) if settings.miner == AUTO else settings.miner
        for leaf, value, known in (("miner", name, miners), ("distance", settings.distance, DISTANCES)):
            if value not in known:
                raise ConfigError(
                    f"{section}: metric.{leaf}={value!r} is unknown to this kind of question; there are: "
                    f"{', '.join(known)}"
                )
        self.weight, self._miner, distance = settings.weight, miners[name], DISTANCES[settings.distance]
        self._triplet = functools.partial(
            triplet, relation=relation, distance=distance, margin=settings.margin, tiling=Tiling()
        )

    def __call__(self, features: Array, batch: Mapping[str, Array], step: Array) -> LossOutput:
        """Computes the loss of a batch.

        Args:
            features: Features of the encoder, `f32[batch, dim]`.
            batch: Columns of the batch: `row`, `record` and `patient`, `i32[batch]`; `label`, `f32[batch, 1]`; and
                `seed`, `u32[]`.
            step: Number of the training step, `i32[]`.

        Returns:
            The loss, the mean over the rows that have a triplet, and statistics; it is 0 where no row has one, as in a
            batch of one label or of one patient.
        """
        row = batch["row"]
        rows = Rows(
            row=row,
            record=batch["record"],
            patient=batch["patient"],
            view=jnp.zeros_like(row),
            valid=jnp.ones(row.shape, bool),
            # Nothing is drawn, so that a record that stands in two rows is the same in both.
            shown=jnp.zeros_like(row),
            label=batch["label"][:, 0],
        )
        key = step_key(batch["seed"], step, stream="mining")
        return self._triplet(features, rows, miner=self._miner, key=key)


def metric_term(settings: MetricSettings, *, kind: QuestionKind, section: str = _SECTION) -> MetricTerm | None:
    """Returns the metric term of some settings, or None if its weight is 0.

    Args:
        settings: Settings of the term.
        kind: Kind of the task.
        section: Name of the settings, for messages.

    Raises:
        ConfigError: A setting is unknown to the kind of task, or the task is multi-label.
    """
    return MetricTerm(settings, kind=kind, section=section) if settings.weight else None
