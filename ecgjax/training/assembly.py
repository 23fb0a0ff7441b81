"""Assembly of an encoder, its heads and their loss, as settings name them."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_pipelines.records import SignalFormat
from ecgjax import encoders, optim
from ecgjax.augmentations.geodesic import Overlay
from ecgjax.augmentations.views import Views
from ecgjax.data.row_metadata import Columns
from ecgjax.data.settings import ColumnSettings
from ecgjax.encoders.freezing import freeze, has_batch_statistics
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.reconstruction import Reconstruction
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.tiles import Tiling, take
from ecgjax.settings.leaf import Arguments
from ecgjax.training.embedding_rows import Layout, check_positives
from ecgjax.training.micro_batches import check_parts
from ecgjax.training.second_objective import SecondObjective, check_second, leaves_of_second, rows_of_features
from ecgjax.training.settings import (
    MethodSettings,
    PretrainingSettings,
    ReconstructionSettings,
    SecondSettings,
    ViewSettings,
)
from ecgjax.training.signal_columns import LOOK_AT_SIGNALS, SignalNeighbours
from ecgjax.training.steps import pretraining_loss
from ecgjax.training.tasks.task_choice import Task, check_task, make_task


class Assembly(NamedTuple):
    """An encoder with its parameters, and the loss by which it is trained.

    Attributes:
        encoder: Encoder at initialisation; its frozen parts normalise by running statistics.
        params: Parameters under `encoder`, `objective` and, where there are such, `task` and `second`, as
            `steps.TrainState` holds them.
        stats: Running statistics under `encoder`, with a task `task`, and what the loss keeps under `objective`, as
            `steps.TrainState` holds them.
        task: Task that is predicted beside the objective; None for none.
        frozen: Names of the parameters that stay as they are.
        layout: Rows of embeddings that a recording becomes.
        loss: Loss as `steps.pretraining_loss` returns it.
    """

    encoder: encoders.Split[encoders.Encoder]
    params: dict[str, Any]
    stats: dict[str, Any]
    task: Task | None
    frozen: frozenset[str]
    layout: Layout
    loss: Callable[..., Any]


def assemble(
    settings: PretrainingSettings, *, signal_format: SignalFormat, train: np.ndarray, columns: Columns, mesh: Mesh
) -> Assembly:
    """Initialises encoder, heads and loss as settings name them.

    Args:
        settings: Settings of the run.
        signal_format: Rate and length of the recordings.
        train: Numbers of the records that are trained on, `int64[n]`.
        columns: Columns over all recordings that `row_columns` returned.
        mesh: Mesh of the run.

    Raises:
        ConfigError: A setting names something that does not exist, or settings do not fit each other.
    """
    _check_trained(settings)
    _check_segments(settings.views.segments, signal_format)
    encoder = _with_head_variance(
        create_split(settings.encoder, seed=settings.seed), settings.init.head_variance, name=settings.encoder.name
    )
    module = encoders.merge(encoder)
    views = make_views(
        settings.augment,
        settings.views,
        num_leads=settings.encoder.num_leads,
        rate_hz=signal_format.sampling_rate_hz,
    )
    layout = Layout(settings.views.segments, settings.views.num, module.lead_groups, views.shown)
    check_positives(settings.method, layout)
    # JAX's checks cannot go on after a part that is mapped over devices: with them the compiler divides the pairs.
    divided = None if settings.debug.nan_checks else mesh
    tiling = Tiling(settings.tiling.form, mesh=divided, chunk=settings.tiling.chunk)
    projected = (columns["paired"].shape[1], module.embedding_dim) if "paired" in columns else None
    objective = Objective(
        settings.objective, settings.relation, settings.miner, tiling=tiling, num_views=layout.rows, projected=projected
    )
    decoder = bool(settings.encoder.arguments.get("decoder"))
    check_second(settings.second, layout, decoder=decoder)
    second = _second(
        settings.second, settings.columns, features=module.feature_dim, layout=layout, tiling=tiling, columns=columns
    )
    check_task(settings.task, num_views=settings.views.num, decoder=decoder)
    task = make_task(settings.task, settings.columns, module, columns=columns, train=train, seed=settings.seed)
    heads = {} if task is None else {"task": task.head}
    params = {
        "encoder": encoder.params,
        "objective": objective.init(seed=settings.seed),
        **{name: head.params for name, head in heads.items()},
        **({} if second is None else {"second": second.init(seed=settings.seed)}),
    }
    frozen = optim.frozen_parameters(settings.optimizer, params)
    encoder = freeze(encoder, frozen)
    check_parts(
        settings.micro_batch.parts,
        batch_size=settings.batch_size,
        mesh=mesh,
        has_batch_norm=has_batch_statistics(encoder),
        batch_norm=settings.micro_batch.batch_norm,
    )
    loss = pretraining_loss(
        encoder.graph,
        views,
        objective,
        layout=layout,
        task=task,
        second=second,
        reconstruction=_reconstruction(settings.reconstruction, decoder=decoder),
        overlay=make_overlay(views, tiling=tiling),
        neighbours=_neighbours(settings.method, settings.columns, tiling=tiling),
        mesh=mesh,
        parts=settings.micro_batch.parts,
        statistics_every=settings.log_every,
    )
    stats = {"encoder": encoder.stats, **{name: head.stats for name, head in heads.items()}}
    if kept := objective.init_stats():
        stats["objective"] = kept
    return Assembly(encoder, params, stats, task, frozen, layout, loss)


def check_method(settings: PretrainingSettings, *, rate_hz: float) -> None:
    """Refuses views, losses, relations and miners that do not take their settings, before data are read.

    Args:
        settings: Settings of the run.
        rate_hz: Sampling rate of the recordings, in samples per second.

    Raises:
        ConfigError: A setting names something that does not exist, or is none of what it is given to.
    """
    _check_trained(settings)
    make_views(settings.augment, settings.views, num_leads=settings.encoder.num_leads, rate_hz=rate_hz)
    tiling = Tiling(settings.tiling.form, chunk=settings.tiling.chunk)
    for method in settings.methods:
        with leaves_of_second() if method is settings.second else contextlib.nullcontext():
            Objective(
                method.objective,
                method.relation,
                method.miner,
                tiling=tiling,
                num_views=settings.views.num * settings.views.segments,
                projected=(1, 1) if settings.columns.paired else None,
            )


def make_views(augment: Mapping[str, Arguments], settings: ViewSettings, *, num_leads: int, rate_hz: float) -> Views:
    """Returns the views that settings name.

    Args:
        augment: Settings of the augmentations by name.
        settings: Settings of the views.
        num_leads: Number of leads of a view, 12 or 8.
        rate_hz: Sampling rate of the recordings, in samples per second.

    Raises:
        ConfigError: `Views` refuses the settings.
    """
    return Views(augment, num_views=settings.num, segments=settings.segments, num_leads=num_leads, rate_hz=rate_hz)


def make_overlay(views: Views, *, tiling: Tiling) -> Overlay | None:
    """Returns the overlay of partners' beats over recordings, or None where no view moves towards a partner."""
    if not views.moves_between_recordings:
        return None
    return Overlay(rate_hz=views.rate_hz, take=functools.partial(take, tiling=tiling))


def _with_head_variance(
    encoder: encoders.Split[encoders.Encoder], share: float, *, name: str | None
) -> encoders.Split[encoders.Encoder]:
    """Returns an encoder whose last layer begins with a share of its variance."""
    if share == 1:
        return encoder
    head = encoder.params.get("head")
    if not isinstance(head, Mapping) or "kernel" not in head:
        raise ConfigError(
            f"config.init.head_variance={share}: the encoder {name!r} has no last layer with one kernel "
            "(encoder/head/kernel); leave it at 1"
        )
    kernel = head["kernel"]
    if not isinstance(kernel, jax.ShapeDtypeStruct):  # Of a dry run only the shape is known.
        kernel = kernel * jnp.asarray(math.sqrt(share), kernel.dtype)
    return encoder._replace(params={**encoder.params, "head": {**head, "kernel": kernel}})


def _reconstruction(settings: ReconstructionSettings, *, decoder: bool) -> Reconstruction | None:
    terms = Reconstruction(settings.weight, settings.peak_weight)
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


def _check_trained(settings: PretrainingSettings) -> None:
    of_methods = any(method.objective.weight for method in settings.methods)
    if not (of_methods or settings.task.name or settings.reconstruction.weight):
        raise ConfigError(
            "config.objective.weight=0, and neither config.second nor config.task nor config.reconstruction trains "
            "anything"
        )


def _second(
    settings: SecondSettings,
    column_settings: ColumnSettings,
    *,
    features: int,
    layout: Layout,
    tiling: Tiling,
    columns: Columns,
) -> SecondObjective | None:
    if settings.objective.name is None:
        return None
    return SecondObjective(
        settings,
        features=features,
        layout=rows_of_features(layout),
        tiling=tiling,
        partners=columns["paired"].shape[1] if "paired" in columns else None,
        neighbours=_neighbours(settings, column_settings, tiling=tiling),
    )


def _neighbours(method: MethodSettings, columns: ColumnSettings, *, tiling: Tiling) -> SignalNeighbours | None:
    """Returns the search for neighbours in signal space where a method uses them."""
    looks = not set(method.names).isdisjoint(LOOK_AT_SIGNALS)
    return SignalNeighbours(columns, tiling=tiling) if looks else None
