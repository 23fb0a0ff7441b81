"""The place of a process in its run: where the first one listens, how many there are, and which one this is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ecgjax.errors import ConfigError

#: Greatest number of processes of a run that is believed; more is a mistake in an environment.
MOST_PROCESSES = 1_000_000

#: Variables of JAX's own that are heeded in every environment.
ADDRESS_VARIABLE, PORT_VARIABLE = "JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_PORT"

_LARGEST_PORT = 65535


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of this process in its run.

    Attributes:
        coordinator: Address that process 0 listens at, `host:port`.
        num_processes: Number of processes of the run.
        process_id: Number of this process, from 0.
        origin: Names of what says so: flags, variables or a cluster.
    """

    coordinator: str
    num_processes: int
    process_id: int
    origin: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """What one environment says of the place of this process; None stands for what it does not say.

    Attributes:
        origin: Name of the environment, for messages.
        coordinator: Address that process 0 listens at, `host:port`.
        num_processes: Number of processes of the run.
        process_id: Number of this process, from 0.
        remedy: How the address can be given where the environment does not say it.
    """

    origin: str
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    remedy: str = ""


def whole_number(environment: Mapping[str, str], name: str, *, least: int = 0) -> int:
    """Returns a variable of the environment as a number.

    Args:
        environment: Variables of the environment.
        name: Name of the variable, which is set.
        least: Least value that is possible.

    Raises:
        ConfigError: The variable is no whole number, or is out of bounds.
    """
    text = environment[name].strip()
    # `int` takes signs, underscores and digits of other scripts too, which no launcher writes.
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= MOST_PROCESSES:
        raise ConfigError(f"{name}={environment[name]!r} must be a whole number of at least {least}")
    return int(text)


def split_address(address: str, *, setting: str) -> tuple[str, int]:
    """Returns host and port of an address such as `node1:1234` or `[fe80::1]:1234`.

    Args:
        address: Address to split.
        setting: Name of the setting that gives it, for messages.

    Raises:
        ConfigError: The address has no host, or no port from 1 to 65535.
    """
    host, colon, port = address.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and bare and port.isascii() and port.isdigit() and 1 <= int(port) <= _LARGEST_PORT):
        raise ConfigError(f"{setting}={address!r} must be HOST:PORT, such as node1:1234")
    if ":" in host and bare == host:
        raise ConfigError(f"{setting}={address!r}: an IPv6 address stands in brackets, such as [fe80::1]:1234")
    return bare, int(port)


def missing(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Returns the names of variables that are not set, or are empty, joined by "and"; empty where all are set."""
    return " and ".join(name for name in names if not environment.get(name, "").strip())
