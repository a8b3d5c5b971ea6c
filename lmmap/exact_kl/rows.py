"""Rows: how many rows of logits are held at a time, so that no text ever has all of its own in memory."""

from __future__ import annotations

from collections.abc import Sequence

from lmmap.scoring.forward import LoadedModel

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**28}  # float32, of all models: 32 MiB, 1 GiB


def rows_at_once(models: Sequence[LoadedModel]) -> int:
    """Give the rows whose logits, of all models, are few enough to be held; at least one."""
    most = LOGITS_AT_ONCE.get(models[0].device.type, LOGITS_AT_ONCE["cpu"])
    return max(1, int(most // (len(models) * models[0].vocab_size)))
