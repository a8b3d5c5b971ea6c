"""In float32 a model runs transformers' own code, whatever packages stand in for it elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import save_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmmap.models import ModelSpec
from lmmap.scoring.functions import plain_functions, replaced
from lmmap.scoring.load import load_model

STAND_INS = {
    "mamba": {"causal_conv1d_fn", "mamba_inner_fn", "mamba_selective_scan"},
    "mamba2": {"causal_conv1d_fn", "mamba2_chunk_scan"},
    "qwen3_next": {"causal_conv1d_fn", "torch_chunk_gated_delta_rule"},
}


def load(kind: str, folder: Path):
    return AutoModelForCausalLM.from_pretrained(save_model(folder / kind, kind))


@pytest.mark.parametrize("kind", STAND_INS)
def test_functions_that_packages_may_stand_in_for_are_found(kind, tmp_path):
    functions = plain_functions(load(kind, tmp_path))
    assert STAND_INS[kind] <= {name for _, name, _ in functions}
    assert all(f.instead is f.names[f.name].__wrapped__ for f in functions)


def test_a_model_without_such_functions_has_none(tmp_path):
    assert plain_functions(load("llama", tmp_path)) == []


def test_functions_are_put_back(tmp_path):
    functions = plain_functions(load("mamba", tmp_path))
    before = [names[name] for names, name, _ in functions]
    with replaced(functions):
        assert [names[name] for names, name, _ in functions] == [f.instead for f in functions]
    assert [names[name] for names, name, _ in functions] == before


SCORES = """
import sys, torch
from pathlib import Path
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model
from lmmap.scoring.score import score_texts

for dtype in ("float32", "bfloat16"):
    model = load_model(ModelSpec(sys.argv[1]), dtype=dtype)
    print(*(value.hex() for value in score_texts(model, ["Paris.", "x"], audit=False).log_likelihood))
"""
PACKAGE = """
import torch

def causal_conv1d_fn(x, weight, bias=None, activation=None, **_):
    return torch.full_like(x, 0.125)
"""


def test_float32_scores_do_not_move_with_an_installed_package_and_sixteen_bits_do(tmp_path):
    folder = save_model(tmp_path / "model", "mamba2")
    (tmp_path / "packages" / "causal_conv1d").mkdir(parents=True)
    (tmp_path / "packages" / "causal_conv1d" / "__init__.py").write_text(PACKAGE)
    plain, beside = (
        subprocess.run(
            [sys.executable, "-c", SCORES, str(folder)],
            env={"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for path in ("", str(tmp_path / "packages"))
    )
    assert beside[0] == plain[0]
    assert beside[1] != plain[1]


class TheirConfig(GPTNeoXConfig):
    model_type = "llama"


class TheirModel(GPTNeoXForCausalLM):
    config_class = TheirConfig


def test_a_type_that_a_package_has_taken_over_is_loaded_with_transformers_own_code(tmp_path, monkeypatch):
    folder = save_model(tmp_path, "llama")
    own = type(load_model(ModelSpec(str(folder))).model)
    monkeypatch.setattr(CONFIG_MAPPING, "_extra_content", {})
    AutoConfig.register("llama", TheirConfig, exist_ok=True)
    AutoModelForCausalLM.register(TheirConfig, TheirModel)
    assert type(AutoConfig.from_pretrained(folder)) is TheirConfig
    assert type(load_model(ModelSpec(str(folder))).model) is own
    assert type(AutoConfig.from_pretrained(folder)) is TheirConfig


def test_a_type_that_only_a_package_knows_is_still_its_own(tmp_path, monkeypatch):
    class NewConfig(LlamaConfig):
        model_type = "their-own"

    class NewModel(LlamaForCausalLM):
        config_class = NewConfig

    monkeypatch.setattr(CONFIG_MAPPING, "_extra_content", {})
    AutoConfig.register("their-own", NewConfig)
    AutoModelForCausalLM.register(NewConfig, NewModel)
    folder = save_model(tmp_path, "llama")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "their-own"'))
    assert type(load_model(ModelSpec(str(folder))).model) is NewModel
