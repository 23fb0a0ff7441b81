"""Flags of commands that evaluate a finished run: of runs that are older than a setting too."""

import json
import subprocess
import sys

import pytest

from data_pipelines.command import EXIT_USER_ERROR
from ecgjax import defaults
from ecgjax.config import run_config

PROGRAM = """
import sys
from ecgjax.studies import finished_run
finished_run.parse_flags(sys.argv)
from absl import flags
print(flags.FLAGS.config.probe)
"""


@pytest.fixture
def old_run(tmp_path):
    """The folder of a run from before heads could begin at a probe, and before anything was asked of groups."""
    config = json.loads(json.dumps(defaults.get_config().to_dict()))
    del config["probe"]["supervised"], config["probe"]["finetune"]["head_start"], config["probe"]["groups"]
    config["probe"]["finetune"]["steps"] = 7
    (tmp_path / run_config.CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def _parsed(workdir, *arguments):
    command = [sys.executable, "-c", PROGRAM, f"--workdir={workdir}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_an_older_run_can_be_asked_what_it_did_not_know_of(old_run):
    result = _parsed(
        old_run, "--config.probe.finetune.head_start=probe", "--config.probe.supervised.head_learning_rate=.5"
    )
    assert result.returncode == 0, result.stderr
    for line in ("head_start: probe", "head_start: zeros", "head_learning_rate: 0.5", "steps: 7"):
        assert line in result.stdout
    assert "- sex" in result.stdout, "what groups are by default"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("probe.finetune.head_stat", "probe.finetune.head_start"), ("probe.finetun.steps", "probe.finetune.steps")],
)
def test_a_mistyped_setting_is_told_what_it_is_like(old_run, given, meant):
    result = _parsed(old_run, "--config.probe.supervised.steps=3", f"--config.{given}=1")
    assert result.returncode == EXIT_USER_ERROR
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: there is no setting config.{given} of this run ({old_run}/config.json has all that")
    assert f"did you mean config.{meant}" in line
    assert len(line) < 500
