"""Score sets on disk: one folder, one Parquet file for each finished row.

::

    RUN/scoring.json             format, texts' fingerprint, policies: written first, never changed
    RUN/texts.parquet            text_id, text, source, n_bytes, ...
    RUN/requests/NAME.json       a model that was asked for, with its attributes
    RUN/scores/ROW.parquet       written last: it *means* complete; provenance in the footer
    RUN/tokens/ROW.parquet       log-probability of every token, float32
    RUN/tokenizations/HASH.parquet   ids and byte_end, one for all models that cut the texts alike
    RUN/parts/ROW/PLAN/          finished batches of a row at work; offer.json and crashes/ beside them
    RUN/locks/ROW.lock  failures/ROW.json  journal/ROW.json

What was measured is the same to the bit when a sweep is interrupted and goes on; when and how fast it was
measured stands apart, in ``journal/``.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from filelock import FileLock

from lmmap.errors import InputError, closest
from lmmap.files import read_json, write_json
from lmmap.loglik import LogLikelihoods
from lmmap.models import ModelSpec, check_names, slug
from lmmap.parts import RowAtWork, acquired
from lmmap.tables import ragged, unragged, write_table
from lmmap.text_files import read_texts
from lmmap.texts import TextSet

FORMAT = 1
POLICIES = {"prefix": ("auto", "reference"), "long_texts": ("window", "truncate", "error")}
MEASURED = ("n_parameters", "dtype", "prefix", "tokenization", "n_tokens", "policy", "flags")
NOISE = ("error_var", "shape_var")
TEXTS_AT_ONCE = 128  # of token records, that can be read without the others


@dataclass(frozen=True)
class Row:
    """One model's finished scores of N texts.

    Parameters
    ----------
    log_likelihood : (N,) float64 array
        Nats per text.
    n_tokens, special_hits : (N,) int arrays
        Tokens scored, and how many of them are special or added tokens.
    tokens : list of N float32 arrays, or None
        Log-probability of every token, in nats.
    ids, byte_end : lists of N int arrays
        Token ids, and where each token ends in the text's UTF-8 bytes (-1 if unknown).
    provenance : mapping
        How the row was made; holds ``tokenization``, ``prefix``, ``n_parameters`` and ``flags``.
    """

    log_likelihood: np.ndarray
    n_tokens: np.ndarray
    special_hits: np.ndarray
    tokens: Sequence[np.ndarray] | None
    ids: Sequence[np.ndarray]
    byte_end: Sequence[np.ndarray]
    provenance: Mapping[str, Any]


class Store:
    """The folder of a score set.

    Parameters
    ----------
    path : str or Path
        A folder made by `Store.create`.

    Raises
    ------
    InputError
        If there is no score set, or it was made by another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        file = self.path / "scoring.json"
        if not file.is_file():
            raise InputError(f"no score set in {self.path.resolve()}: make one with `lmmap score {path} ...`")
        self.scoring: dict[str, Any] = read_json(file)
        if self.scoring.get("format") != FORMAT:
            raise InputError(
                f"{self.path} has format {self.scoring.get('format')!r}, this version reads {FORMAT}"
            )

    @classmethod
    def create(
        cls, path: str | Path, texts: TextSet, *, prefix: str = "auto", long_texts: str = "window"
    ) -> Store:
        """Make a score set, or open the one that is there if it asks for the same.

        Parameters
        ----------
        path : str or Path
            The folder.
        texts : TextSet
            What is to be scored.
        prefix : {'auto', 'reference'}
            Prefix policy.
        long_texts : {'window', 'truncate', 'error'}
            What is done with texts longer than a model's context.

        Returns
        -------
        Store
            The score set.

        Raises
        ------
        InputError
            If the folder holds a set of other texts or another policy: both values are named.
        """
        asked = {"format": FORMAT, "texts": texts.fingerprint, "n_texts": len(texts)}
        asked |= {"prefix": prefix, "long_texts": long_texts}
        for policy, values in POLICIES.items():
            if asked[policy] not in values:
                raise InputError(f"unknown {policy} policy {asked[policy]!r}; use {' or '.join(values)}")
        path = Path(path).expanduser()
        file = path / "scoring.json"
        strange = path.is_file() or (path.is_dir() and any(f.name[0] != "." for f in path.iterdir()))
        if strange and not file.is_file():  # looked for last: another process may be making the same set
            raise InputError(f"{path} exists and is no score set; use another folder")
        if not file.is_file():
            write_json(file, asked)
        made = cls(path).scoring
        for key, value in asked.items():
            if made[key] != value:
                raise InputError(
                    f"{path} was made with {key} = {_short(made[key])}, now {key} = {_short(value)} "
                    "is asked for; use another folder"
                )
        if not (path / "texts.parquet").exists():
            texts.write(path / "texts.parquet")
        return cls(path)

    @property
    def policy(self) -> str:
        """The policies in one line: rows of other policies never join."""
        return ", ".join(f"{key}={self.scoring[key]}" for key in POLICIES)

    @cached_property
    def texts(self) -> TextSet:
        """The N texts, their fingerprint checked."""
        texts = read_texts(self.path / "texts.parquet")
        if texts.fingerprint != self.scoring["texts"]:
            raise InputError(
                f"{self.path / 'texts.parquet'} has fingerprint {_short(texts.fingerprint)}, "
                f"scoring.json says {_short(self.scoring['texts'])}; the file was changed"
            )
        return texts

    # Asking, claiming, writing

    def request(self, specs: Sequence[ModelSpec]) -> None:
        """Note the models that are wanted; a model of a known name takes the former one's place."""
        check_names(specs, str(self.path))
        with ThreadPoolExecutor() as pool:  # local models are known by the bytes of their files
            list(pool.map(lambda spec: spec.recipe, specs))
        for spec in specs:
            taken = sorted(({*MEASURED, *NOISE} - {"n_parameters"}) & set(spec.attributes))
            if taken:
                raise InputError(f"{spec.name}: {taken[0]!r} is measured; give the attribute another name")
            file = self.path / "requests" / f"{slug(spec.name)}.json"
            former = read_json(file) if file.exists() else None
            if former and former["source"] != spec.source and self.is_done(former["row_id"]):
                raise InputError(
                    f"{self.path} holds another model called {spec.name!r}, from {former['source']}; "
                    f"give the one from {spec.source} another `name`"
                )
            entry = {"row_id": spec.row_id, "model": spec.name, **spec.recipe}
            write_json(file, entry | {"source": spec.source, "attributes": dict(spec.attributes)})

    def forget(self, name: str) -> str:
        """Take back a request; a finished row stays on disk, and is back if the model is asked for again.

        Parameters
        ----------
        name : str
            A model's name or row id.

        Returns
        -------
        str
            Its row id.

        Raises
        ------
        InputError
            If nobody asked for it.
        """
        for entry in self.requests():
            if name in (entry["model"], entry["row_id"]):
                (self.path / "requests" / f"{slug(entry['model'])}.json").unlink(missing_ok=True)
                return str(entry["row_id"])
        known = [entry["model"] for entry in self.requests()]
        raise InputError(f"{self.path} was not asked for {name!r}{closest(name, known)}")

    @contextmanager
    def claim(self, row_id: str) -> Iterator[bool]:
        """Hold a row while it is scored; yields False if another process holds it."""
        lock = self.lock(row_id)
        mine = acquired(lock)
        try:
            yield mine
        finally:
            lock.release()  # nothing happens if it is not held

    def lock(self, name: str) -> FileLock:
        """Give the lock of a row, or of a device; the system frees it when its holder dies."""
        return FileLock(self._folder("locks") / f"{name}.lock")

    def is_done(self, row_id: str) -> bool:
        """Whether the row's scores are complete."""
        return self._scores(row_id).exists()

    def write_row(self, row_id: str, row: Row, journal: Mapping[str, Any]) -> None:
        """Write a finished row: tokens first, scores last."""
        tokenization = self.path / "tokenizations" / f"{row.provenance['tokenization']}.parquet"
        if not tokenization.exists():
            write_table(tokenization, {"ids": ragged(row.ids), "byte_end": ragged(row.byte_end)})
        if row.tokens is not None:
            lists = {"log_probs": ragged(row.tokens)}
            file, floats = self.path / "tokens" / f"{row_id}.parquet", ["log_probs.list.element"]
            write_table(file, lists, split=floats, group=TEXTS_AT_ONCE)
        columns = {
            "text": np.arange(len(row.log_likelihood), dtype=np.int32),
            "log_likelihood": row.log_likelihood,
            "n_tokens": row.n_tokens.astype(np.int32),
            "special_hits": row.special_hits.astype(np.int32),
        }
        footer = {**row.provenance, "texts": self.scoring["texts"], "policy": self.policy}
        write_json(self.path / "journal" / f"{row_id}.json", journal)
        write_table(self._scores(row_id), columns, footer=footer)
        self._failure(row_id).unlink(missing_ok=True)
        self.at_work(row_id).clear()

    def write_failure(self, row_id: str, error: BaseException, launch: str = "") -> None:
        """Record why a row could not be scored, and in which launch: others of that launch leave it alone."""
        trace = "".join(traceback.format_exception(error))
        reason = str(error).strip() or type(error).__name__
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        write_json(self._failure(row_id), {"reason": kind + reason, "traceback": trace, "launch": launch})

    def failure(self, row_id: str, launch: str) -> str | None:
        """Say why a row failed in a launch; None if it did not."""
        try:
            failed = {} if self.is_done(row_id) else read_json(self._failure(row_id))
        except FileNotFoundError:
            return None
        return failed["reason"] if failed.get("launch") == launch else None

    def at_work(self, row_id: str) -> RowAtWork:
        """Give what is kept of a row while it is being scored."""
        return RowAtWork(self.path / "parts" / row_id)

    # Reading

    def has_tokens(self, rows: Iterable[str]) -> bool:
        """Whether the log-probability of every token was kept for all of these rows."""
        return all((self.path / "tokens" / f"{row}.parquet").exists() for row in rows)

    def requests(self) -> list[dict[str, Any]]:
        """Read what was asked for, in alphabetical order."""
        return [read_json(file) for file in sorted((self.path / "requests").glob("[!.]*.json"))]

    def provenance(self, row_id: str) -> dict[str, Any]:
        """Read how a finished row was made; it must agree with ``scoring.json``."""
        footer = pq.read_schema(self._finished(row_id)).metadata[b"lmmap"]
        found: dict[str, Any] = json.loads(footer)
        for key, value in (("texts", self.scoring["texts"]), ("policy", self.policy)):
            if found[key] != value:
                raise InputError(
                    f"{self._scores(row_id)} was made with {key} = {_short(found[key])}, "
                    f"scoring.json says {_short(value)}"
                )
        return found

    def status(self) -> pd.DataFrame:
        """Tell the state of every model asked for.

        Returns
        -------
        DataFrame
            Index ``row_id``; columns ``model``, ``state`` (done, running, failed or missing), ``n_tokens``,
            ``seconds``, ``dtype``, ``prefix``, ``error_var`` (nats^2), ``flags`` and ``reason``.
        """
        rows = []
        for entry in self.requests():
            row_id = entry["row_id"]
            row = {"row_id": row_id, "model": entry["model"], "state": "missing", "flags": "", "reason": ""}
            if self.is_done(row_id):
                made, journal = self.provenance(row_id), self.path / "journal" / f"{row_id}.json"
                row |= {key: made[key] for key in ("n_tokens", "dtype", "prefix")} | _noise(made)
                row |= {"state": "done", "flags": "; ".join(made["flags"])}
                row |= {"seconds": read_json(journal)["seconds"]} if journal.exists() else {}
            elif self._is_claimed(row_id):
                row["state"] = "running"
            else:
                with suppress(FileNotFoundError):  # it has not failed, or is done this moment
                    row |= {"reason": read_json(self._failure(row_id))["reason"], "state": "failed"}
            rows.append(row)
        columns = ["row_id", "model", "state", "n_tokens", "seconds", "dtype", "prefix", "error_var"]
        frame = pd.DataFrame(rows, columns=[*columns, "flags", "reason"]).set_index("row_id")
        return frame.astype({"n_tokens": "Int64", "seconds": "float64", "error_var": "float64"})

    def load(self) -> LogLikelihoods:
        """Read the finished rows of the models asked for.

        Returns
        -------
        LogLikelihoods
            K finished models x N texts, in nats.

        Raises
        ------
        InputError
            If no row is finished, or a row disagrees with ``scoring.json``.
        """
        done = [entry for entry in self.requests() if self.is_done(entry["row_id"])]
        if not done:
            raise InputError(f"{self.path}: no model is finished yet; see `lmmap status {self.path}`")
        values, table = [], []
        for entry in done:
            made = self.provenance(entry["row_id"])
            column = pq.read_table(self._scores(entry["row_id"]), columns=["log_likelihood"])
            values.append(column["log_likelihood"].to_numpy())
            measured = {key: made[key] for key in MEASURED} | {"flags": "; ".join(made["flags"])}
            measured |= _noise(made)
            table.append({"model": entry["model"], **measured, **entry["attributes"]})
        models = pd.DataFrame(table, index=pd.Index([entry["row_id"] for entry in done], name="row_id"))
        hashes = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in self.texts.texts]
        texts = self.texts.frame.drop(columns="text").assign(sha256=hashes)
        return LogLikelihoods(np.stack(values), models, texts)

    def tokens(self, row_id: str) -> list[np.ndarray]:
        """Read a row's token log-probabilities.

        Parameters
        ----------
        row_id : str
            A finished row.

        Returns
        -------
        list of N float32 arrays
            Nats; their float64 sums are the row's log-likelihoods.

        Raises
        ------
        InputError
            If the row is unknown, or was scored without keeping tokens.
        """
        file = self.path / "tokens" / f"{row_id}.parquet"
        self._finished(row_id)
        if not file.exists():
            raise InputError(
                f"{row_id} was scored with --no-tokens; its token log-probabilities are not kept"
            )
        return unragged(pq.read_table(file)["log_probs"])

    def tokenization(self, row_id: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Read how a row's model cuts the texts: ids and the byte at which each token ends."""
        file = self.path / "tokenizations" / f"{self.provenance(row_id)['tokenization']}.parquet"
        table = pq.read_table(file)
        return unragged(table["ids"]), unragged(table["byte_end"])

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def _scores(self, row_id: str) -> Path:
        return self.path / "scores" / f"{row_id}.parquet"

    def _failure(self, row_id: str) -> Path:
        return self.path / "failures" / f"{row_id}.json"

    def _finished(self, row_id: str) -> Path:
        file = self._scores(row_id)
        if not file.exists():
            rows = [f.stem for f in (self.path / "scores").glob("*.parquet")]
            raise InputError(
                f"row {row_id!r} is not among the {len(rows)} finished ones{closest(row_id, rows)}"
            )
        return file

    def _is_claimed(self, row_id: str) -> bool:
        if not (self.path / "locks" / f"{row_id}.lock").exists():
            return False
        with self.claim(row_id) as free:
            return not free


def _noise(made: Mapping[str, Any]) -> dict[str, float]:
    """Read a row's noise, NaN where it was not measured."""
    noise = made.get("noise", {})
    return {key: float("nan") if noise.get(key) is None else float(noise[key]) for key in NOISE}


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)
