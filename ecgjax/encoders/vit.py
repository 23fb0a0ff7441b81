"""Vision transformer over time, the encoder of Weimann & Conrad 2024 (ECG-JEPA, arXiv 2410.13867)."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ecgjax.encoders.encoder import Encoder, linear_head
from ecgjax.encoders.grid import Grid, patches
from ecgjax.encoders.operations import layers
from ecgjax.encoders.operations.gradient_sums import Linear, spread
from ecgjax.encoders.transformer import INIT_STD, KERNEL_INIT, Blocks, LayerNorm, pad_to_multiple, sincos_positions
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import BelowOne, Count


class ViT1D(Encoder):
    """Pre-norm vision transformer over patches of all leads, whose tokens are averaged.

    Positions of patches are encoded by sines and cosines, and one register token is added. A patch is 25 samples, 50 ms
    at the 500 Hz of ECG-JEPA; at another rate set `patch` to as long a time. ECG-JEPA's forms have no biases: ViT-S
    (384 × 8 layers, 6 heads) has 14,277,888 parameters before the last layer, ViT-B (768 × 12, 12 heads) 85,185,024.
    They have no dropout. The register takes part in attention and is left out of the mean (ECG-JEPA fine-tunes on that
    mean or on an attention pool, which is a head and no encoder). Lengths that the patch does not divide have their
    last sample repeated.

    Args:
        num_leads: Number of channels of the input.
        patch: Length of a patch in samples.
        dim: Width of the tokens, in channels.
        depth: Number of transformer blocks.
        num_heads: Number of heads of every attention.
        dropout: Share of the activations that dropout takes.
        embedding_dim: Dimension of an embedding.
        remat: Whether a block is computed again for the gradient, which takes less memory and more time.
        dtype: Type that is computed in.
        rngs: Random numbers of the initialisation.

    Attributes:
        embedding_dim: Dimension of an embedding.
        feature_dim: Number of features, the mean over the patches before the last layer.
    """

    def __init__(
        self,
        *,
        num_leads: Count = 12,
        patch: Count = 25,
        dim: Count = 768,
        depth: Count = 12,
        num_heads: Count = 12,
        dropout: BelowOne = 0.0,
        embedding_dim: Count = 128,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if dim % 2:
            raise ConfigError(f"config.encoder.dim={dim} must be even: sines and cosines of a patch's place take turns")
        self.patches = Linear(
            patch * num_leads,
            dim,
            use_bias=False,
            kernel_init=KERNEL_INIT,
            dtype=dtype,
            param_dtype=layers.PARAM_DTYPE,
            rngs=rngs,
        )
        self.token_register = nnx.Param(KERNEL_INIT(rngs.params(), (dim,), layers.PARAM_DTYPE))
        self.blocks = Blocks(
            depth,
            dim=dim,
            num_heads=num_heads,
            hidden_dim=4 * dim,
            norm_first=True,
            use_bias=False,
            residual_std=INIT_STD / math.sqrt(2 * depth),
            dropout=dropout,
            remat=remat,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(dim, use_bias=False, dtype=dtype)
        self.head = linear_head(dim, embedding_dim, rngs=rngs)
        self.patch, self.dtype = patch, dtype
        self.feature_dim, self.embedding_dim = dim, embedding_dim

    def maps(self, ecg: Array, *, train: bool, keys: Array | None = None, valid: Array | None = None) -> list[Array]:
        """Returns the patches' tokens after the last norm; arguments are those of `Encoder.maps`.

        Neither `train` nor `valid` makes a difference: nothing is normalised by the batch.
        """
        del train, valid
        x = pad_to_multiple(layers.cast_ecg(ecg, self.dtype), self.patch)
        x = self.patches(x.reshape(x.shape[0], -1, self.patch * x.shape[2]))
        x = x + sincos_positions(*x.shape[1:]).astype(self.dtype)[None]
        shape = (x.shape[0], 1, x.shape[2])
        register = spread(self.token_register[...][None, None, :], shape=shape, dtype=self.dtype)
        register = jnp.broadcast_to(register, shape)
        x = self.blocks(jnp.concatenate([register, x], axis=1), keys)
        return [self.norm(x[:, 1:])]

    def grids(self, num_samples: int) -> list[Grid]:
        """Returns the positions in time of the patches; what attention mixes in does not count."""
        return [patches(num_samples, self.patch)]
