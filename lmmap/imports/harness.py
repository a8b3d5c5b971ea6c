"""The samples that lm-evaluation-harness logs: texts, and one log-likelihood for each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from lmmap.errors import InputError
from lmmap.imports.foreign_files import existing_file
from lmmap.imports.found import Found, log_likelihoods
from lmmap.texts import text_set

SAMPLES = re.compile(r"samples_(?P<task>.+)_\d{4}-\d\d-\d\dT[\d.:-]+")
LONGEST_LINE = 2**26  # bytes of one sample, which holds its text several times


def read_harness_samples(path: str | Path) -> Found:
    """Read what lm-evaluation-harness logs with ``--log_samples`` for a rolling-likelihood task.

    Parameters
    ----------
    path : str or Path
        A file ``samples_TASK_DATE.jsonl``, whose model is the name of its folder (``org__name``), or a folder
        of such folders with one task.

    Returns
    -------
    Found
        One row for each model, with the texts.

    Raises
    ------
    InputError
        If a sample is no rolling likelihood, a document is missing or given twice, or models were given other
        texts.
    """
    path = Path(path).expanduser()
    files = sorted(path.rglob("samples_*.jsonl")) if path.is_dir() else [existing_file(path)]
    if not files:
        raise InputError(
            f"{path} is a folder without samples_*.jsonl of lm-evaluation-harness; give a file of scores"
        )
    tasks = sorted({_task(file) for file in files})
    if len(tasks) > 1:
        raise InputError(
            f"{path}: samples of {len(tasks)} tasks, {tasks[0]!r} and {tasks[1]!r}; import one task"
        )
    texts, first = _samples(files[0])
    rows = [first]
    for file in files[1:]:
        others, values = _samples(file)
        differ = [i for i, (a, b) in enumerate(zip(texts, others, strict=False)) if a != b]
        if differ or len(others) != len(texts):
            place = f", the first at document {differ[0]}" if differ else ""
            raise InputError(
                f"{file}: {len(others)} documents, {files[0]} has {len(texts)}; the texts differ{place}"
            )
        rows.append(values)
    models = [file.resolve().parent.name.replace("__", "/", 1) for file in files]
    matrix = log_likelihoods(models, rows, str(path))
    return Found("lm-evaluation-harness samples", tuple(models), matrix, texts=text_set(texts, tasks[0]))


def is_harness_sample(path: Path) -> bool:
    """Tell logged samples from texts by the first line."""
    with path.open("rb") as file:
        line = file.readline(2**24)
    return b'"resps"' in line and b'"doc_id"' in line


def _task(file: Path) -> str:
    found = SAMPLES.fullmatch(file.stem)
    return found["task"] if found else file.stem.removeprefix("samples_")


def _samples(file: Path) -> tuple[list[str], np.ndarray]:
    """Read texts and values, in the order of the documents' numbers."""
    found: dict[int, tuple[str, float]] = {}
    with existing_file(file).open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE), b""), start=1):
            where = f"{file}, line {number}"
            try:
                doc, text, value = _sample(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
                raise InputError(
                    f"{where}: no sample of a rolling likelihood (one text in, one number out)"
                ) from None
            if doc in found:
                raise InputError(f"{where}: document {doc} is given twice")
            found[doc] = (text, value)
    in_order = [found[doc] for doc in sorted(found)]
    return [text for text, _ in in_order], np.array([value for _, value in in_order])


def _sample(sample: dict[str, Any]) -> tuple[int, str, float]:
    """Take a sample apart: ``arguments`` holds the text, ``resps`` the value, written as a text."""
    arguments, answers = sample["arguments"], sample["resps"]
    first = arguments["gen_args_0"] if isinstance(arguments, dict) else arguments[0]
    given = list(first.values()) if isinstance(first, dict) else list(first)
    (text,), ((answer,),) = given, answers
    if len(arguments) != 1 or not isinstance(text, str):
        raise ValueError
    while isinstance(answer, list | tuple):
        (answer,) = answer
    if type(sample["doc_id"]) is not int:
        raise ValueError
    return sample["doc_id"], text, float(answer)
