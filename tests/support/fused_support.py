"""Helpers of the tests of what targets with a loop over units share: from the text of a step to its flow, plan and memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from program_support import program, scheduled, told

from cellspec.backends.fused.allocation import allocate
from cellspec.backends.fused.flow import Flow, flow
from cellspec.backends.fused.memory import Columns, Memory, buffer
from cellspec.backends.fused.regions import Plan, plan
from cellspec.backends.memory.model import Home, Owner, Phase
from cellspec.backends.naming import Names
from cellspec.ir import Op

GATED = """
    constant  W: [H, I], U: [H, H], b: [H]
    sequence  x[t]: [I]
    carried   h[t-1]: [H], c[t-1]: [H]
      W@x: [H]   = W @ x[t]
      U@h: [H]   = U @ h[t-1]
      i.pre: [H] = W@x + U@h + b
      i: [H]     = sigmoid(i.pre)
      c[t]: [H]  = i*c[t-1] + 1
      h[t]: [H]  = i*c[t]
    carry     h[t-1] <- h[t]
    carry     c[t-1] <- c[t]
    give out  h[t]
"""
"""A step with a product in the loop."""

SCAN = """
    constant  b: [H]
    sequence  x[t]: [H]
    carried   h[t-1]: [H]
      f: [H]    = sigmoid(x[t])
      h[t]: [H] = f*h[t-1] + b
    carry     h[t-1] <- h[t]
    give out  h[t]
"""
"""A step whose units keep to themselves."""


def flow_of(
    text: str, *, outputs: Sequence[str] = (), kept: Sequence[str] = (), whole: Iterable[str] = (), forwards: bool = True
) -> Flow:
    """The flow of a step; ``outputs`` are those of the text if none are named, ``whole`` its sequences."""
    step = program(text)
    outputs = outputs or step.outputs
    step = replace(step, outputs=tuple(dict.fromkeys((*outputs, *kept))))
    return flow(scheduled(step, heads=True), outputs, kept, whole or step.sequences, forwards)


def plan_of(text: str, **options: object) -> Plan:
    return plan(flow_of(text, **options))  # type: ignore[arg-type]


def memory_of(text: str, *, single: bool = False, **options: object) -> Memory:
    """The memory of a step, whose sequences are the caller's arrays and whose constants are read where they are."""
    made = plan_of(text, **options)
    width, values = made.flow.width, made.flow.program
    given = {n: Columns(buffer(n.partition("[")[0], Home.SEQUENCE, width(n), Owner.CALLER)) for n in values.sequences}
    constants = {n: Columns(buffer(n, Home.CONSTANT, width(n))) for n in values.constants}
    return allocate(made, given | constants, given, Names(()), single, {})


def ops_of(flow: Flow, phase: Phase) -> list[str]:
    """The operations of a phase as text."""
    return lines(flow, flow.phases[phase])


def lines(flow: Flow, ops: Iterable[Op]) -> list[str]:
    kept = tuple(ops)
    if not kept:
        return []
    return told(
        replace(flow.program, ops=kept, constants=(), sequences=(), carries=(), delays=(), outputs=(), totals=())
    ).split("\n")
