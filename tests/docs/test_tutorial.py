"""docs/tutorial.md: its figures are drawn from its numbers, and its commands run one after the other."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest

from data_pipelines.prepared.dataset import Dataset
from data_pipelines.records import STANDARD_LEADS
from data_pipelines.signals.lead_algebra import twelve_leads
from tests.docs.blocks import ROOT, fenced_blocks
from tests.docs.scripts import PICTURES, picture_script
from tests.golden.commands import environment
from tests.support.fixtures import make_simulated_dataset, stored_examples, write_wfdb

PAGE = ROOT / "docs" / "tutorial.md"

#: What makes a command of the page as short as a test should be, by a word of it.
SHORTER = {
    "ecgjax.pretrain": "--config.duration.value=4 --config.batch_size=16 "
    "--config.encoder.widths=4,8 --config.pictures=0",
    "ecgjax.evaluate": "--config.probe.supervised.steps=4",
    "ecgjax.label_efficiency": "--fractions=.5,1 --seeds=1",
}


@pytest.fixture(scope="module")
def script():
    """The script that draws the figures."""
    return picture_script("tutorial")


@pytest.mark.parametrize("name", ["tutorial_loss.svg", "tutorial_few_labels.svg"])
def test_a_figure_is_what_the_script_draws_today(script, name):
    drawn = script.PICTURES[name](json.loads(script.NUMBERS.read_text(encoding="utf-8")))
    assert drawn == (PICTURES / name).read_text(encoding="utf-8"), "run python docs/pictures/tutorial.py"
    xml.etree.ElementTree.fromstring(drawn)
    assert f"pictures/{name})" in PAGE.read_text(encoding="utf-8")


def test_the_numbers_are_those_of_models_and_not_of_recordings(script):
    numbers = json.loads(script.NUMBERS.read_text(encoding="utf-8"))
    assert numbers.keys() == {"commands", "loss", "few_labels"}
    assert all(row.keys() == set(script._KEPT) for row in numbers["few_labels"])
    assert len(script.NUMBERS.read_bytes()) < 2**15


def test_the_page_shows_the_numbers_that_the_figures_show(script):
    numbers, text = json.loads(script.NUMBERS.read_text(encoding="utf-8")), PAGE.read_text(encoding="utf-8")
    for row in numbers["few_labels"]:
        number = f"{row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        # A title may go on in the next line of the table.
        begin = " ".join(script.TITLES[row["model"]].split()[:3])
        shown = begin, f"{100 * row['fraction']:g} %  ", number
        assert any(all(part in line for part in shown) for line in text.splitlines()), shown


def write_ptbxl(folder, dataset: Dataset):
    """Writes simulated recordings in PTB-XL's layout, with NORM for those whose LVEF is at least the median."""
    lines = ["ecg_id,patient_id,age,sex,report,scp_codes,strat_fold,filename_lr,filename_hr"]
    index = dataset.index
    lvef = index.scalars["lvef"]
    normal = lvef >= np.nanmedian(lvef)
    for number, example in enumerate(stored_examples(dataset.directory)):
        path, code = f"records500/00000/{number + 1:05d}_hr", "NORM" if normal[number] else "IMI"
        signal = twelve_leads(np.asarray(example["signal"])[None].astype(np.float64) / 1000)[0]
        write_wfdb(folder / "records500" / "00000", path.rpartition("/")[2], signal, leads=STANDARD_LEADS)
        patient = int(index.patient[number]) + 1
        line = f'{number + 1},{patient}.0,{40 + patient % 40}.0,{patient % 2},"made up","{{\'{code}\': 100.0}}"'
        lines.append(f"{line},{patient % 10 + 1},{path},{path}")
    (folder / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    head = ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass"
    rows = ["NORM,normal,1.0,,,NORM,NORM", "IMI,infarction,1.0,,,MI,IMI"]
    (folder / "scp_statements.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_the_commands_of_the_page_run_one_after_the_other(script, tmp_path):
    write_ptbxl(tmp_path / "ptbxl", make_simulated_dataset(tmp_path / "simulated", num_patients=100, rate=500))
    given = {**environment(), "ECGJAX_CACHE": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    for block in fenced_blocks(PAGE):
        if block.mark is None or block.mark.kind != "run":
            continue
        if block.language == "python":
            lines = [[sys.executable, "-c", block.code]]
        else:
            whole = [line for line in block.code.replace("\\\n", " ").splitlines() if line.startswith("python -m ")]
            lines = [[sys.executable, "-m", *line.split()[2:], *shorter(line)] for line in whole]
        for line in lines:
            done = subprocess.run(line, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block}: {line[1:]}\n{done.stderr}"
    numbers = script.collect(tmp_path)
    assert all(script.PICTURES[name](numbers).startswith("<svg") for name in script.PICTURES)


def shorter(line):
    return next((flags.split() for word, flags in SHORTER.items() if word in line), [])
