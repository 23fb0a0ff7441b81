"""Small records as the CinC challenges publish them, with the faults of Georgia's headers."""

import numpy as np
import scipy.io

from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from tests.support.fixtures import twelve_lead_mv

STORED_COLUMNS = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]


def write_cinc(folder, name, signal_uv, *, gain="1000/mV", rate=500, record_name=None, comments=()):
    """Writes int µV as the challenge ships them: a MATLAB 4 file whose samples start at byte 24, and a header."""
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / f"{name}.mat", {"val": signal_uv.T.astype(np.int16)}, format="4")
    lines = [f"{record_name or name} 12 {rate} {len(signal_uv)} 05-May-2020 14:50:55"]
    for lead, samples in zip(STANDARD_LEADS, signal_uv.T.astype(np.int64), strict=True):
        checksum = (int(samples.sum()) + 2**15) % 2**16 - 2**15
        lines.append(f"{name}.mat 16+24 {gain} 16 0 {samples[0]} {checksum} 0 {lead}")
    lines += [f"#{comment}" for comment in comments]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


def ecg_uv(*, seed, seconds=10.0, rate=500, scale=1.0):
    """Returns a simulated recording in whole µV, `f64[time, 12]`."""
    return np.rint(twelve_lead_mv(seed=seed, seconds=seconds, rate=rate) * 1000 * scale)


def georgia_uv(*, seed, spread=1.0):
    """Steps of 4.88 µV, cut to whole µV towards zero as Georgia's samples are; the aV leads are half steps."""
    steps = np.rint(twelve_lead_mv(seed=seed)[:, STORED_COLUMNS] * spread * 1000 / 4.88)
    one, two, chest = steps[:, :1], steps[:, 1:2], steps[:, 2:]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.trunc(np.concatenate([*limb, chest], axis=1) * 4.88)
