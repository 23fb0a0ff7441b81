"""Nested cross-validation: folds of patients, choices that never see what is tested, scores averaged by fold."""

import dataclasses

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from ecgjax.evaluation.models import nested_cross_validation
from ecgjax.evaluation.models.nested_cross_validation import cross_validate, fit_nested, patient_folds
from ecgjax.evaluation.models.out_of_fold import OutOfFold, fold_mean_auroc

RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(60), RNG.integers(1, 4, 60))
PATIENT_IDS = np.array([f"p{code}" for code in PATIENTS])
N = len(PATIENTS)
LABELS = (RNG.random(60) < 0.3).astype(np.int64)[PATIENTS]
FEATURES = RNG.normal(size=(N, 12)) + 0.4 * LABELS[:, None] * (np.arange(12) < 3)
STRENGTHS = (1e-3, 0.03, 1.0)
OUTER, INNER = 3, 2


def with_pca(train_records):
    return make_pipeline(StandardScaler(), PCA(n_components=min(6, train_records - 1), random_state=0))


def validated(features=FEATURES, labels=LABELS, **changed):
    settings = {
        "patients": PATIENTS,
        "patient_ids": PATIENT_IDS,
        "folds": patient_folds(LABELS, PATIENTS, folds=OUTER, seed=0),
        "strengths": STRENGTHS,
        "inner_folds": INNER,
        "make_preprocessor": with_pca,
    }
    return cross_validate(features, labels, **settings | changed)


def test_folds_never_share_a_patient_and_each_has_both_labels():
    for seed in range(20):
        folds = patient_folds(LABELS, PATIENTS, folds=5, seed=seed)
        assert set(folds) == set(range(5))
        for patient in range(60):
            assert len(set(folds[patient == PATIENTS])) == 1
        assert all(0 < LABELS[folds == fold].mean() < 1 for fold in range(5))
    assert not np.array_equal(folds, patient_folds(LABELS, PATIENTS, folds=5, seed=0))
    np.testing.assert_array_equal(folds, patient_folds(LABELS, PATIENTS, folds=5, seed=19))
    few = (np.arange(60) < 3).astype(np.int64)[PATIENTS]
    with pytest.raises(DataError, match="3 patients with a positive record are too few for 5 folds"):
        patient_folds(few, PATIENTS, folds=5, seed=0)


def test_the_strength_is_that_of_a_grid_search_over_the_pipeline():
    chosen = set()
    for seed in range(3):
        labels = LABELS if seed else (RNG.random(60) < 0.5).astype(np.int64)[PATIENTS]
        fit = fit_nested(
            FEATURES, labels, patients=PATIENTS, strengths=STRENGTHS, inner_folds=4, make_preprocessor=with_pca,
            seed=seed,
        )  # fmt: skip
        fold_of = patient_folds(labels, PATIENTS, folds=4, seed=seed)
        search = GridSearchCV(
            make_pipeline(with_pca(N), LogisticRegression(max_iter=2000)),
            {"logisticregression__C": list(STRENGTHS)},
            scoring=make_scorer(log_loss, response_method="predict_proba", greater_is_better=False, labels=[0, 1]),
            cv=[(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(4)],
        ).fit(FEATURES, labels)
        np.testing.assert_allclose(fit.losses, -search.cv_results_["mean_test_score"], rtol=1e-4)
        assert fit.c == search.best_params_["logisticregression__C"]
        np.testing.assert_allclose(fit.scores(FEATURES), search.decision_function(FEATURES), rtol=1e-3, atol=1e-4)
        chosen.add(fit.c)
    assert len(chosen) > 1, "labels of noise want another strength than those that are learnt"


def test_nothing_of_a_fold_takes_part_in_its_own_model():
    """Labels and features of a fold are replaced by others: its scores follow its features alone, by the same model."""
    whole = validated()
    for fold in range(OUTER):
        own = whole.folds == fold
        labels = np.where(own, 1 - LABELS, LABELS)
        np.testing.assert_array_equal(validated(labels=labels).scores[own], whole.scores[own])
        features = FEATURES.copy()
        first, *rest = np.flatnonzero(own)
        features[rest] = 50 * RNG.normal(size=(len(rest), 12))
        changed = validated(features=features)
        assert changed.scores[first] == whole.scores[first]
        assert changed.chosen[fold] == whole.chosen[fold]
        assert not np.array_equal(changed.scores[~own], whole.scores[~own]), "other folds do train on these records"


def test_inner_folds_are_of_patients(monkeypatch):
    """A feature that names the patient is of no use across patients, and would be chosen with folds of records."""
    seen = []

    def noted(labels, patients, *, folds, seed):
        made = patient_folds(labels, patients, folds=folds, seed=seed)
        seen.append(max(len(set(made[patients == patient])) for patient in set(patients)))
        return made

    folds = patient_folds(LABELS, PATIENTS, folds=OUTER, seed=0)
    monkeypatch.setattr(nested_cross_validation, "patient_folds", noted)
    validated(folds=folds)
    assert seen == [1] * OUTER


def test_a_fraction_is_drawn_by_patient_from_the_training_part_alone():
    folds = patient_folds(LABELS, PATIENTS, folds=OUTER, seed=0)
    found = {fraction: validated(fraction=fraction) for fraction in (0.2, 0.5, 1.0)}
    sizes = [result.records for result in found.values()]
    assert sizes[0] < sizes[1] < sizes[2] == pytest.approx(np.mean([(folds != fold).sum() for fold in range(OUTER)]))
    assert found[0.5].positives < found[1.0].positives
    assert not np.array_equal(validated(fraction=0.5, seed=1).scores, found[0.5].scores)


def test_too_few_labels_are_told():
    one = np.where(np.isin(PATIENTS, PATIENTS[LABELS == 1][:1]), LABELS, 0)
    patients = np.arange(N)  # Each record a patient: folds of labels that only they have.
    folds = np.arange(N) % 5
    alone = cross_validate(
        FEATURES, one * 0 + (np.arange(N) == 0), patients=patients, patient_ids=PATIENT_IDS, folds=folds,
        strengths=STRENGTHS, inner_folds=3, make_preprocessor=with_pca,
    )  # fmt: skip
    assert alone.scores is None
    assert alone.reason == f"fold 1: none of {(folds != 0).sum()} records is positive"
    fit = fit_nested(
        FEATURES, (np.arange(N) == 0).astype(int), patients=patients, strengths=STRENGTHS, inner_folds=3,
        make_preprocessor=with_pca,
    )  # fmt: skip
    assert fit.losses == ()
    assert fit.c == min(STRENGTHS)


def test_auroc_is_averaged_over_folds():
    result = validated()
    by_fold = [
        roc_auc_score(LABELS[result.folds == fold], result.scores[result.folds == fold]) for fold in range(OUTER)
    ]  # fmt: skip
    metric = fold_mean_auroc(LABELS, result.scores, result.folds)
    assert metric(np.ones(N))[0] == pytest.approx(np.mean(by_fold), abs=1e-12)
    assert np.mean(by_fold) != pytest.approx(roc_auc_score(LABELS, result.scores), abs=1e-6)
    # Scores of a fold may be on any scale; a pooled AUROC would change.
    shifted = fold_mean_auroc(LABELS, result.scores + 100 * result.folds, result.folds)
    assert shifted(np.ones(N))[0] == pytest.approx(np.mean(by_fold), abs=1e-12)
    weights = np.random.default_rng(1).integers(0, 3, (4, N))
    repeated = [
        np.mean(
            [
                roc_auc_score(np.repeat(LABELS, w * own), np.repeat(result.scores, w * own))
                for own in (result.folds == fold for fold in range(OUTER))
            ]
        )
        for w in weights
    ]
    np.testing.assert_allclose(metric(weights), repeated, atol=1e-12)
    weights[0, (result.folds == 2) & (LABELS == 1)] = 0
    assert np.isnan(metric(weights)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("scores", [np.float32([0.5, -1]), None])
def test_scores_are_read_as_they_were_written(tmp_path, scores):
    made = OutOfFold(
        scores=scores, folds=np.array([0, 1]), chosen=(0.1, 1.0), unchosen=1, records=3.5, positives=2,
        reason="" if scores is not None else "fold 1: no records",
    )  # fmt: skip
    path = tmp_path / "a" / "b.npz"
    made.save(path)
    again = OutOfFold.load(path)
    for field in dataclasses.fields(made):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(made, field.name))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"damaged scores .* remove the file to make them again"):
        OutOfFold.load(path)
