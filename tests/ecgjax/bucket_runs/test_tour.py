"""Every flag that names a place either takes addresses in buckets or refuses them, and the documentation says which."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.buckets.finished_folders import COMPLETE
from data_pipelines.buckets.remote_folder import RemoteFolder
from data_pipelines.prepared.dataset import CARD_FILE
from data_pipelines.system.digests import DIGESTS_FILE
from ecgjax.bucket_runs import workdirs
from tests.ecgjax.bucket_runs.tour import TOUR
from tests.golden.commands import ROOT
from tests.project.wrong_lines import LINES
from tests.support import object_stores
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run

FOLDS = {"data__train_folds": (1, 2, 3, 4, 5), "data__val_folds": (6, 7), "data__test_folds": (8, 9, 10)}

#: Flags whose help speaks of files or folders, and which name none; leaves of configs have their own sections.
NAME_NO_PLACE = {
    "array", "beam", "builder", "declared_leads", "declared_orientation", "declared_rate_hz", "declared_unit", "extend",
    "folds", "formats", "markdown", "max_records", "missing_ids", "mount", "name", "names", "overwrite",
    "patient_field", "patient_namespace", "rate_hz", "same_patient", "sex_coding", "statistics", "volume",
}  # fmt: skip


def table():
    """Returns flags by command, `(those that take addresses, those that do not)`, as the documentation has them."""
    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    section = text.partition("### Which flags take addresses\n")[2].partition("\n### ")[0]
    found = {}
    for row in re.findall(r"^\| `([\w.]+)` \|(.*)\|(.*)\|$", section, flags=re.MULTILINE):
        command, *cells = row
        taken, refused = (re.findall(r"`--([\w.]+)`", cell) for cell in cells)
        assert command not in found
        found[command] = (set(taken), set(refused))
    return found


def test_the_table_has_every_flag_that_names_a_place():
    helps = json.loads((ROOT / "tests" / "golden" / "answers" / "helps.json").read_text(encoding="utf-8"))
    named = {}
    for command, told in helps.items():
        flags = {
            flag
            for flag, words in told["flags"].items()
            if flag == "config"
            or re.search(r"folder|director|file|table|data set|\burl\b|what python -m", str(words), re.IGNORECASE)
        }
        if flags := flags - NAME_NO_PLACE:
            named[command.replace("ecgjax.augmentations", "ecgjax.preview_views")] = flags
    leaves = re.compile(r"config\.")
    listed = {
        command: {flag for flag in (*taken, *refused) if not leaves.match(flag)}
        for command, (taken, refused) in table().items()
    }
    assert {command: flags for command, flags in listed.items() if flags} == named
    for taken, refused in table().values():
        assert not taken & refused


def test_every_flag_that_takes_addresses_is_part_of_the_tour_and_every_other_one_refuses_one():
    toured = {
        (command, argument.partition("=")[0].removeprefix("--"))
        for command, arguments in TOUR
        for argument in arguments
        if "={bucket}/" in argument
    }
    assert toured == {(command, flag) for command, (taken, _) in table().items() for flag in taken}
    refusing = {
        (command, flag)
        for command, lines in LINES.items()
        for line in lines
        for flag in re.findall(r"--([\w.]+)=\w+://[\w./]+(?: |$)", " ".join(line.arguments))
        if any("://" in told or flag in told for told in line.told)
    }
    assert {(command, flag) for command, (_, refused) in table().items() for flag in refused} <= refusing


@pytest.mark.slow
@pytest.mark.soak
def test_every_command_reads_from_a_bucket_and_writes_to_one(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "cache"))
    data = make_simulated_dataset(tmp_path / "data", num_patients=80, rate=50, seconds=4).directory
    real = Path(shutil.copytree(data, tmp_path / "real"))
    (real / CARD_FILE).write_text((data / CARD_FILE).read_text().replace('"simulated": true', '"simulated": false'))
    (real / DIGESTS_FILE).unlink()
    run = write_run(tmp_path / "run", tiny(data, **FOLDS))
    with object_stores.store("gs") as bucket:
        object_stores.put(data, f"{bucket}/data")
        object_stores.put(real, f"{bucket}/real")
        with workdirs.kept(f"{bucket}/run") as folder:
            shutil.copytree(run, folder, dirs_exist_ok=True)
        line = [sys.executable, "-m", "tests.ecgjax.bucket_runs.tour", bucket, str(tmp_path)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stdout + done.stderr
        for out in ("built", "drawn", "realism", "views", "time", "model", "report", "efficiency", "crossed", "index"):
            assert COMPLETE in RemoteFolder(f"{bucket}/{out}").names(), out
        assert done.stdout.count("status 0") == len(TOUR)
        for workdir, file in (("pretrained", "checkpoints/2/"), ("tuned", "results.json")):
            assert any(name.startswith(file) for name in RemoteFolder(f"{bucket}/{workdir}").names())
