"""The microscope: all that is known of one pair of models, and the texts and tokens where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmmap.error_bars.uncertainty import kl_intervals
from lmmap.errors import InputError, closest
from lmmap.estimates import ESTIMATORS, estimate_kl_by
from lmmap.geometry import estimate_kl, split_variance
from lmmap.loglik import LogLikelihoods
from lmmap.segments import Segments, segments_of_totals

if TYPE_CHECKING:
    from lmmap.exact_kl import Enumerated, ExactKL

TEXT_LEVEL = ("text_level", "text_regressed", "text_per_byte")
FIRST_CHARACTERS = 60  # of a text, to know it by


@dataclass(frozen=True, eq=False, repr=False)
class Pair:
    """Two models under the microscope.

    Parameters
    ----------
    models : (str, str)
        Names.
    quantities : DataFrame
        Index: what was measured; columns ``value`` and ``se`` in nats per text, ``of`` (corpus texts,
        samples, all sequences), ``kind`` (estimate or exact) and ``meaning``.
    variance : dict
        What part of the corpus variance of the difference the texts' length explains, what their source,
        and what is left: ``length``, ``source``, ``rest``, nats squared.
    texts : DataFrame
        Index ``text_id``, the widest apart first: ``source``, ``n_bytes``, ``difference`` (log-likelihood of
        the first model less that of the second, nats), ``share`` (of the text-level distance) and ``begins``.
    tokens : DataFrame
        The widest apart first: ``text_id``, ``start`` and ``end`` in bytes, ``piece``, ``difference`` (nats).
        Empty without token records.
    differences : DataFrame
        For all texts: ``n_bytes``, ``source`` and ``difference``.
    """

    models: tuple[str, str]
    quantities: pd.DataFrame
    variance: dict[str, float]
    texts: pd.DataFrame
    tokens: pd.DataFrame
    differences: pd.DataFrame

    def __repr__(self) -> str:
        total = sum(self.variance.values())
        shares = ", ".join(f"{name} {part / total:.0%}" for name, part in self.variance.items() if total)
        lines = [f"{self.models[0]} and {self.models[1]}, half-Jeffreys and its estimates in nats per text:"]
        lines += [
            f"  {name:24} {row['value']:10.4g}" + (f" ± {row['se']:.2g}" if np.isfinite(row["se"]) else "")
            for name, row in self.quantities.iterrows()
        ]
        return "\n".join([*lines, f"  variance over texts: {shares or 'none'}"])


def look_at_pair(
    scores: LogLikelihoods,
    first: str,
    second: str,
    *,
    texts: Sequence[str] | None = None,
    segments: Segments | None = None,
    on_texts: ExactKL | None = None,
    on_samples: Sequence[ExactKL] = (),
    enumerated: Enumerated | None = None,
    n_shown: int = 10,
) -> Pair:
    """Put a pair of models under the microscope.

    Parameters
    ----------
    scores : LogLikelihoods
        Scores of N texts; ``texts`` needs ``n_bytes`` and ``source``.
    first, second : str
        Names or row ids.
    texts : sequence of N str, optional
        The texts, to quote from: `Store.texts.texts`.
    segments : Segments, optional
        `lmmap.token_records.read_segments` of these two models, in this order.
    on_texts : ExactKL, optional
        `lmmap.exact_kl.exact_kl_on_texts` of models among which these two are.
    on_samples : sequence of ExactKL, optional
        `lmmap.exact_kl.exact_kl_on_samples`, one for each model as source.
    enumerated : Enumerated, optional
        `lmmap.exact_kl.enumerate_sequences` of models among which these two are.
    n_shown : int
        How many texts, and how many tokens.

    Returns
    -------
    Pair
        What could be measured.

    Raises
    ------
    InputError
        If a model is unknown, both are the same, or ``segments`` are of others.

    Examples
    --------
    >>> about = pd.DataFrame({"n_bytes": [4, 9, 9], "source": "web"}, index=["a", "b", "c"])
    >>> L = np.array([[-1.0, -3.0, -4.0], [-2.0, -2.0, -2.0]])
    >>> scores = LogLikelihoods(L, pd.DataFrame(index=["one", "two"]), about)
    >>> pair = look_at_pair(scores, "one", "two", n_shown=1)
    >>> float(pair.quantities.loc["text_level", "value"].round(4)), pair.texts["difference"].to_dict()
    (0.7778, {'a': 1.0})
    """
    names = list(scores.models.get("model", pd.Series(scores.models.index, scores.models.index)))
    i, j = (_position(scores, names, model) for model in (first, second))
    if i == j:
        raise InputError(f"{first!r} and {second!r} are one model; choose two")
    L, about = scores.values[[i, j]], scores.texts
    if texts is not None and len(texts) != len(about):
        raise InputError(f"{len(texts)} texts are given, the scores are of {len(about)}")
    if segments is None:
        segments = segments_of_totals(L, about["n_bytes"].to_numpy(), models=(names[i], names[j]))
    _check_segments(segments, L)
    found = [*_estimates(L, segments), *_exact(names[i], names[j], on_texts, on_samples, enumerated)]
    quantities = pd.DataFrame(found, columns=["quantity", "value", "se", "of", "kind", "meaning"])
    difference = L[0] - L[1]
    n_bytes, source = about["n_bytes"].to_numpy(), about["source"]
    frame = pd.DataFrame({"n_bytes": n_bytes, "source": source, "difference": difference}, index=about.index)
    return Pair(
        (names[i], names[j]),
        quantities.set_index("quantity"),
        dict(split_variance(difference, n_bytes, source.to_numpy(dtype=str))),
        _texts(frame, texts, n_shown),
        _tokens(segments, about.index, texts, n_shown),
        frame,
    )


def _position(scores: LogLikelihoods, names: Sequence[str], model: str) -> int:
    for known in (list(scores.models.index), list(names)):
        if known.count(model) == 1:
            return known.index(model)
    raise InputError(
        f"{model!r} is not one of the {len(names)} models here{closest(model, names)}; "
        "give a name, or a row id where names repeat"
    )


def _check_segments(segments: Segments, L: np.ndarray) -> None:
    if segments.totals.shape != L.shape or not np.allclose(segments.totals, L):
        raise InputError(
            f"the segments are of {', '.join(segments.models)} and do not have these two models' scores; "
            "read_segments(store, models=[first, second])"
        )


def _estimates(L: np.ndarray, segments: Segments) -> list[tuple[object, ...]]:
    """Estimate by all that the scores allow; the text level has an error bar."""
    interval = kl_intervals(L)
    rows: list[tuple[object, ...]] = []
    for name, meaning in ESTIMATORS.items():
        if segments.unit == "text" and name not in TEXT_LEVEL:
            continue
        if segments.unit == "segment" and name.startswith("token_"):
            continue
        if segments.unit == "token" and name.startswith("segment_"):
            continue  # the same as the token level
        se = interval.standard_error[0, 1] if name == "text_level" else np.nan
        value = float(estimate_kl_by(name, segments)[0, 1])
        rows.append((name, value, float(se), "corpus texts", "estimate", meaning))
    return rows


def _exact(
    first: str,
    second: str,
    on_texts: ExactKL | None,
    on_samples: Sequence[ExactKL],
    enumerated: Enumerated | None,
) -> list[tuple[object, ...]]:
    """Take what is exact, and on samples the text-level estimate beside it."""
    rows: list[tuple[object, ...]] = []
    if on_texts is not None:
        pair = _places(on_texts.models, first, second)
        value, se = (float(part[pair]) for part in on_texts.half_jeffreys)
        meaning = "Half-Jeffreys along these texts: the sum over the vocabulary at every token."
        rows.append(("exact on texts", value, se, "corpus texts", "exact", meaning))
    if on_samples:
        from lmmap.exact_kl import half_jeffreys_of_sequences

        pair = _places(on_samples[0].models, first, second)
        value, se = (float(part[pair]) for part in half_jeffreys_of_sequences(*on_samples))
        meaning = "Half-Jeffreys between distributions over sequences, by the chain rule."
        rows.append(("exact on samples", value, se, "samples", "exact", meaning))
        own = [estimate_kl(one.log_likelihoods)[pair] for one in on_samples if one.source in pair]
        meaning = "Half the variance over samples, the mean of both models'."
        rows.append(("text_level on samples", float(np.mean(own)), np.nan, "samples", "estimate", meaning))
    if enumerated is not None:
        pair = _places(enumerated.models, first, second)
        meaning = "Half-Jeffreys over every sequence: the integral of variances along the path between them."
        value = float(enumerated.half_jeffreys[pair])
        rows.append(("exact by enumeration", value, 0.0, "all sequences", "exact", meaning))
    return rows


def _places(models: Sequence[str], first: str, second: str) -> tuple[int, int]:
    missing = [name for name in (first, second) if name not in models]
    if missing:
        raise InputError(f"{missing[0]!r} is not among the models measured exactly: {', '.join(models)}")
    return list(models).index(first), list(models).index(second)


def _texts(frame: pd.DataFrame, texts: Sequence[str] | None, n_shown: int) -> pd.DataFrame:
    """Find the texts that carry most of the distance."""
    squares = (frame["difference"] - frame["difference"].mean()) ** 2
    total = squares.sum()
    table = frame.assign(share=squares / total if total else 0.0)
    order = np.argsort(-squares.to_numpy(), kind="stable")[:n_shown]
    begins = ["" if texts is None else texts[x][:FIRST_CHARACTERS] for x in order]
    return table.iloc[order][["source", "n_bytes", "difference", "share"]].assign(begins=begins)


def _tokens(
    segments: Segments, text_ids: pd.Index, texts: Sequence[str] | None, n_shown: int
) -> pd.DataFrame:
    """Find the pieces at which the models part most."""
    columns = ["text_id", "start", "end", "piece", "difference"]
    if segments.end_byte is None or texts is None:
        return pd.DataFrame(columns=columns)
    difference = np.concatenate([block[0] - block[1] for block, _ in segments.blocks()])
    end, text = segments.end_byte, segments.text_of_segment
    start = np.where(np.diff(text, prepend=-1) > 0, 0, np.roll(end, 1))
    if segments.chosen is not None:
        start, end, text = (values[segments.chosen] for values in (start, end, text))
    rows = []
    for s in np.argsort(-np.abs(difference), kind="stable")[:n_shown]:
        piece = texts[text[s]].encode()[start[s] : end[s]].decode(errors="replace")
        rows.append((text_ids[text[s]], int(start[s]), int(end[s]), piece, float(difference[s])))
    return pd.DataFrame(rows, columns=columns)
