"""Figure files: SVG and PNG, whole or not at all, the same bytes for the same figure."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from lmmap.errors import InputError
from lmmap.files import whole_file
from lmmap.plotting.fonts import without_glyph_warnings

DPI = {".svg": 150, ".png": 200}  # in an SVG, of matrices and of very many points only


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure as SVG and as PNG (200 dpi).

    Parameters
    ----------
    figure : Figure
        What to write.
    path : str or Path
        Without suffix, both files are written; with ``.svg`` or ``.png``, that one. The folder is made.

    Returns
    -------
    list of Path
        The files written. Nothing depends on the time, and a file is never half there.

    Raises
    ------
    InputError
        If the suffix is that of another kind of figure.
    """
    path = Path(path)
    named = path.suffix in DPI
    if not named and path.suffix[1:] in figure.canvas.get_supported_filetypes():
        raise InputError(f"figures are written as .svg or .png, not as {path.suffix}: {path}")
    targets = [path] if named else [path.with_name(path.name + suffix) for suffix in DPI]
    for target in targets:
        with (
            whole_file(target) as temporary,
            mpl.rc_context({"svg.hashsalt": "lmmap"}),
            without_glyph_warnings(),
        ):
            kind = target.suffix[1:]
            figure.savefig(
                temporary,
                format=kind,
                dpi=DPI[target.suffix],
                bbox_inches="tight",
                facecolor="white",
                metadata={"Date": None} if kind == "svg" else None,
            )
    return targets
