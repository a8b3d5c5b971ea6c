"""Leaks: models whose texts are more likely than those of other models with their benchmark scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from lmmap.analyses.prediction import checked_targets
from lmmap.errors import InputError
from lmmap.geometry import height
from lmmap.loglik import LogLikelihoods

NORMAL_MAD = 0.6744897501960817  # of a standard normal variable
THRESHOLD = 3.5  # Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers


class LeakFlags(NamedTuple):
    """Models above a robust line, and the line.

    Parameters
    ----------
    table : DataFrame
        The models with a benchmark score, most suspicious first; index ``row_id``. ``model``;
        ``benchmark``; ``height``, the mean log-likelihood, nats per text; ``expected`` by the line;
        ``excess``, height minus expected; ``z``, the excess in robust standard deviations; ``flagged``.
    slope, intercept : float
        Of the line, nats per text for each point of benchmark score.
    spread : float
        Robust standard deviation of the heights about the line, nats per text.
    threshold : float
        A model with a larger ``z`` is flagged.
    expected_false_flags : float
        How many would be flagged if no model had a leak and heights were normal about the line.
    """

    table: pd.DataFrame
    slope: float
    intercept: float
    spread: float
    threshold: float
    expected_false_flags: float


def flag_leaks(scores: LogLikelihoods, benchmark: pd.Series, *, threshold: float = THRESHOLD) -> LeakFlags:
    """Find models that are too likely for their benchmark scores.

    A model that saw the texts, or texts like them, in training gives them more probability than others as
    able as it is (arXiv:2502.16173, on leakage).

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts, nats.
    benchmark : Series
        A benchmark score in [0, 100] by row id, such as the mean over tasks. Models without are left out.
    threshold : float
        In robust standard deviations.

    Returns
    -------
    LeakFlags
        A table of models and the line.

    Raises
    ------
    InputError
        If scores name an unknown model, are out of bounds or all alike, fewer than 5 models have one, half
        of the models lie on one line, or ``threshold`` is not positive.

    Notes
    -----
    The line is Theil's and Sen's (Sen 1968, JASA 63): its slope is the median of the slopes of all pairs,
    which up to 29 % of outliers do not carry away; the intercept makes the median excess 0. The robust
    standard deviation is the median absolute excess over 0.6745.

    A flag is a reason to look, no proof: a model trained for texts of this kind, and not for the tasks, is
    above the line too. The number of false flags expected is that of normal errors; with heavy tails there
    are more.

    Examples
    --------
    >>> models = pd.DataFrame(index=[f"m{i}" for i in range(7)])
    >>> heights = np.array([-9, -8.1, -6.9, -6, -4.9, -4.1, 3.0])
    >>> texts = pd.DataFrame(index=["t1", "t2"])
    >>> scores = LogLikelihoods(heights[:, None] + [-1.0, 1.0], models, texts)
    >>> found = flag_leaks(scores, pd.Series([10, 20, 30, 40, 50, 60, 30.0], models.index))
    >>> found.table.index[found.table["flagged"]].tolist(), round(found.slope, 3)
    (['m6'], 0.1)
    """
    from scipy.stats import norm, theilslopes

    if not (np.isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold must be positive, got {threshold}")
    y = checked_targets(benchmark.rename("benchmark").to_frame(), scores.models.index)[:, 0]
    have = np.isfinite(y)
    if have.sum() < 5:
        raise InputError(f"{have.sum()} models have a benchmark score; a line with outliers needs at least 5")
    x, h = y[have], height(scores.values)[have]
    slope = float(theilslopes(h, x).slope)
    intercept = float(np.median(h - slope * x))
    excess = h - intercept - slope * x
    spread = float(np.median(np.abs(excess))) / NORMAL_MAD
    if not spread > 1e-12 * np.abs(h).max():
        raise InputError("half of the models lie on one line exactly: there is no spread to compare with")
    table = pd.DataFrame(
        {
            "model": scores.models["model"].to_numpy()[have],
            "benchmark": x,
            "height": h,
            "expected": h - excess,
            "excess": excess,
            "z": excess / spread,
            "flagged": excess > threshold * spread,
        },
        index=scores.models.index[have],
    ).sort_values("z", ascending=False, kind="stable")
    return LeakFlags(table, slope, intercept, spread, threshold, float(len(x) * norm.sf(threshold)))
