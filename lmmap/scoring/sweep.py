"""A sweep: every model of a list claimed, scored and written; what fails is listed, the rest goes on."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import torch

from lmmap.files import DISK_FULL
from lmmap.models import ModelSpec
from lmmap.parts import Parts
from lmmap.scoring.batches import score_batches
from lmmap.scoring.devices import kind_of, memory_kept, name_of, threads_of, weights_size
from lmmap.scoring.encode import Tokenized, tokenizer_hash
from lmmap.scoring.fused import has_kernels
from lmmap.scoring.job import Job, prepare
from lmmap.scoring.load import Checkpoint
from lmmap.scoring.progress import Pace, Progress
from lmmap.scoring.row import MAX_ERROR_VAR, nothing_left, score_row
from lmmap.scoring.shared import HelpersWork, SharedWork
from lmmap.scoring.turns import turns_on
from lmmap.store import Store

MOST_KEPT = 2**28  # bytes between models; cuBLAS keeps some
SECONDS_BETWEEN_LOOKS = 0.5
MOST_CRASHES = 2  # processes that one row may cost in a launch
FEWEST_GROUPS = 2  # that must be free in a row of another process before helping pays

Tell = Callable[[Progress], None]


def score_models(
    store: Store,
    specs: Sequence[ModelSpec],
    *,
    device: str = "cpu",
    threads: int | None = None,
    token_budget: int | None = None,
    max_error_var: float = MAX_ERROR_VAR,
    keep_tokens: bool = True,
    on_progress: Tell = lambda _: None,
    launch: str | None = None,
) -> dict[str, str]:
    """Score every model of a list that is not finished; several processes may do so in one folder.

    Parameters
    ----------
    store : Store
        The score set.
    specs : sequence of ModelSpec
        The models.
    device : str
        Where to score.
    threads : int, optional
        Threads on a CPU; recorded, since bits depend on it. ``OMP_NUM_THREADS`` or all cores by default.
    token_budget : int, optional
        Most padded tokens in a batch.
    max_error_var : float
        Noise in nats^2 above which a model whose list names no dtype is scored in a finer precision.
    keep_tokens : bool
        Whether the log-probability of every token is kept.
    on_progress : callable, optional
        Called with a `Progress` after every batch and every model.
    launch : str, optional
        A name that processes started together share: what failed in one is not tried again by the others.

    Returns
    -------
    dict
        Row id -> reason, for the models that failed.

    Raises
    ------
    OSError
        If the disk is full; finished rows stay.
    torch.AcceleratorError
        If the GPU is lost to this process; the row is recorded as failed.
    """
    torch.set_num_threads(threads or threads_of())
    store.request(specs)
    options = {"token_budget": token_budget, "max_error_var": max_error_var, "keep_tokens": keep_tokens}
    sweep = Sweep(store, specs, device, launch or new_launch(), on_progress, options)
    try:
        sweep.run()
    except torch.AcceleratorError as error:
        if sweep.at_hand is not None:
            store.write_failure(sweep.at_hand, error, sweep.launch)
        raise
    return failures(store, specs, sweep.launch)


def load_libraries(device: str) -> None:
    """Load what the first row needs, and set a GPU up, before there is work."""
    import transformers.modeling_utils  # noqa: F401 - takes seconds, and so does a kernel

    if kind_of(device) == "cuda":
        torch.zeros(1, device=device)
        has_kernels()


class MemoryKept(RuntimeError):  # noqa: N818 - nothing is wrong with the row
    """A model is gone and its memory is not."""


def new_launch() -> str:
    """Name a launch."""
    return uuid.uuid4().hex[:12]


def failures(store: Store, specs: Sequence[ModelSpec], launch: str) -> dict[str, str]:
    """List the rows that failed in a launch, with the reasons."""
    reasons = {spec.row_id: store.failure(spec.row_id, launch) for spec in specs}
    return {row_id: reason for row_id, reason in reasons.items() if reason is not None}


def is_settled(store: Store, row_id: str, launch: str) -> bool:
    """Whether nothing is left to do for a row in a launch."""
    return store.is_done(row_id) or store.failure(row_id, launch) is not None


@dataclass
class Sweep:
    """One process's part in scoring a list of models on one device.

    Parameters
    ----------
    store : Store
        The score set.
    specs : sequence of ModelSpec
        The models.
    device : str
        Where to score.
    launch : str
        What processes started together share.
    on_progress : callable
        Called with a `Progress` after every batch and every model.
    options : mapping
        ``token_budget``, ``max_error_var`` and ``keep_tokens`` of `score_row`.
    n_processes : int
        How many share the work, for the time that is left.
    is_replaceable : bool
        Whether another process follows if this one ends because a model's memory did not come back.
    """

    store: Store
    specs: Sequence[ModelSpec]
    device: str
    launch: str
    on_progress: Tell
    options: Mapping[str, Any]
    n_processes: int = 1
    is_replaceable: bool = False
    at_hand: str | None = None
    cut: dict[str, Tokenized] = field(default_factory=dict)
    left_alone: set[str] = field(default_factory=set)  # rows of others that this process cannot help with

    def run(self) -> None:
        """Take row after row, longest first; help others when none is free; end when all are settled."""
        self.turns = turns_on(self.store, self.device)
        self.policies = {key: self.store.scoring[key] for key in ("prefix", "long_texts")}
        load_libraries(self.device)
        on_gpu = kind_of(self.device) == "cuda"
        with torch.cuda.device(self.device) if on_gpu else nullcontext():  # where kernels of our own run
            self._run()

    def _run(self) -> None:
        waiting = sorted(self.specs, key=_size, reverse=True)
        told = False
        while waiting := [s for s in waiting if not is_settled(self.store, s.row_id, self.launch)]:
            taken = False
            for spec in waiting:
                if self.turns.is_crowded():
                    break
                taken |= self._take(spec)
            else:
                taken = taken or any(self._help(spec) for spec in waiting)
            if taken:
                told = False
                continue
            if not told:
                self.on_progress(self._progress(waiting[0], "waiting"))
                told = True
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _take(self, spec: ModelSpec) -> bool:
        """Score a row, if nobody else does or has."""
        with self.store.claim(spec.row_id) as mine:
            free = mine and not is_settled(self.store, spec.row_id, self.launch)
            free = free and self.store.at_work(spec.row_id).n_crashes(self.launch) < MOST_CRASHES
            if free:
                self._score(spec)
        return free

    def _score(self, spec: ModelSpec) -> None:
        self.at_hand = spec.row_id
        progress = self._progress(spec, "loading")
        self.on_progress(progress)
        try:
            done = self._score_row(spec, progress)
        except torch.AcceleratorError:  # the device is lost to this process
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            self.store.write_failure(spec.row_id, error, self.launch)
            done = replace(progress, state="failed", reason=str(error))
        self.at_hand = None
        self.on_progress(done)
        kept = memory_kept(self.device)
        if self.is_replaceable and kept > MOST_KEPT:
            raise MemoryKept(f"{spec.name} left {kept / 2**30:.1f} GiB behind on {self.device}")

    def _score_row(self, spec: ModelSpec, progress: Progress) -> Progress:
        start = time.monotonic()
        pace = Pace(replace(progress, state="scoring"), self.n_processes)
        stages: dict[str, float] = {}
        with ExitStack() as stack:

            def begin(job: Job) -> SharedWork:
                stack.close()  # an earlier attempt
                parts = self.store.at_work(spec.row_id).parts(job.hash, len(job.batches))
                parts.folder.mkdir(parents=True, exist_ok=True)
                self._offer(spec, job)
                return stack.enter_context(closing(SharedWork(job, parts, pace, self.on_progress)))

            row = score_row(
                spec, self.store.texts.texts, begin=begin, turns=self.turns, device=self.device, cut=self.cut,
                stages=stages, **self.options, **self.policies,
            )  # fmt: skip
        journal = {
            "seconds": round(time.monotonic() - start, 3),
            "stages": {stage: round(seconds, 3) for stage, seconds in stages.items()},
            "tokens_per_second": round(pace.tokens_per_second, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "process": os.getpid(),
            "device": self.device,
        }
        self.store.write_row(spec.row_id, row, journal)
        models_done = progress.models_done + 1
        return replace(pace.progress, state="done", models_done=models_done, texts_done=progress.n_texts)

    def _offer(self, spec: ModelSpec, job: Job) -> None:
        """Tell others with which settings they can score batches of this row."""
        settings = {key: job.provenance[key] for key in ("dtype", "token_budget")}
        place = {"kind": kind_of(self.device), "hardware": name_of(self.device)}
        self.store.at_work(spec.row_id).offer(
            {"plan": job.hash, "n_batches": len(job.batches), **settings, **place}
        )

    def _help(self, spec: ModelSpec) -> bool:
        """Score free batches of a row that a process on another device holds; False if there are too few."""
        row = self.store.at_work(spec.row_id)
        offer, hardware = row.offered(), name_of(self.device)
        if (
            not offer
            or spec.row_id in self.left_alone
            or offer["hardware"] == hardware
            or offer["kind"] != kind_of(self.device)
            or row.n_crashes(self.launch)
            or self.store.is_done(spec.row_id)
        ):
            return False
        parts = row.parts(offer["plan"], offer["n_batches"])
        try:
            with parts.help(hardware) as mine:  # one process of each device is enough
                if not mine or parts.free(FEWEST_GROUPS) < FEWEST_GROUPS:
                    return False
                self._help_row(spec, offer, parts)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            self.left_alone.add(spec.row_id)  # its owner will say why it fails, if it does
        finally:
            if self.store.is_done(spec.row_id):
                row.clear()
        return True

    def _help_row(self, spec: ModelSpec, offer: Mapping[str, Any], parts: Parts) -> None:
        progress = self._progress(spec, "helping")
        self.on_progress(progress)
        checkpoint = Checkpoint(spec, offer["dtype"])
        with self.turns.place(checkpoint.n_parameters), nothing_left():
            self._score_offered(checkpoint, offer, parts, Pace(progress, self.n_processes))

    def _score_offered(
        self, checkpoint: Checkpoint, offer: Mapping[str, Any], parts: Parts, pace: Pace
    ) -> None:
        row_id, plan = checkpoint.spec.row_id, offer["plan"]
        model = checkpoint.on(self.device, offer["dtype"])
        known = self.cut.get(tokenizer_hash(checkpoint.tokenizer))
        job = prepare(
            model, self.store.texts.texts, token_budget=offer["token_budget"], audit=False, tokenized=known,
            **self.policies,
        )  # fmt: skip
        if job.hash != plan:
            self.left_alone.add(row_id)
            return

        def is_wanted() -> bool:
            return not self.store.is_done(row_id) and self.store.at_work(row_id).offered().get("plan") == plan

        shared = HelpersWork(job, parts, pace, self.on_progress, is_wanted)
        with closing(shared) as work, self.turns.compute(checkpoint.n_parameters):
            for number, values in score_batches(model, job.sequences, job.batches, work.numbers()):
                work.keep(number, values)

    def _progress(self, spec: ModelSpec, state: str) -> Progress:
        done = sum(self.store.is_done(s.row_id) for s in self.specs)
        return Progress(
            spec.name, state, done, len(self.specs), n_texts=len(self.store.texts), device=self.device
        )


def _size(spec: ModelSpec) -> float:
    """Order rows longest first: bytes of the weights, or as many as the list's number of parameters takes."""
    return weights_size(spec) or 2.0 * float(spec.attributes.get("n_parameters", 0))
