"""The sampler that a config asks for: records or patients, one data set, a weighted mixture, or balanced classes."""

from __future__ import annotations

import dataclasses

import ml_collections
import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.streaming.orders import (
    MixtureOrder,
    Order,
    PatientOrder,
    RecordOrder,
    component_seed,
    smallest_block,
)
from data_pipelines.streaming.sampler import Sampler
from ecgjax.data.recordings import Recordings
from ecgjax.data.tasks import BinaryTask
from ecgjax.errors import ConfigError

#: Rule of `config.sampling.balance` that takes every value of a label, a whole number, for a class of its own.
CLASSES = "classes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Mixture:
    """What a sampler draws from.

    Attributes:
        titles: of the components, for people.
        records: `int64[m]` of each component.
        weights: shares of the components; None for equal ones.
        without_label: records that belong to no class.
    """

    titles: tuple[str, ...]
    records: tuple[np.ndarray, ...]
    weights: tuple[float, ...] | None = None
    without_label: int = 0


def make_sampler(config: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray) -> Sampler:
    """Makes the sampler that `config.sampling` and `config.data.weights` name.

    Args:
        config: Config of the run, with the leaves of `ecgjax/defaults.py`.
        recordings: opened by it.
        records: `int64[m]`, ascending: one side of their split.

    Raises:
        ConfigError: an unknown way of sampling, or settings that contradict each other.
        DataError: a data set or class without records, or a batch that tears patients apart.
    """
    mixture = _mixture(config, recordings, records)
    if mixture is None:
        return Sampler(_order(config, recordings, records, seed=config.seed), batch_size=config.batch_size)
    orders = [
        _order(config, recordings, own, seed=component_seed(config.seed, number))
        for number, own in enumerate(mixture.records)
    ]
    # Every batch has its shares, unless it is too small for the smallest of them.
    units_a_batch = max(1, config.batch_size // orders[0].unit_size)
    weights = mixture.weights
    block = units_a_batch if weights is None else smallest_block(weights, multiple_of=units_a_batch)
    return Sampler(MixtureOrder(orders, weights=weights, block=block, seed=config.seed), batch_size=config.batch_size)


def sampled_records(config: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray) -> np.ndarray:
    """Returns the records that `make_sampler` draws from: `int64[n]`, ascending.

    Args:
        config: Config of the run.
        recordings: Recordings that it opens.
        records: Record numbers of one side of the split, `int64[n]`.
    """
    mixture = _mixture(config, recordings, records)
    return records if mixture is None else np.unique(np.concatenate(mixture.records))


def patients_with_others(
    config: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray
) -> tuple[int, int]:
    """Returns how many patients have two or more of the records that `make_sampler` draws from, and how many there are.

    Units of several records are of one component of a mixture: a patient counts in each component that has records of
    theirs, and only with these. Where records are drawn one by one, any two of a patient may meet in a batch.

    Args:
        config: Config of the run.
        recordings: Recordings that it opens.
        records: Record numbers of one side of the split, `int64[n]`.
    """
    mixture = _mixture(config, recordings, records)
    units = config.sampling.name == "patients" and config.sampling.records_per_patient > 1
    apart = mixture.records if mixture is not None and units else (sampled_records(config, recordings, records),)
    counts = [np.unique(recordings.index.group[own], return_counts=True)[1] for own in apart]
    return sum(int(np.count_nonzero(count > 1)) for count in counts), sum(len(count) for count in counts)


def describe_sampling(config: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray) -> list[str]:
    """Returns a line for people on every component that is mixed, and on what is left out; none where nothing is mixed.

    Args:
        config: Config of the run.
        recordings: Recordings that it opens.
        records: Record numbers of one side of the split, `int64[n]`.
    """
    mixture = _mixture(config, recordings, records)
    if mixture is None:
        return []
    weights = np.ones(len(mixture.titles)) if mixture.weights is None else np.array(mixture.weights)
    lines = [
        f"{title}: {share:.3g} of every batch from {len(own):,} recordings"
        for title, own, share in zip(mixture.titles, mixture.records, weights / weights.sum(), strict=True)
    ]
    if mixture.without_label:
        lines.append(f"{mixture.without_label:,} recordings without the label are left out")
    return lines


def _order(config: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray, *, seed: int) -> Order:
    name = config.sampling.name
    if name == "records":
        return RecordOrder(records, seed=seed)
    if name == "patients":
        return PatientOrder(
            records,
            patients=recordings.index.group[records],
            records_per_patient=config.sampling.records_per_patient,
            seed=seed,
        )
    raise ConfigError(f"config.sampling.name={name!r} is unknown; there are: records, patients")


def _mixture(config: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray) -> _Mixture | None:
    weights, balance = tuple(config.data.weights), config.sampling.balance
    if weights and balance.label:
        raise ConfigError(
            "config.data.weights and config.sampling.balance.label both say how often a recording is drawn; give one"
        )
    if weights:
        return _by_dataset(weights, recordings, records)
    if balance.label:
        return _by_class(balance, recordings, records)
    return None


def _by_dataset(weights: tuple[float, ...], recordings: Recordings, records: np.ndarray) -> _Mixture:
    directories = tuple(str(dataset.directory) for dataset in recordings.datasets)
    if len(weights) != len(directories):
        raise ConfigError(
            f"config.data.weights={weights} are {len(weights)} for {len(directories)} data sets "
            f"({', '.join(directories)}); give one for each, or () to draw every recording equally often"
        )
    parts = recordings.by_dataset(records)
    for directory, own in zip(directories, parts, strict=True):
        if not len(own):
            raise DataError(
                f"{directory}: no record of it is on this side of the split, so it can have no weight; give other folds"
            )
    return _Mixture(titles=directories, records=tuple(parts), weights=weights)


def _by_class(balance: ml_collections.ConfigDict, recordings: Recordings, records: np.ndarray) -> _Mixture:
    values = recordings.index.label(balance.label)[records]
    if balance.rule == CLASSES:
        if balance.threshold is not None:
            raise ConfigError(f"config.sampling.balance.rule={CLASSES!r} takes no threshold")
        if not (np.isnan(values) | (values == np.rint(values))).all():
            raise DataError(
                f"label {balance.label!r} has values that are no whole numbers, and so no classes: set "
                "config.sampling.balance.rule to 'below' or 'above' and a threshold"
            )
    else:
        task = BinaryTask(
            label=balance.label, rule=balance.rule, threshold=balance.threshold, section="config.sampling.balance"
        )
        values = task.answer(values)
    classes = np.unique(values[~np.isnan(values)])
    without = int(np.isnan(values).sum())
    if len(classes) < 2:
        raise DataError(
            f"of {len(records):,} records {without:,} have no label {balance.label!r} and the others are all of "
            f"{'one class' if len(classes) else 'no class'}; there is nothing to balance"
        )
    return _Mixture(
        titles=tuple(f"{balance.label} = {label:g}" for label in classes),
        records=tuple(records[values == label] for label in classes),
        without_label=without,
    )
