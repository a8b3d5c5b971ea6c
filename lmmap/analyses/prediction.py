"""Prediction: benchmark scores from centred log-likelihoods, by ridge regression and cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from lmmap.analyses.folds import draw_folds
from lmmap.analyses.ridge import centered, fit
from lmmap.analyses.structure import check_differ
from lmmap.errors import InputError
from lmmap.geometry import height
from lmmap.loglik import LogLikelihoods

Array = np.ndarray
ALPHAS = tuple(10.0**power for power in range(1, 10))  # the published ones, for 10,000 texts
HEIGHT_ALPHAS = tuple(10.0**power for power in range(-3, 8))  # for the mean log-likelihood alone
LIMITS = (0.0, 100.0)  # of benchmark scores
ROWS, MEAN = "rows", "mean"  # what is predicted from


class Predictions(NamedTuple):
    """Benchmark scores predicted for models that were not trained on, and how good they are.

    Parameters
    ----------
    quality : DataFrame
        Index ``features`` (``rows``: the double-centred rows; ``mean``: the mean log-likelihood alone) and
        ``target``. ``n_models`` that have the target; ``pearson``, ``spearman`` and ``mean_absolute_error``
        over all of them, each predicted by the fold that it was left out of: the mean over seeds, and with
        ``_sd`` the spread over seeds (no standard error: the models are the same); ``alpha``, the median of
        those chosen. A correlation with predictions that are all alike is NaN.
    predicted, predicted_from_mean : DataFrame
        K rows, index ``row_id``, a column for each target: the mean over seeds, NaN where the target is.
    """

    quality: pd.DataFrame
    predicted: pd.DataFrame
    predicted_from_mean: pd.DataFrame


def predict_benchmarks(
    scores: LogLikelihoods,
    targets: pd.DataFrame,
    *,
    groups: str | None = None,
    n_folds: int = 5,
    n_seeds: int = 5,
    alphas: Sequence[float] = ALPHAS,
    height_alphas: Sequence[float] = HEIGHT_ALPHAS,
    inner_folds: int | None = None,
    center_columns: Literal["folds", "all"] = "folds",
    seed: int = 0,
) -> Predictions:
    """Predict benchmark scores of left-out models from the others' rows.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts, nats.
    targets : DataFrame
        Benchmark scores in [0, 100], one column each, by row id. A model without a row, or with NaN, is left
        out of that target.
    groups : str, optional
        An attribute of the models: those of one group are left out together, so that no model is predicted
        from its kin. By default any model may be predicted from any other.
    n_folds, n_seeds : int
        Parts that are left out in turn, and how often models are dealt into parts anew.
    alphas, height_alphas : sequence of float
        Penalties to choose from, for rows and for the mean log-likelihood.
    inner_folds : int, optional
        How a penalty is chosen among training models: by so many parts of models with consecutive names (the
        published code has 5), or, by default, by leaving them out one at a time.
    center_columns : {"folds", "all"}
        Which models the columns' means are of: the training models, or all, as published.
    seed : int
        The first seed.

    Returns
    -------
    Predictions
        Predictions are clipped to [0, 100].

    Raises
    ------
    InputError
        If targets name an unknown model, hold text, infinity or a value out of bounds, or are all alike; if
        models are alike but for their mean log-likelihood; if a fold would be empty or leave fewer than 3
        models (2 for each inner fold) to learn from; if an alpha is not positive.

    Notes
    -----
    Ridge regression with an intercept that is not penalised (Hoerl & Kennard 1970, Technometrics 12), as in
    arXiv:2502.16173, section 5. The penalty of a target is chosen in each training fold anew; test models
    have no part in it. By default it is the one with the least squared error over training models left out
    one at a time, as of scikit-learn's ``RidgeCV()``: the kin of each are still there, so that it is on the
    small side for ``groups``. With ``inner_folds`` it is the one of ``RidgeCV(cv=inner_folds)`` on models in
    the order of their names, but that a part whose scores are all alike, where R squared means nothing, has
    no say however scikit-learn rounds.

    Moving a column by a constant changes the intercept and nothing else: ``center_columns`` makes no
    difference beyond rounding. Where nothing can be learned, a model is predicted by the mean of the others,
    which is higher the lower the models left out are: the correlation is then below 0 rather than 0.

    Examples
    --------
    >>> from lmmap.lookalike import make_benchmarks, make_lookalike
    >>> scores = make_lookalike(60, 300, n_families=6, n_sources=3)
    >>> found = predict_benchmarks(scores, make_benchmarks(scores)[["score_mean"]], n_seeds=2)
    >>> found.quality.index.tolist(), found.predicted.shape
    ([('rows', 'score_mean'), ('mean', 'score_mean')], (60, 1))
    """
    Y = checked_targets(targets, scores.models.index)
    for values in (alphas, height_alphas):
        _check_alphas(values)
    if n_seeds < 1:
        raise InputError(f"n_seeds must be at least 1, got {n_seeds}")
    if center_columns not in ("folds", "all"):
        raise InputError(f"center_columns must be 'folds' or 'all', got {center_columns!r}")
    if inner_folds is not None and inner_folds < 2:
        raise InputError(f"inner_folds must be at least 2, got {inner_folds}")
    h = height(scores.values)
    rows = scores.values - h[:, None]
    check_differ(rows, scores.values)
    known = np.isfinite(Y).any(axis=1)
    dealt = [draw_folds(scores.models, known, groups, n_folds, seed + i) for i in range(n_seeds)]
    by_name = np.argsort(scores.models["model"].astype(str).to_numpy(dtype=object), kind="stable")
    parts, means = [], []
    for name, features, penalties in ((ROWS, rows, alphas), (MEAN, h[:, None], height_alphas)):
        gram = _gram(features, center_columns == "all")
        made = [_out_of_fold(gram, Y, folds, np.array(penalties), by_name, inner_folds) for folds in dealt]
        parts.append(_quality(name, Y, list(targets.columns), made))
        mean = np.mean([predicted for predicted, _ in made], axis=0)
        means.append(pd.DataFrame(mean, scores.models.index, targets.columns))
    return Predictions(pd.concat(parts), *means)


def _gram(features: Array, all_models: bool) -> Array:
    """Inner products of all models about the mean of all, or, to keep the digits, about the first."""
    moved = features - (features.mean(axis=0) if all_models else features[0])
    gram: Array = moved @ moved.T
    return gram


def _out_of_fold(
    gram: Array, Y: Array, folds: Array, alphas: Array, by_name: Array, inner_folds: int | None
) -> tuple[Array, Array]:
    """Predict each model by the fold that leaves it out; targets known of the same models go at once."""
    predicted = np.full(Y.shape, np.nan)
    chosen = np.full((folds.max() + 1, Y.shape[1]), np.nan)
    patterns, pattern_of = np.unique(np.isfinite(Y), axis=1, return_inverse=True)
    for p, have in enumerate(patterns.T):
        columns = np.flatnonzero(pattern_of.ravel() == p)
        for fold in range(folds.max() + 1):
            train = by_name[(have & (folds != fold))[by_name]]
            test = np.flatnonzero(have & (folds == fold))
            _check_sizes(len(train), len(test), fold, 2 * (inner_folds or 0))
            among, across = centered(gram, train, test)
            y = Y[np.ix_(train, columns)]
            dual, alpha = fit(among, y - y.mean(axis=0), alphas, inner_folds)
            predicted[np.ix_(test, columns)] = np.clip(across @ dual + y.mean(axis=0), *LIMITS)
            chosen[fold, columns] = alpha
    return predicted, chosen


def _quality(name: str, Y: Array, targets: list[str], made: list[tuple[Array, Array]]) -> pd.DataFrame:
    """Compare predictions with targets, over the seeds."""
    rows = []
    for t in range(len(targets)):
        have = np.isfinite(Y[:, t])
        y = Y[have, t]
        found = np.array([_agreement(predicted[have, t], y) for predicted, _ in made])
        row: dict[str, float] = {"n_models": int(have.sum())}
        for k, measure in enumerate(("pearson", "spearman", "mean_absolute_error")):
            row[measure], row[f"{measure}_sd"] = found[:, k].mean(), found[:, k].std()
        row["alpha"] = float(np.median([alpha[:, t] for _, alpha in made]))
        rows.append(row)
    return pd.DataFrame(
        rows, index=pd.MultiIndex.from_product([[name], targets], names=["features", "target"])
    )


def _agreement(predicted: Array, y: Array) -> tuple[float, float, float]:
    ranks = pd.Series(predicted).rank().to_numpy(), pd.Series(y).rank().to_numpy()
    return correlation(predicted, y), correlation(*ranks), float(np.abs(predicted - y).mean())


def correlation(a: Array, b: Array) -> float:
    """Give Pearson's correlation; NaN if one of the two is constant.

    Examples
    --------
    >>> round(correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 6)
    1.0
    """
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def checked_targets(targets: pd.DataFrame, row_ids: pd.Index) -> Array:
    """Bring targets into the models' order: (K, T), NaN where not known."""
    if not len(targets.columns):
        raise InputError("targets has no column: give a benchmark")
    for axis, index in (("model", targets.index), ("target", targets.columns)):
        if index.has_duplicates:
            raise InputError(f"{axis} {index[index.duplicated()][0]!r} of targets is given more than once")
    unknown = targets.index.difference(row_ids)
    if len(unknown):
        raise InputError(f"targets has {len(unknown)} models that were not scored, such as {unknown[0]!r}")
    for name in targets:
        if not pd.api.types.is_numeric_dtype(targets[name]) or pd.api.types.is_bool_dtype(targets[name]):
            raise InputError(f"target {name!r} holds {targets[name].dtype}, not numbers")
    values: Array = targets.reindex(row_ids).to_numpy(dtype=np.float64, na_value=np.nan)
    low, high = LIMITS
    wrong = (values < low) | (values > high)
    if wrong.any():
        i, t = np.argwhere(wrong)[0]
        found = f"model {row_ids[i]!r} has {values[i, t]:g} in {targets.columns[t]!r}"
        raise InputError(f"{found}: benchmark scores lie in [{low:g}, {high:g}]")
    for name, column in zip(targets, values.T, strict=True):
        if len(np.unique(column[~np.isnan(column)])) < 2:
            raise InputError(f"target {name!r} does not differ between models: there is nothing to predict")
    return values


def _check_alphas(alphas: Sequence[float]) -> None:
    wrong = [alpha for alpha in alphas if not (np.isfinite(alpha) and alpha > 0)]
    if wrong or not len(alphas):
        raise InputError(f"alphas must be positive numbers, got {wrong[0] if wrong else 'none'}")


def _check_sizes(n_train: int, n_test: int, fold: int, needed: int) -> None:
    needed = max(3, needed)
    if n_train < needed or not n_test:
        raise InputError(
            f"fold {fold + 1} has {n_train} models with a score to learn from and {n_test} to predict; it "
            f"needs {needed} and 1: give more models, or fewer folds"
        )
