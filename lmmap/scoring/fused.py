"""Fused parts of a model: norm, gate, rotary embedding and attention, one pass each, where seen to agree."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cache, partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmmap.scoring.functions import Replacement, files_of, replaced
from lmmap.scoring.surroundings import DEVICE_ERRORS, HALF

ROTARY = "apply_rotary_pos_emb"  # what nearly every file of transformers' models calls it
ATTENTION = "scaled_dot_product_attention"  # in torch
WIDEST = 128  # dimensions of a head, and
LONGEST = 1024  # tokens of a text, for which the kernel's tiles are made
ROUNDINGS = 2  # of the precision, by which a part may differ: a sum in another order may round another way
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


@cache
def has_kernels() -> bool:
    """Whether kernels run on the GPU here: Triton needs a C compiler, and a GPU that it knows."""
    if not torch.cuda.is_available():
        return False
    try:
        from lmmap.scoring.kernels import log_prob

        found = log_prob(torch.zeros(1, 2, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda"))
        return abs(float(found) + math.log(2)) < 1e-6
    except DEVICE_ERRORS:
        raise
    except Exception:  # it fails in many ways
        return False


class Fused:
    """The parts of a model that run as one kernel each.

    A part is known by what it does, not by its name: it is replaced if, on random input, it gives what the
    kernel gives, but for rounding.

    Parameters
    ----------
    model : PreTrainedModel
        On a GPU, in 16 bits; norms and gates are replaced in place.

    Attributes
    ----------
    parts : dict
        How many parts of each kind were replaced.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        found: Counter[str] = Counter()
        self._former: list[Any] = []
        self._functions: list[Replacement] = []
        with torch.inference_mode():
            for module in model.modules():
                for kind, fuse in (("rms_norm", _fused_norm), ("gated", _fused_gate)):
                    forward = fuse(module, model)
                    if forward is not None:
                        module.forward = forward
                        self._former.append(module)
                        found[kind] += 1
                        break
            for names in files_of(model):
                plain = names.get(ROTARY)
                if callable(plain) and _turns_by_halves(plain, model):
                    self._functions.append(Replacement(names, ROTARY, _fused_rotary(plain)))
                    found["rotary"] += 1
            size = _head_size(model)
            if size and _attends(size, model):
                attend = _fused_attention(functional.scaled_dot_product_attention, size)
                self._functions.append(Replacement(vars(functional), ATTENTION, attend))
                found["attention"] += 1
        self.parts = dict(found)

    def running(self) -> AbstractContextManager[None]:
        """Let rotary embeddings and attention be fused while the model runs."""
        return replaced(self._functions)

    def undo(self) -> None:
        """Give the model its own parts back."""
        for module in self._former:
            del module.forward
        self._former, self._functions, self.parts = [], [], {}


def _fused_norm(module: nn.Module, model: Any) -> Callable[[Tensor], Tensor] | None:  # noqa: ANN401
    """Give a root-mean-square norm as one kernel, that which rounds most alike."""
    weight: Any = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    own = [name for name, _ in module.named_parameters()]
    if "Norm" not in type(module).__name__ or own != ["weight"] or weight.dim() != 1:
        return None
    if not isinstance(eps, float) or isinstance(module, nn.LayerNorm) or not _takes_one(module):
        return None
    x = _random(model, 7, len(weight))
    ways = [partial(_norm, weight, eps, *way) for way in product((0.0, 1.0), (True, False))]
    agreeing = [forward for forward in ways if _agree(module, forward, x)]
    return min(agreeing, key=lambda forward: _apart(forward(x), module(x)), default=None)


def _norm(weight: Tensor, eps: float, offset: float, rounds_first: bool, x: Tensor) -> Tensor:
    from lmmap.scoring.kernels import rms_norm

    return rms_norm(x, weight, eps, offset, rounds_first)


def _fused_gate(module: nn.Module, model: Any) -> Callable[[Tensor], Tensor] | None:  # noqa: ANN401
    """Give a gated perceptron with its activation and product as one kernel."""
    from lmmap.scoring.kernels import gated

    parts: list[Any] = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    gate, up, down = parts
    activation = _activation(getattr(module, "act_fn", None))
    if not all(isinstance(part, nn.Linear) for part in parts) or not activation or not _takes_one(module):
        return None

    def forward(x: Tensor) -> Tensor:
        result: Tensor = down(gated(gate(x), up(x), activation))
        return result

    return forward if _agree(module, forward, _random(model, 7, gate.in_features)) else None


def _activation(function: Any) -> str | None:  # noqa: ANN401
    """Tell which activation a function is."""
    if not callable(function):
        return None
    x = torch.linspace(-6, 6, 200)
    with suppress(Exception):  # it may take something else
        values = function(x)
        names = [name for name, f in ACTIVATIONS.items() if torch.allclose(values, f(x), atol=1e-6)]
        return names[0] if names else None
    return None


def _takes_one(module: nn.Module) -> bool:
    return len(inspect.signature(module.forward).parameters) == 1


def _fused_rotary(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Give a rotary embedding as one kernel where it is asked for in the common way."""
    from lmmap.scoring.kernels import rotary

    def fused(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *more: Any, **options: Any) -> Any:  # noqa: ANN401
        usual = not more and not options and q.dim() == 4 and cos.dim() == 3 and cos.shape[-1] % 2 == 0
        if usual and all(t.stride(-1) == 1 and t.dtype == q.dtype for t in (q, k, cos, sin)):
            return rotary(q, k, cos, sin)
        return plain(q, k, cos, sin, *more, **options)

    return fused


def _turns_by_halves(plain: Callable[..., Any], model: Any) -> bool:  # noqa: ANN401
    q, k = (_random(model, 2, heads, 5, 16) for heads in (4, 2))
    for n_turning in (
        16,
        8,
    ):  # some functions know no dimensions that do not turn; models that call them have none
        cos, sin = (_random(model, 1, 5, n_turning) for _ in range(2))
        try:
            return _near(_fused_rotary(plain)(q, k, cos, sin), plain(q, k, cos, sin))
        except DEVICE_ERRORS:
            raise
        except Exception:  # it takes something else
            continue
    return False


def _head_size(model: Any) -> int | None:  # noqa: ANN401
    """Give the dimensions of a head of torch's own attention, if the model calls that."""
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "_attn_implementation", None) != "sdpa":
        return None
    try:
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    except Exception:  # there are none, or they differ by layer
        return None
    return size if isinstance(size, int) and size <= WIDEST else None


def _fused_attention(plain: Callable[..., Tensor], size: int) -> Callable[..., Tensor]:
    """Give causal attention without a mask as one kernel."""
    from lmmap.scoring.kernels import attention

    def fused(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        usual = is_causal and attn_mask is None and dropout_p == 0 and query.dim() == 4
        if usual and _is_plain(query, key, value, size, shared=enable_gqa):
            return attention(query, key, value, size**-0.5 if scale is None else scale)
        return plain(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    return fused


def _is_plain(query: Tensor, key: Tensor, value: Tensor, size: int, *, shared: bool) -> bool:
    n, heads, length, _ = query.shape
    groups = key.shape[1]
    return (
        query.shape[-1] == size
        and key.shape == value.shape == (n, groups, length, size)
        and (groups == heads or (shared and heads % groups == 0))
        and length <= LONGEST
        and query.dtype == key.dtype == value.dtype
        and query.dtype in HALF
        and all(t.stride(-1) == 1 for t in (query, key, value))
    )


def _attends(size: int, model: Any) -> bool:  # noqa: ANN401
    """Tell whether the kernel gives what torch's attention gives, over more than one tile."""
    q = _random(model, 2, 4, 70, size)
    k, v = _random(model, 2, 2, 2, 70, size)
    plain = functional.scaled_dot_product_attention
    try:
        ways = (_fused_attention(plain, size), plain)
        return _near(*(attend(q, k, v, is_causal=True, enable_gqa=True) for attend in ways))
    except DEVICE_ERRORS:
        raise
    except Exception:  # the kernel may ask for more than the GPU has
        return False


def _agree(module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    try:
        want = module(x)
        return isinstance(want, Tensor) and _near(forward(x), want)
    except DEVICE_ERRORS:
        raise
    except Exception:  # it takes something else, or a kernel does not take this
        return False


def _near(got: Any, want: Any) -> bool:  # noqa: ANN401
    if not isinstance(want, Tensor):
        return len(got) == len(want) and all(_near(g, w) for g, w in zip(got, want, strict=True))
    if got.shape != want.shape or got.dtype != want.dtype or not torch.isfinite(want).all():
        return False
    allowed = ROUNDINGS * torch.finfo(want.dtype).eps * float(want.abs().max())
    return bool((got.float() - want.float()).abs().max() <= allowed)


def _apart(got: Tensor, want: Tensor) -> float:
    return float((got.float() - want.float()).abs().sum())


def _random(model: Any, *shape: int) -> Tensor:  # noqa: ANN401
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(model.device, model.dtype)
