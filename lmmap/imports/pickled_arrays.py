"""What a pickle may name: the parts of numpy's arrays of numbers, filled here instead of by calling them."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np

MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
BUILTINS = ("builtins", "__builtin__")
KNOWN = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    **{(module, "_reconstruct"): "array" for module in MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in MULTIARRAY},
    **{(module, "ndarray"): "ndarray" for module in MULTIARRAY},
    **{(module, "_frombuffer"): "buffer" for module in NUMERIC},
    **{(module, kind): kind for module in BUILTINS for kind in ("bytes", "bytearray", "set", "frozenset")},
    ("_codecs", "encode"): "encode",  # how protocol 2 writes bytes
}
PLAIN_KEYS = (str, bytes, int, float, bool, type(None))
LARGEST_KEY = 2**60  # larger whole numbers share hashes
MOST_AXES = 32
COST = 100  # bytes that a step or a member takes at most, apart from what it reads or copies
COST_OF_SET = 256
NUMBERS = re.compile(r"[<>|=]?(?:[?]|b1|[iu][1248]|f[248])")


class Refused(Exception):  # noqa: N818 - turned into an InputError that names the file
    """Something that is not read."""

    @classmethod
    def asked_for(cls, what: str) -> Refused:
        """Refuse what a file asks for, by name."""
        return cls(
            f"it asks for {what[:200]}; only plain values and arrays of numbers are read from a pickle, and "
            "nothing was run"
        )


class Name(NamedTuple):
    """A name of the list above, that a file has asked for."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Unfinished:
    """An array, or a type of numbers, whose content comes later."""

    def __init__(self, code: str = "") -> None:
        self.code = code  # of a type; an array has none
        self.places: list[int] = []  # in the memo


def known_name(module: str, name: str) -> Name:
    """Refuse every name that is not on the list."""
    if (module, name) not in KNOWN:
        raise Refused.asked_for(f"{module}.{name}")
    return Name(module, name)


def call(name: Name, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Do what a known name stands for, if it is asked in the way that numpy's own pickles do."""
    match KNOWN[name], arguments:
        case "array", (Name() as kind, (0,), b"b" | "b") if KNOWN[kind] == "ndarray":
            return Unfinished()
        case "dtype", (str(code), 0 | 1, 0 | 1):
            return Unfinished(_number(code))
        case "scalar", (np.dtype() as kind, bytes() | str() as data):
            return array_of(kind, (), data)[()].item()
        case "buffer", (bytes() | bytearray() as data, np.dtype() as kind, tuple(shape), *order):
            return _from_buffer(kind, shape, data, *order)
        case "bytes", ():
            return b""
        case "bytearray", ():
            return bytearray()
        case "bytearray", (bytes() as data,):
            return bytearray(data)
        case "encode", (str(text), "latin1" | "latin-1"):
            return text.encode("latin1")
        case ("set" | "frozenset") as kind, (list(members),):
            plain = map(plain_key, members)
            return set(plain) if kind == "set" else frozenset(plain)
    raise Refused.asked_for(f"{name} in a way that no array of numbers does")


def complete(made: Unfinished, state: Any) -> np.ndarray | np.dtype[Any]:  # noqa: ANN401
    """Fill an array, or give a type of numbers its byte order."""
    if made.code:
        match state:
            case (3, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0):
                return np.dtype(made.code).newbyteorder(order)
    else:
        match state:
            case (1, tuple(shape), np.dtype() as kind, 0 | 1 as fortran, bytes() | str() as data):
                return array_of(kind, shape, data, "F" if fortran else "C")
    raise Refused.asked_for("an array whose content is no numbers")


def array_of(
    kind: np.dtype[Any], shape: tuple[Any, ...], data: bytes | bytearray | str, order: str = "C"
) -> np.ndarray:
    """Make a read-only array from bytes, if they are as many as its shape takes."""
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    if len(shape) > MOST_AXES or not all(type(length) is int for length in shape):
        raise Refused(f"an array's shape is no tuple of at most {MOST_AXES} numbers")
    if min(shape, default=0) < 0:
        raise Refused(f"an array has the shape {shape}")
    if math.prod(shape) * kind.itemsize != len(raw):
        raise Refused(f"an array of shape {shape} and type {kind} has {len(raw):,} bytes of content")
    return np.frombuffer(raw, dtype=kind).reshape(shape, order="F" if order == "F" else "C")


def plain_key(key: Any) -> Any:  # noqa: ANN401
    """Refuse keys, and members of sets, that can be chosen to be slow to hash or to share one hash."""
    if type(key) not in PLAIN_KEYS or (type(key) is int and not -LARGEST_KEY < key < LARGEST_KEY):
        raise Refused(
            f"a value of type {type(key).__name__} is used as a key; keys are read if they are texts or "
            "numbers below 2^60"
        )
    return key


def bytes_of(made: Any) -> int:  # noqa: ANN401
    """Give the bytes that a call may have copied."""
    if isinstance(made, np.ndarray):
        return made.nbytes
    if isinstance(made, set | frozenset):
        return COST_OF_SET + COST * len(made)
    return len(made) if isinstance(made, bytes | bytearray) else 0


def _from_buffer(
    kind: np.dtype[Any],
    shape: tuple[Any, ...],
    data: bytes | bytearray,
    order: str = "C",
    axes: Any = None,  # noqa: ANN401
) -> np.ndarray:
    """Undo what protocol 5 does: axes in the order in which they lie in memory, if not that of C or F."""
    if axes is None and order in ("C", "F"):
        return array_of(kind, shape, data, order)
    whole = type(axes) is tuple and len(axes) <= MOST_AXES and all(type(axis) is int for axis in axes)
    if order == "K" and whole and sorted(axes) == list(range(len(shape))):
        return array_of(kind, shape, data).transpose(axes)
    raise Refused("an array lies in memory in an order that no array has")


def _number(code: str) -> str:
    if not NUMBERS.fullmatch(code):
        raise Refused.asked_for(f"a numpy array of type {code[:20]!r}")
    return code
