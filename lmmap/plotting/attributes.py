"""Attributes: a column of a table of models as groups with colours and marks, or as a scale with a bar."""

from __future__ import annotations

import datetime
import numbers
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from lmmap.errors import InputError, closest
from lmmap.plotting.style import GREY, HUES, MARKS, check_glyphs, human, linear_ticks, log_ticks, shorten

MAX_GROUPS = len(HUES) * len(MARKS)
TITLES = {"n_parameters": "parameters", "height": "mean log-likelihood, nats per text"}
EPOCH, DAY = pd.Timestamp(0), pd.Timedelta(days=1)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


@dataclass(frozen=True)
class Groups:
    """Models of one value each, largest group first; what is too small for a colour of its own is grey."""

    title: str
    names: list[str]
    members: list[np.ndarray]
    rest: np.ndarray
    n_small_groups: int
    n_unknown: int

    def label(self, i: int) -> str:
        """Name of a group with its size: ``llama (212)``."""
        return f"{shorten(self.names[i])} ({len(self.members[i])})"

    def color(self, i: int) -> str:
        """Colour of a group; the hues repeat with another mark."""
        return HUES[i % len(HUES)]

    def mark(self, i: int) -> str:
        """Mark of a group."""
        return MARKS[i // len(HUES)]

    def colors(self) -> list[ColorType]:
        """Colour of every model."""
        by_model = {int(k): self.color(i) for i, rows in enumerate(self.members) for k in rows}
        return [by_model.get(k, GREY) for k in range(len(by_model) + len(self.rest))]

    def note(self) -> str:
        """Say what is grey, or nothing."""
        small = len(self.rest) - self.n_unknown
        kinds = [f"{small} models of {self.n_small_groups} smaller groups"] if small else []
        kinds += [f"{self.n_unknown} without {self.title}"] if self.n_unknown else []
        return f"grey: {', '.join(kinds)}" if kinds else ""

    def handles(self, *, marks: bool = True) -> list[Line2D]:
        """Entries of a legend, with the groups' marks or with squares."""
        entries = [(self.label(i), self.color(i), self.mark(i)) for i in range(len(self.names))]
        if len(self.rest):
            entries.append((f"other ({len(self.rest)})", GREY, "o"))
        return [
            Line2D(
                [], [], color=color, marker=mark if marks else "s", linestyle="", markersize=6, label=label
            )
            for label, color, mark in entries
        ]


@dataclass(frozen=True)
class Scale:
    """Models along a continuous attribute, for viridis; NaN where it is not known."""

    title: str
    values: np.ndarray
    norm: Normalize
    ticks: list[float]
    tick_labels: list[str]
    ends: tuple[str, str]

    def colors(self) -> list[ColorType]:
        """Colour of every model."""
        painted = ScalarMappable(self.norm, "viridis").to_rgba(
            np.nan_to_num(self.values, nan=np.nanmin(self.values))
        )
        return [tuple(c) if k else GREY for c, k in zip(painted, self.known, strict=True)]

    @property
    def known(self) -> np.ndarray:
        """Which models have a value."""
        known: np.ndarray = ~np.isnan(self.values)
        return known

    def note(self) -> str:
        """Say what is grey, or nothing."""
        missing = int((~self.known).sum())
        return f"grey: {missing} without {self.title}" if missing else ""

    def add_bar(self, *axes: Axes) -> None:
        """Put a colour bar to the right of the axes."""
        image = ScalarMappable(self.norm, "viridis")
        bar = axes[0].figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, pad=0.02, label=self.title)
        bar.set_ticks(self.ticks, labels=self.tick_labels)
        bar.minorticks_off()
        bar.outline.set_visible(False)


def read_attribute(table: pd.DataFrame, column: str, *, max_groups: int = 12) -> Groups | Scale:
    """Decide how a column is shown: numbers and dates as a scale, everything else as groups.

    Parameters
    ----------
    table : DataFrame
        K rows.
    column : str
        Which column; ``None``, NaN, infinity and empty text count as not known.
    max_groups : int
        How many groups get a colour, at most 32.

    Returns
    -------
    Groups or Scale
        A scale is logarithmic if its values are positive and span a decade, or begin at 0 and span two.

    Raises
    ------
    InputError
        If there is no such column, it holds no value, or ``max_groups`` is out of range.
    """
    if column not in table:
        raise InputError(f"the models have no attribute {column!r}{closest(column, map(str, table.columns))}")
    if not 1 <= max_groups <= MAX_GROUPS:
        raise InputError(f"max_groups must lie in 1..{MAX_GROUPS} (colours x marks), got {max_groups}")
    values = table[column].astype(object)
    values = values.mask(values.isna() | values.astype(str).isin(["", "inf", "-inf"]), None)
    known = values.dropna()
    if not len(known):
        raise InputError(f"no model has a value of {column!r}")
    title = TITLES.get(column, column)
    check_glyphs([title])
    if all(isinstance(v, numbers.Real) and not isinstance(v, bool | np.bool_) for v in known):
        return _number_scale(title, pd.to_numeric(values).to_numpy(dtype=np.float64))
    if all(isinstance(v, datetime.date) or DATE.fullmatch(str(v)) for v in known):
        dates = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce").dt.tz_localize(None)
        if dates[known.index].notna().all():
            return _date_scale(title, dates)
    return _groups(title, values, max_groups)


def _groups(title: str, values: pd.Series, max_groups: int) -> Groups:
    texts = values.map(str, na_action="ignore")
    sizes = texts.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    names = [str(name) for name in sizes.index[:max_groups]]
    check_glyphs(names)
    members = [np.flatnonzero(texts == name) for name in names]
    rest = np.flatnonzero(~texts.isin(names))
    return Groups(title, names, members, rest, len(sizes) - len(names), int(texts.isna().sum()))


def _number_scale(title: str, values: np.ndarray) -> Scale:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    positive = float(np.min(values, where=values > 0, initial=np.inf))
    norm: Normalize
    if low > 0 and high >= 10 * low:
        norm, ticks = LogNorm(low, high), log_ticks(low, high)
    elif low == 0 and high >= 100 * positive:
        norm = SymLogNorm(positive, linscale=0.5, vmin=0, vmax=high)
        ticks = [0.0, *log_ticks(positive, high)]
    elif low < high:
        norm, ticks = Normalize(low, high), linear_ticks(low, high)
    else:
        norm, ticks = Normalize(low - 0.5, low + 0.5), [low]
    return Scale(title, values, norm, ticks, [human(t) for t in ticks], (human(low), human(high)))


def _date_scale(title: str, dates: pd.Series) -> Scale:
    """Dates in days, with the coarsest calendar steps that give three ticks."""
    first, last = dates.min(), dates.max()
    calendar = {"YS": "%Y", "QS": "%Y-%m", "MS": "%Y-%m", "D": "%Y-%m-%d"}
    steps = {step: pd.date_range(first.ceil("D"), last, freq=step) for step in calendar}
    step = next((step for step, ticks in steps.items() if len(ticks) >= 3), "D")
    ticks = steps[step]
    ticks = ticks[:: -(-len(ticks) // 7)] if len(ticks) else pd.DatetimeIndex([first])
    days = ((dates - EPOCH) / DAY).to_numpy(dtype=np.float64)
    low, high = float(np.nanmin(days)), float(np.nanmax(days))
    norm = Normalize(low, high) if low < high else Normalize(low - 0.5, low + 0.5)
    ends = (first.strftime("%Y-%m-%d"), last.strftime("%Y-%m-%d"))
    labels = [t.strftime(calendar[step]) for t in ticks]
    return Scale(title, days, norm, [(t - EPOCH) / DAY for t in ticks], labels, ends)
