"""Neighbours: the models nearest to each of very many, without the KL of every pair in memory."""

from __future__ import annotations

import numpy as np

from lmmap.errors import InputError
from lmmap.geometry import checked_weights

Array = np.ndarray
ROUNDING = 4 * np.finfo(np.float64).eps  # of each of a product's terms, to be safe
BLOCK = 512  # models at a time


def nearest_models(
    L: Array, k: int, *, weights: Array | None = None, block: int = BLOCK
) -> tuple[Array, Array]:
    """List every model's nearest models by the text-level estimate of KL.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    k : int
        How many neighbours, at most K - 1.
    weights : (N,) float array, optional
        Weight of each text.
    block : int
        Models at a time: beside one centred copy of L, memory is five times that of ``block`` x K numbers.

    Returns
    -------
    neighbors : (K, k) int array
        Positions, nearest first; of models equally near, the first listed.
    kl : (K, k) float array
        Their KL, nats per text.

    Raises
    ------
    InputError
        If the shape is not (K, N), a value is not finite, fewer than two texts carry weight, ``k`` is not
        between 1 and K - 1, or ``block`` is below 1.

    Notes
    -----
    Candidates are all that may be among the nearest by the expanded square of centred rows, whose rounding is
    bounded by its terms; their distances are taken again from differences, which keeps the digits of near
    pairs. Many models that are alike are all candidates of each other, and take as much longer.

    Examples
    --------
    >>> L = np.array([[-1.0, -3.0], [-2.0, -2.0], [-1.5, -2.5]])
    >>> neighbors, kl = nearest_models(L, 1)
    >>> neighbors.ravel(), kl.ravel()
    (array([2, 2, 0]), array([0.125, 0.125, 0.125]))
    """
    values = np.asarray(L, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise InputError(f"expected a matrix of K models x N texts, got shape {values.shape}")
    n_models = len(values)
    if not 1 <= k < n_models:
        raise InputError(f"{n_models} models have at most {n_models - 1} neighbours each, {k} were asked for")
    if block < 1:
        raise InputError(f"block must be at least 1, got {block}")
    w = checked_weights(weights, values.shape[1], enough=2)
    means = values @ w
    if not np.isfinite(means).all():
        raise InputError(f"model {np.flatnonzero(~np.isfinite(means))[0]} has a value that is not finite")
    X = values - means[:, None]
    X -= X.mean(axis=0)
    X *= np.sqrt(w)
    squares = np.einsum("ix,ix->i", X, X)
    rounding = ROUNDING * values.shape[1]
    neighbors, kl = np.empty((n_models, k), dtype=np.intp), np.empty((n_models, k))
    for begin in range(0, n_models, block):
        rows = np.arange(begin, min(begin + block, n_models))
        both = squares[rows][:, None] + squares
        distances = both - 2 * (X[rows] @ X.T)
        distances[np.arange(len(rows)), rows] = np.inf
        both *= rounding  # by which a distance may be off
        reach = np.partition(distances + both, k - 1, axis=1)[:, k - 1 : k]
        for i, candidates in zip(rows, distances - both <= reach, strict=True):
            others = np.flatnonzero(candidates)
            exact = ((X[others] - X[i]) ** 2).sum(axis=1)
            first = np.argsort(exact, kind="stable")[:k]
            neighbors[i], kl[i] = others[first], exact[first] / 2
    return neighbors, kl
