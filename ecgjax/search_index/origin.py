"""What made embeddings: the encoder with its weights, the layer, and how recordings were prepared for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from data_pipelines.errors import DataError

#: Largest dimension of an embedding.
MOST_DIMENSIONS = 65_536


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What made embeddings; only those of equal origin can be compared.

    Attributes:
        architecture: Name of the encoder.
        weights_digest: Hex digest of its weights.
        layer: Layer whose activations are the embedding.
        dimension: Number of numbers of an embedding.
        preprocessing: Steps from a recording to what the encoder takes, as a table of embeddings states them.
    """

    architecture: str
    weights_digest: str
    layer: str
    dimension: int
    preprocessing: Mapping[str, Any]

    @classmethod
    def read(cls, stated: Mapping[str, Any], *, where: str) -> Origin:
        """Reads what a table of embeddings or an index states.

        Args:
            stated: Statements with the fields `model` and `preprocessing`.
            where: File that states it, for messages.

        Raises:
            DataError: A field is missing or of another type.
        """
        model, preprocessing = stated.get("model"), stated.get("preprocessing")
        fields = model if isinstance(model, Mapping) else {}
        texts = {name: fields.get(name) for name in ("architecture", "weights_digest", "layer")}
        dimension = fields.get("dimension")
        whole = isinstance(dimension, int) and not isinstance(dimension, bool) and 1 <= dimension <= MOST_DIMENSIONS
        if not (whole and isinstance(preprocessing, dict) and all(isinstance(text, str) for text in texts.values())):
            raise DataError(
                f"{where}: does not say which encoder and preprocessing made its embeddings, as python -m ecgjax.embed "
                "does; embed the recordings again"
            )
        return cls(**texts, dimension=dimension, preprocessing=preprocessing)  # type: ignore[arg-type]  # Checked above.

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as `read` takes them."""
        fields = dataclasses.asdict(self)
        return {"preprocessing": fields.pop("preprocessing"), "model": fields}

    @property
    def preprocessing_digest(self) -> str:
        """Hex digest of the preprocessing."""
        text = json.dumps(self.preprocessing, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def check_same(self, other: Origin, *, own: str, of_other: str) -> None:
        """Checks that embeddings can be compared.

        Args:
            other: Origin of the other embeddings.
            own: Name of what has this origin, for the message.
            of_other: Name of what has the other.

        Raises:
            DataError: They were made by another encoder, layer or preprocessing; the message has both digests.
        """
        for what, values in (
            ("by the encoder with weights", (self.weights_digest, other.weights_digest)),
            ("by the layer", (self.layer, other.layer)),
            ("by the architecture", (self.architecture, other.architecture)),
            ("with the dimension", (self.dimension, other.dimension)),
            ("after the preprocessing", (self.preprocessing_digest, other.preprocessing_digest)),
        ):
            if values[0] != values[1]:
                differing = f" ({self._differing(other)})" if what.endswith("preprocessing") else ""
                raise DataError(
                    f"{of_other}: its embeddings were made {what} {values[1]}, and those of {own} {what} {values[0]}"
                    f"{differing}, so that they cannot be compared; embed the recordings with the same model"
                )

    def _differing(self, other: Origin) -> str:
        """Returns the first steps of the preprocessings that differ, each with both values, the other's first."""
        one, two = _flat(self.preprocessing), _flat(other.preprocessing)
        names = [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]
        return ", ".join(f"{name} {two.get(name)!r} and {one.get(name)!r}" for name in names[:3])


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found
