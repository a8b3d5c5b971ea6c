"""Estimators of KL: each is its formula, exact where theory says so, near pairs to the digit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from lmmap import estimates
from lmmap import segments as segments_module
from lmmap.errors import InputError
from lmmap.estimates import ESTIMATORS, coordinate_blocks, estimate_kl_by, gram_matrix
from lmmap.geometry import estimate_kl, estimate_kl_tokens, nearest_neighbors, split_variance
from lmmap.layouts import classical_mds
from lmmap.segments import Segments, segments_of_tokens, segments_of_totals

close = np.testing.assert_allclose
EUCLIDEAN = [name for name in ESTIMATORS if name != "ensemble"]


def made_up(n_models: int = 5, n_texts: int = 30, seed: int = 0) -> Segments:
    """Tokens of texts of many lengths: models differ everywhere, the more the later they are."""
    generator = np.random.default_rng(seed)
    text = np.repeat(np.arange(n_texts), generator.integers(1, 40, n_texts))
    scale = np.linspace(0.1, 2, n_models)[:, None]
    log_probs = generator.normal(-3, 2, len(text)) + scale * generator.normal(0.2, 1, (n_models, len(text)))
    n_bytes = 4 * np.bincount(text) + generator.integers(0, 9, n_texts)
    return segments_of_tokens(log_probs, text, n_bytes)


def made_up_weights(n_texts: int = 30, seed: int = 1) -> np.ndarray:
    weights = np.random.default_rng(seed).exponential(size=n_texts)
    weights[:2] = 0
    return weights


def everything(segments: Segments) -> np.ndarray:
    return segments.read(0, len(segments.text_of_segment))


def by_hand(name: str, segments: Segments, i: int, j: int, weights: np.ndarray | None) -> float:
    """The estimate for one pair as its sentence says it, text by text."""
    n_bytes = segments.n_bytes.astype(float)
    w = np.ones(len(n_bytes)) if weights is None else weights
    w = w / w.sum()
    L = segments.totals[i] - segments.totals[j]
    if name == "text_level":
        return np.cov(L, aweights=w, ddof=0) / 2
    if name == "text_regressed":
        line = np.polyfit(n_bytes, L, 1, w=np.sqrt(w))
        return np.sum(w * (L - np.polyval(line, n_bytes)) ** 2) / 2
    if name == "text_per_byte":  # mean squared deviation per byte, times the bytes of a mean text
        rate = np.sum(w * L) / np.sum(w * n_bytes)
        return np.sum(w * (L - rate * n_bytes) ** 2 / n_bytes) * np.sum(w * n_bytes) / 2
    if name == "midpoint":
        both = (by_hand(part, segments, i, j, weights) for part in ("token_centered", "mixture"))
        return sum(both) / 2
    D, text = everything(segments)[i] - everything(segments)[j], segments.text_of_segment
    if name == "ensemble":
        p = np.exp(everything(segments))
        ratio = (p[i] + p[j]) / 2 / p.mean(axis=0)
        whole = sum(w[x] * np.sum((ratio * D * np.tanh(D / 2))[text == x]) for x in range(len(w)))
        return float(whole / np.average(ratio, weights=w[text]))
    if name.endswith("centered"):
        D = D - np.average(D, weights=w[text])
    per_text = [
        sum(d * np.tanh(d / 2) if name == "mixture" else d**2 / 2 for d in D[text == x])
        for x in range(len(w))
    ]
    return float(w @ per_text)


@pytest.mark.parametrize("weights", [None, made_up_weights()])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_is_what_its_sentence_says(name, weights):
    tokens = made_up()
    kl = estimate_kl_by(name, tokens, weights=weights)
    assert (kl == kl.T).all()
    assert (np.diag(kl) == 0).all()
    for i, j in product(range(5), repeat=2):
        close(kl[i, j], by_hand(name, tokens, i, j, weights), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", [None, made_up_weights()])
def test_text_and_token_levels_are_those_of_geometry(weights):
    tokens = made_up()
    values, text = everything(tokens), tokens.text_of_segment
    close(
        estimate_kl_by("text_level", tokens, weights=weights),
        estimate_kl(tokens.totals, weights=weights),
        rtol=1e-12,
    )
    for name, centered in (("token_level", False), ("token_centered", True)):
        expected = estimate_kl_tokens(values, text, weights=weights, centered=centered)
        close(estimate_kl_by(name, tokens, weights=weights), expected, rtol=1e-12)
        same = estimate_kl_by(name.replace("token", "segment"), tokens, weights=weights)
        assert (same == estimate_kl_by(name, tokens, weights=weights)).all()


def test_the_regressed_level_is_text_level_less_what_length_explains():
    tokens, weights = made_up(), made_up_weights()
    source = ["a"] * len(tokens.n_bytes)
    for i, j in ((0, 1), (2, 4)):
        parts = split_variance(tokens.totals[i] - tokens.totals[j], tokens.n_bytes, source, weights=weights)
        kl = estimate_kl_by("text_regressed", tokens, weights=weights)[i, j]
        close(kl, (parts["source"] + parts["rest"]) / 2, rtol=1e-10)


def test_texts_of_one_length_make_the_text_levels_equal():
    L = np.random.default_rng(0).normal(-900, 30, (4, 20))
    texts = segments_of_totals(L, np.full(20, 512))
    for name in ("text_regressed", "text_per_byte"):
        close(estimate_kl_by(name, texts), estimate_kl(L), rtol=1e-10)


def test_where_mean_and_variance_grow_with_bytes_the_per_byte_level_is_right_and_text_level_is_not():
    """D of a text is a sum of independent bytes: half the variance of a mean text is known."""
    generator = np.random.default_rng(0)
    n_bytes = generator.integers(20, 600, 4000)
    D = generator.normal(0.1 * n_bytes, 0.5 * np.sqrt(n_bytes))
    texts = segments_of_totals(np.stack([D, np.zeros(4000)]), n_bytes)
    true = 0.5**2 * n_bytes.mean() / 2
    error = true * np.sqrt(2 / 4000)
    assert abs(estimate_kl_by("text_per_byte", texts)[0, 1] - true) < 4 * error
    drift = np.var(0.1 * n_bytes) / 2
    close(estimate_kl_by("text_level", texts)[0, 1], true + drift, rtol=0.05)


# Where the mixture level is exact


def conditionals(n_models: int, spread: float, seed: int, v: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of a first token (K, V), and of a second one given the first (K, V, V)."""
    generator = np.random.default_rng(seed)
    base = [generator.normal(size=(1, v)), generator.normal(size=(1, v, v))]
    logits = [b + spread * generator.normal(size=(n_models, *b.shape[1:])) for b in base]
    first, second = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in logits)
    return first, second


@pytest.mark.parametrize("spread", [1e-3, 1.0, 5.0])
def test_the_mixture_level_is_exact_half_jeffreys_on_all_texts_of_the_equal_mixture(spread):
    """Every text of two tokens, weighted by its probability when each token comes from either model."""
    (p1, q1), (p2, q2) = conditionals(2, spread, seed=0)
    pairs = list(product(range(4), repeat=2))
    log_probs = np.array([[x for a, b in pairs for x in (f[a], s[a, b])] for f, s in ((p1, p2), (q1, q2))])
    m1, m2 = (np.exp(p1) + np.exp(q1)) / 2, (np.exp(p2) + np.exp(q2)) / 2
    weights = np.array([m1[a] * m2[a, b] for a, b in pairs])
    tokens = segments_of_tokens(log_probs, np.repeat(np.arange(16), 2), np.full(16, 2))

    def half_jeffreys(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return ((np.exp(p) - np.exp(q)) * (p - q)).sum(axis=-1) / 2

    exact = half_jeffreys(p1, q1) + m1 @ half_jeffreys(p2, q2)
    close(estimate_kl_by("mixture", tokens, weights=weights)[0, 1], exact, rtol=1e-9)


def test_the_mixture_level_is_below_the_plain_one_and_goes_to_it_for_near_models():
    far = made_up()
    above = estimate_kl_by("token_level", far) - estimate_kl_by("mixture", far)
    assert (above[np.triu_indices(5, 1)] > 0).all()
    short = []
    for size in (1e-2, 5e-3):
        near = segments_of_tokens(size * everything(far), far.text_of_segment, far.n_bytes)
        short.append(1 - estimate_kl_by("mixture", near)[0, 1] / estimate_kl_by("token_level", near)[0, 1])
    close(short[0] / short[1], 4, rtol=1e-2)  # D tanh(D / 2) = D^2 / 2 - D^4 / 24 + ...


def test_on_texts_of_one_model_the_plain_level_goes_to_kl_with_the_difference():
    errors = []
    for spread in (0.04, 0.02, 0.01):
        (p, q), _ = conditionals(2, spread, seed=3)
        tokens = segments_of_tokens(np.stack([p, q]), np.arange(4), np.ones(4))
        kl = float(np.exp(p) @ (p - q))
        errors.append(abs(estimate_kl_by("token_level", tokens, weights=np.exp(p))[0, 1] / kl - 1))
    assert errors[2] < 0.01
    close([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.1)


def test_the_mixture_level_is_a_squared_distance_of_waves():
    """Models as points (cos ua, sin ua) for every u > 0, each weighing pi cosh(pi u) / sinh(pi u)^2."""
    log_probs = np.random.default_rng(0).normal(-3, 2, (6, 20))
    tokens = segments_of_tokens(log_probs, np.repeat(np.arange(5), 4), np.full(5, 9))
    h = 0.05  # good to differences far below 2 pi / h; the two half-lines count twice, u = 0 by its limit
    u = h * np.arange(1, 200)
    weight = 2 * h * np.pi * np.cosh(np.pi * u) / np.sinh(np.pi * u) ** 2
    waves = np.exp(1j * u[:, None, None] * log_probs) * np.sqrt(weight / 2)[:, None, None]
    squares = (np.abs(waves[:, :, None] - waves[:, None]) ** 2).sum(axis=(0, 3))
    at_zero = h / (2 * np.pi) * ((log_probs[:, None] - log_probs) ** 2).sum(axis=2)
    close((squares + at_zero) / 5, estimate_kl_by("mixture", tokens), rtol=1e-9, atol=1e-12)


def test_the_midpoint_lies_in_the_middle_and_is_a_squared_distance_as_both_its_parts_are():
    tokens, weights = made_up(), made_up_weights()
    parts = [gram_matrix(name, tokens, weights=weights) for name in ("segment_centered", "mixture")]
    close(gram_matrix("midpoint", tokens, weights=weights), sum(parts) / 2, rtol=1e-9, atol=1e-12)
    values = np.linalg.eigvalsh(parts[1])
    assert values[0] > -1e-12 * values[-1]


def test_the_ensemble_level_is_exact_half_jeffreys_on_all_texts_of_the_mean_of_all_models():
    """Texts of one token: far pairs and near ones, none of which the texts come from."""
    p, _ = conditionals(6, 3.0, seed=4)
    weights = np.exp(p).mean(axis=0)
    tokens = segments_of_tokens(p, np.arange(4), np.full(4, 1))
    kl = estimate_kl_by("ensemble", tokens, weights=weights)
    for i, j in product(range(6), repeat=2):
        close(kl[i, j], ((np.exp(p[i]) - np.exp(p[j])) * (p[i] - p[j])).sum() / 2, rtol=1e-12, atol=1e-15)


def test_of_two_models_the_ensemble_level_is_the_mixture_level():
    tokens, weights = made_up(n_models=2), made_up_weights()
    kl = [estimate_kl_by(name, tokens, weights=weights) for name in ("ensemble", "mixture")]
    close(*kl, rtol=1e-12)


def test_the_ensemble_level_has_no_coordinates():
    with pytest.raises(InputError, match="no coordinates and no Gram matrix"):
        gram_matrix("ensemble", made_up())


def test_the_midpoint_is_exact_up_to_its_constant_where_p0_is_a_mean_of_arithmetic_and_logarithmic_mean():
    """Texts of one token: half the sum of D^2 is exact over the sum of the logarithmic mean, and so on."""
    (p, q), _ = conditionals(2, 2.0, seed=3)
    D, half_jeffreys = p - q, ((np.exp(p) - np.exp(q)) * (p - q)).sum() / 2
    arithmetic, logarithmic = (np.exp(p) + np.exp(q)) / 2, (np.exp(p) - np.exp(q)) / D
    harmonic = 2 / (1 / arithmetic + 1 / logarithmic)
    tokens = segments_of_tokens(np.stack([p, q]), np.arange(4), np.full(4, 1))

    def total(name: str, mean: np.ndarray) -> float:
        return float(estimate_kl_by(name, tokens, weights=mean)[0, 1] * mean.sum())

    close(total("token_level", logarithmic), half_jeffreys, rtol=1e-12)
    both = (total("token_level", harmonic) + total("mixture", harmonic)) / 2
    close(both, half_jeffreys, rtol=1e-12)
    assert logarithmic.sum() < harmonic.sum() < 1


# Squared distances: Gram matrices, coordinates, near pairs


@pytest.mark.parametrize("name", EUCLIDEAN)
def test_coordinates_gram_matrix_and_kl_tell_the_same(name):
    tokens, weights = made_up(), made_up_weights()
    kl, gram = (f(name, tokens, weights=weights) for f in (estimate_kl_by, gram_matrix))
    z = np.concatenate(list(coordinate_blocks(name, tokens, weights=weights)), axis=1)
    close(z.sum(axis=0), 0, atol=1e-12)
    close(((z[:, None] - z) ** 2).sum(axis=2) / 2, kl, rtol=1e-10, atol=1e-12)
    close(z @ z.T, gram, rtol=1e-10, atol=1e-12)
    close((np.diag(gram)[:, None] + np.diag(gram)) / 2 - gram, kl, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", EUCLIDEAN)
def test_maps_take_the_axes_of_the_gram_matrix(name):
    tokens = made_up(n_models=3)
    coordinates, _ = classical_mds(estimate_kl_by(name, tokens))
    values = np.linalg.eigvalsh(gram_matrix(name, tokens))[::-1]
    close((coordinates**2).sum(axis=0), values[:2], rtol=1e-8)


def test_near_pairs_keep_their_digits_among_far_ones():
    """A row and copies of it with ever smaller noise: each distance against the sum of its own squares."""
    generator = np.random.default_rng(0)
    far = made_up(n_models=3, n_texts=400)
    scales = 10.0 ** -np.arange(1, 10)
    rows = everything(far)
    noise = generator.normal(size=(len(scales), rows.shape[1]))
    rows = np.concatenate([rows, rows[2] + scales[:, None] * noise])
    tokens = segments_of_tokens(rows, far.text_of_segment, far.n_bytes)
    kl = estimate_kl_by("token_level", tokens)
    truth = ((rows[3:] - rows[2]) ** 2).sum(axis=1) / 2 / 400
    close(kl[2, 3:], truth, rtol=1e-6)
    assert kl[0, 1] > 1e17 * kl[2, -1]
    assert nearest_neighbors(kl, 1)[2, 0] == len(rows) - 1


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("n_models", [2, 9])
def test_equal_models_are_exactly_nothing_apart(name, n_models):
    first = made_up(n_models)
    rows = np.concatenate([everything(first), everything(first)[-1:]])
    kl = estimate_kl_by(name, segments_of_tokens(rows, first.text_of_segment, first.n_bytes))
    assert kl[-1, -2] == 0
    assert (kl[-1, :-2] > 0).all()
    close(kl[-1, :-2], kl[-2, :-2], rtol=1e-9)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_in_small_blocks_it_is_the_same(name, monkeypatch):
    tokens = made_up()
    whole = estimate_kl_by(name, tokens)
    monkeypatch.setattr(estimates, "COLUMNS_AT_ONCE", 7)
    monkeypatch.setattr(segments_module, "NUMBERS_AT_ONCE", 5 * 90)
    assert len(list(tokens.blocks())) > 5
    close(estimate_kl_by(name, tokens), whole, rtol=1e-10, atol=1e-12)


# Weights and samples


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_weight_of_two_is_a_text_twice_and_of_zero_is_none(name):
    tokens = made_up(n_texts=8)
    times = np.array([1, 2, 0, 1, 3, 1, 0, 1])
    values, text = everything(tokens), tokens.text_of_segment
    repeated = np.repeat(np.arange(8), times)
    copied = np.concatenate([values[:, text == x] for x in repeated], axis=1)
    numbers = np.concatenate([np.full((text == x).sum(), i) for i, x in enumerate(repeated)])
    unweighted = segments_of_tokens(copied, numbers, tokens.n_bytes[repeated])
    close(estimate_kl_by(name, tokens, weights=times), estimate_kl_by(name, unweighted), rtol=1e-9)


@pytest.mark.parametrize("name", ["token_level", "token_centered", "mixture"])
def test_a_sample_of_segments_gives_unbiased_estimates(name):
    tokens, weights = made_up(n_models=3), made_up_weights()
    whole = estimate_kl_by(name, tokens, weights=weights)
    drawn = [
        estimate_kl_by(name, tokens.sample(150, seed=seed), weights=weights)[0, 1:] for seed in range(300)
    ]
    error = np.std(drawn, axis=0) / np.sqrt(300)
    assert (error < whole[0, 1:] / 50).all()
    assert (abs(np.mean(drawn, axis=0) - whole[0, 1:]) < 4 * error).all()


def test_a_sample_of_all_is_all_and_does_not_touch_text_level():
    tokens = made_up()
    few = tokens.sample(20, seed=1)
    n = len(tokens.text_of_segment)
    assert sum(block.shape[1] for block, _ in few.blocks()) == 20
    assert few.share == 20 / n
    assert (estimate_kl_by("text_level", few) == estimate_kl_by("text_level", tokens)).all()
    assert (estimate_kl_by("mixture", few.sample(n)) == estimate_kl_by("mixture", tokens)).all()
    again = estimate_kl_by("mixture", tokens.sample(20, seed=1))
    assert (again == estimate_kl_by("mixture", few)).all()


# What cannot be estimated


def test_every_estimator_says_what_it_assumes_in_one_sentence():
    for sentence in ESTIMATORS.values():
        assert sentence.endswith(".")
        assert ". " not in sentence.replace("eq. ", "")


def one_text() -> Segments:
    return segments_of_tokens(np.array([[-1.0, -3.0], [-2.0, -2.0]]), np.array([0, 0]), np.array([5]))


def one_segment() -> Segments:
    return segments_of_tokens(np.array([[-1.0], [-2.0]]), np.array([0]), np.array([5]))


def two_tokenizers() -> Segments:
    return replace(one_text(), unit="segment")


def test_one_text_has_token_levels_and_no_text_level():
    assert estimate_kl_by("token_level", one_text())[0, 1] == 1.0
    assert estimate_kl_by("token_centered", one_text())[0, 1] == 1.0
    assert estimate_kl_by("token_level", one_segment())[0, 1] == 0.5
    assert estimate_kl_by("segment_centered", two_tokenizers())[0, 1] == 1.0


@pytest.mark.parametrize(
    ("name", "made", "weights", "message"),
    [
        ("text_levels", made_up, None, "unknown estimator 'text_levels' .closest: 'text_level'.; use one of"),
        ("text_level", one_text, None, "1 of 1 texts carry weight; at least 2 must"),
        ("text_per_byte", made_up, np.eye(30)[3], "1 of 30 texts carry weight; at least 2 must"),
        ("text_regressed", made_up, np.eye(30)[3] + np.eye(30)[4], "leaves nothing; give three or more"),
        ("token_centered", one_segment, None, "token_centered needs two tokens that carry weight, got one"),
        ("token_level", two_tokenizers, None, "models of one tokenizer; use segment_level"),
        ("token_level", made_up, np.ones(7), r"weights have shape \(7,\), expected \(30,\)"),
        ("mixture", made_up, -np.ones(30), "must be finite and not negative, got -1"),
    ],
)
def test_what_cannot_be_estimated_is_said(name, made: Callable[[], Segments], weights, message):
    with pytest.raises(InputError, match=message):
        estimate_kl_by(name, made(), weights=weights)


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if not n.startswith("text")])
def test_without_token_records_there_are_only_text_levels(name):
    texts = segments_of_totals(np.array([[-1.0, -3.0], [-2.0, -2.0]]), np.array([8, 8]))
    with pytest.raises(InputError, match=f"{name} needs token records"):
        estimate_kl_by(name, texts)


def test_a_model_far_from_all_others_has_no_ensemble_level():
    rows = np.array([[-1.0, -1], [-900, -900], [-901, -901]])
    pieces = segments_of_tokens(rows, np.array([0, 1]), np.array([1, 1]))
    with pytest.raises(InputError, match="model 1 is too far from the others for the ensemble level"):
        estimate_kl_by("ensemble", pieces)
