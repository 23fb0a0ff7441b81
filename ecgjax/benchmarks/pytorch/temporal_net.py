"""TemporalNet in PyTorch; `ecgjax.encoders.temporal_net` says what it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecgjax.benchmarks.pytorch.layers import cast_ecg, conv

_POOL = 4


class ResidualBlock(nn.Module):
    """A block of conv-BN-ReLU-conv-BN-dropout plus skip, ReLU."""

    def __init__(self, width_in: int, width: int, *, kernel: int, dropout: float):
        super().__init__()
        self.conv1 = conv(width_in, width_in, kernel=kernel)
        self.norm1 = nn.BatchNorm1d(width_in)
        self.conv2 = conv(width_in, width, kernel=kernel)
        self.norm2 = nn.BatchNorm1d(width)
        self.projects = width_in != width
        if self.projects:
            self.skip_conv = conv(width_in, width, kernel=1)
            self.skip_norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, width_in, time]` to `[batch, width, time]`."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.dropout(self.norm2(self.conv2(y)))
        return torch.relu((self.skip_norm(self.skip_conv(x)) if self.projects else x) + y)


class TemporalNet(nn.Module):
    """Stem, parallel branches of residual blocks, a merging convolution, mean over time, and two linear layers."""

    def __init__(
        self,
        *,
        num_leads: int,
        widths: Sequence[int],
        kernels: Sequence[int],
        dropout: float,
        embedding_dim: int,
    ):
        super().__init__()
        self.stem_conv = conv(num_leads, widths[0], kernel=7)
        self.stem_norm = nn.BatchNorm1d(widths[0])
        self.branches = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(a, b, kernel=kernel, dropout=dropout) for a, b in itertools.pairwise(widths)))
            for kernel in kernels
        )
        features = len(kernels) * widths[-1]
        self.merge_conv = conv(features, features, kernel=3)
        self.merge_norm = nn.BatchNorm1d(features)
        self.head = nn.Sequential(nn.Linear(features, features // 2), nn.Linear(features // 2, embedding_dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, ecg: Tensor) -> Tensor:
        """Maps `f32[batch, lead, time]` in mV to embeddings, `[batch, embedding_dim]`."""
        x = torch.relu(self.stem_norm(self.stem_conv(cast_ecg(ecg))))
        x = nn.functional.max_pool1d(x, _POOL)
        x = self.merge_norm(self.merge_conv(torch.cat([branch(x) for branch in self.branches], dim=1)))
        return self.head(torch.relu(self.dropout(x)).mean(dim=2))
