"""Structure: dimensions, clusters and families are those that were put in; nothing is found in nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster
from scipy.stats import f_oneway, kstest, zscore
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from lmmap.analyses.primary import primary_of, source_profiles
from lmmap.analyses.separability import separability
from lmmap.analyses.structure import cut_tree, link_models, variance_dimensions
from lmmap.errors import InputError
from lmmap.geometry import double_center, estimate_kl
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import LONGEST, make_benchmarks, make_lookalike


@pytest.fixture(scope="module")
def scores() -> LogLikelihoods:
    """Texts of one length: of many, the size of a model would tell it from its own family."""
    drawn = make_lookalike(80, 1100, n_families=6, n_sources=5)
    whole = np.flatnonzero(drawn.texts["n_bytes"] == LONGEST)[:700]
    return drawn.select(texts=drawn.texts.index[whole])


def test_dimensions_are_those_of_scikit_learns_pca(scores: LogLikelihoods) -> None:
    pca = PCA(svd_solver="full").fit(double_center(scores.values))
    dimensions, explained = variance_dimensions(scores.values, (0.5, 0.9, 0.95))
    np.testing.assert_allclose(explained[:-1], pca.explained_variance_ratio_[:79], atol=1e-12)
    sums = np.cumsum(pca.explained_variance_ratio_)
    assert dimensions.tolist() == [int((sums < share).sum()) + 1 for share in (0.5, 0.9, 0.95)]


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_all_of_the_variance_lies_in_as_many_dimensions_as_were_drawn(rank: int) -> None:
    rng = np.random.default_rng(rank)
    L = rng.normal(size=(20, rank)) @ rng.normal(size=(rank, 50))
    assert variance_dimensions(L, [1 - 1e-9])[0].tolist() == [rank]
    assert variance_dimensions(L, [1.0])[0][0] <= 20


def test_weights_of_zero_are_texts_left_out(scores: LogLikelihoods) -> None:
    weights = np.repeat([2.0, 0.0], 350)
    some = variance_dimensions(scores.values[:, :350])[1]
    np.testing.assert_allclose(variance_dimensions(scores.values, weights=weights)[1], some, atol=1e-12)


@pytest.mark.parametrize(
    ("L", "shares", "message"),
    [
        (np.eye(3), [1.5], r"lie in \(0, 1\], got 1.5"),
        (np.eye(3), [], "got none"),
        (np.ones((3, 4)), [0.9], "all models are alike"),
        (-400 + np.arange(4) ** 0.5 + np.arange(3)[:, None] / 3, [0.9], "alike .* but for their mean"),
    ],
)
def test_variance_that_cannot_be_shared_out_is_refused(L: np.ndarray, shares: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        variance_dimensions(L, shares)


def test_clusters_are_scipys_and_planted_families_are_found(scores: LogLikelihoods) -> None:
    tree = link_models(estimate_kl(scores.values))
    for n in (1, 2, 6, 20, 80):
        ours = cut_tree(tree, n)
        assert adjusted_rand_score(ours, fcluster(tree, n, "maxclust")) == 1
        sizes = np.bincount(ours)
        assert len(sizes) == n
        assert (np.diff(sizes) <= 0).all()
    assert adjusted_rand_score(cut_tree(tree, 6), scores.models["family"]) > 0.95


def test_the_height_of_a_join_is_the_mean_distance_between_its_parts(scores: LogLikelihoods) -> None:
    kl = estimate_kl(scores.values)
    tree = link_models(kl)
    first, second = (cut_tree(tree, 2) == c for c in (0, 1))
    assert tree[-1, 2] == pytest.approx(np.sqrt(2 * kl)[np.ix_(first, second)].mean())


@pytest.mark.parametrize("n", [0, 4])
def test_a_tree_is_not_cut_into_more_clusters_than_models(n: int) -> None:
    with pytest.raises(InputError, match=f"3 models make between 1 and 3 clusters, not {n}"):
        cut_tree(link_models(2 * (np.ones((3, 3)) - np.eye(3))), n)


@pytest.mark.parametrize(
    "kl", [np.ones((2, 3)), np.zeros((1, 1)), np.array([[0, 1.0], [2, 0]]), [[0, -1], [-1, 0]]]
)
def test_what_is_no_divergence_is_refused(kl: np.ndarray) -> None:
    for ask in (link_models, lambda kl: separability(kl, ["a", "b"])):
        with pytest.raises(InputError):
            ask(kl)


def test_f_of_one_dimension_is_that_of_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    x, family = rng.normal(size=30), np.repeat(["a", "b", "c"], [5, 10, 15])
    kl = (x[:, None] - x) ** 2 / 2
    found = separability(kl, family, n_permutations=9)
    assert found.pseudo_f == pytest.approx(f_oneway(*(x[family == f] for f in "abc")).statistic)


def test_p_is_that_of_all_permutations_where_they_can_be_listed() -> None:
    rng = np.random.default_rng(3)
    x, family = rng.normal(size=8), np.repeat([0, 1], 4)
    x += 1.2 * family
    kl = (x[:, None] - x) ** 2 / 2

    def between(rows) -> float:
        mask = np.isin(np.arange(8), rows)
        return abs(x[mask].mean() - x[~mask].mean())

    every = np.array([between(rows) for rows in combinations(range(8), 4)])
    exact = (every >= between([0, 1, 2, 3]) - 1e-12).mean()
    found = separability(kl, family, n_permutations=9999).p_value
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999))


def test_p_is_uniform_if_names_mean_nothing() -> None:
    L = make_lookalike(40, 200, n_families=5, n_sources=3).values
    kl, rng = estimate_kl(L), np.random.default_rng(0)
    names = np.repeat(list("abcd"), [20, 10, 6, 4])
    found = [separability(kl, rng.permutation(names), n_permutations=99, seed=s) for s in range(300)]
    p = np.array([f.p_value for f in found])
    assert p.min() >= 0.01
    smooth = p - np.random.default_rng(1).uniform(0, 0.01, 300)  # spread over the steps of 1/100
    assert kstest(smooth, "uniform").pvalue > 0.01
    of_families = np.concatenate([f.families["p_value"] for f in found])
    assert of_families.mean() == pytest.approx(0.505, abs=0.04)
    wrongly_found = np.mean([(f.families["p_holm"] <= 0.05).any() for f in found])
    assert wrongly_found <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_planted_families_stand_apart(scores: LogLikelihoods) -> None:
    found = separability(estimate_kl(scores.values), scores.models["family"])
    assert found.p_value == 1 / 1000
    assert found.r_squared > 0.5
    assert (found.families["p_holm"] < 0.05).all()
    assert (found.families["kl_within"] < found.families["kl_between"]).all()


def test_within_and_between_are_means_over_pairs(scores: LogLikelihoods) -> None:
    kl, family = estimate_kl(scores.values), scores.models["family"].to_numpy(dtype=object)
    table = separability(kl, family, n_permutations=1).families
    assert table["n_models"].sum() == 80
    for name, row in table.iterrows():
        own = family == name
        pairs = kl[np.ix_(own, own)][np.triu_indices(own.sum(), 1)]
        assert row["kl_within"] == pytest.approx(pairs.mean())
        assert row["kl_between"] == pytest.approx(kl[np.ix_(own, ~own)].mean())


def test_a_family_of_one_has_no_inside() -> None:
    kl = estimate_kl(np.random.default_rng(0).normal(size=(5, 30)))
    table = separability(kl, list("aabbc"), n_permutations=19).families
    assert table.loc["c", ["kl_within", "p_value", "p_holm"]].isna().all()
    assert table.loc["a", "p_holm"] >= table.loc["a", "p_value"]


@pytest.mark.parametrize(
    ("families", "options", "message"),
    [
        ("aab", {}, "3 families are given for 4 models"),
        ("aaaa", {}, "4 models in 1 families"),
        ("abcd", {}, "4 models in 4 families"),
        ("aabb", {"n_permutations": 0}, "at least 1, got 0"),
        (["a", "a", "b", None], {}, "family of 1 models is not known: leave these models out"),
        (["a", "a", np.nan, ""], {}, "family of 2 models is not known"),
    ],
)
def test_families_that_cannot_be_tested_are_refused(
    families: str | list, options: dict, message: str
) -> None:
    kl = np.ones((4, 4)) - np.eye(4)
    with pytest.raises(InputError, match=message):
        separability(kl, list(families), **options)


def test_models_that_are_all_alike_are_refused() -> None:
    with pytest.raises(InputError, match="all models are alike"):
        separability(np.zeros((4, 4)), list("aabb"))


def test_the_primary_source_of_a_family_with_a_home_is_its_home() -> None:
    scores = make_lookalike(60, 900, n_families=8, n_sources=6)
    primary = primary_of(source_profiles(scores))
    homes = scores.models["home"]
    assert (primary == homes)[homes != ""].mean() > 0.9


def test_profiles_are_means_of_centred_rows(scores: LogLikelihoods) -> None:
    profiles = source_profiles(scores)
    sizes = scores.texts["source"].value_counts()[profiles.columns]
    np.testing.assert_allclose(profiles @ sizes, 0, atol=1e-8)
    np.testing.assert_allclose(profiles.sum(), 0, atol=1e-8)


def test_a_model_that_lacks_a_score_has_no_primary_task() -> None:
    tasks = pd.DataFrame({"easy": [90, 80.0, np.nan], "hard": [20, np.nan, np.nan]})
    assert primary_of(tasks).tolist() == ["easy", None, None]
    with pytest.raises(InputError, match="'hard' does not differ"):
        primary_of(tasks, standardize=True)
    with pytest.raises(InputError, match="no column"):
        primary_of(tasks[[]])
    for wrong in (np.inf, "very"):
        with pytest.raises(InputError, match="'easy' holds text or infinity"):
            primary_of(tasks.assign(easy=wrong))


def test_the_primary_task_is_the_one_a_model_is_best_at_compared_with_the_others() -> None:
    tasks = make_benchmarks(make_lookalike(60, 200, n_families=6, n_sources=3)).filter(regex=r"score_\d")
    known = tasks.dropna()
    assert len(known) < len(tasks)
    expected = known.columns[zscore(known.to_numpy()).argmax(axis=1)]
    found = primary_of(tasks, standardize=True)
    assert found[known.index].tolist() == expected.tolist()
    assert found[tasks.index.difference(known.index)].tolist() == [None] * (len(tasks) - len(known))


def test_texts_without_sources_have_no_profile(scores: LogLikelihoods) -> None:
    bare = LogLikelihoods(scores.values, scores.models, scores.texts[["n_bytes"]])
    with pytest.raises(InputError, match="no column 'source'"):
        source_profiles(bare)
    sources = scores.texts["source"].where(np.arange(700) != 5)
    some = LogLikelihoods(scores.values, scores.models, scores.texts.assign(source=sources))
    with pytest.raises(InputError, match=f"1 texts have no source, such as '{scores.texts.index[5]}'"):
        source_profiles(some)
