"""One run tells the mistakes of every stage, each once: one hides no other, and makes no other."""

from __future__ import annotations

import itertools
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import clock
from test_loader import PIECES, SHIPPED, hostile

import cellspec
from cellspec.errors import Reporter, SpecError
from cellspec.language.check.elaborate import elaborate
from cellspec.language.read.loader import parse_spec

LINES = """\
name: cell
dims: [I, H]
hyper: {eps: 0.5, n: 2}
inputs: {x: I}
states: {h: H, c: H}
outputs: [h, y]
params:
  W{i,f}: [H, I]
  U{i,f}: [H, H]
  b: H
  k: {shape: H, init: ones}
  V: {shape: [2*H, H], init: orthogonal}
  R: {shape: [H, H], repeat: n}
activations: {sigma: sigmoid, phi: tanh}
functions:
  "mix(p, q, r)": r*p + (1 - r)*q
  "half(p)": mix(p, b, eps)
equations: |
  i = sigma(Wi @ x[t] + Ui @ h[t-1] + b)
  f = phi(Wf @ x[t] + Uf @ h[t-1])**n
  A = Ui - Ui.T
  g = where(n < 3, i*f, V @ i) + A @ half(k)
  d[0] = g
  for l in range(0, n):
      e[l] = R[l] @ d[l]
      d[l+1] = phi(e[l])
  c[t] = f*c[t-1] + eps*d[n]
  h[t] = mix(sigma(c[t])*k, h[t-2], i)
  y = V @ h[t]
expect: {params: "2*(H*I + H*H) + 2*H + 2*H*H + n*H*H", stages: 3}
"""

PARENT = LINES.replace("name: cell", "name: parent")
CHILD = """\
name: cell
extends: parent
params: {z: H, Wz: [H, I]}
equations: |
  s = z + Wz @ x[t]
  h[t] = sigma(c[t] + s)*k
"""

SINGLE = {
    # what the loader tells
    "unknown key": ("name: cell", "name: cell\nwidgets: 3"),
    "misspelt key": ("outputs: [", "outputz: ["),
    "misspelt section": ("hyper: {", "hypers: {"),
    "misspelt equations": ("equations: |", "equation: |"),
    "dim reserved": ("dims: [I, H]", "dims: [I, H, T]"),
    "hyper value": ("eps: 0.5", "eps: small"),
    "hyper that decides": ("n: 2", "n: [2]"),
    "input shape": ("{x: I}", "{x: I I}"),
    "input name": ("{x: I}", "{_x: I, x: I}"),
    "state shape": ("c: H}", "c: H H}"),
    "state init": ("c: H}", "c: {shape: H, init: big}}"),
    "param shape": ("  b: H\n", "  b: H +\n"),
    "param YAML": ("  b: H\n", "  b: {shape: }\n"),
    "param without shape": ("k: {shape: H, init: ones}", "k: {init: ones}"),
    "param key": ("k: {shape: H, init: ones}", "k: {shape: H, initial: ones}"),
    "param shape key": ("k: {shape: H, init: ones}", "k: {shpe: H, init: ones}"),
    "param init": ("init: orthogonal", "init: orthogonl"),
    "param family": ("repeat: n}", "repeat: n n}"),
    "param family of a dim": ("repeat: n}", "repeat: H}"),
    "param family too small": ("repeat: n}", "repeat: n - 1}"),
    "param braces": ("  W{i,f}:", "  W{i,f:"),
    "param braces empty": ("  U{i,f}:", "  U{i,f,}:"),
    "param twice": ("  b: H\n", "  b: H\n  b: [H, H]\n"),
    "activation": ("phi: tanh", "phi: tahn"),
    "output": ("outputs: [h, y]", 'outputs: [h, y, "y+"]'),
    "syntax": ("Uf @ h[t-1])**n", "Uf h[t-1])**n"),
    "syntax of a derived param": ("A = Ui - Ui.T", "A = Ui - % Ui.T"),
    "syntax of a state": ("c[t] = f*c[t-1] + eps*d[n]", "c[t] = f*c[t-1] + eps*d[n]*"),
    "bracket": ("i = sigma(Wi @ x[t]", "i = sigma((Wi @ x[t]"),
    "left side": ("A = Ui - Ui.T", "2*A = Ui - Ui.T"),
    "head of a loop": ("for l in range(0, n):", "for l in range(0, n)"),
    "range of a loop": ("for l in range(0, n):", "for l in range(0, n, 2):"),
    "variable of a loop": ("for l in range(0, n):", "for t in range(0, n):"),
    "indentation in a loop": ("      d[l+1]", "       d[l+1]"),
    "syntax in a loop": ("phi(e[l])", "phi(e[l] l)"),
    "left side of a state": ("h[t] = mix", "h[t-1] = mix"),
    "no equals": ("y = V", "y V"),
    "assigned twice": ("  y = V", "  f = b\n  y = V"),
    "reserved left side": ("  y = V", "  tanh = b\n  y = V"),
    "expect": ("stages: 3", "stages: one"),
    "head of a function": ("mix(p, q, r)", "mix(p, q, 2)"),
    "syntax in a function": ("r*p + (1 - r)*q", "r*p + (1 - r)*q*"),
    "function twice": ("equations: |", '  "half()": 2\nequations: |'),
    "function reserved": ('  "half(p)"', '  "tanh(p)": 2*p\n  "half(p)"'),
    # what elaboration tells
    "unknown name": ("V @ h[t]", "V @ h[t] + 0*other"),
    "unknown function": ("mix(sigma(c[t])*k", "mix(sigma(foo(c[t]))*k"),
    "unknown dim": ("  b: H\n", "  b: H + Q\n"),
    "unused param": ("  b: H\n", "  b: H\n  unused: [H, H]\n"),
    "unused dim": ("[I, H]\nhyper", "[I, H, D]\nhyper"),
    "unused hyper": ("n: 2}", "n: 2, m: 3}"),
    "unused intermediate": ("  y = V", "  lonely = b*k\n  y = V"),
    "state never assigned": ("h: H,", "h: H, z: H,"),
    "bare state": ("A @ half(k)\n", "A @ half(k) + c\n"),
    "shape": ("*k, h[t-2]", "*k*x[t], h[t-2]"),
    "product": ("V @ h[t]", "V @ h[t] + V @ x[t]"),
    "arity": ("eps*d", "eps*phi(g, g)*d"),
    "no state": ("  y = V", "  j[t] = b*k\n  y = V"),
    "cycle": ("V @ h[t]", "V @ h[t] + y"),
    "future": ("Wf @ x[t]", "Wf @ x[t+1]"),
    "bounds of a loop": ("range(0, n)", "range(0, H)"),
    "no such member": ("eps*d[n]", "eps*d[n+1]"),
    "negative member": ("eps*d[n]", "eps*d[n-3]"),
    "family as a whole": ("eps*d[n]", "eps*d"),
    "name in a loop": ("R[l] @ d[l]", "R[l] @ dd[l]"),
    "shape in a loop": ("R[l] @ d[l]", "R[l] @ x[t] + 0*d[l]"),
    "far lag": ("[t-2]", "[t-2000]"),
    "member assigned twice": ("  c[t] = f", "  d[1] = g\n  c[t] = f"),
    "name in a function": ("mix(p, b, eps)", "mix(p, bb + 0*b, eps)"),
    "function of a function": ("(1 - r)*q", "(1 - r)*foo(q)"),
    "shape in a function": ("mix(p, b, eps)", "mix(p, b + 0*(b + A), eps)"),
    "shape of a call": ("half(k)", "half(Wi)"),
    "arguments of a call": ("half(k)", "half(k, k)"),
    "unused function": ('  "half(p)"', '  "idle(p)": p\n  "half(p)"'),
    "circle of functions": ("r*p + (1 - r)*q", "r*p + (1 - r)*half(q)"),
    "taken function": ('  "half(p)"', '  "k(p)": p\n  "half(p)"'),
    "output of nothing": ("outputs: [h, y]", "outputs: [h, y, nothing]"),
}


def told(folder: Path, text: str) -> list[tuple[str, str, str]]:
    """Every mistake of a spec as (the file's stem, the text from its place on, the message)."""
    path = folder / "cell.yaml"
    path.write_text(text, "utf-8")
    try:
        cellspec.load(path)
    except SpecError as error:
        found = error.diagnostics
        assert list(found) == sorted(set(found))
        return [(Path(d.location.file).stem, d.location.text[d.location.column - 1 :], d.message) for d in found]
    return []


def test_the_specs_to_be_broken_are_right(tmp_path: Path) -> None:
    assert told(tmp_path, LINES) == []
    (tmp_path / "parent.yaml").write_text(PARENT)
    assert told(tmp_path, CHILD) == []


@pytest.mark.parametrize("kind", SINGLE)
def test_one_mistake_is_one_error(kind: str, tmp_path: Path) -> None:
    before, after = SINGLE[kind]
    assert LINES.count(before) == 1
    found = told(tmp_path, LINES.replace(before, after))
    assert len(found) == 1, found


LOST_LOOPS = ("head of a loop", "range of a loop", "variable of a loop")
LOST_FAMILIES = (*LOST_LOOPS, "bounds of a loop", "syntax in a loop")
LOST_DIMS = ("state shape", "param shape", "param braces", "param braces empty", "param twice")
LOST_FUNCTIONS = (
    *("head of a function", "syntax in a function", "name in a function", "function of a function"),
    *("shape in a function", "circle of functions"),
)
MEMBERS = ("no such member", "member assigned twice")

DEPENDENT = {
    # The second mistake lies in what the first one breaks, so it cannot be told as long as the first stands.
    ("input shape", "shape"),
    ("input shape", "product"),
    ("state shape", "shape"),
    ("param without shape", "shape"),
    ("input shape", "shape in a loop"),
    ("param family", "shape in a loop"),
    ("param family of a dim", "shape in a loop"),
    ("left side of a state", "far lag"),
    ("syntax in a loop", "indentation in a loop"),
    *((lost, "indentation in a loop") for lost in LOST_LOOPS),
    *((lost, "name in a loop") for lost in LOST_LOOPS),
    *((lost, "shape in a loop") for lost in (*LOST_LOOPS, "bounds of a loop", "hyper that decides")),
    *((lost, "param family too small") for lost in (*LOST_LOOPS, "bounds of a loop")),
    *((lost, of_members) for lost in (*LOST_FAMILIES, "hyper that decides") for of_members in MEMBERS),
    ("hyper that decides", "negative member"),
    ("hyper that decides", "param family too small"),
    # A dim of which a part that cannot be read may say that it is a constant.
    *((lost, "param family of a dim") for lost in LOST_DIMS),
    *((lost, "bounds of a loop") for lost in LOST_DIMS),
    ("syntax", "future"),
    *((lost, "shape in a function") for lost in ("param shape", "param YAML", "param braces empty", "unknown dim")),
    *((lost, "shape in a function") for lost in ("syntax of a derived param", "left side", "arguments of a call")),
    *((lost, "shape of a call") for lost in ("param shape", "param YAML", "param braces", "unknown dim")),
    *((lost, "shape of a call") for lost in LOST_FUNCTIONS),
    ("head of a function", "function of a function"),
    ("head of a function", "circle of functions"),
    ("circle of functions", "shape in a function"),
    ("unknown function", "shape"),
    ("left side of a state", "unknown function"),
    ("left side of a state", "shape"),
    ("no equals", "unknown name"),
    ("no equals", "product"),
    ("no equals", "cycle"),
}


def changed(text: str, *kinds: str) -> str | None:
    """``text`` with these mistakes; None where one leaves no place for the next."""
    for kind in kinds:
        before, after = SINGLE[kind]
        if text.count(before) != 1:
            return None
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The message of each mistake alone."""
    return {kind: messages(tmp_path_factory.mktemp("single"), LINES.replace(*SINGLE[kind]))[0] for kind in SINGLE}


def messages(folder: Path, text: str) -> list[str]:
    """What is told, sorted; line numbers within a message do not count."""
    return sorted(re.sub(r"in line \d+", "in line …", message) for _, _, message in told(folder, text))


@pytest.mark.parametrize("first", SINGLE)
def test_two_mistakes_are_two_errors(first: str, single: dict[str, str], tmp_path: Path) -> None:
    pairs = 0
    for one, other in itertools.combinations(SINGLE, 2):
        text = changed(LINES, one, other)
        if one != first or text is None or text != changed(LINES, other, one):
            continue
        pairs += 1
        found = messages(tmp_path, text)
        if (one, other) in DEPENDENT:
            assert found == [single[one]], (one, other)
        elif (other, one) in DEPENDENT:
            assert found == [single[other]], (one, other)
        else:
            assert found == sorted((single[one], single[other])), (one, other)
    assert pairs or first == list(SINGLE)[-1]


@given(st.sets(st.sampled_from(sorted(SINGLE)), min_size=3, max_size=8))
@settings(max_examples=60, deadline=None)
def test_many_mistakes_make_no_others(
    tmp_path_factory: pytest.TempPathFactory, single: dict[str, str], kinds: set[str]
) -> None:
    text = changed(LINES, *sorted(kinds))
    if text is not None:
        found = messages(tmp_path_factory.getbasetemp(), text)
        assert found and set(found) <= {single[kind] for kind in kinds}


# --- whole parts that are missing or cannot be read ------------------------------------------------------------


def without(text: str, key: str, instead: str = "") -> str:
    """``text`` with another text in the place of a key and all that belongs to it."""
    return re.sub(rf"^{key}:.*\n(?:  .*\n)*", instead, text, count=1, flags=re.MULTILINE)


@pytest.mark.parametrize("other", ["", "expect: {stages: one}\nwidgets: 1\n"])
@pytest.mark.parametrize("instead", ["", "{key}:\n", "{key}: 3\n", "{key}: [[a]]\n", "{key}: {{}}\n", '{key}: {{"2": H}}\n'])
@pytest.mark.parametrize("key", ["hyper", "inputs", "states", "params", "activations", "equations"])
def test_what_a_lost_part_declares_is_not_unknown(key: str, instead: str, other: str, tmp_path: Path) -> None:
    optional = key in ("hyper", "params", "activations") and instead in ("", "{key}: {{}}\n")
    text = without(without(LINES, key, instead.format(key=key)), "expect", other)
    found = [message for _, _, message in told(tmp_path, text)]
    if optional:  # then nothing is lost: the names are unknown
        assert sum(message.startswith(("unknown ", "'phi' is")) for message in found) >= 1
    else:
        expected = 1 + 2 * bool(other)
        assert len(found) == expected, found


def test_the_rest_is_checked_beside_a_lost_part(tmp_path: Path) -> None:
    text = without(LINES, "states", "states: 3\n").replace("V @ i", "V @ i + Uff").replace("b: H", "b: [H, 0]")
    assert [message for _, _, message in told(tmp_path, text)] == [
        "'states' must be a mapping, such as {x: I}",
        "an axis has at least size 1, but '0' is 0",
        "unknown name 'Uff'; did you mean 'Uf'?",
    ]


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (None, "unknown parent 'parent'"),
        ("name: parent\n  states: {h: H\n", "a ':' is not expected here"),
        ("", "the file is empty"),
        (PARENT.replace("name: parent\n", "name: parent\nextends: cell\n"), "goes in a circle"),
        (PARENT.replace("name: parent\n", "name: parent\nextends: [a]\n"), "must be plain text"),
        (PARENT.replace("name: parent\n", "name: parent\nextends:\n"), "'extends' has no value"),
        (PARENT.replace("  k: {shape: H, init: ones}", "  k: {shape: H H}"), "an operator is missing"),
        (PARENT.replace("b: H", '"b{": H'), "do not pair up"),
        (PARENT.replace("y = V @ h[t]", "y = V @@ h[t]"), "a value is expected"),
    ],
)
def test_a_broken_parent_is_one_error(parent: str | None, message: str, tmp_path: Path) -> None:
    if parent is not None:
        (tmp_path / "parent.yaml").write_text(parent)
    ((_, _, found),) = told(tmp_path, CHILD)
    assert message in found
    own = CHILD.replace("z: H,", "z: 0,").replace("s = z +", "s = z[t] + (Wz @ z) + ").replace("sigma(c[t] + s)", "sigma(s")
    found_too = [text for _, _, text in told(tmp_path, own)]
    assert sorted(set(found_too) - {found}) == [
        "'(' is never closed",
        "'z' is a param and takes no [t]: write z",
        "an axis has at least size 1, but '0' is 0",
    ]


@pytest.mark.parametrize(
    ("remove", "equation"),
    [
        ("[Wff]", "f = phi(Uf @ h[t-1])**n"),
        ('["W{i"]', "f = phi(Uf @ h[t-1])**n"),
        ("3", "i = sigma(Wi @ x[t])"),
        ("", "i = sigma(Wi @ x[t])"),
        ("[b+k]", "i = sigma(Wi @ x[t])"),
        ("[[b]]", "i = sigma(Wi @ x[t])"),
    ],
)
def test_what_should_have_been_removed_is_not_unused(remove: str, equation: str, tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(PARENT)
    text = f"name: cell\nextends: parent\nremove: {remove}\nequations: |\n  {equation}\n"
    assert len(told(tmp_path, text)) == 1


def test_yaml_that_cannot_be_read_is_the_only_error(tmp_path: Path) -> None:
    text = LINES.replace("c: H}", "c: [H}").replace("V @ h[t]", "V @@ unknown").replace("b: H", "b: 0")
    assert len(told(tmp_path, text)) == 1


def test_settings_are_told_with_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text(LINES.replace("b: H", "b: H +").replace("eps: 0.5", "eps: half").replace("phi: tanh", "phi: tahn"))
    with pytest.raises(SpecError) as caught:
        cellspec.load(path, {"eps": "1", "phi": "relu", "psi": "relu"})
    assert [(Path(d.location.file).name, d.message.split(";")[0]) for d in caught.value.diagnostics] == [
        ("--set", "'cell' has no hyperparameter or activation 'psi'"),
        ("cell.yaml", "a hyperparameter must be a number, not 'half'"),
        ("cell.yaml", "a value is expected after '+'"),
        ("cell.yaml", "'tahn' is no pointwise function of one argument"),
    ]


@given(st.integers(0, 2**32), st.integers(1, 8))
@settings(max_examples=200, deadline=2000)
def test_damaged_specs_are_checked_to_the_end(seed: int, wounds: int) -> None:
    dice = random.Random(seed)
    text = dice.choice(SHIPPED)
    for _ in range(wounds):
        start = dice.randrange(len(text))
        text = text[:start] + dice.choice(["", *PIECES, "@", "=", "(", "["]) + text[start + dice.randrange(4) :]
    report = Reporter()
    try:
        elaborate(parse_spec(text, report=report), report)
    except SpecError as error:
        assert set(report.diagnostics) == set(error.diagnostics)


def bulky() -> dict[str, str]:
    """Hostile texts, and those of which much is read although much is lost."""
    head = "name: bulk\ninputs: {x: I}\nstates: {h: H}\n"
    sums = "".join(f"  v{k} = {' + '.join(f'u{k}_{j}' for j in range(50))}\n" for k in range(900))
    stems = "".join(f'  "a{k}{{": H\n' for k in range(4000))
    names = "".join(f"  {k}p: H +\n" for k in range(4000))
    shapes = "".join(f"  p{k}: H +\n" for k in range(4000))
    return hostile() | {
        "many stems": f"{head}params:\n{stems}equations: |\n{sums}",
        "many lost names": f"{head}params:\n{names}equations: |\n{sums}",
        "many broken shapes": f"{head}params:\n{shapes}equations: |\n{sums}",
        "many broken values": f"{head}equations: |\n{sums.replace(' = ', ' = % ')}",
        "many left sides": f"{head}equations: |\n{sums.replace(' = ', '[0] = ')}",
        "many duplicates": f"{head}equations: |\n{re.sub('v[0-9]+ =', 'v =', sums)}",
    }


@pytest.mark.parametrize("kind", sorted(bulky()))
def test_hostile_specs_are_checked_to_the_end_quickly(kind: str) -> None:
    text = bulky()[kind]
    report = Reporter()
    start = clock()
    with pytest.raises(SpecError) as caught:
        elaborate(parse_spec(text, report=report), report)
    str(caught.value)
    assert time.process_time() - start < 2
