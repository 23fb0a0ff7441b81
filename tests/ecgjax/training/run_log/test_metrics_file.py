"""`metrics.jsonl` after whatever has happened to it: torn, overwritten, doubled, no file."""

import errno
import json
import os

import pytest

from ecgjax.system import files
from ecgjax.training.run_log import metrics_file
from ecgjax.training.run_log.metrics_file import METRICS_FILE, drop_after, read_metrics

GARBAGE = [
    b"\x00" * 40,
    b"\xff\xfe{}",
    b'{"step": 2, "train/loss": 1.',
    b"[1, 2]",
    b'{"train/loss": 1.0}',
    b'{"step": "2", "train/loss": 1.0}',
    b'{"step": true}',
    b'{"step": -1}',
    b'{"step": 2, "train/loss": "low"}',
    b"[" * 100_000,
]


def line(step, **metrics):
    return json.dumps({"step": step, **metrics}).encode()


def write(workdir, *lines, end=b"\n"):
    (workdir / METRICS_FILE).write_bytes(b"\n".join(lines) + end)


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_damaged_lines_are_passed_over_and_counted(tmp_path, capsys, garbage):
    write(tmp_path, line(1, loss=3.0), garbage, line(3, loss=None))
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3.0}, {"step": 3, "loss": None}]
    assert "has 1 damaged line, passed over" in capsys.readouterr().err


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_a_run_that_resumes_keeps_a_damaged_file_aside(tmp_path, capsys, garbage):
    write(tmp_path, line(1, loss=3.0), garbage, line(3, loss=1.0), line(4, loss=1.0))
    before = (tmp_path / METRICS_FILE).read_bytes()
    (tmp_path / f"{METRICS_FILE}.damaged").write_text("an earlier one")
    drop_after(tmp_path, 3)
    assert (tmp_path / METRICS_FILE).read_bytes() == line(1, loss=3.0) + b"\n" + line(3, loss=1.0) + b"\n"
    assert (tmp_path / f"{METRICS_FILE}.damaged-2").read_bytes() == before
    assert "kept as metrics.jsonl.damaged-2" in capsys.readouterr().err


def test_half_a_line_at_the_end_is_no_damage(tmp_path, capsys):
    write(tmp_path, line(1, loss=3.0), b'{"step": 2, "lo', end=b"")
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3.0}]
    drop_after(tmp_path, 1)
    assert (tmp_path / METRICS_FILE).read_bytes() == line(1, loss=3.0) + b"\n"
    assert capsys.readouterr().err == ""


def test_of_two_lines_of_a_step_the_later_counts(tmp_path):
    write(
        tmp_path,
        *(line(1, a=1.0), line(2, a=1.0), line(2, b=1.0), line(3, a=1.0)),
        *(line(2, a=2.0), line(3, a=2.0), line(3, b=2.0)),
    )
    assert read_metrics(tmp_path) == [
        {"step": 1, "a": 1.0},
        {"step": 2, "b": 1.0},
        {"step": 2, "a": 2.0},
        {"step": 3, "a": 2.0},
        {"step": 3, "b": 2.0},
    ]


@pytest.mark.parametrize("what", ["nothing", "a folder", "a pipe", "a link to nothing"])
def test_what_is_no_file_has_no_metrics(tmp_path, what):
    path = tmp_path / METRICS_FILE
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a link to nothing":
        path.symlink_to(tmp_path / "nowhere")
    assert read_metrics(tmp_path) == []
    drop_after(tmp_path, 5)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_allows_no_change_ends_no_resumption(tmp_path, monkeypatch, capsys, number):
    write(tmp_path, *(line(step, loss=1.0) for step in (1, 2, 3)))

    def refuses(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(metrics_file.os, "truncate", refuses)
    drop_after(tmp_path, 1)
    assert f"cannot be brought to step 1 ({os.strerror(number)})" in capsys.readouterr().err
    files.append_whole(tmp_path / METRICS_FILE, line(2, loss=5.0) + b"\n")
    assert [each["loss"] for each in read_metrics(tmp_path)] == [1.0, 5.0, 1.0]


def test_an_unreadable_file_is_said_and_passed_over(tmp_path, monkeypatch, capsys):
    write(tmp_path, line(1, loss=1.0))

    def refuses(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(metrics_file.Path, "read_bytes", refuses)
    assert read_metrics(tmp_path) == []
    assert "cannot be read (Permission denied); it is passed over" in capsys.readouterr().err
