r"""Trains a pretrained encoder on with labels, and writes a model that answers the question.

  python -m ecgjax.finetune --config.init.source=runs/simclr --config.data.dir=data/ptbxl --task=superdiagnostic:NORM \
      --workdir=runs/norm
  python -m ecgjax.finetune --config.init.source=models/simclr --config.data.dir=data/lvef --task='lvef<40' \
      --config.training.head_start=probe --config.training.patience=4 --workdir=runs/lvef

The source is a pretraining run or an exported model. Any leaf can be changed on the command line; `--help` lists them
with their meaning. The best weights on validation are kept. At the end calibration and threshold are chosen on
validation, and the test records are scored once: results.json has every number with its interval over patients,
predictions.npz the answers of every validation and test record, and the folder model is what ecgjax.load opens. The
same command again resumes from the last checkpoint; after a signal to stop the run saves and leaves with status 75,
or 130 after Ctrl-C.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from data_pipelines.system.counted import counted
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags

from data_pipelines.system.visible_text import visible
from ecgjax import processes
from ecgjax.bucket_runs import workdirs
from ecgjax.config import run_config
from ecgjax.data.bucket_data import bring_data
from ecgjax.data.groups import group_columns
from ecgjax.data.recordings import unit_of
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.evaluation.results import RESULTS_FILE, write_results
from ecgjax.export.config_file import without_paths
from ecgjax.export.evaluations import Evaluation
from ecgjax.finetuning.changes import FIXED, check_allowed
from ecgjax.finetuning.looks import Looks
from ecgjax.finetuning.run import (
    FineTuningRun,
    Resumption,
    best_of,
    first_state,
    make_look,
    parts_of,
    prepare_run,
    restore_latest,
    tuned,
)
from ecgjax.finetuning.settings import MAY_CHANGE, FineTuningSettings
from ecgjax.finetuning.trainer import chosen_look
from ecgjax.leakage.trained_on import RECORDS_FILE
from ecgjax.pages.page import Table
from ecgjax.pages.terminal import terminal_table
from ecgjax.placement.layout_table import describe_layout
from ecgjax.processes.signs_of_life import SignsOfLife
from ecgjax.processes.watchdog import Watchdog
from ecgjax.settings.sections import flat, leaves_of, read, tree_of
from ecgjax.studies.one_task.fine_tuned import (
    Finetuned,
    answering_head,
    cautions_of,
    counts,
    measure,
    results_table,
    write_predictions,
)
from ecgjax.studies.one_task.supplement import Report
from ecgjax.studies.tuned_run.labelled_start import LabelledStart, open_start, records_seen, source_of
from ecgjax.studies.tuned_run.tuned_model import model_folder, write_tuned_model
from ecgjax.system.environment import describe_environment
from ecgjax.system.process_age import process_age_s
from ecgjax.system.terminal import say
from ecgjax.training.about import About, about_training, exposures, read_about, write_about
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.checkpoints.save_schedule import SaveSchedule
from ecgjax.training.compilation.compile_cache import kept_programs
from ecgjax.training.loop import train
from ecgjax.training.profiling.step_trace import StepTrace
from ecgjax.training.resumption import changes
from ecgjax.training.run_time.stopwatch import Stopwatch
from ecgjax.training.telemetry import Telemetry
from ecgjax.training.trackers.tracking import check_installed

#: Seconds that the first process may take for resampling the test patients and writing the model.
_RESULTS_S = 3600.0


def finetune(
    config: ml_collections.ConfigDict, workdir: str | Path, *, progress: bool = True, begun: float | None = None
) -> bool:
    """Trains a run to its end, from the last checkpoint where there is one, and writes results and model.

    Args:
        config: Config of the run, with the leaves of `FineTuningSettings`.
        workdir: Folder of the run.
        progress: Whether progress is printed and drawn.
        begun: Time at which the process began for this run, in seconds since the epoch; None for now.

    Returns:
        Whether the run came to its end; False after a signal to stop.

    Raises:
        ConfigError: A setting is not possible, the source is none, or the workdir belongs to another run.
        DataError: The data set or its labels do not allow the training.
        CheckpointError: A checkpoint is damaged or cannot be written.
        DivergedError: The loss or a parameter is no longer finite.
    """
    first = jax.process_index() == 0
    settings = read(FineTuningSettings, config)
    if first:
        check_installed(settings.trackers)
    with (
        SignsOfLife(silence_s=settings.watchdog.silence_seconds),
        run_config.exclusive(workdir) if first else contextlib.nullcontext(),
        Watchdog(workdir, settings.watchdog) as watchdog,
        Stopwatch(begun=begun) as stopwatch,
        kept_programs(settings.compile_cache, workdir),
    ):
        newer = {name: leaf.default for name, leaf in leaves_of(FineTuningSettings).items()}
        check_allowed(run_config.names_in(settings.resume.allow))
        changed = run_config.check_resume(config, workdir, defaults=newer, may_change=MAY_CHANGE, fixed=FIXED)
        if first and run_config.is_run(workdir):
            stopwatch.write_to(workdir)

        def accept() -> None:
            # A refused run must leave an earlier run's config as it was.
            if first:
                run_config.write_resolved(config, workdir)
                stopwatch.write_to(workdir)

        bring_data(settings.data, limit_s=60 * settings.watchdog.start_minutes or None)
        with watchdog.start():
            labelled = open_start(settings)
            run = prepare_run(
                settings,
                recordings=labelled.recordings,
                data=labelled.data,
                encoder=labelled.source.encoder,
                weights_digest=labelled.source.weights_digest,
            )
        finished = _train(
            run,
            labelled,
            Path(workdir),
            changed=changed,
            accept=accept,
            watchdog=watchdog,
            stopwatch=stopwatch,
            progress=progress,
        )
        if finished:
            stopwatch.finished()
        return finished


def _train(
    run: FineTuningRun,
    labelled: LabelledStart,
    workdir: Path,
    *,
    changed: Mapping[str, tuple[Any, Any]],
    accept: Callable[[], None],
    watchdog: Watchdog,
    stopwatch: Stopwatch,
    progress: bool,
) -> bool:
    settings, first = run.settings, jax.process_index() == 0
    about, seen = _about(run, labelled), records_seen(labelled, run=run.fingerprint)
    metadata = {
        "fingerprint": run.fingerprint,
        "digests": dict(run.digests),
        "records": seen.digest,
        "own_records": seen.digest,
        "datasets": list(run.recordings.fingerprints),
        "batch_size": run.batch_size,
        "num_steps": run.num_steps,
    }
    keep = settings.checkpoint
    with Checkpoints(
        run_config.checkpoint_dir(workdir),
        keep_last=keep.keep,
        keep_every=keep.keep_every,
        best=best_of(run),
        made_anew=accept,
    ) as checkpoints:
        with watchdog.start():
            restored = restore_latest(run, checkpoints, metadata)
        start = 0 if restored is None else int(restored.state.step)
        if restored is not None and restored.metadata is not None:
            before = restored.metadata
            if told := changes(before, metadata, told=read_about(workdir), leaves=changed, step=start):
                about["changes"] = told
        accept()
        _announce(run, labelled, start, progress=progress)
        if first:
            seen.write(workdir)
            write_about(about, workdir, step=start, num_steps=run.num_steps)
        if restored is None:
            with watchdog.start():
                restored = Resumption(first_state(run, progress=progress), Looks(), None, evaluation_due=False)
        state, looks, _, evaluation_due = restored
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
                learning_rate=run.tuning.learning_rate,
                trackers=settings.trackers,
            ) as telemetry,
        ):
            telemetry.describe(tree_of(settings))
            stream = run.batches(start_step=start)
            state, finished = train(
                state,
                step=step,
                batches=stream,
                num_steps=run.num_steps,
                telemetry=telemetry,
                checkpoints=checkpoints,
                metadata=lambda step: {
                    **metadata, "looks": looks.to_json(), "about": about, "exposures": exposures(about, step),
                },
                log_every=settings.log_every,
                saves=SaveSchedule(every=keep.every, minutes=keep.minutes, look_every=settings.log_every),
                evaluate=make_look(run, looks),
                eval_every=settings.training.eval_every,
                parts=lambda state: parts_of(state, looks),
                enough=lambda: looks.exhausted(settings.training.patience),
                learning_rate="config.training.learning_rate",
                evaluation_due=evaluation_due,
                watchdog=watchdog,
            )  # fmt: skip
            # The stream's threads would otherwise read ahead while the results are made.
            stream.close()
            if finished:
                telemetry.finished()
    if first:
        write_about(about, workdir, step=int(state.step), num_steps=run.num_steps)
    if finished and not settings.debug.untrained:
        with stopwatch.spending("evaluate"):
            _finish(run, labelled, looks, workdir, about=about, progress=progress)
        # The others wait for the results of the first one: a process that leaves early is taken for a failed one.
        processes.wait_for_all("the results of the first process", limit_s=_RESULTS_S)
    return finished


def _about(run: FineTuningRun, labelled: LabelledStart) -> dict[str, Any]:
    """Returns what the run says of itself: recordings, labels, and the encoder that it began with."""
    return {
        **about_training(
            run.recordings,
            np.sort(run.data.train.records),
            run.encoder.split,
            num_leads=run.encoder.num_leads,
            batch_size=run.batch_size,
            examples_per_epoch=run.sampler.examples_per_epoch,
        ),
        "simulated": labelled.simulated,
        "pretraining_simulated": labelled.source.simulated,
        **({"debug": run.settings.debug.untrained} if run.settings.debug.untrained else {}),
        "source": source_of(labelled),
        "labels": {"question": run.data.task.title, "classes": list(run.data.classes), **counts(run.data)},
    }


def _announce(run: FineTuningRun, labelled: LabelledStart, start: int, *, progress: bool) -> None:
    if jax.process_index() or not progress:
        return
    for caution in (run.settings.debug.caution, *labelled.cautions):
        if caution:
            say(visible(caution))
    data, source = run.data, labelled.source
    train, val, test = map(run.kind.counts, (data.train, data.val, data.test))
    say(visible(f"{data.task.title}: {train} train, {val} validation, {test} test"))
    params = sum(leaf.size for leaf in jax.tree.leaves(source.encoder.split.params))
    say(
        visible(
            f"{source.settings.name} of {source.title}, step {source.encoder.step:,}: {params:,} parameters; batch "
            f"{run.batch_size}; at most {counted(run.num_steps, 'step')} on {run.mesh.size} × "
            f"{jax.devices()[0].device_kind}" + (f"; resuming from step {start:,}" if start else "")
        )
    )
    for line in describe_layout(run.parameter_layout, run.state):
        say(visible(line))


def _finish(
    run: FineTuningRun, labelled: LabelledStart, looks: Looks, workdir: Path, *, about: About, progress: bool
) -> None:
    """Chooses calibration and thresholds on validation, scores the test records, and writes results and model."""
    data, settings, recordings = run.data, run.settings, run.recordings
    best, weights = chosen_look(looks)
    # Every process takes part in the predictions; the first one does the rest.
    val, test = (run.predict(weights, part.records) for part in (data.val, data.test))
    encoder, head = tuned(run, weights)
    if jax.process_index():
        return
    training = without_paths(tree_of(settings))
    answering = answering_head(
        data,
        val,
        offset=run.supervision.offset,
        selected=run.tuning.selected(run.supervision, step=best.step),
        unit="" if run.kind.log_odds else unit_of(data.task.title, recordings),
        folds=settings.data.val_folds,
        datasets=about["data"],
        training=training,
    )
    answers = Answers(
        outputs=run.supervision.scores(test),
        val_outputs=run.supervision.scores(val),
        val_metric=best.metric,
        selected=answering.selected,
        records=len(data.train.records),
        positives=kind_of(data.task).positives(data.train.labels),
    )
    groups = group_columns(settings.groups, recordings, data.test.records)
    report = Report(resamples=settings.bootstrap, seed=settings.seed, groups=groups, unit=answering.unit)
    found = measure(answers, data, report, head=answering)
    cautions = (*cautions_of(answering), *labelled.cautions)
    write_predictions(
        workdir, answering, data, val_outputs=val, test_outputs=test, record_ids=recordings.index.record_id.__getitem__
    )
    write_results(workdir, found.results, **_told(run, labelled, found, looks, cautions=cautions, training=training))
    table = results_table(found, data)
    evaluation = Evaluation(
        question=data.task.title,
        data=recordings.name,
        simulated=labelled.simulated,
        records=len(data.test.records),
        patients=data.test.num_patients,
        cautions=len(cautions),
        same_statistics=True,
        rows=[("fine-tuned", name, value) for name, value, *_ in table.rows],
    )
    missing = write_tuned_model(
        model_folder(workdir),
        source=labelled.source,
        encoder=encoder,
        head=head,
        answering=answering,
        about=about,
        evaluation=evaluation,
        signatures=workdir / RECORDS_FILE if settings.with_signatures else None,
    )
    if progress:
        _print_results(found, table, workdir, missing=missing)


def _told(
    run: FineTuningRun,
    labelled: LabelledStart,
    found: Finetuned,
    looks: Looks,
    *,
    cautions: Sequence[str],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the description of the run in `results.json`."""
    best, head = chosen_look(looks)[0], found.head
    return {
        "question": run.data.task.title,
        "kind": run.data.task.kind,
        "classes": list(run.data.classes),
        "simulated": labelled.simulated,
        "pretraining_simulated": labelled.source.simulated,
        "cautions": list(cautions),
        "selected": head.selected,
        "validation": {"metric": run.kind.primary, "value": best.metric, "loss": best.loss},
        "looks": looks.to_json()["history"],
        "calibration": head.calibration,
        "threshold_rule": head.threshold_rule,
        "chosen_on": head.chosen_on,
        "outputs": [
            {"name": each.name, "offset": each.offset, "slope": each.slope, "intercept": each.intercept,
             "threshold": each.threshold}
            for each in head.outputs
        ],
        "unit": head.unit,
        "label_fraction": run.settings.label_fraction,
        "splits": counts(run.data),
        "groups": [group._asdict() for group in found.groups],
        "source": source_of(labelled),
        "data": {"name": run.recordings.name, "fingerprints": list(run.recordings.fingerprints)},
        "settings": dict(training),
        "environment": describe_environment(),
    }  # fmt: skip


def _print_results(found: Finetuned, table: Table, workdir: Path, *, missing: tuple[str, ...]) -> None:
    head = found.head
    for caution in cautions_of(head):
        say(visible(caution))
    say(f"\n{visible(head.question)}: {visible(head.selected)}")
    if head.chosen_on:
        say(visible(f"{head.calibration} and thresholds ({head.threshold_rule}) from {head.chosen_on}"))
    say(terminal_table(table.header, table.rows))
    if missing:
        say(f"{' and '.join(missing)} not written: pip install 'ecgjax[export]', and the same command again")
    say(visible(f"results: {workdir / RESULTS_FILE}"))
    say(visible(f"model: {model_folder(workdir)}"))


def main(_: list[str]) -> int:
    """Trains as the flags ask, and returns the exit status: 0, or 75 or 130 after a signal to stop."""
    chosen = flags.FLAGS
    if not chosen.workdir:
        raise ConfigError("--workdir=DIR, the folder of this run, is needed (--help tells more)")
    config, question = chosen.config, chosen.task
    begun = time.time() - process_age_s()
    if question and config.task not in ("", question):
        raise ConfigError(f"--task={question!r} and --config.task={config.task!r} are two questions; give one")
    if question:
        config.task = question
    with processes.started(flat(config.to_dict()), workdir=workdirs.local_folder(chosen.workdir)):
        stop_signals.listen()  # JAX's service of several processes has put its own handler of SIGTERM in place.
        with workdirs.kept(chosen.workdir) as folder:
            finished = finetune(config, folder, begun=begun)
    return 0 if finished else stop_signals.status()


def define_flags() -> None:
    """Defines the command's flags in a function, because other commands have flags of the same names."""
    flags.DEFINE_string("task", None, "Question: 'lvef<40', superdiagnostic:NORM, 'superdiagnostic:*' or age_years.")
    flags.DEFINE_string("workdir", None, "Folder of this run: checkpoints, metrics, results and the model.")
    run_config.define_config("finetune", "How it is trained.")
    processes.define_flags()


if __name__ == "__main__":
    define_flags()
    run_config.run(main, leaves=lambda: leaves_of(FineTuningSettings))
