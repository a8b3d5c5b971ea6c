"""Reading texts and documents from files, folders and the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lmmap.errors import InputError, closest
from lmmap.texts import TextSet, text_bytes, text_set, valid_text

TEXT_FILES = (".txt", ".jsonl", ".parquet")
SOURCE_COLUMNS = ("source", "pile_set_name", "meta.pile_set_name", "domain")


class Document(NamedTuple):
    """A text of any length and the name of the collection that it comes from."""

    source: str
    text: str


def read_texts(path: str | Path) -> TextSet:
    r"""Read a text set as it stands, nothing cut and nothing dropped.

    Parameters
    ----------
    path : str or Path
        ``.txt``: one text a line, blank lines skipped. ``.jsonl``: one object a line with ``text`` and,
        if there is one, ``source`` (or ``pile_set_name``, also within ``meta`` as in the Pile, or
        ``domain``) and ``text_id``; other single values are kept as columns. ``.parquet``: the same
        columns. A folder: one text a file, the subfolder's name being its source. Texts without a source
        get the file's or folder's name.

    Returns
    -------
    TextSet
        The texts in the order of the file, or of the sorted file names.

    Raises
    ------
    InputError
        If the file is missing or of another kind, a text is empty, ids repeat or are given to some texts
        only, or bytes are not UTF-8.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "two.txt"
    >>> _ = file.write_text("first\n\nsecond\n")
    >>> read_texts(file).texts
    ['first', 'second']
    """
    path = _existing(path)
    if path.is_dir():
        files = _files_in(path)
        return text_set(
            (_filled(file) for file in files), (_source_in(path, file) for file in files), name=path.name
        )
    if path.suffix not in TEXT_FILES:
        raise InputError(
            f"{path}: texts are read from {', '.join(TEXT_FILES)} or a folder, not {path.suffix!r}"
        )
    if path.suffix == ".txt":
        lines = [line.removesuffix("\r") for line in _utf8(path).split("\n")]
        return text_set([line for line in lines if line.strip()], path.stem, name=path.stem)
    table = _table(path)
    known = {"text", "text_id", "n_bytes", _source_column(table)}
    return text_set(
        table["text"],
        _sources(table, path.stem),
        name=path.stem,
        text_ids=table.get("text_id"),
        columns={str(column): table[column].tolist() for column in table if column not in known},
    )


def read_documents(path: str | Path) -> Iterator[Document]:
    """Read whole documents, to be cut by `chunk_documents`.

    Parameters
    ----------
    path : str or Path
        A text file (one document), a ``.jsonl`` or ``.parquet`` file (one document a row), or a folder
        of such files, read in sorted order; the source is the subfolder or the file's name.

    Yields
    ------
    Document
        Source and text.

    Raises
    ------
    InputError
        If the path is missing or bytes are not UTF-8.
    """
    path = _existing(path)
    for file in _files_in(path) if path.is_dir() else [path]:
        source = _source_in(path, file) if path.is_dir() else file.stem
        if file.suffix in {".jsonl", ".parquet"}:
            table = _table(file)
            rows = zip(_sources(table, source), table["text"], strict=True)
            yield from (Document(source, text) for source, text in rows)
        else:
            yield Document(source, _utf8(file))


def read_hub_documents(dataset: str, *, split: str = "train", text: str = "text") -> Iterator[Document]:
    """Stream documents from a data set on the Hugging Face Hub (the extra ``lmmap[hub]``).

    Parameters
    ----------
    dataset : str
        The data set's id.
    split : str
        Which split.
    text : str
        The column that holds the text.

    Yields
    ------
    Document
        Source (``source``, ``pile_set_name`` or ``domain`` if there is such a column) and text.

    Raises
    ------
    InputError
        If ``datasets`` is not installed or the column is missing.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError("reading from the Hub needs `datasets`: pip install 'lmmap[hub]'") from None
    for row in load_dataset(dataset, split=split, streaming=True):
        if text not in row:
            raise InputError(f"{dataset}: no column {text!r}{closest(text, row)}; it has {', '.join(row)}")
        values = dict(_single_values(row))
        named = (values[column] for column in SOURCE_COLUMNS if values.get(column) is not None)
        yield Document(str(next(named, dataset)), row[text])


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"no such file or folder: {path}{closest(path.name, siblings)}")
    return path if path.name else path.absolute()


def _files_in(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        raise InputError(f"{folder}: the folder holds no files")
    return files


def _source_in(folder: Path, file: Path) -> str:
    parents = file.relative_to(folder).parts[:-1]
    return "/".join(parents) or folder.name


def _source_column(table: pd.DataFrame) -> str | None:
    return next((column for column in SOURCE_COLUMNS if column in table), None)


def _sources(table: pd.DataFrame, default: str) -> list[str]:
    column = _source_column(table)
    if column is None:
        return [default] * len(table)
    return [default if pd.isna(source) else str(source) for source in table[column]]


def _filled(path: Path) -> str:
    text = _utf8(path)
    text_bytes(text, str(path))
    return text


def _utf8(path: Path) -> str:
    try:
        return path.read_bytes().decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8, byte {error.object[error.start]:#04x} at offset {error.start}; "
            "convert the file"
        ) from None


def _table(path: Path) -> pd.DataFrame:
    """Read the rows of a .jsonl or .parquet file; the column ``text`` is there."""
    if path.suffix == ".parquet":
        table = _parquet(path)
    else:
        table = pd.DataFrame([_json_object(line, path, i) for i, line in _lines(path)], dtype=object)
        if table.empty:
            raise InputError(f"{path}: no texts at all; give at least one")
    if "text" not in table:
        columns = ", ".join(map(str, table.columns)) or "none"
        raise InputError(f"{path}: no column 'text'{closest('text', table.columns)}; it has {columns}")
    return table


def _parquet(path: Path) -> pd.DataFrame:
    """Read single values as columns; a pandas index is a column like any other."""
    try:
        table = pq.read_table(path).flatten()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None
    kept = [
        i
        for i, field in enumerate(table.schema)
        if not pa.types.is_nested(field.type) and not field.name.startswith("__index_level_")
    ]
    frame: pd.DataFrame = table.select(kept).to_pandas(ignore_metadata=True)
    return frame


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((i, line) for i, line in enumerate(_utf8(path).split("\n"), start=1) if line.strip())


def _json_object(line: str, path: Path, number: int) -> dict[str, Any]:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with a field 'text', got {type(row).__name__}")
    if "text" not in row:
        raise InputError(f"{where}: no field 'text'{closest('text', row)}; it has {', '.join(row) or 'none'}")
    text_bytes(row["text"], where)
    values = dict(_single_values(row))
    for key, value in values.items():
        valid_text(f"{key}{value}", f"{where}, field {key!a}")
    return values


def _single_values(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Take the values of an object and, as ``key.inner``, of the objects in it; lists are left out."""
    for key, value in row.items():
        inner = {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
        yield from ((name, v) for name, v in inner.items() if not isinstance(v, dict | list))
