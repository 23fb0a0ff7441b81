"""What decides the numbers of a run, and the first difference between processes in it."""

import pytest

from ecgjax.processes import agreement

NAMES = ["process 0 (a)", "process 1 (b)"]
LEAVES = {"seed": 0, "optimizer.learning_rate": 0.1, "data.dir": "data/a", "encoder.widths": (4, 8)}


@pytest.fixture(scope="module")
def told():
    return agreement.facts(LEAVES, {})


def test_nothing_differs_between_equal_processes(told):
    assert agreement.difference([told, agreement.facts(dict(reversed(LEAVES.items())), {})], NAMES) is None


def test_the_leaf_is_named_with_both_values_and_hosts(told):
    other = agreement.facts(LEAVES | {"optimizer.learning_rate": 0.2}, {})
    assert agreement.difference([told, other], NAMES) == (
        "config.optimizer.learning_rate is 0.1 in process 0 (a) and 0.2 in process 1 (b); start all processes with the "
        "same command"
    )


def test_where_data_lie_may_differ(told):
    assert agreement.difference([told, agreement.facts(LEAVES | {"data.dir": "/scratch/b"}, {})], NAMES) is None


@pytest.mark.parametrize("name", ["Python", "jax", "jaxlib", "ecgjax", "numpy", "optax", "revision of the code"])
def test_a_version_that_differs_is_named(told, name):
    line = agreement.difference([told, {**told, name: "0.0.1"}], NAMES)
    assert line == (
        f"{name} is {told[name]} in process 0 (a) and 0.0.1 in process 1 (b); install the same code and packages on "
        "every machine"
    )


def test_a_changed_source_file_is_named(told):
    name = "digest of ecgjax/processes/agreement.py"
    line = agreement.difference([told, told | {name: "0" * 16}], NAMES)
    assert line.startswith(
        f"{name} is {told[name]} in process 0 (a) and 0000000000000000 in process 1 (b); install the"
    )
    assert "digest of data_pipelines/records.py" in told


def test_the_file_of_the_config_counts(told, tmp_path):
    (tmp_path / "own.py").write_text("def loss(): return 1\n")
    one = agreement.facts(LEAVES, {}, config_file=tmp_path / "own.py")
    (tmp_path / "own.py").write_text("def loss(): return 2\n")
    assert "digest of the file of --config is" in agreement.difference(
        [one, agreement.facts(LEAVES, {}, config_file=tmp_path / "own.py")], NAMES
    )


def test_flags_that_change_numbers_count_and_others_do_not(told):
    fast = agreement.facts(LEAVES, {"XLA_FLAGS": "--xla_gpu_enable_fast_min_max=true"})
    assert agreement.difference([told, fast], NAMES) == (
        "XLA_FLAGS --xla_gpu_enable_fast_min_max is not set in process 0 (a) and true in process 1 (b); give all "
        "processes the same environment"
    )
    dump = agreement.facts(LEAVES, {"XLA_FLAGS": "--xla_dump_to=/tmp/1 --xla_force_host_platform_device_count=2"})
    assert agreement.difference([told, dump], NAMES) is None
    assert agreement.difference([told, agreement.facts(LEAVES, {"NVIDIA_TF32_OVERRIDE": "0"})], NAMES)


def test_options_of_jax_count(told):
    assert told["jax_enable_x64"] == "False"
    assert {"jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision"} <= told.keys()
    double = agreement.difference([told, told | {"jax_enable_x64": "True"}], NAMES)
    assert double.startswith("jax_enable_x64 is False in process 0 (a) and True in process 1 (b); give all processes")


def test_several_differences_are_counted_and_long_values_cut(told):
    other = agreement.facts(LEAVES | {"seed": 1, "encoder.widths": tuple(range(500))}, {})
    line = agreement.difference([told, other], NAMES)
    assert "(2 settings, versions or files differ in all)" in line
    assert len(line) < 500
