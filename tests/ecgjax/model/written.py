"""A small exported model, written by the exporter's own writers from an encoder at random weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipelines.records import STORED_LEADS
from data_pipelines.signals.recipe import RECIPES, SignalRecipe
from ecgjax import encoders
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.export import inference_of, write_safetensors
from ecgjax.export.config_file import described, tensors_of
from ecgjax.export.file_names import (
    CONFIG_FILE,
    FORMAT,
    PREPROCESSOR_FILE,
    SAMPLE_FILE,
    WEIGHTS_FILE,
    format_version,
)
from ecgjax.export.head_section import head_object
from ecgjax.export.preprocessor_file import preprocessor
from ecgjax.export.sample_file import write_sample
from ecgjax.finetuning.answering_head import TrainedHead
from ecgjax.settings.sections import tree_of
from ecgjax.training.about import leads_of, versions
from tests.support.plain_networks import away_from_initialisation

#: Encoders of a few thousand weights.
SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {"widths": (4, 4, 8, 8)},
    "vit_s": {"dim": 16, "depth": 2, "num_heads": 2, "patch": 25},
    "temporal_net": {"widths": (2, 2, 4, 4, 4)},
}


def write_model(
    folder: Path,
    name: str = "resnet18",
    *,
    arguments: dict[str, Any] | None = None,
    num_leads: int = 12,
    layer: str = "features",
    recipe: SignalRecipe = RECIPES["plain"],
    seed: int | None = None,
    head: Callable[[int], TrainedHead] | None = None,
) -> Path:
    """Writes the files that `ecgjax.load` reads.

    Args:
        folder: Folder to write; it is made.
        name: Name of the encoder.
        arguments: Arguments of the encoder; those of `SMALL` by default.
        num_leads: Number of leads that it sees.
        layer: Layer that is exported.
        recipe: Recipe of the recordings.
        seed: Seed of the initialisation; None for weights and statistics away from it, as if trained.
        head: Function from the number of features to a head that answers a question; None for none.
    """
    folder.mkdir(parents=True)
    arguments = SMALL[name] if arguments is None else arguments
    settings = EncoderSettings(name=name, num_leads=num_leads, embedding_dim=8, arguments=arguments)
    of_all = {"num_leads": num_leads, "embedding_dim": 8, **arguments}
    split = (
        away_from_initialisation(encoders.abstract(name, **of_all))
        if seed is None
        else encoders.create(name, seed=seed, **of_all)
    )
    form = recipe.signal_format
    inference = inference_of(split, num_samples=form.num_samples, num_leads=num_leads, layer=layer)
    module = encoders.merge(split)
    trained = None if head is None else head(module.feature_dim)
    inference = dataclasses.replace(inference, head=trained)
    digest = write_safetensors(folder / WEIGHTS_FILE, split, head=None if trained is None else trained.split)
    write_sample(folder / SAMPLE_FILE, inference, sampling_rate_hz=form.sampling_rate_hz)
    signals = {
        "sampling_rate_hz": form.sampling_rate_hz,
        "seconds": form.seconds,
        "num_samples": form.num_samples,
        "stored_leads": list(STORED_LEADS),
        "encoder_leads": list(leads_of(num_leads)),
        "stored_unit": "uV",
        "encoder_unit": "mV",
    }
    data = [{"name": "made_up", "records": 0, "recipe": recipe.to_json()}]
    _write(folder / PREPROCESSOR_FILE, preprocessor({"signals": signals, "data": data}))
    config = {
        "format": FORMAT,
        "format_version": format_version(has_head=trained is not None),
        "architecture": name,
        "encoder": tree_of(settings),
        "num_leads": num_leads,
        "layer": layer,
        "dimension": inference.output_spec().shape[-1],
        "token_dimension": module.feature_dim,
        "pool": str(module.pool),
        "statistics": "running",
        "head": None if trained is None else head_object(trained),
        "weights_digest": digest,
        "training": {"steps": 0, "batch_size": 32, "exposures": 0},
        "data": [{"name": "made_up", "records": 0, "simulated": True}],
        "tensors": tensors_of(inference),
        "versions": versions(),
    }
    rewrite(folder, config)
    return folder


def rewrite(folder: Path, config: dict[str, Any] | None = None, **changes: Any) -> None:
    """Writes `config.json`, with the digests of the files as they now are, and with some fields changed."""
    config = read(folder / CONFIG_FILE) if config is None else config
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    _write(folder / CONFIG_FILE, {**config, "files": described(folder), **changes})


def change(path: Path, **changes: Any) -> None:
    """Changes fields of a JSON file."""
    _write(path, {**read(path), **changes})


def read(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
