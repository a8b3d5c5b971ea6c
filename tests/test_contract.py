"""What no other test would miss: details of the scoring contract that a careless change could break."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from oracle import Oracle
from tiny import CONTEXT, byte_tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring import shared
from lmmap.scoring.batches import by_sequence, score_batches, token_log_probs
from lmmap.scoring.checks import suffix_swap
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import prepare
from lmmap.scoring.load import load_model
from lmmap.scoring.plan import plan_hash
from lmmap.scoring.score import finish, score_texts
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.texts import text_set

TEXTS = ["The capital of France is Paris.", "x", "日本語", "def f(x):\n    return x + 1\n"]


@pytest.fixture(scope="module")
def llama(make_model):
    return load_model(ModelSpec(str(make_model("llama"))))


def test_log_probabilities_over_a_large_vocabulary_are_not_biased(llama, monkeypatch):
    """Float32 log_softmax is 1e-6 to 1e-5 nats too high there, for every token alike."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 128_000, generator=generator)
    targets = torch.randint(128_000, (200,), generator=generator)
    monkeypatch.setattr(llama, "logits", lambda rows: rows)
    exact = logits.double().log_softmax(1).gather(1, targets[:, None])[:, 0]
    assert abs((llama.log_probs(logits, targets).double() - exact).mean()) < 5e-7


def test_the_reference_policy_truncates_at_the_context(make_model):
    folder = make_model("gpt2")
    text = "A text that is longer than a context of sixty-four tokens, whatever else may be said of it."
    row = score_texts(load_model(ModelSpec(str(folder))), [text], prefix="reference")
    plain = Oracle(folder, prefix=text[0])
    ids = plain.tokenizer(text)["input_ids"]
    assert len(ids) > CONTEXT
    np.testing.assert_allclose(row.tokens[0], plain.by_token(ids[1:CONTEXT]), atol=1e-4)


def test_the_reference_policy_takes_special_tokens_as_the_tokenizer_does(make_model):
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 256)]
    )
    folder = make_model("gpt2", tokenizer=tokenizer)
    row = score_texts(load_model(ModelSpec(str(folder))), ["a<|endoftext|>b"], prefix="reference")
    plain = Oracle(folder, prefix="<s>")
    ids = plain.tokenizer("a<|endoftext|>b")["input_ids"]
    assert len(ids) == 4
    np.testing.assert_allclose(row.tokens[0], plain.by_token(ids[1:]), atol=1e-4)


def test_what_is_odd_about_a_model_is_told_wherever_it_is_listed(make_model, tmp_path):
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="<|endoftext|>")
    tokenizer.add_tokens(["[INST]"])
    spec = ModelSpec(str(make_model("gpt2", scale=8.0, vocab_size=280, tokenizer=tokenizer)), prefix="<s>")
    store = Store.create(tmp_path / "run", text_set(["a[INST]b", "c" * (CONTEXT + 1)]))
    assert score_models(store, [spec], threads=1) == {}
    told = store.status()["flags"].item()
    assert "1 tokens of plain text are special, added or unknown ones" in told
    assert "1 further windows" in told
    assert store.load().models["flags"].item() == told
    assert set(store.provenance(spec.row_id)["audit"]) == {"<s>", "<|endoftext|>"}


def test_a_tokenizer_that_loses_something_is_told(make_model):
    tokenizer = byte_tokenizer(eos_token="<|endoftext|>")
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    row = score_texts(load_model(ModelSpec(str(make_model("gpt2", tokenizer=tokenizer)))), TEXTS)
    assert row.provenance["lossy"] == 0.25
    assert "tokenizer loses something of 25.0% of the texts" in row.provenance["flags"]


def test_rounding_may_lift_a_log_probability_of_one_by_a_hundred_thousandth(llama):
    job = prepare(llama, TEXTS)
    log_probs = token_log_probs(llama, job.sequences, job.batches)
    log_probs[-1][-1] = 5e-6
    assert finish(job, log_probs, len(TEXTS), "tiny").tokens[-1][-1] == np.float32(5e-6)
    log_probs[-1][-1] = 2e-5
    with pytest.raises(InputError, match=r"tiny gives a token of text 4 .* no score is written"):
        finish(job, log_probs, len(TEXTS), "tiny")


def test_the_first_id_outside_the_embedding_is_refused(make_model):
    highest = byte_tokenizer().convert_tokens_to_ids("z")
    inside = load_model(ModelSpec(str(make_model("llama", vocab_size=highest + 1)), prefix="!"))
    outside = load_model(ModelSpec(str(make_model("llama", vocab_size=highest)), prefix="!"))
    assert score_texts(inside, ["z"]).n_tokens.tolist() == [1]
    with pytest.raises(InputError, match=f"token id {highest}, the embedding ends at {highest}"):
        score_texts(outside, ["z"])


def test_a_prefix_outside_the_embedding_is_refused(make_model):
    model = load_model(ModelSpec(str(make_model("llama", vocab_size=256))))
    with pytest.raises(InputError, match=r"prefix '<\|endoftext\|>' has id 256, the embedding ends at 256"):
        score_texts(model, TEXTS)


# The computation


def test_batches_done_elsewhere_are_not_computed(llama):
    job = prepare(llama, TEXTS, token_budget=1)
    values = dict(score_batches(llama, job.sequences, job.batches, iter([0, 2, 3])))
    assert list(values) == [0, 2, 3]
    values[1] = np.full(len(job.sequences[job.batches[1][0]].ids) - 1, -7.0, np.float32)
    assert set(by_sequence(job.sequences, job.batches, values)[job.batches[1][0]]) == {-7.0}


def test_a_plan_is_named_after_all_that_decides_the_bits(make_model, llama):
    other = load_model(ModelSpec(str(make_model("llama", seed=1))))
    names = {prepare(model, TEXTS).hash for model in (llama, llama, other)}
    names |= {prepare(llama, TEXTS, token_budget=40).hash, prepare(llama, TEXTS[1:]).hash}
    assert len(names) == 4


def test_a_plan_is_named_after_its_batches():
    together, apart = [np.array([0, 1])], [np.array([0]), np.array([1])]
    assert len({plan_hash(plan, 1) for plan in (together, apart, apart[::-1])}) == 3


def test_a_plan_does_not_depend_on_what_is_left(make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "SECONDS_BETWEEN_PARTS", 0.0)
    specs = [ModelSpec(str(make_model("llama", seed=seed)), name=f"llama {seed}") for seed in (0, 1)]
    plans = []
    for order in (specs, specs[::-1]):
        store = Store.create(tmp_path / order[0].name, text_set(TEXTS))
        begun = store.at_work(specs[0].row_id).parts("begun", 8)
        begun.write(0, {0: np.zeros(1, np.float32)})
        for spec in order:
            assert score_models(store, [spec], threads=1, token_budget=100) == {}
        plans.append(
            [store.provenance(spec.row_id)[key] for spec in specs for key in ("plan", "token_budget")]
        )
    assert plans[0] == plans[1]
    assert plans[0][1::2] == [100, 100]


def test_batches_of_another_plan_are_not_taken_up(make_model, tmp_path):
    spec = ModelSpec(str(make_model("llama")))
    store = Store.create(tmp_path / "run", text_set(TEXTS))
    for folder in ("any", "another plan"):
        store.at_work(spec.row_id).parts(folder, 1).write(0, {0: np.full(1000, -7.0, np.float32)})
    assert score_models(store, [spec], threads=1) == {}
    assert all((values != -7).all() for values in store.tokens(spec.row_id))


def test_logits_are_computed_for_few_rows_at_a_time(llama, monkeypatch):
    whole = score_texts(llama, TEXTS).log_likelihood
    monkeypatch.setattr("lmmap.scoring.forward.LOGITS_AT_ONCE", {"cpu": 1})
    monkeypatch.setattr("lmmap.scoring.forward.FEWEST_ROWS", 5)
    rows, logits = [], llama.logits
    monkeypatch.setattr(llama, "logits", lambda hidden: rows.append(len(hidden)) or logits(hidden))
    np.testing.assert_allclose(score_texts(llama, TEXTS).log_likelihood, whole, atol=1e-4)
    assert max(rows) == 5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_output_layer_of_a_16_bit_model_gives_float32(dtype, make_model):
    model = load_model(ModelSpec(str(make_model("llama")), dtype=dtype))
    ids = torch.randint(200, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        rows = model.hidden(ids)[0]
        logits = model.logits(rows)
        expected = rows.float() @ model.model.get_output_embeddings().weight.float().T
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_float64_takes_eager_experts_and_no_other_precision_does(make_model):
    folder = str(make_model("mixtral"))
    kernels = {
        dtype: load_model(ModelSpec(folder, dtype=dtype)).model.config._experts_implementation
        for dtype in ("float32", "float64")
    }
    assert kernels["float64"] == "eager" != kernels["float32"]


def test_logits_of_a_16_bit_model_become_float32_before_they_are_added_up(llama):
    half = torch.randn(3, 260, generator=torch.Generator().manual_seed(0)).half()
    model = copy.copy(llama)
    model.head = "forward"
    assert model.logits(half).dtype == torch.float32
    assert model.log_probs(half, torch.arange(3)).dtype == torch.float32


def test_a_head_that_looks_beyond_its_rows_is_not_run_on_chosen_ones(make_model, monkeypatch):
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def sharper_with_length(self, *args, **options):
        output = forward(self, *args, **options)
        output.logits = output.logits * output.logits.shape[1] / 100
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", sharper_with_length)
    assert load_model(ModelSpec(str(make_model("llama")))).head == "forward"


def test_no_mask_is_given(make_model):
    model = load_model(ModelSpec(str(make_model("llama"))))
    asked = []
    model.model.register_forward_pre_hook(
        lambda _module, _arguments, options: asked.append(set(options)), with_kwargs=True
    )
    score_texts(model, TEXTS)
    assert set.union(*asked) == {"input_ids", "use_cache"}


def leak(model, amount: float, monkeypatch) -> None:
    """Let the last token move every row a little, as a model that is not causal would."""
    run = model.hidden

    def leaking(ids):
        return run(ids) + amount * (ids[:, -1:, None] + 1) / 260

    monkeypatch.setattr(model, "hidden", leaking)


def test_a_difference_is_forgiven_only_where_kernels_are_not_exact(make_model, monkeypatch):
    for kind, amount, refused in [
        ("llama", 1e-5, True),
        ("mixtral", 1e-5, False),
        ("mixtral", 3e-2, True),
    ]:
        model = load_model(ModelSpec(str(make_model(kind))))
        leak(model, amount, monkeypatch)
        if refused:
            with pytest.raises(InputError, match="is not causal"):
                suffix_swap(model, 20)
        else:
            assert 0 < suffix_swap(model, 20) < 1e-4


def test_a_difference_is_forgiven_where_bits_do_not_repeat(llama, monkeypatch):
    run, calls = llama.hidden, []

    def unsteady(ids):
        calls.append(ids)
        return run(ids) + 1e-6 * len(calls)

    monkeypatch.setattr(llama, "hidden", unsteady)
    assert 0 < suffix_swap(llama, 20) < 1e-4


@pytest.mark.parametrize("at", [12, 40])
def test_the_suffix_is_swapped_in_short_texts_and_in_the_longest(at, llama, monkeypatch):
    run = llama.hidden
    monkeypatch.setattr(
        llama, "hidden", lambda ids: run(ids) + (ids.shape[1] == at) * (ids[:, -1:, None] + 1) / 260
    )
    with pytest.raises(InputError, match=f"is not causal: other tokens at the end of {at} moved"):
        suffix_swap(llama, 40)


def test_padding_may_move_a_float32_text_by_a_thousandth_of_a_nat(llama, monkeypatch):
    for grown, equal_above in ((0.9e-3, None), (1.1e-3, 0)):
        monkeypatch.setattr("lmmap.scoring.job.pad_growth", lambda *_, grown=grown: grown)
        assert prepare(llama, TEXTS).provenance["equal_above"] == equal_above


def test_tf32_is_on_while_a_tf32_model_runs_and_only_then(make_model):
    loaded = load_model(ModelSpec(str(make_model("llama"))))
    model = LoadedModel(loaded.spec, loaded.model, loaded.tokenizer, "tf32")
    seen = []
    model.model.register_forward_pre_hook(
        lambda *_: seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    )
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    score_texts(model, TEXTS)
    assert set(seen) == {("high", True)}
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_nothing_is_cached_and_nothing_is_dropped_out(make_model):
    model = load_model(ModelSpec(str(make_model("gpt2"))))
    asked = []
    model.model.register_forward_pre_hook(
        lambda _module, _arguments, options: asked.append(options["use_cache"]), with_kwargs=True
    )
    score_texts(model, TEXTS)
    assert set(asked) == {False}
    assert not model.model.training


# The record


def test_the_record_tells_how_when_and_on_what(make_model, tmp_path):
    spec = ModelSpec(str(make_model("llama")))
    store = Store.create(tmp_path / "run", text_set(TEXTS))
    score_models(store, [spec], threads=1, token_budget=77)
    made = store.provenance(spec.row_id)
    assert made["token_budget"] == 77
    assert made["suffix_swap"] == 0
    assert made["pad_growth"] < 1e-3
    assert made["device"]
    assert made["attention"] == "sdpa"
    assert "commit" in made
    assert set(made["versions"]) >= {"torch", "transformers", "tokenizers", "lmmap"}
    assert made["n_tokens"] == sum(len(text.encode()) for text in TEXTS)
    journal = json.loads((store.path / "journal" / f"{spec.row_id}.json").read_text())
    assert journal["seconds"] > 0


def test_the_threads_asked_for_are_used_and_recorded(make_model, tmp_path):
    spec = ModelSpec(str(make_model("llama")))
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            store = Store.create(tmp_path / str(threads), text_set(TEXTS))
            score_models(store, [spec], threads=threads)
            assert torch.get_num_threads() == threads
            assert store.provenance(spec.row_id)["threads"] == threads
    finally:
        torch.set_num_threads(before)


def test_scores_are_written_last_and_token_records_byte_by_byte(make_model, tmp_path, monkeypatch):
    from lmmap.tables import write_table

    written = []
    monkeypatch.setattr(
        "lmmap.store.write_table",
        lambda path, *args, **options: (
            written.append(path.parent.name),
            write_table(path, *args, **options),
        ),
    )
    store = Store.create(tmp_path / "run", text_set(TEXTS))
    score_models(store, [ModelSpec(str(make_model("llama")))], threads=1)
    assert written == ["tokenizations", "tokens", "scores"]
    (file,) = store.path.glob("tokens/*.parquet")
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert column.compression == "ZSTD"


def test_a_kill_costs_two_minutes_at_most(make_model, tmp_path, monkeypatch):
    assert shared.SECONDS_BETWEEN_PARTS <= 120
    monkeypatch.setattr(shared, "SECONDS_BETWEEN_PARTS", 0.0)
    monkeypatch.setattr(shared.SharedWork, "close", lambda _: None)  # who is killed closes nothing
    spec, scored = ModelSpec(str(make_model("llama"))), []
    store = Store.create(tmp_path / "run", text_set(TEXTS))

    def kill(progress):
        scored.extend([progress] * (progress.state == "scoring"))
        if len(scored) == 3:
            pytest.fail("killed while the third batch is taken")

    with pytest.raises(pytest.fail.Exception):
        score_models(store, [spec], threads=1, token_budget=1, on_progress=kill)
    (kept,) = store.path.glob("parts/*/*/*.npz")
    with np.load(kept) as batches:
        assert sorted(batches.files) == ["0", "1"]


def test_the_head_in_float32_runs_outside_inference_mode_too(make_model):
    folder = str(make_model("llama"))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model = LoadedModel(ModelSpec(folder), loaded, AutoTokenizer.from_pretrained(folder), "bfloat16")
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        expected = model.logits(model.hidden(ids)[0])
    torch.testing.assert_close(model.logits(model.hidden(ids)[0]).detach(), expected, rtol=0, atol=0)


def test_attention_plans_for_no_shape_and_what_was_set_before_is_set_again(make_model, monkeypatch):
    model = load_model(ModelSpec(str(make_model("llama"))))
    seen = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(*arguments, **options):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return attention(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    model.hidden(torch.arange(12)[None])
    assert seen
    assert not any(seen)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
