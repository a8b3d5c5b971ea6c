"""Coverage of error bars: how often an interval holds the true value, by simulation.

    python -m benchmarks.coverage -o benchmarks/coverage.md

Differences between models are drawn from distributions whose variance is known, light tails to heavy, as
texts on their own and in documents of ten that share half of the variance.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lmmap.error_bars.comparisons import is_closer, rank_models
from lmmap.error_bars.resampling import bootstrap_weights, ellipses, position_covariances
from lmmap.error_bars.uncertainty import KLIntervals, kl_intervals
from lmmap.layouts import principal_axes

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _lognormal(sigma: float) -> Draw:
    spread = np.sqrt(np.expm1(sigma**2) * np.exp(sigma**2))
    return lambda rng, shape: rng.lognormal(0, sigma, shape) / spread


DRAWS: dict[str, Draw] = {  # each of variance 1
    "Gaussian": lambda rng, shape: rng.standard_normal(shape),
    "Laplace": lambda rng, shape: rng.laplace(size=shape) / np.sqrt(2),
    "Student t, 5 df": lambda rng, shape: rng.standard_t(5, shape) / np.sqrt(5 / 3),
    "log-normal, sigma 0.5": _lognormal(0.5),
    "Gaussian, 5 % of it five times as wide": lambda rng, shape: (
        rng.standard_normal(shape) * np.where(rng.random(shape) < 0.05, 5, 1) / np.sqrt(0.95 + 0.05 * 25)
    ),
    "log-normal, sigma 1": _lognormal(1.0),
    "Student t, 3 df": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
}
SIZES = (100, 1_000, 10_000)
IN_DOCUMENT = 10
PAIRS = 100  # to one model, in one matrix
Z = 1.959964


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n-repeats", type=int, default=2_000, help="of every simulation (2,000)")
    parser.add_argument("--n-maps", type=int, default=50, help="for the ellipses (50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="Markdown file to write")
    given = parser.parse_args(arguments)
    sections = (
        interval_table(given.n_repeats, given.seed),
        scale_table(given.n_repeats, given.seed),
        bootstrap_table(given.n_repeats // 10, given.seed),
        comparison_table(given.n_repeats, given.seed),
        ellipse_table(given.n_maps, given.seed),
    )
    head = (
        "# Coverage of error bars\n\n"
        f"Nominal 95 %, {given.n_repeats:,} repeats for a number (near 95 % it is good to "
        f"±{Z * 21.8 / given.n_repeats**0.5:.1f} points), "
        f"seed {given.seed}; numpy {np.__version__}, Python {platform.python_version()}. Made by\n\n"
        f"    python -m benchmarks.coverage {shlex.join(arguments)}\n"
    )
    report = "\n".join([head, *sections])
    print(report)
    if given.output:
        given.output.write_text(report, encoding="utf-8")


def interval_table(n_repeats: int, seed: int) -> str:
    """Coverage of the intervals of `kl_intervals`, and on which side they miss."""
    columns = [f"{n:,} texts" for n in SIZES] + [f"{n:,} in documents" for n in SIZES]
    lines = [
        "## Intervals of KL\n",
        "`kl_intervals`, without blocks, and for texts in documents of ten with documents as blocks. In "
        "brackets: the truth lies below / above the interval.\n",
        *_header("difference", columns),
    ]
    for name in DRAWS:
        cells = []
        for grouped in (False, True):
            for n in SIZES:
                found = [found for found, _ in samples(name, n, grouped, n_repeats, seed)]
                low = np.concatenate([one.low[0, 1:] for one in found])
                high = np.concatenate([one.high[0, 1:] for one in found])
                below, above = (low > 0.5).mean(), (high < 0.5).mean()
                cells.append(f"{1 - below - above:.1%} ({below:.1%} / {above:.1%})")
        lines.append(_row(name, cells))
    return "\n".join([*lines, ""])


def scale_table(n_repeats: int, seed: int) -> str:
    """Coverage of other intervals from the same standard errors, and of blocks left out."""
    columns = ["KL ± 1.96", "log KL ± 1.96", "1 / KL ± 1.96", "1 / KL, Student (used)", "blocks left out"]
    lines = [
        "## Why on the scale of 1 / KL\n",
        "1,000 texts on their own, intervals of the same standard error on other scales; last, texts in "
        "documents of ten with each text taken for a block.\n",
        *_header("difference", columns),
    ]
    for name in DRAWS:
        rows = []
        for found, _ in samples(name, 1_000, False, n_repeats, seed):
            kl, low, high = found.kl[0, 1:], found.low[0, 1:], found.high[0, 1:]
            relative = Z * found.standard_error[0, 1:] / kl
            off = np.abs(np.log(kl / 0.5)), np.abs(kl / 0.5 - 1)
            plain = np.abs(kl - 0.5) <= kl * relative
            rows.append([plain, off[0] <= relative, off[1] <= relative, (low <= 0.5) & (high >= 0.5)])
        shares = list(np.concatenate(rows, axis=1).mean(axis=1))
        alone = [kl_intervals(L) for _, L in samples(name, 1_000, True, n_repeats, seed)]
        without = np.mean([(found.low[0, 1:] <= 0.5) & (found.high[0, 1:] >= 0.5) for found in alone])
        lines.append(_row(name, [f"{share:.1%}" for share in [*shares, without]]))
    return "\n".join([*lines, ""])


def bootstrap_table(n_repeats: int, seed: int) -> str:
    """Compare standard errors from moments with the bootstrap, and both against what estimates do."""
    lines = [
        "## Standard errors against the bootstrap\n",
        f"1,000 texts, {n_repeats:,} repeats, 200 bootstrap resamples each. Root mean square of the standard "
        "errors over the standard deviation of the estimates themselves, from moments / by bootstrap.\n",
        *_header("difference", ["texts on their own", "in documents of ten"]),
    ]
    for name in DRAWS:
        cells = []
        for grouped in (False, True):
            kl, by_moments, by_bootstrap = [], [], []
            for found, L in samples(name, 1_000, grouped, n_repeats, seed):
                blocks = documents(1_000) if grouped else None
                D = L[1:] - L[0]
                W = bootstrap_weights(1_000, 200, blocks=blocks, seed=seed)
                drawn = (W @ (D**2).T - (W @ D.T) ** 2) / 2
                kl.append(found.kl[0, 1:])
                by_moments.append(found.standard_error[0, 1:])
                by_bootstrap.append(drawn.std(axis=0, ddof=1))
            spread = np.std(kl, ddof=1)
            ratios = (np.sqrt(np.mean(np.square(v))) / spread for v in (by_moments, by_bootstrap))
            cells.append(" / ".join(f"{ratio:.2f}" for ratio in ratios))
        lines.append(_row(name, cells))
    return "\n".join([*lines, ""])


def comparison_table(n_repeats: int, seed: int) -> str:
    """How often comparisons find what is not there."""
    columns = ["`is_closer` p < 5 %", "p < 1 %", "gap of means ± 1.96", "in documents: p < 5 %", "gap ± 1.96"]
    lines = [
        "## Comparisons\n",
        "1,000 texts; three models, two of them equally far from the first and equally good: how often "
        "`is_closer` says with p below 5 % and 1 % that one is closer (5 % and 1 % would be right), and how "
        "often the gap of two mean log-likelihoods lies within 1.96 of the errors of `rank_models` (95 %).\n",
        *_header("difference", columns),
    ]
    for name, draw in DRAWS.items():
        cells = []
        for grouped in (False, True):
            rng = np.random.default_rng(seed)
            blocks = documents(1_000) if grouped else None
            p, inside = [], []
            for _ in range(n_repeats):
                own, shared = (
                    differences(draw, rng, 2, 1_000, grouped),
                    differences(draw, rng, 1, 1_000, grouped),
                )
                L = np.vstack([np.zeros(1_000), own + shared])
                p.append(is_closer(L, 0, 1, 2, blocks=blocks).p_value)
                gap = rank_models(L[1:], blocks=blocks)
                inside.append(gap.to_best[1] <= Z * gap.to_best_error[1])
            found = [np.mean(np.array(p) < 0.05), np.mean(np.array(p) < 0.01), np.mean(inside)]
            cells += [f"{share:.1%}" for share in (found[::2] if grouped else found)]
        lines.append(_row(name, cells))
    return "\n".join([*lines, ""])


def ellipse_table(n_maps: int, seed: int) -> str:
    """How often the ellipses of a PCA map hold the positions on the map of infinitely many texts."""
    lines = [
        "## Ellipses on a PCA map\n",
        f"Twelve models, {n_maps} draws of 1,000 texts: share of the points of the true map, turned onto the "
        "drawn one, that lie in their 95 % ellipse. Models lie in a plane, with a variance of 0.1 nats^2 "
        "of each model's own.\n",
        *_header("scores of texts", ["texts on their own", "in documents of ten"]),
    ]
    rng = np.random.default_rng(seed)
    cases = {
        "Gaussian": ("Gaussian", 1.2),
        "Student t, 5 df": ("Student t, 5 df", 1.2),
        "Gaussian, second axis no wider than the third": ("Gaussian", 0.0),
    }
    for name, (draw, width) in cases.items():
        places = rng.normal(0, [2.0, width], (12, 2))
        places -= places.mean(axis=0)
        values, vectors = np.linalg.eigh(places @ places.T + 0.1 * (np.eye(12) - 1 / 12))
        truth = vectors[:, -2:] * np.sqrt(values[-2:])
        cells = []
        for grouped in (False, True):
            blocks = documents(1_000) if grouped else None
            inside = []
            for repeat in range(n_maps):
                axes = differences(DRAWS[draw], rng, 2, 1_000, grouped)
                L = places @ axes + np.sqrt(0.1) * differences(DRAWS[draw], rng, 12, 1_000, grouped)
                drawn, _ = principal_axes(L)
                U, _, Vt = np.linalg.svd(truth.T @ drawn)
                spread = position_covariances(L, drawn, blocks=blocks, seed=repeat)
                inside.append(_inside(truth @ (U @ Vt) - drawn, *ellipses(spread)))
            cells.append(f"{np.mean(inside):.1%}")
        lines.append(_row(name, cells))
    return "\n".join([*lines, ""])


def samples(
    name: str, n_texts: int, grouped: bool, n_repeats: int, seed: int
) -> Iterator[tuple[KLIntervals, np.ndarray]]:
    """Intervals and scores of many models that differ from the first independently, all with KL 1/2."""
    rng = np.random.default_rng(seed)
    for _ in range(max(1, n_repeats // PAIRS)):
        D = differences(DRAWS[name], rng, PAIRS, n_texts, grouped)
        L = np.vstack([np.zeros(n_texts), D])
        yield kl_intervals(L, blocks=documents(n_texts) if grouped else None), L


def differences(draw: Draw, rng: np.random.Generator, n: int, n_texts: int, grouped: bool) -> np.ndarray:
    """Differences of variance 1; grouped, half of it is the document's."""
    own = draw(rng, (n, n_texts))
    if not grouped:
        return own
    return (own + draw(rng, (n, n_texts // IN_DOCUMENT)).repeat(IN_DOCUMENT, axis=1)) / np.sqrt(2)


def documents(n_texts: int) -> np.ndarray:
    return np.arange(n_texts) // IN_DOCUMENT


def _inside(off: np.ndarray, semi_axes: np.ndarray, angle: np.ndarray) -> np.ndarray:
    along = off[:, 0] * np.cos(angle) + off[:, 1] * np.sin(angle)
    across = off[:, 1] * np.cos(angle) - off[:, 0] * np.sin(angle)
    return (along / semi_axes[:, 0]) ** 2 + (across / semi_axes[:, 1]) ** 2 <= 1


def _header(first: str, columns: list[str]) -> list[str]:
    return [_row(first, columns), _row("---", ["---"] * len(columns))]


def _row(first: str, cells: list[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"


if __name__ == "__main__":
    main(sys.argv[1:])
