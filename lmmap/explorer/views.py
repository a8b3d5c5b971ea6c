"""Views: what is looked at, as plain values that are saved, opened again and given to a notebook."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from lmmap.errors import InputError, closest
from lmmap.estimates import ESTIMATORS
from lmmap.recipes import Method

VERSION = 1
METHODS = get_args(Method)


@dataclass(frozen=True)
class View:
    r"""Which models and texts are looked at, how they are drawn, and what is marked.

    Every field is a parameter of the explorer's notebook; one left empty leaves nothing out.

    Parameters
    ----------
    models : tuple of str
        Row ids or names; all if empty.
    sources : tuple of str
        Domains of the texts; all if empty.
    min_bytes, max_bytes : int
        Length of the texts; no upper limit if ``max_bytes`` is 0.
    contains : str
        Only texts that contain it, case ignored.
    share : float
        Share of the texts left, drawn at random: in (0, 1].
    seed : int
        Of that draw; a larger share of the same seed holds the smaller one.
    texts : tuple of str
        Text ids; all if empty.
    method : {'pca', 'mds', 'tsne', 'umap'}
        The first two follow a hand, the others take seconds.
    estimator : str
        One of `lmmap.estimates.ESTIMATORS`; if empty, the recommended one where it can be live.
    clip : float
        Quantile of all scores at which they are clipped first, in [0, 1): 0.02 for the published maps.
        Clipped scores are compared by text level.
    color : str
        Attribute that colours the models, or ``height`` for the mean log-likelihood; none if empty.
    selected : tuple of str
        Row ids that are marked.

    Raises
    ------
    InputError
        If a value is of another type, out of bounds, or no method or estimator.

    Examples
    --------
    >>> view = View(sources=["code"], share=0.5)
    >>> view.parameters()
    {'sources': ['code'], 'share': 0.5}
    >>> view.command("../runs/demo")
    'lmmap run notebooks/08_explore.ipynb -p run ../runs/demo -p sources \'["code"]\' -p share 0.5'
    >>> View.from_json(view.to_json()) == view
    True
    """

    models: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    min_bytes: int = 0
    max_bytes: int = 0
    contains: str = ""
    share: float = 1.0
    seed: int = 0
    texts: tuple[str, ...] = ()
    method: str = "pca"
    estimator: str = ""
    clip: float = 0.0
    color: str = ""
    selected: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _fitted(field.name, getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, value)
        if not 0 < self.share <= 1:
            raise InputError(f"share must lie above 0 and be at most 1, got {self.share:g}")
        if not 0 <= self.clip < 1:
            raise InputError(f"clip must lie in [0, 1), got {self.clip:g}")
        for name in ("min_bytes", "max_bytes", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        if 0 < self.max_bytes < self.min_bytes:
            raise InputError(
                f"max_bytes is {self.max_bytes}, below min_bytes, {self.min_bytes}: no text is as long"
            )
        for value, options, noun in (
            (self.method, METHODS, "method"),
            (self.estimator, ("", *ESTIMATORS), "estimator"),
        ):
            if value not in options:
                known = ", ".join(filter(None, options))
                raise InputError(f"no {noun} {value!r}{closest(value, options)}; use one of {known}")

    def to_json(self) -> str:
        """Write the view as JSON.

        Returns
        -------
        str
            All fields, and the version of the form.
        """
        return json.dumps({"version": VERSION, **asdict(self)}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> View:
        """Read what `to_json` has written; fields that are missing have their defaults.

        Parameters
        ----------
        text : str
            JSON.

        Returns
        -------
        View
            The same view.

        Raises
        ------
        InputError
            If it is no JSON object, of another version, or a field is unknown or of another type.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"no view: line {error.lineno} is not JSON ({error.msg}); save the view again"
            ) from None
        if not isinstance(content, dict):
            raise InputError(f"no view: expected a JSON object of fields, got {type(content).__name__}")
        version = content.pop("version", None)
        if version != VERSION:
            raise InputError(f"the view has version {version!r}, this version of lmmap reads {VERSION}")
        known = [field.name for field in fields(cls)]
        for name in content:
            if name not in known:
                raise InputError(
                    f"a view has no field {name!r}{closest(name, known)}; it has {', '.join(known)}"
                )
        return cls(**content)

    def parameters(self) -> dict[str, Any]:
        """Give what differs from the default, as parameters of a notebook.

        Returns
        -------
        dict
            Field -> number, str or list of str.
        """
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def command(self, run: str, notebook: str = "notebooks/08_explore.ipynb") -> str:
        """Write the command that opens this view in an executed notebook.

        Parameters
        ----------
        run : str
            Folder of the score set, as seen from the notebook's folder.
        notebook : str
            The notebook.

        Returns
        -------
        str
            One line, quoted for a shell.
        """
        words = ["lmmap", "run", notebook]
        for name, value in {"run": run, **self.parameters()}.items():
            words += ["-p", name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        return shlex.join(words)


def read_view(path: str | Path) -> View:
    """Read a saved view.

    Parameters
    ----------
    path : str or Path
        A file that "Save view" has written.

    Returns
    -------
    View
        The same view.

    Raises
    ------
    InputError
        If there is no such file, or it holds no view.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no view can be read there ({error})") from None
    return View.from_json(text)


def _fitted(name: str, value: Any, default: object) -> Any:  # noqa: ANN401 - of the default's type
    """Give a field's value in the type of its default."""
    if isinstance(default, tuple):
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InputError(f"{name} takes a list of strings, got {value!r}")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise InputError(f"{name} takes {type(default).__name__}, got {value!r}")
    return value
