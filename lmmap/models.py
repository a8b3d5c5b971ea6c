"""ModelSpec: what is scored, from where, and the attributes that colour the map."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmap.errors import InputError, closest
from lmmap.files import sha256_of_file

if TYPE_CHECKING:
    pass

Attribute = str | int | float | bool
DTYPES = ("float32", "float16", "bfloat16", "float64")
WEIGHTS = (".safetensors", ".gguf")
RECIPE_FILES = (*WEIGHTS, ".json", ".txt", ".model", ".tiktoken", ".py")
NOT_IN_RECIPE = {"generation_config.json", "model_card.json"}


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
