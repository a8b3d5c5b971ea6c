"""The map widget in a real JupyterLab: what mouse and keys do there, the kernel says."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from browser.driver import Notebook, drag
from nbconvert import HTMLExporter

HOSTILE = "<img src=x onerror='window.harmed = 1'>"

SETUP = f"""
import json
import numpy as np
import pandas as pd
from lmmap.widgets.map_widget import map_widget

rng = np.random.default_rng(0)
K = 60
family = np.array(["near", "far", {HOSTILE!r}])[np.arange(K) % 3]
xy = rng.normal(size=(K, 2)) + 6 * np.c_[np.arange(K) % 3, np.arange(K) % 2]
names = [f"{{f}}-{{k}}" for k, f in enumerate(family)]
names[7] = "\u202eabc"
table = pd.DataFrame({{"model": names, "family": family, "size": np.geomspace(1, 1e3, K)}})
table["kind"] = np.array(["base", "chat"])[np.arange(K) % 2]
table.index = [f"id-{{k}}-{HOSTILE}" for k in range(K)]

def inside(points, polygon):
    x, y = points.T
    x1, y1 = np.array(polygon).T
    x2, y2 = np.roll([x1, y1], -1, axis=1)
    crossed = np.zeros(len(points), dtype=int)
    for a, b, c, d in zip(x1, y1, x2, y2):
        level = (b <= y) != (d <= y)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed += level & (x < a + (y - b) * (c - a) / (d - b))
    return crossed % 2 == 1

def ids_inside(rows=range(K), at=xy):
    at = np.asarray(at, dtype=np.float32).astype(float)
    return [table.index[row] for row, within in zip(rows, inside(at, widget.lasso)) if within]
"""
SHOW = """
widget = map_widget(table, xy, color="family", caption="a caption")
widget
"""


@pytest.fixture(scope="module")
def one_map(open_notebook: Callable[[], Notebook]) -> Notebook:
    """Give a notebook with a map of 60 models in it."""
    notebook = open_notebook()
    notebook.open([SETUP, SHOW])
    notebook.run()
    notebook.wait("widget.drawn", 1)
    return notebook


@pytest.fixture
def shown(one_map: Notebook) -> Iterator[Notebook]:
    """Give the map as it was at first; no test may leave an error behind."""
    one_map.do("""
widget.show(list(table.index), xy, caption="a caption")
with widget.hold_sync():
    widget.selected, widget.groups, widget.query, widget.chosen = [], [], "", ""
    widget.color, widget.shape = "family", ""
""")
    one_map.page.get_by_role("button", name="Show all of the map").click()
    one_map.wait("widget.drawn == widget.frame['seq']")
    one_map.page.wait_for_timeout(350)  # until all have moved
    yield one_map
    one_map.check()
    assert one_map.page.evaluate("() => window.harmed") is None


def corner(notebook: Notebook) -> dict[str, float]:
    """Where the canvas lies in the window."""
    canvas = notebook.page.locator(".lmmap-map canvas")
    canvas.scroll_into_view_if_needed()
    return dict(canvas.bounding_box())


def lasso(notebook: Notebook, shares: list[tuple[float, float]], *, shift: bool = False) -> None:
    """Drag through points given in shares of the canvas, and wait until the kernel has the polygon."""
    box = corner(notebook)
    notebook.do("widget.lasso = []")
    if shift:
        notebook.page.keyboard.down("Shift")
    drag(notebook.page, [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in shares])
    if shift:
        notebook.page.keyboard.up("Shift")
    notebook.wait("len(widget.lasso) > 2")


def place_of(notebook: Notebook, row: int) -> tuple[float, float]:
    """Where a model is in the window: one lasso tells how pixels and positions go together."""
    box = corner(notebook)
    ends = [(0.02, 0.02), (0.3, 0.02), (0.02, 0.3)]
    lasso(notebook, ends)
    first, *_, last = np.array(notebook.value("widget.lasso"))
    begin = np.array([box["x"] + 0.02 * box["width"], box["y"] + 0.02 * box["height"]])
    end = np.array([box["x"] + 0.02 * box["width"], box["y"] + 0.3 * box["height"]])
    pixels_per_unit = (begin[1] - end[1]) / (first[1] - last[1])
    away = (np.array(notebook.value(f"xy[{row}].tolist()")) - first) * [-pixels_per_unit, pixels_per_unit]
    x, y = begin + away
    notebook.do("widget.selected = []")
    return float(x), float(y)


def test_a_map_is_there_and_nothing_has_failed(shown: Notebook) -> None:
    assert shown.page.locator(".lmmap-map canvas").count() == 1
    width, height = shown.page.evaluate(
        "() => { const c = document.querySelector('.lmmap-map canvas'); return [c.width, c.height]; }"
    )
    assert min(width, height) > 300
    status = shown.page.locator(".lmmap-map [role=status]").inner_text()
    assert status == "60 models"


def test_a_lasso_selects_what_is_in_the_polygon_by_the_even_odd_rule(shown: Notebook) -> None:
    star = [
        (0.5 + 0.42 * np.sin(4 * np.pi * k / 5), 0.5 - 0.42 * np.cos(4 * np.pi * k / 5)) for k in range(5)
    ]
    lasso(shown, star)  # a pentagram: its middle is outside
    shown.wait("widget.selected == ids_inside()")
    n_star = shown.value("len(widget.selected)")
    assert 0 < n_star < 60
    before = shown.value("widget.selected")
    lasso(shown, [(0.01, 0.01), (0.99, 0.01), (0.99, 0.5), (0.01, 0.5)], shift=True)
    shown.wait(f"set(widget.selected) == set({before!r}) | set(ids_inside())")
    assert shown.value("len(widget.selected)") > n_star


def test_escape_empties_what_was_selected_searched_and_chosen(shown: Notebook) -> None:
    shown.do("widget.selected, widget.chosen, widget.query = list(table.index[:3]), table.index[0], 'far'")
    shown.page.locator(".lmmap-map canvas").focus()
    shown.page.keyboard.press("Escape")
    shown.wait("[widget.selected, widget.chosen, widget.query]", [[], "", ""])


def test_a_kernel_that_does_not_answer_is_told_and_one_that_does_again_is_not(shown: Notebook) -> None:
    told = shown.page.get_by_text("The kernel is busy or gone")
    kernel = shown.value("__import__('os').getpid()")
    os.kill(kernel, signal.SIGSTOP)
    try:
        shown.page.get_by_role("searchbox", name="Search names").fill("near")
        told.wait_for(state="visible", timeout=9000)
    finally:
        os.kill(kernel, signal.SIGCONT)
    told.wait_for(state="hidden", timeout=9000)
    shown.wait("widget.query", "near")


def test_a_search_selects_the_names_that_match_whatever_their_case(shown: Notebook) -> None:
    box = shown.page.get_by_role("searchbox", name="Search names")
    box.fill("NEAR-1")
    shown.wait("widget.query", "NEAR-1")
    assert shown.page.locator(".lmmap-map .count").inner_text() == "3 found"
    assert shown.value("widget.selected") == []
    box.press("Enter")
    shown.wait("widget.selected == [i for i, n in zip(table.index, names) if 'near-1' in n]")
    assert shown.value("len(widget.selected)") == 3
    box.fill("no such model")
    box.press("Enter")
    shown.wait("widget.selected", [])


def test_a_click_chooses_and_selects_one_model_and_shift_takes_it_out_again(shown: Notebook) -> None:
    row = shown.value("int(np.argmax(xy[:, 0]))")
    place = place_of(shown, row)
    shown.page.mouse.click(*place)
    shown.wait(f"widget.chosen == table.index[{row}] and widget.selected == [table.index[{row}]]")
    shown.page.keyboard.down("Shift")
    shown.page.mouse.click(*place)
    shown.page.keyboard.up("Shift")
    shown.wait("widget.selected", [])


def test_the_reader_chooses_colour_and_shape_and_the_legend_lets_groups_through(shown: Notebook) -> None:
    shown.page.get_by_label("Colour").select_option("kind")
    shown.wait("widget.color", "kind")
    shown.page.get_by_label("Shape").select_option("family")
    shown.wait("widget.shape", "family")
    chat = shown.page.locator(".lmmap-map .legend").get_by_role("button", name="chat")
    chat.click()
    shown.wait("widget.groups", ["chat"])
    assert chat.get_attribute("aria-pressed") == "true"
    lasso(shown, [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)])
    shown.wait("widget.selected == [i for i, k in zip(table.index, table['kind']) if k == 'chat']")
    chat.click()
    shown.wait("widget.groups", [])


def test_a_new_frame_is_drawn_and_an_older_one_is_dropped(shown: Notebook) -> None:
    shown.do("widget.show(list(table.index[:9]), xy[:9], caption='nine of them')")
    shown.wait("widget.drawn == widget.frame['seq']")
    seq = shown.value("widget.drawn")
    caption, status = (shown.page.locator(f".lmmap-map .{name}") for name in ("caption", "status"))
    assert caption.inner_text() == "nine of them"
    shown.do("widget.frame = {**widget.frame, 'seq': widget.frame['seq'] - 1, 'caption': 'stale'}")
    shown.do("widget.message = 'after it'")  # once this is there, the stale frame was seen
    shown.page.get_by_text("after it").wait_for()
    assert caption.inner_text() == "nine of them"
    assert shown.value("widget.drawn") == seq
    assert status.inner_text() == "9 of 60 models shown"
    shown.page.wait_for_timeout(350)
    lasso(shown, [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)])
    shown.wait("widget.selected == list(table.index[:9])")
    shown.do(f"widget.frame = {{**widget.frame, 'seq': {seq}}}")


def test_the_keyboard_alone_goes_to_models_and_selects_them_and_the_notebook_hears_no_key(
    shown: Notebook,
) -> None:
    n_cells = shown.page.locator(".jp-Cell").count()
    keys = shown.page.keyboard
    shown.page.get_by_role("searchbox", name="Search names").focus()
    while shown.page.evaluate("() => document.activeElement.tagName") != "CANVAS":
        keys.press("Tab")
    keys.press("ArrowRight")
    shown.wait("widget.chosen != ''")
    first = shown.value("widget.chosen")
    keys.press("ArrowLeft")
    shown.wait(f"widget.chosen != {first!r}")
    second = shown.value("widget.chosen")
    x = shown.value(f"[float(xy[list(table.index).index(i), 0]) for i in ({first!r}, {second!r})]")
    assert x[1] < x[0], "the arrow to the left goes left"
    keys.press("Enter")
    shown.wait("widget.selected", [second])
    keys.press("PageDown")
    shown.wait(f"widget.chosen not in ({second!r}, '')")
    keys.press("Shift+Enter")
    shown.wait("len(widget.selected)", 2)
    keys.press("a")
    shown.wait("len(widget.selected)", 60)
    for key in ("b", "d", "d", "+", "-", "0", "Shift+ArrowUp", "x"):
        keys.press(key)
    keys.press("?")
    shown.page.get_by_role("region", name="Help").wait_for()
    keys.press("Escape")
    assert shown.page.get_by_role("region", name="Help").count() == 0
    assert shown.value("len(widget.selected)") == 60, "the first Esc closes the help only"
    keys.press("Escape")
    shown.wait("widget.selected", [])
    assert shown.page.locator(".jp-Cell").count() == n_cells
    shown.page.locator(".lmmap-map canvas").focus()
    keys.press("Control+s")  # that one is JupyterLab's own
    shown.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.model.dirty")


def test_hostile_ids_names_and_groups_are_shown_as_text(shown: Notebook) -> None:
    shown.do(f"widget.message = {HOSTILE!r}")
    row = shown.value("int(np.argmax(np.where(np.arange(K) % 3 == 2, xy[:, 0], -9)))")
    shown.page.mouse.move(*place_of(shown, row))
    tip = shown.page.locator(".lmmap-map .tip")
    tip.wait_for()
    assert HOSTILE in tip.inner_text()
    shown.do(f"widget.show(list(table.index), xy, caption={HOSTILE!r}, title={HOSTILE!r})")
    shown.do(f"widget.chosen, widget.message = table.index[2], {HOSTILE!r}")
    shown.wait("widget.drawn == widget.frame['seq']")
    assert shown.page.locator(".lmmap-map .message").inner_text() == HOSTILE
    assert shown.page.locator(".lmmap-map .caption").inner_text() == HOSTILE
    assert shown.page.locator(".lmmap-map img").count() == 0


WITH_PICTURE = """
from lmmap.widgets.map_widget import with_picture
import ipywidgets
from matplotlib import pyplot as plt
figure, ax = plt.subplots(figsize=(3, 2))
inside_a_box = map_widget(table, xy, color="family")
with_picture(ipywidgets.VBox([inside_a_box]), figure, alt="a picture of the map")
"""


def test_a_picture_stands_in_where_the_widget_cannot_be(
    open_notebook: Callable[[], Notebook], lab: Any, browser: Any, tmp_path: Any
) -> None:
    live = open_notebook()
    live.open([SETUP, WITH_PICTURE], "with_picture.ipynb")
    live.run()
    live.wait("inside_a_box.drawn", 1)
    picture = "img[alt='a picture of the map']"
    assert live.page.locator(picture).count() == 1
    assert not live.page.locator(picture).is_visible(), "who has the map needs no picture of it"
    live.check()
    live.save()
    copy = json.loads((lab.root / "with_picture.ipynb").read_text(encoding="utf-8"))
    copy["metadata"]["changed_elsewhere"] = True  # its signature is no longer valid: nothing in it is trusted
    (lab.root / "untrusted.ipynb").write_text(json.dumps(copy), encoding="utf-8")
    untrusted = open_notebook()
    untrusted.open_file("untrusted.ipynb")
    untrusted.page.locator(picture).wait_for(state="visible")
    assert untrusted.page.locator(".lmmap-map").count() == 0
    assert untrusted.page.get_by_text("trust this notebook").count() == 1
    converted = tmp_path / "converted.html"
    converted.write_text(HTMLExporter().from_filename(lab.root / "untrusted.ipynb")[0], encoding="utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(converted.as_uri(), wait_until="commit")
    page.locator(picture).wait_for(state="visible")
    assert page.evaluate(f'() => document.querySelector("{picture}").naturalWidth') > 100
    context.close()
