"""Description of the data, encoder and command behind an evaluation."""

from __future__ import annotations

from typing import NamedTuple

from ecgjax.pages.provenance import Step
from ecgjax.settings.sections import Tree


class Provenance(NamedTuple):
    """Description of the data, encoder and command behind an evaluation, so that its numbers can be reproduced.

    Attributes:
        data: Name of the data set.
        fingerprint: Fingerprint of the data set.
        simulated: Whether the data set is simulated.
        encoder: Name of the encoder.
        checkpoint_step: Step of the checkpoint.
        config: Complete resolved configuration.
        command: Command that repeats the evaluation.
        cautions: Sentences that a reader must know before believing the table.
        statistics: What set batch norm, of `batch_norm.STATISTICS`; `"none"` for an encoder without it.
        remarks: Sentences on the pretraining, on batch norm and on settings.
        choices: Sentences on what chose the hyperparameters.
        unit: Unit of the label that the question is about; empty if it has none.
        steps: Steps from raw files to the command.
    """

    data: str
    fingerprint: str
    simulated: bool
    encoder: str
    checkpoint_step: int
    config: Tree
    command: str
    cautions: tuple[str, ...] = ()
    statistics: str = "evaluation"
    remarks: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    unit: str = ""
    steps: tuple[Step, ...] = ()
