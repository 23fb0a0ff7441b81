"""The file `sample.npz`: three simulated recordings with their embeddings, and the outputs and answers of a head.

By it a reader checks its installation.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from data_pipelines.records import STORED_LEADS
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax.export.inference import Inference

_RECORDS = 3

# What the simulator takes.
_RATES_HZ, _FEWEST_SECONDS, _MOST_SECONDS = (50, 2000), 2, 60


def sample_signals(*, sampling_rate_hz: int, num_samples: int) -> np.ndarray:
    """Returns SIMULATED recordings, `int16[3, time, 8]`, µV.

    Args:
        sampling_rate_hz: Rate of the recordings.
        num_samples: Number of samples of each lead; what is longer than a minute repeats that minute.
    """
    rate = min(max(sampling_rate_hz, _RATES_HZ[0]), _RATES_HZ[1])
    seconds = min(max(math.ceil(num_samples / rate), _FEWEST_SECONDS), _MOST_SECONDS)
    cohort = Cohort(CohortConfig(seed=0, num_patients=_RECORDS, sampling_rate_hz=rate, seconds=float(seconds)))
    signal = cohort.simulate(0, _RECORDS).signal
    repeated = np.tile(signal, (1, math.ceil(num_samples / signal.shape[1]), 1))[:, :num_samples]
    return np.ascontiguousarray(repeated.reshape(_RECORDS, num_samples, len(STORED_LEADS)))


def write_sample(path: Path, inference: Inference, *, sampling_rate_hz: int) -> None:
    """Writes three recordings and what the exported function gives for them.

    Args:
        path: File to write.
        inference: Function that is exported.
        sampling_rate_hz: Rate of the recordings.
    """
    signals = sample_signals(sampling_rate_hz=sampling_rate_hz, num_samples=inference.num_samples)
    arrays = {"signals": signals, "embeddings": np.asarray(inference(signals))}
    if inference.head is not None:
        outputs = np.asarray(inference.head_outputs(signals))
        # Outputs are compared within roundings, and the answers that follow from them almost to the last bit.
        arrays |= {"outputs": outputs, "answers": inference.head.about.answers(outputs)}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
