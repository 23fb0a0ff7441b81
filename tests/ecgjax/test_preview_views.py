"""The earlier name of the command goes on working for one version."""

import subprocess
import sys

import pytest


def run(module, *arguments):
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)


# Wrong lines of both names are told without an interpreter for each, by tests/project/wrong_lines_of_pretraining.py.
@pytest.mark.slow
def test_the_earlier_name_does_the_same_and_names_the_new_one(tmp_path):
    (tmp_path / "file").write_text("")
    earlier, now = (run(f"ecgjax.{name}", f"--out={tmp_path / 'file'}") for name in ("augmentations", "preview_views"))
    assert now.returncode == earlier.returncode == 2
    file = tmp_path / "file"
    assert now.stderr == f"error: --out={file}: {file} exists and is not a directory; name another\n"
    told = "python -m ecgjax.augmentations is now called python -m ecgjax.preview_views\n"
    assert earlier.stderr == told + now.stderr
