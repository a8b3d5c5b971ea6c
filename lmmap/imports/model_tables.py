"""Tables of models: what published files and lists say of each, by its name."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.imports.pickles import existing_file, read_pickle

Attributes = dict[str, dict[str, Any]]
NAMES = ("model_name", "model", "name", "model_id")
CALLED = {"model_type": "family", "type": "family", "created_at": "created", "table type": "table_type"}
BILLIONS = "model_size"


def read_attributes(path: str | Path) -> Attributes:
    """Read a table of models.

    Parameters
    ----------
    path : str or Path
        Pickle, JSON or YAML: a list of dicts with a name, of tuples (name, type, RGBA, table type) or of
        names; or a dict from name to dict, or from type to names. CSV: a column with the names and others.

    Returns
    -------
    dict
        Name -> attribute -> single value, None where the table has none. ``model_type`` becomes ``family``,
        ``model_size`` (billions) ``n_parameters``, ``created_at`` ``created``; lists become one text, colours
        ``#rrggbb``; values of texts are left out.

    Raises
    ------
    InputError
        If the file is none of these, an entry has no name, or names repeat.
    """
    path = existing_file(path)
    if path.suffix in (".yaml", ".yml"):
        content = _yaml(path)
    elif path.suffix == ".json":
        content = _json(path)
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            content = [{k: _cell(v) for k, v in row.items()} for row in csv.DictReader(file)]
    else:
        content = read_pickle(path)
    return attributes_of(_entries(content, str(path)), str(path))


def attributes_of(entries: Iterable[Mapping[str, Any]], where: str) -> Attributes:
    """Bring the fields of entries to this toolkit's names; two entries of one name are refused."""
    found: Attributes = {}
    for i, entry in enumerate(entries, start=1):
        name = model_name(entry, f"{where}, entry {i}")
        if name in found:
            raise InputError(f"{where}: model {name!r} is given more than once; remove one of its entries")
        found[name] = {}
        for key, value in entry.items():
            if key not in NAMES and "log-likelihood" not in str(key):
                new, single = _attribute(str(key), value, f"{where}, model {name!r}")
                found[name][new] = single
    return found


def model_name(entry: Mapping[str, Any], where: str) -> str:
    """Give the name in an entry."""
    for key in NAMES:
        if isinstance(entry.get(key), str) and entry[key].strip():
            return str(entry[key])
    raise InputError(
        f"{where}: no model's name under {', '.join(NAMES)}; it has {', '.join(map(str, entry))}"
    )


def _entries(content: Any, where: str) -> Sequence[Mapping[str, Any]]:  # noqa: ANN401
    if isinstance(content, dict):
        if all(isinstance(value, dict) for value in content.values()):
            return [{"model_name": name, **value} for name, value in content.items()]
        if all(isinstance(value, list) for value in content.values()):
            return [{"model_name": name, "type": kind} for kind, names in content.items() for name in names]
    elif isinstance(content, list) and content:
        if all(isinstance(entry, dict) for entry in content):
            return content
        if all(isinstance(entry, str) for entry in content):
            return [{"model_name": name} for name in content]
        if all(isinstance(entry, list | tuple) and 2 <= len(entry) <= 4 for entry in content):
            keys = ("model_name", "type", "color", "table type")
            return [dict(zip(keys, entry, strict=False)) for entry in content]
    raise InputError(
        f"{where}: no table of models; expected a list of dicts with `model_name`, of names, or of "
        "(name, type, colour, table type)"
    )


def _attribute(key: str, value: Any, where: str) -> tuple[str, Any]:  # noqa: ANN401
    """Give an attribute's name here, and a single value."""
    new = CALLED.get(key, key)
    if isinstance(value, float) and math.isnan(value):
        value = None
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        parts = sorted(value) if isinstance(value, set | frozenset) else list(value)
        return new, _color(parts) or ", ".join(map(str, parts))
    if value is not None and not isinstance(value, str | int | float | bool):
        raise InputError(f"{where}: attribute {key!r} is a {type(value).__name__}; expected a single value")
    if key == BILLIONS:
        return "n_parameters", None if value is None else _parameters(value, where)
    return new, value


def _parameters(billions: Any, where: str) -> int:  # noqa: ANN401
    try:
        n = round(float(billions) * 1e9)
    except (ValueError, OverflowError):
        n = 0
    if n <= 0:
        raise InputError(f"{where}: model_size is {billions!r}; expected billions of parameters")
    return n


def _color(parts: Sequence[Any]) -> str | None:
    """Write red, green, blue (and alpha), each from 0 to 1, as #rrggbb."""
    if len(parts) not in (3, 4) or not all(isinstance(p, int | float) and 0 <= p <= 1 for p in parts):
        return None
    return "#" + "".join(f"{round(255 * p):02x}" for p in parts[:3])


def _cell(text: str | None) -> str | int | float | None:
    """Read a cell of a table: a number if it looks like one."""
    if not text:
        return None
    if re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.\d*|\.?\d+)([eE][-+]?\d+)?", text):
        return float(text)
    return text


def _yaml(path: Path) -> Any:  # noqa: ANN401
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: not YAML: {error}") from None


def _json(path: Path) -> Any:  # noqa: ANN401
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
