"""Scoring: log-probability of every token of every text, and its sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmap.errors import InputError, PrecisionError
from lmmap.scoring.batches import token_log_probs
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import Job, prepare
from lmmap.store import Row

ABOVE_ZERO = 1e-5  # nats by which rounding may lift a log-probability of one


def finish(
    job: Job, log_probs: Sequence[np.ndarray], n_texts: int, name: str, *, keep_tokens: bool = True
) -> Row:
    """Put windows together and add up, in float64.

    Parameters
    ----------
    job : Job
        What was scored.
    log_probs : sequence of float32 arrays
        What `token_log_probs` gave.
    n_texts : int
        N.
    name : str
        The model's name, for messages.
    keep_tokens : bool
        Whether the row keeps the log-probability of every token.

    Returns
    -------
    Row
        The finished row.

    Raises
    ------
    InputError
        If a log-probability is above 1e-5 nats, or not finite (`PrecisionError`): text and model are named.
    """
    pieces: list[list[np.ndarray]] = [[] for _ in range(n_texts)]
    for sequence, values in zip(job.sequences, log_probs, strict=True):
        pieces[sequence.text].append(values)
    tokens = [np.concatenate(piece) for piece in pieces]
    for i, values in enumerate(tokens):
        wrong = ~np.isfinite(values) | (values > ABOVE_ZERO)
        if wrong.any():
            value = values[wrong][0]
            raise (InputError if np.isfinite(value) else PrecisionError)(
                f"{name} gives a token of text {i + 1} the log-probability {value}; no score is written"
            )
        if not len(values):
            raise InputError(f"text {i + 1} has no token that {name} could score; remove it")
    n_tokens = np.array([len(values) for values in tokens])
    return Row(
        log_likelihood=np.array([values.sum(dtype=np.float64) for values in tokens]),
        n_tokens=n_tokens,
        special_hits=job.tokenized.special_hits,
        tokens=tokens if keep_tokens else None,
        ids=job.tokenized.ids,
        byte_end=job.tokenized.byte_end,
        provenance={**job.provenance, "n_tokens": int(n_tokens.sum())},
    )


def score_texts(
    model: LoadedModel,
    texts: Sequence[str],
    *,
    prefix: str = "auto",
    long_texts: str = "window",
    token_budget: int | None = None,
    audit: bool = True,
) -> Row:
    """Score texts under one model.

    ``l(x) = sum over t of log p(y_t | y_0 .. y_{t-1})`` over all tokens of the text, after one prefix token
    y_0; nothing is scored behind the end.

    Parameters
    ----------
    model : LoadedModel
        From `load_model`.
    texts : sequence of str
        N texts.
    prefix, long_texts, token_budget, audit
        As `lmmap.scoring.job.prepare`.

    Returns
    -------
    Row
        Log-likelihoods (N,) in nats, token log-probabilities, and how they were made.

    Raises
    ------
    InputError
        As `prepare` and `finish`.
    """
    job = prepare(model, texts, prefix=prefix, long_texts=long_texts, token_budget=token_budget, audit=audit)
    return finish(job, token_log_probs(model, job.sequences, job.batches), len(texts), model.spec.name)
