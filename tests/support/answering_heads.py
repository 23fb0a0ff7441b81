"""Heads that answer made-up questions, with weights and statistics as if trained."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx

from ecgjax import encoders
from ecgjax.finetuning.answering_head import AnsweringHead, HeadOutput, TrainedHead
from ecgjax.training.tasks.heads import LinearHead, TaskHead

#: A labelled data set, as `about.json` describes one.
LABELLED = {
    "name": "labelled", "fingerprint": "1abe1", "records": 900, "patients": 700, "simulated": True,
    "licence": "not stated", "citation": "not stated", "build_command": "python -m data_pipelines.build",
}  # fmt: skip

_CHOSEN = {
    "calibration": "Platt scaling", "threshold_rule": "highest F1", "chosen_on": "the validation records, fold 9",
    "selected": "step 30, best AUROC on the validation records", "data": (LABELLED,), "training": {"steps": 40},
}  # fmt: skip

#: Question of each kind.
QUESTIONS = {
    "binary": AnsweringHead(
        question="lvef<40",
        kind="binary",
        outputs=(
            HeadOutput(
                name="lvef<40", offset=1.7, slope=0.8, intercept=-0.3, threshold=0.31, records=200, positives=30
            ),
        ),
        **_CHOSEN,
    ),
    "multilabel": AnsweringHead(
        question="superdiagnostic:*",
        kind="multilabel",
        outputs=(
            HeadOutput(name="NORM", slope=1.3, intercept=0.2, threshold=0.6, records=200, positives=90),
            HeadOutput(name="MI", offset=-0.5, threshold=0.2, records=200, positives=40),
            HeadOutput(name="STTC", slope=0.7, intercept=-1.0, threshold=1.0, records=200, positives=1),
        ),
        **_CHOSEN,
    ),
    "quantity": AnsweringHead(
        question="age_years",
        kind="quantity",
        unit="years",
        outputs=(HeadOutput(name="age_years", records=0),),
        selected="step 30, lowest loss on the validation records",
        data=(LABELLED,),
    ),
}

STRUCTURES = ("linear", "mlp")


def trained_head(kind: str, structure: str, *, dim: int, seed: int = 0) -> TrainedHead:
    """Returns a head whose weights and statistics are away from their initial values.

    Args:
        kind: Kind of the question, a key of `QUESTIONS`.
        structure: Structure of the head, of `STRUCTURES`.
        dim: Number of features that it takes.
        seed: Seed of its numbers.
    """
    about = QUESTIONS[kind]
    size = {"outputs": len(about.outputs)}
    if kind == "quantity":
        size |= {"location": 61.0, "scale": 14.0}
    head: LinearHead | TaskHead = (
        LinearHead(dim, **size)
        if structure == "linear"
        else TaskHead(dim, hidden=5, dropout=0.4, rngs=nnx.Rngs(seed), **size)
    )
    split, rng = encoders.split(head), np.random.default_rng(seed)

    def moved(array: jax.Array) -> np.ndarray:
        # Positive, as variances are; location and scale stay what they are.
        return np.asarray(array) + (rng.uniform(0.2, 1.0, array.shape).astype(np.float32) if array.ndim else 0)

    params, stats = ({name: jax.tree.map(moved, each) for name, each in part.items()} for part in split[1:])
    signs = jax.tree.map(lambda array: array * rng.choice([-1, 1], array.shape).astype(np.float32), params)
    return TrainedHead(split._replace(params=signs, stats=stats), about)
