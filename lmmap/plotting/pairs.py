"""A pair of models on one page: what is exact, what is estimated, and where the variance comes from."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmmap.microscope import Pair
from lmmap.plotting.style import GREY, INK, human, in_house_style, log_ticks, shorten

MOST_SOURCES = 11


@in_house_style
def plot_pair(pair: Pair) -> Figure:
    """Draw a pair of models that was put under the microscope.

    Parameters
    ----------
    pair : Pair
        From `lmmap.microscope.look_at_pair`.

    Returns
    -------
    Figure
        Left what is exact (filled) and what is estimated (open), in nats per text; right above the difference
        of every text, source by source, below the parts of its variance over texts.
    """
    figure, axes = plt.subplot_mosaic(
        [["quantities", "texts"], ["quantities", "variance"]],
        figsize=(9.5, 4.8), height_ratios=[5, 1], width_ratios=[1, 1.25], layout="constrained",
    )  # fmt: skip
    figure.suptitle(" and ".join(shorten(name, 40) for name in pair.models), fontsize="medium")
    _draw_quantities(axes["quantities"], pair)
    _draw_texts(axes["texts"], pair)
    _draw_variance(axes["variance"], pair)
    return figure


def _draw_quantities(ax: Axes, pair: Pair) -> None:
    table = pair.quantities[pair.quantities["value"] > 0].sort_values("value", ascending=False)
    exact = (table["kind"] == "exact").to_numpy()
    place = np.arange(len(table))
    error = table["se"].fillna(0).to_numpy()
    ax.errorbar(table["value"], place, xerr=error, fmt="none", ecolor=GREY, elinewidth=1, zorder=1)
    ax.scatter(
        table["value"], place, s=28, facecolors=np.where(exact, INK, "white"), edgecolors=INK, zorder=2
    )
    for x in table["value"][exact]:
        ax.axvline(x, color=GREY, linewidth=0.6, zorder=0)
    ax.set_xscale("log")
    ax.margins(x=0.12)
    ticks = log_ticks(*ax.get_xlim())
    ax.set_xticks(ticks, [human(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set(yticks=place, yticklabels=table.index, xlabel="nats per text (filled: exact)")
    ax.invert_yaxis()


def _draw_texts(ax: Axes, pair: Pair) -> None:
    """Draw a strip for each source, the one that the second model likes best at the bottom."""
    table = pair.differences
    largest = table["source"].value_counts().index[:MOST_SOURCES]
    source = table["source"].where(table["source"].isin(largest), "others").astype(str)
    groups = table["difference"].groupby(source)
    order = pd.Index(groups.mean().sort_values().index)
    scatter = np.random.default_rng(0).uniform(-0.3, 0.3, len(table))
    place = order.get_indexer(pd.Index(source)) + scatter
    ax.scatter(table["difference"], place, s=5, color=GREY, linewidths=0, rasterized=True)
    ax.scatter(groups.mean()[order], range(len(order)), marker="|", s=90, color=INK)
    ax.axvline(table["difference"].mean(), color=INK, linewidth=0.6, linestyle=":")
    ax.set(yticks=range(len(order)), yticklabels=[shorten(name, 18) for name in order])
    ax.set_xlabel("log-likelihood of a text, first model less second, nats")


def _draw_variance(ax: Axes, pair: Pair) -> None:
    total, left = sum(pair.variance.values()), 0.0
    for k, (name, part) in enumerate(pair.variance.items()):
        share = part / total if total else 0.0
        ax.barh([0], [share], left=[left], color=(INK, GREY, "white")[k], edgecolor=INK, linewidth=0.5)
        if share > 0.08:
            text = f"{name} {share:.0%}"
            ax.text(left + share / 2, 0, text, ha="center", va="center", color=("white", INK, INK)[k])
        left += share
    ax.set(xlim=(0, 1), yticks=[], xticks=[])
    ax.set_xlabel("variance of the difference over texts")
    ax.spines[:].set_visible(False)
