"""Making what the demo needs, as far as it is not there yet: texts, the zoo, a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from lmmap.demo.folders import remove_unfinished
from lmmap.demo.installed import installed_versions
from lmmap.demo.smollm2 import make_smollm2
from lmmap.demo.zoo import make_zoo
from lmmap.files import read_json, write_json

SEED = 0
TEXTS_FORMAT = 1  # to be raised when other texts come out of the same packages


class DemoPaths(NamedTuple):
    """Where the demo's things lie, what identifies its texts, and what was made by this call."""

    texts: Path
    training: Path
    zoo: Path
    smollm2: Path | None
    fingerprint: str
    made: list[str]


def make_demo(folder: str | Path, *, smollm2: bool = True, workers: int | None = None) -> DemoPaths:
    """Make the demo's texts and models; what is finished is kept, and a second call waits for the first.

    Parameters
    ----------
    folder : str or Path
        Where everything goes: ``texts.parquet``, ``training.parquet``, ``zoo/NAME/``, ``smollm2/NAME/``.
    smollm2 : bool
        Whether SmolLM2 is fetched, from the network, and converted (1.6 GB with its copies).
    workers : int, optional
        Processes that train the zoo.

    Returns
    -------
    DemoPaths
        The paths, and the fingerprint of the texts to score.

    Raises
    ------
    InputError
        If the installed packages have too little text or SmolLM2 cannot be had.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts, training = folder / "texts.parquet", folder / "training.parquet"
    with FileLock(folder / ".making.lock"):
        remove_unfinished(folder / "zoo")
        remove_unfinished(folder / "smollm2")
        fingerprints = _texts(folder, texts, training)
        made = make_zoo(folder / "zoo", training, fingerprints["training"], workers=workers)
        if smollm2:
            made += make_smollm2(folder / "smollm2")
    return DemoPaths(
        texts=texts,
        training=training,
        zoo=folder / "zoo",
        smollm2=folder / "smollm2" if smollm2 else None,
        fingerprint=fingerprints["evaluation"],
        made=made,
    )


def _texts(folder: Path, evaluation: Path, training: Path) -> dict[str, str]:
    """Write both text sets unless they are there and from the same packages; give their fingerprints."""
    note = folder / "texts.json"
    recipe: dict[str, Any] = {"seed": SEED, "format": TEXTS_FORMAT, "packages": installed_versions()}
    if note.is_file() and evaluation.is_file() and training.is_file():
        noted = read_json(note)
        if noted["recipe"] == recipe:
            return dict(noted["fingerprints"])
    from lmmap.demo.texts import demo_texts

    texts = demo_texts(SEED)
    note.unlink(missing_ok=True)
    texts.evaluation.write(evaluation)
    texts.training.write(training)
    fingerprints = {"evaluation": texts.evaluation.fingerprint, "training": texts.training.fingerprint}
    write_json(note, {"recipe": recipe, "fingerprints": fingerprints})
    return fingerprints
