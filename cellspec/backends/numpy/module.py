"""Compiled cell → the text of a NumPy module."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from cellspec import ir
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.common import Common, environment, gather, strings, tidy
from cellspec.backends.dims import bracket
from cellspec.backends.equations import moved_on, plain_step
from cellspec.backends.memory.model import Home, Phase
from cellspec.backends.naming import Names, identifier
from cellspec.backends.numpy.earlier import Earlier
from cellspec.backends.numpy.emit import Emitter
from cellspec.backends.numpy.histories import Histories
from cellspec.backends.numpy.instructions import instructions
from cellspec.backends.numpy.layout import Layout, lay_out
from cellspec.backends.numpy.one_step import names_in, packed
from cellspec.backends.numpy.orientation import BATCH_MAJOR, FEATURE_MAJOR, has_heads, orientation_for
from cellspec.backends.numpy.origins import AGAIN, ranks
from cellspec.backends.numpy.packing import plan
from cellspec.backends.numpy.segments import segments
from cellspec.backends.numpy.statements import Pass
from cellspec.backends.numpy.storage import Demands, Storage
from cellspec.backends.numpy.views import Around
from cellspec.backends.plain import bare, float_text
from cellspec.model.equations import Input
from cellspec.model.nodes import Shape
from cellspec.passes.schedule import Schedule
from cellspec.pipeline import BACKWARD, FORWARD, SINGLE_STEP, Compiled

LOCALS = (
    "np", "params", "x", "Inputs", "state", "workspace", "tape", "dy", "dfinal", "ws", "saved", "self", "T", "B", "dtype", "y",
    "final", "grads", "forward", "backward", "step", "trace", "init_params", "init_state", "Params", "State", "Grads",
    "Outputs", "Workspace", "Tape", "NamedTuple", "Any", "float", "zip", "list", "range", "chain", "Iterator", "len", "tuple",
    "isinstance", "rng", "batch", "derived", "x_t", "values", "x_2d", "steps", "use", "key", "dims", "type", "name", "now", "t",
    "reversed", "dict", "getattr", "scratch", "empty", "lengths", "resets", "reverse", "checkpoint", "masks", "cuts", "finals",
    "apart", "carried", "memory", "buffers", "owner", "alone", "kept", "thread", "me", "copy", "get_ident", "_check",
    "_check_params", "_cuts", "_forwards", "_backwards", "_idle", "_columns", "_derived", "_earlier", "_elu", "_equations",
    "_erf", "_erfc", "_from_left", "_gelu", "_kept", "_largest", "_last", "_move", "_readings", "_sigmoid", "_silu",
    "_softsign", "_transposed", "_where",
)  # fmt: skip
"""Names with a meaning inside the module's functions, which values are not called by."""

ALONE = (*(name for name in LOCALS if name != "x"), "packed", "pack", "Packed", "constants", "prepare")
"""The same inside what takes one step."""


NOTES = {
    "memory": "Residuals for memory: the tape holds the states of every step; ``backward`` computes all else from them again."
}
"""What the head of a module says of a policy for residuals."""


def module_text(compiled: Compiled) -> str:
    """The NumPy module of ``compiled``, of which all passes have been run."""
    return _Module(compiled).text()


def layout_of(compiled: Compiled) -> tuple[Layout, Common]:
    """Where the module of ``compiled`` has its buffers, and what it calls the dims and derived parameters."""
    module = _Module(compiled)
    forward, backward = module.directions()
    return lay_out(Pass.of(forward), Pass.of(backward)), module.common


class _Module:
    def __init__(self, compiled: Compiled) -> None:
        self.compiled, self.cell = compiled, compiled.cell
        self.common = Common(compiled, LOCALS)
        self.dims, self.names, self.constants = self.common.dims, self.common.names, self.common.constants
        self.helpers: set[str] = set()
        self.rank = ranks(compiled.equations)
        self.earlier = Earlier(self.cell, self.common, self.names)

    def text(self) -> str:
        common = self.common
        forward, backward = self.directions()
        derived, helpers = common.derived_lines()
        derived["lines"] = [*(["dtype = _params_dtype(params)"] if derived["dtype"] else []), *strings(derived["lines"])]
        derived["value"] = f"({''.join(f'{name}, ' for name in strings(derived['names']))})"
        reserved = [*common.reserved, *common.derived.values()]
        plain, more = plain_step(self.compiled, common.constants, common.derived, common.dims, reserved)
        context, policy = common.context("NumPy"), self.compiled.residuals
        layout = lay_out(Pass.of(forward), Pass.of(backward))
        text = (
            environment("numpy")
            .get_template("module.py.jinja")
            .render(
                **context,
                carried=len(self.cell.streams) < len(self.cell.states),
                far=self.histories.any,
                streams=self.earlier.known,
                counts=any(stream.follows is None for stream in self.earlier.known),
                header=common.command(f" --residuals {policy}" if policy in NOTES else ""),
                notes=textwrap.wrap(NOTES.get(policy, ""), 116),
                place="",
                standard=[
                    "from collections.abc import Iterator",
                    "from copy import copy",
                    "from itertools import chain",
                    "from threading import get_ident",
                ],
                imports=[*(["import numpy"] if "np" in self.cell.dims else []), "import numpy as np"],
                array="np.ndarray",
                tape_type="_Saved | _Segments",
                xp="np",
                dtypes="float32 or float64",
                convert=[],
                convert_dy=[],
                x_type="Inputs" if len(self.cell.inputs) > 1 else "np.ndarray",
                y_type="Outputs" if len(self.cell.outputs) > 1 else "np.ndarray",
                derived=derived,
                key=", ".join(["T", "B", "dtype", *self.dims.values()]),
                layout=layout,
                forward=layout.moved(forward),
                backward=backward,
                segments=segments(self.cell, common),
                plain=plain,
                orientation=self.orientation,
                alone=self.alone(),
                step_value=gather([f'np.array(values["{o.name}"])' for o in self.cell.outputs]),
                helpers=self.helpers | helpers | more,
            )
        )
        return tidy(text)

    # --- directions -----------------------------------------------------------------------------------------

    def directions(self) -> tuple[dict[str, object], dict[str, object]]:
        """Both directions, in the layout that suits them."""
        ahead, back = (self.compiled.schedules[name] for name in (FORWARD, BACKWARD))
        self.orientation = orientation_for(ahead, back)
        self.histories = Histories(self.cell, self.common, self.orientation)
        forward, emitter = self.forward(self.compiled.kept, ahead)
        return forward, self.backward(emitter, back)

    def forward(self, kept: tuple[str, ...], scheduled: Schedule) -> tuple[dict[str, object], Emitter]:
        """The forward direction, and the emitter that knows where it left its values."""
        compiled = self.compiled
        code = instructions(scheduled, compiled.facts, compiled.delicate)
        demands = Demands(frozenset(kept), frozenset(), True, self.orientation.features_first, self.ranks_of(code.values))
        given, matrix = self.sequences("ws")
        emitter = self.emitter(plan(code, demands), given, frozenset(), matrix, "")
        emitter.run()
        outputs = []
        for o in self.cell.outputs:
            y = self.names.get(("output", o.name), f"{identifier(o.name)}_out")
            emitter.text.buffers.append((y, f"(T, B, {self.common.size(o.shape)})"))
            emitter.text.after.append(f"np.copyto({self.sequence(f'ws.{y}')}, {emitter.operand([o.label])})")
            outputs.append(
                {
                    "dy": self.dy(o.name),
                    "shape": self.common.batched(o.shape, "T, B"),
                    "axes": bracket(o.shape, 2),
                    "source": self.common.shaped(f"ws.{y}", o.shape, "T, B"),
                }
            )
        for name in compiled.stash:
            if name not in given:
                emitter.operand([name])
        states: list[dict[str, object]] = []
        for state in self.cell.states:
            if state in self.cell.streams or state.rows:
                continue
            block = emitter.storage.block([f"{state.name}[t]"])
            assert block is not None
            buffer = emitter.buffer_attribute(block.buffer)
            before = f"self.{emitter.view(block, [f'{state.name}[t-1]'], ())}"
            each = self.histories.of_states.get(state.name)
            row, rows = (each.state.rows, f"[{each.state.rows}:]") if each else (0, "")
            if self.histories.any:
                before = self.histories.before(emitter, state)
            states.append(
                {
                    "carried": f"(self.{buffer}, {before}, {float_text(float(state.init))})",
                    "start": [f"ws.{buffer}[{row}] = {self.sample(self.common.flat(f'state.{state.name}', state.shape))}"],
                    "final": f"{state.name}={self.common.shaped(f'_last(ws.{buffer}{rows}, cuts)', state.shape)}",
                }
            )
            if each:
                states.append(self.histories.state_forward(buffer, each))
        for stream in self.earlier.known:
            emitter.text.buffers.append((stream.buffer, f"(T + 1, B, {self.common.size(stream.state.shape)})"))
            states.append(self.earlier.forward(stream))
        for each in self.histories.of_inputs.values():
            states.append(self.histories.input_forward(emitter, each, self.earlier.views))
        value = gather([str(o["source"]) for o in outputs])
        return self.context(emitter, outputs=outputs, states=states, value=value), emitter

    def backward(self, forward: Emitter, scheduled: Schedule) -> dict[str, object]:
        """The backward direction."""
        compiled = self.compiled
        code = instructions(scheduled, compiled.facts, backwards=True)
        side_by_side = self.orientation.features_first
        demands = Demands(frozenset(), frozenset(compiled.stash), False, side_by_side, self.ranks_of(code.values))
        given, matrix = self.sequences("saved")
        inputs = tuple(given)
        for ref in self.cell.outputs:
            flat = self.common.flat(self.dy(ref.name), ref.shape, "T, B")
            given[f"d:{ref.label} given"] = self.sequence(flat)
        for name in compiled.stash:
            if name not in inputs:
                given[name] = forward.operand([name]).replace("ws.", "saved.", 1)
        forward_names, self.names = self.names, Names([*LOCALS, *self.dims.values(), *self.common.derived.values()])
        emitter = self.emitter(plan(code, demands), given, frozenset(compiled.stash).difference(inputs), matrix, "backward of ")
        emitter.run()
        variables = self.variables(emitter)
        emitter.gradients(lambda target: variables[target])
        grads = self.epilogue(emitter, variables)
        states: list[dict[str, object]] = []
        for state in self.cell.states:
            if state in self.cell.streams or state.rows:
                continue
            before = f"d:{state.name}[t]<-"
            block = emitter.storage.block([before])
            assert block is not None
            buffer = emitter.view(block, [before], ())
            dfinal = self.sample(self.common.flat(f"dfinal.{state.name}", state.shape))
            first = self.sample(f"ws.{buffer}")
            if (each := self.histories.of_states.get(state.name)) is not None:
                states.append(self.histories.state_backward(emitter, each, buffer))
            states.append(
                {
                    "carried": f"(self.{buffer}[None], 0)" if self.histories.any else f"self.{buffer}",
                    "given": f"{dfinal}[None]" if self.histories.any else dfinal,
                    "start": [f"ws.{buffer}[...] = 0 if dfinal is None else {dfinal}"],
                    "final": f"{state.name}={self.common.shaped(f'{first}.copy()', state.shape)}",
                }
            )
        streams = reversed(self.earlier.known)  # the farthest first, as each hands on to the nearer one
        states += [self.earlier.backward(emitter, self.orientation, stream) for stream in streams][::-1]
        for each in self.histories.of_inputs.values():
            left = {r.steps: f"d:{r.label}" for r in each.refs if f"d:{r.label}" in emitter.storage.place}
            lags = {steps: self.sequence(emitter.operand([name])) for steps, name in left.items()}
            states.append(self.histories.input_backward(emitter, each, lags))
        dx = [self.d_input(emitter, item) for item in self.cell.inputs]
        self.names = forward_names
        return self.context(emitter, grads=grads, dx=gather(dx, "Inputs"), states=states)

    def alone(self) -> dict[str, object]:
        """One step alone: what packed parameters hold, and the statements of a step."""
        cell, compiled = self.cell, self.compiled
        scheduled = compiled.schedules[SINGLE_STEP]
        code = instructions(scheduled, compiled.facts, compiled.delicate)
        self.orientation = FEATURE_MAJOR if has_heads(scheduled) else BATCH_MAJOR
        demands = Demands(frozenset(), frozenset(), False, True, self.ranks_of(code.values), alone=True)
        given = {f"{i.name}[t]": (str(text["step"]), i.shape) for i, text in zip(cell.inputs, self.common.inputs, strict=True)}
        given |= {f"{state.name}[t-1]": (f"state.{state.name}", state.shape) for state in cell.states if not state.rows}
        given |= {ref.label: (f"state.{cell.keeper(ref).name}[:, {ref.back - 1}]", ref.shape) for ref in cell.distant}
        views = {name: self.sample(self.common.flat(text, shape)) for name, (text, shape) in given.items()}
        self.names = Names([*ALONE, *self.dims.values(), *self.common.derived.values()])
        emitter = self.emitter(plan(code, demands), views, frozenset(views), {}, "", lead="")
        text = emitter.run()
        emitter.region = Phase.LOOP
        follows = {stream.state: stream.follows for stream in self.earlier.known}
        earlier = {f"ws.{stream.buffer}[:-1]": f"state.{stream.state.name}" for stream in self.earlier.known}

        own = set(emitter.made.values())  # given out as they are, once

        def result(label: str, shape: Shape) -> str:
            array = emitter.operand([label])
            copy = "" if array in own else ".copy()"
            own.discard(array)
            return self.common.shaped(self.sample(array) + copy, shape)

        states = []
        for state in cell.states:
            if state.rows:
                value = moved_on(cell, state)
            elif state not in follows:
                value = result(f"{state.name}[t]", state.shape)
            elif (source := follows[state]) is None:
                value = f"state.{state.name} + 1"
            else:
                value = f"{earlier.get(source) or source.replace('x', 'x_t', 1)}.copy()"
            states.append(f"{state.name}={value}")
        value = gather([result(o.label, o.shape) for o in cell.outputs])
        self.helpers |= text.helpers
        parts = packed(text, self.common.derived.values())
        lines = "\n".join((value, *states, *parts["lines"]))
        return {"value": value, "states": states, "dims": names_in(lines).intersection(self.dims.values()), **parts}

    def sequences(self, memory: str) -> tuple[dict[str, str], dict[str, str]]:
        """The inputs and streams, as feature-major sequences and as matrices over all steps and samples."""
        sequences, matrices = {}, {}
        for item, text in zip(self.cell.inputs, self.common.inputs, strict=True):
            sequences[f"{item.name}[t]"] = self.sequence(self.common.flat(str(text["value"]), item.shape, "T, B"))
            matrices[f"{item.name}[t]"] = str(text["matrix"])
        for value, steps, shape in self.earlier.sequences(memory):
            sequences[value] = self.sequence(steps)
            matrices[value] = f"{steps}.reshape(T*B, {self.common.size(shape)})"
        return sequences, matrices

    def d_input(self, emitter: Emitter, item: Input) -> str:
        """The gradient of an input, written for the caller."""
        name = f"d:{item.name}[t]"
        single = len(self.cell.inputs) == 1
        later = self.earlier.of_input(emitter, item.name)
        if item.name in self.histories.of_inputs:
            later = self.histories.of_input(emitter, item.name)
        if name not in emitter.storage.place:
            if later is not None:
                return self.common.shaped(later, item.shape, "T, B")
            return f"np.zeros_like({'x' if single else f'x.{item.name}'})"
        if emitter.storage.home(name) is Home.USER:
            buffer = emitter.buffer_attribute(emitter.storage.place[name][0])
        else:
            buffer = emitter.names.get(("gradient of", name), "d_x_out" if single else f"d_{item.name}_out")
            emitter.text.buffers.append((buffer, f"(T, B, {self.common.size(item.shape)})"))
            emitter.text.after.append(f"np.copyto({self.sequence(f'ws.{buffer}')}, {emitter.operand([name])})")
        if later is not None:
            emitter.text.after.append(f"ws.{buffer} += {later}")
        return self.common.shaped(f"ws.{buffer}", item.shape, "T, B")

    def sequence(self, expression: str) -> str:
        """A caller's sequence as the layout has it."""
        return self.orientation.of_caller(expression, steps=True)

    def sample(self, expression: str) -> str:
        """A caller's array of one step as the layout has it."""
        return self.orientation.of_caller(expression)

    def dy(self, name: str) -> str:
        return f"dy.{name}" if len(self.cell.outputs) > 1 else "dy"

    def variables(self, emitter: Emitter) -> dict[str, str]:
        """The variable that holds each total."""
        targets = dict.fromkeys(total.target for total in emitter.program.totals)
        return {target: emitter.names.get(("total", target), identifier(target)) for target in targets}

    def epilogue(self, emitter: Emitter, variables: Mapping[str, str]) -> list[dict[str, str]]:
        """The gradient of every parameter, through derived parameters where there are any."""
        program = self.compiled.epilogue.program
        texts = {**self.constants, **{f"{t} total": v for t, v in variables.items()}}
        for name in self.compiled.epilogue.residuals:
            texts.setdefault(name, self.common.derived.get(name, ""))
        plain = Plain(program.values, texts, self.dims, batched=False)
        for op in program.ops:
            (out,) = ir.outs(op)
            plain.texts[out] = emitter.names.get(("epilogue", out), identifier(out))
            right = plain.whole(op, program.shape(out), self.common.axes(program.shape(out)), "dtype")
            emitter.text.after.append(f"{plain.texts[out]} = {right}")
        self.helpers |= plain.helpers
        grads = []
        for param in self.cell.params:
            target = f"d:{param.name}"
            source = (
                plain.texts[target]
                if target in program.outputs
                else variables.get(target, f"np.zeros_like(params.{param.name})")
            )
            grads.append({"name": param.name, "source": source})
        return grads

    def emitter(
        self,
        storage: Storage,
        given: Mapping[str, str],
        fixed: frozenset[str],
        matrix: Mapping[str, str],
        prefix: str,
        lead: str = "T",
    ) -> Emitter:
        comments = {e.target.name: f"# {prefix}{e.text}" for e in self.cell.assignments}
        comments |= {f"{e.target.name}{AGAIN}": f"# again {e.text}" for e in self.cell.assignments}
        constants = dict(self.constants)
        program = storage.code.schedule.program
        plain = Plain(program.values, constants, self.dims, batched=False)
        for op in storage.code.schedule.prologue:
            (out,) = ir.outs(op)
            text = plain.whole(op, program.shape(out), self.common.axes(program.shape(out)), "dtype")
            constants[out] = plain.texts[out] = text if bare(text) != text or text.isidentifier() else f"({text})"
        self.helpers |= plain.helpers
        around = Around(self.names, comments, constants, given, fixed, matrix, self.dims, self.orientation, lead)
        return Emitter(storage, around, forwards=not prefix)

    def ranks_of(self, values: Mapping[str, ir.Value]) -> dict[str, tuple[int, ...]]:
        return {name: self.rank.get(value.origin.removesuffix(AGAIN), (99,)) for name, value in values.items()}

    def context(self, emitter: Emitter, **more: object) -> dict[str, object]:
        """What the templates need of one direction."""
        text = emitter.text
        self.helpers |= text.helpers
        over = ", ".join(sequence for _, sequence in text.steps)
        fixed = ", ".join(variable for variable, _ in text.steps) + ("," if len(text.steps) == 1 else "")
        head = f"({fixed}) in steps" if text.steps else "_ in steps"
        if text.fresh:
            turn = "" if emitter.forwards else "[::-1]"
            variables = ", ".join(variable for variable, _ in text.fresh)
            arrays = ", ".join(f"{bare(expression)}{turn}" for _, expression in text.fresh)
            head = f"{head.removesuffix(' in steps')}, {variables} in zip(steps, {arrays})"
        functions = " = ".join(", ".join(names) for names in zip(*text.functions, strict=True))
        return {"text": text, "zip": f"zip({over})" if over else "[()]*T", "head": _wrap(head), "functions": functions, **more}


def _wrap(head: str) -> str:
    """A loop's head, over several lines if it is long."""
    if len(head) <= 110 or "(" not in head:
        return head
    start, rest = head.split("(", 1)
    names, rest = rest.split(")", 1)
    inner = "\n            ".join(textwrap.wrap(names, 110))
    return f"{start}(\n            {inner}\n        ){rest}"
