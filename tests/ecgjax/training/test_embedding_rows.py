"""Rows of embeddings: their order, and what is known of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augmentations.crops import Recorded, segments_alike, segments_of
from ecgjax.augmentations.views import Shown
from ecgjax.data.settings import SamplingSettings
from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs.relations import other_segment, other_segment_or_lead, same_patient, same_record
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.training.embedding_rows import (
    Layout,
    check_positives,
    embedding_rows,
    patient_pairs,
    positives_are_other_recordings,
)
from ecgjax.training.settings import MethodSettings


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


def method_of(relation, *, miner=None, weight=1.0, loss="nt_xent"):
    return MethodSettings(
        objective=ObjectiveSettings(name=loss, weight=weight),
        relation=RelationSettings(name=relation),
        miner=MinerSettings(name=miner),
    )


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
        check_positives(method_of(relation), none)
    check_positives(method_of(relation), some)
    check_positives(method_of(relation, miner="label_distance"), none)
    check_positives(method_of(relation, weight=0.0), none)


def test_relations_between_recordings_need_no_second_row():
    for relation in ("same_patient", "same_label", None):
        check_positives(method_of(relation), Layout(views=1))


def test_pairs_of_a_patient_are_counted_among_readable_recordings():
    rng = np.random.default_rng(3)
    for _ in range(20):
        record, valid = rng.integers(0, 12, 17).astype(np.int32), rng.random(17) < 0.7
        patient = record // 2
        expected = sum(
            patient[i] == patient[j] and record[i] != record[j] and valid[i] and valid[j]
            for i in range(17)
            for j in range(i)
        )
        assert float(patient_pairs(jnp.asarray(patient), jnp.asarray(record), jnp.asarray(valid))) == expected
    one, four = jnp.zeros(4, jnp.int32), jnp.arange(4, dtype=jnp.int32)
    assert float(patient_pairs(four, four, jnp.ones(4, bool))) == 0
    assert float(patient_pairs(one, four, jnp.zeros(4, bool))) == 0
    assert float(patient_pairs(one, one, jnp.ones(4, bool))) == 0, "one recording, drawn four times"


SAME, OWN = Shown(0), Shown(-1)


def doubled(layout, **columns):
    """Rows of a batch of records 7, 8 and 7 again."""
    ids = {name: jnp.asarray(x, jnp.int32) for name, x in (("row", [0, 1, 2]), ("record", [7, 8, 7]))}
    return embedding_rows({**ids, "patient": ids["record"], "valid": ids["row"] >= 0, **columns}, layout)


def test_rows_tell_what_they_show_of_their_recording():
    assert doubled(Layout()).shown is None
    assert doubled(Layout(shown=(OWN, OWN))).shown is None, "nobody shows what another row shows: nothing to compare"
    np.testing.assert_array_equal(doubled(Layout(shown=(SAME, OWN))).shown, [0, -1] * 3)
    layout = Layout(segments=2, views=3, lead_groups=2, shown=(SAME, OWN, SAME))
    one = [[0, 1], [-1, -1], [0, 1], [6, 7], [-1, -1], [6, 7]]
    np.testing.assert_array_equal(doubled(layout).shown, np.ravel(one * 3))
    moved = doubled(Layout(shown=(SAME, Shown(0, if_moved=True))), moved=jnp.array([True, False, False]))
    np.testing.assert_array_equal(moved.shown, [0, -1, 0, 0, 0, 0])


def test_views_that_are_all_one_signal_are_refused():
    same = Layout(shown=(SAME, SAME))
    for method in (method_of("same_record"), method_of(None, loss="vicreg")):
        with pytest.raises(ConfigError, match=r"nothing is drawn for the views, which are all the same signal: enable"):
            check_positives(method, same)
        for other in ((SAME, OWN), (SAME, Shown(1)), (SAME, Shown(0, if_moved=True))):
            check_positives(method, Layout(shown=other))
    check_positives(method_of("other_segment"), Layout(segments=2, views=1, shown=(SAME,)))
    with pytest.raises(ConfigError, match=r"config\.objective\.name='vicreg' finds no positive"):
        check_positives(method_of(None, loss="vicreg"), Layout(views=1))


def test_where_positives_can_be_nothing_but_other_recordings():
    alone, drawn = Layout(views=1, shown=(SAME,)), Layout(views=1, shown=(OWN,))
    records, patients = SamplingSettings(name="records"), SamplingSettings(name="patients", records_per_patient=2)
    one_each, others = SamplingSettings(name="patients", records_per_patient=1), method_of("same_patient")
    assert positives_are_other_recordings(others, patients, alone)
    assert positives_are_other_recordings(others, records, alone)
    assert positives_are_other_recordings(others, records, drawn)
    assert not positives_are_other_recordings(others, patients, drawn), "drawn twice: two views"
    assert positives_are_other_recordings(others, one_each, drawn)
    for method in (
        method_of("same_patient", weight=0.0),
        method_of("same_patient", miner="label_distance"),
        method_of("same_record"),
        method_of("same_label"),
    ):
        assert not positives_are_other_recordings(method, records, alone)
    for layout in (Layout(shown=(OWN, OWN)), Layout(segments=2, views=1, shown=(SAME,))):
        assert not positives_are_other_recordings(others, records, layout)


#: Stored samples and, of each recording, the first recorded one and their number: of 10 s at 100 Hz 3, 5, 7 and 10 s.
STORED = 1000
RECORDED = [
    *((0, 300), (0, 500), (0, 700), (0, 1000)),
    *((250, 500), (350, 300), (700, 300), (500, 500), (300, 700), (150, 700)),
    *((0, 501), (499, 501), (0, 334), (333, 335), (620, 250), (0, 0), (400, 1)),
]


def short_recordings():
    """Signals of which no two samples are the same, zeros where nothing was recorded; a batch as a step has it."""
    start, samples = (jnp.asarray(column, jnp.int32) for column in zip(*RECORDED, strict=True))
    time = np.arange(STORED)
    inside = (time >= np.asarray(start)[:, None]) & (time < np.asarray(start + samples)[:, None])
    signal = np.where(inside, 1 + time, 0)[:, :, None].repeat(8, axis=2).astype(np.int16)
    ids = jnp.arange(len(RECORDED), dtype=jnp.int32)
    batch = dict.fromkeys(("row", "record", "patient"), ids) | {"valid": ids >= 0, "signal": jnp.asarray(signal)}
    return batch | {"valid_start": start, "valid_samples": samples}


@pytest.mark.parametrize("segments", [2, 3, 5])
def test_segments_that_show_the_same_recorded_samples_are_no_positives_of_each_other(segments):
    batch = short_recordings()
    recorded = Recorded(batch["valid_start"], batch["valid_samples"])
    parts, _ = jax.vmap(functools.partial(segments_of, segments=segments))(batch["signal"], recorded)
    shown = [[part[part[:, 0] > 0].tobytes() for part in recording] for recording in np.asarray(parts)]
    first = [[recording.index(part) for part in recording] for recording in shown]
    np.testing.assert_array_equal(segments_alike(STORED, recorded, segments=segments), first)
    alike = {RECORDED[i]: len(set(numbers)) == 1 for i, numbers in enumerate(first)}
    assert not alike[0, 700]
    assert not alike[0, 1000]
    if segments == 2:
        assert all(alike[part] for part in ((0, 300), (0, 500), (250, 500), (350, 300)))
        assert not alike[0, 501], "a sample more moves the second by one"

    layout = Layout(segments=segments, views=2, lead_groups=2, shown=(SAME, OWN))
    rows = embedding_rows(batch, layout)
    place = [(i, s, v, g) for i in range(len(RECORDED)) for s in range(segments) for v in range(2) for g in range(2)]
    # What is drawn for a view no other row shows, even of a segment that is the same.
    signal = [(shown[i][s], 0, g) if v == 0 else (s, v, g) for i, s, v, g in place]
    for relation, counts in (
        (same_record, lambda a, b: True),
        (same_patient, lambda a, b: True),
        (other_segment, lambda a, b: a[1] != b[1] and a[3] == b[3]),
        (other_segment_or_lead, lambda a, b: (a[1], a[3]) != (b[1], b[3])),
    ):
        expected = [
            [n != m and a[0] == b[0] and counts(a, b) and signal[n] != signal[m] for m, b in enumerate(place)]
            for n, a in enumerate(place)
        ]
        np.testing.assert_array_equal(relation(rows, rows).positive, expected, err_msg=relation.__name__)


def test_segments_for_which_something_is_drawn_are_different_however_short_the_recording():
    batch = short_recordings()
    assert embedding_rows(batch, Layout(segments=2, views=1, shown=(OWN,))).shown is None
    moved = batch | {"moved": jnp.ones(len(RECORDED), bool)}
    moving = Layout(segments=2, views=1, shown=(Shown(0, if_moved=True),))
    np.testing.assert_array_equal(embedding_rows(moved, moving).shown, -1)
    still = embedding_rows(moved | {"moved": ~moved["moved"]}, moving)
    assert not other_segment(still, still).positive[:2, :2].any()
