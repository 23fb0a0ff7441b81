"""The evaluation entry point: what it reads, what it refuses, what it writes."""

import dataclasses
import json
import re
import socket
import types

import ml_collections
import numpy as np
import pytest
from absl import flags
from matplotlib.figure import Figure

from configs import simclr
from data_pipelines.errors import DataError
from data_pipelines.metadata.snomed import SCORED_CLASSES
from data_pipelines.prepared.index import Index, Task, duplicates, groups
from data_pipelines.records import STORED_LEADS, SignalFormat
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax import defaults
from ecgjax import evaluate as entry
from ecgjax.data import recordings
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.models import boosted
from ecgjax.evaluation.results import Key, read_results
from ecgjax.pages import traces, write
from ecgjax.pages.images import Image
from ecgjax.studies import finished_run, models
from ecgjax.studies.one_task.pipeline import measure_task
from ecgjax.studies.report import neighbour_section
from tests.support.sources import open_stand_in

RATE_HZ = 100


class _MeanAmplitudes:
    """Stands for an encoder: amplitudes of the signal, in place of what was learned."""

    step = 700
    pretrained_on = ("f00d",)
    trained_on = None
    has_batch_norm, keeps_statistics = True, False
    split = types.SimpleNamespace(params={}, stats={"mean": np.zeros(1)})

    def __init__(self, layer="features"):
        self.layer = layer

    def embed(self, signals):
        return np.abs(np.diff(signals.astype(np.float32), axis=1)).mean(axis=1)


class _Training:
    """Stands for a training with labels, and for the network that it gives."""

    begins_at_probe = encoder_is_frozen = False
    selected, val_metric = "step 5, best on the validation records", 0.5

    def __init__(self, settings, *, classes, **arguments):
        self._classes = classes

    def train(self, encoder, data, **arguments):
        assert not np.isin(data.train.records, data.test.records).any()
        return self

    def scores(self, signals):
        spread = signals[:, :, 2].std(axis=1).astype(np.float32)
        return np.tile(spread[:, None], len(self._classes)) if self._classes else spread


@pytest.fixture(scope="module")
def once():
    """Functions that answer and measure once for every split and question: stand-ins do not differ by test."""
    found, answers_of = {}, models.StudyModels.answers

    def asked(data):
        return data.task.title, data.train.records.tobytes(), data.test.records.tobytes()

    def answers(self, name, data, *, seed):
        key = (name, *asked(data))
        if key not in found:
            found[key] = answers_of(self, name, data, seed=seed), self.features.failures
        of_model, self.features.failures = found[key]
        return of_model

    def measure(answers, data, report, **arguments):
        key = ("measured", *asked(data), *(str(getattr(report, each)) for each in ("groups", "treat_at", "prevalence")))
        if key not in found:
            found[key] = measure_task(answers, data, report, **arguments)
        return found[key]

    return answers, measure


@pytest.fixture(scope="module")
def cohort():
    cohort = Cohort(
        CohortConfig(num_patients=90, visits_per_patient=(1, 2), sampling_rate_hz=RATE_HZ, seconds=5.0, seed=1)
    )
    return cohort.simulate(0, cohort.num_records)


@pytest.fixture
def workdir(drawn_workdir, monkeypatch):
    """A finished run, and nothing drawn in its report, which takes far longer than all else."""
    blank = Image(data=b"", kind="png", width=1, height=1)
    monkeypatch.setattr(write, "image_of", lambda picture: blank)
    monkeypatch.setattr(neighbour_section, "draw_ecg", lambda signal, **settings: Figure())
    return drawn_workdir


@pytest.fixture
def drawn_workdir(cohort, once, monkeypatch, tmp_path):
    """A finished run, its data set, store and networks replaced by small ones."""
    count = len(cohort.signal)
    content = np.arange(count, dtype=np.int64).view(np.uint8).reshape(count, 8).repeat(2, axis=1)
    patient = np.asarray(cohort.patient, np.int32)
    index = Index(
        record_id=np.array([f"r{i}" for i in range(count)]), patient_id=np.array([f"p{i}" for i in patient]),
        patient=patient, group=groups(patient, content), fold=(patient % 6).astype(np.int16),
        sex=np.asarray(cohort.sex, np.int8), age_years=np.asarray(cohort.age_years, np.float32), content_hash=content,
        duplicate_of=duplicates(content), valid_start=np.zeros(count, np.int32),
        valid_samples=np.full(count, 500, np.int32),
        quality=np.zeros(count, np.int32), clipped_samples=np.zeros(count, np.int32),
        signature=np.zeros((count, 192), np.int8), scalars=cohort.scalars, tasks={"scored": _scored(cohort)},
    )  # fmt: skip
    dataset = types.SimpleNamespace(
        directory=tmp_path, card=_card(index), index=index, fingerprint="f00d", simulated=True,
        format=SignalFormat(sampling_rate_hz=RATE_HZ, num_samples=500),
    )  # fmt: skip

    def recalibrate(encoder, read, *, records, seed, progress):
        assert not np.isin(index.fold[records], (4, 5)).any(), "batch norm must not see test records"
        return encoder

    monkeypatch.setattr(recordings, "open_dataset", lambda directory: dataset)
    monkeypatch.setattr(
        recordings, "open_store", lambda directory, **options: types.SimpleNamespace(read=cohort.signal.__getitem__)
    )
    monkeypatch.setattr(entry, "open_source", open_stand_in)
    monkeypatch.setattr(frozen_encoder, "load_encoder", lambda workdir, step, layer: _MeanAmplitudes())
    monkeypatch.setattr(frozen_encoder, "random_encoder", lambda settings, layer, seed: _MeanAmplitudes())
    monkeypatch.setattr(frozen_encoder, "recalibrate_batch_norm", recalibrate)
    monkeypatch.setattr(boosted, "_TREES", 5)
    monkeypatch.setattr(models.StudyModels, "answers", once[0])
    monkeypatch.setattr(entry, "measure_task", once[1])
    monkeypatch.setattr(models, "FineTuning", _Training)
    monkeypatch.setattr(entry.run_config, "load_resolved", lambda workdir: _config())
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "train/loss": 4.0}\n{"step": 10, "train/loss": 3.0}\n')
    return tmp_path


def _scored(cohort):
    """The challenge's classes: two that are there, and one that no label is known of but for its absence."""
    values = np.zeros((len(cohort.signal), len(SCORED_CLASSES)), np.int8)
    values[:, SCORED_CLASSES.index("NSR")] = cohort.age_years < 65
    values[:, SCORED_CLASSES.index("AF")] = cohort.sex == 1
    return Task(classes=SCORED_CLASSES, values=values)


def _card(index):
    return {
        "name": "simulated", "simulated": True, "description": "A <made-up> cohort.", "license": "none needed",
        "citation": "nobody, 2026", "layout_version": 1, "leads": list(STORED_LEADS),
        "signal_format": {"sampling_rate_hz": RATE_HZ, "num_samples": 500},
        "recipe": {"name": "plain", "version": 1, "notch_hz": None, "highpass_hz": None, "lowpass_hz": None,
                   "baseline": "keep"},
        "num_records": index.num_records, "num_patients": len(np.unique(index.patient)), "fingerprint": "f00d",
        "summary": {"notes": [], "records_in": index.num_records, "quarantined": {}},
        "scalars": {name: {"unit": ""} for name in index.scalars},
    }  # fmt: skip


def _config(**probe):
    config = simclr.get_config()
    config.data.dir = "data/simulated"
    config.data.train_folds, config.data.val_folds, config.data.test_folds = (0, 1, 2), (3,), (4, 5)
    settings = {"task": "age_years>60", "label_fraction": 0.7, "bootstrap": 100,
                "shuffles": 2, "groups": ("sex", "age", "lvef", "scored:AF"), "prevalence": 0.02, **probe}  # fmt: skip
    config.probe.update(settings)
    return config


def _evaluate(config, workdir):
    """Returns what was measured, the report, and what `results.json` says about it."""
    found = entry.evaluate(defaults.settings_of(config), workdir, progress=False)
    about = json.loads((found.report.html.parent / "results.json").read_text(encoding="utf-8"))
    return found.task, found.report, about


def _cautions(about):
    return about["provenance"]["cautions"]


def test_writes_the_whole_report(drawn_workdir, cohort, monkeypatch):
    monkeypatch.setattr(neighbour_section, "NEIGHBOURS", 1)  # An ECG takes longer to draw than all models to answer.
    task, report, about = _evaluate(_config(), drawn_workdir)
    assert report.html == drawn_workdir / "evaluation" / "age_years_above_60" / "report.html"
    data = task.data
    sides = [set(cohort.patient[part.records].tolist()) for part in (data.train, data.val, data.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    np.testing.assert_array_equal(data.test.labels, cohort.age_years[data.test.records] > 60)
    html, markdown = report.html.read_text(encoding="utf-8"), report.markdown.read_text(encoding="utf-8")
    for part in (
        "SIMULATED",
        "f00d",
        "step 700",
        "Training curve",
        "augmented views",
        "--step=700",
        "nobody, 2026",
        "no filter (recipe plain, version 1)",
        "PPV at 0.02",
        "treating from probability 0.1",
        "Net benefit per record",
        "scored:AF",
    ):
        assert part in html
        assert part in markdown
    assert "A &lt;made-up&gt; cohort." in html
    assert "age_years&gt;60" in html
    assert "# age_years>60" in markdown
    assert len(html) < 5_000_000
    assert list(about["models"]) == [
        "pretrained", "nearest", "random", "supervised", "intervals", "boosted", "median_beat", "demographics",
    ]  # fmt: skip
    assert about["provenance"]["config"]["probe"]["task"] == "age_years>60"
    assert {group["column"] for group in about["groups"]} == {"sex", "age", "lvef", "scored:AF"}
    of_lvef = [group for group in about["groups"] if group["column"] == "lvef"]
    assert len(of_lvef) == 4, "a quarter of the records each"
    assert sum(group["records"] for group in of_lvef) == len(data.test.records)
    results = read_results(report.html.parent)
    of_table = {key._replace(fraction=0.7): dataclasses.astuple(value) for key, value in task.results.items()}
    np.testing.assert_equal({key: dataclasses.astuple(value) for key, value in results.items()}, of_table)
    metrics = {key.metric for key in results if key.model == "pretrained" and not (key.part or key.minus)}
    assert metrics >= {"sensitivity", "specificity", "PPV", "NPV", "PPV at 0.02", "NPV at 0.02"}
    of_everybody = {key.metric for key in results if key.model == "treat_all"}
    assert of_everybody == {"net benefit at 0.1", "net benefit at 0.2"}
    # The stand-ins for both encoders are the same function, so that their paired difference is exactly nothing.
    difference = results[Key("pretrained", "AUROC", "age_years>60", 0.7, minus="random")]
    assert difference.estimate == difference.low == difference.high == 0
    # Two curves, differences, reliability, two maps, two records with a neighbour each, training, two of views.
    assert (
        len(list(report.html.parent.glob("figure_*")))
        == html.count("<img ")
        == 4 + 2 + 2 * (1 + neighbour_section.NEIGHBOURS) + 1 + 2
    )


def test_the_report_begins_with_its_verdict_and_says_what_it_rests_on(workdir):
    _, report, about = _evaluate(_config(), workdir)
    html, markdown = report.html.read_text(encoding="utf-8"), report.markdown.read_text(encoding="utf-8")
    first = markdown.splitlines()[0]
    assert first.startswith(
        "**SIMULATED patients. age_years > 60 years, 70 % of the training labels: the best model is"
    )
    assert first == f"**{about['verdict']}**"
    main = html[html.index("<main>") :].splitlines()
    assert main[1].startswith('<p class="verdict">SIMULATED patients.')
    # The stand-ins for both encoders are the same function.
    assert "no difference was shown (the interval contains zero): +0.000 [+0.000, +0.000]" in first
    patients = about["splits"]["test"]["patients"]
    assert f"What may be concluded. Tested were {patients:,} patients" in markdown
    assert "## Flow of records" in markdown or "## Flow of recordings" in markdown
    assert "python -m ecgjax.pretrain --config=simclr" in markdown


def test_an_anonymous_report_has_no_trace_in_any_file(workdir, monkeypatch):
    monkeypatch.setattr(traces, "_user", lambda: "maierh")
    monkeypatch.setattr(socket, "gethostname", lambda: "heart-node7")
    traces._own_names.cache_clear()
    found = entry.evaluate(
        defaults.settings_of(_config()), workdir, out=workdir / "maierh", anonymous=True, progress=False
    )
    traces._own_names.cache_clear()
    folder = found.report.html.parent
    assert {path.suffix for path in folder.iterdir()} >= {".html", ".md", ".json", ".npz"}
    for path in folder.iterdir():
        if path.suffix in (".html", ".md", ".json"):
            text = path.read_text(encoding="utf-8").replace("<wbr>", "")
            for pattern in (r"\b[rp]\d+\b", re.escape(str(workdir)), "maierh", "heart-node7", r"\b20\d\d-\d\d-\d\d"):
                assert not re.findall(pattern, text), (path.name, pattern)
    scores = np.load(folder / "scores.npz")
    assert "records" not in scores.files
    patients = found.task.data.test.patients
    np.testing.assert_array_equal(scores["patients"], np.unique(patients, return_inverse=True)[1])
    assert "--anonymous" in json.loads((folder / "results.json").read_text(encoding="utf-8"))["provenance"]["command"]


def test_command_repeats_what_was_changed(workdir):
    *_, about = _evaluate(_config(task="lvef<55"), workdir)
    command = about["provenance"]["command"]
    assert "'--task=lvef<55'" in command
    assert "label_fraction" not in command


@pytest.mark.slow
def test_a_quantity_has_the_whole_report(workdir):
    _, report, about = _evaluate(_config(task="age_years", prevalence=None), workdir)
    assert about["unit"] == "years"
    html = report.html.read_text(encoding="utf-8")
    for part in (
        "age_years, 70 % of the training labels", "Limits of agreement", "RMSE, years", "highest tenth",
        "Training curve", "--task=age_years", "mean ± SD [range]",
    ):  # fmt: skip
        assert part in html
    assert recordings.unit_of("lvef", types.SimpleNamespace(datasets=[])) == ""


@pytest.mark.slow
def test_classes_have_the_whole_report(workdir):
    config = _config(task="scored:*", prevalence=None, groups=("scored:AF",), treat_at=())
    task, report, about = _evaluate(config, workdir)
    assert about["facts"]["unscored"] == []
    results = read_results(report.html.parent)
    assert {key.metric for key in results if key.model == "pretrained"} >= {"macro F1", "CinC 2021 score"}
    assert {key.part for key in results if key.metric == "F1"} == {"AF", "NSR"}
    decided = [each["name"] for each in about["facts"]["classes"] if not each["undecided"]]
    assert decided == [name for name in SCORED_CLASSES if name in ("AF", "NSR")]
    assert [(group["column"], group["group"]) for group in about["groups"]] == [
        ("scored:AF", "no"), ("scored:AF", "yes"),
    ]  # fmt: skip
    html = report.html.read_text(encoding="utf-8")
    assert str(task.value("pretrained", "F1", part="AF")) in html
    for part in ("CinC 2021 score", "Decisions on all classes", "2 of 26 classes", "validation: none of"):
        assert part in html


@pytest.mark.parametrize(
    ("probe", "error", "message"),
    [
        ({"groups": ("sex", "ward")}, DataError, r"config\.probe\.groups=.*no column 'ward'.*sex, age.*lvef"),
        ({"groups": ("dataset",)}, DataError, r"config\.data\.dir names one data set"),
        ({"prevalence": 2.0}, ConfigError, r"config\.probe\.prevalence=2\.0 .* above 0 and below 1"),
        ({"treat_at": (0.1, 10)}, ConfigError, r"config\.probe\.treat_at=\(0\.1, 10\) .* 0 or more and below 1"),
        ({"treat_at": ("a",)}, ConfigError, r"config\.probe\.treat_at=\('a',\)"),
        ({"task": "age_years", "prevalence": 0.3}, ConfigError, r"prevalence=0\.3 is of a yes or no"),
    ],
)
def test_what_a_report_cannot_be_asked_is_refused_before_anything_is_loaded(
    workdir, monkeypatch, probe, error, message
):
    monkeypatch.setattr(frozen_encoder, "load_encoder", None)
    with pytest.raises(error, match=message):
        _evaluate(_config(**probe), workdir)


def test_unknown_label_lists_what_there_is(workdir):
    with pytest.raises(DataError, match=r"no label 'ejection_fraction'.*lvef.*potassium"):
        _evaluate(_config(task="ejection_fraction<40"), workdir)


def test_warns_of_folds_seen_in_pretraining(workdir):
    config = _config(overlaps="mark")
    config.data.train_folds, config.data.test_folds = (0, 1), (2, 4, 5)
    _, report, about = _evaluate(config, workdir)
    assert _cautions(about)
    assert "in fold 2, which it was trained on" in report.markdown.read_text(encoding="utf-8")
    *_, about = _evaluate(_config(), workdir)
    assert _cautions(about) == [finished_run.NOT_LISTED]


def test_the_same_data_elsewhere_are_known_by_their_contents(workdir):
    config = _config(overlaps="mark")
    config.data.dir = "moved/elsewhere"
    config.data.train_folds, config.data.test_folds = (0, 1), (2, 4, 5)
    *_, about = _evaluate(config, workdir)
    assert "in fold 2, which it was trained on" in _cautions(about)[0]


def test_other_data_than_those_pretrained_on_are_said(workdir, monkeypatch):
    monkeypatch.setattr(_MeanAmplitudes, "pretrained_on", ("another",))
    _, report, about = _evaluate(_config(), workdir)
    assert "pretrained on other data" in _cautions(about)[0]
    assert "pretrained on other data" in report.markdown.read_text(encoding="utf-8")


def test_one_member_of_a_mixture_is_known_by_its_contents(workdir, monkeypatch):
    monkeypatch.setattr(_MeanAmplitudes, "pretrained_on", ("another", "f00d"))
    config = _config(overlaps="mark")
    config.data.train_folds, config.data.test_folds = (0, 1), (2, 4, 5)
    *_, about = _evaluate(config, workdir)
    assert _cautions(about) == [
        "23 of the 93 validation and test records were pretrained on by the encoder: they are of simulated itself (the "
        "fingerprint is the same), in fold 2, which it was trained on.",
        finished_run.NOT_LISTED,
        "The folders that the encoder was pretrained on held a data set (fingerprint another) and a data set "
        "(fingerprint f00d) then and hold simulated (fingerprint f00d) now, which are other recordings.",
    ]


def test_both_encoders_are_asked_for_the_same_layer(workdir, monkeypatch):
    asked = set()

    def load(workdir, step, layer):
        asked.add(("pretrained", layer))
        return _MeanAmplitudes(layer)

    def random(settings, layer, seed):
        asked.add(("random", layer))
        return _MeanAmplitudes(layer)

    monkeypatch.setattr(frozen_encoder, "load_encoder", load)
    monkeypatch.setattr(frozen_encoder, "random_encoder", random)
    _evaluate(_config(layer="embedding"), workdir)
    assert asked == {("pretrained", "embedding"), ("random", "embedding")}


def test_baselines_of_another_architecture_are_refused(workdir):
    config = _config()
    config.encoder.embedding_dim = 64
    with pytest.raises(ConfigError, match=r"config\.encoder is not that of the run"):
        _evaluate(config, workdir)


def test_what_the_run_left_empty_can_be_set(workdir, monkeypatch):
    # As it is read back, with nothing known of the types of what is empty.
    stored = ml_collections.ConfigDict(_config().to_dict())
    del stored.probe.supervised["metric"]  # as of a run from before metric learning with labels
    for name in ("groups", "prevalence", "treat_at"):  # and before a report could be asked for these
        del stored.probe[name]
    monkeypatch.setattr(entry.run_config, "load_resolved", lambda workdir: stored)
    monkeypatch.setattr(finished_run, "WORKDIR", types.SimpleNamespace(value=str(workdir)))
    monkeypatch.setattr(finished_run, "MODEL", types.SimpleNamespace(value=None))
    values = flags.FlagValues()
    monkeypatch.setattr(finished_run.flags, "FLAGS", values)
    monkeypatch.setattr(
        finished_run.command, "parse_flags", lambda argv, known_only=False: values(argv, known_only=known_only)
    )
    define = finished_run.config_flags.DEFINE_config_dict
    monkeypatch.setattr(
        finished_run.config_flags,
        "DEFINE_config_dict",
        lambda *args, **kwargs: define(*args, flag_values=values, **kwargs),
    )
    values(["program"])
    given = (
        "optimizer.clip_norm=1.5", "encoder.dropout=0.25", "encoder.decoder=True", "probe.task=lvef<40",
        "probe.supervised.metric.weight=1", "probe.finetune.metric.miner=soft_hard", "probe.prevalence=0.05",
        "probe.groups=('sex', '=site')",
    )  # fmt: skip
    finished_run.parse_flags(["program", *(f"--config.{each}" for each in given)])
    config = values.config
    assert (config.optimizer.clip_norm, config.encoder.dropout, config.probe.task) == (1.5, 0.25, "lvef<40")
    assert config.encoder.decoder is True
    assert (config.probe.prevalence, config.probe.groups) == (0.05, ("sex", "=site"))
    assert config.probe.treat_at == (0.1, 0.2)
    assert (config.probe.supervised.metric.weight, config.probe.supervised.metric.miner) == (1.0, "auto")
    assert config.probe.finetune.metric.miner == "soft_hard"
