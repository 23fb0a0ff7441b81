"""A positive is another recording or another view: recordings that stand in a batch twice, through losses and runs."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pclr
from ecgjax import defaults, encoders
from ecgjax.augmentations import partners, views
from ecgjax.augmentations.views import AUGMENTATIONS, Shown, Views
from ecgjax.data.samplers import SampledSide
from ecgjax.errors import ConfigError
from ecgjax.objectives.losses.clocs import clocs
from ecgjax.objectives.losses.hard_negatives import hcl
from ecgjax.objectives.losses.multi_similarity import multi_similarity
from ecgjax.objectives.losses.nt_xent import nt_xent, sigmoid, three_kg
from ecgjax.objectives.losses.triplet import angular, margin, triplet
from ecgjax.objectives.miners import miners
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.outputs import ANCHORS_WITHOUT_POSITIVE
from ecgjax.objectives.pairs.relations import other_segment, same_label, same_patient
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.training import device_mesh
from ecgjax.training.assembly import make_overlay
from ecgjax.training.embedding_rows import Layout, others_are_negatives
from ecgjax.training.other_recordings import check_other_recordings, describe_other_recordings
from ecgjax.training.run import prepare_run
from ecgjax.training.settings import SecondSettings
from ecgjax.training.steps import pretraining_loss
from tests.ecgjax.objectives.losses.test_clocs import brute_clocs
from tests.ecgjax.objectives.losses.test_hard_negatives import brute_hcl, brute_multi_similarity
from tests.ecgjax.objectives.losses.test_nt_xent import brute_nt_xent, brute_sigmoid, brute_three_kg
from tests.ecgjax.objectives.losses.test_triplet import brute_angular
from tests.support import tiny_config
from tests.support.fixtures import make_simulated_dataset
from tests.support.objective_cases import (
    EMBEDDINGS,
    NUM_ROWS,
    SMOOTH,
    assert_equals_brute_force,
    assert_forms_agree,
    assert_gradient,
    brute_triplet,
    columns,
    loss_and_gradients,
    make_rows,
)
from tests.support.random_arrays import random_encoder

KEY = jax.random.key(9, impl="threefry2x32")
ONE_ROW = Layout(views=1, shown=(Shown(0),))


def pairs_of_patients(num, *, again, valid=None):
    """Rows of `num` recordings, two of each patient; of the patients in `again` it is one recording drawn twice."""
    row = np.arange(num)
    record = np.where(np.isin(row // 2, again), row // 2 * 2, row)
    return make_rows(record, row // 2, valid=valid, shown=0 * row, label=row // 2 % 3, segment=0 * row, lead=0 * row)


DOUBLED = {
    "some drawn twice": pairs_of_patients(NUM_ROWS, again=[0, 3, 4, 8, 11]),
    "all drawn twice": pairs_of_patients(NUM_ROWS, again=np.arange(12)),
    "none drawn twice": pairs_of_patients(NUM_ROWS, again=[]),
    "masked, too": pairs_of_patients(NUM_ROWS, again=[0, 3, 4, 8], valid=np.arange(NUM_ROWS) % 5 != 1),
    "one patient": pairs_of_patients(NUM_ROWS, again=[1, 2])._replace(patient=jnp.zeros(NUM_ROWS, jnp.int32)),
}


def by_loops(rows):
    """Of each row the other recordings of its patient, and the rows of others: lists."""
    record, patient, valid = columns(rows)
    both = [[j for j in range(len(record)) if valid[i] and valid[j]] for i in range(len(record))]
    return [
        ([j for j in both[i] if patient[j] == patient[i] and record[j] != record[i]],
         [j for j in both[i] if patient[j] != patient[i]])
        for i in range(len(record))
    ]  # fmt: skip


def without_positive(rows):
    return sum(bool(valid) and not near for valid, (near, _) in zip(columns(rows)[2], by_loops(rows), strict=True))


LOSSES = {
    "nt_xent, outside": (
        functools.partial(nt_xent, temperature=0.1),
        lambda z, pairs: brute_nt_xent(z, pairs, positives="outside", tau=0.1),
    ),
    "nt_xent, inside": (
        functools.partial(nt_xent, temperature=0.2, positives="inside"),
        lambda z, pairs: brute_nt_xent(z, pairs, positives="inside", tau=0.2),
    ),
    "three_kg": (functools.partial(three_kg, temperature=0.2), lambda z, pairs: brute_three_kg(z, pairs, tau=0.2)),
    "sigmoid": (
        functools.partial(sigmoid, log_scale=1.2, bias=-2.0),
        lambda z, pairs: brute_sigmoid(z, pairs, log_scale=1.2, bias=-2.0),
    ),
    "hcl": (
        functools.partial(hcl, temperature=0.5, concentration=1.0, positive_prior=0.1),
        lambda z, pairs: brute_hcl(z, pairs, t=0.5, beta=1.0, prior=0.1),
    ),
    "multi_similarity": (
        functools.partial(multi_similarity, positive_scale=2.0, negative_scale=10.0, threshold=0.5, slack=0.1),
        lambda z, pairs: brute_multi_similarity(z, pairs, alpha=2.0, beta=10.0, lam=0.5, eps=0.1),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_recordings_drawn_twice_equal_brute_force(name):
    loss, brute = LOSSES[name]
    kinds = {kind: EMBEDDINGS[kind] for kind in ("random", "all equal")}
    if name == "multi_similarity":
        del kinds["all equal"]  # similarities of 1 lie on the edge of its own choice of pairs
    assert_equals_brute_force(
        functools.partial(loss, relation=same_patient),
        lambda z, _, pairs: brute(z, pairs),
        cases=DOUBLED,
        kinds=kinds,
        prepare=by_loops,
    )
    run = jax.jit(functools.partial(loss, relation=same_patient, tiling=Tiling(chunk=7)))
    for case, rows in DOUBLED.items():
        found = run(jnp.asarray(EMBEDDINGS["random"], jnp.float32), rows).stats
        assert float(found[ANCHORS_WITHOUT_POSITIVE]) == without_positive(rows), case


EUCLIDEAN = DISTANCES["euclidean"]
MINERS = {
    "random": functools.partial(miners.random, triplets=2),
    "batch_hard": functools.partial(miners.batch_hard, distance=EUCLIDEAN),
    "semi_hard": functools.partial(miners.semi_hard, distance=EUCLIDEAN, choice="random", fallback="random"),
    "soft_hard": functools.partial(miners.soft_hard, distance=EUCLIDEAN),
}


@pytest.mark.parametrize("miner", MINERS)
def test_triplets_of_recordings_drawn_twice_equal_brute_force(miner):
    settings = {"relation": same_patient, "tiling": Tiling(chunk=7), "key": KEY}
    loss = functools.partial(triplet, miner=MINERS[miner], margin=0.7, **settings)
    mine = jax.jit(functools.partial(MINERS[miner], **settings))
    run = jax.jit(jax.value_and_grad(lambda z, rows: (lambda out: (out.loss, out))(loss(z, rows)), has_aux=True))
    for case, rows in DOUBLED.items():
        pairs = by_loops(rows)
        for kind in SMOOTH:
            z = EMBEDDINGS[kind]
            mined = jax.tree.map(np.asarray, mine(jnp.asarray(z, jnp.float32), rows))
            (value, out), gradient = run(jnp.asarray(z, jnp.float32), rows)
            for i, (near, far) in enumerate(pairs):
                assert mined.found[i].any() == bool(near and far), case
                for k in np.flatnonzero(mined.found[i]):
                    assert mined.positive[i, k] in near
                    assert mined.negative[i, k] in far
            brute = functools.partial(brute_triplet, mined=mined, form="hinge", width=0.7)
            np.testing.assert_allclose(value, brute(z)[0], rtol=2e-5, atol=2e-5, err_msg=case)
            assert float(out.stats[ANCHORS_WITHOUT_POSITIVE]) == without_positive(rows), case
            assert all(np.isfinite(x) for x in out.stats.values())
            assert_gradient(gradient, lambda z, b=brute: b(z)[0], z, err_msg=case)


def test_margin_and_angular_losses_leave_rows_without_positive_out():
    settings = {"relation": same_patient, "tiling": Tiling(chunk=7), "key": KEY}
    of_margin = jax.jit(functools.partial(margin, miner=MINERS["random"], **settings))
    of_angle = jax.jit(
        jax.value_and_grad(lambda z, rows: (lambda o: (o.loss, o))(angular(z, rows, **settings)), has_aux=True)
    )
    mine = jax.jit(functools.partial(miners.random, **settings))
    z = EMBEDDINGS["random"]
    for case, rows in DOUBLED.items():
        counts = [bool(near and far) for near, far in by_loops(rows)]
        (value, out), gradient = of_angle(jnp.asarray(z, jnp.float32), rows)
        for found in (out, of_margin(jnp.asarray(z, jnp.float32), rows)):
            np.testing.assert_array_equal(found.counts, counts, err_msg=case)
            assert float(found.stats[ANCHORS_WITHOUT_POSITIVE]) == without_positive(rows), case
        chosen = jax.tree.map(np.asarray, mine(jnp.asarray(z, jnp.float32), rows))
        brute = functools.partial(brute_angular, rows=rows, chosen=chosen, degrees=45.0)
        np.testing.assert_allclose(value, brute(z), rtol=2e-5, atol=2e-5)
        assert_gradient(gradient, brute, z, err_msg=case)


def test_clocs_of_recordings_drawn_twice_equals_brute_force():
    # Two halves of every recording, nothing drawn: the other half of a second drawing is another part of the time.
    record = np.repeat([0, 1, 1, 2, 3, 0, 4, 5, 5, 5, 6, 7], 2)
    half = np.arange(NUM_ROWS) % 2
    rows = make_rows(record, record // 2, half, segment=half, lead=0 * half, shown=half)
    run = jax.jit(
        functools.partial(
            loss_and_gradients(functools.partial(clocs, relation=other_segment, views=2, temperature=0.2)),
            tiling=Tiling(chunk=8),
        )
    )
    for kind in SMOOTH:
        z = EMBEDDINGS[kind]
        out, (gradient,) = run(jnp.asarray(z, jnp.float32), rows)
        brute = functools.partial(brute_clocs, rows=rows, views=2, tau=0.2)
        np.testing.assert_allclose(out.loss, brute(z), rtol=2e-5)
        assert_gradient(gradient, brute, z)
    # Were both rows of a recording the same signal, there would be no pair at all.
    out, (gradient,) = run(jnp.asarray(z, jnp.float32), rows._replace(shown=0 * rows.shown))
    assert float(out.loss) == 0
    assert not out.counts.any()
    np.testing.assert_array_equal(gradient, 0)
    assert float(out.stats[ANCHORS_WITHOUT_POSITIVE]) == NUM_ROWS


def test_forms_agree_on_recordings_drawn_twice():
    rows = pairs_of_patients(64, again=np.arange(0, 32, 3), valid=np.arange(64) % 7 != 3)
    z = jnp.asarray(np.random.default_rng(5).normal(size=(64, 16)), jnp.float32)
    assert_forms_agree(loss_and_gradients(functools.partial(nt_xent, relation=same_patient)), (z, rows))


# ---------------------------------------------------------------------------------------------------------------------
# What views show.

IDLE = {
    "random_crop": {"ratio": 1.0},
    "resized_crop": {"min_ratio": 1.0, "max_ratio": 1.0},
    "stretched_crop": {"ratio": 1.0, "max_change": 0.0},
    "vcg": {"max_angle_deg": 0.0, "max_scale": 1.0},
    "gaussian_noise": {"min_sigma_mv": 0.0, "max_sigma_mv": 0.0},
}
for _name, _leaves in views._IDLE_AT_ZERO.items():
    IDLE.setdefault(_name, {_leaves[0]: 0.0})


def test_settings_that_are_taken_for_no_draw_draw_nothing():
    """By what augmentations do: at these settings two rows of one signal stay the same."""
    assert set(IDLE) == set(AUGMENTATIONS)
    rng = np.random.default_rng(0)
    beats = 1000 * np.exp(-0.5 * ((np.arange(800) % 160 - 80) / 4) ** 2)
    signal = (beats[:, None] + rng.normal(0, 20, (800, 8))).astype(np.int16)[None].repeat(2, axis=0)
    towards, keys = jnp.asarray(np.roll(signal, 31, axis=1)), jax.random.split(KEY, 2)

    def apart(augment):
        drawn = Views(augment, num_views=1, rate_hz=200)
        rows = jax.device_get(jax.jit(drawn)(keys, jnp.asarray(signal), towards=towards))
        return float(abs(rows[0] - rows[1]).max()), drawn.shown[0]

    # One after the other in one program, which compiles longer than it runs; but crops exclude each other.
    others = ("resized_crop", "stretched_crop")
    assert apart({name: settings for name, settings in IDLE.items() if name not in others}) == (0, Shown(0))
    for name in others:
        assert apart({name: IDLE[name]}) == (0, Shown(0))
    for name in AUGMENTATIONS:
        found = Views({name: {}}, num_views=1, rate_hz=200).shown[0]
        assert found == (Shown(0, if_moved=True) if name == "geodesic" else Shown(-1))
    different, shown = apart({"time_mask": {}})
    assert different > 0
    assert shown == Shown(-1)


def test_views_that_are_the_same_have_the_same_number():
    def shown(augment, num_views=3):
        return [tuple(view) for view in Views(augment, num_views=num_views, rate_hz=100).shown]

    assert shown({}) == [(0, False)] * 3
    assert shown({"vcg": {"enabled": False}, "time_mask": {"views": (1,)}}) == [(0, False), (-1, False), (0, False)]
    # A flip that always acts is another signal, and the same each time.
    flipped = {"polarity": {"p": 1.0, "views": (1, 2)}}
    assert shown(flipped) == [(0, False), (1, False), (1, False)]
    assert shown(flipped | {"emg": {"views": (2,)}}) == [(0, False), (1, False), (-1, False)]
    assert shown({"geodesic": {"views": (0,)}}) == [(0, True), (0, False), (0, False)]
    assert shown({"geodesic": {}, "vcg": {}}) == [(-1, False)] * 3


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs.


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4)


def pclr_settings(directory):
    config, method = tiny_config.get_config(), pclr.get_config("small")
    for section in ("augment", "sampling", "relation", "objective"):
        config[section] = method[section]
    config.views.num = method.views.num
    config.data.dir, config.batch_size = str(directory), 16
    config.encoder.dropout = 0.0
    return defaults.settings_of(config)


def method_of(loss, relation):
    return ObjectiveSettings(name=loss), RelationSettings(name=relation), MinerSettings()


def test_a_step_of_pclr_has_the_loss_of_other_recordings_alone(dataset):
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam raises a float to an integer power
        run = prepare_run(pclr_settings(dataset.directory))
    group = np.asarray(run.recordings.index.group)
    _, count = np.unique(group[run.recordings.split.train], return_counts=True)
    assert run.layout == ONE_ROW
    assert 0 < (count == 1).sum() < len(count), "patients of one recording, and of more"
    split, seen = run.split, Views(run.settings.augment, num_views=1, rate_hz=50)

    @jax.jit
    def embed(params, stats, signal):
        ecg = seen(jax.random.split(KEY, len(signal)), signal)[:, 0]
        return encoders.apply(encoders.Split(split.graph, params["encoder"], stats["encoder"]), ecg, train=True)[0]

    state, stream, alone = run.state, run.batches(run.sampler), 0
    for _ in range(4):
        batch = next(stream)
        z = np.asarray(embed(state.params, state.stats, batch["signal"]), np.float64)
        state, metrics = run.step(state, batch)
        record, patient = np.asarray(batch["record"]), np.asarray(batch["patient"])
        rows = make_rows(record, patient)
        lone = [i for i in range(16) if (record == record[i]).sum() == (patient == patient[i]).sum()]
        alone += len(lone)
        assert int(metrics[ANCHORS_WITHOUT_POSITIVE]) == len(lone) == without_positive(rows)
        expected, per_row = brute_nt_xent(z, by_loops(rows), positives="outside", tau=0.1)
        np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-5)
        assert not per_row[lone].any()
        different = {(i, j) for i in range(16) for j in range(i) if patient[i] == patient[j] and record[i] != record[j]}
        assert int(metrics["patient_pairs"]) == len(different)
    assert alone > 4, "patients of one recording are drawn, twice each"
    stream.close()


def test_recordings_that_nothing_was_moved_towards_are_no_views_of_themselves():
    seen = Views({"geodesic": {}}, num_views=2, rate_hz=50)
    encoder = random_encoder("resnet18", widths=(4, 4), kernel=3, embedding_dim=6, num_leads=12)
    mesh = device_mesh.make_mesh(devices=jax.devices()[:1])
    loss = pretraining_loss(
        encoder.graph,
        seen,
        Objective(*method_of("nt_xent", "same_record"), tiling=Tiling(), num_views=2),
        layout=Layout(shown=seen.shown),
        overlay=make_overlay(seen, tiling=Tiling()),
        mesh=mesh,
    )
    beats = 1000 * np.exp(-0.5 * ((np.arange(300) % 45 - 20) / 1.5) ** 2)
    ids = jnp.arange(6, dtype=jnp.int32)
    batch = dict.fromkeys(("row", "record", "patient"), ids) | {
        "signal": jnp.asarray(beats[:, None] * np.arange(1, 7)[:, None, None] / 6 * np.ones(8), jnp.int16),
        "valid": jnp.ones((6, 1), bool),
        "valid_start": 0 * ids,
        "valid_samples": 0 * ids + 300,
        partners.COLUMN: jnp.asarray([1, 0, -1, 5, -1, 3], jnp.int32),
        "seed": jnp.uint32(0),
    }
    params, stats = {"encoder": encoder.params, "objective": {}}, {"encoder": encoder.stats}
    _, (_, metrics) = jax.jit(functools.partial(loss, train=False))(params, stats, batch, jnp.int32(0))
    assert int(metrics["rows_without_partner"]) == 2
    assert int(metrics[ANCHORS_WITHOUT_POSITIVE]) == 4
    np.testing.assert_allclose(metrics["positives_per_row"], 8 / 12, rtol=1e-6)


@pytest.mark.parametrize("name", ["nt_xent", "clocs"])
def test_a_step_of_cmsc_has_no_positive_of_recordings_that_fill_no_more_than_a_segment(name):
    seen = Views({}, num_views=1, segments=2, rate_hz=50)
    layout = Layout(2, 1, shown=seen.shown)
    encoder = random_encoder("resnet18", widths=(4, 4), kernel=3, embedding_dim=6, num_leads=12)
    loss = pretraining_loss(
        encoder.graph,
        seen,
        Objective(*method_of(name, "other_segment"), tiling=Tiling(), num_views=layout.rows),
        layout=layout,
        mesh=device_mesh.make_mesh(devices=jax.devices()[:1]),
    )
    # Of 10 s that are stored 3, 5, 7 and 10 were recorded, and 3 in the midst; the last recording is drawn twice.
    start, samples = np.array([0, 0, 0, 0, 170, 170]), np.array([150, 250, 350, 500, 150, 150])
    time, record = np.arange(500), np.array([0, 1, 2, 3, 4, 4])
    inside = (time >= start[:, None]) & (time < (start + samples)[:, None])
    noise = np.random.default_rng(0).normal(0, 500, (5, 500, 8))[record]
    batch = {
        "row": jnp.arange(6, dtype=jnp.int32),
        **dict.fromkeys(("record", "patient"), jnp.asarray(record, jnp.int32)),
        "signal": jnp.asarray(np.where(inside[:, :, None], noise, 0), jnp.int16),
        "valid": jnp.ones((6, 1), bool),
        "valid_start": jnp.asarray(start, jnp.int32),
        "valid_samples": jnp.asarray(samples, jnp.int32),
        "seed": jnp.uint32(0),
    }
    params, stats = {"encoder": encoder.params, "objective": {}}, {"encoder": encoder.stats}
    run = jax.jit(jax.value_and_grad(functools.partial(loss, train=False), has_aux=True))
    (value, (_, metrics)), _ = run(params, stats, batch, jnp.int32(0))
    assert int(metrics[ANCHORS_WITHOUT_POSITIVE]) == 8, "both rows of four that fill no more than a segment"
    np.testing.assert_allclose(metrics["positives_per_row"], 4 / 12, rtol=1e-6)
    assert float(value) > 0
    for short in (150, 250):
        only = {"valid_start": 0 * batch["valid_start"], "valid_samples": 0 * batch["valid_samples"] + short}
        (value, (_, metrics)), gradient = run(params, stats, batch | only, jnp.int32(0))
        assert int(metrics[ANCHORS_WITHOUT_POSITIVE]) == 12
        assert float(value) == 0
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def recordings_of(train, val):
    """As far as sampling looks at them: the patients of two sides."""
    group = np.array([*train, *val])
    split = types.SimpleNamespace(train=np.arange(len(train)), val=np.arange(len(train), len(group)))
    return types.SimpleNamespace(index=types.SimpleNamespace(group=group), split=split)


def training_side(settings, recordings):
    return SampledSide(settings.sampling, recordings, recordings.split.train, weights=settings.data.weights)


def check(settings, recordings, layout):
    """Refuses training records of which no patient has two, where a run would."""
    check_other_recordings(training_side(settings, recordings), settings, layout)


def describe(settings, recordings, layout):
    """The lines for people of a run, as far as they look at it."""
    return describe_other_recordings(settings, recordings, training_side(settings, recordings), layout)


def test_data_without_a_second_recording_are_refused_or_said():
    settings = pclr_settings("data/alone")
    once, twice = [1, 2, 3, 4], [5, 6, 6, 7]
    message = "none of the 4 patients of data/alone's training side .* has two recordings, and .* configs/three_kg"
    with pytest.raises(ConfigError, match=message):
        check(settings, recordings_of(once, twice), ONE_ROW)
    check(settings, recordings_of(twice, once), ONE_ROW)
    drawn = Layout(views=1, shown=(Shown(-1),))
    check(settings, recordings_of(once, twice), drawn)
    assert describe(settings, recordings_of(once, twice), drawn) == []
    lines = describe(settings, recordings_of(twice, once), ONE_ROW)
    assert lines[0].startswith("1 of 3 patients have two recordings or more; those of the others are negatives alone")
    assert lines[1].startswith("no patient of the validation side has two recordings")
    for recordings in (recordings_of(twice, twice), recordings_of(twice, [])):
        assert len(describe(settings, recordings, ONE_ROW)) == 1


def test_hard_negatives_of_patients_without_a_second_recording_are_refused_or_said():
    settings = pclr_settings("data/alone")
    relation = RelationSettings(name="same_record", arguments={"others_of_patient": "negative"})
    settings = dataclasses.replace(settings, relation=relation)
    once, twice = recordings_of([1, 2, 3, 4], [5, 6, 6]), recordings_of([5, 6, 6, 7], [1])
    assert others_are_negatives(settings.method)
    with pytest.raises(
        ConfigError, match="others_of_patient='negative' finds no such negative: none of the 4 patients"
    ):
        check(settings, once, ONE_ROW)
    check(settings, twice, ONE_ROW)
    (line,) = describe(settings, twice, ONE_ROW)
    assert line.startswith("1 of 3 patients have two recordings or more, which are negatives of each other")
    assert line.endswith("counts them)")
    singly = dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, name="records"))
    assert describe(singly, twice, ONE_ROW)[0].endswith("config.sampling.name='patients' draws them together")
    left_out = dataclasses.replace(settings, relation=RelationSettings(name="same_record"))
    assert not others_are_negatives(left_out.method)
    assert describe(left_out, twice, ONE_ROW) == []


def test_a_second_objective_of_patients_without_a_second_recording_is_refused_or_said():
    of_patients = SecondSettings(
        objective=ObjectiveSettings(name="nt_xent"), relation=RelationSettings(name="same_patient")
    )
    settings = dataclasses.replace(
        pclr_settings("data/alone"), relation=RelationSettings(name="same_label"), second=of_patients
    )
    once, twice = recordings_of([1, 2, 3, 4], [5, 6, 6]), recordings_of([5, 6, 6, 7], [1])
    layout = ONE_ROW._replace(lead_groups=12)  # features have one row of a signal even so
    with pytest.raises(ConfigError, match=r"^config\.second\.relation\.name='same_patient' finds no positive: none of"):
        check(settings, once, layout)
    check(settings, twice, layout)
    lines = describe(settings, twice, layout)
    assert lines[0].startswith("second objective: 1 of 3 patients have two recordings or more")
    assert lines[0].endswith("(train/second_anchors_without_positive counts them)")
    assert lines[1].endswith("there is no positive in evaluation, and eval/second is 0")
    assert describe(dataclasses.replace(settings, second=SecondSettings()), twice, layout) == []


def components_of(group, dataset):
    """As far as sampling looks at them: the patient and the data set of every recording, all of one side."""
    group, dataset = np.array(group), np.array(dataset)
    return types.SimpleNamespace(
        index=types.SimpleNamespace(group=group, label=lambda name: dataset.astype(float)),
        datasets=[types.SimpleNamespace(directory=f"data/{number}") for number in np.unique(dataset)],
        by_dataset=lambda records: [records[dataset[records] == number] for number in np.unique(dataset)],
        split=types.SimpleNamespace(train=np.arange(len(group)), val=np.arange(0)),
    )


@pytest.mark.parametrize("mixed_by", ["weights", "balance"])
def test_a_patient_with_one_recording_in_each_of_two_components_never_has_two_in_a_unit(mixed_by):
    settings = pclr_settings("data/two")
    if mixed_by == "weights":
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, weights=(1.0, 1.0)))
    else:
        balanced = dataclasses.replace(settings.sampling, balance="dataset")
        settings = dataclasses.replace(settings, sampling=balanced)

    def sampled(**sampling):
        changed = dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, **sampling))
        return training_side(changed, apart)

    apart = components_of([1, 1, 2, 2, 3], [0, 1, 0, 1, 0])
    mixed = components_of([1, 1, 2, 2, 3, 3, 3, 1], [0, 1, 0, 0, 1, 1, 0, 1])
    for recordings in (apart, mixed):
        records = recordings.split.train
        side = training_side(settings, recordings)
        sampler = side.sampler(batch_size=settings.batch_size, seed=settings.seed)
        units = np.concatenate([sampler.record_numbers(step).reshape(-1, 2) for step in range(20)])
        pairs = units[units[:, 0] != units[:, 1]]
        dataset = np.asarray(recordings.index.label("dataset"))
        repeated = {(recordings.index.group[a], dataset[a]) for a, _ in pairs}
        all_of_them = {(recordings.index.group[a], dataset[a]) for a in records}
        assert side.patients_with_others == (len(repeated), len(all_of_them))
    assert len(repeated) == 3
    with pytest.raises(ConfigError, match="none of the 5 patients of data/two's training side"):
        check(settings, apart, ONE_ROW)
    check(settings, mixed, ONE_ROW)
    # Drawn one by one, any two of a patient may meet in a batch.
    assert sampled(name="records").patients_with_others == (2, 3)
    assert sampled(name="patients", records_per_patient=1).patients_with_others == (2, 3)


def test_recordings_with_one_label_are_positives_and_one_of_them_drawn_twice_is_not():
    rows = pairs_of_patients(NUM_ROWS, again=[0, 1])
    pairs = same_label(rows, rows)
    record, label = np.asarray(rows.record), np.asarray(rows.label)
    expected = (record[:, None] != record[None, :]) & (label[:, None] == label[None, :])
    np.testing.assert_array_equal(pairs.positive, expected)
