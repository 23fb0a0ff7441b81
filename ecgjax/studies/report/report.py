"""A finished evaluation: what `report_page` lays out and `report_files` writes."""

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
    """What was evaluated, so that the numbers can be made again.

    Attributes:
        data: name of the data set.
        fingerprint: of the data set.
        simulated: whether it was simulated.
        encoder: its name.
        checkpoint_step: step of the checkpoint.
        config: the whole resolved configuration.
        command: how to run it again.
        cautions: what a reader must know before believing the table, one sentence each.
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
    """A finished evaluation.

    Attributes:
        comparison: the table.
        data: the records it rests on.
        scores: model name → `f64[test records]`.
        embeddings: encoder (`"pretrained"`, `"random"`) → `f32[test records, dim]`.
        measurement_failures: records of all splits by reason why intervals or amplitudes are missing.
        operating: every model calibrated and with a threshold.
        net_benefits: of every model, and of treating everybody.
        groups: the pretrained encoder's probe in every group of patients.
        near: what lies near in both encoders' embeddings.
        provenance: what was evaluated.
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
