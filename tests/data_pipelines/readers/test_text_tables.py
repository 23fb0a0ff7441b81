"""Tables of text in the forms that people have them: each is read right, or refused with the form that is read."""

import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from data_pipelines.errors import RecordError
from data_pipelines.readers.text.cells import Dialect
from data_pipelines.readers.text.numbers import TableNumbers
from data_pipelines.readers.text.samples import read_csv
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.statements.declared import Declared
from tests.support.fixtures import twelve_lead_mv

SIGNAL = np.round(twelve_lead_mv(seconds=0.4), 3)
TIMES = (np.arange(len(SIGNAL)) / 500).tolist()
FULL = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS)
NAMED = Declared(sampling_rate_hz=500.0, unit="mV")
RATE = Declared(sampling_rate_hz=500.0)
UNIT = Declared(unit="mV")
NAMES = ",".join(STANDARD_LEADS)


def lines(signal=SIGNAL, separator=",", decimal="."):
    return [separator.join(repr(value).replace(".", decimal) for value in row) for row in signal.tolist()]


def table(*above, rows=None, ahead=None, separator=","):
    """Returns a table's text: lines above, and rows with a cell ahead of each."""
    rows = lines(separator=separator) if rows is None else rows
    if ahead is not None:
        rows = [f"{cell}{separator}{row}" for cell, row in zip(ahead, rows, strict=True)]
    return "\n".join([*above, *rows]) + "\n"


def read(folder, text, declared, *, encoding="utf-8"):
    path = folder / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_csv(path, declared)


def check(recording, signal=SIGNAL, rate=500.0):
    """Compares the last twelve channels."""
    np.testing.assert_array_equal(recording.signal[:, -12:], signal)
    assert recording.sampling_rate_hz == rate
    assert set(recording.units[-12:]) == {"mV"}


def refused(folder, text, reason, message, declared=FULL):
    with pytest.raises(RecordError, match=message) as caught:
        read(folder, text, declared)
    assert caught.value.reason == reason
    assert "a.csv" in str(caught.value)


COUNTED = ",".join(map(str, range(12)))


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        (table(COUNTED), FULL),
        (table(COUNTED.replace(",", ".0,") + ".0"), FULL),
        (table(",".join(map(str, range(1, 13)))), FULL),
        (table(f",{COUNTED}", ahead=range(len(SIGNAL))), FULL),
        (table(f"index,{COUNTED}", ahead=range(len(SIGNAL))), FULL),
        (table(f",{NAMES}", ahead=range(len(SIGNAL))), NAMED),
        (table(f"Unnamed: 0,{NAMES}", ahead=range(len(SIGNAL))), NAMED),
        (table(",".join(f'"V{n}"' for n in range(1, 13))), FULL),
        (table(",".join(f"Var{n}" for n in range(1, 13))), FULL),
        (table(",".join(f"ch_{n}" for n in range(12))), FULL),
        (table(NAMES, ahead=[f'"{n}"' for n in range(1, len(SIGNAL) + 1)]), NAMED),
        (table(ahead=range(len(SIGNAL))), FULL),
        (table(), FULL),
    ],
)
def test_numbers_of_columns_and_rows_are_no_samples(tmp_path, text, declared):
    recording = read(tmp_path, text, declared)
    check(recording)
    assert recording.channels[-12:] == STANDARD_LEADS


def test_pandas_own_files_are_read_as_pandas_wrote_them(tmp_path):
    frame = pd.DataFrame(SIGNAL)
    for declared, named in ((FULL, frame), (NAMED, frame.set_axis(list(STANDARD_LEADS), axis=1))):
        for options in ({}, {"index": False}, {"sep": ";", "decimal": ","}, {"sep": "\t"}, {"quoting": 1}):
            check(read(tmp_path, named.to_csv(**options), declared))


@pytest.mark.parametrize(
    "first", [[0.0] * 12, [1.0] * 12, list(range(11, -1, -1)), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]]
)
def test_a_first_sample_is_no_header(tmp_path, first):
    rows = [",".join(f"{value:g}" for value in first), *lines()]
    check(read(tmp_path, table(rows=rows), FULL), np.vstack([first, SIGNAL]))


@pytest.mark.parametrize(
    ("separator", "decimal"), [(";", "."), (";", ","), ("\t", "."), ("\t", ","), ("  ", "."), (" ", ","), ("|", ".")]
)
def test_separators_and_decimal_commas(tmp_path, separator, decimal):
    text = table(separator.join(STANDARD_LEADS), rows=lines(separator=separator, decimal=decimal))
    check(read(tmp_path, text, NAMED))


@pytest.mark.parametrize(
    "names",
    [
        [f"{lead} (mV)" for lead in STANDARD_LEADS],
        [f"ECG {lead} [mV]" for lead in STANDARD_LEADS],
        [f"Lead_{lead}_mV" for lead in STANDARD_LEADS],
        [f"{lead.lower()}/mV" for lead in STANDARD_LEADS],
        [lead.replace("V", "C") if lead[0] == "V" else f"{lead} mV" for lead in STANDARD_LEADS[:6]]
        + [f"C{n} mV" for n in range(1, 7)],
    ],
)
def test_units_in_names_of_columns(tmp_path, names):
    check(read(tmp_path, table(",".join(names)), RATE))
    refused(tmp_path, table(",".join(names)), "header_disagrees", "states the unit mV, but --declared_unit says uV",
            Declared(sampling_rate_hz=500.0, unit="uV"))  # fmt: skip


def test_a_line_of_units(tmp_path):
    units = ",".join(["mV"] * 12)
    check(read(tmp_path, table(NAMES, units), RATE))
    check(read(tmp_path, table(f"time,{NAMES}", f"ms,{units}", ahead=[f"{t * 1000:.0f}" for t in TIMES]), Declared()))
    refused(tmp_path, table(NAMES, units[:-2] + "uV"), "header_disagrees", "'V6' states the unit uV, but .* mV", NAMED)
    refused(tmp_path, table(f"time,{NAMES}", f"s,{units}", ahead=[f"{t * 1000:.0f}" for t in TIMES]),
            "header_disagrees", "'time' states the rate 0.5", NAMED)  # fmt: skip


TIME_COLUMNS = {
    "time": [repr(t) for t in TIMES],
    "Time [ms]": [f"{t * 1000:.0f}" for t in TIMES],
    "timestamp": [f"{1_600_000_000_000 + round(t * 1000)}" for t in TIMES],
    "Elapsed": [f"'0:{t:06.3f}'" for t in TIMES],
    "clock time": [f"12:00:{t:06.3f}" for t in TIMES],
    "date": [
        f"2020-01-01 23:59:{59.8 + t:09.6f}" if t < 0.19999 else f"2020-01-02 00:00:{t - 0.2:09.6f}" for t in TIMES
    ],
}


@pytest.mark.parametrize("name", TIME_COLUMNS)
def test_a_column_of_times_states_the_rate(tmp_path, name):
    text = table(f"{name},{NAMES}", ahead=TIME_COLUMNS[name])
    check(read(tmp_path, text, UNIT))
    message = f"'{re.escape(name)}' states the rate 500.0, but --declared_rate_hz says 250.0"
    refused(tmp_path, text, "header_disagrees", message, Declared(sampling_rate_hz=250.0, unit="mV"))


def test_times_without_a_name_are_times(tmp_path):
    check(read(tmp_path, table(ahead=TIMES), FULL))
    contrary = Declared(sampling_rate_hz=250.0, unit="mV", leads=STANDARD_LEADS)
    refused(tmp_path, table(ahead=TIMES), "header_disagrees", "'time' states the rate 500.0, but .* 250.0", contrary)
    refused(
        tmp_path,
        table(f",{NAMES}", ahead=TIMES),
        "header_disagrees",
        "'the first column' states the rate 500",
        contrary,
    )


@pytest.mark.parametrize(
    ("name", "ahead", "message"),
    [
        ("time", [t + 0.002 * (t > 0.1) for t in TIMES], "'time' goes from 0.1 to 0.104 at sample 52"),
        ("time", [round(t % 0.2, 3) for t in TIMES], "'time' goes back at sample 101 .0.198, then 0"),
        ("time", ["12:00:00"] * len(TIMES), "'time' repeats at sample 2"),
        ("sample", [n + (n > 7) for n in range(len(TIMES))], "'sample' goes from 7 to 9 at sample 9"),
        ("", [2 * n for n in range(len(TIMES))], "'the first column' states the rate 500.0, but .* 250.0"),
        ("fs", [500] * len(TIMES), "'fs' states the rate 500.0, but --declared_rate_hz says 250.0"),
        ("time", range(len(TIMES)), "'time' states the rate 1000.0, but --declared_rate_hz says 250.0"),
    ],
)
def test_columns_that_contradict_are_refused_with_the_place(tmp_path, name, ahead, message):
    declared = Declared(sampling_rate_hz=250.0, unit="mV")
    refused(tmp_path, table(f"{name},{NAMES}", ahead=ahead), "header_disagrees", message, declared)


def test_comments_and_lines_above_the_table_are_read(tmp_path):
    check(read(tmp_path, table("# fs: 500", "# unit: mV", NAMES), Declared()))
    check(read(tmp_path, table("% Sampling rate = 500 Hz", "", "// Units = mV", f"# {NAMES}"), Declared()))
    check(read(tmp_path, table("# leads: " + " ".join(STANDARD_LEADS)), NAMED))
    exported = table("Patient ID,17", "Age,61", "Sampling Rate,500,Hz", "Unit,mV", "", NAMES)
    recording = read(tmp_path, exported, Declared())
    check(recording)
    assert dict(recording.fields) == {"Patient ID": "17", "Age": "61"}
    chart = table("Interval=\t0.002 s", "ChannelTitle=\t" + "\t".join(STANDARD_LEADS), "Range=\t10 mV", separator="\t",
                  ahead=[f"{t:.4f}" for t in TIMES])  # fmt: skip
    check(read(tmp_path, chart, UNIT))
    for line in ("# fs = 250 Hz", "Sampling rate 250 Hz", "Sample interval: 4 ms"):
        refused(tmp_path, table(line, NAMES), "header_disagrees", "states the rate 250.0, but", NAMED)
    refused(tmp_path, table("# duration: 2 s", NAMES), "header_disagrees", "200 samples at 500 Hz take 0.4 s", NAMED)


def test_counts_under_a_gain(tmp_path):
    rows = [",".join(f"{round(value * 200)}" for value in row) for row in SIGNAL]
    recording = read(tmp_path, table("# gain: 200/mV", NAMES, rows=rows), RATE)
    np.testing.assert_allclose(recording.signal, SIGNAL, rtol=0, atol=0.0025 + 1e-12)


def test_a_line_a_lead(tmp_path):
    across = lines(SIGNAL.T)
    numbers = ",".join(map(str, range(len(SIGNAL))))
    check(read(tmp_path, table(rows=across), FULL))
    check(read(tmp_path, table(rows=across, ahead=STANDARD_LEADS), NAMED))
    check(read(tmp_path, table(f"lead,{numbers}", rows=across, ahead=STANDARD_LEADS), NAMED))
    backwards = Declared(sampling_rate_hz=500.0, unit="mV", leads=STANDARD_LEADS[::-1])
    refused(
        tmp_path, table(rows=across, ahead=STANDARD_LEADS), "header_disagrees", "states the lead names I, II", backwards
    )


@pytest.mark.parametrize("end", ["\r\n", "\r", "\r\r\n", "\n\n\n"])
def test_ends_of_lines_and_separators_at_them(tmp_path, end):
    if end != "\n\n\n":
        check(read(tmp_path, table(NAMES).replace("\n", end), NAMED))
    check(read(tmp_path, table(NAMES).rstrip("\n") + end, NAMED))
    check(read(tmp_path, table(NAMES + ",", rows=[row + "," for row in lines()]), NAMED).__class__(
        **vars(read(tmp_path, table(NAMES, rows=[row + "," for row in lines()]), NAMED))))  # fmt: skip


@pytest.mark.parametrize("cell", ["", "NA", "N/A", "null", "NaN", "None", "-", "#N/A"])
def test_missing_samples_are_invalid(tmp_path, cell):
    rows = lines()
    rows[3] = ",".join([cell, *rows[3].split(",")[1:]])
    expected = SIGNAL.copy()
    expected[3, 0] = np.nan
    check(read(tmp_path, table(NAMES, rows=rows), NAMED), expected)


ROWS = lines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table(NAMES, rows=[*ROWS[:9], NAMES, *ROWS[9:]]), "'I' in column 'I', line 10 of the samples, is no number"),
        (table(NAMES, rows=[*ROWS[:9], "", *ROWS[9:]]), "line 11 is empty"),
        (table(NAMES, rows=[*ROWS, "end of file"]), "line 202 has 1 cells where the first has 12"),
        (table(NAMES, rows=["x" + ROWS[0], *ROWS]), "line 2 has both numbers and 'x"),
        (table(rows=["x" + ROWS[0], *ROWS]), "line 1 has both numbers and 'x"),
        (table(NAMES, NAMES), "lines 1 and 2 both name leads"),
        (table(NAMES, rows=[row.replace(".", ",") for row in ROWS]), "line 2 has 24 cells where the first has 12"),
        (table(NAMES, rows=[*ROWS[:99], ROWS[99].replace("0.", "0,", 1), *ROWS[100:]]), "line 101 has 13 cells"),
        (table(NAMES, rows=[*ROWS[:99], ROWS[99].replace(".", "_", 1), *ROWS[100:]]), "line 100 of the samples, is no"),
        (
            table(NAMES, rows=["0.1,-0.2,-0.14V5,V6", *ROWS]),
            r"line 2 \('0.1,-0.2,.*'\) stands between the names and the",
        ),
        ("12,500\n" + table(), "line 1 has 2 cells where those of the samples have 12"),
        ("once upon a time\n", "it has no line of numbers"),
        (table(ahead=[n + (n > 7) for n in range(len(ROWS))]), "13 columns, but --declared_leads names 12; as times"),
        (table(NAMES.replace("aVR,", ""), rows=[row.partition(",")[2] for row in ROWS]), "states the lead names"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(RecordError, match=message):
        read(tmp_path, text, FULL)


@pytest.mark.parametrize(("separator", "thousands"), [(";", "."), (";", ","), ("\t", ".")])
def test_separators_of_thousands_are_not_taken_for_decimals(tmp_path, separator, thousands):
    microvolts = np.rint(SIGNAL * 2000).astype(int)
    rows = [separator.join(f"{value:,}".replace(",", thousands) for value in row) for row in microvolts.tolist()]
    text = table(separator.join(STANDARD_LEADS), rows=rows)
    refused(tmp_path, text, "unreadable_header", "may be decimals or thousands|is no number|no table",
            Declared(sampling_rate_hz=500.0, unit="uV"))  # fmt: skip


def test_steps_of_half_a_microvolt_are_no_thousands(tmp_path):
    microvolts = np.rint(SIGNAL * 400) * 2.5
    rows = [",".join(f"{value:g}" for value in row) for row in microvolts]
    recording = read(tmp_path, table(NAMES, rows=rows), Declared(sampling_rate_hz=500.0, unit="uV"))
    np.testing.assert_array_equal(recording.signal, microvolts)


def test_an_inverted_lead_is_not_the_lead(tmp_path):
    recording = read(tmp_path, table(NAMES.replace("aVR", "-aVR")), NAMED)
    assert recording.units[3] == ""


@pytest.mark.parametrize("dialect", [Dialect(",", "."), Dialect(";", ","), Dialect(None, "."), Dialect("\t", ".")])
def test_both_ways_through_a_block_agree(tmp_path, dialect):
    generator = np.random.default_rng(3)
    alphabet = list("0123456789") + list("+-.,eE ") + ["\t", ";", "nan", "inf", "_", "x"]
    separator = dialect.separator or " "
    outcomes = set()
    for _ in range(3000):
        cells = ["".join(generator.choice(alphabet, size=generator.integers(0, 5))) for _ in range(2)]
        block = (separator.join(cells) + "\n").encode()
        rows = [TableNumbers(dialect, 2, names=None, first_line=1, path=tmp_path) for _ in range(2)]
        quick = rows[0]._quickly(block)
        try:
            slow = rows[1]._by_cells(block.decode())
        except RecordError:
            slow = None
        if quick is not None and block.strip():
            np.testing.assert_array_equal(quick, slow, err_msg=repr(block))
            outcomes.add("both")
    assert outcomes == {"both"}


def test_a_long_table_takes_little_more_than_its_numbers_and_its_text(tmp_path):
    signal = np.tile(SIGNAL, (300, 1))
    path = tmp_path / "long.csv"
    path.write_text(table(NAMES, rows=lines() * 300))
    tracemalloc.start()
    recording = read_csv(path, NAMED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(recording.signal, signal)
    assert peak < 1.3 * (signal.nbytes + path.stat().st_size) + 2**24
