"""Cell → the text of a CuPy module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from cellspec import ir
from cellspec.backends.common import Common, environment, gather, strings, tidy, with_callees
from cellspec.backends.cupy.around import Texts
from cellspec.backends.cupy.classes import Choice, Kind, choose
from cellspec.backends.cupy.cuda import definitions, plain_name, reserved
from cellspec.backends.cupy.cuts import CUT_AFTER, CUT_BEFORE, final, with_cuts
from cellspec.backends.cupy.earlier import Earlier
from cellspec.backends.cupy.flow import Flow, flow, origin
from cellspec.backends.cupy.gradients import add_gradients
from cellspec.backends.cupy.host import Host, Text
from cellspec.backends.cupy.memory import Buffer, Home, Memory, Place, as_saved, matrices, remember
from cellspec.backends.cupy.regions import Plan, plan
from cellspec.backends.dims import bracket
from cellspec.backends.equations import plain_step
from cellspec.backends.naming import Names, identifier
from cellspec.backends.plain import Plain, dim_text
from cellspec.cell import STEP_INDEX, Cell, Input, State
from cellspec.pipeline import Compiled, compile_cell
from cellspec.schedule import schedule

ATTRIBUTES = ("use", "T", "B", "dtype", "captured", "saved", "steps", "cuts", "rows", "is_cut")
"""Attributes that the memory of either direction has."""

_SLOTS = Buffer("cuts", Home.HISTORY, ir.size(()), real=True)
CUTS = {CUT_BEFORE: Place(_SLOTS), CUT_AFTER: Place(_SLOTS, late=True)}
"""Where the cuts lie, before and after each step."""

LOCALS = (
    "cp", "np", "params", "x", "Inputs", "state", "workspace", "graph", "tape", "dy", "dfinal", "ws", "saved", "self", "T", "B",
    "dtype", "real", "y", "final", "grads", "forward", "backward", "step", "trace", "init_params", "init_state", "Params",
    "State", "Grads", "Outputs", "Workspace", "Tape", "NamedTuple", "Any", "float", "zip", "list", "range", "len",
    "tuple", "isinstance", "rng", "batch", "derived", "x_t", "values", "x_2d", "steps", "use", "key", "dims", "type",
    "name", "now", "t", "reversed", "dict", "getattr", "vectors", "dot", "THREADS", "ALONG_THREADS", "rows", "stored",
    "max", "min", "map", "captured", "wide", "_Backward", "_Forward", "_array", "_axis", "_backward_loop", "_blocks",
    "_check", "_check_graph", "_derived", "_dot", "_elu", "_equations", "_erf", "_expect", "_fields", "_forward_loop",
    "_gelu", "_kernel", "_largest", "_loop", "_parts", "_real", "_run", "_sigmoid", "_silu", "_size", "_softsign", "_sum_parts",
    "_sum_rows", "_along", "_along_arguments", "_along_blocks", "_gradient_of_heads", "_heads_arguments",
    "_heads_blocks", "_run_blocks",
    "_multiply_heads", "_where", "_CUDA", "_TYPES", "_MODULES", "lengths", "resets", "reverse", "masks", "order", "d_state",
    "_Masks", "_Rows", "_arranged", "_chosen", "_count_anew", "_cut", "_first_gradient", "_last", "_masks", "_on_host", "_rows",
)  # fmt: skip
"""Names with a meaning inside the module's functions, which values are not called by."""


def generate(cell: Cell, residuals: str = "speed") -> str:
    """The CuPy module of ``cell``; raises ValueError for ``residuals`` other than ``speed``."""
    if residuals != "speed":
        raise ValueError(f"residuals={residuals!r} is for the NumPy backend; the CuPy backend has 'speed' alone")
    return _Module(compile_cell(cell)).text()


def forward_plan(compiled: Compiled) -> tuple[Plan, Choice]:
    """The forward direction's plan and class; the programs of ``compiled`` read cuts."""
    cell = compiled.cell
    befores = {c.before for c in compiled.forward.carries}
    kept = tuple(n for n in compiled.stash if n not in befores and n not in compiled.forward.sequences)
    labels = tuple(dict.fromkeys(o.label for o in cell.outputs))
    program = replace(compiled.forward, outputs=tuple(dict.fromkeys((*labels, *kept))))
    late = tuple(n for n in compiled.stash if n not in compiled.forward.sequences)
    whole = tuple(n for n in compiled.forward.sequences if n not in (f"{STEP_INDEX}[t-1]", CUT_BEFORE, CUT_AFTER))
    made = plan(flow(schedule(program, heads=True), labels, late, whole, True))
    return made, choose(made)


def plans(compiled: Compiled) -> tuple[tuple[Plan, Choice], tuple[Plan, Choice]]:
    """The plans and classes of both directions."""
    module = _Module(compiled)
    memory, choice = module.forward_memory()
    return (memory.plan, choice), module.backward_plan(memory)


def cuts_in(flow_: Flow) -> dict[str, Place]:
    """Where those cuts lie that one direction reads."""
    return {name: place for name, place in CUTS.items() if name in flow_.program.values}


def cupy_text(text: str) -> str:
    """Plain NumPy as plain CuPy: the functions have the same names."""
    return re.sub(r"(?<![\w.])np\.", "cp.", text)


class _Module:
    def __init__(self, compiled: Compiled) -> None:
        self.compiled, self.cell = with_cuts(compiled), compiled.cell
        self.common = Common(compiled, LOCALS)
        streams = zip(self.cell.inputs, self.common.inputs, strict=True)
        self.inputs = {f"{item.name}[t]": {key: str(text) for key, text in given.items()} for item, given in streams}
        cuda = Names(reserved())
        self.cuda_dims = {d: cuda.get(("dim", d), plain_name(d)) for d in self.cell.dims}
        self.python = Names([*self.common.reserved, *self.common.derived.values()])
        self.rank = {e.target.name: k for k, e in enumerate(self.cell.assignments)}
        self.attributes = [*reserved(), *self.cuda_dims.values(), *ATTRIBUTES]
        self.names = Names(self.attributes)
        self.earlier = Earlier(self.cell, self.common, self.names)
        self.attributes += [name for stream in self.earlier.known for name in (stream.buffer, f"d_{stream.buffer}")]

    # --- the two directions ---------------------------------------------------------------------------------

    def given(self, flow_: Flow, made: Plan, more: Mapping[str, Place]) -> dict[str, Place]:
        """Where the values are that come from outside: constants that kernels read, and ``more``."""
        loaded = {origin(flow_, n) for region in made.regions for n in region.loads}
        places = dict(more)
        for name in flow_.program.values:
            if name in flow_.constants and name in loaded:
                called = self.names.get(("constant", flow_.forwards, name), plain_name(identifier(name)))
                places[name] = Place(Buffer(called, Home.CONSTANT, flow_.width(name)))
        return places

    def sequence(self, flow_: Flow, made: Plan, name: str) -> Place:
        """A sequence that the caller gives: kernels read a copy in the workspace, so that the loop depends on nothing else."""
        loaded = any(origin(flow_, n) == name for region in made.regions for n in region.loads)
        text = self.inputs[name]["value"]
        own = self.names.get(("sequence", name), f"{plain_name(identifier(text))}_all") if loaded else text
        return Place(Buffer(own, Home.SEQUENCE, flow_.width(name), saved=not loaded))

    def as_given(self, flow_: Flow) -> dict[str, Place]:
        """The sequences that the caller gives where they lie, as products read them."""
        return {
            name: Place(Buffer(given["value"], Home.SEQUENCE, flow_.width(name), saved=True))
            for name, given in self.inputs.items()
            if name in flow_.program.values
        }

    def forward_memory(self) -> tuple[Memory, Choice]:
        made, choice = forward_plan(self.compiled)
        whole = self.as_given(made.flow)
        sequences = {name: self.sequence(made.flow, made, name) for name in whole}
        given = self.given(made.flow, made, {**sequences, **self.earlier.places, **cuts_in(made.flow)})
        whole |= self.earlier.matrices
        memory = remember(made, given, whole, self.names, choice.kind is Kind.SEQUENCE, self.rank)
        return memory, choice

    def backward_plan(self, forward: Memory) -> tuple[Plan, Choice]:
        compiled = self.compiled
        whole = {*self.inputs, *matrices(forward), *(f"d:{o.label} given" for o in self.cell.outputs)}
        outputs = tuple(n for n in compiled.backward.outputs)
        made = plan(flow(schedule(compiled.backward, heads=True), outputs, (), whole, False))
        return made, choose(made)

    def backward_memory(self, forward: Memory) -> tuple[Memory, Choice]:
        made, choice = self.backward_plan(forward)
        self.names = Names([*self.attributes, *(b.name for b in forward.buffers if b.home in (Home.SEQUENCE, Home.HISTORY))])
        saved = {n: as_saved(p) for n, p in cuts_in(made.flow).items()}
        saved |= {n: as_saved(forward.reads[n]) for n in self.compiled.stash if n in forward.reads}
        saved |= self.finals(made)
        whole = {n: as_saved(p) for n, p in matrices(forward).items()}
        given = self.as_given(made.flow)
        saved |= {name: self.sequence(made.flow, made, name) for name in given}
        whole |= given
        for o in self.cell.outputs:
            name = f"d:{o.label} given"
            if name in made.flow.program.values:
                called = "dy" if len(self.cell.outputs) == 1 else f"dy_{o.name}"
                buffer = Buffer(
                    self.names.get(("dy", o.name), plain_name(f"{called}_all")), Home.SEQUENCE, made.flow.width(name)
                )
                saved[name] = whole[name] = Place(buffer)
        places = self.given(made.flow, made, saved)
        return remember(made, places, whole, self.names, choice.kind is Kind.SEQUENCE, self.rank), choice

    def finals(self, made: Plan) -> dict[str, Place]:
        """The final state's cotangents, as kernels read them where a sample ends."""
        loaded = {n for region in made.regions for n in region.loads}
        names = [final(carry) for carry in made.flow.program.carries if final(carry) in loaded]
        called = {name: self.names.get(("final", name), plain_name(identifier(name))) for name in names}
        return {name: Place(Buffer(called[name], Home.FINAL, made.flow.width(name), real=True)) for name in names}

    def host(self, direction: str, memory: Memory, choice: Choice) -> Host:
        prefix = "" if memory.flow.forwards else "backward of "
        comments = {e.target.name: f"// {prefix}{e.text}" for e in self.cell.assignments}
        texts = Texts(self.cuda_dims, comments)
        constants = dict(self.common.constants)
        program = memory.flow.program
        plain = Plain(program.values, constants, self.common.dims, batched=False)
        lines = []
        for op in memory.flow.fixed:
            (out,) = ir.outs(op)
            shape = program.shape(out)
            constants[out] = plain.texts[out] = self.python.get(("fixed", direction, out), identifier(out))
            lines.append(f"{constants[out]} = {cupy_text(plain.whole(op, shape, self.common.axes(shape), 'dtype'))}")
        self.helpers |= plain.helpers
        made = Host(direction, memory, choice, texts, self.common.dims, constants, self.names, self.matrices())
        made.text.prologue += lines
        for name, place in memory.reads.items():
            buffer = place.buffer
            if buffer.home is Home.FINAL:
                made.text.buffers.append((buffer.name, f"cp.empty((B, {dim_text(buffer.units, self.common.dims)}), real)"))
            if name in program.sequences and not buffer.saved and buffer.home is Home.SEQUENCE:
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
        memory, choice = self.forward_memory()
        host = self.host("forward", memory, choice)
        if memory.carries:
            host.text.buffers.append(("cuts", "cp.zeros((T + 1, B, 1), real)"))
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
            kept = memory.kept(f"{state.name}[t-1]")
            assert kept is not None
            for buffer in dict.fromkeys(b for b in (kept.state, kept.operand) if b is not None):
                text.prologue.append(f"ws.{buffer.name}[0] = {self.common.flat(f'state.{state.name}', state.shape)}")
            last = self.common.shaped(f"_last(ws, ws.{kept.state.name}).astype(dtype)", state.shape)
            states.append({**self.common.state(state), "last": last})
        value = gather([str(o["source"]) for o in outputs])
        return {"text": text, "outputs": outputs, "states": states, "value": value, **self.loop(text, choice, True)}, memory

    def backward(self, forward: Memory) -> dict[str, object]:
        memory, choice = self.backward_memory(forward)
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
            kept = memory.kept(f"d:{state.name}[t]<-")
            assert kept is not None
            first = {Home.HISTORY: "[T]", Home.ROLLING: "[T % 2]", Home.LATEST: "[...]"}[kept.state.home]
            last = {Home.HISTORY: "[0]", Home.ROLLING: "[0]", Home.LATEST: ""}[kept.state.home]
            given = self.common.flat(f"dfinal.{state.name}", state.shape)
            for buffer in dict.fromkeys(b for b in (kept.state, kept.operand) if b is not None):
                text.prologue.append(f"ws.{buffer.name}{first} = 0 if dfinal is None else {given}")
            if (place := memory.reads.get(final(kept.carry))) is not None:
                text.masked.append(f"ws.{place.buffer.name}[...] = 0 if dfinal is None else {given}")
            source = f"ws.{kept.state.name}{last}.astype(dtype)"
            states.append({**self.common.state(state), "last": self.common.shaped(source, state.shape)})
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
        plain = Plain(program.values, texts, self.common.dims, batched=False)
        for op in program.ops:
            (out,) = ir.outs(op)
            plain.texts[out] = names.get(("epilogue", out), identifier(out))
            right = plain.whole(op, program.shape(out), self.common.axes(program.shape(out)), "real")
            lines.append(cupy_text(f"{plain.texts[out]} = {right}"))
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
        derived, helpers = common.derived_lines("real")
        derived["lines"] = [
            "dtype = _params_dtype(params)",
            "real = _real(dtype)",
            "params = Params(*(value.astype(real, copy=False) for value in params))",
            *(cupy_text(line) for line in strings(derived["lines"])),
        ]
        values = ", ".join(strings(derived["names"]))
        derived["value"] = f"tuple(cp.asarray(value, dtype, order='C') for value in ({values},))"
        reserved_names = [*common.reserved, *common.derived.values()]
        plain, more = plain_step(self.compiled, common.constants, common.derived, common.dims, reserved_names)
        plain["lines"] = [cupy_text(line) for line in strings(plain["lines"])]
        context = common.context("CuPy")
        params = context["params"]
        assert isinstance(params, list)
        context["params"] = [{**p, "init": f"cp.asarray({p['init']})"} for p in params]
        kernels = [*_of(forward).kernels, *_of(backward).kernels]
        along = _of(forward).along | _of(backward).along
        chained = _of(forward).chained | _of(backward).chained
        axes = chained | {entry.removesuffix("_real") for entry in along}
        text = (
            environment("cupy")
            .get_template("module.py.jinja")
            .render(
                **context,
                header=common.command(" --backend cupy"),
                standard=[],
                on_host='_on_host("{0}", {0})'.format,
                cuts=bool(self.compiled.forward.carries),
                lags=any(stream.follows is not None for stream in self.earlier.known),
                counts=any(stream.follows is None for stream in self.earlier.known),
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
                multiplies=any(_of(d).multiplies for d in (forward, backward)),
                by_heads=any(_of(d).by_heads for d in (forward, backward)),
                along=along,
                axes=axes,
                chained=chained,
                infinite="largest_unit" in axes or any("INFINITY" in line for k in kernels for line in k.body),
                functions=definitions({name for k in kernels for name in k.functions}),
                step_value=gather([f"y.{o.name}[0]" for o in cell.outputs] if len(cell.outputs) > 1 else ["y[0]"]),
                helpers=with_callees({*self.helpers, *helpers, *more}),
            )
        )
        return tidy(text)


def arranged(rows: str) -> str:
    """Rows of every step, as the caller wants them."""
    return f"_arranged(order, {rows}, dtype)"


def _import_of_cupy(cell: Cell) -> list[str]:
    """The lines that import CuPy, or say what to install."""
    sentence = f"{cell.name}_cupy needs CuPy: pip install 'cellspec[cuda13x]' or cupy-cuda13x (cuda12x for CUDA 12)"
    return [
        "try:",
        "    import cupy as cp",
        "except ModuleNotFoundError as error:",
        '    if error.name != "cupy":',
        "        raise",
        f'    raise ModuleNotFoundError("{sentence}", name="cupy") from None',
    ]


def _of(direction: Mapping[str, object]) -> Text:
    text = direction["text"]
    assert isinstance(text, Text)
    return text
