"""The token in front of every text: how it is chosen, and what else could have stood there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmmap.errors import InputError, closest

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "<|startoftext|>")
CHAT_MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
    "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|start|>", "[INST]", "[/INST]",
)  # fmt: skip


@dataclass(frozen=True)
class Prefix:
    """The prefix token of a row.

    Parameters
    ----------
    token : str
        The token as it is written.
    id : int
        Its id.
    rule : str
        Why it was chosen.
    """

    token: str
    id: int
    rule: str


def choose_prefix(tokenizer: Any, override: str | None = None) -> Prefix:  # noqa: ANN401
    """Choose the one token that every text is conditioned on.

    The first that applies: the models list says so; the single special token that the tokenizer itself
    puts in front of plain text; a document separator found by name or, for a model without a chat
    template, EOS; BOS, unless it is a chat marker.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A transformers tokenizer.
    override : str, optional
        The token that the models list gives.

    Returns
    -------
    Prefix
        Token, id and rule.

    Raises
    ------
    InputError
        If the override is no single token, or nothing applies: the choices are named.
    """
    if override is not None:
        return Prefix(override, _known_id(tokenizer, override), "given")
    added = _added_in_front(tokenizer)
    if len(added) == 1:
        return Prefix(tokenizer.convert_ids_to_tokens(added[0]), added[0], "put there by the tokenizer")
    special = set(tokenizer.all_special_tokens)
    for token in SEPARATORS:
        if token in special:
            return Prefix(token, _known_id(tokenizer, token), "document separator")
    eos, bos = tokenizer.eos_token, tokenizer.bos_token
    if eos and not tokenizer.chat_template and eos not in CHAT_MARKERS:
        return Prefix(eos, _known_id(tokenizer, eos), "EOS of a base model")
    if bos and bos not in CHAT_MARKERS:
        return Prefix(bos, _known_id(tokenizer, bos), "BOS")
    choices = (
        ", ".join(repr(token) for token in sorted(special)) or "none: the tokenizer has no special token"
    )
    raise InputError(
        f"no prefix token can be chosen by rule; give `prefix:` in the models list, one of {choices}"
    )


def candidate_prefixes(tokenizer: Any, chosen: Prefix) -> list[Prefix]:  # noqa: ANN401
    """List what could stand in front: the chosen token first, then the others a reader might think of.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A transformers tokenizer.
    chosen : Prefix
        What `choose_prefix` gave.

    Returns
    -------
    list of Prefix
        Without repetition.
    """
    special = set(tokenizer.all_special_tokens)
    tokens = [tokenizer.bos_token, tokenizer.eos_token, *(token for token in SEPARATORS if token in special)]
    found = {chosen.token: chosen}
    for token in tokens:
        if token and token not in found:
            found[token] = Prefix(token, _known_id(tokenizer, token), "candidate")
    return list(found.values())


def _added_in_front(tokenizer: Any) -> list[int]:  # noqa: ANN401
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    for n in range(len(dressed) - len(plain) + 1):
        if dressed[n : n + len(plain)] == plain:
            return list(dressed[:n])
    return []


def _known_id(tokenizer: Any, token: str) -> int:  # noqa: ANN401
    vocabulary = tokenizer.get_vocab()
    if token not in vocabulary:
        special = tokenizer.all_special_tokens
        raise InputError(
            f"prefix {token!r} is no token of this model{closest(token, special)}; its special tokens are "
            f"{', '.join(map(repr, special)) or 'none'}"
        )
    return int(vocabulary[token])
