"""The page that the quickstart ends with, and its commands."""

import subprocess
import sys

from tests.golden.commands import ROOT

# The flags of the command would meet those of others in the tests' own process.
_PROGRAM = """
import sys
from pathlib import Path
from ecgjax.evaluation.metrics.bootstrap import Interval
from ecgjax.evaluation.results import Key, write_results
from launch.quickstart import QUESTIONS, commands, write_summary

def interval(value):
    return Interval(estimate=value, low=value - .02, high=value + .03, resamples=100)

out = Path(sys.argv[1])
for name, task in QUESTIONS.items():
    rows = {}
    for fraction in (.01, .1, 1.):
        for model, value in (("pretrained", .7), ("boosted", .8), ("random", .6)):
            rows[Key(model, "AUROC", task, fraction)] = interval(value)
            if model != "pretrained":
                rows[Key("pretrained", "AUROC", task, fraction, minus=model)] = interval(.7 - value)
    (out / "seed0" / name).mkdir(parents=True)
    write_results(out / "seed0" / name, rows, concluded="What may be concluded. Little.")
for anonymous in (False, True):
    made_by = commands(out, 0, anonymous=anonymous)
    assert [("--anonymous" in words) for words in made_by] == [False, False, anonymous, anonymous]
    page = write_summary(out / "seed0", made_by=made_by, anonymous=anonymous)
    text = page.with_suffix(".md").read_text(encoding="utf-8")
    best = "intervals and amplitudes, boosted trees"
    begin = "**SIMULATED patients. 6 comparisons (2 questions at 3 shares of the labels): the best model is"
    assert text.startswith(f"{begin} {best} in 6."), text
    assert "worse than one or more in 6" in text and "beat the same encoder at random in 6 of 6" in text
    assert text.count("What may be concluded. Little.") == 1
    assert "python -m data_pipelines.build" in text and "python -m launch.quickstart --out=" in text
    assert (str(out) in text) is not anonymous
"""


def test_the_summary_begins_with_a_verdict_and_fits_the_terminal(tmp_path):
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "quickstart")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "SIMULATED patients." in done.stdout
