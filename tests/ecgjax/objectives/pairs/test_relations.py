"""Every relation against its rule, pair by pair in plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs.relations import RELATIONS, WITHIN_RECORDING
from tests.support.objective_cases import make_rows

NUM = 48
NAN = np.nan


def random_rows(seed, *, known=0.7, valid=0.8):
    """Metadata in which ids meet often, of one record in all its rows; some of it is not known."""
    generator = np.random.default_rng(seed)
    of_row = generator.integers(0, 14, NUM)  # which record a row shows
    patient = generator.integers(0, 6, 14)
    label = np.where(generator.random(14) < known, generator.integers(0, 3, 14), NAN)
    cluster = np.where(generator.random(14) < known, generator.integers(0, 3, 14), -1)
    sex = np.where(generator.random(14) < known, generator.integers(0, 2, 14), -1)
    age = np.where(generator.random(14) < known, generator.integers(40, 55, 14), NAN)
    physiology = generator.normal(size=(14, 4))
    physiology[generator.random(14) >= known] = NAN
    physiology[3, 1:] = NAN  # known in part is not known
    physiology[5] = 0  # no direction
    nearest = np.where(generator.random(NUM) < known, generator.integers(0, NUM, NUM), -1)
    other = np.random.default_rng([seed, 1])
    neighbours = np.where(other.random((14, 3)) < known, other.integers(0, 14, (14, 3)), -1)
    neighbours[other.random(14) >= known] = -1
    return make_rows(
        of_row,
        patient[of_row],
        generator.integers(0, 4, NUM),
        generator.random(NUM) < valid,
        segment=generator.integers(0, 3, NUM),
        lead=generator.integers(0, 3, NUM),
        neighbours=neighbours[of_row],
        label=label[of_row],
        cluster=cluster[of_row],
        sex=sex[of_row],
        age=age[of_row],
        physiology=physiology[of_row],
        nearest=nearest,
        nearest_record=np.where(nearest >= 0, of_row[nearest], -1),
        shown=generator.integers(-1, 3, NUM),
    )


#: What a rule says of two valid, different rows a and b.
POSITIVE, NEGATIVE, LEFT_OUT = "positive", "negative unless of one patient", "left out"


def if_(condition):
    return POSITIVE if condition else NEGATIVE


def matched(a, b, *, known, same):
    """Rules about records that may not be known of some: views of one record match in any case."""
    if a["record"] == b["record"]:
        return POSITIVE
    return if_(same()) if known else LEFT_OUT


def physiology_rule(a, b, min_cosine=0.25):
    def cosine():
        x, y = (r["physiology"].astype(np.float64) for r in (a, b))
        norms = np.sqrt((x @ x) * (y @ y))
        return x @ y / norms if norms > 0 else 0.0

    known = not (np.isnan(a["physiology"]).any() or np.isnan(b["physiology"]).any())
    return matched(a, b, known=known, same=lambda: cosine() >= min_cosine)


def demographics_rule(a, b, max_years=5.0):
    known = a["sex"] != -1 and b["sex"] != -1 and not np.isnan(a["age"]) and not np.isnan(b["age"])
    return matched(a, b, known=known, same=lambda: a["sex"] == b["sex"] and abs(a["age"] - b["age"]) <= max_years)


def neighbour_rule(a, b, either=True):
    near, near_to = b["record"] in a["neighbours"], a["record"] in b["neighbours"]
    known = a["neighbours"].max() >= 0 and b["neighbours"].max() >= 0
    return matched(a, b, known=known and (either or near or not near_to), same=lambda: near or (either and near_to))


RULES = {
    "same_record": lambda a, b: if_(a["record"] == b["record"]),
    "same_patient": lambda a, b: if_(a["patient"] == b["patient"]),
    "other_segment": lambda a, b: if_(
        a["record"] == b["record"] and a["segment"] != b["segment"] and a["lead"] == b["lead"]
    ),
    "other_lead": lambda a, b: if_(
        a["record"] == b["record"] and a["segment"] == b["segment"] and a["lead"] != b["lead"]
    ),
    "other_segment_or_lead": lambda a, b: if_(
        a["record"] == b["record"] and (a["segment"], a["lead"]) != (b["segment"], b["lead"])
    ),
    "similar_physiology": physiology_rule,
    "same_cluster": lambda a, b: matched(
        a, b, known=-1 not in (a["cluster"], b["cluster"]), same=lambda: a["cluster"] == b["cluster"]
    ),
    "same_demographics": demographics_rule,
    "same_label": lambda a, b: matched(
        a,
        b,
        known=not np.isnan(a["label"]) and not np.isnan(b["label"]),
        same=lambda: a["label"] == b["label"],
    ),
    "nearest_signal": lambda a, b: (
        LEFT_OUT
        if a["nearest"] >= 0
        and b["row"] != a["nearest"]
        and (b["row"] - b["view"] == a["nearest"] - a["view"] or b["record"] == a["nearest_record"])
        else if_(a["nearest"] == b["row"])
    ),
    "nearest_in_dataset": neighbour_rule,
}


def by_rule(rule, rows, negatives_differ_in="patient"):
    """`bool[rows, rows]` positives and negatives."""
    arrays = {name: np.asarray(x) for name, x in rows._asdict().items() if x is not None}
    one = [{name: x[i] for name, x in arrays.items()} for i in range(len(arrays["row"]))]
    positive, negative = (np.zeros((len(one), len(one)), bool) for _ in range(2))
    for i, a in enumerate(one):
        for j, b in enumerate(one):
            if i == j or not a["valid"] or not b["valid"]:
                continue
            verdict = rule(a, b)
            itself = a["record"] == b["record"] and a["shown"] == b["shown"] != -1
            positive[i, j] = verdict == POSITIVE and not itself
            negative[i, j] = verdict == NEGATIVE and a[negatives_differ_in] != b[negatives_differ_in]
    return positive, negative


ROWS = {
    "random": random_rows(0),
    "nothing known": random_rows(1, known=0.0),
    "all known": random_rows(2, known=1.0),
    "nothing valid": random_rows(3, valid=0.0),
}


def test_every_relation_has_a_rule():
    assert set(RULES) == set(RELATIONS)


@pytest.mark.parametrize("name", RULES)
def test_equals_its_rule(name):
    relation = jax.jit(RELATIONS[name])
    for case, rows in ROWS.items():
        found = relation(rows, rows)
        positive, negative = by_rule(RULES[name], rows)
        np.testing.assert_array_equal(found.positive, positive, err_msg=case)
        np.testing.assert_array_equal(found.negative, negative, err_msg=case)
        same_patient = np.asarray(rows.patient)[:, None] == np.asarray(rows.patient)[None, :]
        assert not (np.asarray(found.negative) & same_patient).any()
        if case in ("random", "all known"):
            assert positive.any(), "a rule that never says positive shows nothing"
            assert negative.any()


@pytest.mark.parametrize("name", WITHIN_RECORDING)
def test_other_recordings_of_a_patient_are_negatives_where_they_are_asked_for(name):
    relation = jax.jit(functools.partial(RELATIONS[name], others_of_patient="negative"))
    for case, rows in ROWS.items():
        found = relation(rows, rows)
        positive, negative = by_rule(RULES[name], rows, negatives_differ_in="record")
        np.testing.assert_array_equal(found.positive, positive, err_msg=case)
        np.testing.assert_array_equal(found.negative, negative, err_msg=case)
        if case != "nothing valid":
            patient = np.asarray(rows.patient)
            assert (negative & (patient[:, None] == patient[None, :])).any(), case
    # One patient only: all other recordings are negatives, and one drawn twice is none of its own.
    rows = make_rows([0, 0, 1, 1, 0], [7] * 5, segment=[0, 1, 0, 1, 0], lead=[0, 1, 0, 1, 0])
    negative = np.array([[0, 0, 1, 1, 0]] * 2 + [[1, 1, 0, 0, 1]] * 2 + [[0, 0, 1, 1, 0]], bool)
    np.testing.assert_array_equal(relation(rows, rows).negative, negative)
    with pytest.raises(
        ConfigError, match=r"config.relation.others_of_patient='near' is unknown; there are: left_out, n"
    ):
        RELATIONS[name](rows, rows, others_of_patient="near")


@pytest.mark.parametrize(
    ("name", "rule", "settings"),
    [
        ("similar_physiology", physiology_rule, {"min_cosine": -0.3}),
        ("similar_physiology", physiology_rule, {"min_cosine": 0.9}),
        ("same_demographics", demographics_rule, {"max_years": 0.0}),
        ("same_demographics", demographics_rule, {"max_years": 30.0}),
        ("nearest_in_dataset", neighbour_rule, {"either": False}),
    ],
)
def test_settings_of_a_relation(name, rule, settings):
    found = RELATIONS[name](ROWS["all known"], ROWS["all known"], **settings)
    positive, negative = by_rule(functools.partial(rule, **settings), ROWS["all known"])
    np.testing.assert_array_equal(found.positive, positive)
    np.testing.assert_array_equal(found.negative, negative)
    assert (positive != by_rule(rule, ROWS["all known"])[0]).any()


def test_other_views_of_the_nearest_recording_are_no_negatives():
    rows = make_rows([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [0, 1] * 3, nearest=[2, 3, 0, 1, -1, -1])
    pairs = RELATIONS["nearest_signal"](rows, rows)
    np.testing.assert_array_equal(pairs.positive[0], [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(pairs.negative[0], [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(pairs.negative[5], [1, 1, 1, 1, 0, 0], err_msg="no nearest")


@pytest.mark.parametrize("name", RELATIONS)
def test_a_recording_shown_again_in_the_same_way_is_no_pair(name):
    # Of records 0 (three times), 1 (twice) and 2, all of one answer, one patient each; the third row was augmented.
    record = np.array([0, 0, 0, 1, 1, 2])
    same = {"label": 0 * record, "cluster": 0 * record, "sex": 0 * record, "age": 50 + 0 * record}
    same |= {"physiology": np.ones((6, 3)), "segment": 0 * record, "lead": 0 * record}
    same |= {"neighbours": np.array([[1, 2], [0, -1], [0, 1]])[record]}
    rows = make_rows(record, record, **same, nearest=[3, 3, 3, 5, 5, 0], nearest_record=[1, 1, 1, 2, 2, 0])
    without = RELATIONS[name](rows, rows)
    pairs = RELATIONS[name](*[rows._replace(shown=jnp.asarray([0, 0, -1, 0, 0, 0], jnp.int32))] * 2)
    itself = np.zeros((6, 6), bool)
    itself[[0, 1, 3, 4], [1, 0, 4, 3]] = True
    assert not np.any(pairs.positive & itself)
    assert not np.any(pairs.negative & itself)
    np.testing.assert_array_equal(pairs.positive, without.positive & ~itself)
    np.testing.assert_array_equal(pairs.negative, without.negative)


def test_the_nearest_recording_drawn_twice_is_one_positive_and_no_negative():
    rows = make_rows([0, 1, 1, 2], [0, 1, 1, 2], nearest=[1, 3, 3, 1], nearest_record=[1, 2, 2, 1])
    pairs = RELATIONS["nearest_signal"](rows, rows)
    np.testing.assert_array_equal(pairs.positive[0], [0, 1, 0, 0])
    np.testing.assert_array_equal(pairs.negative[0], [0, 0, 0, 1])


def test_anchors_and_keys_may_be_different_rows():
    rows = ROWS["random"]
    some = jax.tree.map(lambda x: x[5:19], rows)
    for name, relation in RELATIONS.items():
        everything, part = relation(rows, rows), relation(some, rows)
        np.testing.assert_array_equal(part.positive, everything.positive[5:19], err_msg=name)
        np.testing.assert_array_equal(part.negative, everything.negative[5:19], err_msg=name)


@pytest.mark.parametrize("name", sorted(set(RELATIONS) - {"same_record", "same_patient"}))
def test_what_the_rows_do_not_carry_is_said(name):
    bare = make_rows([0, 0, 1], [0, 0, 1])
    with pytest.raises(ConfigError, match="which the rows of this run do not carry"):
        RELATIONS[name](bare, bare)
