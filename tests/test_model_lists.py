"""The lists in models/: they read, say what colours a map, and hold what their first line promises."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from lmmap.model_lists import read_models
from lmmap.models import ModelSpec

FOLDER = Path(__file__).parent.parent / "models"
HUB_LISTS = ["pythia", "small-open", "starter-laptop"]


def hub_list(name: str) -> list[ModelSpec]:
    return read_models(FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("name", HUB_LISTS)
def test_each_entry_is_a_hub_model_with_what_colours_a_map(name: str) -> None:
    for spec in hub_list(name):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", spec.source)
        assert not spec.is_local
        assert set(spec.attributes) - {"step"} == {"family", "n_parameters", "created_at"}
        assert isinstance(spec.attributes["n_parameters"], int)
        assert re.fullmatch(r"20[12]\d-(0[1-9]|1[0-2])(-[0-3]\d)?", str(spec.attributes["created_at"]))


@pytest.mark.parametrize("name", HUB_LISTS)
def test_no_two_entries_are_one_row(name: str) -> None:
    specs = hub_list(name)
    assert len({(spec.source, spec.revision) for spec in specs}) == len(specs)
    assert len({spec.row_id for spec in specs}) == len(specs)


@pytest.mark.parametrize("name", HUB_LISTS)
def test_the_list_says_that_it_needs_the_hub(name: str) -> None:
    assert "Needs the Hugging Face Hub; nothing is fetched until you score it." in (
        FOLDER / f"{name}.yaml"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "fewest", "most_parameters"), [("starter-laptop", 12, 200e6), ("small-open", 30, 3e9)]
)
def test_lists_are_as_long_and_their_models_as_small_as_they_say(
    name: str, fewest: int, most_parameters: float
) -> None:
    specs = hub_list(name)
    assert len(specs) >= fewest
    assert {spec.name for spec in specs if spec.attributes["n_parameters"] > most_parameters} == set()


def test_models_named_in_two_lists_are_described_alike() -> None:
    described: dict[tuple[str, str | None], object] = {}
    for spec in (spec for name in HUB_LISTS for spec in hub_list(name)):
        assert described.setdefault((spec.source, spec.revision), spec.attributes) == spec.attributes


def test_pythia_has_sizes_and_two_roads_of_checkpoints() -> None:
    finished = [spec for spec in hub_list("pythia") if spec.revision is None]
    sizes = [spec.attributes["n_parameters"] for spec in finished]
    assert sizes == sorted(sizes)
    assert len(sizes) == 10
    roads: dict[str, list[int]] = {}
    for spec in hub_list("pythia"):
        if spec.revision is not None:
            assert spec.revision == f"step{spec.attributes['step']}"
            roads.setdefault(spec.source, []).append(int(spec.attributes["step"]))
    assert len(roads) == 2
    for steps in roads.values():
        assert steps[0] == 0
        assert all(later / earlier <= 4 for earlier, later in pairwise(steps[1:]))
        assert set(steps) <= {0, *(2**k for k in range(10)), *range(1000, 143001, 1000)}, "saved on the Hub"
