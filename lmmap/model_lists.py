"""Model lists: specs read from YAML or CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmap.errors import InputError, closest
from lmmap.models import Attribute, ModelSpec, check_names, is_path

if TYPE_CHECKING:
    import yaml

NOT_MISSPELT = ("type", "version", "region", "full_name")  # attributes that look like a field
SWITCHES = ("trust_remote_code", "allow_pickle")
AS_WRITTEN = (
    "model", "name", "revision", "dtype", "prefix", "adapter", "adapter_revision", "quantization",
    "gguf_file",
)  # fmt: skip
TAG = "tag:yaml.org,2002:"
PLAIN_SCALARS = {
    "null": r"(~|null|Null|NULL|)",
    "bool": r"(true|True|TRUE|false|False|FALSE)",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?",
    "merge": "<<",
}


def read_models(path: str | Path) -> list[ModelSpec]:
    r"""Read a list of models.

    Parameters
    ----------
    path : str or Path
        YAML: a list of entries with ``model`` (Hub id, folder or ``.gguf`` file; paths are relative to the
        list's own folder) and, if wanted, the other fields of `ModelSpec`, such as ``name``, ``revision``,
        ``dtype``, ``prefix`` or ``adapter``; all further ones are attributes. CSV: the same as columns, a
        cell meaning what it would mean in YAML.

    Returns
    -------
    list of ModelSpec
        In the order of the list.

    Raises
    ------
    InputError
        If the file is missing or malformed, a field is misspelt, or two entries have one name.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "two.yaml"
    >>> _ = file.write_text("- {model: gpt2, family: gpt2}\n- {model: ./mine, prefix: <s>}\n")
    >>> [(spec.name, spec.prefix) for spec in read_models(file)]
    [('gpt2', None), ('mine', '<s>')]
    """
    path = Path(path).expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"no such models list: {path}{closest(path.name, siblings)}")
    try:
        entries = _read_csv(path) if path.suffix == ".csv" else _read_yaml(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list with one entry for each model, `- model: ...`")
    specs = [_spec(entry, f"{path}, entry {i}", path.parent) for i, entry in enumerate(entries, start=1)]
    check_names(specs, str(path))
    return specs


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            columns = list(rows.fieldnames or ())
            if len(set(columns)) < len(columns):
                raise InputError(f"{path}: a column is given twice in {', '.join(columns)}")
            return [_csv_entry(row, f"{path}, line {rows.line_num}") for row in rows]
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.reader.line_num}: not CSV ({error})") from None


def _csv_entry(row: Mapping[Any, Any], where: str) -> dict[str, Any]:
    if None in row:
        raise InputError(f"{where}: more cells than the first line has, {row[None]!r}")
    cells = {key.strip(): value.strip() or value for key, value in row.items() if value}
    return {key: value if key in AS_WRITTEN else _plain_scalar(value) for key, value in cells.items()}


def _plain_scalar(text: str) -> Any:  # noqa: ANN401 - whatever YAML makes of it
    import yaml

    loader = _yaml_loader()("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return loader.construct_object(yaml.ScalarNode(tag, text))


def _read_yaml(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), _yaml_loader())
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from None


@cache
def _yaml_loader() -> type[yaml.SafeLoader]:
    """YAML without its surprises.

    Only null, true, false and decimal numbers are no text (``no`` and dates are), names and revisions stay
    as written whatever they look like, and no field is given twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.MarkedYAMLError(
                        problem=f"field {key!r} is given twice", problem_mark=node.start_mark
                    )
            for key, value in node.value:
                if key.value in AS_WRITTEN and value.tag in (TAG + "int", TAG + "float", TAG + "bool"):
                    value.tag = TAG + "str"
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {}
    for kind, pattern in PLAIN_SCALARS.items():
        Loader.add_implicit_resolver(TAG + kind, re.compile(pattern + r"\Z"), None)
    return Loader


def _spec(entry: object, where: str, folder: Path) -> ModelSpec:
    known = {f.name for f in fields(ModelSpec)} - {"source", "attributes"}
    model = entry.get("model") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(model, str) or not model.strip():
        raise InputError(f"{where}: expected `model: HUB_ID_OR_PATH` and further fields, got {entry!r}")
    where = f"{where} ({model})"
    settings: dict[str, Any] = {}
    attributes: dict[str, Attribute] = {}
    for key, value in entry.items():
        if key == "model" or value is None:
            continue
        if key in known:
            settings[key] = _checked(key, value, where)
        elif key not in NOT_MISSPELT and (close := closest(str(key), known)):
            raise InputError(
                f"{where}: unknown field {key!r}{close}; rename an attribute that means something else"
            )
        elif isinstance(value, list | dict):
            raise InputError(f"{where}: attribute {key!r} is {value!r}; attributes are single values")
        else:
            attributes[str(key)] = value if isinstance(value, str | int | float | bool) else str(value)
    if "adapter" in settings:
        settings["adapter"] = _place(settings["adapter"], folder)
    return ModelSpec(source=_place(model, folder), attributes=attributes, **settings)


def _place(source: str, folder: Path) -> str:
    """Read a source as the list means it: a path relative to the list's folder, or a Hub id."""
    local = folder.absolute() / Path(source).expanduser()
    return str(local) if is_path(source) or local.exists() else source


def _checked(key: str, value: object, where: str) -> object:
    if key not in SWITCHES and not isinstance(value, str):
        raise InputError(f"{where}: {key} is {value!r}; it must be a single text")
    return value
