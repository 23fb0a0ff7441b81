"""Label efficiency: cells that are resumed, two kinds of spread apart, and a whole small study."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from data_pipelines.errors import DataError
from ecgjax import label_efficiency as entry
from ecgjax.config import run_config
from ecgjax.defaults import settings_of
from ecgjax.encoders.from_config import create_split
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.models import boosted
from ecgjax.evaluation.models.plain_models import PLAIN
from ecgjax.settings.probe import FineTuneSettings, MetricSettings, ProbeSettings
from ecgjax.studies import label_efficiency
from ecgjax.studies.label_efficiency_statistics import differences_table, figure, models_table, summarise
from ecgjax.studies.report import label_efficiency_page
from ecgjax.studies.report.cell_tables import classes_table, other_metrics_table
from ecgjax.studies.store import CELLS_DIR, Cell, CellResult, begin_study, read_cells, run_cells
from tests.support import tiny_config

RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(150), 2)
LABELS = (RNG.random(150) < 0.3).astype(np.int64)[PATIENTS]


def _cell(model="pretrained", *, seed=0, fraction=0.1, mode="frozen"):
    return Cell(fraction=fraction, seed=seed, model=model, mode=mode)


def _result(cell, *, signal=1.0, scores=None, reason=""):
    if scores is None and not reason:
        rng = np.random.default_rng([cell.seed, cell.model == "random"])
        scores = (signal * LABELS + rng.normal(size=len(LABELS))).astype(np.float32)
    return CellResult(
        cell=cell, records=30, patients=15, positives=9, val_metric=0.7 if not reason else np.nan, selected="C = 1",
        scores=scores, seconds=0.5, reason=reason,
    )  # fmt: skip


def _results(**settings):
    cells = [_cell(which, seed=seed) for which in ("random", "pretrained") for seed in range(4)]
    return [_result(cell, signal=1.5 if cell.model == "pretrained" else 0.5, **settings) for cell in cells]


def _by_name(summaries):
    return {(summary.model, summary.against): summary for summary in summaries}


def _summaries(results, **settings):
    return summarise(results, kind="binary", targets=LABELS, patients=PATIENTS, resamples=300, **settings)


@pytest.mark.parametrize("scores", [np.float32([0.1, -2.5e-8, 3e7]), np.zeros((2, 3), np.float32)])
def test_a_cell_is_read_as_it_was_written(scores):
    result = _result(_cell(), scores=scores)
    again = CellResult.from_json(result.to_json())
    np.testing.assert_array_equal(again.scores, scores)
    assert again.scores.dtype == np.float32
    assert again.cell == result.cell
    assert again.val_metric == result.val_metric


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
    by_name = _by_name(_summaries(results))
    aurocs = {
        which: [roc_auc_score(LABELS, r.scores) for r in results if r.cell.model == which]
        for which in ("random", "pretrained")
    }
    for which, values in aurocs.items():
        assert by_name[which, ""].patients.estimate == pytest.approx(np.mean(values), abs=1e-12)
        assert by_name[which, ""].seed_sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    differences = np.subtract(aurocs["pretrained"], aurocs["random"])
    difference = by_name["pretrained", "random"]
    assert difference.patients.estimate == pytest.approx(differences.mean(), abs=1e-12)
    half = 3.182446305 * differences.std(ddof=1) / 2  # Student's t for three degrees of freedom
    np.testing.assert_allclose(difference.over_seeds, [differences.mean() - half, differences.mean() + half], rtol=1e-8)
    assert 0 < difference.patients.low < difference.patients.estimate < difference.patients.high


def test_the_pretrained_encoder_is_compared_with_every_plain_model():
    results = _results()
    for number, model in enumerate(PLAIN):
        cells = [_cell(model, seed=seed, mode="plain") for seed in range(4)]
        results += [_result(cell, signal=number) for cell in cells]
    found = _by_name(_summaries(results))
    for model in PLAIN:
        own, other = (
            np.mean([roc_auc_score(LABELS, r.scores) for r in results if r.cell.model == name])
            for name in ("pretrained", model)
        )
        assert found["pretrained", model].patients.estimate == pytest.approx(own - other, abs=1e-12)
        assert found[model, ""].patients.estimate == pytest.approx(other, abs=1e-12)
    assert {against for _, against in found} == {"", "random", *PLAIN}, "plain models are compared with nothing"
    rows = differences_table(_summaries(results), metric="AUROC").rows
    assert [row[3] for row in rows] == ["random, frozen", "age and sex", "intervals, boosted trees", "median beat"]
    left, right = figure(_summaries(results), metric="AUROC", title="SIMULATED").axes
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["frozen"]
    assert len(left.get_legend().get_texts()) == 5


def test_patients_and_seeds_are_spreads_of_their_own():
    """Seeds that agree to the bit leave the patients' spread; a difference of equal scores has neither."""
    scores = _result(_cell()).scores
    results = [
        _result(_cell(which, seed=seed), scores=scores) for which in ("random", "pretrained") for seed in range(3)
    ]
    for summary in _summaries(results):
        assert summary.seed_sd == pytest.approx(0, abs=1e-12)
        width = summary.patients.high - summary.patients.low
        assert width == 0 if summary.against else width > 0.05


def test_classes_that_labels_lack_are_told():
    results = [dataclasses.replace(_result(_cell(seed=seed)), unlearnt=seed) for seed in (1, 2)]
    results.append(dataclasses.replace(_result(_cell(fraction=1.0)), unlearnt=0))
    words = label_efficiency_page._unlearnt(results, 5)
    assert words.startswith("Of 5 classes the training records lack a label of 1 to 2 at 0.1 of the labels:")
    assert label_efficiency_page._unlearnt(results[2:], 5) == ""


def test_cells_without_a_model_are_counted_and_their_pairs_left_out():
    results = _results()
    results[-1] = _result(results[-1].cell, reason="none of 30 records is positive")
    by_name = _by_name(_summaries(results))
    assert list(by_name["pretrained", ""].by_seed) == list(by_name["pretrained", "random"].by_seed) == [0, 1, 2]
    assert len(by_name["random", ""].by_seed) == 4
    cells = [cell for row in models_table(_summaries(results), metric="AUROC").rows for cell in row]
    assert "3, 1 missing" in cells
    assert "9 (too few)" in cells
    nothing = [_result(_cell(), reason="none of 30 records is positive")]
    assert "n/a (none of 30 records is positive)" in models_table(_summaries(nothing), metric="AUROC").rows[0]


def test_other_metrics_are_means_over_seeds():
    results = _results()
    table = other_metrics_table(results, kind="binary", targets=LABELS)
    assert table.header == ("fraction of labels", "model", "AUPRC")
    values = [average_precision_score(LABELS, r.scores) for r in results if r.cell.model == "pretrained"]
    expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert table.rows[0] == ("0.1", "pretrained, frozen", expected)


def test_classes_are_named_also_those_left_out():
    targets = np.stack([LABELS, np.zeros_like(LABELS)], axis=1)
    results = [dataclasses.replace(r, scores=np.stack([r.scores, r.scores], 1)) for r in _results()]
    results += [dataclasses.replace(r, cell=dataclasses.replace(r.cell, fraction=0.01)) for r in results]
    table = classes_table(results, targets=targets, classes=("af", "gone"))
    assert "at 0.1 of the labels" in table.caption
    values = [roc_auc_score(LABELS, r.scores) for r in _results() if r.cell.model == "random"]
    expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert table.rows[0] == ("af", f"{LABELS.sum()}", table.rows[0][2], expected)
    assert table.rows[1] == ("gone", "0", "n/a (none of 300 records is positive)", "")


def test_a_quantity_has_no_column_of_positives():
    summaries = [dataclasses.replace(summary, positives=None) for summary in _summaries(_results())]
    for table in (models_table, differences_table):
        assert "fewest positives" not in table(summaries, metric="R²").header


def test_figure_shows_every_seed():
    drawn = figure(_summaries(_results()), metric="AUROC", title="SIMULATED")
    left, right = drawn.axes
    seeds = [line for line in left.lines if len(line.get_xdata()) == 4]
    assert len(seeds) == 2
    assert right.get_ylabel() == "AUROC: pretrained minus random, paired"
    assert differences_table(_summaries(_results()), metric="AUROC").rows[0][4].startswith("+")


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


def _without_one_val_record(own, data, recordings, **given):
    """As a firewall that drops one."""
    split = dataclasses.replace(recordings.split, val=recordings.split.val[1:])
    return dataclasses.replace(recordings, split=split), ()


def test_a_whole_study(study_config, monkeypatch, tmp_path):
    split = create_split(settings_of(study_config).encoder, seed=7)
    pretrained = frozen_encoder.Encoder(split, num_leads=study_config.encoder.num_leads, step=5, pretrained_on=("x",))
    monkeypatch.setattr(frozen_encoder, "load_encoder", lambda workdir, step, layer: pretrained)
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
    assert [result.reason for result in results] == [""] * 14
    assert study._training("pretrained")._metric.weight == 0.5
    assert study._training("random")._metric is None
    tables, page = entry.write_report(study, results, command="python -m ecgjax.label_efficiency --task=…")
    text = (study.folder / "report.md").read_text(encoding="utf-8")
    assert "SIMULATED DATA" in text
    assert all(table in text for table in tables.split("\n\n"))
    html = page.read_text(encoding="utf-8").replace("<wbr>", "")
    for part in (
        "SIMULATED DATA",
        "age_years&gt;55: how few labels suffice",
        "pretrained, fine-tuned",
        "intervals, boosted trees",
        "Curves are not drawn: there are too few positive or negative test records.",
        "ecgjax.label_efficiency --task=…",
        ">(4,)</td>",  # encoder.widths, which is not as in ecgjax/defaults.py
        study.recordings.fingerprints[0],
    ):
        assert part in html
    stored = json.loads((study.folder / "results.json").read_text(encoding="utf-8"))
    assert stored["simulated"] is True
    for cell, result in zip(stored["cells"], results, strict=True):
        expected = roc_auc_score(study.data.test.labels, result.scores)
        assert cell["test"]["AUROC"] == pytest.approx(expected, abs=1e-9)
    patients = {result.cell.fraction: result.patients for result in results}
    assert patients[0.5] == -(-patients[1.0] // 2)
    kept = {path.name.rpartition("-")[0] for path in (tmp_path / "kept").iterdir()}
    assert kept == {"pretrained", "random-seed0", "measurements"}
    assert not (study.folder / "features").exists()
    # Age is asked: sex alone remains, and says as much as two values of it.
    (of_sex,) = (r.scores for r in results if (r.cell.model, r.cell.fraction) == ("age_sex", 1.0))
    sex = study.recordings.index.label("sex")[study.data.test.records]
    assert len({*zip(of_sex.tolist(), sex.tolist(), strict=True)}) == len({*sex.tolist()})

    # The frozen cells again from nothing but the kept embeddings, and to the bit.
    shutil.rmtree(study.folder / CELLS_DIR)
    again = begin()
    monkeypatch.setattr(frozen_encoder, "recalibrate_batch_norm", None)
    for cell, result in zip(cells[:2], results[:2], strict=True):
        np.testing.assert_array_equal(again.train(cell).scores, result.scores)
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
        patch.setattr(pretrained, "split", retrained)
        with pytest.raises(ConfigError, match="holds another study: weights differ"):
            begin()
    with monkeypatch.context() as patch:
        no_model = DataError("training with labels diverged", reason="no_model")
        patch.setattr(label_efficiency, "fit_linear", _raising(no_model))
        result = again.train(cells[0])
        assert (result.reason, result.scores) == ("training with labels diverged", None)
        patch.setattr(label_efficiency, "fit_linear", _raising(DataError("a shard is damaged")))
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
        study._training(model)._step = lambda state, batch: (state, {})
        frozen, tuned = (study.train(_cell(model, fraction=1.0, mode=mode)) for mode in ("frozen", "finetuned"))
        assert frozen.scores.std() > 0
        np.testing.assert_allclose(tuned.scores, frozen.scores, rtol=1e-3, atol=1e-4)
        assert tuned.selected.startswith("step 0,")
    study_config.probe.layer = "embedding"
    with pytest.raises(ConfigError, match=r"head_start='probe' needs probes of what the head sees"):
        begin()
