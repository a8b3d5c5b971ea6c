"""Chains: pairs of Markov chains and texts from others, drawn and scored, with KL in closed form."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from lmmap.errors import InputError
from lmmap.segments import Segments, segments_of_tokens

Array = np.ndarray
VOCAB_SIZE = 8
RARE = -3.0  # added to the logit of the last token: it is 1 % of what the source writes


@dataclass(frozen=True)
class Setting:
    """How all knobs stand; see `lmmap.laboratory.KNOBS`.

    Parameters
    ----------
    distance, far, kinds, tail, length_spread, temperature, clipped : float
        See `lmmap.laboratory.KNOBS`.
    n_tokens, n_texts, merged : int
        See `lmmap.laboratory.KNOBS`.

    Raises
    ------
    InputError
        If a knob cannot stand so.

    Examples
    --------
    >>> Setting(n_tokens=4, n_texts=5, length_spread=0.5).lengths.tolist()
    [2, 3, 4, 5, 7]
    """

    distance: float = 0.2
    far: float = 0.0
    kinds: float = 0.0
    tail: float = 0.0
    n_tokens: int = 32
    length_spread: float = 0.0
    n_texts: int = 200
    merged: int = 1
    temperature: float = 1.0
    clipped: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{field.name} must be finite and not negative, got {value}")
        for name, least in {"n_tokens": 1, "n_texts": 3, "merged": 1}.items():
            if (value := getattr(self, name)) < least or value != int(value):
                raise InputError(f"{name} must be a whole number, at least {least}, got {value}")
        if not self.temperature:
            raise InputError("temperature must be positive, got 0")
        if self.clipped >= 1:
            raise InputError(f"clipped must be a share below 1, got {self.clipped}")

    @property
    def lengths(self) -> Array:
        """Tokens of each text, (N,): quantiles of a log-normal distribution, the same at every draw."""
        shares = (np.arange(self.n_texts) + 0.5) / self.n_texts
        z = np.array([NormalDist().inv_cdf(share) for share in shares])
        lengths = np.exp(self.length_spread * z - self.length_spread**2 / 2) * self.n_tokens
        rounded: Array = np.maximum(1, np.rint(lengths)).astype(np.int64)
        return rounded


class Chains(NamedTuple):
    """Sources of texts and two models: (V, V) log-probabilities of the next token after each token.

    A text starts after token 0, which is no part of it; the two sources, (2, V, V), write in turn.
    """

    sources: Array
    first: Array
    second: Array


def make_chains(setting: Setting, *, seed: int = 0) -> Chains:
    """Make a source and two models as the knobs stand.

    Parameters
    ----------
    setting : Setting
        The knobs.
    seed : int
        Seed of the logits: with one seed only the knobs make a difference.

    Returns
    -------
    Chains
        All probabilities positive.

    Examples
    --------
    >>> chains = make_chains(Setting(distance=0))
    >>> bool((chains.first == chains.second).all())
    True
    """
    base, first, second, away = np.random.default_rng(seed).normal(size=(4, VOCAB_SIZE, VOCAB_SIZE))
    base[:, -1] += RARE
    other = base + 2 * setting.distance * second
    other[:, -1] -= setting.tail
    source = base + setting.far * away
    sources = np.stack([source, source + setting.kinds * first])
    logits = (sources, base + setting.distance * first, other / setting.temperature)
    return Chains(*(x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in logits))


def chain_kl(p: Array, q: Array, n_tokens: int, *, source: Array | None = None) -> Array:
    """KL between two Markov chains, in closed form by the chain rule.

    Parameters
    ----------
    p, q : (V, V) float array
        Log-probabilities of the next token (column) after each token (row), in nats.
    n_tokens : int
        T.
    source : (V, V) float array, optional
        Chain that writes the contexts; by default p, which makes it KL of sequences.

    Returns
    -------
    (T,) float array
        KL(p || q) of the first 1, 2, ..., T tokens after token 0, in nats per text.

    Raises
    ------
    InputError
        If the tables differ in shape or ``n_tokens`` is not positive.

    Examples
    --------
    Two coins, thrown three times: ln(4/3) / 2 each time.

    >>> fair, bent = np.log([[0.5, 0.5]] * 2), np.log([[0.25, 0.75]] * 2)
    >>> chain_kl(fair, bent, 3).round(4)
    array([0.1438, 0.2877, 0.4315])
    """
    writer = p if source is None else source
    if not np.shape(p) == np.shape(q) == np.shape(writer) == (len(p),) * 2:
        raise InputError(f"chains have shapes {np.shape(p)}, {np.shape(q)} and {np.shape(writer)}")
    if n_tokens < 1:
        raise InputError(f"n_tokens must be at least 1, got {n_tokens}")
    of_context = (np.exp(p) * (p - q)).sum(axis=1)
    context = np.eye(len(p))[0]
    gains = np.empty(n_tokens)
    for t in range(n_tokens):
        gains[t] = context @ of_context
        context = context @ np.exp(writer)
    return np.cumsum(gains)


def draw_segments(setting: Setting, chains: Chains, rng: np.random.Generator) -> Segments:
    """Draw texts from the source and score them under both models.

    Parameters
    ----------
    setting : Setting
        The knobs.
    chains : Chains
        Source and models.
    rng : numpy.random.Generator
        Of the texts.

    Returns
    -------
    Segments
        Of both models; pieces are tokens, or segments if several are ``merged``. A token is a byte.
    """
    lengths = setting.lengths
    cumulative = np.exp(chains.sources).cumsum(axis=2)[:, :, :-1]
    kind = np.arange(setting.n_texts) % 2
    ids = np.zeros((setting.n_texts, lengths.max() + 1), dtype=np.int64)
    for t in range(lengths.max()):
        ids[:, t + 1] = (rng.random((setting.n_texts, 1)) > cumulative[kind, ids[:, t]]).sum(axis=1)
    text, place = np.nonzero(np.arange(lengths.max()) < lengths[:, None])
    log_probs = np.stack([table[ids[text, place], ids[text, place + 1]] for table in chains[1:]])
    if setting.merged == 1:
        return segments_of_tokens(log_probs, text, lengths, models=("first", "second"))
    starts = np.flatnonzero(place % setting.merged == 0)
    pieces = np.add.reduceat(log_probs, starts, axis=1)
    tokens = segments_of_tokens(pieces, text[starts], lengths, models=("first", "second"))
    return replace(tokens, unit="segment")


def exact_values(setting: Setting, chains: Chains) -> dict[str, float]:
    """Give the exact KL of a pair, by closed form, in nats per text.

    Parameters
    ----------
    setting : Setting
        The knobs; means are over the texts' lengths.
    chains : Chains
        Sources and models.

    Returns
    -------
    dict
        ``exact``, half-Jeffreys of sequences; ``kl_first_second`` and ``kl_second_first``, the directions;
        ``on_texts``, half-Jeffreys in contexts that the sources write.
    """
    lengths = setting.lengths

    def mean(p: Array, q: Array, source: Array, of: slice = slice(None)) -> Array:
        gains: Array = chain_kl(p, q, int(lengths.max()), source=source)[lengths[of] - 1]
        return gains

    _, p, q = chains
    forward, backward = (float(mean(*pair).mean()) for pair in ((p, q, p), (q, p, q)))
    on_texts = [
        (mean(p, q, source, slice(k, None, 2)) + mean(q, p, source, slice(k, None, 2))) / 2
        for k, source in enumerate(chains.sources)
    ]
    both = {"exact": (forward + backward) / 2, "kl_first_second": forward, "kl_second_first": backward}
    return both | {"on_texts": float(np.concatenate(on_texts).mean())}
