"""Files of bare samples as people write them: NumPy, HDF5, MATLAB, text. Each says what `meaning_book.Book` says."""

import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from data_pipelines.statements.declared import Declared
from tests.fuzzing.meaning_book import TRUE_RATE, UNITS, Book
from tests.support.fixtures import twelve_lead_mv

SECONDS = 3
SIGNAL_MV = twelve_lead_mv(seconds=SECONDS, rate=TRUE_RATE)
NUM_SAMPLES = len(SIGNAL_MV)

RATE_NAMES = (
    "fs", "Fs", "FS", "sampling_rate", "SamplingRate", "Sampling Rate", "sample_rate", "sampling_frequency",
    "SampleFreq", "srate", "sfreq", "frequency", "fs_hz", "ECG_fs", "sampling_rate_hz", "samplerate", "sampfreq",
    "Samplingfrequency", "sampling frequency (Hz)", "sps", "Hz", "samples_per_second", "fsample", "samp_rate",
    "acquisition_rate", "sampling_freq_hz", "sampleRate", "freq_hz", "rate", "Fs_ECG", "fs_ecg", "ecg_sampling_rate",
    "SampleRateHz", "nominal_srate", "samples per sec", "tickrate", "sf", "SR", "f_s", "signal_rate", "ecg_sr",
    "digitization_rate", "SampFreq_Hz", "AcqFreq", "adc_rate", "taxa de amostragem",
)  # fmt: skip
STEP_NAMES = ("uV_per_bit", "lsb_uV", "resolution_uV", "uv_per_lsb", "microvolts_per_count", "scale_uV", "step_uV",
              "uv_per_count", "LSB (uV)", "nanovolts_per_bit", "mV_per_bit", "mv_per_adu", "V_per_bit")  # fmt: skip
GAIN_NAMES = ("adc_per_mV", "counts_per_mV", "adu_per_mV", "lsb_per_mv", "units_per_mV", "gain_per_mV", "adc_gain",
              "gain")  # fmt: skip
INTERVAL_NAMES = ("dt", "sampling_interval", "dt_s", "delta_t", "sample_interval", "sampling_period", "Ts", "time_step",
                  "dt_ms", "sampling_interval_ms", "sample_period_us", "sampling interval [ms]", "isi", "wf_increment",
                  "SampleInterval",
                  "inter_sample_interval_ms")  # fmt: skip
TIME_NAMES = ("t", "time", "Time", "time_s", "times", "timestamps", "time_ms", "Time (ms)", "t_us", "TimeStamp [s]",
              "seconds", "tvec", "time_axis")  # fmt: skip
UNIT_NAMES = ("unit", "units", "Units", "amplitude_unit", "physical_unit", "signal_units", "sig_units", "voltage_unit",
              "ecg_unit", "unit_of_measure", "chanunits",
              "unit_string", "unittext")  # fmt: skip
LEADS_NAMES = ("leads", "lead_names", "Leads", "channel_names", "sig_name", "channels", "labels", "ch_names",
               "lead_order", "channel_labels", "columns", "signal_names", "electrodes", "names",
               "derivations")  # fmt: skip
ORIENTATION_NAMES = ("orientation", "dims", "axes", "layout", "dimension_order")
ORIENTATIONS = {
    "time_lead": ("time,lead", "time x lead", "samples x channels", "(time, leads)", "channels_last", "samples_leads"),
    "lead_time": ("lead,time", "lead x time", "channels x samples", "(leads, time)", "channels_first", "leads_samples"),
}


@dataclasses.dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        name: of the recording.
        numbers: what it holds, `[time, column]`, in the order of the names.
        declared: with what it is to be read.
    """

    name: str
    numbers: np.ndarray
    declared: Declared = dataclasses.field(default_factory=Declared)


def numbers_in(unit: str) -> np.ndarray:
    """Returns the made-up signal in a unit, `f64[time, 12]`."""
    return SIGNAL_MV * (1e3 / UNITS[unit])


def counts_of(step: float, zero: int = 0) -> np.ndarray:
    """Returns the made-up signal in counts of so many microvolts, `int16[time, 12]`."""
    return (np.rint(SIGNAL_MV * 1e3 / step) + zero).astype(np.int16)


def rate_statement(
    book: Book, taken: Any = (), *, kinds: tuple[str, ...] = ("rate", "rate", "interval", "times")
) -> dict[str, Any]:
    """Returns what may state a rate, by a name that is not taken; nothing where it is."""
    kind = book.pick(kinds)
    name = book.pick({"rate": RATE_NAMES, "interval": INTERVAL_NAMES, "times": TIME_NAMES}[kind])
    if name in taken:
        return {}
    rate = book.rate(f"'{name}'", may_miss=True)
    if rate is None:
        return {}
    factor = 1e3 if "ms" in name else 1e6 if "us" in name else 1.0
    if kind == "rate":
        return {name: book.pick((rate, float(rate), f"{rate}", f"{rate} Hz", f"{rate}.0", np.array([[rate]])))}
    if kind == "interval":
        return {name: book.pick((factor / rate, repr(round(factor / rate, 12))))}
    return {name: np.round(np.arange(NUM_SAMPLES) * factor / rate, 9)}


def amplitude(book: Book) -> tuple[np.ndarray, dict[str, Any], str | None]:
    """Returns numbers, what says their unit or scale, and the unit to declare."""
    if book.chance(0.35):
        true = book.pick((2.5, 5.0, 1.25, 2.0))
        zero = book.pick((0, 0, 0, 100, -64))
        stated = dict([book.pick((_step_statement, _gain_statement))(book, true)])
        if zero:
            stated[book.pick(("baseline", "zero", "adc_zero", "offset"))] = book.zero("zero", zero)
        return counts_of(true, zero), stated, None
    true = book.pick(("mV", "mV", "uV", "V"))
    stated = {}
    in_file, in_declaration = book.pick(((True, False), (False, True), (True, True)))
    if in_file:
        name = book.pick(UNIT_NAMES)
        unit = book.unit(f"'{name}'", true, may_miss=in_declaration)
        if unit:
            stated[name] = unit
    return numbers_in(true), stated, book.unit("--declared_unit", true) if in_declaration else None


def _step_statement(book: Book, true: float) -> tuple[str, Any]:
    name = book.pick(STEP_NAMES)
    step = book.step(f"'{name}'", true)
    factor = 1e3 if "nano" in name else 1e-3 if "mv" in name.lower() else 1e-6 if name.startswith("V") else 1.0
    return name, book.pick((step * factor, np.full(12, step * factor)))


def _gain_statement(book: Book, true: float) -> tuple[str, Any]:
    name = book.pick(GAIN_NAMES)
    step = book.step(f"'{name}'", true)
    if name in ("gain", "adc_gain"):
        return name, f"{1e3 / step:.12g}/mV"
    return name, 1e3 / step


def lead_statement(book: Book, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Returns what may state the leads."""
    name = book.pick(LEADS_NAMES)
    leads = book.leads(f"'{name}'", may_miss=True)
    return {} if leads is None else {name: spelled_leads(book, leads)}


def spelled_leads(book: Book, leads: tuple[str, ...]) -> tuple[str, ...]:
    """Returns leads in one of the spellings in use."""
    spelling = book.pick((str, str, str.upper, str.lower, "Lead {}".format, "lead_{}".format, "ECG {}".format,
                          "MDC_ECG_LEAD_{}".format))  # fmt: skip
    return tuple(map(spelling, leads))


def _described(book: Book) -> tuple[np.ndarray, dict[str, Any], Declared]:
    """Returns a matrix, what its file says beside it, and what is declared."""
    numbers, stated, unit = amplitude(book)
    rate = None
    if book.chance(0.8):
        stated |= rate_statement(book)
    if book.chance(0.5) or not book.said("rate"):
        rate = book.rate("--declared_rate_hz", may_miss=True)
    if book.chance(0.25):
        stated |= rate_statement(book, stated)
    leads = None
    if book.chance(0.7):
        stated |= lead_statement(book)
    if book.chance(0.5) or not book.said("leads"):
        leads = book.leads("--declared_leads")
    true = book.pick(tuple(ORIENTATIONS))
    book.fixed("orientation", "shape", true)
    orientation = book.orientation("--declared_orientation", true) if book.chance(0.3) else None
    if book.chance(0.3):
        name = book.pick(ORIENTATION_NAMES)
        stated[name] = book.pick(ORIENTATIONS[book.orientation(f"'{name}'", true)])
    matrix = numbers if true == "time_lead" else numbers.T
    return matrix, stated, Declared(sampling_rate_hz=rate, unit=unit, leads=leads, orientation=orientation)


def _by_time(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix if matrix.shape[1] == 12 else matrix.T, np.float64)


def npy(book: Book, folder: Path) -> Written:
    """A bare matrix, of which everything is declared, or a table with names of columns."""
    if book.chance(0.4):
        unit = book.pick(tuple(UNITS))
        columns = {name: column for name, column in zip(book.leads("columns"), numbers_in(unit).T, strict=False)}
        numbers = np.stack(list(columns.values()), axis=1)
        if book.chance(0.5):
            columns = rate_statement(book, kinds=("times",)) | columns
        table = np.zeros(NUM_SAMPLES, dtype=[(name, "f8") for name in columns])
        for name, column in columns.items():
            table[name] = column
        np.save(folder / "a.npy", table)
        declared = Declared(sampling_rate_hz=book.rate("--declared_rate_hz"), unit=book.unit("--declared_unit", unit))
        return Written("a", numbers, declared)
    unit, true = book.pick(tuple(UNITS)), book.pick(tuple(ORIENTATIONS))
    book.fixed("orientation", "shape", true)
    numbers = numbers_in(unit)
    np.save(folder / "a.npy", numbers if true == "time_lead" else np.asfortranarray(numbers).T)
    declared = Declared(
        sampling_rate_hz=book.rate("--declared_rate_hz", may_miss=True),
        unit=book.unit("--declared_unit", unit, may_miss=True),
        leads=book.leads("--declared_leads", may_miss=True),
        orientation=book.orientation("--declared_orientation", true) if book.chance(0.4) else None,
    )
    return Written("a", numbers, declared)


def npz(book: Book, folder: Path) -> Written:
    """An archive with what it says beside the matrix."""
    matrix, stated, declared = _described(book)
    name = book.pick(("signal", "ecg", "data", "ECG", "val"))
    np.savez(folder / "a.npz", **{name: matrix}, **stated)
    return Written("a", _by_time(matrix), declared)


def hdf5(book: Book, folder: Path) -> Written:
    """Attributes of the data set or of a group, or data sets beside it."""
    matrix, stated, declared = _described(book)
    inside = book.pick(("", "", "ecg_group/", "recording/waveform/"))
    with h5py.File(folder / "a.h5", "w") as file:
        dataset = file.create_dataset(inside + book.pick(("signal", "ecg", "data")), data=matrix)
        for name, value in stated.items():
            place = book.pick((dataset.attrs, file.attrs, dataset.parent.attrs, None, None))
            value = list(value) if isinstance(value, tuple) else value
            if place is None:
                file[book.pick((inside, "info/", "metadata/", "")) + name.replace("/", "_")] = value
            else:
                place[name] = value
    return Written("a", _by_time(matrix), declared)


def matlab(book: Book, folder: Path) -> Written:
    """Variables beside a matrix."""
    matrix, stated, declared = _described(book)
    variables = {_identifier(name): _matlab(value) for name, value in stated.items()}
    if book.chance(0.3) and variables:
        variables = {book.pick(("info", "header", "meta", "params", "hdr")): variables}
    scipy.io.savemat(folder / "a.mat", {book.pick(("val", "ecg", "data", "signal")): matrix, **variables})
    return Written("a", _by_time(matrix), declared)


def matlab_struct(book: Book, folder: Path) -> Written:
    """A struct that holds the matrix with all that is said."""
    matrix, stated, declared = _described(book)
    variables = {_identifier(name): _matlab(value) for name, value in stated.items()}
    struct = {book.pick(("data", "signal", "val", "ecg")): matrix, **variables}
    scipy.io.savemat(folder / "a.mat", {book.pick(("ECG", "record", "S", "rec")): struct})
    return Written("a", _by_time(matrix), declared)


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name).strip("_") or "x"


def _matlab(value: Any) -> Any:
    return np.array(list(value), dtype=object) if isinstance(value, tuple) else value


def csv_table(book: Book, folder: Path) -> Written:
    """A text table: separators, decimal signs, comments, units in names, columns of times and of row numbers."""
    separator, decimal = book.pick(((",", "."), (",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")))

    def number(value: float) -> str:
        return f"{value:.7g}".replace(".", decimal)

    true = book.pick(("mV", "mV", "uV", "V"))
    numbers = numbers_in(true)
    comments, unit, rate = [], None, None
    leads_in_file = book.chance(0.8)
    names: list[str] = list(map(str, range(12)))
    if leads_in_file:
        leads = book.leads("names of columns")
        names = list(spelled_leads(book, leads))
    place = book.pick(("names", "row", "comment", "nowhere"))
    unit_row = None
    if place == "names" and leads_in_file:
        spelled = book.unit("units in names", true)
        form = book.pick(("{} ({})", "{} [{}]", "{}_{}", "{} {}", "{}({})", "{}/{}"))
        names = [form.format(name, spelled) for name in names]
    elif place == "row" and leads_in_file:
        unit_row = book.unit("row of units", true)
    elif place == "comment":
        name = book.pick(("unit", "Units", "amplitude unit", "signal units"))
        comments.append(f"{name}{book.pick((': ', ' = ', '='))}{book.unit(f'comment {name}', true)}")
    if book.chance(0.4) or not (book.said("unit")):
        unit = book.unit("--declared_unit", true)
    if book.chance(0.4):
        name = book.pick(tuple(name for name in RATE_NAMES if name not in ("rate", "SR", "f_s")))
        stated_rate = book.rate(f"comment {name}", may_miss=True)
        if stated_rate is not None:
            comments.append(f"{name}{book.pick((': ', ' = ', '='))}{stated_rate}{book.pick((' Hz', '', ' hz'))}")
    columns = [[number(value) for value in column] for column in numbers.T]
    if book.chance(0.4) and leads_in_file:
        names, columns, unit_row = _with_times(book, names, columns, unit_row, number)
    elif unit_row is not None:
        unit_row = [unit_row] * 12
    if book.chance(0.2) and leads_in_file:
        names.insert(0, book.pick(("", "Unnamed: 0", "sample", "index")))
        columns.insert(0, list(map(str, range(NUM_SAMPLES))))
        unit_row = unit_row if unit_row is None else ["", *unit_row]
    if book.chance(0.4) or not book.said("rate"):
        rate = book.rate("--declared_rate_hz", may_miss=True)
    declared = Declared(
        sampling_rate_hz=rate, unit=unit, leads=None if leads_in_file else book.leads("--declared_leads", may_miss=True)
    )
    text = io.StringIO(newline="")
    mark = book.pick(("# ", "% ", "// ", "#"))
    text.write("".join(f"{mark}{comment}\n" for comment in comments))
    writer = csv.writer(text, delimiter=separator, lineterminator=book.pick(("\n", "\r\n")))
    if leads_in_file or book.chance(0.5):
        writer.writerow(names)
    if unit_row is not None:
        writer.writerow(unit_row)
    writer.writerows(zip(*columns, strict=True))
    name = "a.tsv" if separator == "\t" else "a.csv"
    (folder / name).write_text(text.getvalue(), encoding=book.pick(("utf-8", "utf-8-sig")))
    return Written("a", numbers, declared)


def _with_times(book: Book, names: list[str], columns: list, unit_row: Any, number: Callable) -> tuple:
    kind = book.pick(("s", "s", "ms", "clock", "unit row"))
    rate = book.rate("column of times")
    if kind == "clock":
        total = np.arange(NUM_SAMPLES) / rate
        texts = [f"10:{int(30 + value // 60):02d}:{value % 60:09.6f}" for value in total]
        name, unit = "time", "hh:mm:ss.mmm"
    else:
        factor = 1e3 if kind != "s" else 1.0
        texts = [f"{value:.9g}".replace(".", number(0.5)[1]) for value in np.arange(NUM_SAMPLES) * factor / rate]
        unit = "s" if kind == "s" else "ms"
        name = book.pick((f"time_{unit}", f"Time ({unit})", f"t [{unit}]", "time" if kind == "s" else f"t_{unit}"))
    rows = None if unit_row is None else [unit, *[unit_row] * 12]
    return [name, *names], [texts, *columns], rows
