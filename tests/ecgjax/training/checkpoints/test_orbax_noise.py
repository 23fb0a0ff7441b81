"""What Orbax prints where a disk fails is silenced, and nothing else is."""

import logging
import sys
import types

import pytest

from ecgjax.training.checkpoints.orbax_noise import silence_orbax


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    silence_orbax()
    silence_orbax()
    return told


def unraisable(error, of=None):
    return types.SimpleNamespace(exc_type=type(error), exc_value=error, object=of)


def test_only_late_answers_and_freed_coroutines_of_orbax_are_passed_over(told):
    orbax, ours = (
        types.SimpleNamespace(cr_code=types.SimpleNamespace(co_filename=f"/site-packages/{name}/reading.py"))
        for name in ("orbax", "ecgjax")
    )
    sys.unraisablehook(unraisable(RuntimeError("Event loop is closed")))
    sys.unraisablehook(unraisable(ValueError("OUT_OF_RANGE"), orbax))
    assert told == []
    others = [
        unraisable(RuntimeError("Event loop is closed"), ours),
        unraisable(ValueError("OUT_OF_RANGE"), ours),
        unraisable(RuntimeError("other")),
    ]
    for each in others:
        sys.unraisablehook(each)
    assert told == others


def test_only_records_of_orbax_are_not_logged(told, caplog):
    def record(name, path):
        return logging.LogRecord(name, logging.ERROR, path, 1, "message", (), None)

    for name in ("", "absl", "asyncio"):
        logger = logging.getLogger(name)
        assert not logger.filter(record(name, "/site-packages/orbax/checkpoint/future.py"))
        assert logger.filter(record(name, "/ecgjax/pretrain.py"))
