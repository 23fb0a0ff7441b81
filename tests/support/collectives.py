"""Collectives of a program as XLA's partitioner makes them, before any backend has its own way with them.

A CPU adds up bfloat16 in float32 of its own accord, so that its finished program says nothing of other devices. What
the partitioner makes is the same for all of them.
"""

import contextlib
import tempfile
from pathlib import Path

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from ecgjax.ahead.collectives import collectives_in


def partitioned(lowered):
    """Returns the text of a lowered program behind XLA's partitioner."""
    with tempfile.TemporaryDirectory() as folder:
        with _nothing_cached():
            lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd"})
        (file,) = Path(folder).glob("*after_spmd-partitioning*")
        return file.read_text()


@contextlib.contextmanager
def _nothing_cached():
    """Lets programs be compiled: one that comes from the cache is not partitioned, and leaves no text."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # JAX asks once whether there is a cache.
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()


def collectives(lowered):
    """Returns the collectives of a lowered program."""
    return collectives_in(partitioned(lowered))
