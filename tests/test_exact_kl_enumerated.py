"""Distributions known whole: against tables on paper, closed forms, and the integral along a path."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from enumerable import (
    V,
    all_sequences,
    bigram_model,
    log_softmax,
    of_chain,
    of_tokens,
    plain_log_probs,
    with_logits,
    word_tokenizer,
)
from scipy.integrate import quad
from scipy.stats import entropy

from lmmap.errors import InputError
from lmmap.exact_kl import (
    Enumerated,
    compare_estimates,
    enumerate_sequences,
    exact_kl_on_samples,
    half_jeffreys_of_sequences,
    kl_along_path,
    variance_along_path,
)
from lmmap.geometry import estimate_kl, estimate_kl_tokens, squared_distances
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model


@pytest.fixture
def random_pair(make_model: Callable[..., Path]) -> Callable[..., list]:
    """Give a function that loads two tiny random models of a kind over the words."""

    def load(kind: str, **changes: object) -> list:
        special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "vocab_size": V}
        options = {"tokenizer": word_tokenizer(), "scale": 4.0, **special, **changes}
        return [
            load_model(ModelSpec(str(make_model(kind, seed=seed, **options)), name=f"{kind}-{seed}"))
            for seed in (0, 1)
        ]

    return load


LAST_EXCLUDED = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -np.inf]])


def random_table(n_models: int, n_outcomes: int, *, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return log_softmax(scale * np.random.default_rng(seed).normal(size=(n_models, n_outcomes)))


def named(table: np.ndarray, n_tokens: int = 1) -> Enumerated:
    return Enumerated(tuple("pqrs"[: len(table)]), table, n_tokens)


# Models


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_real_models_have_the_probabilities_of_a_plain_float64_loop(
    kind: str, random_pair: Callable[..., list]
) -> None:
    pair, length = random_pair(kind), 4
    exact = enumerate_sequences(pair, n_tokens=length)
    sequences = all_sequences(length)
    assert exact.models == (f"{kind}-0", f"{kind}-1")
    assert exact.ids.tolist() == [list(row) for row in sequences]
    np.testing.assert_allclose(exact.probs.sum(axis=1), 1, atol=1e-12)
    tables = [plain_log_probs(model, sequences) for model in pair]
    plain = np.stack([of_tokens(table, sequences) for table in tables])
    np.testing.assert_allclose(exact.log_probs, plain, atol=1e-4)
    difference = plain[0] - plain[1]
    assert exact.kl[0, 1] == pytest.approx(np.exp(plain[0]) @ difference, rel=1e-4)
    assert exact.kl[1, 0] == pytest.approx(-np.exp(plain[1]) @ difference, rel=1e-4)
    tokens = [np.take_along_axis(table, exact.ids[..., None], axis=2).ravel() for table in tables]
    np.testing.assert_allclose(exact.token_log_probs, tokens, atol=1e-4)


def test_a_markov_chain_has_the_kl_that_its_transitions_have_on_paper(tmp_path: Path) -> None:
    length = 5
    p, q = random_table(2 * V, V).reshape(2, V, V)
    exact = enumerate_sequences(
        [bigram_model(tmp_path, "p", p), bigram_model(tmp_path, "q", q)], n_tokens=length
    )
    chains = [[of_chain(table, ids) for ids in exact.ids] for table in (p, q)]
    np.testing.assert_allclose(exact.log_probs, chains, atol=1e-5)
    for i, (one, other) in enumerate(((p, q), (q, p))):
        of_context = (np.exp(one) * (one - other)).sum(axis=1)
        state, total = np.eye(V)[0], 0.0  # the prefix is token 0
        for _ in range(length):
            total += state @ of_context
            state = state @ np.exp(one)
        assert exact.kl[i, 1 - i] == pytest.approx(total, rel=1e-5)


def test_models_that_do_not_look_back_are_so_many_tokens_apart(tmp_path: Path) -> None:
    length, words = 6, random_table(2, V)
    pair = [bigram_model(tmp_path, n, np.tile(row, (V, 1))) for n, row in zip("pq", words, strict=True)]
    exact = enumerate_sequences(pair, n_tokens=length)
    difference = words[0] - words[1]
    kl = entropy(*np.exp(words))
    assert exact.kl[0, 1] == pytest.approx(length * kl, rel=1e-5)
    variance = np.exp(words[0]) @ (difference - kl) ** 2
    assert exact.variance[0, 1] == pytest.approx(length * variance, rel=1e-5)


def test_sampling_agrees_with_enumeration_in_both_directions(random_pair: Callable[..., list]) -> None:
    pair, length = random_pair("gpt_neox"), 5
    exact = enumerate_sequences(pair, n_tokens=length)
    runs = [exact_kl_on_samples(pair, n_texts=800, n_tokens=length, source=i, seed=1) for i in (0, 1)]
    for i, run in enumerate(runs):
        for mean in (run.sequence_kl, run.naive_kl):
            assert abs(mean.value[1 - i] - exact.kl[i, 1 - i]) < 4 * mean.se[1 - i]
        assert run.naive_kl.se[1 - i] == pytest.approx(np.sqrt(exact.variance[i, 1 - i] / 800), rel=0.2)
    both = half_jeffreys_of_sequences(*reversed(runs))
    assert abs(both.value[0, 1] - exact.half_jeffreys[0, 1]) < 4 * both.se[0, 1]
    table = compare_estimates(*runs)
    assert table["exact"].item() == both.value[0, 1] == both.value[1, 0]
    assert table["exact_se"].item() == both.se[0, 1] > 0


def test_the_batches_do_not_matter(random_pair: Callable[..., list], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = random_pair("llama")
    whole = enumerate_sequences(pair, n_tokens=4)
    monkeypatch.setattr("lmmap.exact_kl.enumeration.default_budget", lambda _: 20)
    np.testing.assert_allclose(enumerate_sequences(pair, n_tokens=4).log_probs, whole.log_probs, atol=1e-5)


# Tables


def test_kl_agrees_with_scipy() -> None:
    table = random_table(3, 50, scale=3.0)
    exact = named(table)
    for i in range(3):
        for j in range(3):
            assert exact.kl[i, j] == pytest.approx(entropy(np.exp(table[i]), np.exp(table[j])), rel=1e-12)
    np.testing.assert_allclose(exact.half_jeffreys, (exact.kl + exact.kl.T) / 2, rtol=1e-15)
    squares = squared_distances(table, weights=exact.probs[1])
    np.testing.assert_allclose(exact.variance[1], squares[1], rtol=1e-12)


def test_near_models_keep_their_digits_and_equal_ones_are_nothing_apart() -> None:
    base, tilt, eps = random_table(1, 40)[0], np.random.default_rng(1).normal(size=40), 1e-7
    p = np.exp(base)
    exact = named(np.stack([base, log_softmax(base + eps * tilt), base]))
    second_order = eps**2 * (p @ tilt**2 - (p @ tilt) ** 2) / 2
    assert exact.kl[0, 1] == pytest.approx(second_order, rel=1e-5)
    assert exact.kl[0, 2] == exact.variance[0, 2] == exact.half_jeffreys[2, 0] == 0


def test_what_one_model_excludes_is_infinitely_far_for_those_who_allow_it() -> None:
    exact = named(np.log([[0.5, 0.5, 1e-300], [1.0, 1e-300, 1e-300], [0.25, 0.75, 1.0]]) + LAST_EXCLUDED)
    assert exact.kl[0, 2] == exact.variance[0, 2] == exact.half_jeffreys[2, 0] == np.inf
    assert exact.kl[2, 0] == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5))
    assert not np.isnan(exact.kl).any()


def test_tokens_add_up_to_outcomes_and_are_distributions() -> None:
    exact = named(random_table(2, 3**4), n_tokens=4)
    tokens = exact.token_log_probs
    sums = np.stack([np.bincount(exact.text_of_token, row) for row in tokens])
    np.testing.assert_allclose(sums, exact.log_probs, atol=1e-12)
    last = np.exp(tokens.reshape(2, 27, 3, 4)[..., 3])
    np.testing.assert_allclose(last.sum(axis=2), 1, rtol=1e-12)
    closed = exact.probs.reshape(2, 3, 3, 9).sum(axis=3)[:, 1, 2] / exact.probs.reshape(2, 3, 27).sum(2)[:, 1]
    np.testing.assert_allclose(np.exp(tokens.reshape(2, 81, 4)[:, 45, 1]), closed)  # tokens 1 2 0 0
    impossible = named(np.array([[np.log(0.5), np.log(0.5), -np.inf, -np.inf]]), n_tokens=2)
    assert impossible.token_log_probs[0].tolist() == [0, np.log(0.5)] * 2 + [-np.inf] * 4


def test_estimates_go_to_the_exact_value_at_the_rate_of_theory() -> None:
    base, tilts, errors = (
        random_table(1, 3**4, seed=3)[0],
        np.random.default_rng(4).normal(size=(2, 3**4)),
        [],
    )
    for eps in (0.2, 0.1, 0.05, 0.025):
        exact = named(log_softmax(np.stack([base, *(base + eps * tilts)])), n_tokens=4)
        truth, p0 = exact.half_jeffreys[1, 2], exact.probs[0]
        text = estimate_kl(exact.log_probs, weights=p0)[1, 2]
        token = estimate_kl_tokens(exact.token_log_probs, exact.text_of_token, weights=p0)[1, 2]
        errors.append([abs(text / truth - 1), abs(token / truth - 1)])
    assert max(errors[-1]) < 0.01
    slopes = np.diff(np.log(errors), axis=0) / np.log(0.5)
    assert slopes[-1] == pytest.approx([1, 1], abs=0.15)
    assert all(a > b for one, other in pairwise(errors) for a, b in zip(one, other, strict=True))


# The path


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 60.0])
def test_kl_is_the_integral_along_the_path(scale: float) -> None:
    for seed in range(3):
        exact = named(random_table(2, 64, scale=scale, seed=seed))
        for i, j in ((0, 1), (1, 0)):
            value = kl_along_path(exact.log_probs[i], exact.log_probs[j])
            assert value == pytest.approx(exact.kl[i, j], rel=1e-9, abs=1e-13)


def test_kl_of_enumerated_models_is_the_integral_along_the_path(random_pair: Callable[..., list]) -> None:
    exact = enumerate_sequences(random_pair("llama"), n_tokens=6)
    assert exact.half_jeffreys[0, 1] > 0.1
    for i, j in ((0, 1), (1, 0)):
        value = kl_along_path(exact.log_probs[i], exact.log_probs[j])
        assert value == pytest.approx(exact.kl[i, j], abs=1e-8)


def test_the_path_runs_from_the_first_to_the_second() -> None:
    exact = named(random_table(2, 30, scale=2.0))
    p, q = exact.log_probs
    ends = variance_along_path(p, q, [0.0, 1.0])
    assert ends == pytest.approx([exact.variance[0, 1], exact.variance[1, 0]], rel=1e-12)
    assert ends[0] != pytest.approx(ends[1], rel=0.1)
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(variance_along_path(p, q, t), variance_along_path(q, p, 1 - t), rtol=1e-12)
    mean = quad(lambda at: variance_along_path(p, q, at)[0], 0, 1, epsabs=1e-12)[0]
    assert mean / 2 == pytest.approx(exact.half_jeffreys[0, 1], rel=1e-10)
    back = quad(lambda at: at * variance_along_path(p, q, at)[0], 0, 1, epsabs=1e-12)[0]
    assert back == pytest.approx(exact.kl[1, 0], rel=1e-10)


def test_the_variance_is_that_of_a_logistic_curve_between_two_coins() -> None:
    a, b, t = 0.2, 0.9, np.linspace(0, 1, 7)
    slope = np.log(b / (1 - b)) - np.log(a / (1 - a))
    share = 1 / (1 + np.exp(-(np.log(a / (1 - a)) + t * slope)))
    got = variance_along_path(np.log([a, 1 - a]), np.log([b, 1 - b]), t)
    np.testing.assert_allclose(got, slope**2 * share * (1 - share), rtol=1e-12)


def test_distributions_of_other_support_have_no_path() -> None:
    p, q = np.log([0.5, 0.25, 0.25]), np.array([np.log(0.5), np.log(0.5), -np.inf])
    for one, other in ((p, q), (q, p)):
        with pytest.raises(InputError, match="possible under one distribution only"):
            kl_along_path(one, other)
    r = np.array([np.log(0.25), np.log(0.75), -np.inf])
    assert kl_along_path(q, r) == pytest.approx(entropy([0.5, 0.5], [0.25, 0.75]), rel=1e-12)


# What is refused


def test_tables_that_are_no_distributions_are_refused() -> None:
    half = np.log([[0.5, 0.5], [0.5, 0.5]])
    for table, n_tokens, message in (
        (half[0], 1, "do not fit"),
        (half[:1], 1, "2 models and log-probabilities of shape"),
        (np.log([[0.5, 0.5], [0.5, 0.4]]), 1, "probabilities of q sum to 0.9"),
        (np.array([[np.nan, 0.0], [-1.0, -1.0]]), 1, "probabilities of p sum to nan"),
        (np.array([[800.0, 0.0], [-1.0, -1.0]]), 1, "probabilities of p sum to inf"),
        (np.full((2, 2), -np.inf), 1, "probabilities of p sum to 0"),
        (half, 2, "2 outcomes are not all sequences of 2 tokens"),
        (half, 0, "not all sequences of 0 tokens"),
    ):
        with pytest.raises(InputError, match=message):
            Enumerated(("p", "q"), table, n_tokens)
    with pytest.raises(InputError, match="name of its own"):
        Enumerated(("p", "p"), half)
    for arguments, message in (
        ((half[0], np.log([0.2, 0.3, 0.5])), r"shapes \(2,\) and \(3,\)"),
        ((half, half), r"shapes \(2, 2\)"),
        ((half[0], np.log([0.5, 0.6])), "sum to 1.1"),
    ):
        with pytest.raises(InputError, match=message):
            kl_along_path(*arguments)
    for t in (-0.1, 1.5, np.nan):
        with pytest.raises(InputError, match="between 0 and 1"):
            variance_along_path(half[0], half[1], t)


def test_an_enumeration_that_cannot_be_done_is_refused(
    tmp_path: Path, random_pair: Callable[..., list]
) -> None:
    pair = random_pair("llama")
    with pytest.raises(
        InputError, match=r"11 tokens of a vocabulary of 4 make 10\^6.6 sequences, more than 1,048,576"
    ):
        enumerate_sequences(pair, n_tokens=11)
    with pytest.raises(InputError, match="llama-0 has 64 positions; 65 tokens"):
        enumerate_sequences(pair, n_tokens=65)
    with pytest.raises(InputError, match="at least 1, got 0"):
        enumerate_sequences(pair, n_tokens=0)
    with pytest.raises(InputError, match="two or more models"):
        enumerate_sequences(pair[:1], n_tokens=2)
    other = bigram_model(tmp_path, "other", np.zeros((V, V)), word_tokenizer(("<eos>", "c", "b", "a")))
    with pytest.raises(InputError, match="llama-0 and other have different tokenizers"):
        enumerate_sequences([pair[0], other], n_tokens=2)
    with pytest.raises(InputError, match="llama-1 gives logits that are not numbers"):
        enumerate_sequences([pair[0], with_logits(pair[1], 2, torch.nan)], n_tokens=2)


def test_a_model_that_excludes_a_token_is_infinitely_far(tmp_path: Path) -> None:
    p, q = (
        bigram_model(tmp_path, name, table.reshape(V, V))
        for name, table in zip("pq", random_table(2, 16), strict=True)
    )
    exact = enumerate_sequences([p, with_logits(q, 3, -torch.inf)], n_tokens=3)
    assert exact.kl[0, 1] == np.inf
    assert 0 < exact.kl[1, 0] < np.inf
    assert exact.probs[1].sum() == pytest.approx(1)
    assert (exact.log_probs[1] == -np.inf).sum() == V**3 - (V - 1) ** 3
