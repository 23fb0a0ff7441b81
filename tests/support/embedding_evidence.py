"""Measures what `ecgjax.load(…).embed` finds of wrong statements, and what formats, units and rates change.

python -m tests.support.embedding_evidence --data=DIR            # prints tables, two minutes of two cores

The encoder is a ResNet-18 of published size at random weights: what is measured is the preparation, and how fast it is.
Differences are parts of an embedding's distance from the mean of all, so that 1 is another recording.
"""

from __future__ import annotations

import argparse
import collections
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

import ecgjax
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.readers.formats import find_recordings, read_recording
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.statements.declared import Declared
from ecgjax.embedded.inputs import DatasetInput, FileInput
from ecgjax.embedded.rows import Row
from ecgjax.model.applied import Model
from tests.data_pipelines.readers.vendor_files import write_dicom
from tests.ecgjax.model.written import write_model
from tests.support.fixtures import make_simulated_dataset, write_wfdb

_LEADS = list(STANDARD_LEADS)
_EIGHT = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]

#: Faults of what is said or given: name → samples in mV of twelve leads and what is said of them.
Fault = Callable[[np.ndarray], tuple[np.ndarray, dict]]


def _said(**changes) -> dict:
    return {"rate_hz": 500, "unit": "mV", "leads": _LEADS} | changes


def _swapped(one: str, other: str) -> Fault:
    order = list(range(12))
    first, second = STANDARD_LEADS.index(one), STANDARD_LEADS.index(other)
    order[first], order[second] = second, first
    return lambda x: (x[:, :, order], _said())


def _arms_swapped(x: np.ndarray) -> np.ndarray:
    """Twelve consistent leads as a recorder computes them with left and right arm exchanged."""
    swapped = x.copy()
    swapped[..., 0], swapped[..., 1], swapped[..., 2] = -x[..., 0], x[..., 2], x[..., 1]
    swapped[..., 3], swapped[..., 4] = x[..., 4], x[..., 3]
    return swapped


FAULTS: dict[str, Fault] = {
    "as it is, 12 leads": lambda x: (x, _said()),
    "as it is, 8 leads": lambda x: (x[:, :, _EIGHT], _said(leads=list(STORED_LEADS))),
    "mV said to be uV": lambda x: (x, _said(unit="uV")),
    "uV said to be mV": lambda x: (x * 1e3, _said()),
    "uV said to be mV, 8 leads": lambda x: (x[:, :, _EIGHT] * 1e3, _said(leads=list(STORED_LEADS))),
    "mV said to be V": lambda x: (x, _said(unit="V")),
    "V said to be mV": lambda x: (x / 1e3, _said()),
    "gain 10 times too high": lambda x: (x * 10, _said()),
    "gain 10 times too low": lambda x: (x / 10, _said()),
    "counts of 4.88 uV said to be uV": lambda x: (x * 1e3 / 4.88, _said(unit="uV")),
    "I and II swapped by name, 12 leads": _swapped("I", "II"),
    "I and II swapped by name, 8 leads": lambda x: (
        x[:, :, _EIGHT],
        _said(leads=["II", "I", *STORED_LEADS[2:]]),
    ),
    "arms swapped at the patient": lambda x: (_arms_swapped(x), _said()),
    "V1 and V2 swapped": _swapped("V1", "V2"),
    "leads in reverse order": lambda x: (x[:, :, ::-1], _said()),
    "aVR and aVF swapped by name": _swapped("aVR", "aVF"),
    "500 Hz said to be 250": lambda x: (x, _said(rate_hz=250)),
    "500 Hz said to be 1000": lambda x: (x, _said(rate_hz=1000)),
    "500 Hz said to be 5000": lambda x: (x, _said(rate_hz=5000)),
    "NaN in one sample": lambda x: (np.where(np.arange(x.shape[1])[:, None] == 99, np.nan, x), _said()),
}


def real_recordings(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and samples, `f64[time, 12]` in mV, of the recordings of 500 Hz of PTB-XL."""
    for found in find_recordings(folder / "ptbxl" / "records500").recordings:
        recording = read_recording(found, Declared())
        order = [[name.upper() for name in recording.channels].index(lead.upper()) for lead in STANDARD_LEADS]
        yield found.record_id, np.asarray(recording.signal[0 : recording.signal.shape[0]])[:, order]


def refusals(model: Model, recordings: list[np.ndarray]) -> None:
    """Prints how many recordings are refused under each fault, and by which reason."""
    print(f"\n{'fault':<38}{'refused':>8}{'of':>6}  reasons")
    for name, fault in FAULTS.items():
        counted: collections.Counter[str] = collections.Counter()
        for recording in recordings:
            x, said = fault(recording[None])
            try:
                model.prepare(x, **said)
            except DataError as error:
                counted[error.reason] += 1
            except ValueError:
                counted["said at once"] += 1
        reasons = ", ".join(f"{reason} {count}" for reason, count in counted.most_common())
        print(f"{name:<38}{sum(counted.values()):>8}{len(recordings):>6}  {reasons}")


def _relative(found: np.ndarray, expected: np.ndarray) -> str:
    spread = np.linalg.norm(expected - expected.mean(axis=0), axis=1).mean()
    apart = np.linalg.norm(found - expected, axis=1) / spread
    return f"mean {apart.mean():.1e}, largest {apart.max():.1e}"


def invariances(model: Model, x: np.ndarray) -> None:
    """Prints how far embeddings move where units, leads and rates change."""
    expected = model.embed(x, **_said())
    order = np.random.default_rng(0).permutation(12)
    half = x[:, ::2]
    print("\nsame recordings, otherwise given         difference in parts of the spread of recordings")
    for name, given, said in (
        ("whole uV, int16", np.rint(x * 1e3).astype(np.int16), _said(unit="uV")),
        ("V, float32", (x / 1e3).astype(np.float32), _said(unit="V")),
        ("eight leads", x[:, :, _EIGHT], _said(leads=list(STORED_LEADS))),
        ("leads permuted", x[:, :, order], _said(leads=[_LEADS[at] for at in order])),
        ("every second sample, 250 Hz", half, _said(rate_hz=250)),
        ("9.2 s", x[:, :4600], _said()),
    ):
        print(f"{name:<40} {_relative(model.embed(given, **said), expected)}")
    short = model.embed(x[:, :4600], **_said())
    print(
        f"{'9.2 s at 250 Hz against 500 Hz':<40} {_relative(model.embed(half[:, :2300], **_said(rate_hz=250)), short)}"
    )


def formats(model: Model, x: np.ndarray, folder: Path) -> None:
    """Prints how far the embedding of a recording from one format is from that of another."""
    mv = x[0]
    counts = np.rint(mv * 1e3).astype(np.int16)
    write_wfdb(folder, "wfdb", mv)
    np.save(folder / "numpy.npy", mv)
    header = ",".join(_LEADS)
    np.savetxt(folder / "csv.csv", mv, delimiter=",", header=header, comments="", fmt="%.6f")
    with h5py.File(folder / "hdf5.h5", "w") as file:
        file["ecg"] = mv
    write_dicom(folder / "dicom.dcm", counts, sensitivity=1.0)
    declared = Declared(sampling_rate_hz=500, unit="mV", leads=tuple(_LEADS))
    source = FileInput(folder, recipe=model.recipe, declared=declared)
    rows = [each for results in source.rows(num_workers=1, measure=False) for each in results]
    expected = model.prepare(x[:1], **_said()).signals[0]
    answer = model.embed(x[:1], **_said())[0]
    print("\nformat     samples that differ from those in memory; difference of embeddings in parts of the largest")
    for row in rows:
        if not isinstance(row, Row):
            print(f"{row.record_id:<10} {row.reason}: {row.message}")
            continue
        found = model.embed_prepared(row.signal[None])[0]
        apart = np.abs(found - answer).max() / np.abs(answer).max()
        print(f"{row.record:<10} {np.count_nonzero(row.signal != expected):>6}   {apart:.1e}")


def rates(model: Model, data: Path, folder: Path, x: np.ndarray) -> None:
    """Prints recordings a second: read and prepared, from a data set, embedded, and all together."""
    files = FileInput(data / "ptbxl" / "records500", recipe=model.recipe)
    dataset = make_simulated_dataset(folder, num_patients=400, rate=250)
    stored = DatasetInput(open_dataset(dataset.directory).directory, recipe=model.recipe)
    signals = model.prepare(x[:64], **_said()).signals
    model.embed_prepared(signals)
    print("\nrecordings a second, of one process on this machine")
    for name, work in (
        ("read and prepared from WFDB", lambda: sum(map(len, files.rows(num_workers=1, measure=False)))),
        ("read from a data set", lambda: sum(map(len, stored.rows(num_workers=1, measure=False)))),
        ("prepared from arrays", lambda: len(model.prepare(x, **_said()).signals)),
        ("embedded", lambda: 64 if model.embed_prepared(signals) is not None else 0),
    ):
        start = time.perf_counter()
        count = work()
        print(f"{name:<40}{count / (time.perf_counter() - start):>8.0f}")


def main() -> None:
    """Measures everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ptbxl/records500 in it")
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["ECGJAX_CACHE"] = str(folder / "cache")
        write_model(folder / "model", arguments={}, seed=0)
        start = time.perf_counter()
        model = ecgjax.load(folder / "model")
        loaded = time.perf_counter()
        model.embed(
            np.stack([x for _, x in zip(range(1), (x for _, x in real_recordings(data)), strict=False)]), **_said()
        )
        print(
            f"loaded and checked in {loaded - start:.1f} s, first embedding after {time.perf_counter() - start:.1f} s"
        )
        recordings = [x for _, x in real_recordings(data)]
        refusals(model, recordings)
        good = [x for x in recordings if _is_taken(model, x)][:100]
        invariances(model, np.stack(good))
        formats(model, np.stack(good[:1]), folder / "formats")
        rates(model, data, folder, np.stack(good))


def _is_taken(model: Model, x: np.ndarray) -> bool:
    try:
        model.prepare(x[None], **_said())
    except DataError:
        return False
    return True


if __name__ == "__main__":
    main()
