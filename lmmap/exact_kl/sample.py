"""Sampling: token ids from a model's own distribution, used as they are and never decoded."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from lmmap.errors import InputError
from lmmap.exact_kl.rows import rows_at_once
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import default_budget
from lmmap.scoring.prefix import choose_prefix


def sample_ids(model: LoadedModel, *, n_texts: int, n_tokens: int, seed: int = 0) -> np.ndarray:
    """Sample texts from a model's own distribution, after the prefix that scoring uses.

    Temperature 1 and nothing else: no top-k, top-p or penalty, whatever the model's generation settings say.
    EOS is a token like the others, and all texts have the same number of tokens.

    Parameters
    ----------
    model : LoadedModel
        The model.
    n_texts, n_tokens : int
        How many texts, of how many tokens each.
    seed : int
        Start of the random numbers, of which every model's name has its own.

    Returns
    -------
    (n_texts, n_tokens + 1) int64 array
        Ids; the first column is the prefix.

    Raises
    ------
    InputError
        If a number is below 1, or the model's context is shorter than ``n_tokens``.
    """
    if min(n_texts, n_tokens) < 1:
        raise InputError(f"n_texts and n_tokens must be at least 1, got {n_texts} and {n_tokens}")
    check_fits(model, n_tokens)
    prefix = choose_prefix(model.tokenizer, model.spec.prefix)
    stream = hashlib.sha256(f"{seed} {model.spec.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(stream[:8], "big", signed=True))
    at_once = max(1, min(default_budget(model) // n_tokens, rows_at_once([model])))
    first = torch.full((n_texts, 1), prefix.id)
    return np.concatenate([_go_on(model, ids, n_tokens, generator) for ids in first.split(at_once)])


def check_fits(model: LoadedModel, n_tokens: int) -> None:
    """Refuse more tokens than fit behind a prefix: a context of C positions gives C tokens."""
    if model.context is not None and n_tokens > model.context:
        raise InputError(f"{model.spec.name} has {model.context} positions; {n_tokens} tokens were asked for")


def _go_on(model: LoadedModel, ids: torch.Tensor, n_tokens: int, generator: torch.Generator) -> np.ndarray:
    """Append sampled tokens one by one; what the model remembers of earlier ones is handed back to it."""
    memory: dict[str, Any] = {}
    with torch.inference_mode():
        for _ in range(n_tokens):
            if memory or ids.shape[1] == 1:
                output = model.model(input_ids=ids[:, -1:].to(model.device), use_cache=True, **memory)
                if getattr(output, "past_key_values", None) is not None:
                    memory = {"past_key_values": output.past_key_values}
                logits = output.logits[:, -1]
            else:
                logits = model.logits(model.hidden(ids)[:, -1])
            p = logits.cpu().double().softmax(dim=-1)
            ids = torch.cat([ids, torch.multinomial(p, 1, generator=generator)], dim=1)
    sampled: np.ndarray = ids.numpy()
    return sampled
