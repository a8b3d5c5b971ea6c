"""Models over a handful of tokens, whose probabilities can be written out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lmmap.models import ModelSpec
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.load import load_model

WORDS = ("<eos>", "a", "b", "c")
V = len(WORDS)
NEVER = -200.0  # a logit of probability e^-200: nothing, in sums over all texts


def word_tokenizer(words: Sequence[str] = WORDS, normalizer: object = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[-1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if normalizer is not None:
        backend.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=words[0])


def merging_tokenizer(
    pieces: Sequence[str], merges: Sequence[tuple[str, str]] = (), *, in_bytes: bool = False
):
    """Cut characters, or bytes, that join to longer pieces."""
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=list(merges)))
    backend.decoder = decoders.ByteLevel() if in_bytes else decoders.Fuse()
    if in_bytes:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=pieces[0])


def bigram_model(folder: Path, name: str, logits: np.ndarray, tokenizer: object = None) -> LoadedModel:
    """Make a Llama whose next-token logits are the row of a table that the last token names.

    Embeddings are one-hot and the only layer adds nothing, so the head reads a row of the table.
    """
    n, size = len(logits), 8
    config = LlamaConfig(
        vocab_size=n, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(n, size))
        normed = (1 / size + config.rms_norm_eps) ** -0.5
        model.lm_head.weight[:, :n] = torch.from_numpy(logits.T / normed)
    model.save_pretrained(folder / name)
    (tokenizer or word_tokenizer()).save_pretrained(folder / name)
    return load_model(ModelSpec(str(folder / name), name=name))


def with_logits(model: LoadedModel, token: int, value: float) -> LoadedModel:
    """Let a model give one token a logit, always."""
    plain = model.logits

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        out = plain(hidden).clone()
        out[:, token] = value
        return out

    model.logits = logits
    return model


def text_of(ids: Sequence[int]) -> str:
    return " ".join(WORDS[i] for i in ids)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def plain_log_probs(model: LoadedModel, ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Log-probabilities of the whole vocabulary, (N, n, V): the model in float64, ids after the prefix."""
    whole = torch.tensor([[0, *row] for row in ids])[:, :-1]
    with torch.inference_mode():
        logits = model.model.double()(input_ids=whole, use_cache=False).logits
    model.model.float()
    return logits.log_softmax(-1).numpy()


def of_tokens(table: np.ndarray, ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Log-likelihoods, (N,): the table's entries at the tokens that are there, added up."""
    return np.take_along_axis(table, np.array(ids)[..., None], axis=2).sum(axis=(1, 2))


def of_chain(table: np.ndarray, ids: Sequence[int]) -> float:
    """Log-likelihood under a bigram table of log-probabilities, after token 0."""
    return float(table[[0, *ids[:-1]], list(ids)].sum())


def all_sequences(length: int, tokens: Sequence[int] = range(V)) -> list[tuple[int, ...]]:
    return list(product(tokens, repeat=length))
