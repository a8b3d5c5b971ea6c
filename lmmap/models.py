"""Model lists: what is scored, from where, and the attributes that colour the map."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from lmmap.errors import InputError, closest
from lmmap.files import sha256_of_file

Attribute = str | int | float | bool
DTYPES = ("float32", "float16", "bfloat16", "float64")
WEIGHTS = (".safetensors", ".gguf")
RECIPE_FILES = (*WEIGHTS, ".json", ".txt", ".model", ".tiktoken")
NOT_IN_RECIPE = {"generation_config.json", "model_card.json"}


@dataclass(frozen=True)
class ModelSpec:
    """One row to be scored: a model and everything that decides its scores.

    Parameters
    ----------
    source : str
        Hub id, or path of a folder or ``.gguf`` file.
    name : str
        What tables and maps show; the last part of the source (and the revision) by default.
    revision : str, optional
        Branch, tag or commit on the Hub.
    dtype : str, optional
        ``float32``, ``float16``, ``bfloat16`` or ``float64``; by default what suits the device.
    prefix : str, optional
        The token put in front of every text; by default found by rule (`lmmap.scoring.choose_prefix`).
    trust_remote_code : bool
        Whether code that comes with the model may run.
    attributes : mapping
        Columns for colouring and selecting (family, n_parameters, created_at, ...); not identity.

    Raises
    ------
    InputError
        If the source is empty, or the dtype is none of the above.

    Examples
    --------
    >>> ModelSpec("EleutherAI/pythia-70m", revision="step512").name
    'pythia-70m@step512'
    >>> ModelSpec("EleutherAI/pythia-70m").row_id
    'pythia-70m-f457b769'
    """

    source: str
    name: str = ""
    revision: str | None = None
    dtype: str | None = None
    prefix: str | None = None
    trust_remote_code: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.source:
            raise InputError("a model needs a source: a Hub id, a folder or a .gguf file")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(
                f"{self.source}: unknown dtype {self.dtype!r}{closest(self.dtype, DTYPES)}; "
                f"use {', '.join(DTYPES)}"
            )
        if not self.name:
            last = self.source.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
            object.__setattr__(self, "name", f"{last}@{self.revision}" if self.revision else last)

    @property
    def is_local(self) -> bool:
        """Whether the source is a path on this machine rather than a Hub id."""
        return is_path(self.source)

    @cached_property
    def files_hash(self) -> str | None:
        """SHA-256 over a local model's weights, configuration and tokenizer; None on the Hub or if absent."""
        files = _recipe_files(Path(self.source)) if self.is_local else []
        if not files:
            return None
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name}:{sha256_of_file(file)}\n".encode())
        return digest.hexdigest()

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that decides the scores; a local model counts by its bytes, wherever it lies."""
        return {
            "source": None if self.is_local else self.source,
            "files": self.files_hash,
            "revision": self.revision,
            "dtype": self.dtype,
            "prefix": self.prefix,
            "trust_remote_code": self.trust_remote_code,
        }

    @property
    def row_id(self) -> str:
        """A readable name with 8 hex digits of the recipe, e.g. ``pythia-70m-f457b769``."""
        recipe = json.dumps(self.recipe, sort_keys=True)
        return f"{slug(self.name)}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def is_path(source: str) -> bool:
    """Tell a path from a Hub id.

    Parameters
    ----------
    source : str
        What a models list gives.

    Returns
    -------
    bool
        True for ``/a/b``, ``./a``, ``../a``, ``~/a`` and anything that ends in ``.gguf``.

    Examples
    --------
    >>> is_path("../zoo/small"), is_path("EleutherAI/pythia-70m")
    (True, False)
    """
    return (
        source.startswith(("/", "./", "../", "~")) or source.endswith(".gguf") or Path(source).is_absolute()
    )


def slug(name: str) -> str:
    """Make a name safe for every file system.

    Parameters
    ----------
    name : str
        A model's name.

    Returns
    -------
    str
        Letters, digits, ``.``, ``_`` and ``-``, at most 80 of them.

    Examples
    --------
    >>> slug("pythia-70m@step512")
    'pythia-70m-step512'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:80] or "model"


def read_models(path: str | Path) -> list[ModelSpec]:
    r"""Read a list of models.

    Parameters
    ----------
    path : str or Path
        YAML: a list of entries with ``model`` (Hub id, folder or ``.gguf`` file; paths are relative to the
        list's own folder) and, if wanted, ``name``, ``revision``, ``dtype``, ``prefix``,
        ``trust_remote_code``; all other fields are attributes. CSV: the same as columns.

    Returns
    -------
    list of ModelSpec
        In the order of the list.

    Raises
    ------
    InputError
        If the file is missing or malformed, a field is misspelt, or two entries have one name.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "two.yaml"
    >>> _ = file.write_text("- {model: gpt2, family: gpt2}\n- {model: ./mine, prefix: <s>}\n")
    >>> [(spec.name, spec.prefix) for spec in read_models(file)]
    [('gpt2', None), ('mine', '<s>')]
    """
    path = Path(path).expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"no such models list: {path}{closest(path.name, siblings)}")
    try:
        entries = _read_csv(path) if path.suffix == ".csv" else _read_yaml(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list with one entry for each model, `- model: ...`")
    specs = [_spec(entry, f"{path}, entry {i}", path.parent) for i, entry in enumerate(entries, start=1)]
    check_names(specs, str(path))
    return specs


def check_names(specs: Iterable[ModelSpec], where: str) -> None:
    """Refuse two models of one name.

    Parameters
    ----------
    specs : iterable of ModelSpec
        The models.
    where : str
        What holds them, for the message.

    Raises
    ------
    InputError
        If two names are equal, or would share a file name.

    Examples
    --------
    >>> check_names([ModelSpec("gpt2"), ModelSpec("distilgpt2")], "my list")
    """
    seen: dict[str, ModelSpec] = {}
    for spec in specs:
        other = seen.setdefault(slug(spec.name).casefold(), spec)
        if other is not spec:
            raise InputError(
                f"{where}: two models are called {spec.name!r} ({other.source} and {spec.source}); "
                "give one of them another `name`"
            )


def _recipe_files(source: Path) -> list[Path]:
    source = source.expanduser()
    if source.is_file():
        return [source]
    files = sorted(source.glob("*"))
    if not any(file.suffix in WEIGHTS for file in files):
        return []
    return [f for f in files if f.is_file() and f.suffix in RECIPE_FILES and f.name not in NOT_IN_RECIPE]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [
            {key: _csv_value(value) for key, value in row.items() if value not in (None, "")}
            for row in csv.DictReader(file)
        ]


def _csv_value(value: str) -> Attribute:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(value.lower(), value)


def _read_yaml(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from None


def _spec(entry: object, where: str, folder: Path) -> ModelSpec:
    known = {f.name for f in fields(ModelSpec)} - {"source", "attributes"}
    if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
        raise InputError(f"{where}: expected `model: HUB_ID_OR_PATH` and further fields, got {entry!r}")
    where = f"{where} ({entry['model']})"
    settings: dict[str, Any] = {}
    attributes: dict[str, Attribute] = {}
    for key, value in entry.items():
        if key == "model" or value is None:
            continue
        if key in known:
            settings[key] = _checked(key, value, where)
        elif close := closest(str(key), known):
            raise InputError(
                f"{where}: unknown field {key!r}{close}; rename an attribute that means something else"
            )
        elif isinstance(value, list | dict):
            raise InputError(f"{where}: attribute {key!r} is {value!r}; attributes are single values")
        else:
            attributes[str(key)] = value if isinstance(value, str | int | float | bool) else str(value)
    source = entry["model"]
    local = folder / Path(source).expanduser()
    if is_path(source) or local.exists():
        source = str(local.resolve())
    return ModelSpec(source=source, attributes=attributes, **settings)


def _checked(key: str, value: object, where: str) -> object:
    if key == "trust_remote_code":
        if not isinstance(value, bool):
            raise InputError(f"{where}: {key} is {value!r}; use true or false")
        return value
    if isinstance(value, list | dict | bool):
        raise InputError(f"{where}: {key} is {value!r}; it must be a single text")
    return str(value)
