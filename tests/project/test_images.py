"""Files of images: what they copy is there, and what they install is what setup.py and constraints/ say."""

import ast
import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def _extras():
    """Returns the extras of setup.py by name."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS_REQUIRE"
    )
    return {ast.literal_eval(name): ast.unparse(value) for name, value in zip(table.keys, table.values, strict=True)}


def _instructions(path):
    """Returns the instructions of a Dockerfile as (name, rest), with continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text(encoding="utf-8")).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def _of(path, name):
    return [rest for instruction, rest in _instructions(path) if instruction == name]


def test_there_is_one_for_cpus_and_one_for_gpus():
    assert {path.name for path in FILES} == {"Dockerfile.cpu", "Dockerfile.cuda"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_is_let_through(path):
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let = [line[1:] for line in lines if line.startswith("!")]
    copied = [source for rest in _of(path, "COPY") for source in rest.split()[:-1]]
    assert len(copied) > 8
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source.split("/")[0], pattern) for pattern in let), source
    assert set(let) == {source.split("/")[0] for source in copied}
    assert "*" in lines, "nothing else reaches the machine that builds"
    # All packages that setup.py installs from the checkout are in the image.
    assert {"ecgjax", "data_pipelines", "launch", "configs"} <= {*copied}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_packages_are_those_of_the_pins_for_the_image_s_python(path):
    (base,) = _of(path, "FROM")
    version = re.match(r"python:(3\.\d+)-", base)[1]
    installs = re.findall(r"pip install ([^&]*)", " && ".join(_of(path, "RUN")))
    assert len(installs) == 3
    for install in installs:
        assert f"-c constraints/python{version}.txt" in install or "--no-deps" in install
    assert (ROOT / "constraints" / f"python{version}.txt").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_extras_are_those_of_setup_py(path):
    (default,) = (rest.partition("=")[2] for rest in _of(path, "ARG"))
    text = path.read_text(encoding="utf-8")
    asked = [default, *re.findall(r"--build-arg EXTRAS=(\S+)", text)]
    assert '".[${EXTRAS}]"' in text
    for extras in asked:
        assert {*extras.split(",")} <= {*_extras()}
    assert ("cuda" in default) == (path.suffix == ".cuda")


def test_extras_for_accelerators_are_those_of_the_installed_jax():
    from importlib import metadata

    offered = {*metadata.metadata("jax").get_all("Provides-Extra")}
    asked = {name: re.search(r"jax\[(\w+)\]", _extras()[name])[1] for name in ("tpu", "tpu-aot", "cuda", "cuda12")}
    assert asked == {"tpu": "tpu", "tpu-aot": "tpu", "cuda": "cuda13", "cuda12": "cuda12"}
    assert {*asked.values()} <= offered


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_user_is_nobody_in_particular_and_nothing_is_secret(path):
    assert _of(path, "USER") == ["1000"]
    names = [rest for name in ("ARG", "ENV") for rest in _of(path, name)]
    assert not re.search(r"(?i)token|secret|password|key|credential", " ".join(names))
    assert not _of(path, "ADD")
