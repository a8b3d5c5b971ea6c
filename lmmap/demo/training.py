"""Training one small causal language model on the processor, the same bits every time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lmmap.demo.design import SEPARATOR, SIZES, TRAINING, VOCABULARY, Blend, Run
from lmmap.demo.folders import whole_folder
from lmmap.scoring.mixing import mixed_weights
from lmmap.text_files import read_texts

CONTEXT = 768  # tokens: a text of 512 bytes fits whole, whichever the tokenizer
WEIGHTS = "model.safetensors"


def train_run(
    run: Run, zoo: Path, texts: Path, recipe: Mapping[str, Any], on_step: Callable[[], None] = lambda: None
) -> None:
    """Train a model and write its checkpoints and itself as folders that `transformers` loads.

    Parameters
    ----------
    run : Run
        What to train.
    zoo : Path
        Folder of the model folders; the run's base must be there.
    texts : Path
        Parquet file of the training texts.
    recipe : mapping
        The recipe to be kept in the folders.
    on_step : callable
        Called after every step.
    """
    with _one_thread(), torch.random.fork_rng(devices=[]):
        tokenizer = demo_tokenizer(run.tokenizer, texts)
        torch.manual_seed(run.seed)
        model = AutoModelForCausalLM.from_pretrained(zoo / run.base) if run.base else new_model(run)
        for step in _steps(model, run, texts):
            on_step()
            if step in run.checkpoints:
                _save(zoo / f"{run.name}-step{step}", model, tokenizer, {**recipe, "step": step})
        _save(zoo / run.name, model, tokenizer, {**recipe, "step": run.steps})


def write_blend(blend: Blend, zoo: Path, recipe: Mapping[str, Any]) -> None:
    """Write a model whose weights lie on the straight line between those of two others.

    Parameters
    ----------
    blend : Blend
        Which two and where.
    zoo : Path
        Folder of the model folders.
    recipe : mapping
        The recipe to be kept in the folder.
    """
    first, second = (load_file(zoo / name / WEIGHTS) for name in (blend.first, blend.second))
    weights = mixed_weights([first, second], [1 - blend.share, blend.share])
    with whole_folder(zoo / blend.name, recipe) as folder:
        shutil.copytree(zoo / blend.first, folder, dirs_exist_ok=True)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def new_model(run: Run) -> PreTrainedModel:
    """Make a model of a run's architecture and size with random weights.

    Parameters
    ----------
    run : Run
        The run; its seed is not used here.

    Returns
    -------
    PreTrainedModel
        In float32, the output layer sharing the embedding.
    """
    size = SIZES[run.size]
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY[run.tokenizer],
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": CONTEXT,
        "initializer_range": TRAINING.spread_of_weights,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if run.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**common, intermediate_size=size.gated))
    whole_heads = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    config = GPTNeoXConfig(**common, intermediate_size=4 * size.hidden, rope_parameters=whole_heads)
    return GPTNeoXForCausalLM(config)


@cache
def demo_tokenizer(kind: str, texts: Path) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer with the document separator ``<|endoftext|>`` as token 0.

    Parameters
    ----------
    kind : str
        ``bytes``: a token a byte. ``bpe``: pairs merged until there are 1,024 tokens.
    texts : Path
        Parquet file of the training texts, which decide the merges.

    Returns
    -------
    PreTrainedTokenizerFast
        Without loss: decoding gives the text back.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([SEPARATOR, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "bpe")
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "bpe":
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY["bpe"],
            special_tokens=[SEPARATOR],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        tokenizer.train_from_iterator(read_texts(texts).texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


@cache
def _pieces(kind: str, texts: Path) -> dict[str, list[np.ndarray]]:
    """Encode the training texts of each domain, the separator before every one."""
    text_set = read_texts(texts)
    encoded = demo_tokenizer(kind, texts).backend_tokenizer.encode_batch(text_set.texts)
    pieces: dict[str, list[np.ndarray]] = {}
    for domain, encoding in zip(text_set.frame["source"], encoded, strict=True):
        pieces.setdefault(domain, []).append(np.array([0, *encoding.ids]))
    return pieces


def _batches(run: Run, texts: Path) -> Iterator[torch.Tensor]:
    """Give a batch a step: windows that start with the separator, each filled with texts drawn at random."""
    pieces = _pieces(run.tokenizer, texts)
    domains = [pieces[domain] for domain in (sorted(pieces) if run.domain == "all" else [run.domain])]
    draw = np.random.default_rng(run.seed)
    n_last = round(run.steps * TRAINING.last_share)
    plan = [(TRAINING.batch, TRAINING.window)] * (run.steps - n_last)
    plan += [(TRAINING.last_batch, TRAINING.last_window)] * n_last
    for batch, window in plan:
        yield torch.from_numpy(np.stack([_window(domains, window, draw) for _ in range(batch)]))


def _window(domains: list[list[np.ndarray]], length: int, draw: np.random.Generator) -> np.ndarray:
    drawn: list[np.ndarray] = []
    while sum(map(len, drawn)) < length:
        pieces = domains[draw.integers(len(domains))]
        drawn.append(pieces[draw.integers(len(pieces))])
    return np.concatenate(drawn)[:length]


def _steps(model: PreTrainedModel, run: Run, texts: Path) -> Iterator[int]:
    """Update the weights and give the number of updates so far."""
    optimizers = _optimizers(model)
    highest = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    model.train()
    for step, batch in enumerate(_batches(run, texts), start=1):
        share = _share_of_rate(step, run)
        for optimizer, rate in zip(optimizers, highest, strict=True):
            optimizer.param_groups[0]["lr"] = rate * share
        logits = model(batch, use_cache=False).logits[:, :-1]
        cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        yield step


def _optimizers(model: PreTrainedModel) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if not (p.ndim == 2 and "embed" not in name)]
    return [
        torch.optim.Muon(matrices, lr=TRAINING.muon_rate, momentum=0.9, weight_decay=0.0),
        torch.optim.AdamW(others, lr=TRAINING.adamw_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _share_of_rate(step: int, run: Run) -> float:
    falling = (run.steps - step + 1) / (run.steps * (1 - TRAINING.hold))
    return min(step / TRAINING.warmup, falling, 1.0) * (TRAINING.continued if run.base else 1.0)


def _save(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Mapping[str, Any]
) -> None:
    with whole_folder(path, recipe) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, so that sums are taken in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
