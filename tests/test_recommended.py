"""The recommended distance of a score set is that of its estimator, drawn by `lmmap map` where it can be."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import TEXTS
from tokenizers_of_all_kinds import tokenizer_of

from lmmap import InputError, estimate_kl, estimate_kl_by, read_segments, recommended_kl
from lmmap.cli import main
from lmmap.estimates import RECOMMENDED, RECOMMENDED_ACROSS
from lmmap.models import ModelSpec
from lmmap.scoring.sweep import score_models
from lmmap.store import Store
from lmmap.texts import text_set

SAME = ["llama", "gpt2", "gpt_neox", "opt"]


@pytest.fixture(scope="module")
def specs(make_model):
    tokenizer = tokenizer_of("gpt2")
    folder = make_model("llama", tokenizer=tokenizer, vocab_size=600)
    same = [ModelSpec(str(make_model(kind)), name=kind) for kind in SAME]
    return [*same, ModelSpec(str(folder), name="other", prefix=tokenizer.all_special_tokens[0])]


@pytest.fixture(scope="module")
def store(specs, tmp_path_factory):
    made = Store.create(tmp_path_factory.mktemp("recommended") / "run", text_set(TEXTS, sources="made"))
    assert score_models(made, specs) == {}
    return made


def test_models_of_one_tokenizer_and_of_several_have_their_own_estimator(store):
    for models, name in ((SAME, RECOMMENDED), ([*SAME, "other"], RECOMMENDED_ACROSS)):
        kl = recommended_kl(store, models=models)
        np.testing.assert_array_equal(kl, estimate_kl_by(name, read_segments(store, models=models)))
        assert kl.attrs["estimator"] == name
        assert list(kl.index) == list(store.load().select(models=models).models.index) == list(kl.columns)


def test_a_named_estimator_is_taken_and_text_level_needs_no_tokens(store, specs, tmp_path):
    bare = Store.create(tmp_path / "run", text_set(TEXTS, sources="made"))
    assert score_models(bare, specs[:2], keep_tokens=False) == {}
    kl = recommended_kl(bare, estimator="text_level")
    np.testing.assert_allclose(kl, estimate_kl(bare.load().values))
    assert kl.attrs["estimator"] == "text level"
    with pytest.raises(InputError, match="2 of 2 rows were scored without keeping tokens"):
        recommended_kl(bare)
    with pytest.raises(InputError, match=r"no estimator 'midpiont'.*midpoint"):
        recommended_kl(store, estimator="midpiont")


def test_segments_are_drawn_by_seed(store):
    first, again, other = (recommended_kl(store, n_segments=40, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, recommended_kl(store, n_segments=None))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "classical MDS of the mixture KL"),
        (["--estimator", "segment_centered"], "classical MDS of the segment centered KL"),
        (["--estimator", "text_level"], "classical MDS"),
        (["--clip", "0.02"], "classical MDS"),
    ],
)
def test_a_map_says_by_which_estimator_it_was_drawn(options, said, store, tmp_path):
    command = ["map", str(store.path), "-o", str(tmp_path / "map.svg"), "--method", "mds", *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert f"{said} ·" in result.output.replace(",", " ·")


def test_the_published_map_takes_no_other_estimator(store, tmp_path):
    command = ["map", str(store.path), "-o", str(tmp_path / "map.svg"), "--method", "pca"]
    result = CliRunner().invoke(main, [*command, "--estimator", "mixture"])
    assert result.exit_code
    assert "--estimator mixture goes with neither --clip nor --method pca" in str(result.output)
