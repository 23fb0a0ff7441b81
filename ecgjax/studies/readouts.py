"""Readouts of an encoder that a study has beside the linear probe: models by readout, titles, and comparisons.

| `config.probe.readouts` | models |
|---|---|
| `mean`, `mean_deviation`, `lead_mean` | linear models on pooled tokens of the pretrained and of the random encoder |
| `attention` | attention pools on the tokens of both |
| `fusion` | one linear model on intervals, median beat and embedding of either, and the same without an embedding |
| `finetuned` | the pretrained encoder, trained on with labels |

`config.probe.grid` adds the best of several random encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from ecgjax.defaults import RunSettings
from ecgjax.encoders.from_config import abstract_split
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.pooled_tokens import POOLED, num_leads_of_tokens
from ecgjax.settings.leaf import Value
from ecgjax.settings.probe import FineTuneSettings, ProbeSettings
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.random_grid import grid_of

ReadoutModel: TypeAlias = Literal[
    "pretrained_mean", "pretrained_mean_deviation", "pretrained_lead_mean", "pretrained_attention",
    "pretrained_fusion", "finetuned", "random_mean", "random_mean_deviation", "random_lead_mean", "random_attention",
    "random_fusion", "measured", "random_grid",
]  # fmt: skip

#: Models of every readout.
MODELS_OF_READOUT: Mapping[str, tuple[ReadoutModel, ...]] = {
    "mean": ("pretrained_mean", "random_mean"),
    "mean_deviation": ("pretrained_mean_deviation", "random_mean_deviation"),
    "lead_mean": ("pretrained_lead_mean", "random_lead_mean"),
    "attention": ("pretrained_attention", "random_attention"),
    "fusion": ("pretrained_fusion", "random_fusion", "measured"),
    "finetuned": ("finetuned",),
}

#: Readouts in words, as titles of models have them.
_WORDS: Mapping[str, str] = {
    "mean": "linear on the mean token",
    "mean_deviation": "linear on mean and deviation of tokens",
    "lead_mean": "linear on the mean tokens of all leads",
    "attention": "attention pool on tokens",
    "fusion": "linear with intervals and median beat",
    "finetuned": "fine-tuned",
}

#: Titles of models that are no readout of one encoder.
TITLES: Mapping[str, str] = {
    "measured": "intervals and median beat",
    "random_grid": "best of a grid of random encoders",
}

#: Leaves of `config.probe`, or beginnings of their paths, that decide what some models give; none for all models.
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "probe.strength": (),
    "probe.select": (),
    "probe.rate_factors": ("supervised", "finetuned"),
    "probe.grid": ("random_grid",),
    "probe.attention.": MODELS_OF_READOUT["attention"],
}


def models_of(probe: ProbeSettings) -> tuple[ReadoutModel, ...]:
    """Returns the models that the settings ask for beside those that every study has, in the order of tables.

    Args:
        probe: Settings of the evaluation.
    """
    asked = [model for readout, models in MODELS_OF_READOUT.items() if readout in probe.readouts for model in models]
    order: list[ReadoutModel] = [
        *(model for model in asked if model.startswith("pretrained")),
        *(model for model in asked if model == "finetuned"),
        *(model for model in asked if model.startswith("random")),
    ]
    order += ["random_grid"] if probe.grid else []
    return (*order, *(model for model in asked if model == "measured"))


def readout_of(model: str) -> str:
    """Returns the readout of a model, of `config.probe.readouts`; empty for the linear probe and other models."""
    return next((readout for readout, models in MODELS_OF_READOUT.items() if model in models), "")


def words_of(model: str) -> str:
    """Returns the readout of a model in words, such as `"attention pool on tokens"`; empty for other models."""
    return "" if model in TITLES else _WORDS.get(readout_of(model), "")


def title_of_readout(model: str) -> str:
    """Returns the title of a readout's model in a study of one encoder; empty for other models."""
    if model in TITLES:
        return TITLES[model]
    if not (words := words_of(model)):
        return ""
    return f"{'random initialisation' if model.startswith('random') else 'pretrained'}, {words}"


def pairs_of(models: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the comparisons that readouts add, the second model subtracted from the first.

    Args:
        models: Models of the study.
    """
    found: list[tuple[str, str]] = []
    for readout in (*POOLED, "attention"):
        found += [(f"pretrained_{readout}", f"random_{readout}"), (f"pretrained_{readout}", "pretrained")]
    found += [("pretrained_fusion", other) for other in ("measured", "random_fusion", "supervised", "boosted")]
    found += [("random_fusion", "measured"), ("pretrained", "random_grid"), ("finetuned", "random_grid")]
    found += [("finetuned", "supervised")]
    return [pair for pair in found if {*pair} <= {*models}]


def changed_choices(settings: RunSettings, model: str = "") -> dict[str, Value]:
    """Returns the leaves about readouts and choices that differ from the defaults, by their paths.

    Studies that were begun before there were such leaves go on, since what is at its default is left out.

    Args:
        settings: Settings of a run.
        model: Model whose results the leaves decide; empty for all models.
    """
    own, before = flat(tree_of(settings)), flat(tree_of(RunSettings()))
    deciding = tuple(leaf for leaf, models in _CHOICES.items() if not (model and models) or model in models)
    return {name: value for name, value in own.items() if name.startswith(deciding) and value != before[name]}


def check_readouts(probe: ProbeSettings, encoder: EncoderSettings, *, num_samples: int) -> None:
    """Refuses settings of readouts that are not possible, before anything is computed.

    Args:
        probe: Settings of the evaluation.
        encoder: Settings of the encoder.
        num_samples: Number of samples of the recordings.

    Raises:
        ConfigError: A setting is given twice, an entry of the grid is no encoder, or the encoder has no tokens of
            single leads, whose means are asked for.
    """
    grid_of(probe.grid, encoder)
    for name, values in (("readouts", probe.readouts), ("rate_factors", probe.rate_factors)):
        if len({*values}) < len(values):
            raise ConfigError(f"config.probe.{name}={values!r} names the same twice: leave one out")
    if "lead_mean" in probe.readouts and num_leads_of_tokens(abstract_split(encoder), num_samples) == 1:
        raise ConfigError(
            f"config.probe.readouts: lead_mean needs tokens of single leads, and every token of {encoder.name} sees "
            "all leads: ask for mean, or pretrain with config.encoder.lead_wise=True"
        )


def told_of_choices(probe: ProbeSettings, *, train: int, val: int, models: Sequence[str]) -> list[str]:
    """Returns sentences on what chose the hyperparameters, for a report.

    Args:
        probe: Settings of the evaluation.
        train: Number of labelled training records, at the smallest fraction of the labels.
        val: Number of validation records.
        models: Models of the report.
    """
    more = ""
    if val > train:
        more = (
            f", {val / max(train, 1):.3g} times as many as the {train:,} that a model is trained with at the smallest "
            "fraction: at few labels this choice knows more than they do"
        )
    by = {
        "validation": f"on all {val:,} validation records{more}",
        "validation_part": (
            "on a part of the validation patients, of the same share as the labelled training patients have of theirs"
        ),
        "labelled": (
            "on the labelled training patients alone: the strength of a linear model by the lowest mean loss over "
            "folds of these patients; trees, neighbours, steps of networks and attention pools on one of the folds, "
            "which they are then not trained with; validation labels choose nothing"
        ),
    }[probe.select]
    words = [f"Hyperparameters are chosen {by} (config.probe.select={probe.select})."]
    if probe.strength is not None:
        words.append(
            f"The strength of every linear model is not chosen: C = {probe.strength:g} is fixed "
            "(config.probe.strength)."
        )
    if "random_grid" in models:
        words.append(
            f"The best of {len(probe.grid) + 1} random encoders, the encoder's own initialisation among them, is "
            f"chosen in the same way: {'; '.join(probe.grid)}. Their seeds are those of the entries, whatever the seed "
            "of the labels."
        )
    if {"finetuned", "supervised"} & {*models}:
        words.append(_trainings(probe, models))
    return words


def _trainings(probe: ProbeSettings, models: Sequence[str]) -> str:
    """Returns a sentence on how many settings of trainings with labels were tried, and for how many steps."""
    tried = len(probe.rate_factors)

    def told(training: FineTuneSettings, name: str) -> str:
        ends = f", ending after {training.patience} looks without a better one" if training.patience else ""
        return (
            f"{name}: {tried} × at most {training.steps:,} = {tried * training.steps:,} steps of "
            f"{training.batch_size} records{ends}"
        )

    parts = {"finetuned": (probe.finetune, "fine-tuned"), "supervised": (probe.supervised, "labels only")}
    named = "; ".join(told(*part) for model, part in parts.items() if model in models)
    rates = "learning rate" if tried == 1 else "learning rates"
    return f"Trainings with labels tried {tried} {rates} each ({named}); the best step was kept."
