"""The benchmark of searching runs and reports; nothing here depends on how fast this machine is."""

import json

import pytest

from data_pipelines.benchmarks import harness
from ecgjax.benchmarks import search


def test_an_index_is_built_and_its_queries_are_timed_beside_a_product(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "REPEATS", 1)
    monkeypatch.setattr(search, "_ROWS_AT_ONCE", 300)
    report = json.loads(json.dumps(search.measure(tmp_path, num_rows=1000, dimension=8, num_queries=4)))
    assert report["rows"] == 1000
    assert report["embeddings_bytes"] == 128 + 1000 * 8 * 2
    ratio = report["queries_per_sec"] / report["product_queries_per_sec"]
    assert report["of_product"] == pytest.approx(ratio, abs=1e-3)
    assert report["one_query_ms"] > 0
