"""Devices: which there are, which were asked for, and what fits on them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import torch

from lmmap.errors import InputError
from lmmap.models import PICKLES, WEIGHTS, ModelSpec
from lmmap.scoring.load import SPREAD

SHARE_FOR_WEIGHTS = 0.9  # of a device's memory; the rest is for what a batch needs


def threads_of(n_processes: int = 1) -> int:
    """Give the CPU threads of each process: ``OMP_NUM_THREADS`` where it is set, else its share of the cores.

    Examples
    --------
    >>> threads_of(10**6)
    1
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return max(1, (os.cpu_count() or 1) // n_processes)


def find_devices(*, gpus: str | None = None, device: str = "auto", workers: int = 1) -> list[str]:
    """Name the devices that are asked for, one for each process group that serves it.

    Parameters
    ----------
    gpus : str, optional
        ``all``, a number of GPUs, or some by number: ``0,2``.
    device : str
        One device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` means all GPUs, or the CPU if there are none.
    workers : int
        Processes on the CPU.

    Returns
    -------
    list of str
        Such as ``["cuda:0", "cuda:2"]`` or ``["cpu", "cpu"]``.

    Raises
    ------
    InputError
        If a GPU is not there, or the choices contradict each other.

    Examples
    --------
    >>> find_devices(device="cpu", workers=2)
    ['cpu', 'cpu']
    """
    if workers < 1:
        raise InputError(f"--workers {workers}: use 1 or more")
    if gpus is not None and device != "auto":
        raise InputError(f"--gpus {gpus} and --device {device} contradict each other; give one of them")
    if gpus is not None:
        found = _by_gpus(gpus)
    elif device == "auto":
        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    else:
        found = [_numbered(device)]
    if found == ["cpu"]:
        return found * workers
    if workers > 1:
        raise InputError(f"--workers {workers} is for the CPU, and here {', '.join(found)} would score")
    check_devices(found)
    return found


def check_devices(devices: Sequence[str]) -> None:
    """Refuse GPUs that are not there.

    Parameters
    ----------
    devices : sequence of str
        Names of devices.

    Raises
    ------
    InputError
        If one is missing: what there is is named.
    """
    if not devices:
        raise InputError("no device is given; use cpu, cuda:0, ...")
    n_gpus = torch.cuda.device_count()
    there = f"cuda:0 to cuda:{n_gpus - 1}" if n_gpus > 1 else "cuda:0" if n_gpus else "no GPU"
    for device in devices:
        try:
            place = torch.device(device)
        except RuntimeError:
            raise InputError(f"unknown device {device!r}; there is cpu and {there}") from None
        if place.type == "cuda" and (place.index or 0) >= n_gpus:
            raise InputError(f"device {device!r} is not there; there is cpu and {there}")


def fits_on(spec: ModelSpec, device: str) -> bool:
    """Tell from the size of its files whether a model's weights fit into a GPU's memory.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    device : str
        Where to.

    Returns
    -------
    bool
        True if so, if the size is not known, and on a CPU.
    """
    if kind_of(device) != "cuda" or spec.quantization is not None:
        return True
    size = weights_size(spec)
    return size is None or size <= SHARE_FOR_WEIGHTS * memory_of(device)


def memory_of(device: str) -> int:
    """Give a GPU's memory in bytes."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def memory_kept(device: str) -> int:
    """Give the bytes of a GPU's memory that tensors of this process hold; 0 elsewhere."""
    if kind_of(device) == SPREAD:
        return sum(memory_kept(f"cuda:{i}") for i in range(torch.cuda.device_count()))
    return torch.cuda.memory_allocated(device) if kind_of(device) == "cuda" else 0


def weights_size(spec: ModelSpec) -> int | None:
    """Add up the bytes of a model's weights, of a folder or in the Hub's cache.

    Parameters
    ----------
    spec : ModelSpec
        The model.

    Returns
    -------
    int or None
        Bytes; None if the files are not on this machine.
    """
    place = Path(spec.source) if spec.is_local else _cached(spec)
    if place is None or not place.exists():
        return None
    if spec.gguf_file is not None:
        place = place / spec.gguf_file
    if place.is_file():
        return place.stat().st_size
    for suffix in (*WEIGHTS, *PICKLES):
        sizes = [file.stat().st_size for file in place.glob(f"*{suffix}")]
        if sizes:
            return sum(sizes)
    return None


def kind_of(device: str) -> str:
    """Give a device's type; all GPUs together are one of their own."""
    return device if device == SPREAD else torch.device(device).type


def name_of(device: str) -> str:
    """Name the piece of hardware behind a device; elsewhere than on one GPU each process counts as one."""
    if kind_of(device) == "cuda":
        return f"gpu-{torch.cuda.get_device_properties(device).uuid}"
    return f"{socket.gethostname()}-{os.getpid()}"


def _by_gpus(gpus: str) -> list[str]:
    n_there = torch.cuda.device_count()
    numbers = gpus.split(",")
    if gpus != "all" and not all(number.strip().isdecimal() for number in numbers):
        raise InputError(f"--gpus {gpus!r}: use all, a number of GPUs, or some by number such as 0,2")
    if gpus != "all" and len(numbers) > 1:
        found = [f"cuda:{int(number)}" for number in numbers]
        if len(set(found)) < len(found):
            raise InputError(f"--gpus {gpus!r} names a GPU twice")
        return found
    n_asked = max(n_there, 1) if gpus == "all" else int(gpus)
    if not 0 < n_asked <= n_there:
        raise InputError(f"--gpus {gpus}: there {'is 1 GPU' if n_there == 1 else f'are {n_there} GPUs'} here")
    return [f"cuda:{i}" for i in range(n_asked)]


def _numbered(device: str) -> str:
    return "cuda:0" if device == "cuda" else device


def _cached(spec: ModelSpec) -> Path | None:
    """Find a Hub model's folder in the cache."""
    from transformers.utils import cached_file

    file = cached_file(
        spec.source,
        spec.gguf_file or "config.json",
        revision=spec.revision,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
    )
    if file is None:
        return None
    return Path(file).parents[len(Path(spec.gguf_file or "config.json").parts) - 1]
