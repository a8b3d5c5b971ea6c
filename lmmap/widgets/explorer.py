"""The explorer: a map that answers at once when models or texts are chosen, and panels beside it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets

from lmmap.errors import InputError
from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.views import View
from lmmap.recipes import SHOWN
from lmmap.store import Store
from lmmap.widgets.controls import LABELLED, WIDE, ModelControls, TextControls
from lmmap.widgets.map_table import map_table
from lmmap.widgets.map_widget import MapWidget
from lmmap.widgets.pair_panel import PairPanel
from lmmap.widgets.side_panels import HeatmapPanel, Marks, NeighborsPanel, Panel, RankingPanel
from lmmap.widgets.take_away import HeightPanel, TakePanel

LIVE = ("pca", "mds")
HEIGHT = "mean log-likelihood, all texts"  # a column of the map: `height` in a view
SECONDS_TO_SETTLE = 0.3  # after the last change: exact positions, the whole caption, the panels
SIDE = {"width": "250px", "flex": "0 0 250px", "min_width": "200px"}
BESIDE = {"flex": "1 1 0", "min_width": "0"}


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
        self._quiet, self._ticket, self._refused, self._panel_due = True, 0, "", False
        self._drawing = False
        self._wanted: View | None = None
        table = explorer.scores.models
        described = table.assign(**{HEIGHT: explorer.scores.values.mean(axis=1)})
        self.map = MapWidget(table=map_table(described))
        self.texts = TextControls(explorer, self._changed)
        self.models = ModelControls(explorer, lambda: self.selected, self._changed)
        self.method = ipywidgets.Dropdown(
            options=[(SHOWN[name], name) for name in SHOWN], description="method", style=LABELLED, layout=WIDE
        )
        known = [(name.replace("_", " "), name) for name in explorer.estimators]
        self.estimator = ipywidgets.Dropdown(
            options=[("recommended", ""), *known], description="KL by", style=LABELLED, layout=WIDE
        )
        self.again = ipywidgets.Button(
            description="Draw", tooltip="t-SNE and UMAP take seconds", disabled=True
        )
        self.take = TakePanel(self, str(store.path) if store else "")
        self.panels: list[Panel] = [
            NeighborsPanel(explorer), RankingPanel(explorer), HeatmapPanel(explorer),
            HeightPanel(self.map), PairPanel(explorer, store), self.take,
        ]  # fmt: skip
        self.tabs = ipywidgets.Tab(
            children=[panel.box for panel in self.panels], titles=[panel.title for panel in self.panels]
        )
        self._put(view, self.frame)
        for box in (self.method, self.estimator):
            box.observe(lambda _: self._changed(), names="value")
        self.again.on_click(lambda _: self._changed(draw=True))
        self.map.observe(lambda _: self._draw_panel_soon(), names=["selected", "chosen", "color"])
        self.tabs.observe(lambda _: self._draw_panel_soon(), names="selected_index")
        self.box = self._laid_out()

    @property
    def view(self) -> View:
        """What is looked at now: what is drawn, with the present selection and colour."""
        return replace(self.frame.view, color=self._color, selected=tuple(self.map.selected))

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
        self._put(view, self.explorer.frame(view, self.frame))

    def _put(self, view: View, frame: Frame) -> None:
        self._ticket += 1
        self._quiet, self._refused = True, ""
        try:
            self.texts.put(view)
            self.models.put(frame.rows if view.models else ())
            self.method.value, self.estimator.value = view.method, view.estimator
            self.again.disabled = view.method in LIVE
            self.map.color = HEIGHT if view.color == "height" else view.color
            self.map.selected = list(self.explorer.choices.rows_of(view.selected))
        finally:
            self._quiet = False
        self._finish(frame)

    @property
    def _color(self) -> str:
        return "height" if self.map.color == HEIGHT else str(self.map.color)

    def _asked(self) -> View:
        """Read the controls."""
        return View(
            models=self.models.rows, method=self.method.value, estimator=self.estimator.value,
            clip=self.explorer.clip, color=self._color, selected=tuple(self.map.selected),
            **self.texts.fields(),
        )  # fmt: skip

    def _changed(self, *, draw: bool = False) -> None:
        """Draw what is asked for; if that cannot be drawn, say why and leave the last map."""
        if self._quiet:
            return
        try:
            view = self._asked()
            self.again.disabled = view.method in LIVE
            if view.method not in LIVE:
                self._draw_slowly(view) if draw else self._ask_to_press()
                return
            frame = self.explorer.frame(view, self.frame, settle=False)
        except InputError as error:
            self._say(str(error))
            return
        self._ticket += 1
        self._refused, self._wanted = "", None
        self.frame = frame
        self.map.show(frame.rows, frame.coordinates, caption=frame.headline)
        self._later(SECONDS_TO_SETTLE, self._settle)

    def _say(self, sentence: str) -> None:
        self._refused = self.map.message = sentence

    def _settle(self) -> None:
        """Put models to their exact places, once the hand rests."""
        self._finish(self.explorer.frame(self.frame.view, self.frame))

    def _finish(self, frame: Frame) -> None:
        """Show a frame, and what takes a moment: how far to trust it, and the panel that is open."""
        self.frame = frame
        self.map.show(frame.rows, frame.coordinates, caption=frame.caption)
        self.map.message = self._refused
        self._draw_panel()

    def _draw_panel_soon(self) -> None:
        """Draw the open panel once for all that a message from the browser changes."""
        if not self._quiet and not self._panel_due:
            self._panel_due = True
            self._soon(self._draw_panel)

    def _draw_panel(self) -> None:
        self._panel_due = False
        panel = self.panels[self.tabs.selected_index or 0]
        try:
            panel.draw(self.frame, Marks(self.map.chosen, tuple(self.map.selected), self._color))
        except InputError as error:
            panel.refuse(str(error))

    def _ask_to_press(self) -> None:
        word = SHOWN[self.method.value]
        self._say(f"{word} does not follow at once: press Draw for {word} of what is chosen now")

    def _draw_slowly(self, view: View) -> None:
        """Draw a layout that takes seconds, beside the kernel's own work, one at a time."""
        self.explorer.models_of(view)
        self.explorer.texts_of(view)  # what cannot be drawn is refused at once
        loop = _running_loop()
        if loop is None:
            self._ticket += 1
            self._refused = ""
            self._finish(self.explorer.frame(view, self.frame))
            return
        self._wanted = view
        if self._drawing:  # the newest wish is drawn next
            return
        self._drawing, self._ticket = True, self._ticket + 1
        self._count_seconds(self._ticket, time.monotonic(), SHOWN[view.method])
        threading.Thread(target=self._compute, args=(view, loop), daemon=True).start()

    def _count_seconds(self, ticket: int, start: float, word: str) -> None:
        if ticket == self._ticket and self._drawing:
            self._say(f"{word} is being computed: {time.monotonic() - start:.0f} s so far")
            self._later(1, lambda: self._count_seconds(ticket, start, word))

    def _compute(self, view: View, loop: asyncio.AbstractEventLoop) -> None:
        try:
            drawn: Frame | str = self.explorer.frame(view, self.frame)
        except Exception as error:  # whatever a layout meets, a reader is told
            drawn = str(error) if isinstance(error, InputError) else f"{SHOWN[view.method]} failed: {error!r}"
        loop.call_soon_threadsafe(self._arrived, view, drawn)

    def _arrived(self, view: View, drawn: Frame | str) -> None:
        """Show what took a while, or why it cannot be, unless something newer was asked for."""
        self._drawing = False
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        if wanted != view:
            self._draw_slowly(wanted)
            return
        self._ticket += 1
        if isinstance(drawn, str):
            self._say(drawn)
            return
        self._refused = ""
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

    def _soon(self, call: Callable[[], None]) -> None:
        loop = _running_loop()
        if loop is None:
            call()
        else:
            loop.call_soon(call)

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


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
