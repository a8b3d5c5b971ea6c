"""The explorer: what a view means, that its frame is the map of that, and what it refuses."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist

from benchmarks import explorer as benchmark
from lmmap.errors import InputError
from lmmap.estimates import estimate_kl_by
from lmmap.explorer import axes, distances
from lmmap.explorer.axes import leading_axes, turned_onto
from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.panels import neighbors, ranking, shares_by_length, shares_by_source
from lmmap.explorer.views import View
from lmmap.geometry import estimate_kl, height
from lmmap.layouts import principal_axes
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import make_lookalike
from lmmap.modelmap import fit_map
from lmmap.notebooks.parameters import parse_parameters
from lmmap.resolution import debias_kl
from lmmap.segments import Segments, segments_of_tokens

close = np.testing.assert_allclose
N_MODELS, N_TEXTS = 24, 150
PAIR = ("synthetic-0001", "synthetic-0020")
WORDS = ("Straße", "def main():", "theorem")


@pytest.fixture(scope="module")
def scores() -> LogLikelihoods:
    return make_lookalike(N_MODELS, N_TEXTS, n_families=4, n_sources=3)


@pytest.fixture(scope="module")
def explorer(scores: LogLikelihoods) -> Explorer:
    texts = [f"{WORDS[x % 3]} {x}" for x in range(N_TEXTS)]
    return Explorer(scores, texts=texts)


@pytest.fixture(scope="module")
def tokens(scores: LogLikelihoods) -> Segments:
    """Totals of the scores, spread over tokens."""
    generator = np.random.default_rng(0)
    text = np.repeat(np.arange(N_TEXTS), generator.integers(2, 9, N_TEXTS))
    part = generator.dirichlet(np.ones(len(text)), N_MODELS)
    part /= np.stack([np.bincount(text, row) for row in part])[:, text]
    made = segments_of_tokens(scores.values[:, text] * part, text, scores.texts["n_bytes"].to_numpy())
    return replace(made, models=tuple(scores.models.index))


@pytest.fixture(scope="module")
def with_tokens(scores: LogLikelihoods, tokens: Segments) -> Explorer:
    return Explorer(scores, segments=tokens)


def same_picture(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to rotation and mirroring: all distances are."""
    close(pdist(found), pdist(expected), atol=1e-6 * pdist(expected).max())


# Views


def full_view() -> View:
    return View(
        models=["a", "b's"], sources=["code, old"], min_bytes=3, max_bytes=9, contains="-x \"'$(y)\n é",
        share=1, seed=4, texts=["t"], method="mds", estimator="mixture", color="size", selected=["é"],
    )  # fmt: skip


def test_a_view_comes_back_from_json() -> None:
    for view in (View(), full_view()):
        assert View.from_json(view.to_json()) == view
    assert View.from_json('{"version": 1, "share": 1}') == View()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "expected a JSON object of fields, got list"),
        ("{}", "version None, this version of lmmap reads 1"),
        ('{"version": 2}', "version 2"),
        ('{"version": 1, "modles": []}', r"no field 'modles' \(closest: 'models'\)"),
        ('{"version": 1, "models": "a"}', "models takes a list of strings, got 'a'"),
        ('{"version": 1, "models": [1]}', "models takes a list of strings"),
        ('{"version": 1, "seed": true}', "seed takes int, got True"),
        ('{"version": 1, "share": "1"}', "share takes float, got '1'"),
        ('{"version": 1, "share": NaN}', "share must lie above 0"),
        ('{"version": 1, "share": 0}', "share must lie above 0 and be at most 1, got 0"),
        ('{"version": 1, "min_bytes": -1}', "min_bytes must not be negative"),
        ('{"version": 1, "min_bytes": 9, "max_bytes": 3}', "max_bytes is 3, below min_bytes, 9"),
        ('{"version": 1, "method": "tnse"}', r"no method 'tnse' \(closest: 'tsne'\)"),
        ('{"version": 1, "estimator": "midpiont"}', r"no estimator 'midpiont' \(closest: 'midpoint'\)"),
    ],
)
def test_what_is_no_view_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        View.from_json(text)


def test_parameters_are_what_differs_from_the_default() -> None:
    assert View().parameters() == {}
    assert View(share=0.5, models=("a",)).parameters() == {"share": 0.5, "models": ["a"]}


def test_the_command_gives_a_notebook_the_very_same_view(tmp_path: Path) -> None:
    view = full_view()
    lines = []
    for name, default in vars(View()).items():
        kind = "list[str]" if isinstance(default, tuple) else type(default).__name__
        lines.append(f"{name}: {kind} = {list(default) if kind == 'list[str]' else default!r}")
    cell = nbformat.v4.new_code_cell("\n".join(["run: str = ''", *lines]), metadata={"tags": ["parameters"]})
    notebook = tmp_path / "08 explore.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    program, verb, path, *words = shlex.split(view.command("../my runs", str(notebook)))
    assert (program, verb, path, set(words[::3])) == ("lmmap", "run", str(notebook), {"-p"})
    given = parse_parameters(notebook, zip(words[1::3], words[2::3], strict=True))
    assert given.pop("run") == "../my runs"
    assert View(**given) == view


# Choices


def test_texts_are_chosen_by_domain_length_words_and_name(scores: LogLikelihoods, explorer: Explorer) -> None:
    table = scores.texts
    code = (table["source"] == "code").to_numpy()
    short = ((table["n_bytes"] >= 100) & (table["n_bytes"] <= 900)).to_numpy()
    n = np.arange(N_TEXTS)
    np.testing.assert_array_equal(explorer.texts_of(View()), n >= 0)
    np.testing.assert_array_equal(explorer.texts_of(View(sources=["code"])), code)
    np.testing.assert_array_equal(explorer.texts_of(View(min_bytes=100, max_bytes=900)), short)
    np.testing.assert_array_equal(explorer.texts_of(View(contains="STRASSE")), n % 3 == 0)
    both = View(sources=["code"], contains="main", texts=list(table.index[:100]))
    np.testing.assert_array_equal(explorer.texts_of(both), code & (n % 3 == 1) & (n < 100))
    assert explorer.sources == {
        name: int((table["source"] == name).sum()) for name in ("web", "code", "papers")
    }


def test_a_larger_share_of_one_seed_holds_the_smaller(explorer: Explorer) -> None:
    drawn = [explorer.texts_of(View(share=share, seed=3)) for share in (0.1, 0.5, 0.9, 1.0)]
    assert [mask.sum() for mask in drawn] == [15, 75, 135, 150]
    for smaller, larger in pairwise(drawn):
        assert not (smaller & ~larger).any()
    assert (explorer.texts_of(View(share=0.5, seed=4)) != drawn[1]).any()
    code = explorer.texts_of(View(sources=["code"]))
    of_code = explorer.texts_of(View(sources=["code"], share=0.5, seed=3))
    assert of_code.sum() == round(code.sum() / 2)
    assert not (of_code & ~code).any()


def test_models_are_chosen_by_id_or_name(scores: LogLikelihoods, explorer: Explorer) -> None:
    row, name = scores.models.index[3], scores.models["model"].iloc[5]
    np.testing.assert_array_equal(np.flatnonzero(explorer.models_of(View(models=[name, row, row]))), [3, 5])


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(models=["synthetic-003"]), "not among the 24 here: 'synthetic-003' .closest: 'synthetic-00"),
        (View(selected=["nobody"]), "1 of 1 model ids is not among the 24 here: 'nobody'"),
        (View(texts=["synthetic-0000"]), "text ids is not among the 150 here: 'synthetic-0000' .closest"),
        (View(sources=["cod"]), "no text is from 'cod' .closest: 'code'.; sources are web, code, papers"),
        (View(color="famly"), "no attribute 'famly' .closest: 'family'"),
        (View(contains="zebra"), "none of 150 texts contains 'zebra': choose others"),
        (View(min_bytes=5000), "none of 150 texts has at least 5,000 bytes"),
        (View(max_bytes=3), "none of 150 texts has at most 3 bytes"),
        (View(texts=["synthetic-00000"], contains="zebra"), "the one text left contains"),
        (View(texts=["synthetic-00000"]), "one text is left: a distance needs at least two"),
        (View(share=0.001), "one text is left"),
        (View(models=["synthetic-0000"]), "a map needs at least 2 models, got 1"),
        (View(models=PAIR, method="tsne"), "t-SNE needs at least 4 models, got 2"),
        (View(estimator="midpoint"), "midpoint does not follow choices of texts, it needs token records"),
        (View(estimator="ensemble"), "it is no sum over texts: use text_level"),
    ],
)  # fmt: skip
def test_a_view_that_cannot_be_drawn_is_refused_in_one_sentence(
    explorer: Explorer, view: View, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        explorer.frame(view)
    assert "\n" not in str(caught.value)


def test_what_the_scores_lack_cannot_be_chosen_by(scores: LogLikelihoods) -> None:
    bare = Explorer(replace(scores, texts=scores.texts[[]]))
    assert bare.sources == {}
    for view, message in (
        (View(contains="x"), "only the scores are here, not the texts"),
        (View(sources=["code"]), "no column 'source'"),
        (View(max_bytes=9), "no column 'n_bytes'"),
    ):
        with pytest.raises(InputError, match=message):
            bare.frame(view)
    frame = bare.frame(View())
    assert neighbors(bare, frame, frame.rows[0])["bits_per_byte"].isna().all()
    with pytest.raises(InputError, match="no column 'source'"):
        shares_by_source(bare, frame, *frame.rows[:2])
    with pytest.raises(InputError, match="no column 'n_bytes'"):
        shares_by_length(bare, frame, *frame.rows[:2])


def test_no_domain_ticked_is_refused_and_all_leave_none_out(explorer: Explorer) -> None:
    assert explorer.choices.ticked(["papers", "code", "web"]) == ()
    assert explorer.choices.ticked(["code"]) == ("code",)
    with pytest.raises(InputError, match="no domain is ticked"):
        explorer.choices.ticked([])


def test_texts_and_segments_of_other_scores_are_refused(scores: LogLikelihoods, tokens: Segments) -> None:
    with pytest.raises(InputError, match="2 texts were given for scores of 150"):
        Explorer(scores, texts=["a", "b"])
    with pytest.raises(InputError, match="segments are of 24 models x 150 texts, scores of 24 x 150"):
        Explorer(scores, segments=replace(tokens, models=tokens.models[::-1]))


# Frames

VIEWS = [
    View(),
    View(sources=["code"]),
    View(sources=["code", "web"]),
    View(share=0.3),
    View(contains="theorem"),
    View(models=[f"synthetic-{i:04d}" for i in range(4, 15)], sources=["papers"]),
    View(models=PAIR),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_frame_is_the_map_of_its_models_and_texts(
    scores: LogLikelihoods, explorer: Explorer, view: View
) -> None:
    frame = explorer.frame(view)
    L = scores.values[frame.shown][:, frame.texts]
    close(frame.kl, estimate_kl(L), rtol=1e-9, atol=1e-9)
    expected, explained = principal_axes(L)
    same_picture(frame.coordinates, expected)
    close(frame.explained, explained, atol=1e-9)
    close(frame.height, height(L))
    assert (frame.estimator, frame.n_texts, len(frame.rows)) == ("text_level", L.shape[1], len(L))
    again = fit_map(scores.select(models=frame.shown, texts=frame.texts), method="pca")
    assert frame.caption == f"{again.caption()} · text-level KL"
    assert "text level KL" in repr(frame)


@pytest.mark.parametrize("few", [300, 1])
def test_ticking_a_domain_off_and_on_returns_to_the_first_picture(
    scores: LogLikelihoods, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(axes, "FEW", few)
    explorer = Explorer(scores)
    first = frame = explorer.frame(View())
    for off in ("web", "code", "papers"):
        left = [name for name in explorer.sources if name != off]
        frame = explorer.frame(View(sources=left), frame)
        assert frame.n_texts == N_TEXTS - explorer.sources[off]
        assert np.abs(frame.coordinates - first.coordinates).max() > 0.01
        frame = explorer.frame(View(), frame)
        close(frame.coordinates, first.coordinates, atol=1e-6 * np.abs(first.coordinates).max())


def test_a_view_looks_the_same_whatever_was_looked_at_before(explorer: Explorer) -> None:
    wanted = View(sources=["code"], models=[f"synthetic-{i:04d}" for i in range(12)])
    alone = explorer.frame(wanted)
    frame: Frame | None = None
    for view in VIEWS:
        frame = explorer.frame(view, frame)
        close(explorer.frame(wanted, frame).coordinates, alone.coordinates, atol=1e-6)


def test_the_picture_is_turned_onto_that_of_all_models_and_texts(explorer: Explorer) -> None:
    whole, part = explorer.frame(View()), explorer.frame(View(share=0.5))
    cosine = np.sum(whole.coordinates * part.coordinates) / (
        np.linalg.norm(whole.coordinates) * np.linalg.norm(part.coordinates)
    )
    _, _, left = procrustes(whole.coordinates, part.coordinates)
    close(cosine**2, 1 - left, atol=1e-9)


def test_turning_a_layout_finds_the_turn_and_the_mirror_and_does_not_scale() -> None:
    ours = np.random.default_rng(0).normal(size=(9, 2))
    turned = ours @ np.array([[0.6, 0.8], [0.8, -0.6]])
    close(turned_onto(ours, turned), turned)
    close(turned_onto(ours, 3 * turned + [5, 7]), turned)


def test_axes_found_step_by_step_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kl = estimate_kl(make_lookalike(60, 200, n_families=6).values)
    all_at_once = leading_axes(kl)
    monkeypatch.setattr(axes, "FEW", 10)
    cold = leading_axes(kl)
    close(cold.coordinates, all_at_once.coordinates, atol=1e-6)
    close(cold.explained, all_at_once.explained, atol=1e-9)
    other = estimate_kl(make_lookalike(60, 200, n_families=6).values[:, :150])
    warm = leading_axes(other, cold.basis, settle=False)
    monkeypatch.setattr(axes, "FEW", 100)
    close(warm.coordinates, leading_axes(other).coordinates, atol=1e-2)


def test_axes_that_do_not_settle_are_computed_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    kl = estimate_kl(generator.normal(size=(80, 4000)))  # all axes are nearly as long
    expected = leading_axes(kl)
    monkeypatch.setattr(axes, "FEW", 10)
    found = leading_axes(kl)
    same_picture(found.coordinates, expected.coordinates)
    close(found.explained, expected.explained)


def test_noise_is_taken_off_and_stated(scores: LogLikelihoods) -> None:
    noise = np.full(N_MODELS, 4.0)
    noise[0] = np.nan
    noisy = replace(scores, models=scores.models.assign(error_var=noise))
    frame = Explorer(noisy).frame(View(method="mds"))
    close(frame.kl, debias_kl(estimate_kl(scores.values), noise), atol=1e-9)
    again = fit_map(noisy, method="mds")
    same_picture(frame.coordinates, again.coordinates)
    assert frame.caption == f"{again.caption()} · text-level KL"
    assert (frame.resolution, Explorer(scores).frame(View()).resolution) == (4.0, None)
    assert frame.neighbors_kept == again.neighbors_kept()


def test_clipping_is_stated(scores: LogLikelihoods, tokens: Segments) -> None:
    explorer = Explorer(scores.clip_below(threshold=-700), segments=tokens)
    assert "clipped below -700.0 nats" in explorer.frame(View(estimator="text_level")).caption
    assert "clipped" not in explorer.frame(View()).caption


@pytest.mark.parametrize("name", ["", "midpoint", "mixture", "token_centered", "segment_level"])
def test_distances_are_those_of_the_estimator_asked_for(
    with_tokens: Explorer, tokens: Segments, name: str
) -> None:
    for view in (View(sources=["code"], estimator=name), View(share=0.3, estimator=name)):
        frame = with_tokens.frame(view)
        assert frame.estimator == (name or "midpoint")
        close(frame.kl, estimate_kl_by(frame.estimator, tokens, weights=frame.texts.astype(float)), rtol=1e-9)
        assert f"PCA of the {frame.estimator.replace('_', ' ')} KL" in frame.caption


def test_models_of_several_tokenizers_are_compared_by_the_mixture(
    scores: LogLikelihoods, tokens: Segments
) -> None:
    mixed = Explorer(scores, segments=replace(tokens, unit="segment"))
    assert mixed.frame(View()).estimator == mixed.recommended == "mixture"
    with pytest.raises(InputError, match=r"token_level does not follow .* needs models of one tokenizer"):
        mixed.frame(View(estimator="token_level"))


def test_where_single_texts_are_too_many_other_choices_fall_back_to_text_level(
    scores: LogLikelihoods, tokens: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "OF_TEXTS", 100)
    explorer = Explorer(scores, segments=tokens)
    by_domain, free = View(sources=["code"]), View(share=0.3)
    frame = explorer.frame(by_domain)
    close(frame.kl, estimate_kl_by("midpoint", tokens, weights=frame.texts.astype(float)), rtol=1e-9)
    shares = shares_by_source(explorer, explorer.frame(View()), *frame.rows[:2])
    assert shares.attrs["estimator"] == "midpoint"
    assert shares_by_length(explorer, frame, *frame.rows[:2]).attrs["estimator"] == "text_level"
    frame = explorer.frame(free)
    close(frame.kl, estimate_kl(scores.values[:, frame.texts]), rtol=1e-9, atol=1e-9)
    assert frame.caption.endswith("text-level KL, since midpoint follows whole domains only")
    with pytest.raises(InputError, match="midpoint follows whole domains only"):
        explorer.frame(replace(free, estimator="midpoint"))


def test_with_many_models_token_records_are_left_alone(
    scores: LogLikelihoods, tokens: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "MANY", 10)
    explorer = Explorer(scores, segments=tokens)
    assert explorer.frame(View()).caption.endswith("text-level KL")
    with pytest.raises(InputError, match="with more than 10 models it takes too long"):
        explorer.frame(View(estimator="mixture"))


def test_with_very_many_pieces_some_are_drawn_and_the_caption_says_so(
    scores: LogLikelihoods, tokens: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "SUMMANDS", 250 * N_MODELS**2 // 2)
    frame = Explorer(scores, segments=tokens).frame(View())
    assert f"{250 / len(tokens.text_of_segment):.0%} of the tokens drawn" in frame.caption
    close(frame.kl, estimate_kl_by("midpoint", tokens.sample(250)), rtol=1e-9)


def test_thousands_of_models_do_without_sums_of_domains(
    scores: LogLikelihoods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "OF_GROUPS", N_MODELS**2)
    frame = Explorer(scores).frame(View(sources=["code"]))
    close(frame.kl, estimate_kl(scores.values[:, frame.texts]), rtol=1e-9, atol=1e-9)


def test_models_that_are_alike_on_these_texts_are_not_drawn(scores: LogLikelihoods) -> None:
    values = scores.values.copy()
    values[:3] = values[0]
    explorer = Explorer(replace(scores, values=values))
    rows = list(scores.models.index[:4])
    for view in (View(models=rows[:3]), View(models=rows[:3], share=0.4)):
        with pytest.raises(InputError, match=r"all 3 models are alike on these texts .*: nothing to draw"):
            explorer.frame(view)
    frame = explorer.frame(View(models=rows, share=0.4))
    close(frame.coordinates[0], frame.coordinates[1], atol=1e-9)
    with pytest.raises(InputError, match="there is no distance to split"):
        shares_by_source(explorer, frame, *rows[:2])


def test_tsne_starts_from_the_axes_and_says_how_it_was_made(explorer: Explorer) -> None:
    frame = explorer.frame(View(method="tsne", sources=["code"]))
    assert "t-SNE, perplexity 7.67, seed 42" in frame.caption
    assert frame.explained is None
    np.testing.assert_array_equal(
        explorer.frame(View(method="tsne", sources=["code"])).coordinates, frame.coordinates
    )


def test_a_frame_cannot_be_changed(explorer: Explorer) -> None:
    frame = explorer.frame(View())
    for values in (frame.kl, frame.coordinates, frame.texts):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1


def test_attributes_that_tell_models_apart_are_listed(explorer: Explorer) -> None:
    assert set(explorer.attributes) == {"family", "n_parameters", "created", "home"}


# Panels


@pytest.mark.parametrize("view", VIEWS)
def test_neighbors_are_the_models_of_least_kl_on_the_current_texts(
    scores: LogLikelihoods, explorer: Explorer, view: View
) -> None:
    frame = explorer.frame(view)
    kl = estimate_kl(scores.values[frame.shown][:, frame.texts])
    for i, row in enumerate(frame.rows[:6]):
        found = neighbors(explorer, frame, row, n=5)
        expected = [j for j in np.argsort(kl[i], kind="stable") if j != i][:5]
        assert list(found.index) == [frame.rows[j] for j in expected]
        close(found["kl"], kl[i, expected], rtol=1e-9)
        bytes_of_text = scores.texts["n_bytes"].to_numpy()[frame.texts].mean()
        close(found["bits_per_byte"], kl[i, expected] / np.log(2) / bytes_of_text, rtol=1e-9)
        n = frame.n_texts
        close(found["text_level"], kl[i, expected] * n / (n - 1), rtol=1e-9)
        assert (found["low"] < found["kl"]).all()
        assert (found["kl"] < found["high"]).all()


def test_neighbors_by_another_estimator_keep_the_interval_of_text_level(
    with_tokens: Explorer, explorer: Explorer
) -> None:
    row = "synthetic-0003"
    found = neighbors(with_tokens, with_tokens.frame(View()), row, n=N_MODELS)
    plain = neighbors(explorer, explorer.frame(View()), row, n=N_MODELS)
    assert len(found) == N_MODELS - 1
    assert found["kl"].is_monotonic_increasing
    columns = ["text_level", "low", "high"]
    pd.testing.assert_frame_equal(found[columns].sort_index(), plain[columns].sort_index())


def test_the_ranking_orders_mean_log_likelihoods(scores: LogLikelihoods, explorer: Explorer) -> None:
    frame = explorer.frame(View(sources=["code"], models=[f"synthetic-{i:04d}" for i in range(9)]))
    found = ranking(explorer, frame)
    L = scores.values[:9, frame.texts]
    order = np.argsort(-L.mean(axis=1), kind="stable")
    assert list(found.index) == [frame.rows[i] for i in order]
    close(found["height"], L.mean(axis=1)[order])
    gap = L[order[0]] - L[order[2]]
    close(found["to_best_error"].iloc[2], gap.std() / np.sqrt(len(gap)))
    per_byte = scores.texts["n_bytes"].to_numpy()[frame.texts].mean()
    close(found["bits_per_byte"], -found["height"] / np.log(2) / per_byte)


@pytest.mark.parametrize("view", [View(), View(share=0.4), View(sources=["code", "web"])])
def test_shares_of_a_distance_sum_to_one_and_are_those_of_the_texts(
    scores: LogLikelihoods, explorer: Explorer, with_tokens: Explorer, view: View
) -> None:
    for made in (explorer, with_tokens):
        frame = made.frame(view)
        pair = frame.rows[2], frame.rows[17]
        for shares in (shares_by_source(made, frame, *pair), shares_by_length(made, frame, *pair)):
            close(shares["share"].sum(), 1)
            close(shares["share_of_texts"].sum(), 1)
            assert shares["n_texts"].sum() == frame.n_texts
            assert shares.attrs["estimator"] == frame.estimator
    frame = explorer.frame(view)
    off = scores.values[2, frame.texts] - scores.values[17, frame.texts]
    off = pd.Series((off - off.mean()) ** 2)
    by_source = off.groupby(scores.texts["source"].to_numpy(dtype=object)[frame.texts]).sum() / off.sum()
    found = shares_by_source(explorer, frame, *pair)
    close(found["share"], by_source[found.index])
    assert found["share"].is_monotonic_decreasing
    lengths = scores.texts["n_bytes"].to_numpy()[frame.texts]
    for label, share in shares_by_length(explorer, frame, *pair)["share"].items():
        low, high = (int(part.replace(",", "")) for part in str(label).split("-"))
        close(share, off[(lengths >= low) & (lengths <= high)].sum() / off.sum())


def test_panels_refuse_models_that_are_not_shown(explorer: Explorer) -> None:
    frame = explorer.frame(View(models=["synthetic-0001", "synthetic-0002"]))
    with pytest.raises(InputError, match=r"'synthetic-0003' is not among the 2 models shown .closest"):
        neighbors(explorer, frame, "synthetic-0003")
    with pytest.raises(InputError, match="0 neighbours were asked for"):
        neighbors(explorer, frame, "synthetic-0001", n=0)
    with pytest.raises(InputError, match="was given twice"):
        shares_by_length(explorer, frame, "synthetic-0001", "synthetic-0001")


# The benchmark


def test_the_benchmark_writes_its_table() -> None:
    done = CliRunner().invoke(benchmark.main, ["--models", "40", "--texts", "200"])
    assert done.exit_code == 0, done.output
    assert "| tick a domain off and on |" in done.output


def test_the_benchmark_ends_where_maps_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    made = benchmark.straightforward
    monkeypatch.setattr(
        benchmark, "straightforward", lambda frame: (made(frame)[0] * (1 + 1e-6), made(frame)[1])
    )
    done = CliRunner().invoke(benchmark.main, ["--models", "40", "--texts", "200"])
    assert done.exit_code == 1
    assert "tick a domain off and on: maps differ by 1.0e-06 of the largest value" in done.output
