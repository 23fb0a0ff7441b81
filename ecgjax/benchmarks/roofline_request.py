"""Numbers of chips and prices of a roofline, from the texts of a command line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecgjax.errors import ConfigError

#: Largest number of chips.
MOST_CHIPS = 100_000


def chip_counts(texts: Sequence[str]) -> list[int]:
    """Returns the numbers of chips that `--chip_counts` gives, in ascending order, each once.

    Raises:
        ConfigError: One is no whole number, or not between 1 and `MOST_CHIPS`.
    """
    given = f"--chip_counts={','.join(texts)}"
    try:
        counts = sorted({int(text) for text in texts})
    except ValueError as error:
        raise ConfigError(f"{given} are no whole numbers; give numbers of chips, such as 1,8,64") from error
    if not counts or not 1 <= counts[0] <= counts[-1] <= MOST_CHIPS:
        raise ConfigError(f"{given} must be numbers from 1 to {MOST_CHIPS:,}")
    return counts


def prices(texts: Sequence[str], chips: Sequence[str]) -> dict[str, float]:
    """Returns the prices of an hour by chip that `--price_per_hour` gives.

    Args:
        texts: Texts such as `h100=2.5`, or one number, which is the price of every chip.
        chips: Names of the chips that are asked for.

    Raises:
        ConfigError: A text is neither, a price is negative or infinite, or a chip is named twice or not asked for.
    """
    given = f"--price_per_hour={','.join(texts)}"
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            price = float(number)
        except ValueError as error:
            raise ConfigError(f"{given}: {text!r} is no price; give CHIP=PRICE, such as h100=2.5") from error
        if not 0 <= price < math.inf:
            raise ConfigError(f"{given}: {text!r} must be 0 or more, and finite")
        if not name and len(texts) > 1:
            raise ConfigError(f"{given}: {text!r} names no chip; give CHIP=PRICE where there are several")
        if name and name not in chips:
            raise ConfigError(f"{given}: {name!r} is none of the chips that are computed: {', '.join(chips)}")
        if name in found:
            raise ConfigError(f"{given} has two prices of {name!r}; give one")
        found |= {name: price} if name else dict.fromkeys(chips, price)
    return found
