"""Commands: results on stdout, progress on stderr, an exit status that tells the truth, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lmmap.cli import main
from lmmap.store import Store
from lmmap.text_files import read_texts


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("".join(f"line {i}: 日本 and some more words\n" for i in range(12)) + "line 0\nline 0\n")
    return file


@pytest.fixture(scope="module")
def models(make_model, tmp_path_factory) -> Path:
    entries = [
        {"model": str(make_model("llama", seed=seed)), "name": f"llama-{seed}", "family": f"f{seed % 2}"}
        for seed in range(4)
    ]
    file = tmp_path_factory.mktemp("models") / "models.yaml"
    file.write_text(json.dumps(entries))
    return file


@pytest.fixture(scope="module")
def scored(texts, models, tmp_path_factory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, run("score", folder, "--models", models, "--texts", texts, "--threads", 1)


def test_score_prints_what_is_done_and_progress_goes_to_stderr(scored):
    folder, result = scored
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{folder}: 4 models: 4 done"
    assert "14 texts" in result.stderr
    assert "1 duplicates" in result.stderr
    assert "4/4 models: llama-" in result.stderr
    assert "tokens/s" in result.stderr
    assert Store(folder).load().values.shape == (4, 14)


def test_score_goes_on_without_naming_the_texts_again(scored, models):
    result = run("score", scored[0], "--models", models)
    assert result.exit_code == 0
    assert "done," not in result.stderr


def test_status_lists_every_model(scored):
    result = run("status", scored[0])
    assert result.exit_code == 0
    assert [line.split()[1] for line in result.stdout.splitlines()[2:6]] == [f"llama-{i}" for i in range(4)]


def test_one_model_that_fails_is_listed_and_the_exit_status_says_so(texts, models, tmp_path):
    entries = [{"model": str(tmp_path / "nowhere")}, json.loads(models.read_text())[0]]
    (tmp_path / "two.yaml").write_text(json.dumps(entries))
    result = run("score", tmp_path / "run", "--models", tmp_path / "two.yaml", "--texts", texts)
    assert result.exit_code == 1
    assert f"{tmp_path / 'run'}: 2 models: 1 done, 1 failed" in result.stdout
    assert "no such folder or file" in result.stdout
    status = run("status", tmp_path / "run")
    assert status.exit_code == 0
    assert "no such folder or file" in status.stdout


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_map_draws_one_picture(scored, tmp_path, suffix):
    picture = tmp_path / f"map{suffix}"
    result = run("map", scored[0], "-o", picture, "--method", "pca", "--color", "family", "--clip", "0.02")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{picture}: 4 models")
    assert picture.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
    assert list(tmp_path.iterdir()) == [picture]


def test_texts_cuts_documents(tmp_path):
    (tmp_path / "books" / "a").mkdir(parents=True)
    (tmp_path / "books" / "a" / "one.txt").write_text("日本語。" * 300)
    result = run("texts", tmp_path / "books", "-o", tmp_path / "cut.parquet", "-n", 2)
    assert result.exit_code == 0, result.output
    cut = read_texts(tmp_path / "cut.parquet")
    assert cut.fingerprint[:12] in result.stdout
    assert cut.frame["source"].tolist() == ["a", "a"]
    assert cut.frame["n_bytes"].between(257, 1024).all()


def test_mistakes_are_told_in_one_line(scored, texts, models, tmp_path):
    folder = scored[0]
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "twice.yaml").write_text("- {model: gpt2}\n- {model: gpt2}\n")
    (tmp_path / "other.txt").write_text("other texts\n")
    mistakes = {
        "no such models list": ("score", folder, "--models", tmp_path / "none.yaml"),
        "no such file or folder": ("score", folder, "--models", models, "--texts", tmp_path / "none.txt"),
        "not UTF-8, byte 0xe9 at offset 3": (
            *("score", tmp_path / "r", "--models", models),
            *("--texts", tmp_path / "latin.txt"),
        ),
        "two models are called 'gpt2'": ("score", folder, "--models", tmp_path / "twice.yaml"),
        "use another folder": ("score", folder, "--models", models, "--texts", tmp_path / "other.txt"),
        "no score set in": ("status", tmp_path / "nothing"),
        "a picture is .png or .svg": ("map", folder, "-o", tmp_path / "map.jpg"),
        "no attribute 'famly' (closest: 'family')": (
            *("map", folder, "-o", tmp_path / "map.png"),
            *("--method", "pca", "--color", "famly"),
        ),
        "quantile must lie between 0 and 1, got 2.0": (
            *("map", folder, "-o", tmp_path / "map.png"),
            *("--method", "pca", "--clip", "2"),
        ),
    }
    for message, arguments in mistakes.items():
        result = run(*arguments)
        assert result.exit_code == 1, message
        assert message in result.stderr
        assert "Traceback" not in result.output
        assert not result.stdout
    assert sorted(f.name for f in tmp_path.iterdir()) == ["latin.txt", "other.txt", "twice.yaml"]
