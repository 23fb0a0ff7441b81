"""The settings that `--help` lists fit the terminal."""

import pytest

from ecgjax import defaults
from ecgjax.config.help import describe_leaves


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_settings_fit_the_terminal(columns):
    shown = describe_leaves(defaults.leaves(), {}, of="a config of a long name, at that", columns=columns)
    # A setting is one word, so that it can be copied.
    meanings = [line for line in shown.split("\n") if not line.startswith("    --config.")]
    assert max(map(len, meanings)) <= min(columns, 130)
    elsewhere = describe_leaves(defaults.leaves(), {}, of="a config of a long name, at that")
    assert "".join(shown.split()) == "".join(elsewhere.split())


def test_without_a_terminal_the_heading_is_one_line():
    heading, empty, *_ = describe_leaves(defaults.leaves(), {}, of="x").split("\n")
    assert heading == "Settings of x. Each is changed by --config.NAME=VALUE; None, where it is possible, by =None."
    assert not empty
