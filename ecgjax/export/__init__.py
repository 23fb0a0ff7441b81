"""Files of a model that others can use: ONNX, StableHLO and safetensors, each read back and compared in tests."""

from ecgjax.export.inference import LAYERS, SIGNALS, Inference, inference_of
from ecgjax.export.onnx.model_file import write_onnx
from ecgjax.export.safetensors import WeightsFile, read_safetensors, read_weights, write_safetensors
from ecgjax.export.stablehlo import PLATFORMS, SHELF_LIFE, StableHLO, read_stablehlo, write_stablehlo
from ecgjax.export.tensors import digest_of, flat_tensors, with_tensors
from ecgjax.export.torch_layout import TorchLayout, from_torch, to_torch, torch_layouts

__all__ = [
    "LAYERS",
    "PLATFORMS",
    "SHELF_LIFE",
    "SIGNALS",
    "Inference",
    "StableHLO",
    "TorchLayout",
    "WeightsFile",
    "digest_of",
    "flat_tensors",
    "from_torch",
    "inference_of",
    "read_safetensors",
    "read_stablehlo",
    "read_weights",
    "to_torch",
    "torch_layouts",
    "with_tensors",
    "write_onnx",
    "write_safetensors",
    "write_stablehlo",
]
