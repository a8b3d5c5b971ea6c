"""The token in front of every text: how it is chosen, and what else could have stood there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from lmmap.errors import InputError, closest

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "<|startoftext|>")
CHAT_WORDS = {
    "assistant", "bot", "call", "channel", "chatbot", "developer", "endofturn", "eoa", "eoh", "eom", "eot",
    "header", "human", "im", "inst", "message", "observation", "response", "return", "role", "system", "tool",
    "turn", "user", "userprompt", "用户",
}  # fmt: skip
CHAT_MARKERS = {"<|start|>", "<|end|>", "<AI>", "]~b]", "]~!b[", "[e~["}  # whose words do not tell
PROBES = ("a", "1", ".", "中")


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


def is_chat_marker(token: str) -> bool:
    """Tell whether a token marks who speaks, or where a turn of a chat begins or ends.

    Parameters
    ----------
    token : str
        A special token.

    Returns
    -------
    bool
        True for ``<|im_start|>``, ``<end_of_turn>``, ``[INST]``, ``<|eot_id|>``, ``<｜User｜>``, ...

    Examples
    --------
    >>> [is_chat_marker(token) for token in ("<|im_end|>", "[INST]", "<|endoftext|>", "</s>")]
    [True, True, False, False]
    """
    words = re.split(r"[\W_]+", token.lower())
    return token in CHAT_MARKERS or not CHAT_WORDS.isdisjoint(words)


def choose_prefix(tokenizer: Any, override: str | None = None) -> Prefix:  # noqa: ANN401
    """Choose the one token that every text is conditioned on.

    The first that applies: the models list says so; the special token that the tokenizer itself puts in
    front of plain text, if it is one and no more (``[gMASK]<sop>`` are two: the rules below go on); a
    document separator found by name among special and added tokens or, for a model without a chat
    template, EOS; BOS. A chat marker is chosen only by the models list.

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
        number = _id_of(tokenizer, override)
        if number is None:
            raise InputError(
                f"prefix {override!r} is no token of this model{closest(override, _special(tokenizer))}; "
                f"{_choices(tokenizer)}"
            )
        return Prefix(override, number, "given")
    for token, rule in _by_rule(tokenizer):
        number = _id_of(tokenizer, token)
        if number is not None and not is_chat_marker(token):
            return Prefix(token, number, rule)
    raise InputError(
        "no prefix token can be chosen by rule; give one as `prefix:` in the models list; "
        f"{_choices(tokenizer)}"
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
        BOS and EOS, what the tokenizer puts in front, special or not, and every document separator in the
        vocabulary; no id twice.
    """
    found = {chosen.id: chosen}
    in_front = tokenizer.convert_ids_to_tokens(_in_front(tokenizer))
    for token in (tokenizer.bos_token, tokenizer.eos_token, *in_front, *SEPARATORS):
        number = _id_of(tokenizer, token) if token else None
        if number is not None and number not in found:
            found[number] = Prefix(token, number, "candidate")
    return list(found.values())


def _by_rule(tokenizer: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Give token and rule, the best first; what is no token of this model is among them."""
    special = _special(tokenizer)
    in_front = tokenizer.convert_ids_to_tokens(_in_front(tokenizer))
    if len(in_front) == 1 and in_front[0] in special:
        yield in_front[0], "put there by the tokenizer"
    added = {str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()}
    for token in SEPARATORS:
        if token in added or token in special:
            yield token, "document separator"
    if tokenizer.eos_token and not tokenizer.chat_template:
        yield tokenizer.eos_token, "EOS of a base model"
    if tokenizer.bos_token:
        yield tokenizer.bos_token, "BOS"


def _in_front(tokenizer: Any) -> list[int]:  # noqa: ANN401
    """Find the ids that the tokenizer puts in front of plain text by itself."""
    special, runs = set(tokenizer.all_special_ids), []
    for probe in PROBES:
        plain = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
        dressed = list(tokenizer(probe)["input_ids"])
        room = range(len(dressed) - len(plain) + 1)
        places = [n for n in room if dressed[n : n + len(plain)] == plain]
        if plain and len(places) == 1:
            return dressed[: places[0]]
        runs.append(list(takewhile(special.__contains__, dressed)))
    return min(runs, key=len)  # the pieces differ: what is special at the start is no text


def _special(tokenizer: Any) -> list[str]:  # noqa: ANN401
    """List the tokens that are declared special, under a name or when they were added."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    flagged = [str(token) for token in added if getattr(token, "special", False)]
    return list(dict.fromkeys([*tokenizer.all_special_tokens, *flagged]))


def _choices(tokenizer: Any) -> str:  # noqa: ANN401
    in_front = tokenizer.convert_ids_to_tokens(_in_front(tokenizer))
    names = sorted({*_special(tokenizer), *in_front})[:20]
    return f"its special tokens are {', '.join(map(repr, names))}" if names else "it has no special token"


def _id_of(tokenizer: Any, token: str) -> int | None:  # noqa: ANN401
    """Look a token up as it is written; None if the vocabulary lacks it."""
    try:
        number = tokenizer.convert_tokens_to_ids(token)
    except (KeyError, TypeError, ValueError):  # a back end that knows no unknown token
        return None
    known = number is not None and tokenizer.convert_ids_to_tokens(number) == token
    return int(number) if known else None
