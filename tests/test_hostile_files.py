"""Files made to exhaust time or memory, or that are not what they seem, are refused in a sentence."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmmap.errors import InputError
from lmmap.imports.model_tables import read_attributes
from lmmap.imports.pickles import read_pickle
from lmmap.imports.scores import import_scores, read_scores
from lmmap.texts import text_set

F8 = (
    b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8\x89\x88tR(K\x03X\x01\x00\x00\x00<NNN"
    b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
BUFFER = b"cnumpy._core.numeric\n_frombuffer\n(C\x00" + F8
ENTRY = (
    b"](}(X\x0a\x00\x00\x00model_nameX\x01\x00\x00\x00aX\x12\x00\x00\x00log-likelihood-10k"
    b"(G\xbf\xf0\0\0\0\0\0\0lX\x04\x00\x00\x00tags"
)


def doubled(times: int) -> bytes:
    """A tuple of two of the same tuple of two of ...: small to keep, endless to walk through."""
    return b")q\x00" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(times))


SLOW = {
    "a row that doubles": (b"}X\x01\x00\x00\x00m" + doubled(60) + b"s.", "one for each text, got tuple"),
    "a name that doubles": (doubled(60) + b"\x8c\x01a\x93.", "something that has no name"),
    "a type that doubles": (b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8" + doubled(60) + b"\x88tR.", "numpy.dtype"),
    "a type too deep to hash": (
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8)" + b"\x85" * 20_000 + b"\x88tR.", "numpy.dtype"),
    "a shape that doubles": (ARRAY + b"(K\x01" + doubled(60) + b"\x85" + F8 + b"\x89C\x00tb.", "no tuple"),
    "a shape of large numbers": (
        ARRAY + b"(K\x01(" + b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f" * 100 + b"t" + F8 + b"\x89C\x00tb.",
        "no tuple of at most 32"),
    "axes that double": (BUFFER + b"K\x00\x85X\x01\x00\x00\x00K" + doubled(60) + b"\x85tR.", "an order that"),
    "an order that doubles": (BUFFER + b"K\x00\x85" + doubled(60) + b"tR.", "an order that no array has"),
    "tags that double": (ENTRY + doubled(60) + b"ue.", "'tags' is a list of lists"),
    "tags that repeat": (
        ENTRY + b"(X\xe8\x03\x00\x00" + b"a" * 1000 + b"q\x00" + b"h\x00" * 200 + b"lue.", "longer than"),
    "many empty sets": (b"(" + b"\x8f" * 100_000 + b"l.", "far more memory than its size"),
    "many empty dicts": (b"(" + b"}" * 100_000 + b"l.", "far more memory than its size"),
    "a memo of nothing": (b"N" + b"\x94" * 100_000 + b".", "far more memory than its size"),
    "copies of one text": (
        b"B\xa0\x86\x01\x00" + bytes(10**5) + b"q\x00cbuiltins\nbytearray\nq\x010("
        + b"h\x01h\x00\x85R" * 200 + b"l.",
        "far more memory than its size"),
    "keys of one hash": (
        b"}(" + b"".join(b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(1, 9))
        + b"u.",
        r"below 2\^60"),
    "a number of many digits": (b"]\x8b\x10\x27\x00\x00" + b"\x01" * 10_000 + b"a.", "more than 255 bytes"),
    "one row for many models": (
        b"}(X\x01\x00\x00\x00a" + ARRAY + b"(K\x01M\x10\x27\x85" + F8 + b"\x89B\x80\x38\x01\x00"
        + np.full(10**4, -1.0).tobytes() + b"tbq\x63"
        + b"".join(b"X\x06\x00\x00\x00%06dhc" % i for i in range(30_000)) + b"u.",
        "30,001 models x 10,000 values, more than the 268,435,456"),
    "one dict under many names": (
        b"}(" + b"X\x01\x00\x00\x00a}("
        + b"".join(b"X\x04\x00\x00\x00%04dK\x01" % i for i in range(1000)) + b"uq\x00"
        + b"".join(b"X\x03\x00\x00\x00%03dh\x00" % i for i in range(200)) + b"u.",
        "more than the 100,000 models"),
    "a name in bytes": (pickle.dumps({b"gpt2": np.array([-1.0])})[2:], "names as keys, found b'gpt2'"),
    "no name": (pickle.dumps({" ": np.array([-1.0])})[2:], "model 1 has no name"),
    "half a character": (pickle.dumps({"a\ud800": np.array([-1.0])})[2:], "lone surrogate"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SLOW)
def test_a_small_pickle_stays_small(tmp_path: Path, kind: str) -> None:
    content, told = SLOW[kind]
    file = tmp_path / "scores.pkl"
    file.write_bytes(b"\x80\x04" + content)
    with pytest.raises(InputError, match=told) as found:
        import_scores(file, texts=text_set(["a"]), out=tmp_path / "run")
    assert "scores.pkl" in str(found.value)
    assert not (tmp_path / "run").exists()


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    out = io.BytesIO()
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, about)  # type: ignore[arg-type]
    return out.getvalue()


def npz(file: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"models": npy(np.array(["a"])), **members}.items():
            archive.writestr(f"{name}.npy", content)
    return file


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (header((10**6, 10**6)), r"has 0 bytes, which its shape \(1000000, 1000000\) does not take"),
        (header((-1, 5)), "no plain array of numbers"),
        (header((1, 1), "|O"), r"no plain array of numbers or texts but .*\|O"),
        (npy(np.zeros((1, 1), "f8,i4")), "no plain array of numbers"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 100, "no plain array of numbers"),
        (b"nothing", "no plain array of numbers"),
    ],
)
def test_an_array_of_an_npz_has_the_size_that_it_says(tmp_path: Path, values: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_scores(npz(tmp_path / "scores.npz", values=values))
    kept = npz(tmp_path / "other.npz", values=npy(np.array([[-1.0]])), another=values)
    assert read_scores(kept).values.tolist() == [[-1.0]]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scores.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("values.npy", "w", force_zip64=True) as out:
            for _ in range(129):
                out.write(bytes(2**24))
        archive.writestr("models.npy", npy(np.array(["a"])))
    assert file.stat().st_size < 2**24
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(InputError, match="'values' takes 2,164,260,864 bytes unpacked, more than"):
        read_scores(file)


def test_a_zip_of_many_files_or_with_a_password_is_refused(tmp_path: Path) -> None:
    file = npz(tmp_path / "many.npz", **{f"a{i}": b"" for i in range(1001)})
    with pytest.raises(InputError, match="more than 1,000 arrays"):
        read_scores(file)
    content = bytearray(npz(tmp_path / "locked.npz", values=npy(np.array([[-1.0]]))).read_bytes())
    place = -1
    while (place := content.find(b"PK\x01\x02", place + 1)) >= 0:
        content[place + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as npz \(.*encrypted"):
        read_scores(tmp_path / "locked.npz")


def parquet(file: Path, footer: dict[str, Any] | None = None, **columns: Any) -> Path:
    table = pa.table(columns).replace_schema_metadata({"lmmap": json.dumps(footer or {"texts": ["t"]})})
    pq.write_table(table, file)
    return file


def test_parquet_that_grows_is_refused(tmp_path: Path) -> None:
    rows = pa.ListArray.from_arrays(np.arange(1025, dtype=np.int32) * 2**14, pa.nulls(2**24, "f8"))
    file = tmp_path / "scores.parquet"
    table = pa.table({"model": ["a"] * 1024, "log_likelihood": rows})
    table = table.replace_schema_metadata({"lmmap": '{"texts": ["t"]}'})
    with pq.ParquetWriter(file, table.schema) as out:
        for _ in range(17):
            out.write_table(table)
    assert file.stat().st_size < 2**20
    with pytest.raises(InputError, match="285,212,672 values, more than the 268,435,456 that are read"):
        read_scores(file)
    long = parquet(file, model=["a", "b"], log_likelihood=[[-1.0], [-1.0]], note=["x" * 10**6] * 2)
    with pytest.raises(InputError, match="'note' has texts longer than 100,000 characters"):
        read_scores(long)


@pytest.mark.parametrize(
    ("footer", "columns", "told"),
    [
        ({"texts": 5}, {}, "`texts` is no list of ids"),
        ({"texts": [5]}, {}, "`texts` is no list of ids"),
        ({"texts": ["t"], "fingerprint": 7}, {}, "`fingerprint` is a int"),
        (None, {"model": [None]}, "name of model 1: expected a text"),
        (None, {"log_likelihood": [-1.0]}, "expected a list of numbers"),
        (None, {"log_likelihood": pa.array([None], pa.list_(pa.float64()))}, "got a NoneType"),
        (None, {"note": [b"x"]}, "'note' is of type bytes"),
    ],
)
def test_parquet_of_another_form_is_refused(
    tmp_path: Path, footer: dict[str, Any] | None, columns: dict[str, Any], told: str
) -> None:
    given = {"model": ["a"], "log_likelihood": [[-1.0]], **columns}
    with pytest.raises(InputError, match=told):
        read_scores(parquet(tmp_path / "scores.parquet", footer, **given))


PAIRS = list(zip("abcdefgh", "bcdefghi", strict=True))
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in PAIRS)
MERGE = "- &a {k: v}\n" + "".join(f"- &{b}\n  <<: [*{a}, *{a}]\n" for a, b in PAIRS)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (BOMB, "an alias is not read"),
        (MERGE, "an alias is not read"),
        ("- {name: !!python/object/apply:os.system [x]}", "the tag .* is not read"),
        ("- {name: a, n: !!int '1:1:1:1'}", "the tag .* is not read"),
        ("- {name: a, name: b}", "'name' is given twice"),
        ("a: {x: 1}\na: {x: 2}", "'a' is given twice"),
        ("? [a]\n: b", "a key is no text"),
        ("[" * 5000, "recursion"),
        ("a: [", "while parsing"),
    ],
)
def test_yaml_is_plain_or_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "models_1018.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=rf"models_1018\.yaml: not YAML: [\s\S]*{told}"):
        read_attributes(file)


def test_yaml_keeps_dates_and_versions_as_texts(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("- {name: a, created_at: 2024-05-31, time: 1:30, land: no, n: 3, x: 0.5, none: null}\n")
    kept = {"created": "2024-05-31", "time": "1:30", "land": "no", "n": 3, "x": 0.5, "none": None}
    assert read_attributes(file) == {"a": kept}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("", None),
        ("unknown", None),
        ("N/A", None),
        (None, None),
        (2023, "2023"),
        ("2024-05-31T10:00:00Z",) * 2,
    ],
)
def test_dates_that_are_not_known_are_none(tmp_path: Path, told: object, kept: object) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([{"model_name": "a", "created_at": told}]))
    assert read_attributes(file) == {"a": {"created": kept}}


@pytest.mark.parametrize("date", ["soon", 17, 1.7e9, True])
def test_dates_that_are_none_are_refused(tmp_path: Path, date: object) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([{"model_name": "a", "created_at": date}]))
    with pytest.raises(InputError, match=r"created_at is .*; expected a date such as 2024-05-31, or nothing"):
        read_attributes(file)


def test_texts_of_attributes_that_a_few_bytes_say_are_counted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lmmap.imports.exported.MAX_JSON", 100_000)
    file = parquet(
        tmp_path / "scores.parquet",
        model=[f"m{i}" for i in range(200)], log_likelihood=[[-1.0]] * 200, note=["x" * 1000] * 200,
    )  # fmt: skip
    assert file.stat().st_size < 10_000
    with pytest.raises(InputError, match="more than the 100,000 characters of attributes that are read"):
        read_scores(file)


def test_lists_of_plain_values_are_no_bomb(tmp_path: Path) -> None:
    file = tmp_path / "plain.pkl"
    plain = {"a": [None, True, False] * 40_000}
    file.write_bytes(pickle.dumps(plain))
    assert read_pickle(file) == plain


def test_texts_longer_than_numpy_knows_are_refused(tmp_path: Path) -> None:
    file, header = tmp_path / "scores.npz", io.BytesIO()
    np.save(header, np.array(["a"]))
    content = header.getvalue().replace(b"'<U1'", b"'<U999999999'")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("values.npy", content)
        archive.writestr("models.npy", content)
    with pytest.raises(InputError, match=r"scores\.npz: "):
        read_scores(file)
