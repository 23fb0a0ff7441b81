"""Maps of embeddings, and neighbours drawn as ECGs."""

import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from data_pipelines.errors import DataError
from data_pipelines.records import SignalFormat
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.metrics.retrieval import nearest_records
from ecgjax.pages.page import Picture
from ecgjax.studies.report.embedding_map import MAX_POINTS, map_figure, project
from ecgjax.studies.report.neighbour_section import neighbour_section

RNG = np.random.default_rng(0)


def test_the_nearest_of_other_patients():
    angle = np.deg2rad([0, 1, 5, 8, 90, 180])
    embeddings = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.array([[1], [7], [2], [3], [1], [5]])
    apart = np.array([0, 0, 1, 2, 3, 4])  # the nearest to the first is the same patient's
    (rows, cosines), (far, _) = nearest_records(embeddings, queries=np.array([0, 4]), apart=apart, k=3)
    np.testing.assert_array_equal(rows, [2, 3, 4])
    np.testing.assert_allclose(cosines, np.cos(np.deg2rad([5, 8, 90])), atol=1e-12)
    np.testing.assert_array_equal(far, [3, 2, 1])
    (few, _), *_ = nearest_records(embeddings, queries=np.array([0]), apart=np.array([0, 0, 0, 0, 1, 1]), k=3)
    np.testing.assert_array_equal(few, [4, 5])


def test_equals_come_in_order_of_their_rows():
    embeddings = np.ones((40, 5)) * RNG.uniform(0.1, 3, (40, 1))
    (rows, _), *_ = nearest_records(embeddings, queries=np.array([7]), apart=np.arange(40), k=4)
    np.testing.assert_array_equal(rows, [0, 1, 2, 3])


def test_a_map_keeps_what_varies_most():
    # On the circle, spread along one direction: the first component finds it, whatever the lengths.
    angle = RNG.normal(0, 0.3, 300)
    unit = np.zeros((300, 6))
    unit[:, 2], unit[:, 4] = np.cos(angle), np.sin(angle)
    projected = project(unit * RNG.uniform(0.5, 4, (300, 1)))
    assert abs(np.corrcoef(projected.points[:, 0], np.sin(angle))[0, 1]) > 0.999
    assert projected.shares[0] > 0.9
    assert sum(projected.shares) == pytest.approx(1)
    np.testing.assert_array_equal(project(unit).points, project(unit).points)


@pytest.mark.parametrize("shape", [(5, 1), (1, 4)])
def test_maps_of_little(shape):
    projected = project(RNG.normal(size=shape))
    assert projected.points.shape == (shape[0], 2)
    assert np.isfinite(projected.points).all()
    assert np.isfinite(projected.shares).all()


def test_a_collapsed_encoder_has_a_map_of_one_point():
    projected = project(np.ones((9, 4)))
    np.testing.assert_array_equal(projected.points, np.zeros((9, 2)))
    assert projected.shares == (0, 0)
    with pytest.raises(DataError, match="have no direction"):
        project(np.zeros((9, 4)))


@pytest.mark.parametrize("number", [50, MAX_POINTS + 500])
def test_all_points_are_drawn_or_as_many_as_are_readable(number):
    points = RNG.normal(size=(number, 3))
    labels = (points[:, 0] > 0).astype(np.int64)
    projected = project(points)
    (axes,) = map_figure(projected, labels=labels, title="random", seed=0).axes
    drawn = {"positive": [], "negative": []}
    for cloud in axes.collections:
        color = tuple(np.round(cloud.get_facecolor()[0, :3], 3)) if len(cloud.get_facecolor()) else None
        drawn["positive" if color == (0.702, 0.125, 0.173) else "negative"].extend(cloud.get_offsets().tolist())
    assert sum(map(len, drawn.values())) == min(number, MAX_POINTS)
    for name, label in (("positive", 1), ("negative", 0)):
        expected = {tuple(point) for point in projected.points[labels == label].tolist()}
        assert {tuple(point) for point in drawn[name]} <= expected
        assert drawn[name]


class _Index:
    record_id = np.array([f"<rec>${number}$" for number in range(12)])
    valid_start, valid_samples = np.zeros(12, np.int32), np.full(12, 200, np.int32)
    columns = {  # noqa: RUF012
        "age_years": np.r_[np.nan, np.arange(11) + 50.0],
        "sex": np.r_[np.nan, np.arange(11) % 2],
        "lvef": np.arange(12) + 30.0,
    }

    def label(self, name):
        return self.columns[name]


def test_neighbours_as_ecgs():
    signals = RNG.integers(-500, 500, (12, 200, 8)).astype(np.int16)
    card = {"scalars": {"lvef": {"unit": "%"}}}
    recordings = types.SimpleNamespace(
        datasets=[types.SimpleNamespace(card=card)],
        index=_Index(),
        store=types.SimpleNamespace(read=signals.__getitem__),
        format=SignalFormat(sampling_rate_hz=100, num_samples=200),
        simulated=True,
    )
    records = np.arange(2, 12)
    test = LabelledRecords(records=records, labels=(records < 5).astype(np.int64), patients=records // 2, unlabelled=0)
    nothing = LabelledRecords(records=records[:0], labels=records[:0], patients=records[:0], unlabelled=0)
    data = ProbeData(
        task=BinaryTask(label="lvef", rule="below", threshold=35.0), train=nothing, val=nothing, test=test,
        label_fraction=1.0, seed=0, train_available=nothing, excluded={},
    )  # fmt: skip
    embeddings = RNG.normal(size=(10, 3))
    section = neighbour_section(recordings, data, embeddings, seed=3)
    pictures = [block for block in section.blocks if isinstance(block, Picture)]
    assert len(pictures) == 8
    for start, label in ((0, 1), (4, 0)):
        numbers = [int(picture.caption.split("$")[1]) for picture in pictures[start : start + 4]]
        query = numbers[0] - 2
        assert test.labels[query] == label
        (expected, cosines), *_ = nearest_records(embeddings, queries=np.array([query]), apart=test.patients, k=3)
        assert numbers[1:] == (expected + 2).tolist()
        assert f"cosine {cosines[0]:.3f}" in pictures[start + 1].caption
        assert f"lvef<35: {'yes' if label else 'no'}, lvef {numbers[0] + 30}" in pictures[start].caption
        assert numbers[0] // 2 not in [number // 2 for number in numbers[1:]]
    # The traces are those of the record that the caption names: lead II, over its zero line, in mm.
    for picture in pictures:
        (trace,) = [patch for patch in picture.figure.axes[0].patches if patch.get_gid() == "rhythm II"]
        lead = signals[int(picture.caption.split("$")[1]), :, 1] / 1000
        drawn = trace.get_path().vertices[:, 1]
        np.testing.assert_allclose(drawn - np.median(drawn), 10 * (lead - np.median(lead)), atol=1e-9)
    assert neighbour_section(recordings, data, embeddings, seed=3).blocks[0] == section.blocks[0]
    # 25 mm are as long on the page as a CSS has them, and the paper is as large as what lies on it.
    for picture in pictures:
        assert picture.to_scale
        assert picture.scale == 1
    assert "25 mm/s and 10 mm/mV" in section.blocks[0].text


def test_an_anonymous_section_names_no_record(monkeypatch):
    signals = RNG.integers(-500, 500, (12, 200, 8)).astype(np.int16)
    titles = []
    monkeypatch.setattr(
        "ecgjax.studies.report.neighbour_section.draw_ecg",
        lambda signal, **settings: titles.extend(settings["title"]) or Figure(),
    )
    recordings = types.SimpleNamespace(
        datasets=[types.SimpleNamespace(card={"scalars": {}})], index=_Index(), simulated=True,
        store=types.SimpleNamespace(read=signals.__getitem__),
        format=SignalFormat(sampling_rate_hz=100, num_samples=200),
    )  # fmt: skip
    records = np.arange(2, 12)
    test = LabelledRecords(records=records, labels=(records < 5).astype(np.int64), patients=records // 2, unlabelled=0)
    data = ProbeData(
        task=BinaryTask(label="lvef", rule="below", threshold=35.0), train=test, val=test, test=test,
        label_fraction=1.0, seed=0, train_available=test, excluded={},
    )  # fmt: skip
    section = neighbour_section(recordings, data, RNG.normal(size=(10, 3)), seed=3, anonymous=True)
    pictures = [block for block in section.blocks if isinstance(block, Picture)]
    assert len(pictures) == len(titles) == 8
    assert not [text for each in pictures for text in (each.alt, each.caption) if "<rec>" in text]
    assert not [title for title in titles if "<rec>" in title]
