"""The point of a new model: its divergences to those on the map, and where they put it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmmap.error_bars.uncertainty import kl_intervals
from lmmap.errors import InputError
from lmmap.geometry import checked_weights, estimate_kl
from lmmap.loglik import LogLikelihoods
from lmmap.modelmap import ModelMap
from lmmap.placing.offset import Offset, half_variance
from lmmap.placing.subsets import N_NEIGHBORS, Agreement

SMALLEST_NOISE = 1e-4  # nats^2 worth a word; float32 stays below
AROUND = 5  # neighbours between which a model is put where distances mean nothing
CLIPPED = 0.01  # share of entries that have the smallest value in a set that was clipped before it came here


@dataclass(frozen=True, eq=False)
class Placement:
    """A new model on a map.

    Parameters
    ----------
    model : str
        Its name.
    coordinates : (2,) float array
        On the map.
    height : float
        Mean log-likelihood of the texts scored, nats per text, offset taken off.
    neighbors : DataFrame
        Index ``row_id``; columns ``model``, ``kl``, ``low``, ``high`` (95 %), nats per text; nearest first.
    n_texts : int
        How many texts were scored.
    method : str
        Of the map.
    clipped_below : float or None
        Threshold in nats.
    offset : Offset or None
        Of the pipeline, if there were anchors.
    agreement : Agreement or None
        Of these texts with all, if they are not all.
    error_var : float or None
        Noise of the new model's scores, nats^2; None if it was not measured.
    """

    model: str
    coordinates: np.ndarray
    height: float
    neighbors: pd.DataFrame
    n_texts: int
    method: str
    clipped_below: float | None = None
    offset: Offset | None = None
    agreement: Agreement | None = None
    error_var: float | None = 0.0

    def caption(self) -> str:
        """Say in a few lines where the model lies and how far to trust it."""
        x, y = self.coordinates
        lines = [f"{self.model}: ({x:.4g}, {y:.4g}) on the {self.method} map, from {self.n_texts:,} texts"]
        if self.method in ("tsne", "umap"):
            lines.append(f"put between its {AROUND} nearest models, weighted by 1 / KL")
        lines.append(f"mean log-likelihood {self.height:.2f} nats per text")
        if self.error_var is None:
            lines.append("noise of its scores not known: the model does not fit or does not run in float32")
        elif self.error_var >= SMALLEST_NOISE:
            lines.append(
                f"noise of its scores {self.error_var:.2g} nats^2, which is {self.error_var / 2:.2g} of KL"
            )
        if self.clipped_below is not None:
            lines.append(f"clipped below {self.clipped_below:.1f} nats, as the map")
        if self.offset is not None:
            lines.append(
                f"pipeline: {self.offset.mean:+.3g} nats per text (spread {self.offset.spread:.2g}), adds "
                f"{self.offset.kl:.3g} to KL, {self.offset.kl_left:.3g} once taken off; "
                f"anchors: {', '.join(self.offset.anchors)}"
            )
        if self.agreement is not None:
            lines.append(
                f"these texts against all, for the models on the map: rank correlation of distances "
                f"{self.agreement.rank_correlation:.3f} (lowest {self.agreement.lowest:.3f}), "
                f"{self.agreement.neighbors_kept:.0%} of nearest neighbours kept, KL off by "
                f"{self.agreement.relative_error:.0%}"
            )
        return "\n".join(lines)


def place_scores(
    scores: LogLikelihoods,
    model_map: ModelMap,
    row: np.ndarray,
    *,
    name: str = "new",
    weights: np.ndarray | None = None,
    error_var: float | None = 0.0,
    offset: Offset | None = None,
) -> Placement:
    """Put a new model's log-likelihoods on a map of others, which stays as it is.

    Parameters
    ----------
    scores : LogLikelihoods
        The K models x N texts that the map was drawn from, clipped as they were then.
    model_map : ModelMap
        From `fit_map` of ``scores``, at text level.
    row : (n,) float array
        Nats, for the texts of positive weight, in their order; not clipped.
    name : str
        What to call the model.
    weights : (N,) float array, optional
        Weight of each text; those of weight 0 were not scored. All the same by default.
    error_var : float or None
        Noise of the row, nats^2, taken off its distances where the map's rows have theirs; nothing if None.
    offset : Offset, optional
        Of the pipeline, taken off.

    Returns
    -------
    Placement
        With the nearest models and 95 % intervals.

    Raises
    ------
    InputError
        If the map is of other models or another estimator, or the row does not fit the weights.

    Notes
    -----
    PCA and classical MDS: Gower's point (1968, Biometrika 55), whose squared distances to the K models come
    nearest to ``2 KL``; a model that is on the map already falls on its own point. The map's centring, the
    mean of its models at every text, does not move. t-SNE and UMAP give no such rule: the model is put
    between its nearest ones.

    Examples
    --------
    >>> from lmmap.modelmap import fit_map
    >>> models, texts = pd.DataFrame(index=["a", "b"]), pd.DataFrame(index=["t1", "t2"])
    >>> scores = LogLikelihoods(np.array([[-1.0, -3.0], [-2.0, -2.0]]), models, texts)
    >>> drawn = fit_map(scores, method="mds")
    >>> placed = place_scores(scores, drawn, np.array([-1.5, -2.5]))
    >>> placed.coordinates.round(6).tolist(), placed.neighbors["kl"].round(6).tolist()
    ([0.0, 0.0], [0.125, 0.125])
    """
    if list(model_map.models.index) != list(scores.models.index):
        raise InputError("the map is not one of these models; draw it with fit_map of the same scores")
    if model_map.recipe.get("estimator") != "text level":
        raise InputError(
            f"the map shows {model_map.recipe.get('estimator')} KL; models are placed at text level"
        )
    w = checked_weights(weights, scores.values.shape[1], enough=2)
    chosen = np.flatnonzero(w)
    limit = clip_threshold(scores)
    new = _checked_row(row, len(chosen), name)
    new = new if limit is None else np.maximum(new, limit)
    new = new if offset is None else new - offset.per_text
    known, w = scores.values[:, chosen], w[chosen]
    kl = half_variance(known - new, w)
    noise = np.zeros(len(kl) + 1)
    if "error_var" in scores.models:
        noise = np.append(
            np.nan_to_num(scores.models["error_var"].to_numpy(dtype=np.float64)), error_var or 0.0
        )
    cleaned = np.maximum(kl - (noise[:-1] + noise[-1]) / 2, 0.0)
    nearest = np.argsort(cleaned, kind="stable")[:N_NEIGHBORS]
    found = kl_intervals(
        np.vstack([known[nearest], new]), weights=w, error_var=noise[np.append(nearest, len(kl))]
    )
    neighbors = scores.models.iloc[nearest][["model"]].assign(
        kl=cleaned[nearest], low=found.low[-1, :-1], high=found.high[-1, :-1]
    )
    method = str(model_map.recipe["method"])
    between = estimate_kl(known, weights=w)
    if method == "pca":  # drawn from the scores, noise and all
        coordinates = gower_point(between, model_map.coordinates, kl)
    elif method == "mds":
        between = np.maximum(between - (noise[:-1, None] + noise[:-1]) / 2, 0.0)
        coordinates = gower_point(between, model_map.coordinates, cleaned)
    else:
        coordinates = point_between(model_map.coordinates, cleaned)
    return Placement(
        name, coordinates, float(new @ w), neighbors, len(chosen), method, limit, offset, error_var=error_var
    )


def gower_point(kl: np.ndarray, coordinates: np.ndarray, kl_to_new: np.ndarray) -> np.ndarray:
    """Give a point on a classical-MDS or PCA map from its divergences to the points there.

    Parameters
    ----------
    kl : (K, K) float array
        Of the models on the map, nats per text, on the same texts as ``kl_to_new``.
    coordinates : (K, 2) float array
        The map.
    kl_to_new : (K,) float array
        Nats per text.

    Returns
    -------
    (2,) float array
        ``Lambda^-1 C^T (g - d^2) / 2`` with C the coordinates, Lambda their squared lengths, g the squared
        distances of the K models from their mean and ``d^2 = 2 KL``; then turned and stretched as brings the
        K models, placed by the same rule, nearest to their points. On all texts they lie there already.

    Examples
    --------
    >>> kl = np.array([[0.0, 2.0], [2.0, 0.0]])
    >>> gower_point(kl, np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.5, 4.5]))
    array([2., 0.])
    """
    squared = 2 * np.column_stack([kl, kl_to_new])
    g = squared[:, :-1].mean(axis=1) - squared[:, :-1].mean() / 2
    lengths = (coordinates**2).sum(axis=0)[:, None]
    along = coordinates.T @ (g[:, None] - squared) / 2
    drawn = np.divide(along, lengths, out=np.zeros_like(along), where=lengths > 0).T
    onto_map, *_ = np.linalg.lstsq(drawn[:-1], coordinates, rcond=None)
    point: np.ndarray = drawn[-1] @ onto_map
    return point


def point_between(coordinates: np.ndarray, kl_to_new: np.ndarray) -> np.ndarray:
    """Give the mean of the five nearest models' positions, weighted by 1 / KL; an equal's own position.

    Examples
    --------
    >>> point_between(np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([1.0, 2.0]))
    array([1., 0.])
    """
    nearest = np.argsort(kl_to_new, kind="stable")[:AROUND]
    near = kl_to_new[nearest]
    w = 1 / near if near[0] > 0 else (near == 0).astype(np.float64)
    point: np.ndarray = (w / w.sum()) @ coordinates[nearest]
    return point


def clip_threshold(scores: LogLikelihoods) -> float | None:
    """Find where a set was clipped: in its history, or by the many entries that have its smallest value.

    Examples
    --------
    >>> models, texts = pd.DataFrame(index=["a"]), pd.DataFrame(index=["t1", "t2"])
    >>> clip_threshold(LogLikelihoods(np.array([[-9.0, -1.0]]), models, texts).clip_below(threshold=-5.0))
    -5.0
    """
    limits = [float(step[11:-1]) for step in scores.history if step.startswith("clip_below(")]
    if limits:
        return max(limits)
    lowest = scores.values.min()
    equal = np.count_nonzero(scores.values == lowest)
    return float(lowest) if equal > max(1, CLIPPED * scores.values.size) else None


def _checked_row(row: np.ndarray, n: int, name: str) -> np.ndarray:
    new = np.asarray(row, dtype=np.float64)
    if new.shape != (n,):
        raise InputError(f"{name} has scores of shape {new.shape}, {n} texts carry weight")
    wrong = new[~np.isfinite(new)]
    if wrong.size:
        raise InputError(f"{name} has the log-likelihood {wrong[0]}; every value must be finite")
    return new
