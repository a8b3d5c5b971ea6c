"""Model lists: what is scored, from where, and the attributes that colour the map."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmap.errors import InputError, closest
from lmmap.files import sha256_of_file

if TYPE_CHECKING:
    import yaml

Attribute = str | int | float | bool
DTYPES = ("float32", "float16", "bfloat16", "float64")
WEIGHTS = (".safetensors", ".gguf")
RECIPE_FILES = (*WEIGHTS, ".json", ".txt", ".model", ".tiktoken", ".py")
NOT_IN_RECIPE = {"generation_config.json", "model_card.json"}
NOT_MISSPELT = ("type", "version", "region", "full_name")  # attributes that look like a field
AS_WRITTEN = ("model", "name", "revision", "dtype", "prefix")
TAG = "tag:yaml.org,2002:"
PLAIN_SCALARS = {
    "null": r"(~|null|Null|NULL|)",
    "bool": r"(true|True|TRUE|false|False|FALSE)",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?",
    "merge": "<<",
}


@dataclass(frozen=True)
class ModelSpec:
    """One row to be scored: a model and everything that decides its scores.

    Parameters
    ----------
    source : str
        Hub id, or path of a folder or ``.gguf`` file, which is made absolute.
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
        If the source is empty, the dtype is none of the above, or ``trust_remote_code`` is no bool.

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
        if not isinstance(self.source, str) or not self.source.strip():
            raise InputError(
                f"a model needs a source: a Hub id, a folder or a .gguf file, got {self.source!r}"
            )
        if self.is_local:
            path = Path(self.source).expanduser().absolute()
            object.__setattr__(self, "source", str(path.parent.resolve() / path.name))
        if not isinstance(self.trust_remote_code, bool):
            raise InputError(
                f"{self.source}: trust_remote_code is {self.trust_remote_code!r}; use true or false"
            )
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
        path = Path(self.source)
        if self.is_local and path.is_file():
            return sha256_of_file(path)
        files = _recipe_files(path) if self.is_local else []
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
        ASCII letters, digits, ``.``, ``_`` and ``-``, at most 80 of them; 6 hex digits stand for what is
        lost of a longer name or one in another script.

    Examples
    --------
    >>> slug("pythia-70m@step512"), slug("日本語モデル")
    ('pythia-70m-step512', 'model-6f7aa4')
    """
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"
    if name.isascii() and len(plain) <= 80:
        return plain
    return f"{plain[:73]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def read_models(path: str | Path) -> list[ModelSpec]:
    r"""Read a list of models.

    Parameters
    ----------
    path : str or Path
        YAML: a list of entries with ``model`` (Hub id, folder or ``.gguf`` file; paths are relative to the
        list's own folder) and, if wanted, ``name``, ``revision``, ``dtype``, ``prefix``,
        ``trust_remote_code``; all other fields are attributes. CSV: the same as columns, a cell meaning
        what it would mean in YAML.

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
            names = repr(spec.name) if other.name == spec.name else f"{other.name!r} and {spec.name!r}"
            raise InputError(
                f"{where}: two models are called {names} ({other.source} and {spec.source}), which a file "
                "name cannot tell apart; give one of them another `name`"
            )


def _recipe_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*"))
    if not any(file.suffix in WEIGHTS for file in files):
        return []
    return [f for f in files if f.is_file() and f.suffix in RECIPE_FILES and f.name not in NOT_IN_RECIPE]


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            columns = list(rows.fieldnames or ())
            if len(set(columns)) < len(columns):
                raise InputError(f"{path}: a column is given twice in {', '.join(columns)}")
            return [_csv_entry(row, f"{path}, line {rows.line_num}") for row in rows]
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.reader.line_num}: not CSV ({error})") from None


def _csv_entry(row: Mapping[Any, Any], where: str) -> dict[str, Any]:
    if None in row:
        raise InputError(f"{where}: more cells than the first line has, {row[None]!r}")
    cells = {key.strip(): value.strip() or value for key, value in row.items() if value}
    return {key: value if key in AS_WRITTEN else _plain_scalar(value) for key, value in cells.items()}


def _plain_scalar(text: str) -> Any:  # noqa: ANN401 - whatever YAML makes of it
    import yaml

    loader = _yaml_loader()("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return loader.construct_object(yaml.ScalarNode(tag, text))


def _read_yaml(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), _yaml_loader())
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from None


@cache
def _yaml_loader() -> type[yaml.SafeLoader]:
    """YAML without its surprises.

    Only null, true, false and decimal numbers are no text (``no`` and dates are), names and revisions stay
    as written whatever they look like, and no field is given twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.MarkedYAMLError(
                        problem=f"field {key!r} is given twice", problem_mark=node.start_mark
                    )
            for key, value in node.value:
                if key.value in AS_WRITTEN and value.tag in (TAG + "int", TAG + "float", TAG + "bool"):
                    value.tag = TAG + "str"
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {}
    for kind, pattern in PLAIN_SCALARS.items():
        Loader.add_implicit_resolver(TAG + kind, re.compile(pattern + r"\Z"), None)
    return Loader


def _spec(entry: object, where: str, folder: Path) -> ModelSpec:
    known = {f.name for f in fields(ModelSpec)} - {"source", "attributes"}
    model = entry.get("model") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(model, str) or not model.strip():
        raise InputError(f"{where}: expected `model: HUB_ID_OR_PATH` and further fields, got {entry!r}")
    where = f"{where} ({model})"
    settings: dict[str, Any] = {}
    attributes: dict[str, Attribute] = {}
    for key, value in entry.items():
        if key == "model" or value is None:
            continue
        if key in known:
            settings[key] = _checked(key, value, where)
        elif key not in NOT_MISSPELT and (close := closest(str(key), known)):
            raise InputError(
                f"{where}: unknown field {key!r}{close}; rename an attribute that means something else"
            )
        elif isinstance(value, list | dict):
            raise InputError(f"{where}: attribute {key!r} is {value!r}; attributes are single values")
        else:
            attributes[str(key)] = value if isinstance(value, str | int | float | bool) else str(value)
    local = folder.absolute() / Path(model).expanduser()
    source = str(local) if is_path(model) or local.exists() else model
    return ModelSpec(source=source, attributes=attributes, **settings)


def _checked(key: str, value: object, where: str) -> object:
    if key != "trust_remote_code" and not isinstance(value, str):
        raise InputError(f"{where}: {key} is {value!r}; it must be a single text")
    return value
