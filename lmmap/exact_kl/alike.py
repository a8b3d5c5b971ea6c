"""What models must share for an exact KL: a tokenizer, a prefix, the outputs, the way they read a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lmmap.errors import InputError
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import Job
from lmmap.scoring.prefix import choose_prefix


def check_models(models: Sequence[LoadedModel]) -> int:
    """Refuse models whose next-token distributions are not over the same tokens after the same prefix.

    What is returned is how many logits they give.
    """
    check_names(models)
    first, *others = models
    n_logits = _n_outputs(first)
    for other in others:
        pair = f"{first.spec.name} and {other.spec.name}"
        if difference := _vocabulary_difference(first, other):
            raise InputError(f"{pair} have different tokenizers, so no exact KL: {difference}")
        one, two = (choose_prefix(model.tokenizer, model.spec.prefix).token for model in (first, other))
        if one != two:
            raise InputError(f"{pair} have the prefixes {one!r} and {two!r}; give both the same `prefix:`")
        if (n_outputs := _n_outputs(other)) != n_logits:
            raise InputError(
                f"{pair} give {n_logits:,} and {n_outputs:,} logits, so no exact KL: one has rows for "
                "tokens that its tokenizer lacks"
            )
    return n_logits


def check_names(models: Sequence[LoadedModel]) -> None:
    """Refuse less than two models, and names that do not tell them apart."""
    names = [model.spec.name for model in models]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"KL needs two or more models, each with a name of its own; got {names}")


def check_reading(models: Sequence[LoadedModel], jobs: Sequence[Job]) -> None:
    """Refuse models that do not read the texts as the same sequences of ids."""
    first, job = models[0], jobs[0]
    for other, its in zip(models[1:], jobs[1:], strict=True):
        pair = f"{first.spec.name} and {other.spec.name}"
        for x, (one, two) in enumerate(zip(job.tokenized.ids, its.tokenized.ids, strict=True)):
            if not np.array_equal(one, two):
                raise InputError(
                    f"{pair} have different tokenizers, so no exact KL: text {x + 1} is cut into "
                    f"{len(one)} and {len(two)} tokens, which differ"
                )
        if [e.ids.tobytes() for e in job.sequences] != [e.ids.tobytes() for e in its.sequences]:
            raise InputError(
                f"{pair} have {first.context} and {other.context} positions and read long texts in different "
                "windows; leave out texts longer than the shorter context"
            )


def _vocabulary_difference(first: LoadedModel, other: LoadedModel) -> str:
    one, two = first.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    if one == two:
        return ""
    if len(one) != len(two):
        return f"{len(one):,} and {len(two):,} tokens"
    number = min(number for _, number in one.items() ^ two.items())
    tokens = [
        {number: token for token, number in vocabulary.items()}.get(number) for vocabulary in (one, two)
    ]
    return f"token {number} is {tokens[0]!r} in one and {tokens[1]!r} in the other"


def _n_outputs(model: LoadedModel) -> int:
    with torch.inference_mode():
        return int(model.logits(model.hidden(torch.zeros((1, 1), dtype=torch.int64))[0]).shape[-1])
