"""The benchmark of estimators: what is chosen, what is kept, and a small run on two tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import estimator_tables
from benchmarks.estimator_tables import UNTUNED, best, candidates, keep, ratios, read_results, which_distance
from benchmarks.estimators import clipped, main, pairs_of
from lmmap.segments import segments_of_tokens

close = np.testing.assert_allclose


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "estimators.json"
    monkeypatch.setattr(estimator_tables, "RESULTS", path)
    return path


def row(exact: float, on: str = "corpus", part: str = "report", **estimates: float) -> dict[str, object]:
    """A row whose estimates are all three times the exact value, but for those that are given."""
    numbers = dict.fromkeys([*UNTUNED, "clipped 0.1"], 3 * exact) | estimates
    return {
        "set": "a",
        "on": on,
        "models": ["a", "a-4bit"],
        "part": part,
        "n_texts": 9,
        "exact": exact,
        "exact_se": exact / 100,
        "estimates": numbers,
        "ratio_errors": dict.fromkeys(numbers, 0.02),
    }


def test_the_candidate_that_is_nearest_on_average_is_the_best():
    rows = [row(10, token_level=11), row(20, token_level=18, mixture=22)]
    assert best(rows) == "token_level"
    assert best(rows, ["mixture", "midpoint"]) == "mixture"
    rows = [row(10, token_centered=16, mixture=6), row(30, token_centered=48, mixture=18)]
    assert best(rows) == "mean, 60% mixture"
    close(ratios(rows, candidates(rows)["mean, 60% mixture"]), 1)
    close(ratios(rows, candidates(rows)["geometric mean"]), np.sqrt(1.6 * 0.6))


def test_what_is_kept_is_read_again_and_what_is_measured_anew_takes_the_place_of_the_old():
    conditional = row(10) | {"estimates": row(10)["estimates"] | {"conditional": 9.0}}
    sampled, other = row(12, on="samples"), row(20) | {"set": "b"}
    for seconds, one in enumerate((conditional, sampled, other)):
        keep([one], {"seconds": seconds})
    runs = {"a, corpus": {"seconds": 0}, "a, samples": {"seconds": 1}, "b, corpus": {"seconds": 2}}
    assert read_results() == ([conditional, sampled, other], runs)
    keep([row(30)], {"seconds": 5})
    assert read_results() == ([sampled, other, row(30)], runs | {"a, corpus": {"seconds": 5}})


def test_the_paragraph_speaks_of_pairs_held_out_only():
    rows = [
        row(e, part=part, midpoint=e * f) for e in (1.0, 2.0) for part, f in (("choose", 9), ("report", 1.1))
    ]
    text = which_distance(rows)
    assert "over 2 pairs held out, the estimate over the exact value has a median of 1.10" in text
    assert "Across tokenizers" not in text


def test_every_pair_is_in_one_half_and_halves_are_equal():
    pairs = pairs_of(9)
    assert list(pairs) == [(i, j) for i in range(9) for j in range(i + 1, 9)]
    assert sum(pairs.values()) == len(pairs) / 2


def test_clipped_squares_are_bounded_and_go_to_half_the_square():
    tokens = segments_of_tokens(np.array([[-1.0, -9.0], [-2.0, -2.0]]), np.array([0, 1]), np.array([1, 1]))
    close(clipped(tokens, np.ones(2), 0.1)[0, 1], (1 / 1.1 + 49 / 5.9) / 4)
    close(clipped(tokens, np.ones(2), 1e-12)[0, 1], 12.5)


def test_a_model_and_its_copies_are_measured_from_files_to_the_page(
    make_model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh "), 12)) for _ in range(40)]
    frame = pd.DataFrame({"text": texts * 5, "source": "licences"})
    frame.to_parquet(tmp_path / "texts.parquet")
    folder = make_model("llama", max_position_embeddings=256)
    words = ["--models", str(folder), "--altered", "--texts", str(tmp_path / "texts.parquet"), "--training"]
    words += [str(tmp_path / "texts.parquet"), "--n-texts", "20", "--samples", "16", "--n-tokens", "4"]
    main([*words, "--device", "cpu", "-o", str(tmp_path / "page.md")])
    rows, runs = read_results()
    assert set(runs) == {f"{folder.name}, corpus", f"{folder.name}, samples"}
    assert {r["on"] for r in rows} == {"corpus", "samples"}
    assert len(rows) == 12 * 11 // 2 + 11
    near = next(r for r in rows if r["models"][1].endswith("-8bit") and r["on"] == "samples")
    assert abs(near["estimates"]["mixture"] / near["exact"] - 1) < 5 * near["ratio_errors"]["mixture"]
    page = (tmp_path / "page.md").read_text()
    assert page == capsys.readouterr().out.removesuffix("\n")
    assert "| temperature1.1 | corpus |" in page
