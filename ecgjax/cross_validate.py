r"""Cross-validates frozen encoders on a small data set that none of them was pretrained on.

  python -m ecgjax.cross_validate --workdir=runs/simclr --workdir=runs/physioclr --dataset=data/ptbxl \
      --task=NORM --task=female --task=superdiagnostic --fractions=.1,.5,1 --seeds=3 --out=runs/cv

  python -m ecgjax.cross_validate --model=models/simclr --dataset=data/ptbxl --task=NORM --out=runs/cv

Every labelled record is tested once a seed, by a model that its patient had no part in: patients are divided into outer
folds, and in each a probe's strength is chosen by inner folds of the others. Beside every encoder stand the same
encoder at random initialisation and the models of --baselines: the same encoder trained with labels alone, and models
of intervals, of the median beat, and of age and sex; without --workdir these are tested alone. Differences are paired.
How it is done is said by --config (configs/cross_validation.py). The command can be interrupted, and given again with
more runs, tasks, fractions or seeds: what is there stays. report.html, report.md and results.json in --out show what
was asked for.
"""

from __future__ import annotations

from data_pipelines.command import print_report
from data_pipelines.packing.bucket_copy import dataset_folder
from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import shlex
import sys
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines.buckets.addresses import local_path
from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.system.visible_text import visible
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.config.recipes import load_recipe
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.defaults import RunSettings
from ecgjax.errors import ConfigError
from ecgjax.leakage import guard
from ecgjax.pages.page import SIMULATED
from ecgjax.pages.texts import ANONYMOUS_WORDS
from ecgjax.settings.sections import leaves_of, read
from ecgjax.studies.batch_norm import STATISTICS
from ecgjax.studies.cross_validation import Method, Study
from ecgjax.studies.model_names import BASELINES, checked_baselines
from ecgjax.studies.pretrained_runs import keep_apart, open_runs, told_of_batch_norm
from ecgjax.studies.report.cross_validation_page import write_report


def open_whole(directory: str, *, links: str) -> Recordings:
    """Opens a data set with all its records as training records; of several copies of a recording one is kept.

    Args:
        directory: Folder of the data set.
        links: Path of the file that `data_pipelines.link` wrote; empty for none.
    """
    folds = tuple(np.unique(open_dataset(dataset_folder(directory)).index.fold).tolist())
    return open_recordings(DataSettings(dir=directory, links=links, train_folds=folds, val_folds=(), test_folds=()))


def settings_of_encoder(config: str) -> RunSettings:
    """Returns the settings of the config file that `--encoder` names.

    Raises:
        ConfigError: There is no such file or variant, or it is no config of a run.
    """
    try:
        return defaults.settings_of(load_recipe(config))
    except (ConfigError, ValueError) as error:
        words = str(error).removeprefix(f"--config={config}").removeprefix(":").strip()
        raise ConfigError(f"--encoder={config}: {words.replace('--config', '--encoder')}") from error


def main(argv: list[str]) -> None:
    """Runs the study that the flags ask for and prints its tables."""
    del argv  # It was checked by `run_config.run`.
    chosen = flags.FLAGS
    for name in ("dataset", "task", "out"):
        if not chosen[name].value:
            raise ConfigError(f"--{name}=… is needed (--help tells more)")
    fractions = run_config.parse_fractions(chosen.fractions)
    method = read(Method, chosen.config)
    baselines = checked_baselines(chosen.baselines)
    if chosen.encoder and (chosen.workdir or chosen.model):
        flag = "--workdir" if chosen.workdir else "--model"
        raise ConfigError(f"--encoder is the encoder of a cross-validation without {flag}: give one of the two")
    local_path(chosen.links, flag="links")
    for name in ("statistics", "pretraining_data"):
        if chosen[name].value and not (chosen.workdir or chosen.model):
            raise ConfigError(f"--{name} is about pretrained encoders: give --workdir or --model too, or leave it out")
    alone = settings_of_encoder(chosen.encoder) if chosen.encoder else RunSettings()
    with finished_folder(chosen.out) as out, run_config.exclusive(out, flag="--out"):
        recordings = open_whole(chosen.dataset, links=chosen.links)
        runs = open_runs(
            chosen.workdir,
            layer=method.layer,
            recordings=recordings,
            models=chosen.model,
            statistics=chosen.statistics,
            pretraining_data=chosen.pretraining_data,
        )
        recordings, cautions = keep_apart(
            runs, recordings, overlaps=chosen.overlaps, pretraining_data=chosen.pretraining_data
        )
        cautions = tuple(guard.by_weight((*([SIMULATED] if recordings.simulated else []), *cautions)))
        print_report("\n".join(map(visible, (*cautions, *told_of_batch_norm(runs)))))
        study = Study(
            runs, recordings, tasks=chosen.task, method=method, folder=Path(out), baselines=baselines, alone=alone
        )
        tables, page = write_report(
            study,
            study.run(fractions=fractions, seeds=chosen.seeds),
            runs=runs,
            cautions=cautions,
            command=shlex.join(["python", "-m", "ecgjax.cross_validate", *sys.argv[1:]]),
            anonymous=chosen.anonymous,
        )
    print(f"\n{tables}\n\nreport: {page}")


def define_flags() -> None:
    """Defines the command's flags in a function, because other commands have flags of the same names."""
    words = "Folder of a pretraining run. Repeat for several; without one, the models beside encoders are tested alone."
    flags.DEFINE_multi_string("workdir", [], words)
    words = "Folder of an exported model (python -m ecgjax.export). Repeat for several, also beside --workdir."
    flags.DEFINE_multi_string("model", [], words)
    words = (
        "What sets batch norm: pretraining does by the training records of a run's pretraining (its default), stored "
        "keeps the encoder's statistics (the default of a model), evaluation sets them by this data set."
    )
    flags.DEFINE_enum("statistics", None, STATISTICS, words)
    words = "Folder where data sets of the pretrainings lie now, if not where they were. Repeat for several."
    flags.DEFINE_multi_string("pretraining_data", [], words)
    words = (
        "Config file of the encoder that is tested without --workdir, at random initialisation and with labels alone."
    )
    flags.DEFINE_string("encoder", "", words)
    words = f"Models beside the encoders: {', '.join(BASELINES)}; none for the random encoders alone."
    flags.DEFINE_list("baselines", list(BASELINES), words)
    flags.DEFINE_string("dataset", None, "The data set to test on, made by python -m data_pipelines.build.")
    flags.DEFINE_string("links", "", "What python -m data_pipelines.link wrote about the data set.")
    flags.DEFINE_multi_string("task", [], "Question, as 'lvef<40' or superdiagnostic:NORM. Repeat for several.")
    flags.DEFINE_list("fractions", [".1", ".5", "1"], "Shares of the labelled training patients.")
    flags.DEFINE_integer("seeds", 3, "Divisions into folds, draws of labels, random initialisations.", lower_bound=1)
    flags.DEFINE_string("out", None, "Folder of the study.")
    flags.DEFINE_bool("anonymous", False, ANONYMOUS_WORDS)
    flags.DEFINE_enum("overlaps", "refuse", guard.OVERLAPS, "What to do about records that a run has seen.")
    run_config.define_config("cross_validation", "How it is done.")


if __name__ == "__main__":
    define_flags()
    run_config.run(main, leaves=lambda: leaves_of(Method))
