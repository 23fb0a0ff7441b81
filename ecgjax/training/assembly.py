"""An encoder, what stands on it and their loss, put together as a config names them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
from jax.sharding import Mesh

from data_pipelines.records import SignalFormat
from ecgjax import encoders, optim
from ecgjax.augmentations.geodesic import Overlay
from ecgjax.augmentations.views import Views
from ecgjax.data.recordings import Recordings
from ecgjax.data.row_metadata import Columns
from ecgjax.encoders.freezing import freeze, has_batch_statistics
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.reconstruction import Reconstruction
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.tiles import Tiling, take
from ecgjax.training.embedding_rows import Layout, check_positives
from ecgjax.training.heads import SupervisedTask
from ecgjax.training.micro_batches import check_parts
from ecgjax.training.signal_columns import LOOK_AT_SIGNALS, SignalNeighbours
from ecgjax.training.steps import pretraining_loss


class Assembly(NamedTuple):
    """What is trained, and on what.

    Attributes:
        encoder: at initialisation, its frozen parts normalising by running statistics.
        params: of the encoder and of what stands on it, see `steps.TrainState`.
        stats: likewise.
        frozen: names of parameters that stay as they are.
        layout: which rows of embeddings a recording becomes.
        loss: see `steps.pretraining_loss`.
    """

    encoder: encoders.Split
    params: dict[str, Any]
    stats: dict[str, Any]
    frozen: frozenset[str]
    layout: Layout
    loss: Callable[..., Any]


def assemble(config: ml_collections.ConfigDict, *, recordings: Recordings, columns: Columns, mesh: Mesh) -> Assembly:
    """Initialises what a config names.

    Args:
        config: Config of the run, with the leaves of `ecgjax/defaults.py`.
        recordings: opened by it.
        columns: of `row_columns`.
        mesh: of the run.

    Raises:
        ConfigError: the config asks for what does not exist or does not fit.
    """
    if not (config.objective.weight or config.task.name or config.reconstruction.weight):
        raise ConfigError(
            "config.objective.weight=0, and neither config.task nor config.reconstruction trains anything"
        )
    _check_segments(config.views.segments, recordings.format)
    encoder = create_split(config, seed=config.seed)
    module = encoders.merge(encoder)
    views = make_views(config, recordings)
    layout = Layout(config.views.segments, config.views.num, module.lead_groups, views.shown)
    check_positives(config, layout)
    tiling = Tiling(config.tiling.form, mesh=mesh, chunk=config.tiling.chunk)
    projected = (columns["paired"].shape[1], module.embedding_dim) if "paired" in columns else None
    objective = Objective(config, tiling=tiling, num_views=layout.rows, projected=projected)
    task = None
    if config.task.name:
        labels = columns["label"][recordings.split.train]
        task = SupervisedTask(config.task, embedding_dim=module.embedding_dim, labels=labels, seed=config.seed)
    heads = {} if task is None else {"task": task.head}
    params = {
        "encoder": encoder.params,
        "objective": objective.init(seed=config.seed),
        **{name: head.params for name, head in heads.items()},
    }
    frozen = optim.frozen_parameters(config.optimizer, params)
    encoder = freeze(encoder, frozen)
    check_parts(
        config.micro_batch.parts,
        batch_size=config.batch_size,
        mesh=mesh,
        has_batch_norm=has_batch_statistics(encoder),
        batch_norm=config.micro_batch.batch_norm,
    )
    loss = pretraining_loss(
        encoder.graph,
        views,
        objective,
        layout=layout,
        task=task,
        reconstruction=_reconstruction(config),
        overlay=make_overlay(views, tiling=tiling),
        neighbours=SignalNeighbours(config.columns, tiling=tiling) if _looks_at_signals(config) else None,
        mesh=mesh,
        parts=config.micro_batch.parts,
        statistics_every=config.log_every,
    )
    stats = {"encoder": encoder.stats, **{name: head.stats for name, head in heads.items()}}
    return Assembly(encoder, params, stats, frozen, layout, loss)


def make_views(config: ml_collections.ConfigDict, recordings: Recordings) -> Views:
    """The views that a config names, of its recordings.

    Raises:
        ConfigError: they cannot be.
    """
    return Views(
        config.augment,
        num_views=config.views.num,
        segments=config.views.segments,
        num_leads=config.encoder.num_leads,
        rate_hz=recordings.format.sampling_rate_hz,
    )


def make_overlay(views: Views, *, tiling: Tiling) -> Overlay | None:
    """What finds the recordings that others are moved towards, where the views need them."""
    if not views.moves_between_recordings:
        return None
    return Overlay(rate_hz=views.rate_hz, take=functools.partial(take, tiling=tiling))


def _reconstruction(config: ml_collections.ConfigDict) -> Reconstruction | None:
    terms, decoder = (
        Reconstruction(config.reconstruction.weight, config.reconstruction.peak_weight),
        config.encoder.decoder,
    )
    if not any(terms):
        if decoder:
            raise ConfigError(
                "config.encoder.decoder=True: nothing trains a decoder while config.reconstruction.weight and "
                "peak_weight are 0"
            )
        return None
    if not decoder:
        raise ConfigError(
            f"config.reconstruction.weight={terms.weight} and peak_weight={terms.peak_weight} need "
            "config.encoder.decoder=True, and an encoder that can have one, such as physio_transformer"
        )
    return terms


def _check_segments(segments: int, signal_format: SignalFormat) -> None:
    most = signal_format.num_samples // signal_format.sampling_rate_hz
    if segments > max(1, most):
        raise ConfigError(
            f"config.views.segments={segments} cuts recordings of {most} seconds into parts of less than one; at most "
            f"{most} are possible"
        )


def _looks_at_signals(config: ml_collections.ConfigDict) -> bool:
    return config.relation.name in LOOK_AT_SIGNALS or config.miner.name in LOOK_AT_SIGNALS
