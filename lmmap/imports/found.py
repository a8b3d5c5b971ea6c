"""What was found in a file: log-likelihoods by model name, and what the file says of models and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.imports.foreign_files import MOST_VALUES
from lmmap.texts import TextSet, valid_text

MOST_MODELS = 100_000
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
        If there is no row, names repeat or are empty, rows differ in length, a value is no number, not
        finite, or above 0 (model, text and value are named), or there are more than `MOST_MODELS` or
        `MOST_VALUES`.

    Examples
    --------
    >>> log_likelihoods(["a"], [[-1, -2.5]], "scores.pkl")
    array([[-1. , -2.5]])
    """
    if not len(models):
        raise InputError(f"{where}: no model at all")
    if len(models) > MOST_MODELS:
        raise InputError(f"{where}: {len(models):,} models, more than the {MOST_MODELS:,} that are read")
    _check_names(models, where)
    first = number_vector(rows[0], f"{where}, model {models[0]!r}")
    if len(models) * len(first) > MOST_VALUES:
        raise InputError(
            f"{where}: {len(models):,} models x {len(first):,} values, more than the {MOST_VALUES:,} values "
            "that are read; split the file by models"
        )
    values = np.empty((len(models), len(first)))
    for i, (name, row) in enumerate(zip(models, rows, strict=True)):
        vector = number_vector(row, f"{where}, model {name!r}")
        if len(vector) != len(first):
            raise InputError(
                f"{where}: model {name!r} has {len(vector):,} values, {models[0]!r} has {len(first):,}; "
                "every model must have one for each text"
            )
        values[i] = vector
    wrong = ~np.isfinite(values) | (values > ABOVE_ZERO)
    if wrong.any():
        i, x = np.argwhere(wrong)[0]
        text = f"text {x + 1}" if texts is None or len(texts) <= x else f"text {texts[x]!r}"
        what = "is above 0" if values[i, x] > 0 else "is not finite"
        raise InputError(
            f"{where}: model {models[i]!r} has {values[i, x]} for {text}, which {what}; log-likelihoods in "
            "nats are finite and not above 0"
        )
    return np.minimum(values, 0.0, out=values)


def _check_names(models: Sequence[object], where: str) -> None:
    seen: set[str] = set()
    for i, name in enumerate(models, start=1):
        if not valid_text(name, f"{where}, name of model {i}").strip():
            raise InputError(f"{where}: model {i} has no name")
        if name in seen:
            raise InputError(f"{where}: model {name!r} is given more than once; remove one of its rows")
        seen.add(str(name))


def number_vector(row: Any, where: str) -> np.ndarray:  # noqa: ANN401 - whatever the file holds
    """Give a list or array of numbers as an array; refuse everything else."""
    wanted = f"{where}: expected a list of numbers, one for each text, got"
    if isinstance(row, list | tuple):  # numpy would follow lists within lists however deep
        strange = sorted({kind.__name__ for kind in set(map(type, row)) - {int, float}})
        if strange:
            raise InputError(f"{wanted} {', '.join(strange)}")
        try:
            row = np.array(row, dtype=np.float64)
        except OverflowError:
            raise InputError(f"{wanted} one larger than any float") from None
    if not isinstance(row, np.ndarray):
        raise InputError(f"{wanted} a {type(row).__name__}")
    if row.dtype.kind not in "iuf" or row.ndim != 1 or not row.size:
        raise InputError(f"{wanted} {row.dtype} of shape {row.shape}")
    return row
