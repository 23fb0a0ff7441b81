"""Leaves of type hints and of signatures: kinds, elements, None, bounds and meanings."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import pytest

from ecgjax.settings import bounds
from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, PROBABILITY, Count, Counts, between
from ecgjax.settings.leaf import Leaf, arguments_of, described, leaf_of


def draw(
    key: int,
    ecg: object,
    *,
    rate_hz: Annotated[float, POSITIVE] = 500.0,
    num_waves: Count = 3,
    mains_hz: tuple[Annotated[float, POSITIVE], ...] = (50.0, 60.0),
    method: Literal["linear", "cubic"] = "linear",
    p: Annotated[float, PROBABILITY] | None = None,
    needed: bool,
    untold=0.5,
):
    """Draws.

    Args:
        key: Key of the draw.
        ecg: Recording.
        rate_hz: Samples a second, of
            the recording: as it is stored.
        num_waves: Number of waves.
        mains_hz: Frequencies.
        method: Way of resampling.
        p: Probability.
        needed: Whether it is.

    Returns:
        p: No argument.
    """
    return key, ecg, rate_hz, num_waves, mains_hz, method, p, needed, untold


class Waves:
    """Waves.

    Args:
        num: Number of waves.

    Attributes:
        num: Another.
    """

    def __init__(self, *, num: Count = 2, rngs=None):
        self.num, self.rngs = num, rngs


@pytest.mark.parametrize(
    ("hint", "kind", "element", "optional", "bound"),
    [
        (bool, bool, None, False, None),
        (int, int, None, False, None),
        (str | None, str, None, True, None),
        (Literal["a", "b"], str, None, False, None),
        (Annotated[float, "words", POSITIVE], float, None, False, POSITIVE),
        (Annotated[int, ONE_OR_MORE] | None, int, None, True, ONE_OR_MORE),
        (tuple[int, ...], tuple, int, False, None),
        (tuple[float, float], tuple, float, False, None),
        (tuple[Annotated[float, POSITIVE], ...] | None, tuple, float, True, POSITIVE),
        (Sequence[str], tuple, str, False, None),
        (Counts, tuple, int, False, ONE_OR_MORE._replace(fewest=1)),
        (tuple[str, float], tuple, None, False, None),
        (tuple[tuple[str, float], ...], tuple, None, False, None),
    ],
)
def test_a_hint_gives_a_leaf(hint, kind, element, optional, bound):
    found = leaf_of(hint, default=(), meaning="What it means.")
    assert found == Leaf(kind, element, (), optional, "What it means.", bound)


def test_a_bound_beside_the_hint_is_that_of_the_elements_and_the_hint_s_own_goes_first():
    assert leaf_of(tuple[float, ...], default=(), bound=POSITIVE).bound is POSITIVE
    assert leaf_of(float, default=1.0, bound=POSITIVE).bound is POSITIVE
    assert leaf_of(Annotated[float, PROBABILITY], default=1.0, bound=POSITIVE).bound is PROBABILITY


def test_what_is_none_by_default_may_be_none():
    assert leaf_of(int, default=None).optional
    assert not leaf_of(int, default=0).optional


@pytest.mark.parametrize("hint", [dict[str, int], dict, list | None, object])
def test_other_types_are_no_settings(hint):
    with pytest.raises(TypeError, match="no setting can be of the type"):
        leaf_of(hint, default=None)


def test_arguments_are_read_from_a_signature_with_meanings_and_bounds():
    leaves = arguments_of(draw, without=("key", "ecg"))
    assert leaves == {
        "rate_hz": Leaf(float, None, 500.0, False, "Samples a second, of the recording: as it is stored.", POSITIVE),
        "num_waves": Leaf(int, None, 3, False, "Number of waves.", ONE_OR_MORE),
        "mains_hz": Leaf(tuple, float, (50.0, 60.0), False, "Frequencies.", POSITIVE),
        "method": Leaf(str, None, "linear", False, "Way of resampling."),
        "p": Leaf(float, None, None, True, "Probability.", PROBABILITY),
        # An argument without a default is None until it is given.
        "needed": Leaf(bool, None, None, True, "Whether it is."),
        "untold": Leaf(float, None, 0.5, False),
    }


def test_arguments_of_a_class_are_those_of_its_making():
    assert arguments_of(Waves, without=("self", "rngs")) == {
        "num": Leaf(int, None, 2, False, "Number of waves.", ONE_OR_MORE)
    }


def test_meanings_end_where_the_arguments_do():
    assert described(Waves) == {"num": "Number of waves."}
    assert "Returns" not in " ".join(described(draw).values())
    assert described(lambda x: x) == {}


@pytest.mark.parametrize(
    ("bound", "possible", "impossible"),
    [
        (bounds.FINITE, (-1e300, 0), (math.inf, -math.inf, math.nan)),
        (bounds.ONE_OR_MORE, (1, 10**9), (0, -1, math.inf, math.nan)),
        (bounds.ZERO_OR_MORE, (0, 1e9), (-1e-9, math.inf, math.nan)),
        (bounds.POSITIVE, (1e-9, 1e9), (0, -1, math.inf, math.nan)),
        (bounds.PROBABILITY, (0, 0.5, 1), (-1e-9, 1.001, math.nan)),
        (bounds.BELOW_ONE, (0, 0.999), (1, -1e-9, math.nan)),
        (bounds.INSIDE_ONE, (1e-9, 0.999), (0, 1, 30, math.nan)),
        (bounds.SHARE, (1e-9, 1), (0, 1.001, math.nan)),
        (bounds.SEED, (-(2**63), 2**63 - 1), (2**63, -(2**63) - 1)),
        (between(0, 0.5), (0, 0.5), (-0.01, 0.51, math.nan)),
    ],
)
def test_bounds_hold_where_they_say(bound, possible, impossible):
    assert all(bound.holds(value) for value in possible)
    assert not any(bound.holds(value) for value in impossible)
    assert bound.words


def test_an_interval_says_its_ends_and_why():
    assert between(0, 180).words == "0 to 180"
    assert between(0, 0.5, "farther on the label is the partner's").words == (
        "0 to .5: farther on the label is the partner's"
    )
