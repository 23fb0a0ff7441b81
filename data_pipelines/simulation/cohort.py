"""Simulates a cohort of SIMULATED patients with labelled ECGs, as large as asked for.

A patient is a moving heart dipole: Gaussian waves seen through a Dower matrix of the patient's own, with an identity
that lasts over visits, rhythm, conduction, hypertrophy, ischaemia and noise; and three continuous targets whose
published ECG signatures are drawn: serum potassium, left ventricular ejection fraction (LVEF), mean wedge pressure.
The signatures are literature-like, not clinical truth: no result on such a cohort says anything about patients.

  cohort = Cohort(CohortConfig(seed=0, num_patients=1000))
  records = cohort.simulate(0, 256)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.records import MICROVOLTS_PER_MILLIVOLT, STORED_LEADS
from data_pipelines.simulation.beat_changes import UNITS as UNITS_BETWEEN_BEATS
from data_pipelines.simulation.beat_changes import BeatChanges, draw_beat_changes
from data_pipelines.simulation.kernels import intervals_ms
from data_pipelines.simulation.noise import NoiseLevels, draw_noise_levels, record_noise
from data_pipelines.simulation.random_numbers import Draws
from data_pipelines.simulation.recorder import draw_gain, recorded
from data_pipelines.simulation.rhythm import NORMAL, PAC, PVC, Rhythms, draw_rhythms
from data_pipelines.simulation.sites import NO_SITE, UNITS_OF_SITE, Site
from data_pipelines.simulation.states import States, draw_states
from data_pipelines.simulation.waves import Templates, at_rr, draw_templates

#: Notice that accompanies every description of a simulated cohort.
SIMULATED_NOTICE = (
    "SIMULATED electrocardiograms: no patient was ever connected to any of it. Label signatures are literature-like, "
    "not clinical truth; results on it say nothing about patients."
)

#: Unit of every scalar label, in column order. Presence labels are 0 or 1 and tell what the strip contains; the
#: intervals are the true ones, defined on the waves' kernels (`simulation.kernels.intervals_ms`), and `pr_ms` is NaN in
#: AF.
UNITS: Mapping[str, str] = {
    "lvef": "%",
    "potassium": "mmol/L",
    "wedge_pressure": "mmHg",
    **dict.fromkeys(("lvh", "lbbb", "rbbb", "af", "pvc", "pac", "ischaemia"), ""),
    "heart_rate_bpm": "1/min",
    **dict.fromkeys(("pr_ms", "qrs_ms", "qt_ms"), "ms"),
    "visit": "",
}

SCALARS: tuple[str, ...] = tuple(UNITS)

#: Share of the signatures between beats where no other is asked for; coefficients of changes are stated at it.
DEFAULT_BEAT_TO_BEAT_SHARE = 1 / 3

#: Number of patients whose visits are counted at a time, and interval at which the cohort stores where patients start.
_PATIENT_BLOCK = 1 << 16

_BEAT_WINDOW_S = (-0.35, 0.70)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CohortConfig:
    """Settings of a simulated cohort.

    Attributes:
        seed: Seed of the cohort, 0 … 2⁶³ − 1; another seed gives other patients.
        num_patients: Number of patients, at least 1.
        visits_per_patient: Fewest and most recordings of a patient; all numbers from one to the other are equally
            likely.
        sampling_rate_hz: Sampling rate, 50 … 2,000.
        seconds: Length of a recording, at least 2, a whole number of samples.
        noise: Factor on all noise; 0 gives clean recordings.
        beat_to_beat_share: Share of the signatures of LVEF, potassium and wedge pressure that lies in how beats differ
            from each other, 0 … 1; those of the waves themselves are smaller by this share. None gives a cohort whose
            beats are copies.
        site: Site where the patients are recorded; `sampling_rate_hz` is the rate of the recordings whatever the
            site's own, which whoever converts the recordings asks for.
    """

    seed: int = 0
    num_patients: int = 1000
    visits_per_patient: tuple[int, int] = (1, 4)
    sampling_rate_hz: int = 250
    seconds: float = 10.0
    noise: float = 1.0
    beat_to_beat_share: float | None = None
    site: Site = NO_SITE

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            DataError: A field is out of its range; the message names it and the range.
        """
        fewest, most = self.visits_per_patient
        num_samples = self.seconds * self.sampling_rate_hz
        for field, allowed, holds in (
            ("seed", "0 … 2⁶³ − 1", 0 <= self.seed < 2**63),
            ("num_patients", "at least 1", self.num_patients >= 1),
            ("visits_per_patient", "(fewest, most) with 1 ≤ fewest ≤ most ≤ 1000", 1 <= fewest <= most <= 1000),
            ("sampling_rate_hz", "50 … 2000", 50 <= self.sampling_rate_hz <= 2000),
            ("seconds", "at least 2, and a whole number of samples", self.seconds >= 2 and num_samples % 1 == 0),
            ("noise", "0 … 100", 0 <= self.noise <= 100),
            ("beat_to_beat_share", "0 … 1", self.beat_to_beat_share is None or 0 <= self.beat_to_beat_share <= 1),
        ):
            if not holds:
                raise DataError(f"simulated cohort: {field}={getattr(self, field)!r} must be {allowed}")

    @property
    def num_samples(self) -> int:
        """Number of samples of a recording."""
        return int(self.seconds * self.sampling_rate_hz)

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of every scalar label of such a cohort, in column order."""
        between_beats = {} if self.beat_to_beat_share is None else UNITS_BETWEEN_BEATS
        return {**UNITS, **between_beats, **(UNITS_OF_SITE if self.site.name else {})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedRecords:
    """Consecutive records of a simulated cohort.

    Attributes:
        signal: `int16[n, time, lead]`, µV, leads in stored order.
        patient: Numbers of the patients, `int64[n]`, 0 … num_patients − 1.
        visit: Numbers of the visits, `int32[n]`, 0 for a patient's first.
        age_years: Ages, `f32[n]`.
        sex: Sexes, `int8[n]`, as in `records.py`.
        scalars: `f32[n]` for every name in `CohortConfig.units`.
    """

    signal: np.ndarray
    patient: np.ndarray
    visit: np.ndarray
    age_years: np.ndarray
    sex: np.ndarray
    scalars: Mapping[str, np.ndarray]


class Cohort:
    """A cohort whose record numbers run over patients and, within a patient, over visits.

    A record depends only on (site, seed, patient, visit) and on rate, length and noise level: not on the range asked
    for, on the process that makes it, nor on the number of patients. On one machine and NumPy version it does so bit
    for bit.
    """

    def __init__(self, config: CohortConfig):
        """Counts the patients' visits, in time and memory that stay small for millions of patients."""
        self.config = config
        starts = range(0, config.num_patients, _PATIENT_BLOCK)
        counts = [int(self._visits(start).sum()) for start in starts]
        self._first_record = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @property
    def num_records(self) -> int:
        """Number of records of all patients."""
        return int(self._first_record[-1])

    def patient_id(self, patient: int) -> str:
        """Returns the id of a patient, which says that it is simulated, and at which site if at any."""
        site = f"{self.config.site.name}-" if self.config.site.name else ""
        return f"simulated-{site}{self.config.seed}-{patient:08d}"

    def simulate(self, start: int, stop: int) -> SimulatedRecords:
        """Makes the records from `start` up to `stop`.

        Raises:
            DataError: The range does not lie within 0 … `num_records`.

        Args:
            start: Number of the first record.
            stop: Number of the last record plus one.
        """
        if not 0 <= start <= stop <= self.num_records:
            raise DataError(f"simulated cohort: records {start}:{stop} asked for, it has 0:{self.num_records}")
        patient, visit = self._locate(start, stop)
        draws, site = self._draws(patient, visit), self.config.site
        states = draw_states(draws, visit=visit, population=site.population)
        share, seconds = self.config.beat_to_beat_share, self.config.seconds
        changes = None
        if share is None:
            rhythms = draw_rhythms(draws, states, seconds=seconds)
            templates = draw_templates(draws, states, site.placement)
        else:
            between = states.showing(share / DEFAULT_BEAT_TO_BEAT_SHARE)
            rhythms = draw_rhythms(draws, states, seconds=seconds, between=between)
            templates = draw_templates(draws, states.showing(1 - share), site.placement)
            changes = draw_beat_changes(draws, between, rhythms, templates)
        scalars = _scalars(states, rhythms, templates, visit)
        if changes is not None:
            scalars |= changes.scalars(states, rhythms, seconds=seconds)
        scalars["site"] = np.full(len(patient), site.number)
        return SimulatedRecords(
            signal=self._render(draws, rhythms, templates, changes),
            patient=patient,
            visit=visit.astype(np.int32),
            age_years=states.age_years.astype(np.float32),
            sex=states.sex,
            scalars={name: scalars[name].astype(np.float32) for name in self.config.units},
        )

    def _draws(self, patient: np.ndarray, visit: np.ndarray) -> Draws:
        return Draws(seed=self.config.seed, patient=patient, visit=visit, site=self.config.site.name)

    def _visits(self, block_start: int) -> np.ndarray:
        """Returns the number of visits of each patient of the block that starts at patient `block_start`."""
        patient = np.arange(block_start, min(block_start + _PATIENT_BLOCK, self.config.num_patients), dtype=np.int64)
        uniform = self._draws(patient, np.zeros_like(patient)).lasting_uniform("visits")
        fewest, most = self.config.visits_per_patient
        return fewest + (uniform * (most - fewest + 1)).astype(np.int64)

    def _locate(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns patient and visit of records: `int64[n]` each."""
        if start == stop:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        first, last = np.searchsorted(self._first_record, [start, stop - 1], side="right") - 1
        visits = np.concatenate([self._visits(block * _PATIENT_BLOCK) for block in range(first, last + 1)])
        patient_start = self._first_record[first] + np.concatenate([[0], np.cumsum(visits)])
        record = np.arange(start, stop)
        position = np.searchsorted(patient_start, record, side="right") - 1
        return first * _PATIENT_BLOCK + position, record - patient_start[position]

    def _render(self, draws: Draws, rhythms: Rhythms, templates: Templates, changes: BeatChanges | None) -> np.ndarray:
        """Returns the signals of records, `int16[n, time, lead]`, µV.

        Every record is computed by itself, so that its rounding does not depend on the other records.
        """
        config, recorder = self.config, self.config.site.recorder
        levels = draw_noise_levels(draws, seconds=config.seconds, sources=config.site.noise)
        gain = draw_gain(draws, recorder)
        keys = draws.generator_keys("noise")
        fibrillation = _fibrillation_phases(draws)
        signal = np.empty((len(keys), config.num_samples, len(STORED_LEADS)), np.int16)
        for record in range(len(keys)):
            millivolts = self._render_beats(rhythms, templates, changes, record)
            if templates.fibrillation_mv[record].any():
                wave = _fibrillation_wave(fibrillation[record], config.num_samples, config.sampling_rate_hz)
                millivolts += templates.fibrillation_mv[record].astype(np.float32)[:, None] * wave
            if config.noise > 0:
                millivolts += np.float32(config.noise) * self._noise(levels, keys, rhythms, record)
            millivolts = recorded(millivolts, recorder, gain=gain[record], sampling_rate_hz=config.sampling_rate_hz)
            microvolts = np.rint(millivolts * np.float32(MICROVOLTS_PER_MILLIVOLT))
            # A recorder saturates and does not wrap round.
            signal[record] = np.clip(microvolts, -32767, 32767).astype(np.int16).T
        return signal

    def _noise(self, levels: NoiseLevels, keys: np.ndarray, rhythms: Rhythms, record: int) -> np.ndarray:
        return record_noise(
            levels,
            record,
            generator=np.random.Generator(np.random.Philox(key=keys[record])),
            breath_hz=rhythms.breath_hz[record],
            breath_phase=rhythms.breath_phase[record],
            num_samples=self.config.num_samples,
            sampling_rate_hz=self.config.sampling_rate_hz,
        )

    def _render_beats(
        self, rhythms: Rhythms, templates: Templates, changes: BeatChanges | None, record: int
    ) -> np.ndarray:
        """Returns `f32[leads, time]`, mV; every beat is evaluated only within `_BEAT_WINDOW_S`."""
        rate, num_samples = self.config.sampling_rate_hz, self.config.num_samples
        before, after = _BEAT_WINDOW_S
        time = rhythms.time_s[record]
        beats = np.flatnonzero((time > -after) & (time < self.config.seconds - before))
        kind = rhythms.kind[record, beats]
        centre, width = at_rr(
            templates.centre_ms[record, kind], templates.width_ms[record, kind], rhythms.qt_rr_s[record, beats]
        )
        lead_mv = templates.lead_mv[record, kind]
        if changes is not None:
            centre, width, lead_mv = changes.applied(record, beats, centre_ms=centre, width_ms=width, lead_mv=lead_mv)
        first_sample = np.ceil((time[beats] + before) * rate).astype(np.int64)
        samples = np.arange(int((after - before) * rate))
        since_r_ms = 1000 * ((first_sample[:, None] + samples) / rate - time[beats][:, None])
        score = ((since_r_ms[:, None, :] - centre[:, :, None]) / width[:, :, None]).astype(np.float32)
        waves = np.exp(np.float32(-0.5) * score * score)
        lead_mv = lead_mv * rhythms.gain[record, beats][:, None, None]
        beat_mv = np.matmul(lead_mv.astype(np.float32), waves)

        margin = len(samples)
        padded = np.zeros((len(STORED_LEADS), num_samples + 2 * margin), np.float32)
        for position, beat in zip(first_sample + margin, beat_mv, strict=True):
            padded[:, position : position + margin] += beat
        return padded[:, margin : margin + num_samples]


def _fibrillation_phases(draws: Draws) -> np.ndarray:
    """Draws the numbers of each record's fibrillation wave, `f64[n, 7]`.

    They are its frequency (Hz); depth, rate (Hz) and phase of the modulation of the frequency; and phases of three
    harmonics.
    """
    frequency = np.maximum(6.2 + 0.9 * draws.normal("fibrillation rate"), 3.5)
    modulation = 0.1 + 0.3 * draws.uniform("fibrillation modulation")
    phases = 2 * np.pi * draws.uniform("fibrillation phases", (5,))
    phases[:, 0] = 0.15 + phases[:, 0] / 10
    return np.concatenate([frequency[:, None], modulation[:, None], phases], axis=1)


def _fibrillation_wave(phases: np.ndarray, num_samples: int, sampling_rate_hz: int) -> np.ndarray:
    """Returns three harmonics of a modulated frequency, `f32[time]`; the fundamental has amplitude 1.

    Args:
        phases: One row of `_fibrillation_phases`, `f64[7]`.
        num_samples: Number of samples.
        sampling_rate_hz: Rate of the samples.
    """
    frequency, depth, slow_hz, slow_phase, *harmonics = phases
    time = np.arange(num_samples) / sampling_rate_hz
    angle = 2 * np.pi * (frequency * time + depth / slow_hz * np.sin(2 * np.pi * slow_hz * time + slow_phase))
    wave = np.zeros(num_samples)
    for order, (size, phase) in enumerate(zip((1.0, 0.4, 0.2), harmonics, strict=True), start=1):
        wave += size * np.sin(order * angle + phase)
    return wave.astype(np.float32)


def _scalars(states: States, rhythms: Rhythms, templates: Templates, visit: np.ndarray) -> dict[str, np.ndarray]:
    centre, width = at_rr(templates.centre_ms[:, NORMAL], templates.width_ms[:, NORMAL], rhythms.mean_rr_s)
    intervals = intervals_ms(centre, width)
    intervals["pr_ms"] = np.where(states.af, np.nan, intervals["pr_ms"])
    of_states = ("lvef", "potassium", "wedge_pressure", "lbbb", "rbbb", "af")
    return {
        **{name: getattr(states, name) for name in of_states},
        "lvh": states.lvh_grade > 0,
        "pvc": rhythms.contains(PVC),
        "pac": rhythms.contains(PAC),
        "ischaemia": states.st_deviation_mv != 0,
        "heart_rate_bpm": rhythms.heart_rate_bpm(),
        **intervals,
        "visit": visit,
    }
