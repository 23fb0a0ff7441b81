"""Defines orders in which records are drawn: endless streams of units with random access to every position.

A unit is one record, or several records of one patient that are drawn into adjacent rows. A stream runs through epoch
after epoch without a gap, and every epoch is whole. An order has no state, so that a run that is resumed, or is spread
over another number of processes, draws the same records.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.streaming.permutation import MAX_SIZE, derive_key, permute

#: Version of the orders below, which is part of every fingerprint.
SAMPLING_VERSION = 1

#: Number of parts to which weights are rounded where they are no ratios of small numbers.
MAX_TICKS = 2**31

# These words derive the keys of an epoch's branches.
_ORDER_OF_UNITS, _ORDER_WITHIN_PATIENT = 0, 1

# These words derive the keys of a mixture's branches; negative ones are far from the numbers of epochs.
_SLOTS, _COMPONENTS = -1, -2

# A component may get so many units less in a block than its share, since differences of rounded sums are rounded four
# times.
_MIN_UNITS_A_BLOCK = 2

# So many numbers are hashed at a time, so that a fingerprint of a hundred million records takes little memory.
_HASH_BLOCK = 2**20


class Order(Protocol):
    """An endless stream of units.

    Attributes:
        unit_size: Number of records of a unit.
        units_per_epoch: Number of units of an epoch, in which every record is drawn as often as the order's class says.
    """

    unit_size: int
    units_per_epoch: int

    def units(self, positions: np.ndarray) -> np.ndarray:
        """Returns the record numbers of the units at some positions of the stream; a pure function.

        Args:
            positions: Positions in the stream, `int64[n]`, from 0, in any order.

        Returns:
            Record numbers of the units, `int64[n, unit_size]`.
        """

    def fingerprint(self) -> str:
        """Returns a digest of everything that `units` depends on, as hexadecimal text."""


class RecordOrder:
    """Order in which every record is drawn once in an epoch, in a new random order each epoch."""

    unit_size = 1

    def __init__(self, records: np.ndarray, *, seed: int):
        """Makes the order.

        Args:
            records: Record numbers to draw from, `int64[m]`.
            seed: Seed of the orders.

        Raises:
            DataError: There are no records.
        """
        self._records = small(checked_records(records))
        self._seed = seed
        self.units_per_epoch = len(self._records)

    def units(self, positions: np.ndarray) -> np.ndarray:
        """Returns the record numbers of units, `int64[n, 1]`, as `Order.units` describes."""
        epoch, position = np.divmod(positions, self.units_per_epoch)
        chosen = permute(position, size=self.units_per_epoch, key=derive_key(self._seed, one_if_equal(epoch)))
        return self._records[chosen].astype(np.int64)[:, None]

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `units` depends on."""
        return fingerprint("records", self._seed, self._records)


class PatientOrder:
    """Order of units of `records_per_patient` records of one patient.

    An epoch cuts each patient's n records, in an order of their own, into ⌈n / k⌉ units of k; the last unit wraps
    around to the patient's first ones. So in an epoch each record of the patient is drawn ⌊u·k / n⌋ or ⌈u·k / n⌉ times,
    with u = ⌈n / k⌉: once or twice where n ≥ k. Records within a unit are distinct where n ≥ k; a patient with fewer
    repeats them. Units of all patients are put in one random order each epoch.
    """

    def __init__(self, records: np.ndarray, *, patients: np.ndarray, records_per_patient: int, seed: int):
        """Groups the records by patient.

        Args:
            records: Record numbers to draw from, `int64[m]`.
            patients: Patient of each record, `int[m]`.
            records_per_patient: Number k of records of a unit.
            seed: Seed of the orders.

        Raises:
            DataError: There are no records, patients have another length, or k is below one.
        """
        records, patients = checked_records(records), np.asarray(patients)
        if patients.shape != records.shape:
            raise DataError(f"{len(patients)} patients given for {len(records)} records; give the patient of each")
        if records_per_patient < 1:
            raise DataError(f"records_per_patient={records_per_patient}; it must be at least 1")
        by_patient = np.argsort(patients, kind="stable")
        self._records = small(records[by_patient])
        first = np.flatnonzero(np.diff(patients[by_patient], prepend=patients[by_patient][0] - 1))
        # There is one entry more than there are patients, so that differences are the patients' numbers of records.
        self._first = small(np.append(first, len(records)))
        units = -(-np.diff(self._first) // records_per_patient)
        # This is the number of each patient's first unit.
        self._first_unit = small(np.cumsum(units, dtype=np.int64) - units)
        self._seed = seed
        self.unit_size = records_per_patient
        self.units_per_epoch = int(units.sum(dtype=np.int64))

    def units(self, positions: np.ndarray) -> np.ndarray:
        """Returns the record numbers of units, `int64[n, unit_size]`, as `Order.units` describes."""
        k = self.unit_size
        epoch, position = np.divmod(positions, self.units_per_epoch)
        key = derive_key(self._seed, one_if_equal(epoch))
        unit = permute(position, size=self.units_per_epoch, key=derive_key(key, _ORDER_OF_UNITS))
        # The units have the type of the array searched, which NumPy would otherwise convert as a whole.
        patient = np.searchsorted(self._first_unit, unit.astype(self._first_unit.dtype), side="right") - 1
        start_in_patient = (unit - self._first_unit[patient]) * k
        patient_key = derive_key(derive_key(key, _ORDER_WITHIN_PATIENT), patient)
        first = self._first[patient].astype(np.int64)
        count = np.repeat(self._first[patient + 1] - first, k)
        slot = (start_in_patient[:, None] + np.arange(k)).ravel() % count
        chosen = permute(slot, size=count, key=np.repeat(patient_key, k))
        return self._records[np.repeat(first, k) + chosen].astype(np.int64).reshape(-1, k)

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `units` depends on."""
        return fingerprint("patients", self._seed, self.unit_size, self._records, self._first)


class MixtureOrder:
    """Several orders (components) in one stream, each with a share of every block of units, shuffled in the block.

    With weights, component d has N_d(b) = ⌊b·B·W_d⌋ − ⌊b·B·W_{d−1}⌋ units before block b, where B is the number of
    units of a block and W_d the sum of the shares up to d's: its number of units in any whole blocks is its share to
    within one unit, and in a single block to within two. With equal shares the component of the p-th unit, before it is
    moved within its block, is p modulo the number n of components, so that every block holds ⌊B / n⌋ or ⌈B / n⌉ units
    of each, and the components take turns in having one more.

    A component's units follow each other as in its own stream, so its own epochs stay whole. An epoch of the mixture is
    only
    a number of units: the sum of the components' epochs. In that time, a component with a larger share than its size is
    drawn more than once, and another one not completely.
    """

    def __init__(self, orders: Sequence[Order], *, weights: Sequence[float] | None = None, block: int, seed: int):
        """Keeps the components and their shares.

        Args:
            orders: Orders of units of one size, each with a seed of its own (`component_seed`).
            weights: Shares of the components, in any unit; None for equal shares. Shares that are no ratios of small
                numbers are rounded to multiples of 1 / `MAX_TICKS`.
            block: Number of units of a block; with unequal weights it holds at least two of every component, which
                `smallest_block` ensures.
            seed: Seed of the order within blocks.

        Raises:
            DataError: There are no orders, units differ in size, weights are no shares, or the block is too small.
        """
        if not orders:
            raise DataError("a mixture needs at least one component")
        if len({order.unit_size for order in orders}) != 1:
            raise DataError(f"units of {', '.join(str(order.unit_size) for order in orders)} records cannot be mixed")
        if weights is not None and len(weights) != len(orders):
            raise DataError(f"{len(weights)} weights given for {len(orders)} components; give one for each")
        self._ticks = _ticks([1] * len(orders) if weights is None else weights)
        if not 1 <= block <= MAX_SIZE:
            raise DataError(f"a block of {block} units is not possible; it must have 1 … 2**48")
        if block < (least := _least_block(self._ticks)):
            raise DataError(
                f"a block of {block} units holds less than {_MIN_UNITS_A_BLOCK} of the component of the smallest "
                f"weight; it must have at least {least}"
            )
        self._orders, self._block, self._seed = tuple(orders), block, seed
        self.unit_size = orders[0].unit_size
        self.units_per_epoch = sum(order.units_per_epoch for order in orders)

    def units(self, positions: np.ndarray) -> np.ndarray:
        """Returns the record numbers of units, `int64[n, unit_size]`, as `Order.units` describes."""
        units = np.empty((len(positions), self.unit_size), np.int64)
        component, position = self.components(positions)
        # A sort of small integers groups the components, so that a thousand classes cost no more than two.
        of_components = np.argsort(component, kind="stable")
        ends = np.cumsum(np.bincount(component, minlength=len(self._orders)))
        for order, at in zip(self._orders, np.split(of_components, ends[:-1]), strict=True):
            if len(at):
                units[at] = order.units(position[at])
        return units

    def components(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the component of the unit at each position of the stream, and the unit's position in the component.

        Args:
            positions: Positions in the stream, `int64[n]`, from 0, in any order.

        Returns:
            Number of the component, `uint[n]`, and position, `int64[n]`.
        """
        block, slot = np.divmod(np.asarray(positions, np.int64), self._block)
        blocks, which = np.unique(block, return_inverse=True)
        before, after = self._units_before(blocks), self._units_before(blocks + 1)
        # These are the ends of the components' parts of a block before it is shuffled.
        ends = np.cumsum(after - before, axis=1)
        key = derive_key(derive_key(self._seed, _SLOTS), one_if_equal(block))
        place = permute(slot, size=self._block, key=key)
        offsets = np.arange(len(blocks))[:, None] * self._block
        found = np.searchsorted((offsets + ends).ravel(), which * self._block + place, side="right")
        component = found - which * len(self._orders)
        small = component.astype(np.min_scalar_type(len(self._orders)))
        return small, after[which, component] - ends[which, component] + place

    def fingerprint(self) -> str:
        """Returns a hex digest of everything that `units` depends on."""
        components = [order.fingerprint() for order in self._orders]
        return fingerprint("mixture", self._seed, self._block, *self._ticks, *components)

    def _units_before(self, blocks: np.ndarray) -> np.ndarray:
        """Returns the number of units of each component before the beginning of blocks, `int64[blocks, component]`.

        Args:
            blocks: Numbers of the blocks, `int64[blocks]`, from 0.
        """
        units = blocks[:, None] * self._block
        if len(set(self._ticks)) == 1:
            count = len(self._ticks)
            return (units + np.arange(count)[::-1]) // count
        bounds, total = np.cumsum(self._ticks), sum(self._ticks)
        # ⌊units · bounds / total⌋ is computed without a product beyond 64 bits.
        up_to = units // total * bounds + units % total * bounds // total
        return np.diff(up_to, axis=1, prepend=0)


def component_seed(seed: int, component: int) -> int:
    """Returns the seed of a mixture's component, so that components of equal size have different orders.

    Args:
        seed: Seed of the mixture.
        component: Number of the component, from 0.
    """
    return int(derive_key(derive_key(seed, _COMPONENTS), component)[0])


def smallest_block(weights: Sequence[float], *, multiple_of: int) -> int:
    """Returns the smallest block, in units, that `MixtureOrder` accepts with these weights and that a number divides.

    Args:
        weights: Shares of the components, in any unit.
        multiple_of: Divisor of the block, such as the units of a batch, so that every batch has its shares.

    Raises:
        DataError: The weights are no shares.
    """
    return -(-_least_block(_ticks(weights)) // multiple_of) * multiple_of


def fingerprint(kind: str, *parts: int | str | np.ndarray) -> str:
    """Returns a hexadecimal digest of integers, texts and vectors of integers; the integers' dtype does not matter.

    Args:
        kind: Name of what is digested.
        *parts: Values that the digest depends on, in this order.
    """
    digest = hashlib.blake2b(f"{kind} {SAMPLING_VERSION}".encode(), digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"[{len(part)}]".encode())
            for start in range(0, len(part), _HASH_BLOCK):
                digest.update(np.ascontiguousarray(part[start : start + _HASH_BLOCK], "<i8").data)
        else:
            digest.update(f" {part}".encode())
    return digest.hexdigest()


def _ticks(weights: Sequence[float]) -> tuple[int, ...]:
    """Returns weights as integers whose ratios are those of the weights and whose sum is at most `MAX_TICKS`.

    Where no such integers exist, the ratios are rounded.

    Raises:
        DataError: A weight is not a finite number above 0, or too small beside the others.
    """
    if not len(weights) or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise DataError(f"weights are {', '.join(map(str, weights)) or 'none'}; each must be a number above 0")
    # A weight is taken by its shortest decimal form: .1 is a tenth, not the binary fraction next to it.
    exact = [Fraction(repr(float(weight))) for weight in weights]
    common = math.lcm(*(weight.denominator for weight in exact))
    ticks = [int(weight * common) for weight in exact]
    divisor = math.gcd(*ticks)
    ticks = [tick // divisor for tick in ticks]
    total = sum(ticks)
    if min(ticks) * MAX_TICKS < total:
        raise DataError(
            f"weights are {', '.join(map(str, weights))}; the smallest is less than a part in {MAX_TICKS} of all: "
            "leave it out"
        )
    if total > MAX_TICKS:
        rounded = [bound * MAX_TICKS // total for bound in itertools.accumulate(ticks, initial=0)]
        ticks = [stop - start for start, stop in itertools.pairwise(rounded)]
    return tuple(ticks)


def _least_block(ticks: Sequence[int]) -> int:
    return 1 if len(set(ticks)) == 1 else -(-_MIN_UNITS_A_BLOCK * sum(ticks) // min(ticks))


def checked_records(records: np.ndarray) -> np.ndarray:
    """Returns record numbers, `int64[m]`, that are checked for their type.

    Args:
        records: Record numbers to draw from.

    Raises:
        DataError: There are no records.
        TypeError: They are no vector of integers.
    """
    records = np.asarray(records)
    if records.ndim != 1 or not np.issubdtype(records.dtype, np.integer):
        raise TypeError(f"records are a vector of record numbers, got {records.dtype}{records.shape}")
    if len(records) == 0:
        raise DataError("no records to draw from; check the folds asked for")
    return records


def small(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers that are at least 0 as int32 where all fit, else as int64; int32 takes half the memory."""
    return numbers.astype(np.int32 if numbers.max() <= np.iinfo(np.int32).max else np.int64)


def one_if_equal(numbers: np.ndarray) -> np.ndarray:
    """Returns the first number alone, `[1]`, if all are equal, which saves computation by broadcasting; else all."""
    return numbers[:1] if len(numbers) and (numbers == numbers[0]).all() else numbers
