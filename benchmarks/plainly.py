"""The straightforward ways of the published analyses, for `benchmarks.thousand`: numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.manifold import TSNE

from lmmap.geometry import double_center, estimate_kl
from lmmap.store import Store

Array = np.ndarray

CLIPPED = 0.02  # share of all entries
PAIR_ROWS = 10  # models whose standard errors to all others are taken


def read_plainly(store: Store) -> Array:
    files = [store.path / "scores" / f"{entry['row_id']}.parquet" for entry in store.requests()]
    return np.stack([pd.read_parquet(file)["log_likelihood"].to_numpy() for file in files])


def kl_plainly(L: Array) -> Array:
    L = np.maximum(L, np.quantile(L, CLIPPED))
    Q = L - L.mean(axis=1, keepdims=True)
    Q -= Q.mean(axis=0)
    made: Array = cdist(Q, Q, "sqeuclidean") / (2 * L.shape[1])
    return made


def errors_plainly(L: Array) -> Array:
    """Give the standard error of half the unbiased variance of each difference, for the first models."""
    n = L.shape[1]
    errors = np.zeros((PAIR_ROWS, len(L)))
    for i in range(PAIR_ROWS):
        for j in range(len(L)):
            D = L[i] - L[j]
            D = D - D.mean()
            s, fourth = (D**2).mean(), (D**4).mean()
            errors[i, j] = np.sqrt(((fourth - s**2) / n + 2 * s**2 / n**2) * n / (n - 1)) / 2
    return errors


def sorted_plainly(L: Array) -> Array:
    kl = estimate_kl(L)
    np.fill_diagonal(kl, np.inf)
    return np.sort(kl, axis=1)[:, :10]


def tsne_plainly(L: Array) -> Array:
    Q = double_center(L)
    start = PCA(2).fit_transform(Q)
    start *= 1e-4 / start[:, 0].std()
    made: Array = TSNE(perplexity=perplexity(L), init=start, random_state=42).fit_transform(Q)
    return made


def ridge_plainly(X: Array, Y: Array, train: Array, test: Array, alphas: tuple[float, ...]) -> Array:
    mean = X[train].mean(axis=0)
    fitted = RidgeCV(alphas=alphas, alpha_per_target=True).fit(X[train] - mean, Y[train])
    return np.clip(fitted.predict(X[test] - mean), 0, 100)


def perplexity(models: Array) -> float:
    return min(30.0, (len(models) - 1) / 3)
