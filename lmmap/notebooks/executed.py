"""An executed notebook, and the marker in it that says from what it was made and that it was finished."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmap.errors import InputError
from lmmap.notebooks import source
from lmmap.notebooks.parameters import check_parameters, read_parameters
from lmmap.notebooks.results import read_results

MARKER = "lmmap"  # in the notebook's metadata, written last


@dataclass(frozen=True)
class RunResult:
    """An executed notebook: where it is, what it was given, how long it took and what it recorded."""

    output: Path
    parameters: dict[str, object]  # all of them, defaults included
    seconds: float  # from the start of the kernel to its end
    results: dict[str, object]
    kept: bool = False  # it was done already and did not run again


def failed_name(output: Path) -> Path:
    """Where the notebook is kept if it does not reach its end."""
    return output.with_name(f"{output.stem}.failed.ipynb")


def identity(notebook: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Say what an output is made from, in the words of its marker.

    Parameters
    ----------
    notebook : Path
        The source.
    parameters : mapping of str to object
        Values by name.

    Returns
    -------
    dict
        ``source_sha256``, and ``parameters``: the Python source of every value, defaults included, which
        unlike JSON tells 1 from 1.0 and a tuple from a list.

    Raises
    ------
    InputError
        For a missing notebook or an unknown or mistyped parameter.
    """
    defaults = {name: parameter.default for name, parameter in read_parameters(notebook).items()}
    values = defaults | check_parameters(notebook, parameters)
    return {
        "source_sha256": source.fingerprint(source.load(notebook)),
        "parameters": {name: repr(value) for name, value in values.items()},
    }


def is_done(notebook: Path, parameters: Mapping[str, object], output: Path) -> bool:
    """Tell whether an output was made from this very source with these very parameters, to its end.

    Parameters
    ----------
    notebook : Path
        The source.
    parameters : mapping of str to object
        Values by name; a default that is given counts as the default.
    output : Path
        The executed notebook, if there is one.

    Returns
    -------
    bool
        False also if there is no such file, or `run_notebook` did not make it.

    Raises
    ------
    InputError
        For a missing notebook or an unknown or mistyped parameter.
    """
    marker = _marker(_load(output))
    return all(marker.get(name) == value for name, value in identity(notebook, parameters).items())


def mark_done(executed: dict[str, Any], made_from: Mapping[str, object]) -> None:
    """Put the marker into an executed notebook's JSON.

    Parameters
    ----------
    executed : dict
        The notebook as JSON, changed in place.
    made_from : mapping
        Its `identity`.
    """
    executed["metadata"][MARKER] = {**made_from, "seconds": executed["metadata"]["papermill"]["duration"]}


def read_run(output: Path, *, kept: bool = False) -> RunResult:
    """Read an executed notebook.

    Parameters
    ----------
    output : Path
        The executed notebook.
    kept : bool, default False
        Whether it was there already.

    Returns
    -------
    RunResult
        What it was given, how long it took and what it recorded.

    Raises
    ------
    InputError
        If there is no such file or it bears no marker.
    """
    executed = _load(output)
    marker = _marker(executed)
    if not marker:
        raise InputError(f"{str(output)!r} is not a notebook that lmmap ran to its end.")
    parameters = {name: ast.literal_eval(value) for name, value in marker["parameters"].items()}
    return RunResult(output, parameters, marker["seconds"], read_results(executed), kept)


def _load(output: Path) -> dict[str, Any]:
    """Read the notebook's JSON; empty if it cannot be read."""
    try:
        loaded = json.loads(output.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _marker(executed: dict[str, Any]) -> dict[str, Any]:
    found = executed.get("metadata", {}).get(MARKER, {})
    return found if isinstance(found, dict) else {}
