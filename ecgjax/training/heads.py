"""A head on the embedding that predicts a label while the metric loss shapes the embedding (Jeong et al. 2023)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ecgjax import encoders
from ecgjax.encoders import layers
from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.label_prediction import TASKS
from ecgjax.objectives.pairs.outputs import LossOutput
from ecgjax.objectives.pairs.relations import Rows
from ecgjax.training.settings import TaskSettings


class TaskHead(nnx.Module):
    """Linear-BN-ReLU-dropout-linear.

    Args:
        dim: of the embedding.
        hidden: width between.
        dropout: share dropped.
        outputs: numbers a row.
        location: added to what comes out, times `scale`: mean and standard deviation of a regression's labels, so that
            training need not first find the unit. They are kept with the running statistics.
        scale: see `location`.
        rngs: of the initialisation.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        dropout: float,
        outputs: int = 1,
        location: float = 0.0,
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.inner = nnx.Linear(dim, hidden, use_bias=False, param_dtype=layers.PARAM_DTYPE, rngs=rngs)
        self.norm = layers.BatchNorm(hidden, dtype=jnp.float32)
        self.outer = nnx.Linear(hidden, outputs, param_dtype=layers.PARAM_DTYPE, rngs=rngs)
        self.location = nnx.BatchStat(jnp.float32(location))
        self.scale = nnx.BatchStat(jnp.float32(scale))
        self.dropout = dropout

    def __call__(
        self, embeddings: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> Array:
        """Predicts.

        Args:
            embeddings: `f32[rows, dim]`.
            train: normalise by the batch.
            keys: `key[rows]` for dropout; None switches it off.
            valid: `bool[rows]`, rows that make up the batch's statistics; None for all.

        Returns:
            `f32[rows, outputs]`: logits, or values in the label's unit.
        """
        x = self.norm(self.inner(embeddings)[:, None, :], train=train, valid=valid)[:, 0]
        x = layers.row_dropout(jax.nn.relu(x), keys, self.dropout)
        return self.outer(x) * self.scale[...] + self.location[...]


class LinearHead(nnx.Module):
    """A linear layer, 0 until it is given weights: so that training begins at the encoder's features, not at chance.

    Args:
        dim: of the features.
        outputs: numbers a row.
        location: as of `TaskHead`.
        scale: likewise.
    """

    def __init__(self, dim: int, *, outputs: int, location: float = 0.0, scale: float = 1.0):
        self.kernel = nnx.Param(jnp.zeros((dim, outputs), layers.PARAM_DTYPE))
        self.bias = nnx.Param(jnp.zeros((outputs,), layers.PARAM_DTYPE))
        self.location = nnx.BatchStat(jnp.float32(location))
        self.scale = nnx.BatchStat(jnp.float32(scale))

    def __call__(self, features: Array, *, train: bool, keys: Array | None = None) -> Array:
        """Predicts; arguments and result as of `TaskHead`, with nothing that differs in training."""
        del train, keys
        out = jnp.matmul(features, self.kernel[...]) + self.bias[...][None, :]
        return out * self.scale[...] + self.location[...]


class SupervisedTask:
    """The task of a config, and its head.

    Args:
        settings: Settings of the task, of which `name` is a key of `TASKS`.
        embedding_dim: of the encoder.
        labels: of training records, `f32[n]`, NaN where unknown.
        seed: of the head's initialisation.

    Raises:
        ConfigError: an unknown task, too few labels, or labels of a binary task that are not 0 and 1.
    """

    def __init__(self, settings: TaskSettings, *, embedding_dim: int, labels: np.ndarray, seed: int):
        if settings.name not in TASKS:
            raise ConfigError(f"config.task.name={settings.name!r} is unknown; there are: {', '.join(TASKS)}")
        known = labels[np.isfinite(labels)].astype(np.float64)
        if len(np.unique(known)) < 2:
            raise ConfigError(
                f"config.task.name={settings.name!r}: the {len(known)} labelled training records hold fewer than two "
                "different labels; see config.columns.task"
            )
        binary = settings.name == "binary"
        if binary and not np.isin(known, (0, 1)).all():
            raise ConfigError(
                "config.task.name='binary' needs labels 0 and 1: ask a yes or no in config.columns.task, such as "
                "'lvef<40'"
            )
        self.weight = settings.weight
        self._loss = TASKS[settings.name]
        location, scale = (0.0, 1.0) if binary else (known.mean(), known.std())
        head = TaskHead(
            embedding_dim,
            hidden=settings.hidden,
            dropout=settings.dropout,
            location=location,
            scale=scale,
            rngs=nnx.Rngs(seed),
        )
        self.head = encoders.split(head)

    def __call__(
        self,
        params: encoders.Arrays,
        stats: encoders.Arrays,
        embeddings: Array,
        rows: Rows,
        *,
        train: bool,
        keys: Array | None,
    ) -> tuple[LossOutput, encoders.Arrays]:
        """Evaluates the task's loss.

        Args:
            params: of the head.
            stats: of the head.
            embeddings: `f32[rows, dim]`.
            rows: their metadata, with `label`.
            train: normalise by the batch, and move the running statistics.
            keys: `key[rows]` for dropout; None switches it off.

        Returns:
            The loss, and the statistics after it.
        """
        head = encoders.merge(self.head._replace(params=params, stats=stats))
        predictions = head(embeddings, train=train, keys=keys, valid=rows.valid)[:, 0]
        return self._loss(predictions, rows.label, valid=rows.valid), encoders.stats_of(head)
