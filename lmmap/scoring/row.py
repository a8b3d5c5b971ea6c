"""One row from spec to scores, begun anew in a finer precision or in smaller batches where need be."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from lmmap.errors import InputError, PrecisionError
from lmmap.models import ModelSpec
from lmmap.scoring.encode import Tokenized
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.load import DEFAULT_DTYPE, load_model
from lmmap.scoring.noise import EXACT, log_likelihoods_of, measure_noise, noise_places, variance
from lmmap.scoring.score import EveryBatch, Job, Work, by_sequence, finish, prepare, score_batches
from lmmap.store import Row

MAX_ERROR_VAR = 0.1  # nats^2; the squared distance to a good 8-bit copy is 0.5 to 0.8
WIDER = {"float16": "tf32", "tf32": "float32"}  # where values are not finite or kernels are missing
FINER = {
    "float16": "float32",
    "tf32": "float32",
}  # where there is too much noise: TF32 rounds as float16 does
FEWEST_TOKENS = 256  # smaller batches save no memory worth the time

Begin = Callable[[Job], Work]
Turn = Callable[[], AbstractContextManager[Any]]


def score_row(
    spec: ModelSpec,
    texts: Sequence[str],
    *,
    begin: Begin = EveryBatch,
    turn: Turn = nullcontext,
    device: str = "cpu",
    token_budget: int | None = None,
    max_error_var: float = MAX_ERROR_VAR,
    keep_tokens: bool = True,
    cut: dict[str, Tokenized] | None = None,
    prefix: str = "auto",
    long_texts: str = "window",
) -> Row:
    """Score texts under one model, in the coarsest precision that is good enough.

    A model whose list gives no dtype begins in the device's own (float16 on a GPU). Where that gives values
    that are not finite, or does not run, it begins anew in TF32, which has float16's mantissa and float32's
    range; where its noise is above ``max_error_var``, in float32. Out of memory, it begins anew with batches
    of half the size. All that was tried is recorded.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    texts : sequence of str
        N texts.
    begin : callable
        Told the `Job` before its first batch; returns the `Work` to do on it.
    turn : callable
        Gives a context in which the device is this process's alone; all computing happens inside.
    device, token_budget, keep_tokens
        As `lmmap.scoring.sweep.score_models`.
    max_error_var : float
        Noise, in nats^2, above which a finer precision is taken.
    cut : dict, optional
        The texts as tokenizers cut them, by the tokenizer's hash; added to.
    prefix, long_texts
        As `prepare`.

    Returns
    -------
    Row
        The finished row; its provenance holds ``noise`` and ``tried``.

    Raises
    ------
    InputError
        If the model cannot be scored: the text and the value are named.
    torch.OutOfMemoryError
        If not even small batches fit.
    """
    precision = spec.dtype or DEFAULT_DTYPE.get(torch.device(device).type, "float32")
    policies = {"prefix": prefix, "long_texts": long_texts}
    attempt = _Attempt(
        spec, texts, begin, device, max_error_var, policies, keep_tokens, {} if cut is None else cut
    )
    tried: list[dict[str, Any]] = []
    while True:
        try:
            with turn():
                row = attempt.run(precision, token_budget, may_promote=not spec.dtype and precision in FINER)
            break
        except _TooCoarse as reason:
            told, following = str(reason), FINER[precision]
        except PrecisionError as error:
            if spec.dtype or precision not in WIDER:
                raise
            told, following = str(error), WIDER[precision]
        except torch.OutOfMemoryError:
            if attempt.budget is None or attempt.budget < 2 * FEWEST_TOKENS:
                raise
            told, following = "out of memory", precision
            token_budget = attempt.budget // 2
        tried.append({"precision": precision, "token_budget": attempt.budget, "reason": told})
        precision = following
        release()
    flags = [*row.provenance["flags"], *(_told(step, row.provenance) for step in tried)]
    return replace(row, provenance={**row.provenance, "tried": tried, "flags": flags})


@dataclass
class _Attempt:
    """Scores a row once in a given precision; remembers what a further attempt can use."""

    spec: ModelSpec
    texts: Sequence[str]
    begin: Begin
    device: str
    max_error_var: float
    policies: Mapping[str, Any]
    keep_tokens: bool
    cut: dict[str, Tokenized]
    budget: int | None = None
    reference: np.ndarray | None = None

    def run(self, precision: str, token_budget: int | None, *, may_promote: bool) -> Row:
        self.budget = None  # nothing has run yet
        model = load_model(self.spec, device=self.device, dtype=precision)
        shared = model.tokenizer.is_fast  # the rules of a slow one cannot be read whole, only guessed
        known = self.cut.get(model.tokenizer_hash) if shared else None
        job = prepare(model, self.texts, token_budget=token_budget, tokenized=known, **self.policies)
        self.budget = job.provenance["token_budget"]
        if shared:
            self.cut[model.tokenizer_hash] = job.tokenized
        self._find_reference(model, job)
        if may_promote and self.reference is not None:
            self._try(model, job)
        work = self.begin(job)
        for number, batch in score_batches(model, job.sequences, job.batches, work.numbers()):
            work.keep(number, batch)
        values = by_sequence(job.sequences, job.batches, work.collect())
        row = finish(job, values, len(self.texts), self.spec.name, keep_tokens=self.keep_tokens)
        noise = measure_noise(model, job.sequences, row.log_likelihood, self.reference)
        flags = list(row.provenance["flags"])
        if noise.error_var is None:
            flags.append("noise not measured: the model does not fit or does not run in float32")
        elif noise.error_var > self.max_error_var:
            flags.append(
                f"noise of {noise.error_var:.2g} nats^2 in {precision}, above {self.max_error_var:g}"
            )
        if not noise.bitwise:
            flags.append("a text scored again gives other bits")
        return replace(row, provenance={**row.provenance, "flags": flags, "noise": asdict(noise)})

    def _find_reference(self, model: LoadedModel, job: Job) -> None:
        """Score the chosen texts in float32, one at a time, unless the row itself is as fine."""
        if self.reference is not None or model.precision in EXACT or not fits_in_float32(model):
            return
        exact = None
        with suppress(InputError, torch.OutOfMemoryError):  # the row stands without it, and says so
            exact = load_model(self.spec, device=self.device, dtype="float32")
            self.reference = log_likelihoods_of(exact, job.sequences, noise_places(len(self.texts)))
        del exact
        release()

    def _try(self, model: LoadedModel, job: Job) -> None:
        """See on the chosen texts whether the precision will do."""
        plan = {key: job.provenance[key] for key in ("token_budget", "equal_above")}
        found = log_likelihoods_of(model, job.sequences, noise_places(len(self.texts)), **plan)
        noise = variance(found - self.reference)
        if noise > self.max_error_var:
            raise _TooCoarse(f"noise of {noise:.2g} nats^2, above {self.max_error_var:g}")


def fits_in_float32(model: LoadedModel) -> bool:
    """Tell whether the machine holds the weights once more, in float32: whatever else it holds just now."""
    if model.device.type == "cuda":
        _, memory = torch.cuda.mem_get_info(model.device)
    elif hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:  # Windows does not tell
        return True
    return bool((4 + model.dtype.itemsize) * model.n_parameters * 1.1 < memory)


def release() -> None:
    """Give back the memory of models that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _told(step: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    if step["reason"] == "out of memory":
        return f"out of memory with batches of {step['token_budget']:,} tokens, scored with fewer"
    return f"scored in {made['dtype']}, for {step['precision']} would not do: {step['reason']}"


class _TooCoarse(Exception):  # noqa: N818 - a signal, not an error
    """The precision is too coarse for this model."""
