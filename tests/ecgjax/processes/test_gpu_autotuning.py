"""XLA's choices among kernels, from the flags that are set and the files that XLA would write; no GPU is needed."""

import os

import pytest

from ecgjax.processes import gpu_autotuning, start
from ecgjax.processes.accelerators import Accelerators

GPU = Accelerators("gpu", ("NVIDIA H100",), ("GPU-1",))


def entry(program, choice, device="sm_9.0"):
    return (
        f'results {{\n  device: "{device}"\n  hlo: "{program} {{\\n  dot\\n}}\\n"\n'
        f"  result {{\n    gemm {{\n      algorithm: {choice}\n    }}\n  }}\n}}\n"
    )


def written(workdir, text):
    path = gpu_autotuning._written_results(workdir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def flags(workdir, environment=None):
    environment = {} if environment is None else environment
    gpu_autotuning.set_flags(workdir, environment, load=gpu_autotuning.gather(workdir))
    return dict(flag.split("=", 1) for flag in environment["XLA_FLAGS"].split())


def test_the_first_start_writes_and_the_next_one_reads_what_it_wrote(tmp_path):
    first = flags(tmp_path)
    assert list(first) == ["--xla_gpu_dump_autotune_results_to"]
    text = "version: 3\n" + entry("a", 1) + entry("b", 2)
    written(tmp_path, text)
    assert first["--xla_gpu_dump_autotune_results_to"] == str(gpu_autotuning._written_results(tmp_path))
    second = flags(tmp_path)
    assert second["--xla_gpu_dump_autotune_results_to"] == first["--xla_gpu_dump_autotune_results_to"]
    with open(second["--xla_gpu_load_autotune_results_from"]) as file:
        assert file.read() == text
    assert all(path.endswith(".txt") for path in second.values()), "XLA writes text only under such a name"


@pytest.mark.parametrize("cut", [1, 30, 80])
def test_a_file_that_a_kill_has_cut_gives_its_whole_entries(tmp_path, cut):
    written(tmp_path, ("version: 3\n" + entry("a", 1) + entry("b", 2))[:-cut])
    assert gpu_autotuning.gather(tmp_path)
    assert gpu_autotuning.kept_results(tmp_path).read_text() == "version: 3\n" + entry("a", 1)


@pytest.mark.parametrize("text", ["", "version: 3\n", "\0garbage", "results {\n"])
def test_a_file_without_an_entry_is_not_read(tmp_path, text):
    written(tmp_path, text)
    assert not gpu_autotuning.gather(tmp_path)
    assert not gpu_autotuning.kept_results(tmp_path).exists()


def test_the_first_choice_stays_and_new_programs_are_added(tmp_path):
    written(tmp_path, "version: 3\n" + entry("a", 1))
    gpu_autotuning.gather(tmp_path)
    written(tmp_path, "version: 3\n" + entry("a", 7) + entry("c", 3) + entry("a", 9, device="other"))
    gpu_autotuning.gather(tmp_path)
    kept = gpu_autotuning.kept_results(tmp_path).read_text()
    assert kept.startswith("version: 3\n")
    assert kept.count("version") == 1
    assert all(part in kept for part in (entry("a", 1), entry("c", 3), entry("a", 9, device="other")))
    assert "algorithm: 7" not in kept


def test_flags_from_before_stay_and_flags_by_hand_are_left_alone(tmp_path):
    assert "--xla_gpu_deterministic_ops" in flags(tmp_path, {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"})
    assert gpu_autotuning.applies(GPU, {})
    assert not gpu_autotuning.applies(GPU, {"JAX_PLATFORMS": "cpu"})
    assert not gpu_autotuning.applies(Accelerators(), {})
    assert not gpu_autotuning.applies(Accelerators("tpu", ("v5e",), ("0",)), {})
    assert not gpu_autotuning.applies(GPU, {"XLA_FLAGS": "--xla_gpu_load_autotune_results_from=mine.txt"})


def test_a_folder_with_a_blank_is_told(tmp_path, capsys):
    environment = {}
    gpu_autotuning.set_flags(tmp_path / "a b", environment, load=False)
    assert environment == {}
    assert "has a blank in it" in capsys.readouterr().err


@pytest.mark.parametrize(("leaves", "expected"), [({"seed": 0}, True), ({}, False)])
def test_a_start_on_a_gpu_sets_the_flags_before_its_devices_start(tmp_path, monkeypatch, leaves, expected):
    at_start = []
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(start, "visible_accelerators", lambda _: GPU)
    monkeypatch.setattr(start, "_check_devices", lambda *_, **__: at_start.append(os.environ["XLA_FLAGS"]))
    start.begin(leaves=leaves, workdir=tmp_path)
    assert [bool(each) for each in at_start] == [expected]
    if expected:
        assert str(tmp_path) in at_start[0]
