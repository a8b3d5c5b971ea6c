"""Adapters: PEFT weights put onto a base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmmap.errors import InputError
from lmmap.models import ModelSpec, is_path

CONFIG = "adapter_config.json"
TIED = ("embed_tokens", "wte", "word_embeddings", "embed_in", "lm_head", "embed_out")


def with_adapter(model: Any, spec: ModelSpec) -> Any:  # noqa: ANN401
    """Put an adapter onto its base model.

    Parameters
    ----------
    model : PreTrainedModel
        The base.
    spec : ModelSpec
        Names the adapter.

    Returns
    -------
    PreTrainedModel
        Of the base's class. The adapter is merged into the weights where that changes nothing; beside them
        stay adapters of quantized weights, of embeddings tied to the output layer, and with biases.

    Raises
    ------
    InputError
        If `peft` is not installed, the adapter is missing or was made for another base, or a weight of it
        finds no place.
    """
    try:
        from peft import PeftConfig, get_peft_model
    except ImportError:
        raise InputError(f"{spec.source}: an adapter needs `peft`: pip install 'lmmap[peft]'") from None

    folder = _folder(spec)
    config = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise InputError(
            f"{spec.adapter}: a {config.peft_type.value} adapter puts learned vectors among the tokens; "
            "only adapters that change weights, such as LoRA, can be scored"
        )
    _check_base(config.base_model_name_or_path, spec)
    config.inference_mode = True
    wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)
    result = wrapped.load_adapter(
        str(folder), "default", torch_device=str(model.device), autocast_adapter_dtype=False
    )
    for kind in ("missing", "unexpected"):
        keys = getattr(result, f"{kind}_keys")
        if keys:
            raise InputError(
                f"{spec.adapter}: {len(keys)} weights of the adapter are {kind} for {spec.source}, such as "
                f"{keys[0]}; it was made for {config.base_model_name_or_path}"
            )
    tied = model.config.get_text_config(decoder=True).tie_word_embeddings and any(
        part in name for name in wrapped.targeted_module_names for part in TIED
    )
    if tied or getattr(config, "lora_bias", False) or getattr(model, "hf_quantizer", None) is not None:
        return wrapped.get_base_model()
    return wrapped.merge_and_unload()


def _folder(spec: ModelSpec) -> Path:
    """Find the adapter's files, fetched from the Hub if need be."""
    from transformers.utils import cached_file

    adapter = str(spec.adapter)
    options = {"revision": spec.adapter_revision, "_raise_exceptions_for_missing_entries": False}
    config, *weights = (
        cached_file(adapter, name, **options)
        for name in (CONFIG, "adapter_model.safetensors", *["adapter_model.bin"] * spec.allow_pickle)
    )
    if config is None:
        raise InputError(f"{adapter}: no {CONFIG} there, so it is no adapter")
    if not any(weights):
        pickled = "adapter_model.bin is read with `allow_pickle: true`"
        raise InputError(f"{adapter}: no adapter_model.safetensors there; {pickled}")
    return Path(config).parent


def _check_base(declared: str | None, spec: ModelSpec) -> None:
    """Refuse an adapter that says it belongs to another model of the Hub."""
    if not declared or spec.is_local or is_path(declared) or Path(declared).exists():
        return
    if declared.casefold() != spec.source.casefold():
        raise InputError(
            f"adapter {spec.adapter} was made for {declared}, not for {spec.source}; "
            f"write `model: {declared}`"
        )
