"""Loading a model and its tokenizer from wherever they come."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lmmap.errors import InputError
from lmmap.models import WEIGHTS, ModelSpec
from lmmap.scoring.forward import LoadedModel


def load_model(spec: ModelSpec, *, device: str = "cpu") -> LoadedModel:
    """Load a causal language model with its tokenizer.

    Parameters
    ----------
    spec : ModelSpec
        Hub id with revision, folder, or ``.gguf`` file.
    device : str
        ``cpu``, ``cuda``, ``cuda:1``, ...

    Returns
    -------
    LoadedModel
        In evaluation mode; float32 on a CPU and float16 on a GPU unless the spec says otherwise.

    Raises
    ------
    InputError
        If there are no weights, the model is not causal, or weights are missing or not finite.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, options = _where(spec)
    options |= {"trust_remote_code": spec.trust_remote_code}
    default = torch.float32 if torch.device(device).type == "cpu" else torch.float16
    dtype = default if spec.dtype is None else getattr(torch, spec.dtype)
    loading = {"dtype": dtype, "output_loading_info": True, **options}
    if dtype == torch.float64:  # the grouped kernels of mixtures of experts know no float64
        loading["experts_implementation"] = "eager"
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model, info = AutoModelForCausalLM.from_pretrained(source, **loading)
        except Exception as error:  # files, formats and architectures fail in their own ways
            raise InputError(f"{spec.source} cannot be loaded: {_first_sentence(error)}") from error
    _check_weights(spec, model, info)
    return LoadedModel(spec, model.to(device).eval(), tokenizer)


def _where(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """Give from_pretrained's source and options, after a look at what is on disk."""
    if not spec.is_local:
        return spec.source, {"revision": spec.revision} if spec.revision else {}
    path = Path(spec.source).expanduser()
    if not path.exists():
        raise InputError(f"no such folder or file: {path}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"{path}: a model file must be .gguf")
        return str(path.parent), {"gguf_file": path.name}
    if not (path / "config.json").exists():
        raise InputError(f"{path}: the folder has no config.json, so it is no model")
    if not any(file.suffix in WEIGHTS for file in path.iterdir()):
        raise InputError(f"{path}: the folder has no weights (*.safetensors)")
    return str(path), {"local_files_only": True}


def _check_weights(spec: ModelSpec, model: Any, info: Any) -> None:  # noqa: ANN401
    for kind in ("missing_keys", "mismatched_keys"):
        keys = sorted(map(str, info.get(kind, ())))
        if keys:
            raise InputError(
                f"{spec.source}: {len(keys)} weights are {kind.removesuffix('_keys')}, such as {keys[0]}; "
                f"is it a {type(model).__name__}?"
            )
    if model.config.is_encoder_decoder:
        raise InputError(f"{spec.source}: {type(model).__name__} is an encoder-decoder, not a causal model")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"{spec.source}: weight {name} holds values that are not finite")


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep loading bars and advice of transformers off the screen; errors still come."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
