"""What README shows is run: its commands, its Python session, its list of models, its links."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from published_files import write_published

from lmmap.cli import main
from lmmap.lookalike import make_lookalike
from lmmap.model_lists import read_models
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.texts import text_set

ROOT = Path(__file__).parent.parent
READMES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md")}


def blocks(language: str, readme: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", READMES[readme], re.MULTILINE | re.DOTALL)


def commands(readme: str = "README.md") -> list[list[str]]:
    lines = "\n".join(blocks("sh", readme)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lmmap ")]


@pytest.fixture(scope="module")
def workplace(make_model, tmp_path_factory) -> Path:
    """A folder with what README's commands expect to find, on tiny models."""
    folder = tmp_path_factory.mktemp("readme")
    entries = [
        {"model": str(make_model("llama", seed=seed)), "name": name, "family": f"f{seed % 2}"}
        for seed, name in enumerate(("llama-0", "llama-1", "llama-2", "llama-3", "gpt2"))
    ]
    (folder / "models.yaml").write_text(json.dumps(entries))
    (folder / "my-documents").mkdir()
    for i in range(3):
        (folder / "my-documents" / f"{i}.txt").write_text(f"Document {i} says the same again. " * 3000)
    texts = text_set([f"text {i} " * (i + 1) for i in range(12)], ["a", "b"] * 6)
    score_models(
        Store.create(folder / "runs" / "demo", texts), read_models(folder / "models.yaml"), threads=1
    )
    published = write_published(folder, make_lookalike(12, 400, n_families=3, n_sources=3))
    assert {"clipped_log-likelihood_1018.pkl", "texts-10k-pile.jsonl", "model-data-1018.pkl"} <= {
        path.name for path in published.values()
    }
    (folder / "my-finetune").symlink_to(make_model("llama", seed=9))
    for name in ("notebooks", "figures"):
        (folder / name).mkdir()
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        (folder / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    return folder


def test_the_commands_run(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    shown = commands()
    assert {command[0] for command in shown} == {
        "texts", "score", "status", "map", "forget", "run", "import", "place", "export",
    }  # fmt: skip
    for command in shown:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, (command, result.output)
    assert (workplace / "mine.svg").exists()
    assert len(list(workplace.glob("runs/notebooks/05_kl_approximation/05*.ipynb"))) == 2


def test_the_japanese_commands_are_those_of_the_english(workplace):
    shown = commands("README.ja.md")
    assert shown
    assert all(command in commands() for command in shown)


def test_the_python_session_runs(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    (session,) = blocks("python")
    names: dict[str, object] = {}
    exec(session, names)
    printed = capsys.readouterr().out
    assert printed.startswith("LogLikelihoods: 5 models x 12 texts, nats")
    assert names["model_map"].caption() in printed
    assert names["kl"].shape == (5, 5)
    assert (workplace / "map.svg").stat().st_size > 1000


def test_the_list_of_models_is_read(tmp_path):
    (example,) = blocks("yaml")
    (tmp_path / "models.yaml").write_text(example)
    specs = read_models(tmp_path / "models.yaml")
    assert [spec.is_local for spec in specs] == [False, False, True]
    assert specs[-1].prefix == "<|endoftext|>"


@pytest.mark.parametrize("readme", READMES)
def test_links_and_pictures_are_there(readme):
    links = re.findall(r"\]\(([^)#]+)\)", READMES[readme])
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_the_tree_names_every_room():
    tree = READMES["README.md"].split("## What lies where")[1]
    rooms = {p.name for p in (ROOT / "lmmap").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    quiet = {"__init__.py", "__main__.py", "version.py", "errors.py"}
    assert not [room for room in sorted(rooms - quiet) if room not in tree]
