"""Where models come from: the Hub and its cache, shards, pickles, GGUF, adapters, quantized weights."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import commit, serve

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model
from lmmap.scoring.score import score_texts
from lmmap.store import Store
from lmmap.texts import text_set

TEXTS = ["The capital of France is Paris.", "日本語のテキスト。", "x"]


def scores(source: object, **fields: object) -> np.ndarray:
    return score_texts(load_model(ModelSpec(str(source), **fields)), TEXTS).log_likelihood


@pytest.fixture(scope="module")
def folder(make_model) -> Path:
    return make_model("llama", hidden_size=64, intermediate_size=128)


@pytest.fixture(scope="module")
def expected(folder) -> np.ndarray:
    return scores(folder)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def model(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


# The Hub


@pytest.fixture(scope="module")
def hub_runs(folder, make_model, tmp_path_factory) -> tuple[Path, list[dict[str, str]]]:
    """Score a list from a Hub, one model of it good at two revisions; then again with the cache alone."""
    home = tmp_path_factory.mktemp("hub")
    other, broken = make_model("llama", seed=5), home / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    text_set(TEXTS).write(home / "texts.parquet")
    entries = [
        {"model": "lab/small"},
        {"model": "lab/small", "revision": "step5"},
        {"model": "lab/small", "revision": commit(folder), "name": "by commit"},
        {"model": "lab/small", "revision": "step7", "name": "wrong revision"},
        {"model": "lab/gated"},
        {"model": "lab/nothing"},
        {"model": "lab/broken"},
    ]
    (home / "models.yaml").write_text(json.dumps(entries))
    repositories = {"lab/small": {"main": folder, "step5": other}, "lab/broken": {"main": broken}}
    with serve(repositories | {"lab/gated": {"main": folder}}, gated={"lab/gated"}) as endpoint:
        for run, offline in (("online", "0"), ("offline", "1")):
            environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
            command = [sys.executable, "-m", "lmmap", "score", str(home / run), "--texts"]
            command += [str(home / "texts.parquet"), "--models", str(home / "models.yaml")]
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
            assert done.returncode == 1, done.stderr  # some failed
    return home, entries


@pytest.mark.parametrize("run", ["online", "offline"])
def test_models_of_the_hub_are_scored_at_their_revision(run, hub_runs, folder, expected, make_model):
    loaded = Store(hub_runs[0] / run).load()
    assert sorted(loaded.models["model"]) == ["by commit", "small", "small@step5"]
    values = dict(zip(loaded.models["model"], loaded.values, strict=True))
    np.testing.assert_allclose(values["small"], expected, atol=1e-4)
    np.testing.assert_allclose(values["by commit"], expected, atol=1e-4)
    np.testing.assert_allclose(values["small@step5"], scores(make_model("llama", seed=5)), atol=1e-4)
    assert np.abs(values["small@step5"] - expected).max() > 1
    row_id = loaded.models.index[loaded.models["model"] == "small"][0]
    assert Store(hub_runs[0] / run).provenance(row_id)["commit"] == commit(folder)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wrong revision", "lab/small cannot be loaded: step7 is not a valid git identifier"),
        ("gated", "lab/gated cannot be loaded: You are trying to access a gated repo"),
        ("nothing", "lab/nothing cannot be loaded: lab/nothing is not a local folder and is not a valid"),
        ("broken", "lab/broken cannot be loaded: .*incomplete metadata, file not fully covered"),
    ],
)
def test_what_the_hub_refuses_fails_alone_with_its_reason(name, told, hub_runs):
    status = Store(hub_runs[0] / "online").status().set_index("model")
    assert status.loc[name, "state"] == "failed"
    assert re.search(told, status.loc[name, "reason"])
    assert (Store(hub_runs[0] / "offline").status().set_index("model").loc[name, "state"]) == "failed"


# Files


def test_shards_are_one_model(model, copy, expected):
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="50KB")
    shards = sorted(copy.glob("model-*.safetensors"))
    assert len(shards) > 2
    np.testing.assert_array_equal(scores(copy), expected)
    shards[1].unlink()
    with pytest.raises(InputError, match=r"cannot be loaded: .*model-00002-of-"):
        scores(copy)


def test_pickled_weights_are_read_on_request_and_as_tensors_alone(model, copy, expected):
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no weights \(\*.safetensors\); .* read with `allow_pickle: true`"):
        scores(copy)
    np.testing.assert_array_equal(scores(copy, allow_pickle=True), expected)
    before = ModelSpec(str(copy), allow_pickle=True).row_id
    torch.save({"weight": torch.zeros(1)}, copy / "pytorch_model.bin")
    assert ModelSpec(str(copy), allow_pickle=True).row_id != before
    with pytest.raises(InputError, match="weights are missing"):
        scores(copy, allow_pickle=True)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.place,)


def test_a_pickle_that_would_run_something_runs_nothing(copy, tmp_path):
    (copy / "model.safetensors").unlink()
    bomb = Bomb()
    bomb.place = str(tmp_path / "run")
    torch.save({"weight": bomb}, copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded: Weights only load failed"):
        scores(copy, allow_pickle=True)
    assert not (tmp_path / "run").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "run").exists(), "the bomb is live"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_truncated_file_is_an_error(copy, name):
    file = copy / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be loaded"):
        scores(copy)


# GGUF


@pytest.fixture(scope="module")
def gguf_writer(model):
    """Give a function that writes the model as a GGUF file, its matrices in a given quantization."""
    import gguf
    from tiny import byte_tokenizer

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    config = model.config

    def permuted(weight: np.ndarray, heads: int) -> np.ndarray:  # rotary halves interleaved, as GGUF has them
        halves = weight.reshape(heads, 2, -1, weight.shape[1])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)

    def write(path: Path, kind: str) -> dict[str, torch.Tensor]:
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_vocab_size(config.vocab_size)
        tokens = sorted(byte_tokenizer().get_vocab().items(), key=lambda item: item[1])
        tokens += [("ĀĀ", 257), *[(f"<unused{i}>", i) for i in range(258, config.vocab_size)]]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([token for token, _ in tokens])
        writer.add_token_types([1] * 256 + [3] * (config.vocab_size - 256))
        writer.add_token_merges(["Ā Ā"])  # two NUL bytes, in no text here
        writer.add_bos_token_id(256)
        writer.add_eos_token_id(256)
        kept = {}
        for name, tensor in model.state_dict().items():
            weight, quantization = tensor.numpy(), gguf.GGMLQuantizationType.F32
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
            heads = next((n for part, n in heads.items() if part in name), None)
            if weight.ndim == 2:
                quantization = gguf.GGMLQuantizationType[kind]
            rounded = gguf.quants.quantize(weight, quantization)
            kept[name] = torch.tensor(gguf.quants.dequantize(rounded, quantization).reshape(weight.shape))
            data = gguf.quants.quantize(permuted(weight, heads) if heads else weight, quantization)
            stem, _, suffix = name.rpartition(".")
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", data, raw_dtype=quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return kept

    return write


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q5_0", "Q4_0", "Q4_1"])
def test_a_gguf_file_scores_as_its_dequantized_weights(kind, gguf_writer, model, copy, expected, tmp_path):
    kept = gguf_writer(tmp_path / "small.gguf", kind)
    model.save_pretrained(copy, state_dict=kept)
    of_file = scores(tmp_path / "small.gguf", prefix="<|endoftext|>")
    np.testing.assert_allclose(of_file, scores(copy, prefix="<|endoftext|>"), atol=1e-3)
    if kind != "F32":
        assert 1e-3 < np.abs(of_file - expected).max() < 100


# Adapters


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory) -> Path:
    return make_adapter(folder, tmp_path_factory.mktemp("adapter"))


def make_adapter(folder: Path, place: Path, **settings: object) -> Path:
    """Save a LoRA adapter with random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"]} | settings
    base = AutoModelForCausalLM.from_pretrained(folder)
    wrapped = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.4)
    wrapped.save_pretrained(place)
    return place


def by_hand(folder: Path, adapter: Path) -> np.ndarray:
    """Score with the adapter's layers beside the weights, by a plain loop."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder)
    return plain_loop(PeftModel.from_pretrained(base, adapter).double(), folder)


def plain_loop(model, folder: Path) -> np.ndarray:
    from transformers import AutoTokenizer

    tokenizer, totals = AutoTokenizer.from_pretrained(folder), []
    for text in TEXTS:
        ids = [256, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            log_probs = model.eval()(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        totals.append(sum(log_probs[t - 1, ids[t]].item() for t in range(1, len(ids))))
    return np.array(totals)


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_dora": True}, {"use_rslora": True, "target_modules": "all-linear"}, {"lora_bias": True}],
)
def test_an_adapter_merged_scores_as_it_does_unmerged(settings, folder, expected, tmp_path):
    adapter = make_adapter(folder, tmp_path / "adapter", **settings)
    loaded = load_model(ModelSpec(str(folder), adapter=str(adapter)))
    beside = any("lora" in name for name, _ in loaded.model.named_modules())
    assert beside == ("lora_bias" in settings)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    values = score_texts(loaded, TEXTS).log_likelihood
    np.testing.assert_allclose(values, by_hand(folder, adapter), atol=1e-3)
    assert np.abs(values - expected).max() > 1


def test_an_adapter_of_a_tied_embedding_stays_beside_it(make_model, tmp_path):
    tied = make_model("llama", tie_word_embeddings=True, scale=10.0)
    adapter = make_adapter(tied, tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    values = scores(tied, adapter=str(adapter))
    np.testing.assert_allclose(values, by_hand(tied, adapter), atol=1e-3)
    assert np.abs(values - scores(tied)).max() > 1


def test_an_adapter_has_its_bases_prefix_and_its_own_row(folder, adapter):
    plain, adapted = (ModelSpec(str(folder), **more) for more in ({}, {"adapter": str(adapter)}))
    assert adapted.row_id != plain.row_id
    assert adapted.name == f"{plain.name}+{adapter.name}"
    made = [score_texts(load_model(spec), TEXTS).provenance for spec in (plain, adapted)]
    assert made[0]["prefix"] == made[1]["prefix"]
    assert made[1]["recipe"]["adapter"] == adapted.recipe["adapter"]


def test_an_adapter_for_another_base_is_refused(folder, adapter, make_model, tmp_path):
    wide = make_model("llama", hidden_size=32)
    with pytest.raises(InputError, match=r"cannot be loaded: .*size mismatch"):
        scores(wide, adapter=str(adapter))
    deep = make_model("llama", hidden_size=64, intermediate_size=128, num_hidden_layers=1)
    with pytest.raises(InputError, match=r"4 weights of the adapter are unexpected"):
        scores(deep, adapter=str(adapter))
    deeper = make_model("llama", hidden_size=64, intermediate_size=128, num_hidden_layers=3)
    with pytest.raises(InputError, match=r"4 weights of the adapter are missing"):
        scores(deeper, adapter=str(adapter))
    declared = Path(shutil.copytree(adapter, tmp_path / "declared"))
    config = json.loads((declared / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "lab/other"
    (declared / "adapter_config.json").write_text(json.dumps(config))
    from lmmap.scoring.adapter import with_adapter

    with pytest.raises(InputError, match="made for lab/other, not for lab/small; write `model: lab/other`"):
        with_adapter(None, ModelSpec("lab/small", adapter=str(declared)))
    with pytest.raises(InputError, match=r"is an adapter; write `model: lab/other` and `adapter: "):
        scores(declared)


def test_a_folder_that_is_model_and_adapter_at_once_is_refused(copy, adapter):
    shutil.copy(adapter / "adapter_config.json", copy)
    shutil.copy(adapter / "adapter_model.safetensors", copy)
    with pytest.raises(InputError, match=r"is an adapter; .*, or remove adapter_config\.json"):
        scores(copy)


def test_outlier_columns_are_refused_for_they_depend_on_the_batch(copy):
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    config["quantization_config"]["llm_int8_threshold"] = 6.0
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"llm_int8_threshold=6\.0 in its quantization_config"):
        scores(copy)


def test_an_adapter_that_adds_tokens_is_refused(folder, tmp_path):
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder)
    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    get_peft_model(base, prompt).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a PROMPT_TUNING adapter puts learned vectors among the tokens"):
        scores(folder, adapter=str(tmp_path))


def test_an_adapter_that_is_not_there_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no adapter_config\.json there, so it is no adapter"):
        scores(folder, adapter=str(tmp_path))


# Quantized weights


def transformers_own(name: str) -> object:
    """Ask transformers for a quantization in its own words."""
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if name == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    if name == "bitsandbytes-8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


@pytest.mark.parametrize("name", ["bitsandbytes-8bit", "bitsandbytes-4bit", "torchao-int8"])
def test_quantized_weights_score_as_transformers_own_and_are_another_row(name, folder, expected, adapter):
    from transformers import AutoModelForCausalLM

    pytest.importorskip(name.partition("-")[0])
    values = scores(folder, quantization=name)
    rounded = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=transformers_own(name), dtype=torch.float32
    )
    np.testing.assert_allclose(values, plain_loop(rounded, folder), atol=1e-3)
    assert np.abs(values - expected).max() > 1e-3
    row_ids = {ModelSpec(str(folder), quantization=q).row_id.rpartition("-")[2] for q in (None, name)}
    assert len(row_ids) == 2
    adapted = scores(folder, quantization=name, adapter=str(adapter))
    assert np.abs(adapted - values).max() > 1


def test_a_quantization_is_known_by_name(folder, monkeypatch):
    with pytest.raises(InputError, match=r"unknown quantization 'bitsandbytes-8' .closest: 'bitsandb"):
        ModelSpec(str(folder), quantization="bitsandbytes-8")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"needs `bitsandbytes`: pip install 'lmmap\[quantization\]'"):
        scores(folder, quantization="bitsandbytes-8bit")
