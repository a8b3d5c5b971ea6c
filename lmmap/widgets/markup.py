"""Markup: tables, sentences, numbers and pictures in the form in which panels show them."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png_of(figure: Figure) -> bytes:
    """Draw a figure and close it."""
    from matplotlib import pyplot as plt

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return drawn.getvalue()


def table_of(shown: pd.DataFrame) -> str:
    """Write a table as HTML; cells are escaped, numbers stand to the right."""
    sides = ["right" if shown[name].map(_is_number).all() else "left" for name in shown]
    head = "".join(_cell("th", name, side) for name, side in zip(shown, sides, strict=True))
    rows = "".join(
        f"<tr>{''.join(_cell('td', value, side) for value, side in zip(row, sides, strict=True))}</tr>"
        for row in shown.itertuples(index=False, name=None)
    )
    return f"<table style='border-collapse:collapse;line-height:1.5'><tr>{head}</tr>{rows}</table>"


def _cell(tag: str, value: object, side: str) -> str:
    return f"<{tag} style='padding:0 14px 0 0;text-align:{side}' dir='auto'>{escape(str(value))}</{tag}>"


def _is_number(value: object) -> bool:
    return re.match(r"[-+−]?\d|–$|not known$", str(value)) is not None


def sentence(text: str) -> str:
    """Write a sentence as HTML, escaped."""
    return f"<p>{escape(text)}</p>"


def number(value: float) -> str:
    """Write a number in three digits, a dash for none."""
    if not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def with_error(value: float, error: float) -> str:
    """Write a number with its standard error."""
    return "–" if not np.isfinite(value) else f"{number(value)} ± {error:.1g}"
