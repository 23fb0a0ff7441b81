"""ResNet-18 over time in PyTorch; `ecgjax.encoders.resnet` says what it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecgjax.benchmarks.pytorch.layers import cast_ecg, conv


class BasicBlock(nn.Module):
    """A block of conv-BN-ReLU-dropout-conv-BN plus skip, ReLU."""

    def __init__(self, width_in: int, width: int, *, kernel: int, stride: int, dropout: float):
        super().__init__()
        self.conv1 = conv(width_in, width, kernel=kernel, stride=stride)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = conv(width, width, kernel=kernel)
        self.norm2 = nn.BatchNorm1d(width)
        self.projects = stride != 1 or width_in != width
        if self.projects:
            self.skip_conv = conv(width_in, width, kernel=1, stride=stride)
            self.skip_norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, width_in, time]` to `[batch, width, ceil(time / stride)]`."""
        y = self.dropout(torch.relu(self.norm1(self.conv1(x))))
        y = self.norm2(self.conv2(y))
        return torch.relu((self.skip_norm(self.skip_conv(x)) if self.projects else x) + y)


class ResNet18(nn.Module):
    """Stem, four stages of two basic blocks, mean over time, and a linear head."""

    def __init__(
        self,
        *,
        num_leads: int,
        widths: Sequence[int],
        kernel: int,
        dropout: float,
        embedding_dim: int,
    ):
        super().__init__()
        self.stem_conv = conv(num_leads, widths[0], kernel=15, stride=2)
        self.stem_norm = nn.BatchNorm1d(widths[0])
        blocks, width_in = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(width_in, width, kernel=kernel, stride=stride, dropout=dropout))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width_in, embedding_dim)

    def forward(self, ecg: Tensor) -> Tensor:
        """Maps `f32[batch, lead, time]` in mV to embeddings, `[batch, embedding_dim]`."""
        x = torch.relu(self.stem_norm(self.stem_conv(cast_ecg(ecg))))
        x = nn.functional.max_pool1d(x, 3, stride=2, padding=1)
        return self.head(self.blocks(x).mean(dim=2))
