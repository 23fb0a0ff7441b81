"""Steps of a run whose length is given in steps, epochs or examples."""

import pytest

from ecgjax.errors import ConfigError
from ecgjax.training.run import num_steps
from ecgjax.training.settings import DurationSettings


@pytest.mark.parametrize(
    ("value", "unit", "steps"),
    [(10.0, "steps", 10), (2.0, "epochs", 50), (0.5, "epochs", 13), (65.0, "examples", 17), (1.0, "examples", 1)],
)
def test_durations(value, unit, steps):
    duration = DurationSettings(value=value, unit=unit)
    assert num_steps(duration, batch_size=4, examples_per_epoch=100) == steps


@pytest.mark.parametrize(
    ("value", "unit", "message"), [(1.0, "hours", "unknown; there are: steps"), (0.0, "epochs", "not a single")]
)
def test_bad_durations(value, unit, message):
    duration = DurationSettings(value=value, unit=unit)
    with pytest.raises(ConfigError, match=message):
        num_steps(duration, batch_size=4, examples_per_epoch=100)
