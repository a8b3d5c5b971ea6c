"""What a map in a browser is told about its models: ids, names, and every attribute with its colours."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import pandas as pd

from lmmap.errors import InputError

SHADES = 256  # of viridis
DIGITS = 7  # of a number, as many as a position has
MOST_NEIGHBORS = 10


def map_table(models: pd.DataFrame, *, max_groups: int = 32) -> dict[str, Any]:
    """Describe models for a map in a browser, in the colours of the static figures.

    Parameters
    ----------
    models : DataFrame
        K rows; the index holds their ids, ``model`` the shown names (the ids, where there is none), every
        other column is an attribute.
    max_groups : int
        How many groups of an attribute get a colour and mark, at most 32: the largest; others are grey.

    Returns
    -------
    dict
        ``ids``, ``names``, ``columns`` and ``style``; JSON can hold it. A column has its ``kind`` (``group``,
        ``number`` or ``date``), ``title`` and K ``values``; groups have the ``groups`` that are coloured,
        largest first, numbers and dates the ``shade`` of every model and the ``ticks`` of the bar.

    Raises
    ------
    InputError
        If there is no model, an id or a column is given twice, or ``max_groups`` is out of range.

    Examples
    --------
    >>> models = pd.DataFrame({"size": [1.0, 3.0], "family": ["b", "a"]}, index=["x", "y"])
    >>> table = map_table(models)
    >>> table["names"], table["columns"]["size"]["shade"], table["columns"]["family"]["groups"]
    (['x', 'y'], [0, 255], ['b', 'a'])
    """
    from lmmap.plotting.style import GREY, HUES, MARKS

    ids = [str(row) for row in models.index]
    if not ids:
        raise InputError("there is no model to show")
    for what, given in (("model id", pd.Index(ids)), ("column", models.columns)):
        if given.has_duplicates:
            raise InputError(f"{what} {given[given.duplicated()][0]!r} is given more than once")
    names = models.get("model", models.index)
    return {
        "ids": ids,
        "names": [str(name) for name in names],
        "columns": {
            str(name): _column(models, name, max_groups) for name in models.columns if name != "model"
        },
        "style": {"hues": HUES, "marks": MARKS, "grey": GREY, "viridis": _viridis()},
    }


def near_ones(kl: np.ndarray, n_models: int) -> dict[str, Any]:
    """List the nearest neighbours of every model, for a page that has no kernel to ask.

    Parameters
    ----------
    kl : (K, K) float array
        Divergence of every pair, nats per text.
    n_models : int
        K.

    Returns
    -------
    dict
        ``rows`` and ``kl`` (three significant digits), each K lists of ten or K - 1, nearest first.

    Raises
    ------
    InputError
        If ``kl`` has another shape or a value that is not finite.

    Examples
    --------
    >>> near_ones(np.array([[0, 2.0, 1.0], [2.0, 0, 4.0], [1.0, 4.0, 0]]), 3)
    {'rows': [[2, 1], [0, 2], [0, 1]], 'kl': [[1.0, 2.0], [2.0, 4.0], [1.0, 4.0]]}
    """
    from lmmap.geometry import nearest_neighbors

    if np.shape(kl) != (n_models, n_models):
        raise InputError(
            f"neighbors has shape {np.shape(kl)}, expected the KL of every pair: {(n_models, n_models)}"
        )
    if not np.isfinite(kl).all():
        raise InputError("neighbors holds a KL that is not finite")
    rows = nearest_neighbors(kl, min(MOST_NEIGHBORS, n_models - 1))
    near = np.take_along_axis(kl, rows, axis=1)
    return {"rows": rows.tolist(), "kl": [[float(f"{value:.3g}") for value in row] for row in near]}


def check_positions(coordinates: np.ndarray, n_models: int) -> np.ndarray:
    """Refuse positions that cannot be drawn.

    Parameters
    ----------
    coordinates : (K, 2) array
        Positions.
    n_models : int
        K.

    Returns
    -------
    (K, 2) little-endian float32 array
        As a browser takes them.

    Raises
    ------
    InputError
        If the shape is another, or a position is not finite or too large for float32.

    Examples
    --------
    >>> check_positions(np.array([[0.5, 1.0]]), 1)
    array([[0.5, 1. ]], dtype=float32)
    """
    given = np.asarray(coordinates, dtype=np.float64)
    if given.shape != (n_models, 2):
        raise InputError(f"coordinates have shape {given.shape}, expected {(n_models, 2)}")
    with np.errstate(over="ignore"):
        positions = given.astype("<f4")
    wrong = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(wrong):
        raise InputError(f"the position of model {wrong[0]} is {given[wrong[0]].tolist()}: not to be drawn")
    return positions


def _column(models: pd.DataFrame, name: str, max_groups: int) -> dict[str, Any]:
    """One attribute; one that no model has is a group without members."""
    from lmmap.plotting.attributes import MAX_GROUPS, Scale, read_attribute

    if not 1 <= max_groups <= MAX_GROUPS:
        raise InputError(f"max_groups must lie in 1..{MAX_GROUPS} (colours x marks), got {max_groups}")
    try:
        painted = read_attribute(models, name, max_groups=max_groups)
    except InputError:
        return {"kind": "group", "title": str(name), "values": [None] * len(models), "groups": []}
    if isinstance(painted, Scale):
        return {"title": painted.title, **_scale(painted, models[name])}
    values: list[str | None] = [None] * len(models)
    known = models[name].notna() & ~models[name].astype(str).isin(["", "inf", "-inf"])
    for k in np.flatnonzero(known):
        values[k] = str(models[name].iloc[k])
    return {"kind": "group", "title": painted.title, "values": values, "groups": painted.names}


def _scale(painted: Any, given: pd.Series) -> dict[str, Any]:  # noqa: ANN401 - a Scale
    known = painted.known
    shades = np.ma.filled(painted.norm(np.where(known, painted.values, np.nanmin(painted.values))), 0.0)
    ticks = zip(painted.norm(painted.ticks), painted.tick_labels, strict=True)
    is_number = isinstance(given[known].iloc[0], numbers.Real)
    shown = [_number(v) for v in painted.values] if is_number else [str(v)[:10] for v in given]
    return {
        "kind": "number" if is_number else "date",
        "values": [value if k else None for value, k in zip(shown, known, strict=True)],
        "shade": [
            min(int(s * SHADES), SHADES - 1) if k else None
            for s, k in zip(shades.tolist(), known, strict=True)
        ],
        "ticks": [[round(float(place), 4), label] for place, label in ticks],
    }


def _number(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}") if abs(value) < 2**53 and value != int(value) else value
    return int(rounded) if rounded == int(rounded) else rounded


def _viridis() -> str:
    """Hexadecimal digits, six for each shade."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return "".join(to_hex(mpl.colormaps["viridis"](i))[1:] for i in range(SHADES))
