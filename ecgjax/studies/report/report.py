"""Data of a finished evaluation, which `report_page` lays out and `report_files` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ecgjax.data.labels import ProbeData
from ecgjax.evaluation.metrics.subgroups import Subgroup
from ecgjax.settings.sections import Tree
from ecgjax.studies.comparison import Comparison
from ecgjax.studies.decision_curve import NetBenefit
from ecgjax.studies.neighbourhood import Neighbourhood
from ecgjax.studies.operating import Operating


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Description of what was evaluated, so that the numbers can be reproduced.

    Attributes:
        data: Name of the data set.
        fingerprint: Fingerprint of the data set.
        simulated: Whether the data set is simulated.
        encoder: Name of the encoder.
        checkpoint_step: Step of the checkpoint.
        config: Complete resolved configuration.
        command: Command that repeats the evaluation.
        cautions: Sentences that a reader must know before believing the table.
    """

    data: str
    fingerprint: str
    simulated: bool
    encoder: str
    checkpoint_step: int
    config: Tree
    command: str
    cautions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A finished evaluation of a binary task.

    Attributes:
        comparison: Comparison of the models.
        data: Labelled records that the results rest on.
        scores: Scores of the test records, `f64[test records]`, by the model's name.
        embeddings: Embeddings of the test records, `f32[test records, dim]`, by encoder (`"pretrained"`, `"random"`).
        measurement_failures: Number of records of all splits that lack an interval or amplitude, by reason.
        operating: Metrics of every model with its scores calibrated, and of its decisions at its threshold; calibration
            and threshold are chosen on validation.
        net_benefits: Net benefits of every model, and of treating everybody.
        groups: Metrics of the pretrained encoder's probe in every subgroup of the test records, such as the women.
        near: Retrieval among nearest neighbours in the embeddings of both encoders.
        provenance: Description of what was evaluated.
    """

    comparison: Comparison
    data: ProbeData
    scores: Mapping[str, np.ndarray]
    embeddings: Mapping[str, np.ndarray]
    measurement_failures: Mapping[str, int]
    operating: tuple[Operating, ...]
    net_benefits: tuple[NetBenefit, ...]
    groups: tuple[Subgroup, ...]
    near: tuple[Neighbourhood, ...]
    provenance: Provenance
