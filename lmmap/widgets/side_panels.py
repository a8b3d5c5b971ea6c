"""Side panels: tables and pictures of what the map shows, each drawn when it is looked at."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd

from lmmap.explorer.distances import TEXT_LEVEL
from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.panels import neighbors, ranking
from lmmap.widgets.markup import number, png_of, sentence, table_of, with_error

MOST_RANKED = 40  # rows of the ranking that are shown
MOST_IN_HEATMAP = 120  # models


class Marks(NamedTuple):
    """What a reader has marked: the model chosen, those selected, and the attribute that colours."""

    chosen: str
    selected: tuple[str, ...]
    color: str


class Panel:
    """A tab beside the map."""

    title = ""
    box: Any  # a widget

    def __init__(self) -> None:
        self._said = ipywidgets.HTML()

    def draw(self, frame: Frame, marks: Marks) -> None:
        """Draw what the map shows, what is marked in particular."""
        raise NotImplementedError

    def refuse(self, reason: str) -> None:
        """Say why there is nothing to draw."""
        self._said.value = sentence(reason)


class NeighborsPanel(Panel):
    """Nearest neighbours of the chosen model."""

    title = "Neighbours"

    def __init__(self, explorer: Explorer) -> None:
        super().__init__()
        self._explorer = explorer
        self.box = ipywidgets.VBox([self._said])

    def draw(self, frame: Frame, marks: Marks) -> None:
        """Draw the table; without a chosen model say how to choose one."""
        chosen = marks.chosen
        if chosen not in frame.rows:
            self._said.value = sentence(
                "Click a model, or go to one with the keyboard: its neighbours come here."
            )
            return
        table = neighbors(self._explorer, frame, chosen)
        shown = pd.DataFrame(
            {
                "model": table["model"],
                "KL, nats per text": table["kl"].map(number),
                "KL, bits per byte": table["bits_per_byte"].map(number),
                "text level": table["text_level"].map(number),
                "its 95 %": [
                    f"{number(low)} to {number(high)}" if np.isfinite(high) else "not known"
                    for low, high in zip(table["low"], table["high"], strict=True)
                ],
            }
        )
        if frame.estimator == TEXT_LEVEL:
            shown = shown.drop(columns="text level").rename(columns={"its 95 %": "95 %"})
        name = str(frame.models["model"][chosen])
        head = f"Nearest to {name} on {frame.n_texts:,} texts, by {frame.estimator.replace('_', ' ')} KL"
        self._said.value = f"<b>{escape(head)}</b>{table_of(shown)}"


class RankingPanel(Panel):
    """Models by mean log-likelihood."""

    title = "Ranking"

    def __init__(self, explorer: Explorer) -> None:
        super().__init__()
        self._explorer = explorer
        self.box = ipywidgets.VBox([self._said])

    def draw(self, frame: Frame, marks: Marks) -> None:
        """Draw the best models, and those that are chosen or selected."""
        table = ranking(self._explorer, frame)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        marked = table.index.isin([marks.chosen, *marks.selected])
        picked = table[(table["rank"] <= MOST_RANKED) | marked]
        shown = pd.DataFrame(
            {
                "": picked["rank"],
                "model": [
                    f"▸ {name}" if m else name
                    for name, m in zip(picked["model"], marked[picked["rank"] - 1], strict=True)
                ],
                "nats per text": picked["height"].map("{:,.1f}".format),
                "bits per byte": picked["bits_per_byte"].map(number),
                "behind the best": [
                    with_error(v, e) for v, e in zip(picked["to_best"], picked["to_best_error"], strict=True)
                ],
                "before the next": [
                    with_error(v, e) for v, e in zip(picked["to_next"], picked["to_next_error"], strict=True)
                ],
            }
        )
        head = f"Mean log-likelihood on {frame.n_texts:,} texts, ± one standard error"
        left = len(table) - len(picked)
        more = sentence(f"and {left:,} more; select models to see where they stand") if left else ""
        self._said.value = f"<b>{head}</b>{table_of(shown)}{more}"


class HeatmapPanel(Panel):
    """KL of every pair of the selected models, with a dendrogram."""

    title = "Every pair"

    def __init__(self, explorer: Explorer) -> None:
        super().__init__()
        self._picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        self.box = ipywidgets.VBox([self._said, self._picture])

    def draw(self, frame: Frame, marks: Marks) -> None:
        """Draw the selected models, or all if they are few."""
        from lmmap.plotting import plot_kl_heatmap

        rows = [row for row in marks.selected if row in frame.rows]
        if len(rows) < 2:
            rows = list(frame.rows)
        if len(rows) > MOST_IN_HEATMAP:
            self.refuse(
                f"{len(rows):,} models are too many for one picture: select up to {MOST_IN_HEATMAP} of them."
            )
            return
        places = [frame.position(row) for row in rows]
        kl = pd.DataFrame(frame.kl[np.ix_(places, places)], index=rows, columns=rows)
        kl.attrs["estimator"] = frame.estimator.replace("_", " ")
        models = frame.models.assign(height=frame.height).loc[rows]
        self._picture.value = png_of(plot_kl_heatmap(kl, models=models, color=marks.color or None))
        self._picture.layout.display = ""
        self._said.value = ""

    def refuse(self, reason: str) -> None:
        """As `Panel.refuse`, without a picture."""
        super().refuse(reason)
        self._picture.layout.display = "none"
