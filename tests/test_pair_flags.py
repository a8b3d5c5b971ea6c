"""Flags of pairs: what they are told from, on pairs whose trouble is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.laboratory import best_limit, roc_area
from lmmap.chains import Setting, draw_segments, make_chains
from lmmap.errors import InputError
from lmmap.estimates import SUMMED, estimate_kl_by
from lmmap.geometry import split_variance
from lmmap.pair_flags import flag_pairs
from lmmap.segments import segments_of_tokens, segments_of_totals

N_TEXTS, IN_TEXT = 40, 5
N_BYTES = np.random.default_rng(1).integers(10, 90, N_TEXTS)


def tokens_of(n_models=4, scale=0.5, seed=0):
    log_probs = -5 + scale * np.random.default_rng(seed).normal(size=(n_models, N_TEXTS * IN_TEXT))
    return segments_of_tokens(log_probs, np.repeat(np.arange(N_TEXTS), IN_TEXT), N_BYTES)


def in_laboratory(**knobs):
    setting = Setting(**knobs)
    return draw_segments(setting, make_chains(setting), np.random.default_rng(0))


def totals_alone(pieces):
    return segments_of_totals(pieces.totals, pieces.n_bytes)


@pytest.mark.parametrize("estimator", ["segment_centered", "token_level", "text_level"])
def test_doubt_with_token_records_is_the_log_ratio_to_the_mixture(estimator) -> None:
    pieces = tokens_of()
    found = flag_pairs(pieces, estimator=estimator)
    log_probs, _ = next(pieces.blocks())
    for i, j in ((0, 1), (2, 3)):
        D = log_probs[i] - log_probs[j]
        mixture = (D * np.tanh(D / 2)).sum() / N_TEXTS
        expected = abs(np.log(estimate_kl_by(estimator, pieces)[i, j] / mixture))
        assert found.doubt[i, j] == pytest.approx(expected, rel=1e-9)
        assert found.doubt[j, i] == found.doubt[i, j]


def test_doubt_of_totals_is_the_skewness_times_a_third_of_the_deviation() -> None:
    pieces = totals_alone(tokens_of())
    found = flag_pairs(pieces)
    D = pieces.totals[0] - pieces.totals[2]
    assert found.doubt[0, 2] == pytest.approx(abs(stats.skew(D)) * D.std() / 3, rel=1e-9)


def test_doubt_of_totals_is_that_of_plain_differences_for_near_and_far_pairs() -> None:
    generator = np.random.default_rng(1)
    rows = generator.gamma(2, size=(12, 50)) * 10.0 ** generator.integers(-3, 3, size=(12, 1)) - 900
    rows[7] = rows[3] + 1e-5 * generator.gamma(1, size=50)
    weights = generator.random(50)
    D = rows[:, None] - rows[None]
    D -= (D @ weights / weights.sum())[..., None]
    second = D**2 @ weights
    plain = np.divide(np.abs(D**3 @ weights), 3 * second, out=np.zeros_like(second), where=second > 0)
    found = flag_pairs(segments_of_totals(rows, np.ones(50)), weights=weights)
    np.testing.assert_allclose(found.doubt, plain, rtol=1e-6, atol=1e-12)


def test_the_third_order_is_how_far_both_directions_are_apart() -> None:
    x, eps = np.array([3.0, -1.0, 0.5, 0.2]), 0.01
    p = np.exp(eps * np.stack([x, -x]) / 2)
    p /= p.sum(axis=1, keepdims=True)
    forward, backward = (a @ np.log(a / b) for a, b in ((p[0], p[1]), (p[1], p[0])))
    found = flag_pairs(segments_of_totals(np.log(p), np.ones(4)))
    apart = abs(forward - backward) / ((forward + backward) / 2)
    assert found.doubt[0, 1] == pytest.approx(apart, rel=1e-3)


def test_share_of_length_is_that_of_the_split_of_variance() -> None:
    pieces = tokens_of()
    found = flag_pairs(pieces)
    parts = split_variance(pieces.totals[1] - pieces.totals[3], N_BYTES, ["one"] * N_TEXTS)
    assert found.length_share[1, 3] == pytest.approx(parts["length"] / sum(parts.values()), rel=1e-9)


def test_near_pairs_of_the_laboratory_have_no_flag() -> None:
    pieces = in_laboratory(distance=0.05)
    assert flag_pairs(pieces).say(0, 1) == ""
    assert flag_pairs(totals_alone(pieces)).say(0, 1) == ""


@pytest.mark.parametrize("knobs", [{"distance": 3.0}, {"tail": 16.0}])
def test_far_pairs_and_heavy_tails_have_the_flag_of_second_order(knobs) -> None:
    pieces = in_laboratory(**knobs)
    for found in (flag_pairs(pieces), flag_pairs(totals_alone(pieces))):
        assert found.second_order[0, 1]
        assert "second order may not be enough for this pair" in found.say(0, 1)
        assert not found.length[0, 1]


def test_unlike_kinds_of_texts_are_told_for_text_level_and_not_for_token_level() -> None:
    pieces = in_laboratory(kinds=1.0)
    assert flag_pairs(pieces, estimator="text_level").second_order[0, 1]
    assert not flag_pairs(pieces).second_order[0, 1]


def test_spread_lengths_of_a_model_that_is_worse_everywhere_drive_the_pair() -> None:
    pieces = in_laboratory(length_spread=1.5, distance=0.4)
    found = flag_pairs(pieces)
    ratio = np.divide(*(estimate_kl_by(name, pieces)[0, 1] for name in ("text_level", "text_regressed")))
    assert ratio > 2
    assert found.length[0, 1]
    assert f"length drives this pair ({1 - 1 / ratio:.0%} of the variance)" in found.say(0, 1)
    assert not flag_pairs(in_laboratory(distance=0.4)).length[0, 1]


def test_equal_models_have_no_doubt_and_a_gain_on_every_token_alike_has() -> None:
    base, _ = next(tokens_of(1).blocks())
    log_probs = np.stack([base[0], base[0], base[0] - 1.0])
    pieces = segments_of_tokens(log_probs, np.repeat(np.arange(N_TEXTS), IN_TEXT), N_BYTES)
    found = flag_pairs(pieces)
    assert found.say(0, 1) == ""
    assert found.doubt[0, 1] == found.length_share[0, 1] == found.doubt[1, 1] == 0
    assert found.second_order[0, 2]
    assert flag_pairs(totals_alone(pieces)).doubt[0, 1] == 0


@pytest.mark.parametrize("alone", [False, True])
def test_weights_are_repeats(alone) -> None:
    pieces = tokens_of()
    times = np.arange(N_TEXTS) % 3
    log_probs, text = next(pieces.blocks())
    kept = np.repeat(np.arange(len(text)).reshape(N_TEXTS, IN_TEXT), times, axis=0).ravel()
    again = np.repeat(np.arange(times.sum()), IN_TEXT)
    repeated = segments_of_tokens(log_probs[:, kept], again, np.repeat(N_BYTES, times))
    if alone:
        pieces, repeated = totals_alone(pieces), totals_alone(repeated)
    weighted, expected = flag_pairs(pieces, weights=times), flag_pairs(repeated)
    np.testing.assert_allclose(weighted.doubt, expected.doubt, rtol=1e-9)
    np.testing.assert_allclose(weighted.length_share, expected.length_share, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_flagged_is_refused() -> None:
    pieces = tokens_of()
    for name in SUMMED:
        with pytest.raises(InputError, match=f"{name} is no squared distance"):
            flag_pairs(pieces, estimator=name)
    with pytest.raises(InputError, match="unknown estimator 'text_lvl'"):
        flag_pairs(pieces, estimator="text_lvl")
    with pytest.raises(InputError, match="needs token records"):
        flag_pairs(totals_alone(pieces), estimator="segment_centered")
    with pytest.raises(InputError, match="three texts that carry weight"):
        flag_pairs(pieces, weights=np.arange(N_TEXTS) < 2)


def test_the_area_of_the_benchmark_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    off = rng.random(60) < 0.4
    statistic = np.round(rng.normal(size=60) + off, 1)  # with ties
    expected = stats.mannwhitneyu(statistic[off], statistic[~off]).statistic / off.sum() / (~off).sum()
    assert roc_area(statistic, off) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(roc_area(statistic, np.ones(60, dtype=bool)))


def test_the_limit_of_the_benchmark_parts_what_can_be_parted() -> None:
    table = pd.DataFrame({"gap": [0.1, 0.2, 0.3, 0.8, 0.9], "off": [False, False, False, True, True]})
    assert 0.3 <= best_limit([table], "gap", "off") < 0.8
