"""The page in a real browser: opened from a file, with no network, it does all that the map does."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from browser.driver import drag

from lmmap.widgets.page import write_page

HOSTILE = "</script><img src=x onerror='window.harmed = 1'>\u2028"
K = 40


def the_models() -> tuple[pd.DataFrame, np.ndarray]:
    """Forty models of two families, well apart."""
    rng = np.random.default_rng(1)
    families = np.array(["alpha", HOSTILE])[np.arange(K) % 2]
    table = pd.DataFrame({"model": [f"{name}-{k}" for k, name in enumerate(families)], "family": families})
    table["size"], table["note"] = np.geomspace(1e6, 1e10, K), 'said "so", twice'
    table.index = [f"row {k}{HOSTILE}" for k in range(K)]
    return table, rng.normal(size=(K, 2)) + 8 * np.c_[np.arange(K) % 2, np.zeros(K)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a page of the forty models."""
    table, xy = the_models()
    kl = ((xy[:, None] - xy[None]) ** 2).sum(axis=-1) / 2
    path = tmp_path_factory.mktemp("page") / "map.html"
    return write_page(path, table, xy, color="family", title=HOSTILE, caption=HOSTILE, neighbors=kl)


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """Give the page, opened from its file with the network off. Nothing may fail, be asked for, or be run."""
    context = browser.new_context(viewport={"width": 1000, "height": 700}, accept_downloads=True)
    context.set_offline(True)
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("console", lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_function("() => window.lmmap?.get('drawn') === 1")
    yield page
    assert wrong == []
    assert {url for url in asked if not url.startswith("blob:")} == {file.as_uri()}
    assert page.evaluate("() => window.harmed") is None
    assert page.locator("#map img").count() == 0
    context.close()


def value(page: Any, name: str) -> Any:
    """Ask the model in the page."""
    return page.evaluate("(name) => window.lmmap.get(name)", name)


def lasso(page: Any, shares: list[tuple[float, float]]) -> np.ndarray:
    """Drag through points given in shares of the canvas; gives the polygon."""
    box = page.locator("canvas").bounding_box()
    drag(page, [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in shares])
    return np.array(value(page, "lasso"))


def place_of(page: Any, row: int) -> tuple[float, float]:
    """Where a model is in the window, from two corners of a lasso."""
    box = page.locator("canvas").bounding_box()
    first, *_, last = lasso(page, [(0.02, 0.02), (0.3, 0.02), (0.02, 0.3)])
    pixels_per_unit = 0.28 * box["height"] / (first[1] - last[1])
    x, y = (the_models()[1][row] - first) * [pixels_per_unit, -pixels_per_unit]
    return box["x"] + 0.02 * box["width"] + x, box["y"] + 0.02 * box["height"] + y


def test_a_hovered_model_tells_its_attributes_and_its_ten_nearest(page: Any) -> None:
    table, xy = the_models()
    row = int(xy[:, 0].argmax())
    page.mouse.move(*place_of(page, row))
    tip = page.locator(".tip")
    tip.wait_for()
    told = tip.inner_text()
    shown_name = table["model"].iloc[row].replace("\u2028", " ")
    assert shown_name in told
    assert 'said "so", twice' in told
    apart = ((xy - xy[row]) ** 2).sum(axis=1) / 2
    nearest = np.argsort(apart)[1:11]
    assert tip.locator("dl").nth(1).locator("dt").all_inner_texts() == [
        table["model"].iloc[k].replace("\u2028", " ") for k in nearest
    ]
    kl = [float(text.replace("−", "-")) for text in tip.locator("dl").nth(1).locator("dd").all_inner_texts()]
    np.testing.assert_allclose(kl, apart[nearest], rtol=5e-3)


def test_a_lasso_round_one_family_selects_it_and_its_table_can_be_saved(page: Any) -> None:
    table, xy = the_models()
    polygon = lasso(page, [(0.01, 0.01), (0.5, 0.01), (0.5, 0.99), (0.01, 0.99)])
    assert polygon[:, 0].min() < xy[:, 0].min()
    assert xy[::2, 0].max() < polygon[:, 0].max() < xy[1::2, 0].min()
    assert value(page, "selected") == list(table.index[::2])
    with page.expect_download() as taken:
        page.get_by_role("button", name="Save the selected models as a table").click()
    text = Path(taken.value.path()).read_bytes().decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["id", "model", "x", "y", "family", "size", "note"]
    assert [row[0] for row in rows] == list(table.index[::2])
    assert {row[6] for row in rows} == {'said "so", twice'}
    np.testing.assert_allclose([[float(v) for v in row[2:4]] for row in rows], xy[::2], rtol=1e-6)
    np.testing.assert_allclose([float(row[5]) for row in rows], table["size"].iloc[::2], rtol=1e-6)


def test_a_search_selects_what_it_finds_and_the_legend_filters(page: Any) -> None:
    table, _ = the_models()
    box = page.get_by_role("searchbox")
    box.fill("ALPHA-1")
    assert page.locator(".count").inner_text() == "5 found"
    box.press("Enter")
    assert value(page, "selected") == [table.index[k] for k in (10, 12, 14, 16, 18)]
    page.keyboard.press("Escape")
    assert [value(page, name) for name in ("selected", "query")] == [[], ""]
    page.locator(".legend button").nth(1).click()
    assert value(page, "groups") == [HOSTILE]
    page.locator("canvas").focus()
    page.keyboard.press("a")
    assert value(page, "selected") == list(table.index[1::2])


def test_the_picture_and_the_drawing_hold_every_model_and_name_the_groups(page: Any) -> None:
    with page.expect_download() as taken:
        page.get_by_role("button", name="Save the map as a drawing").click()
    root = ElementTree.fromstring(Path(taken.value.path()).read_bytes())
    tags = [node.tag.rpartition("}")[2] for node in root.iter()]
    assert tags.count("circle") == K + 2, "the models and the two entries of the legend"
    assert set(tags) == {"svg", "rect", "circle", "text", "line"} & set(tags)
    assert any("alpha" in (node.text or "") for node in root.iter())
    with page.expect_download() as taken:
        page.get_by_role("button", name="Save the map as a picture").click()
    assert Path(taken.value.path()).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_fingers_lasso_and_pinch(browser: Any, file: Path) -> None:
    context = browser.new_context(viewport={"width": 420, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_function("() => window.lmmap?.get('drawn') === 1")
    box = page.locator("canvas").bounding_box()
    session = context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [
            {"x": box["x"] + u * box["width"], "y": box["y"] + v * box["height"], "id": k}
            for k, (u, v) in enumerate(points)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    def one_finger(*points: tuple[float, float]) -> np.ndarray:
        touch("touchStart", points[0])
        for point in points[1:]:
            touch("touchMove", point)
        touch("touchEnd")
        return np.ptp(np.array(value(page, "lasso")), axis=0)

    wide = one_finger((0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))
    assert len(value(page, "selected")) == K
    touch("touchStart", (0.45, 0.5), (0.55, 0.5))
    for away in np.linspace(0.05, 0.2, 6):
        touch("touchMove", (0.5 - away, 0.5), (0.5 + away, 0.5))
    touch("touchEnd")
    assert len(value(page, "selected")) == K, "two fingers select nothing"
    near = one_finger((0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99))
    np.testing.assert_allclose(wide / near, 4, rtol=0.02)
    context.close()
