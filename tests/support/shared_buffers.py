"""Finds, in a compiled program, results that XLA may write over an array that it is still reading.

A fusion may write its result into the buffer of an operand that is not needed afterwards, if it reads that operand only
at the place that it writes. XLA on CPUs (jax 0.10.2 and 0.11.2) judges this for one operand at a time, and an array and
the same array reshaped are two operands: where a fusion reads the one place by place and the other anywhere, its result
overwrites what it has not yet read. `control` is the shortest program for which that happens.
"""

import math
import re

import jax
import jax.numpy as jnp

_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%(?P<name>[\w.\-]+) = (?P<shape>\([^()]*\)|\S+) (?P<opcode>[\w\-]+)\((?P<operands>[^)]*)\)"
)
_SHAPE = re.compile(r"(?P<type>\w+)\[(?P<sizes>[\d,]*)\]")


def shared_buffers(function, *args):
    """Returns a line for each fusion of `function(*args)`, jitted, that may write over an array that it reads twice."""
    return shared_in(function.lower(*args))


def shared_in(lowered):
    """Returns a line for each fusion of a lowered program that may write over an array that it reads twice."""
    text = lowered.compile().as_text()
    assert "ENTRY " in text
    return _in_program(text)


def _in_program(text):
    known, found = {}, []
    for line in text.splitlines():
        if line and not line.startswith((" ", "}")):
            known = {}  # Names are unique within a computation.
        elif (match := _INSTRUCTION.match(line)) is not None:
            known[match["name"]] = match
            if match["opcode"] == "fusion":
                found += _read_in_two_shapes(match, known)
    return found


def _read_in_two_shapes(fusion, known):
    """The fusion's name if it reads an array that it may write over, in two shapes."""
    read = {}
    for name in re.findall(r"%([\w.\-]+)", fusion["operands"]):
        shape, origin = known[name]["shape"], name
        while known[origin]["opcode"] == "bitcast":
            (origin,) = re.findall(r"%([\w.\-]+)", known[origin]["operands"])
        # What a program is given it does not write over.
        if known[origin]["opcode"] != "parameter" and _sizes(shape) <= _sizes(fusion["shape"]):
            read.setdefault(origin, set()).add(shape)
    return [f"{fusion['name']}: {origin} as {sorted(shapes)}" for origin, shapes in read.items() if len(shapes) > 1]


def _sizes(shape):
    """Types and numbers of elements, of an array or of the arrays of a tuple."""
    return {
        (match["type"], math.prod(int(size) for size in match["sizes"].split(",") if size))
        for match in _SHAPE.finditer(shape)
    }


def control(x, kernel, upstream, *, reshaped):
    """Routes `upstream` to the greatest of every four samples of a convolution, and adds the convolution.

    Args:
        x: `[batch, time, channel]`.
        kernel: `[samples, channel, channel]`.
        upstream: `[batch, time / 4, channel]`.
        reshaped: Whether the samples are found in the convolution reshaped, or by slices with strides.
    """
    y = jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    batch, time, channels = y.shape
    blocks = y.reshape(batch, time // 4, 4, channels)
    samples = [blocks[:, :, k] if reshaped else y[:, k::4] for k in range(4)]
    greatest, place = samples[0], jnp.zeros(samples[0].shape, jnp.int8)
    for k in range(1, 4):
        place = jnp.where(samples[k] > greatest, jnp.int8(k), place)
        greatest = jnp.maximum(greatest, samples[k])
    routed = jnp.stack([jnp.where(place == k, upstream, 0.0) for k in range(4)], axis=2)
    return routed.reshape(y.shape) + 2 * y
