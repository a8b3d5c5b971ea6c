"""Across tokenizers: texts that one model writes, scored by all models as strings, and KL from their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmap.errors import InputError
from lmmap.exact_kl.alike import check_names
from lmmap.exact_kl.result import Mean, keep_own_arrays, mean_over_texts
from lmmap.exact_kl.sample import sample_ids
from lmmap.scoring.batches import token_log_probs
from lmmap.scoring.encode import tokenize
from lmmap.scoring.forward import LoadedModel
from lmmap.scoring.job import prepare

NO_CHARACTER = "\ufffd"  # what bytes decode to that are no whole character


@dataclass(frozen=True, eq=False, repr=False)
class TextKL:
    """Texts that one model wrote, and what every model says of them.

    Parameters
    ----------
    models : tuple of K str
        Names.
    source : int
        Number of the model that wrote the texts.
    texts : tuple of N str
        The texts; empty where a special token came first.
    log_likelihoods : (K, N) float array
        Of each text as the model's own tokenizer cuts it, in nats; 0 for an empty text.
    length : str
        Where texts are cut, in words.
    ended : (N,) bool array
        Texts cut earlier, at a special token or at bytes that are no character.
    round_trip : (N,) bool array
        Samples that the source's tokenizer, as a whole, cuts into the very tokens that were sampled.
    lossy : (K,) float array
        Share of texts that a model's tokenizer does not give back as they are: what it leaves out, or calls
        unknown, costs nothing or little, and makes KL too small.

    Examples
    --------
    >>> one = TextKL(
    ...     models=("a", "b"),
    ...     source=0,
    ...     texts=("x", "yz"),
    ...     log_likelihoods=np.array([[-1.0, -2.0], [-2.0, -5.0]]),
    ...     length="4 tokens",
    ...     ended=np.array([True, False]),
    ...     round_trip=np.array([True, True]),
    ...     lossy=np.zeros(2),
    ... )
    >>> one
    TextKL on 2 texts of 4 tokens from a: 50.0% ended earlier, 100.0% come back as sampled
      KL(a || b)  2 ± 1 nats per text  1.333 ± 0.22 per byte
    """

    models: tuple[str, ...]
    source: int
    texts: tuple[str, ...]
    log_likelihoods: np.ndarray
    length: str
    ended: np.ndarray
    round_trip: np.ndarray
    lossy: np.ndarray

    def __post_init__(self) -> None:
        keep_own_arrays(self)

    @property
    def n_bytes(self) -> np.ndarray:
        """Length of each text in bytes of UTF-8, (N,)."""
        return np.array([len(text.encode()) for text in self.texts])

    @property
    def sequence_kl(self) -> Mean:
        """KL of texts from the source to every model, (K,), in nats per text."""
        return self._mean()

    @property
    def sequence_kl_per_byte(self) -> Mean:
        """KL of texts from the source to every model, (K,), in nats per byte: all nats over all bytes."""
        return self._mean(self.n_bytes)

    def _mean(self, per: np.ndarray | None = None) -> Mean:
        values = self.log_likelihoods.T
        return mean_over_texts(values[:, self.source, None] - values, np.ones(len(values)), per)

    def __repr__(self) -> str:
        name, text, byte = self.models[self.source], self.sequence_kl, self.sequence_kl_per_byte
        head = (
            f"TextKL on {len(self.texts):,} texts of {self.length} from {name}: {self.ended.mean():.1%} "
            f"ended earlier, {self.round_trip.mean():.1%} come back as sampled"
        )
        lines = [
            f"KL({name} || {other})  {text.value[j]:.4g} ± {text.se[j]:.2g} nats per text"
            f"  {byte.value[j]:.4g} ± {byte.se[j]:.2g} per byte"
            for j, other in enumerate(self.models)
            if j != self.source
        ]
        lines += [
            f"the tokenizer of {other} loses something of {share:.1%} of the texts"
            for other, share in zip(self.models, self.lossy, strict=True)
            if share
        ]
        return "\n  ".join([head, *lines])


def text_kl_on_samples(
    models: Sequence[LoadedModel],
    *,
    n_texts: int,
    n_tokens: int,
    n_characters: int | None = None,
    seed: int = 0,
    source: int = 0,
) -> TextKL:
    """Estimate KL from one model to others of any tokenizers, on texts that it writes.

    The model is sampled token by token, the tokens are put together to a text, and all models, the source
    too, score the text as they score any: each with its own prefix and its tokenizer's way to cut it. KL is
    the mean of the source's log-likelihood less the other's. A text ends before the first special token, and
    before bytes that are no whole character; neither is scored.

    Parameters
    ----------
    models : sequence of K LoadedModel
        Two or more models, each with a name of its own.
    n_texts, n_tokens : int
        How many texts, at least two, of how many tokens of the source; see `sample_ids`.
    n_characters : int, optional
        Cut texts here, so that texts of all sources have one length. Needed for half-Jeffreys: so many
        tokens of one model are a longer text than so many of another.
    seed : int
        Start of the random numbers, of which every model's name has its own.
    source : int
        Number of the model that is sampled from.

    Returns
    -------
    TextKL
        Texts, log-likelihoods, and their means with standard errors. Inf to a model that excludes a text.

    Raises
    ------
    InputError
        If ``source`` is no model's number; a text is shorter than ``n_characters`` or does not fit another
        model's context; the source excludes a text that it wrote; or as `sample_ids`.

    Notes
    -----
    With one tokenizer, and if all texts come back as sampled and none ended, this is naive sampling of what
    `exact_kl_on_samples` gives with less noise. Else it estimates the mean over the source's texts of
    ``log P_i - log P_j``, ``P`` being the probability that a model's text begins with this one, but for what
    a score misses of it: other ways to cut the text, and tokens that reach beyond its end,
    ``b = log P - log p(tokens) >= 0``. So it is too large by the mean of ``b_j - b_i``: too small, even
    negative, where the source misses more. The end costs about one token, whatever the length; the other
    ways to cut cost the more, the fewer texts come back as sampled. In half-Jeffreys on texts of one length
    in characters ``b`` cancels, but for how its mean differs from the texts of the one to those of the other:
    therefore the source too is scored by the text, though the sampled tokens are known.

    Texts tell no more than tokens do: KL of texts is at most that of the tokens they were put together from.
    """
    check_names(models)
    if not 0 <= source < len(models):
        raise InputError(f"source must be a number from 0 to {len(models) - 1}, got {source}")
    if n_texts < 2:
        raise InputError(f"errors over texts need two texts at least, got n_texts {n_texts}")
    if n_characters is not None and n_characters < 1:
        raise InputError(f"n_characters must be at least 1, got {n_characters}")
    writer = models[source]
    rows = sample_ids(writer, n_texts=n_texts, n_tokens=n_tokens, seed=seed)[:, 1:]
    rows, written, ended = zip(*(_as_text(writer, row) for row in rows), strict=True)
    there = np.flatnonzero([bool(text) for text in written])
    if not len(there):
        raise InputError(f"{writer.spec.name} writes {n_texts} empty texts: all begin with a special token")
    round_trip = np.array([not len(row) for row in rows])
    again = tokenize(writer.tokenizer, [written[x] for x in there]).ids
    round_trip[there] = [np.array_equal(rows[x], ids) for x, ids in zip(there, again, strict=True)]
    texts, ended_early = _cut(writer, written, np.array(ended), n_characters)
    log_likelihoods, lossy = np.zeros((len(models), n_texts)), np.zeros(len(models))
    for i, model in enumerate(models):
        log_likelihoods[i, there], lossy[i] = _score(model, [texts[x] for x in there])
    if np.isneginf(log_likelihoods[source]).any():
        raise InputError(f"{writer.spec.name} excludes a text that it wrote, as its tokenizer cuts it")
    return TextKL(
        models=tuple(model.spec.name for model in models),
        source=source,
        texts=texts,
        log_likelihoods=log_likelihoods,
        length=f"{n_tokens} tokens" if n_characters is None else f"{n_characters} characters",
        ended=ended_early,
        round_trip=round_trip,
        lossy=lossy,
    )


def _cut(
    writer: LoadedModel, written: Sequence[str], ended: np.ndarray, n_characters: int | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Cut texts to so many characters, and tell which ended before; the others must have as many."""
    if n_characters is None:
        return tuple(written), ended
    lengths = np.array([len(text) for text in written])
    is_short = lengths < n_characters
    lacking = lengths[is_short & ~ended]
    if len(lacking):
        raise InputError(
            f"{len(lacking)} of {len(written)} texts from {writer.spec.name} have fewer than {n_characters} "
            f"characters, one {lacking.min()}; ask for more n_tokens"
        )
    return tuple(text[:n_characters] for text in written), ended & is_short


def _as_text(model: LoadedModel, row: np.ndarray) -> tuple[np.ndarray, str, bool]:
    """Give the tokens before the first special one, the text of them, and whether something ends it."""
    tokenizer = model.tokenizer
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marks = {
        *tokenizer.all_special_ids,
        *(i for i, token in added.items() if getattr(token, "special", True)),
    }
    found = np.flatnonzero(np.isin(row, sorted(marks)))
    kept = row[: found[0]] if len(found) else row
    text = tokenizer.decode(kept.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    whole, broken, _ = text.rstrip(NO_CHARACTER).partition(NO_CHARACTER)
    return kept, whole, bool(len(found) or broken)


def _score(model: LoadedModel, texts: Sequence[str]) -> tuple[np.ndarray, float]:
    """Log-likelihood of every text, -inf allowed, and the share that the tokenizer does not give back."""
    job = prepare(model, texts, audit=False)
    if job.provenance["n_windowed"]:
        longest = max(map(len, job.tokenized.ids))
        raise InputError(
            f"{model.spec.name} has {model.context} positions and cuts a text into {longest} tokens; "
            "ask for fewer n_tokens"
        )
    values = [tokens.sum(dtype=np.float64) for tokens in token_log_probs(model, job.sequences, job.batches)]
    if np.isnan(values).any():
        raise InputError(f"{model.spec.name} gives a text logits that are not numbers")
    return np.array(values), job.tokenized.lossy
