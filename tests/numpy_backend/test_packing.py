"""Neighbours: what lies side by side, which calls become one, and in which order the steps of a region come."""

from __future__ import annotations

import pytest
import sympy
from numpy_support import code_of, demands, homes, steps_of, storage_of
from program_support import scheduled

from cellspec import ir
from cellspec.backends.memory.model import Home
from cellspec.backends.numpy.instructions import Contraction, Scalar
from cellspec.backends.numpy.packing import plan
from cellspec.backends.numpy.storage import Block, Packed, is_mixed, step_reads, step_writes
from cellspec.backends.numpy.turns import in_turn, unpacked

H, N = sympy.symbols("H N")

GATES = """
    constant  Wi: [H, I], Wf: [H, I], Wz: [H, I], Ui: [H, H], Uf: [H, H], Uz: [H, H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H]
      Wi@x: [H]  = Wi @ x[t]
      Wf@x: [H]  = Wf @ x[t]
      Wz@x: [H]  = Wz @ x[t]
      Ui@h: [H]  = Ui @ h[t-1]
      Uf@h: [H]  = Uf @ h[t-1]
      Uz@h: [H]  = Uz @ h[t-1]
      i.pre: [H] = Wi@x + Ui@h
      f.pre: [H] = Wf@x + Uf@h
      z.pre: [H] = Wz@x + Uz@h
      i: [H]     = exp(i.pre)
      f: [H]     = exp(f.pre)
      z: [H]     = tanh(z.pre)
      h[t]: [H]  = f*h[t-1] + i*z
    carry     h[t-1] <- h[t]
    give out  h[t]
"""
KEPT = ("i", "f", "z")


def test_gates_of_a_stack_are_one_call() -> None:
    """One product, one sum for all, one function for those of a kind; the products of each are another's."""
    steps = steps_of(storage_of(GATES, keep=KEPT))
    assert steps["before"] == ["Wi@x, Wf@x, Wz@x = Product"]
    assert steps["loop"][:4] == [
        "Ui@h, Uf@h, Uz@h = Product",
        "i.pre|f.pre|z.pre = add(Wi@x|Wf@x|Wz@x, Ui@h|Uf@h|Uz@h)",
        "i|f = exp(i.pre|f.pre)",
        "z = tanh(z.pre)",
    ]
    assert all("|" not in line for line in steps["loop"][4:])


def test_ranks_say_who_stands_where() -> None:
    """Ties are broken by the order of the text."""
    rank = {
        name: (("f", "z", "i").index(gate),) for gate in "fzi" for name in (f"W{gate}@x", f"U{gate}@h", f"{gate}.pre", gate)
    }
    storage = storage_of(GATES, keep=KEPT, rank=rank)
    assert storage.block(["f", "z", "i"]) is not None and storage.block(["i", "f"]) is None
    lines = steps_of(storage)["loop"]
    assert "f.pre|z.pre|i.pre = add(Wf@x|Wz@x|Wi@x, Uf@h|Uz@h|Ui@h)" in lines
    assert {"f = exp(f.pre)", "z = tanh(z.pre)", "i = exp(i.pre)"} <= set(lines), "what stands between them parts them"


def test_whoever_cannot_join_ends_a_run() -> None:
    """Two before it are one call still."""
    step = GATES
    for line in ("      Wz@x: [H]  = Wz @ x[t]", "      Uz@h: [H]  = Uz @ h[t-1]", "      z.pre: [H] = Wz@x + Uz@h"):
        other = line.replace("z.pre", "o.pre").replace("Wz", "Wo").replace("Uz", "Uo")
        step = step.replace(line, f"{line}\n{other}")
    step = step.replace("      z: [H]     = tanh(z.pre)", "      z: [H]     = tanh(z.pre)\n      o: [H]     = exp(o.pre)")
    step = (
        step.replace("+ i*z", "+ i*z*o")
        .replace("Wz: [H, I]", "Wz: [H, I], Wo: [H, I]")
        .replace("Uz: [H, H]", "Uz: [H, H], Uo: [H, H]")
    )
    lines = steps_of(storage_of(step, keep=(*KEPT, "o")))["loop"]
    assert {"i|f = exp(i.pre|f.pre)", "z = tanh(z.pre)", "o = exp(o.pre)"} <= set(lines)


def test_where_samples_come_first_nothing_is_joined() -> None:
    """A part of an array would be no array in one piece."""
    storage = storage_of(GATES, keep=KEPT, neighbours=False)
    assert all(len(slots.members) == 1 for slots in storage.buffers)
    assert not [line for lines in steps_of(storage).values() for line in lines if "|" in line]


def test_products_are_taken_apart_where_their_results_are_no_neighbours() -> None:
    steps = steps_of(storage_of(GATES.replace("give out  h[t]", "give out h[t], z")))
    products = [line for line in steps["loop"] if line.endswith("Product")]
    assert sum(line.count(",") + 1 for line in products) == 3 and len(products) > 1


def test_operands_that_are_no_neighbours_make_a_sum_of_products() -> None:
    """``V @ v + W @ w`` as one product needs v and w side by side; the sum grows where it stays."""
    step = """
        constant  V: [H, H], W: [H, H]
        sequence  x[t]: [H], y[t]: [H]
        carried   h[t-1]: [H]
          v: [H]    = tanh(h[t-1]*x[t])
          w: [H]    = tanh(h[t-1]*y[t])
          p: [H]    = V.T @ v
          q: [H]    = W.T @ w
          e: [H]    = p + q
          h[t]: [H] = {last}
        carry     h[t-1] <- h[t]
        give out  h[t]
    """
    side_by_side = storage_of(step.format(last="tanh(e)"))
    assert [line for line in steps_of(side_by_side)["loop"] if "Product" in line] == ["e = Product"]
    assert side_by_side.block(["v", "w"]) is not None
    apart = storage_of(step.format(last="e + v"))  # v lies where h[t] will
    products = [s for s in apart.steps[1] if isinstance(s, ir.Product)]
    assert [(p.weights, p.operands, p.transposed) for p in products] == [((("V",),), ("v",), True), ((("W",),), ("w",), True)]
    (total,) = [s for s in apart.steps[1] if isinstance(s, Packed) and s.outs == ("e",)]
    assert total.ufunc == "add" and sorted(n for (n,) in total.args) == sorted(n for p in products for n in p.outs)  # type: ignore[misc]
    assert apart.place["e"] in {apart.place[out] for p in products for out in p.outs}


def test_heads_of_several_shapes_are_several_products() -> None:
    step = """
        constant  U: [N, H, D], V: [N, K, D]
        carried   h[t-1]: [N, D]
          p: [N, H]    = U @ h[t-1]
          q: [N, K]    = V @ h[t-1]
          s: [1]       = sum_to(p)
          r: [1]       = sum_to(q)
          h[t]: [N, D] = h[t-1]*s*r
        carry     h[t-1] <- h[t]
        give out  h[t]
    """
    assert [line for line in steps_of(storage_of(step))["loop"] if "Product" in line] == ["p = Product", "q = Product"]
    same = steps_of(storage_of(step.replace("V: [N, K, D]", "V: [N, H, D]").replace("q: [N, K]", "q: [N, H]")))
    assert "p, q = Product" in same["loop"]


def test_cotangents_of_one_gradient_lie_side_by_side() -> None:
    """One product makes the rows of all."""
    storage = storage_of(
        """
        sequence  dy: [H], s[t]: [H], u[t]: [H], x[t]: [I]
        carried   p: [H]
          d: [H]    = dy + p
          a: [H]    = d*s[t]
          b: [H]    = d*u[t]
          n: [H]    = a + b
          O: [H, I] = outer(a, x[t])
          Q: [H, I] = outer(b, x[t])
        carry     p <- n
        total     dV = sum of O
        total     dW = sum of Q
        """,
        states=False,
    )
    assert storage.block(["a", "b"]) is not None and storage.home("a") is Home.SEQUENCE


# --- plans -------------------------------------------------------------------------------------------------------


def test_blocks_are_runs_of_one_buffer() -> None:
    storage = storage_of(GATES, keep=KEPT)
    buffer, start = storage.place["i"]
    assert storage.block(["f", "z"]) == Block(buffer, start + 1, start + 3)
    assert storage.block(["z", "f"]) is None and storage.block(["i", "h[t]"]) is None and storage.block(["i", "Wi"]) is None
    assert storage.buffers[buffer].shapes == ((H,),) * 3


def test_a_history_reaches_as_far_back_as_it_is_read() -> None:
    storage = storage_of(
        """
        sequence  x[t]: [H]
        carried   h[t-1]: [H], h[t-5]: [H], g[t-1]: [H]
          h[t]: [H] = tanh(h[t-1] + h[t-5] + x[t])
          g[t]: [H] = g[t-1] + h[t]
        carry     h[t-1] <- h[t]
        carry     g[t-1] <- g[t]
        delay     h[t-5] <- h[t], 5 steps
        give out  g[t]
        """
    )
    assert (storage.reach("h[t]"), storage.reach("h[t-5]"), storage.reach("g[t]")) == (5, 5, 1)
    assert [storage.distance(name) for name in ("h[t-5]", "h[t-1]", "h[t]")] == [5, 1, None]
    assert storage.place["h[t-5]"] == storage.place["h[t-1]"] == storage.place["h[t]"]
    assert homes(storage)["h[t-5]"] is Home.HISTORY


@pytest.mark.parametrize(
    ("out", "args", "mixed"),
    [((N, H), [(N, H), (1, H)], True), ((N, H), [(N, H), (1,)], False), ((N, H), [(N, H)], False), ((H,), [(H,), (1,)], False)],
)
def test_what_is_stretched_along_some_axes(out: tuple[object, ...], args: list[tuple[object, ...]], mixed: bool) -> None:
    def shape(axes: tuple[object, ...]) -> tuple[sympy.Expr, ...]:
        return tuple(map(sympy.sympify, axes))

    assert is_mixed(shape(out), map(shape, args)) is mixed


def test_steps_read_and_write_blocks() -> None:
    step = Packed("add", ("a", "b"), (("c", "d"), Scalar(sympy.Integer(2)), ("e",)))
    assert (step_reads(step), step_writes(step)) == (("c", "d", "e"), ("a", "b"))
    other = Contraction("a", "l", "r", (N, H))
    assert (step_reads(other), step_writes(other)) == (("l", "r"), ("a",))


def test_constants_of_a_stack_are_packed() -> None:
    """Vectors that are added to gates side by side lie side by side too."""
    step = (
        GATES.replace("Uz: [H, H]", "Uz: [H, H], bi: [H], bf: [H]")
        .replace("+ Ui@h", "+ Ui@h*bi")
        .replace("+ Uf@h", "+ Uf@h*bf")
    )
    storage = plan(code_of(scheduled(step, blocks=True)), demands(keep=KEPT))
    assert storage.block(["bi", "bf"]) is not None and storage.home("bi") is Home.CONSTANT


# --- the order of steps ---------------------------------------------------------------------------------------------


def call(out: str, *args: str) -> Packed:
    return Packed("f", tuple(out.split()), tuple(tuple(arg.split()) for arg in args))


def needs(steps: list[Packed]) -> object:
    made = {name for step in steps for name in step.outs}
    return lambda step: made.intersection(step_reads(step)) - set(step.outs)


def order(*steps: Packed) -> list[tuple[str, ...]]:
    found = in_turn(list(steps), needs(list(steps)))  # type: ignore[arg-type]
    return [step.outs for step in found]  # type: ignore[union-attr]


def test_each_step_comes_after_what_it_reads_and_otherwise_as_it_stands() -> None:
    assert order(call("c", "b"), call("a", "x"), call("b", "a"), call("d", "x")) == [("a",), ("b",), ("c",), ("d",)]
    assert order(call("a", "x"), call("b", "y"), call("c", "z")) == [("a",), ("b",), ("c",)]


def test_neighbours_that_wait_for_one_another_are_calls_of_their_own() -> None:
    """a|b reads d, c|d reads a: together neither can begin. What they read of what is there already, they do not wait for."""
    found = order(call("z", "x"), call("a b", "x d", "z"), call("c d", "a y"))
    assert sorted(found) == [("a",), ("b",), ("c", "d"), ("z",)] and found[0] == ("z",)
    assert found.index(("a",)) < found.index(("c", "d")) < found.index(("b",))


def test_calls_that_were_joined() -> None:
    two = Scalar(sympy.Integer(2))
    assert unpacked(Packed("add", ("a", "b"), (("c", "d"), ("e",), two))) == [
        Packed("add", ("a",), (("c",), ("e",), two)),
        Packed("add", ("b",), (("d",), ("e",), two)),
    ]
