"""Fused kernels round where the plain operations round; without a GPU, by Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import save_model
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.llama import modeling_llama

pytest.importorskip("triton")
from lmmap.scoring import fused, kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float16, torch.bfloat16][: 1 + torch.cuda.is_available()]  # the interpreter cuts bfloat16 off


def drawn(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)
    return values.to(DEVICE, dtype)


def assert_same_bits(got: torch.Tensor, plain: torch.Tensor) -> None:
    """All but a few are equal: a float32 number that lies between two neighbours may round to either."""
    assert got.dtype == plain.dtype
    assert (got != plain).double().mean() <= 0.01
    assert torch.all((got.double() - plain.double()).abs() <= plain.double().abs() * 2**-9 + 2**-24)


@pytest.mark.parametrize("n_columns", [1, 7, 8192, 9000, 20000])
def test_a_log_probability_is_that_of_float64(n_columns):
    logits = 4 * drawn(5, n_columns, dtype=torch.float32)
    targets = torch.tensor([0, n_columns - 1, n_columns // 2, 0, n_columns - 1], device=DEVICE)
    want = logits.double().log_softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(kernels.log_prob(logits, targets).double(), want, rtol=1e-6, atol=2e-6)


def test_columns_that_cannot_come_have_no_weight():
    logits = drawn(2, 9000, dtype=torch.float32)
    logits[:, :8192] = -math.inf
    targets = torch.tensor([8192, 8999], device=DEVICE)
    want = logits.double().log_softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(kernels.log_prob(logits, targets).double(), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_no_number_gives_none(value):
    logits = drawn(3, 9000, dtype=torch.float32)
    logits[1, 8500] = value
    finite = torch.isfinite(kernels.log_prob(logits, torch.zeros(3, dtype=torch.int64, device=DEVICE)))
    assert finite.tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounds_first", [True, False])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("n_columns", [1, 72, 576, 5000])
def test_a_norm_rounds_as_the_plain_one(n_columns, offset, rounds_first, dtype):
    x, weight = drawn(3, 2, n_columns, dtype=dtype), drawn(n_columns, dtype=dtype)
    wide = x.float()
    wide = wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    plain = (wide.to(dtype).float() if rounds_first else wide) * (weight.float() + offset)
    assert_same_bits(kernels.rms_norm(x, weight, 1e-5, offset, rounds_first), plain.to(dtype))


def test_rows_may_lie_across():
    x, weight = drawn(64, 5).t()[None], drawn(64)
    assert x.stride(-1) != 1
    assert torch.equal(
        kernels.rms_norm(x, weight, 1e-5, 0.0, True),
        kernels.rms_norm(x.contiguous(), weight, 1e-5, 0.0, True),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
def test_a_gate_rounds_as_the_plain_operations(activation, dtype):
    gate, up = 3 * drawn(3, 5000, dtype=dtype), drawn(5000, 3, dtype=dtype).t()
    got, plain = kernels.gated(gate, up, activation), fused.ACTIVATIONS[activation](gate) * up
    torch.testing.assert_close(got, plain, rtol=2**-9, atol=2**-13)
    known = gate > -2  # further left, GELU is what is left of a difference
    assert_same_bits(got[known], plain[known])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "turning"), [(20, 20), (20, 12), (64, 16), (6, 2)])
def test_a_rotary_embedding_is_that_of_transformers_to_the_bit(size, turning, dtype):
    x = drawn(2, 6, 3, 3 * size, dtype=dtype)
    q, k, _ = x.transpose(1, 2).chunk(3, -1)  # views of one projection, as in GPT-NeoX
    cos, sin = drawn(1, 6, turning, dtype=dtype), drawn(2, 6, turning, dtype=dtype)
    plain = modeling_gpt_neox.apply_rotary_pos_emb(q, k, cos, sin)
    for got, want in zip(kernels.rotary(q, k, cos, sin), plain, strict=True):
        assert torch.equal(got, want)


def exact_attention(q, k, v, scale: float) -> torch.Tensor:
    heads = q.shape[1]
    q, k, v = (t.double().repeat_interleave(heads // t.shape[1], 1) for t in (q, k, v))
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
    return (scale * q @ k.transpose(2, 3)).masked_fill(later, -math.inf).softmax(-1) @ v


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.125, 1.0])
@pytest.mark.parametrize(
    ("length", "heads", "groups", "size"), [(1, 2, 2, 64), (5, 3, 1, 8), (64, 2, 2, 64), (150, 4, 2, 80)]
)
def test_attention_is_that_of_float64_but_for_rounding(length, heads, groups, size, scale, dtype):
    q, k, v = (drawn(2, length, n, size, dtype=dtype).transpose(1, 2) for n in (heads, groups, groups))
    want = exact_attention(q, k, v, scale)
    got = kernels.attention(q, k, v, scale)
    assert got.dtype == dtype
    assert got.transpose(1, 2).is_contiguous()
    assert (got.double() - want).abs().max() <= 2 * torch.finfo(dtype).eps * want.abs().max()


def test_attention_gives_the_same_bits_whatever_lies_behind():
    q, k, v = (drawn(3, 150, 2, 64).transpose(1, 2) for _ in range(3))
    whole = kernels.attention(q, k, v, 0.125)
    for length in (1, 63, 64, 100):
        start = kernels.attention(*(t[1:2, :, :length] for t in (q, k, v)), 0.125)
        assert torch.equal(start[0], whole[1, :, :length])


def test_attention_to_what_is_no_number_gives_none():
    q, k, v = (drawn(1, 70, 1, 64).transpose(1, 2) for _ in range(3))
    k[0, 0, 66, 3] = math.nan
    finite = torch.isfinite(kernels.attention(q, k, v, 0.125)).all(-1)[0, 0]
    assert finite.tolist() == [True] * 66 + [False] * 4


ATTENTION = functional.scaled_dot_product_attention


@pytest.mark.parametrize(
    ("asked", "options", "taken"),
    [
        ({}, {"is_causal": True}, True),
        ({}, {"is_causal": True, "scale": 0.5}, True),
        ({}, {"is_causal": False}, False),
        ({}, {"is_causal": True, "enable_gqa": True}, True),
        ({"attn_mask": True}, {}, False),
        ({"groups": 2}, {"is_causal": True, "enable_gqa": True}, True),
        ({"n_keys": 9}, {"is_causal": True}, False),
        ({"size": 32}, {"is_causal": True}, False),
        ({"dtype": torch.float32}, {"is_causal": True}, False),
    ],
)
def test_only_plain_causal_attention_is_fused(asked, options, taken, monkeypatch):
    size, dtype = asked.get("size", 16), asked.get("dtype", torch.float16)
    groups, n_keys = asked.get("groups", 4), asked.get("n_keys", 7)
    q = drawn(2, 4, 7, size, dtype=dtype)
    k, v = (drawn(2, groups, n_keys, size, dtype=dtype) for _ in range(2))
    mask = drawn(7, 7) if "attn_mask" in asked else None
    calls, kernel = [], kernels.attention
    monkeypatch.setattr(kernels, "attention", lambda *given: calls.append(given) or kernel(*given))
    got = fused._fused_attention(ATTENTION, 16)(q, k, v, mask, **options)
    torch.testing.assert_close(got, ATTENTION(q, k, v, mask, **options), rtol=2e-3, atol=2e-3)
    assert bool(calls) is taken


PARTS = {  # but for attention
    "llama": {"rms_norm": 5, "gated": 2, "rotary": 1},
    "qwen3": {"rms_norm": 9, "gated": 2, "rotary": 1},
    "gemma2": {"rms_norm": 9, "gated": 2, "rotary": 1},
    "gemma3_text": {"rms_norm": 13, "gated": 2, "rotary": 1},
    "gemma4_text": {"rms_norm": 16, "gated": 2},
    "gpt_neox": {"rotary": 1},
    "phi3": {"rms_norm": 5, "rotary": 1},
    "qwen2_moe": {"rms_norm": 5, "gated": 2, "rotary": 1},
    "cohere": {"gated": 2},  # turns neighbouring dimensions, and norms without a mean are others
    "opt": {},
    "bloom": {},
}
ATTENDING = dict.fromkeys(PARTS, True) | {
    "gemma2": None,  # calls torch's attention in some versions of transformers
    "gemma4_text": False,  # its heads differ by layer
    "bloom": False,  # its attention is no function of torch
}


def load(kind: str, folder, dtype: torch.dtype):
    if not folder.exists():
        save_model(folder, kind)
    eager = {"experts_implementation": "eager"}  # the others know no float64
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **eager).to(DEVICE).eval()


@torch.inference_mode()
def log_probs(model) -> torch.Tensor:
    ids = torch.arange(24, device=DEVICE)[None] * 7 % 250
    return model(ids, use_cache=False).logits[0].double().log_softmax(-1)


@pytest.mark.parametrize("kind", PARTS)
def test_a_model_with_fused_parts_is_as_near_to_float64_as_its_own(kind, tmp_path):
    exact = log_probs(load(kind, tmp_path / kind, torch.float64))
    model = load(kind, tmp_path / kind, torch.float16)
    plain = log_probs(model)
    parts = fused.Fused(model)
    attends = bool(parts.parts.get("attention"))
    assert ATTENDING[kind] in (attends, None)
    assert parts.parts == PARTS[kind] | ({"attention": 1} if attends else {})
    with parts.running():
        got = log_probs(model)
    assert (got - exact).std() <= 1.1 * (plain - exact).std()
    parts.undo()
    assert torch.equal(log_probs(model), plain)


@pytest.mark.parametrize("kind", PARTS)
def test_fused_parts_but_attention_round_as_the_models_own(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(fused, "_head_size", lambda _: None)
    exact = log_probs(load(kind, tmp_path / kind, torch.float64))
    model = load(kind, tmp_path / kind, torch.float16)
    plain = log_probs(model)
    parts = fused.Fused(model)
    assert parts.parts == PARTS[kind]
    with parts.running():
        got = log_probs(model)
    assert (got - plain).std() <= 0.5 * (plain - exact).std()


def test_transformers_and_torch_are_left_as_they_were(tmp_path):
    before = modeling_llama.apply_rotary_pos_emb, functional.scaled_dot_product_attention
    parts = fused.Fused(load("llama", tmp_path / "llama", torch.float16))
    with parts.running():
        assert modeling_llama.apply_rotary_pos_emb is not before[0]
        assert functional.scaled_dot_product_attention is not before[1]
    assert (modeling_llama.apply_rotary_pos_emb, functional.scaled_dot_product_attention) == before


def test_what_only_looks_like_a_part_keeps_its_own_way(tmp_path):
    model = load("llama", tmp_path / "llama", torch.float16)
    first, second = model.model.layers
    first.input_layernorm.forward = lambda x: x * 0.5  # a norm by name alone
    first.mlp.act_fn = torch.nn.ReLU()
    second.mlp.act_fn.forward = lambda x: functional.silu(x).clamp(max=4)
    assert fused.Fused(model).parts == {"rms_norm": 4, "rotary": 1, "attention": 1}
