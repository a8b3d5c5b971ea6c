"""Tiny causal models of every architecture: configurations, random weights, a tokenizer, a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTEXT = 64
TEXTS = [
    "The capital of France is Paris.",
    "x",
    "日本語のテキスト。",
    "def f(x):\n    return x + 1\n",
    "naïve café, 12 × 3 = 36 €",
]

SMALL: dict[str, Any] = {
    "vocab_size": 260,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 0,
    "decoder_start_token_id": 256,
    **dict.fromkeys(
        ["hidden_size", "d_model", "n_embd", "emb_dim", "embedding_dim", "attention_hidden_size"], 32
    ),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "dff", "d_inner", "ffn_hidden_size"], 64),
    **dict.fromkeys(["decoder_ffn_dim", "encoder_ffn_dim", "feed_forward_size", "dim_ff"], 64),
    **dict.fromkeys(
        ["moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"], 24
    ),
    **dict.fromkeys(
        ["shared_experts_intermediate_size", "intermediate_size_mlp", "dense_intermediate_size"], 24
    ),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks"], 2),
    **dict.fromkeys(["encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"], 2),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"], 4),
    **dict.fromkeys(["encoder_attention_heads", "decoder_attention_heads", "swa_num_attention_heads"], 4),
    **dict.fromkeys(["num_encoder_attention_heads", "num_decoder_attention_heads"], 4),
    **dict.fromkeys(["num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"], 2),
    **dict.fromkeys(["head_dim", "swa_head_dim", "v_head_dim", "kv_channels", "dim_head", "d_head"], 8),
    **dict.fromkeys(["qk_nope_head_dim", "index_head_dim", "swa_v_head_dim", "attention_head_dim"], 8),
    **dict.fromkeys(["qk_rope_head_dim", "rotary_dim"], 4),
    **dict.fromkeys(["kv_lora_rank", "q_lora_rank", "o_lora_rank", "adapter_rank", "gated_norm_rank"], 16),
    **dict.fromkeys(["num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"], 4),
    **dict.fromkeys(["num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"], 2),
    **dict.fromkeys(["n_group", "topk_group", "num_expert_group", "o_groups"], 1),
    **dict.fromkeys(["n_shared_experts", "num_shared_experts", "moe_num_shared_experts"], 1),
    **dict.fromkeys(["first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"], 1),
    **dict.fromkeys(
        ["max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length"], CONTEXT
    ),
    **dict.fromkeys(["model_max_length", "max_target_positions", "max_source_positions"], CONTEXT),
    **dict.fromkeys(["sliding_window", "window_size", "local_attention", "attention_window_size"], 8),
    **dict.fromkeys(["sliding_window_size", "attention_chunk_size", "floor_scale"], 8),
    **dict.fromkeys(["chunk_size", "mamba_chunk_size", "block_size"], 16),
    **dict.fromkeys(["state_size", "mamba_d_state", "ssm_state_size"], 8),
    **dict.fromkeys(["mamba_n_heads", "mamba_num_heads"], 8),
    **dict.fromkeys(["mamba_d_head", "mamba_head_dim"], 8),
    "n_mamba_heads": 4,
    "mamba_headdim": 16,
    **dict.fromkeys(["mamba_n_groups", "n_groups", "mamba_ngroups"], 2),
    **dict.fromkeys(["mamba_dt_rank", "time_step_rank"], 4),
    **dict.fromkeys(["linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"], 2),
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"], 8),
    **dict.fromkeys(["index_n_heads", "type_vocab_size"], 2),
    **dict.fromkeys(["index_topk", "keep_window_size"], CONTEXT),
    "vocab_size_per_layer_input": 260,
    "hidden_size_per_layer_input": 8,
    "lru_width": 32,
    "laurel_rank": 8,
    "hidden_size_global": 32,
    "encoder_hash_byte_group_vocab": 300,
    "num_kv_shared_layers": 0,
}
"""What every configuration is shrunk to: keys that it has take these values."""

ALWAYS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")


def tiny_config(kind: str, **changes: Any) -> Any:
    """Make the configuration of a kind: its model type's defaults, shrunk, and what is special about it."""
    from transformers import CONFIG_MAPPING

    model_type, special = VARIANTS.get(kind, (kind, {}))
    return _shrunk(CONFIG_MAPPING[model_type], {**special, **changes})


def all_kinds() -> list[str]:
    """List every type of causal model that this transformers has, each followed by its variants."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return [
        kind
        for name in NAMES
        for kind in (name, *(k for k, (model_type, _) in VARIANTS.items() if model_type == name))
    ]


def _shrunk(config_class: Any, changes: dict[str, Any]) -> Any:
    full = config_class()
    parts = {key: type(getattr(full, key)) for key in config_class.sub_configs if getattr(full, key, None)}
    defaults = {k: v for k, v in full.to_dict().items() if k not in parts}
    settings = {k: v for k, v in SMALL.items() if defaults.get(k) is not None or k in ALWAYS}
    heads = defaults.get("num_attention_heads")
    if heads and defaults.get("head_dim") == defaults.get("hidden_size", 0) // heads:
        del settings["head_dim"]  # it follows the others
    if "kv_lora_rank" in settings:  # latent attention: as many keys as queries, of which four dimensions turn
        settings |= {"num_key_value_heads": 4} | ({"head_dim": 4} if "head_dim" in settings else {})
    settings |= _one_layer_of_each(defaults, settings)
    changes = {**EXCEPTIONS.get(config_class.model_type, {}), **changes}
    for key, part in parts.items():
        settings[key] = _shrunk(part, dict(changes.pop(key, {}))).to_dict()
    return config_class(**{**settings, **changes})


def _one_layer_of_each(defaults: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Shrink lists with an entry per layer to the distinct entries, repeated to one length."""
    lists = {k: list(dict.fromkeys(v)) for k, v in defaults.items() if k.endswith("layer_types") and v}
    if not lists or "num_hidden_layers" not in settings:
        return {}
    n = max(2, *(len(v) for v in lists.values()))
    return {k: [v[i % len(v)] for i in range(n)] for k, v in lists.items()} | {"num_hidden_layers": n}


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LAYERS_OF_FOUR = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
HYBRID = {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_hidden_layers": 4}
BERT_FAMILY = (
    "bert", "bert-generation", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert",
    "roberta", "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl",
)  # fmt: skip
EXCEPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"is_decoder": True} for name in BERT_FAMILY},
    "bamba": {"attn_layer_indices": [1]},
    "big_bird": {"is_decoder": True, "attention_type": "original_full"},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 24, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots3_note_text": {
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16, "swa_head_dim": 12, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {
        "mamba_d_ssm": 64, "lm_head_multiplier": 0.3, "embedding_multiplier": 2.0, "key_multiplier": 0.7,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "helium": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": CONTEXT,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "is_decoder": True, "attn_layers": ["local", "lsh"], "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 24],
    },
    "roc_bert": {
        "is_decoder": True, "pronunciation_embed_dim": 8, "pronunciation_vocab_size": 20,
        "shape_embed_dim": 8, "shape_vocab_size": 20,
    },
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba": {"attention_head_dim": 16, "attention_hidden_size": 64} | HYBRID,
    "zamba2": {"attention_head_dim": 16, "attention_hidden_size": 64, "kv_channels": 8} | HYBRID,
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def _rope(rope_type: str, **more: object) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **more}}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, rope dynamic": ("llama", _rope("dynamic", factor=4.0)),
    "llama, rope linear": ("llama", _rope("linear", factor=4.0)),
    "llama, rope yarn": ("llama", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama, rope llama3": (
        "llama",
        _rope(
            "llama3",
            factor=4.0,
            original_max_position_embeddings=16,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
        ),
    ),
    "phi3, rope longrope": (
        "phi3",
        _rope("longrope", short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 2.0, 3.0, 4.0])
        | {"original_max_position_embeddings": 16},
    ),
    "llama, tied, biases, one key head": (
        "llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}
        | {"head_dim": 10, "hidden_act": "gelu"},
    ),
    "deepseek_v32, 16 of the keys": ("deepseek_v32", {"index_topk": 16}),
    "glm_moe_dsa, 16 of the keys": ("glm_moe_dsa", {"index_topk": 16}),
    "gemma2, strong soft-caps": ("gemma2", {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0}),
    "gemma3_text, soft-cap": ("gemma3_text", {"final_logit_softcapping": 2.0}),
    "gemma3_text, both ways": ("gemma3_text", {"use_bidirectional_attention": True}),
    "gemma3n_text, shared keys": ("gemma3n_text", {"num_kv_shared_layers": 2, **LAYERS_OF_FOUR}),
    "gemma4_text, soft-cap": ("gemma4_text", {"final_logit_softcapping": 2.0}),
    "vaultgemma, soft-cap": ("vaultgemma", {"final_logit_softcapping": 2.0}),
    "cohere, scale, query norm": ("cohere", {"logit_scale": 0.3, "use_qk_norm": True}),
    "cohere2, scale": ("cohere2", {"logit_scale": 0.3}),
    **{
        f"{kind}, multipliers": (
            kind,
            {"logits_scaling": 0.4, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}
            | {"attention_multiplier": 0.2},
        )
        for kind in ("granite", "granitemoe", "granitemoeshared", "granitemoehybrid")
    },
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "falcon, new decoder": ("falcon", {"new_decoder_architecture": True, "bias": True}),
    "gpt2, scaled by layer": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    ),
    "gpt_bigcode, many key heads": ("gpt_bigcode", {"multi_query": False}),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False, "rotary_pct": 0.5}),
    "stablelm, parallel": (
        "stablelm",
        {"use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True},
    ),
    "opt, as 350m": ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "mpt, clipped": ("mpt", {"attn_config": {"clip_qkv": 2.0, "alibi": True}}),
    "qwen2, sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "xlm, causal": ("xlm", {"causal": True}),
    "doge, chosen keys": ("doge", {"keep_window_size": 8}),
    "bert, both ways": ("bert", {"is_decoder": False}),
    "roberta, both ways": ("roberta", {"is_decoder": False}),
    "big_bird, block-sparse": ("big_bird", {"attention_type": "block_sparse", "block_size": 4}),
    "reformer, local": ("reformer", {"attn_layers": ["local", "local"], "local_attn_chunk_length": 8}),
}


def save_model(
    folder: Path, kind: str, *, seed: int = 0, scale: float = 3.0, tokenizer: Any = None, **changes: Any
) -> Path:
    """Save a model of a kind with random weights, as a user's folder would be."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, **changes), dtype=torch.float32)
    with torch.no_grad():  # far from uniform, norms far from one and biases from zero, so that mistakes show
        for parameter in model.parameters():
            if parameter.dim() > 1 and 0 < parameter.std() < 0.2:  # not those whose values have a meaning
                parameter.mul_(scale)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder


def byte_tokenizer(**special: str | None):  # type: ignore[no-untyped-def]
    """Make a tokenizer with a token for each byte, and special tokens behind them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    special = special or {"eos_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{k: v for k, v in special.items() if v})
