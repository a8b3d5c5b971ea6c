"""A score set survives kills, full disks, failing models and company, with the same bytes."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lmmap import LogLikelihoods, fit_map, join_models
from lmmap.cli import main
from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.devices import threads_of
from lmmap.scoring.sweep import score_models
from lmmap.scoring.workers import score_models_in_processes
from lmmap.store import Row, Store
from lmmap.texts import TextSet, text_set

TEXTS = text_set([f"text {i}: " + "日本 and more of it. " * (i % 7 + 1) for i in range(40)], sources="made")


def bytes_of(run: Path) -> dict[str, bytes]:
    """Everything that was measured; the journal tells when, and is not compared."""
    kinds = ("scoring.json", "texts.parquet", "scores/*", "tokens/*", "tokenizations/*", "requests/*")
    return {str(f.relative_to(run)): f.read_bytes() for kind in kinds for f in sorted(run.glob(kind))}


def row(n_texts: int = 2, **provenance: object) -> Row:
    made = {
        "tokenization": "t",
        "prefix": "<s>",
        "dtype": "float32",
        "n_parameters": 1,
        "n_tokens": n_texts,
        "flags": [],
    }
    one = [np.array([i]) for i in range(n_texts)]
    tokens = [np.array([-1.5], np.float32)] * n_texts
    counts = np.ones(n_texts, int)
    return Row(np.full(n_texts, -1.5), counts, counts * 0, tokens, one, one, made | provenance)


@pytest.fixture(scope="module")
def specs(make_model):
    kinds = [("llama", 0), ("llama", 1), ("gpt2", 0), ("gpt_neox", 0)]
    return [ModelSpec(str(make_model(kind, seed=seed)), name=f"{kind} {seed}") for kind, seed in kinds]


@pytest.fixture(scope="module")
def undisturbed(specs, tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("undisturbed") / "run", TEXTS)
    assert score_models(store, specs, threads=1, token_budget=512) == {}
    return store


def test_what_is_written_is_read(undisturbed, specs):
    scores = undisturbed.load()
    assert scores.values.shape == (4, 40)
    assert sorted(scores.models["model"]) == sorted(spec.name for spec in specs)
    assert scores.texts.index.tolist() == TEXTS.frame.index.tolist()
    for i, row_id in enumerate(scores.models.index):
        totals = [tokens.sum(dtype=np.float64) for tokens in undisturbed.tokens(row_id)]
        assert scores.values[i].tolist() == totals
        ids, byte_end = undisturbed.tokenization(row_id)
        assert [ends[-1] for ends in byte_end] == TEXTS.frame["n_bytes"].tolist()
        assert list(map(len, ids)) == list(map(len, undisturbed.tokens(row_id)))
    assert (undisturbed.status()["state"] == "done").all()


def test_a_sweep_started_again_scores_nothing_twice(undisturbed, specs):
    seen = []
    assert score_models(undisturbed, specs, on_progress=seen.append) == {}
    assert seen == []


def test_sets_that_give_one_id_to_different_texts_do_not_join(tmp_path):
    def scored(name: str, text: str) -> LogLikelihoods:
        frame = pd.DataFrame({"text": [text, "same"], "source": "s"}, index=["mine", "yours"])
        frame["n_bytes"] = frame["text"].str.len()
        store = Store.create(tmp_path / name, TextSet(frame))
        store.request([ModelSpec(f"lab/{name}")])
        store.write_row(ModelSpec(f"lab/{name}").row_id, row(), {"seconds": 0.0})
        return store.load()

    a, b, other = scored("a", "one"), scored("b", "one"), scored("other", "two")
    assert len(join_models(a, b).models) == 2
    told = r"text 'mine' has sha256 [0-9a-f]{16} in one set and [0-9a-f]{16} in the other"
    with pytest.raises(InputError, match=told):
        join_models(a, other)


def test_a_set_without_token_records_makes_text_level_maps(undisturbed, specs, tmp_path):
    store = Store.create(tmp_path / "run", TEXTS)
    assert score_models(store, specs, threads=1, token_budget=512, keep_tokens=False) == {}
    assert not (store.path / "tokens").exists()
    with pytest.raises(InputError, match="scored with --no-tokens"):
        store.tokens(specs[0].row_id)
    drawn, expected = (fit_map(s.load(), method="mds") for s in (store, undisturbed))
    np.testing.assert_array_equal(drawn.kl, expected.kl)


KILLED = """
import json, os, random, signal, sys, time
from lmmap import Store, read_texts
from lmmap.model_lists import read_models
from lmmap.scoring import shared, sweep
import transformers, torch

run, texts, models, seconds = sys.argv[1:4] + [float(sys.argv[4])]
shared.SECONDS_BETWEEN_PARTS = 0.0     # every batch is kept, so that resuming in the middle is tested
generator, killed, delay = random.Random(0), 0, 0.0
while True:
    child = os.fork()
    if not child:
        store = Store.create(run, read_texts(texts))
        failed = sweep.score_models(store, read_models(models), threads=1, token_budget=512)
        os._exit(len(failed))
    if killed < 20:
        time.sleep(generator.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and killed >= 20:
        sys.exit(os.WEXITSTATUS(status))
    killed += 1
"""


def test_killed_at_twenty_random_moments_it_ends_with_the_same_bytes(undisturbed, specs, tmp_path):
    TEXTS.write(tmp_path / "texts.parquet")
    entries = [{"model": spec.source, "name": spec.name} for spec in specs]
    (tmp_path / "models.yaml").write_text(json.dumps(entries))
    arguments = [tmp_path / "run", tmp_path / "texts.parquet", tmp_path / "models.yaml", "0.6"]
    subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], check=True, timeout=300)
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed.path)
    assert not list((tmp_path / "run").glob("parts/*"))


def test_two_processes_share_a_folder_and_give_the_same_bytes(undisturbed, specs, tmp_path):
    store = Store.create(tmp_path / "run", TEXTS)
    seen = []
    failed = score_models_in_processes(
        store, specs, devices=["cpu", "cpu"], threads=1, token_budget=512, on_progress=seen.append
    )
    assert failed == {}
    assert bytes_of(store.path) == bytes_of(undisturbed.path)
    assert sorted(p.model for p in seen if p.state == "done") == sorted(spec.name for spec in specs)
    processes = {json.loads(f.read_text())["process"] for f in store.path.glob("journal/*.json")}
    assert len(processes) == 2


def test_finished_batches_are_taken_up_only_under_the_same_plan(tmp_path):
    store = Store.create(tmp_path / "run", TEXTS)
    parts = store.at_work("row").parts("plan", 10)
    assert [list(parts.batches_of(group)) for group in parts.groups] == [list(range(8)), [8, 9]]
    parts.write(0, {0: np.array([1.0], np.float32), 3: np.array([2.0], np.float32)})
    assert {n: v.tolist() for n, v in store.at_work("row").parts("plan", 10).read(0).items()} == {
        0: [1.0],
        3: [2.0],
    }
    assert store.at_work("row").parts("other plan", 10).read(0) == {}
    assert not parts.is_done(0)
    parts.write(1, {8: np.array([3.0], np.float32), 9: np.array([4.0], np.float32)})
    assert parts.is_done(1)


def test_a_group_of_batches_is_held_by_one_process(tmp_path):
    parts = Store.create(tmp_path / "run", TEXTS).at_work("row").parts("plan", 20)
    parts.folder.mkdir(parents=True)
    assert parts.free(5) == 3
    lock = parts.claim(2)
    assert lock is not None
    assert parts.claim(2) is None
    assert (parts.free(1), parts.free(5)) == (1, 2)
    lock.release()
    parts.write(0, {number: np.zeros(1, np.float32) for number in parts.batches_of(0)})
    assert parts.free(5) == 2


def test_a_model_that_fails_does_not_stop_the_others(specs, tmp_path):
    store = Store.create(tmp_path / "run", TEXTS)
    missing = ModelSpec(str(tmp_path / "nowhere"))
    failed = score_models(store, [missing, specs[0]], threads=1)
    assert list(failed) == [missing.row_id]
    status = store.status()
    assert status["state"].to_dict() == {missing.row_id: "failed", specs[0].row_id: "done"}
    assert "no such folder or file" in status.loc[missing.row_id, "reason"]
    assert store.load().models["model"].tolist() == [specs[0].name]


def test_status_of_a_row_that_is_asked_for_claimed_failed_and_done(tmp_path):
    store = Store.create(tmp_path / "run", text_set(["a", "b"]))
    spec = ModelSpec("gpt2")
    store.request([spec])
    state = lambda: store.status()["state"].item()  # noqa: E731
    assert state() == "missing"
    with store.claim(spec.row_id) as mine:
        assert mine
        with Store(store.path).claim(spec.row_id) as again:
            assert not again
        assert state() == "running"
    store.write_failure(spec.row_id, InputError("gated"))
    assert state() == "failed"
    assert store.status()["reason"].item() == "gated"
    store.write_row(spec.row_id, row(), {"seconds": 1.0})
    assert state() == "done"
    assert not list(store.path.glob("failures/*"))


def test_a_full_disk_stops_the_sweep_and_loses_nothing(specs, tmp_path, monkeypatch):
    store = Store.create(tmp_path / "run", TEXTS)
    score_models(store, specs[:1], threads=1)
    before = bytes_of(store.path)

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lmmap.tables.pq.write_table", full)
    with pytest.raises(OSError, match="No space left"):
        score_models(store, specs[:2], threads=1)
    monkeypatch.undo()
    after = bytes_of(store.path)
    assert all(after[name] == content for name, content in before.items())
    assert store.status()["state"].tolist() == ["done", "missing"]
    assert score_models(store, specs[:2], threads=1) == {}


def test_a_folder_of_other_texts_or_another_policy_is_refused(tmp_path):
    one, other = text_set(["a"]), text_set(["b"])
    store = Store.create(tmp_path / "run", one)
    assert Store.create(tmp_path / "run", one).scoring == store.scoring
    with pytest.raises(InputError, match=f"texts = {one.fingerprint[:12]}, now .*{other.fingerprint[:12]}"):
        Store.create(tmp_path / "run", other)
    with pytest.raises(InputError, match=r"prefix = 'auto', now prefix = 'reference'"):
        Store.create(tmp_path / "run", one, prefix="reference")
    with pytest.raises(InputError, match="unknown prefix policy 'none'"):
        Store.create(tmp_path / "elsewhere", one, prefix="none")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is no score set"):
        Store.create(tmp_path / "file", one)
    with pytest.raises(InputError, match="no score set in"):
        Store(tmp_path)


def test_a_row_that_disagrees_with_the_set_names_both_values(tmp_path):
    one, other = (Store.create(tmp_path / name, text_set([name, "x"])) for name in ("one", "other"))
    spec = ModelSpec("gpt2")
    for store in (one, other):
        store.request([spec])
        store.write_row(spec.row_id, row(), {"seconds": 1.0})
    scores = f"scores/{spec.row_id}.parquet"
    (one.path / scores).write_bytes((other.path / scores).read_bytes())
    with pytest.raises(InputError, match=f"{other.texts.fingerprint[:12]}.*{one.texts.fingerprint[:12]}"):
        one.load()


def test_a_retrained_model_takes_its_own_former_place(make_model, tmp_path):
    store, folder = Store.create(tmp_path / "run", text_set(["a", "b"])), tmp_path / "mine"
    rows = []
    for seed in (0, 1):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(make_model("llama", seed=seed), folder)
        spec = ModelSpec(str(folder))
        assert score_models(store, [spec], threads=1) == {}
        rows.append(spec.row_id)
    assert store.load().models.index.tolist() == rows[1:]
    assert rows[0] != rows[1]
    assert all(store.is_done(row_id) for row_id in rows)


def test_a_set_without_tokens_still_has_totals(specs, tmp_path):
    store = Store.create(tmp_path / "run", text_set(["a", "b"]))
    score_models(store, specs[:1], threads=1, keep_tokens=False)
    assert store.load().values.shape == (1, 2)
    with pytest.raises(InputError, match="--no-tokens"):
        store.tokens(specs[0].row_id)
    with pytest.raises(InputError, match=r"not among the 1 finished .*closest"):
        store.tokens(specs[0].row_id[:-1] + "x")


def test_the_footer_tells_how_a_row_was_made(undisturbed, specs):
    made = undisturbed.provenance(specs[0].row_id)
    file = undisturbed.path / "scores" / f"{specs[0].row_id}.parquet"
    assert json.loads(pq.read_schema(file).metadata[b"lmmap"]) == made
    assert made["recipe"] == json.loads(json.dumps(specs[0].recipe))
    assert made["threads"] == 1
    assert {"audit", "head", "suffix_swap", "pad_growth", "plan", "versions", "tokenizer"} <= set(made)


def test_attributes_and_names_that_would_hide_something_are_refused(make_model, tmp_path):
    store = Store.create(tmp_path / "run", text_set(["a", "b"]))
    source = str(make_model("llama"))
    with pytest.raises(InputError, match="mine: 'policy' is measured"):
        store.request([ModelSpec(source, name="mine", attributes={"policy": "x"})])
    score_models(store, [ModelSpec(source, name="mine", attributes={"n_parameters": 7})], threads=1)
    assert store.load().models["n_parameters"].tolist() == [7]
    with pytest.raises(InputError, match=r"holds another model called 'mine', from .*llama"):
        store.request([ModelSpec(str(make_model("gpt2")), name="mine")])


def test_a_model_that_is_forgotten_is_back_when_it_is_asked_for_again(specs, tmp_path):
    store = Store.create(tmp_path / "run", TEXTS)
    first, other, *_ = specs
    assert score_models(store, [first], threads=1) == {}
    store.request([other])
    assert store.forget(first.name) == first.row_id
    assert list(store.status().index) == [other.row_id]
    with pytest.raises(InputError, match=f"was not asked for '{first.name}'"):
        store.forget(first.name)
    store.request([first])
    assert store.status().loc[first.row_id, "state"] == "done"
    told = CliRunner().invoke(main, ["forget", str(store.path), other.row_id, first.name])
    assert told.exit_code == 0, told.output
    assert store.status().empty


@pytest.mark.parametrize(("set_to", "threads"), [("3", 3), ("", 5), ("0", 5), ("many", 5)])
def test_threads_are_those_of_the_environment_or_a_share_of_the_cores(monkeypatch, set_to, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    monkeypatch.setattr("os.cpu_count", lambda: 10)
    assert threads_of(2) == threads
