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
        If a text is empty or cannot be written as UTF-8, or if ids repeat.

    Examples
    --------
    >>> texts = text_set(["one text", "naïve"], sources=["a", "b"])
    >>> texts.frame["n_bytes"].tolist()
    [8, 6]
    """

    frame: pd.DataFrame
    name: str = "texts"

    def __post_init__(self) -> None:
        if not len(self.frame):
            raise InputError(f"{self.name}: no texts at all; give at least one")
        repeated = self.frame.index[self.frame.index.duplicated()]
        if len(repeated):
            raise InputError(f"{self.name}: text id {repeated[0]!r} is given to more than one text")

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
            If an id is not in the set.

        Examples
        --------
        >>> text_set(["a", "b"]).select([True, False]).texts
        ['a']
        """
        keys = np.asarray(wanted)
        if keys.dtype == bool:
            return TextSet(self.frame.loc[keys], self.name)
        for key in keys:
            if key not in self.frame.index:
                raise InputError(
                    f"text id {key!r} is not among the {len(self)} here{closest(key, self.frame.index)}"
                )
        return TextSet(self.frame.loc[list(keys)], self.name)

    def write(self, path: str | Path) -> None:
        """Write the set to a Parquet file that `read_texts` reads back.

        Parameters
        ----------
        path : str or Path
            The file; replaced whole.
        """
        table = pa.Table.from_pandas(self.frame.reset_index(), preserve_index=False).replace_schema_metadata()
        with whole_file(Path(path)) as temporary:
            pq.write_table(table, temporary, compression="zstd")


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
        If a text is empty, is no string, or holds lone surrogates.

    Examples
    --------
    >>> text_set(["a", "a"]).frame.index.tolist()
    ['ca978112ca1b', 'ca978112ca1b-2']
    """
    text_list = list(texts)
    source_list = [sources] * len(text_list) if isinstance(sources, str) else list(sources)
    n_bytes = [text_bytes(text, f"{name}, text {i + 1}") for i, text in enumerate(text_list)]
    ids = list(_content_ids(text_list)) if text_ids is None else [str(i) for i in text_ids]
    frame = pd.DataFrame(
        {"text": text_list, "source": source_list, "n_bytes": n_bytes, **(columns or {})},
        index=pd.Index(ids, name="text_id"),
    )
    return TextSet(frame, name)


def _content_ids(texts: Iterable[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for text in texts:
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        yield digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


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
