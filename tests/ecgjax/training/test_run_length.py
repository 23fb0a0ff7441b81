"""The record of extensions in a workdir: the same command asks for the same steps."""

import json

import pytest

from ecgjax.config import run_config
from ecgjax.errors import ConfigError
from ecgjax.optim import Extension
from ecgjax.settings.initialisation import InitSettings
from ecgjax.training.checkpoints.checkpoint import Saved
from ecgjax.training.run_length import (
    EXTENSIONS_FILE,
    check_kept,
    describe_extensions,
    extensions_after,
    read_extensions,
    with_extension,
    write_extensions,
)

AS_BEFORE = InitSettings()
REWARM = InitSettings(schedule="rewarm")


def test_an_extension_is_counted_from_the_length_in_the_config_however_often_it_is_given():
    once = with_extension((), 4, AS_BEFORE, at_step=10)
    assert once == (Extension(begin=0, end=4, given_at_step=10),)
    assert with_extension(once, 4, AS_BEFORE, at_step=12) == once
    assert with_extension(once, None, AS_BEFORE, at_step=14) == once
    twice = with_extension(once, 10, REWARM, at_step=14)
    assert twice == (*once, Extension(begin=4, end=10, schedule="rewarm", given_at_step=14))
    assert with_extension(twice, 10, AS_BEFORE, at_step=15) == twice
    assert with_extension(twice, 10, REWARM, at_step=15) == twice


def test_what_is_asked_otherwise_than_it_was_added_is_refused():
    known = with_extension((), 4, REWARM, at_step=10)
    with pytest.raises(ConfigError, match=r"extended by 4 steps already.* for 2 more give --extend=6"):
        with_extension(known, 2, AS_BEFORE, at_step=10)
    for steps in (4, None):
        with pytest.raises(ConfigError, match=r"were added with config\.init\.schedule='rewarm'"):
            with_extension(known, steps, InitSettings(schedule="constant", share=0.1), at_step=10)


def test_rates_of_an_extension_without_one_are_refused():
    with pytest.raises(ConfigError, match="was not extended: give --extend=STEPS"):
        with_extension((), None, REWARM, at_step=0)


def test_what_is_written_is_read(tmp_path):
    assert read_extensions(tmp_path) == ()
    write_extensions(tmp_path, ())
    assert not (tmp_path / EXTENSIONS_FILE).exists()
    known = with_extension(with_extension((), 4, AS_BEFORE, at_step=1), 9, REWARM, at_step=4)
    write_extensions(tmp_path, known)
    assert read_extensions(tmp_path) == known


WHOLE = {"begin": 0, "end": 4}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "3",
        '[{"begin": 0}]',
        json.dumps([WHOLE | {"end": 0}]),
        json.dumps([WHOLE | {"end": "4"}]),
        json.dumps([WHOLE | {"begin": 2}]),
        json.dumps([WHOLE, WHOLE]),
        json.dumps([WHOLE | {"schedule": "constant"}]),
        json.dumps([WHOLE | {"schedule": "downhill"}]),
        json.dumps([WHOLE | {"schedule": "rewarm", "share": 7.0}]),
    ],
)
def test_a_damaged_record_is_refused_by_name(tmp_path, content):
    (tmp_path / EXTENSIONS_FILE).write_text(content)
    with pytest.raises(ConfigError, match=rf"{EXTENSIONS_FILE}.* is damaged .*give --extend again"):
        read_extensions(tmp_path)


def test_a_folder_without_a_run_is_not_extended(tmp_path):
    with pytest.raises(ConfigError, match="has no run that could take more steps"):
        extensions_after(tmp_path, 4, AS_BEFORE, saved=None)
    (tmp_path / run_config.CONFIG_FILE).write_text("{}")
    assert extensions_after(tmp_path, 4, AS_BEFORE, saved=None)[-1].end == 4


def test_a_checkpoint_of_another_extension_is_refused(tmp_path):
    known = with_extension((), 4, REWARM, at_step=10)
    write_extensions(tmp_path, known)
    about = {"extensions": json.loads((tmp_path / EXTENSIONS_FILE).read_text())}
    check_kept(known, about)
    check_kept(with_extension(known, 9, AS_BEFORE, at_step=14), about)
    check_kept(known, {})
    for other in ((), with_extension((), 4, AS_BEFORE, at_step=10)):
        with pytest.raises(ConfigError, match="trained with other extensions"):
            check_kept(other, about)
    (tmp_path / EXTENSIONS_FILE).unlink()
    with pytest.raises(ConfigError, match="trained with other extensions"):
        extensions_after(tmp_path, None, AS_BEFORE, saved=Saved(12, {"about": about}))


def test_the_number_of_steps_is_told_with_what_it_is_made_of():
    assert describe_extensions((), 10) == ""
    known = with_extension((), 4, AS_BEFORE, at_step=10)
    known = with_extension(known, 1010, InitSettings(schedule="constant", share=0.1), at_step=14)
    assert describe_extensions(known, 1020) == (
        " (10 of the config, 4 more, 1,006 more by constant at 0.1 of the peak rate)"
    )
