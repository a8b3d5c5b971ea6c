"""Distances are variances, half of them KL to second order: identities, closed forms, independent sums."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmmap.errors import InputError
from lmmap.geometry import (
    bits_per_byte,
    clip_below,
    double_center,
    estimate_kl,
    estimate_kl_tokens,
    height,
    nearest_neighbors,
    split_variance,
    squared_distances,
)

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=50)
close = np.testing.assert_allclose


def made_up(n_models: int = 5, n_texts: int = 40, seed: int = 0) -> np.ndarray:
    """Values of a natural size: texts differ much, models less."""
    generator = np.random.default_rng(seed)
    return generator.normal(-900, 300, n_texts) + generator.normal(0, 30, (n_models, n_texts))


def made_up_weights(n_texts: int = 40, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=n_texts)


@st.composite
def matrices(draw: st.DrawFn, n_models: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Any matrix of values in nats, and weights of which at least two are positive."""
    shape = (n_models or draw(st.integers(1, 5)), draw(st.integers(2, 12)))
    values = draw(arrays(np.float64, shape, elements=st.floats(-1e3, 0)))
    weights = draw(arrays(np.float64, shape[1], elements=st.sampled_from([0.0, 0.5, 1.0, 7.0])))
    weights[:2] += 1
    return values, weights


# Centring and distances


@REPEATABLE
@given(matrices())
def test_squared_distance_is_the_population_variance_of_the_difference(case):
    L, weights = case
    for w in (None, weights):
        distances = squared_distances(L, weights=w)
        for i, j in product(range(len(L)), repeat=2):
            variance = np.cov(L[i] - L[j], aweights=w, ddof=0)
            close(np.sqrt(distances[i, j]), np.sqrt(variance), rtol=1e-10, atol=1e-11)
        assert (distances == distances.T).all()
        assert (np.diag(distances) == 0).all()
        assert (estimate_kl(L, weights=w) == distances / 2).all()


@REPEATABLE
@given(matrices())
def test_centred_rows_are_as_far_apart_as_the_distances_say(case):
    L, weights = case
    Q, w = double_center(L, weights=weights), weights / weights.sum()
    close(Q.sum(axis=0), 0, atol=1e-11)
    close(Q @ w, 0, atol=1e-11)
    apart = np.sqrt((Q[:, None] - Q[None]) ** 2 @ w)
    close(apart, np.sqrt(squared_distances(L, weights=weights)), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("weights", [None, made_up_weights()])
def test_what_centring_takes_away_changes_no_distance(weights):
    L = made_up()
    distances = squared_distances(L, weights=weights)
    generator = np.random.default_rng(2)
    for shift in (generator.normal(0, 500, (5, 1)), generator.normal(0, 500, (1, 40)), -3.25):
        close(squared_distances(L + shift, weights=weights), distances, rtol=1e-10)
        close(double_center(L + shift, weights=weights), double_center(L, weights=weights), atol=1e-9)
    close(squared_distances(double_center(L, weights=weights), weights=weights), distances, rtol=1e-10)
    close(squared_distances(L - L.mean(axis=0), weights=weights), distances, rtol=1e-10)


def test_distances_do_not_depend_on_which_other_models_are_there():
    L = made_up()
    close(squared_distances(L[[1, 3]]), squared_distances(L)[np.ix_([1, 3], [1, 3])], rtol=1e-12)


@REPEATABLE
@given(matrices())
def test_distance_of_raw_rows_is_a_horizontal_and_a_vertical_part(case):
    L, weights = case
    for w in (None, weights):
        share = np.full(L.shape[1], 1 / L.shape[1]) if w is None else w / w.sum()
        heights = height(L, weights=w)
        vertical = (heights[:, None] - heights[None]) ** 2
        raw = (L[:, None] - L[None]) ** 2 @ share
        close(np.sqrt(squared_distances(L, weights=w) + vertical), np.sqrt(raw), rtol=1e-10, atol=1e-11)


def test_height_is_the_weighted_mean():
    assert height([[-1, -5], [-2, -2]], weights=[3, 1]).tolist() == [-2, -2]


def test_weights_are_repeated_columns():
    L, counts = made_up(), np.random.default_rng(3).integers(0, 4, 40)
    copies = np.repeat(L, counts, axis=1)
    close(squared_distances(L, weights=counts), squared_distances(copies), rtol=1e-12)
    close(height(L, weights=counts), height(copies), rtol=1e-14)
    centred = np.repeat(double_center(L, weights=counts), counts, axis=1)
    close(centred, double_center(copies), atol=1e-11)


def test_only_the_proportions_of_weights_count():
    L, weights = made_up(), made_up_weights()
    distances = squared_distances(L, weights=weights)
    assert (squared_distances(L, weights=weights * 2.0**20) == distances).all()
    close(squared_distances(L, weights=weights / 3e7), distances, rtol=1e-12)
    close(squared_distances(L, weights=np.full(40, 0.3)), squared_distances(L), rtol=1e-12)
    kept = weights > 0.5
    close(squared_distances(L, weights=kept), squared_distances(L[:, kept]), rtol=1e-12)


def test_order_of_texts_and_models_does_not_matter():
    L, weights = made_up(), made_up_weights()
    distances = squared_distances(L, weights=weights)
    generator = np.random.default_rng(4)
    models, texts = generator.permutation(5), generator.permutation(40)
    close(squared_distances(L[:, texts], weights=weights[texts]), distances, rtol=1e-12)
    close(squared_distances(L[models], weights=weights), distances[np.ix_(models, models)], rtol=1e-12)


def exact_variance(a: np.ndarray, b: np.ndarray) -> float:
    differences = [Fraction(x) - Fraction(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    mean = sum(differences) / len(differences)
    return float(sum((d - mean) ** 2 for d in differences) / len(differences))


def test_near_models_keep_their_distance_beside_huge_and_hugely_different_values():
    generator = np.random.default_rng(5)
    base = generator.normal(-1e4, 3e3, 300)
    L = np.tile(base, (3, 1)) + generator.normal(0, 1e-3, (3, 300))
    L[2] = generator.normal(-6e4, 2e4, 300)
    distances = squared_distances(L)
    exact = exact_variance(L[0], L[1])
    assert 1e-6 < exact < 3e-6
    close(distances[0, 1], exact, rtol=1e-8)
    close(distances[0, 2], exact_variance(L[0], L[2]), rtol=1e-13)
    gram = L @ L.T  # what the module must not do
    assert abs((gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]) / 300 - exact) > 1e-4 * exact


def test_equal_models_have_distance_zero_exactly():
    L = made_up()[[0, 1, 0, 2, 1]]
    L[3] *= 100
    distances = squared_distances(L, weights=made_up_weights())
    assert distances[0, 2] == distances[1, 4] == 0
    assert (distances >= 0).all()


def test_input_is_left_alone_and_may_be_integers_or_lists():
    L = np.array([[-1, -3], [-2, -2]])
    for function in (double_center, squared_distances, estimate_kl, height):
        assert function(L).dtype == np.float64
        assert function(L.tolist()).tolist() == function(L).tolist()
    assert L.tolist() == [[-1, -3], [-2, -2]]


# The estimate and KL, in closed form: p_i = p_0 exp(eps f_i) / Z over 7 outcomes, texts weighted by p_0

P0 = np.random.default_rng(6).dirichlet(np.ones(7))
F = np.random.default_rng(7).normal(size=(3, 7))


def log_family(eps: float, directions: np.ndarray = F) -> np.ndarray:
    exponents = np.log(P0) + eps * directions
    return exponents - np.log(np.exp(exponents).sum(axis=1, keepdims=True))


def exact_kl(logs: np.ndarray) -> np.ndarray:
    return (np.exp(logs)[:, None] * (logs[:, None] - logs[None])).sum(axis=-1)


def third_moment(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return P0 @ ((a - P0 @ a) * (b - P0 @ b) * (c - P0 @ c))


PAIRS = [(i, j) for i in range(3) for j in range(3) if i != j]


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_estimate_over_kl_goes_to_one_linearly(i, j):
    errors = []
    for eps in (0.02, 0.01, 0.005):
        logs = log_family(eps)
        errors.append(estimate_kl(logs, weights=P0)[i, j] / exact_kl(logs)[i, j] - 1)
    assert abs(errors[-1]) < 0.01
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([2, 2], rel=0.1)


@pytest.mark.parametrize(("i", "j"), PAIRS)
def test_what_the_estimate_leaves_out_is_the_third_moment(i, j):
    # KL_ij = integral of (1 - t) Var_t(l_i - l_j); the first derivative of Var_t gives the cubic term.
    g = F[i] - F[j]
    cubic = third_moment(g, g, F[i]) / 3 + third_moment(g, g, F[j]) / 6
    logs = log_family(1e-3)
    left_out = exact_kl(logs)[i, j] - estimate_kl(logs, weights=P0)[i, j]
    assert left_out / 1e-9 == pytest.approx(cubic, rel=0.02)


def test_about_the_middle_the_half_jeffreys_has_no_cubic_term():
    errors = []
    for eps in (0.2, 0.1, 0.05):
        logs = log_family(eps, np.stack([F[0], -F[0]]))
        half_jeffreys = exact_kl(logs).sum() / 2
        errors.append(estimate_kl(logs, weights=P0)[0, 1] / half_jeffreys - 1)
    assert [a / b for a, b in pairwise(errors)] == pytest.approx([4, 4], rel=0.1)


def test_kl_is_an_integral_of_variances_along_the_path_between_far_models():
    logs = log_family(2.0)
    nodes, shares = np.polynomial.legendre.leggauss(40)
    for i, j in PAIRS:
        integral = 0.0
        for t, share in zip((nodes + 1) / 2, shares / 2, strict=True):
            path = np.exp((1 - t) * logs[i] + t * logs[j])
            integral += share * (1 - t) * squared_distances(logs, weights=path)[i, j]
        assert integral == pytest.approx(exact_kl(logs)[i, j], rel=1e-10)


def test_estimate_from_drawn_texts_agrees_within_its_error():
    logs, n = log_family(0.3), 20_000
    drawn = np.random.default_rng(8).choice(7, size=n, p=P0)
    true = estimate_kl(logs, weights=P0)
    for i, j in PAIRS:
        d = logs[i] - logs[j]
        squares = (d - P0 @ d) ** 2 / 2
        error = np.sqrt((P0 @ squares**2 - true[i, j] ** 2) / n)
        assert abs(estimate_kl(logs[:, drawn])[i, j] - true[i, j]) < 4 * error


# Token by token


def enumerated(logs: np.ndarray, lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All texts of each length with i.i.d. tokens: (K, T) log-probs, text of each token, weights."""
    texts = [text for n in lengths for text in product(range(7), repeat=n)]
    tokens = np.array([token for text in texts for token in text])
    number = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    return logs[:, tokens], number, np.array([np.prod(P0[list(text)]) for text in texts])


def totals(token_log_probs: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(number, weights=row) for row in token_log_probs])


def test_token_level_estimate_of_independent_tokens_is_that_of_one_token_times_length():
    logs = log_family(0.5)
    token_log_probs, number, weights = enumerated(logs, (3,))
    estimate = estimate_kl_tokens(token_log_probs, number, weights=weights)
    close(estimate, 3 * estimate_kl(logs, weights=P0), rtol=1e-12)
    close(estimate, estimate_kl(totals(token_log_probs, number), weights=weights), rtol=1e-12)
    plain = estimate_kl_tokens(token_log_probs, number, weights=weights, centered=False)
    close(plain, 3 / 2 * (logs[:, None] - logs[None]) ** 2 @ P0, rtol=1e-12)


def test_token_level_estimate_goes_to_the_kl_of_texts():
    for eps, centered in product((0.02, 0.002), (True, False)):
        logs = log_family(eps)
        token_log_probs, number, weights = enumerated(logs, (2,))
        estimate = estimate_kl_tokens(token_log_probs, number, weights=weights, centered=centered)
        for i, j in PAIRS:
            assert estimate[i, j] / (2 * exact_kl(logs)[i, j]) == pytest.approx(1, abs=2 * eps)


def test_texts_of_many_lengths_mislead_the_text_level_only():
    logs = log_family(1.0)
    token_log_probs, number, weights = enumerated(logs, (1, 4))
    means = logs @ P0
    drift = (means[:, None] - means[None]) ** 2
    by_token = estimate_kl_tokens(token_log_probs, number, weights=weights)
    by_text = estimate_kl(totals(token_log_probs, number), weights=weights)
    close(by_token, 2.5 * estimate_kl(logs, weights=P0), rtol=1e-12)
    close(by_text - by_token, 1.5**2 / 2 * drift, rtol=1e-10)  # Var(length) / 2 times the mean's square


@pytest.mark.parametrize(
    ("centered", "options", "expected"),
    [  # the differences are 1, -1 in text 0 and 1 in text 1
        (False, {}, 3 / 4),
        (False, {"n_texts": 4}, 3 / 8),
        (False, {"weights": [3, 1]}, 7 / 8),
        (True, {}, 2 / 3),
        (True, {"weights": [3, 1]}, 6 / 7),
        (True, {"weights": [0, 2]}, 0),
    ],
)
def test_token_level_estimate_by_hand(centered, options, expected):
    estimate = estimate_kl_tokens([[-1, -3, -1], [-2, -2, -2]], [0, 0, 1], centered=centered, **options)
    assert estimate[0, 1] == pytest.approx(expected, rel=1e-14, abs=0)


def test_one_text_of_one_token():
    assert estimate_kl_tokens([[-5], [-2]], [0]).tolist() == [[0, 0], [0, 0]]
    assert estimate_kl_tokens([[-5], [-2]], [0], centered=False).tolist() == [[0, 4.5], [4.5, 0]]


def test_token_level_estimate_equals_a_plain_loop():
    generator = np.random.default_rng(9)
    tokens, number = -generator.exponential(3, (3, 60)), np.sort(generator.integers(0, 12, 60))
    weights = generator.exponential(size=12)
    w = weights / weights.sum()
    for i, j in PAIRS:
        differences = [tokens[i, t] - tokens[j, t] for t in range(60)]
        mean = sum(w[number[t]] * differences[t] for t in range(60)) / sum(w[number[t]] for t in range(60))
        loop = sum(w[number[t]] * (differences[t] - mean) ** 2 for t in range(60)) / 2
        assert estimate_kl_tokens(tokens, number, weights=weights)[i, j] == pytest.approx(loop, rel=1e-12)
    order = generator.permutation(60)
    shuffled = estimate_kl_tokens(tokens[:, order], number[order], weights=weights)
    close(shuffled, estimate_kl_tokens(tokens, number, weights=weights), rtol=1e-12)
    shifted = estimate_kl_tokens(tokens + np.array([[0], [-4], [9]]), number, weights=weights)
    close(shifted, estimate_kl_tokens(tokens, number, weights=weights), rtol=1e-10)


# The rest


def test_bits_per_byte_is_eight_for_bytes_at_random():
    lengths = np.array([256, 1024, 700])
    mean_nats = np.mean(lengths * np.log(256))
    assert float(bits_per_byte(mean_nats, lengths)) == pytest.approx(8, rel=1e-15)
    weighted = np.average(lengths * np.log(256), weights=[1, 0, 5])
    assert float(bits_per_byte(weighted, lengths, weights=[1, 0, 5])) == pytest.approx(8, rel=1e-15)
    assert bits_per_byte(np.zeros((2, 3)), lengths).shape == (2, 3)


@REPEATABLE
@given(matrices(), st.sampled_from([0.02, 0.3, 0.5, 0.99]))
def test_clipping_at_a_quantile_is_numpys_and_gives_the_threshold_back(case, quantile):
    L = case[0]
    before = L.copy()
    clipped, threshold = clip_below(L, quantile=quantile)
    assert threshold == np.quantile(L, quantile)
    assert (clipped == np.clip(L, np.quantile(L, quantile), None)).all()
    assert (clip_below(L, threshold=threshold)[0] == clipped).all()
    assert (clip_below(clipped, threshold=threshold)[0] == clipped).all()
    assert np.array_equal(L, before)


def test_clipping_raises_the_share_that_was_asked_for():
    L = made_up(20, 500)
    clipped, threshold = clip_below(L, quantile=0.02)
    assert (clipped != L).mean() == 0.02
    assert clipped.min() == threshold


def test_nearest_neighbors_against_brute_force():
    distances = squared_distances(made_up(12, 30))
    for k in (1, 4, 11):
        expected = [
            sorted((j for j in range(12) if j != i), key=lambda j, i=i: distances[i, j])[:k]
            for i in range(12)
        ]
        assert nearest_neighbors(distances, k).tolist() == expected


def test_nearest_neighbors_among_many_ties_are_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    for n_models in (3, 8, 25):
        for k in {1, 2, n_models // 2, n_models - 1}:
            kl = rng.integers(0, 4, (n_models, n_models)).astype(float)
            others = kl + np.diag(np.full(n_models, np.inf))
            expected = np.argsort(others, axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(nearest_neighbors(kl, k), expected)


def test_a_model_is_not_its_own_neighbour_and_ties_go_to_the_first():
    assert nearest_neighbors(np.zeros((3, 3)), 2).tolist() == [[1, 2], [0, 2], [0, 1]]
    first = nearest_neighbors(np.zeros((50, 50)), 30)
    assert first[0].tolist() == list(range(1, 31))
    assert first[-1].tolist() == list(range(30))


def in_steps(difference, n_bytes, source, weights) -> list[float]:
    """Sequential analysis of variance by least squares: length first, then sources on what is left."""
    w = weights / weights.sum()
    designs = [
        np.stack([np.ones_like(n_bytes), n_bytes], axis=1),
        (source[:, None] == np.unique(source)[None]).astype(float),
    ]
    left = difference - w @ difference
    variances = [w @ left**2]
    for design in designs:
        root = np.sqrt(w)[:, None]
        fit, *_ = np.linalg.lstsq(root * design, root[:, 0] * left, rcond=None)
        left = left - design @ fit
        variances.append(w @ left**2)
    return [variances[0] - variances[1], variances[1] - variances[2], variances[2]]


@pytest.mark.parametrize("weighted", [False, True])
def test_variance_splits_as_least_squares_in_steps_does(weighted):
    generator = np.random.default_rng(10)
    n_bytes = generator.integers(257, 1024, 200).astype(float)
    source = generator.choice(["code", "prose", "法律"], 200)
    difference = 0.02 * n_bytes + 5.0 * (source == "code") + generator.normal(0, 3, 200)
    weights = generator.exponential(size=200) if weighted else np.ones(200)
    split = split_variance(difference, n_bytes, source, weights=weights if weighted else None)
    close(list(split.values()), in_steps(difference, n_bytes, source, weights), rtol=1e-9)
    variance = np.cov(difference, aweights=weights, ddof=0)
    assert sum(split.values()) == pytest.approx(float(variance), rel=1e-12)
    assert list(split) == ["length", "source", "rest"]
    assert min(split.values()) > 1


@REPEATABLE
@given(matrices(n_models=2), st.data())
def test_parts_of_the_variance_sum_to_it(case, data):
    (difference, n_bytes), weights = case
    source = data.draw(st.lists(st.sampled_from("abc"), min_size=len(weights), max_size=len(weights)))
    split = split_variance(difference, 1 - n_bytes, source, weights=weights)
    assert min(split.values()) >= 0
    variance = squared_distances([difference, 0 * difference], weights=weights)[0, 1]
    assert sum(split.values()) == pytest.approx(variance, rel=1e-9, abs=1e-15)


def test_pure_cases_of_the_split():
    lengths, sources = np.array([300.0, 500.0, 900.0, 1000.0]), ["a", "b", "b", "a"]
    by_length = split_variance(3 - lengths / 7, lengths, sources)
    assert by_length["length"] == pytest.approx(np.var(lengths / 7), rel=1e-12)
    assert by_length["source"] + by_length["rest"] < 1e-20
    by_source = split_variance([2.0, -1.0, -1.0, 2.0], [600, 600, 600, 600], sources)
    assert by_source == pytest.approx({"length": 0, "source": 2.25, "rest": 0}, abs=1e-15)
    rest = split_variance([1.0, -1.0, 1.0, -1.0], [600, 700, 700, 600], ["a"] * 4)
    assert rest == pytest.approx({"length": 0, "source": 0, "rest": 1}, abs=1e-15)


# Bad input

FINE = np.array([[-1.0, -3.0, -2.0], [-2.0, -2.0, -4.0]])
WITH_NAN = np.array([[-1.0, -3.0, -2.0], [-2.0, np.nan, -4.0]])
WITH_INF = np.array([[-1.0, -3.0, -np.inf], [-2.0, -1.0, -4.0]])


@pytest.mark.parametrize("function", [double_center, squared_distances, estimate_kl, height])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"L": WITH_NAN}, r"entry \(1, 1\) is nan"),
        ({"L": WITH_INF}, r"entry \(0, 2\) is -inf"),
        ({"L": FINE[0]}, r"K models x N texts, got shape \(3,\)"),
        ({"L": FINE[None]}, r"got shape \(1, 2, 3\)"),
        ({"L": FINE[:0]}, r"got shape \(0, 3\)"),
        ({"L": FINE[:, :0]}, r"got shape \(2, 0\)"),
        ({"L": FINE[:, :1]}, "1 of 1 texts carry weight; at least 2 must"),
        ({"L": FINE, "weights": [0, 4, 0]}, "1 of 3 texts carry weight; at least 2 must"),
        ({"L": FINE, "weights": [1, 1]}, r"weights have shape \(2,\), expected \(3,\)"),
        ({"L": FINE, "weights": FINE}, r"weights have shape \(2, 3\), expected \(3,\)"),
        ({"L": FINE, "weights": [1, -2.5, 1]}, "not negative, got -2.5"),
        ({"L": FINE, "weights": [1, np.nan, 1]}, "finite and not negative, got nan"),
        ({"L": FINE, "weights": [1, np.inf, 1]}, "finite and not negative, got inf"),
    ],
)
def test_matrices_and_weights_that_are_refused(function, arguments, told):
    with pytest.raises(InputError, match=told):
        function(**arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"text_of_token": [0, 0]}, r"shape \(2, 3\), text_of_token \(2,\)"),
        ({"text_of_token": [[0, 0, 1]]}, r"text_of_token \(1, 3\)"),
        ({"text_of_token": [0, 0, 2], "n_texts": 2}, "from 0 to 1, got int64 from 0 to 2"),
        ({"text_of_token": [0, -1, 2]}, "from 0 to 2, got int64 from -1 to 2"),
        ({"text_of_token": [0, 0.5, 1]}, "whole numbers from 0 to 1, got float64"),
        ({"text_of_token": [0, 0, 1], "weights": [1, 1, 1]}, r"weights have shape \(3,\), expected \(2,\)"),
        ({"text_of_token": [0, 0, 0], "n_texts": 2, "weights": [0, 1]}, "0 of 3 .* carry weight"),
        ({"token_log_probs": WITH_NAN, "text_of_token": [0, 0, 1]}, r"entry \(1, 1\) is nan"),
        ({"token_log_probs": np.zeros((2, 0)), "text_of_token": np.zeros(0, int)}, r"text_of_token \(0,\)"),
    ],
)
def test_tokens_that_are_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        estimate_kl_tokens(**{"token_log_probs": FINE} | arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "either quantile or threshold"),
        ({"quantile": 0.1, "threshold": -3}, "either quantile or threshold"),
        ({"quantile": 2}, "between 0 and 1, got 2"),
        ({"quantile": 0}, "between 0 and 1, got 0"),
        ({"quantile": np.nan}, "between 0 and 1, got nan"),
        ({"threshold": np.nan}, "finite, got nan"),
        ({"threshold": -np.inf}, "finite, got -inf"),
        ({"threshold": 1412.0}, r"1412, above every value \(the largest is -1\)"),
        ({"values": WITH_NAN, "threshold": -3}, r"entry \(1, 1\) is nan"),
        ({"values": WITH_INF, "quantile": 0.02}, r"entry \(0, 2\) is -inf"),
    ],
)
def test_clipping_that_is_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        clip_below(**{"values": FINE} | arguments)


@pytest.mark.parametrize(
    ("kl", "k", "told"),
    [
        (np.zeros((3, 3)), 3, "3 models have at most 2 neighbours each, 3 were asked for"),
        (np.zeros((3, 3)), 0, "0 were asked for"),
        (np.zeros((1, 1)), 1, "1 models have at most 0"),
        (np.zeros((3, 2)), 1, r"got shape \(3, 2\)"),
        (np.array([[0, np.nan], [1, 0]]), 1, "models 0 and 1 is nan"),
    ],
)
def test_neighbours_that_are_refused(kl, k, told):
    with pytest.raises(InputError, match=told):
        nearest_neighbors(kl, k)


@pytest.mark.parametrize(
    ("n_bytes", "told"),
    [
        ([4, 0], "positive, got 0"),
        ([4, -1], "positive, got -1"),
        ([4, np.nan], "positive, got nan"),
        ([4, np.inf], "positive, got inf"),
        ([], "0 of 0 texts carry weight"),
        (4, r"one length for each text, got shape \(\)"),
    ],
)
def test_lengths_that_are_refused(n_bytes, told):
    with pytest.raises(InputError, match=told):
        bits_per_byte(1.0, n_bytes)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([1, 2], [10, 20, 30], ["a", "b"]), r"shapes \(2,\), \(3,\) and \(2,\)"),
        (([1, 2], [10, 20], ["a"]), r"shapes \(2,\), \(2,\) and \(1,\)"),
        ((FINE, FINE, FINE), r"shapes \(2, 3\), \(2, 3\) and \(2, 3\)"),
        (([1, np.nan], [10, 20], ["a", "b"]), r"entry \(0, 1\) is nan"),
        (([1, 2], [10, np.inf], ["a", "b"]), r"entry \(1, 1\) is inf"),
        (([1], [10], ["a"]), "1 of 1 texts carry weight; at least 2 must"),
    ],
)
def test_splits_that_are_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        split_variance(*arguments)
