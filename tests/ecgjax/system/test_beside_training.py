import threading
import time

from ecgjax.system.beside_training import in_time


def test_what_ends_in_time_is_returned(capsys):
    assert in_time(lambda: 3, limit_s=30, otherwise=0, what="a number") == 3
    assert not capsys.readouterr().err


def test_work_that_fails_is_one_warning(capsys):
    assert in_time(lambda: [][0], limit_s=30, otherwise=0, what="a\nnumber") == 0
    told = capsys.readouterr().err
    assert told.endswith("(IndexError: list index out of range); training goes on without\n")


def test_work_that_hangs_is_left(capsys):
    answers, begin = threading.Event(), time.monotonic()
    assert in_time(lambda: answers.wait(30), limit_s=0.05, otherwise=0, what="an answer") == 0
    assert time.monotonic() - begin < 5
    assert capsys.readouterr().err == (
        "warning: an answer cannot be had (no answer for 0.05 s); training goes on without\n"
    )
    answers.set()
