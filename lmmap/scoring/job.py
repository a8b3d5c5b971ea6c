"""The job: all that decides a row's bits, worked out before the first batch, and the work to do on it."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch

from lmmap.errors import InputError
from lmmap.scoring.audit import audit_flag, audit_prefix
from lmmap.scoring.checks import PAD_TOLERANCE, pad_growth, suffix_swap
from lmmap.scoring.encode import Encoded, Tokenized, encode, tokenize, tokenizer_hash
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.fused import has_kernels
from lmmap.scoring.plan import plan_batches, plan_hash
from lmmap.scoring.prefix import choose_prefix
from lmmap.scoring.progress import Pace, Progress
from lmmap.version import __version__

CPU_BUDGET = 2048
GPU_NUMBERS = 2**26  # hidden numbers of a batch: fewer leave a GPU idle, more find nothing in its caches
GPU_BUDGETS = (8192, 2**17)
SLOW_HEAD = "its head does not run on chosen rows: every logit is computed, text by text"


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


class WatchedBatches(EveryBatch):
    """Every batch, and a `Progress` told after each.

    Parameters
    ----------
    job : Job
        What is scored.
    pace : Pace
        Counts.
    on_progress : callable
        Called after every batch.
    """

    def __init__(self, job: Job, pace: Pace, on_progress: Callable[[Progress], None]) -> None:
        super().__init__(job)
        self.job, self.pace, self.on_progress = job, pace, on_progress
        pace.begin()

    def keep(self, number: int, values: np.ndarray) -> None:
        """Take a batch's log-probabilities."""
        super().keep(number, values)
        self.on_progress(self.pace.after(len(values), len(self.job.batches[number])))


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
        | {"lmmap": __version__}
        | ({"triton": version("triton") if has_kernels() else None} if cuda else {}),
    }


def _cpu_features() -> str:
    return str(torch.backends.cpu.get_cpu_capability())
