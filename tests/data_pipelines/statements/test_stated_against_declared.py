"""What files of bare samples say of themselves, under any common name, is used, and set against what was declared."""

import json

import h5py
import numpy as np
import pytest
import scipy.io

from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError, RecordError
from data_pipelines.readers.arrays import read_numpy
from data_pipelines.readers.hdf5_files import read_hdf5
from data_pipelines.readers.matlab_files import read_matlab
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.statements.declared import Declared
from data_pipelines.statements.names import Kind, stated_name
from data_pipelines.statements.stated_leads import without_unit
from data_pipelines.statements.time_axis import even_times, seconds_of
from tests.support.fixtures import results_of, twelve_lead_mv, write_wfdb

SIGNAL = twelve_lead_mv(seconds=1)
COUNTS = np.rint(SIGNAL * 1000).astype(np.int16)
FULL = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)
NOTHING = Declared()
NUM = len(SIGNAL)


def texts(values):
    """MATLAB's cell of texts."""
    return np.array(list(values), dtype=object)


def read_mat(folder, **variables):
    declared = variables.pop("declared", FULL)
    scipy.io.savemat(folder / "a.mat", {"val": SIGNAL.T, **variables})
    return read_matlab(folder / "a.mat", declared)


def read_npz(folder, **arrays):
    declared = arrays.pop("declared", FULL)
    np.savez(folder / "a.npz", **({"signal": SIGNAL} | arrays))
    return read_numpy(folder / "a.npz", declared)


def read_h5(folder, *, declared=FULL, attributes=None, **datasets):
    with h5py.File(folder / "a.h5", "w") as file:
        for name, value in {"signal": SIGNAL, **datasets}.items():
            file[name] = value
        file["signal"].attrs.update(attributes or {})
    return read_hdf5(folder / "a.h5", declared)


def disagrees(call, message):
    with pytest.raises(RecordError, match=message) as caught:
        call()
    assert caught.value.reason == "header_disagrees"


OF_250_HZ = {
    "fs": 250,
    "Fs": 250.0,
    "FS": "250 Hz",
    "srate": 250,
    "sfreq": 250,
    "Sampling_Frequency": 250,
    "samplingRate": [250] * 12,
    "samples_per_second": 250,
    "frequency": "0.25 kHz",
    "fs_khz": 0.25,
    "rate_hz": 250,
    "dt": 0.004,
    "Ts": 0.004,
    "sampling_interval": 4,
    "sample_period": "4 ms",
    "dt_us": 4000,
    "t": np.arange(NUM) / 250,
    "time_ms": np.arange(NUM) * 4.0,
    "timestamps": 1_600_000_000 + np.arange(NUM) / 250,
}


@pytest.mark.parametrize("name", OF_250_HZ)
def test_a_rate_under_any_name_is_set_against_the_declared_one(tmp_path, name):
    message = rf"'{name}' states the rate 250.0, but --declared_rate_hz says 500.0"
    disagrees(lambda: read_mat(tmp_path, **{name: OF_250_HZ[name]}), message)
    disagrees(lambda: read_npz(tmp_path, **{name: OF_250_HZ[name]}), message)
    undeclared = Declared(unit="mV", leads=STANDARD_LEADS)
    assert read_npz(tmp_path, **{name: OF_250_HZ[name]}, declared=undeclared).sampling_rate_hz == 250.0


def test_a_rate_is_found_in_structs_groups_json_header_texts_and_neighbouring_data_sets(tmp_path):
    at_250 = r"states the rate 250.0, but --declared_rate_hz says 500.0"
    as_json = json.dumps({"acquisition": {"sampling_rate": {"value": 250, "unit": "Hz"}}})
    disagrees(lambda: read_mat(tmp_path, info={"device": {"fs": 250}}), f"'info/device/fs' {at_250}")
    disagrees(lambda: read_npz(tmp_path, meta=as_json), f"'meta/acquisition/sampling_rate/value' {at_250}")
    disagrees(lambda: read_npz(tmp_path, header="patient: 7\nfs = 250\n"), f"'header/fs' {at_250}")
    disagrees(lambda: read_npz(tmp_path, comments=np.array(["Age: 50", "fs: 250"])), f"'comments/fs' {at_250}")
    disagrees(lambda: read_npz(tmp_path, info=np.array((250,), dtype=[("fs", "i4")])), f"'info/fs' {at_250}")
    disagrees(lambda: read_h5(tmp_path, fs=250), f"'fs' {at_250}")
    disagrees(lambda: read_h5(tmp_path, attributes={"info": as_json}), at_250)
    disagrees(lambda: read_npz(tmp_path, time=np.datetime64("2020-01-01") + np.arange(NUM) * np.timedelta64(4, "ms")),
              f"'time' {at_250}")  # fmt: skip


def test_two_statements_of_one_file_must_agree(tmp_path):
    declared = Declared(unit="mV", leads=STANDARD_LEADS)
    disagrees(
        lambda: read_npz(tmp_path, fs=500, dt=0.004, declared=declared), "'dt' states the rate 250.0, but 'fs' the"
    )
    disagrees(lambda: read_npz(tmp_path, fs=500, duration="2 s"), "duration of 2 s, but 500 samples at 500 Hz take 1 s")
    disagrees(lambda: read_npz(tmp_path, fs=500, sig_len=1000), "number of samples of 1000, but it holds 500")
    disagrees(lambda: read_npz(tmp_path, n_leads=8), "number of leads of 8, but it holds 12")
    disagrees(lambda: read_npz(tmp_path, fs=[500, 250]), "several rates")
    disagrees(lambda: read_npz(tmp_path, t=np.arange(400) / 500), "400 times for 500 samples")
    assert read_npz(tmp_path, fs=500, dt=0.002, duration=1.0, n_samples=500, n_leads=12).sampling_rate_hz == 500


def test_rates_of_other_things_are_not_the_samples_rate(tmp_path):
    recording = read_npz(
        tmp_path, fs=500, ppg_fs=125, heart_rate=72, notch_frequency=50, original_fs=1000, freq=np.linspace(0, 250, 129)
    )
    assert recording.sampling_rate_hz == 500
    read_h5(tmp_path, **{"ppg/fs": 125, "ppg/samples": np.zeros(30)})
    # Where nothing else is stated, the rate of the original may be that of the samples.
    disagrees(lambda: read_npz(tmp_path, original_fs=1000), "'original_fs' is 1000, but --declared_rate_hz says 500.0")
    disagrees(lambda: read_npz(tmp_path, meta=json.dumps({"source": {"fs": 1000}})), "'meta/source/fs' is 1000")


@pytest.mark.parametrize(("value", "shown"), [("fast", "fast"), (np.nan, "nan"), (-1, "-1"), (0, "0")])
def test_a_rate_that_is_none_is_not_passed_over(tmp_path, value, shown):
    with pytest.raises(RecordError, match=rf"'fs' states a rate of '{shown}', which is no number of Hz") as caught:
        read_npz(tmp_path, fs=value)
    assert caught.value.reason == "unreadable_header"


def test_units_are_set_against_the_declared_one_in_any_spelling(tmp_path):
    assert read_npz(tmp_path, unit="millivolts", declared=FULL).units == ("mV",) * 12
    disagrees(lambda: read_npz(tmp_path, unit="µV"), "'unit' states the unit uV, but --declared_unit says mV")
    disagrees(lambda: read_mat(tmp_path, units=texts(["mV"] * 11 + ["uV"])), "'units' states the unit uV, but")
    by_lead = json.dumps({"units": dict.fromkeys(STANDARD_LEADS, "uV")})
    disagrees(lambda: read_npz(tmp_path, meta=by_lead), "'meta/units' states the unit uV, but")
    disagrees(
        lambda: read_npz(tmp_path, unit="adu"), "states the unit adu, counts without a scale, but --declared_unit"
    )
    disagrees(lambda: read_npz(tmp_path, unit="mV", physical_unit="uV"), "unit mV, but 'physical_unit' uV")
    with pytest.raises(RecordError, match="'unit' states a unit of 3, which is no unit"):
        read_npz(tmp_path, unit=3)
    mixed = read_npz(
        tmp_path, units=["mV"] * 11 + ["uV"], declared=Declared(sampling_rate_hz=500.0, leads=STANDARD_LEADS)
    )
    assert mixed.units == ("mV",) * 11 + ("uV",)


@pytest.mark.parametrize(
    "scale",
    [
        {"adc_gain": 1000, "unit": "mV"},
        {"gain": np.full(12, 1000.0), "units": ["mV"] * 12},
        {"gain": ["1000(0)/mV"] * 12},
        {"uv_per_bit": 1.0},
        {"lsb": "1 uV"},
        {"resolution_mv": 0.001},
        {"counts_per_mv": 1000},
        {"counts_per_mv": 1000, "gain": "10 mm per mV"},
    ],
)
def test_counts_are_scaled_as_the_file_says(tmp_path, scale):
    declared = Declared(sampling_rate_hz=500.0, leads=STANDARD_LEADS)
    recording = read_npz(tmp_path, signal=COUNTS, declared=declared, **scale)
    per_mv = {"mV": 1.0, "uV": 1e-3}[recording.units[0]]
    np.testing.assert_allclose(recording.signal * per_mv, SIGNAL, rtol=0, atol=1e-12)


def test_the_zero_of_counts_is_taken_off(tmp_path):
    declared = Declared(sampling_rate_hz=500.0, leads=STANDARD_LEADS)
    counts = COUNTS.astype(np.int32) + 1024
    recording = read_npz(
        tmp_path, signal=counts, gain=1000, baseline=[1024] * 12, adc_zero=0, units="mV", declared=declared
    )
    np.testing.assert_allclose(recording.signal, SIGNAL, rtol=0, atol=1e-12)
    recording = read_npz(tmp_path, signal=counts, gain="1000(1024)/mV", declared=declared)
    np.testing.assert_allclose(recording.signal, SIGNAL, rtol=0, atol=1e-12)


def test_scales_that_do_not_say_whether_they_were_applied_are_refused(tmp_path):
    declared = Declared(sampling_rate_hz=500.0, leads=STANDARD_LEADS)
    disagrees(lambda: read_npz(tmp_path, signal=COUNTS, lsb=4.88, unit="uV", declared=declared),
              "may be counts or scaled already. Call it 'uv_per_bit'")  # fmt: skip
    disagrees(lambda: read_npz(tmp_path, signal=COUNTS, uv_per_bit=4.88), "a scale in uV, but --declared_unit says mV")
    disagrees(lambda: read_npz(tmp_path, signal=COUNTS, gain=1000, uv_per_bit=4.88, unit="mV", declared=declared),
              "'gain' states .* µV a count, but 'uv_per_bit'")  # fmt: skip
    with pytest.raises(RecordError, match="'gain' states a scale of '0', which is none"):
        read_npz(tmp_path, signal=COUNTS, gain=0)
    with pytest.raises(RecordError, match=r"'gain' states a scale, but its samples have fractions.* --declared_unit"):
        read_npz(tmp_path, gain=1000, declared=declared)
    # Samples with fractions are in their unit already, whole ones of 1000 counts a mV are microvolts.
    np.testing.assert_array_equal(read_npz(tmp_path, gain=1000, units="mV").signal, SIGNAL)
    np.testing.assert_array_equal(
        read_npz(tmp_path, signal=COUNTS, adc_gain=1000, units="uV", declared=declared).signal, COUNTS
    )


def test_lead_names_are_set_against_the_declared_ones_in_any_spelling(tmp_path):
    backwards = STANDARD_LEADS[::-1]
    disagrees(
        lambda: read_mat(tmp_path, lead_names=texts(backwards)), "'lead_names' states the lead names V6, V5, .* but"
    )
    disagrees(lambda: read_npz(tmp_path, channels=",".join(backwards)), "'channels' states the lead names V6")
    disagrees(lambda: read_h5(tmp_path, sig_name=list(backwards)), "'sig_name' states the lead names V6")
    disagrees(lambda: read_npz(tmp_path, leads=STANDARD_LEADS, sig_name=backwards), "but 'sig_name' V6")
    read_npz(tmp_path, leads=[lead.upper() for lead in STANDARD_LEADS])
    # Labels are names of leads only if some of them are.
    read_npz(tmp_path, labels=["NORM", "AF"], names=np.array(["x"] * 12), channels=12)
    undeclared = Declared(sampling_rate_hz=500.0)
    recording = read_npz(tmp_path, electrodes=[f"{lead} (mV)" for lead in STANDARD_LEADS], declared=undeclared)
    assert (recording.channels, recording.units) == (STANDARD_LEADS, ("mV",) * 12)


@pytest.mark.parametrize(
    "orientation", ["lead_time", "leads x samples", "channels_first", "(n_channels, n_samples)", "CT"]
)
def test_a_stated_orientation_is_honoured(tmp_path, orientation):
    square = SIGNAL[:12]
    np.testing.assert_array_equal(read_npz(tmp_path, signal=square, layout=orientation).signal, square.T)
    disagrees(lambda: read_npz(tmp_path, layout=orientation), r"shape \(500, 12\) cannot be told .* as lead_time")
    declared = Declared(**(vars(FULL) | {"orientation": "time_lead"}))
    disagrees(lambda: read_npz(tmp_path, signal=square, layout=orientation, declared=declared),
              "orientation lead_time, but --declared_orientation says time_lead")  # fmt: skip


def test_axes_named_in_hdf5_are_an_orientation(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["signal"] = SIGNAL[:12]
        file["signal"].dims[0].label, file["signal"].dims[1].label = "lead", "time"
    np.testing.assert_array_equal(read_hdf5(tmp_path / "a.h5", FULL).signal, SIGNAL[:12].T)


def test_everything_may_lie_in_a_struct_or_in_data_sets(tmp_path):
    struct = {"data": SIGNAL.T, "srate": 500.0, "units": "mV", "chanlocs": np.array(
        [(lead,) for lead in STANDARD_LEADS], dtype=[("labels", object)])}  # fmt: skip
    scipy.io.savemat(tmp_path / "a.mat", {"EEG": struct})
    of_sets = read_h5(tmp_path, declared=NOTHING, fs=500, unit="mV", leads=list(STANDARD_LEADS), age=40)
    assert dict(of_sets.fields) == {"Age": "40"}
    table = np.array([tuple(row) for row in SIGNAL], dtype=[(lead, "f8") for lead in STANDARD_LEADS])
    np.save(tmp_path / "a.npy", table)
    of_table = read_numpy(tmp_path / "a.npy", Declared(sampling_rate_hz=500.0, unit="mV"))
    for recording in (read_matlab(tmp_path / "a.mat", NOTHING), of_sets, of_table):
        np.testing.assert_array_equal(recording.signal, SIGNAL)
        assert (recording.sampling_rate_hz, recording.channels) == (500.0, STANDARD_LEADS)
        assert recording.units == ("mV",) * 12


def test_a_struct_of_cpsc2018_that_says_another_rate_is_refused(tmp_path):
    ecg = {"sex": "Male", "age": 40, "data": SIGNAL.T}
    for variables in ({"ECG": ecg | {"fs": 250}}, {"ECG": ecg, "Fs": 250}):
        scipy.io.savemat(tmp_path / "a.mat", variables)
        disagrees(
            lambda: read_matlab(tmp_path / "a.mat", NOTHING), "CPSC-2018' states the rate 500.0, but '.*s' the rate 250"
        )


def test_matlab_of_version_7_3_is_told_as_such(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(RecordError, match=r"a MATLAB file of v7.3, which is not read; load it and save it with -v7"):
        read_matlab(tmp_path / "a.mat", FULL)


@pytest.mark.parametrize(
    ("name", "kind", "unit"),
    [
        ("ECG_fs", Kind.RATE, ""),
        ("Sampling frequency [Hz]", Kind.RATE, "hz"),
        ("Time (ms)", Kind.TIMES, "ms"),
        ("uV_per_LSB", Kind.STEP, "uv"),
        ("adu_per_mV", Kind.GAIN, "mv"),
        ("LSB_nV", Kind.STEP, "nv"),
        ("signalUnits", Kind.UNIT, ""),
        ("Lead-Names", Kind.LEADS, ""),
    ],
)
def test_names_are_taken_apart(name, kind, unit):
    assert (stated_name(name).kinds[0], stated_name(name).unit) == (kind, unit)


@pytest.mark.parametrize("name", ["heart_rate", "filter_fs", "qrs_duration", "age", "ppg units", "RR", ""])
def test_names_of_other_things(name):
    assert stated_name(name).kinds == ()


# Times


@pytest.mark.parametrize("rate", [128, 250, 257, 300, 360, 400, 500, 512, 1000])
@pytest.mark.parametrize(("decimals", "dtype"), [(3, float), (6, float), (None, float), (None, np.float32)])
def test_rounded_times_state_their_rate(rate, decimals, dtype):
    times = np.arange(5000) / rate
    times = (times if decimals is None else np.round(times, decimals)).astype(dtype)
    assert even_times(times, name="t", source="x").rates_hz(1.0) == (float(rate),)


@pytest.mark.parametrize("rate", [250, 360, 500, 1000])
@pytest.mark.parametrize("decimals", [3, 9])
def test_a_lost_a_doubled_and_a_late_sample_are_found_where_they_are(rate, decimals):
    times = np.round(np.arange(5000) / rate, decimals)
    lost, doubled, late = (
        np.delete(times, 100),
        np.insert(times, 100, times[100]),
        times + (np.arange(5000) >= 100) * 2.5,
    )
    for wrong, what in ((lost, "goes from"), (doubled, "repeats"), (late, "goes from"), (times % 1, "goes back")):
        with pytest.raises(RecordError, match=rf"'t' {what} .*at sample \d+") as caught:
            even_times(wrong, name="t", source="x")
        assert caught.value.reason == "header_disagrees"
    with pytest.raises(RecordError, match="at sample 101"):
        even_times(lost, name="t", source="x")


def test_uneven_times_are_refused():
    generator = np.random.default_rng(0)
    jittered = np.cumsum(0.002 * (1 + generator.uniform(-0.2, 0.2, 1000)))
    with pytest.raises(RecordError, match="not evenly spaced"):
        even_times(jittered, name="t", source="x")


def test_times_of_day_go_on_after_midnight():
    np.testing.assert_allclose(np.diff(seconds_of(["23:59:59.996", "00:00:00.000", "00:00:00.004"])), 0.004, atol=1e-9)
    with_dates = seconds_of(["2020-02-29 23:59:59.996", "2020-03-01T00:00:00.000Z", "2020-03-01 00:00:00.004"])
    np.testing.assert_allclose(np.diff(with_dates), 0.004, atol=1e-9)
    assert seconds_of(["12:00:00", "noon"]) is None


# Declarations


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Declared(unit="mmHg"), "--declared_unit=mmHg: is no voltage"),
        (Declared(sampling_rate_hz=-500.0), "--declared_rate_hz=-500: a number of Hz above zero"),
        (Declared(leads=STANDARD_LEADS[:6]), "--declared_leads: leads V1, V2"),
    ],
)
def test_declarations_that_can_be_true_of_no_file(tmp_path, declared, message):
    np.save(tmp_path / "a.npy", SIGNAL)
    with pytest.raises(DataError, match=message):
        folder(tmp_path, declared)


def folder(path, declared):
    return FolderSource(path, labels=None, patient_field=None, name="x", recipe=RECIPES["plain"], declared=declared)


def test_a_build_tells_which_files_a_declaration_is_not_for_and_quarantines_those_that_contradict_it(tmp_path):
    write_wfdb(tmp_path, "w", twelve_lead_mv(rate=250), rate=250)
    scipy.io.savemat(tmp_path / "m.mat", {"val": twelve_lead_mv().T, "fs": 250})
    np.save(tmp_path / "n.npy", twelve_lead_mv())
    source = folder(tmp_path, FULL)
    assert "what was declared (--declared_…) is not for files that describe themselves: 1 wfdb" in source.card.notes
    m, n, w = results_of(source)
    assert (m.reason, n.valid_samples, w.valid_samples) == ("header_disagrees", 2500, 2500)


@pytest.mark.parametrize(
    ("text", "name", "unit"),
    [
        ("I V", "I", "V"), ("II v", "II", "V"), ("aVR V", "aVR", "V"), ("V1_V", "V1", "V"), ("I mV", "I", "mV"),
        ("V", "V", ""), ("V 1", "V 1", ""), ("aV R", "aV R", ""), ("Pleth V", "Pleth V", ""), ("V V", "V V", ""),
    ],
)  # fmt: skip
def test_volts_stand_behind_names_of_leads_alone(text, name, unit):
    assert without_unit(text) == (name, unit)
