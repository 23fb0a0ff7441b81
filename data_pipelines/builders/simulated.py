"""A simulated cohort as a data set, whose name, ids and description say that it is simulated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from data_pipelines.builders.base import SourceCard
from data_pipelines.metadata.demographics import fold_of_patient
from data_pipelines.records import EcgRecord, LabelSchema, SignalFormat
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.simulation.cohort import SIMULATED_NOTICE, Cohort, CohortConfig, SimulatedRecords

# Records are simulated in batches, which does not change them: enough to hide overhead, few enough to fit a cache.
_RECORDS_AT_A_TIME = 128


class SimulatedSource:
    """The records of `cohort.Cohort`; patients are dealt to folds 1 to 10 by a hash of their id.

    A patient has the same records and fold in a cohort of any size. Each item is a record's number in the cohort.
    """

    def __init__(
        self, *, num_patients: int, seed: int, signal_format: SignalFormat, beat_to_beat_share: float | None = None
    ):
        """Counts the records; the reader simulates them.

        Args:
            num_patients: Number of simulated patients.
            seed: Seed of the cohort; another seed gives other patients.
            signal_format: Rate and length of the simulated signals.
            beat_to_beat_share: Share of the signatures that lies between beats; None for beats that are copies.

        Raises:
            DataError: The simulator does not support such a cohort.
        """
        rate, seconds = signal_format.sampling_rate_hz, signal_format.seconds
        config = CohortConfig(
            seed=seed,
            num_patients=num_patients,
            sampling_rate_hz=rate,
            seconds=seconds,
            beat_to_beat_share=beat_to_beat_share,
        )
        self._cohort = Cohort(config)
        # Nothing is filtered because nothing was recorded, so the recipe states only rate and length.
        self.recipe = SignalRecipe(
            name="simulated", version=1, sampling_rate_hz=rate, seconds=seconds, min_seconds=seconds
        )
        self.signal_format = signal_format
        self.label_schema = LabelSchema(
            scalars=tuple(config.units), units={name: unit for name, unit in config.units.items() if unit}
        )
        self.items = range(self._cohort.num_records)
        self.card = SourceCard(
            name="simulated",
            description=f"{SIMULATED_NOTICE} Seed {seed}, {num_patients} simulated patients.{_between_beats(config)}",
            simulated=True,
            notes=(SIMULATED_NOTICE,),
        )

    def reader(self) -> CohortReader:
        """Returns a reader that simulates records by their numbers."""
        return CohortReader(self._cohort)


@dataclasses.dataclass(frozen=True)
class CohortReader:
    """Simulates records of a cohort; none is ever quarantined."""

    cohort: Cohort

    def __call__(self, items: Sequence[int]) -> Iterator[EcgRecord]:
        """Yields the record of every number, in the given order."""
        for start, stop in _runs(items):
            records = self.cohort.simulate(start, stop)
            for position in range(stop - start):
                yield self._record(records, position)

    def _record(self, records: SimulatedRecords, position: int) -> EcgRecord:
        patient_id = self.cohort.patient_id(int(records.patient[position]))
        return EcgRecord(
            record_id=f"{patient_id}-{records.visit[position]}",
            patient_id=patient_id,
            signal=records.signal[position],
            valid_start=0,
            valid_samples=self.cohort.config.num_samples,
            recording_seconds=self.cohort.config.seconds,
            start_seconds=0.0,
            age_years=float(records.age_years[position]),
            sex=int(records.sex[position]),
            fold=fold_of_patient(patient_id),
            scalars={name: float(records.scalars[name][position]) for name in self.cohort.config.units},
        )


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
