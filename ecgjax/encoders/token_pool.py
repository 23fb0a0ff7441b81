"""Pooling of an encoder's tokens to the features of a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array


def _mean(tokens: Array, token_mask: Array | None) -> Array:
    if token_mask is None:
        return jnp.mean(tokens, axis=1)
    number = jnp.maximum(jnp.sum(token_mask, axis=1, keepdims=True), 1)
    return jnp.sum(_silenced(tokens, token_mask), axis=1) / number.astype(tokens.dtype)


def _max_and_mean(tokens: Array, token_mask: Array | None) -> Array:
    among = tokens if token_mask is None else jnp.where(token_mask[:, :, None], tokens, -jnp.inf)
    # `tokens.max(1)` is not used: its gradient looks for the maximum among values that XLA may compute once more. Where
    # a last bit differs it finds none, and divides by their number, 0 (seen on a CPU).
    largest = jnp.take_along_axis(tokens, jnp.argmax(among, axis=1, keepdims=True), axis=1)[:, 0]
    return jnp.concatenate([largest, _mean(tokens, token_mask)], axis=-1)


def _mean_and_deviation(tokens: Array, token_mask: Array | None) -> Array:
    mean = _mean(tokens, token_mask)
    # The mean is subtracted first: in float32 a difference of squares would lose small deviations.
    apart = tokens if token_mask is None else jnp.where(token_mask[:, :, None], tokens, mean[:, None])
    apart = apart - mean[:, None]
    variance = _mean(apart * apart, token_mask)
    # At 0, where a channel is silent, a square root has an infinite slope, which times 0 is no number.
    varies = variance > 0
    deviation = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)
    return jnp.concatenate([mean, deviation], axis=-1)


def _flatten(tokens: Array, token_mask: Array | None) -> Array:
    tokens = tokens if token_mask is None else _silenced(tokens, token_mask)
    return tokens.reshape(tokens.shape[0], tokens.shape[1] * tokens.shape[2])


def _silenced(tokens: Array, token_mask: Array) -> Array:
    return jnp.where(token_mask[:, :, None], tokens, jnp.zeros((), tokens.dtype))


_POOLS: Mapping[str, Callable[[Array, Array | None], Array]] = {
    "mean": _mean,
    "max and mean": _max_and_mean,
    "mean and deviation": _mean_and_deviation,
    "flatten": _flatten,
}


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling of tokens over time and leads; `str(pool)` describes it in words.

    Attributes:
        name: Name of the pool over time: `mean`; `max and mean` or `mean and deviation`, side by side; or
            `flatten`, all tokens side by side.
        leads: Number of leads whose tokens follow each other, which are pooled one by one and then averaged; 1 where
            tokens see all leads.
    """

    name: str
    leads: int = 1

    def __call__(self, tokens: Array, token_mask: Array | None = None) -> Array:
        """Returns features.

        Args:
            tokens: Tokens, `f32[batch, tokens, dim]`, as `Encoder.tokens` returns them.
            token_mask: Mask of the tokens that count, `bool[batch, tokens]`; None for all. `flatten` puts zeros in the
                place of the others. The mean of no token is 0.

        Returns:
            Features, `f32[batch, feature_dim]`.
        """
        if self.leads == 1:
            return _POOLS[self.name](tokens, token_mask)
        batch, places, dim = tokens.shape[0] * self.leads, tokens.shape[1] // self.leads, tokens.shape[2]
        of_leads = _POOLS[self.name](
            tokens.reshape(batch, places, dim), None if token_mask is None else token_mask.reshape(batch, places)
        )
        return self.over_leads(of_leads)

    def over_leads(self, of_leads: Array) -> Array:
        """Returns the mean over the leads, `f32[batch · leads, feature]` → `f32[batch, feature]`."""
        return jnp.mean(of_leads.reshape(-1, self.leads, of_leads.shape[1]), axis=1)

    def __str__(self) -> str:
        return self.name if self.leads == 1 else f"mean over leads of {self.name}"
