"""Services that keep metrics: fakes of their packages that work, fail and hang."""

import importlib.util
import sys
import threading
import time
import types

import pytest

from ecgjax import defaults
from ecgjax.errors import ConfigError
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.telemetry import Telemetry
from ecgjax.training.trackers import known_runs, tracking, wandb_run

LEAVES = {"seed": 3, "data": {"dir": "x" * 700}}


class FakeWandb(types.ModuleType):
    def __init__(self):
        super().__init__("wandb")
        self.begun, self.lines, self.exits = [], [], []
        self.hangs, self.fails, self.set_up = threading.Event(), False, False
        self.hangs.set()
        self.Settings = dict

    def init(self, **arguments):
        assert self.set_up  # The hook of the package is registered before ours.
        self.begun.append(arguments)
        return self

    def setup(self):
        self.set_up = True

    def teardown(self):
        self.hangs.wait(30)

    def define_metric(self, name, *, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.hangs.wait(30)
        if self.fails:
            raise SystemExit("no network\nat all")
        self.lines.append(values)

    def finish(self, *, exit_code):
        self.exits.append(exit_code)


class FakeMlflow(types.ModuleType):
    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.experiments = {}, {}
        self.entities = types.ModuleType("mlflow.entities")
        self.entities.Metric = lambda name, value, time_ms, step: (name, value, step)
        self.entities.Param = lambda name, value: (name, value)

    def MlflowClient(self):  # noqa: N802 - the name that the package has
        return self

    def get_experiment_by_name(self, name):
        number = self.experiments.get(name)
        return None if number is None else types.SimpleNamespace(experiment_id=number)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, "7")

    def create_run(self, experiment, *, run_name):
        assert experiment == "7"
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = types.SimpleNamespace(params=[], metrics=[], statuses=["RUNNING"])
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def update_run(self, run_id, *, status):
        self.runs[run_id].statuses.append(status)

    set_terminated = lambda self, run_id, status: self.update_run(run_id, status=status)  # noqa: E731

    def log_batch(self, run_id, *, metrics=(), params=()):
        assert len(params) <= 100
        assert all(len(value) <= 500 for _, value in params)
        self.runs[run_id].metrics += metrics
        self.runs[run_id].params += params


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    yield fake
    fake.hangs.set()


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", fake.entities)
    return fake


def train(workdir, *names, steps=(1, 2), start=0, finished=True, error=None):
    telemetry = Telemetry(workdir, total_steps=9, examples_per_step=1, start_step=start, progress=False, trackers=names)
    with telemetry:
        telemetry.describe(LEAVES)
        for step in steps:
            telemetry.log(step, {"eval/loss": float(step), "eval/undefined": float("nan")})
        if error is not None:
            raise error
        if finished:
            telemetry.finished()


def test_a_resumption_goes_on_under_the_same_id(tmp_path, wandb, mlflow, capsys):
    workdir = tmp_path / "simclr"
    workdir.mkdir()
    train(workdir, "wandb", "mlflow", finished=False)
    with pytest.raises(ValueError, match="diverged"):
        train(workdir, "wandb", "mlflow", steps=(2,), start=1, error=ValueError("diverged"))
    train(workdir, "wandb", "mlflow", steps=(2, 3), start=1)
    assert not capsys.readouterr().err
    assert len({begun["id"] for begun in wandb.begun}) == 1
    assert {begun["resume"] for begun in wandb.begun} == {"allow"}
    assert wandb.begun[0]["config"] == {"seed": 3, "data.dir": "x" * 700}
    assert wandb.begun[0]["name"] == "simclr"
    assert wandb.lines == [{"step": step, "eval/loss": float(step)} for step in (1, 2, 2, 2, 3)]
    assert wandb.exits == [1, 1, 0]
    (run,) = mlflow.runs.values()
    assert run.metrics == [("eval/loss", float(step), step) for step in (1, 2, 2, 2, 3)]
    assert run.params == [("seed", "3"), ("data.dir", "x" * 500)]
    assert run.statuses == ["RUNNING", "KILLED", "RUNNING", "FAILED", "RUNNING", "FINISHED"]


def test_a_service_that_fails_is_one_warning_and_hides_no_other(tmp_path, wandb, mlflow, capsys):
    wandb.fails = True
    train(tmp_path, "wandb", "mlflow", steps=(1, 2, 3))
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "warning: wandb fails (SystemExit: no network); training goes on, and metrics.jsonl has the metrics",
        "warning: wandb has not taken 3 of 3 lines of metrics; metrics.jsonl has them",
    ]
    assert len(mlflow.runs["run0"].metrics) == len(read_metrics(tmp_path)) == 3


def test_a_package_that_cannot_be_imported_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    train(tmp_path, "wandb")
    assert "wandb fails (ModuleNotFoundError" in capsys.readouterr().err
    assert len(read_metrics(tmp_path)) == 2


def test_the_end_of_python_waits_a_little_for_a_package_that_does_not_end(monkeypatch, capsys):
    monkeypatch.setattr(wandb_run, "_LEAVE_S", 0.2)
    held, asked = threading.Event(), []
    registered = []
    monkeypatch.setattr(wandb_run.atexit, "register", registered.append)
    wandb_run._Leaving(lambda: asked.append(held.wait(30)))
    wandb_run._Leaving(lambda: asked.append("at once"))
    start = time.monotonic()
    for end in registered:
        end()
    assert time.monotonic() - start < 10
    assert asked == ["at once"]
    assert capsys.readouterr().err.splitlines() == [
        "warning: wandb has not ended within 0.2 s; its files are in WORKDIR/wandb, for `wandb sync`"
    ]
    held.set()


def test_a_service_that_hangs_holds_up_nothing(tmp_path, wandb, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "LAST_PATIENCE_S", 0.1)
    monkeypatch.setattr(tracking, "MOST_KEPT", 4)
    wandb.hangs.clear()
    begin = time.monotonic()
    train(tmp_path, "wandb", steps=range(1, 41))
    assert time.monotonic() - begin < 5
    assert "wandb has not taken 40 of 40 lines" in capsys.readouterr().err
    assert len(read_metrics(tmp_path)) == 40


def test_a_slow_service_gets_all_at_the_end(tmp_path, wandb):
    wandb.hangs.clear()
    threading.Timer(0.2, wandb.hangs.set).start()
    train(tmp_path, "wandb", steps=range(1, 41))
    assert [line["step"] for line in wandb.lines] == list(range(1, 41))
    assert wandb.exits == [0]


@pytest.mark.parametrize("damage", [b"", b"a b", b"\xff", "folder"])
def test_an_id_that_is_damaged_begins_another_run(tmp_path, wandb, capsys, damage):
    path = tmp_path / known_runs.IDS_DIR / "wandb.txt"
    path.parent.mkdir()
    path.mkdir() if damage == "folder" else path.write_bytes(damage)
    train(tmp_path, "wandb")
    assert "wandb begins another run" in capsys.readouterr().err
    assert len(wandb.lines) == 2


def test_only_the_first_process_tells(tmp_path, wandb, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    train(tmp_path, "wandb")
    assert not wandb.begun


def test_nothing_is_imported_unless_it_is_asked_for(tmp_path, wandb):
    train(tmp_path)
    assert not wandb.begun
    assert not (tmp_path / known_runs.IDS_DIR).exists()


def test_a_missing_package_is_refused_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"config.trackers=\('mlflow',\) needs .* pip install 'ecgjax\[mlflow\]'"):
        tracking.check_installed(("mlflow",))
    tracking.check_installed(())


@pytest.mark.parametrize("names", [("tensorboard",), ("wandb", "clearml")])
def test_an_unknown_service_is_refused(names):
    config = defaults.get_config()
    config.trackers = names
    with pytest.raises(ConfigError, match=r"config.trackers=.* is unknown; there are: wandb, mlflow"):
        defaults.settings_of(config)


def test_the_choices_are_the_services():
    assert defaults.leaves()["trackers"].choices == tuple(tracking.TRACKERS)
