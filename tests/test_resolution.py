"""What noise adds to distances is taken off again, and maps say what they cannot resolve."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lmmap import LogLikelihoods, fit_map
from lmmap.errors import InputError
from lmmap.geometry import estimate_kl
from lmmap.resolution import debias_kl, noise_kl

ERROR_VAR = np.array([0.02, 0.3, 0.0, 0.1])


def noisy(n_texts: int, error_var: np.ndarray = ERROR_VAR) -> tuple[np.ndarray, np.ndarray]:
    """Scores without noise and with it."""
    rng = np.random.default_rng(0)
    true = rng.normal(-500, 100, n_texts) + rng.normal(0, [[0.0], [0.0], [1.0], [2.0]], (4, n_texts))
    return true, true + rng.normal(0, np.sqrt(error_var)[:, None], true.shape)


def scores(values: np.ndarray, error_var: object) -> LogLikelihoods:
    models = pd.DataFrame({"error_var": error_var}, index=list("abcd"))
    return LogLikelihoods(values, models, pd.DataFrame(index=range(values.shape[1])))


def test_debiased_noisy_scores_give_the_kl_of_scores_without_noise():
    n_texts = 200_000
    true, measured = noisy(n_texts)
    expected, biased = estimate_kl(true), estimate_kl(measured)
    debiased = debias_kl(biased, ERROR_VAR)
    sd = np.sqrt(2 * expected * noise_kl(ERROR_VAR) / n_texts) + noise_kl(ERROR_VAR) * np.sqrt(2 / n_texts)
    assert (np.abs(debiased - expected) <= 5 * sd + 1e-12).all()
    assert biased[0, 1] - expected[0, 1] > 0.9 * (0.02 + 0.3) / 2
    assert expected[0, 1] == 0  # two names for one model
    assert debiased[0, 1] < 0.02 * noise_kl(ERROR_VAR)[0, 1]


def test_noise_that_was_not_measured_counts_as_none():
    np.testing.assert_array_equal(noise_kl(np.array([np.nan, 0.4])), [[0, 0.2], [0.2, 0]])
    for wrong in (-0.1, np.inf):
        with pytest.raises(InputError, match=f"noise must be finite and not negative, got {wrong}"):
            noise_kl(np.array([0.1, wrong]))


def test_a_map_is_rid_of_noise_and_says_its_resolution():
    _, measured = noisy(400)
    drawn = fit_map(scores(measured, ERROR_VAR), method="mds")
    np.testing.assert_allclose(drawn.kl, debias_kl(estimate_kl(measured), ERROR_VAR))
    assert drawn.recipe["resolution"] == (0.3 + 0.1) / 2
    assert drawn.recipe["n_unresolved"] == 1  # a and b are one model
    assert drawn.caption().endswith("resolution at worst 0.2 nats, 1 pairs unresolved")


def test_a_map_says_whose_noise_is_not_known():
    _, measured = noisy(50)
    some = fit_map(scores(measured, [0.1, np.nan, 0.1, np.nan]), method="mds")
    assert some.caption().endswith(", noise of 2 models unknown")
    none = fit_map(scores(measured, [np.nan] * 4), method="mds")
    np.testing.assert_array_equal(none.kl, estimate_kl(measured))
    assert none.caption().endswith("resolution unknown: the scores' noise was not measured")
