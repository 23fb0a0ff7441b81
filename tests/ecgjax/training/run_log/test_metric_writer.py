"""Metrics on disks that are full, gone, read-only or without an answer: training goes on, and losses are counted."""

import contextlib
import errno
import json
import os
import re
import shutil
import threading
import time

import pytest
from tensorboardX.proto.event_pb2 import Event

from ecgjax.system import files
from ecgjax.training.run_log import metric_writer
from ecgjax.training.run_log.metric_writer import GrowingFile, MetricWriter
from ecgjax.training.run_log.metrics_file import METRICS_FILE, read_metrics
from ecgjax.training.telemetry import TENSORBOARD_DIR, Telemetry
from tests.support.storage_faults import no_file_beyond, small_disk


def make(workdir, **kwargs):
    return Telemetry(workdir, total_steps=1000, examples_per_step=8, progress=False, **kwargs)


def log(telemetry, steps):
    for step in steps:
        telemetry.log(step, {"eval/loss": float(step)})


def logged(workdir):
    return [line["step"] for line in read_metrics(workdir)]


def events(workdir):
    """Steps of the numbers in TensorBoard's files, every record whole."""
    steps = []
    for file in sorted((workdir / TENSORBOARD_DIR).iterdir()):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            assert len(data) >= length + 16
            event = Event.FromString(data[12 : 12 + length])
            steps += [event.step] * bool(event.summary.value)
            data = data[12 + length + 4 :]
    return steps


@contextlib.contextmanager
def fails(monkeypatch, number, *, after=0):
    """Lets writes of files fail with an error of the system, after some bytes of each."""
    write = os.write

    def failing(file, data):
        if after and len(data) > after:
            return write(file, bytes(data[:after]))
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", failing)
        yield


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.ESTALE])
@pytest.mark.parametrize("after", [0, 3], ids=["nothing written", "half written"])
def test_what_a_disk_refuses_is_written_once_it_takes_it(tmp_path, monkeypatch, capsys, number, after):
    with make(tmp_path) as telemetry:
        log(telemetry, [1, 2])
        with fails(monkeypatch, number, after=after):
            log(telemetry, [3, 4, 5])
            assert logged(tmp_path) == [1, 2]
        log(telemetry, [6])
    assert logged(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert events(tmp_path) == [1, 2, 3, 4, 5, 6]
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if "cannot be written" in line]) == 2, "a line for each file"
    assert all(os.strerror(number) in line for line in told if "cannot be written" in line)
    assert len([line for line in told if "is written again" in line]) == 2
    assert not [line for line in told if "were not written" in line]


def test_a_full_disk_loses_no_metrics_when_it_is_freed(tmp_path, capsys):
    with small_disk(tmp_path / "disk", size="64k") as (fill, free):
        with make(tmp_path / "disk") as telemetry:
            log(telemetry, range(1, 5))
            fill()
            log(telemetry, range(5, 300))
            free()
            log(telemetry, range(300, 310))
        assert logged(tmp_path / "disk") == list(range(1, 310))
        assert events(tmp_path / "disk") == list(range(1, 310))
    assert capsys.readouterr().err.count("No space left on device") == 2


def test_what_is_never_written_is_counted_at_the_end(tmp_path, capsys):
    with no_file_beyond(600), make(tmp_path) as telemetry:
        log(telemetry, range(1, 101))
    kept, told = logged(tmp_path), capsys.readouterr().err
    assert kept == list(range(1, len(kept) + 1)), "whole lines only"
    assert 0 < len(kept) < 100
    assert f"{100 - len(kept)} records of {tmp_path / METRICS_FILE} were not written (File too large)" in told
    assert f"{100 - len(events(tmp_path))} records of" in told


def test_more_than_is_kept_is_lost_from_the_oldest_on(tmp_path, monkeypatch):
    monkeypatch.setattr(metric_writer, "MOST_KEPT", 3)
    file = GrowingFile(tmp_path / "file")
    with fails(monkeypatch, errno.ENOSPC):
        for number in range(8):
            file.add(b"%d\n" % number)
        assert file.loss(8).startswith("8 records of")
    file.write()
    assert (tmp_path / "file").read_bytes() == b"5\n6\n7\n"
    assert file.loss(8) == f"5 records of {tmp_path / 'file'} were not written"


@pytest.mark.parametrize("gone", ["removed", "replaced by a file", "replaced by a link to /dev/full"])
def test_a_folder_that_is_gone_costs_what_was_in_it(tmp_path, capsys, gone):
    workdir = tmp_path / "run"
    with make(workdir) as telemetry:
        log(telemetry, [1])
        if gone == "replaced by a link to /dev/full":
            (workdir / METRICS_FILE).unlink()
            (workdir / METRICS_FILE).symlink_to("/dev/full")
        else:
            shutil.rmtree(workdir)
        if gone == "replaced by a file":
            workdir.write_text("")
        log(telemetry, [2])
        if gone == "replaced by a file":
            workdir.unlink()
        if gone == "replaced by a link to /dev/full":
            (workdir / METRICS_FILE).unlink()
        log(telemetry, [3])
    assert logged(workdir) == [2, 3]
    assert ("cannot be written" in capsys.readouterr().err) == (gone != "removed")


def test_nobody_waits_twice_for_a_disk_without_an_answer(tmp_path, monkeypatch, capsys):
    """A hung network disk: the write does not return, and does not fail."""
    monkeypatch.setattr(metric_writer, "PATIENCE_S", 0.1)
    monkeypatch.setattr(metric_writer, "LAST_PATIENCE_S", 0.1)
    answers = threading.Event()
    append = metric_writer.append_whole

    def hangs(*args, **kwargs):
        answers.wait(30)
        append(*args, **kwargs)

    monkeypatch.setattr(metric_writer, "append_whole", hangs)
    begin = time.monotonic()
    telemetry = make(tmp_path).__enter__()
    log(telemetry, range(200))
    telemetry.__exit__(None, None, None)
    assert time.monotonic() - begin < 5
    told = capsys.readouterr().err
    assert told.count("has not answered") == 1
    assert f"200 records of {tmp_path / METRICS_FILE} were not written" in told
    answers.set()


def test_a_queue_that_is_full_drops_and_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(metric_writer, "MOST_KEPT", 4)
    monkeypatch.setattr(metric_writer, "PATIENCE_S", 0.05)
    monkeypatch.setattr(metric_writer, "LAST_PATIENCE_S", 0.05)
    answers = threading.Event()
    monkeypatch.setattr(metric_writer, "append_whole", lambda *_, **__: answers.wait(30))
    writer = MetricWriter([GrowingFile(tmp_path / "file")])
    for _ in range(20):
        writer.put([b"x"])
    answers.set()
    writer.put([b"x"])
    monkeypatch.setattr(metric_writer, "LAST_PATIENCE_S", 10)
    writer.close()
    lost = int(re.search(r"warning: (\d+) records of", capsys.readouterr().err)[1])
    assert lost in (15, 16), "one was being written, four waited, and the last may have found room"


def test_a_pipe_that_nobody_reads_does_not_stop_a_run(tmp_path, capsys):
    os.mkfifo(tmp_path / METRICS_FILE)
    begin = time.monotonic()
    with make(tmp_path, start_step=3) as telemetry:
        log(telemetry, [4, 5])
    assert time.monotonic() - begin < 5
    assert "2 records of" in capsys.readouterr().err
    assert events(tmp_path) == [4, 5]


@pytest.mark.parametrize("output", ["/dev/full", "a closed pipe"])
def test_output_that_nobody_takes_does_not_stop_a_run(tmp_path, monkeypatch, output):
    reader, writer = os.pipe()
    os.close(reader)
    if output == "/dev/full":
        os.close(writer)
        writer = os.open(output, os.O_WRONLY)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    with make(tmp_path) as telemetry:
        log(telemetry, [1, 2])
    stream.close()  # What was left went nowhere: the interpreter, too, closes its output without an error.
    assert logged(tmp_path) == [1, 2]


def test_metrics_lie_on_the_disk_when_log_returns(tmp_path):
    # A checkpoint is saved next, and a run that resumes there would never write these lines.
    with make(tmp_path) as telemetry:
        for step in range(1, 50):
            telemetry.log(step, {"eval/loss": 1.0})
            assert json.loads((tmp_path / METRICS_FILE).read_text().splitlines()[-1])["step"] == step
