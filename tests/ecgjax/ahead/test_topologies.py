"""Names of topologies, and what is said where one cannot be compiled for."""

import importlib.metadata
import re

import jax
import pytest

from ecgjax.ahead import topologies
from ecgjax.ahead.topologies import Topology, devices_of, libtpu_version, read_topology
from ecgjax.errors import ConfigError
from ecgjax.placement.slices import slice_of

NO_LIBTPU = "XLA's TPU compiler is not installed (pip install 'ecgjax[tpu-aot]')"


def test_names_are_read():
    assert read_topology("v5e:16x16", slices=2) == Topology(name="v5e:16x16", slices=2)
    assert read_topology("v5e:16x16", slices=2).title == "2 × v5e:16x16"
    assert read_topology("cpu:8").is_simulated
    assert not read_topology("v5p:2x2x1").is_simulated


@pytest.mark.parametrize(
    ("name", "slices", "message"),
    [
        ("v5e", 1, "--topology='v5e' is no slice; write GENERATION:TOPOLOGY such as v5e:16x16"),
        ("v5e:3x5", 1, "v5e has no slice 3x5; there are 1x1, 2x2, 2x4, 4x4"),
        ("v5e:2x2x1", 1, "v5e has no slice 2x2x1"),
        ("v5p:8x8x4", 1, "the longest last"),
        ("v9:2x2", 1, "--topology=v9:2x2 is unknown; there are: v4:SHAPE of 2x2x1, .*; v5e:SHAPE of 1x1, .*; cpu:N"),
        ("", 1, "is unknown"),
        ("h200:8", 1, "XLA compiles for GPUs only where there is one, .* --what=roofline"),
        ("gpu", 1, "for GPUs"),
        ("cpu", 1, "give cpu:N"),
        ("cpu:0", 1, "from 1 to 64"),
        ("cpu:65", 1, "from 1 to 64"),
        ("cpu:8", 2, "--slices=2: simulated devices of a CPU have no slices"),
    ],
)
def test_what_is_no_topology_is_refused(name, slices, message):
    with pytest.raises(ConfigError, match=message):
        read_topology(name, slices=slices)


def test_simulated_devices_are_those_of_this_process():
    assert list(devices_of(read_topology("cpu:4"))) == jax.devices()[:4]
    with pytest.raises(ConfigError, match="cpu:9: this process has 8 simulated devices"):
        devices_of(read_topology("cpu:9"))


def test_a_missing_compiler_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(topologies, "libtpu_version", lambda: None)
    with pytest.raises(ConfigError, match=r"no TPU is needed\): pip install 'ecgjax\[tpu-aot\]', or .*libtpu==0\.0\."):
        devices_of(read_topology("v5e:2x2"))


def test_a_compiler_of_another_jax_is_refused(monkeypatch):
    monkeypatch.setattr(topologies, "libtpu_version", lambda: "0.0.1")
    with pytest.raises(ConfigError, match=rf"libtpu 0\.0\.1 does not fit JAX {re.escape(jax.__version__)}"):
        devices_of(read_topology("v5e:2x2"))


def test_jax_names_the_compiler_of_its_release():
    wanted = topologies._libtpu_of_jax()
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\*", wanted)
    assert any(wanted in line for line in importlib.metadata.requires("jax"))


@pytest.mark.skipif(libtpu_version() is None, reason=NO_LIBTPU)
@pytest.mark.parametrize(
    ("name", "slices", "count"),
    [
        ("v5e:1x1", 1, 1),
        ("v5e:16x16", 1, 256),
        ("v6e:2x4", 1, 8),
        ("v5p:4x4x8", 1, 128),
        ("v4:2x2x1", 1, 4),
        ("v5e:2x2", 2, 8),
    ],
)
def test_slices_of_tpus_have_their_chips(name, slices, count):
    found = devices_of(read_topology(name, slices=slices))
    assert (len(found), {device.platform for device in found}) == (count, {"tpu"})
    assert [slice_of(device) for device in found] == sorted(slice_of(device) for device in found)
    assert len({slice_of(device) for device in found}) == slices
