"""Comparing: estimates of KL beside the exact values, a row for each pair of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.estimates import estimate_kl_by
from lmmap.exact_kl.across import TextKL
from lmmap.exact_kl.result import ExactKL, Mean, symmetric
from lmmap.segments import segments_of_tokens

COMPARED = ("text_level", "token_level", "token_centered", "mixture", "midpoint")
Sampled = ExactKL | TextKL
M = TypeVar("M", ExactKL, TextKL, ExactKL | TextKL)


def compare_estimates(*measured: ExactKL) -> pd.DataFrame:
    """Hold the estimates from log-probabilities against exact half-Jeffreys, pair by pair.

    On given texts all of them come from the same texts. On samples the exact value is half-Jeffreys between
    the models' distributions over sequences: each direction from samples of its own model. An estimate is
    then the mean of what it gives on the samples of the one and of the other.

    Parameters
    ----------
    *measured : ExactKL
        One result on given texts; or K results on samples, each model the source of one.

    Returns
    -------
    DataFrame
        One row for each pair, in nats per text: ``model_i``, ``model_j``; ``exact``, ``exact_se``; the
        estimates ``text_level``, ``token_level``, ``token_centered``, ``mixture`` and ``midpoint`` (see
        `lmmap.estimates.ESTIMATORS`) and ``conditional`` (half the conditional variance, which needs the
        vocabulary); and each of them over the exact value,
        ``text_level_ratio`` and so on, missing where that is zero.

    Raises
    ------
    InputError
        If the results are not of the same models, or samples from a model are missing or of other length.

    Examples
    --------
    Log-ratios of 1, -1 and 1 nats in two texts, of two tokens and of one:

    >>> exact = ExactKL(
    ...     models=("a", "b"),
    ...     source=None,
    ...     kl_of_text=np.array([[[0.0, 0.1], [0.5, 0.0]], [[0.0, 0.2], [1.0, 0.0]]]),
    ...     variance_of_text=np.zeros((2, 2, 2)),
    ...     token_log_probs=np.array([[-1.0, -3.0, -1.0], [-2.0, -2.0, -2.0]]),
    ...     text_of_token=np.array([0, 0, 1]),
    ...     weights=np.ones(2),
    ... )
    >>> compare_estimates(exact)[["exact", "exact_se", "text_level", "token_level"]]
       exact  exact_se  text_level  token_level
    0   0.45      0.15       0.125         0.75
    """
    if not measured:
        raise InputError("compare_estimates needs a result on given texts, or one on samples for each model")
    names = np.array(measured[0].models)
    if measured[0].source is None and len(measured) == 1:
        exact, estimates = measured[0].half_jeffreys, _estimates(measured[0])
    else:
        exact, estimates = _between_sequences(measured)
    pairs = np.triu_indices(len(names), 1)
    table = pd.DataFrame({"model_i": names[pairs[0]], "model_j": names[pairs[1]]})
    table = table.assign(exact=exact.value[pairs], exact_se=exact.se[pairs])
    table = table.assign(**{kind: values[pairs] for kind, values in estimates.items()})
    divisor = table["exact"].where(table["exact"] > 0)
    return table.assign(**{f"{kind}_ratio": table[kind] / divisor for kind in estimates})


def half_jeffreys_of_sequences(*measured: Sampled) -> Mean:
    """Put both directions of every pair together, each from samples of its own model.

    Parameters
    ----------
    *measured : ExactKL or TextKL
        K results on samples of one length, each of the K models the source of one.

    Returns
    -------
    Mean
        Half the sum of both directions, (K, K), symmetric, in nats per sequence, and its standard error.

    Raises
    ------
    InputError
        If the results are not of the same models, or samples from a model are missing or of other length.
    """
    value, se = (
        np.stack(rows) for rows in zip(*(one.sequence_kl for one in _by_source(measured)), strict=True)
    )
    return Mean(symmetric(value), np.hypot(se, se.T) / 2)


def _between_sequences(measured: Sequence[ExactKL]) -> tuple[Mean, dict[str, np.ndarray]]:
    """Half-Jeffreys and estimates from samples of all models: row i from those of model i, then both ways."""
    exact = half_jeffreys_of_sequences(*measured)
    tables = [_estimates(one) for one in _by_source(measured)]
    own = {kind: np.stack([table[kind][i] for i, table in enumerate(tables)]) for kind in tables[0]}
    return exact, {kind: symmetric(rows) for kind, rows in own.items()}


def _by_source(measured: Sequence[M]) -> list[M]:
    """Order results by the model they were sampled from."""
    if len({one.models for one in measured}) != 1:
        raise InputError("results to be compared must be of the same models in the same order")
    of_source = {one.source: one for one in measured}
    missing = [name for i, name in enumerate(measured[0].models) if i not in of_source]
    if missing or len(of_source) < len(measured):
        raise InputError(
            "half-Jeffreys of sequences takes one result on samples for each model as source; "
            f"got {len(measured)} results, and samples from {', '.join(missing) or 'no model'} are missing"
        )
    lengths = sorted({one.length for one in measured})
    if len(lengths) > 1:
        raise InputError(
            f"samples of {' and '.join(lengths)} do not compare: KL of sequences grows with their length"
        )
    return [of_source[i] for i in range(len(measured))]


def _estimates(one: ExactKL) -> dict[str, np.ndarray]:
    tokens = segments_of_tokens(one.token_log_probs, one.text_of_token, one.n_tokens)
    compared = {name: estimate_kl_by(name, tokens, weights=one.weights) for name in COMPARED}
    return compared | {"conditional": one.conditional_variance.value / 2}
