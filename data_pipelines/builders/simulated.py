"""A simulated cohort as a data set, whose name, ids and description say that it is simulated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.builders.base import Quarantined, SourceCard, ecg_record
from data_pipelines.errors import RecordError
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.recording import Recording
from data_pipelines.records import STORED_LEADS, EcgRecord, LabelSchema, SignalFormat
from data_pipelines.signals.conversion import StoredSignal, stored_signal
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.simulation.cohort import SIMULATED_NOTICE, Cohort, CohortConfig, SimulatedRecords
from data_pipelines.simulation.sites import NO_SITE, Site, site_named

# Records are simulated in batches, which does not change them: enough to hide overhead, few enough to fit a cache.
_RECORDS_AT_A_TIME = 128


class SimulatedSource:
    """The records of `cohort.Cohort`; patients are dealt to folds 1 to 10 by a hash of their id.

    A patient has the same records and fold in a cohort of any size. Each item is a record's number in the cohort. With
    a site, the data set has the site's name beside its own, so that nobody is the same patient at two sites.
    """

    def __init__(
        self,
        *,
        num_patients: int,
        seed: int,
        signal_format: SignalFormat,
        beat_to_beat_share: float | None = None,
        site: str | None = None,
    ):
        """Counts the records; the reader simulates them.

        Args:
            num_patients: Number of simulated patients.
            seed: Seed of the cohort; another seed gives other patients.
            signal_format: Rate and length of the stored signals.
            beat_to_beat_share: Share of the signatures that lies between beats; None for beats that are copies.
            site: Name of the site where the patients are recorded; None for no site.

        Raises:
            DataError: The simulator does not support such a cohort, or there is no such site.
        """
        place = NO_SITE if site is None else site_named(site)
        rate, seconds = signal_format.sampling_rate_hz, signal_format.seconds
        config = CohortConfig(
            seed=seed,
            num_patients=num_patients,
            sampling_rate_hz=place.recorder.sampling_rate_hz or rate,
            seconds=seconds,
            beat_to_beat_share=beat_to_beat_share,
            site=place,
        )
        self._cohort = Cohort(config)
        # The pipeline filters nothing, so the recipe states only rate and length.
        self.recipe = SignalRecipe(
            name="simulated", version=1, sampling_rate_hz=rate, seconds=seconds, min_seconds=seconds
        )
        self.signal_format = signal_format
        self.label_schema = LabelSchema(
            scalars=tuple(config.units), units={name: unit for name, unit in config.units.items() if unit}
        )
        self.items = range(self._cohort.num_records)
        self.card = SourceCard(
            name=f"simulated_{site}" if site else "simulated",
            description=f"{SIMULATED_NOTICE} Seed {seed}, {num_patients} simulated patients.{_between_beats(config)}"
            f"{_at_site(place)}",
            simulated=True,
            notes=(SIMULATED_NOTICE, *([_at_site(place).strip()] if site else [])),
        )

    def reader(self) -> CohortReader:
        """Returns a reader that simulates records by their numbers."""
        return CohortReader(self._cohort, self.recipe)


@dataclasses.dataclass(frozen=True)
class CohortReader:
    """Simulates records of a cohort.

    Recordings of a site have the site's rate, and are checked and converted as those in files are; the others are made
    in their stored form, and none of them is ever quarantined.

    Attributes:
        cohort: Cohort to simulate.
        recipe: Recipe by which recordings of a site are converted.
    """

    cohort: Cohort
    recipe: SignalRecipe

    def __call__(self, items: Sequence[int]) -> Iterator[EcgRecord | Quarantined]:
        """Yields the record of every number, in the given order."""
        for start, stop in _runs(items):
            records = self.cohort.simulate(start, stop)
            for position in range(stop - start):
                yield self._record(records, position)

    def _record(self, records: SimulatedRecords, position: int) -> EcgRecord | Quarantined:
        patient_id = self.cohort.patient_id(int(records.patient[position]))
        record_id = f"{patient_id}-{records.visit[position]}"
        try:
            stored = self._stored(records.signal[position], source=record_id)
        except RecordError as error:
            return Quarantined(record_id=record_id, reason=error.reason, message=str(error))
        return ecg_record(
            stored,
            record_id=record_id,
            patient_id=patient_id,
            age_years=float(records.age_years[position]),
            sex=int(records.sex[position]),
            fold=fold_of_patient(patient_id),
            scalars={name: float(records.scalars[name][position]) for name in self.cohort.config.units},
        )

    def _stored(self, signal: np.ndarray, *, source: str) -> StoredSignal:
        """Returns a simulated signal, `int16[time, lead]`, µV, in the stored form.

        Args:
            signal: Signal of the recording.
            source: Name of the recording for messages.

        Raises:
            RecordError: A recording of a site fails a check.
        """
        config = self.cohort.config
        if not config.site.name:
            return StoredSignal(
                signal=signal,
                valid_start=0,
                valid_samples=config.num_samples,
                recording_seconds=config.seconds,
                start_seconds=0.0,
            )
        recording = Recording(
            source=source,
            signal=signal.astype(np.float64),
            sampling_rate_hz=config.sampling_rate_hz,
            channels=STORED_LEADS,
            units=("uV",) * len(STORED_LEADS),
        )
        return stored_signal(recording, recipe=self.recipe)


def _at_site(site: Site) -> str:
    """Returns what a description says of the site; empty without one."""
    if not site.name:
        return ""
    return f" Recorded at the SIMULATED site {site.name} (--site, label site = {site.number}): {site.description}."


def _between_beats(config: CohortConfig) -> str:
    """Returns what a description says of labels that live between beats; empty without them."""
    if config.beat_to_beat_share is None:
        return ""
    return (
        f" Beats differ from each other (--beat_to_beat): {config.beat_to_beat_share:.3g} of the signatures of LVEF, "
        "potassium and wedge pressure lies between beats."
    )


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields runs of at most `_RECORDS_AT_A_TIME` consecutive numbers, each as the first and the last plus one."""
    start = 0
    for stop in range(1, len(numbers) + 1):
        full = stop - start == _RECORDS_AT_A_TIME
        if full or stop == len(numbers) or numbers[stop] != numbers[stop - 1] + 1:
            yield numbers[start], numbers[stop - 1] + 1
            start = stop
