"""Which measurements a pretraining predicts, and what the wrong ones are answered with."""

import json

import numpy as np
import pytest

from data_pipelines.physiology.measurement_groups import BEATS, MEDIAN_BEAT
from ecgjax.data.measured_waves import chosen_measurements, measured_waves
from ecgjax.data.settings import ColumnSettings
from ecgjax.errors import ConfigError

ALL = tuple(name for names in BEATS.values() for name in names)


def chosen(*names, without=(), on="beats"):
    return chosen_measurements(ColumnSettings(measured_on=on, measurements=names, without_measurements=without))


def test_all_are_chosen_and_groups_or_single_ones_can_be_left_out():
    assert chosen() == ALL
    assert chosen(without=("rate", "st_mad")) == tuple(name for name in ALL if name not in (*BEATS["rate"], "st_mad"))
    assert chosen("intervals", "rr_mean", without=("pr_iqr",)) == (
        "rr_mean", *(name for name in BEATS["intervals"] if name != "pr_iqr"),
    )  # fmt: skip


def test_those_of_the_median_beat_are_chosen_by_their_own_names():
    assert chosen(on="median_beat") == tuple(name for names in MEDIAN_BEAT.values() for name in names)
    assert chosen("T_V5", "rate", on="median_beat") == ("rr", "T_V5")
    with pytest.raises(ConfigError, match=r"'qtc_mean'.*measured_on='median_beat'.*groups rate \(rr\); rhythm \(sdnn"):
        chosen("qtc_mean", on="median_beat")


@pytest.mark.parametrize(
    ("names", "without", "message"),
    [
        (("qtc_maen",), (), r"config\.columns\.measurements names 'qtc_maen', which is no group and no measurement of "
         r"config\.columns\.measured_on='beats'; did you mean qtc_mean.*\? There are the groups rate \(rr_mean, "),
        ((), ("rates",), r"config\.columns\.without_measurements names 'rates'.*did you mean rate"),
        (("rr_1",), (), r"names 'rr_1', which is no group"),
        (("rate",), ("rr_mean", "rr_median"), r"without_measurements=\('rr_mean', 'rr_median'\) leaves none"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused_with_what_can(names, without, message):
    with pytest.raises(ConfigError, match=message):
        chosen(*names, without=without)


def test_measurements_that_do_not_vary_on_the_training_side_are_no_targets():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3)).astype(np.float32)
    train = np.arange(25)
    values[train, 1] = 120
    names = ("rr_mean", "pr_mean", "st_mean")
    waves = measured_waves(names, values, train)
    np.testing.assert_array_equal(waves.predicted, [True, False, True])
    assert waves.scale[1] == 1
    assert waves.describe().startswith("2 measurements of every recording are predicted; constant")
    assert "pr_mean" in waves.describe()
    about = json.loads(json.dumps(waves.about(), allow_nan=False))
    assert about[1] == {"name": "pr_mean", "group": "intervals", "median": 120.0, "scale": None, "records": 25}
    with pytest.raises(ConfigError, match=r"none of rr_mean, pr_mean, st_mean varies among the 25 training records"):
        measured_waves(names, np.full((50, 3), np.nan, np.float32), train)
