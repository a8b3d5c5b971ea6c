"""Agreement: the same texts and models scored by lmmap and by others, every difference explained.

Run from the root of the repository::

    pip install lm-eval==0.4.13 minicons==0.3.39
    python -m benchmarks.agreement -o benchmarks/agreement.md

The others are lm-evaluation-harness (`loglikelihood_rolling`), minicons and the published procedure of
the map of models, written here from its description. All run in float32, one text at a time. A difference
above 1e-3 nats is explained by computing it: the plain loop of `benchmarks.plain` reads the text with one
habit of the other tool, then with two, until it gives that tool's number.
"""

from __future__ import annotations

import logging
import platform
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.plain import HABITS, LM_EVAL_LENGTH, PlainModel, Reading, puts_prefix_itself
from lmmap.errors import InputError
from lmmap.model_lists import read_models
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model
from lmmap.scoring.score import score_texts
from lmmap.text_files import read_texts
from tests.tiny import byte_tokenizer

DEMO = Path("runs/demo-data")
DEMO_MODELS = ("smollm2/SmolLM2-135M-Instruct", "zoo/llama-bpe-small", "zoo/neox-bytes-small")
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gemma2": SHAPE
    | {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 8}
    | {"final_logit_softcapping": 2.0},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}
"""Learned positions; a sliding window, a soft-cap and a tokenizer that puts BOS in front; no positions."""

LIMIT = 1e-3  # nats per text
PACKAGES = ("lmmap", "torch", "transformers", "tokenizers", "lm-eval", "minicons")
REFUSED, UNEXPLAINED = "cannot read texts longer than the context", "UNEXPLAINED"


class Tool(NamedTuple):
    """A way to score, the policy of lmmap that it is held against, and the habits that set it apart."""

    name: str
    score: Callable[[PlainModel, Sequence[str]], list[float]]
    policy: str = "auto"
    tokens: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    softmaxes: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()


def plain_loop(plain: PlainModel, texts: Sequence[str]) -> list[float]:
    return [plain.score(text, Reading()) for text in texts]


def lm_eval(plain: PlainModel, texts: Sequence[str]) -> list[float]:
    """`loglikelihood_rolling` with our prefix, a length of at most 1,024 and the softmax in float32."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tool = HFLM(
        pretrained=plain.folder, device="cpu", dtype="float32", softmax_dtype="float32", batch_size=1,
        max_length=min(LM_EVAL_LENGTH, plain.context or LM_EVAL_LENGTH), add_bos_token=False,
        prefix_token_id=plain.prefix_id,
    )  # fmt: skip
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    return list(tool.loglikelihood_rolling(requests, disable_tqdm=True))


def minicons(plain: PlainModel, texts: Sequence[str]) -> list[float]:
    """`sequence_score`, summed; our prefix takes the place of BOS unless the tokenizer puts it there."""
    from minicons.scorer import IncrementalLMScorer

    tokenizer = AutoTokenizer.from_pretrained(plain.folder)
    tokenizer.bos_token = tokenizer.pad_token = plain.prefix
    tool = IncrementalLMScorer(plain.model, "cpu", tokenizer=tokenizer)
    put = not puts_prefix_itself(plain)

    def score(text: str) -> float:
        try:
            return float(tool.sequence_score([text], reduction=lambda x: x.sum().item(), bos_token=put)[0])
        except IndexError:  # no position is left
            return float("nan")

    return [score(text) for text in texts]


def published(plain: PlainModel, texts: Sequence[str]) -> list[float]:
    """One text per forward, the tokenizer's default, the first id not scored, cut off at the context."""

    def score(text: str) -> float:
        ids = plain.tokenizer(text, return_tensors="pt")["input_ids"][:, : plain.context]
        with torch.inference_mode():
            logits = plain.model(input_ids=ids).logits.double()
        return -float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))

    return [score(text) for text in texts]


TOOLS = (
    Tool("a plain loop", plain_loop),
    Tool(
        "lm-evaluation-harness", lm_eval, "auto", ("special",), ("rolling",), ("rough softmax",), ("float32",)
    ),
    Tool("minicons", minicons, "auto", ("special", "joined"), ("beyond",), (), ("float32",)),
    Tool("the published procedure", published, "reference"),
    Tool("the published procedure", published, "auto", ("special", "default"), ("truncated",)),
)


def explain(plain: PlainModel, tool: Tool, text: str, number: float) -> tuple[str, float]:
    """Find the fewest habits with which the plain loop gives a tool's number, and what is then left."""
    ours = Reading("default", "truncated") if tool.policy == "reference" else Reading()
    habits = (tool.tokens, tool.windows, tool.softmaxes, tool.totals)
    choices = product(*((own, *others) for own, others in zip(ours, habits, strict=True)))
    best = float("inf")
    for reading in sorted((Reading(*c) for c in choices), key=lambda r: sum(map(str.__ne__, r, ours))):
        left = abs(plain.score(text, reading) - number)
        step = float(np.spacing(np.float32(abs(number)))) if reading.total == "float32" else 0.0
        if left <= LIMIT + step:
            whys = [HABITS[habit] for habit, own in zip(reading, ours, strict=True) if habit != own]
            return " and ".join(whys) or UNEXPLAINED, left
        best = min(best, left)
    return UNEXPLAINED, best


def compare(plain: PlainModel, tool: Tool, texts: Sequence[str], ours: np.ndarray) -> list[str]:
    """Make a row of the table behind the model's name."""
    theirs = np.array(tool.score(plain, texts))
    whys: Counter[str] = Counter()
    left = [0.0]
    for text, number, own in zip(texts, theirs, ours, strict=True):
        if np.isnan(number):
            whys[REFUSED if plain.is_long(text) else UNEXPLAINED] += 1
        elif abs(number - own) > LIMIT:
            why, rest = explain(plain, tool, text, number)
            whys[why] += 1
            left.append(rest)
    differences = (theirs - ours)[np.isfinite(theirs)]
    figures = (differences.mean(), differences.std(), np.abs(differences).max(), max(left))
    return [
        tool.name, tool.policy, str(len(differences)), *(f"{figure:.2g}" for figure in figures),
        "; ".join(f"{count}: {why}" for why, count in whys.most_common()),
    ]  # fmt: skip


def compare_all(spec: ModelSpec, texts: Sequence[str]) -> list[list[str]]:
    """Score texts under a model by every tool: its rows of the table."""
    if not Path(spec.source).is_dir():
        raise InputError(
            f"{spec.source} is no folder; download the model, all tools shall read the same files"
        )
    model = load_model(replace(spec, dtype="float32"))
    rows = {policy: score_texts(model, texts, prefix=policy) for policy in ("auto", "reference")}
    plain = PlainModel(spec.source, rows["auto"].provenance["prefix"], model.context)
    made = []
    for tool in TOOLS:
        with quietly():
            row = [spec.name, *compare(plain, tool, texts, rows[tool.policy].log_likelihood)]
        click.echo(" | ".join(row), err=True)
        made.append(row)
    return made


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the tools' bars and advice off the screen."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def demo_texts() -> list[str]:
    """Give two dozen texts of the demo in four lengths, some that tools trip over, and three long ones."""
    frame = read_texts(DEMO / "texts.parquet").frame
    kinds = [group["text"].tolist() for _, group in frame.groupby("source", sort=True)]
    lengths = (40, 120, 280, 512)
    some = [kind[40 * i + 3][: lengths[(i + k) % 4]] for i in range(3) for k, kind in enumerate(kinds)]
    tricky = [
        "x = 1",
        " a space in front, one behind ",
        "\n\n\tlines and tabs\r\n",
        "日本語のテキストと한국어와 العربية và tiếng Việt",
        "🙂🙃 naïve cafe\u0301 12 × 3 = 36 €",
        "a <|endoftext|> in the middle and <s>[INST] others [/INST]</s>",
        "<|endoftext|>in front",
    ]
    long = ["".join(kinds[kind][:n]) for kind, n in ((4, 4), (5, 14), (7, 6))]
    return [*some, *tricky, *long]


def demo_specs(folder: Path) -> list[ModelSpec]:
    """List a real model and two small ones of the demo, and save three tiny random ones."""
    made = [ModelSpec(str(Path.cwd() / DEMO / name)) for name in DEMO_MODELS]
    return [*made, *(tiny_model(kind, folder / kind) for kind in TINY)]


def tiny_model(kind: str, folder: Path) -> ModelSpec:
    """Save a random model, its weights enlarged so that no distribution is near uniform."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    if kind == "gemma2":
        tokenizer = byte_tokenizer(bos_token="<bos>", eos_token="<eos>")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 256)]
        )
    settings = {"vocab_size": 260, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings, **TINY[kind]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelSpec(str(folder), name=f"tiny random {kind}")


def table(rows: Sequence[Sequence[str]], texts: Sequence[str]) -> str:
    """Write the table and how it was made."""
    command = " ".join(["python -m benchmarks.agreement", *sys.argv[1:]])
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    shortest, longest = (extreme(map(len, texts)) for extreme in (min, max))
    columns = ("model", "compared with", "lmmap's prefix", "texts", "mean", "sd", "largest", "left")
    return f"""\
# Agreement with other tools

Made by `{command}`: {len(texts)} texts of {shortest} to {longest} characters, float32 on a CPU;
Python {platform.python_version()}, {versions}.

Differences are the other tool's log-likelihood minus lmmap's, in nats per text: mean, standard deviation and
largest. Those above {LIMIT:g} nats were computed once more: a plain loop over transformers' own forward, one
window at a time, was given that habit of the other tool which the last column names behind the number of
texts, and no other. "left" is what then remains between that loop and the tool: at most {LIMIT:g} nats, or
one step of float32 more where the tool adds up in float32.

| {" | ".join(columns)} | above {LIMIT:g}: the other tool ... |
|{" --- |" * (len(columns) + 1)}
""" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


@click.command()
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    help="List of models in folders; by default three of the demo and three tiny random ones.",
)
@click.option(
    "--texts", type=click.Path(path_type=Path), help="Text set; by default some of the demo and tricky ones."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Markdown file to write.")
def main(models: Path | None, texts: Path | None, output: Path | None) -> None:
    """Score texts by lmmap and by other tools; exit with 1 if a difference is not explained."""
    absent = [name for name in PACKAGES[-2:] if find_spec(name.replace("-", "_")) is None]
    if absent:
        raise click.ClickException(
            f"not installed: {' and '.join(absent)}; {__doc__.splitlines()[4].strip()}"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            chosen = list(read_texts(texts).texts) if texts else demo_texts()
            specs = read_models(models) if models else demo_specs(Path(folder))
            rows = [row for spec in specs for row in compare_all(spec, chosen)]
        except InputError as error:
            raise click.ClickException(str(error)) from error
    made = table(rows, chosen)
    if output:
        output.write_text(made, encoding="utf-8")
    else:
        click.echo(made)
    if any(UNEXPLAINED in row[-1] for row in rows):
        raise click.ClickException("some differences are not explained")


if __name__ == "__main__":
    main()
