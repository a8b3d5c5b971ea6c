"""The panel of two models: which texts separate them, and where in a text."""

from __future__ import annotations

from html import escape

import ipywidgets
import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.pairs import pieces_of_text, separating_texts
from lmmap.explorer.panels import shares_by_length, shares_by_source
from lmmap.segments import Segments
from lmmap.store import Store
from lmmap.token_records import read_segments
from lmmap.widgets.markup import number, sentence, table_of
from lmmap.widgets.side_panels import Marks, Panel

MOST_BYTES_MARKED = 4000  # of a text
STRONGEST = 3.0  # nats: the deepest colour
GAINS, LOSES = (46, 125, 50), (198, 40, 40)  # green and red; who cannot tell them has the sign when hovering


class PairPanel(Panel):
    """Two models side by side: which texts separate them, and where in a text."""

    title = "Two models"

    def __init__(self, explorer: Explorer, store: Store | None) -> None:
        super().__init__()
        self._explorer, self._store = explorer, store
        self._frame: Frame | None = None
        wide = {"width": "49%"}
        self.first, self.second = (ipywidgets.Dropdown(layout=wide) for _ in range(2))
        self.text = ipywidgets.Dropdown(layout={"width": "99%"})
        self._marked = ipywidgets.HTML()
        self._segments: tuple[tuple[str, str], Segments | None] | None = None
        self._quiet = False
        for box in (self.first, self.second):
            box.observe(lambda _: self._compare(), names="value")
        self.text.observe(lambda _: self._mark(), names="value")
        self.box = ipywidgets.VBox(
            [ipywidgets.HBox([self.first, self.second]), self._said, self.text, self._marked]
        )

    def draw(self, frame: Frame, marks: Marks) -> None:
        """Compare the two models selected, or the chosen one and its nearest neighbour."""
        self._frame = frame
        pair = [row for row in marks.selected if row in frame.rows]
        if len(pair) != 2:
            pair = [box.value for box in (self.first, self.second) if box.value in frame.rows]
            chosen = marks.chosen if marks.chosen in frame.rows else next(iter(pair), frame.rows[0])
            if len(pair) < 2 or chosen not in pair:
                kl = frame.kl[frame.position(chosen)].copy()
                kl[frame.position(chosen)] = np.inf
                pair = [chosen, frame.rows[int(kl.argmin())]]
        names = zip(frame.models["model"].astype(str), frame.rows, strict=True)
        options = sorted(names, key=lambda option: option[0].lower())
        self._quiet = True
        for box, row in zip((self.first, self.second), pair, strict=True):
            if tuple(box.options) != tuple(options):
                box.options = options
            box.value = row
        self._quiet = False
        self._compare()

    def refuse(self, reason: str) -> None:
        """As `Panel.refuse`, without a text."""
        super().refuse(reason)
        self._marked.value, self.text.options = "", []

    def _compare(self) -> None:
        if self._quiet or self._frame is None:
            return
        explorer, frame, pair = self._explorer, self._frame, (self.first.value, self.second.value)
        try:
            found = separating_texts(explorer, frame, *pair)
        except InputError as error:
            self.refuse(str(error))
            return
        i, j = (frame.position(row) for row in pair)
        one, other = (str(frame.models.loc[row, "model"]) for row in pair)
        head = f"{one} and {other}: KL {number(frame.kl[i, j])} nats per text"
        parts = []
        for split, word in ((shares_by_source, "by domain"), (shares_by_length, "by length, bytes")):
            try:
                parts.append(_shares(split(explorer, frame, *pair), word))
            except InputError as error:
                parts.append(sentence(str(error)))
        split_up = f"<div style='display:flex;flex-wrap:wrap;gap:24px'>{''.join(parts)}</div>"
        self._said.value = f"<b>{escape(head)}</b>{split_up}{_separating(found, one, other)}"
        places = {text_id: x for x, text_id in enumerate(explorer.scores.texts.index)}
        self._quiet = True
        begins = found.get("begins", found.index)
        self.text.options = [
            (f"{d:+,.0f} nats: {' '.join(str(begin).split())}", places[text_id])
            for text_id, d, begin in zip(found.index, found["difference"], begins, strict=True)
        ]
        self.text.value = self.text.options[0][1]
        self._quiet = False
        self._mark()

    def _mark(self) -> None:
        if self._quiet or self.text.value is None:
            return
        texts, pair = self._explorer.choices.texts, (self.first.value, self.second.value)
        segments = self._records(pair)
        if segments is None or texts is None:
            self._marked.value = sentence(
                "Token log-probabilities were not kept for both, so no text can be marked: score them again "
                "without --no-tokens."
            )
            return
        pieces = pieces_of_text(segments, self.text.value, texts[self.text.value])
        one, other = (str(self._explorer.scores.models.loc[row, "model"]) for row in pair)
        self._marked.value = marked(pieces, one, other)

    def _records(self, pair: tuple[str, str]) -> Segments | None:
        if self._segments is None or self._segments[0] != pair:
            store = self._store
            there = store is not None and store.has_tokens(pair)
            self._segments = pair, read_segments(store, models=pair) if store and there else None
        return self._segments[1]


def marked(pieces: pd.DataFrame, first: str, second: str) -> str:
    """Write a text with the difference of two models marked piece by piece.

    Parameters
    ----------
    pieces : DataFrame
        As `lmmap.explorer.pairs.pieces_of_text` gives.
    first, second : str
        Names.

    Returns
    -------
    str
        HTML: green where the first gains, red where it loses, the number when hovered. Texts are escaped.
    """
    spans = []
    for piece, difference, end in zip(pieces["piece"], pieces["difference"], pieces["end"], strict=True):
        if end > MOST_BYTES_MARKED:
            spans.append(" …")
            break
        if np.isnan(difference):
            spans.append(f"<span style='opacity:.5' title='read by no model'>{_visible(piece)}</span>")
            continue
        red, green, blue = GAINS if difference > 0 else LOSES
        alpha = 0.75 * min(abs(difference) / STRONGEST, 1)
        spans.append(
            f"<span style='background:rgba({red},{green},{blue},{alpha:.2f})' title='{difference:+.2f} nats'>"
            f"{_visible(piece)}</span>"
        )
    key = (
        f"<span style='background:rgba{(*GAINS, 0.6)}'>more likely</span> or "
        f"<span style='background:rgba{(*LOSES, 0.6)}'>less likely</span> to {escape(first)} than to "
        f"{escape(second)}; the deepest from {STRONGEST:g} nats on"
    )
    body = "".join(spans)
    return f"<p>{key}</p><pre style='white-space:pre-wrap;line-height:1.5' dir='auto'>{body}</pre>"


def _separating(found: pd.DataFrame, one: str, other: str) -> str:
    shown = pd.DataFrame(
        {
            "nats": [f"{d:+,.1f}" for d in found["difference"]],
            "beyond the mean": [f"{d:+,.1f}" for d in found["beyond_mean"]],
            "share": [f"{share:.1%}" for share in found["share"]],
        }
    )
    for name in ("source", "n_bytes"):
        if name in found:
            shown[name.replace("n_", "")] = found[name].to_numpy()
    if "begins" in found:
        shown["begins"] = [" ".join(text.split())[:48] for text in found["begins"]]
    head = (
        f"{one} gives these texts {found.attrs['mean']:+,.1f} nats more than {other} on average. Texts "
        "farthest from that, and their share of the text-level distance:"
    )
    return f"{sentence(head)}{table_of(shown)}"


def _shares(table: pd.DataFrame, word: str) -> str:
    shown = pd.DataFrame(
        {
            word: table.index,
            "texts": table["n_texts"].to_numpy(),
            "of the texts": [f"{share:.0%}" for share in table["share_of_texts"]],
            "of the distance": [f"{share:.0%}" for share in table["share"]],
        }
    )
    note = table.attrs["estimator"].replace("_", " ")
    return f"<div>{table_of(shown)}<small>by {escape(note)} KL</small></div>"


def _visible(piece: str) -> str:
    return escape(piece).replace("\n", "↵\n")
