"""Batches: set going one after another, and their values sorted by sequence."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from lmmap.scoring.encode import Encoded
from lmmap.scoring.forward import LoadedModel

AHEAD = {"cuda": 3}  # batches set going before the values of one are waited for


def score_batches(
    model: LoadedModel, sequences: Sequence[Encoded], batches: Sequence[np.ndarray], numbers: Iterable[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Score batches, one after another.

    Sequences are padded on the right and read without a mask; hidden states of scored positions alone go
    through the model's own head, in float32.

    Parameters
    ----------
    model : LoadedModel
        The model.
    sequences : sequence of Encoded
        Ids and which of them count.
    batches : sequence of int arrays
        The plan, from `plan_batches`.
    numbers : iterable of int
        Which of them.

    Yields
    ------
    int, float32 array
        A batch's number and the log-probabilities of its scored tokens, sequence after sequence, in nats.
        Whether they are numbers is for `finish` to see.
    """
    under_way: deque[tuple[int, Callable[[], np.ndarray]]] = deque()
    for number in numbers:
        under_way.append((number, _start(model, [sequences[i] for i in batches[number]])))
        if len(under_way) > AHEAD.get(model.device.type, 0):
            number, values = under_way.popleft()
            yield number, values()
    for number, values in under_way:
        yield number, values()


def token_log_probs(
    model: LoadedModel, sequences: Sequence[Encoded], batches: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Log-probability of every scored token, in nats.

    Parameters
    ----------
    model, sequences, batches
        As `score_batches`.

    Returns
    -------
    list of float32 arrays
        For each sequence the log-probabilities of its scored tokens.
    """
    values = dict(score_batches(model, sequences, batches, range(len(batches))))
    return by_sequence(sequences, batches, values)


def by_sequence(
    sequences: Sequence[Encoded], batches: Sequence[np.ndarray], values: Mapping[int, np.ndarray]
) -> list[np.ndarray]:
    """Sort the values of batches by sequence.

    Parameters
    ----------
    sequences, batches
        As `score_batches`.
    values : mapping
        Number of a batch -> log-probabilities of its scored tokens.

    Returns
    -------
    list of float32 arrays
        For each sequence the log-probabilities of its scored tokens.
    """
    result: list[np.ndarray] = [np.empty(0, np.float32)] * len(sequences)
    for number, batch in enumerate(batches):
        counts = [int(sequences[i].scored.sum()) for i in batch]
        for i, piece in zip(batch, np.split(values[number], np.cumsum(counts)[:-1]), strict=True):
            result[i] = piece
    return result


def _start(model: LoadedModel, members: Sequence[Encoded]) -> Callable[[], np.ndarray]:
    """Set a batch going; what is returned waits for its values."""
    longest = max(len(e.ids) for e in members)
    ids = np.zeros((len(members), longest), dtype=np.int64)
    scored = np.zeros((len(members), longest), dtype=bool)
    for row, e in enumerate(members):
        ids[row, : len(e.ids)] = e.ids
        scored[row, : len(e.ids)] = e.scored
    with torch.inference_mode():
        values = model.score(torch.from_numpy(ids), torch.from_numpy(scored[:, 1:])).float()
        if not values.is_cuda:
            return partial(np.asarray, values)
        there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        there.copy_(values, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(values.device))

    def wait() -> np.ndarray:
        done.synchronize()
        return np.array(there)

    return wait
