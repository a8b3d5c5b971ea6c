"""Neighbours without the matrix of all pairs are those of the matrix of all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from lmmap.analyses.neighbors import nearest_models
from lmmap.errors import InputError
from lmmap.geometry import estimate_kl, nearest_neighbors
from lmmap.lookalike import make_lookalike


@pytest.mark.parametrize("block", [1, 7, 512])
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_give_the_neighbors_of_the_whole(block: int, weighted: bool) -> None:
    L = make_lookalike(60, 300, n_families=6, n_sources=4).values
    weights = np.random.default_rng(0).uniform(size=300) if weighted else None
    kl = estimate_kl(L, weights=weights)
    found, near = nearest_models(L, 5, weights=weights, block=block)
    np.testing.assert_array_equal(found, nearest_neighbors(kl, 5))
    np.testing.assert_allclose(near, np.take_along_axis(kl, found, axis=1), rtol=1e-12)


def test_near_pairs_keep_their_order_beside_far_ones() -> None:
    rng = np.random.default_rng(1)
    far = 1e6 * rng.normal(size=(2, 400))
    steps = 1e-5 * np.arange(6)[:, None] * rng.normal(size=400)
    L = np.concatenate([far[:1] + steps, far[1:] + steps])
    found, near = nearest_models(L, 2)
    assert (found // 6 == np.arange(12)[:, None] // 6).all()
    assert found[0].tolist() == [1, 2]
    assert near[0, 1] == pytest.approx(4 * near[0, 0], rel=1e-3)


@pytest.mark.parametrize("heights", [0.0, 1.0])  # in which models may differ, as little as it matters
def test_of_very_many_models_that_are_alike_the_first_listed_are_nearest(heights: float) -> None:
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 3, 400)
    L = 1000 * rng.normal(size=(3, 40))[kind] + heights * rng.integers(0, 4, 400)[:, None] * 2.0**20
    found, near = nearest_models(L, 4)
    np.testing.assert_allclose(near, 0, atol=1e-15)
    for i, row in enumerate(found):
        alike = np.setdiff1d(np.flatnonzero(kind == kind[i]), i)
        assert set(row) <= set(alike)
        assert heights or row.tolist() == alike[:4].tolist()


def test_all_models_are_neighbors_if_asked_for() -> None:
    L = np.random.default_rng(2).normal(size=(4, 9))
    found, _ = nearest_models(L, 3)
    assert all(sorted([i, *row]) == [0, 1, 2, 3] for i, row in enumerate(found))


@pytest.mark.parametrize("block", [0, -1])
def test_blocks_hold_a_model(block: int) -> None:
    with pytest.raises(InputError, match=f"block must be at least 1, got {block}"):
        nearest_models(np.eye(3), 1, block=block)


@pytest.mark.parametrize(
    ("L", "k", "message"),
    [
        (np.zeros(3), 1, "K models x N texts"),
        (np.zeros((3, 2)), 3, "3 models have at most 2 neighbours each, 3 were asked for"),
        (np.array([[0, 1.0], [np.nan, 0]]), 1, "model 1 has a value that is not finite"),
        (np.zeros((3, 1)), 1, "1 of 1 texts carry weight"),
    ],
)
def test_what_has_no_neighbors_is_refused(L: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nearest_models(L, k)
