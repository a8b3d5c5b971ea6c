"""Opening: a score set on disk made ready to be looked at."""

from __future__ import annotations

from lmmap.explorer.distances import MANY
from lmmap.explorer.frames import Explorer
from lmmap.store import Store
from lmmap.token_records import read_segments


def open_explorer(store: Store, *, clip: float = 0.0) -> Explorer:
    """Read a score set, its texts, and its token records where distances can follow them.

    Parameters
    ----------
    store : Store
        A score set.
    clip : float
        Clip at this quantile of all scores first, 0.02 for the published maps. Distances are those of text
        level then: token records know no clipping.

    Returns
    -------
    Explorer
        Of all finished rows.

    Raises
    ------
    InputError
        If no row is finished, or the quantile is not in [0, 1).
    """
    scores = store.load()
    if clip:
        scores = scores.clip_below(quantile=clip)
    rows = [str(row) for row in scores.models.index]
    live = not clip and len(rows) <= MANY and store.has_tokens(rows)
    segments = read_segments(store) if live else None
    return Explorer(scores, texts=store.texts.texts, segments=segments, clip=clip)
