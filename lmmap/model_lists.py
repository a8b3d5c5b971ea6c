"""Model lists: specs read from YAML or CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from reprlib import repr as shortened  # an entry may be a bomb
from typing import Any

from lmmap.errors import InputError, closest
from lmmap.models import Attribute, ModelSpec, check_names, is_path
from lmmap.plain_yaml import plain_scalar, read_yaml

NOT_MISSPELT = ("type", "version", "region", "full_name")  # attributes that look like a field
SWITCHES = ("trust_remote_code", "allow_pickle")
AS_WRITTEN = (
    "model", "name", "revision", "dtype", "prefix", "adapter", "adapter_revision", "quantization",
    "gguf_file",
)  # fmt: skip


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
        entries = (
            _read_csv(path) if path.suffix == ".csv" else read_yaml(path, as_written=AS_WRITTEN, merges=True)
        )
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
    return {key: value if key in AS_WRITTEN else plain_scalar(value) for key, value in cells.items()}


def _spec(entry: object, where: str, folder: Path) -> ModelSpec:
    known = {f.name for f in fields(ModelSpec)} - {"source", "attributes"}
    model = entry.get("model") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(model, str) or not model.strip():
        raise InputError(
            f"{where}: expected `model: HUB_ID_OR_PATH` and further fields, got {shortened(entry)}"
        )
    where = f"{where} ({model})"
    settings: dict[str, Any] = {}
    attributes: dict[str, Attribute] = {}
    for key, value in entry.items():
        if key == "model" or value is None or value != value:  # NaN is no value either
            continue
        if key in known:
            settings[key] = _checked(key, value, where)
        elif key not in NOT_MISSPELT and (close := closest(str(key), known)):
            raise InputError(
                f"{where}: unknown field {key!r}{close}; rename an attribute that means something else"
            )
        elif isinstance(value, list | dict):
            raise InputError(
                f"{where}: attribute {key!r} is {shortened(value)}; attributes are single values"
            )
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
        raise InputError(f"{where}: {key} is {shortened(value)}; it must be a single text")
    return value
