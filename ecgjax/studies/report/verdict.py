"""The verdict of a study: its best model, and whether pretraining beat what one would do without it.

Everything is read from the table of results, whose differences are paired (same test records, same resamples of the
patients). A difference counts as better or worse where its 95 % interval lies on one side of zero, and is open where
the interval contains zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from data_pipelines.system.counted import counted
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.results import Key, Results
from ecgjax.pages.page import Table

Outcome = Literal["better", "worse", "open", "unknown", "few"]

#: Number of questions up to which each has its own sentences; of more, the verdict counts, and a table follows.
_FEW = 2

#: Words for what a user would do in place of pretraining, where all of it is missing.
_INSTEAD = "labels only, measured intervals or the median beat"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rivals:
    """The models of a study that a verdict is about, by their keys in the table of results.

    Attributes:
        pretrained: Keys of the models with a pretrained encoder. Where there are several, a verdict is about the one
            with the highest value.
        instead: Key of the model that needs no pretraining, by the key of the pretrained model that it is compared
            with, by the name of the alternative in words, such as `"labels only"`.
        random: Key of the same encoder at random initialisation, by the key of the pretrained model.
        title: Function from a key to the model's title.
    """

    pretrained: Sequence[str]
    instead: Mapping[str, Mapping[str, str]]
    random: Mapping[str, str]
    title: Callable[[str], str] = str


class Asked(NamedTuple):
    """A question that has a verdict of its own.

    Attributes:
        task: Task, as in the keys of the results.
        metric: Metric that models are compared by.
        fraction: Fraction of the labels, as in the keys of the results.
        words: Question in words.
        few: Number of the patients with the rarer label, in words, where they are too few to rank models by; else
            empty (`few_patients.too_few_to_rank`).
    """

    task: str
    metric: str
    fraction: float
    words: str
    few: str = ""


class Verdict(NamedTuple):
    """What the results say on one question.

    Attributes:
        asked: Question.
        best: Title of the model with the highest value.
        value: Value of that model.
        leader: Title of the pretrained model that the differences are of; empty where there is none.
        leader_value: Value of the pretrained model.
        instead: Difference of the pretrained model from each model that needs no pretraining, by that model's title.
        random: Difference from the encoder at random initialisation; None where it was not measured.
        lacking: Names of the alternatives that the pretrained model was not compared with.
        several: Number of pretrained models of which the leader has the highest value.
        few: Words for the patients who are too few to rank models by; empty where they are enough.
    """

    asked: Asked
    best: str
    value: Interval
    leader: str
    leader_value: Interval
    instead: Mapping[str, Interval]
    random: Interval | None
    lacking: Sequence[str]
    several: int
    few: str = ""

    @property
    def outcome(self) -> Outcome:
        """Outcome against all alternatives: better than every one, worse than some one, or else open.

        It is `"few"` where too few patients were tested to tell.
        """
        if self.few:
            return "few"
        outcomes = {outcome_of(each) for each in self.instead.values()}
        if not outcomes or outcomes == {"unknown"}:
            return "unknown"
        if outcomes == {"better"}:
            return "better"
        return "worse" if "worse" in outcomes else "open"


def outcome_of(difference: Interval) -> Outcome:
    """Returns what the interval of a difference says of its sign; `"unknown"` where there is no interval."""
    if math.isnan(difference.low) or math.isnan(difference.high):
        return "unknown"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "open"


def verdict_of(results: Results, asked: Asked, rivals: Rivals) -> Verdict | None:
    """Returns what the results say on one question; None where no model has a value.

    Args:
        results: Rows of the table of results.
        asked: Question.
        rivals: Models that the verdict is about.
    """
    whole = Key("", asked.metric, asked.task, asked.fraction)
    values = {
        key.model: value
        for key, value in results.items()
        if key._replace(model="") == whole and not math.isnan(value.estimate)
    }
    if not values:
        return None
    best = max(values, key=lambda model: values[model].estimate)

    def difference(model: str, other: str) -> Interval | None:
        found = results.get(whole._replace(model=model, minus=other)) if other else None
        return None if found is None or math.isnan(found.estimate) else found

    own = [model for model in rivals.pretrained if model in values]
    leader = max(own, key=lambda model: values[model].estimate, default="")
    others = {name: of_model.get(leader, "") for name, of_model in rivals.instead.items()}
    compared = {name: found for name, other in others.items() if (found := difference(leader, other)) is not None}
    lacking = [name for name in rivals.instead if name not in compared]
    random = difference(leader, rivals.random.get(leader, ""))
    lacking += ["the same encoder at random initialisation"] if leader in rivals.random and random is None else []
    return Verdict(
        asked=asked,
        best=rivals.title(best),
        value=values[best],
        leader=rivals.title(leader) if leader else "",
        leader_value=values.get(leader, Interval.missing("there is no pretrained model")),
        instead={rivals.title(others[name]): found for name, found in compared.items()},
        random=random,
        lacking=lacking,
        several=len(own),
        few=asked.few or _withheld([values[name] for name in (leader, *others.values()) if name in values]),
    )


def _withheld(values: Sequence[Interval]) -> str:
    """Returns why an interval has no bounds, where that is for the number of patients; else nothing."""
    reasons = [each.reason for each in values if math.isnan(each.low) and each.reason.startswith("patients with")]
    return reasons[0] if reasons else ""


def verdicts_of(results: Results, questions: Sequence[Asked], rivals: Rivals) -> list[Verdict]:
    """Returns the verdict on every question of which a model has a value, in the order of the questions."""
    return [found for asked in questions if (found := verdict_of(results, asked, rivals)) is not None]


def verdict_text(verdicts: Sequence[Verdict], *, simulated: bool) -> str:
    """Returns the first line of a report: the best model, and whether pretraining beat what one would do without it.

    Args:
        verdicts: Verdicts on the questions of the study.
        simulated: Whether any of the data are simulated.
    """
    patients = "SIMULATED patients. " if simulated else ""
    if not verdicts:
        return f"{patients}No model has a value: nothing can be said about pretraining."
    if len(verdicts) <= _FEW:
        return patients + " ".join(map(_sentences, verdicts))
    return patients + _counted(verdicts)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Returns the table of verdicts, with the pretrained model's least favourable difference on every question."""
    columns: dict[str, Callable[[Verdict], str]] = {
        "question": lambda each: each.asked.words,
        "best model": lambda each: f"{each.best}, {each.asked.metric} {each.value}",
        "pretrained": lambda each: f"{each.leader}, {each.leader_value}" if each.leader else "none",
        "minus the strongest of an ECG without pretraining": _least,
        "minus random": lambda each: "" if each.random is None else each.random.signed(),
    }
    return Table.of(columns, verdicts, caption="Verdict by question")


def _least(verdict: Verdict) -> str:
    if not verdict.instead:
        return "not compared"
    if verdict.few:
        return f"nothing can be concluded ({verdict.few})"
    title, difference = min(verdict.instead.items(), key=lambda each: each[1].estimate)
    return f"{difference.signed()} ({title})"


def _sentences(verdict: Verdict) -> str:
    asked = verdict.asked
    if verdict.few:
        highest = f"{asked.words}: {verdict.best} has the highest {asked.metric} ({verdict.value})."
        # The words come from counted patients, or from the reason of an interval that was withheld.
        only = f"With only {verdict.few}" if verdict.few == asked.few else f"With too few patients ({verdict.few})"
        return f"{highest} {only} nothing can be concluded about which model is better, or about pretraining."
    best = f"{asked.words}: the best model is {verdict.best} ({asked.metric} {verdict.value})."
    return " ".join(filter(None, (best, _against_others(verdict), _against_random(verdict), _not_compared(verdict))))


def _against_others(verdict: Verdict) -> str:
    """Returns the sentence on what one would do without pretraining, with every difference and its interval."""
    if not verdict.leader:
        return f"No pretrained encoder was compared with {_INSTEAD}: this says nothing about pretraining."
    leader = verdict.leader if verdict.leader == verdict.best else f"{verdict.leader} ({verdict.leader_value})"
    leader += f", the best of {verdict.several} pretrained models," if verdict.several > 1 else ""
    begin = {
        "better": "Pretraining beat all that was compared and needs none",
        "worse": "Pretraining did not beat what one would do without it",
        "open": "Whether pretraining beats what one would do without it stays open",
        "unknown": "Whether pretraining beats what one would do without it stays open",
        "few": "",
    }[verdict.outcome]
    if not verdict.instead:
        return f"Whether pretraining beats what one would do without it ({_INSTEAD}) was not measured."
    words = {
        "worse": "worse than",
        "open": "not shown to differ (the interval contains zero) from",
        "better": "better than",
        "unknown": "without an interval of its difference from",
    }
    parts = []
    for outcome, said in words.items():
        of_outcome = {title: each for title, each in verdict.instead.items() if outcome_of(each) == outcome}
        # Where there is no interval, the reason is the same for all, and is said once.
        text = ", ".join(
            f"{title} {f'{each.estimate:+z.3f}' if outcome == 'unknown' else each.signed()}"
            for title, each in of_outcome.items()
        )
        reason = next(iter(of_outcome.values())).reason if of_outcome and outcome == "unknown" else ""
        parts += [f"{said} {text}" + (f" ({reason})" if reason else "")] if of_outcome else []
    return f"{begin}: {leader} is {'; '.join(parts)}."


def _against_random(verdict: Verdict) -> str:
    if verdict.random is None:
        return ""
    words = {
        "better": "It beat the same encoder at random initialisation",
        "worse": "It did worse than the same encoder at random initialisation",
        "open": "From the same encoder at random initialisation no difference was shown (the interval contains zero)",
        "unknown": "Its difference from the same encoder at random initialisation has no interval",
    }
    return f"{words[outcome_of(verdict.random)]}: {verdict.random.signed()}."


def _not_compared(verdict: Verdict) -> str:
    if not verdict.leader or not verdict.lacking or not verdict.instead:
        return ""
    return f"Not compared: {', '.join(verdict.lacking)}."


def _counted(verdicts: Sequence[Verdict]) -> str:
    """Returns the verdict on many questions: how often pretraining beat all alternatives, and the clearest question."""
    outcomes = [each.outcome for each in verdicts]
    best = [each.best for each in verdicts]
    most = max(dict.fromkeys(best), key=best.count)
    # A question is asked at several shares of the labels.
    tasks, shares = len({each.asked.task for each in verdicts}), len({each.asked.fraction for each in verdicts})
    asked = f"{counted(tasks, 'question')} at {counted(shares, 'share')} of the labels"
    text = f"{len(verdicts)} comparisons ({asked}): the best model is {most} in {best.count(most)}."
    if not any(each.leader for each in verdicts):
        return f"{text} No pretrained encoder was compared: this says nothing about pretraining."
    text += (
        f" Pretraining was better than every model without it in {outcomes.count('better')}, worse than one or more in "
        f"{outcomes.count('worse')}, and not shown to be either in {outcomes.count('open')} (intervals contain zero)"
    )
    text += f"; {outcomes.count('unknown')} have no such comparison with an interval" if "unknown" in outcomes else ""
    if "few" in outcomes:
        text += f"; of {outcomes.count('few')} nothing can be concluded, for too few patients have one of the answers"
    told = [each for each in verdicts if not each.few]
    random = [outcome_of(each.random) for each in told if each.random is not None]
    text += f". It beat the same encoder at random in {random.count('better')} of {len(random)}." if random else "."
    compared = [each for each in told if each.instead]
    if compared:
        # The question on which pretraining did best by its least favourable difference.
        shown = max(compared, key=lambda each: min(value.estimate for value in each.instead.values()))
        text += (
            f" Where it did best, {shown.asked.words}, {shown.leader} minus the strongest of these is {_least(shown)}."
        )
    return text
