"""Altered copies differ from their model by what their name says, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lmmap import ModelSpec, exact_kl_on_samples, exact_kl_on_texts, load_model
from lmmap.demo.altered import ALTERATIONS, STEPS, WINDOW, WINDOWS, altered_copy
from lmmap.errors import InputError
from lmmap.scoring.forward import LoadedModel

TEXTS = ["The capital of France is Paris.", "def f(x):\n    return x + 1\n", "naïve café"]
DOMAIN = ["All rights reserved. "] * 100
IDS = torch.arange(3, 19)[None]
Make = Callable[..., Path]


@pytest.fixture(params=["llama", "gpt_neox"])
def model(request: pytest.FixtureRequest, make_model: Make) -> LoadedModel:
    return load_model(ModelSpec(str(make_model(request.param, max_position_embeddings=256)), name="base"))


def logits(model: LoadedModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model.hidden(ids)[0]).double()


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.model.named_parameters()}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_copy_has_its_name_gives_the_same_bits_again_and_leaves_its_model_alone(model, alteration):
    before, given = weights(model), logits(model)
    one, two = (altered_copy(model, alteration, texts=DOMAIN, seed=3) for _ in range(2))
    assert one.spec.name == f"base-{alteration}"
    assert torch.equal(logits(one), logits(two))
    assert not torch.equal(logits(one), given)
    assert all(torch.equal(p, before[name]) for name, p in weights(model).items())
    assert torch.equal(logits(model), given)


@pytest.mark.parametrize("bits", [8, 6, 4, 3])
def test_rounded_rows_have_as_many_values_as_bits_tell(model, bits):
    before, after = weights(model), weights(altered_copy(model, f"{bits}bit"))
    for name, matrix in before.items():
        if matrix.ndim != 2:
            assert torch.equal(after[name], matrix)
            continue
        step = matrix.abs().amax(dim=1, keepdim=True).clamp(min=1e-9) / (2 ** (bits - 1) - 1)
        whole = after[name] / step
        assert ((whole - whole.round()).abs() < 1e-3).all()
        assert ((after[name] - matrix).abs() <= step / 2 + 1e-6).all()


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_noise_is_of_the_share_of_each_matrix_that_is_asked_for_and_another_seed_is_other_noise(model, share):
    copies = [weights(altered_copy(model, f"noise{share:.0%}", seed=seed)) for seed in (0, 1)]
    for name, matrix in weights(model).items():
        if matrix.ndim != 2:
            continue
        noise = [(copy[name] - matrix).double() for copy in copies]
        n = matrix.numel()
        assert abs(noise[0].std() / matrix.std() - share) < 5 * share / (2 * n) ** 0.5
        assert abs(torch.corrcoef(torch.stack([x.flatten() for x in noise]))[0, 1]) < 5 / n**0.5


def test_a_temperature_divides_the_logits_and_scoring_and_sampling_see_it(model):
    hot = altered_copy(model, "temperature1.1")
    assert torch.allclose(logits(hot), logits(model) / 1.1, rtol=1e-5)
    ids = torch.cat([IDS[:, :1], IDS], dim=1)
    with torch.inference_mode():
        scored = hot.score(ids, torch.ones(IDS.shape, dtype=torch.bool))
    expected = torch.log_softmax(logits(model, ids[:, :-1]) / 1.1, dim=-1).gather(1, IDS[0, :, None])[:, 0]
    np.testing.assert_allclose(scored, expected, rtol=1e-5, atol=1e-5)
    assert exact_kl_on_texts([model, hot], TEXTS).half_jeffreys.value[0, 1] > 0
    written = exact_kl_on_samples([model, hot], n_texts=8, n_tokens=8, source=1)
    assert written.sequence_kl.value[0] > 0


def test_a_dropped_layer_is_one_that_adds_nothing(model):
    """The model itself, with the last products of that layer at zero."""
    short = altered_copy(model, "dropped")
    assert short.model.config.num_hidden_layers == model.model.config.num_hidden_layers - 1
    layer = next(m for m in model.model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 2)[1]
    ends = ("o_proj", "down_proj", "attention.dense", "dense_4h_to_h")
    with torch.no_grad():
        for name, part in layer.named_modules():
            if name.endswith(ends):
                for parameter in part.parameters():
                    parameter.zero_()
    assert torch.allclose(logits(short), logits(model), rtol=1e-5, atol=1e-5)
    exact_kl_on_samples([short, short_named(short)], n_texts=2, n_tokens=4)  # its memory counts its layers


def short_named(model: LoadedModel) -> LoadedModel:
    return altered_copy(model, "temperature0.9")


def test_training_makes_its_own_texts_likelier(model):
    tuned = altered_copy(model, "tuned", texts=DOMAIN)
    exact = exact_kl_on_texts([model, tuned], DOMAIN[:2])
    before, after = exact.log_likelihoods
    assert (after > before).all()
    assert not any(p.requires_grad for p in tuned.model.parameters())


def test_what_cannot_be_altered_is_named(model, make_model):
    with pytest.raises(InputError, match=r"unknown alteration '5bit'.*use 8bit, 6bit"):
        altered_copy(model, "5bit")
    with pytest.raises(
        InputError, match=rf"tuned takes {STEPS * WINDOWS * WINDOW:,} tokens of text, 1 texts"
    ):
        altered_copy(model, "tuned", texts=["short"])
    half = load_model(model.spec, dtype="bfloat16")
    with pytest.raises(InputError, match=r"a model in torch\.bfloat16 is not trained; load it in float32"):
        altered_copy(half, "tuned", texts=DOMAIN)
    one = load_model(ModelSpec(str(make_model("llama", num_hidden_layers=1))))
    with pytest.raises(InputError, match="has 1 layer; one of two or more"):
        altered_copy(one, "dropped")
