"""A checkpoint read once is, in every precision, what loading it in that precision gives."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import byte_tokenizer, save_model
from transformers import AutoModelForCausalLM

from lmmap.models import ModelSpec
from lmmap.scoring.load import Checkpoint
from lmmap.scoring.source import stored_dtype

# weights kept in float32 by their code, tables computed in the model's precision, experts, hybrids
KINDS = (
    "llama",
    "gpt_neox",
    "gemma2",
    "deepseek_v32",
    "zamba",
    "olmo_hybrid",
    "falcon_h1",
    "xglm",
)
NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}


def tensors(model) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_tables_have_the_bits_of_a_loading_of_their_own(kind, stored, tmp_path):
    save_model(tmp_path / "first", kind)
    AutoModelForCausalLM.from_pretrained(tmp_path / "first", dtype=stored).save_pretrained(tmp_path / "kept")
    byte_tokenizer().save_pretrained(tmp_path / "kept")
    checkpoint = Checkpoint(ModelSpec(str(tmp_path / "kept")), "float16")
    for dtype, name in NAMES.items():
        want = tensors(AutoModelForCausalLM.from_pretrained(tmp_path / "kept", dtype=dtype))
        got = tensors(checkpoint.on("cpu", name).model)
        assert got.keys() == want.keys()
        for key, tensor in want.items():
            assert got[key].dtype == tensor.dtype, (key, name)
            assert torch.equal(got[key], tensor), (key, name)


def test_sixteen_bits_are_read_as_they_are_kept(make_model, tmp_path):
    folder = make_model("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    mixed = copy.deepcopy(model)
    mixed.lm_head.float()
    mixed.save_pretrained(tmp_path / "mixed")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    found = [stored_dtype(str(f), {}) for f in (folder, tmp_path / "half", tmp_path / "sharded")]
    assert found == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert stored_dtype(str(tmp_path / "mixed"), {}) == torch.float32


def test_what_a_configuration_ties_and_the_files_hold_apart_is_read(make_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(make_model("llama"))
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    model.config.tie_word_embeddings = True
    model.save_pretrained(tmp_path, state_dict=dict(model.state_dict()))
    byte_tokenizer().save_pretrained(tmp_path)
    want = tensors(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float16))
    got = tensors(Checkpoint(ModelSpec(str(tmp_path)), "float16").on("cpu", "float16").model)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[key], tensor) for key, tensor in want.items())


def test_a_checkpoint_stays_what_it_is(make_model):
    checkpoint = Checkpoint(ModelSpec(str(make_model("llama"))), "float16")
    before = {key: tensor.clone() for key, tensor in tensors(checkpoint._whole).items()}
    checkpoint.on("cpu", "float16")
    again = tensors(checkpoint.on("cpu", "float32").model)
    assert all(torch.equal(again[key], tensor) for key, tensor in before.items())
