"""Distances: KL of all models on any texts of a score set, at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmmap.errors import InputError, closest
from lmmap.estimates import ESTIMATORS, RECOMMENDED, RECOMMENDED_ACROSS, SUMMED
from lmmap.loglik import LogLikelihoods
from lmmap.segments import Segments, segments_of_totals
from lmmap.text_groups import TextGroups, group_texts
from lmmap.text_sums import TextSums, estimators_of

Array = np.ndarray

TEXT_LEVEL = "text_level"
MANY = 200  # models: token records of more do not follow a hand
OF_TEXTS = 2**26  # numbers that may be kept of single texts (512 MiB)
OF_GROUPS = 2**27  # and of groups of texts
SUMMANDS = 2**29  # differences of pairs and pieces that may be summed before the first answer: some seconds


class Distance(NamedTuple):
    """KL on some texts.

    Parameters
    ----------
    kl : (K, K) float array
        Nats per text.
    estimator : str
        The estimator used.
    note : str
        What a reader must know of it, or nothing.
    """

    kl: Array
    estimator: str
    note: str


class Distances:
    """Sums over texts, made when they are first asked for.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts.
    source_of_text : (N,) int array
        Number of each text's domain.
    segments : Segments, optional
        Token records of the same models and texts.

    Raises
    ------
    InputError
        If the segments are of other models or texts.
    """

    def __init__(
        self, scores: LogLikelihoods, source_of_text: Array, segments: Segments | None = None
    ) -> None:
        n_models, n_texts = scores.values.shape
        rows = tuple(map(str, scores.models.index))
        if segments is not None and (segments.models != rows or len(segments.n_bytes) != n_texts):
            raise InputError(
                f"segments are of {len(segments.models)} models x {len(segments.n_bytes)} texts, scores of "
                f"{n_models} x {n_texts}, or not in this order: read both from one score set"
            )
        self._scores, self._segments, self._source = scores, segments, source_of_text
        self._made: dict[str, TextGroups] = {}
        self._known: tuple[Array, TextSums] | None = None

    @property
    def estimators(self) -> tuple[str, ...]:
        """Estimators that follow a hand here."""
        if self._segments is None or len(self._scores.models) > MANY:
            return (TEXT_LEVEL,)
        return estimators_of(self._segments)

    @property
    def recommended(self) -> str:
        """The one used where none is named."""
        if self.estimators == (TEXT_LEVEL,) or self._segments is None:
            return TEXT_LEVEL
        return RECOMMENDED if self._segments.unit == "token" else RECOMMENDED_ACROSS

    def on_texts(self, texts: Array, estimator: str = "") -> Distance:
        """Estimate KL on some texts.

        Parameters
        ----------
        texts : (N,) bool array
            The texts: at least two.
        estimator : str
            One of `estimators`; if empty, the recommended one where it can follow these texts, else text
            level.

        Returns
        -------
        Distance
            Of all models.

        Raises
        ------
        InputError
            If there are fewer than two texts, or the estimator cannot be had for them.
        """
        if np.count_nonzero(texts) < 2:
            raise InputError("one text is left: a distance needs at least two, choose more")
        name = estimator or self.recommended
        self._check(name)
        if self.follows(name, texts):
            return Distance(self._sums(name, texts).kl(), name, self._note(name))
        plain = name.replace("_", " ")
        if estimator:
            raise InputError(
                f"{plain} follows whole domains only with so many models and texts: choose texts by domain, "
                "or take text level"
            )
        sums = self._sums(TEXT_LEVEL, texts)
        return Distance(sums.kl(), TEXT_LEVEL, f"text-level KL, since {plain} follows whole domains only")

    def follows(self, estimator: str, texts: Array) -> bool:
        """Tell whether an estimator is at hand for these texts: single ones, or all of some domains."""
        if estimator == TEXT_LEVEL or self.keeps_texts:
            return True
        chosen = np.bincount(self._source, weights=texts)
        return bool(((chosen == 0) | (chosen == np.bincount(self._source))).all())

    def by_text(self, estimator: str, texts: Array, i: int, j: int) -> Array:
        """Tell what each text adds to the KL of a pair.

        Parameters
        ----------
        estimator : str
            One of `estimators` that single texts can be told apart by: any if `keeps_texts`, else text level.
        texts : (N,) bool array
            The texts.
        i, j : int
            Positions of the two models.

        Returns
        -------
        (N,) float array
            Nats per text of all texts; the sum is the pair's KL. 0 for texts that are not chosen.
        """
        if estimator != TEXT_LEVEL:
            return self.groups(estimator).contributions(i, j, texts)
        added = np.zeros(len(texts))
        difference = self._scores.values[i, texts] - self._scores.values[j, texts]
        added[texts] = (difference - difference.mean()) ** 2 / (2 * len(difference))
        return added

    def by_source(self, estimator: str, texts: Array, i: int, j: int) -> Array:
        """Tell what each domain's texts add to the KL of a pair.

        Parameters
        ----------
        estimator : str
            One of `estimators` that follows these texts.
        texts : (N,) bool array
            The texts.
        i, j : int
            Positions of the two models.

        Returns
        -------
        (D,) float array
            Nats per text of all texts; the sum is the pair's KL.
        """
        if estimator == TEXT_LEVEL or self.keeps_texts:
            return np.bincount(self._source, weights=self.by_text(estimator, texts, i, j))
        return self.groups(estimator).contributions(i, j, np.bincount(self._source, weights=texts) > 0)

    def groups(self, estimator: str) -> TextGroups:
        """Give the sums of an estimator.

        Parameters
        ----------
        estimator : str
            One of `estimators`.

        Returns
        -------
        TextGroups
            Of domains, or of single texts where there are few enough of models and texts.
        """
        if estimator not in self._made:
            self._made[estimator] = self._group(estimator)
        return self._made[estimator]

    def _group(self, estimator: str) -> TextGroups:
        n_models, n_texts = self._scores.values.shape
        if estimator == TEXT_LEVEL or self._segments is None:
            fits = n_models**2 * (self._source.max() + 1) <= OF_GROUPS
            group = self._source if fits else np.zeros(n_texts, dtype=int)
            return group_texts(estimator, segments_of_totals(self._scores.values, np.ones(n_texts)), group)
        segments, n_drawn = self._segments, int(SUMMANDS / n_models**2 * 2)
        if estimator in SUMMED and n_drawn < len(segments.text_of_segment):
            segments = segments.sample(n_drawn)
        return group_texts(estimator, segments, np.arange(n_texts) if self.keeps_texts else self._source)

    @property
    def keeps_texts(self) -> bool:
        """Whether sums from token records are kept for every single text."""
        n_models, n_texts = self._scores.values.shape
        return bool(n_models**2 * n_texts <= OF_TEXTS)

    def _sums(self, estimator: str, texts: Array) -> TextSums:
        groups = self.groups(estimator)
        if estimator != TEXT_LEVEL:
            return groups.of_texts(texts)
        sums = groups.of_texts(texts, self._known)
        self._known = texts, sums
        return sums

    def _note(self, estimator: str) -> str:
        if estimator == TEXT_LEVEL:
            return "text-level KL"
        share = self.groups(estimator).share
        return f"{share:.0%} of the {self._segments.unit}s drawn" if share < 1 and self._segments else ""

    def _check(self, estimator: str) -> None:
        if estimator in self.estimators:
            return
        if estimator not in ESTIMATORS:
            raise InputError(f"no estimator {estimator!r}{closest(estimator, self.estimators)}")
        if estimator in ("ensemble", "text_regressed", "text_per_byte"):
            why = "it is no sum over texts"
        elif self._segments is None:
            why = "it needs token records"
        elif len(self._scores.models) > MANY:
            why = f"with more than {MANY} models it takes too long"
        else:
            why = "it needs models of one tokenizer"
        raise InputError(
            f"{estimator} does not follow choices of texts, {why}: use {' or '.join(self.estimators)}"
        )
