"""What an objective needs of other recordings, a patient's or the nearest, set against the data."""

from __future__ import annotations

from ecgjax.data.recordings import Recordings
from ecgjax.data.samplers import SampledSide
from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs.relations import NEGATIVE
from ecgjax.training.embedding_rows import Layout, others_are_negatives, positives_are_other_recordings
from ecgjax.training.run_batches import sampled_side
from ecgjax.training.second_objective import leaves_of_second, rows_of_features
from ecgjax.training.settings import MethodSettings, PretrainingSettings

#: Relation whose positives are the nearest recordings of the data set, and the sampling that draws them together.
NEAREST, DRAWN_TOGETHER = "nearest_in_dataset", "neighbours"


def check_other_recordings(side: SampledSide, settings: PretrainingSettings, layout: Layout) -> None:
    """Checks that some patient has several recordings, where an objective cannot do without.

    Args:
        side: Training side of the split.
        settings: Settings of the run.
        layout: Rows of embeddings that a recording becomes.

    Raises:
        ConfigError: A patient's other recordings are the only positives, or negatives by name, and no patient has two.
    """
    _check(settings.method, side, settings, layout)
    with leaves_of_second():
        for method in settings.methods[1:]:
            _check(method, side, settings, rows_of_features(layout))


def _check(method: MethodSettings, side: SampledSide, settings: PretrainingSettings, layout: Layout) -> None:
    only_positives = positives_are_other_recordings(method, settings.sampling, layout)
    if not only_positives and not others_are_negatives(method):
        return
    repeated, patients = side.patients_with_others
    if repeated:
        return
    none_has_two = (
        f"none of the {patients:,} patients of {settings.data.dir}'s training side (config.data.train_folds) has two "
        "recordings"
    )
    if only_positives:
        raise ConfigError(
            f"config.relation.name={method.relation.name!r} finds no positive: {none_has_two}, and a recording "
            "becomes one row for which nothing is drawn. Give data in which patients repeat, or make views positives: "
            "config.views.num=2 and one of config.augment, as configs/three_kg.py does"
        )
    raise ConfigError(
        f"config.relation.others_of_patient={NEGATIVE!r} finds no such negative: {none_has_two}. Give data in which "
        "patients repeat, or set it to None"
    )


def describe_other_recordings(
    settings: PretrainingSettings, recordings: Recordings, side: SampledSide, layout: Layout
) -> list[str]:
    """Returns printable lines on patients with several recordings or on neighbours, where an objective needs these.

    There is none where they are neither the only positives nor negatives by name.

    Args:
        settings: Settings of the run.
        recordings: Recordings, opened and divided.
        side: Training side of the split.
        layout: Rows of embeddings that a recording becomes.
    """
    lines = _lines(settings.method, settings, recordings, side, layout)
    for method in settings.methods[1:]:
        more = _lines(method, settings, recordings, side, rows_of_features(layout), prefix="second_", loss="second")
        lines += [f"second objective: {line}" for line in more]
    return lines


def _lines(
    method: MethodSettings,
    settings: PretrainingSettings,
    recordings: Recordings,
    side: SampledSide,
    layout: Layout,
    *,
    prefix: str = "",
    loss: str = "loss",
) -> list[str]:
    """Returns the lines of one objective, whose metrics are called by a prefix, and its loss by a name."""
    if method.relation.name == NEAREST and method.objective.weight:
        return _describe_neighbours(
            side,
            space=settings.columns.neighbour_space,
            drawn_together=settings.sampling.name == DRAWN_TOGETHER,
            evaluated=bool(settings.eval_every),
        )
    if others_are_negatives(method):
        repeated, patients = side.patients_with_others
        drawn = "" if settings.sampling.name == "patients" else "; config.sampling.name='patients' draws them together"
        return [
            f"{repeated:,} of {patients:,} patients have two recordings or more, which are negatives of each other "
            f"where they meet in a batch (train/patient_pairs counts them){drawn}"
        ]
    if not positives_are_other_recordings(method, settings.sampling, layout):
        return []
    repeated, patients = side.patients_with_others
    lines = [
        f"{repeated:,} of {patients:,} patients have two recordings or more; those of the others are negatives alone "
        f"(train/{prefix}anchors_without_positive counts them)"
    ]
    validation = recordings.split.val
    evaluated = settings.eval_every and len(validation)
    if evaluated and not sampled_side(settings, recordings, validation).patients_with_others[0]:
        lines.append(
            "no patient of the validation side has two recordings: there is no positive in evaluation, and "
            f"eval/{loss} is 0"
        )
    return lines


def _describe_neighbours(side: SampledSide, *, space: str, drawn_together: bool, evaluated: bool) -> list[str]:
    lines = [f"{side.with_neighbours:,} of {len(side.records):,} recordings have neighbours by {space}"]
    if not drawn_together:
        lines[0] += (
            "; they seldom meet in a batch (train/anchors_without_positive counts those that do not), and "
            f"config.sampling.name={DRAWN_TOGETHER!r} draws them together"
        )
    if evaluated:
        lines.append("recordings of the validation side have no neighbours: eval/loss has no positive but other views")
    return lines
