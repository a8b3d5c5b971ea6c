"""Folds: models dealt into parts that are left out in turn, alone or with their kin."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmap.errors import InputError, closest


def draw_folds(
    models: pd.DataFrame, known: np.ndarray, groups: str | None, n_folds: int, seed: int
) -> np.ndarray:
    """Deal models into parts of about one size.

    Parameters
    ----------
    models : DataFrame
        K rows.
    known : (K,) bool array
        Which models take part.
    groups : str, optional
        An attribute: models of one value stay together.
    n_folds : int
        How many parts.
    seed : int
        Random seed.

    Returns
    -------
    (K,) int array
        Number of each model's part, -1 for those that take no part.

    Raises
    ------
    InputError
        If there are fewer than two folds, fewer models or groups than folds, or a model without a group.

    Examples
    --------
    >>> models = pd.DataFrame({"family": list("aabbc")})
    >>> folds = draw_folds(models, np.array([True, True, True, True, False]), "family", 2, 0)
    >>> bool(folds[0] == folds[1] != folds[2] == folds[3]), int(folds[4])
    (True, -1)
    """
    rows = np.flatnonzero(known)
    names = None if groups is None else _groups(models.iloc[rows], groups)
    units = len(rows) if names is None else len(set(names))
    if not 2 <= n_folds <= units:
        what = "models with a score" if groups is None else f"groups of {groups!r} with a score"
        raise InputError(f"{units} {what} make at least 2 and at most {units} folds, not {n_folds}")
    from sklearn.model_selection import GroupKFold, KFold

    dealer = (KFold if names is None else GroupKFold)(n_folds, shuffle=True, random_state=seed)
    folds = np.full(len(models), -1)
    for fold, (_, left_out) in enumerate(dealer.split(rows, groups=names)):
        folds[rows[left_out]] = fold
    return folds


def _groups(models: pd.DataFrame, column: str) -> np.ndarray:
    if column not in models:
        raise InputError(
            f"the models have no attribute {column!r}{closest(column, map(str, models.columns))}"
        )
    names = models[column].astype(object)
    without = models.index[names.isna() | (names.astype(str) == "")]
    if len(without):
        raise InputError(
            f"{len(without)} models have no {column!r}, such as {without[0]!r}: name their group"
        )
    return names.astype(str).to_numpy(dtype=object)
