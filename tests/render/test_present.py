"""Equations for people: LaTeX, Unicode, SymPy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import sympy
from support import SPECS, cell_from, cell_of, spec_id

from cellspec import load, oracle
from cellspec.model.primitives import PRIMITIVES
from cellspec.render.as_sympy import Joined, Matmul, Transposed, latex, pretty, sympy_equations
from cellspec.render.unicode import assignments
from cellspec.verification.sampling import sample

LANGUAGE_FOLDER = Path(__file__).parents[1] / "valid_language"
LANGUAGE = sorted(LANGUAGE_FOLDER.glob("*.yaml"))
NORM = r"\left\lVert \frac{x_t}{b}\right\rVert + \operatorname{dot}(b, x_t)"
OUTER = r"(\operatorname{sum}(W x_t) \cdot (b b_h^{\top})) x_t"
HEAD = """\
name: small
inputs: {x: H}
states: {h: H}
params: {W: [H, H], U1: [H, H], b: H, bh: H, s: 1, alpha: H}
"""


def lines(equation: str) -> tuple[str, str]:
    """``h[t] = …`` in Unicode and LaTeX, without the left side."""
    names = [name for name in ("W", "U1", "b", "bh", "s", "alpha") if not re.search(rf"\b{name}\b", equation)]
    head = HEAD
    for name in names:
        head = re.sub(rf"\b{name}: (\[H, H\]|H|1)(, )?", "", head)
    if "x[t]" not in equation:
        equation += " + x[t]"
    cell = cell_from(f"{head}equations: |\n  h[t] = {equation}\n")
    plain, tex = pretty(cell), latex(cell)
    return plain.removeprefix("hₜ = "), tex.split("&= ")[1].removesuffix("\n\\end{aligned}")


@pytest.mark.parametrize(
    ("equation", "plain", "tex"),
    [
        ("sigmoid(W @ x[t] + U1 @ h[t-1] + b)", "σ(W xₜ + U1 hₜ₋₁ + b)", r"\sigma(W x_t + U_1 h_{t-1} + b)"),
        ("W @ (b*x[t])", "W (b ⊙ xₜ)", r"W (b \odot x_t)"),
        ("b*(W @ x[t])", "b ⊙ (W xₜ)", r"b \odot (W x_t)"),
        ("W.T @ x[t] - eye(H) @ h[t-1]", "Wᵀ xₜ - I hₜ₋₁", r"W^{\top} x_t - \mathrm{I} h_{t-1}"),
        ("W @ (U1 @ x[t])", "W U1 xₜ", "W U_1 x_t"),
        ("(W + U1) @ x[t]", "(W + U1) xₜ", "(W + U_1) x_t"),
        ("(x[t] - (b - bh))*(1 - h[t-1])", "(xₜ - (b - bh)) ⊙ (1 - hₜ₋₁)", r"(x_t - (b - b_h)) \odot (1 - h_{t-1})"),
        ("x[t] + -b", "xₜ - b", "x_t - b"),
        ("-(x[t] + b)", "-(xₜ + b)", "-(x_t + b)"),
        ("b*-x[t]", "b ⊙ (-xₜ)", r"b \odot (-x_t)"),
        ("0.5*x[t] + x[t]*2", "0.5 xₜ + xₜ · 2", r"0.5 x_t + x_t \cdot 2"),
        ("s*x[t]", "s · xₜ", r"s \cdot x_t"),
        ("1e-3*x[t] + 2.5e8", "0.001 xₜ + 2.5e+08", r"0.001 x_t + 2.5 \cdot 10^{8}"),
        ("x[t]/(1 + abs(b))", "xₜ/(1 + |b|)", r"\frac{x_t}{1 + |b|}"),
        ("(x[t]/b)/h[t-1]", "xₜ/b/hₜ₋₁", r"\frac{\frac{x_t}{b}}{h_{t-1}}"),
        ("x[t]/(b*b)", "xₜ/(b ⊙ b)", r"\frac{x_t}{b \odot b}"),
        ("tanh(x[t]/b)", "tanh(xₜ/b)", r"\tanh\left(\frac{x_t}{b}\right)"),
        ("(x[t] + b)**2 + x[t]**-1 + x[t]**0.5", "(xₜ + b)² + xₜ⁻¹ + xₜ^0.5", r"{(x_t + b)}^{2} + {x_t}^{-1} + {x_t}^{0.5}"),
        ("alpha*sqrt(x[t])", "alpha ⊙ √(xₜ)", r"\alpha \odot \sqrt{x_t}"),
        ("max(x[t], b) + identity(x[t])", "max(xₜ, b) + xₜ", r"\max(x_t, b) + x_t"),
        ("sum(W @ x[t])*outer(b, bh) @ x[t]", "(sum(W xₜ) · (b bhᵀ)) xₜ", OUTER),
        ("norm(x[t]/b) + dot(b, x[t])", "‖xₜ/b‖ + dot(b, xₜ)", NORM),
        ("inv(W) @ x[t]*t_now", "(W⁻¹ xₜ) · t", r"({W}^{-1} x_t) \cdot t"),
        ("h[t-3] + x[t-12]*b", "hₜ₋₃ + xₜ₋₁₂ ⊙ b", r"h_{t-3} + x_{t-12} \odot b"),
        ("hard_tanh(x[t])", "hard_tanh(xₜ)", r"\operatorname{hard\_tanh}(x_t)"),
        ("floor(x[t]) + roll(x[t], -1)", "floor(xₜ) + roll(xₜ, -1)", r"\lfloor x_t \rfloor + \operatorname{roll}(x_t, -1)"),
        (
            "where(x[t] <= b, stop_gradient(x[t]), -b)",
            "{stop_gradient(xₜ) if xₜ ≤ b; else -b}",
            r"\begin{cases} \operatorname{stop\_gradient}(x_t) & \text{if } x_t \le b \\ -b & \text{otherwise} \end{cases}",
        ),
    ],
)
def test_forms(equation: str, plain: str, tex: str) -> None:
    assert lines(equation) == (plain, tex) or lines(equation) == (plain + " + xₜ", tex + " + x_t")


def test_concatenation() -> None:
    cell = load("gru_concat")
    assert "nₜ = tanh(W [rₜ ⊙ hₜ₋₁; xₜ])" in pretty(cell)
    assert r"n_t &= \tanh(W [r_t \odot h_{t-1}; x_t]) \\" in latex(cell)


def test_whole() -> None:
    cell = load("lstm")
    assert latex(cell) == (
        "\\begin{aligned}\n"
        "i_t &= \\sigma(W_i x_t + U_i h_{t-1} + b_i) \\\\\n"
        "f_t &= \\sigma(W_f x_t + U_f h_{t-1} + b_f) \\\\\n"
        "g_t &= \\tanh(W_g x_t + U_g h_{t-1} + b_g) \\\\\n"
        "o_t &= \\sigma(W_o x_t + U_o h_{t-1} + b_o) \\\\\n"
        "c_t &= f_t \\odot c_{t-1} + i_t \\odot g_t \\\\\n"
        "h_t &= o_t \\odot \\tanh(c_t)\n"
        "\\end{aligned}"
    )
    assert pretty(cell).splitlines()[-2:] == ["cₜ = fₜ ⊙ cₜ₋₁ + iₜ ⊙ gₜ", "hₜ = oₜ ⊙ tanh(cₜ)"]


def test_families() -> None:
    cell = cell_of(LANGUAGE_FOLDER / "depth.yaml")
    assert "s[2]ₜ = tanh(R[1] s[1]ₜ + b[1])" in pretty(cell).replace("1 b", "b")
    tex = latex(cell)
    assert r"s_{2,t} &= \tanh(R_1 s_{1,t} + 1 b_1)" in tex and r"P_1 &= (P_0 U_0) \cdot 0.5" in tex
    assert "lag" not in tex + pretty(cell) and "z_{2,t} &= x_{t-4}" in tex
    texts = [str(equation) for equation in sympy_equations(cell)]
    assert "Eq(z[2, t], x[t - 4])" in texts and "Eq(P[1], (P[0] @ U[0])/2)" in texts


def test_names() -> None:
    """A parameter that is named after what it feeds gets an index; so do numbered names; words stay words."""
    tex = latex(load("peephole"))
    assert r"p_i \odot c_{t-1}" in tex and r"\pi" not in tex
    tex = latex(load("lstm_concat"))
    assert r"\hat{C}_t &= \tanh(W_C [h_{t-1}; x_t] + b_C)" in tex
    equations = "  new_gate = V1*x[t]\n  word = new_gate*mu\n  h[t] = word + h[t-1]\n"
    tex = latex(cell_from(f"name: n\ninputs: {{x: H}}\nstates: {{h: H}}\nparams: {{V1: H, mu: H}}\nequations: |\n{equations}"))
    assert r"\mathit{new}_{gate,t} &= V_1 \odot x_t" in tex and r"\mathit{word}_t &= \mathit{new}_{gate,t} \odot \mu" in tex


@pytest.mark.parametrize("path", [*SPECS, *LANGUAGE], ids=spec_id)
def test_every_cell(path: Path) -> None:
    """Braces and environments pair up; every equation is there, in order; no character could end the formula."""
    cell = cell_of(path)
    text = latex(cell)
    assert text.count("&=") == len(assignments(cell)) == len(pretty(cell).splitlines()) == len(sympy_equations(cell))
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}") and "$" not in text and "#" not in text
    assert re.findall(r"\\begin{(\w+)}", text).count("cases") == re.findall(r"\\end{(\w+)}", text).count("cases")
    assert text.count(r"\left") == text.count(r"\right")
    assert not re.search(r"(?<!\\)_(?![{\w])", text)


def test_sympy() -> None:
    equations = sympy_equations(load("gru"))
    assert [str(equation.lhs) for equation in equations] == ["r[t]", "u[t]", "n[t]", "h[t]"]
    assert str(equations[2].rhs) == "tanh(bn + Un @ (h[t - 1]*r[t]) + Wn @ x[t])"
    t = sympy.Symbol("t", integer=True)
    u, n, h = (sympy.IndexedBase(name)[t] for name in "unh")
    before = sympy.IndexedBase("h")[t - 1]
    assert equations[3] == sympy.Eq(h, u * n + (1 - u) * before)
    assert equations[3].rhs.diff(u) == n - before


def test_sympy_structure() -> None:
    (zse, *_) = sympy_equations(load("lstm_zse"))
    assert "Ve.T @ z[t - 1]" in str(zse.rhs) and r"Ve^{\top} {z}_{t - 1}" in sympy.latex(zse.rhs)
    (concat, *_) = sympy_equations(load("gru_concat"))
    (product,) = concat.rhs.atoms(Matmul)
    assert isinstance(product.args[1], Joined) and str(product) == "Wz @ [h[t - 1], x[t]]"
    assert sympy.latex(product) == r"Wz \left[{h}_{t - 1}; {x}_{t}\right]"
    (derived, *_) = sympy_equations(cell_of(Path(__file__).parents[1] / "valid" / "antisymmetric.yaml"))
    assert derived.rhs.has(Transposed) and str(derived) == "Eq(A, M - eye(H)/20 - M.T)"


@pytest.mark.parametrize("path", [*SPECS, *LANGUAGE], ids=spec_id)
def test_sympy_means_the_same(path: Path) -> None:
    """With all dims 1, where every product is one of numbers, the equations give the oracle's values."""
    cell = cell_of(path)
    single = {sympy.Integer(1), *map(sympy.Symbol, cell.dims)}
    shapes = [part.shape for part in (*cell.states, *cell.inputs)] + [p.shape[p.repeat is not None :] for p in cell.params]
    if not all(single.issuperset(shape) for shape in shapes) or any(one.has(Joined) for one in sympy_equations(cell)):
        pytest.skip("its concatenations are never of length 1")
    drawn = sample(cell, dict.fromkeys(cell.dims, 1), 1, 1, np.random.default_rng(3), np.float64)
    true = oracle.forward(cell, drawn.params, drawn.x, drawn.state, dims=drawn.dims)
    t = sympy.Symbol("t", integer=True)
    assert drawn.state is not None
    known = {t: float(drawn.state.get("t_now", np.zeros(1)).squeeze())} | {sympy.Symbol(name): 1.0 for name in cell.dims}
    for param in cell.params:
        for k, number in enumerate(drawn.params[param.name].ravel()):
            known[sympy.Symbol(param.name) if param.repeat is None else sympy.IndexedBase(param.name)[k]] = float(number)
    known |= {sympy.IndexedBase(name)[t]: float(array.squeeze()) for name, array in drawn.x.items()}
    for state in cell.states:
        name, back = state.lag_of or (state.name, 1)
        known[sympy.IndexedBase(name)[t - back]] = float(drawn.state[state.name].squeeze())
    for equation, one in zip(sympy_equations(cell), assignments(cell), strict=True):
        value = equation.rhs
        for function, meaning in MEANINGS.items():
            value = value.replace(function, meaning)
        for left in sorted(known, key=lambda left: -len(str(left))):  # x[t] before t
            value = value.subs(left, known[left])
        known[equation.lhs] = float(value)
        name = one.target.name
        expected = true.values[name] if name in true.values else true.derived[name]
        assert known[equation.lhs] == pytest.approx(float(np.squeeze(expected)), rel=1e-9, abs=1e-12), name


MEANINGS = {
    Matmul: lambda a, b: a * b,
    Transposed: lambda a: a,
    sympy.Function("eye"): lambda size: sympy.Integer(1),
    sympy.Function("roll"): lambda v, shift: v,
    **{sympy.Function(name): lambda v: v for name in ("stop_gradient", "sum", "mean", "logsumexp", "cumsum")},
    sympy.Function("var"): lambda v: sympy.Integer(0),
    sympy.Function("softmax"): lambda v: sympy.Integer(1),
    sympy.Function("norm"): sympy.Abs,
    sympy.Function("inv"): lambda a: 1 / a,
    sympy.Function("dot"): lambda a, b: a * b,
    sympy.Function("outer"): lambda a, b: a * b,
} | {row.symbol: row.definition for row in PRIMITIVES.values() if isinstance(row.symbol, type)}
