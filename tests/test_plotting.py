"""Figures: every point, label and number where the data put them; texts as they are written; whole files."""

from __future__ import annotations

import itertools
import warnings

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection, LineCollection, PathCollection
from matplotlib.colors import CenteredNorm, LogNorm, SymLogNorm, to_hex
from matplotlib.text import Text
from scipy.cluster.hierarchy import dendrogram, leaves_list, linkage
from scipy.spatial.distance import squareform

from lmmap.errors import InputError
from lmmap.geometry import double_center
from lmmap.loglik import LogLikelihoods
from lmmap.modelmap import ModelMap
from lmmap.plotting import (
    fonts,
    plot_estimate_vs_exact,
    plot_kl_heatmap,
    plot_map,
    plot_matrix,
    save_figure,
)
from lmmap.plotting.attributes import Groups, Scale, read_attribute
from lmmap.plotting.style import GREY, HUES, MARKS, log_ticks, readable

SETTINGS_BEFORE = dict(mpl.rcParams)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def map_of(n_models=40, seed=0, **attributes):
    """Models in clusters of ten, two clusters to a row."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(n_models) // 10
    points = np.stack([cluster % 2, cluster // 2], axis=1) * 6 + rng.normal(size=(n_models, 2))
    kl = ((points[:, None] - points[None]) ** 2).sum(-1) / 2
    models = pd.DataFrame({"model": [f"m{i}" for i in range(n_models)]} | attributes)
    models.index = pd.Index([f"m{i}-0" for i in range(n_models)])
    return ModelMap(kl, points, rng.normal(size=n_models), models, {"method": "mds", "n_texts": 1000})


def families(sizes):
    return [name for name, n in sizes.items() for _ in range(n)]


def clouds(ax):
    return [c for c in ax.collections if isinstance(c, PathCollection)]


def labels(ax):
    return [text for text in ax.texts if text.get_text()]


def extents(figure, texts):
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


def all_texts(figure):
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


class TestMap:
    def test_each_group_is_drawn_where_its_models_are(self):
        model_map = map_of(family=families({"b": 5, "a": 20, "c": 15}))
        ax = plot_map(model_map, color="family")
        assert [len(c.get_offsets()) for c in clouds(ax)] == [20, 15, 5]  # the largest first
        for cloud, name, hue in zip(clouds(ax), "acb", HUES, strict=False):
            rows = (model_map.models["family"] == name).to_numpy()
            np.testing.assert_array_equal(cloud.get_offsets(), model_map.coordinates[rows])
            assert to_hex(cloud.get_facecolor()[0]) == hue
        orders = [c.get_zorder() for c in clouds(ax)]
        assert orders == sorted(orders)
        assert sorted(text.get_text() for text in labels(ax)) == ["a (20)", "b (5)", "c (15)"]

    def test_small_and_unknown_groups_are_grey_and_below(self):
        family = [*families({"a": 20, "b": 14, "c": 3, "d": 2}), None]
        ax = plot_map(map_of(family=family), color="family", max_groups=2)
        assert [len(c.get_offsets()) for c in clouds(ax)] == [6, 20, 14]
        assert to_hex(clouds(ax)[0].get_facecolor()[0]) == GREY
        assert clouds(ax)[0].get_zorder() < min(c.get_zorder() for c in clouds(ax)[1:])
        assert "grey: 5 models of 2 smaller groups, 1 without family" in ax.get_xlabel().replace("\n", " · ")

    def test_a_hue_that_returns_has_another_mark(self):
        groups = read_attribute(pd.DataFrame({"f": [f"g{i}" for i in range(32)]}), "f", max_groups=32)
        looks = {(groups.color(i), groups.mark(i)) for i in range(32)}
        assert len(looks) == 32
        assert {groups.color(i) for i in range(8)} == set(HUES)
        ax = plot_map(map_of(family=[f"g{i % 9}" for i in range(40)]), color="family")
        assert [text.get_text() for text in labels(ax) if "▪" in text.get_text()] == ["▪ g8 (4)"]

    def test_nine_groups_of_petroff_hues_without_the_greys(self):
        assert "#94a4a2" not in HUES
        assert "#717581" not in HUES
        assert set(HUES) < {to_hex(c) for c in mpl.color_sequences["petroff10"]}
        assert len(HUES) * len(MARKS) == 32

    def test_labels_do_not_overlap_and_stay_inside(self):
        family = [f"family-{i % 12:02}" for i in range(120)]
        ax = plot_map(map_of(120, family=family), color="family")
        boxes = extents(ax.figure, labels(ax))
        assert len(boxes) == 12
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)

    def test_a_label_stands_at_the_densest_spot_in_the_colour_of_its_group(self):
        # a family in two halves: its median lies between them, nearer to the other family
        halves = (
            np.array([[-10.0, 0]] * 6 + [[10, 0]] * 5) + np.random.default_rng(0).normal(size=(11, 2)) / 4
        )
        other = np.random.default_rng(1).normal(size=(29, 2)) / 4
        points = np.concatenate([halves, other])
        kl = ((points[:, None] - points[None]) ** 2).sum(-1) / 2
        models = pd.DataFrame({"family": ["split"] * 11 + ["whole"] * 29})
        ax = plot_map(ModelMap(kl, points, np.zeros(40), models, {}), color="family")
        places = {text.get_text(): text for text in labels(ax)}
        assert abs(places["split (11)"].get_position()[0]) > 7
        assert abs(places["whole (29)"].get_position()[0]) < 3
        assert places["split (11)"].get_color() == readable(HUES[1])

    def test_small_maps_name_their_models(self):
        model_map = map_of(12, family=families({"a": 6, "b": 6}))
        ax = plot_map(model_map, color="family")
        assert sorted(t.get_text() for t in labels(ax)) == sorted(model_map.models["model"])
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a (6)", "b (6)"]
        boxes = extents(ax.figure, labels(ax))
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))

    def test_chosen_models_are_named(self):
        ax = plot_map(map_of(family=["a"] * 40), color="family", label=["m3", "m7-0"])
        assert sorted(t.get_text() for t in labels(ax)) == ["m3", "m7"]
        assert not labels(plot_map(map_of(), label=None))

    def test_many_groups_get_a_legend_instead_of_labels(self):
        ax = plot_map(map_of(family=[f"g{i % 20}" for i in range(40)]), color="family", max_groups=18)
        assert not labels(ax)
        assert len(ax.get_legend().get_texts()) == 19
        assert ax.get_legend().get_texts()[-1].get_text() == "other (4)"

    def test_parameters_are_logarithmic_with_a_human_bar(self):
        sizes = [7e7, 1.6e8, np.nan, 1e9, 1.2e10] * 8
        ax = plot_map(map_of(n_parameters=sizes), color="n_parameters")
        grey, known = clouds(ax)
        assert len(grey.get_offsets()) == 8
        assert to_hex(grey.get_facecolor()[0]) == GREY
        expected = mpl.colormaps["viridis"](LogNorm(7e7, 1.2e10)(np.array([s for s in sizes if s == s])))
        np.testing.assert_allclose(known.get_facecolors(), expected)
        bar = ax.figure.axes[1]
        assert [t.get_text() for t in bar.get_yticklabels()] == ["100M", "1B", "10B"]
        assert bar.get_ylabel() == "parameters"
        assert "grey: 8 without parameters" in ax.get_xlabel()

    def test_the_mean_log_likelihood_is_an_attribute(self):
        model_map = map_of()
        ax = plot_map(model_map, color="height")
        shade = (model_map.height - model_map.height.min()) / np.ptp(model_map.height)
        np.testing.assert_allclose(clouds(ax)[0].get_facecolors(), mpl.colormaps["viridis"](shade))
        assert ax.figure.axes[1].get_ylabel() == "mean log-likelihood, nats per text"

    def test_a_path_joins_its_models_in_order(self):
        run = ["r1", "r2", None, "r3"] * 10
        run[3::4] = ["alone"] + [None] * 9
        step = list(np.random.default_rng(2).permutation(40))
        model_map = map_of(run=run, step=step)
        ax = plot_map(model_map, color="step", path=("run", "step"), label=None)
        assert len(ax.lines) == 2
        for line, name in zip(ax.lines, ["r1", "r2"], strict=True):
            rows = sorted((i for i in range(40) if run[i] == name), key=lambda i: step[i])
            np.testing.assert_array_equal(line.get_xydata(), model_map.coordinates[rows])

    def test_area_grows_with_an_attribute(self):
        ax = plot_map(map_of(n_parameters=10.0 ** np.linspace(7, 10, 40)), size="n_parameters", label=None)
        area = clouds(ax)[0].get_sizes()
        assert (np.diff(area) < 0).all()  # large ones first, so that small ones lie on top
        assert "area: parameters, 10M to 10B" in ax.get_xlabel()

    def test_an_ellipse_holds_95_percent_of_a_position(self):
        model_map = map_of(12)
        covariances = np.array([[[1.0, 0.8], [0.8, 1.0]]] * 12) * np.arange(1, 13)[:, None, None]
        ax = plot_map(model_map, covariances=covariances, label=None)
        (drawn,) = (c for c in ax.collections if isinstance(c, EllipseCollection))
        np.testing.assert_allclose(drawn.get_offsets(), model_map.coordinates)
        np.testing.assert_allclose(drawn.get_widths() / 2, np.sqrt(5.991 * 1.8 * np.arange(1, 13)), rtol=1e-3)
        np.testing.assert_allclose(
            drawn.get_heights() / 2, np.sqrt(5.991 * 0.2 * np.arange(1, 13)), rtol=1e-3
        )
        np.testing.assert_allclose(drawn.get_angles(), 45)
        reach = drawn.get_widths()[:, None] / 2 * [[1, 1]]
        low, high = np.transpose([ax.get_xlim(), ax.get_ylim()])
        assert (model_map.coordinates - reach >= low).all()
        assert (model_map.coordinates + reach <= high).all()
        assert "95 % over texts" in "".join(t.get_text() for t in ax.figure.findobj(Text)).replace("\n", " ")
        with pytest.raises(InputError, match=r"covariances have shape \(3, 2, 2\), expected \(12, 2, 2\)"):
            plot_map(model_map, covariances=covariances[:3])

    def test_the_caption_stands_whole_below(self):
        model_map = map_of()
        ax = plot_map(model_map)
        assert ax.get_xlabel().replace("\n", " · ") == model_map.caption()
        (box,) = extents(ax.figure, [ax.xaxis.label])
        assert ax.figure.bbox.x0 <= box.x0
        assert box.x1 <= ax.figure.bbox.x1
        assert ax.figure.bbox.y0 <= box.y0
        assert box.y1 < ax.bbox.y0
        assert plot_map(model_map, caption="", ax=plt.subplots()[1]).get_xlabel() == ""

    def test_only_distances_mean_something(self):
        _, given = plt.subplots()
        ax = plot_map(map_of(), ax=given)
        assert ax is given
        assert ax.get_aspect() == 1
        assert not len(ax.get_xticks())
        assert not any(spine.get_visible() for spine in ax.spines.values())

    @pytest.mark.parametrize("n_models", [2, 4, 31])
    def test_any_number_of_models_is_drawn(self, n_models):
        ax = plot_map(map_of(n_models))
        assert len(clouds(ax)[0].get_offsets()) == n_models

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"color": "famly"}, r"no attribute 'famly' \(closest: 'family'\)"),
            ({"color": "empty"}, "no model has a value of 'empty'"),
            ({"color": "family", "max_groups": 33}, "1..32"),
            ({"size": "family"}, "size must be an attribute of numbers or dates, 'family' is not"),
            ({"label": "step"}, "'step' holds numbers"),
            ({"label": ["m99"]}, "no model 'm99' on this map"),
            ({"path": ("rnu", "step")}, "no attribute 'rnu'"),
            ({"path": ("family", "family")}, "order of a path must be"),
        ],
    )
    def test_what_is_not_there_is_named(self, settings, message):
        with pytest.raises(InputError, match=message):
            plot_map(map_of(family=["a"] * 40, step=range(40), empty=[None] * 40), **settings)


class TestAttributes:
    @pytest.mark.parametrize(
        ("values", "norm", "ticks"),
        [
            ([1, 5, 1000], LogNorm, ["1", "10", "100", "1k"]),
            ([0, 1, 512, 143000], SymLogNorm, ["0", "1", "10", "100", "1k", "10k", "100k"]),
            ([3, 4, 30], LogNorm, ["5", "10", "20"]),
            ([0, 4, 23], mpl.colors.Normalize, ["0", "5", "10", "15", "20"]),
            ([3, 4, 23], mpl.colors.Normalize, ["5", "10", "15", "20"]),
            ([-3.0, None, 2.0], mpl.colors.Normalize, ["−3", "−2", "−1", "0", "1", "2"]),
            ([7, 7], mpl.colors.Normalize, ["7"]),
        ],
    )
    def test_numbers_choose_their_scale(self, values, norm, ticks):
        scale = read_attribute(pd.DataFrame({"x": values}), "x")
        assert type(scale.norm) is norm
        assert scale.tick_labels == ticks

    def test_dates_get_calendar_ticks(self):
        table = pd.DataFrame({"day": ["2022-11-30", "", "2025-02-01"], "time": ["2024-03-01T12:00:00Z"] * 3})
        scale = read_attribute(table, "day")
        assert scale.tick_labels == ["2023", "2024", "2025"]
        np.testing.assert_array_equal(scale.known, [True, False, True])
        assert scale.ticks[1] - scale.ticks[0] == 365
        assert scale.note() == "grey: 1 without day"
        assert isinstance(read_attribute(table, "time"), Scale)
        assert isinstance(read_attribute(pd.DataFrame({"d": ["2024-13-01"]}), "d"), Groups)

    def test_truth_values_and_mixtures_are_groups(self):
        table = pd.DataFrame({"chat": [True, False, True], "mixed": [1, "1b", None]})
        assert read_attribute(table, "chat").names == ["True", "False"]
        mixed = read_attribute(table, "mixed")
        assert (mixed.names, mixed.n_unknown) == (["1", "1b"], 1)

    def test_ticks_of_a_narrow_span(self):
        assert log_ticks(0.92, 1.08) == pytest.approx([0.95, 1, 1.05])


class TestTexts:
    def test_dollars_and_underscores_are_shown_as_they_are(self):
        model_map = map_of(8, family=["$x_1$"] * 4 + ["a_b^{2}"] * 4)
        model_map.models["model"] = ["$x_1$", "$\\alpha$", "a_b", "100%", "#1", "\\frac", "{", "x$y"]
        scores = LogLikelihoods(
            np.random.default_rng(0).normal(size=(8, 6)) - 50,
            model_map.models,
            pd.DataFrame({"source": ["$x_1$"] * 3 + ["%_"] * 3}),
        )
        table = pd.DataFrame({"exact": [1.0, 2.0], "$x_1$": [1.0, 3.0]})
        for figure in (
            plot_map(model_map, color="family").figure,
            plot_kl_heatmap(model_map, color="family"),
            plot_matrix(scores).figure,
            plot_estimate_vs_exact(table, estimates={"$x_1$": "$x_1$"}),
        ):
            texts = all_texts(figure)
            assert any("$x_1$" in text.get_text() for text in texts)
            assert not [t.get_text() for t in texts if "$" in t.get_text() and t.get_parse_math()]

    @pytest.mark.skipif(len(fonts.families()) == 1, reason="no font with Chinese or Japanese here")
    def test_japanese_and_chinese_are_drawn(self):
        model_map = map_of(8, family=["日本語"] * 4 + ["中文"] * 4)
        model_map.models["model"] = ["カタカナ", "ひらがな", "漢字", "言語", "地理", "科学", "法律", "文学"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = plot_map(model_map, color="family").figure
            figure.canvas.draw()
            plot_kl_heatmap(model_map, color="family").canvas.draw()
        text = next(text for text in all_texts(figure) if text.get_text() == "ひらがな")
        assert text.get_fontfamily() == fonts.families()
        assert set(map(ord, "ひらがな漢字日本語中文")) <= {ord(c) for c in fonts._drawable()}

    def test_without_such_a_font_one_warning_says_what_to_install(self, monkeypatch, tmp_path):
        monkeypatch.setattr(fonts, "families", lambda: ["DejaVu Sans"])
        monkeypatch.setattr(fonts, "_drawable", fonts._drawable.__wrapped__)
        monkeypatch.setattr(fonts, "_warned", [])
        model_map = map_of(8, family=["日本語"] * 8)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            save_figure(plot_map(model_map, color="family").figure, tmp_path / "map")
            plot_kl_heatmap(model_map, color="family")
        assert len(caught) == 1
        assert "(日 本 語)" in str(caught[0].message)
        assert "pip install noto-cjk-sans-jp-regular" in str(caught[0].message)


class TestHeatmap:
    def test_rows_follow_the_dendrogram_and_the_diagonal_is_empty(self):
        model_map = map_of(20, family=families({"a": 10, "b": 10}))
        figure = plot_kl_heatmap(model_map, color="family")
        tree_ax, strip_ax, ax = figure.axes[:3]
        tree = linkage(squareform(np.sqrt(2 * model_map.kl), checks=False), "average", optimal_ordering=True)
        expected = dendrogram(tree, no_plot=True)
        order = expected["leaves"]
        shown = np.ma.filled(ax.images[0].get_array(), np.nan)
        kl = model_map.kl[np.ix_(order, order)].copy()
        np.fill_diagonal(kl, np.nan)
        np.testing.assert_array_equal(shown, kl)
        assert [t.get_text() for t in ax.get_yticklabels()] == [f"m{i}" for i in order]
        (lines,) = [c for c in tree_ax.collections if isinstance(c, LineCollection)]
        drawn = {tuple(np.sort(s[:, 0]).round(9)) for s in lines.get_segments()}
        assert drawn == {tuple(np.sort(d).round(9)) for d in expected["dcoord"]}
        rows = {tuple(np.sort(s[:, 1]).round(9)) for s in lines.get_segments()}
        assert rows == {tuple(np.sort((np.array(i) - 5) / 10).round(9)) for i in expected["icoord"]}
        assert tree_ax.get_ylim() == ax.get_ylim() == (19.5, -0.5)
        colors = [to_hex(c) for c in strip_ax.images[0].get_array()[:, 0]]
        assert colors == [HUES[0] if k < 10 else HUES[1] for k in order]

    def test_the_bar_is_logarithmic_over_five_decades_at_most(self):
        kl = np.array([[0, 1e-9, 2], [1e-9, 0, 2], [2, 2, 0]])
        table = pd.DataFrame(kl, index=list("abc"), columns=list("abc"))
        figure = plot_kl_heatmap(table)
        norm = figure.axes[2].images[0].norm
        assert isinstance(norm, LogNorm)
        assert (norm.vmin, norm.vmax) == pytest.approx((2e-5, 2))
        bar = figure.axes[3]
        assert bar.get_xlabel() == "KL, nats per text"
        assert [t.get_text() for t in bar.get_xticklabels()] == ["0.0001", "0.001", "0.01", "0.1", "1"]

    def test_the_bar_of_a_map_names_its_estimator(self):
        bar = plot_kl_heatmap(map_of(6)).axes[3]
        assert bar.get_xlabel() == "KL, nats per text (text level estimate)"

    def test_names_end_where_they_cannot_be_read(self):
        assert len(plot_kl_heatmap(map_of(60)).axes[2].get_yticklabels()) == 60
        assert not plot_kl_heatmap(map_of(61)).axes[2].get_yticklabels()

    def test_a_table_takes_its_models_by_label(self):
        model_map = map_of(6, family=list("abcabc"))
        ids = model_map.models.index
        table = pd.DataFrame(model_map.kl, ids, ids)
        figure = plot_kl_heatmap(table, color="family", models=model_map.models[::-1])
        assert [t.get_text() for t in figure.axes[2].get_yticklabels()] == [
            t.get_text() for t in plot_kl_heatmap(model_map).axes[2].get_yticklabels()
        ]
        with pytest.raises(InputError, match="no row for 1 models of kl, such as 'm2-0'"):
            plot_kl_heatmap(table, models=model_map.models.drop("m2-0"))

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (pd.DataFrame(np.zeros((1, 1)), ["a"], ["a"]), "1 x 1"),
            (pd.DataFrame(np.zeros((2, 2)), list("ab"), list("ba")), "give the same 2 or more models twice"),
            (pd.DataFrame([[0, 1], [2, 0]], list("ab"), list("ab")), "from 'a' to 'b' is 1, which is not"),
            (pd.DataFrame(np.zeros((2, 2)), list("ab"), list("ab")), "every KL is 0"),
        ],
    )
    def test_what_is_no_divergence_is_refused(self, table, message):
        with pytest.raises(InputError, match=message):
            plot_kl_heatmap(table)


class TestMatrix:
    @pytest.fixture
    def scores(self):
        rng = np.random.default_rng(3)
        models = pd.DataFrame({"family": list("abbab")}, [f"m{i}" for i in range(5)])
        texts = pd.DataFrame(
            {"source": list("xyyxyzyx"), "n_bytes": rng.permutation(8) + 300}, [f"t{i}" for i in range(8)]
        )
        return LogLikelihoods(rng.normal(size=(5, 8)) * 9 - 200, models, texts)

    @pytest.mark.parametrize("centered", [False, True])
    def test_models_by_family_and_texts_by_source(self, scores, centered):
        ax = plot_matrix(scores, centered=centered)
        means, lengths = scores.values.mean(1), scores.texts["n_bytes"]
        rows = sorted(range(5), key=lambda i: ("ba".index(scores.models["family"].iloc[i]), -means[i]))
        columns = sorted(
            range(8), key=lambda x: ("yxz".index(scores.texts["source"].iloc[x]), lengths.iloc[x])
        )
        values = double_center(scores.values) if centered else scores.values
        np.testing.assert_array_equal(ax.images[0].get_array(), values[np.ix_(rows, columns)])
        assert [t.get_text() for t in ax.get_yticklabels()] == ["b (3)", "a (2)"]
        assert [t.get_text() for t in ax.get_xticklabels()] == ["y (4)", "x (3)", "z (1)"]
        np.testing.assert_array_equal(ax.get_xticks(), [1.5, 5, 7])
        assert [line.get_xdata()[0] for line in ax.lines[:2]] == [3.5, 6.5]

    def test_q_is_white_at_zero(self, scores):
        norm = plot_matrix(scores, centered=True).images[0].norm
        assert isinstance(norm, CenteredNorm)
        assert norm(0.0) == 0.5

    def test_without_families_the_models_are_named(self, scores):
        ax = plot_matrix(scores, rows="nothing")
        order = np.argsort(-scores.values.mean(1))
        assert [t.get_text() for t in ax.get_yticklabels()] == [f"m{i}" for i in order]


class TestEstimates:
    @pytest.fixture
    def table(self):
        exact = np.array([1.0, 10, 100, 5])
        return pd.DataFrame(
            {
                "pair": ["a b", "a c", "b c", "c d"],
                "exact": exact,
                "exact_se": exact / 20,
                "text_level": exact * [2, 4, 3, 100],
                "text_level_se": exact / 2,
                "token_level": exact * [1.25, 1.5, 1.0, -1],
            }
        )

    def test_points_ratios_and_medians_are_those_of_the_table(self, table):
        figure = plot_estimate_vs_exact(table, estimates={"text_level": "text", "token_level": "token"})
        ax, below = figure.axes
        text, token = (container.lines[0] for container in ax.containers)
        np.testing.assert_array_equal(text.get_xydata(), table[["exact", "text_level"]])
        np.testing.assert_array_equal(token.get_xydata(), table[["exact", "token_level"]][:3])
        np.testing.assert_allclose(below.containers[0].lines[0].get_ydata(), [2, 4, 3, 100])
        assert [t.get_text() for t in ax.get_legend().get_texts()] == [
            "text: median ratio 3.50",
            "token: median ratio 1.25 (1 pairs not positive)",
        ]
        assert text.get_marker() != token.get_marker()
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")

    def test_error_bars_are_standard_errors(self, table):
        ax, below = plot_estimate_vs_exact(table).axes
        x_bars, y_bars = (bars.get_segments() for bars in ax.containers[0].lines[2])
        np.testing.assert_allclose(
            [s[:, 0] for s in x_bars], table["exact"].to_numpy()[:, None] * [0.95, 1.05]
        )
        expected = table["text_level"].to_numpy()[:, None] + table["text_level_se"].to_numpy()[:, None] * [
            -1,
            1,
        ]
        np.testing.assert_allclose([s[:, 1] for s in y_bars], expected)
        ratios = [s[:, 1] for s in below.containers[0].lines[2][1].get_segments()]
        np.testing.assert_allclose(ratios, np.array([[1.5, 2.5], [3.5, 4.5], [2.5, 3.5], [99.5, 100.5]]))

    def test_every_pair_and_the_identity_are_in_the_picture(self, table):
        ax, _ = plot_estimate_vs_exact(table).axes
        low, high = ax.get_ylim()
        assert low < 1.25
        assert high > 500
        (identity,) = [line for line in ax.lines if isinstance(line, mpl.lines.AxLine)]
        assert identity.get_xy1() == (1, 1)
        assert identity.get_xy2() == (10, 10)

    def test_default_estimates_are_the_other_columns_of_numbers(self, table):
        legend = plot_estimate_vs_exact(table).axes[0].get_legend()
        assert [t.get_text().split(":")[0] for t in legend.get_texts()] == ["text level", "token level"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"exact": "exakt"}, r"no column 'exakt' \(closest: 'exact'\)"),
            ({"estimates": {"txt": "x"}}, "no column 'txt'"),
            ({"estimates": {}}, "no column of estimates"),
            ({"estimates": {"bad": "bad"}}, "no pair has a positive 'exact' and a positive 'bad'"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, table, settings, message):
        with pytest.raises(InputError, match=message):
            plot_estimate_vs_exact(table.assign(bad=-1.0), **settings)


class TestFiles:
    def test_both_kinds_the_same_bytes_twice(self, tmp_path):
        model_map = map_of(family=families({"a": 25, "b": 15}))
        for folder in ("one", "two"):
            written = save_figure(plot_map(model_map, color="family").figure, tmp_path / folder / "map.v1")
            assert [file.name for file in written] == ["map.v1.svg", "map.v1.png"]
        for file in written:
            assert file.read_bytes() == (tmp_path / "one" / file.name).read_bytes()
            assert file.stat().st_size > 10_000
        assert sorted(f.name for f in (tmp_path / "one").iterdir()) == ["map.v1.png", "map.v1.svg"]
        assert b"<dc:date>" not in written[0].read_bytes()
        assert plt.imread(written[1]).shape[1] > 7 * 200 * 0.9  # 200 dots to the inch

    def test_a_suffix_chooses_one_kind(self, tmp_path):
        figure = plot_map(map_of(4)).figure
        assert save_figure(figure, tmp_path / "map.png") == [tmp_path / "map.png"]
        assert [f.name for f in tmp_path.iterdir()] == ["map.png"]
        with pytest.raises(InputError, match=r"as \.svg or \.png, not as \.pdf"):
            save_figure(figure, tmp_path / "map.pdf")

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        figure = plot_map(map_of(4)).figure
        (written,) = save_figure(figure, tmp_path / "map.svg")
        before = written.read_bytes()

        def half(path, **_):
            path.write_text("<svg")
            raise OSError("disk full")

        monkeypatch.setattr(figure, "savefig", half)
        with pytest.raises(OSError, match="disk full"):
            save_figure(figure, tmp_path / "map.svg")
        assert written.read_bytes() == before
        assert [f.name for f in tmp_path.iterdir()] == ["map.svg"]


def test_a_heat_map_of_very_many_models_shows_the_means_of_blocks_in_the_place_of_their_rows():
    x = np.sort(np.random.default_rng(0).normal(size=1300))
    kl = (x[:, None] - x) ** 2 / 2
    drawn = plot_kl_heatmap(pd.DataFrame(kl))
    (image,) = (i for axes in drawn.axes for i in axes.images if i.get_array().shape == (434, 434))
    assert image.get_extent() == [-0.5, 1299.5, 1299.5, -0.5]
    order = leaves_list(linkage(squareform(np.sqrt(2 * kl), checks=False), "average"))
    np.fill_diagonal(kl, np.nan)
    edges = [*(np.arange(434) * 1300 // 434), 1300]
    assert set(np.diff(edges)) <= {2, 3}
    for i, j in ((0, 433), (20, 400), (100, 300), (7, 7)):
        rows, columns = (order[edges[k] : edges[k + 1]] for k in (i, j))
        block = np.maximum(kl[np.ix_(rows, columns)], image.norm.vmin)
        assert image.get_array()[i, j] == pytest.approx(np.nanmean(block))


def test_nothing_global_was_changed():
    plot_map(map_of(family=["a"] * 40), color="family")
    plot_kl_heatmap(map_of(5))
    assert dict(mpl.rcParams) == SETTINGS_BEFORE
