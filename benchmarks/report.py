"""Report: the tables of speed in benchmarks/README.md and README.md, made from benchmarks/results/*.json.

Run from the root of the repository::

    python -m benchmarks.report

Rows of `benchmarks.speed` are in files called speed*.json, those of `benchmarks.queue` in queue*.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from benchmarks.results import FOLDER, Row, read_rows
from lmmap.files import whole_file

README = FOLDER.parent / "README.md"
FRONT = FOLDER.parent.parent / "README.md"
LM_EVAL = "lm-eval"
MISSING = "–"


def speed_table(rows: Sequence[Row]) -> str:
    """Write what `benchmarks.speed` measured, the models of a device in the order of their size."""
    columns: dict[str, Callable[[Row], str]] = {
        "model": lambda r: r["model"],
        "way": lambda r: r["way"],
        "tokens/s": lambda r: f"{r['tokens_per_s']:,.0f}",
        "MFU": lambda r: _percent(r["mfu"]),
        "without embedding": lambda r: _percent(r["mfu_without_embedding"]),
        "× published": lambda r: _number(r["ratio_to_reference"]),
        "× best lm-eval": lambda r: _number(_over_lm_eval(r, rows)),
        "peak GiB": lambda r: _number(r["peak_gib"]),
        "padding": lambda r: _percent(r["padding"]),
        "sd to lean, nats": lambda r: _number(r["sd_to_lean"]),
        "texts": lambda r: f"{r['n_texts']:,}",
    }
    return _by_device(sorted(rows, key=lambda r: r["n_parameters"]), columns, _matrix_rates)


def queue_table(rows: Sequence[Row]) -> str:
    """Write what `benchmarks.queue` measured."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["shares"]))
    columns: dict[str, Callable[[Row], str]] = {
        "models": lambda r: str(r["n_models"]) + (f", {r['n_failed']} failed" if r["n_failed"] else ""),
        "texts": lambda r: f"{r['n_texts']:,}",
        "on": lambda r: r["way"],
        "seconds": lambda r: f"{r['seconds']:,.1f}",
        "tokens/s": lambda r: f"{r['tokens_per_s']:,.0f}",
        "× one": lambda r: _number(_over_one(r, rows)),
        "GPU busy": lambda r: _percent(r["gpu_busy"]),
        **{stage: (lambda r, stage=stage: _percent(r["shares"].get(stage))) for stage in stages},
        "same bytes": lambda r: {None: MISSING, True: "yes", False: "NO"}[r["same_bytes"]],
    }
    ordered = sorted(rows, key=lambda r: (r["n_models"], r["n_texts"], r["processors"]))
    return _by_device(ordered, columns, lambda _: "")


def summary(rows: Sequence[Row]) -> str:
    """Write in short what `benchmarks.speed` measured of lmmap."""
    lines = [
        "| random weights in the shape of | tokens/s | × published procedure "
        "| × lm-evaluation-harness at its best batch | tokens/s once texts are cut | MFU of that |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    whole = [row for row in rows if row["way"] == "lmmap"]
    for row in sorted(whole, key=lambda r: r["n_parameters"]):
        cut = next(r for r in rows if r["way"] == "lmmap, tokens at hand" and _same(r, row, "model", "date"))
        ratios = f"{_number(row['ratio_to_reference'])} | {_number(_over_lm_eval(row, rows))}"
        once_cut = f"{cut['tokens_per_s']:,.0f} | {_percent(cut['mfu'])}"
        lines.append(f"| {row['model']} | {row['tokens_per_s']:,.0f} | {ratios} | {once_cut} |")
    devices = ", ".join(sorted({row["device"] for row in whole}))
    return "\n".join([*lines, "", f"On one {devices}; all of one model in one run."]) + "\n"


PAGES = {README: {"speed": speed_table, "queue": queue_table}, FRONT: {"speed": summary}}


def fill(page: Path, folder: Path = FOLDER) -> str:
    """Put a page's tables between their marks."""
    readme = page.read_text(encoding="utf-8")
    for name, table in PAGES[page].items():
        rows = [row for file in sorted(folder.glob(f"{name}*.json")) for row in read_rows(file)]
        made = table(rows) if rows else "Nothing is measured yet.\n"
        begin, end = f"<!-- {name}: made by `python -m benchmarks.report` -->", f"<!-- end of {name} -->"
        if begin not in readme or end not in readme:
            raise click.ClickException(f"{page.name} lacks the marks {begin} and {end}")
        pattern = rf"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})"
        readme = re.sub(pattern, lambda _, made=made: f"\n{made}\n", readme, flags=re.DOTALL)
    return readme


def _by_device(
    rows: Sequence[Row], columns: dict[str, Callable[[Row], str]], note: Callable[[Sequence[Row]], str]
) -> str:
    """Write a table for each device, under it how its rows were made."""
    parts = []
    for device in dict.fromkeys(row["device"] for row in rows):
        own = [row for row in rows if row["device"] == device]
        lines = [f"**{device}**", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
        lines += [f"| {' | '.join(cell(row) for cell in columns.values())} |" for row in own]
        parts.append("\n".join([*lines, "", _provenance(own) + note(own)]))
    return "\n\n".join(parts) + "\n"


def _provenance(rows: Sequence[Row]) -> str:
    """Tell versions, days and commands."""
    versions = dict.fromkeys(", ".join(f"{k} {v}" for k, v in row["versions"].items()) for row in rows)
    commands = dict.fromkeys(f"`{row['command']}` ({row['date'][:10]})" for row in rows)
    return f"With {'; '.join(versions)}. Made by {', '.join(commands)}."


def _matrix_rates(rows: Sequence[Row]) -> str:
    """Tell the rate that MFU refers to."""
    rates = sorted({row["matrix_tflops"] for row in rows})
    shown = f"{rates[0]:,.4g}" + (f" to {rates[-1]:,.4g}" if len(rates) > 1 else "")
    return f" A large matrix product, measured in the same runs, ran at {shown} TFLOP/s."


def _over_lm_eval(row: Row, rows: Sequence[Row]) -> float | None:
    """Compare with lm-eval's best batch size for this model in the same run."""
    paces = [
        r["tokens_per_s"] for r in rows if r["way"].startswith(LM_EVAL) and _same(r, row, "model", "date")
    ]
    return row["tokens_per_s"] / max(paces) if paces else None


def _over_one(row: Row, rows: Sequence[Row]) -> float | None:
    """Compare with one processor over the same queue and texts on the same day."""
    seconds = [
        r["seconds"]
        for r in rows
        if r["processors"] == 1
        and _same(r, row, "device", "model", "n_texts")
        and r["date"][:10] == row["date"][:10]
    ]
    return seconds[0] / row["seconds"] if seconds else None


def _same(one: Row, other: Row, *keys: str) -> bool:
    return all(one[key] == other[key] for key in keys)


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{share:.1%}"


@click.command()
def main() -> None:
    """Write the tables of speed into benchmarks/README.md and README.md."""
    for page in PAGES:
        made = fill(page)
        with whole_file(page) as temporary:
            temporary.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
