"""The page on using a model: its code is taken from there and run on a small model, as is the network in PyTorch."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.export import inference_of, write_onnx, write_stablehlo
from ecgjax.export.file_names import ONNX_FILE, SAMPLE_FILE, STABLEHLO_FILE, WEIGHTS_FILE
from ecgjax.export.safetensors import read_weights
from tests.ecgjax.model.written import rewrite, write_model
from tests.support.answering_heads import trained_head
from tests.support.fixtures import twelve_lead_mv, write_wfdb
from tests.support.forked_snippets import run_each

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "using_a_model.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

#: Lines before a snippet that must do without these packages.
WITHOUT = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {names} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
sys.path[:] = [path for path in sys.path if path != {root!r}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with the model and the recordings that the page names."""
    import ecgjax

    where = tmp_path_factory.mktemp("using")
    model = write_model(where / "models" / "simclr")
    loaded = ecgjax.load(model)
    inference = inference_of(loaded.split, num_samples=loaded.num_samples, num_leads=12, layer=loaded.layer)
    write_onnx(model / ONNX_FILE, inference)
    write_stablehlo(model / STABLEHLO_FILE, inference, platforms=("cpu",))
    rewrite(model)
    write_model(where / "models" / "lvef", head=lambda dim: trained_head("binary", "mlp", dim=dim))
    for number in range(3):
        write_wfdb(where / "ecgs", f"r{number}", twelve_lead_mv(seed=number))
    return where


@pytest.fixture(autouse=True)
def _cache(folder, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(code, folder, *without):
    before = WITHOUT.format(names=set(without), root=str(ROOT)) if without else ""
    done = subprocess.run([sys.executable, "-c", before + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def snippet(*words):
    (code,) = [each for each in SNIPPETS if all(word in each for word in words)]
    return code


#: Words of the snippets that need nothing but ecgjax and what stands before them on the page.
LOADED = ("print(model)", "print(model.question", "optimize.minimize", "model.tokens")


@pytest.fixture(scope="module")
def told_by(folder, tmp_path_factory):
    """What each of these snippets prints, in a process of its own that has ecgjax imported."""
    begin = f"import os\nos.chdir({str(folder)!r})\nos.environ['ECGJAX_CACHE'] = {str(folder / 'cache')!r}\n"
    codes = {words: begin + snippet(words) for words in LOADED}
    imports = ["ecgjax.model.load", "scipy.optimize"]
    done = run_each(codes, tmp_path_factory.mktemp("snippets"), imports=imports)
    assert not any(each.status for each in done.values()), [each.errors for each in done.values()]
    return {words: each.output for words, each in done.items()}


def test_a_model_is_loaded_and_embeds_its_sample(told_by):
    told = told_by["print(model)"]
    assert "resnet18" in told
    shape, difference = re.fullmatch(r"(\(.*\)) (.*)", told.splitlines()[-1]).groups()
    assert shape == "(3, 8)"
    assert float(difference) < 1e-5


def test_a_model_with_a_head_answers_its_question(told_by):
    told = told_by["print(model.question"]
    assert told.splitlines() == ["lvef<40 () (0.31,)", "(3,) bool"]


def test_probabilities_are_moved_to_another_prevalence_and_to_other_labels(folder, told_by):
    """Against Bayes's rule on the odds, and the mean of the labels."""
    told = told_by["optimize.minimize"]
    moved, shape, fitted = re.fullmatch(r"\[(.*)\] (\(.*\)) \[(.*)\]\n", told).groups()
    with np.load(folder / "models" / "lvef" / SAMPLE_FILE) as sample:
        ill, healthy = sample["answers"] * 0.04 / 0.15, (1 - sample["answers"]) * 0.96 / 0.85
    np.testing.assert_allclose([float(each) for each in moved.split()], ill / (ill + healthy), atol=6e-4)
    assert shape == "(3,)"
    # One of three is positive, and the intercept is drawn towards 0 from below.
    assert 0.2 < np.mean([float(each) for each in fitted.split()]) < 1 / 3


def test_recordings_as_they_are_have_embeddings_and_tokens(told_by):
    assert told_by["model.tokens"].startswith("(3, 79, 8) ")


@pytest.mark.slow
def test_a_folder_becomes_a_table_that_is_read_back(folder):
    assert "3 of 3 recordings embedded" in command(r"ecgjax\.embed .*--input=ecgs", folder)
    assert run(snippet("read_parquet"), folder).startswith("(3, 8) (3, 79, 8) float16 [")


@pytest.mark.slow
def test_recordings_that_come_in_find_those_that_are_alike(folder):
    if not (folder / "embeddings.parquet").exists():
        command(r"ecgjax\.embed .*--input=ecgs", folder)
    write_wfdb(folder / "tomorrow", "new", twelve_lead_mv(seed=1))
    assert "3 embeddings of 8 numbers" in command(r"ecgjax\.search build", folder)
    command(r"ecgjax\.embed .*--input=tomorrow", folder)
    told = command(r"ecgjax\.search query", folder)
    # The recording that came in is r1 under another name, and is not its own neighbour.
    assert "2 neighbours of 1 query among 3 of 3 rows" in told
    assert "1 query is in the index under another name, by the signal, and left out too: new is r1 of hospital" in (
        " ".join(told.split())
    )
    assert sorted(line.split()[3] for line in told.splitlines()[1:3]) == ["r0", "r2"]


def command(begin, folder):
    """Runs the one line of the page that begins so, and returns what it prints."""
    (line,) = re.findall(rf"python -m ({begin}.*)", PAGE)
    done = subprocess.run([sys.executable, "-m", *line.split()], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "without"),
    [
        ("onnxruntime.InferenceSession", ("ecgjax", "data_pipelines", "jax", "flax", "torch")),
        ("jax.export.deserialize", ("ecgjax", "data_pipelines", "flax", "torch")),
    ],
    ids=["onnx", "stablehlo"],
)
def test_other_runtimes_need_no_ecgjax(folder, words, without):
    assert float(run(snippet(words), folder, *without)) < 1e-5


def test_weights_are_read_by_numpy_alone(folder):
    tensors = read_weights(folder / "models" / "simclr" / WEIGHTS_FILE).tensors
    told = run(snippet("NumPy alone"), folder, "ecgjax", "data_pipelines", "jax", "flax", "torch", "safetensors")
    assert told.split() == [str(len(tensors)), str(sum(array.size for array in tensors.values()))]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_a_network_in_pytorch_reproduces_the_sample(folder):
    pytorch = importlib.util.spec_from_file_location("torch_resnet18", ROOT / "docs" / "torch_resnet18.py")
    module = importlib.util.module_from_spec(pytorch)
    pytorch.loader.exec_module(module)
    assert module.main(folder / "models" / "simclr") < 1e-5
    assert module.main(write_model(folder / "embedding", layer="embedding", num_leads=8)) < 1e-5


def test_without_pytorch_its_network_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch here', name='torch')\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "torch_resnet18.py"), "models/simclr"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: torch is not installed; run pip install torch, then the same command again\n"


def test_the_page_says_what_every_extra_is_for():
    page = (ROOT / "docs" / "using_a_model.md").read_text(encoding="utf-8")
    listed = page.partition("| extra | what needs it |\n|---|---|\n")[2].partition("\n\n")[0]
    named = {name for line in listed.splitlines() for name in re.findall(r"`([\w-]+)`", line.split("|")[1])}
    given = re.search(r"^EXTRAS_REQUIRE = \{$(.*?)^\}$", (ROOT / "setup.py").read_text(encoding="utf-8"), re.M | re.S)[
        1
    ]
    assert named == set(re.findall(r'^    "([\w-]+)":', given, re.M))


def test_the_network_in_pytorch_is_short_and_takes_its_names_from_here():
    source = (ROOT / "docs" / "torch_resnet18.py").read_text(encoding="utf-8")
    assert source.count("\n") < 150
    assert "import ecgjax" not in source
    module = encoders.merge(encoders.abstract("resnet18"))
    for name in ("stem_conv", "stem_norm", "blocks", "head"):
        assert hasattr(module, name)
        assert f"self.{name} =" in source


def test_the_sample_of_the_page_is_simulated(folder):
    with np.load(folder / "models" / "simclr" / SAMPLE_FILE) as sample:
        assert sample["signals"].shape == (3, 2500, 8)
