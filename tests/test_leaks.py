"""Leaks: planted ones are flagged, hardly any other model is, and a few outliers do not move the line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from lmmap.analyses.leaks import THRESHOLD, flag_leaks
from lmmap.errors import InputError
from lmmap.geometry import height
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import make_benchmarks, make_lookalike


def with_heights(heights: np.ndarray) -> LogLikelihoods:
    models = pd.DataFrame(index=[f"m{i}" for i in range(len(heights))])
    return LogLikelihoods(heights[:, None] + [-1.0, 1.0], models, pd.DataFrame(index=["t1", "t2"]))


@pytest.mark.parametrize("seed", range(4))
def test_planted_leaks_are_flagged_and_hardly_any_other(seed: int) -> None:
    scores = make_lookalike(400, 500, seed=seed)
    benchmarks = make_benchmarks(scores, seed)
    found = flag_leaks(scores, benchmarks["score_mean"])
    planted = set(benchmarks.index[benchmarks["planted_leak"]])
    flagged = set(found.table.index[found.table["flagged"]])
    assert len(planted) == 4
    assert planted <= flagged
    assert len(flagged - planted) <= 4
    assert len(found.table) == 400 - 7


def test_false_flags_are_as_many_as_told_for_normal_errors() -> None:
    rng, n, told, flagged = np.random.default_rng(0), 500, 0.0, 0
    for _ in range(60):
        x = rng.uniform(20, 80, n)
        found = flag_leaks(
            with_heights(3 * x + rng.normal(0, 10, n)),
            pd.Series(x, [f"m{i}" for i in range(n)]),
            threshold=2.0,
        )
        told += found.expected_false_flags
        flagged += int(found.table["flagged"].sum())
        assert found.slope == pytest.approx(3, abs=0.15)
    assert told == pytest.approx(60 * n * norm.sf(2))
    assert flagged == pytest.approx(told, rel=0.15)


def test_outliers_do_not_move_the_line() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 100, 200)
    h = 2 * x - 500 + rng.normal(0, 5, 200)
    clean = flag_leaks(with_heights(h), pd.Series(x, [f"m{i}" for i in range(200)]))
    h[:20] += 400
    dirty = flag_leaks(with_heights(h), pd.Series(x, [f"m{i}" for i in range(200)]))
    assert dirty.slope == pytest.approx(clean.slope, abs=0.1)
    assert dirty.spread == pytest.approx(clean.spread, rel=0.25)
    assert set(dirty.table.index[:20]) == {f"m{i}" for i in range(20)}
    assert dirty.table["flagged"][:20].all()


def test_the_table_adds_up_and_keeps_to_one_side() -> None:
    scores = make_lookalike(120, 300, n_families=6, n_sources=4)
    benchmark = make_benchmarks(scores)["score_mean"]
    found = flag_leaks(scores, benchmark)
    table = found.table
    line = found.intercept + found.slope * table["benchmark"]
    np.testing.assert_allclose(table["expected"], line, atol=1e-9)
    np.testing.assert_allclose(table["excess"], table["height"] - line, atol=1e-9)
    assert table["excess"].median() == pytest.approx(0, abs=1e-9)
    assert table["z"].is_monotonic_decreasing
    assert (table["flagged"] == (table["z"] > THRESHOLD)).all()
    np.testing.assert_allclose(
        table["height"], height(scores.values)[scores.models.index.get_indexer(table.index)]
    )


def test_units_of_scores_do_not_change_what_is_flagged() -> None:
    scores = make_lookalike(120, 300, n_families=6, n_sources=4)
    benchmark = make_benchmarks(scores)["score_mean"]
    bits = replace(scores, values=scores.values / np.log(2))
    one, other = (flag_leaks(s, b).table["z"] for s, b in ((scores, benchmark), (bits, benchmark / 2)))
    pd.testing.assert_series_equal(one, other, check_exact=False, rtol=1e-9)


@pytest.mark.parametrize(
    ("benchmark", "options", "message"),
    [
        ([1, 2, 3, 4, np.nan, np.nan], {}, "4 models have a benchmark score; .* at least 5"),
        ([5, 5, 5, 5, 5, 5], {}, "does not differ"),
        ([1, 2, 3, 4, 5, 101], {}, "has 101"),
        ([1, 2, 3, 4, 5, 6], {"threshold": 0}, "threshold must be positive, got 0"),
        ([10, 20, 30, 40, 50, 60], {}, "half of the models lie on one line"),
    ],
)
def test_what_has_no_line_is_refused(benchmark: list[float], options: dict, message: str) -> None:
    scores = with_heights(np.array([1.0, 2, 3, 4, 5, 60]))
    with pytest.raises(InputError, match=message):
        flag_leaks(scores, pd.Series(benchmark, scores.models.index, dtype=float), **options)


def test_benchmarks_are_in_bounds_missing_together_and_told_by_seed() -> None:
    scores = make_lookalike(1018, 60)
    made = make_benchmarks(scores, 1)
    tasks = made.filter(like="score_")
    assert tasks.shape == (1018, 7)
    assert (tasks.isna().sum() == 18).all()
    assert not (tasks.isna().any(axis=1) & made["planted_leak"]).any()
    assert tasks.dropna().stack().between(0, 100).all()
    np.testing.assert_allclose(
        tasks["score_mean"], tasks.drop(columns="score_mean").mean(axis=1, skipna=False)
    )
    pd.testing.assert_frame_equal(made, make_benchmarks(scores, 1))
    assert not made.equals(make_benchmarks(scores, 2))


def test_benchmarks_of_too_few_or_equal_models_are_refused() -> None:
    with pytest.raises(InputError, match="at least 4 models, not 3"):
        make_benchmarks(with_heights(np.array([1.0, 2, 3])))
    with pytest.raises(InputError, match="alike"):
        make_benchmarks(with_heights(np.ones(5)))
