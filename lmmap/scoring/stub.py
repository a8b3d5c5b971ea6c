"""The stub: a model's own forward pass with its decoder taken out, so that its head reads chosen rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lmmap.scoring.surroundings import HALF


class NoStubError(Exception):
    """The head of this model cannot be run on chosen rows."""


class Stub:
    """The module of a model that gives hidden states, and the forward pass around it.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model.
    decoder : torch.nn.Module
        Found by `decoders_run`.
    output : object
        What the decoder gave once; its hidden states are replaced.
    """

    def __init__(self, model: Any, decoder: Any, output: Any) -> None:  # noqa: ANN401
        self.model, self.decoder, self.output = model, decoder, output

    def hidden(self, forward: Callable[[], Any]) -> Tensor:
        """Run a forward pass up to the end of the decoder.

        Parameters
        ----------
        forward : callable
            Runs the model.

        Returns
        -------
        (B, T, H) tensor
            What the head would read.

        Raises
        ------
        NoStubError
            If the decoder does not give hidden states this time.
        """

        def stop(_module: object, _arguments: object, output: Any) -> None:  # noqa: ANN401
            raise _DecoderDone(output)

        hook = self.decoder.register_forward_hook(stop)
        try:
            forward()
        except _DecoderDone as done:
            hidden = hidden_of(done.output)
            if hidden is not None:
                return hidden
        finally:
            hook.remove()
        raise NoStubError

    @contextmanager
    def replaced(self, hidden: Tensor) -> Iterator[None]:
        """Let the decoder return given hidden states, and the output layer float32.

        Parameters
        ----------
        hidden : (1, R, H) tensor
            Any rows.
        """
        if isinstance(self.output, Tensor):
            output: Any = hidden
        elif isinstance(self.output, tuple):
            output = (hidden, *self.output[1:])
        else:
            output = copy.copy(self.output)
            output[next(iter(output.keys()))] = hidden
        patches: list[tuple[Any, Any]] = [(self.decoder, lambda *_args, **_options: output)]
        layer = self.model.get_output_embeddings()
        if self.model.dtype in HALF and isinstance(layer, torch.nn.Linear):
            wide = self._float32_head if layer.weight.device.type == "cpu" else None
            patches.append((layer, lambda x: _linear_float32(layer, x, wide)))
        former = [(module, module.__dict__.get("forward")) for module, _ in patches]
        try:
            for module, forward in patches:
                module.forward = forward
            yield
        finally:
            for module, forward in former:
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward

    @cached_property
    def _float32_head(self) -> Tensor:
        """The output layer's weights, which a CPU has room to keep in float32 as well; made once."""
        with torch.inference_mode(False):  # what is made in that mode cannot be used outside it
            weight: Tensor = self.model.get_output_embeddings().weight.detach().float()
        return weight


def hidden_of(output: Any) -> Tensor | None:  # noqa: ANN401
    """Take hidden states from what a decoder returned, unless it went on to logits.

    Parameters
    ----------
    output : object
        A tensor, a tuple or a model output.

    Returns
    -------
    (B, T, H) tensor or None
        None if there are none.
    """
    if hasattr(output, "logits"):
        return None
    try:
        first = output if isinstance(output, Tensor) else output[0]
    except (TypeError, KeyError, IndexError):
        return None
    return first if isinstance(first, Tensor) and first.dim() == 3 else None


@contextmanager
def decoders_run(model: Any) -> Iterator[list[tuple[Any, Any]]]:  # noqa: ANN401
    """Note which modules give hidden states while the model runs, the most likely decoder last.

    Likely are ``base_model``, ``get_decoder()`` and ``base_model.decoder``, whichever the call hits: the
    outermost is left last. Models with code of their own may have none of these: then a direct part.

    Parameters
    ----------
    model : PreTrainedModel
        A causal language model.

    Yields
    ------
    list of (torch.nn.Module, object)
        Modules and what they returned, once the model has run.
    """
    base = model.base_model
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    named = {m for m in (base, decoder, getattr(base, "decoder", None)) if isinstance(m, torch.nn.Module)}
    named.discard(model)
    found: list[tuple[Any, Any]] = []

    def note(module: Any, _arguments: object, output: Any) -> None:  # noqa: ANN401
        if hidden_of(output) is not None:
            found.append((module, output))

    parts = named | {m for m in model.children() if m is not model.get_output_embeddings()}
    hooks = [module.register_forward_hook(note) for module in parts]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
        found.sort(key=lambda pair: pair[0] in named)


def _linear_float32(layer: torch.nn.Linear, x: Tensor, wide: Tensor | None) -> Tensor:
    x = x.to(layer.weight.device)  # of a model spread over GPUs, the last block may be on another one
    bias = None if layer.bias is None else layer.bias.float()
    if x.is_cuda and bias is None:
        rows = x.reshape(-1, x.shape[-1])
        product = torch.mm(rows, layer.weight.t(), out_dtype=torch.float32)
        return product.reshape(*x.shape[:-1], -1)
    return functional.linear(x.float(), layer.weight.float() if wide is None else wide, bias)


class _DecoderDone(Exception):  # noqa: N818 - a signal, not an error
    """The decoder has returned; the rest of the forward pass is not wanted."""

    def __init__(self, output: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.output = output
