"""From bytes to declarations: YAML nodes and their places, values, variables, functions, parents, paths."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from spec_support import said

from cellspec.errors import Location, Reporter, SpecError
from cellspec.language.read.extends import apply_settings, check_whole, merge
from cellspec.language.read.loader import parse_spec
from cellspec.language.read.local_functions import read_macros
from cellspec.language.read.paths import find, parent_path, resolve, shipped_dir, shipped_names
from cellspec.language.read.source import MAX_BYTES, compose, decode, number, read_bytes
from cellspec.language.read.variables import VariableReader
from cellspec.language.read.yaml_values import NodeReader
from cellspec.language.spec import Initialiser, Macro, Mention, Spec, Unread, Variable
from cellspec.language.unparse import written

AT = Location("f.yaml", 1, 1)

# --- bytes and nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-2", -2),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 1e-3),
        ("-.inf", -math.inf),
        (".Inf", math.inf),
        ("1e999", math.inf),
        (str(2**60), float(2**60)),
        ("1_000", None),
        ("0x10", None),
        ("nan", None),
        ("true", None),
        ("", None),
    ],
)
def test_numbers(text: str, value: float | None) -> None:
    found = number(text)
    assert found == value and type(found) is type(value)


def test_text_is_plain_utf_8() -> None:
    report = Reporter()
    assert decode("name: ä".encode(), "f.yaml", report) == "name: ä" and not report.diagnostics
    assert decode(b"\xef\xbb\xbfname: a", "f.yaml", report) is None
    assert decode(b"name: a\r\nb: \xff", "f.yaml", report) is None
    assert said(report) == [
        "the file begins with a byte-order mark; save it as plain UTF-8",
        "the file is not UTF-8 (byte 0xff)",
    ]
    assert (report.diagnostics[1].location.line, report.diagnostics[1].location.column) == (2, 4)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    report = Reporter()
    (tmp_path / "large").write_bytes(b" " * (MAX_BYTES + 1))
    (tmp_path / "small").write_bytes(b"name: a")
    assert read_bytes(tmp_path / "small", report, AT) == b"name: a"
    assert [read_bytes(tmp_path / name, report, AT) for name in ("large", "none", ".")] == [None] * 3
    assert said(report)[0] == "the file is larger than 1 MB"
    assert said(report)[1].startswith("there is no file") and said(report)[2].endswith("is not a file")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", (1, 1), "the file is empty"),
        ("- a", (1, 1), "a spec is a mapping of keys such as 'name: mine' at its top level"),
        ("a: &x b", (1, 4), "anchors ('&name') are not allowed in a spec"),
        ("a: *x", (1, 4), "aliases ('*name') are not allowed in a spec"),
        ("a: !!int 3", (1, 4), "tags are not allowed in a spec, but this value has the tag"),
        ("a: b\n---\nc: d", (2, 1), "a spec file holds one YAML document, and a second one begins here"),
        ("a: [b", (1, 4), "this is not YAML: this '[…]' does not close"),
        ("a:\n\tb: c", (2, 1), "this is not YAML: a tab cannot indent YAML; use spaces"),
        ("a: b: c", (1, 5), "this is not YAML: a ':' is not expected here"),
        ("a: \x07", (1, 4), "the character U+0007 is not allowed in a spec"),
        ("a: " + "[" * 200, (1, 103), "the file is nested deeper than 100 levels"),
    ],
)
def test_what_is_no_mapping(text: str, place: tuple[int, int], message: str) -> None:
    report = Reporter()
    _, node = compose(text, "f.yaml", report)
    (diagnostic,) = report.diagnostics
    assert node is None and diagnostic.message.startswith(message)
    assert (diagnostic.location.line, diagnostic.location.column) == place


def mapping(text: str) -> tuple[NodeReader, yaml.MappingNode]:
    report = Reporter()
    source, node = compose(text, "f.yaml", report)
    assert node is not None
    return VariableReader(source, report), node


def test_places_within_quotes_and_blocks() -> None:
    reader, node = mapping('a: "text"\nb: |\n    one\n      two\nc: plain\n')
    values = {key.value: value for key, value in node.value}
    place = reader.source.at(values["a"])
    assert (place.line, place.column, place.text) == (1, 5, 'a: "text"')
    assert [(at.line, at.column) for at in reader.source.block(values["b"])][:2] == [(3, 5), (4, 5)]
    assert [(at.line, at.column) for at in reader.source.block(values["c"])] == [(5, 4)]


# --- values ---------------------------------------------------------------------------------------------------------------


def test_keys_that_are_known() -> None:
    reader, node = mapping("shape: H\nshap: I\ninti: 2\nshape: K\nwhat: {V: 3}\n")
    found = [key for key, _, _ in reader.entries(node, ("shape", "init", "trainable"), "a param")]
    assert found == ["shape", "init"], "one that is all but known counts as that, where that is not there itself"
    assert said(reader.report) == [
        "unknown key 'shap' in a param; did you mean 'shape'?",
        "unknown key 'inti' in a param; did you mean 'init'?",
        "the key 'shape' is repeated; it first stands in line 1",
        "unknown key 'what' in a param; expected one of shape, init, trainable",
    ]
    assert reader.gaps.may_hold("V") and not reader.gaps.may_hold("W"), "names in what is skipped are not unknown later"


def test_names_that_are_declared() -> None:
    reader, node = mapping("W{i,f}: H\nWf: I\n2x: H\nlambda: H\n")
    assert [name for name, _, _ in reader.named(node, "params", "a param", field=True)] == ["Wi", "Wf"]
    assert said(reader.report) == [
        "'Wf' is declared twice in 'params'; it first stands in line 1",
        "'2x' cannot name a param; a name is made of letters, digits and '_'",
        "'lambda' is a Python keyword and cannot name a param",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1]", "'a' must be plain text, not a list or a mapping"),
        ("a: ''", "'a' has no value"),
        ("a: b", "'a' must be a number, not 'b'"),
        ("a: 1e999", "the number '1e999' is out of range"),
    ],
)
def test_values_that_are_no_numbers(text: str, message: str) -> None:
    reader, node = mapping(text)
    assert reader.number(node.value[0][1], "'a'") is None and said(reader.report) == [message]


# --- variables ------------------------------------------------------------------------------------------------------------


def variables(text: str, kind: str = "a param") -> tuple[dict[str, Variable], list[str]]:
    reader, node = mapping(text)
    assert isinstance(reader, VariableReader)
    return {variable.name: variable for variable in reader.variables(node, "params", kind)}, said(reader.report)


def test_shapes_initialisers_and_options() -> None:
    text = """
        a: H
        b: [H, 2*I]
        c{i,f}: {shape: [H, I], init: orthogonal}
        d: {shape: H, init: 1, trainable: false}
        e: {shape: H, init: {uniform: [-1, 2]}}
        f: {shape: [H, H], init: zeros, repeat: n + 1}
    """
    found, messages = variables(text)
    assert messages == []
    assert {name: [written(axis) for axis in v.shape] for name, v in found.items()} == {
        "a": ["H"],
        "b": ["H", "2*I"],
        "ci": ["H", "I"],
        "cf": ["H", "I"],
        "d": ["H"],
        "e": ["H"],
        "f": ["H", "H"],
    }
    assert [found[name].init for name in ("a", "ci", "d", "e", "f")] == [
        None,
        Initialiser("orthogonal"),
        Initialiser("constant", (1,)),
        Initialiser("uniform", (-1, 2)),
        Initialiser("constant", (0.0,)),
    ]
    assert not found["d"].trainable and found["a"].trainable
    assert found["f"].repeat is not None and written(found["f"].repeat) == "n + 1" and found["a"].repeat is None


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("a: {init: 1}", "a param", "'shape' is missing; expected a mapping such as {shape: [H, I]}"),
        ("a: []", "a param", "a shape cannot be empty; a single number has the shape 1"),
        ("a: [{b: c}]", "a param", "a dim must be an expression such as 2*H, not a list or a mapping"),
        ("a: {shape: H, init: orthogonal}", "a param", "'orthogonal' initialises a matrix, but this shape has one axis"),
        ("a: {shape: H, init: normal}", "a param", "'normal' needs a number: {"),
        ("a: {shape: H, init: orthagonal}", "a param", "unknown initialiser 'orthagonal'; did you mean 'orthogonal'?"),
        ("a: {shape: H, init: .inf}", "a param", "the initial value '.inf' is out of range"),
        ("a: {shape: H, init: {normal: -1}}", "a param", "a standard deviation is not negative"),
        ("a: {shape: H, init: {uniform: [2, 1]}}", "a param", "the lower bound is above the upper"),
        ("a: {shape: H, init: {uniform: 2}}", "a param", "this initialiser is written {"),
        ("a: {shape: H, init: {chrono: 2}}", "a param", "the longest time Tmax must be above 2"),
        ("a: {shape: H, init: {normal: 1, chrono: 9}}", "a param", "an initialiser is one entry, such as {normal: 0.1}"),
        ("a: {shape: H, trainable: maybe}", "a param", "'trainable' is true or false, not 'maybe'"),
        ("a: {shape: H, init: glorot_uniform}", "a state", "a state starts from a number, not from 'glorot_uniform'"),
        ("a: {shape: H, init: {normal: 1}}", "a state", "a state starts from a number"),
        ("a: {shape: H, trainable: true}", "a state", "unknown key 'trainable' in a state"),
        ("a: {shape: lambda}", "a param", "'lambda' is not allowed"),
        ("a: T", "a param", "a dim cannot be called 'T', which is an argument of the generated code"),
    ],
)
def test_variables_that_are_wrong(text: str, kind: str, message: str) -> None:
    _, messages = variables(text, kind)
    assert len(messages) == 1 and messages[0].startswith(message)


def test_a_state_may_start_at_minus_infinity() -> None:
    found, messages = variables("m: {shape: H, init: -.inf}", "a state")
    assert found["m"].init == Initialiser("constant", (-math.inf,)) and not messages


def test_a_mistake_of_an_entry_with_braces_is_told_once() -> None:
    found, messages = variables("W{i,f,o}: {shape: [H, I], init: nothing}")
    assert len(found) == 3 and len(messages) == 1


# --- functions ------------------------------------------------------------------------------------------------------------


def functions(text: str) -> tuple[tuple[Macro, ...], list[str]]:
    reader, node = mapping(text)
    return read_macros(reader, node), said(reader.report)


def test_functions() -> None:
    (mix, one), messages = functions("'mix(a, b)': a*b + 1\n'one()': 1\n")
    assert (mix.name, mix.arguments, written(mix.body)) == ("mix", ("a", "b"), "a*b + 1") and not messages
    assert one.arguments == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mix: a", "a function is written 'name(a, b): expression'"),
        ("'mix(2)': a", "a function is written 'name(a, b): expression'"),
        ("'tanh(a)': a", "'tanh' is a function of the language and cannot name a function"),
        ("'mix(a, a)': a", "the argument 'a' stands twice in the head of 'mix'"),
        ("'mix(t)': t", "'t' is the time index of the language and cannot name an argument of a function"),
        ("'mix(a)': a\n'mix(b)': b", "'mix' is declared twice in 'functions'; it first stands in line 1"),
        ("'mix(a)': [a]", "the body of a function must be an expression such as 2*H, not a list or a mapping"),
    ],
)
def test_functions_that_are_wrong(text: str, message: str) -> None:
    assert functions(text)[1] == [message]


def test_a_body_that_cannot_be_read_leaves_the_head() -> None:
    (mix,), _ = functions("'mix(a)': a +")
    assert isinstance(mix.body, Unread) and mix.arguments == ("a",)


# --- parents --------------------------------------------------------------------------------------------------------------

PARENT = """
name: parent
dims: [H, I]
inputs: {x: I}
states: {h: H, c: H}
outputs: [h, c]
params: {W: [H, I], b: H}
hyper: {n: 2}
activations: {sigma: sigmoid}
equations: |
  a = W @ x[t]
  h[t] = a + b
  c[t] = sigma(a)*n
"""


def merged(text: str, *remove: str) -> tuple[Spec, list[str]]:
    report = Reporter()
    child = parse_spec(f"name: child\ntitle: mine\n{text}")
    return merge(parse_spec(PARENT), child, [Mention(name, AT) for name in remove], report), said(report)


def test_a_child_stands_over_its_parent_key_by_key() -> None:
    text = "inputs: {x: I}\nstates: {h: H}\nparams: {b: [H, K], V: H}\nhyper: {m: 3}\nequations: |\n  h[t] = V\n  d = V\n"
    found, messages = merged(text)
    assert messages == [] and (found.name, found.title) == ("child", "mine")
    assert [param.name for param in found.params] == ["W", "b", "V"] and len(found.params[1].shape) == 2
    assert [setting.name for setting in found.hyper] == ["n", "m"]
    assert [equation.text for equation in found.equations] == ["a = W @ x[t]", "h[t] = V", "c[t] = sigma(a)*n", "d = V"]
    assert [mention.name for mention in found.outputs] == ["h", "c"]
    assert [mention.name for mention in found.dims] == ["H", "I", "K"], "the parent's order, with what is new behind"


def test_what_is_removed() -> None:
    found, messages = merged("inputs: {x: I}\nstates: {h: H}\nequations: |\n  h[t] = x[t]\n", "c", "W", "q")
    assert [state.name for state in found.states] == ["h"] and [param.name for param in found.params] == ["b"]
    assert [equation.target for equation in found.equations] == ["a", "h"], "its equation goes with a state"
    assert [mention.name for mention in found.outputs] == ["h"]
    assert messages == ["there is no 'q' to remove from 'parent'"]


def test_what_a_whole_spec_needs() -> None:
    report = Reporter()
    whole = check_whole(Spec("a", "f.yaml", AT, ""), report)
    assert said(report) == ["'inputs' is missing", "'states' is missing", "'equations' is missing"]
    assert whole.gaps.may_hold("x", "inputs"), "nothing else is concluded from it"


def set_to(**settings: str) -> tuple[Spec, list[str]]:
    report = Reporter()
    return apply_settings(parse_spec(PARENT), settings, ("sigmoid", "tanh", "relu"), report), said(report)


def test_settings() -> None:
    plain = parse_spec(PARENT)
    found, messages = set_to(n="3", sigma="tanh")
    assert (found.hyper[0].value, found.activations[0].value, messages) == (3, "tanh", [])
    assert found.settings == (("n", "3"), ("sigma", "tanh")) and found.sha256 != plain.sha256
    assert set_to()[0] == plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": "many"}, "'n' is a hyperparameter and needs a number, not 'many'"),
        ({"sigma": "tahn"}, "'tahn' is no pointwise function of one argument; did you mean 'tanh'?"),
        ({"sigm": "tanh"}, "'parent' has no hyperparameter or activation 'sigm'; did you mean 'sigma'?"),
        ({"q": "1"}, "'parent' has no hyperparameter or activation 'q'; it has n, sigma"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, str], message: str) -> None:
    assert set_to(**settings)[1] == [message]


# --- paths ----------------------------------------------------------------------------------------------------------------


def test_shipped_specs_are_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = shipped_names()[0]
    monkeypatch.chdir(tmp_path)
    assert resolve(first) == shipped_dir() / f"{first}.yaml" and list(shipped_names()) == sorted(shipped_names())
    monkeypatch.chdir(shipped_dir().parent)
    assert not resolve(first).is_absolute(), "as seen from here: messages are shorter"


def test_a_file_is_found_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine")
    monkeypatch.chdir(tmp_path)
    assert find("mine.yaml", Reporter()) == Path("mine.yaml")
    for source, message in {
        "mine": "unknown cell 'mine'; did you mean 'mine.yaml'?",
        "folder/none.yaml": "there is no file 'folder/none.yaml'",
        "a\x00b": "a path cannot contain the character U+0000",
        "qqqqq": "unknown cell 'qqqqq'; expected a path or the name of a shipped cell",
    }.items():
        with pytest.raises(SpecError) as error:
            resolve(source)
        assert error.value.diagnostics[0].message == message


def test_a_parent_stands_beside_its_child_or_is_shipped(tmp_path: Path) -> None:
    first, report = shipped_names()[0], Reporter()
    mine = str(tmp_path / "child.yaml")
    assert parent_path(first, mine, AT, report) in (shipped_dir() / f"{first}.yaml", Path("specs") / f"{first}.yaml")
    (tmp_path / f"{first}.yaml").write_text("")
    assert parent_path(first, mine, AT, report) == tmp_path / f"{first}.yaml"
    assert not report.diagnostics
    assert parent_path("../up", mine, AT, report) is None and parent_path("nobody_has_this", mine, AT, report) is None
    assert said(report) == [
        "'extends' names a spec, without a folder or suffix, which '../up' does not",
        "unknown parent 'nobody_has_this'; a parent stands beside this file or among the shipped specs",
    ]
