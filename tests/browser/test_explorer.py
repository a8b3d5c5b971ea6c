"""The explorer in a real JupyterLab: 08 runs, and what a reader ticks and presses, the kernel follows."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from browser.driver import Notebook

from lmmap.models import ModelSpec
from lmmap.notebooks.results import read_results
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.texts import text_set

ROOT = Path(__file__).parent.parent.parent
LIVE = """
import numpy as np
from lmmap import Explorer, explore, make_lookalike
scores = make_lookalike(60, 400, n_families=6, n_sources=4)
words = [f"text {x} of {source}" for x, source in enumerate(scores.texts["source"])]
live = explore(Explorer(scores, texts=words));

def scratch():
    L = scores.values[:, live.explorer.texts_of(live.view)]
    Q = L - L.mean(axis=1, keepdims=True)
    Q = (Q - Q.mean(axis=0)) / np.sqrt(L.shape[1])
    U, s, _ = np.linalg.svd(Q, full_matrices=False)
    return (U * s)[:, :2]

def nearest_to(i, n=10):
    L = scores.values[:, live.explorer.texts_of(live.view)]
    return [str(live.frame.models["model"].iloc[k]) for k in np.argsort((L - L[i]).var(axis=1))[1 : n + 1]]

def apart(one, other, turned=True):
    if turned:
        U, _, V = np.linalg.svd(other.T @ one)
        other = other @ U @ V
    return float(np.abs(one - other).max() / np.abs(one).max())
"""


@pytest.fixture(scope="module")
def live(open_notebook: Callable[[], Notebook]) -> Notebook:
    """Give a notebook with the explorer of a synthetic score set."""
    notebook = open_notebook()
    notebook.open(["%matplotlib inline", LIVE])
    notebook.run()
    notebook.wait("live.map.drawn == live.map.frame['seq']")
    return notebook


def test_a_domain_unticked_takes_its_texts_away_and_models_move(live: Notebook) -> None:
    sizes = live.value("live.explorer.sources")
    name, size = next(iter(sizes.items()))
    live.do("first = live.frame.coordinates")
    box = live.page.get_by_label(f"{name} ({size:,})")
    box.uncheck()
    live.wait("live.frame.n_texts", sum(sizes.values()) - size)
    live.wait("live.map.drawn == live.map.frame['seq'] and '%' in live.map.frame['caption']")
    assert live.value("apart(first, live.frame.coordinates)") > 0.01
    assert live.value("apart(scratch(), live.frame.coordinates)") < 1e-4
    box.check()
    live.wait("live.frame.n_texts", sum(sizes.values()))
    live.wait("'%' in live.map.frame['caption']")
    assert live.value("apart(first, live.frame.coordinates, turned=False)") < 1e-4
    live.check()


def test_neighbours_are_those_on_the_texts_that_are_ticked(live: Notebook) -> None:
    for press in ("uncheck", "check"):
        name, size = list(live.value("live.explorer.sources").items())[1]
        getattr(live.page.get_by_label(f"{name} ({size:,})"), press)()
        live.wait("'%' in live.map.frame['caption']")
        live.do("live.map.chosen = live.frame.rows[7]")
        live.page.get_by_role("tab", name="Neighbours").click()
        expected = live.value("nearest_to(7)")
        table = live.page.locator(".jupyter-widgets.widget-html table").first
        live.page.wait_for_function(
            "([names, table]) => [...table.rows].slice(1).map(row => row.cells[0].innerText).join()"
            " === names.join()",
            arg=[expected, table.element_handle()], timeout=5000,
        )  # fmt: skip
    live.check()


def test_what_cannot_be_drawn_is_told_and_the_last_map_stays(live: Notebook) -> None:
    live.page.get_by_role("button", name="None", exact=True).click()
    live.wait("live.map.message", "no domain is ticked: tick at least one")
    assert live.page.get_by_text("no domain is ticked").count() >= 1
    assert live.value("live.frame.n_texts") == 400
    live.page.get_by_role("button", name="All", exact=True).first.click()
    live.wait("live.map.message", "")
    words = live.page.get_by_placeholder("words, then Enter")
    words.fill("no such words")
    words.press("Enter")
    live.wait("'contains' in live.map.message")
    words.fill("")
    words.press("Enter")
    live.wait("live.map.message", "")
    live.check()


def test_a_slow_layout_arrives_and_a_newer_wish_drops_it(live: Notebook) -> None:
    live.do("live.method.value = 'tsne'")
    live.wait("'press Draw' in live.map.message")
    live.do("live.again.click()")
    live.wait("live.frame.view.method", "tsne")
    live.wait("live.map.message", "")
    live.do("live.again.click(); live.method.value = 'pca'")
    live.wait("live.frame.view.method", "pca")
    live.page.wait_for_timeout(2500)
    assert live.value("[live.frame.view.method, live.map.message]") == ["pca", ""]
    live.check()


def test_every_tab_draws_without_an_error(live: Notebook) -> None:
    live.do("live.map.selected = list(live.frame.rows[:4])")
    for name in ("Ranking", "Every pair", "Height", "Two models", "Take away", "Neighbours"):
        live.page.get_by_role("tab", name=name).click()
        live.wait(f"live.tabs.titles[live.tabs.selected_index] == {name!r}")
        live.page.wait_for_timeout(300)
        live.check()
    live.wait("live.map.message", "")


@pytest.fixture(scope="module")
def score_set(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a score set of five tiny models with token records."""
    folder = tmp_path_factory.mktemp("scored")
    texts = text_set(
        *zip(*[(f"{word} {i} " * 9, word) for word in ("for", "the") for i in range(8)], strict=True)
    )
    specs = [ModelSpec(str(make_model("llama", seed=seed)), name=f"tiny-{seed}") for seed in range(5)]
    assert not score_models(Store.create(folder / "run", texts), specs, threads=1)
    return folder / "run"


def test_the_notebook_runs_and_its_command_makes_a_map_of_the_selected_models(
    open_notebook: Callable[[], Notebook], lab: object, score_set: Path, tmp_path: Path
) -> None:
    source = json.loads((ROOT / "notebooks" / "08_explore.ipynb").read_text(encoding="utf-8"))
    (cell,) = [c for c in source["cells"] if "parameters" in c["metadata"].get("tags", [])]
    given = f"\nrun, figures = {str(score_set)!r}, {str(tmp_path / 'figures')!r}"
    cell["source"] = "".join(cell["source"]) + given
    notebook = open_notebook()
    (notebook.server.root / "08.ipynb").write_text(json.dumps(source), encoding="utf-8")
    notebook.open_file("08.ipynb")
    notebook.run()
    notebook.wait("live.map.drawn == live.map.frame['seq']")
    assert notebook.page.locator("canvas").count() >= 1
    notebook.page.get_by_role("tab", name="Two models").click()
    notebook.page.locator("pre span[title$='nats']").first.wait_for(timeout=10_000)
    notebook.page.get_by_role("tab", name="Take away").click()
    notebook.do("live.map.selected = [live.frame.rows[k] for k in (0, 2, 3)]")
    notebook.wait("len(live.take.alone.value) > 0")
    selected, command = notebook.value("[live.selected, live.take.alone.value]")
    notebook.check()
    made = tmp_path / "made.ipynb"
    words = [sys.executable, "-m", *shlex.split(command), "-o", str(made)]
    words += ["-p", "figures", str(tmp_path / "figures")]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "MPLBACKEND": "agg"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = read_results(json.loads(made.read_text(encoding="utf-8")))
    assert str(record["rows"]).split() == selected
    assert record["n_models"] == 3
