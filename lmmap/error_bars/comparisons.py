"""Comparisons: which of two models is closer to a third, and which predicts texts better, with error bars."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmmap.error_bars.blocks import Names, centered
from lmmap.error_bars.student import t_tail
from lmmap.errors import InputError
from lmmap.resolution import noise_kl, one_for_each


class Closer(NamedTuple):
    """How much closer one model is than another, and how sure that is.

    Parameters
    ----------
    difference : float
        ``KL(i, k) - KL(i, j)``, nats per text: positive if j is the closer one.
    standard_error : float
        Of ``difference``, over texts.
    p_value : float
        Chance of such a difference or a larger one if j were no closer; one-sided.
    """

    difference: float
    standard_error: float
    p_value: float


class Ranking(NamedTuple):
    """Models by mean log-likelihood, best first: (K,) arrays, nats per text.

    Parameters
    ----------
    order : (K,) int array
        Positions of the models in L; ties keep their order.
    height : (K,) float array
        Mean log-likelihood.
    to_best, to_best_error : (K,) float array
        How far behind the best model, and the standard error of that; zero for the best.
    to_next, to_next_error : (K,) float array
        How far before the next model; NaN for the last.
    """

    order: np.ndarray
    height: np.ndarray
    to_best: np.ndarray
    to_best_error: np.ndarray
    to_next: np.ndarray
    to_next_error: np.ndarray


def is_closer(
    L: np.ndarray,
    i: int,
    j: int,
    k: int,
    *,
    weights: np.ndarray | None = None,
    blocks: Names | None = None,
    error_var: np.ndarray | None = None,
) -> Closer:
    """Test whether model i is closer to j than to k, by text-level KL, on the same texts.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    i, j, k : int
        Positions of the three models.
    weights : (N,) float array, optional
        Weight of each text.
    blocks : (N,) array of int or str, optional
        Which document each text is from.
    error_var : (K,) float array, optional
        Noise of each row, nats^2, taken as known and taken off.

    Returns
    -------
    Closer
        With p = 1 where j and k are one model.

    Raises
    ------
    InputError
        As `lmmap.error_bars.uncertainty.kl_intervals`, or if a position is not that of a row.

    Notes
    -----
    Student's t of the difference of both distances' contributions, block by block, with as many degrees of
    freedom, less one, as blocks contribute effectively. Differences have the same tails on
    both sides, so that heavy ones do little harm: at N = 1,000 p is below 5 % in 4-6 % of pairs that are
    equally far, also where the intervals of KL are poor (``benchmarks/coverage.md``).

    Examples
    --------
    >>> L = np.array([[0.0, 0, 0, 0, 0, 0], [1, -1, 0, 1, -1, 0], [3, -4, 1, 4, -3, -1]])
    >>> found = is_closer(L, 0, 1, 2)
    >>> round(found.difference, 3), round(found.standard_error, 3), round(found.p_value, 3)
    (4.8, 1.278, 0.017)
    """
    n_models = len(L)
    for position in (i, j, k):
        if not 0 <= position < n_models:
            raise InputError(f"no model {position}: positions go from 0 to {n_models - 1}")
    rows = np.asarray(L, dtype=np.float64)[[i, j, k]]
    noise = np.zeros((3, 3)) if error_var is None else noise_kl(one_for_each(error_var, n_models)[[i, j, k]])
    _, made = centered(L, weights=weights, blocks=blocks)
    D = made.differences(rows[1:], rows[0])
    squares = D**2 + made.small_sample * made.mean_errors(D)[:, None] ** 2  # their mean is not biased
    more = (squares[1] - squares[0]) / 2 - (noise[0, 2] - noise[0, 1])
    difference = float(more @ made.weights)
    terms = made.sums((more - difference) * made.weights)
    error = float(np.sqrt(made.small_sample * (terms**2).sum()))
    if error == 0:
        return Closer(difference, 0.0, float(difference <= 0))
    n_effective = np.abs(terms).sum() ** 2 / (terms**2).sum()
    return Closer(difference, error, t_tail(difference / error, n_effective - 1))


def rank_models(L: np.ndarray, *, weights: np.ndarray | None = None, blocks: Names | None = None) -> Ranking:
    """Rank models by mean log-likelihood, with the error bar of every gap.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    weights : (N,) float array, optional
        Weight of each text.
    blocks : (N,) array of int or str, optional
        Which document each text is from.

    Returns
    -------
    Ranking
        Best first.

    Raises
    ------
    InputError
        As `lmmap.error_bars.uncertainty.kl_intervals`.

    Notes
    -----
    Models are compared on the same texts: the error of a gap is that of the mean of the difference (Vuong
    1989), a distance on the map over ``sqrt(N)``, and mostly far below that of a height.

    Examples
    --------
    >>> found = rank_models(np.array([[-3.0, -3.0], [-1.0, -2.0], [-2.0, -2.5]]))
    >>> found.order.tolist(), found.to_best.tolist(), found.to_next.round(2).tolist()
    ([1, 2, 0], [0.0, 0.75, 1.5], [0.75, 0.75, nan])
    """
    _, made = centered(L, weights=weights, blocks=blocks)
    rows = np.asarray(L, dtype=np.float64)
    heights = (rows[:, made.order] * made.weights).sum(axis=1)  # the same for equal rows, to the last bit
    order = np.argsort(-heights, kind="stable")
    heights, ranked = heights[order], rows[order]
    return Ranking(
        order,
        heights,
        heights[0] - heights,
        made.mean_errors(made.differences(ranked, ranked[0])),
        np.append(heights[:-1] - heights[1:], np.nan),
        np.append(made.mean_errors(made.differences(ranked[1:], ranked[:-1])), np.nan),
    )
