"""Parquet tables: the same columns give the same bytes; ragged columns hold a list for each text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmmap.files import whole_file


def write_table(
    path: Path,
    columns: Mapping[str, Any],
    *,
    footer: Mapping[str, Any] | None = None,
    split: Iterable[str] = (),
    group: int | None = None,
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
    group : int, optional
        Rows that can be read without the others.
    """
    table = pa.table(dict(columns))
    if footer is not None:
        table = table.replace_schema_metadata({"lmmap": json.dumps(footer, sort_keys=True)})
    encodings = dict.fromkeys(split, "BYTE_STREAM_SPLIT")
    with whole_file(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=False,
            column_encoding=encodings or None,
            row_group_size=group,
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
