"""Models between models: affine combinations of the weights of models of one architecture, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from lmmap.errors import InputError
from lmmap.scoring.encode import tokenizer_hash
from lmmap.scoring.forward import LoadedModel

SUM_TOLERANCE = 1e-6  # decimals such as three times 0.1 do not add up to the last bit
NOT_THE_FUNCTION = {"_name_or_path", "architectures", "dtype", "initializer_range", "pad_token_id"} | {
    "bos_token_id", "eos_token_id", "transformers_version", "use_cache",
}  # fmt: skip  # settings in which models that compute the same may differ; dropout is another


def mixed_copy(models: Sequence[LoadedModel], shares: Sequence[float], *, name: str = "") -> LoadedModel:
    """Make the model whose weights are ``sum over i of share_i * theta_i``.

    With shares ``(1 - a - b, a, b)`` it lies at ``theta_0 + a (theta_1 - theta_0) + b (theta_2 - theta_0)``.

    Parameters
    ----------
    models : sequence of LoadedModel
        Two or more of one architecture and tokenizer; they stay as they are.
    shares : sequence of float
        One for each model. They sum to 1; one below 0 or above 1 leads out of what lies between.
    name : str
        Of the mixture; by default the shares with the names of their models.

    Returns
    -------
    LoadedModel
        A copy of the first model with other weights, mixed in float32 (float64 if they are) and kept in the
        first's precision. Tied weights stay tied; tables that no checkpoint holds are the first's.

    Raises
    ------
    InputError
        If there are fewer than two models, the shares are not as many, not finite or do not sum to 1; or if
        architectures, names or shapes of weights, settings or tokenizers differ, or a weight is quantized.
    """
    if len(models) < 2:
        raise InputError(f"mixing takes two or more models, got {len(models)}")
    _check_shares(shares, len(models))
    for other in models[1:]:
        _check_alike(models[0], other)
    copy = deepcopy(models[0].model)
    weights = mixed_weights([_weights(model.model) for model in models], shares)
    with torch.no_grad():
        for key, weight in _weights(copy).items():
            weight.copy_(weights[key])
    parts = zip(shares, models, strict=True)
    name = name or " + ".join(f"{share:g} {model.spec.name}" for share, model in parts if share)
    spec = replace(models[0].spec, name=name)
    return LoadedModel(spec, copy.eval(), models[0].tokenizer, models[0].precision)


def mixed_weights(weights: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Add tensors of one name up, each times the share of its set.

    Parameters
    ----------
    weights : sequence of mapping
        By name, the same names and shapes in each.
    shares : sequence of float
        One for each set.

    Returns
    -------
    dict
        In float32, or float64 where they are; on the devices of the first set.

    Examples
    --------
    >>> mixed_weights([{"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([2.0, 0.0])}], [0.75, 0.25])
    {'w': tensor([0.5000, 3.0000])}
    """
    return {
        key: reduce(
            add, (share * _wide(of_one[key], tensor) for share, of_one in zip(shares, weights, strict=True))
        )
        for key, tensor in weights[0].items()
    }


def _wide(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(device=like.device, dtype=torch.promote_types(tensor.dtype, torch.float32))


def _weights(model: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Give what training moves, by name: parameters, tied ones once, and the buffers saved with them."""
    stored = model.state_dict()
    buffers = {k: t for k, t in model.named_buffers() if k in stored and t.is_floating_point()}
    return {**{key: p.data for key, p in model.named_parameters()}, **buffers}


def _check_shares(shares: Sequence[float], n_models: int) -> None:
    if len(shares) != n_models:
        raise InputError(f"{n_models} models, but {len(shares)} shares; give one for each")
    total = sum(shares)
    if not abs(total - 1) <= SUM_TOLERANCE:
        raise InputError(f"the shares {list(shares)} sum to {total:g}; they must sum to 1")


def _check_alike(first: LoadedModel, other: LoadedModel) -> None:
    """Refuse models whose weights do not mean the same, place by place."""
    pair = f"{first.spec.name} and {other.spec.name} cannot be mixed"
    kinds = [type(model.model).__name__ for model in (first, other)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{pair}: one is a {kinds[0]}, the other a {kinds[1]}")
    ours, theirs = _weights(first.model), _weights(other.model)
    if alone := sorted(ours.keys() ^ theirs.keys()):
        raise InputError(f"{pair}: {len(alone)} weights are in one of them only, such as {alone[0]}")
    for key, weight in ours.items():
        if weight.shape != theirs[key].shape:
            shapes = f"{tuple(weight.shape)} and {tuple(theirs[key].shape)}"
            raise InputError(f"{pair}: weight {key} has the shapes {shapes}")
        for tensor in (weight, theirs[key]):
            if not tensor.is_floating_point():
                raise InputError(f"{pair}: weight {key} is quantized ({tensor.dtype}); load them unquantized")
    settings = [_settings(model.model.config) for model in (first, other)]
    for key in sorted(settings[0].keys() | settings[1].keys()):
        values = [of_one.get(key) for of_one in settings]
        if values[0] != values[1]:
            raise InputError(f"{pair}: {key} is {values[0]!r} in one, {values[1]!r} in the other")
    if tokenizer_hash(first.tokenizer) != tokenizer_hash(other.tokenizer):
        raise InputError(f"{pair}: their tokenizers differ, so one row of the embedding is not one token")


def _settings(config: Any) -> dict[str, Any]:  # noqa: ANN401
    given = config.to_dict().items()
    return {key: value for key, value in given if key not in NOT_THE_FUNCTION and "dropout" not in key}
