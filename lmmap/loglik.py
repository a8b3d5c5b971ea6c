"""LogLikelihoods: K models x N texts, in nats, with a table for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmmap.errors import InputError, closest
from lmmap.geometry import clip_below

if TYPE_CHECKING:
    import xarray

TELLS_TEXTS_APART = ("n_bytes", "sha256")  # columns that texts of one id must agree on
Labels = Sequence[str] | np.ndarray | pd.Series | pd.Index


@dataclass(frozen=True, eq=False, repr=False)
class LogLikelihoods:
    """A log-likelihood matrix with its two aligned tables.

    Entry (i, x) is ``sum over t of log p_i(y_t | y_<t)``, natural logarithm, over all tokens of text x
    (the matrix L of Oyama et al. 2025, arXiv:2502.16173).

    Parameters
    ----------
    values : (K, N) float array
        Nats. Copied, made read-only.
    models : DataFrame
        K rows; index ``row_id``; column ``model`` (the shown name) and any attributes.
    texts : DataFrame
        N rows; index ``text_id``; columns such as ``source`` and ``n_bytes``.
    history : tuple of str
        What was done to the values since they were measured.

    Raises
    ------
    InputError
        If shapes disagree, there is no model or no text, a value is not finite, or ids repeat.

    Examples
    --------
    >>> models = pd.DataFrame({"model": ["a", "b"]}, index=["a-1", "b-2"])
    >>> texts = pd.DataFrame({"source": ["x", "y"], "n_bytes": [3, 4]}, index=["t1", "t2"])
    >>> scores = LogLikelihoods(np.array([[-1.0, -3.0], [-2.0, -2.0]]), models, texts)
    >>> scores.select(models=["b"]).values
    array([[-2., -2.]])
    """

    values: np.ndarray
    models: pd.DataFrame
    texts: pd.DataFrame
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        expected = (len(self.models), len(self.texts))
        if values.shape != expected:
            raise InputError(f"values have shape {values.shape}, the tables {expected} (models, texts)")
        if 0 in expected:
            raise InputError(f"no values at all: {expected[0]} models x {expected[1]} texts")
        for axis, index in (("model", self.models.index), ("text", self.texts.index)):
            if index.has_duplicates:
                raise InputError(f"{axis} id {index[index.duplicated()][0]!r} is given more than once")
        if not np.isfinite(values).all():
            i, x = np.argwhere(~np.isfinite(values))[0]
            raise InputError(
                f"model {self.models.index[i]!r} has log-likelihood {values[i, x]} for text "
                f"{self.texts.index[x]!r}; every value must be finite"
            )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        models = self.models if "model" in self.models else self.models.assign(model=self.models.index)
        object.__setattr__(self, "models", models.copy())
        object.__setattr__(self, "texts", self.texts.copy())

    def __repr__(self) -> str:
        k, n = self.values.shape
        history = "".join(f"\n  {step}" for step in self.history)
        return (
            f"LogLikelihoods: {k} models x {n} texts, nats{history}\n"
            f"  models: {', '.join(map(str, self.models.columns))}\n"
            f"  texts: {', '.join(map(str, self.texts.columns))}"
        )

    def select(
        self, *, models: Labels | str | None = None, texts: Labels | str | None = None
    ) -> LogLikelihoods:
        """Keep some models or texts, in the order asked for.

        Parameters
        ----------
        models : sequence of str, or (K,) bool array, optional
            Row ids or model names, or a mask.
        texts : sequence of str, or (N,) bool array, optional
            Text ids, or a mask.

        Returns
        -------
        LogLikelihoods
            A new object; the history says what was kept.

        Raises
        ------
        InputError
            If an id is unknown (the nearest valid one is named) or a mask has another length.
        """
        i = _positions(models, self.models, "model", alias="model")
        x = _positions(texts, self.texts, "text")
        kept = []
        if models is not None:
            kept.append(f"{len(i)} of {len(self.models)} models")
        if texts is not None:
            kept.append(f"{len(x)} of {len(self.texts)} texts")
        history = (*self.history, f"select({', '.join(kept)})") if kept else self.history
        values = self.values[np.ix_(i, x)]
        return LogLikelihoods(values, self.models.iloc[i], self.texts.iloc[x], history)

    def clip_below(self, *, quantile: float | None = None, threshold: float | None = None) -> LogLikelihoods:
        """Raise the lowest values to a threshold that the history keeps.

        Parameters
        ----------
        quantile : float, optional
            Share of all entries that is raised, 0.02 for the published maps.
        threshold : float, optional
            The threshold itself, in nats: use the one of an earlier map to add models to it.

        Returns
        -------
        LogLikelihoods
            A new object.

        Raises
        ------
        InputError
            Unless exactly one of the two is given, and lies within bounds.
        """
        values, limit = clip_below(self.values, quantile=quantile, threshold=threshold)
        return replace(self, values=values, history=(*self.history, f"clip_below({limit!r})"))

    def to_xarray(self) -> xarray.DataArray:
        """Give the matrix as a labelled array (the extra ``lmmap[xarray]``).

        Returns
        -------
        xarray.DataArray
            Dimensions ``model`` and ``text``, the tables' columns as coordinates, ``units`` nats. A column of
            both tables, such as ``source``, is called ``text_source`` for the texts.

        Raises
        ------
        InputError
            If xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise InputError("to_xarray needs `xarray`: pip install 'lmmap[xarray]'") from None

        by_model = self.models.drop(columns="model").rename_axis("row_id").reset_index()
        by_text = self.texts.rename_axis("text_id").reset_index()
        coordinates = {str(c): ("model", by_model[c].to_numpy()) for c in by_model}
        for c in by_text:
            coordinates[f"text_{c}" if c in coordinates else str(c)] = ("text", by_text[c].to_numpy())
        return xarray.DataArray(
            self.values,
            dims=("model", "text"),
            coords={"model": self.models["model"].to_numpy(), **coordinates},
            name="log_likelihood",
            attrs={"units": "nats", "history": list(self.history)},
        )


def join_models(*sets: LogLikelihoods) -> LogLikelihoods:
    """Put the models of several score sets on one matrix, by label.

    Parameters
    ----------
    *sets : LogLikelihoods
        Sets over the same texts, in any order.

    Returns
    -------
    LogLikelihoods
        All models; texts in the order of the first set.

    Raises
    ------
    InputError
        If there is no set, or the texts, the scoring policies or the histories differ: both values are named.

    Examples
    --------
    >>> texts = pd.DataFrame({"n_bytes": [3, 4]}, index=["t1", "t2"])
    >>> one = LogLikelihoods([[-1.0, -3.0]], pd.DataFrame(index=["a"]), texts)
    >>> two = LogLikelihoods([[-5.0, -4.0]], pd.DataFrame(index=["b"]), texts[::-1])
    >>> join_models(one, two).values
    array([[-1., -3.],
           [-4., -5.]])
    """
    if not sets:
        raise InputError("no score sets to join; give at least one")
    first, *others = sets
    for other in others:
        _check_joinable(first, other)
    order = [first.texts.index, *(other.texts.index for other in others)]
    values = [s.values[:, index.get_indexer(order[0])] for s, index in zip(sets, order, strict=True)]
    return LogLikelihoods(
        np.concatenate(values), pd.concat([s.models for s in sets]), first.texts, _clips(first.history)
    )


def _clips(history: tuple[str, ...]) -> tuple[str, ...]:
    """Keep the steps that changed values; which models and texts were chosen does not stop a join."""
    return tuple(step for step in history if not step.startswith("select("))


def _check_joinable(first: LogLikelihoods, other: LogLikelihoods) -> None:
    missing = first.texts.index.symmetric_difference(other.texts.index)
    if len(missing):
        raise InputError(
            f"the sets are over other texts: {len(first.texts)} and {len(other.texts)}, {len(missing)} of "
            f"them in one only, such as {missing[0]!r}; select the common ones first"
        )
    for column in (c for c in TELLS_TEXTS_APART if c in first.texts and c in other.texts):
        theirs = other.texts[column].reindex(first.texts.index)
        differing = first.texts.index[(first.texts[column] != theirs).to_numpy()]
        if len(differing):
            raise InputError(
                f"text {differing[0]!r} has {column} {first.texts[column][differing[0]]} in one set and "
                f"{theirs[differing[0]]} in the other: the sets give one id to different texts"
            )
    policies = [set(s.models["policy"]) if "policy" in s.models else set() for s in (first, other)]
    if policies[0] != policies[1]:
        raise InputError(
            f"the sets were scored by other policies: {sorted(policies[0])} and {sorted(policies[1])}"
        )
    if _clips(first.history) != _clips(other.history):
        raise InputError(
            f"the sets were changed differently: {_clips(first.history)} and {_clips(other.history)}; "
            "join first, then clip"
        )


def _positions(
    wanted: Labels | str | None, table: pd.DataFrame, noun: str, alias: str | None = None
) -> np.ndarray:
    if wanted is None:
        return np.arange(len(table))
    keys = np.asarray([wanted] if isinstance(wanted, str) else wanted)
    if keys.dtype == bool:
        if keys.shape != (len(table),):
            raise InputError(f"the mask has shape {keys.shape}, there are {len(table)} {noun}s")
        return np.flatnonzero(keys)
    place = {str(label): i for i, label in enumerate(table.index)}
    if alias is not None:
        names = [str(name) for name in table[alias]]
        for key in map(str, keys):
            if key not in place and names.count(key) > 1:
                ids = ", ".join(row for row, name in zip(place, names, strict=True) if name == key)
                raise InputError(f"{names.count(key)} models are called {key!r}; use their row ids: {ids}")
        place = {name: i for i, name in enumerate(names)} | place
    unknown = [str(key) for key in keys if str(key) not in place]
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(keys)} {noun} ids {'is' if len(unknown) == 1 else 'are'} not among the "
            f"{len(table)} here: {unknown[0]!r}{closest(unknown[0], place)}"
        )
    return np.array([place[str(key)] for key in keys], dtype=np.intp)
