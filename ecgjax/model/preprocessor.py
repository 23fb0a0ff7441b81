"""The preparation that an exported encoder was trained with, as its folder states it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.recipe import RECIPES, SignalRecipe
from ecgjax.errors import ConfigError
from ecgjax.model.fields import Fields

#: Longest input of an encoder, samples of a lead: far beyond any that trains, and small enough to be laid out.
MOST_SAMPLES = 10_000_000

_ENCODER_LEADS = (STORED_LEADS, STANDARD_LEADS)

#: What stands between the names of a recipe and of the one that the recordings had been prepared with before.
AFTER = " after "

#: Fields of a recipe that the file has under their own names, beside rate and length.
_STEPS = ("min_seconds", "notch_hz", "highpass_hz", "lowpass_hz", "baseline", "cut", "pad")

#: Fields of two recipes that must be equal for their records to be alike.
_DECISIVE = ("sampling_rate_hz", "seconds", "notch_hz", "highpass_hz", "lowpass_hz", "baseline", "pad")

#: Recipe of simulated data sets, which states rate and length alone.
_SIMULATED = "simulated"


@dataclasses.dataclass(frozen=True)
class Preprocessor:
    """The preparation of recordings.

    Attributes:
        recipe: Recipe of the stored signals, which says the length rule too.
        encoder_leads: Leads that the encoder sees, in its order.
        length_rule: Length rule in words.
        others: Names of data sets of the training that were prepared by other recipes.
    """

    recipe: SignalRecipe
    encoder_leads: tuple[str, ...]
    length_rule: str
    others: tuple[str, ...] = ()

    @property
    def num_samples(self) -> int:
        """Number of samples of a prepared recording."""
        return self.recipe.signal_format.num_samples

    @property
    def earlier(self) -> str:
        """Name of the recipe that recordings had been prepared with before this one; empty where there was none that
        did more than to resample.
        """
        return earlier_recipe(self.recipe.name)


def earlier_recipe(name: str) -> str:
    """Returns the recipe that a recipe's name says was applied before; empty for none, or one that only resampled."""
    earlier = name.partition(AFTER)[2]
    return "" if earlier.startswith("plain") and AFTER not in earlier else earlier


def difference(stored: Mapping[str, Any], recipe: SignalRecipe) -> str:
    """Returns how records were prepared otherwise than by a recipe, in words; empty where they are alike.

    Args:
        stored: Recipe of the records, as the card of their data set has it.
        recipe: Recipe of a model's training data.
    """
    if earlier_recipe(str(stored["name"])) != earlier_recipe(recipe.name):
        return f"by the recipe {stored['name']}, and those of the model's training by {recipe.name}"
    own = recipe.to_json()
    differing = [name for name in _DECISIVE if stored.get(name) != own[name]]
    return (
        "with " + ", ".join(f"{name}={stored.get(name)} (the model's: {own[name]})" for name in differing)
        if differing
        else ""
    )


def remedy_for(recipe: SignalRecipe, directory: str) -> str:
    """Returns what to do about a data set that was prepared otherwise.

    Args:
        recipe: Recipe of a model's training data.
        directory: Folder of the data set.
    """
    return (
        f"build it from its recordings in the same steps, or convert it: python -m data_pipelines.build "
        f"--builder=prepared --source={directory} --target_rate_hz={recipe.sampling_rate_hz} "
        f"--seconds={recipe.seconds:g} --out=DIR"
    )


def read_preprocessor(path: Path, content: Mapping[str, Any]) -> Preprocessor:
    """Returns the preparation that a `preprocessor_config.json` states.

    Args:
        path: File, for messages.
        content: Content of the file.

    Raises:
        ConfigError: A field is missing or of another type, contradicts another, or is one that this ecgjax cannot do.
    """
    fields = Fields(path, content)
    _expect(path, "unit", fields.text("unit"), "uV")
    _expect(path, "dtype", fields.text("dtype"), "int16")
    _expect(path, "leads", list(fields.texts("leads")), list(STORED_LEADS))
    encoder_leads = fields.texts("encoder_leads")
    if encoder_leads not in _ENCODER_LEADS:
        raise ConfigError(
            f"{path}: 'encoder_leads' is {ascii(encoder_leads)[:120]}, and encoders see the 8 stored leads or the 12 "
            "standard ones; export the folder again"
        )
    recipe = _recipe(path, content)
    num_samples = fields.count("num_samples", most=MOST_SAMPLES)
    if recipe.signal_format.num_samples != num_samples:
        raise ConfigError(
            f"{path}: {recipe.seconds:g} s at {recipe.sampling_rate_hz} Hz are {recipe.signal_format.num_samples} "
            f"samples, and 'num_samples' is {num_samples}; export the folder again"
        )
    others = content.get("other_recipes")
    length_rule = str(content.get("length_rule", ""))
    return Preprocessor(recipe, encoder_leads, length_rule, tuple(others) if isinstance(others, dict) else ())


def _recipe(path: Path, content: Mapping[str, Any]) -> SignalRecipe:
    fields = Fields(path, content)
    name = fields.text("recipe")
    if missing := [step for step in _STEPS if step not in content]:
        raise ConfigError(f"{path}: {missing[0]!r} is missing, and is a step of the recipe; export the folder again")
    try:
        recipe = SignalRecipe(
            name=name,
            version=fields.count("recipe_version", most=1_000_000),
            sampling_rate_hz=fields.count("sampling_rate_hz", most=10_000),
            seconds=fields.number("seconds"),
            **{step: content[step] for step in _STEPS},
        )
    except (DataError, TypeError) as error:
        raise ConfigError(f"{path}: states a recipe that is not possible ({error}); export the folder again") from error
    # A changed recipe is named `plain(seconds=5.0)`, and one of data prepared before `plain after level`.
    base = name.partition("(")[0].partition(AFTER)[0]
    version = {**{name: known.version for name, known in RECIPES.items()}, _SIMULATED: 1}.get(base)
    if version is None:
        raise ConfigError(
            f"{path}: there is no recipe {base[:60]!a}; there are: {', '.join(RECIPES)}; install the ecgjax that wrote "
            "the folder"
        )
    if version != recipe.version:
        raise ConfigError(
            f"{path}: recordings were prepared by version {recipe.version!r} of the recipe {base}, and this ecgjax has "
            f"version {version}; install the ecgjax that wrote the folder"
        )
    return recipe


def _expect(path: Path, name: str, value: object, expected: object) -> None:
    if value != expected:
        raise ConfigError(
            f"{path}: {name!r} is {ascii(value)[:120]}, and this ecgjax prepares {expected!r}; install the ecgjax that "
            "wrote the folder"
        )
