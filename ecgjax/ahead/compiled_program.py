"""Compilation of a traced step for the devices of its mesh, and what the compiler says of it."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import NamedTuple

from jax.errors import JaxRuntimeError
from jax.stages import Lowered

from ecgjax.ahead.collectives import Collective, collectives_in
from ecgjax.errors import ConfigError
from ecgjax.training.compilation.compile_cache import no_programs_kept

# The compiler for TPUs names what it needs and what there is in units of 2^10, in one of two ways.
_OUT_OF_MEMORY = (
    re.compile(r"Used ([\d.]+[KMGT]) of ([\d.]+[KMGT]) hbm"),
    re.compile(r"\(([\d.]+[KMGT])\) exceeds available HBM \(([\d.]+[KMGT])\)"),
)


class Memory(NamedTuple):
    """Bytes of a chip's memory that a step takes, as the compiler counts them.

    Attributes:
        arguments: State and batch.
        outputs: State and metrics after the step.
        shared: Outputs that take the place of arguments.
        temporary: Largest sum of what is kept within the step.
        peak: Largest sum of all at any time.
    """

    arguments: int
    outputs: int
    shared: int
    temporary: int
    peak: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledProgram:
    """What the compiler says of a step.

    Attributes:
        memory: Memory of a chip.
        compiler_flops: FLOP that the compiler counts on a chip, additions among them, a loop's body only once; None
            where it counts none.
        compiler_bytes: Bytes that it counts between a chip's memory and its units, likewise.
        collectives: Collective operations, in the order of the program.
        processor_s: Seconds of processor time that the compilation took.
    """

    memory: Memory
    compiler_flops: float | None
    compiler_bytes: float | None
    collectives: tuple[Collective, ...]
    processor_s: float


def compile_ahead(lowered: Lowered, *, what: str) -> CompiledProgram:
    """Compiles a step.

    Args:
        lowered: Step, lowered for its devices.
        what: Devices in words, for the message.

    Raises:
        ConfigError: The step does not fit in the memory of a chip.
    """
    begun = time.process_time()
    try:
        with no_programs_kept():  # JAX cannot read a program again whose devices are not here.
            compiled = lowered.compile()
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ConfigError(_too_large(str(error), what)) from error
    processor_s = time.process_time() - begun
    stats, counted, text = compiled.memory_analysis(), compiled.cost_analysis() or {}, compiled.as_text()
    if stats is None or text is None:
        raise NotImplementedError("a compiler that tells neither memory nor program")
    arguments, temporary = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    knows_peak = stats.peak_memory_in_bytes >= temporary
    return CompiledProgram(
        memory=Memory(
            arguments=arguments,
            outputs=stats.output_size_in_bytes,
            shared=stats.alias_size_in_bytes,
            temporary=temporary,
            # The compiler for CPUs leaves what is temporary out of its peak.
            peak=max(stats.peak_memory_in_bytes, 0 if knows_peak else arguments + temporary),
        ),
        compiler_flops=counted.get("flops"),
        compiler_bytes=counted.get("bytes accessed"),
        collectives=tuple(collectives_in(text)),
        processor_s=processor_s,
    )


def _too_large(words: str, what: str) -> str:
    """Returns a sentence on a step that does not fit, from the compiler's words."""
    if found := next(filter(None, (form.search(words) for form in _OUT_OF_MEMORY)), None):
        needed, there = found.groups()
        needs = f"a step needs {needed}iB of memory on a chip, and {what} has {there}iB"
    else:
        needs = f"a step needs more memory than a chip of {what} has ({' '.join(words.split())[:200]})"
    return (
        f"{needs}: lower config.batch_size, take more chips, divide the batch with config.micro_batch.parts, or the "
        "parameters with config.mesh.sharding=fsdp"
    )
