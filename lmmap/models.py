"""ModelSpec: what is scored, from where, and the attributes that colour the map."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lmmap.errors import InputError, closest
from lmmap.files import sha256_of_file

Attribute = str | int | float | bool
DTYPES = ("float16", "bfloat16", "tf32", "float32", "float64")
QUANTIZATIONS = ("bitsandbytes-8bit", "bitsandbytes-4bit", "torchao-int8")
WEIGHTS = (".safetensors", ".gguf")
PICKLES = (".bin",)
RECIPE_FILES = (*WEIGHTS, ".json", ".txt", ".model", ".tiktoken", ".jinja", ".py")
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
        ``float16``, ``bfloat16``, ``tf32`` (float32 whose matrix products run on a GPU's tensor cores),
        ``float32`` or ``float64``, and nothing else then; by default what suits the device, and a finer one
        where that one is too noisy for the model.
    prefix : str, optional
        The token put in front of every text; by default found by rule (`lmmap.scoring.choose_prefix`).
    adapter : str, optional
        PEFT adapter (LoRA and its like) on the model: Hub id or folder.
    adapter_revision : str, optional
        Branch, tag or commit of the adapter on the Hub.
    quantization : str, optional
        ``bitsandbytes-8bit`` (without outlier columns, which are chosen over a whole batch),
        ``bitsandbytes-4bit`` (NF4) or ``torchao-int8``: weights rounded when loaded. A checkpoint that is
        quantised already needs no word.
    gguf_file : str, optional
        Which ``.gguf`` file of a Hub repository.
    trust_remote_code : bool
        Whether code that comes with the model may run.
    allow_pickle : bool
        Whether weights may be read from ``.bin`` files where there are no safetensors; nothing but tensors
        is unpickled.
    attributes : mapping
        Columns for colouring and selecting (family, n_parameters, created_at, ...); not identity.

    Raises
    ------
    InputError
        If the source is empty, the dtype or quantization is none of the above, a switch is no bool, or fields
        do not go together.

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
    adapter: str | None = None
    adapter_revision: str | None = None
    quantization: str | None = None
    gguf_file: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source.strip():
            raise InputError(
                f"a model needs a source: a Hub id, a folder or a .gguf file, got {self.source!r}"
            )
        for field_name in ("source", "adapter"):
            place = getattr(self, field_name)
            if place is not None and is_path(place):
                path = Path(place).expanduser().absolute()
                object.__setattr__(self, field_name, str(path.parent.resolve() / path.name))
        for switch in ("trust_remote_code", "allow_pickle"):
            if not isinstance(getattr(self, switch), bool):
                raise InputError(f"{self.source}: {switch} is {getattr(self, switch)!r}; use true or false")
        for field_name, known in (("dtype", DTYPES), ("quantization", QUANTIZATIONS)):
            value = getattr(self, field_name)
            if value is not None and value not in known:
                raise InputError(
                    f"{self.source}: unknown {field_name} {value!r}{closest(str(value), known)}; "
                    f"use {', '.join(known)}"
                )
        if self.adapter_revision and (self.adapter is None or is_path(self.adapter)):
            raise InputError(
                f"{self.source}: adapter_revision {self.adapter_revision!r} needs an adapter on the Hub"
            )
        if self.gguf_file and self.is_local:
            raise InputError(f"{self.source}: gguf_file is for Hub repositories; give the file's own path")
        if not self.name:
            object.__setattr__(self, "name", self._default_name())

    def _default_name(self) -> str:
        name = _last_part(self.gguf_file or self.source)
        name = f"{name}@{self.revision}" if self.revision else name
        if self.adapter:
            name += f"+{_last_part(self.adapter)}"
            name = f"{name}@{self.adapter_revision}" if self.adapter_revision else name
        return f"{name} {self.quantization}" if self.quantization else name

    @property
    def is_local(self) -> bool:
        """Whether the source is a path on this machine rather than a Hub id."""
        return is_path(self.source)

    @cached_property
    def files_hash(self) -> str | None:
        """SHA-256 over a local model's weights, configuration and tokenizer; None on the Hub or if absent."""
        return _hash_of(self.source, self.allow_pickle) if self.is_local else None

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Everything that decides the scores; a local model counts by its bytes, wherever it lies."""
        recipe: dict[str, Any] = {
            "source": None if self.is_local else self.source,
            "files": self.files_hash,
            "revision": self.revision,
            "dtype": self.dtype,
            "prefix": self.prefix,
            "trust_remote_code": self.trust_remote_code,
        }
        if self.adapter is not None:
            local = is_path(self.adapter)
            recipe["adapter"] = _hash_of(self.adapter, self.allow_pickle) if local else self.adapter
        later = ("adapter_revision", "quantization", "gguf_file", "allow_pickle")
        return recipe | {key: getattr(self, key) for key in later if getattr(self, key)}

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


def _last_part(source: str) -> str:
    return source.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")


def _hash_of(source: str, allow_pickle: bool) -> str | None:
    path = Path(source)
    if path.is_file():
        return sha256_of_file(path)
    weights = (*WEIGHTS, *PICKLES) if allow_pickle else WEIGHTS
    files = [file for file in sorted(path.glob("*")) if file.is_file()]
    if not any(file.suffix in weights for file in files):
        return None
    counting = [f for f in files if f.suffix in (*RECIPE_FILES, *weights) and f.name not in NOT_IN_RECIPE]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for file, found in zip(counting, pool.map(sha256_of_file, counting), strict=True):
            digest.update(f"{file.name}:{found}\n".encode())
    return digest.hexdigest()
