"""Turns: which processes may have a model on a GPU that they share, and which one of them computes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from lmmap.parts import Lock, acquired
from lmmap.scoring.devices import kind_of, memory_of, name_of
from lmmap.scoring.load import SPREAD
from lmmap.store import Store

SECONDS_BETWEEN_LOOKS = 0.01
PLACES = 8  # equal shares of a GPU's memory
BYTES_OF_A_PARAMETER = 8  # in float32, and once more to measure noise against
BYTES_AT_WORK = 2**31  # beside the weights


class Turns:
    """Everybody's turn at any time: nobody shares the device."""

    def read(self, n_bytes: int | None) -> AbstractContextManager[None]:
        """Read a model's files; ends when the model has its place on the device.

        Parameters
        ----------
        n_bytes : int or None
            Of its weights; None if it is not known.
        """
        return nullcontext()

    def place(self, n_parameters: int | None) -> AbstractContextManager[bool]:
        """Have a model on the device; yields whether other processes may have theirs beside it.

        Parameters
        ----------
        n_parameters : int or None
            Of the model; None if it is not known, or if the model shall be alone.
        """
        return nullcontext(False)

    def compute(self, n_parameters: int | None) -> AbstractContextManager[None]:
        """Be the one process that computes.

        Parameters
        ----------
        n_parameters : int or None
            Of the model, as in `place`.
        """
        return nullcontext()

    def is_crowded(self) -> bool:
        """Whether a row taken now would wait for long on the device, so that others had better take it."""
        return False


class TurnsOnGPUs(Turns):
    """Turns on one GPU, or on all GPUs that a model is spread over.

    Models share a GPU as far as its memory goes, so that one is placed while another is scored; they compute
    one after another, for kernels of two processes slow each other down more than they fill the GPU. How much
    memory a model is given depends on nothing but itself and the GPU: what else is there never changes how a
    row is scored. A model that waits for its memory lets none in before it, however small. To compute, models
    that take more than one place come first, for a long row must not be left for the end; and of the large
    ones, as of the small, who waits comes before who computed last. While a large one computes and a small
    one waits for it, further rows are left to other GPUs. Main memory holds a copy
    in 16 bits of all that have places, a quarter of the GPU's memory at most, and of models that take more
    than one place a single one that is read ahead.

    Parameters
    ----------
    store : Store
        Whose folder holds the locks.
    gpus : sequence of str
        The GPUs.
    """

    def __init__(self, store: Store, gpus: Sequence[str]) -> None:
        names = sorted(map(name_of, gpus))  # always in one order: who waits for the last one holds the others
        self._places = [store.lock(f"{name}-{place}") for name in names for place in range(PLACES)]
        self._entering = [store.lock(f"{name}-entering") for name in names]
        self._large = [store.lock(f"{name}-large") for name in names]
        self._large_next = [store.lock(f"{name}-large-next") for name in names]
        self._small_next = [store.lock(f"{name}-small-next") for name in names]
        self._computing = [store.lock(name) for name in names]
        self._reading = [store.lock(f"{name}-reading") for name in names]
        self._memory = memory_of(gpus[0]) if len(gpus) == 1 else 0

    def read(self, n_bytes: int | None) -> AbstractContextManager[None]:
        """As `Turns.read`."""
        n_parameters = None if n_bytes is None else n_bytes // 2  # in 16 bits, most of them
        return nullcontext() if self._n_places(n_parameters) == 1 else _all_of(self._reading)

    @contextmanager
    def place(self, n_parameters: int | None) -> Iterator[bool]:
        """As `Turns.place`."""
        wanted = self._n_places(n_parameters)
        with ExitStack() as held:
            with _all_of(self._entering):
                free = list(self._places)
                for _ in range(wanted):
                    lock = _any_of(free)
                    free.remove(lock)
                    held.callback(lock.release)
            yield wanted < len(self._places)

    @contextmanager
    def compute(self, n_parameters: int | None) -> Iterator[None]:
        """As `Turns.compute`."""
        with ExitStack() as held:
            if self._n_places(n_parameters) > 1:
                with _all_of(self._large_next):
                    held.enter_context(_all_of([*self._computing, *self._large]))
            else:
                with _all_of(self._small_next):
                    held.enter_context(self._computing_after_the_large())
            yield

    def is_crowded(self) -> bool:
        """As `Turns.is_crowded`."""
        return _any_held(self._large) and _any_held(self._small_next)

    @contextmanager
    def _computing_after_the_large(self) -> Iterator[None]:
        (computing,) = self._computing  # a small model is on one GPU
        while True:
            with _all_of(self._large_next):  # held by who waits
                taken = acquired(computing)
            if taken:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
        try:
            yield
        finally:
            computing.release()

    def _n_places(self, n_parameters: int | None) -> int:
        """All of them for a model of unknown size, or one that is spread."""
        if n_parameters is None or not self._memory:
            return len(self._places)
        return n_places(n_parameters, self._memory)


def turns_on(store: Store, device: str) -> Turns:
    """Give the turns of processes that share a device.

    Parameters
    ----------
    store : Store
        Whose folder holds the locks.
    device : str
        The device.

    Returns
    -------
    Turns
        Free ones on a CPU.
    """
    if kind_of(device) not in ("cuda", SPREAD):
        return Turns()
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if device == SPREAD else [device]
    return TurnsOnGPUs(store, gpus)


def n_places(n_parameters: int, memory: int) -> int:
    """Give the places that a model takes on a GPU.

    Parameters
    ----------
    n_parameters : int
        Of the model.
    memory : int
        Of the GPU, in bytes.

    Returns
    -------
    int
        Of `PLACES`, which are all of the GPU's memory.

    Examples
    --------
    >>> n_places(135_000_000, 24 * 2**30), n_places(8_000_000_000, 141 * 2**30)
    (2, 4)
    """
    wanted = BYTES_OF_A_PARAMETER * n_parameters + BYTES_AT_WORK
    return min(math.ceil(wanted * PLACES / memory), PLACES)


@contextmanager
def _all_of(locks: Sequence[Lock]) -> Iterator[None]:
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock.acquire(poll_interval=SECONDS_BETWEEN_LOOKS))
        yield


def _any_of(locks: Sequence[Lock]) -> Any:  # noqa: ANN401
    while True:
        for lock in locks:
            if acquired(lock):
                return lock
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _any_held(locks: Sequence[Lock]) -> bool:
    for lock in locks:
        if not acquired(lock):
            return True
        lock.release()
    return False
