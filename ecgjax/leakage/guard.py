"""Handles records in an evaluation that the encoder has seen in pretraining, or whose patients it has seen.

`overlaps` finds them; `config.probe.overlaps` says whether an evaluation refuses, marks or drops them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from data_pipelines.system.visible_text import visible
from ecgjax.data.recordings import Recordings
from ecgjax.errors import CheckpointError, ConfigError, check_known
from ecgjax.leakage.overlaps import describe, find_overlaps
from ecgjax.leakage.trained_on import PretrainingRecords

#: Values of `config.probe.overlaps`. The first is the default, so that a result on records that the encoder has seen is
#: only computed on request.
OVERLAPS = ("refuse", "mark", "drop")

#: Beginning of the caution that nothing is known of overlaps, which is printed first.
UNCHECKED = "Overlap between what was pretrained on and the records judged cannot be checked"

#: Reason for which `drop` leaves a record out of a split.
DROPPED = "seen_in_pretraining"


def check_overlaps(overlaps: str) -> None:
    """Checks a value of `config.probe.overlaps`.

    Raises:
        ConfigError: The value is not `"refuse"`, `"mark"` or `"drop"`.
    """
    check_known(overlaps, OVERLAPS, setting="config.probe.overlaps")


def opened_list(
    open_list: Callable[[], PretrainingRecords], *, overlaps: str
) -> tuple[PretrainingRecords | None, tuple[str, ...]]:
    """Opens the list of what an encoder was pretrained on.

    Args:
        open_list: Function that opens it.
        overlaps: Treatment of overlapping records, as for `guard`.

    Returns:
        The list, None where it cannot be read and overlaps are only marked; and the caution for that case.

    Raises:
        CheckpointError: The list is missing or damaged, and `overlaps` is not `"mark"`.
    """
    try:
        return open_list(), ()
    except CheckpointError as error:
        if overlaps != "mark":
            raise
        return None, (f"Whether validation and test records were pretrained on is not known: {error}.",)


def guard(
    recordings: Recordings,
    trained_on: PretrainingRecords,
    records: np.ndarray,
    *,
    overlaps: str,
    directories: Sequence[str] = (),
    leaf: str = "config.probe.overlaps",
) -> tuple[Recordings, tuple[str, ...]]:
    """Refuses, drops or marks records of an evaluation that overlap with what its encoder was pretrained on.

    Args:
        recordings: Recordings of the evaluation.
        trained_on: List of the encoder's pretraining records.
        records: Numbers of the records of the evaluation that are validated and tested on, `int64[n]`.
        overlaps: Treatment of overlapping records: `"refuse"` raises an error, `"mark"` keeps them and returns a
            caution, `"drop"` takes them out of validation and test.
        directories: Folders in which data sets that were trained on may lie.
        leaf: Leaf that says what is done about overlaps, for the message.

    Returns:
        The recordings, with another split where records were dropped, and cautions for the report, one sentence each.

    Raises:
        ConfigError: There are overlaps, and `overlaps` is `"refuse"`.
    """
    result = find_overlaps(recordings, trained_on, records, directories=directories)
    cautions = (*result.cautions, *earlier_trainings(trained_on))
    if not result.found:
        return recordings, cautions
    described = describe(result, recordings, trained_on)
    if overlaps == "refuse":
        raise ConfigError(
            f"{described}. Evaluate on folds that were not pretrained on (config.data.val_folds, "
            "config.data.test_folds); or pretrain without these records: on other folds, or on all data sets at once "
            "with the links that python -m data_pipelines.link finds between them (config.data.links). To leave the "
            f"records out of validation and test give --{leaf}=drop, to evaluate on them all the same "
            f"and say so in the report --{leaf}=mark"
        )
    if overlaps == "mark":
        return recordings, (f"{described}.", *cautions)
    left_out = f"{described}: they are left out of validation and test."
    return _without(recordings, result.records), (left_out, *cautions)


def guard_by_folds(
    recordings: Recordings,
    records: np.ndarray,
    *,
    trained_folds: Mapping[str, Collection[int]],
    overlaps: str,
    leaf: str,
) -> tuple[Recordings, tuple[str, ...]]:
    """Refuses, drops or marks what `seen_by_folds` finds; arguments and errors are those of that function.

    Returns:
        The recordings, with another split where records were dropped, and a caution for the report where there are any.
    """
    seen, cautions = seen_by_folds(
        recordings, np.sort(records), trained_folds=trained_folds, overlaps=overlaps, leaf=leaf
    )
    return _without(recordings, seen) if overlaps == "drop" and len(seen) else recordings, cautions


def seen_by_folds(
    recordings: Recordings,
    records: np.ndarray,
    *,
    trained_folds: Mapping[str, Collection[int]],
    overlaps: str,
    leaf: str,
    name: str = "the encoder",
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Refuses or finds records that an encoder without a list of its pretraining records has seen all the same.

    Records of a data set of the pretraining, which its fingerprint says, were seen where they lie in a fold that was
    trained on. Copies and patients in other data sets are not found.

    Args:
        recordings: Recordings of the evaluation.
        records: Numbers of the records that are validated or tested on, `int64[n]`, ascending.
        trained_folds: Folds that the pretraining trained on, by the fingerprint of each of its data sets.
        overlaps: Treatment of overlapping records, as for `guard`.
        leaf: Setting or flag that says what is done about overlaps, for the message.
        name: Name of the encoder within a sentence.

    Returns:
        Numbers of these records, `int64[m]`, and a caution for the report where there are any.

    Raises:
        ConfigError: There are such records, and `overlaps` is `"refuse"`.
    """
    fold_of, names, found = np.asarray(recordings.index.fold), [], [np.zeros(0, np.int64)]
    for dataset, own in zip(recordings.datasets, recordings.by_dataset(records), strict=True):
        own = own[np.isin(fold_of[own], sorted(trained_folds.get(dataset.fingerprint, ())))]
        found.append(own)
        names += [str(dataset.card["name"])] if len(own) else []
    seen = np.concatenate(found)
    if not len(seen):
        return seen, ()
    folds = ", ".join(map(str, sorted({*fold_of[seen].tolist()})))
    described = (
        f"{len(seen):,} of the {len(records):,} validation and test records were pretrained on by {name}: they are of "
        f"{' and '.join(names)} itself (the fingerprint is the same), in fold {folds}, "
        "which it was trained on"
    )
    if overlaps == "refuse":
        raise ConfigError(
            f"{described}. Evaluate on other folds or other recordings; or give --{leaf}=drop to leave these out, or "
            f"--{leaf}=mark to keep them and say so in the report"
        )
    return seen, (f"{described}{': they are left out' if overlaps == 'drop' else ''}.",)


def _without(recordings: Recordings, records: np.ndarray) -> Recordings:
    val, test = (np.setdiff1d(each, records) for each in (recordings.split.val, recordings.split.test))
    excluded = {**recordings.split.excluded, DROPPED: len(records)}
    split = dataclasses.replace(recordings.split, val=val, test=test, excluded=excluded)
    return dataclasses.replace(recordings, split=split)


def earlier_trainings(trained_on: PretrainingRecords, *, name: str = "the encoder") -> tuple[str, ...]:
    """Returns cautions on the trainings before the one that a list is of.

    Args:
        trained_on: List of the encoder's pretraining records.
        name: Name of the encoder within a sentence.
    """
    unlisted = tuple(
        f"Training of {name} began with the weights of '{visible(source)}', which had no list of its pretraining "
        "records: whether records here, copies of them or their patients were among those cannot be checked. The "
        "command that pretrained it, given once more, adds the list to a run, and python -m ecgjax.export "
        "--with_signatures to a model; a run that then begins with it has both lists."
        for source in trained_on.unlisted
    )
    return (*unlisted, *labelled(trained_on.labels, name=f"What {name} began with"))


def not_listed(encoder: str, *, among: str) -> str:
    """Returns the caution on an encoder that has no list of its pretraining records.

    Args:
        encoder: Name of the encoder within a sentence.
        among: Records of the evaluation, in words.
    """
    return unchecked(
        f"which records {encoder} was pretrained on is not listed beside its checkpoints, which are older than such "
        "lists",
        among=among,
        remedy="The command that pretrained it, given once more, adds the list",
    )


def unchecked(reason: str, *, among: str, remedy: str) -> str:
    """Returns the caution that nothing is known of overlaps.

    Args:
        reason: Reason, as a clause.
        among: Records of the evaluation, in words.
        remedy: What would make a check possible, as a sentence without a full stop.
    """
    return f"{UNCHECKED}: {reason}. Copies and patients of theirs may be among {among}. {remedy}."


def by_weight(cautions: Sequence[str]) -> list[str]:
    """Returns cautions in the order in which they are printed: first that overlaps cannot be checked."""
    return sorted(cautions, key=lambda caution: not caution.startswith(UNCHECKED))


def simulated_before(simulated: bool, recordings: Recordings, *, name: str = "The encoder") -> tuple[str, ...]:
    """Returns a caution where a simulated pretraining is judged on recordings that are not simulated.

    Args:
        simulated: Whether any data set of the pretraining was simulated.
        recordings: Recordings of the evaluation. Where some of these are simulated, another caution says so.
        name: Name of the encoder at the start of a sentence.
    """
    if not simulated or recordings.simulated:
        return ()
    return (f"{name} was pretrained on SIMULATED recordings; the numbers are of {recordings.name}'s own records.",)


def unlinked(
    recordings: Recordings, *, kept: str = "kept apart between the splits", flag: str = "config.data.links"
) -> tuple[str, ...]:
    """Returns a caution where copies were not looked for.

    Args:
        recordings: Recordings of the evaluation.
        kept: Words for what was done with equal recordings.
        flag: Setting that takes the links.
    """
    if recordings.linked or recordings.simulated:
        return ()
    return (
        f"Only equal recordings were {kept}; python -m data_pipelines.link finds copies at another rate, gain or cut "
        f"too ({flag}).",
    )


def watched(question: str, *, chooses: bool, name: str = "The encoder") -> tuple[str, ...]:
    """Returns a caution for the report where a pretraining looked at labels without training with them.

    Args:
        question: Question of the health metric (`config.health.task`); empty for none.
        chooses: Whether the best checkpoint was chosen by it.
        name: Name of the encoder at the start of a sentence.
    """
    if not question:
        return ()
    looked = (
        f"{name} was watched in pretraining by a metric that trains no weight and looks at labels ({question}) of "
        "training and validation records (config.health)"
    )
    choice = (
        "its best checkpoint was chosen by them (config.checkpoint.best), and whoever takes that one has used these "
        "labels, also where fewer are given here"
        if chooses
        else "who stopped it, or chose a checkpoint or a setting by that curve, has used these labels"
    )
    return (f"{looked}: {choice}.",)


def labelled(labels: Sequence[str], *, name: str = "The encoder") -> tuple[str, ...]:
    """Returns a caution for the report where a pretraining used labels, and otherwise nothing.

    An evaluation with few labels then does not show what can be learnt from few labels alone.

    Args:
        labels: Questions whose answers the pretraining used, as `row_metadata.labels_looked_at` returns them.
        name: Name of the encoder at the start of a sentence.
    """
    if not labels:
        return ()
    return (
        f"{name} was pretrained with labels ({', '.join(labels)}) of all its training recordings: where fewer labels "
        "are given here, it has seen the others of these.",
    )
