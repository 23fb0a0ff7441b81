"""What numbers depend on beside the code, and what the words of helps do."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("array_record", "flax", "jax", "jaxlib", "neurokit2", "numpy", "optax", "orbax-checkpoint", "pandas",
             "scikit-learn", "scipy", "tensorflow-datasets")  # fmt: skip
_WORDS = ("absl-py", "ml-collections")


def machine() -> dict[str, str]:
    """Returns a fingerprint: where it is equal, equal code gives numbers that are equal to the last bit.

    XLA chooses instructions by what the processor can do and divides products by its cores; nothing here names a
    machine.
    """
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "processor": f"{platform.machine()} {_instructions()}",
        "cores": str(len(os.sched_getaffinity(0))),
        **{name: importlib.metadata.version(name) for name in (*_PACKAGES, *_WORDS)},
    }


def same_numbers(first: dict[str, str], second: dict[str, str]) -> bool:
    """Whether numbers of two machines are comparable to the last bit."""
    return not unlike(first, second, apart=_WORDS)


def unlike(first: dict[str, str], second: dict[str, str], *, apart: tuple[str, ...] = ()) -> list[str]:
    """Returns what differs between two machines, in words."""
    return [
        f"{name} {first.get(name)} and {second.get(name)}"
        for name in sorted({*first, *second} - {*apart})
        if first.get(name) != second.get(name)
    ]


def same_words(first: dict[str, str], second: dict[str, str]) -> bool:
    """Whether the same packages write the texts of helps and read configs."""
    return all(first.get(name) == second.get(name) for name in _WORDS)


def _instructions() -> str:
    """Returns a digest of the processor's model and of what it can do."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
