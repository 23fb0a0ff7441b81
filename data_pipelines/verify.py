"""Checks every file of a prepared data set against the digests that were written with it.

  python -m data_pipelines.verify --dataset=DIR

Names every file that is damaged, missing or not part of the data set, and ends with status 1 where one is damaged or
missing. A data set that was built before there were digests is checked by its contents instead: the index by its
fingerprint, and every stored signal by its hash in the index.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines.command import command, print_report, progress_bar, run
from data_pipelines.errors import DataError
from data_pipelines.likeness.neighbour_table import NEIGHBOUR_DIRS
from data_pipelines.physiology.definitions import DEFINITIONS, FOLDERS, Definition
from data_pipelines.physiology.store import PHYSIOLOGY_FILE, open_physiology
from data_pipelines.prepared.dataset import open_dataset, read_card
from data_pipelines.records import SignalFormat, content_hash
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE, find_bad_shards, read_contents
from data_pipelines.storage.store import open_store
from data_pipelines.system.counted import counted
from data_pipelines.system.digests import DIGESTS_FILE, file_digest, files_of, read_digests
from data_pipelines.system.plain_names import why_elsewhere
from data_pipelines.system.visible_text import visible

#: Folders of a data set that are made after it, each with digests of its own.
PARTS = (PACKED_DIR, *FOLDERS, *NEIGHBOUR_DIRS.values())

# These folders exist beside a part until it is whole; they belong neither to the data set nor to its extra files.
_UNFINISHED = tuple(f"{part}.building" for part in PARTS)

_RECORDS_PER_READ = 256

#: Function that is told how many further bytes (or, in a data set without digests, records) are done.
Progress = Callable[[int], None]

#: Function of a total and its unit, whose context yields a function that shows progress.
Bar = Callable[[int, str], contextlib.AbstractContextManager[Progress]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of the verification of a data set or a part of it.

    Attributes:
        checked: Number of files whose digests are right.
        damaged: Names of files that are not what was written.
        missing: Names of files that are no longer there.
        extra: Names of files that are not part of the data set.
        remarks: Sentences on what could not be checked by digests, and how it was checked.
    """

    checked: int = 0
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether no file is damaged or missing."""
        return not (self.damaged or self.missing)

    def and_of(self, part: Verdict, folder: str) -> Verdict:
        """Returns this verdict combined with that of a folder within the data set.

        Args:
            part: Verdict on the folder.
            folder: Name of the folder, which is put before the names of its files.
        """
        found = {}
        for kind in ("damaged", "missing", "extra"):
            found[kind] = (*getattr(self, kind), *(f"{folder}/{name}" for name in getattr(part, kind)))
        return Verdict(checked=self.checked + part.checked, **found, remarks=(*self.remarks, *part.remarks))


def no_bar(total: int, unit: str) -> contextlib.AbstractContextManager[Progress]:
    """Shows no progress."""
    return contextlib.nullcontext(lambda num_done: None)


def verify_dataset(directory: Path | str, *, bar: Bar = no_bar) -> Verdict:
    """Reads every file of a prepared data set and compares it with its digest.

    Args:
        directory: Directory of the data set.
        bar: Function that shows how much is done.

    Returns:
        The verdict on all files.

    Raises:
        DataError: There is no data set, it is unfinished, or its digests cannot be read.
    """
    directory = Path(directory)
    digests = {folder: read_digests(directory / folder) for folder in ("", *PARTS)}
    if digests[""] is None:
        return _by_contents(directory, bar)
    paths = (directory / folder / name for folder, known in digests.items() for name in known or ())
    total = sum(path.stat().st_size for path in paths if path.is_file())
    with bar(total, "B") as progress:
        verdict = _compared(directory, digests[""], apart=(*PARTS, *_UNFINISHED), progress=progress)
        if (directory / PACKED_DIR).is_dir():
            verdict = verdict.and_of(_packed(directory, digests[PACKED_DIR], progress), PACKED_DIR)
        for definition in DEFINITIONS.values():
            folder = definition.folder
            if (directory / folder).is_dir():
                verdict = verdict.and_of(_measured(directory, definition, digests[folder], progress), folder)
        for folder in NEIGHBOUR_DIRS.values():
            if (directory / folder).is_dir():
                of_folder = _compared(directory / folder, digests[folder] or {}, progress=progress)
                verdict = verdict.and_of(of_folder, folder)
    return verdict


def _compared(folder: Path, digests: dict[str, str], *, apart: tuple[str, ...] = (), progress: Progress) -> Verdict:
    # The table has no digest of itself.
    present = set(files_of(folder, apart=apart)) - {DIGESTS_FILE}
    right = {name for name in present & digests.keys() if _is_right(folder / name, digests[name], progress)}
    return Verdict(
        checked=len(right),
        damaged=tuple(sorted((present & digests.keys()) - right)),
        missing=tuple(sorted(digests.keys() - present)),
        extra=tuple(sorted(present - digests.keys())),
    )


def _is_right(path: Path, digest: str, progress: Progress) -> bool:
    # A file that cannot be read is as good as damaged.
    with contextlib.suppress(OSError):
        return why_elsewhere(path) is None and path.is_file() and file_digest(path, progress) == digest
    return False


def _packed(directory: Path, digests: dict[str, str] | None, progress: Progress) -> Verdict:
    """Returns the verdict on a packed copy: its table is checked by its digest, its shards by digests in that table.

    Args:
        directory: Directory of the data set.
        digests: Digests of the copy's folder by file name, or None where there are none.
        progress: Function that is called with the number of further bytes that were read.
    """
    folder = directory / PACKED_DIR
    verdict = _compared(folder, digests or {}, progress=progress)
    try:
        card = read_card(directory)
        shape = SignalFormat(**card["signal_format"]).shape
        contents = read_contents(folder, fingerprint=card["fingerprint"], num_records=sum(card["shard_lengths"]))
        shards = contents.shards
        bad = [shard.path.name for shard in find_bad_shards(folder, shards, shape=shape, hashes=True)]
    except DataError as error:
        return dataclasses.replace(verdict, damaged=(PACKED_FILE,), extra=(), remarks=(visible(str(error)),))
    names = {shard.name for shard in shards} | {PACKED_FILE}
    remark = f"{PACKED_DIR}/{PACKED_FILE} has no digest, since it was made before there were any"
    if contents.shuffle is not None:
        # There were digests before there were shuffled copies, so this table is damaged where it lacks one.
        names.add(contents.shuffle.file)
        bad += [] if contents.shuffle.file in (digests or {}) else [DIGESTS_FILE]
    return Verdict(
        checked=verdict.checked + sum(shard.name not in bad for shard in shards),
        damaged=(*verdict.damaged, *(name for name in bad if (folder / name).exists())),
        missing=(*verdict.missing, *(name for name in bad if not (folder / name).exists())),
        extra=tuple(name for name in verdict.extra if name not in names),
        remarks=() if digests or contents.shuffle else (remark,),
    )


def _measured(directory: Path, definition: Definition, digests: dict[str, str] | None, progress: Progress) -> Verdict:
    folder = definition.folder
    if digests is not None:
        return _compared(directory / folder, digests, progress=progress)
    remark = f"{folder} has no digests, since it was made before there were any; its sizes and types are right"
    try:
        open_physiology(open_dataset(directory), definition)
    except DataError as error:
        return Verdict(damaged=(PHYSIOLOGY_FILE,), remarks=(visible(str(error)),))
    return Verdict(remarks=(remark,))


def _by_contents(directory: Path, bar: Bar) -> Verdict:
    """Returns the verdict on a data set without digests: the index by the fingerprint, signals by their hashes."""
    dataset = open_dataset(directory)
    index, damaged = dataset.index, []
    remarks = [f"no {DIGESTS_FILE}: built before data sets had digests, so labels are not checked"]
    if index.fingerprint(dataset.format) != dataset.fingerprint:
        damaged.append("index")
        remarks.append("contents or patients in the index are not those of the card's fingerprint")
    # A bad shard is reported like the others, instead of ending the verification.
    store = open_store(directory, allow_bad_shards=True)
    wrong = 0
    with bar(index.num_records, " ECGs") as progress:
        for start in range(0, index.num_records, _RECORDS_PER_READ):
            numbers = np.arange(start, min(start + _RECORDS_PER_READ, index.num_records))
            valid = np.empty(len(numbers), bool)
            for number, is_valid, signal in zip(numbers, valid, store.read(numbers, valid=valid), strict=True):
                wrong += bool(is_valid) and content_hash(signal) != index.content_hash[number].tobytes()
            progress(len(numbers))
    remarks.append(f"{counted(index.num_records, 'signal')} compared with the hashes in the index, {wrong} differ")
    bad = sorted({shard.path.relative_to(directory).as_posix() for shard in store.bad_shards})
    return Verdict(
        damaged=(*damaged, *(name for name in bad if (directory / name).exists()), *(["signals"] if wrong else [])),
        missing=tuple(name for name in bad if not (directory / name).exists()),
        remarks=tuple(remarks),
    )


def verdict_text(verdict: Verdict, directory: Path) -> str:
    """Returns a verdict as text, with one line for each file that is not as it was written."""
    lines = [f"{directory}: {counted(verdict.checked, 'file is as it was', 'files are as they were')} written"]
    for kind, names in (("damaged", verdict.damaged), ("missing", verdict.missing), ("not part of it", verdict.extra)):
        lines += [f"  {kind:<16}{visible(name)}" for name in names]
    lines += [f"  note: {remark}" for remark in verdict.remarks]
    if not verdict.is_whole:
        lines.append("  restore what is damaged or missing from a copy, or build the data set again with --overwrite")
    return "\n".join(lines)


def define_flags() -> None:
    """Defines the flags of the command; at import they would collide with those of other commands."""
    flags.DEFINE_string("dataset", None, "Directory of a prepared data set.")


@command
def main() -> None:
    """Verifies the data set that the flags name."""
    if "://" in flags.FLAGS.dataset:
        raise DataError(f"--dataset={flags.FLAGS.dataset}: files are verified where they lie; mount the bucket")
    directory = Path(flags.FLAGS.dataset)
    verdict = verify_dataset(directory, bar=lambda total, unit: progress_bar("verifying", total, unit=unit))
    print_report(verdict_text(verdict, directory))
    if not verdict.is_whole:
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    run(main, required=["dataset"])
