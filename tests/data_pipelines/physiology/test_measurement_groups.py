"""The groups of measurements, which hold all that are stored but those of single beats."""

import pytest

from data_pipelines.physiology import median_beat
from data_pipelines.physiology.measurement_groups import BEATS, GROUP_OF, GROUPS, MEDIAN_BEAT, measurements_of
from data_pipelines.physiology.vector import NAMES, NUM_BEATS


def test_every_measurement_of_the_whole_recording_is_of_one_group():
    single_beats = {name for name in NAMES if name.rpartition("_")[2] in {str(beat + 1) for beat in range(NUM_BEATS)}}
    assert len(single_beats) == 100
    grouped = [name for names in BEATS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(NAMES) - single_beats


def test_every_measurement_of_the_median_beat_is_of_one_group():
    grouped = [name for names in MEDIAN_BEAT.values() for name in names]
    assert len(grouped) == len(set(grouped)) == 52
    assert set(grouped) == set(median_beat.NAMES)


def test_what_both_forms_have_is_of_one_group():
    for groups in GROUPS.values():
        assert all(GROUP_OF[name] == group for group, names in groups.items() for name in names)
        assert set(groups) <= set(BEATS)


def test_names_stand_for_groups_or_measurements_in_one_order():
    asked = ["st_mean", "rate", "rr_mean", "pr_mean"]
    assert measurements_of(asked, on="beats") == ("rr_mean", "rr_median", "pr_mean", "st_mean")
    assert measurements_of(["T_V5", "rate", "pr"], on="median_beat") == ("rr", "pr", "T_V5")
    for on, groups in GROUPS.items():
        assert measurements_of(list(groups), on=on) == tuple(name for names in groups.values() for name in names)
        assert measurements_of([], on=on) == ()
        for unknown in ("rr_1", "waves", "pr_mean" if on == "median_beat" else "T_V5"):
            with pytest.raises(KeyError, match=unknown):
                measurements_of(["rate", unknown], on=on)
