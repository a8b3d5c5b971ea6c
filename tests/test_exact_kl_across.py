"""KL of texts between models of any tokenizers: against enumeration, and where its bias is known on paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from enumerable import (
    NEVER,
    V,
    all_sequences,
    bigram_model,
    log_softmax,
    merging_tokenizer,
    of_chain,
    with_logits,
    word_tokenizer,
)

from lmmap.errors import InputError
from lmmap.exact_kl import (
    TextKL,
    enumerate_sequences,
    exact_kl_on_samples,
    half_jeffreys_of_sequences,
    text_kl_on_samples,
)
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.score import score_texts

CHARACTERS = merging_tokenizer(["<eos>", "a", "b"])
PAIRS = merging_tokenizer(["<eos>", "a", "b", "ab"], [("a", "b")])
IN_BYTES = merging_tokenizer(["<eos>", "a", "Ã", "©"], in_bytes=True)
FAIR = np.log([[1e-90, 0.5, 0.5]] * 3)
FAIR_IN_PAIRS = np.log(  # the same texts: after the piece "a" comes no "b", which would have joined it
    np.array([[0, 1, 2, 1], [0, 2, 0, 2], [0, 1, 2, 1], [0, 1, 2, 1]]) / 4 + 1e-90
)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., LoadedModel]:
    """Give a function that makes a bigram model with a tokenizer."""
    return lambda name, logits, tokenizer=None: bigram_model(tmp_path, name, logits, tokenizer)


def random_tables(*sizes: int, seed: int = 0) -> list[np.ndarray]:
    """Bigram tables that never end a text."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=(size, size)) for size in sizes]
    for table in tables:
        table[:, 0] = NEVER
    return [log_softmax(table) for table in tables]


def is_within(mean: object, expected: float, at: int, *, n_errors: float = 4) -> bool:
    return abs(mean.value[at] - expected) < n_errors * mean.se[at]


# One kind of text, two tokenizers


def test_a_tokenizer_that_numbers_words_otherwise_changes_nothing(make: Callable[..., LoadedModel]) -> None:
    length, order = 4, [0, 3, 1, 2]
    p_table, q_table = random_tables(V, V)
    p, q = make("p", p_table), make("q", q_table)
    words = np.array(["<eos>", "a", "b", "c"])[order]
    renumbered = make("r", q_table[np.ix_(order, order)], word_tokenizer(list(words)))
    exact = enumerate_sequences([p, q], n_tokens=length)
    size = {"n_texts": 1500, "n_tokens": length}
    there = text_kl_on_samples([p, q, renumbered], **size)
    back = text_kl_on_samples([p, renumbered], **size, source=1)
    assert there.round_trip.all()
    assert back.round_trip.all()
    assert not there.ended.any()
    np.testing.assert_allclose(there.log_likelihoods[2], there.log_likelihoods[1], atol=1e-5)
    assert is_within(there.sequence_kl, exact.kl[0, 1], 2)
    assert is_within(back.sequence_kl, exact.kl[1, 0], 0)
    assert there.sequence_kl.se[2] == pytest.approx(np.sqrt(exact.variance[0, 1] / 1500), rel=0.1)
    both = half_jeffreys_of_sequences(text_kl_on_samples([p, renumbered], **size), back)
    assert abs(both.value[0, 1] - exact.half_jeffreys[0, 1]) < 4 * both.se[0, 1]


def test_with_one_tokenizer_it_is_naive_sampling(make: Callable[..., LoadedModel]) -> None:
    pair = [make(name, table) for name, table in zip("pq", random_tables(V, V), strict=True)]
    size = {"n_texts": 50, "n_tokens": 6, "seed": 3, "source": 1}
    texts, exact = text_kl_on_samples(pair, **size), exact_kl_on_samples(pair, **size)
    np.testing.assert_allclose(texts.log_likelihoods, exact.log_likelihoods, atol=1e-5)
    np.testing.assert_allclose(texts.sequence_kl.value, exact.naive_kl.value, atol=1e-5)
    np.testing.assert_allclose(texts.sequence_kl.se, exact.naive_kl.se, atol=1e-5)
    assert texts.sequence_kl.value[1] == texts.sequence_kl.se[1] == 0
    nats = texts.sequence_kl.value[0] * 50
    assert texts.sequence_kl_per_byte.value[0] == pytest.approx(nats / sum(map(len, texts.texts)))


def test_the_score_of_a_text_is_that_of_scoring(make: Callable[..., LoadedModel]) -> None:
    p, q = make("p", random_tables(3)[0], CHARACTERS), make("q", random_tables(4)[0], PAIRS)
    result = text_kl_on_samples([p, q], n_texts=5, n_tokens=7)
    for model, row in zip((p, q), result.log_likelihoods, strict=True):
        np.testing.assert_allclose(row, score_texts(model, result.texts).log_likelihood, rtol=1e-6)


# Pieces against characters


def of_text(table: np.ndarray, tokens: Sequence[str], text: str, last: int = 0) -> tuple[float, float]:
    """Probability that a model of pieces goes on with a text: cut in any way, and with an overhang."""
    if not text:
        return 1.0, 1.0
    exactly = beyond = 0.0
    for piece in range(1, len(tokens)):
        p = np.exp(table[last, piece])
        if text.startswith(tokens[piece]):
            rest = of_text(table, tokens, text[len(tokens[piece]) :], piece)
            exactly, beyond = exactly + p * rest[0], beyond + p * rest[1]
        elif tokens[piece].startswith(text):
            beyond += p
    return exactly, beyond


def test_pieces_against_characters_agree_with_enumeration_and_are_off_by_what_the_score_misses(
    make: Callable[..., LoadedModel],
) -> None:
    length, names = 5, ["<eos>", "a", "b", "ab"]
    characters, pieces = random_tables(3, 4, seed=2)
    p, q = make("p", characters, CHARACTERS), make("q", pieces, PAIRS)
    strings = ["".join(row) for row in product("ab", repeat=length)]
    log_p = np.array([of_chain(characters, ["-ab".index(c) for c in text]) for text in strings])
    canonical = np.array([of_chain(pieces, PAIRS(text)["input_ids"]) for text in strings])
    begins = np.log([of_text(pieces, names, text)[1] for text in strings])
    assert np.exp(log_p).sum() == pytest.approx(1)
    assert np.exp(begins).sum() == pytest.approx(1)
    result = text_kl_on_samples([p, q], n_texts=4000, n_tokens=length)
    assert is_within(result.sequence_kl, np.exp(log_p) @ (log_p - canonical), 1)
    truth, missed = np.exp(log_p) @ (log_p - begins), np.exp(log_p) @ (begins - canonical)
    assert truth > 0
    assert missed > 10 * result.sequence_kl.se[1]
    assert is_within(result.sequence_kl, truth + missed, 1)
    # the other way the source misses something, so that the mean is too small
    back = text_kl_on_samples([p, q], n_texts=4000, n_tokens=length, n_characters=length, source=1)
    assert {len(text) for text in back.texts} == {length}
    assert is_within(back.sequence_kl, np.exp(begins) @ (canonical - log_p), 0)
    truth, missed = np.exp(begins) @ (begins - log_p), np.exp(begins) @ (begins - canonical)
    assert is_within(back.sequence_kl, truth - missed, 0)
    assert missed > 10 * back.sequence_kl.se[0]


def test_models_of_the_same_texts_are_off_by_the_last_token_and_half_jeffreys_by_nothing(
    make: Callable[..., LoadedModel],
) -> None:
    pair = [make("p", FAIR, CHARACTERS), make("q", FAIR_IN_PAIRS, PAIRS)]
    end = np.log(2) / 2  # half of the texts end in "a", of which half would have gone on to "ab"
    for length in (3, 12):
        runs = [
            text_kl_on_samples(pair, n_texts=1000, n_tokens=length, n_characters=length, source=i)
            for i in (0, 1)
        ]
        assert is_within(runs[0].sequence_kl, end, 1)
        assert is_within(runs[1].sequence_kl, -end, 0)
        both = half_jeffreys_of_sequences(*runs)
        assert abs(both.value[0, 1]) < 4 * both.se[0, 1] < 0.1
    state = np.eye(4)[0]
    for _ in range(6):
        state = state @ np.exp(FAIR_IN_PAIRS)
    whole = text_kl_on_samples(pair, n_texts=1000, n_tokens=6, source=1)
    assert whole.round_trip.all()
    assert is_within(whole.sequence_kl, -np.log(2) * state[1], 0)


def test_texts_that_do_not_come_back_as_sampled_are_counted(make: Callable[..., LoadedModel]) -> None:
    table = random_tables(4)[0]
    result = text_kl_on_samples(
        [make("p", table, PAIRS), make("q", FAIR, CHARACTERS)], n_texts=2000, n_tokens=3
    )
    shares = np.exp([of_chain(table, ids) for ids in all_sequences(3, [1, 2, 3])])
    split = [(1, 2) in pairwise(ids) for ids in all_sequences(3, [1, 2, 3])]
    expected = 1 - shares[split].sum()
    assert 0.2 < expected < 0.98
    assert result.round_trip.mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 2000))
    assert f"{result.round_trip.mean():.1%} come back as sampled" in repr(result)


def test_a_tokenizer_that_loses_something_is_told(make: Callable[..., LoadedModel]) -> None:
    words = word_tokenizer(("<eos>", "a", "b"))  # knows no "c", and reads it as "b"
    p, q = make("p", random_tables(V)[0]), make("q", random_tables(3)[0], words)
    result = text_kl_on_samples([p, q], n_texts=40, n_tokens=3)
    has_c = np.mean(["c" in text for text in result.texts])
    assert 0 < has_c < 1
    assert result.lossy.tolist() == [0, has_c]
    assert f"the tokenizer of q loses something of {has_c:.1%} of the texts" in repr(result)


# Ends


def test_a_text_ends_at_a_special_token_which_is_not_scored(make: Callable[..., LoadedModel]) -> None:
    length, n = 4, 4000
    tables = [log_softmax(table) for table in np.random.default_rng(6).normal(size=(2, V, V))]
    pair = [make(name, table) for name, table in zip("pq", tables, strict=True)]
    exact = enumerate_sequences(pair, n_tokens=length)
    ends = exact.ids == 0
    before = ~np.logical_or.accumulate(ends, axis=1)
    tokens = exact.token_log_probs.reshape(2, -1, length)
    p_text, q_text = (tokens * before).sum(axis=2)
    result = text_kl_on_samples(pair, n_texts=n, n_tokens=length)
    assert is_within(result.sequence_kl, exact.probs[0] @ (p_text - q_text), 1)
    ended = exact.probs[0] @ ends.any(axis=1)
    assert result.ended.mean() == pytest.approx(ended, abs=4 * np.sqrt(0.25 / n))
    assert "<eos>" not in "".join(result.texts)
    one = text_kl_on_samples(pair, n_texts=n, n_tokens=length, n_characters=1)  # what ends later is whole
    assert one.ended.tolist() == [not text for text in result.texts]
    empty = np.array([not text for text in result.texts])
    assert empty.any()
    assert not result.log_likelihoods[:, empty].any()
    assert result.round_trip.all()


def test_half_a_character_at_the_end_is_left_out(make: Callable[..., LoadedModel]) -> None:
    table = np.full((4, 4), NEVER)  # é, of two bytes, again and again
    table[[0, 1, 3], 2] = table[2, 3] = 0.0
    p, q = make("p", table, IN_BYTES), make("q", random_tables(4)[0], IN_BYTES)
    for n_tokens, is_whole in ((4, True), (5, False)):
        result = text_kl_on_samples([p, q], n_texts=3, n_tokens=n_tokens)
        assert set(result.texts) == {"éé"}
        assert result.n_bytes.tolist() == [4, 4, 4]
        assert not result.ended.any()
        assert result.round_trip.tolist() == [is_whole] * 3
        assert result.log_likelihoods[0] == pytest.approx(0, abs=1e-5)


def test_a_text_ends_before_bytes_that_are_no_character(make: Callable[..., LoadedModel]) -> None:
    table = np.full((4, 4), NEVER)
    table[0, 1] = table[1, 3] = table[3, 1] = 0.0  # a, the second byte of a character, a, ...
    p, q = make("p", table, IN_BYTES), make("q", random_tables(4)[0], IN_BYTES)
    result = text_kl_on_samples([p, q], n_texts=2, n_tokens=5, n_characters=3)
    assert result.texts == ("a", "a")
    assert result.ended.all()
    assert not result.round_trip.any()


# What is refused, and what is infinite


def test_a_model_that_excludes_a_text_is_infinitely_far(make: Callable[..., LoadedModel]) -> None:
    p, q = make("p", FAIR, CHARACTERS), make("q", random_tables(4)[0], PAIRS)
    result = text_kl_on_samples([p, with_logits(q, 3, -torch.inf)], n_texts=20, n_tokens=4)
    assert result.sequence_kl.value[1] == result.sequence_kl.se[1] == np.inf
    assert result.sequence_kl.value[0] == 0
    with pytest.raises(InputError, match="q excludes a text that it wrote"):
        text_kl_on_samples([p, q], n_texts=50, n_tokens=4, source=1)


def test_logits_that_are_not_numbers_are_refused(
    make: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    p, q = make("p", FAIR, CHARACTERS), make("q", FAIR_IN_PAIRS, PAIRS)
    with pytest.raises(InputError, match="logits are not finite"):  # seen on the first tokens
        text_kl_on_samples([p, with_logits(q, 1, torch.nan)], n_texts=2, n_tokens=4)
    values = [np.zeros(4), np.array([0.0, np.nan])]  # or later, in some text
    monkeypatch.setattr("lmmap.exact_kl.across.token_log_probs", lambda *_: values)
    with pytest.raises(InputError, match="p gives a text logits that are not numbers"):
        text_kl_on_samples([p, q], n_texts=2, n_tokens=4)


def test_equal_models_are_nothing_apart(make: Callable[..., LoadedModel]) -> None:
    table = random_tables(4)[0]
    pair = [make("p", table, PAIRS), make("twin", table, PAIRS)]
    runs = [text_kl_on_samples(pair, n_texts=10, n_tokens=5, source=i) for i in (0, 1)]
    both = half_jeffreys_of_sequences(*runs)
    assert not both.value.any()
    assert not both.se.any()


def test_samples_that_make_no_sense_are_refused(make: Callable[..., LoadedModel]) -> None:
    p, q = make("p", FAIR, CHARACTERS), make("q", FAIR_IN_PAIRS, PAIRS)
    for models, options, message in (
        ([p], {}, "two or more models"),
        ([p, p], {}, "name of its own"),
        ([p, q], {"source": 2}, "from 0 to 1, got 2"),
        ([p, q], {"n_texts": 1}, "two texts at least"),
        ([p, q], {"n_tokens": 0}, "at least 1"),
        ([p, q], {"n_tokens": 17}, "p has 16 positions"),
        ([p, q], {"n_characters": 0}, "at least 1, got 0"),
        ([p, q], {"n_characters": 5}, "9 of 9 texts from p have fewer than 5 characters, one 4"),
        ([p, q], {"n_tokens": 16, "source": 1}, r"p has 16 positions and cuts a text into \d\d tokens"),
    ):
        with pytest.raises(InputError, match=message):
            text_kl_on_samples(models, **{"n_texts": 9, "n_tokens": 4} | options)
    nothing = make("n", np.tile([0.0, NEVER, NEVER], (3, 1)), CHARACTERS)
    with pytest.raises(InputError, match="n writes 9 empty texts"):
        text_kl_on_samples([nothing, p], n_texts=9, n_tokens=4)


def test_directions_of_other_length_are_not_put_together(make: Callable[..., LoadedModel]) -> None:
    pair = [make("p", FAIR, CHARACTERS), make("q", FAIR_IN_PAIRS, PAIRS)]
    one = text_kl_on_samples(pair, n_texts=5, n_tokens=4)
    other = text_kl_on_samples(pair, n_texts=5, n_tokens=4, n_characters=4, source=1)
    with pytest.raises(InputError, match="samples of 4 characters and 4 tokens do not compare"):
        half_jeffreys_of_sequences(one, other)
    with pytest.raises(InputError, match="samples from q are missing"):
        half_jeffreys_of_sequences(one)
    with pytest.raises(InputError, match="same models"):
        half_jeffreys_of_sequences()


def test_a_result_cannot_be_written_to(make: Callable[..., LoadedModel]) -> None:
    pair = [make("p", FAIR, CHARACTERS), make("q", FAIR_IN_PAIRS, PAIRS)]
    result: TextKL = text_kl_on_samples(pair, n_texts=2, n_tokens=3)
    with pytest.raises(ValueError, match="read-only"):
        result.log_likelihoods[0, 0] = 0
