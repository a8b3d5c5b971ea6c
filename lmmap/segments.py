"""Segments: log-probabilities of K models between the bytes where all of them have a token boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lmmap.errors import InputError

Array = np.ndarray
NUMBERS_AT_ONCE = 2**27  # float64 in a block: 1 GiB; two are held while one is read


@dataclass(frozen=True, eq=False, repr=False)
class Segments:
    """N texts under K models, cut into pieces that are the same bytes for all of them.

    Made by `lmmap.token_records.read_segments`, `segments_of_tokens` or `segments_of_totals`.

    Parameters
    ----------
    unit : {'token', 'segment', 'text'}
        What a piece is: a token of the one tokenizer that all models share; what lies between bytes where
        all of several tokenizers have a boundary; or a whole text.
    models : tuple of K str
        Row ids or names.
    totals : (K, N) float array
        Log-likelihood of every text, in nats.
    n_bytes : (N,) array
        Length of each text.
    text_of_segment : (S,) int array
        Number of the text of each piece; never decreasing.
    read : callable
        ``read(start, stop)`` gives the log-probabilities of pieces start to stop - 1, which are those of
        whole texts: (K, stop - start) float64, in nats.
    chosen : (S,) bool array, optional
        The pieces drawn by `sample`; all by default.
    end_byte : (S,) int array, optional
        Where each piece ends in its text, in bytes of UTF-8, if that is known.
    """

    unit: Literal["token", "segment", "text"]
    models: tuple[str, ...]
    totals: Array
    n_bytes: Array
    text_of_segment: Array
    read: Callable[[int, int], Array]
    chosen: Array | None = None
    end_byte: Array | None = None

    def __post_init__(self) -> None:
        shapes = (len(self.models), len(self.n_bytes))
        if np.shape(self.totals) != shapes or 0 in shapes:
            raise InputError(f"totals have shape {np.shape(self.totals)}, expected {shapes} (models, texts)")
        if not np.isfinite(self.totals).all():
            i, x = np.argwhere(~np.isfinite(self.totals))[0]
            raise InputError(f"{self.models[i]} gives text {x + 1} {self.totals[i, x]} nats; must be finite")
        lengths = np.asarray(self.n_bytes, dtype=np.float64)
        if wrong := lengths[~(np.isfinite(lengths) & (lengths > 0))].tolist():
            raise InputError(f"n_bytes must be positive, got {wrong[0]:g}")
        text = self.text_of_segment
        if text.dtype.kind not in "iu":
            raise InputError(f"text_of_segment must hold whole numbers, got {text.dtype}")
        if not len(text) or text[0] < 0 or text[-1] >= len(lengths) or (np.diff(text) < 0).any():
            raise InputError(
                f"text_of_segment must go up from 0 to at most {len(lengths) - 1}, text by text; order the "
                "pieces by their text"
            )

    def __repr__(self) -> str:
        k, n = self.totals.shape
        drawn = "" if self.chosen is None else f", {np.count_nonzero(self.chosen):,} of them drawn"
        pieces = f"{len(self.text_of_segment):,} {self.unit}s{drawn}"
        return f"Segments: {k} models x {n:,} texts, {pieces}, nats"

    @property
    def n_of_text(self) -> Array:
        """Pieces of each text, (N,)."""
        return np.bincount(self.text_of_segment, minlength=len(self.n_bytes))

    @property
    def share(self) -> float:
        """Share of the pieces that is drawn: what sums over pieces are divided by."""
        return 1.0 if self.chosen is None else float(np.mean(self.chosen))

    def sample(self, n_segments: int, *, seed: int = 0) -> Segments:
        """Draw some of the pieces, all equally likely: sums over them, over `share`, are unbiased.

        Parameters
        ----------
        n_segments : int
            How many; all if there are no more.
        seed : int
            Seed of the draw.

        Returns
        -------
        Segments
            The same texts and totals, with `blocks` of the drawn pieces only.

        Raises
        ------
        InputError
            If ``n_segments`` is not positive.
        """
        if n_segments < 1:
            raise InputError(f"{n_segments} segments were asked for; draw at least one")
        n = len(self.text_of_segment)
        if n_segments >= n:
            return replace(self, chosen=None)
        chosen = np.zeros(n, dtype=bool)
        chosen[np.random.default_rng(seed).choice(n, n_segments, replace=False)] = True
        return replace(self, chosen=chosen)

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """Go through the pieces of some texts at a time.

        Yields
        ------
        log_probs : (K, B) float64 array
            Log-probabilities of B pieces, in nats; their sums over a text are its totals.
        text : (B,) int array
            Number of the text of each.

        Raises
        ------
        InputError
            If a value is not finite, or pieces do not add up to their text: model and text are named.
        """
        ends = np.cumsum(self.n_of_text)
        at_once = max(1, NUMBERS_AT_ONCE // len(self.models))
        start = 0
        while start < len(self.text_of_segment):
            last = np.searchsorted(ends, start + at_once, side="right") - 1
            stop = int(ends[max(last, self.text_of_segment[start])])
            block, text = self.read(start, stop), self.text_of_segment[start:stop]
            if not np.isfinite(block).all():
                i, s = np.argwhere(~np.isfinite(block))[0]
                raise InputError(f"{self.models[i]} gives a piece of text {text[s] + 1} {block[i, s]} nats")
            self._check_sums(block, text)
            keep = slice(None) if self.chosen is None else self.chosen[start:stop]
            yield block[:, keep], text[keep]
            start = stop

    def _check_sums(self, block: Array, text: Array) -> None:
        """Refuse pieces that are not those of the totals."""
        first = np.flatnonzero(np.diff(text, prepend=-1))
        sums, totals = np.add.reduceat(block, first, axis=1), self.totals[:, text[first]]
        off = np.abs(sums - totals) > 1e-6 * np.abs(totals) + 1e-3
        if off.any():
            i, x = np.argwhere(off)[0]
            raise InputError(
                f"{self.models[i]} gives text {text[first[x]] + 1} {totals[i, x]:g} nats, its pieces "
                f"{sums[i, x]:g}; score the model again"
            )


def segments_of_totals(L: Array, n_bytes: Array, *, models: Sequence[str] | None = None) -> Segments:
    """Take whole texts as the pieces: all that can be done without token records.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    n_bytes : (N,) array
        Length of each text.
    models : sequence of K str, optional
        Names, for errors.

    Returns
    -------
    Segments
        Of one piece for each text.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, or a length is not positive.

    Examples
    --------
    >>> segments_of_totals(np.array([[-1.0, -3.0], [-2.0, -2.0]]), np.array([10, 20]))
    Segments: 2 models x 2 texts, 2 texts, nats
    """
    values = _matrix(L)
    texts = np.arange(values.shape[1])
    return Segments(
        "text", _names(models, len(values)), values, np.asarray(n_bytes), texts, _reader_of(values)
    )


def segments_of_tokens(
    token_log_probs: Array, text_of_token: Array, n_bytes: Array, *, models: Sequence[str] | None = None
) -> Segments:
    """Take the tokens of one tokenizer as the pieces.

    Parameters
    ----------
    token_log_probs : (K, T) float array
        Log-probability of every token of all texts, one text after the other, in nats.
    text_of_token : (T,) int array
        Number 0..N-1 of the text that each token belongs to.
    n_bytes : (N,) array
        Length of each text.
    models : sequence of K str, optional
        Names, for errors.

    Returns
    -------
    Segments
        Of one piece for each token.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, a text has no token, or tokens are not in the order of
        their texts.

    Examples
    --------
    >>> log_probs = np.array([[-1.0, -3.0, -1.0], [-2.0, -2.0, -2.0]])
    >>> tokens = segments_of_tokens(log_probs, np.array([0, 0, 1]), np.array([9, 5]))
    >>> tokens.totals
    array([[-4., -1.],
           [-4., -2.]])
    """
    values, text, n = _matrix(token_log_probs), np.asarray(text_of_token), len(n_bytes)
    if text.dtype.kind not in "iu" or not np.array_equal(np.unique(text), np.arange(n)):
        raise InputError(f"text_of_token must hold each of the whole numbers from 0 to {n - 1}")
    if text.shape != values.shape[1:]:
        raise InputError(f"token_log_probs has shape {values.shape}, text_of_token {text.shape}")
    totals = np.stack([np.bincount(text, row, minlength=n) for row in values])
    names = _names(models, len(values))
    return Segments("token", names, totals, np.asarray(n_bytes), text, _reader_of(values))


def _matrix(values: Array) -> Array:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise InputError(f"expected K models x N texts or T tokens, got shape {matrix.shape}")
    return matrix


def _names(models: Sequence[str] | None, n_models: int) -> tuple[str, ...]:
    return tuple(f"model {i}" for i in range(n_models)) if models is None else tuple(models)


def _reader_of(values: Array) -> Callable[[int, int], Array]:
    return lambda start, stop: values[:, start:stop]
