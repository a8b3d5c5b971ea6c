"""What is exported is read back value for value, here and by other programs, with a card that is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from published_files import write_published

from lmmap import LogLikelihoods, make_lookalike
from lmmap.cli import main
from lmmap.errors import InputError
from lmmap.export import export_scores, write_card
from lmmap.imports.scores import import_scores
from lmmap.store import Store
from lmmap.texts import text_set

SCORES = make_lookalike(9, 50, n_families=3, n_sources=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("export")
    files = write_published(folder / "files", SCORES)
    return import_scores(
        files["raw_log-likelihood_1018.pkl"],
        texts=files["texts-10k-pile.jsonl"],
        models=files["model-data-1018.pkl"],
        out=folder / "run",
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_what_is_exported_is_imported_again(store: Store, tmp_path: Path, suffix: str) -> None:
    file = export_scores(store, tmp_path / f"scores{suffix}")
    models = tmp_path / "scores-models.csv" if suffix == ".csv" else None
    again = import_scores(
        file, texts=store.path / "texts.parquet", models=models, out=tmp_path / "again"
    ).load()
    before = store.load()
    pd.testing.assert_frame_equal(again.texts, before.texts)
    one, other = (scores.models.set_index("model") for scores in (before, again))
    values = pd.DataFrame(again.values, index=other.index).loc[one.index].to_numpy()
    np.testing.assert_array_equal(values, before.values)
    kept = [column for column in one if column not in ("imported_from", "flags")]
    pd.testing.assert_frame_equal(other.loc[one.index, kept], one[kept], check_dtype=False)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_an_export_belongs_to_its_texts(store: Store, tmp_path: Path, suffix: str) -> None:
    file = export_scores(store, tmp_path / f"scores{suffix}")
    texts = store.texts
    shuffled = type(texts)(texts.frame.iloc[::-1], "backwards")
    with pytest.raises(InputError, match="these are other texts"):
        import_scores(file, texts=shuffled, out=tmp_path / "run")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_an_exported_row_keeps_its_precision_and_prefix(tmp_path: Path, suffix: str) -> None:
    models = pd.DataFrame({"model": ["a", "b"], "dtype": ["float32", "bfloat16"], "prefix": ["<s>", None]})
    texts = text_set(["one", "two"])
    scores = LogLikelihoods([[-1.0, -2.0], [-3.0, -0.1]], models, texts.frame)
    file = export_scores(scores, tmp_path / f"scores{suffix}")
    tables = [tmp_path / "scores-models.csv"] if suffix == ".csv" else None
    again = import_scores(file, texts=texts, models=tables, out=tmp_path / "run").load()
    assert again.models["dtype"].tolist() == ["float32", "bfloat16"]
    assert again.models["prefix"].tolist() == ["<s>", "reference"]
    np.testing.assert_array_equal(again.values, scores.values)


def test_columns_of_a_table_are_brought_into_the_texts_order(store: Store, tmp_path: Path) -> None:
    file = export_scores(store, tmp_path / "scores.csv")
    shuffled = type(store.texts)(store.texts.frame.iloc[::-1], "backwards")
    again = import_scores(file, texts=shuffled, out=tmp_path / "run").load()
    before = store.load()
    values = pd.DataFrame(again.values, index=again.models["model"]).loc[before.models["model"]]
    np.testing.assert_array_equal(values.to_numpy()[:, ::-1], before.values)


def test_other_programs_read_the_files(store: Store, tmp_path: Path) -> None:
    scores = store.load()
    table = pq.read_table(export_scores(store, tmp_path / "scores.parquet")).to_pandas()
    np.testing.assert_array_equal(np.stack(table["log_likelihood"]), scores.values)
    assert table["score_v1_MMLU"].isna().sum() == 3
    frame = pd.read_csv(export_scores(store, tmp_path / "scores.csv"), index_col=0)
    np.testing.assert_allclose(frame.to_numpy(), scores.values, rtol=1e-15)  # pandas' quick way to read
    assert frame.columns.tolist() == scores.texts.index.tolist()
    with np.load(export_scores(store, tmp_path / "scores.npz"), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["values"], scores.values)


def test_netcdf_is_read_with_labels(store: Store, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    scores = store.load()
    with xarray.open_dataarray(export_scores(store, tmp_path / "scores.nc"), engine="scipy") as array:
        name, text = scores.models["model"].iloc[4], scores.texts.index[7]
        x = array["text_id"].values.astype(str).tolist().index(text)
        assert array.attrs["units"] == "nats"
        assert float(array.sel(model=name)[x]) == scores.values[4, 7]
        np.testing.assert_array_equal(array["n_parameters"], scores.models["n_parameters"])
        sources = array["text_source" if "text_source" in array.coords else "source"]
        np.testing.assert_array_equal(sources.astype(str), scores.texts["source"])


def test_an_unknown_suffix_and_two_models_of_one_name_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"exported as \.parquet, \.csv, \.npz, \.nc, not '\.xlsx'"):
        export_scores(store, tmp_path / "scores.xlsx")
    models = pd.DataFrame({"model": ["a", "a"]}, index=["1", "2"])
    twice = LogLikelihoods([[-1.0], [-2.0]], models, pd.DataFrame(index=["t"]))
    with pytest.raises(InputError, match="two models are called 'a'"):
        export_scores(twice, tmp_path / "scores.csv")
    assert not list(tmp_path.iterdir())


def test_a_card_says_what_the_set_is(store: Store, tmp_path: Path) -> None:
    card = write_card(store, tmp_path / "README.md").read_text()
    sources = SCORES.texts["source"].value_counts()
    assert card.startswith("# run: 9 models x 50 texts\n")
    for line in (
        f"| fingerprint of the texts | {store.scoring['texts']} |",
        "| policies | prefix=reference, long_texts=window |",
        "| models | 9 done |",
        "| tokens kept | no |",
        "Tokens, tokenizations, noise and flags stay with the score set.",
        "raw_log-likelihood_1018.pkl",
        f"| {sources.index[0]} | {sources.iloc[0]} |",
        "arXiv:2502.16173",
        "score_v1_GSM8K",
    ):
        assert line in card


def test_the_command_exports_with_a_card(store: Store, tmp_path: Path) -> None:
    output = tmp_path / "out" / "scores.parquet"
    told = CliRunner().invoke(main, ["export", str(store.path), "-o", str(output)])
    assert told.exit_code == 0, told.output
    assert output.exists()
    assert (output.parent / "scores.md").read_text().startswith("# run: 9 models")


def test_files_of_others_are_not_written_over(store: Store, tmp_path: Path) -> None:
    (tmp_path / "scores.md").write_text("my notes")
    asked = ["export", str(store.path), "-o", str(tmp_path / "scores.csv")]
    told = CliRunner().invoke(main, asked)
    assert told.exit_code == 1
    assert "is no card of a score set; move it" in told.output
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["scores.md"]
    assert (tmp_path / "scores.md").read_text() == "my notes"
    (tmp_path / "scores.md").unlink()
    (tmp_path / "scores-models.csv").write_text("mine")
    with pytest.raises(InputError, match=r"scores-models\.csv is there without scores\.csv; move it"):
        export_scores(store, tmp_path / "scores.csv")
    (tmp_path / "scores-models.csv").unlink()
    for _ in range(2):  # what was exported before is made anew
        assert CliRunner().invoke(main, asked).exit_code == 0
