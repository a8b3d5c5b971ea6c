"""Architectures: every kind of causal model of transformers, tiny, against transformers' own forward.

Run from the root of the repository::

    python -m benchmarks.architectures -o benchmarks/architectures-cpu.md
    python -m benchmarks.architectures --device cuda -o benchmarks/architectures-cuda.md

Each kind of `tests/tiny.py` is saved with random weights and a tokenizer to a fresh folder and loaded as
a user's would be. The oracle is transformers' own full forward on the same device, one text at a time, no
mask, eager experts, in float64 where the architecture runs in it, from a copy that has read nothing before;
its process cannot import fused kernels of recurrent models, so that these are held against plain torch.
"""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model
from lmmap.scoring.score import score_texts
from tests.oracle import Oracle
from tests.tiny import all_kinds, save_model

LENGTHS = (3, 5, 9, 14, 17, 30, 47, 62)  # across windows of 8 and scan chunks of 16
LONG = 150  # tokens, more than the context of 64
TOLERANCE = {"float32": 1e-3, "float16": 0.5}  # nats per text
KERNELS = {
    "causal_conv1d": "causal-conv1d",
    "mamba_ssm": "mamba-ssm",
    "fla": "flash-linear-attention",
}  # module: package
COLUMNS = (
    "kind",
    "model",
    "oracle",
    "to oracle",
    "to alone",
    "long text",
    "swap",
    "padding",
    "head",
    "result",
)


def make_texts() -> list[str]:
    """Draw texts of one token for each character, the last longer than the context."""
    draw = np.random.default_rng(0)
    return ["".join(map(chr, draw.integers(32, 127, size=n))) for n in (*LENGTHS, LONG)]


def hide_kernels() -> None:
    """Let imports of fused kernels fail in this process."""
    sys.modules.update(dict.fromkeys(KERNELS))  # type: ignore[arg-type]


def expect(folder: Path, texts: Sequence[str], context: int | None, device: str) -> tuple[str, list[float]]:
    """Score the texts by the oracle: its precision, and nats per text."""
    torch.set_num_threads(1)
    oracle = Oracle(folder, device=device)
    expected = [float(oracle.tokens(text, context).sum()) for text in texts]
    return str(oracle.dtype).removeprefix("torch."), expected


def examine(kind: str, device: str, dtype: str, folder: Path, oracles: ProcessPoolExecutor) -> dict[str, Any]:
    """Score the texts under one kind of model and compare; one row of the table."""
    texts = make_texts()
    try:
        save_model(folder, kind)
    except Exception as error:  # a type whose defaults do not shrink, or that needs another library
        return {"kind": kind, "result": f"not built: {type(error).__name__}: {_short(error)}"}
    try:
        model = load_model(ModelSpec(str(folder), dtype=dtype), device=device)
        row = score_texts(model, texts, audit=False)
        alone = score_texts(model, texts, audit=False, token_budget=1)
    except InputError as error:
        return {
            "kind": kind,
            "result": f"refused: {_short(error).replace(f'{folder}', '').lstrip(': ')}",
        }
    provenance = row.provenance
    precision, expected = oracles.submit(expect, folder, texts, provenance["context"], device).result()
    away = np.abs(row.log_likelihood - np.array(expected))
    apart = float(np.abs(row.log_likelihood - alone.log_likelihood).max())
    good = max(away.max(), apart) <= TOLERANCE[dtype]
    return {
        "kind": kind,
        "model": provenance["architecture"],
        "oracle": precision,
        "to oracle": float(away[:-1].max()),
        "to alone": apart,
        "long text": float(away[-1]),
        "swap": provenance["suffix_swap"],
        "padding": provenance["pad_growth"],
        "head": provenance["head"],
        "result": "ok" if good else f"FAILED: {max(away.max(), apart):.3g} nats",
    }


def work(kinds: Sequence[str], device: str, dtype: str) -> None:
    """Examine kinds one after another; a line of JSON for each, flushed, for the process that started us."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    oracles = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), hide_kernels)
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = examine(kind, device, dtype, Path(folder), oracles)
            except Exception as error:
                row = {"kind": kind, "result": f"FAILED: {type(error).__name__}: {_short(error)}"}
                if "CUDA error" in str(error):  # nothing runs in this process any more
                    print(json.dumps(row), flush=True)
                    oracles.shutdown(cancel_futures=True)
                    sys.exit(1)
        print(json.dumps(row), flush=True)
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def examine_all(kinds: Sequence[str], device: str, dtype: str) -> Iterator[dict[str, Any]]:
    """Examine kinds in a process of their own, and go on in another where one dies."""
    waiting = list(kinds)
    while waiting:
        command = [sys.executable, "-m", "benchmarks.architectures", "--device", device, "--dtype", dtype]
        command += ["--worker", *(option for kind in waiting for option in ("--only", kind))]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            for line in process.stdout or ():
                if line.startswith("{"):
                    row = json.loads(line)
                    waiting.remove(row["kind"])
                    yield row
        if waiting and process.returncode:
            yield {"kind": waiting.pop(0), "result": f"FAILED: the process died ({process.returncode})"}


def write_table(rows: Sequence[dict[str, Any]], device: str, dtype: str, seconds: float, command: str) -> str:
    """Lay the rows out as Markdown, with what they were made by."""
    counts = Counter(row["result"].partition(":")[0] for row in rows)
    machine = torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {platform.machine()}"
    kinds = f"{len(rows)} configurations of {len({row['kind'].partition(',')[0] for row in rows})} types"
    lines = [
        "# Architectures",
        "",
        f"{kinds}: {', '.join(f'{n} {what}' for what, n in sorted(counts.items(), key=lambda x: -x[1]))}.",
        "",
        f"Made by `{command}` in {seconds / 60:.0f} min; {dtype} on {machine}; torch {version('torch')}, "
        f"transformers {version('transformers')}, Python {platform.python_version()}; fused kernels: "
        f"{', '.join(_kernels()) or 'none'}. "
        f"`ok` means within {TOLERANCE[dtype]:g} nats per text of the oracle, alone and in batches.",
        "",
        "Tiny random models saved to disk with a tokenizer. Columns, in nats, the largest over texts of "
        f"{LENGTHS[0]} to {LENGTHS[-1]} tokens: difference to transformers' own forward in the precision "
        "named (one text at a time, no mask); in batches against alone; a text of "
        f"{LONG} tokens against its windows by the oracle; a log-probability when later tokens change; "
        "a text when it is padded. `head`: run on chosen rows (stub), or every logit computed (forward).",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
    ]
    lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _kernels() -> list[str]:
    """List the packages with fused kernels of recurrent models that are installed here."""
    packages = {d.name.replace("_", "-"): d.version for d in distributions()}
    packages = {name: packages[name] for name in KERNELS.values() if name in packages}
    return [f"{name} {packages[name]}" for name in sorted(packages)]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if value else "0"
    return str(value).replace("|", "\\|")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@click.command()
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--dtype", type=click.Choice(list(TOLERANCE)), default="float32", show_default=True)
@click.option("--only", multiple=True, help="A kind, as tests/tiny.py names it; all by default.")
@click.option("--match", help="Kinds whose names hold this regular expression.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Markdown file to write.")
@click.option("--worker", is_flag=True, hidden=True)
def main(
    device: str, dtype: str, only: tuple[str, ...], match: str | None, output: Path | None, worker: bool
) -> None:
    """Score a tiny model of every kind and compare with transformers' own forward."""
    known = all_kinds()
    unknown = [kind for kind in only if kind not in known]
    if unknown:
        raise click.UsageError(f"no such kind: {', '.join(unknown)}")
    kinds = list(only) or [kind for kind in known if re.search(match or "", kind)]
    if worker:
        work(kinds, device, dtype)
        return
    start, rows = time.monotonic(), []
    for row in examine_all(kinds, device, dtype):
        rows.append(row)
        click.echo(f"{len(rows)}/{len(kinds)}  " + "  ".join(_cell(row.get(c, "")) for c in COLUMNS))
    command = f"python -m benchmarks.architectures {shlex.join(sys.argv[1:])}"
    table = write_table(rows, device, dtype, time.monotonic() - start, command)
    click.echo("\n" + table.splitlines()[2])
    if output:
        output.write_text(table)
    sys.exit(any(row["result"].startswith("FAILED") for row in rows))


if __name__ == "__main__":
    main()
