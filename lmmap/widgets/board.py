"""The board of a sweep: which model is where, how fast, how long still, and what failed."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmmap.scoring.progress import Progress

ENDED = ("done", "failed")
MOST_DONE = 5  # finished models that are still shown
COLUMNS = ("model", "device", "state", "texts", "tokens/s", "time left", "")


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

    def see(self, progress: Progress) -> str | None:
        """Take news; gives a line to print when a model has ended."""
        self.n_done = max(self.n_done, progress.models_done)
        self.heading = "" if self.heading == "starting" else self.heading
        if progress.state == "waiting":
            return None
        key = (progress.model, progress.state == "helping")
        self.rows.pop(key, None)  # so that the latest comes last
        self.rows[key] = progress
        if progress.state not in ENDED:
            return None
        self.rows.pop((progress.model, True), None)
        told = progress.reason or f"{progress.tokens_per_second:,.0f} tokens/s"
        return f"{self.n_done}/{self.n_models} models: {progress.model} {progress.state}, {told}"

    def html(self) -> str:
        """Draw the table: failures first, then what is at hand, then what was finished last."""
        failed = [p for p in self.rows.values() if p.state == "failed"]
        done = [p for p in self.rows.values() if p.state == "done"]
        at_hand = [p for p in self.rows.values() if p.state not in ENDED]
        left = min((p.seconds_left for p in at_hand if p.seconds_left == p.seconds_left), default=None)
        heading = [f"{self.n_done} of {self.n_models} models done"]
        heading += [f"{len(failed)} failed"] if failed else []
        heading += [f"about {duration(left)} left"] if left is not None else []
        heading += [self.heading] if self.heading else []
        lines = ["".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in COLUMNS)]
        lines += ["".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in _cells(p))
                  for p in (*failed, *at_hand, *done[-MOST_DONE:])]  # fmt: skip
        rows = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<b>{escape(', '.join(heading))}</b><table>{rows}</table>"


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
    >>> duration(59.2), duration(150), duration(9000)
    ('59 s', '2 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _cells(p: Progress) -> tuple[str, ...]:
    pace = f"{p.tokens_per_second:,.0f}" if p.tokens_per_second else ""
    known = p.state not in ENDED and p.seconds_left == p.seconds_left
    texts = f"{p.texts_done:,} of {p.n_texts:,}"
    return (p.model, p.device, p.state, texts, pace, duration(p.seconds_left) if known else "", p.reason)
