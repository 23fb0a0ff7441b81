"""What labels decide of a training before it begins: targets, weights of positives, and the validation records."""

from __future__ import annotations

import dataclasses

import numpy as np

from ecgjax.finetuning.network import shaped


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Supervision:
    """Labels of a training, in the form in which it uses them.

    Attributes:
        targets: Labels of the training records, `f32[n, outputs]`.
        weight: Weight of the loss of positives, `f32[outputs]`.
        offset: Numbers that weights or balanced batches add to the log odds, `f64[outputs]`.
        looked_at: Validation records by which the step is chosen, `int64[m]`.
        look_labels: Labels of these records, `[m]` or `[m, classes]`.
        num_validation: Number of all validation records.
        classes: Names of the classes where a record has several labels.
    """

    targets: np.ndarray
    weight: np.ndarray
    offset: np.ndarray
    looked_at: np.ndarray
    look_labels: np.ndarray
    num_validation: int
    classes: tuple[str, ...] = ()

    @property
    def vector(self) -> bool:
        """Whether predictions are one number for each record, `[n]`, and not `[n, classes]`."""
        return np.ndim(self.look_labels) == 1

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        """Returns predictions of the network's outputs: log odds at the training records' prevalence, or values.

        Args:
            outputs: Outputs of the network, `f64[n, outputs]`.
        """
        return shaped(outputs, self.vector, self.offset)
