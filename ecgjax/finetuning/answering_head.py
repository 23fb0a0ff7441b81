"""A trained head that answers a question: what its outputs stand for, and the one formula from outputs to answers.

Training, evaluation, exported files and `ecgjax.load` take probabilities and decisions from here, so that they agree.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from scipy import special

from data_pipelines.errors import DataError
from ecgjax import encoders
from ecgjax.data.tasks import Kind, parse_task
from ecgjax.errors import ConfigError, check_known
from ecgjax.evaluation.models.kinds import KINDS
from ecgjax.training.tasks.heads import HEADS, LinearHead, TaskHead

#: Most outputs of a head, and most signs of a name.
MOST_OUTPUTS, MOST_SIGNS = 4096, 300

#: Largest size of each number of a calibration. Outputs that hardly differ, as those of a head after its first steps,
#: have a steep slope and, where their mean is far from 0, a large intercept.
MOST_OF_CALIBRATION: Mapping[str, float] = {"offset": 1e3, "slope": 1e9, "intercept": 1e12}

#: Most records that a calibration can have been fitted on.
MOST_RECORDS = 10**12

#: Largest width between the layers of a head.
MOST_HIDDEN = 2**16

#: A head's weights and statistics, with its structure.
Head = encoders.Split[LinearHead | TaskHead]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOutput:
    """What one output of a head stands for.

    Log odds become a probability p by logit p = slope · (output − offset) + intercept.

    Attributes:
        name: Name of the class where a record has several labels; else the question itself.
        offset: Number that is subtracted from the log odds, because balanced batches or weights trained at another
            prevalence (`Network.offset`); 0 for a quantity.
        slope: Slope of the calibration on the log odds; 1 where there is none. It is above 0, for another would rank
            records backwards: leave 1 and 0 where a fit gives such a slope.
        intercept: Intercept of the calibration on the log odds; 0 where there is none.
        threshold: Probability from which on the answer is yes; None for a quantity, and where none could be chosen
            (also where the rule found none that is finite).
        records: Number of records that calibration and threshold were fitted on; 0 where neither was.
        positives: Number of them that are positive; None for a quantity.
    """

    name: str
    offset: float = 0.0
    slope: float = 1.0
    intercept: float = 0.0
    threshold: float | None = None
    records: int = 0
    positives: int | None = None

    @property
    def prevalence(self) -> float | None:
        """Share of positives among the records of calibration and threshold; None where there are none."""
        return self.positives / self.records if self.records and self.positives is not None else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnsweringHead:
    """What a head answers, and how its outputs become answers. Weights are apart, as a `Head`.

    Attributes:
        question: Question in one line, the title of a task: `"lvef<40"`, `"superdiagnostic:*"`, `"age_years"`.
        kind: Kind of the question, a key of `KINDS`.
        outputs: What each output stands for, in order.
        unit: Unit of a quantity; empty where it is not known, and for log odds.
        selected: Description of the weights that were chosen, such as `"step 900, best AUROC on the validation
            records"`.
        calibration: Description of the calibration, such as `"Platt scaling"`; empty where there is none.
        threshold_rule: Name of the rule of the thresholds, such as `"highest F1"`; empty where there are none.
        chosen_on: Description of the records that calibration and thresholds were fitted on, such as `"the validation
            records, fold 9"`; empty where there are neither.
        data: The labelled data sets of training and validation, each as `about.json` describes those of a pretraining:
            `name`, `fingerprint`, `records`, `patients`, `simulated`, `licence`, `citation`, `build_command`.
        training: Settings of the training with labels, as values of JSON without paths.

    Raises:
        ConfigError: A field is of another type, out of its bound, or contradicts the kind of the question; the message
            names the field.
    """

    question: str
    kind: Kind
    outputs: tuple[HeadOutput, ...]
    unit: str = ""
    selected: str = ""
    calibration: str = ""
    threshold_rule: str = ""
    chosen_on: str = ""
    data: tuple[Mapping[str, Any], ...] = ()
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("question", "kind", "unit", "selected", "calibration", "threshold_rule", "chosen_on"):
            _check_text(name, getattr(self, name))
        check_known(self.kind, KINDS, setting="kind")
        try:
            kind = parse_task(self.question, asked_by="question").kind
        except DataError as error:
            raise ConfigError(str(error)) from error
        if kind != self.kind:
            raise ConfigError(f"kind={self.kind!r} does not fit question={self.question!r}, which is of {kind!r}")
        self._check_outputs()
        if self.log_odds and self.unit:
            raise ConfigError(
                f"unit={self.unit!r} is for a quantity, and {self.question!r} is answered by probabilities"
            )

    def _check_outputs(self) -> None:
        names = [output.name for output in self.outputs]
        if not 1 <= len(names) <= MOST_OUTPUTS:
            raise ConfigError(f"outputs: there are {len(names)}, and a head has 1 to {MOST_OUTPUTS:,}")
        if not self.has_classes and len(names) > 1:
            raise ConfigError(f"outputs: there are {len(names)}, and {self.question!r} has one answer")
        for output in self.outputs:
            _check_output(output, log_odds=self.log_odds)
        if doubled := [name for name, number in collections.Counter(names).items() if number > 1]:
            raise ConfigError(f"outputs: two are called {ascii(doubled[0])[:120]}; name each once")

    @property
    def log_odds(self) -> bool:
        """Whether outputs are log odds, and answers probabilities; else both are values of a quantity."""
        return KINDS[self.kind].log_odds

    @property
    def has_classes(self) -> bool:
        """Whether a record has an answer for each class, `[n, classes]`, and not one, `[n]`."""
        return self.kind == "multilabel"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty where a record has one answer."""
        return tuple(output.name for output in self.outputs) if self.has_classes else ()

    @property
    def simulated(self) -> bool:
        """Whether any labelled data set was simulated."""
        return any(dataset.get("simulated") for dataset in self.data)

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the answers to what a head gives for some records, computed in float64.

        Args:
            outputs: Outputs of the head as they are, offsets not yet subtracted, `f32[n, outputs]`.

        Returns:
            Probabilities after calibration, or values in the unit of a quantity: `f64[n]`, or `f64[n, classes]`.

        Raises:
            ConfigError: The head has another number of outputs.
        """
        values = np.asarray(outputs, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.outputs):
            raise ConfigError(f"outputs are {list(values.shape)}, and {self.question!r} has [n, {len(self.outputs)}]")
        if self.log_odds:
            offset, slope, intercept = self._calibration(np.float64)
            values = special.expit(slope * (values - offset) + intercept)
        return values if self.has_classes else values[:, 0]

    def traced_answers(self, outputs: Array) -> Array:
        """Returns what `answers` does within a compiled function in float32, `f32[n, outputs]` for every kind."""
        if not self.log_odds:
            return outputs
        offset, slope, intercept = (numbers[None, :] for numbers in self._calibration(np.float32))
        return jax.nn.sigmoid(slope * (outputs - offset) + intercept)

    def decisions(self, answers: np.ndarray) -> np.ndarray:
        """Returns whether answers reach the thresholds, `bool` of their shape.

        Args:
            answers: Probabilities, as `answers` returns them.

        Raises:
            ConfigError: The answers are values of a quantity or of another shape, or an output has no threshold.
        """
        self.check_decides()
        given, classes = np.asarray(answers), (len(self.outputs),) if self.has_classes else ()
        if given.shape[1:] != classes or given.ndim != 1 + len(classes):
            raise ConfigError(f"answers are {list(given.shape)}, and those of {self.question!r} {['n', *classes]}")
        thresholds = np.array([output.threshold for output in self.outputs], np.float64)
        return given >= (thresholds[None, :] if self.has_classes else thresholds[0])

    def check_decides(self) -> None:
        """Checks that every answer has a threshold; errors are those of `decisions`."""
        if not self.log_odds:
            raise ConfigError(
                f"{self.question!r} is answered by a value and has no threshold; compare it with your own"
            )
        if without := [output.name for output in self.outputs if output.threshold is None]:
            raise ConfigError(
                f"no threshold could be chosen for {without[0]!r}; compare what predict returns with one of your own"
            )

    def _calibration(self, dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns offsets, slopes and intercepts, each `[outputs]`."""
        offset, slope, intercept = (
            np.array([getattr(output, name) for output in self.outputs], dtype)
            for name in ("offset", "slope", "intercept")
        )
        return offset, slope, intercept


def _check_output(output: HeadOutput, *, log_odds: bool) -> None:
    """Checks the numbers of one output."""
    _check_text("outputs: name", output.name)
    which = f"outputs: {ascii(output.name)[:120]}"
    if not output.name:
        raise ConfigError("outputs: a name is empty; give the class, or the question where there is one answer")
    for name, most in MOST_OF_CALIBRATION.items():
        value = getattr(output, name)
        if not _is_number(value) or not -most <= value <= most:
            raise ConfigError(f"{which} has {name}={ascii(value)[:60]}, and must have a number of at most ±{most:g}")
    if output.slope <= 0:
        raise ConfigError(f"{which} has slope={output.slope:g}, which ranks backwards; it must be above 0")
    threshold = output.threshold
    if threshold is not None and (not _is_number(threshold) or not 0 <= threshold <= 1):
        raise ConfigError(
            f"{which} has threshold={ascii(threshold)[:60]}, and must have a probability from 0 to 1, or none"
        )
    _check_counts(which, output)
    if not log_odds and (output.offset, output.slope, output.intercept, threshold, output.positives) != (
        0, 1, 0, None, None,
    ):  # fmt: skip
        raise ConfigError(f"{which} is a quantity, which has no log odds: leave offset, calibration and threshold out")


def _check_counts(which: str, output: HeadOutput) -> None:
    records, positives = output.records, output.positives
    counts = [records, *([] if positives is None else [positives])]
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in counts)
    if not whole or not 0 <= counts[-1] <= records <= MOST_RECORDS:
        raise ConfigError(
            f"{which} has positives={ascii(positives)[:60]} of records={ascii(records)[:60]}; give whole numbers, and "
            "no more positives than records"
        )


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > MOST_SIGNS:
        raise ConfigError(f"{name}={ascii(value)[:80]} must be a text of at most {MOST_SIGNS} signs")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A whole number can be too large for a float.
    return isinstance(value, int) or math.isfinite(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadStructure:
    """Structure of a head, from which one without weights can be made.

    Attributes:
        name: Name of the structure, a key of `HEADS`: `"linear"` for one layer, `"mlp"` for two with batch norm.
        hidden: Width between the two layers of `"mlp"`; None for `"linear"`.

    Raises:
        ConfigError: There is no such structure, or it has no such width.
    """

    name: str
    hidden: int | None

    def __post_init__(self) -> None:
        check_known(self.name, HEADS, setting="structure")
        hidden = self.hidden
        if (self.name == "linear") != (hidden is None):
            raise ConfigError(
                f"hidden={ascii(hidden)[:60]} does not fit structure={self.name!r}; only 'mlp' has a width"
            )
        if hidden is not None and (isinstance(hidden, bool) or not isinstance(hidden, int)):
            raise ConfigError(f"hidden={ascii(hidden)[:60]} must be a whole number")
        if hidden is not None and not 1 <= hidden <= MOST_HIDDEN:
            raise ConfigError(f"hidden={ascii(hidden)[:60]} must lie between 1 and {MOST_HIDDEN:,}")

    def abstract(self, dim: int, *, outputs: int) -> Head:
        """Returns a head with shapes in place of arrays, for `dim` features and a number of outputs."""
        return encoders.split(nnx.eval_shape(lambda: self._module(dim, outputs)))

    def _module(self, dim: int, outputs: int) -> LinearHead | TaskHead:
        if self.hidden is None:
            return LinearHead(dim, outputs=outputs)
        return TaskHead(dim, hidden=self.hidden, dropout=0.0, outputs=outputs, rngs=nnx.Rngs(0))


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head with its weights, and what it answers.

    Attributes:
        split: Graph definition, parameters and statistics of the head.
        about: Question of the head, and how its outputs become answers.
    """

    split: Head
    about: AnsweringHead

    def check_fits(self, feature_dim: int) -> None:
        """Checks that the head takes an encoder's features, and has the outputs that are described.

        Args:
            feature_dim: Number of features of the encoder.

        Raises:
            ConfigError: A weight of the head has another shape.
        """
        expected = structure_of(self.split).abstract(feature_dim, outputs=len(self.about.outputs))
        shapes = [jax.tree.map(jnp.shape, (split.params, split.stats)) for split in (self.split, expected)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"the head's weights have the shapes {shapes[0]}, and {len(self.about.outputs)} outputs of "
                f"{feature_dim} features need {shapes[1]}; describe every output of the head, and give its own encoder"
            )

    def outputs(self, arrays: Mapping[str, Any], features: Array) -> Array:
        """Returns the outputs at inference, `f32[n, outputs]`, as a pure function of weights and features.

        Args:
            arrays: Arrays of the head, by `"params"` and `"stats"`.
            features: Features of an encoder, `f32[n, dim]`.
        """
        head = encoders.merge(encoders.Split(self.split.graph, arrays["params"], arrays["stats"]))
        return jnp.asarray(head(features, train=False))


def structure_of(head: Head) -> HeadStructure:
    """Returns the structure of a head."""
    module = encoders.merge(head)
    hidden = module.inner.out_features if isinstance(module, TaskHead) else None
    return HeadStructure(name="linear" if hidden is None else "mlp", hidden=hidden)
