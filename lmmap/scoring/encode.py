"""From texts to the sequences a model reads: ids, which of them count, and where each ends in bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.scoring.byte_ends import ends_by_bytes, ends_by_decoding, ends_by_spans, spans_hold, token_bytes
from lmmap.scoring.prefix import Prefix
from lmmap.texts import text_bytes


@dataclass(frozen=True)
class Tokenized:
    """N texts cut into tokens, without any prefix.

    Parameters
    ----------
    ids : list of N int32 arrays
        Token ids.
    byte_end : list of N int32 arrays
        Where each token ends in the text's UTF-8 bytes; -1 where that cannot be told.
    special_hits : (N,) int array
        How many ids are special or added tokens, though the texts are plain; added runs of blanks are text.
    lossy : float
        Share of texts that do not decode to themselves; a blank put in front loses nothing.
    """

    ids: list[np.ndarray]
    byte_end: list[np.ndarray]
    special_hits: np.ndarray
    lossy: float

    @property
    def hash(self) -> str:
        """16 hex digits over all ids and byte ends: models with one hash cut these texts alike."""
        digest = hashlib.sha256()
        for ids, ends in zip(self.ids, self.byte_end, strict=True):
            digest.update(len(ids).to_bytes(8, "little") + ids.tobytes() + ends.tobytes())
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
    """Cut texts into tokens, whole, each as if it were alone; strings that look special are text.

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
        If a text is empty, no valid UTF-8, cannot be cut or has no tokens: text and tokenizer are named; or
        if the tokenizer cuts at random.
    """
    if isinstance(texts, str) or not texts:
        raise InputError(f"expected a list of texts, got {texts[:40]!r}; give at least one, as [text]")
    for i, text in enumerate(texts):
        text_bytes(text, f"text {i + 1}")
    rows, flat = _cut(tokenizer, texts, special_tokens)
    starts = np.cumsum([0, *map(len, rows[:-1])])
    ids = np.split(flat, starts[1:])
    own = token_bytes(tokenizer, np.flatnonzero(np.bincount(flat)).tolist())
    ends = ends_by_bytes(texts, ids, own)
    hits = np.add.reduceat(np.isin(flat, _no_plain_text(tokenizer)), starts, dtype=np.int64)
    around = _n_added(tokenizer) if special_tokens else 0
    unsure: Sequence[int] = range(len(texts))
    if _spells_bytes(tokenizer):
        added = np.isin(flat, list(tokenizer.added_tokens_decoder))
        unsure = np.flatnonzero(np.logical_or.reduceat(added, starts) | [e is None for e in ends]).tolist()
    decoded = _decoded(tokenizer, [rows[i] for i in unsure], special_tokens)
    lost = [out not in (texts[i], " " + texts[i]) for i, out in zip(unsure, decoded, strict=True)]
    return Tokenized(
        ids=ids,
        byte_end=_byte_ends(tokenizer, texts, ids, special_tokens, own, ends),
        special_hits=np.maximum(hits - around, 0),
        lossy=sum(lost) / len(texts),
    )


def tokenizer_hash(tokenizer: Any) -> str:  # noqa: ANN401
    """Name a tokenizer's rules, or its vocabulary where rules cannot be read, by 16 hex digits."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(rules.encode()).hexdigest()[:16]


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


def _cut(
    tokenizer: Any,  # noqa: ANN401
    texts: Sequence[str],
    special_tokens: bool,
) -> tuple[list[list[int]], np.ndarray]:
    """Call the tokenizer: ids by text, and all in a row; where it fails, say on which text."""
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if dropout := getattr(
        getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "dropout", None
    ):
        raise InputError(f"{name}: the tokenizer cuts at random (dropout {dropout}); set it to null")
    try:
        rows: list[list[int]] = _call(tokenizer, texts, special_tokens)["input_ids"]
    except Exception as error:  # back ends fail in their own ways
        if len(texts) == 1:
            raise InputError(f"text 1 ({texts[0][:40]!r}) cannot be cut by {name}: {error}") from error
        for i, text in enumerate(texts):
            try:
                _call(tokenizer, [text], special_tokens)
            except Exception as reason:
                raise InputError(
                    f"text {i + 1} ({text[:40]!r}) cannot be cut by {name}: {reason}"
                ) from reason
        raise
    odd = {i: "no tokens" for i, row in enumerate(rows) if not row}
    try:
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
    except TypeError:
        odd |= {i: "tokens without an id" for i, row in enumerate(rows) if None in row}
        if not odd:
            raise
    if odd:
        i = min(odd)
        raise InputError(f"text {i + 1} ({texts[i][:40]!r}) has {odd[i]} for {name}; remove it")
    return rows, flat


def _call(tokenizer: Any, texts: Sequence[str], special_tokens: bool, *, spans: bool = False) -> Any:  # noqa: ANN401
    options: dict[str, Any] = {
        "add_special_tokens": special_tokens,
        "padding": False,
        "truncation": False,
        "return_attention_mask": False,
        "return_token_type_ids": False,
        "verbose": False,
    }
    if spans:
        options["return_offsets_mapping"] = True
    if special_tokens:
        return tokenizer(list(texts), **options)
    try:
        return tokenizer(list(texts), split_special_tokens=True, **options)
    except (TypeError, ValueError, NotImplementedError):  # some back ends refuse it; special_hits counts
        return tokenizer(list(texts), **options)


def _spells_bytes(tokenizer: Any) -> bool:  # noqa: ANN401
    """Tell whether tokens that are not added ones decode to their own bytes and nothing else."""
    if not _decodes_by_backend(tokenizer):
        return False
    backend = tokenizer.backend_tokenizer
    return type(backend.decoder).__name__ == "ByteLevel" and "ByteLevel" in repr(backend.pre_tokenizer)


def _decodes_by_backend(tokenizer: Any) -> bool:  # noqa: ANN401
    decode = getattr(type(tokenizer), "_decode", None)
    return getattr(decode, "__module__", "").startswith("transformers.tokenization_utils_tokenizers")


def _decoded(tokenizer: Any, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:  # noqa: ANN401
    """Put tokens together to texts, all at once where nothing but the tokenizer's back end does it."""
    if _decodes_by_backend(tokenizer):
        texts: list[str] = tokenizer.backend_tokenizer.decode_batch(
            rows, skip_special_tokens=skip_special_tokens
        )
        return texts
    options = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": False}
    return [tokenizer.decode(row, **options) for row in rows]


def _byte_ends(
    tokenizer: Any,  # noqa: ANN401
    texts: Sequence[str],
    ids: Sequence[np.ndarray],
    special_tokens: bool,
    own: Mapping[int, bytes],
    by_bytes: Sequence[np.ndarray | None],
) -> list[np.ndarray]:
    """Find where tokens end: from their own bytes; if those are not the text's, from spans or by decoding."""
    ends = list(by_bytes)
    odd = [i for i, found in enumerate(ends) if found is None]
    if odd and spans_hold(tokenizer):
        spans = _call(tokenizer, [texts[i] for i in odd], special_tokens, spans=True)["offset_mapping"]
        for i, of_text in zip(odd, spans, strict=True):
            ends[i] = ends_by_spans(texts[i], [own[token] for token in ids[i].tolist()], of_text)
    return [
        ends_by_decoding(tokenizer, text, row.tolist()) if found is None else found
        for text, row, found in zip(texts, ids, ends, strict=True)
    ]


def _n_added(tokenizer: Any) -> int:  # noqa: ANN401
    """Count the tokens that the tokenizer puts around a text by itself."""
    plain, dressed = (tokenizer("a", add_special_tokens=own)["input_ids"] for own in (False, True))
    return len(dressed) - len(plain)


def _no_plain_text(tokenizer: Any) -> np.ndarray:  # noqa: ANN401
    """List the ids that stand for no plain text: special tokens, and added ones but for runs of blanks."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marks = {i for i, token in added.items() if getattr(token, "special", True) or not str(token).isspace()}
    return np.array(sorted({*tokenizer.all_special_ids, *marks}), dtype=np.int32)
