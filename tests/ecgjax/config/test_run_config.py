import errno
import json
import subprocess
import sys

import pytest
from absl import flags

from configs import quickstart, simclr
from data_pipelines.command import EXIT_USER_ERROR
from data_pipelines.errors import DataError
from data_pipelines.system.exit_status import ExitStatus
from ecgjax.config import earlier, run_config
from ecgjax.errors import ConfigError, DivergedError


@pytest.mark.parametrize("config", [simclr.get_config(), simclr.get_config("small"), quickstart.get_config()])
def test_resolved_config_comes_back_as_it_was(tmp_path, config):
    run_config.write_resolved(config, tmp_path)
    assert run_config.load_resolved(tmp_path).to_dict() == config.to_dict()
    assert [path.name for path in tmp_path.iterdir()] == [run_config.CONFIG_FILE]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^--workdir=.*nowhere is not the folder of a pretraining run: .*does not exist$"
    ):
        run_config.load_resolved(tmp_path / "nowhere")


def test_resume_names_every_leaf_that_differs(tmp_path):
    config = simclr.get_config()
    run_config.check_resume(config, tmp_path)
    run_config.write_resolved(config, tmp_path)
    run_config.check_resume(config, tmp_path)
    config.batch_size = 32
    config.augment.vcg.max_angle_deg = 30.0
    config.data.train_folds = (1, 2)
    with pytest.raises(ConfigError) as error:
        run_config.check_resume(config, tmp_path)
    for part in (
        "batch_size was 64 and is 32",
        "augment.vcg.max_angle_deg was 45.0 and is 30.0",
        "data.train_folds was",
    ):
        assert part in str(error.value)


def test_a_run_that_is_older_than_some_leaves_goes_on(tmp_path):
    config, newer = simclr.get_config(), ("optimizer.decayed", "miner.choice", "objective.l2_form")
    before = config.to_dict()
    for leaf in newer:
        section, name = leaf.split(".")
        assert before[section].pop(name) is None
    (tmp_path / run_config.CONFIG_FILE).write_text(json.dumps(before))
    run_config.check_resume(config, tmp_path)
    config.optimizer.decayed = "all"
    with pytest.raises(ConfigError, match=r"optimizer\.decayed was None and is 'all'"):
        run_config.check_resume(config, tmp_path)


def test_where_the_data_lie_and_how_often_things_happen_may_change(tmp_path):
    config = simclr.get_config()
    run_config.write_resolved(config, tmp_path)
    config.data.dir = "elsewhere"
    config.data.store = "packed"
    config.log_every = 3
    config.checkpoint.every = 7
    config.probe.task = "sex=1"
    config.pictures, config.trackers = 5, ("wandb",)
    run_config.check_resume(config, tmp_path)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("no such lead"), EXIT_USER_ERROR),
        (DataError("no such lead"), EXIT_USER_ERROR),
        (DivergedError("no such lead"), ExitStatus.DIVERGED),
    ],
)
def test_errors_of_the_user_print_one_line(error, expected, capsys):
    def main(_):
        raise error

    with pytest.raises(SystemExit) as status:
        run_config.run(main, argv=["program"], flags_parser=lambda argv: flags.FLAGS(argv[:1]))
    assert status.value.code == expected
    assert capsys.readouterr().err == "error: no such lead\n"


def test_what_the_machine_refuses_prints_one_line(capsys):
    def main(_):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    with pytest.raises(SystemExit) as status:
        run_config.run(main, argv=["program"], flags_parser=lambda argv: flags.FLAGS(argv[:1]))
    assert status.value.code == EXIT_USER_ERROR
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'metrics.jsonl'\n"


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff\x00", b"null", b'"text"'])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / run_config.CONFIG_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        run_config.check_resume(simclr.get_config(), tmp_path)


def test_a_config_that_is_there_already_is_not_written_again(tmp_path, monkeypatch):
    config = simclr.get_config()
    run_config.write_resolved(config, tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_config, "write_atomically", full)
    run_config.write_resolved(config, tmp_path)  # A run can resume on a disk that is full.
    config.log_every += 1
    with pytest.raises(OSError, match="No space left"):
        run_config.write_resolved(config, tmp_path)


def test_what_is_named_may_differ_and_nothing_else(tmp_path):
    config = simclr.get_config()
    run_config.write_resolved(config, tmp_path)
    config.seed, config.batch_size, config.objective.temperature = 7, 16, 0.5
    with pytest.raises(ConfigError, match=r"--config.resume.allow=batch_size,objective.temperature,seed$"):
        run_config.check_resume(config, tmp_path)
    config.resume.allow = "seed,objective"
    with pytest.raises(ConfigError, match=r"batch_size was \d+ and is 16\. .*allow=seed,objective,batch_size$"):
        run_config.check_resume(config, tmp_path)
    config.resume.allow = "seed, objective, batch_size"
    assert {name: now for name, (_, now) in run_config.check_resume(config, tmp_path).items()} == {
        "seed": 7,
        "batch_size": 16,
        "objective.temperature": 0.5,
    }
    config.resume.allow = "sed"
    with pytest.raises(ConfigError, match="allow='sed' is no leaf or section of a config; did you mean seed"):
        run_config.check_resume(config, tmp_path)


@pytest.mark.parametrize("left", [b"", b"1234", b"\xff" * 100])
def test_a_lock_that_was_left_holds_nobody_up(tmp_path, left):
    (tmp_path / ".lock").write_bytes(left)
    with run_config.exclusive(tmp_path):
        pass
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()
    refused = pytest.raises(ConfigError, match=r"no folder that can be written \(Is a directory\)")
    with refused, run_config.exclusive(tmp_path):
        pass


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_config.fcntl, "flock", none)
    refused = pytest.raises(ConfigError, match=r"cannot be locked against a second run \(No locks available\)")
    with refused, run_config.exclusive(tmp_path):
        pass


def test_checkpoints_without_their_config_are_refused(tmp_path):
    folder = run_config.checkpoint_dir(tmp_path)
    folder.mkdir()
    run_config.check_resume(simclr.get_config(), tmp_path)
    (folder / "10").mkdir()
    with pytest.raises(ConfigError, match=r"holds checkpoints, but .* is gone"):
        run_config.check_resume(simclr.get_config(), tmp_path)


def test_a_workdir_is_of_one_run_at_a_time(tmp_path):
    workdir = tmp_path / "läuft gerade"
    hold = "import sys; from ecgjax.config import run_config\nwith run_config.exclusive(sys.argv[1]): print(); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(workdir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "\n"
        with pytest.raises(ConfigError, match="another run is writing to"), run_config.exclusive(workdir):
            pass
    finally:
        other.kill()
        other.communicate()
    with run_config.exclusive(workdir):  # a killed run holds nothing
        pass


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(ConfigError, match="file is no folder that can be written")
    with refused, run_config.exclusive(tmp_path / "file"):
        pass


def test_a_stray_argument_is_an_error(capsys):
    with pytest.raises(SystemExit) as status:
        run_config.run(
            lambda _: 0, argv=["program", "x"], flags_parser=lambda argv: [*flags.FLAGS(argv[:1]), *argv[1:]]
        )
    assert status.value.code == EXIT_USER_ERROR
    assert "unexpected argument 'x'" in capsys.readouterr().err


def test_bugs_keep_their_trace():
    def main(_):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run_config.run(main, argv=["program"], flags_parser=lambda argv: flags.FLAGS(argv[:1]))


def test_fractions_are_read_in_order_and_each_once():
    assert run_config.parse_fractions(["1", ".1", "1.0"]) == [0.1, 1.0]


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["x"], "are no numbers"), (["0"], "must be above 0"), ([], "must be above 0"), ([".1", "1.5"], "at most 1")],
)
def test_fractions_that_are_none_are_refused(texts, message):
    with pytest.raises(run_config.ConfigError, match=message):
        run_config.parse_fractions(texts)


def test_a_run_that_has_a_leaf_that_is_gone_goes_on(tmp_path):
    config = simclr.get_config()
    run_config.write_resolved(config, tmp_path)
    path = tmp_path / run_config.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gradient_accumulation": 1}))
    run_config.check_resume(config, tmp_path)
    assert "gradient_accumulation" not in run_config.load_resolved(tmp_path)


def test_a_run_that_asks_its_questions_in_three_leaves_is_translated(tmp_path):
    config = simclr.get_config()
    config.probe.task, config.columns.task, config.sampling.balance = "wedge_pressure>18", "lvef", "sex=1"
    run_config.write_resolved(config, tmp_path)
    path = tmp_path / run_config.CONFIG_FILE
    before = json.loads(path.read_text())
    del before["probe"]["task"], before["columns"]["task"]
    before["probe"] |= {"label": "wedge_pressure", "rule": "above", "threshold": 18.0}
    before["columns"] |= {"label": "lvef", "rule": "values", "threshold": None}
    before["sampling"]["balance"] = {"label": "sex", "rule": "present", "threshold": None}
    path.write_text(json.dumps(before))
    assert run_config.load_resolved(tmp_path).to_dict() == config.to_dict()
    run_config.check_resume(config, tmp_path)


def test_a_question_whose_threshold_was_left_to_evaluations_is_none(tmp_path):
    config = simclr.get_config()
    run_config.write_resolved(config, tmp_path)
    path = tmp_path / run_config.CONFIG_FILE
    before = json.loads(path.read_text())
    del before["probe"]["task"]
    before["probe"] |= {"label": "lvef", "rule": "below", "threshold": None}
    path.write_text(json.dumps(before))
    assert run_config.load_resolved(tmp_path).to_dict() == config.to_dict()


def test_none_is_set_where_the_command_line_says_so():
    config = simclr.get_config()
    given = [
        "--config.relation.name=None",
        "--config.optimizer.clip_norm=None",
        "--config.seed=3",
        "-config.batch_size=None",
    ]
    assert run_config.without_none(given) == ["--config.seed=3"]
    run_config.set_none(config, given)
    assert config.relation.name is None
    assert config.batch_size is None


@pytest.mark.parametrize(
    ("given", "rest", "none"),
    [
        (["--config.miner.name", "None", "--config.seed", "3"], ["--config.seed", "3"], True),
        (["--config.miner.name=npair", "--config.miner.name=None"], ["--config.miner.name=npair"], True),
        (["--config.miner.name=None", "--config.miner.name=npair"], ["--config.miner.name=npair"], False),
        (["--", "--config.miner.name=None"], ["--", "--config.miner.name=None"], False),
    ],
)
def test_none_may_stand_in_a_word_of_its_own_and_the_last_one_counts(given, rest, none):
    config = simclr.get_config()
    config.miner.name = "npair"
    assert run_config.without_none(given) == rest
    run_config.set_none(config, given)
    assert (config.miner.name is None) == none


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gradient_accumulation", r"config\.gradient_accumulation cannot be set: .*config\.micro_batch\.parts"),
        ("config.gradient_accumulation", r"config\.gradient_accumulation cannot be set: .*config\.micro_batch\.parts"),
        ("config.probe.label", r"config\.probe\.label cannot be set: .*--config\.probe\.task='lvef<40'"),
        ("sampling.balance.rule", r"config\.sampling\.balance\.rule cannot be set: .*--config\.sampling\.balance="),
    ],
)
def test_a_leaf_that_is_gone_is_refused_by_name(name, words):
    with pytest.raises(ConfigError, match=words):
        earlier.check_retired(["batch_size", name])
