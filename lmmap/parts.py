"""Parts: the finished batches of a row that is not finished, so that a kill costs little."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lmmap.files import whole_file


class Parts:
    """The finished batches of one row under one plan.

    Parameters
    ----------
    folder : Path
        Where they lie; its name is the plan's hash, so that batches of another plan are not mistaken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[int, np.ndarray]:
        """Read the finished batches: number of the batch -> its token log-probabilities."""
        batches: dict[int, np.ndarray] = {}
        for file in sorted(self.folder.glob("[!.]*.npz")):
            with np.load(file) as part:
                batches |= {int(key): part[key] for key in part.files}
        return batches

    def write(self, batches: Mapping[int, np.ndarray]) -> None:
        """Keep some more finished batches."""
        with whole_file(self.folder / f"{min(batches):08d}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **{str(number): values for number, values in batches.items()})  # type: ignore[arg-type]
