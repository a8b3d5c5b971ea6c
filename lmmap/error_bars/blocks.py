"""Blocks: what was drawn independently, the texts of one document together; sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmap.errors import InputError
from lmmap.geometry import checked_weights, double_center

ROUNDING = 1e-15  # of the largest score: differences up to it are none
Names = np.ndarray | Sequence[str] | Sequence[int]  # of the block that each text is from


@dataclass(frozen=True)
class Blocks:
    """Texts that carry weight, those of one block side by side, and what share of the weight is whose.

    Parameters
    ----------
    order : (N,) int array
        Texts that carry weight, block after block.
    weights : (N,) float array
        Weight of each of them; the sum is 1.
    starts : (B,) int array
        Where each block starts in ``order``.

    Examples
    --------
    >>> blocks = make_blocks(4, blocks=["b", "a", "b", "c"])
    >>> blocks.order.tolist(), blocks.share.tolist()
    ([1, 0, 2, 3], [0.25, 0.5, 0.25])
    >>> blocks.sums(np.array([1.0, 10.0, 20.0, 5.0])).tolist()
    [1.0, 30.0, 5.0]
    """

    order: np.ndarray
    weights: np.ndarray
    starts: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Share of the weight that each block carries, (B,)."""
        return self.sums(self.weights)

    @property
    def n_equal(self) -> float:
        """How many blocks of equal share would carry as much information: B if they are equal."""
        return float(1 / (self.share**2).sum())

    @property
    def small_sample(self) -> float:
        """What a variance among blocks is multiplied by for being about its own mean: B / (B - 1)."""
        return self.n_equal / (self.n_equal - 1)

    @property
    def sizes(self) -> np.ndarray:
        """Texts in each block, (B,)."""
        return np.diff(self.starts, append=len(self.order))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Add (..., N) values, in this order, up to (..., B)."""
        if len(self.starts) == len(self.order):
            return values
        added: np.ndarray = np.add.reduceat(values, self.starts, axis=-1)
        return added

    def differences(self, rows: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Subtract (K, N) rows of all texts, bring them into this order and centre: equal rows give 0."""
        D: np.ndarray = (rows - other)[:, self.order]
        D -= (D @ self.weights)[:, None]
        D[np.abs(D) <= ROUNDING * np.abs(other).max()] = 0
        return D

    def mean_errors(self, D: np.ndarray) -> np.ndarray:
        """Give the standard error of the mean of each row of centred (K, N) differences."""
        errors: np.ndarray = np.sqrt((self.sums(D * self.weights) ** 2).sum(axis=1))
        return errors


def make_blocks(n_texts: int, *, weights: np.ndarray | None = None, blocks: Names | None = None) -> Blocks:
    """Check weights and blocks of N texts.

    Parameters
    ----------
    n_texts : int
        N.
    weights : (N,) float array, optional
        Weight of each text; uniform by default. Texts without weight are left out.
    blocks : (N,) array of int or str, optional
        Which document each text is from; every text is its own by default.

    Returns
    -------
    Blocks
        At least two.

    Raises
    ------
    InputError
        If lengths disagree, a weight is negative or not finite, or fewer than two blocks carry weight.
    """
    w = checked_weights(weights, n_texts)
    names = np.arange(n_texts) if blocks is None else np.asarray(blocks)
    if names.dtype.kind == "O" and all(isinstance(name, str) for name in names.flat):
        names = names.astype(str)  # a column of a table
    if names.shape != (n_texts,):
        raise InputError(f"blocks have shape {names.shape}, expected ({n_texts},)")
    if names.dtype.kind not in "iuUSb":
        raise InputError(f"blocks must be whole numbers or names, got {names.dtype}")
    order = np.flatnonzero(w)
    order = order[np.argsort(names[order], kind="stable")]
    _, starts = np.unique(names[order], return_index=True)
    if len(starts) < 2:
        what = "texts" if blocks is None else "blocks"
        raise InputError(f"{len(starts)} {what} carry weight; an error bar needs at least 2")
    return Blocks(order, w[order], starts)


def centered(
    L: np.ndarray, *, weights: np.ndarray | None = None, blocks: Names | None = None
) -> tuple[np.ndarray, Blocks]:
    """Double-centre a matrix, its texts in the order of their blocks.

    Parameters
    ----------
    L : (K, N) float array
        Log-likelihoods, in nats.
    weights : (N,) float array, optional
        Weight of each text.
    blocks : (N,) array of int or str, optional
        Which document each text is from.

    Returns
    -------
    Q : (K, N) float array
        Nats; texts without weight left out.
    blocks : Blocks
        Of its columns.

    Raises
    ------
    InputError
        As `make_blocks` and `lmmap.geometry.double_center`, or if every text has the scores of every other:
        one text repeated has no error bar.
    """
    Q = double_center(L, weights=weights)
    made = make_blocks(Q.shape[1], weights=weights, blocks=blocks)
    matrix = np.asarray(L, dtype=np.float64)
    if (matrix[:, made.order] == matrix[:, made.order[:1]]).all():
        raise InputError(
            f"all {len(made.order)} texts have the same scores: one text repeated has no error bar"
        )
    return Q[:, made.order], made
