"""Speed: one model and the same texts scored by lmmap and in other ways, in one run.

Run from the root of the repository::

    python -m benchmarks.speed FOLDER --shape smollm2-135m -o benchmarks/results/speed.json

FOLDER is where `benchmarks.shapes` makes texts and models, now if need be. lm-evaluation-harness needs
`pip install lm-eval==0.4.13`, or `--without lm-eval`. Every way (`benchmarks.ways`) begins with plain texts
and a loaded model and ends with a number for each text, but for "lmmap, tokens at hand", which scores texts
that are cut already, and "lmmap, whole row", which hashes and loads the model, checks it, measures its noise
and scores. Slow ways score some of the texts, evenly chosen; all but the whole row have scored some before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import numpy as np
import torch

from benchmarks.results import Row, circumstances, default_device, keep_row, synchronize
from benchmarks.shapes import get_models, get_texts, parse_models
from benchmarks.ways import (
    CountingModel,
    Scored,
    cut,
    lean,
    lm_eval,
    lmmap,
    published,
    tokens_at_hand,
    whole_row,
)
from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model
from lmmap.scoring.row import release

PUBLISHED, LEAN, LM_EVAL, LMMAP = WAYS = ("published", "lean", "lm-eval", "lmmap")
AT_HAND, UNFUSED, WHOLE = "tokens-at-hand", "unfused", "whole-row"
WARM_UP = 256  # texts
LEAN_BUDGET = 2**16  # padded tokens in a batch of the lean loop
IDENTITY = ("model", "way", "device")


class Measured(NamedTuple):
    """What a way gave, the median of its seconds, and the most memory that it took."""

    scored: Scored
    seconds: float
    peak_gib: float | None


Way = Callable[[Sequence[str]], Scored]


class Run:
    """What is measured of one model: rows are printed and written one by one.

    Parameters
    ----------
    name : str
        The shape.
    texts : sequence of str
        All texts.
    device : str
        Where.
    repeats : int
        How often each way is timed.
    output : Path, optional
        Where rows are kept.
    common : dict
        What all rows of the run say.
    """

    def __init__(
        self, name: str, texts: Sequence[str], device: str, repeats: int, output: Path | None, common: Row
    ) -> None:
        self.name, self.texts, self.device, self.repeats = name, texts, device, repeats
        self.output, self.common = output, common
        self.reference: float | None = None
        self.lean: np.ndarray | None = None

    def about(self, plain: CountingModel) -> None:
        """Count the model's parameters and the texts' tokens."""
        model = plain.model
        self.n_parameters = sum(p.numel() for p in model.parameters())
        table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        self.n_looked_up = 0 if table is head else table.numel()
        self.n_tokens = dict(zip(self.texts, map(len, plain.cut(self.texts)), strict=True))

    def measure(
        self, way: str, texts: Sequence[str], score: Way, *, warm: bool = True, fused: Mapping[str, int] = {}
    ) -> None:
        """Time a way, if its memory suffices."""
        try:
            measured = timed(score, texts, self.device, self.repeats, warm=warm)
        except torch.OutOfMemoryError:
            click.echo(f"{self.name:14} {way:31} out of memory")
            release()
        else:
            self.keep(way, texts, measured, fused)

    def keep(self, way: str, texts: Sequence[str], measured: Measured, fused: Mapping[str, int]) -> None:
        """Print and write a row."""
        scored, n_tokens = measured.scored, sum(self.n_tokens[text] for text in texts)
        pace = n_tokens / measured.seconds
        if way == PUBLISHED:
            self.reference = pace
        mfu = 2 * self.n_parameters * pace / (1e12 * self.common["matrix_tflops"])
        row: Row = {
            "model": self.name,
            "way": way,
            "tokens_per_s": round(pace, 1),
            "mfu": round(mfu, 4),
            "mfu_without_embedding": round(mfu * (1 - self.n_looked_up / self.n_parameters), 4),
            "ratio_to_reference": None if self.reference is None else round(pace / self.reference, 2),
            "peak_gib": measured.peak_gib,
            "padding": round(1 - n_tokens / scored.n_positions, 4) if scored.n_positions else None,
            "sd_to_lean": self._sd_to_lean(way, scored),
            "fused": dict(fused),
            "n_texts": len(texts),
            "n_tokens": n_tokens,
            "seconds": round(measured.seconds, 3),
            "n_parameters": self.n_parameters,
            **self.common,
        }
        ratio = "" if row["ratio_to_reference"] is None else f"{row['ratio_to_reference']:8.1f}x"
        click.echo(
            f"{self.name:14} {way:31} {pace:10,.0f} tokens/s  MFU {mfu:6.1%} {ratio}  {len(texts):,} texts "
            f"in {measured.seconds:.2f} s, peak {measured.peak_gib} GiB, padding {row['padding']}, "
            f"sd to lean {row['sd_to_lean']}"
        )
        if self.output:
            keep_row(self.output, row, IDENTITY)

    def _sd_to_lean(self, way: str, scored: Scored) -> float | None:
        """Nats per text; of ways that score the same tokens of the same texts."""
        if way == LEAN:
            self.lean = scored.log_likelihoods
        elif (
            way.startswith(LMMAP) and self.lean is not None and len(self.lean) == len(scored.log_likelihoods)
        ):
            return float(f"{np.std(scored.log_likelihoods - self.lean):.2g}")
        return None


def timed(score: Way, texts: Sequence[str], device: str, repeats: int, *, warm: bool = True) -> Measured:
    """Run a way on a few texts, then time it on all of them, some times over."""
    if warm:
        score(some(texts, min(WARM_UP, -(-len(texts) // 4))))
    cuda, seconds = torch.device(device).type == "cuda", []
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        scored = score(texts)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    peak = round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if cuda else None
    return Measured(scored, median(seconds), peak)


def some(texts: Sequence[str], n: int) -> list[str]:
    """Choose n texts evenly."""
    n = min(n, len(texts))
    return [texts[i * len(texts) // n] for i in range(n)]


def matrix_rate(device: str) -> float:
    """Measure the rate of a large matrix product: bfloat16 on a GPU, float32 on a CPU; in TFLOP/s."""
    cuda = torch.device(device).type == "cuda"
    size, dtype = (8_192, torch.bfloat16) if cuda else (1_024, torch.float32)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for n in (3, 10):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(n):
            a @ b
        synchronize(device)
    return 2 * size**3 * n / (time.perf_counter() - start) / 1e12


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--shape", "names", multiple=True, required=True, help="A shape of benchmarks/shapes.py.")
@click.option("--device", default=default_device(), show_default=True)
@click.option("--n-texts", default=10_000, show_default=True, help="Texts for the fast ways.")
@click.option("--published-texts", default=100, show_default=True, help="Texts for the published procedure.")
@click.option(
    "--lm-eval-texts", default=100, show_default=True, help="Texts for lm-eval at 1; times 1 + 4 log2(batch)."
)
@click.option(
    "--batch-size", "batch_sizes", type=int, multiple=True, default=(1, 4, 16, 64), show_default=True
)
@click.option("--without", type=click.Choice([*WAYS, AT_HAND, UNFUSED, WHOLE]), multiple=True)
@click.option("--token-budget", type=int, help="Most padded tokens in a batch of lean loop and lmmap.")
@click.option("--repeats", default=1, show_default=True, help="The median of so many is told.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file to put the rows into.")
def main(
    folder: Path, names: tuple[str, ...], device: str, n_texts: int, published_texts: int, lm_eval_texts: int,
    batch_sizes: tuple[int, ...], without: tuple[str, ...], token_budget: int | None, repeats: int,
    output: Path | None,
) -> None:  # fmt: skip
    """Time the ways to score texts under models with random weights."""
    if LM_EVAL not in without and find_spec("lm_eval") is None:
        raise click.ClickException(
            "lm-eval is not installed; install lm-eval==0.4.13 or add --without lm-eval"
        )
    try:
        texts = list(get_texts(folder, n_texts).texts)
    except InputError as error:
        raise click.ClickException(str(error)) from error
    common = {"matrix_tflops": round(matrix_rate(device), 3), "token_budget": token_budget}
    common |= circumstances("benchmarks.speed", device)
    click.echo(f"{common['device']}: {common['matrix_tflops']} TFLOP/s; {common['versions']}")
    for model, path in get_models(folder, parse_models(names), device):
        run = Run(model.shape, texts, device, repeats, output, common)
        plain = CountingModel(path, device)
        run.about(plain)
        if PUBLISHED not in without:
            run.measure(PUBLISHED, some(texts, published_texts), partial(published, plain))
        if LEAN not in without:
            run.measure(LEAN, texts, partial(lean, plain, token_budget=token_budget or LEAN_BUDGET))
        for size in batch_sizes if LM_EVAL not in without else ():
            few = some(texts, round(lm_eval_texts * (1 + 4 * np.log2(size))))
            run.measure(f"{LM_EVAL}, batch {size}", few, partial(lm_eval, plain, batch_size=size))
        del plain
        release()
        if LMMAP not in without:
            measure_loaded(run, path, token_budget, without)
            release()
        if not {LMMAP, WHOLE} & set(without):
            scores = partial(whole_row, path, run.device, token_budget)
            run.measure(f"{LMMAP}, whole row", run.texts, scores, warm=False)
            release()


def measure_loaded(run: Run, path: Path, budget: int | None, without: Sequence[str]) -> None:
    """Time lmmap's scoring by a loaded model, with and without cutting the texts, fused and not."""
    spec = ModelSpec(str(path.absolute()))
    model = load_model(spec, device=run.device)
    run.measure(LMMAP, run.texts, partial(lmmap, model, token_budget=budget), fused=model.fused)
    prepared = cut(model, run.texts, budget)
    if AT_HAND not in without:
        scores = partial(tokens_at_hand, model, prepared)
        run.measure(f"{LMMAP}, tokens at hand", run.texts, scores, warm=False, fused=model.fused)
        del scores
    if model.fused and UNFUSED not in without:
        del model
        release()
        scores = partial(tokens_at_hand, load_model(spec, device=run.device, fuse=False), prepared)
        scores(run.texts)  # as the fused model has done before
        run.measure(f"{LMMAP}, tokens at hand, unfused", run.texts, scores, warm=False)


if __name__ == "__main__":
    main()
