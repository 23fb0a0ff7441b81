"""Pictures of the views that a pretraining draws of its first records, for its log."""

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np

from ecgjax import leads
from ecgjax.augmentations import partners
from ecgjax.augmentations.geodesic import towards_others
from ecgjax.augmentations.views import Recorded
from ecgjax.keys import row_keys
from ecgjax.system.beside_training import on_the_host
from ecgjax.training.assembly import make_views
from ecgjax.training.run import Run
from ecgjax.training.run_batches import chosen_columns

#: Greatest number of views of a record that are drawn: a config may have hundreds.
_MOST_VIEWS = 6


def view_pictures(run: Run, number: int) -> list[bytes]:
    """Draws records of the first batch as they are and under each view, a picture a record.

    With twelve leads the views are those of the first step; an encoder of eight leads is shown the views that twelve
    would have. Everything is computed on the host, and the run's draws are not touched.

    Args:
        run: Run whose records are drawn.
        number: Number of records.

    Returns:
        Pictures as PNG; fewer where the batch is smaller.

    Raises:
        DataError: A record cannot be read.
    """
    from ecgjax.studies.report.figures import augmented_views  # Only the first process needs Matplotlib.

    rows = np.arange(min(number, run.batch_size))
    records = run.sampler.record_numbers(0, rows)
    with on_the_host():
        originals, views = _drawn(run, rows, records)
    names = [f"view {view + 1}" for view in range(min(_MOST_VIEWS, views.shape[1]))]
    pictures = []
    for row, record in enumerate(records.tolist()):
        figure = augmented_views(
            originals[row : row + 1],
            [(name, views[row : row + 1, view]) for view, name in enumerate(names)],
            sampling_rate_hz=run.recordings.format.sampling_rate_hz,
            titles=[f"record {record}"],
        )
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=80)
        pictures.append(file.getvalue())
    return pictures


def _drawn(run: Run, rows: np.ndarray, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns recordings and their views in mV, `f32[n, time, 12]` and `f32[n, views, time, 12]`."""
    settings, rate_hz = run.settings, run.recordings.format.sampling_rate_hz
    signal, recorded = _read(run, records)
    views = make_views(settings.augment, settings.views, num_leads=12, rate_hz=rate_hz)
    towards = None
    if views.moves_between_recordings:
        partner = chosen_columns(run.settings, run.columns, run.sampler)[partners.COLUMN](0, rows)
        # Who has no partner is not moved: it goes towards itself.
        others = run.sampler.record_numbers(0, np.where(partner < 0, rows, partner))
        other, other_recorded = _read(run, others)
        towards = towards_others(signal, other, recorded=recorded, others_recorded=other_recorded, rate_hz=rate_hz)
        towards = jnp.where((partner < 0)[:, None, None], signal, towards)
    keys = row_keys(settings.seed, 0, jnp.asarray(rows, jnp.int32), stream="views")
    drawn = jax.jit(views)(keys, signal, recorded=recorded, towards=towards)
    return np.asarray(leads.prepare(signal)), np.asarray(drawn)


def _read(run: Run, records: np.ndarray) -> tuple[jax.Array, Recorded]:
    index = run.recordings.index
    columns = (index.valid_start[records], index.valid_samples[records])
    recorded = Recorded(*(jnp.asarray(column, jnp.int32) for column in columns))
    return jnp.asarray(run.recordings.store.read(records)), recorded
