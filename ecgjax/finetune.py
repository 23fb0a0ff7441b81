"""Training an encoder with labels: the network that pretraining has to beat, and (from a checkpoint) fine-tuning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import Array
from tqdm import tqdm

from data_pipelines.errors import DataError
from data_pipelines.orders import RecordOrder
from data_pipelines.sampling import Sampler
from ecgjax import encoders, optim
from ecgjax.evaluation.metrics import auroc, undefined_reason
from ecgjax.inference import create_split
from ecgjax.leads import prepare
from ecgjax.steps import TrainState, classifier_logits, classifier_loss, init_state, train_step

Read = Callable[[np.ndarray], np.ndarray]

# Leaves of `config.optimizer` that training with labels takes over.
_SHARED = ("warmup_fraction", "final_fraction", "weight_decay", "clip_norm")


class Classifier:
    """A network trained for one binary label.

    Args:
        graph: of the encoder.
        params: `{"encoder": …, "head": …}`.
        stats: `{"encoder": …}`, running statistics of batch norm.
        num_leads: what the encoder takes.
        batch_size: rows a call on the device.
    """

    def __init__(self, graph: Any, params: Any, stats: Any, *, num_leads: int, batch_size: int = 128):
        self.params, self.stats, self.batch_size = params, stats, batch_size
        self._logits = jax.jit(functools.partial(_logits, graph, num_leads))

    def scores(self, signals: np.ndarray) -> np.ndarray:
        """Logits `f32[n]` of recordings `int16[n, time, 8]`, µV."""
        out = []
        for start in range(0, len(signals), self.batch_size):
            part = signals[start : start + self.batch_size]
            padded = np.zeros((self.batch_size, *signals.shape[1:]), np.int16)
            padded[: len(part)] = part
            out.append(np.asarray(self._logits(self.params, self.stats, padded))[: len(part)])
        return np.concatenate(out)


def _logits(graph: Any, num_leads: int, params: Any, stats: Any, signal: Array) -> Array:
    encoder = encoders.Split(graph, params["encoder"], stats["encoder"])
    features, _ = encoders.apply(encoder, prepare(signal, num_leads=num_leads), train=False, features=True)
    return classifier_logits(params["head"], features)


def train_supervised(
    config: ml_collections.ConfigDict,
    *,
    read: Read,
    train_records: np.ndarray,
    train_labels: np.ndarray,
    val_records: np.ndarray,
    val_labels: np.ndarray,
    seed: int,
    progress: bool = True,
) -> Classifier:
    """Trains `config.encoder` from random initialisation with labels alone, selecting the step on validation.

    Cross-entropy, AdamW with warm-up cosine; every `eval_every` steps the validation AUROC is taken, and the step with
    the highest one is returned, never judged on anything but validation.

    Args:
        config: with `encoder`, `optimizer` and `probe.supervised` (`steps, batch_size, learning_rate, eval_every`).
        read: record numbers → `int16[n, time, 8]`.
        train_records: `int64[n]`.
        train_labels: `[n]` of 0 and 1.
        val_records: `int64[m]`.
        val_labels: `[m]` of 0 and 1.
        seed: of initialisation, order and dropout.
        progress: whether to draw a progress bar.

    Raises:
        DataError: validation lacks a class, so that nothing can be selected.
    """
    if reason := undefined_reason(val_labels):
        raise DataError(f"no step can be selected on validation: {reason} there; give it more folds")
    settings = config.probe.supervised
    split = create_split(config, seed=seed)
    feature_dim = split.params["head"]["kernel"].shape[0]
    head = {"kernel": jnp.zeros((feature_dim,), jnp.float32), "bias": jnp.zeros((), jnp.float32)}
    num_leads = config.encoder.num_leads

    # Of the pretraining's optimiser only what suits a network trained from nothing: not what it froze, nor its rates.
    optimizer_config = optim.default_config()
    optimizer_config.update({name: config.optimizer[name] for name in _SHARED})
    optimizer_config.learning_rate = settings.learning_rate
    params = {"encoder": split.params, "head": head}
    optimizer = optim.create(optimizer_config, num_steps=settings.steps, batch_size=settings.batch_size, params=params)
    loss = classifier_loss(split.graph, seed=seed, num_leads=num_leads)
    step = jax.jit(train_step(loss, optimizer), donate_argnums=0)
    state = init_state(params, {"encoder": split.stats}, optimizer)

    # The labelled records are few: they are read once and stay in memory.
    train_signals, val_signals = read(np.sort(train_records)), read(np.sort(val_records))
    train_labels = np.asarray(train_labels, np.float32)[np.argsort(train_records, kind="stable")]
    val_labels = np.asarray(val_labels)[np.argsort(val_records, kind="stable")]
    batch_size = min(settings.batch_size, len(train_records))
    sampler = Sampler(RecordOrder(np.arange(len(train_records)), seed=seed), batch_size=batch_size)
    rows = np.arange(batch_size, dtype=np.int32)

    best_auroc, best = -np.inf, state
    for now in tqdm(range(settings.steps), desc="labels only", unit="step", disable=None if progress else True):
        chosen = sampler.record_numbers(now)
        state, _ = step(state, {"signal": train_signals[chosen], "label": train_labels[chosen], "row": rows})
        if (now + 1) % settings.eval_every == 0 or now + 1 == settings.steps:
            classifier = Classifier(split.graph, state.params, state.stats, num_leads=num_leads)
            if (value := auroc(val_labels, classifier.scores(val_signals))) > best_auroc:
                best_auroc, best = value, _copy(state)
    return Classifier(split.graph, best.params, best.stats, num_leads=num_leads)


def _copy(state: TrainState) -> TrainState:
    # The next step donates, that is destroys, what it is given.
    return jax.tree.map(jnp.copy, state)
