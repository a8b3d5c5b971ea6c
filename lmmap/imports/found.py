"""What was found in a file: log-likelihoods by model name, and what the file says of models and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.texts import TextSet

ABOVE_ZERO = 1e-5  # nats by which rounding may lift a log-likelihood


@dataclass(frozen=True, eq=False)
class Found:
    """Scores of a file, not yet held against texts.

    Parameters
    ----------
    form : str
        Which layout was recognised.
    models : tuple of str
        K names.
    values : (K, N) float array
        Nats.
    attributes : mapping
        Name -> what the file says of the model.
    text_ids : tuple of str, optional
        N ids, if the file names the texts.
    fingerprint : str, optional
        Of the texts, if the file has it.
    texts : TextSet, optional
        The texts themselves, if the file holds them.
    left_out : tuple of str
        Models that the file names without scores.
    """

    form: str
    models: tuple[str, ...]
    values: np.ndarray
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    text_ids: tuple[str, ...] | None = None
    fingerprint: str | None = None
    texts: TextSet | None = None
    left_out: tuple[str, ...] = ()


def log_likelihoods(
    models: Sequence[str], rows: Sequence[Any], where: str, *, texts: Sequence[object] | None = None
) -> np.ndarray:
    """Put rows into a matrix; refuse what no log-likelihoods can be.

    Parameters
    ----------
    models : sequence of str
        K names.
    rows : sequence of arrays or lists
        N numbers each.
    where : str
        The file, for messages.
    texts : sequence, optional
        What to call the texts in messages; by default their numbers, from 1.

    Returns
    -------
    (K, N) float64 array
        Nats.

    Raises
    ------
    InputError
        If there is no row, names repeat, rows differ in length, or a value is no number, not finite, or above
        0: model, text and value are named.

    Examples
    --------
    >>> log_likelihoods(["a"], [[-1, -2.5]], "scores.pkl")
    array([[-1. , -2.5]])
    """
    if not len(models):
        raise InputError(f"{where}: no model at all")
    seen: set[str] = set()
    for name in models:
        if name in seen:
            raise InputError(f"{where}: model {name!r} is given more than once; remove one of its rows")
        seen.add(name)
    vectors = [_vector(row, f"{where}, model {name!r}") for name, row in zip(models, rows, strict=True)]
    for name, vector in zip(models, vectors, strict=True):
        if len(vector) != len(vectors[0]):
            raise InputError(
                f"{where}: model {name!r} has {len(vector):,} values, {models[0]!r} has {len(vectors[0]):,}; "
                "every model must have one for each text"
            )
    values = np.stack(vectors)
    wrong = ~np.isfinite(values) | (values > ABOVE_ZERO)
    if wrong.any():
        i, x = np.argwhere(wrong)[0]
        text = f"text {x + 1}" if texts is None else f"text {texts[x]!r}"
        what = "is above 0" if values[i, x] > 0 else "is not finite"
        raise InputError(
            f"{where}: model {models[i]!r} has {values[i, x]} for {text}, which {what}; log-likelihoods in "
            "nats are finite and not above 0"
        )
    capped: np.ndarray = np.minimum(values, 0.0)
    return capped


def _vector(row: Any, where: str) -> np.ndarray:  # noqa: ANN401 - whatever the file holds
    try:
        vector = np.asarray(row)
    except ValueError:
        raise InputError(f"{where}: expected a list of numbers, one for each text") from None
    if vector.dtype.kind not in "iuf" or vector.ndim != 1 or not vector.size:
        raise InputError(
            f"{where}: expected a list of numbers, one for each text, got {vector.dtype} of shape "
            f"{vector.shape}"
        )
    return vector.astype(np.float64)
