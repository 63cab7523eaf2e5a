"""Random specs of the language beyond vectors: heads, matrix states, functions along an axis, moves, lags, several inputs.

Most values are bounded, so that recurrences stay tame; what no equation reads is given out.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable

VECTOR, HEADS, NUMBER, COLUMN, SHORT, MATRIX = "H", "[N, D]", "1", "[N, 1]", "D", "[D, H]"
STATES = {"s0": VECTOR, "s1": HEADS, "s2": NUMBER, "s3": SHORT, "s4": MATRIX}
ALONG = ("sum", "mean", "var", "norm", "logsumexp")


class RandomLanguageCell:
    """One random spec; ``text()`` is its YAML."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.params: dict[str, str] = {}
        self.values: defaultdict[str, list[str]] = defaultdict(list)
        self.unread: list[str] = []

    def param(self, shape: str) -> str:
        """The name of a new parameter."""
        name = f"P{len(self.params)}"
        self.params[name] = shape
        return name

    def pick(self, kind: str) -> str:
        """A value of this kind, rather one that nothing reads yet."""
        fresh = [name for name in self.values[kind] if name in self.unread]
        name = self.rng.choice(fresh if fresh and self.rng.random() < 0.6 else self.values[kind])
        if name in self.unread:
            self.unread.remove(name)
        return name

    def along(self) -> str:
        """A function along the last axis."""
        return self.rng.choice(ALONG)

    def shift(self) -> int:
        """How far to rotate."""
        return self.rng.choice((-2, -1, 1, 3))

    def rules(self, kind: str) -> list[Callable[[], str]]:
        """What can stand on the right side of an equation of this kind."""
        pick, param = self.pick, self.param
        return {
            VECTOR: [
                lambda: f"tanh({param('[H, H]')} @ {pick(VECTOR)} + {param('[H, I]')} @ x[t])",
                lambda: f"{param('[H, H + D]')} @ [{pick(VECTOR)}, {pick(SHORT)}]",
                lambda: f"0.3*cumsum(softmax({pick(VECTOR)})) + {pick(VECTOR)}*{pick(NUMBER)}",
                lambda: f"roll({pick(VECTOR)}, {self.shift()})*sigmoid({pick(VECTOR)})",
                lambda: f"softmax({pick(VECTOR)} + {param('H')})",
                lambda: f"{param('[H, I]')} @ x[t-1] + {pick(VECTOR)}",
            ],
            HEADS: [
                lambda: f"tanh({param('[N, D, D]')} @ {pick(HEADS)} + u[t])",
                lambda: f"{param('[N, D, H]')} @ {pick(VECTOR)} + {param('[N, D]')}*{pick(HEADS)}",
                lambda: f"{param('[N, D, 2*D]')} @ [{pick(HEADS)}, {pick(HEADS)}]",
                lambda: f"softmax({pick(HEADS)})*{pick(COLUMN)}",
                lambda: f"roll({pick(HEADS)}, {self.shift()}) - 0.2*cumsum({pick(HEADS)})",
                lambda: f"{pick(HEADS)}*{pick(NUMBER)} + {param('[N, 1]')}*sin({pick(HEADS)})",
            ],
            NUMBER: [
                lambda: f"tanh({self.along()}({pick(VECTOR)}))",
                lambda: f"tanh({self.along()}({pick(SHORT)}))",
                lambda: f"dot({pick(SHORT)}, {param('D')})",
            ],
            COLUMN: [
                lambda: f"sin({self.along()}({pick(HEADS)}))",
                lambda: f"sigmoid(dot({pick(HEADS)}, {pick(HEADS)}))",
            ],
            SHORT: [
                lambda: f"tanh({pick(MATRIX)} @ {pick(VECTOR)})",
                lambda: f"{param('[D, H]')} @ {pick(VECTOR)}*{pick(NUMBER)}",
                lambda: f"tanh({param('[D, I]')} @ x[t])/(1 + exp({pick(NUMBER)}))",
            ],
            MATRIX: [
                lambda: f"outer({pick(SHORT)}, {pick(VECTOR)}) + 0.5*{pick(MATRIX)}",
                lambda: f"sigmoid({param('[D, 1]')})*{pick(MATRIX)} + outer({pick(SHORT)}, softmax({pick(VECTOR)}))",
                lambda: f"tanh({pick(MATRIX)}*{param('[1, H]')})*{pick(NUMBER)}",
            ],
        }[kind]

    def right(self, kind: str) -> str:
        """A right side of this kind."""
        return self.rng.choice(self.rules(kind))()

    def text(self) -> str:
        """The spec."""
        for name, kind in STATES.items():
            self.values[kind].append(f"{name}[t-1]")
        self.values[COLUMN].append(self.param("[N, 1]"))
        equations = []
        for number in range(self.rng.randint(3, 9)):
            kind = self.rng.choice((VECTOR, HEADS, NUMBER, COLUMN, SHORT, MATRIX))
            equations.append(f"v{number} = {self.right(kind)}")
            self.values[kind].append(f"v{number}")
            self.unread.append(f"v{number}")
        equations += [f"{name}[t] = tanh({self.right(kind)}) + 0.1*{name}[t-1]" for name, kind in STATES.items()]
        equations[-5] += f" + {self.param('[H, I]')} @ x[t]"
        equations[-4] += f" - 0.1*{self.param('[N, D]')}"  # so that parameters tell every dim
        whole = "\n".join(f"  {equation}" for equation in equations)
        inputs = "x: I, u: [N, D]" if "u[t]" in whole else "x: I"
        read = set(re.findall(r"\w+", whole))
        params = "\n".join(f"  {name}: {shape}" for name, shape in self.params.items() if name in read)
        outputs = ", ".join([*self.rng.sample(sorted(STATES), 2), *self.unread])
        states = ", ".join(f"{name}: {kind}" for name, kind in STATES.items())
        return (
            f"name: random_language\ninputs: {{{inputs}}}\nstates: {{{states}}}\noutputs: [{outputs}]\n"
            f"params:\n{params}\nequations: |\n{whole}\n"
        )
