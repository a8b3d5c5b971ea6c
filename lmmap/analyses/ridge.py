"""Ridge regression in its dual form, for few models and many texts, with the penalty chosen in training.

Nothing but inner products of models is needed: one eigendecomposition of the training models' Gram matrix
serves all targets, all penalties and every model left out.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def centered(gram: Array, train: Array, test: Array) -> tuple[Array, Array]:
    """Take the training models' column means out of inner products.

    Parameters
    ----------
    gram : (K, K) float array
        Inner products about any point.
    train, test : (n,) and (m,) int array
        Positions of models.

    Returns
    -------
    among : (n, n) float array
        Inner products of the training models about their mean.
    across : (m, n) float array
        Those of the test models with them, about the same mean.

    Examples
    --------
    >>> x = np.array([0.0, 2.0, 4.0])
    >>> centered(np.outer(x, x), np.array([0, 1]), np.array([2]))
    (array([[ 1., -1.],
           [-1.,  1.]]), array([[-3.,  3.]]))
    """
    own, cross = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
    mean = own.mean(axis=0)
    among = own - mean - mean[:, None] + mean.mean()
    across = cross - mean - cross.mean(axis=1, keepdims=True) + mean.mean()
    return among, across


def fit(gram: Array, Y: Array, alphas: Array, inner_folds: int | None = None) -> tuple[Array, Array]:
    """Choose a penalty for each target, and fit.

    Parameters
    ----------
    gram : (n, n) float array
        Centred inner products.
    Y : (n, T) float array
        Centred targets.
    alphas : (A,) float array
        Penalties; of equally good ones, the first is taken.
    inner_folds : int, optional
        Choose by so many parts of consecutive models, and the mean of their R squared; by default by leaving
        models out one at a time, and the mean squared error.

    Returns
    -------
    dual : (n, T) float array
        A model with the products k with the training models is predicted as ``k @ dual``, about the mean.
    alpha : (T,) float array
        The penalty of each target.

    Examples
    --------
    >>> fit(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([[-1.0], [1.0]]), np.array([2.0]))[0].round(6)
    array([[-0.25],
           [ 0.25]])
    """
    spectrum = _spectrum(gram)
    if inner_folds is None:
        score = -_squared_errors(spectrum, Y, alphas)
    else:
        score = _r_squared(gram, Y, alphas, inner_folds)
    best = alphas[score.argmax(axis=0)]
    return _dual(spectrum, Y, best), best


def _spectrum(gram: Array) -> tuple[Array, Array]:
    """Eigenvalues (r,) beyond rounding, and their vectors (n, r)."""
    s, U = np.linalg.eigh(gram)
    beyond_rounding = s > len(s) * np.finfo(np.float64).eps * s.max()
    return s[beyond_rounding], U[:, beyond_rounding]


def _dual(spectrum: tuple[Array, Array], Y: Array, alphas: Array) -> Array:
    s, U = spectrum
    dual: Array = U @ ((U.T @ Y) / (s[:, None] + alphas))
    return dual


def _squared_errors(spectrum: tuple[Array, Array], Y: Array, alphas: Array) -> Array:
    """Mean squared error (A, T) over models left out one at a time.

    With a penalty a and ``w = a / (s + a)``, the residuals are ``U w U'y`` and what lies outside of U, the
    share of itself that a model does not explain is ``U w U'`` and the same, less the intercept's ``1 / n``;
    leaving it out divides the one by the other. Nothing is taken from 1 where it is nearly 1.
    """
    s, U = spectrum
    n = len(Y)
    along, squares = U.T @ Y, U**2
    outside = (Y - U @ along, 1 - 1 / n - squares.sum(axis=1)) if len(s) < n - 1 else (0.0, np.zeros(n))
    errors = np.empty((len(alphas), Y.shape[1]))
    for a, alpha in enumerate(alphas):
        w = alpha / (s + alpha)
        residuals = U @ (w[:, None] * along) + outside[0]
        left = squares @ w + outside[1]
        errors[a] = ((residuals / left[:, None]) ** 2).mean(axis=0)
    return errors


def _r_squared(gram: Array, Y: Array, alphas: Array, n_folds: int) -> Array:
    """R squared (A, T), the mean over parts of consecutive models that are left out in turn."""
    found = np.zeros((len(alphas), Y.shape[1]))
    everyone = np.arange(len(Y))
    for test in np.array_split(everyone, n_folds):
        train = np.setdiff1d(everyone, test)
        among, across = centered(gram, train, test)
        spectrum, mean = _spectrum(among), Y[train].mean(axis=0)
        y = Y[train] - mean
        spread = ((Y[test] - Y[test].mean(axis=0)) ** 2).sum(axis=0)
        differ = np.ptp(Y[test], axis=0) > 0  # rounding is no spread
        for a, alpha in enumerate(alphas):
            predicted = mean + across @ _dual(spectrum, y, alpha)
            error = ((Y[test] - predicted) ** 2).sum(axis=0)
            found[a] += np.divide(error, -spread, out=np.zeros_like(error), where=differ) / n_folds
    return found + 1
