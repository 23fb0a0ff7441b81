"""What a made-up file says, written down while it is written: the truth that `fuzz_meanings.py` judges readers by.

A writer of files asks the book for everything that it says (`book.rate("attribute fs")`) and writes what it gets. One
of these answers may be another than the rest: the mutation. Nothing here knows how any reader works.
"""

import dataclasses
from typing import Any

import numpy as np

from data_pipelines.records import STANDARD_LEADS

TRUE_RATE, RATES = 500, (100, 128, 200, 250, 256, 360, 400, 1000, 240, 480)
#: Microvolts of a unit.
UNITS = {"mV": 1e3, "uV": 1.0, "V": 1e6}
SPELLINGS = {
    "mV": ("mV", "mv", "millivolt", "millivolts", "Millivolt"),
    "uV": ("uV", "µV", "μV", "microvolt", "microvolts", "uv"),
    "V": ("V", "volt", "volts", "v"),
}
FACTORS = (0.1, 0.2, 0.5, 0.8, 1.25, 2.0, 4.88 / 2.5, 5.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Saying:
    """One thing that a file or its declaration says.

    Attributes:
        field: what it is about.
        where: the place that says it.
        meaning: comparable with that of others of its field; None where the place was left out.
        texts: how the meaning may be spelled in a message.
    """

    field: str
    where: str
    meaning: Any
    texts: tuple[str, ...] = ()


class Book:
    """Answers a writer and remembers what it was told to write.

    Args:
        generator: of choices that a writer makes.
        target: number of the saying to change, -1 for none.
        change: generator of the change.
    """

    def __init__(self, generator: np.random.Generator, *, target: int = -1, change: np.random.Generator | None = None):
        self.generator, self._target, self._change = generator, target, change
        self.sayings: list[Saying] = []
        self.mutation = ""

    def pick(self, choices: Any) -> Any:
        """Returns one of several."""
        return choices[int(self.generator.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        """Tells whether something happens that does so often."""
        return bool(self.generator.random() < share)

    def _say(self, field: str, where: str, true: Any, others: Any, *, may_miss: bool, spelled: Any) -> Any:
        value = true
        if len(self.sayings) == self._target:
            missing = may_miss and self._change.random() < 0.15
            value = None if missing else others[int(self._change.integers(len(others)))]
            self.mutation = f"{field} of {where}: {_short(true)} -> {_short(value)}"
        self.sayings.append(Saying(field, where, value, () if value is None else spelled(value)))
        return value

    def rate(self, where: str, *, may_miss: bool = False) -> float | None:
        """Returns a rate in Hz to write."""
        return self._say("rate", where, TRUE_RATE, RATES, may_miss=may_miss, spelled=_rate_texts)

    def unit(self, where: str, true: str, *, may_miss: bool = False) -> str | None:
        """Returns a unit to write, in one of its spellings."""
        others = [unit for unit in UNITS if unit != true]
        unit = self._say("unit", where, true, others, may_miss=may_miss, spelled=lambda unit: SPELLINGS[unit])
        return None if unit is None else self.pick(SPELLINGS[unit])

    def step(self, where: str, true: float, *, may_miss: bool = False) -> float | None:
        """Returns the microvolts of a count."""
        others = [true * factor for factor in FACTORS]
        return self._say("step", where, true, others, may_miss=may_miss, spelled=_step_texts)

    def zero(self, where: str, true: int) -> int:
        """Returns the count of no voltage."""
        return self._say("zero", where, true, (true + 80, true - 400, true + 7), may_miss=False,
                         spelled=lambda zero: (f"{zero:g}",))  # fmt: skip

    def leads(
        self, where: str, true: tuple[str, ...] = STANDARD_LEADS, *, may_miss: bool = False, free_text: bool = False
    ) -> tuple | None:
        """Returns the standard names of all columns in order; in free text a name that is no lead's means nothing."""
        others = [names for names in _other_leads(true) if not free_text or set(names) <= set(true)]
        return self._say("leads", where, true, others, may_miss=may_miss, spelled=lambda names: names)

    def orientation(self, where: str, true: str) -> str:
        """Returns `time_lead` or `lead_time`."""
        other = "lead_time" if true == "time_lead" else "time_lead"
        return self._say("orientation", where, true, (other,), may_miss=False, spelled=lambda name: ())

    def other(self, field: str, where: str, true: tuple[str, Any], others: Any) -> str:
        """Returns a text whose meaning the caller knows: `true` and `others` are pairs of text and meaning."""
        pair = self._say(field, where, true, others, may_miss=False, spelled=lambda pair: (pair[0],))
        self.sayings[-1] = dataclasses.replace(self.sayings[-1], meaning=pair[1])
        return pair[0]

    def fixed(self, field: str, where: str, meaning: Any) -> None:
        """Notes what a file says by its shape."""
        self.sayings.append(Saying(field, where, meaning))

    def said(self, field: str) -> list[Saying]:
        """Returns all that was said of a field."""
        return [saying for saying in self.sayings if saying.field == field and saying.meaning is not None]

    def meanings(self, field: str) -> list[Any]:
        """Returns the different meanings of a field."""
        found: list[Any] = []
        for saying in self.said(field):
            if not any(_same(saying.meaning, other) for other in found):
                found.append(saying.meaning)
        return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-6))
    return one == other


def _short(value: Any) -> str:
    return " ".join(map(str, value))[:60] if isinstance(value, tuple) else str(value)


def _rate_texts(rate: float) -> tuple[str, ...]:
    return tuple(f"{value:.6g}" for value in (rate, 1 / rate, 1e3 / rate, 1e6 / rate, rate / 1e3))


def _step_texts(step: float) -> tuple[str, ...]:
    return tuple(f"{value:.4g}" for value in (step, step / 1e3, 1e3 / step, 1 / step))


def _other_leads(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    def exchanged(first: int, second: int) -> tuple[str, ...]:
        changed = list(names)
        changed[first], changed[second] = changed[second], changed[first]
        return tuple(changed)

    first, last, twice, foreign = names.index("V1"), len(names) - 1, list(names), list(names)
    twice[last], foreign[last] = names[first], "X1"
    return [exchanged(0, 1), exchanged(first, last), exchanged(0, first), exchanged(last - 1, last), names[::-1],
            tuple(twice), tuple(foreign), (*names[first:], *names[:first])]  # fmt: skip
