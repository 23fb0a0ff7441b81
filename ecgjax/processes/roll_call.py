"""The roll call of the processes of a run, before JAX connects them: who came, who is missing, who came twice.

JAX's own start ends a process by SIGABRT where another one is missing, and says neither which nor where the others are.
So process 0 first listens at the coordinator's address itself. Every process (process 0 too, so that a second one of
that number is found) connects there and says who it is. Questions follow in rounds: every process says something,
process 0 judges what all have said, and all get the same answer or end with the same sentence. Then the port is given
over to JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from data_pipelines.system.visible_text import visible
from ecgjax.errors import ConfigError
from ecgjax.processes.place import Place, split_address

#: What a process says, and what it is answered: values of JSON by name.
Said = Mapping[str, Any]

#: Judgement of a round: what every process has said (and its `host`), in the order of their numbers, to what all are
#: answered. A `ConfigError` that it raises ends the start of all processes.
Judge = Callable[[Sequence[Said]], Said]

#: Name of the answer that ends the start of all processes with a sentence.
PROBLEM = "problem"

_BIND_VARIABLE = "JAX_COORDINATOR_BIND_ADDRESS"
_MAGIC = "ecgjax roll call 1"
_LONGEST_LINE = 2**24
_CONNECT_S, _LAST_WORDS_S, _MOMENT_S, _SLACK_S = 5.0, 10.0, 0.5, 20.0
_MOST_NAMED = 8


def named(members: Mapping[int, str]) -> str:
    """Returns processes with their hosts, as `0 (node1), 1 (node2)`; the first ones of many.

    Args:
        members: Hosts by the number of the process.
    """
    shown = [f"{number} ({visible(host)})" for number, host in sorted(members.items())[:_MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(members) - len(shown)} more" if len(members) > len(shown) else "")


def numbered(numbers: Sequence[int]) -> str:
    """Returns the numbers of processes, runs of them joined, as `3, 5-8`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_MOST_NAMED]]
    return ", ".join(shown) + (", …" if len(runs) > len(shown) else "")


class RollCall:
    """One process's part in the roll call, as a context manager; process 0 also presides.

    Args:
        place: Place of this process.
        host: Name of this process's host.
        limit_s: Seconds that everything may take until all are there, and again every later round.
        agenda: Judgements of the rounds, in their order; process 0's count.
        environment: Variables of the environment, of which one names the address to bind to.
        greeting: What this process says in the first round.

    Raises:
        ConfigError: Process 0 is not to be found, or does not answer.
    """

    def __init__(
        self,
        place: Place,
        *,
        host: str,
        limit_s: float,
        agenda: Sequence[Judge],
        greeting: Said,
        environment: Mapping[str, str] = os.environ,
    ):
        self._place, self._host, self._limit_s = place, host, limit_s
        self._agenda, self._environment = agenda, environment
        self._chair: _Chair | None = None
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._greeting = {
            "call": _MAGIC,
            "process": place.process_id,
            "of": place.num_processes,
            "host": host,
            "pid": os.getpid(),
            "nonce": secrets.token_hex(8),
            "said": dict(greeting),
        }

    def __enter__(self) -> RollCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._chair is not None:
            # All are to have their answer before this process ends, and the port is to be free for JAX.
            self._chair.stop(at_once=kind is not None and not issubclass(kind, ConfigError))

    def greet(self) -> Said:
        """Connects to process 0, says the greeting, and returns the answer that all get once all have come.

        Raises:
            ConfigError: Process 0 is not to be found within the limit, or all are told of a problem.
        """
        until = time.monotonic() + self._limit_s
        reason, pause = "nobody answers", 0.05
        while (left := until - time.monotonic()) > 0:
            if self._place.process_id == 0 and self._chair is None:
                # Another process may hold the port: one of an earlier run that has not ended yet, or a second 0.
                self._chair = _preside(self._place, self._limit_s, self._agenda, self._environment)
            try:
                self._connect(min(left, _CONNECT_S))
                self._send(self._greeting)
                return self._answer()
            except ConfigError:  # It is a ValueError too.
                raise
            except (OSError, EOFError, ValueError) as caught:
                # Process 0 may not have come yet, or another program may still hold its port.
                reason = _reason(caught)
                self._hang_up()
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(2 * pause, 1.0)
        raise ConfigError(self._alone(reason))

    def say(self, said: Said) -> Said:
        """Says something in the next round, and returns the answer that all get.

        Args:
            said: What this process says.

        Raises:
            ConfigError: All are told of a problem, or process 0 has gone.
        """
        try:
            self._send({"said": dict(said)})
            return self._answer()
        except ConfigError:  # It is a ValueError too.
            raise
        except (OSError, EOFError, ValueError) as error:
            raise ConfigError(
                f"process {self._place.process_id} on {self._host} has lost process 0 at {self._place.coordinator} "
                f"({_reason(error)}) while the run began; its output says why"
            ) from error

    def _connect(self, seconds: float) -> None:
        host, port = split_address(self._place.coordinator, setting="the coordinator")
        self._buffer = b""
        self._socket = socket.create_connection((host, port), timeout=seconds)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _send(self, line: Said) -> None:
        if self._socket is None:
            raise EOFError("not connected")
        self._socket.settimeout(self._limit_s)
        self._socket.sendall(json.dumps(line).encode() + b"\n")

    def _answer(self) -> Said:
        """Waits for the answer of process 0, which has limits of its own and normally answers within them."""
        if self._socket is None:
            raise EOFError("not connected")
        until = time.monotonic() + self._limit_s + _SLACK_S
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.01, until - time.monotonic()))
            part = self._socket.recv(2**16)
            if not part:
                raise EOFError("it hung up")
            self._buffer += part
            if not self._buffer.startswith(b"{") or len(self._buffer) > _LONGEST_LINE:
                raise ValueError("what listens there is no process of ecgjax, or a run that has begun already")
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict) or answer.get("call") != _MAGIC:
            raise ValueError("what listens there is no process of this version of ecgjax")
        if PROBLEM in answer:
            raise ConfigError(str(answer[PROBLEM]))
        return answer

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _alone(self, reason: str) -> str:
        place = self._place
        who = f"process {place.process_id} of {place.num_processes} on {self._host}"
        if place.process_id == 0:
            return (
                f"{who} does not reach itself at {place.coordinator} within {self._limit_s:g} s ({reason}): the "
                f"address must be one of the machine of process 0 ({place.origin})"
            )
        return (
            f"{who} found no process 0 at {place.coordinator} within {self._limit_s:g} s ({reason}): start process 0, "
            f"and check that the address is its machine's and that the port is open ({place.origin})"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "the answer makes no sense" if isinstance(error, json.JSONDecodeError) else str(error)


@dataclasses.dataclass
class _Caller:
    """A connection to process 0: what has come of a line, lines, who has said to be there, and whether it was told."""

    socket: socket.socket
    buffer: bytes = b""
    greeting: Mapping[str, Any] | None = None
    lines: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    told: bool = False


class _Chair:
    """Process 0 as the one who presides: a thread that collects what all say, judges it and answers."""

    def __init__(self, listener: socket.socket, num_processes: int, limit_s: float, agenda: Sequence[Judge]):
        self._listener, self._number, self._limit_s, self._agenda = listener, num_processes, limit_s, agenda
        self._callers: list[_Caller] = []
        self._early = True  # Others may still come.
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._preside, name="roll call", daemon=True)
        self._thread.start()

    def stop(self, *, at_once: bool) -> None:
        """Waits until everyone has had the last answer, and frees the port."""
        if at_once:
            self._over.set()
        self._thread.join(self._limit_s + _SLACK_S)

    def _preside(self) -> None:
        try:
            for number, judge in enumerate(self._agenda):
                problem = self._collect(first=number == 0)
                members = self._members()
                if problem is not None:
                    raise ConfigError(problem)
                self._early = False
                self._tell(judge([members[index].lines.pop(0) for index in range(self._number)]), self._callers)
            self._let_them_go()
        except ConfigError as error:
            self._refuse(str(error))
        except Exception as error:
            told = f"process 0 failed while the run began ({error!r}); its output says more"
            self._tell({PROBLEM: told}, self._callers)
            raise
        finally:
            for caller in self._callers:
                caller.socket.close()
            self._listener.close()
            self._selector.close()

    def _members(self) -> dict[int, _Caller]:
        return {each.greeting["process"]: each for each in self._callers if each.greeting is not None}

    def _collect(self, *, first: bool) -> str | None:
        """Waits until every process has said something; returns what is wrong, or None."""
        until = time.monotonic() + self._limit_s
        before = {number: str(each.greeting["host"]) for number, each in self._members().items() if each.greeting}
        while not self._over.is_set():
            members = self._members()
            if problem := self._twice() if first else self._gone(before, members):
                return problem
            if len(members) == self._number and all(each.lines for each in members.values()):
                return None
            left = until - time.monotonic()
            if left <= 0:
                self._early = False
                return self._absent(members)
            self._read(min(left, 0.2))
        return "process 0 was stopped while the run began"

    def _twice(self) -> str | None:
        by_number: dict[int, _Caller] = {}
        for each in self._callers:
            if each.greeting is None:
                continue
            number, greeting = each.greeting["process"], each.greeting
            if greeting["of"] != self._number:
                return (
                    f"process {number} on {visible(greeting['host'])} is one of {greeting['of']}, but process 0 waits "
                    f"for {self._number}: start all processes with the same number of them, and runs of their own at "
                    "other addresses"
                )
            if number in by_number:
                one, other = (
                    f"{visible(str(each['host']))} (process id {each['pid']})"
                    for each in (by_number[number].greeting or {}, greeting)
                )
                return (
                    f"process {number} of {self._number} came twice: from {one} and from {other}; give every process a "
                    "number of its own, from 0, and runs of their own other addresses"
                )
            by_number[number] = each
        return None

    def _gone(self, before: Mapping[int, str], members: Mapping[int, _Caller]) -> str | None:
        left = {number: host for number, host in before.items() if number not in members}
        return f"process {named(left)} left while the run began; its output says why" if left else None

    def _absent(self, members: Mapping[int, _Caller]) -> str:
        there = {number: str(each.greeting["host"]) for number, each in members.items() if each.greeting and each.lines}
        absent = [number for number in range(self._number) if number not in there]
        return (
            f"of {self._number} processes {numbered(absent)} did not come within {self._limit_s:g} s; there "
            f"{'is' if len(there) == 1 else 'are'} {named(there) or 'none'}. Look at the output of the missing ones, "
            "or start the run with as many processes as there are (--start_timeout_s sets the limit)"
        )

    def _read(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._listener:
                with contextlib.suppress(OSError):
                    connection, _ = self._listener.accept()
                    connection.setblocking(False)
                    self._callers.append(_Caller(connection))
                    self._selector.register(connection, selectors.EVENT_READ, self._callers[-1])
            else:
                self._hear(key.data)

    def _hear(self, caller: _Caller) -> None:
        try:
            part = caller.socket.recv(2**16)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        caller.buffer += part
        if not part or len(caller.buffer) > _LONGEST_LINE:
            self._drop(caller)
            return
        while b"\n" in caller.buffer:
            line, _, caller.buffer = caller.buffer.partition(b"\n")
            if (said := _understood(line, first=caller.greeting is None)) is None:
                self._drop(caller)
                return
            if caller.greeting is None:
                caller.greeting = said
            caller.lines.append({**said["said"], "host": caller.greeting["host"]})

    def _drop(self, caller: _Caller) -> None:
        self._selector.unregister(caller.socket)
        caller.socket.close()
        self._callers.remove(caller)

    def _tell(self, answer: Said, callers: Sequence[_Caller]) -> None:
        line = json.dumps({"call": _MAGIC, **answer}).encode() + b"\n"
        for caller in callers:
            with contextlib.suppress(OSError):
                caller.socket.settimeout(_CONNECT_S)
                caller.socket.sendall(line)
                caller.socket.setblocking(False)

    def _refuse(self, problem: str) -> None:
        """Tells the problem to all who are there, and for a while to those who come: they would wait for nothing."""
        answer, told = {PROBLEM: problem}, 0
        until = time.monotonic() + (_LAST_WORDS_S if self._early else _MOMENT_S)
        while not self._over.is_set():
            waiting = [each for each in self._callers if each.greeting is not None and not each.told]
            self._tell(answer, waiting)
            for each in waiting:
                each.told = True
            told += len(waiting)
            if told >= self._number or time.monotonic() > until:
                break
            self._read(0.05)
        self._let_them_go()

    def _let_them_go(self) -> None:
        """Waits for the others to hang up: a port on which this side closes first stays taken for a while."""
        until = time.monotonic() + _LAST_WORDS_S
        while self._callers and time.monotonic() < until and not self._over.is_set():
            self._read(0.05)


def _understood(line: bytes, *, first: bool) -> Mapping[str, Any] | None:
    """Returns what a line says; None where it is not a process's: anyone may connect to a port."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("said"), dict):
        return None
    if not first:
        return said
    right = said.get("call") == _MAGIC and isinstance(said.get("host"), str)
    numbers = all(isinstance(said.get(name), int) and said[name] >= 0 for name in ("process", "of", "pid"))
    return said if right and numbers and said["process"] < said["of"] else None


def _preside(place: Place, limit_s: float, agenda: Sequence[Judge], environment: Mapping[str, str]) -> _Chair | None:
    """Listens at the coordinator's port; None where another process holds it, who may be a second process 0."""
    try:
        return _Chair(_listen(place, environment, place.num_processes), place.num_processes, limit_s, agenda)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise ConfigError(
            f"process 0 cannot listen at {environment.get(_BIND_VARIABLE) or place.coordinator} ({error.strerror}); "
            f"{_BIND_VARIABLE} must be an address of this machine, and the port free"
        ) from error


def _listen(place: Place, environment: Mapping[str, str], backlog: int) -> socket.socket:
    _, port = split_address(place.coordinator, setting="the coordinator")
    host = ""
    if bind := environment.get(_BIND_VARIABLE):
        host, port = split_address(bind, setting=_BIND_VARIABLE)
    error: OSError | None = None
    for family, address in _addresses(host, port):
        with contextlib.ExitStack() as closing:
            try:
                listener = socket.socket(family, socket.SOCK_STREAM)
                closing.callback(listener.close)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host) and host != "::"))
                listener.bind(address)
                listener.listen(min(backlog + 16, 4096))
            except OSError as caught:
                error = caught
                if caught.errno == errno.EADDRINUSE:
                    raise
                continue
            closing.pop_all()
            return listener
    raise error or OSError(errno.EADDRNOTAVAIL, "no address")


def _addresses(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, Any]]:
    if not host:
        yield socket.AF_INET6, ("::", port)
        yield socket.AF_INET, ("0.0.0.0", port)
        return
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        yield family, address
