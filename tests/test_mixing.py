"""Models between models: their weights lie where the shares say, and what cannot be mixed is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import byte_tokenizer

from lmmap import InputError, ModelSpec, load_model, score_texts
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.mixing import mixed_copy, mixed_weights

TEXTS = ["The capital of France is Paris.", "def f(x):\n    return x + 1\n", "naïve café"]
Make = Callable[..., Path]


@pytest.fixture(params=["llama", "gpt_neox"])
def corners(request: pytest.FixtureRequest, make_model: Make) -> list[LoadedModel]:
    return [load(make_model, request.param, seed=seed) for seed in range(3)]


def load(make_model: Make, kind: str = "llama", **changes: object) -> LoadedModel:
    dtype = changes.pop("dtype", None)
    return load_model(
        ModelSpec(str(make_model(kind, **changes)), name=f"m{changes.get('seed', 0)}"), dtype=dtype
    )


def scored(model: LoadedModel) -> np.ndarray:
    return score_texts(model, TEXTS, audit=False).log_likelihood


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.model.named_parameters()}


@pytest.mark.parametrize("i", range(3))
def test_at_a_corner_stands_the_model_to_the_bit_and_scores_as_it_does(corners, i):
    corner = mixed_copy(corners, np.eye(3)[i].tolist())
    assert all(torch.equal(p, weights(corners[i])[name]) for name, p in weights(corner).items())
    np.testing.assert_array_equal(scored(corner), scored(corners[i]))
    assert corner.spec.name == f"1 m{i}"


def test_a_mixture_has_the_weights_that_its_shares_say_and_leaves_its_models_alone(corners):
    before, given = [weights(model) for model in corners], scored(corners[0])
    shares = [0.5, 0.75, -0.25]
    mixture = mixed_copy(corners, shares, name="between")
    assert mixture.spec.name == "between"
    for name, weight in weights(mixture).items():
        exact = sum(share * of_one[name].double() for share, of_one in zip(shares, before, strict=True))
        torch.testing.assert_close(weight.double(), exact, rtol=0, atol=2e-7 * float(exact.abs().max() + 1))
    assert all(
        torch.equal(p, of_one[name])
        for model, of_one in zip(corners, before, strict=True)
        for name, p in weights(model).items()
    )
    np.testing.assert_array_equal(scored(corners[0]), given)
    assert np.abs(scored(mixture) - given).max() > 1e-3


def test_half_way_between_two_is_the_mean_of_their_weights(corners):
    half = mixed_copy(corners[:2], [0.5, 0.5])
    first, second = map(weights, corners[:2])
    for name, weight in weights(half).items():
        assert torch.equal(weight, (first[name] + second[name]) / 2)  # a half is exact in binary


def test_models_that_differ_in_the_bias_of_their_head_mix_their_logits(make_model):
    """Where logits are affine in what differs, they are mixed as the weights are: a closed form."""
    corners = [load(make_model, "phi", seed=0) for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    for model in corners:
        bias = model.model.lm_head.bias
        bias.data.copy_(torch.randn(bias.shape, generator=generator))
    shares = [0.25, 0.5, 0.25]
    ids = torch.arange(3, 19)[None]
    with torch.inference_mode():
        logits = [model.logits(model.hidden(ids)[0]) for model in (*corners, mixed_copy(corners, shares))]
    expected = sum(share * of_one for share, of_one in zip(shares, logits[:3], strict=True))
    torch.testing.assert_close(logits[3], expected, rtol=0, atol=1e-5)
    assert (logits[3] - logits[0]).abs().max() > 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied_and_others_apart(make_model, tied):
    corners = [load(make_model, seed=seed, tie_word_embeddings=tied) for seed in range(2)]
    mixture = mixed_copy(corners, [0.5, 0.5]).model
    assert (mixture.lm_head.weight is mixture.model.embed_tokens.weight) == tied
    expected = sum(model.model.lm_head.weight.data for model in corners) / 2
    assert torch.equal(mixture.lm_head.weight.data, expected)


def test_models_in_16_bits_are_mixed_in_32_and_rounded_once(make_model):
    corners = [load(make_model, seed=seed, dtype="bfloat16") for seed in range(2)]
    mixture = mixed_copy(corners, [0.3, 0.7])
    assert mixture.model.dtype == torch.bfloat16
    first, second = map(weights, corners)
    for name, weight in weights(mixture).items():
        assert torch.equal(weight, (0.3 * first[name].float() + 0.7 * second[name].float()).bfloat16())


def test_whole_numbers_among_the_buffers_are_those_of_the_first_and_saved_fractions_are_mixed(make_model):
    corners = [load(make_model, seed=seed) for seed in range(2)]
    for i, model in enumerate(corners):
        model.model.register_buffer("steps", torch.tensor(3 + i))
        model.model.register_buffer("balance", torch.tensor(float(i)))
        model.model.register_buffer("table", torch.tensor(float(i)), persistent=False)
    mixture = mixed_copy(corners, [0.75, 0.25]).model
    assert (mixture.steps.item(), mixture.balance.item(), mixture.table.item()) == (3, 0.25, 0)


def test_two_sets_of_weights_give_the_bits_of_the_plain_formula():
    generator = torch.Generator().manual_seed(1)
    first, second = ({"w": torch.randn(1000, generator=generator)} for _ in range(2))
    for share in (1 / 6, 2 / 6, 0.9):
        mixed = mixed_weights([first, second], [1 - share, share])
        assert torch.equal(mixed["w"], (1 - share) * first["w"] + share * second["w"])


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ([0.5, 0.6], r"shares \[0.5, 0.6\] sum to 1.1; they must sum to 1"),
        ([float("nan"), 1.0], "sum to nan; they must sum to 1"),
        ([float("inf"), -float("inf")], "sum to nan; they must sum to 1"),
        ([0.5], "2 models, but 1 shares"),
        ([0.2, 0.3, 0.5], "2 models, but 3 shares"),
    ],
)
def test_shares_that_are_not_affine_are_refused(make_model, shares, reason):
    with pytest.raises(InputError, match=reason):
        mixed_copy([load(make_model, seed=seed) for seed in range(2)], shares)


def test_one_model_is_no_mixture(make_model):
    with pytest.raises(InputError, match="mixing takes two or more models, got 1"):
        mixed_copy([load(make_model)], [1.0])


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("gpt_neox", {}, "one is a LlamaForCausalLM, the other a GPTNeoXForCausalLM"),
        ("llama", {"num_hidden_layers": 3}, "9 weights are in one of them only, such as model.layers.2"),
        (
            "llama",
            {"intermediate_size": 48},
            r"gate_proj.weight has the shapes \(64, 32\) and \(48, 32\)",
        ),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'silu' in one, 'gelu' in the other"),
        ("llama", {"tokenizer": byte_tokenizer(eos_token="<end>")}, "their tokenizers differ"),
    ],
)
def test_models_whose_weights_do_not_mean_the_same_are_refused(make_model, kind, changes, reason):
    models = [load(make_model), load(make_model, kind, **changes)]
    with pytest.raises(InputError, match=f"m0 and m0 cannot be mixed: .*{reason}"):
        mixed_copy(models, [0.5, 0.5])


def test_quantized_weights_are_refused(make_model):
    models = [load(make_model, seed=seed) for seed in range(2)]
    weight = models[1].model.lm_head
    weight.weight = torch.nn.Parameter(weight.weight.data.to(torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"lm_head.weight is quantized \(torch.int8\)"):
        mixed_copy(models, [0.5, 0.5])
