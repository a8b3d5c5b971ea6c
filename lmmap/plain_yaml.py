"""YAML without its surprises: plain values only, each key once, nothing that a few lines blow up."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmap.errors import InputError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 2**22  # read at a fraction of a megabyte a second
MOST_FIELDS = 100  # of an entry that takes over another's
TAG = "tag:yaml.org,2002:"
PLAIN_SCALARS = {  # whatever else a value looks like, it is a text: dates, `no`, `1:30`
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9_]{0,23})",
    "float": r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|\.nan|\.NaN",
}


def read_yaml(path: Path, *, as_written: Collection[str] = (), merges: bool = False) -> Any:  # noqa: ANN401
    r"""Read a YAML file of plain values.

    Parameters
    ----------
    path : Path
        UTF-8, at most 4 MiB.
    as_written : collection of str
        Keys whose values stay texts, whatever they look like.
    merges : bool
        Whether an entry may take over another's fields, ``<<: *other``.

    Returns
    -------
    object
        Lists, dicts, texts, decimal numbers, ``.nan``, true, false and None.

    Raises
    ------
    InputError
        If the file is too large, not UTF-8 or not YAML; if it holds another alias, a tag, or a key twice.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "one.yaml"
    >>> _ = file.write_text("name: 007\nsize: 7\ndate: 2024-10-01")
    >>> read_yaml(file, as_written={"name"})
    {'name': '007', 'size': 7, 'date': '2024-10-01'}
    """
    import yaml

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path}: {size:,} bytes, more than the {MAX_BYTES:,} of YAML that are read")
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), _loader(frozenset(as_written), merges))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML: {error}") from None


def plain_scalar(text: str) -> Any:  # noqa: ANN401 - whatever YAML makes of it
    """Give what a single value means.

    Examples
    --------
    >>> plain_scalar("1e3"), plain_scalar("no"), plain_scalar("")
    (1000.0, 'no', None)
    """
    import yaml

    loader = _loader()("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return loader.construct_object(yaml.ScalarNode(tag, text))


@cache
def _loader(as_written: frozenset[str] = frozenset(), merges: bool = False) -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses aliases, of which a few lines can mean millions, and tags, of which some take forever."""

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
            event = self.peek_event()  # type: ignore[no-untyped-call]
            is_merge = merges and getattr(index, "value", None) == "<<"
            if isinstance(event, yaml.AliasEvent) and not is_merge:
                read = "read as `<<: *other` alone" if merges else "not read"
                raise _wrong(f"an alias is {read}; write the value out", event)
            if getattr(event, "tag", None) is not None:
                raise _wrong(f"the tag {event.tag[:40]!r} is not read; write the plain value", event)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _wrong("a key is no text", key)
                if key.value in seen:
                    raise _wrong(f"{key.value[:80]!r} is given twice", key)
                seen.add(key.value)
                if key.value in as_written and value.tag in (TAG + "int", TAG + "float", TAG + "bool"):
                    value.tag = TAG + "str"
            return super().construct_mapping(node, deep)

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            n_own = len(node.value)
            super().flatten_mapping(node)
            if len(node.value) > max(n_own, MOST_FIELDS):
                raise _wrong(f"an entry takes over more than {MOST_FIELDS} fields", node)

    def _wrong(problem: str, place: Any) -> yaml.MarkedYAMLError:  # noqa: ANN401 - a node or an event
        return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)

    Loader.yaml_implicit_resolvers = {}
    for kind, pattern in (PLAIN_SCALARS | ({"merge": "<<"} if merges else {})).items():
        Loader.add_implicit_resolver(TAG + kind, re.compile(rf"(?:{pattern})\Z"), None)
    return Loader
