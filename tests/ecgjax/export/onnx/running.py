"""Functions of JAX written as ONNX and run by onnxruntime."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from jax import export

from ecgjax.export.onnx import checked_model
from ecgjax.export.onnx.conversion import convert
from ecgjax.export.onnx.graph import Graph


def session(content):
    """A model of ONNX ready to run; one thread, because tests share the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def traced(function, arguments, *, batched):
    """Trace of a function, where the first axis of the arguments at `batched` is a symbol."""
    (batch,) = export.symbolic_shape("batch")
    specs = [
        jax.ShapeDtypeStruct((batch, *each.shape[1:]) if place in batched else each.shape, each.dtype)
        for place, each in enumerate(arguments)
    ]
    return jax.make_jaxpr(function)(*specs), specs


def converted(function, arguments, *, batched=(0,), constants=()):
    """The model of a function whose arguments are inputs, but those at `constants`, which are written into it."""
    trace, specs = traced(function, arguments, batched=batched)
    graph = Graph()
    inputs = {f"x{place}": spec for place, spec in enumerate(specs) if place not in constants}
    values = [
        checked_model.constant(np.asarray(argument), label=f"weight{place}")
        if place in constants
        else graph.value(graph.name(f"x{place}"), spec.shape, spec.dtype)
        for place, (argument, spec) in enumerate(zip(arguments, specs, strict=True))
    ]
    outputs = {f"out{place}": value for place, value in enumerate(convert(graph, trace, values))}
    return checked_model.assembled(graph, inputs, outputs), trace


def run(function, arguments, *, batched=(0,), constants=()):
    """What onnxruntime answers, and the trace."""
    arguments = [jnp.asarray(each) for each in arguments]
    made, trace = converted(function, arguments, batched=batched, constants=constants)
    feed = {f"x{place}": np.asarray(each) for place, each in enumerate(arguments) if place not in constants}
    return session(checked_model.bytes_of(made)).run(None, feed), trace


def primitives_of(jaxpr):
    """Names of all primitives in a trace."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            names |= primitives_of(inner)
    return names
