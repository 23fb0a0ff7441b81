"""The plan of the folders: arrows one way, no command imported, small rooms, names that differ by more than endings."""

import ast
import collections
import functools
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("configs", "data_pipelines", "ecgjax", "launch")

#: At a package's top: commands, and vocabulary that every room may use.
VOCABULARY = {
    "data_pipelines": {"command", "errors", "lead_names", "recording", "records", "version"},
    "ecgjax": {"defaults", "errors", "keys", "leads"},
}
MOST_AT_THE_TOP, MOST_IN_A_FOLDER = 18, 24


def _module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def modules():
    """Returns every module of the code and its syntax tree."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {_module(path): ast.parse(path.read_text(encoding="utf-8")) for path in files}


@functools.cache
def imports():
    """Returns `(module, imported module)` for every import of one by another, wherever in the file it stands."""
    known, found = modules(), set()
    for name, tree in known.items():
        package = name if (ROOT / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*above, *filter(None, [node.module])])
                wanted = [f"{source}.{alias.name}" for alias in node.names]
                wanted = [each if each in known else source for each in wanted]
            else:
                continue
            found |= {(name, each) for each in wanted if each in known and each != name}
    return found


def room(module):
    """Returns the folder of a module; what stands at a package's top is a room of its own."""
    is_folder = (ROOT / module.replace(".", "/")).is_dir()
    return module if is_folder or module.count(".") < 2 else module.rpartition(".")[0]


def _is_main(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and "__main__" in ast.unparse(node.test)


@functools.cache
def commands():
    """Returns the modules that are run with `python -m`."""
    return {name for name, tree in modules().items() if any(map(_is_main, tree.body))}


def test_no_two_folders_use_each_other_by_whatever_way():
    arrows = collections.defaultdict(set)
    for one, other in imports():
        # A package's face hands on names of the rooms below it, and every module's import runs it.
        if room(one) != room(other) and not (ROOT / one.replace(".", "/")).is_dir():
            arrows[room(one)].add(room(other))
    order, left = [], set(arrows) | set(itertools.chain(*arrows.values()))
    while left:
        lowest = {each for each in left if not arrows[each] & left}
        assert lowest, f"these folders use each other in a circle: {_circle(arrows, left)}"
        order.append(sorted(lowest))
        left -= lowest
    assert len(order) > 10, "a walk that finds hardly any arrow shows nothing"


def _circle(arrows, left):
    path = [min(left)]
    while path.count(path[-1]) == 1:
        path.append(min(arrows[path[-1]] & left))
    return " → ".join(path[path.index(path[-1]) :])


def test_data_pipelines_know_no_model_and_nobody_knows_configs_or_launchers():
    allowed = {
        "data_pipelines": {"data_pipelines"},
        "ecgjax": {"data_pipelines", "ecgjax"},
        "configs": {"ecgjax"},
        "launch": {"data_pipelines", "ecgjax", "launch"},
    }
    wrong = [
        f"{one} imports {other}"
        for one, other in sorted(imports())
        if other.split(".")[0] not in allowed[one.split(".")[0]]
    ]
    assert not wrong


def test_no_command_is_imported():
    assert len(commands()) > 15
    assert not [f"{one} imports {other}" for one, other in sorted(imports()) if other in commands()]


@pytest.mark.parametrize("package", ["data_pipelines", "ecgjax"])
def test_at_the_top_are_commands_and_vocabulary(package):
    top = {name.partition(".")[2] for name in modules() if name.rpartition(".")[0] == package}
    top -= {name for name in top if (ROOT / package / name).is_dir()}
    running = {name.partition(".")[2] for name in commands()}
    assert top - running == VOCABULARY[package]
    assert len(top) <= MOST_AT_THE_TOP


def test_no_folder_is_crowded():
    sizes = collections.Counter(
        path.parent for path in ROOT.glob("*/**/*.py") if path.parts[len(ROOT.parts)] in PACKAGES
    )
    assert not {str(folder): size for folder, size in sizes.items() if size > MOST_IN_A_FOLDER + 1}  # and `__init__`


@pytest.mark.parametrize("package", ["data_pipelines", "ecgjax"])
def test_names_differ_by_more_than_an_ending(package):
    named = collections.defaultdict(set)
    for name in modules():
        last = name.rpartition(".")[2]
        if name.startswith(package + ".") and not (ROOT / name.replace(".", "/")).is_dir():
            named[re.sub(r"(e|ed|es|ing|s)$", "", last)].add(last)
    # A recording is what a file holds, records define what is stored: both are vocabulary. States are a patient's.
    apart = ({"recording", "records"}, {"stated", "states"})
    assert not [sorted(names) for names in named.values() if len(names) > 1 and names not in apart]


def test_faces_only_hand_on_names():
    """An `__init__` holds imports, `__all__`, and where it imports late, the table for that."""
    for name, tree in modules().items():
        if not (ROOT / name.replace(".", "/")).is_dir():
            continue
        for node in tree.body:
            allowed = isinstance(node, ast.Import | ast.ImportFrom) or (
                isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            )
            allowed |= isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in (
                "__all__", "_MODULES", "(__getattr__, __dir__)", "__getattr__, __dir__"
            )  # fmt: skip
            allowed |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            assert allowed, f"{name}: {ast.unparse(node)[:80]}"


@pytest.mark.parametrize(
    "package", ["data_pipelines", "ecgjax", "ecgjax.encoders", "ecgjax.objectives", "ecgjax.optim"]
)
def test_every_public_name_is_there(package):
    import importlib

    face = importlib.import_module(package)
    assert len(face.__all__) > 10
    assert not [name for name in face.__all__ if not hasattr(face, name)]
    assert set(face.__all__) <= set(dir(face))


def test_tests_lie_where_the_code_lies_that_they_test():
    # The tests of one module may be several files, in a folder of its name.
    lost = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if (folder := path.parent.relative_to(ROOT / "tests")).parts[:1]
        in (("data_pipelines",), ("ecgjax",), ("launch",))
        and not (ROOT / folder).is_dir()
        and not (ROOT / folder).with_suffix(".py").is_file()
    ]
    assert not lost
    assert not list((ROOT / "tests").glob("test_*.py"))
