"""Altered copies of a model, in memory: rounded, noisy, a layer short, trained on, hotter or colder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lmmap.demo.smollm2 import round_rows
from lmmap.errors import InputError, closest
from lmmap.scoring.forward import LoadedModel

Change = Callable[[Any], None]

BITS = (8, 6, 4, 3)
NOISE = (0.01, 0.03, 0.1)
TEMPERATURES = (0.9, 1.1)
TUNED = "tuned"
ALTERATIONS = (
    *(f"{bits}bit" for bits in BITS),
    *(f"noise{share:.0%}" for share in NOISE),
    "dropped",
    TUNED,
    *(f"temperature{t}" for t in TEMPERATURES),
)
"""Names of all alterations: bits of the weights, noise, a dropped layer, training, temperatures."""

STEPS, WINDOWS, WINDOW, RATE = 6, 2, 128, 3e-5  # of the training: updates, texts and tokens in each, and rate


def altered_copy(
    model: LoadedModel, alteration: str, *, texts: Sequence[str] = (), seed: int = 0
) -> LoadedModel:
    """Copy a model and alter the copy; the same arguments give the same copy.

    Parameters
    ----------
    model : LoadedModel
        Stays as it is.
    alteration : str
        One of `ALTERATIONS`. ``4bit``: every matrix, the embedding too, rounded row by row (`round_rows`).
        ``noise3%``: Gaussian noise on every matrix, of 3 % of the matrix's own standard deviation.
        ``dropped``: without the layer at two thirds of the depth. ``tuned``: trained a little on ``texts``.
        ``temperature1.1``: logits over 1.1.
    texts : sequence of str
        What ``tuned`` is trained on: texts of one domain.
    seed : int
        Of the noise.

    Returns
    -------
    LoadedModel
        Named after the model and the alteration.

    Raises
    ------
    InputError
        If the alteration is unknown, or ``tuned`` lacks texts that fill its windows or a model in 32 bits; or
        if a model to be shortened has one layer.
    """
    if alteration not in ALTERATIONS:
        known = ", ".join(ALTERATIONS)
        raise InputError(f"unknown alteration {alteration!r}{closest(alteration, ALTERATIONS)}; use {known}")
    changes: dict[str, Change] = {f"{bits}bit": _rounding(bits) for bits in BITS}
    changes |= {f"noise{share:.0%}": _noise(share, seed) for share in NOISE}
    changes |= {f"temperature{t}": _temperature(t) for t in TEMPERATURES}
    changes |= {"dropped": _drop_layer, TUNED: lambda copy: _tune(copy, model.tokenizer, texts)}
    copy = deepcopy(model.model)
    changes[alteration](copy)
    spec = replace(model.spec, name=f"{model.spec.name}-{alteration}")
    return LoadedModel(spec, copy.eval(), model.tokenizer, model.precision)


def _rounding(bits: int) -> Change:
    def change(model: Any) -> None:  # noqa: ANN401
        for matrix in _matrices(model):
            matrix.copy_(round_rows(matrix, bits))

    return change


def _noise(share: float, seed: int) -> Change:
    """Draw on the CPU, so that every device gets the same noise."""

    def change(model: Any) -> None:  # noqa: ANN401
        generator = torch.Generator().manual_seed(seed)
        for matrix in _matrices(model):
            noise = torch.randn(matrix.shape, generator=generator).to(matrix)
            matrix.add_(noise * (share * matrix.std()))

    return change


def _temperature(temperature: float) -> Change:
    """Divide what the model's own forward gives, whatever its head does, by way of a hook."""

    def scale(_model: object, _arguments: object, output: Any) -> Any:  # noqa: ANN401
        output.logits = output.logits / temperature
        return output

    return lambda model: model.register_forward_hook(scale)


def _drop_layer(model: Any) -> None:  # noqa: ANN401
    """Take the layer at two thirds of the depth out; those behind it count one less."""
    config = model.config.get_text_config(decoder=True)
    n = config.num_hidden_layers
    if n < 2:
        raise InputError(f"{type(model).__name__} has {n} layer; one of two or more can be dropped")
    layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n)
    at = 2 * n // 3
    for layer in layers[at + 1 :]:
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx -= 1
    del layers[at]
    if getattr(config, "layer_types", None):
        config.layer_types = [kind for i, kind in enumerate(config.layer_types) if i != at]
    config.num_hidden_layers = n - 1


def _tune(model: Any, tokenizer: Any, texts: Sequence[str]) -> None:  # noqa: ANN401
    """Train on windows of the texts, one after the other, for a few updates."""
    if model.dtype not in (torch.float32, torch.float64):
        raise InputError(f"a model in {model.dtype} is not trained; load it in float32")
    ids = [i for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"] for i in ids]
    needed = STEPS * WINDOWS * WINDOW
    if len(ids) < needed:
        raise InputError(f"{TUNED} takes {needed:,} tokens of text, {len(texts)} texts have {len(ids):,}")
    windows = torch.tensor(ids[:needed], device=model.device).view(STEPS, WINDOWS, WINDOW)
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for batch in windows:
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.requires_grad_(False)


def _matrices(model: Any) -> list[torch.Tensor]:  # noqa: ANN401
    """Weights with two axes: those of linear layers and embeddings, tied ones once."""
    return [parameter.data for parameter in model.parameters() if parameter.ndim == 2]
