"""Texts come in whole from every kind of file, are cut between characters, and bad ones are refused."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmap.chunks import chunk_documents, chunk_text
from lmmap.errors import InputError
from lmmap.text_files import Document, read_documents, read_hub_documents, read_texts
from lmmap.texts import TextSet, text_set

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=100)
SAMPLES = {
    "chinese": "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。",
    "japanese": "吾輩は猫である。名前はまだ無い。ｶﾀｶﾅとひらがな。",
    "emoji": "👩‍👩‍👧‍👦 family, 🇯🇵 flag, 👍🏽 thumb, 🧪",
    "combining": "e\u0301 a\u0308 ha\u0302\u0323 \u0915\u094d\u0937\u093f \u0e01\u0e33 \u1112\u1161\u11ab",
    "mixed": "a\x00b\tc\u2028d\x85e\ufefff\U0010ffffg\r\nh",
}


# Cutting


def assert_cut_well(text: str, max_bytes: int) -> None:
    """Pieces are the text, none is too long, none could take one more character."""
    pieces = list(chunk_text(text, max_bytes=max_bytes))
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= max_bytes for piece in pieces)
    place = 0
    for piece in pieces[:-1]:
        place += len(piece)
        assert len((piece + text[place]).encode()) > max_bytes


@pytest.mark.parametrize("max_bytes", [4, 5, 6, 7, 16, 1024])
@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES)
def test_every_script_survives_the_cut(text, max_bytes):
    assert_cut_well(text * 30, max_bytes)


@REPEATABLE
@given(st.text(max_size=200), st.integers(4, 40))
def test_any_text_survives_the_cut(text, max_bytes):
    assert_cut_well(text, max_bytes)


def test_pieces_by_hand():
    assert list(chunk_text("日本語の本", max_bytes=6)) == ["日本", "語の", "本"]
    assert list(chunk_text("a🧪b", max_bytes=4)) == ["a", "🧪", "b"]
    assert list(chunk_text("")) == []


@pytest.mark.parametrize("max_bytes", [3, 0, -5])
def test_cutting_below_the_longest_character_is_refused(max_bytes):
    with pytest.raises(InputError, match=f"max_bytes={max_bytes} .* 4 or more"):
        list(chunk_text("日本", max_bytes=max_bytes))


def test_only_pieces_above_the_lower_bound_are_kept():
    documents = [Document("ascii", "x" * n) for n in (256, 257, 1024, 1280, 1281)]
    cut = chunk_documents(documents)
    assert cut.frame["n_bytes"].tolist() == [257, 1024, 1024, 1024, 257]
    assert cut.frame["document"].tolist() == [1, 2, 3, 4, 4]
    assert chunk_documents([Document("", "x")], min_bytes=0).texts == ["x"]


def test_chunks_keep_order_source_and_lengths():
    documents = [Document(kind, text * 40) for kind, text in SAMPLES.items()]
    cut = chunk_documents(documents, max_bytes=100, min_bytes=50, name="cut")
    assert cut.name == "cut"
    for number, document in enumerate(documents):
        rows = cut.frame[cut.frame["document"] == number]
        pieces = [p for p in chunk_text(document.text, max_bytes=100) if len(p.encode()) > 50]
        assert rows["text"].tolist() == pieces
        assert set(rows["source"]) == {document.source}
        assert rows["n_bytes"].tolist() == [len(p.encode()) for p in pieces]


PIECES = [Document("d", f"{i:02d}" * 5) for i in range(30)]


def drawn(seed: int, n_texts: int = 10) -> list[str]:
    return chunk_documents(PIECES, max_bytes=10, min_bytes=5, n_texts=n_texts, seed=seed).texts


def test_sample_is_seeded_without_replacement_and_in_document_order():
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    for seed in range(20):
        texts = drawn(seed)
        assert len(set(texts)) == 10
        assert texts == sorted(texts)
    assert drawn(0, 30) == [document.text for document in PIECES]
    assert drawn(7) == chunk_documents(iter(PIECES), max_bytes=10, min_bytes=5, n_texts=10, seed=7).texts, (
        "a stream is as good as a list"
    )


def test_sample_takes_every_piece_and_every_pair_equally_often():
    n_draws = 400
    seen = np.zeros((30, 30))
    for seed in range(n_draws):
        taken = [int(text[:2]) for text in drawn(seed)]
        seen[np.ix_(taken, taken)] += 1
    # Probabilities of sampling 10 of 30 without replacement; 4.5 standard deviations for 465 counts.
    for counts, p in (
        (np.diag(seen), 10 / 30),
        (seen[np.triu_indices(30, 1)], 10 * 9 / (30 * 29)),
    ):
        assert np.abs(counts - n_draws * p).max() < 4.5 * math.sqrt(n_draws * p * (1 - p))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n_texts": 31}, "31 texts were asked for and the documents have 30 pieces of more than 5 and at"),
        ({"n_texts": 0}, "0 texts were asked for; ask for at least one"),
        ({"n_texts": -1}, "-1 texts were asked for"),
        ({"min_bytes": 9, "max_bytes": 9}, "min_bytes=9 must .* smaller than max_bytes=9"),
        ({"min_bytes": -1}, "min_bytes=-1 must not be negative"),
        ({"min_bytes": 0, "max_bytes": 3}, "max_bytes=3 .* 4 or more"),
        ({"min_bytes": 50, "max_bytes": 100}, "documents have 0 pieces of more than 50"),
    ],
)
def test_samples_that_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        chunk_documents(PIECES, **{"max_bytes": 10, "min_bytes": 5} | options)


def test_documents_that_are_no_text_are_refused_by_number():
    with pytest.raises(InputError, match=r"document 2: expected a text, got float nan"):
        chunk_documents([Document("a", "x" * 300), Document("a", math.nan)])
    with pytest.raises(InputError, match=r"document 1: not valid UTF-8, character 2 .* '\\ud800'"):
        chunk_documents([Document("a", "ab\ud800")])
    with pytest.raises(InputError, match="0 pieces"):
        chunk_documents([])


# The set


def test_ids_come_from_the_content():
    texts = text_set(["日本", "b", "日本", "日本"], ["x", "y", "z", "x"])
    first = hashlib.sha256("日本".encode()).hexdigest()[:12]
    ids = texts.frame.index.tolist()
    assert ids == [first, hashlib.sha256(b"b").hexdigest()[:12], f"{first}-2", f"{first}-3"]
    assert text_set(["new", "b"]).frame.index[1] == ids[1]
    assert texts.n_duplicates == 2
    assert "4 texts, 19 bytes, 2 duplicates" in repr(texts)
    assert "x (2), y (1), z (1)" in repr(texts)
    assert "duplicates" not in repr(text_set(["a", "b"]))


@REPEATABLE
@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8))
def test_ids_are_unique_and_lengths_are_utf8(texts):
    made = text_set(texts)
    assert made.texts == texts
    assert made.frame.index.is_unique
    assert made.frame["n_bytes"].tolist() == [len(text.encode()) for text in texts]
    assert made.n_duplicates == len(texts) - len(set(texts))


def test_fingerprint_is_of_texts_in_order():
    base = text_set(["ab", "c"], "s", name="n")
    same = text_set(["ab", "c"], ["x", "y"], name="other", text_ids=["1", "2"])
    assert base.fingerprint == same.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", base.fingerprint)
    assert base.fingerprint[:12] in repr(base)
    others = [["c", "ab"], ["a", "bc"], ["abc"], ["ab"], ["ab", "c", "c"], ["ab", "C"], ["ab", "c "]]
    assert len({base.fingerprint, *(text_set(other).fingerprint for other in others)}) == 8


def test_select_by_id_and_mask():
    texts = text_set(["a", "b", "c"], name="n", text_ids=["x", "y", "z"])
    assert texts.select(["z", "x"]).texts == ["c", "a"]
    assert texts.select(np.array(["y"])).texts == ["b"]
    assert texts.select(texts.frame["n_bytes"] == 1).texts == ["a", "b", "c"]
    assert texts.select([False, True, True]).texts == ["b", "c"]
    assert texts.select("y").name == "n"
    assert len(texts) == 3


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["text-1", "text-3"], r"text id 'text-3' is not among the 2 here \(closest: 'text-[12]'\)"),
        ([True], r"mask has shape \(1,\), there are 2 texts"),
        ([False, False], "no texts at all"),
        ([], "no texts at all"),
        (["text-1", "text-1"], "'text-1' is given to more than one text"),
        ([0], "text id '0' is not among the 2 here"),
    ],
)
def test_selections_that_are_refused(wanted, told):
    with pytest.raises(InputError, match=told):
        text_set(["a", "b"], text_ids=["text-1", "text-2"]).select(wanted)


def test_the_frame_given_can_change_without_harm():
    frame = pd.DataFrame({"text": ["a"], "source": [""], "n_bytes": [1]}, index=["x"])
    texts = TextSet(frame)
    frame.loc["x", "text"] = "other"
    assert texts.texts == ["a"]
    assert texts.frame.index.name == "text_id"


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ({"text": [], "source": [], "n_bytes": []}, "no texts at all"),
        ({"text": ["a"], "n_bytes": [1]}, "no column 'source'"),
        ({"text": ["a", ""], "source": "", "n_bytes": [1, 0]}, "text t1: the text is empty"),
        ({"text": ["a", None], "source": "", "n_bytes": [1, 0]}, "text t1: expected a text"),
        ({"text": ["a", "é"], "source": "", "n_bytes": [1, 1]}, "text t1: n_bytes is 1, the text has 2"),
    ],
)
def test_frames_that_are_refused(frame, told):
    index = [f"t{i}" for i in range(len(frame["text"]))]
    with pytest.raises(InputError, match=told):
        TextSet(pd.DataFrame(frame, index=index))


def test_ids_in_a_frame_must_be_unique_strings():
    columns = {"text": ["a", "b"], "source": "", "n_bytes": 1}
    with pytest.raises(InputError, match="text ids must be strings, got 0"):
        TextSet(pd.DataFrame(columns))
    with pytest.raises(InputError, match="text id 'x' is given to more than one"):
        TextSet(pd.DataFrame(columns, index=["x", "x"]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"texts": []}, "no texts at all"),
        ({"texts": "one string"}, r"got one string; write \[text\]"),
        ({"texts": ["a", ""]}, "text 2: the text is empty; remove it"),
        ({"texts": ["a", 5]}, "text 2: expected a text, got int 5"),
        ({"texts": ["a", b"b"]}, "text 2: expected a text, got bytes"),
        ({"texts": ["a\udcff"]}, r"text 1: not valid UTF-8, character 1 is the lone surrogate '\\udcff'"),
        ({"texts": ["a", "b"], "sources": ["x"]}, "2 texts, but 1 values for sources"),
        ({"texts": ["a", "b"], "sources": ["x", 3]}, "source of text 2: expected a text, got int 3"),
        ({"texts": ["a", "b"], "text_ids": ["x"]}, "2 texts, but 1 values for text_ids"),
        ({"texts": ["a", "b"], "text_ids": ["x", "x"]}, "text id 'x' is given to more than one text"),
        ({"texts": ["a", "b"], "text_ids": ["x", None]}, "text 2: no text_id; give one to every text or"),
        ({"texts": ["a", "b"], "columns": {"year": [1]}}, "2 texts, but 1 values for year"),
    ],
)
def test_texts_that_are_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        text_set(**arguments)


# Files


def test_txt_is_a_text_a_line_whatever_the_line_ends(tmp_path):
    content = "first\n  indented, kept  \n\n \t \nthird\u2028still third\x85\x0c\nlast without end"
    expected = ["first", "  indented, kept  ", "third\u2028still third\x85\x0c", "last without end"]
    unix, windows = tmp_path / "unix.txt", tmp_path / "windows.txt"
    unix.write_bytes(content.encode())
    windows.write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode() + b"\r\n")
    for file in (unix, windows):
        texts = read_texts(file)
        assert texts.texts == expected
        assert set(texts.frame["source"]) == {file.stem}
        assert texts.name == file.stem
    assert read_texts(unix).fingerprint == read_texts(str(windows)).fingerprint


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_jsonl_with_ids_sources_and_further_columns(tmp_path):
    file = tmp_path / "set.jsonl"
    rows = [
        {"text": "日本\n二行", "source": "ja", "text_id": 17, "year": 2020, "meta": {"a": 1}, "tags": ["x"]},
        {"text": "b", "source": "en", "text_id": "b", "year": 2021, "n_bytes": 99},
    ]
    file.write_text("\ufeff" + jsonl(*rows).replace("\n", "\r\n") + "\n \n", encoding="utf-8")
    texts = read_texts(file)
    assert texts.texts == ["日本\n二行", "b"]
    assert texts.frame.index.tolist() == ["17", "b"]
    assert texts.frame["source"].tolist() == ["ja", "en"]
    assert texts.frame["n_bytes"].tolist() == [13, 1]
    assert texts.frame["year"].tolist() == [2020, 2021]
    assert "tags" not in texts.frame


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({"source": "a", "pile_set_name": "b", "domain": "c"}, "a"),
        ({"pile_set_name": "Pile-CC", "domain": "c"}, "Pile-CC"),
        ({"meta": {"pile_set_name": "ArXiv"}}, "ArXiv"),
        ({"domain": "law"}, "law"),
        ({"source": 3}, "3"),
        ({}, "set"),
        ({"source": None}, "set"),
    ],
)
def test_where_the_source_stands(tmp_path, row, source):
    file, table = tmp_path / "set.jsonl", tmp_path / "set.parquet"
    file.write_text(jsonl({"text": "x"} | row))
    pd.DataFrame([{"text": "x"} | row]).to_parquet(table)
    for path in (file, table):
        assert read_texts(path).frame["source"].tolist() == [source]
        assert list(read_documents(path)) == [Document(source, "x")]


def test_rows_may_lack_what_is_optional(tmp_path):
    file = tmp_path / "set.jsonl"
    file.write_text(jsonl({"text": "a", "source": "s", "year": 2020}, {"text": "b", "lang": "ja"}))
    texts = read_texts(file)
    assert texts.frame["source"].tolist() == ["s", "set"]
    assert texts.frame["year"].isna().tolist() == [False, True]
    assert texts.frame["lang"].isna().tolist() == [True, False]
    texts.write(tmp_path / "again.parquet")
    assert read_texts(tmp_path / "again.parquet").frame["source"].tolist() == ["s", "set"]


def test_parquet_round_trip(tmp_path):
    columns = {"year": [2020, 2021, 2022, 2023, 2024], "share": [0.1, 0.2, 0.3, 0.4, 0.5]}
    texts = text_set(SAMPLES.values(), SAMPLES, name="all", columns=columns)
    file = tmp_path / "new folder" / "all.parquet"
    texts.write(file)
    again = read_texts(file)
    assert again.fingerprint == texts.fingerprint
    pd.testing.assert_frame_equal(again.frame, texts.frame)
    first = file.read_bytes()
    again.write(str(file))
    assert file.read_bytes() == first
    assert [path.name for path in file.parent.iterdir()] == ["all.parquet"]


def test_parquet_with_a_pandas_index(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b"], "kind": pd.Categorical(["x", "y"])}, index=["p", "q"])
    frame.rename_axis("text_id").to_parquet(tmp_path / "named.parquet")
    named = read_texts(tmp_path / "named.parquet")
    assert named.frame.index.tolist() == ["p", "q"]
    assert named.frame["kind"].tolist() == ["x", "y"]
    frame.to_parquet(tmp_path / "unnamed.parquet")
    unnamed = read_texts(tmp_path / "unnamed.parquet")
    assert unnamed.frame.index.tolist() == text_set(["a", "b"]).frame.index.tolist()
    assert set(unnamed.frame) == {"text", "source", "n_bytes", "kind"}
    numbered = frame.assign(text_id=[10, 20], words=[["a"], ["b"]]).reset_index(drop=True)
    numbered.to_parquet(tmp_path / "numbered.parquet")
    assert read_texts(tmp_path / "numbered.parquet").frame.index.tolist() == ["10", "20"]


def test_folder_is_a_text_a_file_and_subfolders_are_sources(tmp_path):
    folder = tmp_path / "set"
    for name, content in [("b.txt", "B\n"), ("code/x.py", "x = 1\r\n"), ("code/old/y.md", "é"), ("a", "A")]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode())
    (folder / ".hidden").write_bytes(b"\xff")
    (folder / ".git").mkdir()
    (folder / ".git" / "x").write_text("not this")
    texts = read_texts(folder)
    assert texts.name == "set"
    assert list(zip(texts.frame["source"], texts.texts, strict=True)) == [
        ("set", "A"),
        ("set", "B\n"),
        ("code/old", "é"),
        ("code", "x = 1\r\n"),
    ]
    assert [(d.source, d.text) for d in read_documents(folder)] == list(
        zip(texts.frame["source"], texts.texts, strict=True)
    )


def test_the_folder_one_stands_in_has_a_name(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "a.txt").write_text("A")
    monkeypatch.chdir(folder)
    texts = read_texts(".")
    assert (texts.name, texts.frame["source"].tolist()) == ("here", ["here"])


def test_documents_are_whole_files_and_rows(tmp_path):
    (tmp_path / "book.md").write_text("line\n\nline\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "rows.jsonl").write_text(jsonl({"text": "one", "source": "s"}, {"text": "two"}))
    assert list(read_documents(tmp_path / "book.md")) == [Document("book", "line\n\nline\n")]
    assert list(read_documents(tmp_path)) == [
        Document(tmp_path.name, "line\n\nline\n"),
        Document(tmp_path.name, ""),
        Document("s", "one"),
        Document(tmp_path.name, "two"),
    ]


# Files that are refused


@pytest.mark.parametrize("read", [read_texts, lambda path: list(read_documents(path))])
def test_missing_file_names_the_nearest(tmp_path, read):
    (tmp_path / "texts.jsonl").write_text(jsonl({"text": "a"}))
    with pytest.raises(InputError, match=r"no such file or folder: .*text\.jsonl \(closest: 'texts.jsonl'\)"):
        read(tmp_path / "text.jsonl")
    with pytest.raises(InputError, match=r"no such file or folder: .*nowhere/x\.txt$"):
        read(tmp_path / "nowhere" / "x.txt")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "a.csv",
            b"text\na\n",
            r"a\.csv: texts are read from \.txt, \.jsonl, \.parquet or a folder, not '.csv'",
        ),
        ("a.md", b"# a\n", "not '.md'"),
        ("noending", b"a", "not ''"),
        ("a.txt", b"", "a: no texts at all"),
        ("a.txt", b"\xef\xbb\xbf\n \r\n\t\n", "a: no texts at all"),
        ("a.txt", b"abc\xff", r"a\.txt: not UTF-8, byte 0xff at offset 3; convert the file"),
        ("a.txt", b"\xef\xbb\xbfabc\xe3\x81", "byte 0xe3 at offset 6"),
        ("a.txt", "naïve".encode("latin-1"), "byte 0xef at offset 2"),
        ("a.txt", "text".encode("utf-16"), "byte 0xff at offset 0"),
        ("a.jsonl", b"", r"a\.jsonl: no texts at all"),
        ("a.jsonl", b"\n\n", r"a\.jsonl: no texts at all"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', "line 3: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "line 2: expected an object with a field 'text', got list"),
        ("a.jsonl", b'[{"text": "a"}]', "line 1: expected an object"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"txt": "a", "n": 1}', r"line 1: no field 'text' \(closest: 'txt'\); it has txt, n"),
        ("a.jsonl", b'{"text": "a"}\n{}\n', "line 2: no field 'text'; it has none"),
        ("a.jsonl", b'{"text": ""}', "line 1: the text is empty"),
        ("a.jsonl", b'{"text": null}', "line 1: expected a text, got NoneType None"),
        ("a.jsonl", b'{"text": 3}', "line 1: expected a text, got int 3"),
        ("a.jsonl", b'{"text": ["a"]}', "line 1: expected a text, got list"),
        ("a.jsonl", b'{"text": "ab\\ud83d"}', r"line 1: not valid UTF-8, character 2 .* '\\ud83d'"),
        ("a.jsonl", b'{"text": "a", "source": "\\udc00"}', "line 1, field 'source': not valid UTF-8"),
        ("a.jsonl", b'{"text": "a", "\\udc00": 1}', r"line 1, field '\\udc00': not valid UTF-8"),
        (
            "a.jsonl",
            b'{"text": "a", "text_id": 1}\n{"text": "b"}',
            "a, text 2: no text_id; give one to every",
        ),
        ("a.jsonl", b'{"text": "a", "text_id": 1}\n{"text": "b", "text_id": "1"}', "'1' is given to more"),
        ("a.jsonl", b'{"text": "\xff"}', "not UTF-8, byte 0xff at offset 10"),
        ("a.parquet", b"no parquet", r"a\.parquet: cannot be read as Parquet"),
        ("a.parquet", b"", r"a\.parquet: cannot be read as Parquet"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_texts(tmp_path / name)


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ({"content": ["a"], "tekst": ["b"]}, r"no column 'text' \(closest: 'tekst'\); it has content, tekst"),
        ({"text": ["a", None]}, "text 2: expected a text, got"),
        ({"text": ["a", ""]}, "text 2: the text is empty"),
        ({"text": [1, 2]}, "text 1: expected a text, got int 1"),
        ({"text": [b"a"]}, "text 1: expected a text, got bytes b'a'"),
        ({"text": ["a", "b"], "text_id": [1, None]}, "text 2: no text_id"),
        ({"text": ["a", "b"], "text_id": ["x", "x"]}, "'x' is given to more than one text"),
        ({"text": pd.Series([], dtype=str)}, "no texts at all"),
    ],
)
def test_parquet_tables_that_are_refused(tmp_path, frame, told):
    pd.DataFrame(frame).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=told):
        read_texts(tmp_path / "a.parquet")


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(InputError, match="the folder holds no files"):
        read_texts(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    for read in (read_texts, lambda path: list(read_documents(path))):
        with pytest.raises(InputError, match=r"picture\.png: not UTF-8, byte 0x89 at offset 0"):
            read(tmp_path)
    (tmp_path / "sub" / "picture.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"picture\.png: the text is empty"):
        read_texts(tmp_path)


def test_writes_that_are_refused_leave_the_file_as_it_was(tmp_path):
    file = tmp_path / "a.parquet"
    text_set(["a", "b"]).write(file)
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"a column cannot be written \(.*year"):
        text_set(["a", "b"], columns={"year": [2020, "late"]}).write(file)
    assert file.read_bytes() == before
    with pytest.raises(InputError, match=r"written as \.parquet, not '\.txt'"):
        text_set(["a"]).write(tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


# The Hub, played by a stub


def test_hub_documents_are_streamed_with_their_sources(monkeypatch):
    rows = [{"text": "a", "meta": {"pile_set_name": "ArXiv"}}, {"text": "b", "source": "s"}, {"text": "c"}]
    asked = []

    def load_dataset(name: str, **options: object) -> list[dict[str, object]]:
        asked.append((name, options))
        return rows

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert list(read_hub_documents("some/set", split="validation")) == [
        Document("ArXiv", "a"),
        Document("s", "b"),
        Document("some/set", "c"),
    ]
    assert asked == [("some/set", {"split": "validation", "streaming": True})]
    with pytest.raises(InputError, match=r"some/set: no column 'txt' \(closest: 'text'\); it has text, meta"):
        list(read_hub_documents("some/set", text="txt"))


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'lmmap\[hub\]'"):
        list(read_hub_documents("some/set"))
