"""What became of a grid of runs: one table (CSV) and one page (HTML) that needs no network."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lmmap.files import whole_file
from lmmap.notebooks import source

PICTURES = ("image/svg+xml", "image/png", "image/jpeg")  # the first that an output has is shown
STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222}
main {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(28rem, 100%), 1fr)); gap: 0 2rem}
h2 {font-size: 1.1rem}
table {border-collapse: collapse; display: block; overflow-x: auto}
th, td {padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top}
td.number {text-align: right; font-variant-numeric: tabular-nums}
tr.failed td, p.failed {color: #a40000}
img {max-width: 100%; display: block; margin-bottom: 1rem}
"""


@dataclass(frozen=True)
class GridRun:
    """One combination of a grid: what it was given and what became of it."""

    varied: dict[str, object]
    fixed: dict[str, object]  # every other parameter of the notebook
    output: Path | None  # the executed notebook, or how far it came; None if its process left nothing
    seconds: float | None = None  # None if it failed
    results: dict[str, object] = field(default_factory=dict)
    kept: bool = False  # it was done already and did not run again
    error: str = ""

    @property
    def status(self) -> str:
        """``done`` or ``failed``."""
        return "failed" if self.error else "done"

    @property
    def title(self) -> str:
        """What was varied, e.g. ``seed = 0, method = 'pca'``."""
        return _assignments(self.varied)


def write_summary(runs: Sequence[GridRun], path: Path) -> None:
    """Write the table: a row a run; its parameters, status, seconds, output, results and error.

    Parameters
    ----------
    runs : sequence of GridRun
        The runs of one grid.
    path : Path
        The CSV file, beside the executed notebooks. A name that is both a parameter and a result, or one of
        the other columns, becomes ``parameter_NAME``, ``result_NAME``, ``run_NAME``.
    """
    rows = [
        {
            **{("parameter", name): value for name, value in (run.varied | run.fixed).items()},
            ("run", "status"): run.status,
            ("run", "seconds"): run.seconds,
            ("run", "output"): run.output.name if run.output else "",
            **{("result", name): value for name, value in run.results.items()},
            ("run", "error"): run.error,
        }
        for run in runs
    ]
    columns = _merged(rows)
    taken = Counter(name for _, name in columns)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([name if taken[name] == 1 else f"{group}_{name}" for group, name in columns])
    writer.writerows([row.get(column) for column in columns] for row in rows)
    with whole_file(path) as temporary:
        temporary.write_text(table.getvalue(), encoding="utf-8")


def write_page(notebook: Path, runs: Sequence[GridRun], path: Path) -> None:
    """Write the page: the table, then every run's pictures, all in one file.

    Parameters
    ----------
    notebook : Path
        The source.
    runs : sequence of GridRun
        The runs of one grid.
    path : Path
        The HTML file, beside the executed notebooks, to which it links.
    """
    failed = sum(run.status == "failed" for run in runs)
    results = _merged([run.results for run in runs])
    columns = ["", *runs[0].varied, "status", "seconds", *results, "notebook"]
    body = [
        f"<h1>{escape(notebook.stem)}</h1>",
        f"<p>{len(runs)} runs, {len(runs) - failed} done, {failed} failed.</p>",
        f"<p>The same in all: {escape(_assignments(runs[0].fixed))}.</p>" if runs[0].fixed else "",
        "<table><thead><tr>",
        *(f"<th>{escape(name)}</th>" for name in columns),
        "</tr></thead><tbody>",
        *(_row(number, run, results) for number, run in enumerate(runs, start=1)),
        "</tbody></table>",
        "<main>",
        *(_section(number, run) for number, run in enumerate(runs, start=1)),
        "</main>",
    ]
    title = f"<title>{escape(notebook.stem)}: {len(runs)} runs</title>"
    head = f'<head><meta charset="utf-8">{title}<style>{STYLE}</style></head>'
    lines = ["<!doctype html>", '<html lang="en">', head, "<body>", *filter(None, body), "</body></html>", ""]
    with whole_file(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def _merged(rows: Iterable[dict[Any, object]]) -> list[Any]:
    """Keys of all rows in the order in which they come, each once."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _assignments(values: dict[str, object]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items())


def _row(number: int, run: GridRun, results: list[str]) -> str:
    found = [run.results.get(name, "") for name in results]
    cells = [*run.varied.values(), run.status, "" if run.seconds is None else round(run.seconds, 1), *found]
    link = f'<a href="{quote(run.output.name)}">{escape(run.output.name)}</a>' if run.output else ""
    return (
        f'<tr class="{run.status}"><td><a href="#run-{number}">{number}</a></td>'
        f"{''.join(map(_cell, cells))}<td>{link}</td></tr>"
    )


def _cell(value: object) -> str:
    shown = f"{value:.6g}" if isinstance(value, float) else escape(str(value))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f'<td class="number">{shown}</td>' if number else f"<td>{shown}</td>"


def _section(number: int, run: GridRun) -> str:
    """One run with its pictures."""
    error = f'<p class="failed">{escape(run.error)}</p>' if run.error else ""
    pictures = (
        f'<img src="{picture}" alt="{escape(run.title)}, picture {count}">'
        for count, picture in enumerate(_pictures(run.output) if run.output else [], start=1)
    )
    title = f"<h2>{number}. {escape(run.title)}</h2>"
    return f'<section id="run-{number}">{title}{error}{"".join(pictures)}</section>'


def _pictures(notebook: Path) -> list[str]:
    """Every picture among the outputs of an executed notebook, as a data URI."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    best = [(next((mime for mime in PICTURES if mime in data), ""), data) for data in shown]
    return [_data_uri(mime, source.text(data[mime])) for mime, data in best if mime]


def _data_uri(mime: str, content: str) -> str:
    """Inline a picture: SVG is stored as its text, the others as base64 with line ends."""
    if mime == "image/svg+xml":
        content = base64.b64encode(content.encode()).decode()
    return f"data:{mime};base64,{''.join(content.split())}"
