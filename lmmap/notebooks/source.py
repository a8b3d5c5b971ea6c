"""A notebook file as it lies on disk: JSON cells, their tags and sources, and one fingerprint of them all.

Read with ``json`` alone: importing nbformat takes seconds, and a mistyped parameter is to be told at once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lmmap.errors import InputError, closest


def load(path: Path) -> dict[str, Any]:
    """Read a Python notebook of format 4.

    Parameters
    ----------
    path : Path
        The ``.ipynb`` file.

    Returns
    -------
    dict
        The notebook as JSON: ``cells``, ``metadata``, ``nbformat``, ``nbformat_minor``.

    Raises
    ------
    InputError
        If there is no such file, or it is not a Python notebook of format 4.
    """
    if not path.is_file():
        beside = (other.name for other in path.parent.glob("*.ipynb"))
        raise InputError(f"There is no notebook {str(path)!r}{closest(path.name, beside)}.")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not a notebook: {error}.") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise InputError(f"{str(path)!r} is not a notebook of format 4: it has no list of cells.")
    kernel = notebook.get("metadata", {}).get("kernelspec", {})
    if (language := kernel.get("language", "python")) != "python":
        raise InputError(f"{str(path)!r} is written in {language!r}; only Python notebooks can be run.")
    return notebook


def tags(cell: dict[str, Any]) -> list[str]:
    """Tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def text(value: str | list[str]) -> str:
    """One string of what the format stores as a string or as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def fingerprint(notebook: dict[str, Any]) -> str:
    """Digest of what a notebook says, whatever it printed when it last ran.

    Parameters
    ----------
    notebook : dict
        The notebook as JSON.

    Returns
    -------
    str
        64 hex digits of the sha256 of every cell's type, source and tags.

    Examples
    --------
    >>> cell = {"cell_type": "code", "source": "1 + 1", "outputs": []}
    >>> ran = {**cell, "source": ["1 + ", "1"], "outputs": [2], "execution_count": 1}
    >>> fingerprint({"cells": [cell]}) == fingerprint({"cells": [ran]})
    True
    """
    said = [[cell.get("cell_type"), text(cell.get("source", "")), tags(cell)] for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
