"""LogLikelihoods is checked once, never changed, and goes by labels."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest

from lmmap.errors import InputError
from lmmap.geometry import squared_distances
from lmmap.loglik import LogLikelihoods, join_models

N_BYTES = [300, 512, 1024, 700]
POLICY = "prefix=auto, long_texts=window"


def made_up(
    models: str = "a b c", texts: str = "t1 t2 t3 t4", *, policy: str | None = POLICY, seed: int = 0
) -> LogLikelihoods:
    """Models called a, b, ... with row ids a-1, b-1, ...; a text keeps its length in every set."""
    names, text_ids = models.split(), texts.split()
    table = pd.DataFrame({"model": names, "family": [name.upper() for name in names]})
    if policy is not None:
        table["policy"] = policy
    lengths = [N_BYTES[int(text_id[1:]) - 1] for text_id in text_ids]
    return LogLikelihoods(
        np.random.default_rng(seed).normal(-800, 100, (len(names), len(text_ids))),
        table.set_index(pd.Index([f"{name}-1" for name in names], name="row_id")),
        pd.DataFrame({"source": "made", "n_bytes": lengths}, index=pd.Index(text_ids, name="text_id")),
    )


# The object


def test_values_cannot_be_written():
    scores = made_up()
    for wrong in (
        lambda: scores.values.__setitem__((0, 0), 1.0),
        lambda: scores.values.sort(),
        lambda: np.maximum(scores.values, 0, out=scores.values),
    ):
        with pytest.raises(ValueError, match="read-only"):
            wrong()
    with pytest.raises(FrozenInstanceError):
        scores.values = np.zeros((3, 4))
    for changed in (scores.select(models=["a"]), scores.clip_below(quantile=0.5), join_models(scores)):
        assert not changed.values.flags.writeable


def test_what_was_given_can_change_without_harm():
    values, texts = np.full((1, 2), -2.0), pd.DataFrame(index=["x", "y"])
    models = pd.DataFrame({"model": ["A"]}, index=["a"])
    scores = LogLikelihoods(values, models, texts)
    values[0, 0] = 5
    models.loc["a", "model"] = "B"
    texts.index = ["z", "w"]
    assert scores.values.tolist() == [[-2, -2]]
    assert scores.models["model"].tolist() == ["A"]
    assert scores.texts.index.tolist() == ["x", "y"]


def test_values_become_float64_and_may_be_positive():
    scores = LogLikelihoods([[-1, 2]], pd.DataFrame(index=["a"]), pd.DataFrame(index=["x", "y"]))
    assert scores.values.dtype == np.float64
    assert scores.values.tolist() == [[-1, 2]]
    assert scores.models["model"].tolist() == ["a"]
    narrow = LogLikelihoods(np.float32([[-0.1]]), pd.DataFrame(index=["a"]), pd.DataFrame(index=["x"]))
    assert narrow.values[0, 0] == np.float64(np.float32(-0.1))


def test_repr_is_the_schema():
    scores = made_up().clip_below(threshold=-900).select(models=["b", "a"])
    assert repr(scores).splitlines() == [
        "LogLikelihoods: 2 models x 4 texts, nats",
        "  clip_below(-900.0)",
        "  select(2 of 3 models)",
        "  models: model, family, policy",
        "  texts: source, n_bytes",
    ]


@pytest.mark.parametrize(
    ("values", "models", "texts", "told"),
    [
        ([[-1.0, np.nan]], ["m"], ["x", "y"], "model 'm' has log-likelihood nan for text 'y'"),
        ([[-1.0], [-np.inf]], ["m", "n"], ["x"], "model 'n' has log-likelihood -inf for text 'x'"),
        ([[-1.0, -2.0]], ["m", "n"], ["x"], r"shape \(1, 2\), the tables \(2, 1\)"),
        ([-1.0, -2.0], ["m"], ["x", "y"], r"shape \(2,\), the tables \(1, 2\)"),
        ([[-1.0], [-2.0]], ["m", "m"], ["x"], "model id 'm' is given more than once"),
        ([[-1.0, -2.0]], ["m"], ["x", "x"], "text id 'x' is given more than once"),
        (np.zeros((0, 2)), [], ["x", "y"], "0 models x 2 texts"),
        (np.zeros((1, 0)), ["m"], [], "1 models x 0 texts"),
    ],
)
def test_values_and_tables_that_are_refused(values, models, texts, told):
    with pytest.raises(InputError, match=told):
        LogLikelihoods(values, pd.DataFrame(index=models), pd.DataFrame(index=texts))


# Selecting


@pytest.mark.parametrize(
    "models",
    [
        ["c-1", "a-1"],
        ["c", "a"],
        ("c", "a-1"),
        np.array(["c", "a"]),
        pd.Index(["c-1", "a-1"]),
        pd.Series(["c", "a"], index=[7, 3]),
    ],
    ids=lambda models: type(models).__name__,
)
def test_select_by_row_id_or_name_keeps_the_order_asked_for(models):
    scores = made_up()
    some = scores.select(models=models)
    assert some.models.index.tolist() == ["c-1", "a-1"]
    assert some.models["family"].tolist() == ["C", "A"]
    assert (some.values == scores.values[[2, 0]]).all()
    assert some.texts.equals(scores.texts)
    assert some.history == ("select(2 of 3 models)",)
    assert len(scores.models) == 3


def test_select_by_mask_and_by_text():
    scores = made_up()
    some = scores.select(models=scores.models["family"] != "B", texts=["t4", "t1"])
    assert (some.values == scores.values[np.ix_([0, 2], [3, 0])]).all()
    assert some.texts["n_bytes"].tolist() == [700, 300]
    assert some.history == ("select(2 of 3 models, 2 of 4 texts)",)
    long = scores.select(texts=scores.texts["n_bytes"] > 600)
    assert long.texts.index.tolist() == ["t3", "t4"]
    assert long.history == ("select(2 of 4 texts)",)
    assert scores.select(models="b").models.index.tolist() == ["b-1"]
    assert scores.select().history == ()


def test_history_grows_in_order():
    scores = made_up().select(texts=["t1", "t2", "t3"]).clip_below(threshold=-850).select(models=["a"])
    assert scores.history == ("select(3 of 4 texts)", "clip_below(-850.0)", "select(1 of 3 models)")


def test_a_row_id_goes_before_a_name():
    tables = pd.DataFrame({"model": ["y", "x"]}, index=["x", "z"]), pd.DataFrame(index=["t"])
    scores = LogLikelihoods([[-1.0], [-2.0]], *tables)
    assert scores.select(models=["x"]).values.tolist() == [[-1]]
    assert scores.select(models=["y"]).values.tolist() == [[-1]]


def test_a_name_of_two_models_is_refused_with_their_ids():
    tables = pd.DataFrame({"model": ["x", "x"]}, index=["x-1", "x-2"]), pd.DataFrame(index=["t"])
    scores = LogLikelihoods([[-1.0], [-2.0]], *tables)
    with pytest.raises(InputError, match="2 models are called 'x'; use their row ids: x-1, x-2"):
        scores.select(models=["x"])
    assert scores.select(models=["x-2"]).values.tolist() == [[-2]]


def test_unknown_id_is_told_with_counts_and_the_nearest():
    models = pd.DataFrame(index=["pythia-70m-f457b769", "gpt2-aa"], data={"model": ["pythia-70m", "gpt2"]})
    scores = LogLikelihoods(np.zeros((2, 1)), models, pd.DataFrame(index=["text-1"]))
    with pytest.raises(InputError) as caught:
        scores.select(models=["gpt2", "pythia-70"])
    assert str(caught.value) == (
        "1 of 2 model ids is not among the 2 here: 'pythia-70' (closest: 'pythia-70m')"
    )
    with pytest.raises(InputError, match=r"^2 of 2 model ids are not among the 2 here: 'zzz'$"):
        scores.select(models=["zzz", "yyy"])
    with pytest.raises(InputError, match=r"among the 1 here: 'text-2' \(closest: 'text-1'\)$"):
        scores.select(texts="text-2")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"models": [True, False]}, r"mask has shape \(2,\), there are 3 models"),
        ({"texts": np.ones((1, 4), bool)}, r"mask has shape \(1, 4\), there are 4 texts"),
        ({"models": ["a", "a-1"]}, "model id 'a-1' is given more than once"),
        ({"models": []}, "0 models x 4 texts"),
        ({"texts": np.zeros(4, bool)}, "3 models x 0 texts"),
        ({"models": np.array([0, 1])}, "2 of 2 model ids are not among the 3 here: '0'"),
    ],
)
def test_selections_that_are_refused(wanted, told):
    with pytest.raises(InputError, match=told):
        made_up().select(**wanted)


def test_ids_that_look_like_numbers_are_labels_not_positions():
    scores = LogLikelihoods(
        [[-1.0, -2.0], [-3.0, -4.0]], pd.DataFrame(index=[1, 0]), pd.DataFrame(index=["1", "0"])
    )
    assert scores.select(models=[0], texts=[1]).values.tolist() == [[-3]]


# Clipping


def test_clipping_keeps_the_exact_threshold_in_the_history():
    scores = made_up()
    clipped = scores.clip_below(quantile=0.3)
    threshold = float(np.quantile(scores.values, 0.3))
    assert (clipped.values == np.maximum(scores.values, threshold)).all()
    (step,) = clipped.history
    assert float(step.removeprefix("clip_below(").removesuffix(")")) == threshold
    assert (scores.clip_below(threshold=threshold).values == clipped.values).all()
    assert scores.history == ()


@pytest.mark.parametrize("arguments", [{}, {"quantile": 0.1, "threshold": -1}, {"quantile": 1.5}])
def test_clipping_that_is_refused(arguments):
    with pytest.raises(InputError, match="quantile"):
        made_up().clip_below(**arguments)


# Joining


def test_join_goes_by_label():
    first = made_up("a b", "t1 t2 t3 t4")
    other = made_up("c d", "t4 t2 t1 t3", seed=1)
    joined = join_models(first, other)
    assert joined.models.index.tolist() == ["a-1", "b-1", "c-1", "d-1"]
    assert joined.models["family"].tolist() == ["A", "B", "C", "D"]
    assert joined.texts.equals(first.texts)
    for scores in (first, other):
        for row_id in scores.models.index:
            for text_id in scores.texts.index:
                entry = joined.select(models=[row_id], texts=[text_id]).values
                assert entry == scores.select(models=[row_id], texts=[text_id]).values
    again = join_models(other, first)
    assert again.texts.index.tolist() == other.texts.index.tolist()
    order = joined.models.index
    assert np.allclose(
        squared_distances(again.select(models=order).values), squared_distances(joined.values), rtol=1e-12
    )


def test_join_of_one_or_three():
    one = made_up("a")
    assert (join_models(one).values == one.values).all()
    three = join_models(one, made_up("b", seed=1), made_up("c", seed=2))
    assert three.models["model"].tolist() == ["a", "b", "c"]


def test_join_then_clip_is_clip_then_join():
    first, other = made_up("a b"), made_up("c d", "t3 t1 t4 t2", seed=1)
    threshold = -810.5
    late = join_models(first, other).clip_below(threshold=threshold)
    early = join_models(first.clip_below(threshold=threshold), other.clip_below(threshold=threshold))
    assert (late.values == early.values).all()
    assert late.history == early.history == ("clip_below(-810.5)",)


def test_how_sets_were_selected_does_not_stop_a_join():
    joined = join_models(made_up().select(models=["a"]), made_up("d"))
    assert joined.models["model"].tolist() == ["a", "d"]
    assert joined.history == ()


@pytest.mark.parametrize(
    ("first", "other", "told"),
    [
        (made_up("a"), made_up("b", "t1 t2"), "other texts: 4 and 2, 2 of them in one only, such as 't3'"),
        (made_up("a", "t1 t2"), made_up("b", "t1 t3"), "2 and 2, 2 of them in one only, such as 't2'"),
        (
            made_up("a"),
            made_up("b", policy="prefix=reference"),
            r"other policies: \['prefix=auto, long_texts=window'\] and \['prefix=reference'\]",
        ),
        (made_up("a"), made_up("b", policy=None), r"other policies: \['prefix=auto.*'\] and \[\]"),
        (
            made_up("a").clip_below(threshold=-900),
            made_up("b"),
            r"\('clip_below\(-900.0\)',\) and \(\); join first, then clip",
        ),
        (
            made_up("a").clip_below(threshold=-900),
            made_up("b").clip_below(threshold=-900.0000001),
            r"'clip_below\(-900.0\)',\) and \('clip_below\(-900.0000001\)'",
        ),
        (made_up("a b"), made_up("b c"), "model id 'b-1' is given more than once"),
    ],
)
def test_sets_that_do_not_join(first, other, told):
    with pytest.raises(InputError, match=told):
        join_models(first, other)


def test_one_id_for_different_texts_is_seen_by_the_length():
    first, other = made_up("a"), made_up("b")
    longer = LogLikelihoods(
        other.values, other.models, other.texts.assign(n_bytes=[300, 512, 1000, 700])[::-1]
    )
    with pytest.raises(InputError, match="'t3' has n_bytes 1024 in one set and 1000 in the other"):
        join_models(first, longer)


def test_one_id_for_different_texts_of_one_length_is_seen_by_the_hash():
    def hashed(scores, *hashes):
        return LogLikelihoods(scores.values, scores.models, scores.texts.assign(sha256=hashes))

    first, same = hashed(made_up("a"), "0a", "0b", "0c", "0d"), hashed(made_up("b"), "0a", "0b", "0c", "0d")
    assert len(join_models(first, same).models) == 2
    assert len(join_models(first, made_up("b")).models) == 2  # a set without hashes cannot tell
    reordered = LogLikelihoods(same.values[:, ::-1], same.models, same.texts[::-1])
    assert (join_models(first, reordered).values == join_models(first, same).values).all()
    with pytest.raises(InputError, match="'t2' has sha256 0b in one set and 0e in the other"):
        join_models(first, hashed(made_up("b"), "0a", "0e", "0c", "0d"))


def test_nothing_to_join():
    with pytest.raises(InputError, match="no score sets to join"):
        join_models()


# xarray


def test_xarray_holds_values_and_both_tables():
    scores = made_up().clip_below(threshold=-900)
    scores = LogLikelihoods(
        scores.values,
        scores.models.assign(source="hub", n_parameters=[1, 2, 3]),
        scores.texts,
        scores.history,
    )
    array = scores.to_xarray()
    assert array.dims == ("model", "text")
    assert array.attrs == {"units": "nats", "history": ["clip_below(-900.0)"]}
    assert array.sel(model="b").where(array.text_id == "t2", drop=True).item() == scores.values[1, 1]
    models = pd.DataFrame(
        {c: array[c].to_numpy() for c in ("model", "family", "policy", "source", "n_parameters")},
        index=pd.Index(array["row_id"].to_numpy(), name="row_id"),
    )
    texts = pd.DataFrame(
        {"source": array["text_source"].to_numpy(), "n_bytes": array["n_bytes"].to_numpy()},
        index=pd.Index(array["text_id"].to_numpy(), name="text_id"),
    )
    back = LogLikelihoods(array.to_numpy(), models, texts, tuple(array.attrs["history"]))
    assert (back.values == scores.values).all()
    pd.testing.assert_frame_equal(back.models, scores.models, check_dtype=False)
    pd.testing.assert_frame_equal(back.texts, scores.texts, check_dtype=False)
    assert back.history == scores.history


def test_without_xarray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r"lmmap\[xarray\]"):
        made_up().to_xarray()
