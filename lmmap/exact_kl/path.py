"""The path from one distribution to another, on which KL is an integral of variances."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lmmap.errors import InputError
from lmmap.exact_kl.enumerated import Enumerated

NODES = 32  # of Gauss and Legendre's rule, in each panel
MOST_PANELS = 1024
AGREEMENT = 1e-11  # of one number of panels with half of it


def variance_along_path(log_p: ArrayLike, log_q: ArrayLike, t: ArrayLike) -> np.ndarray:
    """Variance of the log-ratio of two distributions under those between them.

    The path is ``p_t`` proportional to ``p^(1 - t) q^t``: p at 0, q at 1. Its log-normaliser has the variance
    of ``log p - log q`` under ``p_t`` as second derivative.

    Parameters
    ----------
    log_p, log_q : (S,) float arrays
        Log-probabilities of the same outcomes, in nats.
    t : (M,) float array
        Where on the path, from 0 to 1.

    Returns
    -------
    (M,) float array
        Nats squared. Half of it at any t is an estimate of KL to second order; half its mean over the path
        is half-Jeffreys exactly.

    Raises
    ------
    InputError
        If shapes differ, a value is no log-probability, an outcome is possible under one distribution only,
        or a place lies off the path.

    Examples
    --------
    Log-ratios of 0 and ln 3, up to a constant, with even odds and with odds of 1 to 3:

    >>> variance_along_path(np.log([0.5, 0.5]), np.log([0.25, 0.75]), [0, 1]) / np.log(3) ** 2
    array([0.25  , 0.1875])
    """
    places = np.atleast_1d(np.asarray(t, dtype=np.float64))
    if places.ndim != 1 or not ((places >= 0) & (places <= 1)).all():
        raise InputError(f"places on the path lie between 0 and 1, got {places}")
    start, way = _start_and_way(log_p, log_q)
    return np.array([_variance(start + place * way, way) for place in places])


def kl_along_path(log_p: ArrayLike, log_q: ArrayLike) -> float:
    """KL between two distributions as an integral of variances along the path between them.

    ``KL(p || q)`` is the integral over t in [0, 1] of ``(1 - t) Var_t(log p - log q)``; with ``t`` in place
    of ``1 - t`` it is ``KL(q || p)``. By Gauss and Legendre's rule, in panels that are halved until
    eleven digits stay. Summing the log-ratio is the quicker way; this one shows where the quadratic step of
    the estimates comes from, and what it leaves out: the variance does not stay what it is at the start.

    Parameters
    ----------
    log_p, log_q : (S,) float arrays
        Log-probabilities of the same outcomes, in nats.

    Returns
    -------
    float
        Nats.

    Raises
    ------
    InputError
        As `variance_along_path`, or if the digits do not settle.

    Examples
    --------
    >>> round(kl_along_path(np.log([0.5, 0.5]), np.log([0.25, 0.75])), 10)  # ln(4/3) / 2
    0.1438410362
    """
    start, way = _start_and_way(log_p, log_q)
    nodes, shares = np.polynomial.legendre.leggauss(NODES)
    former, panels = np.inf, 1
    while panels <= MOST_PANELS:
        t = (np.arange(panels)[:, None] + (nodes + 1) / 2).ravel() / panels
        share = np.tile(shares / 2, panels) / panels
        value = float(
            sum(s * (1 - at) * _variance(start + at * way, way) for at, s in zip(t, share, strict=True))
        )
        if abs(value - former) <= AGREEMENT * abs(value):
            return value
        former, panels = value, 2 * panels
    raise InputError(f"the integral along the path does not settle: {former:g} and {value:g} nats")


def _start_and_way(log_p: ArrayLike, log_q: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Give log p and log q - log p over the outcomes that can be."""
    if np.ndim(log_p) != 1 or np.shape(log_p) != np.shape(log_q):
        shapes = f"{np.shape(log_p)} and {np.shape(log_q)}"
        raise InputError(f"expected log-probabilities of the same outcomes, got shapes {shapes}")
    p, q = Enumerated(("p", "q"), np.stack([log_p, log_q])).log_probs
    there = p > -np.inf
    if not np.array_equal(there, q > -np.inf):
        raise InputError(
            "an outcome is possible under one distribution only: there is no path from p to q, and KL is "
            "infinite in one direction at least"
        )
    return p[there], q[there] - p[there]


def _variance(log_weights: np.ndarray, values: np.ndarray) -> float:
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return float(weights @ (values - weights @ values) ** 2)
