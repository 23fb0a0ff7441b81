"""Layers that several of the copies in PyTorch share, in PyTorch's own layout `[batch, channel, time]`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(width_in: int, width: int, *, kernel: int, stride: int = 1) -> nn.Conv1d:
    """Returns a convolution over time without bias, padded by (kernel − 1) / 2 on both sides."""
    return nn.Conv1d(width_in, width, kernel, stride=stride, padding=kernel // 2, bias=False)


def cast_ecg(ecg: Tensor) -> Tensor:
    """Takes each lead's median from recordings, `f32[batch, lead, time]` in mV, where products are computed in bf16.

    PyTorch's median of an even number of samples is the lower of the middle two, which costs what their mean does.
    """
    narrow = torch.is_autocast_enabled(ecg.device.type)
    return ecg - ecg.median(dim=2, keepdim=True).values if narrow else ecg


class LeadWise(nn.Module):
    """An encoder of one channel that is applied to every lead of a record by itself."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, ecg: Tensor) -> Tensor:
        """Maps `f32[batch, lead, time]` to embeddings of every lead, `[batch, lead, embedding_dim]`."""
        batch, leads, time = ecg.shape
        return self.encoder(ecg.reshape(batch * leads, 1, time)).reshape(batch, leads, -1)
