"""Text sums: what texts add up to for every pair of models, and the KL that follows.

The estimates offered here are sums over pieces of text, but for the mean difference that some take off: a
ratio of sums. So what two choices of texts add up to is the sum of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmmap.errors import InputError
from lmmap.estimates import COLUMNS_AT_ONCE, NEAR
from lmmap.segments import Segments

Array = np.ndarray

CENTERED = {
    "text_level": 1.0,
    "token_level": 0.0,
    "token_centered": 1.0,
    "segment_level": 0.0,
    "segment_centered": 1.0,
    "mixture": 0.0,
    "midpoint": 0.5,
}
"""Estimators that are such sums -> how much of the mean difference they take off."""

OF_SQUARES = {"mixture": 0.0, "midpoint": 0.5}
"""How much of an estimate is half squares; 1 for the others. The rest is D tanh(D / 2)."""


@dataclass(frozen=True, eq=False, repr=False)
class TextSums:
    """What chosen texts add up to.

    Parameters
    ----------
    squares : (K, K) float array
        Sum over drawn pieces of half the squared difference, or of what the estimator has in its place.
    totals, drawn : (K,) float arrays
        Log-likelihood of all pieces, and of those that are drawn, about a common mean.
    n_texts, n_pieces, n_drawn : float
        How many; weighted, if texts are.
    share : float
        Share of all pieces that is drawn.
    centered : float
        Of `CENTERED`.

    Examples
    --------
    Two texts whose log-likelihoods differ by 1 and by -1, then a third that differs by 3:

    >>> zeros = TextSums(np.zeros((2, 2)), np.zeros(2), np.zeros(2), 0, 0, 0, share=1, centered=1)
    >>> two = zeros.changed(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.empty((0, 2)))
    >>> two.kl()
    array([[0. , 0.5],
           [0.5, 0. ]])
    >>> round(float(two.changed(np.array([[3.0, 0.0]]), np.empty((0, 2))).kl()[0, 1]), 6)
    1.333333
    """

    squares: Array
    totals: Array
    drawn: Array
    n_texts: float
    n_pieces: float
    n_drawn: float
    share: float
    centered: float

    def kl(self) -> Array:
        """Estimate KL between every pair of models on the chosen texts.

        Returns
        -------
        (K, K) float array
            Nats per text; symmetric, zero diagonal.

        Raises
        ------
        InputError
            If the texts have too few pieces for the estimator.
        """
        enough = 2 if self.centered else 1
        if self.n_pieces < enough:
            raise InputError(
                f"a distance needs {enough} pieces of text that carry weight, got {self.n_pieces:g}"
            )
        kl: Array = self.squares.copy()
        if self.centered:
            mean = _differences(self.totals / self.n_pieces)
            off = _differences(self.drawn)
            off -= self.n_drawn / 2 * mean
            off *= self.centered * mean
            kl -= off
        kl /= self.share * self.n_texts
        np.maximum(kl, 0, out=kl)
        return kl

    def changed(self, more: Array, less: Array) -> TextSums:
        """Add whole texts and take others away: for text level.

        Parameters
        ----------
        more, less : (M, K) float arrays
            Scores of those texts about the means that all sums have.

        Returns
        -------
        TextSums
            Of the texts then chosen.
        """
        gram = more.T @ more - less.T @ less
        lengths = np.diag(gram) / 2
        squares: Array = lengths[:, None] + lengths
        squares -= gram
        squares += self.squares
        totals = self.totals + (more.sum(axis=0) - less.sum(axis=0))
        n = self.n_texts + len(more) - len(less)
        return replace(self, squares=squares, totals=totals, drawn=totals, n_texts=n, n_pieces=n, n_drawn=n)


def estimators_of(segments: Segments) -> tuple[str, ...]:
    """List the estimators that can be added up for some scores.

    Parameters
    ----------
    segments : Segments
        Scores of N texts under K models.

    Returns
    -------
    tuple of str
        Those of `CENTERED` that need no more than the scores hold.

    Examples
    --------
    >>> from lmmap.segments import segments_of_totals
    >>> estimators_of(segments_of_totals(np.array([[-1.0, -3.0]]), np.array([8, 8])))
    ('text_level',)
    """
    wanting = {"text": ("token", "segment", "mixture", "midpoint"), "segment": ("token",), "token": ()}
    return tuple(name for name in CENTERED if not name.startswith(wanting[segments.unit]))


def pair_sums(estimator: str, log_probs: Array, mean: Array) -> tuple[Array, Array]:
    """Add pieces of text up.

    Parameters
    ----------
    estimator : str
        One of `CENTERED`.
    log_probs : (K, B) float array
        Log-probabilities of B pieces, in nats.
    mean : (K,) float array
        What is taken off them; 0 if the estimator takes no mean off.

    Returns
    -------
    squares : (K, K) float array
        Half the squared differences, or what the estimator has in their place; 0 for equal rows.
    drawn : (K,) float array
        Log-probabilities about the mean.

    Examples
    --------
    >>> squares, drawn = pair_sums("segment_level", np.array([[-1.0, -3.0], [-2.0, -2.0]]), np.zeros(2))
    >>> squares
    array([[0., 1.],
           [1., 0.]])
    """
    X = log_probs - mean[:, None]
    X -= X.mean(axis=0)
    part = OF_SQUARES.get(estimator, 1.0)
    squares = part * _half_squares(X) if part > 0 else np.zeros((len(X), len(X)))
    if part < 1:
        squares += (1 - part) * _mixture(log_probs)
    return squares, X.sum(axis=1)


def _half_squares(X: Array) -> Array:
    """Half the squared distances of rows; near ones are subtracted first."""
    gram = X @ X.T
    lengths = np.diag(gram) / 2
    both = lengths[:, None] + lengths
    half = both - gram
    near = np.triu(half <= 2 * NEAR * both, 1)
    for i in np.flatnonzero(near.any(axis=1)):
        half[i, near[i]] = ((X[near[i]] - X[i]) ** 2).sum(axis=1) / 2
    return _mirrored(half)


def _mixture(log_probs: Array) -> Array:
    """Sum D tanh(D / 2) over pieces, as many at a time as fit a cache."""
    sums = np.zeros((len(log_probs), len(log_probs)))
    for start in range(0, log_probs.shape[1], COLUMNS_AT_ONCE):
        some = log_probs[:, start : start + COLUMNS_AT_ONCE]
        for i in range(len(some) - 1):
            D = some[i + 1 :] - some[i]
            sums[i, i + 1 :] += (D * np.tanh(D / 2)).sum(axis=1)
    return _mirrored(sums)


def _mirrored(values: Array) -> Array:
    above = np.triu(values, 1)
    whole: Array = above + above.T
    return whole


def _differences(values: Array) -> Array:
    pairs: Array = values[:, None] - values
    return pairs
