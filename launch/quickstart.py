r"""From nothing to the few-label curve: simulated cohort, pretraining, two questions, one picture.

  python -m launch.quickstart --out=runs/quickstart [--seed=0] [--anonymous]

Four commands, which can as well be given one by one, and a page that puts their answers side by side:

  python -m data_pipelines.build --builder=simulated --num_patients=5600 --target_rate_hz=100 --median_beat \
      --out=OUT/data
  python -m ecgjax.pretrain --config=quickstart:waves --config.data.dir=OUT/data --workdir=OUT/seed0
  python -m ecgjax.label_efficiency --workdir=OUT/seed0 --task='potassium>5' --out=OUT/seed0/potassium …
  python -m ecgjax.label_efficiency --workdir=OUT/seed0 --task='wedge_pressure>18' --out=OUT/seed0/wedge_pressure …

An interrupted quickstart goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from data_pipelines.command import command, output_folder, run
from ecgjax.pages.texts import ANONYMOUS_WORDS

#: Number of patients, of whom two of ten folds, at least 1,000 patients, are test patients.
NUM_PATIENTS = 5600

#: Questions by the name of their study's folder: one where pretraining helps, and one where it does not.
QUESTIONS: Mapping[str, str] = {"potassium": "potassium>5", "wedge_pressure": "wedge_pressure>18"}

#: What each command makes, in words, by its module.
_MADE: Mapping[str, str] = {
    "data_pipelines.build": "The simulated patients",
    "ecgjax.pretrain": "The pretraining",
    "ecgjax.label_efficiency": "A question and its study",
}

_OUT = flags.DEFINE_string("out", "runs/quickstart", "Folder for the cohort and the run.")
_WORDS = "Seed of initialisation, sampling, views and which labels are drawn."
_SEED = flags.DEFINE_integer("seed", 0, _WORDS, lower_bound=0, upper_bound=2**31 - 1)


_ANONYMOUS = flags.DEFINE_bool("anonymous", False, ANONYMOUS_WORDS)


def commands(out: Path, seed: int, *, anonymous: bool = False) -> list[list[str]]:
    """Returns the commands of the quickstart, each as the arguments of `python -m`.

    Args:
        out: Folder of the quickstart.
        seed: Seed of the run and of the draw of labels.
        anonymous: Whether the reports are written for a double-blind review.
    """
    data, run_dir = f"{out / 'data'}", out / f"seed{seed}"
    cohort = ["--builder=simulated", f"--num_patients={NUM_PATIENTS}", "--target_rate_hz=100", "--median_beat"]
    leaves = [f"--config.data.dir={data}", f"--config.seed={seed}", f"--config.probe.seed={seed}"]
    study = [
        "--modes=frozen,labels_only,plain",
        "--fractions=.01,.1,1",
        "--seeds=1",
        f"--features={run_dir / 'features'}",
    ]
    study += ["--anonymous"] if anonymous else []
    return [
        ["data_pipelines.build", *cohort, f"--out={data}"],
        ["ecgjax.pretrain", "--config=quickstart:waves", *leaves, f"--workdir={run_dir}"],
        *(
            ["ecgjax.label_efficiency", f"--workdir={run_dir}", f"--task={task}", *study, f"--out={run_dir / name}"]
            for name, task in QUESTIONS.items()
        ),
    ]


def write_summary(run_dir: Path, *, made_by: Sequence[Sequence[str]] = (), anonymous: bool = False) -> Path:
    """Writes the page that puts the questions side by side, prints its tables, and returns the page's path.

    Args:
        run_dir: Folder of the run, in which every question has its study.
        made_by: Commands that made the studies, each as the arguments of `python -m`.
        anonymous: Whether the page is written for a double-blind review.
    """
    # Matplotlib takes a second to load, which the help should not take.
    from ecgjax.evaluation.results import read_results
    from ecgjax.pages.page import SIMULATED, Page, Paragraph, Picture
    from ecgjax.pages.provenance import Step, command_section
    from ecgjax.pages.terminal import terminal_table, wrapped
    from ecgjax.pages.write import write_page
    from ecgjax.studies.report.few_labels import few_labels_figure, few_labels_table, few_labels_verdicts
    from ecgjax.studies.report.verdict import verdict_table, verdict_text

    studies = {task: read_results(run_dir / name) for name, task in QUESTIONS.items()}
    tables = [
        few_labels_table(results, question=task, caption=f"{task}: AUROC on test patients by share of the labels")
        for task, results in studies.items()
    ]
    for table in tables:
        print(f"\n{table.caption}\n{terminal_table(table.header, table.rows)}")
    verdicts = few_labels_verdicts(studies)
    verdict = verdict_text(verdicts, simulated=True)
    print(f"\n{wrapped(verdict)}")
    picture = Picture(
        figure=few_labels_figure(studies, title="SIMULATED patients: what few labels give"),
        alt="AUROC against the share of labels for every model and question, as in the tables.",
        caption="Bars are 95 % intervals over test patients; one seed.",
    )
    pages = ", ".join(str(run_dir / name / "report.html") for name in QUESTIONS)
    page = Page(
        title="Quickstart: what few labels give",
        verdict=verdict,
        cautions=[SIMULATED],
        summary=[
            *(Paragraph(text) for text in _concluded(run_dir)),
            picture,
            *tables,
            verdict_table(verdicts),
            Paragraph(f"Differences with intervals, the flow of recordings, and how all was made: {pages}."),
        ],
        sections=[
            command_section(
                shlex.join(["python", "-m", "launch.quickstart", f"--out={run_dir.parent}"]),
                before=[Step(f"{_MADE[words[0]]}:", shlex.join(["python", "-m", *words])) for words in made_by],
            )
        ],
    )
    return write_page(page, run_dir, stem="few_labels", anonymous=anonymous).html


def _concluded(run_dir: Path) -> list[str]:
    """Returns what may be concluded from the studies, as their results say; what holds for all is said once."""
    texts = [
        json.loads((run_dir / name / "results.json").read_text(encoding="utf-8")).get("concluded", "")
        for name in QUESTIONS
    ]
    return [text for text in dict.fromkeys(texts) if text]


@command
def main() -> None:
    """Runs the commands one after another, and stops with the status of the first that fails."""
    start = time.monotonic()
    out = output_folder("out", _OUT.value)
    made_by = commands(out, _SEED.value, anonymous=_ANONYMOUS.value)
    for words in made_by:
        print("$ python -m " + " ".join(words), flush=True)
        status = subprocess.run([sys.executable, "-m", *words], check=False).returncode
        if status:
            sys.exit(status)
    page = write_summary(out / f"seed{_SEED.value}", made_by=made_by, anonymous=_ANONYMOUS.value)
    print(f"\nquickstart finished in {time.monotonic() - start:.0f} s; report: {page}")


if __name__ == "__main__":
    run(main)
