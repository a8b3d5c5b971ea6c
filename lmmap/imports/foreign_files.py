"""Files of strangers: there, no larger than is read, of a kind told by their first bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmmap.errors import InputError, closest

MAX_BYTES = 2**31
MAX_JSON = 2**27  # Python's objects take up to twenty times the bytes that they are written in
MOST_VALUES = 2**28  # log-likelihoods of one file, 2 GiB: 16,384 models x 16,384 texts
READ_AS = {b"PK\x03\x04": ".npz", b"PAR1": ".parquet", b"\x80": ".pkl"}
NOT_READ = {
    b"\x1f\x8b": "it is compressed with gzip; unpack it first",
    b"BZh": "it is compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "it is compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd; unpack it first",
    b"\x93NUMPY": "it is a single array without names; save `values`, `models` and `texts` with numpy.savez",
    b"version https://git-lfs": "it is a pointer of Git LFS, not the file; fetch that with `git lfs pull`",
    b"<!": "it is a web page, not the file itself; download the file",
    b"<html": "it is a web page, not the file itself; download the file",
}


def existing_file(path: str | Path, max_bytes: int = MAX_BYTES) -> Path:
    """Give the path of a file that can be read whole.

    Parameters
    ----------
    path : str or Path
        The file.
    max_bytes : int
        Larger files are refused.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If it is missing (the nearest name is told), a folder, empty or too large.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file in it")
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"no such file: {path}{closest(path.name, siblings)}")
    size = path.stat().st_size
    if not size:
        raise InputError(f"{path}: the file is empty")
    if size > max_bytes:
        raise InputError(f"{path}: {size:,} bytes, more than the {max_bytes:,} that are read")
    return path


def kind_of(path: Path) -> str:
    """Tell what a file is: ``.npz``, ``.parquet`` or ``.pkl`` by its first bytes, otherwise its suffix.

    Raises
    ------
    InputError
        If it is compressed, or no file of data at all.
    """
    with path.open("rb") as file:
        head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    for first, why in NOT_READ.items():
        if head.startswith(first):
            raise InputError(f"{path}: {why}")
    return next((kind for first, kind in READ_AS.items() if head.startswith(first)), path.suffix)


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read a JSON file, each key of an object given once."""
    path = existing_file(path, MAX_JSON)
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401
    """Parse JSON; a ValueError says which key is given twice.

    Examples
    --------
    >>> parse_json('{"a": 1}')
    {'a': 1}
    """
    return json.loads(text, object_pairs_hook=_once)


def shown(names: Iterable[object], most: int = 12) -> str:
    """Write the first names for a message.

    Examples
    --------
    >>> shown("abcd", most=2)
    'a, b, ...'
    """
    parts: list[str] = []
    for name in names:
        if len(parts) == most:
            return ", ".join([*parts, "..."])
        parts.append(str(name)[:80])
    return ", ".join(parts) or "none"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:80]!r} is given more than once")
        found[key] = value
    return found
