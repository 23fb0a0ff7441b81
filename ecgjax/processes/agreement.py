"""What decides the numbers of a run and must be the same in all its processes, and the first difference in it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

import data_pipelines
import ecgjax
from ecgjax.processes.accelerators import installed_plugins
from ecgjax.settings.leaf import Value
from ecgjax.system.environment import package_versions
from ecgjax.system.revision import code_revision

#: Leaves that may differ between processes: where data lie on a machine. Their content is compared when it is opened.
MAY_DIFFER = ("data.dir", "data.links", "data.store")

#: Variables of the environment that change numbers, beside the flags of XLA.
_VARIABLES = ("LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")

#: Options of JAX that change numbers.
_OPTIONS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
)

#: Parts of names of XLA's flags that say where something is written or how many CPU devices there are.
_NO_NUMBERS = ("_dump_", "cache_dir", "force_host_platform_device_count")

_NOT_SET = "not set"
_LONGEST = 120


def facts(
    leaves: Mapping[str, Value], environment: Mapping[str, str], *, config_file: str | Path | None = None
) -> dict[str, str]:
    """Returns all that decides the numbers of a run, as texts by name, in the order in which differences are told.

    Args:
        leaves: Every leaf of the resolved config by its path; none for a command without a config.
        environment: Variables of the environment.
        config_file: File of the config, which may define losses and relations of its own.
    """
    told = {
        f"config.{name}": json.dumps(value, sort_keys=True, default=repr)
        for name, value in sorted(leaves.items())
        if name not in MAY_DIFFER
    }
    told |= {"Python": platform.python_version(), **package_versions(), **installed_plugins()}
    told["revision of the code"] = code_revision().commit
    told |= {f"digest of {name}": digest for name, digest in _sources().items()}
    if config_file is not None and (path := Path(config_file)).is_file():
        told["digest of the file of --config"] = _digest(path)
    for text in environment.get("XLA_FLAGS", "").split():
        name, _, value = text.partition("=")
        if not any(part in name for part in _NO_NUMBERS):
            told[f"XLA_FLAGS {name}"] = value or "set"
    told |= {name: environment[name] for name in _VARIABLES if environment.get(name)}
    return told | {name: str(jax.config.values[name]) for name in _OPTIONS if name in jax.config.values}


def _sources() -> dict[str, str]:
    """Returns the digest of every module of the two packages, by its path."""
    found = {}
    for package in (ecgjax, data_pipelines):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            found[f"{folder.name}/{path.relative_to(folder).as_posix()}"] = _digest(path)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def difference(told: Sequence[Mapping[str, str]], names: Sequence[str]) -> str | None:
    """Returns what differs first between process 0 and another one, with both values; None where nothing does.

    Args:
        told: What each process has of `facts`.
        names: Name of each process, with its host.
    """
    first = told[0]
    for number, other in enumerate(told):
        differing = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if not differing:
            continue
        name = differing[0]
        more = f" ({len(differing)} settings, versions or files differ in all)" if len(differing) > 1 else ""
        return (
            f"{name} is {_shown(first.get(name))} in {names[0]} and {_shown(other.get(name))} in {names[number]}{more}"
            f"; {_remedy(name)}"
        )
    return None


def _shown(value: str | None) -> str:
    text = _NOT_SET if value is None else value
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _remedy(name: str) -> str:
    if name.startswith("config."):
        return "start all processes with the same command"
    if name.startswith(("XLA_FLAGS", "jax_", *_VARIABLES)):
        return "give all processes the same environment"
    return "install the same code and packages on every machine"
