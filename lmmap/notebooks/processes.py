"""Runs in processes of their own, several at once: none takes another down, all stop with this one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmmap.notebooks.executed import failed_name
from lmmap.signals import sigterm_exits


@dataclass(frozen=True)
class Task:
    """One run to be made."""

    notebook: Path
    varied: dict[str, object]
    fixed: dict[str, object]  # every other parameter of the notebook
    output: Path

    @property
    def given(self) -> dict[str, object]:
        """Values of all parameters."""
        return self.varied | self.fixed


def run_apart(tasks: Sequence[Task], jobs: int) -> dict[Path, str]:
    """Run every task in a process of its own, at most so many at once.

    Parameters
    ----------
    tasks : sequence of Task
        What to run, in this order.
    jobs : int
        How many at once.

    Returns
    -------
    dict of Path to str
        Why each failed, or nothing if it did not, by its output.
    """
    waiting, running, ended = list(tasks), list[_Child](), dict[Path, str]()
    with sigterm_exits():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_Child(waiting.pop(0), _environment(jobs)))
                time.sleep(0.05)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    error = ended[child.task.output] = child.error()
                    said = f"[{len(ended)}/{len(tasks)}] {child.task.output.stem}: {error or 'done'}"
                    print(said, file=sys.stderr)
        finally:
            for child in running:
                child.process.terminate()
            for child in running:
                child.error()
    return ended


def _environment(jobs: int) -> dict[str, str]:
    """Variables for a child, which is to use its share of the cores."""
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
    return share | os.environ


class _Child:
    """The process of one run, in a session of its own: Ctrl-C reaches it only through this process."""

    def __init__(self, task: Task, environment: Mapping[str, str]) -> None:
        failed_name(task.output).unlink(missing_ok=True)
        told = {"notebook": str(task.notebook), "parameters": task.given, "output": str(task.output)}
        self.task = task
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `error`)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lmmap.notebooks", repr(told)],
            stdin=subprocess.PIPE,  # nothing is sent: its end tells the child that this process is gone
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            env=environment,
            start_new_session=True,
        )

    def error(self) -> str:
        """Wait for its end; the last line on its stderr is the reason of a failure."""
        self.process.communicate()
        with self.log:
            self.log.seek(0)
            said = self.log.read().decode(errors="replace").strip().splitlines()
        if self.process.returncode == 0:
            return ""
        return said[-1] if said else f"its process ended with status {self.process.returncode}."
