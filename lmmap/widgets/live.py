"""A sweep in the background of a notebook: one live table, and a button that stops it and loses nothing."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmmap.models import ModelSpec
from lmmap.store import Store
from lmmap.widgets.board import Board

if TYPE_CHECKING:
    from lmmap.scoring.progress import Progress

SECONDS_BETWEEN_DRAWINGS = 0.25


def score_live(
    store: Store,
    specs: Sequence[ModelSpec],
    *,
    gpus: str | None = None,
    device: str = "auto",
    workers: int = 1,
    **options: Any,  # noqa: ANN401 - those of score_models_in_processes
) -> LiveSweep:
    """Score every model of a list that is not finished, in the background, and show a live table.

    Models are scored by processes of their own, so the notebook stays free, and nothing of the models stays
    in its memory.

    Parameters
    ----------
    store : Store
        The score set.
    specs : sequence of ModelSpec
        The models.
    gpus : str, optional
        ``all``, a number of GPUs, or some by number: ``0,2``. All by default.
    device : str
        One device: ``cpu``, ``cuda``, ``cuda:1``, ...
    workers : int
        Processes on the CPU.
    **options
        ``threads``, ``token_budget``, ``max_error_var`` and ``keep_tokens``, as `score_models`.

    Returns
    -------
    LiveSweep
        ``failed = await score_live(...)`` waits for its end in a notebook, ``wait()`` elsewhere; ``stop()``
        does what the button does.

    Raises
    ------
    InputError
        If a device is not there.
    """
    from lmmap.scoring.devices import find_devices

    return LiveSweep(store, specs, find_devices(gpus=gpus, device=device, workers=workers), options)


class LiveSweep:
    """A sweep that runs in the background.

    Parameters
    ----------
    store : Store
        The score set.
    specs : sequence of ModelSpec
        The models.
    devices : sequence of str
        One for each process, or each GPU.
    options : dict
        As `score_models_in_processes`.
    """

    def __init__(
        self, store: Store, specs: Sequence[ModelSpec], devices: Sequence[str], options: dict[str, Any]
    ) -> None:
        self.store, self.specs, self.devices, self.options = store, specs, devices, options
        self.board = Board(len(specs), sum(store.is_done(spec.row_id) for spec in specs))
        self.failed: dict[str, str] = {}
        self._error: BaseException | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping, self._drawn = threading.Event(), 0.0
        self._lock = threading.RLock()  # the board is seen by two threads
        self._show()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is finished is kept, and a sweep started again goes on from there."""
        with self._lock:
            if self.board.has_ended:
                return
            self._stopping.set()
            self._button.disabled = True
            self.board.heading = "stopping: what is finished is being saved"
            self._draw()

    def wait(self) -> dict[str, str]:
        """Wait for the end; outside a notebook, print a line for every model that has ended.

        In a notebook the button is not heard meanwhile, since the kernel is busy: ``await`` the sweep there.
        An interrupt stops the sweep in either case.

        Returns
        -------
        dict
            Row id -> reason, for the models that failed.
        """
        with self._stopped_if_interrupted():
            while self._thread.is_alive():
                self._thread.join(SECONDS_BETWEEN_DRAWINGS)
                self._print()
        return self._result()

    def __await__(self) -> Generator[Any, None, dict[str, str]]:
        """Wait as `wait` does, and let the kernel hear the button."""
        return self._wait().__await__()

    async def _wait(self) -> dict[str, str]:
        with self._stopped_if_interrupted():
            while self._thread.is_alive():
                await asyncio.sleep(SECONDS_BETWEEN_DRAWINGS)
                self._print()
        return self._result()

    @contextmanager
    def _stopped_if_interrupted(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.stop()
            self._thread.join()
            raise

    def _result(self) -> dict[str, str]:
        self._print()
        if self._error is not None:
            raise self._error
        return self.failed

    def _run(self) -> None:
        from lmmap.scoring.workers import score_models_in_processes

        try:
            self.failed = score_models_in_processes(
                self.store, self.specs, devices=self.devices, on_progress=self._see, stop=self._stopping,
                **self.options,
            )  # fmt: skip
            ending = "stopped: run this again to go on" if self._stopping.is_set() else "ended"
        except BaseException as error:  # told where it is waited for
            self._error = error
            ending = f"ended: {error}"
        with self._lock:
            self.board.end(ending)
            self._draw()
            self._remove_button()

    def _see(self, progress: Progress) -> None:
        with self._lock:
            line = self.board.see(progress)
            if line is not None:
                self._lines.put(line)
            if line is not None or time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
                self._draw()

    def _show(self) -> None:
        import ipywidgets
        from IPython import get_ipython
        from IPython.display import DisplayHandle

        self._button = ipywidgets.Button(description="Stop", icon="stop")
        self._button.on_click(lambda _: self.stop())
        self._table, self._place = DisplayHandle(), DisplayHandle()  # type: ignore[no-untyped-call]
        self._in_notebook = hasattr(get_ipython(), "kernel")  # elsewhere there is nothing to look at
        if self._in_notebook:
            self._table.display(self._drawing(), raw=True)  # type: ignore[no-untyped-call]
            button = self._button._repr_mimebundle_()
            self._place.display({**button, "text/plain": ""}, raw=True)  # type: ignore[no-untyped-call]

    def _drawing(self) -> dict[str, str]:
        """Draw the table as HTML, which stays in the notebook when the kernel is gone; a widget would not."""
        return {"text/html": self.board.html(), "text/plain": self.board.title()}

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._in_notebook:
            self._table.update(self._drawing(), raw=True)  # type: ignore[no-untyped-call]

    def _remove_button(self) -> None:
        self._button.disabled = True
        if self._in_notebook:
            self._place.update({"text/html": "", "text/plain": ""}, raw=True)  # type: ignore[no-untyped-call]

    def _print(self) -> None:
        while not self._lines.empty():
            line = self._lines.get()
            if not self._in_notebook:
                print(line)
