"""The ResNet-18 of an exported model in PyTorch: python docs/torch_resnet18.py models/simclr.

It needs torch and NumPy, and neither ecgjax nor JAX. Weights are read from model.safetensors and laid out by the table
of tensors in config.json; what comes out is compared with sample.npz.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError:
    print("error: torch is not installed; run pip install torch, then the same command again", file=sys.stderr)
    sys.exit(2)
from torch import Tensor, nn

STORED_LEADS = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]


class Block(nn.Module):
    """Convolution, norm, ReLU, convolution, norm and skip, ReLU."""

    def __init__(self, width_in: int, width: int, *, kernel: int, stride: int):
        super().__init__()
        self.conv1 = _conv(width_in, width, kernel=kernel, stride=stride)
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = _conv(width, width, kernel=kernel)
        self.norm2 = nn.BatchNorm1d(width)
        self.projects = stride != 1 or width_in != width
        if self.projects:
            self.skip_conv = _conv(width_in, width, kernel=1, stride=stride)
            self.skip_norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[batch, width_in, time]` to `[batch, width, ceil(time / stride)]`."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu((self.skip_norm(self.skip_conv(x)) if self.projects else x) + y)


class ResNet18(nn.Module):
    """Stem, four stages of two blocks, mean over time, and a linear head."""

    def __init__(self, *, num_leads: int, widths: list[int], kernel: int, embedding_dim: int):
        super().__init__()
        self.stem_conv = _conv(num_leads, widths[0], kernel=15, stride=2)
        self.stem_norm = nn.BatchNorm1d(widths[0])
        blocks, width_in = [], widths[0]
        for stage, width in enumerate(widths):
            for number in range(2):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(Block(width_in, width, kernel=kernel, stride=stride))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width_in, embedding_dim)

    def features(self, signals: Tensor) -> Tensor:
        """Maps prepared recordings, `int16[batch, time, 8]` in µV, to `[batch, features]`."""
        x = _leads(signals, self.stem_conv.in_channels).swapaxes(1, 2)
        x = torch.relu(self.stem_norm(self.stem_conv(x)))
        return self.blocks(nn.functional.max_pool1d(x, 3, stride=2, padding=1)).mean(dim=2)

    def forward(self, signals: Tensor) -> Tensor:
        """Maps prepared recordings, `int16[batch, time, 8]` in µV, to embeddings, `[batch, embedding_dim]`."""
        return self.head(self.features(signals))


def _conv(width_in: int, width: int, *, kernel: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(width_in, width, kernel, stride=stride, padding=kernel // 2, bias=False)


def _leads(signals: Tensor, num_leads: int) -> Tensor:
    """Returns the leads that the network sees in mV, `[batch, time, num_leads]`: the stored eight, or all twelve."""
    stored = signals.to(torch.float32) * 1e-3
    if num_leads == len(STORED_LEADS):
        return stored
    one, two = stored[..., :1], stored[..., 1:2]
    return torch.cat([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, stored[..., 2:]], dim=2)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads weights of float32: eight bytes of length, a header of JSON, and numbers."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(content[start:], "<f4")[entry["data_offsets"][0] // 4 : entry["data_offsets"][1] // 4]
        .reshape(entry["shape"])
        .copy()
        for name, entry in header.items()
    }


def load(folder: Path) -> tuple[ResNet18, dict[str, Any]]:
    """Returns the network with the weights of an exported folder, ready for inference, and its configuration."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["architecture"].partition(":")[0] != "resnet18" or config["encoder"]["precision"] != "float32":
        raise SystemExit(f"{folder} holds a {config['architecture']}; this file has a ResNet-18 of float32 alone")
    weights = {name: torch.from_numpy(array) for name, array in read_safetensors(folder / "model.safetensors").items()}
    state = {}
    for name, entry in config["tensors"].items():
        if name.startswith("head/"):
            continue  # Weights of a head that answers a question, which is no part of the encoder.
        layout = entry["torch"]
        tensor = weights[name].permute(layout["axes"]).flip(layout["reversed_axes"]).reshape(layout["shape"])
        # 'params/blocks/0/conv1/kernel' becomes 'blocks.0.conv1.weight'.
        path = name.split("/")[1:-1]
        state[".".join([*path, layout["parameter"]])] = tensor.contiguous()
    blocks = max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")) + 1
    network = ResNet18(
        num_leads=config["num_leads"],
        widths=[state[f"blocks.{number}.conv1.weight"].shape[0] for number in range(0, blocks, 2)],
        kernel=state["blocks.0.conv1.weight"].shape[2],
        embedding_dim=state["head.weight"].shape[0],
    )
    missing, unexpected = network.load_state_dict(state, strict=False)
    # PyTorch counts the batches that a norm has seen, which nothing reads at inference.
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"{folder}: its weights do not fit: {missing} are missing, {unexpected} too many")
    return network.eval(), config


def main(folder: Path) -> float:
    """Returns the greatest difference from the sample's embeddings, in parts of their greatest number."""
    network, config = load(folder)
    sample = np.load(folder / "sample.npz", allow_pickle=False)
    with torch.inference_mode():
        embed = network.features if config["layer"] == "features" else network
        found = embed(torch.from_numpy(sample["signals"])).numpy()
    return float(np.abs(found - sample["embeddings"]).max() / np.abs(sample["embeddings"]).max())


if __name__ == "__main__":
    print(f"largest difference from sample.npz: {main(Path(sys.argv[1])):.1e} of the largest number")
