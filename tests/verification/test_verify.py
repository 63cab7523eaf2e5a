"""``verify`` on a module written by hand: several inputs and outputs, a family, a matrix state, an infinite start."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import sympy
from by_hand import add, after, before, cell, matmul, member, mul, op, outer, param, stream, value

from cellspec.cell import Cell
from cellspec.verification.check import verify


class Params(NamedTuple):
    g: Any


class Inputs(NamedTuple):
    x: Any
    dt: Any


class State(NamedTuple):
    h: Any
    C: Any
    m: Any


class Outputs(NamedTuple):
    h: Any
    r: Any


class Grads(NamedTuple):
    params: Params
    x: Inputs
    state: State


def equations() -> Cell:
    """h = g[0] h + x dt, r = C x, C = C + x g[1]ᵀ, m = max(m, dt): C and m of the step before."""
    H = sympy.Symbol("H")
    g, x, dt, C = param("g", 2, H), stream("x", H), stream("dt", 1), before("C", H, H)
    return cell(
        {
            after("h", H): add(mul(member(g, 0), before("h", H)), mul(x, dt)),
            value("r", H): matmul(C, x),
            after("C", H, H): add(C, outer(x, member(g, 1))),
            after("m", 1): op("max", before("m", 1), dt),
        },
        outputs=(after("h", H), value("r", H)),
        init={"m": -math.inf},
        families=("g",),
    )


def init_state(params: Params, *, batch: int) -> State:
    H, dtype = params.g.shape[1], params.g.dtype
    return State(np.zeros((batch, H), dtype), np.zeros((batch, H, H), dtype), np.full((batch, 1), -np.inf, dtype))


def step(params: Params, x: Inputs, state: State) -> tuple[Outputs, State]:
    h = params.g[0] * state.h + x.dt * x.x
    r = np.einsum("bij,bj->bi", state.C, x.x)
    C = state.C + np.einsum("bi,j->bij", x.x, params.g[1])
    return Outputs(h, r), State(h, C, np.maximum(state.m, x.dt))


def forward(
    params: Params, x: Inputs, state: State | None = None, lengths: Any = None, resets: Any = None, reverse: bool = False
) -> tuple[Outputs, State, Any]:
    steps, batch = x.x.shape[:2]
    first = init_state(params, batch=batch)
    last, y = first if state is None else state, Outputs(np.zeros_like(x.x), np.zeros_like(x.x))
    every, ends = np.arange(batch), np.full(batch, steps) if lengths is None else lengths
    turns, states = [], [last]
    for t in range(steps):
        runs = t < ends
        at = (np.where(runs & reverse, ends - 1 - t, t), every)
        anew = runs & (False if resets is None else resets[at])
        earlier = chosen(anew, first, last)
        now, later = step(params, Inputs(x.x[at], x.dt[at]), earlier)
        for whole, part in zip(y, now, strict=True):
            whole[at] = np.where(runs[:, None], part, 0)
        last = chosen(runs, later, last)
        turns.append((at, runs, anew, earlier))
        states.append(last)
    return y, last, (x, states, turns)


def chosen(mask: Any, one: State, other: State) -> State:
    """Of two states, sample by sample, the one or the other."""
    pairs = zip(one, other, strict=True)
    return State(*(np.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b).astype(a.dtype) for a, b in pairs))


def trace(params: Params, x: Inputs, state: State | None = None) -> dict[str, Any]:
    y, last, (_, states, _) = forward(params, x, state)
    stacked = [np.array([one[k] for one in states[1:]], last[k].dtype).reshape(len(x.x), *last[k].shape) for k in (1, 2)]
    return {"h": y.h, "r": y.r, "C": stacked[0], "m": stacked[1]}


def backward(params: Params, tape: Any, dy: Outputs, dfinal: State) -> Grads:
    (x, _, turns), g = tape, params.g
    dg, dx, ddt = np.zeros_like(g), np.zeros_like(x.x), np.zeros_like(x.dt)
    after_all = dfinal
    for at, runs, anew, earlier in reversed(turns):
        nothing = State(*map(np.zeros_like, after_all))
        dh, dC, dm = chosen(runs, after_all, nothing)
        x_t, dt_t, dr = x.x[at], x.dt[at], np.where(runs[:, None], dy.r[at], 0)
        dh = dh + np.where(runs[:, None], dy.h[at], 0)
        dg[0] += (dh * earlier.h).sum(axis=0)
        dg[1] += np.einsum("bij,bi->j", dC, x_t)
        dx[at] = dt_t * dh + np.einsum("bij,j->bi", dC, g[1]) + np.einsum("bij,bi->bj", earlier.C, dr)
        ddt[at] = (dh * x_t).sum(axis=1, keepdims=True) + dm * (dt_t > earlier.m)
        back = State(g[0] * dh, dC + np.einsum("bi,bj->bij", dr, x_t), dm * (earlier.m > dt_t))
        after_all = chosen(runs, chosen(anew, nothing, back), after_all)
    return Grads(Params(dg), Inputs(dx, ddt), after_all)


def module(**changes: Any) -> Any:
    names: dict[str, Any] = {"Params": Params, "Inputs": Inputs, "State": State, "Outputs": Outputs}
    names |= {"init_state": init_state, "step": step, "forward": forward, "trace": trace, "backward": backward}
    names["pack"] = lambda params, **dims: params
    return SimpleNamespace(**(names | changes))


def test_a_right_module_passes() -> None:
    report = verify(equations(), module(), seed=41)
    assert report.ok, str(report)
    assert {"d g", "d x", "d dt", "d h[0]", "d C[0]", "d m[0]"} <= {row.quantity for row in report.rows}


@pytest.mark.parametrize("part", ["g", "x", "dt", "h", "C", "m"])
def test_a_wrong_gradient_is_found(part: str) -> None:
    def wrong(*args: Any) -> Grads:
        grads = backward(*args)
        group = next(name for name in Grads._fields if part in getattr(grads, name)._fields)
        spoilt = getattr(grads, group)._replace(**{part: 1.001 * getattr(getattr(grads, group), part)})
        return grads._replace(**{group: spoilt})

    report = verify(equations(), module(backward=wrong), seed=42, dtypes=(np.float64,), exact=False)
    name = f"d {part}[0]" if part in State._fields else f"d {part}"
    assert {row.quantity for row in report.rows if not row.ok} == {name}


def test_inputs_in_another_order_are_found() -> None:
    class Turned(NamedTuple):
        dt: Any
        x: Any

    report = verify(equations(), module(Inputs=Turned))
    assert report.faults == ("the fields of Inputs are dt, x; the cell has x, dt",)
    missing = module()
    del missing.Outputs
    assert verify(equations(), missing).faults == ("the module has no Outputs; the cell has h, r",)


@pytest.mark.parametrize("given", ["lengths", "resets", "reverse"])
def test_a_module_that_overlooks_a_mask_is_found(given: str) -> None:
    def careless(params: Params, x: Inputs, state: State | None = None, **masks: Any) -> Any:
        return forward(params, x, state, **{name: value for name, value in masks.items() if name != given})

    report = verify(equations(), module(forward=careless), seed=43, dtypes=(np.float64,), exact=False)
    wrong = {row.setting for row in report.rows if not row.ok}
    assert wrong and all(given in setting for setting in wrong)
