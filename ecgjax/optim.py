"""Optimisers and schedules, from a config."""

from __future__ import annotations

import jax
import ml_collections
import optax


def learning_rate(config: ml_collections.ConfigDict, num_steps: int) -> optax.Schedule:
    """Linear warm-up from 0 over `warmup_fraction` of the run, then a cosine down to `final_fraction` of the peak.

    Args:
        config: `config.optimizer`.
        num_steps: of the whole run.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        # At least one step of each, whatever the fraction: optax refuses a cosine of none.
        warmup_steps=min(max(1, round(config.warmup_fraction * num_steps)), max(1, num_steps - 1)),
        decay_steps=max(2, num_steps),
        end_value=config.final_fraction * config.learning_rate,
    )


def create(config: ml_collections.ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with warm-up cosine, after clipping by the global norm where asked for.

    Weight decay acts on convolution and linear kernels only: on the scale of a normalisation it would merely change
    the learning rate.

    Args:
        config: `config.optimizer` with `learning_rate, warmup_fraction, final_fraction, b1, b2, eps, weight_decay,
            clip_norm` (None for no clipping).
        num_steps: of the whole run.
    """
    adamw = optax.adamw(
        learning_rate(config, num_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )
    return adamw if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
