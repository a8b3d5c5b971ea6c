"""What is refused by name: architectures and configurations that do not read from left to right."""

from __future__ import annotations

from typing import Any

DECODERS_OF_OTHERS = {"trocr", "musicgen", "musicgen_melody"}
TURNED_BY_IS_DECODER = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip


def refusal(config: Any) -> str | None:  # noqa: ANN401
    """Tell why models of a configuration are not scored.

    What is not known here by name is still seen by `lmmap.scoring.checks.suffix_swap`.

    Parameters
    ----------
    config : PretrainedConfig
        A model's configuration.

    Returns
    -------
    str or None
        The value at fault and what to do; None if nothing is known against the model.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> refusal(SimpleNamespace(model_type="bert", is_decoder=False))
    'is_decoder=False in its config makes it read both ways; only one trained with is_decoder=True is causal'
    >>> refusal(SimpleNamespace(model_type="bert", is_decoder=True))
    """
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    kind = text.model_type
    if getattr(config, "is_encoder_decoder", False):
        return "is_encoder_decoder=True in its config: an encoder-decoder does not score plain text"
    if kind in DECODERS_OF_OTHERS or _is_encoder_decoder_by_default(text):
        return f"a decoder of {kind} is trained behind an encoder and is no language model of its own"
    if kind in TURNED_BY_IS_DECODER and not getattr(text, "is_decoder", False):
        return (
            "is_decoder=False in its config makes it read both ways; "
            "only one trained with is_decoder=True is causal"
        )
    if kind == "xlm" and not text.causal:
        return (
            "causal=False in its config makes it read both ways; only one trained with causal=True is causal"
        )
    if kind == "xlnet":
        return "XLNet predicts words in permuted order, not from left to right"
    if kind == "cpmant":
        return "CPM-Ant reads what it is given both ways, as a prompt"
    if kind == "reformer" and "lsh" in text.attn_layers:
        return "attn_layers in its config has 'lsh': buckets are drawn at random and depend on later tokens"
    if kind == "big_bird" and text.attention_type == "block_sparse":
        return (
            "attention_type='block_sparse' in its config attends to random later blocks, and turns to full "
            "attention after a short text; set it to 'original_full'"
        )
    if kind == "doge" and text.keep_window_size < text.max_position_embeddings:
        return (
            f"keep_window_size={text.keep_window_size} in its config: in longer texts equal tokens tie for "
            f"being kept, and rounding decides; set max_position_embeddings to {text.keep_window_size}"
        )
    rounding = _quantization(config)
    outliers = rounding.get("load_in_8bit") and rounding.get("llm_int8_threshold")
    if outliers:
        return (
            f"llm_int8_threshold={outliers} in its quantization_config: outlier columns "
            "are chosen over a whole batch, and a text's score depends on its company; take the whole model "
            "with `quantization: bitsandbytes-8bit`"
        )
    if getattr(text, "use_bidirectional_attention", None) in (True, "all"):
        return (
            f"use_bidirectional_attention={text.use_bidirectional_attention!r} in its config makes it read "
            "both ways: it is an encoder of embeddings"
        )
    return None


def _quantization(config: Any) -> dict[str, Any]:  # noqa: ANN401
    found = getattr(config, "quantization_config", None) or {}
    return dict(found if isinstance(found, dict) else found.to_dict())


def _is_encoder_decoder_by_default(config: Any) -> bool:  # noqa: ANN401
    try:
        return bool(getattr(type(config)(), "is_encoder_decoder", False))
    except Exception:  # a class of somebody's own may need arguments
        return False
