"""The prefix is chosen by rule for tokenizers of every kind, and audited."""

from __future__ import annotations

import pytest
import torch
from tiny import TEXTS, byte_tokenizer
from tokenizers import AddedToken, Tokenizer, models
from tokenizers.processors import TemplateProcessing
from tokenizers_of_all_kinds import KINDS, SlowPieces, fast, tokenizer_of
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.audit import audit_flag, audit_prefix
from lmmap.scoring.load import load_model
from lmmap.scoring.prefix import Prefix, candidate_prefixes, choose_prefix, is_chat_marker
from lmmap.scoring.score import score_texts

CHATML = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


def with_template(single: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Let a tokenizer put tokens around every text by itself."""
    around = [token for token in single.split() if not token.startswith("$")]
    pairs = [(token, tokenizer.convert_tokens_to_ids(token)) for token in around]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=pairs)
    return tokenizer


@pytest.mark.parametrize(
    ("special", "chat", "token", "rule"),
    [
        ({"eos_token": "<|endoftext|>"}, False, "<|endoftext|>", "document separator"),
        ({"bos_token": "<s>", "eos_token": "<s>"}, False, "<s>", "EOS of a base model"),
        ({"bos_token": "<s>", "eos_token": "<s>"}, True, "<s>", "BOS"),
        ({"bos_token": "<s>", "eos_token": "</s>"}, False, "</s>", "EOS of a base model"),
        ({"bos_token": "<s>", "eos_token": "</s>"}, True, "<s>", "BOS"),
        ({"bos_token": "<s>"}, False, "<s>", "BOS"),
        ({"bos_token": "<s>", "eos_token": "<|im_end|>"}, False, "<s>", "BOS"),
        ({**CHATML, "unk_token": "<|endoftext|>"}, True, "<|endoftext|>", "document separator"),
        ({**CHATML, "pad_token": "<|end_of_text|>"}, False, "<|end_of_text|>", "document separator"),
        (
            {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"},
            True,
            "<|startoftext|>",
            "document separator",
        ),
    ],
)
def test_prefix_rule(special, chat, token, rule):
    tokenizer = byte_tokenizer(**special)
    tokenizer.chat_template = "{{ messages }}" if chat else None
    prefix = choose_prefix(tokenizer)
    assert (prefix.token, prefix.rule) == (token, rule)
    assert prefix.id == tokenizer.convert_tokens_to_ids(token)


def test_a_separator_among_the_added_tokens_is_found_though_it_has_no_name():
    tokenizer = byte_tokenizer(**CHATML)
    tokenizer.add_tokens([AddedToken("<|endoftext|>", special=True)])
    assert "<|endoftext|>" not in tokenizer.all_special_tokens
    assert choose_prefix(tokenizer) == Prefix("<|endoftext|>", 258, "document separator")


@pytest.mark.parametrize(
    "single", ["<s> $A", "<s> $A <|endoftext|>", "<s> $A <s>", "<s> $A <|endoftext|> <|endoftext|>"]
)
def test_the_one_token_that_the_tokenizer_puts_in_front_comes_first(single):
    tokenizer = with_template(single, byte_tokenizer(bos_token="<s>", eos_token="<|endoftext|>"))
    assert choose_prefix(tokenizer) == Prefix("<s>", 256, "put there by the tokenizer")


def test_a_bos_that_old_settings_ask_for_comes_first(tmp_path):
    special = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}
    byte_tokenizer(**special).save_pretrained(tmp_path)
    for add_bos_token, rule in ((True, "put there by the tokenizer"), (False, "document separator")):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path, add_bos_token=add_bos_token)
        assert choose_prefix(tokenizer).rule == rule


@pytest.mark.parametrize("single", ["$A <|endoftext|>", "$A </s> <|endoftext|>"])
def test_what_the_tokenizer_puts_behind_is_no_prefix(single):
    tokenizer = with_template(single, byte_tokenizer(bos_token="</s>", eos_token="<|endoftext|>"))
    assert choose_prefix(tokenizer).rule == "document separator"
    assert choose_prefix(tokenizer_of("ByT5Tokenizer")).rule == "EOS of a base model"


def test_several_tokens_in_front_are_none_of_them_the_prefix():
    glm = byte_tokenizer(unk_token="[gMASK]", sep_token="<sop>", eos_token="<|endoftext|>")
    assert choose_prefix(with_template("[gMASK] <sop> $A", glm)).rule == "document separator"
    without = byte_tokenizer(unk_token="[gMASK]", sep_token="<sop>", eos_token="<|user|>")
    with pytest.raises(InputError, match=r"special tokens are '<sop>', '<\|user\|>', '\[gMASK\]'"):
        choose_prefix(with_template("[gMASK] <sop> $A", without))


def test_what_is_put_in_front_must_be_special_but_is_audited():
    tokenizer = byte_tokenizer(bos_token="<s>")
    tokenizer.add_tokens(["<x>"])
    chosen = choose_prefix(with_template("<x> $A", tokenizer))
    assert chosen == Prefix("<s>", 256, "BOS")
    assert [p.token for p in candidate_prefixes(tokenizer, chosen)] == ["<s>", "<x>"]


def test_a_chat_marker_that_the_tokenizer_puts_in_front_is_not_chosen():
    tokenizer = byte_tokenizer(**CHATML, unk_token="<|endoftext|>")
    assert choose_prefix(with_template("<|im_start|> $A", tokenizer)).token == "<|endoftext|>"


def test_an_unknown_character_is_not_taken_for_a_prefix():
    tokenizer = tokenizer_of("characters")  # knows no "b", and unknown is its only special token
    assert tokenizer("b")["input_ids"] == [tokenizer.unk_token_id]
    with pytest.raises(InputError, match="special tokens are '<unk>'"):
        choose_prefix(tokenizer)


def test_a_prefix_that_is_the_unknown_token_too_is_found_before_a_known_character():
    backend = Tokenizer(models.WordLevel({"<s>": 0, "1": 1}, unk_token="<s>"))
    tokenizer = with_template("<s> $A", fast(backend, bos_token="<s>", unk_token="<s>", eos_token="</s>"))
    assert tokenizer("a")["input_ids"] == [0, 0]
    assert choose_prefix(tokenizer) == Prefix("<s>", 0, "put there by the tokenizer")


def test_a_tokenizer_that_cuts_otherwise_among_its_own_tokens():
    class Moody(SlowPieces):
        def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
            return [self.eos_token_id, *(i for i in token_ids_0 if i != self.ids["▁"])]

    assert Moody()("a", add_special_tokens=False)["input_ids"] != Moody()("a")["input_ids"][1:]
    assert choose_prefix(Moody()) == Prefix("</s>", 1, "put there by the tokenizer")


@pytest.mark.parametrize(
    ("kind", "token"),
    [
        ("llama", "<s>"),
        ("llama_legacy", "<s>"),
        ("roberta", "<s>"),
        ("wordpiece", "[CLS]"),
        ("unigram_unknowns", "</s>"),
        ("tiktoken", "<|endoftext|>"),
        ("SlowPieces", "</s>"),
    ],
)
def test_tokenizers_of_all_kinds_have_their_prefix(kind, token):
    prefix = choose_prefix(tokenizer_of(kind))
    assert prefix.token == token
    assert tokenizer_of(kind).convert_ids_to_tokens(prefix.id) == token


def test_without_any_prefix_the_choices_are_named():
    with pytest.raises(InputError, match=r"special tokens are '<\|im_end\|>', '<\|im_start\|>'"):
        choose_prefix(byte_tokenizer(**CHATML))
    with pytest.raises(InputError, match=r"give one as `prefix:` .* it has no special token"):
        choose_prefix(byte_tokenizer(eos_token=None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_given_by_name_is_taken_or_refused(kind):
    tokenizer = tokenizer_of(kind)
    number = tokenizer("a", add_special_tokens=False)["input_ids"][-1]
    token = tokenizer.convert_ids_to_tokens(number)
    assert choose_prefix(tokenizer, token) == Prefix(token, number, "given")
    for unknown in ("<|im_strt|>", ""):
        with pytest.raises(InputError, match="is no token of this model"):
            choose_prefix(tokenizer, unknown)


def test_a_mistyped_token_is_told_the_nearest_one():
    tokenizer = byte_tokenizer(**CHATML)
    assert choose_prefix(tokenizer, "<|im_start|>").rule == "given"
    with pytest.raises(InputError, match=r"'<\|im_strt\|>' is no token .*closest: '<\|im_start\|>'"):
        choose_prefix(tokenizer, "<|im_strt|>")


MARKERS = """
<|im_start|> <|im_end|> <|im_sep|> <|im_user|> <|im_middle|> <|start_header_id|> <|end_header_id|>
<|eot_id|> <|eom_id|> <|header_start|> <|header_end|> <|eot|> <start_of_turn> <end_of_turn> <|turn>
<turn|> <|end_of_turn|> <|user|> <|assistant|> <|system|> <|observation|> <|start|> <|end|>
<|message|> <|channel|> <|call|> <|return|> [INST] [/INST] [SYSTEM_PROMPT] <|START_OF_TURN_TOKEN|>
<|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|start_of_role|> <|end_of_role|> <｜User｜>
<｜Assistant｜> <|User|> <|Bot|> <|BOT|> <|EOT|> <eoh> <eoa> [|system|] [|endofturn|] <|user_start|>
<|assistant_end|> <用户> <AI> <role> <|role_end|> <｜hy_User｜> <human> <bot> <|tool|> <tool_call>
"""
NO_MARKERS = """
<s> </s> <bos> <eos> <|endoftext|> <|end_of_text|> <|begin_of_text|> <|startoftext|>
<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> [CLS] [SEP] [BOS] [EOS] <BOS_TOKEN> <EOS_TOKEN> <seed:bos>
<|bos|> <unk> <pad> [gMASK] <sop> <|beginoftext|> <|padding|> <|separator|> <|eos|> ~
"""


def test_chat_markers_of_the_known_families_are_known():
    assert [token for token in MARKERS.split() if not is_chat_marker(token)] == []
    assert [token for token in NO_MARKERS.split() if is_chat_marker(token)] == []


# Audit


def test_candidates_come_without_repetition_and_with_separators_that_are_not_flagged():
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="<s>")
    tokenizer.add_tokens(["<|endoftext|>"])
    chosen = choose_prefix(tokenizer, "<s>")
    assert [p.token for p in candidate_prefixes(tokenizer, chosen)] == ["<s>", "<|endoftext|>"]
    assert candidate_prefixes(tokenizer, chosen)[0].rule == "given"


def test_the_audit_flags_a_prefix_that_another_candidate_beats(make_model):
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="<|endoftext|>")
    folder = make_model("llama", seed=1, scale=15.0, tokenizer=tokenizer)
    rows = {
        prefix: score_texts(load_model(ModelSpec(str(folder), prefix=prefix)), TEXTS)
        for prefix in ("<s>", "<|endoftext|>")
    }
    audits = [row.provenance["audit"] for row in rows.values()]
    assert [list(audit) for audit in audits] == [["<s>", "<|endoftext|>"], ["<|endoftext|>", "<s>"]]
    means = {prefix: row.log_likelihood.mean() for prefix, row in rows.items()}
    for audit in audits:
        assert audit == pytest.approx(means, abs=1e-3)
    flags = {prefix: row.provenance["flags"] for prefix, row in rows.items()}
    best, other = max(means, key=means.get), min(means, key=means.get)
    assert flags[best] == []
    assert means[best] - means[other] > 1
    assert flags[other] == [audit_flag({other: means[other], best: means[best]})]


class Fixed:
    """A model whose tokens have the log-probabilities that are given for each prefix."""

    context = None

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, nats: dict[int, float], vocab_size: int = 300
    ) -> None:
        self.tokenizer, self.nats, self.vocab_size, self.shapes = tokenizer, nats, vocab_size, []

    def score(self, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(ids.shape))
        return torch.tensor([self.nats[int(row[0])] for row in ids]).repeat_interleave(keep.shape[1])


def test_the_audit_reads_sixteen_texts_spread_over_the_set_32_tokens_of_each_and_pads_none():
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    model = Fixed(tokenizer, {256: -1.0, 257: -0.5})
    texts = ["x" * 5] + ["y" * 100] * 98 + ["z" * 7]
    table = audit_prefix(model, texts, choose_prefix(tokenizer))
    assert model.shapes == [(1, 6), (1, 8), (14, 33)] * 2
    mean_length = (5 + 7 + 14 * 32) / 16
    assert table == {"</s>": -0.5 * mean_length, "<s>": -1.0 * mean_length}
    assert next(iter(table)) == "</s>"
    assert audit_flag(table) is None


@pytest.mark.parametrize("nats", [float("nan"), float("-inf"), float("inf")])
def test_a_candidate_without_an_embedding_or_a_finite_score_cannot_win(nats):
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    chosen = choose_prefix(tokenizer, "<s>")
    assert list(audit_prefix(Fixed(tokenizer, {256: -1.0, 257: nats}), TEXTS, chosen)) == ["<s>"]
    assert list(audit_prefix(Fixed(tokenizer, {256: -1.0}, vocab_size=257), TEXTS, chosen)) == ["<s>"]


def test_the_flag_needs_more_than_one_nat():
    assert audit_flag({"a": -2.0, "b": -1.0}) is None
    assert (
        audit_flag({"a": -2.001, "b": -1.0, "c": -1.5})
        == "prefix 'b' would score 1.0 nats per text more than 'a'"
    )
    assert audit_flag({"a": -1.0, "b": -9.0}) is None
