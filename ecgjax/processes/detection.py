"""Detection of the place of this process, from flags, variables of ours, and the cluster that has started it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeVar

from ecgjax.errors import ConfigError
from ecgjax.processes import clusters
from ecgjax.processes.place import ADDRESS_VARIABLE, MOST_PROCESSES, Claim, Place, split_address, whole_number

T = TypeVar("T", int, str)

#: Clusters by the name that `ECGJAX_CLUSTER` gives them, in the order in which they are asked.
CLUSTERS: Mapping[str, Callable[[Mapping[str, str]], Claim | None]] = {
    "tpu": clusters.tpu_pod,
    "jobset": clusters.jobset,
    "slurm": clusters.slurm,
    "openmpi": clusters.open_mpi,
    "mpich": clusters.mpich,
}

CLUSTER_VARIABLE = "ECGJAX_CLUSTER"

#: Flag of a command → variable of the environment that says the same.
VARIABLES = {
    "coordinator": "ECGJAX_COORDINATOR",
    "num_processes": "ECGJAX_NUM_PROCESSES",
    "process_id": "ECGJAX_PROCESS_ID",
}


@dataclasses.dataclass(frozen=True)
class Given:
    """What flags say of the place of this process; None stands for a flag that is not given.

    Attributes:
        coordinator: Address that process 0 listens at, `host:port`.
        num_processes: Number of processes of the run.
        process_id: Number of this process, from 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def find_place(environment: Mapping[str, str], given: Given | None = None) -> Place | None:
    """Returns the place of this process in its run, or None where it is the only one.

    Flags and the variables `ECGJAX_COORDINATOR`, `ECGJAX_NUM_PROCESSES` and `ECGJAX_PROCESS_ID` say it, or the cluster
    that has started the process, or both together: the address may be given, and the cluster says the rest.
    `ECGJAX_CLUSTER` names the cluster to ask (a key of `CLUSTERS`), or is 1 to demand one, or 0 to ask none.

    Args:
        environment: Variables of the environment.
        given: Values of flags.

    Raises:
        ConfigError: Settings are missing, are none, or contradict each other; the message names them.
    """
    own = _own(environment, given or Given())
    # What is said in full needs no cluster, whose variables may then be set in part.
    complete = own is not None and None not in (own.coordinator, own.num_processes, own.process_id)
    found = _claims(environment, strict=not complete)
    claims = [*([own] if own else []), *found]
    if not claims:
        return None
    _check_alike(claims)
    if address := environment.get(ADDRESS_VARIABLE, "").strip():
        # This variable of JAX says where process 0 is, and never that there are several.
        claims.insert(1 if own and own.coordinator else 0, Claim(ADDRESS_VARIABLE, coordinator=address))
    number = next((claim.num_processes for claim in claims if claim.num_processes is not None), None)
    index = next((claim.process_id for claim in claims if claim.process_id is not None), None)
    if number is None or index is None:
        raise ConfigError(_partly(claims))
    if not 1 <= number <= MOST_PROCESSES or not 0 <= index < number:
        raise ConfigError(f"process {index} of {number} is not possible ({claims[0].origin}); numbers begin at 0")
    if number == 1:
        return None
    by = next((claim for claim in claims if claim.coordinator is not None), None)
    if by is None or by.coordinator is None:
        remedies = "".join(f": {claim.remedy}" for claim in claims if claim.remedy)
        raise ConfigError(
            f"{claims[0].origin} does not say where process 0 is to be found; give --coordinator=HOST:PORT or "
            f"{VARIABLES['coordinator']}, the same to all processes{remedies}"
        )
    split_address(
        by.coordinator, setting=by.origin if by is own or by not in found else f"{by.origin}: the coordinator"
    )
    return Place(by.coordinator, number, index, " and ".join(claim.origin.split(" and ")[0] for claim in claims))


def _own(environment: Mapping[str, str], given: Given) -> Claim | None:
    """Returns what flags and variables of ours say; None where none of them is set."""
    names: list[str] = []

    def said(flag: str, asked: T | None, read: Callable[[str], T]) -> T | None:
        variable = VARIABLES[flag]
        value = read(variable) if environment.get(variable, "").strip() else None
        if asked is not None and value is not None and asked != value:
            raise ConfigError(f"--{flag}={asked} contradicts {variable}={value}; leave one of them out")
        if asked is not None or value is not None:
            names.append(f"--{flag}" if asked is not None else variable)
        return value if asked is None else asked

    coordinator = said("coordinator", given.coordinator, lambda variable: environment[variable].strip())
    number = said("num_processes", given.num_processes, lambda variable: whole_number(environment, variable, least=1))
    index = said("process_id", given.process_id, lambda variable: whole_number(environment, variable))
    return Claim(" and ".join(names), coordinator, number, index) if names else None


def _partly(claims: list[Claim]) -> str:
    own = claims[0]
    absent = [VARIABLES[name] for name in VARIABLES if not any(getattr(claim, name) is not None for claim in claims)]
    return (
        f"{own.origin} {_is(own.origin)} set but {' and '.join(absent)} {_is(' and '.join(absent))} not, and no "
        "cluster says it; set all three, or give --coordinator, --num_processes and --process_id"
    )


def _claims(environment: Mapping[str, str], *, strict: bool) -> list[Claim]:
    """Returns what the clusters say that are to be asked and are there; those of one process say nothing."""
    asked = environment.get(CLUSTER_VARIABLE, "").strip()
    if asked == "0":
        return []
    if asked not in ("", "1", *CLUSTERS):
        raise ConfigError(f"{CLUSTER_VARIABLE}={asked!r} is unknown; there are: 0, 1, {', '.join(CLUSTERS)}")
    found = []
    for detect in [CLUSTERS[asked]] if asked in CLUSTERS else list(CLUSTERS.values()):
        try:
            found.append(detect(environment))
        except ConfigError:
            if strict:
                raise
    claims = [claim for claim in found if claim is not None]
    if asked and strict and not claims:
        raise ConfigError(
            f"{CLUSTER_VARIABLE}={asked}, but the environment is not that of such a cluster; there are: "
            f"{', '.join(CLUSTERS)}. Start the processes by srun or mpirun, or set {', '.join(VARIABLES.values())}"
        )
    return [claim for claim in claims if claim.num_processes != 1]


def _check_alike(claims: list[Claim]) -> None:
    """Raises an error where two claims name another number of processes, or another number of this one."""
    for first in claims:
        for second in claims:
            for name, word in (("num_processes", "processes"), ("process_id", "process number")):
                one, other = getattr(first, name), getattr(second, name)
                if one is not None and other is not None and one != other:
                    raise ConfigError(
                        f"{first.origin} and {second.origin} contradict each other: {word} {one} and {other}; name the "
                        f"cluster that counts in {CLUSTER_VARIABLE} (0 for none; there are: {', '.join(CLUSTERS)})"
                    )


def _is(names: str) -> str:
    return "are" if " and " in names else "is"
