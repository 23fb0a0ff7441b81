"""Vision transformer over time in PyTorch; `ecgjax.encoders.vit` says what it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ecgjax.benchmarks.pytorch.layers import cast_ecg


class SelfAttention(nn.Module):
    """Scaled dot-product attention of all tokens to all, in several heads, without biases."""

    def __init__(self, dim: int, *, num_heads: int):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, token, dim]` to the same shape."""
        batch, tokens, dim = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-norm attention and a two-layer perceptron with GELU, each with a skip."""

    def __init__(self, dim: int, *, num_heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.attention = SelfAttention(dim, num_heads=num_heads)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.mlp_in = nn.Linear(dim, 4 * dim, bias=False)
        self.mlp_out = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, token, dim]` to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp_out(nn.functional.gelu(self.mlp_in(self.mlp_norm(x))))


class ViT1D(nn.Module):
    """Patches of all leads, a register token, transformer blocks, mean over the patches, and a linear head."""

    def __init__(
        self,
        *,
        num_leads: int,
        patch: int,
        dim: int,
        depth: int,
        num_heads: int,
        embedding_dim: int,
    ):
        super().__init__()
        self.patches = nn.Linear(patch * num_leads, dim, bias=False)
        self.token_register = nn.Parameter(0.02 * torch.randn(dim))
        self.blocks = nn.Sequential(*(Block(dim, num_heads=num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6, bias=False)
        self.head = nn.Linear(dim, embedding_dim)
        self.patch = patch

    def forward(self, ecg: Tensor) -> Tensor:
        """Maps `f32[batch, lead, time]` in mV to embeddings, `[batch, embedding_dim]`."""
        batch, leads, time = ecg.shape
        x = nn.functional.pad(cast_ecg(ecg), (0, -time % self.patch), mode="replicate")
        x = self.patches(x.transpose(1, 2).reshape(batch, -1, self.patch * leads))
        x = x + _sincos_positions(x.shape[1], x.shape[2], device=x.device).to(x.dtype)
        register = self.token_register.to(x.dtype).expand(batch, 1, -1)
        x = self.norm(self.blocks(torch.cat([register, x], dim=1))[:, 1:])
        return self.head(x.mean(dim=1))


def _sincos_positions(num_tokens: int, dim: int, *, device: torch.device) -> Tensor:
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000) / dim))
    angle = torch.arange(num_tokens, device=device)[:, None] * rate[None]
    return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(num_tokens, dim)
