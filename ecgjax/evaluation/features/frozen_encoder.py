"""Loads frozen encoders, embeds recordings with them, and computes their batch-norm statistics anew."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from ecgjax import defaults, encoders
from ecgjax.config import run_config
from ecgjax.encoders.from_config import create_split
from ecgjax.encoders.lead_wise import of_recordings
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.features import Read, in_batches
from ecgjax.leads import prepare
from ecgjax.leakage.trained_on import RECORDS_FILE, PretrainingRecords, open_pretraining_records
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.steps import EMA

#: Number of batches over which `recalibrate_batch_norm` runs: the initial statistics then weigh .9^64 = .1 %.
RECALIBRATION_BATCHES = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder at inference: it uses running statistics, has no dropout and augments nothing.

    Attributes:
        split: The encoder as graph definition, parameters and statistics.
        num_leads: Number of input leads of the encoder, 12 or 8.
        layer: `"features"` for the pooled activations, `"embedding"` for the output of the last layer, averaged over
            leads where every lead has an embedding of its own.
        step: Number of updates that the encoder was trained for; 0 for a random one.
        pretrained_on: Fingerprints of the data sets of the pretraining; empty for a random encoder, or where the
            checkpoint does not have them.
        trained_on: Function that opens the list of the records of the pretraining; None for a random encoder, or where
            the checkpoint has no list.
        batch_size: Number of rows of one call on the device; the last batch is padded to it, so that one program serves
            all.
        keeps_statistics: Whether evaluations leave its batch-norm statistics as they are, instead of computing them
            anew.
    """

    split: encoders.Split[encoders.Encoder]
    _: dataclasses.KW_ONLY
    num_leads: int
    layer: str = "features"
    step: int = 0
    pretrained_on: Sequence[str] = ()
    trained_on: Callable[[], PretrainingRecords] | None = None
    batch_size: int = 128
    keeps_statistics: bool = False

    def __post_init__(self) -> None:
        if self.layer not in ("features", "embedding"):
            raise ConfigError(f"config.probe.layer={self.layer!r} is unknown; there are: features, embedding")

    def embed(self, signals: np.ndarray) -> np.ndarray:
        """Embeds recordings.

        Args:
            signals: Recordings in µV, `int16[n, time, 8]`.

        Returns:
            Embeddings, `f32[n, dim]`.
        """
        graph, params, stats = self.split
        embed = functools.partial(_apply, graph, self.num_leads, self.layer, params, stats)
        return in_batches(embed, signals, size=self.batch_size)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the encoder has running statistics."""
        return bool(jax.tree.leaves(self.split.stats))

    def with_stats(self, stats: encoders.Arrays) -> Encoder:
        """Returns a copy of the encoder with other running statistics."""
        return dataclasses.replace(self, split=self.split._replace(stats=stats))


# This is compiled once for all encoders of one structure, such as a pretrained one and its random twins.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _apply(graph: Any, num_leads: int, layer: str, params: Any, stats: Any, signal: Array) -> Array:
    ecg = prepare(signal, num_leads=num_leads)
    split = encoders.Split(graph, params, stats)
    return of_recordings(encoders.apply(split, ecg, train=False, features=layer == "features")[0])


def random_encoder(settings: EncoderSettings, *, layer: str, seed: int) -> Encoder:
    """Returns an encoder at random initialisation.

    Args:
        settings: Settings of the encoder.
        layer: Layer to embed with, a choice of `Encoder`.
        seed: Seed of the initialisation.

    Raises:
        ConfigError: There is no such encoder or layer.
    """
    return Encoder(create_split(settings, seed=seed), num_leads=settings.num_leads, layer=layer)


def load_encoder(workdir: str | Path, *, step: int | None = None, layer: str | None = None) -> Encoder:
    """Returns the encoder of a checkpoint, with the moving average of its weights where the run kept one.

    Args:
        workdir: Folder of the run.
        step: Step of the checkpoint; the latest by default.
        layer: Layer to embed with, a choice of `Encoder`; that of the run's config by default.

    Raises:
        ConfigError: The folder holds no run.
        CheckpointError: The folder holds no finished checkpoint, or a damaged one.
    """
    settings = defaults.settings_of_run(workdir)
    split = create_split(settings.encoder, seed=settings.seed)
    prefix = "" if settings.optimizer.ema_decay is None else EMA
    names = (f"{prefix}params_encoder", f"{prefix}stats_encoder")
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        step, parts = checkpoints.restore(dict(zip(names, (split.params, split.stats), strict=True)), step=step)
        metadata = checkpoints.metadata(step)
    return Encoder(
        split._replace(params=parts[names[0]], stats=parts[names[1]]),
        num_leads=settings.encoder.num_leads,
        layer=settings.probe.layer if layer is None else layer,
        step=step,
        pretrained_on=tuple(metadata.get("datasets", ())),
        trained_on=_trained_on(Path(workdir), metadata),
    )


def _trained_on(workdir: Path, metadata: Mapping[str, Any]) -> Callable[[], PretrainingRecords] | None:
    digest = metadata.get("records")
    if digest is None and not (workdir / RECORDS_FILE).is_file():
        return None
    return functools.partial(open_pretraining_records, workdir, run=metadata.get("fingerprint", ""), digest=digest)


def recalibrate_batch_norm(
    encoder: Encoder, read: Read, *, records: np.ndarray, seed: int = 0, progress: bool = False
) -> Encoder:
    """Returns an encoder whose batch-norm statistics are computed on unaugmented recordings.

    A random encoder has no running statistics, and a pretrained one has those of augmented views; both are
    recalibrated, so that a comparison does not depend on this.

    Args:
        encoder: Encoder whose running statistics are replaced.
        read: Function of record numbers that returns their signals, `int16[n, time, 8]`.
        records: Numbers of training records, `int64[n]`.
        seed: Seed of the order in which records are drawn.
        progress: Whether a progress bar is drawn on a terminal.
    """
    rng = np.random.default_rng(seed)
    stats = encoder.split.stats
    size = min(encoder.batch_size, len(records))
    bar = tqdm(
        range(RECALIBRATION_BATCHES),
        desc="batch norm",
        unit="batch",
        leave=False,
        dynamic_ncols=True,
        disable=None if progress else True,
    )
    for _ in bar:
        signal = jnp.asarray(read(np.sort(rng.choice(records, size, replace=False))))
        stats = _updated_stats(encoder.split.graph, encoder.num_leads, encoder.split.params, stats, signal)
        if not bar.disable:
            # Batches are queued and not awaited, so that the bar would be full long before they are done.
            jax.block_until_ready(stats)
    return encoder.with_stats(stats)


def moved_statistics(before: encoders.Arrays, after: encoders.Arrays) -> str:
    """Returns in words how far running statistics lie apart: of the channels, by their standard deviations before."""
    flat = jax.tree_util.tree_flatten_with_path
    one, other = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in flat(stats)[0]}
        for stats in (before, after)
    )
    names = [name.removesuffix("mean") for name in one if name.endswith("mean") and f"{name[:-4]}var" in one]
    if not names:
        return ""
    tiny = np.finfo(np.float32).tiny
    shifts, factors = [], []
    for name in names:
        mean, var = f"{name}mean", np.maximum(one[f"{name}var"], tiny)
        shifts.append(np.abs(other[mean] - one[mean]) / np.sqrt(var))
        factors.append(np.sqrt(np.maximum(other[f"{name}var"], tiny) / var))
    return (
        f"means moved by {np.median(np.concatenate(shifts)):.2g} standard deviations, and standard deviations by a "
        f"factor of {np.median(np.concatenate(factors)):.3g} (medians over channels)"
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _updated_stats(graph: Any, num_leads: int, params: Any, stats: encoders.Arrays, signal: Array) -> encoders.Arrays:
    ecg = prepare(signal, num_leads=num_leads)
    return encoders.apply(encoders.Split(graph, params, stats), ecg, train=True)[1]
