"""Files that are either whole or not there: write under a temporary name, rename last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its name once the block has ended well.

    Parameters
    ----------
    path : Path
        The file to be written; its folder is made.

    Yields
    ------
    Path
        Where to write. Whatever goes wrong in the block, ``path`` keeps its former content.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> target = Path(mkdtemp()) / "a.txt"
    >>> with whole_file(target) as temporary:
    ...     _ = temporary.write_text("all of it")
    >>> target.read_text()
    'all of it'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> empty = Path(mkdtemp()) / "empty"
    >>> _ = empty.write_bytes(b"")
    >>> sha256_of_file(empty)[:8]
    'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object to a JSON file, whole."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def write_table(
    path: Path,
    columns: Mapping[str, Any],
    *,
    footer: Mapping[str, Any] | None = None,
    split: Iterable[str] = (),
) -> None:
    """Write columns to a Parquet file, whole; the same columns give the same bytes.

    Parameters
    ----------
    path : Path
        The file.
    columns : mapping
        Name -> array.
    footer : mapping, optional
        Kept as JSON in the file's metadata under ``lmmap``.
    split : iterable of str
        Float columns to be written byte stream by byte stream, which packs them tighter.
    """
    table = pa.table(dict(columns))
    if footer is not None:
        table = table.replace_schema_metadata({"lmmap": json.dumps(footer, sort_keys=True)})
    encodings = dict.fromkeys(split, "BYTE_STREAM_SPLIT")
    with whole_file(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", use_dictionary=False, column_encoding=encodings or None
        )


def ragged(arrays: Sequence[np.ndarray]) -> pa.ListArray:
    """Put arrays of different lengths into one column of lists.

    Examples
    --------
    >>> ragged([np.array([1, 2]), np.array([3])]).to_pylist()
    [[1, 2], [3]]
    """
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(arrays)))


def unragged(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Take a column of lists apart again.

    Examples
    --------
    >>> unragged(pa.chunked_array([ragged([np.array([1, 2]), np.array([3])])]))
    [array([1, 2]), array([3])]
    """
    lists = column.combine_chunks()
    values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    return np.split(values[offsets[0] : offsets[-1]], offsets[1:-1] - offsets[0])
