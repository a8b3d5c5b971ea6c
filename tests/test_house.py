"""The house keeps its shape: who imports what, what `import lmmap` does, how public names are documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import lmmap

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "lmmap").rglob("*.py"))
INSTALLERS = [
    ".ci/run",
    ".pre-commit-config.yaml",
    "Makefile",
    "constraints.txt",
    "environment.yml",
    "pyproject.toml",
]
HEAVY = (
    "IPython accelerate datasets matplotlib numba numpy pandas papermill pyarrow scipy seaborn sklearn torch"
)
HEAVY_MODULES = {*HEAVY.split(), "transformers", "umap"}


class Room(NamedTuple):
    """What a file or a folder of lmmap/ may import."""

    rooms: str = ""  # of lmmap, anywhere in the file; within itself a room is free
    at_top: str = ""  # of others, when the module is imported
    when_needed: str = ""  # of others, inside functions or for type checkers


# From the ground up: a room uses rooms above it in this table only.
ROOMS = {
    "version": Room(),
    "errors": Room(),
    "files": Room(),
    "signals": Room(),
    "tables": Room("files", "numpy pyarrow"),
    "geometry": Room("errors", "numpy"),
    "segments": Room("errors", "numpy"),
    "estimates": Room("errors geometry segments", "numpy"),
    "pair_flags": Room("errors estimates geometry segments", "numpy"),
    "text_sums": Room("errors estimates segments", "numpy"),
    "text_groups": Room("errors geometry segments text_sums", "numpy"),
    "chains": Room("errors segments", "numpy"),
    "laboratory": Room("errors chains estimates geometry segments", "numpy pandas"),
    "texts": Room("errors files", "numpy pandas pyarrow"),
    "text_files": Room("errors files texts", "pandas pyarrow", "datasets"),
    "chunks": Room("errors texts text_files"),
    "models": Room("errors files"),
    "plain_yaml": Room("errors", "", "yaml"),
    "model_lists": Room("errors models plain_yaml"),
    "loglik": Room("errors geometry", "numpy pandas", "xarray"),
    "lookalike": Room("errors geometry loglik", "numpy pandas"),
    "parts": Room("files", "filelock numpy"),
    "store": Room(
        "errors files tables texts text_files models loglik parts", "filelock numpy pandas pyarrow"
    ),
    "export": Room("version errors files tables loglik store", "numpy pandas"),
    "imports": Room("errors files models plain_yaml store text_files texts", "numpy", "pyarrow"),
    "token_records": Room("errors segments store", "numpy pyarrow"),
    "layouts": Room("errors geometry", "numpy", "sklearn threadpoolctl umap"),
    "resolution": Room("errors", "numpy"),
    "error_bars": Room("errors geometry resolution", "numpy"),
    "recipes": Room("errors loglik resolution", "numpy pandas"),
    "modelmap": Room("errors geometry loglik layouts recipes", "numpy pandas"),
    "analyses": Room("errors geometry loglik modelmap", "numpy pandas", "scipy sklearn"),
    "explorer": Room(
        "errors geometry segments estimates text_sums text_groups loglik store token_records layouts "
        "error_bars recipes modelmap",
        "numpy pandas threadpoolctl",
    ),
    "scoring": Room(
        "version errors files signals texts models parts store",
        "accelerate numpy torch triton",
        "bitsandbytes peft torchao transformers",
    ),
    "placing": Room(
        "errors geometry loglik models store imports error_bars recipes modelmap scoring", "numpy pandas"
    ),
    "exact_kl": Room("errors files geometry segments estimates texts models scoring", "numpy pandas torch"),
    "recommended": Room("errors segments estimates store token_records", "numpy pandas"),
    "microscope": Room("errors geometry loglik segments estimates error_bars exact_kl", "numpy pandas"),
    "plotting": Room(
        "errors files geometry loglik error_bars recipes modelmap analyses microscope",
        "matplotlib numpy pandas scipy seaborn textalloc",
    ),
    "notebooks": Room(
        "errors files signals",
        "ipykernel jupyter_client traitlets zmq",
        "IPython nbconvert nbformat papermill tqdm",
    ),
    "demo": Room(
        "errors files texts text_files chunks models store scoring",
        "filelock numpy safetensors tokenizers torch tqdm transformers",
        "babel gguf yaml",
    ),
    "widgets": Room(
        "errors files geometry segments models store token_records recipes modelmap explorer scoring "
        "microscope plotting",
        "anywidget ipywidgets numpy pandas traitlets",
        "IPython matplotlib",
    ),
    "cli": Room(
        "errors signals texts text_files chunks models model_lists store imports export recommended "
        "modelmap explorer scoring placing plotting notebooks demo",
        "click",
        "pandas torch tqdm",
    ),
    "__main__": Room("cli"),
    "__init__": Room("version"),  # the others by name, when first used
}


class Import(NamedTuple):
    """One imported module, as it stands in a file."""

    file: Path
    line: int
    module: str
    at_top: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.module}"


def test_rooms_import_what_the_table_allows() -> None:
    offences = [
        f"{found} {why}" for file in MODULES for found in imports_of(file) for why in objections(found)
    ]
    assert not offences, "against the table in tests/test_house.py:\n" + "\n".join(offences)


def test_the_table_points_down_and_has_no_empty_room() -> None:
    order = list(ROOMS)
    upward = {
        (room, below)
        for room in order
        for below in ROOMS[room].rooms.split()
        if below not in order[: order.index(room)]
    }
    assert not upward
    assert {room_of(file) for file in MODULES} == set(order)


def test_no_module_imports_itself_in_a_circle() -> None:
    needs = {dotted(file): {found.module for found in imports_of(file) if found.at_top} for file in MODULES}
    assert list(TopologicalSorter(needs).static_order())  # CycleError names the circle


def objections(found: Import) -> Iterator[str]:
    """Why an import is against the table, if it is."""
    room = ROOMS.get(room_of(found.file), Room())
    if found.package == "lmmap":
        below = found.module.split(".")[1] if "." in found.module else "__init__"
        if below not in (*room.rooms.split(), room_of(found.file)):
            yield "is a room that this one does not use"
    elif found.package not in sys.stdlib_module_names:
        if found.package not in (*room.at_top.split(), *room.when_needed.split()):
            yield "is not of this room"
        elif found.at_top and found.package not in room.at_top.split():
            yield "belongs inside the functions that need it"


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "lmmap").parts[0].removesuffix(".py")


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> list[Import]:
    """All imports of a file; `from lmmap.room import module` counts as that module."""
    found = []
    for node, at_top in statements(ast.parse(file.read_text(encoding="utf-8")), at_top=True):
        if isinstance(node, ast.Import):
            found += [Import(file, node.lineno, alias.name, at_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the import in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names} & set(map(dotted, MODULES))
            found += [Import(file, node.lineno, name, at_top) for name in names or {str(node.module)}]
    return found


def statements(parent: ast.AST, *, at_top: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it runs when the module is imported."""
    for node in ast.iter_child_nodes(parent):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        yield node, at_top
        yield from statements(node, at_top=at_top and not later and not typing_only)


WATCHED_IMPORT = """
import json, logging, os, sys
before = (list(logging.root.handlers), logging.root.level)
writes = []
def watch(event, args):
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        writes.append(str(args[0]))
    elif event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}:
        writes.append(f"{event} {args[0]}")
sys.addaudithook(watch)
import lmmap
quiet = writes.copy()
open("seen", "w").close()
os.mkdir("folder")
handlers = [type(handler).__name__ for handler in logging.getLogger("lmmap").handlers]
print(json.dumps({
    "modules": sorted(sys.modules), "quiet": quiet, "writes": writes, "handlers": handlers,
    "root_untouched": before == (logging.root.handlers, logging.root.level),
}))
"""


def in_a_fresh_python(code: str, folder: Path) -> Any:
    """What a new interpreter prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_lmmap_is_light_and_leaves_no_trace(tmp_path: Path) -> None:
    seen = in_a_fresh_python(WATCHED_IMPORT, tmp_path)
    assert not HEAVY_MODULES & set(seen["modules"])
    assert seen["quiet"] == []
    assert seen["writes"] == ["seen", "os.mkdir folder"], "the watch itself must see what is written"
    assert set(seen["handlers"]) <= {"NullHandler"}
    assert seen["root_untouched"]


HELP_OF_ALL = """
import json, sys
from lmmap.cli import main
for words in [[], *([name] for name in main.commands)]:
    main([*words, "--help"], standalone_mode=False)
print(json.dumps([sorted(main.commands), sorted(sys.modules)]))
"""


def test_help_of_every_command_loads_nothing_heavy(tmp_path: Path) -> None:
    commands, modules = in_a_fresh_python(HELP_OF_ALL, tmp_path)
    assert {"demo", "map", "run", "score", "status"} <= set(commands)
    assert not HEAVY_MODULES & set(modules)


# Public names whose docstring shows no example, and why.
NO_EXAMPLE = {
    "InputError": "an exception: every other page says when it is raised",
    "Segments": "made by functions that show it",
    "Store": "needs a folder of scores",
    "load_model": "needs a model's files",
    "exact_kl_on_texts": "needs models' files",
    "exact_kl_on_samples": "needs models' files",
    "enumerate_sequences": "needs models' files",
    "half_jeffreys_of_sequences": "needs models' files",
    "text_kl_on_samples": "needs models' files",
    "with_sliders": "a picture that moves: notebook 00",
    "plot_estimate_vs_exact": "a picture: notebook 06",
    "plot_kl_heatmap": "a picture: notebook 03",
    "pick_pair": "a page that changes: notebook 06",
    "explore": "shows widgets in a notebook",
    "show_map": "shows a widget in a notebook",
    "open_explorer": "needs a folder of scores",
    "import_scores": "needs a published file",
    "write_card": "needs a folder of scores",
    "place_model": "needs a model's files",
    "mixed_copy": "needs models' files",
    "plot_map": "a picture: notebook 07",
    "plot_pair": "a picture: notebook 06",
    "plot_sweep": "a picture: notebook 06",
    "plot_matrix": "a picture: notebook 03",
    "read_documents": "as `read_texts`, one whole file after the other",
    "save_figure": "writes a picture",
    "read_segments": "needs a folder of scores",
    "recommended_kl": "needs a folder of scores",
    "score_live": "a table that lives: notebook 02",
    "score_models": "needs models' files",
    "score_texts": "needs a model's files",
}


@pytest.mark.parametrize("name", lmmap.__all__)
def test_public_names_are_documented(name: str) -> None:
    public = getattr(lmmap, name)
    text = inspect.getdoc(public) or ""
    assert text, f"{name} has no docstring"
    assert ("Examples\n--------" in text and ">>> " in text) != (name in NO_EXAMPLE), (
        "show it, or say why not"
    )
    if inspect.isfunction(public):
        described = re.findall(
            r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: : |$)", section(text, "Parameters"), re.MULTILINE
        )
        names = [one.strip("* ") for line in described for one in line.split(",")]
        assert names == list(inspect.signature(public).parameters)
        assert (
            section(text, "Returns") or section(text, "Yields") or public.__annotations__["return"] == "None"
        )


def test_public_names_are_those_of_their_rooms() -> None:
    for name in lmmap.__all__:
        assert getattr(lmmap, name) is getattr(importlib.import_module(getattr(lmmap, name).__module__), name)
    assert set(lmmap.__all__) <= set(dir(lmmap))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lmmap.nothing


def section(text: str, title: str) -> str:
    """Body of one section of a numpydoc docstring, without its indented lines."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n\w+(?: \w+)?\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return "\n".join(line for line in found[1].splitlines() if not line.startswith(" ")) if found else ""


def tracked_files() -> list[Path]:
    """Files that git has or would take; none in a copy without git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    folder = re.compile(rb"(?<![\w.])/(?:home|root|Users|work|farm)/\w")
    files = tracked_files()
    found = [
        f"{file.relative_to(ROOT)}: {hit[0]!r}" for file in files if (hit := folder.search(file.read_bytes()))
    ]
    assert ROOT / "pyproject.toml" in files
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", INSTALLERS)
def test_installing_names_no_host(name: str) -> None:
    assert "://" not in (ROOT / name).read_text(encoding="utf-8"), "pip and conda know where to look"
