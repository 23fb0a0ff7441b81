"""Small questions of every kind, and of toys, whose models answer with more and more noise."""

import dataclasses
import functools
import math

import numpy as np

from ecgjax.data.groups import bands
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.evaluation.features.features import SplitFeatures
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import KINDS, kind_of
from ecgjax.studies.model_names import BESIDE, answerable
from ecgjax.studies.one_task.pipeline import measure_task
from ecgjax.studies.one_task.supplement import Report
from ecgjax.studies.report.report import Provenance
from tests.support.toy_kinds import TOYS

NUM = 320
HIDDEN = np.random.default_rng(0).normal(size=(NUM // 2, 2)).repeat(2, axis=0)
HIDDEN += 0.2 * np.random.default_rng(1).normal(size=(NUM, 2))
PRESSURE = 14 + 5 * HIDDEN[:, 0]
SPLITS = {"train": np.arange(120), "val": np.arange(120, 200), "test": np.arange(200, NUM)}

# The third class has three positive test records, the fourth none, the fifth no training record.
CLASSES = ("af", "lvh", "rare", "gone", "new")
FINDINGS = np.stack([HIDDEN[:, 0] > 0.5, HIDDEN[:, 1] > 0.3, HIDDEN[:, 0] > 1.2, HIDDEN[:, 1] > 0, HIDDEN[:, 0] < 0], 1)
FINDINGS[SPLITS["test"][HIDDEN[200:, 0].argsort()[:-3]], 2] = False
FINDINGS[SPLITS["test"], 3] = False
FINDINGS[SPLITS["train"], 4] = False

GROUPS = {
    "sex": np.where(SPLITS["test"] // 2 % 2, "female", "male").astype(object),
    "age": bands(np.tile([30.0, 30.0, 50.0, 50.0, np.nan, np.nan, 80.0, 80.0], NUM // 8)[SPLITS["test"]], (40, 60, 75)),
}

PROVENANCE = Provenance(
    data="cohort",
    fingerprint="abc123",
    simulated=True,
    encoder="resnet18",
    checkpoint_step=1200,
    config={"seed": 0, "probe": {"label": "lvef", "threshold": math.nan}},
    command="python -m ecgjax.evaluate --workdir=run",
    cautions=("A caution.",),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyTask:
    """A question of a kind of our own."""

    kind: str
    title: str
    label: str = "x"


#: Kind → task, labels, what models see of them, names of classes.
_QUESTIONS = {
    "binary": (BinaryTask(label="lvef", rule="below", threshold=40.0), HIDDEN[:, 0] > 0.3, HIDDEN[:, 0], ()),
    "multilabel": (MultiLabelTask(task="findings"), FINDINGS, HIDDEN[:, [0, 1, 0, 1, 0]], CLASSES),
    "quantity": (QuantityTask(label="wedge_pressure"), PRESSURE, PRESSURE, ()),
    "trend": (ToyTask(kind="trend", title="grade"), np.digitize(HIDDEN[:, 0], (-1, 0, 1)), HIDDEN[:, 0], ()),
    "pooled": (ToyTask(kind="pooled", title="signs"), HIDDEN > 0, HIDDEN, ("first", "second")),
}

#: Kinds with those that no module of the code knows of.
WITH_TOYS = {**KINDS, **TOYS}


def small_data(kind):
    """Returns the labelled records of a question."""
    task, labels, _, classes = _QUESTIONS[kind]
    labels = labels.astype(np.int64 if labels.dtype == bool else np.float64)
    parts = {
        name: LabelledRecords(records=records, labels=labels[records], patients=records // 2, unlabelled=3)
        for name, records in SPLITS.items()
    }
    return ProbeData(
        task=task, **parts, train_available=parts["train"], label_fraction=1.0, seed=0,
        excluded={"duplicate": 4, "other_fold": 0}, classes=classes,
    )  # fmt: skip


def small_models(data):
    """Returns the answers of all models, each with more noise than the one before; `supervised` is off by 1."""
    _, _, seen, _ = _QUESTIONS[data.task.kind]
    spread, models = seen.std(), {}
    for number, name in enumerate(answerable(("pretrained", "nearest", *BESIDE), data.task)):
        noise = np.random.default_rng(number).normal(size=seen.shape)
        outputs = seen + 1 if name == "supervised" else seen + 0.4 * (number + 1) * spread * noise
        outputs = np.full_like(seen, data.train.labels.mean()) if name == "mean" else outputs
        val, test = outputs[SPLITS["val"]], outputs[SPLITS["test"]]
        value = kind_of(data.task).value(data.val.labels, val, classes=data.classes)
        selected = "" if name == "mean" else f"C = 0.{number} of 13"
        models[name] = Answers(outputs=test, val_outputs=val, val_metric=value, selected=selected)
    return models


def small_report(**changes):
    """Returns what reports are asked for."""
    asked = {"resamples": 200, "seed": 0, "groups": GROUPS, "treat_at": (0.1, 0.3), "prevalence": 0.05, "shuffles": 4}
    return Report(**(asked | {"progress": False} | changes))


def measured_task(data, models, report):
    """Measures models with embeddings of which the pretrained encoder's are near to what labels rest on."""
    draw = np.random.default_rng(5)
    embeddings = {
        name: np.c_[HIDDEN + noise * draw.normal(size=(NUM, 2)), draw.normal(size=(NUM, 3))]
        for name, noise in (("pretrained", 0.3), ("random", 3.0))
    }
    of_splits = {
        name: SplitFeatures(**{side: values[records] for side, records in SPLITS.items()})
        for name, values in embeddings.items()
    }
    return measure_task(models, data, report, embeddings=of_splits, measurement_failures={"no beat found": 2})


@functools.cache
def small_task(kind):
    """Returns the measured question of a kind; toys need to be among `kinds.KINDS`."""
    data = small_data(kind)
    return measured_task(data, small_models(data), small_report())
