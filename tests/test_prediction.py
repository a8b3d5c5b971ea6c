"""Prediction: equal to scikit-learn's on the columns, blind to what it must not see, good where it can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, KFold

from lmmap.analyses.folds import draw_folds
from lmmap.analyses.prediction import ALPHAS, HEIGHT_ALPHAS, Predictions, predict_benchmarks
from lmmap.analyses.ridge import fit
from lmmap.errors import InputError
from lmmap.geometry import double_center, height
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import make_benchmarks, make_lookalike

TASKS = ["score_1", "score_2", "score_mean"]


@pytest.fixture(scope="module")
def scores() -> LogLikelihoods:
    return make_lookalike(90, 400, n_families=9, n_sources=5)


@pytest.fixture(scope="module")
def targets(scores: LogLikelihoods) -> pd.DataFrame:
    table = make_benchmarks(scores)[TASKS].copy()
    table.iloc[[3, 50], 1] = np.nan  # one target lacks models that the others have
    return table


def straightforward(
    features: np.ndarray, y: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], alphas: tuple[float, ...]
) -> np.ndarray:
    predicted = np.full(len(y), np.nan)
    known = np.isfinite(y)
    for train, test in folds:
        train, test = train[known[train]], test[known[test]]
        mean = features[train].mean(axis=0)
        fitted = RidgeCV(alphas=alphas).fit(features[train] - mean, y[train])
        predicted[test] = np.clip(fitted.predict(features[test] - mean), 0, 100)
    return predicted


@pytest.mark.parametrize("groups", [None, "family"])
def test_the_dual_form_equals_ridge_regression_on_the_columns(
    scores: LogLikelihoods, targets: pd.DataFrame, groups: str | None
) -> None:
    found = predict_benchmarks(scores, targets, groups=groups, n_seeds=1, seed=3)
    have = np.flatnonzero(targets.notna().any(axis=1))
    dealer = (KFold if groups is None else GroupKFold)(5, shuffle=True, random_state=3)
    kin = None if groups is None else scores.models[groups].to_numpy(dtype=object)[have]
    folds = [(have[train], have[test]) for train, test in dealer.split(have, groups=kin)]
    h = height(scores.values)
    for features, alphas, predicted in (
        (scores.values - h[:, None], ALPHAS, found.predicted),
        (h[:, None], HEIGHT_ALPHAS, found.predicted_from_mean),
    ):
        for name in targets:
            plain = straightforward(features, targets[name].to_numpy(), folds, alphas)
            np.testing.assert_allclose(predicted[name], plain, rtol=0, atol=1e-8)


def test_inner_folds_choose_the_penalty_that_ridgecv_with_folds_chooses_on_models_in_order_of_name(
    scores: LogLikelihoods, targets: pd.DataFrame
) -> None:
    found = predict_benchmarks(scores, targets, groups="family", n_seeds=1, inner_folds=5)
    have = np.flatnonzero(targets.notna().any(axis=1))
    kin = scores.models["family"].to_numpy(dtype=object)[have]
    names, rows = scores.models["model"].to_numpy(), scores.values - height(scores.values)[:, None]
    for name in targets:
        y, chosen = targets[name].to_numpy(), []
        for train, test in GroupKFold(5, shuffle=True, random_state=0).split(have, groups=kin):
            train, test = have[train], have[test]
            train, test = train[np.isfinite(y[train])], test[np.isfinite(y[test])]
            train = train[np.argsort(names[train])]
            fitted = RidgeCV(alphas=ALPHAS, cv=5).fit(rows[train], y[train])
            plain = np.clip(fitted.predict(rows[test]), 0, 100)
            np.testing.assert_allclose(found.predicted[name].iloc[test], plain, rtol=0, atol=1e-8)
            chosen.append(fitted.alpha_)
        assert found.quality.loc[("rows", name), "alpha"] == np.median(chosen)


@pytest.mark.parametrize("n_copies", [1, 2])
def test_errors_of_models_left_out_keep_their_digits_under_the_smallest_penalties(n_copies: int) -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(100 * rng.normal(size=(20, 50)), n_copies, axis=0)
    y = rng.normal(size=len(X))
    alphas = np.array([1e-12, 1e-9, 1e-6, 1e-3, 1e4, 1e6, 1e9])
    for some in (alphas[[0, 4]], alphas[[1, 5]], alphas[[2, 6]], alphas[[3, 6]]):
        errors = [np.mean([left_out(X, y, i, alpha) ** 2 for i in range(len(X))]) for alpha in some]
        centred = X - X.mean(axis=0)
        _, best = fit(centred @ centred.T, (y - y.mean())[:, None], some)
        assert best[0] == some[np.argmin(errors)]


def left_out(X: np.ndarray, y: np.ndarray, i: int, alpha: float) -> float:
    rest = np.arange(len(X)) != i
    mean, others = X[rest].mean(axis=0), y[rest] - y[rest].mean()
    U, s, Vt = np.linalg.svd(X[rest] - mean, full_matrices=False)
    s = np.where(s > 1e-12 * s[0], s, 0)
    return float(y[i] - y[rest].mean() - (X[i] - mean) @ Vt.T @ (s / (s**2 + alpha) * (U.T @ others)))


def test_quality_is_that_of_the_predictions(scores: LogLikelihoods, targets: pd.DataFrame) -> None:
    found = predict_benchmarks(scores, targets, n_seeds=1)
    for name in targets:
        row = found.quality.loc[("rows", name)]
        have = targets[name].notna()
        y, predicted = targets[name][have], found.predicted[name][have]
        assert row["n_models"] == have.sum()
        assert row["pearson"] == pytest.approx(pearsonr(y, predicted).statistic, abs=1e-12)
        assert row["spearman"] == pytest.approx(spearmanr(y, predicted).statistic, abs=1e-12)
        assert row["mean_absolute_error"] == pytest.approx(np.abs(y - predicted).mean())
        assert row["alpha"] in ALPHAS
        assert found.predicted[name][~have].isna().all()


def test_where_columns_are_centred_makes_no_difference(scores: LogLikelihoods, targets: pd.DataFrame) -> None:
    inside = predict_benchmarks(scores, targets, n_seeds=2)
    outside = predict_benchmarks(scores, targets, n_seeds=2, center_columns="all")
    np.testing.assert_allclose(inside.predicted, outside.predicted, rtol=0, atol=1e-9)
    shifted = replace(scores, values=double_center(scores.values) + height(scores.values)[:, None])
    moved = predict_benchmarks(shifted, targets, n_seeds=2)
    np.testing.assert_allclose(inside.predicted, moved.predicted, rtol=0, atol=1e-9)


def test_rows_tell_nothing_of_the_mean_and_the_mean_nothing_of_rows(
    scores: LogLikelihoods, targets: pd.DataFrame
) -> None:
    before = predict_benchmarks(scores, targets, n_seeds=1)
    higher = scores.values + np.random.default_rng(0).normal(0, 50, (len(scores.models), 1))
    after = predict_benchmarks(replace(scores, values=higher), targets, n_seeds=1)
    np.testing.assert_allclose(before.predicted, after.predicted, rtol=0, atol=1e-8)
    assert not np.allclose(before.predicted_from_mean, after.predicted_from_mean, equal_nan=True)


def test_a_models_own_score_has_no_part_in_its_prediction(
    scores: LogLikelihoods, targets: pd.DataFrame
) -> None:
    one = targets[["score_1"]].dropna()
    known = scores.models.index.isin(one.index)
    fold = draw_folds(scores.models, known, "family", 5, 0)
    changed = one.copy()
    left_out = scores.models.index[fold == 2]
    changed.loc[left_out] = 100 - changed.loc[left_out]
    before, after = (
        predict_benchmarks(scores, t, groups="family", n_seeds=1).predicted.loc[left_out]
        for t in (one, changed)
    )
    np.testing.assert_array_equal(before, after)


def test_noise_cannot_be_predicted_and_what_follows_the_rows_can() -> None:
    scores = make_lookalike(300, 500, n_families=30, n_sources=5)
    benchmarks = make_benchmarks(scores)
    benchmarks["noise"] = np.random.default_rng(0).uniform(0, 100, len(benchmarks))
    benchmarks.loc[benchmarks["planted_leak"], "score_mean"] = np.nan
    found = predict_benchmarks(scores, benchmarks[["score_mean", "noise"]], n_seeds=3).quality["pearson"]
    assert found["rows", "score_mean"] > 0.9
    assert abs(found["rows", "noise"]) < 3 / np.sqrt(300)
    assert abs(found["mean", "noise"]) < 3 / np.sqrt(300)


def test_prediction_reaches_the_correlation_that_was_planted() -> None:
    scores = make_lookalike(400, 600, n_families=20, n_sources=5)
    axis = np.linalg.eigh((Q := double_center(scores.values)) @ Q.T)[1][:, -1]
    signal = axis / axis.std()
    noise = np.random.default_rng(1).standard_normal(len(signal))
    planted = pd.DataFrame({"score": 50 + 8 * signal + 6 * noise}, scores.models.index).clip(0, 100)
    best = np.corrcoef(signal, planted["score"])[0, 1]
    assert best == pytest.approx(0.8, abs=0.03)
    found = predict_benchmarks(scores, planted, n_seeds=3).quality["pearson"]["rows", "score"]
    assert best - 0.05 < found < best + 0.01


def test_kin_are_left_out_together(scores: LogLikelihoods) -> None:
    known = np.ones(len(scores.models), dtype=bool)
    folds = pd.Series(draw_folds(scores.models, known, "family", 5, 0), scores.models["family"])
    assert (folds.groupby(level=0).nunique() == 1).all()
    assert set(folds) == set(range(5))
    assert (
        draw_folds(scores.models, known, None, 5, 0) != draw_folds(scores.models, known, None, 5, 1)
    ).any()


def test_a_target_that_other_models_lack_changes_no_other(
    scores: LogLikelihoods, targets: pd.DataFrame
) -> None:
    both = predict_benchmarks(scores, targets, n_seeds=1)
    alone = predict_benchmarks(scores, targets[["score_1"]], n_seeds=1)
    np.testing.assert_allclose(both.predicted["score_1"], alone.predicted["score_1"], atol=1e-9)


def test_targets_are_joined_by_label(scores: LogLikelihoods, targets: pd.DataFrame) -> None:
    turned = predict_benchmarks(scores, targets[::-1], n_seeds=1)
    given: Predictions = predict_benchmarks(scores, targets, n_seeds=1)
    pd.testing.assert_frame_equal(turned.predicted, given.predicted)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t.rename(index={t.index[0]: "nobody"}), {}, "1 models that were not scored.*'nobody'"),
        (lambda t: t.assign(score_1=101.0), {}, r"has 101 in 'score_1': benchmark scores lie in \[0, 100\]"),
        (lambda t: t.assign(score_1=np.inf), {}, "has inf in 'score_1'"),
        (lambda t: t.assign(score_1="high"), {}, "target 'score_1' holds .*, not numbers"),
        (lambda t: t.assign(score_1=50.0), {}, "'score_1' does not differ"),
        (lambda t: t.assign(score_1=np.nan), {}, "'score_1' does not differ"),
        (lambda t: t[[]], {}, "no column"),
        (lambda t: pd.concat([t, t[:1]]), {}, "given more than once"),
        (lambda t: t[:3], {}, "3 models with a score make at least 2 and at most 3 folds, not 5"),
        (lambda t: t, {"groups": "familly"}, "no attribute 'familly' .closest: 'family'."),
        (lambda t: t, {"groups": "family", "n_folds": 10}, "9 groups of 'family' .* not 10"),
        (lambda t: t, {"n_folds": 1}, "not 1"),
        (lambda t: t, {"alphas": [0.0]}, "alphas must be positive numbers, got 0"),
        (lambda t: t, {"height_alphas": []}, "got none"),
        (lambda t: t, {"n_seeds": 0}, "n_seeds must be at least 1, got 0"),
        (lambda t: t, {"inner_folds": 1}, "inner_folds must be at least 2, got 1"),
        (lambda t: t, {"inner_folds": 40}, "fold 1 has .* to learn from and .*; it needs 80 and 1"),
        (lambda t: t, {"center_columns": "none"}, "must be 'folds' or 'all', got 'none'"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    scores: LogLikelihoods, targets: pd.DataFrame, change, options, message
) -> None:
    with pytest.raises(InputError, match=message):
        predict_benchmarks(scores, change(targets), **options)


@pytest.mark.parametrize("unknown", [None, np.nan, ""])
def test_a_model_without_a_group_is_refused(
    scores: LogLikelihoods, targets: pd.DataFrame, unknown: object
) -> None:
    families = scores.models["family"].astype(object)
    families[targets.index[4]] = unknown
    with pytest.raises(InputError, match="1 models have no 'family', such as 'synthetic-0004'"):
        predict_benchmarks(
            replace(scores, models=scores.models.assign(family=families)), targets, groups="family"
        )


def test_rounding_predicts_nothing(scores: LogLikelihoods, targets: pd.DataFrame) -> None:
    same = scores.values[:1] + np.linspace(0, 7, len(scores.models))[:, None] / 3
    assert np.ptp(same - height(same)[:, None], axis=0).max() > 0
    with pytest.raises(InputError, match="all models are alike on these texts, but for their mean"):
        predict_benchmarks(replace(scores, values=same), targets)


def test_predictions_that_are_all_alike_have_no_correlation() -> None:
    scores = make_lookalike(40, 100, n_families=4, n_sources=2)
    flat = replace(scores, values=scores.values - height(scores.values)[:, None] - 9)
    targets = make_benchmarks(scores)[["score_1"]]
    found = predict_benchmarks(flat, targets, n_seeds=1, n_folds=2, height_alphas=[1e9])
    assert found.predicted_from_mean["score_1"].nunique() <= 2
    assert found.quality.loc[("rows", "score_1"), "pearson"] > 0.3
