"""The texts of published scores: a text set, or a JSON list of texts."""

from __future__ import annotations

from pathlib import Path

from lmmap.errors import InputError
from lmmap.imports.foreign_files import read_json
from lmmap.text_files import read_texts
from lmmap.texts import TextSet, text_set


def read_text_list(path: str | Path) -> TextSet:
    """Read texts in the order in which they were scored.

    Parameters
    ----------
    path : str or Path
        What `read_texts` reads, or ``.json``: a list of texts, of objects with ``text``, or an object whose
        values are texts and whose keys are their ids.

    Returns
    -------
    TextSet
        N texts.

    Raises
    ------
    InputError
        As `read_texts`, or if the JSON is none of these.
    """
    path = Path(path).expanduser()
    if path.suffix != ".json":
        return read_texts(path)
    content = read_json(path)
    if isinstance(content, dict) and all(isinstance(text, str) for text in content.values()):
        return text_set(content.values(), path.stem, name=path.stem, text_ids=content)
    if isinstance(content, list) and all(isinstance(entry, dict) and "text" in entry for entry in content):
        sources = [str(entry.get("pile_set_name") or entry.get("source") or path.stem) for entry in content]
        return text_set([entry["text"] for entry in content], sources, name=path.stem)
    if isinstance(content, list):
        return text_set(content, path.stem, name=path.stem)
    raise InputError(f"{path}: expected a list of texts, got {type(content).__name__}")
