"""One row from spec to scores, begun anew in a finer precision or in smaller batches where need be."""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from lmmap.errors import InputError, PrecisionError
from lmmap.models import ModelSpec
from lmmap.scoring.batches import by_sequence, score_batches
from lmmap.scoring.devices import weights_size
from lmmap.scoring.encode import Tokenized, tokenize, tokenizer_hash
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import EveryBatch, Job, Work, prepare
from lmmap.scoring.load import DEFAULT_DTYPE, SPREAD, Checkpoint
from lmmap.scoring.noise import (
    EXACT,
    Noise,
    log_likelihoods_of,
    measure_noise,
    noise_places,
    other_plan,
    variance,
)
from lmmap.scoring.score import finish
from lmmap.scoring.turns import Turns
from lmmap.store import Row

MAX_ERROR_VAR = 0.1  # nats^2; the squared distance to a good 8-bit copy is 0.5 to 0.8
WIDER = {"float16": "tf32", "tf32": "float32"}  # where values are not finite or kernels are missing
FINER = {
    "float16": "float32",
    "tf32": "float32",
}  # where there is too much noise: TF32 rounds as float16 does
OUT_OF_MEMORY = "out of memory"
FEWEST_TOKENS = 256  # smaller batches save no memory worth the time

Begin = Callable[[Job], Work]
T = TypeVar("T")


def score_row(
    spec: ModelSpec,
    texts: Sequence[str],
    *,
    begin: Begin = EveryBatch,
    turns: Turns | None = None,
    device: str = "cpu",
    token_budget: int | None = None,
    max_error_var: float = MAX_ERROR_VAR,
    keep_tokens: bool = True,
    cut: dict[str, Tokenized] | None = None,
    stages: dict[str, float] | None = None,
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
    turns : Turns, optional
        On the device, where processes share it.
    device, token_budget, keep_tokens
        As `lmmap.scoring.sweep.score_models`.
    max_error_var : float
        Noise, in nats^2, above which a finer precision is taken.
    cut : dict, optional
        The texts as tokenizers cut them, by the tokenizer's hash; added to.
    stages : dict, optional
        Takes the seconds of each stage: ``read`` and ``tokenize`` before the device is needed, ``place``,
        ``check``, ``reference``, ``score`` and ``noise`` on it, and ``wait`` for a turn.
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
    kind = torch.device("cuda" if device == SPREAD else device).type
    precision = spec.dtype or DEFAULT_DTYPE.get(kind, "float32")
    clock, turns = _Clock({} if stages is None else stages), turns or Turns()
    policies = {"prefix": prefix, "long_texts": long_texts}
    tried: list[dict[str, Any]] = []
    with ExitStack() as reading:
        reading.enter_context(clock.waiting(turns.read(weights_size(spec))))
        with clock.counting("read"):
            checkpoint = Checkpoint(spec, precision)
        with clock.counting("tokenize"):
            tokenized = _tokenized(checkpoint.tokenizer, texts, prefix, {} if cut is None else cut)
        attempt = _Attempt(checkpoint, texts, tokenized, begin, device, turns, max_error_var, clock, policies)
        size = checkpoint.n_parameters
        while True:
            with clock.waiting(turns.place(size)) as attempt.is_shared, nothing_left():
                reading.close()  # another may be read ahead
                outcome = attempt.made(precision, token_budget)
            if not isinstance(outcome, _Again):
                break
            if attempt.is_shared and outcome.reason == OUT_OF_MEMORY:
                size = None  # what others hold must not change the row
                continue
            tried.append({"precision": precision, "token_budget": attempt.budget, "reason": outcome.reason})
            precision, token_budget = outcome.precision, outcome.token_budget
    row, noise = outcome
    flags = [*row.provenance["flags"], *_noise_flags(noise, precision, max_error_var)]
    flags += [_told(step, row.provenance) for step in tried]
    made = {**row.provenance, "noise": asdict(noise), "tried": tried, "flags": flags}
    return replace(row if keep_tokens else replace(row, tokens=None), provenance=made)


@dataclass
class _Attempt:
    """Scores a row once in a given precision; remembers what a further attempt can use."""

    checkpoint: Checkpoint
    texts: Sequence[str]
    tokenized: Tokenized
    begin: Begin
    device: str
    turns: Turns
    max_error_var: float
    clock: _Clock
    policies: Mapping[str, Any]
    is_shared: bool = False  # whether others may have models on the device
    budget: int | None = None
    reference: np.ndarray | None = None

    def made(self, precision: str, token_budget: int | None) -> tuple[Row, Noise] | _Again:
        """Score the row, or tell how to begin anew."""
        named = self.checkpoint.spec.dtype
        self.budget = None  # nothing has run yet
        try:
            return self._run(precision, token_budget, may_promote=not named and precision in FINER)
        except _TooCoarse as reason:
            return _Again(str(reason), FINER[precision], token_budget)
        except PrecisionError as error:
            if named or precision not in WIDER:
                raise
            return _Again(str(error), WIDER[precision], token_budget)
        except torch.OutOfMemoryError:
            if self.is_shared:
                return _Again(OUT_OF_MEMORY, precision, token_budget)
            if self.budget is None or self.budget < 2 * FEWEST_TOKENS:
                raise
            return _Again(OUT_OF_MEMORY, precision, self.budget // 2)

    def _run(self, precision: str, token_budget: int | None, *, may_promote: bool) -> tuple[Row, Noise]:
        places = noise_places(len(self.texts))
        with self.clock.counting("place"):
            model = self.checkpoint.on(self.device, precision)
        with self.clock.waiting(self.turns.compute(self.checkpoint.n_parameters)):
            return self._compute(model, places, precision, token_budget, may_promote=may_promote)

    def _compute(
        self,
        model: LoadedModel,
        places: np.ndarray,
        precision: str,
        token_budget: int | None,
        *,
        may_promote: bool,
    ) -> tuple[Row, Noise]:
        counting = self.clock.counting
        with counting("check"):
            job = prepare(
                model, self.texts, token_budget=token_budget, tokenized=self.tokenized, **self.policies
            )
        self.budget = job.provenance["token_budget"]
        with counting("reference"):
            if self.reference is None and precision not in EXACT and fits_in_float32(model):
                self._find_reference(job, places)
        if may_promote and self.reference is not None:
            with counting("check"):
                self._try(model, job, places)
        work = self.begin(job)
        with counting("score"):
            for number, batch in score_batches(model, job.sequences, job.batches, work.numbers()):
                work.keep(number, batch)
            values = by_sequence(job.sequences, job.batches, work.collect())
            row = finish(job, values, len(self.texts), self.checkpoint.spec.name)
        with counting("noise"):
            found = row.log_likelihood[places]
            plan = other_plan(job.provenance)
            noise = measure_noise(model, job.sequences, found, places, self.reference, **plan)
        return row, noise

    def _find_reference(self, job: Job, places: np.ndarray) -> None:
        """Score the chosen texts in float32; the row stands without it, and says so."""
        final = () if self.is_shared else (torch.OutOfMemoryError,)
        for _ in range(2):  # memory may be short for a moment only
            with suppress(*final):
                with suppress(InputError), nothing_left():
                    exact = self.checkpoint.on(self.device, "float32")
                    plan = other_plan(job.provenance)
                    self.reference = log_likelihoods_of(exact, job.sequences, places, **plan)
                return

    def _try(self, model: LoadedModel, job: Job, places: np.ndarray) -> None:
        """See on the chosen texts whether the precision will do."""
        plan = {key: job.provenance[key] for key in ("token_budget", "equal_above")}
        found = log_likelihoods_of(model, job.sequences, places, **plan)
        noise = variance(found - self.reference)
        if noise > self.max_error_var:
            raise _TooCoarse(f"noise of {noise:.2g} nats^2, above {self.max_error_var:g}")


@dataclass
class _Again:
    """What was wrong with an attempt, and how the next one shall be made."""

    reason: str
    precision: str
    token_budget: int | None


@dataclass
class _Clock:
    """Adds up the seconds of each stage."""

    seconds: dict[str, float]

    @contextmanager
    def counting(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - start

    @contextmanager
    def waiting(self, turn: AbstractContextManager[T]) -> Iterator[T]:
        """Count what it takes to enter a context."""
        with ExitStack() as stack:
            with self.counting("wait"):
                given = stack.enter_context(turn)
            yield given


def _tokenized(tokenizer: Any, texts: Sequence[str], prefix: str, cut: dict[str, Tokenized]) -> Tokenized:  # noqa: ANN401
    """Cut the texts into tokens, unless this tokenizer's cuts are known."""
    if not tokenizer.is_fast:  # the rules of a slow one cannot be read whole, only guessed
        return tokenize(tokenizer, texts, special_tokens=prefix == "reference")
    name = tokenizer_hash(tokenizer)
    if name not in cut:
        cut[name] = tokenize(tokenizer, texts, special_tokens=prefix == "reference")
    return cut[name]


def _noise_flags(noise: Noise, precision: str, max_error_var: float) -> list[str]:
    flags = []
    if noise.error_var is None:
        flags.append("noise not measured: the model does not fit or does not run in float32")
    elif noise.error_var > max_error_var:
        flags.append(f"noise of {noise.error_var:.2g} nats^2 in {precision}, above {max_error_var:g}")
    if not noise.bitwise:
        flags.append("a text scored again gives other bits")
    return flags


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


@contextmanager
def nothing_left() -> Iterator[None]:
    """Give back the memory of what a block loaded, whatever ends it."""
    try:
        yield
    except BaseException as error:
        reason: BaseException | None = error
        while reason is not None:  # the frames of an error hold models
            traceback.clear_frames(reason.__traceback__)
            reason = reason.__cause__ or reason.__context__
        raise
    finally:
        release()


def _told(step: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    if step["reason"] == OUT_OF_MEMORY:
        return f"out of memory with batches of {step['token_budget']:,} tokens, scored with fewer"
    return f"scored in {made['dtype']}, for {step['precision']} would not do: {step['reason']}"


class _TooCoarse(Exception):  # noqa: N818 - a signal, not an error
    """The precision is too coarse for this model."""
