"""Lists of the records that a run may draw, which are kept with its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgjax.errors import CheckpointError
from ecgjax.leakage.trained_on import (
    RECORDS_FILE,
    PretrainingRecords,
    pretraining_records,
    read_pretraining_records,
)
from ecgjax.training.run import Run


def records_of(run: Run, *, earlier: PretrainingRecords | None = None) -> PretrainingRecords:
    """Returns the list of the records that a run may draw, to keep with its checkpoints.

    Args:
        run: Run whose records are listed.
        earlier: All that the encoder which the run began with had seen; None for a run that began at random.
    """
    own = pretraining_records(run.recordings, run.side.records, run=run.fingerprint)
    return own if earlier is None else own.after(earlier)


def records_of_resumption(
    run: Run, listed: PretrainingRecords, before: Mapping[str, Any], workdir: str | Path
) -> PretrainingRecords:
    """Returns the list of all records that a run has drawn and may draw, where it goes on with other data.

    Args:
        run: Run that resumes.
        listed: List of the records that it may draw from now on, as `records_of` returns it.
        before: Metadata of the checkpoint that it goes on from.
        workdir: Folder of the run, with the list of what it has drawn.

    Raises:
        CheckpointError: That list is missing, damaged, or of another run.
    """
    if before.get("records", listed.digest) == listed.digest:
        return listed
    path = Path(workdir) / RECORDS_FILE
    remedy = "it also lists what the run drew before its data were changed: restore it from a copy"
    drawn = read_pretraining_records(path, remedy=remedy)
    if drawn.run == run.fingerprint:  # It was written by an earlier resumption with these data.
        return records_of(run).after(drawn.earlier)
    if drawn.digest != before["records"]:
        raise CheckpointError(f"{path} lists the records of another run than the checkpoints beside it; {remedy}")
    return records_of(run).after(drawn)
