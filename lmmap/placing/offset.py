"""Pipelines: how scores of one model differ between two ways of making them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmmap.errors import InputError
from lmmap.geometry import checked_weights


class Offset(NamedTuple):
    """How a pipeline differs from the one that made the map, from anchors scored both ways.

    Parameters
    ----------
    mean : float
        Mean of new minus old log-likelihood, nats per text.
    spread : float
        Standard deviation of that mean over anchors; NaN with one anchor.
    kl : float
        What the difference adds to a KL estimate, nats per text: half its variance over texts, on
        average.
    kl_left : float
        The same of an anchor once the other anchors' mean difference at every text is taken off; NaN with
        one.
    per_text : (n,) float array
        What is taken off: the anchors' mean at every text if that leaves less than it found, or else
        ``mean``.
    anchors : tuple of str
        Their names.
    """

    mean: float
    spread: float
    kl: float
    kl_left: float
    per_text: np.ndarray
    anchors: tuple[str, ...]


def pipeline_offset(
    known: np.ndarray, again: np.ndarray, anchors: Sequence[str], *, weights: np.ndarray | None = None
) -> Offset:
    """Estimate from anchors scored both ways how a pipeline differs from the one that made the map.

    Parameters
    ----------
    known, again : (A, n) float array
        Log-likelihoods of the anchors on the map and scored anew, nats, clipped alike.
    anchors : sequence of str
        A names.
    weights : (n,) float array, optional
        Weight of each text.

    Returns
    -------
    Offset
        What to take off a new model's row.

    Raises
    ------
    InputError
        If shapes differ or there is no anchor.

    Examples
    --------
    >>> found = pipeline_offset(np.array([[-2.0, -4.0]]), np.array([[-3.0, -5.0]]), ["a"])
    >>> found.mean, found.kl
    (-1.0, 0.0)
    """
    if np.shape(known) != np.shape(again) or np.ndim(known) != 2 or not len(anchors) == len(known) > 0:
        raise InputError(
            f"anchors have shapes {np.shape(known)} on the map and {np.shape(again)} anew for {len(anchors)} "
            "names; expected (A, n) twice"
        )
    difference = np.asarray(again, dtype=np.float64) - known
    w = checked_weights(weights, difference.shape[1], enough=2)
    means, n = difference @ w, len(difference)
    per_text = difference.mean(axis=0)
    added, left, spread = float(half_variance(difference, w).mean()), np.nan, np.nan
    if n > 1:
        others = (difference.sum(axis=0) - difference) / (n - 1)
        left, spread = float(half_variance(difference - others, w).mean()), float(means.std(ddof=1))
    if not left < added:
        per_text = np.full_like(per_text, means.mean())
    return Offset(float(means.mean()), spread, added, left, per_text, tuple(anchors))


def half_variance(difference: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Half the variance over texts of each row: the text-level KL of two models that differ by it."""
    half: np.ndarray = ((difference - (difference @ w)[:, None]) ** 2) @ w / 2
    return half
