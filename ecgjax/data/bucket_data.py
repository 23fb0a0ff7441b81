"""Data sets that a run reads from buckets, brought to every machine of the run before its start is timed."""

from __future__ import annotations

import math

from data_pipelines.buckets.addresses import is_remote
from data_pipelines.packing.bucket_copy import dataset_folder
from ecgjax.data.settings import DataSettings
from ecgjax.processes.barriers import wait_for_all


def bring_data(data: DataSettings, *, limit_s: float | None) -> None:
    """Makes the local copies of data sets that are named by addresses; does nothing where there are none.

    Every process has to call it. Processes of one machine share its copies, and no process goes on before all have
    theirs.

    Args:
        data: Settings of the data.
        limit_s: Seconds that processes wait for each other after their own copies are whole; None for ever.

    Raises:
        DataError: A store does not answer or refuses, a data set there is damaged, or the disk is too full.
        ConfigError: Another process did not bring its copies in time.
    """
    addresses = [each for each in data.directories if is_remote(each)]
    if not addresses:
        return
    for address in addresses:
        dataset_folder(address)
    wait_for_all("copies of the data sets", limit_s=math.inf if limit_s is None else limit_s)
