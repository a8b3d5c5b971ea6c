"""The oracle: log-likelihoods by transformers' own forward, with nothing of lmmap's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch


class Oracle:
    """Scores one text at a time with no mask and eager experts.

    In float64 where the architecture runs in it, else in float32; every text is read by a copy of the
    model that has read nothing before.
    """

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str = "<|endoftext|>",
        trust_remote_code: bool = False,
        device: str = "cpu",
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.prefix = self.tokenizer.convert_tokens_to_ids(prefix)
        for self.dtype in (torch.float64, torch.float32):
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=self.dtype,
                experts_implementation="eager",
                trust_remote_code=trust_remote_code,
            )
            self.model = model.to(device).eval()
            try:
                self.by_token([1, 2])
                return
            except RuntimeError:  # some architectures mix precisions
                continue

    def by_token(self, ids: Sequence[int]) -> np.ndarray:
        """Give each id's log-probability after the prefix and the ids before it."""
        sequence = torch.tensor([[self.prefix, *ids[:-1]]], device=self.model.device)
        with torch.no_grad():
            output = copy.deepcopy(self.model)(sequence, use_cache=False)
        log_probs = torch.log_softmax(output.logits[0].double(), -1)
        return np.array([float(log_probs[t, i]) for t, i in enumerate(ids)])

    def tokens(self, text: str, context: int | None) -> np.ndarray:
        """Score a text's tokens; a long text in windows of the context that start half a context apart.

        Every token counts once, in the first window that holds it.
        """
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        context = context or len(ids)
        values, start = list(self.by_token(ids[:context])), 0
        while len(values) < len(ids):
            start += context // 2
            values += list(self.by_token(ids[start : start + context])[len(values) - start :])
        return np.array(values)
