"""Tells where the time of a run went, over all its starts, and writes the page WORKDIR/goodput/report.html.

  python -m ecgjax.run_time --workdir=runs/simclr --top=5
  python -m ecgjax.run_time --workdir=gs://bucket/runs/simclr --out=goodput      (of the newest snapshot in a bucket)

Goodput is the share of the time from the first start on in which steps were done that count. The rest is opening data
and restoring, compiling, waiting for input, evaluation, saving, steps that were lost with a killed process and done
again, and the time in which nothing ran. It can be asked of a run that is at work. Where the run has a
trace (`config.profile.start`), the operations that took longest are listed too.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals

if __name__ == "__main__":
    stop_signals.listen()

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipelines.buckets.addresses import is_remote
from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.command import output_folder
from data_pipelines.system.visible_text import visible
from ecgjax.bucket_runs.workdirs import fetched_logs
from ecgjax.config import run_config
from ecgjax.errors import ConfigError
from ecgjax.pages.page import Section, Table
from ecgjax.pages.terminal import terminal_table, wrapped
from ecgjax.pages.write import write_page
from ecgjax.system.terminal import say
from ecgjax.training.profiling.operations import Operation, latest_trace, operations_of
from ecgjax.training.run_time.account import account_of
from ecgjax.training.run_time.events import GOODPUT_FILE, read_events
from ecgjax.training.run_time.time_page import kinds_table, starts_table, summary_of, time_page

#: Folder of the page in that of the run.
_FOLDER = "goodput"


def operations_table(operations: Sequence[Operation]) -> Table:
    """Returns a table with a row for each operation."""
    return Table.of(
        {
            "operation": lambda each: each.name,
            "program": lambda each: each.program,
            "time": lambda each: f"{1e3 * each.seconds:.2f} ms",
            "share": lambda each: f"{each.share:.1%}",
            "executions": lambda each: f"{each.executions:,}",
        },
        operations,
    )


def main(_: list[str]) -> None:
    """Prints the account of the run that the flags name, and writes its page."""
    chosen = flags.FLAGS
    if is_remote(chosen.workdir) and not chosen.out:
        raise ConfigError(f"--out=… is needed, the folder of the page: nothing is added to {chosen.workdir}")
    workdir = Path(fetched_logs(chosen.workdir))
    if not run_config.is_run(workdir):
        raise ConfigError(
            f"--workdir={workdir} is not the folder of a run: {workdir / run_config.CONFIG_FILE} does not exist"
        )
    events = read_events(workdir)
    if not events:
        raise ConfigError(
            f"{workdir / GOODPUT_FILE} is missing or empty: the run is older than this file, which its next start "
            "writes"
        )
    account = account_of(events)
    operations = operations_of(latest_trace(workdir))[: chosen.top]
    tables = [operations_table(operations)] if operations else []
    for table in (starts_table(account), kinds_table(account), *tables):
        say(f"{terminal_table(table.header, table.rows)}\n")
    say(wrapped(summary_of(account)))
    more = [Section("Operations", tables)] if tables else []
    page = time_page(account, title=Path(chosen.workdir).absolute().name, more=more)
    with finished_folder(chosen.out or str(workdir / _FOLDER)) as given:
        folder = output_folder("out", given)
        folder.mkdir(parents=True, exist_ok=True)
        say(visible(str(write_page(page, folder).html)))


def define_flags() -> None:
    """Defines the command's flags in a function, because other commands have flags of the same names."""
    flags.DEFINE_string("workdir", None, "Folder of the run.")
    words = "Folder of the page; WORKDIR/goodput by default, and needed where the workdir lies in a bucket."
    flags.DEFINE_string("out", None, words)
    flags.DEFINE_integer("top", 5, "Operations of the latest trace that are listed.", lower_bound=1, upper_bound=10_000)
    flags.mark_flags_as_required(["workdir"])
    flags.register_validator("workdir", lambda value: value != "", message="it must name a folder")


if __name__ == "__main__":
    define_flags()
    run_config.run(main)
