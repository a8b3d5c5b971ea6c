"""Configurations and a tokenizer for tiny causal models."""

from __future__ import annotations

CONTEXT = 64
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, object]] = {
    "llama": SHAPE | {"num_key_value_heads": 2, "max_position_embeddings": CONTEXT},
    "gpt_neox": SHAPE | {"max_position_embeddings": CONTEXT},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    "opt": {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"max_position_embeddings": CONTEXT, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gemma2": SHAPE
    | {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT, "sliding_window": 8}
    | {"final_logit_softcapping": 2.0},
    "cohere": SHAPE | {"num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "logit_scale": 0.3},
    "phi": SHAPE | {"max_position_embeddings": CONTEXT},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mixtral": SHAPE | {"num_key_value_heads": 2, "num_local_experts": 4, "max_position_embeddings": CONTEXT},
    "bert": SHAPE | {"max_position_embeddings": CONTEXT, "is_decoder": True},
}
"""Heads with and without bias, scale, soft-cap, projection and transform; positions of every kind."""


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
