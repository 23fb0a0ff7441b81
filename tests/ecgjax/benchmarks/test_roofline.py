"""The roofline against arithmetic by hand, the recipes, and the tables of docs/scaling.md."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import pytest

from ecgjax import defaults, encoders
from ecgjax.benchmarks import roofline, roofline_request, roofline_tables
from ecgjax.benchmarks.memory_traffic import Pass, Traffic
from ecgjax.benchmarks.roofline import RooflineSettings, collectives, step_on
from ecgjax.benchmarks.traced_encoders import WORKLOADS, TracedStep, traced_step
from ecgjax.config import recipes
from ecgjax.errors import ConfigError
from ecgjax.training.devices import CHIPS

PAGE = Path(__file__).parents[3] / "docs" / "scaling.md"

#: Release of JAX whose traces the tables of the page come from.
PAGE_S_JAX = "0.10.2"

STEP = TracedStep(
    batch=16,
    model_flops=3e12,
    traffic=Traffic((Pass(1e12, 1e9, 3), Pass(0.0, 1e10)), peak_bytes=1e9),
    gradient_bytes=1e8,
    norms=20,
    embedding_bytes=1024.0,
)


@functools.cache
def quick(prices=(), **changed):
    return roofline.compute(RooflineSettings(encoders=("vit_b", "clocs_cnn"), prices=dict(prices), **changed))


def of(figures, encoder, chip):
    (found,) = (each for each in figures["encoders"] if each["encoder"] == encoder)
    return next(each for each in found["chips"] if each["chip"] == chip)


def test_each_pass_takes_the_longer_of_its_two_times():
    chip = CHIPS["h100"]
    found = step_on(STEP, chip, chip.network)
    assert found.products_s == pytest.approx(3e12 / 989e12)
    assert found.memory_s == pytest.approx(1e10 / 3.35e12)
    assert found.seconds == pytest.approx(3e12 / 989e12 + 1e10 / 3.35e12)
    assert found.overlapped_s == pytest.approx(max(3e12 / 989e12, 1.3e10 / 3.35e12))


def test_collectives_of_eight_and_of_sixteen_gpus():
    network = CHIPS["h100"].network
    eight = collectives(STEP, network, 8)
    latency = 4.4e-6 + 2 * 7 * 0.52e-6
    assert eight.gradients_s == pytest.approx(latency + 2 * 7 / 8 * 1e8 / 450e9)
    assert eight.statistics_s == pytest.approx(40 * latency)
    assert eight.embeddings_s == pytest.approx(latency + 2 * 7 / 8 * 8 * 16 * 1024 / 450e9)
    sixteen = collectives(STEP, network, 16)
    # Each GPU of a host sends an eighth of the gradients to the other host.
    assert sixteen.gradients_s == pytest.approx(latency + 1e-5 + 1.75e8 / 450e9 + 1e8 / 8 / 50e9)
    assert sixteen.statistics_s == pytest.approx(40 * (latency + 1e-5))


def test_a_torus_is_crossed_by_half_its_sides():
    assert collectives(STEP, CHIPS["v5e"].network, 64).statistics_s == pytest.approx(40 * 2 * (4 + 4) * 1e-6)


@pytest.mark.parametrize("name", roofline.KNOWN_CHIPS)
def test_more_chips_never_take_less_time_together(name):
    network = CHIPS[name].network
    counts = [1, 2, 4, 8, 16, 64, 256, 512, 1024, 4096, 8192]
    for part in ("gradients_s", "statistics_s", "embeddings_s", "seconds"):
        times = [getattr(collectives(STEP, network, count), part) for count in counts]
        assert times[0] == 0
        assert times == sorted(times)
    assert network.memory_bandwidth > network.link_bandwidth > network.far_bandwidth


def test_figures_are_strict_json_and_fit_each_other():
    figures = json.loads(json.dumps(quick(), allow_nan=False))
    assert figures["measured"] is False
    assert "nothing was measured" in figures["note"]
    assert "extrapolation" in figures["host"]["note"]
    assert "AMD EPYC" in figures["host"]["note"]
    assert figures["host"]["ecgs_per_sec"] == 100 * 53_850
    assert figures["dataset_bytes"] == {"1m": 40 * 10**9, "100m": 4 * 10**12}
    chip = of(figures, "vit_b", "h100")
    assert 0 < chip["mfu_ceiling"] < chip["mfu_if_all_overlapped"] <= 1
    assert chip["ecgs_per_sec"] * chip["gflop_per_ecg"] * 1e9 == pytest.approx(chip["mfu_ceiling"] * 989e12)
    one, eight, *_ = chip["sizes"]
    assert one["ecgs_per_sec"] == chip["ecgs_per_sec"]
    assert eight["hours"]["100m"] == pytest.approx(1e8 / eight["ecgs_per_sec"] / 3600)
    assert eight["host_needed_bytes_per_sec"] == pytest.approx(eight["ecgs_per_sec"] * 40_000)
    assert eight["batch"] == 8 * chip["batch"]
    assert of(figures, "clocs_cnn", "h100")["sizes"][-1]["limit"] == "collectives"


def test_slow_hosts_limit_and_hours_and_costs_follow():
    figures = quick(cores_per_host=2, ecgs_per_core=100.0, epochs=3, prices=(("h100", 2.0),), chips=("h100", "v5e"))
    size = of(figures, "vit_b", "h100")["sizes"][1]
    assert (size["limit"], size["ecgs_per_sec"]) == ("input", 200)
    assert size["hours"]["1m"] == pytest.approx(3 * 1e6 / 200 / 3600)
    assert size["cost"]["1m"] == pytest.approx(8 * 2.0 * size["hours"]["1m"])
    assert of(figures, "vit_b", "v5e")["sizes"][1]["cost"] is None
    assert figures["host"]["note"] == "The rate of a core was given."


def test_a_global_batch_is_divided_and_a_chip_s_is_not():
    settings = {"encoders": ("clocs_cnn",), "chips": ("h100",), "chip_counts": (1, 8)}
    divided = roofline.compute(RooflineSettings(**settings, global_batch=64))
    fixed = roofline.compute(RooflineSettings(**settings, chip_batch=64))
    assert [size["batch"] for size in of(divided, "clocs_cnn", "h100")["sizes"]] == [64, 64]
    assert [size["batch"] for size in of(fixed, "clocs_cnn", "h100")["sizes"]] == [64, 512]


def test_a_published_batch_is_halved_until_it_fits(monkeypatch):
    network = dataclasses.replace(CHIPS["v5e"].network, memory_bytes=0.1e9)
    monkeypatch.setattr(roofline, "CHIPS", {"v5e": dataclasses.replace(CHIPS["v5e"], network=network)})
    settings = RooflineSettings(encoders=("clocs_cnn",), chips=("v5e",), chip_counts=(1,))
    chip = of(roofline.compute(settings), "clocs_cnn", "v5e")
    assert chip["fits"]
    assert WORKLOADS["clocs_cnn"].batch / chip["batch"] in (2, 4, 8)
    larger = traced_step("clocs_cnn", batch=2 * chip["batch"], signal_format=settings.signal_format)
    assert larger.traffic.peak_bytes > 0.75 * 0.1e9 >= chip["memory_bytes"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"encoders": ("resnet19",)}, "resnet18"),
        ({"encoders": ("vit_b", "vit_b")}, "twice"),
        ({"chips": ("a100",)}, "h100"),
        ({"global_batch": 100}, "8 chips"),
        ({"global_batch": 512, "chip_batch": 1}, "exclude"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_traced(wrong, told):
    with pytest.raises(ConfigError, match=told):
        RooflineSettings(**wrong)


def test_prices_and_numbers_of_chips():
    assert roofline_request.prices(["h100=2.5", "v5e=1"], ("h100", "v5e")) == {"h100": 2.5, "v5e": 1.0}
    assert roofline_request.prices(["3"], ("h100", "v5e")) == {"h100": 3.0, "v5e": 3.0}
    assert roofline_request.prices([], ("h100",)) == {}
    assert roofline_request.chip_counts(["8", "1", "8"]) == [1, 8]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_a_workload_is_its_recipe_s(name):
    workload = WORKLOADS[name]
    settings = defaults.settings_of(recipes.load_recipe(workload.recipe))
    assert workload.batch == settings.batch_size
    assert workload.signals == settings.views.segments * settings.views.num
    crop = settings.augment["random_crop"]
    part = crop["ratio"] if crop["enabled"] else 1 / settings.views.segments
    assert workload.share == pytest.approx(part)
    assert workload.num_leads == settings.encoder.num_leads
    assert workload.settings["embedding_dim"] == settings.encoder.embedding_dim
    if not name.startswith(("lead_resnet", "vit", "xresnet")):
        assert name == settings.encoder.name
        assert {**workload.settings, "embedding_dim": None} == {**settings.encoder.arguments, "embedding_dim": None}


def test_every_published_encoder_has_a_workload():
    assert set(WORKLOADS) == {name for name in encoders.ENCODERS if ":" not in name}


def test_the_terminal_s_tables_fit_eighty_columns():
    text = roofline_tables.terminal(quick(prices=(("h100", 123456.0),)))
    assert max(map(len, text.splitlines())) <= 80
    assert "vit_b" in text
    assert "cost/1M" in text


def rows(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def differing(figures):
    page = set(rows(PAGE.read_text(encoding="utf-8")))
    return [row for row in rows(roofline_tables.markdown(figures)) if row not in page]


of_the_page = pytest.mark.skipif(
    jax.__version__ != PAGE_S_JAX, reason=f"the page's tables are those of traces by JAX {PAGE_S_JAX}"
)


@of_the_page
def test_the_page_has_what_the_command_prints_today():
    assert not differing(quick())


@of_the_page
@pytest.mark.slow
def test_the_whole_page_has_what_the_command_prints_today():
    figures = roofline.compute(RooflineSettings())
    assert not differing(figures)
    assert len(rows(roofline_tables.markdown(figures))) == sum(
        line.startswith("|") for line in PAGE.read_text(encoding="utf-8").split("<!-- tables -->")[1].splitlines()
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0.00123, "0.0012"), (0.5, "0.50"), (9.996, "10.0"), (999.6, "1.00k"), (123_456, "123k")]
)
def test_numbers_have_three_digits(value, text):
    assert roofline_tables._short(value) == text
