"""Schedules of runs that take steps beyond the length they were begun with."""

import dataclasses

import numpy as np
import pytest

from ecgjax import optim
from ecgjax.errors import ConfigError
from ecgjax.optim import Extension, OptimizerSettings
from ecgjax.optim.extension import check_rates


def rates(settings, num_steps, steps, *extensions):
    shape = optim.schedule(settings, num_steps, extensions=extensions)
    return np.array([float(shape(step)) for step in steps])


COSINE = OptimizerSettings(schedule="warmup_cosine", warmup_fraction=0.2)


@pytest.mark.parametrize("name", ["warmup_constant", "constant"])
def test_a_constant_rate_goes_on_with_the_warm_up_of_the_run_as_it_was_begun(name):
    settings = OptimizerSettings(schedule=name, warmup_fraction=0.2)
    found = rates(settings, 20, range(30), Extension(begin=0, end=10))
    np.testing.assert_array_equal(found, rates(settings, 20, range(30)))
    np.testing.assert_allclose(found, np.minimum(np.arange(30) / 4, 1), rtol=1e-6)


def test_a_cosine_that_has_come_to_0_is_refused_with_both_ways_to_go_on():
    with pytest.raises(ConfigError, match=r"come to 0 at step 20 .*schedule=rewarm.*schedule=constant.*share"):
        rates(COSINE, 20, [0], Extension(begin=0, end=10))


def test_a_cosine_that_ends_above_0_stays_there():
    settings = dataclasses.replace(COSINE, final_fraction=0.25)
    found = rates(settings, 20, range(30), Extension(begin=0, end=10))
    np.testing.assert_array_equal(found[:20], rates(settings, 20, range(20)))
    np.testing.assert_allclose(found[20:], 0.25, rtol=1e-6)


@pytest.mark.parametrize("final", [0.0, 0.25])
@pytest.mark.parametrize("share", [None, 0.5])
def test_rewarm_rises_from_where_the_rate_was_and_falls_in_a_cosine_over_the_added_steps(final, share):
    settings = dataclasses.replace(COSINE, final_fraction=final)
    found = rates(settings, 20, range(31), Extension(begin=0, end=10, schedule="rewarm", share=share))
    np.testing.assert_array_equal(found[:20], rates(settings, 20, range(20)))
    top = 1.0 if share is None else share
    warm = final + (top - final) * np.arange(2) / 2
    fall = np.pi * np.arange(9) / 8
    cosine = top * final + (top - top * final) * (1 + np.cos(fall)) / 2
    np.testing.assert_allclose(found[20:], [*warm, *cosine], atol=1e-6)


def test_constant_stays_at_its_share():
    found = rates(COSINE, 20, range(30), Extension(begin=0, end=10, schedule="constant", share=0.1))
    np.testing.assert_array_equal(found[:20], rates(COSINE, 20, range(20)))
    np.testing.assert_allclose(found[20:], 0.1, rtol=1e-6)


def test_each_extension_begins_where_the_one_before_ends():
    first, second = (
        Extension(begin=0, end=10, schedule="rewarm"),
        Extension(begin=10, end=15, schedule="constant", share=0.3),
    )
    found = rates(COSINE, 20, range(40), first, second)
    np.testing.assert_array_equal(found[:30], rates(COSINE, 20, range(30), first))
    np.testing.assert_allclose(found[30:], 0.3, rtol=1e-6)
    with pytest.raises(ConfigError, match="come to 0 at step 30"):
        rates(COSINE, 20, [0], first, Extension(begin=10, end=15))


def test_a_single_added_step_has_a_schedule():
    found = rates(COSINE, 20, range(22), Extension(begin=0, end=1, schedule="rewarm"))
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("schedule", "share", "message"), [("constant", None, "at which rate"), (None, 0.5, "init.schedule, which is None")]
)
def test_rates_that_contradict_each_other_are_refused(schedule, share, message):
    with pytest.raises(ConfigError, match=message):
        check_rates(schedule, share)
