"""Queue: many models of many kinds scored by the real command, on one GPU and on several.

Run from the root of the repository::

    python -m benchmarks.queue FOLDER --processors 1 --processors 2 -o benchmarks/results/queue.json

FOLDER is where `benchmarks.shapes` makes texts and models, now if need be; that is not timed. What is timed
is `lmmap score` from its start to its end, in a fresh folder each time. Its journal tells how long each stage
of each row took; stages of two rows may overlap. Apart from that the driver is asked in how much of the time
any kernel ran. The files of scores are compared byte by byte with those of other numbers of processors over
the same models and texts, as far as FOLDER has them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.results import Row, circumstances, default_device, keep_row
from benchmarks.shapes import SHAPES, get_models, get_texts, parse_models, weight_bytes
from lmmap.errors import InputError
from lmmap.files import read_json, sha256_of_file
from lmmap.store import Store

ROOT = Path(__file__).parent.parent
QUEUE = (
    "llama-3-8b", "pythia-1.4b", "smollm2-135m", "gpt2", "opt-125m", "bloom-560m", "qwen3-0.6b", "small-moe",
    "pythia-410m", "pythia-160m", "smollm2-135m:1", "pythia-160m:1",
    "pythia-1.4b:1", "pythia-410m:1", "opt-125m:1", "gpt2:1", "qwen3-0.6b:1", "bloom-560m:1",
    "smollm2-135m:2", "small-moe:1",
)  # fmt: skip
PROCESSORS = {"cuda": "GPU", "cpu": "CPU worker"}
IDENTITY = ("model", "way", "n_texts", "device")
SECONDS_BETWEEN_LOOKS = 0.2


class Bench:
    """Runs the command over the first models of a list and some texts.

    Parameters
    ----------
    folder : Path
        Where models and texts are, and where runs go.
    models : sequence of (name, folder)
        The queue.
    device : str
        ``cpu`` or ``cuda``.
    options : sequence of str
        Further options of `lmmap score`.
    """

    def __init__(
        self, folder: Path, models: Sequence[tuple[str, Path]], device: str, options: Sequence[str]
    ) -> None:
        self.folder, self.models, self.device, self.options = folder, models, device, options

    def measure(self, processors: int, n_models: int, n_texts: int) -> Row:
        """Score once, and tell how it went."""
        run = self.folder / "runs" / f"{processors}-{n_models}-{n_texts}"
        shutil.rmtree(run, ignore_errors=True)
        run.parent.mkdir(exist_ok=True)
        listed, texts = run.with_suffix(".yaml"), run.with_suffix(".parquet")
        models = [
            {"name": name, "model": str(path.absolute()), "n_bytes": weight_bytes(path)}
            for name, path in self.models[:n_models]
        ]
        listed.write_text(json.dumps(models))
        get_texts(self.folder, n_texts).write(texts)
        command = [sys.executable, "-m", "lmmap", "score", str(run.absolute())]
        command += ["--models", str(listed.absolute()), "--texts", str(texts.absolute())]
        with gpu_busy(processors if self.device == "cuda" else 0) as busy:
            start = time.perf_counter()
            done = subprocess.run(
                [*command, *self._where(processors), *self.options],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            wall = time.perf_counter() - start
        if done.returncode:
            told = f"lmmap score ended with {done.returncode}:\n{done.stderr[-3000:]}"
            if not (run / "scoring.json").exists():
                raise click.ClickException(told)
            click.echo(told, err=True)
        return self.told(run, processors, wall, busy)

    def _where(self, processors: int) -> list[str]:
        if self.device == "cuda":
            return ["--gpus", str(processors)]
        return ["--device", self.device, "--workers", str(processors), "--threads", "1"]

    def told(self, run: Path, processors: int, wall: float, busy: Sequence[float]) -> Row:
        """Make a row of what a finished run left."""
        store = Store(run)
        status = store.status()
        done = status[status["state"] == "done"]
        for row_id, row in status[status["state"] != "done"].iterrows():
            click.echo(f"  {row['state']}: {row_id}: {row['reason']}", err=True)
        stages: Counter[str] = Counter()
        for row_id in done.index:
            stages.update(read_json(run / "journal" / f"{row_id}.json").get("stages", {}))
        n_texts, n_tokens = len(store.texts), int(done["n_tokens"].sum())
        others = run.parent.glob(f"*-{run.name.partition('-')[2]}")
        digests = {digest_of(other) for other in others if other.is_dir() and other != run}
        return {
            "model": f"queue of {len(status)}",
            "way": f"{processors} {PROCESSORS[self.device]}" + ("" if processors == 1 else "s"),
            "tokens_per_s": round(n_tokens / wall, 1),
            "seconds": round(wall, 2),
            "gpu_busy": round(sum(busy) / len(busy), 4) if busy else None,
            "shares": {stage: round(s / wall / processors, 4) for stage, s in stages.items()},
            "same_bytes": digests == {digest_of(run)} if digests else None,
            "processors": processors,
            "n_models": len(status),
            "n_failed": len(status) - len(done),
            "n_texts": n_texts,
            "n_tokens": n_tokens,
            "rows": {row_id: float(seconds) for row_id, seconds in done["seconds"].items()},
        }


@contextmanager
def gpu_busy(n_gpus: int) -> Iterator[list[float]]:
    """Collect five times a second the share of the time in which a kernel ran, for each of the first GPUs."""
    busy: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while True:
            busy.extend(torch.cuda.utilization(i) / 100 for i in range(n_gpus))
            if ended.wait(SECONDS_BETWEEN_LOOKS):
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield busy
    finally:
        ended.set()
        watcher.join()


def digest_of(run: Path) -> str:
    """Hash the bytes of all scores and token log-probabilities."""
    files = sorted(file for name in ("scores", "tokens") for file in (run / name).glob("*.parquet"))
    lines = [f"{file.relative_to(run)} {sha256_of_file(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def line(row: Row) -> str:
    """Tell a row in a line."""
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in row["shares"].items()) or "no stages told"
    busy = "" if row["gpu_busy"] is None else f", GPU busy {row['gpu_busy']:.0%}"
    same = {None: "", True: ", the same bytes", False: ", OTHER BYTES"}[row["same_bytes"]]
    failed = f", {row['n_failed']} FAILED" if row["n_failed"] else ""
    return (
        f"{row['model']:12} {row['way']:13} {row['n_texts']:6,} texts {row['seconds']:8.1f} s "
        f"{row['tokens_per_s']:10,.0f} tokens/s{busy} ({shares}){same}{failed}"
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--device", type=click.Choice(list(PROCESSORS)), default=default_device(), show_default=True)
@click.option("--processors", type=int, multiple=True, default=(1,), help="How many GPUs, or CPU processes.")
@click.option("--n-models", type=int, multiple=True, help="The first so many; all by default.")
@click.option("--n-texts", type=int, multiple=True, default=(10_000,), show_default=True)
@click.option("--model", "names", multiple=True, help="SHAPE or SHAPE:SEED; a mixed queue of 20 by default.")
@click.option("--without", type=click.Choice(list(SHAPES)), multiple=True, help="Leave a shape out.")
@click.option("--option", "options", multiple=True, help="A further option of `lmmap score`, --name=value.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file to put the rows into.")
def main(
    folder: Path, device: str, processors: tuple[int, ...], n_models: tuple[int, ...],
    n_texts: tuple[int, ...], names: tuple[str, ...], without: tuple[str, ...], options: tuple[str, ...],
    output: Path | None,
) -> None:  # fmt: skip
    """Time `lmmap score` for every combination of the numbers given."""
    chosen = [model for model in parse_models(names or QUEUE) if model.shape not in without]
    chosen = chosen[: max(n_models, default=None)]
    common: dict[str, Any] = circumstances("benchmarks.queue", device)
    try:
        get_texts(folder, max(n_texts))
        models = [(model.name, path) for model, path in get_models(folder, chosen, device)]
    except InputError as error:
        raise click.ClickException(str(error)) from error
    bench = Bench(folder, models, device, options)
    for count, k, n in product(processors, n_models or [len(models)], n_texts):
        row = bench.measure(count, k, n) | common
        click.echo(line(row))
        if output:
            keep_row(output, row, IDENTITY)


if __name__ == "__main__":
    main()
