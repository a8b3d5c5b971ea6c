"""Clicks: from a click in a real JupyterLab until the map has moved, at the size of the published maps.

Run from the root of the repository, with nothing else at work::

    python -m benchmarks.clicks -o benchmarks/clicks.md

A synthetic score set (`lmmap.lookalike`) is opened in the explorer, in a Chromium without a window on the
same machine. Domains of texts are unticked and ticked again; the page itself takes the time from the click
until the animation frame after the one in which the new positions were drawn first.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click

from lmmap.files import whole_file

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

OPEN = """
%matplotlib inline
from lmmap import Explorer, explore, make_lookalike
live = explore(Explorer(make_lookalike({n_models}, {n_texts})));
"""
CLICK = """async (name) => {
  const label = [...document.querySelectorAll('label')].find(l => l.innerText.trim() === name);
  const box = label.querySelector('input');
  const caption = document.querySelector('.lmmap-map .caption'), before = caption.textContent;
  const start = performance.now();
  box.click();
  await new Promise(done => {
    const look = () => caption.textContent === before ? requestAnimationFrame(look)
      : requestAnimationFrame(() => requestAnimationFrame(done));
    look();
  });
  return performance.now() - start; }"""
REST = 2500  # milliseconds between clicks: exact positions and the caption come in them


@click.command(help=__doc__)
@click.option("--models", "n_models", default=1018, show_default=True)
@click.option("--texts", "n_texts", default=10_000, show_default=True)
@click.option("--clicks", "n_clicks", default=12, show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), help="PNG file: the page after the last click.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Markdown file to write.")
def main(n_models: int, n_texts: int, n_clicks: int, picture: Path | None, output: Path | None) -> None:
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
        notebook = driver.Notebook(lab, browser.new_page(viewport={"width": 1400, "height": 1100}))
        notebook.open([OPEN.format(n_models=n_models, n_texts=n_texts)])
        notebook.run()
        notebook.wait("live.map.drawn == live.map.frame['seq']")
        sizes = notebook.value("live.explorer.sources")
        names = [f"{name} ({n:,})" for name, n in sizes.items()][: (n_clicks + 1) // 2]
        notebook.page.wait_for_timeout(REST)
        times = []
        for name in [name for name in names for _ in ("off", "on")][:n_clicks]:
            times.append(float(notebook.page.evaluate(CLICK, name)))
            notebook.page.wait_for_timeout(REST)
        notebook.check()
        version = browser.version
        if picture:
            notebook.page.evaluate("() => document.querySelector('.lmmap-map').scrollIntoView()")
            notebook.page.screenshot(path=picture)
        browser.close()
    text = (
        f"# From a click to the map\n\n{n_models:,} models x {n_texts:,} texts, synthetic; {n_clicks} ticks "
        f"of domains in JupyterLab, Chromium {version}, on {platform.machine()} with {os.cpu_count()} cores "
        "for kernel and browser together. Made by\n\n"
        f"    python -m benchmarks.clicks {' '.join(sys.argv[1:])}\n\n"
        "| median, ms | least | most | all |\n| ---: | ---: | ---: | --- |\n"
        f"| {median(times):.0f} | {min(times):.0f} | {max(times):.0f} | "
        f"{' '.join(f'{t:.0f}' for t in times)} |\n"
    )
    click.echo(text)
    if output:
        with whole_file(output) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
