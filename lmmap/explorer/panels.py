"""Panels: tables beside the map, of the models and texts that it shows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmap.error_bars.comparisons import rank_models
from lmmap.error_bars.uncertainty import kl_intervals
from lmmap.errors import InputError
from lmmap.explorer.distances import TEXT_LEVEL
from lmmap.explorer.frames import Explorer, Frame
from lmmap.geometry import bits_per_byte

Array = np.ndarray

N_NEIGHBORS = 10
N_LENGTHS = 5  # bins of texts by length


def neighbors(explorer: Explorer, frame: Frame, row_id: str, *, n: int = N_NEIGHBORS) -> pd.DataFrame:
    """List the models nearest to one, with error bars.

    Parameters
    ----------
    explorer : Explorer
        Where the frame is from.
    frame : Frame
        What is shown.
    row_id : str
        One of its models.
    n : int
        How many neighbours; all if there are fewer.

    Returns
    -------
    DataFrame
        Nearest first; index ``row_id``. ``model``; ``kl``, nats per text by the frame's estimator, and the
        same in ``bits_per_byte`` (NaN if lengths are not known); ``text_level`` with its 95 % interval from
        ``low`` to ``high``, nats per text, texts taken each for itself
        (`lmmap.error_bars.uncertainty.kl_intervals`).

    Raises
    ------
    InputError
        If the model is not shown, or no neighbour is asked for.
    """
    if n < 1:
        raise InputError(f"{n} neighbours were asked for; ask for at least one")
    i = frame.position(row_id)
    distances = np.array(frame.kl[i])
    distances[i] = np.inf
    nearest = np.argsort(distances, kind="stable")[: min(n, len(distances) - 1)]
    few = np.flatnonzero(frame.shown)[[i, *nearest]]
    table = explorer.scores.models.iloc[few]
    noise = table["error_var"].to_numpy(dtype=np.float64) if "error_var" in table else None
    found = kl_intervals(explorer.scores.values[few][:, frame.texts], error_var=noise)
    return pd.DataFrame(
        {
            "model": table["model"].to_numpy()[1:],
            "kl": distances[nearest],
            "bits_per_byte": _bits(frame, distances[nearest]),
            "text_level": found.kl[0, 1:],
            "low": found.low[0, 1:],
            "high": found.high[0, 1:],
        },
        index=table.index[1:],
    )


def ranking(explorer: Explorer, frame: Frame) -> pd.DataFrame:
    """Rank the models shown by mean log-likelihood on the texts used.

    Parameters
    ----------
    explorer : Explorer
        Where the frame is from.
    frame : Frame
        What is shown.

    Returns
    -------
    DataFrame
        Best first; index ``row_id``. ``model``; ``height``, the mean log-likelihood, nats per text, and
        ``bits_per_byte``, what a byte costs (NaN if lengths are not known); ``to_best`` and ``to_next``, how
        far behind the best and before the next model, with standard errors ``to_best_error`` and
        ``to_next_error`` (`lmmap.error_bars.comparisons.rank_models`), nats per text.

    Raises
    ------
    InputError
        If all texts have the same scores.

    Notes
    -----
    Differences of all scores are looked at: a second for 1,018 models x 10,000 texts.
    """
    found = rank_models(explorer.scores.values[frame.shown][:, frame.texts])
    ranked = frame.models.iloc[found.order]
    columns = {name: getattr(found, name) for name in found._fields if name != "order"}
    table = pd.DataFrame({"model": ranked["model"].to_numpy(), **columns}, index=ranked.index)
    table.insert(2, "bits_per_byte", -_bits(frame, found.height))
    return table


def shares_by_source(explorer: Explorer, frame: Frame, first: str, second: str) -> pd.DataFrame:
    """Split the distance of two models by the domains of the texts.

    Parameters
    ----------
    explorer : Explorer
        Where the frame is from.
    frame : Frame
        What is shown.
    first, second : str
        Row ids of two of its models.

    Returns
    -------
    DataFrame
        Largest share first; index ``source``. ``n_texts``; ``share_of_texts``; ``share`` of the distance by
        the frame's estimator; both shares sum to 1. ``attrs["estimator"]`` names it.

    Raises
    ------
    InputError
        If a model is not shown, both are one, they are alike on these texts, or texts have no domains.
    """
    if not explorer.sources:
        raise InputError("the texts have no column 'source': the distance cannot be split by it")
    i, j = places_of_pair(frame, first, second)
    number = explorer.choices.source_of_text
    added = explorer.distances.by_source(frame.estimator, frame.texts, i, j)
    table = _shares(np.bincount(number, weights=frame.texts), added, (first, second), frame.estimator)
    table.index = pd.Index(explorer.choices.source_names, name="source")
    return table[table["n_texts"] > 0].sort_values("share", ascending=False, kind="stable")


def shares_by_length(explorer: Explorer, frame: Frame, first: str, second: str) -> pd.DataFrame:
    """Split the distance of two models by the lengths of the texts.

    Parameters
    ----------
    explorer : Explorer
        Where the frame is from.
    frame : Frame
        What is shown.
    first, second : str
        Row ids of two of its models.

    Returns
    -------
    DataFrame
        Shortest texts first, in at most five bins of about as many different lengths; index ``bytes``, such
        as ``100-512``. Columns as `shares_by_source`. Where the frame's estimator has no single texts at
        hand, shares are those of text level: ``attrs["estimator"]`` says so.

    Raises
    ------
    InputError
        As `shares_by_source`, or if lengths are not known.
    """
    if "n_bytes" not in explorer.scores.texts:
        raise InputError("the texts have no column 'n_bytes': the distance cannot be split by length")
    i, j = places_of_pair(frame, first, second)
    estimator = frame.estimator if explorer.distances.keeps_texts else TEXT_LEVEL
    added = explorer.distances.by_text(estimator, frame.texts, i, j)[frame.texts]
    n_bytes = explorer.scores.texts["n_bytes"].to_numpy()[frame.texts]
    parts = np.arange(1, N_LENGTHS + 1) / N_LENGTHS
    upper = np.unique(np.quantile(np.unique(n_bytes), parts, method="higher"))
    number = np.searchsorted(upper, n_bytes)
    table = _shares(np.bincount(number), np.bincount(number, weights=added), (first, second), estimator)
    limits = [n_bytes[number == b] for b in range(len(upper))]
    table.index = pd.Index([f"{bin_.min():,}-{bin_.max():,}" for bin_ in limits], name="bytes")
    return table


def _shares(n_texts: Array, added: Array, names: tuple[str, str], estimator: str) -> pd.DataFrame:
    whole = added.sum()
    if not whole > 0:
        raise InputError(f"{names[0]} and {names[1]} are alike on these texts: there is no distance to split")
    table = pd.DataFrame(
        {"n_texts": n_texts.astype(int), "share_of_texts": n_texts / n_texts.sum(), "share": added / whole}
    )
    table.attrs["estimator"] = estimator
    return table


def places_of_pair(frame: Frame, first: str, second: str) -> tuple[int, int]:
    """Find two models among all K.

    Parameters
    ----------
    frame : Frame
        What is shown.
    first, second : str
        Row ids of two of its models.

    Returns
    -------
    (int, int)
        Their rows in the scores.

    Raises
    ------
    InputError
        If one is not shown, or both are one.
    """
    places = np.flatnonzero(frame.shown)[[frame.position(first), frame.position(second)]]
    if first == second:
        raise InputError(f"{first!r} was given twice: a distance is between two models")
    return int(places[0]), int(places[1])


def _bits(frame: Frame, nats: Array) -> Array:
    texts = frame.scores.texts
    if "n_bytes" not in texts:
        return np.full(len(nats), np.nan)
    return bits_per_byte(nats, texts["n_bytes"].to_numpy()[frame.texts])
