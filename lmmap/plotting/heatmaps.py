"""Heat maps: KL between all pairs with a dendrogram, and the log-likelihood matrix itself."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import CenteredNorm, Colormap, LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy.cluster.hierarchy import leaves_list

from lmmap.analyses.structure import link_models
from lmmap.errors import InputError
from lmmap.geometry import double_center
from lmmap.loglik import LogLikelihoods
from lmmap.modelmap import ModelMap, check_divergence
from lmmap.plotting.attributes import Groups, Scale, read_attribute
from lmmap.plotting.style import HUES, INK, check_glyphs, human, in_house_style, log_ticks, shorten
from lmmap.recipes import TEXT_LEVEL

MOST_ORDERED = 200  # models whose leaves are put in the best order; beyond, it takes seconds
MOST_NAMES = 60  # rows that can be named
ROOM_FOR_NAME = 0.02  # of an axis
MOST_SHARP = 600  # rows or columns drawn cell by cell; more cannot be told apart in print
COLORS = 48  # of a matrix with more: finer shades are megabytes of noise to a file, and nothing to the eye
MOST_DECADES = 5  # of KL on the colour bar


@in_house_style
def plot_kl_heatmap(
    kl: ModelMap | pd.DataFrame,
    *,
    color: str | None = None,
    models: pd.DataFrame | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the KL of every pair, ordered by a dendrogram.

    Parameters
    ----------
    kl : ModelMap, or (K, K) DataFrame
        Nats per text, symmetric.
    color : str, optional
        An attribute shown as a strip beside the rows.
    models : DataFrame, optional
        Attributes and ``model`` of the models of a ``kl`` that is a table, by row id.
    figure : Figure, optional
        Where to draw; by default a new one.

    Returns
    -------
    Figure
        Average linkage of the distances ``sqrt(2 KL)``; logarithmic colours over at most five decades;
        names beside the rows up to 60 models.

    Raises
    ------
    InputError
        If there are fewer than 2 models, the table is not square and symmetric, or ``color`` is unknown.
    """
    values, table = _kl_and_models(kl, models)
    low, high = _kl_range(values)
    painted = None if color is None else read_attribute(table, color, max_groups=len(HUES))
    tree = link_models(values, ordered=len(values) <= MOST_ORDERED)
    order = leaves_list(tree)
    if figure is None:
        side = float(np.clip(3 + 0.13 * len(values), 4, 8))
        figure = plt.figure(figsize=(side + 1.5, side), layout="constrained")
    tree_ax, strip_ax, ax = figure.subplots(1, 3, width_ratios=[0.14, 0.03, 1])
    _draw_tree(tree_ax, tree, order)
    _draw_strip(strip_ax, painted, order)
    norm = LogNorm(low, high)
    shown = np.maximum(values, low)
    np.fill_diagonal(shown, np.nan)
    _draw_cells(ax, shown[np.ix_(order, order)], norm, "viridis_r")
    ax.set_xticks([])
    ax.yaxis.tick_right()
    _name_rows(ax.yaxis, [str(name) for name in table["model"].iloc[order]])
    below = bool((values[~np.eye(len(values), dtype=bool)] < low).any())
    bar = figure.colorbar(
        ScalarMappable(norm, "viridis_r"),
        ax=[tree_ax, strip_ax, ax],
        location="bottom",
        extend="min" if below else "neither",
        shrink=0.6,
        aspect=40,
        pad=0.02,
        label=f"KL, nats per text{_estimator(kl)}",
    )
    ticks = log_ticks(low, high)
    bar.set_ticks(ticks, labels=[human(t) for t in ticks])
    bar.minorticks_off()
    if isinstance(painted, Groups):
        handles = painted.handles(marks=False)
        figure.legend(handles=handles, title=painted.title, loc="outside right upper", alignment="left")
    elif painted is not None:
        painted.add_bar(tree_ax, strip_ax, ax)
    return figure


def _estimator(kl: ModelMap | pd.DataFrame) -> str:
    return "" if isinstance(kl, pd.DataFrame) else f" ({kl.recipe.get('estimator', TEXT_LEVEL)} estimate)"


@in_house_style
def plot_matrix(
    scores: LogLikelihoods,
    *,
    centered: bool = False,
    rows: str = "family",
    columns: str = "source",
    ax: Axes | None = None,
) -> Axes:
    """Draw a log-likelihood matrix, its models and texts grouped.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts, nats.
    centered : bool
        Draw the double-centred matrix Q, on diverging colours, instead of L.
    rows : str
        Attribute that groups the models, if they have it; within a group the best model is on top.
    columns : str
        Column that groups the texts, if they have it; within a group the shortest text is on the left.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Colours end at the quantiles 1 % and 99 %.
    """
    values = double_center(scores.values) if centered else scores.values
    row_order, row_sizes = _grouped(scores.models, rows, -scores.values.mean(axis=1))
    lengths = (
        scores.texts["n_bytes"].to_numpy() if "n_bytes" in scores.texts else np.arange(len(scores.texts))
    )
    column_order, column_sizes = _grouped(scores.texts, columns, lengths)
    if ax is None:
        tall = float(np.clip(1.8 + 0.11 * len(values), 2.6, 7))
        _, ax = plt.subplots(figsize=(8, tall), layout="constrained")
    norm = _matrix_norm(values, centered)
    shown = values[np.ix_(row_order, column_order)]
    cmap = seaborn.color_palette("vlag" if centered else "viridis", as_cmap=True)
    image = _draw_cells(ax, shown, norm, cmap)
    _mark_groups(ax.xaxis, ax.axvline, column_sizes)
    ax.tick_params("x", rotation=90 if len(column_sizes) > 6 else 0)
    if rows in scores.models:
        _mark_groups(ax.yaxis, ax.axhline, row_sizes)
    else:
        _name_rows(ax.yaxis, [str(name) for name in scores.models["model"].iloc[row_order]])
    bar = ax.figure.colorbar(image, ax=ax, extend="both", extendfrac=0.02, shrink=0.8, aspect=25, pad=0.02)
    bar.set_label(f"log-likelihood{' minus row and column means' if centered else ''}, nats per text")
    return ax


def _kl_and_models(
    kl: ModelMap | pd.DataFrame, models: pd.DataFrame | None
) -> tuple[np.ndarray, pd.DataFrame]:
    if isinstance(kl, ModelMap):
        return kl.kl, kl.models.assign(height=kl.height)
    if len(kl) < 2 or not kl.index.equals(kl.columns):
        raise InputError(
            f"kl is a table of {len(kl)} x {len(kl.columns)}; give the same 2 or more models twice"
        )
    check_divergence(kl.to_numpy(), kl.index)
    table = pd.DataFrame(index=kl.index) if models is None else models
    unknown = kl.index.difference(table.index)
    if len(unknown):
        raise InputError(f"models has no row for {len(unknown)} models of kl, such as {unknown[0]!r}")
    table = table.loc[kl.index]
    return kl.to_numpy(), table if "model" in table else table.assign(model=kl.index)


def _kl_range(values: np.ndarray) -> tuple[float, float]:
    """Choose the ends of the colours: all that is not 0, but at most `MOST_DECADES`."""
    positive = values[values > 0]
    if not len(positive):
        raise InputError("every KL is 0: nothing to draw")
    high = float(positive.max())
    low = max(float(positive.min()), high * 10.0**-MOST_DECADES)
    return (low if low < high else high / 10), high


def _draw_tree(ax: Axes, tree: np.ndarray, order: np.ndarray) -> None:
    """Draw a dendrogram to the left of the rows; not scipy's, which recurses as deep as the tree."""
    height, place = np.zeros(2 * len(order) - 1), np.zeros(2 * len(order) - 1)
    place[order] = np.arange(len(order))
    segments = []
    for merged, (a, b, distance, _) in enumerate(tree, start=len(order)):
        i, j = int(a), int(b)
        height[merged], place[merged] = distance, (place[i] + place[j]) / 2
        segments.append(
            [(height[i], place[i]), (distance, place[i]), (distance, place[j]), (height[j], place[j])]
        )
    ax.add_collection(
        LineCollection(
            segments, colors=INK, linewidths=float(np.clip(60 / len(order), 0.15, 0.7)),
            rasterized=len(order) > MOST_SHARP,
        )
    )  # fmt: skip
    ax.set_xlim(height[-1] * 1.05, 0)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_axis_off()


def _draw_strip(ax: Axes, painted: Groups | Scale | None, order: np.ndarray) -> None:
    if painted is not None:
        colors = painted.colors()
        ax.imshow(np.array([[to_rgba(colors[k])] for k in order]), aspect="auto")
    ax.set_axis_off()


def _draw_cells(ax: Axes, values: np.ndarray, norm: Normalize, cmap: str | Colormap) -> AxesImage:
    """Draw a matrix as an image: cell by cell if it is small, else the means of blocks of cells."""
    ax.spines[:].set_visible(False)
    n_rows, n_columns = values.shape
    if max(values.shape) > MOST_SHARP:
        values, cmap = _block_means(values), plt.get_cmap(cmap).resampled(COLORS)
    outline = (-0.5, n_columns - 0.5, n_rows - 0.5, -0.5)
    return ax.imshow(values, norm=norm, cmap=cmap, aspect="auto", interpolation="none", extent=outline)


def _block_means(values: np.ndarray) -> np.ndarray:
    """Average neighbouring rows and columns until there are few enough, NaN apart."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0), known.astype(float)
    for axis, n in enumerate(values.shape):
        n_blocks = -(-n // -(-n // MOST_SHARP))
        starts = np.arange(n_blocks) * n // n_blocks
        total, count = (np.add.reduceat(part, starts, axis=axis) for part in (total, count))
    means: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def _name_rows(axis: Axis, names: list[str]) -> None:
    """Name the rows, if there are few enough to be read."""
    axis.set_ticks([])
    if len(names) <= MOST_NAMES:
        check_glyphs(names)
        axis.set_ticks(range(len(names)), labels=[shorten(name) for name in names], fontsize=7)
        axis.set_tick_params(length=0)


def _grouped(table: pd.DataFrame, column: str, key: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Order of the rows, largest group first and by the key within, and the groups' sizes in that order."""
    groups = table[column].astype(str) if column in table else pd.Series("", index=table.index)
    sizes = groups.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    rank = {str(name): i for i, name in enumerate(sizes.index)}
    order = np.lexsort((key, groups.map(rank).to_numpy()))
    return order, {str(name): int(n) for name, n in sizes.items()}


def _mark_groups(axis: Axis, border: Callable[..., object], sizes: dict[str, int]) -> None:
    """Draw the groups' borders, and name at its middle every group that has room for a name."""
    total, start, middles, names = sum(sizes.values()), 0, [], []
    for name, n in sizes.items():
        if start and n >= ROOM_FOR_NAME * total:
            border(start - 0.5, color="white", linewidth=0.8)
        if n >= ROOM_FOR_NAME * total:
            middles.append(start + (n - 1) / 2)
            names.append(f"{shorten(name, 20)} ({n})" if name else "")
        start += n
    check_glyphs(names)
    axis.set_ticks(middles, labels=names)
    axis.set_tick_params(length=0)


def _matrix_norm(values: np.ndarray, centered: bool) -> Normalize:
    low, high = np.quantile(values, [0.01, 0.99])
    if not centered:
        return Normalize(float(low), float(high))
    return CenteredNorm(0, float(max(-low, high)) or 1.0)
