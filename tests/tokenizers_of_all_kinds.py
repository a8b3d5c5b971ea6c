"""Small tokenizers of every kind, trained or written on the spot."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

CORPUS = [
    "The capital of France is Paris, and the naïve café costs 36 €.\r\n",
    "def f(x):\n\treturn x + 1  # two  spaces\n",
    "日本語のテキスト。日本日本語日日",
    "שלום עולם، مرحبا بالعالم",
    "🙂🙃🙂 👩‍👩‍👧 🙂🙂",
    "ééé e\u0301e\u0301 ﬁﬁ Ünï ½",
] * 4
EOS = "<|endoftext|>"
SPLIT = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def fast(backend: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(special or {"eos_token": EOS}))


def byte_level(
    *, regex: bool = True, prefix_space: bool = False, trim: bool = False, normalizer=None, special=(EOS,)
) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=regex)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def gpt2() -> PreTrainedTokenizerFast:
    return fast(byte_level())


def across_characters() -> PreTrainedTokenizerFast:
    """Byte-level merges that nothing keeps apart: tokens hold parts of two characters."""
    return fast(byte_level(regex=False))


def qwen() -> PreTrainedTokenizerFast:
    return fast(byte_level(normalizer=normalizers.NFC()))


def roberta() -> PreTrainedTokenizerFast:
    backend = byte_level(prefix_space=True, trim=True, normalizer=normalizers.NFC(), special=("<s>", "</s>"))
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    return fast(backend, bos_token="<s>", eos_token="</s>")


def unigram_bytes() -> PreTrainedTokenizerFast:
    backend = _unigram(
        [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)] + [(byte, -20.0) for byte in BYTES], True
    )
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always"), decoders.Fuse()]
    )
    return fast(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def unigram_unknowns() -> PreTrainedTokenizerFast:
    """T5-like: NFKC, blanks run together, several unknown characters fused into one."""
    backend = _unigram([("<unk>", 0.0), ("</s>", 0.0)], False)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False)]
    )
    backend.decoder = decoders.Metaspace()
    return fast(backend, unk_token="<unk>", eos_token="</s>")


def _unigram(first: list[tuple[str, float]], byte_fallback: bool) -> Tokenizer:
    words = "▁the ▁The ▁capital ▁of ▁France ▁is ▁Paris . ▁ def ▁def ( ) : return x ▁x + 1 日本 語 日"
    letters = [chr(i) for i in range(97, 123)] + list("EFPTU0123456789é")
    scores = [(word, -5.0 - i / 10) for i, word in enumerate(words.split())]
    scores += [(letter, -12.0) for letter in letters if letter not in words.split()]
    backend = Tokenizer(models.Unigram(first + scores, unk_id=0, byte_fallback=byte_fallback))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return backend


def wordpiece() -> PreTrainedTokenizerFast:
    words = (
        "[UNK] [CLS] [SEP] the capital of france is paris naive cafe def return a b e s t x 1 ( ) : , . 日 本"
    )
    pieces = [*words.split(), *(f"##{chr(i)}" for i in range(97, 123))]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    backend.decoder = decoders.WordPiece()
    return fast(backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def llama_legacy() -> PreTrainedTokenizerFast:
    backend = Tokenizer(_sentencepiece_bpe())
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _llama(backend)


def llama() -> PreTrainedTokenizerFast:
    backend = Tokenizer(_sentencepiece_bpe())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _llama(backend)


def _llama(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return fast(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _sentencepiece_bpe() -> models.BPE:
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "▁", *map(chr, range(33, 127)), "é", "日", "本"]
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("▁", "the"),
        ("▁", "▁"),
        ("a", "l"),
        ("日", "本"),
        ("▁", "d"),
        ("▁", "日"),
    ]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *("".join(pair) for pair in merges)])}
    return models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def characters() -> PreTrainedTokenizerFast:
    """Every character a token, those it does not know one unknown each."""
    known = sorted(set("".join(CORPUS[:3])))
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(["<unk>", *known])}, [], unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    return fast(backend, unk_token="<unk>")


def dropping() -> PreTrainedTokenizerFast:
    """Characters that it does not know it leaves out."""
    backend = Tokenizer(models.BPE({chr(i): i - 32 for i in range(32, 127)}, []))
    backend.decoder = decoders.Fuse()
    return fast(backend, eos_token="~")


def words() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "The": 1, "capital": 2, "a": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(backend, unk_token="<unk>")


def tiktoken() -> PreTrainedTokenizerFast:
    """A tiktoken file through the converter of transformers."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    merged = [b"th", b"the", b" the", b"\xe6\x97", b"\xe6\x97\xa5", b"in", b" i", b"\r\n", b"  "]
    ranks = [bytes([byte]) for byte in range(256)] + merged
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(ranks)]

    def load_tiktoken_bpe(_url: str) -> dict[bytes, int]:
        pairs = (line.split() for line in lines)
        return {base64.b64decode(token): int(rank) for token, rank in pairs}

    reader = ModuleType("tiktoken.load")
    reader.load_tiktoken_bpe = load_tiktoken_bpe  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tiktoken", ModuleType("tiktoken"))
        patch.setitem(sys.modules, "tiktoken.load", reader)
        converter = TikTokenConverter("tokenizer.tiktoken", pattern=SPLIT, extra_special_tokens=[EOS])
        return fast(converter.converted())


class SlowPieces(PreTrainedTokenizer):
    """Pure Python: the longest known piece first, ``▁`` for blanks, one in front of the text."""

    pieces = ("<unk>", "</s>", "▁", "▁the", "the", "ca", "fé", "é", "日本", *map(chr, range(33, 127)))

    def __init__(self, **special: str) -> None:
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        super().__init__(**({"unk_token": "<unk>", "eos_token": "</s>"} | special))

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def get_vocab(self) -> dict[str, int]:
        return self.ids | self.added_tokens_encoder

    def _tokenize(self, text: str) -> list[str]:
        text, tokens = "▁" + text.replace(" ", "▁"), []
        while text:
            piece = max((p for p in self.pieces if text.startswith(p)), key=len, default=text[0])
            tokens.append(piece)
            text = text[len(piece) :]
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return self.pieces[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).replace("▁", " ").removeprefix(" ")

    def save_vocabulary(self, *_: str, **__: str) -> tuple[Path, ...]:
        return ()


class SlowWords(SlowPieces):
    """Pure Python, with blanks at the end of a word: no token spells its own bytes."""

    pieces = (
        "<unk>",
        "</s>",
        "the;",
        "ca;",
        "fé;",
        *(c + end for c in "abcdefthé日本1" for end in ("", ";")),
    )

    def _tokenize(self, text: str) -> list[str]:
        tokens = []
        for word in text.split(" "):
            tokens += [word + ";"] if word + ";" in self.ids else [*word[:-1], word[-1:] + ";"]
        return tokens

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens).replace(";", " ").removesuffix(" ")


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast | PreTrainedTokenizer]] = {
    make.__name__: make
    for make in (
        gpt2, across_characters, qwen, roberta, tiktoken, unigram_bytes, unigram_unknowns, wordpiece,
        llama_legacy, llama, characters, dropping, words, ByT5Tokenizer, CanineTokenizer, SlowPieces,
        SlowWords,
    )
}  # fmt: skip


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast | PreTrainedTokenizer:
    """Make a tokenizer, once in a session; tests leave it as it is."""
    return KINDS[kind]()
