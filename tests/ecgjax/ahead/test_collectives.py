"""Collective operations are read from programs: hand-written ones, and those that XLA makes of loops and branches."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from ecgjax.ahead.collective_table import rows_of
from ecgjax.ahead.collectives import collectives_in
from ecgjax.placement import slices
from ecgjax.training import device_mesh

AXES = {"data": 4, "model": 2}

#: A program as XLA writes it for TPUs: a loop of five rounds whose counter begins at 0, in it an operation that runs
#: beside others and is written three times, and a branch.
OF_A_TPU = """HloModule jit_step, is_scheduled=true, num_partitions=8

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%begin (p: f32[2,8]) -> (f32[2,8], f32[8,8]) {
  %p = f32[2,8]{1,0} parameter(0)
  %all-gather.1 = f32[8,8]{1,0:T(8)} all-gather(%p), replica_groups=[2,4]<=[4,2]T(1,0), metadata={op_name="gather"}
  ROOT %t = (f32[2,8]{1,0}, f32[8,8]{1,0}) tuple(%p, %all-gather.1)
}

%async_collective_fusion.7 (q: f32[2,8]) -> f32[8,8] {
  %q = f32[2,8]{1,0} parameter(0)
  ROOT %all-gather.2 = f32[8,8]{1,0} all-gather(%q), replica_groups=[2,4]<=[4,2]T(1,0)
}

%end (r: f32[2,8]) -> f32[8,8] {
  %r = f32[2,8]{1,0} parameter(0)
  ROOT %all-gather.3 = f32[8,8]{1,0} all-gather(%r), replica_groups=[2,4]<=[4,2]T(1,0)
}

%condition (c: (s32[], f32[2,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %c = (s32[]{:T(128)}, f32[2,8]{1,0}) parameter(0)
  %counter = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %compare.57 = pred[]{:T(512)} compare(%counter, %limit), direction=LT, backend_config={"lists":[]}
}

%body (d: (s32[], f32[2,8])) -> (s32[], f32[2,8]) {
  %d = (s32[], f32[2,8]{1,0}) parameter(0)
  %x = f32[2,8]{1,0} get-tuple-element(%d), index=1
  %async-collective-start = (f32[2,8]{1,0}, f32[8,8]{1,0}, /*index=2*/u32[]{:S(2)}) fusion(%x), calls=%begin
  %fusion.9 = f32[8,8]{1,0} fusion(%x), kind=kOutput, calls=%async_collective_fusion.7
  %async-collective-done = f32[8,8]{1,0} fusion(%x), kind=kCustom, calls=%end
  %n = s32[] get-tuple-element(%d), index=0
  ROOT %u = (s32[], f32[2,8]{1,0}) tuple(%n, %x)
}

%seldom (e: f32[3]) -> f32[3] {
  %e = f32[3]{0} parameter(0)
  ROOT %all-reduce.4 = f32[3]{0} all-reduce(%e), replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, to_apply=%sum
}

%never (f: f32[3]) -> f32[3] {
  ROOT %f = f32[3]{0} parameter(0)
}

ENTRY %main (g: f32[2,8], h: f32[3], i: pred[]) -> f32[3] {
  %g = f32[2,8]{1,0} parameter(0)
  %h = f32[3]{0} parameter(1)
  %i = pred[] parameter(2)
  %zero = s32[] constant(0)
  %copy.1 = s32[] copy(%zero)
  %tuple.3 = (s32[], f32[2,8]{1,0}) tuple(%copy.1, %g)
  %while.28 = (s32[], f32[2,8]) while(%tuple.3), condition=%condition, body=%body
  %conditional.1 = f32[3]{0} conditional(%i, %h, %h), true_computation=%seldom, false_computation=%never
  %all-reduce.9 = (bf16[100]{0}, f32[]{:T(128)}) all-reduce(%h, %h), replica_groups={}, to_apply=%sum
  ROOT %reduce-scatter.2 = f32[4]{0} reduce-scatter(%h), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%sum
}
"""


def test_a_program_for_tpus_is_read():
    gather, branch, everyone, scatter = collectives_in(OF_A_TPU)
    assert (gather.kind, gather.arrays, gather.times, gather.repeated) == ("all-gather", ("f32[8,8]",), 5, True)
    assert (gather.axes(AXES), gather.bytes_once, gather.place) == (("data",), 256, "gather")
    assert (branch.kind, branch.axes(AXES), branch.times, branch.conditional) == ("all-reduce", ("model",), 1, True)
    assert (everyone.axes(AXES), everyone.bytes_once, everyone.types) == (("data", "model"), 204, {"bf16", "f32"})
    assert (scatter.kind, scatter.axes(AXES), scatter.bytes_once, scatter.repeated) == (
        "reduce-scatter", ("data",), 64, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "times"),
    [
        ("constant(5)", "constant(12)", 12),
        ("%zero = s32[] constant(0)", "%zero = s32[] constant(1)", 4),
        ("%limit = s32[]{:T(128)} constant(5)", "%limit = s32[]{:T(128)} get-tuple-element(%c), index=0", None),
        ("%copy.1 = s32[] copy(%zero)", "%copy.1 = s32[] negate(%zero)", None),
        ("direction=LT", "direction=GT", None),
        ("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}', 7),
    ],
)  # fmt: skip
def test_rounds_are_those_of_a_loop_that_counts_and_unknown_elsewhere(before, after, times):
    assert before in OF_A_TPU
    gather = collectives_in(OF_A_TPU.replace(before, after))[0]
    assert (gather.times, gather.repeated) == (times, True)


@pytest.mark.parametrize("text", ["", "no program", OF_A_TPU.replace("ENTRY ", "")])
def test_what_is_no_program_is_refused(text):
    with pytest.raises(ValueError, match="no text of a program"):
        collectives_in(text)


def test_groups_written_in_an_unknown_way_are_refused():
    with pytest.raises(ValueError, match="no known way"):
        collectives_in(OF_A_TPU.replace("replica_groups={}", "replica_groups=everyone"))


def test_operations_that_hosts_carry_between_slices_are_read():
    of_hosts = (
        "%recv.1 = (f32[2,16]{{1,0:T(8,128)}}, u32[], token[]) recv(%a), is_host_transfer=true, frontend_attributes={{"
        '_xla_megascale_target="{{1,2}}x{{0:3}}",_xla_megascale_transfer_type="{kind}"}}'
    )
    for kind, size in (("ALL_REDUCE", 128), ("ALL_GATHER", 128), ("REDUCE_SCATTER", 256)):
        text = OF_A_TPU.replace("%x = f32", f"{of_hosts.format(kind=kind)}\n  %x = f32")
        found = collectives_in(text)[0]
        assert (found.kind, found.arrays, found.times) == (kind.lower().replace("_", "-"), ("f32[2,16]",), 5)
        assert found.groups == ((0, 4), (1, 5), (2, 6), (3, 7))
        assert found.bytes_once == size
        assert found.joins([0, 0, 0, 0, 1, 1, 1, 1])
    assert len(collectives_in(text)) == len(collectives_in(OF_A_TPU)) + 1
    # What a host is sent for another reason is none.
    assert len(collectives_in(text.replace("_xla_megascale_target", "other"))) == len(collectives_in(OF_A_TPU))


def program(function, *, model, out):
    mesh = device_mesh.make_mesh(model=model)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=out, check_vma=False)
    rows = jax.ShapeDtypeStruct((32, 6), jnp.float32, sharding=device_mesh.batch_sharding(mesh))
    return jax.jit(mapped).lower(rows).compile().as_text(), mesh


def test_a_compiled_scan_counts_in_every_round():
    def sums(x):
        def body(carry, factor):
            return carry + jax.lax.psum(carry * factor, "data"), None

        return jax.lax.scan(body, x, jnp.arange(3, dtype=jnp.float32))[0]

    text, mesh = program(sums, model=2, out=PartitionSpec("data"))
    (found,) = collectives_in(text)
    assert (found.kind, found.times, found.repeated, found.axes(mesh.shape)) == ("all-reduce", 3, True, ("data",))
    (row,) = rows_of([found], mesh)
    assert row.bytes_a_step == 3 * 4 * (32 // 4) * 6
    assert (row.operations, row.times, row.kind.axis, row.kind.small) == (1, 3, "data", True)


def test_a_compiled_branch_is_not_in_every_step():
    def some(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: jax.lax.psum(x, "model"), lambda x: x, x)

    text, mesh = program(some, model=2, out=PartitionSpec("data"))
    (found,) = collectives_in(text)
    assert (found.conditional, found.axes(mesh.shape)) == (True, ("model",))


def test_operations_between_slices_are_told(monkeypatch):
    monkeypatch.setattr(slices, "slice_of", lambda device: device.id // 4)
    monkeypatch.setattr("ecgjax.ahead.collective_table.slice_of", lambda device: device.id // 4)
    text, mesh = program(lambda x: jax.lax.psum(x, "data"), model=1, out=PartitionSpec())
    (row,) = rows_of(collectives_in(text), mesh)
    assert row.kind.axis == "data, between slices"
    text, mesh = program(lambda x: jax.lax.psum(x, "model"), model=2, out=PartitionSpec("data"))
    (row,) = rows_of(collectives_in(text), mesh)
    assert row.kind.axis == "model", "devices of one slice share a row"
