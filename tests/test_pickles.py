"""Pickles give plain values and arrays as Python does, and nothing that they ask for is ever done."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lmmap.errors import InputError
from lmmap.imports.pickles import read_pickle

RNG = np.random.default_rng(0)
PLAIN = {
    "none": None, "yes": True, "no": False, "small": -3, "large": 2**80, "x": 0.1, "text": "naïve 日本",
    "bytes": b"\x00\xffb", "tuple": (1, (2, ("a",))), "empty": ((), [], {}, set()), "list": [1.5, [None]],
    "set": {1, 2}, "frozen": frozenset({"a"}), "array of bytes": bytearray(b"ab"), 7: "int key", 0.5: 0,
    "long": list(range(3000)), "again": ["x" * 300] * 3,
}  # fmt: skip
ARRAYS = {
    "f8": RNG.standard_normal(5), "f4": RNG.standard_normal((2, 3)).astype(np.float32),
    "big": np.arange(4, dtype=">i4"), "bool": np.array([True, False]), "u1": np.arange(3, dtype=np.uint8),
    "fortran": np.asfortranarray(RNG.standard_normal((3, 4))), "empty": np.zeros((0, 3)),
    "turned": RNG.standard_normal((2, 3, 4)).transpose(1, 0, 2), "f2": np.ones(2, np.float16),
    "no axis": np.array(2.5), "a view": RNG.standard_normal((6, 6))[::2, 1:],
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scores.pkl"


def read(file: Path, content: bytes) -> Any:
    file.write_bytes(content)
    return read_pickle(file)


def same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_those_that_were_written(file: Path, protocol: int) -> None:
    same(read(file, pickle.dumps(PLAIN, protocol)), PLAIN)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_those_that_were_written(file: Path, protocol: int) -> None:
    shared = RNG.standard_normal(3)
    value = {"arrays": ARRAYS, "twice": [shared, shared, (shared,)]}
    same(read(file, pickle.dumps(value, protocol)), value)


@pytest.mark.parametrize("protocol", range(6))
def test_the_other_names_of_numpys_modules_are_known(file: Path, protocol: int) -> None:
    content = pickle.dumps(ARRAYS, protocol)
    assert b"numpy._core" in content
    same(read(file, renamed(content, protocol)), ARRAYS)


def renamed(content: bytes, protocol: int) -> bytes:
    """As numpy 1 writes it; names carry their length from protocol 4 on."""
    for old in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        new = old.replace(b"_core", b"core")
        content = content.replace(bytes([0x8C, len(old)]) + old, bytes([0x8C, len(new)]) + new)
        content = content.replace(b"c" + old + b" ", b"c" + new + b" ").replace(
            b"c" + old + b"\n", b"c" + new + b"\n"
        )
    assert b"numpy._core" not in content
    return content.replace(b"\x95" + content.split(b"\x95", 1)[-1][:8], b"", 1) if protocol > 3 else content


@pytest.mark.parametrize("protocol", range(6))
def test_numpys_numbers_become_pythons(file: Path, protocol: int) -> None:
    value = {"a": np.float64(0.1), "b": np.float32(0.5), "c": np.int64(-3), "d": np.bool_(True)}
    found = read(file, pickle.dumps(value, protocol))
    assert found == {"a": 0.1, "b": 0.5, "c": -3, "d": True}
    assert [type(x) for x in found.values()] == [float, float, int, bool]


def test_pickles_of_python_2_are_read(file: Path) -> None:
    values = np.array([1.5, -2.0])
    raw = values.tobytes()
    content = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(U\x02f8I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU" + bytes([len(raw)]) + raw + b"tb."
    )
    same(read(file, content), values)
    same(pickle.loads(content, encoding="latin1"), values)


def test_a_pickle_within_bytes_stays_bytes(file: Path) -> None:
    inner = pickle.dumps(Calls("os", "system", "true"))
    assert read(file, pickle.dumps({"a": inner})) == {"a": inner}


class Calls:
    """Pickles as the call of a function of a module, whether or not that can be imported."""

    def __init__(self, module: str, name: str, *arguments: Any, state: Any = None) -> None:
        self.call = (module, name, arguments, state)


class Asking(pickle._Pickler):
    """Writes `Calls` as calls."""

    def save_calls(self, made: Calls) -> None:
        module, name, arguments, state = made.call
        self.write(b"c" + module.encode() + b"\n" + name.encode() + b"\n")
        self.save(arguments)
        self.write(b"R")
        if state is not None:
            self.save(state)
            self.write(b"b")

    dispatch: ClassVar = {**pickle._Pickler.dispatch, Calls: save_calls}


def asking(value: Any, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    Asking(out, protocol).dump(value)
    return out.getvalue()


def evil(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Files that make a marker file when Python reads them, or would break it; and the name to be told."""
    touch, line = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    f8 = Calls("numpy", "dtype", "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0))
    obj = Calls("numpy", "dtype", "O8", False, True, state=(3, "|", None, None, None, -1, -1, 63))
    shape = (Calls("numpy.core.multiarray", "_reconstruct", 1, (0,), b"b"),)
    array = ("numpy.core.multiarray", "_reconstruct")
    run = Calls("os", "system", touch)
    return {
        "os.system": (asking(run), "os.system"),
        "posix.system": (asking(Calls("posix", "system", touch)), "posix.system"),
        "subprocess": (asking(Calls("subprocess", "call", ["touch", str(marker)])), "subprocess.call"),
        "eval": (asking(Calls("builtins", "eval", line)), "builtins.eval"),
        "exec under its old name": (asking(Calls("__builtin__", "exec", line)), "__builtin__.exec"),
        "getattr": (asking(Calls("builtins", "getattr", Calls("builtins", "__import__", "os"), "system")),
                    "builtins.getattr"),
        "a dotted name": (pickle.dumps(os.path.join, 4).replace(b"join", b"os.a"), "posixpath.os.a"),
        "in a list": (asking([1, {"a": (2, run)}]), "os.system"),
        "an object array": (asking(Calls(*array, shape, state=(1, (1,), obj, False, [run]))), "numpy.core"),
        "objects of numpy": (pickle.dumps(np.array([{}, None], dtype=object)), "a numpy array of type 'O8'"),
        "texts of numpy": (pickle.dumps(np.array(["a"])), "a numpy array of type 'U1'"),
        "records of numpy": (pickle.dumps(np.zeros(1, "f8,i4")), "a numpy array of type 'V12'"),
        "dates of numpy": (pickle.dumps(np.zeros(1, "M8[D]")), "a numpy array of type 'M8'"),
        "complex": (pickle.dumps(1j), "builtins.complex"),
        "load of numpy": (asking(Calls("numpy", "load", str(marker))), "numpy.load"),
        "runstring": (asking(Calls("numpy.testing._private.utils", "runstring", line, {})),
                      "numpy.testing._private.utils.runstring"),
        "a persistent id": (b"Pos.system\n.", "a persistent id"),
        "a binary persistent id": (b"\x80\x02X\x01\x00\x00\x00aQ.", "a persistent id"),
        "the extension registry": (b"\x80\x02\x82\x01.", "the extension registry"),
        "INST": (f"(S'{touch}'\nios\nsystem\n.".encode(), "os.system"),
        "INST of a known name": (b"(I0\nibuiltins\nbytes\n.", "an object of a class"),
        "OBJ": (b"(cos\nsystem\nS'true'\no.", "os.system"),
        "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n(K\x05t\x81.", "an object of a class"),
        "ndarray called": (asking(Calls("numpy", "ndarray", (2,))), "numpy.ndarray in a way"),
        "a million zeros": (asking(Calls("builtins", "bytes", 10**6)), "builtins.bytes in a way"),
        "another encoding": (asking(Calls("_codecs", "encode", "a", "rot13")), "_codecs.encode in a way"),
        "state of a list": (b"\x80\x02](}b.", "the state of a"),
        "state of a function": (b"cnumpy\ndtype\n}S'__call__'\nI1\nsb.", "the state of a Name"),
        "a call of what is no name": (b"\x80\x02](tR.", "a call of a list"),
        "a type with fields": (
            asking(Calls("numpy", "dtype", "f8", False, True,
                         state=(3, "|", None, ("a",), {"a": (f8, 0)}, 8, 1, 16))), "no numbers"),
        "a name alone": (b"cnumpy\nndarray\n.", "numpy.ndarray"),
        "a buffer elsewhere": (b"\x80\x05\x97.", "a buffer outside the file"),
    }  # fmt: skip


KINDS = list(evil(Path("marker")))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_a_file_asks_for_is_done(tmp_path: Path, file: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    content, wanted = evil(marker)[kind]
    with pytest.raises(InputError) as told:
        read(file, content)
    assert str(file) in str(told.value)
    assert f"asks for {wanted}" in str(told.value) or wanted in str(told.value)
    assert not marker.exists()


@pytest.mark.skipif(os.name == "nt", reason="touch")
def test_python_itself_would_have_done_it(tmp_path: Path, file: Path) -> None:
    marker = tmp_path / "marker"
    for kind in ("os.system", "eval", "subprocess", "in a list"):
        file.write_bytes(evil(marker)[kind][0])
        load = f"import pickle; pickle.load(open({str(file)!r}, 'rb'))"
        assert subprocess.run([sys.executable, "-c", load], capture_output=True, check=False).returncode == 0
        assert marker.exists(), f"{kind} is no test: it does nothing"
        marker.unlink()


BROKEN = {
    "empty": (b"", "the file is empty"),
    "a table": (b"model,t1\na,-1\n", "no pickle"),
    "zeros": (b"\0" * 100, "no pickle"),
    "two in one file": (pickle.dumps(1) * 2, "goes on for"),
    "too short a text": (b"\x80\x04X\xff\xff\xff\x7fabc.", "truncated"),
    "a length of 2^62": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "truncated"),
    "nothing on the stack": (b"\x80\x04.", "IndexError"),
    "too much on the stack": (b"\x80\x04NN.", "unfinished"),
    "no mark": (b"\x80\x04Nu.", "IndexError"),
    "across a mark": (b"\x80\x04N(\x85t.", "more values than it has"),
    "an unknown memo": (b"\x80\x04h\x05.", "KeyError"),
    "a list as a key": (b"\x80\x04}](Nu.", "list"),
    "an odd dict": (b"\x80\x04}(NNNu.", "zip"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_told(file: Path, kind: str) -> None:
    content, told = BROKEN[kind]
    with pytest.raises(InputError, match=rf"scores\.pkl: .*{told}"):
        read(file, content)


def test_a_truncated_file_is_told_wherever_it_ends(file: Path) -> None:
    content = pickle.dumps({"a": RNG.standard_normal(6), "b": [1, "x", None, (2.5,)]})
    for length in range(1, len(content)):
        with pytest.raises(InputError, match="truncated"):
            read(file, content[:length])


def test_an_altered_file_gives_a_value_or_a_sentence(file: Path) -> None:
    content = bytearray(pickle.dumps({"a": RNG.standard_normal(3), "b": [1, ("x", 0.5)]}))
    refused = 0
    for _ in range(3000):
        altered = bytearray(content)
        for place in RNG.integers(0, len(content), RNG.integers(1, 4)):
            altered[place] = RNG.integers(256)
        try:
            read(file, bytes(altered))
        except InputError:
            refused += 1
    assert 0 < refused < 3000


def test_a_large_file_is_refused_unread(file: Path) -> None:
    with file.open("wb") as out:
        out.truncate(10 * 2**30)
    with pytest.raises(InputError, match=r"10,737,418,240 bytes, more than the 2,147,483,648 that are read"):
        read_pickle(file)
    file.write_bytes(pickle.dumps([0] * 100))
    with pytest.raises(InputError, match=r"more than the 50 that are read"):
        read_pickle(file, max_bytes=50)


BOMBS = {
    "a memo of 32 GiB": (b"\x80\x04Nr\xff\xff\xff\xff.", None),
    "nested a million deep": (b"\x80\x04]" + b"\x85" * 10**6 + b".", "more memory than its size"),
    "nested deep": (b"\x80\x04]" + b"\x85" * 10**4 + b".", "deep"),
    "a deep key": (b"\x80\x04})" + b"\x85" * 10**4 + b"Ns.", "used as a key"),
    "a list in itself": (b"\x80\x04]q\x00h\x00a.", "deep"),
    "an array in its own state": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btRq\x00h\x00b.",
        "before its content is there",
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_do_not_go_off(file: Path, kind: str) -> None:
    content, told = BOMBS[kind]
    if told is None:
        assert read(file, content) is None
        return
    with pytest.raises(InputError, match=told):
        read(file, content)


def test_lists_that_double_take_no_longer_than_their_file(file: Path) -> None:
    content = b"\x80\x04]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(90)) + b"."
    with pytest.raises(InputError, match="unfinished"):
        read(file, content)
    doubling = b"\x80\x04]q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(90))
    found = read(file, b"\x80\x04(" + doubling[2:] + b"l.")
    assert len(found) == 91


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ((1, (3,), "f8", False, b"\0" * 16), r"shape \(3,\) and type float64 has 16 bytes"),
        ((1, (-1,), "f8", False, b"\0" * 8), r"shape \(-1,\)"),
        ((1, (2**62, 4), "f8", False, b""), "has 0 bytes"),
        ((1, (1,), "f8", False, [0.0]), "no numbers"),
        ((2, (1,), "f8", False, b"\0" * 8), "no numbers"),
        (None, "unfinished"),
    ],
)
def test_an_array_must_have_the_content_that_its_shape_takes(file: Path, state: Any, told: str) -> None:
    f8 = Calls("numpy", "dtype", "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0))
    state = state and tuple(f8 if part == "f8" else part for part in state)
    ndarray = b"cnumpy\nndarray\n"
    out = io.BytesIO()
    Asking(out, 3).dump(state)
    body = out.getvalue()[2:-1]
    content = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(" + ndarray + b"K\x00\x85C\x01btR"
    with pytest.raises(InputError, match=told):
        read(file, content + (body + b"b" if state else b"") + b".")


def test_arrays_cannot_be_written_to(file: Path) -> None:
    found = read(file, pickle.dumps(np.zeros(2)))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1.0


def test_a_file_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "raw_log-likelihood_1018.pkl").touch()
    with pytest.raises(InputError, match=r"closest: 'raw_log-likelihood_1018.pkl'"):
        read_pickle(tmp_path / "raw_loglikelihood_1018.pkl")
