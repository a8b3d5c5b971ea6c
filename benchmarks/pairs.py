"""Pairs of models for `laboratory`: what their scores tell, and whether their estimates are off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lmmap.chains import Setting, draw_segments, exact_values, make_chains
from lmmap.estimates import estimate_kl_by
from lmmap.exact_kl import ExactKL, exact_kl_on_texts
from lmmap.laboratory import KNOBS, OFF
from lmmap.models import ModelSpec
from lmmap.pair_flags import flag_pairs
from lmmap.scoring.load import load_model
from lmmap.segments import Segments, segments_of_tokens, segments_of_totals
from lmmap.store import Store

ESTIMATES = ("segment_centered", "midpoint", "text_level")
TAILS = (0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
FARS = (0.0, 0.0, 0.0, 0.25, 0.5, 1.0, 2.0)


class Group(NamedTuple):
    """Pairs of one place: what is told of them, and who they are of, for error bars."""

    name: str
    test: pd.DataFrame
    train: pd.DataFrame | None = None


def laboratory_pairs(n_pairs: int, seed: int) -> pd.DataFrame:
    """Pairs at random settings of many knobs, and what their scores and their exact values say."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n_pairs):
        setting = random_setting(rng)
        chains = make_chains(setting, seed=seed * 100_000 + i)
        pieces = draw_segments(setting, chains, rng)
        exact = np.full((2, 2), exact_values(setting, chains)["on_texts"])
        rows.append(told(pieces, exact).assign(i=2 * i, j=2 * i + 1))
    return pd.concat(rows, ignore_index=True)


def random_setting(rng: np.random.Generator) -> Setting:
    return Setting(
        distance=float(np.exp(rng.uniform(np.log(0.02), np.log(3)))),
        far=float(rng.choice(FARS)),
        kinds=float(rng.choice([0, 0, 0.25, 0.5, 1])),
        tail=float(rng.choice(TAILS)),
        n_tokens=int(rng.choice([8, 32, 128])),
        length_spread=float(rng.choice(KNOBS["length_spread"].values)),
        temperature=float(rng.choice([1, 1, 0.7, 0.9, 1.1, 1.4])),
    )


def zoo_groups(store: Store, folder: Path, n_texts: int, seed: int) -> Iterator[Group]:
    """Same-tokenizer pairs: half of the models on half of the texts to choose, the others to test.

    Only the tokenizer of most models is chosen on; all pairs of any other are tested.
    """
    models, rng = store.load().models, np.random.default_rng(seed)
    texts = pd.read_parquet(store.path / "texts.parquet", columns=["text", "n_bytes"])
    drawn = texts.iloc[np.sort(rng.choice(len(texts), n_texts, replace=False))]
    most = models["tokenizer"].mode()[0]
    for tokenizer, names in models.groupby("tokenizer")["model"]:
        loaded = [load_model(ModelSpec(str(folder / name))) for name in names]
        exact = exact_kl_on_texts(loaded, drawn["text"].tolist())
        halves = np.array_split(rng.permutation(len(loaded)), 2) if tokenizer == most else [None]
        parts = [zoo_pairs(exact, drawn["n_bytes"].to_numpy(), half, k) for k, half in enumerate(halves)]
        yield Group(f"zoo, {tokenizer}", *parts[::-1])


def zoo_pairs(exact: ExactKL, n_bytes: np.ndarray, models: np.ndarray | None, parity: int) -> pd.DataFrame:
    """Pairs among some models on every other text, or of all models on all texts."""
    step = 1 if models is None else 2
    models = np.arange(len(exact.models)) if models is None else models
    keep = exact.text_of_token % step == parity
    pieces = segments_of_tokens(
        exact.token_log_probs[np.ix_(models, np.flatnonzero(keep))],
        exact.text_of_token[keep] // step,
        n_bytes[parity::step],
    )
    kl = exact.kl_of_text[parity::step].mean(axis=0)[np.ix_(models, models)]
    return told(pieces, (kl + kl.T) / 2)


def told(pieces: Segments, exact: np.ndarray) -> pd.DataFrame:
    """Tabulate what scores say of every pair, and which estimates are off."""
    i, j = np.triu_indices(len(exact), 1)
    totals = segments_of_totals(pieces.totals, pieces.n_bytes)
    table = pd.DataFrame({"i": i, "j": j})
    for name in ESTIMATES:
        ratio = estimate_kl_by(name, pieces)[i, j] / exact[i, j]
        table[f"{name} is off"] = np.abs(ratio - 1) > OFF
    table["gap"] = flag_pairs(pieces).doubt[i, j]
    table["gap of text level"] = flag_pairs(pieces, estimator="text_level").doubt[i, j]
    table["third order"] = flag_pairs(totals).doubt[i, j]
    for name, values in (("of tokens", next(pieces.blocks())[0]), ("of texts", pieces.totals)):
        moments = np.array([_moments(values[a] - values[b]) for a, b in zip(i, j, strict=True)])
        for k, moment in enumerate(("variance", "skewness", "kurtosis", "fourth order")):
            table[f"{moment} {name}"] = moments[:, k]
    return table


def _moments(D: np.ndarray) -> list[float]:
    D = D - D.mean()
    second = (D**2).mean()
    skewness, kurtosis = abs((D**3).mean()) / second**1.5, (D**4).mean() / second**2
    return [second, skewness, kurtosis, kurtosis * second / 12]


def laboratory_lengths(n_pairs: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n_pairs):
        setting = random_setting(rng)
        chains = make_chains(setting, seed=seed * 100_000 + i)
        many = replace(setting, n_texts=2000)
        share, other = (length_shares(draw_segments(one, chains, rng)) for one in (setting, many))
        rows.append({"i": 2 * i, "j": 2 * i + 1, "length": share[0], "driven": other[0] > 0.5})
    return pd.DataFrame(rows)


def zoo_lengths(pieces: Segments, source: np.ndarray, cut: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Pairs of all models within each source, on half of its texts and on the other half."""
    n = pieces.n_of_text
    shares = np.where(rng.random(len(n)) < 0.5, rng.random(len(n)), 1.0) if cut else np.ones(len(n))
    kept = np.maximum(1, (n * shares).astype(int))
    place = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    keep = place < np.repeat(kept, n)
    totals = np.zeros(pieces.totals.shape)
    first = 0
    for log_probs, text in pieces.blocks():
        log_probs = log_probs * keep[first : first + len(text)]
        first += len(text)
        totals += np.stack([np.bincount(text, row, minlength=len(n)) for row in log_probs])
    i, j = np.triu_indices(len(totals), 1)
    tables = []
    for name in np.unique(source):
        texts = rng.permutation(np.flatnonzero(source == name))
        share, other = (
            length_shares(segments_of_totals(totals[:, half], kept[half]))
            for half in np.array_split(texts, 2)
        )
        tables.append(pd.DataFrame({"i": i, "j": j, "length": share, "driven": other > 0.5}))
    return pd.concat(tables, ignore_index=True)


def length_shares(pieces: Segments) -> np.ndarray:
    flags = flag_pairs(segments_of_totals(pieces.totals, pieces.n_bytes))
    return flags.length_share[np.triu_indices(len(pieces.models), 1)]
