"""What a dry run says: lines for a terminal, and a row of the table in docs/scaling.md."""

from __future__ import annotations

import datetime
import math

import jax

from ecgjax.ahead.collective_table import SMALL, Row, rows_of
from ecgjax.ahead.dry_run import DryRun
from ecgjax.ahead.topologies import libtpu_version
from ecgjax.training.device_mesh import AXES

#: Columns of the table in docs/scaling.md.
COLUMNS = (
    "encoder",
    "devices",
    "layout",
    "batch a chip",
    "state MB a chip",
    "peak GB a chip",
    "GFLOP a chip (trace; compiler)",
    "GB moved (compiler)",
    "collectives a step: runs, MB",
    "small ones",
    "processor s",
    "libtpu",
    "date",
)


def lines_of(result: DryRun) -> list[str]:
    """Returns the lines that a dry run prints."""
    run, program, settings, topology = result.run, result.program, result.settings, result.request.topology
    mesh, memory = run.mesh, program.memory
    a_chip = settings.batch_size / mesh.shape["data"]
    by_axis = " × ".join(f"{axis} {mesh.shape[axis]}" for axis in AXES)
    rows = rows_of(program.collectives, mesh)
    return [
        f"dry run on {topology.title}: {mesh.size} × {mesh.devices.flat[0].device_kind}, {by_axis}; nothing was run",
        *(_simulated() if topology.is_simulated else []),
        *(_without_data(result) if result.data.stand_in else []),
        f"{settings.encoder.name} in {settings.encoder.precision}: {run.parameters:,} parameters; batch "
        f"{settings.batch_size:,}, {a_chip:g} recordings a chip",
        f"state: {_mb(run.state_bytes)} MB, {_mb(run.state_bytes_a_chip)} MB on a chip "
        f"(config.mesh.sharding={settings.mesh.sharding})",
        f"memory of a chip: {_mb(memory.peak)} MB at most; arguments {_mb(memory.arguments)} MB, temporary "
        f"{_mb(memory.temporary)} MB",
        f"FLOP a chip and step: {_giga(run.flops_a_chip)} G that the model asks for, loops counted; the compiler "
        f"counts {_giga(program.compiler_flops)} G, a loop's body once",
        f"bytes a chip and step: {_giga(program.compiler_bytes)} G by the compiler's count, a loop's body once",
        *_table(rows),
        f"compiled in {program.processor_s:.0f} s of processor time by {_compiler(result)}",
    ]


def markdown_row(result: DryRun, *, date: datetime.date) -> str:
    """Returns a dry run as a row of the table in docs/scaling.md.

    Args:
        result: Dry run.
        date: Day on which it was made.
    """
    run, program, settings = result.run, result.program, result.settings
    always = [row for row in rows_of(program.collectives, run.mesh) if not row.kind.conditional]
    small = [row for row in always if row.kind.small]
    cells = (
        str(settings.encoder.name),
        result.request.topology.title,
        settings.mesh.sharding,
        f"{settings.batch_size / run.mesh.shape['data']:g}",
        _mb(run.state_bytes_a_chip),
        f"{program.memory.peak / 1e9:.2f}",
        f"{_giga(run.flops_a_chip)}; {_giga(program.compiler_flops)}",
        _giga(program.compiler_bytes),
        "; ".join(_summed(kind, axis, always) for kind, axis in dict.fromkeys(row.kind[:2] for row in always)),
        _runs(small),
        f"{program.processor_s:.0f}",
        libtpu_version() if not result.request.topology.is_simulated else "none: simulated",
        date.isoformat(),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _summed(kind: str, axis: str, rows: list[Row]) -> str:
    own = [row for row in rows if row.kind[:2] == (kind, axis)]
    where = "" if axis == AXES[0] else f" ({axis})"
    if any(row.bytes_a_step is None for row in own):
        return f"{kind}{where} ?"
    return f"{kind}{where} {_runs(own)}, {_mb(sum(row.bytes_a_step or 0 for row in own))}"


def _runs(rows: list[Row]) -> str:
    return "?" if any(row.times is None for row in rows) else f"{sum(row.times or 0 for row in rows):,}"


def _simulated() -> list[str]:
    return [
        "SIMULATED: parts of this machine's CPU stand for the devices; program, memory and collectives are those of "
        "XLA's CPU compiler, and not an accelerator's"
    ]


def _without_data(result: DryRun) -> list[str]:
    of = result.data.signal_format
    return [
        f"no data were read: recordings of {of.seconds:g} s at {of.sampling_rate_hz} Hz stand for them "
        "(--seconds, --rate_hz)"
    ]


def _table(rows: list[Row]) -> list[str]:
    if not rows:
        return ["collective operations: none"]
    return [
        "collective operations of a step, with the bytes of the whole arrays (loops counted):",
        f"  {'operation':<20} {'axis':<22} {'types':<10} {'runs':>7} {'MB a step':>10}",
        *map(_line, rows),
    ]


def _line(row: Row) -> str:
    kind = row.kind
    times = "?" if row.times is None else f"{row.times:,}"
    amount = "?" if row.bytes_a_step is None else _mb(row.bytes_a_step)
    remarks = [f"each ≤ {SMALL:,} numbers"] * kind.small + ["not in every step"] * kind.conditional
    words = f"  ({', '.join(remarks)})" if remarks else ""
    return f"  {kind.name:<20} {kind.axis:<22} {kind.types:<10} {times:>7} {amount:>10}{words}"


def _compiler(result: DryRun) -> str:
    own = f"JAX {jax.__version__}"
    return own if result.request.topology.is_simulated else f"libtpu {libtpu_version()} with {own}"


def _mb(size: float) -> str:
    return "<0.01" if 0 < size < 1e4 else _figures(size / 1e6)


def _giga(count: float | None) -> str:
    return "?" if count is None else _figures(count / 1e9)


def _figures(value: float) -> str:
    """Returns a number with three significant digits, and all digits before its point."""
    if not value:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
