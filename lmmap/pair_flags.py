"""Pair flags: pairs of models whose estimate is not to be trusted, told from the scores alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmmap.errors import InputError
from lmmap.estimates import SUMMED, estimate_kl_by
from lmmap.geometry import NEAR, double_center, squared_distances
from lmmap.segments import Segments

Array = np.ndarray

GAP_LIMIT = 0.37
"""Of the gap to the mixture: best on the training pairs of ``benchmarks/laboratory.md``."""
THIRD_ORDER_LIMIT = 0.7
"""Of the third order over the second, for totals alone: likewise."""
LENGTH_LIMIT = 0.5
"""Share of the variance: text level is more than twice what it is with length regressed out."""


class PairFlags(NamedTuple):
    """What is wrong with the estimate of every pair: (K, K) arrays, symmetric, nothing on the diagonal.

    Parameters
    ----------
    second_order : (K, K) bool array
        Second order may not be enough: the estimate may be more than 20 % off half-Jeffreys on these texts
        (how often it is: ``benchmarks/laboratory.md``).
    length : (K, K) bool array
        Length drives the pair: text level is more than twice what it is with length regressed out.
    doubt : (K, K) float array
        What ``second_order`` is told from, see `flag_pairs`; 0 for equal models.
    limit : float
        Of ``doubt``: above it the flag is up.
    length_share : (K, K) float array
        Share of the variance of the totals' difference that a straight line in the texts' bytes explains.
    """

    second_order: Array
    length: Array
    doubt: Array
    limit: float
    length_share: Array

    def say(self, i: int, j: int) -> str:
        """Put a pair's flags in words; nothing if there are none."""
        said = []
        if self.second_order[i, j]:
            said.append(
                f"second order may not be enough for this pair ({self.doubt[i, j]:.2g} > {self.limit:g})"
            )
        if self.length[i, j]:
            said.append(f"length drives this pair ({self.length_share[i, j]:.0%} of the variance)")
        return "; ".join(said)


def flag_pairs(
    segments: Segments, *, estimator: str | None = None, weights: Array | None = None
) -> PairFlags:
    """Tell of every pair of models whether second order is not enough, and whether length drives it.

    Parameters
    ----------
    segments : Segments
        Scores of N texts under K models.
    estimator : str, optional
        Whose trouble is looked for, any squared one of `lmmap.estimates.ESTIMATORS`: by default
        ``segment_centered`` where there are token records, ``text_level`` where there are totals alone.
    weights : (N,) float array, optional
        Weight of each text; uniform by default.

    Returns
    -------
    PairFlags
        For all pairs.

    Raises
    ------
    InputError
        If the estimator is unknown, no squared distance, or needs what the scores do not hold; if fewer than
        three texts carry weight; or as `lmmap.estimates.estimate_kl_by`.

    Notes
    -----
    With token records, doubt is ``|ln(estimate / mixture)|``: the mixture level is no expansion, and what is
    right to second order agrees with it. With totals alone, doubt is ``|E D^3| / (3 E D^2)`` of the centred
    differences D of texts: to third order, ``|KL_ij - KL_ji|`` over half-Jeffreys.

    On pairs that nothing was chosen on, doubt ranks a squared estimate that is off above one that is not with
    probability 0.91 in the laboratory and 0.81-0.88 between small trained models of one tokenizer; the limit
    does not carry over as well, and catches 84 % of those that are off with one tokenizer and 11 % with
    another. It does not tell where the midpoint is off. Length is told with 0.91-1.00
    (``benchmarks/laboratory.md``). KL on these texts is meant: that of sequences may be another one where
    texts are far from both models.

    Examples
    --------
    Two models that part by little on every token, and a third that gives one token e^-20 of what they do:

    >>> from lmmap.segments import segments_of_tokens
    >>> log_probs = np.array([[-1.0, -1.1, -1.0, -1.1], [-1.1, -1.0, -1.1, -1.0], [-1.0, -1.1, -21.0, -1.1]])
    >>> tokens = segments_of_tokens(log_probs, np.array([0, 0, 1, 2]), np.array([9, 8, 9]))
    >>> flags = flag_pairs(tokens)
    >>> flags.second_order.astype(int)
    array([[0, 0, 1],
           [0, 0, 1],
           [1, 1, 0]])
    """
    if np.count_nonzero(np.ones(len(segments.n_bytes)) if weights is None else weights) < 3:
        raise InputError("flags need three texts that carry weight: length is told by a line through them")
    totals_alone = segments.unit == "text"
    named = estimator or ("text_level" if totals_alone else "segment_centered")
    if named in SUMMED:
        raise InputError(f"{named} is no squared distance; name the squared estimator that is to be doubted")
    estimate = estimate_kl_by(named, segments, weights=weights)
    if totals_alone:
        doubt, limit = _third_order(segments.totals, weights), THIRD_ORDER_LIMIT
    else:
        doubt, limit = _gap(estimate, estimate_kl_by("mixture", segments, weights=weights)), GAP_LIMIT
    share = _length_share(segments, weights)
    return PairFlags(doubt > limit, share > LENGTH_LIMIT, doubt, limit, share)


def _gap(estimate: Array, mixture: Array) -> Array:
    """Give |ln(estimate / mixture)|; 0 where both are 0, infinite where one is."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.stack([estimate, mixture]))
    equal = np.isneginf(logs).all(axis=0)
    logs[:, equal] = 0
    gap: Array = np.abs(logs[0] - logs[1])
    return gap


def _third_order(totals: Array, weights: Array | None) -> Array:
    """Give |E D^3| / (3 E D^2), from products of all rows; near pairs from their differences."""
    Q = double_center(totals, weights=weights)
    w = np.ones(Q.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    crossed, cubes, gram = (w * Q**2) @ Q.T, Q**3 @ w, (w * Q) @ Q.T
    third = cubes[:, None] - 3 * crossed + 3 * crossed.T - cubes
    second = squared_distances(totals, weights=weights) * w.sum()
    near = second < NEAR * (np.diag(gram)[:, None] + np.diag(gram))
    for i in np.flatnonzero(near.any(axis=1)):
        third[i, near[i]] = (Q[i] - Q[near[i]]) ** 3 @ w
    doubt: Array = np.divide(np.abs(third), 3 * second, out=np.zeros_like(third), where=second > 0)
    return doubt


def _length_share(segments: Segments, weights: Array | None) -> Array:
    whole, rest = (
        estimate_kl_by(name, segments, weights=weights) for name in ("text_level", "text_regressed")
    )
    left: Array = np.divide(rest, whole, out=np.ones_like(whole), where=whole > 0)
    share: Array = np.maximum(1 - left, 0)
    return share
