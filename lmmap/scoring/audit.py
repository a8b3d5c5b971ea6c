"""The audit of the prefix: how some texts score after each token that could have stood in front."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import torch

from lmmap.scoring.encode import Encoded, encode, tokenize
from lmmap.scoring.prefix import Prefix, candidate_prefixes

if TYPE_CHECKING:
    from lmmap.scoring.forward import LoadedModel

AUDIT_TEXTS, AUDIT_TOKENS, AUDIT_MARGIN = 16, 32, 1.0


def audit_prefix(model: LoadedModel, texts: Sequence[str], chosen: Prefix) -> dict[str, float]:
    """Score some texts after every candidate prefix.

    Sixteen texts spread over the set, the first 32 tokens of each: a prefix acts on the start of a text.
    Texts of one length are read together, so that no padding can blur the comparison.

    Parameters
    ----------
    model : LoadedModel
        The model.
    texts : sequence of str
        The text set.
    chosen : Prefix
        The prefix in use.

    Returns
    -------
    dict
        Token -> mean log-likelihood in nats per text; the chosen token first. Left out are candidates that
        the embedding lacks, and those after which the model gives no finite number.
    """
    places = np.unique(np.linspace(0, len(texts) - 1, AUDIT_TEXTS).astype(int))
    tokenized = tokenize(model.tokenizer, [texts[i] for i in places])
    context = min(AUDIT_TOKENS, model.context or AUDIT_TOKENS)
    table = {}
    for prefix in candidate_prefixes(model.tokenizer, chosen):
        if prefix.id < model.vocab_size:
            mean = _mean(model, encode(tokenized, prefix, context=context, long_texts="truncate"))
            if isfinite(mean) or prefix == chosen:
                table[prefix.token] = mean
    return table


def audit_flag(audit: dict[str, float]) -> str | None:
    """Tell a prefix that another candidate beats by more than 1 nat per text.

    Parameters
    ----------
    audit : dict
        What `audit_prefix` gave.

    Returns
    -------
    str or None
        The flag.

    Examples
    --------
    >>> audit_flag({"<s>": -20.0, "</s>": -12.5})
    "prefix '</s>' would score 7.5 nats per text more than '<s>'"
    >>> audit_flag({"<s>": -20.0, "</s>": -19.5})
    """
    chosen = next(iter(audit))
    best = max(audit, key=lambda token: audit[token])
    gain = audit[best] - audit[chosen]
    return (
        f"prefix {best!r} would score {gain:.1f} nats per text more than {chosen!r}"
        if gain > AUDIT_MARGIN
        else None
    )


def _mean(model: LoadedModel, sequences: Sequence[Encoded]) -> float:
    total = 0.0
    for length in sorted({len(e.ids) for e in sequences}):
        ids = torch.from_numpy(np.stack([e.ids for e in sequences if len(e.ids) == length]))
        with torch.inference_mode():
            total += model.score(ids, torch.ones_like(ids[:, 1:], dtype=torch.bool)).double().sum().item()
    return total / len(sequences)
