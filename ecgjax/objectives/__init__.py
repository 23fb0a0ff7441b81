"""Losses over all pairs of the global batch; relations tell positive from negative pairs, miners choose triplets."""

from ecgjax.objectives.losses.clip import clip_loss
from ecgjax.objectives.losses.clocs import clocs
from ecgjax.objectives.losses.hard_negatives import debiased, hcl
from ecgjax.objectives.losses.hardest_nt_xent import hardest_nt_xent
from ecgjax.objectives.losses.multi_similarity import multi_similarity
from ecgjax.objectives.losses.nt_xent import nt_xent, sigmoid, three_kg
from ecgjax.objectives.losses.registry import LOSSES
from ecgjax.objectives.losses.triplet import TRIPLET_LOSSES, angular, margin, triplet
from ecgjax.objectives.losses.vicreg import vicreg
from ecgjax.objectives.miners.miners import MINERS
from ecgjax.objectives.objective import OBJECTIVES, Objective
from ecgjax.objectives.pairs.outputs import LossOutput
from ecgjax.objectives.pairs.relations import RELATIONS, Rows
from ecgjax.objectives.pairs.tiles import Tiling

__all__ = [
    "LOSSES",
    "MINERS",
    "OBJECTIVES",
    "RELATIONS",
    "TRIPLET_LOSSES",
    "LossOutput",
    "Objective",
    "Rows",
    "Tiling",
    "angular",
    "clip_loss",
    "clocs",
    "debiased",
    "hardest_nt_xent",
    "hcl",
    "margin",
    "multi_similarity",
    "nt_xent",
    "sigmoid",
    "three_kg",
    "triplet",
    "vicreg",
]
