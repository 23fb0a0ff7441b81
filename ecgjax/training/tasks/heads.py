"""Heads that predict a label from embeddings or features, and the supervised task of a pretraining."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ecgjax import encoders
from ecgjax.data.settings import TASK_COLUMNS
from ecgjax.encoders.operations import layers
from ecgjax.errors import ConfigError, chosen
from ecgjax.objectives.losses.label_prediction import TASKS
from ecgjax.objectives.pairs.outputs import LossOutput
from ecgjax.training.tasks.task_settings import TaskSettings


class TaskHead(nnx.Module):
    """A head of two linear layers, with BN, ReLU and dropout between them.

    Args:
        dim: Dimension of the embedding.
        hidden: Width between the two linear layers.
        dropout: Share of the activations that dropout sets to zero.
        outputs: Number of outputs of each row.
        location: Number that is added to the scaled outputs, the mean of a regression's labels, so that training need
            not first find the unit; or one for each output, `f32[outputs]`. It is kept with the running statistics.
        scale: Factor of the outputs, the standard deviation of a regression's labels, or one for each output. It is
            kept with the running statistics.
        rngs: Random numbers of the initialisation.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        dropout: float,
        outputs: int = 1,
        location: float | np.ndarray = 0.0,
        scale: float | np.ndarray = 1.0,
        rngs: nnx.Rngs,
    ):
        # Batch norm subtracts the mean, and any bias with it.
        self.inner = nnx.Linear(dim, hidden, use_bias=False, param_dtype=layers.PARAM_DTYPE, rngs=rngs)
        self.norm = layers.BatchNorm(hidden, dtype=jnp.float32)
        self.outer = nnx.Linear(hidden, outputs, param_dtype=layers.PARAM_DTYPE, rngs=rngs)
        self.location = nnx.BatchStat(jnp.float32(location))
        self.scale = nnx.BatchStat(jnp.float32(scale))
        self.dropout = dropout

    def __call__(
        self, embeddings: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None
    ) -> Array:
        """Returns the predictions.

        Args:
            embeddings: Embeddings, `f32[rows, dim]`.
            train: Whether the batch's statistics are used and the running ones updated, instead of using the running
                ones.
            keys: Random key of each row for dropout, `key[rows]`; None switches dropout off.
            valid: Mask of the rows that make up the batch's statistics, `bool[rows]`; None for all.

        Returns:
            Logits, or values in the label's unit, `f32[rows, outputs]`.
        """
        # Batch norm is the encoders', which takes `[batch, time, channel]`: the embedding is one sample of time.
        x = self.norm(self.inner(embeddings)[:, None, :], train=train, valid=valid)[:, 0]
        x = layers.row_dropout(jax.nn.relu(x), keys, self.dropout)
        return self.outer(x) * jnp.atleast_2d(self.scale[...]) + jnp.atleast_2d(self.location[...])


class LinearHead(nnx.Module):
    """A linear layer whose weights start at 0, so that random weights do not disturb the encoder's features.

    Args:
        dim: Dimension of the features.
        outputs: Number of outputs of each row.
        location: Number that is added to the scaled outputs, the mean of a quantity's labels.
        scale: Factor of the outputs, the standard deviation of a quantity's labels.
    """

    def __init__(self, dim: int, *, outputs: int, location: float = 0.0, scale: float = 1.0):
        self.kernel = nnx.Param(jnp.zeros((dim, outputs), layers.PARAM_DTYPE))
        self.bias = nnx.Param(jnp.zeros((outputs,), layers.PARAM_DTYPE))
        self.location = nnx.BatchStat(jnp.float32(location))
        self.scale = nnx.BatchStat(jnp.float32(scale))

    def __call__(self, features: Array, *, train: bool, keys: Array | None = None) -> Array:
        """Returns the predictions; arguments and result are those of `TaskHead`, and training makes no difference."""
        del train, keys
        out = jnp.matmul(features, self.kernel[...]) + self.bias[...][None, :]
        return out * self.scale[...] + self.location[...]


#: Structures of heads that training with labels gives an encoder, by name.
HEADS: Mapping[str, type[nnx.Module]] = {"linear": LinearHead, "mlp": TaskHead}


def make_head(
    settings: TaskSettings,
    *,
    dim: int,
    outputs: int = 1,
    location: float | np.ndarray,
    scale: float | np.ndarray,
    seed: int,
) -> encoders.Split[TaskHead]:
    """Returns the head of a task at initialisation.

    Args:
        settings: Settings of the task.
        dim: Dimension of what the head reads.
        outputs: Number of outputs of each row.
        location: Location of the targets, as `TaskHead` takes it.
        scale: Scale of the targets, as `TaskHead` takes it.
        seed: Seed of the initialisation.
    """
    head = TaskHead(
        dim,
        hidden=settings.hidden,
        dropout=settings.dropout,
        outputs=outputs,
        location=location,
        scale=scale,
        rngs=nnx.Rngs(seed),
    )
    return encoders.split(head)


class SupervisedTask:
    """The task that a config names, with its head and loss.

    Args:
        settings: Settings of the task, of which `name` is a key of `TASKS`.
        dim: Dimension of what the head reads.
        labels: Labels of the training records, `f32[n]`; NaN where unknown.
        seed: Seed of the head's initialisation.

    Attributes:
        settings: Settings of the task.
        column: Name of the column that holds the targets.
        head: Head at initialisation.

    Raises:
        ConfigError: The task is unknown, the labels have fewer than two values, or labels of a binary task are not 0
            and 1.
    """

    def __init__(self, settings: TaskSettings, *, dim: int, labels: np.ndarray, seed: int):
        self._loss = chosen(TASKS, settings.name, setting="config.task.name")
        self.settings, self.column = settings, TASK_COLUMNS[settings.name]
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
        location, scale = (0.0, 1.0) if binary else (known.mean(), known.std())
        self.head = make_head(settings, dim=dim, location=location, scale=scale, seed=seed)

    def __call__(
        self,
        params: encoders.Arrays,
        stats: encoders.Arrays,
        inputs: Array,
        targets: Array,
        *,
        valid: Array,
        train: bool,
        keys: Array | None,
    ) -> tuple[LossOutput, encoders.Arrays]:
        """Evaluates the task's loss.

        Args:
            params: Parameters of the head.
            stats: Running statistics of the head.
            inputs: Embeddings or features, `f32[rows, dim]`.
            targets: Labels, `f32[rows]`; NaN where unknown.
            valid: Mask of the rows that predict and hold a recording, `bool[rows]`; the others do not count.
            train: Whether the batch's statistics are used and the running ones updated, instead of using the running
                ones.
            keys: Random key of each row for dropout, `key[rows]`; None switches dropout off.

        Returns:
            The loss, and the running statistics after it.
        """
        head = encoders.merge(self.head._replace(params=params, stats=stats))
        predictions = head(inputs, train=train, keys=keys, valid=valid)[:, 0]
        return self._loss(predictions, targets, valid=valid), encoders.stats_of(head)
