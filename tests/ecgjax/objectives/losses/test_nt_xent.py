"""NT-Xent, 3KG and the sigmoid loss against brute force in float64, their forms against the dense one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.nt_xent import nt_xent, sigmoid, three_kg
from ecgjax.objectives.losses.registry import LOSSES
from ecgjax.objectives.pairs.distances import normalise
from ecgjax.objectives.pairs.outputs import mean_of_counted
from ecgjax.objectives.pairs.relations import RELATIONS, same_patient, same_record, similar_physiology
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


def brute_nt_xent(z, pairs, *, positives, tau):
    """Khosla et al. 2020 eq. 2 and 3, Chen et al. 2020 eq. 1."""
    u = unit(z)
    costs = []
    for i, (positive, negative) in enumerate(pairs):
        near = [u[i] @ u[j] / tau for j in positive]
        everything = log_sum_exp(near + [u[i] @ u[j] / tau for j in negative])
        if not positive:
            costs.append(None)
        elif positives == "outside":
            costs.append(np.mean([everything - s for s in near]))
        else:
            costs.append(everything - log_sum_exp(near))
    return mean_over(costs)


def brute_three_kg(z, pairs, *, tau):
    """Gopal et al. 2021, the mean over all ordered pairs."""
    u = unit(z)
    terms, costs = [], []
    for i, (positive, negative) in enumerate(pairs):
        others = sum(math.exp(u[i] @ u[j] / tau) for j in negative)
        near = [math.exp(u[i] @ u[j] / tau) for j in positive]
        of_row = [-math.log(p / (p + others)) for p in near]
        terms += of_row
        costs.append(np.mean(of_row) if of_row else 0.0)
    return (float(np.mean(terms)) if terms else 0.0), np.array(costs)


def brute_sigmoid(z, pairs, *, log_scale, bias):
    """Zhai et al. 2023: −Σ log σ(y (t s + b)) over all pairs, a row."""
    u, t = unit(z), math.exp(log_scale)
    costs = []
    for i, (positive, negative) in enumerate(pairs):
        signed = [t * (u[i] @ u[j]) + bias for j in positive] + [-(t * (u[i] @ u[j]) + bias) for j in negative]
        costs.append(sum(np.logaddexp(0, -x) for x in signed) if signed else None)
    return mean_over(costs)


@pytest.mark.parametrize("by", ["record", "patient"])
@pytest.mark.parametrize("positives", ["outside", "inside"])
def test_nt_xent_equals_brute_force(by, positives):
    assert_equals_brute_force(
        functools.partial(nt_xent, relation=RELATIONS[f"same_{by}"], temperature=0.1, positives=positives),
        lambda z, _, pairs: brute_nt_xent(z, pairs, positives=positives, tau=0.1),
        chunks=(None, 7) if positives == "outside" else (5,),
        prepare=functools.partial(positives_and_negatives, by=by),
    )


def test_three_kg_equals_brute_force():
    assert_equals_brute_force(
        functools.partial(three_kg, relation=same_patient, temperature=0.2),
        lambda z, _, pairs: brute_three_kg(z, pairs, tau=0.2),
        prepare=functools.partial(positives_and_negatives, by="patient"),
    )


def test_sigmoid_equals_brute_force():
    assert_equals_brute_force(
        functools.partial(sigmoid, relation=same_patient, log_scale=1.2, bias=-2.0),
        lambda z, _, pairs: brute_sigmoid(z, pairs, log_scale=1.2, bias=-2.0),
        prepare=functools.partial(positives_and_negatives, by="patient"),
    )


def test_gradients_of_what_is_learnt_besides():
    rows, z = CASES["masked rows"], EMBEDDINGS["random"]
    pairs = positives_and_negatives(rows, "patient")
    settings = {"rows": rows, "relation": same_patient, "tiling": Tiling(chunk=7)}
    z32, learnt = jnp.asarray(z, jnp.float32), np.array([0.3, 1.2, -2.0])
    cases = {
        "outside": (
            lambda x: nt_xent(z32, temperature=x[0], **settings),
            lambda x: brute_nt_xent(z, pairs, positives="outside", tau=x[0]),
        ),
        "inside": (
            lambda x: nt_xent(z32, temperature=x[0], positives="inside", **settings),
            lambda x: brute_nt_xent(z, pairs, positives="inside", tau=x[0]),
        ),
        "3KG": (
            lambda x: three_kg(z32, temperature=x[0], **settings),
            lambda x: brute_three_kg(z, pairs, tau=x[0]),
        ),
        "sigmoid": (
            lambda x: sigmoid(z32, log_scale=x[1], bias=x[2], **settings),
            lambda x: brute_sigmoid(z, pairs, log_scale=x[1], bias=x[2]),
        ),
    }
    gradients = jax.jit(jax.jacrev(lambda x: {name: loss(x).loss for name, (loss, _) in cases.items()}))
    for name, found in gradients(jnp.asarray(learnt, jnp.float32)).items():
        assert_gradient(found, lambda x, brute=cases[name][1]: brute(x)[0], learnt, err_msg=name)


def test_four_rows_by_hand():
    # Records a, b with two views each; unit vectors a = (1,0), a' = (0,1), b = (1,0), b' = (1,0); τ = 1, so the
    # similarities are a·a' = 0, a·b = a·b' = 1, a'·b = a'·b' = 0, b·b' = 1 and, by Chen et al. 2020 eq. 1,
    #   l(a)  = −log e^0 / (e^0 + e^1 + e^1) = log(1 + 2e)
    #   l(a') = −log e^0 / (e^0 + e^0 + e^0) = log 3
    #   l(b)  = −log e^1 / (e^1 + e^1 + e^0) = log(2e + 1) − 1, and l(b') the same.
    z = jnp.asarray([[1, 0], [0, 1], [1, 0], [1, 0]], jnp.float32)
    rows = make_rows([0, 0, 1, 1], [0, 0, 1, 1])
    out = nt_xent(z, rows, relation=same_record, temperature=1.0, tiling=Tiling())
    e = math.e
    expected = [math.log(1 + 2 * e), math.log(3), math.log(2 * e + 1) - 1, math.log(2 * e + 1) - 1]
    np.testing.assert_allclose(out.per_row, expected, rtol=1e-6)
    assert float(out.loss) == pytest.approx(np.mean(expected), rel=1e-6)
    assert float(out.stats["positives_per_row"]) == 1
    assert float(out.stats["negatives_per_row"]) == 2

    # Zhai et al. 2023 with t = 1, b = 0: a positive costs log(1 + e^−s), a negative log(1 + e^s).
    #   a: log 2 + 2 log(1 + e),  a': 3 log 2,  b and b': log(1 + 1/e) + log(1 + e) + log 2.
    out = sigmoid(z, rows, relation=same_record, log_scale=0.0, bias=0.0, tiling=Tiling())
    two, more = math.log(2), math.log(1 + e)
    np.testing.assert_allclose(
        out.per_row, [two + 2 * more, 3 * two, *[math.log(1 + 1 / e) + more + two] * 2], rtol=1e-6
    )


def test_several_positives_by_hand():
    # One patient has the rows (1,0), (1,0), (0,1), another (1,0); τ = 1. Row 0 has positives at s = 1 and 0 and a
    # negative at 1, and so has row 1; row 2 has positives at 0 and 0 and a negative at 0; row 3 has no positive.
    z = jnp.asarray([[1, 0], [1, 0], [0, 1], [1, 0]], jnp.float32)
    rows = make_rows([0, 1, 2, 3], [0, 0, 0, 1])
    loss_of = functools.partial(nt_xent, z, rows, relation=same_patient, temperature=1.0, tiling=Tiling())
    e, everything = math.e, math.log(2 * math.e + 1)
    # Khosla et al. 2020 eq. 2: log(2e + 1) − (1 + 0)/2; eq. 3: log(2e + 1) − log(e + 1). Row 2: log 3, log 3 − log 2.
    np.testing.assert_allclose(
        loss_of(positives="outside").per_row, [*[everything - 0.5] * 2, math.log(3), 0], rtol=1e-6
    )
    inside = everything - math.log(e + 1)
    np.testing.assert_allclose(loss_of(positives="inside").per_row, [inside, inside, math.log(1.5), 0], rtol=1e-6)
    # Gopal et al. 2021: rows 0 and 1 have −log e/(e + e) and −log 1/(1 + e), row 2 twice −log 1/2: six pairs.
    out = three_kg(z, rows, relation=same_patient, temperature=1.0, tiling=Tiling())
    of_row = [math.log(2), math.log(1 + e)]
    np.testing.assert_allclose(out.per_row, [np.mean(of_row), np.mean(of_row), math.log(2), 0], rtol=1e-6)
    assert float(out.loss) == pytest.approx((2 * sum(of_row) + 2 * math.log(2)) / 6, rel=1e-6)


def test_mean_over_pairs_is_not_the_mean_over_rows():
    rows = make_rows([0, 1, 2, 3, 4], [0, 0, 0, 1, 1])
    z = jnp.asarray(EMBEDDINGS["random"][:5], jnp.float32)
    out = three_kg(z, rows, relation=same_patient, tiling=Tiling())
    weights = np.array([2, 2, 2, 1, 1])
    assert float(out.loss) == pytest.approx(float(np.average(out.per_row, weights=weights)), rel=1e-6)
    assert float(out.loss) != pytest.approx(float(np.mean(out.per_row)), rel=1e-3)
    by_rows = three_kg(z, rows, relation=same_patient, reducer=mean_of_counted, tiling=Tiling())
    assert float(by_rows.loss) == pytest.approx(float(np.mean(out.per_row)), rel=1e-6)


def test_with_one_positive_and_no_patients_all_are_nt_xent():
    @jax.jit
    def losses(z, rows):
        settings = {"temperature": 0.3, "tiling": Tiling(chunk=7)}
        plain = {"concentration": 0.0, "positive_prior": 0.0}
        return {
            "NT-Xent": nt_xent(z, rows, relation=same_record, **settings).per_row,
            "inside": nt_xent(z, rows, relation=same_record, positives="inside", **settings).per_row,
            "by patient": nt_xent(z, rows, relation=same_patient, **settings).per_row,
            "3KG": three_kg(z, rows, relation=same_patient, **settings).per_row,
            "HCL": LOSSES["hcl"](z, rows, relation=same_record, **plain, **settings).per_row,
        }

    found = losses(jnp.asarray(EMBEDDINGS["random"], jnp.float32), CASES["two views each"])
    for name, per_row in found.items():
        np.testing.assert_allclose(per_row, found["NT-Xent"], rtol=2e-6, err_msg=name)


@functools.partial(jax.jit, static_argnames=("relation", "chunk"))
def losses_by_row(z, rows, *, relation, chunk):
    """Name → rows' losses, of all losses that are sums over negatives."""
    names = ("nt_xent", "three_kg", "sigmoid", "hcl", "debiased", "multi_similarity")
    return {name: LOSSES[name](z, rows, relation=relation, tiling=Tiling(chunk=chunk)).per_row for name in names}


def test_same_patient_is_never_a_negative():
    # Pushing a same-patient row around must not change the loss of a record's own views.
    rows = make_rows([0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1])
    z = jnp.asarray(EMBEDDINGS["random"][:6], jnp.float32)
    moved = z.at[2:4].set(z[4:6])  # onto the other patient's, whose loss must change
    before, after = (losses_by_row(x, rows, relation=same_record, chunk=None) for x in (z, moved))
    for name in before:
        np.testing.assert_array_equal(before[name][:2], after[name][:2], err_msg=name)
        assert (before[name][4:] != after[name][4:]).all(), name


def test_permuting_rows_permutes_losses():
    rows, z = CASES["masked rows"], jnp.asarray(EMBEDDINGS["random"], jnp.float32)
    order = np.random.default_rng(3).permutation(24)
    shuffled = jax.tree.map(lambda x: x[order], rows)
    before = losses_by_row(z, rows, relation=same_patient, chunk=5)
    after = losses_by_row(z[order], shuffled, relation=same_patient, chunk=5)
    for name in before:
        np.testing.assert_allclose(before[name][order], after[name], rtol=2e-6, atol=1e-6, err_msg=name)


def test_physioclr_is_nt_xent_over_similar_physiology():
    # Maghsoodi et al. 2025 with the sum over positives outside the log, by loops: twelve records of two views, two
    # records a patient, of four the vector unknown, one of them only in part.
    generator = np.random.default_rng(2)
    features = np.repeat(generator.normal(size=(12, 5)), 2, axis=0)
    features[2:4] = np.nan
    features[10:12, 3] = np.nan
    features[14:16] = np.nan
    features[20:22] = np.nan
    records, patients = np.repeat(np.arange(12), 2), np.repeat(np.arange(6), 4)
    rows = make_rows(records, patients, physiology=features, valid=np.arange(24) != 9)
    for min_cosine in (0.25, -0.2):
        pairs = []
        for i in range(24):
            positive, negative = [], []
            for j in range(24):
                if i == j or 9 in (i, j):
                    continue
                known = np.isfinite(features[i]).all() and np.isfinite(features[j]).all()
                cosine = unit(features[i]) @ unit(features[j]) if known else None
                if records[i] == records[j] or (known and cosine >= min_cosine):
                    positive.append(j)
                elif known and patients[i] != patients[j]:
                    negative.append(j)
            pairs.append((positive, negative))
        assert any(n == [] for _, n in pairs)
        assert max(len(p) for p, _ in pairs) > 2
        assert_equals_brute_force(
            functools.partial(
                nt_xent, relation=functools.partial(similar_physiology, min_cosine=min_cosine), temperature=0.1
            ),
            lambda z, _, pairs: brute_nt_xent(z, pairs, positives="outside", tau=0.1),
            cases={"physiology": rows},
            prepare=lambda _, pairs=pairs: pairs,
        )


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["in turns", "all"])
def test_nt_xent_is_the_same_in_every_form(every):
    def objective(z, rows, temperature, tiling):
        return nt_xent(z, rows, relation=same_patient, temperature=temperature, tiling=tiling)

    assert_forms_agree(loss_and_gradients(objective, 1), batch_of(64), shared=(jnp.float32(0.1),), every=every)


@FORMS
def test_other_losses_are_the_same_in_their_forms(num_rows, settings):
    of_pairs = {"relation": same_patient}
    objectives = [
        lambda z, rows, t, tiling: nt_xent(z, rows, temperature=t[0], positives="inside", tiling=tiling, **of_pairs),
        lambda z, rows, t, tiling: three_kg(z, rows, temperature=t[0], tiling=tiling, **of_pairs),
        lambda z, rows, t, tiling: sigmoid(z, rows, log_scale=t[1], bias=t[2], tiling=tiling, **of_pairs),
    ]

    def function(z, rows, learnt, tiling):
        return [loss_and_gradients(objective, 1)(z, rows, learnt, tiling=tiling) for objective in objectives]

    learnt = jnp.array([0.2, 1.5, -3.0], jnp.float32)
    assert_forms_agree(function, batch_of(num_rows), shared=(learnt,), **settings)


@pytest.mark.parametrize(
    ("num_rows", "dim", "mib"), [(16384, 16, 20), pytest.param(32768, 256, 220, marks=pytest.mark.slow)]
)
def test_nt_xent_of_many_rows_fits(num_rows, dim, mib):
    assert_fits(functools.partial(nt_xent, relation=same_record), mib=mib, num_rows=num_rows, dim=dim)


def test_a_zero_embedding_has_no_gradient_and_leaves_the_others_theirs():
    rows, z = CASES["two records a patient"], jnp.asarray(EMBEDDINGS["random"], jnp.float32).at[3].set(0)
    settings = {"relation": same_record, "tiling": Tiling()}
    gradient = jax.jit(jax.grad(lambda z: nt_xent(z, rows, **settings).loss))(z)
    np.testing.assert_array_equal(gradient[3], np.zeros(z.shape[1]))
    np.testing.assert_array_equal(normalise(z)[3], np.zeros(z.shape[1]))
    assert 0 < np.abs(gradient).max() < 10


def test_low_temperatures_do_not_overflow():
    rows, names = CASES["two records a patient"], ("nt_xent", "three_kg", "hcl", "debiased")

    @jax.jit
    @jax.jacrev
    def gradients(z):
        settings = {"relation": same_record, "temperature": 0.005, "tiling": Tiling()}
        return {name: LOSSES[name](z, rows, **settings).loss for name in names}

    for name, gradient in gradients(jnp.asarray(EMBEDDINGS["adversarial"], jnp.float32)).items():
        assert np.isfinite(gradient).all(), name
        assert gradient.any(), name


def test_unknown_form_of_several_positives():
    with pytest.raises(ConfigError, match="'outside' or 'inside'"):
        nt_xent(jnp.ones((2, 2)), make_rows([0, 0], [0, 0]), relation=same_record, positives="both", tiling=Tiling())
