"""What lengths, resets and reverse mean, in plain words: every episode of every sample is run alone, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from support import Array

from cellspec.verification.sampling import Sample, pack

Arrays = dict[str, Array]


@dataclass(frozen=True)
class Masks:
    """The arguments of ``forward`` that say where samples end and begin anew, and in which direction they are read."""

    lengths: Array | None = None
    resets: Array | None = None
    reverse: bool = False

    def options(self) -> dict[str, Any]:
        """The arguments by name, those that are given."""
        given = {"lengths": self.lengths, "resets": self.resets, "reverse": self.reverse or None}
        return {name: value for name, value in given.items() if value is not None}

    def episodes(self, steps: int, b: int) -> Iterator[tuple[list[int], bool]]:
        """The steps of each episode of sample ``b`` in the order in which they are read, and whether it follows a reset."""
        length = steps if self.lengths is None else int(self.lengths[b])
        order = list(range(length))[:: -1 if self.reverse else 1]
        episode: list[int] = []
        fresh = False
        for t in order:
            if self.resets is not None and self.resets[t, b]:
                yield episode, fresh
                episode, fresh = [], True
            episode.append(t)
        yield episode, fresh


def random_masks(rng: np.random.Generator, steps: int, batch: int, kinds: str = "lengths resets reverse") -> Masks:
    """Random masks of the given kinds; the first sample is empty, the last one whole if there are several."""
    lengths = rng.integers(0, steps + 1, batch)
    lengths[0], lengths[-1] = 0, steps
    resets = rng.random((steps, batch)) < 0.3
    return Masks(lengths if "lengths" in kinds else None, resets if "resets" in kinds else None, "reverse" in kinds)


@dataclass(frozen=True)
class Results:
    """All that one forward and one backward call give."""

    y: Arrays
    final: Arrays
    params: Arrays
    x: Arrays
    state: Arrays


def named(value: Any, names: Any) -> Arrays:
    """The arrays of a named tuple, or the one array, by name."""
    return dict(zip(names, value if isinstance(value, tuple) else (value,), strict=True))


def masked(module: Any, drawn: Sample, masks: Masks, **options: Any) -> Results:
    """The module's own results."""
    params, x, state = drawn.module_params(module), drawn.module_x(module), drawn.module_state(module)
    y, final, tape = module.forward(params, x, state, **masks.options(), **options)
    y, final = copied(y), copied(final)
    workspace = {name: value for name, value in options.items() if name == "workspace"}
    grads = copied(module.backward(params, tape, *drawn.upstream(module), **workspace))
    return Results(
        named(y, drawn.dy), named(final, drawn.dfinal), named(grads.params, drawn.params), named(grads.x, drawn.x),
        named(grads.state, drawn.dfinal),
    )  # fmt: skip


def copied(value: Any) -> Any:
    """Copies of arrays in nested named tuples."""
    return type(value)(*map(copied, value)) if isinstance(value, tuple) else np.array(value)


def alone(module: Any, drawn: Sample, masks: Masks) -> Results:
    """The same results from runs of single episodes, forward and backward."""
    steps, batch = next(iter(drawn.x.values())).shape[:2]
    params, state = drawn.module_params(module), drawn.module_state(module)
    if state is None:
        state = module.init_state(params, batch)
    out = Results(
        {name: np.zeros_like(value) for name, value in drawn.dy.items()},
        {name: np.array(value) for name, value in named(state, drawn.dfinal).items()},
        {name: np.zeros_like(value) for name, value in drawn.params.items()},
        {name: np.zeros_like(value) for name, value in drawn.x.items()},
        {name: np.array(value) for name, value in drawn.dfinal.items()},
    )
    for b in range(batch):
        runs = []
        now = type(state)(*(value[b : b + 1] for value in state))
        for episode, fresh in masks.episodes(steps, b):
            now = module.init_state(params, 1) if fresh else now
            x = pack(module, "Inputs", [value[episode, b : b + 1] for value in drawn.x.values()])
            y, now, tape = module.forward(params, x, now)
            runs.append((episode, fresh, tape))
            for name, value in named(y, drawn.dy).items():
                out.y[name][episode, b] = value[:, 0]
        for name, value in named(now, drawn.dfinal).items():
            out.final[name][b] = value[0]
        back = type(state)(*(value[b : b + 1] for value in drawn.dfinal.values()))
        for episode, fresh, tape in reversed(runs):
            dy = pack(module, "Outputs", [value[episode, b : b + 1] for value in drawn.dy.values()])
            grads = module.backward(params, tape, dy, back)
            for name, value in named(grads.params, drawn.params).items():
                out.params[name][...] += value
            for name, value in named(grads.x, drawn.x).items():
                out.x[name][episode, b] = value[:, 0]
            back = type(state)(*(np.zeros_like(value) for value in grads.state)) if fresh else grads.state
        for name, value in named(back, drawn.dfinal).items():
            out.state[name][b] = value[0]
    return out
