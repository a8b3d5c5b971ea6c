"""A loaded model: its decoder run on token ids, its own head run on chosen rows of what comes out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lmmap.models import ModelSpec

HEAD_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**28}  # 4 MiB stay in a cache; a GPU wants work
FEWEST_ROWS = 256  # so that a large vocabulary's weights are not read for a few rows at a time


class LoadedModel:
    """A causal language model that gives hidden states, and logits of chosen rows of them.

    The head is never taken apart: the model's own ``forward`` runs with its decoder replaced by one that
    returns the rows, so that scales, soft-caps, biases and transforms apply as they would.

    Parameters
    ----------
    spec : ModelSpec
        What was loaded.
    model : PreTrainedModel
        A causal language model in evaluation mode.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    precision : str
        One of `lmmap.models.DTYPES`.

    Attributes
    ----------
    head : str
        ``stub`` if the head runs on chosen rows, ``forward`` if every logit is computed.
    """

    def __init__(self, spec: ModelSpec, model: Any, tokenizer: Any, precision: str) -> None:  # noqa: ANN401
        self.spec, self.model, self.tokenizer, self.precision = spec, model, tokenizer, precision
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.head = "forward"
        self._decoder: Any = None
        self._output: Any = None
        with suppress(_NoStub):
            self._find_decoder()
            self._verify_stub()
            self.head = "stub"

    @cached_property
    def context(self) -> int | None:
        """How many positions the model has; None if nothing bounds them."""
        config = self.model.config.get_text_config(decoder=True)
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"):
            value = getattr(config, key, None)
            if isinstance(value, int) and value > 0:
                return value
        return None

    @cached_property
    def vocab_size(self) -> int:
        """Rows of the input embedding: ids must lie below."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @cached_property
    def n_parameters(self) -> int:
        """Parameters, tied ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def tokenizer_hash(self) -> str:
        """16 hex digits over the tokenizer's rules, or its vocabulary where rules cannot be read."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = backend.to_str() if backend is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        return hashlib.sha256(rules.encode()).hexdigest()[:16]

    def hidden(self, ids: Tensor) -> Tensor:
        """Run the decoder.

        Parameters
        ----------
        ids : (B, T) int64 tensor
            Right-padded; no mask is needed, for nothing causal looks to the right.

        Returns
        -------
        (B, T, H) tensor
            What the head reads.
        """
        ids = ids.to(self.device)
        with _tensor_cores(self.precision == "tf32"):
            if self.head == "forward":
                rows = [self.model(input_ids=row[None], use_cache=False).logits[0].float() for row in ids]
                return torch.stack(rows)
            return self._run_decoder(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the model's own head.

        Parameters
        ----------
        hidden : (R, H) tensor
            Rows of what `hidden` gave; R x V is the caller's to bound.

        Returns
        -------
        (R, V) float32 tensor (float64 for a float64 model)
            Logits.
        """
        if self.head == "forward":
            return hidden
        with self._stubbed(hidden[None]), _tensor_cores(self.precision == "tf32"):
            placeholder = torch.zeros((1, hidden.shape[0]), dtype=torch.int64, device=self.device)
            logits: Tensor = self.model(input_ids=placeholder, use_cache=False).logits[0]
        return logits if logits.dtype == torch.float64 else logits.float()

    def log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of a target for each row of hidden states.

        Parameters
        ----------
        hidden : (R, H) tensor
            Rows of what `hidden` gave.
        targets : (R,) int64 tensor
            The token that comes next.

        Returns
        -------
        (R,) float32 tensor (float64 for a float64 model)
            Nats.
        """
        out = []
        targets = targets.to(self.device)
        for rows, wanted in zip(self.row_chunks(hidden), self.row_chunks(targets), strict=True):
            logits = self.logits(rows)
            out.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(dim=1))
        return torch.cat(out)

    def row_chunks(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Split rows so that the logits of one chunk are few."""
        most = LOGITS_AT_ONCE.get(self.device.type, LOGITS_AT_ONCE["cpu"])
        chunks: tuple[Tensor, ...] = rows.split(max(FEWEST_ROWS, most // self.vocab_size))
        return chunks

    def _find_decoder(self) -> None:
        """See which module the forward pass enters that returns hidden states."""
        model = self.model
        base = model.base_model
        found = [
            base,
            model.get_decoder() if hasattr(model, "get_decoder") else None,
            getattr(base, "decoder", None),
        ]
        entered: list[Any] = []
        hooks = [
            module.register_forward_pre_hook(lambda module, _: entered.append(module))
            for module in {
                id(m): m for m in found if isinstance(m, torch.nn.Module) and m is not model
            }.values()
        ]
        try:
            with torch.inference_mode():
                model(input_ids=self._probe, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        if not entered:
            raise _NoStub
        self._decoder = entered[0]

    def _verify_stub(self) -> None:
        with torch.inference_mode():
            expected = self.model(input_ids=self._probe, use_cache=False).logits[0].float().log_softmax(-1)
            self.head = "stub"
            try:
                got = self.logits(self.hidden(self._probe)[0]).log_softmax(-1)
                error = (got - expected).abs().max().item()
            except Exception as reason:  # any architecture may object to a stubbed decoder in its own way
                raise _NoStub from reason
            finally:
                self.head = "forward"
        if not error <= HEAD_TOLERANCE.get(self.dtype, 0.1):
            raise _NoStub

    @property
    def _probe(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(self.vocab_size, (1, 8), generator=generator).to(self.device)

    def _run_decoder(self, ids: Tensor) -> Tensor:
        """Run the model's forward up to the end of its decoder."""

        def stop(_module: object, _arguments: object, output: Any) -> None:  # noqa: ANN401
            raise _DecoderDone(output)

        hook = self._decoder.register_forward_hook(stop)
        try:
            self.model(input_ids=ids, use_cache=False)
        except _DecoderDone as done:
            self._output = done.output
            hidden = done.output[0]
            if not isinstance(hidden, Tensor) or hidden.shape[:2] != ids.shape:
                raise _NoStub from None
            return hidden
        finally:
            hook.remove()
        raise _NoStub

    @contextmanager
    def _stubbed(self, hidden: Tensor) -> Iterator[None]:
        """Let the decoder return given hidden states, and the output layer float32."""
        if isinstance(self._output, tuple):
            output: Any = (hidden, *self._output[1:])
        else:
            output = copy.copy(self._output)
            output[next(iter(output.keys()))] = hidden
        patches: list[tuple[Any, Any]] = [(self._decoder, lambda *_args, **_options: output)]
        layer = self.model.get_output_embeddings()
        if self.dtype in (torch.float16, torch.bfloat16) and isinstance(layer, torch.nn.Linear):
            patches.append((layer, lambda x: _linear_float32(layer, x)))
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


@contextmanager
def _tensor_cores(allowed: bool) -> Iterator[None]:
    """Let float32 products round their factors to TF32, or see that they do not, whatever was set before."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    former = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = allowed
        yield
    finally:
        for place, setting in zip(places, former, strict=True):
            place.allow_tf32 = setting


def _linear_float32(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.float()
    if x.is_cuda and bias is None:
        rows = x.reshape(-1, x.shape[-1])
        product = torch.mm(rows, layer.weight.t(), out_dtype=torch.float32)
        return product.reshape(*x.shape[:-1], -1)
    return functional.linear(x.float(), layer.weight.float(), bias)


class _NoStub(Exception):  # noqa: N818 - a signal, not an error
    """The head of this model cannot be run on chosen rows."""


class _DecoderDone(Exception):  # noqa: N818 - a signal, not an error
    """The decoder has returned; the rest of the forward pass is not wanted."""

    def __init__(self, output: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.output = output
