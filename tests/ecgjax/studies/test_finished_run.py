"""Flags of commands that evaluate a finished run: of runs that are older than a setting too."""

import json

import pytest

from data_pipelines.command import EXIT_USER_ERROR
from ecgjax import defaults
from ecgjax.config import run_config
from tests.support.forked_snippets import run_each

PROGRAM = """
import sys
from ecgjax.studies import finished_run
sys.argv = {argv!r}
finished_run.parse_flags(sys.argv)
from absl import flags
print(flags.FLAGS.config.probe)
"""
NEWER = ("--config.probe.finetune.head_start=probe", "--config.probe.supervised.head_learning_rate=.5")
MISTYPED = {
    "probe.finetune.head_stat": "probe.finetune.head_start", "probe.finetun.steps": "probe.finetune.steps",
}  # fmt: skip


@pytest.fixture(scope="module")
def old_run(tmp_path_factory):
    """The folder of a run from before heads could begin at a probe, and before anything was asked of groups."""
    folder = tmp_path_factory.mktemp("run")
    config = json.loads(json.dumps(defaults.get_config().to_dict()))
    del config["probe"]["supervised"], config["probe"]["finetune"]["head_start"], config["probe"]["groups"]
    config["probe"]["finetune"]["steps"] = 7
    (folder / run_config.CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def parsed(old_run, tmp_path_factory):
    """What came of every command line, by what it gives; flags are parsed but once in a process."""
    lines = {"newer": NEWER} | {
        given: ("--config.probe.supervised.steps=3", f"--config.{given}=1") for given in MISTYPED
    }
    programs = {
        name: PROGRAM.format(argv=["evaluate", f"--workdir={old_run}", *arguments]) for name, arguments in lines.items()
    }
    return run_each(programs, tmp_path_factory.mktemp("lines"), imports=["ecgjax.studies.finished_run"])


def test_an_older_run_can_be_asked_what_it_did_not_know_of(parsed):
    result = parsed["newer"]
    assert result.status == 0, result.errors
    for line in ("head_start: probe", "head_start: zeros", "head_learning_rate: 0.5", "steps: 7"):
        assert line in result.output
    assert "- sex" in result.output, "what groups are by default"


@pytest.mark.parametrize(("given", "meant"), MISTYPED.items())
def test_a_mistyped_setting_is_told_what_it_is_like(old_run, parsed, given, meant):
    result = parsed[given]
    assert result.status == EXIT_USER_ERROR
    (line,) = result.errors.strip().splitlines()
    assert line.startswith(f"error: there is no setting config.{given} of this run ({old_run}/config.json has all that")
    assert f"did you mean config.{meant}" in line
    assert len(line) < 500
