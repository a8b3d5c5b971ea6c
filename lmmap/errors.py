"""What a user did that cannot be done: one exception, and the nearest word to the one they typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in what was given (a file, an id, a parameter), told in one sentence that says what to do.

    Commands print it without a traceback; everything else that is raised is a fault of the program.
    """


class PrecisionError(InputError):
    """What a finer precision may cure: values that are not finite, kernels that want float32."""


def closest(word: str, options: Iterable[str]) -> str:
    """Name the option nearest to a word, ready to be appended to an error.

    Parameters
    ----------
    word : str
        What was typed.
    options : iterable of str
        What would have been valid.

    Returns
    -------
    str
        `` (closest: 'option')``, or nothing if none is near.

    Examples
    --------
    >>> closest("pythia-70", ["gpt2", "pythia-70m"])
    " (closest: 'pythia-70m')"
    >>> closest("llama", ["gpt2"])
    ''
    """
    found = difflib.get_close_matches(word, map(str, options), n=1)
    return f" (closest: {found[0]!r})" if found else ""
