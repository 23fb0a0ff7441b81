"""Training with labels: of an encoder at random initialisation or a pretrained one, as a whole or of its head."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from tqdm import tqdm

from data_pipelines.errors import DataError
from data_pipelines.streaming.orders import MixtureOrder, Order, RecordOrder, component_seed
from data_pipelines.streaming.sampler import Sampler
from ecgjax import encoders, optim
from ecgjax.data.labels import ProbeData
from ecgjax.encoders.freezing import freeze
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.features import Read
from ecgjax.evaluation.metrics.calibration import prior_shift
from ecgjax.evaluation.models.fitted import FittedModel
from ecgjax.evaluation.models.kinds import NO_MODEL, QuestionKind
from ecgjax.finetuning import metric_term
from ecgjax.finetuning.looks import Look, Looks
from ecgjax.finetuning.metric_term import MetricTerm
from ecgjax.finetuning.network import Network, predict
from ecgjax.finetuning.supervision import Supervision
from ecgjax.keys import row_keys
from ecgjax.leads import prepare
from ecgjax.optim.parameters import parameters
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.settings.probe import FineTuneSettings
from ecgjax.training.steps import TrainState, Weights, init_state, train_step
from ecgjax.training.tasks.heads import HEADS, LinearHead, TaskHead

POSITIVE_WEIGHTS = ("none", "balanced")
HEAD_STARTS = ("zeros", "probe")
SELECTIONS = ("metric", "loss")

# Leaves of `config.optimizer` that training with labels takes over.
SHARED = ("warmup_fraction", "final_fraction", "weight_decay", "clip_norm")


class FineTuning:
    """Trains encoders of one structure with labels; the training step is compiled once for any number of trainings.

    The optimiser is AdamW with a warm-up and a cosine. Log odds are trained by cross-entropy, quantities by the squared
    error in units of the training labels' variance; with a weight in `metric`, a triplet loss on the features is added
    (`metric_term`). Every `eval_every` steps the state is evaluated on validation, or on `eval_records` of it, and the
    state of the step with the best value is returned. Nothing else is used to choose a step.

    With `head_start="probe"` the head begins at the linear probe of the features that the encoder has before training
    (Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution"). Otherwise
    gradients through a head that is not yet fitted would distort pretrained features before the head has learnt to use
    them. The state that begins at the probe is evaluated too, as step 0.

    Args:
        settings: Settings of the training.
        optimizer: Settings of the pretraining's optimiser, of which warm-up, decay and clipping are taken over.
        encoder: Encoder of the structure that is trained.
        num_leads: Number of input leads of the encoder, 12 or 8.
        kind: Kind of the task.
        classes: Names of the classes where a record has several labels.
        ema_decay: Decay of the moving average of the weights, which looks at validation and predictions then use; None
            for the weights themselves.
        reduce: Type in which gradients are summed over rows and devices, float32 or bfloat16.

    Raises:
        ConfigError: A setting is unknown, or two settings contradict each other.
    """

    def __init__(
        self,
        settings: FineTuneSettings,
        *,
        optimizer: OptimizerSettings,
        encoder: encoders.Split[encoders.Encoder],
        num_leads: int,
        kind: QuestionKind,
        classes: Sequence[str] = (),
        ema_decay: float | None = None,
        reduce: str = "float32",
    ):
        check_settings(settings, kind)
        self._averages = ema_decay is not None
        self._metric = metric_term.metric_term(settings.metric, kind=kind)
        self._settings, self._kind, self._num_outputs = settings, kind, max(1, len(classes))
        self._feature_dim = encoders.merge(encoder).feature_dim
        head = self._head(seed=0)
        params = {"encoder": encoder.params, "head": head.params}
        of_training = _optimizer_settings(settings, optimizer)
        frozen = optim.frozen_parameters(of_training, params)
        #: Whether training leaves the encoder as it is.
        self.encoder_is_frozen = {name for name in parameters(params) if name.startswith("encoder/")} <= frozen
        #: Whether a probe of the encoder's features is where the head begins.
        self.begins_at_probe = settings.head_start == "probe"
        if self._metric and self.encoder_is_frozen:
            raise ConfigError(
                f"training with labels: metric.weight={settings.metric.weight} shapes the encoder's features, all of "
                "whose parameters are frozen; set it to 0, or freeze fewer"
            )
        graph = freeze(encoder, frozen).graph
        self._optimizer = optim.create(
            of_training, num_steps=settings.steps, batch_size=settings.batch_size, params=params
        )
        #: Function from the number of an update, from 0, to the learning rate of the encoder's last layer, for logs.
        self.learning_rate = optim.logged_rate(of_training, settings.steps, batch_size=settings.batch_size)
        network = functools.partial(_network, graph, head.graph, num_leads)
        loss = functools.partial(_loss, network, kind.log_odds, self._metric)
        #: Functions `(params, stats, batch, step, train) → (loss, (stats, metrics))`, from it to that of a step,
        #: `(state, batch) → (state, metrics)`, and `(params, stats, signal) → outputs`; a training over several devices
        #: compiles them for its mesh.
        self.loss = loss
        self.update = functools.partial(
            train_step, optimizer=self._optimizer, frozen=frozen, ema_decay=ema_decay, reduce=reduce
        )
        self.answer = lambda params, stats, signal: network(params, stats, signal, train=False)[0]
        self._step = jax.jit(self.update(self.loss), donate_argnums=0)
        self._outputs = jax.jit(self.answer)

    def train(
        self,
        encoder: encoders.Split[encoders.Encoder],
        data: ProbeData,
        *,
        read: Read,
        seed: int,
        probe: FittedModel | None = None,
        progress: bool = True,
        title: str = "training with labels",
    ) -> Network:
        """Trains an encoder and a new head; the arrays of the given encoder are copied and stay unchanged.

        Args:
            encoder: Encoder at which training begins.
            data: Labelled records of the task; the test records are not used.
            read: Function from record numbers, in any order, to their recordings, `int16[n, time, 8]`.
            seed: Seed of the head's initialisation, the order of records and dropout.
            probe: Linear probe of the encoder's features, fitted on the training records; it is given if and only if
                `begins_at_probe`.
            progress: Whether a progress bar is drawn.
            title: Title of the progress bar.

        Returns:
            The network at the step that is best on validation.

        Raises:
            ValueError: A probe is missing, or is given though the head does not begin at it.
            DataError: Validation has nothing to select by, balanced batches lack a class, or training diverged.
        """
        settings, supervision = self._settings, self.supervision(data, seed=seed)
        state = self.first_state(encoder, supervision, seed=seed, probe=probe)
        train_records, targets = data.train.records, supervision.targets
        row = np.arange(settings.batch_size, dtype=np.int32)
        constant = {"row": row, "seed": np.uint32(seed % 2**32), "positive_weight": supervision.weight}
        # Codes that are equal where the patients are, whatever the patients are called by.
        patient = np.unique(data.train.patients, return_inverse=True)[1].astype(np.int32)
        # The bar is there before the first step, whose compilation can take longer than all others together.
        bar = tqdm(
            total=settings.steps,
            desc=title,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=None if progress else True,
            postfix="compiling",
        )
        val_signals, looks = read(supervision.looked_at), Looks()

        def look(state: TrainState, *, step: int) -> None:
            bar.set_postfix_str("validation")
            outputs = predict(self._outputs, state.evaluated, val_signals)
            looks.see(self.measure(supervision, outputs, step=step), state.evaluated)
            bar.set_postfix_str("" if looks.best is None else f"best {looks.best.metric:.3f}")

        if self.begins_at_probe:
            look(state, step=0)
        sampler = self.sampler(supervision, np.arange(len(targets)), seed=seed)
        for now in range(settings.steps):
            chosen = sampler.record_numbers(now)
            batch = {"signal": read(train_records[chosen]), "label": targets[chosen], **constant}
            if self.needs_patients:
                batch |= {"record": chosen.astype(np.int32), "patient": patient[chosen]}
            state, _ = self._step(state, batch)
            if not bar.disable:
                # Steps are queued and not awaited, so that the bar would run ahead of them.
                jax.block_until_ready(state.step)
                bar.update()
                if now == 0:
                    bar.set_postfix_str("")
            if (now + 1) % settings.eval_every and now + 1 != settings.steps:
                continue
            look(state, step=now + 1)
            if looks.exhausted(settings.patience):
                break
        bar.close()
        best, weights = chosen_look(looks)
        return Network(
            outputs=self._outputs,
            state=weights,
            offset=supervision.offset,
            vector=supervision.vector,
            val_metric=best.metric,
            value=best.value,
            step=best.step,
            selected=self.selected(supervision, step=best.step),
        )

    @property
    def needs_patients(self) -> bool:
        """Whether a batch needs the columns `record` and `patient`."""
        return self._metric is not None

    def supervision(self, data: ProbeData, *, seed: int) -> Supervision:
        """Returns what the labels decide of a training.

        Args:
            data: Labelled records of the task; the test records are not used.
            seed: Seed of the draw of `eval_records` validation records.

        Raises:
            DataError: Validation has nothing to select by.
        """
        looked_at, look_labels = self._looked_at(data.val.records, data.val.labels, seed=seed)
        targets = np.asarray(data.train.labels, np.float32).reshape(len(data.train.records), -1)
        weight, offset = self._prior(targets)
        return Supervision(
            targets=targets,
            weight=weight,
            offset=offset,
            looked_at=looked_at,
            look_labels=look_labels,
            num_validation=len(data.val.records),
            classes=tuple(data.classes),
        )

    def first_state(
        self,
        encoder: encoders.Split[encoders.Encoder],
        supervision: Supervision,
        *,
        seed: int,
        probe: FittedModel | None = None,
    ) -> TrainState:
        """Returns the state before the first step; the arrays of the given encoder are copied.

        Args:
            encoder: Encoder at which training begins.
            supervision: Labels of the training.
            seed: Seed of the head's initialisation.
            probe: Linear probe of the encoder's features, given if and only if `begins_at_probe`.

        Raises:
            ValueError: A probe is missing, or is given though the head does not begin at it.
        """
        if self.begins_at_probe != (probe is not None):
            raise ValueError(f"head_start={self._settings.head_start!r}: a probe is given where the head begins at it")
        head = self._head(seed=seed, targets=supervision.targets)
        if probe is not None:
            head = _at_probe(head, probe, dim=self._feature_dim, offset=supervision.offset)
        return self._state(encoder, head)

    def template(self, encoder: encoders.Split[encoders.Encoder], supervision: Supervision, *, seed: int) -> TrainState:
        """Returns a state of the structure of `first_state`, whose head does not begin at a probe.

        Args:
            encoder: Encoder of the structure that is trained.
            supervision: Labels of the training.
            seed: Seed of the head's initialisation.
        """
        return self._state(encoder, self._head(seed=seed, targets=supervision.targets))

    def head_structure(self, supervision: Supervision) -> encoders.Split[TaskHead | LinearHead]:
        """Returns a head of the training with arrays to be replaced.

        Args:
            supervision: Labels of the training.
        """
        return self._head(seed=0, targets=supervision.targets)

    def _state(
        self, encoder: encoders.Split[encoders.Encoder], head: encoders.Split[TaskHead | LinearHead]
    ) -> TrainState:
        return init_state(
            # The arrays are copied, because a step donates its state and so destroys it.
            jax.tree.map(jnp.array, {"encoder": encoder.params, "head": head.params}),
            jax.tree.map(jnp.array, {"encoder": encoder.stats, "head": head.stats}),
            self._optimizer,
            ema=self._averages,
        )

    def measure(self, supervision: Supervision, outputs: np.ndarray, *, step: int) -> Look:
        """Evaluates outputs for the validation records by which the step is chosen.

        Args:
            supervision: Labels of the training.
            outputs: Outputs of the network for `supervision.looked_at`, `f64[m, outputs]`.
            step: Number of training steps so far.
        """
        scores, labels = supervision.scores(outputs), supervision.look_labels
        if not np.isfinite(scores).all():
            # A state without finite outputs is never the best; an earlier one stays.
            return Look(step, -np.inf, -np.inf, np.inf)
        metric = float(self._kind.value(labels, scores, classes=supervision.classes))
        loss = self._kind.loss(labels, scores)
        return Look(step, metric, metric if self._settings.select == "metric" else -loss, loss)

    def selected(self, supervision: Supervision, *, step: int) -> str:
        """Returns words on a step and on what it was chosen by.

        Args:
            supervision: Labels of the training.
            step: Step that was chosen.
        """
        number, every = len(supervision.looked_at), supervision.num_validation
        by = f"best {self._kind.primary}" if self._settings.select == "metric" else "lowest loss"
        on = f"{number:,} of {every:,}" if number < every else "the"
        return f"step {step:,}, {by} on {on} validation records"

    def _looked_at(self, records: np.ndarray, labels: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the validation records that the step is chosen on, and their labels.

        For a binary task the share of positives is that of all validation records, and there is at least one record of
        each label that exists.

        Args:
            records: Numbers of all validation records, `int64[n]`.
            labels: Labels of these records, `[n]` or `[n, classes]`.
            seed: Seed of the draw of `eval_records` validation records.

        Raises:
            DataError: The labels do not define the primary metric.
        """
        number, rng = self._settings.eval_records, np.random.default_rng(seed)
        if 0 < number < len(records):
            sides = [np.arange(len(records))]
            if self._kind.yes_or_no:
                sides = [np.flatnonzero(labels == label) for label in (0, 1)]
            # Without a record of each label the metric would not be defined.
            shares = [(side, max(1, round(number * len(side) / len(records)))) for side in sides if len(side)]
            chosen = np.sort(np.concatenate([rng.choice(side, share, replace=False) for side, share in shares]))
            records, labels = records[chosen], labels[chosen]
        if reason := self._kind.undefined(labels):
            raise DataError(
                f"no step can be selected on validation: {reason} there; give it more folds, or more eval_records",
                reason=NO_MODEL,
            )
        return records, labels

    def _head(self, *, seed: int, targets: np.ndarray | None = None) -> encoders.Split[TaskHead | LinearHead]:
        about: dict[str, Any] = {"outputs": self._num_outputs, "location": 0.0, "scale": 1.0}
        if not self._kind.log_odds and targets is not None:
            # Targets that are all equal have no spread to divide by.
            about |= {"location": float(targets.mean()), "scale": float(targets.std()) or 1.0}
        if self._settings.head == "linear":
            return encoders.split(LinearHead(self._feature_dim, **about))
        hidden, dropout = self._settings.hidden, self._settings.head_dropout
        rngs = nnx.Rngs(seed)
        return encoders.split(TaskHead(self._feature_dim, hidden=hidden, dropout=dropout, rngs=rngs, **about))

    def _prior(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the loss weight of positives, `f32[outputs]`, and what weights or balanced batches add to log odds.

        The latter is `f64[outputs]`. Both are neutral for a quantity.

        Classes for which the training records lack one label are neither weighted nor balanced.

        Args:
            targets: Labels of the training records, `f32[n, outputs]`.
        """
        settings, weight = self._settings, np.ones(self._num_outputs)
        if not self._kind.log_odds or (settings.positive_weight == "none" and not settings.balance):
            return weight.astype(np.float32), np.zeros(self._num_outputs)
        positives = targets.sum(axis=0, dtype=np.float64)
        negatives = len(targets) - positives
        both = (positives > 0) & (negatives > 0)
        offset = np.zeros(self._num_outputs)
        # Balance and weights both train at a prevalence of one half.
        offset[both] = prior_shift(trained=np.array(0.5), prevalence=positives[both] / len(targets))
        if not settings.balance:
            np.divide(negatives, positives, out=weight, where=both)
        return weight.astype(np.float32), offset

    def sampler(self, supervision: Supervision, numbers: np.ndarray, *, seed: int) -> Sampler:
        """Returns the sampler of the training records.

        Args:
            supervision: Labels of the training.
            numbers: Numbers that the sampler gives the training records, `int64[n]`.
            seed: Seed of the order.

        Raises:
            DataError: Balanced batches lack a class.
        """
        order: Order = RecordOrder(numbers, seed=seed)
        if self._settings.balance:
            parts = [numbers[supervision.targets[:, 0] == label] for label in (0, 1)]
            if not all(map(len, parts)):
                raise DataError(
                    "balanced batches need training records of both labels; raise the label fraction", reason=NO_MODEL
                )
            orders = [RecordOrder(part, seed=component_seed(seed, number)) for number, part in enumerate(parts)]
            order = MixtureOrder(orders, block=self._settings.batch_size, seed=seed)
        return Sampler(order, batch_size=self._settings.batch_size)


def chosen_look(looks: Looks) -> tuple[Look, Weights]:
    """Returns the best look of a finished training, and its weights.

    Args:
        looks: Looks of the training.

    Raises:
        DataError: No look after a step gave a number.
    """
    if not looks.trained or looks.best is None or looks.weights is None:
        raise DataError(
            "training with labels diverged: no look at validation gave a number; lower learning_rate",
            reason=NO_MODEL,
        )
    return looks.best, looks.weights


def _at_probe(
    head: encoders.Split[TaskHead | LinearHead], probe: FittedModel, *, dim: int, offset: np.ndarray
) -> encoders.Split[TaskHead | LinearHead]:
    """Returns a linear head whose outputs are those of a linear probe plus an offset.

    A linear probe is affine in the features, so that its values at the origin and at the unit vectors determine it.

    Args:
        head: Linear head whose parameters are replaced.
        probe: Linear probe on the features.
        dim: Number of features.
        offset: Constant to add to the outputs of the probe.
    """
    values = probe.predict(np.concatenate([np.zeros((1, dim)), np.eye(dim)])).reshape(1 + dim, -1) + offset
    bias, kernel = values[0], values[1:] - values[0]
    location, scale = (float(head.stats[name]) for name in ("location", "scale"))
    params = {"kernel": kernel / scale, "bias": (bias - location) / scale}
    return head._replace(params=jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), params, head.params))


def shared_settings(optimizer: OptimizerSettings) -> dict[str, Any]:
    """Returns the settings of the pretraining's optimiser that a training with labels takes over, by name."""
    return {name: getattr(optimizer, name) for name in SHARED}


def check_settings(settings: FineTuneSettings, kind: QuestionKind, *, section: str = "training with labels") -> None:
    """Raises an error for settings that are unknown, or contradict each other or the task.

    Args:
        settings: Settings of the training.
        kind: Kind of the task.
        section: Section of the config that holds the settings, for messages.

    Raises:
        ConfigError: A setting is unknown or contradicts another one or the task; the message names the leaf.
    """
    choices = {"head": HEADS, "head_start": HEAD_STARTS, "positive_weight": POSITIVE_WEIGHTS, "select": SELECTIONS}
    for leaf, known in choices.items():
        if (value := getattr(settings, leaf)) not in known:
            raise ConfigError(f"{section}: {leaf}={value!r} is unknown; there are: {', '.join(known)}")
    if settings.head_start == "probe" and settings.head != "linear":
        raise ConfigError(f"{section}: head_start='probe' is for head='linear', not for {settings.head!r}")
    if settings.balance and not kind.yes_or_no:
        raise ConfigError(f"{section}: balance=True is for questions with the answer yes or no")
    if settings.balance and settings.positive_weight != "none":
        raise ConfigError(f"{section}: balance and positive_weight both make up for rare positives; give one")
    if not kind.log_odds and settings.positive_weight != "none":
        raise ConfigError(f"{section}: values have no positives for positive_weight")
    metric_term.metric_term(settings.metric, kind=kind, section=section)


def _optimizer_settings(settings: FineTuneSettings, optimizer: OptimizerSettings) -> OptimizerSettings:
    # Only the settings of the pretraining's optimiser that suit any training are taken over, and not its frozen
    # parameters or its rates.
    of_head = settings.head_learning_rate
    own = {name: getattr(settings, name) for name in ("learning_rate", "layer_decay", "frozen")}
    shared = shared_settings(optimizer)
    return OptimizerSettings(**own, **shared, rates=() if of_head is None else (("^head/", of_head),))


def _network(
    graph: nnx.GraphDef[encoders.Encoder],
    head_graph: nnx.GraphDef[TaskHead | LinearHead],
    num_leads: int,
    params: Any,
    stats: Any,
    signal: Array,
    *,
    train: bool,
    keys: Mapping[str, Array | None] | None = None,
) -> tuple[Array, Array, dict[str, Any]]:
    """Applies encoder and head.

    Args:
        graph: Graph definition of the encoder.
        head_graph: Graph definition of the head.
        num_leads: Number of input leads of the encoder.
        params: Parameters by `"encoder"` and `"head"`.
        stats: Statistics by `"encoder"` and `"head"`.
        signal: Recordings in µV, `int16[batch, time, 8]`.
        train: Whether dropout is active and statistics are updated.
        keys: PRNG keys of the rows by `"encoder"` and `"head"`; None for no dropout.

    Returns:
        Outputs, `f32[batch, outputs]`; features, `f32[batch, dim]`; and the statistics after the call.
    """
    keys = keys or {"encoder": None, "head": None}
    encoder = encoders.Split(graph, params["encoder"], stats["encoder"])
    ecg = prepare(signal, num_leads=num_leads)
    features, of_encoder = encoders.apply(encoder, ecg, train=train, keys=keys["encoder"], features=True)
    head = encoders.merge(encoders.Split(head_graph, params["head"], stats["head"]))
    outputs = head(features, train=train, keys=keys["head"])
    return outputs, features, {"encoder": of_encoder, "head": encoders.stats_of(head)}


def _loss(
    network: Callable[..., tuple[Array, Array, Any]],
    log_odds: bool,
    metric: MetricTerm | None,
    params: Any,
    stats: Any,
    batch: Mapping[str, Array],
    step: Array,
    *,
    train: bool,
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
    keys = {
        name: row_keys(batch["seed"], step, batch["row"], stream=stream)
        for name, stream in (("encoder", "dropout"), ("head", "task"))
    }
    outputs, features, after = network(params, stats, batch["signal"], train=train, keys=keys)
    label = batch["label"]
    if not log_odds:
        value = jnp.mean(((outputs - label) / stats["head"]["scale"]) ** 2)
    else:
        weight = jnp.where(label > 0.5, batch["positive_weight"][None, :], jnp.float32(1))
        value = jnp.mean(weight * optax.sigmoid_binary_cross_entropy(outputs, label))
    if metric is None:
        return value, (after, {"loss": value})
    shaping = metric(features, batch, step)
    total = value + metric.weight * shaping.loss
    return total, (after, {"loss": total, "task": value, "metric": shaping.loss, **shaping.stats})
