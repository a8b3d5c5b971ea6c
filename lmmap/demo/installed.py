"""Files of the installed packages, of eight kinds: text that is on every machine that has lmmap.

Nothing is downloaded and nothing is shipped. The texts depend only on the versions of the packages (and, for
the licences of bundled libraries, on the platform of their wheels).
"""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import PackageNotFoundError, PackagePath, distribution, version
from itertools import islice
from pathlib import Path

# What lmmap needs to run, and what that needs: never a development tool, never torch, whose builds differ.
PACKAGES = (
    "accelerate", "asttokens", "attrs", "babel", "beautifulsoup4", "bleach", "charset-normalizer", "click",
    "cycler", "debugpy", "fonttools", "fsspec", "httpx", "huggingface-hub", "idna", "ipykernel", "ipython",
    "ipywidgets", "jedi", "jinja2", "joblib", "json5", "jsonschema", "jsonschema-specifications",
    "jupyter-builder", "jupyter-client", "jupyter-core", "jupyter-events", "jupyter-lsp", "jupyter-server",
    "jupyter-server-terminals", "jupyterlab", "jupyterlab-pygments", "jupyterlab-server",
    "jupyterlab-widgets", "kiwisolver", "matplotlib", "mistune", "mpmath", "nbclient", "nbconvert",
    "nbformat", "networkx", "numpy", "packaging", "pandas", "papermill", "parso", "pillow",
    "prompt-toolkit", "psutil", "pyarrow", "pydantic", "pygments", "pyparsing", "python-dateutil", "pyyaml",
    "pyzmq", "regex", "requests", "rich", "scikit-learn", "scipy", "seaborn", "setuptools", "sympy",
    "terminado", "textalloc", "threadpoolctl", "tokenizers", "tornado", "tqdm", "traitlets", "transformers",
    "typer", "typing-extensions", "tzdata", "urllib3", "wcwidth", "websocket-client", "widgetsnbextension",
)  # fmt: skip
LANGUAGES = (  # of scripts that several of them share, so that training meets the scripts that are scored
    "ar", "be", "bg", "cs", "da", "de", "es", "fa", "fi", "fr", "hi", "hr", "hu", "id", "it", "ja", "kk",
    "lt", "mk", "mr", "ne", "nl", "no", "pl", "ps", "pt", "ro", "ru", "sk", "sr", "sv", "sw", "tr", "uk",
    "ur", "vi", "yue", "zh", "zh_Hant",
)  # fmt: skip
NAMES = "babel/locale-data/"
DOMAINS = ("css", "data", "javascript", "json", "licences", "prose", "python", "translations")
MAX_FILES = 160  # of a kind
MAX_CHARACTERS = 65_536  # of a file
MINIFIED = 200  # characters a line
LOGS_AND_BUNDLES = {"build_log.json", "install.json", "kernel.json", "third-party-licenses.json"}


def domain_of(path: str) -> str | None:
    """Tell the kind of an installed file from its path.

    Parameters
    ----------
    path : str
        The path as the package's file list has it, with forward slashes.

    Returns
    -------
    str or None
        One of `DOMAINS`, or nothing for files that are not used.

    Examples
    --------
    >>> domain_of("numpy-2.4.6.dist-info/licenses/LICENSE.txt"), domain_of("numpy/_core/numeric.py")
    ('licences', 'python')
    >>> domain_of("numpy-2.4.6.dist-info/RECORD") is None
    True
    """
    name, suffix = path.rsplit("/", 1)[-1], path.rsplit(".", 1)[-1].lower()
    if name == "METADATA":
        return "prose"
    if re.match(r"(licen[cs]e|copying|notice|thirdparty)", name.lower()) and suffix not in {"py", "json"}:
        return "licences"
    if ".dist-info/" in path or name in LOGS_AND_BUNDLES:
        return None
    kinds = {"md": "prose", "rst": "prose", "py": "python", "js": "javascript", "po": "translations"}
    kinds |= {"css": "css", "json": "json"} | dict.fromkeys(("csv", "tab", "arff", "afm"), "data")
    if suffix == "dat":
        return "translations" if path.removeprefix(NAMES).removesuffix(".dat") in LANGUAGES else None
    return kinds.get(suffix)


def demo_documents(seed: int = 0) -> dict[str, dict[str, str]]:
    """Read the installed packages' files, at most 160 of a kind, no two alike.

    Parameters
    ----------
    seed : int
        Which files, and in which order.

    Returns
    -------
    dict
        For each of `DOMAINS`: file name -> its first 65,536 characters, in a seeded order.
    """
    return {domain: _read_some(candidates, seed) for domain, candidates in _candidates().items()}


def installed_versions() -> dict[str, str]:
    """Give the versions of the packages that are read, those that are installed.

    Returns
    -------
    dict
        Package -> version.
    """
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def seeded_order(seed: int, name: str) -> bytes:
    """Give a sort key that shuffles names, each by itself: a new file does not move the others.

    Parameters
    ----------
    seed : int
        Another seed, another order.
    name : str
        What is sorted.

    Returns
    -------
    bytes
        The key.
    """
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _candidates() -> dict[str, dict[str, Path]]:
    """List for each kind the installed files by name."""
    found: dict[str, dict[str, Path]] = {domain: {} for domain in DOMAINS}
    for package in PACKAGES:
        for file in _files(package):
            name = file.as_posix().lstrip("./")
            domain = domain_of(name)
            if domain is not None:
                found[domain][name] = Path(str(file.locate()))
    return found


def _files(package: str) -> list[PackagePath]:
    try:
        return distribution(package).files or []
    except PackageNotFoundError:
        return []


def _read_some(candidates: dict[str, Path], seed: int) -> dict[str, str]:
    """Read files in a seeded order until there are enough; no more minified ones than others."""
    readable: dict[str, str] = {}
    minified: dict[str, str] = {}
    contents = {""}
    for name in sorted(candidates, key=lambda name: seeded_order(seed, name)):
        text = _read(candidates[name])
        if text not in contents:
            contents.add(text)
            group = minified if len(text) > MINIFIED * (text.count("\n") + 1) else readable
            group[name] = text
        if len(readable) == MAX_FILES:
            break
    return readable | dict(islice(minified.items(), len(readable)))


def _read(path: Path) -> str:
    """Read the first part of a file; nothing if it is no UTF-8 text."""
    if path.suffix == ".dat":
        return _names(path.stem)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    if path.name == "METADATA":
        text = text.partition("\n\n")[2]
    return text[:MAX_CHARACTERS]


def _names(language: str) -> str:
    """Take what a language calls countries, languages, scripts, currencies and units, a line each."""
    from babel import localedata

    data = localedata.load(language, merge_inherited=False)
    units = [unit.get("long", "") for unit in data["unit_display_names"].values()]
    tables = [data[table].values() for table in ("territories", "languages", "scripts", "currency_names")]
    return "\n".join(name for table in [*tables, units] for name in table if isinstance(name, str) and name)
