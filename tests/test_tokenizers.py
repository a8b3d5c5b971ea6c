"""Tokenizers of every kind cut texts honestly: what is text stays text, and every token knows its bytes."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import Oracle
from tiny import byte_tokenizer
from tokenizers import AddedToken, Tokenizer, models
from tokenizers_of_all_kinds import EOS, KINDS, SlowPieces, fast, tokenizer_of
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring import encode
from lmmap.scoring.byte_ends import ends_by_bytes, ends_by_spans, token_bytes
from lmmap.scoring.encode import Tokenized, tokenize
from lmmap.scoring.load import load_model
from lmmap.scoring.prefix import choose_prefix
from lmmap.scoring.score import score_texts

SPECIAL = ["<|endoftext|>", "<s>", "</s>", "<unk>", "[INST]", "[CLS]", "<0x0A>", "▁", "##s", "Ġ"]
STRANGE = {
    "one byte": "x",
    "a blank": " ",
    "only blanks": " \t\n\r\n \u00a0\u3000 ",
    "only special strings": "".join(SPECIAL),
    "NUL": "a\0b\0",
    "byte order mark": "\ufeffcafé",
    "CRLF": "one\r\ntwo\r\n\r\n",
    "right to left": "שלום \u202eעולם\u202c مرحبا",
    "combining": "e\u0301e\u0301\u0323 a\u0308\u0304 \u1112\u1161\u11ab",
    "emoji": "👩‍👩‍👧🏳️‍🌈🙂🙂🙂",
    "wide": "ﬁ½ ①ＡＢ ﷺ Å İ",
    "one character again and again": "日日日日ééééé",
    "private and unassigned": "\ue000\U000f0000\u0378\uffff\ufffd",
    "highest": "\U0010ffff",
    "blanks around": "  two  blanks  ",
}
FUZZED = st.lists(
    st.one_of(
        st.sampled_from([*SPECIAL, *STRANGE.values(), "the", " ", "  ", "\n", "日本", "é", "e\u0301", "🙂"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    ),
    min_size=1,
    max_size=8,
).map("".join).filter(bool)  # fmt: skip
LOSING = {"qwen", "roberta", "unigram_unknowns", "wordpiece", "characters", "dropping", "words", "SlowWords"}
SLOW = {"ByT5Tokenizer", "CanineTokenizer", "SlowPieces", "SlowWords"}


def cut(kind: str, *texts: str) -> Tokenized:
    return tokenize(tokenizer_of(kind), texts)


def check_byte_ends(text: str, ends: np.ndarray) -> None:
    """Known ends never decrease, and lie within the text."""
    known = ends[ends >= 0]
    assert (np.diff(known) >= 0).all()
    assert ends.min() >= -1
    assert ends.max() <= len(text.encode())


def own_text(kind: str, token: str) -> str:
    """What a token says by itself, where it holds whole characters; None of this project's readings."""
    tokenizer = tokenizer_of(kind)
    anchor = tokenizer("1", add_special_tokens=False)["input_ids"]
    number = tokenizer.convert_tokens_to_ids(token)
    alone, pair = (tokenizer.decode(ids) for ids in (anchor, [*anchor, number]))
    return pair.removeprefix(alone)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(text=FUZZED)
def test_any_text_is_cut_rightly_or_refused_by_name(kind, text):
    tokenizer = tokenizer_of(kind)
    plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if not plain:
        with pytest.raises(InputError, match=r"text 1 \(.*\) has no tokens for "):
            tokenize(tokenizer, [text])
        return
    tokenized = tokenize(tokenizer, [text])
    (ids,), (ends,) = tokenized.ids, tokenized.byte_end
    assert ids.tolist() == plain
    assert ids.dtype == ends.dtype == np.int32
    assert len(ids) == len(ends)
    check_byte_ends(text, ends)
    if kind not in LOSING and not text.startswith(" ") and not tokenized.special_hits[0]:
        assert bool(tokenized.lossy) == (tokenizer.decode(ids.tolist()) != text)
        if kind != "SlowPieces" or not tokenized.lossy:  # it takes a "▁" of the text for a blank
            assert ends[-1] == len(text.encode())
    if kind not in LOSING | SLOW:
        assert (ends >= 0).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {*LOSING, "SlowPieces"}])
@pytest.mark.parametrize("text", ["The capital of France is Paris.", "日本日本 the café\n", "x  é🙂🙂 日"])
def test_each_token_spans_its_own_bytes(kind, text):
    tokenized = cut(kind, text)
    (ends,), (ids,) = tokenized.byte_end, tokenized.ids
    assert tokenized.lossy == 0
    encoded, start = text.encode(), 0
    for token, end in zip(tokenizer_of(kind).convert_ids_to_tokens(ids.tolist()), ends, strict=True):
        if end < 0:
            assert kind == "ByT5Tokenizer"  # inside a character
            continue
        piece = encoded[start:end].decode(errors="ignore")
        if piece.encode() == encoded[start:end] and kind != "ByT5Tokenizer" and start:
            assert own_text(kind, token) == piece
        start = end
    assert start == len(encoded)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRANGE)
def test_strange_texts_do_not_depend_on_their_company(kind, name):
    tokenizer, text = tokenizer_of(kind), STRANGE[name]
    company = ["The capital", "x" * 300, "a"]
    try:
        alone = tokenize(tokenizer, [text])
    except InputError:
        with pytest.raises(InputError, match=r"text 3 \(.*\) has no tokens for "):
            tokenize(tokenizer, [*company[:2], text, company[2]])
        return
    together = tokenize(tokenizer, [*company[:2], text, company[2]])
    assert together.ids[2].tolist() == alone.ids[0].tolist()
    assert together.byte_end[2].tolist() == alone.byte_end[0].tolist()
    assert together.special_hits[2] == alone.special_hits[0]
    assert together.lossy >= alone.lossy / 4


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_are_none_are_refused_before_the_tokenizer_sees_them(kind):
    for text, told in (
        ("a\ud800b", "text 2: not valid UTF-8, character 1 is the lone surrogate"),
        ("", "text 2: the text is empty"),
        (None, "text 2: expected a text, got NoneType"),
    ):
        with pytest.raises(InputError, match=told):
            tokenize(tokenizer_of(kind), ["a", text])
    for none in ([], "a text"):
        with pytest.raises(InputError, match="expected a list of texts"):
            tokenize(tokenizer_of(kind), none)


def test_what_a_tokenizer_cannot_cut_is_told_with_the_text():
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(InputError, match=r"text 2 \('b'\) cannot be cut by TokenizersBackend: .*UNK"):
        tokenize(tokenizer, ["a", "b"])
    with pytest.raises(InputError, match=r"text 1 \('日'\) has no tokens for .*; remove it"):
        tokenize(tokenizer_of("dropping"), ["日"])

    class NoUnknown(SlowPieces):
        def _convert_token_to_id(self, token):
            return self.ids.get(token)

    with pytest.raises(InputError, match=r"text 2 \('日'\) has tokens without an id for NoUnknown"):
        tokenize(NoUnknown(unk_token=None), ["a", "日"])


def test_a_tokenizer_that_cuts_at_random_is_refused():
    tokenizer = fast(Tokenizer(models.BPE({"a": 0, "aa": 1}, [("a", "a")], dropout=0.5)))
    with pytest.raises(InputError, match=r"cuts at random \(dropout 0\.5\)"):
        tokenize(tokenizer, ["aaaa"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_megabyte_is_cut_whole(kind):
    whole = kind in {"gpt2", "llama", "unigram_unknowns"}  # the others are read alike, and cost as much
    text = ("The café, 日本 x\n" * 60_000)[: 900_000 if whole else 20_000]
    (ends,) = cut(kind, text).byte_end
    check_byte_ends(text, ends)
    if kind not in {"words", "dropping", "wordpiece", "SlowWords", "SlowPieces", "unigram_unknowns"}:
        assert ends[-1] == len(text.encode())


# Special strings


def test_strings_that_look_special_are_text(make_model):
    model = load_model(ModelSpec(str(make_model("llama"))))
    row = score_texts(model, ["a<|endoftext|>b"])
    assert row.n_tokens[0] == len("a<|endoftext|>b")
    assert row.special_hits[0] == 0


@pytest.mark.parametrize(
    ("kind", "string", "hits"),
    [
        ("gpt2", EOS, 0),
        ("across_characters", EOS, 0),
        ("tiktoken", EOS, 0),
        ("roberta", "<s>", 0),
        ("llama", "<s>", 0),
        ("llama_legacy", "</s>", 0),
        ("unigram_bytes", "<s>", 1),  # a piece like any other: cannot be split
        ("unigram_unknowns", "</s>", 1),
        ("wordpiece", "[CLS]", 3),  # brackets and name, all unknown
        ("characters", "<unk>", 3),  # of its characters
        ("ByT5Tokenizer", "</s>", 0),
        ("SlowPieces", "</s>", 1),
    ],
)
def test_special_strings_are_split_or_counted(kind, string, hits):
    tokenized = cut(kind, f"a{string}a")
    assert tokenized.special_hits.tolist() == [hits]
    n_special = np.isin(tokenized.ids[0], tokenizer_of(kind).all_special_ids).sum()
    assert n_special == hits


def test_added_tokens_that_cannot_be_split_are_counted_but_for_blanks():
    tokenizer = byte_tokenizer(eos_token=EOS)
    tokenizer.add_tokens(["[INST]", "    ", "\n\n", AddedToken("<think>", special=True)])
    tokenizer.add_tokens([AddedToken("\t\t", special=True)])
    tokenized = tokenize(tokenizer, ["a[INST]b", "    x\n\n\n\n", "<think>\t\t", "plain"])
    assert tokenized.special_hits.tolist() == [1, 0, 0, 0]
    assert len(tokenized.ids[1]) == 4
    assert tokenized.byte_end[1].tolist() == [4, 5, 7, 9]
    assert tokenized.lossy == 0


class Refuses(SlowPieces):
    """A back end of its own that knows no such option."""

    def __call__(self, text, **options):
        if "split_special_tokens" in options:
            raise ValueError("`split_special_tokens` is not supported")
        return super().__call__(text, **options)


class Ignores(SlowPieces):
    """A back end of its own that takes the option and forgets it."""

    def tokenize(self, text, **_):
        return super().tokenize(text, split_special_tokens=False)


@pytest.mark.parametrize("kind", [Refuses, Ignores])
def test_where_special_strings_cannot_be_split_they_are_counted(kind):
    tokenizer = kind(additional_special_tokens=["<|x|>"])
    tokenized = tokenize(tokenizer, ["a<|x|>a", "plain", "a</s>"])
    assert tokenized.special_hits.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("kind", "text", "tokens", "ends", "hits"),
    [
        ("wordpiece", "the Café", ["[CLS]", "the", "cafe", "[SEP]"], [0, 3, 9, 9], 0),
        ("wordpiece", "the ☂", ["[CLS]", "the", "[UNK]", "[SEP]"], [0, 3, 7, 7], 1),
        ("roberta", "xé", ["<s>", "Ġx", "Ã©", "</s>"], [-1, -1, -1, -1], 0),
        ("llama", "é</s>", ["<s>", "▁", "é", "</s>"], [0, 0, 2, 6], 1),
        ("SlowPieces", "fé", ["▁", "fé"], [0, 3], 0),
    ],
)
def test_the_published_procedure_reads_special_strings_and_adds_its_own(kind, text, tokens, ends, hits):
    tokenizer = tokenizer_of(kind)
    tokenized = tokenize(tokenizer, [text], special_tokens=True)
    assert tokenized.ids[0].tolist() == tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(tokenized.ids[0].tolist()) == tokens
    assert tokenized.byte_end[0].tolist() == ends
    assert tokenized.special_hits.tolist() == [hits]


# Byte ends


def test_byte_ends_are_right_inside_split_characters():
    text = "aé日🙂\n"
    (ends,) = tokenize(byte_tokenizer(), [text]).byte_end
    assert ends.tolist() == list(range(1, len(text.encode()) + 1))


def test_byte_ends_of_tokens_that_hold_parts_of_two_characters():
    merges = [("©", "Ã"), ("Ã", "©Ã")]
    alphabet = {
        char: i for i, char in enumerate("".join(sorted(byte_tokenizer().get_vocab(), key=len))[:256])
    }
    vocabulary = alphabet | {"".join(pair): 256 + i for i, pair in enumerate(merges)}
    backend = byte_tokenizer().backend_tokenizer
    backend.model = models.BPE(vocabulary, merges)
    tokenizer = fast(backend)
    (ids,), (ends,) = tokenize(tokenizer, ["ééx"]).ids, tokenize(tokenizer, ["ééx"]).byte_end
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == ["Ã©Ã", "©", "x"]
    assert ends.tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("kind", "text", "ends"),
    [
        ("unigram_bytes", "é日🙂", [0, 2, 5, 6, 7, 8, 9]),  # the first token is a blank that is not there
        ("unigram_bytes", "the the", [3, 7]),
        ("llama", "日", [3]),
        ("llama", "e\u0301", [0, 1, 2, 3]),
        ("llama_legacy", " the", [0, 4]),
        ("llama_legacy", "  a", [1, 2, 3]),
        ("roberta", "日本", [0, 6]),
        ("roberta", "e\u0301 x", [-1, 3, 5]),
        ("qwen", "e\u0301 e\u0301", [3, 4, 7]),
        ("qwen", "\u1112\u1161\u11ab.", [-1, -1, 9, 10]),  # one syllable of three bytes, from nine
        ("unigram_unknowns", "a🙂🙂a", [0, 1, 9, 10]),  # two characters, one unknown
        ("unigram_unknowns", "ﬁx", [0, -1, 3, 4]),  # f ends inside the ligature
        ("unigram_unknowns", "a   ", [0, 1]),  # blanks behind are dropped
        ("wordpiece", "Naïve  CAFÉ!", [6, 13, 14]),
        ("characters", "日é🙂", [3, 5, 9]),
        ("words", "a zebra ", [1, 7]),
        ("dropping", "a日b", [1, 5]),
        ("dropping", "日a日b日", [-1, -1]),
        ("ByT5Tokenizer", "aé日", [1, -1, 3, -1, -1, 6]),
        ("CanineTokenizer", "aé日", [1, 3, 6]),
        ("SlowPieces", "the fé", [3, 4, 7]),
        ("SlowWords", "the fé ca", [3, 7, 10]),
    ],
)
def test_byte_ends_by_hand(kind, text, ends):
    assert cut(kind, text).byte_end[0].tolist() == ends


def test_a_tokenizer_in_python_that_shows_broken_characters_tells_only_whole_ones():
    class Replacing(ByT5Tokenizer):
        def convert_tokens_to_string(self, tokens):
            return bytes(map(ord, tokens)).decode(errors="replace")

    tokenized = tokenize(Replacing(), ["aé日x", "a\ufffd"])
    assert tokenized.byte_end[0].tolist() == [1, -1, 3, -1, -1, 6, 7]
    assert tokenized.byte_end[1].tolist() == [1, -1, -1, 4]
    assert tokenized.lossy == 0


@pytest.mark.parametrize(
    "kind", ["gpt2", "across_characters", "qwen", "tiktoken", "unigram_bytes", "llama", "llama_legacy"]
)
@settings(deadline=None, derandomize=True, max_examples=60)
@given(text=FUZZED)
def test_spans_and_bytes_tell_the_same_ends(kind, text):
    """Two ways that share nothing where tokens hold whole characters, and agree where they do not."""
    tokenizer = tokenizer_of(kind)
    rows = tokenizer(text, split_special_tokens=True, add_special_tokens=False, return_offsets_mapping=True)
    own = token_bytes(tokenizer, rows["input_ids"])
    pieces = [own[i] for i in rows["input_ids"]]
    assume(pieces)
    (by_bytes,) = ends_by_bytes([text], [np.array(rows["input_ids"])], own)
    assume(by_bytes is not None)
    assert ends_by_spans(text, pieces, rows["offset_mapping"]).tolist() == by_bytes.tolist()


@pytest.mark.parametrize("kind", ["gpt2", "across_characters", "qwen", "roberta", "tiktoken"])
@settings(deadline=None, derandomize=True, max_examples=60)
@given(text=FUZZED)
def test_what_is_known_to_decode_to_itself_does(kind, text):
    tokenizer = tokenizer_of(kind)
    assume(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    with patch.object(encode, "_spells_bytes", lambda _: False):
        every_text_decoded = tokenize(tokenizer, [text])
    assert encode._spells_bytes(tokenizer)
    assert tokenize(tokenizer, [text]).lossy == every_text_decoded.lossy


@settings(deadline=None, derandomize=True, max_examples=100)
@given(text=FUZZED)
def test_normalised_texts_keep_the_ends_of_the_written_ones(text):
    """Where NFC changes nothing but one place, ends after it are those of the plain tokenizer, shifted."""
    composed = unicodedata.normalize("NFC", text)
    if not composed.strip():
        return
    tokenized = cut("qwen", text)
    (ids,), (ends,) = tokenized.ids, tokenized.byte_end
    assert ids.tolist() == cut("qwen", composed).ids[0].tolist()
    for end in ends[ends >= 0]:
        assert unicodedata.normalize("NFC", text.encode()[:end].decode(errors="ignore")) in composed
    assert ends[-1] == len(text.encode())


# Round trip and hashes


@pytest.mark.parametrize(
    ("kind", "text", "lossy"),
    [
        ("gpt2", " a  b\r\n", 0),
        ("qwen", "e\u0301", 1),
        ("roberta", "The end", 0),  # a blank is put in front: nothing is lost
        ("unigram_bytes", "a  b", 0),
        ("unigram_bytes", " a", 1),  # the same ids as "a"
        ("llama", " a", 1),
        ("llama_legacy", " a", 0),
        ("unigram_unknowns", "a  b", 1),
        ("wordpiece", "The", 1),
        ("characters", "🙂", 1),
        ("dropping", "a日", 1),
        ("SlowPieces", "the  fé", 0),
    ],
)
def test_what_does_not_come_back_is_told(kind, text, lossy):
    assert cut(kind, text).lossy == lossy
    assert cut(kind, text, "a").lossy == lossy / 2


def test_a_tokenizer_that_loses_something_says_so():
    tokenized = cut("words", "a", "a zebra")
    assert tokenized.lossy == 0.5
    assert tokenized.byte_end[1].tolist() == [1, 7]


def test_the_hash_tells_whether_texts_are_cut_alike():
    texts = ["The capital", "日本 e\u0301"]
    assert cut("gpt2", *texts).hash == cut("gpt2", *texts).hash
    alike = [tokenize(byte_tokenizer(eos_token=token), texts).hash for token in (EOS, "</s>")]
    assert alike[0] == alike[1]
    others = [cut("gpt2", *texts), cut("gpt2", *texts[::-1]), cut("gpt2", *texts[:1]), cut("llama", *texts)]
    assert len({tokenized.hash for tokenized in others}) == 4


def test_the_hash_is_over_ids_and_byte_ends_text_by_text():
    def made(*rows):
        arrays = [[np.array(row, dtype=np.int32) for row in part] for part in zip(*rows, strict=True)]
        return Tokenized(arrays[0], arrays[1], np.zeros(len(rows)), 0.0).hash

    same = made(([1, 2], [3, 4]))
    assert same == made(([1, 2], [3, 4]))
    assert same not in (made(([1, 2], [3, 5])), made(([1, 5], [3, 4])), made(([1], [2]), ([3], [4])))


# What is stored with a tokenizer, and what it did before


def test_stored_truncation_and_padding_and_a_short_length_do_nothing(tmp_path: Path):
    tokenizer_of("gpt2").save_pretrained(tmp_path)
    rules = json.loads((tmp_path / "tokenizer.json").read_text())
    rules["truncation"] = {"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    rules["padding"] = {"strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": None}
    rules["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": EOS}
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    settings_ = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"model_max_length": 4}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings_))
    stored = AutoTokenizer.from_pretrained(tmp_path)
    assert stored.model_max_length == 4
    assert stored.backend_tokenizer.truncation
    assert stored.backend_tokenizer.padding
    texts = ["x", "The capital of France is Paris."]
    assert [ids.tolist() for ids in tokenize(stored, texts).ids] == [
        ids.tolist() for ids in cut("gpt2", *texts).ids
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_asked_before_does_not_matter(kind, monkeypatch):
    tokenizer, texts = KINDS[kind](), ["a<s></s><unk>", "The capital, x"]
    expected = tokenize(tokenizer, texts).hash
    assert cut(kind, *texts).hash == expected
    with_special = tokenizer(texts, truncation=True, max_length=3)["input_ids"]
    tokenizer.split_special_tokens = False
    assert tokenize(tokenizer, texts).hash == expected
    assert tokenizer(texts, truncation=True, max_length=3)["input_ids"] == with_special
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    assert tokenize(tokenizer, texts * 20).hash == tokenize(tokenizer, texts * 20).hash
    assert tokenize(tokenizer, texts * 20).ids[-1].tolist() == tokenize(tokenizer, texts).ids[-1].tolist()


# To the score


@pytest.fixture(scope="module", params=["bytes", "across_characters", "llama", "wordpiece"])
def scored(request, make_model):
    """A tiny model with a tokenizer of some kind, and its oracle."""
    tokenizer = byte_tokenizer() if request.param == "bytes" else tokenizer_of(request.param)
    folder = make_model("llama", vocab_size=500, tokenizer=tokenizer)
    oracle = Oracle(folder, prefix=choose_prefix(tokenizer).token)
    assert oracle.dtype == torch.float64
    return load_model(ModelSpec(str(folder))), oracle


@settings(deadline=None, derandomize=True, max_examples=8)
@given(text=FUZZED.filter(lambda text: len(text.encode()) <= 60))
def test_any_text_has_the_score_of_a_plain_loop(scored, text):
    model, oracle = scored
    ids = oracle.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assume(ids)
    row = score_texts(model, [text, "The capital of France"], audit=False)
    expected = oracle.by_token(ids)
    np.testing.assert_allclose(row.tokens[0], expected, atol=1e-3)
    assert row.n_tokens[0] == len(row.byte_end[0]) == len(ids)
    assert abs(row.log_likelihood[0] - expected.sum()) < 1e-3


def test_ids_outside_the_embedding_are_refused_before_the_model_sees_them(make_model):
    folder = make_model("llama", vocab_size=250)
    with pytest.raises(InputError, match=r"embedding ends at 250"):
        score_texts(load_model(ModelSpec(str(folder))), ["ÿþ日本"])
