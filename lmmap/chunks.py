"""Cutting documents into texts and drawing a sample: the recipe of the published map."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator

from lmmap.errors import InputError
from lmmap.text_files import Document
from lmmap.texts import TextSet, text_set, valid_text


def chunk_text(text: str, *, max_bytes: int = 1024) -> Iterator[str]:
    """Cut a text into pieces of at most ``max_bytes``, never inside a character.

    Parameters
    ----------
    text : str
        The text; the pieces put together are it.
    max_bytes : int
        The most UTF-8 bytes a piece may have, at least 4: the longest character.

    Yields
    ------
    str
        The pieces in order.

    Raises
    ------
    InputError
        If ``max_bytes`` is below 4, or the text holds lone surrogates.

    Examples
    --------
    >>> list(chunk_text("日本語の本", max_bytes=7))
    ['日本', '語の', '本']
    """
    if max_bytes < 4:
        raise InputError(f"pieces of at most max_bytes={max_bytes} bytes cannot be cut; give 4 or more")
    encoded = valid_text(text, "text to be cut").encode()
    start = 0
    while start < len(encoded):
        end = min(start + max_bytes, len(encoded))
        while end < len(encoded) and encoded[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        yield encoded[start:end].decode()
        start = end


def chunk_documents(
    documents: Iterable[Document],
    *,
    max_bytes: int = 1024,
    min_bytes: int = 256,
    n_texts: int | None = None,
    seed: int = 0,
    name: str = "texts",
) -> TextSet:
    """Cut documents into texts and draw a sample of them, as for the published map.

    Documents are cut into pieces of at most 1,024 bytes, pieces of 256 bytes or less are left out, and
    ``n_texts`` of the rest are drawn at random (Oyama et al. 2025, arXiv:2502.16173, Appendix A).

    Parameters
    ----------
    documents : iterable of Document
        Read once, never held together in memory.
    max_bytes : int
        Longest piece, in UTF-8 bytes.
    min_bytes : int
        Pieces must have *more* bytes than this.
    n_texts : int, optional
        Size of the sample, drawn without replacement and kept in document order; all pieces by default.
    seed : int
        Seed of the sample.
    name : str
        What the set is called.

    Returns
    -------
    TextSet
        The sampled pieces.

    Raises
    ------
    InputError
        If there are fewer pieces than asked for, or the bounds leave none.

    Examples
    --------
    >>> chunk_documents([Document("a", "x" * 2500)]).frame["n_bytes"].tolist()
    [1024, 1024, 452]
    """
    if not 0 <= min_bytes < max_bytes:
        raise InputError(
            f"min_bytes={min_bytes} must not be negative and must be smaller than max_bytes={max_bytes}"
        )
    if n_texts is not None and n_texts < 1:
        raise InputError(f"{name}: {n_texts} texts were asked for; ask for at least one")
    pieces = (
        (i, document.source, piece)
        for i, document in enumerate(documents)
        for piece in chunk_text(valid_text(document.text, f"{name}, document {i + 1}"), max_bytes=max_bytes)
        if len(piece.encode()) > min_bytes
    )
    numbered = enumerate(pieces)
    if n_texts is None:
        chosen = list(numbered)
    else:
        generator = random.Random(seed)
        chosen = sorted(heapq.nsmallest(n_texts, numbered, key=lambda _: generator.random()))
    if not chosen or (n_texts is not None and len(chosen) < n_texts):
        raise InputError(
            f"{name}: {n_texts or 'some'} texts were asked for and the documents have {len(chosen)} pieces "
            f"of more than {min_bytes} and at most {max_bytes} bytes; give more documents or lower min_bytes"
        )
    return text_set(
        (piece for _, (_, _, piece) in chosen),
        (source for _, (_, source, _) in chosen),
        name=name,
        columns={"document": [document for _, (document, _, _) in chosen]},
    )
