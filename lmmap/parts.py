"""Parts: what is kept of a row while it is at work: its finished batches, in groups that processes share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from lmmap.files import read_json, whole_file, write_json

Lock = FileLock
BATCHES_IN_A_GROUP = 8


def acquired(lock: Lock) -> bool:
    """Take a lock without waiting, and tell whether it was free."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


class RowAtWork:
    """A row that is not finished.

    Parameters
    ----------
    folder : Path
        Where its parts lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def parts(self, plan_hash: str, n_batches: int) -> Parts:
        """Give the batches of a plan."""
        return Parts(self.folder / plan_hash, n_batches)

    def offer(self, plan: Mapping[str, Any]) -> None:
        """Tell what another process needs to score batches of the row."""
        write_json(self.folder / "offer.json", plan)

    def offered(self) -> dict[str, Any]:
        """Read what was offered; nothing if the row is not that far."""
        try:
            return read_json(self.folder / "offer.json")
        except FileNotFoundError:
            return {}

    def note_crash(self, launch: str, process: str) -> None:
        """Note that a process died with the row at hand."""
        write_json(self.folder / "crashes" / f"{launch}-{process}.json", {})

    def n_crashes(self, launch: str) -> int:
        """Count the processes that the row has cost in a launch."""
        return len(list((self.folder / "crashes").glob(f"{launch}-*.json")))

    def clear(self) -> None:
        """Remove all of it, once the row is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Parts:
    """The batches of one row under one plan, group by group: claimed, kept, read.

    Parameters
    ----------
    folder : Path
        Where they lie; its name is the plan's hash, so that batches of another plan are not mistaken.
    n_batches : int
        Batches of the plan.
    """

    def __init__(self, folder: Path, n_batches: int) -> None:
        self.folder, self.n_batches = folder, n_batches
        self.groups = range(-(-n_batches // BATCHES_IN_A_GROUP))

    def batches_of(self, group: int) -> range:
        """Numbers of a group's batches."""
        first = group * BATCHES_IN_A_GROUP
        return range(first, min(first + BATCHES_IN_A_GROUP, self.n_batches))

    def group_of(self, number: int) -> int:
        """Give the group of a batch."""
        return number // BATCHES_IN_A_GROUP

    def claim(self, group: int) -> Lock | None:
        """Hold a group while it is scored; None if another process does."""
        lock = FileLock(self.folder / f".{group:06d}.lock")
        return lock if acquired(lock) else None

    @contextmanager
    def help(self, hardware: str) -> Iterator[bool]:
        """Be the one process of a device that helps; yields False if there is another."""
        lock = FileLock(self.folder / f".helper-{hardware}.lock")
        try:
            mine = acquired(lock)
        except FileNotFoundError:  # the row is finished and its parts are gone
            mine = False
        try:
            yield mine
        finally:
            lock.release()  # nothing happens if it is not held

    def is_done(self, group: int) -> bool:
        """Whether a group is complete."""
        return self._whole(group).exists()

    def free(self, at_most: int) -> int:
        """Count groups that nobody holds, up to a number."""
        found = 0
        for group in reversed(self.groups):
            if found < at_most and not self.is_done(group) and (lock := self.claim(group)):
                lock.release()
                found += 1
        return found

    def read(self, group: int) -> dict[int, np.ndarray]:
        """Read what there is of a group: number of the batch -> its token log-probabilities."""
        for file in (self._whole(group), self._begun(group)):
            if file.exists():
                with np.load(file) as batches:
                    return {int(number): batches[number] for number in batches.files}
        return {}

    def write(self, group: int, batches: Mapping[int, np.ndarray]) -> None:
        """Keep the finished batches of a group."""
        complete = len(batches) == len(self.batches_of(group))
        with (
            whole_file((self._whole if complete else self._begun)(group)) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, **{str(number): values for number, values in batches.items()})  # type: ignore[arg-type]
        if complete:
            self._begun(group).unlink(missing_ok=True)

    def _whole(self, group: int) -> Path:
        return self.folder / f"{group:06d}.npz"

    def _begun(self, group: int) -> Path:
        return self.folder / f"{group:06d}.begun.npz"
