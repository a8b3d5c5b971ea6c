"""Explorer: how fast a map follows a choice of texts and models, and that it is the map made anew.

Run from the root of the repository, with nothing else at work::

    python -m benchmarks.explorer -o benchmarks/explorer.md

Scores are synthetic (`lmmap.lookalike`), of the size of the published maps. Beside each change the same is
done the straightforward way: cut the columns out, double-centre, Gram matrix, all its axes. A difference of
more than 1e-8 of the largest value ends the run.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import click
import numpy as np
from threadpoolctl import threadpool_info

from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.panels import neighbors, ranking, shares_by_source
from lmmap.explorer.views import View
from lmmap.geometry import double_center
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import make_lookalike

Array = np.ndarray
T = TypeVar("T")

N_TOGGLES = 12
ALIKE = 1e-8  # of the largest value
PLAIN = 3  # of the views of a row are made the straightforward way too


class Timed(NamedTuple):
    """Seconds of each repeat, and of the straightforward way, and how far the two differ."""

    what: str
    seconds: list[float]
    plain: list[float]
    off: float


@click.command(help=__doc__)
@click.option("--models", "n_models", default=1018, show_default=True)
@click.option("--texts", "n_texts", default=10_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Markdown file to write.")
def main(n_models: int, n_texts: int, seed: int, output: Path | None) -> None:
    load, _, _ = os.getloadavg()
    scores, made = timed(lambda: make_lookalike(n_models, n_texts, seed=seed))
    report = "\n".join([head(scores, made, load), *table(measure(scores)), ""])
    click.echo(report)
    if output:
        output.write_text(report, encoding="utf-8")


def measure(scores: LogLikelihoods) -> list[Timed]:
    """Time everything that a hand can ask for."""
    explorer = Explorer(scores)
    whole, opened = timed(lambda: explorer.frame(View()))
    names = list(explorer.sources)
    toggles = [
        View() if i % 2 else View(sources=[name for name in names if name != names[i // 2 % len(names)]])
        for i in range(N_TOGGLES)
    ]
    rows = list(scores.models.index)
    lengths = scores.texts["n_bytes"].to_numpy()
    some = [View(models=rows[i :: 2 + i]) for i in range(N_TOGGLES // 2)]
    shares = [View(share=0.5 + i / 100) for i in range(N_TOGGLES)]
    limits = [View(min_bytes=int(limit)) for limit in np.quantile(lengths, np.linspace(0.02, 0.2, 6))]
    draws = [View(share=0.5, seed=i) for i in range(1, 7)]
    found = [Timed("open: sums of all domains, axes from nothing", [opened], [], 0.0)]
    for what, views in (
        ("tick a domain off and on", toggles),
        ("drag the share of texts, 1 % at a time", shares),
        ("raise the least length", limits),
        ("half of all texts, drawn anew", draws),
        ("fewer models", some),
    ):
        click.echo(what, err=True)
        found.append(follow(explorer, whole, what, views))
    chosen = rows[:: max(1, len(rows) // N_TOGGLES)][1:]
    intervals = [timed(partial(neighbors, explorer, whole, row))[1] for row in chosen]
    domains = [timed(partial(shares_by_source, explorer, whole, row, rows[0]))[1] for row in chosen]
    return [
        *found,
        Timed("neighbours of a model with intervals", intervals, [], 0.0),
        Timed("share of a distance by domain", domains, [], 0.0),
        Timed("caption: neighbours kept", [timed(lambda: whole.caption)[1]], [], 0.0),
        Timed("ranking with error bars", [timed(partial(ranking, explorer, whole))[1]], [], 0.0),
    ]


def follow(explorer: Explorer, frame: Frame, what: str, views: Sequence[View]) -> Timed:
    """Go from view to view, and make some of the maps the straightforward way."""
    seconds, plain, off = [], [], 0.0
    for i, view in enumerate(views):
        frame, took = timed(partial(explorer.frame, view, frame))
        seconds.append(took)
        if i < PLAIN:
            (kl, positions), took = timed(partial(straightforward, frame))
            plain.append(took)
            off = max(off, difference(frame.kl, kl), difference(apart(frame.coordinates), apart(positions)))
    if off > ALIKE:
        raise click.ClickException(f"{what}: maps differ by {off:.1e} of the largest value")
    return Timed(what, seconds, plain, off)


def straightforward(frame: Frame) -> tuple[Array, Array]:
    """Give KL and positions from the scores of the models and texts of a frame."""
    Q = double_center(frame.scores.values[frame.shown][:, frame.texts]) / np.sqrt(frame.n_texts)
    gram = Q @ Q.T
    squares = np.diag(gram)
    values, vectors = np.linalg.eigh(gram)
    return (squares[:, None] + squares - 2 * gram) / 2, vectors[:, -2:] * np.sqrt(values[-2:])


def apart(positions: Array) -> Array:
    """Distances of all points, which rotation leaves as they are."""
    squares: Array = ((positions[:, None] - positions) ** 2).sum(axis=-1)
    return np.sqrt(squares)


def difference(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def timed(ask: Callable[[], T]) -> tuple[T, float]:
    begun = time.perf_counter()
    answer = ask()
    return answer, time.perf_counter() - begun


def head(scores: LogLikelihoods, made: float, load: float) -> str:
    k, n = scores.values.shape
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    return (
        "# The explorer's speed\n\n"
        f"{k:,} models x {n:,} texts in {scores.texts['source'].nunique()} domains, synthetic, drawn in "
        f"{made:.1f} s; text level, float64, positions to the last digits. {platform.machine()}, "
        f"{os.cpu_count()} cores (load {load:.1f} when begun: others at work make it slower), "
        f"numpy {np.__version__}, Python {platform.python_version()}. Milliseconds. The explorer leaves half "
        f"of the cores to what draws its maps; *anew* is the straightforward way of numpy on {threads} "
        "threads, *off* how far its distances and positions are from ours, of the largest. Made by\n\n"
        f"    python -m benchmarks.explorer {shlex.join(sys.argv[1:])}\n"
    )


def table(found: Sequence[Timed]) -> list[str]:
    lines = ["| | median | most | anew | off |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in found:
        anew = [f"{1e3 * median(row.plain):.0f}", f"{row.off:.0e}"] if row.plain else ["", ""]
        cells = [f"{1e3 * median(row.seconds):.1f}", f"{1e3 * max(row.seconds):.1f}", *anew]
        lines.append(f"| {row.what} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
