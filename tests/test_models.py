"""Model lists mean what they say, and a row id stands for everything that decides the scores."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmap.errors import InputError
from lmmap.model_lists import read_models
from lmmap.models import ModelSpec, check_names, is_path, slug

ReadList = Callable[..., list[ModelSpec]]


@pytest.fixture
def read(tmp_path: Path) -> ReadList:
    """Give a function that writes a list and reads it."""

    def read_content(content: str | bytes, name: str = "list.yaml") -> list[ModelSpec]:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return read_models(tmp_path / name)

    return read_content


def described(spec: ModelSpec) -> tuple[object, ...]:
    values = {key: (type(value), value) for key, value in spec.attributes.items()}
    return spec.name, spec.source, spec.recipe, values


def save_model(folder: Path, weights: bytes = b"\x00\x01") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


# Lists


def test_fields_and_attributes_keep_their_types(read):
    first, second = read("""
        - model: EleutherAI/pythia-70m
          name: small
          revision: step512
          dtype: bfloat16
          prefix: "<|endoftext|>"
          trust_remote_code: true
          family: pythia
          n_parameters: 70426624
          share: 0.25
          open: true
          created_at: 2023-04-01
          month: 2023-04
          language: no
          note:
        - {model: gpt2}
    """)
    assert first == ModelSpec(
        "EleutherAI/pythia-70m", "small", "step512", "bfloat16", "<|endoftext|>", trust_remote_code=True
    )
    assert described(first)[-1] == {
        "family": (str, "pythia"),
        "n_parameters": (int, 70426624),
        "share": (float, 0.25),
        "open": (bool, True),
        "created_at": (str, "2023-04-01"),
        "month": (str, "2023-04"),
        "language": (str, "no"),
    }
    assert described(second)[0] == "gpt2"
    assert (second.revision, second.dtype, second.prefix) == (None, None, None)
    assert (second.trust_remote_code, second.attributes) == (False, {})


YAML = """
- model: EleutherAI/pythia-70m
  revision: step512
  family: pythia
  n_parameters: 7.0e7
  created_at: 2023-04-01
  type: base
- {model: openai-community/gpt2, name: GPT 2, dtype: float32, n_parameters: 124439808, language: no}
- model: ./zoo/小さい
  prefix: "<s>"
  trust_remote_code: false
  n_parameters: 1e6
  open: true
  note: a, b
"""
CSV = """\
model,name,revision,dtype,prefix,trust_remote_code,family,n_parameters,created_at,type,language,open,note
EleutherAI/pythia-70m,,step512,,,,pythia,7.0e7,2023-04-01,base,,,
openai-community/gpt2,GPT 2,,float32,,,,124439808,,,no,,
./zoo/小さい,,,,<s>,false,,1e6,,,,true,"a, b"
"""


@pytest.mark.parametrize("mend", [str, lambda text: "\ufeff" + text.replace("\n", "\r\n")])
def test_yaml_and_csv_give_equal_lists(read, mend):
    from_yaml = read(mend(YAML), "list.yaml")
    from_csv = read(mend(CSV), "list.csv")
    assert from_yaml == from_csv
    assert [described(spec) for spec in from_yaml] == [described(spec) for spec in from_csv]
    assert [spec.row_id for spec in from_yaml] == [spec.row_id for spec in from_csv]
    assert [spec.name for spec in from_yaml] == ["pythia-70m@step512", "GPT 2", "小さい"]
    assert [spec.attributes["n_parameters"] for spec in from_csv] == [7e7, 124439808, 1e6]


@pytest.mark.parametrize(
    "written", ["step1000", "1000", "0123", "1.10", "1e3", "1_0", "true", "no", "12:30", "2024-01-01"]
)
def test_names_and_revisions_stay_as_written(read, written):
    (from_yaml,) = read(f"- {{model: a, revision: {written}, name: {written}, prefix: {written}}}")
    (quoted,) = read(f"- {{model: a, revision: '{written}', name: '{written}', prefix: '{written}'}}")
    (from_csv,) = read(f"model,revision,name,prefix\na,{written},{written},{written}\n", "list.csv")
    assert from_yaml == quoted == from_csv == ModelSpec("a", written, written, prefix=written)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("70_426_624", 70426624),
        ("1.5", 1.5),
        ("1e9", 1e9),
        ("-.5E-3", -5e-4),
        ("TRUE", True),
        ("False", False),
        ("0123", "0123"),
        ("yes", "yes"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("2023-07", "2023-07"),
        ("2023-07-01", "2023-07-01"),
        ("nan", "nan"),
        ("infinity", "infinity"),
        ("0x10", "0x10"),
        ("1.2.3", "1.2.3"),
        ("日本語", "日本語"),
    ],
)
def test_what_a_plain_word_means_in_both_kinds_of_list(read, written, value):
    for spec in (*read(f"- {{model: a, x: {written}}}"), *read(f"model,x\na,{written}\n", "list.csv")):
        assert (type(spec.attributes["x"]), spec.attributes["x"]) == (type(value), value)


def test_quotes_make_text_and_nothing_is_no_attribute(read):
    (spec,) = read("- {model: a, year: '2023', version: '1.10', x: null, y: ~, z: , prefix: null}")
    assert spec.attributes == {"year": "2023", "version": "1.10"}
    assert spec.prefix is None


def test_entries_override_what_they_share(read):
    base, other = read("""
        - &base {model: a/b, name: base, dtype: float32, family: x}
        - {<<: *base, name: other, dtype: float16, revision: 1}
    """)
    assert (base.name, base.dtype, base.revision) == ("base", "float32", None)
    assert (other.name, other.dtype, other.revision) == ("other", "float16", "1")
    assert other.attributes == base.attributes == {"family": "x"}


def test_entries_cannot_take_over_without_end(read):
    entries = [f"- &a{i} {{<<: *a{i - 1}, x{i}: 1}}" for i in range(1, 200)]
    with pytest.raises(InputError, match="an entry takes over more than 100 fields"):
        read("\n".join(["- &a0 {model: a}", *entries]))


def test_a_bomb_of_entries_within_entries_is_not_written_out(read):
    levels = [f"- &a{i} {{x1: {{<<: *a{i - 1}}}, x2: {{<<: *a{i - 1}}}}}" for i in range(1, 30)]
    with pytest.raises(InputError, match="expected `model: HUB_ID_OR_PATH`") as told:
        read("\n".join(["- &a0 {x: 1}", *levels]))
    assert len(str(told.value)) < 2000


def test_what_is_not_a_number_is_no_attribute(read):
    (spec,) = read("- {model: a, score: .nan}")
    assert spec.attributes == {}


def test_spaces_around_cells_and_short_rows_are_forgiven(read):
    specs = read('model , name, family\ngpt2 , my gpt2 , "x, y"\ndistilgpt2\n\n', "list.csv")
    assert [(spec.source, spec.name, dict(spec.attributes)) for spec in specs] == [
        ("gpt2", "my gpt2", {"family": "x, y"}),
        ("distilgpt2", "distilgpt2", {}),
    ]


def test_paths_are_of_the_lists_folder(read, tmp_path, monkeypatch):
    for name in ("zoo/small", "gpt2"):
        save_model(tmp_path / name)
    (tmp_path / "one.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir("/")
    specs = read(f"""
        - {{model: ./zoo/small, name: a}}
        - {{model: zoo/small, name: b}}
        - {{model: ../{tmp_path.name}/zoo/small/, name: c}}
        - {{model: {tmp_path}/zoo/small, name: d}}
        - {{model: gpt2}}
        - {{model: one.gguf}}
        - {{model: ./later}}
        - {{model: EleutherAI/pythia-70m}}
    """)
    inside = tmp_path.resolve()
    assert [spec.source for spec in specs] == [
        *[str(inside / "zoo" / "small")] * 4,
        *[str(inside / name) for name in ("gpt2", "one.gguf", "later")],
        "EleutherAI/pythia-70m",
    ]
    assert [spec.is_local for spec in specs] == [True] * 7 + [False]
    assert [spec.name for spec in specs][4:] == ["gpt2", "one", "later", "pythia-70m"]
    assert len({spec.row_id.rpartition("-")[2] for spec in specs[:5]}) == 1, "one model under five names"


def test_home_and_links(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "blobs" / "f00")
    (tmp_path / "newest").symlink_to(tmp_path / "blobs" / "f00")
    spec = ModelSpec("~/newest")
    assert (spec.source, spec.name) == (str(tmp_path.resolve() / "newest"), "newest")
    assert spec.files_hash == ModelSpec(str(tmp_path / "blobs" / "f00")).files_hash is not None
    (tmp_path / "list.yaml").write_text("- model: ~/newest\n")
    assert read_models("~/list.yaml") == [spec]


def test_relative_sources_are_those_of_the_working_folder(tmp_path, monkeypatch):
    save_model(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    spec = ModelSpec("./a")
    monkeypatch.chdir("/")
    assert spec.source == str(tmp_path.resolve() / "a")
    assert spec.files_hash is not None


@pytest.mark.parametrize(
    ("source", "local"),
    [
        ("/a", True),
        ("./a", True),
        ("../a", True),
        ("~/a", True),
        ("a.gguf", True),
        ("a", False),
        ("a/b", False),
    ],
)
def test_what_is_a_path(source, local):
    assert is_path(source) == local


# Row ids


def test_row_id_is_a_readable_name_and_eight_digits():
    spec = ModelSpec("EleutherAI/pythia-70m", revision="step512")
    assert re.fullmatch(r"pythia-70m-step512-[0-9a-f]{8}", spec.row_id)
    assert spec.row_id == ModelSpec("EleutherAI/pythia-70m", revision="step512").row_id
    assert ModelSpec("EleutherAI/pythia-70m").row_id == "pythia-70m-f457b769", "ids on disk stay valid"


def test_row_id_depends_on_the_recipe_and_not_on_attributes():
    base = ModelSpec("a/b", name="n")
    others = [
        ModelSpec("a/c", name="n"),
        ModelSpec("a/b", name="n", revision="main"),
        ModelSpec("a/b", name="n", dtype="float32"),
        ModelSpec("a/b", name="n", dtype="float16"),
        ModelSpec("a/b", name="n", prefix="<s>"),
        ModelSpec("a/b", name="n", trust_remote_code=True),
        ModelSpec("a/b", name="other"),
    ]
    assert len({base.row_id, *(spec.row_id for spec in others)}) == 8
    colored = ModelSpec("a/b", name="n", attributes={"family": "x"})
    assert colored.row_id == base.row_id
    assert colored == base
    assert hash(colored) == hash(base)


def test_a_local_model_is_its_bytes_wherever_it_lies(tmp_path):
    here = save_model(tmp_path / "here" / "model")
    spec = ModelSpec(str(here))
    copy = Path(shutil.copytree(here, tmp_path / "there" / "model"))
    assert ModelSpec(str(copy)).row_id == spec.row_id
    (copy / "README.md").write_text("words")
    (copy / "generation_config.json").write_text("{}")
    (copy / "logs").mkdir()
    assert ModelSpec(str(copy)).row_id == spec.row_id, "what does not decide scores does not count"
    renamed = ModelSpec(str(shutil.copytree(here, tmp_path / "renamed")), name="model")
    assert renamed.row_id == spec.row_id


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"\x00\x02"),
        ("config.json", b"{}"),
        ("tokenizer.json", b'{"x": 1}'),
        ("merges.txt", b"a b"),
        ("modeling_own.py", b"pass"),
    ],
)
def test_other_bytes_are_another_row(tmp_path, file, content):
    folder = save_model(tmp_path / "model")
    before = ModelSpec(str(folder)).row_id
    (folder / file).write_bytes(content)
    after = ModelSpec(str(folder)).row_id
    assert after != before
    assert after.rpartition("-")[0] == before.rpartition("-")[0] == "model"


def test_a_gguf_file_is_its_bytes(tmp_path):
    for name, content in [
        ("a/m.gguf", b"GGUF1"),
        ("b/m.gguf", b"GGUF1"),
        ("b/n.gguf", b"GGUF1"),
        ("c/m.gguf", b"GGUF2"),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    a, b, n, c = (
        ModelSpec(str(tmp_path / name), name="m") for name in ("a/m.gguf", "b/m.gguf", "b/n.gguf", "c/m.gguf")
    )
    assert a.row_id == b.row_id == n.row_id
    assert c.row_id != a.row_id


def test_a_folder_without_weights_has_no_hash(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert ModelSpec(str(tmp_path)).files_hash is None
    assert ModelSpec(str(tmp_path / "missing")).files_hash is None
    assert ModelSpec("gpt2").files_hash is None


# Names and file names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pythia-70m@step512", "pythia-70m-step512"),
        ("My model (8 bit)", "My-model-8-bit"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden", "hidden"),
        ("...", "model"),
        ("x" * 80, "x" * 80),
    ],
)
def test_slugs_by_hand(name, expected):
    assert slug(name) == expected


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(min_size=1, max_size=120))
def test_slugs_are_safe_file_names(name):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", slug(name))


def test_names_in_other_scripts_and_long_names_stay_apart(read):
    names = [
        "日本語モデル",
        "日本語もでる",
        "モデル",
        "llama-日本",
        "llama-韓国",
        "x" * 100 + "a",
        "x" * 100 + "b",
    ]
    specs = read("".join(f"- {{model: m/{i}, name: {name}}}\n" for i, name in enumerate(names)))
    assert [spec.name for spec in specs] == names
    assert len({slug(spec.name) for spec in specs}) == len(names)
    assert specs[3].row_id.startswith("llama-")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("a/gpt2", "b/gpt2", r"two models are called 'gpt2' \(a/gpt2 and b/gpt2\).*another `name`"),
        ("a/GPT2", "a/gpt2", r"two models are called 'GPT2' and 'gpt2' \(a/GPT2 and a/gpt2\)"),
        ("a/my model", "a/my-model", "two models are called 'my model' and 'my-model'"),
    ],
)
def test_two_models_of_one_name_are_refused(read, first, second, told):
    with pytest.raises(InputError, match=f"list.yaml: {told}"):
        read(f"- model: {first}\n- model: {second}\n")
    check_names([ModelSpec(first), ModelSpec(second, name="other")], "here")


# Lists that are refused


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- {model: a/b, revison: x}", r"entry 1 \(a/b\): unknown field 'revison' \(closest: 'revision'\)"),
        (
            "- {model: a}\n- {model: b, torch_dtype: float16}",
            r"entry 2 \(b\): .*'torch_dtype' \(closest: 'dtype'\)",
        ),
        ("- {model: a, Prefix: <s>}", r"unknown field 'Prefix' \(closest: 'prefix'\)"),
        ("- {model: a, trust-remote-code: true}", r"\(closest: 'trust_remote_code'\)"),
        (
            "- {model: a, dtype: bfloat}",
            r"a: unknown dtype 'bfloat' \(closest: 'bfloat16'\); use float16, .*",
        ),
        ("- {model: a, dtype: 16}", "unknown dtype '16'"),
        ("- {model: a, trust_remote_code: 'true'}", "trust_remote_code is 'true'; use true or false"),
        ("- {model: a, trust_remote_code: yes}", "trust_remote_code is 'yes'; use true or false"),
        ("- {model: a, trust_remote_code: 1}", "trust_remote_code is 1; use true or false"),
        ("- {model: a, name: [b]}", r"name is \['b'\]; it must be a single text"),
        ("- {model: a, prefix: {b: c}}", "prefix is {'b': 'c'}; it must be a single text"),
        ("- {model: a, sizes: [1, 2]}", r"attribute 'sizes' is \[1, 2\]; attributes are single values"),
        ("- {model: a, attributes: {family: x}}", "attribute 'attributes' is {'family': 'x'}"),
        ("- {name: a}", "entry 1: expected `model: HUB_ID_OR_PATH` and further fields, got {'name': 'a'}"),
        ("- {model: a}\n- {model: }", "entry 2: expected `model: "),
        ("- {model: ''}", "entry 1: expected `model: "),
        ("- {model: [a]}", "entry 1: expected `model: "),
        ("- gpt2", "entry 1: expected `model: .* got 'gpt2'"),
        ("{model: a}", "expected a list with one entry for each model"),
        ("gpt2", "expected a list"),
        ("[]", "expected a list"),
        ("", "expected a list"),
        ("# nothing yet\n", "expected a list"),
        ("- model: a\n  model: b\n", r"not YAML: [\s\S]*'model' is given twice"),
        ("- {model: a, x: 1, x: 2}", r"not YAML: [\s\S]*'x' is given twice"),
        ("- {model: a", "not YAML: while parsing"),
        ("- model: a\n\t- b", "not YAML: while scanning"),
        ("- !!python/object/apply:os.getcwd []", r"the tag '.*python/object.*' is not read"),
        ("- {model: a, [1]: 2}", "not YAML: a key is no text"),
        ("- &a [x]\n- *a", "an alias is read as `<<: \\*other` alone; write the value out"),
        ("- &a {model: a, x: 1}\n- {x: *a}", "an alias is read as `<<: \\*other` alone"),
        ("[" * 5000, "not YAML"),
        (b"- model: na\xefve", r"not UTF-8 \(byte 11\); convert the file"),
        (b"\x00\x01", "not YAML"),
    ],
)
def test_yaml_that_is_refused(read, content, told):
    with pytest.raises(InputError, match=told):
        read(content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("model,revison\na,x\n", r"entry 1 \(a\): unknown field 'revison' \(closest: 'revision'\)"),
        ("model,name\na,b,c,d\n", r"line 2: more cells than the first line has, \['c', 'd'\]"),
        ("model,name,name\na,b,c\n", "a column is given twice in model, name, name"),
        ("model;name\na;b\n", "entry 1: expected `model: .* got {'model;name': 'a;b'}"),
        ("model,name\n,b\n", "entry 1: expected `model: .* got {'name': 'b'}"),
        ("model,trust_remote_code\na,maybe\n", "trust_remote_code is 'maybe'; use true or false"),
        ('model,name\na,"b"c\n', "line 2: not CSV"),
        ("model,name\n", "expected a list"),
        ("", "expected a list"),
        ("model\ngpt2\ngpt2\n", "two models are called 'gpt2'"),
        ("model\nnaïve\n".encode("latin-1"), r"not UTF-8 \(byte 8\)"),
    ],
)
def test_csv_that_is_refused(read, content, told):
    with pytest.raises(InputError, match=told):
        read(content, "list.csv")


def test_missing_list_names_the_nearest(tmp_path):
    (tmp_path / "demo.yaml").write_text("- model: a\n")
    with pytest.raises(InputError, match=r"no such models list: .*demo\.yml \(closest: 'demo.yaml'\)"):
        read_models(tmp_path / "demo.yml")
    with pytest.raises(InputError, match="no such models list"):
        read_models(tmp_path)
    with pytest.raises(InputError, match="no such models list"):
        read_models(tmp_path / "nowhere" / "list.yaml")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"source": ""}, "a model needs a source.* got ''"),
        ({"source": "  "}, "a model needs a source"),
        ({"source": Path("a")}, r"a model needs a source.* got PosixPath\('a'\)"),
        (
            {"source": "a", "dtype": "fp16"},
            "a: unknown dtype 'fp16'.*use float16, bfloat16, tf32, float32, float64",
        ),
        ({"source": "a", "trust_remote_code": "no"}, "a: trust_remote_code is 'no'; use true or false"),
        ({"source": "a", "trust_remote_code": None}, "trust_remote_code is None"),
    ],
)
def test_specs_that_are_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        ModelSpec(**arguments)
