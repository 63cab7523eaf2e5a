"""Random specs: equations of random shape that use the language in combinations that nobody thought of."""

from __future__ import annotations

import random
import re

SMOOTH = ("sigmoid", "tanh", "sin", "softplus", "silu", "softsign", "erf", "elu", "gelu", "logsigmoid")
KINKED = ("relu", "abs", "leaky_relu", "hard_tanh")


class RandomCell:
    """Writes one spec; the same seed gives the same text."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.name = f"random_{seed}"
        self.params: dict[str, list[str]] = {}
        self.derived: list[tuple[str, str]] = []

    def text(self) -> str:
        rng = self.rng
        dims = ["H", "P"]
        states = {f"s{k}": rng.choice(dims) for k in range(rng.randint(1, 3))}
        if rng.random() < 0.2:
            states["one"] = "1"
        self.values = {"x[t]": "I"} | {f"{name}[t-1]": size for name, size in states.items()}
        lines = []
        for k in range(rng.randint(1, 5)):
            size = rng.choice([*dims, *states.values()])
            lines.append(f"v{k} = {self.varying(size, 3)}")
            self.values[f"v{k}"] = size
        for name, size in states.items():
            lines.append(f"{name}[t] = {self.bounded(size)} + 0.1*{self.param([size])}")
            self.values[f"{name}[t]"] = size
        outputs = list(states)[: rng.randint(1, len(states))]
        if rng.random() < 0.5:
            size = rng.choice(dims)
            lines.append(f"out = {self.varying(size, 2)}")
            outputs.append("out")
        used = " ".join(lines)
        outputs += [v for v in self.values if v.startswith("v") and len(re.findall(rf"\b{v}\b", used)) < 2]
        outputs += [s for s in states if s not in outputs and f"{s}[t-1]" not in used and used.count(f"{s}[t]") < 2]
        for value in (v for v in ("x[t]", *(f"{s}[t-1]" for s in states)) if v not in used):
            size = self.values[value]
            first = next(iter(states))
            same = value if size == states[first] else f"{self.param([states[first], size])} @ {value}"
            index = next(i for i, line in enumerate(lines) if line.startswith(f"{first}[t] "))
            lines[index] += f" + 0.1*({same})"
        for name, value in reversed(self.derived):
            if re.search(rf"\b{name}\b", " ".join(lines)):
                lines.append(f"{name} = {value}")
        rng.shuffle(lines)
        parts = [f"name: {self.name}", "inputs: {x: I}", "states:"]
        parts += [f"  {name}: {size}" for name, size in states.items()]
        parts += [f"outputs: [{', '.join(outputs)}]", "params:" if self.params else "params: {}"]
        for name, shape in self.params.items():
            if not re.search(rf"\b{name}\b", " ".join(lines)):
                continue
            trainable = ", trainable: false" if rng.random() < 0.1 else ""
            parts.append(f"  {name}: {{shape: [{', '.join(shape)}], init: {{normal: 0.5}}{trainable}}}")
        return "\n".join([*parts, "equations: |", *(f"  {line}" for line in lines)]) + "\n"

    def param(self, shape: list[str]) -> str:
        """A parameter of this shape, new or known, sometimes through a derived one."""
        known = [name for name, other in self.params.items() if other == shape]
        if known and self.rng.random() < 0.4:
            return self.rng.choice(known)
        name = f"p{len(self.params)}"
        self.params[name] = shape
        if self.rng.random() < 0.2:
            made = f"q{len(self.derived)}"
            forms = [f"tanh({name})", f"2*{name} - 0.1", f"{name}*sigmoid({name})"]
            if len(shape) == 2 and shape[0] == shape[1]:
                forms += [f"{name} - {name}.T", f"{name} @ {name}", f"{name} - 0.5*eye({shape[0]})"]
            self.derived.append((made, self.rng.choice(forms)))
            return made
        return name

    def varying(self, size: str, depth: int) -> str:
        """An expression that reads the input or a state."""
        text = self.expression(size, depth)
        return text if any(value in text for value in self.values) else f"{text} + {self.product(size)}"

    def value(self, size: str) -> str | None:
        fitting = [name for name, other in self.values.items() if other == size]
        return self.rng.choice(fitting) if fitting else None

    def bounded(self, size: str) -> str:
        """An expression that cannot grow without bound over the steps."""
        inner = self.expression(size, 2)
        return self.rng.choice([f"tanh({inner})", f"sigmoid({inner}) - 0.5", f"0.3*softsign({inner})", f"0.5*sin({inner})"])

    def product(self, size: str) -> str:
        """A matrix product with something, sometimes a concatenation."""
        rng = self.rng
        if rng.random() < 0.3:
            parts = rng.sample(list(self.values), k=min(len(self.values), rng.randint(2, 3)))
            width = " + ".join(self.values[p] for p in parts)
            return f"{self.param([size, width])} @ [{', '.join(parts)}]"
        name = rng.choice(list(self.values))
        if rng.random() < 0.15:
            return f"{self.param([self.values[name], size])}.T @ {name}"
        if rng.random() < 0.2:
            other = rng.choice([v for v in self.values if self.values[v] == self.values[name]])
            return f"{self.param([size, self.values[name]])} @ ({name}*{other})"
        return f"{self.param([size, self.values[name]])} @ {name}"

    def expression(self, size: str, depth: int) -> str:
        rng = self.rng
        if depth == 0 or rng.random() < 0.15:
            leaves = [self.param([size]), self.product(size), self.product(size)]
            value = self.value(size)
            leaves += [value, value, value] if value else []
            return rng.choice(leaves)
        a = self.expression(size, depth - 1)
        kind = rng.randrange(14)
        if kind < 3:
            return f"({a} {rng.choice('+-')} {self.expression(size, depth - 1)})"
        if kind < 6:
            return f"({a})*({self.expression(size, depth - 1)})"
        if kind < 9:
            return f"{rng.choice(SMOOTH)}({a})"
        if kind == 9:
            return rng.choice(
                [f"{rng.choice(KINKED)}({a})", f"max({a}, {self.expression(size, 0)})", f"where({a} < 0.1, {a}, 0.5)"]
            )
        if kind == 10:
            return rng.choice([f"roll({a}, {rng.randint(-2, 2)})", f"stop_gradient({a})", f"({a})**2", f"-({a})/3"])
        if kind == 11:
            return f"({a})*{self.param(['1'])}"
        if kind == 12:
            return f"({a})/(1.5 + sin({self.expression(size, 0)}))"
        return f"({a})*({self.param(['1', self.values['x[t]']])} @ x[t])"
