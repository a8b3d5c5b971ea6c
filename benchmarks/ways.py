"""Ways to score texts under one model: the published procedure, a lean loop, lm-evaluation-harness, lmmap."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmmap.models import ModelSpec
from lmmap.scoring.batches import token_log_probs
from lmmap.scoring.encode import Encoded, encode, tokenize
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import default_budget
from lmmap.scoring.plan import plan_batches
from lmmap.scoring.prefix import choose_prefix
from lmmap.scoring.row import score_row

LEAN_ROWS = 8_192  # rows of logits at a time


class Scored(NamedTuple):
    """Log-likelihoods in nats, and how many positions the model read for them, padding counted."""

    log_likelihoods: np.ndarray
    n_positions: int


class CountingModel:
    """A model as transformers loads it, which counts the positions that it reads."""

    def __init__(self, folder: Path, device: str) -> None:
        cuda = torch.device(device).type == "cuda"
        dtype = torch.float16 if cuda else torch.float32
        spread = {"device_map": {"": torch.device(device)}} if cuda else {}
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **spread).eval()
        self.device, self.n_positions = device, 0
        self.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def cut(self, texts: Sequence[str]) -> list[list[int]]:
        """Cut texts into tokens; what looks like a special token is text."""
        options = {"add_special_tokens": False, "split_special_tokens": True}
        ids: list[list[int]] = self.tokenizer(list(texts), **options)["input_ids"]
        return ids

    def _count(self, _: object, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = arguments[0] if arguments else named["input_ids"]
        self.n_positions += ids.numel()


def published(plain: CountingModel, texts: Sequence[str]) -> Scored:
    """Score as the published procedure does: one text per forward, a `float()` for each of its tokens."""
    context, totals, before = plain.model.config.max_position_embeddings, [], plain.n_positions
    for text in texts:
        ids = plain.tokenizer.encode(text, return_tensors="pt", truncation=True, max_length=context)
        ids = ids.to(plain.device)
        with torch.no_grad():
            logits = plain.model(ids, use_cache=True).logits
        log_probs, following = torch.log_softmax(logits, dim=-1), ids[0, 1:]
        totals.append(sum(float(log_probs[0, t, following[t]]) for t in range(len(following))))
    return Scored(np.array(totals), plain.n_positions - before)


@torch.inference_mode()
def lean(plain: CountingModel, texts: Sequence[str], token_budget: int) -> Scored:
    """Score by a lean loop: sorted by length, padded on the right, no mask, float32 logits of real tokens."""
    model, head = plain.model, plain.model.get_output_embeddings()
    ids = [[plain.tokenizer.eos_token_id, *row] for row in plain.cut(texts)]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    found, n_positions, start = [], 0, 0
    while start < len(order):
        length = len(ids[order[start]])
        rows = [ids[i] for i in order[start : start + max(1, token_budget // (length - 1))]]
        start += len(rows)
        batch = torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            batch[i, : len(row)] = torch.tensor(row)
        lengths = torch.tensor([len(row) for row in rows])[:, None]
        kept = (torch.arange(1, length) < lengths).to(plain.device)
        batch = batch.to(plain.device)
        hidden = model.base_model(batch[:, :-1], use_cache=False)[0][kept]
        wanted = batch[:, 1:][kept]
        for some, next_ids in zip(hidden.split(LEAN_ROWS), wanted.split(LEAN_ROWS), strict=True):
            logits = head(some).float()
            found.append(logits.gather(1, next_ids[:, None])[:, 0] - logits.logsumexp(1))
        n_positions += batch[:, 1:].numel()
    values = torch.cat(found).cpu().double().numpy()
    first = np.cumsum([0, *(len(ids[i]) - 1 for i in order[:-1])])
    totals = np.empty(len(ids))
    totals[order] = np.add.reduceat(values, first)
    return Scored(totals, n_positions)


def lm_eval(plain: CountingModel, texts: Sequence[str], batch_size: int) -> Scored:
    """Score by lm-evaluation-harness: `loglikelihood_rolling` of its class for transformers' models."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    before = plain.n_positions
    with quietly():
        tool = HFLM(plain.model, tokenizer=plain.tokenizer, batch_size=batch_size, device=plain.device)
        requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
        totals = tool.loglikelihood_rolling(requests, disable_tqdm=True)
    return Scored(np.array(totals), plain.n_positions - before)


class Prepared(NamedTuple):
    """Texts cut into tokens, and the batches in which lmmap scores them."""

    sequences: list[Encoded]
    batches: list[np.ndarray]


def cut(model: LoadedModel, texts: Sequence[str], token_budget: int | None) -> Prepared:
    """Cut texts and plan batches as lmmap does for a row."""
    sequences = encode(
        tokenize(model.tokenizer, texts), choose_prefix(model.tokenizer), context=model.context
    )
    lengths = [len(e.ids) - 1 for e in sequences]
    return Prepared(
        sequences, plan_batches(lengths, token_budget or default_budget(model), equal_above=model.equal_above)
    )


def tokens_at_hand(model: LoadedModel, prepared: Prepared, _: object = None) -> Scored:
    """Score what is cut already, by lmmap; the texts themselves are not looked at."""
    totals = np.zeros(1 + max(e.text for e in prepared.sequences))
    values = token_log_probs(model, prepared.sequences, prepared.batches)
    for e, of_sequence in zip(prepared.sequences, values, strict=True):
        totals[e.text] += of_sequence.sum(dtype=np.float64)
    padded = sum(len(b) * (len(prepared.sequences[b[0]].ids) - 1) for b in prepared.batches)
    return Scored(totals, padded)


def lmmap(model: LoadedModel, texts: Sequence[str], token_budget: int | None) -> Scored:
    return tokens_at_hand(model, cut(model, texts, token_budget))


def whole_row(folder: Path, device: str, token_budget: int | None, texts: Sequence[str]) -> Scored:
    """Score a row as `lmmap score` does, from the model's files to noise that is known."""
    row = score_row(ModelSpec(str(folder.absolute())), texts, device=device, token_budget=token_budget)
    return Scored(row.log_likelihood, 0)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep another tool's bars and advice off the screen."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
