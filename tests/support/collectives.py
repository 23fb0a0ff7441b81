"""Collectives of a program as XLA's partitioner makes them, before any backend has its own way with them.

A CPU adds up bfloat16 in float32 of its own accord, so that its finished program says nothing of other devices. What
the partitioner makes is the same for all of them.
"""

import tempfile
from pathlib import Path

from ecgjax.ahead.collectives import collectives_in
from ecgjax.training.compilation.compile_cache import no_programs_kept


def partitioned(lowered):
    """Returns the text of a lowered program behind XLA's partitioner."""
    with tempfile.TemporaryDirectory() as folder:
        with no_programs_kept():  # One that comes from a cache is not partitioned, and leaves no text.
            lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd"})
        (file,) = Path(folder).glob("*after_spmd-partitioning*")
        return file.read_text()


def collectives(lowered):
    """Returns the collectives of a lowered program."""
    return collectives_in(partitioned(lowered))
