"""Random specs over the whole language: heads, matrix states, functions along an axis, families, loops, macros, lags, t_now.

And over what a person would hardly write, but may: functions of constants, equal right sides, branches that differ by a
constant, terms that cancel, states and powers that are constant, reductions as targets, dims that stand in sums or products
only, products of products, large biases, lists of one, axes of size 1.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

SMOOTH = ("sigmoid", "tanh", "sin", "softplus", "silu", "erf", "gelu")
KINKED = ("relu", "abs", "leaky_relu", "hard_tanh", "hard_sigmoid", "sign", "floor")
OTHERS = ("cos", "elu", "softsign", "logsigmoid", "identity", *KINKED)
"""Functions that fewer cells use, those with kinks among them."""

POSITIVE = ("exp", "log", "sqrt", "sqrt", "log")
"""Functions that are finite and smooth where an argument lies between 1/2 and 5/2."""

TO_ONE = ("sum", "mean", "var", "norm", "logsumexp")
SHAPES = (("H",), ("P",), ("N", "D"), ("D", "P"), ("1",))
WRITTEN = ("H", "H", "H", "G*L", "G + L", "2*G", "G*L + 1")
"""What stands for the dim H: dims that stand in a sum or a product only, too."""

Shape = tuple[str, ...]


class RandomLanguage:
    """Writes one spec; the same seed gives the same text."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.name = f"language_{seed}"
        self.params: dict[str, tuple[Shape, int]] = {}  # name -> shape, members
        self.derived: list[str] = []
        self.values: dict[str, Shape] = {}
        self.lines: list[str] = []
        self.hyper = {"k0": self.rng.choice([-0.3, 0.7, -2]), "k1": self.rng.choice([2, 3])}
        self.width = self.rng.choice(WRITTEN)
        self.biases = self.rng.choice(["{normal: 0.5}", "{normal: 0.5}", "{normal: 0.5}", "-9", "6"])

    def text(self) -> str:
        rng = self.rng
        states: dict[str, Shape] = {f"s{k}": rng.choice(SHAPES) for k in range(rng.randint(1, 3))}
        inputs: dict[str, Shape] = {"x": ("I",)}
        if rng.random() < 0.4:
            inputs["u"] = rng.choice(SHAPES)
        for name, shape in inputs.items():
            self.values |= {f"{name}[t]": shape}
            if rng.random() < 0.25:
                self.values |= {f"{name}[t-{(1, 6)[rng.randint(0, 1)]}]": shape}
        for name, shape in states.items():
            self.values |= {f"{name}[t-1]": shape}
            if rng.random() < 0.25:
                self.values |= {f"{name}[t-{(2, 7)[rng.randint(0, 1)]}]": shape}
        self.macro = rng.random() < 0.3
        for k in range(rng.randint(1, 4)):
            shape = rng.choice([*SHAPES, *states.values()])
            self.lines.append(f"v{k} = {self.varying(shape)}")
            self.values[f"v{k}"] = shape
        if rng.random() < 0.25:
            self.twins()
        if rng.random() < 0.4:
            self.loop()
        for name, shape in states.items():
            self.lines.append(f"{name}[t] = {self.next_state(name, shape)}")
            self.values[f"{name}[t]"] = shape
        return self.finished(states, inputs)

    def finished(self, states: dict[str, Shape], inputs: dict[str, Shape]) -> str:
        """The spec, with whatever nothing has used yet added to the first state, or given out."""
        rng, lines = self.rng, self.lines
        first, shape = next(iter(states.items()))
        outputs = list(states)[: rng.randint(1, len(states))]
        for value in (v for v in self.values if re.fullmatch(r"[a-z]\d?\[t(-1)?\]", v) and v not in " ".join(lines)):
            if value.removesuffix("[t]") in states:
                continue
            index = next(i for i, line in enumerate(lines) if line.startswith(f"{first}[t] "))
            lines[index] += f" + 0.1*{self.fitted(value, shape)}"
        body = " ".join(lines)
        outputs += [v for v in self.values if v.startswith("v") and len(re.findall(rf"\b{v}\b", body)) < 2]
        outputs += [s for s in states if s not in outputs and f"{s}[t-" not in body and body.count(f"{s}[t]") < 2]
        for line in reversed(self.derived):  # which may read those before them
            if re.search(rf"\b{line.split()[0]}\b", " ".join(lines)):
                lines.append(line)
        body = " ".join(lines)
        parts = [f"name: {self.name}"]
        for key, named in (("inputs", inputs), ("states", states)):
            parts += [f"{key}:", *(f"  {name}: [{', '.join(axes)}]" for name, axes in named.items())]
        parts += [f"outputs: [{', '.join(outputs)}]", "params:"]
        for name, (axes, members) in self.params.items():
            if re.search(rf"\b{name}\b", body):
                repeat = f", repeat: {members}" if members else ""
                init = self.biases if len(axes) == 1 else "{normal: 0.5}"
                fixed = ", trainable: false" if rng.random() < 0.05 else ""
                parts.append(f"  {name}: {{shape: [{', '.join(axes)}], init: {init}{repeat}{fixed}}}")
        if parts[-1] == "params:":
            parts[-1] = "params: {}"
        if "ln(" in body:
            parts += ["functions:", '  "ln(v, s)": s*(v - mean(v))/sqrt(var(v) + 0.1)']
        hyper = [f"  {name}: {value}" for name, value in self.hyper.items() if re.search(rf"\b{name}\b", body)]
        parts += ["hyper:", *hyper] if hyper else []
        declared = " ".join(part for part in parts if part.startswith("  "))
        for dim in "HPD":
            if not re.search(rf"\b{dim}\b", declared):
                lines = [re.sub(rf"\b{dim}\b", "3", line) for line in lines]
        text = "\n".join([*parts, "equations: |", *(f"  {line}" for line in lines)]) + "\n"
        return re.sub(r"\bH\b", self.width if self.width == "H" else f"({self.width})", text)

    def twins(self) -> None:
        """An equation whose right side another has too, and maybe one that is made of parameters alone."""
        line = self.rng.choice(self.lines)
        name, right = line.split(" = ", 1)
        self.lines.append(f"v7 = {right}")
        self.values["v7"] = self.values[name]
        if self.rng.random() < 0.5:
            matrix = self.param(("P", "P"))
            self.derived += [f"q{len(self.derived) + k} = {matrix} - {matrix}.T" for k in range(2)]
            one, other = (line.split()[0] for line in self.derived[-2:])
            self.lines.append(f"v8 = ({one} @ {other}) @ {self.fitted('x[t]', ('P',))}")
            self.values["v8"] = ("P",)

    def next_state(self, name: str, shape: Shape) -> str:
        """A state's right side: what is bounded; now and then something smaller, or what never changes."""
        rng = self.rng
        if rng.random() < 0.8:
            return self.bounded(shape)
        smaller = shape if shape[-1] == "1" else (*shape[:-1], "1")
        forms = [f"tanh({self.expression(smaller, 1)})", f"sum({self.bounded(shape)})", self.param(shape), self.param(("1",))]
        return rng.choice([*forms, f"{name}[t-1]", self.number(), f"0*{name}[t-1] + {self.number()}", "0.1*(t_now + 1)"])

    def number(self) -> str:
        """A constant of magnitude about 1, often as something that must be worked out first."""
        rng = self.rng
        k = rng.choice(["k0", "k1", "0.4", "2", "H", "1.5"])
        if k == "H":
            return rng.choice(["(H/(H + 1))", "(1/sqrt(H))", "tanh(H)", "(abs(H - P)/(H + P))", "(H - H + 0.5)", "(D**0)"])
        forms = [k, f"{rng.choice(SMOOTH + OTHERS)}({k})", f"{rng.choice(POSITIVE)}(1 + tanh({k}))", f"({k}/3)", f"max({k}, 1)"]
        forms += [f"min({k}, 0.5)", f"mod({k}, 2)", f"clip({k}, -1, 1)", f"where({k} < 1, {k}, 1)", f"(-{k})", f"(1 - {k})"]
        return rng.choice(forms)

    def loop(self) -> None:
        """A family of intermediates, each made from the one before with a member of a family of parameters."""
        shape = self.rng.choice([s for s in SHAPES if s != ("1",)])
        weight = self.param((*shape, shape[-1]) if len(shape) == 2 else (*shape, *shape), members=2)
        self.lines += [f"f[0] = {self.varying(shape)}", "for l in range(0, 2):"]
        step = f"tanh({weight}[l] @ f[l]) + where(l < 1, {self.expression(shape, 1)}, f[0])"
        self.lines.append(f"  f[l+1] = {step}")
        self.values["f[2]"] = shape
        self.lines.append(f"v9 = {self.expression(shape, 1)} + f[2]")
        self.values["v9"] = shape

    def param(self, shape: Shape, members: int = 0) -> str:
        """A parameter of this shape, sometimes through a derived one; with ``members`` the name of a family."""
        known = [name for name, found in self.params.items() if found == (shape, 0)]
        if known and not members and self.rng.random() < 0.3:
            return self.rng.choice(known)
        name = f"p{len(self.params)}"
        self.params[name] = (shape, members)
        square = len(shape) == 2 and shape[0] == shape[1]
        if self.rng.random() < (0.4 if square else 0.2) and not members:
            made = f"q{len(self.derived)}"
            forms = [f"tanh({name})", f"{name}*sigmoid({name})", f"cumsum({name})", f"softmax({name})"]
            if square:
                forms = [f"{name} - {name}.T", f"inv(eye({shape[0]}) + 0.1*{name} - 0.1*{name}.T)", f"{name} @ {name}"]
                forms += [f"0.3*eye({shape[0]})", f"{name}.T", f"{name} + {name}.T - {name}.T", f"inv(2*eye({shape[0]}))"]
            if len(shape) == 1:
                forms += [f"{name} - {name}", f"0*{name} + {self.number()}", f"{self.number()}*{name}"]
            self.derived.append(f"{made} = {self.rng.choice(forms)}")
            return made
        return name

    def varying(self, shape: Shape) -> str:
        """An expression that reads the input or a state."""
        text = self.expression(shape, 2)
        kept = re.sub(r"where\(.* < 1, .*", "", text)  # it may be the other branch that reads it
        return text if any(value in kept for value in self.values) else f"{text} + {self.product(shape)}"

    def bounded(self, shape: Shape) -> str:
        """An expression that cannot grow without bound over the steps."""
        inner = self.expression(shape, 2)
        forms = [f"tanh(0.2*({inner}))", f"sigmoid(0.2*({inner})) - 0.5", f"0.5*sin(tanh(0.2*({inner})))"]
        return self.rng.choice([*forms, f"softmax(0.2*({inner}))"]) if shape[-1] != "1" else self.rng.choice(forms)

    def fitted(self, value: str, shape: Shape) -> str:
        """``value`` brought to a shape."""
        own = self.values[value]
        if own == shape:
            return value
        if len(own) == 1:
            weight = self.param((*shape, *own)) if own != ("1",) or len(shape) == 1 else None
            return f"({weight} @ {value})" if weight else f"{value}*{self.param(shape)}"
        one = f"({value} @ {self.param((own[-1],))})"  # [m]
        return f"({self.param((*shape, own[0]))} @ {one})"

    def product(self, shape: Shape) -> str:
        """A matrix product."""
        rng = self.rng
        vectors = [name for name, own in self.values.items() if len(own) == 1]
        if len(shape) == 2:
            heads = [name for name, own in self.values.items() if len(own) == 2 and own[0] == shape[0]]
            if heads and rng.random() < 0.6:
                chosen = rng.sample(heads, k=min(len(heads), rng.randint(1, 2)))
                width = " + ".join(self.values[name][1] for name in chosen)
                operand = chosen[0] if len(chosen) == 1 else f"[{', '.join(chosen)}]"
                return f"({self.param((*shape, width))} @ {operand})"
            name = rng.choice(vectors)
            return f"({self.param((*shape, *self.values[name]))} @ {name})"
        chosen = rng.sample(vectors, k=min(len(vectors), rng.randint(1, 2)))
        width = " + ".join(self.values[name][0] for name in chosen)
        operand = chosen[0] if len(chosen) == 1 else f"[{', '.join(chosen)}]"
        return f"({self.param((*shape, width))} @ {operand})"

    def narrow(self, shape: Shape, depth: int) -> str:
        """An expression of size 1 along some of the axes of ``shape``."""
        forms: list[Shape] = [("1",)]
        if len(shape) == 2:
            forms += [(shape[0], "1"), ("1", shape[1])]
        return self.expression(self.rng.choice(forms), depth)

    def expression(self, shape: Shape, depth: int) -> str:
        rng = self.rng
        if depth == 0 or rng.random() < 0.15:
            fitting = [name for name, own in self.values.items() if own == shape]
            leaves = [self.param(shape), self.product(shape), self.product(shape), *fitting, *fitting]
            return rng.choice(leaves) if rng.random() < 0.9 else f"({rng.choice(leaves)} {rng.choice('+-*')} {self.number()})"
        wide = rng.choice([s for s in SHAPES if s[:-1] == shape[:-1] and s[-1] != "1"] or [(*shape[:-1], "K")])
        if shape[-1] == "1" and rng.random() < 0.6:
            inner = self.expression(wide, depth - 1)
            other = self.expression(wide, depth - 1)
            return rng.choice([f"{rng.choice(TO_ONE)}({inner})", f"dot({inner}, {other})"])
        matrices = [name for name, own in self.values.items() if len(own) == 2 and own[:1] == shape]
        a = self.expression(shape, depth - 1)
        forms = [
            lambda: f"({a} {rng.choice('+-')} {self.expression(shape, depth - 1)})",
            lambda: f"({a})*({self.expression(shape, depth - 1)})",
            lambda: f"{rng.choice(SMOOTH)}({a})",
            lambda: f"({a})*tanh({self.narrow(shape, depth - 1)})",
            lambda: f"({a} + {self.narrow(shape, depth - 1)})",
            lambda: f"({a})/(1.5 + sin({self.narrow(shape, depth - 1)}))",
            lambda: f"stop_gradient({a})",
            lambda: f"({a})*sin(0.5*t_now)",
            lambda: f"where(t_now < 2, {a}, {self.expression(shape, 0)})",
        ]
        if rng.random() < 0.4:
            forms = self.odd(shape, a, self.expression(shape, 0))
        if shape[-1] != "1" or rng.random() < 0.1:
            forms += [lambda: f"softmax({a})", lambda: f"cumsum({a})", lambda: f"roll({a}, {rng.randint(-2, 2)})"]
            forms += [lambda: f"({a})/(1 + norm({a}))"] + [lambda: f"ln({a}, {self.param(shape)})"] * self.macro
        if len(shape) == 1 and matrices:
            matrix = rng.choice(matrices)
            forms += [lambda: f"({matrix} @ {self.expression(self.values[matrix][1:], 0)})"] * 3
        if len(shape) == 2 and "1" not in shape:
            forms += [lambda: f"outer({self.expression(shape[:1], depth - 1)}, {self.expression(shape[1:], depth - 1)})"] * 3
        return rng.choice(forms)()

    def odd(self, shape: Shape, a: str, b: str) -> list[Callable[[], str]]:
        """Forms that few would write, of an expression ``a`` and a simple one ``b``; SymPy simplifies many of them."""
        rng, number = self.rng, self.number()
        positive = f"1.5 + sin({a})"
        return [
            *[lambda: f"{rng.choice(OTHERS)}({a})"] * 4,
            lambda: f"{rng.choice(POSITIVE)}({positive})",
            lambda: f"{rng.choice(['max', 'min'])}({a}, {rng.choice([b, number])})",
            lambda: f"clip({a}, {rng.choice(['-0.5', 'k0 - 1'])}, {rng.choice(['0.8', '0.5*k1'])})",
            lambda: f"mod({a}, {rng.choice(['0.7', 'k1', positive])})",
            lambda: f"where({b} > 0.2, {b} - 1, {b})",
            lambda: f"where({a} {rng.choice(['<', '<=', '>=', '!='])} {b}, {b} + {number}, {b})",
            lambda: f"where({number} < 1, {a}, {b})",
            lambda: f"where(mod(t_now, 2) == 1, {a}, {b})",
            lambda: f"({b} - {b} + {a})",
            lambda: f"(sigmoid({a})*{b} + (1 - sigmoid({a}))*{b})",
            lambda: f"({a} + 0*{b})",
            lambda: f"({a})*({b})**0",
            lambda: f"({a} + {number}*({b} - {b}))",
            lambda: f"exp({b} - {b})*({a})",
            lambda: f"({positive})**{rng.choice(['0.5', '(-0.5)', '(-1)', 'k1', '(k1 - 3)', '1.5'])}",
            lambda: f"({a})**{rng.choice(['0', '1', '2', '3', 'k1'])}",
            lambda: f"({self.product(shape)}*{b} + {b} + {a})",
            lambda: "({0}*{1} + {0} + {1})".format(self.product(shape), self.product(shape)),
            lambda: f"({a})*{number}",
            lambda: f"({a} - {number})/{rng.choice(['H', 'sqrt(P)', '(1 + abs(H - P))', '(H*D)'])}",
            lambda: f"({a})*sin(t_now + 1)/(t_now + 1)",
            lambda: f"roll([{a}], {rng.choice([0, 7, -11])})",
            lambda: f"stop_gradient({b} + {number})*{a}",
            lambda: f"({a} + {self.param(('1',))}*{self.param(('1',))})",
            lambda: f"({a})*sum({self.expression(('1',), 0)})",
            lambda: f"-({a} - {b})/(-2)",
        ]
