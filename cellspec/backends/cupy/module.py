"""Cell → the text of a CuPy module."""

from __future__ import annotations

from collections.abc import Mapping

from cellspec import ir
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.common import Common, environment, gather, strings, tidy
from cellspec.backends.cupy.around import TAKEN, Texts
from cellspec.backends.cupy.cuda import CUDA
from cellspec.backends.cupy.earlier import Earlier
from cellspec.backends.cupy.gradients import add_gradients
from cellspec.backends.cupy.histories import NUMBERED
from cellspec.backends.cupy.host import Host, Text
from cellspec.backends.cupy.spelling import CUPY
from cellspec.backends.dims import bracket
from cellspec.backends.equations import plain_step
from cellspec.backends.fused.directions import SLOTS, Directions
from cellspec.backends.fused.loop_kinds import Choice, Kind
from cellspec.backends.fused.memory import Memory, owner
from cellspec.backends.fused.regions import Plan
from cellspec.backends.legend import legend
from cellspec.backends.memory.model import Home
from cellspec.backends.naming import Names, identifier
from cellspec.backends.plain import dim_text
from cellspec.backends.remarks import Remarks
from cellspec.backends.skeleton import skeleton
from cellspec.cell import Cell
from cellspec.model.equations import Input
from cellspec.passes.masks import final_cotangent, last_state
from cellspec.pipeline import Compiled

MEMORIES = ("_Forward", "_Backward")
"""The classes that hold the memory of a direction: buffers of values are attributes."""

VALUES = (
    "_forward_loop", "_backward_loop", "forward", "backward", "_forward_checked", "_backward_checked", "_pack",
    "_derived", "_equations", "init_params", "init_state", "step", "trace",
)  # fmt: skip
"""The functions in which values have names; dims have them in the memories too."""

CALLED = ("float", "getattr", "here", "reversed", "rng", "rows", "stored", "wide", "x_2d", "y")
"""Names in no template: what makes numbers of dims and reads them, what the host's lines call, what ``init_params`` draws
from, what kernels call all rows and the type of arrays, the matrix of a single input, and what callers call the outputs.
"""


def names_of_values() -> list[str]:
    """The names with a meaning inside the module's functions, which values are not called by."""
    return sorted({*skeleton("cupy").names(VALUES), *CALLED})


def attributes() -> list[str]:
    """What the memory of either direction has besides buffers of values."""
    own = skeleton("cupy")
    return sorted({*(name for memory in MEMORIES for name in own.scopes[memory]), SLOTS.name, NUMBERED} - {"self"})


def module_text(compiled: Compiled) -> str:
    """The CuPy module of ``compiled``, of which all passes have been run."""
    return _Module(compiled).text()


def plans(compiled: Compiled) -> tuple[tuple[Plan, Choice], tuple[Plan, Choice]]:
    """The plans and classes of both directions."""
    both = _Module(compiled).both
    memory, choice = both.forward_memory()
    return (memory.plan, choice), both.backward_plan(memory)


class _Module:
    def __init__(self, compiled: Compiled) -> None:
        self.common = Common(compiled, names_of_values(), skeleton("cupy").names(MEMORIES))
        self.compiled, self.cell = compiled, compiled.cell
        self.inputs = {f"{given['name']}[t]": {key: str(text) for key, text in given.items()} for given in self.common.inputs}
        streams = {name: given["value"] for name, given in self.inputs.items()}
        self.both = Directions(compiled, streams, TAKEN, attributes())
        self.lagged = self.both.lagged
        self.earlier = Earlier(self.lagged, self.common)
        self.histories = self.earlier.histories
        self.python = Names([*self.common.reserved, *self.common.derived.values()])

    # --- the two directions ---------------------------------------------------------------------------------

    def host(self, direction: str, memory: Memory, choice: Choice) -> Host:
        texts = Texts(self.both.dims, Remarks.of(self.compiled, memory.flow.forwards))
        constants = dict(self.common.constants)
        program = memory.flow.program
        plain = Plain(program.values, constants, self.common.dims, batched=False, spelling=CUPY)
        lines = []
        for op in memory.flow.fixed:
            (out,) = ir.outs(op)
            shape = program.shape(out)
            constants[out] = plain.texts[out] = self.python.get(("fixed", direction, out), identifier(out))
            lines.append(f"{constants[out]} = {plain.whole(op, shape, self.common.axes(shape), 'dtype')}")
        self.helpers |= plain.helpers
        made = Host(direction, memory, choice, texts, self.common.dims, constants, self.both.names, self.matrices())
        made.text.packing += lines
        made.text.prologue += lines if memory.flow.forwards else []  # there packing is a function of its own
        for name, place in memory.reads.items():
            buffer = place.buffer
            if buffer.home is Home.FINAL:
                made.text.buffers.append((buffer.name, f"cp.empty((B, {dim_text(buffer.units, self.common.dims)}), real)"))
            given = name in program.sequences and name not in self.lagged.places
            if given and buffer.owner is owner(memory.flow) and buffer.home is Home.SEQUENCE:
                made.text.buffers.append((buffer.name, f"cp.empty((T, B, {dim_text(buffer.units, self.common.dims)}), dtype)"))
                source = self.common.flat(self.source(name), program.shape(name), "T, B")
                made.text.prologue.append(f"cp.copyto(ws.{buffer.name}, {source})")
        return made

    def matrices(self) -> dict[str, str]:
        """What the caller's streams are called as matrices over all steps and samples."""
        return {given["value"]: given["matrix"] for given in self.inputs.values()}

    def source(self, name: str) -> str:
        """The argument that a sequence is given by."""
        if name in self.inputs:
            return self.inputs[name]["value"]
        label = name.removeprefix("d:").removesuffix(" given")
        (ref,) = {o.name for o in self.cell.outputs if o.label == label}
        return f"dy.{ref}" if len(self.cell.outputs) > 1 else "dy"

    def forward(self) -> tuple[dict[str, object], Memory]:
        memory, choice = self.both.forward_memory()
        host = self.host("forward", memory, choice)
        if memory.carries:
            host.text.buffers.append((SLOTS.name, "cp.zeros((T + 1, B, 1), real)"))
        text = host.run()
        outputs = [
            {
                "dy": self.source(f"d:{o.label} given"),
                "shape": self.common.batched(o.shape, "T, B"),
                "axes": bracket(o.shape, 2),
                "source": arranged(self.common.shaped(f"ws.{memory.outputs[o.label].name}", o.shape, "T, B")),
            }
            for o in self.cell.outputs
        ]
        states = []
        for state in self.cell.states:
            if state.name in self.earlier.by_state:
                last = self.earlier.forward(text, self.earlier.by_state[state.name])
                states.append({**self.common.state(state), "last": last})
                continue
            if state.rows:
                continue
            kept = memory.kept(f"{state.name}[t-1]")
            assert kept is not None
            for buffer in dict.fromkeys(b for b in (kept.state, kept.operand) if b is not None):
                text.prologue.append(f"ws.{buffer.name}[0] = {self.common.flat(f'state.{state.name}', state.shape)}")
            ended = memory.outputs.get(last_state(kept.carry))  # stored apart where the history is put back
            text_of_last = f"_last(ws, ws.{kept.state.name}{f', ws.{ended.name}' if ended else ''}).astype(dtype)"
            states.append({**self.common.state(state), "last": self.common.shaped(text_of_last, state.shape)})
        for far in self.lagged.of_states.values():
            states.append({**self.common.state(far.state), "last": self.histories.state_forward(text, memory, far)})
        for name, far in self.lagged.of_inputs.items():
            x = self.common.flat(self.inputs[f"{name}[t]"]["value"], far.state.shape[1:], "T, B")
            states.append({**self.common.state(far.state), "last": self.histories.input_forward(text, far, x)})
        self.histories.number(text, True)
        value = gather([str(o["source"]) for o in outputs])
        values = {"value": value, "nothing": gather([f"cp.zeros({o['shape']}, dtype)" for o in outputs])}
        return {"text": text, "outputs": outputs, "states": states, **values, **self.loop(text, choice, True)}, memory

    def backward(self, forward: Memory) -> dict[str, object]:
        memory, choice = self.both.backward_memory(forward)
        host = self.host("backward", memory, choice)
        text = host.run()
        names = Names([*self.common.reserved, *self.common.derived.values()])
        variables = {t.target: names.get(("total", t.target), identifier(t.target)) for t in memory.flow.program.totals}
        add_gradients(host, variables.__getitem__)
        grads = self.epilogue(text, variables, names)
        states = []
        earlier = self.earlier.backward(text, memory.outputs)
        for state in self.cell.states:
            if state.name in earlier:
                states.append({**self.common.state(state), "last": earlier[state.name]})
                continue
            if state.rows:
                continue
            kept = memory.kept(f"d:{state.name}[t]<-")
            assert kept is not None
            first = {Home.HISTORY: "[T]", Home.ROLLING: "[T % 2]", Home.LATEST: "[...]"}[kept.state.home]
            last = {Home.HISTORY: "[0]", Home.ROLLING: "[0]", Home.LATEST: ""}[kept.state.home]
            given = self.common.flat(f"dfinal.{state.name}", state.shape)
            for buffer in dict.fromkeys(b for b in (kept.state, kept.operand) if b is not None):
                text.prologue.append(f"ws.{buffer.name}{first} = 0 if dfinal is None else {given}")
            if (place := memory.reads.get(final_cotangent(kept.carry))) is not None:
                text.masked.append(f"ws.{place.buffer.name}[...] = 0 if dfinal is None else {given}")
            if (far := self.lagged.of_states.get(state.name)) is not None:
                before = self.histories.state_backward(text, far, f"ws.{kept.state.name}{last}")
                states.append({**self.common.state(far.state), "last": before})
            source = f"ws.{kept.state.name}{last}.astype(dtype)"
            states.append({**self.common.state(state), "last": self.common.shaped(source, state.shape)})
        for far in self.lagged.of_inputs.values():
            before = self.histories.input_backward(text, far, memory.outputs)
            states.append({**self.common.state(far.state), "last": before})
        self.histories.number(text, False)
        dx = gather([arranged(self.d_input(text, memory, item)) for item in self.cell.inputs], "Inputs")
        return {"text": text, "grads": grads, "dx": dx, "states": states, **self.loop(text, choice, False)}

    def d_input(self, text: Text, memory: Memory, item: Input) -> str:
        """The gradient of an input."""
        name = f"{item.name}[t]"
        made, later = memory.outputs.get(f"d:{name}"), self.earlier.of_input(item.name)
        if made is None:
            return (
                f"cp.zeros_like({self.inputs[name]['value']})"
                if later is None
                else self.common.shaped(later, item.shape, "T, B")
            )
        if later is not None:
            text.after.append(f"ws.{made.name} += {later}")
        return self.common.shaped(f"ws.{made.name}", item.shape, "T, B")

    def loop(self, text: Text, choice: Choice, forwards: bool) -> dict[str, object]:
        """The head of the loop, and how its steps are prepared."""
        variables = ", ".join(text.variables)
        steps = ", ".join(text.steps)
        if len(text.variables) == 1:
            head = f"for {variables} in ws.steps:"
        else:
            head = f"for {variables} in ws.steps:" if text.variables else "for _ in range(ws.T):"
            steps = f"({steps})"
        order = "range(T)" if forwards else "reversed(range(T))"
        return {
            "kind": choice.kind.value,
            "head": "" if choice.kind is Kind.SEQUENCE else head,
            "steps": f"[{steps} for t in {order}]" if text.variables else "",
        }

    def epilogue(self, text: Text, variables: Mapping[str, str], names: Names) -> list[dict[str, str]]:
        """The gradient of every parameter, through derived parameters where there are any: in the type of carries."""
        program = self.compiled.epilogue.program
        lines = []
        if program.ops:
            lines += ["real = _real(dtype)", "wide = Params(*(value.astype(real, copy=False) for value in params))"]
        derived = dict.fromkeys(n for n in self.compiled.epilogue.residuals if n in self.common.derived)
        texts = {param.name: f"wide.{param.name}" for param in self.cell.params}
        texts |= {n: self.common.derived[n] for n in derived} | {f"{t} total": v for t, v in variables.items()}
        widened = [texts[n] for n in (*derived, *(f"{t} total" for t in variables)) if n in program.values]
        lines += [f"{name} = {name}.astype(real, copy=False)" for name in widened]
        plain = Plain(program.values, texts, self.common.dims, batched=False, spelling=CUPY)
        for op in program.ops:
            (out,) = ir.outs(op)
            plain.texts[out] = names.get(("epilogue", out), identifier(out))
            right = plain.whole(op, program.shape(out), self.common.axes(program.shape(out)), "real")
            lines.append(f"{plain.texts[out]} = {right}")
        text.after += lines
        self.helpers |= plain.helpers
        grads = []
        for param in self.cell.params:
            target = f"d:{param.name}"
            source = variables.get(target, f"cp.zeros_like(params.{param.name})")
            if target in program.outputs:
                source = f"{plain.texts[target]}.astype(dtype, copy=False)"
            grads.append({"name": param.name, "source": source})
        return grads

    # --- the module -----------------------------------------------------------------------------------------

    def text(self) -> str:
        common, cell = self.common, self.cell
        self.helpers: set[str] = set()
        forward, memory = self.forward()
        backward = self.backward(memory)
        derived, helpers = common.derived_lines("real", CUPY)
        derived["lines"] = [
            "dtype = _params_dtype(params)",
            "real = _real(dtype)",
            "params = Params(*(value.astype(real, copy=False) for value in params))",
            *strings(derived["lines"]),
        ]
        values = ", ".join(strings(derived["names"]))
        derived["value"] = f"tuple(cp.asarray(value, dtype, order='C') for value in ({values},))"
        reserved_names = [*common.reserved, *common.derived.values()]
        plain, more = plain_step(self.compiled, common.constants, common.derived, common.dims, reserved_names, CUPY)
        context = common.context("CuPy")
        params = context["params"]
        assert isinstance(params, list)
        context["params"] = [{**p, "init": f"cp.asarray({p['init']})"} for p in params]
        kernels = [*_of(forward).kernels, *_of(backward).kernels]
        along = {**_of(forward).along, **_of(backward).along}
        chained = _of(forward).chained | _of(backward).chained
        dots, multiplies = (any(getattr(_of(d), name) for d in (forward, backward)) for name in ("dots", "multiplies"))
        functions = frozenset().union(*(k.functions for k in kernels))
        axes = chained.union(along.values())
        text = (
            environment("cupy")
            .get_template("module.py.jinja")
            .render(
                **context,
                header=common.command(" --backend cupy"),
                standard=[
                    *(f"import {name}" for name in ("contextlib", *["ctypes"] * multiplies, "functools", *["os"] * dots)),
                    "from threading import get_ident",
                ],
                place="@_on_its_device",
                cuts=bool(self.compiled.forward.carries),
                far=bool(self.lagged.far),
                lags=self.lagged.lags,
                counts=self.lagged.counts,
                imports=[*(["import numpy"] if "np" in cell.dims else []), "import numpy as np", "", *_import_of_cupy(cell)],
                array="cp.ndarray",
                tape_type="_Forward",
                notes=[],
                xp="cp",
                dtypes="float64, float32, float16 or bfloat16",
                convert=[] if len(cell.inputs) > 1 else ['x = _array("x", x)'],
                convert_dy=[] if len(cell.outputs) > 1 else ['dy = _array("dy", dy)'],
                x_type="Inputs" if len(cell.inputs) > 1 else "cp.ndarray",
                y_type="Outputs" if len(cell.outputs) > 1 else "cp.ndarray",
                derived=derived,
                forward=forward,
                backward=backward,
                plain=plain,
                kernels=kernels,
                dots=dots,
                multiplies=multiplies,
                by_heads=any(_of(d).by_heads for d in (forward, backward)),
                along=along,
                axes=axes,
                chained=chained,
                infinite="largest_unit" in axes or CUDA.infinity in functions,
                functions=CUDA.definitions(functions),
                step_value=gather([f"y.{o.name}[0]" for o in cell.outputs] if len(cell.outputs) > 1 else ["y[0]"]),
                helpers=self.helpers | helpers | more,
            )
        )
        return tidy(text, legend(self.both.names.groups, text, MEMORIES, "cupy"))


def arranged(rows: str) -> str:
    """Rows of every step, as the caller wants them."""
    return f"_arranged(order, {rows}, dtype)"


def _import_of_cupy(cell: Cell) -> list[str]:
    """The lines that import CuPy, or say what to install."""
    how = "pip install 'cellspec[cuda13x]' or 'cupy-cuda13x[ctk]' (cuda12x for CUDA 12)"
    return [
        "try:",
        "    import cupy as cp",
        "except ModuleNotFoundError as error:",
        '    if error.name != "cupy":',
        "        raise",
        f'    how = "{how}"',
        f'    raise ModuleNotFoundError(f"{cell.name}_cupy needs CuPy: {{how}}", name="cupy") from None',
    ]


def _of(direction: Mapping[str, object]) -> Text:
    text = direction["text"]
    assert isinstance(text, Text)
    return text
