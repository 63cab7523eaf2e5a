"""Compiled cell → the text of a NumPy module."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellspec.backends.arrays.expressions import REVERSED, Index
from cellspec.backends.arrays.printer import Printer, Seat
from cellspec.backends.common import Common, environment, gather, row, strings, tidy
from cellspec.backends.dims import bracket
from cellspec.backends.equations import plain_step
from cellspec.backends.legend import legend
from cellspec.backends.memory.model import Buffer, Owner
from cellspec.backends.naming import Wishes
from cellspec.backends.numpy.backward import Gradients, backward
from cellspec.backends.numpy.direction import Boundary, Direction
from cellspec.backends.numpy.earlier import Earlier
from cellspec.backends.numpy.forward import forward
from cellspec.backends.numpy.histories import Histories
from cellspec.backends.numpy.layout import Layout, Room, lay_out
from cellspec.backends.numpy.one_step import Alone, alone
from cellspec.backends.numpy.orientation import Orientation, orientation_for
from cellspec.backends.numpy.segments import segments
from cellspec.backends.numpy.setting import Setting
from cellspec.backends.numpy.text import Text
from cellspec.backends.skeleton import skeleton
from cellspec.pipeline import BACKWARD, FORWARD, Compiled

VALUES = ("_forward", "_backward", "_Saved", "_Scratch", "_Forward", "_Backward", "_derived", "_equations", "trace")
"""The functions and classes in which values have names."""

ALONE = ("step", "Packed")
"""The same of one step alone."""

CALLED = frozenset(("float", "rng", "x_2d", "y"))
"""Names in no template: what makes numbers of dims, what ``init_params`` draws from, the matrix of a single input, and what
callers call the outputs.
"""

NOTES = {
    "memory": "Residuals for memory: the tape holds the states of every step; ``backward`` computes all else from them again."
}
"""What the head of a module says of a policy for residuals."""

BODIES = {
    Owner.FORWARD: Seat(Owner.FORWARD, "ws", {Owner.FORWARD: "ws", Owner.TAPE: "saved"}),
    Owner.BACKWARD: Seat(Owner.BACKWARD, "ws", {Owner.BACKWARD: "ws", Owner.TAPE: "saved"}),
    Owner.ALONE: Seat(Owner.ALONE, "packed", {Owner.ALONE: "packed"}),
}
"""What the functions that compute something call the memory."""

CLASSES = {
    owner: Seat(owner, "self", {Owner.TAPE: "saved", Owner.SCRATCH: "scratch", owner: "self"})
    for owner in (Owner.FORWARD, Owner.BACKWARD, Owner.TAPE, Owner.SCRATCH, Owner.ALONE)
}
"""What the classes that hold the memory call it."""

WIDEST = 110
"""The longest line that the head of a loop may be."""


@dataclass(frozen=True)
class Design:
    """All that a module consists of, before any of it is text."""

    setting: Setting
    names: Mapping[Owner, Wishes]
    orientation: Orientation
    earlier: Earlier
    histories: Histories
    forward: Direction
    backward: Direction
    gradients: Gradients
    layout: Layout


def module_text(compiled: Compiled) -> str:
    """The NumPy module of ``compiled``, of which all passes have been run."""
    return text(design(compiled))


def names_of_values() -> list[str]:
    """The names that values of the two passes, and of the equations, are not called by."""
    return sorted(skeleton("numpy").names(VALUES) | CALLED)


def names_alone() -> list[str]:
    """The same of one step alone; ``x`` is there only where parameters are not packed."""
    return sorted((skeleton("numpy").names(ALONE) | CALLED) - {"x"})


def design(compiled: Compiled) -> Design:
    """What the module of ``compiled`` is to consist of, in the layout that suits both directions."""
    own = skeleton("numpy")
    common = Common(compiled, names_of_values(), own.names(own.open))
    setting = Setting.of(compiled, common)
    names = {owner: Wishes(common.groups) for owner in (Owner.FORWARD, Owner.BACKWARD)}
    earlier = Earlier.of(compiled.cell, setting.caller, names[Owner.FORWARD])
    ahead, back = (compiled.schedules[name] for name in (FORWARD, BACKWARD))
    orientation = orientation_for(ahead, back)
    histories = Histories.of(setting.caller, orientation, earlier.inputs)
    first, emitter = forward(setting, names[Owner.FORWARD], ahead, orientation, earlier, histories)
    second, gradients = backward(setting, names[Owner.BACKWARD], back, orientation, earlier, histories, emitter)
    return Design(setting, names, orientation, earlier, histories, first, second, gradients, lay_out(first, second))


def text(design: Design) -> str:
    """The text of a module."""
    setting = design.setting
    common, cell, compiled = setting.common, setting.cell, setting.compiled
    derived, helpers = common.derived_lines()
    derived["lines"] = [*(["dtype = _params_dtype(params)"] if derived["dtype"] else []), *strings(derived["lines"])]
    derived["value"] = f"({row(strings(derived['names']))})"
    reserved = [*common.reserved, *common.derived.values()]
    plain, more = plain_step(compiled, common.constants, common.derived, common.dims, reserved)
    of_step = Wishes(common.groups)
    step = alone(setting, of_step, design.earlier)
    names = identifiers(setting, {**design.names, Owner.ALONE: of_step})
    spelling = Spelling(design, names, {*helpers, *more})
    policy = compiled.residuals
    context = {
        **common.context("NumPy"),
        "carried": len(cell.streams) < len(cell.states),
        "far": design.histories.any,
        "samples": samples(design),
        "streams": design.earlier.known,
        "counts": design.earlier.counts,
        "header": common.command(f" --residuals {policy}" if policy in NOTES else ""),
        "notes": textwrap.wrap(NOTES.get(policy, ""), 116),
        "place": "",
        "standard": [
            "from collections.abc import Iterator",
            "from copy import copy",
            "from itertools import chain",
            "from threading import get_ident",
        ],
        "imports": [*(["import numpy"] if "np" in cell.dims else []), "import numpy as np"],
        "array": "np.ndarray",
        "tape_type": "_Saved | _Segments",
        "xp": "np",
        "dtypes": "float32 or float64",
        "convert": [],
        "convert_dy": [],
        "x_type": "Inputs" if len(cell.inputs) > 1 else "np.ndarray",
        "y_type": "Outputs" if len(cell.outputs) > 1 else "np.ndarray",
        "derived": derived,
        "key": ", ".join(["T", "B", "dtype", *common.dims.values()]),
        "layout": spelling.layout(),
        "forward": spelling.forward(),
        "backward": spelling.backward(),
        "segments": segments(cell, common),
        "plain": plain,
        "orientation": design.orientation,
        "alone": spelling.alone(step),
        "step_value": gather([f'np.array(values["{o.name}"])' for o in cell.outputs]),
        "helpers": spelling.helpers,
    }
    made = environment("numpy").get_template("module.py.jinja").render(**context)
    return tidy(made, legend(common.groups, made, (*VALUES, *ALONE), "numpy", compiled.forward))


def samples(design: Design) -> dict[str, object]:
    """How states' samples are chosen: by which axis, behind what, and how histories of states with samples first are told."""
    features_first = design.orientation.features_first
    axis = features_first + design.histories.any  # of a state, or of all the rows that a step can read
    first = ("history.transpose(0, 2, 1)", "before.transpose(0, 2, 1)") if features_first else ("history", "before")
    return {"axis": axis, "every": ":, " * axis, "first": ", ".join(first)}


def identifiers(setting: Setting, wishes: Mapping[Owner, Wishes]) -> dict[Owner, dict[str, str]]:
    """What values are called, by whose they are: none is called as something else is where it stands."""
    common = setting.common
    alone = {*names_alone(), *common.dims.values(), *common.derived.values()}
    return {owner: own.granted(alone if owner is Owner.ALONE else common.names.taken) for owner, own in wishes.items()}


@dataclass(frozen=True)
class Spelling:
    """What the templates get of a design, spelt; the ``helpers`` that it calls are noted."""

    design: Design
    names: Mapping[Owner, Mapping[str, str]]
    helpers: set[str]

    def printer(self, seat: Seat) -> Printer:
        """A printer for code that runs there."""
        layout, dims = self.design.layout, self.design.setting.common.dims
        return Printer(dims, seat, layout.lies, self.names, helpers=self.helpers)

    # --- memory -----------------------------------------------------------------------------------------------

    def layout(self) -> dict[str, object]:
        """The memory of both passes."""
        layout, scratch = self.design.layout, self.printer(CLASSES[Owner.SCRATCH])
        blocks = zip(layout.arena.blocks, layout.guests, strict=True)
        return {
            "saved": self.room(layout.saved, Owner.TAPE),
            "forward": self.room(layout.forward, Owner.FORWARD),
            "backward": self.room(layout.backward, Owner.BACKWARD),
            "blocks": [(block.name, scratch.text(block.size), ", ".join(map(self.guest, guests))) for block, guests in blocks],
        }

    def guest(self, buffer: Buffer) -> str:
        """Whose a buffer in a block is, and what it is called."""
        return f"{buffer.owner.name.lower()}.{self.names[buffer.owner][buffer.name]}"

    def room(self, room: Room, owner: Owner) -> dict[str, object]:
        """One part of it: arrays of its own with their shapes, arrays in blocks, and views."""
        printer = self.printer(CLASSES[owner])
        return {
            "own": [(printer.attribute(buffer), printer.shape(buffer.axes)) for buffer in room.own],
            "guests": [
                (printer.attribute(buffer), printer.shape(buffer.axes), printer.place(place)) for buffer, place in room.guests
            ],
            "views": [(printer.attribute(view), printer.text(view.expression)) for view in room.views],
        }

    # --- directions -------------------------------------------------------------------------------------------

    def forward(self) -> dict[str, object]:
        """The forward direction."""
        design, cell, caller = self.design, self.design.setting.cell, self.design.setting.caller
        common, printer = design.setting.common, self.printer(BODIES[Owner.FORWARD])
        outputs = [
            {"dy": printer.text(caller.dy(o.name)), "shape": common.batched(o.shape, "T, B"), "axes": bracket(o.shape, 2)}
            for o in cell.outputs
        ]
        value = gather([printer.text(result) for result in design.forward.results])
        return {**self.direction(design.forward, Owner.FORWARD), "outputs": outputs, "value": value}

    def backward(self) -> dict[str, object]:
        """The backward direction."""
        gradients, printer = self.design.gradients, self.printer(BODIES[Owner.BACKWARD])
        return {
            **self.direction(self.design.backward, Owner.BACKWARD),
            "grads": [{"name": name, "source": printer.text(source)} for name, source in gradients.params.items()],
            "dx": gather([printer.text(source) for source in gradients.inputs.values()], "Inputs"),
        }

    def direction(self, direction: Direction, owner: Owner) -> dict[str, object]:
        """The statements of either."""
        text, body, memory = direction.text, self.printer(BODIES[owner]), self.printer(CLASSES[owner])
        over = ", ".join(memory.text(sequence) for _, sequence in text.steps)
        return {
            "text": {
                "prologue": body.lines(text.prologue),
                "before": body.lines(text.before),
                "locals": body.lines(text.locals),
                "loop": body.lines(text.loop),
                "after": body.lines(text.after),
            },
            "functions": "".join(body.lines(text.short)),
            "zip": f"zip({over})" if over else "[()]*T",
            "head": head(text, direction.forwards, body),
            "states": [self.boundary(boundary, owner) for boundary in direction.boundaries],
        }

    def boundary(self, boundary: Boundary, owner: Owner) -> dict[str, object]:
        """A state at the ends of a pass."""
        body, memory, (name, value) = self.printer(BODIES[owner]), self.printer(CLASSES[owner]), boundary.final
        return {
            "final": f"{name}={body.text(value)}",
            "start": body.lines(boundary.start),
            "carried": memory.row(boundary.carried),
            "given": body.row(boundary.given),
        }

    def alone(self, step: Alone) -> dict[str, object]:
        """One step alone."""
        memory, body, common = self.printer(CLASSES[Owner.ALONE]), self.printer(BODIES[Owner.ALONE]), self.design.setting.common
        buffers = {kind: step.buffers(parameters=kind) for kind in (True, False)}
        return {
            "constant_buffers": [(memory.attribute(buffer), memory.shape(buffer.axes)) for buffer in buffers[True]],
            "buffers": [(memory.attribute(buffer), memory.shape(buffer.axes)) for buffer in buffers[False]],
            "views": [(memory.attribute(view), memory.text(view.expression)) for view in step.text.views],
            "prologue": memory.lines(step.once),
            "constants": [body.text(name) for name in step.constants],
            "lines": body.lines(step.every),
            "value": gather([body.text(value) for value in step.outputs]),
            "states": [f"{name}={body.text(value)}" for name, value in step.states],
            "dims": [dim for dim in common.dims.values() if dim in step.dims],
        }


def head(text: Text, forwards: bool, printer: Printer) -> str:
    """What a loop runs over, in several lines if that is long: views of each step, and sequences that come with the call."""
    variables = [printer.text(name) for name, _ in text.steps]
    each, behind, rest = _tuple(variables), "", "steps"
    if text.fresh:
        arrays = [array if forwards else Index(array, (REVERSED,)) for _, array in text.fresh]
        behind = "".join(f", {printer.text(name)}" for name, _ in text.fresh)
        rest = f"zip(steps, {printer.row(arrays)})"
    if not variables or len(f"{each}{behind} in {rest}") <= WIDEST:
        return f"{each}{behind} in {rest}"
    indented = "\n            ".join(textwrap.wrap(each[1:-1], WIDEST))
    return f"(\n            {indented}\n        ){behind} in {rest}"


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' * (len(names) == 1)})" if names else "_"
