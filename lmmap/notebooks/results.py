"""Numbers that a notebook hands on: recorded as an output of a cell, read from the executed file."""

from __future__ import annotations

from typing import Any

from lmmap.errors import InputError
from lmmap.notebooks import kinds

MIME = "application/vnd.lmmap.result+json"
SCALAR = kinds.kind_of_annotation("bool | int | float | str | None")


def record(**values: object) -> None:
    """Record results under a name, to be found in the summary of a grid of runs.

    The executed notebook keeps them as an output of the cell, shown as ``name = value``.

    Parameters
    ----------
    **values : bool, int, finite float, str or None
        Results by name; recorded again under the same name, the later one counts.

    Raises
    ------
    InputError
        If a value is not one finite number, one string, a bool or None.

    Examples
    --------
    >>> record(spread=[0.1, 0.2])
    Traceback (most recent call last):
    lmmap.errors.InputError: record takes a finite number, a string, a bool or None; spread is [0.1, 0.2].
    """
    plain = {}
    for name, value in values.items():
        try:
            plain[name] = kinds.fit(value, SCALAR)
        except ValueError:
            raise InputError(
                f"record takes a finite number, a string, a bool or None; {name} is {value!r}."
            ) from None
    from IPython.display import display

    shown = "\n".join(f"{name} = {value!r}" for name, value in plain.items())
    display({MIME: plain, "text/plain": shown}, raw=True)  # type: ignore[no-untyped-call]


def read_results(notebook: dict[str, Any]) -> dict[str, object]:
    """Collect what `record` left in an executed notebook.

    Parameters
    ----------
    notebook : dict
        The notebook as JSON.

    Returns
    -------
    dict of str to bool, int, float, str or None
        Results by name.

    Examples
    --------
    >>> outputs = [{"output_type": "display_data", "data": {MIME: {"kl": 0.5}}}]
    >>> read_results({"cells": [{"cell_type": "code", "outputs": outputs}]})
    {'kl': 0.5}
    """
    found: dict[str, object] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            found.update(output.get("data", {}).get(MIME, {}))
    return found
