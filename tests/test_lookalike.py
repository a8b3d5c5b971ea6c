"""Look-alikes: what was put in is found again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kurtosis

from lmmap.errors import InputError
from lmmap.geometry import double_center, estimate_kl, height, nearest_neighbors
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import CLIP, GAIN, HOME_GAIN, LONGEST, SOURCES, make_benchmarks, make_lookalike


@pytest.fixture(scope="module")
def scores() -> LogLikelihoods:
    return make_lookalike(120, 1500, n_families=8, n_sources=6)


def test_every_value_could_be_a_log_likelihood_and_every_id_says_what_it_is(scores: LogLikelihoods) -> None:
    assert np.isfinite(scores.values).all()
    assert scores.values.max() < 0
    for index in (scores.models.index, scores.texts.index):
        assert index.str.startswith("synthetic-").all()
    assert scores.models["model"].str.startswith("synthetic/").all()
    assert scores.models["model"].is_unique
    assert scores.history == ("synthetic: make_lookalike(120, 1500, n_families=8, n_sources=6, seed=0)",)
    assert set(scores.texts["source"]) == set(SOURCES[:6])
    assert scores.texts["n_bytes"].between(64, LONGEST).all()
    assert pd.to_datetime(scores.models["created"]).notna().all()
    assert scores.models["family"].nunique() == 8


def test_a_seed_gives_the_same_set_and_another_another(scores: LogLikelihoods) -> None:
    again = make_lookalike(120, 1500, n_families=8, n_sources=6)
    np.testing.assert_array_equal(again.values, scores.values)
    pd.testing.assert_frame_equal(again.models, scores.models)
    assert (make_lookalike(120, 1500, n_families=8, n_sources=6, seed=1).values != scores.values).any()


def test_nearest_neighbors_are_of_the_same_family(scores: LogLikelihoods) -> None:
    family = scores.models["family"].to_numpy(dtype=object)
    nearest = nearest_neighbors(estimate_kl(scores.values), 3)
    assert (family[nearest] == family[:, None]).mean() > 0.9


def test_larger_models_are_more_likely(scores: LogLikelihoods) -> None:
    plain = scores.models["home"] == ""
    size = np.log10(scores.models["n_parameters"][plain])
    slope, _ = np.polyfit(size, height(scores.values)[plain.to_numpy()], 1)
    assert slope == pytest.approx(GAIN * scores.texts["n_bytes"].mean(), rel=0.3)


def test_families_with_a_home_stand_apart_on_its_texts(scores: LogLikelihoods) -> None:
    homes = set(scores.models["home"]) - {""}
    assert len(homes) == 2
    Q = double_center(scores.values / scores.texts["n_bytes"].to_numpy())
    for home in homes:
        ours = (scores.models["home"] == home).to_numpy()
        there = (scores.texts["source"] == home).to_numpy()
        gap = Q[ours].mean(axis=0) - Q[~ours & (scores.models["home"] == "").to_numpy()].mean(axis=0)
        assert gap[there].mean() - gap[~there].mean() == pytest.approx(HOME_GAIN, abs=0.02)


def test_tails_over_texts_are_heavy(scores: LogLikelihoods) -> None:
    n_bytes = scores.texts["n_bytes"].to_numpy()
    longest = scores.values[:, n_bytes == LONGEST]
    assert kurtosis(longest[0] - longest[1]) > 2  # of a normal variable: 0


def test_clipping_is_done_on_request_and_told() -> None:
    clipped = make_lookalike(20, 400, n_families=3, n_sources=2, clip=True)
    assert clipped.values.min() == CLIP
    assert clipped.history[-1] == "clip_below(-1412.0)"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_models": 3}, "3 models make between 1 and 3 families, not 24"),
        ({"n_texts": 5}, "5 texts have between 1 and 5 sources, not 17"),
        ({"n_sources": 18}, "10000 texts have between 1 and 17 sources, not 18"),
        ({"n_families": 0}, "not 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_lookalike(**sizes)


def test_benchmarks_follow_height_and_planted_leaks_lie_below_it(scores: LogLikelihoods) -> None:
    benchmarks, h = make_benchmarks(scores), height(scores.values)
    known, planted = benchmarks["score_mean"].notna(), benchmarks["planted_leak"]
    assert benchmarks.filter(like="score_").loc[known].stack().between(0, 100).all()
    assert int((~known).sum()) == round(120 * 18 / 1018)
    assert int(planted.sum()) == 1
    assert (h[planted] > np.median(h)).all()
    honest = (known & ~planted).to_numpy()
    slope, intercept = np.polyfit(h[honest], benchmarks["score_mean"][honest], 1)
    excess = benchmarks["score_mean"] - intercept - slope * h
    assert excess[planted].max() < excess[honest].min()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(-9.0, 0)[:9].reshape(3, 3), "at least 4 models, not 3"),
        (-400 + np.arange(9) ** 0.5 + np.arange(5)[:, None] / 3, "all models are alike"),
        (np.random.default_rng(0).permuted(np.tile(np.arange(-9.0, 0), (5, 1)), axis=1), "are alike"),
    ],
)
def test_benchmarks_of_models_that_do_not_differ_are_refused(values: np.ndarray, message: str) -> None:
    k, n = values.shape
    alike = LogLikelihoods(values, pd.DataFrame(index=range(k)), pd.DataFrame(index=range(n)))
    with pytest.raises(InputError, match=message):
        make_benchmarks(alike)
