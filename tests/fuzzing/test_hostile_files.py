"""Files made to exhaust memory or to reach other files are refused, in little memory and without opening any other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzzing import hostile_files

#: Above what the process held before; the least that was taken before by any of the bombs is a gigabyte.
MOST_MIB = 400


@pytest.fixture(scope="module")
def read():
    command = [sys.executable, "-m", "tests.fuzzing.hostile_files"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_hostile_file_is_refused(read):
    assert {Path(name).parent.name for name in read} == {make.__name__ for make in hostile_files.MAKERS}
    assert {name: reason for name, (reason, *_) in read.items() if reason == "read"} == {}


def test_little_memory_is_taken_by_files_that_unpack_to_gigabytes(read):
    assert {name: mib for name, (_, mib, *_) in read.items() if mib > MOST_MIB} == {}


def test_no_reader_opens_any_file_but_its_own(read):
    assert {name: others for name, (_, _, others, _) in read.items() if others} == {}
