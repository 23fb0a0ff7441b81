"""A tour of all flags that take addresses in buckets: every command reads from a bucket, or writes to one, to its end.

python -m tests.ecgjax.bucket_runs.tour gs://BUCKET FOLDER

BUCKET has a data set at `data`, the same at `real` with a card that does not call it simulated, and a run at `run`.
Each command is a process of its own, forked from this one when all packages are imported and JAX has not started, and
has a cache of its own, as on a machine that has nothing yet.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.golden.commands import ROOT
from tests.support.forked_commands import Outcome, Running, filled, import_all, run_module

TASK = "--task=age_years>62"
FOLDS = (
    "--config.data.train_folds=(1,2,3,4,5)", "--config.data.val_folds=(6,7)", "--config.data.test_folds=(8,9,10)",
)  # fmt: skip
_TINY = "--config=tests/support/tiny_config.py"
_LITTLE = (
    "--config.probe.bootstrap=100", "--config.probe.shuffles=2", "--config.probe.overlaps=mark",
    "--config.probe.supervised.steps=2",
)  # fmt: skip

#: What each may take, on a machine that has much else to do.
_MOST_SECONDS = 900

#: Commands with their arguments, in this order; `{bucket}` is an address, `{folder}` a folder of this machine.
TOUR: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "data_pipelines.build",
        ("--builder=simulated", "--num_patients=4", "--num_workers=1", "--out={bucket}/built"),
    ),
    ("data_pipelines.inspect", ("--dataset={bucket}/data", "--random=1", "--out={bucket}/drawn")),
    ("data_pipelines.link", ("--dataset={bucket}/data", "--out={folder}/links.npz")),
    ("data_pipelines.stage", ("--dataset={bucket}/data", "--out={folder}/staged")),
    (
        "data_pipelines.realism",
        ("--real={bucket}/real", "--max_records=50", "--num_workers=1", "--out={bucket}/realism"),
    ),
    ("ecgjax.preview_views", (_TINY, "--dataset={bucket}/data", "--out={bucket}/views")),
    ("ecgjax.benchmark", ("--what=input_wait", "--dataset={bucket}/data", "--batch_size=8", "--records=64")),
    (
        "ecgjax.pretrain",
        (
            _TINY, "--workdir={bucket}/pretrained", "--config.data.dir={bucket}/data",
            "--config.init.source={bucket}/run", "--config.duration.value=2", "--config.eval_every=0",
        ),
    ),
    ("ecgjax.run_time", ("--workdir={bucket}/pretrained", "--out={bucket}/time")),
    (
        "ecgjax.export",
        ("--workdir={bucket}/run", "--pretraining_data={bucket}/data", "--out={bucket}/model", "--formats=stablehlo"),
    ),
    (
        "ecgjax.finetune",
        (
            "--workdir={bucket}/tuned", "--config.data.dir={bucket}/data", "--config.init.source={bucket}/model", TASK,
            "--config.training.steps=2", "--config.training.eval_every=2", "--config.bootstrap=100", *FOLDS,
        ),
    ),
    (
        "ecgjax.evaluate",
        (
            "--workdir={bucket}/run", "--dataset={bucket}/data", "--pretraining_data={bucket}/data", TASK, *_LITTLE,
            "--out={bucket}/report",
        ),
    ),
    (
        "ecgjax.evaluate",
        ("--model={bucket}/model", "--dataset={bucket}/data", TASK, *_LITTLE, *FOLDS, "--out={folder}/report"),
    ),
    (
        "ecgjax.label_efficiency",
        (
            "--workdir={bucket}/run", "--dataset={bucket}/data", "--pretraining_data={bucket}/data", TASK, *_LITTLE,
            "--fractions=1", "--seeds=1", "--modes=plain", "--out={bucket}/efficiency",
        ),
    ),
    (
        "ecgjax.label_efficiency",
        (
            "--model={bucket}/model", "--dataset={bucket}/data", TASK, *_LITTLE, *FOLDS, "--fractions=1", "--seeds=1",
            "--modes=plain", "--out={folder}/efficiency",
        ),
    ),
    (
        "ecgjax.cross_validate",
        (
            "--workdir={bucket}/run", "--model={bucket}/model", "--dataset={bucket}/data",
            "--pretraining_data={bucket}/data", TASK, "--fractions=1", "--seeds=1", "--baselines=demographics",
            "--overlaps=mark", "--config.resamples=100", "--config.outer_folds=2", "--config.inner_folds=2",
            "--out={bucket}/crossed",
        ),
    ),
    (
        "ecgjax.embed",
        ("--model={bucket}/model", "--input={bucket}/data", "--num_workers=1", "--out={folder}/e.parquet"),
    ),
    ("ecgjax.search", ("build", "--embeddings={folder}/e.parquet", "--out={bucket}/index")),
    (
        "ecgjax.search",
        ("query", "--index={bucket}/index", "--embeddings={folder}/e.parquet", "--out={folder}/alike.parquet"),
    ),
)  # fmt: skip


def run(number: int, bucket: str, folder: Path) -> Outcome:
    """Runs a command of the tour and returns what it did."""
    command, arguments = TOUR[number]
    made = {"bucket": bucket, "folder": str(folder)}
    os.environ["ECGJAX_CACHE"] = str(folder / f"machine{number}")

    def work() -> int:
        os.chdir(ROOT)
        return run_module(command, [filled(argument, made) for argument in arguments])

    process = Running(work, folder / f"command{number}", most_seconds=_MOST_SECONDS)
    return process.outcome(os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]))


def main() -> int:
    """Runs all commands and prints what those did that fail; returns the status."""
    bucket, folder = sys.argv[1], Path(sys.argv[2])
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"
    import_all()
    failed = 0
    for number, (command, arguments) in enumerate(TOUR):
        done = run(number, bucket, folder)
        print(f"{command} {' '.join(arguments)}: status {done.status} after {done.seconds:.1f} s", flush=True)
        if done.status:
            failed += 1
            print(f"{done.output[-2000:]}\n{done.errors[-2000:]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
