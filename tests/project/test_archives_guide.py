"""The tests that docs/archives.md names are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_table_names_is_there():
    named = re.findall(r"`([\w/]+/test_\w+)::(test_\w+)`", (ROOT / "docs/archives.md").read_text(encoding="utf-8"))
    assert len(named) > 100
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / f"tests/{file}.py").read_text(encoding="utf-8")
    ]
    assert not missing
