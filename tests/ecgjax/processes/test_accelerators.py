"""GPUs and TPUs as faked drivers show them: none is needed here."""

import pytest

from ecgjax.errors import ConfigError
from ecgjax.processes.accelerators import (
    Accelerators,
    gpus_of,
    idle_sentence,
    local_devices,
    tpus_of,
    unused_sentence,
    wants_accelerators,
)

LISTING = "".join(f"GPU {number}: NVIDIA H100 80GB HBM3 (UUID: GPU-{number}aa)\n" for number in range(8))
MIG = "GPU 0: NVIDIA A100 (UUID: GPU-0aa)\n  MIG 1g.10gb     Device  0: (UUID: MIG-7bb)\n"


def gpus(*numbers, sure=True):
    return Accelerators("gpu", ("NVIDIA H100",) * len(numbers), tuple(f"GPU-{n}aa" for n in numbers), sure)


ALL = gpus(*range(8))
NONE = Accelerators()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, list(range(8))),
        ("0,3", [0, 3]),
        ("GPU-5", [5]),
        ("3, 1", [3, 1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,9,2", [1]),  # CUDA stops at what is none.
    ],
)
def test_the_driver_and_a_variable_say_which_gpus_are_seen(visible, expected):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = gpus_of(environment, listing=LISTING, files=[])
    assert found.identities == tuple(f"GPU-{number}aa" for number in expected)
    assert set(found.names) <= {"NVIDIA H100 80GB HBM3"}
    assert found.sure


def test_parts_of_a_gpu_are_seen_by_their_own_names():
    found = gpus_of({"CUDA_VISIBLE_DEVICES": "MIG-7bb"}, listing=MIG, files=[])
    assert found.identities == ("MIG-7bb",)
    assert gpus_of({}, listing=MIG, files=[]).identities == ("MIG-7bb",)


def test_without_the_drivers_program_its_files_count():
    found = gpus_of({}, listing=None, files=["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"])
    assert len(found.names) == 2
    assert not found.sure
    assert gpus_of({}, listing=None, files=[]) == Accelerators(sure=False)


@pytest.mark.parametrize(
    ("environment", "chips", "files", "count"),
    [
        ({}, 4, ["accel0", "accel1", "accel2", "accel3"], 4),
        ({}, 8, ["0", "1", "2", "3"], 4),  # A container with half of them.
        ({}, 4, ["accel0", "accel_control"], 1),
        ({"TPU_VISIBLE_CHIPS": "0,1"}, 4, ["accel0", "accel1", "accel2", "accel3"], 2),
        ({}, 0, ["0", "1"], 0),  # These files are of other devices.
    ],
)
def test_the_bus_its_files_and_a_variable_say_which_tpu_chips_are_seen(environment, chips, files, count):
    assert len(tpus_of(environment, chips=chips, files=files).identities) == count


def shares(hosts, seen, taken=()):
    return [local_devices(number, hosts, seen, taken=taken) for number in range(len(hosts))]


def test_the_only_process_of_a_machine_takes_all_of_its_gpus():
    # JAX would give it one: Slurm with a task a node.
    assert shares(["a", "b"], [ALL, ALL]) == [None, None]


def test_processes_of_a_machine_divide_its_gpus():
    assert shares(["a"] * 8, [ALL] * 8) == [(number,) for number in range(8)]
    assert shares(["a", "b", "a", "b"], [ALL] * 4) == [(0, 1, 2, 3)] * 2 + [(4, 5, 6, 7)] * 2


def test_processes_with_gpus_of_their_own_take_these():
    assert shares(["a", "a"], [gpus(0), gpus(1)]) == [None, None]
    # Containers in which every GPU has the number 0.
    assert shares(["a", "a"], [gpus(0, sure=False)] * 2) == [None, None]


def test_who_has_chosen_devices_keeps_them():
    assert shares(["a", "a"], [ALL, ALL], taken=(0, 1)) == [None, None]


def test_on_cpus_and_tpus_nothing_is_divided():
    tpu = Accelerators("tpu", ("TPU chip",) * 4, ("TPU 0", "TPU 1", "TPU 2", "TPU 3"))
    assert shares(["a", "a"], [NONE, NONE]) == [None, None]
    assert shares(["a", "a"], [tpu, tpu]) == [None, None]


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([ALL] * 3, "3 processes on a cannot share its 8 GPUs equally"),
        ([gpus(0)] * 2, "2 processes on a cannot share its 1 GPUs"),
        ([gpus(0, 1), gpus(1, 2)], "processes 0 and 1 on a both see GPU-1aa"),
    ],
)
def test_gpus_that_cannot_be_divided_are_named(seen, told):
    with pytest.raises(ConfigError, match=told):
        shares(["a"] * len(seen), seen)


def test_gpus_that_nobody_uses_are_told():
    one = idle_sentence(["a", "b"], [ALL, ALL], [8, 1])
    assert one is not None
    assert one.startswith("b has 8 GPUs, and the process there uses 1: ")
    both = idle_sentence(["a", "a"], [ALL, ALL], [1, 1])
    assert both is not None
    assert both.startswith("a has 8 GPUs, and the 2 processes there use 2: ")


@pytest.mark.parametrize(
    ("hosts", "seen", "used"),
    [
        (["a", "b"], [ALL, ALL], [8, 8]),
        (["a"] * 8, [ALL] * 8, [1] * 8),
        (["a", "a"], [gpus(0), gpus(1)], [1, 1]),
        (["a", "a"], [gpus(0, sure=False)] * 2, [1, 1]),
        (["a"], [NONE], [1]),
        (["a"], [Accelerators("tpu", ("TPU chip",) * 4, ("0", "1", "2", "3"))], [8]),  # Two devices a chip.
    ],
)
def test_nothing_is_told_where_all_are_used(hosts, seen, used):
    assert idle_sentence(hosts, seen, used) is None


def unused(seen=ALL, environment=None, plugins=None, platform="cpu"):
    return unused_sentence(platform, seen, environment or {}, plugins=plugins or {}, jax_version="0.10.2")


def test_a_run_on_a_cpu_beside_a_gpu_says_so_and_what_to_install():
    line = unused()
    assert "on the CPU beside" in line
    assert "8 × NVIDIA H100" in line
    assert "pip install 'jax[cuda12]==0.10.2'" in line
    tpu = unused(Accelerators("tpu", ("TPU chip",) * 4, ("0", "1", "2", "3")))
    assert "4 × TPU chip" in tpu
    assert "pip install 'jax[tpu]==0.10.2'" in tpu


def test_it_says_why_where_a_plugin_is_there_or_is_not_asked_for():
    assert "jax-cuda12-plugin 0.9.0 is installed and JAX is 0.10.2" in unused(plugins={"jax-cuda12-plugin": "0.9.0"})
    assert "JAX_PLATFORMS=cpu asks for that" in unused(environment={"JAX_PLATFORMS": "cpu"})
    # The plugin of another kind helps nothing.
    assert "jax[cuda12]" in unused(plugins={"libtpu": "0.0.42"})


def test_it_says_nothing_without_one_or_where_it_is_used():
    assert unused(NONE) is None
    assert unused(platform="gpu") is None


@pytest.mark.parametrize(
    ("platforms", "wants"), [("", True), ("cuda,cpu", True), ("cpu", False), ("tpu", True), (" cpu ", False)]
)
def test_platforms_say_whether_accelerators_are_wanted(platforms, wants):
    assert wants_accelerators({"JAX_PLATFORMS": platforms}) is wants
    assert wants_accelerators({})
