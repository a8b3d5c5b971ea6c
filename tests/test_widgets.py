"""The board of a sweep says what is where; a live sweep runs elsewhere, and tells."""

from __future__ import annotations

import threading

import pytest

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.progress import Progress
from lmmap.store import Store
from lmmap.texts import text_set
from lmmap.widgets import LiveSweep, score_live
from lmmap.widgets.board import Board


def test_the_board_shows_failures_first_then_what_is_at_hand_then_what_is_done():
    board = Board(n_models=4, n_done=1)
    assert "1 of 4 models done, starting" in board.html()
    at_hand = Progress("b", "scoring", 2, 4, 10, 40, 1500.0, 90.0, device="cuda:1")
    lines = [
        board.see(Progress("a", "scoring", 1, 4, 10, 40, 1000.0, 120.0, device="cuda:0")),
        board.see(Progress("a", "done", 2, 4, 40, 40, 1000.0, device="cuda:0")),
        board.see(at_hand),
        board.see(Progress("c", "failed", 2, 4, reason="no <such> thing", device="cuda:0")),
        board.see(Progress("b", "helping", 2, 4, device="cuda:0")),
        board.see(Progress("b", "waiting", 2, 4, device="cuda:0")),
    ]
    told = ["2/4 models: a done, 1,000 tokens/s", "2/4 models: c failed, no <such> thing"]
    assert [line for line in lines if line] == told
    drawn = board.html()
    assert "2 of 4 models done, 1 failed, about 2 min left" in drawn
    assert "no &lt;such&gt; thing" in drawn
    assert [drawn.index(f">{state}<") for state in ("failed", "scoring", "helping", "done")] == sorted(
        drawn.index(f">{state}<") for state in ("failed", "scoring", "helping", "done")
    )
    for cell in ("cuda:1", "10 of 40", "1,500"):
        assert f">{cell}<" in drawn
    board.see(Progress("b", "done", 3, 4, 40, 40, 1500.0))
    assert "helping" not in board.html()


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "run", text_set(["one", "two"]))


def test_a_live_sweep_prints_a_line_for_every_model_and_gives_the_failures(
    store, tmp_path, monkeypatch, capsys
):
    def sweep(given, specs, *, devices, on_progress, stop, threads):
        assert (given, devices, threads, stop.is_set()) == (store, ["cpu", "cpu"], 1, False)
        on_progress(Progress("a", "done", 1, 2))
        on_progress(Progress("b", "failed", 1, 2, reason="gated"))
        return {"b": "gated"}

    monkeypatch.setattr("lmmap.scoring.workers.score_models_in_processes", sweep)
    live = score_live(store, [ModelSpec("a"), ModelSpec("b")], device="cpu", workers=2, threads=1)
    assert live.wait() == {"b": "gated"}
    printed = ["1/2 models: a done, 0 tokens/s", "1/2 models: b failed, gated"]
    assert capsys.readouterr().out.splitlines() == printed
    assert "1 of 2 models done, 1 failed, ended" in live._table.value


def test_the_button_stops_a_live_sweep(store, monkeypatch):
    started = threading.Event()

    def sweep(*_args, stop, **_options):
        started.set()
        stop.wait()
        return {}

    monkeypatch.setattr("lmmap.scoring.workers.score_models_in_processes", sweep)
    live = LiveSweep(store, [ModelSpec("a")], ["cpu"], {})
    started.wait()
    assert not live._button.disabled
    live._button.click()
    assert live.wait() == {}
    assert live._button.disabled
    assert "0 of 1 models done, stopped" in live._table.value


def test_what_ends_a_live_sweep_is_raised_where_it_is_waited_for(store, monkeypatch):
    def sweep(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmmap.scoring.workers.score_models_in_processes", sweep)
    live = LiveSweep(store, [ModelSpec("a")], ["cpu"], {})
    with pytest.raises(OSError, match="No space left"):
        live.wait()
    assert "No space left" in live._table.value
    with pytest.raises(InputError, match="device 'cuda:99' is not there"):
        score_live(store, [ModelSpec("a")], device="cuda:99")
