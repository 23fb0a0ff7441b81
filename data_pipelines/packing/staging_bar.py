"""The progress bar of staging: records that are done, and the gigabytes that were written and downloaded."""

from __future__ import annotations

from tqdm import tqdm

from data_pipelines.prepared.dataset import Dataset
from data_pipelines.storage.packed_format import record_bytes


class StagingBar:
    """Progress bar in records, which also shows the gigabytes written and downloaded."""

    def __init__(self) -> None:
        self._bar = tqdm(unit=" ECGs", desc="staging", dynamic_ncols=True, disable=None)
        self._num_records = self._record_bytes = self._downloaded = 0
        self._reading_back = False

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def start(self, dataset: Dataset) -> None:
        """Begins with a data set: only with its index here is the number of records known."""
        self._num_records = dataset.index.num_records
        self._bar.reset(self._num_records)
        self._record_bytes = record_bytes(dataset.format)

    def update(self, num_records: int) -> None:
        """Notes that so many further records are done."""
        self._bar.update(num_records)
        self._show(refresh=False)  # The bar refreshes itself in time.

    def read_back(self, num_records: int) -> None:
        """Notes that so many further records were read back, which begins when all of them are written."""
        if not self._reading_back:
            self._reading_back = True
            self._bar.set_description("reading back", refresh=False)
            self._bar.reset(self._num_records)
        self.update(num_records)

    def downloaded(self, num_bytes: int) -> None:
        """Notes that so many further bytes have come."""
        self._downloaded += num_bytes
        self._show(refresh=True)

    def _show(self, *, refresh: bool) -> None:
        written, total = (number * self._record_bytes / 1e9 for number in (self._bar.n, self._num_records))
        came = f", {self._downloaded / 1e9:.2f} downloaded" if self._downloaded else ""
        self._bar.set_postfix_str(f"{written:.2f} of {total:.2f} GB{came}", refresh)
