"""The explorer: a map that answers at once when models or texts are chosen, and panels beside it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np

from lmmap.errors import InputError
from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.opening import open_explorer
from lmmap.explorer.views import View, read_view
from lmmap.recipes import SHOWN
from lmmap.store import MEASURED, Store
from lmmap.widgets.controls import LABELLED, WIDE, ModelControls, TextControls
from lmmap.widgets.map_table import map_table
from lmmap.widgets.map_widget import MapWidget, with_picture
from lmmap.widgets.pair_panel import PairPanel
from lmmap.widgets.side_panels import HeatmapPanel, NeighborsPanel, Panel, RankingPanel
from lmmap.widgets.take_away import HeightPanel, TakePanel

LIVE = ("pca", "mds")
SECONDS_TO_SETTLE = 0.3  # after the last change: exact positions, the whole caption, the panels
SIDE = {"width": "250px", "flex": "0 0 250px", "min_width": "200px"}
BESIDE = {"flex": "1 1 0", "min_width": "0"}


def explore(
    run: Store | str | Path | Explorer,
    view: View | str | Path | None = None,
    *,
    store: Store | None = None,
    clip: float = 0.0,
    figure: Any = None,  # noqa: ANN401 - matplotlib
) -> LiveExplorer:
    """Show the explorer of a score set, and a picture where it cannot be shown.

    Parameters
    ----------
    run : Store, folder, or Explorer
        A score set.
    view : View, or file, optional
        What to look at first; a file as "Save view" writes it. Without a colour, the first attribute
        that puts models into groups is shown.
    store : Store, optional
        Where an explorer that is given has its token records, which mark a text for two models.
    clip : float
        Clip at this quantile of all scores first, for text level.
    figure : matplotlib Figure, optional
        The picture; by default `lmmap.plotting.plot_map` of the view.

    Returns
    -------
    LiveExplorer
        ``selected`` and ``view`` hold what a reader has chosen so far, ``frame`` what is drawn.

    Raises
    ------
    InputError
        If there is no score set, the view does not fit it, or there is nothing to draw.
    """
    view = read_view(view) if isinstance(view, str | Path) else view or View()
    if not isinstance(run, Explorer):
        store = run if isinstance(run, Store) else Store(run)
        run = open_explorer(store, clip=clip)
    live = LiveExplorer(run, replace(view, color=view.color or _grouping(run)), store=store)
    with_picture(live.box, _picture(live.frame) if figure is None else figure)
    return live


class LiveExplorer:
    """Controls, map and panels of one score set, put together.

    Parameters
    ----------
    explorer : Explorer
        The score set.
    view : View
        What to look at first.
    store : Store, optional
        Where token records are read from, for two models side by side, and what commands name.

    Raises
    ------
    InputError
        If the view cannot be drawn.

    Attributes
    ----------
    map : MapWidget
        The map.
    frame : Frame
        What it shows.
    texts, models : TextControls, ModelControls
        What is chosen.
    box : Widget
        All of it.
    """

    def __init__(self, explorer: Explorer, view: View, *, store: Store | None = None) -> None:
        self.explorer, self.frame = explorer, explorer.frame(view)
        self._ticket, self._settling, self._quiet = 0, None, True
        table = explorer.scores.models
        kept = [name for name in table if name in ("model", *explorer.attributes, "error_var", "flags")]
        heights = explorer.scores.values.mean(axis=1)
        described = table[kept].assign(**{"mean log-likelihood": heights})
        self.map = MapWidget(table=map_table(described), color=view.color)
        self.map.selected = list(view.selected)
        self.texts = TextControls(explorer, self._changed)
        self.models = ModelControls(explorer, lambda: list(self.map.selected), self._changed)
        self.method = ipywidgets.Dropdown(
            options=[(SHOWN[name], name) for name in SHOWN], description="method", style=LABELLED, layout=WIDE
        )
        known = [(name.replace("_", " "), name) for name in explorer.estimators]
        self.estimator = ipywidgets.Dropdown(
            options=[("recommended", ""), *known], description="KL by", style=LABELLED, layout=WIDE
        )
        self.again = ipywidgets.Button(
            description="Draw", icon="refresh", tooltip="Draw t-SNE or UMAP again", layout={"width": "auto"}
        )
        self.take = TakePanel(self, str(store.path) if store else "")
        self.panels: list[Panel] = [
            NeighborsPanel(explorer), RankingPanel(explorer), HeatmapPanel(explorer),
            HeightPanel(self.map), PairPanel(explorer, store), self.take,
        ]  # fmt: skip
        self.tabs = ipywidgets.Tab(
            children=[panel.box for panel in self.panels], titles=[panel.title for panel in self.panels]
        )
        self.put(view)
        for box in (self.method, self.estimator):
            box.observe(lambda _: self._changed(), names="value")
        self.again.on_click(lambda _: self._changed())
        self.map.observe(lambda _: self._draw_panel(), names=["selected", "chosen", "color"])
        self.tabs.observe(lambda _: self._draw_panel(), names="selected_index")
        self.box = self._laid_out()

    @property
    def view(self) -> View:
        """What is looked at now: what is drawn, with the present selection and colour."""
        return replace(self.frame.view, color=self.map.color, selected=tuple(self.map.selected))

    @property
    def selected(self) -> list[str]:
        """Row ids of the selected models."""
        return list(self.map.selected)

    def put(self, view: View) -> None:
        """Open a view.

        Parameters
        ----------
        view : View
            What to look at.

        Raises
        ------
        InputError
            If it cannot be drawn; what is drawn stays.
        """
        frame = self.explorer.frame(view, self.frame)
        self._ticket += 1
        self._quiet = True
        self.texts.put(view)
        self.models.put(frame.rows if view.models else ())
        self.method.value, self.estimator.value = view.method, view.estimator
        self.map.color, self.map.selected = view.color, list(view.selected)
        self._quiet = False
        self._finish(frame)

    def _asked(self) -> View:
        """Read the controls."""
        return View(
            models=self.models.rows, method=self.method.value, estimator=self.estimator.value,
            color=self.map.color, selected=tuple(self.map.selected), **self.texts.fields(),
        )  # fmt: skip

    def _changed(self) -> None:
        """Draw what is asked for; if that cannot be drawn, say why and leave the last map."""
        if self._quiet:
            return
        self._ticket += 1
        try:
            view = self._asked()
            if view.method not in LIVE:
                self._draw_slowly(view)
                return
            frame = self.explorer.frame(view, self.frame, settle=False)
        except InputError as error:
            self.map.message = str(error)
            return
        self.frame = frame
        self.map.show(frame.rows, frame.coordinates, caption=frame.headline)
        self._later(SECONDS_TO_SETTLE, self._settle)

    def _settle(self) -> None:
        """Put models to their exact places, once the hand rests."""
        self._finish(self.explorer.frame(self.frame.view, self.frame))

    def _finish(self, frame: Frame) -> None:
        """Show a frame, and what takes a moment: how far to trust it, and the panel that is open."""
        self.frame = frame
        self.map.show(frame.rows, frame.coordinates, caption=frame.caption)
        self._draw_panel()

    def _draw_panel(self) -> None:
        if self._quiet:
            return
        frame = replace(self.frame, view=self.view)
        try:
            self.panels[self.tabs.selected_index or 0].draw(frame, self.map.chosen, self.selected)
        except InputError as error:
            self.map.message = str(error)

    def _draw_slowly(self, view: View) -> None:
        """Draw a layout that takes seconds, beside the kernel's own work; a newer wish drops it."""
        ticket, start = self._ticket, time.monotonic()
        word = SHOWN[view.method]

        def tell() -> None:
            if ticket == self._ticket:
                spent = time.monotonic() - start
                self.map.message = f"{word} of {np.count_nonzero(shown):,} models: {spent:.0f} s so far"
                self._later(1, tell)

        def draw() -> None:
            try:
                frame: Frame | str = self.explorer.frame(view, self.frame)
            except InputError as error:
                frame = str(error)
            loop.call_soon_threadsafe(self._arrived, frame, ticket)

        shown = self.explorer.models_of(view)
        self.explorer.texts_of(view)  # what cannot be drawn is refused at once
        running = _running_loop()
        if running is None:
            self._arrived(self.explorer.frame(view, self.frame), ticket)
            return
        loop = running
        tell()
        threading.Thread(target=draw, daemon=True).start()

    def _arrived(self, drawn: Frame | str, ticket: int) -> None:
        """Show what took a while, or why it cannot be, unless something newer was asked for."""
        if ticket != self._ticket:
            return
        self._ticket += 1  # nobody counts seconds any more
        if isinstance(drawn, str):
            self.map.message = drawn
            return
        self._finish(drawn)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call after a while unless something newer comes first; at once where nothing runs meanwhile."""
        loop, ticket = _running_loop(), self._ticket

        def call_if_newest() -> None:
            if ticket == self._ticket:
                call()

        if loop is None:
            call()
        else:
            loop.call_later(seconds, call_if_newest)

    def _laid_out(self) -> Any:  # noqa: ANN401 - ipywidgets has no types
        drawing = ipywidgets.VBox([self.method, self.estimator, self.again])
        choices = ipywidgets.Accordion(
            children=[self.texts.box, self.models.box, drawing], titles=("Texts", "Models", "Drawing"),
            selected_index=0, layout=SIDE,
        )  # fmt: skip
        top = ipywidgets.HBox(
            [choices, ipywidgets.Box([self.map], layout={**BESIDE, "display": "block"})], layout=WIDE
        )
        return ipywidgets.VBox([top, self.tabs])


def _picture(frame: Frame) -> Any:  # noqa: ANN401
    from lmmap.plotting import plot_map
    from lmmap.plotting.attributes import MAX_GROUPS

    return plot_map(frame.map, color=frame.view.color or None, max_groups=MAX_GROUPS).figure


def _grouping(explorer: Explorer) -> str:
    """Name the first attribute that puts models into groups; empty if there is none."""
    table = explorer.scores.models
    few = max(2, len(table) // 3)
    groups = (
        name
        for name in explorer.attributes
        if name not in MEASURED and table[name].dtype.kind not in "iuf" and table[name].nunique() <= few
    )
    return next(groups, "")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
