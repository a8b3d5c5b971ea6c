"""Look-alikes written in every documented layout of the published files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lmmap.loglik import LogLikelihoods

BENCHMARKS = ("ARC", "HellaSwag", "MMLU", "TruthfulQA", "Winogrande", "GSM8K", "6-taskmean")
UNSCORED = 3  # models without benchmark scores


def write_published(folder: Path, scores: LogLikelihoods, *, protocol: int = 4) -> dict[str, Path]:
    """Write a synthetic set as the published files; give the path of each."""
    folder.mkdir(parents=True, exist_ok=True)
    names, models = scores.models["model"].tolist(), scores.models
    clipped = np.maximum(scores.values, np.quantile(scores.values, 0.02))
    colors = [(*np.random.default_rng(i).random(3), 1.0) for i in range(len(names))]
    benchmark = np.random.default_rng(0).uniform(20, 90, (len(names), len(BENCHMARKS)))

    def entry(i: int, key: str, values: np.ndarray) -> dict[str, Any]:
        missing = i < UNSCORED
        return {
            "model_name": names[i],
            "model_type": models["family"].iloc[i],
            "model_size": float(models["n_parameters"].iloc[i] / 1e9),
            "created_at": f"{models['created'].iloc[i]}T00:00:00+00:00",
            "downloads": 10 * i,
            "tags": ["text-generation", f"license:{i}"],
            key: values[i],
            "mean_logp": float(values[i].mean()),
            **{
                f"score_v1_{b}": None if missing else float(benchmark[i, t]) for t, b in enumerate(BENCHMARKS)
            },
        }

    contents = {
        "raw_log-likelihood_1018.pkl": dict(zip(names, scores.values, strict=True)),
        "clipped_log-likelihood_1018.pkl": dict(zip(names, clipped, strict=True)),
        "model-data-1018.pkl": [entry(i, "log-likelihood-10k", clipped) for i in range(len(names))],
        "modeldata_1018.pkl": [entry(i, "raw_log-likelihood-10k", scores.values) for i in range(len(names))],
        "name_type_color_1018.pkl": [
            (name, models["family"].iloc[i], colors[i], "base") for i, name in enumerate(names)
        ],
        "steps.pkl": {"70m": {1: scores.values[0], 512: scores.values[1]}, "410m": {1: scores.values[2]}},
        "layers.pkl": {names[0]: {"layer 0": scores.values[0], "layer 1": scores.values[1]}},
        "quantized.pkl": {"8bit": scores.values[0], "4bit": None, "none": scores.values[1]},
        "lss-uniq-idx-weight.pkl": {
            seed: {n: selection(scores, n, seed) for n in (10, 20)} for seed in (0, 1)
        },
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    texts = [
        {"pile_idx": x, "chunk_idx": 0, "text": text_of(scores, x), "pile_set_name": source}
        for x, source in enumerate(scores.texts["source"])
    ]
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in texts)
    (folder / "texts-10k-pile.jsonl").write_text(lines, encoding="utf-8")
    (folder / "texts.json").write_text(json.dumps([line["text"] for line in texts]), encoding="utf-8")
    yaml = "".join(f"- {{model_name: {name}, dtype_used: float16}}\n" for name in names)
    (folder / "models_1018.yaml").write_text(yaml, encoding="utf-8")
    return {file.name: file for file in folder.iterdir()}


def text_of(scores: LogLikelihoods, x: int) -> str:
    """A text of the length that the set says."""
    text = f"synthetic text {x} "
    return (text * (scores.texts["n_bytes"].iloc[x] // len(text) + 1))[: scores.texts["n_bytes"].iloc[x]]


def selection(scores: LogLikelihoods, n: int, seed: int) -> dict[str, np.ndarray]:
    """Texts drawn with replacement, each once, with weights that say how often."""
    drawn = np.random.default_rng(seed).integers(scores.values.shape[1], size=n)
    index, count = np.unique(drawn, return_counts=True)
    return {"unique_index": index, "weights": count / n}
