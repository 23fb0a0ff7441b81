"""Tests of the checks of a command that is put into a queue."""

from __future__ import annotations

import pytest

from ecgjax.errors import ConfigError
from launch.clusters.checked_command import check_command


@pytest.mark.parametrize(
    ("module", "meant"),
    [("ecgjax.pretrian", "did you mean ecgjax.pretrain"), ("launch.ablat", "did you mean launch.ablate")],
)
def test_a_misspelt_module_of_ours_is_refused_and_the_one_meant_is_named(module, meant):
    with pytest.raises(ConfigError, match=f"{module}, the command after --: there is no such module; {meant}"):
        check_command(["/usr/bin/python3.11", "-u", "-m", module, "--config=simclr"])


@pytest.mark.parametrize("module", ["ecgjax.pretrain", "ecgjax.benchmark", "launch.ablate", "theirs.train", "ecgjax"])
def test_modules_that_exist_or_are_not_ours_are_taken(module):
    command = ("python", "-m", module, "--config=simclr")
    assert check_command(command) == command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("python -m ecgjax.pretrain --config=simcl:small", "no recipe of that name; recipes are: clocs"),
        ("python -m ecgjax.pretrain --config simclr:smal", "variants.*small|after the colon"),
        (
            "python3 -u -m ecgjax.pretrain --config=simclr --config.objective.temperatur=.1",
            "no setting config.objective.temperatur of simclr; did you mean config.objective.temperature",
        ),
        ("ecgjax pretrain --config=simclr --config.objective.temperature -1", "temperature=-1.0 is not possible"),
        ("ecgjax finetune --config=finetune:mlp --config.training.stps=3", "did you mean config.training.steps"),
        ("python -m ecgjax.finetune --config=finetune --config.training.steps=many", "many"),
        ("python -m ecgjax.pretrain --config=simclr --noconfig.augment.vgc.enabled", "did you mean config.augment.vcg"),
    ],
)
def test_a_training_that_would_fail_at_once_is_refused(words, told):
    with pytest.raises(ConfigError, match=f"the command after -- would fail: .*({told})"):
        check_command(words.split())


@pytest.mark.parametrize(
    "words",
    [
        "python -m ecgjax.pretrain --config=simclr --config.objective.temperature .2 --noconfig.augment.vcg.enabled",
        "python -m ecgjax.pretrain --config=simclr --config.relation.min_cosine=None --workdir=runs/a",
        "python -m ecgjax.pretrain --config=/only/in/the/image.py --config.their.leaf=1",
        "ecgjax finetune --config=finetune:mlp --config.training.steps=3",
        "python theirs.py --config=theirs --config.leaf=1",
        "ecgjax embed --config=simcl",
    ],
)
def test_a_command_that_is_not_known_to_fail_is_taken_as_it_is(words):
    assert check_command(words.split()) == tuple(words.split())
