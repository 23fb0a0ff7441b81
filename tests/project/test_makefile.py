"""What `make` lists fits a terminal."""

import shutil
import subprocess

import pytest

from tests.golden.commands import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_list_of_targets_fits_80_columns():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(line.startswith("quickstart") for line in listed)
    assert max(map(len, listed)) <= 80
