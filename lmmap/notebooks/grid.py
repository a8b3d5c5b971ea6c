"""Run a notebook over every combination of lists of values, several at once, and sum up what came out."""

from __future__ import annotations

import hashlib
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmmap.errors import InputError
from lmmap.notebooks.executed import failed_name, is_done, read_run
from lmmap.notebooks.parameters import check_grid, check_parameters, read_parameters
from lmmap.notebooks.processes import Task, run_apart
from lmmap.notebooks.report import GridRun, write_page, write_summary
from lmmap.notebooks.run import FOLDER, output_of


@dataclass(frozen=True)
class GridResult:
    """All runs of a grid in the order of its product, the last list varying fastest, and their summaries."""

    runs: tuple[GridRun, ...]
    summary: Path  # summary.csv
    page: Path  # index.html

    @property
    def n_failed(self) -> int:
        """How many runs did not reach their end."""
        return sum(run.status == "failed" for run in self.runs)


def run_grid(
    notebook: Path,
    *,
    grid: Mapping[str, Sequence[object]],
    parameters: Mapping[str, object] | None = None,
    output_dir: Path | None = None,
    jobs: int = 1,
) -> GridResult:
    """Run a notebook once for every combination of the values of a grid, as far as that is not done yet.

    Every run is a process of its own with its own kernel. A run that fails does not stop the others. Stopped
    and started again, the grid goes on with what is missing: see `is_done`. Progress goes to stderr, a line
    a run.

    Parameters
    ----------
    notebook : Path
        The source.
    grid : mapping of str to sequence
        Varied parameters, each with its list of values.
    parameters : mapping of str to object, optional
        Values that are the same in all runs.
    output_dir : Path, optional
        Folder of the executed notebooks, ``summary.csv`` and ``index.html``; ``runs/notebooks/NAME`` by
        default.
    jobs : int, default 1
        How many to run at once. Above one, the kernels share the cores through ``OMP_NUM_THREADS``, unless
        it is set.

    Returns
    -------
    GridResult
        What became of every run.

    Raises
    ------
    InputError
        Before a kernel starts: as in `run_notebook`, or for a grid that is empty or has a value twice.
    """
    notebook = Path(notebook)
    if jobs < 1:
        raise InputError(f"jobs has to be at least 1; got {jobs}.")
    folder = FOLDER / notebook.stem if output_dir is None else Path(output_dir)
    tasks = plan_grid(notebook, grid, parameters or {}, folder)
    kept = [task.output for task in tasks if is_done(notebook, task.given, task.output)]
    folder.mkdir(parents=True, exist_ok=True)
    if kept:
        print(f"{len(kept)} of {len(tasks)} runs are done already", file=sys.stderr)
    ended = run_apart([task for task in tasks if task.output not in kept], jobs)
    runs = tuple(_outcome(task, ended.get(task.output)) for task in tasks)
    result = GridResult(runs, folder / "summary.csv", folder / "index.html")
    write_summary(runs, result.summary)
    write_page(notebook, runs, result.page)
    return result


def plan_grid(
    notebook: Path, grid: Mapping[str, Sequence[object]], parameters: Mapping[str, object], folder: Path
) -> list[Task]:
    """Check a grid and lay out its runs.

    Parameters
    ----------
    notebook : Path
        The source.
    grid : mapping of str to sequence
        Varied parameters, each with its list of values.
    parameters : mapping of str to object
        Values that are the same in all runs.
    folder : Path
        Where the executed notebooks go.

    Returns
    -------
    list of Task
        One for every combination, the last list varying fastest.

    Raises
    ------
    InputError
        As in `run_grid`.
    """
    fixed, lists = check_parameters(notebook, parameters), check_grid(notebook, grid)
    if not lists:
        raise InputError("A grid needs at least one parameter with a list of values.")
    if both := [name for name in lists if name in fixed]:
        raise InputError(f"Parameter {both[0]!r} is both given and in the grid; keep one of the two.")
    declared = read_parameters(notebook).items()
    others = {name: fixed.get(name, parameter.default) for name, parameter in declared if name not in lists}
    tasks: dict[str, Task] = {}
    for values in itertools.product(*lists.values()):
        varied = dict(zip(lists, values, strict=True))
        name = run_name(notebook.stem, varied)
        if name in tasks:
            raise InputError(f"The grid has the run {name!r} twice; list every value once.")
        tasks[name] = Task(notebook, varied, others, output_of(notebook, folder / f"{name}.ipynb"))
    return list(tasks.values())


def run_name(stem: str, varied: Mapping[str, object]) -> str:
    """Name a run by what was varied, in letters every file system takes.

    Parameters
    ----------
    stem : str
        The notebook's name.
    varied : mapping of str to object
        Values by parameter name. One that is long, or has capitals or characters other than a-z, 0-9 and
        ``._+-``, is shortened and gets 8 hex digits of its hash.

    Returns
    -------
    str
        The name, without ``.ipynb``.

    Examples
    --------
    >>> run_name("07_map", {"seed": 0, "method": "pca", "weights": None})
    '07_map-seed=0,method=pca,weights=none'
    >>> run_name("07_map", {"run": "../runs/demo"})
    '07_map-run=.._runs_demo~a94915c3'
    """
    name = f"{stem}-{','.join(f'{key}={_word(value)}' for key, value in varied.items())}"
    return name if len(name) <= 180 else f"{name[:160]}~{_digest(name)}"


def _word(value: object) -> str:
    text = value if isinstance(value, str) else repr(value).lower()
    if re.fullmatch(r"[a-z0-9._+-]{1,32}", text):
        return text
    return f"{re.sub(r'[^A-Za-z0-9._+-]+', '_', text)[:20]}~{_digest(repr(value))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _outcome(task: Task, error: str | None) -> GridRun:
    """Find in its files what became of a run, whatever its process said; it was kept if none was started."""
    output = task.output if is_done(task.notebook, task.given, task.output) else failed_name(task.output)
    if output == task.output:
        done = read_run(output)
        return GridRun(task.varied, task.fixed, output, done.seconds, done.results, kept=error is None)
    error = error or "the notebook was changed while the grid ran; start the grid again."
    return GridRun(task.varied, task.fixed, output if output.exists() else None, error=error)
