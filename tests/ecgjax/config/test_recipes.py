"""Configs by name: which file a name means, how it reaches the commands, and what is said of a name that is none.

What the command says of one is in tests/project/wrong_lines_of_pretraining.py.
"""

from pathlib import Path

import pytest

from configs import clocs, simclr
from ecgjax import defaults
from ecgjax.config import recipes
from ecgjax.errors import ConfigError

ROOT = Path(__file__).parents[3]


def test_a_name_is_the_file_of_that_name_with_its_variant():
    assert recipes.load_recipe("simclr:small").to_dict() == simclr.get_config("small").to_dict()
    assert recipes.load_recipe("clocs:cmlc,small").to_dict() == clocs.get_config("cmlc,small").to_dict()
    assert recipes.load_recipe("simclr").to_dict() == simclr.get_config().to_dict()
    assert recipes.path_of("clocs:cmlc,small") == f"{ROOT / 'configs/clocs.py'}:cmlc,small"


@pytest.mark.parametrize("annotations", ["from __future__ import annotations\n", ""])
def test_a_config_file_may_define_a_dataclass(tmp_path, annotations):
    file = tmp_path / "own.py"
    file.write_text(
        f"{annotations}import dataclasses\nfrom ecgjax import defaults\n\n@dataclasses.dataclass\nclass Sizes:\n"
        "    batch: int = 48\n\ndef get_config():\n    config = defaults.get_config()\n"
        "    config.batch_size = Sizes().batch\n    return config\n",
        encoding="utf-8",
    )
    assert recipes.load_recipe(str(file)).batch_size == 48


def test_the_file_of_the_defaults_is_a_config_file_like_any_other():
    found = recipes.load_recipe(str(ROOT / "ecgjax/defaults.py"))
    assert found.to_dict() == defaults.get_config().to_dict()


def test_every_config_file_is_a_recipe():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__"}
    assert set(recipes.recipe_names()) == files
    assert len(files) > 8


def test_a_file_comes_before_a_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "simclr").write_text("def get_config(): return 'mine'\n")
    assert recipes.path_of("simclr") == "simclr"


def test_a_path_stays_as_it_was_given():
    for path in ("configs/simclr.py", "configs/simclr.py:small", str(ROOT / "configs/pclr.py")):
        assert recipes.path_of(path) == path


@pytest.mark.parametrize("name", ["simcl", "configs/absent.py:small", "", "../configs/simclr"])
def test_a_name_that_is_none_is_told_what_there_is(name):
    with pytest.raises(ConfigError, match=r"there is no config file .*; recipes are: clocs, .*, simclr, "):
        recipes.path_of(name)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--config=pclr:small", "--seed=1"], ["--config={}:small", "--seed=1"]),
        (["-config", "pclr"], ["-config", "{}"]),
        (["--config.data.dir=pclr", "--configs=pclr"], ["--config.data.dir=pclr", "--configs=pclr"]),
        (["--", "--config=pclr"], ["--", "--config=pclr"]),
        (["--config"], ["--config"]),
    ],
)
def test_arguments_get_the_path(given, wanted):
    assert recipes.with_paths(given) == [text.format(ROOT / "configs/pclr.py") for text in wanted]
