"""Estimates: KL between models from scores already stored, by several estimators called in one way.

All but the ensemble level are half a squared Euclidean distance between rows of coordinates, so that Gram
matrices, maps, neighbours and weights of texts work on each alike: for the mixture level since D tanh(D / 2)
is the integral over all real u of (1 - cos uD) pi cosh(pi u) / sinh(pi u)^2. D is the difference of two
models' log-probabilities of a piece of text. Everything is float64, in nats per text; sums go block by block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmmap.errors import InputError, closest
from lmmap.geometry import checked_weights
from lmmap.segments import Segments

Array = np.ndarray

ESTIMATORS = {
    "text_level": "Half the variance of D over texts (arXiv:2502.16173, eq. 3): texts are near both models, "
    "and the mean of D is the same for all of them, whatever their length and kind.",
    "text_regressed": "As text level, after a straight line in the texts' bytes is taken off: the mean of D "
    "depends on a text's length and on nothing else.",
    "text_per_byte": "As text level, texts taken per byte and weighted by their length: mean and variance of "
    "D both grow in proportion to a text's bytes.",
    "token_level": "Half the sum of D^2 over tokens, for one tokenizer: the second order in D holds for each "
    "token by itself.",
    "token_centered": "As token level, after the mean D per token is taken off: what one model gains on "
    "every token alike is no divergence.",
    "segment_level": "Half the sum of D^2 over segments between common token boundaries, for any mix of "
    "tokenizers: the second order in D holds for each segment by itself.",
    "segment_centered": "As segment level, after the mean D per segment is taken off: what one model gains "
    "on every segment alike is no divergence.",
    "mixture": "The sum of D tanh(D / 2) over segments: half-Jeffreys exactly, near or far, if every segment "
    "comes, given the text before it, from either model with equal chance.",
    "midpoint": "The mean of segment centred and mixture level: texts are such that squares of far pairs are "
    "too large by about as much as the mixture level is too small, as for the models it was measured on.",
    "ensemble": "Half the sum of (r_i - r_j) D over segments, r a model's probability over the mean of all "
    "models', divided by the mean of (r_i + r_j) / 2: half-Jeffreys, by importance sampling, if every "
    "segment comes, given the text before it, from any of the models with equal chance.",
}
"""Name of each estimator -> what it is and what it assumes."""

RECOMMENDED = "midpoint"
RECOMMENDED_ACROSS = "mixture"
"""For models of one tokenizer on corpus texts, and of different ones: see `benchmarks/estimators.md`."""

SUMMED = ("mixture", "midpoint", "ensemble")  # from differences, pair by pair

NEAR = (
    1e-9  # of two squared lengths: below it a distance is summed from differences, not from the Gram matrix
)
COLUMNS_AT_ONCE = 4096


def estimate_kl_by(estimator: str, segments: Segments, *, weights: Array | None = None) -> Array:
    """Estimate KL divergence between every pair of models by a named estimator.

    Parameters
    ----------
    estimator : str
        One of `ESTIMATORS`.
    segments : Segments
        Scores of N texts under K models; of a sample of segments, sums are scaled up.
    weights : (N,) float array, optional
        Weight of each text, e.g. from resampling; uniform by default.

    Returns
    -------
    (K, K) float array
        Nats per text; symmetric, zero diagonal. Equal models are exactly 0 apart.

    Raises
    ------
    InputError
        If the estimator is unknown or needs what the scores do not hold (token records, one tokenizer); if
        fewer texts carry weight than it needs; or if a value is not finite.

    Notes
    -----
    Good to 1e-6 of itself for every pair, however near: pairs that the Gram matrix would not resolve are
    summed again from their differences. The mixture level, and with it the midpoint, costs K^2 / 2 hyperbolic
    tangents per segment: draw some segments with `Segments.sample`.

    Examples
    --------
    Log-ratios of 1, -1 and 1 nats in two texts, of two tokens and of one:

    >>> from lmmap.segments import segments_of_tokens
    >>> log_probs = np.array([[-1.0, -3.0, -1.0], [-2.0, -2.0, -2.0]])
    >>> tokens = segments_of_tokens(log_probs, np.array([0, 0, 1]), np.array([9, 5]))
    >>> for name in ("text_level", "token_level", "token_centered", "mixture", "midpoint", "ensemble"):
    ...     print(name, round(float(estimate_kl_by(name, tokens)[0, 1]), 4))
    text_level 0.125
    token_level 0.75
    token_centered 0.6667
    mixture 0.6932
    midpoint 0.6799
    ensemble 0.6932
    """
    _check(estimator, segments)
    if estimator == "mixture":
        return _mixture(segments, checked_weights(weights, len(segments.n_bytes)))
    if estimator == "ensemble":
        return _ensemble(segments, checked_weights(weights, len(segments.n_bytes)))
    if estimator == "midpoint":
        centered = estimate_kl_by("segment_centered", segments, weights=weights)
        middle: Array = (centered + estimate_kl_by("mixture", segments, weights=weights)) / 2
        return middle
    gram = gram_matrix(estimator, segments, weights=weights)
    squares: Array = np.diag(gram)
    both = squares[:, None] + squares
    kl = np.maximum(both / 2 - gram, 0)
    near = np.triu(kl <= NEAR * both, 1)
    if near.any():
        kl[near] = 0
        for z in coordinate_blocks(estimator, segments, weights=weights):
            for i in np.flatnonzero(near.any(axis=1)):
                kl[i, near[i]] += ((z[near[i]] - z[i]) ** 2).sum(axis=1) / 2
    upper: Array = np.triu(kl, 1)
    symmetric: Array = upper + upper.T
    return symmetric


def gram_matrix(estimator: str, segments: Segments, *, weights: Array | None = None) -> Array:
    """Inner products of the models' coordinates, from which maps and axes can be made.

    Parameters
    ----------
    estimator : str
        One of `ESTIMATORS`, but not ``ensemble``.
    segments : Segments
        Scores of N texts under K models.
    weights : (N,) float array, optional
        Weight of each text.

    Returns
    -------
    (K, K) float array
        G, nats per text; its rows sum to zero, and ``(G_ii + G_jj) / 2 - G_ij`` is the estimated KL.

    Raises
    ------
    InputError
        As `estimate_kl_by`.

    Examples
    --------
    >>> from lmmap.segments import segments_of_totals
    >>> texts = segments_of_totals(np.array([[-1.0, -3.0], [-2.0, -2.0]]), np.array([8, 8]))
    >>> gram_matrix("text_level", texts)
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    if estimator == "ensemble":
        raise InputError(
            "the ensemble level is no squared distance: it has no coordinates and no Gram matrix"
        )
    if estimator in SUMMED:
        kl = estimate_kl_by(estimator, segments, weights=weights)
        mean = kl.mean(axis=0)
        centered: Array = mean + mean[:, None] - kl - mean.mean()
        return centered
    n_models = len(segments.models)
    gram = np.zeros((n_models, n_models))
    for z in coordinate_blocks(estimator, segments, weights=weights):
        gram += z @ z.T
    return gram


def coordinate_blocks(estimator: str, segments: Segments, *, weights: Array | None = None) -> Iterator[Array]:
    """Give the models' coordinates, some columns at a time.

    Parameters
    ----------
    estimator : str
        One of `ESTIMATORS`, but not ``ensemble``.
    segments : Segments
        Scores of N texts under K models.
    weights : (N,) float array, optional
        Weight of each text.

    Yields
    ------
    (K, B) float64 array
        Coordinates in square roots of nats: half the squared distance of two rows, over all blocks, is the
        estimated KL in nats per text. The mean over models of every column is zero.

    Raises
    ------
    InputError
        As `estimate_kl_by`.

    Examples
    --------
    >>> from lmmap.segments import segments_of_totals
    >>> texts = segments_of_totals(np.array([[-1.0, -5.0], [-2.0, -2.0]]), np.array([8, 8]))
    >>> next(coordinate_blocks("text_level", texts)) * np.sqrt(2)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    _check(estimator, segments)
    if estimator in SUMMED:
        values, vectors = np.linalg.eigh(gram_matrix(estimator, segments, weights=weights))
        axes = vectors * np.sqrt(np.maximum(values, 0))
        yield axes - axes.mean(axis=0)
        return
    if estimator.startswith("text"):
        z = _text_coordinates(estimator, segments, weights)
        yield z - z.mean(axis=0)
        return
    w = checked_weights(weights, len(segments.n_bytes))
    mean = np.zeros(len(segments.models))
    if estimator.endswith("centered"):
        if segments.n_of_text[w > 0].sum() < 2:
            raise InputError(f"{estimator} needs two {segments.unit}s that carry weight, got one")
        mean = _means(segments.totals, w) / (w @ segments.n_of_text)
    for log_probs, text in _narrow_blocks(segments):
        z = log_probs - mean[:, None]
        z -= z.mean(axis=0)
        z *= np.sqrt(w[text] / segments.share)
        yield z


def _text_coordinates(estimator: str, segments: Segments, weights: Array | None) -> Array:
    """Coordinates from whole texts: deviations from what a text's length lets expect."""
    L, n_bytes = segments.totals, np.asarray(segments.n_bytes, dtype=np.float64)
    w = checked_weights(weights, len(n_bytes), enough=2)
    mean, mean_bytes = _means(L, w)[:, None], w @ n_bytes
    deviation: Array = L - mean
    if estimator == "text_per_byte":
        deviation = L - mean * (n_bytes / mean_bytes)
        w = w * mean_bytes / n_bytes
    x = n_bytes - mean_bytes
    if estimator == "text_regressed" and (spread := w @ x**2) > 0:
        if np.count_nonzero(w) < 3:
            raise InputError(
                "a line through two texts of different lengths leaves nothing; give three or more"
            )
        deviation = deviation - _means(deviation * x, w)[:, None] / spread * x
    coordinates: Array = deviation * np.sqrt(w)
    return coordinates


def _mixture(segments: Segments, w: Array) -> Array:
    n_models = len(segments.models)
    kl = np.zeros((n_models, n_models))
    for log_probs, text in _narrow_blocks(segments):
        for i in range(n_models - 1):
            D = log_probs[i + 1 :] - log_probs[i]
            kl[i, i + 1 :] += (D * np.tanh(D / 2)) @ (w[text] / segments.share)
    symmetric: Array = kl + kl.T
    return symmetric


def _ensemble(segments: Segments, w: Array) -> Array:
    n_models = len(segments.models)
    kl, mass = np.zeros((n_models, n_models)), np.zeros(n_models)
    for log_probs, text in _narrow_blocks(segments):
        r = np.exp(log_probs - log_probs.max(axis=0))
        r /= r.mean(axis=0)
        share = w[text] / segments.share
        mass += r @ share
        for i in range(n_models - 1):
            D = log_probs[i + 1 :] - log_probs[i]
            kl[i, i + 1 :] += ((r[i + 1 :] - r[i]) * D) @ share / 2
    if not mass.all():
        name = segments.models[int(np.argmin(mass))]
        raise InputError(f"{name} is too far from the others for the ensemble level; leave it out")
    symmetric: Array = (kl + kl.T) * mass.mean() / ((mass + mass[:, None]) / 2)
    return symmetric


def _check(estimator: str, segments: Segments) -> None:
    if estimator not in ESTIMATORS:
        names = ", ".join(ESTIMATORS)
        raise InputError(
            f"unknown estimator {estimator!r}{closest(estimator, ESTIMATORS)}; use one of {names}"
        )
    if estimator.startswith("text"):
        return
    if segments.unit == "text":
        raise InputError(f"{estimator} needs token records; from totals only text levels can be estimated")
    if estimator.startswith("token") and segments.unit != "token":
        raise InputError(
            f"{estimator} needs models of one tokenizer; use {estimator.replace('token', 'segment')}"
        )


def _means(L: Array, w: Array) -> Array:
    """Weighted row means, the same to the bit for equal rows."""
    means: Array = (L * w).sum(axis=1)
    return means


def _narrow_blocks(segments: Segments) -> Iterator[tuple[Array, Array]]:
    """Cut blocks into columns that fit a cache."""
    for log_probs, text in segments.blocks():
        for start in range(0, len(text), COLUMNS_AT_ONCE):
            some = slice(start, start + COLUMNS_AT_ONCE)
            yield log_probs[:, some], text[some]
