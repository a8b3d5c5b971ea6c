"""Structure: how many dimensions a map has, and how its models cluster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.geometry import double_center
from lmmap.modelmap import check_divergence

Array = np.ndarray
ROUNDING = 1e-12  # of the largest log-likelihood: rows that differ by less do not differ


def variance_dimensions(
    L: Array, shares: Sequence[float] = (0.9, 0.95), *, weights: Array | None = None
) -> tuple[Array, Array]:
    """Count the principal components that hold given shares of the variance.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    shares : sequence of float
        Each in (0, 1].
    weights : (N,) float array, optional
        Weight of each text.

    Returns
    -------
    dimensions : (len(shares),) int array
        The least number of components that together hold at least the share.
    explained : (K,) float array
        Share of the variance of each component, largest first.

    Raises
    ------
    InputError
        As `lmmap.geometry.double_center`, if a share is out of bounds, or if all models are alike.

    Examples
    --------
    >>> variance_dimensions(np.array([[3.0, -3.0, 0, 0], [0, 0, 1.0, -1.0], [-3.0, 3.0, -1.0, 1.0]]))[0]
    array([1, 2])
    """
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong or not len(shares):
        raise InputError(f"shares of the variance lie in (0, 1], got {wrong[0] if wrong else 'none'}")
    Q = double_center(L, weights=weights)
    check_differ(Q, np.asarray(L, dtype=np.float64))
    if weights is not None:
        Q = Q * np.sqrt(np.asarray(weights, dtype=np.float64))
    values = np.maximum(np.linalg.eigvalsh(Q @ Q.T)[::-1], 0)
    explained = values / values.sum()
    sums = np.cumsum(explained)
    wanted = np.minimum(np.asarray(shares, dtype=np.float64), sums[-1]) - len(sums) * np.finfo(float).eps
    return np.searchsorted(sums, wanted) + 1, explained


def link_models(kl: Array, *, ordered: bool = False) -> Array:
    """Join models from the nearest on, by average linkage of the distances ``sqrt(2 KL)``.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text, symmetric.
    ordered : bool
        Turn branches so that neighbouring leaves are as near as they can be; slow for many models.

    Returns
    -------
    (K - 1, 4) float array
        A tree as `scipy.cluster.hierarchy.linkage` writes it: the two that are joined, their distance in
        square roots of nats, the number of models below.

    Raises
    ------
    InputError
        If ``kl`` is no symmetric divergence of at least 2 models.

    Examples
    --------
    >>> link_models(np.array([[0, 0.5, 8.0], [0.5, 0, 8.0], [8.0, 8.0, 0]]))
    array([[0., 1., 1., 2.],
           [2., 3., 4., 3.]])
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distances = squareform(np.sqrt(2 * checked_kl(kl)), checks=False)
    tree: Array = linkage(distances, "average", optimal_ordering=ordered)
    return tree


def cut_tree(tree: Array, n_clusters: int) -> Array:
    """Cut a tree of models into clusters.

    Parameters
    ----------
    tree : (K - 1, 4) float array
        From `link_models`.
    n_clusters : int
        How many, between 1 and K.

    Returns
    -------
    (K,) int array
        Cluster of each model, 0 being the largest; of equal ones the one with the first model goes first.

    Raises
    ------
    InputError
        If there cannot be so many.

    Examples
    --------
    >>> cut_tree(link_models(np.array([[0, 8.0, 8.0], [8.0, 0, 0.5], [8.0, 0.5, 0]])), 2)
    array([1, 0, 0])
    """
    n_models = len(tree) + 1
    if not 1 <= n_clusters <= n_models:
        raise InputError(f"{n_models} models make between 1 and {n_models} clusters, not {n_clusters}")
    joined = tree[: n_models - n_clusters, :2].astype(int)
    members = [[i] for i in range(n_models)]
    for a, b in joined:
        members.append(members[a] + members[b])
    clusters = [members[c] for c in range(len(members)) if c not in joined]
    clusters.sort(key=lambda rows: (-len(rows), min(rows)))
    labels = np.empty(n_models, dtype=np.intp)
    for c, rows in enumerate(clusters):
        labels[rows] = c
    return labels


def check_differ(rows: Array, L: Array) -> None:
    """Refuse models whose rows, centred or not by columns, are alike but for their means and rounding."""
    if not np.ptp(rows, axis=0).max() > ROUNDING * np.abs(L).max():
        raise InputError("all models are alike on these texts, but for their mean log-likelihood")


def checked_kl(kl: Array) -> Array:
    """Give a symmetric (K, K) divergence of at least 2 models; refuse anything else."""
    values = np.asarray(kl, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < 2:
        raise InputError(f"expected a KL for every pair of 2 or more models, got shape {values.shape}")
    check_divergence(values, pd.RangeIndex(len(values)))
    return (values + values.T) / 2
