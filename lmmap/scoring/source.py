"""Where a model's files lie: its source, its commit, and the precision in which its weights are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lmmap.errors import InputError
from lmmap.models import PICKLES, WEIGHTS, ModelSpec

STORED = {"F16": torch.float16, "BF16": torch.bfloat16}
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")


def where(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """Give from_pretrained's source and options, after a look at what is on disk."""
    if not spec.is_local:
        options = {"revision": spec.revision, "gguf_file": spec.gguf_file}
        return spec.source, {key: value for key, value in options.items() if value is not None}
    path = Path(spec.source)
    if not path.exists():
        raise InputError(f"no such folder or file: {path}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"{path}: a model file must be .gguf")
        return str(path.parent), {"gguf_file": path.name}
    if (path / "adapter_config.json").exists():
        base = json.loads((path / "adapter_config.json").read_text()).get("base_model_name_or_path")
        whole = ", or remove adapter_config.json, if its weights are whole"
        raise InputError(
            f"{path} is an adapter; write `model: {base}` and `adapter: {path}`"
            f"{whole if (path / 'config.json').exists() else ''}"
        )
    if not (path / "config.json").exists():
        raise InputError(f"{path}: the folder has no config.json, so it is no model")
    suffixes = {file.suffix for file in path.iterdir()}
    if not suffixes & {*WEIGHTS, *(PICKLES if spec.allow_pickle else ())}:
        pickled = "; it has .bin files, which are read with `allow_pickle: true`"
        raise InputError(
            f"{path}: the folder has no weights (*.safetensors){pickled if suffixes & {*PICKLES} else ''}"
        )
    return str(path), {"local_files_only": True}


def commit(spec: ModelSpec) -> str | None:
    """Read from the cache which commit of a Hub repository was loaded."""
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    file = cached_file(
        spec.source, spec.gguf_file or "config.json", revision=spec.revision, local_files_only=True
    )
    found: str | None = extract_commit_hash(file, None)
    return found


def stored_dtype(source: str, options: dict[str, Any]) -> torch.dtype:
    """Tell the 16-bit precision in which all weights of a model are kept; float32 if there is none such.

    Parameters
    ----------
    source, options
        From `where`.

    Returns
    -------
    torch.dtype
        In which the weights can be read without loss.
    """
    if options.get("gguf_file"):
        return torch.float32
    kinds: set[str] = set()
    for file in _weights_files(source, options):
        with Path(file).open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        kinds |= {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    floating = {kind for kind in kinds if kind.startswith(("F", "BF"))}
    return STORED.get(floating.pop(), torch.float32) if len(floating) == 1 else torch.float32


def _weights_files(source: str, options: dict[str, Any]) -> list[str]:
    from transformers.utils import cached_file
    from transformers.utils.hub import get_checkpoint_shard_files

    places = {key: value for key, value in options.items() if key in ("revision", "local_files_only")}
    quietly = {"_raise_exceptions_for_missing_entries": False}
    whole, index = (cached_file(source, name, **places, **quietly) for name in SAFETENSORS)
    if whole is not None or index is None:
        return [whole] if whole else []
    shards: list[str] = get_checkpoint_shard_files(source, index, **places)[0]
    return shards
