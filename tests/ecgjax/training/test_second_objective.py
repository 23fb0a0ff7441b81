"""Two objectives with two heads: the sum by brute force, whose gradient each head has, and what is refused."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax import defaults, encoders
from ecgjax.augmentations.crops import Recorded
from ecgjax.augmentations.views import Shown, Views
from ecgjax.data.row_metadata import needed_columns
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features.frozen_encoder import load_encoder
from ecgjax.export.model_folder import export_run
from ecgjax.keys import row_keys
from ecgjax.objectives.objective import Objective
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.objectives.settings import MinerSettings, ObjectiveSettings, RelationSettings
from ecgjax.pretrain import pretrain
from ecgjax.training import device_mesh
from ecgjax.training.embedding_rows import Layout
from ecgjax.training.second_objective import SecondObjective, check_second, project, rows_of_features
from ecgjax.training.settings import ProjectionSettings, SecondSettings
from ecgjax.training.steps import pretraining_loss
from ecgjax.training.tasks.heads import SupervisedTask
from ecgjax.training.tasks.task_settings import TaskSettings
from tests.support import tiny_config
from tests.support.finished_runs import computed
from tests.support.fixtures import make_simulated_dataset
from tests.support.objective_cases import log_sum_exp, make_rows, mean_over, positives_and_negatives, unit

BATCH, FEATURES, STEP = 16, 24, 3
RNG = np.random.default_rng(0)
NUMBER = np.arange(BATCH, dtype=np.int32)
COHORT = CohortConfig(seed=0, num_patients=BATCH, sampling_rate_hz=50, seconds=4.0)
HOST_BATCH = {
    "signal": Cohort(COHORT).simulate(0, BATCH).signal.astype(np.int16),
    **dict.fromkeys(("row", "record"), NUMBER),
    "patient": NUMBER // 2,
    "valid_start": 0 * NUMBER,
    "valid_samples": 0 * NUMBER + 200,
    "label": RNG.normal(15, 4, BATCH).astype(np.float32),
}
#: Weight and temperature of either loss.
FIRST, SECOND = (1.5, 0.5), (0.7, 0.3)
VIEWS = Views({"time_mask": {"ratio": 0.5}, "vcg": {}}, rate_hz=50)


class Weighted(nnx.Module):
    """An encoder whose features are two weighted numbers of each lead, and whose embeddings are linear in them.

    Args:
        groups: Embeddings of a signal.
        rngs: Random numbers of the initialisation.
    """

    def __init__(self, groups, rngs):
        self.weight = nnx.Param(1 + 0.3 * jax.random.normal(rngs(), (FEATURES,)))
        self.head = nnx.Linear(FEATURES, 4 * groups, rngs=rngs)
        self.groups = groups

    def with_features(self, ecg, *, train, keys=None, valid=None):
        del train, keys, valid
        features = numbers_of(ecg, jnp) * self.weight[...][None]
        z = self.head(features)
        return (z if self.groups == 1 else z.reshape(-1, self.groups, 4)), features

    def __call__(self, ecg, *, train, keys=None, valid=None):
        return self.with_features(ecg, train=train, keys=keys, valid=valid)[0]


def numbers_of(ecg, xnp):
    return xnp.concatenate([ecg[:, ::3].mean(1), xnp.abs(ecg).mean(1)], axis=1)


@functools.cache
def weighted(groups=1):
    with jax.numpy_rank_promotion("allow"):
        graph, params = nnx.split(Weighted(groups, nnx.Rngs(0)))
    return encoders.Split(graph, nnx.to_pure_dict(params), {})


def second_settings(*, hidden=None, weight=SECOND[0], relation="same_patient", **leaves):
    arguments = {"temperature": SECOND[1]} | leaves
    return SecondSettings(
        objective=ObjectiveSettings(name="nt_xent", weight=weight, learn=("temperature",), arguments=arguments),
        relation=RelationSettings(name=relation),
        head=ProjectionSettings(hidden=hidden, dim=3),
    )


def second_objective(settings, *, layout, mesh=None):
    tiling = Tiling(mesh=mesh, chunk=5)
    return SecondObjective(settings, features=FEATURES, layout=rows_of_features(layout), tiling=tiling)


@functools.cache
def program(*, hidden=None, weights=(FIRST[0], SECOND[0]), devices=1, parts=1, groups=1, task=False, views=2):
    """Value, metrics and gradient of the sum as one program, and the parameters that it begins with.

    A weight of None leaves the second objective out.
    """
    mesh = device_mesh.make_mesh(devices=jax.devices()[:devices])
    drawn = VIEWS if views == 2 else Views({}, num_views=views, rate_hz=50)
    layout = Layout(views=views, lead_groups=groups, shown=drawn.shown)
    first = Objective(
        ObjectiveSettings(name="nt_xent", weight=weights[0], arguments={"temperature": FIRST[1]}),
        RelationSettings(name="same_record" if groups == 1 else "other_lead"),
        MinerSettings(),
        tiling=Tiling(mesh=mesh, chunk=5),
        num_views=layout.rows,
    )
    encoder = weighted(groups)
    params, stats, beside = {"encoder": encoder.params, "objective": {}}, {"encoder": {}}, {}
    if weights[1] is not None:
        settings = second_settings(hidden=hidden, weight=weights[1])
        beside["second"] = second_objective(settings, layout=layout, mesh=mesh)
        params["second"] = beside["second"].init(seed=0)
        rng = np.random.default_rng(1)
        # Biases begin at 0, where a fault in them would not be seen.
        head = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), params["second"]["head"])
        params["second"]["head"] = head
    if task:
        beside["task"] = SupervisedTask(
            TaskSettings(name="regression", hidden=6, dropout=0.0), dim=4, labels=HOST_BATCH["label"], seed=0
        )
        params["task"], stats["task"] = beside["task"].head.params, beside["task"].head.stats
    loss = pretraining_loss(encoder.graph, drawn, first, layout=layout, mesh=mesh, parts=parts, **beside)
    run = jax.jit(functools.partial(jax.value_and_grad(loss, has_aux=True), train=True))

    def evaluate(batch):
        everywhere = device_mesh.replicated(mesh)
        with jax.numpy_rank_promotion("allow"):  # of flax's linear layer
            found = run(*jax.device_put((params, stats), everywhere), placed(batch, mesh), jnp.int32(STEP))
        (value, (_, metrics)), gradient = jax.device_get(found)
        return value, metrics, gradient

    return evaluate, jax.device_get(params)


def placed(batch, mesh):
    """The batch on a mesh; `valid` says which rows could be read."""
    sharding = device_mesh.batch_sharding(mesh)
    rows = device_mesh.local_rows(sharding, BATCH)
    votes = device_mesh.put_votes(batch["valid"][rows], mesh=mesh, rows=rows, batch_size=BATCH)
    local = {name: values[rows] for name, values in batch.items() if name != "valid"}
    on_mesh = device_mesh.put_batch(local, sharding=sharding, rows=rows, batch_size=BATCH)
    return on_mesh | {"valid": votes, "seed": jnp.uint32(0)}


def batch_of(*, patient=NUMBER // 2, unread=()):
    return HOST_BATCH | {"patient": np.asarray(patient, np.int32), "valid": ~np.isin(NUMBER, unread)}


CASES = {
    "two records a patient": batch_of(),
    "one patient only": batch_of(patient=0 * NUMBER),
    "no patient twice": batch_of(patient=NUMBER),
    "masked rows": batch_of(patient=NUMBER // 3, unread=(1, 4, 5, 12)),
    "nothing could be read": batch_of(unread=NUMBER),
}


@jax.jit
def signals_of(row, signal, valid, start, samples):
    keys = row_keys(jnp.uint32(0), jnp.int32(STEP), row, stream="views")
    read = jnp.where(valid[:, None, None], signal, jnp.int16(0))
    views = VIEWS(keys, read, recorded=Recorded(start, samples))
    return views.reshape(-1, *views.shape[2:])


def brute_force(batch):
    """Returns the function of parameters to the two losses in float64."""
    columns = (batch[name] for name in ("row", "signal", "valid", "valid_start", "valid_samples"))
    numbers = numbers_of(np.asarray(signals_of(*columns), np.float64), np)
    spread = {name: np.repeat(batch[name], 2) for name in ("record", "patient", "valid")}
    rows = make_rows(spread["record"], spread["patient"], np.tile([0, 1], BATCH), valid=spread["valid"])
    pairs = {by: positives_and_negatives(rows, by) for by in ("record", "patient")}

    def losses(params):
        encoder, second = params["encoder"], params["second"]
        features = numbers * encoder["weight"]
        z = features @ encoder["head"]["kernel"] + encoder["head"]["bias"]
        inner = features
        if "inner" in second["head"]:
            layer = second["head"]["inner"]
            inner = np.maximum(features @ layer["kernel"] + layer["bias"], 0)
        y = inner @ second["head"]["outer"]["kernel"] + second["head"]["outer"]["bias"]
        temperature = np.exp(second["objective"]["temperature"])
        return contrast(z, pairs["record"], FIRST[1]), contrast(y, pairs["patient"], temperature)

    return losses


def contrast(z, pairs, temperature):
    """Equation 2 of Khosla et al. 2020, which is NT-Xent for a single positive."""
    logits = unit(z) @ unit(z).T / temperature
    return mean_over(
        [
            log_sum_exp(logits[i, positive + negative]) - np.mean(logits[i, positive]) if positive else None
            for i, (positive, negative) in enumerate(pairs)
        ]
    )[0]


def differences(function, params, eps=1e-6):
    """Returns the gradient of a function of a tree by central differences in every element."""
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda x: np.array(x, np.float64), params))
    found = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, slopes in zip(leaves, found, strict=True):
        for place in np.ndindex(leaf.shape):
            middle, values = leaf[place], []
            for moved in (middle + eps, middle - eps):
                leaf[place] = moved
                values.append(function(structure.unflatten(leaves)))
            leaf[place], slopes[place] = middle, (values[0] - values[1]) / (2 * eps)
    return structure.unflatten(found)


def assert_near(found, expected, *, share, scale=None):
    """Every leaf within a share of the largest element of all."""
    scale = max(np.abs(leaf).max(initial=0) for leaf in jax.tree.leaves(expected)) if scale is None else scale
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * scale, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("case", "hidden"), [*((case, None) for case in CASES), ("two records a patient", 7), ("masked rows", 7)]
)
def test_value_and_gradient_of_the_sum_equal_brute_force(case, hidden):
    evaluate, params = program(hidden=hidden)
    value, metrics, gradient = evaluate(CASES[case])
    losses = brute_force(CASES[case])
    first, second = losses(params)
    np.testing.assert_allclose(metrics["objective"], first, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(metrics["second"], second, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(value, FIRST[0] * first + SECOND[0] * second, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(metrics["second_temperature"], SECOND[1], rtol=1e-6)
    expected = differences(lambda tree: float(np.dot((FIRST[0], SECOND[0]), losses(tree))), params)
    slope = abs(expected["encoder"]["weight"]).max()
    if case == "nothing could be read":
        assert first == second == slope == 0
    else:
        assert second > 0.1
        assert slope > 1e-3
    if case == "one patient only":
        assert metrics["negatives_per_row"] == metrics["second_negatives_per_row"] == 0
    # Without negatives, attraction between rows that are alike nearly cancels, and rounding is that of its terms.
    assert_near(gradient, expected, share=2e-5, scale=max(slope, 1.0) if slope < 0.01 else None)


def test_each_head_has_the_gradient_of_its_own_loss_and_the_first_loss_is_as_it_was():
    both, first_alone, second_alone, without = (
        program(weights=weights)[0](CASES["masked rows"])
        for weights in ((FIRST[0], SECOND[0]), (FIRST[0], 0.0), (0.0, SECOND[0]), (FIRST[0], None))
    )
    np.testing.assert_allclose(without[0], FIRST[0] * both[1]["objective"], rtol=1e-6)
    assert "second" not in without[1]
    assert {name for name in both[1] if name not in without[1]} >= {"second", "second_anchors_without_positive"}
    for name in without[1].keys() - {"loss"}:
        np.testing.assert_allclose(without[1][name], both[1][name], rtol=1e-5, atol=1e-6, err_msg=name)
    for alone in (without, first_alone):
        assert_near(alone[2]["encoder"]["head"], both[2]["encoder"]["head"], share=2e-6)
    assert_near(second_alone[2]["second"], both[2]["second"], share=2e-6)
    assert not any(leaf.any() for leaf in jax.tree.leaves(first_alone[2]["second"]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(second_alone[2]["encoder"]["head"]))
    encoder = [found[2]["encoder"]["weight"] for found in (first_alone, second_alone)]
    assert min(np.abs(each).max() for each in encoder) > 1e-2, "what lies below both heads is trained by both"
    assert_near(sum(encoder), both[2]["encoder"]["weight"], share=2e-6)


@pytest.mark.parametrize(("devices", "parts"), [(1, 4), (2, 1), (8, 2)])
def test_devices_and_parts_change_neither_loss_nor_gradient(devices, parts):
    value, metrics, gradient = program(devices=devices, parts=parts, task=True)[0](CASES["masked rows"])
    expected_value, expected, expected_gradient = program(task=True)[0](CASES["masked rows"])
    sum_of_terms = FIRST[0] * metrics["objective"] + SECOND[0] * metrics["second"] + metrics["task"]
    np.testing.assert_allclose(value, sum_of_terms, rtol=1e-6)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    for name in expected:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert expected["second_positives_per_row"] > 1.5
    assert_near(gradient, expected_gradient, share=1e-5)


def test_a_row_of_features_is_a_signals_however_many_embeddings_it_has():
    _, one, gradient_of_one = program(weights=(0.0, SECOND[0]))[0](CASES["masked rows"])
    _, three, gradient_of_three = program(weights=(0.0, SECOND[0]), groups=3)[0](CASES["masked rows"])
    assert one["second"] > 0.1
    for name in (name for name in one if name.startswith("second")):
        np.testing.assert_allclose(three[name], one[name], rtol=1e-6, err_msg=name)
    assert_near(gradient_of_three["second"], gradient_of_one["second"], share=1e-6)
    assert three["positives_per_row"] > 2 * one["positives_per_row"], "rows of the other two groups in both views"


@pytest.mark.parametrize("repeated", [False, True])
def test_rows_without_a_positive_cost_nothing_and_their_gradient_is_zero(repeated):
    """One row of each recording, for which nothing is drawn: only another recording of the patient is a positive."""
    patient = np.where(NUMBER < 4, NUMBER // 2, NUMBER) if repeated else NUMBER
    value, metrics, gradient = program(views=1)[0](batch_of(patient=patient))
    assert metrics["objective"] == 0
    assert metrics["second_anchors_without_positive"] == (12 if repeated else 16)
    assert (value > 0.1) == repeated
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient)) == repeated


def test_a_head_computes_in_float32_what_an_encoder_hands_on_in_a_narrow_type():
    head = second_objective(second_settings(hidden=5), layout=Layout()).init(seed=0)["head"]
    features = jnp.asarray(RNG.normal(size=(3, FEATURES)), jnp.bfloat16)
    out = jax.jit(project)(head, features)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, jax.jit(project)(head, features.astype(jnp.float32)))


def test_draws_are_apart_from_those_of_the_first_objective_and_of_other_seeds():
    make = second_objective(second_settings(hidden=5), layout=Layout())
    one, same, other = (make.init(seed=seed)["head"] for seed in (0, 0, 1))
    assert_near(one, same, share=0)
    assert one["inner"]["kernel"].shape == (FEATURES, 5)
    assert one["outer"]["kernel"].shape == (5, 3)
    assert np.abs(one["inner"]["kernel"] - other["inner"]["kernel"]).min() > 0
    assert second_objective(second_settings(), layout=Layout()).init(seed=0)["head"].keys() == {"outer"}


@pytest.mark.parametrize(
    ("settings", "layout", "decoder", "message"),
    [
        (
            SecondSettings(head=ProjectionSettings(hidden=16)), Layout(), False,
            r"config\.second\.head\.hidden=16 has no effect without a second loss: name one in "
            r"config\.second\.objective\.name, or give --config\.second\.head\.hidden=None",
        ),
        (
            SecondSettings(relation=RelationSettings(name="same_patient")), Layout(), False,
            r"config\.second\.relation\.name='same_patient' has no effect without",
        ),
        (second_settings(), Layout(), True, r"second\.objective\.name='nt_xent' reads features, which is not possible"),
        (
            second_settings(relation="same_record"), Layout(views=1), False,
            r"^config\.second\.relation\.name='same_record' finds no positive: .*config\.views\.num",
        ),
        (
            second_settings(relation="other_lead"), Layout(lead_groups=12), False,
            r"second\.relation\.name='other_lead' finds no positive.*all 12 groups.* for config\.relation alone",
        ),
        (
            second_settings(relation="same_record"), Layout(shown=(Shown(0), Shown(0))), False,
            "views, which are all the same signal",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_by_name(settings, layout, decoder, message):
    with pytest.raises(ConfigError, match=message):
        check_second(settings, layout, decoder=decoder)


def test_what_fits_is_not_refused():
    check_second(SecondSettings(), Layout(views=1), decoder=True)
    check_second(second_settings(), Layout(views=1, lead_groups=12), decoder=False)


def test_errors_of_loss_relation_and_miner_name_the_second_objectives_leaves():
    wrong = SecondSettings(objective=ObjectiveSettings(name="vicreg"), relation=RelationSettings(name="same_patient"))
    message = (
        r"^config\.second\.objective\.name='vicreg' takes no relation; set config\.second\.relation to None: "
        r"name='same_patient' \(--config\.second\.relation\.name=None\)$"
    )
    with pytest.raises(ConfigError, match=message):
        second_objective(wrong, layout=Layout())
    objective = second_objective(second_settings(positives="between"), layout=Layout())
    columns = {name: jnp.asarray(values) for name, values in batch_of().items() if name not in ("signal", "label")}
    with pytest.raises(ConfigError, match=r"^config\.second\.objective\.positives='between' must be"):
        jax.eval_shape(
            lambda params, features: objective(params, features, columns, signal=None, seed=0, step=jnp.int32(0)),
            objective.init(seed=0),
            jax.ShapeDtypeStruct((2 * BATCH, FEATURES), jnp.float32),
        )


def settings_with(**leaves):
    config = tiny_config.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in leaves.items()})
    return defaults.settings_of(config)


def test_columns_of_the_second_relation_are_read():
    named = {"second__objective__name": "nt_xent", "second__relation__name": "same_demographics"}
    assert needed_columns(settings_with(**named).column_use) == {"sex", "age"}
    both = settings_with(**named, relation__name="same_label")
    assert needed_columns(both.column_use) == {"sex", "age", "label"}
    assert needed_columns(settings_with(second__relation__name="same_demographics").column_use) == set()


def run_of(dataset, **leaves):
    """The config of a run with everything that a second head meets: parts, an average, frozen layers, a learnt τ."""
    config = tiny_config.get_config()
    config.data.dir = str(dataset)
    config.sampling.name = "patients"
    config.second.objective.name, config.second.relation.name = "nt_xent", "same_patient"
    config.second.objective.learn, config.second.objective.temperature = ("temperature",), 0.2
    config.second.head.hidden, config.second.head.dim = 12, 6
    config.optimizer.ema_decay, config.optimizer.frozen = 0.9, ("^encoder/stem_",)
    config.micro_batch.parts, config.micro_batch.batch_norm = 1, "per_part"
    config.duration.value, config.checkpoint.every, config.checkpoint.keep, config.eval_every = 6.0, 2, 4, 3
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in leaves.items()})
    return config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=50, seconds=4).directory


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_and_its_model_has_no_second_head(dataset, tmp_path):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert pretrain(run_of(dataset), tmp_path / "whole", progress=False)
        shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
        for step in (4, 6):
            shutil.rmtree(tmp_path / "stopped" / "checkpoints" / str(step))
        assert pretrain(run_of(dataset), tmp_path / "stopped", progress=False)
        whole = computed(tmp_path / "whole")
        assert whole == computed(tmp_path / "stopped")
        names = {name for line in whole for name in line}
        assert {"train/second", "eval/second", "train/second_temperature", "train/objective"} <= names
        moved = [line["train/second_temperature"] for line in whole if "train/second_temperature" in line]
        assert moved[0] != moved[-1]
        encoder = load_encoder(tmp_path / "whole")
        folder = export_run(tmp_path / "whole", tmp_path / "model", statistics="running", formats=())
    assert "second" not in encoder.split.params
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert described["training"]["second_objective"]["relation"]["name"] == "same_patient"
    assert not [name for name in described["tensors"] if "second" in name]
    assert "- Second objective: loss nt_xent, relation same_patient;" in (folder / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_a_run_in_parts_on_one_batch_with_every_operation_checked_goes_to_its_end(dataset, tmp_path):
    debug = {"debug__nan_checks": True, "debug__reuse_batch": True, "duration__value": 2.0, "eval_every": 0}
    config = run_of(dataset, batch_size=16, micro_batch__parts=2, second__objective__learn=(), **debug)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for _ in range(2):  # The second opens the checkpoint of the first, whose loss learns nothing itself.
            assert pretrain(config, tmp_path / "run", progress=False)
    assert all(np.isfinite(line["train/second"]) for line in computed(tmp_path / "run") if "train/second" in line)
