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
        If the texts have no sources, or one has none.

    Examples
    --------
    >>> texts = pd.DataFrame({"source": ["code", "prose"]}, index=["t1", "t2"])
    >>> scores = LogLikelihoods([[-1.0, -3.0], [-2.0, -2.0]], pd.DataFrame(index=["a", "b"]), texts)
    >>> source_profiles(scores).idxmax(axis=1).tolist()
    ['code', 'prose']
    """
    if "source" not in scores.texts:
        raise InputError("the texts have no column 'source': there is no primary one")
    unknown = scores.texts.index[scores.texts["source"].isna()]
    if len(unknown):
        raise InputError(
            f"{len(unknown)} texts have no source, such as {unknown[0]!r}: name it, or leave them out"
        )
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
        K names; the first of equal columns; None for a model that lacks a value, whose best is not known.

    Raises
    ------
    InputError
        If there is no column, one holds text or infinity, or ``standardize`` meets one that does not differ
        between models.

    Examples
    --------
    >>> primary_of(pd.DataFrame({"easy": [90, 80.0], "hard": [20, 30.0]}), standardize=True).tolist()
    ['easy', 'hard']
    """
    if not len(profiles.columns):
        raise InputError("there is no column to be the highest")
    for name in profiles:
        if not pd.api.types.is_numeric_dtype(profiles[name]) or np.isinf(profiles[name]).any():
            raise InputError(f"column {name!r} holds text or infinity: only numbers can be compared")
        if standardize and not profiles[name].std(ddof=0) > 0:
            raise InputError(f"column {name!r} does not differ between models: it cannot be standardised")
    if standardize:
        profiles = (profiles - profiles.mean()) / profiles.std(ddof=0)
    return profiles.dropna().idxmax(axis=1).astype(object).reindex(profiles.index).replace({np.nan: None})
