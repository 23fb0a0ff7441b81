"""The file `config.json` of an exported model: what it is, how it was trained, and the digests of the other files."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from data_pipelines.system.digests import file_digest
from ecgjax import encoders
from ecgjax.encoders.portability import portable
from ecgjax.export.file_names import FORMAT, FORMAT_VERSION
from ecgjax.export.inference import Inference
from ecgjax.export.licence_terms import terms_of
from ecgjax.export.stablehlo import StableHLO
from ecgjax.export.tensors import flat_leaves
from ecgjax.export.torch_layout import torch_layouts
from ecgjax.export.trained_run import TrainedRun
from ecgjax.settings.sections import Tree, flat, tree_of
from ecgjax.training.about import About, exposures, versions

#: Settings that are paths on the machine of the training.
PATHS = ("data.dir", "data.links", "columns.paired", "init.source")


def config_of(run: TrainedRun, inference: Inference, *, digest: str, stablehlo: StableHLO | None) -> dict[str, Any]:
    """Returns the content of the file, in which `files` is empty until `described` can fill it.

    Args:
        run: Run whose encoder is exported.
        inference: Function that is exported.
        digest: Digest of the weights.
        stablehlo: What a reader of `model.stablehlo` must know; None where it was not asked for.
    """
    module, shape = encoders.merge(inference.split), inference.output_spec().shape
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": run.settings.encoder.name,
        "encoder": tree_of(run.settings.encoder),
        "num_leads": inference.num_leads,
        "layer": inference.layer,
        "dimension": shape[-1],
        # Some encoders have an embedding for each lead.
        "output_shape": list(shape[1:]),
        "token_dimension": _token_dimension(module, inference),
        "pool": str(module.pool),
        "statistics": run.statistics,
        "weights": run.weights,
        "head": None,
        "files": {},
        "weights_digest": digest,
        "training": _training(run),
        "data": data_of(run.about),
        "tensors": _tensors(inference),
        "versions": versions(),
        "stablehlo": None if stablehlo is None else dataclasses.asdict(stablehlo),
    }


def _training(run: TrainedRun) -> dict[str, Any]:
    settings = run.settings
    return {
        **exposures(run.about, run.encoder.step),
        **{name: run.about[name] for name in ("begun_from", "extensions") if name in run.about},
        "objective": {
            "loss": tree_of(settings.objective),
            "relation": tree_of(settings.relation),
            "miner": tree_of(settings.miner),
        },
        "settings": without_paths(tree_of(settings)),
        **run.about["code"],
    }


def without_paths(tree: Tree) -> dict[str, Any]:
    """Returns settings by their paths in the config, without those that are paths on a machine."""
    return {name: value for name, value in flat(tree).items() if name not in PATHS}


def data_of(about: About) -> list[dict[str, Any]]:
    """Returns the data sets of a training: counts of what was trained on, licence and its terms.

    Those of the training whose weights it began with come last, each with the name of the encoder in `begun_from`.
    """
    begun_from = about.get("begun_from")
    earlier = [] if begun_from is None else [{"begun_from": begun_from["name"], **each} for each in begun_from["data"]]
    return [*_own_data(about), *earlier]


def _own_data(about: About) -> list[dict[str, Any]]:
    names = ("name", "fingerprint", "records", "patients", "simulated", "licence", "citation", "build_command")
    return [
        {
            **{name: dataset[name] for name in names},
            "terms": terms_of(dataset["licence"], simulated=dataset["simulated"]),
        }
        for dataset in about["data"]
    ]


def _token_dimension(module: encoders.Encoder, inference: Inference) -> int:
    ecg = jax.ShapeDtypeStruct((1, inference.num_samples, inference.num_leads), "float32")
    with portable():
        tokens = jax.eval_shape(functools.partial(module.tokens, train=False), ecg)
    return int(tokens.shape[-1])


def _tensors(inference: Inference) -> dict[str, Any]:
    layouts = torch_layouts(inference.split)
    return {
        name: {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "torch": dataclasses.asdict(layouts[name]),
        }
        for name, leaf in flat_leaves(inference.split).items()
    }


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns digest and size of every file of a folder by name."""
    return {path.name: {"sha256": file_digest(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())}
