"""Exports the encoder of a pretraining run as a folder that stands for itself.

  python -m ecgjax.export --workdir=runs/simclr --out=models/simclr
  python -m ecgjax.export --workdir=runs/simclr --out=models/simclr --step=20000 --layer=embedding --formats=onnx

The folder has the weights (model.safetensors), the encoder's function (model.onnx, model.stablehlo), a card, how
recordings are prepared, and a sample to check an installation with; docs/using_a_model.md loads it. Weights are the
moving average where the run kept one, and batch norm has the statistics that `evaluate` gives it. No id, date or path
leaves with it, but names of data sets do. A folder that an earlier export wrote is replaced when the new one is whole.
"""

from __future__ import annotations

from data_pipelines.system import stop_signals
from ecgjax.system.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()  # This must come before the imports below, which start threads.
    stop_signals.listen()

from collections.abc import Sequence

from absl import flags

from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.command import output_folder
from data_pipelines.system.visible_text import visible
from ecgjax.bucket_runs.workdirs import fetched
from ecgjax.config import run_config
from ecgjax.export.file_names import FUNCTION_FORMATS
from ecgjax.export.inference import LAYERS
from ecgjax.export.model_folder import export_run
from ecgjax.export.trained_run import STATISTICS

#: Value of `--formats` for none of them, because a shell's empty variable is refused.
NONE = "none"


def main(_: list[str]) -> None:
    """Exports what the flags ask for."""
    chosen = flags.FLAGS
    workdir = fetched(chosen.workdir)
    with finished_folder(chosen.out) as folder:
        out = export_run(
            workdir,
            output_folder("out", folder),
            step=chosen.step,
            statistics=chosen.statistics,
            layer=chosen.layer,
            with_signatures=chosen.with_signatures,
            formats=asked_formats(chosen.formats),
            pretraining_data=chosen.pretraining_data,
        )
        print(visible(f"exported: {out}"))


def asked_formats(asked: Sequence[str]) -> Sequence[str]:
    """Returns the forms that `--formats` names; none for the word `none`.

    Args:
        asked: Value of the flag.
    """
    return () if list(asked) == [NONE] else asked


def define_flags() -> None:
    """Defines the command's flags in a function, because other commands have flags of the same names."""
    flags.DEFINE_string("workdir", None, "Folder of the pretraining run.", required=True)
    flags.DEFINE_string("out", None, "Folder to write: a new one, or an earlier export.", required=True)
    flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest by default.")
    flags.DEFINE_enum(
        "statistics",
        "recalibrated",
        STATISTICS,
        "Batch-norm statistics: those that evaluate sets on the training recordings, or those of training.",
    )
    flags.DEFINE_enum("layer", None, LAYERS, "Layer that is the output; by default that of the run's config.")
    flags.DEFINE_boolean(
        "with_signatures",
        False,
        "Whether signatures of the records that were trained on leave with the model, by which copies are found.",
    )
    words = "Folder where data sets of the pretraining lie now, if not where they were. Repeat for several."
    flags.DEFINE_multi_string("pretraining_data", [], words)
    words = f"Forms to write beside the weights: {', '.join(FUNCTION_FORMATS)}; or {NONE}."
    flags.DEFINE_list("formats", list(FUNCTION_FORMATS), words)


if __name__ == "__main__":
    define_flags()
    run_config.run(main)
