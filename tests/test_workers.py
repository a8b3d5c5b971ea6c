"""Many processes on one score set: the dead are replaced, rows are shared, the bytes stay the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lmmap.cli import main
from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.parts import acquired
from lmmap.scoring import devices, shared, sweep, turns, workers
from lmmap.scoring.devices import find_devices, fits_on
from lmmap.scoring.progress import Progress
from lmmap.scoring.ranks import join_launch
from lmmap.scoring.sweep import MemoryKept, Sweep, score_models
from lmmap.scoring.turns import Turns
from lmmap.scoring.workers import WorkerError, score_models_in_processes
from lmmap.store import Store
from lmmap.texts import text_set

TEXTS = text_set([f"text {i}: " + "日本 and more of it. " * (i % 7 + 1) for i in range(24)], sources="made")
SETTINGS = {"threads": 1, "token_budget": 128}
CODE = """
import os, torch
from transformers import LlamaForCausalLM

class Breaking(LlamaForCausalLM):
    def forward(self, *arguments, **options):
        {}
"""


def one_worker() -> dict[str, object]:
    """A process of its own, though one on the CPU could do without: nobody ever sets this `stop`."""
    return {**SETTINGS, "devices": ["cpu"], "stop": threading.Event()}


def bytes_of(run: Path) -> dict[str, bytes]:
    kinds = ("scoring.json", "texts.parquet", "scores/*", "tokens/*", "tokenizations/*", "requests/*")
    return {str(f.relative_to(run)): f.read_bytes() for kind in kinds for f in sorted(run.glob(kind))}


@pytest.fixture(scope="module")
def specs(make_model):
    kinds = [("llama", 0), ("llama", 1), ("gpt2", 0)]
    return [ModelSpec(str(make_model(kind, seed=seed)), name=f"{kind} {seed}") for kind, seed in kinds]


@pytest.fixture(scope="module")
def undisturbed(specs, tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("undisturbed") / "run", TEXTS)
    assert score_models(store, specs, **SETTINGS) == {}
    return store


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "run", TEXTS)


@pytest.fixture
def breaking(make_model, tmp_path, monkeypatch):
    """Give a function that makes a model whose forward pass does what is told."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def make(name: str, statement: str) -> ModelSpec:
        folder = shutil.copytree(make_model("llama"), tmp_path / name)
        (folder / "modeling_breaking.py").write_text(CODE.format(statement))
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModelForCausalLM": "modeling_breaking.Breaking"}
        (folder / "config.json").write_text(json.dumps(config))
        return ModelSpec(str(folder), trust_remote_code=True)

    return make


class Interrupt:
    """Progress that ends the sweep as Ctrl-C does, after some batches."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, progress: Progress) -> None:
        self.left -= progress.state == "scoring"
        if not self.left:
            raise KeyboardInterrupt


def test_a_killed_worker_is_replaced_and_the_bytes_are_the_same(store, specs, undisturbed):
    killed, seen = [], []

    def kill(progress: Progress) -> None:
        seen.append((progress.model, progress.state))
        if progress.state == "scoring" and not killed:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid, signal.SIGKILL)
            killed.append(child.pid)

    failed = score_models_in_processes(store, specs, on_progress=kill, **one_worker())
    assert failed == {}
    journals = [json.loads(file.read_text()) for file in store.path.glob("journal/*.json")]
    assert {journal["process"] for journal in journals} - {*killed}
    assert bytes_of(store.path) == bytes_of(undisturbed.path)
    assert not list(store.path.glob("parts/*"))
    assert multiprocessing.active_children() == []


def test_a_model_that_ends_its_process_fails_alone_after_two_deaths(store, specs, breaking):
    bad, seen = breaking("bad", "os.abort()"), []
    failed = score_models_in_processes(store, [specs[0], bad], on_progress=seen.append, **one_worker())
    assert failed == {bad.row_id: "its process ended by SIGABRT, 2 times"}
    assert store.status()["state"].to_dict() == {bad.row_id: "failed", specs[0].row_id: "done"}
    assert [p.state for p in seen if p.model == bad.name] == ["loading", "loading", "failed"]


def test_a_lost_device_ends_the_process_that_lost_it(store, breaking):
    bad = breaking("bad", "raise torch.AcceleratorError('no more')")
    store.at_work(bad.row_id).note_crash("launch", "another")
    store.at_work(bad.row_id).note_crash("earlier launch", "another")
    failed = score_models_in_processes(store, [bad], launch="launch", **one_worker())
    assert failed == {bad.row_id: "the device was lost: no more, 2 times"}
    with pytest.raises(torch.AcceleratorError):
        score_models(store, [bad], **SETTINGS)


LOST = """
import torch
from lmmap.scoring import sweep

def lost(device):
    raise torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy or unavailable")

sweep.load_libraries = lost
"""


def test_a_device_that_is_lost_before_any_row_is_an_error_and_not_tried_for_ever(
    store, specs, monkeypatch, tmp_path
):
    (tmp_path / "sitecustomize.py").write_text(LOST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerError, match="workers on cpu cannot begin: the device was lost: CUDA error"):
        score_models_in_processes(store, specs, devices=["cpu", "cpu"])
    assert not any(store.is_done(spec.row_id) for spec in specs)


def test_processes_without_work_end_before_the_others_score(store, specs, monkeypatch):
    score_models(store, specs[:-1], **SETTINGS)
    alive = []

    def count(progress: Progress) -> None:
        if progress.state == "scoring":
            alive.append(len(multiprocessing.active_children()))

    monkeypatch.setattr(workers, "_places", lambda devices, n_rows: [*devices][: max(n_rows, 1)])
    score_models_in_processes(store, specs, devices=["cpu"] * 3, threads=1, on_progress=count)
    assert set(alive) == {1}


def test_workers_that_cannot_begin_are_an_error_and_not_started_for_ever(store, specs, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(store.path))  # where no Python is
    with pytest.raises(
        WorkerError, match="workers on cpu cannot begin: its process ended with exit status 1"
    ):
        score_models_in_processes(store, specs, devices=["cpu", "cpu"])
    assert multiprocessing.active_children() == []


def test_a_full_disk_in_a_worker_stops_all_of_them(store, breaking):
    full = breaking("full", "pass")
    (Path(full.source) / "modeling_breaking.py").write_text("raise OSError(28, 'No space left on device')")
    with pytest.raises(OSError, match="No space left"):
        score_models_in_processes(store, [full], **one_worker())
    assert store.status()["state"].tolist() == ["missing"]
    assert multiprocessing.active_children() == []


def test_files_that_vanish_fail_their_own_row(store, specs, make_model, tmp_path):
    folder = shutil.copytree(make_model("llama"), tmp_path / "vanishing")
    vanished = ModelSpec(str(folder))
    assert vanished.row_id
    shutil.rmtree(folder)
    failed = score_models(store, [vanished, specs[0]], **SETTINGS)
    assert "no such folder or file" in failed[vanished.row_id]
    assert store.status()["state"].tolist() == ["done", "failed"]


def test_what_failed_is_left_alone_by_its_own_launch_and_tried_by_the_next(store, tmp_path):
    missing, tries = ModelSpec(str(tmp_path / "nowhere")), []

    def count(progress: Progress) -> None:
        tries.extend([progress] * (progress.state == "loading"))

    for launch, n_tries in (("one", 1), ("one", 1), ("other", 2)):
        failed = score_models(store, [missing], launch=launch, on_progress=count)
        assert "no such folder or file" in failed[missing.row_id]
        assert len(tries) == n_tries


def test_an_interrupt_saves_every_finished_batch(store, specs, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        score_models(store, specs[:1], on_progress=Interrupt(after=11), **SETTINGS)
    offer = store.at_work(specs[0].row_id).offered()
    parts = store.at_work(specs[0].row_id).parts(offer["plan"], offer["n_batches"])
    assert [len(parts.read(group)) for group in parts.groups][:3] == [8, 3, 0]
    assert parts.free(at_most=99) == len(parts.groups) - 1
    seen = []
    assert score_models(store, specs, on_progress=seen.append, **SETTINGS) == {}
    assert sum(p.state == "scoring" and p.model == specs[0].name for p in seen) == offer["n_batches"] - 11
    assert bytes_of(store.path) == bytes_of(undisturbed.path)


def test_stop_ends_the_workers_and_the_next_launch_goes_on(store, specs, undisturbed):
    stop, seen = threading.Event(), []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.state == "scoring":
            stop.set()

    options = {**one_worker(), "stop": stop}
    assert score_models_in_processes(store, specs, on_progress=watch, **options) == {}
    assert multiprocessing.active_children() == []
    assert not (store.status()["state"] == "running").any()
    assert score_models(store, specs, **SETTINGS) == {}
    assert bytes_of(store.path) == bytes_of(undisturbed.path)


@pytest.mark.parametrize(
    ("kept", "replaceable", "n_done"), [(2**29, True, 1), (2**29, False, 2), (0, True, 2)]
)
def test_a_process_that_a_model_leaves_its_memory_ends_behind_the_row(
    kept, replaceable, n_done, store, specs, monkeypatch
):
    monkeypatch.setattr(sweep, "memory_kept", lambda _: kept)
    store.request(specs[:2])
    ends = pytest.raises(MemoryKept, match=r"left 0\.5 GiB behind on cpu") if n_done == 1 else nullcontext()
    with ends:
        Sweep(store, specs[:2], "cpu", "launch", lambda _: None, {}, is_replaceable=replaceable).run()
    assert sum(store.is_done(spec.row_id) for spec in specs) == n_done
    assert not any(store.at_work(spec.row_id).n_crashes("launch") for spec in specs)


def helper_of(store: Store, specs: list[ModelSpec], monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A process elsewhere, as far as the folder can tell."""
    monkeypatch.setattr("lmmap.scoring.sweep.name_of", lambda device: device)
    helper = Sweep(store, specs, "cpu:0", "launch", lambda _: None, {})
    helper.turns, helper.policies = Turns(), {"prefix": "auto", "long_texts": "window"}
    return helper


def test_a_helper_takes_free_groups_and_the_row_has_the_same_bytes(store, specs, undisturbed, monkeypatch):
    helper, helped = helper_of(store, specs, monkeypatch), []

    def call_the_helper(progress: Progress) -> None:
        if progress.model == specs[0].name and progress.state == "scoring" and not helped:
            helped.append(helper._help(specs[0]))
            helped.append(helper._help(specs[0]))  # nothing is free any more

    seen = []
    score_models(store, specs, on_progress=lambda p: (seen.append(p), call_the_helper(p)), **SETTINGS)
    assert helped == [True, False]
    assert sum(p.state == "scoring" and p.model == specs[0].name for p in seen) == 8, "its own group"
    assert bytes_of(store.path) == bytes_of(undisturbed.path)
    assert not list(store.path.glob("parts/*"))


def test_a_group_whose_helper_died_is_scored_by_the_owner(store, specs, undisturbed, monkeypatch):
    held, waited = [], []

    def hold_the_last_group(progress: Progress) -> None:
        if progress.model == specs[0].name and progress.state == "scoring" and not held:
            offer = store.at_work(specs[0].row_id).offered()
            parts = store.at_work(specs[0].row_id).parts(offer["plan"], offer["n_batches"])
            held.append(parts.claim(parts.groups[-1]))

    def die(_seconds: float) -> None:
        waited.append(True)
        held[0].release()

    monkeypatch.setattr(shared.time, "sleep", die)
    assert score_models(store, specs, on_progress=hold_the_last_group, **SETTINGS) == {}
    assert waited == [True]
    assert bytes_of(store.path) == bytes_of(undisturbed.path)


def test_a_helper_keeps_away_from_rows_that_it_would_score_otherwise(store, specs, monkeypatch):
    helper, row_id = helper_of(store, specs, monkeypatch), specs[0].row_id
    assert not helper._help(specs[0]), "nothing is offered"
    offer = {"plan": "another", "n_batches": 99, "dtype": "float32", "token_budget": 128}
    (store.path / "parts" / row_id / "another").mkdir(parents=True)
    store.at_work(row_id).offer(offer | {"kind": "cuda", "hardware": "there"})
    assert not helper._help(specs[0]), "other bits"
    store.at_work(row_id).offer(offer | {"kind": "cpu", "hardware": "cpu:0"})
    assert not helper._help(specs[0]), "the same device"
    store.at_work(row_id).offer(offer | {"kind": "cpu", "hardware": "there"})
    assert helper._help(specs[0])
    assert helper.left_alone == {row_id}, "another plan"
    assert not list(store.path.glob("parts/*/*/*.npz"))


@pytest.fixture(scope="module")
def command(specs, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("command")
    entries = [{"model": spec.source, "name": spec.name} for spec in specs]
    (folder / "models.yaml").write_text(json.dumps(entries))
    TEXTS.write(folder / "texts.parquet")
    files = ["--models", folder / "models.yaml", "--texts", folder / "texts.parquet"]
    return [str(word) for word in (*files, "--device", "cpu", "--threads", 1, "--token-budget", 128)]


def test_accelerate_launches_ranks_that_share_the_rows(command, undisturbed, tmp_path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--main_process_port", "0", "-m", "lmmap", "score", str(tmp_path / "run"), *command]
    done = subprocess.run(launcher, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 models: 3 done") == 1, "the main process speaks for all"
    assert done.stderr.count("TextSet") == 2, "there are two of them"
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed.path)


def test_two_launches_in_one_folder_share_the_rows(command, undisturbed, tmp_path):
    words = [sys.executable, "-m", "lmmap", "score", str(tmp_path / "run"), *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    launches = [subprocess.Popen(words, **pipes) for _ in range(2)]
    for launch in launches:
        told, errors = launch.communicate()
        assert launch.returncode == 0, errors
        assert "3 models: 3 done" in told
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed.path)


def test_the_command_ends_its_workers_when_it_is_ended(command, specs, undisturbed, tmp_path):
    words = [sys.executable, "-m", "lmmap", "score", str(tmp_path / "run"), *command, "--workers", "2"]
    launch = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("run/locks/*")) and launch.poll() is None:
        time.sleep(0.01)
    launch.terminate()
    launch.communicate()  # ends when no child holds the pipes any more
    assert launch.returncode == 128 + signal.SIGTERM
    store = Store(tmp_path / "run")
    assert not (store.status()["state"] == "running").any()
    assert score_models(store, specs, **SETTINGS) == {}
    assert bytes_of(tmp_path / "run") == bytes_of(undisturbed.path)


def test_devices_are_all_gpus_or_those_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert find_devices() == find_devices(gpus="all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert find_devices(gpus="2") == ["cuda:0", "cuda:1"]
    assert find_devices(gpus="0,2") == ["cuda:0", "cuda:2"]
    assert find_devices(device="cuda") == ["cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert find_devices() == ["cpu"]
    assert find_devices(workers=2) == ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("n_there", "asked", "told"),
    [
        (2, {"gpus": "4"}, "--gpus 4: there are 2 GPUs here"),
        (1, {"gpus": "0"}, "--gpus 0: there is 1 GPU here"),
        (0, {"gpus": "all"}, "--gpus all: there are 0 GPUs here"),
        (2, {"gpus": "0,7"}, "device 'cuda:7' is not there; there is cpu and cuda:0 to cuda:1"),
        (1, {"gpus": "0,0"}, "names a GPU twice"),
        (2, {"gpus": "two"}, "--gpus 'two': use all, a number"),
        (0, {"device": "cuda:7"}, "device 'cuda:7' is not there; there is cpu and no GPU"),
        (1, {"device": "gpu"}, "unknown device 'gpu'; there is cpu and cuda:0"),
        (1, {"device": "cuda", "gpus": "1"}, "contradict each other"),
        (1, {"workers": 2}, "--workers 2 is for the CPU"),
        (0, {"workers": 0}, "--workers 0: use 1 or more"),
    ],
)
def test_a_device_that_is_not_there_is_named_with_those_that_are(monkeypatch, n_there, asked, told):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_there)
    with pytest.raises(InputError, match=told):
        find_devices(**asked)


def test_a_model_fits_if_its_files_leave_room_on_the_device(specs, make_model, monkeypatch):
    size = devices.weights_size(specs[0])
    assert size == (Path(specs[0].source) / "model.safetensors").stat().st_size
    for memory, fits in ((size, False), (2 * size, True)):
        monkeypatch.setattr(devices, "memory_of", lambda _, memory=memory: memory)
        assert fits_on(specs[0], "cuda:0") == fits
    assert fits_on(specs[0], "cpu")
    assert fits_on(ModelSpec("nobody/has-this"), "cuda:0"), "not known"


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(turns, "name_of", lambda device: device.replace(":", "-"))
    monkeypatch.setattr(turns, "memory_of", lambda _: 80 * 2**30)


def free_locks(store: Store, gpu: str) -> tuple[int, bool]:
    """How many places are free on a GPU, and whether nobody computes there."""

    def is_free(name: str) -> bool:
        lock = store.lock(name)
        free = acquired(lock)
        lock.release()
        return free

    return sum(is_free(f"{gpu}-{place}") for place in range(turns.PLACES)), is_free(gpu)


SMALL, MIDDLE, LARGE = 10**8, 5 * 10**9, 10**11  # the middle one takes four eighths of 80 GiB


@pytest.mark.usefixtures("two_gpus")
def test_small_models_share_a_gpu_and_one_of_them_computes(store):
    on_gpu, beside = (turns.turns_on(store, "cuda:1") for _ in range(2))
    with on_gpu.place(SMALL) as is_shared, beside.place(SMALL) as is_beside:
        assert is_shared
        assert is_beside
        assert free_locks(store, "cuda-1") == (turns.PLACES - 2, True)
        with on_gpu.compute(SMALL):
            assert free_locks(store, "cuda-1") == (turns.PLACES - 2, False)
        assert free_locks(store, "cuda-0") == (turns.PLACES, True)
    assert free_locks(store, "cuda-1") == (turns.PLACES, True)


@pytest.mark.usefixtures("two_gpus")
def test_models_share_a_gpu_as_far_as_its_memory_goes(store):
    on_gpu, beside, late = (turns.turns_on(store, "cuda:1") for _ in range(3))
    took_place = threading.Event()

    def wait():
        with late.place(MIDDLE):
            took_place.set()

    waiting = threading.Thread(target=wait)
    with on_gpu.place(MIDDLE) as is_shared:
        assert is_shared
        with beside.place(SMALL):
            assert free_locks(store, "cuda-1") == (3, True)
            waiting.start()
            assert not took_place.wait(0.2), "four places are wanted, three are free"
        assert took_place.wait(10), "four are free"
    waiting.join()


@pytest.mark.parametrize("size", [LARGE, None])
@pytest.mark.usefixtures("two_gpus")
def test_a_large_model_or_one_of_unknown_size_is_alone_on_its_gpu(size, store):
    with turns.turns_on(store, "cuda:1").place(size) as is_shared:
        assert not is_shared
        assert free_locks(store, "cuda-1") == (0, True)
        assert free_locks(store, "cuda-0") == (turns.PLACES, True)


@pytest.mark.usefixtures("two_gpus")
def test_a_large_model_that_waits_comes_before_small_ones_that_ask_later(store):
    order = []

    def have_place(size):
        with turns.turns_on(store, "cuda:1").place(size):
            order.append(size)

    waiting = store.lock("cuda-1-entering")
    large, small = (threading.Thread(target=have_place, args=(size,)) for size in (LARGE, SMALL))
    with turns.turns_on(store, "cuda:1").place(SMALL):
        large.start()
        while acquired(waiting):
            waiting.release()
        small.start()
        small.join(0.2)
        assert order == []
    large.join()
    small.join()
    assert order == [LARGE, SMALL]


@pytest.mark.parametrize("sizes", [(SMALL, SMALL), (MIDDLE, MIDDLE), (MIDDLE, SMALL)])
@pytest.mark.usefixtures("two_gpus")
def test_who_waits_to_compute_comes_before_who_computed_last(sizes, store):
    order, first, second = [], *sizes

    def compute(name, size):
        with turns.turns_on(store, "cuda:1").compute(size):
            order.append(name)

    waits = threading.Thread(target=compute, args=("waits", first))
    computed_last = threading.Thread(target=compute, args=("computed last", second))
    with turns.turns_on(store, "cuda:1").compute(second):
        waits.start()
        wait_until_held(store, "cuda-1-small-next" if first == SMALL else "cuda-1-large-next")
        computed_last.start()
        computed_last.join(0.2)
        assert order == []
    waits.join()
    computed_last.join()
    assert order == ["waits", "computed last"]


@pytest.mark.usefixtures("two_gpus")
def test_a_large_model_computes_before_small_ones_that_have_waited_for_longer(store):
    order = []

    def compute(size):
        with turns.turns_on(store, "cuda:1").compute(size):
            order.append(size)

    small, large = (threading.Thread(target=compute, args=(size,)) for size in (SMALL, MIDDLE))
    with turns.turns_on(store, "cuda:1").compute(SMALL):
        small.start()
        wait_until_held(store, "cuda-1-small-next")
        large.start()
        large.join(0.2)
        assert order == []
    small.join()
    large.join()
    assert order == [MIDDLE, SMALL]


@pytest.mark.usefixtures("two_gpus")
def test_where_a_small_model_waits_for_a_large_one_it_is_crowded(store):
    here, elsewhere = turns.turns_on(store, "cuda:1"), turns.turns_on(store, "cuda:0")
    other = turns.turns_on(store, "cuda:1")

    def compute():
        with other.compute(SMALL):
            pass

    small = threading.Thread(target=compute)
    with turns.turns_on(store, "cuda:1").compute(MIDDLE):
        assert not here.is_crowded()
        small.start()
        wait_until_held(store, "cuda-1-small-next")
        assert here.is_crowded()
        assert not elsewhere.is_crowded()
    small.join()
    assert not here.is_crowded()
    assert not turns.turns_on(store, "cpu").is_crowded()


@pytest.mark.usefixtures("two_gpus")
def test_where_small_models_wait_for_small_ones_it_is_not(store):
    other = turns.turns_on(store, "cuda:1")

    def compute():
        with other.compute(SMALL):
            pass

    small = threading.Thread(target=compute)
    with turns.turns_on(store, "cuda:1").compute(SMALL):
        small.start()
        wait_until_held(store, "cuda-1-small-next")
        here = turns.turns_on(store, "cuda:1")
        assert not any(here.is_crowded() for _ in range(99))
    small.join()


def wait_until_held(store, name: str) -> None:
    lock, begun = store.lock(name), time.monotonic()
    while acquired(lock):
        lock.release()
        assert time.monotonic() - begun < 60, "who waits does not say so"


def test_on_a_crowded_device_no_row_is_taken_until_there_is_room(store, specs, monkeypatch):
    done_when_asked = []

    class Crowded(Turns):
        def is_crowded(self) -> bool:
            done_when_asked.append(len(list(store.path.glob("scores/*"))))
            return len(done_when_asked) <= 9

    monkeypatch.setattr(sweep, "turns_on", lambda *_: Crowded())
    monkeypatch.setattr(sweep, "SECONDS_BETWEEN_LOOKS", 0.01)
    told = []
    assert score_models(store, specs, on_progress=lambda p: told.append(p.state), **SETTINGS) == {}
    assert done_when_asked[:10] == [0] * 10
    assert told[0] == "waiting"
    assert store.status()["state"].tolist() == ["done"] * len(specs)


@pytest.mark.usefixtures("two_gpus")
def test_of_large_models_one_is_read_ahead_on_a_gpu(store):
    on_gpu = turns.turns_on(store, "cuda:1")
    for n_bytes, free in ((2 * SMALL, True), (2 * MIDDLE, False), (None, False)):
        with on_gpu.read(n_bytes):
            lock = store.lock("cuda-1-reading")
            assert acquired(lock) == free
            lock.release()


@pytest.mark.usefixtures("two_gpus")
def test_a_model_that_is_spread_has_all_gpus(store):
    spread = turns.turns_on(store, "gpus")
    with spread.place(SMALL) as is_shared, spread.compute(SMALL):
        assert not is_shared
        assert [free_locks(store, gpu) for gpu in ("cuda-0", "cuda-1")] == [(0, False)] * 2
    with turns.turns_on(store, "cpu").place(LARGE) as is_shared:
        assert not is_shared
        assert [free_locks(store, gpu) for gpu in ("cuda-0", "cuda-1")] == [(turns.PLACES, True)] * 2


def test_rows_too_large_for_a_gpu_come_last_spread_over_all(store, specs, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("lmmap.scoring.devices.memory_of", lambda _: 1)
    monkeypatch.setattr("lmmap.scoring.devices.fits_on", lambda spec, _: spec is not specs[1])
    monkeypatch.setattr(
        "lmmap.scoring.workers.Crew.score",
        lambda _, specs, devices: calls.append(([spec.name for spec in specs], list(devices))),
    )
    score_models_in_processes(store, specs, devices=["cuda:0", "cuda:1"])
    small = ["llama 0", "gpt2 0"], ["cuda:0", "cuda:1"]
    assert calls == [small, (["llama 1"], ["gpus"])]
    calls.clear()
    score_models_in_processes(store, specs, devices=["cuda:0"], spread=False, all_gpus=True)
    assert calls == [(["llama 0", "gpt2 0"], ["cuda:0"])]


def test_a_large_model_is_spread_over_no_gpu_that_was_left_out(store, specs, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("lmmap.scoring.devices.memory_of", lambda _: 1)
    monkeypatch.setattr("lmmap.scoring.devices.fits_on", lambda *_: False)
    monkeypatch.setattr(
        "lmmap.scoring.workers.Crew.score", lambda _, specs, devices: calls.append((len(specs), devices))
    )
    score_models_in_processes(store, specs, devices=["cuda:1"])
    assert calls == [(3, ["cuda:1"])]


def test_values_of_groups_are_those_of_batches(store):
    parts = store.at_work("row").parts("plan", 9)
    values = {number: np.full(2, number, np.float32) for number in range(9)}
    for group in parts.groups:
        parts.write(group, {number: values[number] for number in parts.batches_of(group)})
    read = {number: v for group in parts.groups for number, v in parts.read(group).items()}
    assert read.keys() == values.keys()
    assert all((read[number] == values[number]).all() for number in values)


def test_a_process_of_a_launcher_serves_one_device_and_forgets_the_launcher(command, tmp_path, monkeypatch):
    assert join_launch("auto") is None
    for name, value in {"ACCELERATE_USE_CPU": "False", "LOCAL_RANK": "0", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["score", str(tmp_path / "run"), *command, "--gpus", "1"])
    assert "--gpus 1: here each process was launched for one GPU" in result.output
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    rank = join_launch("auto")
    assert (rank.device, rank.is_main, rank.n_here) == ("cuda:0", True, 1)
    assert not {"ACCELERATE_USE_CPU", "LOCAL_RANK", "MASTER_PORT"} & os.environ.keys()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert join_launch("auto").device == "cpu"
