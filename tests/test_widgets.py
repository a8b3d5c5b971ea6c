"""The board of a sweep says what is where; a live sweep runs elsewhere, and tells."""

from __future__ import annotations

import asyncio
import threading
import types

import pytest
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

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
    at_hand = Progress("b", "scoring", 2, 4, 10, 40, 1500.0, 90.0, device="cuda:1", model_seconds_left=30.0)
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
    for cell in ("cuda:1", "10 of 40", "1,500", "30 s"):
        assert f">{cell}<" in drawn
    board.see(Progress("b", "done", 3, 4, 40, 40, 1500.0))
    assert "helping" not in board.html()


def test_no_sweep_is_said_to_end_before_a_model_at_hand_and_the_time_stays_while_the_next_loads():
    board = Board(n_models=3, n_done=0)
    board.see(Progress("a", "scoring", 0, 3, 1, 9, 10.0, 600.0, device="cuda:0", model_seconds_left=300.0))
    board.see(Progress("b", "scoring", 0, 3, 8, 9, 90.0, 20.0, device="cuda:1", model_seconds_left=10.0))
    assert board.title() == "0 of 3 models done, about 5 min left"
    board.see(Progress("a", "done", 1, 3, 9, 9, 10.0, device="cuda:0"))
    assert board.title() == "1 of 3 models done, about 20 s left"
    board.see(Progress("b", "done", 2, 3, 9, 9, 90.0, device="cuda:1"))
    board.see(Progress("c", "loading", 2, 3, 0, 9, device="cuda:0"))
    assert board.title() == "2 of 3 models done, about 20 s left"


def test_what_was_at_hand_when_a_sweep_ended_is_stopped_and_has_no_time_left():
    board = Board(n_models=2, n_done=0)
    board.see(Progress("a", "scoring", 0, 2, 10, 40, 1500.0, 90.0, model_seconds_left=30.0))
    assert "30 s" in board.html()
    board.end("stopped")
    assert board.title() == "0 of 2 models done, stopped"
    assert ">stopped<" in board.html()
    assert "scoring" not in board.html()
    assert "time left" not in board.html()


def test_a_board_has_reasons_only_if_something_failed_and_no_table_if_there_is_nothing_to_show():
    board = Board(n_models=2, n_done=2)
    assert "table" not in board.html()
    board.see(Progress("a", "done", 1, 2))
    assert ">state<" in board.html()
    assert "reason" not in board.html()
    board.see(Progress("b", "failed", 1, 2, reason="gated"))
    assert ">reason<" in board.html()


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
    assert live.board.title() == "1 of 2 models done, 1 failed, ended"


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
    assert live.board.title() == "0 of 1 models done, stopped: run this again to go on"
    live.stop()
    assert "stopped" in live.board.title(), "what has ended does not stop again"


def test_what_ends_a_live_sweep_is_raised_where_it_is_waited_for(store, monkeypatch):
    def sweep(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmmap.scoring.workers.score_models_in_processes", sweep)
    live = LiveSweep(store, [ModelSpec("a")], ["cpu"], {})
    with pytest.raises(OSError, match="No space left"):
        live.wait()
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(live._wait())
    assert "No space left" in live.board.title()
    with pytest.raises(InputError, match="device 'cuda:99' is not there"):
        score_live(store, [ModelSpec("a")], device="cuda:99")


def test_an_interrupt_stops_a_live_sweep_and_waits_until_it_has_saved(store, monkeypatch):
    saved = threading.Event()

    def sweep(*_args, stop, **_options):
        stop.wait()
        saved.set()
        return {}

    async def interrupted(live):
        waiting = asyncio.ensure_future(live._wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await waiting

    monkeypatch.setattr("lmmap.scoring.workers.score_models_in_processes", sweep)
    live = LiveSweep(store, [ModelSpec("a")], ["cpu"], {})
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted(live))
    assert saved.is_set()
    assert "stopped" in live.board.title()


def test_in_a_notebook_a_table_remains_that_needs_no_kernel_and_no_line_is_printed(
    store, monkeypatch, capsys
):
    places = []

    class Place:
        def display(self, data, raw):
            assert raw
            places.append(self)
            self.data = data

        def update(self, data, raw):
            assert raw
            self.data = data

    def sweep(*_args, on_progress, stop, **_options):
        on_progress(Progress("a", "done", 1, 1))
        stop.wait()
        return {}

    monkeypatch.setattr("IPython.get_ipython", lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setattr("IPython.display.DisplayHandle", Place)
    monkeypatch.setattr("lmmap.scoring.workers.score_models_in_processes", sweep)
    live = LiveSweep(store, [ModelSpec("a")], ["cpu"], {})
    table, button = places
    assert "application/vnd.jupyter.widget-view+json" in button.data
    live.stop()
    live.wait()
    assert set(table.data) == {"text/html", "text/plain"}
    assert ">done<" in table.data["text/html"]
    assert "stopped" in table.data["text/plain"]
    assert set(button.data.values()) == {""}
    assert capsys.readouterr().out == ""


CELL = """
import lmmap.scoring.workers
from lmmap import ModelSpec, Store, score_live

def sweep(*args, stop, **options):
    assert stop.wait(20)
    return {{"a": "stopped"}}

lmmap.scoring.workers.score_models_in_processes = sweep
live = score_live(Store({path!r}), [ModelSpec("a")], device="cpu")
failed = await live
print(failed)
"""


class ThisPython(KernelManager):
    @property
    def kernel_spec(self):
        return KernelSpec(**get_kernel_dict())


def test_a_kernel_hears_the_button_while_a_cell_awaits_the_sweep(store):
    kernel = ThisPython(transport_encryption="auto" if zmq.has("curve") else "disabled")
    kernel.start_kernel()
    client = kernel.client()
    client.start_channels()
    printed, answered = [], False

    def look(message):
        nonlocal answered
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
        view = content.get("data", {}).get("application/vnd.jupyter.widget-view+json")
        if message["msg_type"] == "display_data" and view:
            click = {"method": "custom", "content": {"event": "click"}}
            press = {"comm_id": view["model_id"], "data": click}
            client.shell_channel.send(client.session.msg("comm_msg", press))
            answered = True

    try:
        client.wait_for_ready(timeout=60)
        code = CELL.format(path=str(store.path))
        reply = client.execute_interactive(code, output_hook=look, timeout=60)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok"
    assert answered
    assert "".join(printed) == "{'a': 'stopped'}\n"
