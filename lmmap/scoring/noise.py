"""Noise of a row: how far its scores lie from the same model in IEEE float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmap.errors import PrecisionError
from lmmap.scoring.batches import token_log_probs
from lmmap.scoring.encode import Encoded
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.plan import plan_batches

NOISE_TEXTS, LEAST_TEXTS, SHARE = 48, 8, 16  # a small set is not scored over again for its noise
EXACT = ("float32", "float64")
OTHER_SHAPE = 2048  # padded tokens in a batch


@dataclass(frozen=True)
class Noise:
    """What rounding does to a row.

    Parameters
    ----------
    error_var : float
        Variance over texts of the difference to IEEE float32, nats^2. A row adds its own to every squared
        distance.
    error_mean : float
        Mean of that difference, nats per text: what the height is off by.
    shape_var : float
        Variance of the difference to the row's own precision in batches of another shape, nats^2.
    n_texts : int
        Over how many texts.
    bitwise : bool
        Whether a text scored again gives the same bits.
    """

    error_var: float | None
    error_mean: float | None
    shape_var: float
    n_texts: int
    bitwise: bool


def noise_places(n_texts: int) -> np.ndarray:
    """Choose the texts that are scored once more: 48 spread over the set, at most a sixteenth of it.

    Parameters
    ----------
    n_texts : int
        N.

    Returns
    -------
    int array
        Positions; at least 8 of them, or all.

    Examples
    --------
    >>> noise_places(160).tolist()
    [0, 18, 35, 53, 71, 88, 106, 124, 141, 159]
    """
    wanted = min(n_texts, max(LEAST_TEXTS, min(NOISE_TEXTS, n_texts // SHARE)))
    return np.unique(np.linspace(0, n_texts - 1, wanted).round().astype(int))


def other_plan(made: Mapping[str, Any]) -> dict[str, Any]:
    """Plan batches of another shape than a row's, and smaller, so that they fit into memory.

    Parameters
    ----------
    made : mapping
        The row's provenance.

    Returns
    -------
    dict
        ``token_budget`` and ``equal_above`` of `log_likelihoods_of`.
    """
    return {
        "token_budget": min(OTHER_SHAPE, made["token_budget"] // 2),
        "equal_above": made["equal_above"],
    }


def log_likelihoods_of(
    model: LoadedModel,
    sequences: Sequence[Encoded],
    places: np.ndarray,
    *,
    equal_above: int | None,
    token_budget: int,
) -> np.ndarray:
    """Score chosen texts apart from the row.

    Parameters
    ----------
    model : LoadedModel
        The model, in any precision.
    sequences : sequence of Encoded
        All sequences of the row.
    places : int array
        Which texts, ascending.
    equal_above : int, optional
        As `plan_batches`.
    token_budget : int
        Most padded tokens in a batch.

    Returns
    -------
    (len(places),) float64 array
        Nats per text.

    Raises
    ------
    PrecisionError
        If a log-probability is not finite.
    """
    wanted = set(places.tolist())
    chosen = [e for e in sequences if e.text in wanted]
    batches = plan_batches([len(e.ids) - 1 for e in chosen], token_budget, equal_above=equal_above)
    totals = np.zeros(len(places))
    for e, values in zip(chosen, token_log_probs(model, chosen, batches), strict=True):
        totals[np.searchsorted(places, e.text)] += values.sum(dtype=np.float64)
    if not np.isfinite(totals).all():
        first = int(places[~np.isfinite(totals)][0])
        raise PrecisionError(f"{model.spec.name}: text {first + 1} has no finite score in {model.precision}")
    return totals


def measure_noise(
    model: LoadedModel,
    sequences: Sequence[Encoded],
    found: np.ndarray,
    places: np.ndarray,
    reference: np.ndarray | None,
    **plan: Any,  # noqa: ANN401 - token_budget and equal_above of log_likelihoods_of
) -> Noise:
    """Compare a finished row with itself in other batches, and with float32.

    Parameters
    ----------
    model : LoadedModel
        The model that gave the row.
    sequences : sequence of Encoded
        All sequences of the row.
    found : (n,) float64 array
        What the row says of the chosen texts, nats per text.
    places : (n,) int array
        Which texts, from `noise_places`.
    reference : (n,) float64 array, optional
        `log_likelihoods_of` the float32 model; None if it could not be had. A float32 or float64 row is its
        own reference.
    **plan
        ``token_budget`` and ``equal_above`` of the batches, from `other_plan`.

    Returns
    -------
    Noise
        Variances with the degrees of freedom of a sample; zero if there is one text only.
    """
    others = log_likelihoods_of(model, sequences, places, **plan)
    first, again = (log_likelihoods_of(model, sequences, places[:1], **plan) for _ in range(2))
    if model.precision in EXACT:
        reference = others
    return Noise(
        error_var=None if reference is None else variance(found - reference),
        error_mean=None if reference is None else float(np.mean(found - reference)),
        shape_var=variance(found - others),
        n_texts=len(places),
        bitwise=bool(first[0] == again[0]),
    )


def variance(differences: np.ndarray) -> float:
    """Variance of a sample, zero for a single value."""
    return float(np.var(differences, ddof=1)) if len(differences) > 1 else 0.0
