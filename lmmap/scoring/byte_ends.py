"""Byte ends: where each token ends in its text; what cannot be told is never guessed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
LONGEST_CHARACTER = 8  # tokens that may share one character
TEXTS_AT_ONCE = 256

Spans = Sequence[tuple[int, int]]


def token_bytes(tokenizer: Any, ids: Iterable[int]) -> dict[int, bytes]:  # noqa: ANN401
    """Tell which bytes tokens stand for, as far as their own spelling tells.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A transformers tokenizer.
    ids : iterable of int
        Token ids.

    Returns
    -------
    dict
        Id -> bytes: of GPT-2's printable alphabet, of ``<0x0A>``, ``▁`` for a space, else the token itself.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = "" if backend is None else f"{backend.decoder!r}{backend.pre_tokenizer!r}{backend.normalizer!r}"
    alphabet = _byte_alphabet() if "ByteLevel" in parts else {}
    literal = getattr(tokenizer, "added_tokens_decoder", {})
    wanted = list(ids)
    tokens = tokenizer.convert_ids_to_tokens(wanted)
    return {
        i: str(token).encode(errors="replace") if i in literal else _spelled(token, alphabet)
        for i, token in zip(wanted, tokens, strict=True)
    }


def spans_hold(tokenizer: Any) -> bool:  # noqa: ANN401
    """Tell whether the tokenizer's spans can be believed.

    Some tokenizers cut blanks off them; and a BPE that knows neither every byte nor an unknown token leaves
    characters out and does not count them.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A transformers tokenizer.

    Returns
    -------
    bool
        False also for tokenizers in pure Python, which tell none.
    """
    if not getattr(tokenizer, "is_fast", False):
        return False
    backend = tokenizer.backend_tokenizer
    if "trim_offsets=True" in repr(backend.post_processor):
        return False
    if type(backend.model).__name__ != "BPE" or backend.model.unk_token is not None:
        return True
    spellings = ([f"<0x{byte:02X}>" for byte in range(256)], _byte_alphabet())
    return any(all(backend.token_to_id(token) is not None for token in bytes_) for bytes_ in spellings)


def ends_by_bytes(
    texts: Sequence[str], ids: Sequence[np.ndarray], own: Mapping[int, bytes]
) -> list[np.ndarray | None]:
    r"""Find where tokens end from their own bytes.

    Parameters
    ----------
    texts : sequence of str
        N texts.
    ids : sequence of N int arrays
        Their tokens, at least one of each.
    own : mapping
        What each id stands for, from `token_bytes`.

    Returns
    -------
    list of N int32 arrays or None
        Byte ends; None unless the tokens' bytes are those of the text, or a space and the text.

    Examples
    --------
    >>> own = {3: b"\xc3", 5: b"\xa9", 7: b" a", 8: b" "}
    >>> ends_by_bytes(["é a", "a a", "a"], [np.array([3, 5, 7]), np.array([8, 7]), np.array([8, 5])], own)
    [array([1, 2, 4], dtype=int32), None, None]
    >>> ends_by_bytes([" a"], [np.array([8, 7])], own)
    [array([0, 2], dtype=int32)]
    """
    known, spelled = list(own), np.frombuffer(b"".join(own.values()), dtype=np.uint8)
    sizes, starts = np.zeros((2, max(known) + 1), dtype=np.int64)
    sizes[known] = [len(piece) for piece in own.values()]
    starts[known] = np.cumsum(sizes[known]) - sizes[known]
    found: list[np.ndarray | None] = []
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        some = ids[first : first + TEXTS_AT_ONCE]
        flat = np.concatenate(some)
        n_bytes = sizes[flat]
        ends = np.cumsum(n_bytes)
        shifts = np.repeat(starts[flat] - (ends - n_bytes), n_bytes)
        written, before = spelled[shifts + np.arange(len(shifts))].tobytes(), 0
        of_texts = np.split(ends, np.cumsum([len(row) for row in some])[:-1])
        for text, of_text in zip(texts[first : first + TEXTS_AT_ONCE], of_texts, strict=True):
            found.append(_ends_in(text.encode(), written[before : of_text[-1]], of_text - before))
            before = of_text[-1]
    return found


def ends_by_spans(text: str, pieces: Sequence[bytes], spans: Spans) -> np.ndarray:
    """Find where tokens end from their spans; inside a character, which spans share, from their own bytes.

    Parameters
    ----------
    text : str
        The text.
    pieces : sequence of bytes
        What each token stands for, from `token_bytes`.
    spans : sequence of (int, int)
        First character of each token and the one behind its last, as the tokenizer tells them.

    Returns
    -------
    (n,) int32 array
        Byte ends, never decreasing but for -1: inside a character that was normalised.

    Examples
    --------
    >>> ends_by_spans("A b", [b"a", b"b"], [(0, 1), (2, 3)])
    array([1, 3], dtype=int32)
    >>> ends_by_spans("ﬁx", [b"f", b"i", b"x"], [(0, 1), (0, 1), (1, 2)])
    array([-1,  3,  4], dtype=int32)
    """
    encoded = text.encode()
    written = b"".join(piece for piece, (start, stop) in zip(pieces, spans, strict=True) if start < stop)
    added_space = _leading_spaces(written) == _leading_spaces(encoded) + 1
    shown = b" " + encoded if added_space else encoded
    at = np.concatenate([[0], np.cumsum(_utf8_lengths(text))]) + added_space
    ends = np.full(len(pieces), -1, dtype=np.int32)
    following = _starts_of_next(spans, len(text))
    position = known = 0
    for i, piece in enumerate(pieces):
        start, stop = spans[i]
        if start < stop <= following[i]:
            position = int(at[_with_marks(text, stop, following[i])])
        elif position >= 0 and shown.startswith(piece, position):
            position += len(piece)
        elif start < stop:
            position = -1
        if position < known:
            position = -1
        ends[i] = position
        known = max(known, position)
    return np.where(ends < 0, -1, np.maximum(ends - added_space, 0)).astype(np.int32)


def ends_by_decoding(tokenizer: Any, text: str, ids: Sequence[int]) -> np.ndarray:  # noqa: ANN401
    """Find where tokens end by decoding a few at a time: for tokenizers that tell no spans.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A transformers tokenizer.
    text : str
        The text.
    ids : sequence of int
        Its tokens.

    Returns
    -------
    (n,) int32 array
        Byte ends; -1 inside a character, and between tokens that do not decode to the text.
    """
    encoded, pieces = text.encode(), _decoded_pieces(tokenizer, ids)
    ends = np.full(len(pieces), -1, dtype=np.int32)
    front = 0
    for i, piece in enumerate(pieces):
        if not encoded.startswith(piece, front):
            break
        front += len(piece)
        ends[i] = front if piece else -1
    back = len(encoded)
    for i in range(len(pieces) - 1, -1, -1):
        if ends[i] >= 0 or back - len(pieces[i]) < front:
            break
        matches = encoded.endswith(pieces[i], 0, back)
        if pieces[i] and (matches or back < len(encoded)):
            ends[i] = back
        if not matches:
            break
        back -= len(pieces[i])
    return ends


def _ends_in(encoded: bytes, written: bytes, ends: np.ndarray) -> np.ndarray | None:
    if written == encoded:
        return ends.astype(np.int32)
    return np.maximum(ends - 1, 0).astype(np.int32) if written == b" " + encoded else None


def _spelled(token: str | bytes, alphabet: Mapping[str, int]) -> bytes:
    if isinstance(token, bytes):
        return token
    with suppress(KeyError):
        return bytes(map(alphabet.__getitem__, token))
    if byte := BYTE_TOKEN.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.replace("▁", " ").encode(errors="replace")


def _with_marks(text: str, stop: int, following: int) -> int:
    """Go on over marks that a normaliser put on the character before, and over what it dropped."""
    while stop < following and not text[stop].isspace():
        stop += 1
    return stop


def _starts_of_next(spans: Spans, n_chars: int) -> list[int]:
    """Tell for each token where the next one starts that covers any text."""
    starts, following = [], n_chars
    for start, stop in reversed(spans):
        starts.append(following)
        if start < stop:
            following = start
    return starts[::-1]


def _decoded_pieces(tokenizer: Any, ids: Sequence[int]) -> list[bytes]:  # noqa: ANN401
    """Decode each token in the company of the one before; empty until a character is whole."""

    @cache
    def decode(some: tuple[int, ...]) -> str:
        return str(tokenizer.decode(list(some), clean_up_tokenization_spaces=False)) if some else ""

    ids = tuple(ids)
    pieces, start, read = [], 0, 0
    for stop in range(1, len(ids) + 1):
        before, now = decode(ids[start:read]), decode(ids[start:stop])
        whole = now.startswith(before) and len(now) > len(before)
        whole = whole and (stop == len(ids) or not now.endswith("\ufffd"))
        pieces.append(now[len(before) :].encode() if whole else b"")
        if whole or stop - read > LONGEST_CHARACTER:
            start, read = read, stop
    return pieces


def _utf8_lengths(text: str) -> np.ndarray:
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000).astype(np.int64)


def _leading_spaces(text: bytes) -> int:
    return len(text) - len(text.lstrip(b" "))


@cache
def _byte_alphabet() -> dict[str, int]:
    """Read GPT-2's printable alphabet of the 256 bytes, character -> byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
