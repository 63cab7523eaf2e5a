"""Loading: keys and values, braces, initialisers, extends, settings, hostile files, the JSON schema."""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support import clock

from cellspec.errors import SpecError
from cellspec.language.keys import KEYS
from cellspec.language.read.loader import load_spec, parse_spec, resolve, shipped_dir, shipped_names
from cellspec.language.schema import PATH as SCHEMA_PATH
from cellspec.language.schema import build_schema, schema_text
from cellspec.language.spec import Initialiser, Name, Setting, Spec, Variable

SMALL = """name: small
inputs: {x: I}
states: {h: H}
params: {W: [H, I], U: [H, H], b: H}
equations: |
  h[t] = tanh(W @ x[t] + U @ h[t-1] + b)
"""


def mistakes(text: str, **keywords: dict[str, str]) -> list[str]:
    """The messages of a wrong spec, each after its line and column."""
    with pytest.raises(SpecError) as caught:
        parse_spec(text, **keywords)  # type: ignore[arg-type]
    return [f"{d.location.line}:{d.location.column}: {d.message}" for d in caught.value.diagnostics]


def names(spec: Spec) -> list[str]:
    return [param.name for param in spec.params]


def texts(spec: Spec) -> list[str]:
    return [equation.text for equation in spec.equations]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, body: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\n{body}", "utf-8")
    return path


# --- the happy path ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_specs_load(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.title
    assert spec.cite
    assert 2 <= spec.doc.count("\n") + 1 <= 4
    assert spec.expect.params is not None
    assert spec.expect.stages is not None
    assert spec.expect.recurrence is not None
    first = (shipped_dir() / f"{name}.yaml").read_text("utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../cellspec/cell.schema.json"


def test_the_page_s_example() -> None:
    spec = load_spec("lstm")
    assert [mention.name for mention in spec.dims] == ["I", "H"]
    assert names(spec) == ["Wi", "Wf", "Wg", "Wo", "Ui", "Uf", "Ug", "Uo", "bi", "bg", "bo", "bf"]
    assert [(s.name, s.init) for s in spec.states] == [("h", None), ("c", None)]
    assert [(a.name, a.value) for a in spec.activations] == [("sigma", "sigmoid"), ("phi", "tanh")]
    assert spec.params[-1].init == Initialiser("constant", (1,))
    assert spec.params[4].init == Initialiser("orthogonal")
    assert [(e.target, e.is_state) for e in spec.equations][-2:] == [("c", True), ("h", True)]
    assert spec.expect.stages is not None
    assert spec.expect.stages[0] == 1
    assert spec.expect.bound[0][:2] == ("h", 1.0)


def test_places_are_those_of_the_file() -> None:
    path = shipped_dir() / "lstm.yaml"
    lines = path.read_text("utf-8").splitlines()
    for equation in load_spec(path).equations:
        assert lines[equation.at.line - 1][equation.at.column - 1 :].startswith(equation.text)
    for param in load_spec(path).params:
        assert lines[param.at.line - 1][param.at.column - 1] == param.name[0]
        axis = param.shape[0]
        assert isinstance(axis, Name)
        assert lines[axis.at.line - 1][axis.at.column - 1 :].startswith(axis.id)


@pytest.mark.parametrize(
    ("written", "initialiser"),
    [
        ("0.5", Initialiser("constant", (0.5,))),
        ("1e-3", Initialiser("constant", (0.001,))),
        ("-1", Initialiser("constant", (-1,))),
        ("zeros", Initialiser("constant", (0,))),
        ("ones", Initialiser("constant", (1,))),
        ("identity", Initialiser("identity")),
        ("uniform", Initialiser("uniform")),
        ("glorot_uniform", Initialiser("glorot_uniform")),
        ("glorot_normal", Initialiser("glorot_normal")),
        ("orthogonal", Initialiser("orthogonal")),
        ("{normal: 1e-1}", Initialiser("normal", (0.1,))),
        ("{uniform: [-1, 1]}", Initialiser("uniform", (-1, 1))),
        ("{chrono: 100}", Initialiser("chrono", (100,))),
    ],
)
def test_initialisers(written: str, initialiser: Initialiser) -> None:
    spec = parse_spec(SMALL.replace("U: [H, H]", f"U: {{shape: [H, H], init: {written}, trainable: false}}"))
    assert spec.params[1].init == initialiser
    assert not spec.params[1].trainable
    assert spec.params[0].init is None


def test_a_state_may_start_from_minus_infinity() -> None:
    spec = parse_spec(SMALL.replace("{h: H}", "{h: {shape: H, init: -.inf}}"))
    assert spec.states[0].init == Initialiser("constant", (-math.inf,))


def test_numbers_written_like_1e_3_are_numbers() -> None:
    spec = parse_spec(SMALL + "hyper: {eps: 1e-3, n: 2, big: 1.5e+3}\n")
    assert [repr(setting.value) for setting in spec.hyper] == ["0.001", "2", "1500.0"]


def test_braces_expand_in_every_combination() -> None:
    spec = parse_spec(SMALL.replace("b: H", '"V{1,2}{a, b}": H, b: H'))
    assert names(spec) == ["W", "U", "V1a", "V1b", "V2a", "V2b", "b"]


def test_yaml_s_words_are_ordinary_names() -> None:
    spec = parse_spec(SMALL.replace("b: H", "no: H, on: H, y: H, null: H"))
    assert names(spec)[2:] == ["no", "on", "y", "null"]


def test_a_cite_may_be_a_list() -> None:
    spec = parse_spec(SMALL + "cite: [{key: a, year: 1997}, {title: 'B:  c', note: n}]\n")
    assert [(cite.key, cite.year, cite.title) for cite in spec.cite] == [("a", "1997", ""), ("", "", "B: c")]


def test_equations_may_stand_on_one_line() -> None:
    spec = parse_spec("name: s\ninputs: {x: I}\nstates: {h: I}\nequations: h[t] = x[t]  # copy\n")
    assert texts(spec) == ["h[t] = x[t]"]
    assert spec.equations[0].at.column == 12


def test_crlf_and_indentation_indicators() -> None:
    text = SMALL.replace("equations: |\n", "equations: |2-\n\n  # a comment\n").replace("\n", "\r\n")
    spec = parse_spec(text)
    assert (spec.equations[0].at.line, spec.equations[0].at.column) == (8, 3)


# --- extends, remove, settings -----------------------------------------------------------------------------


def test_a_child_replaces_extends_and_removes(folder: Path) -> None:
    write(
        folder,
        "base",
        SMALL.partition("\n")[2] + "title: Base\ndoc: d\nhyper: {k: 1}\nexpect: {stages: 1}\nactivations: {g: tanh}\n",
    )
    path = write(
        folder,
        "child",
        "extends: base\nremove: [U]\nparams: {v: H, W: {shape: [H, I], init: zeros}}\nhyper: {m: 2}\nactivations: {g: relu}\n"
        "equations: |\n  h[t] = g(W @ x[t] + v*h[t-1] + b)\n  y = h[t]\noutputs: [y]\n",
    )
    spec = load_spec(path)
    assert names(spec) == ["W", "b", "v"]
    assert spec.params[0].init == Initialiser("constant", (0,))
    assert texts(spec) == ["h[t] = g(W @ x[t] + v*h[t-1] + b)", "y = h[t]"]
    assert [(s.name, s.value) for s in (*spec.hyper, *spec.activations)] == [("k", 1), ("m", 2), ("g", "relu")]
    assert (spec.title, spec.doc, spec.expect.stages, spec.extends) == ("", "", None, "base")
    assert Path(spec.equations[0].at.file).name == "child.yaml"
    assert Path(spec.params[1].at.file).name == "base.yaml"


def test_inherited_dims_fit_the_new_shapes(folder: Path) -> None:
    path = write(folder, "child", 'extends: lstm\nstates: {h: P}\nparams: {"U{i,f,g,o}": [H, P], Wp: [P, H]}\n')
    assert [mention.name for mention in load_spec(path).dims] == ["I", "H", "P"]


def test_remove_drops_a_state_with_its_equation_and_output(folder: Path) -> None:
    write(folder, "base", SMALL.partition("\n")[2].replace("{h: H}", "{h: H, s: H}") + "  s[t] = h[t]\noutputs: [s, h]\n")
    spec = load_spec(write(folder, "child", "extends: base\nremove: [s]\n"))
    assert [state.name for state in spec.states] == ["h"]
    assert [mention.name for mention in spec.outputs] == ["h"]
    assert len(spec.equations) == 1


def test_the_hash_covers_the_parents_and_the_settings(folder: Path) -> None:
    base = write(folder, "base", SMALL.partition("\n")[2] + "activations: {g: tanh}\n")
    child = write(folder, "child", "extends: base\n")
    before = load_spec(child).sha256
    assert before == hashlib.sha256(base.read_bytes() + child.read_bytes()).hexdigest()
    assert load_spec(base).sha256 == hashlib.sha256(base.read_bytes()).hexdigest()
    assert load_spec(child, {"g": "relu"}).sha256 not in (before, load_spec(child, {"g": "elu"}).sha256)
    base.write_text(base.read_text() + "# changed\n")
    assert load_spec(child).sha256 != before


def test_mistakes_of_a_parent_are_told_with_the_child_s(folder: Path) -> None:
    write(folder, "base", SMALL.partition("\n")[2].replace("tanh(", "tanh(("))
    with pytest.raises(SpecError) as caught:
        load_spec(write(folder, "child", "extends: base\nwidgets: 1\n"))
    assert [Path(d.location.file).name for d in caught.value.diagnostics] == ["base.yaml", "child.yaml"]


def test_extends_in_a_circle_names_the_circle(folder: Path) -> None:
    write(folder, "one", "extends: two\n")
    write(folder, "two", "extends: three\n")
    write(folder, "three", "extends: two\n")
    with pytest.raises(SpecError, match="two -> three -> two") as caught:
        load_spec(folder / "one.yaml")
    assert Path(caught.value.diagnostics[0].location.file).name == "three.yaml"


def test_a_chain_of_parents_is_bounded(folder: Path) -> None:
    for k in range(40):
        write(folder, f"c{k}", f"extends: c{k + 1}\n")
    with pytest.raises(SpecError, match="deeper than 16 files"):
        load_spec(folder / "c0.yaml")


def test_settings_replace_values() -> None:
    text = SMALL + "hyper: {eps: 0.1}\nactivations: {g: tanh}\n"
    spec = parse_spec(text, settings={"g": "relu", "eps": "1e-3"})
    assert spec.hyper[0].value == 0.001
    assert spec.activations[0].value == "relu"
    assert spec.settings == (("eps", "1e-3"), ("g", "relu"))
    assert parse_spec(text).settings == ()


def test_wrong_settings_are_told_with_a_suggestion() -> None:
    found = mistakes(SMALL + "hyper: {eps: 1}\nactivations: {gate: tanh}\n", settings={"gate": "tahn", "epz": "1", "eps": "x"})
    assert sorted(found) == [
        "1:1: 'small' has no hyperparameter or activation 'epz'; did you mean 'eps'?",
        "1:5: 'eps' is a hyperparameter and needs a number, not 'x'",
        "1:6: 'tahn' is no pointwise function of one argument; did you mean 'tanh'?",
    ]


def test_resolve(folder: Path) -> None:
    path = write(folder, "mine", "")
    assert resolve("lstm").name == "lstm.yaml"
    assert resolve("mine.yaml") == Path("mine.yaml")
    assert resolve(path) == path
    for name, message in {
        "lstmm": "unknown cell 'lstmm'; did you mean 'lstm'?",
        "mine": "did you mean 'mine.yaml'?",
        "qwertyuiop": "expected a path or the name of a shipped cell",
        "no/such.yaml": "there is no file",
        "a\x00b": r"U\+0000",
        "a" * 100_000: "path|unknown cell",
    }.items():
        with pytest.raises(SpecError, match=message.replace("?", r"\?")):
            resolve(name)


# --- files that are no specs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        (b"", "1:1", "the file is empty"),
        (b"# only a comment\n", "1:1", "the file is empty"),
        (b"\xef\xbb\xbfname: bad\n", "1:1", "byte-order mark"),
        (b"\xff\xfen\x00", "1:1", "byte-order mark"),
        (b"name: bad\ntitle: caf\xe9\n", "2:11", "not UTF-8"),
        (b"name: bad\ntitle: a\x00b\n", "2:9", r"U\+0000"),
        (b"name: bad\n\tstates: {}\n", "2:1", "a tab cannot indent"),
        (b"name: bad\ntitle: a\xe2\x80\xa8b\n", "2:9", r"U\+2028"),
        (b'name: bad\ntitle: "a\\0b"\n', "2:8", "control character"),
        (b"name: bad\n" + b"#" * 1_000_001, "1:1", "larger than 1 MB"),
    ],
)
def test_bytes_that_are_no_spec(tmp_path: Path, data: bytes, place: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError, match=message) as caught:
        load_spec(path)
    (diagnostic,) = caught.value.diagnostics
    assert str(diagnostic.location) == f"{path}:{place}"


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not a file"):
        load_spec(tmp_path)
    with pytest.raises(SpecError, match="is not a file"):
        load_spec("/dev/zero")


def hostile() -> dict[str, str]:
    """Texts meant to run code, or to take for ever."""
    head = SMALL.partition("equations")[0]
    laughs = "a: &a [x, x]\n" + "".join(f"k{i}: &k{i} [*{'a' if i == 0 else f'k{i - 1}'}, *a]\n" for i in range(60))
    return {
        "import": head + "equations: |\n  h[t] = __import__('os').system('touch owned')\n",
        "yaml tag": "name: !!python/object/apply:os.system ['touch owned']\n",
        "billion laughs": laughs,
        "merge bomb": "name: a\nx: &x {a: 1}\ny: {<<: *x}\n",
        "parentheses": head + f"equations: |\n  h[t] = {'(' * 10_000}b{')' * 10_000}\n",
        "unclosed": head + f"equations: |\n  h[t] = {'(' * 10_000}\n",
        "flow nesting": "name: " + "[" * 10_000,
        "flow mappings": "name: " + "{a: " * 10_000,
        "block nesting": "".join(" " * i + "a:\n" for i in range(1300)),
        "sequences": "- " * 10_000,
        "long line": head + f"equations: |\n  h[t] = {'b + ' * 240_000}b\n",
        "long name": head + f"equations: |\n  h[t] = {'b' * 900_000}\n",
        "long scalar": f"name: {'n' * 900_000}\n",
        "long key": f"? {'k' * 900_000}\n: 1\n",
        "many keys": "".join(f"k{i}: 1\n" for i in range(60_000)),
        "many unknown keys": "name: many\n" + "".join(f"inputz{i}: 1\n" for i in range(4_900)),
        "many params": "name: many\nparams:\n" + "".join(f"  p-{i}: H\n" for i in range(4_900)),
        "many braces": 'name: many\nparams:\n  "W' + "{a,b}" * 300 + '": H\n',
        "wide braces": 'name: many\nparams:\n  "W{' + ",".join(map(str, range(100_000))) + '}": H\n',
        "open braces": 'name: many\nparams:\n  "W' + "{" * 400_000 + '": H\n',
        "many equations": head + "equations: |\n" + "  a = b\n" * 120_000,
        "many broken equations": head + "equations: |\n" + "  a = (\n" * 120_000,
        "exponent": head + "equations: |\n  h[t] = 9**9**9**9\n  a = 9**999999999\n",
        "digits": head + f"hyper: {{n: {'9' * 100_000}}}\n",
        "quote": 'name: \'"""\'\ntitle: x\n',
        "template": "name: '{{ 7*7 }}'\nparams: {'{% include \"x\" %}': H}\n",
        "newline": 'name: "a\\nimport os"\n',
        "surrogate": "name: \ud800\n",
    }


@pytest.mark.parametrize("kind", sorted(hostile()))
def test_hostile_specs_get_an_error_quickly_and_run_nothing(kind: str, folder: Path) -> None:
    text = hostile()[kind]
    start = clock()
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    message = str(caught.value)
    assert time.process_time() - start < 2
    assert all(len(diagnostic.message) < 400 and "\n" not in diagnostic.message for diagnostic in caught.value.diagnostics)
    assert message
    assert not list(folder.iterdir())


def test_a_constant_tower_is_quick() -> None:
    start = clock()
    with pytest.raises(SpecError):
        parse_spec(SMALL.replace("+ b)", "+ b**9**9**99)"))
    assert time.process_time() - start < 2


LANGUAGE = [path.read_text("utf-8") for path in sorted((Path(__file__).parents[1] / "valid_language").glob("*.yaml"))]
SHIPPED = [*(path.read_text("utf-8") for path in sorted(shipped_dir().glob("*.yaml"))), *LANGUAGE]
PIECES = [
    *("{}[]:,|!'\"\t\n#%0tH\xe9\ufeff"),
    *("&a ", "*a", "  ", "- ", "? ", "1e9", "for l in range(", "[l+1]", "[t-2]", "f(", " = "),
]
WORDS = st.sampled_from([*PIECES, *KEYS, ": ", "\n", "{x: I}", "[H, I]"])


@given(st.integers(0, 2**32), st.integers(1, 6))
@settings(max_examples=300, deadline=2000)
def test_damaged_specs_give_a_spec_or_a_located_error(seed: int, wounds: int) -> None:
    dice = random.Random(seed)
    text = dice.choice(SHIPPED)
    for _ in range(wounds):
        start = dice.randrange(len(text))
        match dice.randrange(3):
            case 0:
                text = text[:start] + dice.choice(PIECES) + text[start:]
            case 1:
                text = text[:start] + text[start + dice.randrange(1, 12) :]
            case _:
                other = dice.choice(SHIPPED)
                cut = dice.randrange(len(other))
                text = text[:start] + other[cut : cut + 40] + text[start:]
    check_is_spec_or_error(text)


@given(
    st.one_of(st.text(), st.lists(st.sampled_from([*PIECES, *KEYS, ": ", "\n", "{x: I}", "[H, I]"]), max_size=40).map("".join))
)
@settings(max_examples=300, deadline=2000)
def test_any_text_gives_a_spec_or_a_located_error(text: str) -> None:
    check_is_spec_or_error(text)
    check_is_spec_or_error("name: a\n" + text)


@given(st.binary())
@settings(max_examples=100, deadline=2000)
def test_any_bytes_give_a_located_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    with pytest.raises(SpecError):
        load_spec(path)


def check_is_spec_or_error(text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    try:
        spec = parse_spec(text)
    except SpecError as error:
        assert error.diagnostics
        for diagnostic in error.diagnostics:
            if diagnostic.location.file == "<spec>":
                assert 1 <= diagnostic.location.line <= len(lines) + 1
                assert 1 <= diagnostic.location.column <= len(diagnostic.location.text) + 1
    else:
        declared: list[Variable | Setting] = [*spec.inputs, *spec.states, *spec.params, *spec.hyper, *spec.activations]
        assert all(part.name.isidentifier() for part in declared)
        assert spec.name.isidentifier()


# --- the JSON schema ---------------------------------------------------------------------------------------


def test_the_committed_schema_is_fresh() -> None:
    assert SCHEMA_PATH.read_text("utf-8") == schema_text(), "run python -m cellspec.language.schema"


def test_the_schema_knows_every_key() -> None:
    assert set(build_schema()["properties"]) == set(KEYS)


def test_the_schema_accepts_the_shipped_specs_and_underlines_mistakes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text("utf-8")))
    validator.check_schema(validator.schema)
    for text in (*SHIPPED, SMALL):
        assert list(validator.iter_errors(yaml.safe_load(text))) == []
    for wrong in ("imputs: {x: I}", "hyper: {a: b}", "activations: {g: tahn}", "expect: {recurrence: sparse}", "dims: I"):
        assert list(validator.iter_errors(yaml.safe_load(SMALL + wrong + "\n"))), wrong
