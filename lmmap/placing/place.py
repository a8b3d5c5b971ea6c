"""Scoring a new model on the texts of a score set, and placing it among the models of the set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmmap.errors import InputError, closest
from lmmap.modelmap import fit_map
from lmmap.models import ModelSpec
from lmmap.placing.offset import pipeline_offset
from lmmap.placing.point import Placement, clip_threshold, place_scores
from lmmap.placing.subsets import subset_agreement
from lmmap.recipes import Method
from lmmap.scoring.progress import Pace, Progress
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
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Placement:
    """Score one model on a score set's texts, or some of them, and put it on the set's map.

    Parameters
    ----------
    store : Store
        The score set; nothing is written to it.
    spec : ModelSpec
        The new model; if it names a ``dtype``, anchors are scored in it too. On CPUs that compute in it
        float16 takes about half the time of float32, and the noise is measured and told.
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
    on_progress : callable, optional
        Called with a `Progress` after every batch and every model.

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
    specs = [spec, *(_spec(entry, spec.dtype) for entry in wanted)]
    scorer = _Scorer(store, [store.texts.texts[x] for x in chosen], device, len(specs), on_progress)
    row, *again = [scorer.scored(i, spec) for i, spec in enumerate(specs)]
    offset = None
    if wanted:
        places = [list(scores.models.index).index(entry["row_id"]) for entry in wanted]
        limit = clip_threshold(scores)
        offset = pipeline_offset(
            scores.values[places][:, chosen],
            np.maximum([other.log_likelihood for other in again], -np.inf if limit is None else limit),
            [entry["model"] for entry in wanted],
            weights=None if weights is None else weights[chosen],
        )
    noise = row.provenance["noise"]["error_var"]
    placed = place_scores(
        scores, model_map, row.log_likelihood, name=spec.name, weights=weights, error_var=noise, offset=offset
    )
    if weights is None or len(scores.models) < 4:
        return placed
    return replace(placed, agreement=subset_agreement(scores.values, weights))


@dataclass(frozen=True)
class _Scorer:
    """Scores the new model and the anchors on the same texts, and tells how far it is."""

    store: Store
    texts: Sequence[str]
    device: str
    n_models: int
    on_progress: Callable[[Progress], None]

    def scored(self, number: int, spec: ModelSpec) -> Row:
        from lmmap.scoring.job import WatchedBatches
        from lmmap.scoring.row import score_row

        begun = Progress(
            spec.name, "loading", number, self.n_models, n_texts=len(self.texts), device=self.device
        )
        self.on_progress(begun)
        pace = Pace(replace(begun, state="scoring"), n_processes=1)
        policies = {key: self.store.scoring[key] for key in ("prefix", "long_texts")}
        row = score_row(
            spec,
            self.texts,
            begin=lambda job: WatchedBatches(job, pace, self.on_progress),
            device=self.device,
            keep_tokens=False,
            **policies,
        )
        self.on_progress(replace(pace.progress, state="done", models_done=number + 1))
        return row


def _request(store: Store, anchor: str) -> dict[str, Any]:
    """Find a finished model of the set by its name or row id."""
    entries = [entry for entry in store.requests() if store.is_done(entry["row_id"])]
    for entry in entries:
        if anchor in (entry["row_id"], entry["model"]):
            return entry
    raise InputError(
        f"{store.path} has no finished model {anchor!r}{closest(anchor, [e['model'] for e in entries])}"
    )


def _spec(entry: dict[str, Any], dtype: str | None) -> ModelSpec:
    """Give the model that a row of the set was asked for, in another precision if one is named."""
    fields = {key: entry[key] for key in FIELDS if entry.get(key) is not None}
    fields |= {"dtype": dtype} if dtype else {}
    return ModelSpec(entry["source"], name=entry["model"], **fields)
