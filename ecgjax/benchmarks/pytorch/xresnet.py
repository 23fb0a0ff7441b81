"""xresnet1d in PyTorch; `ecgjax.encoders.xresnet` says what it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecgjax.benchmarks.pytorch.layers import cast_ecg, conv

_EXPANSION = 4


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm and, where `relu` is true, ReLU."""

    def __init__(self, width_in: int, width: int, *, kernel: int, stride: int = 1, relu: bool = True):
        super().__init__()
        self.conv = conv(width_in, width, kernel=kernel, stride=stride)
        self.norm = nn.BatchNorm1d(width)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, width_in, time]` to `[batch, width, ceil(time / stride)]`."""
        x = self.norm(self.conv(x))
        return torch.relu(x) if self.relu else x


class Bottleneck(nn.Module):
    """A block of 1×1, wide and 1×1 convolutions plus skip, ReLU."""

    def __init__(self, width_in: int, width: int, *, kernel: int, stride: int):
        super().__init__()
        out = _EXPANSION * width
        self.reduce = ConvNorm(width_in, width, kernel=1)
        self.wide = ConvNorm(width, width, kernel=kernel, stride=stride)
        self.expand = ConvNorm(width, out, kernel=1, relu=False)
        nn.init.zeros_(self.expand.norm.weight)
        self.stride, self.projects = stride, width_in != out
        if self.projects:
            self.skip = ConvNorm(width_in, out, kernel=1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, width_in, time]` to `[batch, 4 · width, ceil(time / stride)]`."""
        y = self.expand(self.wide(self.reduce(x)))
        if self.stride == 2:
            # An odd last sample stays, because what lies beyond the end does not count.
            x = nn.functional.avg_pool1d(x, 2, ceil_mode=True, count_include_pad=False)
        return torch.relu((self.skip(x) if self.projects else x) + y)


class XResNet1d(nn.Module):
    """Stem, stages of bottlenecks, maximum and mean over time, BN, dropout and a linear layer."""

    def __init__(
        self,
        *,
        num_leads: int,
        num_blocks: Sequence[int],
        width: int,
        stem_widths: Sequence[int],
        kernel: int,
        dropout: float,
        embedding_dim: int,
    ):
        super().__init__()
        pairs = zip((num_leads, *stem_widths), stem_widths, strict=False)
        self.stem = nn.Sequential(
            *(ConvNorm(a, b, kernel=kernel, stride=2 if i == 0 else 1) for i, (a, b) in enumerate(pairs))
        )
        blocks, width_in = [], stem_widths[-1]
        for stage, number in enumerate(num_blocks):
            for block in range(number):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Bottleneck(width_in, width, kernel=kernel, stride=stride))
                width_in = _EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.head_norm = nn.BatchNorm1d(2 * width_in)
        self.head = nn.Linear(2 * width_in, embedding_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ecg: Tensor) -> Tensor:
        """Maps `f32[batch, lead, time]` in mV to embeddings, `[batch, embedding_dim]`."""
        x = nn.functional.max_pool1d(self.stem(cast_ecg(ecg)), 3, stride=2, padding=1)
        x = self.blocks(x)
        x = torch.cat([x.max(dim=2).values, x.mean(dim=2)], dim=1)
        return self.head(self.dropout(self.head_norm(x)))
