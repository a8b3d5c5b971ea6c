"""Text groups: what each group of texts adds to every pair's KL, ready for any choice of groups.

A choice of groups adds up in the time that K x K numbers take. For text level any choice of texts does: the
few texts in which it differs from one whose sums are at hand are added or taken away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmmap.errors import InputError, closest
from lmmap.geometry import checked_weights
from lmmap.segments import Segments
from lmmap.text_sums import CENTERED, TextSums, estimators_of, pair_sums

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class TextGroups:
    """N texts in D groups, and the sums of each group under K models; made by `group_texts`.

    Parameters
    ----------
    estimator : str
        One of `lmmap.text_sums.CENTERED`.
    group_of_text : (N,) int array
        Group 0..D-1 of each text.
    squares : (D, K, K) float array
        As in `TextSums`, of each group.
    totals, drawn : (D, K) float arrays
        Likewise.
    counts : (3, D) float array
        Texts, pieces and drawn pieces of each group.
    share : float
        Share of all pieces that is drawn.
    columns : (N, K) float array, optional
        Text level only: scores of single texts, about the means of models and of texts.
    """

    estimator: str
    group_of_text: Array
    squares: Array
    totals: Array
    drawn: Array
    counts: Array
    share: float
    columns: Array | None = None

    def __repr__(self) -> str:
        n_groups, n_models, _ = self.squares.shape
        n_texts = len(self.group_of_text)
        return f"TextGroups: {self.estimator}, {n_models} models x {n_texts:,} texts in {n_groups:,} groups"

    def add_up(self, weights: Array | None = None) -> TextSums:
        """Add up groups.

        Parameters
        ----------
        weights : (D,) float array, optional
            Weight of each text of a group: 1 for groups that are chosen, 0 for the others; all by default.

        Returns
        -------
        TextSums
            Of the chosen groups.

        Raises
        ------
        InputError
            If weights do not fit, or none is above 0.
        """
        w = self._weights(weights)
        n_models = self.squares.shape[1]
        squares = (w @ self.squares.reshape(len(w), -1)).reshape(n_models, n_models)
        totals, drawn = w @ self.totals, w @ self.drawn
        n_texts, n_pieces, n_drawn = (self.counts @ w).tolist()
        centered = CENTERED[self.estimator]
        return TextSums(squares, totals, drawn, n_texts, n_pieces, n_drawn, self.share, centered)

    def kl(self, weights: Array | None = None) -> Array:
        """Estimate KL between every pair of models on groups of texts.

        Parameters
        ----------
        weights : (D,) float array, optional
            As `add_up`.

        Returns
        -------
        (K, K) float array
            Nats per text; what `lmmap.estimates.estimate_kl_by` gives for the same texts.

        Raises
        ------
        InputError
            As `add_up`, or if the texts have too few pieces.

        Examples
        --------
        >>> from lmmap.segments import segments_of_totals
        >>> L = np.array([[-1.0, -3.0, -9.0], [-2.0, -2.0, -2.0]])
        >>> texts = segments_of_totals(L, np.array([8, 8, 8]))
        >>> groups = group_texts("text_level", texts, np.array([0, 0, 1]))
        >>> groups.kl(np.array([1.0, 0.0]))
        array([[0. , 0.5],
               [0.5, 0. ]])
        """
        return self.add_up(weights).kl()

    def of_texts(self, texts: Array, known: tuple[Array, TextSums] | None = None) -> TextSums:
        """Add up any texts.

        Parameters
        ----------
        texts : (N,) bool array
            The texts.
        known : tuple, optional
            Other texts and their sums: begun with if fewer texts differ than from whole groups.

        Returns
        -------
        TextSums
            Of these texts. Where parts of groups are chosen, a pair is good to 1e-12 of its models' squared
            lengths; equal models are 0 apart.

        Raises
        ------
        InputError
            If no text is chosen, or parts of groups are and single texts are not at hand.
        """
        sizes = self.counts[0]
        chosen = np.bincount(self.group_of_text, weights=texts, minlength=len(sizes))
        if ((chosen == 0) | (chosen == sizes)).all():
            return self.add_up(chosen > 0)
        if self.columns is None:
            raise InputError(f"{self.estimator} can be added up for whole groups of texts only")
        most = chosen > sizes / 2
        start = most[self.group_of_text]
        if known is not None and (known[0] != texts).sum() < (start != texts).sum():
            start, sums = known
        else:
            sums = self.add_up(most) if most.any() else self._nothing
        sums = sums.changed(self.columns[texts & ~start], self.columns[start & ~texts])
        sums.squares[self._equal] = 0
        return sums

    def contributions(self, i: int, j: int, weights: Array | None = None) -> Array:
        """Tell what each group adds to the KL of a pair.

        Parameters
        ----------
        i, j : int
            Positions of the two models.
        weights : (D,) float array, optional
            As `add_up`.

        Returns
        -------
        (D,) float array
            Nats per text of all texts chosen: their sum is the pair's KL.

        Raises
        ------
        InputError
            As `add_up`.

        Examples
        --------
        >>> from lmmap.segments import segments_of_totals
        >>> L = np.array([[-1.0, -3.0, -8.0], [-2.0, -2.0, -2.0]])
        >>> texts = segments_of_totals(L, np.array([8, 8, 8]))
        >>> groups = group_texts("text_level", texts, np.array([0, 0, 1]))
        >>> groups.contributions(0, 1).round(6)
        array([1.666667, 2.666667])
        """
        w = self._weights(weights)
        n_texts, n_pieces, _ = self.counts @ w
        mean = w @ (self.totals[:, i] - self.totals[:, j]) / n_pieces
        off = mean * (self.drawn[:, i] - self.drawn[:, j] - self.counts[2] / 2 * mean)
        added: Array = w * (self.squares[:, i, j] - CENTERED[self.estimator] * off) / (self.share * n_texts)
        return added

    def _weights(self, weights: Array | None) -> Array:
        checked_weights(weights, len(self.squares))
        return np.ones(len(self.squares)) if weights is None else np.asarray(weights, dtype=np.float64)

    @property
    def _nothing(self) -> TextSums:
        zeros = np.zeros(self.squares.shape[1:])
        return TextSums(zeros, zeros[0], zeros[0], 0, 0, 0, self.share, CENTERED[self.estimator])

    @cached_property
    def _equal(self) -> Array:
        """Pairs that no text tells apart."""
        equal: Array = np.logical_not(self.squares.any(axis=0))
        return equal


def group_texts(estimator: str, segments: Segments, group_of_text: Array) -> TextGroups:
    """Add up the texts of each group.

    Parameters
    ----------
    estimator : str
        One of `lmmap.text_sums.estimators_of`.
    segments : Segments
        Scores of N texts under K models.
    group_of_text : (N,) int array
        Group 0..D-1 of each text; no group is empty.

    Returns
    -------
    TextGroups
        D x K x K numbers; for text level another N x K.

    Raises
    ------
    InputError
        If the estimator is no sum over texts or needs what the scores do not hold, groups do not fit, or a
        value is not finite.

    Examples
    --------
    >>> from lmmap.segments import segments_of_totals
    >>> texts = segments_of_totals(np.array([[-1.0, -3.0], [-2.0, -2.0]]), np.array([8, 8]))
    >>> group_texts("text_level", texts, np.array([0, 1]))
    TextGroups: text_level, 2 models x 2 texts in 2 groups
    """
    known = estimators_of(segments)
    if estimator not in known:
        raise InputError(
            f"{estimator!r} cannot be added up for scores of {segments.unit}s{closest(estimator, known)}; "
            f"use one of {', '.join(known)}"
        )
    group = _checked_groups(group_of_text, len(segments.n_bytes))
    whole = estimator == "text_level"
    n_pieces = np.ones(len(group)) if whole else segments.n_of_text
    mean = segments.totals.sum(axis=1) / n_pieces.sum() * (CENTERED[estimator] > 0)
    totals = segments.totals - mean[:, None] * n_pieces
    totals -= totals.mean(axis=0)
    n_groups, n_models = int(group.max()) + 1, len(mean)
    squares, drawn = np.zeros((n_groups, n_models, n_models)), np.zeros((n_groups, n_models))
    for block, text in [(segments.totals, np.arange(len(group)))] if whole else segments.blocks():
        for g, log_probs in _by_group(block, group[text]):
            added = pair_sums(estimator, log_probs, mean)
            squares[g] += added[0]
            drawn[g] += added[1]
    n_drawn = n_pieces if whole else _n_drawn(segments)
    counts = [np.bincount(group, weights=n) for n in (np.ones(len(group)), n_pieces, n_drawn)]
    sums = np.stack([of_group.sum(axis=1) for _, of_group in _by_group(totals, group)])
    share, columns = (1.0, np.ascontiguousarray(totals.T)) if whole else (segments.share, None)
    return TextGroups(estimator, group, squares, sums, drawn, np.stack(counts), share, columns)


def _by_group(values: Array, group: Array) -> Iterator[tuple[int, Array]]:
    """Cut columns by their group."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield int(group[order[start]]), values[:, order[start:stop]]


def _n_drawn(segments: Segments) -> Array:
    """Drawn pieces of each text."""
    if segments.chosen is None:
        return segments.n_of_text
    return np.bincount(segments.text_of_segment, weights=segments.chosen, minlength=len(segments.n_bytes))


def _checked_groups(group_of_text: Array, n_texts: int) -> Array:
    group = np.asarray(group_of_text)
    if group.shape != (n_texts,) or group.dtype.kind not in "iu":
        raise InputError(
            f"groups have shape {group.shape} and type {group.dtype}; give a whole number for each of "
            f"{n_texts} texts"
        )
    found = np.unique(group)
    if not np.array_equal(found, np.arange(len(found))):
        raise InputError(f"groups must be numbered from 0 without a gap, got {found[:10].tolist()}")
    return group
