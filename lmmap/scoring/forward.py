"""A loaded model: its decoder run on token ids, its own head run on chosen rows of what comes out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lmmap.errors import InputError, PrecisionError
from lmmap.models import ModelSpec
from lmmap.scoring.functions import no_packing, plain_functions, replaced
from lmmap.scoring.fused import Fused, has_kernels
from lmmap.scoring.stub import NoStubError, Stub, decoders_run
from lmmap.scoring.surroundings import (
    DEVICE_ERRORS,
    HALF,
    attention_without_plans,
    options_of,
    plain_state,
    tensor_cores,
)
from lmmap.scoring.tables import TablesRead, declared_context, pad_ids, switch_length

HEAD_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**28}  # 4 MiB stay in a cache; a GPU wants work
FEWEST_ROWS = 256  # so that a large vocabulary's weights are not read for a few rows at a time
MOST_ROWS = 2**14  # some models prepare a mask of rows x rows on the way to their head
PROBE_TOKENS = 8
FUSED_TOLERANCE = 0.1  # nats, of a log-probability; the row's noise is measured besides


class LoadedModel:
    """A causal language model that gives hidden states, and logits of chosen rows of them.

    The head is never taken apart: the model's own ``forward`` runs with its decoder replaced by one that
    returns the rows, so that scales, soft-caps, biases and transforms apply as they would.

    Parameters
    ----------
    spec : ModelSpec
        What was loaded.
    model : PreTrainedModel
        A causal language model in evaluation mode, whose weights stay what they are from here on.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    precision : str
        One of `lmmap.models.DTYPES`.
    fuse : bool
        Whether norms, gates, rotary embeddings and attention may run as one kernel each, on a GPU in 16 bits.

    Attributes
    ----------
    fused : dict
        How many parts of each kind do.
    head : str
        ``stub`` if the head runs on chosen rows, ``forward`` if every logit is computed.
    vocab_size : int
        Rows of the input embedding, or columns of the logits if they are fewer: ids must lie below.
    hidden_size : int
        Columns of what the decoder gives.
    context : int or None
        How many positions the model has; None if nothing bounds them.
    equal_above : int or None
        Length above which only sequences of one length share a batch; None if it does not matter.

    Raises
    ------
    InputError
        If the model does not give logits for plain token ids.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: Any,  # noqa: ANN401
        tokenizer: Any,  # noqa: ANN401
        precision: str,
        *,
        fuse: bool = True,
    ) -> None:
        self.spec, self.model, self.tokenizer, self.precision = spec, model, tokenizer, precision
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        config = model.config.get_text_config(decoder=True)
        self.equal_above = switch_length(config)
        self.head = "forward"
        self._fused: Fused | None = None
        self._plain = [] if self.dtype in HALF else plain_functions(model)
        self._state: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._stub: Any = None
        expected, tables = self._run_probe()
        columns = expected.shape[-1]
        self.hidden_size = int(getattr(config, "hidden_size", None) or columns)
        self.vocab_size = min(self._embedding_rows or tables.n_ids or columns, columns)
        bounds = [n for n in (declared_context(config), tables.n_positions) if n]
        self.context = min(bounds, default=None)
        self._state = plain_state(model)
        with suppress(NoStubError):
            self._verify_stub(expected)
            self.head = "stub"
        if fuse and self._may_fuse:
            self._fuse(expected)

    @property
    def fused(self) -> dict[str, int]:
        """How many parts of each kind run as one kernel."""
        return self._fused.parts if self._fused else {}

    @cached_property
    def n_parameters(self) -> int:
        """Parameters, tied ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

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
        ids = put(ids, self.device)
        for now, settled in self._state:
            now.update(settled)
        with self._running():
            if self.head == "forward":
                return torch.cat([self._forward(row[None]) for row in ids])
            hidden: Tensor = self._stub.hidden(lambda: self._forward(ids))
            return hidden

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
            return _single(hidden)
        with self._stub.replaced(hidden[None]), self._running():
            placeholder = torch.zeros((1, hidden.shape[0]), dtype=torch.int64, device=self.device)
            return _single(self._forward(placeholder)[0])

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
        for rows, wanted in zip(self.row_chunks(hidden), self.row_chunks(targets), strict=True):
            logits = self.logits(rows)
            out.append(_log_prob(logits, put(wanted, logits.device)))
        return torch.cat(out)

    def score(self, ids: Tensor, keep: Tensor) -> Tensor:
        """Log-probability of chosen tokens, each given those before it.

        Parameters
        ----------
        ids : (B, T + 1) int64 tensor
            Right-padded.
        keep : (B, T) bool tensor
            Which of the tokens after the first count.

        Returns
        -------
        (R,) float32 tensor (float64 for a float64 model)
            Nats, sequence by sequence.
        """
        if self.head == "stub":
            return self._score_rows(ids, keep)
        return torch.cat(  # every logit is computed: those of one sequence at a time
            [self._score_rows(row[None], kept[None]) for row, kept in zip(ids, keep, strict=True)]
        )

    def _score_rows(self, ids: Tensor, keep: Tensor) -> Tensor:
        hidden = self.hidden(ids[:, :-1]).flatten(0, 1)  # on another device than the ids, if spread over many
        places = keep.flatten().nonzero()[:, 0]
        return self.log_probs(hidden[put(places, hidden.device)], ids[:, 1:][keep])

    @contextmanager
    def running(self, on: str) -> Iterator[None]:
        """Tell in one sentence that the model does not run, if it fails in the block.

        Parameters
        ----------
        on : str
            Ends the sentence "it does not run ...".

        Raises
        ------
        PrecisionError
            For whatever the model raises, but for what the machine does.
        """
        try:
            yield
        except DEVICE_ERRORS:
            raise
        except Exception as error:  # every architecture fails in its own way
            raise PrecisionError(
                f"{self.spec.source}: {type(self.model).__name__} does not run {on}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def row_chunks(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Split rows so that the logits of one chunk are few."""
        chunks: tuple[Tensor, ...] = rows.split(self._rows_at_once)
        return chunks

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run fused parts in 16 bits and the model's own code elsewhere, products in the row's precision."""
        parts = self._fused.running() if self._fused else replaced(self._plain)
        seen = no_packing() if self.head == "stub" else []  # that it makes no difference, at load
        products = tensor_cores(self.precision == "tf32")
        with self._here(), products, attention_without_plans(), parts, replaced(seen):
            yield

    def _here(self) -> AbstractContextManager[Any]:
        """Launch kernels on the model's own GPU."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    @cached_property
    def _takes(self) -> Mapping[str, inspect.Parameter]:
        """What the model's forward takes."""
        return inspect.signature(self.model.forward).parameters

    @property
    def _rows_at_once(self) -> int:
        most = LOGITS_AT_ONCE.get(self.device.type, LOGITS_AT_ONCE["cpu"])
        return int(min(max(FEWEST_ROWS, most // self.vocab_size), MOST_ROWS))

    def _forward(self, ids: Tensor) -> Tensor:
        """Run the model's own forward and give its logits."""
        output = self.model(input_ids=ids, **options_of(self._takes, ids))
        logits: Tensor = output.logits if hasattr(output, "logits") else output[0]
        return logits

    def _run_probe(self) -> tuple[Tensor, TablesRead]:
        """Run eight tokens: which module gives hidden states, which tables are read, what logits come out."""
        tables = TablesRead(self.model, self._probe)
        failing = self.running("on plain token ids")
        with failing, torch.inference_mode(), self._running(), decoders_run(self.model) as decoders, tables:
            logits = self._forward(self._probe)
        if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != self._probe.shape:
            shape = tuple(getattr(logits, "shape", ()))
            raise InputError(
                f"{self.spec.source}: {type(self.model).__name__} gives {shape} for ids of "
                f"{tuple(self._probe.shape)}, not logits over a vocabulary for each"
            )
        self._stub = Stub(self.model, *decoders[-1]) if decoders else None
        return logits[0], tables

    def _verify_stub(self, expected: Tensor) -> None:
        """Compare with the full forward, rows out of order and as many as will ever be asked for at once."""
        if self._stub is None:
            raise NoStubError
        with torch.inference_mode():
            self.head = "stub"
            try:
                hidden = self.hidden(self._probe)[0]
                n = len(hidden)
                order = torch.arange(self._rows_at_once) * 3 % n  # on no GPU: a model may be spread over many
                error = _apart(self.logits(hidden[order])[:n], _single(expected)[order[:n]])
            except DEVICE_ERRORS:
                raise
            except Exception as reason:  # any architecture may object to a stubbed decoder in its own way
                raise NoStubError from reason
            finally:
                self.head = "forward"
        largest = float(expected.abs().nan_to_num(posinf=0.0).max())
        rounds_as = torch.float16 if self.precision == "tf32" else self.dtype  # as long a mantissa
        rounding = 8 * torch.finfo(rounds_as).eps * largest
        if not error <= max(rounding, HEAD_TOLERANCE.get(rounds_as, 0.1)):
            raise NoStubError

    @property
    def _may_fuse(self) -> bool:
        return self.dtype in HALF and self.device.type == "cuda" and self.head == "stub" and has_kernels()

    def _fuse(self, expected: Tensor) -> None:
        """Take the fused parts if the whole model agrees with the plain one."""
        with self._here():
            self._fused = Fused(self.model)
        try:
            with torch.inference_mode():
                error = _apart(self.logits(self.hidden(self._probe)[0]), _single(expected))
        except DEVICE_ERRORS:
            raise
        except Exception:  # whatever a model does with its parts, it has its own
            error = math.inf
        if not error <= FUSED_TOLERANCE:
            self._fused.undo()

    @cached_property
    def _probe(self) -> Tensor:
        """Eight ids that neither count up nor are padding, which some models give no position."""
        config = self.model.config.get_text_config(decoder=True)
        known = [getattr(config, "vocab_size", None), self._embedding_rows]
        ids = torch.arange(min((n for n in known if n), default=PROBE_TOKENS))
        ids = ids[~torch.isin(ids, torch.tensor(sorted(pad_ids(self.model)), dtype=torch.int64))]
        n_tokens = min(PROBE_TOKENS, max(2, (declared_context(config) or 2 * PROBE_TOKENS) // 2))
        drawn = torch.randint(len(ids), (1, n_tokens), generator=torch.Generator().manual_seed(0))
        return ids[drawn].to(self.device)

    @property
    def _embedding_rows(self) -> int | None:
        with suppress(NotImplementedError, AttributeError):  # somebody's own code need not have any
            return len(self.model.get_input_embeddings().weight)
        return None


def put(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a tensor to a device, to a GPU without waiting for it."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of a column of each row."""
    if logits.is_cuda and logits.dtype == torch.float32 and logits.stride(1) == 1 and has_kernels():
        from lmmap.scoring.kernels import log_prob

        with torch.cuda.device(logits.device):
            return log_prob(logits, targets)
    at_once = LOGITS_AT_ONCE.get(logits.device.type, LOGITS_AT_ONCE["cpu"])
    pieces = logits.split(max(1, at_once // logits.shape[1]))  # of a CPU's rows, what stays in its cache
    return logits.gather(1, targets[:, None])[:, 0] - torch.cat([piece.logsumexp(dim=1) for piece in pieces])


def _apart(got: Tensor, want: Tensor) -> float:
    """Largest difference of a log-probability, of logits that may be minus infinity."""
    got, want = got.log_softmax(-1), want.log_softmax(-1)
    return float((got - want).abs().masked_fill(got == want, 0).max())


def _single(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
