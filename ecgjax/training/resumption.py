"""What a run that resumes may have changed: only what `config.resume.allow` names, and the run keeps a record of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ecgjax.config.run_config import names_in
from ecgjax.errors import ConfigError
from ecgjax.training.about import About

#: What decides which rows and views a step gets, in words, by the name of its digest.
PARTS = {
    "data": "data sets or patients",
    "columns": "columns of metadata",
    "sampling": "split, sampling or batch size",
    "stored": "order in which the packed copy holds the recordings (--shuffle_patients of data_pipelines.stage)",
    "pipeline": "version of the pipeline",
}

# Leaves or sections of which one must be allowed for the part to differ: several decide which records are drawn.
_ALLOWED_BY: Mapping[str, tuple[str, ...]] = {
    "data": ("data",),
    "columns": ("columns", "data", "seed"),
    "sampling": ("sampling", "data", "batch_size", "seed"),
    "stored": ("sampling", "data", "batch_size", "seed"),
    "pipeline": (),
}


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], *, allow: str, directory: str, data: str) -> None:
    """Refuses to go on with other data, columns or sampling than those of a checkpoint, unless that is allowed.

    Args:
        before: Metadata of the checkpoint.
        now: Metadata that the run saves.
        allow: Leaves or sections that may differ (`config.resume.allow`).
        directory: Directory of the checkpoints, for the message.
        data: Data set of the run, for the message.

    Raises:
        ConfigError: Something differs that may not.
    """
    differing = changed_parts(before, now)
    sections = {name.partition(".")[0] for name in names_in(allow)}
    refused = [part for part in differing if not sections.intersection(_ALLOWED_BY[part])]
    # Checkpoints from before the parts had digests tell that something differs, and not what.
    if "digests" not in before and "data" in sections:
        refused = []
    if refused:
        remedies = list(dict.fromkeys(_ALLOWED_BY[part][0] for part in refused if _ALLOWED_BY[part]))
        deliberate = (
            f", or, to change them deliberately in the middle of the run, add {','.join(remedies)} to "
            "--config.resume.allow"
            if remedies
            else ""
        )
        raise ConfigError(
            f"{directory} was trained on another data set, split or sampling than {data} with this config gives "
            f"({'; '.join(PARTS[part] for part in refused)}); resume on the same data, or use another --workdir"
            f"{deliberate}"
        )


def changed_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns the names of the parts (`PARTS`) that differ between a checkpoint and the run that goes on from it.

    Args:
        before: Metadata of the checkpoint.
        now: Metadata that the run saves.
    """
    # Checkpoints that were saved before records were listed are known by the fingerprint alone.
    same_records = _own_records(before, now) == now["own_records"]
    if before["fingerprint"] == now["fingerprint"] and same_records:
        return []
    # Checkpoints from before packed copies could be shuffled have no digest of the stored order, which was by number.
    digests = {"stored": "", **before.get("digests", {})}
    return [
        part for part in PARTS if digests.get(part) != now["digests"][part] or (part == "data" and not same_records)
    ]


def _own_records(before: Mapping[str, Any], now: Mapping[str, Any]) -> Any:
    """Returns the digest of the list of a checkpoint's own records, without those of trainings before."""
    return before.get("own_records", now["own_records"] if before.get("records") in (None, now["records"]) else None)


def changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    told: About,
    leaves: Mapping[str, tuple[Any, Any]],
    step: int,
) -> list[dict[str, Any]]:
    """Returns what a run has changed in its course, up to the resumption at hand.

    Args:
        before: Metadata of the checkpoint that it goes on from.
        now: Metadata that it saves.
        told: What the folder of the run says of it (`about.json`): a run that was killed before the first checkpoint
            after a change has told of it only there.
        leaves: Values before and now of leaves that differ, by path.
        step: Step of the resumption.

    Returns:
        Changes in their order, each once, with `step`, `name`, `was` and `is`.
    """
    found = [*_changes_in(before.get("about", {})), *_changes_in(told)]
    found += [{"step": step, "name": name, "was": was, "is": new} for name, (was, new) in leaves.items()]
    if "data" in changed_parts(before, now):
        found.append({"step": step, "name": "data sets", "was": before.get("datasets"), "is": now["datasets"]})
    # What was changed at a later step than this one, which was lost, is in force from this one on.
    dated = [json.dumps({**change, "step": min(step, change["step"])}) for change in found]
    return sorted(map(json.loads, dict.fromkeys(dated)), key=lambda change: change["step"])


def _changes_in(about: About) -> list[dict[str, Any]]:
    found = about.get("changes", ())
    return [
        change
        for change in (found if isinstance(found, list) else ())
        if isinstance(change, dict) and {*change} == {"step", "name", "was", "is"} and type(change["step"]) is int
    ]
