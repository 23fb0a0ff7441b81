"""Computes random permutations with random access: any element of any epoch's order, without storing the order.

A Feistel network over pairs (i mod a, i div a) permutes 0 … a·b − 1 for a·b just above the size wanted; an element that
is mapped outside the wanted size is permuted again until it is inside (cycle walking), so that the result is an exact
permutation of the wanted size. Memory is that of the elements asked for, whatever the size.

Only integer arithmetic modulo 2⁶⁴ and a correctly rounded square root are used, so the orders are the same with every
NumPy, machine and process; tests check fixed values.

References:
    Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002 (generalised Feistel, cycle walking).
    Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (the mixing function).
"""

from __future__ import annotations

import itertools

import numpy as np

#: Largest number of elements, at which sides of the network stay far below the 32 bits that a round adds.
MAX_SIZE = 2**48

# Each round adds to one of the two sides. A large network needs eight at most; the orders of three to six elements,
# such as a patient's records, are uniform from sixteen on (measured by chi-square over all orders).
_ROUNDS = 16
_GOLDEN = 0x9E3779B97F4A7C15
_ROUND_CONSTANTS = np.array([[_GOLDEN * round_ % 2**64] for round_ in range(1, _ROUNDS + 1)], np.uint64)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_HALF = np.uint64(32)


def derive_key(key: int | np.ndarray, word: int | np.ndarray) -> np.ndarray:
    """Derives the key of a numbered branch, such as an epoch, from a key.

    Args:
        key: Integers, taken modulo 2⁶⁴; a seed or the result of another call.
        word: Integers, taken modulo 2⁶⁴, broadcast against `key`.

    Returns:
        Key of the branch, `uint64` of the broadcast shape.
    """
    return _mix(_words(key) ^ _mix(_words(word) + np.uint64(_GOLDEN)))


def permute(position: np.ndarray, *, size: int | np.ndarray, key: np.ndarray) -> np.ndarray:
    """Returns the element at each position of a random order.

    For one size and key, the positions 0 … size − 1 give every number 0 … size − 1 exactly once.

    Args:
        position: `int64[n]`, 0 ≤ position < size.
        size: Number of elements permuted; one, or `int64[n]` with a domain for every position.
        key: Key of the order, one `uint64` or `uint64[n]`, as `derive_key` returns it.

    Returns:
        Elements, `int64[n]`.

    Raises:
        ValueError: A position lies outside of its domain, or a size outside of 1 … 2⁴⁸.
    """
    position, size = np.asarray(position, np.int64), np.atleast_1d(np.asarray(size, np.int64))
    key = np.atleast_1d(np.asarray(key, np.uint64))
    position = np.broadcast_to(position, np.broadcast_shapes(position.shape, size.shape, key.shape))
    if position.size == 0:
        return np.empty(position.shape, np.int64)
    if size.min() < 1 or size.max() > MAX_SIZE:
        raise ValueError(f"sizes of permutations lie in 1 … 2**48, got {size.min()} … {size.max()}")
    if position.min() < 0 or np.any(position >= size):
        raise ValueError("positions must lie in 0 … size − 1")
    # One size or key for all positions stays one number until the end, which takes a third of the time.
    size = size.astype(np.uint64)
    columns = np.ceil(np.sqrt(size)).astype(np.uint64)
    rows = (size + columns - np.uint64(1)) // columns
    # With two odd sides every round would be an even permutation, and half of all orders would never occur.
    rows += rows % np.uint64(2)
    element = _network(position.astype(np.uint64), columns, rows, key)
    outside = np.flatnonzero(element >= size)
    while outside.size:
        own = [values if len(values) == 1 else values[outside] for values in (columns, rows, key)]
        element[outside] = _network(element[outside], *own)
        outside = outside[element[outside] >= (size if len(size) == 1 else size[outside])]
    return element.astype(np.int64)


def _network(element: np.ndarray, columns: np.ndarray, rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    row, column = np.divmod(element, columns)
    sides = ((column, row, columns), (row, column, rows))
    mixed, shifted, round_key = np.empty_like(element), np.empty_like(element), np.empty_like(key)
    # All is done in place, because at the size of a batch NumPy's time goes into making arrays.
    for constant, (side, other, length) in zip(_ROUND_CONSTANTS, itertools.cycle(sides)):
        np.add(key, constant, out=round_key)
        np.bitwise_xor(other, round_key, out=mixed)
        # This is two thirds of `_mix`; the upper half, which depends on every bit, is added.
        for multiplier in _MULTIPLIERS:
            np.right_shift(mixed, _HALF, out=shifted)
            np.bitwise_xor(mixed, shifted, out=mixed)
            np.multiply(mixed, multiplier, out=mixed)
        np.right_shift(mixed, _HALF, out=mixed)
        np.add(side, mixed, out=side)
        np.remainder(side, length, out=side)
    return row * columns + column


def _mix(value: np.ndarray) -> np.ndarray:
    """Applies the finaliser of SplitMix64, by which every output bit depends on every input bit."""
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))


def _words(values: int | np.ndarray) -> np.ndarray:
    # Values have at least one dimension, since NumPy warns of overflow only in scalars, and wrapping is intended.
    if isinstance(values, int):
        values = values % 2**64
    return np.atleast_1d(np.asarray(values)).astype(np.uint64)
