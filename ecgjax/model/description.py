"""The encoder of an exported folder, as its configuration describes it, with its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ecgjax import encoders
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.export.file_names import CONFIG_FILE, WEIGHTS_FILE
from ecgjax.export.inference import LAYERS
from ecgjax.export.safetensors import read_weights
from ecgjax.export.tensors import Tensors, by_module, with_tensors
from ecgjax.finetuning.answering_head import TrainedHead
from ecgjax.model.described_head import DescribedHead, read_described_head, with_weights
from ecgjax.model.exported_folder import ExportedFolder
from ecgjax.model.fields import Fields
from ecgjax.settings.sections import read

#: Largest number and longest list among the settings of an encoder that a file may ask for.
_MOST, _MOST_ELEMENTS = 2**16, 64


@dataclasses.dataclass(frozen=True)
class Description:
    """The statements of a configuration about its encoder.

    Attributes:
        architecture: Name of the encoder.
        settings: Settings of the encoder.
        num_leads: Number of leads that it sees.
        layer: Layer whose activations are its answer, `"embedding"` or `"features"`.
        dimension: Number of numbers of an answer.
        token_dimension: Width of a token.
        pool: Pool that makes features of tokens, in words.
        statistics: Origin of the running statistics, in words.
        head: Head that answers a question, without its weights; None for none.
        weights_digest: Digest of the weights.
        training: What was said of the training.
        data: What was said of each data set.
        versions: Versions of the packages that wrote the folder.
    """

    architecture: str
    settings: EncoderSettings
    num_leads: int
    layer: str
    dimension: int
    token_dimension: int
    pool: str
    statistics: str
    head: DescribedHead | None
    weights_digest: str
    training: Mapping[str, Any]
    data: tuple[Any, ...]
    versions: Mapping[str, Any]


def read_description(folder: ExportedFolder) -> Description:
    """Returns what the configuration of a folder states of its encoder.

    Raises:
        ConfigError: A field is missing, of another type or out of its bound.
    """
    path, config = folder.path / CONFIG_FILE, folder.config
    fields = Fields(path, config)
    encoder = fields.mapping("encoder")
    _check_modest(str(path), encoder)
    layer = fields.text("layer")
    if layer not in LAYERS:
        raise ConfigError(f"{path}: 'layer' is {ascii(layer)[:60]}; there are: {', '.join(LAYERS)}")
    head = config.get("head")
    return Description(
        architecture=fields.text("architecture"),
        settings=read(EncoderSettings, encoder, path=f"{path}: encoder"),
        num_leads=fields.count("num_leads", most=12),
        layer=layer,
        dimension=fields.count("dimension", most=2**24),
        token_dimension=fields.count("token_dimension", most=2**24),
        pool=fields.text("pool"),
        statistics=str(config.get("statistics", "")),
        head=None if head is None else read_described_head(path, fields.mapping("head")),
        weights_digest=fields.text("weights_digest"),
        training=fields.mapping("training"),
        data=tuple(config["data"]) if isinstance(config.get("data"), list) else (),
        versions=fields.mapping("versions"),
    )


def read_modules(
    folder: ExportedFolder, description: Description
) -> tuple[encoders.Split[encoders.Encoder], TrainedHead | None]:
    """Returns the encoder and the head, if there is one, with the weights of the folder.

    Args:
        folder: Folder whose files were checked.
        description: Statements of its configuration.

    Raises:
        ConfigError: The weights are damaged, not finite, or of another encoder or head.
    """
    path, described = folder.path / WEIGHTS_FILE, description.head
    try:
        tensors = read_weights(path, digest=description.weights_digest).tensors
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    if described is None:
        return _encoder(folder, description, tensors), None
    parts = by_module(tensors)
    encoder = _encoder(folder, description, parts["encoder"])
    feature_dim = encoders.merge(encoder).feature_dim
    return encoder, with_weights(path, described, parts["head"], feature_dim=feature_dim)


def _encoder(folder: ExportedFolder, description: Description, tensors: Tensors) -> encoders.Split[encoders.Encoder]:
    settings, path = description.settings, folder.path / WEIGHTS_FILE
    blocks = settings.arguments.get("num_blocks")
    # Each block has weights of its own; to build a network of a billion blocks only to refuse it would take hours.
    if isinstance(blocks, tuple) and sum(each for each in blocks if isinstance(each, int)) > len(tensors):
        raise ConfigError(f"{path}: has {len(tensors)} weights, too few for num_blocks={blocks}")
    of_all = {
        "num_leads": settings.num_leads,
        "embedding_dim": settings.embedding_dim,
        "lead_wise": settings.lead_wise,
    }
    chosen = {name: value for name, value in of_all.items() if value is not None} | dict(settings.arguments)
    try:
        shapes = encoders.abstract(description.architecture, precision=settings.precision, **chosen)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{folder.path / CONFIG_FILE}: describes no encoder that can be made ({str(error)[:200]}); export it again"
        ) from error
    try:
        return with_tensors(shapes, tensors, source=str(path))
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


def _check_modest(path: str, given: Mapping[str, Any]) -> None:
    """Refuses settings so large that making such an encoder would take all memory or time."""
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        whole = [each for each in values if isinstance(each, int)]
        if len(values) > _MOST_ELEMENTS or any(abs(each) > _MOST for each in whole):
            raise ConfigError(
                f"{path}: encoder.{ascii(name)[:60]} is {ascii(value)[:80]}, beyond what an encoder can be; get the "
                "folder again from where it comes from"
            )
