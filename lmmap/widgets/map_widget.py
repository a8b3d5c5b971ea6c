"""The map as a widget: models one can hover, search, lasso and colour, in every front end of Jupyter."""

from __future__ import annotations

import base64
import html
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets

from lmmap.errors import InputError, closest
from lmmap.widgets.map_table import check_positions, map_table
from lmmap.widgets.markup import png_of

UNTRUSTED = "An interactive map: trust this notebook to see it, or run this cell."


class MapWidget(anywidget.AnyWidget):
    """A map of models that lives in a browser; `map_widget` makes one.

    Attributes
    ----------
    table : dict
        All K models, as `lmmap.widgets.map_table.map_table` describes them; sent once.
    frame : dict
        What is drawn: ``seq``, which goes up, ``index`` (int32, the rows shown), ``xy`` (float32, a pair for
        each of them), ``caption`` and ``title``. A browser drops a frame older than the one it shows.
    drawn : int
        ``seq`` of the last frame whose pixels a browser has put on the screen.
    selected : list of str
        Ids of the selected models.
    chosen : str
        Id of the model last clicked, or gone to by keyboard; empty for none.
    color, shape : str
        Attribute shown by colour, and by mark; empty for none.
    groups : list of str
        Groups of ``color`` that the legend lets through, an empty text standing for the grey rest; none
        lets all through. Others cannot be hovered or selected.
    query : str
        What is typed in the search box.
    lasso : list of [x, y]
        The last polygon drawn by hand, in the units of the positions. It selects the models inside by the
        even-odd rule.
    message : str
        A sentence for the reader, over the map; empty for none.
    asked, heard : int
        Number of the last change that a browser has told, and of the last that the kernel has heard: a reader
        is told when the kernel does not answer.
    picture : str
        Mark of a static picture that is hidden while the widget is there: `with_picture`.
    """

    _esm = Path(__file__).with_name("map.js")

    table = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    drawn = traitlets.Int().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Unicode().tag(sync=True)
    color = traitlets.Unicode().tag(sync=True)
    shape = traitlets.Unicode().tag(sync=True)
    groups = traitlets.List(traitlets.Unicode()).tag(sync=True)
    query = traitlets.Unicode().tag(sync=True)
    lasso = traitlets.List(traitlets.Any()).tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    asked = traitlets.Int().tag(sync=True)
    heard = traitlets.Int().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)

    def show(
        self, rows: Sequence[str], coordinates: np.ndarray, *, caption: str = "", title: str = ""
    ) -> None:
        """Draw some models at new positions; those already there move.

        Parameters
        ----------
        rows : sequence of str
            Ids of the k models shown.
        coordinates : (k, 2) float array
            Their positions; both axes have one scale.
        caption : str
            Text below.
        title : str
            Text above.

        Raises
        ------
        InputError
            If an id is unknown or given twice, or a position cannot be drawn. What was drawn remains.
        """
        place = {row: k for k, row in enumerate(self.table["ids"])}
        _check_known("model id", rows, place)
        if len(set(rows)) < len(rows):
            raise InputError(f"a map shows a model once, got {len(rows) - len(set(rows))} ids twice")
        positions = check_positions(coordinates, len(rows))
        index = np.array([place[row] for row in rows], dtype="<i4")
        with self.hold_sync():
            self.frame = {
                "seq": self.frame.get("seq", 0) + 1,
                "index": index.tobytes(),
                "xy": positions.tobytes(),
                "caption": caption,
                "title": title,
            }
            self.message = ""

    @traitlets.observe("asked")
    def _answer(self, change: Any) -> None:  # noqa: ANN401 - traitlets has no type for it
        self.heard = change["new"]

    @traitlets.validate("selected")
    def _selected_is_known(self, proposal: Any) -> list[str]:  # noqa: ANN401 - traitlets has no type for it
        _check_known("model id", proposal["value"], self.table.get("ids", ()))
        return list(proposal["value"])

    @traitlets.validate("chosen")
    def _chosen_is_known(self, proposal: Any) -> str:  # noqa: ANN401
        return _known_or_none("model id", proposal["value"], self.table.get("ids", ()))

    @traitlets.validate("color", "shape")
    def _attribute_is_known(self, proposal: Any) -> str:  # noqa: ANN401
        name, columns = proposal["value"], self.table.get("columns", {})
        _known_or_none("attribute", name, columns)
        if name and proposal["trait"].name == "shape" and columns[name]["kind"] != "group":
            raise InputError(f"shape must be an attribute of groups; {name!r} holds numbers or dates")
        return str(name)

    @traitlets.observe("color")
    def _groups_are_of_the_color(self, _: object) -> None:
        self.groups = []

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:  # noqa: ANN401
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        return {**bundle[0], "text/plain": UNTRUSTED}, bundle[1]


def map_widget(
    models: pd.DataFrame,
    coordinates: np.ndarray,
    *,
    color: str | None = None,
    shape: str | None = None,
    caption: str = "",
    title: str = "",
    max_groups: int = 32,
) -> MapWidget:
    """Make a map of models that one can hover, search and lasso.

    Parameters
    ----------
    models : DataFrame
        K rows; the index holds their ids, ``model`` the shown names; every column is shown when a model is
        hovered, and can be its colour.
    coordinates : (K, 2) float array
        Positions, such as ``model_map.coordinates``.
    color, shape : str, optional
        Attribute shown by colour, and by mark.
    caption : str
        Text below, such as ``model_map.caption()``.
    title : str
        Text above.
    max_groups : int
        How many groups of an attribute get a colour of their own, at most 32.

    Returns
    -------
    MapWidget
        ``selected`` holds the ids of the selected models, and ``observe`` tells when it changes.

    Raises
    ------
    InputError
        If ids repeat, an attribute is unknown, or a position cannot be drawn.

    Examples
    --------
    >>> models = pd.DataFrame({"family": ["a", "a", "b"]}, index=["x", "y", "z"])
    >>> drawn = map_widget(models, np.array([[0, 0], [1, 0], [0, 2.0]]), color="family")
    >>> drawn.selected = ["x", "z"]
    >>> drawn.color, drawn.frame["seq"], drawn.selected
    ('family', 1, ['x', 'z'])
    """
    table = map_table(models, max_groups=max_groups)
    check_positions(coordinates, len(models))
    widget = MapWidget(table=table, color=color or "", shape=shape or "")
    widget.show(table["ids"], coordinates, caption=caption, title=title)
    return widget


def with_picture(widget: Any, figure: Any, *, alt: str = "The map of models, as a picture") -> None:  # noqa: ANN401
    """Display a widget, and a picture in its place where no widget can be: in an untrusted or converted copy.

    Parameters
    ----------
    widget : MapWidget or box
        A map, or a box of widgets that holds one. Where it runs, the picture is hidden.
    figure : matplotlib Figure
        What is seen elsewhere. It is closed, or a notebook would show it once more.
    alt : str
        What the picture is called for those who do not see it.

    Raises
    ------
    InputError
        If the box holds no map.
    """
    from IPython.display import HTML, display

    found = _map_inside(widget)
    if found is None:
        raise InputError(f"a {type(widget).__name__} without a map in it: give a MapWidget or its box")
    found.picture = f"lmmap-picture-{uuid.uuid4().hex}"
    data = base64.b64encode(png_of(figure)).decode()
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" style="max-width: 100%">'
    display(HTML(f'<div id="{found.picture}">{image}</div>'))  # type: ignore[no-untyped-call]
    bundle = widget._repr_mimebundle_()
    view, about = bundle if isinstance(bundle, tuple) else (bundle, {})
    display({**view, "text/plain": UNTRUSTED}, metadata=about, raw=True)  # type: ignore[no-untyped-call]


def _map_inside(widget: Any) -> MapWidget | None:  # noqa: ANN401
    if isinstance(widget, MapWidget):
        return widget
    found = (_map_inside(child) for child in getattr(widget, "children", ()))
    return next((inside for inside in found if inside is not None), None)


def _known_or_none(what: str, given: str, known: Any) -> str:  # noqa: ANN401 - anything that has members
    if given:
        _check_known(what, [given], known)
    return given


def _check_known(what: str, given: Sequence[str], known: Any) -> None:  # noqa: ANN401
    there = set(known)
    unknown = [one for one in given if one not in there]
    if unknown:
        raise InputError(f"no {what} {unknown[0]!r} on this map{closest(str(unknown[0]), known)}")
