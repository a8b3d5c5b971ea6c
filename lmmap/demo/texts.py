"""The texts of the demo: 1,000 to score, and others, from other files, to train small models on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from typing import NamedTuple

from lmmap.chunks import chunk_documents
from lmmap.demo.installed import DOMAINS, demo_documents, seeded_order
from lmmap.errors import InputError
from lmmap.text_files import Document
from lmmap.texts import TextSet, text_set

TEXT_BYTES = 512  # half of what the published map uses: the texts are scored on the processor of a laptop
MIN_BYTES = 128
N_TEXTS = 1000
TRAINING_TEXTS = 600  # of a kind, if there are so many
RUN = 8  # words


class DemoTexts(NamedTuple):
    """Texts to score and texts to train on, from different files; ``source`` is the kind of text."""

    evaluation: TextSet
    training: TextSet


def demo_texts(seed: int = 0) -> DemoTexts:
    """Cut installed files into 1,000 texts to score and some 2 MB of texts to train small models on.

    Half of the files of a kind go to either side. Within a kind the files take turns, so that long ones do
    not crowd out the others, and a text that mostly repeats the words of an earlier one is left out
    (licences do); the texts to score are chosen first.

    Parameters
    ----------
    seed : int
        Seed of every choice.

    Returns
    -------
    DemoTexts
        Both sets, pieces of more than 128 and at most 512 bytes (half of what the published map uses, to
        suit the processor of a laptop); ``source`` is the kind, column ``file`` the file.

    Raises
    ------
    InputError
        If the installed packages have too little text of some kind.
    """
    halves = {domain: _halves(files) for domain, files in demo_documents(seed).items()}
    repeats = Repeats()
    evaluation: list[_Piece] = []
    for i, domain in enumerate(DOMAINS):
        n_texts = N_TEXTS // len(DOMAINS) + (i < N_TEXTS % len(DOMAINS))
        chosen = list(islice(_in_turn(domain, halves[domain][0], repeats, seed), n_texts))
        if len(chosen) < n_texts:
            raise InputError(
                f"the installed packages have {len(chosen)} texts of the kind {domain!r} and the demo needs "
                f"{n_texts}; install the versions that lmmap was tested with"
            )
        evaluation += sorted(chosen)
    training: list[_Piece] = []
    for domain in DOMAINS:
        pieces = _in_turn(domain, halves[domain][1], repeats, seed)
        training += sorted(islice(pieces, TRAINING_TEXTS))
    return DemoTexts(_as_texts(evaluation, "demo"), _as_texts(training, "demo training"))


def subset_for_smollm2(texts: TextSet, n_texts: int = 150, seed: int = 0) -> TextSet:
    """Draw texts for models that are too slow for all of them, every kind in equal parts.

    Parameters
    ----------
    texts : TextSet
        The texts to draw from.
    n_texts : int
        How many; what equal parts leave over goes to the first kinds.
    seed : int
        Seed of the draw.

    Returns
    -------
    TextSet
        The chosen texts in their former order.

    Raises
    ------
    InputError
        If a kind has too few.

    Examples
    --------
    >>> some = text_set(["a", "b", "c", "d"], ["x", "x", "y", "y"])
    >>> subset_for_smollm2(some, 3).frame["source"].tolist()
    ['x', 'x', 'y']
    """
    kinds = texts.frame.groupby("source", sort=True).groups
    chosen: set[str] = set()
    for i, (kind, ids) in enumerate(kinds.items()):
        wanted = n_texts // len(kinds) + (i < n_texts % len(kinds))
        if wanted > len(ids):
            raise InputError(
                f"{texts.name}: {wanted} texts of the kind {kind!r} wanted, there are {len(ids)}"
            )
        chosen |= set(sorted(ids, key=lambda text_id: seeded_order(seed, text_id))[:wanted])
    return texts.select(texts.frame.index.isin(chosen))


class Repeats:
    """Remembers runs of eight words, to tell a text that says again what earlier ones said.

    Examples
    --------
    >>> repeats, licence = Repeats(), "Permission is hereby granted, free of charge, to any person obtaining"
    >>> repeats.seen(licence), repeats.seen("Copyright A. Person. " + licence.upper())
    (False, True)
    """

    def __init__(self) -> None:
        self._runs: set[str] = set()

    def seen(self, text: str) -> bool:
        """Say whether at least half of a text's runs of words were seen before; if not, remember them."""
        words = re.findall(r"\w+", text.lower()) or [text]
        runs = {" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))}
        repeated = 2 * len(runs & self._runs) >= len(runs)
        if not repeated:
            self._runs |= runs
        return repeated


class _Piece(NamedTuple):
    domain: str
    file: str
    position: int
    text: str


def _halves(files: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Deal files to two sides of about the same length."""
    halves: tuple[dict[str, str], dict[str, str]] = ({}, {})
    lengths = [0, 0]
    for name, text in files.items():
        side = int(lengths[1] <= lengths[0])
        halves[side][name] = text
        lengths[side] += len(text)
    return halves


def _in_turn(domain: str, files: dict[str, str], repeats: Repeats, seed: int) -> Iterator[_Piece]:
    """Give pieces of the files, one of each file a round, without those that repeat earlier ones."""
    names = list(files)
    cut = chunk_documents(
        (Document(domain, text) for text in files.values()), max_bytes=TEXT_BYTES, min_bytes=MIN_BYTES
    )
    pieces: dict[str, list[_Piece]] = {}
    for position, (document, text) in enumerate(zip(cut.frame["document"], cut.texts, strict=True)):
        name = names[document]
        pieces.setdefault(name, []).append(_Piece(domain, name, position, text))
    for of_file in pieces.values():
        of_file.sort(key=lambda piece: seeded_order(seed, f"{piece.file} {piece.position}"))
    rounds = chain.from_iterable(zip_longest(*pieces.values()))
    return (piece for piece in rounds if piece is not None and not repeats.seen(piece.text))


def _as_texts(pieces: list[_Piece], name: str) -> TextSet:
    return text_set(
        [piece.text for piece in pieces],
        [piece.domain for piece in pieces],
        name=name,
        columns={"file": [piece.file for piece in pieces]},
    )
