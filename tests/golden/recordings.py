"""Made-up recordings with diagnoses, in the layout of the PhysioNet/CinC 2021 challenge: a source to build from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import scipy.io

RATE_HZ, SECONDS, COUNT = 100, 10, 40
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

#: SNOMED CT codes: of an irregular rhythm, of large waves, of neither.
AF, LVH, SINUS = "164889003", "164873001", "426783006"

#: Time that files are said to be of, seconds since 1970: a data set keeps the times of what it was built from.
_WRITTEN_AT = 1_700_000_000


def write_recordings(folder: Path) -> None:
    """Writes the recordings, each of a patient of its own; a data set of them has several classes a record."""
    folder.mkdir(parents=True)
    for number in range(COUNT):
        irregular, large = number % 2 == 1, number // 2 % 2 == 1
        codes = [code for code, holds in ((AF, irregular), (LVH, large)) if holds] or [SINUS]
        signal = _twelve_leads(_eight_leads(number, irregular=irregular, large=large))
        comments = (f"Age: {40 + number}", f"Sex: {('Male', 'Female')[number // 4 % 2]}", f"Dx: {','.join(codes)}")
        _write(folder, f"A{number + 1:04d}", signal, comments)


def _eight_leads(number: int, *, irregular: bool, large: bool) -> np.ndarray:
    """Returns I, II and V1 to V6: `f64[time, 8]`, µV, beats of a spike and a wave on slow waves that differ by lead."""
    time, lead = np.arange(RATE_HZ * SECONDS) / RATE_HZ, np.arange(8)
    gaps = 0.8 + 0.02 * (number % 7) + irregular * 0.25 * np.sin(2.3 * np.arange(20) + number)
    since = time[:, None] - np.cumsum(gaps)
    beats = np.exp(-0.5 * (since / 0.025) ** 2).sum(1) + 0.3 * np.exp(-0.5 * ((since - 0.25) / 0.06) ** 2).sum(1)
    gain = 250 * (1 + large) * (1.4 + np.sin(1.7 * lead + number))
    waves = 15 * np.sin(2 * np.pi * (0.3 + 0.17 * lead) * time[:, None] + number + lead)
    return beats[:, None] * gain + waves


def _twelve_leads(eight: np.ndarray) -> np.ndarray:
    """Returns `i64[time, 12]` in whole µV; I and II are even, so that the leads that follow from them are exact."""
    even = 2 * np.rint(eight / 2).astype(np.int64)
    one, two, chest = even[:, 0], even[:, 1], even[:, 2:]
    return np.c_[one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2, chest]


def _write(folder: Path, name: str, signal: np.ndarray, comments: tuple[str, ...]) -> None:
    samples, header = folder / f"{name}.mat", folder / f"{name}.hea"
    scipy.io.savemat(samples, {"val": signal.T.astype(np.int16)}, format="4")  # Samples begin at byte 24.
    lines = [f"{name} {len(LEADS)} {RATE_HZ} {len(signal)}"]
    for lead, column in zip(LEADS, signal.T, strict=True):
        checksum = (int(column.sum()) + 2**15) % 2**16 - 2**15
        lines.append(f"{name}.mat 16+24 1000/mV 16 0 {column[0]} {checksum} 0 {lead}")
    header.write_text("\n".join([*lines, *(f"#{comment}" for comment in comments)]) + "\n", encoding="utf-8")
    for path in (samples, header):
        os.utime(path, (_WRITTEN_AT, _WRITTEN_AT))
