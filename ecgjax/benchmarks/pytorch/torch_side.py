"""The training step in PyTorch, and its single products."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from data_pipelines.system.process_usage import peak_memory_bytes
from ecgjax.benchmarks.paired_steps import (
    LEARNING_RATE,
    MARGIN,
    NUM_CLASSES,
    WEIGHT_DECAY,
    PairedStep,
    Product,
    Spent,
    spent,
)
from ecgjax.benchmarks.pytorch.layers import LeadWise
from ecgjax.benchmarks.pytorch.resnet import ResNet18
from ecgjax.benchmarks.pytorch.temporal_net import TemporalNet
from ecgjax.benchmarks.pytorch.vit import ViT1D
from ecgjax.benchmarks.pytorch.xresnet import XResNet1d

#: Class of an encoder by name → its copy in PyTorch.
ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "ResNet18": ResNet18,
    "TemporalNet": TemporalNet,
    "XResNet1d": XResNet1d,
    "ViT1D": ViT1D,
}


def network_of(step: PairedStep) -> nn.Module:
    """Returns the copy of a step's encoder, newly initialised."""
    architecture = ARCHITECTURES[step.architecture]
    taken = inspect.signature(architecture).parameters
    network = architecture(**{name: value for name, value in step.settings.items() if name in taken})
    return LeadWise(network) if step.lead_wise else network


def triplet_loss(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean over anchors of max(0, d_ap − d_an + margin), for the farthest positive and nearest negative.

    Args:
        embeddings: Embeddings, `f32[rows, dim]`, or `f32[rows, lead, dim]`, whose mean over leads is taken.
        labels: Class of each row, `i64[rows]`; every class has two rows at least.
    """
    z = embeddings.float()
    z = z.mean(dim=1) if z.ndim == 3 else z
    with torch.no_grad():
        squares = z.square().sum(dim=1)
        distances = squares[:, None] + squares[None] - 2 * z @ z.T
        alike = labels[:, None] == labels[None]
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        positive = distances.masked_fill(~alike | itself, -torch.inf).argmax(dim=1)
        negative = distances.masked_fill(alike, torch.inf).argmin(dim=1)
    to_positive, to_negative = ((z - z[other]).square().sum(dim=1) for other in (positive, negative))
    return torch.relu(to_positive - to_negative + MARGIN).mean()


class TorchSide:
    """The step in PyTorch.

    Args:
        compiled: Whether network and loss are compiled by `torch.compile`.
    """

    def __init__(self, *, compiled: bool):
        # By default PyTorch leaves out cores that share a unit with another, which XLA uses.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._compiled = compiled
        # Kernels are chosen by trial, as XLA chooses them.
        torch.backends.cudnn.benchmark = True

    def prepare(self, step: PairedStep) -> dict[str, Any]:
        """Makes network, optimiser and batch, takes the first step, and returns values for JSON."""
        torch.manual_seed(0)
        self._step = step
        network = network_of(step).to(self._device).train()
        kernels, others = (
            [p for p in network.parameters() if (p.ndim > 1) == is_kernel] for is_kernel in (True, False)
        )
        self._optimizer = torch.optim.AdamW(
            [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
            lr=LEARNING_RATE,
            fused=True,
        )
        self._ecg = torch.randn(step.batch, step.num_leads, step.num_samples, device=self._device)
        self._labels = torch.arange(step.batch, device=self._device) % NUM_CLASSES

        def loss_of(ecg: Tensor, labels: Tensor) -> Tensor:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=step.precision == "bfloat16"):
                embeddings = network(ecg)
            return triplet_loss(embeddings, labels)

        self._loss = torch.compile(loss_of) if self._compiled else loss_of
        first = self.steps(1)
        return {
            "framework": "torch",
            "torch": torch.__version__,
            "compiled": self._compiled,
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in network.parameters()),
            "first_step_s": first.wall,
        }

    def steps(self, number: int) -> Spent:
        """Takes some steps, and returns the time of all."""

        def work() -> None:
            for _ in range(number):
                self._optimizer.zero_grad(set_to_none=True)
                self._loss(self._ecg, self._labels).backward()
                self._optimizer.step()
            self._wait()

        return spent(work)

    def product(self, product: Product, role: str, runs: int) -> Spent:
        """Computes one product alone, some times, and returns the time of all."""
        dtype = getattr(torch, self._step.precision)
        run = (_grouped if product.groups else _convolution)(product, role, dtype=dtype, device=self._device)
        self._wait()

        def work() -> None:
            for _ in range(runs):
                run()
            self._wait()

        return spent(work)

    def memory(self) -> dict[str, float]:
        """Returns the peak memory so far, in bytes by kind."""
        found = {"host_peak_bytes": float(peak_memory_bytes())}
        if self._device.type == "cuda":
            found["device_peak_bytes"] = float(torch.cuda.max_memory_allocated())
        return found

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def _convolution(product: Product, role: str, *, dtype: torch.dtype, device: torch.device) -> Callable[[], Any]:
    """Returns a function that computes a convolution, or a product with a kernel, or one of its gradients."""
    if product.length == product.kernel == 1:
        x = torch.randn(product.rows, product.width_in, dtype=dtype, device=device)
        kernel = torch.randn(product.width, product.width_in, dtype=dtype, device=device)
        gradient = torch.randn(product.rows, product.width, dtype=dtype, device=device)
        return {
            "forward": lambda: x @ kernel.T,
            "input gradient": lambda: gradient @ kernel,
            "kernel gradient": lambda: gradient.T @ x,
        }[role]
    before, after = product.padding
    if before != after:
        raise ValueError(f"{product.name}: PyTorch pads both sides alike")
    x = torch.randn(product.rows, product.width_in, product.length, dtype=dtype, device=device)
    kernel = torch.randn(product.width, product.width_in, product.kernel, dtype=dtype, device=device)
    if role == "forward":
        return lambda: nn.functional.conv1d(x, kernel, stride=product.stride, padding=before)
    gradient = torch.randn_like(nn.functional.conv1d(x, kernel, stride=product.stride, padding=before))
    wanted = [role == "input gradient", role == "kernel gradient", False]
    # Bias sizes, stride, padding, dilation, transposed, output padding, groups, and which gradients are wanted.
    arguments = (None, [product.stride], [before], [1], False, [0], 1, wanted)
    return lambda: torch.ops.aten.convolution_backward(gradient, x, kernel, *arguments)


def _grouped(product: Product, role: str, *, dtype: torch.dtype, device: torch.device) -> Callable[[], Any]:
    """Returns a function that computes independent matrix products, or the gradient of one of their factors."""
    groups, rows, inner, columns = product.groups, product.rows, product.width_in, product.width
    left, right, out = (
        torch.randn(groups, *shape, dtype=dtype, device=device)
        for shape in ((rows, inner), (inner, columns), (rows, columns))
    )
    return {
        "forward": lambda: left @ right,
        "input gradient": lambda: out @ right.mT,
        "kernel gradient": lambda: left.mT @ out,
    }[role]
