"""One factor, sign or rate wrong in all leads: told by group, corrected where a copy proves it, silent otherwise."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.build import summary
from data_pipelines.builders.folder import FolderSource
from data_pipelines.builders.physionet2021 import Physionet2021Source
from data_pipelines.calibration.groups import Measured, doubtful_records, judged_groups, rare_scales
from data_pipelines.calibration.size_and_polarity import MEASURES, measures_of
from data_pipelines.duplicates.signature import band_of, correlations
from data_pipelines.errors import RecordError
from data_pipelines.metadata.origins import origin_parts, origin_text, units_per_millivolt
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.recording import Recording
from data_pipelines.records import STORED_LEADS
from data_pipelines.shards.calibration_report import calibration_lines
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.quality import QualityFlag
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from tests.support.fixtures import results_of, write_wfdb

RATE = 100
RECIPE = RECIPES["plain"].changed(sampling_rate_hz=RATE)
CHEST = slice(2, 8)


@pytest.fixture(scope="module")
def signals():
    """Simulated recordings of forty people: `f64[40, time, 8]`, µV."""
    cohort = Cohort(CohortConfig(seed=3, num_patients=40, visits_per_patient=(1, 1), sampling_rate_hz=RATE))
    return cohort.simulate(0, 40).signal.astype(float)


def measure(signals, *, rate=RATE):
    rows = []
    for signal in signals:
        stored = np.clip(np.rint(signal), -32767, 32767).astype(np.int16)
        band = band_of(stored, sampling_rate_hz=rate, valid_start=0, valid_samples=len(stored))
        rows.append(measures_of(stored, band, correlations(band)))
    return np.array(rows)


def measured(values, origins, *, ages=None):
    names = list(dict.fromkeys(origins))
    return Measured(
        values=values,
        origin=np.array([names.index(origin) for origin in origins]),
        origins=tuple(names),
        patient=np.arange(len(values)),
        age_years=np.full(len(values), np.nan, np.float32) if ages is None else np.asarray(ages, np.float32),
    )


def doubts(values, origins, **known):
    return {group.origin: group.doubts for group in judged_groups(measured(values, origins, **known))}


def test_people_are_not_doubted(signals):
    values = measure(signals)
    assert doubts(values, ["a | wfdb | mV"] * 40) == {"a | wfdb | mV": ()}
    assert doubtful_records(measured(values, ["a | wfdb | mV"] * 40)) == {}
    smallest = np.argsort(values[:, 0])[:8]
    assert doubts(values[smallest], ["low voltage | wfdb | mV"] * 8) == {"low voltage | wfdb | mV": ()}


@pytest.mark.parametrize("factor", [5, 10, 1000, 0.2, 0.1, 0.001])
@pytest.mark.parametrize("number", [5, 12, 30])
def test_a_factor_common_to_a_group_is_told_with_its_numbers(signals, factor, number):
    values = measure(signals)
    # As a factor changes what is measured; a stored signal would be clipped, or end in rounding.
    values[:number, [MEASURES.index(name) for name in ("amplitude_mv", "largest_mv", "span_mv")]] *= factor
    found = doubts(values, ["a | wfdb | 200/mV"] * number + ["a | wfdb | 1000/mV"] * (40 - number))
    assert found["a | wfdb | 1000/mV"] == ()
    (doubt,) = found["a | wfdb | 200/mV"]
    middle = np.median(values[:number, 0])
    assert f"too {'large' if factor > 1 else 'small'}: the largest lead moves by {middle:.2g} mV" in doubt
    others = np.median(values[number:, 0])
    assert f"{others:.2g} mV in the other groups of this set" in doubt


def test_a_factor_of_two_and_a_half_is_told_of_groups_that_are_usual_otherwise(signals):
    # The simulated hearts are made as large as those of PTB-XL's 500 recordings are in the median.
    usual = 1.68e3 / np.median(measure(signals)[:, 0]) * signals / 1e3
    for factor, word in ((2.5, "large"), (0.4, "small")):
        (found,) = doubts(measure(usual * factor), ["a | wfdb | mV"] * 40).values()
        assert any(f"too {word}" in doubt for doubt in found), factor


def test_few_records_are_judged_with_those_of_the_same_scale(signals):
    values = measure(signals)
    values[:6, 0] *= 5
    origins = [f"day {day} | wfdb | 200/mV" for day in range(6)] + ["day 7 | wfdb | 1000/mV"] * 34
    found = doubts(values, origins)
    assert found.keys() == {" | wfdb | 200/mV", "day 7 | wfdb | 1000/mV"}
    assert "too large" in found[" | wfdb | 200/mV"][0]


def test_records_of_one_person_are_no_group(signals):
    values = measure(signals[:1] * 6).repeat(20, axis=0)
    one_person = dataclasses.replace(measured(values, ["a | b | c"] * 20), patient=np.zeros(20, np.int64))
    assert [group.doubts for group in judged_groups(one_person)] == [()]


def test_leads_upside_down_are_told(signals):
    (found,) = doubts(measure(-signals[:12]), ["a | wfdb | mV"] * 12).values()
    assert "all leads seem to be upside down" in found[0]


@pytest.mark.parametrize(("factor", "word"), [(5, "large"), (0.2, "small")])
def test_one_factor_of_the_chest_leads_is_told(signals, factor, word):
    wrong = signals[:12].copy()
    wrong[..., CHEST] *= factor
    (found,) = doubts(measure(wrong), ["a | wfdb | mV"] * 12).values()
    assert any("the chest leads seem" in doubt and f"too {word}" in doubt for doubt in found)


@pytest.mark.parametrize("scale", ["greatest", "deviation", "span"])
def test_records_that_were_each_scaled_to_one_size_are_told(signals, scale):
    measures = {"greatest": lambda x: np.abs(x).max(), "deviation": np.std, "span": np.ptp}
    normalised = np.array([1000 * signal / measures[scale](signal) for signal in signals[:12]])
    (found,) = doubts(measure(normalised), ["a | npy | mV"] * 12).values()
    assert any("each was scaled by itself" in doubt for doubt in found)


def test_twice_and_half_the_rate_are_told(signals):
    (fast,) = doubts(measure(signals, rate=2 * RATE), ["a | csv | mV"] * 40).values()
    assert "hearts seem to beat too fast" in fast[-1]
    (slow,) = doubts(measure(signals, rate=RATE // 2), ["a | csv | mV"] * 40).values()
    assert "hearts seem to beat too slowly" in slow[-1]
    # Children's do beat that fast.
    (children,) = doubts(measure(signals, rate=2 * RATE), ["a | csv | mV"] * 40, ages=[3] * 40).values()
    assert not any("too fast" in doubt for doubt in children)


def test_single_records_are_told_where_they_are_steady(signals):
    large = signals[:3] * np.array([1, 10, 1])[:, None, None]
    large[2, 300:320] += 20_000  # An artefact of 200 ms.
    values = measure(large)
    found = doubtful_records(measured(values, ["a | wfdb | mV"] * 3))
    assert found.keys() == {1}
    assert f"its largest lead moves by {values[1, 0]:.3g} mV" in found[1]


def test_scales_that_are_rare_in_their_place():
    origins = ["a | w | 200/mV"] * 2 + ["a | w | 1000/mV"] * 30 + ["b | w | 200/mV"] * 5
    rare = rare_scales(measured(np.ones((37, len(MEASURES))), origins), share=0.1)
    assert rare.tolist() == [0, 1]


def test_stated_gains():
    assert origin_parts(origin_text("a", "wfdb at 500 Hz", "200/mV")) == ("a", "wfdb at 500 Hz", "200/mV")
    assert origin_parts("") == ("", "", "")
    assert units_per_millivolt("200/mV") == 200
    assert units_per_millivolt("0.2/uV") == 200
    for text in ("mV", "200/mV, 1000/mV", "0/mV", "1000/adu"):
        assert units_per_millivolt(text) is None


def twelve_leads(signal):
    one, two, chest = signal[:, :1], signal[:, 1:2], signal[:, 2:]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.concatenate([*limb, chest], axis=1) / 1000


def write(folder, name, signal, *, gain=1000.0, stated=1000.0, comments=()):
    """Writes a record in units of `gain` a mV, whose header states another."""
    write_wfdb(folder, name, twelve_leads(signal), gain=gain, rate=RATE, comments=comments)
    header = folder / f"{name}.hea"
    header.write_text(header.read_text().replace(f"{gain:.1f}(", f"{stated:.1f}("))


def folder_source(folder, **changes):
    arguments = {"labels": None, "patient_field": None, "name": "mixed", "recipe": RECIPE}
    return FolderSource(folder, **(arguments | changes))


def build(make_source, out):
    build_dataset(make_source, out, request={})
    return open_dataset(out)


def test_a_build_corrects_what_a_copy_proves_wrong(signals, tmp_path):
    even = np.rint(signals / 2) * 2
    for number in range(8):
        write(tmp_path / "in" / "ptbxl", f"r{number}", even[number])
    for number in (1, 4):
        write(tmp_path / "in" / "challenge", f"HR{number}", even[number], stated=200.0)
    write(tmp_path / "in" / "challenge", "HR20", even[20], stated=200.0)
    dataset = build(lambda: folder_source(tmp_path / "in"), tmp_path / "out")
    found = dataset.card["summary"]["calibration"]
    assert found["corrected"] == {"challenge/HR1": 0.2, "challenge/HR4": 0.2}
    # The very contents: corrected before anything was rounded.
    assert sorted(dataset.card["summary"]["duplicates"]) == [
        ["ptbxl/r1", "challenge/HR1"],
        ["ptbxl/r4", "challenge/HR4"],
    ]
    assert "CORRECTED SCALE     2 records whose stated gain a copy" in summary(dataset.card, tmp_path)
    assert any("200/mV times 0.2" in group["origin"] for group in found["groups"]) or found["num_groups"] < 3


def test_a_build_tells_loudly_what_nothing_proves(signals, tmp_path):
    for number in range(11):
        write(tmp_path / "in", f"r{number}", signals[number], stated=200.0 if number < 6 else 1000.0)
    dataset = build(lambda: folder_source(tmp_path / "in"), tmp_path / "out")
    assert dataset.card["summary"]["calibration"]["corrected"] == {}
    said = summary(dataset.card, tmp_path)
    assert "WARNING: 6 records of 'wfdb at 100 Hz | 200/mV':" in said
    assert re.search(r"all leads seem .* times too large: the largest lead moves by .* mV in the median", said)
    names = [f"r{number}" for number in range(6)]
    flagged = dataset.index.record_id[(dataset.index.quality & QualityFlag.CALIBRATION) != 0].tolist()
    assert flagged == sorted(names)
    assert dataset.card["summary"]["quality"]["calibration"] == 6


def test_a_rescaled_copy_without_a_reason_is_told_and_left(signals, tmp_path):
    for number in range(8):
        write(tmp_path / "in", f"r{number}", signals[number])
    write(tmp_path / "in", "copy", signals[3] * 1.7, gain=500.0, stated=500.0)
    dataset = build(lambda: folder_source(tmp_path / "in"), tmp_path / "out")
    found = dataset.card["summary"]["calibration"]
    assert (found["num_corrected"], found["num_contradicting"]) == (0, 1)
    assert found["contradicting"][0][:2] == ["copy", "r3"]
    assert "copy is 1.7 times r3" in summary(dataset.card, tmp_path)


def test_gains_of_the_challenge_that_headers_of_copies_prove_wrong(signals, tmp_path):
    for number in range(1, 9):
        write(tmp_path / "2021", f"HR{number:05}", signals[number], comments=("Dx: 426783006",))
    # The first of a name is stored, the second refused.
    write(tmp_path / "2020", "HR00003", signals[3], stated=200.0, comments=("Dx: 426783006",))
    source = Physionet2021Source(tmp_path, recipe=RECIPE, num_workers=1)
    assert source.card.notes[0].startswith("CORRECTED: 1 header states 200 units/mV where a copy of the same samples")
    results = {result.record_id: result for result in results_of(source)}
    np.testing.assert_allclose(results["HR00003"].signal, np.rint(signals[3]), atol=1)
    assert results["2021/HR00003"].reason == "duplicate_record"


def test_a_card_without_the_section_is_read():
    assert calibration_lines(None) == []


def test_real_recordings_are_not_doubted_and_five_times_too_large_ones_are(real_data):
    source = Physionet2021Source(Path(real_data) / "physionet2021_georgia", recipe=RECIPES["plain"], num_workers=1)
    records = [result for result in results_of(source) if hasattr(result, "signal")]
    rows, origins = [], [record.origin for record in records]
    for record in records:
        band = band_of(
            record.signal, sampling_rate_hz=250, valid_start=record.valid_start, valid_samples=record.valid_samples
        )
        rows.append(measures_of(record.signal, band, correlations(band)))
    values = np.array(rows)
    assert not any(doubts(values, origins).values())
    assert doubtful_records(measured(values, origins)) == {}
    of_ptbxl = np.array([origin.startswith("PTB-XL") for origin in origins])
    values[of_ptbxl, 0] *= 5
    found = doubts(values, origins)
    assert [origin for origin, said in found.items() if said] == [origins[int(of_ptbxl.argmax())]]


@pytest.mark.parametrize("scale", [np.ptp, np.std, lambda lead: np.abs(lead).max()])
def test_eight_leads_that_were_each_scaled_to_one_size_are_refused(signals, scale):
    leads = signals[0] / [scale(lead) for lead in signals[0].T]
    recording = Recording(
        source="x.npy", signal=leads, sampling_rate_hz=float(RATE), channels=STORED_LEADS, units=("mV",) * 8
    )
    with pytest.raises(
        RecordError, match=r"x\.npy: all leads have one .* \(1 mV\): each was scaled by itself"
    ) as caught:
        stored_signal(recording, recipe=RECIPE)
    assert caught.value.reason == "broken_gain"
