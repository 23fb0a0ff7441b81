"""Configs become typed settings where they enter, and nobody carries a whole one."""

import ast
import itertools

import pytest

from tests.project import config_walk
from tests.project.test_house import ROOT, modules

TREE = config_walk.Tree(ROOT)

#: Functions at the border, where a config is read, kept or changed as a whole.
AT_THE_BORDER = {
    ("ecgjax.config.run_config", "check_leaves"),
    ("ecgjax.config.run_config", "check_resume"),
    ("ecgjax.config.run_config", "set_none"),
    ("ecgjax.config.run_config", "write_resolved"),
    ("ecgjax.defaults", "settings_of"),
    ("ecgjax.finetune", "finetune"),
    ("ecgjax.pretrain", "pretrain"),
    ("ecgjax.settings.sections", "read"),
}


def test_only_the_border_takes_a_configdict():
    assert set(config_walk.takers(TREE)) == AT_THE_BORDER


@pytest.mark.parametrize(("entry", "most"), config_walk.ENTRIES.items(), ids=lambda each: str(each))
def test_a_whole_config_enters_few_rooms(entry, most):
    module, function, parameter = entry
    rooms = config_walk.walk(TREE, module, function, parameter)
    assert module in rooms
    assert len(rooms) <= most


def test_the_walk_follows_calls_and_what_a_config_is_put_down_in():
    rooms = config_walk.walk(TREE, "ecgjax.pretrain", "pretrain", "config")
    # By a call, by a call of what was called, and by a run that keeps it.
    assert {"ecgjax.config.run_config", "ecgjax.training.run", "ecgjax.training.assembly"} <= rooms
    rooms = config_walk.walk(TREE, "ecgjax.evaluate", "evaluate", "settings")
    assert {"ecgjax.evaluate", "ecgjax.settings.sections"} <= rooms


def test_settings_are_no_mappings_of_anything():
    """No argument called settings, config or probe is a `dict[str, Any]`, a `Mapping[str, Any]` or `Any`."""
    loose = []
    for name, tree in modules().items():
        if name.startswith(("configs", "launch")):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            for each in itertools.chain(node.args.posonlyargs, node.args.args, node.args.kwonlyargs):
                hint = ast.unparse(each.annotation) if each.annotation else ""
                if each.arg in ("settings", "config", "probe", "augment") and "Any" in hint:
                    loose.append(f"{name}.{node.name}({each.arg}: {hint})")
    assert not loose
