"""Sentences of an exported model: terms of licences, steps of recipes, and the card that has them."""

import pytest

from data_pipelines.signals.recipe import RECIPES
from ecgjax.config.recipes import load_recipe
from ecgjax.defaults import settings_of
from ecgjax.export.evaluations import Evaluation, Evaluations
from ecgjax.export.licence_terms import is_share_alike, terms_of
from ecgjax.export.model_card import model_card
from ecgjax.export.preprocessor_file import length_rule, preprocessor, recipe_steps
from ecgjax.export.trained_for import trained_for
from ecgjax.settings.sections import flat, tree_of

PTBXL = {
    "name": "ptbxl", "fingerprint": "f1", "records": 3000, "patients": 2000, "simulated": False,
    "licence": "CC-BY-4.0", "citation": "Wagner et al.", "build_command": "python -m data_pipelines.build",
}  # fmt: skip
MIMIC = PTBXL | {"name": "mimic_iv_ecg", "licence": "ODbL-1.0", "records": 10}
MADE = PTBXL | {"name": "simulated", "licence": "not stated", "simulated": True}
SIGNALS = {
    "sampling_rate_hz": 250, "seconds": 10.0, "num_samples": 2500, "stored_leads": ["I", "II"], "stored_unit": "uV",
    "encoder_leads": ["I", "II", "III"], "encoder_unit": "mV",
}  # fmt: skip


def card(*datasets, evaluations=(), **training):
    config = {
        "architecture": "resnet18", "layer": "features", "dimension": 8, "output_shape": [8], "token_dimension": 8,
        "pool": "mean", "statistics": "running", "weights": "last step", "stablehlo": None,
        "data": [{**each, "terms": terms_of(each["licence"], simulated=each["simulated"])} for each in datasets],
        "training": {
            "steps": 5, "batch_size": 2, "exposures": 10, "epochs": 0.5, "git_revision": "abc", "git_dirty": True,
            "objective": {"loss": {"name": "nt_xent"}, "relation": {"name": "same_record"}, "miner": {"name": None}},
            **training,
        },
    }  # fmt: skip
    about = {"signals": SIGNALS, "data": [{**each, "recipe": RECIPES["plain"].to_json()} for each in datasets]}
    return model_card(config, preprocessor(about), Evaluations(list(evaluations), 0, 0), files=["config.json"])


@pytest.mark.parametrize(
    ("licence", "words", "share_alike"),
    [
        ("CC-BY-4.0", "attribution", False),
        ("ODbL-1.0", "share-alike", True),
        ("CC-BY-NC-SA-4.0", "no commercial use", True),
        ("CC-BY-ND-4.0", "no derivatives", False),
        ("not stated", "ask whoever holds", False),
        ("Hospital's own", "as the licence says", False),
    ],
)
def test_terms_say_what_a_licence_asks(licence, words, share_alike):
    assert words in terms_of(licence)
    assert is_share_alike(licence) == share_alike


def test_a_card_says_each_data_sets_licence_and_where_one_is_share_alike():
    text = card(PTBXL, MIMIC)
    assert text.startswith('---\nlicense: "other"\n')
    assert 'datasets: ["ptbxl", "mimic_iv_ecg"]' in text
    assert "SIMULATED DATA" not in text
    assert "SHARE-ALIKE: the licence of mimic_iv_ecg" in text
    assert "ptbxl: licence CC-BY-4.0" in text
    assert "not a medical device" in text
    assert "No evaluation of this checkpoint was made" in text
    assert "loss nt_xent, relation same_record." in text
    assert "abc, with changes that are in no commit" in text
    assert "SHARE-ALIKE" not in card(PTBXL)


def test_a_card_names_a_second_objective():
    second = {"loss": {"name": "triplet"}, "relation": {"name": "same_patient"}, "miner": {"name": "semi_hard"}}
    text = card(PTBXL, second_objective=second)
    assert "- Second objective: loss triplet, relation same_patient, miner semi_hard; its head is no part" in text
    assert "Second" not in card(PTBXL)


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (0.0, "- Objective: predicts 52 measurements of the median beat."),
        (1.0, "- Objective: loss nt_xent, relation same_record; predicts 52 measurements of the median beat."),
    ],
)
def test_a_card_tells_only_what_had_a_weight(weight, told):
    objective = {"loss": {"name": "nt_xent", "weight": weight}, "relation": {"name": "same_record"}, "miner": {}}
    settings = {"task.name": "measurements", "columns.measured_on": "median_beat", "objective.weight": weight}
    text = card(PTBXL, objective=objective, settings=settings)
    assert told in text
    assert ("nt_xent" in text) == (weight > 0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objective.name": "nt_xent", "relation.name": "same_record"}, "loss nt_xent, relation same_record"),
        (
            {"objective.weight": 0, "task.name": "binary", "columns.task": "lvef<40"},
            "predicts the label lvef<40 (yes or no)",
        ),
        (
            {"objective.weight": 0, "task.name": "regression", "columns.task": "age_years"},
            "predicts the value of age_years",
        ),
        ({"objective.weight": 0, "task.name": "binary", "task.weight": 0.0}, "nothing, for every weight was 0"),
        (
            {"objective.weight": 0, "task.name": "measurements", "columns.measurements": ["of another version"]},
            "predicts measurements of the beats of lead II",
        ),
    ],
)
def test_words_for_what_a_pretraining_trained_for(settings, told):
    assert trained_for(settings) == told


def test_the_config_of_measured_waves_trains_no_contrast():
    settings = settings_of(load_recipe("measured_waves:small"))
    assert trained_for(flat(tree_of(settings))) == "predicts 52 measurements of the median beat"


@pytest.mark.parametrize(("datasets", "words"), [((MADE,), "All recordings"), ((PTBXL, MADE), "of simulated, which")])
def test_simulated_data_are_said_in_the_first_line(datasets, words):
    first = card(*datasets).split("\n---\n")[1].splitlines()[0]
    assert first.startswith("**SIMULATED DATA.")
    assert words in first
    assert "nothing here allows to pass the model on" in card(*datasets)


def test_results_of_real_recordings_are_not_called_simulated_for_their_pretraining():
    judged = Evaluation(
        question="lvef<40", data="ptbxl", simulated=False, records=9, patients=8, cautions=0, same_statistics=True,
        rows=[("fine-tuned", "AUROC", "0.8")],
    )  # fmt: skip
    text = card(MADE, evaluations=[judged])
    assert "\n**The encoder was pretrained on SIMULATED recordings (simulated); the numbers are of ptbxl's own" in text
    assert "SIMULATED DATA" not in text
    assert "SIMULATED DATA" in card(MADE, evaluations=[judged._replace(simulated=True)])


def test_steps_of_a_recipe_are_told_in_their_order():
    recipe = RECIPES["monitor"].changed(notch_hz=50.0, baseline="median", cut="center", pad="both")
    steps = recipe_steps(recipe.to_json())
    told = [next(n for n, step in enumerate(steps) if word in step) for word in (
        "scaled to mV", "iirnotch", "high-pass of order 2 at 0.5 Hz", "low-pass of order 4 at 40 Hz", "600 ms",
        "resampled to 250 Hz", "middle 10 s", "±32.767 mV",
    )]  # fmt: skip
    assert told == list(range(8)) == list(range(len(steps)))
    assert len(recipe_steps(RECIPES["plain"].to_json())) == 4


def test_the_length_rule_says_what_is_kept_and_padded():
    rule = length_rule(RECIPES["plain"].to_json())
    assert rule.startswith("Of a longer recording the first 10 s are kept, a shorter one of at least 5 s gets zeros at")
    rule = length_rule(RECIPES["plain"].changed(min_seconds=10.0).to_json())
    assert rule == "Of a longer recording the first 10 s are kept, and one below 10 s is refused."


def test_of_several_recipes_that_of_most_records_is_the_preparation_and_the_others_are_named():
    plain, level = RECIPES["plain"].to_json(), RECIPES["level"].to_json()
    about = {"signals": SIGNALS, "data": [PTBXL | {"recipe": level}, MIMIC | {"recipe": plain}]}
    prepared = preprocessor(about)
    assert (prepared["recipe"], prepared["baseline"]) == ("level", "median")
    assert prepared["other_recipes"] == {"mimic_iv_ecg": plain}
