"""What a notebook shows in one line: a finished map to hover, or the whole explorer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lmmap.explorer.frames import Explorer, Frame
from lmmap.explorer.opening import open_explorer
from lmmap.explorer.views import View, read_view
from lmmap.modelmap import ModelMap
from lmmap.store import MEASURED, Store
from lmmap.widgets.explorer import LiveExplorer
from lmmap.widgets.map_widget import MapWidget, map_widget, with_picture


def show_map(
    model_map: ModelMap,
    *,
    color: str | None = None,
    figure: Any = None,  # noqa: ANN401 - matplotlib
) -> MapWidget:
    """Show a map that one can hover, search and lasso; a picture where it cannot be shown.

    Parameters
    ----------
    model_map : ModelMap
        K models.
    color : str, optional
        Attribute that colours them first; the reader can choose another.
    figure : matplotlib Figure, optional
        The picture; by default `lmmap.plotting.plot_map` of the map.

    Returns
    -------
    MapWidget
        ``selected`` holds the ids of the models that a reader has selected.

    Raises
    ------
    InputError
        If ``color`` is unknown.
    """
    from lmmap.plotting import plot_map
    from lmmap.plotting.attributes import MAX_GROUPS

    models = model_map.models.assign(**{"mean log-likelihood": model_map.height})
    drawn = map_widget(models, model_map.coordinates, color=color, caption=model_map.caption())
    if figure is None:
        figure = plot_map(model_map, color=color, max_groups=MAX_GROUPS).figure
    with_picture(drawn, figure)
    return drawn


def explore(
    run: Store | str | Path | Explorer,
    view: View | str | Path | None = None,
    *,
    store: Store | None = None,
    figure: Any = None,  # noqa: ANN401 - matplotlib
) -> LiveExplorer:
    """Show the explorer of a score set, and a picture where it cannot be shown.

    Parameters
    ----------
    run : Store, folder, or Explorer
        A score set.
    view : View, or file, optional
        What to look at first; a file as "Save view" writes it. Without a colour, the first attribute
        that puts models into groups is shown.
    store : Store, optional
        Where an explorer that is given has its token records, which mark a text for two models.
    figure : matplotlib Figure, optional
        The picture; by default `lmmap.plotting.plot_map` of the view.

    Returns
    -------
    LiveExplorer
        ``selected`` and ``view`` hold what a reader has chosen so far, ``frame`` what is drawn.

    Raises
    ------
    InputError
        If there is no score set, the view does not fit it, or there is nothing to draw.
    """
    view = read_view(view) if isinstance(view, str | Path) else view or View()
    if not isinstance(run, Explorer):
        store = run if isinstance(run, Store) else Store(run)
        run = open_explorer(store, clip=view.clip)
    live = LiveExplorer(run, replace(view, color=view.color or _grouping(run)), store=store)
    with_picture(live.box, _picture(live.frame) if figure is None else figure)
    return live


def _picture(frame: Frame) -> Any:  # noqa: ANN401
    from lmmap.plotting import plot_map
    from lmmap.plotting.attributes import MAX_GROUPS

    return plot_map(frame.map, color=frame.view.color or None, max_groups=MAX_GROUPS).figure


def _grouping(explorer: Explorer) -> str:
    """Name the first attribute that puts models into groups; empty if there is none."""
    table = explorer.scores.models
    few = max(2, len(table) // 3)
    groups = (
        name
        for name in explorer.attributes
        if name not in MEASURED and table[name].dtype.kind not in "iuf" and table[name].nunique() <= few
    )
    return next(groups, "")
