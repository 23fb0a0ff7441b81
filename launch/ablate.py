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
from data_pipelines.system.exit_status import RESTARTABLE, ExitStatus
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import functools
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from data_pipelines.command import fail, output_file, output_folder, parse_flags
from data_pipelines.errors import DataError
from ecgjax.config import run_config
from ecgjax.data.labels import ProbeData, of_common_classes, probe_data
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.row_metadata import labels_looked_at
from ecgjax.data.tasks import parse_task
from ecgjax.defaults import RunSettings
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features import digests, frozen_encoder
from ecgjax.evaluation.models.kinds import kind_of
from ecgjax.finetuning import trainer
from ecgjax.leakage import guard
from ecgjax.leakage.trained_on import pretraining_records
from ecgjax.pages.page import SIMULATED
from ecgjax.pretrained.beginning import open_beginning
from ecgjax.settings.initialisation import InitSettings
from ecgjax.settings.sections import flat, tree_of
from ecgjax.studies.ablation import ArmRun, answer_tasks
from ecgjax.studies.models import (
    BASELINES,
    PLAIN,
    ModelName,
    check_trainings,
    checked_baselines,
    labels_only_titles,
    short_title,
)
from ecgjax.studies.questions import check_answerable
from ecgjax.studies.report.ablation_page import training_facts, write_report
from ecgjax.studies.store import begin_study
from ecgjax.system.files import write_atomically
from ecgjax.training.run_log.metrics_file import read_metrics

from . import arm_status
from .arm_status import State, Told
from .arms import Arm, arms_of
from .child_process import run_child
from .clusters import arrays, delivery

# Options of JAX: the folder of its compiled programs, and the least seconds of compiling for a program to be kept.
_COMPILATION = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")

#: Leaves in which all arms must agree, so that their results are on the same records.
_SHARED = ("data.dir", "data.links", "data.val_folds", "data.test_folds", "probe.layer", "probe.overlaps")


class Asked(NamedTuple):
    """The values of the flags (`define_flags`), and what else the command line says.

    That is `of_jobs`, the flags of the jobs of an array, which follow `--`; `common`, the changes of leaves in all
    arms; and the `command` without what chooses a part of the work.
    """

    config: Sequence[str]
    sweep: Sequence[str]
    task: Sequence[str]
    baselines: Sequence[str]
    seeds: int
    label_fraction: float
    resamples: int
    out: str
    only: Sequence[str]
    jobs: str | None
    array: str | None
    at_once: int
    submit: bool
    collect: bool
    report: bool
    of_jobs: Sequence[str]
    common: Sequence[tuple[str, str]]
    command: str


class Planned(NamedTuple):
    """A run of the ablation.

    Attributes:
        model: Key of the model that is evaluated: `"pretrained"` for an arm, `"random"` or a baseline beside the arms.
        arm: Title of the arm, or of the model.
        folder: Name of the folder of the run's files.
        seed: Seed of the run and of the draw of labels.
        twin: Title of the random encoder that the arm is compared with; empty for a model beside the arms.
        labels_only: Title of the same encoder trained with labels alone; empty for a model beside the arms.
        settings: Settings of the run.
        flags: Arguments of `ecgjax.pretrain`; none for a model beside the arms.
    """

    model: ModelName
    arm: str
    folder: str
    seed: int
    twin: str
    labels_only: str
    settings: RunSettings
    flags: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the run in the form that `--only` takes."""
        return f"{self.folder}/seed{self.seed}"

    @property
    def digest(self) -> str:
        """Digest of everything that decides the run's result."""
        # Studies that were begun before there was this section go on.
        unset = {(f"init.{name}", value) for name, value in flat(tree_of(InitSettings())).items()}
        leaves = flat(tree_of(self.settings)).items() - unset
        told = repr(sorted((name, repr(value)) for name, value in leaves if _decides(self.model, name)))
        return hashlib.blake2b(f"{self.arm} {told}".encode(), digest_size=16).hexdigest()


def _decides(model: ModelName, leaf: str) -> bool:
    """Returns whether the result of a model depends on a leaf."""
    if leaf == "data.dir":  # The place of the data does not change a result.
        return False
    of_training = ("probe.supervised.", *(f"optimizer.{name}" for name in trainer.SHARED))
    if model == "supervised" and leaf.startswith(of_training):
        return True
    if leaf.startswith("probe.") and leaf not in ("probe.layer", "probe.seed"):
        return False
    if model in PLAIN and leaf.startswith("encoder."):
        return False
    return model == "pretrained" or leaf == "seed" or leaf.startswith(("encoder.", "data.", "probe."))


def plan(arms: Sequence[Arm], *, seeds: int, baselines: Sequence[ModelName] = BASELINES) -> list[Planned]:
    """Returns all runs, seed by seed, each arm after the models of its encoder that it is compared with.

    Args:
        arms: Arms of the ablation.
        seeds: Number of runs of every arm.
        baselines: Models beside the random encoders.

    Raises:
        ConfigError: An arm's config is not possible, or arms would be evaluated on different records.
    """
    titles: dict[str, str] = {}
    encoders, runs = [], []
    first = [arm.resolve(seed=0) for arm in arms]
    for of_arm in first:
        settings, name = repr(tree_of(of_arm.encoder)), str(of_arm.encoder.name)
        if settings not in titles:
            same = sum(title.split(" #")[0] == name for title in titles.values())
            titles[settings] = name + (f" #{same + 1}" if same else "")
        encoders.append(titles[settings])
    labels_only = labels_only_titles(first, encoders)
    for seed in range(seeds):
        made: set[str] = set()
        for arm, at_first, encoder, trained in zip(arms, first, encoders, labels_only, strict=True):
            of_arm = arm.resolve(seed=seed) if seed else at_first
            twin = short_title("random", encoder)
            # Arms of one encoder share what stands beside it, and all arms share what has no encoder.
            beside: dict[str, ModelName] = {twin: "random", trained: "supervised"}
            beside |= {short_title(name, ""): name for name in PLAIN}
            for title, model in beside.items():
                if title not in made and (model == "random" or model in baselines):
                    made.add(title)
                    runs.append(Planned(model, title, _folder(title), seed, "", "", of_arm, ()))
            flags_of_arm = arm.flags(seed=seed)
            runs.append(Planned("pretrained", arm.title, arm.folder, seed, twin, trained, of_arm, flags_of_arm))
    leaves = [flat(tree_of(run.settings)) for run in runs]
    shared = [{name: own[name] for name in _SHARED} for own in leaves]
    for run, values in zip(runs, shared, strict=True):
        for name, value in values.items():
            if value != shared[0][name]:
                raise ConfigError(
                    f"config.{name} is {value!r} in {run.arm} and {shared[0][name]!r} in {runs[0].arm}: all arms are "
                    "judged on the same records; give it once for all"
                )
    return runs


def _folder(title: str) -> str:
    return re.sub("[#()]", "", title.replace(" ", "-").replace(":", "_"))


def tasks_of(
    recordings: Recordings, texts: Sequence[str], *, fraction: float, seed: int
) -> tuple[dict[str, ProbeData], tuple[str, ...]]:
    """Returns the labelled records of every task, with the training patients that a seed draws.

    Args:
        recordings: Recordings that all arms are evaluated on.
        texts: Tasks as `parse_task` reads them.
        fraction: Fraction of the labelled training patients to draw.
        seed: Seed of the draw.

    Returns:
        The records by task, with the classes of multi-label tasks that have enough test records of both labels; and
        cautions on the other classes for the report, one sentence each.

    Raises:
        DataError: A task cannot be read, or these records do not have its label.
    """
    tasks: dict[str, ProbeData] = {}
    rare: tuple[str, ...] = ()
    for text in texts:
        data = probe_data(
            recordings.index, recordings.split,
            task=parse_task(text), label_fraction=fraction, seed=seed,
        )  # fmt: skip
        tasks[text], more = of_common_classes(data)
        rare += more
    return tasks, rare


def judged_on(runs: Sequence[Planned]) -> tuple[Recordings, tuple[str, ...]]:
    """Opens the recordings that all arms are evaluated on, and handles overlaps with what any of them is pretrained on.

    Returns:
        The recordings, without overlapping records where `config.probe.overlaps` drops them; and cautions for the
        report, one sentence each.

    Raises:
        ConfigError: There are overlaps, and `config.probe.overlaps` refuses them; or an arm's `config.init.source` is
            no encoder.
        CheckpointError: Such a source is damaged.
        DataError: The data set cannot be opened or does not fit the settings.
    """
    first = runs[0].settings
    recordings = open_recordings(first.data)
    others = {run.settings.data.train_folds: run.settings.data for run in runs}
    # The recordings of the first are open already.
    del others[first.data.train_folds]
    trained = [recordings.split.train, *(open_recordings(data).split.train for data in others.values())]
    # What any arm is trained on counts for all of them, since all are judged on the same records.
    trained_on = pretraining_records(recordings, np.unique(np.concatenate(trained)), run="")
    begun = dict.fromkeys(run.settings.init for run in runs if run.settings.init.source is not None)
    for init in begun:
        trained_on = trained_on.after(open_beginning(init).seen)
    guard.check_overlaps(first.probe.overlaps)
    judged = np.concatenate([recordings.split.val, recordings.split.test])
    recordings, found = guard.guard(
        recordings, trained_on, judged, overlaps=first.probe.overlaps, directories=first.data.directories
    )
    of_labels: list[str] = []
    for run in runs:
        of_labels += guard.labelled(labels_looked_at(run.settings.column_use), name=run.arm) if run.twin else ()
    return recordings, (*found, *guard.unlinked(recordings), *dict.fromkeys(of_labels))


def make(run: Planned, recordings: Recordings, tasks: Mapping[str, ProbeData], *, out: Path) -> int:
    """Pretrains and probes a run, and writes its result, unless there is one; returns the exit status of pretraining.

    Args:
        run: Arm and seed to run; a model beside the arms needs no pretraining.
        recordings: Recordings that all arms are evaluated on.
        tasks: Labelled records of every task.
        out: Directory of the ablation.

    Raises:
        ConfigError: There is a result already, of another config.
        DataError: There is a result already and it is damaged, or the labels allow no probe.
    """
    path = _result_path(out, run)
    if path.is_file():
        if ArmRun.load(path).config != run.digest:
            raise ConfigError(
                f"{path} is the result of another config of {run.arm}; remove {path.parent}, or give another --out"
            )
        return 0
    workdir, facts, encoder = out / "runs" / run.folder / f"seed{run.seed}", {}, None
    if run.model == "pretrained":
        command = [sys.executable, "-m", "ecgjax.pretrain", *run.flags, f"--workdir={workdir}"]
        if status := run_child(command, environment=_environment()):
            return status
        encoder = frozen_encoder.load_encoder(workdir, layer=run.settings.probe.layer)
        facts = training_facts(read_metrics(workdir))
    answers = answer_tasks(
        run.model, run.settings, recordings, tasks, seed=run.seed, encoder=encoder, folder=out / "features"
    )
    ArmRun(arm=run.arm, seed=run.seed, twin=run.twin, config=run.digest, tasks=answers, facts=facts).save(path)
    return 0


def keep_compiled(out: Path) -> None:
    """Sets JAX's cache of compiled programs to a folder in `out`, unless the user has set another.

    Seeds of an arm then share the programs.
    """
    if _compilation()[0] is None:
        jax.config.update(_COMPILATION[0], str((out / "compiled").absolute()))
        jax.config.update(_COMPILATION[1], 0.0)


def _compilation() -> tuple[str | None, float]:
    """Returns the values of `_COMPILATION`."""
    # The options are read by name, because JAX makes these attributes when it starts and a type checker does not know
    # them.
    folder, seconds = (getattr(jax.config, name) for name in _COMPILATION)
    return folder, seconds


def _environment() -> dict[str, str]:
    folder, seconds = _compilation()
    if not folder:
        return dict(os.environ)
    kept = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(seconds)}
    return {**os.environ, **kept}


def _result_path(out: Path, run: Planned) -> Path:
    return out / "results" / run.folder / f"seed{run.seed}.npz"


def _status_path(out: Path, run: Planned) -> Path:
    return out / "status" / run.folder / f"seed{run.seed}.json"


def ablate(asked: Asked) -> int | None:
    """Makes the runs that are asked for, writes the report and prints its tables; returns the exit status, None for 0.

    Raises:
        ConfigError: A needed flag is missing, or a value is not possible.
        DataError: The data set, its labels or a result are damaged or do not fit.
    """
    for name in ("config", "task", "out"):
        if not getattr(asked, name):
            raise ConfigError(f"--{name}=… is needed (--help tells more)")
    _check_arrays(asked)
    # An array of pods may write to a folder that this machine does not have.
    elsewhere = asked.array == "jobset" and not asked.collect
    out = Path(asked.out) if elsewhere else output_folder("out", asked.out)
    baselines = checked_baselines(asked.baselines)
    runs = plan(arms_of(asked.config, asked.sweep, common=asked.common), seeds=asked.seeds, baselines=baselines)
    if unknown := {*asked.only} - {run.name for run in runs}:
        raise ConfigError(f"--only={min(unknown)}: there is no such run; there are: {', '.join(r.name for r in runs)}")
    if (asked.jobs or asked.array) and not asked.collect:
        return _hand_out(asked, _lacking(runs, out), of=len(runs))
    recordings, cautions = judged_on(runs)
    drawn = {}
    for seed in range(asked.seeds):
        drawn[seed], rare = tasks_of(recordings, asked.task, fraction=asked.label_fraction, seed=seed)
        few = [each for data in drawn[seed].values() for each in check_answerable(data, recordings.index)]
    # The test records, which `rare` and `few` are about, are the same for all seeds.
    cautions = (*([SIMULATED] if recordings.simulated else []), *cautions, *rare, *few)
    if "supervised" in baselines:
        kinds = {kind_of(data.task) for data in drawn[0].values()}
        for run in runs:
            check_trainings(run.settings, kinds, names=["supervised"])
    _begin(out, recordings, drawn[0], label_fraction=asked.label_fraction)
    for caution in cautions:
        print(caution)
    if asked.collect:
        failed = _collect(runs, out)
    else:
        if not asked.only:  # Concurrent jobs would write the same files.
            keep_compiled(out)
        failed, status = _make_all(runs, recordings, drawn, asked=asked, out=out)
        if status is not None:
            return status
    if asked.report:
        _report(runs, recordings, drawn[0], asked=asked, out=out, failed=failed, cautions=cautions)
    for name, reason in failed.items():
        print(f"error: {name} failed: {reason}", file=sys.stderr)
    if not asked.collect:
        return 1 if failed else None
    rest = _lacking(runs, out)
    if rest and asked.array:
        _hand_out(asked, rest, of=len(runs))
    return 1 if any(not _result_path(out, run).is_file() for run in runs) else None


def _check_arrays(asked: Asked) -> None:
    if asked.of_jobs and asked.array is None:
        raise ConfigError(f"{asked.of_jobs[0]} after -- is for the jobs of an array; give --array=slurm or jobset too")
    if asked.submit and asked.array is None:
        raise ConfigError("--submit is for an array; give --array=slurm or jobset too")
    if asked.only and (asked.array or asked.collect):
        raise ConfigError("--only makes one run, --array and --collect are about all; leave one of them out")
    if asked.collect and asked.array and not (asked.jobs or asked.submit):
        raise ConfigError("--collect prints the report; give --jobs=FILE for the array of the rest, or --submit")
    if asked.array == "jobset" and not Path(asked.out).is_absolute():
        raise ConfigError(
            f"--out={asked.out}: the pods of an array write there; give the whole path of a folder on one of their "
            "volumes (--volume=CLAIM:/FOLDER after --)"
        )


def _lacking(runs: Sequence[Planned], out: Path) -> list[Planned]:
    """Returns the runs that have no result and are not at work."""
    lacking = [run for run in runs if not _result_path(out, run).is_file()]
    return [run for run in lacking if arm_status.read(_status_path(out, run)).state is not State.RUNNING]


def _hand_out(asked: Asked, lacking: Sequence[Planned], *, of: int) -> int | None:
    """Hands out runs as commands in a file, or as an array in the form of a cluster; returns the exit status."""
    commands = [[*shlex.split(asked.command), "--noreport", f"--only={run.name}"] for run in lacking]
    told = f"{len(commands)} of {of} runs are to be made"
    if asked.array is None:
        path = output_file("jobs", str(asked.jobs))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{shlex.join(words)}\n" for words in commands))
        print(f"{told}: {asked.jobs}")
        return None
    if not commands:
        print(told, file=sys.stderr)
        return None
    array = arrays.array(
        asked.array,
        asked.of_jobs,
        commands,
        made_by=f"{asked.command} --array={asked.array} -- {shlex.join(asked.of_jobs)}".removesuffix(" -- "),
        at_once=asked.at_once,
    )
    # The array itself may go to the standard output.
    print(told, file=sys.stderr)
    wanted = delivery.Delivery(submit=asked.submit, out=asked.jobs)
    return delivery.deliver(wanted, array.text, to=array.to, logs=array.logs) or None


def _collect(runs: Sequence[Planned], out: Path) -> dict[str, str]:
    """Prints how far every run is, and returns the reasons of those that failed, by their names."""
    found = {}
    for run in runs:
        done = _result_path(out, run).is_file()
        found[run.name] = Told(State.DONE) if done else arm_status.read(_status_path(out, run))
    counts = {state: sum(told.state is state for told in found.values()) for state in State}
    print(f"{len(runs)} runs: {', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
    for name, told in found.items():
        if told.state is not State.DONE:
            more = "; ".join(filter(None, (told.reason, told.where)))
            print(f"  {told.state:8} {name}{f' ({more})' if more else ''}")
    return {name: told.reason for name, told in found.items() if told.state is State.FAILED}


def _make_all(
    runs: Sequence[Planned],
    recordings: Recordings,
    drawn: Mapping[int, Mapping[str, ProbeData]],
    *,
    asked: Asked,
    out: Path,
) -> tuple[dict[str, str], int | None]:
    """Makes the runs that are asked for.

    Returns:
        Reasons of the runs that failed, by their names; and the exit status where one was stopped, otherwise None.
    """
    failed: dict[str, str] = {}
    with tqdm(
        [run for run in runs if not asked.only or run.name in asked.only], desc="runs", unit="run", disable=None
    ) as bar:
        for run in bar:
            bar.set_postfix_str(run.name)
            with arm_status.telling(_status_path(out, run)) as end:
                try:
                    status = make(run, recordings, drawn[run.seed], out=out)
                except (DataError, CheckpointError) as error:
                    failed[run.name] = str(error)
                    end(State.FAILED, str(error))
                    continue
                if status:
                    end(arm_status.state_after(status), f"pretraining ended with status {status}")
            if status in RESTARTABLE or status == ExitStatus.INTERRUPTED or status < 0:
                print(f"{run.name} was stopped; the same command goes on", file=sys.stderr)
                return failed, status if status > 0 else ExitStatus.STOPPED
            if status:
                failed[run.name] = f"pretraining ended with status {status}"
    return failed, None


def _report(
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
    found = [(run, _result_path(out, run)) for run in runs]
    done = [ArmRun.load(path) for _, path in found if path.is_file()]
    if not done:
        return
    tables, page = write_report(
        done,
        recordings,
        tasks,
        out=out,
        failed=failed,
        missing=[run.name for run, path in found if not path.is_file() and run.name not in failed],
        labels_only={run.arm: run.labels_only for run in runs if run.labels_only},
        resamples=asked.resamples,
        cautions=cautions,
        command=asked.command,
    )
    print(f"\n{tables}\n\nreport: {page}")


def _begin(out: Path, recordings: Recordings, tasks: Mapping[str, ProbeData], *, label_fraction: float) -> None:
    """Begins or resumes the study in `out`; raises a `ConfigError` if the folder is of other tasks or records."""
    tested = digests.of_arrays(*(array for data in tasks.values() for array in data.test.arrays))
    about = {"tasks": list(tasks), "label_fraction": label_fraction, "data": list(recordings.fingerprints)}
    begin_study(out, {**about, "test_records": tested})


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the command's flags."""
    many = functools.partial(flags.DEFINE_multi_string, flag_values=values)
    many("config", [], "Config file, e.g. configs/simclr.py:small. Repeat for several.")
    many("sweep", [], "LEAF=VALUE|VALUE: alternatives, see above. Repeat for a grid.")
    many("task", [], "What the probes are asked, e.g. 'lvef<40'. Repeat for several.")
    many("only", [], "ARM/seedN as --jobs writes it: makes this run alone.")
    words = f"Models beside the arms: {', '.join(BASELINES)}; none for the random encoders alone."
    flags.DEFINE_list("baselines", list(BASELINES), words, flag_values=values)
    flags.DEFINE_integer("seeds", 3, "Runs of every arm.", lower_bound=1, upper_bound=1000, flag_values=values)
    words = "Share of the labelled training patients for the probes."
    flags.DEFINE_float("label_fraction", 0.1, words, lower_bound=0, upper_bound=1, flag_values=values)
    words = "Of the test patients, for the intervals."
    flags.DEFINE_integer("resamples", 2000, words, lower_bound=100, upper_bound=1_000_000, flag_values=values)
    flags.DEFINE_string("out", None, "Folder of the ablation.", flag_values=values)
    words = "Writes the commands of what is missing into this file, and runs nothing."
    flags.DEFINE_string("jobs", None, words, flag_values=values)
    words = "Prints, or writes into the file of --jobs, an array with a job for every missing run; nothing is run here."
    flags.DEFINE_enum("array", None, arrays.CLUSTERS, words, flag_values=values)
    words = "Jobs of an array that run at once; 0 for no limit."
    flags.DEFINE_integer("at_once", 0, words, lower_bound=0, upper_bound=100_000, flag_values=values)
    flags.DEFINE_bool("submit", False, "Gives the array to sbatch or kubectl.", flag_values=values)
    words = "Tells what is done, failed, stopped or missing, and makes the report of what is done; nothing is run here."
    flags.DEFINE_bool("collect", False, words, flag_values=values)
    flags.DEFINE_bool("report", True, "Makes the report at the end.", flag_values=values)


def common_changes(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the arguments of this command, and the changes by `--config.LEAF=VALUE` in all arms as (leaf, value).

    Raises:
        ConfigError: A change has no name or no value.
    """
    rest, common = [], []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if not name.lstrip("-").startswith("config."):
            rest.append(argument)
        elif equals and name.lstrip("-") != "config.":
            common.append((name.lstrip("-").removeprefix("config."), value))
        else:
            raise ConfigError(f"{argument} is no setting; write --config.LEAF=VALUE")
    return rest, common


def split_at_dashes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments before and after `--`."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:place]), list(arguments[place + 1 :])


def asked_by(values: flags.FlagValues, *, arguments: Sequence[str]) -> Asked:
    """Returns the values of parsed flags, completed from the whole command line (`arguments`)."""
    own = {name: getattr(values, name) for name in Asked._fields if name not in ("of_jobs", "common", "command")}
    mine, of_jobs = split_at_dashes(arguments)
    common = common_changes(mine)[1]
    # The command leaves out flags that only choose a part of the work. It is made of the values and not of the
    # arguments, which may be written in several ways.
    repeated = [
        *(f"--{name}={value}" for name in ("config", "sweep", "task") for value in own[name]),
        f"--baselines={','.join(own['baselines']) or 'none'}",
        *(f"--{name}={own[name]}" for name in ("label_fraction", "seeds", "resamples", "out")),
        *(f"--config.{leaf}={value}" for leaf, value in common),
    ]
    return Asked(
        **own, of_jobs=of_jobs, common=common, command=shlex.join(["python", "-m", f"{__package__}.ablate", *repeated])
    )


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return parse_flags(common_changes(split_at_dashes(argv)[0])[0])
    except ConfigError as error:
        fail(str(error))


if __name__ == "__main__":
    define_flags()
    run_config.run(lambda _: ablate(asked_by(flags.FLAGS, arguments=sys.argv[1:])), flags_parser=_parse_flags)
