"""The local copy of a data set in a bucket, which every command reads in the bucket's place.

Signals are memory-mapped and read in random order, which a bucket cannot do at a useful rate. So a data set that is
named by an address is staged to this machine's folder of copies first, as `data_pipelines.stage` does it, and
read there.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path

from data_pipelines.buckets.addresses import below, checked, is_remote
from data_pipelines.buckets.cache import CACHE_VARIABLE, cache_folder
from data_pipelines.buckets.copy_locks import after_others
from data_pipelines.buckets.remote_folder import TIMEOUT_S
from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset
from data_pipelines.packing.staging_bar import StagingBar

_PLACE = "data"


def dataset_folder(given: str | Path, *, flag: str = "config.data.dir", timeout_s: float = TIMEOUT_S) -> str:
    """Returns the folder in which a data set is read: the one that was given, or the local copy of one in a bucket.

    The copy is made where it is missing, with a progress bar, and gone on with after an interruption. Of a copy that is
    there, the card is compared with the bucket's. Processes of one machine make it one at a time.

    Args:
        given: Folder, or address of one in a bucket.
        flag: Flag or setting that it was given to, for messages.
        timeout_s: Seconds that one answer of the store may take.

    Raises:
        DataError: The address is none, the store does not answer or refuses, the data set there is damaged, or the disk
            is too full.
    """
    return _copied(checked(str(given), flag=flag), timeout_s) if is_remote(given) else str(given)


@functools.cache
def _copied(address: str, timeout_s: float) -> str:
    # Once a process has the copy it asks no more: what a run reads must not depend on when it looks.
    out = below(cache_folder() / _PLACE, address)
    with after_others(out):
        _tell(f"{address}: read from its copy {out} ({CACHE_VARIABLE} names another place for copies)")
        with contextlib.closing(StagingBar()) as bar:
            try:
                stage_dataset(
                    address,
                    out,
                    timeout_s=timeout_s,
                    verify=False,
                    any_order=True,
                    more_time=f"copy it beforehand with python -m data_pipelines.stage --dataset={address} --out={out}",
                    started=bar.start,
                    progress=bar.update,
                    downloaded=bar.downloaded,
                )
            except OSError as error:
                raise DataError(f"{address}: its copy {out} cannot be written ({error.strerror or error})") from error
    return str(out)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
