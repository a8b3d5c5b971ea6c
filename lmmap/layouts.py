"""Layouts: two coordinates for every model by PCA, classical MDS, t-SNE or UMAP; arrays in, arrays out."""

from __future__ import annotations

import warnings

import numpy as np

from lmmap.errors import InputError
from lmmap.geometry import double_center


def principal_axes(L: np.ndarray, *, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two principal components of ``q_i / sqrt(N)``, by an exact singular value decomposition.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    weights : (N,) float array, optional
        Weight of each text; uniform by default.

    Returns
    -------
    coordinates : (K, 2) float array
        Square roots of nats: half the squared distance of two rows is at most their estimated KL, and is
        equal to it if the models lie in one plane.
    explained : (2,) float array
        Share of the variance on each axis.

    Raises
    ------
    InputError
        As `lmmap.geometry.double_center`.

    Examples
    --------
    >>> coordinates, explained = principal_axes(np.array([[-1.0, -3.0], [-2.0, -2.0]]))
    >>> abs(coordinates[:, 0]).round(6), explained.round(6)
    (array([0.5, 0.5]), array([1., 0.]))
    """
    Q = double_center(L, weights=weights)
    w = np.ones(Q.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    U, s, _ = np.linalg.svd(Q * np.sqrt(w / w.sum()), full_matrices=False)
    return with_fixed_signs(U[:, :2] * s[:2]), s[:2] ** 2 / (s**2).sum()


def classical_mds(kl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Torgerson's scaling of the distances ``sqrt(2 KL)``.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text, symmetric. The text-level estimate gives the picture of `principal_axes`.

    Returns
    -------
    coordinates : (K, 2) float array
        Square roots of nats.
    explained : (2,) float array
        Share of each axis in the sum of the absolute eigenvalues.

    Notes
    -----
    Not scikit-learn's: that one takes the root of eigenvalues that are below zero, by rounding or because
    the divergence is no squared distance, and gives NaN.

    Examples
    --------
    >>> coordinates, explained = classical_mds(np.array([[0, 0.5], [0.5, 0]]))
    >>> coordinates[:, 0].round(6), explained.round(6)
    (array([ 0.5, -0.5]), array([1., 0.]))
    """
    gram = -kl + kl.mean(axis=0) + kl.mean(axis=1)[:, None] - kl.mean()
    values, vectors = np.linalg.eigh(gram)
    first = np.maximum(values[[-1, -2]], 0)
    return with_fixed_signs(vectors[:, [-1, -2]] * np.sqrt(first)), first / np.abs(values).sum()


def default_perplexity(n_models: int) -> float:
    """Choose t-SNE's perplexity: 30, but less for few models.

    Parameters
    ----------
    n_models : int
        K.

    Returns
    -------
    float
        ``min(30, (K - 1) / 3)``: t-SNE looks at three times as many neighbours, and there are K - 1.

    Examples
    --------
    >>> [default_perplexity(n) for n in (4, 46, 1018)]
    [1.0, 15.0, 30.0]
    """
    return min(30.0, (n_models - 1) / 3)


def tsne(kl: np.ndarray, start: np.ndarray, *, perplexity: float, seed: int) -> np.ndarray:
    """Lay models out by scikit-learn's t-SNE on the distances ``sqrt(2 KL)``.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text.
    start : (K, 2) float array
        Where the points start, such as `classical_mds`; scaled down.
    perplexity : float
        Between 1 and K.
    seed : int
        Random seed.

    Returns
    -------
    (K, 2) float array
        Without unit; near points are near models, far distances say little.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    tiny = start / start[:, 0].std() * 1e-4  # the scale of scikit-learn's own start
    estimator = TSNE(perplexity=perplexity, metric="precomputed", init=tiny, random_state=seed)
    with threadpool_limits(1):  # threads add up in any order, and t-SNE makes much of a last bit
        placed = np.asarray(estimator.fit_transform(np.sqrt(2 * kl)), dtype=np.float64)
    return with_fixed_signs(_widest_first(placed))


def umap(kl: np.ndarray, start: np.ndarray, *, seed: int) -> np.ndarray:
    """Lay models out by umap-learn, 15 neighbours at most, on the distances ``sqrt(2 KL)``.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text.
    start : (K, 2) float array
        Where the points start.
    seed : int
        Random seed.

    Returns
    -------
    (K, 2) float array
        Without unit.

    Raises
    ------
    InputError
        If umap-learn is not installed.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise InputError("method='umap' needs umap-learn: pip install 'lmmap[umap]'") from error
    n_neighbors = min(15, len(kl) - 1)
    estimator = UMAP(n_neighbors, metric="precomputed", init=start, random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="using precomputed metric")
        placed = np.asarray(estimator.fit_transform(np.sqrt(2 * kl)), dtype=np.float64)
    return with_fixed_signs(_widest_first(placed))


def with_fixed_signs(coordinates: np.ndarray) -> np.ndarray:
    """Mirror a layout so that the point farthest out along each axis lies on its positive side.

    Parameters
    ----------
    coordinates : (K, 2) float array
        Positions.

    Returns
    -------
    (K, 2) float array
        The same picture, mirrored or not; of several points equally far out, the first decides.

    Examples
    --------
    >>> with_fixed_signs(np.array([[-3.0, 1.0], [1.0, 2.0]]))
    array([[ 3.,  1.],
           [-1.,  2.]])
    """
    size = np.abs(coordinates)
    farthest = (size >= (1 - 1e-9) * size.max(axis=0)).argmax(axis=0)
    return coordinates * np.where(coordinates[farthest, [0, 1]] < 0, -1.0, 1.0)


def _widest_first(coordinates: np.ndarray) -> np.ndarray:
    """Turn a layout without axes of its own so that it is as wide as it can be: pictures are."""
    centered = coordinates - coordinates.mean(axis=0)
    _, _, turn = np.linalg.svd(centered, full_matrices=False)
    turned: np.ndarray = centered @ turn.T
    return turned
