"""What relations and miners look at of a recording, end to end: each is built and trained from the config alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.physiology.store import measure_dataset, open_physiology
from data_pipelines.prepared.dataset import open_dataset
from ecgjax import defaults
from ecgjax.data.labels import probe_data
from ecgjax.data.recordings import open_recordings
from ecgjax.data.row_metadata import CLUSTERED, labels_looked_at, row_columns
from ecgjax.data.tasks import parse_task
from ecgjax.errors import ConfigError
from ecgjax.objectives.pairs.relations import Rows
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.training import device_mesh
from ecgjax.training.assembly import assemble
from ecgjax.training.embedding_rows import Layout, embedding_rows
from ecgjax.training.run import prepare_run
from ecgjax.training.run_batches import abstract_batch
from ecgjax.training.signal_columns import SignalNeighbours
from tests.support import tiny_config
from tests.support.fixtures import make_simulated_dataset


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    dataset = make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=40, rate=100, seconds=6)
    measure_dataset(dataset.directory, num_workers=1)
    return dataset.directory


@pytest.fixture(scope="module")
def partners(directory, tmp_path_factory):
    """Made-up reports of every recording but the first, of which several share one."""
    folder = tmp_path_factory.mktemp("reports")
    record_id = open_dataset(directory).index.record_id[1:]
    reports = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.save(folder / "record_id.npy", record_id)
    np.save(folder / "embedding.npy", reports[np.arange(len(record_id)) % 5])
    return folder


def settings_of(directory, **leaves):
    config = tiny_config.get_config()
    config.data.dir = str(directory)
    config.columns.components, config.columns.clusters = 5, 3
    for path, value in leaves.items():
        *above, leaf = path.split("__")
        section = config
        for name in above:
            section = section[name]
        with section.ignore_type():
            section[leaf] = value
    return defaults.settings_of(config)


def columns_of(settings):
    recordings = open_recordings(settings.data)
    return recordings, row_columns(settings.column_use, recordings, seed=settings.seed)


def test_only_what_is_looked_at_is_made(directory):
    assert columns_of(settings_of(directory))[1] == {}
    _, columns = columns_of(settings_of(directory, relation__name="same_demographics"))
    assert {name: values.dtype.name for name, values in columns.items()} == {"age": "float32", "sex": "int32"}


def test_physiology_is_standardised_on_training_records_alone(directory):
    recordings, columns = columns_of(settings_of(directory, relation__name="similar_physiology"))
    vectors, train = columns["physiology"], recordings.split.train
    assert vectors.shape == (recordings.index.num_records, 5)
    np.testing.assert_allclose(np.nanmean(vectors[train], axis=0), 0, atol=1e-4)
    covariance = np.cov(vectors[train][np.isfinite(vectors[train]).all(1)].T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3 * covariance.max())


def test_measured_waves_are_targets_in_their_units(directory):
    leaves = {"task__name": "measurements", "columns__measurements": ("rate", "qtc_mean"), "columns__task": "lvef<40"}
    settings = settings_of(directory, **leaves)
    assert labels_looked_at(settings.column_use) == (), "they are no labels"
    recordings, columns = columns_of(settings)
    assert columns.keys() == {"measured"}
    stored = open_physiology(open_dataset(directory))
    expected = stored.values[:, [stored.names.index(name) for name in ("rr_mean", "rr_median", "qtc_mean")]]
    np.testing.assert_array_equal(columns["measured"], expected)
    assert 500 < np.nanmedian(columns["measured"][recordings.split.train, 0]) < 1500


def test_clusters_are_numbered_and_incomplete_records_have_none(directory):
    recordings, columns = columns_of(settings_of(directory, relation__name="same_cluster"))
    assert set(np.unique(columns["cluster"])) <= {-1, 0, 1, 2}
    assert len(np.unique(columns["cluster"][recordings.split.train])) >= 3
    assert len(CLUSTERED) == 11


def test_labels_are_values_or_answers(directory):
    _, values = columns_of(settings_of(directory, relation__name="same_label", columns__task="lvef"))
    recordings, classes = columns_of(settings_of(directory, relation__name="same_label", columns__task="lvef<40"))
    np.testing.assert_array_equal(values["label"], recordings.index.label("lvef"))
    np.testing.assert_array_equal(classes["label"], values["label"] < 40)


def test_a_quantity_is_seen_as_classes_and_predicted_as_it_is(directory):
    leaves = {"relation__name": "same_label", "columns__task": "wedge_pressure", "columns__class_width": 2.0}
    recordings, columns = columns_of(settings_of(directory, **leaves, task__name="regression"))
    pressure = recordings.index.label("wedge_pressure")
    np.testing.assert_array_equal(columns["label"], pressure)
    np.testing.assert_array_equal(columns["label_class"], np.floor(pressure / 2))
    number = jnp.arange(3, dtype=jnp.int32)
    batch = {"row": number, "record": number, "patient": number, "valid": number >= 0}
    batch |= {"label": jnp.asarray([3.9, 4.0, 5.9]), "label_class": jnp.asarray([1.0, 2.0, 2.0])}
    rows = embedding_rows(batch, Layout(views=1))
    np.testing.assert_array_equal(rows.label, [1, 2, 2])
    # A task alone needs no classes.
    assert columns_of(settings_of(directory, **leaves | {"relation__name": "same_record"}))[1] == {}


def test_labels_of_some_training_patients_alone_are_used(directory):
    leaves = {"relation__name": "same_label", "columns__task": "lvef<40"}
    recordings, every = columns_of(settings_of(directory, **leaves))
    _, half = columns_of(settings_of(directory, **leaves, columns__label_fraction=0.5))
    train, group = recordings.split.train, np.asarray(recordings.index.group)
    used = ~np.isnan(half["label"])
    patients = [np.unique(group[train[mask[train]]]) for mask in (~np.isnan(every["label"]), used)]
    assert len(patients[1]) == -(-len(patients[0]) // 2)
    assert not np.isin(group[train[~used[train]]], patients[1]).any(), "a patient's labels are used together"
    np.testing.assert_array_equal(half["label"][used], every["label"][used])
    others = np.setdiff1d(np.arange(len(used)), train)
    np.testing.assert_array_equal(half["label"][others], every["label"][others])
    # They are the patients that a fine-tuning with the same seed and fraction draws.
    task = parse_task("lvef<40")
    drawn = probe_data(recordings.index, recordings.split, task=task, label_fraction=0.5, seed=0).train
    np.testing.assert_array_equal(drawn.records, train[used[train]])


def test_partners_need_a_folder_for_every_data_set(directory, partners):
    recordings, columns = columns_of(settings_of(directory, objective__name="clip", columns__paired=str(partners)))
    assert columns["paired"].shape == (recordings.index.num_records, 6)
    assert len(np.unique(columns["pair_group"])) == 6
    for folders in ("", f"{partners},{partners}"):
        with pytest.raises(ConfigError, match=r"must name a folder of embedding\.npy and record_id\.npy for each of"):
            columns_of(settings_of(directory, objective__name="clip", columns__paired=folders))


def test_what_is_missing_is_said(directory, tmp_path):
    with pytest.raises(ConfigError, match=r"name a question in config\.columns\.task, such as 'lvef<40'"):
        columns_of(settings_of(directory, relation__name="same_label"))
    with pytest.raises(ConfigError, match=r"config\.columns\.clusters=4000 are more than the \d+ training records"):
        columns_of(settings_of(directory, relation__name="same_cluster", columns__clusters=4000))
    bare = make_simulated_dataset(tmp_path, num_patients=60, rate=50, seconds=4).directory
    with pytest.raises(DataError, match=r"data_pipelines\.measure"):
        columns_of(settings_of(bare, relation__name="similar_physiology"))
    with pytest.raises(DataError, match=rf"not measured; run python -m data_pipelines\.measure --dataset={bare}"):
        columns_of(settings_of(bare, task__name="measurements"))
    with pytest.raises(ConfigError, match=r"signal_radius=None with signal_distance='dtw'"):
        SignalNeighbours(settings_of(directory, columns__signal_distance="dtw").columns, tiling=Tiling())
    with pytest.raises(ConfigError, match=r"signal_distance='cosine' is unknown; there are: l1, l2, dtw"):
        SignalNeighbours(settings_of(directory, columns__signal_distance="cosine").columns, tiling=Tiling())


def test_neighbours_of_views_are_the_same_views_of_the_nearest_recordings(directory):
    rng = np.random.default_rng(0)
    signal = (1000 * rng.normal(size=(6, 50, 8))).astype(np.int16)
    number = jnp.arange(6, dtype=jnp.int32)
    recordings = Rows(row=number, record=number, patient=number // 2, view=0 * number, valid=number != 4)
    neighbours = SignalNeighbours(settings_of(directory).columns, tiling=Tiling())
    found = jax.jit(functools.partial(neighbours.__call__, num_views=2))(jnp.asarray(signal), recordings)
    means = signal.astype(np.float64).reshape(6, 5, 10, 8).mean(2) / 1000
    apart = np.abs(means[:, None] - means[None]).mean((2, 3))
    for i in range(6):
        others = [j for j in range(6) if j not in (i, 4) and i != 4]
        nearest = min(others, key=lambda j, i=i: apart[i, j], default=None)
        for view in range(2):
            assert found["nearest"][2 * i + view] == (-1 if nearest is None else 2 * nearest + view)
            assert found["nearest_record"][2 * i + view] == (-1 if nearest is None else nearest)
        strangers = sorted((j for j in others if j // 2 != i // 2), key=lambda j, i=i: -apart[i, j])[:2]
        expected = [2 * j + 1 for j in strangers] + [-1] * (2 - len(strangers))
        assert found["farthest"][2 * i + 1].tolist() == expected


METHODS = {
    "PhysioCLR's positives": {"relation__name": "similar_physiology"},
    "signal neighbours": {
        "objective__name": "triplet",
        "objective__temperature": None,
        "relation__name": "nearest_signal",
        "miner__name": "signal_distance",
        "miner__among_farthest": True,
    },
    "labels, mined": {
        "objective__name": "margin",
        "objective__temperature": None,
        "objective__learn": ("beta",),
        "relation__name": "same_label",
        "miner__name": "npair",
        "columns__task": "lvef<40",
        "task__name": "binary",
    },
    "a margin from the first batch": {
        "objective__name": "triplet",
        "objective__temperature": None,
        "objective__margin_share": 0.2,
        "relation__name": "same_label",
        "miner__name": "npair",
        "columns__task": "wedge_pressure",
        "columns__class_width": 2.0,
        "columns__label_fraction": 0.5,
        "task__name": "regression",
        "init__head_variance": 1 / 3,
        "optimizer__decayed": "all",
    },
    "measured waves beside the objective": {
        "task__name": "measurements",
        "task__reads": "features",
        "task__views": (1,),
        "columns__without_measurements": ("beat_correlation",),
    },
    "partners of another modality": {
        "objective__name": "clip",
        "objective__learn": ("temperature",),
        "relation__name": None,
    },
}


def method_of(directory, partners, method):
    leaves = METHODS[method]
    paired = {"columns__paired": str(partners)} if leaves.get("objective__name") == "clip" else {}
    return settings_of(directory, **leaves | paired)


def moving(directory, **leaves):
    return settings_of(directory, **{"columns__task": "lvef<40", "augment__geodesic__enabled": True} | leaves)


def test_moving_between_labels_needs_two_of_them(directory):
    assert set(columns_of(moving(directory))[1]) == {"label", "physiology"}
    assert set(columns_of(moving(directory, augment__geodesic__coupling="independent"))[1]) == {"label"}
    for question, message in (
        ("lvef<-1", r"no training record has the answer 1 to config\.columns\.task='lvef<-1'"),
        ("", r"augmentation looks at labels: name a question in config\.columns\.task"),
        (
            "lvef",
            r"between two labels, and config\.columns\.task='lvef' gives values: .*'lvef<40'",
        ),
        ("superdiagnostic:*", r"config\.columns\.task='superdiagnostic:\*' has several answers a record"),
    ):
        with pytest.raises(ConfigError, match=message):
            columns_of(moving(directory, columns__task=question))
    with pytest.raises(ConfigError, match=r"coupling='nearest' is unknown; there are: transport, independent"):
        columns_of(moving(directory, augment__geodesic__coupling="nearest"))


@pytest.mark.parametrize("method", [*sorted(METHODS), "moved between labels"])
def test_methods_are_built_from_the_config_alone(directory, partners, method):
    settings = moving(directory) if method not in METHODS else method_of(directory, partners, method)
    recordings, columns = columns_of(settings)
    mesh = device_mesh.make_mesh(devices=jax.devices()[:1])
    model = assemble(
        settings, signal_format=recordings.format, train=recordings.split.train, columns=columns, mesh=mesh
    )
    batch = abstract_batch(settings, recordings.format, columns, mesh)
    (loss, _), gradient = jax.eval_shape(
        jax.value_and_grad(functools.partial(model.loss, train=True), has_aux=True),
        model.params, model.stats, batch, jax.ShapeDtypeStruct((), jnp.int32),
    )  # fmt: skip
    assert loss.shape == ()
    assert jax.tree.structure(gradient) == jax.tree.structure(model.params)


@pytest.mark.slow
def test_recordings_are_moved_between_labels_from_the_config_alone(directory):
    with jax.numpy_dtype_promotion("standard"):
        run = prepare_run(moving(directory))
    stream = run.batches(run.sampler)
    state, batch = run.state, next(stream)
    stream.close()
    state, metrics = run.step(state, batch)
    label, partner = run.columns["label"][np.asarray(batch["record"])], np.asarray(batch["geodesic_partner"])
    has = partner >= 0
    assert has.any()
    np.testing.assert_array_equal(label[partner[has]], 1 - label[has])
    assert float(metrics["rows_without_partner"]) == (~has).sum()
    assert np.isfinite(metrics["loss"])


# Built they are above; pairs and triplets of one label are trained on in `objectives`.
@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_train_from_the_config_alone(directory, partners, method):
    settings = method_of(directory, partners, method)
    with jax.numpy_dtype_promotion("standard"):  # of optax's schedules
        run = prepare_run(settings)
    stream = run.batches(run.sampler)
    before = jax.device_get(run.state.params)
    state = run.state
    for _ in range(2):
        state, metrics = run.step(state, next(stream))
    stream.close()
    assert all(np.isfinite(metrics[name]) for name in ("loss", "grad_norm", "effective_rank"))
    assert float(metrics["grad_norm"]) > 0
    after = jax.device_get(state.params)
    assert (after["encoder"]["head"]["kernel"] != before["encoder"]["head"]["kernel"]).any()
    for name in METHODS[method].get("objective__learn", ()):
        assert after["objective"][name] != before["objective"][name]
    if settings.task.name:
        assert (after["task"]["inner"]["kernel"] != before["task"]["inner"]["kernel"]).any()
        np.testing.assert_allclose(metrics["loss"], metrics["objective"] + metrics["task"], rtol=1e-6)
    if settings.objective.name == "clip":
        assert (after["objective"]["projection"] != before["objective"]["projection"]).any()


def test_the_last_layer_begins_with_a_share_of_its_variance(directory):
    def kernels(**leaves):
        settings = settings_of(directory, **leaves)
        recordings, columns = columns_of(settings)
        mesh = device_mesh.make_mesh(devices=jax.devices()[:1])
        form, train = recordings.format, recordings.split.train
        return assemble(settings, signal_format=form, train=train, columns=columns, mesh=mesh).params["encoder"]

    usual, third = kernels(), kernels(init__head_variance=1 / 3)
    kernel = third["head"].pop("kernel")
    np.testing.assert_allclose(kernel, usual["head"].pop("kernel") / np.sqrt(3), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, usual, third)
