"""The explorer's widgets without a browser: choices become the view, what is wrong a sentence."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmmap.errors import InputError
from lmmap.explorer.frames import Explorer
from lmmap.explorer.views import View, read_view
from lmmap.loglik import LogLikelihoods
from lmmap.lookalike import make_lookalike
from lmmap.widgets.explorer import HEIGHT, LiveExplorer
from lmmap.widgets.markup import number, sentence, table_of
from lmmap.widgets.pair_panel import marked
from lmmap.widgets.shown import explore

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def live() -> LiveExplorer:
    scores = make_lookalike(30, 200, n_families=5, n_sources=4)
    words = [f"text {x} of {source}" for x, source in enumerate(scores.texts["source"])]
    return LiveExplorer(Explorer(scores, texts=words), View(color="family"))


def tick(live: LiveExplorer, *names: str) -> None:
    live.texts.none.click()
    for name in names:
        live.texts.domains[name].value = True


def test_controls_and_view_say_the_same(live: LiveExplorer):
    sources = list(live.explorer.sources)
    tick(live, *sources[:2])
    low, high = live.texts.lengths.value
    live.texts.lengths.value = (low + 10, high - 10)
    live.texts.share.value = 0.5
    live.texts.seed.value = 3
    live.method.value = "mds"
    view = live.view
    assert (set(view.sources), view.seed, view.method) == (set(sources[:2]), 3, "mds")
    assert (view.min_bytes, view.max_bytes, view.share) == (low + 10, high - 10, 0.5)
    other = LiveExplorer(live.explorer, View())
    other.put(view)
    assert other.view == view
    assert other._asked() == view
    np.testing.assert_allclose(other.frame.kl, live.frame.kl, rtol=1e-9)


def test_a_view_is_saved_and_opened_again(live: LiveExplorer, tmp_path: Path):
    tick(live, next(iter(live.explorer.sources)))
    live.map.selected = list(live.frame.rows[3:6])
    live.take.path.value = str(tmp_path / "deep" / "view")
    live.take.save.click()
    saved = live.view
    assert read_view(tmp_path / "deep" / "view.json") == saved
    live.texts.all.click()
    live.map.selected = []
    live.take.open.click()
    assert live.view == saved
    (tmp_path / "deep" / "view.json").write_text("{}")
    live.take.open.click()
    assert "version" in live.take.said.value
    assert live.view == saved
    with pytest.raises(InputError, match="no view can be read"):
        read_view(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (lambda live: live.texts.none.click(), "no domain is ticked"),
        (lambda live: setattr(live.texts.contains, "value", "nowhere"), "contains 'nowhere'"),
        (lambda live: setattr(live.texts.ids, "value", "no-such-text"), "no-such-text"),
        (lambda live: setattr(live.texts.contains, "value", "text 7 of"), "one text is left"),
    ],
)
def test_what_cannot_be_drawn_is_told_and_the_last_map_stays(live: LiveExplorer, do, told: str):
    before, frame = live.frame, live.map.frame
    do(live)
    assert told in live.map.message
    assert live.frame is before
    assert live.map.frame == frame
    live.texts.put(View())
    live._changed()
    assert live.map.message == ""


def test_models_are_chosen_by_name_attribute_and_selection(live: LiveExplorer):
    table = live.explorer.scores.models
    family = table["family"].iloc[0]
    live.models.attribute.value = "family"
    live.models.values.children[0].value = (family,)
    assert list(live.frame.rows) == list(table.index[table["family"] == family])
    live.models.buttons["all"].click()
    assert len(live.frame.rows) == 30
    live.models.attribute.value = "n_parameters"
    sizes = sorted(table["n_parameters"].unique())
    live.models.values.children[0].value = tuple(map(float, sizes[1:4]))
    assert list(live.frame.rows) == list(table.index[table["n_parameters"].between(sizes[1], sizes[3])])
    live.models.buttons["all"].click()
    live.models.attribute.value = "created"
    dates = sorted(table["created"].unique())
    live.models.values.children[0].index = (0, 4)
    assert list(live.frame.rows) == list(table.index[table["created"] <= dates[4]])
    live.models.attribute.value = "home"  # empty for some: they stay as long as nothing is left out
    assert len(live.frame.rows) == 30
    live.models.buttons["all"].click()
    live.map.selected = list(live.frame.rows[4:9])
    live.models.buttons["only selected"].click()
    assert list(live.frame.rows) == live.map.selected
    live.models.buttons["without selected"].click()
    assert "no model fits" in live.models.told.value
    assert list(live.frame.rows) == live.map.selected


def test_one_model_left_cannot_be_drawn_and_two_can(live: LiveExplorer):
    live.map.selected = list(live.frame.rows[:1])
    live.models.buttons["only selected"].click()
    assert "2 models" in live.map.message
    live.models.buttons["all"].click()
    live.map.selected = list(live.frame.rows[:2])
    live.models.buttons["only selected"].click()
    assert (len(live.frame.rows), live.map.message) == (2, "")
    for k in range(len(live.panels)):
        live.tabs.selected_index = k
    assert live.map.message == ""


def test_equal_models_and_a_set_without_domains_lengths_or_words_are_met_with_sentences():
    L = np.vstack([np.tile([-5.0, -3.0, -4.0], (2, 1)), [[-5.0, -1.0, -9.0]]])
    models = pd.DataFrame({"model": [HOSTILE, HOSTILE, "c"]}, index=["a", "b", "c"])
    scores = LogLikelihoods(L, models, pd.DataFrame(index=["t1", "t2", "t3"]))
    live = LiveExplorer(Explorer(scores), View())
    assert not live.texts.domains
    live.tabs.selected_index = 4
    live.panels[4].first.value, live.panels[4].second.value = "a", "b"
    assert "alike" in live.panels[4]._said.value
    live.panels[4].second.value = "c"
    assert "no column &#x27;source&#x27;" in live.panels[4]._said.value
    assert "no text can be marked" in live.panels[4]._marked.value
    assert HOSTILE not in live.panels[4]._said.value
    live.map.chosen = "a"
    live.tabs.selected_index = 0
    assert HOSTILE not in live.panels[0]._said.value
    assert "&lt;img" in live.panels[0]._said.value
    live.map.selected = ["a", "b"]
    live.models.buttons["only selected"].click()
    assert "alike" in live.map.message


def test_the_command_of_the_selection_names_exactly_the_selected_models(live: LiveExplorer):
    live.tabs.selected_index = 5
    assert live.take.alone.value == ""
    live.map.selected = [live.frame.rows[k] for k in (5, 1)]
    assert live.take.ids.value.split() == live.map.selected
    assert f"-p models '{json.dumps(live.map.selected)}'" in live.take.alone.value
    assert "selected" not in live.take.alone.value


def test_the_page_holds_what_is_drawn(live: LiveExplorer, tmp_path: Path):
    tick(live, next(iter(live.explorer.sources)))
    live.take.path.value = str(tmp_path / "map")
    live.take.page.click()
    assert "written" in live.take.said.value
    packed = re.search(r'id="data">([^<]*)<', (tmp_path / "map.html").read_text())
    content = json.loads(gzip.decompress(base64.b64decode(packed.group(1))))
    assert content["table"]["ids"] == list(live.frame.rows)
    np.testing.assert_allclose(np.reshape(content["frame"]["xy"], (-1, 2)), live.frame.coordinates, rtol=1e-5)
    assert content["frame"]["caption"] == live.frame.caption


def test_markup_escapes_and_marks():
    pieces = pd.DataFrame({"end": [2, 5, 7], "piece": ["<b", ">\n ", "é"], "difference": [1.0, -9.0, np.nan]})
    html = marked(pieces, HOSTILE, "b")
    assert "<b>" not in html
    assert HOSTILE not in html
    assert "&lt;b" in html
    assert "title='+1.00 nats'" in html
    assert "0.75)' title='-9.00 nats'" in html
    assert "read by no model" in html
    table = table_of(pd.DataFrame({"name": [HOSTILE], "kl": ["1.5"]}))
    assert HOSTILE not in table
    assert "text-align:right" in table
    assert [number(x) for x in (np.nan, 1234.6, 0.01234)] == ["–", "1,235", "0.0123"]
    assert sentence(HOSTILE) == "<p>&lt;img src=x onerror=alert(1)&gt;</p>"


def test_explore_shows_a_picture_and_the_widget(live: LiveExplorer, monkeypatch: pytest.MonkeyPatch):
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", lambda *things, **_: shown.extend(things))
    returned = explore(live.explorer, View(color="family"))
    assert returned.frame.rows == live.frame.rows
    assert "<img alt=" in shown[0].data
    assert "application/vnd.jupyter.widget-view+json" in shown[1]


def test_every_colour_of_the_map_can_be_saved_drawn_and_opened_again(live: LiveExplorer):
    source = next(iter(live.explorer.sources))
    for name in ["", *live.map.table["columns"]]:
        live.map.color = name
        live.tabs.selected_index = 2
        live.texts.domains[source].value = not live.texts.domains[source].value
        assert live.map.message == ""
        assert live.view.color == ("height" if name == HEIGHT else name)
        other = LiveExplorer(live.explorer, View.from_json(live.view.to_json()))
        assert other.map.color == name


def test_models_are_selected_by_name_and_a_view_that_does_not_fit_leaves_all_as_it_was(live: LiveExplorer):
    names = live.explorer.scores.models["model"]
    live.put(View(selected=[names.iloc[4]], models=list(names.iloc[:9])))
    assert live.selected == [names.index[4]]
    assert list(live.frame.rows) == list(names.index[:9])
    for wrong in (View(selected=["nobody"]), View(color="nothing"), View(sources=["none"]), View(clip=0.5)):
        with pytest.raises(InputError):
            live.put(wrong)
    live.texts.none.click()
    live.texts.all.click()
    live.models.buttons["all"].click()
    assert len(live.frame.rows) == 30


def test_what_a_control_cannot_show_is_kept_until_it_is_moved(live: LiveExplorer):
    ids = tuple(map(str, live.explorer.scores.texts.index[:150]))
    live.put(View(share=0.123456, seed=2**40, texts=ids))
    n_texts = live.frame.n_texts
    live.method.value = "mds"
    assert (live.view.share, live.view.seed, live.view.texts) == (0.123456, 2**40, ids)
    assert live.frame.n_texts == n_texts
    live.texts.share.value = 0.5
    assert (live.view.share, live.view.seed) == (0.5, 2**40)


def test_filters_look_among_the_models_that_were_kept_and_all_begins_anew(live: LiveExplorer):
    table = live.explorer.scores.models
    live.map.selected = list(table.index[:12])
    live.models.buttons["only selected"].click()
    live.models.attribute.value = "family"
    assert len(live.frame.rows) == 12
    live.models.buttons["all"].click()
    assert (live.models.attribute.value, len(live.frame.rows)) == ("", 30)
    part = table["model"].iloc[0][:-1]
    live.models.name.value = part.upper()
    expected = [row for row, name in table["model"].items() if part in name]
    assert list(live.frame.rows) == expected
    assert 1 < len(expected) < 30


def test_the_pair_is_the_chosen_model_and_its_nearest_and_differences_add_up(live: LiveExplorer):
    live.tabs.selected_index = 4
    panel = live.panels[4]
    for row in live.frame.rows[5:8]:
        before = [panel.first.value, panel.second.value]
        live.map.chosen = row
        kl = live.frame.kl[live.frame.position(row)].copy()
        kl[live.frame.position(row)] = np.inf
        nearest = [row, live.frame.rows[int(kl.argmin())]]
        assert [panel.first.value, panel.second.value] == (before if row in before else nearest)
    live.map.selected = list(live.frame.rows[1:3])
    assert [panel.first.value, panel.second.value] == live.map.selected
    i, j = (live.frame.position(row) for row in live.map.selected)
    D = live.explorer.scores.values[i] - live.explorer.scores.values[j]
    assert f"{D.mean():+,.1f} nats more than" in panel._said.value
    assert f"{D[(D - D.mean()).argmax()]:+,.1f}" in panel._said.value


def test_a_slow_layout_waits_for_the_button(live: LiveExplorer):
    before = live.frame
    live.method.value = "tsne"
    assert "press Draw" in live.map.message
    assert live.frame is before
    live.again.click()
    assert (live.frame.view.method, live.map.message) == ("tsne", "")
    live.method.value = "pca"
    assert (live.frame.view.method, live.map.message, live.again.disabled) == ("pca", "", True)


def test_clipped_scores_are_compared_by_text_level_and_the_command_says_so(live: LiveExplorer):
    scores = live.explorer.scores.clip_below(quantile=0.02)
    clipped = LiveExplorer(Explorer(scores, clip=0.02), View(clip=0.02))
    assert "clipped below" in clipped.map.frame["caption"]
    clipped.texts.domains[next(iter(clipped.explorer.sources))].value = False
    assert "-p clip 0.02" in clipped.view.command("RUN")


def test_a_file_needs_a_name_and_keeps_the_one_it_is_given(live: LiveExplorer, tmp_path: Path):
    live.take.path.value = " "
    live.take.save.click()
    assert "no name" in live.take.said.value
    live.take.path.value = str(tmp_path / "llama-3.1")
    live.take.save.click()
    assert [path.name for path in tmp_path.glob("*.json")] == ["llama-3.1.json"]
    live.take.path.value = "a\0b"
    live.take.save.click()
    assert "null" in live.take.said.value
