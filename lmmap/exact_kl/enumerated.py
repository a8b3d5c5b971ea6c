"""Enumerated: distributions known whole, outcome by outcome, and what is exact between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmmap.errors import InputError
from lmmap.exact_kl.result import symmetric

OFF_ONE = 1e-6  # by which probabilities may fail to sum to one, as those of float32 logits do


@dataclass(frozen=True, eq=False, repr=False)
class Enumerated:
    """Distributions of K models over the same S outcomes, such as all sequences of T tokens.

    Parameters
    ----------
    models : tuple of K str
        Names.
    log_probs : (K, S) float array
        Log-probability of every outcome, in nats; -inf for what cannot be. Divided by its sum, which must
        be one already to six digits.
    n_tokens : int
        T. The outcomes are the V^T sequences of tokens 0..V-1, the last token varying fastest; by default
        each outcome is one token.

    Raises
    ------
    InputError
        If shapes or names do not fit, a row is no distribution, or S is no T-th power.

    Examples
    --------
    A fair coin and one that shows its second side three times out of four:

    >>> coins = Enumerated(("fair", "bent"), np.log([[0.5, 0.5], [0.25, 0.75]]))
    >>> coins.kl.round(4)  # ln(4/3) / 2, and its counterpart
    array([[0.    , 0.1438],
           [0.1308, 0.    ]])
    >>> coins.half_jeffreys.round(4)  # ln(3) / 8
    array([[0.    , 0.1373],
           [0.1373, 0.    ]])

    Its table is a matrix of log-likelihoods, its probabilities are weights of texts:

    >>> from lmmap.geometry import estimate_kl
    >>> float(estimate_kl(coins.log_probs, weights=coins.probs[0])[0, 1].round(4))  # (ln(3) / 2)^2 / 2
    0.1509
    """

    models: tuple[str, ...]
    log_probs: np.ndarray
    n_tokens: int = 1

    def __post_init__(self) -> None:
        table = np.array(self.log_probs, dtype=np.float64)
        if table.ndim != 2 or not table.size or len(self.models) != len(table):
            raise InputError(
                f"{len(self.models)} models and log-probabilities of shape {table.shape} do not fit"
            )
        if len(set(self.models)) < len(self.models):
            raise InputError(f"every model needs a name of its own, got {list(self.models)}")
        if self.n_tokens < 1 or self.vocab_size**self.n_tokens != table.shape[1]:
            raise InputError(f"{table.shape[1]} outcomes are not all sequences of {self.n_tokens} tokens")
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number, or beyond all, is told
            sums = np.logaddexp.reduce(table, axis=1, keepdims=True)
            totals = np.exp(sums[:, 0])
        for name, total in zip(self.models, totals, strict=True):
            if not abs(total - 1) <= OFF_ONE:
                raise InputError(
                    f"the probabilities of {name} sum to {total:.7g}; those of all outcomes sum to 1"
                )
        table -= sums
        table.setflags(write=False)
        object.__setattr__(self, "log_probs", table)

    @property
    def vocab_size(self) -> int:
        """V, how many tokens there are."""
        return round(float(np.shape(self.log_probs)[-1] ** (1 / max(self.n_tokens, 1))))

    @property
    def probs(self) -> np.ndarray:
        """Probability of every outcome, (K, S): row i as ``weights=`` makes a mean one under model i."""
        probs: np.ndarray = np.exp(self.log_probs)
        return probs

    @property
    def ids(self) -> np.ndarray:
        """Tokens of every outcome, (S, T)."""
        shape = (self.vocab_size,) * self.n_tokens
        return np.stack(np.unravel_index(np.arange(self.log_probs.shape[1]), shape), axis=1)

    @property
    def token_log_probs(self) -> np.ndarray:
        """Log-probability of every token given those before it, (K, S T), outcome after outcome, in nats.

        A token in a context that cannot be has -inf.
        """
        n_models, n = self.log_probs.shape
        columns, whole = [], np.zeros((n_models, 1))
        for t in range(1, self.n_tokens + 1):
            now = np.logaddexp.reduce(self.log_probs.reshape(n_models, self.vocab_size**t, -1), axis=2)
            before = np.repeat(whole, self.vocab_size, axis=1)
            step = np.subtract(now, before, out=np.full_like(now, -np.inf), where=before > -np.inf)
            columns.append(np.repeat(step, n // step.shape[1], axis=1))
            whole = now
        return np.stack(columns, axis=2).reshape(n_models, -1)

    @property
    def text_of_token(self) -> np.ndarray:
        """Number of the outcome that each token belongs to, (S T,)."""
        return np.repeat(np.arange(self.log_probs.shape[1]), self.n_tokens)

    @cached_property
    def kl(self) -> np.ndarray:
        """KL from row to column, (K, K), in nats; inf where the row allows what the column excludes."""
        return np.array([[_kl(p, q) for q in self.log_probs] for p in self.log_probs])

    @property
    def half_jeffreys(self) -> np.ndarray:
        """Half the sum of both directions, (K, K), symmetric, in nats."""
        return symmetric(self.kl)

    @cached_property
    def variance(self) -> np.ndarray:
        """Variance of ``log p_i - log p_j`` under the row's model i, (K, K), in nats squared."""
        return np.array([[_variance(p, q) for q in self.log_probs] for p in self.log_probs])

    def __repr__(self) -> str:
        k, n = self.log_probs.shape
        return (
            f"Enumerated: {k} models, {n:,} outcomes ({self.n_tokens} tokens of {self.vocab_size:,})\n"
            f"  half-Jeffreys: up to {self.half_jeffreys.max():.4g} nats"
        )


def _kl(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """Add up p (D + e^-D - 1), which is p D + q - p: no term is negative, so no digits are lost."""
    difference = _difference(log_p, log_q)
    if difference is None:
        return np.inf
    p, q = np.exp(log_p), np.exp(log_q)
    small = p * (difference + np.expm1(-np.clip(difference, -1, 1)))
    near = (np.abs(difference) <= 1) & (log_p > -np.inf)
    return float(np.where(near, small, q - p + p * difference).sum())


def _variance(log_p: np.ndarray, log_q: np.ndarray) -> float:
    difference = _difference(log_p, log_q)
    if difference is None:
        return np.inf
    p = np.exp(log_p)
    return float(p @ (difference - p @ difference) ** 2)


def _difference(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray | None:
    """Give log p - log q where p is not zero, 0 elsewhere; None if q is zero where p is not."""
    there = log_p > -np.inf
    if np.isneginf(log_q[there]).any():
        return None
    difference: np.ndarray = np.subtract(log_p, log_q, out=np.zeros_like(log_p), where=there)
    return difference
