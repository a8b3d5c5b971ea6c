"""A page: the map of models in one file that opens in any browser, with no server and no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmap.errors import InputError, closest
from lmmap.files import whole_file
from lmmap.widgets.map_table import check_positions, map_table, near_ones

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{script_hash}'; \
style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="lmmap">
<title>{title}</title>
<style>
html, body {{ height: 100%; margin: 0; }}
@media (prefers-color-scheme: dark) {{ html {{ background: #141414; color: #e2e2e2; }} }}
#map {{ height: 100%; min-height: 480px; }}
noscript {{ display: block; padding: 1em; }}
</style>
</head>
<body>
<noscript>This map is drawn by the script in this file: allow it to run. It loads nothing else.</noscript>
<div id="map"></div>
<script type="application/octet-stream" id="data">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""

# A model that holds values and tells who asked when one changes, as that of a widget does.
STAND_IN = """
const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const values = JSON.parse(await new Response(unpacked).text());
const heard = {};
const model = {
  get: (name) => values[name],
  set: (name, value) => {
    values[name] = value;
    for (const hear of heard[`change:${name}`] ?? []) hear();
  },
  save_changes: () => {},
  on: (name, hear) => (heard[name] ??= []).push(hear),
  off: (name, hear) => (heard[name] = (heard[name] ?? []).filter((one) => one !== hear)),
};
mountMap(document.getElementById("map"), model);
window.lmmap = model;
"""


def write_page(
    path: str | Path,
    models: pd.DataFrame,
    coordinates: np.ndarray,
    *,
    color: str | None = None,
    caption: str = "",
    title: str = "",
    neighbors: np.ndarray | None = None,
    max_groups: int = 32,
) -> Path:
    """Write a map of models as one HTML file to hand out: hover, search, lasso, and nothing to install.

    Parameters
    ----------
    path : str or Path
        The file, ``.html``; its folder is made.
    models : DataFrame
        K rows; the index holds their ids, ``model`` the shown names, every other column is an attribute.
    coordinates : (K, 2) float array
        Positions.
    color : str, optional
        Attribute shown by colour first; the reader can choose another.
    caption : str
        Text below.
    title : str
        Text above, and of the browser's tab.
    neighbors : (K, K) float array, optional
        KL of every pair, nats per text: the ten nearest models are listed where a model is hovered.
    max_groups : int
        How many groups of an attribute get a colour of their own, at most 32.

    Returns
    -------
    Path
        The file: about 180 kB for 1,018 models with six attributes and neighbours. Nothing in it asks for
        the network, and the browser is told to allow none.

    Raises
    ------
    InputError
        If the suffix is another, ids repeat, ``color`` is unknown, a position cannot be drawn, or
        ``neighbors`` does not fit.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> models = pd.DataFrame({"family": ["a", "a", "b"]}, index=["x", "y", "z"])
    >>> written = write_page(Path(mkdtemp()) / "map.html", models, np.array([[0, 0], [1, 0], [0, 2.0]]))
    >>> written.read_text(encoding="utf-8")[:15]
    '<!DOCTYPE html>'
    """
    path = Path(path)
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"a page is written as .html, not as {path.name!r}")
    table: dict[str, Any] = map_table(models, max_groups=max_groups)
    if color and color not in table["columns"]:
        raise InputError(f"no attribute {color!r} on this map{closest(color, table['columns'])}")
    positions = check_positions(coordinates, len(models))
    if neighbors is not None:
        table["neighbors"] = near_ones(neighbors, len(models))
    frame = {
        "seq": 1,
        "index": list(range(len(models))),
        "xy": [float(f"{value:.7g}") for value in positions.ravel()],
        "caption": caption,
        "title": title,
    }
    values = {"table": table, "frame": frame, "color": color or ""}
    script = Path(__file__).with_name("map.js").read_text(encoding="utf-8") + STAND_IN
    page = PAGE.format(
        title=html.escape(title or "Map of models"),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        data=_packed(values),
        script=script,
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return path


def _packed(values: dict[str, Any]) -> str:
    """Compressed JSON as letters: no name can end the script it stands in."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
