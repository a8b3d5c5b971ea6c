"""The work on one row: batches kept on disk as they are finished, and shared among processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from lmmap.parts import Lock, Parts
from lmmap.scoring.job import Job
from lmmap.scoring.progress import Pace, Progress

SECONDS_BETWEEN_PARTS = 30.0
SECONDS_BETWEEN_LOOKS = 0.1


class SharedWork:
    """The owner's work on a row: groups of batches that nobody else holds, until all are finished.

    A group is claimed before its first batch and written after its last. What is finished of a group is
    also written from time to time, and by `close`, so that no stop costs much.

    Parameters
    ----------
    job : Job
        What is scored.
    parts : Parts
        Where finished batches lie.
    pace : Pace
        Counts.
    on_progress : callable
        Called after every batch.
    is_wanted : callable
        Whether the row is still to be scored under this plan; asked before every group.
    """

    def __init__(
        self,
        job: Job,
        parts: Parts,
        pace: Pace,
        on_progress: Callable[[Progress], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.job, self.parts, self.pace = job, parts, pace
        self.on_progress, self.is_wanted = on_progress, is_wanted
        self.held: dict[int, tuple[Lock, dict[int, np.ndarray]]] = {}
        self.finished: dict[int, dict[int, np.ndarray]] = {}  # groups, here
        self.counted: set[int] = set()  # groups that were finished before, or elsewhere
        self.last_save = time.monotonic()
        pace.begin()

    def numbers(self) -> Iterator[int]:
        """Give batches of group after group; at the end wait for groups that are held elsewhere."""
        waiting = True
        while waiting:
            for group in self.parts.groups:
                yield from self._take(group)
            waiting = any(g not in self.held and not self.parts.is_done(g) for g in self.parts.groups)
            if waiting:
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def keep(self, number: int, values: np.ndarray) -> None:
        """Take a batch's log-probabilities."""
        group = self.parts.group_of(number)
        lock, batches = self.held[group]
        batches[number] = values
        self.on_progress(self.pace.after(len(values), len(self.job.batches[number])))
        if len(batches) == len(self.parts.batches_of(group)):
            self.parts.write(group, batches)
            self.finished[group] = batches
            del self.held[group]
            lock.release()
        elif time.monotonic() - self.last_save > SECONDS_BETWEEN_PARTS:
            self._save()

    def collect(self) -> Mapping[int, np.ndarray]:
        """Give the values of every batch, of others too."""
        groups = (self.finished.get(group) or self.parts.read(group) for group in self.parts.groups)
        return {number: values for batches in groups for number, values in batches.items()}

    def close(self) -> None:
        """Save what is finished of the groups that are held, and let go of them."""
        try:
            self._save()
        finally:
            for lock, _ in self.held.values():
                lock.release()
            self.held.clear()

    def _take(self, group: int) -> Iterator[int]:
        """Claim a group, if it is free, and give those of its batches that are not on disk."""
        if group in self.held or group in self.finished:
            return
        lock = None if self.parts.is_done(group) else self.parts.claim(group)
        if lock is None:
            self._count(group)
        elif self.parts.is_done(group) or not self.is_wanted():  # a finished row has no parts
            lock.release()
        else:
            begun = self.parts.read(group)
            self.held[group] = lock, begun
            self.pace.skip(self._sequences_in(begun))
            yield from (number for number in self.parts.batches_of(group) if number not in begun)

    def _count(self, group: int) -> None:
        if group not in self.counted and self.parts.is_done(group):
            self.counted.add(group)
            self.pace.skip(self._sequences_in(self.parts.batches_of(group)))

    def _sequences_in(self, numbers: Iterable[int]) -> int:
        return sum(len(self.job.batches[number]) for number in numbers)

    def _save(self) -> None:
        for group, (_, batches) in self.held.items():
            if batches:
                self.parts.write(group, batches)
        self.last_save = time.monotonic()


class HelpersWork(SharedWork):
    """A helper's work on a row that another process owns: what is free, from the end."""

    def numbers(self) -> Iterator[int]:
        """Give batches of group after group, while there are free ones."""
        for group in reversed(self.parts.groups):
            if not self.is_wanted():
                return
            yield from self._take(group)
