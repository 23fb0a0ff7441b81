"""The accelerators of a machine as its driver shows them, which of them a process takes, and which lie unused."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jax._src.hardware_utils import num_available_tpu_chips_and_device_id

from ecgjax.errors import ConfigError
from ecgjax.system.environment import installed_version

#: Packages that let JAX use an accelerator.
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")

LOCAL_VARIABLE = "JAX_LOCAL_DEVICE_IDS"

_LISTED = re.compile(r"^\s*(GPU|MIG)\s+(.*?)\s*\((?:UUID: )([^)]+)\)\s*$")
_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Accelerators:
    """The accelerators that a process can see, before JAX has started.

    Attributes:
        kind: "gpu" or "tpu".
        names: Name of the model of each.
        identities: Identity of each, which no other one has in the machine.
        sure: Whether the identities are the driver's, and not only numbers that may begin anew in every container.
    """

    kind: str = "gpu"
    names: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    sure: bool = True

    def __str__(self) -> str:
        return ", ".join(f"{count} × {name}" for name, count in Counter(self.names).items()) or "none"


def gpus_of(environment: Mapping[str, str], *, listing: str | None, files: Sequence[str]) -> Accelerators:
    """Returns the NVIDIA GPUs that a process can see.

    Args:
        environment: Variables of the environment, of which `CUDA_VISIBLE_DEVICES` restricts them.
        listing: Output of `nvidia-smi -L`; None where there is no such program.
        files: Names of the device files, such as `nvidia0`, which count where there is no listing.
    """
    if listing is not None:
        rows = [match for line in listing.splitlines() if (match := _LISTED.match(line))]
        found = [(re.sub(r"^\d+:\s*", "", row[2]), row[3]) for row in rows if row[1] == "GPU"]
        parts = {row[3]: "MIG device" for row in rows if row[1] == "MIG"}
    else:
        numbers = sorted(int(name[6:]) for name in files if re.fullmatch(r"nvidia\d+", name))
        found, parts = [("NVIDIA GPU", f"GPU {number}") for number in numbers], {}
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if parts and visible is None:
        # CUDA shows one part of a divided GPU and nothing else, unless it is told which.
        found = [("MIG device", next(iter(parts)))]
    chosen = found if visible is None else _visible(visible, found, parts)
    return Accelerators("gpu", tuple(n for n, _ in chosen), tuple(i for _, i in chosen), sure=listing is not None)


def _visible(text: str, found: list[tuple[str, str]], parts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the GPUs that `CUDA_VISIBLE_DEVICES` names; as in CUDA, those after a wrong entry are not seen."""
    chosen: list[tuple[str, str]] = []
    for entry in text.split(","):
        name = entry.strip()
        if name.isdigit() and int(name) < len(found):
            chosen.append(found[int(name)])
        elif name.isdigit() and not found:  # Only the variable says that there are any.
            break
        elif match := [
            each for each in [*found, *((n, i) for i, n in parts.items())] if name and each[1].startswith(name)
        ]:
            chosen.append(match[0])
        else:
            break
    return chosen


def visible_accelerators(environment: Mapping[str, str]) -> Accelerators:
    """Returns the GPUs, or else the TPU chips, that this process can see.

    Args:
        environment: Variables of the environment.
    """
    files = [path.name for path in Path("/dev").glob("nvidia[0-9]*")]
    # The program is asked only where there is a GPU: it may be installed where there is none, and takes its time.
    gpus = gpus_of(environment, listing=_nvidia_smi() if files or Path("/dev/dxg").exists() else None, files=files)
    if gpus.names:
        return gpus
    files = [*(path.name for path in Path("/dev").glob("accel*")), *(p.name for p in Path("/dev/vfio").glob("[0-9]*"))]
    return tpus_of(environment, chips=num_available_tpu_chips_and_device_id()[0] if files else 0, files=files)


def tpus_of(environment: Mapping[str, str], *, chips: int, files: Sequence[str]) -> Accelerators:
    """Returns the TPU chips that a process can see.

    Args:
        environment: Variables of the environment, of which `TPU_VISIBLE_CHIPS` or `TPU_VISIBLE_DEVICES` restricts them.
        chips: Number of chips on the bus of the machine.
        files: Names of the device files, of which a container has those of its own chips.
    """
    count = min(chips, sum(re.fullmatch(r"accel\d+|\d+", name) is not None for name in files))
    visible = environment.get("TPU_VISIBLE_CHIPS") or environment.get("TPU_VISIBLE_DEVICES")
    if visible:
        count = min(count, len([each for each in visible.split(",") if each.strip()]))
    return Accelerators("tpu", ("TPU chip",) * count, tuple(f"TPU {number}" for number in range(count)))


def _nvidia_smi() -> str | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def installed_plugins() -> dict[str, str]:
    """Returns the installed packages of `PLUGINS` with their versions."""
    versions = {name: installed_version(name) for name in PLUGINS}
    return {name: version for name, version in versions.items() if version is not None}


def wants_accelerators(environment: Mapping[str, str]) -> bool:
    """Returns whether JAX may take GPUs or TPUs: `JAX_PLATFORMS` names neither the CPU alone nor another platform."""
    platforms = environment.get("JAX_PLATFORMS", "").replace(" ", "").split(",")
    return bool({"", "gpu", "cuda", "tpu"} & set(platforms))


def local_devices(
    process_id: int, hosts: Sequence[str], seen: Sequence[Accelerators], *, taken: Collection[int] = ()
) -> tuple[int, ...] | None:
    """Returns which of the GPUs that a process sees it takes, so that those of a machine are divided and none is idle.

    The only process of a machine takes all. Processes that see the same ones get equal shares, in their order; those
    that see different ones take what they see.

    Args:
        process_id: Number of the process.
        hosts: Name of the host of every process.
        seen: Accelerators that every process sees.
        taken: Numbers of processes that have chosen devices themselves.

    Returns:
        Numbers of the devices among those that it sees; None for all.

    Raises:
        ConfigError: GPUs cannot be divided equally, or processes share some of those that they see.
    """
    mine, host = seen[process_id], hosts[process_id]
    beside = [other for other, name in enumerate(hosts) if name == host and other not in taken]
    if mine.kind != "gpu" or not mine.names or process_id in taken or beside == [process_id]:
        return None
    sets = [set(seen[other].identities) for other in beside]
    if all(each == sets[0] for each in sets):
        # Without the driver's names, one GPU each may be another one in every container.
        if not mine.sure and len(mine.names) == 1:
            return None
        share, left = divmod(len(mine.names), len(beside))
        if left or not share:
            raise ConfigError(
                f"{len(beside)} processes on {host} cannot share its {len(mine.names)} GPUs equally; start one process "
                "a machine, one a GPU, or a number that divides them"
            )
        first = beside.index(process_id) * share
        return tuple(range(first, first + share))
    for number, other in enumerate(beside):
        if other != process_id and (common := set(mine.identities) & sets[number]):
            raise ConfigError(
                f"processes {min(process_id, other)} and {max(process_id, other)} on {host} both see "
                f"{sorted(common)[0]}, and see others apart; give each GPU to one process (CUDA_VISIBLE_DEVICES, "
                "--gpus-per-task), or show all of them to all"
            )
    return None


def idle_sentence(hosts: Sequence[str], seen: Sequence[Accelerators], used: Sequence[int]) -> str | None:
    """Returns what is wrong where a machine has more GPUs or TPU chips than its processes use; None where nothing is.

    Args:
        hosts: Name of the host of every process.
        seen: Accelerators that every process sees; none for a process that computes on the CPU.
        used: Number of devices that every process uses.
    """
    for host in dict.fromkeys(hosts):
        beside = [number for number, name in enumerate(hosts) if name == host]
        identities = {each for number in beside for each in seen[number].identities}
        kind = seen[beside[0]].kind
        sure = all(seen[number].sure for number in beside)
        # A chip of an earlier TPU is two devices, and so is never fewer; numbers of containers may stand for others.
        there = len(identities) if sure or len(beside) == 1 else max(len(seen[number].names) for number in beside)
        taken = sum(used[number] for number in beside)
        if taken < there:
            what = "GPUs" if kind == "gpu" else "TPU chips"
            by = "the process there uses" if len(beside) == 1 else f"the {len(beside)} processes there use"
            return (
                f"{host} has {there} {what}, and {by} {taken}: start one process a GPU, or one a machine without "
                f"{LOCAL_VARIABLE}, or name those that are meant in CUDA_VISIBLE_DEVICES"
            )
    return None


def unused_sentence(
    platform: str, seen: Accelerators, environment: Mapping[str, str], *, plugins: Mapping[str, str], jax_version: str
) -> str | None:
    """Returns a line for a run on a CPU beside accelerators: which, why, and what to do; None where there is nothing.

    Args:
        platform: Platform that JAX computes on.
        seen: Accelerators that the process sees.
        environment: Variables of the environment.
        plugins: Installed packages of `PLUGINS`, with their versions.
        jax_version: Version of JAX.
    """
    if platform != "cpu" or not seen.names:
        return None
    begin = f"this run computes on the CPU beside what it does not use: {seen}"
    if not wants_accelerators(environment):
        return f"{begin}. JAX_PLATFORMS={environment['JAX_PLATFORMS']} asks for that; leave it out to use them"
    fitting = [name for name in plugins if ("libtpu" in name) == (seen.kind == "tpu")]
    if not fitting:
        extra = "tpu" if seen.kind == "tpu" else "cuda12"
        return f"{begin}. The installed JAX has no plugin for them: pip install 'jax[{extra}]=={jax_version}'"
    told = ", ".join(f"{name} {plugins[name]}" for name in fitting)
    return (
        f"{begin}, although {told} is installed and JAX is {jax_version}: it did not start. The versions must be the "
        f"same and the driver new enough{' (nvidia-smi)' if seen.kind == 'gpu' else ''}; JAX's own warning says more"
    )
