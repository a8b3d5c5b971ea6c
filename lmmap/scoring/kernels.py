"""Kernels for what moves memory between a model's matrix products: one pass each, float32 inside (Triton).

They round where the plain code rounds, so that what they replace does not move a model's scores.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 4096  # of a tile, unless a row is longer
AT_ONCE = 8192  # of the logits at a time
QUERIES, KEYS = 64, 64  # of a tile of attention
HEADS = 64  # that are turned at a time


def log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of one column of each row, reading the row once.

    Parameters
    ----------
    logits : (R, V) float32 tensor
        Rows whose columns lie side by side.
    targets : (R,) int64 tensor
        A column of each row.

    Returns
    -------
    (R,) float32 tensor
        Nats; not finite where a row holds NaN or infinity.
    """
    n_rows, n_columns = logits.shape
    out = torch.empty(n_rows, dtype=torch.float32, device=logits.device)
    if n_rows:
        block = min(triton.next_power_of_2(n_columns), AT_ONCE)
        _log_prob[(n_rows,)](
            logits, targets, out, logits.stride(0), COLUMNS=n_columns, BLOCK=block, num_warps=8
        )
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float, rounds_first: bool) -> Tensor:
    """Divide rows by their root mean square and scale them: ``x / rms(x) * (offset + weight)``.

    Parameters
    ----------
    x : (..., H) tensor
        Any number of rows.
    weight : (H,) tensor
        Scale of each column.
    eps : float
        Added to the mean square.
    offset : float
        0, or 1 where weights are kept less one.
    rounds_first : bool
        Whether ``x / rms(x)`` is rounded to the precision of ``x`` before it is scaled.

    Returns
    -------
    (..., H) tensor
        In the precision of ``x``.
    """
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    out = torch.empty_like(rows)
    n_rows, n_columns = rows.shape
    block = triton.next_power_of_2(n_columns)
    at_once = max(1, ELEMENTS // block)
    grid = (triton.cdiv(n_rows, at_once),)
    _rms_norm[grid](
        rows,
        weight,
        out,
        rows.stride(0),
        n_rows,
        n_columns,
        eps,
        offset,
        FIRST=rounds_first,
        ROWS=at_once,
        BLOCK=block,
    )
    return out.view(x.shape)


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """Multiply by an activated gate: ``f(gate) * up``, ``f(gate)`` rounded first.

    Parameters
    ----------
    gate, up : tensors of one shape
        What two projections gave.
    activation : {'silu', 'gelu', 'gelu_tanh'}
        f.

    Returns
    -------
    tensor
        Of the same shape and precision.
    """
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    grid = (triton.cdiv(out.numel(), ELEMENTS),)
    _gated[grid](gate, up, out, out.numel(), ACTIVATION=activation, BLOCK=ELEMENTS, num_warps=8)
    return out


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend to what came before: ``softmax(scale * q k^T) v``, causal, sums in float32.

    Parameters
    ----------
    q : (B, heads, T, D) tensor
        Dimensions side by side; other strides are free.
    k, v : (B, groups, T, D) tensors
        Each group serves ``heads / groups`` heads.
    scale : float
        Of the products.

    Returns
    -------
    (B, heads, T, D) tensor
        Laid out as (B, T, heads, D); not a number where a key is none, and a value that is not finite may
        spoil its whole tile.

    Notes
    -----
    The scheme of FlashAttention (Dao et al. 2022, arXiv:2205.14135), in tiles for texts of some hundred
    tokens: wide ones spend most of their work above the diagonal.
    """
    n, heads, length, size = q.shape
    out = torch.empty((n, length, heads, size), dtype=q.dtype, device=q.device).transpose(1, 2)
    _attention[(n * heads, triton.cdiv(length, QUERIES))](
        q, k, v, out,
        q.stride(0), q.stride(1), q.stride(2), k.stride(0), k.stride(1), k.stride(2),
        v.stride(0), v.stride(1), v.stride(2), out.stride(0), out.stride(1), out.stride(2),
        length, heads, heads // k.shape[1], scale * math.log2(math.e),
        SIZE=size, WIDE=max(triton.next_power_of_2(size), 16), QUERIES=QUERIES, KEYS=KEYS, num_stages=3,
    )  # fmt: skip
    return out


def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Turn queries and keys by their position, rounding products first; dimensions behind are copied.

    Parameters
    ----------
    q, k : (B, heads, T, D) tensors
        Dimensions side by side; other strides are free.
    cos, sin : (B or 1, T, R) tensors
        Of the angles, R <= D of them; dimension i turns with i + R / 2.

    Returns
    -------
    two (B, heads, T, D) tensors
        Laid out as (B, T, heads, D).
    """
    return _turned(q, cos, sin), _turned(k, cos, sin)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    n, heads, length, size = x.shape
    out = torch.empty((n, length, heads, size), dtype=x.dtype, device=x.device).transpose(1, 2)
    half, n_rows = cos.shape[-1] // 2, n * length * heads
    rest = size - 2 * half
    _rotary[(triton.cdiv(n_rows, HEADS),)](
        x, cos, sin, out,
        x.stride(0), x.stride(1), x.stride(2), out.stride(0), out.stride(1), out.stride(2),
        cos.stride(0) if cos.shape[0] > 1 else 0, cos.stride(1),
        sin.stride(0) if sin.shape[0] > 1 else 0, sin.stride(1),
        n_rows, length, heads,
        HALF=half, BLOCK=triton.next_power_of_2(half),
        REST=rest, REST_BLOCK=triton.next_power_of_2(rest) if rest else 0, HEADS=HEADS,
        enable_fp_fusion=False,  # a product that is added at once would not be rounded
    )  # fmt: skip
    return out


@triton.jit
def _log_prob(logits, targets, out, stride, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    first = logits + row * stride
    top = float("-inf")
    total = 0.0
    for start in range(0, COLUMNS, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(first + columns, mask=columns < COLUMNS, other=float("-inf"))
        higher = tl.maximum(top, tl.max(x, axis=0))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(top - shift) + tl.sum(tl.exp(x - shift), axis=0)
        top = higher
    wanted = tl.load(first + tl.load(targets + row))
    tl.store(out + row, wanted - (top + tl.log(total)))


@triton.jit(do_not_specialize=["n_rows"])
def _rms_norm(
    x,
    weight,
    out,
    stride,
    n_rows,
    n_columns,
    eps,
    offset,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    there = (rows < n_rows)[:, None] & (columns < n_columns)[None, :]
    values = tl.load(x + rows[:, None] * stride + columns[None, :], mask=there, other=0.0).to(tl.float32)
    scale = tl.load(weight + columns, mask=columns < n_columns, other=0.0).to(tl.float32) + offset
    factor = tl.rsqrt(tl.sum(values * values, axis=1) / n_columns + eps)
    values = values * factor[:, None]
    if FIRST:
        values = values.to(out.dtype.element_ty).to(tl.float32)
    result = values * scale[None, :]
    tl.store(out + rows[:, None] * n_columns + columns[None, :], result.to(out.dtype.element_ty), mask=there)


@triton.jit
def _gated(gate, up, out, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(gate + at, mask=at < n, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask=at < n, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        x = x * tl.sigmoid(x)
    elif ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        x = x * tl.sigmoid(2.0 * inner)
    kind = out.dtype.element_ty
    tl.store(out + at, (x.to(kind).to(tl.float32) * y).to(kind), mask=at < n)


@triton.jit(do_not_specialize=["length", "n_heads", "n_shared"])
def _attention(
    q, k, v, out,
    q_text, q_head, q_token, k_text, k_head, k_token, v_text, v_head, v_token, out_text, out_head, out_token,
    length, n_heads, n_shared, scale,
    SIZE: tl.constexpr, WIDE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    first = (tl.num_programs(1) - 1 - tl.program_id(1)) * QUERIES  # the longest first
    text, head = (tl.program_id(0) // n_heads).to(tl.int64), tl.program_id(0) % n_heads
    rows, columns, keys = first + tl.arange(0, QUERIES), tl.arange(0, WIDE), tl.arange(0, KEYS)
    k += text * k_text + (head // n_shared) * k_head
    v += text * v_text + (head // n_shared) * v_head
    wide = columns < SIZE
    there = (rows < length)[:, None] & wide[None, :]
    asked = q + text * q_text + head * q_head + rows[:, None] * q_token + columns[None, :]
    query = tl.load(asked, mask=there, other=0.0)
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    found = tl.zeros([QUERIES, WIDE], tl.float32)
    for start in range(0, tl.minimum(first + QUERIES, length), KEYS):
        at = start + keys
        known = at < length
        key = tl.load(
            k + at[None, :] * k_token + columns[:, None], mask=known[None, :] & wide[:, None], other=0.0
        )
        value = tl.load(
            v + at[:, None] * v_token + columns[None, :], mask=known[:, None] & wide[None, :], other=0.0
        )
        products = tl.dot(query, key) * scale
        if start + KEYS > first:
            products = tl.where(rows[:, None] >= at[None, :], products, float("-inf"))
        higher = tl.maximum(top, tl.max(products, 1))
        weights = tl.exp2(products - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weights, 1)
        found = tl.dot(weights.to(value.dtype), value, found * shrink[:, None])
        top = higher
    place = out + text * out_text + head * out_head + rows[:, None] * out_token + columns[None, :]
    tl.store(place, (found / total[:, None]).to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["n_rows", "length", "n_heads"])
def _rotary(
    x, cos, sin, out,
    x_text, x_head, x_token, out_text, out_head, out_token,
    cos_text, cos_token, sin_text, sin_token,
    n_rows, length, n_heads,
    HALF: tl.constexpr, BLOCK: tl.constexpr, REST: tl.constexpr, REST_BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * HEADS + tl.arange(0, HEADS)  # heads of tokens of texts
    head, token, text = rows % n_heads, rows // n_heads % length, rows // n_heads // length
    x += (text * x_text + token * x_token + head * x_head)[:, None]
    out += (text * out_text + token * out_token + head * out_head)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    there = (rows < n_rows)[:, None] & (columns < HALF)
    cos += (text * cos_text + token * cos_token)[:, None] + columns
    sin += (text * sin_text + token * sin_token)[:, None] + columns
    cos_left = tl.load(cos, mask=there, other=0.0).to(tl.float32)
    cos_right = tl.load(cos + HALF, mask=there, other=0.0).to(tl.float32)
    sin_left = tl.load(sin, mask=there, other=0.0).to(tl.float32)
    sin_right = tl.load(sin + HALF, mask=there, other=0.0).to(tl.float32)
    left = tl.load(x + columns, mask=there, other=0.0).to(tl.float32)
    right = tl.load(x + HALF + columns, mask=there, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    new_left = (left * cos_left).to(kind).to(tl.float32) - (right * sin_left).to(kind).to(tl.float32)
    new_right = (right * cos_right).to(kind).to(tl.float32) + (left * sin_right).to(kind).to(tl.float32)
    tl.store(out + columns, new_left.to(kind), mask=there)
    tl.store(out + HALF + columns, new_right.to(kind), mask=there)
    if REST:
        behind = 2 * HALF + tl.arange(0, REST_BLOCK)[None, :]
        kept = (rows < n_rows)[:, None] & (behind < 2 * HALF + REST)
        tl.store(out + behind, tl.load(x + behind, mask=kept), mask=kept)
