"""Taking away: the selection as text, the view as a command or a file, the map as a page; and its heights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np

from lmmap.errors import InputError
from lmmap.explorer.frames import Frame
from lmmap.explorer.views import read_view
from lmmap.files import whole_file
from lmmap.widgets.controls import WIDE
from lmmap.widgets.map_widget import MapWidget
from lmmap.widgets.page import write_page
from lmmap.widgets.side_panels import Marks, Panel

if TYPE_CHECKING:
    from lmmap.widgets.explorer import LiveExplorer


class HeightPanel(Panel):
    """The map's first axis, and how good each model is: a second view of the same models."""

    title = "Height"

    def __init__(self, first: MapWidget) -> None:
        self.map = MapWidget(table=first.table, color=first.color)
        for name in ("selected", "chosen", "color"):
            ipywidgets.link((first, name), (self.map, name))
        self.box = ipywidgets.VBox([self.map])

    def draw(self, frame: Frame, marks: Marks) -> None:
        """Draw the first axis across and the mean log-likelihood up, both as wide as tall."""
        across = frame.coordinates[:, 0]
        up = frame.height - frame.height.mean()
        stretch = np.ptp(across) / np.ptp(up) if np.ptp(up) > 0 else 1.0
        low, high = frame.height.min(), frame.height.max()
        self.map.show(
            frame.rows,
            np.column_stack([across, up * stretch]),
            caption=f"across: first axis of the map · up: mean log-likelihood, {low:,.1f} to {high:,.1f} "
            f"nats per text, stretched to the same width · {frame.n_texts:,} texts",
        )


class TakePanel(Panel):
    """What can be copied, saved and opened again.

    Parameters
    ----------
    live : LiveExplorer
        Whose view it is.
    run : str
        Folder of the score set, for the command.
    """

    title = "Take away"

    def __init__(self, live: LiveExplorer, run: str) -> None:
        self._live, self._run = live, run
        self.ids = ipywidgets.Textarea(rows=4, layout=WIDE)
        self.command, self.alone = (ipywidgets.Textarea(rows=3, layout=WIDE) for _ in range(2))
        self.path = ipywidgets.Text(value="view.json", layout={"width": "50%"})
        self.save = ipywidgets.Button(description="Save view", icon="save")
        self.open = ipywidgets.Button(description="Open view", icon="folder-open")
        self.page = ipywidgets.Button(
            description="Write page", icon="file-code-o", tooltip="The map as one HTML file"
        )
        self.said = ipywidgets.HTML()
        self.save.on_click(lambda _: self._try(self._save))
        self.open.on_click(lambda _: self._try(self._open))
        self.page.on_click(lambda _: self._try(self._write))
        buttons = ipywidgets.HBox([self.path, self.save, self.open, self.page])
        self.box = ipywidgets.VBox([
            ipywidgets.Label("Selected models"), self.ids,
            ipywidgets.Label("This view as a command, to be run where notebooks/ is"), self.command,
            ipywidgets.Label("The selected models alone"), self.alone,
            ipywidgets.Label("This view as a file, or the map as a page that needs nothing"), buttons,
            self.said,
        ])  # fmt: skip

    def draw(self, frame: Frame, marks: Marks) -> None:
        """Write the selection and the command."""
        view = self._live.view
        self.ids.value = "\n".join(view.selected)
        run = str(Path(self._run).resolve()) if self._run else "RUN"
        self.command.value = view.command(run)
        alone = replace(view, models=view.selected, selected=())
        self.alone.value = alone.command(run) if len(view.selected) > 1 else ""

    def _file(self, suffix: str) -> Path:
        name = self.path.value.strip()
        if not name or name.endswith("/"):
            raise InputError("there is no name of a file: write one")
        known = (".json", ".html")
        stem = name.removesuffix(known[0]).removesuffix(known[1])
        return Path(stem + suffix).resolve()

    def _save(self) -> str:
        path = self._file(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(self._live.view.to_json() + "\n", encoding="utf-8")
        return f"saved as {path}"

    def _open(self) -> str:
        path = self._file(".json")
        self._live.put(read_view(path))
        return f"opened {path}"

    def _write(self) -> str:
        frame, view = self._live.frame, self._live.view
        path = write_page(
            self._file(".html"),
            frame.models.assign(height=frame.height),
            frame.coordinates,
            color=view.color or None,
            caption=frame.caption,
            title="Map of models",
            neighbors=frame.kl,
        )
        return f"written: {path}, {path.stat().st_size / 1000:,.0f} kB"

    def _try(self, action: Callable[[], str]) -> None:
        try:
            told = action()
        except (InputError, OSError, ValueError) as error:  # ValueError: what no path can hold
            told = str(error)
        self.said.value = f"<p>{escape(told)}</p>"
