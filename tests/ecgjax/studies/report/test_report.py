"""Page, tables and files of an evaluation of every kind of question."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from data_pipelines.metadata.snomed import SCORED_CLASSES
from ecgjax.data.tasks import MultiLabelTask
from ecgjax.evaluation.features.features import map_records
from ecgjax.evaluation.models import kinds
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import read_results
from ecgjax.pages import write
from ecgjax.pages.images import Image
from ecgjax.pages.page import Folded, Paragraph, Picture, Section, Table
from ecgjax.studies.report.figures import augmented_views, metric_series, training_curve
from ecgjax.studies.report.report_files import write_report
from ecgjax.studies.report.report_page import evaluation_page
from ecgjax.studies.report.report_tables import results_table, titles
from tests.ecgjax.studies.report.small_tasks import (
    CLASSES,
    PROVENANCE,
    SPLITS,
    WITH_TOYS,
    measured_task,
    small_data,
    small_models,
    small_report,
    small_task,
)

DEFAULT = {"seed": 0, "probe": {"label": "potassium"}}
KINDS = ("binary", "multilabel", "quantity", "trend", "pooled")
DECISIONS = "Decisions at a threshold, and calibration"


@pytest.fixture(autouse=True)
def _with_a_kind_of_our_own(monkeypatch):
    monkeypatch.setattr(kinds, "KINDS", WITH_TOYS)


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes far longer than all else."""
    monkeypatch.setattr(write, "image_of", lambda picture: Image(data=b"", kind="png", width=1, height=1))


def _write(one, folder, **changes):
    return write_report(one, folder, **({"provenance": PROVENANCE, "default_config": DEFAULT} | changes))


def _sections(one, **changes):
    page = evaluation_page(one, **({"provenance": PROVENANCE, "default_config": {}} | changes))
    return {section.title: section.blocks for section in page.sections}


def _in(one, unit):
    return dataclasses.replace(one, report=dataclasses.replace(one.report, unit=unit))


def _tables(blocks):
    return [block for block in blocks if isinstance(block, Table)]


OF_EVERY_KIND = (
    "SIMULATED DATA", "A caution.", "abc123", "step 1,200", "all training labels", "duplicate", "no beat found",
    "python -m ecgjax.evaluate", "female", "75 and more", "another record of the same patient", "recall@5",
    "Paired differences of the pretrained encoder", "All values are of the pretrained encoder",
)  # fmt: skip
OF_KIND = {
    "binary": (
        "shuffled labels", "ROC curve of every model", "Precision–recall curve of every model", "a positive record of",
        "PPV at 0.05", "treating from probability 0.3", "treat everybody", "treat nobody", "resamples and shuffles",
        "Reliability curve of every model", "coloured by label; all 120 are drawn",
    ),
    "multilabel": (
        "gone (none of 120 records is positive)", "Fewer than 10 positive test records, which tell little: rare",
        "Without a positive training record, hence not learned: new", "4 of 5 classes", "positive for any class",
        "gone (test: none of 120 records is positive)", "macro F1 of 3 classes", "resamples with seed 0",
        "models are compared by the macro AUROC of the other 3 classes",
        "No CinC 2021 score: its classes AF, AFL, BBB and others are not in this task (26 of 26).",
    ),
    "quantity": (
        "RMSE, mmHg", "Limits of agreement", "Bland–Altman", "mean of the training labels", "bias, mmHg",
        "Predicted against true wedge_pressure (mmHg)", "difference from all other records", "A constant prediction",
    ),
    "trend": ("correlation [95 % interval]", "MAE", "mean of the training labels", "coloured by grade"),
    "pooled": ("pooled AUROC [95 % interval]", "coloured by sum of the labels of signs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_page_and_files_hold_what_they_should(kind, tmp_path, undrawn):
    one = _in(small_task(kind), "mmHg" if kind == "quantity" else "")
    report = _write(one, tmp_path)
    table = results_table(one)
    for text in (path.read_text(encoding="utf-8") for path in (report.html, report.markdown)):
        for part in (*OF_EVERY_KIND, *OF_KIND[kind]):
            assert part in text
        for row in table.rows:
            assert row[0] in text
            assert row[1] in text
        assert "other_fold" not in text
        assert "2 of 3 settings are not as in ecgjax/defaults.py" in text
        assert jax.__version__ in text
        assert f"{jax.device_count()} × {jax.devices()[0].device_kind}" in text
    folder = report.html.parent
    found = read_results(folder)
    assert list(found) == list(one.results)
    for key, interval in one.results.items():
        for name in ("estimate", "low", "high"):
            np.testing.assert_equal(getattr(found[key], name), getattr(interval, name))
    about = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert about["simulated"] is True
    assert (about["task"]["kind"], about["task"]["title"]) == (kind, one.data.task.title)
    assert (about["metric"], about["compared"]) == (kinds.kind_of(one.data.task).primary, one.compared)
    assert {name: model["title"] for name, model in about["models"].items()} == titles(one)
    assert about["models"]["random"]["val_metric"] == one.models["random"].val_metric
    assert [group["group"] for group in about["groups"]] == [group.group for group in one.groups]
    assert about["sought"][0] == {"encoder": "pretrained", "match": "same patient", "queries": 120}
    counts = {"records": 120, "patients": 60, "unlabelled": 3}
    positives = {"positives": one.data.test.positives} if kind == "binary" else {}
    assert about["splits"]["test"] == counts | positives
    assert about["provenance"]["fingerprint"] == "abc123"
    assert about["provenance"]["config"]["probe"]["threshold"] is None
    assert about["environment"]["numpy"] == np.__version__
    stored = np.load(folder / "scores.npz")
    assert stored.files == ["records", "patients", "labels", *(f"scores_{name}" for name in one.models)]
    np.testing.assert_array_equal(stored["scores_random"], one.models["random"].outputs)
    np.testing.assert_array_equal(stored["labels"], one.data.test.labels)


def test_facts_keep_their_names(tmp_path, undrawn):
    facts = {}
    for kind in ("binary", "multilabel", "quantity"):
        folder = _write(small_task(kind), tmp_path).html.parent
        facts[kind] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["facts"]
    assert facts["binary"]["thresholds"] == small_task("binary").facts["thresholds"]
    assert len(facts["binary"]["shuffled_labels"]["aurocs"]) == 4
    assert [each["name"] for each in facts["multilabel"]["classes"]] == list(CLASSES)
    assert len(facts["multilabel"]["unscored"]) == 26
    agreement = small_task("quantity").facts["agreement"]["supervised"]
    assert facts["quantity"]["agreement"]["supervised"] == {
        **dataclasses.asdict(agreement),
        **{name: list(getattr(agreement, name)) for name in ("bias_interval", "lower_interval", "upper_interval")},
    }


def test_every_number_of_a_yes_or_no_is_in_its_cell():
    one = small_task("binary")
    rows = {row[0]: row[1:] for row in results_table(one).rows}
    for name, title in titles(one).items():
        difference = "" if name == "pretrained" else one.value("pretrained", "AUROC", minus=name).signed()
        selected = f"{one.models[name].val_metric:.3f} ({one.models[name].selected})"
        assert rows[title] == (
            str(one.value(name, "AUROC")), difference, str(one.value(name, "AUPRC")), selected,
        )  # fmt: skip
    control = one.facts["shuffled_labels"]
    assert rows["control: 4 probes on shuffled labels"][0].startswith(f"{control['mean']:.3f} [{control['low']:.3f}, ")
    operating, decisions, benefits = _tables(_sections(one)[DECISIONS])
    model, title = "random", titles(one)["random"]
    metrics = ("F1", "sensitivity at 0.9", "specificity there", "Brier", "slope", "intercept", "ECE")
    of_model = {table.caption: next(row for row in table.rows if row[0] == title) for table in (operating, decisions)}
    assert of_model[""][1:] == tuple(str(one.value(model, metric)) for metric in metrics)
    metrics = ("sensitivity", "specificity", "PPV", "NPV", "PPV at 0.05", "NPV at 0.05")
    assert of_model[decisions.caption][1:] == (
        f"{one.facts['thresholds'][model]:.3f}", *(str(one.value(model, metric)) for metric in metrics),
    )  # fmt: skip
    assert [row[0] for row in benefits.rows] == [*titles(one).values(), "treat everybody", "treat nobody"]
    for at, threshold in enumerate(("0.1", "0.3")):
        name = f"net benefit at {threshold}"
        above = one.value(model, name, minus="treat_all").signed()
        assert next(row for row in benefits.rows if row[0] == title)[1 + 2 * at :][:2] == [
            str(one.value(model, name)), above,
        ]  # fmt: skip
        assert benefits.rows[-2][1 + 2 * at :][:2] == [str(one.value("treat_all", name)), ""]
        assert benefits.rows[-1][1 + 2 * at :][:2] == ["0", ""]


@pytest.mark.parametrize("kind", ["binary", "multilabel", "quantity"])
def test_groups_have_their_metrics_and_differences(kind):
    one = small_task(kind)
    (table,) = _tables(_sections(_in(one, "mmHg"))["Groups of patients"])
    gap = "difference from all other records"
    columns = {
        "binary": ["positive", "AUROC", "sensitivity", gap, "false-positive rate", gap,
                   "mean probability minus frequency", gap],
        "multilabel": ["classes", "macro AUROC"],
        "quantity": ["MAE, mmHg", gap, "bias, mmHg", gap],
    }  # fmt: skip
    assert table.header == ["grouped by", "group", "records", "patients", *columns[kind]]
    first = dict(zip(table.header[:6], table.rows[0], strict=False))
    assert (first["group"], first["records"], first["patients"]) == ("female", "60", "30")
    if kind == "quantity":
        metric = one.value("pretrained", "MAE", part="sex: female")
        difference = one.value("pretrained", "MAE", part="sex: female", minus="all other records")
        assert table.rows[0][4:6] == (metric.text(1), difference.signed(1))


def test_classes_have_their_numbers():
    one = small_task("multilabel")
    sections = _sections(one)
    aurocs, (of_all, decisions, calibration) = _tables(sections["Results by class"])[0], _tables(sections[DECISIONS])
    af, gone = aurocs.rows[0], aurocs.rows[3]
    assert af[3:] == (
        *(str(one.value(name, "AUROC", part="af")) for name in ("pretrained", "random", "supervised")),
        one.value("pretrained", "AUROC", minus="random", part="af").signed(),
    )
    assert gone[3:] == ("n/a (none of 120 records is positive)", "", "", "")
    random = dict(zip(of_all.header, of_all.rows[2], strict=False))
    assert random["macro F1"] == str(one.value("random", "macro F1"))
    assert of_all.rows[2][2] == one.value("pretrained", "macro F1", minus="random").signed()
    assert decisions.rows[0][2] == f"{one.facts['classes'][0].threshold:.3f}"
    assert decisions.rows[0][3] == str(one.value("pretrained", "F1", part="af"))
    assert calibration.rows[0][4] == str(one.value("pretrained", "slope", part="af"))
    assert decisions.rows[3][3:] == ("n/a (test: none of 120 records is positive)", "", "", "", "")


def test_many_classes_are_folded():
    one = small_task("multilabel")
    assert [table.header[0] for table in _tables(_sections(one)[DECISIONS])] == ["model", "class", "class"]
    many = dataclasses.replace(one, facts={**one.facts, "classes": one.facts["classes"] * 7})
    folded = [block.blocks[0] for block in _sections(many)[DECISIONS] if isinstance(block, Folded)]
    assert [len(table.rows) for table in folded] == [35, 35]
    assert [table.header[0] for table in _tables(_sections(many)[DECISIONS])] == ["model"]


def test_the_challenge_is_told_where_its_classes_are():
    number = len(SCORED_CLASSES)
    draw = np.random.default_rng(2)
    seen = draw.normal(size=(320, number))
    data = small_data("multilabel")
    parts = {
        name: dataclasses.replace(getattr(data, name), labels=(seen[records] > 0.8).astype(np.int64))
        for name, records in SPLITS.items()
    }
    data = dataclasses.replace(
        data, task=MultiLabelTask(task="scored"), classes=SCORED_CLASSES, **parts, train_available=parts["train"]
    )
    models = {
        name: Answers(outputs=noisy[SPLITS["test"]], val_outputs=noisy[SPLITS["val"]], selected="C = 0.1 of 13")
        for name, noise in (("pretrained", 0.2), ("random", 2.0))
        for noisy in [seen + noise * draw.normal(size=seen.shape)]
    }
    one = measured_task(data, models, small_report(resamples=100, groups={}))
    table, words = _sections(one)[DECISIONS][:2]
    assert "CinC 2021 score" in table.header
    assert "The CinC 2021 score is that of PhysioNet's challenge on its 26 classes" in words.text


def test_a_class_that_lacks_labels_everywhere_is_no_error():
    data = small_data("multilabel")
    for side, value in ((data.val, 0), (data.test, 1)):
        side.labels[:, :2] = value
    data.test.labels[:, 2:] = 0
    data.test.labels[0, 4] = 1
    data.val.labels[:, 4] = 0
    one = measured_task(data, small_models(small_data("multilabel")), small_report(resamples=100))
    models, words, decisions, calibration, _ = _sections(one)[DECISIONS]
    assert models.rows[0][1].startswith("n/a (")
    assert "0 of 5 classes" in words.text
    assert decisions.rows[0][3].startswith("n/a (validation: none of 80 records is positive")
    assert [row[3].startswith("n/a (") for row in calibration.rows] == [True] * 5


def test_too_few_of_one_label_have_no_curves():
    data = small_data("binary")
    data.test.labels[np.flatnonzero(data.test.labels)[6:]] = 0
    one = measured_task(data, small_models(small_data("binary")), small_report(resamples=100))
    blocks = _sections(one)["Results"]
    text = "Curves are not drawn: 6 positive of 120 test records are too few of one label for a curve."
    assert Paragraph(text) in blocks
    assert len([block for block in blocks if isinstance(block, Picture)]) == 1  # the differences


def test_what_was_not_asked_for_is_left_out():
    one = small_task("binary")
    report = dataclasses.replace(one.report, treat_at=(), prevalence=None)
    sections = _sections(dataclasses.replace(one, groups=[], report=report))
    assert sections["Groups of patients"] == [Paragraph("No groups were asked for (config.probe.groups).")]
    captions = [table.caption for table in _tables(sections[DECISIONS])]
    assert "Decisions at the threshold with the best F1" in captions
    assert "Net benefit per record" not in captions
    assert all("PPV at 0.05" not in table.header for table in _tables(sections[DECISIONS]))


@pytest.mark.parametrize(("kind", "metrics"), [("trend", ["correlation", "MAE"]), ("pooled", ["pooled AUROC"])])
def test_a_new_kind_has_the_sections_that_all_have(kind, metrics):
    sections = _sections(small_task(kind))
    assert list(sections)[:4] == [
        "Results", "Groups of patients", "Nearest neighbours in the embedding space", "Records",
    ]  # fmt: skip
    table = sections["Results"][0]
    assert table.header[1:-1] == (f"{metrics[0]} [95 % interval]", "pretrained minus this model", *metrics[1:])
    assert sections["Groups of patients"][0].header[4:] == metrics
    constant = [row[1] for row in table.rows if row[0] == "mean of the training labels"]
    assert constant == (["n/a (it needs values that differ)"] if kind == "trend" else [])


def test_a_model_without_answers_says_why():
    one = small_task("quantity")
    models = {**one.models, "finetuned": Answers(outputs=None, reason="no labels")}
    row = results_table(dataclasses.replace(one, models=models)).rows[-1]
    assert row == ("pretrained, fine-tuned", "n/a (no labels)", "", "", "", "", "")


def test_real_data_are_not_called_simulated(tmp_path, undrawn):
    report = _write(small_task("binary"), tmp_path, provenance=PROVENANCE._replace(simulated=False))
    assert "SIMULATED" not in report.markdown.read_text(encoding="utf-8")
    assert "SIMULATED" not in report.html.read_text(encoding="utf-8")


def test_a_report_replaces_the_earlier_one_only_when_whole(tmp_path, monkeypatch):
    one, last = small_task("trend"), Picture(figure=Figure(), alt="x")

    def image_of(picture):
        if picture is last:
            raise OSError("disk full")
        return Image(data=picture.alt.encode(), kind="png", width=1, height=1)

    monkeypatch.setattr(write, "image_of", image_of)
    folder = _write(one, tmp_path).html.parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "note.txt").write_text("of the earlier report")

    with pytest.raises(OSError, match="disk full"):
        _write(one, tmp_path, sections=[Section("x", [last])])
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "note.txt"} == before
    assert [path.name for path in tmp_path.iterdir()] == ["grade"]
    _write(one, tmp_path)
    assert not (folder / "note.txt").exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".npz"} == {
        name: content for name, content in before.items() if not name.endswith(".npz")
    }
    assert [path.name for path in tmp_path.iterdir()] == ["grade"]


@pytest.mark.slow
def test_figures_are_written_and_shown(tmp_path):
    rng = np.random.default_rng(0)
    original = rng.normal(size=(2, 300, 12)).astype(np.float32) * 0.1
    views = augmented_views(original, [("VCG", original * 2), ("crop", original[:, :200])], sampling_rate_hz=100,
                            titles=["record a", "record b"])  # fmt: skip
    lines = [{"step": step, "train/loss": 5 - step / 100} for step in range(0, 400, 5)]
    lines += [{"step": 200, "eval/loss": 4.0}, {"step": 300, "eval/loss": 3.5, "train/top1_accuracy": 0.8}]
    curve = training_curve(metric_series(lines))
    sections = [Section("Training", [Picture(figure=curve, alt="loss"), Picture(figure=views, alt="views of a")])]
    report = _write(small_task("binary"), tmp_path, sections=sections)
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
