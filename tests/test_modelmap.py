"""Maps of models: what a picture keeps of the KL divergences, what it refuses, what it remembers."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from sklearn.manifold import TSNE

from lmmap.errors import InputError
from lmmap.geometry import estimate_kl
from lmmap.layouts import classical_mds, principal_axes
from lmmap.loglik import LogLikelihoods
from lmmap.modelmap import ModelMap, fit_map


def random_scores(n_models, n_texts=64, seed=0):
    """Scores in eighths of a nat: with 2**k models and texts, centring them is exact."""
    values = np.random.default_rng(seed).integers(-4000, -800, (n_models, n_texts)) / 8
    return scores_of(values)


def scores_of(values):
    n_models, n_texts = np.shape(values)
    models = pd.DataFrame({"model": [f"m{i}" for i in range(n_models)]}, [f"m{i}-0" for i in range(n_models)])
    texts = pd.DataFrame({"n_bytes": np.arange(100, 100 + n_texts)}, [f"t{x}" for x in range(n_texts)])
    return LogLikelihoods(values, models, texts)


def map_of(kl, coordinates, **attributes):
    models = pd.DataFrame(attributes, index=[f"m{i}" for i in range(len(kl))])
    return ModelMap(np.asarray(kl, float), coordinates, np.zeros(len(kl)), models, {"method": "mds"})


def half_squared_distances(coordinates):
    return ((coordinates[:, None] - coordinates[None]) ** 2).sum(-1) / 2


def half_variances(values):
    return np.array([[np.var(a - b) / 2 for b in values] for a in values])


@pytest.mark.parametrize("n_models", [2, 3])
@pytest.mark.parametrize("method", ["pca", "mds"])
def test_up_to_three_models_the_picture_is_exact(n_models, method):
    scores = random_scores(n_models)
    drawn = fit_map(scores, method=method)
    expected = half_variances(scores.values)
    np.testing.assert_allclose(drawn.kl, expected, rtol=1e-9)
    np.testing.assert_allclose(half_squared_distances(drawn.coordinates), expected, rtol=1e-9, atol=1e-9)
    assert sum(drawn.recipe["explained"]) == pytest.approx(1)


def test_more_models_are_never_drawn_farther_apart_by_pca_than_they_are():
    drawn = fit_map(random_scores(12), method="pca")
    assert (half_squared_distances(drawn.coordinates) <= drawn.kl * (1 + 1e-9)).all()
    assert 0 < sum(drawn.recipe["explained"]) < 1


@pytest.mark.parametrize("weights", [None, np.random.default_rng(1).uniform(0, 2, 64)])
def test_mds_of_text_level_kl_is_pca(weights):
    scores = random_scores(9)
    pca, mds = (fit_map(scores, method=method, weights=weights) for method in ("pca", "mds"))
    np.testing.assert_allclose(mds.coordinates, pca.coordinates, rtol=1e-7, atol=1e-7)
    assert mds.recipe["explained"] == pytest.approx(pca.recipe["explained"])


def test_pca_shares_are_those_of_the_covariance():
    values = random_scores(7).values
    Q = values - values.mean(1, keepdims=True)
    Q -= Q.mean(0)
    eigenvalues = np.sort(np.linalg.eigvalsh(Q @ Q.T / 64))[::-1]
    coordinates, explained = principal_axes(values)
    np.testing.assert_allclose((coordinates**2).sum(0), eigenvalues[:2])
    np.testing.assert_allclose(explained, eigenvalues[:2] / eigenvalues.sum())


def test_mds_recovers_points_of_a_plane():
    points = np.random.default_rng(2).normal(size=(20, 2))
    coordinates, explained = classical_mds(half_squared_distances(points))
    np.testing.assert_allclose(half_squared_distances(coordinates), half_squared_distances(points))
    assert explained.sum() == pytest.approx(1)


def test_mds_of_points_on_a_line_is_finite():
    for seed in range(50):  # the second eigenvalue is a rounding error, of either sign
        line = np.random.default_rng(seed).normal(size=(4, 1))
        coordinates, _ = classical_mds(half_squared_distances(line))
        np.testing.assert_allclose(coordinates[:, 1], 0, atol=1e-7)


def test_mds_of_a_divergence_that_is_no_squared_distance_is_finite():
    kl = np.array([[0, 1, 1, 9.0], [1, 0, 1, 1], [1, 1, 0, 1], [9, 1, 1, 0]])  # no points lie like that
    gram = -(kl - kl.mean(0) - kl.mean(1)[:, None] + kl.mean())
    assert np.linalg.eigvalsh(gram).min() < -0.1
    drawn = fit_map(random_scores(4), method="mds", kl=kl, estimator="token level")
    assert np.isfinite(drawn.coordinates).all()
    assert sum(drawn.recipe["explained"]) < 1


@pytest.mark.parametrize("method", ["pca", "mds"])
def test_weights_are_repeated_texts(method):
    counts = np.random.default_rng(3).integers(0, 4, 64)
    scores = random_scores(8)
    repeated = scores_of(np.repeat(scores.values, counts, axis=1))
    weighted = fit_map(scores, method=method, weights=counts)
    plain = fit_map(repeated, method=method)
    np.testing.assert_allclose(weighted.kl, plain.kl, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(weighted.coordinates, plain.coordinates, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(weighted.height, plain.height)
    assert weighted.recipe["n_texts"] == np.count_nonzero(counts)
    assert weighted.recipe["mean_n_bytes"] == pytest.approx(np.repeat(scores.texts["n_bytes"], counts).mean())


@pytest.mark.parametrize("method", ["pca", "mds", "tsne"])
def test_how_hard_a_text_is_and_how_good_a_model_is_do_not_move_the_map(method):
    scores = random_scores(16)
    rng = np.random.default_rng(4)
    harder, better = rng.integers(-99, 99, 64) / 8, rng.integers(-99, 99, 16) / 8
    moved = scores_of(scores.values + harder + better[:, None])
    before, after = fit_map(scores, method=method), fit_map(moved, method=method)
    np.testing.assert_array_equal(after.coordinates, before.coordinates)
    np.testing.assert_allclose(after.height - before.height, better + harder.mean())


def test_tsne_is_scikit_learns_with_our_settings():
    scores = random_scores(10)
    drawn = fit_map(scores, method="tsne", seed=7)
    start, _ = classical_mds(estimate_kl(scores.values))
    distances = np.sqrt(2 * estimate_kl(scores.values))
    expected = TSNE(
        perplexity=3.0, metric="precomputed", init=start / start[:, 0].std() * 1e-4, random_state=7
    ).fit_transform(distances)
    np.testing.assert_allclose(pdist(drawn.coordinates), pdist(expected.astype(float)), rtol=1e-9)
    covariance = np.cov(drawn.coordinates.T)  # turned to its widest
    assert abs(covariance[0, 1]) < 1e-9 * covariance[0, 0]
    assert covariance[0, 0] >= covariance[1, 1]
    assert (drawn.recipe["perplexity"], drawn.recipe["seed"]) == (3.0, 7)


def test_a_given_perplexity_is_used():
    scores = random_scores(10)
    assert fit_map(scores, perplexity=5).recipe["perplexity"] == 5
    assert (fit_map(scores, perplexity=5).coordinates != fit_map(scores).coordinates).any()


@pytest.mark.parametrize("method", ["pca", "mds", "tsne"])
def test_the_same_input_gives_the_same_map(method):
    first, second = (fit_map(random_scores(12), method=method) for _ in range(2))
    assert first.coordinates.tobytes() == second.coordinates.tobytes()
    assert first.caption() == second.caption()


def test_the_farthest_model_lies_on_the_positive_side():
    coordinates = fit_map(random_scores(12), method="pca").coordinates
    assert (coordinates.max(0) == np.abs(coordinates).max(0)).all()
    pair = fit_map(random_scores(2), method="pca").coordinates[:, 0]  # equally far: the first decides
    assert pair[0] > 0 > pair[1]


def test_umap_gets_the_distances_and_the_start(monkeypatch):
    given = {}

    class Recorder:
        def __init__(self, n_neighbors, **settings):
            given.update(settings, n_neighbors=n_neighbors)

        def fit_transform(self, distances):
            given["distances"] = distances
            return given["init"]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Recorder))
    scores = random_scores(8)
    drawn = fit_map(scores, method="umap", seed=3)
    np.testing.assert_allclose(given["distances"] ** 2 / 2, half_variances(scores.values), atol=1e-9)
    assert (given["n_neighbors"], given["metric"], given["random_state"]) == (7, "precomputed", 3)
    np.testing.assert_allclose(drawn.coordinates, fit_map(scores, method="mds").coordinates, rtol=1e-9)


def test_umap_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"pip install 'lmmap\[umap\]'"):
        fit_map(random_scores(5), method="umap")


@pytest.mark.parametrize(
    ("n_models", "settings", "message"),
    [
        (1, {"method": "pca"}, "at least 2 models, got 1"),
        (3, {"method": "tsne"}, "t-SNE needs at least 4 models, got 3: use method='pca'"),
        (3, {"method": "umap"}, "UMAP needs at least 4 models, got 3: use method='pca'"),
        (5, {"method": "tnse"}, r"no method 'tnse', .* \(closest: 'tsne'\)"),
        (5, {"method": "pca", "perplexity": 2}, "perplexity is a setting of method='tsne', not of 'pca'"),
        (5, {"perplexity": 5}, r"perplexity must lie in \[1, 5\) for 5 models, got 5"),
        (5, {"perplexity": float("nan")}, "perplexity must lie in"),
        (5, {"method": "pca", "kl": np.eye(5)}, "use method='mds'"),
        (5, {"weights": np.full(64, np.nan)}, "weights must be finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(n_models, settings, message):
    with pytest.raises(InputError, match=message):
        fit_map(random_scores(n_models), **settings)


@pytest.mark.parametrize("method", ["pca", "mds", "tsne"])
def test_models_that_are_all_alike_are_refused(method):
    with pytest.raises(InputError, match="all 4 models are alike"):
        fit_map(scores_of(np.tile(random_scores(1).values, (4, 1))), method=method)


def test_a_given_table_is_joined_by_label():
    scores = random_scores(6)
    kl = pd.DataFrame(
        half_variances(random_scores(6, seed=9).values), scores.models.index, scores.models.index
    )
    straight = fit_map(scores, method="mds", kl=kl, estimator="token level")
    mixed = fit_map(scores, method="mds", kl=kl.iloc[::-1, [3, 1, 0, 5, 4, 2]], estimator="token level")
    np.testing.assert_array_equal(mixed.kl, straight.kl)
    np.testing.assert_allclose(straight.kl, kl)
    assert "classical MDS of the token level KL" in straight.caption()
    rounded = fit_map(scores, method="mds", kl=kl * (1 + np.triu(np.full((6, 6), 1e-12))))
    np.testing.assert_array_equal(rounded.kl, rounded.kl.T)
    with pytest.raises(InputError, match="no row and column for 1 models, such as 'm2-0'"):
        fit_map(scores, method="mds", kl=kl.drop(columns="m2-0"))


def test_a_kl_that_is_no_divergence_is_refused_by_its_entry():
    def changed(entries):
        kl = 1 - np.eye(3)
        for place, value in entries.items():
            kl[place] = value
        return kl

    for entries, message in (
        ({(0, 1): 2.0}, r"from 'm0-0' to 'm1-0' is 2, which is not the way back"),
        ({(1, 2): -1.0, (2, 1): -1.0}, r"from 'm1-0' to 'm2-0' is -1, which is negative"),
        ({(2, 2): 0.5}, r"from 'm2-0' to 'm2-0' is 0.5, which should be 0"),
        ({(0, 2): np.nan, (2, 0): np.nan}, r"is nan, which is not finite"),
    ):
        with pytest.raises(InputError, match=message):
            fit_map(random_scores(3), method="mds", kl=changed(entries))
    with pytest.raises(InputError, match=r"kl has shape \(4, 4\), the scores have 3 models"):
        fit_map(random_scores(3), method="mds", kl=1 - np.eye(4))


def test_points_of_a_plane_keep_all_neighbors():
    points = np.random.default_rng(5).normal(size=(30, 2))
    assert map_of(half_squared_distances(points), points).neighbors_kept() == 1
    assert map_of(half_squared_distances(points), 7 * points[:, ::-1]).neighbors_kept(12) == 1


def test_a_picture_that_lies_says_so():
    line = np.array([[0.0, 0], [1, 0], [10, 0], [12, 0]])
    kl = half_squared_distances(line)  # nearest: b, a, d, c
    assert map_of(kl, line[[0, 2, 1, 3]]).neighbors_kept(1) == 0  # now c, d, a, b
    # c stands beside a: nearest are now c, a, a, c; the first is wrong, the third is wrong
    assert map_of(kl, np.array([[0.0, 0], [-2, 0], [1, 0], [5, 0]])).neighbors_kept(1) == 0.5
    assert map_of(kl, line[[0, 2, 1, 3]]).neighbors_kept(3) == 1  # all others: nothing to get wrong
    with pytest.raises(InputError, match="at most 3 neighbours each, 4 were asked for"):
        map_of(kl, line).neighbors_kept(4)


def test_neighbors_of_a_random_picture_are_kept_by_chance():
    rng = np.random.default_rng(6)
    kl, picture = half_squared_distances(rng.normal(size=(400, 2))), rng.normal(size=(400, 2))
    assert map_of(kl, picture).neighbors_kept(20) == pytest.approx(20 / 399, abs=0.01)


def test_the_recipe_remembers_how_the_map_was_made():
    scores = random_scores(8).clip_below(threshold=-450).select(texts=[f"t{x}" for x in range(32)])
    recipe = fit_map(scores, method="tsne", seed=11).recipe
    expected = {"method": "tsne", "seed": 11, "n_models": 8, "n_texts": 32, "estimator": "text level"}
    assert recipe.items() >= expected.items()
    assert (recipe["weighted"], recipe["explained"]) == (False, None)
    assert recipe["perplexity"] == pytest.approx(7 / 3)
    assert recipe["clipped_below"] == -450
    assert recipe["history"] == scores.history
    assert recipe["mean_n_bytes"] == np.arange(100, 132).mean()
    assert recipe["versions"]["numpy"] == np.__version__
    assert json.loads(json.dumps(recipe))["versions"].keys() == {"numpy", "scikit-learn"}


def test_the_caption_says_what_is_drawn():
    scores = random_scores(12).clip_below(threshold=-450)
    tsne, pca = fit_map(scores), fit_map(scores, method="pca")
    assert tsne.caption() == (
        "12 models, 64 texts · t-SNE, perplexity 3.67, seed 42 · clipped below -450.0 nats · "
        f"5 nearest neighbours: {tsne.neighbors_kept(5):.0%} kept (45% by chance) · "
        "resolution unknown: the scores' noise was not measured"
    )
    assert f"PCA, {sum(pca.recipe['explained']):.0%} of the variance, rotation and sign are arbitrary" in (
        pca.caption()
    )
    assert "neighbour" not in fit_map(random_scores(2), method="pca").caption()
    assert "64 weighted texts" in fit_map(scores, method="pca", weights=np.arange(1, 65)).caption()


def test_a_map_becomes_a_table():
    drawn = map_of(1 - np.eye(3), np.arange(6).reshape(3, 2), family=["a", "b", "b"])
    frame = drawn.to_frame()
    assert list(frame.columns) == ["model", "x", "y", "height", "family"]
    assert frame.loc["m1", ["x", "y", "family"]].tolist() == [2.0, 3.0, "b"]
    with pytest.raises(InputError, match="attribute 'x'"):
        map_of(1 - np.eye(3), np.zeros((3, 2)), x=[1, 2, 3]).to_frame()


def test_a_map_is_checked_and_cannot_be_changed():
    kl = 1 - np.eye(3)
    drawn = map_of(kl, np.zeros((3, 2)))
    kl[0, 1] = 5
    assert drawn.kl[0, 1] == 1
    with pytest.raises(ValueError, match="read-only"):
        drawn.coordinates[0, 0] = 1
    with pytest.raises(InputError, match=r"coordinates has shape \(3, 3\), expected \(3, 2\) for 3 models"):
        map_of(1 - np.eye(3), np.zeros((3, 3)))
    with pytest.raises(InputError, match="coordinates holds a value that is not finite"):
        map_of(1 - np.eye(3), np.full((3, 2), np.inf))
    with pytest.raises(InputError, match="model id 'a' is given more than once"):
        ModelMap(1 - np.eye(2), np.zeros((2, 2)), np.zeros(2), pd.DataFrame(index=["a", "a"]), {})
    assert repr(drawn).startswith("ModelMap: 3 models · classical MDS")
