"""Two models picked from a score set, and their pair under the microscope."""

from __future__ import annotations

from typing import Any

from lmmap.store import Store
from lmmap.widgets.sliders import somebody_is_there


def pick_pair(store: Store, first: str, second: str, **exact: Any) -> None:  # noqa: ANN401 - as look_at_pair
    """Show a pair of models, and choose another.

    Run by papermill or nbconvert, a notebook shows the first pair alone.

    Parameters
    ----------
    store : Store
        A score set.
    first, second : str
        Names or row ids to begin with.
    **exact
        ``on_texts``, ``on_samples`` and ``enumerated`` of `lmmap.microscope.look_at_pair`: shown for the
        pairs that they hold.

    Raises
    ------
    InputError
        As `lmmap.microscope.look_at_pair`.
    """
    import ipywidgets
    from IPython.display import display

    scores = store.load()
    page = _page(store, scores, first, second, exact)
    if not somebody_is_there():
        for part in page:
            display(part)  # type: ignore[no-untyped-call]
        return
    names = [(str(name), row) for row, name in scores.models["model"].items()]
    rows = [scores.select(models=[model]).models.index[0] for model in (first, second)]
    boxes = [ipywidgets.Dropdown(options=names, value=row, layout={"width": "320px"}) for row in rows]
    display(ipywidgets.HBox(boxes))  # type: ignore[no-untyped-call]
    shown = [display(part, display_id=True) for part in page]  # type: ignore[no-untyped-call]

    def show(_: object) -> None:
        chosen = [box.value for box in boxes]
        if chosen[0] != chosen[1]:
            for place, part in zip(shown, _page(store, scores, chosen[0], chosen[1], exact), strict=True):
                place.update(part)

    for box in boxes:
        box.observe(show, names="value")


def _page(store: Store, scores: Any, first: str, second: str, exact: dict[str, Any]) -> list[Any]:  # noqa: ANN401
    from matplotlib import pyplot as plt

    from lmmap.microscope import look_at_pair
    from lmmap.plotting import plot_pair
    from lmmap.token_records import read_segments

    rows = scores.select(models=[first, second]).models.index
    segments = read_segments(store, models=[first, second]) if store.has_tokens(rows) else None
    names = scores.select(models=[first, second]).models["model"]
    known = {key: value for key, value in exact.items() if _holds(value, names)}
    pair = look_at_pair(scores, first, second, texts=store.texts.texts, segments=segments, **known)
    figure = plot_pair(pair)
    plt.close(figure)  # or the notebook shows it once more when the cell ends
    return [figure, pair.texts, pair.tokens]


def _holds(measured: Any, names: Any) -> bool:  # noqa: ANN401
    """Tell whether exact values are of these models."""
    one = measured[0] if isinstance(measured, list | tuple) else measured
    return set(names) <= set(one.models)
