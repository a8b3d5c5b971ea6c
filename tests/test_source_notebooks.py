"""Notebooks as they are kept: no outputs, short cells, and parameters that can be read without running."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from pathlib import Path
from typing import Any

import pytest

from lmmap.notebooks.parameters import read_parameters

FOLDER = Path(__file__).parent.parent / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = sorted(FOLDER.glob("solutions/*.ipynb"))
NOTEBOOKS = [*LESSONS, *SOLUTIONS]


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    return list(json.loads(notebook.read_text(encoding="utf-8"))["cells"])


def source_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def complaints(parameters_cell: str) -> list[str]:
    """What papermill would lose without a word: it reads line by line, with a regular expression."""
    tokens = tokenize.generate_tokens(io.StringIO(parameters_cell).readline)
    comments = {token.start[0]: token.string[1:] for token in tokens if token.type == tokenize.COMMENT}
    found = []
    for statement in ast.parse(parameters_cell).body:
        where = f"line {statement.lineno}"
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            found.append(f"{where}: not `name: type = literal`")
            continue
        if statement.end_lineno != statement.lineno:
            found.append(f"{where}: more than one line")
        if set("=#") & set(comments.get(statement.lineno, "")):
            found.append(f"{where}: = or # in the comment")
        try:
            ast.literal_eval(statement.value)
        except ValueError:
            found.append(f"{where}: not a literal")
    return found


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("n_texts: int = 100  # texts to draw", []),
        ("n_texts = 100", ["line 1: not `name: type = literal`"]),
        ("n_texts: int", ["line 1: not `name: type = literal`"]),
        ("n_texts: int = len('abc')", ["line 1: not a literal"]),
        ("names: list = ['a',\n 'b']", ["line 1: more than one line"]),
        ("n_texts: int = 100  # = all", ["line 1: = or # in the comment"]),
        ("n_texts: int = 100  # all # of them", ["line 1: = or # in the comment"]),
    ],
)
def test_complaints_about_parameters(line: str, complaint: list[str]) -> None:
    assert complaints(line) == complaint


@pytest.mark.parametrize(
    "notebook", NOTEBOOKS, ids=lambda path: str(path.relative_to(FOLDER).with_suffix(""))
)
def test_source_notebooks_are_clean_and_short(notebook: Path) -> None:
    cells = cells_of(notebook)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert cells[0]["cell_type"] == "markdown", "the first cell asks the question"
    assert [cell["outputs"] for cell in code if cell["outputs"]] == []
    assert {cell["execution_count"] for cell in code} <= {None}
    story = [cell for cell in code if "parameters" not in cell["metadata"].get("tags", [])]
    long = [source_of(cell) for cell in story if len(source_of(cell).splitlines()) > 12]
    assert not long, "more than 12 lines:\n\n" + "\n\n".join(long)


@pytest.mark.parametrize(
    "notebook", NOTEBOOKS, ids=lambda path: str(path.relative_to(FOLDER).with_suffix(""))
)
def test_parameters_are_literals_that_lmmap_run_understands(notebook: Path) -> None:
    tagged = [cell for cell in cells_of(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert [cell["cell_type"] for cell in tagged] == ["code"]
    assert complaints(source_of(tagged[0])) == []
    declared = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(source_of(tagged[0])).body}
    assert {name: parameter.default for name, parameter in read_parameters(notebook).items()} == declared


@pytest.mark.parametrize("solutions", SOLUTIONS, ids=lambda path: path.stem)
def test_a_lesson_with_solutions_apart_names_them_and_every_exercise_is_solved(solutions: Path) -> None:
    lesson = [source_of(cell) for cell in cells_of(FOLDER / solutions.name)]
    assert f"`solutions/{solutions.name}`" in lesson[-1]
    exercises = re.findall(r"^(\d+)\. ", lesson[-1].partition("## Exercises")[2], re.MULTILINE)
    solved = re.findall(r"^## (\d+)\. ", "\n".join(map(source_of, cells_of(solutions))), re.MULTILINE)
    assert exercises
    assert solved == exercises
    assert not any(
        "solution" in cell["metadata"].get("tags", []) for cell in cells_of(FOLDER / solutions.name)
    )
