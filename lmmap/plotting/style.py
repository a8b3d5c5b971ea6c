"""Style: colours, marks, numbers and texts as every figure here shows them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from lmmap.plotting import fonts

# petroff10 without its two greys: at least 14.5 CAM02-UCS apart for normal, deuteran, protan and tritan eyes.
HUES = [to_hex(mpl.color_sequences["petroff10"][i]) for i in (0, 1, 2, 4, 5, 6, 7, 9)]
MARKS = ["o", "s", "^", "D"]
GREY = "#c4c4c4"
INK = "#404040"

SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # names and sources hold $ and _
    "text.usetex": False,
}

P = ParamSpec("P")
R = TypeVar("R")


def in_house_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the settings of this house, and leave the caller's as they were.

    Parameters
    ----------
    draw : callable
        Whatever it draws keeps the settings.

    Returns
    -------
    callable
        With the same parameters.
    """

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with (
            mpl.rc_context({**SETTINGS, "font.family": fonts.families()}),
            fonts.without_glyph_warnings(),
        ):
            drawn = draw(*args, **kwargs)
            interactive = mpl.is_interactive()
        mpl.interactive(interactive)  # a notebook's first figure turns it on; the context would undo that
        return drawn

    return wrapped


def readable(color: ColorType) -> str:
    """Darken a colour until it can be read as text on white.

    Parameters
    ----------
    color : color
        Anything that matplotlib takes.

    Returns
    -------
    str
        Contrast with white of at least 4.5, as WCAG asks of text.

    Examples
    --------
    >>> readable("black"), readable("yellow")
    ('#000000', '#767600')
    """
    rgb = np.array(to_rgb(color))
    while _contrast_with_white(rgb) < 4.5:
        rgb *= 0.95
    return to_hex(rgb.tolist())


def human(value: float) -> str:
    """Write a number as people do: 135M, 1.5B, 10k, 0.02.

    Parameters
    ----------
    value : float
        Any number.

    Returns
    -------
    str
        Three significant digits.

    Examples
    --------
    >>> [human(v) for v in (135e6, 1.5e9, 143000, 250, 0.02, -3.5)]
    ['135M', '1.5B', '143k', '250', '0.02', '−3.5']
    """
    sizes = {1e12: "T", 1e9: "B", 1e6: "M", 1e3: "k"}
    size = next((size for size in sizes if abs(value) >= size), 1)
    return f"{value / size:.3g}{sizes.get(size, '')}".replace("-", "−")


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round ticks of a logarithmic axis or colour bar.

    Parameters
    ----------
    low, high : float
        Its ends, positive.

    Returns
    -------
    list of float
        Powers of ten; over less than two decades, twice and five times them too; over a narrow span, what a
        linear axis has.

    Examples
    --------
    >>> log_ticks(3, 2000), log_ticks(0.3, 4)
    ([10.0, 100.0, 1000.0], [0.5, 1.0, 2.0])
    """
    steps = (1,) if high >= 100 * low else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else linear_ticks(low, high)


def linear_ticks(low: float, high: float) -> list[float]:
    """Choose a few round ticks.

    Parameters
    ----------
    low, high : float
        Ends of the axis or colour bar.

    Returns
    -------
    list of float
        At most six, evenly spaced.

    Examples
    --------
    >>> linear_ticks(-7, 23)
    [-5.0, 0.0, 5.0, 10.0, 15.0, 20.0]
    """
    return [
        float(tick)
        for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
        if low <= tick <= high
    ]


def shorten(text: str, length: int = 32) -> str:
    """Take the middle out of a long name.

    Parameters
    ----------
    text : str
        A name.
    length : int
        At most so many characters are left.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> shorten("SmolLM2-135M-Instruct", 12)
    'SmolLM…truct'
    """
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    tail = (length - 1) // 2
    return f"{line[: length - 1 - tail]}…{line[len(line) - tail :]}"


def check_glyphs(texts: Iterable[object]) -> None:
    """Warn once if a text holds characters that no font here has.

    Parameters
    ----------
    texts : iterable
        What will be drawn.
    """
    fonts.warn_of_missing_glyphs(map(str, texts))


def _contrast_with_white(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (0.05 + linear @ [0.2126, 0.7152, 0.0722]))
