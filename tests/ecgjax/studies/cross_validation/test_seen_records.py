"""Records that an encoder was pretrained on."""

import dataclasses
import functools
import re

import numpy as np
import pytest

from ecgjax import cross_validate as entry
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.leakage.trained_on import RECORDS_FILE, open_pretraining_records


def test_records_that_an_encoder_has_seen(runs, leaking_set):
    whole = entry.open_whole(str(leaking_set.directory), links="")
    assert len(whole.split.train) == 49
    with pytest.raises(ConfigError, match=r"one: 1 of the 49 .* 1 equal recording \('leak' .*--overlaps=drop"):
        entry.keep_apart(runs, whole, overlaps="refuse")
    dropped, cautions = entry.keep_apart(runs, whole, overlaps="drop")
    assert len(dropped.split.train) == 48
    assert "leak" not in dropped.index.record_id[dropped.split.train]
    assert any("they are left out for all models" in caution for caution in cautions)
    marked, cautions = entry.keep_apart(runs, whole, overlaps="mark")
    assert len(marked.split.train) == 49
    assert sum("1 of the 49" in caution for caution in cautions) == 2, "each run is named"
    unlisted = [dataclasses.replace(runs[0], encoder=dataclasses.replace(runs[0].encoder, trained_on=None))]
    assert "is not listed" in entry.keep_apart(unlisted, whole, overlaps="refuse")[1][0]


@pytest.mark.parametrize("damaged", [False, True], ids=["lost", "damaged"])
def test_a_list_that_cannot_be_read_is_said_where_overlaps_are_marked(runs, leaking_set, tmp_path, damaged):
    whole = entry.open_whole(str(leaking_set.directory), links="")
    if damaged:
        (tmp_path / RECORDS_FILE).write_bytes(b"no list")
    listed = functools.partial(open_pretraining_records, tmp_path, run="f00d", digest=None)
    lost = dataclasses.replace(runs[0], encoder=dataclasses.replace(runs[0].encoder, trained_on=listed))
    words = "is damaged" if damaged else "is missing"
    for overlaps in ("refuse", "drop"):
        with pytest.raises(CheckpointError, match=words):
            entry.keep_apart([lost, runs[1]], whole, overlaps=overlaps)
    marked, cautions = entry.keep_apart([lost, runs[1]], whole, overlaps="mark")
    np.testing.assert_array_equal(marked.split.train, whole.split.train)
    (said,) = [caution for caution in cautions if "one" in caution.split()]
    assert re.match(r"Whether records here were pretrained on by one is not known: ", said)
    assert words in said
    assert any(caution.startswith("two: 1 of the 49") for caution in cautions), "the other run is still looked at"
