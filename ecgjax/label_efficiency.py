r"""How few labels suffice: fractions x seeds x {random, pretrained} x {frozen, fine-tuned}, resumed cell by cell.

Beside them age and sex, a linear model and boosted trees on intervals and amplitudes, and one on the median beat.

  python -m ecgjax.label_efficiency --workdir=runs/simclr --task='lvef<40' --out=runs/simclr/lvef
  python -m ecgjax.label_efficiency --workdir=runs/simclr --task=superdiagnostic --modes=frozen --out=runs/simclr/super
  python -m ecgjax.label_efficiency --model=models/simclr --dataset=data/ptbxl --task=AF --out=studies/af

Fractions are drawn by patient, each part of every larger one of the same seed. The command can be interrupted, and
given again with other fractions, seeds or modes: what is there already stays, and report.html, report.md and
results.json in --out show all of it. `--config.probe.supervised.…` (random) and `--config.probe.finetune.…`
(pretrained) say how networks are trained; `….metric.weight=1` of both adds metric learning to the task.
"""

from __future__ import annotations

from data_pipelines.command import print_report
from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipelines.buckets.addresses import local_path
from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.system.visible_text import visible
from ecgjax import defaults
from ecgjax.config import run_config
from ecgjax.errors import ConfigError
from ecgjax.pretrained.source import chosen_place, settings_of_source
from ecgjax.studies import finished_run
from ecgjax.studies.finished_run import check_model_settings, parse_flags, with_flags
from ecgjax.studies.label_efficiency import Study
from ecgjax.studies.model_names import ModelName
from ecgjax.studies.readouts import MODELS_OF_READOUT, models_of
from ecgjax.studies.report.label_efficiency_page import write_report
from ecgjax.studies.store import CELL_MODELS, FROZEN, MODES, Cell, read_cells, run_cells

#: Word of `--modes` for the half of "finetuned" that needs no pretraining.
LABELS_ONLY = "labels_only"


def cells_of(fractions: list[float], *, seeds: int, modes: list[str], further: Sequence[ModelName] = ()) -> list[Cell]:
    """Returns a study's cells (models to train, each with a fraction of the labels and a seed), the fast ones first.

    Args:
        fractions: Fractions of the labelled training patients.
        seeds: Number of seeds, which count from 0.
        modes: Modes of training, each one of `MODES`, or `LABELS_ONLY` for the encoder that is trained from random.
        further: Models that `config.probe.readouts` and `config.probe.grid` add, whatever the modes.

    Raises:
        ConfigError: A mode is unknown.
    """
    known = (*MODES, LABELS_ONLY)
    if unknown := sorted(set(modes) - set(known)):
        raise ConfigError(f"--modes={','.join(modes)}: {unknown[0]!r} is unknown; there are: {', '.join(known)}")
    of_readouts = {"random_grid", *(each for readout in FROZEN for each in MODELS_OF_READOUT[readout])}
    return [
        Cell(fraction=fraction, seed=seed, model=model, mode=mode)
        for mode in MODES
        for fraction in fractions
        for seed in range(seeds)
        for model, trained in CELL_MODELS[mode].items()
        if trained in further
        or (mode in modes and trained not in of_readouts)
        or (LABELS_ONLY in modes and trained == "supervised")
    ]


def main(argv: list[str]) -> None:
    """Runs the study that the flags ask for and prints its tables."""
    del argv  # It was checked by `run_config.run`.
    chosen = flags.FLAGS
    if not chosen.out:
        raise ConfigError("--out is needed (--help tells more)")
    features = local_path(chosen.features, flag="features") if chosen.features else None
    place = chosen_place(chosen.workdir, chosen.model)
    own = settings_of_source(place)
    settings = with_flags(defaults.settings_of(chosen.config), own, task=chosen.task, dataset=chosen.dataset)
    if chosen.model:
        check_model_settings(settings, own)
    cells = cells_of(
        run_config.parse_fractions(chosen.fractions),
        seeds=chosen.seeds,
        modes=chosen.modes,
        further=models_of(settings.probe),
    )
    with finished_folder(chosen.out) as out, run_config.exclusive(out, flag="--out"):
        folder = Path(out)
        study = Study(
            settings,
            place,
            question=settings.probe.task,
            folder=folder,
            step=chosen.step,
            features=features,
            statistics=chosen.statistics,
            pretraining_data=chosen.pretraining_data,
        )
        for words in filter(None, (*study.cautions(set(chosen.modes) - {LABELS_ONLY}), study.batch_norm.words)):
            print_report(words)
        run_cells(cells, folder, study.train)
        command = shlex.join(["python", "-m", "ecgjax.label_efficiency", *sys.argv[1:]])
        tables, report = write_report(study, read_cells(folder), command=command, anonymous=chosen.anonymous)
    print(f"\n{visible(study.task.title)}\n{tables}\n\nreport: {report}")


def define_flags() -> None:
    """Defines the command's own flags in a function, because other commands have flags of the same names."""
    words = "Question: 'lvef<40', superdiagnostic:NORM, 'superdiagnostic:*' or age_years."
    flags.DEFINE_string("task", None, words)
    flags.DEFINE_string("out", None, "Folder of the study.")
    words = (
        "Folder of kept embeddings and measurements, by default inside --out. Studies with the same labelled records "
        "may share one."
    )
    flags.DEFINE_string("features", "", words)
    flags.DEFINE_list("fractions", [".01", ".05", ".1", ".5", "1"], "Shares of the labelled patients.")
    flags.DEFINE_integer("seeds", 5, "Draws of labels, random initialisations and trainings.", lower_bound=1)
    flags.DEFINE_list("modes", list(MODES), "Of training: frozen, finetuned, plain (without an encoder), labels_only.")
    flags.adopt_module_key_flags(finished_run)


if __name__ == "__main__":
    define_flags()
    run_config.run(main, flags_parser=parse_flags)
