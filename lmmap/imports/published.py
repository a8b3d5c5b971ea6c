"""The published pickles, recognised by what they hold: scores, weights of texts, and tables of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from lmmap.errors import InputError, closest
from lmmap.imports.foreign_files import shown
from lmmap.imports.found import MOST_MODELS, Found, log_likelihoods, number_vector
from lmmap.imports.model_tables import attributes_of, model_name
from lmmap.imports.pickles import read_pickle

LAYOUTS = (
    "model -> values; a list of models, each a dict with its name and values; model -> step, layer or kind "
    "-> values"
)


def read_published(path: str | Path) -> Found:
    """Read scores from a pickle in one of the published layouts.

    Parameters
    ----------
    path : str or Path
        ``{name: values}``; ``[{"model_name": name, "log-likelihood-10k": values, ...}]`` with any key that
        holds "log-likelihood"; or ``{name: {step or layer: values}}``. A model whose values
        are None is left out.

    Returns
    -------
    Found
        Nats, as they stand in the file; models of the third layout are called ``name@step`` and have the
        attributes ``series`` and ``position``.

    Raises
    ------
    InputError
        If the file is no such pickle: what it holds is named.
    """
    content = read_pickle(path)
    where = str(path)
    if _are_dicts(content):
        if is_weights(content):
            raise InputError(f"{where}: these are weights of texts, not scores; read them with read_weights")
        return _from_series(content, where)
    if isinstance(content, dict):
        return _from_rows("model -> values", _by_text(content, where), {}, where)
    if isinstance(content, list) and content and all(isinstance(entry, dict) for entry in content):
        return _from_entries(content, where)
    raise InputError(f"{where}: no scores in a known layout, but {_told(content)}; known are {LAYOUTS}")


def read_weights(path: str | Path, n: int, n_texts: int, *, seed: object = None) -> np.ndarray:
    """Read weights of texts as the published selections give them.

    Parameters
    ----------
    path : str or Path
        Pickle of ``seed -> n -> {"unique_index": ..., "weights": ...}``.
    n : int
        Which size of selection.
    n_texts : int
        N, the number of all texts.
    seed : object, optional
        Which selection; the first by default.

    Returns
    -------
    (N,) float array
        For `lmmap.geometry.estimate_kl` and others; zero for texts that were not selected.

    Raises
    ------
    InputError
        If the file is no such pickle, has no such seed or size, or names texts that are not there.
    """
    content = read_pickle(path)
    if not is_weights(content):
        raise InputError(f"{path}: expected seed -> n -> unique_index and weights, found {_told(content)}")
    of_seed = content[_chosen(content, next(iter(content)) if seed is None else seed, f"{path}: no seed")]
    chosen = of_seed[_chosen(of_seed, n, f"{path}: no selection of size")]
    index = number_vector(chosen["unique_index"], f"{path}, unique_index")
    given = number_vector(chosen["weights"], f"{path}, weights")
    if index.dtype.kind not in "iu" and not np.array_equal(index, index.round()):
        raise InputError(f"{path}: unique_index holds {index.dtype}; expected whole numbers")
    if len(index) != len(given):
        raise InputError(f"{path}: {len(index)} texts are selected, with {len(given)} weights")
    outside = index[(index < 0) | (index >= n_texts)]
    if outside.size:
        raise InputError(f"{path}: text {outside[0]:g} is selected; there are {n_texts} texts, from 0 on")
    index = index.astype(np.int64)
    if len(np.unique(index)) < len(index):
        raise InputError(f"{path}: a text is selected twice; its weight should say so")
    weights = np.zeros(n_texts)
    weights[index] = given
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InputError(f"{path}: weights must be finite, not negative and not all 0")
    return weights


def is_weights(content: object) -> bool:
    """Tell selections of texts from scores: seed -> n -> unique_index and weights, all of them."""
    return _are_dicts(content) and all(
        _are_dicts(of_seed) and all({"unique_index", "weights"} <= set(chosen) for chosen in of_seed.values())
        for of_seed in content.values()
    )


def _are_dicts(content: object) -> TypeGuard[dict[Any, dict[Any, Any]]]:
    return isinstance(content, dict) and bool(content) and all(isinstance(v, dict) for v in content.values())


def _chosen(options: Mapping[Any, Any], wanted: object, what: str) -> Any:  # noqa: ANN401
    """Find a key whether it is a number or its text."""
    for key in options:
        if str(key) == str(wanted):
            return key
    raise InputError(
        f"{what} {wanted!r}{closest(str(wanted), map(str, options))}; there are {shown(options)}"
    )


def _by_text(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Give a dict names for keys; numbers become texts."""
    found = {}
    for key, value in content.items():
        if not isinstance(key, str | int | float):
            raise InputError(f"{where}: expected names as keys, found {key!r:.80}")
        if str(key) in found:
            raise InputError(f"{where}: two entries are called {str(key)!r}")
        found[str(key)] = value
    return found


def _from_series(content: Mapping[Any, Mapping[Any, Any]], where: str) -> Found:
    rows, attributes = {}, {}
    for series, inner in _by_text(content, where).items():
        for position, (name, row) in zip(inner, _by_text(inner, f"{where}, {series!r}").items(), strict=True):
            model = f"{series}@{name}"
            if model in rows:
                raise InputError(f"{where}: two rows are called {model!r}")
            rows[model] = row
            attributes[model] = {"series": series, "position": position}
            if len(rows) > MOST_MODELS:
                raise InputError(f"{where}: more than the {MOST_MODELS:,} models that are read")
    return _from_rows("model -> position -> values", rows, attributes, where)


def _from_entries(content: Sequence[Mapping[str, Any]], where: str) -> Found:
    keys = [key for key, value in content[0].items() if "log-likelihood" in str(key) and _is_long(value)]
    if len(keys) != 1:
        raise InputError(
            f"{where}: expected one key with 'log-likelihood' that holds values, found {shown(content[0])}"
        )
    names = [model_name(entry, f"{where}, entry {i}") for i, entry in enumerate(content, start=1)]
    for name, entry in zip(names, content, strict=True):
        if keys[0] not in entry:
            raise InputError(f"{where}: model {name!r} has no {keys[0]!r}")
    rows = [entry[keys[0]] for entry in content]
    values = log_likelihoods(names, rows, where)
    return Found(f"list of models, {keys[0]}", tuple(names), values, attributes_of(content, where))


def _from_rows(
    form: str, rows: Mapping[str, Any], attributes: Mapping[str, Mapping[str, Any]], where: str
) -> Found:
    given = {name: row for name, row in rows.items() if row is not None}
    left_out = tuple(name for name in rows if name not in given)
    if not all(_is_long(row) for row in given.values()):
        name = next(name for name, row in given.items() if not _is_long(row))
        raise InputError(
            f"{where}: {name!r} holds {_told(rows[name])}, not the values of a model; known are {LAYOUTS}"
        )
    values = log_likelihoods(list(given), list(given.values()), where)
    return Found(form, tuple(given), values, {n: attributes.get(n, {}) for n in given}, left_out=left_out)


def _is_long(value: object) -> bool:
    return isinstance(value, np.ndarray | list | tuple)


def _told(content: object) -> str:
    """Say in a few words what something is."""
    if isinstance(content, dict):
        keys = ", ".join(repr(key)[:40] for key in list(content)[:3])
        return f"a dict of {len(content)} entries ({keys}{', ...' if len(content) > 3 else ''})"
    if isinstance(content, list | tuple):
        inner = f" of {type(content[0]).__name__}" if content else ""
        return f"a {type(content).__name__} of {len(content)} values{inner}"
    return f"a {type(content).__name__}"
