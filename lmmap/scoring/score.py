"""Scoring: log-probability of every token of every text, and its sum."""

from __future__ import annotations

import math
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch

from lmmap.errors import InputError, PrecisionError
from lmmap.scoring.audit import audit_flag, audit_prefix
from lmmap.scoring.checks import PAD_TOLERANCE, pad_growth, suffix_swap
from lmmap.scoring.encode import Encoded, Tokenized, encode, tokenize, tokenizer_hash
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.plan import plan_batches, plan_hash
from lmmap.scoring.prefix import choose_prefix
from lmmap.store import Row
from lmmap.version import __version__

CPU_BUDGET = 2048
GPU_NUMBERS = 2**26  # hidden numbers of a batch: fewer leave a GPU idle, more find nothing in its caches
GPU_BUDGETS = (8192, 2**17)
AHEAD = {"cuda": 3}  # batches set going before the values of one are waited for
SLOW_HEAD = "its head does not run on chosen rows: every logit is computed, text by text"
ABOVE_ZERO = 1e-5  # nats by which rounding may lift a log-probability of one


@dataclass(frozen=True)
class Job:
    """All that decides a row's bits, worked out before the first batch.

    Parameters
    ----------
    sequences : list of Encoded
        What the model reads.
    batches : list of int arrays
        Which sequences go together.
    tokenized : Tokenized
        The texts' tokens.
    provenance : dict
        How the row is made.
    hash : str
        Name of the plan: finished batches of another plan are not taken up.
    """

    sequences: list[Encoded]
    batches: list[np.ndarray]
    tokenized: Tokenized
    provenance: dict[str, Any]
    hash: str


class Work(Protocol):
    """Which batches of a job this process scores, and where their values go."""

    def numbers(self) -> Iterator[int]:
        """Give the numbers of batches to score, one after another; others may be scored elsewhere."""

    def keep(self, number: int, values: np.ndarray) -> None:
        """Take a batch's log-probabilities."""

    def collect(self) -> Mapping[int, np.ndarray]:
        """Give the values of every batch, once ``numbers`` has ended."""


class EveryBatch:
    """The work of a process that scores a whole job by itself and keeps it in memory.

    Parameters
    ----------
    job : Job
        What is scored.
    """

    def __init__(self, job: Job) -> None:
        self.values: dict[int, np.ndarray] = {}
        self.n_batches = len(job.batches)

    def numbers(self) -> Iterator[int]:
        """Give all batches."""
        yield from range(self.n_batches)

    def keep(self, number: int, values: np.ndarray) -> None:
        """Take a batch's log-probabilities."""
        self.values[number] = values

    def collect(self) -> Mapping[int, np.ndarray]:
        """Give the values of every batch."""
        return self.values


def score_batches(
    model: LoadedModel, sequences: Sequence[Encoded], batches: Sequence[np.ndarray], numbers: Iterable[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Score batches, one after another.

    Sequences are padded on the right and read without a mask; hidden states of scored positions alone go
    through the model's own head, in float32.

    Parameters
    ----------
    model : LoadedModel
        The model.
    sequences : sequence of Encoded
        Ids and which of them count.
    batches : sequence of int arrays
        The plan, from `plan_batches`.
    numbers : iterable of int
        Which of them.

    Yields
    ------
    int, float32 array
        A batch's number and the log-probabilities of its scored tokens, sequence after sequence, in nats.
        Whether they are numbers is for `finish` to see.
    """
    under_way: deque[tuple[int, Callable[[], np.ndarray]]] = deque()
    for number in numbers:
        under_way.append((number, _start(model, [sequences[i] for i in batches[number]])))
        if len(under_way) > AHEAD.get(model.device.type, 0):
            number, values = under_way.popleft()
            yield number, values()
    for number, values in under_way:
        yield number, values()


def token_log_probs(
    model: LoadedModel, sequences: Sequence[Encoded], batches: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Log-probability of every scored token, in nats.

    Parameters
    ----------
    model, sequences, batches
        As `score_batches`.

    Returns
    -------
    list of float32 arrays
        For each sequence the log-probabilities of its scored tokens.
    """
    values = dict(score_batches(model, sequences, batches, range(len(batches))))
    return by_sequence(sequences, batches, values)


def by_sequence(
    sequences: Sequence[Encoded], batches: Sequence[np.ndarray], values: Mapping[int, np.ndarray]
) -> list[np.ndarray]:
    """Sort the values of batches by sequence.

    Parameters
    ----------
    sequences, batches
        As `score_batches`.
    values : mapping
        Number of a batch -> log-probabilities of its scored tokens.

    Returns
    -------
    list of float32 arrays
        For each sequence the log-probabilities of its scored tokens.
    """
    result: list[np.ndarray] = [np.empty(0, np.float32)] * len(sequences)
    for number, batch in enumerate(batches):
        counts = [int(sequences[i].scored.sum()) for i in batch]
        for i, piece in zip(batch, np.split(values[number], np.cumsum(counts)[:-1]), strict=True):
            result[i] = piece
    return result


def prepare(
    model: LoadedModel,
    texts: Sequence[str],
    *,
    prefix: str = "auto",
    long_texts: str = "window",
    token_budget: int | None = None,
    audit: bool = True,
    tokenized: Tokenized | None = None,
) -> Job:
    """Encode, check and plan: everything before the first batch.

    Parameters
    ----------
    model : LoadedModel
        The model.
    texts : sequence of str
        N texts.
    prefix : {'auto', 'reference'}
        One chosen token in front of every text, or the published procedure: the tokenizer's default
        special tokens, first id not scored, truncation at the context.
    long_texts : {'window', 'truncate', 'error'}
        What is done with texts longer than the context.
    token_budget : int, optional
        Most padded tokens in a batch; by default `default_budget`.
    audit : bool
        Whether candidate prefixes are compared.
    tokenized : Tokenized, optional
        These texts as this tokenizer cuts them, if that is known.

    Returns
    -------
    Job
        Sequences, batches and provenance.

    Raises
    ------
    InputError
        If no prefix can be chosen, an id lies outside the embedding, or the model is not causal.
    """
    reference = prefix == "reference"
    if tokenized is None:
        tokenized = tokenize(model.tokenizer, texts, special_tokens=reference)
    _check_ids(model, tokenized)
    chosen = None if reference else choose_prefix(model.tokenizer, model.spec.prefix)
    if chosen is not None and chosen.id >= model.vocab_size:
        raise InputError(
            f"prefix {chosen.token!r} has id {chosen.id}, the embedding ends at {model.vocab_size}; "
            "give another `prefix:`"
        )
    sequences = encode(tokenized, chosen, context=model.context, long_texts=long_texts)
    unscored = next((e.text for e in sequences if len(e.ids) < 2), None)
    if unscored is not None:
        raise InputError(f"text {unscored + 1} has no token that {model.spec.name} could score; remove it")
    longest = max(len(e.ids) for e in sequences) - 1
    budget = token_budget or default_budget(model)
    swapped, grown = suffix_swap(model, longest), pad_growth(model, sequences)
    above = model.equal_above if grown <= PAD_TOLERANCE[model.dtype] else 0
    batches = plan_batches([len(e.ids) - 1 for e in sequences], budget, equal_above=above)
    table = audit_prefix(model, texts, chosen) if audit and chosen is not None else {}
    flags = [audit_flag(table)] if table else []
    flags += [None if model.head == "stub" else SLOW_HEAD, *_text_flags(tokenized, sequences)]
    provenance = {
        "recipe": model.spec.recipe,
        "architecture": type(model.model).__name__,
        "n_parameters": model.n_parameters,
        "dtype": model.precision,
        "attention": getattr(model.model.config, "_attn_implementation", None),
        "prefix": chosen.token if chosen else "reference",
        "prefix_rule": chosen.rule if chosen else "tokenizer's default, first id not scored",
        "audit": table,
        "flags": [flag for flag in flags if flag],
        "tokenizer": tokenizer_hash(model.tokenizer),
        "tokenization": tokenized.hash,
        "lossy": tokenized.lossy,
        "context": model.context,
        "n_windowed": len(sequences) - len(texts),
        "head": model.head,
        "fused": model.fused,
        "suffix_swap": swapped,
        "pad_growth": grown,
        "equal_above": above,
        "token_budget": budget,
        "commit": getattr(model.model.config, "_commit_hash", None),
        **_machine(model),
    }
    measured = ("audit", "flags", "suffix_swap", "pad_growth")  # may differ in the last digit from run to run
    plan = plan_hash(batches, {key: value for key, value in provenance.items() if key not in measured})
    return Job(sequences, batches, tokenized, {**provenance, "plan": plan}, plan)


def default_budget(model: LoadedModel) -> int:
    """Give the padded tokens of a batch that suit a model: the wider it is, the fewer.

    Parameters
    ----------
    model : LoadedModel
        The model.

    Returns
    -------
    int
        2,048 on a CPU; on a GPU a power of two, such that a batch has about 2**26 hidden numbers.
    """
    if model.device.type == "cpu":
        return CPU_BUDGET
    fewest, most = GPU_BUDGETS
    return min(max(1 << int(math.log2(GPU_NUMBERS / model.hidden_size)), fewest), most)


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
        As `prepare`.

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


def _start(model: LoadedModel, members: Sequence[Encoded]) -> Callable[[], np.ndarray]:
    """Set a batch going; what is returned waits for its values."""
    longest = max(len(e.ids) for e in members)
    ids = np.zeros((len(members), longest), dtype=np.int64)
    scored = np.zeros((len(members), longest), dtype=bool)
    for row, e in enumerate(members):
        ids[row, : len(e.ids)] = e.ids
        scored[row, : len(e.ids)] = e.scored
    with torch.inference_mode():
        values = model.score(torch.from_numpy(ids), torch.from_numpy(scored[:, 1:])).float()
        if model.device.type != "cuda":
            return partial(np.asarray, values)
        there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        there.copy_(values, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(model.device))

    def wait() -> np.ndarray:
        done.synchronize()
        return np.array(there)

    return wait


def _check_ids(model: LoadedModel, tokenized: Tokenized) -> None:
    for i, ids in enumerate(tokenized.ids):
        if ids.max() >= model.vocab_size:
            raise InputError(
                f"{model.spec.name}: text {i + 1} has token id {ids.max()}, the embedding ends at "
                f"{model.vocab_size}; tokenizer and model do not belong together"
            )


def _text_flags(tokenized: Tokenized, sequences: Sequence[Encoded]) -> list[str]:
    flags = []
    if tokenized.lossy:
        flags.append(f"tokenizer loses something of {tokenized.lossy:.1%} of the texts")
    if tokenized.special_hits.any():
        flags.append(
            f"{tokenized.special_hits.sum()} tokens of plain text are special, added or unknown ones"
        )
    windows = len(sequences) - len(tokenized.ids)
    if windows > 0:
        flags.append(f"{windows} further windows for texts longer than the context")
    return flags


def _machine(model: LoadedModel) -> dict[str, Any]:
    cuda = model.device.type == "cuda"
    name = torch.cuda.get_device_name(model.device) if cuda else f"{platform.machine()} {_cpu_features()}"
    return {
        "device": name,
        "threads": None if cuda else torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"lmmap": __version__},
    }


def _cpu_features() -> str:
    return str(torch.backends.cpu.get_cpu_capability())
