"""Results of the benchmarks of speed: rows in JSON files, each written as soon as it is measured."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lmmap.files import whole_file
from lmmap.version import __version__

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "triton", "lm_eval", "liger_kernel")

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file, none if it is not there."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return rows


def keep_row(path: Path, row: Row, identity: Sequence[str]) -> None:
    """Put a row into a file, in the place of one that was measured of the same thing before."""
    rows = [old for old in read_rows(path) if any(old[key] != row[key] for key in identity)]
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps([*rows, row], indent=1) + "\n", encoding="utf-8")


def circumstances(command: str, device: str) -> Row:
    """Tell what a run is measured on, and when it began: rows of one run share the date."""
    return {
        "device": device_name(device),
        "versions": _versions(),
        "command": f"python -m {command} {shlex.join(_without_folders(sys.argv[1:]))}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """Name the GPU, or the CPU and the threads in use."""
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def synchronize(device: str) -> None:
    """Wait for all that the device has been told to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "lmmap": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _without_folders(arguments: Sequence[str]) -> list[str]:
    """Leave out where on somebody's machine things lay."""
    return [Path(argument).name if argument.startswith("/") else argument for argument in arguments]
