"""A sweep: every model of a list claimed, scored and written; what fails is listed, the rest goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmmap.files import DISK_FULL
from lmmap.models import ModelSpec
from lmmap.parts import Parts
from lmmap.scoring.encode import Tokenized
from lmmap.scoring.row import MAX_ERROR_VAR, release, score_row
from lmmap.scoring.score import Job
from lmmap.store import Store

SECONDS_BETWEEN_PARTS = 30.0
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands.

    Parameters
    ----------
    model : str
        Name of the model at hand.
    state : str
        ``loading``, ``scoring``, ``done`` or ``failed``.
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


def score_models(
    store: Store,
    specs: Sequence[ModelSpec],
    *,
    device: str = "cpu",
    threads: int | None = None,
    token_budget: int | None = None,
    max_error_var: float = MAX_ERROR_VAR,
    keep_tokens: bool = True,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, str]:
    """Score every model of a list that is not finished; several processes may do so in one folder.

    Parameters
    ----------
    store : Store
        The score set.
    specs : sequence of ModelSpec
        The models.
    device : str
        Where to score.
    threads : int, optional
        Threads on a CPU; recorded, since bits depend on it. All cores by default.
    token_budget : int, optional
        Most padded tokens in a batch.
    max_error_var : float
        Noise in nats^2 above which a model whose list names no dtype is scored in a finer precision.
    keep_tokens : bool
        Whether the log-probability of every token is kept.
    on_progress : callable, optional
        Called with a `Progress` after every batch and every model.

    Returns
    -------
    dict
        Row id -> reason, for the models that failed.

    Raises
    ------
    OSError
        If the disk is full; finished rows stay.
    torch.AcceleratorError
        If the GPU is lost to this process; the row is recorded as failed.
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    store.request(specs)
    failed: dict[str, str] = {}
    cut: dict[str, Tokenized] = {}
    options = {"device": device, "token_budget": token_budget, "max_error_var": max_error_var}
    options |= {"keep_tokens": keep_tokens}
    waiting = sorted(specs, key=_size, reverse=True)
    while waiting:
        held_elsewhere = []
        for spec in waiting:
            if store.is_done(spec.row_id):
                continue
            with store.claim(spec.row_id) as mine:
                if not mine:
                    held_elsewhere.append(spec)
                elif not store.is_done(spec.row_id):
                    done = sum(store.is_done(s.row_id) for s in specs)
                    progress = Progress(spec.name, "loading", done, len(specs), n_texts=len(store.texts))
                    try:
                        progress = _score_row(store, spec, progress, on_progress, cut, options)
                    except Exception as error:
                        if isinstance(error, OSError) and error.errno in DISK_FULL:
                            raise
                        store.write_failure(spec.row_id, error)
                        failed[spec.row_id] = str(error)
                        on_progress(replace(progress, state="failed", reason=str(error)))
                        if isinstance(error, torch.AcceleratorError):  # the device is lost to this process
                            raise
                    release()
        waiting = held_elsewhere
        if waiting:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return failed


def _score_row(
    store: Store,
    spec: ModelSpec,
    progress: Progress,
    on_progress: Callable[[Progress], None],
    cut: dict[str, Tokenized],
    options: Mapping[str, Any],
) -> Progress:
    start = time.monotonic()
    on_progress(progress)
    texts = store.texts.texts
    pace = _Pace(replace(progress, state="scoring"))

    def begin(job: Job) -> _Kept:
        return _Kept(job, store.parts(spec.row_id, job.hash), pace, on_progress)

    policies = {key: store.scoring[key] for key in ("prefix", "long_texts")}
    row = score_row(spec, texts, begin=begin, cut=cut, **options, **policies)
    seconds = time.monotonic() - start
    journal = {
        "seconds": round(seconds, 3),
        "tokens_per_second": round(pace.tokens_per_second, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": os.getpid(),
    }
    store.write_row(spec.row_id, row, journal)
    progress = replace(
        pace.progress, state="done", models_done=progress.models_done + 1, texts_done=len(texts)
    )
    on_progress(progress)
    return progress


class _Kept:
    """The work on one row: what finished batches are on disk is not done again, and new ones join them."""

    def __init__(self, job: Job, parts: Parts, pace: _Pace, on_progress: Callable[[Progress], None]) -> None:
        self.job, self.parts, self.pace, self.on_progress = job, parts, pace, on_progress
        self.values, self.unsaved = parts.read(), dict[int, np.ndarray]()
        pace.begin(sum(len(job.batches[number]) for number in self.values))

    def numbers(self) -> Iterator[int]:
        yield from (number for number in range(len(self.job.batches)) if number not in self.values)

    def keep(self, number: int, values: np.ndarray) -> None:
        self.values[number] = self.unsaved[number] = values
        self.on_progress(self.pace.after(len(values), len(self.job.batches[number])))
        if self.pace.seconds_since_save() > SECONDS_BETWEEN_PARTS:
            self.parts.write(self.unsaved)
            self.unsaved.clear()
            self.pace.saved()

    def collect(self) -> Mapping[int, np.ndarray]:
        return self.values


class _Pace:
    """Counts texts and tokens against the clock."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.begin(0)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(time.monotonic() - self.start, 1e-9)

    def begin(self, n_sequences: int) -> None:
        """Start the clock, behind sequences that are there already."""
        self.start = self.last_save = time.monotonic()
        self.tokens, self.skipped = 0, n_sequences
        self.progress = replace(self.progress, texts_done=min(n_sequences, self.progress.n_texts))

    def after(self, n_tokens: int, n_sequences: int) -> Progress:
        self.tokens += n_tokens
        p = self.progress
        texts = min(p.texts_done + n_sequences, p.n_texts)
        per_text = (time.monotonic() - self.start) / max(texts - self.skipped, 1)
        left = per_text * (p.n_texts - texts + p.n_texts * (p.n_models - p.models_done - 1))
        self.progress = replace(
            p, texts_done=texts, tokens_per_second=self.tokens_per_second, seconds_left=left
        )
        return self.progress

    def seconds_since_save(self) -> float:
        return time.monotonic() - self.last_save

    def saved(self) -> None:
        self.last_save = time.monotonic()


def _size(spec: ModelSpec) -> float:
    """Order rows longest first: bytes on disk, or the number of parameters that the list names."""
    if not spec.is_local:
        return float(spec.attributes.get("n_parameters", 0))
    path = Path(spec.source)
    files = path.glob("*.safetensors") if path.is_dir() else [path] if path.exists() else []
    return float(sum(file.stat().st_size for file in files))
