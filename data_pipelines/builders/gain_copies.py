"""Finds copies of one recording whose headers state different gains, and tells which gain is wrong.

WFDB headers state the first sample and the checksum of every signal, so equal samples are recognised without reading
them. Twelve copies of PTB-XL in the challenge of 2020 state 200 units/mV where 1000 is true. A gain counts as wrong
only if most records of its set state the other gain, and the other gain gives the more usual amplitude.
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

#: A gain is usual in its set if more than this share of the set's records states it.
USUAL = 0.5

#: The amplitude of a record is the median over this many parts of it.
_WINDOWS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrongGain:
    """A record whose header states a gain that a copy proves wrong.

    Attributes:
        position: Position of the record among all records.
        stated: Gain that the record's header states, units/mV.
        true: Gain that the header of a copy states, units/mV.
    """

    position: int
    stated: float
    true: float

    @property
    def factor(self) -> float:
        """Factor that corrects a signal that was read with the stated gain."""
        return self.stated / self.true


def wrong_gains(
    headers: Sequence[CincHeader], set_names: Sequence[str], *, read: Callable[[int], Recording]
) -> list[WrongGain]:
    """Finds records whose gain a copy proves wrong.

    Args:
        headers: Headers of all records.
        set_names: Name of the set that each record belongs to.
        read: Function that reads the record at a position; it is called only for records in question.

    Returns:
        The records, in no particular order.
    """
    stated = collections.Counter((set_name, header.gain) for header, set_name in zip(headers, set_names, strict=True))
    of_set = collections.Counter(set_names)
    copies: dict[tuple, list[tuple[int, float]]] = collections.defaultdict(list)
    for position, header in enumerate(headers):
        # A header whose signals have different gains states no single one that a copy could contradict.
        if header.samples and header.gain:
            copies[header.samples].append((position, header.gain))
    found = []
    for alike in copies.values():
        if len(gains := {gain for _, gain in alike}) < 2:
            continue
        for position, gain in alike:
            set_name = set_names[position]
            # Of gains that are all rare in the set, none is more likely than another.
            usual = [each for each in gains if stated[set_name, each] > USUAL * of_set[set_name]]
            if usual and gain not in usual and _is_more_usual(read, position, stated=gain, other=usual[0]):
                found.append(WrongGain(position=position, stated=gain, true=usual[0]))
    return found


def _is_more_usual(read: Callable[[int], Recording], position: int, *, stated: float, other: float) -> bool:
    """Returns whether another gain gives the record a more usual amplitude than the stated gain.

    Args:
        read: Function that reads the record at a position.
        position: Position of the record.
        stated: Gain that the header states, units/mV.
        other: Other gain, units/mV.
    """
    try:
        signal = stored_signal(read(position).rescaled(stated / other), recipe=RECIPES["plain"]).signal
    except RecordError:
        # A record that cannot be stored with this gain is no evidence for it.
        return False
    # The median over the parts is not moved by an artefact in one of them.
    windows = signal[: len(signal) // _WINDOWS * _WINDOWS].reshape(_WINDOWS, -1, signal.shape[1])
    with_other = float(np.median(np.ptp(windows, axis=1), axis=0).max()) / MICROVOLTS_PER_MILLIVOLT
    return abs(np.log(with_other / AMPLITUDE_MV)) < abs(np.log(with_other * other / stated / AMPLITUDE_MV))
