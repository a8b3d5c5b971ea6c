"""Tiny causal models, saved as a user's folder would be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from tiny import save_model

if not torch.cuda.is_available():  # before any kernel is read
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give a function that saves a tiny random model with its tokenizer and returns the folder."""
    made: dict[str, Path] = {}

    def make(kind: str = "llama", *, tokenizer: object = None, **changes: object) -> Path:
        key = repr((kind, sorted(changes.items())))
        if tokenizer is None and key in made:
            return made[key]
        folder = save_model(tmp_path_factory.mktemp(kind), kind, tokenizer=tokenizer, **changes)
        if tokenizer is None:
            made[key] = folder
        return folder

    return make
