"""Text sets: what every model is asked to score."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lmmap.errors import InputError, closest
from lmmap.files import whole_file


@dataclass(frozen=True, eq=False, repr=False)
class TextSet:
    """N texts in a fixed order, each with an id, a source and its length in bytes.

    Parameters
    ----------
    frame : DataFrame
        Index ``text_id`` (unique); columns ``text``, ``source``, ``n_bytes`` (UTF-8) and any others.
    name : str
        What the set is called in messages and tables.

    Raises
    ------
    InputError
        If a column is missing, a text is empty or cannot be written as UTF-8, a length is wrong, or ids
        repeat or are no strings.

    Examples
    --------
    >>> texts = text_set(["one text", "naïve"], sources=["a", "b"])
    >>> texts.frame["n_bytes"].tolist()
    [8, 6]
    """

    frame: pd.DataFrame
    name: str = "texts"

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", self.frame.rename_axis("text_id"))
        missing = [column for column in ("text", "source", "n_bytes") if column not in self.frame]
        if missing:
            raise InputError(f"{self.name}: no column {missing[0]!r}; `text_set` makes a set from strings")
        if not len(self.frame):
            raise InputError(f"{self.name}: no texts at all; give at least one")
        repeated = self.frame.index[self.frame.index.duplicated()]
        if len(repeated):
            raise InputError(f"{self.name}: text id {repeated[0]!r} is given to more than one text")
        for text_id, text, n_bytes in self.frame[["text", "n_bytes"]].itertuples():
            if not isinstance(text_id, str):
                raise InputError(f"{self.name}: text ids must be strings, got {text_id!r}")
            where = f"{self.name}, text {text_id}"
            if (counted := text_bytes(text, where)) != n_bytes:
                raise InputError(f"{where}: n_bytes is {n_bytes}, the text has {counted}")

    @property
    def texts(self) -> list[str]:
        """The N texts, in order."""
        return self.frame["text"].tolist()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the texts in order: two sets with one fingerprint ask for the same scores."""
        digest = hashlib.sha256()
        for text in self.frame["text"]:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()

    @property
    def n_duplicates(self) -> int:
        """How many texts repeat one before them."""
        return int(self.frame["text"].duplicated().sum())

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        sources = self.frame["source"].value_counts()
        shown = ", ".join(f"{source or '-'} ({n})" for source, n in sources.head(8).items())
        rest = f" and {len(sources) - 8} more sources" if len(sources) > 8 else ""
        repeats = f", {self.n_duplicates} duplicates" if self.n_duplicates else ""
        return (
            f"TextSet {self.name!r}: {len(self)} texts, {self.frame['n_bytes'].sum():,} bytes{repeats}, "
            f"fingerprint {self.fingerprint[:12]}\n  {shown}{rest}"
        )

    def select(self, wanted: Sequence[str] | np.ndarray) -> TextSet:
        """Keep some texts.

        Parameters
        ----------
        wanted : sequence of str, or (N,) bool array
            Text ids in the order wanted, or a mask.

        Returns
        -------
        TextSet
            A new set.

        Raises
        ------
        InputError
            If an id is not in the set, or a mask has another length.

        Examples
        --------
        >>> text_set(["a", "b"]).select([True, False]).texts
        ['a']
        """
        keys = np.atleast_1d(np.asarray(wanted))
        if keys.dtype == bool:
            if keys.shape != (len(self),):
                raise InputError(f"the mask has shape {keys.shape}, there are {len(self)} texts")
            return TextSet(self.frame.loc[keys], self.name)
        text_ids = [str(key) for key in keys]
        for text_id in text_ids:
            if text_id not in self.frame.index:
                raise InputError(
                    f"text id {text_id!r} is not among the {len(self)} here"
                    f"{closest(text_id, self.frame.index)}"
                )
        return TextSet(self.frame.loc[text_ids], self.name)

    def write(self, path: str | Path) -> None:
        """Write the set to a Parquet file that `read_texts` reads back.

        Parameters
        ----------
        path : str or Path
            The file, ending in ``.parquet``; replaced whole.

        Raises
        ------
        InputError
            If the name ends otherwise, or a column holds values of several types.
        """
        path = Path(path)
        if path.suffix != ".parquet":
            raise InputError(f"{path}: text sets are written as .parquet, not {path.suffix!r}")
        try:
            table = pa.Table.from_pandas(self.frame.reset_index(), preserve_index=False)
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(
                f"{self.name}: a column cannot be written ({error}); mend or remove it"
            ) from None
        with whole_file(path) as temporary:
            pq.write_table(table.replace_schema_metadata(), temporary, compression="zstd")


def text_set(
    texts: Iterable[str],
    sources: Iterable[str] | str = "",
    *,
    name: str = "texts",
    text_ids: Iterable[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> TextSet:
    """Make a text set from strings.

    Parameters
    ----------
    texts : iterable of str
        The N texts.
    sources : iterable of str, or str
        Where each comes from, or one name for all.
    name : str
        What the set is called.
    text_ids : iterable of str, optional
        Ids of your own; by default the first 12 hex digits of the text's SHA-256, so that the same text
        has the same id in every set; the second copy of a text ends in ``-2``.
    columns : mapping, optional
        Further columns of N values.

    Returns
    -------
    TextSet
        The set, in the given order.

    Raises
    ------
    InputError
        If a text is empty, is no string, or holds lone surrogates, an id is missing, or lengths disagree.

    Examples
    --------
    >>> text_set(["a", "a"]).frame.index.tolist()
    ['ca978112ca1b', 'ca978112ca1b-2']
    """
    if isinstance(texts, str):
        raise InputError(f"{name}: expected a list of texts, got one string; write [text]")
    text_list = list(texts)
    source_list = [sources] * len(text_list) if isinstance(sources, str) else list(sources)
    for i, source in enumerate(source_list, start=1):
        valid_text(source, f"{name}, source of text {i}")
    n_bytes = [text_bytes(text, f"{name}, text {i + 1}") for i, text in enumerate(text_list)]
    ids = list(_content_ids(text_list) if text_ids is None else _own_ids(text_ids, name))
    columns = columns or {}
    for what, given in {"sources": source_list, "text_ids": ids, **columns}.items():
        if len(given) != len(text_list):
            raise InputError(f"{name}: {len(text_list)} texts, but {len(given)} values for {what}")
    frame = pd.DataFrame(
        {"text": text_list, "source": source_list, "n_bytes": n_bytes, **columns},
        index=pd.Index(ids),
    )
    return TextSet(frame, name)


def _content_ids(texts: Iterable[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for text in texts:
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        yield digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _own_ids(text_ids: Iterable[object], name: str) -> Iterator[str]:
    for i, text_id in enumerate(text_ids, start=1):
        if pd.isna(text_id) or text_id == "":  # type: ignore[call-overload]
            raise InputError(f"{name}, text {i}: no text_id; give one to every text or to none")
        yield valid_text(str(text_id), f"{name}, id of text {i}")


def valid_text(text: object, where: str) -> str:
    """Return the text if it is one that can be written as UTF-8; otherwise say where it is not."""
    if not isinstance(text, str):
        raise InputError(f"{where}: expected a text, got {type(text).__name__} {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: not valid UTF-8, character {error.start} is the lone surrogate {text[error.start]!a}; "
            "mend or remove the text"
        ) from None
    return text


def text_bytes(text: object, where: str) -> int:
    """Count a text's UTF-8 bytes; an empty text is an error."""
    checked = valid_text(text, where)
    if not checked:
        raise InputError(f"{where}: the text is empty; remove it")
    return len(checked.encode())
