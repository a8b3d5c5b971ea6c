"""Exact KL: the sum over the whole vocabulary, at every token, between models of one tokenizer.

Three quantities are told apart (nats; entry (i, j) of a table is from model i to model j):

- *on given texts*: ``sum over t of KL(p_i(. | y_<t) || p_j(. | y_<t))`` along each text, exact for these
  contexts; no divergence between distributions of texts, unless the texts come from model i;
- *on samples from model i*: by the chain rule the mean of that sum is an unbiased estimate of
  ``KL(p_i || p_j)`` between the models' distributions over sequences of so many tokens;
- the *estimates* of `lmmap.geometry`, from nothing but the log-probabilities of the tokens that are there.

Half-Jeffreys, ``(KL_ij + KL_ji) / 2``, is the exact value to hold a symmetric estimate against.
"""

from lmmap.exact_kl.compare import compare_estimates
from lmmap.exact_kl.measure import exact_kl_on_samples, exact_kl_on_texts
from lmmap.exact_kl.result import ExactKL, Mean
from lmmap.exact_kl.sample import sample_ids

__all__ = ["ExactKL", "Mean", "compare_estimates", "exact_kl_on_samples", "exact_kl_on_texts", "sample_ids"]
