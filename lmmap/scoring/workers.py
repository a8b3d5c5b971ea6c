"""Several processes on one score set: each takes rows by claim, one looks after all of them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lmmap.errors import InputError
from lmmap.models import ModelSpec
from lmmap.scoring.progress import Progress
from lmmap.signals import leave
from lmmap.store import Store

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_END = 60.0  # to save what is finished; a batch that runs is let run
PROCESSES_OF_A_GPU = 3  # one scores, one prepares the next row, one reads and writes
THREADS_BESIDE_A_GPU = 4  # whatever the number of cores: they are recorded with the row
MOST_STILLBORN = 3  # processes of a device in a row that end before they begin
AT_HAND = ("loading", "scoring", "helping")


class WorkerError(RuntimeError):
    """Workers end before they could begin."""


def score_models_in_processes(
    store: Store,
    specs: Sequence[ModelSpec],
    *,
    devices: Sequence[str],
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
    launch: str | None = None,
    spread: bool = True,
    all_gpus: bool | None = None,
    **options: Any,  # noqa: ANN401 - those of score_models
) -> dict[str, str]:
    """Score models on several devices of one machine.

    A GPU is served by three processes in turns. A process that dies is replaced, and another takes its row;
    a row that was at hand in two deaths is recorded as failed. Models too large for one GPU are scored at
    the end, spread over all.

    Parameters
    ----------
    store : Store
        The score set.
    specs : sequence of ModelSpec
        The models.
    devices : sequence of str
        Such as ``["cuda:0", "cuda:1"]``, or ``["cpu"] * 4``. A single CPU is served by this process itself.
    threads : int, optional
        CPU threads of each process; by default 4 beside a GPU, and on a CPU ``OMP_NUM_THREADS``, or the cores
        are shared out.
    on_progress : callable, optional
        Called in this process with every worker's `Progress`.
    stop : threading.Event, optional
        Ends the workers when it is set; what they have finished stays. With it, no row is scored in this
        process.
    launch : str, optional
        As `score_models`.
    spread : bool
        Whether models too large for one GPU are scored here; otherwise they are left.
    all_gpus : bool, optional
        Whether the launch has all GPUs of the machine, so that models may be spread over them; by default if
        ``devices`` are all of them. Without, large models are tried on one GPU.
    **options
        As `score_models`.

    Returns
    -------
    dict
        Row id -> reason, for the models that failed.

    Raises
    ------
    InputError
        If a device is not there.
    OSError
        If the disk is full; finished rows stay.
    WorkerError
        If workers cannot even begin.
    """
    from lmmap.scoring.devices import check_devices, threads_of
    from lmmap.scoring.sweep import new_launch, score_models

    check_devices(devices)
    launch = launch or new_launch()
    if list(devices) == ["cpu"] and stop is None:
        return score_models(store, specs, threads=threads, on_progress=on_progress, launch=launch, **options)
    on_gpus = devices[0].startswith("cuda")
    threads = threads or (THREADS_BESIDE_A_GPU if on_gpus else threads_of(len(devices)))
    crew = Crew(store, launch, threads, on_progress, stop or threading.Event(), options)
    with crew.starting(devices, len(specs)):  # they load what they need while files are hashed
        store.request(specs)
        return _score(crew, specs, devices, spread, all_gpus)


def _score(
    crew: Crew, specs: Sequence[ModelSpec], devices: Sequence[str], spread: bool, all_gpus: bool | None
) -> dict[str, str]:
    """Score what fits on a GPU, then the rest spread over all."""
    import torch

    from lmmap.scoring.devices import fits_on, memory_of
    from lmmap.scoring.load import SPREAD
    from lmmap.scoring.sweep import failures

    on_gpus = devices[0].startswith("cuda")
    large = []
    n_gpus = torch.cuda.device_count()
    if on_gpus and n_gpus > 1 and (len(set(devices)) == n_gpus if all_gpus is None else all_gpus):
        smallest = min(set(devices), key=memory_of)
        large = [spec for spec in specs if not fits_on(spec, smallest)]
    crew.score([spec for spec in specs if spec not in large], devices)
    if large and spread and not crew.stop.is_set():
        crew.score(large, [SPREAD])
    return failures(crew.store, specs, crew.launch)


@dataclass
class Worker:
    """A process, the pipe on which it tells its progress, and what it has at hand."""

    device: str
    process: Any
    pipe: Connection
    begun: bool = False
    at_hand: Progress | None = None
    last_words: str = ""


@dataclass
class Crew:
    """The workers of one machine: started, heard, replaced, ended.

    Parameters
    ----------
    store : Store
        The score set.
    launch : str
        What they share.
    threads : int
        Of each.
    on_progress : callable
        Called with every worker's `Progress`.
    stop : threading.Event
        Ends them.
    options : mapping
        Those of `Sweep`.
    """

    store: Store
    launch: str
    threads: int
    on_progress: Callable[[Progress], None]
    stop: threading.Event
    options: dict[str, Any]
    ready: list[Worker] = field(default_factory=list)  # without work so far
    workers: list[Worker] = field(default_factory=list)
    stillborn: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def starting(self, devices: Sequence[str], n_rows: int) -> Iterator[None]:
        """Start processes before there is work for them; those that get none are ended."""
        try:
            self.ready = [self._started(device) for device in _places(devices, n_rows)]
            yield
        finally:
            self._end(self.ready)

    def score(self, specs: Sequence[ModelSpec], devices: Sequence[str]) -> None:
        """Score models on devices; returns when every row is settled, or ``stop`` is set."""
        self.specs, self.row_of = list(specs), {spec.name: spec.row_id for spec in specs}
        missing = sum(not self._is_settled(row_id) for row_id in self.row_of.values())
        places = _places(devices, missing)
        self.n_processes = len(places)
        try:
            for device in places:
                self._start(device)
            self._end(self.ready)  # nobody without work keeps a GPU's memory
            while self.workers and not self.stop.is_set():
                self._look()
        finally:
            self._end(self.workers)

    def _start(self, device: str) -> None:
        """Give a process its work: one that is ready, or a new one."""
        ready = [worker for worker in self.ready if worker.device == device]
        worker = ready[0] if ready else self._started(device)
        if ready:
            self.ready.remove(worker)
        self.workers.append(worker)
        settings = {"launch": self.launch, "n_processes": self.n_processes, "options": self.options}
        threading.Thread(target=_send, args=(worker.pipe, (self.specs, settings)), daemon=True).start()

    def _started(self, device: str) -> Worker:
        context = get_context("spawn")  # a fork after CUDA has started breaks it
        pipe, theirs = context.Pipe()
        arguments = (self.store.path, device, theirs, self.threads)
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the worker
        return Worker(device, process, pipe)

    def _look(self) -> None:
        """Hear what workers tell, and bury the dead; what a dead one told before comes first."""
        ready = wait(
            [thing for worker in self.workers for thing in (worker.pipe, worker.process.sentinel)],
            SECONDS_BETWEEN_LOOKS,
        )
        for worker in list(self.workers):
            if worker.pipe in ready:
                self._hear(worker)
            elif worker.process.sentinel in ready:
                self._bury(worker)

    def _hear(self, worker: Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(message, Progress):
            worker.begun = True
            self.stillborn[worker.device] = 0
            worker.at_hand = message if message.state in AT_HAND else None
            self.on_progress(message)
        elif isinstance(message, BaseException):
            raise message
        else:
            worker.last_words = message

    def _bury(self, worker: Worker) -> None:
        """Note the row that a dead worker had at hand, and start another in its place."""
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        status = worker.process.exitcode
        if status == 0:  # all rows are settled
            return
        reason = worker.last_words or f"its process ended {_ending(status)}"
        if worker.at_hand is not None:
            self._blame(worker.at_hand, worker.process.pid, reason)
        elif not worker.begun:
            self.stillborn[worker.device] += 1
            if self.stillborn[worker.device] > MOST_STILLBORN:
                raise WorkerError(f"workers on {worker.device} cannot begin: {reason}")
        if not all(self._is_settled(row_id) for row_id in self.row_of.values()):
            self._start(worker.device)

    def _blame(self, at_hand: Progress, pid: int, reason: str) -> None:
        """Record a row as failed if it has cost too many processes."""
        from lmmap.scoring.sweep import MOST_CRASHES

        row_id = self.row_of[at_hand.model]
        if self.store.is_done(row_id):
            return
        row = self.store.at_work(row_id)
        row.note_crash(self.launch, f"{socket.gethostname()}-{pid}")
        if row.n_crashes(self.launch) >= MOST_CRASHES:
            error = InputError(f"{reason}, {MOST_CRASHES} times")
            self.store.write_failure(row_id, error, self.launch)
            self.on_progress(replace(at_hand, state="failed", reason=str(error)))

    def _is_settled(self, row_id: str) -> bool:
        return self.store.is_done(row_id) or self.store.failure(row_id, self.launch) is not None

    def _end(self, workers: list[Worker]) -> None:
        """End workers, and give them time to save."""
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(SECONDS_TO_END)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        workers.clear()


def _places(devices: Sequence[str], n_rows: int) -> list[str]:
    """Name a device for each process: no more than there are rows, but one of each device, to help."""
    again = [device for device in devices if device.startswith("cuda")] * (PROCESSES_OF_A_GPU - 1)
    return [*devices, *again][: max(n_rows, len(devices))] if n_rows else []


def _send(pipe: Connection, message: Any) -> None:  # noqa: ANN401 - whatever can be pickled
    """Tell a process that is still loading, and hears it when it is ready; of a dead one others will hear."""
    with suppress(OSError):
        pipe.send(message)


def work(path: Path, device: str, pipe: Connection, threads: int) -> None:
    """Score as one of a crew; what a process of its own runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it through the process that started it
    signal.signal(signal.SIGTERM, leave)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch reads them
        os.environ[name] = str(threads)

    import torch

    from lmmap.scoring.sweep import MemoryKept, Sweep, load_libraries

    def tell(message: Progress | BaseException | str) -> None:
        try:
            pipe.send(message)
        except OSError:
            sys.exit("the process that started this one is gone")

    torch.set_num_threads(threads)
    try:
        load_libraries(device)
        specs, settings = pipe.recv()
        Sweep(Store(path), specs, device, on_progress=tell, is_replaceable=True, **settings).run()
    except EOFError:
        sys.exit("the process that started this one is gone")
    except torch.AcceleratorError as error:
        tell(f"the device was lost: {str(error).splitlines()[0]}")
        os._exit(1)  # what would tidy up on the way out needs the device
    except MemoryKept as error:
        tell(str(error))
        sys.exit(1)
    except (OSError, InputError) as error:
        tell(error)
    except Exception:
        tell(WorkerError(traceback.format_exc()))


def _ending(status: int) -> str:
    """Say how a process ended."""
    if status < 0:
        return f"by {signal.Signals(-status).name}"
    return f"with exit status {status}"
