"""The head of an exported folder: what its configuration says that it answers, and its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.export.tensors import Tensors, with_tensors
from ecgjax.finetuning.answering_head import (
    MOST_OUTPUTS,
    MOST_SIGNS,
    AnsweringHead,
    HeadOutput,
    HeadStructure,
    TrainedHead,
)
from ecgjax.model.fields import Fields

#: Most data sets of labels that are listed.
_MOST_DATA = 1000


@dataclasses.dataclass(frozen=True)
class DescribedHead:
    """A head without its weights.

    Attributes:
        about: Question of the head, and how its outputs become answers.
        structure: Structure of the head.
    """

    about: AnsweringHead
    structure: HeadStructure


def read_described_head(path: Path, said: Mapping[str, Any]) -> DescribedHead:
    """Returns the head that the object `head` of a configuration describes.

    Args:
        path: File of the configuration, for messages.
        said: Object as it was read.

    Raises:
        ConfigError: A field is missing, of another type, out of its bound, or contradicts another.
    """
    fields = Fields(path, said, within="head.")
    if (taken := fields.text("input", most=MOST_SIGNS)) != "features":
        raise ConfigError(f"{path}: 'head.input' is {ascii(taken)[:60]}, and this ecgjax has heads on 'features' alone")
    texts = ("question", "kind", "unit", "selected", "calibration", "threshold_rule", "chosen_on")
    words = {name: fields.text(name, most=MOST_SIGNS) for name in texts}
    structure = fields.text("structure", most=MOST_SIGNS)
    outputs = [
        _output(Fields(path, output, within=f"head.outputs[{number}]."), output)
        for number, output in enumerate(fields.objects("outputs", most=MOST_OUTPUTS))
    ]
    data, training = tuple(fields.objects("data", most=_MOST_DATA)), fields.mapping("training")
    try:
        return DescribedHead(
            # The kind is checked by the class, as every other field.
            AnsweringHead(**cast(Any, words), outputs=tuple(outputs), data=data, training=training),
            HeadStructure(name=structure, hidden=said.get("hidden")),
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: 'head' is not possible ({str(error)[:400]}); export the folder again") from error


def _output(fields: Fields, said: Mapping[str, Any]) -> HeadOutput:
    for name in ("offset", "slope", "intercept", "threshold", "records", "positives"):
        fields.check_has(name)
    # Their types and bounds are checked with the kind of the question, by `AnsweringHead`.
    return HeadOutput(
        name=fields.text("name", most=MOST_SIGNS),
        offset=said["offset"],
        slope=said["slope"],
        intercept=said["intercept"],
        threshold=said["threshold"],
        records=said["records"],
        positives=said["positives"],
    )


def with_weights(path: Path, described: DescribedHead, tensors: Tensors, *, feature_dim: int) -> TrainedHead:
    """Returns a head with its weights.

    Args:
        path: File of the weights, for messages.
        described: Head as the configuration describes it.
        tensors: Weights of the head by their flat names.
        feature_dim: Number of features of the encoder.

    Raises:
        ConfigError: The weights are of another head.
    """
    about = described.about
    shapes = described.structure.abstract(feature_dim, outputs=len(about.outputs))
    try:
        return TrainedHead(with_tensors(shapes, tensors, source=str(path), of="head"), about)
    except CheckpointError as error:
        raise ConfigError(
            f"{error}: the configuration has {len(about.outputs)} outputs of {feature_dim} features, and the structure "
            f"{described.structure.name!r}"
        ) from error
