"""What is exported of a model: the function from recordings to embeddings or features, and to answers of a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from ecgjax import encoders
from ecgjax.encoders.operations.portability import portable
from ecgjax.errors import ConfigError
from ecgjax.export.tensors import arrays_of
from ecgjax.finetuning.answering_head import TrainedHead
from ecgjax.leads import prepare

#: Forms of the input → type of its numbers: stored samples of eight leads in µV, or the encoder's own leads in mV.
SIGNALS = {"stored": jnp.dtype("int16"), "millivolts": jnp.dtype("float32")}

#: Layers whose activations can be the output.
LAYERS = ("embedding", "features")

#: Name of the output that holds the answers of a head.
ANSWERS = "answers"

_STORED_LEADS = 8


class FrozenEncoder(Protocol):
    """An encoder that knows its leads and its layer, such as `ecgjax.load_encoder` returns."""

    @property
    def split(self) -> encoders.Split[encoders.Encoder]:
        """The encoder as graph definition, parameters and statistics."""

    @property
    def num_leads(self) -> int:
        """Number of input leads, 12 or 8."""

    @property
    def layer(self) -> str:
        """Layer whose activations are the output, `"embedding"` or `"features"`."""


#: Encoders that can be exported: a module, its parts, or one that knows its leads and layer.
Exportable: TypeAlias = "encoders.Encoder | encoders.Split[encoders.Encoder] | FrozenEncoder"


@dataclasses.dataclass(frozen=True)
class Inference:
    """An encoder's function from recordings to embeddings, and to answers where it has a head.

    Attributes:
        split: Graph definition, parameters and running statistics of the encoder.
        num_leads: Number of leads that the encoder takes.
        num_samples: Number of samples of a recording.
        signals: Form of the input, a key of `SIGNALS`: `"stored"` for `int16[batch, time, 8]` in µV, from which the
            leads are derived, or `"millivolts"` for `f32[batch, time, num_leads]` in mV.
        layer: Layer whose activations are the output, `"embedding"` or `"features"`.
        head: Head that answers a question from the features, whatever the layer of the output; None for none.
    """

    split: encoders.Split[encoders.Encoder]
    num_leads: int
    num_samples: int
    signals: str
    layer: str
    head: TrainedHead | None = None

    def apply(self, params: Any, stats: Any, signals: Array) -> Array:
        """Returns embeddings or features, `f32[batch, ...]`, as a pure function of weights and recordings."""
        ecg = prepare(signals, num_leads=self.num_leads) if self.signals == "stored" else signals
        split = encoders.Split(self.split.graph, params, stats)
        return encoders.apply(split, ecg, train=False, features=self.layer == "features")[0]

    @property
    def weights(self) -> dict[str, Any]:
        """Arrays of the encoder by `"params"` and `"stats"`, and those of a head by `"head"`."""
        head = {} if self.head is None else {"head": arrays_of(self.head.split)}
        return {**arrays_of(self.split), **head}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what `outputs` returns: the layer, and `"answers"` where there is a head."""
        return (self.layer,) if self.head is None else (self.layer, ANSWERS)

    def outputs(self, weights: Mapping[str, Any], signals: Array) -> tuple[Array, ...]:
        """Returns what files give, as a pure function of weights and recordings.

        Returns:
            Embeddings or features, `f32[batch, ...]`, and where there is a head probabilities or values of a quantity,
            `f32[batch, outputs]`.
        """
        if self.head is None:
            return (self.apply(weights["params"], weights["stats"], signals),)
        embeddings, outputs = self.with_head_outputs(weights, signals)
        return embeddings, self.head.about.traced_answers(outputs)

    def with_head_outputs(self, weights: Mapping[str, Any], signals: Array) -> tuple[Array, Array]:
        """Returns embeddings or features, and the outputs of the head as they are, `f32[batch, outputs]`.

        Raises:
            ConfigError: There is no head.
        """
        if self.head is None:
            raise ConfigError("the model has no head, so it has no outputs but the embeddings")
        embeddings = self.apply(weights["params"], weights["stats"], signals)
        features = embeddings
        if self.layer != "features":
            below = dataclasses.replace(self, layer="features")
            features = below.apply(weights["params"], weights["stats"], signals)
        return embeddings, self.head.outputs(weights["head"], features)

    def __call__(self, signals: Array | np.ndarray) -> Array:
        """Returns embeddings or features of recordings, `f32[batch, ...]`, as the training library computes them."""
        return jax.jit(self.apply)(self.split.params, self.split.stats, jnp.asarray(signals))

    def input_spec(self) -> jax.ShapeDtypeStruct:
        """Returns shape and type of the input, whose batch is a symbol."""
        (batch,) = export.symbolic_shape("batch")
        leads = _STORED_LEADS if self.signals == "stored" else self.num_leads
        return jax.ShapeDtypeStruct((batch, self.num_samples, leads), SIGNALS[self.signals])

    def head_outputs(self, signals: Array | np.ndarray) -> Array:
        """Returns the outputs of the head for recordings as they are, `f32[batch, outputs]`; errors as above."""
        return jax.jit(self.with_head_outputs)(self.weights, jnp.asarray(signals))[1]

    def output_spec(self) -> jax.ShapeDtypeStruct:
        """Returns shape and type of the output, whose batch is a symbol."""
        with portable():
            return jax.eval_shape(self.apply, self.split.params, self.split.stats, self.input_spec())


def inference_of(
    encoder: Exportable,
    *,
    num_samples: int,
    num_leads: int | None = None,
    signals: str = "stored",
    layer: str | None = None,
    head: TrainedHead | None = None,
) -> Inference:
    """Returns the function of an encoder that the writers of this folder take.

    Args:
        encoder: Encoder to export.
        num_samples: Number of samples of a recording; a file takes recordings of one length.
        num_leads: Number of leads that the encoder takes; that of an encoder which knows it by default.
        signals: Form of the input, a key of `SIGNALS`.
        layer: Layer whose activations are the output; by default that of an encoder which knows it, else the embedding.
        head: Head that answers a question; None for none.

    Raises:
        ConfigError: The number of leads is not known, there is no such form or layer, the encoder takes no such
            recordings, or the head does not fit it.
    """
    if isinstance(encoder, encoders.Encoder):
        split = encoders.split(encoder)
    else:
        split = encoder if isinstance(encoder, encoders.Split) else encoder.split
        num_leads = getattr(encoder, "num_leads", None) if num_leads is None else num_leads
        layer = getattr(encoder, "layer", None) if layer is None else layer
    layer = "embedding" if layer is None else layer
    if num_leads is None:
        raise ConfigError("num_leads=None: the encoder does not tell how many leads it takes; name them, such as 12")
    if signals not in SIGNALS:
        raise ConfigError(f"signals={signals!r} is unknown; there are: {', '.join(SIGNALS)}")
    if layer not in LAYERS:
        raise ConfigError(f"layer={layer!r} is unknown; there are: {', '.join(LAYERS)}")
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples} must be at least 1")
    if head is not None:
        head.check_fits(encoders.merge(split).feature_dim)
    exported = Inference(split, num_leads, num_samples, signals, layer, head)
    # Of one row: JAX takes a reshape of a batch without a number for possible, also where it is not.
    spec = exported.input_spec()
    row = jax.ShapeDtypeStruct((1, *spec.shape[1:]), spec.dtype)
    try:
        jax.eval_shape(exported.apply, split.params, split.stats, row)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"the encoder takes no recordings of {num_samples} samples and {num_leads} leads: {error}"
        ) from error
    return exported
