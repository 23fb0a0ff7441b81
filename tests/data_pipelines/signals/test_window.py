"""What is stored of a long recording: judged by itself, and the samples that the whole recording would give."""

import dataclasses

import numpy as np
import pytest
import scipy.signal

from data_pipelines.errors import RecordError
from data_pipelines.recording import Recording
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.recipe import SignalRecipe
from tests.support.fixtures import twelve_lead_mv

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
PLAIN = SignalRecipe(name="test", version=1)
AS_RECORDED = PLAIN.changed(sampling_rate_hz=500)


def recording(signal, rate=500.0):
    return Recording(
        source="x", signal=signal, sampling_rate_hz=rate, channels=STANDARD_LEADS, units=("mV",) * len(STANDARD_LEADS)
    )


def refused(signal, recipe=AS_RECORDED, **piece):
    with pytest.raises(RecordError) as caught:
        stored_signal(recording(signal), recipe=recipe, **piece)
    return caught.value.reason, str(caught.value)


def whole_uv(signal, *, up, down):
    resampled = scipy.signal.resample_poly(signal[:, STORED_COLUMNS], up, down, axis=0, padtype="line")
    return np.rint(resampled * 1000)


@pytest.mark.parametrize("cut", ["start", "center"])
@pytest.mark.parametrize(("rate", "up", "down"), [(500, 1, 2), (360, 25, 36), (257, 250, 257), (128, 125, 64)])
@pytest.mark.parametrize("seconds", [10.05, 10.3, 27.0])
def test_a_window_has_the_samples_that_resampling_the_whole_recording_gives(cut, rate, up, down, seconds):
    signal = twelve_lead_mv(seconds=seconds, rate=rate) + np.linspace(0, 1, round(seconds * rate))[:, None] * np.array(
        [1, 1, 0, -1, 0.5, 0.5] + [3] * 6
    )
    whole = whole_uv(signal, up=up, down=down)
    first = (len(whole) - 2500) // 2 if cut == "center" else 0
    stored = stored_signal(recording(signal, rate), recipe=PLAIN.changed(cut=cut))
    # The sums run over the same products; only halves of a microvolt may fall to the other side.
    assert np.abs(stored.signal - whole[first : first + 2500]).max() <= 1
    assert (stored.signal != whole[first : first + 2500]).mean() < 0.001
    assert stored.start_seconds == first / 250
    assert stored.recording_seconds == len(signal) / rate


def test_pieces_follow_one_another_without_a_seam():
    signal = twelve_lead_mv(seconds=27, rate=360)
    whole = whole_uv(signal, up=25, down=36)
    for piece in range(3):
        stored = stored_signal(recording(signal, 360), recipe=PLAIN, piece=piece)
        own = whole[2500 * piece : 2500 * (piece + 1)]
        assert (stored.valid_start, stored.valid_samples, stored.start_seconds) == (0, len(own), 10.0 * piece)
        assert np.abs(stored.signal[: len(own)] - own).max() <= 1
        assert not stored.signal[len(own) :].any()


@pytest.mark.parametrize(
    "changes",
    [
        {"highpass_hz": 0.5, "lowpass_hz": 40.0},
        {"notch_hz": 50.0, "sampling_rate_hz": 500},
        {"baseline": "median", "cut": "center"},
    ],
)
def test_filters_see_what_lies_beside_a_window(changes):
    signal = twelve_lead_mv(seconds=60)
    # Stored whole, nothing is a window.
    recipe = PLAIN.changed(**changes)
    whole = stored_signal(recording(signal), recipe=recipe.changed(seconds=60.0)).signal.astype(int)
    length = recipe.signal_format.num_samples
    first = (len(whole) - length) // 2 if recipe.cut == "center" else 0
    stored = stored_signal(recording(signal), recipe=recipe).signal
    assert np.abs(stored - whole[first : first + length]).max() <= 1
    piece = stored_signal(recording(signal), recipe=recipe.changed(cut="start"), piece=3).signal
    assert np.abs(piece - whole[3 * length : 4 * length]).max() <= 1


def damaged(kind, rows):
    """Half a minute with something wrong in some of its rows."""
    signal = twelve_lead_mv(seconds=30)
    if kind == "nan":
        signal[rows, 7] = np.nan
    elif kind == "flat":
        signal[rows] = 0.0
    elif kind == "rail":
        signal[rows, 8] += 40.0
    elif kind == "swapped":
        signal[rows, :2] = signal[rows, 1::-1]
    return signal


@pytest.mark.parametrize(
    ("kind", "reason"), [("nan", "nan"), ("flat", "flat_lead"), ("rail", "out_of_range"), ("swapped", "einthoven")]
)
@pytest.mark.parametrize("rate", [500, 250])
def test_what_is_wrong_counts_only_in_what_is_kept(kind, reason, rate):
    recipe = AS_RECORDED.changed(sampling_rate_hz=rate)
    first, later = slice(0, 5000), slice(6000, 15000)
    found, message = refused(damaged(kind, first), recipe)
    assert found == reason
    assert "about 0 to 10 s of its 30 s" in message
    assert "--cut=center" in message
    assert "--pieces" in message
    sound = stored_signal(recording(damaged(kind, later)), recipe=recipe).signal
    clean = stored_signal(recording(twelve_lead_mv(seconds=30)), recipe=recipe).signal
    # Resampling goes on before the first sample along the line from the recording's first to its last.
    np.testing.assert_allclose(sound, clean, rtol=0, atol=1)
    np.testing.assert_array_equal(sound[20:], clean[20:])
    reason_of_piece, of_piece = refused(damaged(kind, slice(5000, 10000)), recipe, piece=1)
    assert reason_of_piece == reason
    assert "10 to 20 s of its 30 s, piece 2" in of_piece


def test_ten_seconds_without_electrodes_are_never_stored_as_zeros():
    signal = damaged("flat", slice(0, 5000))
    assert refused(signal)[0] == "flat_lead"
    assert stored_signal(recording(signal), recipe=AS_RECORDED.changed(cut="center")).signal.any(axis=0).all()


def test_whole_recordings_are_refused_in_the_words_they_were():
    assert "of its" not in refused(twelve_lead_mv() * np.nan)[1]


@pytest.mark.parametrize("invalid", [slice(5000, 5001), slice(5003, 9000), slice(5000, 15000)])
@pytest.mark.parametrize("changes", [{}, {"highpass_hz": 0.5}, {"baseline": "median"}])
def test_invalid_samples_beside_a_window_neither_refuse_it_nor_spread_into_it(invalid, changes):
    signal = twelve_lead_mv(seconds=30)
    recipe = PLAIN.changed(**changes)
    clean = stored_signal(recording(signal), recipe=recipe).signal.astype(int)
    signal[invalid] = np.nan
    stored = stored_signal(recording(signal), recipe=recipe).signal
    # Where filters look at the invalid samples they see the last valid one held.
    assert np.abs(stored - clean)[:2000].max() <= (40 if changes else 0)
    assert np.abs(stored - clean).max() < 1500


def test_a_lead_that_only_drifts_is_flat_once_the_drift_is_out():
    signal = twelve_lead_mv()
    signal[:, 9] = np.linspace(-1, 1, 5000)
    assert stored_signal(recording(signal), recipe=AS_RECORDED).signal[:, 5].any()
    reason, message = refused(signal, AS_RECORDED.changed(highpass_hz=0.5))
    assert reason == "flat_lead"
    assert "lead V4 moves less than 25 µV once filtered" in message


def test_a_recording_of_nothing_but_mains_is_no_ecg_once_that_is_out():
    seconds = np.arange(5000) / 500
    eight = 0.4 * np.sin(2 * np.pi * 50 * seconds)[:, None] + 0.03 * np.sin(2 * np.pi * 8 * seconds)[:, None]
    signal = eight * np.array([1, 1, 0, -1, 0.5, 0.5] + [1] * 6)
    assert stored_signal(recording(signal), recipe=AS_RECORDED).signal.any()
    reason, message = refused(signal, AS_RECORDED.changed(notch_hz=50.0))
    assert reason == "flat_lead"
    assert "no lead spans more than" in message


def test_samples_at_a_rail_are_counted_in_the_window():
    signal = damaged("rail", slice(4950, 15000))
    # One per cent of ten seconds may be clipped; two thirds of the recording are.
    assert np.count_nonzero(stored_signal(recording(signal), recipe=AS_RECORDED).signal == 32767) == 50
    assert refused(damaged("rail", slice(4949, 5000)))[0] == "out_of_range"


def test_the_shortest_recording_is_measured_whole():
    short = dataclasses.replace(AS_RECORDED, min_seconds=12.0)
    reason, message = refused(twelve_lead_mv(seconds=11), short)
    assert (reason, "11 s long" in message) == ("too_short", True)
