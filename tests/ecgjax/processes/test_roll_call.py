"""The roll call over loopback: processes are threads here, which it does not notice."""

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecgjax.errors import ConfigError
from ecgjax.processes import shared_folder
from ecgjax.processes.place import Place
from ecgjax.processes.roll_call import RollCall, named, numbered

LIMIT_S = 1.0


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def judge(said):
    return {"told": [each["value"] for each in said], "hosts": [each["host"] for each in said]}


@contextlib.contextmanager
def calling(address, number, count, *, limit_s=LIMIT_S, agenda=(judge,), value=None):
    place = Place(address, count, number, "a test")
    greeting = {"value": number if value is None else value}
    with RollCall(
        place, host=f"node{number}", limit_s=limit_s, agenda=agenda, greeting=greeting, environment={}
    ) as call:
        yield call


def greet(address, number, count, **options):
    try:
        with calling(address, number, count, **options) as call:
            return call.greet()
    except ConfigError as error:
        return str(error)


def together(*calls):
    """Makes calls at once, and returns what each gave and the seconds that all took."""
    begin = time.monotonic()
    with ThreadPoolExecutor(len(calls)) as pool:
        found = [each.result() for each in [pool.submit(call) for call in calls]]
    return found, time.monotonic() - begin


def call_of(*arguments, **options):
    return lambda: greet(*arguments, **options)


def test_all_get_the_same_answer_once_all_have_come(address):
    found, _ = together(*(call_of(address, number, 5, limit_s=20) for number in range(5)))
    assert all(each == found[0] for each in found)
    assert found[0]["told"] == [0, 1, 2, 3, 4]
    assert found[0]["hosts"] == [f"node{number}" for number in range(5)]


def test_the_port_is_free_afterwards(address):
    for _ in range(3):
        found, _ = together(*(call_of(address, number, 2, limit_s=20) for number in range(2)))
        assert found[0]["told"] == [0, 1]
    host, port = address.split(":")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, int(port)))


def test_who_comes_before_process_0_waits_for_it(address):
    def late():
        time.sleep(0.5)
        return greet(address, 0, 2, limit_s=20)

    found, _ = together(call_of(address, 1, 2, limit_s=20), late)
    assert found[0]["told"] == [0, 1]


def test_the_missing_are_named_to_all_within_the_limit(address):
    found, seconds = together(*(call_of(address, number, 6) for number in (0, 2)))
    assert found[0] == found[1]
    assert found[0].startswith("of 6 processes 1, 3-5 did not come within 1 s; there are 0 (node0), 2 (node2)")
    assert LIMIT_S <= seconds < LIMIT_S + 10


def test_without_process_0_the_address_is_named(address):
    found, seconds = together(call_of(address, 1, 2))
    assert f"process 1 of 2 on node1 found no process 0 at {address} within 1 s (Connection refused)" in found[0]
    assert seconds < LIMIT_S + 10


def test_a_host_that_is_unknown_is_named():
    found = greet("nowhere.invalid:1234", 1, 2)
    assert "found no process 0 at nowhere.invalid:1234 within 1 s" in found


@pytest.mark.parametrize("number", [0, 1])
def test_a_number_that_comes_twice_is_named_to_all(address, number):
    calls = [call_of(address, each, 3, limit_s=10) for each in (0, 1, number)]
    found, seconds = together(*calls)
    assert len(set(found)) == 1
    assert found[0].startswith(f"process {number} of 3 came twice: from node{number} (process id")
    assert seconds < 10


def test_another_number_of_processes_is_named_to_all(address):
    found, seconds = together(call_of(address, 0, 2, limit_s=10), call_of(address, 1, 3, limit_s=10))
    assert set(found) == {found[0]}
    assert found[0].startswith("process 1 on node1 is one of 3, but process 0 waits for 2")
    assert seconds < 10


def test_a_judgement_ends_all_with_its_sentence(address):
    def refuse(said):
        raise ConfigError(f"values {[each['value'] for each in said]} differ")

    found, seconds = together(*(call_of(address, n, 2, limit_s=10, agenda=(refuse,)) for n in range(2)))
    assert found == ["values [0, 1] differ"] * 2
    assert seconds < 10


def test_strangers_at_the_port_change_nothing(address):
    def stranger(text):
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(address[10:]))) as line:
                line.sendall(text)
                time.sleep(0.2)
                return None
        return None

    def late():
        time.sleep(1.0)
        return greet(address, 1, 2, limit_s=20)

    wrong = {"call": "ecgjax roll call 1", "process": 7, "of": 2, "host": "x", "pid": 1, "said": {}}
    texts = (b"GET / HTTP/1.1\r\n\r\n", b"\xff\x00\n", b"[1]\n", b"{}\n", b"", json.dumps(wrong).encode() + b"\n")
    strangers = [lambda text=text: stranger(text) for text in texts]
    found, _ = together(call_of(address, 0, 2, limit_s=20), late, *strangers)
    assert found[0]["told"] == found[1]["told"] == [0, 1]


def test_a_program_that_answers_something_else_is_told(address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.sendall(b"\x00\x00\x12\x04\x00")  # As gRPC begins.
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        found, _ = together(call_of(address, 0, 2), call_of(address, 1, 2))
    assert all("no process of ecgjax, or a run that has begun already" in each for each in found)


def test_who_leaves_between_rounds_is_named(address):
    def stay():
        try:
            with calling(address, 0, 2, limit_s=10, agenda=(judge, judge)) as call:
                call.greet()
                return call.say({"value": 0})
        except ConfigError as error:
            return str(error)

    found, seconds = together(stay, call_of(address, 1, 2, limit_s=10))
    assert found[0].startswith("process 1 (node1) left while the run began")
    assert seconds < 10


def test_who_left_before_all_came_may_come_again(address):
    def restarted():
        with calling(address, 1, 3, limit_s=20) as call:
            connected_and_gone(call)
        return greet(address, 1, 3, limit_s=20)

    def last():
        time.sleep(1.5)
        return greet(address, 2, 3, limit_s=20)

    found, _ = together(call_of(address, 0, 3, limit_s=20), restarted, last)
    assert [each["told"] for each in found] == [[0, 1, 2]] * 3


def connected_and_gone(call):
    """Says the greeting and hangs up, as a process does that is killed while it waits."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            call._connect(5)
            call._send(call._greeting)
            return
        time.sleep(0.05)


def check_folder(address, number, folder, *, count=2, limit_s=4):
    try:
        with calling(address, number, count, limit_s=limit_s, agenda=(judge, *shared_folder.agenda(folder))) as call:
            call.greet()
            shared_folder.check(call, folder, process_id=number, num_processes=count, token="abc", limit_s=limit_s)
    except ConfigError as error:
        return str(error)
    return None


def test_a_shared_folder_is_accepted_and_left_as_it_was(address, tmp_path):
    folder = tmp_path / "run"
    stale = folder / ".start"
    stale.mkdir(parents=True)
    (stale / "old-1").touch()  # Of a start that was killed.
    found, _ = together(*(lambda n=n: check_folder(address, n, folder, count=3, limit_s=20) for n in range(3)))
    assert found == [None] * 3
    assert list(folder.iterdir()) == []


def test_folders_that_are_not_shared_are_refused_by_all(address, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    other.mkdir()
    found, seconds = together(lambda: check_folder(address, 0, one), lambda: check_folder(address, 1, other))
    assert found[0] == found[1]
    assert f"--workdir={one} is no folder that all processes share and can write: process 1 on node1" in found[0]
    assert f"does not see in 2.4 s in {other} what process 0 has written there" in found[0]
    assert seconds < 10
    assert list(one.iterdir()) == list(other.iterdir()) == []


@pytest.mark.parametrize(("folder", "told"), [("/proc/run", "cannot write there"), ("gs://bucket/run", "mount")])
def test_a_folder_that_cannot_be_written_is_told_at_once(address, folder, told):
    found, seconds = together(*(lambda n=n: check_folder(address, n, folder, limit_s=20) for n in range(2)))
    assert found[0] == found[1]
    assert f"--workdir={folder} is no folder" in found[0]
    assert f"process 0 on node0 {told}" in found[0] or told in found[0]
    assert seconds < 10


def test_a_copy_of_a_bucket_that_cannot_be_written_is_told_with_the_variable_of_its_place(address, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", "/proc/cache")
    found, _ = together(
        *(lambda n=n: check_folder(address, n, "/proc/cache/runs/gs/b/x", limit_s=20) for n in range(2))
    )
    assert "Name with ECGJAX_CACHE a folder of a file system that every machine has mounted" in found[0]


def test_numbers_and_hosts_of_many_are_shortened():
    assert numbered([5, 1, 2, 3, 9]) == "1-3, 5, 9"
    assert numbered(range(0, 40, 2)).endswith(", …")
    assert named({1: "b", 0: "a"}) == "0 (a), 1 (b)"
    assert named(dict.fromkeys(range(20), "a")).endswith("7 (a) and 12 more")
