"""Tables of scores in CSV: a row for each model, or a row for each model and text."""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lmmap.errors import InputError
from lmmap.imports.foreign_files import MOST_VALUES, existing_file
from lmmap.imports.found import Found, log_likelihoods

LONG = ({"model", "model_name"}, {"text", "text_id"}, {"log_likelihood", "value"})


def read_csv(path: str | Path) -> Found:
    """Read scores from CSV, wide or long.

    Parameters
    ----------
    path : str or Path
        Wide: the first column is the model, every other one a text, called by its id. Long: the columns
        ``model``, ``text_id`` and ``log_likelihood`` in any order, a row for each pair.

    Returns
    -------
    Found
        Nats.

    Raises
    ------
    InputError
        If a cell is no number, a row has too few or too many cells, cells are separated otherwise, or a pair
        is missing or given twice.
    """
    path = existing_file(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            _check_header(header, path)
            lines = _lines(rows, len(header), path)
            long = _long_columns(header)
            return _long(lines, long, path) if long else _wide(lines, header, path)
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None


def _check_header(header: Sequence[str], path: Path) -> None:
    if len(header) < 2:
        other = next((mark for mark in (";", "\t") if mark in "".join(header)), None)
        raise InputError(
            f"{path}: expected a model and its texts, separated by commas"
            + (
                f"; here {other!r} separates them: write the file with commas and decimal points"
                if other
                else ""
            )
        )
    twice = [text for text, n in Counter(header[1:]).items() if n > 1]
    if twice:
        raise InputError(f"{path}: text {twice[0]!r} has two columns")


def _lines(rows: Iterator[list[str]], width: int, path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(rows, start=2):
        if row and len(row) != width:
            raise InputError(f"{path}, line {number}: {len(row)} cells, the first line has {width}")
        if row:
            yield number, row


def _long_columns(header: Sequence[str]) -> list[int] | None:
    """Give the places of model, text and value, if these are the columns."""
    names = [name.strip() for name in header]
    if len(names) != 3:
        return None
    places = [next((i for i, name in enumerate(names) if name in known), None) for known in LONG]
    return None if None in places else [place for place in places if place is not None]


def _wide(lines: Iterator[tuple[int, list[str]]], header: Sequence[str], path: Path) -> Found:
    ids = header[1:]
    models: list[str] = []
    rows: list[np.ndarray] = []
    for number, (name, *cells) in lines:
        if len(models) * len(ids) > MOST_VALUES:
            raise InputError(
                f"{path}: more than the {MOST_VALUES:,} values that are read; split it by models"
            )
        models.append(name)
        try:
            rows.append(np.array([_float(cell) for cell in cells]))
        except ValueError:
            for text, cell in zip(ids, cells, strict=True):
                _number(cell, f"{path}, line {number}, model {name!r}, text {text!r}")
    values = log_likelihoods(models, rows, str(path), texts=ids)
    return Found("CSV", tuple(models), values, text_ids=tuple(ids))


def _long(lines: Iterator[tuple[int, list[str]]], columns: Sequence[int], path: Path) -> Found:
    place: dict[str, int] = {}  # of each text
    rows: dict[str, array[float]] = {}
    room = min(MOST_VALUES, path.stat().st_size // len("m,t,0"))
    for number, row in lines:
        name, text, cell = (row[column] for column in columns)
        where = f"{path}, line {number}, model {name!r}, text {text!r}"
        x = place.setdefault(text, len(place))
        of_model = rows.setdefault(name, array("d"))
        room -= max(x + 1 - len(of_model), 0)
        if room < 0:
            raise InputError(
                f"{path}: most pairs of model and text are missing, or there are more than the "
                f"{MOST_VALUES:,} values that are read"
            )
        of_model.extend([np.nan] * (x + 1 - len(of_model)))
        if not np.isnan(of_model[x]):
            raise InputError(f"{path}, line {number}: model {name!r} has text {text!r} twice")
        of_model[x] = _number(cell, where)
        if np.isnan(of_model[x]):
            raise InputError(f"{where}: {cell!r} is no number")
    for name, of_model in rows.items():
        of_model.extend([np.nan] * (len(place) - len(of_model)))
        missing = np.flatnonzero(np.isnan(of_model))
        if missing.size:
            text = list(place)[missing[0]]
            raise InputError(f"{path}: text {text!r} is not given for every model, as {name!r} shows")
    matrix = log_likelihoods(list(rows), list(map(np.asarray, rows.values())), str(path), texts=list(place))
    return Found("CSV, long", tuple(rows), matrix, text_ids=tuple(place))


def _float(cell: str) -> float:
    if "_" in cell:  # Python would read 1_0 as 10
        raise ValueError
    return float(cell)


def _number(cell: str, where: str) -> float:
    try:
        return _float(cell)
    except ValueError:
        raise InputError(f"{where}: {cell[:40]!r} is no number") from None
