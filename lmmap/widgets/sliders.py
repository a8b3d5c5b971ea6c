"""Sliders: a picture drawn again when a value is moved; where nobody can move it, the picture alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lmmap.errors import InputError


def with_sliders(draw: Callable[..., Any], **values: tuple[float, float, float]) -> None:
    """Show what a function draws, with a slider for each of its values.

    The picture is an output like any other, below the sliders: it stays in the saved notebook. Run by
    papermill or nbconvert, where nobody can move a slider, a notebook shows the picture for the first values
    and no slider.

    Parameters
    ----------
    draw : callable
        ``draw(**values)`` gives a figure, or anything else that a notebook can show.
    **values : tuple of three numbers
        Name -> first, lowest and highest value. Three whole numbers make a slider of whole numbers.

    Raises
    ------
    InputError
        If a value is not three numbers, or does not start between the lowest and the highest.
    """
    from IPython.display import display

    for name, given in values.items():
        if len(given) != 3:
            raise InputError(f"{name} needs its first, lowest and highest value, got {given}")
        first, low, high = given
        if not low <= first <= high:
            raise InputError(f"{name} starts at {first}; it must lie between {low} and {high}")
    picture = _drawn(draw, {name: first for name, (first, _, _) in values.items()})
    if not somebody_is_there():
        display(picture)  # type: ignore[no-untyped-call]
        return
    import ipywidgets

    sliders = {name: _slider(name, *given) for name, given in values.items()}
    display(ipywidgets.VBox(list(sliders.values())))  # type: ignore[no-untyped-call]
    shown = display(picture, display_id=True)  # type: ignore[no-untyped-call]

    def redraw(_: object) -> None:
        shown.update(_drawn(draw, {name: slider.value for name, slider in sliders.items()}))

    for slider in sliders.values():
        slider.observe(redraw, names="value")


def somebody_is_there() -> bool:
    """Tell whether who runs this cell can be asked something: a front end can, papermill cannot."""
    from IPython import get_ipython

    shell: Any = get_ipython()
    return hasattr(shell, "kernel") and bool(shell.get_parent()["content"].get("allow_stdin"))


def _drawn(draw: Callable[..., Any], now: dict[str, float]) -> Any:  # noqa: ANN401 - whatever it draws
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    picture = draw(**now)
    if isinstance(picture, Figure):
        plt.close(picture)  # or the notebook shows it once more when the cell ends
    return picture


def _slider(name: str, first: float, low: float, high: float) -> Any:  # noqa: ANN401 - ipywidgets has no types
    import ipywidgets

    words: dict[str, Any] = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
    words["layout"] = {"width": "420px"}
    if all(isinstance(value, int) for value in (first, low, high)):
        return ipywidgets.IntSlider(first, low, high, **words)
    step = 10.0 ** math.floor(math.log10((high - low) / 50)) if high > low else 1.0  # a round one
    return ipywidgets.FloatSlider(first, min=low, max=high, step=step, readout_format=".3g", **words)
