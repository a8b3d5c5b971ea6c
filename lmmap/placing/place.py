"""Scoring a new model on the texts of a score set, and placing it among the models of the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lmmap.errors import InputError, closest
from lmmap.modelmap import fit_map
from lmmap.models import ModelSpec
from lmmap.placing.offset import Offset, pipeline_offset
from lmmap.placing.point import Placement, clip_threshold, place_scores
from lmmap.placing.subsets import subset_agreement
from lmmap.recipes import Method
from lmmap.store import Row, Store

FIELDS = (
    "revision", "dtype", "prefix", "trust_remote_code", "adapter", "adapter_revision", "quantization",
    "gguf_file", "allow_pickle",
)  # fmt: skip


def place_model(
    store: Store,
    spec: ModelSpec,
    *,
    method: Method = "mds",
    weights: np.ndarray | None = None,
    clip: float | None = None,
    anchors: Sequence[str] = (),
    device: str = "cpu",
    seed: int = 42,
) -> Placement:
    """Score one model on a score set's texts, or some of them, and put it on the set's map.

    Parameters
    ----------
    store : Store
        The score set; nothing is written to it.
    spec : ModelSpec
        The new model.
    method : {"mds", "pca", "tsne", "umap"}
        Of the map, at text level.
    weights : (N,) float array, optional
        Weight of each text (`text_weights`); those of weight 0 are not scored. All alike by default.
    clip : float, optional
        Share of all entries to be clipped below before the map is drawn, 0.02 for the published maps. The
        new model is clipped as the set, also where the set was clipped before it came here.
    anchors : sequence of str
        Models of the set, by name or row id, to be scored here too: what differs from their rows is the
        pipeline's, and is taken off.
    device : str
        Where to score.
    seed : int
        Of t-SNE and UMAP.

    Returns
    -------
    Placement
        With the nearest models, and how far these texts stand for all.

    Raises
    ------
    InputError
        If a model cannot be scored or an anchor is not in the set.
    """
    scores = store.load()
    if clip is not None:
        scores = scores.clip_below(quantile=clip)
    wanted = [_request(store, anchor) for anchor in anchors]
    model_map = fit_map(scores, method=method, seed=seed)
    n = scores.values.shape[1]
    chosen = np.arange(n) if weights is None else np.flatnonzero(weights)
    texts = [store.texts.texts[x] for x in chosen]
    row = _scored(store, spec, texts, device)
    offset = None
    if wanted:
        again = np.stack([_scored(store, _spec(entry), texts, device).log_likelihood for entry in wanted])
        places = [list(scores.models.index).index(entry["row_id"]) for entry in wanted]
        offset = _offset(
            scores.values[places][:, chosen], again, [entry["model"] for entry in wanted],
            clip_threshold(scores), None if weights is None else weights[chosen],
        )  # fmt: skip
    noise = (row.provenance.get("noise") or {}).get("error_var") or 0.0
    placed = place_scores(
        scores, model_map, row.log_likelihood, name=spec.name, weights=weights, error_var=noise, offset=offset
    )
    if weights is None or len(scores.models) < 4:
        return placed
    return replace(placed, agreement=subset_agreement(scores.values, weights))


def _scored(store: Store, spec: ModelSpec, texts: Sequence[str], device: str) -> Row:
    from lmmap.scoring.row import score_row

    policies = {key: store.scoring[key] for key in ("prefix", "long_texts")}
    return score_row(spec, texts, device=device, keep_tokens=False, **policies)


def _offset(
    known: np.ndarray,
    again: np.ndarray,
    names: Sequence[str],
    limit: float | None,
    weights: np.ndarray | None,
) -> Offset:
    again = again if limit is None else np.maximum(again, limit)
    return pipeline_offset(known, again, names, weights=weights)


def _request(store: Store, anchor: str) -> dict[str, Any]:
    """Find a finished model of the set by its name or row id."""
    entries = [entry for entry in store.requests() if store.is_done(entry["row_id"])]
    for entry in entries:
        if anchor in (entry["row_id"], entry["model"]):
            return entry
    raise InputError(
        f"{store.path} has no finished model {anchor!r}{closest(anchor, [e['model'] for e in entries])}"
    )


def _spec(entry: dict[str, Any]) -> ModelSpec:
    """Give the model that a row of the set was asked for."""
    fields = {key: entry[key] for key in FIELDS if entry.get(key) is not None}
    return ModelSpec(entry["source"], name=entry["model"], **fields)
