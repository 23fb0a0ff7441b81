"""Builds a data set from a source: shards, index, quarantine list and card, all or nothing."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.builders.base import SPLIT, EcgBuilder, Quarantined, Source
from data_pipelines.dataset import CARD_FILE, QUARANTINE_FILE, read_card, staging_directory
from data_pipelines.errors import DataError
from data_pipelines.index import INDEX_DIR, NOT_A_DUPLICATE, Index, save_index
from data_pipelines.quality import QualityFlag, flag_names
from data_pipelines.readback import index_of_stored
from data_pipelines.records import LAYOUT_VERSION, STORED_LEADS
from data_pipelines.staging import exclusive_staging, publish

_WRITERS = ("array_record", "numpy", "scipy", "tensorflow-datasets", "wfdb")


def build_dataset(
    make_source: Callable[[], Source],
    out: Path,
    *,
    request: Mapping[str, Any],
    max_quarantined: float = 0.5,
    overwrite: bool = False,
    num_workers: int = 1,
    progress: Callable[[Iterator, int, str], Iterator] = lambda items, total, title: items,
) -> dict[str, Any]:
    """Builds a data set at `out`, or leaves the finished one that is there.

    The work is done in `OUT.building` and put in place by one rename, so whatever interrupts it leaves nothing at
    `out`; calling again starts anew and completes it.

    Args:
        make_source: gives the source; called only if something is to be built.
        out: directory of the data set; absent, empty, or a finished data set.
        request: what was asked for, as JSON; kept on the card, and compared before a finished data set is left.
        max_quarantined: largest share of recordings that may be quarantined for the build to count as good.
        overwrite: replace a finished data set, after the new one is whole.
        num_workers: processes that read back what was written.
        progress: wraps an iterator of long work, given the number of its items and a title.

    Returns:
        The card of the data set at `out`.

    Raises:
        DataError: nothing could be stored, too much was quarantined, `out` is something else, or another build is
            writing it.
    """
    out = Path(out).resolve()
    staging = staging_directory(out)
    if out.exists() and not (out / CARD_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is not a prepared data set; choose another --out, or move it away")
    if out == Path.cwd():
        raise DataError(f"{out}: is the current directory, which a build would replace; name a new one with --out")
    with exclusive_staging(staging):
        if (out / CARD_FILE).is_file() and not overwrite:
            return _finished_card(out, request)
        source = make_source()
        finished, quarantined = _write_shards(source, staging, progress)
        _write_quarantine(quarantined, staging / QUARANTINE_FILE)
        _check_yield(source, quarantined, max_quarantined, staging / QUARANTINE_FILE)
        info = tfds.builder_from_directory(finished).info.splits[SPLIT]
        _check_count(source, num_stored=info.num_examples, num_quarantined=len(quarantined))
        index = index_of_stored(
            finished,
            num_records=info.num_examples,
            schema=source.label_schema,
            sampling_rate_hz=source.signal_format.sampling_rate_hz,
            num_workers=num_workers,
            progress=lambda blocks, total: progress(blocks, total, "reading back"),
        )
        save_index(index, finished / INDEX_DIR)
        card = _card(source, index, quarantined, request) | {
            "shards": [Path(name).name for name in info.filepaths],
            "shard_lengths": list(info.shard_lengths),
        }
        shutil.move(staging / QUARANTINE_FILE, finished / QUARANTINE_FILE)
        (finished / CARD_FILE).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        publish(finished, out, retired=staging / "replaced")
    return card


def _finished_card(out: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    card = read_card(out)
    differing = [
        f"{name}={card['request'].get(name)!r} (asked for: {request.get(name)!r})"
        for name in sorted(card["request"].keys() | request.keys())
        if card["request"].get(name) != request.get(name)
    ]
    if differing:
        raise DataError(
            f"{out}: holds a finished data set built otherwise, with {', '.join(differing)}; "
            "choose another --out, or replace it with --overwrite"
        )
    return card


def _write_shards(
    source: Source, staging: Path, progress: Callable[[Iterator, int, str], Iterator]
) -> tuple[Path, list[Quarantined]]:
    tfds.disable_progress_bar()
    builder = EcgBuilder(
        source, staging_dir=staging, progress=lambda records: progress(records, source.num_items, "building")
    )
    # TFDS announces a download here, of which there is none.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(file_format="array_record")
    return Path(builder.data_dir), builder.quarantined


def _write_quarantine(quarantined: list[Quarantined], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in dataclasses.fields(Quarantined)])
        writer.writerows(dataclasses.astuple(entry) for entry in quarantined)


def _check_yield(source: Source, quarantined: list[Quarantined], max_quarantined: float, listed: Path) -> None:
    num_items, num_bad = source.num_items, len(quarantined)
    if num_items == num_bad or num_bad > max_quarantined * num_items:
        reasons = ", ".join(f"{reason} {count}" for reason, count in _by_reason(quarantined).items())
        raise DataError(
            f"{num_bad} of {num_items} recordings could not be stored ({reasons}), more than "
            f"--max_quarantined={max_quarantined:g} allows; nothing was built. The first: {quarantined[0].message}. "
            f"All are listed in {listed}"
        )


def _check_count(source: Source, *, num_stored: int, num_quarantined: int) -> None:
    if num_stored + num_quarantined != source.num_items:
        raise DataError(
            f"the source '{source.card.name}' announced {source.num_items} recordings, of which {num_stored} were "
            f"stored and {num_quarantined} quarantined (a fault of its reader); nothing was built"
        )


def _by_reason(quarantined: list[Quarantined]) -> dict[str, int]:
    return dict(collections.Counter(entry.reason for entry in quarantined).most_common())


def _card(source: Source, index: Index, quarantined: list[Quarantined], request: Mapping[str, Any]) -> dict[str, Any]:
    schema = source.label_schema
    duplicate = (index.duplicate_of != NOT_A_DUPLICATE).nonzero()[0]
    return {
        "name": source.card.name,
        "simulated": source.card.simulated,
        "description": source.card.description,
        "citation": source.card.citation,
        "license": source.card.license,
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
            "records_in": source.num_items,
            "stored": index.num_records,
            "quarantined": _by_reason(quarantined),
            "duplicates": [
                [str(index.record_id[number]), str(index.record_id[index.duplicate_of[number]])] for number in duplicate
            ],
            "quality": {
                name: int(np.count_nonzero(index.quality & flag)) for flag in QualityFlag for name in flag_names(flag)
            },
            "clipped_samples": int(index.clipped_samples.sum(dtype=np.int64)),
            "notes": list(source.card.notes),
        },
        "request": dict(request),
        "written_with": {package: version(package) for package in _WRITERS},
    }
