"""Draws random numbers as a pure function of seed, patient, visit and name, whatever records are drawn together.

The draws are counter-based: no generator has a state that would depend on what was drawn before, and every quantity has
a name, so that adding a quantity does not change the draws of the others.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """Uniform and normal draws for `n` records; a draw is either the same at all visits of a patient or new at each."""

    def __init__(self, *, seed: int, patient: np.ndarray, visit: np.ndarray, site: str = ""):
        """Derives the keys of the draws.

        Args:
            seed: Seed of the cohort, 0 … 2⁶³ − 1.
            patient: Number of the patient of each record, `int64[n]`.
            visit: Number of the visit of each record, `int64[n]`, 0 for a patient's first.
            site: Name of the site, by which patients of one seed and number are other people; empty for none.
        """
        origin = np.full(len(patient), seed, np.uint64)
        if site:
            origin = _mix(origin) ^ _hash(site)
        of_patient = _mix(_mix(origin) + patient.astype(np.uint64))
        self._keys = {"patient": of_patient, "visit": _mix(of_patient + visit.astype(np.uint64) + np.uint64(1))}
        self._claimed: set[tuple[str, str]] = set()

    def lasting_uniform(self, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Draws from U(0, 1), equal at all visits of a patient: `f64[n, *shape]`."""
        return _uniform(self._claim("patient", name), name, shape)

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Draws from U(0, 1), anew at each visit: `f64[n, *shape]`."""
        return _uniform(self._claim("visit", name), name, shape)

    def lasting_normal(self, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Draws from N(0, 1), equal at all visits of a patient: `f64[n, *shape]`."""
        return ndtri(self.lasting_uniform(name, shape))

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Draws from N(0, 1), anew at each visit: `f64[n, *shape]`."""
        return ndtri(self.uniform(name, shape))

    def correlated_normal(self, name: str, *, correlation: float) -> np.ndarray:
        """Draws from N(0, 1), with the given correlation between two visits of a patient: `f64[n]`."""
        lasting, passing = self.lasting_normal(name), self.normal(name)
        return np.sqrt(correlation) * lasting + np.sqrt(1 - correlation) * passing

    def generator_keys(self, name: str) -> np.ndarray:
        """Returns the keys of one `np.random.Philox` for each record: `uint64[n, 2]`."""
        return _words(self._claim("visit", name), name, 2)

    def _claim(self, level: str, name: str) -> np.ndarray:
        """Returns the keys of a level, `uint64[n]`, and remembers that the name was used.

        Args:
            level: Level of the draw, `"patient"` or `"visit"`.
            name: Name of the quantity.

        Raises:
            ValueError: The name was used before on this level; it would give the same numbers again.
        """
        if (level, name) in self._claimed:
            raise ValueError(f"'{name}' was drawn before for each {level}; give this quantity a name of its own")
        self._claimed.add((level, name))
        return self._keys[level]


def _uniform(keys: np.ndarray, name: str, shape: tuple[int, ...]) -> np.ndarray:
    words = _words(keys, name, int(np.prod(shape, dtype=np.int64)))
    # Draws have 53 bits, and half a step off both ends, since the normal quantile of 0 or 1 is infinite.
    return ((words >> np.uint64(11)) + 0.5).reshape(len(keys), *shape) * 2.0**-53


def _words(keys: np.ndarray, name: str, count: int) -> np.ndarray:
    """Returns `uint64[n, count]` from SplitMix64 (Steele, Lea & Flood 2014), started at a hash of key and name."""
    start = _mix(keys ^ _hash(name))
    return _mix(start[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def _hash(name: str) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), "<u8")


def _mix(words: np.ndarray) -> np.ndarray:
    words = words + _GOLDEN
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
