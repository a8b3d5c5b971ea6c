"""Model folders that are either whole or not there, and that say which recipe made them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RECIPE = "made-by.recipe"


@contextmanager
def whole_folder(path: Path, recipe: Mapping[str, Any]) -> Iterator[Path]:
    """Give an empty temporary folder that takes the place of ``path`` once the block has ended well.

    Parameters
    ----------
    path : Path
        The folder to be made; its former content goes.
    recipe : mapping
        Plain values that decide the content; kept in the folder for `is_made_by`.

    Yields
    ------
    Path
        Where to write.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp()) / "model"
    >>> with whole_folder(folder, {"seed": 1}) as temporary:
    ...     _ = (temporary / "config.json").write_text("{}")
    >>> is_made_by(folder, {"seed": 1}), is_made_by(folder, {"seed": 2})
    (True, False)
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        (temporary / RECIPE).write_text(_written(recipe), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed have left; nobody else may be writing there.

    Parameters
    ----------
    folder : Path
        Folder of model folders.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> (folder / ".model.123.tmp").mkdir()
    >>> remove_unfinished(folder)
    >>> list(folder.iterdir())
    []
    """
    for unfinished in folder.glob(".*.tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)


def is_made_by(path: Path, recipe: Mapping[str, Any]) -> bool:
    """Say whether a folder is there, whole, and made by this very recipe.

    Parameters
    ----------
    path : Path
        The folder.
    recipe : mapping
        What would make it now.

    Returns
    -------
    bool
        False also for a folder made by another recipe, which is to be made anew.
    """
    file = path / RECIPE
    return file.is_file() and file.read_text(encoding="utf-8") == _written(recipe)


def _written(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, indent=1, sort_keys=True) + "\n"
