"""NT-Xent over the nearest negatives against brute force in float64; its forms against the dense one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.objectives.losses.hardest_nt_xent import hardest_nt_xent
from ecgjax.objectives.losses.nt_xent import nt_xent
from ecgjax.objectives.pairs.relations import same_patient, same_record
from ecgjax.objectives.pairs.tiles import Tiling
from tests.support.objective_cases import (
    CASES,
    EMBEDDINGS,
    FORMS,
    assert_equals_brute_force,
    assert_fits,
    assert_forms_agree,
    assert_gradient,
    batch_of,
    log_sum_exp,
    loss_and_gradients,
    make_rows,
    mean_over,
    positives_and_negatives,
    unit,
)

#: Similarities that differ less are ties; those of "adversarial" differ by about as much, and are left out.
TIE = 1e-6
KINDS = {name: z for name, z in EMBEDDINGS.items() if name != "adversarial"}
SETTINGS = [
    {"share_of_negatives": 0.3},
    {"share_of_negatives": 1.0, "most_negatives": 3, "ceiling": 0.3, "positives": "inside"},
    {"share_of_negatives": 0.25, "most_negatives": 4, "ceiling": 0.9, "temperature": 0.5},
]


def weights_of(z, pairs, *, share, most=None, ceiling=2.0):
    """Of each row how much each of its negatives counts: 1, 0, or a part of the last places where several tie."""
    u = unit(z)
    found = []
    for i, (_, negative) in enumerate(pairs):
        similarity = np.array([u[i] @ u[j] for j in negative])
        keep = min(math.ceil(round(share * 100) * len(negative) / 100), most or len(negative))
        below = similarity < ceiling
        last = np.sort(similarity[below])[::-1][:keep]
        if below.sum() <= keep:
            found.append(below.astype(float))
            continue
        nearer = below & (similarity > last[-1] + TIE)
        tied = below & (abs(similarity - last[-1]) <= TIE)
        found.append(nearer + tied * (keep - nearer.sum()) / tied.sum())
        assert np.isclose(found[-1].sum(), keep)
    return found


def brute(z, pairs, weights, *, t, inside):
    u = unit(z)
    costs = []
    for i, ((positive, negative), weight) in enumerate(zip(pairs, weights, strict=True)):
        if not positive:
            costs.append(None)
            continue
        pull = [u[i] @ u[j] / t for j in positive]
        push = [u[i] @ u[j] / t + math.log(w) for j, w in zip(negative, weight, strict=True) if w]
        costs.append(log_sum_exp([*pull, *push]) - (log_sum_exp(pull) if inside else np.mean(pull)))
    return mean_over(costs)


def brute_of(settings):
    """The brute force with these settings: `(z, pairs, embeddings by which it chooses) → (loss, per row)`."""
    form = {"t": settings.get("temperature", 0.1), "inside": settings.get("positives") == "inside"}
    names = {"share_of_negatives": "share", "most_negatives": "most", "ceiling": "ceiling"}
    choice = {short: settings[name] for name, short in names.items() if name in settings}
    return lambda z, pairs, chosen_by: brute(z, pairs, weights_of(chosen_by, pairs, **choice), **form)


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_brute_force(settings):
    expected = brute_of(settings)
    assert_equals_brute_force(
        functools.partial(hardest_nt_xent, relation=same_patient, **settings),
        lambda z, _, pairs: expected(z, pairs, z),
        kinds=KINDS,
        prepare=functools.partial(positives_and_negatives, by="patient"),
    )


def test_gradients_where_negatives_tie_for_the_last_places():
    # Three keys of each kind are negatives of a row, so that 7 to keep are two kinds and a third of one.
    settings = {"share_of_negatives": 1.0, "most_negatives": 7}
    rows, z = CASES["two views each"], EMBEDDINGS["ties"]
    pairs = positives_and_negatives(rows, "record")
    weights = weights_of(z, pairs, share=1.0, most=7)
    assert {round(w, 2) for row in weights for w in row} > {0.0, 1.0}
    run = jax.jit(
        loss_and_gradients(functools.partial(hardest_nt_xent, relation=same_record, **settings)),
        static_argnames="tiling",
    )
    out, (gradient,) = run(jnp.asarray(z, jnp.float32), rows, tiling=Tiling(chunk=7))
    assert_gradient(gradient, lambda x: brute_of(settings)(x, pairs, z)[0], z)
    assert float(out.stats["kept_negatives_per_row"]) == 7
    # Equal rows are treated alike, wherever they stand, to the rounding of sums.
    order = np.random.default_rng(0).permutation(24)
    moved = jax.tree.map(lambda x: x[order], rows)._replace(row=rows.row)
    again, (other,) = run(jnp.asarray(z[order], jnp.float32), moved, tiling=Tiling(chunk=7))
    np.testing.assert_allclose(again.per_row, out.per_row[order], rtol=1e-6)
    np.testing.assert_allclose(other, gradient[order], atol=1e-6)


def test_with_more_to_keep_than_there_are_it_is_nt_xent():
    rows, z = CASES["masked rows"], jnp.asarray(EMBEDDINGS["random"], jnp.float32)
    settings = {"relation": same_patient, "tiling": Tiling(chunk=7)}
    run = jax.jit(functools.partial(hardest_nt_xent, share_of_negatives=1.0, most_negatives=1000, **settings))
    np.testing.assert_allclose(run(z, rows).per_row, nt_xent(z, rows, **settings).per_row, rtol=1e-6)
    # Embeddings of half precision are compared in float32.
    half = z.astype(jnp.bfloat16)
    np.testing.assert_array_equal(run(half, rows).per_row, run(half.astype(jnp.float32), rows).per_row)


def test_with_everything_above_the_ceiling_only_positives_are_left():
    rows, z = CASES["two views each"], jnp.asarray(EMBEDDINGS["random"], jnp.float32)
    run = loss_and_gradients(functools.partial(hardest_nt_xent, relation=same_record, ceiling=-1.0))
    out, (gradient,) = jax.jit(run, static_argnames="tiling")(z, rows, tiling=Tiling(chunk=7))
    np.testing.assert_allclose(out.per_row, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert out.counts.all()
    assert float(out.stats["negatives_above_ceiling_per_row"]) == 22
    assert float(out.stats["kept_negatives_per_row"]) == 0


def test_four_rows_by_hand():
    # a = a' = (1, 0) of one record, b = (.6, .8) and c = (0, 1) of two others; t = 1. One negative is kept.
    #   a: nearest is b at .6: log(e + e^.6) − 1. With a ceiling of .5 it is c: log(e + 1) − 1.
    z = jnp.asarray([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], jnp.float32)
    rows = make_rows([0, 0, 1, 2], [0, 0, 1, 2])
    settings = {"relation": same_record, "temperature": 1.0, "most_negatives": 1, "tiling": Tiling()}
    of_b, of_c = math.log(math.e + math.exp(0.6)) - 1, math.log(math.e + 1) - 1
    for ceiling, cost in ((None, of_b), (0.5, of_c)):
        out = jax.jit(functools.partial(hardest_nt_xent, ceiling=ceiling, **settings))(z, rows)
        np.testing.assert_allclose(out.per_row, [cost, cost, 0, 0], rtol=1e-6)


@FORMS
def test_forms_agree(num_rows, settings):
    z, rows = batch_of(num_rows)
    z = jnp.concatenate([z[: num_rows // 2]] * 2)  # every similarity comes twice

    def objective(z, rows, temperature, tiling):
        chosen = {"share_of_negatives": 0.2, "most_negatives": 5, "ceiling": 0.9}
        return hardest_nt_xent(z, rows, relation=same_patient, temperature=temperature, tiling=tiling, **chosen)

    shared = (jnp.float32(0.2),)
    assert_forms_agree(loss_and_gradients(objective, 1), (z, rows), shared=shared, **settings)


@pytest.mark.slow
def test_memory_is_linear_in_the_batch():
    assert_fits(functools.partial(hardest_nt_xent, relation=same_record, share_of_negatives=0.5), mib=220)
