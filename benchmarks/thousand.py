"""A thousand models: what the published analyses take, each beside the straightforward way.

Run from the root of the repository, with nothing else at work::

    python -m benchmarks.thousand -o benchmarks/thousand.md

Scores are synthetic (`lmmap.lookalike`), of the size of the published set, and are written as a score set
first. The straightforward way is numpy, scipy or scikit-learn on the columns, as one would write it; where it
would take very long, a part of it is done and multiplied. Where both ways have the same result, a difference
of more than 1e-8 of the largest value ends the run. With ``--large N`` the same number of models and texts,
N of each: load, centre, KL of all pairs, and neighbours without it, each in a process of its own.
"""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import click
import numpy as np
import pandas as pd
import sklearn
from threadpoolctl import threadpool_info

from benchmarks.plainly import (
    CLIPPED,
    PAIR_ROWS,
    errors_plainly,
    kl_plainly,
    perplexity,
    read_plainly,
    ridge_plainly,
    sorted_plainly,
    tsne_plainly,
)
from lmmap.analyses.folds import draw_folds
from lmmap.analyses.neighbors import nearest_models
from lmmap.analyses.prediction import ALPHAS, HEIGHT_ALPHAS, predict_benchmarks
from lmmap.error_bars.uncertainty import kl_intervals
from lmmap.geometry import clip_below, estimate_kl, height
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import make_benchmarks, make_lookalike
from lmmap.modelmap import fit_map
from lmmap.models import ModelSpec
from lmmap.store import Row, Store
from lmmap.texts import text_set

Array = np.ndarray
T = TypeVar("T")

ALIKE = 1e-8  # of the largest value
FOLDS, SEEDS = 5, 5
CHECKED = 20  # models of the large set whose neighbours are taken the straightforward way


class Timed(NamedTuple):
    """Seconds, the goal, seconds of the straightforward way with what it was, and how far the two differ."""

    what: str
    seconds: float
    goal: float | None
    plain: float | None = None
    plainly: str = ""
    off: float | None = None


@click.command(help=__doc__)
@click.option("--models", "n_models", default=1018, show_default=True)
@click.option("--texts", "n_texts", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--plain-folds", default=1, show_default=True, help="Folds that RidgeCV fits.")
@click.option("--large", type=int, help="Models, and texts, of a second, larger set.")
@click.option("--step", hidden=True, help="One step of the larger set, in this process.")
@click.option("--folder", hidden=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Markdown file to write.")
def main(
    n_models: int,
    n_texts: int,
    seed: int,
    plain_folds: int,
    large: int | None,
    step: str | None,
    folder: Path | None,
    output: Path | None,
) -> None:
    if step and folder:
        click.echo(STEPS[step](folder))
        return
    load = os.getloadavg()[0]
    with TemporaryDirectory() as temporary:
        made = measure(make_lookalike(n_models, n_texts, seed=seed), Path(temporary), seed, plain_folds)
    parts = [head(n_models, n_texts, load), *table(made), "", f"Peak memory {peak():.1f} GiB.", ""]
    if large:
        parts += measure_large(large, seed)
    report = "\n".join(parts)
    click.echo(report)
    if output:
        output.write_text(report, encoding="utf-8")


def measure(drawn: LogLikelihoods, folder: Path, seed: int, plain_folds: int) -> list[Timed]:
    write(drawn, folder / "run")
    found = []

    def note(done: Timed) -> None:
        click.echo(f"{done.what}: {done.seconds:.2f} s", err=True)
        found.append(done)

    store = Store(folder / "run")
    scores, took = timed(store.load)
    values, plain = timed(lambda: read_plainly(store))
    note(Timed("load", took, 2, plain, "pandas, file by file, no checks", difference(scores.values, values)))
    kl, took = timed(lambda: estimate_kl(clip_below(scores.values, quantile=CLIPPED)[0]))
    expected, plain = timed(lambda: kl_plainly(scores.values))
    note(Timed("clip, centre, all KL", took, 1, plain, "scipy's cdist", difference(kl, expected)))
    clipped = scores.clip_below(quantile=CLIPPED)
    intervals, took = timed(lambda: kl_intervals(clipped.values))
    expected, plain = timed(lambda: errors_plainly(clipped.values))
    off = difference(intervals.standard_error[:PAIR_ROWS], expected)
    told = f"numpy, pair by pair; {PAIR_ROWS} models × {len(kl) / PAIR_ROWS:.0f}"
    note(Timed("all standard errors and intervals", took, 5, plain * len(kl) / PAIR_ROWS, told, off))
    _, took = timed(lambda: fit_map(clipped, method="tsne", perplexity=perplexity(kl), seed=42))
    _, plain = timed(lambda: tsne_plainly(clipped.values))
    note(Timed("t-SNE with its KL and caption", took, 10, plain, "scikit-learn's PCA and TSNE on columns"))
    note(measure_prediction(clipped, drawn, seed, plain_folds))
    neighbors, took = timed(lambda: nearest_models(clipped.values, 10))
    nearest, plain = timed(lambda: sorted_plainly(clipped.values))
    note(
        Timed(
            "ten neighbours, blockwise",
            took,
            None,
            plain,
            "all KL, sorted",
            difference(neighbors[1], nearest),
        )
    )
    return found


def measure_prediction(scores: LogLikelihoods, drawn: LogLikelihoods, seed: int, plain_folds: int) -> Timed:
    """Predict seven targets; fit the first folds of the first seed by RidgeCV on the columns."""
    named = make_benchmarks(drawn, seed).filter(like="score_")
    named.index = pd.Index(drawn.models["model"])
    targets = named.loc[scores.models["model"]].set_axis(scores.models.index)
    options = {"groups": "family", "n_folds": FOLDS, "seed": seed}
    _, took = timed(lambda: predict_benchmarks(scores, targets, n_seeds=SEEDS, **options))
    found = predict_benchmarks(scores, targets, n_seeds=1, **options)
    Y, h = targets.to_numpy(), height(scores.values)
    known = np.isfinite(Y).all(axis=1)
    folds = draw_folds(scores.models, known, "family", FOLDS, seed)
    off = plain = 0.0
    for fold in range(plain_folds):
        train, test = known & (folds != fold), known & (folds == fold)
        ways = ((scores.values - h[:, None], ALPHAS, found.predicted),)
        for X, alphas, ours in (*ways, (h[:, None], HEIGHT_ALPHAS, found.predicted_from_mean)):
            made, seconds = timed(
                lambda X=X, a=alphas, train=train, test=test: ridge_plainly(X, Y, train, test, a)
            )
            plain += seconds
            off = max(off, difference(ours.to_numpy()[test], made))
    whole = FOLDS * SEEDS / plain_folds
    told = (
        f"RidgeCV on columns, all targets at once; {plain_folds} fold{'s'[: plain_folds - 1]} × {whole:.0f}"
    )
    return Timed("prediction: 7 targets, group folds, 5 seeds", took, 60, plain * whole, told, off)


def write(scores: LogLikelihoods, folder: Path) -> None:
    """Write a score set without token records."""
    n = len(scores.texts)
    words = [f"synthetic text {i}, of which only the scores were drawn" for i in range(n)]
    store = Store.create(folder, text_set(words, sources=list(scores.texts["source"])))
    measured = ("model", "n_parameters")
    attributes = scores.models.drop(columns=[c for c in measured if c in scores.models]).to_dict("records")
    names = scores.models["model"]
    specs = [ModelSpec(name, name, attributes=a) for name, a in zip(names, attributes, strict=True)]
    store.request(specs)
    counts, nothing = np.zeros(n, int), [np.zeros(0, np.int32)] * n
    made = {"tokenization": "none", "prefix": "none", "dtype": "none", "n_tokens": 0, "flags": []}
    for spec, row, size in zip(specs, scores.values, scores.models["n_parameters"], strict=True):
        told = made | {"n_parameters": int(size)}
        store.write_row(spec.row_id, Row(row, counts, counts, None, nothing, nothing, told), {"seconds": 0.0})


def measure_large(n: int, seed: int) -> list[str]:
    """Write a large set, and do each step in a process of its own, whose memory is told."""
    rows = ["| step | seconds | peak GiB | |", "| --- | ---: | ---: | --- |"]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for step in ("draw", "all", "neighbors"):
            command = [sys.executable, "-m", "benchmarks.thousand", "--step", step, "--folder", str(folder)]
            done = subprocess.run(
                command, env={**os.environ, "LMMAP_LARGE": f"{n},{seed}"}, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            if done.returncode:
                raise click.ClickException(f"{step}: {done.stderr.strip()[-2000:]}")
            click.echo(done.stdout, err=True)
            rows += [line for line in done.stdout.splitlines() if line.startswith("|")][step == "draw" :]
    return [f"## {n:,} models x {n:,} texts", "", *rows, ""]


def draw_large(folder: Path) -> str:
    n, seed = map(int, os.environ["LMMAP_LARGE"].split(","))
    write(make_lookalike(n, n, seed=seed), folder / "run")
    return ""


def all_large(folder: Path) -> str:
    scores, loaded = timed(Store(folder / "run").load)
    lines = [f"| load | {loaded:.1f} | {peak():.1f} | a file for each model, checked |"]
    kl, took = timed(lambda: estimate_kl(scores.values))
    lines.append(f"| centre and all KL | {took:.1f} | {peak():.1f} | goal with load: 60 s, 8 GiB |")
    np.save(folder / "some.npy", kl[:CHECKED])
    return "\n".join(lines)


def neighbors_large(folder: Path) -> str:
    scores = Store(folder / "run").load()
    (_, kl), took = timed(lambda: nearest_models(scores.values, 10))
    some = np.load(folder / "some.npy")
    some[np.arange(CHECKED), np.arange(CHECKED)] = np.inf
    off = difference(kl[:CHECKED], np.sort(some, axis=1)[:, :10])
    if off > ALIKE:
        raise click.ClickException(f"neighbours differ by {off:.1e}")
    return (
        f"| ten neighbours, blockwise | {took:.1f} | {peak():.1f} | of {CHECKED} models compared with all "
        f"KL: off {off:.0e} |"
    )


STEPS: dict[str, Callable[[Path], str]] = {"draw": draw_large, "all": all_large, "neighbors": neighbors_large}


def difference(one: Array, other: Array) -> float:
    off = float(np.abs(one - other).max() / np.abs(other).max())
    if not np.isfinite(off):  # NaN is not larger than any limit
        raise click.ClickException("a result is not finite: there is nothing to compare")
    return off


def timed(ask: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    answer = ask()
    return answer, time.perf_counter() - begun


def peak() -> float:
    """GiB of memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def head(n_models: int, n_texts: int, load: float) -> str:
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    return (
        "# A thousand models\n\n"
        f"{n_models:,} models x {n_texts:,} texts, synthetic. {platform.machine()}, {os.cpu_count()} cores, "
        f"{threads} thread{'s'[: threads - 1]} (load {load:.1f} when begun: others at work make it slower), "
        f"numpy {np.__version__}, scikit-learn {sklearn.__version__}, Python {platform.python_version()}. "
        "Seconds; *off* is the largest difference of results, of the largest value. Made by\n\n"
        f"    python -m benchmarks.thousand {shlex.join(sys.argv[1:])}\n"
    )


def table(found: list[Timed]) -> list[str]:
    lines = [
        "| | seconds | goal | straightforward | × | which is | off |",
        f"|{' --- |' + 4 * ' ---: |'} --- | ---: |",
    ]
    for row in found:
        if row.off is not None and row.off > ALIKE:
            raise click.ClickException(f"{row.what}: results differ by {row.off:.1e} of the largest value")
        goal = "" if row.goal is None else f"{row.goal:g}"
        plain = ["", ""] if row.plain is None else [f"{row.plain:.2f}", f"{row.plain / row.seconds:.1f}"]
        off = "" if row.off is None else f"{row.off:.0e}"
        lines.append(
            f"| {row.what} | {row.seconds:.2f} | {goal} | {' | '.join(plain)} | {row.plainly} | {off} |"
        )
    return lines


if __name__ == "__main__":
    main()
