"""Batch scripts: what bash reads of them, and what they do after every status, with stand-ins for Slurm's commands."""

import json
import shlex
import subprocess
import sys

import pytest
from absl import flags

from ecgjax.errors import ConfigError
from launch.clusters import slurm_script
from tests.support.fake_slurm import FakeSlurm

#: Words that a shell would change if it were let.
AWKWARD = [
    "two words",
    "it's",
    'a "quote"',
    "$HOME `id` $(id)",
    "line\nbreak",
    "*",
    "~",
    "\\",
    "ä✓",
    "",
    "!x",
    "#y",
    "-n",
]

TELL = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('TOLD')]))"


def _job(*arguments):
    values = flags.FlagValues()
    slurm_script.define_flags(values)
    values(["slurm", *arguments])
    return slurm_script.job_of(values)


def _script(command, *arguments):
    return slurm_script.script(_job(*arguments), command, made_by="python -m launch.slurm …")


def _directives(text):
    return {line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH")}


@pytest.fixture
def slurm(tmp_path):
    return FakeSlurm(tmp_path / "slurm")


def _assert_bash_reads(text):
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_there_is_one_task_a_gpu_and_every_task_sees_all_gpus_of_its_node():
    text = _script(["python"], "--nodes=8", "--gpus_per_node=8", "--time=24:00:00", "--cpus_per_process=12")
    _assert_bash_reads(text)
    assert _directives(text) >= {
        "--nodes=8", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=12", "--signal=TERM@300", "--requeue",
        "--open-mode=append", "--output=logs/%x-%j.out", "--time=24:00:00", "--job-name=ecgjax",
    }  # fmt: skip
    start = text[text.index("srun \\") :]
    for option in ("--ntasks=64", "--ntasks-per-node=8", "--gpu-bind=none", "--cpus-per-task=12", "--label"):
        assert f"  {option} \\\n" in start
    assert "gpus-per-task" not in text
    assert "--ntasks-per-node=1" in _directives(_script(["python"], "--gpus_per_node=8", "--processes_per_node=1"))
    on_cpus = _script(["python"], "--nodes=2")
    assert "gpu" not in on_cpus.partition("restarts=")[0].partition("#SBATCH")[2]
    assert "--gpus-per-node=h100:4" in _directives(_script(["python"], "--gpus_per_node=4", "--gpu_type=h100"))


def test_words_and_variables_reach_the_command_as_they_were_given(slurm, tmp_path):
    told = 'it\'s\n"$HOME" `id` \\'
    text = _script([sys.executable, "-c", TELL, *AWKWARD], f"--env=TOLD={told}", "--setup=export MORE=1")
    _assert_bash_reads(text)
    assert slurm.run(text, tmp_path)[0] == 0
    (log,) = (tmp_path / "logs").glob("rehearsal-77.restart0.txt")
    assert json.loads(log.read_text()) == [AWKWARD, told]


@pytest.mark.parametrize(
    ("status", "requeued"), [(0, False), (1, False), (2, False), (3, False), (75, True), (76, True), (77, True),
                             (127, False), (130, False), (134, True), (137, True), (139, True), (143, True)],
)  # fmt: skip
def test_a_job_is_queued_again_after_what_another_start_mends_and_nothing_else(slurm, tmp_path, status, requeued):
    left, output = slurm.run(_script(["bash", "-c", f"exit {status}"]), tmp_path)
    assert left == status
    assert slurm.notes("scontrol_calls") == (["requeue 77"] if requeued else [])
    assert bool(output) == (status != 0)
    if status:
        assert f"status {status}" in output
        assert "logs/rehearsal-77.restart0.txt" in output


def test_failures_in_a_row_are_counted_and_stops_are_not(slurm, tmp_path):
    def run(status):
        return slurm.run(_script(["bash", "-c", f"exit {status}"], "--max_restarts=2"), tmp_path)[1]

    def calls():
        return len(slurm.notes("scontrol_calls"))

    for _ in range(5):
        run(75)
    assert calls() == 5
    assert "restart 1 of 2" in run(77)
    assert "restart 2 of 2" in run(137)
    run(75)  # It had gone on for a while.
    assert "restart 1 of 2" in run(76)
    assert "restart 2 of 2" in run(76)
    assert calls() == 10
    assert "the 2 restarts in a row are used up" in run(76)
    assert calls() == 10
    run(0)
    assert not list((tmp_path / "logs").glob("*.failures"))


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING"])
def test_a_job_that_somebody_cancelled_is_left_alone(slurm, tmp_path, state):
    status, output = slurm.run(_script(["bash", "-c", "exit 75"]), tmp_path, {"FAKE_STATE": state})
    assert status == 75
    assert not slurm.notes("scontrol_calls")
    assert "cancelled" in output


def test_a_queue_that_refuses_is_told(slurm, tmp_path):
    status, output = slurm.run(_script(["bash", "-c", "exit 75"]), tmp_path, {"FAKE_SCONTROL_STATUS": "1"})
    assert status == 75
    assert "error: job 77 cannot be queued again" in output


def test_every_restart_has_a_log_of_its_own_and_none_is_overwritten(slurm, tmp_path):
    text = _script(["bash", "-c", "echo begun"], "--logs=some/logs")
    slurm.run(text, tmp_path)
    slurm.run(text, tmp_path)
    slurm.run(text, tmp_path, {"SLURM_RESTART_COUNT": "3"})
    logs = tmp_path / "some" / "logs"
    assert (logs / "rehearsal-77.restart0.txt").read_text() == "begun\nbegun\n"
    assert (logs / "rehearsal-77.restart3.txt").read_text() == "begun\n"


def test_sigterm_to_the_script_reaches_the_processes_and_their_status_counts(slurm, tmp_path):
    command = ["bash", "-c", "trap 'sleep .3; exit 75' TERM; touch ready$SLURM_PROCID; while :; do sleep .05; done"]
    process = slurm.start(_script(command, "--processes_per_node=2"), tmp_path)
    while not all((tmp_path / f"ready{number}").exists() for number in range(2)):
        assert process.poll() is None
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped, which is no failure" in output
    assert slurm.notes("scontrol_calls") == ["requeue 77"]


def test_an_array_runs_the_command_of_its_number(slurm, tmp_path):
    commands = [["bash", "-c", 'printf "%s|" "$@"', "x", *AWKWARD, str(number)] for number in range(3)]
    text = slurm_script.array_script(_job(), commands, made_by="me", at_once=2)
    _assert_bash_reads(text)
    assert "--array=0-2%2" in _directives(text)
    for number in range(3):
        task = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "70"}
        assert slurm.run(text, tmp_path, task)[0] == 0
        log = tmp_path / "logs" / f"rehearsal-70_{number}.restart0.txt"
        assert log.read_text().split("|")[:-1] == [*AWKWARD, str(number)]
    assert slurm.run(text, tmp_path, {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "70"})[0] == 2
    with pytest.raises(ConfigError, match="1001 jobs are more than an array of Slurm has"):
        slurm_script.array_script(_job(), [["true"]] * 1001, made_by="me")


def test_the_head_shows_how_it_was_made_in_comments_alone(slurm, tmp_path):
    text = slurm_script.script(_job(), ["true"], made_by=shlex.join(["python", "a\nrm -rf /\x0bb\u2028c\r\nd"]))
    lines = text.partition("#SBATCH")[0].splitlines()
    assert all(line.startswith("#") for line in lines)
    assert slurm.run(text, tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name=My_Run"], r"--name='My_Run' cannot be part"),
        (["--name=" + "x" * 64], "64 characters; 63 are possible"),
        (["--gpus_per_node=8", "--processes_per_node=3"], "--processes_per_node=3 cannot share --gpus_per_node=8"),
        (["--gpu_type=h100"], "--gpus_per_node is 0"),
        (["--time=soon"], "--time='soon' is no limit"),
        (["--time=10"], "--time=10 is 600 s, of which the last --grace_s=300"),
        (["--time=1-0:00:00:00"], "is no limit"),
        (["--partition=a b"], "--partition='a b'"),
        (["--logs=a'b"], "--logs="),
        (["--logs=100%"], "--logs="),
        (["--env=novalue"], "--env='novalue' is no variable"),
        (["--env=a b=1"], "is no variable"),
        (["--env=A=1", "--env=A=2"], "--env=A is given twice"),
        (["--env=CUDA_VISIBLE_DEVICES=0"], "--env=CUDA_VISIBLE_DEVICES: the launcher or the cluster sets"),
        (["--env=status=1"], "--env=status: the launcher"),
        (["--setup=if true"], "--setup='if true': bash cannot read it"),
        (["--setup=echo 'x"], "bash cannot read it"),
        (["--setup=cat << END"], "bash cannot read it"),
        (["--sbatch=--gpus-per-task=1"], "--sbatch=--gpus-per-task=1: the script sets --gpus-per-task itself"),
        (["--sbatch=--nodes=2"], "give --nodes of this command"),
        (["--sbatch=-N2"], "the script sets -N2 itself.*give --nodes"),
        (["--sbatch=--gres=gpu:8"], "give --gpus_per_node of this command"),
        (["--sbatch=--signal=B:USR1@60"], "give --grace_s of this command"),
        (["--srun=--gpus-per-task=1"], "--srun=--gpus-per-task=1"),
        (["--sbatch=qos=high"], "is no option in its long form"),
        (["--sbatch=-p gpu"], "is no option in its long form"),
        (["--sbatch=--comment=two words"], "--sbatch='--comment=two words' cannot stand"),
    ],
)  # fmt: skip
def test_what_slurm_would_misread_is_refused_by_name(arguments, words):
    with pytest.raises(ConfigError, match=words):
        _job(*arguments)


@pytest.mark.parametrize("text", ["11", "10:01", "1:00:00", "1-0", "2-12:30", "3-00:00:00"])
def test_all_forms_of_a_limit_are_read(text):
    assert f"--time={text}" in _directives(_script(["true"], f"--time={text}"))


def test_the_message_of_an_impossible_name_speaks_of_a_job():
    with pytest.raises(ConfigError, match="cannot be part of the names of a job and its logs: a-z"):
        _job("--name=my run")
