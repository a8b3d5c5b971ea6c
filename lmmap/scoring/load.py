"""Loading a model and its tokenizer from wherever they come."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch

from lmmap.errors import InputError, PrecisionError
from lmmap.files import DISK_FULL
from lmmap.models import ModelSpec
from lmmap.scoring.adapter import with_adapter
from lmmap.scoring.causal import refusal
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.functions import own_types
from lmmap.scoring.source import commit, stored_dtype, where
from lmmap.scoring.surroundings import DEVICE_ERRORS, HALF

SPREAD = "gpus"  # the device of a model that is larger than one GPU
DEFAULT_DTYPE = {"cpu": "float32", "cuda": "float16"}


class Checkpoint:
    """A model as its files hold it.

    A plain model is read once, into main memory and without rounding, and put on a device in any precision
    as often as wanted; one with an adapter, a quantization or code of its own is read again each time.

    Parameters
    ----------
    spec : ModelSpec
        Hub id with revision, folder, or ``.gguf`` file; with adapter and quantization, if wanted.
    dtype : str
        The coarsest precision that will be asked for.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.

    Raises
    ------
    InputError
        If there are no weights, the model is not causal, or weights are missing.
    """

    def __init__(self, spec: ModelSpec, dtype: str) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.spec = spec
        self._source, self._options = where(spec)
        self._options["trust_remote_code"] = spec.trust_remote_code
        self._whole: Any = None
        with _quiet(), own_types(), _named_after(spec):
            config = AutoConfig.from_pretrained(self._source, **self._options)
            reason = refusal(config)
            if reason is not None:
                raise InputError(f"{spec.source} is not scored: {reason}")
            self.tokenizer = AutoTokenizer.from_pretrained(self._source, **self._options)
            plain = not (spec.adapter or spec.quantization or spec.trust_remote_code)
            if plain and torch_dtype(dtype) in HALF and not hasattr(config, "quantization_config"):
                kept = stored_dtype(self._source, self._options)
                rounds = kept in HALF and rounded_buffers(config, kept)
                self._whole = self._read("cpu", torch.float32 if rounds else kept)

    @property
    def n_parameters(self) -> int | None:
        """How many parameters the model has, tied ones counted once; None unless it has been read."""
        return None if self._whole is None else sum(p.numel() for p in self._whole.parameters())

    def on(self, device: str, dtype: str, *, fuse: bool = True) -> LoadedModel:
        """Put the model on a device.

        Parameters
        ----------
        device : str
            ``cpu``, ``cuda``, ``cuda:1``, ...; ``gpus`` spreads it over all of them.
        dtype : str
            One of `lmmap.models.DTYPES`, none coarser than what was said at first.
        fuse : bool
            As `LoadedModel`.

        Returns
        -------
        LoadedModel
            In evaluation mode.

        Raises
        ------
        InputError
            If weights are not finite (`PrecisionError`), or the model does not run.
        """
        place, kind = torch.device("cuda" if device == SPREAD else device), torch_dtype(dtype)
        if dtype == "tf32" and place.type != "cuda":
            raise InputError(f"{self.spec.source}: tf32 is a mode of GPUs; on {device} use float32")
        if self._whole is not None and device != SPREAD:
            model = copied(self._whole, place, kind)
        else:
            with _quiet(), own_types(), _named_after(self.spec):
                model = self._read(device, kind)
            if not hasattr(model, "hf_device_map"):
                model = model.to(place)
        _check_finite(self.spec, model)
        fuse = fuse and device != SPREAD  # kernels run on one device
        return LoadedModel(self.spec, model.eval(), self.tokenizer, dtype, fuse=fuse)

    def _read(self, device: str, dtype: torch.dtype) -> Any:  # noqa: ANN401
        from transformers import AutoModelForCausalLM

        spec = self.spec
        loading = {**self._options, "dtype": dtype, "output_loading_info": True, "weights_only": True}
        if not spec.allow_pickle:
            loading["use_safetensors"] = True
        if dtype == torch.float64:  # the grouped kernels of mixtures of experts know no float64
            loading["experts_implementation"] = "eager"
        if device == SPREAD:
            loading["device_map"] = "auto"
        if spec.quantization is not None:
            loading["quantization_config"] = _rounding(spec, dtype)
            loading.setdefault("device_map", {"": torch.device(device)})
        model, info = AutoModelForCausalLM.from_pretrained(self._source, **loading)
        if getattr(model, "_hf_peft_config_loaded", False):
            raise InputError(f"{spec.source} is an adapter; write its base as `model:` and it as `adapter:`")
        _check_weights(spec, model, info)
        if spec.adapter is not None:
            model = with_adapter(model, spec)
        if not spec.is_local:
            model.config._commit_hash = commit(spec)
        return model


def load_model(
    spec: ModelSpec, *, device: str = "cpu", dtype: str | None = None, fuse: bool = True
) -> LoadedModel:
    """Load a causal language model with its tokenizer.

    Parameters
    ----------
    spec : ModelSpec
        Hub id with revision, folder, or ``.gguf`` file; with adapter and quantization, if wanted.
    device : str
        As `Checkpoint.on`.
    dtype : str, optional
        Overrides the spec's; without either float32 on a CPU and float16 on a GPU.
    fuse : bool
        As `LoadedModel`.

    Returns
    -------
    LoadedModel
        In evaluation mode.

    Raises
    ------
    InputError
        If there are no weights, the model is not causal, or weights are missing or not finite.
    """
    dtype = dtype or spec.dtype or DEFAULT_DTYPE.get(torch.device(device).type, "float32")
    return Checkpoint(spec, dtype).on(device, dtype, fuse=fuse)


def copied(model: Any, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Copy a model to a device and a precision, to be what loading it in that precision would have given.

    Parameters
    ----------
    model : PreTrainedModel
        As it was read; it stays what it is.
    device : torch.device
        Where the copy goes.
    dtype : torch.dtype
        Of its weights; what its own code keeps in float32 stays so.

    Returns
    -------
    PreTrainedModel
        Shares what needs no copy.
    """
    kinds = _kinds(model.config, dtype)
    memo: dict[int, Any] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        there = tensor.data.to(device).to(kinds[name] if tensor.is_floating_point() else tensor.dtype)
        is_weight = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(there, requires_grad=False) if is_weight else there
    copy = deepcopy(model, memo)
    for part in {id(c): c for c in (copy.config, copy.config.get_text_config(decoder=True))}.values():
        part.dtype = dtype
    return copy


def rounded_buffers(config: Any, dtype: torch.dtype) -> bool:  # noqa: ANN401
    """Tell whether a model's code computes tables of its own in a 16-bit precision, if read in it."""
    model = _outline(config, dtype)
    stored = set(model.state_dict())
    return any(buffer.dtype in HALF for name, buffer in model.named_buffers() if name not in stored)


def _kinds(config: Any, dtype: torch.dtype) -> dict[str, torch.dtype]:  # noqa: ANN401
    """Give the type of every weight and buffer of a model that is loaded in a precision."""
    model = _outline(config, dtype)
    kept = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ()) if dtype in HALF else set()
    if dtype == torch.float16:
        kept |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    wide = re.compile("|".join(name.replace("*", ".*") for name in sorted(kept)) or r"(?!)")
    stored = set(model.state_dict())
    whole = {"remove_duplicate": False}  # a checkpoint may hold apart what its configuration ties
    named = (*model.named_parameters(**whole), *model.named_buffers(**whole))
    return {n: torch.float32 if n in stored and wide.search(n) else t.dtype for n, t in named}


def _outline(config: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Build a model without any memory for its weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), _quiet():
        return AutoModelForCausalLM.from_config(deepcopy(config), dtype=dtype)


def torch_dtype(dtype: str) -> torch.dtype:
    """Give the type in which a named precision keeps its numbers."""
    kept: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
    return kept


def _rounding(spec: ModelSpec, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Translate the name of a quantization for transformers."""
    from transformers import BitsAndBytesConfig, TorchAoConfig

    package = str(spec.quantization).partition("-")[0]
    try:
        if package == "torchao":
            from torchao.quantization import Int8WeightOnlyConfig

            return TorchAoConfig(Int8WeightOnlyConfig())
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise InputError(
            f"{spec.source}: quantization {spec.quantization!r} needs `{package}`: "
            "pip install 'lmmap[quantization]'"
        ) from None
    if spec.quantization == "bitsandbytes-8bit":
        # Outlier columns would be chosen over the whole batch: a text's score would depend on its company.
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _check_weights(spec: ModelSpec, model: Any, info: Any) -> None:  # noqa: ANN401
    for kind in ("missing_keys", "mismatched_keys"):
        keys = sorted(map(str, info.get(kind, ())))
        if keys:
            raise InputError(
                f"{spec.source}: {len(keys)} weights are {kind.removesuffix('_keys')}, such as {keys[0]}; "
                f"is it a {type(model).__name__}?"
            )


def _check_finite(spec: ModelSpec, model: Any) -> None:  # noqa: ANN401
    """Look at all weights, and wait for the device once; a quantizer's are seen by the logits instead."""
    plain = [(name, p) for name, p in model.named_parameters() if type(p.data) is torch.Tensor]
    finite = [torch.isfinite(p).all().to(model.device) for _, p in plain if p.is_floating_point()]
    if finite and not torch.stack(finite).all():
        name = next(name for name, p in plain if not torch.isfinite(p).all())
        raise PrecisionError(f"{spec.source}: weight {name} holds values that are not finite")


@contextmanager
def _named_after(spec: ModelSpec) -> Iterator[None]:
    """Tell in one sentence that a model cannot be loaded."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # files, formats and architectures fail in their own ways
        if isinstance(error, DEVICE_ERRORS) or getattr(error, "errno", None) in DISK_FULL:
            raise
        raise InputError(f"{spec.source} cannot be loaded: {_first_sentence(error)}") from error


def _first_sentence(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it brings code of its own, which runs only with `trust_remote_code: true`"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep loading bars and advice of transformers off the screen; errors still come."""
    from transformers.utils import logging as transformers_logging

    bars, disabled = transformers_logging.is_progress_bar_enabled(), logging.root.manager.disable
    logging.disable(logging.WARNING)  # of whatever package transformers imports for this model
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if bars:
            transformers_logging.enable_progress_bar()
