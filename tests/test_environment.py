"""pyproject.toml (ranges), constraints.txt (pins) and environment.yml (conda) say the same."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONDA_LINES = [line for line in CONDA["dependencies"] if isinstance(line, str)]
PIP_LINES = next(line["pip"] for line in CONDA["dependencies"] if isinstance(line, dict))

PYPI_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # of conda packages
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}  # of modules
NOT_TRIED = {"datasets"}  # reads from the Hub, which the tests never reach
OF_TORCH = {"triton"}  # comes with CUDA builds of torch, each of which needs its own version


def ranges(lines: list[str]) -> dict[str, SpecifierSet]:
    """Ranges by package name, without lmmap's own extras."""
    read = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in read if r.name != "lmmap"}


DEPENDENCIES = ranges(PROJECT["dependencies"])
EXTRAS = {name: ranges(lines) for name, lines in PROJECT["optional-dependencies"].items()}
PINNED = {canonicalize_name(name): version for name, version in (line.split("==") for line in PINS)}


@pytest.mark.parametrize("line", CONDA_LINES)
def test_conda_reads_the_line(line: str) -> None:
    spec = MatchSpec(line, strict=True)
    assert (spec.channel, spec.build) == (None, None)


def test_conda_would_refuse_a_malformed_line() -> None:
    with pytest.raises(InvalidMatchSpecError):
        MatchSpec("numpy =>2", strict=True)


def test_conda_environment_asks_for_what_pyproject_asks_for() -> None:
    specs = [MatchSpec(line, strict=True) for line in CONDA_LINES]
    conda = {spec.name.normalized: SpecifierSet(spec.version or "") for spec in specs}
    assert conda.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert conda.pop("pip") == SpecifierSet("")
    asked = {canonicalize_name(PYPI_NAMES.get(name, name)): versions for name, versions in conda.items()}
    by_pip = ranges([line for line in PIP_LINES if line != "-e ."])
    assert len(by_pip) == len(PIP_LINES) - 1, "the checkout itself comes last, by pip"
    assert "torch" not in by_pip, "a torch by pip beside conda's breaks both"
    assert asked | by_pip == DEPENDENCIES | EXTRAS["gguf"]
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]


def test_pins_are_exact_sorted_and_without_a_build_of_torch() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    names = [line.partition("==")[0].lower() for line in PINS]
    assert sorted(set(names)) == names
    assert PINNED["torch"] == "2.13.0"


@pytest.mark.parametrize("group", ["dependencies", *EXTRAS])
def test_each_range_holds_its_pin(group: str) -> None:
    asked = DEPENDENCIES if group == "dependencies" else EXTRAS[group]
    unpinned = asked.keys() - PINNED.keys() - NOT_TRIED - OF_TORCH
    assert not unpinned, f"constraints.txt lacks {sorted(unpinned)}"
    outside = {name: PINNED[name] for name in asked.keys() & PINNED.keys() if PINNED[name] not in asked[name]}
    assert not outside, f"pinned outside the range of pyproject.toml: {outside}"


@pytest.mark.skipif(sys.platform != "linux", reason="the pins were made on Linux")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pins were made with Python 3.11")
def test_all_that_gets_installed_is_pinned() -> None:
    missing = everything_below("lmmap", "dev") - PINNED.keys() - OF_TORCH - {"lmmap"}
    assert not missing, f"constraints.txt lacks {sorted(missing)}"


def everything_below(name: str, extra: str) -> set[str]:
    """Names of all that a distribution needs here; what torch needs differs by build and is left out."""
    wanted, seen = {(name, ""), (name, extra)}, {("torch", "")}
    while wanted:
        name, extra = wanted.pop()
        seen.add((name, extra))
        for need in map(Requirement, requires_of(name)):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                wanted |= {(canonicalize_name(need.name), extra) for extra in ("", *need.extras)}
        wanted -= seen
    return {name for name, _ in seen}


def requires_of(name: str) -> list[str]:
    """Requirements of an installed distribution."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        raise AssertionError(f"{name} is needed and not installed; run: make test") from None


def test_all_that_is_imported_is_declared() -> None:
    declared = set(DEPENDENCIES).union(
        *(EXTRAS[extra] for extra in EXTRAS if extra != "dev"), OF_TORCH, {"lmmap"}
    )
    undeclared = {
        f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
        for file in sorted((ROOT / "lmmap").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in imported(node)
        if name not in sys.stdlib_module_names
        and canonicalize_name(DISTRIBUTIONS.get(name, name)) not in declared
    }
    assert not undeclared, "imported, but not in pyproject.toml:\n" + "\n".join(sorted(undeclared))


def imported(node: ast.AST) -> list[str]:
    """Top-level modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").partition(".")[0]]
    return []
