"""Making the zoo: every model of the table that is not there yet, several at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from lmmap.demo.design import BLENDS, RUNS, SIZES, Blend, Run, recipe
from lmmap.demo.folders import is_made_by

_steps_done: Synchronized[int] | None = None  # in a worker: the counter that it shares with its parent


def make_zoo(
    zoo: Path,
    texts: Path,
    fingerprint: str,
    *,
    runs: Sequence[Run] = RUNS,
    blends: Sequence[Blend] = BLENDS,
    workers: int | None = None,
) -> list[str]:
    """Train every model that is missing or was made by another recipe.

    Parameters
    ----------
    zoo : Path
        Folder of the model folders.
    texts : Path
        Parquet file of the training texts.
    fingerprint : str
        Their fingerprint, a part of every recipe.
    runs, blends : sequence
        What the zoo is to hold.
    workers : int, optional
        Processes, of one thread each; as many as there are processors, at most 4, by default. The number
        changes no bit of the result.

    Returns
    -------
    list of str
        The runs and blends that were made now.
    """
    recipes = {run.name: recipe(run, fingerprint, runs) for run in runs}
    to_train = [run for run in runs if not _all_there(zoo, run, recipes[run.name])]
    of_blend = {
        b.name: {"first": recipes[b.first], "second": recipes[b.second], "share": b.share} for b in blends
    }
    to_blend = [blend for blend in blends if not is_made_by(zoo / blend.name, of_blend[blend.name])]
    if not (to_train or to_blend):
        return []
    zoo.mkdir(parents=True, exist_ok=True)
    longest_first = sorted(to_train, key=_cost, reverse=True)
    stages: list[list[tuple[Any, ...]]] = [
        [(_train, run, zoo, texts, recipes[run.name]) for run in longest_first if not run.base],
        [(_train, run, zoo, texts, recipes[run.name]) for run in longest_first if run.base],
        [(_blend, blend, zoo, of_blend[blend.name]) for blend in to_blend],
    ]
    _work_off(stages, workers or min(4, os.cpu_count() or 1), sum(run.steps for run in to_train))
    return [run.name for run in to_train] + [blend.name for blend in to_blend]


def _all_there(zoo: Path, run: Run, of_run: dict[str, Any]) -> bool:
    steps = {run.name: run.steps} | {f"{run.name}-step{step}": step for step in run.checkpoints}
    return all(is_made_by(zoo / name, {**of_run, "step": step}) for name, step in steps.items())


def _cost(run: Run) -> int:
    return run.steps * SIZES[run.size].hidden * SIZES[run.size].layers


def _work_off(stages: Sequence[Sequence[tuple[Any, ...]]], workers: int, n_steps: int) -> None:
    """Run each stage's calls in worker processes, started afresh: a fork would take threads' locks along."""
    context = get_context("spawn")
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (counter,))
    with pool, tqdm(total=n_steps, desc="training the zoo", unit="step", disable=None) as bar:
        try:
            for stage in stages:
                futures = [pool.submit(*call) for call in stage]
                running = set(futures)
                while running:
                    done, running = wait(running, timeout=0.5, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    bar.update(counter.value - bar.n)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(counter: Synchronized[int]) -> None:
    global _steps_done
    _steps_done = counter
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the parent is gone, even killed: a worker without one would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(run: Run, zoo: Path, texts: Path, of_run: dict[str, Any]) -> None:
    from transformers.utils import logging

    from lmmap.demo.training import train_run

    logging.disable_progress_bar()
    train_run(run, zoo, texts, of_run, _count_step)


def _count_step() -> None:
    if _steps_done is not None:
        with _steps_done.get_lock():
            _steps_done.value += 1


def _blend(blend: Blend, zoo: Path, of_blend: dict[str, Any]) -> None:
    from lmmap.demo.training import write_blend

    write_blend(blend, zoo, of_blend)
