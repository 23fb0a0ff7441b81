"""Ceilings of encoders on accelerators, computed from their traced training steps; nothing is measured.

A pass over memory (`memory_traffic`) takes the longer of its FLOP at the chip's peak and its bytes at the memory's
bandwidth; passes, and the collective operations of several chips, take place one after the other. Beside the chips
stand the hosts that feed them, which work at the same time.

The collective operations of a step on n chips, of which d share fast links and h = n / d domains are joined by the data
centre's network: B bytes are added up in 2(d − 1)/d · B at the links' bandwidth and 2(h − 1)/h · B/d at the network's
(rings in both). They are the gradients once, the embeddings once (gathered forwards, and their gradients scattered
backwards, a half each), and for each batch norm two operations of a few hundred bytes, which take twice as many hops
as the farthest chip is away.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from data_pipelines.records import SignalFormat
from ecgjax.benchmarks.traced_encoders import WORKLOADS, TracedStep, traced_step
from ecgjax.errors import ConfigError, check_each_once
from ecgjax.training.devices import CHIPS, Chip, Network

#: ECGs a second that a core delivers of records of `_MEASURED_BYTES`: half of what two cores (AMD EPYC, a virtual
#: machine of 24 GiB) read of single records from a packed store in the page cache (docs/speed.md).
MEASURED_ECGS_PER_CORE = 107_700 / 2
_MEASURED_CORES, _MEASURED_BYTES = 2, 40_000

#: Sizes of data sets whose hours are told.
DATASETS = {"1m": 10**6, "100m": 10**8}

_TEN_SECONDS = SignalFormat(sampling_rate_hz=250, num_samples=2500)

#: Share of a chip's memory that a step may take: what JAX allocates of a GPU's by default.
_MEMORY_SHARE = 0.75

#: Names of the chips of which memory and network are known.
KNOWN_CHIPS = tuple(name for name, chip in CHIPS.items() if chip.network is not None)

_NOTE = (
    "Computed from traces and data sheets; nothing was measured on any accelerator. ECGs/s and MFU are what the model "
    "of memory_traffic.py allows at most, hours what it allows at least."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RooflineSettings:
    """What is asked of the roofline.

    Attributes:
        encoders: Names of encoders, keys of `WORKLOADS`.
        chips: Names of chips, of `KNOWN_CHIPS`.
        chip_counts: Numbers of chips that train together.
        chip_batch: Recordings of each chip's step; None for the published batch, halved until it fits in the memory.
        global_batch: Recordings of the step of all chips; None where each chip's batch is given.
        epochs: Number of times that the data set is passed through.
        prices: Prices of an hour of a chip, by the chip's name, in any currency.
        ecgs_per_core: ECGs a second that a host's core delivers.
        cores_per_host: Cores of a host.
        signal_format: Rate and length of the stored recordings.
    """

    encoders: Sequence[str] = tuple(WORKLOADS)
    chips: Sequence[str] = KNOWN_CHIPS
    chip_counts: Sequence[int] = (1, 8, 64, 512)
    chip_batch: int | None = None
    global_batch: int | None = None
    epochs: int = 1
    prices: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ecgs_per_core: float = MEASURED_ECGS_PER_CORE
    cores_per_host: int = 100
    signal_format: SignalFormat = _TEN_SECONDS

    def __post_init__(self) -> None:
        check_each_once(self.encoders, WORKLOADS, setting="--encoders")
        check_each_once(self.chips, KNOWN_CHIPS, setting="--chips")
        if self.chip_batch is not None and self.global_batch is not None:
            raise ConfigError("--chip_batch and --global_batch exclude each other; give one of them")
        for count in self.chip_counts:
            if self.global_batch is not None and self.global_batch % count:
                raise ConfigError(
                    f"--global_batch={self.global_batch} cannot be divided among {count} chips; give a multiple of "
                    "every number in --chip_counts"
                )

    @property
    def record_bytes(self) -> int:
        """Bytes of a stored recording, int16."""
        return 2 * math.prod(self.signal_format.shape)

    @property
    def host_ecgs_per_sec(self) -> float:
        """ECGs a second that a host delivers, in proportion to its cores and to the bytes of a recording."""
        return self.cores_per_host * self.ecgs_per_core * _MEASURED_BYTES / self.record_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Seconds of a step of one chip, without the network.

    Attributes:
        products_s: Seconds of the passes that the peak limits.
        memory_s: Seconds of the passes that the memory limits.
        overlapped_s: Seconds of the step if all products ran at the same time as all traffic.
    """

    products_s: float
    memory_s: float
    overlapped_s: float

    @property
    def seconds(self) -> float:
        """Seconds of all passes, one after the other."""
        return self.products_s + self.memory_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collectives:
    """Seconds of a step's collective operations."""

    gradients_s: float
    statistics_s: float
    embeddings_s: float

    @property
    def seconds(self) -> float:
        """Seconds of all of them, one after the other."""
        return self.gradients_s + self.statistics_s + self.embeddings_s


def compute(settings: RooflineSettings) -> dict[str, Any]:
    """Returns the ceilings of every encoder on every chip, and of every number of them, as values for JSON."""
    return {
        "measured": False,
        "note": _NOTE,
        "jax": jax.__version__,
        "sampling_rate_hz": settings.signal_format.sampling_rate_hz,
        "samples": settings.signal_format.num_samples,
        "epochs": settings.epochs,
        "host": {
            "cores": settings.cores_per_host,
            "ecgs_per_sec_per_core": settings.ecgs_per_core,
            "ecgs_per_sec": settings.host_ecgs_per_sec,
            "note": _host_note(settings),
        },
        "dataset_bytes": {name: number * settings.record_bytes for name, number in DATASETS.items()},
        "encoders": [
            {
                "encoder": name,
                "recipe": WORKLOADS[name].recipe,
                "published_batch": WORKLOADS[name].batch,
                "chips": [_on_chip(name, chip, settings) for chip in settings.chips],
            }
            for name in settings.encoders
        ],
    }


def step_on(step: TracedStep, chip: Chip, network: Network) -> Step:
    """Returns the seconds of a traced step on a chip."""
    products = memory = 0.0
    for each in step.traffic.passes:
        at_peak, moving = each.flops / chip.peak_bf16_flops, each.bytes / network.memory_bandwidth
        if at_peak > moving:
            products += each.rounds * at_peak
        else:
            memory += each.rounds * moving
    overlapped = max(step.traffic.flops / chip.peak_bf16_flops, step.traffic.bytes / network.memory_bandwidth)
    return Step(products_s=products, memory_s=memory, overlapped_s=overlapped)


def collectives(step: TracedStep, network: Network, chips: int) -> Collectives:
    """Returns the seconds of a step's collective operations on a number of chips."""
    if chips == 1:
        return Collectives(gradients_s=0.0, statistics_s=0.0, embeddings_s=0.0)
    latency = _latency(network, chips)
    return Collectives(
        gradients_s=latency + _ring_s(step.gradient_bytes, network, chips),
        statistics_s=2 * step.norms * latency,
        embeddings_s=latency + _ring_s(chips * step.batch * step.embedding_bytes, network, chips),
    )


def _ring_s(size: float, network: Network, chips: int) -> float:
    """Returns the seconds that bytes take to be added up over all chips, without latencies."""
    inside = min(chips, network.domain)
    domains = math.ceil(chips / inside)
    near = 2 * (inside - 1) / inside * size / network.link_bandwidth
    return near + 2 * (domains - 1) / domains * size / inside / network.far_bandwidth


def _latency(network: Network, chips: int) -> float:
    """Returns the seconds of adding up a few bytes: there and back over links, and over a tree of domains."""
    inside = min(chips, network.domain)
    # On each axis of a torus a chip is at most half a ring away; NCCL chains the GPUs at a switch.
    axes = network.torus_axes
    near = axes * inside ** (1 / axes) / 2 if axes else inside - 1.0
    far = math.ceil(math.log2(math.ceil(chips / inside)))
    return network.start_latency_s + 2 * (near * network.link_latency_s + far * network.far_latency_s)


def _on_chip(name: str, chip_name: str, settings: RooflineSettings) -> dict[str, Any]:
    chip, network = _known(chip_name)
    batches = {count: _batch(name, network, count, settings) for count in settings.chip_counts}
    traced = {count: _traced(name, batch, settings) for count, batch in batches.items()}
    first = traced[settings.chip_counts[0]]
    alone = step_on(first, chip, network)
    at_peak = first.model_flops / chip.peak_bf16_flops
    return {
        "chip": chip_name,
        "batch": first.batch,
        "gflop_per_ecg": first.model_flops / first.batch / 1e9,
        "flop_per_byte": first.traffic.flops / first.traffic.bytes,
        "step_ms": 1e3 * alone.seconds,
        "mfu_ceiling": at_peak / alone.seconds,
        "mfu_if_all_overlapped": at_peak / alone.overlapped_s,
        "ecgs_per_sec": first.batch / alone.seconds,
        "memory_bytes": first.traffic.peak_bytes,
        "fits": first.traffic.peak_bytes <= _MEMORY_SHARE * network.memory_bytes,
        "sizes": [_of_size(traced[count], chip_name, count, settings) for count in settings.chip_counts],
    }


def _known(name: str) -> tuple[Chip, Network]:
    chip = CHIPS[name]
    if chip.network is None:
        raise ConfigError(
            f"--chips={name!r}: its memory and network are not known; there are: {', '.join(KNOWN_CHIPS)}"
        )
    return chip, chip.network


def _traced(name: str, batch: int, settings: RooflineSettings) -> TracedStep:
    return traced_step(name, batch=batch, signal_format=settings.signal_format)


def _batch(name: str, network: Network, count: int, settings: RooflineSettings) -> int:
    """Returns the recordings of a chip's step."""
    if settings.global_batch is not None:
        return settings.global_batch // count
    if settings.chip_batch is not None:
        return settings.chip_batch
    batch = WORKLOADS[name].batch
    while batch > 1 and _traced(name, batch, settings).traffic.peak_bytes > _MEMORY_SHARE * network.memory_bytes:
        batch //= 2
    return batch


def _of_size(step: TracedStep, chip_name: str, count: int, settings: RooflineSettings) -> dict[str, Any]:
    chip, network = _known(chip_name)
    alone, joint = step_on(step, chip, network), collectives(step, network, count)
    of_chips = count * step.batch / (alone.seconds + joint.seconds)
    hosts = math.ceil(count / network.chips_per_host)
    of_hosts = hosts * settings.host_ecgs_per_sec
    rate = min(of_chips, of_hosts)
    terms = {"products": alone.products_s, "memory": alone.memory_s, "collectives": joint.seconds}
    hours = {name: settings.epochs * number / rate / 3600 for name, number in DATASETS.items()}
    price = settings.prices.get(chip_name)
    return {
        "chips": count,
        "batch": count * step.batch,
        "ecgs_per_sec": rate,
        "limit": "input" if of_hosts < of_chips else max(terms, key=lambda name: terms[name]),
        "chips_ecgs_per_sec": of_chips,
        "hosts_ecgs_per_sec": of_hosts,
        **{f"{name}_ms": 1e3 * seconds for name, seconds in terms.items()},
        **{f"{name.removesuffix('_s')}_ms": 1e3 * value for name, value in dataclasses.asdict(joint).items()},
        "host_needed_ecgs_per_sec": of_chips / hosts,
        "host_needed_bytes_per_sec": of_chips / hosts * settings.record_bytes,
        "host_needed_cores": of_chips / hosts / (settings.host_ecgs_per_sec / settings.cores_per_host),
        "storage_bytes_per_sec": rate * settings.record_bytes,
        "hours": hours,
        "cost": None if price is None else {name: value * count * price for name, value in hours.items()},
    }


def _host_note(settings: RooflineSettings) -> str:
    source = "was given"
    if settings.ecgs_per_core == MEASURED_ECGS_PER_CORE:
        source = f"was measured on a virtual machine of {_MEASURED_CORES} cores (AMD EPYC), packed store, page cache"
    if settings.cores_per_host == _MEASURED_CORES:
        return f"The rate of a core {source}."
    return f"The rate of a core {source}; that {settings.cores_per_host} cores give as much each is an extrapolation."
