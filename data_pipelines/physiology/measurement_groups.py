"""Groups of the stored measurements, by which some of them are chosen.

This module imports no signal processing, so that settings can be checked without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_pipelines.records import STORED_LEADS

_STATISTICS = ("mean", "sd", "median", "iqr")


def _statistics(*kinds: str) -> tuple[str, ...]:
    return tuple(f"{kind}_{statistic}" for kind in kinds for statistic in _STATISTICS)


#: Measurements of `vector.py` that are of the recording as a whole, by group. Each measurement is of one group.
BEATS: Mapping[str, tuple[str, ...]] = {
    "rate": ("rr_mean", "rr_median"),
    "rhythm": ("rr_sd", "rr_iqr", "rmssd", "pnn50", "rr_cv", "rr_short_share", "p_absent_share"),
    "intervals": (
        *_statistics("pr", "qrs", "qtc", "p_duration", "t_duration"),
        *("pr_long_share", "qrs_wide_share", "qrs_borderline_share", "qtc_long_share"),
    ),
    "amplitudes": (
        *_statistics("r_amplitude", "t_amplitude", "p_amplitude", "qrs_slope", "st"),
        *("t_inverted_share", "st_deviating_share", "st_mad"),
    ),
    "beat_correlation": ("beat_correlation_mean", "beat_correlation_sd", "beat_correlation_min"),
}

#: Measurements of `median_beat.py`, by group.
MEDIAN_BEAT: Mapping[str, tuple[str, ...]] = {
    "rate": ("rr",),
    "rhythm": ("sdnn", "rmssd", "pnn50", "rr_range"),
    "intervals": ("pr", "qrs", "qt", "qtc_bazett", "p_duration", "t_peak"),
    "amplitudes": ("qrs_axis", *(f"{wave}_{lead}" for wave in ("P", "R", "S", "ST", "T") for lead in STORED_LEADS)),
}

#: Groups by the form of the measurements, as in `definitions.py`.
GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {"beats": BEATS, "median_beat": MEDIAN_BEAT}

#: Group of every such measurement; what both forms have is of one group in both.
GROUP_OF: Mapping[str, str] = {
    name: group for groups in GROUPS.values() for group, names in groups.items() for name in names
}


def measurements_of(names: Sequence[str], *, on: str) -> tuple[str, ...]:
    """Returns the measurements that names of groups or of measurements stand for, each once, in the groups' order.

    Args:
        names: Names of groups or of measurements.
        on: Form of the measurements, a key of `GROUPS`.

    Raises:
        KeyError: A name is neither.
    """
    groups = GROUPS[on]
    found = [(name, group) for group, members in groups.items() for name in members]
    if unknown := [name for name in names if name not in groups and name not in dict(found)]:
        raise KeyError(unknown[0])
    return tuple(name for name, group in found if name in names or group in names)
