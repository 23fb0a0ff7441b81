"""Label efficiency: cells that are resumed, two kinds of spread apart, and a whole small study."""

import base64
import dataclasses
import json
import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from data_pipelines.errors import DataError
from ecgjax import label_efficiency as entry
from ecgjax.config import run_config
from ecgjax.data.labels import LabelledRecords, ProbeData
from ecgjax.data.tasks import BinaryTask, MultiLabelTask, QuantityTask
from ecgjax.defaults import settings_of
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.models import boosted
from ecgjax.evaluation.models.answers import Answers
from ecgjax.evaluation.results import Key, lost_seeds, of_seeds, read_results, seed_sd, seeds_interval
from ecgjax.settings.probe import FineTuneSettings, MetricSettings, ProbeSettings
from ecgjax.studies import label_efficiency, models
from ecgjax.studies.label_efficiency import measure_cells
from ecgjax.studies.readouts import models_of
from ecgjax.studies.report import label_efficiency_page
from ecgjax.studies.report.label_efficiency_tables import (
    classes_table,
    differences_table,
    figure,
    models_table,
    other_metrics_table,
)
from ecgjax.studies.store import (
    CELL_MODELS,
    CELLS_DIR,
    Cell,
    TrainedCell,
    begin_study,
    read_cells,
    run_cells,
)
from tests.support import tiny_config
from tests.support.resampled import auroc_of_pairs, bounds
from tests.support.sources import open_stand_in

RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(150), 2)
LABELS = (RNG.random(150) < 0.3).astype(np.int64)[PATIENTS]
TASK = BinaryTask(label="lvef", rule="below", threshold=40.0)


def _cell(model="pretrained", *, seed=0, fraction=0.1, mode="frozen"):
    return Cell(fraction=fraction, seed=seed, model=model, mode=mode)


def _result(cell, *, signal=1.0, scores=None, reason="", records=30, positives=9):
    if scores is None and not reason:
        rng = np.random.default_rng([cell.seed, cell.model == "random"])
        scores = (signal * LABELS + rng.normal(size=len(LABELS))).astype(np.float32)
    answers = Answers(
        outputs=scores, reason=reason, selected="C = 1", val_metric=0.7 if not reason else np.nan, records=records,
        positives=positives,
    )  # fmt: skip
    return TrainedCell(cell=cell, answers=answers, patients=15, seconds=0.5)


def _results(**settings):
    cells = [_cell(which, seed=seed) for which in ("random", "pretrained") for seed in range(4)]
    return [_result(cell, signal=1.5 if cell.model == "pretrained" else 0.5, **settings) for cell in cells]


def _data(task=TASK, labels=LABELS, classes=()):
    test = LabelledRecords(records=np.arange(len(labels)), labels=labels, patients=PATIENTS, unlabelled=0)
    return ProbeData(
        task=task, train=test, val=test, test=test, label_fraction=1.0, seed=0, train_available=test, excluded={},
        classes=classes,
    )  # fmt: skip


def _measured(results, **asked):
    return measure_cells(results, _data(**asked), resamples=300, seed=0)


def _key(model, *, metric="AUROC", minus="", seed=None, fraction=0.1):
    return Key(model, metric, "lvef<40", fraction, seed, minus)


def _scores(results, name):
    return [each.answers.outputs for each in results if each.cell.trained == name]


@pytest.mark.parametrize("scores", [np.float32([0.1, -2.5e-8, 3e7]), np.zeros((2, 3), np.float32)])
def test_a_cell_is_read_as_it_was_written(scores):
    result = _result(_cell(), scores=scores)
    again = TrainedCell.from_json(result.to_json())
    np.testing.assert_array_equal(again.answers.outputs, scores)
    assert again.answers.outputs.dtype == np.float32
    assert again._replace(answers=None) == result._replace(answers=None)
    assert dataclasses.replace(again.answers, outputs=None) == dataclasses.replace(result.answers, outputs=None)


def test_a_cell_without_a_model_is_read_as_it_was_written():
    result = _result(_cell(), reason="none of 30 records is positive", positives=0)
    assert '"val_metric": null' in result.to_json()
    again = TrainedCell.from_json(result.to_json())
    assert again._replace(answers=None) == result._replace(answers=None)
    assert np.isnan(again.answers.val_metric)
    known = {"val_metric": 0.0}
    assert dataclasses.replace(again.answers, **known) == dataclasses.replace(result.answers, **known)


def test_cells_from_before_studies_had_one_table_go_on(tmp_path):
    scores = np.float32([0.5, -1.25, 3e-7])
    packed = base64.b64encode(scores.tobytes()).decode()
    before = {
        "cell": {"fraction": 0.1, "seed": 2, "model": "intervals", "mode": "plain"},
        "records": 30, "patients": 15, "positives": None, "val_metric": 0.25, "selected": "7 trees of 4 leaves",
        "scores": {"shape": [3], "float32_little_endian_base64": packed}, "seconds": 1.5, "reason": "", "unlearnt": 2,
    }  # fmt: skip
    cell = _cell("intervals", seed=2, mode="plain")
    (tmp_path / CELLS_DIR).mkdir()
    (tmp_path / CELLS_DIR / "plain-intervals-0.1-seed2.json").write_text(json.dumps(before), encoding="utf-8")
    (result,) = run_cells([cell], tmp_path, None, progress=False)
    assert (result.cell, result.patients, result.seconds, result.unlearnt) == (cell, 15, 1.5, 2)
    np.testing.assert_array_equal(result.answers.outputs, scores)
    answers = (result.answers.records, result.answers.positives, result.answers.val_metric, result.answers.selected)
    assert answers == (30, None, 0.25, "7 trees of 4 leaves")
    assert json.loads(result.to_json()) == before
    assert cell.trained == "boosted", "what those cells called intervals are boosted trees on them"


def test_an_interrupted_study_trains_what_is_missing_and_nothing_again(tmp_path):
    cells = [_cell(seed=seed) for seed in range(5)]
    trained = []

    def train(cell):
        if cell.seed == 3 and not trained[3:]:
            trained.append(None)
            raise KeyboardInterrupt
        trained.append(cell.seed)
        return _result(cell)

    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, tmp_path, train, progress=False)
    results = run_cells(cells, tmp_path, train, progress=False)
    assert trained == [0, 1, 2, None, 3, 4]
    assert [result.cell for result in results] == cells
    assert {result.cell for result in read_cells(tmp_path)} == set(cells)


def test_a_damaged_cell_is_no_result(tmp_path):
    run_cells([_cell()], tmp_path, _result, progress=False)
    path = tmp_path / CELLS_DIR / f"{_cell().name}.json"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    with pytest.raises(DataError, match=r"this cell is damaged .* remove it to train it again"):
        run_cells([_cell()], tmp_path, _result, progress=False)
    path.write_text(_result(_cell(seed=1)).to_json(), encoding="utf-8")
    with pytest.raises(DataError, match=r"holds the cell frozen-pretrained-0\.1-seed1"):
        run_cells([_cell()], tmp_path, _result, progress=False)


def test_a_folder_holds_one_study(tmp_path):
    begin_study(tmp_path, {"task": "a", "folds": (1, 2)})
    begin_study(tmp_path, {"task": "a", "folds": (1, 2)})
    with pytest.raises(ConfigError, match="holds another study: folds differ"):
        begin_study(tmp_path, {"task": "a", "folds": (1, 3)})


def test_means_and_differences_are_those_of_the_seeds():
    results = _results()
    rows = _measured(results)
    aurocs = {
        name: [roc_auc_score(LABELS, scores) for scores in _scores(results, name)] for name in ("random", "pretrained")
    }
    for name, values in aurocs.items():
        assert rows[_key(name)].estimate == pytest.approx(np.mean(values), abs=1e-12)
        assert of_seeds(rows, _key(name)) == pytest.approx(dict(enumerate(values)), abs=1e-12)
        assert seed_sd(of_seeds(rows, _key(name))) == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    differences = np.subtract(aurocs["pretrained"], aurocs["random"])
    key = _key("pretrained", minus="random")
    difference = rows[key]
    assert difference.estimate == pytest.approx(differences.mean(), abs=1e-12)
    half = 3.182446305 * differences.std(ddof=1) / 2  # Student's t for three degrees of freedom
    over_seeds = seeds_interval(of_seeds(rows, key))
    np.testing.assert_allclose(over_seeds, [differences.mean() - half, differences.mean() + half], rtol=1e-8)
    assert 0 < difference.low < difference.estimate < difference.high


def test_intervals_are_of_the_mean_over_seeds_on_drawn_patients():
    results = [each for each in _results() if each.cell.seed < 2]
    rows = measure_cells(results, _data(), resamples=100, seed=4)
    pairs = list(zip(_scores(results, "pretrained"), _scores(results, "random"), strict=True))

    def mean_difference(drawn):
        values = [[auroc_of_pairs(LABELS[drawn], scores[drawn]) for scores in pair] for pair in pairs]
        return np.mean([own - other for own, other in values])

    difference = rows[_key("pretrained", minus="random")]
    expected = bounds(PATIENTS, mean_difference, resamples=100, seed=4)
    np.testing.assert_allclose((difference.low, difference.high), expected, rtol=0, atol=1e-12)


def test_the_pretrained_encoder_is_compared_with_every_plain_model():
    results = _results()
    plain = CELL_MODELS["plain"]
    for number, model in enumerate(plain):
        cells = [_cell(model, seed=seed, mode="plain") for seed in range(4)]
        results += [_result(cell, signal=number) for cell in cells]
    rows = _measured(results)
    for model in plain.values():
        own, other = (
            np.mean([roc_auc_score(LABELS, scores) for scores in _scores(results, name)])
            for name in ("pretrained", model)
        )
        assert rows[_key("pretrained", minus=model)].estimate == pytest.approx(own - other, abs=1e-12)
        assert rows[_key(model)].estimate == pytest.approx(other, abs=1e-12)
    compared = {(key.model, key.minus) for key in rows if key.minus}
    assert compared == {("pretrained", other) for other in ("random", *plain.values())}
    table = differences_table(rows, results, TASK)
    assert [row[2] for row in table.rows] == ["pretrained, linear probe"] * (1 + len(plain))
    assert [row[3] for row in table.rows] == [
        "random initialisation, linear probe", "age and sex, logistic", "intervals and amplitudes, logistic",
        "intervals and amplitudes, boosted trees", "median beat and heart rate, logistic", "intervals and median beat",
    ]  # fmt: skip
    left, right = figure(rows, TASK, title="SIMULATED").axes
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["pretrained, linear probe"]
    assert len(left.get_legend().get_texts()) == 7


def test_fine_tuned_encoders_are_compared_with_the_same_trained_on_labels_alone():
    results = _results()
    cells = [_cell(which, seed=seed, mode="finetuned") for which in ("random", "pretrained") for seed in range(4)]
    results += [_result(cell, signal=2.0 if cell.model == "pretrained" else 1.0) for cell in cells]
    rows = _measured(results)
    assert {(key.model, key.minus) for key in rows if key.minus} == {
        ("pretrained", "random"), ("finetuned", "supervised"), ("pretrained", "supervised"),
    }  # fmt: skip
    own, other = (
        np.mean([roc_auc_score(LABELS, scores) for scores in _scores(results, name)])
        for name in ("finetuned", "supervised")
    )
    assert rows[_key("finetuned", minus="supervised")].estimate == pytest.approx(own - other, abs=1e-12)


def test_patients_and_seeds_are_spreads_of_their_own():
    """Seeds that agree to the bit leave the patients' spread; a difference of equal scores has neither."""
    scores = _result(_cell()).answers.outputs
    results = [
        _result(_cell(which, seed=seed), scores=scores) for which in ("random", "pretrained") for seed in range(3)
    ]
    rows = _measured(results)
    means = [key for key in rows if key.seed is None]
    assert len(means) == 3
    for key in means:
        assert seed_sd(of_seeds(rows, key)) == pytest.approx(0, abs=1e-12)
        width = rows[key].high - rows[key].low
        assert width == 0 if key.minus else width > 0.05


def test_classes_that_labels_lack_are_told():
    results = [_result(_cell(seed=seed))._replace(unlearnt=seed) for seed in (1, 2)]
    results.append(_result(_cell(fraction=1.0))._replace(unlearnt=0))
    words = label_efficiency_page._unlearnt(results, 5)
    assert words.startswith("Of 5 classes the training records lack a label of 1 to 2 at 10 % of the labels:")
    assert label_efficiency_page._unlearnt(results[2:], 5) == ""


def test_only_networks_that_were_trained_are_said_to_choose_their_step():
    training = FineTuneSettings()
    probe = dataclasses.replace(
        ProbeSettings(),
        supervised=dataclasses.replace(training, eval_records=500),
        finetune=dataclasses.replace(training, eval_records=200),
    )
    study = SimpleNamespace(
        settings=SimpleNamespace(probe=probe), data=SimpleNamespace(val=SimpleNamespace(records=range(800)))
    )
    frozen, tuned = _result(_cell("pretrained")), _result(_cell("pretrained", mode="finetuned"))
    labels_only = _result(_cell("random", mode="finetuned"))
    assert label_efficiency_page._part(study, [frozen]) == ""
    assert label_efficiency_page._part(study, [frozen, labels_only]) == (
        " Training with labels only selects its step on 500 validation records, drawn anew with every seed."
    )
    assert label_efficiency_page._part(study, [frozen, tuned, labels_only]) == (
        " Fine-tuning selects its step on 200 validation records and training with labels only selects its step on 500 "
        "validation records, drawn anew with every seed."
    )
    study.data.val.records = range(200)
    assert label_efficiency_page._part(study, [tuned, labels_only]) == ""


def test_cells_without_a_model_are_counted_and_their_pairs_left_out():
    results = _results()
    results[-1] = _result(results[-1].cell, reason="none of 30 records is positive")
    rows = _measured(results)
    own, difference = _key("pretrained"), _key("pretrained", minus="random")
    assert list(of_seeds(rows, own)) == list(of_seeds(rows, difference)) == [0, 1, 2]
    assert [lost_seeds(rows, key) for key in (own, difference, _key("random"))] == [1, 1, 0]
    assert rows[own._replace(seed=3)].reason == "none of 30 records is positive"
    assert len(of_seeds(rows, _key("random"))) == 4
    cells = [cell for row in models_table(rows, results, TASK).rows for cell in row]
    assert "3, 1 missing" in cells
    assert "9 (too few)" in cells
    nothing = [_result(_cell(), reason="none of 30 records is positive")]
    table = models_table(_measured(nothing), nothing, TASK)
    assert "n/a (none of 30 records is positive)" in table.rows[0]


def test_labels_are_counted_over_seeds():
    counts = ((1_000, 12), (1_001, 30), (1_301, 10))
    cells = [
        _result(_cell(seed=seed), records=records, positives=positives)
        for seed, (records, positives) in enumerate(counts)
    ]
    table = models_table(_measured(cells), cells, TASK)
    assert table.header[1:3] == ("training records", "fewest positives")
    assert table.rows[0][1:3] == ("1,101", "10")


def test_other_metrics_are_means_over_seeds():
    results = _results()
    table = other_metrics_table(_measured(results), TASK)
    assert table.header == ("share of labels", "model", "AUPRC")
    values = [average_precision_score(LABELS, scores) for scores in _scores(results, "pretrained")]
    expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert table.rows[0] == ("10 %", "pretrained, linear probe", expected)


def test_other_metrics_of_a_quantity_have_its_unit():
    task = QuantityTask(label="wedge_pressure")
    results = [_result(_cell(seed=seed), positives=None) for seed in range(2)]
    rows = _measured(results, task=task, labels=LABELS + 0.5 * PATIENTS)
    table = other_metrics_table(rows, task, unit="mmHg")
    assert table.header == ("share of labels", "model", "Pearson's r", "RMSE, mmHg", "MAE, mmHg")
    assert "pretrained, linear probe" in table.rows[0]
    assert models_table(rows, results, task).header[3] == "R² [95 % interval over patients]"


def test_classes_are_named_also_those_left_out():
    targets, task = np.stack([LABELS, np.zeros_like(LABELS)], axis=1), MultiLabelTask(task="findings")
    results = [_result(r.cell, scores=np.stack([r.answers.outputs] * 2, 1)) for r in _results()]
    results += [r._replace(cell=dataclasses.replace(r.cell, fraction=0.01)) for r in results]
    rows = _measured(results, task=task, labels=targets, classes=("af", "gone"))
    table = classes_table(rows, task, positives={"af": LABELS.sum(), "gone": 0})
    assert "at 10 % of the labels" in table.caption
    values = [roc_auc_score(LABELS, scores) for scores in _scores(_results(), "random")]
    expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert table.header[3] == "random initialisation, linear probe"
    assert table.rows[0] == ("af", f"{LABELS.sum()}", table.rows[0][2], expected)
    assert table.rows[1] == ("gone", "0", "n/a (none of 300 records is positive)", "")


def test_a_quantity_has_no_column_of_positives():
    results = _results(positives=None)
    for table in (models_table, differences_table):
        header = table(_measured(results), results, TASK).header
        assert "fewest positives" not in header
        assert len(header) == 6


def test_figure_shows_every_seed():
    results = _results()
    rows = _measured(results)
    left, right = figure(rows, TASK, title="SIMULATED").axes
    seeds = [line for line in left.lines if len(line.get_xdata()) == 4]
    assert len(seeds) == 2
    for line, name in zip(seeds, ("pretrained", "random"), strict=True):
        values = [roc_auc_score(LABELS, scores) for scores in _scores(results, name)]
        np.testing.assert_allclose(line.get_ydata(), values, rtol=0, atol=1e-12)
    assert right.get_ylabel() == "AUROC: pretrained minus not pretrained, paired"
    assert differences_table(rows, results, TASK).rows[0][4].startswith("+")


def test_unknown_modes_are_refused():
    with pytest.raises(ConfigError, match="'probe' is unknown; there are: frozen, finetuned, plain"):
        entry.cells_of([0.1], seeds=1, modes=["frozen", "probe"])


@pytest.fixture(scope="module")
def study_config(stored_dataset):
    config = tiny_config.get_config()
    config.data.dir = str(stored_dataset[0].directory)
    config.data.train_folds, config.data.val_folds, config.data.test_folds = (1, 2, 3, 4, 5, 6), (7, 8), (9, 10)
    config.encoder.widths = (4,)
    config.probe.bootstrap = 100
    for settings in (config.probe.supervised, config.probe.finetune):
        settings.update({"steps": 2, "batch_size": 4, "eval_every": 1})
    config.probe.finetune.metric.weight = 0.5
    return config


def _raising(error):
    def function(*args, **kwargs):
        raise error

    return function


def _without_one_val_record(own, recordings, **given):
    """As a firewall that drops one."""
    split = dataclasses.replace(recordings.split, val=recordings.split.val[1:])
    return dataclasses.replace(recordings, split=split), ()


def test_a_whole_study(study_config, monkeypatch, tmp_path):
    split = create_split(settings_of(study_config).encoder, seed=7)
    pretrained = frozen_encoder.Encoder(split, num_leads=study_config.encoder.num_leads, step=5, pretrained_on=("x",))
    monkeypatch.setattr(frozen_encoder, "load_encoder", lambda workdir, step, layer: pretrained)
    monkeypatch.setattr(label_efficiency, "open_source", open_stand_in)
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(boosted, "_TREES", 3)
    monkeypatch.setattr(run_config, "load_resolved", lambda workdir: study_config)
    begin = lambda: entry.Study(  # noqa: E731
        settings_of(study_config),
        tmp_path,
        question="age_years>55",
        folder=tmp_path / "study",
        features=tmp_path / "kept",
        progress=False,
    )
    weight_decay = study_config.optimizer.weight_decay
    study = begin()
    cells = entry.cells_of([0.5, 1.0], seeds=1, modes=["frozen", "finetuned", "plain"])
    with jax.numpy_dtype_promotion("standard"):
        results = run_cells(cells, study.folder, study.train, progress=False)
    assert [result.answers.reason for result in results] == [""] * 16
    assert study._models.training("pretrained", study.data)._metric.weight == 0.5
    assert study._models.training("random", study.data)._metric is None
    tables, page = entry.write_report(study, results, command="python -m ecgjax.label_efficiency --task=…")
    text = (study.folder / "report.md").read_text(encoding="utf-8")
    assert "SIMULATED DATA" in text
    assert max(map(len, tables.splitlines())) <= 80
    assert text.startswith("**SIMULATED patients. ")
    assert "What may be concluded. Tested were" in text
    assert "The pretraining of the encoder" in text
    html = page.read_text(encoding="utf-8").replace("<wbr>", "")
    for part in (
        "SIMULATED DATA",
        "age_years&gt;55: how few labels suffice",
        "pretrained, fine-tuned",
        "intervals and amplitudes, boosted trees",
        "labels only, end to end",
        "ecgjax.label_efficiency --task=…",
        ">(4,)</td>",  # encoder.widths, which is not as in ecgjax/defaults.py
        study.recordings.fingerprints[0],
    ):
        assert part in html
    assert re.search(r"Curves are not drawn: only \d+ (positive|negative) test records\.", html)
    stored = json.loads((study.folder / "results.json").read_text(encoding="utf-8"))
    assert stored["simulated"] is True
    rows = read_results(study.folder)
    assert rows.keys() == measure_cells(results, study.data, resamples=100, seed=0).keys()
    for told, result in zip(stored["cells"], results, strict=True):
        expected = roc_auc_score(study.data.test.labels, result.answers.outputs)
        key = Key(result.cell.trained, "AUROC", "age_years>55", result.cell.fraction, result.cell.seed)
        assert rows[key].estimate == pytest.approx(expected, abs=1e-9)
        assert (told["mode"], told["model"], told["trained"]) == (
            result.cell.mode, result.cell.model, result.cell.trained,
        )  # fmt: skip
        assert (told["records"], told["patients"]) == (result.answers.records, result.patients)
    patients = {result.cell.fraction: result.patients for result in results}
    assert patients[0.5] == -(-patients[1.0] // 2)
    kept = {path.name.rpartition("-")[0] for path in (tmp_path / "kept").iterdir()}
    assert kept == {"pretrained", "random-seed0", "measurements"}
    assert not (study.folder / "features").exists()
    # Age is asked: sex alone remains, and says as much as two values of it.
    (of_sex,) = (r.answers.outputs for r in results if (r.cell.model, r.cell.fraction) == ("age_sex", 1.0))
    sex = study.recordings.index.label("sex")[study.data.test.records]
    assert len({*zip(of_sex.tolist(), sex.tolist(), strict=True)}) == len({*sex.tolist()})

    # The frozen cells again from nothing but the kept embeddings, and to the bit.
    shutil.rmtree(study.folder / CELLS_DIR)
    again = begin()
    monkeypatch.setattr(frozen_encoder, "recalibrate_batch_norm", None)
    for cell, result in zip(cells[:2], results[:2], strict=True):
        np.testing.assert_array_equal(again.train(cell).answers.outputs, result.answers.outputs)
    # Metric learning without a weight decides nothing: what it would be may change, and studies from before it go on.
    study_config.probe.supervised.metric.margin = 3.0
    begin()
    study_config.probe.finetune.metric.margin = 3.0
    with pytest.raises(ConfigError, match="holds another study: config differ"):
        begin()
    study_config.probe.finetune.metric.margin = 0.2
    study_config.optimizer.weight_decay = 0.3  # which training with labels takes over
    with pytest.raises(ConfigError, match="holds another study: config, pretraining differ"):
        begin()
    study_config.optimizer.weight_decay = weight_decay
    with monkeypatch.context() as patch:
        retrained = create_split(settings_of(study_config).encoder, seed=8)
        other = dataclasses.replace(pretrained, split=retrained)
        patch.setattr(frozen_encoder, "load_encoder", lambda workdir, step, layer: other)
        with pytest.raises(ConfigError, match="holds another study: weights differ"):
            begin()
    with monkeypatch.context() as patch:
        no_model = DataError("training with labels diverged", reason="no_model")
        patch.setattr(models, "fit_linear", _raising(no_model))
        result = again.train(cells[0])
        assert (result.answers.reason, result.answers.outputs) == ("training with labels diverged", None)
        assert result.answers.records == results[0].answers.records
        assert result.answers.positives == results[0].answers.positives
        patch.setattr(models, "fit_linear", _raising(DataError("a shard is damaged")))
        with pytest.raises(DataError, match="a shard is damaged"):
            again.train(cells[0])
    # What the default learning rates of the two, and a weight of metric learning in one, make of their difference.
    (said,) = study.cautions(["finetuned"])[len(study.cautions(["frozen", "plain"])) :]
    assert re.search(
        r"finetune and .*supervised\): .*head_learning_rate 0.003 and 0.001; .*metric.weight 0.5 and 0", said
    )
    assert "margin" not in said
    assert said in text
    # A study from before questions were one line goes on.
    path = study.folder / "study.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    del before["pretraining"]["columns"]["task"]
    before["pretraining"]["columns"] |= {"label": "", "rule": "values", "threshold": None}
    before["pretraining"]["sampling"]["balance"] = {"label": "", "rule": "present", "threshold": None}
    path.write_text(json.dumps(before), encoding="utf-8")
    begin()
    # Studies from before heads could begin at a probe go on, and none gets cells that do.
    assert "head_start" not in (study.folder / "study.json").read_text(encoding="utf-8")
    study_config.probe.finetune.head_start = "probe"
    with pytest.raises(ConfigError, match="holds another study: config differ"):
        begin()
    study_config.probe.finetune.head_start = "zeros"
    with monkeypatch.context() as patch:
        patch.setattr(label_efficiency, "guarded", _without_one_val_record)
        with pytest.raises(ConfigError, match="holds another study: records differ"):
            begin()
    study_config.probe.finetune.metric.miner = "semi-hard"
    with pytest.raises(ConfigError, match=r"config\.probe\.finetune: metric\.miner='semi-hard' is unknown"):
        entry.Study(settings_of(study_config), tmp_path, question="age_years>55", folder=tmp_path / "other")
    assert not (tmp_path / "other").exists(), "nothing is begun with settings that cannot be"
    study_config.probe.finetune.metric.miner = "auto"
    with pytest.raises(ConfigError, match="holds another study: records, task differ"):
        entry.Study(settings_of(study_config), tmp_path, question="age", folder=tmp_path / "study", progress=False)


READOUTS = ("mean_deviation", "attention", "fusion")
GRID = ("resnet18:small seed=3 widths=(4,) kernel=3",)


def test_labels_only_is_the_half_of_fine_tuning_without_a_pretrained_encoder():
    cells = entry.cells_of([0.1, 1.0], seeds=2, modes=["plain", entry.LABELS_ONLY])
    trained = [(each.fraction, each.seed) for each in cells if each.trained == "supervised"]
    assert trained == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]
    assert {each.mode for each in cells} == {"finetuned", "plain"}
    assert "finetuned" not in {each.trained for each in cells}
    both = entry.cells_of([0.1], seeds=1, modes=["finetuned", entry.LABELS_ONLY])
    assert sorted(each.trained for each in both) == ["finetuned", "supervised"]


def test_cells_of_readouts_come_with_any_mode_and_without_them_there_are_none():
    further = models_of(ProbeSettings(readouts=(*READOUTS, "finetuned"), grid=GRID))
    plain = entry.cells_of([1.0], seeds=1, modes=["frozen"])
    assert [cell.trained for cell in plain] == ["random", "pretrained"]
    cells = entry.cells_of([1.0], seeds=1, modes=["frozen"], further=further)
    assert {*further} | {"random", "pretrained"} == {cell.trained for cell in cells}
    assert len({cell.name for cell in cells}) == len(cells) == len(further) + 2
    modes = {cell.trained: cell.mode for cell in cells}
    assert (modes["measured"], modes["finetuned"], modes["random_grid"]) == ("plain", "finetuned", "frozen")


# The models of readouts are tested in `studies/test_models.py`, and their cells above.
@pytest.mark.slow
def test_a_study_of_readouts(study_config, monkeypatch, tmp_path):
    study_config = study_config.copy_and_resolve_references()
    split = create_split(settings_of(study_config).encoder, seed=7)
    pretrained = frozen_encoder.Encoder(split, num_leads=study_config.encoder.num_leads, step=5, pretrained_on=("x",))
    monkeypatch.setattr(frozen_encoder, "load_encoder", lambda workdir, step, layer: pretrained)
    monkeypatch.setattr(label_efficiency, "open_source", open_stand_in)
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(run_config, "load_resolved", lambda workdir: study_config)

    def begin():
        settings = settings_of(study_config)
        return entry.Study(settings, tmp_path, question="age_years>55", folder=tmp_path / "study", progress=False)

    begin()
    # A study from before there were readouts goes on with them.
    assert "readouts" not in (tmp_path / "study" / "study.json").read_text(encoding="utf-8")
    study_config.probe.readouts = READOUTS
    study = begin()
    cells = entry.cells_of([1.0], seeds=1, modes=[], further=models_of(study.settings.probe))
    cells.append(_cell(fraction=1.0))
    with jax.numpy_dtype_promotion("standard"):
        results = run_cells(cells, study.folder, study.train, progress=False)
    assert [result.answers.reason for result in results] == [""] * 8
    kept = [path.name.rpartition("-")[0] for path in (tmp_path / "study" / "features").iterdir()]
    assert len(kept) == len({*kept}), "one pass for an encoder and what is read of it"
    assert {*kept} == {
        "measurements",
        *(f"{name}{what}" for name in ("pretrained", "random-seed0") for what in ("", "-moments", "-tokens")),
    }
    entry.write_report(study, results, command="again")
    differences = {(key.model, key.minus) for key in read_results(study.folder) if key.minus}
    for pair in (
        ("pretrained_fusion", "measured"), ("pretrained_fusion", "random_fusion"), ("random_fusion", "measured"),
        ("pretrained_attention", "random_attention"), ("pretrained_mean_deviation", "pretrained"),
    ):  # fmt: skip
        assert pair in differences
    assert "pretrained, attention pool on tokens" in (study.folder / "report.md").read_text(encoding="utf-8")
    stored = json.loads((study.folder / "results.json").read_text(encoding="utf-8"))
    assert stored["choices"][0].startswith(
        f"Hyperparameters are chosen on all {len(study.data.val.records)} validation records"
    )
    text = (study.folder / "report.md").read_text(encoding="utf-8")
    assert "config.probe.select=validation" in text
    # What chooses, and among what, is a part of the study.
    for leaf, value in (("select", "labelled"), ("strength", 0.1), ("grid", GRID), ("rate_factors", (0.5, 1.0))):
        before = study_config.probe[leaf]
        with study_config.unlocked():
            study_config.probe[leaf] = value
        with pytest.raises(ConfigError, match="holds another study: config differ"):
            begin()
        study_config.probe[leaf] = before


def test_the_folder_of_another_command_s_study_is_refused(study_config, monkeypatch, tmp_path):
    split = create_split(settings_of(study_config).encoder, seed=7)
    pretrained = frozen_encoder.Encoder(split, num_leads=study_config.encoder.num_leads, step=5, pretrained_on=("x",))
    monkeypatch.setattr(frozen_encoder, "load_encoder", lambda workdir, step, layer: pretrained)
    monkeypatch.setattr(label_efficiency, "open_source", open_stand_in)
    monkeypatch.setattr(run_config, "load_resolved", lambda workdir: study_config)
    of_others = {
        "cross_validate": {"data": ["f00d"], "records": "f00d", "method": {"outer_folds": 3}},
        "ablate": {"tasks": ["age"], "label_fraction": 0.5, "data": ["f00d"], "test_records": "f00d"},
    }
    for command, identity in of_others.items():
        folder = tmp_path / command
        begin_study(folder, identity)
        before = (folder / "study.json").read_text(encoding="utf-8")
        with pytest.raises(ConfigError, match=rf"--out={folder} holds another study: .*give the same to go on"):
            entry.Study(settings_of(study_config), tmp_path, question="age_years>55", folder=folder, progress=False)
        assert (folder / "study.json").read_text(encoding="utf-8") == before


def test_trainings_that_are_alike_are_not_said_to_differ():
    supervised = FineTuneSettings()
    finetune = dataclasses.replace(
        supervised, hidden=7, head_learning_rate=supervised.learning_rate, metric=MetricSettings(margin=3.0)
    )
    assert label_efficiency._unlike(ProbeSettings(supervised=supervised, finetune=finetune)) == ()
    with_mlp = dataclasses.replace(finetune, head="mlp")
    (said,) = label_efficiency._unlike(ProbeSettings(supervised=supervised, finetune=with_mlp))
    assert "head mlp and linear; hidden 7 and 128. Unless" in said


@pytest.mark.slow
def test_fine_tuning_begins_at_the_linear_probe_of_the_frozen_cell(study_config, monkeypatch, tmp_path):
    study_config = study_config.copy_and_resolve_references()
    split = create_split(settings_of(study_config).encoder, seed=7)
    pretrained = frozen_encoder.Encoder(split, num_leads=study_config.encoder.num_leads, step=5, pretrained_on=("x",))
    monkeypatch.setattr(frozen_encoder, "load_encoder", lambda workdir, step, layer: pretrained)
    monkeypatch.setattr(label_efficiency, "open_source", open_stand_in)
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)
    monkeypatch.setattr(run_config, "load_resolved", lambda workdir: study_config)
    study_config.probe.finetune.metric.weight = 0.0
    for name in ("supervised", "finetune"):
        study_config.probe[name].head_start = "probe"

    def begin():
        settings = settings_of(study_config)
        return entry.Study(settings, tmp_path, question="age_years>55", folder=tmp_path / "study", progress=False)

    study = begin()
    for model in ("pretrained", "random"):
        study._models.training(model, study.data)._step = lambda state, batch: (state, {})
        frozen, tuned = (study.train(_cell(model, fraction=1.0, mode=mode)).answers for mode in ("frozen", "finetuned"))
        assert frozen.outputs.std() > 0
        np.testing.assert_allclose(tuned.outputs, frozen.outputs, rtol=1e-3, atol=1e-4)
        assert tuned.selected.startswith("step 0,")
    study_config.probe.layer = "embedding"
    with pytest.raises(ConfigError, match=r"head_start='probe' needs probes of what the head sees"):
        begin()
