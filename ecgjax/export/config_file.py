"""The file `config.json` of an exported model: what it is, how it was trained, and the digests of the other files."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from data_pipelines.system.digests import file_digest
from ecgjax import encoders
from ecgjax.encoders.operations.portability import portable
from ecgjax.export.file_names import FORMAT, format_version
from ecgjax.export.head_section import head_object
from ecgjax.export.inference import Inference
from ecgjax.export.licence_terms import data_of_training
from ecgjax.export.stablehlo import StableHLO
from ecgjax.export.tensors import model_tensors
from ecgjax.export.torch_layout import torch_layouts
from ecgjax.export.trained_for import trained_for
from ecgjax.export.trained_run import TrainedRun
from ecgjax.settings.sections import Tree, flat, tree_of
from ecgjax.training.about import exposures, versions
from ecgjax.training.settings import MethodSettings

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
    module, shape, head = encoders.merge(inference.split), inference.output_spec().shape, inference.head
    return {
        "format": FORMAT,
        "format_version": format_version(has_head=head is not None),
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
        "weights": run.weights if head is None else "trained with labels",
        "head": None if head is None else head_object(head),
        "files": {},
        "weights_digest": digest,
        "training": _training(run),
        "data": data_of_training(run.about),
        "tensors": tensors_of(inference),
        "versions": versions(),
        "stablehlo": None if stablehlo is None else dataclasses.asdict(stablehlo),
    }


def _training(run: TrainedRun) -> dict[str, Any]:
    if run.training is not None:
        return dict(run.training)
    settings = run.settings
    return {
        **exposures(run.about, run.encoder.step),
        **{name: run.about[name] for name in ("begun_from", "extensions") if name in run.about},
        "trained_for": trained_for(flat(tree_of(settings))),
        "objective": _objective(settings.method),
        **({} if settings.second.objective.name is None else {"second_objective": _objective(settings.second)}),
        "settings": without_paths(tree_of(settings)),
        **run.about["code"],
    }


def _objective(method: MethodSettings) -> dict[str, Any]:
    parts = {"loss": method.objective, "relation": method.relation, "miner": method.miner}
    return {name: tree_of(part) for name, part in parts.items()}


def without_paths(tree: Tree) -> dict[str, Any]:
    """Returns settings by their paths in the config, without those that are paths on a machine."""
    return {name: value for name, value in flat(tree).items() if name not in PATHS}


def _token_dimension(module: encoders.Encoder, inference: Inference) -> int:
    ecg = jax.ShapeDtypeStruct((1, inference.num_samples, inference.num_leads), "float32")
    with portable():
        tokens = jax.eval_shape(functools.partial(module.tokens, train=False), ecg)
    return int(tokens.shape[-1])


def tensors_of(inference: Inference) -> dict[str, Any]:
    """Returns shape, type and place in PyTorch of every weight of a model by its flat name."""
    head = None if inference.head is None else inference.head.split
    layouts = torch_layouts(inference.split) | ({} if head is None else torch_layouts(head, of="head"))
    return {
        name: {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "torch": dataclasses.asdict(layouts[name]),
        }
        for name, leaf in model_tensors(inference.split, head).items()
    }


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns digest and size of every file of a folder by name."""
    return {path.name: {"sha256": file_digest(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())}
