import os
import subprocess
import sys

import pytest

from ecgjax.system.process_age import process_age_s


def test_a_new_process_is_young():
    code = "from ecgjax.system.process_age import process_age_s; print(process_age_s())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 60


def test_the_age_is_the_uptime_without_that_of_the_start(tmp_path):
    fields = ["S", *["0"] * 18, str(250 * os.sysconf("SC_CLK_TCK")), "0"]
    (tmp_path / "stat").write_text(f"7 (a b) c) {' '.join(fields)}\n")
    (tmp_path / "uptime").write_text("300.25 9.0\n")
    assert process_age_s(tmp_path / "stat", tmp_path / "uptime") == 50.25


@pytest.mark.parametrize("text", [None, "", "7 (python) S 1", "7 (python) S " + "x " * 30])
def test_where_the_system_does_not_say_it_is_zero(tmp_path, text):
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert process_age_s(tmp_path / "stat", tmp_path / "stat") == 0
