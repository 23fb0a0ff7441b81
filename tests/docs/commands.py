"""Parses the commands that README.md and docs/*.md show, as the commands themselves parse them.

python -m tests.docs.commands                     # all of them
python -m tests.docs.commands --only=neighbours   # those that have this text in them

Each command is started in a process of its own, forked from one that has imported all packages, and stopped where it
would begin its work: the module exists, every flag and every leaf exists and accepts the value, and every config can be
read. Nothing of what the flags name is opened.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.docs.blocks import ROOT, Block, Command, commands_of, fenced_blocks, pages, unmarked_commands
from tests.golden.commands import RENAMED, modules_with_main
from tests.support.forked_commands import AT_ONCE, Running, import_all, run_module

#: Ends of messages on flags that are needed and not given: a line that leaves things out leaves out these.
_MUST_BE_GIVEN = ("must be given", "must have a value other than None", "is needed (--help tells more)")

#: Commands whose flags of a config are those of the run or the model that they open.
_EVALUATIONS = ("ecgjax.evaluate", "ecgjax.label_efficiency")

#: Recipe of a pretraining whose config a line leaves out, and of a run or model that an evaluation would open.
_ANY_RECIPE = "simclr:small"


def all_commands() -> list[Command]:
    """Returns every command of the pages, each once."""
    blocks = (block for page in pages() for block in (*fenced_blocks(page), *unmarked_commands(page)))
    shown = (block for block in blocks if block.language in ("", "bash") and not _is_run(block))
    found = (command for block in shown for command in commands_of(block))
    return list({(each.module, each.arguments, each.whole): each for each in found}.values())


def _is_run(block: Block) -> bool:
    return block.mark is not None and block.mark.kind == "run"


def fault(command: Command) -> str:
    """Returns what is wrong with a command before it is started, in words; empty where nothing is."""
    if command.module == "help":
        known = {name.partition(".")[2] for name in modules_with_main()} | {"NAME"}
        return "" if not command.arguments or command.arguments[0] in known else "there is no such command to help with"
    path = ROOT / command.module.replace(".", "/")
    ours = command.module.partition(".")[0] in ("configs", "data_pipelines", "ecgjax", "launch", "tests")
    if ours and not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
        return "there is no such module"
    return ""


def is_parsed(command: Command) -> bool:
    """Whether a command is one whose flags can be parsed without its work."""
    return bool(command.arguments) and command.module in modules_with_main() and command.module not in RENAMED


def parse(command: Command) -> int:
    """Starts a command in this process, and stops it where its work would begin."""
    from absl import app

    app.run = _parse_alone
    os.chdir(ROOT)  # Pages name config files by their paths in a checkout.
    if command.module in _EVALUATIONS:
        _open_no_run()
    arguments = list(command.arguments)
    if command.module == "ecgjax.pretrain" and not any(each.startswith("--config=") for each in arguments):
        arguments.insert(0, f"--config={_ANY_RECIPE}")  # Leaves must come after it.
    return run_module(command.module, arguments)


def _open_no_run() -> None:
    """Lets the config of any run stand for that of the run or the model that is evaluated, which is not here."""
    from ecgjax.config import recipes
    from ecgjax.studies import finished_run  # It defines flags, which other commands define otherwise.

    finished_run.chosen_place = _one_place  # type: ignore[assignment]  # The place is never opened.
    finished_run.load_config = lambda place: recipes.load_recipe(_ANY_RECIPE)


def _one_place(workdir: str | None, model: str | None) -> Path:
    from ecgjax.errors import ConfigError

    if bool(workdir) == bool(model):
        raise ConfigError("--workdir=… or --model=…, one of the two, must be given")
    return Path(str(workdir or model))


def _parse_alone(
    main: Callable[[list[str]], Any],
    argv: Sequence[str] | None = None,
    flags_parser: Callable[[list[str]], list[str]] | None = None,
) -> None:
    """Takes the place of `absl.app.run`: parses flags, reads the config that they give, and ends the process."""
    from absl import flags

    parse_words = flags_parser or flags.FLAGS
    parse_words(list(sys.argv if argv is None else argv))
    _read_config(flags.FLAGS)
    sys.exit(0)


def _read_config(given: Any) -> None:
    from ml_collections import ConfigDict

    from data_pipelines.command import fail
    from data_pipelines.errors import DataError
    from ecgjax import defaults
    from ecgjax.config import run_config
    from ecgjax.data.tasks import parse_task
    from ecgjax.errors import ConfigError
    from ecgjax.finetuning.settings import FineTuningSettings
    from ecgjax.settings.sections import flat, read
    from ecgjax.studies.cross_validation import Method

    try:
        if "config" in given and isinstance(config := given.config, ConfigDict):
            readers = {"pretraining": defaults.settings_of, "fine-tuning": functools.partial(read, FineTuningSettings)}
            readers.get(run_config.kind_of_run(flat(config.to_dict())), functools.partial(read, Method))(config)
        elif "sweep" in given:
            _read_arms(given)
        questions = given.task if "task" in given else None
        for question in [questions] if isinstance(questions, str) else questions or []:
            parse_task(question)
    except (ConfigError, DataError, ValueError) as error:
        fail(str(error))


def _read_arms(given: Any) -> None:
    from launch.ablation.arms import arms_of
    from launch.ablation.request import asked_by

    asked = asked_by(given, arguments=sys.argv[1:])
    if asked.config:
        arms_of(asked.config, asked.sweep, common=asked.common)


def faults(commands: Sequence[Command]) -> Iterator[tuple[Command, str]]:
    """Yields the commands that cannot be given as they are shown, each with the reason."""
    started = []
    for command in commands:
        if reason := fault(command):
            yield command, reason
        elif is_parsed(command):
            started.append(command)
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="documented-commands-"))
    running: dict[int, tuple[Command, Running]] = {}
    try:
        while started or running:
            while started and len(running) < AT_ONCE:
                command = started.pop(0)
                process = Running(functools.partial(parse, command), folder / f"command{len(started)}")
                running[process.pid] = command, process
            pid, status = os.wait()
            command, process = running.pop(pid)
            outcome = process.outcome(os.waitstatus_to_exitcode(status))
            told = outcome.errors.strip().splitlines()[-1:] or [f"status {outcome.status}"]
            if outcome.status and (command.whole or not any(each in told[0] for each in _MUST_BE_GIVEN)):
                yield command, told[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Parses the commands that are asked for and prints those that cannot be given; returns the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parse the commands that have this text in them")
    only = parser.parse_args().only
    commands = [command for command in all_commands() if only in str(command)]
    wrong = 0
    for command, reason in faults(commands):
        wrong += 1
        print(f"{command}\n  {reason}", flush=True)
    print(f"{len(commands)} commands, {wrong} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
