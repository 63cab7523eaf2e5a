"""Functional array code, run: it computes what operations are defined to, among parameters and for whole batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import sympy
from program_support import DIMS, Arrays, drawn, program, run, size_of

from cellspec import ir
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.arrays.spelling import NUMPY, Spelling
from cellspec.backends.cupy.spelling import CUPY
from cellspec.backends.numpy.runtime import activations, arrays
from cellspec.ir import Program, symbol
from cellspec.ir.parse import parse_program
from cellspec.model.primitives import PRIMITIVES

SAMPLES = 5
LIBRARIES: dict[str, Spelling] = {"numpy": NUMPY, "cupy": CUPY}
"""CuPy's functions are NumPy's here."""

every_library = pytest.mark.parametrize("spelling", LIBRARIES.values(), ids=LIBRARIES)


def computed(step: Program, given: Arrays, spelling: Spelling, batched: bool) -> tuple[Arrays, dict[str, str]]:
    """What the code of ``step`` computes, and its lines; with ``batched``, all but constants have their samples in front."""
    names: dict[str, Any] = {**vars(activations), **vars(arrays), "np": np, "cp": np, "dtype": np.dtype("d")}
    names |= {**DIMS, "B": SAMPLES}
    texts = {name: f"v{number}" for number, name in enumerate(step.values)}
    names |= {texts[name]: array for name, array in given.items()}
    plain = Plain(step.values, texts, {}, batched, step.constants, spelling=spelling)
    lines = {}
    for op in step.ops:
        (out,) = ir.outs(op)
        shape = step.shape(out)
        axes = str((*[SAMPLES] * batched, *size_of(shape)))
        lines[out] = plain.whole(op, shape, axes, "dtype")
        names[texts[out]] = np.asarray(eval(lines[out], names))
    assert plain.helpers <= {name[1:] for name in names if name.startswith("_")}
    return {name: names[text] for name, text in texts.items() if text in names}, lines


PARAMETERS = """
    constant  a: [H], c: [H], W: [H, I], V: [I, H], F: [2, H, I], S: [H, H]
      W.V: [H, H]      = W @ V
      turned: [I, H]   = W.T
      `W.T@a`: [I]     = W.T @ a
      `V.T@W.T`: [H, H] = V.T @ W.T
      outside: [H, I]  = outer(a, `W.T@a`)
      first: [H, I]    = F[1]
      both: [2, H]     = stack(a, c)
      flat: [2*H]      = reshape(both)
      side: [2*H]      = [a, c]
      part: [H]        = side[..., 1 : H + 1]
      top: [1]         = largest(a)
      up: [H]          = cumsum(a)
      down: [H]        = cumsum(a, reverse)
      left: [H]        = roll(a, -1)
      total: [1]       = sum_to(a)
      still: [H]       = stop_gradient(a)
      E: [H, H]        = identity
      safe: [H, H]     = 4*E + S*S/9
      `inv(S)`: [H, H] = inv(safe)
      ones: [H]        = 1
      number: []       = H/2
      halves: [H]      = number*ones
"""


@every_library
def test_among_parameters(spelling: Spelling) -> None:
    step = program(PARAMETERS)
    given = drawn(step)
    expected = run(step, given)
    found, _ = computed(step, given, spelling, batched=False)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-15, err_msg=name)


BATCH = """
    constant  W: [H, I], K: [N, I, H], L: [N, H, I], c: [H]
    sequence  x[t]: [I], m[t]: [N, H], g[t]: [1], h[t-1]: [H], d[t]: [N, I]
      W@x: [H]           = W @ x[t]
      `W.T@h`: [I]       = W.T @ h[t-1]
      heads: [N, I]      = K @ m[t]
      `back`: [N, I]     = L.T @ m[t]
      `outside each`: [N, H, I] = outer(m[t], d[t])
      `[h, c]`: [2*H]    = [h[t-1], c]
      part: [H]          = `[h, c]`[..., 1 : H + 1]
      flat: [N*H]        = reshape(m[t])
      top: [N, 1]        = largest(m[t])
      up: [N, H]         = cumsum(m[t])
      down: [H]          = cumsum(h[t-1], reverse)
      left: [N, H]       = roll(m[t], 1)
      total: [N, 1]      = sum_to(m[t])
      whole: [1]         = sum_to(h[t-1])
      still: [H]         = stop_gradient(h[t-1])
      scaled: [H]        = g[t]*h[t-1] + c
      wide: [N, H]       = m[t]*g[t] - total
      spread: [N, H]     = g[t]
"""


@every_library
def test_for_a_batch_each_sample_is_as_alone(spelling: Spelling) -> None:
    step = program(BATCH)
    alone = [drawn(step, seed) for seed in range(SAMPLES)]
    shared = {name: alone[0][name] for name in step.constants}
    batch = {name: np.stack([given[name] for given in alone]) for name in step.sequences} | shared
    found, _ = computed(step, batch, spelling, batched=True)
    for number, given in enumerate(alone):
        expected = run(step, {**given, **shared})
        for name in (out for op in step.ops for out in ir.outs(op)):
            np.testing.assert_allclose(found[name][number], expected[name], rtol=1e-12, atol=1e-15, err_msg=name)


def test_every_operation_is_run_here_but_what_is_packed() -> None:
    """Products are packed by scheduling, for whoever manages memory."""
    kinds = {type(op) for text in (PARAMETERS, BATCH) for op in program(text).ops}
    assert kinds == {*ir.Op.__args__} - {ir.Product}
    plain = Plain({}, {}, {}, batched=False)
    with pytest.raises(NotImplementedError, match="there is no functional code for"):
        plain.op(ir.Product(("y",), (("W",),), ("x",)), (symbol("H"),))


FUNCTIONS = [name for name, row in PRIMITIVES.items() if row.derivatives]


@every_library
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, spelling: Spelling) -> None:
    row = PRIMITIVES[name]
    args = [symbol(letter) for letter in "pqr"[: row.arity]]
    step = program(f"sequence {', '.join(f'{arg}: [H]' for arg in args)}\n y: [H] = {name}({', '.join(map(str, args))})")
    rng = np.random.default_rng(0)
    batch = {str(arg): rng.uniform(*row.domain, (SAMPLES, 3)) for arg in args}
    found, _ = computed(step, batch, spelling, batched=True)
    expected = [run(step, {key: array[sample] for key, array in batch.items()})["y"] for sample in range(SAMPLES)]
    np.testing.assert_allclose(found["y"], expected, rtol=1e-12, atol=1e-15)
    assert found["y"].dtype == np.float64


# --- expressions, as a person would write them -----------------------------------------------------------------------------


def text(right: str, values: Mapping[str, str] | None = None) -> str:
    """The code of an expression over ``x``, ``y`` and ``z``, the dims, and constants ``a`` and ``b``."""
    step = parse_program(f"constant a: [H], b: [H]\n sequence x: [H], y: [H], z: [H]\n out: [H] = {right}")
    (op,) = step.ops
    texts = {name: name for name in step.values} | dict(values or {})
    return Plain(step.values, texts, {"H": "H_"}, True, step.constants).op(op, step.shape("out"))


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ("y*x + a", "x*y + a"),
        ("a - x", "a - x"),
        ("1 - x*y", "1 - x*y"),
        ("-x*(y + z)", "-x*(y + z)"),
        ("x/2", "0.5*x"),
        ("x/y/z", "x/y/z"),
        ("x*y**-2", "x/y/y"),
        ("x - (y - z)", "x + z - y"),
        ("tanh(x + a)", "np.tanh(x + a)"),
        ("where(lt(x, y), 1, 0)", "np.where(np.less(x, y), dtype.type(1), 0)"),
        ("lt(x, y)", "np.less(x, y).astype(dtype)"),
        ("x*H**(1/2)", "float(H_)**0.5*x"),
        ("x*log(H)", "float(np.log(H_))*x"),
    ],
)
def test_expressions_read_well(right: str, expected: str) -> None:
    """In the order in which values are defined, numbers as Python has them; of dims alone, a number and no array."""
    assert text(right) == expected


def test_which_functions_a_module_brings_along() -> None:
    step = parse_program("sequence x: [H]\n out: [H] = sigmoid(x) + silu(x)*tanh(x)")
    plain = Plain(step.values, {"x": "x", "out": "y"}, {}, True)
    plain.op(step.ops[0], step.shape("out"))
    assert plain.helpers == {"sigmoid", "silu"}


def test_axes_along_which_something_was_stretched() -> None:
    H, N, one = sympy.Symbol("H"), sympy.Symbol("N"), sympy.Integer(1)
    assert Plain.summed_axes((N, H), (one, H)) == (0,) and Plain.summed_axes((N, H), (H,)) == (0,)
    assert Plain.summed_axes((N, H), (N, one)) == (1,) and Plain.summed_axes((N, H), ()) == (0, 1)


def test_an_array_is_whole_where_its_operands_are_smaller() -> None:
    step = program("sequence g: [1]\n y: [N, H] = 2*g")
    found, lines = computed(step, {"g": np.ones((SAMPLES, 1))}, NUMPY, batched=True)
    assert lines["y"].startswith("np.full(") and found["y"].shape == (SAMPLES, *size_of(step.shape("y")))
