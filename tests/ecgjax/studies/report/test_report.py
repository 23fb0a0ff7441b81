"""The whole comparison with an encoder made by hand, its report and its figures."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask
from ecgjax.evaluation.features.features import interval_preprocessor, map_records
from ecgjax.evaluation.models import boosted
from ecgjax.pages.page import Paragraph, Picture, Section, Table
from ecgjax.studies.one_task_binary import run_experiment
from ecgjax.studies.report.figures import augmented_views, metric_series, training_curve
from ecgjax.studies.report.report import Evaluation, Provenance
from ecgjax.studies.report.report_files import write_report
from ecgjax.studies.report.report_page import evaluation_page

RATE_HZ, SECONDS = 100, 4

MODELS = [
    "pretrained", "nearest", "random", "supervised", "intervals", "boosted", "median_beat", "demographics",
]  # fmt: skip


def _signals(labels):
    """Beats whose T wave is lower in positives, with much variation between records: `int16[n, time, 8]`."""
    rng = np.random.default_rng(0)
    at = np.arange(RATE_HZ * SECONDS) / RATE_HZ
    height = 0.4 - 0.12 * labels + 0.1 * rng.normal(size=len(labels))
    ecg = np.zeros((len(labels), len(at)))
    for beat in np.arange(0.4, SECONDS, 0.7):
        ecg += np.exp(-0.5 * ((at - beat) / 0.012) ** 2)
        ecg += height[:, None] * np.exp(-0.5 * ((at - beat - 0.26) / 0.04) ** 2)
    ecg = ecg[:, :, None] * np.linspace(0.5, 1.2, 8) + 0.02 * rng.normal(size=(*ecg.shape, 8))
    return np.round(ecg * 1000).astype(np.int16)


def _records(records, labels):
    return LabelledRecords(records=records, labels=labels[records], patients=records // 2, unlabelled=3)


@pytest.fixture(scope="module")
def data():
    labels = np.repeat(np.random.default_rng(1).random(160) < 0.4, 2).astype(np.int64)
    train, val, test = np.arange(100), np.arange(100, 180), np.arange(180, 320)
    return labels, ProbeData(
        task=BinaryTask(label="lvef", rule="below", threshold=40.0),
        train=_records(train[:60], labels),
        val=_records(val, labels),
        test=_records(test, labels),
        label_fraction=0.6,
        seed=0,
        train_available=_records(train, labels),
        excluded={"duplicate": 4, "other_fold": 0},
    )


def _demographics(number):
    """Ages and sexes of patients with two records each, some unknown."""
    rng = np.random.default_rng(2)
    age, sex = rng.integers(20, 90, number // 2).astype(np.float32), rng.integers(0, 2, number // 2).astype(np.float32)
    age[::11], sex[::7] = np.nan, np.nan
    return np.stack([age, sex], axis=1).repeat(2, axis=0)


class _Heights:
    """An encoder that sees the T wave, among features of noise."""

    def embed(self, signals):
        noise = np.random.default_rng(0).normal(size=(signals[0].size, 6)).astype(np.float32)
        return np.concatenate(
            [signals[:, 66::70, 7], signals.reshape(len(signals), -1) @ noise], axis=1, dtype=np.float32
        )


class _Noise:
    """An encoder that sees nothing of the label."""

    def embed(self, signals):
        return np.stack([np.random.default_rng(abs(int(row.sum()))).normal(size=5) for row in signals]).astype(
            np.float32
        )


class _Trained:
    selected = "step 5, best on the validation records"

    def scores(self, signals):
        return -signals[:, 66::70, 3].mean(axis=1, dtype=np.float32)


@pytest.fixture(scope="module")
def outcome(data):
    labels, records = data
    signals = _signals(labels)
    seen = {}

    def train_supervised(**arguments):
        seen.update(arguments)
        return _Trained()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boosted, "_TREES", 20)
        result = run_experiment(
            records, read=signals.__getitem__, sampling_rate_hz=RATE_HZ, demographics=_demographics(len(labels)),
            pretrained=_Heights(), random=_Noise(), train_supervised=train_supervised, bootstrap=300, shuffles=4,
            seed=0, groups={"site": np.where(records.test.patients % 3, "A", "missing").astype(object)},
            treat_at=(0.1, 0.3), prevalence=0.05, progress=False,
        )  # fmt: skip
    return result, seen


@pytest.fixture
def evaluation(outcome, data):
    result, _ = outcome
    provenance = Provenance(
        data="cohort", fingerprint="abc123", simulated=True, encoder="resnet18:small", checkpoint_step=1200,
        config={"seed": 0, "probe": {"label": "lvef", "threshold": math.nan}},
        command="python -m ecgjax.evaluate --workdir=run",
    )  # fmt: skip
    return Evaluation(
        comparison=result.comparison, data=data[1], scores=result.scores,
        measurement_failures=result.measurement_failures, operating=result.operating,
        net_benefits=result.net_benefits, groups=result.groups, near=result.near, embeddings=result.embeddings,
        provenance=provenance,
    )  # fmt: skip


def test_all_models_meet_the_same_records(outcome, data):
    (result, seen), (labels, records) = outcome, data
    assert [row.name for row in result.comparison.rows] == MODELS
    for row in result.comparison.rows:
        scores = result.scores[row.name]
        assert row.auroc.estimate == pytest.approx(roc_auc_score(records.test.labels, scores), abs=1e-9)
        assert row.auroc.low < row.auroc.estimate < row.auroc.high
    np.testing.assert_array_equal(seen["train_records"], records.train.records)
    np.testing.assert_array_equal(seen["train_labels"], labels[records.train.records])
    np.testing.assert_array_equal(seen["val_records"], records.val.records)
    assert not set(records.test.records) & {*seen["train_records"], *seen["val_records"]}


def test_the_comparison_finds_what_was_put_in(outcome):
    comparison = outcome[0].comparison
    assert comparison.row("pretrained").auroc.estimate > 0.7
    assert comparison.row("random").auroc.low < 0.5 < comparison.row("random").auroc.high
    assert comparison.row("intervals").auroc.estimate > 0.7
    assert comparison.row("random").difference.low > 0
    assert comparison.row("pretrained").difference is None
    assert len(comparison.control.aurocs) == 4


def test_report_holds_every_number_it_should(evaluation, tmp_path):
    report = write_report(evaluation, tmp_path, default_config={"seed": 0, "probe": {"label": "potassium"}})
    path = report.markdown
    folder = tmp_path / "evaluation" / "lvef_below_40"
    assert (report.html, path) == (folder / "report.html", folder / "report.md")
    for text in (path.read_text(encoding="utf-8"), report.html.read_text(encoding="utf-8")):
        assert "SIMULATED DATA" in text
        for row in evaluation.comparison.rows:
            assert row.title in text
            assert str(row.auroc) in text
        for part in (
            "0.6 of the training labels",
            "duplicate",
            "1,200",
            "abc123",
            "python -m ecgjax.evaluate",
            "shuffled labels",
            "ROC curve of every model",
            "Precision–recall curve of every model",
            "The random encoder&#x27;s embeddings"
            if text.startswith("<!DOCTYPE")
            else "The random encoder's embeddings",
            "2 of 3 settings are not as in ecgjax/defaults.py",
            f"{jax.device_count()} × {jax.devices()[0].device_kind}",
            jax.__version__,
            "PPV at 0.05",
            str(evaluation.operating[0].decisions["NPV at 0.05"]),
            "treating from probability 0.3",
            str(evaluation.net_benefits[0].benefits[0.1]),
            evaluation.net_benefits[2].over_all[0.3].signed(),
            "treat everybody",
            "treat nobody",
            "site",
        ):
            assert part in text
        assert "other_fold" not in text
    results = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))
    assert results["simulated"] is True
    assert (
        results["models"]["pretrained"]["auroc"]["estimate"] == evaluation.comparison.row("pretrained").auroc.estimate
    )
    assert results["models"]["pretrained"]["difference"] is None
    assert results["models"]["random"]["difference"]["low"] == evaluation.comparison.row("random").difference.low
    decisions = results["operating"]["random"]["at_threshold"]
    assert decisions["PPV at 0.05"]["low"] == evaluation.operating[2].decisions["PPV at 0.05"].low
    assert list(results["net_benefits"]) == [*MODELS, "treat_all"]
    assert set(results["net_benefits"]["random"]["benefits"]) == {"0.1", "0.3"}
    assert [group["group"] for group in results["groups"]] == ["A", "missing"]
    assert results["splits"]["test"] == {
        "records": 140, "patients": 70, "positives": evaluation.data.test.positives, "unlabelled": 3,
    }  # fmt: skip
    assert results["provenance"]["config"]["probe"]["threshold"] is None
    assert results["environment"]["numpy"] == np.__version__
    stored = np.load(path.parent / "scores.npz")
    np.testing.assert_array_equal(stored["scores_random"], evaluation.scores["random"])
    np.testing.assert_array_equal(stored["labels"], evaluation.data.test.labels)


def test_what_was_not_asked_for_is_left_out(evaluation):
    page = evaluation_page(dataclasses.replace(evaluation, groups=(), net_benefits=()), default_config={})
    sections = {section.title: section.blocks for section in page.sections}
    assert sections["Groups of patients"] == [Paragraph("No groups were asked for (config.probe.groups).")]
    captions = [
        block.caption for block in sections["Decisions at a threshold, and calibration"] if isinstance(block, Table)
    ]
    assert "Decisions at the threshold with the best F1" in captions
    assert "Net benefit per record" not in captions


def test_real_data_are_not_called_simulated(evaluation, tmp_path):
    real = dataclasses.replace(evaluation, provenance=dataclasses.replace(evaluation.provenance, simulated=False))
    report = write_report(real, tmp_path, default_config={})
    assert "SIMULATED" not in report.markdown.read_text(encoding="utf-8")
    assert "SIMULATED" not in report.html.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_report_replaces_the_earlier_one_only_when_whole(evaluation, tmp_path):
    folder = write_report(evaluation, tmp_path, default_config={}).html.parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "note.txt").write_text("of the earlier report")

    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_report(
            evaluation, tmp_path, default_config={}, sections=[Section("x", [Picture(figure=Broken(), alt="x")])]
        )
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "note.txt"} == before
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == ["lvef_below_40"]
    write_report(evaluation, tmp_path, default_config={})
    assert not (folder / "note.txt").exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".npz"} == {
        name: content for name, content in before.items() if not name.endswith(".npz")
    }
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == ["lvef_below_40"]


@pytest.mark.slow
def test_figures_are_written_and_shown(evaluation, tmp_path):
    rng = np.random.default_rng(0)
    original = rng.normal(size=(2, 300, 12)).astype(np.float32) * 0.1
    views = augmented_views(original, [("VCG", original * 2), ("crop", original[:, :200])], sampling_rate_hz=100,
                            titles=["record a", "record b"])  # fmt: skip
    lines = [{"step": step, "train/loss": 5 - step / 100} for step in range(0, 400, 5)]
    lines += [{"step": 200, "eval/loss": 4.0}, {"step": 300, "eval/loss": 3.5, "train/top1_accuracy": 0.8}]
    curve = training_curve(metric_series(lines))
    sections = [Section("Training", [Picture(figure=curve, alt="loss"), Picture(figure=views, alt="views of a")])]
    report = write_report(evaluation, tmp_path, default_config={}, sections=sections)
    text = report.markdown.read_text(encoding="utf-8")
    files = sorted(report.html.parent.glob("figure_*"))
    assert len(files) == 8  # two curves, differences, reliability, two maps, and those of the sections
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG" if file.suffix == ".png" else b"<?xml")
        assert file.name in text
    assert text.count("![loss](") == 1
    assert len(views.axes) == 6
    np.testing.assert_allclose(views.axes[1].lines[0].get_ydata(), original[0, :, 0] * 2, atol=1e-6)
    assert [axes.get_ylabel() for axes in curve.axes] == ["loss", "pairs of a training batch"]
    np.testing.assert_array_equal(curve.axes[0].lines[1].get_xydata(), [[200, 4.0], [300, 3.5]])
    np.testing.assert_array_equal(curve.axes[1].lines[0].get_xydata(), [[300, 0.8]])


def test_series_of_metrics():
    lines = [{"step": 20, "train/loss": 2.0}, {"step": 10, "train/loss": 3.0, "note": "x", "perf/mfu": None}]
    lines.append({"step": 20, "train/loss": 2.5})
    metrics = metric_series(lines)
    assert list(metrics) == ["train/loss"]
    np.testing.assert_array_equal(metrics["train/loss"], [[10, 3.0], [20, 2.5]])


def test_map_records_gives_every_record_in_order_with_one_batch_shape():
    shapes = set()

    def double(signals):
        shapes.add(signals.shape)
        return signals[:, 0, 0].astype(np.float32) * 2

    signals = np.arange(50, dtype=np.int16)[:, None, None] * np.ones((1, 4, 8), np.int16)
    records = np.random.default_rng(0).permutation(50)[:37]
    result = map_records(double, records, read=signals.__getitem__, batch_size=8, title="", progress=False)
    np.testing.assert_array_equal(result, records * 2.0)
    assert shapes == {(8, 4, 8)}


def test_missing_measurements_are_imputed_by_train_and_marked():
    train = np.array([[1.0, np.nan, np.nan], [3.0, 10.0, np.nan], [5.0, 20.0, np.nan]])
    fitted = interval_preprocessor().fit(train)
    out = fitted.transform(np.array([[np.nan, np.nan, np.nan], [3.0, 15.0, 1.0]]))
    # Medians 3 and 15 are the train means after imputation: both rows agree there, the indicator tells them apart.
    np.testing.assert_allclose(out[0, :3], out[1, :3] * [1, 1, 0], atol=1e-12)
    assert out[0, 3] > out[1, 3]
    assert np.isfinite(out).all()
