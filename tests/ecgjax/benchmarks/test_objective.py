"""The benchmark of objectives runs and reports; nothing here depends on how fast this machine is."""

import json

import pytest

from data_pipelines.benchmarks import harness
from ecgjax.benchmarks import objective


def test_every_form_is_compiled_and_timed(monkeypatch):
    monkeypatch.setattr(objective, "ROWS", (64, 256))
    monkeypatch.setattr(harness, "REPEATS", 1)
    report = json.loads(json.dumps(objective.measure(most_rows=128, most_timed=64)))
    assert report["num_devices"] == 8
    for loss in ("nt_xent", "semi_hard_triplet"):
        (found,) = report[loss]
        assert found["rows"] == 64
        for form in ("dense", "gathered", "ring"):
            assert found[form]["mib_a_device"] > 0
            assert found[form]["ms"] > 0
            share = found[form]["ms"] / found["dense"]["ms"]
            assert found[form]["share_of_dense_time"] == pytest.approx(share, rel=0.2)


def test_dense_is_left_out_where_it_would_not_fit():
    assert objective._fits("dense", 1024)
    assert not objective._fits("dense", 2**20)
    assert objective._fits("ring", 2**20)
