"""The demo's models as specs: what `models/demo*.yaml` list, wherever the models lie."""

from __future__ import annotations

from pathlib import Path

from lmmap.demo.design import SEPARATOR, zoo_rows
from lmmap.demo.smollm2 import NAME, ROUNDED
from lmmap.models import ModelSpec

N_PARAMETERS = 134_515_008


def zoo_specs(zoo: Path) -> list[ModelSpec]:
    """Name the zoo's models with their attributes.

    Parameters
    ----------
    zoo : Path
        Folder of the model folders.

    Returns
    -------
    list of ModelSpec
        One for each model.
    """
    return [
        ModelSpec(str(zoo / str(row["name"])), attributes={k: v for k, v in row.items() if k != "name"})
        for row in zoo_rows()
    ]


def smollm2_specs(folder: Path) -> list[ModelSpec]:
    """Name SmolLM2 and its rounded copies, which take the prefix of the model they were made from.

    Parameters
    ----------
    folder : Path
        Folder of the model folders.

    Returns
    -------
    list of ModelSpec
        The model itself first.
    """
    return [
        ModelSpec(
            str(folder / name),
            prefix=None if name == NAME else SEPARATOR,
            attributes={"family": "smollm2", "bits": bits, "n_parameters": N_PARAMETERS},
        )
        for name, bits in {NAME: 32, **ROUNDED}.items()
    ]
