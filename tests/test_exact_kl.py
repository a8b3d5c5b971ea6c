"""Exact KL against enumeration, closed forms and plain loops; samples against the probabilities they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from enumerable import (
    NEVER,
    WORDS,
    V,
    all_sequences,
    log_softmax,
    of_tokens,
    plain_log_probs,
    text_of,
    with_logits,
    word_tokenizer,
)
from enumerable import bigram_model as bigram_model_in
from scipy.stats import chisquare
from tokenizers import normalizers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

import lmmap.exact_kl.measure
import lmmap.exact_kl.rows
from lmmap.errors import InputError
from lmmap.exact_kl import (
    ExactKL,
    compare_estimates,
    enumerate_sequences,
    exact_kl_on_samples,
    exact_kl_on_texts,
    sample_ids,
)
from lmmap.geometry import estimate_kl, estimate_kl_tokens
from lmmap.models import ModelSpec
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.load import load_model
from lmmap.scoring.score import score_texts

KINDS = ("llama", "gpt_neox", "gpt2")


@pytest.fixture
def random_model(make_model: Callable[..., Path]) -> Callable[..., LoadedModel]:
    """Give a function that loads a tiny random model over the words."""

    def load(kind: str = "llama", seed: int = 0, *, name: str = "", words: Sequence[str] = WORDS, **changes):
        special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, "vocab_size": len(words)}
        tokenizer = word_tokenizer(words, changes.pop("normalizer", None))
        folder = make_model(kind, seed=seed, tokenizer=tokenizer, **special | changes)
        return load_model(ModelSpec(str(folder), name=name or f"{kind}-{seed}"))

    return load


@pytest.fixture
def bigram_model(tmp_path: Path) -> Callable[..., LoadedModel]:
    """Give a function that makes a Llama whose next-token logits are a given function of the last token."""

    def make(name: str, logits: np.ndarray) -> LoadedModel:
        return bigram_model_in(tmp_path, name, logits)

    return make


def enumerated_kl(p: LoadedModel, q: LoadedModel, length: int) -> float:
    """KL between distributions over sequences: the sum over all V^n of them."""
    ids = all_sequences(length)
    log_p, log_q = (of_tokens(plain_log_probs(model, ids), ids) for model in (p, q))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)
    return float(np.exp(log_p) @ (log_p - log_q))


def made_by_hand(kl: np.ndarray, n_tokens: Sequence[int], weights: np.ndarray | None = None) -> ExactKL:
    """Give a pair whose KL is ``kl`` there and twice that back, text by text."""
    table = np.zeros((len(kl), 2, 2))
    table[:, 0, 1], table[:, 1, 0] = kl, 2 * kl
    text = np.repeat(np.arange(len(kl)), n_tokens)
    w = np.ones(len(kl)) if weights is None else weights
    return ExactKL(("a", "b"), None, table, table, np.zeros((2, len(text))), text, w)


# On given texts


@pytest.mark.parametrize("kind", KINDS)
def test_given_texts_equal_a_plain_float64_loop(kind: str, random_model: Callable[..., LoadedModel]) -> None:
    p, q = random_model(kind, 0), random_model(kind, 1)
    ids = [[1, 2, 3, 3, 1], [2], [3, 1, 1], [1, 1, 2, 3, 1, 2, 2, 1, 3]]
    exact = exact_kl_on_texts([p, q], [text_of(row) for row in ids])
    start = 0
    for x, row in enumerate(ids):
        log_p, log_q = (plain_log_probs(model, [row])[0] for model in (p, q))
        ratio = log_p - log_q
        there, back = (np.exp(log_p) * ratio).sum(-1), -(np.exp(log_q) * ratio).sum(-1)
        expected = [[0, there.sum()], [back.sum(), 0]]
        np.testing.assert_allclose(exact.kl_of_text[x], expected, rtol=1e-5, atol=1e-12)
        under_p = (np.exp(log_p) * ratio**2).sum(-1) - there**2
        under_q = (np.exp(log_q) * ratio**2).sum(-1) - back**2
        expected = [[0, under_p.sum()], [under_q.sum(), 0]]
        np.testing.assert_allclose(exact.variance_of_text[x], expected, rtol=1e-5, atol=1e-12)
        tokens = exact.token_log_probs[:, start : start + len(row)]
        expected = [table[range(len(row)), row] for table in (log_p, log_q)]
        np.testing.assert_allclose(tokens, expected, rtol=1e-5)
        start += len(row)
    assert exact.n_tokens.tolist() == [len(row) for row in ids]
    for model, row in zip((p, q), exact.log_likelihoods, strict=True):
        scored = score_texts(model, [text_of(row) for row in ids]).log_likelihood
        np.testing.assert_allclose(row, scored, rtol=1e-5)


def test_a_text_longer_than_the_context_is_read_in_the_windows_of_scoring(
    random_model: Callable[..., LoadedModel],
) -> None:
    p, q = random_model(seed=0), random_model(seed=1)
    ids = np.random.default_rng(0).integers(1, V, 80).tolist()
    exact = exact_kl_on_texts([p, q], [text_of(ids), "a b"])
    expected, log_likelihood = 0.0, 0.0
    for window, new in ((ids[:64], slice(0, 64)), (ids[32:], slice(32, 48))):
        log_p, log_q = (plain_log_probs(model, [window])[0, new] for model in (p, q))
        expected += (np.exp(log_p) * (log_p - log_q)).sum()
        log_likelihood += log_q[range(len(log_q)), window[new]].sum()
    assert exact.n_tokens.tolist() == [80, 2]
    assert exact.kl_of_text[0, 0, 1] == pytest.approx(expected, rel=1e-5)
    assert exact.log_likelihoods[1, 0] == pytest.approx(log_likelihood, rel=1e-5)


def test_weighted_by_their_probability_all_texts_give_the_enumerated_kl(
    bigram_model: Callable[..., LoadedModel],
) -> None:
    length, rng = 4, np.random.default_rng(0)
    tables = rng.normal(size=(2, V, V))
    tables[:, :, 0] = NEVER  # so that every text is made of words
    p, q = (bigram_model(name, table) for name, table in zip("pq", tables, strict=True))
    ids = all_sequences(length, range(1, V))
    chain = [[0, *row] for row in ids]
    log_p, log_q = (
        np.array([sum(table[a, b] for a, b in pairwise(row)) for row in chain])
        for table in log_softmax(tables)
    )
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)
    texts = [text_of(row) for row in ids]
    under_p = exact_kl_on_texts([p, q], texts, weights=np.exp(log_p))
    under_q = exact_kl_on_texts([p, q], texts, weights=np.exp(log_q))
    assert under_p.kl.value[0, 1] == pytest.approx(np.exp(log_p) @ (log_p - log_q), rel=1e-5)
    assert under_q.kl.value[1, 0] == pytest.approx(np.exp(log_q) @ (log_q - log_p), rel=1e-5)
    assert under_p.kl.value[1, 0] != pytest.approx(np.exp(log_q) @ (log_q - log_p), rel=0.01)
    np.testing.assert_allclose(under_p.log_likelihoods, [log_p, log_q], rtol=1e-5)


def test_swapping_the_models_transposes_kl_and_keeps_half_jeffreys(
    random_model: Callable[..., LoadedModel],
) -> None:
    p, q, texts = random_model(seed=0), random_model(seed=1), ["a b c", "c c a b", "b"]
    one, other = exact_kl_on_texts([p, q], texts), exact_kl_on_texts([q, p], texts)
    np.testing.assert_allclose(one.kl.value, other.kl.value.T, rtol=1e-12)
    assert one.kl.value[0, 1] != pytest.approx(one.kl.value[1, 0], rel=1e-3)
    for table in (one.half_jeffreys, other.half_jeffreys):
        np.testing.assert_allclose(table.value[0, 1], np.mean([one.kl.value[0, 1], one.kl.value[1, 0]]))
        np.testing.assert_allclose(table.se, one.half_jeffreys.se, rtol=1e-12)


def test_many_models_at_once_give_what_their_pairs_give(random_model: Callable[..., LoadedModel]) -> None:
    loaded = [random_model(kind, seed) for kind, seed in (("llama", 0), ("gpt2", 0), ("gpt_neox", 5))]
    texts = ["a b c a", "b b", "c a c"]
    together = exact_kl_on_texts(loaded, texts)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        pair = exact_kl_on_texts([loaded[i], loaded[j]], texts)
        at = np.ix_(range(3), [i, j], [i, j])
        np.testing.assert_allclose(together.kl_of_text[at], pair.kl_of_text, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(
            together.variance_of_text[at], pair.variance_of_text, rtol=1e-10, atol=1e-12
        )


def test_equal_models_are_nothing_apart(random_model: Callable[..., LoadedModel]) -> None:
    p, twin, other = random_model(name="p"), random_model(name="twin"), random_model(seed=1)
    for pair in (
        exact_kl_on_texts([p, twin], ["a b c", "c"]),
        exact_kl_on_samples([p, twin], n_texts=3, n_tokens=5),
    ):
        assert not pair.kl_of_text.any()
        assert not pair.variance_of_text.any()
        assert not pair.half_jeffreys.se.any()
    three = exact_kl_on_texts([p, twin, other], ["a b c", "c"]).kl.value
    assert three[0, 1] < 1e-13 < three[0, 2]
    table = compare_estimates(exact_kl_on_texts([p, twin], ["a b c", "c"]))
    assert table["exact"].item() == table["text_level"].item() == 0
    assert table["text_level_ratio"].isna().all()


def test_near_models_keep_their_digits(bigram_model: Callable[..., LoadedModel]) -> None:
    p_logits = np.random.default_rng(3).normal(size=(V, V)).astype(np.float32)
    q_logits = p_logits + np.float32(1e-3) * np.eye(V, dtype=np.float32)
    p, q = bigram_model("p", p_logits), bigram_model("q", q_logits)
    texts = ["a b c", "c c b a"]
    with torch.inference_mode():
        rows = [m.logits(m.hidden(torch.arange(V)[:, None])[:, 0]).numpy() for m in (p, q)]
    log_p, log_q = (log_softmax(row.astype(np.longdouble)) for row in rows)
    of_context = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    expected = [of_context[[0, 1, 2]].sum(), of_context[[0, 3, 3, 2]].sum()]
    assert max(expected) < 1e-6
    exact = exact_kl_on_texts([p, q], texts)
    np.testing.assert_allclose(exact.kl_of_text[:, 0, 1], np.array(expected, dtype=float), rtol=1e-8)


def test_a_token_that_only_one_model_excludes_makes_kl_infinite_to_it(
    random_model: Callable[..., LoadedModel],
) -> None:
    p, q = random_model(seed=0), with_logits(random_model(seed=1), 0, -torch.inf)
    exact = exact_kl_on_samples([p, q], n_texts=2, n_tokens=1)
    log_p, log_q = (plain_log_probs(model, [[1]])[0, 0] for model in (p, q))
    log_q = log_softmax(np.where(np.arange(V) == 0, NEVER, log_q))
    back = np.exp(log_q) @ (log_q - log_p)
    variance = np.exp(log_q) @ (log_q - log_p) ** 2 - back**2
    np.testing.assert_allclose(exact.kl_of_text[:, 1, 0], back, rtol=1e-5)
    np.testing.assert_allclose(exact.variance_of_text[:, 1, 0], variance, rtol=1e-5)
    assert exact.kl.value[0, 1] == exact.kl.se[0, 1] == exact.half_jeffreys.value[0, 1] == np.inf
    for table in (exact.kl, exact.kl_per_token, exact.half_jeffreys, exact.conditional_variance):
        assert not np.isnan(table).any()
    both = exact_kl_on_samples([with_logits(p, 0, -torch.inf), q], n_texts=2, n_tokens=1)
    words = log_softmax(np.array([log_p, log_q])[:, 1:])
    np.testing.assert_allclose(both.kl_of_text[:, 0, 1], np.exp(words[0]) @ (words[0] - words[1]), rtol=1e-5)


def test_logits_that_are_not_numbers_are_refused(random_model: Callable[..., LoadedModel]) -> None:
    p, q = random_model(seed=0), random_model(seed=1, name="broken")
    with_logits(q, 2, torch.nan)
    with pytest.raises(InputError, match="broken gives text 1 logits that are not numbers"):
        exact_kl_on_samples([p, q], n_texts=2, n_tokens=3)


# Means and errors


def test_per_token_times_tokens_is_per_text(random_model: Callable[..., LoadedModel]) -> None:
    w = np.array([1.0, 3.0, 0.5])
    exact = exact_kl_on_texts([random_model(seed=0), random_model(seed=1)], ["a b c", "c", "b a"], weights=w)
    tokens_per_text = w @ exact.n_tokens / w.sum()
    for text, token in (
        (exact.kl, exact.kl_per_token),
        (exact.half_jeffreys, exact.half_jeffreys_per_token),
    ):
        np.testing.assert_allclose(token.value * tokens_per_text, text.value, rtol=1e-12)
    np.testing.assert_allclose(exact.kl.value, np.average(exact.kl_of_text, axis=0, weights=w), rtol=1e-12)


def test_errors_of_texts_are_those_of_a_mean_and_errors_of_tokens_those_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    n_tokens = rng.integers(5, 50, 400)
    kl = 0.1 * n_tokens * rng.gamma(4, 0.25, 400)
    exact = made_by_hand(kl, n_tokens)
    assert exact.kl.se[0, 1] == pytest.approx(np.std(kl, ddof=1) / 20, rel=1e-12)
    assert exact.half_jeffreys.se[0, 1] == pytest.approx(1.5 * np.std(kl, ddof=1) / 20, rel=1e-12)
    left_out = (kl.sum() - kl) / (n_tokens.sum() - n_tokens)
    jackknife = np.sqrt(399 / 400 * ((left_out - left_out.mean()) ** 2).sum())
    assert exact.kl_per_token.se[0, 1] == pytest.approx(jackknife, rel=0.01)
    assert exact.kl_per_token.se[0, 1] < 0.9 * exact.kl.se[0, 1] / n_tokens.mean()
    equal = made_by_hand(kl, [8] * 400)
    np.testing.assert_allclose(equal.kl_per_token.se, equal.kl.se / 8, rtol=1e-12)


def test_a_text_without_weight_is_not_there() -> None:
    kl, n_tokens = np.array([1.0, 2.0, 4.0, np.inf]), [3, 4, 5, 6]
    weighted = made_by_hand(kl, n_tokens, np.array([1.0, 1.0, 1.0, 0.0]))
    without = made_by_hand(kl[:3], n_tokens[:3])
    for name in ("kl", "kl_per_token", "half_jeffreys", "half_jeffreys_per_token", "conditional_variance"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(without, name), rtol=1e-12)


def test_weighted_errors_hold_for_resampled_texts() -> None:
    rng = np.random.default_rng(1)
    target = np.array([0.1, 0.2, 0.7])  # of three kinds of text, drawn as thirds
    kind_mean, draws, n = np.array([1.0, 5.0, 2.0]), 400, 150
    z = []
    for _ in range(draws):
        kind = rng.integers(3, size=n)
        kl = kind_mean[kind] * rng.gamma(4, 0.25, n)
        mean = made_by_hand(kl, [1] * n, target[kind]).kl
        z.append((mean.value[0, 1] - target @ kind_mean) / mean.se[0, 1])
    assert np.mean(np.square(z)) == pytest.approx(1, abs=4 * np.sqrt(2 / draws))


# On samples


@pytest.mark.parametrize("kind", [*KINDS, "bloom", "gemma2", "mamba"])
def test_samples_have_the_enumerated_distribution(
    kind: str, random_model: Callable[..., LoadedModel]
) -> None:
    model, length, n = random_model(kind, scale=5.0), 3, 20_000
    ids = sample_ids(model, n_texts=n, n_tokens=length, seed=1)
    assert ids.shape == (n, length + 1)
    assert not ids[:, 0].any()  # the prefix
    sequences = all_sequences(length)
    expected = n * np.exp(of_tokens(plain_log_probs(model, sequences), sequences))
    number = np.ravel_multi_index(tuple(ids[:, 1:].T), (V,) * length)
    counts = np.bincount(number, minlength=len(sequences))
    cell = np.where(expected < 5, 0, np.arange(1, len(sequences) + 1))  # rare ones share the first
    counts, expected = (np.bincount(cell, values) for values in (counts, expected))
    there = expected > 0
    assert there.sum() > 10
    assert chisquare(counts[there], expected[there] * n / expected.sum()).pvalue > 0.001


def test_eos_is_an_ordinary_token(bigram_model: Callable[..., LoadedModel]) -> None:
    table = log_softmax(np.log([[4, 1, 2, 3], [6, 2, 1, 1], [6, 1, 1, 2], [6, 1, 2, 1]]))
    ids = sample_ids(bigram_model("p", table), n_texts=2000, n_tokens=16)
    before, after = ids[:, 1:-1].ravel(), ids[:, 2:].ravel()  # the prefix, which is EOS too, left out
    assert (ids[:, 1:] == 0).mean() > 0.4
    for token in range(V):
        counts = np.bincount(after[before == token], minlength=V)
        assert chisquare(counts, counts.sum() * np.exp(table[token])).pvalue > 0.001


def test_generation_settings_of_the_model_are_ignored(random_model: Callable[..., LoadedModel]) -> None:
    model = random_model(name="p", scale=2.0)
    ids = sample_ids(model, n_texts=20, n_tokens=8)
    settings = {"do_sample": True, "temperature": 0.01, "top_k": 1, "repetition_penalty": 9.0}
    GenerationConfig(**settings, max_length=3, eos_token_id=1).save_pretrained(model.spec.source)
    again = load_model(ModelSpec(model.spec.source, name="p"))
    assert again.model.generation_config.repetition_penalty == 9.0
    np.testing.assert_array_equal(sample_ids(again, n_texts=20, n_tokens=8), ids)
    assert len(np.unique(ids, axis=0)) > 10


def test_samples_depend_on_the_seed_and_the_name_and_on_nothing_else(
    random_model: Callable[..., LoadedModel],
) -> None:
    p, q, renamed = random_model(seed=0), random_model(seed=1), random_model(seed=0, name="other")
    size = {"n_texts": 5, "n_tokens": 12}
    one, same = (exact_kl_on_samples([p, q], **size, seed=3) for _ in range(2))
    for name in ("kl_of_text", "token_log_probs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(exact_kl_on_samples([p, q], **size, seed=4).kl_of_text, one.kl_of_text)
    assert not np.array_equal(sample_ids(renamed, **size), sample_ids(p, **size))
    third = exact_kl_on_samples([q, renamed, p], **size, seed=3, source=2)
    np.testing.assert_allclose(third.sequence_kl.value[0], one.sequence_kl.value[1], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_kl_agrees_with_enumeration_within_its_error(
    kind: str, random_model: Callable[..., LoadedModel]
) -> None:
    pair, length = [random_model(kind, 0, scale=2.0), random_model(kind, 1, scale=2.0)], 4
    for source in (0, 1):
        exact = exact_kl_on_samples(pair, n_texts=600, n_tokens=length, seed=2, source=source)
        there = exact.sequence_kl
        expected = enumerated_kl(pair[source], pair[1 - source], length)
        assert abs(there.value[1 - source] - expected) < 4 * there.se[1 - source] < 0.3 * expected


def test_the_error_of_sampled_kl_is_right(random_model: Callable[..., LoadedModel]) -> None:
    p, q, length, runs = random_model(seed=0), random_model(seed=1), 4, 60
    expected = enumerated_kl(p, q, length)
    z = []
    for seed in range(runs):
        mean = exact_kl_on_samples([p, q], n_texts=80, n_tokens=length, seed=seed).sequence_kl
        z.append((mean.value[1] - expected) / mean.se[1])
    assert abs(np.mean(z)) < 4 / np.sqrt(runs)
    assert np.mean(np.square(z)) == pytest.approx(1, abs=4 * np.sqrt(2 / runs))


def test_on_samples_only_the_source_has_kl_of_sequences(random_model: Callable[..., LoadedModel]) -> None:
    p, q, length = random_model(seed=0), random_model(seed=1), 4
    exact = exact_kl_on_samples([p, q], n_texts=2000, n_tokens=length)
    sequences = all_sequences(length)
    log_p, log_q = (plain_log_probs(model, sequences) for model in (p, q))
    weight = np.exp(of_tokens(log_p, sequences))
    token_by_token = weight @ (np.exp(log_q) * (log_q - log_p)).sum(axis=(1, 2))
    assert abs(exact.kl.value[1, 0] - token_by_token) < 4 * exact.kl.se[1, 0]
    assert abs(exact.kl.value[1, 0] - enumerated_kl(q, p, length)) > 8 * exact.kl.se[1, 0]
    assert exact.sequence_kl.value.tolist() == exact.kl.value[0].tolist()
    assert "of sequences" in repr(exact)
    assert f"in contexts of {p.spec.name}" in repr(exact)
    given = exact_kl_on_texts([p, q], ["a", "b"])
    with pytest.raises(InputError, match="exact_kl_on_samples"):
        _ = given.sequence_kl


def test_the_chain_rule_saves_the_variance_that_enumeration_says(
    bigram_model: Callable[..., LoadedModel],
) -> None:
    rng, length, n = np.random.default_rng(5), 4, 4000
    p, q = (log_softmax(table) for table in rng.normal(size=(2, V, V)))
    pair = [bigram_model("p", p), bigram_model("q", q)]
    exact = enumerate_sequences(pair, n_tokens=length)
    of_context = (np.exp(p) * (p - q)).sum(axis=1)
    contexts = np.concatenate([np.zeros((V**length, 1), int), exact.ids[:, :-1]], axis=1)
    along = of_context[contexts].sum(axis=1)
    variance = exact.probs[0] @ (along - exact.probs[0] @ along) ** 2
    sampled = exact_kl_on_samples(pair, n_texts=n, n_tokens=length)
    for mean, spread in ((sampled.sequence_kl, variance), (sampled.naive_kl, exact.variance[0, 1])):
        assert abs(mean.value[1] - exact.kl[0, 1]) < 4 * mean.se[1]
        assert mean.se[1] == pytest.approx(np.sqrt(spread / n), rel=0.1)
        assert mean.value[0] == mean.se[0] == 0
    assert sampled.variance_saved[1] == pytest.approx(exact.variance[0, 1] / variance, rel=0.2)
    assert sampled.variance_saved[1] > 3
    assert np.isnan(sampled.variance_saved[0])
    assert f"{sampled.variance_saved[1]:.3g} times the variance" in repr(sampled)


def test_one_token_has_no_context_that_could_vary(random_model: Callable[..., LoadedModel]) -> None:
    exact = exact_kl_on_samples([random_model(seed=0), random_model(seed=1)], n_texts=5, n_tokens=1)
    assert exact.sequence_kl.se[1] < 1e-9 < exact.naive_kl.se[1]
    assert exact.variance_saved[1] > 1e9


# Sampling


def test_samples_stand_behind_the_prefix_that_scoring_uses(random_model: Callable[..., LoadedModel]) -> None:
    model = load_model(ModelSpec(random_model().spec.source, name="p", prefix="b"))
    ids = sample_ids(model, n_texts=4000, n_tokens=1)
    assert (ids[:, 0] == 2).all()
    logits = model.model(input_ids=torch.tensor([[2]])).logits[0, 0].detach().double()
    expected = logits.softmax(-1).numpy()
    assert chisquare(np.bincount(ids[:, 1], minlength=V), 4000 * expected).pvalue > 0.001


# What is held at once


class Sizes(TorchDispatchMode):
    """Notes the largest number of elements of any tensor that is made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.numel())
        return out


@pytest.mark.parametrize("where", ["texts", "samples"])
def test_a_vocabulary_of_256_thousand_is_never_held_for_a_whole_text(
    where: str, random_model: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    size, length = 2**18, 30
    changes = {"vocab_size": size, "hidden_size": 8, "tie_word_embeddings": True}
    loaded = [random_model(seed=seed, name=f"wide-{seed}", **changes) for seed in (0, 1)]
    monkeypatch.setitem(lmmap.exact_kl.rows.LOGITS_AT_ONCE, "cpu", 8 * size)
    monkeypatch.setitem(lmmap.exact_kl.measure.NUMBERS_AT_ONCE, "cpu", 4 * size)
    measured = lmmap.exact_kl.measure._measure
    sizes = Sizes()

    def watched(*arguments: object) -> ExactKL:
        with sizes:
            return measured(*arguments)

    monkeypatch.setattr(lmmap.exact_kl.measure, "_measure", watched)
    if where == "texts":
        exact = exact_kl_on_texts(loaded, [" ".join("ab" * (length // 2)), "c"])
    else:
        exact = exact_kl_on_samples(loaded, n_texts=2, n_tokens=6)
    assert sizes.largest == 8 * size
    assert exact.kl.value[0, 1] > 0


@pytest.mark.parametrize("kind", ["llama", "mamba"])  # mamba is read anew for every token
def test_sampling_holds_few_rows_of_a_large_vocabulary(
    kind: str, random_model: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2**16
    model = random_model(kind, vocab_size=size, hidden_size=8)
    monkeypatch.setitem(lmmap.exact_kl.rows.LOGITS_AT_ONCE, "cpu", 4 * size)
    with Sizes() as sizes:
        ids = sample_ids(model, n_texts=10, n_tokens=6)
    assert ids.shape == (10, 7)
    assert 4 * size <= sizes.largest <= 8 * size  # the embedding itself has as many


def test_a_vocabulary_too_large_for_two_rows_at_a_time_gives_the_same(
    random_model: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, texts = [random_model(seed=seed) for seed in (0, 1)], ["a b c a", "b b"]
    whole = exact_kl_on_texts(loaded, texts)
    monkeypatch.setitem(lmmap.exact_kl.rows.LOGITS_AT_ONCE, "cpu", 1)
    monkeypatch.setitem(lmmap.exact_kl.measure.NUMBERS_AT_ONCE, "cpu", 1)
    heads = []
    for model in loaded:
        monkeypatch.setattr(model, "logits", lambda h, plain=model.logits: heads.append(len(h)) or plain(h))
    rows = exact_kl_on_texts(loaded, texts)
    assert heads[-12:] == [1] * 12  # two models, six tokens; before that the checks
    np.testing.assert_allclose(rows.kl_of_text, whole.kl_of_text, rtol=1e-5)


def test_models_that_give_every_logit_read_one_text_at_a_time(
    random_model: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, texts = [random_model(seed=seed) for seed in (0, 1)], ["a b c a", "b b", "c a c"]
    expected = exact_kl_on_texts(loaded, texts)
    read = []
    for model in loaded:
        model.head = "forward"
        monkeypatch.setattr(
            model, "hidden", lambda ids, plain=model.hidden: read.append(len(ids)) or plain(ids)
        )
    got = exact_kl_on_texts(loaded, texts)
    assert read[-6:] == [1] * 6
    np.testing.assert_allclose(got.kl_of_text, expected.kl_of_text, rtol=1e-5)
    np.testing.assert_array_equal(got.text_of_token, expected.text_of_token)


# Estimates beside the exact value


def test_estimates_of_categorical_models_go_to_the_exact_value(
    bigram_model: Callable[..., LoadedModel],
) -> None:
    base, tilt, length = np.log([0.5, 0.3, 0.2]), np.array([[1.0, -1.0, 0.5], [-0.5, 0.7, 1.0]]), 3
    ids = all_sequences(length, range(1, V))
    texts, p0 = [text_of(row) for row in ids], np.exp([base[np.array(row) - 1].sum() for row in ids])
    off_by = []
    for eps in (0.4, 0.1, 0.025):
        words = log_softmax(base + eps * tilt)
        pair = [
            bigram_model(f"{i}-{eps}", np.tile([NEVER, *row], (V, 1)).astype(float))
            for i, row in enumerate(words)
        ]
        exact = exact_kl_on_texts(pair, texts, weights=p0)
        closed = length * np.exp(words[0]) @ (words[0] - words[1])
        assert exact.kl.value[0, 1] == pytest.approx(closed, rel=1e-4)
        difference = words[0] - words[1]
        mean = np.exp(base) @ difference
        table = compare_estimates(exact).iloc[0]
        variance = length * np.exp(base) @ (difference - mean) ** 2
        assert table["text_level"] == pytest.approx(variance / 2, rel=1e-4)
        assert table["token_centered"] == pytest.approx(variance / 2, rel=1e-4)
        assert table["token_level"] == pytest.approx((variance + length * mean**2) / 2, rel=1e-4)
        kinds = ("text_level", "token_level", "token_centered", "conditional")
        off_by.append([abs(table[f"{kind}_ratio"] - 1) for kind in kinds])
    first, second, third = off_by
    assert max(first) > 0.02
    assert all(b < 0.35 * a for a, b in zip(first, second, strict=True) if a > 0.02)
    assert max(third) < 0.005


def exact_mixture(exact: ExactKL, weights: np.ndarray) -> np.ndarray:
    """Half-Jeffreys from D tanh(D / 2), text by text."""
    D = exact.token_log_probs[:, None] - exact.token_log_probs[None]
    return (D * np.tanh(D / 2)) @ weights[exact.text_of_token] / weights.sum()


def test_a_comparison_on_texts_holds_what_geometry_gives(random_model: Callable[..., LoadedModel]) -> None:
    loaded, w = [random_model(seed=seed) for seed in range(3)], np.array([2.0, 1.0, 1.0])
    exact = exact_kl_on_texts(loaded, ["a b c", "c c", "b a b a"], weights=w)
    table = compare_estimates(exact)
    assert list(zip(table["model_i"], table["model_j"], strict=True)) == [
        ("llama-0", "llama-1"), ("llama-0", "llama-2"), ("llama-1", "llama-2"),
    ]  # fmt: skip
    pairs = np.triu_indices(3, 1)
    tokens = (exact.token_log_probs, exact.text_of_token)
    for kind, values in {
        "exact": exact.half_jeffreys.value,
        "exact_se": exact.half_jeffreys.se,
        "text_level": estimate_kl(exact.log_likelihoods, weights=w),
        "token_level": estimate_kl_tokens(*tokens, weights=w, centered=False),
        "token_centered": estimate_kl_tokens(*tokens, weights=w),
        "mixture": exact_mixture(exact, w),
        "conditional": exact.conditional_variance.value / 2,
    }.items():
        np.testing.assert_allclose(table[kind], values[pairs], rtol=1e-13)
    middle = (table["token_centered"] + table["mixture"]) / 2
    np.testing.assert_allclose(table["midpoint"], middle, rtol=1e-13)
    np.testing.assert_array_equal(table["token_level_ratio"], table["token_level"] / table["exact"])


def test_a_comparison_on_samples_takes_each_direction_from_its_own_model(
    random_model: Callable[..., LoadedModel],
) -> None:
    pair, length = [random_model(seed=0, scale=2.0), random_model(seed=1, scale=2.0)], 4
    runs = [exact_kl_on_samples(pair, n_texts=600, n_tokens=length, source=i) for i in (0, 1)]
    table = compare_estimates(*reversed(runs)).iloc[0]
    expected = (enumerated_kl(*pair, length) + enumerated_kl(*reversed(pair), length)) / 2
    assert abs(table["exact"] - expected) < 4 * table["exact_se"] < 0.3 * expected
    assert table["exact"] == pytest.approx((runs[0].kl.value[0, 1] + runs[1].kl.value[1, 0]) / 2)
    assert table["exact_se"] == pytest.approx(np.hypot(runs[0].kl.se[0, 1], runs[1].kl.se[1, 0]) / 2)
    both = [estimate_kl(run.log_likelihoods)[0, 1] for run in runs]
    assert table["text_level"] == pytest.approx(np.mean(both))


def test_comparisons_of_what_does_not_compare_are_refused(random_model: Callable[..., LoadedModel]) -> None:
    p, q, r = (random_model(seed=seed) for seed in range(3))
    size = {"n_texts": 2, "n_tokens": 3}
    given, sampled = exact_kl_on_texts([p, q], ["a", "b"]), exact_kl_on_samples([p, q], **size)
    with pytest.raises(InputError, match="samples from llama-1 are missing"):
        compare_estimates(sampled)
    with pytest.raises(InputError, match="missing"):
        compare_estimates(given, sampled)
    with pytest.raises(InputError, match="same models"):
        compare_estimates(sampled, exact_kl_on_samples([p, r], **size, source=1))
    with pytest.raises(InputError, match="samples of 3 tokens and 5 tokens"):
        compare_estimates(sampled, exact_kl_on_samples([p, q], n_texts=2, n_tokens=5, source=1))


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": (*WORDS, "d")}, "p and q have different tokenizers.* 4 and 5 tokens"),
        ({"words": ("<eos>", "a", "d", "c")}, "p and q have different tokenizers.* token 2 is 'b' .* 'd'"),
        ({"normalizer": normalizers.Replace("b", "a b")}, "p and q have different tokenizers.* text 2 "),
        ({"vocab_size": V + 2}, "p and q give 4 and 6 logits"),
        ({"max_position_embeddings": 8}, "p and q have 64 and 8 positions"),
        ({"name": "p"}, "name of its own"),
    ],
)
def test_models_that_do_not_belong_together_are_refused(
    changes: dict[str, object], message: str, random_model: Callable[..., LoadedModel]
) -> None:
    p, q = random_model(name="p"), random_model(**{"name": "q", "seed": 1} | changes)
    with pytest.raises(InputError, match=message):
        exact_kl_on_texts([p, q], ["a c", "a b c a a a a a a c"])


def test_other_prefixes_are_refused_and_named(random_model: Callable[..., LoadedModel]) -> None:
    p, q = random_model(name="p"), random_model(name="q", seed=1)
    q = load_model(ModelSpec(q.spec.source, name="q", prefix="a"))
    with pytest.raises(InputError, match="p and q have the prefixes '<eos>' and 'a'"):
        exact_kl_on_samples([p, q], n_texts=2, n_tokens=2)


def test_contexts_of_other_length_do_not_matter_to_texts_that_fit(
    random_model: Callable[..., LoadedModel],
) -> None:
    p, q = random_model(seed=0), random_model(seed=1, max_position_embeddings=8)
    assert np.isfinite(exact_kl_on_texts([p, q], ["a b c a b c a b", "a"]).kl.value).all()
    assert exact_kl_on_samples([p, q], n_texts=2, n_tokens=8).n_tokens.tolist() == [8, 8]
    with pytest.raises(InputError, match="llama-1 has 8 positions; 9 tokens were asked for"):
        exact_kl_on_samples([p, q], n_texts=2, n_tokens=9)


def test_numbers_that_make_no_sense_are_refused(random_model: Callable[..., LoadedModel]) -> None:
    pair = [random_model(seed=0), random_model(seed=1)]
    with pytest.raises(InputError, match="1 of 1 texts carry weight; errors over texts need two"):
        exact_kl_on_texts(pair, ["a b"])
    with pytest.raises(InputError, match="1 of 2 texts carry weight"):
        exact_kl_on_texts(pair, ["a", "b"], weights=np.array([0.0, 1.0]))
    for weights in ([1.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(InputError, match="2 finite numbers, none negative"):
            exact_kl_on_texts(pair, ["a", "b"], weights=np.array(weights))
    with pytest.raises(InputError, match="errors over texts need two"):
        exact_kl_on_samples(pair, n_texts=1, n_tokens=3)
    with pytest.raises(InputError, match="at least 1, got 2 and 0"):
        exact_kl_on_samples(pair, n_texts=2, n_tokens=0)
    with pytest.raises(InputError, match="from 0 to 1, got 2"):
        exact_kl_on_samples(pair, n_texts=2, n_tokens=3, source=2)
    with pytest.raises(InputError, match="two or more models"):
        exact_kl_on_texts(pair[:1], ["a", "b"])


def test_a_result_cannot_be_written_to() -> None:
    kl = np.array([1.0, 2.0])
    exact = made_by_hand(kl, [1, 1])
    with pytest.raises(ValueError, match="read-only"):
        exact.kl_of_text[0] = 0
    kl[0] = 5
    assert exact.kl_of_text[0, 0, 1] == 1
