"""Geometry of a log-likelihood matrix: centring, distances, KL estimates; arrays in, arrays out.

Letters are those of Oyama et al. 2025 (arXiv:2502.16173): L is K models x N texts in nats, Q its
double-centred form. `weights` are the texts' weights, e.g. from resampling; uniform by default. Everything
is float64, and rows are centred before anything is squared: the expanded square on raw L would lose the
distances between near models in the size of L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lmmap.errors import InputError

Array = np.ndarray
NEAR = 1e-3  # of two rows' squared lengths: below it the expanded square would lose digits of the distance


def double_center(L: Array, *, weights: Array | None = None) -> Array:
    """Centre a matrix by rows, then by columns.

    The row mean takes away how well a model does on the whole, the column mean how likely a text is under
    all models (arXiv:2502.16173, section 3.2).

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    weights : (N,) float array, optional
        Weight of each text in the row means.

    Returns
    -------
    (K, N) float array
        Q, in nats; its (weighted) row sums and its column sums are zero.

    Raises
    ------
    InputError
        If the shape is not (K, N), a value is not finite, or fewer than two texts carry weight.

    Examples
    --------
    >>> double_center(np.array([[-1.0, -3.0], [-2.0, -2.0]]))
    array([[ 0.5, -0.5],
           [-0.5,  0.5]])
    """
    return _center_columns(_center_rows(*_checked(L, weights)))


def squared_distances(L: Array, *, weights: Array | None = None) -> Array:
    """Variance over texts of the log-likelihood difference of every pair of models.

    ``|q_i - q_j|^2 / N = Var(l_i - l_j)``: an identity, with the population variance.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods (or Q: the result is the same), in nats.
    weights : (N,) float array, optional
        Weight of each text.

    Returns
    -------
    (K, K) float array
        Nats squared; symmetric, zero diagonal.

    Raises
    ------
    InputError
        As `double_center`.

    Examples
    --------
    >>> squared_distances(np.array([[-1.0, -3.0], [-2.0, -2.0]]))
    array([[0., 1.],
           [1., 0.]])
    """
    checked, w = _checked(L, weights)
    return _squared_distances(_center_columns(_center_rows(checked, w)) * np.sqrt(w))


def estimate_kl(L: Array, *, weights: Array | None = None) -> Array:
    """Estimate KL divergence between every pair of models, from totals of texts.

    For texts drawn from a distribution close to all models, ``2 KL(p_i, p_j) ~ |q_i - q_j|^2 / N``
    (arXiv:2502.16173, eq. 3): half the variance over texts of the log-likelihood ratio.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    weights : (N,) float array, optional
        Weight of each text, e.g. from resampling; uniform by default.

    Returns
    -------
    (K, K) float array
        Nats per text; symmetric, zero diagonal.

    Raises
    ------
    InputError
        As `double_center`.

    Notes
    -----
    Second order in the difference: trust it for near models and texts of one length. On texts of many
    lengths and kinds the drift of the mean difference from text to text adds to it; see
    `split_variance`, and `estimate_kl_tokens` for models of one tokenizer.

    Examples
    --------
    >>> estimate_kl(np.array([[-1.0, -3.0], [-2.0, -2.0]]))
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    return squared_distances(L, weights=weights) / 2


def estimate_kl_tokens(
    token_log_probs: Array,
    text_of_token: Array,
    *,
    weights: Array | None = None,
    n_texts: int | None = None,
    centered: bool = True,
) -> Array:
    """Estimate KL divergence from token log-probabilities, for models of one tokenizer.

    With ``D_t`` the difference of two models' log-probabilities of token t, half the sum of
    ``(D_t - mean D)^2`` per text: the quadratic step is taken token by token, where differences are small,
    instead of on totals (the coordinates of arXiv:2502.16173, Appendix E).

    Parameters
    ----------
    token_log_probs : (K, T) float array
        Log-probability of every token of all texts, one after the other, in nats.
    text_of_token : (T,) int array
        Number 0..N-1 of the text that each token belongs to.
    weights : (N,) float array, optional
        Weight of each text.
    n_texts : int, optional
        N; by default the largest number in ``text_of_token`` plus one.
    centered : bool
        Take away the mean difference per token, over all texts; False gives the plain sum of squares.

    Returns
    -------
    (K, K) float array
        Nats per text; symmetric, zero diagonal.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, a number is not that of a text, or no token carries
        weight.

    Examples
    --------
    >>> estimate_kl_tokens(np.array([[-1.0, -3.0, -1.0], [-2.0, -2.0, -2.0]]), np.array([0, 0, 1]))
    array([[0.        , 0.66666667],
           [0.66666667, 0.        ]])
    """
    text = np.asarray(text_of_token)
    if text.ndim != 1 or not text.size or text.shape != np.shape(token_log_probs)[1:]:
        raise InputError(
            f"token_log_probs has shape {np.shape(token_log_probs)}, text_of_token {text.shape}; "
            "expected (K, T) and (T,)"
        )
    n = int(text.max()) + 1 if n_texts is None else n_texts
    if text.dtype.kind not in "iu" or text.min() < 0 or text.max() >= n:
        raise InputError(
            f"text_of_token must hold whole numbers from 0 to {n - 1}, got {text.dtype} from {text.min()} to "
            f"{text.max()}"
        )
    w = checked_weights(weights, n)[text]
    X, share = _checked(token_log_probs, w, enough=1)
    if centered:
        X = _center_rows(X, share)
    return _squared_distances(_center_columns(X) * np.sqrt(w)) / 2


def bits_per_byte(nats_per_text: Array, n_bytes: Array, *, weights: Array | None = None) -> Array:
    """Turn nats per text into bits per byte, the unit that does not depend on the texts' length.

    Parameters
    ----------
    nats_per_text : float array of any shape
        KL divergences or mean log-likelihoods.
    n_bytes : (N,) array
        Length of each text in bytes.
    weights : (N,) float array, optional
        Weight of each text.

    Returns
    -------
    float array of that shape
        Bits per byte of text.

    Raises
    ------
    InputError
        If a length is not positive and finite, or weights do not fit.

    Examples
    --------
    >>> float(bits_per_byte(np.log(2) * 8, np.array([4, 12])))
    1.0
    """
    lengths = np.asarray(n_bytes, dtype=np.float64)
    if lengths.ndim != 1:
        raise InputError(f"expected one length for each text, got shape {lengths.shape}")
    wrong = lengths[~(np.isfinite(lengths) & (lengths > 0))]
    if wrong.size:
        raise InputError(f"n_bytes must be positive, got {wrong[0]:g}")
    mean_bytes = checked_weights(weights, len(lengths)) @ lengths
    bits: Array = np.asarray(nats_per_text, dtype=np.float64) / (np.log(2) * mean_bytes)
    return bits


def height(L: Array, *, weights: Array | None = None) -> Array:
    """Mean log-likelihood of every model: the axis that centring takes away.

    ``|l_i - l_j|^2 / N = |q_i - q_j|^2 / N + (height_i - height_j)^2`` (arXiv:2502.16173, eq. 4): a
    horizontal part, the map, and a vertical one.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    weights : (N,) float array, optional
        Weight of each text.

    Returns
    -------
    (K,) float array
        Nats per text.

    Raises
    ------
    InputError
        As `double_center`.

    Examples
    --------
    >>> height(np.array([[-1.0, -3.0], [-2.0, -4.0]]))
    array([-2., -3.])
    """
    checked, w = _checked(L, weights)
    means: Array = checked @ w
    return means


def clip_below(
    values: Array, *, quantile: float | None = None, threshold: float | None = None
) -> tuple[Array, float]:
    """Raise the lowest values to a threshold.

    The published maps clip the bottom 2 % of all entries (arXiv:2502.16173, section 4).

    Parameters
    ----------
    values : (K, N) float array
        Log-likelihoods, in nats.
    quantile : float, optional
        Share of all entries that lies below the threshold, in (0, 1).
    threshold : float, optional
        The threshold itself, in nats.

    Returns
    -------
    clipped : (K, N) float array
        A new array.
    threshold : float
        What was used, so that models added later can use the same.

    Raises
    ------
    InputError
        Unless exactly one of ``quantile`` and ``threshold`` is given and lies within bounds, or if a value
        is not finite.

    Examples
    --------
    >>> clip_below(np.array([[-9.0, -1.0]]), threshold=-5)
    (array([[-5., -1.]]), -5.0)
    """
    if (quantile is None) == (threshold is None):
        raise InputError("give either quantile or threshold to clip_below")
    if quantile is not None and not 0 < quantile < 1:
        raise InputError(f"quantile must lie between 0 and 1, got {quantile}")
    matrix = _checked_matrix(values)
    limit = threshold if quantile is None else float(np.quantile(matrix, quantile))
    if limit is None or not np.isfinite(limit):
        raise InputError(f"the threshold must be finite, got {limit}")
    if limit > matrix.max():
        raise InputError(f"the threshold is {limit:g}, above every value (the largest is {matrix.max():g})")
    return np.maximum(matrix, limit), float(limit)


def nearest_neighbors(kl: Array, k: int) -> Array:
    """List every model's nearest models.

    Parameters
    ----------
    kl : (K, K) float array
        Divergences or distances between models.
    k : int
        How many neighbours, at most K - 1.

    Returns
    -------
    (K, k) int array
        Positions of the neighbours, nearest first; a model is not its own neighbour, ties go to the
        first listed.

    Raises
    ------
    InputError
        If ``kl`` is not (K, K) or holds NaN, or ``k`` is not between 1 and K - 1.

    Examples
    --------
    >>> nearest_neighbors(np.array([[0.0, 2.0, 1.0], [2.0, 0.0, 3.0], [1.0, 3.0, 0.0]]), 1).ravel()
    array([2, 0, 0])
    """
    others = np.array(kl, dtype=np.float64)
    if others.ndim != 2 or others.shape[0] != others.shape[1]:
        raise InputError(f"expected a divergence for every pair of K models, got shape {others.shape}")
    if np.isnan(others).any():
        i, j = np.argwhere(np.isnan(others))[0]
        raise InputError(f"the divergence of models {i} and {j} is nan")
    n_models = len(others)
    if not 1 <= k < n_models:
        raise InputError(f"{n_models} models have at most {n_models - 1} neighbours each, {k} were asked for")
    np.fill_diagonal(others, np.inf)
    nearest = np.argpartition(others, k - 1, axis=1)[:, :k]
    reach = np.take_along_axis(others, nearest, axis=1).max(axis=1, keepdims=True)
    tied = np.flatnonzero((others <= reach).sum(axis=1) > k)  # at the border, where the first listed counts
    nearest[tied] = np.argsort(others[tied], axis=1, kind="stable")[:, :k]
    nearest.sort(axis=1)
    order = np.argsort(np.take_along_axis(others, nearest, axis=1), axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1)


def split_variance(
    difference: Array, n_bytes: Array, source: Sequence[str] | Array, *, weights: Array | None = None
) -> Mapping[str, float]:
    """Split the variance of a pair's difference into length, source and rest.

    In this order: what a straight line in the length explains, what the mean of each source explains of
    the remainder, and what is left within sources.

    Parameters
    ----------
    difference : (N,) float array
        ``l_i - l_j`` for every text, in nats.
    n_bytes : (N,) array
        Length of each text.
    source : (N,) sequence of str
        Where each text comes from.
    weights : (N,) float array, optional
        Weight of each text.

    Returns
    -------
    dict
        ``length``, ``source``, ``rest`` in nats squared; their sum is Var(l_i - l_j).

    Raises
    ------
    InputError
        If lengths disagree, a value is not finite, or fewer than two texts carry weight.

    Examples
    --------
    >>> split_variance(np.array([1.0, 2.0, 3.0]), np.array([10, 20, 30]), ["a", "a", "a"])["length"]
    0.6666666666666666
    """
    shapes = np.shape(difference), np.shape(n_bytes), np.shape(source)
    if not shapes[0] == shapes[1] == shapes[2] == shapes[0][:1]:
        raise InputError("differences, lengths and sources have shapes {}, {} and {}".format(*shapes))
    pair, w = _checked(np.stack([difference, n_bytes]), weights)
    total, x = _center_rows(pair, w)
    _, group = np.unique(np.asarray(source, dtype=str), return_inverse=True)
    spread = w @ x**2
    by_length = x * ((w @ (x * total)) / spread if spread > 0 else 0.0)
    remainder = total - by_length
    group_weight = np.bincount(group, weights=w)
    means = np.divide(
        np.bincount(group, weights=w * remainder),
        group_weight,
        out=np.zeros_like(group_weight),
        where=group_weight > 0,
    )
    return {
        "length": float(w @ by_length**2),
        "source": float(w @ means[group] ** 2),
        "rest": float(w @ (remainder - means[group]) ** 2),
    }


def _checked(L: Array, weights: Array | None, *, enough: int = 2) -> tuple[Array, Array]:
    """Give a float64 matrix and weights that sum to one."""
    matrix = _checked_matrix(L)
    return matrix, checked_weights(weights, matrix.shape[1], enough=enough)


def _checked_matrix(L: Array) -> Array:
    matrix = np.asarray(L, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise InputError(f"expected a matrix of K models x N texts, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        i, x = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(f"entry ({i}, {x}) is {matrix[i, x]}; every value must be finite")
    return matrix


def checked_weights(weights: Array | None, n: int, *, enough: int = 1) -> Array:
    """Give weights of N texts that sum to one; refuse negative ones, and too few that are not zero."""
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise InputError(f"weights have shape {w.shape}, expected ({n},)")
    wrong = w[~(np.isfinite(w) & (w >= 0))]
    if wrong.size:
        raise InputError(f"weights must be finite and not negative, got {wrong[0]:g}")
    carrying = np.count_nonzero(w)
    if carrying < enough:
        raise InputError(f"{carrying} of {n} texts carry weight; at least {enough} must")
    total: Array = w / w.sum()
    return total


def _center_rows(L: Array, w: Array) -> Array:
    centered: Array = L - (L @ w)[:, None]
    return centered


def _center_columns(rows: Array) -> Array:
    centered: Array = rows - rows.mean(axis=0)
    return centered


def _squared_distances(X: Array) -> Array:
    """Squared distances between rows that lie about the origin.

    The expanded square is quick and keeps all digits of far pairs; near pairs are subtracted first.
    """
    gram = X @ X.T
    squares = np.diag(gram)
    both = squares[:, None] + squares[None, :]
    distances = both - 2 * gram
    near = distances <= NEAR * both
    for i in np.flatnonzero(near.any(axis=1)):
        distances[i, near[i]] = ((X[near[i]] - X[i]) ** 2).sum(axis=1)
    symmetric: Array = (distances + distances.T) / 2
    return symmetric
