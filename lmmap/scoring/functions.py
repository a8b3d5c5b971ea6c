"""Code of other packages in the place of transformers' own: functions of a model's files, types of models."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

CHOICE = "is_new_implementation"  # what transformers' own choice between its code and a package's remembers


class Replacement(NamedTuple):
    """A function of a file, and what shall be called instead of it."""

    names: dict[str, Any]
    name: str
    instead: Any


@contextmanager
def replaced(functions: Sequence[Replacement]) -> Iterator[None]:
    """Call others instead of some functions, for a while: they belong to transformers, not to a model.

    Parameters
    ----------
    functions : sequence of Replacement
        Which, and by what.
    """
    former = [names[name] for names, name, _ in functions]
    for names, name, instead in functions:
        names[name] = instead
    try:
        yield
    finally:
        for (names, name, _), function in zip(functions, former, strict=True):
            names[name] = function


def files_of(model: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Give the names in each file that the classes of a model's modules stand in."""
    return [vars(sys.modules[name]) for name in sorted({type(m).__module__ for m in model.modules()})]


def plain_functions(model: Any) -> list[Replacement]:  # noqa: ANN401
    """Find the functions for which other packages may stand in, and transformers' own code for each.

    Recurrent models take causal-conv1d, mamba-ssm and flash-linear-attention where they are installed. On an
    H200 these move float32 scores by 0.002 nats per text, and by 0.7 for one model.

    Parameters
    ----------
    model : PreTrainedModel
        Any model.

    Returns
    -------
    list of Replacement
        Empty for most models.
    """
    return [
        Replacement(names, name, function.__wrapped__)
        for names in files_of(model)
        for name, function in list(names.items())
        if CHOICE in getattr(getattr(function, "__code__", None), "co_freevars", ())
    ]


def no_packing() -> list[Replacement]:
    """Find what asks a GPU, and waits for its answer, whether sequences are packed: they never are here."""
    from transformers import masking_utils

    names, name = vars(masking_utils), "find_packed_sequence_indices"
    return [Replacement(names, name, lambda *_args, **_options: None)] if name in names else []


@contextmanager
def own_types() -> Iterator[None]:
    """Load the models that transformers knows with transformers' own code.

    A package may register classes of its own for a type: once flash-linear-attention is imported, which the
    code of some models does, ``mamba2`` would mean another model, moved by 0.7 nats per text.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    registered = CONFIG_MAPPING._extra_content
    taken = {kind: registered.pop(kind) for kind in list(registered) if kind in CONFIG_MAPPING_NAMES}
    try:
        yield
    finally:
        registered.update(taken)
