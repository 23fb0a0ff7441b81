"""The recordings that set the batch norm of a pretrained encoder, and of its random twin, in an evaluation.

| choice | the pretrained encoder's statistics | those of the same encoder at random initialisation |
|---|---|---|
| `stored` | as they were stored: exported, or of training with its augmented views | set by the evaluation's records |
| `pretraining` | set by the plain training records of the pretraining | set by the same records |
| `evaluation` | set by the training records of the evaluation | set by the same records |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecgjax.data.moved import open_where_they_lie
from ecgjax.data.recordings import Recordings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.frozen_encoder import Encoder
from ecgjax.evaluation.features.labelled_features import NormRecords
from ecgjax.pretrained.source import EncoderSource

#: Choices of `--statistics`.
STATISTICS = ("stored", "pretraining", "evaluation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """The batch norm of an evaluation.

    Attributes:
        statistics: Choice, of `STATISTICS`; `"none"` for an encoder without batch norm.
        encoder: Pretrained encoder, which keeps its statistics where these are stored.
        recordings: Recordings of the pretraining where these set the statistics; otherwise None, and then the records
            of the evaluation set those that are computed.
        words: Sentence on it for the report; empty for an encoder without batch norm.
    """

    statistics: str
    encoder: Encoder
    recordings: Recordings | None
    words: str

    @property
    def norm(self) -> NormRecords | None:
        """Records of the pretraining that set the statistics; None where those of the evaluation do."""
        return None if self.recordings is None else plain_records(self.recordings)


def plain_records(recordings: Recordings) -> NormRecords:
    """Returns the training records of a pretraining that set batch norm: only those of real data sets, if any."""
    parts = recordings.by_dataset(recordings.split.train)
    pairs = [(dataset, own) for dataset, own in zip(recordings.datasets, parts, strict=True) if not dataset.simulated]
    real = [own for _, own in pairs]
    records = np.concatenate(real) if any(map(len, real)) else recordings.split.train
    named = ", ".join(dict.fromkeys(dataset.card["name"] for dataset, _ in pairs))
    names = named if any(map(len, real)) else recordings.name
    title = f"training records of the pretraining ({names})"
    return NormRecords(recordings.store.read, records, recordings.fingerprints, title)


def batch_norm(
    source: EncoderSource, statistics: str | None, *, default: str, judged: str, pretraining_data: Sequence[str] = ()
) -> BatchNorm:
    """Returns what sets the batch norm of an evaluation.

    The recordings of a pretraining are opened only where they are needed.

    Args:
        source: Pretrained encoder.
        statistics: Choice, of `STATISTICS`; None for the default, which for an exported model is `"stored"`.
        default: Default for a run.
        judged: Words for the evaluation's records that may set statistics, after "the".
        pretraining_data: Folders in which the data sets of the pretraining may lie, beside those that it names.

    Raises:
        ConfigError: The recordings of an exported model's pretraining are asked for.
        DataError: The recordings of a run's pretraining are needed and are not found.
    """
    encoder = source.encoder
    if not encoder.has_batch_norm:
        return BatchNorm(statistics="none", encoder=encoder, recordings=None, words="")
    statistics = statistics or (default if source.run is not None else "stored")
    if statistics == "stored":
        kept = dataclasses.replace(encoder, keeps_statistics=True)
        words = (
            f"Batch norm of the pretrained encoder has its stored statistics, {_origin(source)}; that of the same "
            f"encoder at random initialisation is set by the {judged}."
        )
        return BatchNorm(statistics=statistics, encoder=kept, recordings=None, words=words)
    if statistics == "evaluation":
        words = (
            "Batch norm of the pretrained encoder and of the same encoder at random initialisation is set by the "
            f"{judged}."
        )
        return BatchNorm(statistics=statistics, encoder=encoder, recordings=None, words=words)
    recordings = _of_pretraining(source, pretraining_data)
    norm = plain_records(recordings)
    words = (
        "Batch norm of the pretrained encoder and of the same encoder at random initialisation is set by the "
        f"{len(norm.records):,} {norm.title}."
    )
    return BatchNorm(statistics=statistics, encoder=encoder, recordings=recordings, words=words)


def _origin(source: EncoderSource) -> str:
    if source.run is None and source.statistics == "recalibrated":
        return "computed on plain training records of the pretraining before it was exported"
    return "those of training with its augmented views"


def _of_pretraining(source: EncoderSource, places: Sequence[str]) -> Recordings:
    if source.run is None:
        stored = (
            "its stored statistics were computed on them: leave the flag out"
            if source.statistics == "recalibrated"
            else "export the run again with --statistics=recalibrated, or evaluate it with --workdir=RUN"
        )
        raise ConfigError(
            f"--statistics=pretraining: the exported model {source.place} does not have the recordings of its "
            f"pretraining; {stored}"
        )
    return open_where_they_lie(
        source.run.data,
        source.known_sets,
        purpose=f"recompute the batch-norm statistics of {source.place}",
        remedy=(
            "Say where they lie now with --pretraining_data=DIR, or do without them: --statistics=stored keeps the "
            "statistics of training, --statistics=evaluation sets them by the records that are evaluated on"
        ),
        places=places,
    )
