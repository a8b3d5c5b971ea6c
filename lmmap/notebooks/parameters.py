"""What a notebook can be asked: the parameters its tagged cell declares, and the values given for them."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmmap.errors import InputError, closest
from lmmap.notebooks import kinds, source


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: ``name: annotation = default  # comment``."""

    name: str
    annotation: str | None
    default: object
    comment: str = ""

    @property
    def kind(self) -> kinds.Kind:
        """What it takes: as annotated, else as its default is, else (a default of None) anything."""
        if self.annotation is not None:
            return kinds.kind_of_annotation(self.annotation)
        return kinds.ANYTHING if self.default is None else kinds.kind_of_value(self.default)

    @property
    def takes(self) -> str:
        """Its kind in words."""
        return self.annotation or f"{self.kind.name} as its default {self.default!r}"


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Read the parameters that a notebook declares in its one cell tagged ``parameters``.

    Parameters
    ----------
    notebook : Path
        The notebook.

    Returns
    -------
    dict of str to Parameter
        In the order of the cell; empty if no cell is tagged.

    Raises
    ------
    InputError
        If it is not a notebook, two cells are tagged, or a line of the cell is not ``name = literal``.
    """
    path = Path(notebook)
    cells = [cell for cell in source.load(path)["cells"] if "parameters" in source.tags(cell)]
    if len(cells) > 1:
        raise InputError(f"{path.name} has {len(cells)} cells tagged 'parameters'; keep the tag on one.")
    try:
        return read_cell(source.text(cells[0]["source"])) if cells else {}
    except InputError as error:
        raise InputError(f"In the parameters cell of {path.name}, {error}") from None


def read_cell(cell: str) -> dict[str, Parameter]:
    """Read the source of a parameters cell.

    Parameters
    ----------
    cell : str
        Lines of ``name: annotation = literal  # comment``; the annotation and the comment may be missing.

    Returns
    -------
    dict of str to Parameter
        In the order of the cell.

    Raises
    ------
    InputError
        If a line is anything else, or a default is not what its own annotation says.

    Examples
    --------
    >>> read_cell('seed: int | None = None  # None = drawn anew')["seed"]
    Parameter(name='seed', annotation='int | None', default=None, comment='None = drawn anew')
    """
    try:
        lines = ast.parse(cell).body
    except SyntaxError as error:
        raise InputError(f"line {error.lineno} is not Python: {error.msg}.") from None
    comments = _comments(cell)
    found: dict[str, Parameter] = {}
    for line in lines:
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            continue  # a docstring
        parameter = _read_line(line, comments.get(line.end_lineno or line.lineno, ""))
        if parameter.name in found:
            raise InputError(f"{parameter.name!r} is declared twice.")
        found[parameter.name] = parameter
    return found


def check_parameters(notebook: Path, given: Mapping[str, object]) -> dict[str, object]:
    """Check values against what a notebook declares, before anything is started.

    Parameters
    ----------
    notebook : Path
        The notebook.
    given : mapping of str to object
        Values by parameter name.

    Returns
    -------
    dict of str to object
        Those values, plain Python and of the declared kind.

    Raises
    ------
    InputError
        If a name is unknown (the closest is named), or a value is not of the declared kind.
    """
    declared = _declared(notebook, given)
    return {name: _checked(declared[name], value) for name, value in given.items()}


def check_grid(notebook: Path, grid: Mapping[str, Sequence[object]]) -> dict[str, list[object]]:
    """Check lists of values as `check_parameters` checks one.

    Parameters
    ----------
    notebook : Path
        The notebook.
    grid : mapping of str to sequence
        For each varied parameter the values it is to take.

    Returns
    -------
    dict of str to list
        Those values, plain Python and of the declared kind.

    Raises
    ------
    InputError
        If a name is unknown, a list is empty, or an element is not of the declared kind.
    """
    declared = _declared(notebook, grid)
    for name, values in grid.items():
        if isinstance(values, str) or not len(values):
            raise InputError(f"The grid of {name!r} needs a list of at least one value, got {values!r}.")
    return {name: [_checked(declared[name], value) for value in values] for name, values in grid.items()}


def parse_parameters(notebook: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Read ``-p NAME VALUE`` of the command line, each value as its parameter's kind is written.

    Parameters
    ----------
    notebook : Path
        The notebook.
    pairs : iterable of (str, str)
        Names and values as typed. Strings are taken as they are, ``true`` and ``false`` for bool, ``none``
        where None is allowed, lists, tuples and dicts as Python writes them.

    Returns
    -------
    dict of str to object
        Values by parameter name.

    Raises
    ------
    InputError
        If a name is unknown or given twice, or a value cannot be read.
    """
    pairs = list(pairs)
    given = _once(pairs)
    declared = _declared(notebook, given)
    values: dict[str, object] = {}
    for name, text in given.items():
        try:
            values[name] = kinds.fit_text(text, declared[name].kind)
        except ValueError:
            raise InputError(_misfit(declared[name], text)) from None
    return values


def parse_grid(notebook: Path, options: Iterable[str]) -> dict[str, list[object]]:
    """Read ``--grid NAME=[...]`` of the command line.

    Parameters
    ----------
    notebook : Path
        The notebook.
    options : iterable of str
        Each a name, an equals sign and a Python list of literals, e.g. ``seed=[0, 1, 2]``.

    Returns
    -------
    dict of str to list
        Values by parameter name.

    Raises
    ------
    InputError
        If an option is not of that form, a name is unknown or given twice, or an element is of another kind.
    """
    lists: list[tuple[str, list[object]]] = []
    for option in options:
        name, equals, text = option.partition("=")
        try:
            values = kinds.literal(text)
        except ValueError:
            values = None
        if not equals or not isinstance(values, list):
            raise InputError(
                f"--grid takes name=[...], a Python list of literals such as \"method=['pca', "
                f"'mds']\" or 'seed=[0, 1, 2]'; got {option!r}."
            )
        lists.append((name.strip(), values))
    return check_grid(notebook, _once(lists))


def _declared(notebook: Path, names: Iterable[str]) -> dict[str, Parameter]:
    """Parameters of the notebook, once all names are among them."""
    declared = read_parameters(notebook)
    for name in names:
        if name in declared:
            continue
        if not declared:
            raise InputError(
                f"{Path(notebook).name} has no parameters, so {name!r} cannot be set: tag the cell that "
                f"holds them 'parameters' (in JupyterLab: Property Inspector, Cell Tags)."
            )
        raise InputError(
            f"{Path(notebook).name} has no parameter {name!r}{closest(name, declared)}; "
            f"it has {', '.join(declared)}."
        )
    return declared


def _checked(parameter: Parameter, value: object) -> object:
    try:
        return kinds.fit(value, parameter.kind)
    except ValueError:
        raise InputError(_misfit(parameter, value)) from None


def _misfit(parameter: Parameter, value: object) -> str:
    return f"Parameter {parameter.name!r} takes {parameter.takes}; got {value!r}."


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Pairs as a dict, once no name comes twice."""
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise InputError(f"Parameter {name!r} is given twice: {given[name]!r} and {value!r}.")
        given[name] = value
    return given


def _comments(cell: str) -> dict[int, str]:
    """Trailing comment of each line, by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(cell).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _read_line(line: ast.stmt, comment: str) -> Parameter:
    """Read one statement of the cell."""
    match line:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=ast.expr() as value):
            annotation: str | None = ast.unparse(kind)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            annotation = None
        case _:
            raise InputError(f"line {line.lineno} is not 'name: type = literal': {ast.unparse(line)}")
    try:
        parameter = Parameter(name, annotation, kinds.literal(ast.unparse(value)), comment)
        return replace(parameter, default=kinds.fit(parameter.default, parameter.kind))
    except ValueError as error:
        raise InputError(f"line {line.lineno} cannot be read: {error}.") from None
