"""Checks at load: is the model causal, and does padding disturb it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lmmap.errors import InputError, PrecisionError
from lmmap.scoring.encode import Encoded
from lmmap.scoring.tables import pad_ids

if TYPE_CHECKING:
    from lmmap.scoring.forward import LoadedModel

SWAP_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 0.1, torch.bfloat16: 0.5}
"""Nats, where kernels are not exact: those of mixtures of experts, and those that differ from run to run."""
PAD_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.25, torch.bfloat16: 2.0}
SHORT = 12  # tokens; some models take another way when a text is short


def suffix_swap(model: LoadedModel, longest: int) -> float:
    """Check that what comes later does not move what came before.

    Two sequences of one length share their first half and differ in the second: at the longest length that
    will be scored, at a short one, and at the longest again, for a model must not depend on what it has
    seen.

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
        If there is a difference where kernels are exact, or one above `SWAP_TOLERANCE` where they are not:
        the model is not causal. If what was seen before matters, if logits are not finite, or if it does
        not run at all on so many tokens.
    """
    length = max(2, min(longest, model.context or longest))
    worst = 0.0
    with model.running(f"on {length} tokens in {model.precision}"):
        first = _first_half(model, length, 0)
    for n in sorted({length, min(length, SHORT)}, reverse=True):
        one, other = (first if n == length else _first_half(model, n, 0)), _first_half(model, n, 1)
        difference = _apart(model, one, other)
        if not math.isfinite(difference):
            raise PrecisionError(
                f"{model.spec.source}: logits are not finite in {model.precision}; "
                "the weights or the precision are at fault"
            )
        again = _first_half(model, n, 0) if difference else one
        _check_repeats(model, one, again)
        if not difference <= _allowed(model, one, again):
            raise InputError(
                f"{model.spec.source}: {type(model.model).__name__} is not causal: other tokens at the end "
                f"of {n} moved log-probabilities at the start by {difference:.3g} nats"
            )
        worst = max(worst, difference)
    _check_repeats(model, first, _first_half(model, length, 0))
    return worst


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
        Largest difference in nats between a sequence alone and padded to the longest with which it may
        share a batch: the shortest, and one that holds the model's own padding, which some models count.
    """
    shortest = torch.from_numpy(min((e.ids for e in sequences), key=len))
    lengths = [len(e.ids) for e in sequences]
    if model.equal_above is not None:  # a sequence of n ids reads n - 1
        lengths = [n for n in lengths if n - 1 <= model.equal_above] or [len(shortest)]
    longest = max(lengths)
    with_pads = [
        torch.tensor([int(shortest[0]), pad, int(shortest[-1])])
        for pad in pad_ids(model.model)
        if pad < model.vocab_size
    ]
    texts = [shortest, *(ids for ids in with_pads if len(ids) <= longest)]
    return max(abs(_total(model, ids, len(ids)) - _total(model, ids, longest)) for ids in texts)


def _total(model: LoadedModel, ids: torch.Tensor, length: int) -> float:
    """Log-likelihood of a sequence padded to a length."""
    padded = torch.nn.functional.pad(ids, (0, length - len(ids)))[None]
    keep = torch.arange(1, length)[None] < len(ids)
    with torch.inference_mode():
        return float(model.score(padded, keep).double().sum())


def _first_half(model: LoadedModel, length: int, seed: int) -> torch.Tensor:
    """Rows for the head of the first half of a sequence whose second half the seed decides."""
    generator = torch.Generator().manual_seed(length)
    start = torch.randint(model.vocab_size, (1, length // 2), generator=generator)
    generator.manual_seed(seed)
    end = torch.randint(model.vocab_size, (1, length - length // 2), generator=generator)
    with torch.inference_mode():
        return model.hidden(torch.cat([start, end], dim=1))[0, : length // 2]


def _apart(model: LoadedModel, one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference of a log-probability; not a number if one is not finite."""
    worst = 0.0
    with torch.inference_mode():
        if torch.equal(one, other):  # so are their log-probabilities
            finite = [model.logits(rows).logsumexp(1).isfinite().all() for rows in model.row_chunks(one)]
            return 0.0 if all(finite) else math.nan
        for pair in zip(model.row_chunks(one), model.row_chunks(other), strict=True):
            first, second = (model.logits(rows).log_softmax(dim=-1) for rows in pair)
            difference = float((first - second).abs().masked_fill(first == second, 0).max())
            worst = difference if math.isnan(difference) else max(worst, difference)
    return worst


def _check_repeats(model: LoadedModel, one: torch.Tensor, again: torch.Tensor) -> None:
    moved = 0.0 if torch.equal(one, again) else _apart(model, one, again)
    if not moved <= SWAP_TOLERANCE[model.dtype]:
        raise InputError(
            f"{model.spec.source}: {type(model.model).__name__} depends on what it has read before: the same "
            f"tokens, read again, have log-probabilities {moved:.3g} nats away"
        )


def _allowed(model: LoadedModel, one: torch.Tensor, again: torch.Tensor) -> float:
    """Nothing, unless the model has experts or does not repeat itself to the bit."""
    kinds = {type(module).__name__.lower() for module in model.model.modules()}
    experts = any("expert" in kind or "moe" in kind for kind in kinds)
    return SWAP_TOLERANCE[model.dtype] if experts or not torch.equal(one, again) else 0.0
