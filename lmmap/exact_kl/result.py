"""ExactKL: exact divergences of every pair of models, text by text, and their means with errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmmap.errors import InputError


class Mean(NamedTuple):
    """A mean over texts, or over tokens, with its standard error.

    Parameters
    ----------
    value : float array
        The mean.
    se : float array of the same shape
        Its standard error, texts taken as independent; inf where the mean is.
    """

    value: np.ndarray
    se: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class ExactKL:
    """Exact token-level KL of every pair of models, text by text.

    Parameters
    ----------
    models : tuple of K str
        Names.
    source : int, optional
        Number of the model that the texts were sampled from; None for given texts.
    kl_of_text : (N, K, K) float array
        Entry (x, i, j): sum over the tokens of text x of KL(p_i || p_j), in nats.
    variance_of_text : (N, K, K) float array
        Entry (x, i, j): sum over the tokens of text x of the variance of ``log p_i - log p_j`` under p_i, in
        nats squared.
    token_log_probs : (K, T) float array
        Log-probability of every token that is there, texts one after the other, in nats.
    text_of_token : (T,) int array
        Number of the text that each token belongs to.
    weights : (N,) float array
        Weight of each text in every mean; at least two are positive.

    Examples
    --------
    Two models, a text of two tokens and a text of one:

    >>> exact = ExactKL(
    ...     models=("a", "b"),
    ...     source=None,
    ...     kl_of_text=np.array([[[0.0, 0.1], [0.5, 0.0]], [[0.0, 0.2], [1.0, 0.0]]]),
    ...     variance_of_text=np.zeros((2, 2, 2)),
    ...     token_log_probs=np.array([[-1.0, -3.0, -1.0], [-2.0, -2.0, -2.0]]),
    ...     text_of_token=np.array([0, 0, 1]),
    ...     weights=np.ones(2),
    ... )
    >>> exact
    ExactKL on given texts: 2 models, 2 texts, 3 tokens
      KL(a || b)                    0.15 ± 0.05 nats per text  0.1 ± 0.067 per token
      KL(b || a)                    0.75 ± 0.25 nats per text  0.5 ± 0.33 per token
      half-Jeffreys on these texts  0.45 ± 0.15 nats per text  0.3 ± 0.2 per token
    >>> exact.log_likelihoods
    array([[-4., -1.],
           [-4., -2.]])
    """

    models: tuple[str, ...]
    source: int | None
    kl_of_text: np.ndarray
    variance_of_text: np.ndarray
    token_log_probs: np.ndarray
    text_of_token: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        keep_own_arrays(self)

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens of each text, (N,)."""
        return np.bincount(self.text_of_token, minlength=len(self.weights))

    @property
    def log_likelihoods(self) -> np.ndarray:
        """Log-likelihood of every text under every model, (K, N), in nats per text."""
        n = len(self.weights)
        return np.stack([np.bincount(self.text_of_token, row, minlength=n) for row in self.token_log_probs])

    @property
    def kl(self) -> Mean:
        """Exact KL from row to column, (K, K), in nats per text.

        On samples from model i, row i is KL between distributions over sequences (see `sequence_kl`). All
        other entries, there and on given texts, are taken token by token in contexts that are not the row's.
        """
        return mean_over_texts(self.kl_of_text, self.weights)

    @property
    def kl_per_token(self) -> Mean:
        """Exact KL from row to column, (K, K), in nats per token: all nats over all tokens."""
        return mean_over_texts(self.kl_of_text, self.weights, self.n_tokens)

    @property
    def half_jeffreys(self) -> Mean:
        """Half the sum of both directions on these texts, (K, K), symmetric, in nats per text."""
        return mean_over_texts(symmetric(self.kl_of_text), self.weights)

    @property
    def half_jeffreys_per_token(self) -> Mean:
        """Half the sum of both directions on these texts, (K, K), symmetric, in nats per token."""
        return mean_over_texts(symmetric(self.kl_of_text), self.weights, self.n_tokens)

    @property
    def conditional_variance(self) -> Mean:
        """Variance of the log-ratio given the context, summed over tokens: (K, K), in nats squared per text.

        The mean of what it is under the one model and under the other; half of it is half-Jeffreys to second
        order.
        """
        return mean_over_texts(symmetric(self.variance_of_text), self.weights)

    @property
    def sequence_kl(self) -> Mean:
        """KL from the sampled model to every model, (K,), in nats per sequence of the sampled length.

        An unbiased estimate, by the chain rule: contexts are sampled, the sums over the vocabulary are exact.
        The other direction needs samples from the other model.

        Raises
        ------
        InputError
            If the texts were given, not sampled.
        """
        return Mean(*(table[self._sampled] for table in self.kl))

    @property
    def naive_kl(self) -> Mean:
        """What `sequence_kl` estimates, from the log-likelihoods of the samples alone: (K,), in nats.

        The mean of ``log p_i(x) - log p_j(x)``: also unbiased, and noisier, for it sees the sampled tokens
        only. It may be negative.

        Raises
        ------
        InputError
            If the texts were given, not sampled.
        """
        own, values = self._sampled, self.log_likelihoods.T
        return mean_over_texts(values[:, own, None] - values, self.weights)

    @property
    def variance_saved(self) -> np.ndarray:
        """Variance of `naive_kl` over that of `sequence_kl`, (K,): how many times more samples it needs.

        Inf where `sequence_kl` has none, NaN where neither has any, as for the source itself.

        Raises
        ------
        InputError
            If the texts were given, not sampled.
        """
        naive, exact = self.naive_kl.se, self.sequence_kl.se
        ratio = np.full_like(exact, np.nan)
        with np.errstate(divide="ignore"):
            np.divide(naive, exact, out=ratio, where=(naive > 0) & np.isfinite(naive))
        return ratio**2

    @property
    def length(self) -> str:
        """How long a sequence is, in words: sequences of other length do not compare."""
        return f"{self.n_tokens.max()} tokens"

    @property
    def _sampled(self) -> int:
        if self.source is None:
            raise InputError("KL between distributions over sequences needs texts from exact_kl_on_samples")
        return self.source

    def __repr__(self) -> str:
        n, k, _ = self.kl_of_text.shape
        on = "given texts" if self.source is None else f"samples from {self.models[self.source]}"
        head = f"ExactKL on {on}: {k} models, {n:,} texts, {len(self.text_of_token):,} tokens"
        if k > 2:
            pairs = self.half_jeffreys.value[np.triu_indices(k, 1)]
            span = f"{pairs.min():.4g} to {pairs.max():.4g} nats per text"
            return f"{head}\n  half-Jeffreys on these texts: {span}"
        return "\n  ".join([head, *self._lines_of_pair()])

    def _lines_of_pair(self) -> list[str]:
        table = [("half-Jeffreys on these texts", self.half_jeffreys, self.half_jeffreys_per_token, (0, 1))]
        for i, j in ((1, 0), (0, 1)):
            name = f"KL({self.models[i]} || {self.models[j]})"
            if self.source is not None:
                name += " of sequences" if i == self.source else f" in contexts of {self.models[j]}"
            table.insert(0, (name, self.kl, self.kl_per_token, (i, j)))
        width = max(len(name) for name, *_ in table)
        lines = [
            f"{name:{width}}  {text.value[at]:.4g} ± {text.se[at]:.2g} nats per text"
            f"  {token.value[at]:.4g} ± {token.se[at]:.2g} per token"
            for name, text, token, at in table
        ]
        if self.source is not None:
            j, naive = 1 - self.source, self.naive_kl
            lines.append(
                f"from log-likelihoods alone: {naive.value[j]:.4g} ± {naive.se[j]:.2g} nats per text, "
                f"{self.variance_saved[j]:.3g} times the variance"
            )
        return lines


def keep_own_arrays(result: object) -> None:
    """Replace the arrays of a result by copies that cannot be written to."""
    for name, value in list(vars(result).items()):
        if isinstance(value, np.ndarray):
            own = value.copy()
            own.setflags(write=False)
            object.__setattr__(result, name, own)


def symmetric(table: np.ndarray) -> np.ndarray:
    """Mean of a table and its transpose, in the last two axes."""
    both: np.ndarray = (table + table.swapaxes(-1, -2)) / 2
    return both


def mean_over_texts(values: np.ndarray, weights: np.ndarray, per: np.ndarray | None = None) -> Mean:
    """Weighted sum of values over the weighted sum of `per`; the error is that of the linearised ratio."""
    carrying = weights > 0
    w, n = weights[carrying], np.count_nonzero(carrying)
    values, counts = values[carrying], np.ones(n) if per is None else per[carrying]
    total = w @ counts
    mean = np.tensordot(w, values, axes=1) / total
    residual = values - np.multiply.outer(counts, np.where(np.isfinite(mean), mean, 0))
    se = np.sqrt(np.tensordot(w**2, residual**2, axes=1) * n / (n - 1)) / total
    return Mean(mean, se)
