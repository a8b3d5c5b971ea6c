"""Enumeration: the probability of every sequence over a tiny vocabulary, under real models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from lmmap.errors import InputError
from lmmap.exact_kl.alike import check_models
from lmmap.exact_kl.enumerated import Enumerated
from lmmap.exact_kl.rows import rows_at_once
from lmmap.exact_kl.sample import check_fits
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import default_budget
from lmmap.scoring.prefix import choose_prefix

MOST_SEQUENCES = 2**20


def enumerate_sequences(models: Sequence[LoadedModel], *, n_tokens: int) -> Enumerated:
    """Give the probability of every sequence of so many tokens, after the prefix that scoring uses.

    Every context is read once and its next token's distribution taken whole, so probabilities sum to one
    whatever the precision. EOS is a token like the others.

    Parameters
    ----------
    models : sequence of K LoadedModel
        Two or more models of one tokenizer and one prefix, each with a name of its own.
    n_tokens : int
        T, at most the models' context; V^T may be 1,048,576 for a vocabulary of V.

    Returns
    -------
    Enumerated
        Log-probabilities (K, V^T), the last token varying fastest, with exact KL of every pair.

    Raises
    ------
    InputError
        If there are too many sequences; if two models differ in tokenizer, prefix or number of logits; if
        logits are not numbers.
    """
    if n_tokens < 1:
        raise InputError(f"n_tokens must be at least 1, got {n_tokens}")
    n_logits = check_models(models)
    for model in models:
        check_fits(model, n_tokens)
        if model.vocab_size < n_logits:
            raise InputError(
                f"{model.spec.name} gives {n_logits} logits but reads {model.vocab_size} ids only"
            )
    if n_logits**n_tokens > MOST_SEQUENCES:
        raise InputError(
            f"{n_tokens} tokens of a vocabulary of {n_logits:,} make "
            f"10^{n_tokens * math.log10(n_logits):.1f} sequences, more than {MOST_SEQUENCES:,}; "
            "ask for fewer tokens, or use exact_kl_on_samples"
        )
    table = np.stack([_log_probs(model, n_logits, n_tokens) for model in models])
    return Enumerated(tuple(model.spec.name for model in models), table, n_tokens)


def _log_probs(model: LoadedModel, vocab_size: int, n_tokens: int) -> np.ndarray:
    """Log-probabilities of all sequences, (V^T,): those of one token less, and the next one's added."""
    prefix = choose_prefix(model.tokenizer, model.spec.prefix)
    contexts, total = torch.tensor([[prefix.id]]), torch.zeros(1, dtype=torch.float64)
    tokens = torch.arange(vocab_size)
    for length in range(1, n_tokens + 1):
        total = (total[:, None] + _next_token(model, contexts)).flatten()
        if length < n_tokens:
            last = tokens.repeat(len(contexts))[:, None]
            contexts = torch.cat([contexts.repeat_interleave(vocab_size, dim=0), last], dim=1)
    table: np.ndarray = total.numpy()
    if np.isnan(table).any():
        raise InputError(f"{model.spec.name} gives logits that are not numbers")
    return table


def _next_token(model: LoadedModel, contexts: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of every next token, (C, V), in float64, after C contexts of one length."""
    at_once = max(1, min(default_budget(model) // contexts.shape[1], rows_at_once([model])))
    with torch.inference_mode():
        return torch.cat(
            [
                model.logits(model.hidden(batch)[:, -1]).cpu().double().log_softmax(dim=-1)
                for batch in contexts.split(at_once)
            ]
        )
