"""Resampling of texts: bootstrap weights, how sure neighbours are, how far the points of a map may move."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmmap.error_bars.blocks import Blocks, Names, centered, make_blocks
from lmmap.errors import InputError
from lmmap.resolution import noise_kl, one_for_each

TIE = 1e-9  # of a distance: models this equal are equally near
ROUNDS = 4  # of orthogonal iteration, from the axes of the whole
AXES = 12  # followed at a time: those beyond the second make the first two converge
STREAM = 1979  # of random numbers: data simulated from the same seed must not choose their own resamples
BATCH = 4_000_000  # numbers in the largest array of a batch of resamples


def bootstrap_weights(
    n_texts: int,
    n_resamples: int,
    *,
    weights: np.ndarray | None = None,
    blocks: Names | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Draw texts, or whole blocks of them, with replacement, and give each draw as weights.

    Parameters
    ----------
    n_texts : int
        N.
    n_resamples : int
        R.
    weights : (N,) float array, optional
        Weight of each text, by which its draws are multiplied.
    blocks : (N,) array of int or str, optional
        Which document each text is from: its texts are drawn together.
    seed : int
        Random seed.

    Returns
    -------
    (R, N) float array
        Each row is a `weights` of every function here; rows sum to one.

    Raises
    ------
    InputError
        As `lmmap.error_bars.uncertainty.kl_intervals`, or if ``n_resamples`` is below 2.

    Examples
    --------
    >>> drawn = bootstrap_weights(4, 100, blocks=["a", "a", "b", "c"])
    >>> drawn.shape, bool((drawn[:, 0] == drawn[:, 1]).all())
    ((100, 4), True)
    """
    made = make_blocks(n_texts, weights=weights, blocks=blocks)
    drawn = np.zeros((n_resamples, n_texts))
    drawn[:, made.order] = np.concatenate(list(_draws(made, n_resamples, n_resamples, seed)))
    return drawn


def neighbor_probabilities(
    L: np.ndarray,
    i: int,
    k: int,
    *,
    weights: np.ndarray | None = None,
    blocks: Names | None = None,
    error_var: np.ndarray | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Tell how often each model is among the k nearest of model i when texts are drawn again.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    i : int
        Position of the model whose neighbours are asked for.
    k : int
        How many neighbours, at most K - 1.
    weights : (N,) float array, optional
        Weight of each text.
    blocks : (N,) array of int or str, optional
        Which document each text is from.
    error_var : (K,) float array, optional
        Noise of each row, nats^2, taken as known and taken off.
    n_resamples : int
        How many bootstrap resamples; a probability is good to ``sqrt(p (1 - p) / n_resamples)``.
    seed : int
        Random seed.

    Returns
    -------
    (K,) float array
        Sums to k; 0 for the model itself. Models at the same distance share a place equally.

    Raises
    ------
    InputError
        As `kl_intervals`, or if ``i``, ``k`` or ``n_resamples`` is out of bounds.

    Examples
    --------
    >>> L = np.array([[0.0, 0], [1, -1], [-1, 1], [9, -9]]).repeat(20, axis=1)
    >>> neighbor_probabilities(L, 0, 1).round(6).tolist()
    [0.0, 0.5, 0.5, 0.0]
    """
    Q, made = centered(L, weights=weights, blocks=blocks)
    if not 0 <= i < len(Q):
        raise InputError(f"no model {i}: positions go from 0 to {len(Q) - 1}")
    if not 1 <= k < len(Q):
        raise InputError(f"{len(Q)} models have at most {len(Q) - 1} neighbours each, {k} were asked for")
    noise = np.zeros(len(Q)) if error_var is None else 2 * noise_kl(one_for_each(error_var, len(Q)))[i]
    rows = np.asarray(L, dtype=np.float64)
    D = made.differences(rows, rows[i]).T
    squares = D**2
    inside = np.zeros(len(Q))
    for w in _draws(made, n_resamples, max(1, BATCH // len(D)), seed):
        distances = w @ squares - (w @ D) ** 2 - noise
        distances[:, i] = np.inf
        last = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
        tie = np.abs(distances - last) <= TIE * np.abs(last)
        surely = (distances < last) & ~tie
        left = k - surely.sum(axis=1, keepdims=True)
        inside += (surely + tie * left / tie.sum(axis=1, keepdims=True)).sum(axis=0)
    return inside / n_resamples


def position_covariances(
    L: np.ndarray,
    coordinates: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    blocks: Names | None = None,
    n_resamples: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Tell how far each point of a PCA map moves when texts are drawn again.

    The map of every resample is turned or mirrored onto the given one (orthogonal Procrustes) before points
    are compared; it is not scaled.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    coordinates : (K, 2) float array
        Positions from `lmmap.layouts.principal_axes`, or any rotation of them.
    weights : (N,) float array, optional
        Weight of each text, as for the map.
    blocks : (N,) array of int or str, optional
        Which document each text is from.
    n_resamples : int
        How many bootstrap resamples.
    seed : int
        Random seed.

    Returns
    -------
    (K, 2, 2) float array
        Covariance of each point's position, nats; see `ellipses`.

    Raises
    ------
    InputError
        As `kl_intervals`, if ``coordinates`` are no PCA map of these scores under these weights,
        or ``n_resamples`` is below 2.

    Notes
    -----
    Axes of a resample are found by orthogonal iteration from those of the whole, in products with Q alone.
    The 95 % ellipses hold 92-97 % of the true positions at 1,000 independent texts, 82-90 % with 100
    documents, and 80-83 % where the second axis explains no more than the third: then the plane itself is
    arbitrary (``benchmarks/coverage.md``).

    Examples
    --------
    >>> from lmmap.layouts import principal_axes
    >>> L = np.random.default_rng(0).normal(size=(5, 400))
    >>> position_covariances(L, principal_axes(L)[0]).shape
    (5, 2, 2)
    """
    Q, made = centered(L, weights=weights, blocks=blocks)
    scaled = Q * np.sqrt(made.weights)
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    axes = vectors[:, ::-1][:, :AXES]
    given = np.asarray(coordinates, dtype=np.float64)
    _check_positions(given, axes[:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0)))
    batch = max(1, BATCH // (Q.shape[1] * axes.shape[1]))
    moved = np.concatenate(
        [_onto(given, _leading(Q, w, axes)) for w in _draws(made, n_resamples, batch, seed)]
    )
    moved -= moved.mean(axis=0)
    covariances: np.ndarray = np.einsum("rka,rkb->kab", moved, moved) / (n_resamples - 1)
    return covariances


def ellipses(covariances: np.ndarray, *, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Turn covariances of positions into confidence ellipses.

    Parameters
    ----------
    covariances : (K, 2, 2) float array
        From `position_covariances`.
    level : float
        Probability inside.

    Returns
    -------
    semi_axes : (K, 2) float array
        Longer one first, in the unit of the positions.
    angle : (K,) float array
        Direction of the longer one, in radians from the first coordinate, in (-pi/2, pi/2].

    Raises
    ------
    InputError
        If ``level`` is not between 0 and 1.

    Examples
    --------
    >>> semi_axes, angle = ellipses(np.array([[[1.0, 0.0], [0.0, 4.0]]]), level=1 - np.exp(-0.5))
    >>> semi_axes.round(6).tolist(), angle.round(4).tolist()
    ([[2.0, 1.0]], [1.5708])
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}")
    variances, directions = np.linalg.eigh(covariances)
    semi_axes = np.sqrt(-2 * np.log1p(-level) * np.maximum(variances[:, ::-1], 0))
    angle = np.arctan2(directions[:, 1, 1], directions[:, 0, 1])
    return semi_axes, np.pi / 2 - (np.pi / 2 - angle) % np.pi


def _draws(blocks: Blocks, n_resamples: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Draw blocks with replacement; weights of the texts in the blocks' order, a batch of draws at a time."""
    if n_resamples < 2:
        raise InputError(f"n_resamples must be at least 2, got {n_resamples}")
    rng = np.random.default_rng([seed, STREAM])
    n_blocks = len(blocks.starts)
    for first in range(0, n_resamples, batch):
        size = min(batch, n_resamples - first)
        counts = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size)
        w = np.repeat(counts, blocks.sizes, axis=1) * blocks.weights
        yield w / w.sum(axis=1, keepdims=True)


def _leading(Q: np.ndarray, w: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Positions of the models on the two leading axes of R reweighted maps, (R, K, 2)."""
    n_draws, (n_models, n_axes) = len(w), axes.shape
    means = w @ Q.T
    V = np.broadcast_to(axes, (n_draws, n_models, n_axes))

    def gram_times(V: np.ndarray) -> np.ndarray:
        side_by_side = V.transpose(1, 0, 2).reshape(n_models, -1)
        on_texts = (Q.T @ side_by_side).reshape(-1, n_draws, n_axes) * w.T[:, :, None]
        product = (Q @ on_texts.reshape(len(on_texts), -1)).reshape(n_models, n_draws, n_axes)
        centered_product: np.ndarray = product.transpose(1, 0, 2) - means[:, :, None] * (means[:, None] @ V)
        return centered_product

    for _ in range(ROUNDS):
        V = np.linalg.qr(gram_times(V))[0]
    values, turn = np.linalg.eigh(V.transpose(0, 2, 1) @ gram_times(V))
    lengths = np.sqrt(np.maximum(values[:, None, :-3:-1], 0))
    positions: np.ndarray = (V @ turn)[:, :, :-3:-1] * lengths
    return positions


def _onto(target: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Turn or mirror (R, K, 2) positions onto (K, 2) ones, by least squares."""
    U, _, Vt = np.linalg.svd(positions.transpose(0, 2, 1) @ target)
    turned: np.ndarray = positions @ (U @ Vt)
    return turned


def _check_positions(given: np.ndarray, expected: np.ndarray) -> None:
    if given.shape != expected.shape:
        raise InputError(f"coordinates have shape {given.shape}, expected {expected.shape}")
    off = np.abs(_onto(given, expected[None])[0] - given).max()
    if not off <= 1e-6 * np.abs(expected).max():
        raise InputError(
            f"coordinates are up to {off:.2g} away from the PCA map of these scores under these weights: "
            "error bars of positions are those of fit_map(method='pca')"
        )
