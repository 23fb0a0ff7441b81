"""Waiting for other processes: the coordination service is faked, so that some never come."""

import subprocess
import sys
import time

import jax
import pytest

from data_pipelines.errors import DataError
from ecgjax.errors import ConfigError
from ecgjax.processes import barriers
from ecgjax.training import device_mesh


class Service:
    """The store of keys of JAX's coordination service, as one client sees it."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("NOT_FOUND: no such key")
        return self.values[key]

    def blocking_key_value_get(self, key, milliseconds):
        if key not in self.values:
            time.sleep(min(milliseconds / 1000, 0.05))
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: GetKeyValue() timed out")
        return self.values[key]

    def key_value_dir_get(self, key):
        return [(name, value) for name, value in self.values.items() if name.startswith(key + "/")]


@pytest.fixture
def service(monkeypatch):
    """The service of a run of four processes, of which this one is the second."""
    store = Service()
    monkeypatch.setattr(barriers, "_client", lambda: store)
    monkeypatch.setattr(barriers, "_calls", type(barriers._calls)())
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    for number, host in enumerate("abcd"):
        store.values[f"ecgjax/host/{number}"] = host
    return store


def others_say(service, topic, values, *, call=1):
    service.values |= {f"ecgjax/{topic}/{call}/{number}": value for number, value in values.items()}


def test_the_texts_of_all_come_in_the_order_of_their_numbers(service):
    others_say(service, "colours", {3: "red", 0: "blue", 2: "green"})
    assert barriers.gather("colours", "own") == ["blue", "own", "green", "red"]


def test_a_second_call_waits_for_second_texts(service):
    for call in (1, 2):
        others_say(service, "colours", {0: f"{call}", 2: "", 3: ""}, call=call)
    assert [barriers.gather("colours", "")[0] for _ in range(2)] == ["1", "2"]


def test_the_missing_are_named_with_their_hosts_within_the_limit(service):
    others_say(service, "data", {3: "x"})
    begin = time.monotonic()
    with pytest.raises(
        ConfigError, match=r"process 0 \(a\), 2 \(c\) did not come to the comparison of data within 0.3 s"
    ):
        barriers.wait_for_all("data", limit_s=0.3)
    assert time.monotonic() - begin < 5
    others_say(service, "more", {3: "x"})
    with pytest.raises(ConfigError, match=r"there are 1 \(b\), 3 \(d\)"):
        barriers.wait_for_all("more", limit_s=0.1)


def test_the_error_of_another_process_ends_the_wait_at_once(service):
    service.values["ecgjax/failed/2"] = "process 2 (c) has ended: no such data set"
    begin = time.monotonic()
    with pytest.raises(ConfigError, match=r"process 2 \(c\) has ended: no such data set"):
        barriers.wait_for_all("data", limit_s=600)
    assert time.monotonic() - begin < 5


def test_what_another_process_has_told_is_not_told_again(service):
    service.values["ecgjax/failed/2"] = "process 2 (c) has ended: no such data set"
    with pytest.raises(ConfigError, match="no such data set"), barriers.telling_failures():
        barriers.wait_for_all("data", limit_s=600)
    assert "ecgjax/failed/1" not in service.values


@pytest.mark.parametrize("error", [ConfigError("a leaf"), DataError("a shard")])
def test_an_error_of_the_user_is_told_to_the_others(service, error):
    with pytest.raises(type(error)), barriers.telling_failures():
        raise error
    assert service.values["ecgjax/failed/1"] == f"process 1 (b) has ended: {error}"


def test_other_data_are_named(service):
    others_say(service, "data sets", {0: "aa", 2: "aa", 3: "bb"})
    with pytest.raises(ConfigError, match="process 3 has other data sets than process 0"):
        device_mesh.check_alike("aa", what="data sets")


def test_one_process_waits_for_nobody():
    assert barriers.gather("anything", "own") == ["own"]
    with pytest.raises(ConfigError, match="alone"), barriers.telling_failures():
        raise ConfigError("alone")


def test_what_cannot_be_cancelled_ends_the_process_with_a_sentence():
    code = (
        "import time\nfrom ecgjax.processes import barriers\n"
        "with barriers.limited('the first collective', limit_s=.2, hint='look at the network'): time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "error: the first collective did not end within 0.2 s on process 0; look at the network\n"
    )


def test_a_block_within_its_limit_goes_on():
    with barriers.limited("nothing", limit_s=0.2, hint=""):
        pass
    time.sleep(0.3)
