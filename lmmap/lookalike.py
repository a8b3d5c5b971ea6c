"""Look-alikes: synthetic score sets of any size, shaped like real ones, whose structure is known.

Nothing here was measured. Scores are drawn from the model that `make_lookalike` states, so that what is found
in them can be held against what was put in, and tools can be tried at the size of the published maps.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmap.errors import InputError
from lmmap.geometry import double_center, height
from lmmap.loglik import LogLikelihoods

Array = np.ndarray

SOURCES = (
    "web", "code", "papers", "books", "encyclopedia", "questions", "law", "patents", "medicine",
    "mathematics", "subtitles", "mail", "news", "chat", "grants", "manuals", "parliament",
)  # fmt: skip
SIZES = {"70m": 7e7, "410m": 4.1e8, "1b": 1e9, "3b": 3e9, "7b": 7e9, "13b": 1.3e10, "70b": 7e10}
LONGEST = 1024  # bytes; most texts are as long
CLIP = -1412.0  # nats, as the published maps
FACTORS = 8  # directions in which models differ
TAILS = 5  # degrees of freedom of Student's t: how heavy the tails over texts are
GAIN = 0.04  # nats per byte that ten times the parameters are worth
HOME_GAIN = 0.08  # nats per byte that a family with a home gains there
# Spread in nats per root of a byte: of families, of models within one, and of each score by itself.
FAMILY, OWN, NOISE = 0.6, 0.1, 0.05
TASKS = 6
# Spread of benchmark scores, of 100: by height, by each task's own direction, and of each score by itself.
BY_HEIGHT, BY_DIRECTION, BY_ITSELF = 14.0, 6.0, 3.0
ROUNDING = 1e-12  # of the largest log-likelihood: what is less is no difference
LEAKED = 20.0  # by how much the scores of a model with a planted leak are too low for its height


def make_lookalike(
    n_models: int = 1018,
    n_texts: int = 10_000,
    *,
    n_families: int = 24,
    n_sources: int = 17,
    clip: bool = False,
    seed: int = 0,
) -> LogLikelihoods:
    """Draw a synthetic score set.

    Parameters
    ----------
    n_models, n_texts : int
        K and N.
    n_families : int
        Of unequal size; each has a model. Every fourth has a home among the sources.
    n_sources : int
        Domains of texts, of unequal size; each has a text. At most 17.
    clip : bool
        Raise what lies below -1412 nats, as the published maps do; the history says so.
    seed : int
        The same seed and sizes give the same set.

    Returns
    -------
    LogLikelihoods
        Models with ``model``, ``family``, ``n_parameters``, ``created`` and ``home`` (a source, or empty);
        texts with ``source`` and ``n_bytes``. All ids begin with "synthetic". No value is above 0.

    Raises
    ------
    InputError
        If there are fewer models than families, fewer texts than sources, or sources without a name.

    Notes
    -----
    With b bytes, a text x of source d, and a model i of family f and P parameters,

    ``l = b (GAIN log10(P / 1e9) + HOME_GAIN [d is f's home] - r) + sqrt(b) s (a . u + NOISE e)``

    where r is what a byte of the text costs any model, ``a = FAMILY c_f + OWN c_i`` the model's place, u the
    text's direction, of length 1 on average and half of it its source's, c and e standard normal, and s makes
    the tails over texts those of Student's t. So models of a family lie together, larger ones are more likely
    on the whole, and families with a home stand apart on its texts.

    Examples
    --------
    >>> scores = make_lookalike(6, 40, n_families=2, n_sources=3)
    >>> scores.values.shape, bool((scores.values < 0).all())
    ((6, 40), True)
    >>> sorted(scores.models["family"].unique()), sorted(scores.texts["source"].unique())
    (['family-01', 'family-02'], ['code', 'papers', 'web'])
    """
    if not 1 <= n_families <= n_models:
        raise InputError(f"{n_models} models make between 1 and {n_models} families, not {n_families}")
    if not 1 <= n_sources <= min(n_texts, len(SOURCES)):
        raise InputError(
            f"{n_texts} texts have between 1 and {min(n_texts, len(SOURCES))} sources, not {n_sources}"
        )
    rng = np.random.default_rng(seed)
    models, texts = _models(rng, n_models, n_families, n_sources), _texts(rng, n_texts, n_sources)
    sizes = f"{n_models}, {n_texts}, n_families={n_families}, n_sources={n_sources}"
    history = (f"synthetic: make_lookalike({sizes}, seed={seed})",)
    scores = LogLikelihoods(_values(rng, models, texts), models, texts, history)
    return scores.clip_below(threshold=CLIP) if clip else scores


def make_benchmarks(scores: LogLikelihoods, seed: int = 0) -> pd.DataFrame:
    """Draw synthetic benchmark scores that the rows of a score set can predict.

    Parameters
    ----------
    scores : LogLikelihoods
        K models x N texts, at least 4 models.
    seed : int
        The same seed and scores give the same benchmarks.

    Returns
    -------
    DataFrame
        K rows, index ``row_id``; ``score_1`` to ``score_6`` and ``score_mean`` of these, in [0, 100], all NaN
        for 18 of 1,018 models; ``planted_leak``, whether the model's scores were made too low for its mean
        log-likelihood: one in a hundred, at least one, among those that are more likely than the median.

    Raises
    ------
    InputError
        If there are fewer than 4 models, or all are alike.

    Notes
    -----
    A score is ``50 + 14 z(height) + 6 z(Q) . c_t + 3 e``, less 20 for a planted leak, where z(height) is the
    standardised mean log-likelihood, z(Q) the model's place on the first 8 standardised principal axes of
    the double-centred matrix, c_t a direction of length 1 for each task and e standard normal; then clipped.

    Examples
    --------
    >>> benchmarks = make_benchmarks(make_lookalike(100, 40, n_families=2, n_sources=3))
    >>> int(benchmarks["score_mean"].isna().sum()), int(benchmarks["planted_leak"].sum())
    (2, 1)
    """
    n_models = len(scores.models)
    if n_models < 4:
        raise InputError(f"benchmarks are drawn for at least 4 models, not {n_models}")
    rng = np.random.default_rng([seed, TASKS])
    Q, h = double_center(scores.values), height(scores.values)
    if not min(np.abs(Q).max(), np.ptp(h)) > ROUNDING * np.abs(scores.values).max():
        raise InputError("all models are alike on these texts: benchmarks cannot follow them")
    axes = np.linalg.eigh(Q @ Q.T)[1][:, ::-1][:, : min(FACTORS, n_models - 1)] * np.sqrt(n_models)
    directions = rng.standard_normal((axes.shape[1], TASKS))
    directions /= np.linalg.norm(directions, axis=0)
    values = 50 + BY_HEIGHT * ((h - h.mean()) / h.std())[:, None] + BY_DIRECTION * (axes @ directions)
    values += BY_ITSELF * rng.standard_normal(values.shape)
    missing = rng.permutation(n_models)[: round(n_models * 18 / 1018)]
    likely = np.setdiff1d(np.flatnonzero(h > np.median(h)), missing)
    leaks = rng.permutation(likely)[: max(1, n_models // 100)]
    values[leaks] -= LEAKED
    np.clip(values, 0, 100, out=values)
    values[missing] = np.nan
    table = pd.DataFrame(values, scores.models.index, [f"score_{t + 1}" for t in range(TASKS)])
    return table.assign(score_mean=values.mean(axis=1), planted_leak=np.isin(np.arange(n_models), leaks))


def _models(rng: np.random.Generator, n_models: int, n_families: int, n_sources: int) -> pd.DataFrame:
    family = _unequal(rng, n_models, n_families)
    home = np.full(n_families, "", dtype=object)
    home[3::4] = [SOURCES[rng.integers(n_sources)] for _ in home[3::4]]
    size = rng.choice(list(SIZES), n_models)
    first = np.datetime64("2020-01-01") + rng.integers(0, 2000, n_families)
    created = first[family] + rng.integers(0, 400, n_models)
    names = [f"family-{f + 1:02d}" for f in range(n_families)]
    return pd.DataFrame(
        {
            "model": [f"synthetic/{names[f]}-{size[i]}-{i}" for i, f in enumerate(family)],
            "family": [names[f] for f in family],
            "n_parameters": [int(SIZES[name]) for name in size],
            "created": created.astype(str),
            "home": home[family],
        },
        index=pd.Index([f"synthetic-{i:04d}" for i in range(n_models)], name="row_id"),
    )


def _texts(rng: np.random.Generator, n_texts: int, n_sources: int) -> pd.DataFrame:
    source = _unequal(rng, n_texts, n_sources)
    shorter = rng.random(n_texts) < 0.3
    n_bytes = np.where(shorter, rng.integers(64, LONGEST, n_texts), LONGEST)
    index = pd.Index([f"synthetic-{x:05d}" for x in range(n_texts)], name="text_id")
    return pd.DataFrame({"source": np.array(SOURCES)[source], "n_bytes": n_bytes}, index=index)


def _unequal(rng: np.random.Generator, n: int, n_kinds: int) -> Array:
    """Spread n things over kinds, the first kinds more often; none is left out."""
    often = 1 / np.arange(2, n_kinds + 2)
    others = rng.choice(n_kinds, n - n_kinds, p=often / often.sum())
    return np.sort(np.concatenate([np.arange(n_kinds), others]))


def _values(rng: np.random.Generator, models: pd.DataFrame, texts: pd.DataFrame) -> Array:
    family, source = (pd.factorize(column)[0] for column in (models["family"], texts["source"]))
    b = texts["n_bytes"].to_numpy(dtype=np.float64)
    per_byte = GAIN * np.log10(models["n_parameters"].to_numpy(dtype=np.float64) / 1e9)
    at_home = models["home"].to_numpy()[:, None] == texts["source"].to_numpy()
    cost = rng.uniform(0.4, 0.8, source.max() + 1)[source] * rng.lognormal(0, 0.35, len(texts))
    places = FAMILY * rng.standard_normal((family.max() + 1, FACTORS))[family]
    places += OWN * rng.standard_normal(places.shape)
    directions = rng.standard_normal((source.max() + 1, FACTORS))[source]
    directions = (directions + rng.standard_normal(directions.shape)) / np.sqrt(2 * FACTORS)
    tails = np.sqrt((TAILS - 2) / rng.chisquare(TAILS, len(texts)))
    values: Array = places @ directions.T
    values += NOISE * rng.standard_normal(values.shape)
    values *= np.sqrt(b) * tails
    values += b * (per_byte[:, None] + HOME_GAIN * at_home - cost)
    np.minimum(values, -1.0, out=values)
    return values
