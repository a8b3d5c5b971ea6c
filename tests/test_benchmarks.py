"""The benchmarks of speed, on a CPU: tiny shapes, few texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import queue, report, shapes, speed
from benchmarks.plain import PlainModel, Reading
from benchmarks.results import keep_row, read_rows
from benchmarks.shapes import SEPARATOR, ShapedModel, get_model, get_texts
from benchmarks.ways import CountingModel, lean, lmmap, published, whole_row
from lmmap.errors import InputError
from lmmap.files import read_json, write_json
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model
from lmmap.texts import text_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with 60 texts of many lengths in place of the installed packages' 10,000."""
    made = tmp_path_factory.mktemp("bench")
    source = Path(shapes.__file__).read_text()
    text_set((source[40 * i : 40 * i + 20 + 9 * i] for i in range(60)), name="few").write(
        made / "texts.parquet"
    )
    return made


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    return get_model(folder, ShapedModel("tiny"), "cpu")


def test_the_ways_score_the_same_tokens_as_a_plain_loop(folder: Path, tiny: Path) -> None:
    texts = get_texts(folder, 20).texts
    plain, oracle = CountingModel(tiny, "cpu"), PlainModel(str(tiny), SEPARATOR, None)
    expected = [oracle.score(text, Reading()) for text in texts]
    loaded = load_model(ModelSpec(str(tiny)))
    for scored in (lean(plain, texts, 300), lmmap(loaded, texts, 300), whole_row(tiny, "cpu", 300, texts)):
        np.testing.assert_allclose(scored.log_likelihoods, expected, atol=1e-3)
    without_prefix = [oracle.score(text, Reading("default", "truncated")) for text in texts]
    np.testing.assert_allclose(published(plain, texts).log_likelihoods, without_prefix, atol=1e-3)


def test_the_ways_tell_how_many_positions_were_read(folder: Path, tiny: Path) -> None:
    texts, plain = get_texts(folder, 6).texts, CountingModel(tiny, "cpu")
    loaded, lengths = load_model(ModelSpec(str(tiny))), [len(ids) for ids in plain.cut(texts)]
    assert len(set(lengths)) > 1
    for budget, padded in ((1, sum(lengths)), (10**6, 6 * max(lengths))):
        assert lean(plain, texts, budget).n_positions == padded
        assert lmmap(loaded, texts, budget).n_positions == padded
    assert published(plain, texts).n_positions == sum(map(len, plain.tokenizer(list(texts))["input_ids"]))


def test_texts_are_chosen_evenly_and_always_the_same(folder: Path) -> None:
    every = get_texts(folder, 60).texts
    assert list(get_texts(folder, 20).texts) == list(every)[::3]
    with pytest.raises(InputError, match=r"61 texts are asked for and .* has 60"):
        get_texts(folder, 61)


def test_texts_of_the_installed_packages_are_as_long_as_the_published_ones(tmp_path: Path) -> None:
    lengths = get_texts(tmp_path).frame["n_bytes"]
    assert len(lengths) == 10_000
    assert lengths.min() > 256
    assert lengths.max() <= 1024


def test_a_seed_decides_a_model_and_further_large_ones_share_its_weights(
    folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = "model.safetensors"
    other = get_model(folder, ShapedModel("tiny", 1), "cpu")
    assert (other / weights).read_bytes() != (tiny / weights).read_bytes()
    monkeypatch.setattr(shapes, "LINKED_ABOVE", 0)
    linked = get_model(folder, ShapedModel("tiny", 2), "cpu")
    assert (linked / weights).samefile(tiny / weights)
    assert "benchmark_seed" not in json.loads((tiny / "config.json").read_text())
    hashes = {ModelSpec(str(path)).files_hash for path in (tiny, other, linked)}
    assert len(hashes) == 3
    assert load_model(ModelSpec(str(linked))).vocab_size == 512


def test_weights_in_several_files_are_shared_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SHARD", "40KB")
    monkeypatch.setattr(shapes, "LINKED_ABOVE", 0)
    first, second = (get_model(folder, ShapedModel("tiny-neox", seed), "cpu") for seed in (0, 1))
    files = [file.name for file in first.glob("*.safetensors*")]
    assert len(files) > 2
    assert all((second / name).samefile(first / name) for name in files)
    assert load_model(ModelSpec(str(second))).n_parameters * 2 == pytest.approx(
        shapes.weight_bytes(first), rel=0.1
    )


def test_a_model_that_was_broken_off_is_made_anew(folder: Path, tiny: Path) -> None:
    unfinished = folder / "models" / ".tiny-3"
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes(b"half")
    made = get_model(folder, ShapedModel("tiny", 3), "cpu")
    assert not unfinished.exists()
    assert shapes.weight_bytes(made) == shapes.weight_bytes(tiny)


@pytest.mark.parametrize("shape", [name for name in shapes.SHAPES if not name.startswith("tiny")])
def test_every_shape_has_as_many_parameters_as_its_name_says(shape: str) -> None:
    known = {
        "gpt2": 124e6,
        "small-moe": 305e6,
        "qwen3-0.6b": 596e6,
        "llama-3-8b": 8.03e9,
        "pythia-160m": 162e6,
    }
    known |= {"pythia-410m": 405e6, "pythia-1.4b": 1.415e9, "bloom-560m": 559e6}
    expected = known.get(shape) or 1e6 * int(shape.rpartition("-")[2].removesuffix("m"))
    settings = dict(shapes.SHAPES[shape])
    with torch.device("meta"):
        config = shapes.AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = shapes.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(expected, rel=0.01)


def test_speed_writes_a_row_for_every_way_and_replaces_its_own(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "speed.json"
    keep_row(output, {"model": "another", "way": "lean", "device": "GPU"}, speed.IDENTITY)
    words = [str(folder), "--device", "cpu", "--shape", "tiny", "--n-texts", "12", "--published-texts", "3"]
    words += ["--without", "lm-eval", "-o", str(output)]
    for _ in range(2):
        done = CliRunner().invoke(speed.main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    another, *rows = read_rows(output)
    assert another["model"] == "another"
    ways = ["published", "lean", "lmmap", "lmmap, tokens at hand", "lmmap, whole row"]
    assert [row["way"] for row in rows] == ways
    assert [row["n_texts"] for row in rows] == [3, 12, 12, 12, 12]
    assert rows[0]["ratio_to_reference"] == 1
    assert all(row["sd_to_lean"] < 1e-3 for row in rows[2:])
    for row in rows:
        assert row["tokens_per_s"] == pytest.approx(row["n_tokens"] / row["seconds"], rel=0.3)
        assert row["mfu"] == row["mfu_without_embedding"], "its embedding is its output layer"
        assert row["peak_gib"] is None
        assert {"versions", "command", "date", "matrix_tflops", "padding"} <= set(row)
    assert len({row["date"] for row in rows}) == 1


def test_speed_says_what_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    done = CliRunner().invoke(speed.main, [str(folder), "--device", "cpu", "--shape", "tiny"])
    assert done.exit_code == 1
    assert "--without lm-eval" in done.output


def test_a_shape_that_is_none_is_named(folder: Path) -> None:
    done = CliRunner().invoke(shapes.main, [str(folder), "--shape", "lama"])
    assert done.exit_code == 2
    assert "no such shape: lama" in done.output


def test_memory_that_does_not_suffice_for_one_way_leaves_the_others(
    folder: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = speed.Run("tiny", get_texts(folder, 4).texts, "cpu", 1, None, {"matrix_tflops": 1.0})
    run.about(CountingModel(tiny, "cpu"))

    def too_large(texts: object) -> speed.Scored:
        raise torch.OutOfMemoryError

    run.measure("large", run.texts, too_large)
    assert "out of memory" in capsys.readouterr().out


def test_a_queue_is_scored_by_the_command_and_compared_with_itself(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "queue.json"
    words = [str(folder), "--device", "cpu", "--model", "tiny", "--model", "tiny:1", "--n-texts", "8"]
    done = CliRunner().invoke(queue.main, [*words, "-o", str(output)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (row,) = read_rows(output)
    assert (row["way"], row["n_texts"], row["n_failed"], row["same_bytes"]) == ("1 CPU worker", 8, 0, None)
    assert row["n_models"] == len(row["rows"]) == 2
    assert row["seconds"] > sum(row["rows"].values())
    assert row["tokens_per_s"] == pytest.approx(row["n_tokens"] / row["seconds"], rel=0.01)

    bench, run = queue.Bench(folder, [], "cpu", []), folder / "runs" / "1-2-8"
    journal = run / "journal" / f"{next(iter(row['rows']))}.json"
    write_json(journal, read_json(journal) | {"stages": {"read": 0.5, "score": 1.0}})
    other = next(file for file in journal.parent.glob("*.json") if file != journal)
    write_json(other, read_json(other) | {"stages": {"score": 0.25}})
    assert bench.told(run, 2, 2.0, [])["shares"] == {"read": 0.125, "score": 0.3125}
    assert bench.told(run, 2, 1.0, [])["same_bytes"] is None, "there is no other"
    shutil.copytree(run, run.with_name("2-2-8"))
    assert bench.told(run, 2, 1.0, [])["same_bytes"] is True
    tokens = next((run / "tokens").glob("*.parquet"))
    tokens.write_bytes(tokens.read_bytes() + b"1")
    assert bench.told(run, 2, 1.0, [])["same_bytes"] is False


def test_a_queue_that_cannot_begin_tells_why(folder: Path, tiny: Path) -> None:
    bench = queue.Bench(folder, [("tiny", tiny)], "cpu", ["--prefix=neither"])
    with pytest.raises(queue.click.ClickException, match="neither"):
        bench.measure(1, 1, 4)


def test_the_gpus_are_watched_while_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda gpu: 25 * (1 + gpu))
    with queue.gpu_busy(2) as busy:
        pass
    assert busy[:2] == [0.25, 0.5]
    with queue.gpu_busy(0) as busy:
        pass
    assert busy == []


COMMON = {
    "device": "GPU",
    "versions": {"torch": "2"},
    "command": "python -m b",
    "date": "2026-01-02T03:04:05",
}
SPEED = {"model": "m", "mfu": 0.25, "mfu_without_embedding": 0.2, "peak_gib": 1.5, "padding": 0.01} | COMMON
SPEED |= {"n_texts": 1000, "n_parameters": 7, "sd_to_lean": None, "matrix_tflops": 788.0}
QUEUE = {"model": "queue of 3", "n_models": 3, "n_texts": 10, "n_failed": 0, "tokens_per_s": 5.0} | COMMON
QUEUE |= {"gpu_busy": 0.875, "shares": {"load": 0.25, "score": 0.5}, "same_bytes": None, "processors": 1}


def test_the_table_of_speed_has_ratios_within_a_run() -> None:
    rows = [
        SPEED | {"way": "published", "tokens_per_s": 10.0, "ratio_to_reference": 1.0},
        SPEED | {"way": "lm-eval, batch 4", "tokens_per_s": 40.0, "ratio_to_reference": 4.0},
        SPEED | {"way": "lm-eval, batch 16", "tokens_per_s": 50.0, "ratio_to_reference": 5.0},
        SPEED | {"way": "lmmap", "tokens_per_s": 1500.0, "ratio_to_reference": 150.0, "sd_to_lean": 0.01},
        SPEED | {"way": "lean", "tokens_per_s": 9.0, "ratio_to_reference": None, "date": "2026-02-02"},
    ]
    table = report.speed_table(rows).splitlines()
    assert "| m | lmmap | 1,500 | 25.0% | 20.0% | 150 | 30 | 1.5 | 1.0% | 0.01 | 1,000 |" in table
    assert "| m | published | 10 | 25.0% | 20.0% | 1 | 0.2 | 1.5 | 1.0% | – | 1,000 |" in table
    assert "| m | lean | 9 | 25.0% | 20.0% | – | – | 1.5 | 1.0% | – | 1,000 |" in table
    assert "788 TFLOP/s" in table[-1]


def test_the_table_of_queues_compares_with_one_gpu() -> None:
    rows = [
        QUEUE | {"way": "2 GPUs", "processors": 2, "seconds": 5.0, "same_bytes": True, "n_failed": 1},
        QUEUE | {"way": "1 GPU", "seconds": 9.5},
    ]
    table = report.queue_table(rows).splitlines()
    assert table[4:6] == [
        "| 3 | 10 | 1 GPU | 9.5 | 5 | 1 | 87.5% | 25.0% | 50.0% | – |",
        "| 3, 1 failed | 10 | 2 GPUs | 5.0 | 5 | 1.9 | 87.5% | 25.0% | 50.0% | yes |",
    ]


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.parent.name)
def test_a_page_holds_the_tables_that_the_command_makes(page: Path) -> None:
    assert report.fill(page) == page.read_text(encoding="utf-8")


def test_tables_go_between_their_marks_however_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_row(tmp_path / "queue-1.json", QUEUE | {"way": "1 GPU", "seconds": 9.5}, queue.IDENTITY)
    keep_row(tmp_path / "queue-2.json", QUEUE | {"way": "2 GPUs", "seconds": 5.0}, queue.IDENTITY)
    page = tmp_path / "page.md"
    page.write_text(report.README.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setitem(report.PAGES, page, report.PAGES[report.README])
    once = report.fill(page, tmp_path)
    assert once.count("| 1 GPU |") == once.count("| 2 GPUs |") == 1
    assert "Nothing is measured yet." in once
    page.write_text(once, encoding="utf-8")
    assert report.fill(page, tmp_path) == once
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(report.click.ClickException, match="lacks the marks"):
        report.fill(page)
