"""Every architecture scores what transformers' own forward says, or is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from oracle import Oracle
from packaging.version import Version
from tiny import CONTEXT, VARIANTS, all_kinds, byte_tokenizer, tiny_config

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.causal import refusal
from lmmap.scoring.checks import pad_growth, suffix_swap
from lmmap.scoring.encode import Encoded
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import prepare
from lmmap.scoring.load import load_model
from lmmap.scoring.plan import plan_batches
from lmmap.scoring.score import score_texts
from lmmap.scoring.stub import NoStubError
from lmmap.scoring.tables import switch_length

TEXTS = ["x", "The capital of France is Paris.", "naïve café, 12 × 3 = 36 €", "def f(x):\n    return x + 1\n"]
LONG = "A text that is longer than sixty-four tokens is read in windows, each of them with half of it seen."

# One line for each thing that was ever wrong somewhere: biases, scales, soft-caps, positions, windows, ...
SCORED = {
    "plain decoders": [
        "llama",
        "gpt_neox",
        "qwen3",
        "olmo2",
        "stablelm",
        "phi3",
        "glm4",
        "starcoder2",
        "mistral",
    ],
    "learned positions": ["gpt2", "gpt_bigcode", "gpt_neo", "xglm", "biogpt", "opt, as 350m"],
    "a head with bias": ["gptj", "codegen", "phi", "ctrl"],
    "ALiBi": ["bloom", "mpt", "falcon, ALiBi"],
    "soft-caps": [
        "gemma2, strong soft-caps",
        "gemma3_text, soft-cap",
        "gemma3n_text",
        "recurrent_gemma",
        "nanochat",
    ],
    "scales": ["cohere, scale, query norm", "granite, multipliers", "minicpm3", "falcon_h1"],
    "mixtures of experts": [
        "mixtral",
        "qwen2_moe",
        "dbrx",
        "deepseek_v3",
        "gpt_oss",
        "jetmoe",
        "llama4_text",
    ],
    "recurrent": ["mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"],
    "hybrids": ["jamba", "bamba", "zamba2", "nemotron_h", "qwen3_next", "lfm2", "minimax"],
    "sparse attention": ["deepseek_v32, 16 of the keys", "doge"],
    "RoPE by length": ["llama, rope dynamic", "phi3, rope longrope", "llama, rope yarn"],
    "a head with a transform": ["bert", "roberta", "electra", "rembert"],
    "padding by id": ["xlm, causal"],
    "a wrapper of images and text": ["gemma3"],
}
REFUSED = {
    "bert, both ways": "is_decoder=False",
    "roberta, both ways": "is_decoder=False",
    "xlm": "causal=False",
    "doge, chosen keys": "keep_window_size=8",
    "xlnet": "permuted order",
    "reformer": "'lsh'",
    "cpmant": "both ways",
    "big_bird, block-sparse": "attention_type='block_sparse'",
    "gemma3_text, both ways": "use_bidirectional_attention=True",
    "bart": "a decoder of bart",
    "pegasus": "a decoder of pegasus",
    "marian": "a decoder of marian",
    "whisper": "a decoder of whisper",
    "prophetnet": "a decoder of prophetnet",
    "trocr": "a decoder of trocr",
}


NOT_BEFORE_5_23 = ("dbrx", "doge", "rembert")


def load(folder: Path, **options: object) -> LoadedModel:
    return load_model(ModelSpec(str(folder), **options))


@pytest.mark.parametrize("kind", [kind for kinds in SCORED.values() for kind in kinds])
def test_scores_equal_the_oracle_in_batches_alone_and_in_windows(kind, make_model):
    if kind in NOT_BEFORE_5_23 and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("earlier versions let later tokens through, or do not build it tiny")
    folder = make_model(kind)
    model, oracle = load(folder), Oracle(folder)
    row = score_texts(model, [*TEXTS, LONG], audit=False)
    assert row.provenance["equal_above"] is not None or len(prepare(model, TEXTS).batches) == 1
    for text, tokens in zip([*TEXTS, LONG], row.tokens, strict=True):
        expected = oracle.tokens(text, model.context)
        np.testing.assert_allclose(tokens, expected, atol=5e-4)
        assert abs(tokens.sum() - expected.sum()) < 1e-3
    alone = score_texts(model, [*TEXTS, LONG], audit=False, token_budget=1)
    np.testing.assert_allclose(row.log_likelihood, alone.log_likelihood, atol=1e-3)
    assert model.head == "stub"


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_causal_is_refused_by_name(kind, make_model):
    with pytest.raises(InputError, match=f"is not scored: .*{REFUSED[kind]}"):
        load(make_model(kind))


@pytest.mark.parametrize("kind", ["bert, both ways", "xlm", "cpmant", "xlnet"])
def test_what_has_no_name_is_refused_by_the_suffix_swap(kind, make_model, monkeypatch):
    monkeypatch.setattr("lmmap.scoring.load.refusal", lambda _: None)
    with pytest.raises(InputError, match=r"is not causal: .* moved log-probabilities .* nats"):
        prepare(load(make_model(kind)), TEXTS)


def test_a_causal_kind_is_not_refused_by_name():
    for kind in (kind for kinds in SCORED.values() for kind in kinds):
        assert refusal(tiny_config(kind)) is None


def test_the_kinds_are_many_and_known():
    kinds = set(all_kinds())
    assert {kind for kinds in SCORED.values() for kind in kinds} | set(REFUSED) <= kinds
    assert set(VARIANTS) <= kinds
    assert len({kind.partition(",")[0] for kind in kinds}) > 150


# Positions


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        *(("llama", 64), ("gpt2", 64), ("opt", 64), ("biogpt", 64), ("bert", 64), ("mpt", 64), ("rwkv", 64)),
        *(("roberta", 63), ("mamba", None), ("bloom", None), ("xlstm", None)),
    ],
)
def test_the_context_is_what_the_tables_hold(kind, context, make_model):
    assert load(make_model(kind)).context == context


def test_places_reserved_for_padding_hold_no_tokens(make_model):
    folder = make_model("roberta", max_position_embeddings=34, pad_token_id=1)
    model = load(folder)
    assert model.context == 32  # as 512 of RoBERTa's 514
    row = score_texts(model, [LONG], audit=False)
    np.testing.assert_allclose(row.tokens[0], Oracle(folder).tokens(LONG, 32), atol=5e-4)


def test_ids_must_lie_within_the_embedding_and_the_logits(make_model):
    assert load(make_model("llama", vocab_size=300)).vocab_size == 300
    with pytest.raises(InputError, match="embedding ends at 250"):
        score_texts(load(make_model("llama", vocab_size=250)), ["ÿþ日本"])


# Switches


def test_the_length_of_a_switch_is_read_from_the_configuration():
    assert switch_length(tiny_config("llama")) is None
    assert switch_length(tiny_config("llama, rope yarn")) is None
    assert switch_length(tiny_config("llama, rope dynamic")) == CONTEXT
    assert switch_length(tiny_config("phi3, rope longrope")) == 16
    assert switch_length(tiny_config("deepseek_v32, 16 of the keys")) == 16


def test_no_text_is_padded_across_a_switch(make_model):
    job = prepare(load(make_model("phi3, rope longrope")), ["x" * n for n in range(3, 40)], audit=False)
    for batch in job.batches:
        lengths = {len(job.sequences[i].ids) - 1 for i in batch}
        assert max(lengths) <= 16 or len(lengths) == 1
    assert any(len(batch) > 1 for batch in job.batches)


def test_above_a_length_only_equals_share_a_batch():
    batches = plan_batches([9, 9, 8, 7, 5, 4, 4], 1000, equal_above=5)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2], [3], [4, 5, 6]]


def test_dynamic_rope_forgets_the_longest_text_that_it_read(make_model):
    folder = make_model("llama, rope dynamic")
    ids = torch.randint(250, (1, 3 * CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        fresh = load(folder).hidden(ids[:, : CONTEXT + 6])
        model = load(folder)
        model.hidden(ids)
        assert torch.equal(model.hidden(ids[:, : CONTEXT + 6]), fresh)


def test_padding_by_id_means_groups_of_equal_length(make_model):
    job = prepare(load(make_model("xlm, causal")), TEXTS, audit=False)
    assert job.provenance["pad_growth"] > 1e-3
    assert job.provenance["equal_above"] == 0


# Heads


def test_the_head_runs_on_chosen_rows_and_leaves_nothing_behind(make_model):
    for kind in ("opt, as 350m", "bert", "gemma2, strong soft-caps"):
        model = load(make_model(kind))
        ids = torch.randint(250, (2, 12), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            full = model.model(input_ids=ids).logits
            rows = model.hidden(ids)[:, 3:7].flatten(0, 1)
            np.testing.assert_allclose(model.logits(rows), full[:, 3:7].flatten(0, 1), atol=1e-4)
        assert not any("forward" in vars(module) for module in model.model.modules())


def test_a_head_that_cannot_be_stubbed_reads_one_text_at_a_time(make_model, monkeypatch):
    from transformers import LlamaForCausalLM

    folder = make_model("llama")
    expected = score_texts(load(folder), TEXTS, audit=False)
    shapes = []
    whole = LlamaForCausalLM.forward
    monkeypatch.setattr(LoadedModel, "_verify_stub", _no_stub)
    model = load(folder)
    assert model.head == "forward"

    def watched(self, input_ids, **options):
        shapes.append(input_ids.shape)
        return whole(self, input_ids=input_ids, **options)

    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    row = score_texts(model, TEXTS, audit=False)
    np.testing.assert_allclose(row.log_likelihood, expected.log_likelihood, atol=1e-3)
    assert all(shape[0] == 1 for shape in shapes)


def _no_stub(*_: object) -> None:
    raise NoStubError


def test_logits_of_padded_words_may_be_minus_infinity(make_model):
    model = load(make_model("llama"))
    layer = model.model.get_output_embeddings()
    layer.register_forward_hook(lambda _m, _i, out: out.index_fill(-1, torch.tensor([259]), -torch.inf))
    assert suffix_swap(model, 20) == 0
    assert np.isfinite(score_texts(model, TEXTS, audit=False).log_likelihood).all()


# Models with code of their own

CODE = """
import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=260, width=16, slots=40, both_ways=False, remembers=False, **more):
        self.vocab_size, self.width, self.slots = vocab_size, width, slots
        self.both_ways, self.remembers = both_ways, remembers
        super().__init__(**more)


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.places = nn.Embedding(config.slots, config.width)
        self.rnn = nn.GRU(config.width, config.width, batch_first=True, bidirectional=config.both_ways)
        self.head = nn.Linear(config.width * (1 + config.both_ways), config.vocab_size)
        self.seen = {}
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask):
        places = torch.arange(input_ids.shape[1], device=input_ids.device) + 3
        x = self.words(input_ids) * attention_mask[..., None] + self.places(places)
        if self.config.remembers and self.seen:
            x = x + self.seen["length"]
        self.seen["length"] = input_ids.shape[1]
        return (self.head(self.rnn(x)[0]),)
"""


@pytest.fixture
def make_own(tmp_path):
    """Give a function that saves a model whose code lies in its own folder."""

    def make(**changes: object) -> Path:
        folder = tmp_path / "own"
        folder.mkdir()
        (folder / "modeling_own.py").write_text(CODE)
        scope: dict = {}
        exec(CODE, scope)
        torch.manual_seed(0)
        model = scope["OwnModel"](scope["OwnConfig"](**changes))
        model.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnModel",
        }
        (folder / "config.json").write_text(json.dumps(config))
        byte_tokenizer().save_pretrained(folder)
        return folder

    return make


def test_code_of_its_own_is_scored_when_it_is_trusted_and_refused_when_not(make_own):
    folder = make_own()
    with pytest.raises(InputError, match=r"brings code of its own, .* `trust_remote_code: true`"):
        load(folder)
    model = load(folder, trust_remote_code=True)
    assert model.context == 37  # 40 places, three of them before the first
    assert model.head == "forward"  # a stub would be asked for more rows than it has places
    row = score_texts(model, TEXTS, audit=False)
    for text, tokens in zip(TEXTS, row.tokens, strict=True):
        ids = torch.tensor([[256, *model.tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            log_probs = model.model(ids, torch.ones_like(ids))[0][0].log_softmax(-1)
        np.testing.assert_allclose(tokens, log_probs[:-1].gather(1, ids[0, 1:, None])[:, 0], atol=1e-5)


def test_code_that_reads_both_ways_is_refused(make_own):
    model = load(make_own(both_ways=True), trust_remote_code=True)
    with pytest.raises(InputError, match="OwnModel is not causal: other tokens at the end"):
        score_texts(model, TEXTS)


def test_a_model_that_depends_on_what_it_read_before_is_refused(make_own):
    model = load(make_own(remembers=True), trust_remote_code=True)
    with pytest.raises(InputError, match="OwnModel depends on what it has read before"):
        score_texts(model, TEXTS)


def test_a_model_that_gives_no_logits_for_each_token_is_refused(make_own, monkeypatch):
    monkeypatch.setitem(globals(), "CODE", CODE.replace("(self.head(self.rnn(x)[0]),)", "(x[:, 0],)"))
    with pytest.raises(InputError, match="not logits over a vocabulary for each"):
        load(make_own(), trust_remote_code=True)


def test_a_model_that_runs_on_few_tokens_only_is_refused(make_own, monkeypatch):
    broken = CODE.replace(
        "        return (self.head", "        assert places[-1] < 20\n        return (self.head"
    )
    monkeypatch.setitem(globals(), "CODE", broken)
    model = load(make_own(), trust_remote_code=True)
    with pytest.raises(InputError, match="OwnModel does not run on 31 tokens in float32: AssertionError"):
        score_texts(model, TEXTS)


@pytest.mark.parametrize("context", [2, 3, 5])
def test_the_smallest_contexts_are_scored(context, make_model):
    folder = make_model("gpt2", n_positions=context)
    row = score_texts(load(folder), TEXTS, audit=False)
    for text, tokens in zip(TEXTS, row.tokens, strict=True):
        np.testing.assert_allclose(tokens, Oracle(folder).tokens(text, context), atol=5e-4)


def test_a_scale_of_nothing_is_refused(make_model):
    with pytest.raises(InputError, match="logits are not finite"):
        score_texts(load(make_model("granite", logits_scaling=0.0)), TEXTS)


def test_padding_that_matters_is_measured(make_own):
    model = load(make_own(both_ways=True), trust_remote_code=True)
    sequences = [Encoded(0, np.arange(n), np.arange(n) > 0) for n in (5, 30)]
    assert pad_growth(model, sequences) > 1e-3
