"""Accounts of hand-written event lists; every expected number is computed by hand beside them."""

import pytest

from ecgjax.training.run_time.account import account_of
from ecgjax.training.run_time.events import TimeEvent


def event(begun, at, occasion, first, done, /, **spent):
    return TimeEvent(begun=begun, at=at, occasion=occasion, first=first, step=done, spent=zeros(spent))


def zeros(spent):
    return dict.fromkeys(("init", "compile", "input", "step", "evaluate", "save"), 0.0) | spent


# A start of 100 s: 10 init, 20 compile, then 30 steps with a save at 20, and a kill after step 30.
KILLED = [
    event(1000.0, 1000.0, "begin", None, 0),
    event(1000.0, 1030.0, "train", 0, 0, init=10, compile=20),
    event(1000.0, 1075.0, "save", 0, 20, init=10, compile=20, input=4, step=40, save=1),
    event(1000.0, 1100.0, "alive", 0, 30, init=10, compile=20, input=8, step=61, save=1),
]

END = event(1000.0, 1110.0, "finished", 0, 35, init=10, compile=20, input=8, step=71, save=1)


def test_one_finished_start_has_nothing_lost_and_nothing_down():
    account = account_of([*KILLED, END])
    assert account.seconds == {
        "init": 10, "compile": 20, "input": 8, "step": 71, "evaluate": 0, "save": 1, "lost": 0, "down": 0,
    }  # fmt: skip
    assert account.goodput == pytest.approx(71 / 110)
    assert account.starts[0].ended == "finished"


def test_steps_after_the_last_save_are_lost_once_they_are_done_again():
    again = [
        event(1150.0, 1150.0, "begin", None, 0),
        event(1150.0, 1160.0, "train", 20, 20, init=9, compile=1),
        event(1150.0, 1190.0, "finished", 20, 35, init=9, compile=1, step=28, save=2),
    ]
    alone, account = account_of(KILLED), account_of([*KILLED, *again])
    assert alone.seconds["lost"] == 0, "nothing was done again yet"
    # Steps 21 to 30 took 4 s of input and 21 s of steps; 50 s lie between the two starts.
    assert account.seconds == {
        "init": 19, "compile": 21, "input": 4, "step": 40 + 28, "evaluate": 0, "save": 3, "lost": 25, "down": 50,
    }  # fmt: skip
    assert sum(account.seconds.values()) == 190
    assert account.goodput == pytest.approx(68 / 190)
    assert [start.lost_steps for start in account.starts] == [10, 0]
    assert [start.ended for start in account.starts] == ["", "finished"]


def test_a_start_that_goes_back_further_loses_what_two_starts_did():
    second = [
        event(1100.0, 1101.0, "train", 20, 20, init=1),
        event(1100.0, 1121.0, "alive", 20, 40, init=1, step=20),
    ]
    # The checkpoint of step 20 is found damaged, and the third start begins anew.
    third = [event(1130.0, 1131.0, "train", 0, 0, init=1), event(1130.0, 1141.0, "alive", 0, 10, init=1, step=10)]
    account = account_of([*KILLED, *second, *third])
    assert [start.lost_steps for start in account.starts] == [30, 20, 0]
    assert [start.spent["lost"] for start in account.starts] == [8 + 61 + 1, 20, 0]
    assert account.seconds["down"] == 0 + 9
    assert account.goodput == pytest.approx(10 / (100 + 21 + 9 + 11))


def test_between_two_lines_time_is_divided_evenly_over_steps():
    without_save = [KILLED[0], KILLED[1], KILLED[3]]
    account = account_of([*without_save, event(1100.0, 1101.0, "train", 20, 20, init=1)])
    # 30 steps took 8, 61 and 1 s of which a third is lost.
    assert account.seconds["lost"] == pytest.approx((8 + 61 + 1) / 3)


def test_a_start_killed_while_it_compiles_has_no_steps_and_loses_none():
    early = [event(900.0, 900.0, "begin", None, 0), event(900.0, 960.0, "alive", None, 0, init=15, compile=45)]
    account = account_of([*early, *KILLED])
    assert account.starts[0].first is None
    assert account.starts[0].lost_steps == 0
    assert account.seconds["compile"] == 65
    assert account.seconds["down"] == 40


def test_a_clock_that_goes_back_makes_no_negative_time_and_is_told():
    account = account_of([*KILLED, event(1050.0, 1051.0, "train", 30, 30, init=1)])
    assert account.seconds["down"] == 0
    assert [start.clock_went_back for start in account.starts] == [True, False]
    assert sum(account.seconds.values()) == 101


def test_time_after_the_end_of_a_run_is_no_time_of_its_extension():
    account = account_of([*KILLED, END, event(999000.0, 999001.0, "train", 35, 35, init=1)])
    assert account.seconds["down"] == 0


def test_no_events_are_no_time():
    assert account_of([]).goodput == 0
