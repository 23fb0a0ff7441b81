"""Turns the card of a data set into names, values and rows of tables, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.prepared.kept_seconds import kept_sentence
from data_pipelines.prepared.shared_contents import shared_sentence
from data_pipelines.records import NO_FOLD
from data_pipelines.system.counted import counted

#: Numbers of records per patient that are counted separately.
_PATIENT_SIZES = (1, 2, 3, 4)

#: Names and values of a card.
Facts = list[tuple[str, str]]

FOLD_HEADER = ("fold", "records", "patients", "median age", "female")
SCALAR_HEADER = ("name", "unit", "missing", "min", "1 %", "median", "99 %", "max", "mean")
FLAG_HEADER = ("flag", "records", "share")


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """Returns the steps of a recipe as text, filters first, such as `high-pass 0.5 Hz (recipe monitor, version 1)`.

    Args:
        recipe: Recipe as the card has it.
    """
    steps = [
        f"{name} {recipe[field]:g} Hz"
        for field, name in (("notch_hz", "notch"), ("highpass_hz", "high-pass"), ("lowpass_hz", "low-pass"))
        if recipe[field] is not None
    ]
    steps += [f"baseline by {recipe['baseline']} removed"] if recipe["baseline"] != "keep" else []
    return f"{', '.join(steps) or 'no filter'} (recipe {recipe['name']}, version {recipe['version']})"


def origin_facts(card: Mapping[str, Any]) -> Facts:
    """Returns names and values on the origin and the processing of the recordings.

    Args:
        card: Card from `figures.dataset_card`, as in every function below.
    """
    form = card["signal_format"]
    seconds = form["num_samples"] / form["sampling_rate_hz"]
    return [
        ("licence", card["license"] or "not stated"),
        ("citation", card["citation"] or "none"),
        (
            "signals",
            f"{form['sampling_rate_hz']} Hz, {seconds:g} s ({form['num_samples']} samples), leads "
            f"{' '.join(card['leads'])}, int16 in µV",
        ),
        ("processing", recipe_text(card["recipe"])),
        ("fingerprint", card["fingerprint"]),
    ]


def count_facts(card: Mapping[str, Any]) -> Facts:
    """Returns names and values on records and patients, quarantined recordings and duplicates."""
    per_patient, duplicates = card["records_per_patient"], card["duplicates"]
    by_size = {int(size): patients for size, patients in per_patient["patients_by_records"].items()}
    sizes = [f"{size}: {by_size[size]:,}" for size in _PATIENT_SIZES if size in by_size]
    more = sum(patients for size, patients in by_size.items() if size > _PATIENT_SIZES[-1])
    sizes += [f"more: {more:,}"] if more else []
    quarantined = sum(card["quarantined"].values())
    return [
        ("records", f"{card['num_records']:,} stored of {card['records_in']:,} read"),
        ("patients", f"{card['num_patients']:,}"),
        (
            "records per patient",
            f"mean {per_patient['mean']:.2f}, median {per_patient['median']:g}, at most {per_patient['max']}",
        ),
        ("patients by records", "   ".join(sizes)),
        ("quarantined", f"{quarantined:,} ({percent(quarantined / card['records_in'])})"),
        (
            "equal content",
            f"{counted(duplicates['records'], 'record repeats', 'records repeat')} an earlier one, "
            f"{duplicates['under_another_patient']:,} of them under another patient id; "
            f"{counted(duplicates['groups'], 'group')} to split by",
        ),
        *(("many patients", shared_sentence(entry)) for entry in card["shared_contents"]),
        ("seconds", kept_sentence(card["seconds"]) if card["seconds"] else "not known (built before they were kept)"),
    ]


def people_sentences(card: Mapping[str, Any]) -> list[str]:
    """Returns sentences on the number of records of each sex, and on ages."""
    sex, age = card["sex"], card["age_years"]
    sentences = [", ".join(f"{name} {count:,} ({percent(count / card['num_records'])})" for name, count in sex.items())]
    sentences += [f"sex was read {card['sex_reading']}"] if card["sex_reading"] else []
    if not age["known"]:
        return [*sentences, "age unknown throughout"]
    lowest, highest, median = (number(age[name]) for name in ("min", "max", "median"))
    span = f"age {lowest} to {highest} years, median {median}, mean {age['mean']:.1f}"
    return [*sentences, f"{span}; unknown {percent(age['missing_share'])}"]


def fold_rows(folds: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the rows below `FOLD_HEADER`."""
    return [
        (
            # A data set may deal only some of its records to folds.
            "none" if row["fold"] == NO_FOLD else str(row["fold"]),
            f"{row['records']:,}",
            f"{row['patients']:,}",
            number(row["median_age_years"]),
            percent(row["female_share"]),
        )
        for row in folds
    ]


def scalar_rows(scalars: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the rows below `SCALAR_HEADER`."""
    return [
        (
            name,
            # A truth value has no unit, and its mean is a share.
            spread["unit"] or ("0 or 1" if spread["binary"] else ""),
            percent(spread["missing_share"]),
            *(number(spread[key]) for key in ("min", "p1", "median", "p99", "max", "mean")),
        )
        for name, spread in scalars.items()
    ]


def flag_rows(card: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the rows below `FLAG_HEADER`."""
    total = card["num_records"]
    return [(name, f"{count:,}", percent(count / total)) for name, count in card["quality"]["flags"].items()]


def percent(share: float | None) -> str:
    """Returns a share as a percentage, with two decimals below 1 %; a dash for None.

    Args:
        share: Share from 0 to 1.
    """
    if share is None:
        return "–"
    # A rare label must not show as 0.0 %.
    return f"{share:.2%}" if 0 < share < 0.01 else f"{share:.1%}"


def number(value: float | None) -> str:
    """Returns a number as text with four significant digits; a dash for None."""
    return "–" if value is None else f"{value:.4g}"
