"""Notebooks as programs: what is refused before a kernel starts, what is kept, and grids that go on."""

import csv
import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import psutil
import pytest

from lmmap.errors import InputError
from lmmap.notebooks import (
    GridRun,
    NotebookFailed,
    is_done,
    parse_grid,
    parse_parameters,
    read_parameters,
    run_grid,
    run_notebook,
)
from lmmap.notebooks.executed import read_run
from lmmap.notebooks.grid import run_name
from lmmap.notebooks.parameters import read_cell
from lmmap.notebooks.report import write_page, write_summary
from lmmap.notebooks.source import load

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def write_notebook(path, parameters, *cells, tags=()):
    """Cell 1 is prose, cell 2 holds the parameters, code follows; `tags` are those of the last cell."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# A question")]
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    notebook.cells[1].metadata.tags = ["parameters"]
    if tags:
        notebook.cells[-1].metadata.tags = list(tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def no_kernel(monkeypatch):
    """Make importing what could start a kernel an error."""
    for name in ("papermill", "nbclient", "jupyter_client"):
        monkeypatch.setitem(sys.modules, name, None)


# Parameters


@pytest.mark.parametrize(
    ("line", "annotation", "default", "comment"),
    [
        ("seed: int = 0", "int", 0, ""),
        ("seed: int | None = None  # a = b", "int | None", None, "a = b"),
        ("url = 'a=b#c'  ## d # e = 'f'", None, "a=b#c", "d # e = 'f'"),
        ("sizes: list[int] = [1, -2]", "list[int]", [1, -2], ""),
        ("sizes: list[int] = [\n  1,  # one\n  2,\n]  # all", "list[int]", [1, 2], "all"),
        ("options = {'a': (1, None)}", None, {"a": (1, None)}, ""),
        ("shape: 'tuple[int, float]' = (1, 2)", "'tuple[int, float]'", (1, 2.0), ""),
        ("table: dict[str, list[float]] = {'x': [1]}", "dict[str, list[float]]", {"x": [1.0]}, ""),
        ("name: str = 'two' ' parts'", "str", "two parts", ""),
        ("alpha: float = 1  # made a float", "float", 1.0, "made a float"),
    ],
)
def test_a_line_of_the_parameters_cell_is_read_as_python_reads_it(line, annotation, default, comment):
    (parameter,) = read_cell(f'"""What can be set."""\n# first\n{line}\n').values()
    assert (parameter.annotation, parameter.comment) == (annotation, comment)
    assert repr(parameter.default) == repr(default)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("a = 1\nb = f(1)", r"line 2 .*f\(1\)"),
        ("a = b = 1", "line 1 .*a = b = 1"),
        ("a: int", "line 1"),
        ("import os", "line 1 .*import os"),
        ("%matplotlib inline", "line 1 is not Python"),
        ("a: Path = 'x'", "'Path' is not among int"),
        ("a: list[int] = ['x']", "line 1 .*'x'"),
        ("a = {1, 2}", "not a plain value"),
        ("a = 1e999", "not a plain value"),
        ("a = 1\na = 2", "'a' is declared twice"),
    ],
)
def test_other_lines_are_refused_with_their_number(cell, told, tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", cell)
    with pytest.raises(InputError, match=f"parameters cell of n.ipynb, .*{told}"):
        read_parameters(notebook)


DECLARED = """
seed: int = 0
alpha: float = 1.0  # weight = alpha
flag: bool = False
name: str = 'x'
top: int | None = None
label: str | None = 'a'
either: str | list[int] | dict = 'a'
names: list[str] = []
pair: tuple[int, str] = (0, '')
many: tuple[float, ...] = ()
table: dict[str, int] = {}
plain_int = 3
plain_float = 0.5
plain_list = [1, 'a']
anything = None
"""


@pytest.fixture(scope="session")
def declared(tmp_path_factory):
    return write_notebook(tmp_path_factory.mktemp("declared") / "declared.ipynb", DECLARED)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "-3", -3),
        ("alpha", "2", 2.0),
        ("alpha", "1e-3", 0.001),
        ("flag", "true", True),
        ("flag", "False", False),
        ("name", "3", "3"),
        ("name", "a=b # c", "a=b # c"),
        ("name", "none", "none"),
        ("top", "7", 7),
        ("top", "none", None),
        ("label", "null", None),
        ("label", "12", "12"),
        ("either", "[1, 2]", [1, 2]),
        ("either", "{'a': 1}", {"a": 1}),
        ("either", "[1, 'b']", "[1, 'b']"),
        ("names", "['a=1', '#']", ["a=1", "#"]),
        ("pair", "(1, 'b')", (1, "b")),
        ("many", "(1, 2.5)", (1.0, 2.5)),
        ("table", "{'k': 2}", {"k": 2}),
        ("plain_int", "4", 4),
        ("plain_float", "4", 4.0),
        ("plain_list", "[{}]", [{}]),
        ("anything", "4", 4),
        ("anything", "four", "four"),
    ],
)
def test_a_word_of_the_command_line_is_read_by_its_annotation(declared, name, text, value):
    found = parse_parameters(declared, [(name, text)])
    assert repr(found) == repr({name: value})


@pytest.mark.parametrize(
    ("name", "text", "takes"),
    [
        ("seed", "hello", "int"),
        ("seed", "1.5", "int"),
        ("seed", "true", "int"),
        ("alpha", "nan", "float"),
        ("flag", "1", "bool"),
        ("top", "x", r"int \| None"),
        ("names", "a", r"list\[str\]"),
        ("names", "[1]", r"list\[str\]"),
        ("pair", "(1,)", r"tuple\[int, str\]"),
        ("table", "{'k': 'v'}", r"dict\[str, int\]"),
        ("table", "{[]: 1}", r"dict\[str, int\]"),
        ("plain_int", "0.5", "int as its default 3"),
        ("plain_list", "__import__('os')", "list as its default"),
    ],
)
def test_a_word_of_another_type_is_refused_with_name_type_and_value(declared, name, text, takes):
    with pytest.raises(InputError) as refusal:
        parse_parameters(declared, [(name, text)])
    assert refusal.match(f"'{name}' takes {takes}")
    assert repr(text) in str(refusal.value)


def test_a_grid_is_read_as_a_list_of_literals(declared):
    found = parse_grid(declared, ["seed=[0, 1]", "name=['a=b', 'c']", "alpha=[1]", "top=[None, 2]"])
    assert found == {"seed": [0, 1], "name": ["a=b", "c"], "alpha": [1.0], "top": [None, 2]}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["seed"], "name="),
        (["seed=0"], "name="),
        (["name=[a, b]"], "Python list of literals"),
        (["seed=[0, 'x']"], "'seed' takes int; got 'x'"),
        (["seed=[0, True]"], "'seed' takes int; got True"),
        (["sead=[0]"], "closest: 'seed'"),
        (["seed=[0]", "seed=[1]"], "given twice"),
        (["seed=[]"], "at least one value"),
    ],
)
def test_other_grids_are_refused(declared, options, told):
    with pytest.raises(InputError, match=told):
        parse_grid(declared, options)


# Refusals


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda n: run_notebook(n, parameters={"sead": 1}),
            "no parameter 'sead'.*closest: 'seed'.*it has seed",
        ),
        (lambda n: run_notebook(n, parameters={"seed": "1"}), "'seed' takes int; got '1'"),
        (lambda n: run_notebook(n, parameters={"alpha": math.inf}), "'alpha' takes float; got inf"),
        (lambda n: run_notebook(n, parameters={"name": Path("x")}), "'name' takes str"),
        (lambda n: run_notebook(n, output=n), "replace its own source"),
        (lambda n: run_notebook(n, output=n.parent / "no" / ".." / n.name), "replace its own source"),
        (lambda n: run_notebook(n, output=n.with_suffix(".html")), "has to be an .ipynb file"),
        (lambda n: run_notebook(n.with_name("declare.ipynb")), "no notebook.*closest: 'declared.ipynb'"),
        (lambda n: run_grid(n, grid={"sead": [1]}), "no parameter 'sead'"),
        (lambda n: run_grid(n, grid={"seed": [1, "a"]}), "'seed' takes int; got 'a'"),
        (lambda n: run_grid(n, grid={"seed": [0, 1, 0]}), "'declared-seed=0' twice"),
        (lambda n: run_grid(n, grid={"seed": [0]}, parameters={"seed": 1}), "both given and in the grid"),
        (lambda n: run_grid(n, grid={}), "at least one parameter"),
        (lambda n: run_grid(n, grid={"seed": [0]}, jobs=0), "jobs has to be at least 1"),
    ],
)
def test_mistakes_are_refused_before_anything_is_started_or_written(
    declared, call, told, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = declared.read_bytes()
    with pytest.raises(InputError, match=told):
        call(declared)
    assert declared.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not a notebook"),
        ("[]", "no list of cells"),
        ('{"worksheets": []}', "no list of cells"),
        ('{"cells": [], "metadata": {"kernelspec": {"language": "R"}}}', "written in 'R'"),
    ],
)
def test_a_file_that_is_no_python_notebook_is_refused(tmp_path, content, told):
    path = tmp_path / "n.ipynb"
    path.write_text(content)
    with pytest.raises(InputError, match=told):
        run_notebook(path)


@pytest.mark.usefixtures("no_kernel")
def test_parameters_need_exactly_one_tagged_cell(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "seed: int = 0", "other = 1", tags=["parameters"])
    with pytest.raises(InputError, match="2 cells tagged 'parameters'"):
        run_notebook(path)
    notebook = load(path)
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    path.write_text(json.dumps(notebook))
    assert read_parameters(path) == {}
    with pytest.raises(InputError, match="has no parameters, so 'seed' cannot be set: tag"):
        run_notebook(path, parameters={"seed": 1})


@pytest.mark.usefixtures("no_kernel")
def test_a_failed_copy_used_as_source_is_not_overwritten_by_its_own_failure(tmp_path):
    path = write_notebook(tmp_path / "n.failed.ipynb", "seed: int = 0")
    with pytest.raises(InputError, match="replace its own source"):
        run_notebook(path, output=tmp_path / "n.ipynb")


def test_a_refusal_loads_nothing_heavy(declared):
    code = f"""
import sys
from lmmap.errors import InputError
from lmmap.notebooks import run_notebook
try:
    run_notebook({str(declared)!r}, parameters={{"sead": 1}})
except InputError:
    heavy = {{"papermill", "nbformat", "jupyter_client", "IPython", "numpy", "pandas", "torch"}}
    print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# One run

PARAMETERS = """
text: str = 'a'  # a = b
top: int | None = None
pair: tuple[int, str] = (0, '')
table: dict[int, str] = {}
names: list[str] = []
flag: bool = False
"""
GIVEN = {
    "text": "quote \" ' = # \\ \n モデル",
    "top": 3,
    "pair": (1, "b"),
    "table": {1: "x"},
    "names": ["a=b"],
}
SAY_ALL = """
import json, sys
from pathlib import Path
from lmmap.notebooks import record
asked = ("text", "top", "pair", "table", "names", "flag")
record(values=repr({name: globals()[name] for name in asked}))
record(python=sys.executable, folder=str(Path.cwd()), count=1)
record(count=2)
"""


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """One notebook in a folder with braces, run from elsewhere, where `python3` is another kernel."""
    base = tmp_path_factory.mktemp("ran").resolve()
    notebook = write_notebook(
        base / "{notes}" / "say.ipynb", PARAMETERS, SAY_ALL, "1 / 0", tags=["raises-exception"]
    )
    other = base / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {
        "argv": [str(base / "another-python"), "{connection_file}"],
        "display_name": "",
        "language": "python",
    }
    (other / "kernel.json").write_text(json.dumps(spec))
    (base / "elsewhere").mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from lmmap.notebooks import run_notebook\n"
            f"print(run_notebook({str(notebook)!r}, parameters={GIVEN!r}).output)",
        ],
        cwd=base / "elsewhere",
        env=os.environ | {"JUPYTER_PATH": str(base / "jupyter"), "JUPYTER_PREFER_ENV_PATH": "0"},
        capture_output=True,
        text=True,
    )
    return notebook, base / "elsewhere", done


def test_a_run_says_nothing_but_its_result(ran):
    notebook, cwd, done = ran
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{Path('runs/notebooks/say.ipynb')}\n"
    assert [path.name for path in (cwd / "runs/notebooks").iterdir()] == ["say.ipynb"]
    assert [path.name for path in notebook.parent.iterdir()] == ["say.ipynb"]


def test_values_arrive_exactly_in_this_python_in_the_notebooks_folder(ran):
    notebook, cwd, _ = ran
    run = read_run(cwd / "runs/notebooks/say.ipynb")
    assert run.results["values"] == repr(GIVEN | {"flag": False})
    assert repr(run.parameters) == repr(GIVEN | {"flag": False})
    assert run.results["python"] == sys.executable
    assert run.results["folder"] == str(notebook.parent)
    assert run.results["count"] == 2
    assert run.seconds > 0


def test_a_cell_that_may_raise_fails_nothing_and_leaves_no_banner(ran):
    _, cwd, _ = ran
    executed = nbformat.read(cwd / "runs/notebooks/say.ipynb", as_version=4)
    nbformat.validate(executed)
    assert [cell.cell_type for cell in executed.cells] == ["markdown", "code", "code", "code", "code"]
    assert executed.cells[2].metadata.tags == ["injected-parameters"]
    assert executed.cells[-1].outputs[0].ename == "ZeroDivisionError"


@pytest.mark.usefixtures("no_kernel")
def test_done_means_the_same_source_and_the_same_parameters(ran, tmp_path):
    notebook, cwd, _ = ran
    output = cwd / "runs/notebooks/say.ipynb"
    assert is_done(notebook, GIVEN, output)
    assert is_done(notebook, GIVEN | {"flag": False}, output)  # its default, given
    assert not is_done(notebook, GIVEN | {"flag": True}, output)
    assert not is_done(notebook, {}, output)
    assert not is_done(notebook, GIVEN, notebook)
    assert not is_done(notebook, GIVEN, output.with_name("missing.ipynb"))

    kept = run_notebook(notebook, parameters=GIVEN, output=output, if_needed=True)
    assert kept.kept
    assert kept.results["count"] == 2
    with pytest.raises(ImportError):  # without if_needed it would run again
        run_notebook(notebook, parameters=GIVEN, output=output)

    looked_at, edited = load(notebook), load(notebook)
    looked_at["cells"][2] |= {
        "execution_count": 5,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "x"}],
    }
    (tmp_path / "looked_at.ipynb").write_text(json.dumps(looked_at))
    assert is_done(tmp_path / "looked_at.ipynb", GIVEN, output)
    edited["cells"][2]["source"] += "\n# more"
    (tmp_path / "edited.ipynb").write_text(json.dumps(edited))
    assert not is_done(tmp_path / "edited.ipynb", GIVEN, output)


def test_a_failing_cell_is_named_and_kept_apart_until_the_notebook_runs(tmp_path):
    source = write_notebook(
        tmp_path / "n.ipynb",
        "seed: int = 0",
        "print('reached')",
        "open('missing.txt').read()\n'more'",
        "print('not')",
    )
    output = tmp_path / "out" / "n.ipynb"
    output.parent.mkdir()
    output.write_text("an earlier one")
    with pytest.raises(NotebookFailed) as failure:
        run_notebook(source, output=output)
    failed = output.with_name("n.failed.ipynb")
    assert failure.match(r"^n\.ipynb, cell 4 of 5 failed: FileNotFoundError: .*'missing\.txt'\. Kept as")
    assert str(failed) in str(failure.value)
    assert "\n" not in str(failure.value)
    assert output.read_text() == "an earlier one"
    assert sorted(path.name for path in output.parent.iterdir()) == ["n.failed.ipynb", "n.ipynb"]
    assert "reached" in failed.read_text()
    assert not is_done(source, {}, failed)

    (tmp_path / "missing.txt").write_text("found")
    result = run_notebook(source, output=output)
    assert is_done(source, {}, result.output)
    assert [path.name for path in output.parent.iterdir()] == ["n.ipynb"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os\nos._exit(1)", r"cell 3 of 4 did not end: Kernel died\."),
        ("import sys\nsys.exit(0)", r"cell 3 of 4 failed: SystemExit: 0\."),  # the rest has not run
    ],
)
def test_a_notebook_that_stops_early_has_failed(tmp_path, code, told):
    source = write_notebook(tmp_path / "n.ipynb", "seed: int = 0", code, "1")
    with pytest.raises(NotebookFailed, match=told):
        run_notebook(source, output=tmp_path / "out.ipynb")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.ipynb", "out.failed.ipynb"]


def test_a_kernel_that_does_not_start_is_told_with_its_last_words(tmp_path, monkeypatch):
    source = write_notebook(tmp_path / "n.ipynb", "seed: int = 0")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ipykernel_launcher.py").write_text("raise ImportError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(
        NotebookFailed, match=r"n\.ipynb, its kernel did not start: .*ImportError: half installed"
    ):
        run_notebook(source, output=tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


def wait_until(ready, process):
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)


def wait_for_end_of(pids):
    """Kernels look for their parent once a second."""
    deadline = time.monotonic() + 30
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.05)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def adopting():
    """Become the parent of orphans, as systemd does for a user's session: not process 1."""
    set_child_subreaper = 36
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_child_subreaper, 1)
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_child_subreaper, 0)


@posix
@pytest.mark.usefixtures("adopting")
@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGINT, "in a cell"), (signal.SIGTERM, "in a cell"), (signal.SIGTERM, "as the kernel starts")],
)
def test_a_run_that_is_stopped_leaves_nothing(tmp_path, number, when):
    code = "import time\nopen('here', 'w').close()\ntime.sleep(300)"
    source = write_notebook(tmp_path / "n.ipynb", "seed: int = 0", code)
    call = f"from lmmap.notebooks import run_notebook\nrun_notebook({str(source)!r}, output='out/n.ipynb')"
    process = subprocess.Popen(
        [sys.executable, "-c", call], cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
    )

    def kernels() -> list[psutil.Process]:  # one that has yet to become the kernel keeps its parent waiting
        children = psutil.Process(process.pid).children()
        return [child for child in children if "ipykernel_launcher" in child.cmdline()]

    wait_until((tmp_path / "here").exists if when == "in a cell" else kernels, process)
    (kernel,) = kernels()
    if when == "as the kernel starts":
        kernel.suspend()  # so slow a machine that it does not come to look for its parent in time
    process.send_signal(number)
    assert process.wait(60) != 0
    with suppress(psutil.NoSuchProcess):
        kernel.resume()
    assert list((tmp_path / "out").iterdir()) == []
    wait_for_end_of([kernel.pid])


# Grids

EACH = """
import os, signal, time
from pathlib import Path
from IPython.display import display
from lmmap.notebooks import record
Path(f"pid-{seed}-{os.getpid()}").touch()
time.sleep(0.5)
record(double=2 * seed, method=method)
display({"image/png": "iVBORw0KGgo=\\n", "text/plain": "picture"}, raw=True)
if seed == 1 and method == "b<c":
    raise ValueError("this one never works")
if seed == 2 and method == "b<c":
    os.kill(os.getppid(), signal.SIGKILL)  # the process that runs this notebook
    time.sleep(300)
"""
GRID = {"method": ["a", "b<c"], "seed": [0, 1, 2]}


@pytest.fixture(scope="session")
def grid(tmp_path_factory):
    """A grid of six, stopped once two are done and started again: before, after, and the second result."""
    base = tmp_path_factory.mktemp("grid")
    notebook = write_notebook(base / "each.ipynb", "seed: int = 0\nmethod: str = 'a'\nscale: float = 1", EACH)
    folder = base / "out"
    call = "from lmmap.notebooks import run_grid\n"
    call += f"run_grid({str(notebook)!r}, grid={GRID!r}, output_dir={str(folder)!r}, jobs=2)"
    process = subprocess.Popen(
        [sys.executable, "-c", call], cwd=base, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_until(lambda: len(list(folder.glob("each-*.ipynb"))) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    wait_for_end_of([int(path.name.split("-")[2]) for path in base.glob("pid-*")])
    left = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    result = run_grid(notebook, grid=GRID, output_dir=folder, jobs=2)
    return notebook, left, result


@posix
def test_a_stopped_grid_leaves_whole_runs_only(grid):
    _, left, _ = grid
    assert 2 <= len(left) < 6
    assert all(read_run(path).results["double"] in (0, 2, 4) for path in left)


@posix
def test_a_grid_goes_on_with_what_is_missing(grid):
    notebook, left, result = grid
    kept = {run.output for run in result.runs if run.kept}
    assert kept == set(left)
    assert {path: path.stat().st_mtime_ns for path in kept} == left
    started = [path.name.split("-")[1] for path in notebook.parent.glob("pid-*")]
    assert len(started) <= 6 + 2  # at most the two that were under way were started twice


@posix
def test_one_run_that_fails_or_dies_stops_no_other(grid):
    _, _, result = grid
    assert [run.status for run in result.runs] == ["done"] * 4 + ["failed"] * 2
    assert result.n_failed == 2
    raised, died = result.runs[4:]
    assert "cell 3 of 3 failed: ValueError: this one never works. Kept as" in raised.error
    assert raised.output.name.endswith(".failed.ipynb")
    assert raised.output.exists()
    assert died.error == "its process ended with status -9."
    assert died.output is None


@posix
def test_the_summary_has_a_row_a_run(grid):
    _, _, result = grid
    with result.summary.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["parameter_method"], int(row["seed"])) for row in rows] == [
        (method, seed) for method in GRID["method"] for seed in GRID["seed"]
    ]
    done = [row for row in rows if row["status"] == "done"]
    assert [int(row["double"]) for row in done] == [2 * int(row["seed"]) for row in done]
    assert [row["result_method"] for row in done] == [row["parameter_method"] for row in done]
    assert {row["scale"] for row in rows} == {"1.0"}
    for row, run in zip(done, result.runs, strict=False):
        assert float(row["seconds"]) == run.seconds
        assert (result.summary.parent / row["output"]).samefile(run.output)


class Page(HTMLParser):
    """What a page links to and shows; fails on tags that are not closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.pictures, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name == "href"]
        self.pictures += [value for name, value in attrs if name == "src"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@posix
def test_the_page_shows_every_run_and_needs_no_network(grid):
    _, _, result = grid
    page = Page(result.page.read_text(encoding="utf-8"))
    assert page.pictures == ["data:image/png;base64,iVBORw0KGgo="] * 5  # the run that died left none
    files = [link for link in page.links if not link.startswith("#")]
    assert all((result.page.parent / unquote(link)).exists() for link in files)
    assert len(files) == 5
    assert [word for word in page.words if word.startswith("6. ")] == ["6. method = 'b<c', seed = 2"]


def test_columns_of_one_name_are_told_apart(tmp_path):
    run = GridRun({"status": "x"}, {"a": None, "b": [1]}, None, results={"a": 1, "c": 0.5}, error="<why>")
    write_summary([run], tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().splitlines() == [
        "parameter_status,parameter_a,b,run_status,seconds,output,result_a,c,error",
        "x,,[1],failed,,,1,0.5,<why>",
    ]
    write_page(Path("n.ipynb"), [run], tmp_path / "i.html")
    assert "<why>" in Page((tmp_path / "i.html").read_text()).words


def test_names_of_runs_are_distinct_and_safe_on_every_file_system():
    values = ["a", "A", "a/b", "a:b", "", "x" * 300, "モデル", 1, 1.5, -1, None, True, [1], ["1"], 1e-5]
    names = [run_name("n", {"v": value}) for value in values]
    assert len({name.casefold() for name in names}) == len(values)
    assert all(name.isascii() and len(name) < 60 and not set('<>:"/\\|?* ') & set(name) for name in names)
    long = [run_name("n", {f"p{i}": "y" * 30 for i in range(20)} | {"last": last}) for last in (0, 1)]
    assert len(set(long)) == 2
    assert max(map(len, long)) < 200
