"""XLA's choices among kernels of a GPU, kept in the workdir so that a restart makes the same ones.

XLA times kernels while it compiles and takes the fastest. Two compilations of one program may so choose differently,
and sum in another order. What a start has chosen is written by XLA itself, and read by the next start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from importlib.metadata import version
from pathlib import Path

from data_pipelines.system.visible_text import visible
from ecgjax.processes.accelerators import Accelerators, wants_accelerators
from ecgjax.system.files import write_atomically
from ecgjax.system.terminal import warn

#: Folder of the results in that of the run.
AUTOTUNING_DIR = "autotuning"

_DUMP, _LOAD = "--xla_gpu_dump_autotune_results_to", "--xla_gpu_load_autotune_results_from"

_FLAGS = "XLA_FLAGS"

#: An entry of the file: from its first line to the bracket that closes it, at the beginning of a line.
_ENTRY = re.compile(r"^results \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)
_VERSION = re.compile(r"^version: \d+\n")


def applies(seen: Accelerators, environment: Mapping[str, str]) -> bool:
    """Returns whether the process computes on GPUs, and nobody has set the flags by hand.

    Args:
        seen: Accelerators that the process sees.
        environment: Variables of the environment.
    """
    by_hand = any(flag in environment.get(_FLAGS, "") for flag in (_DUMP, _LOAD))
    return seen.kind == "gpu" and bool(seen.names) and wants_accelerators(environment) and not by_hand


def gather(workdir: str | Path) -> bool:
    """Adds what earlier starts have chosen to the results of the run, and returns whether there are any.

    Only one process does this, before any compiles. A kill may have cut the file that XLA wrote: whole entries count.
    The first choice for a program stays.

    Args:
        workdir: Folder of the run.
    """
    kept, new = kept_results(workdir), _written_results(workdir)
    known = _entries(kept)
    found = _entries(new) | known
    if len(found) > len(known):
        head = _VERSION.match(_text(kept) or _text(new))
        write_atomically(kept, (head[0] if head else "") + "".join(found.values()))
    return bool(found)


def set_flags(workdir: str | Path, environment: MutableMapping[str, str], *, load: bool) -> None:
    """Sets the flags of XLA under which it writes its choices, and reads those of earlier starts.

    They are the same in every process and, but for `load`, in every start, because they are part of the key of a
    compiled program that is kept. They must be set before JAX starts its devices.

    Args:
        workdir: Folder of the run.
        environment: Variables of the environment, which are changed.
        load: Whether there are results of earlier starts.
    """
    written = _written_results(workdir)
    if re.search(r"\s", str(written)):
        warn(
            f"{visible(str(written.parent))} has a blank in it, with which XLA cannot be told to keep its choice of "
            "kernels there: a restart may sum in another order. Give a --workdir without one"
        )
        return
    written.parent.mkdir(parents=True, exist_ok=True)
    flags = [f"{_DUMP}={written}", *([f"{_LOAD}={kept_results(workdir)}"] if load else [])]
    environment[_FLAGS] = " ".join(filter(None, [environment.get(_FLAGS, ""), *flags]))


def kept_results(workdir: str | Path) -> Path:
    """Returns the path of the results of all earlier starts; XLA reads only those of its own version."""
    return _folder(workdir) / f"jaxlib-{version('jaxlib')}.txt"


def _written_results(workdir: str | Path) -> Path:
    # XLA writes text only where the name ends so.
    return _folder(workdir) / f"jaxlib-{version('jaxlib')}.last.txt"


def _folder(workdir: str | Path) -> Path:
    return Path(workdir).absolute() / AUTOTUNING_DIR


def _entries(path: Path) -> dict[str, str]:
    """Returns the entries of a file by what they are for: device and program."""
    entries = _ENTRY.findall(_text(path))
    return {"\n".join(line for line in entry.split("\n") if line.startswith("  ") and line[2] in "dh"): entry
            for entry in entries}  # fmt: skip


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
