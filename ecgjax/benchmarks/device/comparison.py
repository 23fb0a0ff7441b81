"""A training step of this library and of PyTorch in turns, with the rates of the products that both are made of."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ecgjax.benchmarks.device.sides import RemoteSide, SideError, side_in_a_process
from ecgjax.benchmarks.paired_steps import PairedStep, Product, Spent

#: Share of all FLOP below which a product is not timed alone.
LEAST_SHARE = 0.002

#: Seconds that one timing of a product should take at least, and the most runs in it.
_LEAST_S, _MOST_RUNS = 0.02, 50

#: Repetitions of each product.
_OF_PRODUCTS = 5

#: Names of a product's times by the clock and of the processor.
_CLOCKS = ("ms", "processor_ms")


def compare(
    step: PairedStep,
    *,
    sides: Sequence[str],
    rounds: int,
    steps: int,
    by_product: bool,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Times a step in the frameworks in turns.

    In every second round they take their turns in reverse. A side that fails is told and left out.

    Args:
        step: Training step.
        sides: Names of the sides, ours first.
        rounds: Number of rounds.
        steps: Steps of each turn.
        by_product: Whether the products are timed alone too, between the two halves of the rounds.
        environment: Variables of the sides' environment beside those of this process.

    Returns:
        Values for JSON: what each side is, `step_ms`, the median of each; `ratio_to_…`, the median over the rounds of
        our time to theirs, with its quartiles; FLOP/s; and the products (`_products`).
    """
    told: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        ready: dict[str, RemoteSide] = {}
        for name in sides:
            side = stack.enter_context(side_in_a_process(name, environment=environment or {}))
            try:
                told[name] = side.prepare(step)
                side.steps(1)
                ready[name] = side
            except SideError as error:
                told[name] = {"error": str(error)}
        listed = told.get("jax", {}).pop("products", [])
        times: dict[str, list[Spent]] = {name: [] for name in ready}
        products: dict[str, Any] = {}
        for half in (rounds - rounds // 2, rounds // 2):
            _take_turns(ready, half, lambda side: side.steps(steps).of_each(steps), times)
            if by_product and not products:
                products = _products([Product(**each) for each in listed], ready)
        for name, side in ready.items():
            told[name] |= {"memory": side.memory()}
    medians = {name: _median(values) for name, values in times.items()}
    flops = told.get("jax", {}).get("flops_per_step")
    return {
        "encoder": step.encoder,
        "batch": step.batch,
        "leads": step.num_leads,
        "samples": step.num_samples,
        "precision": step.precision,
        "sides": told,
        "rounds": rounds,
        "steps_a_round": steps,
        "step_ms": {name: 1e3 * time.wall for name, time in medians.items()},
        "step_processor_ms": {name: 1e3 * time.processor for name, time in medians.items()},
        "ecgs_per_sec": {name: step.batch / time.wall for name, time in medians.items()},
        "flops_per_sec": {name: flops / time.wall for name, time in medians.items()} if flops else None,
        **_ratios(times),
        **_beside(products, medians),
        "seconds": {name: [time.wall for time in values] for name, values in times.items()},
    }


def _median(times: Sequence[Spent]) -> Spent:
    return Spent(statistics.median(each.wall for each in times), statistics.median(each.processor for each in times))


def _take_turns(
    sides: Mapping[str, RemoteSide],
    rounds: int,
    timing: Callable[[RemoteSide], Spent],
    times: Mapping[str, list[Spent]],
) -> None:
    """Appends the time of every round to those of each side."""
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            times[name].append(timing(sides[name]))


def _ratios(times: Mapping[str, Sequence[Spent]]) -> dict[str, Any]:
    """Returns the medians and quartiles over the rounds of our time to that of each other side."""
    ours = times.get("jax")
    found: dict[str, Any] = {}
    for name, theirs in times.items():
        if ours and name != "jax":
            for clock in Spent._fields:
                pairs = [getattr(own, clock) / getattr(other, clock) for own, other in zip(ours, theirs, strict=True)]
                quartiles = statistics.quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else pairs * 3
                key = f"ratio_to_{name}" if clock == "wall" else f"{clock}_ratio_to_{name}"
                found |= {key: quartiles[1], f"{key}_quartiles": [quartiles[0], quartiles[2]]}
    return found


def _products(products: Sequence[Product], sides: Mapping[str, RemoteSide]) -> dict[str, Any]:
    """Times every product and its gradients alone, the sides in turns.

    Compiled PyTorch is left out, whose products are those of plain PyTorch.

    Returns:
        Values for JSON: `products`, the most expensive of ours first, each with its times in the step, the
        milliseconds of all these times and the FLOP/s of each side; and the sums over the step.
    """
    taking_part = {name: side for name, side in sides.items() if name != "torch_compiled"}
    total = sum(product.flops * product.times * len(product.roles) for product in products)
    lines: list[dict[str, Any]] = []
    counted = 0.0
    for product in products:
        of_all = product.flops * product.times
        if of_all * len(product.roles) < LEAST_SHARE * total:
            continue
        for role in product.roles:
            times = _one(product, role, taking_part)
            counted += of_all
            lines.append(
                {
                    "product": product.name,
                    "part": role,
                    "times": product.times,
                    "gflop": of_all / 1e9,
                    "ms": {name: 1e3 * time.wall * product.times for name, time in times.items()},
                    "processor_ms": {name: 1e3 * time.processor * product.times for name, time in times.items()},
                    "gflops_per_sec": {name: product.flops / time.wall / 1e9 for name, time in times.items()},
                }
            )
    sums = {key: {name: sum(line[key][name] for line in lines) for name in taking_part} for key in _CLOCKS}
    return {
        "products_ms": sums["ms"],
        "products_processor_ms": sums["processor_ms"],
        "products_gflops_per_sec": {name: counted / value / 1e6 for name, value in sums["ms"].items()},
        "products_left_out_of_flops": 1 - counted / total,
        "products": sorted(lines, key=lambda line: -line["ms"]["jax"]),
    }


def _one(product: Product, role: str, sides: Mapping[str, RemoteSide]) -> dict[str, Spent]:
    """Returns the median time of one run of a product on each side."""
    for side in sides.values():
        side.product(product, role, 1)  # The first run compiles, or chooses a kernel.
    slowest = max(side.product(product, role, 1).wall for side in sides.values())
    runs = min(max(round(_LEAST_S / slowest), 1), _MOST_RUNS)
    times: dict[str, list[Spent]] = {name: [] for name in sides}
    _take_turns(sides, _OF_PRODUCTS, lambda side: side.product(product, role, runs).of_each(runs), times)
    return {name: _median(values) for name, values in times.items()}


def _beside(products: dict[str, Any], medians: Mapping[str, Spent]) -> dict[str, Any]:
    """Returns the products with the share of each side's step that its own products alone account for."""
    if not products:
        return {}
    by_wall, by_processor = (products[f"products_{key}"] for key in _CLOCKS)
    return {
        # At 1 the step takes no longer than its products: it reaches the products' own rate.
        "of_product_rate": {name: value / medians[name].wall / 1e3 for name, value in by_wall.items()},
        "processor_of_product_rate": {
            name: value / medians[name].processor / 1e3 for name, value in by_processor.items()
        },
        "beside_products_ms": {name: 1e3 * medians[name].wall - value for name, value in by_wall.items()},
        **products,
    }
