"""The laboratory: exact values are exact, and each knob breaks the estimate that it should."""

from __future__ import annotations

from itertools import product

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lmmap.chains import Chains, Setting, chain_kl, draw_segments, exact_values, make_chains
from lmmap.errors import InputError
from lmmap.estimates import ESTIMATORS, estimate_kl_by
from lmmap.exact_kl import Enumerated
from lmmap.laboratory import KNOBS, summarize_sweep, sweep
from lmmap.plotting.laboratory import plot_sweep


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def ratios(knob, **options):
    """Ratio of every estimator, (values, estimators)."""
    return sweep(knob, **options).pivot(index="value", columns="estimator", values="ratio")


def random_chain(seed, size=3):
    logits = np.random.default_rng(seed).normal(size=(size, size))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def log_prob(chain, sequence):
    return sum(chain[a, b] for a, b in zip((0, *sequence), sequence, strict=False))


def test_kl_of_chains_is_that_of_all_their_sequences_enumerated() -> None:
    p, q = random_chain(0), random_chain(1)
    for length in (1, 2, 5):
        sequences = list(product(range(3), repeat=length))
        table = np.array([[log_prob(chain, one) for one in sequences] for chain in (p, q)])
        whole = Enumerated(("p", "q"), table, length)
        assert chain_kl(p, q, 5)[length - 1] == pytest.approx(whole.kl[0, 1], rel=1e-12)
        assert chain_kl(q, p, 5)[length - 1] == pytest.approx(whole.kl[1, 0], rel=1e-12)


def test_kl_in_the_contexts_of_another_source_is_a_sum_over_its_sequences() -> None:
    p, q, source = (random_chain(seed) for seed in range(3))
    expected = 0.0
    for a, b in product(range(3), repeat=2):
        steps = [np.exp(p[context]) @ (p[context] - q[context]) for context in (0, a, b)]
        expected += np.exp(log_prob(source, (a, b))) * sum(steps)
    assert chain_kl(p, q, 3, source=source)[-1] == pytest.approx(expected, rel=1e-12)


def test_scores_are_those_of_texts_that_the_sources_write_in_turn() -> None:
    cyclic = np.full((8, 8), -np.inf)
    cyclic[np.arange(8), (np.arange(8) + 1) % 8] = 0
    still = np.full((8, 8), -np.inf)
    still[np.arange(8), np.arange(8)] = 0
    p, q = random_chain(0, 8), random_chain(1, 8)
    setting = Setting(n_texts=4, n_tokens=3)
    pieces = draw_segments(setting, Chains(np.stack([cyclic, still]), p, q), np.random.default_rng(0))
    log_probs, text = next(pieces.blocks())
    for row, chain in zip(log_probs, (p, q), strict=True):
        np.testing.assert_array_equal(row[text == 2], [chain[0, 1], chain[1, 2], chain[2, 3]])
        np.testing.assert_array_equal(row[text == 3], [chain[0, 0]] * 3)


def test_merged_tokens_are_the_same_strings_with_the_same_totals() -> None:
    chains = make_chains(Setting())
    one, three = (
        draw_segments(Setting(n_tokens=7, merged=m), chains, np.random.default_rng(0)) for m in (1, 3)
    )
    np.testing.assert_allclose(three.totals, one.totals, rtol=1e-12)
    assert three.unit == "segment"
    assert set(three.n_of_text) == {3}


def test_mean_of_the_log_ratio_on_texts_from_a_model_is_its_kl() -> None:
    setting = Setting(distance=0.5, n_texts=4000, n_tokens=16)
    made = make_chains(setting)
    for source, sign, name in ((made.first, 1, "kl_first_second"), (made.second, -1, "kl_second_first")):
        chains = made._replace(sources=np.stack([source, source]))
        totals = draw_segments(setting, chains, np.random.default_rng(0)).totals
        D = sign * (totals[0] - totals[1])
        assert abs(D.mean() - exact_values(setting, made)[name]) < 4 * D.std() / np.sqrt(len(D))


def test_mixture_level_is_exact_where_every_token_comes_from_either_model() -> None:
    setting = Setting(distance=1.0, n_tokens=1, n_texts=40_000)
    made = make_chains(setting)
    pieces = draw_segments(
        setting, made._replace(sources=np.stack([made.first, made.second])), np.random.default_rng(0)
    )
    D = np.subtract(*next(pieces.blocks())[0])
    terms = D * np.tanh(D / 2)
    exact = exact_values(setting, made)["exact"]
    assert abs(estimate_kl_by("mixture", pieces)[0, 1] - exact) < 4 * terms.std() / np.sqrt(len(terms))
    assert estimate_kl_by("token_level", pieces)[0, 1] > 1.2 * exact


def test_all_estimators_are_right_for_near_models_and_the_squares_fail_far_away() -> None:
    table = ratios("distance")
    assert set(table.columns) == set(ESTIMATORS)
    assert table.loc[0.02].between(0.97, 1.03).all()
    assert table.loc[3.2, "token_centered"] > 3
    assert 0.9 < table.loc[3.2, "mixture"] < 1.1


@pytest.mark.parametrize(
    ("knob", "broken", "unbroken"),
    [
        ("kinds", "text_level", "segment_centered"),
        ("tail", "segment_centered", "mixture"),
        ("length_spread", "text_level", "text_regressed"),
    ],
)
def test_a_knob_breaks_one_estimate_more_than_another(knob, broken, unbroken) -> None:
    table = ratios(knob)
    assert table[broken].iloc[-1] > 1.9 * table[broken].iloc[0]
    assert table[broken].iloc[-1] > 1.9 * table[unbroken].iloc[-1]


def test_clipping_lowers_text_level_and_leaves_token_records_alone() -> None:
    table = ratios("clipped")
    assert table["text_level"].is_monotonic_decreasing
    assert table["text_level"].iloc[-1] < 0.85
    assert table["token_centered"].nunique() == 1


def test_the_error_bar_falls_with_the_root_of_the_number_of_texts() -> None:
    table = sweep("n_texts", values=[50, 800], n_repeats=100)
    errors = table[table["estimator"] == "text_level"].set_index("value")["standard_error"]
    assert errors[50] / errors[800] == pytest.approx(4, rel=0.3)


def test_the_scores_do_not_show_that_texts_are_far_from_both_models() -> None:
    far = sweep("far", values=[4.0]).iloc[0]
    near = sweep("far", values=[0.0]).iloc[0]
    assert far["exact"] == near["exact"]
    assert far["on_texts"] < 0.8 * near["on_texts"]
    assert near["on_texts"] == pytest.approx(near["exact"], rel=0.05)


def test_equal_models_are_zero_apart_with_a_zero_error_bar_and_no_ratio() -> None:
    table = sweep("distance", values=[0.0], n_repeats=3)
    assert (table[["estimate", "standard_error", "exact"]] == 0).all(axis=None)
    assert table["ratio"].isna().all()


def test_lengths_keep_their_mean_and_have_the_spread_that_was_asked_for() -> None:
    lengths = Setting(n_tokens=500, n_texts=2000, length_spread=0.5).lengths
    assert lengths.mean() == pytest.approx(500, rel=0.01)
    assert np.log(lengths).std() == pytest.approx(0.5, rel=0.01)


def test_tables_of_one_seed_are_equal_and_of_another_are_not() -> None:
    tables = [sweep("tail", values=[1.0], n_repeats=2, seed=seed) for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (tables[0]["exact"] != tables[2]["exact"]).all()


def test_the_sentence_tells_where_an_estimate_is_near_and_where_it_is_worst() -> None:
    row = {"knob": "far", "estimator": "mixture", "exact": 2.0}
    points = {0.0: 0.9, 1.0: 1.1, 2.0: 0.25, 3.0: 3.0}
    table = pd.DataFrame([row | {"value": v, "ratio": r} for v, r in points.items()])
    assert summarize_sweep(table) == (
        "far: mixture is within 20 % of exact at 0, 1, at worst 0.25 times exact (at 2, 2 nats)."
    )
    assert "exact everywhere" in summarize_sweep(table[:2])
    assert "exact nowhere" in summarize_sweep(table[2:])
    with pytest.raises(InputError, match="no ratio of text_level"):
        summarize_sweep(table, estimators=["text_level"])


@pytest.mark.parametrize(
    ("knob", "options", "said"),
    [
        ("tails", {}, "unknown knob 'tails'.*tail"),
        ("tail", {"values": []}, "at least one value of tail"),
        ("tail", {"values": [-1.0]}, "tail must be finite and not negative, got -1"),
        ("tail", {"values": [np.nan]}, "tail must be finite and not negative, got nan"),
        ("n_texts", {"values": [2]}, "n_texts must be a whole number, at least 3, got 2"),
        ("n_tokens", {"values": [2.5]}, "n_tokens must be a whole number, at least 1, got 2.5"),
        ("temperature", {"values": [0.0]}, "temperature must be positive"),
        ("clipped", {"values": [1.0]}, "clipped must be a share below 1, got 1"),
        ("tail", {"n_repeats": 1}, "two sets of texts or more, got n_repeats=1"),
    ],
)
def test_a_knob_that_cannot_stand_so_is_named(knob, options, said) -> None:
    with pytest.raises(InputError, match=said):
        sweep(knob, **options)


def test_chains_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"shapes \(3, 3\), \(2, 2\)"):
        chain_kl(random_chain(0), random_chain(0, 2), 3)
    with pytest.raises(InputError, match="n_tokens must be at least 1, got 0"):
        chain_kl(random_chain(0), random_chain(1), 0)


def test_every_knob_is_a_field_and_starts_where_the_setting_stands_or_passes_it() -> None:
    assert set(KNOBS) == set(vars(Setting()))
    for name, knob in KNOBS.items():
        assert min(knob.values) <= getattr(Setting(), name) <= max(knob.values)


def test_the_picture_shows_the_ratios_their_bands_and_one() -> None:
    table = sweep("merged", values=[1, 4], n_repeats=3)
    ax = plot_sweep(table, estimators=["text_level", "mixture"])
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    mixture = table[table["estimator"] == "mixture"]
    np.testing.assert_array_equal(lines["mixture"], mixture["ratio"])
    band = ax.collections[1].get_paths()[0].vertices[:, 1]
    assert set(mixture[["ratio_low", "ratio_high"]].to_numpy().ravel()) <= set(band)
    assert [1, 1] in [list(line.get_ydata()) for line in ax.lines]
    assert ax.get_yscale() == "log"
    assert [tick.get_text().split("\n")[0] for tick in ax.get_xticklabels()] == ["1", "4"]


def test_a_table_that_cannot_be_drawn_says_why() -> None:
    table = sweep("merged", values=[2], n_repeats=2)
    with pytest.raises(InputError, match="no positive ratio of 'token_centered'"):
        plot_sweep(table, estimators=["token_centered"])
    with pytest.raises(InputError, match="no column 'ratio_low'"):
        plot_sweep(table.drop(columns="ratio_low"))
    with pytest.raises(InputError, match="one knob, got merged, tail"):
        plot_sweep(pd.concat([table, sweep("tail", values=[1.0], n_repeats=2)]))
