"""ModelMap: models as points in the plane, the KL divergences they stand for, the recipe that placed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.geometry import estimate_kl, height, nearest_neighbors
from lmmap.layouts import classical_mds, default_perplexity, principal_axes, tsne, umap
from lmmap.loglik import LogLikelihoods
from lmmap.recipes import (
    TEXT_LEVEL,
    Method,
    check_request,
    counts,
    provenance,
    resolution,
    settings,
    without_noise,
)


@dataclass(frozen=True, eq=False, repr=False)
class ModelMap:
    """Positions of K models in the plane, the KL divergences behind them, and how they were made.

    Parameters
    ----------
    kl : (K, K) float array
        Divergence of every pair, nats per text: symmetric, not negative, zero diagonal. Copied, made
        read-only, as the next two.
    coordinates : (K, 2) float array
        Positions. For ``pca`` and ``mds`` in square roots of nats, half the squared distance of two points
        being the picture's version of their KL; for ``tsne`` and ``umap`` without unit.
    height : (K,) float array
        Mean log-likelihood, nats per text.
    models : DataFrame
        K rows; index ``row_id``; column ``model`` (the shown name) and any attributes.
    recipe : mapping
        How the map was made, as `fit_map` writes it.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, ids repeat, or ``kl`` is no symmetric divergence.

    Examples
    --------
    >>> kl = np.array([[0, 2.0, 8.0], [2.0, 0, 2.0], [8.0, 2.0, 0]])
    >>> models = pd.DataFrame(index=["a", "b", "c"])
    >>> drawn = ModelMap(kl, np.array([[0, 0], [2, 0], [4.5, 0]]), np.zeros(3), models, {"method": "mds"})
    >>> drawn.neighbors_kept(1)
    1.0
    """

    kl: np.ndarray
    coordinates: np.ndarray
    height: np.ndarray
    models: pd.DataFrame
    recipe: Mapping[str, Any]

    def __post_init__(self) -> None:
        n_models = len(self.models)
        shapes = {"kl": (n_models, n_models), "coordinates": (n_models, 2), "height": (n_models,)}
        for name, shape in shapes.items():
            values = np.array(getattr(self, name), dtype=np.float64)
            if values.shape != shape:
                raise InputError(f"{name} has shape {values.shape}, expected {shape} for {n_models} models")
            if not np.isfinite(values).all():
                raise InputError(f"{name} holds a value that is not finite")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if self.models.index.has_duplicates:
            repeated = self.models.index[self.models.index.duplicated()][0]
            raise InputError(f"model id {repeated!r} is given more than once")
        check_divergence(self.kl, self.models.index)
        if "model" not in self.models:
            object.__setattr__(self, "models", self.models.assign(model=self.models.index))
        object.__setattr__(self, "recipe", dict(self.recipe))

    def __repr__(self) -> str:
        return f"ModelMap: {self.caption()}\n  models: {', '.join(map(str, self.models.columns))}"

    def neighbors_kept(self, k: int | None = None) -> float:
        """Share of the models' true nearest neighbours that are nearest neighbours in the picture too.

        Parameters
        ----------
        k : int, optional
            How many neighbours of each model, at most K - 1; by default `default_neighbors` of K.

        Returns
        -------
        float
            1 for a picture that keeps them all; a picture drawn at random keeps k / (K - 1).

        Raises
        ------
        InputError
            If ``k`` is not between 1 and K - 1.
        """
        k = default_neighbors(len(self.kl)) if k is None else k
        apart = sum(np.subtract.outer(along, along) ** 2 for along in self.coordinates.T)
        true, drawn = nearest_neighbors(self.kl, k), nearest_neighbors(np.asarray(apart), k)
        return float((true[:, :, None] == drawn[:, None, :]).sum() / true.size)

    def caption(self) -> str:
        """Say in one line what the picture shows and how far to trust it.

        Returns
        -------
        str
            Models, texts, method with its settings, clipping, the share of neighbours kept, and the
            resolution: the KL that noise alone may show, below which pairs cannot be told apart.
        """
        parts = [counts(self.recipe, len(self.kl)), settings(self.recipe)]
        if self.recipe.get("clipped_below") is not None:
            parts.append(f"clipped below {self.recipe['clipped_below']:.1f} nats")
        if len(self.kl) > 2:
            k = default_neighbors(len(self.kl))
            neighbors = "nearest neighbour" if k == 1 else f"{k} nearest neighbours"
            chance = k / (len(self.kl) - 1)
            parts.append(f"{neighbors}: {self.neighbors_kept(k):.0%} kept ({chance:.0%} by chance)")
        if "resolution" in self.recipe:
            parts.append(resolution(self.recipe))
        return " · ".join(parts)

    def to_frame(self) -> pd.DataFrame:
        """Give positions, heights and attributes as one table.

        Returns
        -------
        DataFrame
            K rows, index ``row_id``; columns ``model``, ``x``, ``y``, ``height``, then the attributes.

        Raises
        ------
        InputError
            If an attribute has the name of one of the first columns.
        """
        taken = [c for c in ("x", "y", "height") if c in self.models]
        if taken:
            raise InputError(f"the models have an attribute {taken[0]!r}, a column of this table: rename it")
        frame = self.models[["model"]].assign(
            x=self.coordinates[:, 0], y=self.coordinates[:, 1], height=self.height
        )
        return frame.join(self.models.drop(columns="model"))


def default_neighbors(n_models: int) -> int:
    """Choose how many neighbours to look at: ten, but at most half of the other models.

    With more than half, a picture drawn at random would do well.

    Parameters
    ----------
    n_models : int
        K, at least 2.

    Returns
    -------
    int
        ``min(10, (K - 1) // 2)``, at least 1.

    Examples
    --------
    >>> [default_neighbors(n) for n in (3, 8, 1018)]
    [1, 3, 10]
    """
    return max(1, min(10, (n_models - 1) // 2))


def fit_map(
    scores: LogLikelihoods,
    *,
    method: Method = "tsne",
    weights: np.ndarray | None = None,
    seed: int = 42,
    perplexity: float | None = None,
    kl: np.ndarray | pd.DataFrame | None = None,
    estimator: str = "given",
) -> ModelMap:
    """Place models in the plane so that near ones have a small KL divergence.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts, nats.
    method : {"tsne", "pca", "mds", "umap"}
        ``tsne`` keeps neighbours best (the published maps); ``pca`` keeps as much of the variance as a
        linear picture can; ``mds`` (Torgerson's) is the same for text-level KL, quicker, and works from any
        KL; ``umap`` needs the extra ``lmmap[umap]``.
    weights : (N,) float array, optional
        Weight of each text; uniform by default.
    seed : int
        For ``tsne`` and ``umap``.
    perplexity : float, optional
        For ``tsne``; by default `default_perplexity` of K.
    kl : (K, K) array or DataFrame, optional
        Divergences to be drawn instead of the text-level estimate, nats per text and symmetric, such as
        `lmmap.geometry.estimate_kl_tokens` gives. A table is brought into the models' order by row id.
    estimator : str
        What to call ``kl`` in the caption.

    Returns
    -------
    ModelMap
        The same input gives the same map. Rotation and sign are arbitrary; they are fixed by putting the
        model farthest out along an axis on its positive side.

    Raises
    ------
    InputError
        If there are too few models for the method, all models are alike, ``kl`` does not fit, a setting
        belongs to another method, or umap-learn is not installed.

    Notes
    -----
    The text-level estimate is rid of the rows' noise (`lmmap.resolution`) where ``scores.models`` has
    ``error_var``. t-SNE and UMAP start from the picture of ``mds`` and see the distances ``sqrt(2 KL)``
    (arXiv:2502.16173, eq. 3).

    Examples
    --------
    >>> models, texts = pd.DataFrame(index=["a", "b"]), pd.DataFrame(index=["t1", "t2"])
    >>> scores = LogLikelihoods(np.array([[-1.0, -3.0], [-2.0, -2.0]]), models, texts)
    >>> drawn = fit_map(scores, method="pca")
    >>> round(float(drawn.kl[0, 1]), 6), abs(drawn.coordinates[:, 0]).round(6).tolist()
    (0.5, [0.5, 0.5])
    """
    n_models = len(scores.models)
    check_request(method, n_models, perplexity, kl_given=kl is not None)
    noise: dict[str, Any] = {}
    if kl is None:
        divergence, estimator = estimate_kl(scores.values, weights=weights), TEXT_LEVEL
        divergence, noise = without_noise(divergence, scores.models)
    else:
        divergence = _aligned(kl, scores.models.index)
    if not divergence.any():
        raise InputError(f"all {n_models} models are alike on these texts (every KL is 0): nothing to draw")
    explained: np.ndarray | None
    if method == "pca":
        coordinates, explained = principal_axes(scores.values, weights=weights)
    else:
        coordinates, explained = classical_mds(divergence)
    if method == "tsne":
        perplexity = default_perplexity(n_models) if perplexity is None else perplexity
        coordinates, explained = tsne(divergence, coordinates, perplexity=perplexity, seed=seed), None
    elif method == "umap":
        coordinates, explained = umap(divergence, coordinates, seed=seed), None
    recipe = {
        "method": method,
        "estimator": estimator,
        "perplexity": perplexity,
        "seed": seed if method in ("tsne", "umap") else None,
        "explained": None if explained is None else tuple(explained.tolist()),
        **noise,
        **provenance(scores, weights, method),
    }
    return ModelMap(divergence, coordinates, height(scores.values, weights=weights), scores.models, recipe)


def _aligned(kl: np.ndarray | pd.DataFrame, row_ids: pd.Index) -> np.ndarray:
    """Bring a given KL into the models' order and check it."""
    if isinstance(kl, pd.DataFrame):
        missing = row_ids.difference(kl.index).union(row_ids.difference(kl.columns))
        if len(missing):
            raise InputError(f"kl has no row and column for {len(missing)} models, such as {missing[0]!r}")
        kl = kl.loc[row_ids, row_ids].to_numpy()
    values = np.asarray(kl, dtype=np.float64)
    if values.shape != (len(row_ids), len(row_ids)):
        raise InputError(f"kl has shape {values.shape}, the scores have {len(row_ids)} models")
    check_divergence(values, row_ids)
    return (values + values.T) / 2


def check_divergence(kl: np.ndarray, row_ids: pd.Index) -> None:
    """Refuse a matrix that is no symmetric divergence, naming the first wrong entry.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text.
    row_ids : Index
        The K models, for the message.

    Raises
    ------
    InputError
        If an entry is not finite or negative, one on the diagonal is not 0, or the two directions of a pair
        differ by more than rounding.
    """
    scale = np.abs(kl).max(initial=0.0)
    for wrong, what in (
        (~np.isfinite(kl), "is not finite"),
        (kl < 0, "is negative"),
        (np.diag(np.diag(kl)) != 0, "should be 0, a model's divergence from itself"),
        (np.abs(kl - kl.T) > 1e-9 * scale, "is not the way back: give (kl + kl.T) / 2"),
    ):
        if wrong.any():
            i, j = np.argwhere(wrong)[0]
            raise InputError(f"kl from {row_ids[i]!r} to {row_ids[j]!r} is {kl[i, j]:g}, which {what}")
