"""The board of a sweep: which model is where, how fast, how long still, and what failed."""

from __future__ import annotations

import math
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmmap.scoring.progress import Progress

ENDED = ("done", "failed")
MOST_DONE = 5  # finished models that are still shown
COLUMNS = {  # and to which side they are set
    "model": "left", "device": "left", "state": "left",
    "texts": "right", "tokens/s": "right", "time left": "right",
    "reason": "left",
}  # fmt: skip


class Board:
    """What is known of a sweep, from its progress.

    Parameters
    ----------
    n_models : int
        Models asked for.
    n_done : int
        Finished before.
    """

    def __init__(self, n_models: int, n_done: int) -> None:
        self.n_models, self.n_done = n_models, n_done
        self.rows: dict[tuple[str, bool], Progress] = {}  # by model and whether it is helped with
        self.heading = "starting"
        self.seconds_left, self.has_ended = math.nan, False

    def see(self, progress: Progress) -> str | None:
        """Take news; gives a line to print when a model has ended."""
        self.n_done = max(self.n_done, progress.models_done)
        self.heading = "" if self.heading == "starting" else self.heading
        if progress.state == "waiting":
            return None
        key = (progress.model, progress.state == "helping")
        self.rows.pop(key, None)  # so that the latest comes last
        self.rows[key] = progress
        at_hand = [p for p in self.rows.values() if _has_time(p)]
        if at_hand:  # as the fastest expects, but no model at hand is done sooner than itself
            soonest = min(p.seconds_left for p in at_hand)
            self.seconds_left = max(soonest, *(p.model_seconds_left for p in at_hand))
        if progress.state not in ENDED:
            return None
        self.rows.pop((progress.model, True), None)
        told = progress.reason or f"{progress.tokens_per_second:,.0f} tokens/s"
        return f"{self.n_done}/{self.n_models} models: {progress.model} {progress.state}, {told}"

    def end(self, heading: str) -> None:
        """Note that the sweep has ended, and how: nothing is at hand any more."""
        self.heading, self.has_ended = heading, True
        for key, progress in self.rows.items():
            if progress.state not in ENDED:
                self.rows[key] = replace(progress, state="stopped")

    def title(self) -> str:
        """Say in a line how far the sweep is."""
        n_failed = sum(p.state == "failed" for p in self.rows.values())
        words = [f"{self.n_done} of {self.n_models} models done"]
        words += [f"{n_failed} failed"] if n_failed else []
        if self.heading:
            words.append(self.heading)
        elif not math.isnan(self.seconds_left):
            words.append(f"about {duration(self.seconds_left)} left")
        return ", ".join(words)

    def html(self) -> str:
        """Draw the table: failures first, then what is at hand, then what was finished last."""
        failed = [p for p in self.rows.values() if p.state == "failed"]
        done = [p for p in self.rows.values() if p.state == "done"]
        at_hand = [p for p in self.rows.values() if p.state not in ENDED]
        empty = {"reason"} if not failed else set()
        empty |= {"time left"} if self.has_ended else set()
        columns = [name for name in COLUMNS if name not in empty]
        lines = [_line("th", {name: name for name in columns})]
        for progress in (*failed, *at_hand, *done[-MOST_DONE:]):
            cells = _cells(progress)
            lines.append(_line("td", {name: cells[name] for name in columns}))
        table = f"<table>{''.join(lines)}</table>" if self.rows else ""
        return f"<b>{escape(self.title())}</b>{table}"


def duration(seconds: float) -> str:
    """Say a time in the unit that suits it.

    Parameters
    ----------
    seconds : float
        How long.

    Returns
    -------
    str
        Seconds, minutes or hours.

    Examples
    --------
    >>> duration(59.2), duration(59.8), duration(150), duration(9000)
    ('59 s', '1 min', '2 min', '2.5 h')
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if round(seconds / 60) < 60 else f"{seconds / 3600:.1f} h"


def _has_time(p: Progress) -> bool:
    return p.state not in ENDED and not math.isnan(p.seconds_left)


def _cells(p: Progress) -> dict[str, str]:
    left = duration(p.model_seconds_left) if _has_time(p) else ""
    pace = f"{p.tokens_per_second:,.0f}" if p.tokens_per_second else ""
    texts = f"{p.texts_done:,} of {p.n_texts:,}"
    return dict(zip(COLUMNS, (p.model, p.device, p.state, texts, pace, left, p.reason), strict=True))


def _line(tag: str, cells: dict[str, str]) -> str:
    """One line of the table."""
    drawn = [
        f"<{tag} style='text-align:{COLUMNS[name]}'>{escape(text)}</{tag}>" for name, text in cells.items()
    ]
    return f"<tr>{''.join(drawn)}</tr>"
