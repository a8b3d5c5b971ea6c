"""A new model falls where it belongs on a map that does not move, and what some texts cost is told."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from published_files import selection
from scipy.stats import spearmanr

from lmmap import LogLikelihoods, double_center, estimate_kl, fit_map, make_lookalike
from lmmap.cli import main
from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.placing.offset import pipeline_offset
from lmmap.placing.place import place_model
from lmmap.placing.point import clip_threshold, gower_point, place_scores, point_between
from lmmap.placing.subsets import subset_agreement, text_weights
from lmmap.scoring.progress import Progress
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.texts import text_set

WHOLE = make_lookalike(60, 400, n_families=5, n_sources=5, seed=3)
KNOWN = WHOLE.select(models=np.arange(60) != 17)
NEW = WHOLE.values[17]


@pytest.mark.parametrize("method", ["pca", "mds"])
def test_a_model_that_is_on_the_map_falls_on_its_own_point(method: str) -> None:
    drawn = fit_map(WHOLE, method=method)
    for i in (0, 17, 59):
        placed = place_scores(WHOLE, drawn, WHOLE.values[i])
        np.testing.assert_allclose(placed.coordinates, drawn.coordinates[i], atol=1e-9)
        assert placed.neighbors.index[0] == WHOLE.models.index[i]
        assert placed.neighbors["kl"].iloc[0] == 0
        assert placed.neighbors["high"].iloc[0] == 0


def test_this_holds_for_divergences_that_are_no_squared_distances_too() -> None:
    rng = np.random.default_rng(0)
    kl = rng.uniform(0.5, 4, (12, 12))
    kl = (kl + kl.T) * (1 - np.eye(12)) / 2
    scores = LogLikelihoods(-rng.random((12, 3)), pd.DataFrame(index=range(12)), pd.DataFrame(index=range(3)))
    drawn = fit_map(scores, method="mds", kl=kl)
    found = [gower_point(drawn.kl, drawn.coordinates, kl[i]) for i in range(12)]
    np.testing.assert_allclose(found, drawn.coordinates, atol=1e-9)


def test_a_new_model_on_a_pca_map_is_its_projection_with_the_frozen_column_means() -> None:
    drawn = fit_map(KNOWN, method="pca")
    L = KNOWN.values
    _, _, Vt = np.linalg.svd(double_center(L) / np.sqrt(400), full_matrices=False)
    rows = L - L.mean(axis=1, keepdims=True)
    q_new = NEW - NEW.mean() - rows.mean(axis=0)
    projected = Vt[:2] @ q_new / np.sqrt(400)
    signs = np.sign((double_center(L) @ Vt[:2].T * drawn.coordinates).sum(axis=0))
    placed = place_scores(KNOWN, drawn, NEW)
    np.testing.assert_allclose(placed.coordinates, projected * signs, atol=1e-9)


def test_a_new_model_on_a_flat_map_lies_as_far_from_all_as_when_drawn_with_them() -> None:
    rng = np.random.default_rng(1)
    flat = rng.standard_normal((9, 2)) @ rng.standard_normal((2, 50)) - 30
    models, texts = pd.DataFrame(index=list("abcdefghi")), pd.DataFrame(index=range(50))
    whole = LogLikelihoods(flat, models, texts)
    known = whole.select(models=list("abcdefgh"))
    drawn = fit_map(known, method="mds")
    placed = place_scores(known, drawn, flat[8])
    apart = ((drawn.coordinates - placed.coordinates) ** 2).sum(axis=1) / 2
    np.testing.assert_allclose(apart, estimate_kl(flat)[8, :8], atol=1e-9)


def test_the_neighbors_are_those_of_a_map_drawn_with_it() -> None:
    placed = place_scores(KNOWN, fit_map(KNOWN, method="mds"), NEW, name="mine")
    kl = pd.Series(estimate_kl(WHOLE.values)[17], WHOLE.models.index).drop(WHOLE.models.index[17])
    nearest = kl.sort_values().head(10)
    assert placed.neighbors.index.tolist() == nearest.index.tolist()
    np.testing.assert_allclose(placed.neighbors["kl"], nearest)
    assert (placed.neighbors["low"] < placed.neighbors["kl"]).all()
    assert (placed.neighbors["high"] > placed.neighbors["kl"]).all()
    family = KNOWN.models["family"][placed.neighbors.index[0]]
    assert family == WHOLE.models["family"].iloc[17]
    assert placed.height == pytest.approx(NEW.mean())
    assert placed.caption().startswith("mine: (")


def test_on_a_tsne_map_it_lies_between_its_nearest_models() -> None:
    drawn = fit_map(KNOWN, method="tsne")
    placed = place_scores(KNOWN, drawn, NEW)
    five = drawn.coordinates[KNOWN.models.index.get_indexer(placed.neighbors.index[:5])]
    assert (placed.coordinates >= five.min(axis=0)).all()
    assert (placed.coordinates <= five.max(axis=0)).all()
    np.testing.assert_array_equal(
        place_scores(KNOWN, drawn, KNOWN.values[4]).coordinates, drawn.coordinates[4]
    )
    assert "between its 5 nearest" in placed.caption()
    np.testing.assert_allclose(point_between(np.array([[0.0, 0], [4, 0]]), np.array([1.0, 3.0])), [1, 0])


def test_the_threshold_is_that_of_the_map() -> None:
    clipped = KNOWN.clip_below(quantile=0.02)
    limit = float(clipped.values.min())
    placed = place_scores(clipped, fit_map(clipped, method="mds"), NEW)
    by_hand = place_scores(clipped, fit_map(clipped, method="mds"), np.maximum(NEW, limit))
    assert placed.clipped_below == limit
    assert NEW.min() < limit
    np.testing.assert_array_equal(placed.coordinates, by_hand.coordinates)
    published = LogLikelihoods(clipped.values, clipped.models, clipped.texts)  # its history is not known
    assert clip_threshold(published) == limit
    assert clip_threshold(KNOWN) is None


def test_noise_is_taken_off_as_on_the_map() -> None:
    rng = np.random.default_rng(2)
    noisy = WHOLE.values + rng.normal(0, np.sqrt(3.0), WHOLE.values.shape)
    scores = LogLikelihoods(noisy, WHOLE.models.assign(error_var=3.0), WHOLE.texts)
    drawn = fit_map(scores, method="mds")
    again = WHOLE.values[17] + rng.normal(0, np.sqrt(3.0), 400)
    placed = place_scores(scores, drawn, again, error_var=3.0)
    own = placed.neighbors.loc[WHOLE.models.index[17]]
    assert own["low"] == 0.0
    assert own["high"] < estimate_kl(np.stack([noisy[17], again]))[0, 1]


def test_texts_of_no_weight_are_not_needed() -> None:
    weights = text_weights(400, n=150, seed=5)
    assert weights is not None
    chosen = weights > 0
    drawn = fit_map(KNOWN, method="mds")
    placed = place_scores(KNOWN, drawn, NEW[chosen], weights=weights)
    few = KNOWN.select(texts=chosen)
    expected = [estimate_kl(np.stack([row, NEW[chosen]]))[0, 1] for row in few.values]
    nearest = KNOWN.models.index[np.argsort(expected)[:10]].tolist()
    assert placed.neighbors.index.tolist() == nearest
    assert placed.n_texts == 150
    with pytest.raises(InputError, match=r"scores of shape \(400,\), 150 texts carry weight"):
        place_scores(KNOWN, drawn, NEW, weights=weights)


@pytest.mark.parametrize(("method", "seed"), [("pca", 0), ("mds", 1), ("mds", 2), ("pca", 3)])
def test_from_some_texts_models_fall_nearer_to_their_points_than_by_distances_alone(
    method: str, seed: int
) -> None:
    drawn = fit_map(WHOLE, method=method)
    weights = text_weights(400, n=80, seed=seed)
    assert weights is not None
    few = WHOLE.values[:, weights > 0]
    placed = np.array([place_scores(WHOLE, drawn, row, weights=weights).coordinates for row in few])
    g = 2 * drawn.kl.mean(axis=1) - drawn.kl.mean()
    lengths = (drawn.coordinates**2).sum(axis=0)
    alone = (g - 2 * estimate_kl(few)) @ drawn.coordinates / (2 * lengths)
    missed, missed_alone = (np.linalg.norm(x - drawn.coordinates, axis=1).mean() for x in (placed, alone))
    assert missed < missed_alone
    assert missed < 0.2 * np.linalg.norm(drawn.coordinates, axis=1).mean()


def test_what_a_subset_costs_is_told_as_scipy_would() -> None:
    weights = text_weights(400, n=40, seed=1)
    assert weights is not None
    found = subset_agreement(KNOWN.values, weights)
    a, b = estimate_kl(KNOWN.values), estimate_kl(KNOWN.values[:, weights > 0])
    rho = [spearmanr(np.delete(a[i], i), np.delete(b[i], i)).statistic for i in range(len(a))]
    assert found.rank_correlation == pytest.approx(np.mean(rho))
    assert found.lowest == pytest.approx(min(rho))
    upper = np.triu_indices(len(a), 1)
    assert found.relative_error == pytest.approx(np.median(np.abs(b[upper] / a[upper] - 1)))
    assert 0 < found.neighbors_kept < 1
    more = subset_agreement(KNOWN.values, text_weights(400, n=300, seed=1))
    assert more.rank_correlation > found.rank_correlation
    assert more.relative_error < found.relative_error
    np.testing.assert_allclose(subset_agreement(KNOWN.values, np.full(400, 2.0)), (1, 1, 1, 0), atol=1e-12)


def test_a_pipeline_that_differs_alike_for_all_models_is_taken_off() -> None:
    rng = np.random.default_rng(0)
    known = WHOLE.values[:3]
    shift = rng.normal(-2, 1.5, 400)
    own = rng.normal(0, 0.1, (3, 400))
    found = pipeline_offset(known, known + shift + own, list("abc"))
    assert found.mean == pytest.approx(shift.mean(), abs=0.02)
    assert found.kl == pytest.approx(shift.var() / 2, rel=0.1)
    assert found.kl_left == pytest.approx(
        0.1**2 * 1.5 / 2, rel=0.1
    )  # its own noise, and half of it from others
    np.testing.assert_allclose(found.per_text, shift, atol=0.5)
    drawn = fit_map(KNOWN, method="mds")
    shifted = place_scores(KNOWN, drawn, NEW + shift, offset=found)
    straight = place_scores(KNOWN, drawn, NEW)
    assert shifted.neighbors.index[0] == straight.neighbors.index[0]
    np.testing.assert_allclose(shifted.coordinates, straight.coordinates, atol=0.2)
    assert shifted.height == pytest.approx(straight.height, abs=0.02)
    assert "anchors: a, b, c" in shifted.caption()


def test_what_anchors_do_not_share_is_left_but_for_its_mean() -> None:
    rng = np.random.default_rng(0)
    known = WHOLE.values[:3]
    found = pipeline_offset(known, known + rng.normal(-2, 1.5, (3, 400)), list("abc"))
    assert found.kl_left > found.kl
    assert np.ptp(found.per_text) == 0
    assert found.per_text[0] == found.mean
    alone = pipeline_offset(known[:1], known[:1] - 3.0, ["a"])
    assert (alone.mean, alone.kl) == (pytest.approx(-3), pytest.approx(0))
    assert np.isnan(alone.spread)
    with pytest.raises(InputError, match="anchors have shapes"):
        pipeline_offset(known, known[:2], ["a", "b", "c"])


def test_weights_come_from_a_draw_or_a_file(tmp_path: Path) -> None:
    drawn = text_weights(50, n=20, seed=4)
    np.testing.assert_array_equal(drawn, text_weights(50, n=20, seed=4))
    assert (drawn.sum(), drawn.max()) == (20, 1)
    assert text_weights(50) is None
    with pytest.raises(InputError, match="between 2 and 50 texts can be scored, not 51"):
        text_weights(50, n=51)
    file = tmp_path / "lss.pkl"
    file.write_bytes(pickle.dumps({0: {20: selection(WHOLE, 20, 0)}}))
    weights = text_weights(400, n=20, file=file)
    np.testing.assert_array_equal(np.flatnonzero(weights), selection(WHOLE, 20, 0)["unique_index"])
    with pytest.raises(InputError, match="several sizes"):
        text_weights(400, file=file)
    np.save(tmp_path / "w.npy", np.arange(400.0))
    np.testing.assert_array_equal(text_weights(400, file=tmp_path / "w.npy"), np.arange(400.0))
    with pytest.raises(InputError, match="weights have shape"):
        text_weights(300, file=tmp_path / "w.npy")


def test_maps_of_others_and_of_other_estimators_are_refused() -> None:
    with pytest.raises(InputError, match="not one of these models"):
        place_scores(KNOWN, fit_map(WHOLE, method="mds"), NEW)
    kl = estimate_kl(KNOWN.values)
    other = fit_map(KNOWN, method="mds", kl=kl, estimator="mine")
    with pytest.raises(InputError, match="the map shows mine KL"):
        place_scores(KNOWN, other, NEW)
    with pytest.raises(InputError, match="log-likelihood nan"):
        place_scores(KNOWN, fit_map(KNOWN, method="mds"), np.where(np.arange(400) == 3, np.nan, NEW))


TEXTS = text_set([f"text {i}: " + "日本 and more of it. " * (i % 7 + 1) for i in range(24)], sources="made")


@pytest.fixture(scope="module")
def specs(make_model):
    return [ModelSpec(str(make_model("llama", seed=seed)), name=f"llama {seed}") for seed in range(5)]


@pytest.fixture(scope="module")
def store(specs, tmp_path_factory):
    made = Store.create(tmp_path_factory.mktemp("placing") / "run", TEXTS)
    assert score_models(made, specs, threads=1) == {}
    return made


def test_a_model_of_the_set_scored_again_falls_on_its_own_point(store, specs) -> None:
    placed = place_model(store, specs[2], anchors=[specs[0].name, specs[1].row_id])
    drawn = fit_map(store.load(), method="mds")
    place = drawn.models.index.get_loc(specs[2].row_id)
    np.testing.assert_allclose(placed.coordinates, drawn.coordinates[place], atol=0.02)
    assert placed.neighbors.index[0] == specs[2].row_id
    assert placed.offset.mean == pytest.approx(0, abs=1e-3)
    assert placed.offset.anchors == (specs[0].name, specs[1].name)
    assert placed.agreement is None
    with pytest.raises(InputError, match="has no finished model 'llama 7'"):
        place_model(store, specs[2], anchors=["llama 7"])


def test_the_command_places_a_new_model_from_some_texts(store, make_model) -> None:
    before = sorted(store.path.rglob("*"))
    folder = make_model("llama", seed=9)
    asked = ["place", str(folder), "--on", str(store.path), "-n", "12", "--method", "pca"]
    asked += ["--dtype", "bfloat16"]
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 0, told.output
    assert "on the pca map, from 12 texts" in told.output
    assert "rank correlation of distances" in told.output
    assert "noise of its scores" in told.output
    assert "llama 0" in told.output
    assert sorted(store.path.rglob("*")) == before


def test_a_named_precision_is_that_of_model_and_anchors_and_progress_is_told(store, specs) -> None:
    told: list[Progress] = []
    coarse = replace(specs[2], dtype="bfloat16")
    placed = place_model(store, coarse, anchors=[specs[0].name], on_progress=told.append)
    assert placed.error_var > 1e-4
    assert f"noise of its scores {placed.error_var:.2g} nats^2" in placed.caption()
    exact = place_model(store, specs[2], anchors=[specs[0].name])
    assert exact.error_var < 1e-6
    assert "noise" not in exact.caption()
    assert placed.offset.kl > 100 * exact.offset.kl, "the anchor was rounded as the model was"
    states = [(p.model, p.state, p.models_done) for p in told if p.state != "scoring"]
    first, second = coarse.name, specs[0].name
    assert states == [(first, "loading", 0), (first, "done", 1), (second, "loading", 1), (second, "done", 2)]
    counted = [p.texts_done for p in told if p.state == "scoring" and p.model == first]
    assert counted == sorted(counted)
    assert counted[-1] == len(store.texts)


def test_noise_that_could_not_be_measured_is_said_to_be_unknown(store, specs, monkeypatch) -> None:
    monkeypatch.setattr("lmmap.scoring.row.fits_in_float32", lambda _: False)
    placed = place_model(store, replace(specs[2], dtype="bfloat16"))
    assert placed.error_var is None
    assert "noise of its scores not known" in placed.caption()
