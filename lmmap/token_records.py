"""Token records: what a score set keeps of every token, cut at the bytes where all models have a boundary."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmmap.errors import InputError
from lmmap.segments import Segments
from lmmap.store import Store

Array = np.ndarray
UNKNOWN = -1  # byte end of a token that ends where nobody can tell


@dataclass(frozen=True)
class Cut:
    """How one tokenizer cuts the texts, as far as its tokens are scored.

    Parameters
    ----------
    n_tokens : (N,) int array
        Tokens of each text.
    last_byte : (T,) int array
        Place of the last byte of every token among the bytes of all texts; -1 where it is not known. The last
        token of a text has the last byte that is read of it.
    """

    n_tokens: Array
    last_byte: Array


def read_segments(store: Store, *, models: Sequence[str] | None = None) -> Segments:
    """Read what the token records of a score set say about models of any mix of tokenizers.

    A segment ends at a byte where every model has a token boundary, and holds every model's tokens up to
    there; where all models cut the texts alike, segments are tokens. Tokens that end at one byte stay
    together, and one whose end is unknown goes with the next. Fewer models may have more boundaries in
    common: what is estimated for a pair depends on the company it is in.

    Parameters
    ----------
    store : Store
        A score set with token records.
    models : sequence of str, optional
        Row ids or names; all finished rows by default.

    Returns
    -------
    Segments
        Read from the files block by block, when it is asked for.

    Raises
    ------
    InputError
        If a model is unknown, rows were scored without keeping tokens (they are named), or a text is read to
        its end by some models and cut short for others.
    """
    scores = store.load().select(models=models)
    rows = [str(row) for row in scores.models.index]
    missing = [row for row in rows if not _file(store, "tokens", row).exists()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(rows)} rows were scored without keeping tokens: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}; score them again without --no-tokens, or use text level"
        )
    n_bytes = scores.texts["n_bytes"].to_numpy()
    cuts, cut_of_row = _cuts(store, rows, list(scores.models["tokenization"]), n_bytes)
    unit: Literal["token", "segment"] = "segment"
    text, starts = common_segments(cuts, n_bytes)
    if len(cuts) == 1:
        unit, n_tokens = "token", cuts[0].n_tokens
        text, starts = np.repeat(np.arange(len(n_tokens)), n_tokens), [np.arange(n_tokens.sum())]

    last_byte = np.maximum.accumulate(cuts[0].last_byte)[np.append(starts[0][1:], len(cuts[0].last_byte)) - 1]
    end_byte = last_byte + 1 - (np.cumsum(n_bytes) - n_bytes)[text]

    def read(start: int, stop: int) -> Array:
        texts = range(text[start], text[stop - 1] + 1)
        block = np.empty((len(rows), stop - start))

        def fill(i: int) -> None:
            cut, first_token = cuts[cut_of_row[i]], starts[cut_of_row[i]][start:stop]
            tokens = _log_probs(store, rows[i], texts)
            if len(tokens) != cut.n_tokens[texts].sum():
                raise InputError(f"{rows[i]}: its tokens and its scores disagree; score the model again")
            np.add.reduceat(tokens.astype(np.float64), first_token - first_token[0], out=block[i])

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(rows))))
        return block

    return Segments(unit, tuple(rows), scores.values, n_bytes, text, read, end_byte=end_byte)


def common_segments(cuts: Sequence[Cut], n_bytes: Array) -> tuple[Array, list[Array]]:
    """Find the bytes where all tokenizers have a boundary.

    Parameters
    ----------
    cuts : sequence of Cut
        Tokens of the same texts under each tokenizer.
    n_bytes : (N,) int array
        Length of each text.

    Returns
    -------
    text_of_segment : (S,) int array
        Number of the text of each segment.
    starts : list of (S,) int arrays
        For each tokenizer the number of the first token of each segment.

    Raises
    ------
    InputError
        If a text's last token does not end at the same byte for all, or byte ends go down.

    Examples
    --------
    Six bytes, cut after 1, 3, 6 and after 2, 3, 4, 6:

    >>> cuts = [Cut(np.array([3]), np.array([0, 2, 5])), Cut(np.array([4]), np.array([1, 2, 3, 5]))]
    >>> common_segments(cuts, np.array([6]))
    (array([0, 0]), [array([0, 2], dtype=int32), array([0, 2], dtype=int32)])
    """
    common = np.ones(int(n_bytes.sum()), dtype=bool)
    for cut in cuts:
        ends = np.zeros_like(common)
        ends[cut.last_byte[cut.last_byte != UNKNOWN]] = True
        common &= ends
    _check_same_ends(cuts)
    number = np.cumsum(common) - common
    text_of_byte = np.repeat(np.arange(len(n_bytes)), n_bytes)
    return text_of_byte[common], [_starts(cut, number) for cut in cuts]


def _cuts(
    store: Store, rows: Sequence[str], tokenizations: Sequence[str], n_bytes: Array
) -> tuple[list[Cut], list[int]]:
    """Read the distinct cuts of the texts, and which of them each row has."""
    numbers: dict[tuple[str, bytes], int] = {}
    cuts: list[Cut] = []
    cut_of_row = []
    for row, name in zip(rows, tokenizations, strict=True):
        table = pq.read_table(_file(store, "scores", row), columns=["n_tokens"])
        n_tokens = table["n_tokens"].to_numpy().astype(np.int64)
        key = (name, n_tokens.tobytes())
        if key not in numbers:
            numbers[key] = len(cuts)
            cuts.append(_cut(store, row, n_tokens, n_bytes))
        cut_of_row.append(numbers[key])
    return cuts, cut_of_row


def _cut(store: Store, row: str, n_tokens: Array, n_bytes: Array) -> Cut:
    """Read where the scored tokens of a row end."""
    if not n_tokens.all():
        raise InputError(f"{row} has no scored token in text {np.argmin(n_tokens) + 1}; leave the text out")
    ids, byte_end = store.tokenization(row)
    n_ids = np.array([len(of_text) for of_text in ids])
    skipped = int(store.scoring["prefix"] == "reference")  # the published procedure leaves out the first
    text = np.repeat(np.arange(len(n_ids)), n_ids)
    place = np.arange(len(text)) - np.repeat(np.cumsum(n_ids) - n_ids, n_ids) - skipped
    scored = (place >= 0) & (place < n_tokens[text])
    ends = np.concatenate(byte_end).astype(np.int64)[scored]
    last = np.cumsum(n_tokens) - 1
    whole = skipped + n_tokens == n_ids
    ends[last[whole]] = n_bytes[whole]
    if (ends[last] <= 0).any():
        x = int(np.argmax(ends[last] <= 0))
        raise InputError(f"{row} cuts text {x + 1} short, at a byte that is not known; leave the text out")
    first_byte = np.cumsum(n_bytes) - n_bytes
    return Cut(n_tokens, np.where(ends > 0, first_byte[text[scored]] + ends - 1, UNKNOWN))


def _check_same_ends(cuts: Sequence[Cut]) -> None:
    ends = [cut.last_byte[np.cumsum(cut.n_tokens) - 1] for cut in cuts]
    for other in ends[1:]:
        if (differing := np.flatnonzero(other != ends[0])).size:
            raise InputError(
                f"text {differing[0] + 1} and {differing.size - 1} others are cut short, not all at the same "
                "byte by all models: leave them out, or score with long_texts='window'"
            )


def _starts(cut: Cut, segment_of_byte: Array) -> Array:
    """Give the first token of each segment; a token whose end is unknown goes with the next."""
    known = cut.last_byte != UNKNOWN
    if (np.diff(cut.last_byte[known]) < 0).any():
        raise InputError("byte ends go down inside a text; score the texts again")
    last_byte = np.where(known, cut.last_byte, len(segment_of_byte))
    segment = segment_of_byte[np.minimum.accumulate(last_byte[::-1])[::-1]]
    return np.flatnonzero(np.diff(segment, prepend=-1)).astype(np.int32)


def _log_probs(store: Store, row: str, texts: range) -> Array:
    """Read the token log-probabilities of some texts, one after the other."""
    file = pq.ParquetFile(_file(store, "tokens", row))
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    first, last = np.searchsorted(ends, [texts[0], texts[-1]], side="right")
    table = file.read_row_groups(list(range(first, last + 1)), use_threads=False)
    lists: pa.ListArray = table["log_probs"].combine_chunks()
    values: Array = lists.slice(texts[0] - (ends - sizes)[first], len(texts)).flatten().to_numpy()
    return values


def _file(store: Store, folder: str, row: str) -> Path:
    return store.path / folder / f"{row}.parquet"
