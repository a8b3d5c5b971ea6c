"""Measuring: every model runs once over the texts, all pairs come from products of their probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lmmap.errors import InputError
from lmmap.exact_kl.alike import check_models, check_reading
from lmmap.exact_kl.result import ExactKL
from lmmap.exact_kl.rows import rows_at_once
from lmmap.exact_kl.sample import check_fits, sample_ids
from lmmap.scoring.encode import Encoded
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import default_budget, prepare
from lmmap.scoring.plan import plan_batches

NUMBERS_AT_ONCE = {"cpu": 2**19, "cuda": 2**25}  # float64, in one product: on a CPU, what fits in a cache


def exact_kl_on_texts(
    models: Sequence[LoadedModel], texts: Sequence[str], *, weights: np.ndarray | None = None
) -> ExactKL:
    """Sum KL over the whole vocabulary at every token of given texts, for every pair of models.

    Texts are read as for scoring: same prefix, windows and checks. Sums are in float64.

    Parameters
    ----------
    models : sequence of K LoadedModel
        Two or more models of one tokenizer and one prefix, each with a name of its own.
    texts : sequence of str
        N texts, at least two: errors are over texts.
    weights : (N,) float array, optional
        Weight of each text; uniform by default.

    Returns
    -------
    ExactKL
        KL of every pair and text, and the log-probabilities of the texts' tokens. Where one model excludes
        a token that another allows, KL from the other to it is inf.

    Raises
    ------
    InputError
        If two models differ in tokenizer, prefix or number of logits, or read a long text in different
        windows (both are named); if logits are not numbers; or as `lmmap.scoring.job.prepare`.
    """
    w = _checked_weights(weights, len(texts))
    check_models(models)
    jobs = [prepare(model, texts, audit=False) for model in models]
    check_reading(models, jobs)
    strict = [job for job in jobs if job.provenance["equal_above"] is not None]
    plan = min(strict, key=lambda job: job.provenance["equal_above"], default=jobs[0])
    return _measure(models, None, plan.sequences, plan.batches, w)


def exact_kl_on_samples(
    models: Sequence[LoadedModel], *, n_texts: int, n_tokens: int, seed: int = 0, source: int = 0
) -> ExactKL:
    """Sum KL over the whole vocabulary at every token of texts sampled from one of the models.

    Row ``source`` of the result's ``kl``, also `ExactKL.sequence_kl`, is an unbiased estimate of KL from that
    model to each other one, between distributions over sequences of ``n_tokens`` tokens after the prefix.
    The other rows are *not* KL of sequences: their contexts come from the source. For half-Jeffreys of
    sequences call once for each source and give the results to `compare_estimates`.

    Parameters
    ----------
    models : sequence of K LoadedModel
        Two or more models of one tokenizer and one prefix, each with a name of its own.
    n_texts, n_tokens : int
        How many texts, at least two, of how many tokens each; see `sample_ids`.
    seed : int
        Start of the random numbers, of which every model's name has its own.
    source : int
        Number of the model that is sampled from.

    Returns
    -------
    ExactKL
        KL of every pair and text, and the log-probabilities of the sampled tokens; `ExactKL.naive_kl` and
        `ExactKL.variance_saved` tell what these alone would have given.

    Raises
    ------
    InputError
        As `exact_kl_on_texts` and `sample_ids`, or if ``source`` is no model's number.
    """
    w = _checked_weights(None, n_texts)
    check_models(models)
    if not 0 <= source < len(models):
        raise InputError(f"source must be a number from 0 to {len(models) - 1}, got {source}")
    for model in models:
        check_fits(model, n_tokens)
    ids = sample_ids(models[source], n_texts=n_texts, n_tokens=n_tokens, seed=seed)
    scored = np.arange(n_tokens + 1) > 0
    sequences = [Encoded(x, row, scored) for x, row in enumerate(ids)]
    batches = plan_batches([n_tokens] * n_texts, default_budget(models[source]))
    return _measure(models, source, sequences, batches, w)


def _measure(
    models: Sequence[LoadedModel],
    source: int | None,
    sequences: Sequence[Encoded],
    batches: Sequence[np.ndarray],
    weights: np.ndarray,
) -> ExactKL:
    """Add up every pair's KL for each text, and keep the log-probabilities of the tokens that are there."""
    names = tuple(model.spec.name for model in models)
    text_of = torch.tensor([e.text for e in sequences])
    kl, variance = torch.zeros((2, len(weights), len(models), len(models)), dtype=torch.float64)
    token_log_probs, sequence_of_token = [], []
    if any(model.head == "forward" for model in models):  # what gives every logit reads one text at a time
        batches = [one for batch in batches for one in np.split(batch, len(batch))]
    for batch in batches:
        members = [sequences[i] for i in batch]
        ids = pad_sequence([torch.from_numpy(e.ids) for e in members], batch_first=True)
        keep = pad_sequence([torch.from_numpy(e.scored) for e in members], batch_first=True)[:, 1:]
        sequence, token = torch.from_numpy(batch)[keep.nonzero()[:, 0]], ids[:, 1:][keep]
        with torch.inference_mode():
            for at, log_p in _log_probs(models, ids[:, :-1], keep):
                chunk_kl, chunk_variance = _pairs(log_p)
                kl.index_add_(0, text_of[sequence[at]], chunk_kl.cpu())
                variance.index_add_(0, text_of[sequence[at]], chunk_variance.cpu())
                token_log_probs.append(log_p[:, range(log_p.shape[1]), token[at]].cpu().numpy())
        sequence_of_token.append(sequence)
    order = torch.cat(sequence_of_token).argsort(stable=True)
    log_probs = np.concatenate(token_log_probs, axis=1)[:, order]
    text_of_token = text_of[torch.cat(sequence_of_token)[order]].numpy()
    if np.isnan(log_probs).any():
        i, t = np.argwhere(np.isnan(log_probs))[0]
        raise InputError(f"{names[i]} gives text {text_of_token[t] + 1} logits that are not numbers")
    return ExactKL(names, source, kl.numpy(), variance.numpy(), log_probs, text_of_token, weights)


def _log_probs(models: Sequence[LoadedModel], ids: Tensor, keep: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield log-probabilities of the whole vocabulary, (K, R, V) float64, for R kept positions at a time."""
    hidden = [model.hidden(ids)[keep.to(model.device)] for model in models]
    most = NUMBERS_AT_ONCE.get(models[0].device.type, NUMBERS_AT_ONCE["cpu"])
    start = 0
    for rows in zip(*(h.split(rows_at_once(models)) for h in hidden), strict=True):
        logits = torch.stack([model.logits(h) for model, h in zip(models, rows, strict=True)])
        for some in logits.split(max(1, most // logits[:, 0].numel()), dim=1):
            yield slice(start, start + some.shape[1]), some.double().log_softmax(dim=-1)
            start += some.shape[1]


def _pairs(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """From (K, R, V) log-probabilities to KL, and to the variance of the log-ratio, of every pair: (R, K, K).

    The mean over models drops out of every difference; without it the numbers of near models are small, so
    little cancels. A token that i allows and j excludes makes entry (i, j) infinite.
    """
    p, x = log_p.exp().transpose(0, 1), log_p.transpose(0, 1)
    excluded = x.isneginf()
    if excluded.any():
        x = x.masked_fill(excluded, 0)
    x = x - x.mean(dim=1, keepdim=True)
    cross, squares, mixed = p @ x.mT, p @ (x * x).mT, (p * x) @ x.mT
    kl = (_own(cross) - cross).clamp(min=0)
    variance = (_own(squares) - 2 * mixed + squares - kl**2).clamp(min=0)
    if excluded.any():
        infinite = p @ excluded.to(p.dtype).mT > 0
        kl[infinite] = variance[infinite] = torch.inf
    return kl, variance


def _own(table: Tensor) -> Tensor:
    return table.diagonal(dim1=1, dim2=2)[:, :, None]


def _checked_weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any():
        raise InputError(f"weights must be {n} finite numbers, none negative; got {weights}")
    if np.count_nonzero(w) < 2:
        raise InputError(f"{np.count_nonzero(w)} of {n} texts carry weight; errors over texts need two")
    return w
