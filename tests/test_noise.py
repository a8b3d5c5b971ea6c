"""Noise is measured against float32, decides the precision, and is told; out of memory costs batches only."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import pytest
import torch

from lmmap.errors import InputError, PrecisionError
from lmmap.models import ModelSpec
from lmmap.scoring import noise as noise_module
from lmmap.scoring import row as row_module
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import prepare
from lmmap.scoring.load import Checkpoint, load_model
from lmmap.scoring.noise import log_likelihoods_of, noise_places
from lmmap.scoring.row import score_row
from lmmap.scoring.score import score_texts
from lmmap.scoring.sweep import score_models
from lmmap.scoring.turns import Turns
from lmmap.store import Store
from lmmap.texts import text_set

TEXTS = [f"text {i}: " + "日本 and more of it. " * (i % 5 + 1) for i in range(40)]


def score(spec: ModelSpec, **options: object):
    return score_row(spec, TEXTS, **options)


@pytest.fixture
def coarse_by_default(monkeypatch):
    """Let a CPU begin in bfloat16, as a GPU begins in float16."""
    monkeypatch.setattr(row_module, "DEFAULT_DTYPE", {"cpu": "bfloat16"})
    monkeypatch.setattr(row_module, "FINER", {"bfloat16": "float32"})
    monkeypatch.setattr(row_module, "WIDER", {"bfloat16": "float32"})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_noise_is_the_variance_against_float32_and_against_other_batches(dtype, make_model):
    folder = str(make_model("llama"))
    row = score(ModelSpec(folder, dtype=dtype), token_budget=300)
    found, places = row.provenance["noise"], noise_places(len(TEXTS))
    exact, coarse = (load_model(ModelSpec(folder, dtype=d)) for d in ("float32", dtype))
    few, from_row = [TEXTS[i] for i in places], row.log_likelihood[places]
    others = [
        score_texts(model, few, token_budget=150, audit=False).log_likelihood for model in (exact, coarse)
    ]
    for key, reference in zip(("error_var", "shape_var"), others, strict=True):
        assert found[key] == pytest.approx(np.var(from_row - reference, ddof=1), rel=1e-6)
    alone = [score_texts(exact, [text], audit=False).log_likelihood[0] for text in few]
    assert found["error_mean"] == pytest.approx(np.mean(from_row - alone), abs=1e-4)
    assert found["error_var"] > 1e-6
    assert found["n_texts"] == len(places) == 8
    assert found["bitwise"] is True


def test_a_float32_row_is_its_own_reference(make_model):
    noise = score(ModelSpec(str(make_model("llama")))).provenance["noise"]
    assert noise["error_var"] == noise["shape_var"] < 1e-8


def test_forty_eight_texts_spread_over_the_set_or_a_sixteenth():
    sizes = [len(noise_places(n)) for n in (1, 5, 8, 128, 200, 768, 10_000)]
    assert sizes == [1, 5, 8, 8, 12, 48, 48]
    assert noise_places(10_000)[[0, -1]].tolist() == [0, 9_999]


def test_windows_of_one_text_are_added_up(make_model):
    model = load_model(ModelSpec(str(make_model("llama", max_position_embeddings=16))))
    job = prepare(model, TEXTS)
    assert len(job.sequences) > 2 * len(TEXTS)
    expected = score_texts(model, TEXTS).log_likelihood[[3, 7]]
    for budget in (0, 1_000):
        found = log_likelihoods_of(
            model, job.sequences, np.array([3, 7]), equal_above=None, token_budget=budget
        )
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.usefixtures("coarse_by_default")
def test_a_noisy_row_is_scored_again_in_a_finer_precision(make_model):
    folder = str(make_model("llama"))
    row, exact = score(ModelSpec(folder), max_error_var=1e-6), score(ModelSpec(folder, dtype="float32"))
    np.testing.assert_array_equal(row.log_likelihood, exact.log_likelihood)
    assert row.provenance["dtype"] == "float32"
    (tried,) = row.provenance["tried"]
    assert tried["precision"] == "bfloat16"
    assert tried["reason"].startswith("noise of ")
    (flag,) = [flag for flag in row.provenance["flags"] if "would not do" in flag]
    assert flag.startswith("scored in float32, for bfloat16 would not do: noise of")


@pytest.mark.usefixtures("coarse_by_default")
def test_a_row_that_is_good_enough_stays(make_model):
    row = score(ModelSpec(str(make_model("llama"))), max_error_var=1e6)
    assert (row.provenance["dtype"], row.provenance["tried"]) == ("bfloat16", [])


def test_a_precision_that_was_asked_for_stays_and_is_flagged(make_model):
    row = score(ModelSpec(str(make_model("llama")), dtype="bfloat16"), max_error_var=1e-6)
    assert (row.provenance["dtype"], row.provenance["tried"]) == ("bfloat16", [])
    assert any("nats^2 in bfloat16, above 1e-06" in flag for flag in row.provenance["flags"])


@pytest.mark.usefixtures("coarse_by_default")
def test_a_precision_that_was_asked_for_stays_though_it_could_be_finer(make_model):
    row = score(ModelSpec(str(make_model("llama")), dtype="bfloat16"), max_error_var=1e-6)
    assert (row.provenance["dtype"], row.provenance["tried"]) == ("bfloat16", [])


@pytest.mark.usefixtures("coarse_by_default")
@pytest.mark.parametrize(("noise", "dtype"), [(0.09, "bfloat16"), (0.11, "float32")])
def test_a_tenth_of_a_squared_nat_is_the_limit(noise, dtype, make_model, monkeypatch):
    monkeypatch.setattr(row_module, "variance", lambda _: noise)
    assert score(ModelSpec(str(make_model("llama")))).provenance["dtype"] == dtype


def test_noise_in_float16_is_not_cured_by_tf32_which_rounds_alike(make_model, monkeypatch):
    monkeypatch.setattr(row_module, "DEFAULT_DTYPE", {"cpu": "float16"})
    row = score(ModelSpec(str(make_model("llama"))), max_error_var=1e-12)
    assert [step["precision"] for step in row.provenance["tried"]] == ["float16"]
    assert row.provenance["dtype"] == "float32"


def test_a_gpu_begins_in_float16_and_a_cpu_in_float32():
    assert row_module.DEFAULT_DTYPE == {"cpu": "float32", "cuda": "float16"}


def overflowing(make_model, tmp_path) -> str:
    """Make a model with a weight that float16 cannot hold."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(make_model("llama"), tmp_path / "large")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("up_proj.weight"))
    weights[name][0, 0] = 1e5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_what_overflows_is_scored_again_or_refused(make_model, tmp_path, monkeypatch):
    folder = overflowing(make_model, tmp_path)
    with pytest.raises(PrecisionError, match=r"up_proj\.weight holds values that are not finite"):
        score(ModelSpec(folder, dtype="float16"))
    monkeypatch.setattr(row_module, "DEFAULT_DTYPE", {"cpu": "float16"})
    monkeypatch.setattr(row_module, "WIDER", {"float16": "float32"})
    row = score(ModelSpec(folder))
    np.testing.assert_array_equal(
        row.log_likelihood, score(ModelSpec(folder, dtype="float32")).log_likelihood
    )
    assert row.provenance["tried"][0]["precision"] == "float16"


def test_what_overflows_only_in_the_row_is_tried_in_a_finer_precision(make_model, monkeypatch):
    score_all = row_module.score_batches

    def overflowing(model: LoadedModel, *arguments: object):
        for number, values in score_all(model, *arguments):
            yield number, values if model.precision == "float32" else np.full_like(values, np.nan)

    monkeypatch.setattr(row_module, "DEFAULT_DTYPE", {"cpu": "float16"})
    monkeypatch.setattr(row_module, "WIDER", {"float16": "float32"})
    monkeypatch.setattr(row_module, "score_batches", overflowing)
    row = score(ModelSpec(str(make_model("llama"))))
    assert np.isfinite(row.log_likelihood).all()
    (step,) = row.provenance["tried"]
    assert step["precision"] == "float16"
    assert "the log-probability nan" in step["reason"]


def test_what_overflows_in_float16_is_tried_in_tf32_before_float32(make_model, monkeypatch):
    asked, on = [], Checkpoint.on

    def overflowing(checkpoint: Checkpoint, device: str, dtype: str) -> LoadedModel:
        asked.append(dtype)
        if dtype != "float32":
            raise PrecisionError("logits are not finite")
        return on(checkpoint, device, dtype)

    monkeypatch.setattr(row_module, "DEFAULT_DTYPE", {"cpu": "float16"})
    monkeypatch.setattr(Checkpoint, "on", overflowing)
    score(ModelSpec(str(make_model("llama"))))
    assert asked == ["float16", "tf32", "float32"]


@pytest.mark.parametrize("where", ["log-probabilities", "logits"])
def test_what_is_found_not_finite_in_scoring_is_scored_again(where, make_model, monkeypatch):
    monkeypatch.setattr(row_module, "DEFAULT_DTYPE", {"cpu": "bfloat16"})
    monkeypatch.setattr(row_module, "WIDER", {"bfloat16": "float32"})
    monkeypatch.setattr(row_module, "fits_in_float32", lambda _: False)
    name = {"log-probabilities": "log_probs", "logits": "logits"}[where]
    run = getattr(LoadedModel, name)

    def overflow(self: LoadedModel, *rows: torch.Tensor) -> torch.Tensor:
        values = run(self, *rows)
        return values + torch.nan if self.precision == "bfloat16" else values

    if where == "log-probabilities":
        monkeypatch.setattr("lmmap.scoring.job.pad_growth", lambda *_: 0.0)
    monkeypatch.setattr(LoadedModel, name, overflow)
    row = score_row(ModelSpec(str(make_model("llama"))), TEXTS[:9])
    assert [step["precision"] for step in row.provenance["tried"]] == ["bfloat16"]
    assert row.provenance["dtype"] == "float32"


def test_tf32_is_refused_where_there_is_no_gpu(make_model):
    with pytest.raises(InputError, match="tf32 is a mode of GPUs; on cpu use float32"):
        load_model(ModelSpec(str(make_model("llama")), dtype="tf32"))


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_float32_stays_ieee_whatever_was_set_before(before, make_model, monkeypatch):
    model = load_model(ModelSpec(str(make_model("llama"))))
    expected, seen = score_texts(model, TEXTS[:2]).log_likelihood, []
    run = model.model.forward

    def watched(**options: object) -> object:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return run(**options)

    monkeypatch.setattr(model.model, "forward", watched)
    torch.set_float32_matmul_precision(before)
    try:
        np.testing.assert_array_equal(score_texts(model, TEXTS[:2]).log_likelihood, expected)
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {("highest", False)}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), InputError("kernels want float16")])
def test_a_row_stands_without_a_float32_reference(error, make_model, monkeypatch):
    folder = str(make_model("llama"))
    expected = score(ModelSpec(folder, dtype="bfloat16"))
    on = Checkpoint.on

    def no_float32(checkpoint: Checkpoint, device: str, dtype: str) -> LoadedModel:
        if dtype == "float32":
            raise error
        return on(checkpoint, device, dtype)

    monkeypatch.setattr(Checkpoint, "on", no_float32)
    row = score(ModelSpec(folder, dtype="bfloat16"))
    np.testing.assert_array_equal(row.log_likelihood, expected.log_likelihood)
    assert (row.provenance["noise"]["error_var"], row.provenance["tried"]) == (None, [])
    assert "noise not measured: the model does not fit or does not run in float32" in row.provenance["flags"]


@pytest.mark.parametrize("error", [InputError("bad"), KeyboardInterrupt()], ids=["bad", "stopped"])
def test_a_turn_ends_with_nothing_on_the_device_whatever_ends_it(error, make_model, monkeypatch):
    loaded, alive_at_the_end, on = [], [], Checkpoint.on

    def watched(checkpoint: Checkpoint, device: str, dtype: str) -> LoadedModel:
        model = on(checkpoint, device, dtype)
        loaded.append(weakref.ref(model.model))
        return model

    def fail(*_: object) -> None:
        raise error

    class Watched(Turns):
        @contextmanager
        def place(self, n_parameters: int | None) -> Iterator[bool]:
            try:
                yield n_parameters is None
            finally:
                alive_at_the_end.append([ref() is not None for ref in loaded])

    monkeypatch.setattr(Checkpoint, "on", watched)
    monkeypatch.setattr(row_module, "by_sequence", fail)
    with pytest.raises(type(error)):
        score(ModelSpec(str(make_model("llama")), dtype="bfloat16"), turns=Watched())
    assert alive_at_the_end == [[False, False]]  # the model and its reference


def test_a_text_without_a_finite_score_is_named(make_model, monkeypatch):
    model = load_model(ModelSpec(str(make_model("llama"))))
    job = prepare(model, TEXTS)
    score_rows = LoadedModel.score
    monkeypatch.setattr(LoadedModel, "score", lambda *arguments: score_rows(*arguments) * float("nan"))
    with pytest.raises(PrecisionError, match="text 4 has no finite score in float32"):
        log_likelihoods_of(model, job.sequences, np.array([3, 7]), equal_above=None, token_budget=99)


def test_out_of_memory_costs_batches_and_nothing_else(make_model, monkeypatch):
    folder = str(make_model("llama"))
    expected = score(ModelSpec(folder), token_budget=500)
    run = LoadedModel.hidden

    def little_memory(self: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
        if ids.numel() > 600:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, ids)

    monkeypatch.setattr(LoadedModel, "hidden", little_memory)
    row = score(ModelSpec(folder), token_budget=2000)
    np.testing.assert_array_equal(row.log_likelihood, expected.log_likelihood)
    assert [step["token_budget"] for step in row.provenance["tried"]] == [2000, 1000]
    assert row.provenance["token_budget"] == 500
    assert any("out of memory with batches of 2,000 tokens" in flag for flag in row.provenance["flags"])
    monkeypatch.setattr(LoadedModel, "hidden", lambda self, ids: little_memory(self, ids.repeat(99, 9)))
    with pytest.raises(torch.OutOfMemoryError):
        score(ModelSpec(folder))


@pytest.mark.parametrize("fails", ["score", "reference"])
def test_out_of_memory_beside_other_models_changes_nothing_of_the_row(fails, make_model, monkeypatch):
    spec = ModelSpec(str(make_model("llama")), dtype="bfloat16")
    expected, sizes, on = score(spec), [], Checkpoint.on

    class Beside(Turns):
        def place(self, n_parameters: int | None) -> AbstractContextManager[bool]:
            sizes.append(n_parameters)
            return nullcontext(n_parameters is not None)

    def crowded(checkpoint: Checkpoint, device: str, dtype: str) -> LoadedModel:
        if len(sizes) == 1 and dtype == ("float32" if fails == "reference" else "bfloat16"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return on(checkpoint, device, dtype)

    monkeypatch.setattr(Checkpoint, "on", crowded)
    row = score(spec, turns=Beside())
    assert sizes == [Checkpoint(spec, "bfloat16").n_parameters, None]
    assert row.provenance == expected.provenance
    np.testing.assert_array_equal(row.log_likelihood, expected.log_likelihood)


def test_without_room_for_float32_the_noise_is_not_known_and_this_is_told(make_model, monkeypatch):
    monkeypatch.setattr(row_module, "fits_in_float32", lambda _: False)
    row = score(ModelSpec(str(make_model("llama")), dtype="bfloat16"))
    assert row.provenance["noise"]["error_var"] is None
    assert "noise not measured: the model does not fit or does not run in float32" in row.provenance["flags"]


def test_scores_that_do_not_repeat_are_told(make_model, monkeypatch):
    values = iter(np.random.default_rng(0).normal(-100, 1, 1000))
    monkeypatch.setattr(
        noise_module,
        "log_likelihoods_of",
        lambda _, __, places, **___: np.array([next(values) for _ in places]),
    )
    row = score(ModelSpec(str(make_model("llama"))))
    assert row.provenance["noise"]["bitwise"] is False
    assert "a text scored again gives other bits" in row.provenance["flags"]


def test_noise_stands_in_the_store_in_status_and_in_the_models_table(make_model, tmp_path):
    specs = [
        ModelSpec(str(make_model("llama")), name=dtype, dtype=dtype) for dtype in ("float32", "bfloat16")
    ]
    store = Store.create(tmp_path / "run", text_set(TEXTS))
    assert score_models(store, specs, threads=1, max_error_var=1e-6) == {}
    models = store.load().models.set_index("model")
    for spec in specs:
        noise = store.provenance(spec.row_id)["noise"]
        assert models.loc[spec.name, "error_var"] == noise["error_var"]
        assert models.loc[spec.name, "shape_var"] == noise["shape_var"]
        assert store.status().loc[spec.row_id, "error_var"] == noise["error_var"]
    assert "above 1e-06" in store.status().loc[specs[1].row_id, "flags"]
    assert "above 1e-06" in models.loc["bfloat16", "flags"]
    assert json.loads(json.dumps(store.provenance(specs[0].row_id)))["tried"] == []
