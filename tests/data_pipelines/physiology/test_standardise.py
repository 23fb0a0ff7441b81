"""The standardiser and the principal components: fitted on training records, and on nothing else."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.physiology import standardise
from data_pipelines.physiology.standardise import Pca, Standardizer

NAMES = ("rr", "pr", "t", "flat", "rare", "never")


def _values(n=400, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 6)) * [120, 20, 0.1, 0, 1, 1] + [800, 160, 0.3, 7.1, 0, 0]
    values[rng.random(n) < 0.2, 1] = np.nan
    values[rng.random(n) < 0.7, 4] = np.nan
    values[:, 5] = np.nan
    values[::50] = np.nan
    return values.astype(np.float32)


def test_mean_and_deviation_of_the_training_records():
    values, rows = _values(), np.arange(0, 400, 3)
    fitted = Standardizer.fit(values, rows, names=NAMES)
    assert fitted.kept == ("rr", "pr", "t")
    assert fitted.dropped == {"flat": "constant", "rare": "missing", "never": "missing"}
    train = values[rows][:, :3].astype(np.float64)
    np.testing.assert_allclose(fitted.mean, np.nanmean(train, axis=0), rtol=1e-12)
    np.testing.assert_allclose(fitted.sd, np.nanstd(train, axis=0), rtol=1e-12)
    assert fitted.num_records == np.isfinite(values[rows]).any(axis=1).sum() < len(rows)
    standard = fitted.transform(values[rows])
    assert standard.dtype == np.float32
    assert standard.shape == (len(rows), 3)
    mask = fitted.mask(values[rows])
    np.testing.assert_array_equal(mask, np.isfinite(train))
    assert (standard[~mask] == 0).all()
    for column in range(3):
        present = standard[mask[:, column], column]
        assert present.mean() == pytest.approx(0, abs=1e-5)
        assert present.std() == pytest.approx(1, abs=1e-5)


def test_other_records_change_nothing():
    values, rows = _values(), np.arange(0, 400, 2)
    changed = values.copy()
    changed[1::2] = 1e6
    one, other = (Standardizer.fit(which, rows, names=NAMES) for which in (values, changed))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.sd, other.sd)
    assert one.kept == other.kept


def test_blocks_change_nothing_that_matters(monkeypatch):
    values, rows = _values(), np.arange(400)
    values[:100, 1] = np.nan  # The first blocks have none of it.
    whole = Standardizer.fit(values, rows, names=NAMES)
    monkeypatch.setattr(standardise, "_BLOCK", 7)
    blocks = Standardizer.fit(values, rows, names=NAMES)
    assert blocks.kept == whole.kept
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(blocks.sd, whole.sd, rtol=1e-12)


@pytest.mark.parametrize(
    ("max_missing", "kept"), [(0.1, ("rr", "t")), (0.5, ("rr", "pr", "t")), (0.9, ("rr", "pr", "t", "rare"))]
)
def test_the_share_that_may_be_missing(max_missing, kept):
    assert Standardizer.fit(_values(), np.arange(400), names=NAMES, max_missing=max_missing).kept == kept


def test_a_record_without_measurements_becomes_zeros():
    fitted = Standardizer.fit(_values(), np.arange(400), names=NAMES)
    nothing = np.full((1, 6), np.nan, np.float32)
    assert (fitted.transform(nothing) == 0).all()
    assert not fitted.mask(nothing).any()


def test_refusals():
    values, rows = _values(), np.arange(400)
    with pytest.raises(DataError, match="physiology values"):
        Standardizer.fit(values[:, :5], rows, names=NAMES)
    with pytest.raises(DataError, match="nothing to standardise"):
        Standardizer.fit(np.full_like(values, np.nan), rows, names=NAMES)
    with pytest.raises(DataError, match="nothing to standardise"):
        Standardizer.fit(np.ones_like(values), rows, names=NAMES)
    with pytest.raises(DataError, match="nothing to standardise"):
        Standardizer.fit(values, rows[:0], names=NAMES)
    with pytest.raises(DataError, match="max_missing"):
        Standardizer.fit(values, rows, names=NAMES, max_missing=1.0)
    with pytest.raises(DataError, match="physiology values"):
        Standardizer.fit(values, rows, names=NAMES).transform(values[:, :3])


def _standard(n=300, seed=1):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 3)) @ rng.normal(size=(3, 8)) + 0.1 * rng.normal(size=(n, 8))).astype(np.float32)


def test_components_against_the_singular_value_decomposition():
    train, other = _standard(), _standard(seed=2)
    fitted = Pca.fit(train, num_components=3)
    centred = train.astype(np.float64) - train.astype(np.float64).mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(fitted.components @ directions[:3].T), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(fitted.explained, (singular**2 / (singular**2).sum())[:3], rtol=1e-6)
    assert fitted.explained.sum() > 0.95
    projected = fitted.transform(other)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(projected, (other - fitted.mean) @ fitted.components.T, atol=1e-5)
    # Distances survive, up to what the dropped components held.
    before, after = np.linalg.norm(train[0] - train[1]), np.linalg.norm(np.subtract(*fitted.transform(train[:2])))
    assert after == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize("num_components", [0, 9])
def test_too_many_components_are_refused(num_components):
    with pytest.raises(DataError, match="num_components"):
        Pca.fit(_standard(), num_components=num_components)
    with pytest.raises(DataError, match="standardised features"):
        Pca.fit(_standard(), num_components=3).transform(_standard()[:, :4])


def test_saved_and_loaded_exactly(tmp_path):
    values, standard = _values(), _standard()
    scale = Standardizer.fit(values, np.arange(200), names=NAMES)
    components = Pca.fit(standard, num_components=4)
    scale.save(tmp_path / "scale.json")
    components.save(tmp_path / "components.json")
    again = Standardizer.load(tmp_path / "scale.json")
    np.testing.assert_array_equal(again.transform(values), scale.transform(values))
    assert (again.names, again.kept, again.dropped, again.max_missing, again.num_records) == (
        scale.names, scale.kept, scale.dropped, scale.max_missing, scale.num_records)  # fmt: skip
    loaded = Pca.load(tmp_path / "components.json")
    np.testing.assert_array_equal(loaded.transform(standard), components.transform(standard))
    with pytest.raises(DataError, match="is no saved Standardizer"):
        Standardizer.load(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="is no saved Pca"):
        Pca.load(tmp_path / "scale.json")
    (tmp_path / "scale.json").write_text("{")
    with pytest.raises(DataError, match="is no saved Standardizer"):
        Standardizer.load(tmp_path / "scale.json")
