"""Parts of a visit to an accelerator: what becomes of one that hangs, crashes or lacks something."""

import functools
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.benchmarks.device import visit, whole_run
from ecgjax.benchmarks.device.convolution_forms import FORMS, LAYERS, channels_first, layer
from ecgjax.benchmarks.device.part_process import NEEDS
from ecgjax.benchmarks.device.part_report import PartReport
from ecgjax.benchmarks.device.parts import PARTS, Part, measure_of
from ecgjax.errors import ConfigError
from tests.ecgjax.benchmarks.known_parts import CHILD


def run(folder, behaviour, *, limit_s=300.0, needs=(), rehearse=False):
    (folder / "behaviour").write_text(behaviour)
    part = Part(words="what is known", limit_s=limit_s, module="tests.ecgjax.benchmarks.known_parts", needs=needs)
    (found,) = visit.measure({"known": part}, folder, rehearse=rehearse)["parts"].values()
    written = json.loads((folder / "known.json").read_text())
    assert {key: written[key] for key in found} == found
    assert json.loads((folder / "summary.json").read_text())["parts"] == {"known": found}
    return written


def test_reports_are_on_the_disk_after_every_measurement(tmp_path):
    report = PartReport(tmp_path / "part.json", {"part": "p"})
    seen = [json.loads((tmp_path / "part.json").read_text())]
    report.add("one", {"value": 1})
    seen.append(json.loads((tmp_path / "part.json").read_text()))
    report.attempt("two", lambda: {"value": [][0]})
    seen.append(json.loads((tmp_path / "part.json").read_text()))
    assert [each["state"] for each in seen] == ["running"] * 3
    assert [list(each["measurements"]) for each in seen] == [[], ["one"], ["one", "two"]]
    assert seen[2]["measurements"]["two"]["error"].startswith("IndexError")
    report.end("done")
    assert json.loads((tmp_path / "part.json").read_text())["state"] == "done"
    assert [path.name for path in tmp_path.iterdir()] == ["part.json"]


def test_a_part_that_is_done_and_one_that_is_skipped(tmp_path):
    done = run(tmp_path, "finish", rehearse=True)
    assert done["state"] == "done"
    assert done["limit_s"] == 1200
    assert done["rehearsal"] is done["measurements"]["before"]["rehearse"] is True
    assert done["measurements"]["error"]["error"].startswith("ZeroDivisionError")
    assert done["measurements"]["after"]["value"] == 1
    assert done["surroundings"]["platform"] == "cpu"
    skipped = run(tmp_path, "finish", needs=("accelerator",))
    assert skipped["state"] == "skipped"
    assert "no accelerator" in skipped["reason"]
    assert not skipped["measurements"]


@pytest.mark.slow
@pytest.mark.soak
def test_a_part_that_hangs_costs_its_limit_and_leaves_what_it_measured_and_no_process(tmp_path):
    found = run(tmp_path, "hang", limit_s=40)
    assert found["state"] == "out of time"
    assert "40 s" in found["reason"]
    assert 40 <= found["seconds"] < 60
    assert list(found["measurements"]) == ["before", "error"]
    child = int((tmp_path / CHILD).read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.1)
    assert not _runs(child)


def _runs(process):
    try:
        os.kill(process, 0)
        # A process that nobody has waited for yet is a zombie, which does no work.
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("behaviour", "said"), [("crash", "status -6"), ("raise", "the device has gone")])
def test_a_part_that_fails_leaves_what_it_measured_and_says_why(tmp_path, behaviour, said):
    found = run(tmp_path, behaviour)
    assert found["state"] == "failed"
    assert said in found["reason"]
    assert list(found["measurements"]) == ["before", "error"]


def test_every_part_can_be_measured_within_three_minutes():
    assert all(
        callable(measure_of(part)) and part.limit_s <= 180 and {*part.needs} <= {*NEEDS} for part in PARTS.values()
    )
    first, second = (sum(PARTS[name].limit_s for name in names) for names in (tuple(PARTS)[:3], tuple(PARTS)[3:]))
    assert first <= 8 * 60
    assert second <= 4 * 60


def test_parts_are_chosen_by_name_in_the_order_given():
    assert list(visit.chosen_parts([])) == list(PARTS)
    assert list(visit.chosen_parts(["run", "smoke"])) == ["run", "smoke"]
    for names, said in ((["smok"], "smoke"), (["run", "run"], "twice")):
        with pytest.raises(ConfigError, match=said):
            visit.chosen_parts(names)


def test_a_run_shows_as_many_recordings_as_it_says(tmp_path):
    words = whole_run.commands(tmp_path, rehearse=False)["pretrain"]
    assert "--config.batch_size=256" in words
    assert "--config.duration.value=1024" in words
    assert 256 * 1024 == 262_144


@pytest.mark.parametrize("name", LAYERS)
def test_all_forms_of_a_convolution_compute_the_same(name):
    product = layer(name, 2)
    rng = np.random.default_rng(0)
    shapes = (2, product.length, product.width_in), (product.kernel, product.width_in, product.width)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    found = [jax.jit(functools.partial(form, product))(x, kernel) for form in (*FORMS.values(), channels_first)]
    assert found[0].shape == (2, -(-product.length // product.stride), product.width)
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], rtol=0, atol=1e-4 * np.abs(found[0]).max())
