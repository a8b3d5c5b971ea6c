"""Some texts instead of all: which, with which weights, and what is lost."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.geometry import checked_weights, estimate_kl, nearest_neighbors
from lmmap.imports.published import read_weights

N_NEIGHBORS = 10


class Agreement(NamedTuple):
    """How far distances of the models on the map are the same on some of the texts as on all.

    Parameters
    ----------
    rank_correlation : float
        Spearman's, of a model's distances to all others; mean over models.
    lowest : float
        That of the worst model.
    neighbors_kept : float
        Share of the nearest models on all texts that are among the nearest on some.
    relative_error : float
        Median over pairs of the relative difference of the KL estimates.
    """

    rank_correlation: float
    lowest: float
    neighbors_kept: float
    relative_error: float


def subset_agreement(L: np.ndarray, weights: np.ndarray) -> Agreement:
    """Tell what is lost by scoring some texts only: distances of known models on these and on all.

    Parameters
    ----------
    L : (K, N) float array
        Nats; at least 4 models.
    weights : (N,) float array
        Weight of each text, 0 for those that are left out.

    Returns
    -------
    Agreement
        1, 1, 1 and 0 if the texts are all and count alike.

    Raises
    ------
    InputError
        If there are fewer than 4 models, or weights do not fit.

    Examples
    --------
    >>> subset_agreement(np.random.default_rng(0).normal(size=(5, 9)), np.ones(9)).rank_correlation
    1.0
    """
    if len(L) < 4:
        raise InputError(f"{len(L)} models have too few distances to be compared; 4 are needed")
    chosen = np.flatnonzero(checked_weights(weights, np.shape(L)[1], enough=2))
    on_all, on_some = estimate_kl(L), estimate_kl(L[:, chosen], weights=np.asarray(weights)[chosen])
    others = ~np.eye(len(L), dtype=bool)
    ranks = [pd.DataFrame(kl[others].reshape(len(L), -1)).rank(axis=1).to_numpy() for kl in (on_all, on_some)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    rho = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    k = min(N_NEIGHBORS, (len(L) - 1) // 2)
    near = [nearest_neighbors(kl, k) for kl in (on_all, on_some)]
    kept = (near[0][:, :, None] == near[1][:, None]).sum() / near[0].size
    pairs = np.triu(on_all, 1) > 0
    error = np.median(np.abs(on_some[pairs] / on_all[pairs] - 1)) if pairs.any() else 0.0
    return Agreement(float(rho.mean()), float(rho.min()), float(kept), float(error))


def text_weights(
    n_texts: int, *, n: int | None = None, seed: int = 0, file: str | Path | None = None
) -> np.ndarray | None:
    """Choose the texts to score.

    Parameters
    ----------
    n_texts : int
        N, all there are.
    n : int, optional
        How many to draw, without replacement; with ``file``, the size of the selection.
    seed : int
        Of the draw; with ``file``, the seed of the selection.
    file : str or Path, optional
        A published selection (`lmmap.imports.published.read_weights`), or a ``.npy`` file of N weights.

    Returns
    -------
    (N,) float array or None
        Weights, 0 for texts that are left out; None for all texts alike.

    Raises
    ------
    InputError
        If there are not so many texts, or the file does not fit.

    Examples
    --------
    >>> text_weights(5, n=2, seed=1).sum()
    np.float64(2.0)
    """
    if file is not None and Path(file).suffix == ".npy":
        try:
            weights = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{file}: no array of {n_texts} weights ({error})") from None
        checked_weights(weights, n_texts, enough=2)
        return np.asarray(weights, dtype=np.float64)
    if file is not None:
        if n is None:
            raise InputError(f"{file} holds selections of several sizes; say which with n_texts")
        return read_weights(file, n, n_texts, seed=seed)
    if n is None or n == n_texts:
        return None
    if not 2 <= n <= n_texts:
        raise InputError(f"between 2 and {n_texts} texts can be scored, not {n}")
    weights = np.zeros(n_texts)
    weights[np.random.default_rng(seed).choice(n_texts, n, replace=False)] = 1.0
    return weights
