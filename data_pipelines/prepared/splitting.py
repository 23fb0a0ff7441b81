"""Splits one or several data sets by fold, so that records that belong together are on one side."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

SIDES = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """The record numbers of a split without common patients or contents between sides; each array is sorted.

    Attributes:
        train: Records to train on, `int64[n]`.
        val: Records to select models on, `int64[n]`.
        test: Records to report results on, `int64[n]`.
        excluded: Number of records that were left out, by reason: `duplicate`, `group_in_val_or_test`, `group_in_test`,
            `other_fold`.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    excluded: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linked:
    """The groups and copies that link a data set's records to each other and to other data sets (`copies_of.py`).

    Attributes:
        group: Group of every record, `int32[n]`, equal for records that share a patient or a recording, directly or
            through others.
        copy: Number of every record's recording, `int32[n]`, equal for exact and near-duplicates.
    """

    group: np.ndarray
    copy: np.ndarray


def split_of(in_side: Mapping[str, np.ndarray], *, unique: np.ndarray, group: np.ndarray) -> Split:
    """Returns a split without duplicates and without groups on two sides.

    Training records yield to val and test, and validation records to test: they are left out if their group is there
    too.

    Args:
        in_side: Whether each record's fold is on a side, `bool[n]`, for every name in `SIDES`.
        unique: Whether each record is kept, `bool[n]`; false for duplicates to leave out.
        group: Group of every record, `int32[n]`.
    """
    (split,) = _split(in_side, unique=unique, group=group, starts=np.array([0, len(group)]))
    return split


def split_linked(
    folds: Sequence[np.ndarray],
    *,
    record_ids: Sequence[np.ndarray],
    linked: Sequence[Linked],
    sides: Sequence[Mapping[str, tuple[int, ...]]],
) -> list[Split]:
    """Splits data sets jointly, so that no group is on two sides in any of them.

    Training records yield to val and test, and validation records to test: they are left out if their group is there
    too.

    Of the duplicates on one side, the first by data set and record id is kept, so that the order in which records are
    stored does not matter.

    Args:
        folds: Fold of every record, `int16[n]`, for every data set.
        record_ids: Id of every record, `str[n]`, for every data set.
        linked: Groups and copies of every data set, with joint numbers.
        sides: Folds of every name in `SIDES`, for every data set.

    Returns:
        The split of each data set, with its own record numbers.
    """
    starts = np.cumsum([0, *map(len, folds)])
    in_side = {
        name: np.concatenate([np.isin(fold, own[name]) for fold, own in zip(folds, sides, strict=True)])
        for name in SIDES
    }
    copy = np.concatenate([each.copy for each in linked]).astype(np.int64)
    # Number of each record's side, 0 for none. Copies on different sides are no duplicates here: one yields by its
    # group.
    side = sum(number * in_side[name] for number, name in enumerate(SIDES, start=1))
    order = np.concatenate([start + np.argsort(ids) for start, ids in zip(starts[:-1], record_ids, strict=True)])
    unique = np.zeros(starts[-1], bool)
    unique[order[np.unique((copy * (len(SIDES) + 1) + side)[order], return_index=True)[1]]] = True
    return _split(in_side, unique=unique, group=np.concatenate([each.group for each in linked]), starts=starts)


def _split(
    in_side: Mapping[str, np.ndarray], *, unique: np.ndarray, group: np.ndarray, starts: np.ndarray
) -> list[Split]:
    train, val, test = (in_side[name] & unique for name in SIDES)
    in_some = in_side["train"] | in_side["val"] | in_side["test"]
    in_test_group = _shares_group_with(test, group)
    val_kept = val & ~in_test_group
    # All of val counts, including records that were left out: this costs few records and keeps the rule simple.
    train_kept = train & ~in_test_group & ~_shares_group_with(val, group)
    excluded = {
        "duplicate": in_some & ~unique,
        "group_in_val_or_test": train & ~train_kept,
        "group_in_test": val & ~val_kept,
        "other_fold": ~in_some,
    }
    return [
        Split(
            train=np.flatnonzero(train_kept[start:stop]),
            val=np.flatnonzero(val_kept[start:stop]),
            test=np.flatnonzero(test[start:stop]),
            excluded={reason: int(mask[start:stop].sum()) for reason, mask in excluded.items()},
        )
        for start, stop in itertools.pairwise(starts.tolist())
    ]


def _shares_group_with(members: np.ndarray, group: np.ndarray) -> np.ndarray:
    hit = np.zeros(int(group.max()) + 1, bool)
    hit[group[members]] = True
    return hit[group]
