"""The zoo as a table: which small models are trained, and how they descend from each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from lmmap.demo.installed import DOMAINS

Attribute = str | int | float | bool

ZOO = "../runs/demo-data/zoo"
SEPARATOR = "<|endoftext|>"
VOCABULARY = {"bpe": 1024, "bytes": 257}


@dataclass(frozen=True)
class Size:
    """Width, layers and heads of a model, and the width of its feed-forward layers."""

    hidden: int
    layers: int
    heads: int
    gated: int  # of Llama; GPT-NeoX has 4 x hidden

    def n_parameters(self, architecture: str, vocabulary: int) -> int:
        """Count weights, the embedding once, as the output layer shares it."""
        d = self.hidden
        if architecture == "llama":
            return vocabulary * d + self.layers * (4 * d * d + 3 * d * self.gated + 2 * d) + d
        return vocabulary * d + self.layers * (12 * d * d + 13 * d) + 2 * d


SIZES = {
    "tiny": Size(hidden=32, layers=2, heads=2, gated=80),
    "small": Size(hidden=64, layers=2, heads=2, gated=168),
    "medium": Size(hidden=96, layers=3, heads=3, gated=256),
    "large": Size(hidden=128, layers=3, heads=4, gated=336),
}


@dataclass(frozen=True)
class Training:
    """How every run is trained: short windows of text first, long ones at the end.

    Matrices are updated by Muon and all else by AdamW; rates rise over ``warmup`` steps, stay until
    ``hold`` of all steps and fall to zero. A run that goes on from another has ``continued`` times the rates.
    """

    window: int = 128
    batch: int = 8
    last_window: int = 512
    last_batch: int = 4
    last_share: float = 1 / 6
    muon_rate: float = 0.02
    adamw_rate: float = 0.02
    warmup: int = 20
    hold: float = 0.3
    continued: float = 0.5
    spread_of_weights: float = 0.04


TRAINING = Training()


@dataclass(frozen=True)
class Run:
    """One training run; the finished model has the run's name, a checkpoint ``-stepN`` after it.

    Parameters
    ----------
    name : str
        Also the name of the folder.
    architecture : str
        ``llama`` or ``gpt-neox``.
    tokenizer : str
        ``bpe`` or ``bytes``.
    size : str
        One of `SIZES`.
    domain : str
        A kind of text, or ``all`` of them in equal parts.
    seed : int
        Of initial weights and order of texts.
    steps : int
        Updates of the weights.
    checkpoints : tuple of int
        Steps after which the model is kept as well.
    base : str
        The run whose final weights are the start; random weights if empty.
    """

    name: str
    architecture: str
    tokenizer: str
    size: str
    domain: str
    seed: int
    steps: int
    checkpoints: tuple[int, ...] = ()
    base: str = ""


@dataclass(frozen=True)
class Blend:
    """A model on the straight line between two others: ``(1 - share) * first + share * second``."""

    name: str
    first: str
    second: str
    share: float


def _specialists(base: Run, domains: tuple[str, ...]) -> tuple[Run, ...]:
    return tuple(
        Run(f"{base.name}-{domain}", base.architecture, base.tokenizer, base.size, domain, base.seed,
            steps=60, base=base.name)
        for domain in domains
    )  # fmt: skip


GENERAL = (
    #   name                  architecture tokenizer size     domain seed steps checkpoints
    Run("llama-bpe-tiny",         "llama",    "bpe",   "tiny",   "all", 0, 240),
    Run("llama-bpe-small",        "llama",    "bpe",   "small",  "all", 0, 240),
    Run("llama-bpe-small-seed1",  "llama",    "bpe",   "small",  "all", 1, 240),
    Run("llama-bpe-small-seed2",  "llama",    "bpe",   "small",  "all", 2, 240),
    Run("llama-bpe-medium",       "llama",    "bpe",   "medium", "all", 0, 240, (8, 15, 30, 60, 120)),
    Run("llama-bpe-large",        "llama",    "bpe",   "large",  "all", 0, 240),
    Run("neox-bpe-tiny",          "gpt-neox", "bpe",   "tiny",   "all", 0, 240),
    Run("neox-bpe-small",         "gpt-neox", "bpe",   "small",  "all", 0, 240),
    Run("neox-bpe-small-seed1",   "gpt-neox", "bpe",   "small",  "all", 1, 240),
    Run("neox-bpe-medium",        "gpt-neox", "bpe",   "medium", "all", 0, 240, (15, 30, 60, 120)),
    Run("llama-bytes-tiny",       "llama",    "bytes", "tiny",   "all", 0, 240),
    Run("llama-bytes-small",      "llama",    "bytes", "small",  "all", 0, 240),
    Run("llama-bytes-small-seed1", "llama",   "bytes", "small",  "all", 1, 240),
    Run("llama-bytes-medium",     "llama",    "bytes", "medium", "all", 0, 240),
    Run("neox-bytes-tiny",        "gpt-neox", "bytes", "tiny",   "all", 0, 240),
    Run("neox-bytes-small",       "gpt-neox", "bytes", "small",  "all", 0, 240),
)  # fmt: skip
_BY_NAME = {run.name: run for run in GENERAL}
RUNS = (
    *GENERAL,
    *_specialists(_BY_NAME["llama-bpe-small"], DOMAINS),
    *_specialists(_BY_NAME["neox-bpe-small"], ("json", "prose", "python", "translations")),
    *_specialists(_BY_NAME["llama-bytes-small"], ("javascript", "prose", "python", "translations")),
)
BLENDS = tuple(
    Blend(f"llama-bpe-small-python-to-prose-{k}of6", "llama-bpe-small-python", "llama-bpe-small-prose", k / 6)
    for k in range(1, 6)
)


def recipe(run: Run, training_texts: str, runs: Iterable[Run] = RUNS) -> dict[str, Any]:
    """Write down everything that decides a run's weights.

    Parameters
    ----------
    run : Run
        The run.
    training_texts : str
        Fingerprint of the texts that it is trained on.
    runs : iterable of Run
        Where its base is found.

    Returns
    -------
    dict
        Plain values; equal recipes give equal weights on one machine.
    """
    runs = list(runs)
    bases = [recipe(base, training_texts, runs) for base in runs if base.name == run.base]
    return {
        "run": asdict(run),
        "size": asdict(SIZES[run.size]),
        "vocabulary": VOCABULARY[run.tokenizer],
        "training": asdict(TRAINING),
        "training_texts": training_texts,
        "base": bases[0] if bases else None,
    }


def zoo_rows() -> list[dict[str, Attribute]]:
    """List every model of the zoo with the attributes that colour a map.

    Returns
    -------
    list of dict
        ``name``, ``family`` (architecture and tokenizer), ``size``, ``n_parameters``, ``domain``, ``seed``,
        ``step``, ``tokenizer`` and ``kind`` (``trained``, ``checkpoint`` or ``interpolated``).

    Examples
    --------
    >>> rows = zoo_rows()
    >>> rows[0]["name"], rows[0]["n_parameters"]
    ('llama-bpe-tiny', 56480)
    """
    by_name = {run.name: run for run in RUNS}
    rows = []
    for run in RUNS:
        rows += [_row(run, f"{run.name}-step{step}", step, "checkpoint") for step in run.checkpoints]
        rows.append(_row(run, run.name, run.steps, "trained"))
    for blend in BLENDS:
        first, second = by_name[blend.first], by_name[blend.second]
        row = _row(first, blend.name, first.steps, "interpolated")
        rows.append(row | {"domain": f"{first.domain}-{second.domain}"})
    return rows


def models_yaml() -> str:
    """Write the models list of the zoo, a row a line; ``models/demo.yaml`` is this text."""
    lines = [
        "# The zoo of small models that `lmmap demo` trains; written by lmmap.demo.design.models_yaml().",
        *(f"- {{model: {ZOO}/{row.pop('name')}, {_fields(row)}}}" for row in zoo_rows()),
    ]
    return "\n".join(lines) + "\n"


def _fields(row: dict[str, Attribute]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in row.items())


def _row(run: Run, name: str, step: int, kind: str) -> dict[str, Attribute]:
    return {
        "name": name,
        "family": f"{run.architecture.removeprefix('gpt-')}-{run.tokenizer}",
        "size": run.size,
        "n_parameters": SIZES[run.size].n_parameters(run.architecture, VOCABULARY[run.tokenizer]),
        "domain": run.domain,
        "seed": run.seed,
        "step": step,
        "tokenizer": run.tokenizer,
        "kind": kind,
    }
