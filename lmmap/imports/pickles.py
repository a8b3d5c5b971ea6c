"""Pickles read as data: plain values and arrays of numbers come out, and nothing in the file is ever called.

A pickle is a program for a small stack machine. The machine here knows the instructions that build plain
values; where Python's own would import a name and call it, this one compares the name with a short list and
fills an array itself. It never imports what a file names.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmmap.errors import InputError
from lmmap.imports.foreign_files import MAX_BYTES, existing_file
from lmmap.imports.pickled_arrays import (
    COST,
    COST_OF_SET,
    Name,
    Refused,
    Unfinished,
    bytes_of,
    call,
    complete,
    known_name,
    plain_key,
)

MOST_STEPS = 12_000_000  # instructions of one file: 1,018 lists of 10,000 numbers take 10 million
MOST_BUILT = 2**30  # bytes
DEEPEST = 100  # values within values; published files have three levels
NO_STEP = {"PROTO", "FRAME", "STOP"}
PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set
}  # fmt: skip
REFUSED = {
    "LONG4": "a whole number of more than 255 bytes",
    "PERSID": "a persistent id",
    "BINPERSID": "a persistent id",
    "EXT1": "the extension registry",
    "EXT2": "the extension registry",
    "EXT4": "the extension registry",
    "NEXT_BUFFER": "a buffer outside the file",
    "READONLY_BUFFER": "a buffer outside the file",
    "OBJ": "an object of a class",
    "NEWOBJ": "an object of a class",
    "NEWOBJ_EX": "an object of a class",
}


def read_pickle(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:  # noqa: ANN401 - what the file holds
    r"""Read a pickle of plain values and numpy arrays of numbers; run nothing.

    Parameters
    ----------
    path : str or Path
        A pickle of any protocol, written under any version of numpy.
    max_bytes : int
        Larger files are refused.

    Returns
    -------
    object
        Dicts, lists, tuples, sets, texts, bytes, numbers, booleans and None, and read-only numpy arrays of
        booleans, integers and floats. Scalars of numpy are Python's numbers.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, too large or no pickle, or asks for anything else: what it
        asked for is named.

    Examples
    --------
    >>> import pickle
    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "scores.pkl"
    >>> _ = file.write_bytes(pickle.dumps({"gpt2": [-1.5, None]}))
    >>> read_pickle(file)
    {'gpt2': [-1.5, None]}
    >>> _ = file.write_bytes(b"cos\nsystem\n(S'echo mischief'\ntR.")
    >>> try:
    ...     read_pickle(file)
    ... except InputError as error:
    ...     print(str(error).split(": ", 1)[1])
    it asks for os.system; only plain values and arrays of numbers are read from a pickle, and nothing was run
    """
    path = existing_file(path, max_bytes)
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            value = _Machine(size).run(_steps(content))
            if content.tell() < size:
                raise Refused(f"it goes on for {size - content.tell():,} bytes after its end")
        except Refused as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
            cut = "truncated, " if content.tell() >= size else ""
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise InputError(
                f"{path}: {cut}damaged or no pickle, at byte {content.tell():,} of {size:,} ({why})"
            ) from None
    return value


def _steps(content: mmap.mmap) -> Iterator[tuple[str, Any]]:
    for number, (code, argument, _) in enumerate(pickletools.genops(content)):  # type: ignore[arg-type]
        if number >= MOST_STEPS:
            raise Refused(f"it takes more than {MOST_STEPS:,} steps to read; save it as npz")
        yield code.name, argument


class _Machine:
    """Builds one value on a stack, in memory of the order of the file's size."""

    def __init__(self, size: int) -> None:
        self.room = 2**20 + 2 * size + min(64 * size, MOST_BUILT)  # bytes that may still be built
        self.stack: list[Any] = []
        self.marks: list[int] = []  # where the values of a list, tuple or dict begin
        self.memo: dict[int, Any] = {}
        self.at_work = 0  # arrays and types that wait for their content

    def run(self, steps: Iterator[tuple[str, Any]]) -> Any:  # noqa: ANN401
        """Follow all steps; give the value that is left."""
        push = self.stack.append
        for name, argument in steps:
            if name in PUSHED:
                push(argument)
            elif name not in NO_STEP:
                self._step(name, argument)
        value = self._taken()
        if self.at_work or self.stack:
            raise Refused("it leaves something unfinished")
        _check(value, 0, set())
        return value

    def _take_room(self, n_bytes: int) -> None:
        self.room -= n_bytes
        if self.room < 0:
            raise Refused("it would take far more memory than its size; save it as npz")

    def _step(self, name: str, argument: Any) -> None:  # noqa: ANN401
        if name in CONSTANTS:  # a place in a list, and no more
            self._take_room(8)
            self.stack.append(CONSTANTS[name])
            return
        self._take_room(COST_OF_SET if name.endswith("SET") else COST)
        if name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in REFUSED:
            raise Refused.asked_for(REFUSED[name])
        elif name in ("GLOBAL", "INST"):
            self.stack.append(known_name(*argument.split(" ", 1)))
            if name == "INST":
                raise Refused.asked_for("an object of a class")
        else:
            step: Callable[[Any], None] | None = getattr(self, f"_{name.lower()}", None)
            if step is None:
                raise Refused.asked_for(f"the instruction {name}")
            step(argument)

    def _taken(self) -> Any:  # noqa: ANN401
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise Refused("it uses up more values than it has")
        return self.stack.pop()

    def _since_mark(self) -> list[Any]:
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def _filled(self, kind: type) -> Any:  # noqa: ANN401
        top = self.stack[-1]
        if type(top) is not kind:
            raise Refused(f"it fills a {type(top).__name__} as if it were a {kind.__name__}")
        return top

    # One method for each instruction

    def _mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _: object) -> None:
        self._taken()

    def _pop_mark(self, _: object) -> None:
        self._since_mark()

    def _list(self, _: object) -> None:
        self.stack.append(self._since_mark())

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple1(self, _: object) -> None:
        self.stack.append((self._taken(),))

    def _tuple2(self, _: object) -> None:
        last = self._taken()
        self.stack.append((self._taken(), last))

    def _tuple3(self, _: object) -> None:
        last, middle = self._taken(), self._taken()
        self.stack.append((self._taken(), middle, last))

    def _dict(self, _: object) -> None:
        self.stack.append(_pairs(self._since_mark()))

    def _frozenset(self, _: object) -> None:
        self.stack.append(frozenset(map(plain_key, self._since_mark())))

    def _append(self, _: object) -> None:
        value = self._taken()
        self._filled(list).append(value)

    def _appends(self, _: object) -> None:
        values = self._since_mark()
        self._filled(list).extend(values)

    def _setitem(self, _: object) -> None:
        value, key = self._taken(), self._taken()
        self._filled(dict)[plain_key(key)] = value

    def _setitems(self, _: object) -> None:
        values = self._since_mark()
        self._filled(dict).update(_pairs(values))

    def _additems(self, _: object) -> None:
        values = self._since_mark()
        self._filled(set).update(map(plain_key, values))

    def _put(self, index: int) -> None:
        top = self.stack[-1]
        self.memo[index] = top
        if isinstance(top, Unfinished):
            top.places.append(index)

    _binput = _long_binput = _put

    def _memoize(self, _: object) -> None:
        self._put(len(self.memo))

    def _get(self, index: int) -> None:
        value = self.memo[index]
        if isinstance(value, Unfinished):
            raise Refused("it uses an array before its content is there")
        self.stack.append(value)

    _binget = _long_binget = _get

    def _stack_global(self, _: object) -> None:
        name, module = self._taken(), self._taken()
        if type(module) is not str or type(name) is not str:
            raise Refused("it asks for something that has no name")
        self.stack.append(known_name(module, name))

    def _reduce(self, _: object) -> None:
        arguments, name = self._taken(), self._taken()
        if not isinstance(name, Name) or type(arguments) is not tuple:
            raise Refused.asked_for(f"a call of a {type(name).__name__}")
        if any(isinstance(argument, Unfinished) for argument in arguments):
            raise Refused("it uses an array before its content is there")
        made = call(name, arguments)
        self._take_room(bytes_of(made))
        self.at_work += isinstance(made, Unfinished)
        self.stack.append(made)

    def _build(self, _: object) -> None:
        state, top = self._taken(), self.stack[-1]
        if not isinstance(top, Unfinished):
            raise Refused.asked_for(f"the state of a {type(top).__name__} to be set")
        self.at_work -= 1
        self.stack[-1] = complete(top, state)
        self._take_room(bytes_of(self.stack[-1]))
        for index in top.places:
            self.memo[index] = self.stack[-1]


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(plain_key, values[::2]), values[1::2], strict=True))


def _check(value: Any, depth: int, seen: set[int]) -> None:  # noqa: ANN401
    """Refuse what is nested too deep, or within itself, and names that were left where values belong."""
    if isinstance(value, Name | Unfinished):
        raise Refused.asked_for(str(value))
    if type(value) in (dict, list, tuple) and id(value) not in seen:
        if depth > DEEPEST:
            raise Refused(f"values lie more than {DEEPEST} deep within one another")
        for inner in value.values() if type(value) is dict else value:
            if type(inner) is not float:
                _check(inner, depth + 1, seen)
        seen.add(id(value))  # only once all within is checked: a cycle runs into the depth
