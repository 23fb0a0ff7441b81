"""An exported model in use: recordings as they come in, embeddings, tokens and answers out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from data_pipelines.records import STORED_LEADS
from data_pipelines.signals.recipe import SignalRecipe
from ecgjax import encoders
from ecgjax.encoders.grid import Grid
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.features import in_batches
from ecgjax.export.inference import Inference, inference_of
from ecgjax.finetuning.answering_head import AnsweringHead, TrainedHead
from ecgjax.leads import prepare
from ecgjax.model.description import Description
from ecgjax.model.preparation import Prepared, prepare_rows
from ecgjax.model.preprocessor import Preprocessor
from ecgjax.model.told import told

#: Numbers of rows of one call on the device. A single recording must not wait for a batch, and every other number
#: would be compiled anew.
_ONE, _MANY = 1, 32


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens of recordings: what an encoder has for each stretch of time, of all leads or of one.

    Attributes:
        values: Tokens, `f32[n, tokens, dim]`.
        times: Centre of what each token sees, in seconds from the first prepared sample, `f32[tokens]`.
        mask: Mask of the tokens that stand for a part of the recording, and not for its padding alone,
            `bool[n, tokens]`.
        leads: Name of the lead that each token sees; None where tokens see all leads.
    """

    values: np.ndarray
    times: np.ndarray
    mask: np.ndarray
    leads: tuple[str, ...] | None


class Model:
    """An exported encoder, and its head where it answers a question, as `ecgjax.load` returns it.

    Args:
        path: Folder that the model was loaded from.
        split: Encoder with its weights.
        head: Head with its weights; None for none.
        description: Statements of the folder about the encoder.
        preprocessor: Preparation of recordings.
    """

    def __init__(
        self,
        path: Path,
        split: encoders.Split[encoders.Encoder],
        *,
        description: Description,
        preprocessor: Preprocessor,
        head: TrainedHead | None = None,
    ):
        self.path, self.split = path, split
        self.description, self.preprocessor = description, preprocessor
        inference = inference_of(
            split,
            num_samples=preprocessor.num_samples,
            num_leads=description.num_leads,
            layer=description.layer,
            head=head,
        )
        self._weights, self.trained_head = inference.weights, head
        # The embedding is computed beside the outputs of a head, so that a model is compiled once for both.
        self._apply = jax.jit(inference.outputs if head is None else functools.partial(_side_by_side, inference))
        self._embedding_shape = inference.output_spec().shape[1:]
        self._tokens = jax.jit(functools.partial(_tokens_of, split.graph, description.num_leads))

    @property
    def recipe(self) -> SignalRecipe:
        """Recipe by which recordings are prepared."""
        return self.preprocessor.recipe

    @property
    def sampling_rate_hz(self) -> int:
        """Samples a second of prepared recordings."""
        return self.recipe.sampling_rate_hz

    @property
    def seconds(self) -> float:
        """Length of prepared recordings."""
        return self.recipe.seconds

    @property
    def num_samples(self) -> int:
        """Number of samples of prepared recordings."""
        return self.preprocessor.num_samples

    @property
    def leads(self) -> tuple[str, ...]:
        """Leads that a recording must have; others follow from them or are passed over."""
        return STORED_LEADS

    @property
    def encoder_leads(self) -> tuple[str, ...]:
        """Leads that the encoder sees, in its order."""
        return self.preprocessor.encoder_leads

    @property
    def dimension(self) -> int:
        """Number of numbers of an embedding."""
        return self.description.dimension

    @property
    def layer(self) -> str:
        """Layer whose activations are the embedding, `"embedding"` or `"features"`."""
        return self.description.layer

    @property
    def head(self) -> AnsweringHead | None:
        """Question that the model answers, and how outputs become answers; None where it answers none."""
        return None if self.trained_head is None else self.trained_head.about

    @property
    def question(self) -> str | None:
        """Question that the model answers in one line, such as `"lvef<40"`; None where it answers none."""
        return None if self.head is None else self.head.question

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that `predict` has a column for; empty where a recording has one answer, or none."""
        return () if self.head is None else self.head.classes

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """Probability from which on each answer is yes; None where there is none, and empty without a head."""
        return () if self.head is None else tuple(output.threshold for output in self.head.outputs)

    @property
    def weights_digest(self) -> str:
        """Hex digest of the weights."""
        return self.description.weights_digest

    @property
    def training(self) -> Mapping[str, Any]:
        """What the folder says of the training."""
        return self.description.training

    def check_prepares(self) -> None:
        """Checks that recordings as they come can be prepared as the training data were.

        Raises:
            ConfigError: The training data had been prepared before, by another recipe.
        """
        if self.preprocessor.earlier:
            raise ConfigError(
                f"{self.path}: was trained on recordings that had been prepared before, by the recipe "
                f"{self.preprocessor.earlier}, which is not done again here; prepare a data set in both steps, and "
                "embed its records"
            )

    def prepare(
        self, x: ArrayLike, *, rate_hz: float | None = None, unit: str | None = None, leads: Sequence[str] | None = None
    ) -> Prepared:
        """Prepares recordings as the training data were prepared; arguments and errors are those of `embed`."""
        self.check_prepares()
        return prepare_rows(x, rate_hz=rate_hz, unit=unit, leads=leads, recipe=self.recipe)

    def embed(
        self, x: ArrayLike, *, rate_hz: float | None = None, unit: str | None = None, leads: Sequence[str] | None = None
    ) -> np.ndarray:
        """Embeds recordings of one rate, unit and length.

        Args:
            x: Samples, `[n, time, lead]`, integers or floats.
            rate_hz: Samples a second of each lead.
            unit: Unit of the samples: `"mV"`, `"uV"`, `"nV"` or `"V"`.
            leads: Names of the leads, in the order of the last axis and in any usual spelling. All of `Model.leads`
                must be among them; others than the twelve standard leads are passed over.

        Returns:
            Embeddings, `f32[n, dimension]`, or `f32[n, groups, dimension]` of an encoder with one for each lead. Those
            of a single recording and of several are computed by two programs, which may round differently.

        Raises:
            ConfigError: What is said of the samples is missing, contradicts their shape, or is not possible.
            DataError: A recording is no plausible ECG, of a wrong unit for example; the message names its row.
        """
        return self.embed_prepared(self.prepare(x, rate_hz=rate_hz, unit=unit, leads=leads).signals)

    def tokens(
        self, x: ArrayLike, *, rate_hz: float | None = None, unit: str | None = None, leads: Sequence[str] | None = None
    ) -> Tokens:
        """Returns the tokens of recordings; arguments and errors are those of `embed`."""
        return self.tokens_of_prepared(self.prepare(x, rate_hz=rate_hz, unit=unit, leads=leads))

    def predict(
        self, x: ArrayLike, *, rate_hz: float | None = None, unit: str | None = None, leads: Sequence[str] | None = None
    ) -> np.ndarray:
        """Answers the question that a model was trained for; arguments are those of `embed`.

        Returns:
            Probabilities of a yes after calibration, or values in `head.unit`: `f64[n]`, or `f64[n, classes]` where
            there are `classes`.

        Raises:
            ConfigError: The model has no head that answers a question, or as in `embed`.
            DataError: As in `embed`.
        """
        self._answering()
        return self.predict_prepared(self.prepare(x, rate_hz=rate_hz, unit=unit, leads=leads).signals)

    def decide(
        self, x: ArrayLike, *, rate_hz: float | None = None, unit: str | None = None, leads: Sequence[str] | None = None
    ) -> np.ndarray:
        """Says yes where the probability reaches the model's threshold; arguments are those of `embed`.

        The thresholds suit the records that they were chosen on (`head.chosen_on`); of probabilities at hand,
        `head.decisions` says the same.

        Returns:
            Decisions, `bool[n]`, or `bool[n, classes]` where there are `classes`.

        Raises:
            ConfigError: The model has no head, answers by a value, or lacks a threshold; or as in `embed`.
            DataError: As in `embed`.
        """
        head = self._answering()
        # Whether there are thresholds is known before anything is computed.
        head.check_decides()
        return head.decisions(self.predict(x, rate_hz=rate_hz, unit=unit, leads=leads))

    def predict_prepared(self, signals: np.ndarray) -> np.ndarray:
        """Answers for recordings that are prepared, `int16[n, time, 8]` in µV; result and errors are as of `predict`.

        Raises:
            ConfigError: The model has no head, or the signals are of another type or shape.
        """
        return self._answering().answers(self.embed_with_outputs(signals)[1])

    def _answering(self) -> AnsweringHead:
        if self.head is None:
            raise ConfigError(
                f"{self.path}: has no head, so it answers no question; fit a model of your own on what embed returns"
            )
        return self.head

    def embed_prepared(self, signals: np.ndarray) -> np.ndarray:
        """Embeds recordings that are prepared, such as records of a data set of the same recipe.

        Args:
            signals: Samples in µV of the eight stored leads, `int16[n, time, 8]`.

        Returns:
            Embeddings, `f32[n, dimension]`, as `embed` returns them.

        Raises:
            ConfigError: The signals are of another type or shape.
        """
        if self.head is not None:
            return self.embed_with_outputs(signals)[0]
        return _by_batches(lambda batch: self._apply(self._weights, batch)[0], self._own(signals))

    def embed_with_outputs(self, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings, and the outputs of the head as they are, of which `head.answers` makes answers.

        Args:
            signals: Samples in µV of the eight stored leads, `int16[n, time, 8]`.

        Returns:
            Embeddings, as `embed` returns them, and outputs, `f32[n, outputs]`.

        Raises:
            ConfigError: The model has no head, or the signals are of another type or shape.
        """
        number = len(self._answering().outputs)
        both = _by_batches(lambda batch: self._apply(self._weights, batch), self._own(signals))
        embeddings, outputs = both[:, :-number], both[:, -number:]
        # Some encoders have an embedding for each lead.
        return embeddings.reshape(len(both), *self._embedding_shape), np.ascontiguousarray(outputs)

    def tokens_of_prepared(self, prepared: Prepared) -> Tokens:
        """Returns the tokens of recordings that are prepared.

        Raises:
            ConfigError: The signals are of another type or shape.
        """
        signals = self._own(prepared.signals)
        values = _by_batches(lambda batch: self._tokens(self.split.params, self.split.stats, batch), signals)
        return Tokens(
            values=values,
            times=self.token_times,
            mask=self._grid.recorded(prepared.valid_start, prepared.valid_samples),
            leads=self.token_leads,
        )

    @property
    def token_times(self) -> np.ndarray:
        """Centre of what each token sees, in seconds from the first prepared sample, `f32[tokens]`."""
        return self._grid.times(rate_hz=self.sampling_rate_hz)

    @property
    def token_leads(self) -> tuple[str, ...] | None:
        """Name of the lead that each token sees; None where tokens see all leads."""
        numbers = self._grid.lead_of_places()
        return None if numbers is None else tuple(self.encoder_leads[number] for number in numbers)

    @functools.cached_property
    def _grid(self) -> Grid:
        return encoders.merge(self.split).grids(self.num_samples)[-1]

    def _own(self, signals: np.ndarray) -> np.ndarray:
        expected = (self.num_samples, len(STORED_LEADS))
        if signals.dtype != np.int16 or signals.ndim != 3 or signals.shape[1:] != expected:
            raise ConfigError(
                f"signals are {signals.dtype}{list(signals.shape)}, and prepared ones int16[n, {expected[0]}, "
                f"{expected[1]}] in µV; embed prepares recordings of any other form"
            )
        return signals

    def __repr__(self) -> str:
        """Returns what the encoder is, what it was trained on, and what it takes."""
        return told(self.path, self.description, self.preprocessor)


def _side_by_side(inference: Inference, weights: Mapping[str, Any], signals: Array) -> Array:
    """Returns embeddings and the outputs of the head in one array, `f32[batch, numbers of both]`."""
    embeddings, outputs = inference.with_head_outputs(weights, signals)
    return jnp.concatenate([embeddings.reshape(len(embeddings), -1), outputs], axis=1)


def _by_batches(function: Callable[[np.ndarray], Array], signals: np.ndarray) -> np.ndarray:
    """Applies a compiled function to recordings, in batches of one or of many."""
    return in_batches(function, signals, size=_ONE if len(signals) == 1 else _MANY)


def _tokens_of(graph: Any, num_leads: int, params: Any, stats: Any, signals: Array) -> Array:
    module = encoders.merge(encoders.Split(graph, params, stats))
    return module.tokens(prepare(signals, num_leads=num_leads), train=False)
