"""Shapes: model folders with random weights in the shapes of known models, and texts to score under them.

Run from the root of the repository::

    python -m benchmarks.shapes FOLDER --no-models       # 10,000 texts and all tokenizers: 25 MB
    python -m benchmarks.shapes FOLDER --shape smollm2-135m --shape llama-3-8b

The speed of a model depends on its shape, not on its values, so nothing is downloaded. Texts are pieces of
the installed packages' files, cut as for the published map; a machine that has fewer packages is given
FOLDER/texts.parquet and FOLDER/tokenizers made elsewhere. What is there already is kept.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.results import default_device
from lmmap.chunks import chunk_documents
from lmmap.demo.installed import demo_documents
from lmmap.errors import InputError
from lmmap.files import whole_file, write_json
from lmmap.models import ModelSpec
from lmmap.scoring.row import release
from lmmap.text_files import Document, read_texts
from lmmap.texts import TextSet

N_TEXTS = 10_000
SEPARATOR = "<|endoftext|>"
SHARD = "4GB"
LINKED_ABOVE = 2_000_000_000  # bytes of weights; further models of such a shape share the first one's

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
NEOX = {"model_type": "gpt_neox", "vocab_size": 50_304, "max_position_embeddings": 2_048}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model_type": "llama", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 2_048, "tie_word_embeddings": True,
    },
    "tiny-neox": NEOX
    | {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    | {"num_attention_heads": 4},
    "smollm2-135m": {
        "model_type": "llama", "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1_536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 8_192, "rope_parameters": ROPE | {"rope_theta": 100_000.0},
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
    "pythia-160m": NEOX
    | {"hidden_size": 768, "intermediate_size": 3_072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "pythia-410m": NEOX
    | {"hidden_size": 1_024, "intermediate_size": 4_096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "pythia-1.4b": NEOX
    | {"hidden_size": 2_048, "intermediate_size": 8_192, "num_hidden_layers": 24, "num_attention_heads": 16},
    "gpt2": {"model_type": "gpt2", "vocab_size": 50_257},
    "opt-125m": {
        "model_type": "opt", "vocab_size": 50_272, "hidden_size": 768, "ffn_dim": 3_072,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 2_048,
    },
    "bloom-560m": {
        "model_type": "bloom", "vocab_size": 250_880, "hidden_size": 1_024, "n_layer": 24, "n_head": 16,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 1_024, "intermediate_size": 3_072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 40_960, "rope_parameters": ROPE | {"rope_theta": 1_000_000.0},
        "tie_word_embeddings": True,
    },
    "small-moe": {  # of no known model: 16 experts, four of them at work
        "model_type": "qwen3_moe", "vocab_size": 151_936, "hidden_size": 768, "num_hidden_layers": 12,
        "intermediate_size": 2_048, "moe_intermediate_size": 384, "num_experts": 16, "num_experts_per_tok": 4,
        "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64,
        "max_position_embeddings": 32_768, "rope_parameters": ROPE | {"rope_theta": 1_000_000.0},
        "tie_word_embeddings": True,
    },
    "llama-3-8b": {
        "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4_096, "intermediate_size": 14_336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 8_192, "rope_parameters": ROPE | {"rope_theta": 500_000.0},
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Settings of transformers' configurations; what is not named has its default there."""


class ShapedModel(NamedTuple):
    """A shape, and which one of its models."""

    shape: str
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.seed}"


def get_texts(folder: Path, n_texts: int | None = None) -> TextSet:
    """Read a folder's texts, or some of them, evenly chosen; make them from installed packages if need be."""
    file = folder / "texts.parquet"
    if not file.exists():
        documents = (
            Document(kind, text) for kind, files in demo_documents().items() for text in files.values()
        )
        chunk_documents(documents, n_texts=N_TEXTS, name="benchmark").write(file)
    texts = read_texts(file)
    if n_texts is None:
        return texts
    if n_texts > len(texts):
        raise InputError(f"{n_texts} texts are asked for and {file} has {len(texts)}")
    return texts.select(texts.frame.index[[i * len(texts) // n_texts for i in range(n_texts)]])


def get_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """Read the byte-level BPE of this size in a folder; train it on the folder's texts if there is none.

    It is smaller where the texts have no more pairs that occur twice.
    """
    file = folder / "tokenizers" / f"{vocab_size}.json"
    if not file.exists():
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[SEPARATOR], show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )  # fmt: skip
        backend.train_from_iterator(get_texts(folder).texts, trainer)
        with whole_file(file) as temporary:
            backend.save(str(temporary), pretty=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(file)), eos_token=SEPARATOR, bos_token=SEPARATOR
    )


def get_model(folder: Path, model: ShapedModel, device: str) -> Path:
    """Find a model's folder; make it, its weights on the device, if there is none."""
    path = folder / "models" / model.name
    if path.exists():
        return path
    building = path.with_name(f".{path.name}")
    shutil.rmtree(building, ignore_errors=True)
    first = folder / "models" / ShapedModel(model.shape).name
    if model.seed and first.exists() and weight_bytes(first) > LINKED_ABOVE:
        _link(first, building, model.seed)
    else:
        _save(building, model, device)
        tokenizer = get_tokenizer(folder, SHAPES[model.shape]["vocab_size"])
        tokenizer.save_pretrained(building)
    building.rename(path)
    return path


def get_models(
    folder: Path, chosen: Sequence[ShapedModel], device: str
) -> Iterator[tuple[ShapedModel, Path]]:
    """Find or make models, telling which took how long."""
    for model in chosen:
        start, known = time.monotonic(), (folder / "models" / model.name).exists()
        path = get_model(folder, model, device)
        if not known:
            gigabytes, seconds = weight_bytes(path) / 1e9, time.monotonic() - start
            click.echo(f"made {model.name}: {gigabytes:.2f} GB of weights in {seconds:.1f} s", err=True)
        yield model, path


def weight_bytes(path: Path) -> int:
    """Bytes of a folder's weights."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def parse_models(names: Sequence[str]) -> list[ShapedModel]:
    """Read ``SHAPE`` or ``SHAPE:SEED``."""
    chosen = []
    for name in names:
        shape, _, seed = name.partition(":")
        if shape not in SHAPES or not (seed or "0").isdecimal():
            raise click.UsageError(f"no such shape: {name}; there are {', '.join(SHAPES)}, each with :SEED")
        chosen.append(ShapedModel(shape, int(seed or 0)))
    return chosen


def _save(path: Path, model: ShapedModel, device: str) -> None:
    settings = dict(SHAPES[model.shape])
    config = AutoConfig.for_model(settings.pop("model_type"), bos_token_id=0, eos_token_id=0, **settings)
    torch.manual_seed(model.seed)
    with torch.device(device):
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    made.save_pretrained(path, max_shard_size=SHARD)
    del made
    release()  # other processes will want the device


def _link(first: Path, path: Path, seed: int) -> None:
    """Give another model the same weights, without writing them again: its configuration makes it another."""
    path.mkdir()
    for file in first.iterdir():
        (path / file.name).hardlink_to(file)
    config = json.loads((path / "config.json").read_text())
    write_json(path / "config.json", config | {"benchmark_seed": seed})


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--shape", "names", multiple=True, help="SHAPE or SHAPE:SEED; all but the tiny ones by default."
)
@click.option("--no-models", is_flag=True, help="Make texts and tokenizers only.")
@click.option("--device", default=default_device(), show_default=True)
def main(folder: Path, names: tuple[str, ...], no_models: bool, device: str) -> None:
    """Make texts, tokenizers and models with random weights in FOLDER."""
    chosen = parse_models(names or [shape for shape in SHAPES if not shape.startswith("tiny")])
    click.echo(repr(get_texts(folder)))
    for size in sorted({int(SHAPES[model.shape]["vocab_size"]) for model in chosen}):
        click.echo(f"tokenizer of {size:,}: {len(get_tokenizer(folder, size)):,} tokens")
    if not no_models:
        for model, path in get_models(folder, chosen, device):
            start = time.monotonic()
            digest = str(ModelSpec(str(path.absolute())).files_hash)
            seconds = time.monotonic() - start
            click.echo(f"{model.name}: {weight_bytes(path):,} bytes, sha256 {digest[:8]} in {seconds:.1f} s")


if __name__ == "__main__":
    main()
