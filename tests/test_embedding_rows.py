"""Rows of embeddings: their order, and what is known of each."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from ecgjax.embedding_rows import Layout, check_positives, embedding_rows, patient_pairs
from ecgjax.errors import ConfigError


def test_rows_of_a_recording_stand_together_leads_fastest():
    layout = Layout(segments=2, views=3, lead_groups=4)
    batch = {
        "signal": jnp.zeros((2, 5, 8), jnp.int16),
        "paired": jnp.zeros((2, 7)),
        "row": jnp.array([4, 5], jnp.int32),
        "record": jnp.array([70, 90], jnp.int32),
        "patient": jnp.array([7, 9], jnp.int32),
        "valid": jnp.array([True, False]),
        "physiology": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
    }
    rows = embedding_rows(batch, layout)
    assert layout.signals == 6
    assert layout.rows == 24
    expected = [
        (number * 24 + i, record, patient, i, segment, lead, valid)
        for number, record, patient, valid in ((4, 70, 7, True), (5, 90, 9, False))
        for i, (segment, lead) in enumerate((s, g) for s in range(2) for _ in range(3) for g in range(4))
    ]
    names = ("row", "record", "patient", "view", "segment", "lead", "valid")
    for name, column in zip(names, zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(getattr(rows, name), column, err_msg=name)
    np.testing.assert_array_equal(rows.physiology, np.repeat([[1, 2], [3, 4]], 24, axis=0))
    assert rows.label is None


def test_a_plain_pair_of_views_has_one_segment_and_one_group():
    ids = jnp.arange(3, dtype=jnp.int32)
    rows = embedding_rows({"row": ids, "record": ids, "patient": ids, "valid": ids >= 0}, Layout())
    np.testing.assert_array_equal(rows.row, np.arange(6))
    np.testing.assert_array_equal(rows.view, [0, 1] * 3)
    np.testing.assert_array_equal(rows.segment, np.zeros(6))
    np.testing.assert_array_equal(rows.lead, np.zeros(6))


def config_of(relation, *, miner=None, weight=1.0):
    return ConfigDict({"relation": {"name": relation}, "miner": {"name": miner}, "objective": {"weight": weight}})


@pytest.mark.parametrize(
    ("relation", "none", "some"),
    [
        ("same_record", Layout(views=1), Layout(views=2)),
        ("other_segment", Layout(views=2, lead_groups=8), Layout(segments=2, views=1)),
        ("other_lead", Layout(segments=2, views=2), Layout(views=1, lead_groups=2)),
        ("other_segment_or_lead", Layout(views=2), Layout(segments=2, views=1)),
    ],
)
def test_a_relation_without_any_positive_is_refused(relation, none, some):
    with pytest.raises(ConfigError, match=f"config.relation.name='{relation}' finds no positive: a recording becomes"):
        check_positives(config_of(relation), none)
    check_positives(config_of(relation), some)
    check_positives(config_of(relation, miner="label_distance"), none)
    check_positives(config_of(relation, weight=0.0), none)


def test_relations_between_recordings_need_no_second_row():
    for relation in ("same_patient", "same_label", None):
        check_positives(config_of(relation), Layout(views=1))


def test_pairs_of_a_patient_are_counted_among_readable_recordings():
    rng = np.random.default_rng(3)
    for _ in range(20):
        patient, valid = rng.integers(0, 6, 17).astype(np.int32), rng.random(17) < 0.7
        expected = sum(
            patient[i] == patient[j] and valid[i] and valid[j] for i in range(17) for j in range(i)
        )  # fmt: skip
        assert float(patient_pairs(jnp.asarray(patient), jnp.asarray(valid))) == expected
    assert float(patient_pairs(jnp.arange(4, dtype=jnp.int32), jnp.ones(4, bool))) == 0
    assert float(patient_pairs(jnp.zeros(4, jnp.int32), jnp.zeros(4, bool))) == 0
