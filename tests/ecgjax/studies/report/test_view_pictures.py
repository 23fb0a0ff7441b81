"""Pictures of the views that a run draws of its first records."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import defaults
from ecgjax.augmentations import partners
from ecgjax.augmentations.views import AUGMENTATIONS, Recorded
from ecgjax.data.recordings import open_recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.keys import row_keys
from ecgjax.studies.report import view_pictures as pictures
from ecgjax.training.assembly import make_views
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


#: Of the augmentations the two that compile fastest.
FEW = {f"augment__{name}__enabled": name in ("vcg", "time_mask") for name in AUGMENTATIONS}


def run_of(dataset, **leaves):
    """Stands for a run: what of it is drawn."""
    settings = defaults.settings_of(tiny(dataset, **leaves))
    recordings = open_recordings(settings.data)
    side = SampledSide(settings.sampling, recordings, recordings.split.train, weights=settings.data.weights)
    sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)
    return types.SimpleNamespace(
        settings=settings, recordings=recordings, sampler=sampler, batch_size=settings.batch_size, columns={}
    )


def test_the_views_are_those_of_the_first_step(dataset):
    run = run_of(dataset, **FEW)
    rows = np.arange(2)
    records = run.sampler.record_numbers(0, rows)
    _, drawn = pictures._drawn(run, rows, records)
    index, rate_hz = run.recordings.index, run.recordings.format.sampling_rate_hz
    views = make_views(run.settings.augment, run.settings.views, num_leads=12, rate_hz=rate_hz)
    recorded = Recorded(*(jnp.asarray(c[records], jnp.int32) for c in (index.valid_start, index.valid_samples)))
    keys = row_keys(run.settings.seed, jnp.int32(0), jnp.asarray(rows, jnp.int32), stream="views")
    expected = jax.jit(views)(keys, jnp.asarray(run.recordings.store.read(records)), recorded=recorded)
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-5)
    assert np.abs(drawn[:, 0] - drawn[:, 1]).max() > 0.01


def test_who_has_no_partner_is_drawn_as_it_is(dataset, monkeypatch):
    only = {f"augment__{name}__enabled": False for name in AUGMENTATIONS}
    only |= {"augment__geodesic__enabled": True, "augment__geodesic__p": 1.0}
    run = run_of(dataset, **only)
    partner = np.asarray([1, -1], np.int32)
    monkeypatch.setattr(pictures, "chosen_columns", lambda *_: {partners.COLUMN: lambda step, rows: partner[rows]})
    rows = np.arange(2)
    originals, drawn = pictures._drawn(run, rows, run.sampler.record_numbers(0, rows))
    moved = np.abs(drawn[:, 0] - originals).max((1, 2))
    assert moved[0] > 0.01
    assert moved[1] < 1e-5


def test_a_picture_a_record_as_png(dataset):
    drawn = pictures.view_pictures(run_of(dataset, **FEW), 2)
    assert len(drawn) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in drawn)
    assert drawn[0] != drawn[1]
