"""Scores made elsewhere become an ordinary score set, value for value, or are refused with a sentence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from published_files import BENCHMARKS, UNSCORED, selection, text_of, write_published

from lmmap import estimate_kl, fit_map, make_lookalike, read_texts
from lmmap.cli import main
from lmmap.errors import InputError
from lmmap.imports.model_tables import read_attributes
from lmmap.imports.published import read_weights
from lmmap.imports.scores import import_scores, read_scores
from lmmap.loglik import LogLikelihoods
from lmmap.store import Store
from lmmap.texts import text_set

SCORES = make_lookalike(12, 60, n_families=3, n_sources=4)
NAMES = SCORES.models["model"].tolist()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_published(tmp_path_factory.mktemp("published"), SCORES)


@pytest.fixture
def texts(files: dict[str, Path]) -> Path:
    return files["texts-10k-pile.jsonl"]


def by_name(scores: LogLikelihoods) -> dict[str, np.ndarray]:
    return dict(zip(scores.models["model"], scores.values, strict=True))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    ("name", "clipped"),
    [
        ("raw_log-likelihood_1018.pkl", False),
        ("clipped_log-likelihood_1018.pkl", True),
        ("model-data-1018.pkl", True),
        ("modeldata_1018.pkl", False),
    ],
)
def test_published_scores_are_read_value_for_value(
    tmp_path: Path, name: str, clipped: bool, protocol: int
) -> None:
    files = write_published(tmp_path / "files", SCORES, protocol=protocol)
    store = import_scores(files[name], texts=files["texts-10k-pile.jsonl"], out=tmp_path / "run")
    loaded = store.load()
    expected = np.maximum(SCORES.values, np.quantile(SCORES.values, 0.02)) if clipped else SCORES.values
    found = by_name(loaded)
    np.testing.assert_array_equal([found[model] for model in NAMES], expected)
    assert loaded.texts["source"].tolist() == SCORES.texts["source"].tolist()
    assert loaded.texts["n_bytes"].tolist() == SCORES.texts["n_bytes"].tolist()
    assert loaded.texts["pile_idx"].tolist() == list(range(60))


def test_the_same_scores_under_another_file_name_are_recognised(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    other = tmp_path / "whatever.bin"
    other.write_bytes(files["model-data-1018.pkl"].read_bytes())
    assert read_scores(other).form == "list of models, log-likelihood-10k"


def test_an_imported_set_says_where_it_is_from_and_draws_maps(
    tmp_path: Path, files: dict[str, Path], texts: Path
) -> None:
    file = files["raw_log-likelihood_1018.pkl"]
    store = import_scores(file, texts=texts, out=tmp_path / "run")
    assert store.scoring["prefix"] == "reference"
    made = store.provenance(store.load().models.index[0])
    assert made["imported"] == {
        "file": file.name,
        "sha256": __import__("hashlib").sha256(file.read_bytes()).hexdigest(),
        "form": "model -> values",
    }
    status = store.status()
    assert (status["state"] == "done").all()
    assert status["n_tokens"].isna().all()
    assert not store.has_tokens(status.index)
    with pytest.raises(InputError, match="are not kept"):
        store.tokens(status.index[0])
    drawn = fit_map(store.load(), method="mds")
    order = [NAMES.index(name) for name in drawn.models["model"]]
    np.testing.assert_allclose(drawn.kl, estimate_kl(SCORES.values[order]), atol=1e-9)


def test_attributes_are_joined_by_name(tmp_path: Path, files: dict[str, Path], texts: Path) -> None:
    tables = [files[n] for n in ("model-data-1018.pkl", "name_type_color_1018.pkl", "models_1018.yaml")]
    store = import_scores(
        files["raw_log-likelihood_1018.pkl"], texts=texts, models=tables, out=tmp_path / "run"
    )
    models = store.load().models.set_index("model").loc[NAMES]
    expected = SCORES.models.set_index("model")
    assert models["family"].tolist() == expected["family"].tolist()
    assert models["n_parameters"].tolist() == expected["n_parameters"].tolist()
    assert models["created"].str[:10].tolist() == expected["created"].tolist()
    assert models["downloads"].tolist() == [10 * i for i in range(12)]
    assert models["tags"].iloc[1] == "text-generation, license:1"
    assert models["color"].str.fullmatch("#[0-9a-f]{6}").all()
    assert set(models["table_type"]) == {"base"}
    assert set(models["dtype_used"]) == {"float16"}
    for benchmark in BENCHMARKS:
        column = models[f"score_v1_{benchmark}"]
        assert column.isna().tolist() == [True] * UNSCORED + [False] * (12 - UNSCORED)
        assert column.dropna().between(20, 90).all()


def test_a_model_that_a_table_does_not_know_has_none(
    tmp_path: Path, files: dict[str, Path], texts: Path
) -> None:
    table = tmp_path / "some.csv"
    table.write_text(f"model,family,born\n{NAMES[0]},mine,2024\nanother,x,1\n")
    store = import_scores(files["raw_log-likelihood_1018.pkl"], texts=texts, models=table, out=tmp_path / "r")
    born = store.load().models.set_index("model")["born"]
    assert born[NAMES[0]] == 2024
    assert born.drop(NAMES[0]).isna().all()
    table.write_text("model,family\nsynthetic/family-01-1b-99,x\n")
    with pytest.raises(InputError, match=r"some\.csv knows none of the 12 models, such as .*closest"):
        import_scores(files["raw_log-likelihood_1018.pkl"], texts=texts, models=table, out=tmp_path / "r")


def test_checkpoints_layers_and_quantizations_are_models_of_their_own(files: dict[str, Path]) -> None:
    steps = read_scores(files["steps.pkl"])
    assert steps.models == ("70m@1", "70m@512", "410m@1")
    assert steps.attributes["70m@512"] == {"series": "70m", "position": 512}
    np.testing.assert_array_equal(steps.values, SCORES.values[:3])
    assert read_scores(files["layers.pkl"]).models == (f"{NAMES[0]}@layer 0", f"{NAMES[0]}@layer 1")
    quantized = read_scores(files["quantized.pkl"])
    assert (quantized.models, quantized.left_out) == (("8bit", "none"), ("4bit",))


def test_weights_of_texts_go_where_they_belong(files: dict[str, Path]) -> None:
    file = files["lss-uniq-idx-weight.pkl"]
    weights = read_weights(file, 20, 60, seed=1)
    chosen = selection(SCORES, 20, 1)
    np.testing.assert_array_equal(np.flatnonzero(weights), chosen["unique_index"])
    np.testing.assert_array_equal(weights[chosen["unique_index"]], chosen["weights"])
    few = estimate_kl(SCORES.values[:, chosen["unique_index"]], weights=chosen["weights"])
    np.testing.assert_allclose(estimate_kl(SCORES.values, weights=weights), few, rtol=1e-9)
    with pytest.raises(InputError, match="these are weights of texts, not scores"):
        read_scores(file)
    with pytest.raises(InputError, match=r"no selection of size 15.*there are 10, 20"):
        read_weights(file, 15, 60)
    with pytest.raises(InputError, match=r"no seed 7.*there are 0, 1"):
        read_weights(file, 10, 60, seed=7)
    with pytest.raises(InputError, match=r"is selected; there are 30 texts"):
        read_weights(file, 20, 30, seed=1)
    with pytest.raises(InputError, match="expected seed -> n"):
        read_weights(files["quantized.pkl"], 10, 60)


def test_texts_in_every_documented_form_are_the_same_texts(tmp_path: Path, files: dict[str, Path]) -> None:
    raw = files["raw_log-likelihood_1018.pkl"]
    prints = [
        import_scores(raw, texts=given, out=tmp_path / f"{i}").scoring["texts"]
        for i, given in enumerate((files["texts-10k-pile.jsonl"], files["texts.json"]))
    ]
    assert len(set(prints)) == 1


def test_an_interrupted_import_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, files: dict[str, Path], texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = files["raw_log-likelihood_1018.pkl"]
    whole = import_scores(file, texts=texts, out=tmp_path / "whole")
    write, left = Store.write_row, [5]

    def failing(store: Store, *given: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(store, *given)

    monkeypatch.setattr(Store, "write_row", failing)
    with pytest.raises(OSError, match="No space"):
        import_scores(file, texts=texts, out=tmp_path / "halves")
    assert len(Store(tmp_path / "halves").load().models) == 5
    left[0] = 7
    halves = import_scores(file, texts=texts, out=tmp_path / "halves")
    for kind in ("scores/*", "requests/*", "scoring.json", "texts.parquet"):
        for one in whole.path.glob(kind):
            assert one.read_bytes() == (halves.path / one.relative_to(whole.path)).read_bytes()


def test_imported_rows_are_no_rows_scored_here(tmp_path: Path, files: dict[str, Path], texts: Path) -> None:
    from lmmap.models import ModelSpec

    store = import_scores(files["raw_log-likelihood_1018.pkl"], texts=texts, out=tmp_path / "run")
    assert not any(store.is_done(ModelSpec(name).row_id) for name in NAMES)


Change = Callable[[dict[str, Any]], Any]


L0 = "log-likelihood-10k"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: {**d, NAMES[3]: d[NAMES[3]][:-1]}, rf"{NAMES[3]}' has 59 values"),
        (lambda d: {**d, NAMES[3]: with_value(d[NAMES[3]], 7, np.nan)}, "nan for text 8, which is not fin"),
        (lambda d: {**d, NAMES[3]: with_value(d[NAMES[3]], 7, -np.inf)}, "has -inf for text 8"),
        (lambda d: {**d, NAMES[3]: with_value(d[NAMES[3]], 7, 2.5)}, "has 2.5 for text 8, which is above 0"),
        (lambda d: {**d, NAMES[3]: ["x"] * 60}, "expected a list of numbers"),
        (lambda d: {**d, NAMES[3]: np.zeros((60, 2))}, r"got float64 of shape \(60, 2\)"),
        (lambda d: {**d, NAMES[3]: [True] * 60}, "expected a list of numbers, one for each text, got bool"),
        (lambda d: {**d, NAMES[3]: "a text"}, "holds a str, not the values of a model"),
        (lambda d: {**d, NAMES[3]: [[-1.0], [-1.0, -2.0]]}, "expected a list of numbers"),
        (lambda d: {1: next(iter(d.values())), "1": next(iter(d.values()))}, "no model|more than once"),
        (lambda d: {name: None for name in d}, "no model at all"),
        (lambda d: {}, "no model at all"),
        (lambda d: [1, 2], "but a list of 2 values of int"),
        (lambda d: "text", "but a str"),
        (lambda d: [{"model_name": "a", "x": [1]}], "expected one key with 'log-likelihood'"),
        (lambda d: [{"log-likelihood-10k": [-1.0]}], "entry 1: no model's name"),
        (lambda d: [{"model_name": "a", L0: [-1.0]}] * 2, "model 'a' is given more than once"),
        (lambda d: [{"model_name": "a", L0: [-1.0]}, {"model_name": "b"}], "'b' has no 'log-l"),
    ],
)  # fmt: skip
def test_scores_that_cannot_be_are_refused_by_name(
    tmp_path: Path, texts: Path, change: Change, told: str
) -> None:
    content = change(dict(zip(NAMES, SCORES.values, strict=True)))
    if isinstance(content, dict) and set(content) == {1, "1"}:
        content = {1: content[1], 2: content["1"][:3]}
        told = "model '2' has 3 values"
    file = tmp_path / "scores.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=told):
        import_scores(file, texts=texts, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def with_value(row: np.ndarray, x: int, value: float) -> np.ndarray:
    changed = row.copy()
    changed[x] = value
    return changed


def test_texts_that_are_not_those_of_the_scores_are_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    raw = files["raw_log-likelihood_1018.pkl"]
    with pytest.raises(InputError, match=r"without their texts; give the file of the 60 texts"):
        import_scores(raw, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"has 60 values for each model, 'few' has 2 texts"):
        import_scores(raw, texts=text_set(["a", "b"], name="few"), out=tmp_path / "run")
    with pytest.raises(InputError, match="is this the file of texts"):
        import_scores(files["texts-10k-pile.jsonl"], texts=files["texts.json"], out=tmp_path / "run")
    import_scores(raw, texts=files["texts.json"], out=tmp_path / "run")
    others = text_set([f"another {i}" for i in range(60)])
    with pytest.raises(InputError, match=r"was made with texts = .* use another folder"):
        import_scores(raw, texts=others, out=tmp_path / "run")


def test_wide_and_long_tables_are_the_same_scores(tmp_path: Path, texts: Path) -> None:
    ids = read_texts(texts).frame.index.tolist()
    order = np.random.default_rng(0).permutation(60)
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    rows = [[name, *(repr(float(row[x])) for x in order)] for name, row in by_name(SCORES).items()]
    wide.write_text("\n".join(",".join(row) for row in [["model", *(ids[x] for x in order)], *rows]))
    pairs = [f"{ids[x]},{float(row[x])!r},{name}" for x in order for name, row in by_name(SCORES).items()]
    long.write_text("\n".join(["text_id,log_likelihood,model", *pairs]))
    for i, file in enumerate((wide, long)):
        found = by_name(import_scores(file, texts=texts, out=tmp_path / f"run{i}").load())
        np.testing.assert_array_equal([found[name] for name in NAMES], SCORES.values)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("model,a,b\nm,-1,x\n", r"line 2, model 'm', text 'b': 'x' is no number"),
        ("model,a,b\nm,-1\n", r"line 2: 2 cells, the first line has 3"),
        ("model,a,a\nm,-1,-2\n", r"text 'a' has two columns"),
        ("model,a,b\nm,-1,\n", r"text 'b': '' is no number"),
        ("model,a,b\nm,-1,nan\n", r"model 'm' has nan for text 'b'"),
        ("model,a,b\nm,-1,-2\nm,-1,-2\n", r"model 'm' is given more than once"),
        ("model,a,b\n", "no model at all"),
        ("", "the file is empty"),
        ("model\n", "expected a model and its texts"),
        ("model;a;b\nm;-1,5;-2\n", r"separated by commas; here ';' separates them"),
        ("model,a,b\nm,-1,-1_0\n", r"text 'b': '-1_0' is no number"),
        ("model,a,b\n,-1,-2\n", "model 1 has no name"),
        ("model,a,b\nm,-1\0,-2\n", "is no number"),
        ("model,text_id,value\nm,a,nan\n", "text 'a': 'nan' is no number"),
        ("model,text_id,value\nm,a,-1\nm,a,-2\n", r"line 3: model 'm' has text 'a' twice"),
        ("model,text_id,value\nm,a,-1\nn,b,-2\n", r"text 'b' is not given for every model"),
        ("model,a,c\nm,-1,-2\n", r"no scores for text 'b' of 'texts' and 0 more"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(content)
    texts = text_set(["one", "two"], text_ids=["a", "b"])
    with pytest.raises(InputError, match=told):
        import_scores(file, texts=texts, out=tmp_path / "run")


def test_an_npz_is_read_without_its_objects(tmp_path: Path, texts: Path) -> None:
    file = tmp_path / "scores.npz"
    np.savez(file, values=SCORES.values, models=NAMES)
    assert by_name(import_scores(file, texts=texts, out=tmp_path / "r").load())[NAMES[4]].tolist() == (
        SCORES.values[4].tolist()
    )
    np.savez(file, values=SCORES.values, models=np.array(NAMES, dtype=object))
    with pytest.raises(InputError, match=r"array 'models' is no plain array of numbers or texts but .*\|O"):
        read_scores(file)
    np.savez(file, values=SCORES.values, models=NAMES, attributes="[]")
    with pytest.raises(InputError, match="its attributes are a list"):
        read_scores(file)
    np.savez(file, values=SCORES.values, models=NAMES, attributes="{")
    with pytest.raises(InputError, match="its attributes are not JSON"):
        read_scores(file)
    np.savez(file, L=SCORES.values)
    with pytest.raises(InputError, match="no array 'values'; it has L"):
        read_scores(file)


def write_samples(folder: Path, model: str, values: np.ndarray, texts: list[str], *, old: bool) -> Path:
    """As lm-evaluation-harness logs a rolling-likelihood task: values as texts, documents in any order."""
    file = folder / model.replace("/", "__") / "samples_wikitext_2024-11-22T15-04-56.123456.jsonl"
    file.parent.mkdir(parents=True)
    lines = []
    for doc in np.random.default_rng(0).permutation(len(texts)).tolist():
        value = float(values[doc])
        sample = {
            "doc_id": doc,
            "doc": {"page": texts[doc]},
            "target": texts[doc],
            "arguments": [[texts[doc]]] if old else {"gen_args_0": {"arg_0": texts[doc]}},
            "resps": [[value]] if old else [[str(value)]],
            "filtered_resps": [value] if old else [str(value)],
            "word_perplexity": [value, 12],
        }
        lines.append(json.dumps(sample, ensure_ascii=False) + "\n")
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.mark.parametrize("old", [False, True])
def test_logged_samples_of_the_harness_are_a_score_set_with_its_texts(tmp_path: Path, old: bool) -> None:
    texts = [text_of(SCORES, x) for x in range(60)]
    for name, row in list(by_name(SCORES).items())[:3]:
        write_samples(tmp_path / "out", name, row, texts, old=old)
    loaded = import_scores(tmp_path / "out", out=tmp_path / "run").load()
    found = by_name(loaded)
    np.testing.assert_array_equal([found[name] for name in NAMES[:3]], SCORES.values[:3])
    assert set(loaded.texts["source"]) == {"wikitext"}
    wrong = text_set([*texts[:-1], "another"], name="mine")
    with pytest.raises(InputError, match="scored on other texts than 'mine': text 60 differs"):
        import_scores(tmp_path / "out", texts=wrong, out=tmp_path / "other")
    write_samples(tmp_path / "out", "lab/other", SCORES.values[4], [*texts[:-1], "another"], old=old)
    with pytest.raises(InputError, match="the texts differ, the first at document 59"):
        import_scores(tmp_path / "out", out=tmp_path / "other")


def test_samples_of_other_tasks_are_refused(tmp_path: Path) -> None:
    file = write_samples(tmp_path, "m", np.array([-1.0]), ["a"], old=False)
    sample = json.loads(file.read_text())
    sample["arguments"]["gen_args_1"] = {"arg_0": "b"}
    file.write_text(json.dumps(sample))
    with pytest.raises(InputError, match="line 1: no sample of a rolling likelihood"):
        read_scores(file)


def test_tables_of_models_refuse_what_has_no_name(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("- {size: 1}\n")
    with pytest.raises(InputError, match="entry 1: no model's name"):
        read_attributes(file)
    file.write_text("llama: [a, b]\nqwen: [c]\n")
    assert read_attributes(file) == {
        "a": {"family": "llama"},
        "b": {"family": "llama"},
        "c": {"family": "qwen"},
    }
    file.write_text("- a\n- a\n")
    with pytest.raises(InputError, match="'a' is given more than once"):
        read_attributes(file)
    file.write_text("- {name: a, model_size: -1}\n")
    with pytest.raises(InputError, match="model_size is -1; expected billions"):
        read_attributes(file)


def test_the_command_imports(tmp_path: Path, files: dict[str, Path], texts: Path) -> None:
    run, given = tmp_path / "run", files["raw_log-likelihood_1018.pkl"]
    told = CliRunner().invoke(
        main,
        ["import", str(given), "--texts", str(texts), "--models", str(files["model-data-1018.pkl"]),
         "--models", str(files["name_type_color_1018.pkl"]), "--out", str(run)],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "12 models x 60 texts" in told.output
    assert len(Store(run).load().models) == 12
    told = CliRunner().invoke(main, ["import", str(texts), "--out", str(run)])
    assert told.exit_code == 1
    assert "is this the file of texts?" in told.output


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path, texts: Path) -> None:
    file = tmp_path / "texts.parquet"
    read_texts(texts).write(file)
    with pytest.raises(InputError, match="no exported scores; it has text_id, text, source"):
        read_scores(file)
    file.write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_scores(file)
