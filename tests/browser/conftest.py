"""One browser and one JupyterLab for all tests here; without them tests are skipped, or fail if required."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import driver


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Give a Chromium without a window. LMMAP_BROWSER=required fails where it is missing."""
    reason = driver.missing()
    if reason and os.environ.get("LMMAP_BROWSER") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=driver.chromium(), args=driver.FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[driver.Server]:
    """Give a running JupyterLab."""
    with driver.lab_server(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="module")
def open_notebook(browser: Any, lab: driver.Server) -> Iterator[Callable[[], driver.Notebook]]:
    """Give a function that makes a tab of JupyterLab for a notebook."""
    opened = []

    def make() -> driver.Notebook:
        context = browser.new_context(viewport={"width": 1300, "height": 1500})
        opened.append(context)
        return driver.Notebook(lab, context.new_page())

    yield make
    for context in opened:
        context.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all of these with one of several test processes, and last: playwright's event loop stays."""
    mine = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in mine:
        item.add_marker(pytest.mark.xdist_group("browser"))
    items.sort(key=lambda item: item in mine)
