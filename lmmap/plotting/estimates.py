"""Estimate against exact: every pair of models as a point, and the ratio below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmmap.errors import InputError, closest
from lmmap.plotting.style import HUES, INK, MARKS, check_glyphs, human, in_house_style, log_ticks

MANY = 200  # pairs
LOOKS = list(zip(HUES, MARKS * 2, strict=True))


@in_house_style
def plot_estimate_vs_exact(
    table: pd.DataFrame,
    *,
    exact: str = "exact",
    estimates: Mapping[str, str] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw estimates of KL against the exact half of Jeffreys, and their ratio below.

    Parameters
    ----------
    table : DataFrame
        One row for each pair of models, nats per text. A column named like another with ``_se`` behind holds
        its standard errors.
    exact : str
        Column of the exact values.
    estimates : mapping of str to str, optional
        Columns of estimates and what to call them; by default every other column of numbers.
    figure : Figure, optional
        Where to draw; by default a new one.

    Returns
    -------
    Figure
        Both axes logarithmic with the identity line; the legend gives each estimate's median ratio to the
        exact value, over all pairs where both are positive, and how many are not.

    Raises
    ------
    InputError
        If a column is missing, there is no estimate, or no pair can be drawn.
    """
    named = _estimates(table, exact, estimates)
    check_glyphs(named.values())
    if figure is None:
        figure = plt.figure(figsize=(5.4, 6.4), layout="constrained")
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for axes in (ax, below):
        axes.set(xscale="log", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    for i, (column, name) in enumerate(named.items()):
        _draw_estimate(ax, below, table, exact, column, name, LOOKS[i % len(LOOKS)])
    ax.autoscale_view()
    ax.autoscale(False)  # the identity line crosses the picture and does not widen it
    ax.axline((1, 1), (10, 10), color=INK, linewidth=0.7, zorder=1)
    below.axhline(1, color=INK, linewidth=0.7, zorder=1)
    for axes in (ax, below):
        axes.minorticks_off()
        ticks = log_ticks(*axes.get_ylim())
        axes.set_yticks(ticks, labels=[human(t) for t in ticks])
    ticks = log_ticks(*below.get_xlim())
    below.set_xticks(ticks, labels=[human(t) for t in ticks])
    ax.set_ylabel("estimate, nats per text")
    below.set_ylabel("estimate / exact")
    below.set_xlabel("exact half-Jeffreys, nats per text")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return figure


def _estimates(table: pd.DataFrame, exact: str, estimates: Mapping[str, str] | None) -> Mapping[str, str]:
    """Columns to be drawn, and their names."""
    if estimates is None:
        numbers = table.select_dtypes("number").columns
        estimates = {
            c: c.replace("_", " ") for c in map(str, numbers) if c != exact and not c.endswith("_se")
        }
    for column in (exact, *estimates):
        if column not in table:
            raise InputError(f"the table has no column {column!r}{closest(column, map(str, table.columns))}")
    if not estimates:
        raise InputError(f"the table has no column of estimates beside {exact!r}")
    return estimates


def _draw_estimate(
    ax: Axes, below: Axes, table: pd.DataFrame, exact: str, column: str, name: str, look: tuple[str, str]
) -> None:
    """Draw one estimate of every pair, and its ratio to the exact value; a logarithm needs both positive."""
    drawn = table[(table[exact] > 0) & (table[column] > 0)]
    if drawn.empty:
        raise InputError(f"no pair has a positive {exact!r} and a positive {column!r}: nothing to draw")
    x, y = drawn[exact].to_numpy(dtype=float), drawn[column].to_numpy(dtype=float)
    x_error, y_error = (drawn.get(f"{c}_se") for c in (exact, column))
    label = f"{name}: median ratio {np.median(y / x):.2f}"
    if len(drawn) < len(table):
        label += f" ({len(table) - len(drawn)} pairs not positive)"
    color, mark = look
    style: dict[str, Any] = {
        "linestyle": "",
        "color": color,
        "marker": mark,
        "markersize": 5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.3,
        "elinewidth": 0.7,
    }
    above_bars = ax.errorbar(x, y, y_error, x_error, label=label, **style)
    below_bars = below.errorbar(x, y / x, None if y_error is None else y_error / x, x_error, **style)
    for artist in (*above_bars.get_children(), *below_bars.get_children()):
        artist.set_rasterized(len(drawn) > MANY)  # thousands of marks make an SVG of megabytes
