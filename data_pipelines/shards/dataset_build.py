"""Builds a data set from a source: shards, index, quarantine list and card; published together or not at all."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from data_pipelines.builders.base import Quarantined, Source
from data_pipelines.builders.lazy_items import LazyItems
from data_pipelines.card.figures import flag_counts, sex_counts
from data_pipelines.errors import DataError
from data_pipelines.prepared import dataset as prepared
from data_pipelines.prepared.contradictions import contradiction_section, contradictions_within
from data_pipelines.prepared.fold_labels import labels_by_fold, lacking_folds
from data_pipelines.prepared.index import INDEX_DIR, Index, content_codes, duplicate_pairs
from data_pipelines.prepared.kept_seconds import kept_seconds
from data_pipelines.prepared.patient_checks import patient_doubts
from data_pipelines.prepared.quarantine import example_of_most
from data_pipelines.prepared.remarks import list_remarks
from data_pipelines.prepared.shared_contents import listed_contents
from data_pipelines.records import LAYOUT_VERSION, ORDER_FREE_VERSION, SIGNATURE_VERSION, STORED_LEADS
from data_pipelines.shards import calibration_report
from data_pipelines.shards.build_state import BuildState
from data_pipelines.shards.making import BuildJob, LocalProcesses, ShardTask, Told
from data_pipelines.shards.merging import merge_parts
from data_pipelines.shards.parts import PART_VERSION, ShardPart
from data_pipelines.shards.plan import SPLIT, Shard, plan_shards
from data_pipelines.shards.source_listing import LISTING_FILE, SourceListing, changes_since, list_source, open_listing
from data_pipelines.storage.example_format import features
from data_pipelines.system.atomic_directory import exclusive_staging
from data_pipelines.system.counted import counted
from data_pipelines.system.digests import files_of, write_digests
from data_pipelines.system.visible_text import visible, write_table

_ONE_PROCESS = LocalProcesses(1)

_BEGUN_ANEW = (
    "files of the source were added, removed or changed while this build was interrupted: all recordings were read anew"
)

#: Parts of a request that are digests of a file, with the part that is its path, and the file in words.
_DIGESTS = {
    "labels_digest": ("labels", "the table of labels"),
    "source_fingerprint": ("source", "the data set"),
}

_WRITERS = ("array_record", "numpy", "scipy", "tensorflow-datasets", "wfdb")


class ShardMaker(Protocol):
    """A way to make shards: `making.LocalProcesses` or `beam.BeamWorkers`."""

    def __call__(self, job: BuildJob, tasks: Sequence[ShardTask], *, folder: Path, progress: Told) -> None:
        """Makes every shard; returns when all are finished.

        Args:
            job: Properties that the shards have in common.
            tasks: Shards to make; each task is created when it is accessed.
            folder: Empty folder on the file system of the data set, for files of the maker.
            progress: Function to call with the number of items that were done since its last call.
        """
        ...


#: Shows progress. It takes a title, the number of items and how many are already done, and returns a context whose
#: value is called with the number of further items done.
Progress = Callable[[str, int, int], contextlib.AbstractContextManager[Told]]


def no_progress(title: str, total: int, done: int) -> contextlib.AbstractContextManager[Told]:
    """Shows no progress; a `Progress`."""
    return contextlib.nullcontext(lambda num_items: None)


def build_dataset(
    make_source: Callable[[], Source],
    out: Path,
    *,
    request: Mapping[str, Any],
    make_shards: ShardMaker = _ONE_PROCESS,
    max_quarantined: float = 0.5,
    overwrite: bool = False,
    progress: Progress = no_progress,
    source_folder: Path | None = None,
) -> dict[str, Any]:
    """Builds a data set at `out`, unless a finished one is there that was built by the same request.

    The work is done in `OUT.building`, shard by shard, and moved into place in one step, so an interruption leaves the
    data set at `out` as it was; another call resumes from the finished shards.

    Args:
        make_source: Function that returns the source; it is called only if something has to be built.
        out: Directory of the data set; absent, empty, or a finished data set.
        request: What the build was asked for, as values that JSON can hold; they are kept on the card. A finished data
            set at `out` must have the same.
        make_shards: Way to make the shards; all ways make the same shards.
        max_quarantined: Largest share of recordings that may be quarantined without failing the build.
        overwrite: Whether a finished data set is replaced once the new one is complete.
        progress: Function that shows how many items are done.
        source_folder: Folder whose files are listed, so that a later call notices which were added, removed or changed.

    Returns:
        The card of the data set at `out`.

    Raises:
        DataError: Nothing could be stored, too much was quarantined, `out` is something else, another build is writing
            it, or the source of the finished data set at `out` has changed.
    """
    out = Path(out).resolve()
    staging = prepared.staging_directory(out)
    prepared.check_out(out, lost="which a build would replace")
    with exclusive_staging(staging, resume=True):
        state = BuildState(staging)
        is_published = state.complete_publishing(out, request, overwrite=overwrite)
        if is_published or ((out / prepared.CARD_FILE).is_file() and not overwrite):
            return _finished_card(out, request, source_folder)
        listing = list_source(source_folder, leave_out=[out, staging]) if source_folder else None
        source = make_source()
        plan = plan_shards(len(source.items), signal_format=source.signal_format, name=source.card.name)
        job = _job(source, plan, state, request, listing)
        # The notes and the state of an earlier run are read before `begin` removes them.
        _warn_of(state.left_reading())
        files = listing.digest if listing else None
        begun_anew = state.has_shards_of_other_files(request, files=files)
        build_id = state.begin(request, key=job.key, files=files)
        make_missing = functools.partial(
            _make_missing, plan=plan, job=job, maker=make_shards, folder=state.tasks, progress=progress
        )
        judge = functools.partial(
            calibration_report.judge_calibration, shards=job.paths(plan), signal_format=source.signal_format
        )
        parts = make_missing(source.items)
        quarantined = _quarantined(parts)
        # A build of which nothing is stored fails, whatever share is allowed.
        if len(quarantined) == len(source.items) or len(quarantined) > max_quarantined * len(source.items):
            _write_quarantine(quarantined, staging / prepared.QUARANTINE_FILE)
            state.forget()  # The recordings may be repaired before the next run.
            raise _low_yield(source, quarantined, max_quarantined, staging / prepared.QUARANTINE_FILE)
        judged, corrected = judge(parts), {}
        factors = calibration_report.proven_factors(judged, parts)
        # Only the shards with a corrected record are made again: the items of all others are the same.
        if (items := calibration_report.with_factors(source.items, factors)) is not source.items:
            parts, corrected = make_missing(items), factors
            judged = judge(parts)
        card = _complete(source, plan, parts, state.dataset, quarantined=_quarantined(parts), flags=judged.flags)
        card["summary"]["calibration"] = calibration_report.calibration_section(judged, parts, corrected=corrected)
        card |= {"request": dict(request), "build_id": build_id}
        if listing is not None:
            listing.write(state.dataset / LISTING_FILE)
            card["source_files"] = {"count": len(listing.files), "digest": listing.digest}
        if begun_anew:
            card["summary"]["notes"].append(_BEGUN_ANEW)
        # A directory with a card counts as a finished data set, so all that the card speaks of is written before it.
        (state.dataset / prepared.CARD_FILE).write_text(
            json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        shard_digests = {shard.file_name: part.digest for shard, part in zip(plan, parts, strict=True)}
        write_digests(state.dataset, files_of(state.dataset), known=shard_digests)
        state.publish(out)
    return card


def _warn_of(left_reading: Sequence[str]) -> None:
    """Warns of files that the previous run was reading if it was killed, since it could not report them itself."""
    if left_reading:
        logging.warning(
            "the run before this one ended while it was reading %s; if this one ends there too, move that file out of "
            "the folder and report it",
            " and ".join(map(visible, left_reading)),
        )


def _finished_card(out: Path, request: Mapping[str, Any], source_folder: Path | None) -> dict[str, Any]:
    card = prepared.read_card(out)
    before = card["request"]
    differing = [name for name in sorted(before.keys() | request.keys()) if before.get(name) != request.get(name)]
    if differing:
        raise _built_otherwise(out, before, request, differing)
    if source_folder is not None and (before := open_listing(out / LISTING_FILE)) is not None:
        changes = changes_since(before, list_source(source_folder, leave_out=[out, prepared.staging_directory(out)]))
        if changes:
            raise DataError(
                f"{out}: is finished, but files of {source_folder} have changed since it was built: {changes}; build "
                "it again with --overwrite, or keep it and choose another --out"
            )
    return card


def _built_otherwise(
    out: Path, before: Mapping[str, Any], request: Mapping[str, Any], differing: Sequence[str]
) -> DataError:
    """Returns the refusal to build where another data set is, which names in words what has changed.

    Args:
        out: Directory of the finished data set.
        before: Request that it was built by.
        request: Request that is made now.
        differing: Names of the parts in which these differ.
    """
    # A digest tells nobody anything. Where the path differs too, the path says it.
    told = [
        f"{words} {request[path]} has changed since"
        for digest, (path, words) in _DIGESTS.items()
        if digest in differing and path not in differing
    ]
    others = [
        f"{name}={before.get(name)!r} (asked for: {request.get(name)!r})" for name in differing if name not in _DIGESTS
    ]
    if others:
        told.insert(0, f"it was built otherwise, with {', '.join(others)}")
    return DataError(
        f"{out}: holds a finished data set, but {', and '.join(told)}; choose another --out, or replace it with "
        "--overwrite"
    )


def _job(
    source: Source, plan: Sequence[Shard], state: BuildState, request: Mapping[str, Any], listing: SourceListing | None
) -> BuildJob:
    reader = source.reader()
    depends_on = {
        "versions": [LAYOUT_VERSION, SIGNATURE_VERSION, ORDER_FREE_VERSION, PART_VERSION],
        "request": request,
        "files": listing.digest if listing else None,
        "name": source.card.name,
        "signal_format": dataclasses.asdict(source.signal_format),
        "recipe": source.recipe.to_json(),
        "scalars": list(source.label_schema.scalars),
        "tasks": {name: list(classes) for name, classes in source.label_schema.tasks.items()},
        "plan": [dataclasses.astuple(shard) for shard in plan],
        "reader": hashlib.blake2b(pickle.dumps(reader)).hexdigest(),
    }
    return BuildJob(
        key=hashlib.blake2b(json.dumps(depends_on).encode(), digest_size=16).hexdigest(),
        reader=reader,
        source_name=source.card.name,
        signal_format=source.signal_format,
        label_schema=source.label_schema,
        shards=state.dataset,
        parts=state.parts,
        unfinished=state.unfinished,
    )


def _make_missing(
    items: Sequence[Any], plan: Sequence[Shard], job: BuildJob, *, maker: ShardMaker, folder: Path, progress: Progress
) -> list[ShardPart]:
    """Makes the shards that are not finished yet, and returns the parts of all shards."""

    def task(shard: Shard) -> ShardTask:
        return ShardTask(shard=shard, items=pickle.dumps(items[shard.start : shard.stop]))

    def is_finished(shard: Shard) -> bool:
        part = job.finished_part(shard)
        return part is not None and part.key == task(shard).key(job)

    missing = [shard for shard in plan if not is_finished(shard)]
    num_done = len(items) - sum(shard.num_items for shard in missing)
    with progress("building", len(items), num_done) as tell:
        if missing:
            tasks = LazyItems(len(missing), lambda position: task(missing[position]))
            for shard in missing:
                job.part_path(shard).unlink(missing_ok=True)  # A part of other items must not pass for the new one.
            maker(job, tasks, folder=folder, progress=tell)
    found = [job.finished_part(shard) for shard in plan]
    if absent := [shard.file_name for shard, part in zip(plan, found, strict=True) if part is None]:
        raise DataError(
            f"{job.shards}: {len(absent)} shards are not there after they were made, first {absent[0]}; do all workers "
            "see this directory?"
        )
    return [part for part in found if part is not None]


def _complete(
    source: Source,
    plan: Sequence[Shard],
    parts: Sequence[ShardPart],
    dataset: Path,
    *,
    quarantined: list[Quarantined],
    flags: np.ndarray,
) -> dict[str, Any]:
    """Writes everything of a data set but its card, which is returned, beside the shards.

    Leftovers of an interrupted run are replaced.

    Args:
        source: Source of the records.
        plan: Shards of the data set.
        parts: Parts of the shards, in the same order.
        dataset: Folder of the shards.
        quarantined: Recordings that were not stored.
        flags: Quality flags that depend on all records together, `int32[n]`.
    """
    shards = {shard.file_name for shard in plan}
    for path in dataset.iterdir():
        if path.name not in shards:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    index = merge_parts(parts, dataset / INDEX_DIR, schema=source.label_schema, flags=flags)
    _write_quarantine(quarantined, dataset / prepared.QUARANTINE_FILE)
    remarks = list_remarks((part.remarks() for part in parts), dataset / prepared.REMARKS_FILE)
    shard_lengths, num_bytes = [part.num_stored for part in parts], sum(part.num_bytes for part in parts)
    tfds.folder_dataset.write_metadata(
        data_dir=dataset,
        features=features(source.signal_format, source.label_schema),
        split_infos=[tfds.core.SplitInfo(name=SPLIT, shard_lengths=shard_lengths, num_bytes=num_bytes)],
        version="1.0.0",
        check_data=False,  # Each shard was read back completely.
        description=source.card.description,
        citation=source.card.citation,
        license=source.card.license,
    )
    names = [shard.file_name for shard in plan]
    return _card(source, index, quarantined, remarks=remarks) | {"shards": names, "shard_lengths": shard_lengths}


def _quarantined(parts: Sequence[ShardPart]) -> list[Quarantined]:
    return [entry for part in parts for entry in part.quarantined]


def _write_quarantine(quarantined: list[Quarantined], path: Path) -> None:
    header = [field.name for field in dataclasses.fields(Quarantined)]
    write_table(path, header, map(dataclasses.astuple, quarantined))


def _low_yield(source: Source, quarantined: list[Quarantined], max_quarantined: float, listed: Path) -> DataError:
    counts = _by_reason(quarantined)
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    # Of equal keys a dictionary keeps the last value, so the first message of each reason comes last.
    first = {entry.reason: entry.message for entry in reversed(quarantined)}
    return DataError(
        f"{len(quarantined):,} of {counted(len(source.items), 'recording')} could not be stored ({reasons}), more than "
        f"--max_quarantined={max_quarantined:g} allows; nothing was built; {example_of_most(counts, first)}. "
        f"All are listed in {listed}"
    )


def _by_reason(quarantined: list[Quarantined]) -> dict[str, int]:
    return dict(collections.Counter(entry.reason for entry in quarantined).most_common())


def _card(source: Source, index: Index, refused: list[Quarantined], *, remarks: Mapping[str, Any]) -> dict[str, Any]:
    schema = source.label_schema
    contents = content_codes(index.content_hash)
    counted = labels_by_fold(index)
    return {
        **{name: getattr(source.card, name) for name in ("name", "simulated", "description", "citation", "license")},
        "layout_version": LAYOUT_VERSION,
        "leads": list(STORED_LEADS),
        "microvolts_per_unit": 1,
        "signal_format": dataclasses.asdict(source.signal_format),
        "recipe": source.recipe.to_json(),
        "split": SPLIT,
        "scalars": {name: {"unit": schema.units.get(name, "")} for name in schema.scalars},
        "tasks": {name: list(classes) for name, classes in schema.tasks.items()},
        "num_records": index.num_records,
        "num_patients": index.num_patients,
        "fingerprint": index.fingerprint(source.signal_format),
        "summary": {
            "records_in": len(source.items),
            "recordings_in": getattr(source, "num_recordings", len(source.items)),
            "stored": index.num_records,
            "quarantined": _by_reason(refused),
            "remarks": remarks,
            "duplicates": duplicate_pairs(index),
            "shared_contents": listed_contents(contents, np.asarray(index.patient), index.record_id),
            "seconds": kept_seconds(index, source.signal_format),
            "contradictions": contradiction_section(contradictions_within(index, name=source.card.name)),
            "quality": flag_counts(index),
            "clipped_samples": int(index.clipped_samples.sum(dtype=np.int64)),
            "sex": sex_counts(index),
            "sex_reading": source.card.sex_reading,
            "labels_by_fold": counted,
            "doubts": [*patient_doubts(index), *lacking_folds(counted)],
            "notes": list(source.card.notes),
        },
        "written_with": {package: version(package) for package in _WRITERS},
    }
