"""A plain loop over transformers' own forward that can read texts as other tools do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LM_EVAL_LENGTH = 1024
HABITS = {
    "special": "reads strings that look special as special tokens",
    "joined": "cuts prefix and text into tokens together",
    "default": "has no prefix: the first id that its tokenizer gives is not scored",
    "rolling": "goes on behind the context, or 1,024 tokens, in windows without a prefix",
    "beyond": "reads on behind the context as if there were none",
    "truncated": "scores nothing behind the context",
    "rough softmax": "takes `log_softmax` in float32, which is biased over a large vocabulary",
    "float32": "adds up in float32",
}
"""What other tools do with a text, told of the tool."""


class Reading(NamedTuple):
    """How a text is cut into tokens, these laid into windows, the softmax taken and the total added up."""

    tokens: str = "plain"
    windows: str = "half"
    softmax: str = "float64"
    total: str = "float64"


class Window(NamedTuple):
    """Ids that the model sees at once, and how many at the end are scored."""

    ids: tuple[int, ...]
    n_scored: int


class PlainModel:
    """A model folder read with nothing of lmmap: one window at a time, full logits, float32."""

    def __init__(self, folder: str, prefix: str, context: int | None) -> None:
        self.folder, self.prefix, self.context = folder, prefix, context
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.prefix_id = int(self.tokenizer.convert_tokens_to_ids(prefix))
        self.seen: dict[Window, tuple[torch.Tensor, torch.Tensor]] = {}

    def score(self, text: str, reading: Reading) -> float:
        """Add up the log-probabilities of a text, read in the given way."""
        sequence = TOKENS[reading.tokens](self, text)
        windows = WINDOWS[reading.windows](sequence, self.context)
        pieces = [self._log_probs(window)[reading.softmax == "rough softmax"] for window in windows]
        add_in = torch.float32 if reading.total == "float32" else torch.float64
        return sum(float(piece.to(add_in).sum()) for piece in pieces)

    def is_long(self, text: str) -> bool:
        """Tell whether a text has more tokens than the model has positions."""
        return self.context is not None and len(plain_tokens(self, text)) - 1 > self.context

    def _log_probs(self, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities by a softmax in float64 and by one in float32."""
        if window not in self.seen:
            ids = torch.tensor(window.ids)
            with torch.inference_mode():
                logits = self.model(ids[None, :-1]).logits[0, -window.n_scored :]
                chosen = [
                    logits.log_softmax(-1, dtype=dtype).gather(1, ids[-window.n_scored :, None])[:, 0]
                    for dtype in (torch.float64, torch.float32)
                ]
            self.seen[window] = chosen[0], chosen[1]
        return self.seen[window]


# How others cut texts into tokens: the first id is never scored.


def plain_tokens(model: PlainModel, text: str) -> list[int]:
    ids = model.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [model.prefix_id, *ids]


def special_tokens(model: PlainModel, text: str) -> list[int]:
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [model.prefix_id, *ids]


def joined_tokens(model: PlainModel, text: str) -> list[int]:
    front = "" if puts_prefix_itself(model) else model.prefix
    return model.tokenizer(front + text)["input_ids"]


def default_tokens(model: PlainModel, text: str) -> list[int]:
    return model.tokenizer(text)["input_ids"]


def puts_prefix_itself(model: PlainModel) -> bool:
    return model.tokenizer.decode(model.tokenizer("a")["input_ids"][0]) == model.prefix


TOKENS = {
    "plain": plain_tokens,
    "special": special_tokens,
    "joined": joined_tokens,
    "default": default_tokens,
}


# How others lay them into windows of `context` positions.


def half_windows(ids: list[int], context: int | None) -> Iterator[Window]:
    """lmmap's: the prefix in front of each, half a context apart, each token scored where it comes first."""
    prefix, tokens = ids[0], ids[1:]
    size, start, done = context or len(tokens), 0, 0
    while done < len(tokens):
        piece = tokens[start : start + size]
        end = start + len(piece)
        yield Window((prefix, *piece), end - done)
        start, done = start + size // 2, end


def rolling_windows(ids: list[int], context: int | None) -> Iterator[Window]:
    """lm-evaluation-harness's: each scores what is new; only the last one has more context than it must."""
    size = min(LM_EVAL_LENGTH, context or LM_EVAL_LENGTH)
    for start in range(0, len(ids) - 1, size):
        end = min(start + size, len(ids) - 1)
        yield Window(tuple(ids[max(0, end - size) : end + 1]), end - start)


def one_window(ids: list[int], context: int | None) -> Iterator[Window]:
    yield Window(tuple(ids), len(ids) - 1)


def truncated_window(ids: list[int], context: int | None) -> Iterator[Window]:
    return one_window(ids[:context], context)


WINDOWS = {
    "half": half_windows,
    "rolling": rolling_windows,
    "beyond": one_window,
    "truncated": truncated_window,
}
