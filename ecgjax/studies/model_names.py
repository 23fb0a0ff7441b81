"""Names and titles of the models that studies compare: probes and trainings of an encoder, and baselines beside them.

| key | model |
|---|---|
| `pretrained` | a linear probe on the embeddings of the frozen encoder |
| `nearest` | nearest neighbours in these embeddings, without any training |
| `finetuned` | the pretrained encoder, trained on with labels |
| `random` | the same probe on the same encoder at its initialisation, with batch norm recalibrated |
| `supervised` | the same encoder, trained end to end with the labels alone |
| `intervals`, `boosted` | a linear model, and boosted trees, on intervals and amplitudes of the ECG |
| `median_beat` | a linear model on the heart rate and principal components of the median beat |
| `demographics` | a linear model on age and sex |
| `mean` | the mean of the training labels, for a quantity |
| `exported_head` | the head of an exported model, which was trained elsewhere and stays as it is |

`readouts.py` adds further readouts of the encoders, and the best of several random encoders.

Random convolutions are good features: pretraining has to do better than `random`, not merely better than chance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from ecgjax.data.tasks import Task
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.measurements import demographic_columns
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.finetuning import trainer
from ecgjax.settings.sections import tree_of
from ecgjax.studies.readouts import TITLES, ReadoutModel, title_of_readout, words_of

ModelName: TypeAlias = (
    Literal[
        "pretrained", "nearest", "random", "supervised", "intervals", "boosted", "median_beat", "demographics", "mean",
        "exported_head",
    ]
    | ReadoutModel
)  # fmt: skip

#: Model whose difference from every other is reported.
REFERENCE: ModelName = "pretrained"

#: Models that need no encoder, in the order of tables.
PLAIN: tuple[ModelName, ...] = ("intervals", "boosted", "median_beat", "demographics")

#: Models that one would use in place of a pretrained encoder, against which a report's verdict is about; age and sex
#: are no use of an ECG.
INSTEAD: tuple[ModelName, ...] = ("supervised", "intervals", "boosted", "median_beat")

#: Models that need no pretraining, in the order of tables; `mean` is for quantities alone.
BESIDE: tuple[ModelName, ...] = ("random", "supervised", *PLAIN, "mean")

#: Models that a study of several encoders has beside them if it is asked to; the random encoder is always there.
BASELINES: tuple[ModelName, ...] = ("supervised", *PLAIN)

#: Titles of models where a study has several encoders, or questions of several kinds.
_SHORT: Mapping[ModelName, str] = {
    "random": "random",
    "supervised": "labels only",
    "intervals": "intervals and amplitudes",
    "boosted": "boosted trees",
    "median_beat": "median beat",
    "demographics": "age and sex",
}


def answerable(names: tuple[ModelName, ...], task: Task) -> tuple[ModelName, ...]:
    """Returns the models that apply to a task: all of them for a quantity, and all but `mean` for classes.

    Args:
        names: Keys of models.
        task: Task.
    """
    return tuple(name for name in names if name != "mean" or not kind_of(task).log_odds)


#: Beginning of the title of the best of a grid of random encoders, in a study of several encoders.
GRID = "best of a grid with random"


def told_apart(title: str, model: str) -> str:
    """Returns the title of a further readout of an encoder that has a title of its own.

    Args:
        title: Title of the encoder's linear probe.
        model: Key of the readout's model.
    """
    return f"{title}, {words_of(model)}"


def short_title(name: ModelName, encoder: str) -> str:
    """Returns the title of a model that is no pretrained encoder, in a study of several encoders.

    Args:
        name: Key of the model.
        encoder: Title of the encoder at random initialisation or trained with labels alone.
    """
    if name == "random_grid":
        return f"{GRID} {encoder}"
    if name in TITLES:
        return TITLES[name]
    return _SHORT[name] if name in PLAIN else f"{_SHORT[name]} {encoder}"


def labels_only_titles(settings: Sequence[RunSettings], encoders: Sequence[str]) -> list[str]:
    """Returns the titles of the networks that are trained with labels alone, one for each encoder of a study.

    Encoders of one title may be trained with labels in several ways. These are told apart by a digest of the settings
    and not by a number, so that their titles do not depend on the order of the encoders.

    Args:
        settings: Settings of each encoder and of its training with labels.
        encoders: Title of each encoder at random initialisation, without its first word.
    """
    told = [
        (title, json.dumps([tree_of(each.probe.supervised), trainer.shared_settings(each.optimizer)], sort_keys=True))
        for title, each in zip(encoders, settings, strict=True)
    ]
    several = {title for title, _ in told if len({words for other, words in told if other == title}) > 1}
    return [
        short_title("supervised", title)
        + (f" ({hashlib.blake2b(words.encode(), digest_size=3).hexdigest()})" if title in several else "")
        for title, words in told
    ]


def checked_baselines(asked: Sequence[str]) -> tuple[ModelName, ...]:
    """Returns the models of `--baselines`, in the order of tables.

    Args:
        asked: Keys of models, of `BASELINES`; none at all, or the word `none`, for none of them.

    Raises:
        ConfigError: A model is unknown.
    """
    # A shell's empty variable is refused before this, and so there is a word for it.
    if list(asked) == ["none"]:
        return ()
    if unknown := sorted({*asked} - {*BASELINES}):
        raise ConfigError(
            f"--baselines={','.join(asked)}: {unknown[0]!r} is unknown; there are: {', '.join(BASELINES)}"
        )
    return tuple(name for name in BASELINES if name in asked)


def title_of(name: str, task: Task) -> str:
    """Returns the title of a model in tables.

    Args:
        name: Key of the model.
        task: Task, which decides whether linear models are called logistic or ridge.
    """
    if name != "finetuned" and (title := title_of_readout(name)):
        return title
    linear = "logistic" if kind_of(task).log_odds else "ridge"
    demographics = " and ".join(words for _, words in demographic_columns(task))
    titles: Mapping[str, str] = {
        "pretrained": "pretrained, linear probe",
        "nearest": "pretrained, nearest neighbours",
        "finetuned": "pretrained, fine-tuned",
        "random": "random initialisation, linear probe",
        "supervised": "labels only, end to end",
        "intervals": f"intervals and amplitudes, {linear}",
        "boosted": "intervals and amplitudes, boosted trees",
        "median_beat": f"median beat and heart rate, {linear}",
        "demographics": f"{demographics}, {linear}",
        "mean": "mean of the training labels",
        "exported_head": "exported head, as it is",
    }
    return titles[name]
