"""Resolution: what the noise of scores adds to a KL estimate, and below what pairs cannot be told apart."""

from __future__ import annotations

import numpy as np

from lmmap.errors import InputError


def noise_kl(error_var: np.ndarray) -> np.ndarray:
    """KL that noise alone would show between every pair of models.

    A row's noise adds its variance to every squared distance ``Var(l_i - l_j)``, and half of it to the KL.

    Parameters
    ----------
    error_var : (K,) float array
        Noise of each row, nats^2 (`lmmap.scoring.noise`); NaN where it was not measured counts as none.

    Returns
    -------
    (K, K) float array
        Nats per text; zero diagonal.

    Raises
    ------
    InputError
        If a value is negative or infinite.

    Examples
    --------
    >>> noise_kl(np.array([0.02, 0.04]))
    array([[0.  , 0.03],
           [0.03, 0.  ]])
    """
    noise = np.asarray(error_var, dtype=np.float64)
    if (noise < 0).any() or np.isinf(noise).any():
        wrong = noise[(noise < 0) | np.isinf(noise)][0]
        raise InputError(f"noise must be finite and not negative, got {wrong}")
    noise = np.nan_to_num(noise)
    added: np.ndarray = (noise[:, None] + noise[None]) / 2
    np.fill_diagonal(added, 0.0)
    return added


def debias_kl(kl: np.ndarray, error_var: np.ndarray) -> np.ndarray:
    """Take off a text-level KL estimate what noise has added.

    Parameters
    ----------
    kl : (K, K) float array
        From `lmmap.geometry.estimate_kl`, nats per text.
    error_var : (K,) float array
        Noise of each row, nats^2; NaN counts as none.

    Returns
    -------
    (K, K) float array
        Nats per text, at least 0. What is left of a pair is good to a fraction of `noise_kl`: below that,
        two models cannot be told apart.

    Raises
    ------
    InputError
        As `noise_kl`.

    Examples
    --------
    >>> debias_kl(np.array([[0.0, 0.5], [0.5, 0.0]]), np.array([0.1, 0.3]))
    array([[0. , 0.3],
           [0.3, 0. ]])
    """
    left: np.ndarray = np.maximum(kl - noise_kl(error_var), 0.0)
    return left


def one_for_each(error_var: np.ndarray, n_models: int) -> np.ndarray:
    """Refuse noise that is not given for each model."""
    noise = np.asarray(error_var, dtype=np.float64)
    if noise.shape != (n_models,):
        raise InputError(f"error_var has shape {noise.shape}, expected ({n_models},): one for each model")
    return noise
