"""Readouts by name: the models they add, their titles, what is compared, and what a report says of the choices."""

import dataclasses

import pytest

from ecgjax.data.tasks import BinaryTask
from ecgjax.defaults import RunSettings
from ecgjax.settings.probe import READOUTS, FineTuneSettings, ProbeSettings
from ecgjax.studies.model_names import title_of
from ecgjax.studies.readouts import MODELS_OF_READOUT, changed_choices, models_of, pairs_of, told_of_choices

TASK = BinaryTask(label="lvef", rule="below", threshold=40.0)
ALL = ProbeSettings(readouts=READOUTS, grid=("resnet18 seed=1",))


def _told(probe=ALL, **numbers):
    given = {"train": 20, "val": 320, "models": ("supervised", *models_of(probe))}
    return " ".join(told_of_choices(probe, **given | numbers))


def test_every_readout_has_models_with_titles_of_their_own():
    assert {*MODELS_OF_READOUT} == {*READOUTS}
    assert models_of(ProbeSettings()) == ()
    models = models_of(ALL)
    assert len({*models}) == len(models) == 13
    titles = [title_of(model, TASK) for model in (*models, "pretrained", "random", "supervised")]
    assert len({*titles}) == len(titles)
    for readout in ("mean", "attention"):
        one, random = (title_of(f"{which}_{readout}", TASK) for which in ("pretrained", "random"))
        assert one.partition(", ")[2] == random.partition(", ")[2]


def test_a_comparison_needs_both_models():
    assert pairs_of(["pretrained", "random", "supervised"]) == []
    assert ("pretrained_fusion", "measured") in pairs_of(models_of(ALL))
    for one, other in pairs_of([*models_of(ALL), "pretrained", "supervised", "boosted"]):
        assert one != other
    alone = models_of(ProbeSettings(readouts=("mean",)))
    assert pairs_of(alone) == [("pretrained_mean", "random_mean")]


def test_leaves_at_their_defaults_decide_nothing_and_others_what_they_concern():
    assert changed_choices(RunSettings()) == {}
    probe = dataclasses.replace(
        ALL, strength=0.1, rate_factors=(0.5, 1.0), attention=dataclasses.replace(ALL.attention, queries=7)
    )
    settings = RunSettings(probe=probe)
    every = changed_choices(settings)
    assert every.keys() == {"probe.strength", "probe.rate_factors", "probe.grid", "probe.attention.queries"}
    assert "probe.readouts" not in every, "readouts add models, and change none"
    assert changed_choices(settings, "pretrained").keys() == {"probe.strength"}
    assert changed_choices(settings, "supervised").keys() == {"probe.strength", "probe.rate_factors"}
    assert changed_choices(settings, "random_attention").keys() == {"probe.strength", "probe.attention.queries"}
    assert changed_choices(settings, "random_grid").keys() == {"probe.strength", "probe.grid"}


def test_a_report_says_how_many_labels_choose_and_how_much_was_tried():
    text = _told()
    assert "on all 320 validation records, 16 times as many as the 20 that a model is trained with" in text
    assert "times as many" not in _told(train=320)
    assert "The best of 2 random encoders, the encoder's own initialisation among them" in text
    training = FineTuneSettings(steps=200, batch_size=32, patience=5)
    text = _told(dataclasses.replace(ALL, rate_factors=(0.3, 1.0, 3.0), finetune=training))
    assert "tried 3 learning rates each" in text
    assert "fine-tuned: 3 × at most 200 = 600 steps of 32 records, ending after 5 looks" in text
    assert "labels only: 3 × at most 300 = 900 steps of 64 records" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"select": "labelled"}, "validation labels choose nothing (config.probe.select=labelled)"),
        ({"select": "validation_part"}, "on a part of the validation patients"),
        ({"strength": 0.01}, "C = 0.01 is fixed (config.probe.strength)"),
    ],
)
def test_a_report_says_what_chooses(changed, said):
    text = _told(dataclasses.replace(ALL, **changed))
    assert said in text
    assert ("320 validation records" in text) == ("select" not in changed)
