"""A dry run: the program that a run compiles, without its arrays or data, and what is said of it."""

import dataclasses
import datetime
import functools

import jax
import numpy as np
import pytest

from configs import physioclr
from data_pipelines.records import SignalFormat
from ecgjax import defaults
from ecgjax.ahead import abstract_run as abstract
from ecgjax.ahead import compiled_program
from ecgjax.ahead.collective_table import Kind, rows_of
from ecgjax.ahead.dry_run import DryRunRequest, dry_run
from ecgjax.ahead.kept_programs import kept_file
from ecgjax.ahead.report import COLUMNS, lines_of, markdown_row
from ecgjax.ahead.stand_in import shapes_of_data
from ecgjax.ahead.topologies import Topology
from ecgjax.errors import ConfigError
from ecgjax.training import device_mesh, run
from ecgjax.training.compilation.compiled_step import trace_step
from tests.support import tiny_config

FORMAT = SignalFormat(sampling_rate_hz=100, num_samples=400)
REQUEST = DryRunRequest(topology=Topology(name="cpu:4"), simulated_format=FORMAT)


def settings(module=tiny_config, **changed):
    config = module.get_config(*(["small"] if module is not tiny_config else []))
    config.update_from_flattened_dict(changed)
    return defaults.settings_of(config)


@functools.cache
def tiny(sharding="replicated"):
    return dry_run(settings(batch_size=16, **{"mesh.sharding": sharding, "mesh.fsdp_min_mb": 0.0}), REQUEST)


@pytest.fixture(autouse=True)
def _types_may_mix():
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power.
        yield


class StopError(Exception):
    """Ends a run where it would compile, with the text of its program."""


def lowered_by_a_run(chosen, *, mesh, monkeypatch):
    """The text of the program that a run would compile."""

    def lower(step, state, batch, *, shardings, everywhere, nan_checks):
        assert not nan_checks
        raise StopError(trace_step(step, state, batch, shardings=shardings, everywhere=everywhere).lower().as_text())

    with monkeypatch.context() as patch:
        patch.setattr(run, "compile_step", lower)
        with pytest.raises(StopError) as stopped:
            run.prepare_run(chosen, mesh=mesh)
    return str(stopped.value)


def test_a_dry_run_compiles_the_program_of_the_run(stored_dataset, monkeypatch):
    changed = {"mesh.sharding": "fsdp", "mesh.fsdp_min_mb": 0.0, "optimizer.ema_decay": 0.9}
    changed |= {"second.objective.name": "nt_xent", "second.relation.name": "same_patient"}
    chosen = settings(**{"data.dir": str(stored_dataset[0].directory), **changed})
    mesh = device_mesh.make_mesh()
    text = lowered_by_a_run(chosen, mesh=mesh, monkeypatch=monkeypatch)
    data = shapes_of_data(chosen, simulated_format=FORMAT)
    assert not data.stand_in
    assert abstract.abstract_run(chosen, data, mesh).traced.lower().as_text() == text
    # The length of the schedule, a constant of the program, does not depend on the data here: it is given in steps.
    without = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, dir=""))
    data = shapes_of_data(without, simulated_format=stored_dataset[0].format)
    assert data.stand_in
    assert abstract.abstract_run(without, data, mesh).traced.lower().as_text() == text


def test_no_array_of_the_run_is_made(monkeypatch):
    chosen = settings(physioclr)
    data = shapes_of_data(chosen, simulated_format=SignalFormat(sampling_rate_hz=250, num_samples=2500))
    assert data.columns["physiology"].shape[1] == chosen.columns.components
    before = {id(array) for array in jax.live_arrays()}
    made = abstract.abstract_run(chosen, data, device_mesh.make_mesh())
    new = [array for array in jax.live_arrays() if id(array) not in before]
    assert sum(array.nbytes for array in new) < 1e5 < made.state_bytes


def test_parameters_memory_flops_and_collectives_are_told():
    result = tiny()
    lines = lines_of(result)
    text = "\n".join(lines)
    for words in (
        "dry run on cpu:4: 4 × cpu, data 4 × model 1; nothing was run",
        "SIMULATED",
        "no data were read: recordings of 4 s at 100 Hz",
        "1,808 parameters; batch 16, 4 recordings a chip",
        "all-reduce           data",
        "of processor time by JAX",
    ):
        assert words in text
    assert result.run.flops_a_chip * 4 == pytest.approx(dry_run_flops(batch=16), rel=1e-3), (
        "a chip has a quarter of the step's products"
    )
    assert result.program.memory.peak >= result.program.memory.arguments > result.run.state_bytes_a_chip
    cells = markdown_row(result, date=datetime.date(2026, 1, 2)).strip("| ").split(" | ")
    assert len(cells) == len(COLUMNS)
    assert (cells[:4], cells[-1]) == (["resnet18", "cpu:4", "replicated", "4"], "2026-01-02")


def dry_run_flops(*, batch):
    data = shapes_of_data(settings(batch_size=batch), simulated_format=FORMAT)
    one = device_mesh.make_mesh(devices=jax.devices()[:1])
    return abstract.abstract_run(settings(batch_size=batch), data, one).flops_a_chip


@pytest.mark.slow
def test_divided_parameters_are_gathered_and_take_less_of_a_chip():
    whole, divided = tiny(), tiny("fsdp")
    assert divided.run.state_bytes == whole.run.state_bytes
    assert divided.run.state_bytes_a_chip < 0.5 * whole.run.state_bytes_a_chip == 0.5 * whole.run.state_bytes
    gathers = [
        sum(row.times for row in rows_of(each.program.collectives, each.run.mesh) if row.kind.name == "all-gather")
        for each in (whole, divided)
    ]
    assert gathers[1] > gathers[0]


def test_small_operations_and_those_of_branches_are_apart():
    kinds = [row.kind for row in rows_of(tiny().program.collectives, tiny().run.mesh)]
    assert kinds == sorted(kinds, key=lambda kind: kind.conditional)
    assert len(set(kinds)) == len(kinds)
    assert any(kind.conditional for kind in kinds), "the metrics of logged steps"
    assert Kind("all-reduce", "data", "f32", small=True, conditional=False) in kinds


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 18}, "config.batch_size=18 does not divide over the 4 devices"),
        ({"mesh.model": 3}, "config.mesh.model=3 does not divide the 4 devices of slice 0"),
        ({"encoder.name": "resnet81"}, "config.encoder.name='resnet81' is unknown"),
        ({"debug.nan_checks": True}, "config.debug.nan_checks=True makes another program"),
        ({"objective.name": "clip"}, "another modality, whose width only its embeddings tell"),
        ({"mesh.rules": ("nowhere=data",)}, "config.mesh.rules"),
    ],
)
def test_what_cannot_run_is_refused_as_by_a_run(changed, message):
    with pytest.raises(ConfigError, match=message):
        dry_run(settings(**{"batch_size": 16, **changed}), REQUEST)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used "
            "31.25G of 15.75G hbm. Exceeded hbm capacity by 15.50G.\n\nTotal hbm usage >= 31.5G",
            "a step needs 31.25GiB of memory on a chip, and 2 × v5e:4x4 has 15.75GiB: lower config.batch_size",
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (3.64T) "
            "exceeds available HBM (15.75G).",
            "a step needs 3.64TiB of memory on a chip, and 2 × v5e:4x4 has 15.75GiB",
        ),
        (
            "RESOURCE_EXHAUSTED: no\nwords",
            r"more memory than a chip of 2 × v5e:4x4 has \(RESOURCE_EXHAUSTED: no words\)",
        ),
    ],
)
def test_a_step_that_does_not_fit_is_told_in_a_sentence(words, told):
    class Program:
        def compile(self):
            raise jax.errors.JaxRuntimeError(words)

    with pytest.raises(ConfigError, match=told):
        compiled_program.compile_ahead(Program(), what="2 × v5e:4x4")


def test_other_faults_of_the_compiler_are_faults():
    class Program:
        def compile(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: a fault")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compiled_program.compile_ahead(Program(), what="v5e:4x4")


def test_labels_and_columns_of_no_data_have_the_types_of_those_of_data(stored_dataset):
    changed = {"relation.name": "same_demographics", "objective.name": "sup_con"}
    chosen = settings(**changed, **{"data.dir": str(stored_dataset[0].directory)})
    with_data = shapes_of_data(chosen, simulated_format=FORMAT).columns
    without = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, dir=""))
    columns = shapes_of_data(without, simulated_format=FORMAT).columns
    assert {name: (values.dtype, values.shape[1:]) for name, values in columns.items()} == {
        name: (np.asarray(values).dtype, values.shape[1:]) for name, values in with_data.items()
    }
    assert columns, "there are columns to compare"


def test_what_the_compiler_said_is_kept_and_not_asked_again(tmp_path, monkeypatch, capsys):
    chosen = settings(batch_size=16, compile_cache=str(tmp_path / "kept"))
    program = tiny().program
    asked = []
    monkeypatch.setattr("ecgjax.ahead.dry_run.abstract_run", lambda settings, data, mesh: tiny().run)
    monkeypatch.setattr("ecgjax.ahead.dry_run.compile_ahead", lambda lowered, *, what: asked.append(what) or program)
    assert dry_run(chosen, REQUEST).program == program
    assert dry_run(chosen, REQUEST).program == program
    assert asked == ["cpu:4"]
    (file,) = (tmp_path / "kept").iterdir()
    # A damaged file is told and compiled again.
    file.write_text(file.read_text()[:100])
    assert dry_run(chosen, REQUEST).program == program
    assert f"{file} is damaged" in capsys.readouterr().err
    assert asked == ["cpu:4"] * 2


def test_other_programs_devices_and_compilers_are_kept_apart(monkeypatch, tmp_path):
    folder = str(tmp_path)

    def lowered(factor):
        return jax.jit(lambda x: factor * x).lower(jax.ShapeDtypeStruct((3,), np.float32))

    one = kept_file(folder, lowered(2), "v5e:4x4")
    assert one == kept_file(folder, lowered(2), "v5e:4x4")
    files = {one, kept_file(folder, lowered(3), "v5e:4x4"), kept_file(folder, lowered(2), "v5e:4x8")}
    monkeypatch.setattr("ecgjax.ahead.kept_programs.libtpu_version", lambda: "0.0.99")
    assert len(files | {kept_file(folder, lowered(2), "v5e:4x4")}) == 4
    assert kept_file("auto", lowered(2), "v5e:4x4") is kept_file("", lowered(2), "v5e:4x4") is None
