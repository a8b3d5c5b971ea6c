"""Progress: where a sweep stands, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands, as one process sees it.

    Parameters
    ----------
    model : str
        Name of the model at hand.
    state : str
        ``loading``, ``scoring``, ``helping`` (with a row of another process), ``done``, ``failed``, or
        ``waiting`` for what others have at hand.
    models_done, n_models : int
        Models finished, by anyone, and asked for.
    texts_done, n_texts : int
        Texts of the model at hand.
    tokens_per_second : float
        Of the model at hand, checks not counted.
    seconds_left : float
        For this model and, at its pace for each text, for the others.
    reason : str
        Why a model failed.
    device : str
        Where it is scored.
    model_seconds_left : float
        For this model alone.
    """

    model: str
    state: str
    models_done: int
    n_models: int
    texts_done: int = 0
    n_texts: int = 0
    tokens_per_second: float = 0.0
    seconds_left: float = float("nan")
    reason: str = ""
    device: str = ""
    model_seconds_left: float = float("nan")


class Pace:
    """Counts texts and tokens against the clock.

    Parameters
    ----------
    progress : Progress
        Where the sweep stands.
    n_processes : int
        How many processes share the models that are left.
    """

    def __init__(self, progress: Progress, n_processes: int) -> None:
        self.progress, self.n_processes = progress, n_processes
        self.begin()

    @property
    def tokens_per_second(self) -> float:
        """Scored tokens over the time since the first batch."""
        return self.tokens / max(time.monotonic() - self.start, 1e-9)

    def begin(self) -> None:
        """Start the clock."""
        self.start = time.monotonic()
        self.tokens = self.skipped = 0
        self.progress = replace(self.progress, texts_done=0)

    def skip(self, n_sequences: int) -> None:
        """Count sequences that are there already, or were scored elsewhere."""
        self.skipped += n_sequences
        p = self.progress
        self.progress = replace(p, texts_done=min(p.texts_done + n_sequences, p.n_texts))

    def after(self, n_tokens: int, n_sequences: int) -> Progress:
        """Count a batch."""
        self.tokens += n_tokens
        p = self.progress
        texts = min(p.texts_done + n_sequences, p.n_texts)
        per_text = (time.monotonic() - self.start) / max(texts - self.skipped, 1)
        others = max(p.n_models - p.models_done - 1, 0) * p.n_texts / self.n_processes
        self.progress = replace(
            p,
            texts_done=texts,
            tokens_per_second=self.tokens_per_second,
            seconds_left=per_text * (p.n_texts - texts + others),
            model_seconds_left=per_text * (p.n_texts - texts),
        )
        return self.progress
