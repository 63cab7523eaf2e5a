"""Compiled cell → the text of a module of whole-array functions: what PyTorch's and JAX's modules have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cellspec import ir
from cellspec.backends.arrays.functional import Plain
from cellspec.backends.arrays.spelling import Spelling
from cellspec.backends.common import Common, environment, gather, tidy
from cellspec.backends.dims import bracket, tuple_text
from cellspec.backends.equations import Assignment, plain_step, shifted
from cellspec.backends.frameworks.directions import (
    Around,
    Direction,
    Given,
    direction,
    listed,
    unpacked,
    wrapped,
)
from cellspec.backends.legend import legend
from cellspec.backends.naming import Names, identifier
from cellspec.backends.plain import float_text
from cellspec.backends.remarks import Remarks
from cellspec.backends.skeleton import names, skeleton
from cellspec.model.equations import Param, State
from cellspec.model.nodes import STEP_INDEX, Kind
from cellspec.pipeline import BACKWARD, FORWARD, Compiled

VALUES = ("_forward", "_backward", "_derived", "_equations", "trace")
"""The functions in which values have names."""

CALLED = frozenset(("float", "int", "abs", "max", "min", "math", "one_step", "carry", "row", "y"))
"""Names in no template: what numbers of dims are made with, a step of either direction, and what callers call the outputs."""

EXPORTS = ("Params", "State", "forward", "forward_plain", "init_params", "init_state", "step", "trace")
"""What every module gives."""

FOLDER = "frameworks"
"""Where the templates are that all such targets share."""

OPTIONAL = ("math", "functional")
"""What a module imports if it reads something of it."""


@dataclass(frozen=True)
class Target:
    """An array library: the folder of its templates, how people call it, its words, and what its modules say otherwise.

    ``array`` is the class of its arrays, which people call ``noun``; ``xp`` has its functions. ``empty`` is an array of the
    default dtype, ``diagonal`` that of ``r``; ``copy`` makes a view an array.
    ``differentiable`` says who takes derivatives of ``forward``. ``source``, ``options``, ``draws`` and ``seeded`` are the
    arguments of ``init_params``, those of its random numbers, and the sentence about them. ``standard`` are lines that import
    of the standard library.
    """

    folder: str
    title: str
    spelling: Spelling
    array: str
    noun: str
    xp: str
    empty: str
    diagonal: str
    copy: str
    differentiable: str
    source: str
    options: str
    draws: str
    seeded: str
    standard: tuple[str, ...] = ()


def module_text(compiled: Compiled, target: Target) -> str:
    """The module of ``compiled`` for ``target``."""
    return _Module(compiled, target).text()


class _Module:
    def __init__(self, compiled: Compiled, target: Target) -> None:
        self.compiled, self.cell, self.target = compiled, compiled.cell, target
        own = skeleton(target.folder, FOLDER)
        self.taken = sorted(own.names(VALUES) | CALLED)
        self.common = Common(compiled, self.taken, own.names(own.open))
        self.dims = self.common.dims
        self.x = {item.name: str(text["value"]) for item, text in zip(self.cell.inputs, self.common.inputs, strict=True)}
        self.x_t = {name: "x_t" if len(self.x) == 1 else f"x_t_{name}" for name in self.x}
        self.like = target.spelling.operation("like", array=next(iter(self.x.values())))
        self.carried = [state for state in self.cell.states if state not in self.cell.streams]
        self.helpers: set[str] = set()

    def text(self) -> str:
        """The whole text. What a library is imported for depends on what is read of it."""
        template = environment(self.target.folder, FOLDER).get_template("module.py.jinja")
        context = self.context()
        used = {name for _, name in names(template.render(context, imported=()))}
        text = template.render(context, imported=used.intersection(OPTIONAL))
        return tidy(text, legend(self.common.groups, text, ("_forward", "_backward")))

    def context(self) -> dict[str, object]:
        """What the templates need."""
        common, cell, target = self.common, self.cell, self.target
        derived, helpers = common.derived_lines("like", target.spelling)
        reserved = [*common.reserved, *common.derived.values()]
        plain, more = plain_step(self.compiled, common.constants, common.derived, self.dims, reserved, target.spelling)
        plain["lines"] = [line for each in plain["assignments"] for line in _within(each)]
        shapes = {e.target.name: tuple_text(e.target.shape, self.dims) for e in cell.assignments}
        self.helpers |= helpers | more
        several_in, several_out = len(cell.inputs) > 1, len(cell.outputs) > 1
        exports = ["Inputs"] * several_in + ["Outputs"] * several_out
        forward, backward = self.forward(), self.backward()
        source, _, kind = target.source.partition(":")
        policy = self.compiled.residuals
        given = f"{source}_" if source in cell.dims else source
        return {
            **common.context(target.title),
            "functional": True,
            "standard": target.standard,
            "exports": " ".join(f'"{name}",' for name in (*exports, *EXPORTS)),
            "header": common.command(f" --backend {target.folder}" + (f" --residuals {policy}" if policy != "speed" else "")),
            "notes": [],
            "convert": [],
            "target": target,
            "xp": target.xp,
            "array": target.array,
            "x_type": "Inputs" if several_in else target.array,
            "y_type": "Outputs" if several_out else target.array,
            "like": self.like,
            "derived": derived,
            "plain": plain,
            "derived_shapes": shapes,
            "forward": forward,
            "backward": backward,
            "streams": self.streams(),
            "params": [{"name": p.name, "shape": bracket(p.shape), "init": self.initial(p)} for p in cell.params],
            "fixed": [
                (param.name, target.spelling.operation("stop", value=f"params.{param.name}"))
                for param in cell.params
                if not param.trainable
            ],
            "states": [self.state(state) for state in cell.states],
            "carried": [state.name for state in self.carried],
            "starts": self.starts(self.carried),
            "step_y": gather([f'values["{o.name}"]' for o in cell.outputs]),
            "init": {"source": f"{given}:{kind}", "draws": target.draws.format(source=given)},
            "helpers": sorted(self.helpers - {"full"}),
        }

    def starts(self, states: Sequence[State]) -> str:
        """The numbers that states start from."""
        return listed([float_text(float(state.init), self.target.spelling.operations["infinity"]) for state in states])

    # --- directions -----------------------------------------------------------------------------------------

    def forward(self) -> dict[str, object]:
        """The forward direction."""
        program, names = self.compiled.forward, self.names()
        given, setup = self.sequences(names)
        befores = {state.name: names.get(label := f"{state.name}[t-1]", identifier(label)) for state in self.carried}
        far = {ref.label: ref for ref in self.cell.distant if ref.kind is not Kind.INPUT}
        lags = {label: names.get(label, identifier(label)) for label in far}
        saved, outputs = self.saved(), [o.label for o in self.cell.outputs]
        carried = {**{f"{name}[t-1]": text for name, text in befores.items()}, **lags}
        around = self.around(names, given, carried, (*outputs, *saved), program.afters, forwards=True)
        code = direction(self.compiled.schedules[FORWARD], around)
        handed = {carry.before.removesuffix("[t-1]"): code.step[carry.after] for carry in program.carries}
        head = []
        for label, ref in far.items():
            state = self.cell.keeper(ref)
            head.append(f"{lags[label]} = {befores[state.name]}[:, {ref.back - 1}]")
            handed[state.name] = shifted(befores[ref.name], befores[state.name], self.target.spelling)
        loop = self.loop(code, befores.values(), [*head, *code.loop], [handed[state.name] for state in self.carried])
        first = listed([f"state.{state.name}" for state in self.carried])
        rows = listed(list(code.read.values()))
        scan = self.scan(code, "_through", ["one_step", first, rows, "T", "masks", self.starts(self.carried)])
        y, kept = gather([code.steps[label] for label in outputs]), listed([code.steps[name] for name in saved])
        return {
            "before": [*setup, *code.before],
            "loop": loop,
            "after": [*scan, *code.after],
            "result": [wrapped("return ", f"{y}, final, {kept}")],
        }

    def backward(self) -> dict[str, object]:
        """The backward direction, with the gradients of parameters."""
        program, names, words = self.compiled.backward, self.names(), self.target.spelling
        given, setup = self.sequences(names, set(program.sequences))
        saved = {name: names.get(name, identifier(name)) for name in self.saved()}
        given |= {name: Given(text, text) for name, text in saved.items()}
        for o in self.cell.outputs:
            dy, dy_t = ("dy", "dy_t") if len(self.cell.outputs) == 1 else (f"dy.{o.name}", f"dy_{o.name}_t")
            given[f"d:{o.label} given"] = Given(dy, names.get(("row", dy), dy_t))
        befores = {state.name: names.get(label := f"d:{state.name}[t]<-", identifier(label)) for state in self.carried}
        carried = {f"d:{name}[t]<-": text for name, text in befores.items()}
        around = self.around(names, given, carried, program.outputs, program.afters, forwards=False)
        code = direction(self.compiled.schedules[BACKWARD], around)
        of = {text: name for name, text in carried.items()}
        after = {carry.before: code.step[carry.after] for carry in program.carries}
        handed = {name: after[of[text]] for name, text in befores.items() if of[text] in after}
        tail = []
        for state in self.carried:
            if state.rows and state.lag_of is not None:
                source, later = state.lag_of[0], befores[state.name]
                rows = handed[state.name] = names.get(("rows", state.name), f"d_{identifier(state.name)}")
                zeros = words.operation("zeros", value=f"{later}[:, :1]")
                tail.append(f"{rows} = {words.operation('concat', parts=f'{later}[:, 1:], {zeros}', axis=1)}")
                for delay in program.delays:
                    if delay.before == f"d:{source}[t]<-{delay.steps}":
                        index, value = f":, {delay.steps - 2}", code.step[delay.after]
                        tail.append(words.operation("added", rows=rows, index=index, value=value))
                handed[source] = f"{handed[source]} + {later}[:, 0]"
        loop = self.loop(code, befores.values(), [*code.loop, *tail], [handed[state.name] for state in self.carried])
        scan = self.scan(code, "_back", ["one_step", "dfinal", listed(list(code.read.values())), "T", "masks"])
        lines, sources = self.epilogue(code, names)
        more, d_earlier = self.d_earlier(code, names, given)
        d_x = [code.steps.get(f"d:{name}[t]", words.operation("zeros", value=text)) for name, text in self.x.items()]
        return {
            "before": [*([unpacked(list(saved.values()), "saved")] if saved else []), *setup, *code.before],
            "loop": loop,
            "after": [*scan, *code.after, *lines, *more],
            "grads": sources,
            "result": [gather(d_x, "Inputs"), listed(d_earlier)],
        }

    def loop(self, code: Direction, carried: Iterable[str], lines: Sequence[str], handed: Sequence[str]) -> list[str]:
        """The step that is repeated, from its carry and the rows that it is handed to those that it hands on and out."""
        self.helpers |= code.helpers
        start = [unpacked(list(carried), "carry")] if handed else []
        start += [unpacked(list(code.read), "row")] if code.read else []
        return [*start, *lines, wrapped("return ", f"{listed(handed)}, {listed(code.rows)}")]

    def scan(self, code: Direction, function: str, arguments: Sequence[str]) -> list[str]:
        """What repeats it."""
        return [f"final, rows = {function}({', '.join(arguments)})", *([unpacked(code.rows, "rows")] if code.rows else [])]

    def names(self) -> Names:
        """The variables of one direction."""
        return Names([*self.taken, *self.dims.values(), *self.common.derived.values()], self.common.groups)

    def around(
        self,
        names: Names,
        given: Mapping[str, Given],
        befores: Mapping[str, str],
        kept: Sequence[str],
        handed: Sequence[str],
        forwards: bool,
    ) -> Around:
        remarks = Remarks.of(self.compiled, forwards)
        return Around(
            names, self.common.constants, given, befores, tuple(dict.fromkeys(kept)), tuple(handed),
            frozenset(e.target.label for e in self.cell.assignments), self.dims, remarks, self.target.spelling, self.like,
        )  # fmt: skip

    def saved(self) -> list[str]:
        """What the forward pass leaves for the backward pass besides its own arguments."""
        known = set(self.compiled.forward.sequences)
        return [name for name in self.compiled.stash if name not in known]

    # --- what is known for all steps --------------------------------------------------------------------------

    def sequences(self, names: Names, read: set[str] | None = None) -> tuple[dict[str, Given], list[str]]:
        """Inputs and earlier inputs, and the lines that name the latter."""
        given = {}
        for name, text in self.x.items():
            given[f"{name}[t]"] = Given(text, names.get(("row", text), self.x_t[name]))
        lines: list[str] = []
        variables = []
        for state in self.cell.streams:
            variables.append(names.get(f"{state.name}[t-1]", identifier(f"{state.name}[t-1]")))
            given[f"{state.name}[t-1]"] = Given(variables[-1], variables[-1])
            for ref in self.cell.distant:
                if self.cell.keeper(ref) == state and (read is None or ref.label in read):
                    lag = names.get(ref.label, identifier(ref.label))
                    given[ref.label] = Given(lag, lag)
                    lines.append(f"{lag} = {variables[-1]}[:, :, {ref.back - 1}]")
        return given, [*([unpacked(variables, "earlier")] if variables else []), *lines]

    def streams(self) -> dict[str, object]:
        """The step that hands earlier inputs on, which are known before anything is computed."""
        words = self.target.spelling
        rows = self.x_t
        handed = []
        for state in self.cell.streams:
            assert state.lag_of is not None
            source, lag = state.lag_of
            nearer = [s.name for s in self.cell.streams if s.lag_of == (source, lag - 1) and not s.rows]
            if source == STEP_INDEX:
                handed.append(f"{words.operation('stop', value=state.name)} + 1")
            else:
                handed.append(shifted(rows[source], state.name, words) if state.rows else (*nearer, rows[source])[0])
        names = [state.name for state in self.cell.streams]
        lines = [unpacked(names, "carry"), unpacked(list(rows.values()), "row")] if names else []
        return {
            "names": names,
            "lines": [*lines, wrapped("return ", f"{listed(handed)}, {listed(names)}")],
            "first": listed([f"state.{name}" for name in names]),
            "inputs": listed(list(self.x.values())),
            "starts": self.starts(self.cell.streams),
        }

    def d_earlier(self, code: Direction, names: Names, given: Mapping[str, Given]) -> tuple[list[str], list[str]]:
        """The cotangents of earlier inputs, and lines that compute them."""
        words, lines, found = self.target.spelling, list[str](), list[str]()
        for state in self.cell.streams:
            zeros = words.operation("zeros", value=given[f"{state.name}[t-1]"].whole)
            if not state.rows:
                found.append(code.steps.get(f"d:{state.name}[t-1]", zeros))
                continue
            found.append(names.get(("cotangent", state.name), f"d_{identifier(state.name)}"))
            lines.append(f"{found[-1]} = {zeros}")
            for ref in self.cell.distant:
                if self.cell.keeper(ref) == state and (d := f"d:{ref.label}") in code.steps:
                    lines.append(words.operation("added", rows=found[-1], index=f":, :, {ref.back - 1}", value=code.steps[d]))
        return lines, found

    # --- parameters and states --------------------------------------------------------------------------------

    def epilogue(self, code: Direction, names: Names) -> tuple[list[str], list[dict[str, str]]]:
        """The gradient of every parameter, through derived parameters where there are any."""
        program, words = self.compiled.epilogue.program, self.target.spelling
        texts = {**self.common.constants, **{f"{target} total": text for target, text in code.totals.items()}}
        plain = Plain(program.values, texts, self.dims, batched=False, dtype=self.like, spelling=words)
        lines: list[str] = []
        for op in program.ops:
            (out,) = ir.outs(op)
            plain.texts[out] = names.get(("epilogue", out), identifier(out))
            shape = program.shape(out)
            lines.append(wrapped(f"{plain.texts[out]} = ", plain.whole(op, shape, tuple_text(shape, self.dims), plain.dtype)))
        self.helpers |= plain.helpers
        grads = []
        for param in self.cell.params:
            target = f"d:{param.name}"
            zeros = words.operation("zeros", value=f"params.{param.name}")
            source = plain.texts[target] if target in program.outputs else code.totals.get(target, zeros)
            grads.append({"name": param.name, "source": source})
        return lines, grads

    def initial(self, param: Param) -> str:
        """How a parameter starts."""
        shape = tuple_text(param.shape, {})
        numbers = "".join(f", {float_text(n, self.target.spelling.operations['infinity'])}" for n in param.init.numbers)
        return (
            f"draw.full({shape}{numbers})" if param.init.kind == "constant" else f"_{param.init.kind}(draw, {shape}{numbers})"
        )

    def state(self, state: State) -> dict[str, str]:
        """A state, with the number that it starts from in this library's words."""
        init = float_text(float(state.init), self.target.spelling.operations["infinity"])
        return {**self.common.state(state), "init": init}


def _within(line: Assignment) -> list[str]:
    """An equation and its code, in parentheses if it is long."""
    return [*([line.comment] if line.comment else []), wrapped(f"{line.target} = ", line.text)]
