"""What the licence of a data set asks of a model that was trained on it, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Parts of a licence's short name, and what they ask for.
_ASKS = {
    "by": "attribution (cite the data set)",
    "odbl": "attribution (cite the data set), and share-alike: a database derived from it is passed on under the same "
    "licence",
    "sa": "share-alike: what is derived from it is passed on under the same licence",
    "nc": "no commercial use",
    "nd": "no derivatives",
}

NOT_STATED = "not stated"


def terms_of(licence: str, *, simulated: bool = False) -> str:
    """Returns the terms of a licence in words.

    Args:
        licence: Short name of the licence, such as `"CC-BY-4.0"`, or `NOT_STATED`.
        simulated: Whether the data set was simulated.
    """
    if licence == NOT_STATED:
        if simulated:
            return "not stated; the data set was simulated by ecgjax, and nobody's recording is part of it"
        return "not stated; ask whoever holds the recordings before the model is passed on"
    parts = re.split(r"[^a-z]+", licence.lower())
    asked = [words for name, words in _ASKS.items() if name in parts]
    return "; ".join(asked) or "as the licence says"


def is_share_alike(licence: str) -> bool:
    """Returns whether a licence asks that what is derived has the same licence."""
    return "share-alike" in terms_of(licence)


def data_of(datasets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what leaves of the data sets of a training: counts of what was trained on, licence and its terms.

    Args:
        datasets: Data sets as `about.json` describes them.
    """
    names = ("name", "fingerprint", "records", "patients", "simulated", "licence", "citation", "build_command")
    return [
        {
            **{name: dataset[name] for name in names},
            "terms": terms_of(dataset["licence"], simulated=dataset["simulated"]),
        }
        for dataset in datasets
    ]


def data_of_training(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what leaves of the data sets of a run, as `data_of` does.

    Those of the training whose weights the run began with come last, each with the name of that encoder in
    `begun_from`.

    Args:
        about: What the run says of itself.
    """
    begun_from = about.get("begun_from")
    earlier = [] if begun_from is None else [{"begun_from": begun_from["name"], **each} for each in begun_from["data"]]
    return [*data_of(about["data"]), *earlier]
