"""Makes a local copy of a remote data set: card, index and a packed copy, without the ArrayRecord shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from data_pipelines.buckets.remote_folder import TIMEOUT_S, RemoteFolder
from data_pipelines.errors import DataError
from data_pipelines.likeness.neighbour_table import NEIGHBOUR_DIRS, NEIGHBOUR_FILES
from data_pipelines.packing.packed_copy import check_order, write_packed
from data_pipelines.packing.signal_source import Progress, no_progress
from data_pipelines.packing.transfer import shards_of
from data_pipelines.physiology.definitions import FOLDERS
from data_pipelines.physiology.store import PHYSIOLOGY_FILES
from data_pipelines.prepared import dataset as prepared
from data_pipelines.prepared.index import INDEX_DIR, INDEX_FILE
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE, SHARD_BYTES
from data_pipelines.storage.packed_store import PackedStore
from data_pipelines.system.atomic_directory import exclusive_staging, publish
from data_pipelines.system.digests import DIGESTS_FILE, changed_file, files_of, write_digests
from data_pipelines.system.plain_names import files_below

_DATASET_DIR, _SCRATCH_DIR = "dataset", "downloading"

# Folders that are added to a data set later, and the names of their files.
_MEASURED = dict.fromkeys(FOLDERS, PHYSIOLOGY_FILES) | dict.fromkeys(NEIGHBOUR_DIRS.values(), NEIGHBOUR_FILES)


def stage_dataset(
    url: str,
    out: Path,
    *,
    timeout_s: float = TIMEOUT_S,
    more_time: str = "allow more time with --timeout",
    verify: bool = True,
    seed: int | None = None,
    any_order: bool = False,
    shard_bytes: int = SHARD_BYTES,
    started: Callable[[prepared.Dataset], None] = lambda dataset: None,
    progress: Progress = no_progress,
    read_back: Progress = no_progress,
    downloaded: Callable[[int], None] = lambda num_bytes: None,
) -> bool:
    """Makes a local data set at `out` of the one at `url`, unless a valid one is there.

    ArrayRecord shards are downloaded whole, one after the other, checked, unpacked and removed. Finished work is kept
    in `OUT.building`: a run after an interrupted one goes on from there.

    Args:
        url: Directory, or URL that fsspec opens, such as `gs://bucket/folder` or `s3://bucket/folder`.
        out: Directory of the copy: absent, empty, or a data set staged before.
        timeout_s: Seconds that one answer of the remote may take.
        more_time: Remedy of the command for a remote that is slow.
        verify: Whether every shard of a copy that is finished is compared with its hash.
        seed: Seed of the order of patients (`patient_order.py`); None for records that lie by number.
        any_order: Whether a copy that is finished may be in any order.
        shard_bytes: Largest size of a packed shard.
        started: Function that is called with the data set before its signals are read.
        progress: Function that is called with the number of records that were done since its last call.
        read_back: Function that is called with the number of records of a shuffled copy that were read back since its
            last call, once all are written.
        downloaded: Function that is called with the number of bytes that arrived since its last call.

    Returns:
        Whether anything was made.

    Raises:
        DataError: The remote does not answer or lacks a file, a shard is damaged, the disk is too full, `out` is
            something else, of another data set or in another order, or another process is staging to it.
    """
    out = Path(out).resolve()
    remote = RemoteFolder(url, timeout_s=timeout_s, more_time=more_time)
    staging = prepared.staging_directory(out)
    prepared.check_out(out, lost="which would be replaced")
    if remote.local is not None and remote.local.resolve() in out.parents:
        raise DataError(
            f"{out}: lies in the data set that is to be copied; name a directory elsewhere with --out, or leave it out "
            f"for a packed copy beside the shards, in {remote.local / PACKED_DIR}"
        )
    if remote.size(prepared.CARD_FILE) is None:
        message = f"{remote.url}: not a prepared data set, it has no {prepared.CARD_FILE} (or is not there at all)"
        raise DataError(message)
    with exclusive_staging(staging, resume=True):
        # It is made in a folder of its own, so that the lock and the downloads beside it are not published.
        making = staging / _DATASET_DIR
        making.mkdir(exist_ok=True)
        card = _fetch_card(remote, making)
        if (out / prepared.CARD_FILE).is_file():
            shutil.rmtree(making)
            _check_finished(remote, card, out)
            finished = prepared.open_dataset(out)
            if not any_order:
                check_order(finished, seed=seed, other=f"choose another --out, or remove {out}")
            if verify:
                PackedStore(finished, verify=True)
            return False
        _fetch_small_files(remote, making, staging)
        dataset = prepared.open_dataset(making)
        if dataset.index.fingerprint(dataset.format) != dataset.fingerprint:
            raise DataError(
                f"{remote.url}: card and index do not belong together (damaged, or being replaced); remove {staging}, "
                "check the data set there, and run this again"
            )
        if remote.size(f"{PACKED_DIR}/{PACKED_FILE}") is not None and remote.size(card["shards"][0]) is None:
            raise DataError(
                f"{remote.url}: is itself a copy without ArrayRecord shards, which staging starts from; copy the whole "
                "directory, or stage the data set that it was made of"
            )
        started(dataset)
        with shards_of(remote, dataset, staging / _SCRATCH_DIR, downloaded) as shards:
            write_packed(
                dataset,
                shards,
                making / PACKED_DIR,
                seed=seed,
                shard_bytes=shard_bytes,
                extra_bytes=shards.scratch_bytes(),
                progress=progress,
                read_back=read_back,
            )
        # The copy has no ArrayRecord shards, so its digests are of the files it has; each was compared with the
        # original's.
        write_digests(making, files_of(making, apart=(PACKED_DIR, *_MEASURED)))
        publish(making, out, retired=staging / "replaced")
    return True


def _fetch_card(remote: RemoteFolder, making: Path) -> dict:
    """Downloads the card; if an interrupted run had another card, only the signals of its copy are kept.

    Args:
        remote: Folder of the data set that is copied.
        making: Directory in which the copy is made, with what an interrupted run left there.

    Returns:
        The card.

    Raises:
        DataError: The interrupted run left part of a copy of another data set.
    """
    before = prepared.read_card(making) if (making / prepared.CARD_FILE).is_file() else None
    fresh = making.parent / prepared.CARD_FILE
    remote.download(prepared.CARD_FILE, fresh)
    card = prepared.read_card(fresh.parent)
    if before is not None and before["fingerprint"] != card["fingerprint"]:
        raise DataError(
            f"{making.parent}: an interrupted run left part of a copy of another data set here (fingerprint "
            f"{before['fingerprint']}, {remote.url} has {card['fingerprint']}); remove {making.parent} and run this "
            "again"
        )
    if before != card:
        # The data set was built again: its signals are the same, but labels and folds may differ in files of the same
        # size.
        for path in making.iterdir():
            if path.name != PACKED_DIR:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    fresh.replace(making / prepared.CARD_FILE)
    return card


def _check_finished(remote: RemoteFolder, card: dict, out: Path) -> None:
    finished = prepared.open_dataset(out)
    if finished.fingerprint != card["fingerprint"]:
        raise DataError(
            f"{out}: holds another data set than {remote.url} (fingerprints {finished.fingerprint} and "
            f"{card['fingerprint']}); choose another --out, or remove {out} and run this again"
        )
    if finished.card != card:
        raise DataError(
            f"{out}: {remote.url} was built again since this was copied; its signals are the same, its labels or folds "
            f"may not be. Remove {out} and run this again, or choose another --out"
        )


def _fetch_small_files(remote: RemoteFolder, making: Path, staging: Path) -> None:
    """Downloads and checks all files but the signals; files that are there in full size are kept.

    Args:
        remote: Folder of the data set that is copied.
        making: Directory in which the copy is made.
        staging: Directory for files that are not part of the copy.

    Raises:
        DataError: A file is missing or damaged.
    """
    _fetch(remote, f"{INDEX_DIR}/{INDEX_FILE}", making)
    source = f"{remote.url}/{INDEX_DIR}/{INDEX_FILE}"
    try:
        columns = json.loads((making / INDEX_DIR / INDEX_FILE).read_text(encoding="utf-8"))["columns"]
        columns = files_below(Path(INDEX_DIR), [f"{column}.npy" for column in columns], source=source)
    except DataError:  # It is a ValueError too, and says more than that the file is damaged.
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{source}: damaged ({error})") from error
    for column in columns:
        _fetch(remote, column.as_posix(), making)
    measured = [f"{folder}/{name}" for folder, names in _MEASURED.items() for name in (*names, DIGESTS_FILE)]
    # Older data sets lack some of these, and most have neither physiology nor neighbours.
    for name in (prepared.QUARANTINE_FILE, prepared.REMARKS_FILE, *measured):
        if remote.size(name) is not None:
            _fetch(remote, name, making)
    if remote.size(DIGESTS_FILE) is not None:
        # The table is of the whole data set, of which the copy is a part, so it is not copied.
        remote.download(DIGESTS_FILE, staging / DIGESTS_FILE)
        names = files_of(making, apart=(PACKED_DIR, *_MEASURED))
        _check_came_whole(remote, changed_file(making, names, table=staging / DIGESTS_FILE), staging)
    for folder, files in _MEASURED.items():
        if (making / folder).is_dir():
            changed = changed_file(making / folder, files, table=making / folder / DIGESTS_FILE)
            _check_came_whole(remote, changed and f"{folder}/{changed}", staging)


def _check_came_whole(remote: RemoteFolder, changed: str | None, staging: Path) -> None:
    if changed is not None:
        raise DataError(
            f"{remote.url}/{changed}: is not what was written there, so that card and index do not belong together "
            f"(damaged, or being replaced); remove {staging}, check the data set there with python -m "
            "data_pipelines.verify, and run this again"
        )


def _fetch(remote: RemoteFolder, name: str, making: Path) -> None:
    path = making / name
    if path.is_file() and path.stat().st_size == remote.size(name):
        return
    path.parent.mkdir(exist_ok=True)
    # A size alone tells a finished file from one that an interruption left, so it gets its name once it is whole.
    unfinished = path.with_name(path.name + ".tmp")
    remote.download(name, unfinished)
    unfinished.replace(path)
