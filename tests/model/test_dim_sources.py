"""Which array tells which dim, and the dims that nothing tells apart."""

from __future__ import annotations

import pytest
import sympy
from support import SPECS, cell_from, cell_of

from cellspec.model.dim_sources import Merged, Told, linear, merged, shapes, square, told, untold, untold_by_params, without
from cellspec.model.noise_inputs import DROPOUT_SUFFIX, ZONEOUT_SUFFIX
from cellspec.model.shapes import broadcast, show

H, I, N, D = sympy.symbols("H I N D")  # noqa: E741
ONE = sympy.Integer(1)


def test_a_dim_is_told_once_the_others_of_its_axis_are_known() -> None:
    """In the order in which they become known, which is the order in which a module works them out."""
    assert list(told([(H + I,), (I,)])) == [Told("I", 1, 0, I), Told("H", 0, 0, H + I)]
    assert list(told([(H, I), (I,)])) == [Told("H", 0, 0, H), Told("I", 0, 1, I)]
    assert list(told([(H + I,)])) == [], "there is nothing to tell them apart by"
    assert list(told([(H + I,)], known=("I",))) == [Told("H", 0, 0, H + I)]
    assert list(told([(2 * H + 3,)])) == [Told("H", 0, 0, 2 * H + 3)]
    assert list(told([(H**2,)])) == [Told("H", 0, 0, H**2)], "by a root"
    assert list(told([(H**2 + H,)])) == [] and list(told([(H**3,)])) == []


def test_linear_and_square_extents() -> None:
    assert linear(2 * H * N + I, "H") == (2 * N, I) and square(3 * H**2 - I, "H") == (3, -I)
    assert linear(H**2, "H") is None and linear(I, "H") is None and square(H**2 + H, "H") is None


def cell(params: str, equations: str, *, x: str = "I", h: str = "H") -> object:
    lines = "".join(f"  {line}\n" for line in equations.split("\n"))
    return cell_from(f"name: small\ninputs: {{x: {x}}}\nstates: {{h: {h}}}\nparams: {params}\nequations: |\n{lines}")


def test_dims_that_nothing_tells_apart_are_one() -> None:
    """Whoever knows ``N*D`` alone may take any of the sizes that fit."""
    made = cell("{W: [N*D, I]}", "h[t] = W @ x[t]", h="N*D")
    (group,) = merged(made)
    assert group == Merged("N", D * N, ("D",))
    assert group.size == D * N and untold(made) == []
    assert without((D * N, I), [group]) == (N, I) and without((H,), []) == (H,)


def test_dims_that_an_equation_tells_apart_are_not() -> None:
    made = cell("{W: [N*D, I], b: N}", "h[t] = W @ x[t] + sum(b)", h="N*D")
    assert merged(made) == () and untold(made) == []
    assert [each.dim for each in told(shapes(made))] == ["I", "N", "D"]


def test_what_parameters_alone_do_not_tell() -> None:
    made = cell("{b: H}", "h[t] = b*sum(x[t])")
    assert untold_by_params(made) == ["I"] and untold(made) == []


@pytest.mark.parametrize("spec", SPECS[::12], ids=lambda path: path.stem)
def test_every_dim_of_a_cell_is_told(spec: object) -> None:
    assert untold(cell_of(spec)) == []


# --- shapes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ((), (H,), (H,)),
        ((H,), (ONE,), (H,)),
        ((N, ONE), (N, H), (N, H)),
        ((N, ONE), (ONE, H), (N, H)),
        ((ONE,), (N, H), (N, H)),
        ((H,), (N, H), None),
        ((H,), (I,), None),
        ((ONE, H), (N,), None),
    ],
)
def test_shapes_align_from_the_right(a: tuple[object, ...], b: tuple[object, ...], result: tuple[object, ...] | None) -> None:
    assert broadcast(a, b) == result and broadcast(b, a) == result


def test_shapes_are_written() -> None:
    assert show(()) == "[]" and show((H, H + I)) == "[H, H + I]"


def test_masks_are_told_from_inputs_by_suffixes_that_differ() -> None:
    assert not ZONEOUT_SUFFIX.endswith(DROPOUT_SUFFIX) and not DROPOUT_SUFFIX.endswith(ZONEOUT_SUFFIX)
