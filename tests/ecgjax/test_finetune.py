"""Fine-tuning as a run: stopped and resumed, exported, on several devices, and what it refuses."""

import dataclasses
import functools
import itertools
import json
import shutil
import sys

import jax
import numpy as np
import pytest

import ecgjax
from data_pipelines.errors import DataError
from ecgjax import defaults, finetune
from ecgjax.config import run_config
from ecgjax.data.recordings import Recordings, open_recordings
from ecgjax.errors import ConfigError, DivergedError
from ecgjax.evaluation.features.labelled_features import LabelledFeatures
from ecgjax.evaluation.results import Key, read_results
from ecgjax.export.model_folder import export_run
from ecgjax.finetuning import run as finetuning_run
from ecgjax.finetuning.looks import Looks
from ecgjax.finetuning.run import first_state, make_look, prepare_run, restore_latest
from ecgjax.finetuning.settings import FineTuningSettings
from ecgjax.finetuning.trainer import FineTuning
from ecgjax.pretrain import pretrain
from ecgjax.pretrained.beginning import open_beginning
from ecgjax.pretrained.source import chosen_place, open_source
from ecgjax.settings.initialisation import InitSettings
from ecgjax.settings.sections import config_of, read
from ecgjax.studies.tuned_run import tuned_model
from ecgjax.studies.tuned_run.labelled_start import check_signals, open_start
from ecgjax.training import device_mesh
from ecgjax.training.checkpoints.checkpoint import Checkpoints
from ecgjax.training.profiling.operations import latest_trace
from ecgjax.training.run_log.metrics_file import read_metrics
from ecgjax.training.run_time.account import account_of
from ecgjax.training.run_time.events import read_events
from tests.ecgjax.training.trackers.test_tracking import FakeWandb
from tests.support.finished_runs import computed, last_of_fine_tuning, predictions
from tests.support.fixtures import make_simulated_dataset
from tests.support.stopping import stop_at
from tests.support.storage_faults import damage, largest_file
from tests.support.written_runs import tiny, write_run

on_all_devices = device_mesh.make_mesh

STEPS = 12
SOAK = (pytest.mark.slow, pytest.mark.soak)
FOLDS = {"data__train_folds": (1, 2, 3, 4, 5), "data__val_folds": (6, 7), "data__test_folds": (8, 9, 10)}
# Everything that a checkpoint must bring back, in one run.
ALL = {
    "training__head_start": "probe", "training__metric__weight": 0.5, "training__balance": True,
    "training__layer_decay": 0.7, "training__frozen": ("encoder/stem_",), "optimizer__ema_decay": 0.8,
    "optimizer__clip_norm": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    """Optimisers mix types, which the other tests forbid; one device compiles faster than eight."""
    one_device = functools.partial(device_mesh.make_mesh, devices=jax.devices()[:1])
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_mesh, "make_mesh", one_device)
        # What ONNX and StableHLO files hold is tested where they are written.
        patch.setattr(tuned_model, "_WRITTEN_WITH", {})
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("data"), num_patients=80, rate=50, seconds=4).directory


@pytest.fixture(scope="module")
def source(dataset, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "source", tiny(dataset, **FOLDS))


@pytest.fixture(scope="module")
def config(dataset, source):
    """Returns a function that makes the config of a short run, with some leaves changed."""

    def make(**leaves):
        config = config_of(FineTuningSettings)
        changes = {
            "task": "age_years>62", "init__source": str(source), "data__dir": str(dataset), **FOLDS,
            "training__steps": STEPS, "training__batch_size": 8, "training__eval_every": 3, "bootstrap": 100,
            "training__learning_rate": 3e-3, "checkpoint__every": 4, "log_every": 1, **leaves,
        }  # fmt: skip
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
        return config

    return make


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert finetune.finetune(config(**ALL), workdir, progress=False)
    return workdir


@pytest.mark.parametrize("stops", [(7,), pytest.param((1, 7), marks=SOAK)], ids=["once", "twice"])
def test_stopped_at_any_step_and_resumed_equals_uninterrupted(config, whole, tmp_path, monkeypatch, stops):
    workdir = tmp_path / "stopped"
    for start, stop in itertools.pairwise((0, *stops)):
        with monkeypatch.context() as patch:
            stop_at(patch, stop, start=start)
            assert not finetune.finetune(config(**ALL), workdir, progress=False)
        assert last_of_fine_tuning(workdir)[0] == stop
        assert not (workdir / "results.json").exists()
    assert finetune.finetune(config(**ALL), workdir, progress=False)
    # Of every leaf, that of the optimiser, the average and the best weights too, a checkpoint has the digest.
    assert last_of_fine_tuning(workdir) == last_of_fine_tuning(whole)
    assert {"best", "ema_params_encoder", "opt_state"} <= set(last_of_fine_tuning(whole)[2])
    assert computed(workdir) == computed(whole)
    assert [(each.first, each.last, each.ended) for each in account_of(read_events(workdir)).starts] == [
        *((start, stop, "stopped") for start, stop in itertools.pairwise((0, *stops))),
        (stops[-1], last_of_fine_tuning(whole)[0], "finished"),
    ]
    for name, values in predictions(whole).items():
        np.testing.assert_array_equal(predictions(workdir)[name], values, err_msg=name)
    weights = [(each / "model" / "model.safetensors").read_bytes() for each in (workdir, whole)]
    assert weights[0] == weights[1]
    assert read_results(workdir).keys() == read_results(whole).keys()


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_steps_and_no_bit(config, whole, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "damaged"
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        assert not finetune.finetune(config(**ALL, checkpoint__keep=3), workdir, progress=False)
    checkpoints = run_config.checkpoint_dir(workdir)
    # The looks at steps 3 and 6 lie before both; the best weights are a part that the one at step 0 may lack.
    for step, part in ((9, "best"), (8, "params_encoder")):
        damage(largest_file(checkpoints / str(step) / part / "d"))
    assert finetune.finetune(config(**ALL), workdir, progress=False)
    told = capsys.readouterr().err
    assert "/9 is damaged: " in told
    assert "/8 is damaged: " in told
    assert {"8.damaged", "9.damaged"} <= {path.name for path in checkpoints.iterdir()}
    assert last_of_fine_tuning(workdir) == last_of_fine_tuning(whole)
    assert computed(workdir) == computed(whole)


@pytest.mark.slow
def test_the_best_checkpoint_and_multiples_stay(config, tmp_path, capsys):
    workdir, leaves = tmp_path / "run", {"checkpoint__best": "eval/AUROC", "checkpoint__best_mode": "max"}
    with pytest.raises(
        ConfigError, match=r"config\.checkpoint\.best='eval/AUPRC' is no metric .*: eval/AUROC, eval/loss"
    ):
        finetune.finetune(config(checkpoint__best="eval/AUPRC"), tmp_path / "refused", progress=False)
    with pytest.raises(ConfigError, match=r"config\.checkpoint\.best='AUROC' must be a metric of the evaluation"):
        finetune.finetune(config(checkpoint__best="AUROC"), tmp_path / "refused", progress=False)
    assert finetune.finetune(config(**leaves, checkpoint__keep=1, checkpoint__keep_every=8), workdir, progress=False)
    looks = {line["step"]: line["eval/AUROC"] for line in read_metrics(workdir) if "eval/AUROC" in line}
    best = min(step for step, value in looks.items() if value == max(looks.values()))
    kept = {int(path.name) for path in run_config.checkpoint_dir(workdir).iterdir() if path.name.isdecimal()}
    assert kept == {8, STEPS, best}


@pytest.mark.slow
def test_a_batch_size_that_is_named_may_change_in_mid_run_and_labels_may_not(config, tmp_path, monkeypatch):
    workdir, changed = tmp_path / "changed", {"training__batch_size": 4}
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert not finetune.finetune(config(), workdir, progress=False)
    with pytest.raises(ConfigError, match=r"batch_size was 8 and is 4.*--config.resume.allow=training.batch_size"):
        finetune.finetune(config(**changed), workdir, progress=False)
    with pytest.raises(ConfigError, match=r"task was 'age_years>62' and is 'age_years>50'") as refusal:
        finetune.finetune(config(task="age_years>50"), workdir, progress=False)
    assert "resume.allow" not in str(refusal.value), "what cannot be allowed is not offered"
    with pytest.raises(ConfigError, match=r"resume.allow=task: .*workdir of its own"):
        finetune.finetune(config(task="age_years>50", resume__allow="task"), workdir, progress=False)
    assert finetune.finetune(config(**changed, resume__allow="training.batch_size"), workdir, progress=False)
    about = json.loads((workdir / "about.json").read_text())
    assert about["changes"] == [{"step": 4, "name": "training.batch_size", "was": 8, "is": 4}]
    assert about["exposures_when_written"]["exposures"] == 4 * 8 + (STEPS - 4) * 4
    # Without a change the leaf allows nothing, and other records are refused whatever it names.
    run = prepared(read(FineTuningSettings, config(**changed, label_fraction=0.5, resume__allow="training")))
    with Checkpoints(run_config.checkpoint_dir(workdir), read_only=True) as checkpoints:
        metadata = {"fingerprint": run.fingerprint, "digests": run.digests}
        with pytest.raises(ConfigError, match="other recordings, labels or another encoder"):
            restore_latest(run, checkpoints, metadata)


def test_the_same_command_again_trains_no_step_and_tells_the_same(config, whole, monkeypatch):
    before = (whole / "results.json").read_text()
    monkeypatch.setattr(finetuning_run, "batches", None)
    monkeypatch.setattr(finetune, "first_state", None)
    assert finetune.finetune(config(**ALL), whole, progress=False)
    assert (whole / "results.json").read_text() == before


def test_the_exported_model_answers_what_was_evaluated(config, whole, dataset):
    model, told = ecgjax.load(whole / "model"), predictions(whole)
    recordings = open_recordings(defaults.settings_of(tiny(dataset, **FOLDS)).data)
    ids = recordings.index.record_id[np.arange(recordings.index.num_records)].tolist()
    for side in ("val", "test"):
        signals = recordings.store.read(np.array([ids.index(each) for each in told[f"{side}_records"]]))
        np.testing.assert_allclose(model.predict_prepared(signals), told[f"{side}_answers"], atol=1e-6, rtol=0)
    assert np.ptp(told["test_answers"]) > 1e-3
    results = json.loads((whole / "results.json").read_text())
    assert model.head.question == results["question"] == "age_years>62"
    assert model.head.outputs[0].threshold == results["outputs"][0]["threshold"]
    assert model.head.outputs[0].records == results["splits"]["validation"]["records"]


def test_a_model_tells_what_it_has_seen_of_both_trainings_where_it_is_asked_to(config, whole, source, tmp_path):
    # The same command with the setting writes the model anew, with the list.
    workdir = shutil.copytree(whole, tmp_path / "run")
    assert open_source(workdir / "model").encoder.trained_on is None
    assert finetune.finetune(config(**ALL, with_signatures=True), workdir, progress=False)
    seen = open_source(workdir / "model").encoder.trained_on()
    data = open_start(read(FineTuningSettings, config(**ALL))).data
    own = np.union1d(data.train.records, data.val.records)
    np.testing.assert_array_equal(seen.number[: len(own)], own)
    assert not np.isin(data.test.records, seen.number).any()
    before = open_source(source).encoder.trained_on()
    assert set(map(bytes, before.content)) <= set(map(bytes, seen.content))
    begun = open_beginning(InitSettings(source=str(workdir / "model")))
    assert begun.seen.digest != before.digest
    assert "age_years>62" in begun.seen.labels


def test_balanced_batches_are_taken_off_again_and_results_stand_beside_the_prevalence(whole):
    results = json.loads((whole / "results.json").read_text())
    share = results["splits"]["train"]["prevalence"]
    assert results["outputs"][0]["offset"] == pytest.approx(-np.log(share / (1 - share)))
    auroc = read_results(whole)[Key("finetuned", "AUROC", "age_years>62")]
    told = predictions(whole)
    positive, negative = (told["test_answers"][told["test_labels"] == label] for label in (1, 0))
    pairs = positive[:, None] - negative[None, :]
    assert auroc.estimate == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)), abs=1e-12)
    assert auroc.low < auroc.estimate < auroc.high
    assert results["simulated"]
    about = json.loads((whole / "about.json").read_text())
    assert about["simulated"]
    assert about["source"]["step"] == 12
    assert about["labels"]["question"] == "age_years>62"
    assert "/" not in about["source"]["title"]


def test_commands_on_exported_models_name_the_model_of_a_fine_tuning_run(whole):
    with pytest.raises(ConfigError, match=r"of a fine-tuning run, whose model is in \S*whole/model: give"):
        ecgjax.load(whole)
    for given in ((None, str(whole)), (str(whole), None)):
        with pytest.raises(ConfigError, match=r"fine-tuning run: give its model as --model=\S*whole/model$"):
            chosen_place(*given)
    assert chosen_place(None, str(whole / "model")) == whole / "model"


def test_only_the_records_of_the_run_make_its_results_simulated(config, monkeypatch):
    settings = read(FineTuningSettings, config())
    made = open_start(settings)
    assert made.cautions[0].startswith("SIMULATED DATA")
    # What a test makes is marked as simulated; the encoder's data set stays so.
    monkeypatch.setattr(Recordings, "simulated", False)
    real = open_start(settings)
    assert real.source.simulated
    assert not real.simulated
    assert real.cautions[0] == (
        f"The encoder was pretrained on SIMULATED recordings; the numbers are of {real.recordings.name}'s own records."
    )
    assert not any("SIMULATED DATA" in caution for caution in real.cautions)


def test_a_frozen_part_stays_as_it_was_in_weights_average_and_choice(config, whole):
    settings = read(FineTuningSettings, config(**ALL))
    run = prepared(settings)
    with Checkpoints(run_config.checkpoint_dir(whole), read_only=True) as checkpoints:
        found = finetuning_run.restore_latest(run, checkpoints, {"fingerprint": run.fingerprint})
    state, looks, due = found.state, found.looks, found.evaluation_due
    assert not due
    before = run.encoder.split.params
    for weights in (state.params, state.ema.params, looks.weights.params):
        jax.tree.map(np.testing.assert_array_equal, weights["encoder"]["stem_conv"], before["stem_conv"])
    for weights in (state.params, state.ema.params):
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), weights["encoder"], before)
        assert max(jax.tree.leaves(moved)) > 0
    averaged = jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, state.ema.params))
    assert max(averaged) > 0


def prepared(settings, *, mesh=None):
    start = open_start(settings)
    return prepare_run(
        settings, recordings=start.recordings, data=start.data, encoder=start.source.encoder,
        weights_digest=start.source.weights_digest, mesh=mesh,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"training__head_start": "probe", "training__balance": True},
        pytest.param({"task": "age_years", "seed": 3}, marks=pytest.mark.slow),
    ],
)
def test_a_run_trains_what_the_studies_train_in_memory(config, changes):
    settings = read(FineTuningSettings, config(**changes))
    run = prepared(settings)
    state, looks = first_state(run, progress=False), Looks()
    look, stream = make_look(run, looks), run.batches()
    look(state)
    for number in range(STEPS):
        state, _ = run.step(state, next(stream))
        if (number + 1) % 3 == 0:
            look(state)
    stream.close()
    training, probe, start = run.tuning, None, run.encoder
    if training.begins_at_probe:
        from ecgjax.evaluation.models.answers import examples_of
        from ecgjax.evaluation.models.linear import fit_linear

        records = np.concatenate([part.records for part in (run.data.train, run.data.val, run.data.test)])
        features = LabelledFeatures(run.recordings, records, seed=settings.seed, progress=False)
        start = features.recalibrated(dataclasses.replace(start, layer="features"))
        embedded = features.of(features.embeddings(run.encoder, name="pretrained", settings={}), run.data)
        probe = fit_linear(examples_of(embedded, run.data))
    network = FineTuning(
        settings.training, optimizer=settings.optimizer.shared, encoder=start.split, num_leads=start.num_leads,
        kind=run.kind,
    ).train(
        start.split, run.data, read=run.recordings.store.read, seed=settings.seed, probe=probe, progress=False
    )  # fmt: skip
    assert network.step == looks.best.step
    assert network.val_metric == pytest.approx(looks.best.metric, abs=1e-6)
    signals = run.recordings.store.read(run.data.test.records)
    ours = run.scores(looks.weights, run.data.test.records)
    np.testing.assert_allclose(ours, network.scores(signals), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "sharding"), [((1, 8), "replicated"), ((1, 2), "replicated"), ((1, 8), "fsdp")])
def test_rows_and_losses_are_the_same_on_any_number_of_devices(config, counts, sharding):
    layout = {"mesh__sharding": sharding, "mesh__fsdp_min_mb": 0.0}
    settings = read(FineTuningSettings, config(training__metric__weight=1.0, **layout))
    found = {}
    for count in counts:
        mesh = device_mesh.Mesh(np.array(jax.devices()[:count]).reshape(count, 1), device_mesh.AXES)
        run = prepared(settings, mesh=mesh)
        state, losses, rows = first_state(run, progress=False), [], []
        stream = run.batches()
        for _ in range(3):
            batch = next(stream)
            rows.append(np.asarray(batch["record"]))
            state, metrics = run.step(state, batch)
            losses.append(float(metrics["loss"]))
        stream.close()
        found[count] = rows, losses, run.predict(state.evaluated, run.data.val.records)
        assert bool(run.parameter_layout.divided) == (sharding == "fsdp" and count > 1)
        encoder, _ = finetuning_run.tuned(run, state.evaluated)
        assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(encoder.split.params))
    (rows, losses, outputs), alone = found[counts[1]], found[1]
    np.testing.assert_array_equal(rows, alone[0])
    np.testing.assert_allclose(losses, alone[1], rtol=1e-5)
    np.testing.assert_allclose(outputs, alone[2], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_quantity_from_an_exported_model(config, source, tmp_path):
    exported = export_run(source, tmp_path / "exported", formats=(), statistics="running")
    workdir = tmp_path / "run"
    changes = {"task": "age_years", "training__steps": 2, "training__eval_every": 1, "init__source": str(exported)}
    assert finetune.finetune(config(**changes), workdir, progress=False)
    model, told = ecgjax.load(workdir / "model"), json.loads((workdir / "results.json").read_text())
    assert told["source"]["is_exported_model"]
    assert "pretrained on did not come with the exported model" in " ".join(told["cautions"])
    assert (model.head.unit, told["threshold_rule"]) == ("years", "")
    assert model.training["steps"] == 12
    assert Key("finetuned", "RMSE", "age_years") in read_results(workdir)
    values = predictions(workdir)["test_answers"]
    assert 20 < values.mean() < 90


@pytest.mark.slow
def test_training_ends_where_validation_no_longer_improves_and_stays_ended(config, tmp_path, monkeypatch):
    looks = iter([0.6, 0.7, 0.65, 0.6])
    kind = type(finetune.kind_of(open_start(read(FineTuningSettings, config())).data.task))
    monkeypatch.setattr(kind, "value", lambda *args, **kwargs: next(looks))
    changes = {"training__steps": 60, "training__patience": 2}
    assert finetune.finetune(config(**changes), tmp_path, progress=False)
    step, stored, _ = last_of_fine_tuning(tmp_path)
    assert (step, stored["best"], stored["since_best"]) == (12, 6, 2)
    assert finetune.finetune(config(**changes), tmp_path, progress=False)
    assert last_of_fine_tuning(tmp_path)[0] == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init__source": None}, r"--config\.init\.source=DIR is needed"),
        ({"init__source": "nowhere"}, "nowhere"),
        ({"task": ""}, "--task=QUESTION is needed"),
        ({"task": "nonsense<3"}, "nonsense"),
        ({"task": "age_years>200"}, "none of .* positive on the training side"),
        ({"training__batch_size": 5000}, r"config\.training\.batch_size=5000 is more than the \d+ labelled training"),
        ({"data__weights": (1.0,)}, r"config\.data\.weights=\(1\.0,\): training with labels"),
        ({"data__allow_bad_shards": True}, r"config\.data\.allow_bad_shards=True: training with labels"),
        ({"training__head_start": "probe", "training__head": "mlp"}, r"config\.training: head_start='probe' is for"),
        ({"groups": ("nonsense",)}, r"config\.groups=\('nonsense',\): no column"),
        ({"data__val_folds": ()}, "none of the 0 records of the val split"),
        ({"init__step": 5}, "has no checkpoint of step 5; finished ones: 6, 12"),
        ({"training__frozen": ("^encoder/",), "training__metric__weight": 1.0}, "all of whose parameters are frozen"),
        ({"training__frozen": ("backbone",)}, "'backbone' is found in no parameter"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(config, changes, message):
    with pytest.raises((ConfigError, DataError, RuntimeError), match=message):
        prepared(read(FineTuningSettings, config(**changes)))


@pytest.mark.slow
def test_checks_on_eight_devices_with_divided_parameters_name_the_step(config, tmp_path, monkeypatch):
    monkeypatch.setattr(device_mesh, "make_mesh", on_all_devices)
    leaves = {"mesh__sharding": "fsdp", "mesh__fsdp_min_mb": 0.0, "training__learning_rate": 1e38}
    with pytest.raises(DivergedError, match=r"step \d+: nan generated by primitive"):
        finetune.finetune(config(debug__nan_checks=True, **leaves), tmp_path, progress=False)


@pytest.mark.slow
def test_a_run_on_one_batch_is_traced_and_tracked_and_leaves_no_model(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := FakeWandb())
    leaves = {"debug__reuse_batch": True, "profile__start": 1, "profile__steps": 1, "trackers": ("wandb",)}
    assert finetune.finetune(config(**leaves, training__steps=3), tmp_path, progress=False)
    assert not (tmp_path / "results.json").exists()
    assert not (tmp_path / "model").exists()
    assert json.loads((tmp_path / "about.json").read_text())["debug"] == "config.debug.reuse_batch=True"
    trained = [line for line in read_metrics(tmp_path) if "train/loss" in line]
    assert [(line["step"], line["debug/reuse_batch"]) for line in trained] == [(1, 1), (2, 1), (3, 1)]
    assert latest_trace(tmp_path) is not None
    assert [line["step"] for line in wandb.lines if "train/loss" in line] == [1, 2, 3]
    assert wandb.exits == [0]
    with pytest.raises(ConfigError, match="fine-tuning"):
        open_source(tmp_path)


def test_folders_of_one_kind_of_run_are_refused_by_the_other(config, dataset, source, whole):
    with pytest.raises(ConfigError, match="is the folder of a pretraining run; give a folder of its own to this one"):
        finetune.finetune(config(), source, progress=False)
    with pytest.raises(ConfigError, match="is the folder of a fine-tuning run; give a folder of its own to this one"):
        pretrain(tiny(dataset, **FOLDS), whole, progress=False)
    with pytest.raises(ConfigError, match=r"is the folder of a fine-tuning run.*whole/model, which ecgjax\.load opens"):
        defaults.settings_of_run(whole)
    with pytest.raises(ConfigError, match="is the folder of a fine-tuning run"):
        open_start(read(FineTuningSettings, config(init__source=str(whole))))


def test_another_question_or_encoder_in_a_workdir_is_refused(config, whole, tmp_path, dataset):
    with pytest.raises(ConfigError, match="task was 'age_years>62' and is 'age_years>50'"):
        finetune.finetune(config(**ALL, task="age_years>50"), whole, progress=False)
    moved = write_run(tmp_path / "moved", tiny(dataset, **FOLDS), steps=(12,))
    run = prepared(read(FineTuningSettings, config(**ALL, init__source=str(moved))))
    with Checkpoints(run_config.checkpoint_dir(whole), read_only=True) as checkpoints:
        # The same weights elsewhere go on; other weights do not.
        assert finetuning_run.restore_latest(run, checkpoints, {"fingerprint": run.fingerprint}) is not None
        with pytest.raises(ConfigError, match="trained with other recordings, labels or another encoder"):
            finetuning_run.restore_latest(run, checkpoints, {"fingerprint": "other"})


def test_recordings_of_another_rate_or_filter_are_refused_with_the_remedy(config, tmp_path, source):
    other = make_simulated_dataset(tmp_path, num_patients=60, rate=100, seconds=4).directory
    remedy = r"--builder=prepared --source=.* --target_rate_hz=50 --seconds=4"
    with pytest.raises(ConfigError, match=rf"has 400 samples at 100 Hz.*trained on 200 at 50 Hz: .*{remedy}"):
        open_start(read(FineTuningSettings, config(data__dir=str(other), training__batch_size=4)))
    start = open_start(read(FineTuningSettings, config()))
    recipe = dataclasses.replace(start.source.preprocessor.recipe, notch_hz=20.0)
    prepared_so = dataclasses.replace(start.source.preprocessor, recipe=recipe)
    filtered = dataclasses.replace(start.source, read_preparation=lambda: prepared_so)
    with pytest.raises(
        ConfigError, match=r"was prepared with notch_hz=None, .* with notch_hz=20\.0: build the data set"
    ):
        check_signals(filtered, start.recordings, directory="here")
