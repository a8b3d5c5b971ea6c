"""Laboratory: pairs of Markov chains whose KL is known, and one knob at a time that makes estimates fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lmmap.chains import Setting, draw_segments, exact_values, make_chains
from lmmap.errors import InputError, closest
from lmmap.estimates import ESTIMATORS, estimate_kl_by
from lmmap.geometry import clip_below
from lmmap.segments import Segments, segments_of_totals

Array = np.ndarray
OFF = 0.2  # of the exact value: what counts as near
USUAL = ("text_level", "segment_centered", "mixture", "midpoint")


class Knob(NamedTuple):
    """What is turned, and how far by default."""

    meaning: str
    values: tuple[float, ...]


KNOBS = {
    "distance": Knob(
        "How far the models are from the texts' source and from each other: the standard deviation of what "
        "is added to the source's logits to make the first model; twice as much makes the second.",
        (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
    ),
    "far": Knob(
        "How far the texts' source is from both models: the standard deviation of what is added to its "
        "logits and not to theirs.",
        (0.0, 0.25, 0.5, 1.0, 2.0, 4.0),
    ),
    "kinds": Knob(
        "How unlike two kinds of texts are: every other text is from a second source, moved so far from the "
        "first in the direction in which the first model lies, as texts are that it was tuned on.",
        (0.0, 0.25, 0.5, 1.0, 2.0),
    ),
    "tail": Knob(
        "Heavy tails of the log-ratio: the nats by which the second model lowers the logit of a rare token.",
        (0.0, 1.0, 2.0, 4.0, 8.0, 16.0),
    ),
    "n_tokens": Knob("Tokens of a text, on average.", (2, 8, 32, 128, 512)),
    "length_spread": Knob(
        "Spread of the texts' lengths: the standard deviation of their logarithm, the mean being kept.",
        (0.0, 0.25, 0.5, 1.0, 1.5),
    ),
    "n_texts": Knob("Number of texts.", (10, 30, 100, 300, 1000)),
    "merged": Knob(
        "Tokenizers: one model reads tokens one by one, the other so many at once, the distributions of "
        "strings being the same; what both have is the longer piece.",
        (1, 2, 4, 8, 16, 32),
    ),
    "temperature": Knob(
        "Temperature: what the second model's logits are divided by.", (0.5, 0.7, 0.9, 1.0, 1.1, 1.4, 2.0)
    ),
    "clipped": Knob(
        "Clipping: the share of all texts' log-likelihoods that are raised to the lowest of the others; "
        "token records stay as they are.",
        (0.0, 0.01, 0.02, 0.05, 0.1, 0.2),
    ),
}
"""Name of each knob, a field of `lmmap.chains.Setting` -> what it turns, and the values of a `sweep`."""


def sweep(
    knob: str,
    *,
    values: Sequence[float] | None = None,
    setting: Setting | None = None,
    n_repeats: int = 24,
    seed: int = 0,
) -> pd.DataFrame:
    """Turn one knob and hold every estimator against the exact value.

    Parameters
    ----------
    knob : str
        One of `KNOBS`.
    values : sequence of float, optional
        Where it is turned to; those of `KNOBS` by default.
    setting : Setting, optional
        How the other knobs stand.
    n_repeats : int
        How many sets of texts are drawn, at least two; the error bars come from their spread.
    seed : int
        Seed of models and texts.

    Returns
    -------
    DataFrame
        One row for each value and estimator, in nats per text: ``knob``, ``value``, ``estimator``;
        ``estimate``, the mean over the sets, and ``standard_error``, that of one set; ``exact``,
        half-Jeffreys of sequences of the texts' lengths; ``kl_first_second`` and ``kl_second_first``, the
        directions; ``on_texts``, half-Jeffreys in contexts that the source writes; ``ratio``, estimate over
        exact, and ``ratio_low`` and ``ratio_high``, between which two thirds of the sets lie. Ratios of
        equal models are missing.

    Raises
    ------
    InputError
        If the knob is unknown, cannot stand as asked, or there is no value or a single set.

    Examples
    --------
    >>> table = sweep("distance", values=[0.02], n_repeats=4)  # so near that all are right
    >>> bool(table["ratio"].between(0.95, 1.05).all())
    True
    """
    if knob not in KNOBS:
        raise InputError(f"unknown knob {knob!r}{closest(knob, KNOBS)}; use one of {', '.join(KNOBS)}")
    if n_repeats < 2:
        raise InputError(f"error bars need two sets of texts or more, got n_repeats={n_repeats}")
    tried = KNOBS[knob].values if values is None else values
    if not len(tried):
        raise InputError(f"give at least one value of {knob}")
    rows: list[dict[str, object]] = []
    for value in tried:
        turned = _turned(setting or Setting(), knob, value)
        rows += [{"knob": knob, "value": value, **row} for row in _measure(turned, n_repeats, seed)]
    return pd.DataFrame(rows)


def summarize_sweep(table: pd.DataFrame, *, estimators: Sequence[str] = USUAL) -> str:
    """Say in a sentence how far each estimator can be trusted.

    Parameters
    ----------
    table : DataFrame
        From `sweep`.
    estimators : sequence of str
        Which are spoken of; those that the table lacks are left out.

    Returns
    -------
    str
        Where each stays within 20 % of exact, and how far off it is at worst.

    Raises
    ------
    InputError
        If the table has none of them.

    Examples
    --------
    >>> row = {"knob": "distance", "estimator": "text_level", "exact": 3.0}
    >>> table = pd.DataFrame([row | {"value": 0.1, "ratio": 1.1}, row | {"value": 1.0, "ratio": 4.0}])
    >>> summarize_sweep(table)
    'distance: text_level is within 20 % of exact at 0.1, at worst 4.00 times exact (at 1, 3 nats).'
    """
    parts = []
    for name in estimators:
        rows = table[(table["estimator"] == name) & table["ratio"].notna()]
        if rows.empty:
            continue
        near = rows["value"][(rows["ratio"] - 1).abs() <= OFF]
        worst = rows.loc[np.abs(np.log(rows["ratio"])).idxmax()]
        where = "everywhere" if len(near) == len(rows) else "nowhere"
        if 0 < len(near) < len(rows):
            where = "at " + ", ".join(f"{value:g}" for value in near)
        parts.append(
            f"{name} is within {OFF:.0%} of exact {where}, at worst {worst['ratio']:.2f} times exact "
            f"(at {worst['value']:g}, {worst['exact']:.3g} nats)".replace("20%", "20 %")
        )
    if not parts:
        raise InputError(f"the table has no ratio of {', '.join(estimators)}")
    return f"{table['knob'].iloc[0]}: {'; '.join(parts)}."


def _turned(setting: Setting, knob: str, value: float) -> Setting:
    """Turn one knob; those that count are whole numbers."""
    counts = isinstance(getattr(setting, knob), int) and value == int(value)
    kept: dict[str, Any] = {knob: int(value) if counts else value}
    return replace(setting, **kept)


def _measure(setting: Setting, n_repeats: int, seed: int) -> list[dict[str, object]]:
    """Give every estimator over several sets of texts, and the exact values."""
    chains, rng = make_chains(setting, seed=seed), np.random.default_rng([seed, 1])
    estimates: dict[str, list[float]] = {}
    for _ in range(n_repeats):
        for name, estimate in _estimates(setting, draw_segments(setting, chains, rng)).items():
            estimates.setdefault(name, []).append(estimate)
    exact = exact_values(setting, chains)
    rows: list[dict[str, object]] = []
    for name, drawn in estimates.items():
        ratios = np.array(drawn) / exact["exact"] if exact["exact"] > 0 else np.full(n_repeats, np.nan)
        low, high = np.quantile(ratios, [1 / 6, 5 / 6])
        row = {"estimator": name, "estimate": np.mean(drawn), "standard_error": np.std(drawn, ddof=1)}
        rows.append(row | exact | {"ratio": ratios.mean(), "ratio_low": low, "ratio_high": high})
    return rows


def _estimates(setting: Setting, pieces: Segments) -> dict[str, float]:
    """Estimate by all that these pieces allow; clipping is of totals."""
    totals = clip_below(pieces.totals, quantile=setting.clipped)[0] if setting.clipped else pieces.totals
    texts = segments_of_totals(totals, pieces.n_bytes)
    allowed = [name for name in ESTIMATORS if pieces.unit == "token" or not name.startswith("token")]
    return {
        name: float(estimate_kl_by(name, texts if name.startswith("text") else pieces)[0, 1])
        for name in allowed
    }
