"""Every notebook runs to its end, on a tiny score set with tiny parameters, and says nothing on stderr."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny import byte_tokenizer

from lmmap.model_lists import read_models
from lmmap.notebooks import NotebookFailed, read_parameters, run_notebook
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.texts import TextSet, text_set

FOLDER = Path(__file__).parent.parent / "notebooks"

# Notebook -> what its parameters are here; {world} is the folder that the fixture below fills.
TINY: dict[str, dict[str, Any]] = {
    "00_what_is_kl": {"n_samples": 300},
    "01_first_map": {"run": "{world}/zoo"},
    "02_score_texts": {
        "model": "{world}/models/zoo-0",
        "other": "{world}/models/zoo-1",
        "real_model": "{world}/models/real-0",
        "chat_marker": "<|im_start|>",
        "sentence": "Paris.",
        "texts": "{world}/zoo/texts.parquet",
        "n_texts": 3,
    },
    "03_look_at_the_matrix": {"run": "{world}/zoo"},
    "04_double_centering": {
        "log_likelihoods": [[-1.5, -2.0, -9.0], [-3.0, -2.5, -4.0], [-1.0, -8.0, -2.0]],
        "counts": [2, 0, 1],
    },
    "05_kl_approximation": {"n_texts": 500},
    "06_validate_exact_kl": {
        "run": "{world}/zoo",
        "models": "{world}/zoo.yaml",
        "real_models": "{world}/real.yaml",
        "n_texts": 6,
        "n_samples": 2,
        "n_tokens": 8,
        "n_real": 3,
    },
    "07_model_map": {"run": "{world}/zoo", "ends": ["zoo-0", "zoo-1"], "real_run": "{world}/real"},
    "08_explore": {"run": "{world}/zoo"},
    "09_published_map": {"n_models": 40, "n_texts": 150},
    "10_predict_benchmarks": {"n_models": 60, "n_texts": 150, "n_seeds": 2},
    "11_structure": {"n_models": 40, "n_texts": 150, "n_permutations": 19, "n_resamples": 5},
    "12_leaks": {"n_models": 120, "n_texts": 150},
    "13_interpolation": {
        "folder": "{world}/models",
        "models": ["zoo-1", "zoo-3", "zoo-1-step5"],
        "texts": "{world}/zoo/texts.parquet",
        "steps": [0.5],
        "real_model": None,
    },
    "solutions/00_what_is_kl": {},
    "solutions/04_double_centering": {},
    "solutions/05_kl_approximation": {},
    "solutions/06_validate_exact_kl": {
        "run": "{world}/zoo",
        "models": "{world}/zoo.yaml",
        "n_models": 3,
        "n_texts": 4,
        "percent": 5.0,
    },
}
FIGURES = {
    "01_first_map": ["zoo_map"],
    "03_look_at_the_matrix": ["matrix"],
    "07_model_map": ["smollm2_map", "zoo_heatmap", "zoo_methods", "zoo_one_source", "zoo_paths"],
    "08_explore": ["explored_map"],
    "09_published_map": ["published_map", "published_map_raw"],
    "10_predict_benchmarks": ["prediction"],
    "11_structure": ["structure_dimensions", "structure_ellipses", "structure_heatmap"],
    "12_leaks": ["leaks"],
    "13_interpolation": ["interpolation_grid"],
}
WIDGET = "application/vnd.jupyter.widget-view+json"
MAPS = ("01_first_map", "08_explore")  # show a widget, and a picture where there is nobody to move it


@pytest.fixture(scope="session")
def world(make_model, tmp_path_factory) -> Path:
    """A zoo of eight tiny models, checkpoints and mixtures among them, and two of another tokenizer."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "models").mkdir()
    zoo, real = [], []
    for seed, (name, attributes) in enumerate(zoo_rows().items()):
        (folder / "models" / name).symlink_to(make_model(("gpt_neox", "llama")[seed % 2], seed=seed))
        zoo.append({"model": f"./models/{name}", **attributes})
    for seed in range(2):
        made = make_model("llama", seed=20 + seed, tokenizer=chat_tokenizer())
        (folder / "models" / f"real-{seed}").symlink_to(made)
        real.append({"model": f"./models/real-{seed}", "family": "real"})
    texts = some_texts()
    for name, entries, scored in (("zoo", zoo, texts), ("real", real, texts.select(texts.frame.index[::2]))):
        (folder / f"{name}.yaml").write_text(json.dumps(entries))
        specs = read_models(folder / f"{name}.yaml")
        assert not score_models(Store.create(folder / name, scored), specs, threads=1)
    return folder


def zoo_rows() -> dict[str, dict[str, Any]]:
    kinds = {"zoo-0": "trained", "zoo-1": "trained", "zoo-2": "trained", "zoo-3": "trained"}
    kinds |= {"zoo-1-step1": "checkpoint", "zoo-1-step5": "checkpoint"}
    kinds |= {"zoo-0-zoo-1-1of3": "interpolated", "zoo-0-zoo-1-2of3": "interpolated"}
    return {
        name: {
            "family": f"family-{i % 3}",
            "tokenizer": "bpe" if i < 3 else "bytes",
            "domain": ("python", "prose")[i % 2],
            "step": int(name.partition("-step")[2] or 20),
            "kind": kind,
        }
        for i, (name, kind) in enumerate(kinds.items())
    }


def chat_tokenizer() -> Any:
    return byte_tokenizer(bos_token="<|im_start|>", eos_token="<|endoftext|>")


def some_texts() -> TextSet:
    kinds = {
        "python": "def f_{0}(x):\n    return x * {0}\n",
        "prose": "Sentence {0} is made of words, {0} of them. ",
    }
    texts = [(text.format(i) * (1 + i % 3), source) for source, text in kinds.items() for i in range(8)]
    return text_set(*zip(*texts, strict=True))


def fill(value: Any, world: Path) -> Any:
    return value.format(world=world) if isinstance(value, str) else value


def run(stem: str, world: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Run a notebook, and give the executed one."""
    notebook = FOLDER / f"{stem}.ipynb"
    given = {name: fill(value, world) for name, value in {**TINY[stem], **changes}.items()}
    given |= {name: str(folder / name) for name in ("figures", "tables") if name in read_parameters(notebook)}
    done = run_notebook(notebook, parameters=given, output=folder / "executed.ipynb", progress=False)
    return json.loads(done.output.read_text(encoding="utf-8"))


def said(executed: dict[str, Any], stream: str) -> str:
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(o["text"]) for o in outputs if o.get("name") == stream)


def kinds_of_outputs(executed: dict[str, Any]) -> set[str]:
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    return {kind for output in outputs for kind in output.get("data", {})}


def texts_of(executed: dict[str, Any], kind: str) -> list[str]:
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    return ["".join(output["data"][kind]) for output in outputs if kind in output.get("data", {})]


def test_every_notebook_has_tiny_parameters() -> None:
    found = [*FOLDER.glob("*.ipynb"), *FOLDER.glob("solutions/*.ipynb")]
    assert sorted(TINY) == sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in found)


@pytest.mark.parametrize("stem", sorted(TINY))
def test_notebook_runs_in_silence(stem: str, world: Path, tmp_path: Path) -> None:
    executed = run(stem, world, tmp_path)
    assert said(executed, "stderr") == ""
    assert (WIDGET in kinds_of_outputs(executed)) == (stem in MAPS), "nobody can move it"
    if stem in MAPS:
        assert any('<img alt="The map of models' in html for html in texts_of(executed, "text/html"))
    written = [path.name for path in sorted((tmp_path / "figures").glob("*.[ps]*"))]
    if stem in FIGURES:
        assert written == [f"{name}.{kind}" for name in FIGURES[stem] for kind in ("png", "svg")]


def test_skipping_the_words_that_a_document_lacks_gives_a_negative_number(
    world: Path, tmp_path: Path
) -> None:
    executed = run("00_what_is_kl", world, tmp_path, first="a b c", second="a")
    assert f"skipping: {-math.log(3) / 3:.3f} nats, negative" in said(executed, "stdout")
    assert "Documents: inf as counted" in said(executed, "stdout")


def test_what_only_the_demo_has_is_skipped_politely(world: Path, tmp_path: Path) -> None:
    executed = run("07_model_map", world, tmp_path, real_run="../runs/nowhere", ends=["a", "b"])
    assert "../runs/nowhere is not here" in said(executed, "stdout")


@pytest.mark.parametrize("stem", ["09_published_map", "10_predict_benchmarks", "11_structure", "12_leaks"])
def test_analyses_of_a_run_without_benchmarks_say_so_and_do_the_rest(
    stem: str, world: Path, tmp_path: Path
) -> None:
    executed = run(stem, world, tmp_path, run="{world}/zoo")
    assert said(executed, "stderr") == ""
    assert "synthetic, nothing is measured" not in said(executed, "stdout")
    assert ("these models have no benchmark scores" in said(executed, "stdout")) == (stem != "11_structure")
    written = sorted(path.stem for path in (tmp_path / "figures").glob("*.png"))
    assert written == (FIGURES[stem] if stem in ("09_published_map", "11_structure") else [])


def test_a_run_that_does_not_exist_is_told_with_what_to_do(world: Path, tmp_path: Path) -> None:
    with pytest.raises(NotebookFailed, match=r"InputError.*no score set in .*nowhere: make one with `lmmap"):
        run("01_first_map", world, tmp_path, run=str(tmp_path / "nowhere"))
