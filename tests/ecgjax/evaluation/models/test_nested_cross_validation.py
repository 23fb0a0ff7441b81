"""Nested cross-validation: folds of patients, and choices that never see what is tested."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.errors import DataError
from ecgjax.evaluation.models import nested_cross_validation
from ecgjax.evaluation.models.nested_cross_validation import (
    chosen_on_a_fold,
    cross_validate,
    fit_nested,
    nested_logistic,
    patient_folds,
)

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


def validated(features=FEATURES, labels=LABELS, *, folds=None, fraction=1.0, seed=0):
    answer = nested_logistic(
        [features], labels, patients=PATIENTS, strengths=STRENGTHS, inner_folds=INNER, make_preprocessor=with_pca,
        seed=seed,
    )  # fmt: skip
    return cross_validate(
        answer, labels, patients=PATIENTS, patient_ids=PATIENT_IDS,
        folds=patient_folds(LABELS, PATIENTS, folds=OUTER, seed=0) if folds is None else folds,
        fraction=fraction, seed=seed,
    )  # fmt: skip


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
        np.testing.assert_array_equal(validated(labels=labels).outputs[own], whole.outputs[own])
        features = FEATURES.copy()
        first, *rest = np.flatnonzero(own)
        features[rest] = 50 * RNG.normal(size=(len(rest), 12))
        changed = validated(features=features)
        assert changed.outputs[first] == whole.outputs[first]
        assert changed.chosen[fold] == whole.chosen[fold]
        assert not np.array_equal(changed.outputs[~own], whole.outputs[~own]), "other folds do train on these records"


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
    assert not np.array_equal(validated(fraction=0.5, seed=1).outputs, found[0.5].outputs)


def test_too_few_labels_are_told():
    patients = np.arange(N)  # Each record a patient: folds of labels that only they have.
    folds = np.arange(N) % 5
    labels = (np.arange(N) == 0).astype(int)
    answer = nested_logistic(
        [FEATURES], labels, patients=patients, strengths=STRENGTHS, inner_folds=3, make_preprocessor=with_pca
    )
    alone = cross_validate(answer, labels, patients=patients, patient_ids=PATIENT_IDS, folds=folds)
    assert alone.outputs is None
    assert alone.reason == f"fold 1: none of {(folds != 0).sum()} records is positive"
    assert alone.positives == 0
    two = (np.arange(N) < 2).astype(int)  # In the first and in the second fold: one positive remains to train with.
    answer = nested_logistic(
        [FEATURES], two, patients=patients, strengths=STRENGTHS, inner_folds=3, make_preprocessor=with_pca
    )
    told = cross_validate(answer, two, patients=patients, patient_ids=PATIENT_IDS, folds=folds)
    assert (told.unchosen, told.chosen[:2], told.positives) == (2, (min(STRENGTHS),) * 2, 1)
    assert np.isfinite(told.outputs).all()
    fit = fit_nested(
        FEATURES, (np.arange(N) == 0).astype(int), patients=patients, strengths=STRENGTHS, inner_folds=3,
        make_preprocessor=with_pca,
    )  # fmt: skip
    assert fit.losses == ()
    assert fit.c == min(STRENGTHS)


def test_a_model_may_be_chosen_on_a_fold_of_other_patients():
    seen = []

    def answers(train, val, held_out):
        seen.append((train, val, held_out))
        return FEATURES[held_out, 0]

    folds = patient_folds(LABELS, PATIENTS, folds=OUTER, seed=0)
    answer = chosen_on_a_fold(answers, LABELS, patients=PATIENTS, inner_folds=4)
    found = cross_validate(answer, LABELS, patients=PATIENTS, patient_ids=PATIENT_IDS, folds=folds)
    np.testing.assert_array_equal(found.outputs, FEATURES[:, 0].astype(np.float32))
    assert (found.chosen, found.unchosen, found.reason) == ((), 0, "")
    assert len(seen) == OUTER
    for fold, sides in enumerate(seen):
        np.testing.assert_array_equal(sides[2], np.flatnonzero(folds == fold))
        np.testing.assert_array_equal(np.sort(np.concatenate(sides)), np.arange(N))
        train, val, held_out = (set(PATIENTS[rows]) for rows in sides)
        assert train.isdisjoint(val | held_out)
        assert val.isdisjoint(held_out)
        assert all(0 < LABELS[rows].mean() < 1 for rows in sides[:2])
        assert len(sides[1]) < len(sides[0])


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_records_of_a_model_that_is_chosen_on_a_fold_are_those_that_it_was_trained_with(fraction):
    seen = []

    def answers(train, val, held_out):
        seen.append((train, val))
        return FEATURES[held_out, 0]

    folds = patient_folds(LABELS, PATIENTS, folds=OUTER, seed=0)
    given = {"patients": PATIENTS, "patient_ids": PATIENT_IDS, "folds": folds, "fraction": fraction}
    found = cross_validate(
        chosen_on_a_fold(answers, LABELS, patients=PATIENTS, inner_folds=INNER), LABELS, **given
    )  # fmt: skip
    assert found.records == pytest.approx(np.mean([len(train) for train, _ in seen]), abs=1e-12)
    # A logistic regression is trained anew with all of them, once its strength is chosen.
    assert validated(fraction=fraction, folds=folds).records == pytest.approx(
        np.mean([len(train) + len(val) for train, val in seen]), abs=1e-12
    )


def test_without_a_fold_to_choose_on_there_are_no_answers():
    patients, folds = np.arange(N), np.arange(N) % 5
    labels = (np.arange(N) < 2).astype(int)
    answer = chosen_on_a_fold(lambda *sides: sides[2], labels, patients=patients, inner_folds=3)
    found = cross_validate(answer, labels, patients=patients, patient_ids=PATIENT_IDS, folds=folds)
    assert found.outputs is None
    assert found.reason == "fold 1: too few patients of one label to choose a model by"


def test_labels_and_folds_must_be_of_the_same_records():
    with pytest.raises(DataError, match="must be two vectors of equal length"):
        validated(folds=np.zeros(N - 1, int))
    with pytest.raises(DataError, match="labels must be 0 or 1"):
        validated(labels=LABELS * 2)
