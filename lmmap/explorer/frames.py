"""Frames: the map of a view, made from sums that are at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController

from lmmap.errors import InputError, closest
from lmmap.explorer.axes import SEED, Orientation, laid_out, leading_axes
from lmmap.explorer.choices import Choices
from lmmap.explorer.distances import TEXT_LEVEL, Distances
from lmmap.explorer.views import View
from lmmap.geometry import height
from lmmap.layouts import default_perplexity
from lmmap.loglik import LogLikelihoods
from lmmap.modelmap import ModelMap
from lmmap.recipes import check_request, provenance, without_noise
from lmmap.segments import Segments

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """One picture: k models of a view on n of its texts; made by `Explorer.frame`.

    Parameters
    ----------
    view : View
        What was asked for.
    scores : LogLikelihoods
        All K models x N texts.
    shown : (K,) bool array
        The k models.
    texts : (N,) bool array
        The n texts.
    estimator : str
        Of the distances: one of `lmmap.estimates.ESTIMATORS`.
    kl : (k, k) float array
        Nats per text; at text level rid of the rows' noise where that was measured.
    coordinates : (k, 2) float array
        Positions, as of `lmmap.modelmap.ModelMap`, turned onto those of the same models on all texts, and
        these onto those of all models: a view looks the same whatever was looked at before.
    explained : (2,) float array, or None
        Share of the variance on each axis; None for t-SNE and UMAP.
    noise : mapping
        What noise hides, as in the recipe of a map; empty but at text level.
    note : str
        What a reader must know of the distances.
    basis : (k, 8) float array, or None
        Axes to start the next frame from.
    """

    view: View
    scores: LogLikelihoods
    shown: Array
    texts: Array
    estimator: str
    kl: Array
    coordinates: Array
    explained: Array | None
    noise: Mapping[str, Any]
    note: str
    basis: Array | None

    def __post_init__(self) -> None:
        for values in (self.shown, self.texts, self.kl, self.coordinates):
            values.setflags(write=False)

    def __repr__(self) -> str:
        return f"Frame: {self.headline}"

    @cached_property
    def models(self) -> pd.DataFrame:
        """The k models with their attributes."""
        return self.scores.models[self.shown]

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Row ids of the models, in the order of all arrays here."""
        return tuple(map(str, self.models.index))

    @property
    def n_texts(self) -> int:
        """How many texts are used."""
        return int(np.count_nonzero(self.texts))

    @cached_property
    def height(self) -> Array:
        """Mean log-likelihood of each model, (k,) nats per text."""
        heights: Array = height(self.scores.values, weights=self.texts)[self.shown]
        return heights

    @cached_property
    def map(self) -> ModelMap:
        """The same as a map that can be plotted and saved."""
        return ModelMap(self.kl, self.coordinates, self.height, self.models, self._recipe)

    @property
    def headline(self) -> str:
        """What is shown, in a few words; at once."""
        return f"{len(self.kl):,} models, {self.n_texts:,} texts, {self.estimator.replace('_', ' ')} KL"

    @cached_property
    def caption(self) -> str:
        """What the picture shows and how far to trust it: a tenth of a second for 1,000 models."""
        return " · ".join(filter(None, (self.map.caption(), self.note)))

    @property
    def neighbors_kept(self) -> float:
        """Share of nearest neighbours that the picture keeps, as `ModelMap.neighbors_kept`."""
        return self.map.neighbors_kept()

    @property
    def resolution(self) -> float | None:
        """KL that noise alone may show, nats per text; None where it is not known."""
        return self.noise.get("resolution")

    def position(self, row_id: str) -> int:
        """Find a model among those shown.

        Parameters
        ----------
        row_id : str
            Its row id.

        Returns
        -------
        int
            Its place in `rows` and all arrays.

        Raises
        ------
        InputError
            If it is not shown.
        """
        if row_id not in self.rows:
            raise InputError(
                f"{row_id!r} is not among the {len(self.kl)} models shown{closest(row_id, self.rows)}"
            )
        return self.rows.index(row_id)

    @property
    def _recipe(self) -> dict[str, Any]:
        method, n_models = self.view.method, len(self.kl)
        recipe = provenance(self.scores, self.texts.astype(np.float64), method)
        recipe |= {**self.noise, "n_models": n_models, "weighted": False, "method": method}
        recipe["estimator"] = self.estimator.replace("_", " ")
        recipe["perplexity"] = default_perplexity(n_models) if method == "tsne" else None
        recipe["seed"] = SEED if method in ("tsne", "umap") else None
        recipe["explained"] = None if self.explained is None else tuple(self.explained.tolist())
        if self.estimator != TEXT_LEVEL:
            recipe["clipped_below"] = None  # totals may be, token records are not
        return recipe


class Explorer:
    """A score set ready to be looked at from all sides.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts.
    texts : sequence of N str, optional
        The texts themselves, for searching.
    segments : Segments, optional
        Token records of the same models and texts, for the recommended estimator.
    clip : float
        Quantile at which the scores were clipped, for views to be compared with.

    Raises
    ------
    InputError
        If texts or segments are not those of the scores.

    Examples
    --------
    >>> L = np.array([[-1.0, -3.0, -2.0], [-2.0, -2.0, -2.0], [-2.0, -1.0, -4.0]])
    >>> texts = pd.DataFrame({"source": ["code", "code", "prose"]}, index=["t1", "t2", "t3"])
    >>> explorer = Explorer(LogLikelihoods(L, pd.DataFrame(index=["a", "b", "c"]), texts))
    >>> explorer.sources
    {'code': 2, 'prose': 1}
    >>> frame = explorer.frame(View(sources=["code"]))
    >>> frame
    Frame: 3 models, 2 texts, text level KL
    >>> frame.kl
    array([[0.   , 0.5  , 1.125],
           [0.5  , 0.   , 0.125],
           [1.125, 0.125, 0.   ]])
    """

    def __init__(
        self,
        scores: LogLikelihoods,
        *,
        texts: Sequence[str] | None = None,
        segments: Segments | None = None,
        clip: float = 0.0,
    ) -> None:
        self.scores, self.clip = scores, clip
        self.choices = Choices(scores, texts)
        self.distances = Distances(scores, self.choices.source_of_text, segments)
        self._threads = ThreadpoolController()
        in_use = [pool["num_threads"] for pool in self._threads.select(user_api="blas").info()]
        self._n_threads = max(1, min([(os.cpu_count() or 1) // 2, *in_use]))  # the others draw what is seen

    @property
    def sources(self) -> dict[str, int]:
        """Each domain of the texts, and how many texts are from it."""
        return self.choices.sources

    @property
    def attributes(self) -> tuple[str, ...]:
        """Columns of the models' table that tell models apart, other than their names."""
        table = self.scores.models.drop(columns="model")
        return tuple(str(name) for name in table if table[name].nunique() > 1)

    @property
    def estimators(self) -> tuple[str, ...]:
        """Estimators that follow a choice of texts here."""
        return self.distances.estimators

    @property
    def recommended(self) -> str:
        """The estimator used where a view names none."""
        return self.distances.recommended

    def models_of(self, view: View) -> Array:
        """Find the models of a view, (K,) bool: `lmmap.explorer.choices.Choices.models_of`."""
        return self.choices.models_of(view)

    def texts_of(self, view: View) -> Array:
        """Find the texts of a view, (N,) bool: `lmmap.explorer.choices.Choices.texts_of`."""
        return self.choices.texts_of(view)

    def frame(self, view: View, previous: Frame | None = None, *, settle: bool = True) -> Frame:
        """Draw a view.

        Parameters
        ----------
        view : View
            What to look at.
        previous : Frame, optional
            What was seen last: axes are sooner found from there.
        settle : bool
            Positions to the last digits; else nearly, while a hand moves.

        Returns
        -------
        Frame
            The same view gives the same frame, to rounding.

        Raises
        ------
        InputError
            If nothing can be drawn: as `models_of` and `texts_of`; if there are too few models or texts, all
            models are alike, or the estimator does not follow these texts.
        """
        with self._threads.limit(limits=self._n_threads, user_api="blas"):
            return self._frame(view, previous, settle)

    def _frame(self, view: View, previous: Frame | None, settle: bool) -> Frame:
        if view.clip != self.clip:
            raise InputError(
                f"the view is of scores clipped at {view.clip:g}, these are clipped at {self.clip:g}: open "
                "the score set with the view's own clip"
            )
        shown, texts = self.models_of(view), self.texts_of(view)
        n_models = int(np.count_nonzero(shown))
        check_request(view.method, n_models, None, kl_given=False)
        kl, estimator, note = self.distances.on_texts(texts, view.estimator)
        if n_models < len(shown):
            kl = kl[np.ix_(shown, shown)]
        noise: dict[str, Any] = {}
        divergence = kl
        if estimator == TEXT_LEVEL:
            divergence, noise = without_noise(kl, self.scores.models[shown])
        if not divergence.any():
            raise InputError(
                f"all {n_models} models are alike on these texts (every KL is 0): nothing to draw"
            )
        begin = self._orientation.start(shown)
        if previous is not None and np.array_equal(previous.shown, shown):
            begin = previous.basis
        axes = leading_axes(kl if view.method == "pca" else divergence, begin, settle=settle)
        coordinates, explained = laid_out(view.method, divergence, axes)
        turned = self._orientation.turned(coordinates, shown)
        return Frame(
            view, self.scores, shown, texts, estimator, divergence, turned, explained, noise, note, axes.basis
        )

    @cached_property
    def _orientation(self) -> Orientation:
        everything = np.ones(len(self.scores.texts), dtype=bool)
        return Orientation(self.distances.on_texts(everything, TEXT_LEVEL).kl)
