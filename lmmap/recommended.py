"""The recommended distance of a score set: the estimator that its records allow, for every pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lmmap.errors import InputError, closest
from lmmap.estimates import ESTIMATORS, RECOMMENDED, RECOMMENDED_ACROSS, SUMMED, estimate_kl_by
from lmmap.segments import Segments, segments_of_totals
from lmmap.store import Store
from lmmap.token_records import read_segments

N_SEGMENTS = 20_000  # drawn where a sum goes pair by pair: a pair is then good to about 1 %


def recommended_kl(
    store: Store,
    *,
    models: Sequence[str] | None = None,
    estimator: str | None = None,
    n_segments: int | None = N_SEGMENTS,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate KL between models of a score set by the recommended estimator, or a named one.

    Recommended are `lmmap.estimates.RECOMMENDED` for models of one tokenizer and ``RECOMMENDED_ACROSS`` for
    several: those that came closest to exact half-Jeffreys on pairs and texts on which they were not chosen
    (``benchmarks/estimators.md``).

    Parameters
    ----------
    store : Store
        A score set; all but the text level need its token records.
    models : sequence of str, optional
        Row ids or names; all finished rows by default.
    estimator : str, optional
        One of `lmmap.estimates.ESTIMATORS`.
    n_segments : int, optional
        How many segments are drawn for estimators that are summed pair by pair; None takes all.
    seed : int
        Of the draw.

    Returns
    -------
    (K, K) DataFrame
        Nats per text, by row id; ``attrs["estimator"]`` names the estimator, for `fit_map`.

    Raises
    ------
    InputError
        If the estimator is unknown or needs what the set does not hold, or a model is unknown.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise InputError(f"no estimator {estimator!r}{closest(estimator, list(ESTIMATORS))}")
    segments = _segments(store, models, estimator)
    chosen = estimator or (RECOMMENDED if segments.unit == "token" else RECOMMENDED_ACROSS)
    if chosen in SUMMED and n_segments is not None:
        segments = segments.sample(n_segments, seed=seed)
    kl = pd.DataFrame(estimate_kl_by(chosen, segments), index=segments.models, columns=segments.models)
    kl.attrs["estimator"] = chosen.replace("_", " ")
    return kl


def _segments(store: Store, models: Sequence[str] | None, estimator: str | None) -> Segments:
    """Read token records unless the estimator needs none."""
    if estimator is None or not estimator.startswith("text_"):
        return read_segments(store, models=models)
    scores = store.load().select(models=models)
    lengths = scores.texts["n_bytes"].to_numpy(dtype=np.float64)
    return segments_of_totals(scores.values, lengths, models=[str(row) for row in scores.models.index])
