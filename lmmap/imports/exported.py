"""Scores as `lmmap.export` writes them: npz and Parquet, their sizes checked before anything is unpacked."""

from __future__ import annotations

import lzma
import math
import mmap
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmap.errors import InputError
from lmmap.imports.foreign_files import MAX_BYTES, MAX_JSON, MOST_VALUES, existing_file, parse_json, shown
from lmmap.imports.found import Found, log_likelihoods
from lmmap.imports.model_tables import LONGEST, single_value
from lmmap.imports.pickled_arrays import Refused, array_of

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ARRAYS = ("values", "models", "texts", "fingerprint", "attributes")
MOST_FILES = 1000  # in an npz
ENTRY = b"PK\x01\x02"  # begins what a zip file says of each file in it
HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[A-Za-z?]\d{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(([\d, ]{0,99})\), *\}\s*"
)
PLAIN = re.compile(r"[<>|=]?(?:[iu][1248]|f[248]|U\d+)")
ROWS_AT_ONCE = 16  # of Parquet, in which a few bytes may stand for many rows


def read_npz(path: str | Path) -> Found:
    """Read scores from npz: ``values`` (K, N), ``models`` (K names), and if wanted ``texts`` (N ids).

    What `lmmap.export.export_scores` writes has these and ``fingerprint`` and ``attributes`` (JSON) besides;
    other arrays are not looked at.

    Raises
    ------
    InputError
        If the file is no npz, an array is missing, holds objects, or takes more than is read: its size is
        told before it is unpacked.
    """
    path = existing_file(path)
    held = _arrays(path)
    missing = [name for name in ("values", "models") if name not in held]
    if missing:
        raise InputError(f"{path}: no array {missing[0]!r}; it has {shown(held)}")
    values, models = held["values"], _labels(held["models"], f"{path}, models")
    if values.ndim != 2 or len(values) != len(models):
        raise InputError(f"{path}: values have shape {values.shape}, there are {len(models)} models")
    footer = {key: str(held[key]) for key in ("fingerprint",) if key in held}
    if "texts" in held:
        footer["texts"] = _labels(held["texts"], f"{path}, texts")  # type: ignore[assignment]
    attributes = _json(str(held["attributes"]), path) if "attributes" in held else {}
    return _labelled("npz", models, list(values), footer, attributes, path)


def read_exported_parquet(path: str | Path) -> Found:
    """Read scores from the Parquet file of `lmmap.export.export_scores`: a row for each model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = existing_file(path)
    try:
        with pq.ParquetFile(path) as file:
            footer = _json((file.schema_arrow.metadata or {}).get(b"lmmap", b"{}"), path)
            columns = _checked_columns(file, footer, path)
            models, rows, attributes, taken = [], [], {}, 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                entries = _entries(batch.drop_columns(["log_likelihood"]), path)
                taken += sum(
                    len(value) for entry in entries for value in entry.values() if type(value) is str
                )
                if taken > MAX_JSON:  # however few bytes of the file say them
                    raise InputError(
                        f"{path}: more than the {MAX_JSON:,} characters of attributes that are read"
                    )
                for entry, row in zip(
                    entries, batch["log_likelihood"].to_numpy(zero_copy_only=False), strict=True
                ):
                    models.append(entry.pop("model"))
                    rows.append(row)
                    attributes[models[-1]] = entry
                if sum(map(np.size, rows[-ROWS_AT_ONCE:])) * len(rows) > MOST_VALUES * ROWS_AT_ONCE:
                    raise InputError(f"{path}: more than the {MOST_VALUES:,} values that are read")
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None
    return _labelled("Parquet", models, rows, footer, attributes, path)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Unpack the arrays that are wanted; nothing of any other size than the file says."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = -1
            for _ in range(MOST_FILES + 1):
                place = content.find(ENTRY, place + 1)
                if place < 0:
                    break
            else:
                raise InputError(f"{path}: more than {MOST_FILES:,} arrays; save those that are wanted")
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            return {
                name: _array(archive, name, path) for name in ARRAYS if f"{name}.npy" in there
            } or dict.fromkeys(there, np.zeros(0))
    except InputError:
        raise
    except (
        ValueError, TypeError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError
    ) as error:  # fmt: skip
        raise InputError(f"{path}: cannot be read as npz ({error})") from None


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    most = MAX_BYTES if name == "values" else MAX_JSON
    if info.file_size > most:
        raise InputError(
            f"{path}: array {name!r} takes {info.file_size:,} bytes unpacked, more than the {most:,} that "
            "are read"
        )
    with archive.open(info) as member:
        start = member.read(10)
        header = member.read(int.from_bytes(start[8:], "little"))
        found = HEADER.fullmatch(header)
        if start[:8] != b"\x93NUMPY\x01\x00" or found is None or not PLAIN.fullmatch(found[1].decode()):
            kind = f" but {header[:60]!r}" if start[:6] == b"\x93NUMPY" else ""
            raise InputError(f"{path}: array {name!r} is no plain array of numbers or texts{kind}")
        shape = tuple(int(n) for n in found[3].split(b",") if n.strip())
        content = info.file_size - len(start) - len(header)
        if math.prod(shape) * np.dtype(found[1].decode()).itemsize != content:
            raise InputError(
                f"{path}: array {name!r} has {content:,} bytes, which its shape {shape} does not take"
            )
        try:
            return array_of(
                np.dtype(found[1].decode()), shape, member.read(), "F" if found[2] == b"True" else "C"
            )
        except Refused as why:
            raise InputError(f"{path}, array {name!r}: {why}") from None


def _checked_columns(file: pq.ParquetFile, footer: Mapping[str, Any], path: Path) -> list[str]:
    """Refuse what is no exported scores, or takes more than is read; give the columns of single values."""
    import pyarrow as pa

    schema, metadata = file.schema_arrow, file.metadata
    if not {"model", "log_likelihood"} <= set(schema.names) or "texts" not in footer:
        raise InputError(f"{path}: no exported scores; it has {shown(schema.names)}")
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{path}: two columns have one name; rename one")
    values = others = 0
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if chunk.path_in_schema.split(".")[0] == "log_likelihood":
                values += chunk.num_values
            else:
                others += max(chunk.total_uncompressed_size, chunk.num_values)
    for size, most, what in ((values, MOST_VALUES, "values"), (others, MAX_JSON, "bytes of attributes")):
        if size > most:
            raise InputError(f"{path}: {size:,} {what}, more than the {most:,} that are read")
    single = [field.name for field in schema if not pa.types.is_nested(field.type)]
    return [*{"model": None, **dict.fromkeys(single), "log_likelihood": None}]


def _entries(batch: Any, path: Path) -> list[dict[str, Any]]:  # noqa: ANN401 - of pyarrow
    """Give rows as dicts; a text that is too long for an attribute is refused before it is multiplied."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.nbytes > 4 * LONGEST * len(column):
            raise InputError(
                f"{path}: column {name!r} has texts longer than {LONGEST:,} characters; leave it out"
            )
    return [
        {key: single_value(value, f"{path}: {key!r}") for key, value in entry.items()}
        for entry in batch.to_pylist()
    ]


def _labels(names: np.ndarray, where: str) -> list[str]:
    if names.dtype.kind not in "Uiu" or names.ndim != 1:
        raise InputError(f"{where}: expected a list of names, got {names.dtype} of shape {names.shape}")
    return [str(name) for name in names]


def _json(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its attributes are not JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: its attributes are a {type(content).__name__}, expected an object")
    return content


def _labelled(
    form: str,
    models: Sequence[Any],
    rows: Sequence[Any],
    footer: Mapping[str, Any],
    attributes: Mapping[Any, Any],
    path: Path,
) -> Found:
    """Hold what an exported file says of texts and models against its values."""
    ids, fingerprint = footer.get("texts"), footer.get("fingerprint")
    if ids is not None and not (isinstance(ids, list) and all(isinstance(text, str) for text in ids)):
        raise InputError(f"{path}: `texts` is no list of ids")
    if not isinstance(fingerprint, str | None):
        raise InputError(f"{path}: `fingerprint` is a {type(fingerprint).__name__}, expected a text")
    values = log_likelihoods(models, rows, str(path), texts=ids)
    if ids is not None and len(ids) != values.shape[1]:
        raise InputError(f"{path}: {values.shape[1]} values for each model, but {len(ids)} texts are named")
    if len(set(ids or ())) < len(ids or ()):
        raise InputError(f"{path}: two texts have one id")
    checked: dict[str, dict[str, Any]] = {}
    for name in models:
        entry = attributes.get(name, {})
        if not isinstance(entry, Mapping):
            raise InputError(
                f"{path}: the attributes of {name!r} are a {type(entry).__name__}, expected an object"
            )
        checked[name] = {
            str(key): single_value(value, f"{path}, model {name!r}: attribute {key!r}")
            for key, value in entry.items()
        }
    return Found(form, tuple(models), values, checked, None if ids is None else tuple(ids), fingerprint)
