import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax._src.compilation_cache import compress_executable

from ecgjax.errors import ConfigError
from ecgjax.training.compilation.compile_cache import CACHE_DIR, cache_folder, kept_programs

ROOT = Path(__file__).parents[4]

#: A program that takes long enough to compile for being kept; it prints its result to the last bit.
PROGRAM = """
import sys, jax, jax.monitoring, jax.numpy as jnp
from ecgjax.training.compilation.compile_cache import kept_programs

def work(x):
    for _ in range(30):
        x = jnp.tanh(x @ x) + jnp.sort(x, axis=0)
    return x.sum()

hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
with kept_programs("workdir", sys.argv[1]):
    value = jax.jit(jax.grad(work))(jnp.linspace(0, 0.1, 2500).reshape(50, 50)).sum()
print(len(hits) > 0, float(value).hex())
"""


def run(workdir):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(workdir)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split(), done.stderr


def test_another_process_takes_the_program_and_computes_the_same_bits(tmp_path):
    (hit, first), _ = run(tmp_path)
    assert hit == "False"
    (hit, again), told = run(tmp_path)
    assert hit == "True"
    assert again == first
    assert told == "", "JAX has nothing to say of a program that it takes on the same machine"


def test_a_program_that_a_kill_has_cut_is_removed(tmp_path):
    with kept_programs("workdir", tmp_path) as folder:
        pass
    folder.mkdir(parents=True)
    whole, cut = compress_executable(b"program" * 1000), folder / "jit_cut-cache"
    (folder / "jit_whole-cache").write_bytes(whole)
    cut.write_bytes(whole[: len(whole) // 2])
    with kept_programs("workdir", tmp_path):
        assert [path.name for path in folder.iterdir()] == ["jit_whole-cache"]


@pytest.mark.parametrize(
    ("setting", "platform", "folder"),
    [
        ("", "gpu", None),
        ("auto", "cpu", None),
        ("auto", "gpu", f"run/{CACHE_DIR}"),
        ("auto", "tpu", f"run/{CACHE_DIR}"),
        ("workdir", "gpu", f"run/{CACHE_DIR}"),
        ("cache", "gpu", "cache"),
    ],
)
def test_the_folder_is_the_one_that_was_asked_for(setting, platform, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert cache_folder(setting, "run", platform=platform) == (None if folder is None else tmp_path / folder)


def test_on_a_cpu_the_folder_is_that_of_the_kind_of_cpu(tmp_path):
    folder = cache_folder("workdir", tmp_path, platform="cpu")
    assert folder.parent == tmp_path / CACHE_DIR
    assert folder.name.startswith("cpu-")


def test_a_cache_of_the_environment_goes_before_auto_and_not_before_a_folder(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert cache_folder("auto", "run", platform="gpu") is None
    assert cache_folder("workdir", "run", platform="gpu") is not None


def test_what_was_set_before_is_set_again(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    with kept_programs("workdir", tmp_path) as folder:
        assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize(("setting", "told"), [("file", "cannot be made"), ("gs://bucket/cache", "mount the bucket")])
def test_what_is_no_folder_is_refused_by_name(tmp_path, monkeypatch, setting, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"config.compile_cache={setting}.*{told}"), kept_programs(setting, "run"):
        pass


def test_a_folder_that_cannot_be_written_costs_a_warning_alone(tmp_path):
    (tmp_path / CACHE_DIR).write_text("no folder")
    with kept_programs("workdir", tmp_path), pytest.warns(UserWarning, match="[Cc]ache"):
        jax.jit(lambda x: jnp.sort(jnp.tanh(jnp.sort(x, axis=0) @ x), axis=1).sum())(jnp.ones((33, 33)))
