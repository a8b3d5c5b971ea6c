"""What surrounds a forward pass: its options, the state that it may change, the precision of its products."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
DEVICE_ERRORS = (torch.OutOfMemoryError, torch.AcceleratorError)  # of the machine, not of the model


def options_of(parameters: Mapping[str, inspect.Parameter], ids: Tensor) -> dict[str, Any]:
    """Give a forward pass what it needs besides ids: no cache, and what has no default."""
    known = {
        "attention_mask": lambda: torch.ones_like(ids),
        "token_type_ids": lambda: torch.zeros_like(ids),
        "position_ids": lambda: torch.arange(ids.shape[1], device=ids.device).expand_as(ids),
    }
    needed = {k for k, p in parameters.items() if p.default is p.empty and k in known}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    cache = {"use_cache": False} if takes_any or "use_cache" in parameters else {}
    return cache | {name: known[name]() for name in needed}


def plain_state(model: torch.nn.Module) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Give what modules may change as they run, such as the frequencies of dynamic RoPE: place and value."""
    state = []
    for module in model.modules():
        plain = {
            k: v for k, v in vars(module).items() if v is None or isinstance(v, int | float | str | Tensor)
        }
        state.append((vars(module), plain))
        if module._buffers:
            state.append((module._buffers, dict(module._buffers)))
    return state


@contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """Let float32 products round their factors to TF32, or see that they do not, whatever was set before."""
    former, cudnn = "highest", False
    with suppress(RuntimeError):  # what was set through torch's newer interface has no name in this one
        former, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")  # of GPU and CPU alike
        torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.set_float32_matmul_precision(former)
        torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def attention_without_plans() -> Iterator[None]:
    """Keep attention off cuDNN, which plans for 40 ms at every new shape: no two batches need be alike."""
    former = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(former)
