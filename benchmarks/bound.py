"""What bounds a NumPy module: the time of every statement alone, beside that of the whole.

    python benchmarks/bound.py lstm                                  # T, B, I, H = 100, 32, 64, 128
    python benchmarks/bound.py gru --shape 200,16,32,32 --threads 1
    python benchmarks/bound.py lstm,gru --shape 200,16,32,32 --shape 100,32,64,128 --json bound.json

Each statement of the generated ``forward`` and ``backward`` is run alone: one of a loop over time for all its steps, on the
arrays of each; any other in a tight loop of its own. To these comes what it costs to bring all arrays of a pass into a core's
cache once, as far as a statement alone does not pay for it ("moved", see ``traffic.py``). The sum is what NumPy's calls and the
bytes that they move cost by themselves: what a module that calls NumPy so can reach at best. The ratio at the end says how far
it is from that. It can be below 1: in between, other statements leave a processor's clock, caches and threads in another state.

On a shared machine the same loop takes twice as long while a stranger's program has the other half of a core, and that changes
from second to second. So both sides are the *least* of many runs, over several rounds: what the processor does when it is left
alone. That is in favour of the sum, as a statement needs a quiet moment of microseconds, and the whole one of milliseconds.

To get at a statement's arrays, the module's text is parsed, and a call put before every statement.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from cells import GENERATED, Case, arguments, load_module, module_file
from machine import available_processors, machine, pools
from options import names, shape
from report import heading, number, write
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from traffic import Touches, Trace, Walk

PASSES = ("forward", "backward")
KINDS = ("product", "ufunc", "other")
PROBE = "__probe"
REPEATED = 8  # runs between two refills of the arrays: few, or a product in place would shrink them to denormal numbers
SHORT = 1e-4  # seconds: only what takes less is repeated
BATCHES = 5, 100  # at least and at most
SECONDS = 0.01  # for a statement, within these limits
SQUARE = 1024
ABOUT = (
    "Milliseconds in float32: of a pass's statements, each alone, by kind; of bringing their arrays into a cache ('moved'); "
    "their sum; and of the pass as a whole ('measured'). The least of several rounds."
)


class Cost(NamedTuple):
    """A statement by itself."""

    direction: str
    text: str
    kind: str
    runs: int  # in a call of the whole
    us: float  # of one run
    flops: int  # of one run, for products of matrices
    touches: Touches

    @property
    def ms(self) -> float:
        """In a call of the whole."""
        return self.us * self.runs / 1e3


class Round(NamedTuple):
    """What is measured of a case at a time."""

    costs: list[Cost]  # of every statement by itself
    size: int  # bytes that both passes touch
    whole: dict[str, float]  # milliseconds of each pass


# --- statements --------------------------------------------------------------------------------------------


class Probed(ast.NodeTransformer):
    """Puts a call of the probe before the statements of ``forward``, ``backward`` and of every function with a loop.

    ``statements`` are those that it announces, by number; of a loop, that is its head.
    """

    def __init__(self, tree: ast.Module) -> None:
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        looping = {node.name for node in functions if any(isinstance(inner, ast.For) for inner in ast.walk(node))}
        self.followed = looping | set(PASSES)
        self.statements: list[ast.stmt] = []
        self.loops: dict[int, ast.For] = {}  # the loop around each of them that has one

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name in self.followed:
            node.body = self.block(node.body)
        return node

    def block(self, body: Sequence[ast.stmt], loop: ast.For | None = None) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for statement in body:
            match statement:
                case ast.If() | ast.With():
                    self.inner(statement, loop)
                case ast.For():
                    found.append(self.announced(ast.parse(f"{head(statement)} pass").body[0], loop))
                    self.inner(statement, statement)
                case ast.Expr(value=ast.Constant()) | ast.Raise() | ast.Pass():
                    pass
                case _ if not self.calls_followed(statement):
                    value = statement.value if isinstance(statement, ast.Return) else None
                    found.append(self.announced(statement if value is None else ast.Expr(value), loop))
            found.append(statement)
        return found

    def inner(self, statement: ast.If | ast.With | ast.For, loop: ast.For | None) -> None:
        statement.body = self.block(statement.body, loop)
        if not isinstance(statement, ast.With):
            statement.orelse = self.block(statement.orelse, loop)

    def calls_followed(self, statement: ast.stmt) -> bool:
        """What such a function does is timed there."""
        calls = (node.func for node in ast.walk(statement) if isinstance(node, ast.Call))
        return any(isinstance(function, ast.Name) and function.id in self.followed for function in calls)

    def announced(self, statement: ast.stmt, loop: ast.For | None) -> ast.stmt:
        if loop is not None:
            self.loops[len(self.statements)] = loop
        self.statements.append(statement)
        return ast.parse(f"{PROBE}({len(self.statements) - 1}, dict(locals()))").body[0]


def head(loop: ast.For) -> str:
    """The first line of a loop."""
    return f"for {ast.unparse(loop.target)} in {ast.unparse(loop.iter)}:"


class Probe:
    """Counts the runs of every statement, or times each where half of them are over, and then calls ``between``."""

    def __init__(self, probed: Probed, names: dict[str, Any], between: Callable[[], object]) -> None:
        self.statements, self.loops, self.names, self.between = probed.statements, probed.loops, names, between
        self.direction = PASSES[0]
        self.seen: Counter[tuple[str, int]] = Counter()
        self.runs: Counter[tuple[str, int]] = Counter()  # empty while they are counted
        self.trace = Trace()
        self.costs: dict[tuple[str, int], Cost] = {}

    def __call__(self, index: int, scope: dict[str, Any]) -> None:
        key = self.direction, index
        self.seen[key] += 1
        if not self.runs:
            self.trace.add(*key, [value for value in values_of(self.statements[index], scope) if isinstance(value, np.ndarray)])
        elif self.seen[key] == (self.runs[key] + 1) // 2:
            self.costs[key] = self.cost(index, scope)

    def cost(self, index: int, scope: dict[str, Any]) -> Cost:
        statement, key = self.statements[index], (self.direction, index)
        kind, flops = kind_of(statement, self.names | scope)
        seconds = seconds_of(statement, scope, self.names, self.loops.get(index))
        self.between()
        touches = self.trace.touches(*key)
        return Cost(self.direction, ast.unparse(statement), kind, self.runs[key], seconds * 1e6, flops, touches)


def kind_of(statement: ast.stmt, scope: dict[str, Any]) -> tuple[str, int]:
    """``product``, ``ufunc`` or ``other``, and the floating-point operations of a product of two matrices."""
    call = getattr(statement, "value", None)
    if not isinstance(call, ast.Call):
        return "other", 0
    function = eval(ast.unparse(call.func), scope)
    if function in (np.dot, np.matmul):
        left, result = (eval(ast.unparse(node), scope) for node in (call.args[0], call))
        return "product", 2 * result.size * left.shape[-1]
    if function in (np.einsum, np.tensordot):
        return "product", 0
    return "ufunc" if isinstance(getattr(function, "__self__", function), np.ufunc) else "other", 0


def arrays_of(statement: ast.stmt, scope: dict[str, Any]) -> Iterator[np.ndarray]:
    """The arrays that a statement may write to; of a view, the whole array that it is of."""
    for value in values_of(statement, scope):
        while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
            value = value.base
        if isinstance(value, np.ndarray) and value.flags.writeable:
            yield value


def values_of(statement: ast.stmt, scope: dict[str, Any]) -> Iterator[Any]:
    """The values of the names in a statement, such as ``a`` and ``b.c``; none of those that it binds."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in scope:
                yield functools.reduce(lambda value, name: getattr(value, name, None), attributes(node), scope[root.id])


def attributes(node: ast.expr) -> list[str]:
    """The attributes in ``a.b.c``, from left to right; what a call leaves out, such as masks, has none of its own."""
    return [*attributes(node.value), node.attr] if isinstance(node, ast.Attribute) else []


def seconds_of(statement: ast.stmt, scope: dict[str, Any], names: dict[str, Any], loop: ast.For | None = None) -> float:
    """A run of a statement, the fastest of many, without the loop around it. The arrays are as before then.

    In a ``loop`` it is run for all turns, a few at a time; in between, what every turn writes to is as it was.
    """
    parts = [statement] if loop is None else [statement, loop.target, loop.iter]
    used = sorted({node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)} & set(scope))
    given = {name: scope[name] for name in used}
    texts = (ast.unparse(statement), "pass")
    snapshot = [(array, array.copy()) for array in {id(array): array for array in arrays_of(statement, scope)}.values()]
    if loop is None:
        once, empty = (repeated_of(text, used, names) for text in texts)
        runs = 1 if once(range(1), given) > SHORT else REPEATED
        turns: Sequence[Any] = range(runs)
    else:
        kept = {id(array) for array in arrays_of(written(statement, loop), scope)}
        again = [(array, values) for array, values in snapshot if id(array) in kept]
        once, empty = (walk_of(text, used, names, loop.target, functools.partial(refill, again)) for text in texts)
        steps = list(eval(ast.unparse(loop.iter), names | given))
        runs, turns = len(steps), [steps[k : k + REPEATED] for k in range(0, len(steps), REPEATED)]
    batches: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(batches) < BATCHES[0] or (len(batches) < BATCHES[1] and time.perf_counter() < end):
        refill(snapshot)
        batches.append(once(turns, given))
    refill(snapshot)
    idle = min(empty(turns, given) for _ in range(BATCHES[0]))
    return max(0.0, min(batches) - idle) / runs


def written(statement: ast.stmt, loop: ast.For) -> ast.stmt:
    """What a call in a loop writes to, unless it is another array at every turn; as a statement."""
    places: list[ast.expr] = []
    if isinstance(call := getattr(statement, "value", None), ast.Call):
        places = [*call.args[-1:], *(word.value for word in call.keywords if word.arg == "out")]
    fresh = {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}
    same = [place for place in places if not isinstance(place, ast.Name) or place.id not in fresh]
    return ast.Expr(ast.Tuple(same, ast.Load()))


def refill(snapshot: list[tuple[Any, Any]]) -> None:
    for array, values in snapshot:
        np.copyto(array, values)


def repeated_of(text: str, used: Sequence[str], names: dict[str, Any]) -> Callable[[Any, dict[str, Any]], float]:
    """Runs a statement once, then as often as it is told, and returns the seconds of the latter. Names are local, as there."""
    lines = [
        f"def timed(_turns, _clock, {', '.join(used)}):",
        indent(text, "    "),
        "    _start = _clock()",
        "    for _ in _turns:",
        indent(text, "        "),
        "    return _clock() - _start",
    ]
    return compiled(lines, names)


def walk_of(
    text: str, used: Sequence[str], names: dict[str, Any], target: ast.expr, between: Callable[[], None]
) -> Callable[[Any, dict[str, Any]], float]:
    """Runs a statement for pieces of a loop's turns, and returns the seconds without what comes ``between`` the pieces."""
    lines = [
        f"def timed(_pieces, _clock, {', '.join(used)}):",
        "    _seconds = 0.0",
        "    for _piece in _pieces:",
        "        _between()",
        "        _start = _clock()",
        f"        for {ast.unparse(target)} in _piece:",
        indent(text, "            "),
        "        _seconds += _clock() - _start",
        "    return _seconds",
    ]
    return compiled(lines, {**names, "_between": between})


def compiled(lines: Sequence[str], names: dict[str, Any]) -> Callable[[Any, dict[str, Any]], float]:
    """The function ``timed`` that ``lines`` define."""
    found: dict[str, Any] = {}
    exec(compile("\n".join(lines), "<statement>", "exec"), names, found)
    return lambda turns, given: float(found["timed"](turns, time.perf_counter, **given))


# --- a module ----------------------------------------------------------------------------------------------


def costs(case: Case, folder: Path = GENERATED, between: Callable[[], object] = lambda: None) -> tuple[list[Cost], int]:
    """Every statement of the passes of a cell's module, and the bytes that they touch; ``between`` is called after each."""
    tree = ast.parse(module_file(case.cell, "numpy", folder).read_text("utf-8"))
    probed = Probed(tree)
    probed.visit(tree)
    names: dict[str, Any] = {"__name__": f"{case.cell}_probed"}
    probe = names[PROBE] = Probe(probed, names, between)
    exec(compile(ast.fix_missing_locations(tree), "<probed>", "exec"), names)
    run = call_of(SimpleNamespace(**names), case)
    for _ in range(2):  # counts, then times
        for probe.direction in PASSES:
            run[probe.direction]()
        probe.runs, probe.seen = probe.seen, Counter()
    return list(probe.costs.values()), probe.trace.size()


def call_of(module: Any, case: Case) -> dict[str, Callable[[], Any]]:
    """The passes of a module with a workspace; the backward pass takes the tape of the last forward pass."""
    given = arguments(case, module)
    params, state, dfinal = module.Params(**given.params), module.State(**given.state), module.State(**given.dfinal)
    ws = module.Workspace(case.T, case.B, params)
    tape: list[Any] = [None]

    def forward() -> None:
        _, _, tape[0] = module.forward(params, given.x, state, workspace=ws)

    return dict(zip(PASSES, (forward, lambda: module.backward(params, tape[0], given.dy, dfinal, workspace=ws)), strict=True))


class Whole:
    """Both passes as they are, called between the statements, as a machine's speed changes from one second to the next."""

    def __init__(self, case: Case, seconds: float, folder: Path = GENERATED) -> None:
        self.run = call_of(load_module(case.cell, "numpy", folder), case)
        self.times: dict[str, list[float]] = {name: [] for name in PASSES}
        self.left = seconds

    def __call__(self) -> None:
        """Two calls while there is time left, of which the second, on warm caches, counts."""
        if self.left < 0 and len(self.times[PASSES[0]]) >= 3:
            return
        start = time.perf_counter()
        for counts in (False, True):
            for name in PASSES:
                begin = time.perf_counter()
                self.run[name]()
                if counts:
                    self.times[name].append((time.perf_counter() - begin) * 1e3)
        self.left -= time.perf_counter() - start

    def ms(self) -> dict[str, float]:
        """The fastest of each pass, in milliseconds."""
        return {name: min(found) for name, found in self.times.items()}


def measured(case: Case, seconds: float, folder: Path = GENERATED) -> Round:
    whole = Whole(case, seconds, folder)
    return Round(*costs(case, folder, whole), whole.ms())


def square_rate() -> float:
    """GFLOP/s of a product of two large square matrices in float32."""
    left = np.random.default_rng(0).standard_normal((SQUARE, SQUARE), dtype=np.float32)
    right, out = left.T.copy(), np.empty_like(left)
    taken = repeated_of("matmul(left, right, out=out)", ("matmul", "left", "right", "out"), {})
    given = {"matmul": np.matmul, "left": left, "right": right, "out": out}
    return 2e-9 * SQUARE**3 / statistics.median(taken(range(1), given) for _ in range(7))


# --- tables ------------------------------------------------------------------------------------------------


def statement_table(direction: str, found: Sequence[Cost], least: float) -> Table:
    """The statements of a pass in the order in which they come; what takes less than ``least`` milliseconds in one line."""
    table = Table(title=direction, title_justify="left")
    table.add_column("statement", overflow="fold")
    for column in ("kind", "runs", "µs", "ms", "GFLOP/s"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    chosen = [cost for cost in found if cost.direction == direction]
    for cost in chosen:
        if cost.ms >= least:
            rate = number(cost.flops / cost.us / 1e3) if cost.flops and cost.us else ""
            text = " ".join(cost.text.split())
            table.add_row(escape(text), cost.kind, str(cost.runs), f"{cost.us:.2f}", f"{cost.ms:.3f}", rate)
    if small := [cost.ms for cost in chosen if cost.ms < least]:
        table.add_row(f"{len(small)} others", "", "", "", f"{sum(small):.3f}", "")
    return table


def totals(found: Round, walk: Walk) -> dict[str, dict[str, float]]:
    """For each pass and both: milliseconds of each part, their sum, the time of the whole, and the whole over the sum."""
    made = {}
    for name, directions in {**{name: (name,) for name in PASSES}, "both": PASSES}.items():
        chosen = [cost for cost in found.costs if cost.direction in directions]
        parts = {kind: sum(cost.ms for cost in chosen if cost.kind == kind) for kind in KINDS}
        parts["moved"] = 1e3 * sum(walk.seconds(cost.touches, found.size) for cost in chosen)
        bound, taken = sum(parts.values()), sum(found.whole[direction] for direction in directions)
        made[name] = parts | {"sum": bound, "measured": taken, "measured / sum": taken / bound}
    return made


def total_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title="milliseconds", title_justify="left")
    for column in ("", *next(iter(rows.values()))):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in row.values()))
    return table


def case_table(found: Mapping[Case, Mapping[str, Mapping[str, float]]]) -> Table:
    """A row for both passes of every case."""
    table = Table(title="forward + backward, milliseconds", title_justify="left")
    columns = list(next(iter(found.values()))["both"])
    for column in ("cell", "T, B, I, H", *columns):
        table.add_column(column, justify="left" if column == "cell" else "right")
    for case, rows in found.items():
        table.add_row(case.cell, ", ".join(map(str, case.shape)), *(f"{rows['both'][column]:.3f}" for column in columns))
    return table


# --- the command line --------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bound.py", description="What NumPy's calls in a generated module cost by themselves."
    )
    add = parser.add_argument
    add("cells", type=names, metavar="CELL[,CELL]", help="generated cells; of several, the sums alone are shown")
    add("--shape", type=shape, action="append", metavar="T,B,I,H", help="may be given again (default: 100,32,64,128)")
    add("--threads", type=int, default=available_processors(), help="(default: all processors)")
    add("--seconds", type=float, default=1.0, help="for the passes as a whole (default: 1)")
    add("--rounds", type=int, default=5, help="of which the fastest runs are shown (default: 5)")
    add("--all", action="store_true", help="also the statements that take less than a five hundredth of the time")
    add("--json", type=Path, metavar="FILE", help="write the sums there")
    add("--generated", type=Path, default=GENERATED, metavar="DIR", help="where the generated modules are")
    options = parser.parse_args(argv)
    options.shape = options.shape or [(100, 32, 64, 128)]
    if not 1 <= options.threads <= available_processors():
        parser.error(f"--threads: there are {available_processors()} processors")
    if options.rounds < 1:
        parser.error("--rounds starts at 1")
    for cell in options.cells:
        if not module_file(cell, "numpy", options.generated).exists():
            parser.error(f"there is no {cell}_numpy.py in {options.generated.name}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 wrong usage, or a cell for which there are no numbers."""
    options = parse(argv)
    cases = [Case(cell, *sizes)._replace(threads=options.threads) for cell in options.cells for sizes in options.shape]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    host = machine(options.threads)
    console.print(f"{host['cpu']}, {options.threads} threads, numpy {host['numpy']} ({host['blas']})")
    rounds: dict[Case, list[Round]] = {case: [] for case in cases}
    walk = Walk()
    try:
        for _ in range(options.rounds):
            walk.measure()
            for case, found in rounds.items():
                found.append(measured(case, options.seconds, options.generated))
    except ValueError as error:
        print(f"bound: {error}", file=sys.stderr)
        return 2
    best = {case: fastest(found) for case, found in rounds.items()}
    sums = {case: totals(found, walk) for case, found in best.items()}
    if len(cases) == 1:
        show(console, cases[0], best[cases[0]].costs, sums[cases[0]], options.all)
    else:
        console.print(case_table(sums))
    if options.json:
        results = [{"cell": case.cell, "shape": case.shape, "ms": rows} for case, rows in sums.items()]
        write(options.json, heading(ABOUT, host, rounds=options.rounds, seconds=options.seconds) | {"results": results})
    return 0


def fastest(rounds: Sequence[Round]) -> Round:
    """Of several rounds, the least time of each statement, and of each pass."""
    costs = [min(same, key=lambda cost: cost.us) for same in zip(*(found.costs for found in rounds), strict=True)]
    return Round(costs, rounds[0].size, {name: min(found.whole[name] for found in rounds) for name in PASSES})


def show(
    console: Console, case: Case, found: Sequence[Cost], rows: Mapping[str, Mapping[str, float]], everything: bool
) -> None:
    """One case, statement by statement."""
    console.print(f"{case.cell}, T={case.T} B={case.B} I={case.I} H={case.H}")
    least = 0.0 if everything else sum(cost.ms for cost in found) / 500
    for direction in PASSES:
        console.print(statement_table(direction, found, least))
    console.print(total_table(rows))
    products = [cost for cost in found if cost.flops]
    if spent := sum(cost.ms for cost in products):
        rate = sum(cost.flops * cost.runs for cost in products) / spent / 1e6
        console.print(
            f"products of matrices: {number(rate)} GFLOP/s; of two squares of {SQUARE}: {number(square_rate())} GFLOP/s"
        )


def with_threads() -> None:
    """Begins again if the thread pools were made for another number of threads: BLAS reads that when it is loaded."""
    wanted = pools(parse(None).threads)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


if __name__ == "__main__":
    with_threads()
    sys.exit(main())
