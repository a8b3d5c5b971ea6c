"""Screenshots: the explorer and the page as a browser shows them, for the docs and for one's own eyes.

Run from the root of the repository, after `lmmap demo`::

    python -m benchmarks.screenshots

Three pictures go into figures/: `explorer`, notebook 08 in JupyterLab on the demo's models; `explorer_1018`,
a synthetic set of the size of the published maps, in the dark theme; `explored_page`, the page 08 writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "08_explore.ipynb"
LARGE = """
%matplotlib inline
from lmmap import Explorer, View, explore, make_lookalike
live = explore(Explorer(make_lookalike(clip=True)), View(method="tsne", color="family"));
"""
SIZE = {"width": 1280, "height": 1000}
THEMES = "@jupyterlab/apputils-extension:themes"
TO_THE_MAP = "() => document.querySelector('.lmmap-map').closest('.jp-OutputArea-child').scrollIntoView()"


@click.command(help=__doc__)
@click.option("--run", type=click.Path(path_type=Path), default=ROOT / "runs" / "demo", help="A score set.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=ROOT / "figures", help="Folder.")
def main(run: Path, output: Path) -> None:
    from browser import driver
    from playwright.sync_api import sync_playwright

    if reason := driver.missing():
        raise click.ClickException(reason)
    with (
        TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        driver.lab_server(Path(folder)) as lab,
    ):
        browser = playwright.chromium.launch(executable_path=driver.chromium(), args=driver.FLAGS)
        notebook = driver.Notebook(lab, browser.new_page(viewport=SIZE))
        (lab.root / NOTEBOOK.name).write_text(json.dumps(explored(run, Path(folder))), encoding="utf-8")
        notebook.open_file(NOTEBOOK.name)
        notebook.run()
        notebook.do("live.map.chosen = live.frame.rows[0]")
        shoot(notebook, output / "explorer.png")
        page = browser.new_page(viewport={"width": 1000, "height": 620})
        page.goto((Path(folder) / "explored_map.html").as_uri())
        page.wait_for_function("() => window.lmmap.get('drawn') > 0")
        page.screenshot(path=output / "explored_page.png")
        dark = {"raw": json.dumps({"theme": "JupyterLab Dark"})}
        lab.ask(f"/lab/api/settings/{THEMES}", method="PUT", content=dark)
        notebook = driver.Notebook(lab, browser.new_page(viewport=SIZE))
        notebook.open([LARGE], "large.ipynb")
        notebook.run()
        shoot(notebook, output / "explorer_1018.png")
        browser.close()


def explored(run: Path, folder: Path) -> dict[str, Any]:
    """Give notebook 08 with parameters of its own."""
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    (cell,) = [c for c in content["cells"] if "parameters" in c["metadata"].get("tags", [])]
    given = {"run": str(run.resolve()), "figures": str(folder), "color": "domain"}
    cell["source"] = [*cell["source"], *(f"\n{name} = {value!r}" for name, value in given.items())]
    return content


def shoot(notebook: Any, path: Path) -> None:
    """Take a picture once all is drawn."""
    notebook.wait("live.map.drawn == live.map.frame['seq']")
    notebook.page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    notebook.page.wait_for_timeout(1500)
    notebook.page.evaluate(TO_THE_MAP)
    notebook.page.wait_for_timeout(1000)
    notebook.check()
    notebook.page.screenshot(path=path)
    click.echo(path)


if __name__ == "__main__":
    main()
