"""Tables of scores: CSV, npz, Parquet as exported here, and the samples that lm-evaluation-harness logs."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.imports.found import Found, log_likelihoods
from lmmap.imports.pickles import existing_file
from lmmap.texts import text_set

LONG = ({"model", "model_name"}, {"text", "text_id"}, {"log_likelihood", "value"})
SAMPLES = re.compile(r"samples_(?P<task>.+)_\d{4}-\d\d-\d\dT[\d.:-]+")


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
        If a cell is no number, a row has too few or too many cells, or a pair is missing or given twice.
    """
    path = existing_file(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            lines = _lines(rows, len(header), path)
            long = _long_columns(header)
            return _long(lines, long, path) if long else _wide(lines, header, path)
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None


def read_npz(path: str | Path) -> Found:
    """Read scores from npz: ``values`` (K, N), ``models`` (K names), and if wanted ``texts`` (N ids).

    What `lmmap.export.export_scores` writes has these and ``fingerprint`` and ``attributes`` (JSON) besides.
    """
    path = existing_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as npz without running code ({error})") from None
    missing = [key for key in ("values", "models") if key not in held]
    if missing:
        raise InputError(f"{path}: no array {missing[0]!r}; it has {', '.join(held) or 'none'}")
    values, models = held["values"], [str(name) for name in held["models"].ravel()]
    if values.ndim != 2 or len(values) != len(models):
        raise InputError(f"{path}: values have shape {values.shape}, there are {len(models)} models")
    ids = [str(text) for text in held["texts"].ravel()] if "texts" in held else None
    attributes = _json(str(held["attributes"]), path) if "attributes" in held else {}
    fingerprint = str(held["fingerprint"]) if "fingerprint" in held else None
    return _labelled("npz", models, list(values), ids, attributes, fingerprint, path)


def read_exported_parquet(path: str | Path) -> Found:
    """Read scores from the Parquet file of `lmmap.export.export_scores`: a row for each model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = existing_file(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None
    footer = _json((table.schema.metadata or {}).get(b"lmmap", b"{}"), path)
    if not {"model", "log_likelihood"} <= set(table.column_names) or "texts" not in footer:
        raise InputError(f"{path}: no exported scores; it has {', '.join(table.column_names)}")
    models = table["model"].to_pylist()
    rows = table["log_likelihood"].to_numpy()
    others = table.drop_columns(["model", "log_likelihood"]).to_pylist()
    attributes = dict(zip(models, others, strict=True))
    return _labelled("Parquet", models, rows, footer["texts"], attributes, footer.get("fingerprint"), path)


def read_harness_samples(path: str | Path) -> Found:
    """Read what lm-evaluation-harness logs with ``--log_samples`` for a rolling-likelihood task.

    Parameters
    ----------
    path : str or Path
        A file ``samples_TASK_DATE.jsonl``, whose model is the name of its folder (``org__name``), or a folder
        of such folders with one task.

    Returns
    -------
    Found
        One row for each model, with the texts.

    Raises
    ------
    InputError
        If a sample is no rolling likelihood, a document is missing or given twice, or models were given other
        texts.
    """
    path = Path(path).expanduser()
    files = sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [existing_file(path)]
    if not files:
        raise InputError(f"{path}: no samples_*.jsonl in the folder")
    tasks = sorted({_task(file) for file in files})
    if len(tasks) > 1:
        raise InputError(
            f"{path}: samples of {len(tasks)} tasks, {tasks[0]!r} and {tasks[1]!r}; import one task"
        )
    samples = {file: _samples(file) for file in files}
    texts = [text for text, _ in samples[files[0]]]
    for file, rows in samples.items():
        other = [i for i, (a, (b, _)) in enumerate(zip(texts, rows, strict=False)) if a != b]
        if other or len(rows) != len(texts):
            place = f", the first at document {other[0]}" if other else ""
            raise InputError(
                f"{file}: {len(rows)} documents, {files[0]} has {len(texts)}; the texts differ{place}"
            )
    models = [file.parent.name.replace("__", "/", 1) for file in files]
    values = log_likelihoods(models, [[value for _, value in samples[file]] for file in files], str(path))
    return Found("lm-evaluation-harness samples", tuple(models), values, texts=text_set(texts, tasks[0]))


def is_harness_sample(path: Path) -> bool:
    """Tell logged samples from texts by the first line."""
    with path.open("rb") as file:
        line = file.readline(2**24)
    return b'"resps"' in line and b'"doc_id"' in line


def _labelled(
    form: str,
    models: Sequence[str],
    rows: Sequence[Any],
    ids: Sequence[str] | None,
    attributes: dict[str, dict[str, Any]],
    fingerprint: str | None,
    path: Path,
) -> Found:
    values = log_likelihoods(models, rows, str(path), texts=ids)
    if ids is not None and len(ids) != values.shape[1]:
        raise InputError(f"{path}: {values.shape[1]} values for each model, but {len(ids)} texts are named")
    return Found(form, tuple(models), values, attributes, None if ids is None else tuple(ids), fingerprint)


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
    if len(header) < 2 or len(set(ids)) < len(ids):
        twice = next((text for text in ids if ids.count(text) > 1), None) if len(header) > 1 else None
        raise InputError(
            f"{path}: "
            + (f"text {twice!r} has two columns" if twice is not None else "expected a model and its texts")
        )
    models, rows = [], []
    for number, (name, *cells) in lines:
        try:
            rows.append(np.array(cells, dtype=np.float64))
        except ValueError:
            for text, cell in zip(ids, cells, strict=True):
                _number(cell, f"{path}, line {number}, model {name!r}, text {text!r}")
        models.append(name)
    values = log_likelihoods(models, rows, str(path), texts=ids)
    return Found("CSV", tuple(models), values, text_ids=tuple(ids))


def _long(lines: Iterator[tuple[int, list[str]]], columns: Sequence[int], path: Path) -> Found:
    rows: dict[str, dict[str, float]] = {}
    for number, row in lines:
        name, text, cell = (row[place] for place in columns)
        of_model = rows.setdefault(name, {})
        if text in of_model:
            raise InputError(f"{path}, line {number}: model {name!r} has text {text!r} twice")
        of_model[text] = _number(cell, f"{path}, line {number}, model {name!r}, text {text!r}")
    ids = list(next(iter(rows.values()), {}))
    for name, of_model in rows.items():
        if set(of_model) != set(ids):
            text = sorted(set(of_model) ^ set(ids))[0]
            raise InputError(f"{path}: text {text!r} is not given for every model, as {name!r} shows")
    values = [[of_model[text] for text in ids] for of_model in rows.values()]
    matrix = log_likelihoods(list(rows), values, str(path), texts=ids)
    return Found("CSV, long", tuple(rows), matrix, text_ids=tuple(ids))


def _json(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its attributes are not JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: its attributes are a {type(content).__name__}, expected an object")
    return content


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError(f"{where}: {cell!r} is no number") from None


def _task(file: Path) -> str:
    found = SAMPLES.fullmatch(file.stem)
    return found["task"] if found else file.stem.removeprefix("samples_")


def _samples(file: Path) -> list[tuple[str, float]]:
    """Read text and value of every document, in the order of their numbers."""
    found: dict[int, tuple[str, float]] = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file}, line {number}"
            try:
                sample = json.loads(line)
                doc, text, value = _sample(sample)
            except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                raise InputError(
                    f"{where}: no sample of a rolling likelihood (one text in, one number out)"
                ) from None
            if doc in found:
                raise InputError(f"{where}: document {doc} is given twice")
            found[doc] = (text, value)
    return [found[doc] for doc in sorted(found)]


def _sample(sample: dict[str, Any]) -> tuple[int, str, float]:
    """Take a sample apart: ``arguments`` holds the text, ``resps`` the value, written as a text."""
    arguments, answers = sample["arguments"], sample["resps"]
    first = arguments["gen_args_0"] if isinstance(arguments, dict) else arguments[0]
    given = list(first.values()) if isinstance(first, dict) else list(first)
    (text,), ((answer,),) = given, answers
    if len(arguments) != 1 or not isinstance(text, str):
        raise ValueError
    while isinstance(answer, list | tuple):
        (answer,) = answer
    return int(sample["doc_id"]), text, float(answer)
