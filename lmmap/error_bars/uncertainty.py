"""Uncertainty of text-level estimates: standard errors and intervals of all pairs at once.

Texts are the sample. With D the difference of two models' centred rows, the estimate is half the mean of
D^2, and its error comes from the mean of D^4, which is a sum of matrix products. Texts of one document are
one block: what is independent, and squared for the error, is the block's sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmmap.error_bars.blocks import ROUNDING, Blocks, Names, centered
from lmmap.error_bars.student import t_quantile
from lmmap.errors import InputError
from lmmap.resolution import noise_kl, one_for_each

NEAR = 1e-9  # of the fourth moments of two rows: below it pairs are subtracted first
LARGE = 24  # texts in a block: from here on one product of matrices for each block is quicker


class KLIntervals(NamedTuple):
    """Text-level KL of every pair with its error bar: (K, K) arrays, nats per text, zero diagonal.

    Parameters
    ----------
    kl : (K, K) float array
        The estimate, without the bias of a finite sample and without noise; not below 0.
    standard_error : (K, K) float array
        Of ``kl``.
    low, high : (K, K) float array
        The interval; ``high`` is infinite where the texts set no upper bound.
    n_effective : (K, K) float array
        How many blocks (texts, without blocks) the estimate rests on: ``(sum S)^2 / sum S^2`` for the
        blocks' sums S of squared differences; about N / 3 for Gaussian differences, 1 if one text rules it.
    """

    kl: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_effective: np.ndarray

    @property
    def told_apart(self) -> np.ndarray:
        """Whether the interval lies above 0, (K, K) bool.

        With ``error_var``, noise alone would not show this distance; without, rows that differ by nothing but
        noise are told apart. False where so few blocks carry the distance that they set no bounds.
        """
        return self.low > 0


def kl_intervals(
    L: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    blocks: Names | None = None,
    error_var: np.ndarray | None = None,
    level: float = 0.95,
) -> KLIntervals:
    """Estimate KL between every pair of models from totals of texts, with standard errors and intervals.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    weights : (N,) float array, optional
        Weight of each text, taken as given.
    blocks : (N,) array of int or str, optional
        Which document each text is from: blocks are the independent units. Every text by default.
    error_var : (K,) float array, optional
        Noise of each row, nats^2, taken as known (`lmmap.resolution.noise_kl`); none by default.
    level : float
        Nominal coverage of the intervals.

    Returns
    -------
    KLIntervals
        Two names for one model have 0 with the interval from 0 to 0, and are not told apart.

    Raises
    ------
    InputError
        If the shape is not (K, N), a value is not finite, weights or blocks do not fit, fewer than two
        blocks carry weight, all texts are one text repeated, or ``level`` is not between 0 and 1.

    Notes
    -----
    The standard error is that of an unbiased sample variance, ``(m4 - m2^2) / N + 2 m2^2 / N^2`` times
    ``N / (N - 1)``, with sums over blocks in the place of texts.

    The interval is Student's, of 1 / KL: of the powers of KL that were tried this one misses least often on
    the side of heavy tails, where a sample without the rare large differences shows both too small a KL and
    too small an error. Degrees of freedom are Satterthwaite's, were the blocks' sums of squares gamma
    variates of the spread that they have: N / 7 for Gaussian differences, fewer for heavy tails.

    Nominal 95 % cover 94-95 % at N = 1,000 for Gaussian, Laplace, Student's t with 5 degrees of freedom,
    log-normal with sigma 0.5 and Gaussian differences of which 5 % are five times as wide; but 91 % for
    log-normal with sigma 1 and 83 % for t with 3 degrees of freedom, whose fourth moment is infinite. What
    counts is the number of blocks: 1,000 texts in 100 documents cover 93-95 % for the first three and
    81-91 % for the others, whose true value then lies above the interval (``benchmarks/coverage.md``).


    The error is that of another draw of texts; that Var / 2 is not KL on texts far from both models is not
    part of it.

    Examples
    --------
    >>> found = kl_intervals(np.array([[-1.0, -3.0, -2.0, -2.0], [-2.0, -2.0, -2.0, -2.0]]))
    >>> round(float(found.kl[0, 1]), 6), round(float(found.standard_error[0, 1]), 6)
    (0.333333, 0.176777)
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}")
    sums = _pair_sums(L, weights, blocks)
    noise = 0.0 if error_var is None else noise_kl(one_for_each(error_var, len(sums.variance)))
    variance = sums.variance + sums.small_sample * sums.of_mean
    error = np.sqrt(sums.small_sample * (sums.of_variance + 2 * sums.of_mean**2))
    differ = variance > 0
    relative = np.divide(error, variance, out=np.ones_like(error), where=differ)
    t = np.where(differ, t_quantile(level, sums.degrees_of_freedom), 0.0)
    width = t * np.maximum(relative, np.finfo(np.float64).tiny)  # infinite where t is
    left = 1 - width
    high = np.divide(variance, left, out=np.full_like(left, np.inf), where=left > 0)
    kl, low, high = (np.maximum(v / 2 - noise, 0.0) for v in (variance, variance / (1 + width), high))
    return KLIntervals(kl, error / 2, low, high, sums.n_effective)


def mean_difference_errors(
    L: np.ndarray, *, weights: np.ndarray | None = None, blocks: Names | None = None
) -> np.ndarray:
    """Give the standard error of the difference of every two models' mean log-likelihoods.

    Without blocks ``sqrt(Var(l_i - l_j) / N)`` (Vuong 1989, Econometrica 57): a distance on the map over
    ``sqrt(N)``.

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
    (K, K) float array
        Nats per text; symmetric, zero diagonal.

    Raises
    ------
    InputError
        As `kl_intervals`.

    Examples
    --------
    >>> mean_difference_errors(np.array([[-1.0, -3.0, -2.0, -2.0], [-2.0, -2.0, -2.0, -2.0]])).round(3)
    array([[0.   , 0.354],
           [0.354, 0.   ]])
    """
    errors: np.ndarray = np.sqrt(_pair_sums(L, weights, blocks).of_mean)
    return errors


class _PairSums(NamedTuple):
    """What the texts say of every pair, (K, K) each, and how many blocks there are."""

    variance: np.ndarray  # s, the mean of D^2
    of_mean: np.ndarray  # squared error of the mean of D
    of_variance: np.ndarray  # squared error of s
    n_effective: np.ndarray
    n_equal: float

    @property
    def small_sample(self) -> float:
        return self.n_equal / (self.n_equal - 1)

    @property
    def degrees_of_freedom(self) -> np.ndarray:
        """Satterthwaite's, of the error of a mean of gamma variates: Gaussian D have (N - 1) / 7."""
        squared_spread = np.maximum(self.n_equal / self.n_effective - 1, 0.0)
        df: np.ndarray = (self.n_equal - 1) / (1 + 3 * squared_spread)
        return df


def _pair_sums(L: np.ndarray, weights: np.ndarray | None, names: Names | None) -> _PairSums:
    """Add up D^2, and over blocks the squares of D and of D^2, of all pairs."""
    Q, blocks = centered(L, weights=weights, blocks=names)
    rows = np.asarray(L, dtype=np.float64)
    s, of_mean, of_variance, fourth, both = _from_products(Q * np.sqrt(blocks.weights), blocks)
    near = (fourth <= NEAR * both) | (s <= (ROUNDING * np.abs(rows).max()) ** 2)
    near = np.triu(near, 1)
    for i in np.flatnonzero(near.any(axis=1)):
        D = blocks.differences(rows[near[i]], rows[i])
        s[i, near[i]], of_mean[i, near[i]], of_variance[i, near[i]], fourth[i, near[i]] = _from_differences(
            D * np.sqrt(blocks.weights), blocks
        )
    s, of_mean, of_variance, fourth = (_mirrored(v) for v in (s, of_mean, of_variance, fourth))
    n_effective = np.divide(s**2, fourth, out=np.full_like(s, len(blocks.starts)), where=fourth > 0)
    return _PairSums(s, of_mean, np.maximum(of_variance, 0.0), n_effective, blocks.n_equal)


def _from_products(Y: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, ...]:
    """Expand the sums over blocks of all pairs; give what `_from_differences` does, and the fourths' size.

    With ``a_i`` the sum over a block of ``y_i^2`` and ``g_ij`` that of ``y_i y_j``, the block's sum of
    ``(y_i - y_j)^2`` is ``S = a_i + a_j - 2 g_ij``; its square expands into products that are Gram matrices.
    Blocks of one text make them those of q, q^2 and q^3.
    """
    s = _expanded(Y @ Y.T)
    shared_rows = Y * np.sqrt(np.repeat(blocks.share, blocks.sizes))
    shared = _expanded(shared_rows @ shared_rows.T)
    of_blocks = blocks.sums(Y * np.sqrt(blocks.weights))
    of_mean = _expanded(of_blocks @ of_blocks.T)
    squares = blocks.sums(Y**2)
    aa = squares @ squares.T
    both = np.diag(aa)[:, None] + np.diag(aa)[None] + 2 * aa
    cubes = (np.repeat(squares, blocks.sizes, axis=1) * Y) @ Y.T
    gg = aa if len(blocks.starts) == len(blocks.order) else _squared_grams(Y, blocks)
    fourth = both + 4 * (gg - cubes - cubes.T)
    of_variance = fourth - 2 * s * shared + s**2 * (blocks.share**2).sum()
    return s, of_mean, of_variance, fourth, both


def _squared_grams(Y: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Sum over blocks of the squared entries of each block's Gram matrix.

    In small blocks ``g_ij^2`` is the sum over two texts x, y of ``(y_ix y_iy) (y_jx y_jy)``: a Gram matrix
    of products, over all blocks of one size.
    """
    total = np.zeros((len(Y), len(Y)))
    for size in np.unique(blocks.sizes):
        starts = blocks.starts[blocks.sizes == size]
        if size > LARGE:
            for start in starts:
                part = Y[:, start : start + size]
                total += (part @ part.T) ** 2
            continue
        for x in range(size):
            for y in range(x + 1):
                products = Y[:, starts + x] * Y[:, starts + y]
                total += (1 if x == y else 2) * (products @ products.T)
    return total


def _from_differences(D: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, ...]:
    """Give s, its squared error and that of the mean, and the sum of S^2, for pairs one by one."""
    S = blocks.sums(D**2)
    s = S.sum(axis=1)
    of_mean = (blocks.sums(D * np.sqrt(blocks.weights)) ** 2).sum(axis=1)
    of_variance = ((S - s[:, None] * blocks.share) ** 2).sum(axis=1)
    return s, of_mean, of_variance, (S**2).sum(axis=1)


def _expanded(gram: np.ndarray) -> np.ndarray:
    squares = np.diag(gram)
    distances: np.ndarray = squares[:, None] + squares[None] - 2 * gram
    return distances


def _mirrored(values: np.ndarray) -> np.ndarray:
    above = np.triu(values, 1)
    whole: np.ndarray = above + above.T
    return whole
