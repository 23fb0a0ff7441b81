"""Headers of one recording that state different gains: copies with equal samples, of which one gain is wrong.

WFDB headers state the first sample and the checksum of every signal, so that equal samples are known without reading
them. Twelve copies of PTB-XL in the challenge of 2020 state 200 units/mV where 1000 are true. A gain is taken for wrong
only if most records of its set state the other, and the other makes the more usual size.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.builders.cinc_headers import CincHeader
from data_pipelines.calibration.doubts import AMPLITUDE_MV
from data_pipelines.errors import RecordError
from data_pipelines.recording import Recording
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT
from data_pipelines.signals.conversion import stored_signal
from data_pipelines.signals.recipe import RECIPES

#: A gain is usual in its set if a larger share of its records states it.
USUAL = 0.5

#: An amplitude is the median of so many parts of a record.
_WINDOWS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrongGain:
    """A record whose header states a gain that a copy proves wrong.

    Attributes:
        position: of the record among all.
        stated: gain that its header states, units/mV.
        true: gain that the header of a copy states.
    """

    position: int
    stated: float
    true: float

    @property
    def factor(self) -> float:
        """What the record read with the stated gain is to be multiplied by."""
        return self.stated / self.true


def wrong_gains(
    headers: Sequence[CincHeader], set_names: Sequence[str], *, read: Callable[[int], Recording]
) -> list[WrongGain]:
    """Finds records whose gain a copy proves wrong.

    Args:
        headers: of all records.
        set_names: set that each record is of.
        read: gives a record by its position; called for those in question alone.
    """
    stated = collections.Counter((set_name, header.gain) for header, set_name in zip(headers, set_names, strict=True))
    of_set = collections.Counter(set_names)
    copies: dict[tuple, list[tuple[int, float]]] = collections.defaultdict(list)
    for position, header in enumerate(headers):
        if header.samples and header.gain:
            copies[header.samples].append((position, header.gain))
    found = []
    for alike in copies.values():
        gains = {gain for _, gain in alike}
        if len(gains) < 2:
            continue
        for position, gain in alike:
            set_name = set_names[position]
            usual = [each for each in gains if stated[set_name, each] > USUAL * of_set[set_name]]
            if usual and gain not in usual and _is_more_usual(read, position, stated=gain, other=usual[0]):
                found.append(WrongGain(position=position, stated=gain, true=usual[0]))
    return found


def _is_more_usual(read: Callable[[int], Recording], position: int, *, stated: float, other: float) -> bool:
    """Whether a record is nearer to the usual size with another gain than with the one its header states."""
    try:
        signal = stored_signal(read(position).rescaled(stated / other), recipe=RECIPES["plain"]).signal
    except RecordError:
        return False
    windows = signal[: len(signal) // _WINDOWS * _WINDOWS].reshape(_WINDOWS, -1, signal.shape[1])
    with_other = float(np.median(np.ptp(windows, axis=1), axis=0).max()) / MICROVOLTS_PER_MILLIVOLT
    return abs(np.log(with_other / AMPLITUDE_MV)) < abs(np.log(with_other * other / stated / AMPLITUDE_MV))
