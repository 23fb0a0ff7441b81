"""The file `preprocessor_config.json`: how a raw recording becomes what the encoder takes, as the training data did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipelines.signals.conversion import MOST_CLIPPED
from data_pipelines.signals.lead_checks import LOWEST_SOURCE_RATE_HZ
from data_pipelines.signals.quality import STORED_LIMIT_UV
from data_pipelines.signals.recipe import SignalRecipe
from ecgjax.training.about import About

#: What stands between the names of a recipe and of the one that the recordings had been prepared with before.
_AFTER = " after "

# Fields of a recipe that the file has under other names.
_SAID = ("name", "version", "sampling_rate_hz", "seconds")


def preprocessor(about: About) -> dict[str, Any]:
    """Returns the content of the file.

    Args:
        about: What the run says of itself. Of several data sets with different recipes, the recipe is that of the one
            with the most records.
    """
    signals = about["signals"]
    most = max(about["data"], key=lambda dataset: dataset["records"])
    # Recipes that are older than a field did what the field's default does.
    recipe = SignalRecipe(name="", version=0).to_json() | most["recipe"]
    others = {each["name"]: each["recipe"] for each in about["data"] if each["recipe"] != most["recipe"]}
    return {
        "sampling_rate_hz": signals["sampling_rate_hz"],
        "seconds": signals["seconds"],
        "num_samples": signals["num_samples"],
        "leads": signals["stored_leads"],
        "encoder_leads": signals["encoder_leads"],
        "unit": signals["stored_unit"],
        "encoder_unit": signals["encoder_unit"],
        "dtype": "int16",
        "recipe": recipe["name"],
        "recipe_version": recipe["version"],
        # Every other field of the recipe, under its own name.
        **{name: value for name, value in recipe.items() if name not in _SAID},
        "recipe_steps": recipe_steps(recipe),
        "length_rule": length_rule(recipe),
        "rate_rule": rate_rule(recipe),
        "other_recipes": others,
    }


def recipe_steps(recipe: Mapping[str, Any]) -> list[str]:
    """Returns what a recipe does to a recording, a sentence a step, in order.

    Args:
        recipe: Every field of a `SignalRecipe`.
    """
    earlier = recipe["name"].partition(_AFTER)[2]
    limit = f"±{STORED_LIMIT_UV / 1e3:g} mV"
    steps = [
        earlier and f"The recordings had been prepared before, by the recipe {earlier}.",
        "The leads I, II and V1 to V6 are taken by their names and scaled to mV.",
        recipe["notch_hz"]
        and f"A notch takes out {recipe['notch_hz']:g} Hz (scipy.signal.iirnotch of quality 30, filtfilt), where half "
        "of the recording's rate is above it.",
        recipe["highpass_hz"]
        and f"A Butterworth high-pass of order 2 at {recipe['highpass_hz']:g} Hz is applied forwards and backwards.",
        recipe["lowpass_hz"]
        and f"A Butterworth low-pass of order 4 at {recipe['lowpass_hz']:g} Hz is applied forwards and backwards, "
        "where half of the recording's rate is above it.",
        recipe["baseline"] == "median"
        and "The baseline, a running median over 200 ms and then over 600 ms, is subtracted.",
        rate_rule(recipe),
        length_rule(recipe),
        f"Samples are rounded to whole µV and stored as int16; those beyond {limit} become that limit, and a lead with "
        f"more than {MOST_CLIPPED:.0%} of such samples is refused.",
    ]
    return [step for step in steps if step]


def rate_rule(recipe: Mapping[str, Any]) -> str:
    """Returns what is done to a recording of another rate, in a sentence."""
    return (
        f"A recording of another rate, {LOWEST_SOURCE_RATE_HZ} Hz at least, is resampled to "
        f"{recipe['sampling_rate_hz']} Hz by polyphase filtering (scipy.signal.resample_poly with padtype='line'), "
        "after all filters."
    )


def length_rule(recipe: Mapping[str, Any]) -> str:
    """Returns what is done to shorter and longer recordings, in a sentence."""
    kept = "middle" if recipe["cut"] == "center" else "first"
    padded = "on both sides, so that it stands in the middle" if recipe["pad"] == "both" else "at its end"
    if recipe["min_seconds"] >= recipe["seconds"]:
        return (
            f"Of a longer recording the {kept} {recipe['seconds']:g} s are kept, and one below "
            f"{recipe['min_seconds']:g} s is refused."
        )
    return (
        f"Of a longer recording the {kept} {recipe['seconds']:g} s are kept, a shorter one of at least "
        f"{recipe['min_seconds']:g} s gets zeros {padded}, and one below {recipe['min_seconds']:g} s is refused."
    )
