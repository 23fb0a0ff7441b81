"""The table of docs/scaling.md has the columns that a dry run prints, and says when and by what it was made."""

import datetime
import re
from pathlib import Path

from ecgjax.ahead.report import COLUMNS
from ecgjax.encoders import ENCODERS
from ecgjax.placement.presets import PRESETS
from ecgjax.placement.tpu_shapes import num_chips

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"


def test_rows_of_the_page_are_those_of_dry_runs():
    _, table, _ = PAGE.read_text(encoding="utf-8").split("<!-- compiled -->")
    head, _, *rows = (line.strip("| ").split(" | ") for line in table.strip().splitlines())
    assert tuple(head) == COLUMNS
    assert len(rows) >= 3
    for row in rows:
        cells = dict(zip(COLUMNS, row, strict=True))
        assert cells["encoder"] in ENCODERS
        assert num_chips(cells["devices"].rpartition(" × ")[2], flag="") > 1
        assert cells["layout"] in PRESETS
        assert 0 < float(cells["peak GB a chip"]) < 15.75, "it fits in a v5e"
        assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", cells["libtpu"])
        assert datetime.date.fromisoformat(cells["date"]) > datetime.date(2026, 1, 1)
        assert float(cells["processor s"].replace(",", "")) > 1
