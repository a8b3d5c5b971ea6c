"""Several processes on one score set: each takes rows by claim, one tells the progress of all."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmmap.models import ModelSpec
from lmmap.scoring.sweep import Progress, score_models
from lmmap.store import Store

SECONDS_BETWEEN_LOOKS = 0.2


def score_models_in_processes(
    store: Store,
    specs: Sequence[ModelSpec],
    *,
    workers: int,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **options: Any,  # noqa: ANN401 - those of score_models
) -> dict[str, str]:
    """Score models with several processes on one machine; worth it for models too small to fill the cores.

    Parameters
    ----------
    store : Store
        The score set.
    specs : sequence of ModelSpec
        The models.
    workers : int
        How many processes.
    threads : int, optional
        Threads of each; by default the cores are shared out.
    on_progress : callable, optional
        Called in this process with every worker's `Progress`.
    **options
        As `score_models`.

    Returns
    -------
    dict
        Row id -> reason, for the models that failed.

    Raises
    ------
    OSError
        If the disk is full; finished rows stay.
    RuntimeError
        If a worker was ended from outside; what it had finished stays.
    """
    if workers == 1:
        return score_models(store, specs, threads=threads, on_progress=on_progress, **options)
    options["threads"] = threads or max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    news: Any = context.Queue()
    started = [
        context.Process(target=_work, args=(store.path, list(specs), news, options), daemon=True)
        for _ in range(workers)
    ]
    for process in started:
        process.start()
    failed: dict[str, str] = {}
    try:
        while any(process.is_alive() for process in started) or not news.empty():
            try:
                message = news.get(timeout=SECONDS_BETWEEN_LOOKS)
            except queue.Empty:
                continue
            if isinstance(message, Progress):
                on_progress(message)
            elif isinstance(message, OSError):
                raise message
            else:
                failed |= message
    finally:
        for process in started:
            process.terminate()
            process.join()
    codes = [process.exitcode for process in started if process.exitcode]
    if codes:
        raise RuntimeError(
            f"{len(codes)} of {workers} workers ended with exit status {codes[0]}; start again"
        )
    return failed


def _work(path: Path, specs: list[ModelSpec], news: Any, options: dict[str, Any]) -> None:  # noqa: ANN401
    try:
        news.put(score_models(Store(path), specs, on_progress=news.put, **options))
    except OSError as error:
        news.put(error)
