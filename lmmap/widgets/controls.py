"""Controls: what a reader ticks, slides and types, read as the fields of a view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd

from lmmap.explorer.frames import Explorer
from lmmap.explorer.views import View
from lmmap.plotting.attributes import Scale, read_attribute
from lmmap.plotting.style import human

FEW_VALUES = 6  # of a number: up to so many are listed, more have a slider
WIDE = {"width": "100%"}
LABELLED = {"description_width": "72px"}
Changed = Callable[[], None]


class TextControls:
    """Which texts are used: domains, lengths, words, a random share, or some by id.

    Parameters
    ----------
    explorer : Explorer
        The score set.
    changed : callable
        Called when a reader has changed something.
    """

    def __init__(self, explorer: Explorer, changed: Changed) -> None:
        self.domains = {
            name: ipywidgets.Checkbox(
                value=True, description=f"{name} ({n:,})", indent=False, layout={"width": "auto"}
            )
            for name, n in explorer.sources.items()
        }
        self.all = ipywidgets.Button(description="All", tooltip="Tick all domains", layout={"width": "64px"})
        self.none = ipywidgets.Button(
            description="None", tooltip="Untick all domains", layout={"width": "64px"}
        )
        n_bytes = explorer.scores.texts.get("n_bytes", pd.Series([0]))
        self._shortest, self._longest = int(n_bytes.min()), int(n_bytes.max())
        self.lengths = ipywidgets.IntRangeSlider(
            value=(self._shortest, self._longest), min=self._shortest, max=self._longest, description="bytes",
            style=LABELLED, layout=WIDE, disabled=self._shortest == self._longest,
        )  # fmt: skip
        self.contains = ipywidgets.Text(
            description="containing", placeholder="words, then Enter", continuous_update=False,
            style=LABELLED, layout=WIDE,
        )  # fmt: skip
        self.share = ipywidgets.FloatLogSlider(
            value=1, base=10, min=-2, max=0, step=0.05, description="share", readout_format=".0%",
            style=LABELLED, layout=WIDE,
        )  # fmt: skip
        self.seed = ipywidgets.BoundedIntText(
            value=0, min=0, max=2**31 - 1, description="seed", style=LABELLED, layout={"width": "160px"}
        )
        self.ids = ipywidgets.Textarea(
            placeholder="text ids, one a line; none: all", continuous_update=False, layout=WIDE
        )
        self._choices, self._changed, self._quiet = explorer.choices, changed, False
        self._exact: dict[str, tuple[Any, Any]] = {}
        for box in (*self.domains.values(), self.lengths, self.contains, self.share, self.seed, self.ids):
            box.observe(self._hear, names="value")
        self.all.on_click(lambda _: self._tick(True))
        self.none.on_click(lambda _: self._tick(False))
        scrolled = {"max_height": "275px", "overflow": "auto"}
        listed = ipywidgets.VBox(list(self.domains.values()), layout=scrolled)
        by_id = ipywidgets.Accordion(children=[self.ids], titles=("by id",), selected_index=None)
        buttons = [ipywidgets.HBox([self.all, self.none])] if len(self.domains) > 1 else []
        self.box = ipywidgets.VBox(
            [*buttons, listed, self.lengths, self.contains, self.share, self.seed, by_id]
        )

    def fields(self) -> dict[str, Any]:
        """Read the fields of a view.

        Returns
        -------
        dict
            Those that choose texts.

        Raises
        ------
        InputError
            If no domain is ticked.
        """
        ticked = [name for name, box in self.domains.items() if box.value]
        low, high = self.lengths.value
        return {
            "sources": self._choices.ticked(ticked) if self.domains else (),
            "min_bytes": low if low > self._shortest else 0,
            "max_bytes": high if high < self._longest else 0,
            "contains": self.contains.value,
            "share": round(float(self.share.value), 4),
            "seed": self.seed.value,
            **self._unmoved(),
            "texts": tuple(line.strip() for line in self.ids.value.splitlines() if line.strip()),
        }

    def put(self, view: View) -> None:
        """Show the texts of a view.

        Parameters
        ----------
        view : View
            A view that can be drawn.
        """
        self._quiet = True
        try:
            for name, box in self.domains.items():
                box.value = not view.sources or name in view.sources
            low = min(max(view.min_bytes, self._shortest), self._longest)
            high = max(min(view.max_bytes or self._longest, self._longest), low)
            self.lengths.value = (low, high)
            self.contains.value, self.ids.value = view.contains, "\n".join(view.texts)
            self.share.value, self.seed.value = view.share, view.seed
            self._exact = {"share": (view.share, self.share.value), "seed": (view.seed, self.seed.value)}
        finally:
            self._quiet = False

    def _unmoved(self) -> dict[str, Any]:
        """Give what a view has more exactly than a control can show, as long as that is not moved."""
        shown = {"share": self.share.value, "seed": self.seed.value}
        return {name: exact for name, (exact, at) in self._exact.items() if shown[name] == at}

    def _tick(self, value: bool) -> None:
        self._quiet = True
        for box in self.domains.values():
            box.value = value
        self._quiet = False
        self._changed()

    def _hear(self, _: object) -> None:
        if not self._quiet:
            self._changed()


class ModelControls:
    """Which models are shown: by name, by an attribute's values, or those selected on the map.

    Parameters
    ----------
    explorer : Explorer
        The score set.
    selected : callable
        Gives the row ids that are selected.
    changed : callable
        Called when a reader has changed something.
    """

    def __init__(self, explorer: Explorer, selected: Callable[[], list[str]], changed: Changed) -> None:
        self._table, self._selected, self._changed = explorer.scores.models, selected, changed
        self.rows: tuple[str, ...] = ()  # those shown; all if empty
        self._among = np.ones(len(self._table), dtype=bool)  # where name and attribute are looked for
        self._quiet = False
        self._values = pd.Series(dtype=object)  # of the attribute
        self.name = ipywidgets.Text(
            description="name", placeholder="part of it, then Enter", continuous_update=False,
            style=LABELLED, layout=WIDE,
        )  # fmt: skip
        self.attribute = ipywidgets.Dropdown(
            options=[("by attribute", ""), *((name.replace("_", " "), name) for name in explorer.attributes)],
            layout=WIDE,
        )
        self.values = ipywidgets.VBox([])
        words = {"only selected": self._only, "without selected": self._without, "all": self._all}
        self.buttons = {
            word: ipywidgets.Button(description=word.capitalize(), layout={"width": "auto"}) for word in words
        }
        for word, press in words.items():
            self.buttons[word].on_click(press)
        self.told = ipywidgets.Label()
        self.name.observe(self._filter, names="value")
        self.attribute.observe(self._offer, names="value")
        row = ipywidgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([self.name, self.attribute, self.values, row, self.told])
        self._tell()

    def put(self, rows: tuple[str, ...]) -> None:
        """Show some models.

        Parameters
        ----------
        rows : tuple of str
            Row ids; all if empty.
        """
        self._look_among(self._table.index.isin(rows) if rows else np.ones(len(self._table), dtype=bool))
        self._show(self._among)

    def _look_among(self, some: np.ndarray) -> None:
        """Begin anew with some models, without a name or an attribute."""
        self._among, self._quiet = some, True
        try:
            self.name.value, self.attribute.value = "", ""
        finally:
            self._quiet = False

    def _offer(self, _: object) -> None:
        """Offer the values of the chosen attribute."""
        chooser = []
        if self.attribute.value:
            self._values, labels = _read(self._table, self.attribute.value)
            chooser = [_chooser(self._values, labels)]
            chooser[0].observe(self._filter, names="value")
        self.values.children = chooser
        self._filter(None)

    def _filter(self, _: object) -> None:
        """Keep the models of which the name and the attribute are as asked for."""
        if self._quiet:
            return
        kept = self._table["model"].astype(str).str.contains(self.name.value, case=False, regex=False)
        if self.values.children:
            kept &= _among(self._values, self.values.children[0])
        self._keep(kept.to_numpy() & self._among)

    def _only(self, _: object) -> None:
        self._begin_with(self._shown & self._table.index.isin(self._selected()))

    def _without(self, _: object) -> None:
        self._begin_with(self._shown & ~self._table.index.isin(self._selected()))

    @property
    def _shown(self) -> np.ndarray:
        every = np.ones(len(self._table), dtype=bool)
        return self._table.index.isin(self.rows) if self.rows else every

    def _begin_with(self, some: np.ndarray) -> None:
        if some.any():
            self._look_among(some)
        self._keep(some)

    def _all(self, _: object) -> None:
        self._begin_with(np.ones(len(self._table), dtype=bool))

    def _keep(self, kept: np.ndarray) -> None:
        if not kept.any():
            self.told.value = "no model fits; the models shown stay"
            return
        self._show(kept)
        self._changed()

    def _show(self, kept: np.ndarray) -> None:
        self.rows = () if kept.all() else tuple(map(str, self._table.index[kept]))
        self._tell()

    def _tell(self) -> None:
        n, k = len(self._table), len(self.rows) or len(self._table)
        self.told.value = f"{k:,} of {n:,} models"


def _chooser(values: pd.Series, labels: dict[Any, str]) -> Any:  # noqa: ANN401 - ipywidgets has no types
    """Offer values: a slider over many numbers or dates, a list of anything else."""
    if values.dtype.kind == "f" and len(labels) > FEW_VALUES:
        options = [(label, value) for value, label in sorted(labels.items())]
        return ipywidgets.SelectionRangeSlider(options=options, index=(0, len(options) - 1), layout=WIDE)
    counts = values.value_counts()
    order = sorted(counts.index) if values.dtype.kind == "f" else list(counts.index)
    options = [(f"{labels[value]} ({counts[value]:,})", value) for value in order]
    return ipywidgets.SelectMultiple(
        options=options, value=tuple(order), rows=min(len(options), 6), layout=WIDE
    )


def _read(table: pd.DataFrame, name: str) -> tuple[pd.Series, dict[Any, str]]:
    """Give an attribute's values, dates in days and groups as text, and how each is written."""
    given, painted = table[name], read_attribute(table, name)
    if not isinstance(painted, Scale):
        words: pd.Series = given.map(str, na_action="ignore").astype(object)
        return words, {value: value for value in words.dropna()}
    values = pd.Series(painted.values, table.index, dtype=np.float64)
    is_number = pd.api.types.is_numeric_dtype(given)
    written = {v: human(v) if is_number else str(g)[:10] for v, g in zip(values, given, strict=True)}
    return values, {value: text for value, text in written.items() if np.isfinite(value)}


def _among(values: pd.Series, chooser: Any) -> pd.Series:  # noqa: ANN401
    """Tell which values are chosen; unknown ones are as long as nothing is left out."""
    if isinstance(chooser, ipywidgets.SelectionRangeSlider):
        is_whole = chooser.index == (0, len(chooser.options) - 1)
        among = values.between(*chooser.value)
    else:
        is_whole = len(chooser.value) == len(chooser.options)
        among = values.isin(chooser.value)
    kept: pd.Series = among | (values.isna() & is_whole)
    return kept
