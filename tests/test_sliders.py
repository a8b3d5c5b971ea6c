"""A slider redraws the picture where somebody can move it, and is not there where nobody can."""

from __future__ import annotations

import types
from typing import Any

import IPython
import ipywidgets
import pytest
from matplotlib import pyplot as plt

from lmmap import InputError, with_sliders

plt.switch_backend("Agg")  # now: the first figure would ask the shell, which tests replace


class Notebook:
    """What a cell displays, with or without a front end that can be asked something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, front_end: bool) -> None:
        self.displayed: list[Any] = []
        self.updated: list[Any] = []
        shell = types.SimpleNamespace(kernel=None, get_parent=lambda: {"content": {"allow_stdin": front_end}})
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
        monkeypatch.setattr(IPython.display, "display", self.display)

    def display(self, what: Any, display_id: bool = False) -> Any:
        self.displayed.append(what)
        return types.SimpleNamespace(update=self.updated.append) if display_id else None


def product(a: float, b: float) -> float:
    return a * b


def test_where_a_slider_can_be_moved_the_picture_follows_all_of_them(monkeypatch):
    notebook = Notebook(monkeypatch, front_end=True)
    with_sliders(product, a=(2, 0, 10), b=(0.5, 0.0, 1.0))
    box, picture = notebook.displayed
    assert picture == 1.0
    assert [type(slider) for slider in box.children] == [ipywidgets.IntSlider, ipywidgets.FloatSlider]
    assert [(slider.value, slider.min, slider.max) for slider in box.children] == [(2, 0, 10), (0.5, 0, 1)]
    box.children[0].value = 6
    box.children[1].value = 0.25
    assert notebook.updated == [3.0, 1.5]


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0.01, 0.99, 0.01), (1.0, 10.0, 0.1), (-20.0, 20.0, 0.1), (0.5, 0.5, 1)]
)
def test_a_slider_moves_by_a_round_step(monkeypatch, low, high, step):
    notebook = Notebook(monkeypatch, front_end=True)
    with_sliders(product, a=(low, low, high), b=(1, 0, 2))
    assert notebook.displayed[0].children[0].step == pytest.approx(step)


def test_where_nobody_can_move_a_slider_there_is_the_first_picture_alone(monkeypatch):
    notebook = Notebook(monkeypatch, front_end=False)
    with_sliders(product, a=(2, 0, 10), b=(0.5, 0.0, 1.0))
    assert notebook.displayed == [1.0]


def test_outside_a_notebook_the_picture_is_all(monkeypatch):
    notebook = Notebook(monkeypatch, front_end=True)
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    with_sliders(product, a=(2, 0, 10), b=(3, 0, 10))
    assert notebook.displayed == [6]


@pytest.mark.parametrize("front_end", [True, False])
def test_a_figure_is_shown_once_and_closed(monkeypatch, front_end):
    figure = plt.figure()
    notebook = Notebook(monkeypatch, front_end=front_end)
    with_sliders(lambda a: figure, a=(1, 0, 2))
    assert notebook.displayed[-1] is figure
    assert figure.number not in plt.get_fignums()


def test_a_slider_that_starts_outside_its_range_is_refused_with_both(monkeypatch):
    notebook = Notebook(monkeypatch, front_end=True)
    with pytest.raises(InputError, match="a starts at 11; it must lie between 0 and 10"):
        with_sliders(product, a=(11, 0, 10), b=(1, 0, 2))
    with pytest.raises(InputError, match=r"a starts at nan"):
        with_sliders(product, a=(float("nan"), 0, 10), b=(1, 0, 2))
    with pytest.raises(InputError, match=r"a needs its first, lowest and highest value, got \(1, 2\)"):
        with_sliders(product, a=(1, 2), b=(1, 0, 2))
    assert notebook.displayed == []
