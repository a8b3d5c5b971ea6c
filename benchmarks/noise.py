"""Noise of one model in every precision: what it adds to distances, and what is left when it is taken off.

    python -m benchmarks.noise --model FOLDER --texts runs/demo-data/texts.parquet -o benchmarks/noise.md

Scores the texts under the same weights in bfloat16, float16, TF32 and float32 (on a GPU; TF32 is left out on
a CPU), and once without naming a precision. All rows are one model: every distance between them is noise.
Weights that 16 bits do not hold, such as those of a GGUF file, are rounded as well as what is computed;
`--round-weights bfloat16` tells what noise the same model has as hubs keep most models, in 16 bits.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmmap.geometry import estimate_kl
from lmmap.modelmap import fit_map
from lmmap.models import DTYPES, ModelSpec
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.text_files import read_texts


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="folder, .gguf file or Hub id")
    parser.add_argument("--texts", type=Path, required=True, help="text set")
    parser.add_argument("--n-texts", type=int, help="how many of the texts; all by default")
    parser.add_argument("--round-weights", choices=("bfloat16", "float16"), help="of a folder or Hub id")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--output", type=Path, help="Markdown file to write")
    given = parser.parse_args(arguments)
    if given.round_weights and given.model.endswith(".gguf"):
        parser.error("--round-weights takes a folder or Hub id; save the file's weights as a folder first")
    texts = read_texts(given.texts)
    if given.n_texts is not None:
        step = np.linspace(0, len(texts) - 1, given.n_texts).astype(int)
        texts = texts.select(texts.frame.index[step])
    named = [d for d in DTYPES if d != "float64" and (d != "tf32" or given.device != "cpu")]
    with tempfile.TemporaryDirectory() as folder:
        model, title = given.model, Path(given.model).name
        if given.round_weights:
            model = rounded(model, given.round_weights, folder)
            title += f" with weights in {given.round_weights}"
        specs = [ModelSpec(model, name=dtype or "default", dtype=dtype) for dtype in (*named, None)]
        store = Store.create(Path(folder) / "run", texts)
        failed = score_models(store, specs, device=given.device)
        if failed:
            sys.exit(f"failed: {failed}")
        report = table(store, specs, title, arguments)
    print(report)
    if given.output:
        given.output.write_text(report, encoding="utf-8")


def rounded(model: str, dtype: str, folder: str) -> str:
    """Write a model anew with its weights in another precision."""
    path = str(Path(folder) / "model")
    AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).save_pretrained(path)
    AutoTokenizer.from_pretrained(model).save_pretrained(path)
    return path


def table(store: Store, specs: list[ModelSpec], title: str, arguments: list[str]) -> str:
    """Write what was measured as Markdown."""
    scores = store.load()
    row_of = {name: row_id for row_id, name in scores.models["model"].items()}
    status = store.status()
    machine = store.provenance(specs[0].row_id)["device"]
    lines = [
        f"# Noise of {title} in every precision",
        "",
        f"{len(scores.texts):,} texts on {machine}; torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}. Made by",
        "",
        f"    python -m benchmarks.noise {shlex.join(arguments)}",
        "",
        "Against the same weights in IEEE float32, one text at a time; in nats and nats^2.",
        "",
        "| asked for | scored in | error_var | error_mean | shape_var | bits repeat "
        "| tokens/s, loading included | flags |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for spec in specs:
        made = store.provenance(spec.row_id)
        noise, pace = made["noise"], status.loc[spec.row_id]
        numbers = " | ".join(f"{noise[key]:.2g}" for key in ("error_var", "error_mean", "shape_var"))
        speed = f"{pace['n_tokens'] / pace['seconds']:,.0f}"
        cells = [spec.name, made["dtype"], numbers, "yes" if noise["bitwise"] else "no", speed]
        lines.append(f"| {' | '.join(cells)} | {'; '.join(made['flags'])} |")
    raw, drawn = estimate_kl(scores.values), fit_map(scores, method="mds")
    places = [list(scores.models.index).index(row_of[spec.name]) for spec in specs]
    names = [spec.name for spec in specs]
    lines += ["", "Text-level KL between the rows as measured / with the noise taken off, nats per text:", ""]
    lines += [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for i, name in zip(places, names, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{raw[i, j]:.1g} / {drawn.kl[i, j]:.1g}' for j in places)} |")
    lines += ["", f"Their map says: {drawn.caption().rpartition(' · ')[2]}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
