"""Separability: whether models of one family lie nearer to each other than to others, by permutation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lmmap.analyses.structure import checked_kl
from lmmap.errors import InputError

Array = np.ndarray
TIE = 1e-12  # of the sum of all: permutations this equal to what was seen count as equal
BATCH = 4_000_000  # numbers in the indicators of a batch of permutations


class Separability(NamedTuple):
    """Whether models of one family lie nearer to each other than to others.

    Parameters
    ----------
    pseudo_f : float
        PERMANOVA's F of the squared distances ``2 KL``: between families over within.
    r_squared : float
        Share of the squared distances that families account for.
    p_value : float
        Of ``pseudo_f``, one-sided, by permutation.
    n_permutations : int
        How many.
    families : DataFrame
        Index ``family``, largest first: ``n_models``; ``kl_within`` and ``kl_between``, the mean KL among its
        models and to all others, nats per text; ``p_value``, how often as many models drawn at random lie as
        near each other; ``p_holm``, the same corrected for the number of families (Holm 1979). NaN for a
        family of one.
    """

    pseudo_f: float
    r_squared: float
    p_value: float
    n_permutations: int
    families: pd.DataFrame


def separability(
    kl: Array, families: Sequence[str] | Array, *, n_permutations: int = 999, seed: int = 0
) -> Separability:
    """Test whether families stand apart, by permutations of their names.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text, symmetric.
    families : (K,) sequence of str
        Which family each model is of.
    n_permutations : int
        How many; the least p-value is ``1 / (n_permutations + 1)``.
    seed : int
        Random seed.

    Returns
    -------
    Separability
        Statistics, p-values, and a table of families.

    Raises
    ------
    InputError
        If ``kl`` is no symmetric divergence, families are not one for each model, one is not known, they are
        fewer than 2 or as many as models, or ``n_permutations`` is below 1.

    Notes
    -----
    PERMANOVA (Anderson 2001, Austral Ecology 26): with ``d^2 = 2 KL`` and n_g models in family g,
    ``SS = sum_{i<j} d_ij^2 / K``, within ``SSW = sum_g sum_{i<j in g} d_ij^2 / n_g``, and
    ``F = ((SS - SSW) / (G - 1)) / (SSW / (K - G))`` (infinite if families are points). p-values are
    ``(1 + b) / (1 + B)``, b of B permutations being at least as extreme (Phipson & Smyth 2010): uniform on
    their steps if names mean nothing. A small p also comes of families that are not apart but of unequal
    spread, if their sizes differ (Anderson & Walsh 2013): look at ``kl_within``.

    Examples
    --------
    >>> kl = np.array([[0, 0.5, 8.0, 8.0], [0.5, 0, 8.0, 8.0], [8.0, 8.0, 0, 0.5], [8.0, 8.0, 0.5, 0]])
    >>> found = separability(kl, ["a", "a", "b", "b"])
    >>> round(found.pseudo_f, 6), round(found.r_squared, 6), found.families["kl_within"].tolist()
    (31.0, 0.939394, [0.5, 0.5])
    """
    distances = 2 * checked_kl(kl)
    n_models = len(distances)
    given = pd.Series(list(families), dtype=object)
    if len(given) != n_models:
        raise InputError(f"{len(given)} families are given for {n_models} models")
    unknown = int((given.isna() | (given.astype(str) == "")).sum())
    if unknown:
        raise InputError(f"the family of {unknown} models is not known: leave these models out")
    names = given.astype(str)
    sizes = names.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    if not 2 <= len(sizes) < n_models:
        raise InputError(
            f"{n_models} models in {len(sizes)} families: give at least 2, and fewer than models"
        )
    if n_permutations < 1:
        raise InputError(f"n_permutations must be at least 1, got {n_permutations}")
    label, n = sizes.index.get_indexer(pd.Index(names)), sizes.to_numpy()
    if not distances.any():
        raise InputError("all models are alike on these texts (every KL is 0): nothing can stand apart")
    seen = _within(distances, label[None], len(n))[0]
    drawn = _permuted(distances, label, len(n), n_permutations, seed)
    total = float(distances.sum()) / 2 / n_models
    inside, inside_drawn = float((seen / n).sum()), (drawn / n).sum(axis=1)
    freedom = (n_models - len(n)) / (len(n) - 1)
    pseudo_f = (total - inside) / inside * freedom if inside > 0 else float("inf")
    p_value = _share(inside_drawn <= inside + TIE * total)
    table = _families(distances, label, sizes, seen, (drawn <= seen + TIE * total))
    return Separability(pseudo_f, 1 - inside / total, float(p_value), n_permutations, table)


def _within(distances: Array, labels: Array, n_families: int) -> Array:
    """Sum the distances among each family's models, each pair once: (R, G) for R ways (R, K) of naming."""
    n_models = labels.shape[1]
    indicators = (labels[:, :, None] == np.arange(n_families)).transpose(1, 0, 2).astype(np.float64)
    sums = (distances @ indicators.reshape(n_models, -1)).reshape(indicators.shape)
    within: Array = (sums * indicators).sum(axis=0) / 2
    return within


def _permuted(distances: Array, label: Array, n_families: int, n: int, seed: int) -> Array:
    """Sum the same for n permutations of the families' names."""
    rng = np.random.default_rng(seed)
    batch = max(1, BATCH // (len(label) * n_families))
    parts = []
    for begin in range(0, n, batch):
        labels = np.array([rng.permutation(label) for _ in range(min(batch, n - begin))])
        parts.append(_within(distances, labels, n_families))
    return np.concatenate(parts)


def _share(extreme: Array) -> Array:
    """Turn which permutations were at least as extreme into p-values; what was seen counts as one."""
    shares: Array = (1 + extreme.sum(axis=0)) / (1 + len(extreme))
    return shares


def _families(
    distances: Array, label: Array, sizes: pd.Series, within: Array, extreme: Array
) -> pd.DataFrame:
    n = sizes.to_numpy()
    pairs, others = n * (n - 1) / 2, n * (len(label) - n)
    of_models = np.bincount(label, weights=distances.sum(axis=1))
    p = np.where(pairs > 0, _share(extreme), np.nan)
    return pd.DataFrame(
        {
            "n_models": n,
            "kl_within": np.divide(within, 2 * pairs, out=np.full(len(n), np.nan), where=pairs > 0),
            "kl_between": (of_models - 2 * within) / others / 2,
            "p_value": p,
            "p_holm": _holm(p),
        },
        index=sizes.index.rename("family"),
    )


def _holm(p: Array) -> Array:
    """Correct p-values for their number, NaN apart (Holm 1979, Scandinavian Journal of Statistics 6)."""
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    times = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * times), 1)
    return corrected
