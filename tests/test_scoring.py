"""Scores equal a plain loop; batches, padding, windows and prefixes mean what they should."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CONTEXT, TEXTS
from torch.utils._python_dispatch import TorchDispatchMode

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.batches import token_log_probs
from lmmap.scoring.encode import Tokenized, encode
from lmmap.scoring.job import prepare
from lmmap.scoring.load import load_model
from lmmap.scoring.plan import plan_batches, plan_hash
from lmmap.scoring.prefix import Prefix
from lmmap.scoring.score import finish, score_texts


def oracle(folder: Path, text: str, prefix: str = "<|endoftext|>", context: int = CONTEXT) -> list[float]:
    """Score a text with nothing of ours: float64, one text at a time, transformers' own forward."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, experts_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.convert_tokens_to_ids(prefix), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert len(ids) - 1 <= context
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    return [float(torch.log_softmax(logits[t - 1], -1)[ids[t]]) for t in range(1, len(ids))]


def test_batched_equals_alone_and_padding_does_not_matter(make_model):
    model = load_model(ModelSpec(str(make_model("llama"))))
    together = score_texts(model, TEXTS, token_budget=10_000)
    in_parts = score_texts(model, TEXTS, token_budget=1)
    assert len(prepare(model, TEXTS, token_budget=10_000).batches) == 1
    assert len(prepare(model, TEXTS, token_budget=1).batches) == len(TEXTS)
    np.testing.assert_allclose(together.log_likelihood, in_parts.log_likelihood, atol=1e-3)


def test_totals_are_float64_sums_of_the_float32_tokens(make_model):
    row = score_texts(load_model(ModelSpec(str(make_model("gpt2")))), TEXTS)
    assert row.log_likelihood.dtype == np.float64
    for total, tokens in zip(row.log_likelihood, row.tokens, strict=True):
        assert tokens.dtype == np.float32
        assert total == tokens.sum(dtype=np.float64)


def test_a_float64_model_agrees_with_float32(make_model):
    folder = str(make_model("gpt_neox"))
    single, double = (
        score_texts(load_model(ModelSpec(folder, dtype=dtype)), TEXTS) for dtype in ("float32", "float64")
    )
    assert double.provenance["dtype"] == "float64"
    np.testing.assert_allclose(single.log_likelihood, double.log_likelihood, atol=1e-3)


def test_windows_score_every_token_once_as_defined(make_model):
    context = 16
    folder = make_model("llama", max_position_embeddings=context)
    text = "A text that is much longer than sixteen tokens, read in windows."
    ids = list(text.encode())
    row = score_texts(load_model(ModelSpec(str(folder))), [text, "short"])
    expected, scored, start = [], 0, 0
    while scored < len(ids):
        window = ids[start : start + context]
        by_token = oracle(folder, bytes(window).decode(), context=context)
        expected += by_token[scored - start :]
        scored, start = start + len(window), start + context // 2
    np.testing.assert_allclose(row.tokens[0], expected, atol=1e-4)
    assert row.n_tokens.tolist() == [len(ids), 5]
    assert row.provenance["n_windowed"] == (len(ids) - context) // 8
    assert any("windows" in flag for flag in row.provenance["flags"])


@pytest.mark.parametrize("context", [2, 3, 7, 8])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 30])
def test_windows_leave_at_least_half_a_context_on_the_left(context, n):
    tokenized = Tokenized([np.arange(n, dtype=np.int32)], [np.arange(n)], np.zeros(1), 0.0)
    sequences = encode(tokenized, Prefix("p", 99, "given"), context=context)
    counted = [int(token) for e in sequences for token in e.ids[e.scored]]
    assert counted == list(range(n))
    for e in sequences:
        assert e.ids[0] == 99
        assert len(e.ids) - 1 <= context
    for e in sequences[1:]:
        assert int(np.flatnonzero(e.scored)[0]) >= context / 2


def test_long_texts_are_truncated_or_refused_on_request(make_model):
    model = load_model(ModelSpec(str(make_model("llama"))))
    row = score_texts(model, ["x" * 100], long_texts="truncate")
    assert row.n_tokens.tolist() == [CONTEXT]
    with pytest.raises(InputError, match=r"text 1 has 100 tokens, the model's context holds 64"):
        score_texts(model, ["x" * 100], long_texts="error")


def test_the_reference_policy_scores_what_the_published_code_scores(make_model):
    folder = make_model("gpt2")
    row = score_texts(load_model(ModelSpec(str(folder))), TEXTS[:1], prefix="reference")
    ids = TEXTS[0]
    expected = oracle(folder, ids[1:], prefix=ids[0])
    np.testing.assert_allclose(row.tokens[0], expected, atol=1e-4)
    assert row.provenance["prefix"] == "reference"


# Plan


def test_the_plan_covers_everything_within_the_budget():
    lengths = np.random.default_rng(0).integers(80, 320, size=1000)
    batches = plan_batches(lengths, 4096)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    padded = [len(batch) * lengths[batch].max() for batch in batches]
    assert max(padded) <= 4096
    assert sum(padded) / lengths.sum() < 1.03
    assert plan_hash(batches, 4096) == plan_hash(plan_batches(lengths, 4096), 4096)
    equal = plan_batches(lengths, 4096, equal_above=0)
    assert all(len(set(lengths[batch])) == 1 for batch in equal)
    assert sorted(np.concatenate(equal).tolist()) == list(range(1000))


def test_few_texts_are_not_padded_to_fill_a_batch():
    lengths = np.random.default_rng(0).gamma(5, 65, size=1000).astype(int) + 1
    batches = plan_batches(lengths, 2**14)
    padded = np.array([len(batch) * lengths[batch].max() for batch in batches])
    assert padded.sum() / lengths.sum() < 1.03
    assert (padded[:-1] >= 2**12).all()  # a quarter of the budget


# What is refused


def test_a_text_of_one_token_has_nothing_to_score_under_the_published_procedure(make_model):
    model = load_model(ModelSpec(str(make_model("gpt2"))))
    with pytest.raises(InputError, match=r"text 2 has no token that .* could score; remove it"):
        score_texts(model, ["two", "x"], prefix="reference")


def test_a_model_that_is_not_causal_and_not_known_by_name_is_seen(make_model, monkeypatch):
    folder = make_model("bert", is_decoder=False)
    with pytest.raises(InputError, match="is not scored: is_decoder=False in its config makes it read both"):
        load_model(ModelSpec(str(folder)))
    monkeypatch.setattr("lmmap.scoring.load.refusal", lambda _: None)
    with pytest.raises(InputError, match=r"BertLMHeadModel is not causal: .* nats"):
        score_texts(load_model(ModelSpec(str(folder))), TEXTS)


def test_padding_that_matters_means_groups_of_equal_length(make_model, monkeypatch):
    model = load_model(ModelSpec(str(make_model("llama"))))
    monkeypatch.setattr("lmmap.scoring.job.pad_growth", lambda *_: 0.5)
    job = prepare(model, TEXTS)
    assert job.provenance["equal_above"] == 0
    assert all(len({len(job.sequences[i].ids) for i in batch}) == 1 for batch in job.batches)


def broken_copy(folder: Path, target: Path, change) -> str:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return str(target)


def test_weights_that_are_not_finite_are_refused_by_name(make_model, tmp_path):
    def spoil(weights):
        weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")

    source = broken_copy(make_model("llama"), tmp_path / "nan", spoil)
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that are not"):
        load_model(ModelSpec(source))


def test_missing_weights_are_refused_by_name(make_model, tmp_path):
    source = broken_copy(make_model("llama"), tmp_path / "less", lambda w: w.pop("model.norm.weight"))
    with pytest.raises(InputError, match=r"1 weights are missing, such as model\.norm\.weight"):
        load_model(ModelSpec(source))


def test_folders_that_are_no_models(make_model, tmp_path):
    with pytest.raises(InputError, match="no such folder or file"):
        load_model(ModelSpec(str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(ModelSpec(str(tmp_path)))
    shutil.copy(make_model("llama") / "config.json", tmp_path)
    with pytest.raises(InputError, match="no weights"):
        load_model(ModelSpec(str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is not scored: is_encoder_decoder=True"):
        load_model(ModelSpec(str(tmp_path)))


def test_a_truncated_file_is_refused(make_model, tmp_path):
    folder = shutil.copytree(make_model("llama"), tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(ModelSpec(str(folder)))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 0.1])
def test_a_wrong_log_probability_is_never_a_number(value, make_model):
    model = load_model(ModelSpec(str(make_model("llama"))))
    job = prepare(model, TEXTS)
    log_probs = token_log_probs(model, job.sequences, job.batches)
    log_probs[1][0] = value
    with pytest.raises(InputError, match=r"tiny gives a token of text 2 the log-probability"):
        finish(job, log_probs, len(TEXTS), "tiny")


class NoValueIsAskedFor(TorchDispatchMode):
    """Fails where the host would wait for a number that a GPU computes."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2", "opt", "bloom", "gemma2", "qwen3"])
def test_a_batch_is_set_going_without_waiting_for_the_device(kind, make_model):
    model = load_model(ModelSpec(str(make_model(kind))))
    ids = torch.arange(40).reshape(4, 10)
    with torch.inference_mode():
        expected = model.score(ids, ids[:, 1:] >= 0)
        with NoValueIsAskedFor():
            got = model.score(ids, ids[:, 1:] >= 0)
    assert torch.equal(got, expected)
