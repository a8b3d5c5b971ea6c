"""The batch plan: a pure function of lengths and a token budget, so that bits do not depend on the day."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

LEAST_SHARE = 4  # of the token budget: a batch below a quarter of it leaves a GPU idle
WASTE_SHARE = 64  # of the token budget: what a batch may waste on padding, a sixty-fourth


def plan_batches(
    lengths: Sequence[int], token_budget: int, *, equal_above: int | None = None
) -> list[np.ndarray]:
    """Group sequences of near lengths into batches of at most ``token_budget`` padded tokens.

    A batch of a quarter of the budget or more ends where one sequence more would bring its padding above a
    sixty-fourth of the budget: of few texts, smaller batches take less time than padding does.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each sequence.
    token_budget : int
        Most tokens in a batch, padding counted; a longer sequence goes alone.
    equal_above : int, optional
        Sequences longer than this share a batch only with their equals, for models that padding disturbs
        from there on; 0 if it always does.

    Returns
    -------
    list of int arrays
        Positions of each batch's sequences, longest sequences first.

    Examples
    --------
    >>> [batch.tolist() for batch in plan_batches([3, 9, 2, 9, 8], 64)]
    [[1, 3, 4], [0, 2]]
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches: list[list[int]] = []
    longest = n_padding = 0
    for i in order:
        shorter = longest - lengths[i]
        joins = bool(batches) and (len(batches[-1]) + 1) * longest <= token_budget
        small = joins and len(batches[-1]) * longest * LEAST_SHARE < token_budget
        tight = (n_padding + shorter) * WASTE_SHARE <= token_budget
        alike = equal_above is None or longest <= equal_above or shorter == 0
        if joins and (small or tight) and alike:
            batches[-1].append(int(i))
            n_padding += shorter
        else:
            batches.append([int(i)])
            longest, n_padding = lengths[i], 0
    return [np.array(batch) for batch in batches]


def plan_hash(batches: Sequence[np.ndarray], *settings: object) -> str:
    """Name a plan, and whatever else decides the bits, by 16 hex digits.

    Parameters
    ----------
    batches : sequence of int arrays
        A plan.
    *settings : object
        Anything with a faithful ``repr``.

    Returns
    -------
    str
        16 hex digits.

    Examples
    --------
    >>> plan_hash([np.array([0])], 1) == plan_hash([np.array([0])], 2)
    False
    """
    digest = hashlib.sha256(repr(settings).encode())
    for batch in batches:
        digest.update(len(batch).to_bytes(8, "little") + batch.astype(np.int64).tobytes())
    return digest.hexdigest()[:16]
