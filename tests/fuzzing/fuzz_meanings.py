"""Files whose meaning was changed, not their bytes: `python -m tests.fuzzing.fuzz_meanings --mutants=2000 --seed=0`.

A made-up recording of known truth is written in a format as people write it, with what such files say in all its
dialects; one thing that it or its declaration says is another than in truth: rate, step of time, unit, gain, zero, name
or order of leads, orientation, sex, age, patient's id, names and codings of a table's columns. The book
(`meaning_book.py`) knows what the mutant says.

It must be read exactly so; or be refused in words that name the field, and both values where the mutant contradicts
itself. Anything else is a finding: the contradiction is accepted in silence, a statement is ignored, a stack trace.
Mutant number n of a format is a function of (seed, format, n).
"""

import argparse
import dataclasses
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from data_pipelines.builders.base import Quarantined
from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError
from data_pipelines.records import STORED_LEADS, EcgRecord
from data_pipelines.signals.recipe import SignalRecipe
from tests.fuzzing import meaning_arrays, meaning_recorders, meaning_tables
from tests.fuzzing.meaning_arrays import NUM_SAMPLES, Written
from tests.fuzzing.meaning_book import TRUE_RATE, UNITS, Book
from tests.support.fixtures import results_of

WRITERS: Mapping[str, Callable[[Book, Path], Written]] = {
    "wfdb": meaning_recorders.wfdb,
    "npy": meaning_arrays.npy,
    "npz": meaning_arrays.npz,
    "csv": meaning_arrays.csv_table,
    "hdf5": meaning_arrays.hdf5,
    "matlab": meaning_arrays.matlab,
    "matlab_struct": meaning_arrays.matlab_struct,
    "dicom": meaning_recorders.dicom,
    "muse": meaning_recorders.muse,
    "philips": meaning_recorders.philips,
    "aecg": meaning_recorders.aecg,
}
FORMATS = (*WRITERS, "table")

#: How a message may call a field.
NAMED: Mapping[str, str] = {
    "rate": r"rate|hz\b|sampl|interval|time|durat|increment|frequen",
    "unit": r"unit|volt|\b[muµ]?v\b",
    "step": r"gain|scale|step|count|unit|sensitivity|resolution|lsb|per.?bit|adu|amplitude",
    "zero": r"zero|baseline|offset|origin|count|unit",
    "leads": r"lead|channel|column|name",
    "orientation": r"orient|shape|axis|axes|time|lead",
    "patient": r"patient",
}
#: Reasons of checks of the samples themselves, which a wrong unit, gain or order of leads may bring about.
OF_SAMPLES = {"out_of_range", "broken_gain", "flat_lead", "einthoven", "too_short", "wrong_rate", "nan", "missing_lead",
              "duplicate_lead"}  # fmt: skip
FIELDS = ("rate", "unit", "step", "zero", "leads", "orientation")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A mutant that was neither read nor refused rightly."""

    format: str
    number: int
    mutation: str
    what: str


def outcome(format_name: str, number: int, *, seed: int, folder: Path) -> tuple[str, str]:
    """Makes a mutant and reads it.

    Returns:
        What was changed, and `read`, `refused (REASON)` or what begins with `WRONG`.
    """
    key = [seed, *format_name.encode(), number]
    if format_name == "table":
        return meaning_tables.outcome(np.random.default_rng(key), folder)
    writer = WRITERS[format_name]
    whole = Book(np.random.default_rng([*key, 0]))
    _written(writer, whole, folder)
    change = np.random.default_rng([*key, 1])
    target = int(change.integers(-1 if number % 10 == 0 else 0, _num_changeable(whole)))
    book = Book(np.random.default_rng([*key, 0]), target=target, change=change)
    written = _written(writer, book, folder)
    return book.mutation or "nothing", _judged(book, written, folder)


def _num_changeable(book: Book) -> int:
    return len(book.sayings)


def _written(writer: Callable[[Book, Path], Written], book: Book, folder: Path) -> Written:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return writer(book, folder)


def _judged(book: Book, written: Written, folder: Path) -> str:
    rates = book.meanings("rate")
    rate = int(rates[0]) if len(rates) == 1 else TRUE_RATE
    recipe = SignalRecipe(name="f", version=1, sampling_rate_hz=rate, seconds=-(-NUM_SAMPLES // rate), min_seconds=1.0)
    has_person = any(saying.field == "patient" for saying in book.sayings)
    try:
        source = FolderSource(folder, labels=None, patient_field="Patient ID" if has_person else None, name="f",
                              recipe=recipe, declared=written.declared)  # fmt: skip
        written.declared.check()
        (result,) = results_of(source)
    except DataError as error:
        result = Quarantined(record_id="a", reason="data_error", message=str(error))
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    if isinstance(result, Quarantined):
        return _judged_refusal(book, result)
    return _judged_record(book, written, result)


def _judged_refusal(book: Book, refused: Quarantined) -> str:
    message = re.sub(r"\S*/a(\.\w+)?:", "", refused.message)
    for field in FIELDS:
        different = book.meanings(field)
        missing = not different and field in ("rate", "leads")
        if len(different) < 2 and not missing:
            continue
        if not re.search(NAMED[field], message, flags=re.IGNORECASE):
            continue
        if missing or field in ("leads", "orientation"):
            return f"refused ({refused.reason})"
        # Both values, in any spelling.
        texts = [{text for saying in book.said(field) if saying.meaning == meaning for text in saying.texts}
                 for meaning in different]  # fmt: skip
        # Data that do not fit the number of samples that a rate states are refused before a second rate is looked for.
        if refused.reason == "truncated_file" and any(text in message for spellings in texts for text in spellings):
            return "refused (truncated_file)"
        if all(not spellings or any(text in message for text in spellings) for spellings in texts):
            return f"refused ({refused.reason})"
        return f"WRONG refusal, not both values of {field}: {refused.message}"
    if refused.reason == "missing_metadata" and re.search("does not state its", message):
        return "refused (not understood)" if book.mutation else f"WHOLE refused: {refused.message}"
    if any(len(book.meanings(field)) > 1 for field in FIELDS):
        return f"WRONG refusal, not of the field that disagrees: {refused.message}"
    if refused.reason == "missing_patient" and book.meanings("patient") in ([], [None]):
        return "refused (missing_patient)"
    changed = book.mutation.partition(" ")[0]
    if not book.mutation:
        return f"WHOLE refused: {refused.reason}: {refused.message}"
    named = re.search(NAMED.get(changed, "^$"), message, flags=re.IGNORECASE)
    return f"refused ({refused.reason})" if named else f"WRONG refusal, not of {changed}: {refused.message}"


def _judged_record(book: Book, written: Written, record: EcgRecord) -> str:
    for field in FIELDS:
        if len(book.meanings(field)) > 1:
            said = "; ".join(f"{saying.where}: {str(saying.meaning)[:40]}" for saying in book.said(field))
            return f"WRONG: silent acceptance of several meanings of {field}: {said}"
    for field in ("rate", "leads"):
        if not book.meanings(field):
            return f"WRONG: silent acceptance of a file that does not say its {field}"
    rate, leads = book.meanings("rate")[0], book.meanings("leads")[0]
    if not np.isclose(record.recording_seconds, NUM_SAMPLES / rate):
        return f"WRONG: read at {NUM_SAMPLES / record.recording_seconds:g} Hz, said is {rate:g}"
    if book.meanings("step"):
        microvolts = (written.numbers - (book.meanings("zero") or [0])[0]) * book.meanings("step")[0]
    elif book.meanings("unit"):
        microvolts = written.numbers * UNITS[book.meanings("unit")[0]]
    else:
        return "WRONG: silent acceptance of a file that does not say its unit"
    wanted = microvolts[:, [leads.index(lead) for lead in STORED_LEADS]]
    off = np.abs(record.signal[: len(wanted)] - np.clip(wanted, -32767, 32767)).max()
    if off > 0.51:
        return f"WRONG: samples are up to {off:g} µV from what is said"
    return _judged_person(book, record)


def _judged_person(book: Book, record: EcgRecord) -> str:
    if book.said("patient"):
        if record.patient_id != book.meanings("patient")[0]:
            return f"WRONG: patient '{record.patient_id}', said is {book.meanings('patient')}"
    elif any(saying.field == "patient" for saying in book.sayings):
        return f"WRONG: patient '{record.patient_id}' of a file that does not know"
    for saying in book.sayings:
        if saying.field == "sex" and record.sex != saying.meaning:
            return f"WRONG: sex {record.sex}, said is {saying}"
        if saying.field == "age":
            unknown = saying.meaning is None
            if unknown != bool(np.isnan(record.age_years)):
                return f"WRONG: age {record.age_years}, said is {saying}"
            if not unknown and abs(record.age_years - saying.meaning) > 0.02:
                return f"WRONG: age {record.age_years}, said is {saying}"
    return "read"


def fuzz(format_name: str, *, mutants: int, seed: int) -> tuple[Counter, list[Finding]]:
    """Returns how many mutants of a format fared how, and what is wrong."""
    counts: Counter = Counter()
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(mutants):
            mutation, result = outcome(format_name, number, seed=seed, folder=Path(folder) / "a")
            if result.startswith(("WRONG", "WHOLE")):
                findings.append(Finding(format_name, number, mutation, result))
                result = result[:5]
            counts[result] += 1
    return counts, findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=2000, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default="", help="comma-separated, all when empty")
    parser.add_argument("--show", type=int, default=8, help="findings of each format that are printed")
    arguments = parser.parse_args()
    num_findings, total = 0, 0
    for name in arguments.formats.split(",") if arguments.formats else FORMATS:
        start = time.process_time()
        counts, findings = fuzz(name, mutants=arguments.mutants, seed=arguments.seed)
        total, num_findings = total + counts.total(), num_findings + len(findings)
        seconds = time.process_time() - start
        print(f"{name}: {counts.total()} mutants in {seconds:.1f} s, {dict(counts.most_common())}", flush=True)
        for finding in findings[: arguments.show]:
            print(f"    {finding.number}: {finding.mutation}: {' '.join(finding.what.split())[:300]}")
    print(f"{total} mutants of meanings, seed {arguments.seed}: {num_findings} findings")
    return int(num_findings > 0)


if __name__ == "__main__":
    raise SystemExit(main())
