"""From texts to the sequences a model reads: ids, which of them count, and where each ends in bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.scoring.prefix import Prefix

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class Tokenized:
    """N texts cut into tokens, without any prefix.

    Parameters
    ----------
    ids : list of N int32 arrays
        Token ids.
    byte_end : list of N int32 arrays
        Where each token ends in the text's UTF-8 bytes; -1 where the tokenizer cannot tell.
    special_hits : (N,) int array
        How many ids are special or added tokens, though the texts are plain.
    lossy : float
        Share of texts that do not decode to themselves.
    """

    ids: list[np.ndarray]
    byte_end: list[np.ndarray]
    special_hits: np.ndarray
    lossy: float

    @property
    def hash(self) -> str:
        """16 hex digits over all ids: models with one hash cut these texts alike."""
        digest = hashlib.sha256()
        for ids in self.ids:
            digest.update(len(ids).to_bytes(8, "little") + ids.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Encoded:
    """One sequence for the model: a whole text, or a window of a long one.

    Parameters
    ----------
    text : int
        Number of the text.
    ids : (n + 1,) int64 array
        The prefix and n tokens.
    scored : (n + 1,) bool array
        Which tokens count; never the first.
    """

    text: int
    ids: np.ndarray
    scored: np.ndarray


def tokenize(tokenizer: Any, texts: Sequence[str], *, special_tokens: bool = False) -> Tokenized:  # noqa: ANN401
    """Cut texts into tokens; strings that look special are text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A transformers tokenizer.
    texts : sequence of str
        N texts.
    special_tokens : bool
        Let the tokenizer add its own and read special strings as such: the published procedure.

    Returns
    -------
    Tokenized
        Ids, byte positions and what to be warned about.

    Raises
    ------
    InputError
        If a text has no tokens.
    """
    rows = _call(tokenizer, texts, special_tokens)
    ids = [np.asarray(row, dtype=np.int32) for row in rows["input_ids"]]
    empty = next((i for i, row in enumerate(ids) if not len(row)), None)
    if empty is not None:
        raise InputError(
            f"text {empty + 1} ({texts[empty][:40]!r}) has no tokens for this tokenizer; remove it"
        )
    offsets = rows.get("offset_mapping") or [None] * len(ids)
    special = np.array(sorted({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}), dtype=np.int32)
    decoded = [
        tokenizer.decode(row.tolist(), skip_special_tokens=special_tokens, clean_up_tokenization_spaces=False)
        for row in ids
    ]
    return Tokenized(
        ids=ids,
        byte_end=[
            _byte_end(tokenizer.convert_ids_to_tokens(row.tolist()), spans, text)
            for row, spans, text in zip(ids, offsets, texts, strict=True)
        ],
        special_hits=np.array([np.isin(row, special).sum() for row in ids]),
        lossy=float(np.mean([out != text for out, text in zip(decoded, texts, strict=True)])),
    )


def encode(
    tokenized: Tokenized, prefix: Prefix | None, *, context: int | None = None, long_texts: str = "window"
) -> list[Encoded]:
    """Lay tokenised texts out as sequences that fit a model's context.

    A context of C positions reads the prefix and C - 1 tokens and so scores C. A longer text is read in
    windows that start C // 2 tokens apart, each with the prefix in front; every token is scored once, in
    the first window that holds it, with at least half a context to its left.

    Parameters
    ----------
    tokenized : Tokenized
        The texts.
    prefix : Prefix, optional
        Put in front of every sequence. Without it a text's own first token is the one that is not scored.
    context : int, optional
        Positions that the model has; None if it has no bound.
    long_texts : {'window', 'truncate', 'error'}
        What is done with a text of more than C tokens.

    Returns
    -------
    list of Encoded
        In the order of the texts, windows in the order of their tokens.

    Raises
    ------
    InputError
        If a text is too long under ``error``, or the context is below 2.

    Examples
    --------
    >>> text = Tokenized([np.arange(5, dtype=np.int32)], [np.arange(5)], np.zeros(1), 0.0)
    >>> for e in encode(text, Prefix("<s>", 9, "given"), context=3):
    ...     print(e.ids, e.scored.astype(int))
    [9 0 1 2] [0 1 1 1]
    [9 1 2 3] [0 0 0 1]
    [9 2 3 4] [0 0 0 1]
    """
    if context is not None and context < 2:
        raise InputError(f"a context of {context} positions cannot hold a prefix and a token")
    if prefix is None:
        return [
            Encoded(i, ids[:context].astype(np.int64), _counts(len(ids[:context])))
            for i, ids in enumerate(tokenized.ids)
        ]
    sequences = []
    for i, ids in enumerate(tokenized.ids):
        n = len(ids)
        if context is None or n <= context:
            starts, size = [0], n
        elif long_texts == "window":
            starts, size = _window_starts(n, context), context
        elif long_texts == "truncate":
            starts, size = [0], context
        else:
            raise InputError(f"text {i + 1} has {n} tokens, the model's context holds {context}")
        end = 0
        for start in starts:
            piece = ids[start : start + size]
            scored = _counts(len(piece) + 1)
            scored[1 : 1 + end - start] = False
            sequences.append(Encoded(i, np.concatenate([[prefix.id], piece]).astype(np.int64), scored))
            end = start + len(piece)
    return sequences


def _window_starts(n: int, context: int) -> list[int]:
    stride = context // 2
    count = -(-(n - context) // stride) + 1
    return [stride * i for i in range(count)]


def _counts(length: int) -> np.ndarray:
    scored = np.ones(length, dtype=bool)
    scored[0] = False
    return scored


def _call(tokenizer: Any, texts: Sequence[str], special_tokens: bool) -> Any:  # noqa: ANN401
    options: dict[str, Any] = {
        "return_attention_mask": False,
        "return_token_type_ids": False,
        "verbose": False,
    }
    options |= {"return_offsets_mapping": bool(tokenizer.is_fast), "add_special_tokens": special_tokens}
    if special_tokens:
        return tokenizer(list(texts), **options)
    try:
        return tokenizer(list(texts), split_special_tokens=True, **options)
    except (TypeError, ValueError, NotImplementedError):  # some back ends refuse it; special_hits counts
        return tokenizer(list(texts), **options)


def _byte_end(tokens: Sequence[str], spans: Sequence[tuple[int, int]] | None, text: str) -> np.ndarray:
    """Find where each token ends in bytes, also where a character is split over tokens."""
    encoded = text.encode()
    byte_level = _byte_alphabet()
    if all(char in byte_level for token in tokens for char in token):
        written = bytes(byte_level[char] for token in tokens for char in token)
        if written == encoded:
            return np.cumsum([len(token) for token in tokens], dtype=np.int32)
    if spans is None:
        return np.full(len(tokens), -1, dtype=np.int32)
    at = np.cumsum([0, *(len(char.encode()) for char in text)], dtype=np.int32)
    ends = at[[end for _, end in spans]]
    for i in range(len(tokens) - 1, 0, -1):  # the bytes of one character share its span
        if spans[i] == spans[i - 1] and BYTE_TOKEN.fullmatch(tokens[i]):
            ends[i - 1] = ends[i] - 1
    return np.maximum.accumulate(ends).astype(np.int32)


def _byte_alphabet() -> dict[str, int]:
    """Read GPT-2's printable alphabet of the 256 bytes, character -> byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
