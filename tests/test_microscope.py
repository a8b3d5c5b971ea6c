"""A pair under the microscope: exact beside estimated, and the texts and tokens where the models part."""

from __future__ import annotations

import types

import IPython
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from tiny import TEXTS
from tokenizers_of_all_kinds import tokenizer_of

from lmmap import InputError, look_at_pair, pick_pair, plot_pair, read_segments
from lmmap.estimates import ESTIMATORS, estimate_kl_by
from lmmap.exact_kl import Enumerated, exact_kl_on_samples, exact_kl_on_texts
from lmmap.geometry import estimate_kl
from lmmap.loglik import LogLikelihoods
from lmmap.models import ModelSpec
from lmmap.scoring.load import load_model
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.texts import text_set

plt.switch_backend("Agg")  # now: the first figure would ask the shell, which tests replace


@pytest.fixture(scope="module")
def specs(make_model):
    one, two = (ModelSpec(str(make_model(kind)), name=kind) for kind in ("llama", "gpt2"))
    tokenizer = tokenizer_of("gpt2")
    folder = make_model("llama", tokenizer=tokenizer, vocab_size=600)
    other = ModelSpec(str(folder), name="other", prefix=tokenizer.all_special_tokens[0])
    return [one, two, other]


@pytest.fixture(scope="module")
def store(specs, tmp_path_factory):
    made = Store.create(tmp_path_factory.mktemp("pair") / "run", text_set(TEXTS, sources="made"))
    assert score_models(made, specs) == {}
    return made


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_every_estimate_and_every_exact_value_is_that_of_its_own_function(store, specs):
    models = [load_model(spec) for spec in specs[:2]]
    on_texts = exact_kl_on_texts(models, TEXTS)
    samples = [exact_kl_on_samples(models, n_texts=4, n_tokens=5, source=i) for i in (0, 1)]
    segments = read_segments(store, models=["llama", "gpt2"])
    pair = look_at_pair(
        store.load(), "llama", "gpt2", segments=segments, on_texts=on_texts, on_samples=samples
    )
    value = pair.quantities["value"]
    estimates = [name for name in ESTIMATORS if not name.startswith("segment_")]
    assert list(value.index[: len(estimates)]) == estimates
    for name in estimates:
        assert value[name] == estimate_kl_by(name, segments)[0, 1]
    assert value["exact on texts"] == on_texts.half_jeffreys.value[0, 1]
    assert pair.quantities.loc["exact on texts", "se"] == on_texts.half_jeffreys.se[0, 1]
    both = samples[0].sequence_kl.value[1], samples[1].sequence_kl.value[0]
    assert value["exact on samples"] == pytest.approx(np.mean(both))
    on_samples = [estimate_kl(one.log_likelihoods)[0, 1] for one in samples]
    assert value["text_level on samples"] == pytest.approx(np.mean(on_samples))
    drawn = [label.get_text() for label in plot_pair(pair).axes[0].get_yticklabels()]
    assert list(value[drawn]) == sorted(value, reverse=True)


def test_models_that_can_be_enumerated_have_their_exact_value():
    coins = Enumerated(("a", "b"), np.log([[0.5, 0.5], [0.25, 0.75]]))
    texts = pd.DataFrame({"n_bytes": [1, 1], "source": "coin"}, index=["heads", "tails"])
    scores = LogLikelihoods(coins.log_probs, pd.DataFrame(index=["a", "b"]), texts)
    pair = look_at_pair(scores, "a", "b", enumerated=coins)
    assert pair.quantities.loc["exact by enumeration", "value"] == pytest.approx(np.log(3) / 8)


@pytest.mark.parametrize("second", ["gpt2", "other"])
def test_pieces_are_quoted_from_their_texts_and_add_up(second, store):
    segments = read_segments(store, models=["llama", second])
    n_pieces = len(segments.text_of_segment)
    scores = store.load()
    pair = look_at_pair(scores, "llama", second, texts=TEXTS, segments=segments, n_shown=n_pieces)
    assert len(pair.tokens) == n_pieces
    assert pair.tokens["difference"].abs().is_monotonic_decreasing
    for x, text_id in enumerate(scores.texts.index):
        pieces = pair.tokens[pair.tokens["text_id"] == text_id].sort_values(["start", "end"])
        whole = TEXTS[x].encode()
        assert pieces["end"].iloc[-1] == len(whole)
        assert (pieces["start"].to_numpy()[1:] == pieces["end"].to_numpy()[:-1]).all()
        assert pieces["difference"].sum() == pytest.approx(
            pair.differences.loc[text_id, "difference"], abs=1e-4
        )
        for _, piece in pieces.iterrows():
            assert piece["piece"] == whole[piece["start"] : piece["end"]].decode(errors="replace")


def test_drawn_pieces_are_quoted_from_where_they_stand(store):
    segments, scores = read_segments(store, models=["llama", "gpt2"]), store.load()
    n = len(segments.text_of_segment)
    everything = look_at_pair(scores, "llama", "gpt2", texts=TEXTS, segments=segments, n_shown=n).tokens
    drawn = segments.sample(n // 3)
    some = look_at_pair(scores, "llama", "gpt2", texts=TEXTS, segments=drawn, n_shown=n).tokens
    assert len(some) == n // 3
    assert set(map(tuple, some.to_numpy())) <= set(map(tuple, everything.to_numpy()))


def test_shares_of_texts_and_of_the_variance_are_the_whole(store):
    pair = look_at_pair(store.load(), "gpt2", "llama", texts=TEXTS, n_shown=len(TEXTS))
    assert pair.texts["share"].sum() == pytest.approx(1)
    assert pair.texts["share"].is_monotonic_decreasing
    assert sum(pair.variance.values()) == pytest.approx(pair.differences["difference"].var(ddof=0))
    assert pair.quantities.loc["text_level", "value"] == pytest.approx(sum(pair.variance.values()) / 2)
    assert pair.tokens.empty
    assert "variance over texts: length" in repr(pair)
    assert all(
        TEXTS[list(store.load().texts.index).index(i)].startswith(b) for i, b in pair.texts["begins"].items()
    )


def test_what_cannot_be_looked_at_is_named(store):
    scores = store.load()
    with pytest.raises(InputError, match="are one model; choose two"):
        look_at_pair(scores, "llama", "llama")
    with pytest.raises(InputError, match=r"'lama' is not one of the 3 models here.*llama"):
        look_at_pair(scores, "lama", "gpt2")
    with pytest.raises(InputError, match="do not have these two models' scores"):
        look_at_pair(scores, "llama", "gpt2", segments=read_segments(store, models=["gpt2", "other"]))
    with pytest.raises(InputError, match=r"1 texts are given, the scores are of \d+"):
        look_at_pair(scores, "llama", "gpt2", texts=["one"])


@pytest.mark.parametrize("somebody", [True, False])
def test_another_pair_can_be_picked_where_somebody_is_there(somebody, store, monkeypatch):
    displayed, updated = [], []

    def display(what, display_id=False):
        displayed.append(what)
        return types.SimpleNamespace(update=updated.append) if display_id else None

    shell = types.SimpleNamespace(kernel=None, get_parent=lambda: {"content": {"allow_stdin": somebody}})
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", display)
    pick_pair(store, "llama", "gpt2")
    *boxes, figure, texts, tokens = displayed
    assert figure.get_suptitle() == "llama and gpt2"
    assert len(boxes) == somebody
    if somebody:
        first, second = boxes[0].children
        second.value = first.value  # one model is no pair
        assert not updated
        second.value = store.load().select(models=["other"]).models.index[0]
        assert updated[0].get_suptitle() == "llama and other"
        assert not updated[2].equals(tokens)
        assert list(updated[1].columns) == list(texts.columns)
