"""The command that builds: what it says at its end, and every error in one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from data_pipelines import build as build_command
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.signals.recipe import RECIPES
from tests.support.fixtures import twelve_lead_mv, write_wfdb
from tests.support.user_errors import told

REPOSITORY = Path(__file__).parents[2]


def test_command_line(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data_pipelines.build", "--builder=simulated", "--num_patients=5", "--seconds=2"]
    command += ["--target_rate_hz=100", "--num_workers=1", f"--out={out}"]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    assert "simulated (SIMULATED), 200 samples at 100 Hz" in " ".join(built.stdout.split())
    count = open_dataset(out).index.num_records
    counts = rf"recordings in +{count}\n +stored +{count} of 5 patients in 1 shard\n +quarantined +0\n"
    assert re.search(counts, built.stdout)
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert again.returncode == 0
    assert again.stdout.startswith("finished already, nothing to do")


@pytest.mark.parametrize("field", ["sampling_rate_hz", "seconds", "min_seconds", "cut", "pad"])
def test_a_flag_for_a_step_that_all_recipes_share_says_its_default(field):
    (value,) = {getattr(recipe, field) for recipe in RECIPES.values()}
    text = f"{value:g}" if isinstance(value, int | float) else value
    help_text = flags.FLAGS["target_rate_hz" if field == "sampling_rate_hz" else field].help
    assert re.search(rf", by default {text}[.:]", help_text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--builder=ptbxl", "--source=nowhere"], "error: --source=nowhere: no such directory"),
        (["--builder=ptbxl", "--source=."], r"ptbxl_database.csv: no such file|scp_statements.csv: no such file"),
        (["--builder=ptbxl"], "error: --builder=ptbxl needs --source=DIR"),
        (["--builder=simulated", "--labels=a.csv"], "error: --labels means nothing to --builder=simulated"),
        (["--builder=folder", "--source=.", "--name=Our Data"], "--name=Our Data: lower case letters, digits and _"),
        (
            ["--builder=simulated", "--site=B"],
            "--site=B: no such simulated site; the sites are emergency, elderly_clinic",
        ),
        (["--builder=folder", "--source=.", "--site=screening"], "--site means nothing to --builder=folder"),
        (["--builder=simulated", "--pieces"], "--pieces means nothing to --builder=simulated"),
        (["--builder=prepared", "--source=.", "--pieces"], "--pieces means nothing to --builder=prepared"),
        (["--builder=folder", "--source=.", "--pieces", "--cut=center"], "--cut means nothing with --pieces"),
        (["--builder=simulated", "--seconds=1.001"], "is 250.25 samples, a whole number is needed"),
    ],
)
def test_command_line_errors_are_one_line(tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(tmp_path)
    with flagsaver.flagsaver():
        flags.FLAGS(["build", *arguments, "--out=x"])
        with told(capsys, message):
            build_command.main(["build"])
    assert not list(tmp_path.iterdir())


def run_in_process(*arguments):
    with flagsaver.flagsaver():
        flags.FLAGS(["build", *map(str, arguments)])
        build_command.main(["build"])


def test_pieces_are_asked_for_by_a_flag_and_told_at_the_end(tmp_path, capsys):
    write_wfdb(tmp_path / "in", "a", twelve_lead_mv(seconds=26))
    command = ["--builder=folder", f"--source={tmp_path / 'in'}", "--num_workers=1", f"--out={tmp_path / 'out'}"]
    run_in_process(*command, "--pieces")
    summary = capsys.readouterr().out
    assert re.search(r"recordings in +1, as 3 records\n +stored +3 of 1 patient ", summary)
    assert "26 s kept of 26 s recorded in 1 recording; 0 s dropped" in summary
    run_in_process(*command, "--pieces")
    assert capsys.readouterr().out.startswith("finished already")
    with told(capsys, r"holds a finished data set, but it was built otherwise, with pieces=True"):
        run_in_process(*command)


def test_a_data_set_built_before_there_were_pieces_is_still_the_one_asked_for(tmp_path, capsys):
    write_wfdb(tmp_path / "in", "a", twelve_lead_mv(seconds=26))
    command = ["--builder=folder", f"--source={tmp_path / 'in'}", "--num_workers=1", f"--out={tmp_path / 'out'}"]
    run_in_process(*command)
    card = json.loads((tmp_path / "out" / CARD_FILE).read_text())
    assert "pieces" not in card["request"]
    for later in ("seconds", "shared_contents"):
        del card["summary"][later]
    (tmp_path / "out" / CARD_FILE).write_text(json.dumps(card))
    capsys.readouterr()
    run_in_process(*command)
    assert capsys.readouterr().out.startswith("finished already")


def test_a_disk_that_is_full_is_told_in_one_line(tmp_path):
    """The limit on the size of a file stands for a full disk: the system refuses to write beyond it."""
    command = [sys.executable, "-m", "data_pipelines.build", "--builder=simulated", "--num_patients=20"]
    run = subprocess.run(
        ["bash", "-c", 'ulimit -f 200; exec "$@"', "bash", *command, "--num_workers=1", f"--out={tmp_path / 'out'}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "cannot be written (" in run.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with flagsaver.flagsaver():
        flags.FLAGS(["build", "--builder=simulated", "--num_patients=2", f"--out={tmp_path / 'file' / 'out'}"])
        with told(capsys, r"^error: --out=.*file exists and is not a directory"):
            build_command.main(["build"])


def test_an_edited_table_of_labels_is_another_request(tmp_path, capsys):
    write_wfdb(tmp_path / "in", "x", twelve_lead_mv())
    table, out = tmp_path / "labels.csv", tmp_path / "out"
    with flagsaver.flagsaver():
        flags.FLAGS(["build", "--builder=folder", f"--source={tmp_path / 'in'}", f"--labels={table}", f"--out={out}"])
        table.write_text("record,patient_id,lvef\nx,p,50\n")
        build_command.main(["build"])
        assert "finished already" not in capsys.readouterr().out
        build_command.main(["build"])
        assert "finished already, nothing to do" in capsys.readouterr().out
        table.write_text("record,patient_id,lvef\nx,p,30\n")
        changed = r"holds a finished data set, but the table of labels .*labels\.csv has changed since; .*--overwrite"
        with told(capsys, changed):
            build_command.main(["build"])


def test_the_summary_tells_the_first_of_every_reason_and_what_to_declare(tmp_path, capsys):
    write_wfdb(tmp_path / "in", "a", twelve_lead_mv())
    np.save(tmp_path / "in" / "bare1.npy", twelve_lead_mv())
    np.save(tmp_path / "in" / "bare2.npy", twelve_lead_mv())
    (tmp_path / "in" / "text.dcm").write_text("no DICOM")
    run_in_process(
        "--builder=folder", f"--source={tmp_path / 'in'}", "--num_workers=1", "--max_quarantined=1",
        f"--out={tmp_path / 'out'}",
    )  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"quarantined 3, listed in \S+ missing_metadata 2 the first: \S*bare1\.npy: does not", said)
    assert "bare2.npy" not in said
    assert "--declared_rate_hz, --declared_unit and --declared_leads say it for all of them" in said
    assert re.search(r"the first: \S*text\.dcm", said)


def test_one_clipped_sample_is_counted_in_the_singular():
    said = {number: build_command._quality_lines({"quality": {}, "clipped_samples": number}) for number in (1, 2000)}
    assert said[1] == ["  doubtful            none (1 sample clipped)"]
    assert said[2000] == ["  doubtful            none (2,000 samples clipped)"]
