"""A checked model file from an encoder's function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
from jax import export

from data_pipelines.version import __version__
from ecgjax.encoders.operations.portability import portable
from ecgjax.errors import ConfigError
from ecgjax.export.inference import Inference
from ecgjax.export.onnx.conversion import convert
from ecgjax.export.onnx.graph import IR_VERSION, OPSET, Graph, Shape, UnsupportedError, Value, constant
from ecgjax.export.tensors import digest_of, named_leaves

#: Name of the input.
INPUT = "signals"

#: Most bytes of weights: a file of ONNX without others beside it holds less than 2 GiB.
_MOST_BYTES = 2**31 - 2**24


def model_of(inference: Inference, *, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Returns an encoder's function as a model of ONNX; arguments and errors are those of `write_onnx`."""
    tensors = {name: np.asarray(leaf) for name, leaf in named_leaves(inference.weights).items()}
    if (size := sum(array.nbytes for array in tensors.values())) > _MOST_BYTES:
        raise ConfigError(f"the encoder's weights are {size:,} bytes, and a file of ONNX holds {_MOST_BYTES:,} at most")
    spec = inference.input_spec()
    with portable():
        trace = jax.make_jaxpr(inference.outputs)(inference.weights, spec)
    graph = Graph()
    name = graph.name(INPUT)
    for output in inference.output_names:
        graph.name(output)
    weights = [constant(array, label=weight) for weight, array in tensors.items()]
    try:
        outputs = convert(graph, trace, [*weights, graph.value(name, spec.shape, spec.dtype)])
    except UnsupportedError as error:
        raise ConfigError(
            f"the encoder cannot be written as ONNX: {error}. Write model.stablehlo in its place, or add a converter "
            "to ecgjax/export/onnx"
        ) from error
    texts = {**(metadata or {}), "weights": digest_of(tensors), "signals": _described(inference)}
    return assembled(graph, {name: spec}, dict(zip(inference.output_names, outputs, strict=True)), metadata=texts)


def assembled(
    graph: Graph,
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Mapping[str, Value],
    *,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Returns a graph as a model that the checker of ONNX has passed.

    Args:
        graph: Graph of the model, to which a node for each output is added.
        inputs: Name → shape and type of each input.
        outputs: Name → value of each output.
        metadata: Texts that the file holds.
    """
    for name, value in outputs.items():
        graph.nodes.append(onnx.helper.make_node("Identity", [graph.whole(value)], [name], name=name))
    described_inputs, described_outputs = (
        [onnx.helper.make_tensor_value_info(name, _type(each.dtype), _dimensions(each.shape)) for name, each in of]
        for of in (inputs.items(), outputs.items())
    )
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "encoder", described_inputs, described_outputs, graph.initialisers),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ecgjax",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model, full_check=True)
    return model


def _type(dtype: np.dtype) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))


def _dimensions(shape: Shape) -> list[Any]:
    return [str(length) if export.is_symbolic_dim(length) else int(length) for length in shape]


def _described(inference: Inference) -> str:
    if inference.signals == "stored":
        return "int16[batch, time, 8], I II V1 V2 V3 V4 V5 V6 in µV"
    leads = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6" if inference.num_leads == 12 else f"{inference.num_leads} leads"
    return f"float32[batch, time, {inference.num_leads}], {leads} in mV"


def bytes_of(model: onnx.ModelProto) -> bytes:
    """Returns the content of a model's file, the same for the same model."""
    return bytes(model.SerializeToString(deterministic=True))
