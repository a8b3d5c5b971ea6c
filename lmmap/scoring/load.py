"""Loading a model and its tokenizer from wherever they come."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lmmap.errors import InputError, PrecisionError
from lmmap.files import DISK_FULL
from lmmap.models import PICKLES, WEIGHTS, ModelSpec
from lmmap.scoring.adapter import with_adapter
from lmmap.scoring.causal import refusal
from lmmap.scoring.forward import DEVICE_ERRORS, LoadedModel

DEFAULT_DTYPE = {"cpu": "float32", "cuda": "float16"}


def load_model(
    spec: ModelSpec, *, device: str = "cpu", dtype: str | None = None, fuse: bool = True
) -> LoadedModel:
    """Load a causal language model with its tokenizer.

    Parameters
    ----------
    spec : ModelSpec
        Hub id with revision, folder, or ``.gguf`` file; with adapter and quantization, if wanted.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``, ...
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
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place = torch.device(device)
    dtype = dtype or spec.dtype or DEFAULT_DTYPE.get(place.type, "float32")
    if dtype == "tf32" and place.type != "cuda":
        raise InputError(f"{spec.source}: tf32 is a mode of GPUs; on {device} use float32")
    source, options = _where(spec)
    options["trust_remote_code"] = spec.trust_remote_code
    loading = {**options, "dtype": torch_dtype(dtype), "output_loading_info": True, "weights_only": True}
    if not spec.allow_pickle:
        loading["use_safetensors"] = True
    if dtype == "float64":  # the grouped kernels of mixtures of experts know no float64
        loading["experts_implementation"] = "eager"
    if spec.quantization is not None:
        loading |= {"quantization_config": _rounding(spec, dtype), "device_map": {"": place}}
    with _quiet():
        try:
            reason = refusal(AutoConfig.from_pretrained(source, **options))
            if reason is not None:
                raise InputError(f"{spec.source} is not scored: {reason}")
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model, info = AutoModelForCausalLM.from_pretrained(source, **loading)
            if getattr(model, "_hf_peft_config_loaded", False):
                raise InputError(
                    f"{spec.source} is an adapter; write its base as `model:` and it as `adapter:`"
                )
            _check_weights(spec, model, info)
            if spec.adapter is not None:
                model = with_adapter(model, spec)
        except InputError:
            raise
        except Exception as error:  # files, formats and architectures fail in their own ways
            if isinstance(error, DEVICE_ERRORS) or getattr(error, "errno", None) in DISK_FULL:
                raise
            raise InputError(f"{spec.source} cannot be loaded: {_first_sentence(error)}") from error
    if not spec.is_local:
        model.config._commit_hash = _commit(spec)
    if spec.quantization is None:
        model = model.to(place)
    return LoadedModel(spec, model.eval(), tokenizer, dtype, fuse=fuse)


def torch_dtype(dtype: str) -> torch.dtype:
    """Give the type in which a named precision keeps its numbers."""
    kept: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
    return kept


def _where(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """Give from_pretrained's source and options, after a look at what is on disk."""
    if not spec.is_local:
        options = {"revision": spec.revision, "gguf_file": spec.gguf_file}
        return spec.source, {key: value for key, value in options.items() if value is not None}
    path = Path(spec.source)
    if not path.exists():
        raise InputError(f"no such folder or file: {path}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"{path}: a model file must be .gguf")
        return str(path.parent), {"gguf_file": path.name}
    if (path / "adapter_config.json").exists():
        base = json.loads((path / "adapter_config.json").read_text()).get("base_model_name_or_path")
        whole = ", or remove adapter_config.json, if its weights are whole"
        raise InputError(
            f"{path} is an adapter; write `model: {base}` and `adapter: {path}`"
            f"{whole if (path / 'config.json').exists() else ''}"
        )
    if not (path / "config.json").exists():
        raise InputError(f"{path}: the folder has no config.json, so it is no model")
    suffixes = {file.suffix for file in path.iterdir()}
    if not suffixes & {*WEIGHTS, *(PICKLES if spec.allow_pickle else ())}:
        pickled = "; it has .bin files, which are read with `allow_pickle: true`"
        raise InputError(
            f"{path}: the folder has no weights (*.safetensors){pickled if suffixes & {*PICKLES} else ''}"
        )
    return str(path), {"local_files_only": True}


def _commit(spec: ModelSpec) -> str | None:
    """Read from the cache which commit of a Hub repository was loaded."""
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    file = cached_file(
        spec.source, spec.gguf_file or "config.json", revision=spec.revision, local_files_only=True
    )
    commit: str | None = extract_commit_hash(file, None)
    return commit


def _rounding(spec: ModelSpec, dtype: str) -> Any:  # noqa: ANN401
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
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch_dtype(dtype)
    )


def _check_weights(spec: ModelSpec, model: Any, info: Any) -> None:  # noqa: ANN401
    for kind in ("missing_keys", "mismatched_keys"):
        keys = sorted(map(str, info.get(kind, ())))
        if keys:
            raise InputError(
                f"{spec.source}: {len(keys)} weights are {kind.removesuffix('_keys')}, such as {keys[0]}; "
                f"is it a {type(model).__name__}?"
            )
    for name, parameter in model.named_parameters():
        packed = type(parameter.data) is not torch.Tensor  # of a quantizer; its logits are looked at instead
        if not packed and not torch.isfinite(parameter).all():
            raise PrecisionError(f"{spec.source}: weight {name} holds values that are not finite")


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
