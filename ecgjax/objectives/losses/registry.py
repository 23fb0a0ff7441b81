"""Losses over all pairs of a batch by the name that a config gives them; triplet losses are in `triplet.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ecgjax.objectives.losses.clip import clip_loss
from ecgjax.objectives.losses.clocs import clocs
from ecgjax.objectives.losses.hard_negatives import debiased, hcl
from ecgjax.objectives.losses.hardest_nt_xent import hardest_nt_xent
from ecgjax.objectives.losses.multi_similarity import multi_similarity
from ecgjax.objectives.losses.nt_xent import nt_xent, sigmoid, three_kg
from ecgjax.objectives.losses.vicreg import vicreg
from ecgjax.objectives.pairs.outputs import LossOutput

#: `config.objective.name` → `(embeddings, rows, *, settings) → LossOutput`. Settings are keyword arguments. Most losses
#: take `relation` and `tiling`, and `clocs` takes the number of `views` as well. `vicreg` takes that number alone, and
#: `clip` takes the `paired` embeddings.
LOSSES: Mapping[str, Callable[..., LossOutput]] = {
    "nt_xent": nt_xent,
    "hardest_nt_xent": hardest_nt_xent,
    "three_kg": three_kg,
    "clocs": clocs,
    "sigmoid": sigmoid,
    "hcl": hcl,
    "debiased": debiased,
    "multi_similarity": multi_similarity,
    "vicreg": vicreg,
    "clip": clip_loss,
}
