"""Exact KL: the sum over the whole vocabulary, at every token, between models of one tokenizer.

Five quantities are told apart (nats; entry (i, j) of a table is from model i to model j):

- *enumerated*: the sum over every sequence of T tokens of a tiny vocabulary, exact;
- *on given texts*: ``sum over t of KL(p_i(. | y_<t) || p_j(. | y_<t))`` along each text, exact for these
  contexts; no divergence between distributions of texts, unless the texts come from model i;
- *on samples from model i*: by the chain rule the mean of that sum is an unbiased estimate of
  ``KL(p_i || p_j)`` between the models' distributions over sequences of so many tokens;
- *of texts*, for models of any tokenizers: the mean of ``l_i - l_j`` on strings that model i writes;
- the *estimates* of `lmmap.geometry`, from nothing but the log-probabilities of the tokens that are there.

Half-Jeffreys, ``(KL_ij + KL_ji) / 2``, is the exact value to hold a symmetric estimate against.
"""

from lmmap.exact_kl.across import TextKL, text_kl_on_samples
from lmmap.exact_kl.compare import compare_estimates, half_jeffreys_of_sequences
from lmmap.exact_kl.enumerated import Enumerated
from lmmap.exact_kl.enumeration import enumerate_sequences
from lmmap.exact_kl.measure import exact_kl_on_samples, exact_kl_on_texts
from lmmap.exact_kl.path import kl_along_path, variance_along_path
from lmmap.exact_kl.result import ExactKL, Mean
from lmmap.exact_kl.sample import sample_ids

__all__ = [
    "Enumerated",
    "ExactKL",
    "Mean",
    "TextKL",
    "compare_estimates",
    "enumerate_sequences",
    "exact_kl_on_samples",
    "exact_kl_on_texts",
    "half_jeffreys_of_sequences",
    "kl_along_path",
    "sample_ids",
    "text_kl_on_samples",
    "variance_along_path",
]
