"""A finished map to hover: the picture's points, answering to the mouse and to the keyboard."""

from __future__ import annotations

from typing import Any

from lmmap.modelmap import ModelMap
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
