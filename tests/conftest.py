"""Tiny causal models, saved as a user's folder would be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from tiny import CONFIGS, byte_tokenizer


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give a function that saves a tiny random model with its tokenizer and returns the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made: dict[str, Path] = {}

    def make(
        kind: str = "llama", *, seed: int = 0, scale: float = 3.0, tokenizer=None, **changes: object
    ) -> Path:
        key = repr((kind, seed, scale, sorted(changes.items())))
        if tokenizer is None and key in made:
            return made[key]
        torch.manual_seed(seed)
        settings = {"vocab_size": 260, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 0}
        config = AutoConfig.for_model(kind, **settings | CONFIGS[kind] | changes)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(scale)  # far from uniform, so that mistakes show
        folder = tmp_path_factory.mktemp(f"{kind}-{seed}")
        model.save_pretrained(folder)
        (tokenizer or byte_tokenizer()).save_pretrained(folder)
        if tokenizer is None:
            made[key] = folder
        return folder

    return make
