"""Files that are not what they seem, and tables of models with mistakes, are refused by what is wrong."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lmmap.cli import main
from lmmap.errors import InputError
from lmmap.imports.foreign_files import existing_file, read_json
from lmmap.imports.model_tables import read_attributes
from lmmap.imports.published import read_weights
from lmmap.imports.scores import read_scores
from lmmap.imports.text_lists import read_text_list


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.pkl.gz", gzip.compress(b"x", mtime=0), "compressed with gzip; unpack it first"),
        ("a.pkl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        ("a.pkl", b"\n<!DOCTYPE html>", "a web page"),
        ("a.npz", b"\x93NUMPY\x01\x00", "a single array without names"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", "model,a\nm,-1\n".encode("utf-16"), "not UTF-8"),
        ("a.pkl", b"model,a\nm,-1\n", "no pickle"),
    ],
)
def test_a_file_is_told_by_its_first_bytes(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*{told}"):
        read_scores(file)


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(pickle.dumps({"m": np.array([-1.0])}))
    assert read_scores(file).form == "model -> values"
    with (tmp_path / "a.pkl").open("wb") as out:
        np.savez(out, values=[[-1.0]], models=["m"])
    assert read_scores(tmp_path / "a.pkl").form == "npz"


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet", ".pkl", ".jsonl"])
def test_a_huge_file_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"huge{suffix}"
    with file.open("wb") as out:
        out.truncate(10 * 2**30)
    with pytest.raises(InputError, match=rf"huge{suffix}: 10,737,418,240 bytes, more than the 2,147,483,648"):
        read_scores(file)
    for name, most in ((".json", "134,217,728"), (".yaml", "4,194,304")):
        table = file.rename(tmp_path / f"huge{name}")
        with pytest.raises(InputError, match=f"10,737,418,240 bytes, more than the {most} that are read"):
            read_attributes(table)
        file = table
    with pytest.raises(InputError, match="10,737,418,240 bytes"):
        read_text_list(file.rename(tmp_path / "huge.json"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; give a file in it"):
        existing_file(tmp_path)
    with pytest.raises(InputError, match=r"is a folder without samples_\*\.jsonl"):
        read_scores(tmp_path)
    told = CliRunner().invoke(main, ["import", str(tmp_path), "--out", str(tmp_path / "run")])
    assert (told.exit_code, "Traceback" in told.output) == (1, False)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"a": {}, "a": {}}', "'a' is given more than once"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_json_is_refused_by_what_is_wrong(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json: .*{told}"):
        read_json(file)


def test_json_may_begin_with_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text('["a", "b"]', encoding="utf-8-sig")
    assert read_text_list(file).texts == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"model,x,x\na,1,2\n", "two columns are called 'x'"),
        (b"model,x\na,1,2\n", "line 2: 3 cells, the first line has 2"),
        (b"model,x\na\n", "line 2: 1 cells, the first line has 2"),
        (b"model,x\n\xe9,1\n", "not UTF-8"),
        (b"model;x\na;1\n", "no model's name"),
        (b"model,x\n,1\n", "entry 1: no model's name"),
        (b"model,x\na,1\na,2\n", "'a' is given more than once"),
    ],
)
def test_a_table_of_models_with_a_mistake_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "models.csv"
    file.write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_attributes(file)


def test_a_table_of_models_may_come_from_windows(tmp_path: Path) -> None:
    file = tmp_path / "models.csv"
    file.write_text("model,size\r\n7,0.5\r\n\r\n", encoding="utf-8-sig", newline="")
    assert read_attributes(file) == {"7": {"size": 0.5}}


def test_values_of_texts_are_no_attributes(tmp_path: Path) -> None:
    file = tmp_path / "models.pkl"
    entry = {
        "model_name": "a",
        "by_text": np.zeros(10),
        "color": np.array([1.0, 0, 0, 1]),
        "tags": {"b"},
    }
    file.write_bytes(pickle.dumps([entry]))
    assert read_attributes(file) == {"a": {"color": "#ff0000", "tags": "b"}}


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"unique_index": [0, -1], "weights": [1, 1]}, "text -1 is selected"),
        ({"unique_index": [0, 1.5], "weights": [1, 1]}, "expected whole numbers"),
        ({"unique_index": [0, 1], "weights": [1]}, "2 texts are selected, with 1 weights"),
        ({"unique_index": [0, 0], "weights": [1, 1]}, "a text is selected twice"),
        ({"unique_index": [0], "weights": [float("nan")]}, "weights must be finite"),
        ({"unique_index": [[0]], "weights": [1]}, "expected a list of numbers"),
    ],
)
def test_weights_with_a_mistake_are_refused(tmp_path: Path, chosen: object, told: str) -> None:
    file = tmp_path / "weights.pkl"
    file.write_bytes(pickle.dumps({0: {2: chosen}}))
    with pytest.raises(InputError, match=told):
        read_weights(file, 2, 5)
    file.write_bytes(pickle.dumps({0: {2: chosen}, 1: [3]}))
    with pytest.raises(InputError, match="expected seed -> n"):
        read_weights(file, 2, 5, seed=1)


def sample(doc: object, text: object = "x", value: object = "-1.5") -> str:
    """One line, with all fields of a rolling likelihood that current versions log."""
    return json.dumps(
        {"doc_id": doc, "doc": {"page": text}, "target": text, "filter": "none",
         "arguments": {"gen_args_0": {"arg_0": text}}, "resps": [[value]], "filtered_resps": [value],
         "doc_hash": "0", "prompt_hash": "1", "target_hash": "2", "word_perplexity": [value, 2]}
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [sample(float("inf"), "y"), sample("1", "y"), sample(1, "y", 10**400), sample(1, "y", "(-1.5, False)"),
     sample(1, 5), "[" * 100_000, '{"doc_id": 1, "a": "\udce9"}', "5"],
)  # fmt: skip
def test_a_sample_that_cannot_be_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "org__model" / "samples_task_2025-01-01T00-00-00.0.jsonl"
    file.parent.mkdir()
    file.write_bytes(f"{sample(0)}\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"line 2: no sample of a rolling likelihood"):
        read_scores(file)


def test_samples_in_the_folder_where_one_stands_have_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "org__model"
    folder.mkdir()
    (folder / "samples_task_2025-01-01T00-00-00.0.jsonl").write_text(sample(0) + "\n" + sample(1, "y") + "\n")
    monkeypatch.chdir(folder)
    assert read_scores("samples_task_2025-01-01T00-00-00.0.jsonl").models == ("org/model",)
