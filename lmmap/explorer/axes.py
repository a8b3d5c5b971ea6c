"""Axes: two leading axes of a KL matrix, found again quickly when texts change, and layouts turned alike.

The models' Gram matrix G is minus the KL matrix with rows and columns centred. Its axes on slightly other
texts are found by subspace iteration from those at hand: a round costs one product of G with eight vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmmap.layouts import classical_mds, default_perplexity, tsne, umap, with_fixed_signs

Array = np.ndarray

FEW = 300  # models: all axes of so few take no longer
FOLLOWED = 8  # axes: those beyond the second make the first two converge
WHILE_MOVING = 4  # rounds
AT_MOST = 60  # rounds, then all axes are computed
SETTLED = 1e-9  # of the largest eigenvalue: what G leaves of an axis beside itself
SEED = 42  # of t-SNE and UMAP, as `lmmap.modelmap.fit_map`


class Axes(NamedTuple):
    """Positions of K models on two axes.

    Parameters
    ----------
    coordinates : (K, 2) float array
        Square roots of nats, as `lmmap.layouts.principal_axes`.
    explained : (2,) float array
        Share of each axis in the sum of the eigenvalues (of their absolute values, for 300 models or fewer).
    basis : (K, 8) float array, or None
        The axes followed, to start from.
    """

    coordinates: Array
    explained: Array
    basis: Array | None


def leading_axes(kl: Array, start: Array | None = None, *, settle: bool = True) -> Axes:
    """Find the two leading axes.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text, symmetric.
    start : (K, 8) float array, optional
        Axes of nearly the same matrix.
    settle : bool
        Go on until the axes are exact; else a few rounds, which follow a moving hand.

    Returns
    -------
    Axes
        Longest first; signs as `lmmap.layouts.with_fixed_signs`. Models that are all alike lie in one point.

    Examples
    --------
    >>> leading_axes(np.array([[0, 0.5], [0.5, 0]])).coordinates[:, 0].round(6)
    array([ 0.5, -0.5])
    """
    if not kl.any():
        return Axes(np.zeros((len(kl), 2)), np.zeros(2), None)
    if len(kl) <= FEW:
        return Axes(*classical_mds(kl), None)
    if start is None:
        start, settle = np.random.default_rng(0).standard_normal((len(kl), FOLLOWED)), True
    basis = np.linalg.qr(start - start.mean(axis=0))[0]
    for _ in range(AT_MOST if settle else WHILE_MOVING):
        product = _gram_times(kl, basis)
        values, turn = np.linalg.eigh(basis.T @ product)
        values, turn = values[::-1], turn[:, ::-1]
        axes, product = basis @ turn, product @ turn
        left = np.linalg.norm(product[:, :2] - values[:2] * axes[:, :2])
        if left <= SETTLED * values[0]:
            break
        basis = np.linalg.qr(product)[0]
    else:
        if settle:
            return Axes(*classical_mds(kl), axes)
    first = np.maximum(values[:2], 0)
    coordinates = with_fixed_signs(axes[:, :2] * np.sqrt(first))
    return Axes(coordinates, first / (kl.sum() / len(kl)), axes)


def laid_out(method: str, kl: Array, axes: Axes) -> tuple[Array, Array | None]:
    """Give the layout of a method.

    Parameters
    ----------
    method : {'pca', 'mds', 'tsne', 'umap'}
        The last two take seconds.
    kl : (K, K) float array
        Nats per text.
    axes : Axes
        Its axes, which the last two start from.

    Returns
    -------
    coordinates : (K, 2) float array
        Positions.
    explained : (2,) float array, or None
        Share of the variance on each axis, if these are axes.

    Raises
    ------
    InputError
        If umap-learn is asked for and not installed.
    """
    if method == "tsne":
        perplexity = default_perplexity(len(kl))
        return tsne(kl, axes.coordinates, perplexity=perplexity, seed=SEED), None
    if method == "umap":
        return umap(kl, axes.coordinates, seed=SEED), None
    return axes.coordinates, axes.explained


def turned_onto(coordinates: Array, target: Array) -> Array:
    """Turn or mirror a layout onto another, without scaling it (orthogonal Procrustes).

    Parameters
    ----------
    coordinates, target : (K, 2) float arrays
        Layouts of the same models.

    Returns
    -------
    (K, 2) float array
        The first layout, as near to the second as turning brings it.

    Examples
    --------
    >>> line = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    >>> turned_onto(line, line[:, ::-1]).round(6)
    array([[ 0.,  1.],
           [ 0., -1.],
           [ 2.,  0.]])
    """
    U, _, Vt = np.linalg.svd(_centered(coordinates).T @ _centered(target))
    turned: Array = coordinates @ (U @ Vt)
    return turned


class Orientation:
    """How layouts are turned: as all models lie on all texts.

    Layouts of some models are turned onto these models on all texts, and those onto all models: a layout does
    not depend on what was looked at before, and lies as what it is most alike to.

    Parameters
    ----------
    kl : (K, K) float array
        Of all models on all texts, nats per text.
    """

    def __init__(self, kl: Array) -> None:
        self._kl, self._axes = kl, leading_axes(kl)
        self._some: tuple[Array, Array] | None = None

    def start(self, shown: Array) -> Array | None:
        """Give axes of some models, (K,) bool, to start from."""
        return None if self._axes.basis is None else self._axes.basis[shown]

    def turned(self, coordinates: Array, shown: Array) -> Array:
        """Turn a layout of some models, (K,) bool."""
        known = self._some  # another thread may draw other models
        if known is None or not np.array_equal(known[0], shown):
            some = leading_axes(self._kl[np.ix_(shown, shown)], self.start(shown)).coordinates
            known = self._some = shown, turned_onto(some, self._axes.coordinates[shown])
        return turned_onto(coordinates, known[1])


def _gram_times(kl: Array, vectors: Array) -> Array:
    """Give G times columns that sum to zero."""
    product: Array = kl @ vectors
    product -= product.mean(axis=0)
    return -product


def _centered(layout: Array) -> Array:
    centered: Array = layout - layout.mean(axis=0)
    return centered
