"""How many token ids and positions a model knows, by its configuration and by the tables that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx", "context_length",
    "seq_length", "model_max_length",
)  # fmt: skip
SWITCHING_ROPE = {"dynamic", "longrope", "su"}
SWITCHING_KEYS = ("index_topk", "indexer_budget")


class TablesRead(TorchDispatchMode):  # type: ignore[misc]
    """Watches a forward pass for lookups of its token ids, and of positions that count up.

    A table of positions may begin behind reserved rows: RoBERTa's 514 hold 512 tokens.

    Parameters
    ----------
    model : torch.nn.Module
        Only its own parameters and buffers are tables; what a forward pass makes is as long as it needs.
    ids : (1, T) tensor
        What the pass reads; no two neighbours may count up.

    Attributes
    ----------
    n_ids, n_positions : int or None
        The shortest tables; None if no lookup was seen.
    """

    def __init__(self, model: torch.nn.Module, ids: Tensor) -> None:
        super().__init__()
        self.known = {_place(t) for t in (*model.parameters(), *model.buffers())} - {None}
        self.ids = ids[0].cpu()
        self.n_ids: int | None = None
        self.n_positions: int | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        name = func.overloadpacket.__name__
        if name == "embedding":
            self._look(args[0], args[1])
        elif name == "index_select" and args[1] == 0:
            self._look(args[0], args[2])
        elif name == "index" and isinstance(args[1][0], Tensor):
            self._look(args[0], args[1][0])
        return func(*args, **(kwargs or {}))

    def _look(self, table: Tensor, index: Tensor) -> None:
        n = len(self.ids)
        if index.dtype not in (torch.int64, torch.int32) or not index.numel() or index.numel() % n:
            return
        rows = index.reshape(-1, n).cpu()
        if _place(table) not in self.known or not (rows == rows[0]).all():
            return
        if torch.equal(rows[0].long(), self.ids):
            self.n_ids = min(self.n_ids or table.shape[0], table.shape[0])
        elif (rows[0].diff() == 1).all():
            left = table.shape[0] - int(rows[0, 0])
            self.n_positions = min(self.n_positions or left, left)


def _place(tensor: Tensor) -> int | None:
    """Where a tensor's numbers lie; quantized ones have no place of their own."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except RuntimeError:
        return None


def declared_context(config: Any) -> int | None:  # noqa: ANN401
    """Read the number of positions from a configuration.

    Parameters
    ----------
    config : PretrainedConfig
        A text model's configuration.

    Returns
    -------
    int or None
        The first of several keys that is a positive number.
    """
    values = (getattr(config, key, None) for key in CONTEXT_KEYS)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def switch_length(config: Any) -> int | None:  # noqa: ANN401
    """Find the length at which a model changes its way of computing.

    Dynamic and long RoPE take other frequencies beyond a length, whatever the padding; sparse attention
    begins to choose keys. Below, padding is free; above, only sequences of one length may share a batch.

    Parameters
    ----------
    config : PretrainedConfig
        A text model's configuration.

    Returns
    -------
    int or None
        The shortest such length; None for nearly all models.
    """
    settings = config.to_dict()
    lengths = [settings[key] for key in SWITCHING_KEYS if isinstance(settings.get(key), int)]
    for rope in _ropes(settings.get("rope_parameters") or settings.get("rope_scaling")):
        if rope.get("rope_type", rope.get("type")) in SWITCHING_ROPE:
            known = [rope.get("original_max_position_embeddings"), declared_context(config)]
            known += [settings.get("original_max_position_embeddings")]
            lengths += [value for value in known if isinstance(value, int)]
    return min(lengths, default=None)


def pad_ids(model: Any) -> set[int]:  # noqa: ANN401
    """Find the ids that a model takes for padding wherever they stand.

    Parameters
    ----------
    model : PreTrainedModel
        A model.

    Returns
    -------
    set of int
        Rows that its embeddings reserve, and its configuration's padding.
    """
    found = {getattr(module, "padding_idx", None) for module in model.modules()}
    found.add(getattr(model.config.get_text_config(decoder=True), "pad_token_id", None))
    return {i for i in found if isinstance(i, int) and i >= 0}


def _ropes(parameters: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401
    """One set of parameters, or one for each kind of layer."""
    if isinstance(parameters, Mapping):
        yield parameters
        for value in parameters.values():
            yield from _ropes(value)
