"""The types a parameter can have, read from its annotation, and values made to fit them."""

from __future__ import annotations

import ast
import math
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral, Real
from types import EllipsisType

SYNTAX = "int, float, bool, str, None, list[X], tuple[X, ...], dict[X, Y] and X | Y"


@dataclass(frozen=True)
class Kind:
    """One type: a scalar's name, a container with the kinds of its items, or a choice (``either``)."""

    name: str
    items: tuple[Kind, ...] = ()
    repeats: bool = False  # a tuple of any length, all of one kind


ANYTHING = Kind("anything")
BARE = {
    **{name: Kind(name) for name in ("int", "float", "bool", "str")},
    "list": Kind("list", (ANYTHING,)),
    "tuple": Kind("tuple", (ANYTHING,), repeats=True),
    "dict": Kind("dict", (ANYTHING, ANYTHING)),
}


def kind_of_annotation(annotation: str) -> Kind:
    """Read an annotation.

    Parameters
    ----------
    annotation : str
        Python source, e.g. ``"int | None"``.

    Returns
    -------
    Kind
        What it stands for.

    Raises
    ------
    ValueError
        If it uses more than builtin scalars and containers.

    Examples
    --------
    >>> kind_of_annotation("list[int]")
    Kind(name='list', items=(Kind(name='int', items=(), repeats=False),), repeats=False)
    """
    return _read(ast.parse(annotation, mode="eval").body)


def kind_of_value(value: object) -> Kind:
    """Find the kind of a plain value, e.g. of a default that has no annotation.

    Parameters
    ----------
    value : object
        A parameter's value.

    Returns
    -------
    Kind
        Its kind; anything goes inside a container.

    Raises
    ------
    ValueError
        If it is not made of None, bool, int, float, str, list, tuple and dict.

    Examples
    --------
    >>> kind_of_value(True).name, kind_of_value(1).name, kind_of_value([1]).items[0].name
    ('bool', 'int', 'anything')
    """
    if value is None:
        return Kind("None")
    options = [Kind("bool"), *BARE.values()]  # bool first: Python counts True as an int
    for option in options:
        with suppress(ValueError):
            fit(value, option)
            return option
    raise ValueError(f"{value!r} is not a plain value")


def fit(value: object, kind: Kind) -> object:
    """Return a value as its kind has it: plain Python, an int where a float is wanted made one.

    Parameters
    ----------
    value : object
        What was given; numbers of numpy count as numbers.
    kind : Kind
        What is wanted.

    Returns
    -------
    object
        The value, made of builtin types only, so that its ``repr`` is its source.

    Raises
    ------
    ValueError
        If it does not fit; numbers that are not finite never do.

    Examples
    --------
    >>> fit(1, Kind("float")), fit([1, 2.5], kind_of_annotation("list[int | float]"))
    (1.0, [1, 2.5])
    >>> fit(True, Kind("int"))
    Traceback (most recent call last):
    ValueError: True is not of kind int
    """
    number = not isinstance(value, bool)
    match kind.name, value:
        case "anything", _:
            return fit(value, kind_of_value(value))
        case "None", None:
            return None
        case "bool", bool():
            return value
        case "int", Integral() if number:
            return int(value)
        case "float", Real() if number and math.isfinite(value):
            return float(value)
        case "str", str():
            return str(value)
        case "list", list():
            return [fit(item, kind.items[0]) for item in value]
        case "tuple", tuple() if kind.repeats or len(value) == len(kind.items):
            kinds = kind.items * len(value) if kind.repeats else kind.items
            return tuple(fit(item, wanted) for item, wanted in zip(value, kinds, strict=True))
        case "dict", dict():
            return {fit(key, kind.items[0]): fit(item, kind.items[1]) for key, item in value.items()}
        case "either", _:
            for option in kind.items:
                with suppress(ValueError):
                    return fit(value, option)
    raise ValueError(f"{value!r} is not of kind {kind.name}")


def fit_text(text: str, kind: Kind) -> object:
    """Read a word of the command line as a value of a kind.

    Parameters
    ----------
    text : str
        What was typed.
    kind : Kind
        What is wanted.

    Returns
    -------
    object
        The value. A choice is tried from the strictest kind to the loosest: None first, str last.

    Raises
    ------
    ValueError
        If the text cannot be read so.

    Examples
    --------
    >>> choice = kind_of_annotation("str | None")
    >>> fit_text("none", choice), fit_text("gpt2", choice), fit_text("true", Kind("bool"))
    (None, 'gpt2', True)
    >>> fit_text("['a=b', '#1']", kind_of_annotation("list[str]"))
    ['a=b', '#1']
    """
    word = text.strip().lower()
    match kind.name:
        case "str":
            return text
        case "None" if word in ("none", "null"):
            return None
        case "bool" if word in ("true", "false"):
            return word == "true"
        case "int":
            return int(text)
        case "float":
            return fit(float(text), kind)
        case "list" | "tuple" | "dict":
            return fit(literal(text), kind)
        case "either":
            for option in sorted(kind.items, key=_looseness):
                with suppress(ValueError):
                    return fit_text(text, option)
        case "anything":
            return fit_text(text, Kind("either", (Kind("None"), Kind("bool"), *BARE.values())))
    raise ValueError(f"{text!r} is not of kind {kind.name}")


def literal(text: str) -> object:
    """Read a Python literal.

    Parameters
    ----------
    text : str
        Source of a literal.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> literal("[0, 1]")
    [0, 1]
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"{text!r} is not a Python literal") from None


def _looseness(kind: Kind) -> int:
    return {"None": 0, "bool": 1, "int": 2, "float": 3, "str": 5}.get(kind.name, 4)


def _options(kind: Kind) -> tuple[Kind, ...]:
    return kind.items if kind.name == "either" else (kind,)


def _read(node: ast.expr) -> Kind:
    """Read one node of an annotation."""
    match node:
        case ast.Constant(value=None):
            return Kind("None")
        case ast.Constant(value=str(quoted)):
            return kind_of_annotation(quoted)
        case ast.Name(id=name) if name in BARE:
            return BARE[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Kind("either", (*_options(_read(left)), *_options(_read(right))))
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return Kind("list", (_read(item),))
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, item])):
            return Kind("dict", (_read(key), _read(item)))
        case ast.Subscript(
            value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=EllipsisType())])
        ):
            return Kind("tuple", (_read(item),), repeats=True)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=items)):
            return Kind("tuple", tuple(map(_read, items)))
        case ast.Subscript(value=ast.Name(id="tuple"), slice=item):
            return Kind("tuple", (_read(item),))
    raise ValueError(f"{ast.unparse(node)!r} is not among {SYNTAX}")
