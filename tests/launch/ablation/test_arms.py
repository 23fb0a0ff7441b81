"""Sweeps and arms of an ablation."""

import pytest

from ecgjax.errors import ConfigError
from launch.ablation.arms import Arm, arms_of, parse_sweep, shared_changes, short_titles


def test_sweeps_are_alternatives_of_one_or_several_leaves():
    assert parse_sweep("augment.vcg.enabled=True|False") == [
        (("augment.vcg.enabled", "True"),),
        (("augment.vcg.enabled", "False"),),
    ]
    assert parse_sweep("base|relation.name=same_patient sampling.name=patients | config.seed=3") == [
        (),
        (("relation.name", "same_patient"), ("sampling.name", "patients")),
        (("seed", "3"),),
    ]
    assert parse_sweep("data.train_folds=(1,2)|(3,)")[1] == (("data.train_folds", "(3,)"),)


@pytest.mark.parametrize("text", ["", "True|False", "a=1|", "base|False", "=3", "a=1|b c=2"])
def test_what_is_no_sweep_is_refused(text):
    with pytest.raises(ConfigError, match="no alternative"):
        parse_sweep(text)


def test_arms_are_the_grid_of_all_sweeps():
    arms = arms_of(["configs/simclr.py:small", "configs/pclr.py:small"], ["a=1|2", "base|b=3"], common=[("c", "4")])
    assert [arm.title for arm in arms] == [
        "simclr:small a=1", "simclr:small a=1 b=3", "simclr:small a=2", "simclr:small a=2 b=3",
        "pclr:small a=1", "pclr:small a=1 b=3", "pclr:small a=2", "pclr:small a=2 b=3",
    ]  # fmt: skip
    assert len({arm.folder for arm in arms}) == 8
    assert arms[1].flags(seed=7) == [
        "--config=configs/simclr.py:small", "--config.c=4", "--config.a=1", "--config.b=3", "--config.seed=7",
        "--config.probe.seed=7",
    ]  # fmt: skip


def test_a_config_may_bring_changes_of_its_own():
    arms = arms_of(["configs/clocs.py:cmsc,small  encoder.input_samples=500 batch_size=64", "configs/pclr.py"], ["a=1"])
    assert arms[0].config == "configs/clocs.py:cmsc,small"
    assert arms[0].changes == (("encoder.input_samples", "500"), ("batch_size", "64"), ("a", "1"))
    assert arms[1].changes == (("a", "1"),)


def test_what_all_arms_share_is_left_out_of_their_short_titles():
    arms = arms_of(["configs/simclr.py:small a=1 b=2", "configs/pclr.py b=2 a=3"], ["c=5|6"])
    assert shared_changes(arms) == [("b", "2")]
    assert short_titles(arms) == {
        "simclr:small a=1 b=2 c=5": "simclr:small a=1 c=5",
        "simclr:small a=1 b=2 c=6": "simclr:small a=1 c=6",
        "pclr b=2 a=3 c=5": "pclr a=3 c=5",
        "pclr b=2 a=3 c=6": "pclr a=3 c=6",
    }


def test_a_value_that_a_sweep_changes_again_is_not_shared():
    arms = arms_of(["configs/simclr.py a=1"], ["base|a=2"])
    assert shared_changes(arms) == []
    assert [*short_titles(arms).values()] == ["simclr a=1", "simclr a=1 a=2"]


def test_a_single_arm_keeps_its_title():
    assert short_titles(arms_of(["configs/simclr.py a=1"], [])) == {"simclr a=1": "simclr a=1"}


def test_the_same_arm_twice_is_refused():
    with pytest.raises(ConfigError, match="the same"):
        arms_of(["configs/simclr.py:small"], ["a=1|1"])


def test_an_arm_s_own_value_of_a_tuple_takes_the_place_of_the_common_one():
    (arm,) = arms_of(
        ["tests/support/tiny_config.py data.train_folds=(1,2)"], [], common=[("data.train_folds", "(3,4)")]
    )
    assert arm.resolve(seed=0).data.train_folds == (1, 2)


def test_files_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="both called tiny_config, and tables could not tell them apart"):
        arms_of(["tests/support/tiny_config.py", "other/tiny_config.py"], [])


def test_folders_tell_titles_apart_that_look_alike_in_safe_characters():
    one, other = Arm("configs/simclr.py", (("a", "1,2"),)), Arm("configs/simclr.py", (("a", "1_2"),))
    assert one.folder != other.folder
    assert all(character.isalnum() or character in "._=-" for character in one.folder + other.folder)


def test_changes_are_resolved_with_the_leaf_s_type():
    arm = Arm(
        "configs/simclr.py:small",
        (("augment.vcg.enabled", "False"), ("objective.temperature", ".05")),
        (("data.train_folds", "(1,2)"), ("batch_size", "32")),
    )
    config = arm.resolve(seed=5)
    assert config.augment["vcg"]["enabled"] is False
    assert config.objective.arguments["temperature"] == 0.05
    assert config.data.train_folds == (1, 2)
    assert (config.batch_size, config.seed, config.probe.seed) == (32, 5, 5)
    assert config.encoder.name == "resnet18:small"


def test_an_arm_can_be_a_recipe():
    named, file = (Arm(config).resolve(seed=1) for config in ("simclr:small", "configs/simclr.py:small"))
    assert named == file
    assert Arm("simclr:small").title == "simclr:small"


def test_a_leaf_can_be_swept_to_none():
    (with_one, without) = arms_of(["configs/simclr.py:small"], ["relation.min_cosine=.25|None"])
    assert with_one.resolve(seed=0).relation.arguments == {"min_cosine": 0.25}
    assert without.resolve(seed=0).relation.arguments == {}


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        (Arm("configs/absent.py"), "absent: .*there is no config file configs/absent.py"),
        (Arm("simcl:small"), "simcl:small: .*there is no config file simcl, and no recipe .*: clocs"),
        (Arm("simclr", (("gradient_accumulation", "2"),)), "simclr .*config.gradient_accumulation cannot be set"),
        (Arm("configs/simclr.py:large"), "simclr:large: .*after the colon"),
        (
            Arm("configs/simclr.py", (("augment.vgc.enabled", "True"),)),
            "there is no setting config.augment.vgc.enabled .*did you mean",
        ),
        (Arm("configs/simclr.py", (("batch_size", "many"),)), "simclr batch_size=many: .*'many'"),
        (Arm("configs/simclr.py", (("objective.temperature", "-1"),)), "objective.temperature=-1.0 is not possible"),
    ],
)
def test_what_cannot_be_resolved_is_refused_in_one_line(arm, words):
    with pytest.raises(ConfigError, match=words) as raised:
        arm.resolve(seed=0)
    assert "\n" not in str(raised.value)
