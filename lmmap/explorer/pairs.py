"""Pairs: the texts that separate two models on the map, and one of them piece by piece."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.panels import places_of_pair
from lmmap.segments import Segments

Array = np.ndarray

N_TEXTS = 8  # that are shown of each sign
FIRST_CHARACTERS = 60  # of a text, to know it by


def separating_texts(
    explorer: Explorer, frame: Frame, first: str, second: str, *, n: int = N_TEXTS
) -> pd.DataFrame:
    """Find the texts that carry most of the distance of two models, of either sign.

    Parameters
    ----------
    explorer : Explorer
        Where the frame is from.
    frame : Frame
        What is shown.
    first, second : str
        Row ids of two of its models.
    n : int
        How many texts of each sign.

    Returns
    -------
    DataFrame
        Index ``text_id``; columns ``source`` and ``n_bytes`` where they are known; ``difference``, nats: how
        much more likely the text is to the first model; ``beyond_mean``, what of that goes beyond its mean
        over the texts, which is what a distance is made of; ``share`` of the text-level distance; ``begins``
        where the texts are known. First those farthest above the mean, then those farthest below, the
        farthest last. ``attrs["mean"]`` is the mean.

    Raises
    ------
    InputError
        If a model is not shown, or both are the same or alike on these texts.
    """
    one, other = explorer.scores.values[list(places_of_pair(frame, first, second))][:, frame.texts]
    D: Array = one - other
    mean = float(D.mean())
    beyond = D - mean
    squares = beyond**2
    if not squares.any():
        raise InputError(f"{first} and {second} are alike on these {len(D):,} texts: nothing separates them")
    order = np.argsort(-beyond, kind="stable")
    n = min(n, len(D) // 2)
    picked = np.concatenate([order[:n], order[len(D) - n :]])
    places = np.flatnonzero(frame.texts)[picked]
    texts, known = explorer.choices.texts, explorer.scores.texts.iloc[places]
    columns: pd.DataFrame = known[[name for name in ("source", "n_bytes") if name in known]]
    table = columns.assign(
        difference=D[picked], beyond_mean=beyond[picked], share=squares[picked] / squares.sum()
    )
    table.attrs["mean"] = mean
    if texts is not None:
        table["begins"] = [texts[x][:FIRST_CHARACTERS] for x in places]
    return table


def pieces_of_text(segments: Segments, x: int, text: str) -> pd.DataFrame:
    r"""Mark where two models part within a text.

    Parameters
    ----------
    segments : Segments
        Token records of two models: of one tokenizer their tokens, of two what lies between common
        boundaries.
    x : int
        Number of the text.
    text : str
        The text.

    Returns
    -------
    DataFrame
        A row for each piece: ``start`` and ``end`` in bytes, ``piece``, and ``difference``, nats: the
        log-probability by the first model less that by the second. Pieces of one character are joined; a
        last row without a number is what no model read.

    Raises
    ------
    InputError
        If the segments are not of two models with places in the text, or the text is not theirs.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from lmmap.segments import segments_of_tokens
    >>> log_probs = np.array([[-1.0, -1, -2], [-2.0, -1, -1]])
    >>> tokens = segments_of_tokens(log_probs, np.array([0, 0, 0]), np.array([4]))
    >>> pieces_of_text(replace(tokens, end_byte=np.array([1, 2, 4])), 0, "aéb")
       start  end piece  difference
    0      0    1     a         1.0
    1      1    4    éb        -1.0
    """
    if len(segments.models) != 2 or segments.end_byte is None:
        raise InputError(
            f"pieces of a text need the token records of two models, got those of {len(segments.models)}"
        )
    data = text.encode()
    if len(data) != segments.n_bytes[x]:
        raise InputError(f"text {x + 1} has {len(data)} bytes, its scores are of {segments.n_bytes[x]:g}")
    start, stop = np.searchsorted(segments.text_of_segment, [x, x + 1])
    log_probs = segments.read(int(start), int(stop))
    ends = segments.end_byte[start:stop].tolist()
    rows, begun, gained = [], 0, 0.0
    for end, difference in zip(ends, (log_probs[0] - log_probs[1]).tolist(), strict=True):
        gained += difference
        if _is_boundary(data, end):
            rows.append((begun, end, data[begun:end].decode(), gained))
            begun, gained = end, 0.0
    if begun < len(data):
        rows.append((begun, len(data), data[begun:].decode(), np.nan))
    return pd.DataFrame(rows, columns=["start", "end", "piece", "difference"])


def _is_boundary(data: bytes, at: int) -> bool:
    """Whether a character of UTF-8 ends there."""
    return at >= len(data) or data[at] & 0xC0 != 0x80
