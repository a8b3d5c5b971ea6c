"""An app: cells run by voila and shown as a page, without the notebook around them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lmmap.errors import InputError
from lmmap.signals import sigterm_exits


def serve_app(cells: Sequence[str], *, title: str, port: int | None = None, browser: bool = True) -> int:
    """Serve cells of code as a page of this machine, until it is interrupted.

    Parameters
    ----------
    cells : sequence of str
        Code; what the last line of each shows is on the page.
    title : str
        Of the page.
    port : int, optional
        Where; by default the first free one from 8866 on.
    browser : bool
        Whether a browser is opened.

    Returns
    -------
    int
        Exit status of voila.

    Raises
    ------
    InputError
        If voila is not installed.
    """
    if find_spec("voila") is None:
        raise InputError(
            "voila is not installed: pip install 'lmmap[app]', or open notebooks/08_explore.ipynb"
        )
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    notebook = {
        "cells": [{**empty, "id": str(i), "source": cell} for i, cell in enumerate(cells)],
        "metadata": {"title": title, "kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    with TemporaryDirectory(prefix="lmmap-") as folder:
        page = Path(folder) / f"{title}.ipynb"
        page.write_text(json.dumps(notebook), encoding="utf-8")
        command = [sys.executable, "-m", "voila", str(page)]
        command += [] if port is None else [f"--port={port}"]
        command += [] if browser else ["--no-browser"]
        with sigterm_exits(), subprocess.Popen(command) as voila:
            try:
                return voila.wait()
            except KeyboardInterrupt:
                return 0
            finally:
                voila.terminate()  # and its kernels with it, however this ends
