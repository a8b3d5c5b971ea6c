"""Fonts: DejaVu Sans, and behind it whatever is installed that has Chinese and Japanese characters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from matplotlib import font_manager, ft2font

# Packages that carry a font file; importing the second would change matplotlib's settings.
WHEELS = {
    "noto_cjk_sans_jp_regular": "NotoSansCJKjp-Regular.otf",
    "matplotlib_fontja": "fonts/ipaexg.ttf",
}
# The fonts of those packages first, then those of Linux distributions, macOS and Windows.
CJK_FAMILIES = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Source Han Sans JP",
    "Source Han Sans SC",
    "IPAexGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "MS Gothic",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)
ADVICE = (
    "some labels hold characters that no font here has ({}): for Chinese and Japanese,"
    " pip install noto-cjk-sans-jp-regular (13.6 MB), or install a system font such as fonts-noto-cjk"
)

_warned: list[str] = []


@cache
def families() -> list[str]:
    """List the font families to try for every character, in this order.

    Returns
    -------
    list of str
        DejaVu Sans, which matplotlib brings, then the installed ones of `CJK_FAMILIES`.
    """
    for package, file in WHEELS.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            font_manager.fontManager.addfont(Path(spec.origin).parent / file)
    installed = set(font_manager.fontManager.get_font_names())
    return ["DejaVu Sans", *(family for family in CJK_FAMILIES if family in installed)]


def warn_of_missing_glyphs(texts: Iterable[str]) -> None:
    """Warn, once per process, of characters that would be drawn as empty boxes.

    Parameters
    ----------
    texts : iterable of str
        Labels about to be drawn.
    """
    characters = {c for text in texts for c in text if not c.isascii() and c.isprintable()}
    missing = sorted(characters - _drawable()) if characters else []
    if missing and not _warned:
        _warned.append("".join(missing))
        warnings.warn(ADVICE.format(" ".join(missing[:5])), UserWarning, stacklevel=3)


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Silence matplotlib's warning for every single missing character: one has been given for all.

    Yields
    ------
    None
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@cache
def _drawable() -> frozenset[str]:
    """Every character that one of the families has."""
    paths = [font_manager.findfont(family) for family in families()]
    return frozenset(chr(code) for path in paths for code in ft2font.FT2Font(path).get_charmap())
