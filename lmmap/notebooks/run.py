"""Run one notebook through papermill, and give its output a name only if every cell ran."""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmmap.errors import InputError
from lmmap.notebooks import source
from lmmap.notebooks.executed import MARKER, RunResult, failed_name, identity, is_done, mark_done, read_run
from lmmap.notebooks.parameters import check_parameters
from lmmap.signals import sigterm_exits

FOLDER = Path("runs/notebooks")
INJECTED, BANNER = "injected-parameters", "papermill-error-cell-tag"  # tags of the cells papermill adds
MAY_RAISE = "raises-exception"  # nbclient obeys this tag, and papermill fails the notebook afterwards


class NotebookFailed(RuntimeError):  # noqa: N818 (what happened, as the message goes on to say)
    """A cell raised or the kernel died; the message names the cell, the error and the file that was kept."""


def run_notebook(
    notebook: Path,
    *,
    parameters: Mapping[str, object] | None = None,
    output: Path | None = None,
    if_needed: bool = False,
    progress: bool = True,
) -> RunResult:
    """Execute a notebook with given parameters in a fresh kernel of this interpreter.

    It runs in its own folder, as in JupyterLab. It is written under a temporary name and renamed when every
    cell has run; if one fails, what was reached is kept as ``NAME.failed.ipynb`` and an earlier output stays.
    A cell tagged ``raises-exception`` may raise, one tagged ``skip-execution`` does not run.

    Parameters
    ----------
    notebook : Path
        The source; never written to.
    parameters : mapping of str to object, optional
        Values by name; the others keep their defaults.
    output : Path, optional
        The executed notebook; ``runs/notebooks/NAME.ipynb`` by default.
    if_needed : bool, default False
        Keep an output that `is_done`; otherwise the notebook is always run again.
    progress : bool, default True
        Show a bar of cells on stderr if that is a terminal.

    Returns
    -------
    RunResult
        The executed notebook and what it recorded.

    Raises
    ------
    InputError
        Before a kernel starts: for a missing notebook, an unknown or mistyped parameter, or an output that
        would replace the source.
    NotebookFailed
        If a cell raised, or the kernel died or never answered.
    """
    notebook, given = Path(notebook), parameters or {}
    made_from = identity(notebook, given)
    output = output_of(notebook, output)
    if if_needed and is_done(notebook, given, output):
        return read_run(output, kept=True)
    prepared = _prepare(source.load(notebook), check_parameters(notebook, given))
    output.parent.mkdir(parents=True, exist_ok=True)
    with sigterm_exits(), _scratch_beside(output) as scratch:
        _write(prepared, scratch)
        stopped = _execute(scratch, notebook, progress=progress)
        executed = source.load(scratch)
        told = {"input_path": str(notebook), "output_path": str(output)}  # papermill saw the scratch file
        executed["metadata"]["papermill"] |= told | {"parameters": made_from["parameters"]}
        if failure := _failure(executed, stopped):
            _write(executed, scratch)
            scratch.replace(failed_name(output))
            raise NotebookFailed(f"{notebook.name}, {failure} Kept as {failed_name(output)}.")
        executed["cells"] = [cell for cell in executed["cells"] if BANNER not in source.tags(cell)]
        mark_done(executed, made_from)
        _write(executed, scratch)
        scratch.replace(output)
    failed_name(output).unlink(missing_ok=True)
    return read_run(output)


def output_of(notebook: Path, output: Path | None) -> Path:
    """Choose where an executed notebook goes, and refuse to write over its source.

    Parameters
    ----------
    notebook : Path
        The source.
    output : Path or None
        What was asked for; ``runs/notebooks/NAME.ipynb`` if None.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    InputError
        If it is no ``.ipynb`` file, or it or its ``.failed.ipynb`` would be the source.
    """
    output = FOLDER / notebook.name if output is None else Path(output)
    if output.suffix != ".ipynb" or output.is_dir():
        raise InputError(f"The executed notebook has to be an .ipynb file; got the output {str(output)!r}.")
    for path in (output, failed_name(output)):
        if path.resolve() == notebook.resolve() or (path.exists() and path.samefile(notebook)):
            raise InputError(f"The output {str(path)!r} would replace its own source; choose another one.")
    return output


@contextmanager
def _scratch_beside(output: Path) -> Iterator[Path]:
    scratch = output.with_name(f".{output.stem}.{uuid.uuid4().hex[:8]}.ipynb")
    try:
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


def _write(notebook: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _prepare(notebook: dict[str, Any], given: Mapping[str, object]) -> dict[str, Any]:
    """Put the given values into a cell behind the parameters cell, and take off what earlier runs left.

    papermill would do it, but makes strings of tuples and of the keys of dicts, and warns of every
    annotation that its pattern does not know.
    """
    for trace in ("papermill", MARKER):
        notebook.setdefault("metadata", {}).pop(trace, None)
    cells = [cell for cell in notebook["cells"] if not {INJECTED, BANNER} & set(source.tags(cell))]
    if given:
        lines = ["# Parameters", *(f"{name} = {value!r}" for name, value in given.items())]
        values: dict[str, Any] = {
            "cell_type": "code",
            "metadata": {"tags": [INJECTED]},
            "source": "\n".join(lines),
        }
        values |= {"execution_count": None, "outputs": []}
        if (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5):
            values["id"] = "given-parameters"
        place = next(i for i, cell in enumerate(cells) if "parameters" in source.tags(cell))
        cells.insert(place + 1, values)
    return {**notebook, "cells": cells}


def _execute(scratch: Path, notebook: Path, *, progress: bool) -> str:
    """Let papermill run the file in place; return what stopped it other than a cell that raised."""
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    from lmmap.notebooks.kernel import kernels_of_this_python

    path = str(scratch.resolve()).replace("{", "{{").replace("}", "}}")  # papermill formats its paths
    with tempfile.TemporaryFile() as log, kernels_of_this_python(log) as kernels, _silent("papermill"):
        try:
            execute_notebook(
                path,
                path,
                kernel_name="python3",
                language="python",
                kernel_manager_class=kernels,
                iopub_timeout=60,  # seconds; the default of 4 is too short for kernels on a busy machine
                cwd=str(notebook.resolve().parent),
                progress_bar={"disable": None if progress else True, "desc": notebook.stem},
            )
        except PapermillExecutionError:
            pass  # the file has it
        except RuntimeError as error:  # the kernel died, or never answered
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            return " ".join([str(error).rstrip(".") + ".", *said[-1:]])
    return ""


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Silence a logger whose warnings are about what is checked here, and whose errors are raised as well."""
    talker = logging.getLogger(logger)
    level = talker.level
    talker.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        talker.setLevel(level)


def _failure(executed: dict[str, Any], stopped: str) -> str:
    """Find the first cell that did not do what it should, and say so; nothing if all did."""
    added = {INJECTED, BANNER}
    cells = [cell for cell in executed["cells"] if not added & set(source.tags(cell))]
    for number, cell in enumerate(cells, start=1):
        errors = [output for output in cell.get("outputs", []) if output["output_type"] == "error"]
        if errors and MAY_RAISE not in source.tags(cell):
            said = ": ".join(filter(None, (errors[0]["ename"], errors[0]["evalue"]))).splitlines()[0]
            return f"cell {number} of {len(cells)} failed: {said[:300].rstrip('.')}."
    if stopped:
        started = [cell["metadata"]["papermill"].get("start_time") for cell in cells]
        number = sum(time is not None for time in started)
        where = f"cell {number} of {len(cells)} did not end" if number else "its kernel did not start"
        return f"{where}: {stopped}"
    return ""
