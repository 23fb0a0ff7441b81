"""The environment that `make install` makes."""

import os
import subprocess
import sys

from data_pipelines.version import __version__


def test_python_started_beside_a_folder_of_the_package_s_name_finds_the_package(tmp_path):
    # A clone lies in such a folder, and people keep their scripts beside it.
    (tmp_path / "ecgjax").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "import ecgjax; print(ecgjax.__version__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (__version__, "")
