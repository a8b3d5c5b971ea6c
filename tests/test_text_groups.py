"""Sums over groups of texts: the same KL as from the texts themselves, for any choice of them."""

from __future__ import annotations

import numpy as np
import pytest

from lmmap.errors import InputError
from lmmap.estimates import ESTIMATORS, estimate_kl_by
from lmmap.segments import Segments, segments_of_tokens, segments_of_totals
from lmmap.text_groups import TextGroups, group_texts
from lmmap.text_sums import CENTERED, estimators_of

close = np.testing.assert_allclose
N_TEXTS, N_GROUPS = 40, 5


def made_up(n_models: int = 7, seed: int = 0) -> Segments:
    """Tokens of texts of many lengths; texts drift apart, models more and more."""
    generator = np.random.default_rng(seed)
    text = np.repeat(np.arange(N_TEXTS), generator.integers(1, 30, N_TEXTS))
    scale = np.linspace(0.1, 2, n_models)[:, None]
    drift = generator.normal(0, 1, (n_models, N_TEXTS))[:, text]
    log_probs = generator.normal(-9, 2, len(text)) + scale * (generator.normal(0.2, 1, drift.shape) + drift)
    return segments_of_tokens(log_probs, text, 4 * np.bincount(text))


def shuffled_groups() -> np.ndarray:
    return np.random.default_rng(1).permutation(np.arange(N_TEXTS) % N_GROUPS)


def agree(found: np.ndarray, expected: np.ndarray) -> None:
    close(found, expected, rtol=1e-9, atol=1e-12 * expected.max())
    np.testing.assert_array_equal(found, found.T)
    assert not np.diag(found).any()


@pytest.mark.parametrize("drawn", [None, 150])
@pytest.mark.parametrize("name", CENTERED)
def test_groups_of_texts_give_the_estimate_from_those_texts(name: str, drawn: int | None) -> None:
    tokens = made_up() if drawn is None else made_up().sample(drawn)
    group = shuffled_groups()
    groups = group_texts(name, tokens, group)
    generator = np.random.default_rng(2)
    for weights in (np.array([1, 0, 0, 1, 1]), np.eye(N_GROUPS)[3], generator.exponential(size=N_GROUPS)):
        agree(groups.kl(weights), estimate_kl_by(name, tokens, weights=weights[group].astype(float)))
    agree(groups.kl(), estimate_kl_by(name, tokens))


@pytest.mark.parametrize("name", [name for name in CENTERED if name != "text_level"])
def test_texts_that_are_groups_of_their_own_can_be_chosen_freely(name: str) -> None:
    tokens = made_up()
    chosen = np.random.default_rng(3).random(N_TEXTS) < 0.3
    groups = group_texts(name, tokens, np.arange(N_TEXTS))
    agree(groups.of_texts(chosen).kl(), estimate_kl_by(name, tokens, weights=chosen.astype(float)))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 1.0])
def test_text_level_follows_any_choice_of_texts(share: float) -> None:
    texts = segments_of_totals(made_up().totals, np.ones(N_TEXTS))
    chosen = np.random.default_rng(4).permutation(N_TEXTS) < max(2, share * N_TEXTS)
    groups = group_texts("text_level", texts, shuffled_groups())
    agree(groups.of_texts(chosen).kl(), estimate_kl_by("text_level", texts, weights=chosen.astype(float)))


def test_many_changes_one_after_the_other_lose_nothing() -> None:
    texts = segments_of_totals(made_up().totals, np.ones(N_TEXTS))
    groups = group_texts("text_level", texts, shuffled_groups())
    generator = np.random.default_rng(5)
    chosen = generator.random(N_TEXTS) < 0.5
    known = (chosen, groups.of_texts(chosen))
    for _ in range(500):
        chosen = chosen.copy()
        chosen[generator.integers(N_TEXTS, size=2)] ^= True
        chosen[:2] = True
        known = (chosen, groups.of_texts(chosen, known))
    agree(known[1].kl(), estimate_kl_by("text_level", texts, weights=chosen.astype(float)))


def test_only_texts_that_differ_are_added_or_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = segments_of_totals(made_up().totals, np.ones(N_TEXTS))
    groups = group_texts("text_level", texts, shuffled_groups())
    half = np.arange(N_TEXTS) < N_TEXTS // 2
    known = (half, groups.of_texts(half))
    more = half.copy()
    more[30] = True
    monkeypatch.setattr(TextGroups, "add_up", lambda *_: pytest.fail("began anew"))
    agree(groups.of_texts(more, known).kl(), estimate_kl_by("text_level", texts, weights=more.astype(float)))


@pytest.mark.parametrize("name", CENTERED)
def test_equal_models_are_exactly_0_apart_and_near_ones_keep_their_digits(name: str) -> None:
    tokens = made_up(5)
    log_probs = tokens.read(0, len(tokens.text_of_segment)).copy()
    log_probs[1] = log_probs[4]
    log_probs[2] = log_probs[4] + 1e-6 * np.random.default_rng(6).normal(size=log_probs.shape[1])
    text = tokens.text_of_segment
    tokens = segments_of_tokens(log_probs, text, np.ones(N_TEXTS))
    group = shuffled_groups()
    groups, weights = group_texts(name, tokens, group), np.array([1.0, 0, 1, 0, 1])
    found = groups.kl(weights)
    assert found[1, 4] == 0
    expected = estimate_kl_by(name, tokens, weights=weights[group])
    assert 0 < expected[2, 4] < 1e-9
    close(found[2, 4], expected[2, 4], rtol=1e-5)
    if name == "text_level":
        assert groups.of_texts(np.arange(N_TEXTS) % 2 == 0).kl()[1, 4] == 0


@pytest.mark.parametrize("name", CENTERED)
def test_what_groups_contribute_to_a_pair_adds_up_to_its_distance(name: str) -> None:
    tokens, group = made_up(), shuffled_groups()
    groups, weights = group_texts(name, tokens, group), np.array([1.0, 1, 0, 1, 0])
    parts = groups.contributions(1, 6, weights)
    close(parts.sum(), groups.kl(weights)[1, 6], rtol=1e-12)
    assert not parts[[2, 4]].any()
    if name == "text_level":
        chosen = weights[group] > 0
        off = tokens.totals[1] - tokens.totals[6]
        off = (off - off[chosen].mean()) ** 2 / 2 / chosen.sum()
        close(parts, [off[(group == g) & chosen].sum() for g in range(N_GROUPS)], rtol=1e-9)


def test_scores_without_tokens_offer_text_level_and_mixed_tokenizers_no_token_level() -> None:
    tokens = made_up()
    assert set(estimators_of(tokens)) == set(CENTERED) <= set(ESTIMATORS)
    assert estimators_of(segments_of_totals(tokens.totals, tokens.n_bytes)) == ("text_level",)
    mixed = Segments(
        "segment", tokens.models, tokens.totals, tokens.n_bytes, tokens.text_of_segment, tokens.read
    )
    assert not any(name.startswith("token") for name in estimators_of(mixed))
    with pytest.raises(
        InputError, match=r"'token_level' cannot be added up for scores of segments .*closest"
    ):
        group_texts("token_level", mixed, shuffled_groups())


def test_what_cannot_be_added_up_is_refused() -> None:
    tokens, group = made_up(), shuffled_groups()
    with pytest.raises(InputError, match="'ensemble' cannot be added up"):
        group_texts("ensemble", tokens, group)
    with pytest.raises(InputError, match=r"groups have shape \(3,\)"):
        group_texts("text_level", tokens, group[:3])
    with pytest.raises(InputError, match=r"numbered from 0 without a gap, got \[0, 2\]"):
        group_texts("text_level", tokens, group % 2 * 2)
    groups = group_texts("mixture", tokens, group)
    with pytest.raises(InputError, match="mixture can be added up for whole groups"):
        groups.of_texts(np.arange(N_TEXTS) == 3)
    with pytest.raises(InputError, match="carry weight"):
        groups.kl(np.zeros(N_GROUPS))
    alone = group_texts("text_level", tokens, np.arange(N_TEXTS))
    with pytest.raises(InputError, match="needs 2 pieces of text that carry weight, got 1"):
        alone.of_texts(np.arange(N_TEXTS) == 3).kl()
