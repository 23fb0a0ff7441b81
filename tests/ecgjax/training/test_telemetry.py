import json
import struct

import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event

from ecgjax.training import devices
from ecgjax.training.run_log.metrics_file import METRICS_FILE, read_metrics
from ecgjax.training.telemetry import TENSORBOARD_DIR, Telemetry


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("ecgjax.training.telemetry.time.perf_counter", clock)
    return clock


def make(workdir, **kwargs):
    return Telemetry(workdir, total_steps=100, examples_per_step=8, progress=False, **kwargs)


def test_speed_counts_done_steps_and_leaves_pauses_out(tmp_path, clock):
    with make(tmp_path, flops_per_step=1e9) as telemetry:
        for _ in range(10):
            with telemetry.input_wait():
                clock.now += 0.05
            clock.now += 0.15
            telemetry.step()
        telemetry.log(10, {"train/loss": jnp.float32(2.0)})
        with telemetry.pause():
            clock.now += 50
            telemetry.log(10, {"eval/loss": 3.0})
        for _ in range(4):
            clock.now += 0.5
            telemetry.step()
        telemetry.log(12, {"train/loss": 1.0})  # two of the four are done
    first, evaluation, second = read_metrics(tmp_path)
    assert first["step"] == 10
    assert first["train/loss"] == 2.0
    assert first["perf/step_ms"] == pytest.approx(200)
    assert first["perf/ecgs_per_sec"] == pytest.approx(40)
    assert first["perf/input_wait_frac"] == pytest.approx(0.25)
    assert first["perf/flops_per_sec"] == pytest.approx(5e9)
    assert "perf/mfu" not in first, "a CPU is not in the table"
    assert first["mem/host_peak_bytes"] > 1e7
    assert evaluation == {"step": 10, "eval/loss": 3.0}
    assert second["perf/step_ms"] == pytest.approx(1000)


def test_a_collapse_is_told_once_until_it_is_over(tmp_path, clock, capsys):
    ranks = [30.0, 1.5, 1.2, float("nan"), 1.3, 8.0, 1.9]
    with make(tmp_path) as telemetry:
        for step, rank in enumerate(ranks, start=1):
            telemetry.log(step, {"train/loss": 1.0, "train/effective_rank": rank})
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [line.split(" the embeddings")[0] for line in told] == ["warning: at step 2", "warning: at step 7"]
    assert read_metrics(tmp_path)[3]["train/effective_rank"] is None


def test_gradients_that_are_far_apart_are_told_once(tmp_path, clock, capsys):
    norms = [(5.0, 1.0), (float("nan"), 1.0), (34.0, 1.0), (50.0, 1.0), (0.0, 2.0)]
    with make(tmp_path) as telemetry:
        for step, (objective, task) in enumerate(norms, start=1):
            metrics = {"train/loss": 1.0, "train/grad_norm_objective": objective, "train/grad_norm_task": task}
            telemetry.log(step, metrics)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert told.startswith("warning: at step 3 the gradient of the objective is 34 times that of the task (train/grad")
    assert "config.objective.weight" in told


def test_mfu_where_the_device_is_known(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("ecgjax.training.telemetry.devices.peak_flops", lambda: 1e12)
    with make(tmp_path, flops_per_step=1e11) as telemetry:
        clock.now += 1
        telemetry.step()
        telemetry.log(1, {"train/loss": 0.0})
    assert read_metrics(tmp_path)[0]["perf/mfu"] == pytest.approx(0.1)


def test_peak_flops_takes_the_longest_match(monkeypatch):
    class Device:
        def __init__(self, kind):
            self.device_kind = kind

    for kind, expected in (("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 80GB HBM3", 989e12), ("abacus", None)):
        monkeypatch.setattr(devices.jax, "devices", lambda kind=kind: [Device(kind)])
        monkeypatch.setattr(devices.jax, "device_count", lambda: 2)
        assert devices.peak_flops() == (None if expected is None else 2 * expected)


def test_what_is_not_finite_is_null_in_strict_json(tmp_path):
    with make(tmp_path) as telemetry:
        telemetry.log(1, {"eval/loss": float("nan"), "eval/other": float("inf")})
    (line,) = (tmp_path / METRICS_FILE).read_text().splitlines()
    parsed = json.loads(line, parse_constant=pytest.fail)
    assert parsed == {"step": 1, "eval/loss": None, "eval/other": None}


def test_resume_drops_what_came_after_and_a_torn_line(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text("".join(json.dumps({"step": s, "train/loss": 1.0}) + "\n" for s in (1, 2, 3)) + '{"step": 4, "tr')
    with make(tmp_path, start_step=2) as telemetry:
        telemetry.log(3, {"eval/loss": 9.0})
    assert read_metrics(tmp_path) == [
        {"step": 1, "train/loss": 1.0},
        {"step": 2, "train/loss": 1.0},
        {"step": 3, "eval/loss": 9.0},
    ]


def events(workdir):
    (file,) = (workdir / TENSORBOARD_DIR).iterdir()
    data, found = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[12 + length + 4 :]
    return [(event.step, value) for event in found for value in event.summary.value]


def test_tensorboard_events_hold_the_values(tmp_path):
    with make(tmp_path) as telemetry:
        telemetry.log(7, {"train/loss": 0.25})
    values = {value.tag: (step, value.simple_value) for step, value in events(tmp_path)}
    assert values["train/loss"] == (7, 0.25)


def test_config_and_pictures_stand_in_tensorboard_alone(tmp_path):
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 40, 30)
    with make(tmp_path, start_step=4) as telemetry:
        telemetry.describe({"seed": 3, "data": {"dir": "here"}})
        telemetry.show("views", [png, png])
        telemetry.show("none", [])
    assert not (tmp_path / METRICS_FILE).exists()
    (step, text), *shown = events(tmp_path)
    assert (step, text.tag, text.metadata.plugin_data.plugin_name) == (4, "config/text_summary", "text")
    lines = text.tensor.string_val[0].decode().splitlines()
    assert all(line.startswith("    ") for line in lines), "Markdown's code"
    assert json.loads("".join(lines)) == {"seed": 3, "data": {"dir": "here"}}
    assert [(step, value.tag, value.image.width, value.image.height) for step, value in shown] == [
        (4, "views/0", 40, 30),
        (4, "views/1", 40, 30),
    ]


def test_the_learning_rate_is_that_of_the_latest_update_made(tmp_path):
    with make(tmp_path, learning_rate=lambda update: update / 8) as telemetry:
        telemetry.log(1, {"train/loss": 1.0})
        telemetry.log(1, {"eval/loss": 1.0})
        telemetry.log(10, {"train/loss": 1.0, "train/skipped": 3.0})
        telemetry.log(11, {"train/loss": 1.0, "train/skipped": 11.0})
    first, evaluation, third, none_made = read_metrics(tmp_path)
    assert [line["train/learning_rate"] for line in (first, third, none_made)] == [0, 6 / 8, 0]
    assert "train/learning_rate" not in evaluation


def test_a_learning_rate_that_cannot_be_had_is_one_warning(tmp_path, capsys):
    with make(tmp_path, learning_rate=lambda update: 1 / 0) as telemetry:
        for step in (1, 2):
            telemetry.log(step, {"train/loss": 1.0})
    assert capsys.readouterr().err.count("the learning rate cannot be logged (division by zero)") == 1
    assert [line["train/loss"] for line in read_metrics(tmp_path)] == [1.0, 1.0]


def test_without_a_terminal_plain_lines_are_printed(tmp_path, capsys):
    with make(tmp_path) as telemetry:
        telemetry.log(5, {"eval/loss": 0.125})
    assert capsys.readouterr().out == "step 5/100  eval/loss 0.125\n"
