"""Maps: models as points, coloured by any attribute, with labels that do not overlap."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import textalloc
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from lmmap.error_bars.resampling import ellipses
from lmmap.errors import InputError, closest
from lmmap.modelmap import ModelMap
from lmmap.plotting.attributes import Groups, Scale, read_attribute
from lmmap.plotting.style import (
    GREY,
    INK,
    MARKS,
    check_glyphs,
    in_house_style,
    readable,
    shorten,
)

SMALL = 30  # models that can be labelled one by one
MOST_LABELS = 15
BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "alignment": "left"}
GLYPHS = dict(zip(MARKS, ("", "▪ ", "▴ ", "⬥ "), strict=True))  # before a label, where a hue returns


@in_house_style
def plot_map(
    model_map: ModelMap,
    *,
    color: str | None = None,
    label: str | Sequence[str] | None = "auto",
    size: str | None = None,
    path: tuple[str, str] | None = None,
    max_groups: int = 12,
    covariances: np.ndarray | None = None,
    caption: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a map of models.

    Parameters
    ----------
    model_map : ModelMap
        K models.
    color : str, optional
        An attribute, or ``height`` for the mean log-likelihood. Numbers and dates are shown on viridis with
        a bar, anything else as groups: the largest in colours and marks of their own, the rest grey.
    label : str or sequence of str, optional
        ``auto`` names every model on a map of at most 30, else the groups of ``color`` at their densest
        spot (with a legend instead if there are more than 15); another attribute names its 15 largest
        groups (``model``: every model); a sequence names those models; None names nothing.
    size : str, optional
        An attribute of numbers or dates for the marks' area.
    path : (str, str), optional
        Two attributes: one names the path a model is on, the other orders it, such as ``("run", "step")``
        for checkpoints. A thin line joins the models of a path.
    max_groups : int
        How many groups get a colour, at most 32.
    covariances : (K, 2, 2) float array, optional
        Of the positions, from `lmmap.error_bars.resampling.position_covariances`: drawn as 95 % ellipses.
    caption : str, optional
        Text below, by default what `ModelMap.caption` says; an empty one for none.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Equal aspect, no ticks: only distances mean something.

    Raises
    ------
    InputError
        If an attribute or a model is unknown, or an attribute that must be numeric is not; if
        ``ax`` lies in a subfigure.

    Notes
    -----
    Labels are placed for the size that the axes have when this is called.
    """
    xy, table = model_map.coordinates, model_map.models.assign(height=model_map.height)
    label = label if label is None or isinstance(label, str) else list(label)
    painted = None if color is None else read_attribute(table, color, max_groups=max_groups)
    area, area_note = _areas(table, size)
    if label == "auto":
        label = _what_to_label(len(table), color, painted)
    rows, names, inks = _labels(model_map, painted, color, label)
    check_glyphs(names)
    if ax is None:
        spread = np.ptp(xy, axis=0)
        tall = float(np.clip(6 * spread[1] / max(spread[0], 1e-12), 4, 7))  # inches
        _, ax = plt.subplots(figsize=(7.2, tall), layout="constrained")
    if not isinstance(ax.figure, Figure):
        raise InputError("ax lies in a subfigure, where labels cannot be placed: use plt.subplots")
    lines = [] if path is None else _draw_paths(ax, xy, table, *path)
    _draw_points(ax, xy, painted, area)
    ellipse_note = "" if covariances is None else _draw_ellipses(ax, xy, covariances)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if isinstance(painted, Scale):
        painted.add_bar(ax)
    elif isinstance(painted, Groups) and label != color:
        ax.legend(handles=painted.handles(), title=painted.title, **BESIDE)
    text = model_map.caption() if caption is None else caption
    _write_caption(ax, ax.figure, [text, painted.note() if painted else "", area_note, ellipse_note])
    _place_labels(ax, xy, rows, names, inks, lines)
    return ax


def _what_to_label(n_models: int, color: str | None, painted: Groups | Scale | None) -> str | None:
    if n_models <= SMALL:
        return "model"
    return color if isinstance(painted, Groups) and len(painted.names) <= MOST_LABELS else None


def _areas(table: pd.DataFrame, size: str | None) -> tuple[np.ndarray, str]:
    """Area of every mark in points squared, and what it means; not known is as small as the smallest."""
    usual = float(np.clip(5000 / len(table), 14, 48))
    if size is None:
        return np.full(len(table), usual), ""
    scale = _scale(table, size, "size")
    share = np.asarray(scale.norm(np.where(scale.known, scale.values, np.nanmin(scale.values))))
    return usual * (0.4 + 2 * share), f"area: {scale.title}, {scale.ends[0]} to {scale.ends[1]}"


def _scale(table: pd.DataFrame, column: str, purpose: str) -> Scale:
    scale = read_attribute(table, column)
    if not isinstance(scale, Scale):
        raise InputError(f"{purpose} must be an attribute of numbers or dates, {column!r} is not")
    return scale


def _draw_points(ax: Axes, xy: np.ndarray, painted: Groups | Scale | None, area: np.ndarray) -> None:
    """Grey first, then the largest group, so that small ones lie on top."""

    def scatter(rows: np.ndarray, color: list[ColorType], mark: str, z: float) -> None:
        if len(rows):
            rows = rows[np.argsort(-area[rows], kind="stable")]
            x, y = xy[rows].T
            look: dict[str, Any] = {"marker": mark, "linewidths": 0.3, "edgecolors": "white"}
            ax.scatter(x, y, s=_one_or_all(area[rows]), c=color, zorder=z, **look)

    match painted:
        case None:
            scatter(np.arange(len(xy)), [INK], "o", 2)
        case Groups():
            scatter(painted.rest, [GREY], "o", 2)
            for i, rows in enumerate(painted.members):
                scatter(rows, [painted.color(i)], painted.mark(i), 2.1 + 0.01 * i)
        case Scale():
            colors = painted.colors()
            for rows, z in ((np.flatnonzero(~painted.known), 2.0), (np.flatnonzero(painted.known), 2.1)):
                scatter(rows, [colors[k] for k in rows], "o", z)


def _draw_ellipses(ax: Axes, xy: np.ndarray, covariances: np.ndarray) -> str:
    """Draw where 95 % of the positions lie when texts are drawn again, and say so."""
    if np.shape(covariances) != (len(xy), 2, 2):
        raise InputError(f"covariances have shape {np.shape(covariances)}, expected {(len(xy), 2, 2)}")
    semi_axes, angle = ellipses(covariances)
    longer, shorter = 2 * semi_axes.T
    outlines = EllipseCollection(
        longer, shorter, np.degrees(angle), units="xy", offsets=xy, offset_transform=ax.transData,
        facecolors="none", edgecolors=INK, linewidths=0.5, alpha=0.5, zorder=1.9,
    )  # fmt: skip
    ax.add_collection(outlines)
    ax.update_datalim(np.concatenate([xy - semi_axes[:, :1], xy + semi_axes[:, :1]]))
    return "ellipses: 95 % over texts drawn again"


def _one_or_all(area: np.ndarray) -> np.ndarray:
    """Give a single area where all are equal: an SVG then holds each mark once."""
    return area[:1] if (area == area[0]).all() else area


def _draw_paths(
    ax: Axes, xy: np.ndarray, table: pd.DataFrame, run: str, order: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Join the models of each path, in order; the lines drawn are returned for the labels to keep off."""
    if run not in table:
        raise InputError(f"the models have no attribute {run!r}{closest(run, map(str, table.columns))}")
    order_values = _scale(table, order, "the order of a path").values
    places = pd.DataFrame({"run": table[run], "order": order_values, "place": np.arange(len(table))}).dropna()
    lines = []
    for _, members in places.sort_values("order", kind="stable").groupby("run"):
        if len(members) > 1:
            x, y = xy[members["place"].to_numpy()].T
            ax.plot(x, y, color="#8c8c8c", linewidth=0.7, zorder=1.5, solid_joinstyle="round")
            lines.append((x, y))
    return lines


def _write_caption(ax: Axes, figure: Figure, parts: Sequence[str]) -> None:
    """Write a caption below the axes, in lines as wide as they are."""
    check_glyphs(parts)
    figure.draw_without_rendering()
    width = max(30, int(ax.get_window_extent().width / figure.dpi * 72 / 3.9))  # of letters 3.9 points wide
    lines = [""]
    for part in (part for text in parts if text for part in text.split(" · ")):
        longer = f"{lines[-1]} · {part}" if lines[-1] else part
        lines[-1:] = [longer] if len(longer) <= width else [lines[-1], part] if lines[-1] else [part]
    wrapped = "\n".join(textwrap.fill(line, width) for line in lines)
    ax.set_xlabel(wrapped, loc="left", fontsize=7.5, color="#606060", linespacing=1.4)


def _labels(
    model_map: ModelMap, painted: Groups | Scale | None, color: str | None, label: str | Sequence[str] | None
) -> tuple[np.ndarray, list[str], list[str]]:
    """Points to be labelled, their texts, and the texts' colours."""
    models = model_map.models
    if label is None:
        return np.array([], dtype=int), [], []
    if isinstance(label, str) and label != "model":
        groups = painted if label == color else read_attribute(models, label, max_groups=MOST_LABELS)
        if not isinstance(groups, Groups):
            raise InputError(f"label must be an attribute with names, {label!r} holds numbers or dates")
        return _group_labels(model_map.coordinates, groups, in_color=label == color)
    rows = np.arange(len(models)) if label == "model" else _positions(models, label)
    names = [shorten(str(name)) for name in models["model"].iloc[rows]]
    inks = [readable(painted.colors()[k]) if isinstance(painted, Groups) else INK for k in rows]
    return rows, names, inks


def _positions(models: pd.DataFrame, wanted: Sequence[str]) -> np.ndarray:
    place = {str(name): k for k, name in enumerate(models["model"])}
    place |= {str(row): k for k, row in enumerate(models.index)}
    unknown = [name for name in wanted if name not in place]
    if unknown:
        raise InputError(f"no model {unknown[0]!r} on this map{closest(unknown[0], place)}")
    return np.array([place[name] for name in wanted], dtype=int)


def _group_labels(
    xy: np.ndarray, groups: Groups, *, in_color: bool
) -> tuple[np.ndarray, list[str], list[str]]:
    spots = np.array([rows[_densest(xy[rows])] for rows in groups.members])
    names = [(GLYPHS[groups.mark(i)] if in_color else "") + groups.label(i) for i in range(len(spots))]
    inks = [readable(groups.color(i)) if in_color else INK for i in range(len(spots))]
    return spots, names, inks


def _densest(points: np.ndarray) -> int:
    """Which point has a quarter of the others nearest to it: a median may lie between two clusters."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return int(np.sort(apart, axis=1)[:, len(points) // 4].argmin())


def _place_labels(
    ax: Axes,
    xy: np.ndarray,
    rows: np.ndarray,
    names: list[str],
    inks: list[str],
    lines: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Put labels beside their points, off all points, lines and each other, with leaders."""
    if not names:
        return
    with contextlib.redirect_stdout(io.StringIO()):  # textalloc prints when it finds no room
        textalloc.allocate(
            ax,
            *xy[rows].T,
            names,
            x_scatter=xy[:, 0],
            y_scatter=xy[:, 1],
            x_lines=[x for x, _ in lines] or None,
            y_lines=[y for _, y in lines] or None,
            textsize=7.5 if len(names) > 12 else 8.5,
            textcolor=inks,
            linecolor=inks,
            linewidth=0.6,
            max_distance=0.15,
            min_distance=0.01,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
            zorder=4,
            avoid_crossing_label_lines=True,
        )
