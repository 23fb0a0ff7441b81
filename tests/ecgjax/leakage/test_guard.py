"""Planted leaks between pretraining and evaluation: each is caught and named, and nothing else is."""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.command import EXIT_USER_ERROR
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax import pretrain
from ecgjax.data.recordings import open_recordings
from ecgjax.defaults import settings_of
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.evaluation.features.frozen_encoder import load_encoder
from ecgjax.leakage import guard as firewall
from ecgjax.leakage.guard import DROPPED, guard
from ecgjax.leakage.overlaps import find_overlaps
from ecgjax.leakage.trained_on import RECORDS_FILE, pretraining_records
from ecgjax.training import device_mesh
from ecgjax.training.run_records import records_of
from tests.data_pipelines.test_link import build, record
from tests.support import tiny_config
from tests.support.planted import noisy, resampled, stored
from tests.support.written_runs import write_run

REPOSITORY = Path(__file__).parents[3]
ORDER = (3, 5, 1, 0, 7, 2, 6, 4)
RATE_HZ = 100

#: What is done to a record that was trained on before it is put among the test records under another patient's id.
LEAKS = {
    "recording": lambda x: x,
    "copy, rescaled": lambda x: 0.4 * x,
    "copy, resampled": lambda x: resampled(resampled(x, source_rate=100, rate=80), source_rate=80, rate=100)[:1000],
    "copy, cut": lambda x: x[200:],
    "reordered": lambda x: x[:, ORDER],
    "reordered, rescaled and noisy": lambda x: noisy(2.0 * x, 15, seed=0)[:, ORDER],
}


def people(seed, count, *, prefix, folds, visits=1):
    """Records of simulated people, of folds in turn."""
    settings = {"visits_per_patient": (visits, visits), "sampling_rate_hz": RATE_HZ, "seconds": 10.0}
    signals = Cohort(CohortConfig(seed=seed, num_patients=count, **settings)).simulate(0, count * visits).signal
    return [
        labelled(
            record(
                signal,
                f"{prefix}{number}",
                patient=f"{prefix}{number // visits}",
                fold=folds[number // visits % len(folds)],
            ),
            number,
        )
        for number, signal in enumerate(signals)
    ]


def labelled(made, number):
    return dataclasses.replace(made, age_years=float(30 + 40 * (number // 10 % 2)))


def pretraining_set():
    """Forty people of training folds, two records each, and six of the others."""
    return [
        *people(31, 40, prefix="a", folds=range(1, 9), visits=2),
        *people(32, 6, prefix="c", folds=(9, 10)),
    ]


def evaluation_set(leaks):
    """Thirty other people of all folds, and planted records of validation and test folds."""
    trained_on = {made.record_id: made for made in pretraining_set()}
    planted = []
    for place, leak in enumerate(leaks):
        source = trained_on[f"a{4 + 6 * place}"]
        if leak == "patient":
            # The same person's other recording, which is in no training fold of the first set.
            (other,) = people(33, 1, prefix="p", folds=(10,))
            planted.append(dataclasses.replace(other, record_id="leak patient", patient_id=source.patient_id))
            continue
        signal = stored(LEAKS[leak](source.signal.astype(float)))
        padded = np.zeros((1000, 8), np.int16)
        padded[: len(signal)] = signal
        made = record(padded, f"leak {leak}", patient=f"somebody {place}", fold=9 + place % 2)
        planted.append(labelled(dataclasses.replace(made, valid_samples=len(signal)), 10 * place))
    return [*people(34, 30, prefix="b", folds=range(1, 11)), *planted]


@pytest.fixture(scope="module")
def trained_on_set(tmp_path_factory):
    return build(tmp_path_factory.mktemp("pretraining"), "clinic", pretraining_set(), rate=RATE_HZ)


@pytest.fixture(scope="module")
def leaking_set(tmp_path_factory):
    return build(tmp_path_factory.mktemp("evaluation"), "clinic", evaluation_set([*LEAKS, "patient"]), rate=RATE_HZ)


@pytest.fixture(scope="module")
def clean_set(tmp_path_factory):
    return build(tmp_path_factory.mktemp("clean"), "clinic", evaluation_set([]), rate=RATE_HZ)


def config_of(*datasets, **data):
    config = tiny_config.get_config()
    config.data.dir = ",".join(str(dataset.directory) for dataset in datasets)
    config.data.update(data)
    config.probe.update({"task": "age_years>55", "bootstrap": 100, "shuffles": 2})
    return config


def opened(*datasets, **data):
    return open_recordings(settings_of(config_of(*datasets, **data)).data)


@pytest.fixture(scope="module")
def trained_on(trained_on_set):
    recordings = opened(trained_on_set)
    return pretraining_records(recordings, recordings.split.train, run="f00d")


def judged(recordings):
    return np.concatenate([recordings.split.val, recordings.split.test])


def kinds_by_name(recordings, result):
    return {str(recordings.index.record_id[each.record]): each.kind for each in result.found}


def test_every_planted_leak_is_caught_and_named_by_its_kind(trained_on, trained_on_set, leaking_set):
    recordings = opened(leaking_set)
    result = find_overlaps(recordings, trained_on, judged(recordings), directories=[str(trained_on_set.directory)])
    expected = {f"leak {leak}": leak.partition(",")[0] for leak in [*LEAKS, "patient"]}
    assert kinds_by_name(recordings, result) == expected
    assert result.counts == {"recording": 1, "copy": 3, "reordered": 2, "patient": 1}
    assert result.cautions == ()
    for each in result.found:
        if each.kind != "patient":
            name = str(trained_on_set.index.record_id[trained_on.number[each.known]])
            place = list(LEAKS).index(str(recordings.index.record_id[each.record]).removeprefix("leak "))
            assert name == f"a{4 + 6 * place}"
    details = {str(recordings.index.record_id[each.record]): each.detail for each in result.found}
    assert "0.4 times as large" in details["leak copy, rescaled"]
    assert "2.00 s later" in details["leak copy, cut"]
    assert "leads in the order V2 V4 II I V6 V1 V5 V3" in details["leak reordered"]


def test_nothing_is_found_where_nothing_is_planted(trained_on, trained_on_set, clean_set):
    directories = [str(trained_on_set.directory)]
    for dataset in (clean_set, trained_on_set):
        recordings = opened(dataset)
        result = find_overlaps(recordings, trained_on, judged(recordings), directories=directories)
        assert (result.found, result.cautions) == ((), ())
        assert result.looked_at == len(judged(recordings)) > 0
        same, cautions = guard(recordings, trained_on, judged(recordings), overlaps="refuse", directories=directories)
        assert same is recordings
        assert cautions == ()


def test_folds_that_were_trained_on_are_equal_recordings(trained_on, trained_on_set):
    recordings = opened(trained_on_set, train_folds=(1, 2), val_folds=(3,), test_folds=(10,))
    result = find_overlaps(recordings, trained_on, judged(recordings))
    assert result.counts == {"recording": len(recordings.split.val)}


def test_a_patient_known_by_a_second_id_is_the_same_patient(trained_on, clean_set):
    recordings = opened(clean_set)
    group = np.asarray(recordings.index.group).copy()
    # As links have it: a test record is of the same person as a record under an id that was trained on.
    ids = np.asarray(recordings.index.patient_id).astype("<U20").copy()
    other, tested = recordings.split.train[0], recordings.split.test[0]
    ids[other], group[other] = "a3", group[tested]
    index = dataclasses.replace(recordings.index, group=group, patient_id=ids)
    datasets = (dataclasses.replace(recordings.datasets[0], index=index),)
    recordings = dataclasses.replace(recordings, index=index, datasets=datasets)
    result = find_overlaps(recordings, trained_on, judged(recordings))
    assert [(each.record, each.kind) for each in result.found] == [(tested, "patient")]


def test_refused_is_said_with_counts_examples_and_remedy(trained_on, trained_on_set, leaking_set):
    recordings = opened(leaking_set)
    with pytest.raises(ConfigError) as refused:
        guard(
            recordings,
            trained_on,
            judged(recordings),
            overlaps="refuse",
            directories=[str(trained_on_set.directory)],
        )
    message = str(refused.value)
    for part in (
        f"7 of the {len(judged(recordings))} validation and test records overlap",
        "1 equal recording ('leak recording' is record ",
        "2 copies with another order of leads",
        "1 recording of a patient pretrained on ('leak patient' is of a patient of clinic)",
        "config.data.test_folds",
        "data_pipelines.link",
        "--config.probe.overlaps=drop",
        "--config.probe.overlaps=mark",
    ):
        assert part in message


def test_marked_records_stay_and_dropped_ones_go(trained_on, trained_on_set, leaking_set):
    recordings = opened(leaking_set)
    arguments = {"directories": [str(trained_on_set.directory)]}
    marked, cautions = guard(recordings, trained_on, judged(recordings), overlaps="mark", **arguments)
    assert marked is recordings
    assert "7 of the" in cautions[0]
    dropped, cautions = guard(recordings, trained_on, judged(recordings), overlaps="drop", **arguments)
    assert "left out of validation and test" in cautions[0]
    lost = {
        side: set(getattr(recordings.split, side).tolist()) - set(getattr(dropped.split, side).tolist())
        for side in ("train", "val", "test")
    }
    names = {side: {str(recordings.index.record_id[each])[:4] for each in gone} for side, gone in lost.items()}
    assert names == {"train": set(), "val": {"leak"}, "test": {"leak"}}
    assert len(lost["val"]) + len(lost["test"]) == dropped.split.excluded[DROPPED] == 7
    again, cautions = guard(dropped, trained_on, judged(dropped), overlaps="refuse", **arguments)
    assert (again, cautions) == (dropped, ())


def test_without_the_signals_trained_on_copies_are_told_by_what_is_listed(trained_on, leaking_set):
    recordings = opened(leaking_set)
    result = find_overlaps(recordings, trained_on, judged(recordings))
    whole = {f"leak {leak}": "alike" for leak in LEAKS if leak not in ("recording", "copy, cut")}
    found = kinds_by_name(recordings, result)
    assert found == {**whole, "leak recording": "recording", "leak patient": "patient"}
    # A piece is told by its signal only.
    assert (
        "might be pieces or much changed copies of records of clinic, by their signatures alone" in result.cautions[0]
    )


def test_data_sets_without_envelopes_are_said_not_to_be_looked_at(trained_on, leaking_set):
    recordings = opened(leaking_set)
    index = dataclasses.replace(recordings.index, order_free_signature=None, envelope=None)
    old = dataclasses.replace(recordings, datasets=(dataclasses.replace(recordings.datasets[0], index=index),))
    result = find_overlaps(old, trained_on, judged(recordings))
    assert result.counts == {"recording": 1, "patient": 1}
    assert "were not looked for where clinic is concerned" in result.cautions[0]
    sources = tuple(dataclasses.replace(source, traced=False) for source in trained_on.sources)
    empty = dataclasses.replace(
        trained_on, sources=sources, order_free_signature=np.zeros_like(trained_on.order_free_signature)
    )
    result = find_overlaps(recordings, empty, judged(recordings))
    assert result.counts == {"recording": 1, "patient": 1}
    assert len(result.cautions) == 1


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match=r"config\.probe\.overlaps='warn' is unknown; there are: refuse, mark, drop"):
        firewall.check_overlaps("warn")
    for known in firewall.OVERLAPS:
        firewall.check_overlaps(known)


@pytest.fixture(scope="module")
def as_users_run_it():
    """Optimisers mix types, which the other tests forbid; one device compiles faster than eight."""
    one_device = functools.partial(device_mesh.make_mesh, devices=jax.devices()[:1])
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_mesh, "make_mesh", one_device)
        yield


@pytest.fixture(scope="module")
def run(trained_on_set, tmp_path_factory, as_users_run_it):
    """A short run on the first set."""
    workdir = tmp_path_factory.mktemp("run")
    config = config_of(trained_on_set)
    config.duration.value, config.eval_every, config.checkpoint.every = 2.0, 0, 2
    assert pretrain.pretrain(config, workdir, progress=False)
    return config, workdir


@pytest.fixture(scope="module")
def written(trained_on_set, tmp_path_factory):
    """The folder of a run on the first set, in which nothing is trained."""
    config = config_of(trained_on_set)
    return config, write_run(tmp_path_factory.mktemp("written") / "run", config, steps=(2,))


@pytest.mark.parametrize("made", ["written", pytest.param("run", marks=pytest.mark.slow)])
def test_a_checkpoint_knows_its_records_wherever_it_is_taken(made, request, trained_on, tmp_path):
    _, workdir = request.getfixturevalue(made)
    copy = shutil.copytree(workdir, tmp_path / "copy")
    found = load_encoder(copy).trained_on()
    assert found.digest == trained_on.digest
    (copy / RECORDS_FILE).unlink()
    with pytest.raises(CheckpointError, match="lists what the encoder was pretrained on, is missing"):
        load_encoder(copy).trained_on()


# That other records are other data is tested by itself in `training/test_resumption.py`.
@pytest.mark.slow
def test_going_on_lists_the_same_records_again_or_is_refused(run, tmp_path, monkeypatch):
    config, workdir = run
    copy = shutil.copytree(workdir, tmp_path / "copy")
    digest = load_encoder(copy).trained_on().digest
    (copy / RECORDS_FILE).unlink()
    assert pretrain.pretrain(config, copy, progress=False)
    assert load_encoder(copy).trained_on().digest == digest
    listed = records_of

    def others(prepared, **seen_before):
        whole = listed(prepared, **seen_before)
        return dataclasses.replace(whole, content=whole.content[::-1])

    monkeypatch.setattr(pretrain, "records_of", others)
    with pytest.raises(ConfigError, match="was trained on another data set, split or sampling"):
        pretrain.pretrain(config, copy, progress=False)


def command(module, workdir, *flags):
    return subprocess.run(
        [sys.executable, "-m", f"ecgjax.{module}", f"--workdir={workdir}", *flags],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.slow
def test_commands_refuse_leaks_and_drop_them_when_asked(run, leaking_set, tmp_path):
    _, workdir = run
    data = f"--config.data.dir={leaking_set.directory}"
    refused = command("evaluate", workdir, data)
    assert refused.returncode == EXIT_USER_ERROR
    assert refused.stderr.startswith("error: 7 of the ")
    assert not (workdir / "evaluation").exists()
    study = ("--task=age_years>55", f"--out={tmp_path / 'study'}", "--fractions=1", "--seeds=1", "--modes=frozen")
    dropped = command("label_efficiency", workdir, data, *study, "--config.probe.overlaps=drop")
    assert dropped.returncode == 0, dropped.stderr[-2000:]
    results = json.loads((tmp_path / "study" / "results.json").read_text(encoding="utf-8"))
    assert results["cautions"][1].startswith("7 of the ")
    assert results["cautions"][1].endswith("they are left out of validation and test.")
