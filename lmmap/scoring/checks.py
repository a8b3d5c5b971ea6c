"""Checks at load: is the model causal, does padding disturb it, does another prefix suit it better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lmmap.errors import InputError, NotFiniteError
from lmmap.scoring.encode import Encoded, encode, tokenize
from lmmap.scoring.prefix import Prefix, candidate_prefixes

if TYPE_CHECKING:
    from lmmap.scoring.forward import LoadedModel

SWAP_TOLERANCE = 1e-4  # nats, where kernels of a mixture of experts are not exact
PAD_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.25, torch.bfloat16: 2.0}
AUDIT_TEXTS, AUDIT_TOKENS, AUDIT_MARGIN = 16, 32, 1.0


def suffix_swap(model: LoadedModel, longest: int) -> float:
    """Check that what comes later does not move what came before.

    Two batches of one shape share their first half and differ in the second.

    Parameters
    ----------
    model : LoadedModel
        The model.
    longest : int
        Longest sequence that will be scored.

    Returns
    -------
    float
        Largest difference of a log-probability in the first half, in nats; zero for nearly all models.

    Raises
    ------
    InputError
        If the difference is above 1e-4 nats (the model is not causal), or logits are not finite.
    """
    generator = torch.Generator().manual_seed(0)
    length = max(2, min(longest, model.context or longest))
    half = length // 2
    one, other = torch.randint(model.vocab_size, (2, 1, length), generator=generator)
    other[:, :half] = one[:, :half]
    with torch.inference_mode():
        first, second = (
            _log_softmax(model, model.hidden(ids)[:, :half].flatten(0, 1)) for ids in (one, other)
        )
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise NotFiniteError(
            f"{model.spec.source}: logits are not finite in {model.precision}; "
            "the weights or the precision are at fault"
        )
    difference = float((first - second).abs().max())
    if not difference <= SWAP_TOLERANCE:
        raise InputError(
            f"{model.spec.source}: {type(model.model).__name__} is not causal: other tokens at the end moved "
            f"log-probabilities at the start by {difference:.3g} nats"
        )
    return difference


def pad_growth(model: LoadedModel, sequences: Sequence[Encoded]) -> float:
    """Check that padding on the right does not move a text's log-likelihood.

    Parameters
    ----------
    model : LoadedModel
        The model.
    sequences : sequence of Encoded
        What will be scored.

    Returns
    -------
    float
        Difference in nats between the shortest sequence alone and padded to the longest.
    """
    shortest = min(sequences, key=lambda e: len(e.ids))
    longest = max(len(e.ids) for e in sequences)
    ids = torch.from_numpy(shortest.ids)[None]
    padded = torch.nn.functional.pad(ids, (0, longest - ids.shape[1]))
    totals = []
    with torch.inference_mode():
        for batch in (ids, padded):
            hidden = model.hidden(batch[:, :-1])[0, : ids.shape[1] - 1]
            totals.append(model.log_probs(hidden, ids[0, 1:]).double().sum().item())
    return abs(float(totals[0]) - float(totals[1]))


def audit_prefix(model: LoadedModel, texts: Sequence[str], chosen: Prefix) -> dict[str, float]:
    """Score some texts after every candidate prefix.

    Sixteen texts spread over the set, the first 32 tokens of each: a prefix acts on the start of a text.

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
        Token -> mean log-likelihood in nats per text; the chosen token first.
    """
    places = np.unique(np.linspace(0, len(texts) - 1, AUDIT_TEXTS).astype(int))
    tokenized = tokenize(model.tokenizer, [texts[i] for i in places])
    context = min(AUDIT_TOKENS, model.context or AUDIT_TOKENS)
    table = {}
    for prefix in candidate_prefixes(model.tokenizer, chosen):
        if prefix.id >= model.vocab_size:
            continue
        sequences = encode(tokenized, prefix, context=context, long_texts="truncate")
        lengths = torch.tensor([len(e.ids) for e in sequences])
        ids = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(e.ids) for e in sequences], batch_first=True)
        keep = torch.arange(1, ids.shape[1])[None] < lengths[:, None]
        with torch.inference_mode():
            hidden = model.hidden(ids[:, :-1])[keep.to(model.device)]
            table[prefix.token] = model.log_probs(hidden, ids[:, 1:][keep]).double().sum().item() / len(
                sequences
            )
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


def _log_softmax(model: LoadedModel, hidden: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.logits(rows).log_softmax(dim=-1) for rows in model.row_chunks(hidden)])
