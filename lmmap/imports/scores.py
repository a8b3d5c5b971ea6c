"""Importing: scores of a file, held against their texts, written as an ordinary score set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmmap.errors import InputError, closest
from lmmap.files import sha256_of_file
from lmmap.imports.exported import read_exported_parquet, read_npz
from lmmap.imports.foreign_files import existing_file, kind_of
from lmmap.imports.found import Found
from lmmap.imports.harness import is_harness_sample, read_harness_samples
from lmmap.imports.model_tables import Attributes, read_attributes
from lmmap.imports.published import read_published
from lmmap.imports.tables import read_csv
from lmmap.imports.text_lists import read_text_list
from lmmap.models import ModelSpec, check_names
from lmmap.store import MEASURED, NOISE, Row, Store
from lmmap.texts import TextSet

NOT_TAKEN = {*MEASURED, *NOISE, "row_id", "model"} - {"n_parameters"}
UNKNOWN = -1  # number of tokens of a text that was not cut here
READERS = {
    ".csv": read_csv,
    ".npz": read_npz,
    ".parquet": read_exported_parquet,
    ".jsonl": read_harness_samples,
}


@dataclass(frozen=True)
class ImportedSpec(ModelSpec):
    """A model whose scores were made elsewhere: the file's hash is its recipe, so it is no row scored here.

    Parameters
    ----------
    origin : str
        SHA-256 of the file.
    """

    origin: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.source)

    @property
    def is_local(self) -> bool:
        """False: there are no files."""
        return False

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What tells this row from others."""
        return {"source": self.source, "imported": self.origin}


def import_scores(
    file: str | Path,
    *,
    texts: str | Path | TextSet | None = None,
    models: str | Path | Sequence[str | Path] | None = None,
    out: str | Path,
) -> Store:
    """Write the scores of a file as a score set; nothing in the file is run.

    Parameters
    ----------
    file : str or Path
        Published pickle (`read_published`), ``.csv``, ``.npz``, exported ``.parquet``, or samples that
        lm-evaluation-harness logged: recognised by what is in it.
    texts : str, Path or TextSet, optional
        The texts that were scored, in their order: a text set, or a list as JSON. Needed unless the file
        holds them.
    models : str, Path, or several, optional
        Tables of attributes (`read_attributes`), joined by name; the first that has a value gives it.
    out : str or Path
        The score set's folder. If it is there, rows are added to it; an import that was interrupted goes on.

    Returns
    -------
    Store
        Prefix policy ``reference``, no token records; each row's provenance names the file, with its SHA-256.

    Raises
    ------
    InputError
        If the file is in no known layout, its values cannot be log-likelihoods, texts are missing or are not
        those of the scores, or a table knows none of the models.
    """
    path = Path(file).expanduser()
    found = read_scores(path)
    text_set = _texts(found, texts, path)
    values = _in_order(found, text_set, path)
    attributes = _joined(found, models)
    origin = {"file": path.name, "sha256": _hash(path), "form": found.form}
    specs = [
        ImportedSpec(name, name, attributes=_kept(attributes[name], path.name), origin=origin["sha256"])
        for name in found.models
    ]
    check_names(specs, str(path))
    store = Store.create(out, text_set, prefix="reference")
    store.request(specs)
    for spec, row in zip(specs, _rows(values, specs, origin, attributes), strict=True):
        if not store.is_done(spec.row_id):
            done = {"seconds": 0.0, "imported": datetime.now(UTC).isoformat(timespec="seconds")}
            store.write_row(spec.row_id, row, done)
    return store


def read_scores(path: str | Path) -> Found:
    """Read scores from a file of any layout that is known here.

    Parameters
    ----------
    path : str or Path
        The file, or a folder of logged samples.

    Returns
    -------
    Found
        Scores, in nats, and what else the file holds.

    Raises
    ------
    InputError
        If the layout is not known or the values cannot be log-likelihoods.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return read_harness_samples(path)
    kind = kind_of(existing_file(path))
    if kind == ".jsonl" and not is_harness_sample(path):
        raise InputError(f"{path}: no logged samples with `resps`; is this the file of texts?")
    return READERS.get(kind, read_published)(path)


def _texts(found: Found, texts: str | Path | TextSet | None, path: Path) -> TextSet:
    if texts is None:
        if found.texts is None:
            raise InputError(
                f"{path} holds scores without their texts; give the file of the {found.values.shape[1]:,} "
                "texts"
            )
        return found.texts
    given = texts if isinstance(texts, TextSet) else read_text_list(texts)
    if found.texts is not None and found.texts.fingerprint != given.fingerprint:
        _check_count(found, given, path)
        pairs = zip(found.texts.texts, given.texts, strict=True)
        first = next(i for i, (a, b) in enumerate(pairs, start=1) if a != b)
        raise InputError(f"{path} was scored on other texts than {given.name!r}: text {first} differs")
    return given


def _in_order(found: Found, texts: TextSet, path: Path) -> np.ndarray:
    """Bring the values into the texts' order; refuse texts that are not those of the scores."""
    _check_count(found, texts, path)
    if found.fingerprint is not None and found.fingerprint != texts.fingerprint:
        raise InputError(
            f"{path} was scored on texts of fingerprint {found.fingerprint[:12]}, {texts.name!r} has "
            f"{texts.fingerprint[:12]}: these are other texts"
        )
    ids = found.text_ids
    if ids is None or _are_numbers(ids):
        return found.values
    place = {text: x for x, text in enumerate(ids)}
    missing = [text for text in texts.frame.index if text not in place]
    if missing:
        raise InputError(
            f"{path} has no scores for text {missing[0]!r} of {texts.name!r}{closest(missing[0], ids)} and "
            f"{len(missing) - 1} more; is this the file of texts that were scored?"
        )
    return found.values[:, [place[text] for text in texts.frame.index]]


def _check_count(found: Found, texts: TextSet, path: Path) -> None:
    n = found.values.shape[1]
    if n != len(texts):
        raise InputError(f"{path} has {n:,} values for each model, {texts.name!r} has {len(texts):,} texts")


def _are_numbers(ids: Sequence[str]) -> bool:
    """Whether columns are only counted, from 0 or 1."""
    return any(list(ids) == [str(x) for x in range(start, start + len(ids))] for start in (0, 1))


def _joined(found: Found, models: str | Path | Sequence[str | Path] | None) -> Attributes:
    """Put the tables' attributes together; a model that a table does not know has none from it."""
    joined: Attributes = {name: dict(found.attributes.get(name, {})) for name in found.models}
    tables = [] if models is None else [models] if isinstance(models, str | Path) else list(models)
    for file in tables:
        table = read_attributes(file)
        known = [name for name in found.models if name in table]
        if not known:
            raise InputError(
                f"{file} knows none of the {len(found.models)} models, such as {found.models[0]!r}"
                f"{closest(found.models[0], table)}"
            )
        columns = dict.fromkeys(key for entry in table.values() for key in entry)
        for name in found.models:
            for key in columns:
                if joined[name].get(key) is None:
                    joined[name][key] = table.get(name, {}).get(key)
    return joined


def _kept(attributes: Mapping[str, Any], file: str) -> dict[str, Any]:
    kept = {key: value for key, value in attributes.items() if key not in NOT_TAKEN}
    return {**kept, "imported_from": file}


def _rows(
    values: np.ndarray, specs: Sequence[ModelSpec], origin: Mapping[str, str], attributes: Attributes
) -> Iterator[Row]:
    n = values.shape[1]
    unknown = np.full(n, UNKNOWN)
    nothing = [np.zeros(0, np.int32)] * n
    for spec, row in zip(specs, values, strict=True):
        known = attributes[spec.name]  # of an export, how the row was scored
        made: dict[str, Any] = {
            "imported": dict(origin),
            "tokenization": "not-known",
            "prefix": str(known.get("prefix") or "reference"),
            "dtype": str(known.get("dtype") or "not known"),
            "n_parameters": spec.attributes.get("n_parameters"),
            "n_tokens": None,
            "flags": [],
        }
        yield Row(row, unknown, unknown, None, nothing, nothing, made)


def _hash(path: Path) -> str:
    """Hash a file, or a folder's samples by their hashes."""
    import hashlib

    if path.is_file():
        return sha256_of_file(path)
    parts = [f"{f.relative_to(path)}:{sha256_of_file(f)}" for f in sorted(path.rglob("samples_*.jsonl"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
