"""Tables of models: what published files and lists say of each, by its name."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.imports.foreign_files import MAX_JSON, existing_file, read_json, shown
from lmmap.imports.pickles import read_pickle
from lmmap.plain_yaml import MAX_BYTES as MAX_YAML
from lmmap.plain_yaml import read_yaml
from lmmap.texts import valid_text

Attributes = dict[str, dict[str, Any]]
NAMES = ("model_name", "model", "name", "model_id")
CALLED = {"model_type": "family", "type": "family", "created_at": "created", "table type": "table_type"}
BILLIONS = "model_size"
MOST_ENTRIES = 5_000_000  # attributes of all models
LONGEST = 100_000  # characters of one attribute
DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ].*)?)?)?")
NO_DATE = ("", "unknown", "none", "null", "n/a", "na", "nan", "-", "?")


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
        ``#rrggbb``; values of texts and other arrays are left out. Dates are texts that begin with the year;
        "", "unknown" and the like are none.

    Raises
    ------
    InputError
        If the file is none of these, an entry has no name, names or columns repeat, a date is none, or an
        attribute is no single value.
    """
    path = Path(path).expanduser()
    reader = {".yaml": _yaml, ".yml": _yaml, ".json": read_json, ".csv": _csv}.get(path.suffix)
    content = read_pickle(path) if reader is None else reader(path)
    return attributes_of(_entries(content, str(path)), str(path))


def _yaml(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    return read_yaml(existing_file(path, MAX_YAML))


def attributes_of(entries: Iterable[Mapping[Any, Any]], where: str) -> Attributes:
    """Bring the fields of entries to this toolkit's names; two entries of one name are refused."""
    found: Attributes = {}
    room = MOST_ENTRIES
    for i, entry in enumerate(entries, start=1):
        room -= len(entry)
        if room < 0:
            raise InputError(f"{where}: more than {MOST_ENTRIES:,} attributes of models; leave some out")
        name = model_name(entry, f"{where}, entry {i}")
        if name in found:
            raise InputError(f"{where}: model {name!r} is given more than once; remove one of its entries")
        found[name] = {}
        for key, value in entry.items():
            if key not in NAMES and "log-likelihood" not in str(key) and not _is_vector(value):
                new, single = _attribute(str(key), value, f"{where}, model {name!r}")
                found[name][valid_text(new, where)] = single
    return found


def model_name(entry: Mapping[Any, Any], where: str) -> str:
    """Give the name in an entry."""
    for key in NAMES:
        if isinstance(entry.get(key), str) and entry[key].strip():
            return str(entry[key])
    raise InputError(f"{where}: no model's name under {', '.join(NAMES)}; it has {shown(entry)}")


def single_value(value: Any, where: str) -> str | int | float | bool | None:  # noqa: ANN401
    """Give an attribute as one value: a list becomes one text, NaN none.

    Examples
    --------
    >>> single_value(["a", "b"], "models.yaml"), single_value(float("nan"), "models.yaml")
    ('a, b', None)
    """
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, list | tuple):
        if not all(part is None or isinstance(part, str | int | float) for part in value):
            raise InputError(f"{where} is a list of lists or the like; expected single values")
        if sum(len(part) if isinstance(part, str) else 1 for part in value) > LONGEST:
            raise InputError(f"{where} is longer than {LONGEST:,} characters; leave it out")
        value = _color(value) or ", ".join(map(str, value))
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is not None and not isinstance(value, str | int | float):
        raise InputError(f"{where} is of type {type(value).__name__}; expected a single value")
    if isinstance(value, str) and len(valid_text(value, where)) > LONGEST:
        raise InputError(f"{where} is longer than {LONGEST:,} characters; leave it out")
    return value


def _csv(path: Path) -> list[dict[str, Any]]:
    path = existing_file(path, MAX_JSON)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows)
            twice = [name for name, n in Counter(header).items() if n > 1]
            if twice:
                raise InputError(f"{path}: two columns are called {twice[0]!r}; rename or remove one")
            return [_row(header, row, f"{path}, line {rows.line_num}") for row in rows if row]
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None


def _row(header: Sequence[str], row: Sequence[str], where: str) -> dict[str, Any]:
    if len(row) != len(header):
        raise InputError(f"{where}: {len(row)} cells, the first line has {len(header)}")
    return {key: cell if key in NAMES else _cell(cell) for key, cell in zip(header, row, strict=True)}


def _entries(content: Any, where: str) -> Iterable[Mapping[Any, Any]]:  # noqa: ANN401
    if isinstance(content, dict) and content:
        if all(isinstance(value, dict) for value in content.values()):
            return _named(content, where)
        if all(isinstance(value, list) for value in content.values()):
            return ({"model_name": name, "type": kind} for kind, names in content.items() for name in names)
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


def _named(content: Mapping[Any, Mapping[Any, Any]], where: str) -> Iterator[Mapping[Any, Any]]:
    """Give each inner dict its name; one dict under a million names is copied one at a time."""
    for name, entry in content.items():
        if "model_name" in entry and entry["model_name"] != name:
            raise InputError(f"{where}: {str(name)!r} has the model_name {str(entry['model_name'])[:80]!r}")
        yield {"model_name": name, **entry}


def _is_vector(value: object) -> bool:
    """Whether a value is an array of numbers, other than a colour."""
    return isinstance(value, np.ndarray) and (value.ndim != 1 or len(value) > 4)


def _attribute(key: str, value: Any, where: str) -> tuple[str, Any]:  # noqa: ANN401
    """Give an attribute's name here, and a single value."""
    new = CALLED.get(key, key)
    value = single_value(
        value.tolist() if isinstance(value, np.ndarray) else value, f"{where}: attribute {key!r}"
    )
    if key == BILLIONS:
        return "n_parameters", None if value in (None, "") else _parameters(value, where)
    return new, _date(value, f"{where}: {key}") if new == "created" else value


def _date(value: Any, where: str) -> str | None:  # noqa: ANN401
    """Give a date as it stands, from the year on; None if it is said to be unknown."""
    if value is None or (isinstance(value, str) and value.strip().lower() in NO_DATE):
        return None
    text = str(value).strip()
    if not DATE.fullmatch(text) or not "1950" <= text[:4] <= "2100":
        raise InputError(f"{where} is {text[:80]!r}; expected a date such as 2024-05-31, or nothing")
    return text


def _parameters(billions: Any, where: str) -> int:  # noqa: ANN401
    try:
        n = round(float(billions) * 1e9)
    except (ValueError, OverflowError):
        n = 0
    if n <= 0:
        told = str(billions)[:80]
        raise InputError(f"{where}: model_size is {told}; expected billions of parameters, or nothing")
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
