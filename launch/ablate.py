r"""Pretrains every arm of an ablation, probes the frozen encoders, and puts the arms side by side.

  python -m launch.ablate --config=configs/simclr.py:small --config=configs/pclr.py:small \
      --task='lvef<40' --task='potassium>5' --seeds=3 --out=runs/systems --config.data.dir=DIR
  python -m launch.ablate --config=configs/simclr.py:small --sweep='augment.vcg.enabled=True|False' \
      --sweep='objective.temperature=.05|.1|.2' --task='lvef<40' --out=runs/vcg --config.data.dir=DIR
  python -m launch.ablate … --jobs=jobs.txt         (a command for every run, for xargs or any other queue)
  python -m launch.ablate … --array=slurm --submit -- --gpus_per_node=1 --time=4:00:00       (an array, a job a run)
  python -m launch.ablate … --collect               (what is done, failed and stopped, and the report of what is done)
  python -m launch.ablate … --collect --array=slurm --submit -- …            (and an array of the rest)

Arms are all combinations of the configs and of one alternative of each --sweep: LEAF=VALUE|VALUE, or several leaves at
once as in 'relation.name=same_record|relation.name=same_patient sampling.name=patients'; `base` changes nothing.
--config.LEAF=VALUE holds for all arms, --config='configs/clocs.py:small batch_size=64' for those of one file. Runs
follow one another, seed by seed; the same command goes on after an interruption, and what is finished is kept. Beside
every arm stands the same encoder at random initialisation, and the models of --baselines: the same encoder trained with
labels alone, and models of intervals, of the median beat, and of age and sex. Results are in report.md, report.html and
results.json in --out, with intervals over test patients. After -- come the flags of launch.slurm or launch.jobset that
say what each job of an array asks for.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from data_pipelines.command import fail, output_folder, parse_flags, print_report
from ecgjax.config import run_config
from ecgjax.data.labels import ProbeData
from ecgjax.data.recordings import Recordings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.pages.page import SIMULATED
from ecgjax.studies.ablation import ArmRun
from ecgjax.studies.model_names import checked_baselines
from ecgjax.studies.models import check_trainings
from ecgjax.studies.questions import check_answerable
from ecgjax.studies.readouts import check_readouts, told_of_choices
from ecgjax.studies.report.ablation_page import write_report
from ecgjax.training.assembly import check_method

from .ablation.arms import Arm, arms_of, shared_changes, short_titles
from .ablation.handed_out import hand_out
from .ablation.judged_records import begin, judged_on, names_of, tasks_of
from .ablation.making import keep_compiled, make_all
from .ablation.planned_runs import Planned, is_done, plan, result_paths
from .ablation.progress import collect, lacking
from .ablation.request import Asked, asked_by, check_arrays, common_changes, define_flags, split_at_dashes
from .clusters.delivery import define_as_own


def ablate(asked: Asked) -> int | None:
    """Makes the runs that are asked for, writes the report and prints its tables; returns the exit status, None for 0.

    Raises:
        ConfigError: A needed flag is missing, or a value is not possible.
        DataError: The data set, its labels or a result are damaged or do not fit.
    """
    for name in ("config", "task", "out"):
        if not getattr(asked, name):
            raise ConfigError(f"--{name}=… is needed (--help tells more)")
    for name in ("task", "label_fraction"):
        if twice := [value for value in getattr(asked, name) if getattr(asked, name).count(value) > 1]:
            raise ConfigError(f"--{name}={twice[0]} is given twice; give it once")
    check_arrays(asked)
    # An array of pods may write to a folder that this machine does not have.
    elsewhere = asked.array == "jobset" and not asked.collect
    out = Path(asked.out) if elsewhere else output_folder("out", asked.out)
    baselines = checked_baselines(asked.baselines)
    arms = arms_of(asked.config, asked.sweep, common=asked.common)
    runs = plan(arms, seeds=asked.seeds, baselines=baselines)
    if unknown := {*asked.only} - {run.name for run in runs}:
        raise ConfigError(f"--only={min(unknown)}: there is no such run; there are: {', '.join(r.name for r in runs)}")
    if (asked.jobs or asked.array) and not asked.collect:
        return hand_out(asked, lacking(runs, out), of=len(runs))
    recordings, cautions = judged_on(runs)
    for run in runs:
        if run.model == "pretrained" and run.seed == 0:
            _check_method(run, rate_hz=recordings.format.sampling_rate_hz)
    drawn = {}
    for seed in range(asked.seeds):
        drawn[seed], rare = tasks_of(
            recordings, asked.task, fractions=asked.label_fraction, draws=asked.draws, seed=seed
        )
        few = [each for data in drawn[seed].values() for each in check_answerable(data, recordings.index)]
    # The test records, which `rare` and `few` are about, are the same for all seeds.
    cautions = (*([SIMULATED] if recordings.simulated else []), *cautions, *rare, *dict.fromkeys(few))
    if "supervised" in baselines:
        kinds = {kind_of(data.task) for data in drawn[0].values()}
        for run in runs:
            check_trainings(run.settings, kinds, names=["supervised"])
    for run in runs:
        probe, encoder = run.settings.probe, run.settings.encoder
        check_readouts(probe, encoder, num_samples=recordings.format.num_samples)
        if "finetuned" in probe.readouts:
            check_trainings(run.settings, {kind_of(data.task) for data in drawn[0].values()}, names=["finetune"])
    begin(out, recordings, drawn[0], fractions=asked.label_fraction, draws=asked.draws)
    for caution in cautions:
        print_report(caution)
    if asked.collect:
        failed = collect(runs, out)
    else:
        if not asked.only:  # Concurrent jobs would write the same files.
            keep_compiled(out)
        failed, status = make_all(runs, recordings, drawn, only=asked.only, out=out)
        if status is not None:
            return status
    if asked.report:
        _report(arms, runs, recordings, drawn[0], asked=asked, out=out, failed=failed, cautions=cautions)
    for name, reason in failed.items():
        print(f"error: {name} failed: {reason}", file=sys.stderr)
    if not asked.collect:
        return 1 if failed else None
    rest = lacking(runs, out)
    if rest and asked.array:
        hand_out(asked, rest, of=len(runs))
    return 1 if any(not is_done(out, run) for run in runs) else None


def _check_method(run: Planned, *, rate_hz: float) -> None:
    try:
        check_method(run.settings, rate_hz=rate_hz)
    except ConfigError as error:
        raise ConfigError(f"{run.arm}: {error}") from error


def _report(
    arms: Sequence[Arm],
    runs: Sequence[Planned],
    recordings: Recordings,
    tasks: Mapping[str, ProbeData],
    *,
    asked: Asked,
    out: Path,
    failed: Mapping[str, str],
    cautions: Sequence[str],
) -> None:
    """Writes the report of the runs that are done, if any is, and prints its tables."""
    # Tables name what tells arms apart. Files keep whole titles, so that another arm leaves results as they are.
    short = short_titles(arms)

    def shown(run: Planned, title: str) -> str:
        return title.replace(run.arm, short.get(run.arm, run.arm), 1)

    stored = [(run, ArmRun.load(path)) for run in runs for path in result_paths(out, run) if path.is_file()]
    done = [dataclasses.replace(result, arm=shown(run, result.arm)) for run, result in stored]
    if not done:
        return
    tables, page = write_report(
        done,
        recordings,
        tasks,
        questions={text: names_of(text, fractions=asked.label_fraction, draws=asked.draws) for text in asked.task},
        out=out,
        failed=failed,
        missing=[run.name for run in runs if not is_done(out, run) and run.name not in failed],
        labels_only={
            shown(run, title): run.labels_only for run in runs if run.labels_only for title in run.titles.values()
        },
        shared=[f"{leaf}={value}" for leaf, value in shared_changes(arms)],
        choices=told_of_choices(
            runs[0].settings.probe,
            train=min(len(data.train.records) for data in tasks.values()),
            val=min(len(data.val.records) for data in tasks.values()),
            models=[model for run in runs for model in run.titles],
        ),
        resamples=asked.resamples,
        cautions=cautions,
        command=asked.command,
        anonymous=asked.anonymous,
    )
    print(f"\n{tables}\n\nreport: {page}")


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return parse_flags(common_changes(split_at_dashes(argv)[0])[0])
    except ConfigError as error:
        fail(str(error))


if __name__ == "__main__":
    define_as_own(define_flags)
    run_config.run(lambda _: ablate(asked_by(flags.FLAGS, arguments=sys.argv[1:])), flags_parser=_parse_flags)
