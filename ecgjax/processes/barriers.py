"""Waiting for the other processes of a run: with a limit, and an error that names who is missing.

A collective between devices waits for ever, and nobody can cancel it. What is exchanged here goes through JAX's
coordination service instead, which knows time. A process that ends with an error tells the others, so that they end
with its sentence rather than at their limit.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import distributed

from data_pipelines.command import EXIT_USER_ERROR
from data_pipelines.errors import DataError
from data_pipelines.system.visible_text import visible
from ecgjax.errors import CheckpointError, ConfigError, DivergedError
from ecgjax.processes.roll_call import named

#: Seconds that processes wait for each other where nothing else is asked for. Compilation and opening of large data
#: sets take processes different times.
LIMIT_S = 600.0

_PREFIX = "ecgjax"
_POLL_S = 1.0

# Calls of one topic are told apart by their number, which all processes count alike.
_calls: collections.Counter[str] = collections.Counter()


class _ToldError(ConfigError):
    """Another process has failed and has told why."""


def gather(topic: str, value: str, *, limit_s: float = LIMIT_S) -> list[str]:
    """Returns a text of every process, in the order of their numbers.

    All processes must call it, for the same topics in the same order.

    Args:
        topic: What the texts are about, for messages.
        value: Text of this process.
        limit_s: Seconds to wait for the others.

    Raises:
        ConfigError: Processes did not come within the limit, or one has failed meanwhile; the message names them.
    """
    if jax.process_count() == 1:
        return [value]
    client, me = _client(), jax.process_index()
    _calls[topic] += 1
    key = f"{_PREFIX}/{topic}/{_calls[topic]}"
    client.key_value_set(f"{key}/{me}", value)
    values: dict[int, str] = {me: value}
    until = time.monotonic() + limit_s
    for number in range(jax.process_count()):
        while number not in values:
            left = until - time.monotonic()
            text = _get(client, f"{key}/{number}", min(_POLL_S, max(0.05, left)))
            if text is not None:
                values[number] = text
            elif failed := _failure(client):
                raise _ToldError(failed)
            elif left <= 0:
                _collect(client, key, values)
                raise ConfigError(_absent(client, topic, values, limit_s))
    return [values[number] for number in range(jax.process_count())]


def wait_for_all(topic: str, *, limit_s: float = LIMIT_S) -> None:
    """Waits until every process has come here.

    Args:
        topic: What is waited for, for messages.
        limit_s: Seconds to wait for the others.

    Raises:
        ConfigError: Processes did not come within the limit, or one has failed meanwhile; the message names them.
    """
    gather(topic, "", limit_s=limit_s)


@contextlib.contextmanager
def telling_failures() -> Iterator[None]:
    """Context manager that tells the other processes of a user's error of this one, who wait for it."""
    try:
        yield
    except _ToldError:
        raise
    except (ConfigError, DataError, CheckpointError, DivergedError) as error:
        if jax.distributed.is_initialized() and jax.process_count() > 1:
            me = jax.process_index()
            text = f"process {named({me: host_of(me)})} has ended: {error}"
            # The others may have gone, and this error counts in any case.
            with contextlib.suppress(Exception):
                _client().key_value_set(f"{_PREFIX}/failed/{me}", text)
        raise


@contextlib.contextmanager
def limited(what: str, *, limit_s: float, hint: str) -> Iterator[None]:
    """Context manager that ends the process with a sentence where its block takes too long.

    It is for collectives between devices, which cannot be cancelled: nothing else stops a process that hangs in one.

    Args:
        what: What takes long, for the message.
        limit_s: Seconds that the block may take.
        hint: What to look at, for the message.
    """

    def give_up() -> None:
        print(
            # JAX must not be asked here: it may be what hangs.
            f"error: {what} did not end within {limit_s:g} s on process {distributed.global_state.process_id}; {hint}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_USER_ERROR)

    timer = threading.Timer(limit_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell_host(host: str) -> None:
    """Tells the other processes the name of this one's host, for their messages."""
    _client().key_value_set(f"{_PREFIX}/host/{jax.process_index()}", host, allow_overwrite=True)


def host_of(number: int) -> str:
    """Returns the name of a process's host, or "unknown host" where it has not told."""
    return _get(_client(), f"{_PREFIX}/host/{number}", 0.0) or "unknown host"


def _client() -> Any:
    client = distributed.global_state.client
    if client is None:
        raise RuntimeError("the processes are not connected; processes.begin must come first")
    return client


def _get(client: Any, key: str, seconds: float) -> str | None:
    """Returns the text of a key; None where it is not set within some seconds."""
    try:
        if seconds <= 0:
            return str(client.key_value_try_get(key))
        return str(client.blocking_key_value_get(key, int(1000 * seconds)))
    except jax.errors.JaxRuntimeError as error:
        if any(word in str(error) for word in ("DEADLINE_EXCEEDED", "NOT_FOUND")):
            return None
        raise


def _collect(client: Any, key: str, values: dict[int, str]) -> None:
    for number in range(jax.process_count()):
        if number not in values and (text := _get(client, f"{key}/{number}", 0.0)) is not None:
            values[number] = text


def _failure(client: Any) -> str | None:
    failed = client.key_value_dir_get(f"{_PREFIX}/failed")
    return str(failed[0][1]) if failed else None


def _absent(client: Any, topic: str, values: dict[int, str], limit_s: float) -> str:
    del client
    absent = {number: host_of(number) for number in range(jax.process_count()) if number not in values}
    return (
        f"process {named(absent)} did not come to the comparison of {visible(topic)} within {limit_s:g} s; there "
        f"{'is' if len(values) == 1 else 'are'} {named({number: host_of(number) for number in values})}. Look at the "
        "output of what is missing"
    )
