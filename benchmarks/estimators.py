"""Estimators of KL against exact half-Jeffreys, on corpus texts and on texts that the models write.

    python -m benchmarks.estimators --models zoo --n-texts 160 --samples 24 --n-tokens 64
    python -m benchmarks.estimators --models runs/demo-data/smollm2/SmolLM2-135M-Instruct --altered

Each command puts its rows into benchmarks/results/estimators.json, in the place of those of the same models
on the same kind of texts, and prints the table of all that is there.
Pairs and texts are halved: what is chosen is chosen on one half of both, and reported on the other.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.estimator_tables import ON, keep, read_results, report
from benchmarks.results import Row, circumstances, default_device
from lmmap.demo.altered import ALTERATIONS, altered_copy
from lmmap.estimates import ESTIMATORS, estimate_kl_by
from lmmap.exact_kl import (
    ExactKL,
    TextKL,
    exact_kl_on_samples,
    exact_kl_on_texts,
    half_jeffreys_of_sequences,
    text_kl_on_samples,
)
from lmmap.exact_kl.result import Mean, symmetric
from lmmap.models import ModelSpec
from lmmap.scoring.batches import token_log_probs
from lmmap.scoring.encode import tokenizer_hash
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import prepare
from lmmap.scoring.load import load_model
from lmmap.segments import Segments, segments_of_tokens
from lmmap.token_records import Cut, common_segments

ZOO = Path("runs/demo-data/zoo")
TEXTS = Path("runs/demo-data/texts.parquet")
TRAINING = Path("runs/demo-data/training.parquet")
BLOCKS = 8  # of texts, left out one at a time for the errors of ratios
CLIPS = (0.02, 0.03, 0.05, 0.1)
ACROSS = 4  # models of each tokenizer in pairs across tokenizers
PARTS = ("choose", "report")
WITH_ERROR = (
    "text_level",
    "text_regressed",
    "token_level",
    "token_centered",
    "mixture",
    "midpoint",
    "ensemble",
)

Tables = dict[str, np.ndarray]
Kind = Callable[[Segments, np.ndarray], Tables]
Measure = Callable[..., tuple[Mean, Tables]]  # of weights of texts, and of the kinds of estimates wanted


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=[], help="zoo, or folders of models; none: tables only"
    )
    parser.add_argument("--altered", action="store_true", help="the one model against altered copies of it")
    parser.add_argument("--texts", type=Path, default=TEXTS, help="Parquet file with a column `text`")
    parser.add_argument("--training", type=Path, default=TRAINING, help="texts with a column `source`")
    parser.add_argument("--on", nargs="+", choices=list(ON), default=list(ON), help="which kinds of texts")
    parser.add_argument("--n-texts", type=int, default=160)
    parser.add_argument("--n-characters", type=int, help="of each corpus text; all by default")
    parser.add_argument("--samples", type=int, default=24, help="texts that every model writes")
    parser.add_argument("--n-tokens", type=int, default=64, help="of each of them")
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="Markdown file to write")
    given = parser.parse_args(arguments)
    if given.models:
        begun, made = time.monotonic(), circumstances("benchmarks.estimators", given.device)
        for name, rows in measure(given):
            took = {"seconds": round(time.monotonic() - begun)}
            keep([{"set": name, **row} for row in rows], made | took)
    text = report(*read_results())
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


def measure(given: argparse.Namespace) -> Iterator[tuple[str, list[Row]]]:
    """Give rows of one set of models on one kind of texts: each tokenizer's, and the pairs across them."""
    frame = pd.read_parquet(given.texts).sample(given.n_texts, random_state=given.seed)
    texts = [text[: given.n_characters] for text in frame["text"]]
    groups: dict[str, list[LoadedModel]] = {}
    for folder in folders(given.models):
        model = load_model(ModelSpec(str(folder)), device=given.device, dtype=given.dtype)
        groups.setdefault(tokenizer_hash(model.tokenizer), []).append(model)
    for models in groups.values():
        name = models[0].spec.name + ("" if given.altered else f" and {len(models) - 1} others")
        if given.altered:
            training = pd.read_parquet(given.training)
            domain = list(training["text"][training["source"] == "licences"])
            models += [altered_copy(models[0], a, texts=domain, seed=given.seed) for a in ALTERATIONS]
        if len(models) > 1:
            if "corpus" in given.on:
                yield name, list(on_corpus(models, texts))
            if "samples" in given.on:
                yield name, list(on_samples(models, given))
    if len(groups) > 1 and "strings" in given.on:
        yield "across", list(across(list(groups.values()), given))


def folders(names: Sequence[str]) -> list[Path]:
    if list(names) != ["zoo"]:
        return [Path(name) for name in names]
    return sorted(path for path in ZOO.iterdir() if (path / "config.json").exists())


def on_corpus(models: list[LoadedModel], texts: list[str]) -> Iterator[Row]:
    """All pairs on the given texts."""
    exact = exact_kl_on_texts(models, texts)
    tokens = as_segments(exact, [len(text.encode()) for text in texts])

    def measured(w: np.ndarray, *kinds: Kind) -> tuple[Mean, Tables]:
        weighted = replace(exact, weights=w)
        conditional = {"conditional": weighted.conditional_variance.value / 2}
        return weighted.half_jeffreys, of_kinds(kinds, tokens, w) | conditional

    yield from rows_of("corpus", exact.models, pairs_of(len(models)), len(texts), measured)


def on_samples(models: list[LoadedModel], given: argparse.Namespace) -> Iterator[Row]:
    """Pairs on what the two write; of a model and its copies only those with the model itself."""
    together = [[0, j] for j in range(1, len(models))] if given.altered else [list(range(len(models)))]
    for members in together:
        some = [models[i] for i in members]
        measured = [
            exact_kl_on_samples(
                some, n_texts=given.samples, n_tokens=given.n_tokens, seed=given.seed, source=i
            )
            for i in range(len(some))
        ]
        yield from on_written(measured, given.samples, [given.n_tokens] * given.samples, members)


def on_written(
    measured: list[ExactKL], n: int, n_bytes: Sequence[int], members: Sequence[int]
) -> Iterator[Row]:
    """Half-Jeffreys of sequences, and each estimate as the mean over what the one and the other wrote."""
    tokens = [as_segments(one, n_bytes) for one in measured]

    def measure_both(w: np.ndarray, *kinds: Kind) -> tuple[Mean, Tables]:
        exact = half_jeffreys_of_sequences(*(replace(one, weights=w) for one in measured))
        return exact, both_ways([of_kinds(kinds, one, w) for one in tokens])

    pairs = {(0, 1): members[1] % 2} if len(members) == 2 else pairs_of(len(measured))
    yield from rows_of("samples", measured[0].models, pairs, n, measure_both)


def across(groups: list[list[LoadedModel]], given: argparse.Namespace) -> Iterator[Row]:
    """Pairs of different tokenizers, on texts of one length in characters."""
    chosen = [group[:: max(1, len(group) // ACROSS)][:ACROSS] for group in groups]
    models = [model for group in chosen for model in group]
    group_of = [g for g, group in enumerate(chosen) for _ in group]
    written = [
        text_kl_on_samples(
            models,
            n_texts=given.samples,
            n_tokens=2 * given.n_tokens,
            n_characters=given.n_tokens,
            seed=given.seed,
            source=i,
        )
        for i in range(len(models))
    ]
    cut = [segments_of_texts(models, one) for one in written]

    def measured(w: np.ndarray, *kinds: Kind) -> tuple[Mean, Tables]:
        value, se = zip(*(weighted_kl(one, w) for one in written), strict=True)
        exact = Mean(symmetric(np.array(value)), np.hypot(se, np.transpose(se)) / 2)
        tables = []
        for segments, there in cut:  # an empty text has no segment, and no difference
            share = w[there].sum() / w.sum()
            tables.append({k: v * share for k, v in of_kinds(kinds, segments, w[there]).items()})
        return exact, both_ways(tables)

    pairs = {(i, j): k for (i, j), k in pairs_of(len(models)).items() if group_of[i] != group_of[j]}
    yield from rows_of("strings", written[0].models, pairs, given.samples, measured)


def weighted_kl(one: TextKL, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    D = (one.log_likelihoods[one.source] - one.log_likelihoods)[:, w > 0]
    return D.mean(axis=1), D.std(axis=1, ddof=1) / D.shape[1] ** 0.5


def segments_of_texts(models: list[LoadedModel], written: TextKL) -> tuple[Segments, np.ndarray]:
    """Score texts and cut them where all models have a boundary; and which texts are not empty."""
    there = np.flatnonzero(written.n_bytes)
    texts, n_bytes = [written.texts[x] for x in there], written.n_bytes[there]
    cuts, values = [], []
    for model in models:
        job = prepare(model, texts, audit=False)
        tokens = token_log_probs(model, job.sequences, job.batches)
        n_tokens = np.array([len(one) for one in tokens])
        ends = np.concatenate(job.tokenized.byte_end).astype(np.int64)
        ends[np.cumsum(n_tokens) - 1] = n_bytes
        first = np.repeat(np.cumsum(n_bytes) - n_bytes, n_tokens)
        cuts.append(Cut(n_tokens, np.where(ends > 0, first + ends - 1, -1)))
        values.append(np.concatenate(tokens).astype(np.float64))
    text, starts = common_segments(cuts, n_bytes)
    pieces = np.stack([np.add.reduceat(v, s) for v, s in zip(values, starts, strict=True)])
    return replace(segments_of_tokens(pieces, text, n_bytes), unit="segment"), there


def as_segments(exact: ExactKL, n_bytes: Sequence[int]) -> Segments:
    return segments_of_tokens(exact.token_log_probs, exact.text_of_token, np.array(n_bytes))


def of_kinds(kinds: Sequence[Kind], segments: Segments, w: np.ndarray) -> Tables:
    return {name: table for kind in kinds for name, table in kind(segments, w).items()}


def estimates(segments: Segments, w: np.ndarray) -> Tables:
    """Every estimator once: with one tokenizer segments are tokens."""
    other = "segment" if segments.unit == "token" else "token"
    names = [name for name in ESTIMATORS if not name.startswith(other)]
    tables = {name.replace("segment", "token"): estimate_kl_by(name, segments, weights=w) for name in names}
    return tables


def candidates(segments: Segments, w: np.ndarray) -> Tables:
    """Give what else was tried: squares that are bounded."""
    return {f"clipped {c}": clipped(segments, w, c) for c in CLIPS}


def clipped(segments: Segments, w: np.ndarray, c: float) -> np.ndarray:
    """Half the sum of D^2 / (1 + c D^2)."""
    kl = np.zeros((len(segments.models),) * 2)
    for log_probs, text in segments.blocks():
        for i in range(len(kl)):
            squares = (log_probs - log_probs[i]) ** 2
            kl[i] += (squares / (1 + c * squares)) @ w[text] / w.sum() / 2
    return kl


def both_ways(tables: list[Tables]) -> Tables:
    return {name: symmetric(np.stack([t[name][i] for i, t in enumerate(tables)])) for name in tables[0]}


def pairs_of(n_models: int) -> dict[tuple[int, int], int]:
    """Every pair, and which half of the pairs it is in."""
    pairs = list(itertools.combinations(range(n_models), 2))
    halves = np.random.default_rng(0).permutation(len(pairs)) % 2
    return {pair: int(half) for pair, half in zip(pairs, halves, strict=True)}


def rows_of(
    on: str, names: Sequence[str], pairs: dict[tuple[int, int], int], n_texts: int, measured: Measure
) -> Iterator[Row]:
    """Each half of the pairs on its half of the texts; errors of ratios by leaving out blocks of texts."""
    order = np.random.default_rng(1).permutation(n_texts)
    for part, mine in enumerate(np.array_split(order, 2)):
        wanted = [pair for pair, half in pairs.items() if half == part]
        if not wanted:
            continue
        w = np.zeros(n_texts)
        w[mine] = 1
        at = tuple(np.transpose(wanted))
        exact, whole = measured(w, estimates, candidates)
        without = []
        for block in np.array_split(mine, BLOCKS):
            left = w.copy()
            left[block] = 0
            value, tables = measured(left, estimates)
            without.append({k: np.log(table[at] / value.value[at]) for k, table in tables.items()})
        spread = {k: np.std([t[k] for t in without], axis=0) * (BLOCKS - 1) ** 0.5 for k in without[0]}
        for number, (i, j) in enumerate(wanted):
            yield {
                "on": on,
                "models": [names[i], names[j]],
                "part": PARTS[part],
                "n_texts": len(mine),
                "exact": digits(exact.value[i, j]),
                "exact_se": digits(exact.se[i, j]),
                "estimates": {k: digits(table[i, j]) for k, table in whole.items()},
                "ratio_errors": {k: digits(v[number], 2) for k, v in spread.items() if k in WITH_ERROR},
            }


def digits(value: float, n: int = 4) -> float:
    return float(f"{value:.{n}g}")


if __name__ == "__main__":
    main(sys.argv[1:])
