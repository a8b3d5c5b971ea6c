"""Export: the scores of a set as one file for other programs, and a card that says what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.files import whole_file
from lmmap.loglik import LogLikelihoods
from lmmap.store import MEASURED, NOISE, Store
from lmmap.tables import ragged, write_table
from lmmap.version import __version__

SUFFIXES = (".parquet", ".csv", ".npz", ".nc")
PAPER = (
    "Oyama, Yamagiwa, Takase and Shimodaira (2025), *Mapping 1,000+ Language Models via the Log-Likelihood "
    "Vector*, ACL 2025, arXiv:2502.16173"
)
MADE_HERE = "The scores were kept with lmmap"  # is in every card
MOST_SHOWN = 20  # lines of a table on the card


def export_scores(scores: LogLikelihoods | Store, path: str | Path) -> Path:
    """Write a log-likelihood matrix to one file, by its suffix.

    Parameters
    ----------
    scores : LogLikelihoods or Store
        K models x N texts, nats.
    path : str or Path
        ``.parquet``: a row for each model, its attributes as columns, ``log_likelihood`` a list of N values;
        the texts' ids in the footer. ``.csv``: a row for each model, a column for each text, and the
        attributes in a second file ``NAME-models.csv``. ``.npz``: arrays ``values``, ``models``, ``texts``,
        and ``attributes`` as JSON. ``.nc``: netCDF, with the models' and texts' columns as coordinates
        (``lmmap[xarray]``).

    Returns
    -------
    Path
        The file. `lmmap.imports.scores.import_scores` reads the first three, with the texts of the score set.

    Raises
    ------
    InputError
        If the suffix is another, two models have one name, xarray is not installed, or ``NAME-models.csv`` is
        there without ``NAME.csv``.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> models, texts = pd.DataFrame(index=["a", "b"]), pd.DataFrame(index=["t1", "t2"])
    >>> scores = LogLikelihoods(np.array([[-1.0, -3.0], [-2.0, -2.5]]), models, texts)
    >>> print(export_scores(scores, Path(mkdtemp()) / "scores.csv").read_text().strip())
    model,t1,t2
    a,-1.0,-3.0
    b,-2.0,-2.5
    """
    path = Path(path).expanduser()
    if path.suffix not in WRITERS:
        raise InputError(f"{path}: scores are exported as {', '.join(SUFFIXES)}, not {path.suffix!r}")
    fingerprint = None
    if isinstance(scores, Store):
        fingerprint, scores = scores.scoring["texts"], scores.load()
    names = scores.models["model"]
    if names.duplicated().any():
        raise InputError(f"two models are called {names[names.duplicated()].iloc[0]!r}; export one of them")
    WRITERS[path.suffix](scores, fingerprint, path)
    return path


def write_card(store: Store, path: str | Path) -> Path:
    """Write a README for a score set: what it is, how it was made, how to cite it.

    Parameters
    ----------
    store : Store
        The score set.
    path : str or Path
        The file, such as ``README.md`` beside the exported scores.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If no row of the set is finished, or the file is there and is no such card.
    """
    path = Path(path).expanduser()
    check_card(path)
    with whole_file(path) as temporary:
        temporary.write_text(_card(store), encoding="utf-8")
    return path


def check_card(path: Path) -> None:
    """Refuse to write over a file that is no card."""
    if path.exists() and MADE_HERE not in path.read_text(encoding="utf-8", errors="replace"):
        raise InputError(
            f"{path} is there, and is no card of a score set; move it, or export under another name"
        )


def _write_parquet(scores: LogLikelihoods, fingerprint: str | None, path: Path) -> None:
    columns: dict[str, Any] = {"model": scores.models["model"].astype(str).to_numpy()}
    columns |= {str(c): _single(scores.models[c]) for c in scores.models if c != "model"}
    columns |= {"row_id": scores.models.index.astype(str).to_numpy()}
    columns |= {"log_likelihood": ragged(list(scores.values))}
    footer = {"texts": scores.texts.index.astype(str).tolist(), "fingerprint": fingerprint}
    write_table(path, columns, footer={**footer, "history": list(scores.history), "units": "nats"})


def _write_csv(scores: LogLikelihoods, _: str | None, path: Path) -> None:
    attributes = path.with_name(f"{path.stem}-models.csv")
    if attributes.exists() and not path.exists():
        raise InputError(f"{attributes} is there without {path.name}; move it, or export under another name")
    table = pd.DataFrame(
        scores.values, index=pd.Index(scores.models["model"], name="model"), columns=scores.texts.index
    )
    with whole_file(path) as temporary:
        table.to_csv(temporary)
    with whole_file(attributes) as temporary:
        scores.models.set_index("model").to_csv(temporary)


def _write_npz(scores: LogLikelihoods, fingerprint: str | None, path: Path) -> None:
    table = scores.models.set_index("model").astype(object)
    attributes = table.where(table.notna(), None).to_dict(orient="index")
    arrays = {
        "values": scores.values,
        "models": scores.models["model"].to_numpy(dtype=str),
        "texts": scores.texts.index.to_numpy(dtype=str),
        "attributes": np.array(json.dumps(attributes, default=_plain)),
    }
    if fingerprint is not None:
        arrays["fingerprint"] = np.array(fingerprint)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file, allow_pickle=False, **arrays
        )  # uncompressed: log-likelihoods are noise to a compressor


def _write_netcdf(scores: LogLikelihoods, _: str | None, path: Path) -> None:
    array = scores.to_xarray()
    array.attrs["history"] = "\n".join(scores.history)
    for name, column in array.coords.items():
        if column.dtype.kind == "O":
            texts = ["" if pd.isna(value) else str(value) for value in column.values]
            array = array.assign_coords({name: (column.dims, np.array(texts))})
        elif column.dtype.kind in "iu":  # netCDF 3 has no whole numbers as large as those of parameters
            array = array.assign_coords({name: (column.dims, column.values.astype(np.float64))})
    with whole_file(path) as temporary:
        array.to_netcdf(temporary, engine="scipy")


WRITERS: dict[str, Callable[[LogLikelihoods, str | None, Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".nc": _write_netcdf,
}


def _single(column: pd.Series) -> list[Any]:
    """Give a column's values as Parquet takes them: one type, None where there is none."""
    values = [None if pd.isna(value) else _plain(value) for value in column]
    kinds = {type(value) for value in values if value is not None}
    return values if len(kinds) < 2 else [None if value is None else str(value) for value in values]


def _plain(value: Any) -> Any:  # noqa: ANN401
    return value.item() if isinstance(value, np.generic) else value


def _card(store: Store) -> str:
    scores = store.load()
    rows = [store.provenance(row) for row in scores.models.index]
    imported = {made["imported"]["file"]: made["imported"]["sha256"] for made in rows if "imported" in made}
    k, n = scores.values.shape
    name = store.path.resolve().name
    sections = [
        f"# {name}: {k} models x {n:,} texts",
        "Log-likelihood of each text under each model: the sum of the log-probabilities of all its tokens, "
        "natural logarithm, in nats. The texts are not part of it and keep the licences of their sources.",
        "## How it was made",
        _table(_facts(store, scores)),
        *([f"## Imported\n\nNot scored here, but read from\n\n{_table(imported)}"] if imported else []),
        "`lmmap import` reads Parquet, CSV and npz files back: the log-likelihoods to the bit, attributes, "
        "dtype and prefix. Tokens, tokenizations, noise and flags stay with the score set.",
        "## Texts",
        _counts(scores.texts["source"], "source", "texts"),
        "## Models",
        _models(scores),
        "## Citing",
        f"The method: {PAPER}. {MADE_HERE} {__version__} (MIT License, the lmmap "
        "authors): name it with its version, and the fingerprint of the texts above.",
    ]
    return "\n\n".join(sections) + "\n"


def _facts(store: Store, scores: LogLikelihoods) -> dict[str, str]:
    n_bytes = scores.texts["n_bytes"]
    states = store.status()["state"].value_counts()
    facts = {
        "models": ", ".join(f"{count} {state}" for state, count in states.items()),
        "texts": f"{len(scores.texts):,}, {n_bytes.sum():,} bytes, from {n_bytes.min()} to {n_bytes.max()}",
        "fingerprint of the texts": store.scoring["texts"],
        "policies": store.policy,
        "log-likelihoods": f"mean {scores.values.mean():.1f}, from {scores.values.min():.1f} to "
        f"{scores.values.max():.1f} nats",
        "tokens kept": "yes" if store.has_tokens(scores.models.index) else "no",
        "written by": f"lmmap {__version__}, format {store.scoring['format']}",
    }
    for key in ("dtype", "prefix"):
        counts = scores.models[key].value_counts()
        facts[key] = ", ".join(f"{value} ({count})" for value, count in counts.items())
    flagged = scores.models["flags"] != ""
    return facts | {"flagged": f"{flagged.sum()} of {len(flagged)} models"}


def _models(scores: LogLikelihoods) -> str:
    attributes = [str(c) for c in scores.models if c not in (*MEASURED, *NOISE) and c != "model"]
    told = f"Attributes: {', '.join(attributes) or 'none'}."
    if "family" in scores.models:
        return f"{told}\n\n{_counts(scores.models['family'], 'family', 'models')}"
    return told


def _counts(column: pd.Series, noun: str, counted: str) -> str:
    counts = column.fillna("").astype(str).replace("", "-").value_counts()
    table = {name: f"{count:,}" for name, count in counts.head(MOST_SHOWN).items()}
    if len(counts) > MOST_SHOWN:
        table[f"{len(counts) - MOST_SHOWN} more"] = f"{counts.iloc[MOST_SHOWN:].sum():,}"
    return _table(table, noun, counted)


def _table(rows: dict[Any, str], left: str = "", right: str = "") -> str:
    lines = ["| {} | {} |".format(*(str(cell).replace("|", r"\|") for cell in row)) for row in rows.items()]
    return "\n".join([f"| {left} | {right} |", "| --- | --- |", *lines])
