"""Segments: the bytes between common token boundaries, log-probabilities that add up to the texts'."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import CONTEXT, TEXTS, byte_tokenizer
from tokenizers_of_all_kinds import tokenizer_of

from lmmap import segments as segments_module
from lmmap.errors import InputError
from lmmap.estimates import ESTIMATORS, estimate_kl_by
from lmmap.geometry import estimate_kl_tokens
from lmmap.models import ModelSpec
from lmmap.scoring.sweep import score_models
from lmmap.segments import Segments, segments_of_tokens, segments_of_totals
from lmmap.store import Row, Store
from lmmap.texts import text_set
from lmmap.token_records import read_segments

Ends = Sequence[Sequence[int]]  # byte ends of the tokens of each text
close = np.testing.assert_allclose


def spec(name: str) -> ModelSpec:
    return ModelSpec(f"made/{name}", name=name)


def write(
    store: Store, name: str, ends: Ends, *, n_scored: Sequence[int] | None = None, seed: int = 0
) -> Row:
    """A row whose tokens end at these bytes; text by text only the first ones are scored, if that is said."""
    lengths = [len(of_text) for of_text in ends] if n_scored is None else n_scored
    generator = np.random.default_rng(seed)
    tokens = [-generator.exponential(3, n).astype(np.float32) for n in lengths]
    row = Row(
        log_likelihood=np.array([of_text.astype(np.float64).sum() for of_text in tokens]),
        n_tokens=np.array(lengths),
        special_hits=np.zeros(len(ends), int),
        tokens=tokens,
        ids=[np.arange(len(of_text)) for of_text in ends],
        byte_end=[np.array(of_text, dtype=np.int32) for of_text in ends],
        provenance={
            "tokenization": repr(ends).replace(" ", "").replace("[", "").replace("]", "_"),
            "prefix": "<s>",
            "dtype": "float32",
            "n_parameters": 1,
            "n_tokens": int(np.sum(lengths)),
            "flags": [],
        },
    )
    store.request([spec(name)])
    store.write_row(spec(name).row_id, row, {})
    return row


def store_of(folder: Path, lengths: Sequence[int], cuts: dict[str, Ends], **policy: str) -> Store:
    store = Store.create(folder / "run", text_set(["x" * n for n in lengths]), **policy)
    for i, (name, ends) in enumerate(cuts.items()):
        write(store, name, ends, seed=i)
    return store


def everything(segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(segments.blocks())
    return np.concatenate([block for block, _ in blocks], axis=1), np.concatenate(
        [text for _, text in blocks]
    )


def summed(tokens: np.ndarray, groups: Sequence[Sequence[int]]) -> list[float]:
    return [float(tokens[list(group)].astype(np.float64).sum()) for group in groups]


def test_tokens_are_summed_between_the_bytes_where_all_models_have_a_boundary(tmp_path):
    store = store_of(tmp_path, [6, 4], {"a": [[1, 3, 6], [2, 4]], "b": [[2, 3, 4, 6], [1, 2, 3, 4]]})
    segments = read_segments(store)
    values, text = everything(segments)
    assert repr(segments) == "Segments: 2 models x 2 texts, 4 segments, nats"
    assert text.tolist() == [0, 0, 1, 1]
    a, b = (store.tokens(row) for row in segments.models)
    assert values[0].tolist() == summed(a[0], [[0, 1], [2]]) + summed(a[1], [[0], [1]])
    assert values[1].tolist() == summed(b[0], [[0, 1], [2, 3]]) + summed(b[1], [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("ends", "groups"),
    [
        ([3, 3, 3, 6], [[0, 1, 2], [3]]),  # several tokens in one character
        ([0, 3, 6], [[0, 1], [2]]),  # a blank put in front, which is no byte of the text
        ([-1, 3, -1, 6], [[0, 1], [2, 3]]),  # an end that is not known: with the next
        ([3, -1, 3, 6], [[0, 1, 2], [3]]),
        ([3, 6, -1], [[0], [1, 2]]),  # ... or, at the end, with the text's last byte
        ([3, 6, 6], [[0], [1, 2]]),
        ([1, 3, 5], [[0, 1], [2]]),  # a tokenizer that loses the last byte
        ([2, 3], [[0, 1]]),  # ... and the last three: nothing of it would be left for a second segment
        ([-1, -1, -1], [[0, 1, 2]]),  # nothing known but the whole
        ([2, 4, 6], [[0, 1, 2]]),
    ],
)
def test_odd_tokens_go_where_they_belong(ends, groups, tmp_path):
    """The other model has boundaries at 3 and 6 only; a further text comes before and behind."""
    store = store_of(tmp_path, [2, 6, 2], {"a": [[2], ends, [1, 2]], "b": [[1, 2], [3, 6], [2]]})
    segments = read_segments(store)
    values, text = everything(segments)
    tokens = store.tokens(segments.models[0])
    assert text.tolist() == [0, *[1] * len(groups), 2]
    assert values[0, 1:-1].tolist() == summed(tokens[1], groups)
    close([np.bincount(text, row) for row in values], segments.totals, rtol=1e-12)


def random_ends(n_bytes: int, generator: np.random.Generator) -> list[int]:
    """Byte ends of a tokenizer with every oddity: blanks in front, shared and unknown ends, a lost tail."""
    ends = np.sort(generator.integers(0, n_bytes + 1, generator.integers(1, 2 * n_bytes)))
    return np.where(generator.random(len(ends)) < 0.2, -1, ends).tolist()


def by_sets(ends: Ends, others: Sequence[Ends], lengths: Sequence[int]) -> list[list[list[int]]]:
    """Which tokens make each segment, by plain sets: an independent account of the rule."""
    cut = []
    for x, n in enumerate(lengths):
        common = set.intersection(*({*of_model[x][:-1], n} for of_model in others)) - {0, -1}
        groups: list[list[int]] = [[]]
        borders, known = sorted(common), [*ends[x][:-1], n]
        for t in range(len(known)):
            end = next(e for e in known[t:] if e > 0)  # of the token, or of the next that is known
            while borders[len(groups) - 1] < end:
                groups.append([])
            groups[-1].append(t)
        cut.append(groups)
    return cut


@pytest.mark.parametrize("seed", range(8))
def test_random_cuts_agree_with_plain_sets(seed, tmp_path):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 12, 10).tolist()
    cuts = {name: [random_ends(n, generator) for n in lengths] for name in "abc"}
    segments = read_segments(store := store_of(tmp_path, lengths, cuts))
    values, text = everything(segments)
    for row, name, ends in zip(values, segments.models, cuts.values(), strict=True):
        groups = by_sets(ends, list(cuts.values()), lengths)
        expected = [summed(*pair) for pair in zip(store.tokens(name), groups, strict=True)]
        close(row, np.concatenate(expected), rtol=1e-12)
        assert text.tolist() == np.repeat(range(10), [len(g) for g in groups]).tolist()


def test_models_of_one_tokenizer_have_tokens_as_they_are_kept(tmp_path):
    ends = [[1, 1, -1, 3], [0, 2]]
    store = store_of(tmp_path, [3, 2], {"a": ends, "b": ends})
    segments = read_segments(store)
    values, text = everything(segments)
    assert segments.unit == "token"
    assert text.tolist() == [0, 0, 0, 0, 1, 1]
    for row, name in zip(values, segments.models, strict=True):
        assert row.tolist() == np.concatenate(store.tokens(name)).tolist()
    kl = estimate_kl_tokens(values, text, centered=False)
    close(estimate_kl_by("segment_level", segments), kl, rtol=1e-12)
    close(estimate_kl_by("token_level", segments), kl, rtol=1e-12)


def test_fewer_models_have_more_boundaries_in_common(tmp_path):
    cuts = {"a": [[1, 2, 3, 4]], "b": [[1, 2, 4]], "c": [[3, 4]]}
    store = store_of(tmp_path, [4], cuts)
    groups = ("abc", "ab", "ac", "bc")
    n_segments = {m: len(read_segments(store, models=list(m)).text_of_segment) for m in groups}
    assert n_segments == {"abc": 1, "ab": 3, "ac": 2, "bc": 1}
    assert read_segments(store, models=["c", "a"]).models == (spec("c").row_id, spec("a").row_id)


def of_tokenizer(kind: str, make_model) -> ModelSpec:
    tokenizer = byte_tokenizer() if kind == "bytes" else tokenizer_of(kind)
    folder = make_model("llama", tokenizer=tokenizer, vocab_size=600)
    return ModelSpec(str(folder), name=kind, prefix=tokenizer.all_special_tokens[0])


@pytest.fixture(scope="module")
def scored(make_model, tmp_path_factory):
    """Four tokenizers, one that loses blanks and one that reads special strings; texts past the context."""
    specs = [of_tokenizer(kind, make_model) for kind in ("bytes", "gpt2", "llama", "wordpiece")]
    texts = [*TEXTS, "long text, " * CONTEXT, "an <|endoftext|> inside [SEP]", "  blanks  at  both ends  "]
    store = Store.create(tmp_path_factory.mktemp("scored") / "run", text_set(texts))
    assert score_models(store, specs, threads=1, token_budget=512) == {}
    return store


def test_segments_of_real_tokenizers_add_up_to_the_totals(scored):
    segments = read_segments(scored)
    values, text = everything(segments)
    n = len(segments.n_bytes)
    made = scored.load().models
    assert len(made["tokenization"].unique()) == 4
    for oddity in ("tokenizer loses something", "special, added or unknown", "further windows"):
        assert made["flags"].str.contains(oddity).any()
    assert segments.unit == "segment"
    assert n < len(text) < segments.n_bytes.sum()
    assert (segments.n_of_text > 0).all()
    close([np.bincount(text, row, minlength=n) for row in values], segments.totals, rtol=0, atol=1e-6)


def test_reading_some_texts_at_a_time_gives_the_same(scored, monkeypatch):
    whole, text = everything(read_segments(scored))
    for file in (scored.path / "tokens").glob("*.parquet"):
        pq.write_table(pq.read_table(file), file, row_group_size=3)
    monkeypatch.setattr(segments_module, "NUMBERS_AT_ONCE", 4 * 10)
    segments = read_segments(scored)
    blocks = [texts.tolist() for _, texts in segments.blocks()]
    assert 3 < len(blocks) <= len(segments.n_bytes)
    assert all(a[-1] < b[0] for a, b in pairwise(blocks)), "no text in two blocks"
    values, again = everything(segments)
    assert (values == whole).all()
    assert (again == text).all()


def test_any_mix_of_tokenizers_has_every_estimate_but_those_of_tokens(scored):
    segments = read_segments(scored)
    for name in ESTIMATORS:
        if not name.startswith("token"):
            kl = estimate_kl_by(name, segments)
            assert (kl[np.triu_indices(4, 1)] > 0).all()
    with pytest.raises(InputError, match="token_level needs models of one tokenizer; use segment_level"):
        estimate_kl_by("token_level", segments)


def test_the_published_procedure_leaves_out_the_first_token(make_model, tmp_path):
    specs = [of_tokenizer(kind, make_model) for kind in ("bytes", "gpt2")]
    store = Store.create(tmp_path / "run", text_set([TEXTS[0], TEXTS[3]]), prefix="reference")
    assert score_models(store, specs, threads=1) == {}
    segments = read_segments(store)
    values, text = everything(segments)
    assert len(text) > 2
    close([np.bincount(text, row) for row in values], segments.totals, rtol=0, atol=1e-6)


# What has no segments


def test_rows_without_token_records_are_named(tmp_path):
    store = store_of(tmp_path, [3], {"a": [[1, 3]], "b": [[2, 3]]})
    (store.path / "tokens" / f"{spec('b').row_id}.parquet").unlink()
    with pytest.raises(
        InputError, match=rf"1 of 2 rows were scored without keeping tokens: {spec('b').row_id};"
    ):
        read_segments(store)
    assert read_segments(store, models=["a"]).unit == "token"
    with pytest.raises(InputError, match="1 of 1 model ids is not among the 2 here: 'c'"):
        read_segments(store, models=["c"])


def test_texts_cut_short_at_different_bytes_have_no_common_segments(tmp_path):
    store = store_of(tmp_path, [2, 6], {}, long_texts="truncate")
    write(store, "short", [[2], [1, 3, 4, 6]], n_scored=[1, 2])
    write(store, "shorter", [[2], [3, 6]], n_scored=[1, 1], seed=1)
    write(store, "whole", [[2], [3, 5, 6]], n_scored=[1, 3])
    write(store, "unknown", [[2], [-1, 6]], n_scored=[1, 1])
    segments = read_segments(store, models=["short", "shorter"])
    values, text = everything(segments)
    assert text.tolist() == [0, 1]
    close(values, segments.totals, rtol=1e-12)
    with pytest.raises(InputError, match="text 2 and 0 others are cut short, not all at the same byte"):
        read_segments(store, models=["short", "whole"])
    with pytest.raises(InputError, match=r"unknown.* cuts text 2 short, at a byte that is not known"):
        read_segments(store, models=["unknown"])


def test_records_that_contradict_themselves_are_refused(tmp_path):
    store = store_of(tmp_path, [4], {"a": [[3, 2, 4]], "b": [[1, 4]]})
    with pytest.raises(InputError, match="byte ends go down inside a text"):
        read_segments(store)
    other = store_of(tmp_path / "other", [4], {"a": [[1, 4]]})
    longer = write(other, "b", [[1, 2, 4]])
    tokens = other.path / "tokens"
    (tokens / f"{spec('b').row_id}.parquet").replace(tokens / f"{spec('a').row_id}.parquet")
    assert len(longer.tokens[0]) == 3
    with pytest.raises(InputError, match="its tokens and its scores disagree"):
        list(read_segments(other, models=["a"]).blocks())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(text_of_token=np.array([0, 1, 0])), "must go up from 0 to at most 1"),
        (dict(text_of_token=np.array([0, 0, 2])), "each of the whole numbers from 0 to 1"),
        (dict(text_of_token=np.array([0, 0, 0])), "each of the whole numbers from 0 to 1"),
        (dict(text_of_token=np.array([0, 1])), r"shape \(2, 3\), text_of_token \(2,\)"),
        (dict(token_log_probs=np.full((2, 3), np.nan)), "model 0 gives text 1 nan nats"),
        (dict(token_log_probs=np.zeros(3)), r"expected K models x N texts or T tokens, got shape \(3,\)"),
        (dict(n_bytes=np.array([3, 0])), "n_bytes must be positive, got 0"),
        (dict(models=["only"]), r"totals have shape \(2, 2\), expected \(1, 2\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(given: dict[str, Any], message):
    fitting: dict[str, Any] = dict(
        token_log_probs=np.ones((2, 3)), text_of_token=np.array([0, 0, 1]), n_bytes=np.array([3, 2])
    )
    assert segments_of_tokens(**fitting).n_of_text.tolist() == [2, 1]
    with pytest.raises(InputError, match=message):
        segments_of_tokens(**{**fitting, **given})


def test_totals_and_lengths_must_be_of_the_same_texts():
    with pytest.raises(InputError, match=r"totals have shape \(2, 3\), expected \(2, 2\)"):
        segments_of_totals(np.ones((2, 3)), np.array([5, 5]))


def test_a_sample_must_hold_something():
    texts = segments_of_totals(np.ones((2, 3)), np.array([5, 5, 5]))
    with pytest.raises(InputError, match="0 segments were asked for"):
        texts.sample(0)
    assert repr(texts.sample(2)) == "Segments: 2 models x 3 texts, 3 texts, 2 of them drawn, nats"


def test_blocks_are_small_even_if_the_first_text_is_long(monkeypatch):
    monkeypatch.setattr(segments_module, "NUMBERS_AT_ONCE", 3)
    pieces = segments_of_tokens(-np.ones((1, 30)), np.repeat(np.arange(5), 6), np.ones(5))
    assert [block.shape[1] for block, _ in pieces.blocks()] == [6] * 5


def test_pieces_that_do_not_add_up_to_their_text_are_refused():
    values, text = -np.ones((2, 4)), np.array([0, 0, 1, 1])
    pieces = Segments("token", ("a", "b"), values[:, ::2] * 3, np.ones(2), text, lambda i, j: values[:, i:j])
    with pytest.raises(InputError, match="a gives text 1 -3 nats, its pieces -2"):
        next(pieces.blocks())
    with pytest.raises(InputError, match="must hold whole numbers, got float64"):
        Segments("token", ("a", "b"), values[:, ::2], np.ones(2), text / 1.0, lambda i, j: values[:, i:j])
