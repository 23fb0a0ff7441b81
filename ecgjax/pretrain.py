"""Pretrains an encoder on unlabelled recordings.

  python -m ecgjax.pretrain --config=configs/simclr.py --config.data.dir=data/ptbxl --workdir=runs/ptbxl

Any leaf of the config can be changed on the command line (`--config.objective.temperature=.05`); `--help` after
`--config=…` lists them with their meaning, and `=None` leaves one to the method's own default. The same command again
resumes from the last checkpoint. After SIGTERM or SIGUSR1 the run saves and leaves with status 75, after Ctrl-C with
130 (docs/running.md lists all statuses).

  python -m ecgjax.pretrain --config=… --workdir=… --config.init.source=runs/ptbxl   # begins with that encoder
  python -m ecgjax.pretrain --config=… --workdir=… --extend=1000                     # 1,000 steps beyond its length
  python -m ecgjax.pretrain --config=… --dry_run --topology=v5e:4x4                  # what it asks of accelerators
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from data_pipelines.system.counted import counted
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import flags

from data_pipelines.system.visible_text import visible
from ecgjax import defaults, processes
from ecgjax.ahead import command_flags
from ecgjax.bucket_runs import workdirs
from ecgjax.config import run_config
from ecgjax.data.bucket_data import bring_data
from ecgjax.data.recordings import open_recordings
from ecgjax.health.asked_records import AskedRecords
from ecgjax.health.watched_run import asked_of_run, watched_evaluation
from ecgjax.placement.layout_table import describe_layout
from ecgjax.pretrained.beginning import Origin, origin_of
from ecgjax.processes.signs_of_life import SignsOfLife
from ecgjax.processes.watchdog import Watchdog
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.report.view_pictures import view_pictures
from ecgjax.system.beside_training import in_time
from ecgjax.system.process_age import process_age_s
from ecgjax.system.terminal import say
from ecgjax.training.about import about_run, exposures, read_about, write_about
from ecgjax.training.checkpoints.checkpoint import Checkpoints, latest_saved
from ecgjax.training.checkpoints.save_schedule import SaveSchedule
from ecgjax.training.compilation.compile_cache import kept_programs
from ecgjax.training.loop import EVALUATION_DUE, train
from ecgjax.training.other_recordings import describe_other_recordings
from ecgjax.training.profiling.step_trace import StepTrace
from ecgjax.training.resumption import changes
from ecgjax.training.run import Run, prepare_run, restore_latest
from ecgjax.training.run_evaluation import best_of, make_evaluation
from ecgjax.training.run_length import describe_extensions, extensions_after, write_extensions
from ecgjax.training.run_records import records_of, records_of_resumption
from ecgjax.training.run_time.stopwatch import Stopwatch
from ecgjax.training.tasks.measurement_task import MeasurementTask
from ecgjax.training.tasks.task_choice import describe_targets, describe_untrained
from ecgjax.training.telemetry import Telemetry
from ecgjax.training.trackers.tracking import check_installed

#: Seconds that the first step waits at most for the pictures of the views.
_PICTURES_S = 30.0


def pretrain(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    *,
    extend: int | None = None,
    progress: bool = True,
    begun: float | None = None,
) -> bool:
    """Trains a run to its end, from the last checkpoint where there is one.

    Args:
        config: Config of the run, with the leaves of `ecgjax/defaults.py`.
        workdir: Folder of the run for checkpoints, metrics and the resolved config.
        extend: Number of steps that the run takes beyond the length in its config, the same however often it is given;
            None for those that were given before.
        progress: Whether a progress bar is drawn.
        begun: Time at which the process began for this run, in seconds since the epoch; None for now.

    Returns:
        Whether the run came to its end; False after a signal to stop.

    Raises:
        ConfigError: `prepare_run` refuses the settings, or the workdir belongs to another config or data set.
        DataError: `prepare_run` refuses the data.
        CheckpointError: A checkpoint is damaged or cannot be written.
        DivergedError: The loss or a parameter is no longer finite.
    """
    # One process locks and writes for all: they share the folder.
    first = jax.process_index() == 0
    settings = defaults.settings_of(config)
    if first:
        check_installed(settings.trackers)
    with (
        SignsOfLife(silence_s=settings.watchdog.silence_seconds),
        run_config.exclusive(workdir) if first else contextlib.nullcontext(),
        Watchdog(workdir, settings.watchdog) as watchdog,
        Stopwatch(begun=begun) as stopwatch,
        kept_programs(settings.compile_cache, workdir),
    ):
        newer = {name: leaf.default for name, leaf in defaults.leaves().items()}
        changed = run_config.check_resume(config, workdir, defaults=newer)
        if first and run_config.is_run(workdir):
            stopwatch.write_to(workdir)
        saved = latest_saved(run_config.checkpoint_dir(workdir))
        extensions = extensions_after(workdir, extend, settings.init, saved=saved)
        origin = origin_of(workdir, settings.init, saved=saved)
        bring_data(settings.data, limit_s=60 * settings.watchdog.start_minutes or None)
        with watchdog.start():
            recordings = open_recordings(settings.data)
            asked = asked_of_run(settings, recordings)
            run = prepare_run(settings, source=origin.weights, extensions=extensions, recordings=recordings)

        def begin() -> None:
            # The config is written once the run is accepted: a refused run must leave an earlier run's config as it
            # was.
            if first:
                run_config.write_resolved(config, workdir)
                write_extensions(workdir, extensions)
                stopwatch.write_to(workdir)

        finished = _train(
            run,
            origin,
            workdir,
            asked=asked,
            changed=changed,
            begin=begin,
            watchdog=watchdog,
            stopwatch=stopwatch,
            progress=progress,
        )
        if finished:
            stopwatch.finished()
        return finished


def _train(
    run: Run,
    origin: Origin,
    workdir: str | Path,
    *,
    asked: AskedRecords | None,
    changed: Mapping[str, tuple[Any, Any]],
    begin: Callable[[], None],
    watchdog: Watchdog,
    stopwatch: Stopwatch,
    progress: bool,
) -> bool:
    settings = run.settings
    trained_on = records_of(run, earlier=origin.seen)
    about = about_run(
        settings,
        run.recordings,
        run.side,
        run.split,
        examples_per_epoch=run.sampler.examples_per_epoch,
        begun_from=origin.said,
        extensions=run.extensions,
    )
    if settings.debug.untrained:
        about["debug"] = settings.debug.untrained
    if isinstance(run.task, MeasurementTask):
        about["measurements"] = run.task.waves.about()
    if asked is not None:
        about["health"] = asked.about(chooses=settings.chosen_by_health)
    metadata: dict[str, Any] = {
        "fingerprint": run.fingerprint,
        "digests": dict(run.digests),
        "records": trained_on.digest,
        "own_records": records_of(run).digest,
        "datasets": list(run.recordings.fingerprints),
        "batch_size": run.batch_size,
        "num_steps": run.num_steps,
    }
    evaluate, keep = watched_evaluation(run, make_evaluation(run), asked), settings.checkpoint
    saves = SaveSchedule(every=keep.every, minutes=keep.minutes, look_every=settings.log_every)

    def write_files() -> None:
        begin()
        if jax.process_index() == 0:
            trained_on.write(workdir)

    with Checkpoints(
        run_config.checkpoint_dir(workdir),
        keep_last=keep.keep,
        keep_every=keep.keep_every,
        best=best_of(run, evaluate),
        made_anew=write_files,
    ) as checkpoints:
        with watchdog.start():
            state, before = restore_latest(run, checkpoints, metadata)
        start = int(state.step)
        if before is not None:
            trained_on = records_of_resumption(run, trained_on, before, workdir)
            metadata["records"] = trained_on.digest
            if told := changes(before, metadata, told=read_about(workdir), leaves=changed, step=start):
                about["changes"] = told
        write_files()
        if jax.process_index() == 0:
            origin.write(run.warm_start, workdir, frozen=run.frozen)
            write_about(about, workdir, step=start, num_steps=run.num_steps)
        _announce(run, origin, start, asked)
        pictures = _pictures(run, start)
        with (
            StepTrace(run.step, workdir, settings.profile, first=start) as step,
            Telemetry(
                workdir,
                total_steps=run.num_steps,
                examples_per_step=run.batch_size,
                flops_per_step=run.flops_per_step,
                start_step=start,
                progress=progress,
                stopwatch=stopwatch,
                marks=settings.debug.marks,
                learning_rate=run.learning_rate,
                trackers=settings.trackers,
            ) as telemetry,
        ):
            telemetry.describe(tree_of(settings))
            telemetry.show("views", pictures)
            state, finished = train(
                state,
                step=step,
                batches=run.batches(run.sampler, start_step=start),
                num_steps=run.num_steps,
                telemetry=telemetry,
                checkpoints=checkpoints,
                metadata=lambda step: {**metadata, "about": about, "exposures": exposures(about, step)},
                log_every=settings.log_every,
                saves=saves,
                evaluate=evaluate,
                eval_every=settings.eval_every,
                evaluation_due=before is not None and bool(before.get(EVALUATION_DUE)),
                nonfinite=settings.nonfinite,
                watchdog=watchdog,
                more_metrics=run.gradient_norms,
            )
            if finished:
                telemetry.finished()
        _tell_best(checkpoints)
    if jax.process_index() == 0:
        write_about(about, workdir, step=int(state.step), num_steps=run.num_steps)
    return finished


def _pictures(run: Run, start: int) -> list[bytes]:
    """Returns pictures of the views of some records, as PNG, when a run begins, and none where it resumes."""
    number = run.settings.pictures
    if start or not number or jax.process_index() or run.settings.debug.untrained:
        return []
    return in_time(
        lambda: view_pictures(run, number), limit_s=_PICTURES_S, otherwise=[], what="the pictures of the views"
    )


def _announce(run: Run, origin: Origin, start: int, asked: AskedRecords | None) -> None:
    if jax.process_index():
        return
    if run.recordings.simulated:
        say("The recordings are SIMULATED.")
    if caution := run.settings.debug.caution:
        say(caution)
    for shard in run.recordings.store.bad_shards:
        say(f"left out: {visible(str(shard))}")
    begun = origin.describe(run.warm_start, frozen=run.frozen)
    health = [] if asked is None else [asked.describe()]
    targets = describe_targets(run.task, run.settings.augment)
    targets += describe_untrained(run.settings.task, objective_weight=run.settings.objective.weight)
    others = describe_other_recordings(run.settings, run.recordings, run.side, run.layout)
    for line in (*run.side.describe(), *others, *targets, *begun, *health):
        say(visible(line))
    params = sum(x.size for x in jax.tree.leaves(run.split.params))
    say(
        f"{run.settings.encoder.name}: {params:,} parameters; "
        f"{counted(run.sampler.examples_per_epoch, 'recording')} an epoch; batch {run.batch_size}, "
        f"{counted(run.layout.rows, 'embedding')} of each; {counted(run.num_steps, 'step')}"
        f"{describe_extensions(run.extensions, run.num_steps)} on {run.mesh.size} × "
        f"{jax.devices()[0].device_kind}" + (f"; resuming from step {start:,}" if start else "")
    )
    for line in describe_layout(run.parameter_layout, run.state):
        say(visible(line))


def _tell_best(checkpoints: Checkpoints) -> None:
    if jax.process_index() == 0 and (best := checkpoints.best()):
        say(f"best checkpoint: step {best[0]:,}, {best[1]:.6g} (--step={best[0]} names it to other commands)")


def _done(workdir: str) -> str:
    """Returns the last line of a run that came to its end: where it is, and what to do with it."""
    given = shlex.quote(f"--workdir={workdir}")
    return f"done: {workdir} has the encoder; python -m ecgjax.evaluate {given} --task=… tells what it is worth"


def main(_: list[str]) -> int:
    """Pretrains as the flags ask, and returns the exit status: 0, or 75 or 130 after a signal to stop."""
    config, workdir, extend = flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS.extend
    if command_flags.asks_for_dry_run():
        command_flags.say_dry_run(defaults.settings_of(config))
        return 0
    begun = time.time() - process_age_s()
    with processes.started({**flat(config.to_dict()), "--extend": extend}, workdir=workdirs.local_folder(workdir)):
        stop_signals.listen()  # JAX's service of several processes has put its own handler of SIGTERM in place.
        with workdirs.kept(workdir) as folder:
            finished = pretrain(config, folder, extend=extend, begun=begun)
        # The folder is named as it was given: a run in a bucket has another one on this machine.
        if finished and jax.process_index() == 0 and not defaults.settings_of(config).debug.untrained:
            say(visible(_done(workdir)))
    return 0 if finished else stop_signals.status()


if __name__ == "__main__":
    command_flags.define_flags()
    run_config.define_flags(without_workdir="dry_run")
    flags.DEFINE_integer(
        "extend",
        None,
        "Steps that a run takes beyond the length in its config. They are counted from that length and not from where "
        "the run stands, and kept in the workdir: the same command again, with the flag or without, goes on to the "
        "same end. Give more to extend it again. A schedule that has come to 0 needs --config.init.schedule.",
        lower_bound=1,
    )
    processes.define_flags()
    run_config.run(main, leaves=defaults.leaves)
