"""Primary source and task: where a model does best compared with the other models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.geometry import double_center
from lmmap.loglik import LogLikelihoods


def source_profiles(scores: LogLikelihoods) -> pd.DataFrame:
    """Average every model's double-centred row over the texts of each source.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts, nats; texts with ``source``.

    Returns
    -------
    DataFrame
        K rows, index ``row_id``, a column for each source; nats per text. What a model is worth on a source
        beyond what it is worth on the whole, compared with the other models.

    Raises
    ------
    InputError
        If the texts have no sources.

    Examples
    --------
    >>> texts = pd.DataFrame({"source": ["code", "prose"]}, index=["t1", "t2"])
    >>> scores = LogLikelihoods([[-1.0, -3.0], [-2.0, -2.0]], pd.DataFrame(index=["a", "b"]), texts)
    >>> source_profiles(scores).idxmax(axis=1).tolist()
    ['code', 'prose']
    """
    if "source" not in scores.texts:
        raise InputError("the texts have no column 'source': there is no primary one")
    number, names = pd.factorize(scores.texts["source"].astype(str))
    share = np.eye(len(names))[number] / np.bincount(number)
    return pd.DataFrame(double_center(scores.values) @ share, scores.models.index, names)


def primary_of(profiles: pd.DataFrame, *, standardize: bool = False) -> pd.Series:
    """Name each model's highest column.

    Parameters
    ----------
    profiles : DataFrame
        K rows, such as `source_profiles` or benchmark scores.
    standardize : bool
        Compare models within each column first (mean 0, standard deviation 1): for benchmarks, of which some
        are easier than others.

    Returns
    -------
    Series
        K names; the first of equal columns; None for a model with nothing but NaN.

    Raises
    ------
    InputError
        If there is no column, or ``standardize`` meets one that does not differ between models.

    Examples
    --------
    >>> primary_of(pd.DataFrame({"easy": [90, 80.0], "hard": [20, 30.0]}), standardize=True).tolist()
    ['easy', 'hard']
    """
    if not len(profiles.columns):
        raise InputError("there is no column to be the highest")
    if standardize:
        alike = [name for name in profiles if not profiles[name].std(ddof=0) > 0]
        if alike:
            raise InputError(f"column {alike[0]!r} does not differ between models: it cannot be standardised")
        profiles = (profiles - profiles.mean()) / profiles.std(ddof=0)
    known = profiles.dropna(how="all")
    return (
        known.idxmax(axis=1).reindex(profiles.index).astype(object).where(profiles.notna().any(axis=1), None)
    )
