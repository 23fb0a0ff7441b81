"""The cohort whose beats differ: each label is read from the strip plainly, and not from the median beat."""

import csv
import dataclasses
import functools
import hashlib

import numpy as np
import pytest
import wfdb
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.builders.simulated import SimulatedSource
from data_pipelines.errors import DataError
from data_pipelines.physiology import median_beat
from data_pipelines.records import STORED_LEADS, SignalFormat
from data_pipelines.simulation import beat_changes
from data_pipelines.simulation.cohort import DEFAULT_BEAT_TO_BEAT_SHARE, SCALARS, Cohort, CohortConfig
from tests.data_pipelines.simulation import beat_estimators as estimators
from tests.golden.machine import machine

_SHARE = DEFAULT_BEAT_TO_BEAT_SHARE
_RATE, _RECORDS = 250, 400
_LABELS = tuple(beat_changes.UNITS)

#: Every 17th of 102 records, 250th sample and third lead of a cohort, recorded before beats could differ; its digest,
#: and what that depends on beside the code.
_SAMPLES_BEFORE = [
    18, -143, 285, 116, 133, 242, 7, 20, 38, -102, -361, -464, 42, 103, 73, 16, 125, -51, -1, 153, -3, 27, -27, 69,
    -53, 205, 194, -50, 174, -271, 93, -14, 274, 11, -31, -77, 33, 41, -116, 244, 444, 591, 49, 17, 411, 30, -70, 499,
    -6, 32, 15, 24, -17, -2, -24, -10, 6, -16, 13, 34, 90, 118, 21, 38, -173, 5, 49, 78, 141, -35, 58, -147,
]  # fmt: skip
_DIGEST_BEFORE = "9e219bd11f5e11a9090ea9c8fe1f0a74a008afe13137f561ae7c7f9ea997e4f6"
_RECORDED_ON = {"processor": "x86_64 5db08c19a337", "numpy": "2.4.6", "scipy": "1.17.1"}


def _config(**changes):
    return CohortConfig(**{"seed": 21, "num_patients": _RECORDS, "visits_per_patient": (1, 1), **changes})


@functools.cache
def _strips():
    """Quiet strips of sinus rhythm of a cohort whose beats differ, their labels, and the strips cut into beats."""
    made = Cohort(_config(noise=0.5, sampling_rate_hz=_RATE, beat_to_beat_share=_SHARE)).simulate(0, _RECORDS)
    cuts = [estimators.cut(strip, _RATE) for strip in made.signal]
    kept = [number for number, strip in enumerate(cuts) if len(strip.beats) >= 4 and not made.scalars["af"][number]]
    assert len(kept) > 0.9 * _RECORDS
    return made.signal[kept], {name: of[kept] for name, of in made.scalars.items()}, [cuts[number] for number in kept]


def _read(estimator):
    return np.array([estimator(strip) for strip in _strips()[2]])


def _auroc(label, score):
    known = np.isfinite(label) & np.isfinite(score)
    return roc_auc_score(label[known] > 0, score[known])


# The cohort without differences between beats


def test_a_cohort_without_it_is_what_it_was():
    """Samples within a unit of rounding on every machine, and the digest where arithmetic is that of its record."""
    cohort = Cohort(CohortConfig(seed=7, num_patients=40, sampling_rate_hz=100))
    made = cohort.simulate(0, cohort.num_records)
    assert tuple(made.scalars) == SCALARS == tuple(cohort.config.units)
    some = made.signal[::17, ::250, ::3].ravel()
    np.testing.assert_allclose(some, _SAMPLES_BEFORE, atol=1)
    here = {name: machine()[name] for name in _RECORDED_ON}
    if here != _RECORDED_ON:
        pytest.skip(f"the samples agree; the digest was recorded on another machine: {_RECORDED_ON} and not {here}")
    digest = hashlib.sha256(made.signal.tobytes())
    for name in SCALARS:
        digest.update(made.scalars[name].tobytes())
    assert digest.hexdigest() == _DIGEST_BEFORE


def test_states_and_identities_are_those_of_the_cohort_without_it():
    one, other = (Cohort(_config(beat_to_beat_share=share)).simulate(0, 60) for share in (None, _SHARE))
    for name in ("lvef", "potassium", "wedge_pressure", "lvh", "lbbb", "rbbb", "af", "ischaemia", "visit"):
        np.testing.assert_array_equal(one.scalars[name], other.scalars[name])
    for name in ("patient", "visit", "age_years", "sex"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_noise_is_that_of_the_cohort_without_it():
    def noise(share):
        loud, clean = (
            Cohort(_config(sampling_rate_hz=100, noise=level, beat_to_beat_share=share)).simulate(0, 20).signal
            for level in (1.0, 0.0)
        )
        return loud.astype(np.int32) - clean

    np.testing.assert_allclose(noise(None), noise(_SHARE), atol=1)


# Determinism, settings, the data set


def test_a_record_depends_on_seed_patient_and_visit_alone():
    config = CohortConfig(seed=3, num_patients=80, sampling_rate_hz=100, beat_to_beat_share=_SHARE)
    whole = Cohort(config).simulate(0, 120)
    for start, stop in ((0, 1), (37, 38), (63, 120)):
        some = Cohort(dataclasses.replace(config, num_patients=5000)).simulate(start, stop)
        np.testing.assert_array_equal(some.signal, whole.signal[start:stop])
        for name in config.units:
            np.testing.assert_array_equal(some.scalars[name], whole.scalars[name][start:stop])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_no_more_than_all(share):
    with pytest.raises(DataError, match=r"simulated cohort: beat_to_beat_share=.* must be 0 … 1"):
        CohortConfig(beat_to_beat_share=share)


def test_labels_are_columns_and_the_card_says_what_they_are():
    form = SignalFormat(sampling_rate_hz=100, num_samples=1000)
    source = SimulatedSource(num_patients=3, seed=0, signal_format=form, beat_to_beat_share=0.25)
    assert source.label_schema.scalars == (*SCALARS, *_LABELS)
    assert source.label_schema.units["rmssd_ms"] == "ms"
    [record] = source.reader()([0])
    assert set(record.scalars) == {*SCALARS, *_LABELS}
    assert source.card.simulated
    assert "SIMULATED" in source.card.description
    assert "(--beat_to_beat): 0.25 of the signatures" in source.card.description
    plain = SimulatedSource(num_patients=3, seed=0, signal_format=form)
    assert "beat_to_beat" not in plain.card.description
    assert plain.label_schema.scalars == SCALARS


# What the labels say is what the strip holds


def test_low_variability_is_read_from_the_r_peaks():
    _, labels, _ = _strips()
    found = _read(estimators.rmssd_ms)
    assert abs(np.nanmedian(found / labels["rmssd_ms"]) - 1) < 0.03
    assert 0.1 < np.nanmean(labels["low_variability"]) < 0.3
    assert _auroc(labels["low_variability"], -found) > 0.95


def test_premature_ventricular_beats_are_counted():
    _, labels, _ = _strips()
    found, count = _read(estimators.premature_count), labels["pvc_count"]
    np.testing.assert_array_equal(count > 0, labels["pvc"] > 0)
    assert count.max() > 1
    assert (found == count)[count > 0].mean() > 0.75
    assert _auroc(count > 0, found) > 0.85


def test_unstable_qt_is_read_from_the_time_of_t():
    _, labels, _ = _strips()
    assert 0.08 < labels["qt_instability"].mean() < 0.25
    assert _auroc(labels["qt_instability"], _read(estimators.qt_jitter_ms)) > 0.9


def test_alternans_is_read_from_even_and_odd_beats():
    _, labels, _ = _strips()
    found, truth = _read(estimators.alternans_uv), labels["alternans_uv"]
    np.testing.assert_array_equal(labels["alternans"], truth > beat_changes.ALTERNANS_UV)
    assert _auroc(labels["alternans"], found) > 0.85
    large = (truth > 25) & (labels["pvc_count"] + labels["pac"] == 0)
    assert large.sum() > 20
    assert 0.8 < np.median(found[large] / truth[large]) < 1.2


def test_notches_are_in_the_named_leads_and_in_no_other():
    _, labels, _ = _strips()
    fast = _read(estimators.notch_uv)
    fast /= np.median(fast, axis=0)
    notched = labels["fragmented_qrs"] > 0
    first, count = (labels[name][notched, None] for name in ("fragmented_lead", "fragmented_leads"))
    lead = np.arange(len(STORED_LEADS))
    named = (lead >= first) & (lead < first + count)
    assert {*count.ravel()} == {1, 2}
    assert np.isnan(labels["fragmented_lead"][~notched]).all()
    assert _auroc(notched, fast.max(axis=1)) > 0.7
    assert _auroc(named.ravel(), fast[notched].ravel()) > 0.8
    assert named[np.arange(len(named)), fast[notched].argmax(axis=1)].mean() > 0.75


def test_a_notch_adds_to_its_leads_alone():
    """On clean strips the cohorts with and without notches differ in the named leads, by as much as the notch."""
    config = _config(noise=0.0, sampling_rate_hz=500, beat_to_beat_share=1.0)
    labels = Cohort(dataclasses.replace(config, sampling_rate_hz=50)).simulate(0, _RECORDS).scalars
    number = int(np.flatnonzero((labels["fragmented_leads"] == 2) & (labels["pvc_count"] == 0))[0])
    with_notch = Cohort(config).simulate(number, number + 1).signal[0].astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beat_changes, "_NOTCH_MV", (0.0, 0.0))
        without = Cohort(config).simulate(number, number + 1).signal[0]
    largest = np.abs(with_notch - without).max(axis=0)
    first = int(labels["fragmented_lead"][number])
    assert np.all((largest[first : first + 2] > 40) & (largest[first : first + 2] < 140))
    assert largest.sum() == largest[first : first + 2].sum()


def test_unequal_p_waves_are_read_from_their_sizes():
    _, labels, _ = _strips()
    truth = labels["p_variability"]
    assert _auroc(truth > np.median(truth), _read(estimators.p_variability)) > 0.8


def test_late_p_waves_are_read_from_single_beats():
    _, labels, _ = _strips()
    clear = (labels["late_p_count"] != 1) & (labels["pac"] == 0)
    assert _auroc(labels["late_p_count"][clear] > 1, _read(estimators.late_p_uv)[clear]) > 0.7


# What the median beat does not tell


def _from_beat(features, label):
    """AUROC of a linear model on 40 principal components, cross-validated."""
    model = make_pipeline(StandardScaler(), PCA(40, random_state=0), LogisticRegression(C=0.01, max_iter=2000))
    known = np.isfinite(label)
    score = cross_val_predict(model, features[known], label[known] > 0, cv=5, method="decision_function")
    return roc_auc_score(label[known] > 0, score)


def _questions(labels):
    unequal = labels["p_variability"] > np.nanmedian(labels["p_variability"])
    late = labels["late_p_count"] > 1
    names = ("low_variability", "qt_instability", "alternans", "fragmented_qrs")
    return {**{name: labels[name] for name in names}, "unequal P": unequal, "late P": late}


def test_a_median_beat_and_the_rate_do_not_tell():
    _, labels, cuts = _strips()
    beats = [np.median(strip.beats, axis=0)[::2].ravel() for strip in cuts]
    features = np.column_stack([beats, [np.median(np.diff(strip.peaks)) for strip in cuts]])
    found = {name: _from_beat(features, label) for name, label in _questions(labels).items()}
    assert max(found.values()) < 0.66, found
    # What the beat does hold, these features tell.
    assert _from_beat(features, labels["lvh"]) > 0.7


@pytest.mark.slow
def test_the_median_beat_of_the_project_and_the_rate_do_not_tell():
    signal, labels, _ = _strips()
    measured = median_beat.measure(signal, sampling_rate_hz=_RATE, processes=1, progress=False)
    has_beat = np.isfinite(measured.median_beats).all(axis=(1, 2))
    features = np.column_stack([measured.median_beats.reshape(len(signal), -1), measured.values[:, 0]])[has_beat]
    of_those = {name: label[has_beat] for name, label in _questions(labels).items()}
    found = {name: _from_beat(features, label) for name, label in of_those.items()}
    assert max(found.values()) < 0.66, found
    assert _from_beat(features, labels["lvh"][has_beat]) > 0.7


# The share


@functools.cache
def _evidence(share):
    """AUROC of LVEF < 40, potassium > 5 and wedge pressure > 18 by trees on the labels of differences."""
    made = Cohort(_config(num_patients=6000, seconds=10, sampling_rate_hz=50, noise=0.0, beat_to_beat_share=share))
    scalars = _without_signals(made)
    features = np.column_stack([scalars[name] for name in _LABELS])
    questions = {
        "lvef": scalars["lvef"] < 40,
        "potassium": scalars["potassium"] > 5,
        "wedge_pressure": scalars["wedge_pressure"] > 18,
    }
    half = len(features) // 2
    found = {}
    for name, label in questions.items():
        trees = HistGradientBoostingClassifier(max_depth=3, max_iter=40, random_state=0)
        trees.fit(features[:half], label[:half])
        found[name] = roc_auc_score(label[half:], trees.predict_proba(features[half:])[:, 1])
    return found


def _without_signals(cohort):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cohort, "_render", lambda self, draws, *_: np.empty(0))
        return cohort.simulate(0, cohort.num_records).scalars


def test_the_share_says_how_much_lies_between_beats():
    nothing, third, everything = _evidence(0.0), _evidence(_SHARE), _evidence(1.0)
    assert max(nothing.values()) < 0.62, nothing
    for name, lowest in (("lvef", 0.70), ("potassium", 0.66), ("wedge_pressure", 0.67)):
        assert third[name] > max(lowest, nothing[name] + 0.1), (name, third)
        assert everything[name] > third[name] + 0.04, (name, everything)


# Real strips


@pytest.mark.slow
def test_strips_vary_as_real_ones_do(real_data):
    """Medians over sinus rhythm of PTB-XL's 500 records and of as many simulated ones; skipped where they are not."""
    real, made = _real_strips(real_data / "ptbxl"), _simulated_strips()
    rmssd = [np.nanmedian([estimators.rmssd_ms(strip) for strip in side]) for side in (real, made)]
    assert 0.7 < rmssd[1] / rmssd[0] < 1.4, rmssd
    ectopy = [np.mean([estimators.premature_count(strip) > 0 for strip in side]) for side in (real, made)]
    assert 0.5 < ectopy[1] / ectopy[0] < 2.0, ectopy


def _real_strips(folder):
    with (folder / "ptbxl_database.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not {"AFIB", "AFLT", "PACE"} & {*_codes(row)}]
    strips = []
    for row in rows:
        record = wfdb.rdrecord(str(folder / row["filename_lr"]))
        names = [name.upper() for name in record.sig_name]
        strips.append(1000 * record.p_signal[:, [names.index(lead.upper()) for lead in STORED_LEADS]])
    return _cut(strips)


def _codes(row):
    return {word for word in row["scp_codes"].split("'") if word.isupper()}


def _simulated_strips():
    made = Cohort(_config(num_patients=500, sampling_rate_hz=100, beat_to_beat_share=_SHARE)).simulate(0, 500)
    return _cut(made.signal[made.scalars["af"] == 0])


def _cut(strips):
    cuts = [estimators.cut(strip, 100) for strip in strips if np.all(np.ptp(strip, axis=0) > 0)]
    return [strip for strip in cuts if len(strip.beats) >= 4]
