"""Error bars of text-level estimates: closed forms, plain loops, bootstrap, coverage, limits, bad input."""

from __future__ import annotations

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from benchmarks import coverage
from lmmap.error_bars.blocks import make_blocks
from lmmap.error_bars.comparisons import is_closer, rank_models
from lmmap.error_bars.resampling import (
    bootstrap_weights,
    ellipses,
    neighbor_probabilities,
    position_covariances,
)
from lmmap.error_bars.student import t_quantile, t_tail
from lmmap.error_bars.uncertainty import kl_intervals, mean_difference_errors
from lmmap.errors import InputError
from lmmap.geometry import estimate_kl, height, squared_distances
from lmmap.layouts import principal_axes

close = np.testing.assert_allclose


def made_up(n_models: int = 6, n_texts: int = 60, seed: int = 0) -> np.ndarray:
    """Scores of a natural size with heavy tails; the last two models are near, as are the first two."""
    rng = np.random.default_rng(seed)
    L = rng.normal(-900, 300, n_texts) + 20 * rng.standard_t(5, (n_models, n_texts))
    L[1], L[-1] = L[0] + rng.normal(0, 0.01, n_texts), L[-2] + rng.normal(0, 1e-5, n_texts)
    return L


def documents(n_texts: int = 60, seed: int = 1) -> np.ndarray:
    """Documents of many sizes, one with more texts than count as few, in no order."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.append(np.full(n_texts // 2, 99), rng.integers(0, 9, n_texts - n_texts // 2)))


def plain_errors(d: np.ndarray, w: np.ndarray, blocks: np.ndarray) -> tuple[float, float, float]:
    """KL of one pair, its standard error and that of the mean difference, a block at a time."""
    w = w / w.sum()
    d = d - w @ d
    s = w @ d**2
    of_mean = of_variance = shares = 0.0
    for name in set(blocks.tolist()):
        mine = blocks == name
        of_mean += (w[mine] @ d[mine]) ** 2
        of_variance += (w[mine] @ (d[mine] ** 2 - s)) ** 2
        shares += w[mine].sum() ** 2
    more = 1 / (1 - shares)
    kl, error = (s + more * of_mean) / 2, np.sqrt(more * (of_variance + 2 * of_mean**2)) / 2
    return kl, error, np.sqrt(of_mean)


# Standard errors


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_all_pairs_at_once_are_the_plain_loop_over_blocks(grouped, weighted):
    L = made_up()
    blocks = documents() if grouped else np.arange(60)
    w = np.random.default_rng(2).exponential(size=60) if weighted else np.ones(60)
    if weighted:
        w[5:9] = 0
    found = kl_intervals(L, weights=w if weighted else None, blocks=blocks if grouped else None)
    means = mean_difference_errors(L, weights=w if weighted else None, blocks=blocks if grouped else None)
    for i, j in product(range(len(L)), repeat=2):
        kl, error, of_mean = plain_errors(L[i] - L[j], w, blocks)
        close(found.kl[i, j], kl, rtol=1e-8)
        close(found.standard_error[i, j], error, rtol=1e-7)
        close(means[i, j], of_mean, rtol=1e-7)
    for values in found:
        close(values, values.T)


def test_without_blocks_the_error_is_that_of_an_unbiased_sample_variance():
    d = np.random.default_rng(0).standard_t(5, 80)
    n, m2, m4 = len(d), stats.moment(d, 2), stats.moment(d, 4)
    found = kl_intervals(np.stack([d, np.zeros(n)]))
    close(found.kl[0, 1], d.var(ddof=1) / 2)
    close(found.standard_error[0, 1], np.sqrt((m4 - m2**2 + 2 * m2**2 / n) / (n - 1)) / 2)
    close(found.n_effective[0, 1], n / (stats.kurtosis(d, fisher=False)))


def test_gaussian_differences_have_the_error_of_a_chi_square():
    rng = np.random.default_rng(0)
    n = 100_000
    L = np.vstack([np.zeros(n), rng.normal(0, [[1.0], [3.0]], (2, n))])
    found = kl_intervals(L)
    close(found.standard_error[0, 1:], found.kl[0, 1:] * np.sqrt(2 / n), rtol=0.02)
    close(found.n_effective[0, 1:], n / 3, rtol=0.02)


def test_blocks_of_one_text_change_nothing_and_order_does_not_matter():
    L, blocks = made_up(), documents()
    for one, other in zip(kl_intervals(L), kl_intervals(L, blocks=np.arange(60)[::-1]), strict=True):
        close(one, other, rtol=1e-9)
    mixed = np.random.default_rng(3).permutation(60)
    names = [f"document {name}" for name in blocks[mixed]]
    as_column = np.array(names, dtype=object)
    for given in (names, as_column):
        again = kl_intervals(L[:, mixed], blocks=given)
        for one, other in zip(kl_intervals(L, blocks=blocks), again, strict=True):
            close(one, other, rtol=1e-7)


def test_texts_repeated_within_their_block_leave_all_error_bars_as_they_were():
    L = made_up()
    once, often = kl_intervals(L), kl_intervals(np.repeat(L, 3, axis=1), blocks=np.repeat(np.arange(60), 3))
    for one, other in zip(once, often, strict=True):
        close(one, other, rtol=1e-7)
    far = kl_intervals(np.repeat(L, 3, axis=1))
    close(far.standard_error[0, 2] * np.sqrt(3), once.standard_error[0, 2], rtol=0.03)


@pytest.mark.parametrize("grouped", [False, True])
def test_standard_errors_are_those_of_the_bootstrap(grouped):
    rng = np.random.default_rng(0)
    n, blocks = 2_000, np.arange(2_000) // 10 if grouped else None
    L = np.vstack([np.zeros(n), rng.laplace(size=(3, n)) + rng.laplace(size=(3, n // 10)).repeat(10, axis=1)])
    found, means = kl_intervals(L, blocks=blocks), mean_difference_errors(L, blocks=blocks)
    W = bootstrap_weights(n, 3_000, blocks=blocks)
    drawn = np.array([[estimate_kl(L[[0, j]], weights=w)[0, 1] for w in W[:500]] for j in (1, 2, 3)])
    close(found.standard_error[0, 1:], drawn.std(axis=1), rtol=0.13)
    close(means[0, 1:], (L[1:] @ W.T).std(axis=1), rtol=0.06)
    close(W.sum(axis=1), 1)
    close((L @ W.T).mean(axis=1), height(L), atol=4 * means.max() / np.sqrt(3_000))


def test_near_pairs_keep_their_digits():
    L = made_up(4, 500) - 1e5
    L[1] = L[0] + np.random.default_rng(4).normal(0, 1e-6, 500)
    kl, error, _ = plain_errors(L[0] - L[1], np.ones(500), np.arange(500))
    found = kl_intervals(L)
    close([found.kl[0, 1], found.standard_error[0, 1]], [kl, error], rtol=1e-6)


def test_the_mean_differs_by_the_distance_over_root_n():
    L = made_up()[:5]
    close(mean_difference_errors(L), np.sqrt(squared_distances(L) / 60), rtol=1e-7)


# Intervals


def test_coverage_of_light_and_moderate_tails_is_nominal_at_a_thousand_texts():
    for name in ("Gaussian", "Laplace", "Student t, 5 df", "log-normal, sigma 0.5"):
        rows = [found for found, _ in coverage.samples(name, 1_000, False, 3_000, seed=1)]
        low, high = (np.concatenate([getattr(r, end)[0, 1:] for r in rows]) for end in ("low", "high"))
        assert 0.92 < ((low <= 0.5) & (high >= 0.5)).mean() < 0.97, name


def test_documents_left_out_cover_too_seldom_and_as_blocks_they_cover():
    rows = list(coverage.samples("Gaussian", 1_000, True, 2_000, seed=2))

    def covered(intervals):
        return np.mean([(r.low[0, 1:] <= 0.5) & (r.high[0, 1:] >= 0.5) for r in intervals])

    assert 0.93 < covered([found for found, _ in rows]) < 0.97
    assert covered([kl_intervals(L) for _, L in rows]) < 0.85


def test_intervals_hold_their_estimate_and_grow_with_the_level():
    narrow, wide = (kl_intervals(made_up(), level=level) for level in (0.5, 0.99))
    assert (wide.low <= narrow.low).all()
    assert (narrow.low <= narrow.kl).all()
    assert (narrow.kl <= narrow.high).all()
    assert (narrow.high <= wide.high).all()
    assert not np.isnan(wide.high).any()


def test_noise_is_taken_off_and_two_names_for_one_model_are_not_told_apart():
    rng = np.random.default_rng(0)
    n, noise = 4_000, np.array([0.02, 0.3, 0.1])
    true = rng.normal(-500, 100, n) + np.array([[0.0], [0.0], [1.0]]) * rng.normal(0, 1, n)
    false = []
    for _ in range(200):
        found = kl_intervals(true + rng.normal(0, np.sqrt(noise)[:, None], true.shape), error_var=noise)
        assert found.told_apart[0, 2]
        assert found.low[0, 2] < found.kl[0, 2] < found.high[0, 2]
        assert abs(found.kl[0, 2] - (true[2] - true[0]).var() / 2) < 5 * found.standard_error[0, 2]
        false.append(found.told_apart[0, 1])
    assert np.mean(false) < 0.06  # 2.5 % by chance
    assert kl_intervals(true + rng.normal(0, 0.5, true.shape)).told_apart[0, 1]  # noise not taken off


def test_equal_models_are_at_zero_with_a_zero_error_bar():
    L = made_up(9)[[0, 3, 3, 4, 3, 5, 3]]
    same = [1, 2, 4, 6]
    for blocks in (None, documents()):
        found, means = kl_intervals(L, blocks=blocks), mean_difference_errors(L, blocks=blocks)
        for values in (found.kl, found.standard_error, found.low, found.high, means):
            assert (values[np.ix_(same, same)] == 0).all()
            assert (np.diag(values) == 0).all()
        assert not found.told_apart[1, 2]
    ranking = rank_models(L)
    places = np.flatnonzero(np.isin(ranking.order, same))
    assert ranking.order[places].tolist() == same
    assert (ranking.to_next_error[places[:-1]] == 0).all()
    alike = kl_intervals(L[same])
    assert not alike.kl.any()
    assert not alike.high.any()


def test_two_texts_or_one_that_rules_set_no_upper_bound():
    two = kl_intervals(np.array([[-1.0, -3.0], [-2.0, -2.0]]))
    close([two.kl[0, 1], two.standard_error[0, 1]], [1.0, 0.5])
    assert (two.low[0, 1], two.high[0, 1]) == (0.0, np.inf)
    ruled = np.random.default_rng(0).normal(0, 1, (2, 100))
    ruled[0, 7] = 1e4
    found = kl_intervals(ruled)
    assert found.high[0, 1] == np.inf
    assert found.n_effective[0, 1] < 1.1
    paired = kl_intervals(np.array([[1.0, -1, 1, -1], [0, 0, 0, 0]]), blocks=["a", "a", "b", "b"])
    assert paired.high[0, 1] == np.inf


def test_students_recipe_agrees_with_scipy():
    for df in (2, 2.5, 3, 7, 30, 1e3, 1e7):
        close(t_quantile(0.95, np.array(df)), stats.t.ppf(0.975, df), rtol=0.01)
        for t in (-3.0, -0.5, 0.0, 1.0, 2.5):
            close(t_tail(t, df), stats.t.sf(t, df), atol=4e-3)
        close(t_tail(float(t_quantile(0.9, np.array(df))), df), 0.05, rtol=1e-9)
    assert t_quantile(0.95, np.array(1.9)) == np.inf
    assert t_tail(np.inf, 5) == 0
    close(t_quantile(0.99, np.array(1e12)), NormalDist().inv_cdf(0.995), rtol=1e-6)


# Comparisons


def test_is_closer_is_a_paired_t_test_of_squared_differences():
    rng = np.random.default_rng(0)
    L = np.vstack([np.zeros(5_000), rng.normal(0, [[1.0], [1.1], [1.1]], (3, 5_000))])
    L -= L.mean(axis=1, keepdims=True)
    found = is_closer(L, 0, 1, 2)
    expected = stats.ttest_rel(L[2] ** 2 / 2, L[1] ** 2 / 2, alternative="greater")
    close(found.p_value, expected.pvalue, rtol=0.05, atol=1e-5)
    close(found.difference / found.standard_error, expected.statistic, rtol=1e-3)
    kl = kl_intervals(L).kl
    close(found.difference, kl[0, 2] - kl[0, 1])
    back = is_closer(L, 0, 2, 1)
    close(back.difference, -found.difference)
    close(back.p_value, 1 - found.p_value)
    assert found.p_value < 1e-3


def test_is_closer_rejects_no_more_often_than_it_says():
    rng = np.random.default_rng(0)
    blocks = np.arange(300) // 5
    for draw in (rng.standard_normal, lambda size: rng.standard_t(3, size)):
        p = []
        for _ in range(1_000):
            D = draw((3, 300)) + draw((3, 60)).repeat(5, axis=1)
            p.append(
                is_closer(np.stack([np.zeros(300), D[0] + D[2], D[1] + D[2]]), 0, 1, 2, blocks=blocks)[2]
            )
        assert np.mean(np.array(p) < 0.05) < 0.07
        assert 0.4 < np.mean(p) < 0.6


def test_is_closer_has_its_limits_and_knows_noise():
    L = made_up()
    assert is_closer(L, 0, 2, 2) == (0.0, 0.0, 1.0)
    same = L[[0, 0, 2]]
    assert is_closer(same, 0, 1, 2).p_value < 1e-4
    rng = np.random.default_rng(0)
    noisy = np.vstack([np.zeros(20_000), rng.normal(0, 1, (2, 20_000))])
    noisy[2] += rng.normal(0, 1, 20_000)
    assert is_closer(noisy, 0, 1, 2).p_value < 1e-6
    rid = is_closer(noisy, 0, 1, 2, error_var=np.array([0.0, 0.0, 1.0]))
    assert abs(rid.difference) < 4 * rid.standard_error


def test_a_ranking_gives_each_gap_with_the_error_of_the_pair():
    L, blocks = made_up(), documents()
    found, errors = rank_models(L, blocks=blocks), mean_difference_errors(L, blocks=blocks)
    close(found.height, np.sort(height(L))[::-1])
    close(found.to_best, found.height[0] - found.height)
    close(found.to_best_error, errors[found.order[0], found.order], rtol=1e-6)
    close(found.to_next[:-1], -np.diff(found.height), atol=1e-12)
    close(found.to_next_error[:-1], errors[found.order[:-1], found.order[1:]], rtol=1e-6)
    assert np.isnan([found.to_next[-1], found.to_next_error[-1]]).all()


# Resampling


def test_neighbors_are_as_probable_as_a_plain_bootstrap_says():
    rng = np.random.default_rng(0)
    L = rng.normal(0, np.array([[0.1], [1.0], [1.05], [1.1], [1.3], [3.0]]), (6, 300))
    found = neighbor_probabilities(L, 0, 2, n_resamples=500, seed=3)
    counts = np.zeros(6)
    for w in bootstrap_weights(300, 500, seed=3):
        others = estimate_kl(L, weights=w)[0]
        others[0] = np.inf
        counts[np.argsort(others)[:2]] += 1
    close(found, counts / 500)
    close(found.sum(), 2)
    assert found[5] == 0
    assert found[1] > found[3]


def test_a_sure_neighbor_is_sure_and_twins_share_a_place():
    rng = np.random.default_rng(0)
    L = rng.normal(0, 1, (4, 200)) + 10 * rng.normal(0, 1, (4, 200)) * np.array([[0], [0], [1], [1]])
    assert neighbor_probabilities(L, 0, 1, n_resamples=50).tolist() == [0, 1, 0, 0]
    twins = np.vstack([L[[0, 1, 1]], L[2:]])
    close(neighbor_probabilities(twins, 0, 1, n_resamples=50), [0, 0.5, 0.5, 0, 0])
    noise = np.array([0, 0, 0, 2 * (L[2] - L[0]).var() + 50, 0.0])
    close(neighbor_probabilities(twins, 0, 1, n_resamples=50, error_var=noise), [0, 0, 0, 1, 0])


def test_position_covariances_are_those_of_whole_maps_turned_onto_the_first():
    rng = np.random.default_rng(0)
    places = rng.normal(0, [3.0, 2.0], (15, 2))
    L = places @ rng.laplace(size=(2, 400)) + rng.normal(0, 0.5, (15, 400))
    blocks, weights = np.arange(400) // 4, rng.exponential(size=400)
    drawn, _ = principal_axes(L, weights=weights)
    found = position_covariances(L, drawn, weights=weights, blocks=blocks, n_resamples=60, seed=5)
    moved = []
    for w in bootstrap_weights(400, 60, weights=weights, blocks=blocks, seed=5):
        again, _ = principal_axes(L, weights=w)
        U, _, Vt = np.linalg.svd(again.T @ drawn)
        moved.append(again @ U @ Vt)
    expected = [np.cov(point.T) for point in np.transpose(moved, (1, 0, 2))]
    close(found, expected, rtol=1e-4, atol=1e-9)


def test_ellipses_do_not_care_how_the_map_is_turned():
    L = made_up(8, 200)
    drawn, _ = principal_axes(L)
    a = 0.7
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    one, other = (
        ellipses(position_covariances(L, c, n_resamples=40))
        for c in (
            drawn,
            drawn @ turn.T,
        )
    )
    close(one[0], other[0], rtol=1e-6, atol=1e-9)
    close(np.cos(2 * (other[1] - one[1] - a)), 1, atol=1e-6)


def test_an_ellipse_holds_the_share_of_a_gaussian_that_it_says():
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    semi_axes, angle = ellipses(covariance[None], level=0.8)
    points = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 20_000)
    inside = coverage._inside(points, np.repeat(semi_axes, 20_000, axis=0), np.repeat(angle, 20_000))
    close(inside.mean(), 0.8, atol=0.012)


def test_ellipses_hold_the_true_positions_as_often_as_they_say():
    rng = np.random.default_rng(0)
    places = rng.normal(0, [2.0, 1.2], (12, 2))
    places -= places.mean(axis=0)
    _, _, axes = np.linalg.svd(places, full_matrices=False)
    truth = places @ axes.T
    inside = []
    for repeat in range(40):
        L = places @ rng.normal(size=(2, 400)) + rng.normal(0, 0.05, (12, 400))
        drawn, _ = principal_axes(L)
        U, _, Vt = np.linalg.svd(truth.T @ drawn)
        spread = ellipses(position_covariances(L, drawn, n_resamples=60, seed=repeat))
        inside.append(coverage._inside(truth @ U @ Vt - drawn, *spread))
    assert 0.9 < np.mean(inside) < 0.98


# Bad input


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"L": np.ones((2, 1))}, "1 of 1 texts carry weight; at least 2"),
        (
            {"L": np.array([[-1.0, -1.0], [-2.0, -2.0]])},
            "all 2 texts have the same scores: one text repeated",
        ),
        ({"L": np.array([[-1.0, np.nan], [-2.0, -2.0]])}, r"entry \(0, 1\) is nan"),
        ({"blocks": ["a"] * 60}, "1 blocks carry weight; an error bar needs at least 2"),
        ({"blocks": ["a"]}, r"blocks have shape \(1,\), expected \(60,\)"),
        ({"blocks": np.full(60, 0.5)}, "blocks must be whole numbers or names, got float64"),
        ({"weights": -np.ones(60)}, "weights must be finite and not negative, got -1"),
    ],
)
def test_bad_input_gives_no_error_bar(changed, says):
    L = changed.pop("L", made_up())
    for function in (
        kl_intervals,
        mean_difference_errors,
        rank_models,
        lambda L, **given: is_closer(L, 0, 1, 1, **given),
        lambda L, **given: neighbor_probabilities(L, 0, 1, **given),
        lambda L, **given: position_covariances(L, np.zeros((len(L), 2)), **given),
    ):
        with pytest.raises(InputError, match=says):
            function(L, **changed)


def test_what_is_out_of_bounds_is_refused():
    L = made_up()
    drawn, _ = principal_axes(L)
    for call, says in (
        (lambda: kl_intervals(L, level=95), "level must lie between 0 and 1, got 95"),
        (lambda: ellipses(np.eye(2)[None], level=1), "level must lie between 0 and 1, got 1"),
        (lambda: kl_intervals(L, error_var=np.zeros(2)), r"error_var has shape \(2,\), expected \(6,\)"),
        (lambda: is_closer(L, 0, 1, 6), "no model 6: positions go from 0 to 5"),
        (lambda: neighbor_probabilities(L, -1, 1), "no model -1: positions go from 0 to 5"),
        (lambda: neighbor_probabilities(L, 0, 6), "6 models have at most 5 neighbours each, 6 were asked"),
        (lambda: bootstrap_weights(9, 1), "n_resamples must be at least 2, got 1"),
        (lambda: position_covariances(L, drawn[:3]), r"coordinates have shape \(3, 2\), expected \(6, 2\)"),
        (lambda: position_covariances(L, drawn * 1.1), "coordinates are up to .* away from the PCA map"),
        (lambda: make_blocks(3, weights=np.ones(2)), r"weights have shape \(2,\), expected \(3,\)"),
    ):
        with pytest.raises(InputError, match=says):
            call()


@pytest.mark.parametrize("wrong", [np.ones(50), np.array([5.0]), np.float64(5)])
def test_noise_must_be_given_for_each_model(wrong):
    L = np.random.default_rng(0).normal(size=(4, 30))
    for measure in (
        lambda: kl_intervals(L, error_var=wrong),
        lambda: is_closer(L, 0, 1, 2, error_var=wrong),
        lambda: neighbor_probabilities(L, 0, 1, error_var=wrong),
    ):
        with pytest.raises(InputError, match=r"error_var has shape .*, expected \(4,\): one for each model"):
            measure()
