"""Laboratory: estimate over exact against a knob, with the band in which sets of texts fall."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lmmap.errors import InputError, closest
from lmmap.plotting.style import HUES, INK, MARKS, human, in_house_style, log_ticks

COLUMNS = ("knob", "value", "estimator", "exact", "ratio", "ratio_low", "ratio_high")
USUAL = ("text_level", "segment_centered", "mixture", "midpoint")


@in_house_style
def plot_sweep(
    table: pd.DataFrame, *, estimators: Sequence[str] = USUAL, names: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw how far estimates of KL are off as one knob is turned.

    Parameters
    ----------
    table : DataFrame
        Of one knob, from `lmmap.laboratory.sweep`.
    estimators : sequence of str
        Which are drawn, in this order.
    names : bool
        Whether the legend tells them.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Ratio to exact half-Jeffreys on a logarithmic axis, a line at 1, one place for each value with the
        exact nats per text below it, and a band that holds two thirds of the sets of texts.

    Raises
    ------
    InputError
        If a column is missing, there is more than one knob, or an estimator has no positive ratio.
    """
    _check(table)
    if ax is None:
        _, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    exact = table.groupby("value")["exact"].first()
    for i, name in enumerate(estimators):
        rows = table[table["estimator"] == name].set_index("value").reindex(exact.index)
        if not (rows["ratio"] > 0).any():
            known = closest(name, table["estimator"].unique())
            raise InputError(f"the table has no positive ratio of {name!r}{known}")
        places, color = np.arange(len(exact)), HUES[i % len(HUES)]
        ax.fill_between(places, rows["ratio_low"], rows["ratio_high"], color=color, alpha=0.2, linewidth=0)
        mark = MARKS[i % len(MARKS)]
        ax.plot(places, rows["ratio"], color=color, marker=mark, markersize=4, label=name.replace("_", " "))
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.axhline(1, color=INK, linewidth=0.7, zorder=1)
    ticks = log_ticks(*ax.get_ylim())
    ax.set_yticks(ticks, labels=[human(tick) for tick in ticks])
    values = exact.index.to_numpy(dtype=float)
    labels = [f"{human(v)}\n{human(float(f'{nats:.2g}'))}" for v, nats in zip(values, exact, strict=True)]
    ax.set_xticks(range(len(exact)), labels=labels)
    knob = str(table["knob"].iloc[0]).replace("_", " ")
    ax.set_xlabel(f"{knob}\nand exact half-Jeffreys, nats per text")
    ax.set_ylabel("estimate / exact")
    ax.spines[["top", "right"]].set_visible(False)
    if names:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=2)
    return ax


def _check(table: pd.DataFrame) -> None:
    for column in COLUMNS:
        if column not in table:
            raise InputError(f"the table has no column {column!r}; make it by lmmap.laboratory.sweep")
    knobs = table["knob"].unique()
    if len(knobs) != 1:
        raise InputError(f"the table must be of one knob, got {', '.join(knobs) or 'none'}")
