"""Tables of estimators against exact half-Jeffreys: chosen on one half, reported on the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr

from benchmarks.results import FOLDER, Row
from lmmap.estimates import RECOMMENDED, RECOMMENDED_ACROSS
from lmmap.files import whole_file

Numbers = Mapping[str, float]
Candidate = Callable[[Numbers], float]

RESULTS = FOLDER / "estimators.json"
FIELDS = ("set", "on", "models", "part", "n_texts", "exact", "exact_se", "estimates", "ratio_errors")
NEAR = 100  # nats per text: pairs below it are the near ones
TOKEN_LEVELS = ("token_centered", "mixture", "midpoint", "ensemble")
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)
ON = {
    "corpus": "Corpus texts, one tokenizer",
    "samples": "Texts that the two models write, one tokenizer",
    "strings": "Texts that the two models write, different tokenizers (segments for tokens)",
}
UNTUNED = (
    "text_level", "text_regressed", "text_per_byte", "token_level", "token_centered", "mixture", "midpoint",
    "ensemble",
)  # fmt: skip


def read_results() -> tuple[list[Row], dict[str, Row]]:
    """Read the rows, and how each set of models was measured."""
    if not RESULTS.exists():
        return [], {}
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = [dict(zip(kept["fields"], row, strict=True)) for row in kept["rows"]]
    for row in rows:
        for field in ("estimates", "ratio_errors"):
            row[field] = dict(
                zip(kept[field], row[field], strict=False)
            )  # conditional, the last, if it is there
    return rows, kept["runs"]


def keep(rows: list[Row], made: Row) -> None:
    """Put the rows of a set on one kind of texts in the place of its old ones, a row a line."""
    old, runs = read_results()
    name = run_of(rows[0])
    rows = [*(row for row in old if run_of(row) != name), *rows]
    names = {field: max((list(row[field]) for row in rows), key=len) for field in FIELDS[-2:]}
    plain = [
        [*(row[field] for field in FIELDS[:-2]), *(list(row[f].values()) for f in names)] for row in rows
    ]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in plain)
    head = json.dumps({"fields": FIELDS, **names, "runs": runs | {name: made}}, indent=1)
    with whole_file(RESULTS) as temporary:
        temporary.write_text(f'{head[:-2]},\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")


def run_of(row: Row) -> str:
    """Name what was measured together."""
    return f"{row['set']}, {row['on']}"


def candidates(rows: Sequence[Row]) -> dict[str, Candidate]:
    """Everything that could be recommended, from the numbers of a row."""
    found: dict[str, Candidate] = {name: _of(name) for name in UNTUNED}
    found |= {name: _of(name) for name in rows[0]["estimates"] if name.startswith("clipped")}
    found["geometric mean"] = lambda e: float(np.sqrt(e["token_centered"] * e["mixture"]))
    found["harmonic mean"] = lambda e: 2 / (1 / e["token_centered"] + 1 / e["mixture"])
    found |= {f"mean, {1 - s:.0%} mixture": _blend(s) for s in SHARES if s != 0.5}
    return found


def ratios(rows: Sequence[Row], candidate: Candidate) -> np.ndarray:
    """Estimate over exact value of each row."""
    return np.array([candidate(row["estimates"]) / row["exact"] for row in rows])


def loss(rows: Sequence[Row], candidate: Candidate) -> float:
    """Give the mean absolute logarithm of the ratio, sets of models counting alike."""
    return float(np.mean([np.abs(np.log(ratios(some, candidate))).mean() for some in _by_set(rows).values()]))


def best(rows: Sequence[Row], names: Sequence[str] | None = None) -> str:
    """Find the candidate of least loss."""
    known = candidates(rows)
    return min(names or known, key=lambda name: loss(rows, known[name]))


def report(rows: list[Row], runs: Mapping[str, Row]) -> str:
    """Write the whole page."""
    if not rows:
        return "No results yet: give --models.\n"
    parts = [
        "# Estimators against exact half-Jeffreys\n",
        "Estimates come from the log-probabilities of the tokens that are there, the exact value from the "
        "whole vocabulary at every token (across tokenizers: from the log-likelihoods of sampled texts). A "
        "ratio is estimate over exact. Pairs and texts are halved at random: what is tuned or chosen is so "
        "on the one half of both, and all numbers but those of the last table are of the other. Models are "
        "not halved: those of a pair held out are seen in other pairs. "
        "`conditional` needs the vocabulary too, and is there for comparison.\n",
        *_runs(rows, runs),
        which_distance(rows),
    ]
    for on, title in ON.items():
        some = [row for row in rows if row["on"] == on]
        if some:
            parts += [f"## {title}\n", *_section(some)]
    parts += ["## One model and altered copies of it\n", *_copies(rows)]
    return "\n".join(parts)


def which_distance(rows: Sequence[Row]) -> str:
    """Write a paragraph for users, from the numbers of the reporting halves."""
    corpus, samples, strings = (
        [row for row in rows if row["on"] == on and row["part"] == "report"] for on in ON
    )
    sentences = []
    if corpus:
        sentences.append(
            f"For models of one tokenizer on corpus texts take `{RECOMMENDED}`: over {len(corpus)} pairs "
            f"held out, {_spoken(corpus, RECOMMENDED)}; `token_centered` has a median of "
            f"{_median(corpus, 'token_centered'):.2f}, `mixture` of {_median(corpus, 'mixture'):.2f}, and "
            f"`text_level`, the published one, of {_median(corpus, 'text_level'):.1f}: keep that for "
            "comparing with published maps."
        )
    if near := [row for row in corpus if row["exact"] < NEAR]:
        told = ", ".join(
            f"{_median(near, name):.2f} and {_share(near, name):.0%} for `{name}`" for name in TOKEN_LEVELS
        )
        sentences.append(
            f"The {len(near)} of them below {NEAR} nats per text have medians and shares within 20% of "
            f"{told}: for near pairs in a set of many different models ask `ensemble`, too."
        )
    if samples:
        sentences.append(
            "On texts that the models themselves wrote take `mixture`, by theory close to exact there: "
            f"{_spoken(samples, 'mixture')}."
        )
    if strings:
        sentences.append(
            f"Across tokenizers take `{RECOMMENDED_ACROSS}` on the common segments: on texts that the two "
            f"models wrote {_spoken(strings, RECOMMENDED_ACROSS, within=0.35)}, while `{RECOMMENDED}` has a "
            f"median of {_median(strings, RECOMMENDED):.2f}; on corpus texts there is no exact value to hold "
            "it against."
        )
    sentences.append(
        "All but `ensemble` are squared Euclidean distances, for maps as for neighbours and clusters."
    )
    return "## Which distance to use when\n\n" + " ".join(sentences) + "\n"


def _section(rows: Sequence[Row]) -> list[str]:
    halves = {part: [row for row in rows if row["part"] == part] for part in ("choose", "report")}
    if not halves["choose"] or not halves["report"]:
        return ["Too few pairs to choose on one half and report on the other.\n"]
    known = candidates(rows)
    tuned = {
        "clipped": [name for name in known if name.startswith("clipped")],
        "mean of token_centered and mixture": ["midpoint", *(n for n in known if n.startswith("mean,"))],
    }
    picked = [f"{kind}: {best(halves['choose'], names)}" for kind, names in tuned.items()]
    tuned_names = {best(halves["choose"], names) for names in tuned.values()}
    shown = [*UNTUNED, "geometric mean", "harmonic mean", *sorted(tuned_names - set(UNTUNED))]
    chosen = best(halves["choose"])
    losses = ", ".join(f"`{name}` {loss(halves['choose'], known[name]):.3f}" for name in TOKEN_LEVELS)
    if "conditional" in rows[0]["estimates"]:
        known["conditional"] = _of("conditional")
        shown.append("conditional")
    lines = [
        f"The choosing half takes, of all, `{chosen}`, with a mean absolute logarithm of the ratio of "
        f"{loss(halves['choose'], known[chosen]):.3f} ({losses}); of the tuned, {'; '.join(picked)}. "
        f"The median standard error of an exact value is {_error(halves['report']):.1%}.\n"
    ]
    for name, some in _by_set(halves["report"]).items():
        lines += [f"{name}: {len(some)} pairs held out, {_span(some)}.\n", *_header()]
        lines += [_row(kind, _summary(some, known[kind])) for kind in shown]
        lines.append("")
    return lines


def _summary(rows: Sequence[Row], candidate: Candidate) -> list[str]:
    ratio, exact = ratios(rows, candidate), np.array([row["exact"] for row in rows])
    near = exact < NEAR
    cells = [f"{np.median(ratio):.3f}"]
    cells += [f"{np.median(ratio[of]):.3f}" if of.any() else "" for of in (near, ~near)]
    cells += [
        f"{np.mean(np.abs(ratio[of] - 1) < 0.2):.0%}" if of.any() else "" for of in (near | ~near, near)
    ]
    cells.append(f"{ratio.min():.2f} - {ratio.max():.2f}")
    rank = spearmanr(exact, ratio * exact)[0] if len(rows) > 2 else np.nan
    return [*cells, "" if np.isnan(rank) else f"{rank:.3f}"]


def _header() -> list[str]:
    near = f"below {NEAR} nats"
    columns = ["median", near, "above", "within 20 %", f"{near}, within 20 %", "range", "Spearman"]
    return [_row("estimate / exact", columns), _row("---", ["---"] * len(columns))]


def _copies(rows: Sequence[Row]) -> list[str]:
    """Each pair of a model with a copy: exact value and the ratios with their errors."""
    shown = ["text_level", "text_regressed", "token_level", *TOKEN_LEVELS]
    lines = [
        "± is one standard error: of an exact value over texts, of a ratio by leaving out blocks of texts.\n",
        _row("copy", ["texts", "exact, nats per text", *shown]),
        _row("---", ["---"] * (2 + len(shown))),
    ]
    for row in rows:
        one, other = row["models"]
        if not other.startswith(f"{row['set']}-") or one != row["set"]:
            continue
        cells = [row["on"], f"{row['exact']:.3g} ± {row['exact_se']:.1g}"]
        for name in shown:
            ratio = row["estimates"][name] / row["exact"]
            cells.append(f"{ratio:.2f} ± {ratio * row['ratio_errors'][name]:.2f}")
        lines.append(_row(other.removeprefix(f"{one}-"), cells))
    return [*lines, ""] if len(lines) > 3 else ["No such pairs yet: give --altered.\n"]


def _runs(rows: Sequence[Row], runs: Mapping[str, Row]) -> list[str]:
    lines = [
        f"- {name}: {sum(run_of(row) == name for row in rows)} rows on {run['device']} in "
        f"{run['seconds']:.0f} s: `{run['command']}`"
        for name, run in runs.items()
    ]
    return [*lines, ""]


def _spoken(rows: Sequence[Row], name: str, within: float = 0.2) -> str:
    ratio = ratios(rows, _of(name))
    rank = spearmanr([row["exact"] for row in rows], [row["estimates"][name] for row in rows])[0]
    return (
        f"the estimate over the exact value has a median of {np.median(ratio):.2f}, lies within "
        f"{within:.0%} of 1 for {np.mean(np.abs(ratio - 1) < within):.0%} of the pairs and between "
        f"{ratio.min():.2f} and {ratio.max():.2f} for all, with a rank correlation of {rank:.2f}"
    )


def _median(rows: Sequence[Row], name: str) -> float:
    return float(np.median(ratios(rows, _of(name))))


def _share(rows: Sequence[Row], name: str) -> float:
    return float(np.mean(np.abs(ratios(rows, _of(name)) - 1) < 0.2))


def _error(rows: Sequence[Row]) -> float:
    return float(np.median([row["exact_se"] / row["exact"] for row in rows]))


def _span(rows: Sequence[Row]) -> str:
    exact = [row["exact"] for row in rows]
    return f"{min(exact):.3g} to {max(exact):.3g} nats per text"


def _by_set(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {
        name: [row for row in rows if row["set"] == name] for name in dict.fromkeys(r["set"] for r in rows)
    }


def _of(name: str) -> Candidate:
    return lambda numbers: numbers[name]


def _blend(share: float) -> Candidate:
    return lambda e: share * e["token_centered"] + (1 - share) * e["mixture"]


def _row(first: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"
