"""A simulated cohort as a data set; everything about it says that it is simulated."""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.builders.base import SourceCard
from data_pipelines.demographics import fold_of_patient
from data_pipelines.recipe import SignalRecipe
from data_pipelines.records import EcgRecord, LabelSchema, SignalFormat
from data_pipelines.simulator import SCALARS, SIMULATED_NOTICE, UNITS, Cohort, CohortConfig, SimulatedRecords


class SimulatedSource:
    """The records of `simulator.Cohort`, patients dealt to folds 1 to 10 by a hash of their id.

    A patient has the same records and fold in a cohort of any size.
    """

    def __init__(self, *, num_patients: int, seed: int, signal_format: SignalFormat, num_workers: int):
        """Counts the records; they are simulated by `records()`.

        Args:
            num_patients: size of the cohort.
            seed: another seed, other patients.
            signal_format: rate and length to simulate.
            num_workers: processes that simulate.

        Raises:
            DataError: the simulator does not make such a cohort.
        """
        self._cohort = Cohort(
            CohortConfig(
                seed=seed,
                num_patients=num_patients,
                sampling_rate_hz=signal_format.sampling_rate_hz,
                seconds=signal_format.seconds,
            )
        )
        self._num_workers = num_workers
        # Nothing was recorded, so nothing is filtered: the recipe says no more than rate and length.
        self.recipe = SignalRecipe(
            name="simulated",
            version=1,
            sampling_rate_hz=signal_format.sampling_rate_hz,
            seconds=signal_format.seconds,
            min_seconds=signal_format.seconds,
        )
        self.signal_format = signal_format
        self.label_schema = LabelSchema(scalars=SCALARS, units={name: unit for name, unit in UNITS.items() if unit})
        self.num_items = self._cohort.num_records
        self.card = SourceCard(
            name="simulated",
            description=f"{SIMULATED_NOTICE} Seed {seed}, {num_patients} simulated patients.",
            simulated=True,
            notes=(SIMULATED_NOTICE,),
        )

    def records(self) -> Iterator[EcgRecord]:
        """Yields the records patient by patient; a simulated record is never quarantined."""
        for chunk in self._cohort.simulate_in_chunks(num_workers=self._num_workers):
            for position in range(len(chunk.signal)):
                yield self._record(chunk, position)

    def _record(self, chunk: SimulatedRecords, position: int) -> EcgRecord:
        patient_id = self._cohort.patient_id(int(chunk.patient[position]))
        return EcgRecord(
            record_id=f"{patient_id}-{chunk.visit[position]}",
            patient_id=patient_id,
            signal=chunk.signal[position],
            valid_start=0,
            valid_samples=self.signal_format.num_samples,
            age_years=float(chunk.age_years[position]),
            sex=int(chunk.sex[position]),
            fold=fold_of_patient(patient_id),
            scalars={name: float(chunk.scalars[name][position]) for name in SCALARS},
        )
