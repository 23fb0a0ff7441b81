"""The second objective of a run: a loss of its own on the encoder's features, read through a head of its own.

The first objective shapes the embedding, the second what its head makes of the pooled features; they meet in the
encoder alone, whose gradient is the sum of both.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ecgjax.encoders.operations import layers
from ecgjax.errors import ConfigError
from ecgjax.keys import step_key
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.outputs import LossOutput
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.settings.sections import flat, tree_of
from ecgjax.training.embedding_rows import Layout, check_positives, embedding_rows, spread
from ecgjax.training.settings import ProjectionSettings, SecondSettings
from ecgjax.training.signal_columns import SignalNeighbours

#: Parameters of the second objective by part: those of the head, and what the loss itself learns.
Params = Mapping[str, Any]


class SecondObjective:
    """The second objective, with its head.

    Args:
        settings: Settings of loss, relation, miner and head, of which the loss has a name.
        features: Number of features of the encoder.
        layout: Rows of the features of a recording, one for each signal.
        tiling: Split of the pairs into tiles and over devices, which does not change the result.
        partners: Dimension of the partners' embeddings, for a loss that compares ECGs with another modality; None
            where there are none.
        neighbours: Search for neighbours in signal space, where relation or miner use them.

    Attributes:
        weight: Weight of the loss beside others, `config.second.objective.weight`.

    Raises:
        ConfigError: `Objective` refuses the settings.
    """

    def __init__(
        self,
        settings: SecondSettings,
        *,
        features: int,
        layout: Layout,
        tiling: Tiling,
        partners: int | None = None,
        neighbours: SignalNeighbours | None = None,
    ):
        self._head, self._features, self._layout, self._neighbours = settings.head, features, layout, neighbours
        projected = None if partners is None else (partners, settings.head.dim)
        with leaves_of_second():
            self._objective = Objective(
                settings.objective,
                settings.relation,
                settings.miner,
                tiling=tiling,
                num_views=layout.rows,
                projected=projected,
            )
        self.weight = self._objective.weight

    def init(self, *, seed: int) -> dict[str, Any]:
        """Returns the first values of the parameters, under `head` and `objective`.

        Args:
            seed: Seed of the run.
        """
        head = _first_head(step_key(seed, 0, stream="second_head"), self._features, self._head)
        return {"head": head, "objective": self._objective.init(seed=seed, stream="second_projection")}

    def __call__(
        self, params: Params, features: Array, batch: Mapping[str, Array], *, signal: Array, seed: Array, step: Array
    ) -> LossOutput:
        """Evaluates the loss of the global batch.

        Args:
            params: Parameters, as `init` returned them or after some training.
            features: Features of the signals, `f32[batch · signals, features]`.
            batch: Columns of the batch, as `embedding_rows` takes them.
            signal: Recordings of the batch, `int16[batch, time, 8]`, in µV.
            seed: Seed of the run, `u32[]`.
            step: Number of the step, from 0, `i32[]`.
        """
        rows = embedding_rows(batch, self._layout)
        if self._neighbours is not None:
            recordings = embedding_rows(batch, Layout(views=1))
            rows = rows._replace(**self._neighbours(signal, recordings, num_views=self._layout.rows))
        with leaves_of_second():
            return self._objective(
                params["objective"],
                project(params["head"], features),
                rows,
                key=step_key(seed, step, stream="second_mining"),
                step=step,
                paired=spread(batch["paired"], self._layout) if "paired" in batch else None,
            )


def project(head: Params, features: Array) -> Array:
    """Applies the head: linear, or with a hidden layer and ReLU (Chen et al. 2020); `[rows, features]` → `[rows, dim]`.

    Args:
        head: Parameters of the layers, `kernel` and `bias` each, under `outer` and, with a hidden layer, `inner`.
        features: Features, `f32[rows, features]`.
    """
    if "inner" in head:
        features = jax.nn.relu(_linear(head["inner"], features))
    return _linear(head["outer"], features)


def _linear(layer: Params, inputs: Array) -> Array:
    # The head computes in float32, whatever the encoder's type.
    return jnp.matmul(inputs.astype(layers.PARAM_DTYPE), layer["kernel"]) + layer["bias"][None, :]


def _first_head(key: Array, features: int, settings: ProjectionSettings) -> dict[str, Any]:
    sizes = {"outer": (features, settings.dim)}
    if settings.hidden is not None:
        sizes = {"inner": (features, settings.hidden), "outer": (settings.hidden, settings.dim)}
    # Kernels and biases begin as those of the encoders' own last layers do.
    draw = jax.nn.initializers.lecun_normal()
    return {
        name: {
            "kernel": draw(jax.random.fold_in(key, number), shape, layers.PARAM_DTYPE),
            "bias": jnp.zeros(shape[1:], layers.PARAM_DTYPE),
        }
        for number, (name, shape) in enumerate(sizes.items())
    }


@contextlib.contextmanager
def leaves_of_second() -> Iterator[None]:
    """Names the second objective's leaves in errors of the block; losses and relations know those of the first."""
    try:
        yield
    except ConfigError as error:
        second = re.sub(r"\bconfig\.(?=(objective|relation|miner)\b)", "config.second.", str(error))
        raise ConfigError(second) from error


def rows_of_features(layout: Layout) -> Layout:
    """Returns the layout of a recording's features, which are one row a signal whatever the encoder embeds apart."""
    return layout._replace(lead_groups=1)


def check_second(settings: SecondSettings, layout: Layout, *, decoder: bool) -> None:
    """Raises an error where settings of the second objective do not fit each other, the views or the encoder.

    Args:
        settings: Settings of the second objective.
        layout: Rows of embeddings that a recording becomes.
        decoder: Whether the encoder has a decoder.

    Raises:
        ConfigError: A setting is given without the loss's name, the encoder's decoder takes the place of the features,
            or the relation finds no positive.
    """
    if settings.objective.name is None:
        _refuse_without_name(settings)
        return
    name = f"config.second.objective.name={settings.objective.name!r}"
    if decoder:
        raise ConfigError(
            f"{name} reads features, which is not possible with config.encoder.decoder=True, which hands on embeddings "
            "and signals; set config.second.objective.name=None, or take an encoder without a decoder"
        )
    try:
        with leaves_of_second():
            check_positives(settings, rows_of_features(layout))
    except ConfigError as error:
        if layout.lead_groups == 1:
            raise
        raise ConfigError(
            f"{error}; features have one row for all {layout.lead_groups} groups, so that a relation of leads is for "
            "config.relation alone"
        ) from error


def _refuse_without_name(settings: SecondSettings) -> None:
    defaults = flat(tree_of(SecondSettings()))
    given = {leaf: value for leaf, value in flat(tree_of(settings)).items() if value != defaults[leaf]}
    if given:
        leaf, value = next(iter(given.items()))
        raise ConfigError(
            f"config.second.{leaf}={value!r} has no effect without a second loss: name one in "
            f"config.second.objective.name, or give --config.second.{leaf}={defaults[leaf]!r}"
        )
