"""Choices: which models and texts of a score set a view means."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from lmmap.errors import InputError, closest
from lmmap.explorer.views import View
from lmmap.loglik import LogLikelihoods

Array = np.ndarray

HEIGHT = "height"  # what colours by mean log-likelihood


class Choices:
    """The models and texts to choose from.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts.
    texts : sequence of N str, optional
        The texts themselves, for searching.

    Raises
    ------
    InputError
        If there is not one text for each column of the scores.

    Examples
    --------
    >>> models, texts = pd.DataFrame(index=["a", "b"]), pd.DataFrame({"source": ["x", "y"]}, index=["t", "u"])
    >>> choices = Choices(LogLikelihoods(np.zeros((2, 2)), models, texts))
    >>> choices.models_of(View(models=["b"])).tolist(), choices.texts_of(View(sources=["x"])).tolist()
    ([False, True], [True, False])
    """

    def __init__(self, scores: LogLikelihoods, texts: Sequence[str] | None = None) -> None:
        if texts is not None and len(texts) != len(scores.texts):
            raise InputError(f"{len(texts)} texts were given for scores of {len(scores.texts)} texts")
        self.scores, self.texts = scores, texts
        # Ids are looked up by `select`, on one column and one row: the whole matrix would be copied.
        n_models, n_texts = scores.values.shape
        self._rows = LogLikelihoods(np.zeros((n_models, 1)), scores.models, scores.texts.iloc[:1])
        self._columns = LogLikelihoods(np.zeros((1, n_texts)), scores.models.iloc[:1], scores.texts)
        source = scores.texts["source"].astype(str) if "source" in scores.texts else [""] * n_texts
        self.source_of_text, names = pd.factorize(np.asarray(source, dtype=object))
        self.source_names = tuple(names)

    @property
    def sources(self) -> dict[str, int]:
        """Each domain of the texts, in their order, and how many texts are from it."""
        if "source" not in self.scores.texts:
            return {}
        counts = np.bincount(self.source_of_text).tolist()
        return dict(zip(self.source_names, counts, strict=True))

    def ticked(self, sources: Sequence[str]) -> tuple[str, ...]:
        """Give ``sources`` of a view for the domains that are ticked.

        Parameters
        ----------
        sources : sequence of str
            Those that are.

        Returns
        -------
        tuple of str
            Empty if all are: a view leaves none out then.

        Raises
        ------
        InputError
            If none is.
        """
        if not sources:
            raise InputError("no domain is ticked: tick at least one")
        return () if set(self.sources) <= set(sources) else tuple(sources)

    def models_of(self, view: View) -> Array:
        """Find the models of a view.

        Parameters
        ----------
        view : View
            Of it ``models``; ``selected`` and ``color`` are checked too.

        Returns
        -------
        (K,) bool array
            Which models are shown.

        Raises
        ------
        InputError
            If a model or the attribute is unknown: the closest one is named.
        """
        table = self.scores.models
        if view.color and view.color != HEIGHT and view.color not in table:
            raise InputError(
                f"the models have no attribute {view.color!r}{closest(view.color, map(str, table))}"
            )
        self._called(view.selected)
        return self._called(view.models) if view.models else np.ones(len(table), dtype=bool)

    def texts_of(self, view: View) -> Array:
        """Find the texts of a view.

        Parameters
        ----------
        view : View
            Of it ``texts``, ``sources``, ``min_bytes``, ``max_bytes``, ``contains``, ``share`` and ``seed``.

        Returns
        -------
        (N,) bool array
            Which texts are used: at least one.

        Raises
        ------
        InputError
            If a text or source is unknown (the closest one is named), no text is left, or the scores lack
            what is asked for: the texts' sources, lengths or words.
        """
        index = self.scores.texts.index
        chosen = np.ones(len(index), dtype=bool)
        if view.texts:
            chosen = index.isin(self._columns.select(texts=_once(view.texts)).texts.index)
        if view.sources:
            chosen = _both(chosen, self._from(view.sources), f"is from {' or '.join(view.sources)}")
        if view.min_bytes or view.max_bytes:
            limits = f"at least {view.min_bytes:,}" if view.min_bytes else ""
            limits += " and " if view.min_bytes and view.max_bytes else ""
            limits += f"at most {view.max_bytes:,}" if view.max_bytes else ""
            chosen = _both(chosen, self._as_long_as(view), f"has {limits} bytes")
        if view.contains:
            chosen = _both(chosen, self._containing(view.contains), f"contains {view.contains!r}")
        return self._drawn(chosen, view.share, view.seed)

    def rows_of(self, models: Sequence[str]) -> tuple[str, ...]:
        """Give the row ids of models that are called by row id or by name.

        Parameters
        ----------
        models : sequence of str
            Row ids or names.

        Returns
        -------
        tuple of str
            In the order of the table.

        Raises
        ------
        InputError
            If one is unknown: the closest is named.
        """
        return tuple(map(str, self.scores.models.index[self._called(models)]))

    def _called(self, models: Sequence[str]) -> Array:
        if not models:
            return np.zeros(len(self.scores.models), dtype=bool)
        return self.scores.models.index.isin(self._rows.select(models=_once(models)).models.index)

    def _from(self, sources: Sequence[str]) -> Array:
        if not self.sources:
            raise InputError(f"the texts have no column 'source': {sources[0]!r} cannot be picked out")
        for name in sources:
            if name not in self.source_names:
                known = ", ".join(self.source_names[:20])
                raise InputError(
                    f"no text is from {name!r}{closest(name, self.source_names)}; sources are {known}"
                )
        return np.isin(self.source_of_text, [self.source_names.index(name) for name in sources])

    def _as_long_as(self, view: View) -> Array:
        if "n_bytes" not in self.scores.texts:
            raise InputError("the texts have no column 'n_bytes': they cannot be picked by length")
        n_bytes = self.scores.texts["n_bytes"].to_numpy()
        return (n_bytes >= view.min_bytes) & (n_bytes <= (view.max_bytes or np.inf))

    def _containing(self, word: str) -> Array:
        if self._folded is None:
            raise InputError(f"{word!r} cannot be searched for: only the scores are here, not the texts")
        word = word.casefold()
        return np.array([word in text for text in self._folded])

    @cached_property
    def _folded(self) -> list[str] | None:
        return None if self.texts is None else [text.casefold() for text in self.texts]

    def _drawn(self, chosen: Array, share: float, seed: int) -> Array:
        """Draw a share of the texts: those that come first in an order of all texts."""
        if share == 1:
            return chosen
        place = np.random.default_rng(seed).permutation(len(chosen))
        left = np.flatnonzero(chosen)
        n = max(1, round(share * len(left)))
        drawn = np.zeros_like(chosen)
        drawn[left[np.argsort(place[left])[:n]]] = True
        return drawn


def _once(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def _both(chosen: Array, also: Array, what: str) -> Array:
    """Keep the texts that are both; say what left none."""
    both: Array = chosen & also
    if not both.any():
        n = np.count_nonzero(chosen)
        raise InputError(
            f"none of {n:,} texts {what}: choose others" if n > 1 else f"the one text left {what}"
        )
    return both
