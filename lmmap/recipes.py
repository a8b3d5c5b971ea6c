"""Recipes: what can be drawn, how a map was made, and how that is said below it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from lmmap.errors import InputError, closest
from lmmap.loglik import LogLikelihoods
from lmmap.resolution import debias_kl, noise_kl

Method = Literal["tsne", "pca", "mds", "umap"]

SHOWN = {"tsne": "t-SNE", "pca": "PCA", "mds": "classical MDS", "umap": "UMAP"}
TEXT_LEVEL = "text level"


def check_request(method: str, n_models: int, perplexity: float | None, kl_given: bool) -> None:
    """Refuse what cannot be drawn, before anything is computed.

    Parameters
    ----------
    method : str
        Of `Method`.
    n_models : int
        K.
    perplexity : float or None
        The one asked for.
    kl_given : bool
        Whether there are divergences and no scores.

    Raises
    ------
    InputError
        If the method is unknown, there are too few models for it, or a setting is another method's.
    """
    methods = get_args(Method)
    if method not in methods:
        raise InputError(f"no method {method!r}, only {', '.join(methods)}{closest(method, methods)}")
    if n_models < 2:
        raise InputError(f"a map needs at least 2 models, got {n_models}")
    if method in ("tsne", "umap") and n_models < 4:
        raise InputError(f"{SHOWN[method]} needs at least 4 models, got {n_models}: use method='pca'")
    if method == "pca" and kl_given:
        raise InputError("pca works on the log-likelihoods, not on a given kl: use method='mds'")
    if perplexity is None:
        return
    if method != "tsne":
        raise InputError(f"perplexity is a setting of method='tsne', not of {method!r}")
    if not 1 <= perplexity < n_models:
        raise InputError(f"perplexity must lie in [1, {n_models}) for {n_models} models, got {perplexity:g}")


def without_noise(kl: np.ndarray, models: pd.DataFrame) -> tuple[np.ndarray, dict[str, Any]]:
    """Take off what the rows' noise adds, and say what cannot be resolved.

    Parameters
    ----------
    kl : (K, K) float array
        Text-level estimate, nats per text.
    models : DataFrame
        K rows; with ``error_var`` where it was measured.

    Returns
    -------
    kl : (K, K) float array
        Without the noise (`lmmap.resolution`).
    told : dict
        ``resolution``, ``n_unresolved`` and ``n_noise_unknown`` of a recipe.
    """
    if "error_var" not in models or models["error_var"].isna().all():
        return kl, {"resolution": None, "n_unresolved": None, "n_noise_unknown": len(models)}
    error_var = models["error_var"].to_numpy(dtype=np.float64)
    added, kl = noise_kl(error_var), debias_kl(kl, error_var)
    return kl, {
        "resolution": float(added.max()),
        "n_unresolved": int(np.triu(kl < added, 1).sum()),
        "n_noise_unknown": int(np.isnan(error_var).sum()),
    }


def provenance(scores: LogLikelihoods, weights: np.ndarray | None, method: str) -> dict[str, Any]:
    """Say what a map is of: counts, lengths, what was done to the values, versions.

    Parameters
    ----------
    scores : LogLikelihoods
        What it is of.
    weights : (N,) float array or None
        Of the texts.
    method : str
        Of `Method`.

    Returns
    -------
    dict
        Entries of a recipe.
    """
    w = np.ones(len(scores.texts)) if weights is None else np.asarray(weights, dtype=np.float64)
    clips = [step[len("clip_below(") : -1] for step in scores.history if step.startswith("clip_below(")]
    packages = ("numpy", "scikit-learn", *(["umap-learn"] if method == "umap" else []))
    return {
        "n_models": len(scores.models),
        "n_texts": int(np.count_nonzero(w)),
        "weighted": weights is not None,
        "mean_n_bytes": (
            float(np.average(scores.texts["n_bytes"], weights=w)) if "n_bytes" in scores.texts else None
        ),
        "history": scores.history,
        "clipped_below": max(map(float, clips)) if clips else None,
        "versions": {package: version(package) for package in packages},
    }


def counts(recipe: Mapping[str, Any], n_models: int) -> str:
    """Say how many models and texts there are."""
    if "n_texts" not in recipe:
        return f"{n_models} models"
    return f"{n_models} models, {recipe['n_texts']:,} {'weighted ' if recipe.get('weighted') else ''}texts"


def settings(recipe: Mapping[str, Any]) -> str:
    """Say by which method, estimator and settings the map was made."""
    method = recipe.get("method", "")
    words = [SHOWN.get(method, method)]
    if recipe.get("estimator", TEXT_LEVEL) != TEXT_LEVEL:
        words[0] += f" of the {recipe['estimator']} KL"
    if recipe.get("perplexity") is not None:
        words.append(f"perplexity {recipe['perplexity']:.3g}")
    if recipe.get("seed") is not None:
        words.append(f"seed {recipe['seed']}")
    if recipe.get("explained") is not None:
        words.append(f"{sum(recipe['explained']):.0%} of the variance")
    if method in ("pca", "mds"):
        words.append("rotation and sign are arbitrary")
    return ", ".join(words)


def resolution(recipe: Mapping[str, Any]) -> str:
    """Say which pairs noise alone could explain."""
    unknown = recipe["n_noise_unknown"]
    if recipe["resolution"] is None:
        return "resolution unknown: the scores' noise was not measured"
    told = f"resolution at worst {recipe['resolution']:.1g} nats, {recipe['n_unresolved']:,} pairs unresolved"
    return f"{told}, noise of {unknown} models unknown" if unknown else told
