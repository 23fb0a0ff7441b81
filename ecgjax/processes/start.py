"""The start of a run: who belongs to it, on which devices, and whether all processes agree on what they compute."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from absl import flags
from jax.experimental import multihost_utils

from data_pipelines.system.visible_text import visible
from ecgjax.errors import ConfigError
from ecgjax.processes import agreement, barriers, clusters, gpu_autotuning, shared_folder
from ecgjax.processes.accelerators import (
    LOCAL_VARIABLE,
    Accelerators,
    idle_sentence,
    installed_plugins,
    local_devices,
    unused_sentence,
    visible_accelerators,
    wants_accelerators,
)
from ecgjax.processes.detection import CLUSTER_VARIABLE, Given, find_place
from ecgjax.processes.place import Place
from ecgjax.processes.roll_call import RollCall, Said
from ecgjax.settings.leaf import Value

#: Seconds within which all processes must have come, where nothing else is asked for: as long as JAX waits.
LIMIT_S = 300.0

#: Seconds for which a process that has ended waits for the others. They end together unless one fails, and an error
#: should not show only after JAX's default of 300 s.
_SHUTDOWN_TIMEOUT_S = 30

#: Flag of Orbax that makes its barriers go through the coordination service, with a limit of 300 s and the numbers of
#: those who are missing; without it they are collectives, which wait for ever.
_ORBAX_FLAG = "experimental_orbax_use_distributed_barrier"

_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
_METADATA_S = 5.0


def begin(
    *,
    leaves: Mapping[str, Value] = MappingProxyType({}),
    config_file: str | Path | None = None,
    workdir: str | Path | None = None,
    given: Given | None = None,
    limit_s: float = LIMIT_S,
) -> None:
    """Joins the other processes of this run, where there are any, and checks that all of them agree.

    Where flags, the environment or a cluster (`detection.find_place`) say that there are several processes, this
    compares what decides the numbers and whether the workdir is shared, divides the GPUs of a machine, starts JAX on
    all of them, and prints `2 hosts × 4 devices`. Otherwise it only says so where the run leaves a GPU unused. It must
    come before any other use of JAX.

    Args:
        leaves: Every leaf of the resolved config by its path; none for a command without a config.
        config_file: File of the config, which may define losses and relations of its own.
        workdir: Folder that all processes write to; None for none.
        given: Values of the flags that say the place of this process.
        limit_s: Seconds that each step of the start may take.

    Raises:
        ConfigError: Settings of the place are missing or contradict each other; processes are missing, came twice, or
            differ in what decides the numbers; the workdir is not shared; or devices lie idle. All processes raise it.
    """
    seen = visible_accelerators(os.environ)
    place = find_place(_environment(seen), given)
    # Only a run with a config of its own has something to do again.
    tuned_in = workdir if leaves and gpu_autotuning.applies(seen, os.environ) else None
    first = place is None or place.process_id == 0
    tuned = tuned_in is not None and first and gpu_autotuning.gather(tuned_in)
    if place is None:
        if tuned_in is not None:
            gpu_autotuning.set_flags(tuned_in, os.environ, load=tuned)
        _check_devices(_Roll([_host()], [seen], [None], "", tuned), "", limit_s=limit_s)
        return
    roll = _call_the_roll(place, seen, leaves, config_file, workdir, limit_s, tuned=tuned)
    if tuned_in is not None:
        gpu_autotuning.set_flags(tuned_in, os.environ, load=roll.tuned)
    _connect(place, roll, limit_s)
    _check_devices(roll, place.origin, limit_s=limit_s)
    # On CPUs the first collective sets up connections and gives up after 30 s, and processes drift apart by that much
    # while they compile. Later collectives wait as long as it takes. So the first one is done here.
    hint = "look at the network between them (NCCL_DEBUG=INFO tells more of it)"
    with barriers.limited("the first collective between all devices", limit_s=limit_s, hint=hint):
        multihost_utils.sync_global_devices("ecgjax start")


@dataclasses.dataclass(frozen=True)
class _Roll:
    """What is known of all processes once all have come, each list in the order of their numbers.

    Attributes:
        hosts: Names of their hosts.
        seen: Accelerators that each sees, and may take.
        shares: Numbers of those that each is to take; None for all.
        token: Text that all processes know and no other run does.
        tuned: Whether the first process has found results of autotuning by earlier starts.
    """

    hosts: list[str]
    seen: list[Accelerators]
    shares: list[list[int] | None]
    token: str
    tuned: bool = False


def _host() -> str:
    return visible(socket.gethostname())


def _environment(seen: Accelerators) -> dict[str, str]:
    """Returns the variables of the environment, and on a virtual machine with TPUs what its metadata say besides."""
    environment = dict(os.environ)
    asked = environment.get(CLUSTER_VARIABLE, "") not in ("0", "")
    if seen.kind != "tpu" or not (seen.names or asked) or environment.get(CLUSTER_VARIABLE) == "0":
        return environment
    if environment.get("TPU_WORKER_HOSTNAMES") or "TPU_SKIP_MDS_QUERY" in environment:
        return environment
    return clusters.tpu_variables(_metadata) | environment


def _metadata(name: str) -> str | None:
    request = urllib.request.Request(_METADATA + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=_METADATA_S) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError, ValueError):
        return None


def _call_the_roll(
    place: Place,
    seen: Accelerators,
    leaves: Mapping[str, Value],
    config_file: str | Path | None,
    workdir: str | Path | None,
    limit_s: float,
    *,
    tuned: bool,
) -> _Roll:
    """Waits until all processes have come, and compares what they say."""
    greeting = {
        "facts": agreement.facts(leaves, os.environ, config_file=config_file),
        "accelerators": dataclasses.asdict(seen if wants_accelerators(os.environ) else Accelerators()),
        "chosen": bool(_chosen_devices(os.environ)),
        "shares a folder": workdir is not None,
        "tuned": tuned,
    }
    agenda = [_judge, *(shared_folder.agenda(workdir) if workdir is not None else [])]
    with RollCall(place, host=_host(), limit_s=limit_s, agenda=agenda, greeting=greeting) as call:
        answer = call.greet()
        roll = _Roll(
            list(answer["hosts"]),
            [_accelerators(each) for each in answer["accelerators"]],
            list(answer["shares"]),
            str(answer["token"]),
            bool(answer["tuned"]),
        )
        if workdir is not None:
            count = place.num_processes
            index = place.process_id
            shared_folder.check(call, workdir, process_id=index, num_processes=count, token=roll.token, limit_s=limit_s)
    return roll


def _judge(said: Sequence[Said]) -> Said:
    """Compares what all processes say of themselves, and divides the GPUs of every machine among its processes."""
    hosts = [str(each["host"]) for each in said]
    names = [f"process {number} ({host})" for number, host in enumerate(hosts)]
    if len({each["shares a folder"] for each in said}) > 1:
        raise ConfigError("processes of other commands came: start all processes with the same command")
    if differing := agreement.difference([each["facts"] for each in said], names):
        raise ConfigError(f"the processes of this run differ: {differing}")
    seen = [_accelerators(each["accelerators"]) for each in said]
    chosen = [number for number, each in enumerate(said) if each["chosen"]]
    return {
        "hosts": hosts,
        "accelerators": [dataclasses.asdict(each) for each in seen],
        "shares": [local_devices(number, hosts, seen, taken=chosen) for number in range(len(said))],
        "token": secrets.token_hex(8),
        "tuned": said[0]["tuned"],
    }


def _accelerators(said: Mapping[str, Any]) -> Accelerators:
    return Accelerators(said["kind"], tuple(said["names"]), tuple(said["identities"]), said["sure"])


def _chosen_devices(environment: Mapping[str, str]) -> list[int]:
    """Returns the devices that the environment names for this process; none where it leaves the choice."""
    text = environment.get(LOCAL_VARIABLE, "").strip()
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"{LOCAL_VARIABLE}={text!r} must be whole numbers with commas between them, such as 0,1")
    return [int(part) for part in parts]


def _connect(place: Place, roll: _Roll, limit_s: float) -> None:
    if _ORBAX_FLAG in flags.FLAGS:
        flags.FLAGS[_ORBAX_FLAG].value = True
    jax.distributed.initialize(
        coordinator_address=place.coordinator,
        num_processes=place.num_processes,
        process_id=place.process_id,
        local_device_ids=_chosen_devices(os.environ) or roll.shares[place.process_id],
        # Everything has been detected: JAX would give a process of Slurm or Open MPI one GPU of many.
        cluster_detection_method="deactivate",
        initialization_timeout=max(1, round(limit_s)),
        shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT_S,
    )


def _check_devices(roll: _Roll, origin: str, *, limit_s: float) -> None:
    """Starts JAX's devices, compares those of all processes, and prints them."""
    try:
        hint = "another program may hold them"
        with barriers.limited("the start of the devices", limit_s=limit_s, hint=hint):
            devices = jax.local_devices()
    except RuntimeError as error:
        raise ConfigError(
            f"JAX cannot start its devices ({error}); JAX_PLATFORMS says which it may take, and nvidia-smi whether "
            "they are free"
        ) from error
    if jax.distributed.is_initialized():
        barriers.tell_host(roll.hosts[jax.process_index()])
    own = {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)}
    everyone = [json.loads(text) for text in barriers.gather("devices", json.dumps(own), limit_s=limit_s)]
    first = everyone[0]
    for number, each in enumerate(everyone):
        if (each["platform"], each["kind"]) != (first["platform"], first["kind"]):
            raise ConfigError(
                f"the processes of this run differ: process 0 ({roll.hosts[0]}) computes on {first['kind']} "
                f"({first['platform']}) and process {number} ({roll.hosts[number]}) on {each['kind']} "
                f"({each['platform']}); use machines of one kind, and install the same JAX on all"
            )
    used = [int(each["count"]) for each in everyone]
    on_cpu = first["platform"] == "cpu"
    if not on_cpu and (idle := idle_sentence(roll.hosts, roll.seen, used)):
        raise ConfigError(idle)
    if jax.process_index() == 0:
        _announce(roll, used, str(first["kind"]), origin)
        seen = visible_accelerators(os.environ) if on_cpu else Accelerators()
        plugins = installed_plugins()
        line = unused_sentence(first["platform"], seen, os.environ, plugins=plugins, jax_version=jax.__version__)
        if line:
            print(f"warning: {line}", file=sys.stderr)


def _announce(roll: _Roll, used: Sequence[int], kind: str, origin: str) -> None:
    if sum(used) > 1:
        print(devices_line(roll.hosts, used, kind, origin))


def devices_line(hosts: Sequence[str], used: Sequence[int], kind: str, origin: str) -> str:
    """Returns hosts × devices of a run, as `2 hosts × 4 devices (8 × NVIDIA H100; 8 processes, by Slurm)`.

    Args:
        hosts: Name of the host of every process.
        used: Number of devices that every process uses.
        kind: Kind of the devices.
        origin: Names of what says the places of the processes.
    """
    by_host: Counter[str] = Counter()
    for host, count in zip(hosts, used, strict=True):
        by_host[host] += count
    least, most = min(by_host.values()), max(by_host.values())
    each = f"{most} device{'s' * (most > 1)}" if least == most else f"{least} to {most} devices"
    by = f"; {len(hosts)} processes, by {origin}" if len(hosts) > 1 else ""
    return f"{len(by_host)} host{'s' * (len(by_host) > 1)} × {each} ({sum(used)} × {visible(kind)}{by})"
